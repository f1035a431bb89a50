//! Check: every transition that is kept replayed, and compared with what its version records.

use std::{collections::BTreeSet, ops::Bound::Unbounded};

use anwansi_proofs::{Apply, Digest, Proof, Spec, TransitionId, Version, record::Outcome};

use super::{
    Desk,
    book::inputs,
    dropped::{Need, needs_registry},
    evidence,
    journal::{self, About, Moment},
    read_spec, registry, replay,
};
use crate::{
    Damage, Error,
    engine::{Direction, Engine, Keyspace},
    snapshot,
    tree::Pages,
    version,
};

/// Checks everything that the ledger keeps, as of the newest version, and counts what is left of what it does not keep;
/// `note` is told what was found of each part, and answers with an error if the check is to end. Nothing is pruned
/// meanwhile.
///
/// # Errors
/// Those of `note`, and of storage.
pub(crate) fn check(
    desk: &Desk,
    engine: &dyn Engine,
    pages: &Pages,
    newest: Version,
    note: impl FnMut(Result<(), Error>) -> Result<(), Error>,
) -> Result<u64, Error> {
    let horizon = desk.horizon();
    let (seen, blobs, left) = (BTreeSet::new(), Blobs::default(), 0);
    let mut check = Check { engine, pages, horizon, newest, note, seen, blobs, left };
    (check.note)(journal::horizon(engine).map(drop))?;
    check.ledger()?;
    check.blobs(desk)?;
    Ok(check.left)
}

/// A check on its way.
struct Check<'a, F> {
    engine: &'a dyn Engine,
    pages: &'a Pages,
    /// The oldest version whose decisions are kept.
    horizon: Version,
    newest: Version,
    note: F,
    /// The transitions that were looked at.
    seen: BTreeSet<TransitionId>,
    blobs: Blobs,
    left: u64,
}

/// The blobs that transitions which are kept or open have.
#[derive(Default)]
struct Blobs {
    /// All of them.
    known: BTreeSet<Digest>,
    /// Those that have to be readable by now.
    named: BTreeSet<Digest>,
}

impl<F: FnMut(Result<(), Error>) -> Result<(), Error>> Check<'_, F> {
    fn note(&mut self, found: Result<(), Error>) -> Result<(), Error> {
        (self.note)(found)
    }

    fn ledger(&mut self) -> Result<(), Error> {
        for entry in self.engine.scan(Keyspace::Ledger, Unbounded, Unbounded, Direction::Ascending)
        {
            let (key, value) = entry?;
            let found = match About::of_entry(&key, &value) {
                Some(About::Registry(version)) => self.registry(version),
                Some(About::Transition(id)) => self.transition_once(&id),
                Some(About::Part(id)) => match self.is_dropped(&id) {
                    Ok(true) => {
                        self.left += 1;
                        Ok(())
                    }
                    Ok(false) => self.transition_once(&id),
                    Err(error) => Err(error),
                },
                Some(About::Decided(version, id)) => self.decided(version, &id),
                _ => Err(Error::Damaged(Damage::Ledger)),
            };
            self.note(found)?;
        }
        Ok(())
    }

    fn registry(&mut self, opened: Version) -> Result<(), Error> {
        registry(self.engine, opened)?;
        let is_needed = needs_registry(self.engine, self.pages, opened, self.horizon)?;
        self.left += u64::from(!is_needed);
        Ok(())
    }

    /// Whether a transition was decided so long ago that it is not kept.
    fn is_dropped(&self, id: &TransitionId) -> Result<bool, Error> {
        let damaged = Error::Damaged(Damage::Transition(*id));
        let record = journal::transition(self.engine, id)?.ok_or(damaged)?;
        Ok(record.decided.is_some_and(|decided| decided.version < self.horizon.0))
    }

    /// That a transition was decided in this version.
    fn decided(&mut self, version: Version, id: &TransitionId) -> Result<(), Error> {
        let damaged = Error::Damaged(Damage::Transition(*id));
        let record = journal::transition(self.engine, id)?.ok_or(damaged.clone())?;
        if record.decided.is_none_or(|decided| decided.version != version.0) {
            return Err(damaged);
        }
        self.left += u64::from(version < self.horizon);
        Ok(())
    }

    fn transition_once(&mut self, id: &TransitionId) -> Result<(), Error> {
        if self.seen.insert(*id) { self.transition(id) } else { Ok(()) }
    }

    /// Replays a transition, unless it is dropped.
    fn transition(&mut self, id: &TransitionId) -> Result<(), Error> {
        let damaged = Err(Error::Damaged(Damage::Transition(*id)));
        // In this order: a decision that comes between shows in the second.
        let is_open = journal::is_open(self.engine, id)?;
        let Some(kept) = journal::transition(self.engine, id)? else { return damaged };
        let decided = kept.decided.map(|decided| Version(decided.version));
        if decided.is_some_and(|decided| decided < self.horizon) {
            return if is_open { damaged } else { Ok(()) };
        }
        let spec = read_spec(self.engine, id)?;
        self.blobs.known.extend(inputs(&spec));
        self.blobs.named.extend(inputs(&spec));
        for reveal in journal::reveals(self.engine, id) {
            self.blobs.known.insert(reveal?.1);
        }
        let Some(decided) = decided.filter(|decided| *decided <= self.newest) else {
            // Its facts are still growing: each is read, and no more can be said.
            registry(self.engine, Version(kept.opened))?;
            journal::facts(self.engine, id)?;
            return if decided.is_none() && !is_open { damaged } else { Ok(()) };
        };
        if is_open || !journal::is_decided(self.engine, decided, id)? {
            return damaged;
        }
        let (open, _) = replay(self.engine, id)?;
        let tasks = snapshot::tasks(self.engine, self.pages, decided)?;
        let (outcome, records) = evidence::records(&tasks, id, decided)?;
        let same = records.len() == open.tasks.len()
            && open
                .tasks
                .iter()
                .zip(&records)
                .all(|(task, record)| task.record(record.index, record.status) == *record);
        if !same {
            return damaged;
        }
        let results = records.iter().flat_map(|record| {
            record.digest.into_iter().chain(record.dissent.iter().map(|(digest, _)| *digest))
        });
        if outcome == Outcome::Applied {
            self.states(&spec, decided)?;
        }
        self.blobs.named.extend(results.clone());
        // What is named by no decision, and no input, goes when an older one that names it is dropped.
        for digest in results.chain(inputs(&spec)) {
            let is_kept = journal::since(self.engine, &digest)? == Some(Version(0))
                || journal::named(self.engine, &digest)?.is_some_and(|last| last >= decided);
            if !is_kept {
                return Err(Error::Damaged(Damage::Blob(digest)));
            }
        }
        Ok(())
    }

    /// That the proofs which are kept of what a transition wrote are proofs of those states.
    fn states(&self, spec: &Spec, decided: Version) -> Result<(), Error> {
        let id = spec.id();
        let before = (Moment::Before, Version(decided.0 - 1));
        let before = (spec.apply == Apply::Add).then_some(before);
        for (moment, version) in before.into_iter().chain([(Moment::After, decided)]) {
            let Some(proof) = journal::state(self.engine, &id, moment)? else { continue };
            let root = version::read(self.engine, version)?.0.state();
            let shown = Proof::decode(&proof).and_then(|proof| proof.verify(&root));
            if shown.is_err() {
                return Err(Error::Damaged(Damage::Transition(id)));
            }
        }
        Ok(())
    }

    fn blobs(&mut self, desk: &Desk) -> Result<(), Error> {
        let mut unknown = BTreeSet::new();
        for entry in self.engine.scan(Keyspace::Blobs, Unbounded, Unbounded, Direction::Ascending) {
            let (key, _) = entry?;
            let (digest, found) = match About::of_blob(&key) {
                Some(About::Content(digest)) => {
                    (digest, journal::blob(self.engine, &digest).map(drop))
                }
                Some(About::Readable(digest)) => {
                    self.blobs.named.insert(digest);
                    (digest, Ok(()))
                }
                Some(About::Named(digest)) => {
                    (digest, journal::named(self.engine, &digest).map(drop))
                }
                _ => {
                    self.note(Err(Error::Damaged(Damage::Ledger)))?;
                    continue;
                }
            };
            self.note(found)?;
            if !self.blobs.known.contains(&digest) {
                unknown.insert(digest);
            }
        }
        for digest in std::mem::take(&mut self.blobs.named) {
            let missing = Error::Damaged(Damage::Blob(digest));
            let found = journal::blob(self.engine, &digest).and_then(|blob| {
                Ok(blob.is_some() && journal::since(self.engine, &digest)?.is_some())
            });
            self.note(found.and_then(|found| if found { Ok(()) } else { Err(missing) }))?;
        }
        // Some may have come while this was looked at.
        desk.book().keep_needed(&mut unknown);
        for digest in unknown {
            let left = Need::of(self.engine, &digest, self.horizon);
            let is_left = match &left {
                Ok(Need::Nobody) => true,
                Ok(Need::Input) => journal::named(self.engine, &digest)?.is_some(),
                _ => false,
            };
            self.left += u64::from(is_left);
            self.note(left.map(drop))?;
        }
        Ok(())
    }
}
