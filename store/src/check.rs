//! Check: everything that is stored, read and hashed again.

use std::{
    collections::{HashMap, HashSet},
    ops::Bound::{Excluded, Included, Unbounded},
};

use anwansi_proofs::{Header, Version};

use crate::{
    Damage, Error,
    engine::{Batch, Direction, Engine, Keyspace, scan_prefix},
    flushes::{self, Flushed},
    ledger,
    log::Log,
    record::{
        ChunkKind, FLUSH_PREFIX, MANIFEST_KEY, Manifest, Request, SEGMENT_PREFIX, SIGNED_KEY,
        Signed, StoredValue, VersionRecord, decode, numbered_key,
    },
    retention::{Kept, Needed, images, listed, newest_needed},
    segments::{self, Image, SegmentId, Table},
    store::Shared,
    tree::{PageId, Pages, Slot, Tree, Value, Write},
    version,
};

/// Memory for the pages that a check reads.
const CACHE_BYTES: usize = 16 << 20;
/// The most damages that a report names.
const DAMAGES_MAX: usize = 1000;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Versions whose changes, or the undo of newer ones, lead to the root in their header: those that are kept, and, by
    /// changes, those on the way to them.
    pub versions: u64,
    /// Values that are stored on their own, belong to a version that is kept, and have their digest.
    pub values: u64,
    /// Flushes whose pages were all there.
    pub flushes: u64,
    /// Pages that lead to the hashes that their parents name.
    pub pages: u64,
    /// Records, values and blobs that belong to no version and no decision which is kept, and wait for no reader: the
    /// next pruning deletes them. Not counted if anything is damaged.
    pub left: u64,
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

/// Reads every version that is kept, the log, and the pages of every flush, up to the newest version.
///
/// # Cost
/// Holds the whole state in memory, and hashes all that is stored. Nothing is pruned meanwhile.
pub(crate) fn check(shared: &Shared, mut progress: impl FnMut(u64, u64)) -> Result<Report, Error> {
    let _pruning = shared.pruning.hold();
    let segments = shared.segments.get();
    let engine = &*shared.engine;
    let pages = Pages::new(shared.engine.clone(), CACHE_BYTES, shared.pages.threads().clone());
    let newest = shared.published().snapshot.version();
    let mut report = Report::default();
    let manifest = engine.get(Keyspace::Meta, MANIFEST_KEY)?.unwrap_or_default();
    let manifest = decode::<Manifest>(&manifest, Damage::Manifest);
    report.note(manifest)?;
    let signed = engine.get(Keyspace::Meta, SIGNED_KEY)?.unwrap_or_default();
    report.note(decode::<Signed>(&signed, Damage::Signed))?;
    report.note(Kept::load(engine))?;
    for entry in scan_prefix(engine, Keyspace::Meta, SEGMENT_PREFIX) {
        report.note(segments::read(entry?))?;
    }
    for entry in engine.scan(Keyspace::Requests, Unbounded, Unbounded, Direction::Ascending) {
        report.note(decode::<Request>(&entry?.1, Damage::Request))?;
    }

    let ledger_left = ledger::check::check(&shared.desk, engine, &pages, newest, |found| {
        report.note(found).map(drop)
    })?;

    let kept = shared.versions.kept();
    let mut flushes: Vec<Flushed> = Vec::new();
    for entry in scan_prefix(engine, Keyspace::Meta, FLUSH_PREFIX) {
        let (key, bytes) = entry?;
        let version = flushes::version(&key);
        let read = version.clone().and_then(|version| Flushed::read(version, &bytes));
        match report.note(read)? {
            Some(flush) => flushes.push(flush),
            // It stays one, so that others are not missed for it.
            None => flushes.extend(version.ok().map(|version| Flushed {
                version,
                since: flushes.last().map_or(Version(0), |before| before.since),
                image: Image::default(),
            })),
        }
    }
    let needed = Needed::new(&flushes, &kept, &[], [&[], &[]]);
    let (values, replaced, pages_seen, ahead) = <_>::default();
    let (segments, pages, kept) = (&segments, &pages, &*kept);
    let mut check = Check {
        engine,
        pages,
        kept,
        segments,
        newest,
        report,
        values,
        replaced,
        pages_seen,
        ahead,
    };
    let mut at_horizon = check.undo(&needed, &flushes)?;
    let (mut log, mut before) = (Some(Log::default()), None::<Header>);
    let mut state = needed.changes.have(Version(0)).then(State::default);
    for number in 0..=newest.0 {
        let version = Version(number);
        progress(number, newest.0 + 1);
        let read = check.report.note(version::read(engine, version))?;
        let Some((header, record)) = read else {
            (state, log, before) = (None, None, None);
            continue;
        };
        if before.is_some_and(|before| header.follows(&before).is_err()) {
            check.report.damaged(Damage::Header(version));
        }
        check.log_entry(&mut log, &record)?;
        check.tasks(&header, &record)?;
        let base = flushes::base(&flushes, version).filter(|flush| flush.version > version);
        state = match (state.take(), base) {
            (None, Some(_)) if kept.has(version) => {
                // Its own changes are for whoever asks for them.
                let changes = version::read_chunks(engine, version, ChunkKind::State, &record);
                check.report.note(changes)?;
                at_horizon.take_if(|_| version == kept.horizon())
            }
            (state, _) if needed.changes.have(version) => check.step(state, &header, &record)?,
            (Some(State { alive, .. }), _) => {
                check.values(alive.into_values(), Version(number - 1))?;
                None
            }
            (None, _) => None,
        };
        if let Some(ahead) = check.ahead.remove(&version) {
            state = state.or(ahead);
        } else if flushes.binary_search_by_key(&version, |flush| flush.version).is_ok() {
            let read = check.flush(&header, state.is_none())?;
            state = state.or(read);
        }
        before = Some(header);
    }
    let alive = state.map_or_else(HashMap::new, |state| state.alive);
    check.values(alive.values().copied(), newest)?;
    check.left(shared, &needed, &flushes, &alive, ledger_left)?;
    Ok(check.report)
}

/// A check on its way through the versions.
struct Check<'a> {
    engine: &'a dyn Engine,
    pages: &'a Pages,
    kept: &'a Kept,
    segments: &'a Table,
    newest: Version,
    report: Report,
    /// The values on their own that were looked at, and those that were replaced, with the last version that has them.
    values: HashSet<[u8; 12]>,
    replaced: HashMap<[u8; 12], Version>,
    pages_seen: HashSet<PageId>,
    /// Flushes that were read before their turn, because undo leads back from them, and their states.
    ahead: HashMap<Version, Option<State>>,
}

/// The state of one version: its tree, and its values on their own by their keys.
#[derive(Clone, Default)]
struct State {
    tree: Tree,
    alive: HashMap<[u8; 12], StoredValue>,
}

impl Check<'_> {
    /// The next entry of the log: a tile that it fills must be the one that is stored.
    fn log_entry(&mut self, log: &mut Option<Log>, record: &VersionRecord) -> Result<(), Error> {
        let mut filled = Batch::new();
        if let Some(log) = log {
            log.append(record.header.as_bytes(), &mut filled);
        }
        for tile in filled.operations() {
            if self.engine.get(tile.space, &tile.key)? != tile.value {
                let index = tile.key[1..].try_into().expect("a level and an index");
                let index = u64::from_be_bytes(index);
                self.report.damaged(Damage::Tile { level: tile.key[0], index });
            }
        }
        Ok(())
    }

    /// Compares a version's tasks tree with its header.
    fn tasks(&mut self, header: &Header, record: &VersionRecord) -> Result<(), Error> {
        let version = header.version();
        let read = version::read_chunks(self.engine, version, ChunkKind::Tasks, record);
        let Some(tasks) = self.report.note(read)? else { return Ok(()) };
        for write in &tasks {
            if let Some(Value::Stored(value)) = &write.value {
                self.value(value)?;
            }
        }
        let tree = self.report.note(Tree::default().update(self.pages, &tasks))?;
        if tree.is_some_and(|tree| tree.root() != header.tasks()) {
            self.report.damaged(Damage::Changes(version));
        }
        Ok(())
    }

    /// The state of a version, from the one before it and its changes. Without that nothing can be said of it.
    fn step(
        &mut self,
        state: Option<State>,
        header: &Header,
        record: &VersionRecord,
    ) -> Result<Option<State>, Error> {
        let version = header.version();
        let read = version::read_chunks(self.engine, version, ChunkKind::State, record);
        let (Some(changes), Some(state)) = (self.report.note(read)?, state) else {
            return Ok(None);
        };
        let Some((state, replaced)) = self.after(state, &changes)? else { return Ok(None) };
        self.replaced(replaced, Version(version.0.saturating_sub(1)))?;
        let computed = state.tree.root();
        if computed == header.state() {
            self.report.versions += 1;
        } else {
            self.report.damaged(Damage::State { version, computed });
        }
        Ok(Some(state))
    }

    /// The state after some writes, and the values on their own that it has no more.
    fn after(
        &mut self,
        State { tree, mut alive }: State,
        writes: &[Write],
    ) -> Result<Option<(State, Vec<StoredValue>)>, Error> {
        let Some(tree) = self.report.note(tree.update(self.pages, writes))? else {
            return Ok(None);
        };
        for write in writes {
            if let Some(Value::Stored(value)) = &write.value {
                alive.insert(value.key(), *value);
            }
        }
        let replaced = tree.replaced_values().iter().filter_map(|value| alive.remove(&value.key()));
        let replaced = replaced.collect();
        Ok(Some((State { tree, alive }, replaced)))
    }

    /// Walks back from each flush as far as its undo is needed. Gives the state of the oldest version from which on all are
    /// kept, if that is made so.
    fn undo(&mut self, needed: &Needed, flushes: &[Flushed]) -> Result<Option<State>, Error> {
        let horizon = self.kept.horizon();
        let mut at_horizon = None;
        for flush in &needed.flushes {
            let oldest = needed.undo.first_before(flush.version).max(flush.since);
            let read = self.report.note(version::read(self.engine, flush.version))?;
            let Some((header, _)) = read.filter(|_| oldest < flush.version) else { continue };
            let read = self.flush(&header, true)?;
            self.ahead.insert(flush.version, read.clone());
            let Some(mut state) = read else { continue };
            let alive = state.alive.values().copied().collect::<Vec<_>>();
            self.values(alive, flush.version)?;
            for version in (oldest.0 + 1..=flush.version.0).rev().map(Version) {
                let before = Version(version.0 - 1);
                let undo = self.report.note(version::read_undo(self.engine, version))?;
                let header = self.report.note(version::read(self.engine, before))?;
                let (Some(undo), Some((header, _))) = (undo, header) else { break };
                let stored = undo.iter().filter_map(|write| match write.value {
                    Some(Value::Stored(value)) => Some(value),
                    _ => None,
                });
                self.replaced(stored.collect(), before)?;
                let Some((reached, _)) = self.after(state, &undo)? else { break };
                if reached.tree.root() != header.state() {
                    self.report.damaged(Damage::Undo(version));
                    break;
                }
                state = reached;
                let is_made_so = flushes::base(flushes, before) == Some(flush);
                self.report.versions +=
                    u64::from(is_made_so && self.kept.has(before) && before <= horizon);
                if is_made_so && before == horizon {
                    at_horizon = Some(state.clone());
                }
            }
        }
        Ok(at_horizon)
    }

    /// Looks at values that `last` is the last version to have, if one of those that have them is kept.
    fn values(
        &mut self,
        values: impl IntoIterator<Item = StoredValue>,
        last: Version,
    ) -> Result<(), Error> {
        let newest_kept = self.kept.newest_until(last);
        for value in values {
            if newest_kept.is_some_and(|kept| value.version <= kept.0) {
                self.value(&value)?;
            }
        }
        Ok(())
    }

    /// The same for values that the version behind `last` has no more: they must be listed.
    fn replaced(&mut self, values: Vec<StoredValue>, last: Version) -> Result<(), Error> {
        if let Some(kept) = self.kept.newest_until(last) {
            let needed = values.iter().filter(|value| value.version <= kept.0);
            self.replaced.extend(needed.map(|value| (value.key(), last)));
        }
        self.values(values, last)
    }

    fn value(&mut self, value: &StoredValue) -> Result<(), Error> {
        if self.values.insert(value.key())
            && self.report.note(self.pages.stored_value(value))?.is_some()
        {
            self.report.values += 1;
        }
        Ok(())
    }

    /// Reads every page of the flush of a version, those that older ones have too only if the state is asked for.
    fn flush(&mut self, header: &Header, is_asked: bool) -> Result<Option<State>, Error> {
        let version = header.version();
        let read = self.report.note(flushes::newest(self.engine, version))?;
        let Some((flush, bytes)) = read.flatten().filter(|(flush, _)| flush.version == version)
        else {
            return Ok(None);
        };
        let read = self.report.note(flushes::tree(self.pages, (&flush, &bytes)))?;
        let Some(tree) = read else { return Ok(None) };
        let mut live = (flush.image == self.segments.newest).then(HashMap::new);
        let mut is_whole = true;
        if header.state() != tree.root() {
            self.report.damaged(Damage::Flush(version));
            is_whole = false;
        }
        let mut alive = HashMap::new();
        // The tree is held meanwhile, and with it the frames of its pages.
        let mut open = tree.top.iter().cloned().collect::<Vec<_>>();
        while let Some(slot) = open.pop() {
            let child = match slot {
                Slot::Entry(entry) => {
                    if let Value::Stored(value) = entry.value {
                        alive.insert(value.key(), value);
                    }
                    continue;
                }
                Slot::Child(child) => child,
            };
            let id = self.pages.id(child.frame).expect("what was read has an id");
            if let Some(live) = &mut live {
                *live.entry(self.segments.of(id.epoch, id.chunk)).or_default() +=
                    u64::from(id.length);
            }
            let is_new = self.pages_seen.insert(id);
            if is_new || is_asked || live.is_some() {
                match self.report.note(self.pages.open(&child))? {
                    Some(page) => {
                        self.report.pages += u64::from(is_new);
                        open.extend(page.slots());
                    }
                    None => is_whole = false,
                }
            }
        }
        if let (true, Some(live)) = (is_whole, live) {
            if live.contains_key(&None) {
                self.report.damaged(Damage::Segments);
            }
            for (id, segment) in &self.segments.all {
                if segment.live != live.get(&Some(*id)).copied().unwrap_or(0) {
                    self.report.damaged(id.damage());
                }
            }
        }
        self.report.flushes += u64::from(is_whole);
        Ok((is_asked && is_whole).then_some(State { tree, alive }))
    }

    /// Counts what is stored for no version that is kept, beside what is left of the ledger.
    fn left(
        &mut self,
        shared: &Shared,
        needed: &Needed,
        flushes: &[Flushed],
        alive: &HashMap<[u8; 12], StoredValue>,
        ledger_left: u64,
    ) -> Result<(), Error> {
        let mut left = flushes.len() - needed.flushes.len();
        let images = images(needed, shared.versions.images.held());
        let oldest = shared.published().snapshot.version.tree.oldest();
        left += self.segments.free(&images, oldest).count();
        for (space, start, end) in needed.gaps() {
            let (start, end) = (Included(&start[..]), Excluded(&end[..]));
            left += self.engine.scan(space, start, end, Direction::Ascending).count();
        }
        let scan = |space| self.engine.scan(space, Unbounded, Unbounded, Direction::Ascending);
        for entry in scan(Keyspace::Pages) {
            let (key, _) = entry?;
            let Some(SegmentId { epoch, chunk }) = SegmentId::of_chunk(&key) else {
                left += 1;
                continue;
            };
            let is_known = self.segments.of(epoch, chunk).is_some();
            // What is newer belongs to a flush that goes on, or to none: then the next opening deletes it.
            let Image { epoch: newest, chunks } = self.segments.newest;
            left += usize::from(!is_known && (epoch, chunk) < (newest, chunks));
        }
        let mut open = [shared.versions.openers.held(), shared.versions.readers.held()].concat();
        open.sort_unstable();
        let mut known = HashSet::new();
        for list in scan(Keyspace::Replaced) {
            let (key, bytes) = list?;
            let Some((last, values)) = self.report.note(listed(&key, &bytes))? else { continue };
            // A list of no version that is needed was not looked at since.
            left += usize::from(newest_needed(self.kept, &open, last) != Some(last));
            for value in values {
                let key = numbered_key(value.version, value.index);
                if last < self.newest && alive.contains_key(&key) {
                    self.report.damaged(Damage::Replaced(last));
                }
                known.insert(key);
            }
        }
        let unlisted = self.replaced.iter().filter(|(key, _)| !known.contains(*key));
        for last in unlisted.map(|(_, last)| *last).collect::<Vec<_>>() {
            self.report.damaged(Damage::Replaced(last));
        }
        for entry in scan(Keyspace::Values) {
            let (key, _) = entry?;
            let version = key.first_chunk().map_or(0, |version| u64::from_be_bytes(*version));
            let is_known = <[u8; 12]>::try_from(&key[..])
                .is_ok_and(|key| self.values.contains(&key) || known.contains(&key));
            // There may be newer versions by now.
            left += usize::from(!is_known && version <= self.newest.0);
        }
        if self.report.damages.is_empty() {
            self.report.left = left as u64 + ledger_left;
        }
        Ok(())
    }
}
