//! Check: everything that is stored, read and hashed again.

use std::{
    collections::HashSet,
    ops::Bound::{Excluded, Included, Unbounded},
};

use anwansi_proofs::{Header, Version};

use crate::{
    Damage, Error,
    engine::{Batch, Direction, Keyspace},
    flush,
    history::read_flush,
    ledger,
    log::Log,
    record::{
        ChunkKind, FLUSH_PREFIX, MANIFEST_KEY, Manifest, Request, SIGNED_KEY, Signed, decode,
    },
    store::Shared,
    tree::{Pages, Slot, Tree, Value, Write},
    version,
};

/// Memory for the pages that a check reads.
const CACHE_BYTES: usize = 16 << 20;
/// The most damages that a report names.
const DAMAGES_MAX: usize = 1000;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Versions whose changes lead to the root in their header.
    pub versions: u64,
    /// Values that are stored on their own and have their digest.
    pub values: u64,
    /// Flushes whose pages were all there.
    pub flushes: u64,
    /// Pages that lead to the hashes that their parents name.
    pub pages: u64,
    /// What is damaged: at most 1,000 of it.
    pub damages: Vec<Damage>,
}

impl Report {
    /// Passes on what was read; damage is noted, and whatever else went wrong ends the check.
    fn note<T>(&mut self, read: Result<T, Error>) -> Result<Option<T>, Error> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(Error::Damaged(damage)) => {
                if self.damages.len() < DAMAGES_MAX && !self.damages.contains(&damage) {
                    self.damages.push(damage);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn damaged(&mut self, damage: Damage) {
        // Noting damage never fails.
        let _ = self.note::<()>(Err(Error::Damaged(damage)));
    }
}

/// Reads every version, the log, and the pages of every flush, up to the newest version.
///
/// # Cost
/// Holds the whole state in memory, and hashes all that was ever written.
pub(crate) fn check(shared: &Shared, mut progress: impl FnMut(u64, u64)) -> Result<Report, Error> {
    let engine = &*shared.engine;
    let pages = Pages::new(shared.engine.clone(), CACHE_BYTES, shared.pages.threads().clone());
    let newest = shared.published().snapshot.version();
    let mut report = Report::default();
    let manifest = engine.get(Keyspace::Meta, MANIFEST_KEY)?.unwrap_or_default();
    let manifest = decode::<Manifest>(&manifest, Damage::Manifest);
    report.note(manifest)?;
    let signed = engine.get(Keyspace::Meta, SIGNED_KEY)?.unwrap_or_default();
    report.note(decode::<Signed>(&signed, Damage::Signed))?;
    for entry in engine.scan(Keyspace::Requests, Unbounded, Unbounded, Direction::Ascending) {
        report.note(decode::<Request>(&entry?.1, Damage::Request))?;
    }

    ledger::check::check(engine, &pages, newest, |found| report.note(found).map(drop))?;

    let mut tree = Some(Tree::default());
    let (mut log, mut before) = (Some(Log::default()), None::<Header>);
    for number in 0..=newest.0 {
        let version = Version(number);
        progress(number, newest.0 + 1);
        let read = report.note(version::read(engine, version))?;
        let Some((header, record)) = read else {
            (tree, log, before) = (None, None, None);
            continue;
        };
        if before.is_some_and(|before| header.follows(&before).is_err()) {
            report.damaged(Damage::Header(version));
        }
        // A tile that this entry fills must be the one that is stored.
        let mut filled = Batch::new();
        if let Some(log) = &mut log {
            log.append(record.header.as_bytes(), &mut filled);
        }
        for tile in filled.operations() {
            if engine.get(tile.space, &tile.key)? != tile.value {
                let index = tile.key[1..].try_into().expect("a level and an index");
                report
                    .damaged(Damage::Tile { level: tile.key[0], index: u64::from_be_bytes(index) });
            }
        }
        let mut changes = None;
        for kind in ChunkKind::ALL {
            let read = report.note(version::read_chunks(engine, version, kind, &record))?;
            for write in read.iter().flatten() {
                check_value(write, &pages, &mut report)?;
            }
            match kind {
                ChunkKind::State => changes = read,
                ChunkKind::Tasks => check_tasks(&header, read, &pages, &mut report)?,
            }
        }
        tree = match (tree.take(), changes) {
            (Some(tree), Some(changes)) => report.note(tree.update(&pages, &changes))?,
            // Without the state before it nothing can be said of a version.
            _ => None,
        };
        match tree.as_ref().map(Tree::root) {
            Some(computed) if computed == header.state() => report.versions += 1,
            Some(computed) => report.damaged(Damage::State { version, computed }),
            None => {}
        }
        before = Some(header);
    }
    check_flushes(shared, newest, &pages, &mut report)?;
    Ok(report)
}

/// Compares a version's tasks tree with its header.
fn check_tasks(
    header: &Header,
    tasks: Option<Vec<Write>>,
    pages: &Pages,
    report: &mut Report,
) -> Result<(), Error> {
    let Some(tasks) = tasks else { return Ok(()) };
    let tree = report.note(Tree::default().update(pages, &tasks))?;
    if tree.is_some_and(|tree| tree.root() != header.tasks()) {
        report.damaged(Damage::Changes(header.version()));
    }
    Ok(())
}

fn check_value(write: &Write, pages: &Pages, report: &mut Report) -> Result<(), Error> {
    if let Some(value @ Value::Stored(_)) = &write.value
        && report.note(pages.value(value))?.is_some()
    {
        report.values += 1;
    }
    Ok(())
}

/// Reads every page that a flush names, each once.
fn check_flushes(
    shared: &Shared,
    newest: Version,
    pages: &Pages,
    report: &mut Report,
) -> Result<(), Error> {
    let (engine, mut seen) = (&*shared.engine, HashSet::new());
    let end = anwansi_proofs::path::after_prefix(FLUSH_PREFIX).expect("the prefix is text");
    let (start, end) = (Included(FLUSH_PREFIX), Excluded(&end[..]));
    for entry in engine.scan(Keyspace::Meta, start, end, Direction::Ascending) {
        let (key, bytes) = entry?;
        let Some(version) = flush::version_of(&key) else {
            report.damaged(Damage::Manifest);
            continue;
        };
        if version > newest {
            continue;
        }
        let Some((tree, _)) = report.note(read_flush(pages, &bytes, version))? else { continue };
        let damages = report.damages.len();
        if let Some((header, _)) = report.note(version::read(engine, version))?
            && header.state() != tree.root()
        {
            report.damaged(Damage::Flush(version));
        }
        // The tree is held meanwhile, and with it the frames of its pages.
        let mut open = tree.top.iter().cloned().collect::<Vec<_>>();
        while let Some(slot) = open.pop() {
            let Slot::Child(child) = slot else { continue };
            let id = pages.id(child.frame).expect("what was read has an id");
            if seen.insert(id)
                && let Some(page) = report.note(pages.open(&child))?
            {
                report.pages += 1;
                open.extend(page.slots());
            }
        }
        report.flushes += u64::from(report.damages.len() == damages);
    }
    Ok(())
}
