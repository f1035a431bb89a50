//! Check: every transition replayed, and compared with what its version records.

use std::{collections::BTreeSet, ops::Bound::Unbounded};

use anwansi_proofs::{Digest, Input, TransitionId, Version};
use bytes::Bytes;

use super::{
    evidence,
    journal::{self, About},
    read_spec, registry, replay,
};
use crate::{
    Damage, Error,
    engine::{Direction, Engine, Keyspace},
    snapshot,
    tree::Pages,
};

/// Checks everything that the ledger keeps, as of the newest version; `note` is told what was found of
/// each part, and answers with an error if the check is to end.
///
/// # Errors
/// Those of `note`, and of storage.
pub(crate) fn check(
    engine: &dyn Engine,
    pages: &Pages,
    newest: Version,
    mut note: impl FnMut(Result<(), Error>) -> Result<(), Error>,
) -> Result<(), Error> {
    let scan = |space| engine.scan(space, Unbounded, Unbounded, Direction::Ascending);
    let (mut seen, mut named) = (BTreeSet::new(), BTreeSet::new());
    for entry in scan(Keyspace::Ledger) {
        let (key, value) = entry?;
        match About::of_entry(&key, &value) {
            Some(About::Registry(version)) => note(registry(engine, version).map(drop))?,
            Some(About::Transition(id)) if !seen.insert(id) => {}
            Some(About::Transition(id)) => {
                note(check_transition(engine, pages, newest, &id, &mut named))?;
            }
            _ => note(Err(Error::Damaged(Damage::Ledger)))?,
        }
    }
    for entry in scan(Keyspace::Blobs) {
        let (key, _): (Bytes, Bytes) = entry?;
        match About::of_blob(&key) {
            Some(About::Content(digest)) => note(journal::blob(engine, &digest).map(drop))?,
            Some(About::Readable(digest)) => drop(named.insert(digest)),
            _ => note(Err(Error::Damaged(Damage::Ledger)))?,
        }
    }
    for digest in named {
        let found = journal::blob(engine, &digest)
            .and_then(|blob| Ok(blob.is_some() && journal::is_marked(engine, &digest)?));
        let missing = || Err(Error::Damaged(Damage::Blob(digest)));
        note(found.and_then(|found| if found { Ok(()) } else { missing() }))?;
    }
    Ok(())
}

/// Replays a transition. What has to be readable by now is added to `named`.
fn check_transition(
    engine: &dyn Engine,
    pages: &Pages,
    newest: Version,
    id: &TransitionId,
    named: &mut BTreeSet<Digest>,
) -> Result<(), Error> {
    let damaged = Err(Error::Damaged(Damage::Transition(*id)));
    // In this order: a decision that comes between shows in the second.
    let is_open = journal::is_open(engine, id)?;
    let Some(kept) = journal::transition(engine, id)? else { return damaged };
    let spec = read_spec(engine, id)?;
    named.extend(spec.inputs.iter().filter_map(|input| match input {
        Input::Blob(digest) => Some(*digest),
        Input::Data(_) => None,
    }));
    let decided = kept.decided.map(|decided| Version(decided.version));
    let Some(decided) = decided.filter(|decided| *decided <= newest) else {
        // Its facts are still growing: each is read, and no more can be said.
        registry(engine, Version(kept.opened))?;
        journal::facts(engine, id)?;
        return if decided.is_none() && !is_open { damaged } else { Ok(()) };
    };
    if is_open {
        return damaged;
    }
    let (open, _) = replay(engine, id)?;
    let tasks = snapshot::tasks(engine, pages, decided)?;
    let (_, records) = evidence::records(&tasks, id, decided)?;
    let same = records.len() == open.tasks.len()
        && open
            .tasks
            .iter()
            .zip(&records)
            .all(|(task, record)| task.record(record.index, record.status) == *record);
    if !same {
        return damaged;
    }
    named.extend(records.iter().flat_map(|record| {
        record.digest.into_iter().chain(record.dissent.iter().map(|(digest, _)| *digest))
    }));
    Ok(())
}
