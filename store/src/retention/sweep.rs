//! Sweep: what no version needs that is kept or open is deleted. It asks storage what is there, so that one which a
//! crash has ended is made up for by the next.

use std::{
    ops::Bound::{Excluded, Included, Unbounded},
    time::Instant,
};

use anwansi_proofs::Version;
use bytes::Bytes;

use super::Kept;
use crate::{
    Damage, Error,
    engine::{Batch, Direction, Engine, Keyspace, Writer, scan_prefix},
    flush,
    record::{self, FLUSH_PREFIX, ReplacedValue, decode, encode, numbered_key},
    segments::{Image, Table},
    store::Shared,
};

/// How much is deleted at once, at most: the writer does nothing else meanwhile.
const DELETED_AT_ONCE: usize = 1000;

/// What was freed of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// How many of them.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Freed {
    fn add(&mut self, more: Freed) {
        self.count += more.count;
        self.bytes += more.bytes;
    }
}

/// What was freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) flushes: u64,
    pub(crate) changes: Freed,
    pub(crate) values: Freed,
    pub(crate) pages: Freed,
}

/// What versions that are kept or being opened are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Needed {
    /// The flushes from which they are made.
    pub(crate) flushes: Vec<Version>,
    /// The versions of which the changes are needed: first and last of each run, in order. The last run has no end.
    pub(crate) changes: Vec<(u64, u64)>,
}

impl Needed {
    /// Of the versions that are kept, those that are being opened, and those whose changes are being applied (first and
    /// last), if these flushes are there.
    pub(crate) fn new(
        flushes: &[Version],
        kept: &Kept,
        opening: &[Version],
        replays: &[(Version, Version)],
    ) -> Self {
        let horizon = kept.horizon();
        let before = |version: Version| {
            let count = flushes.partition_point(|flush| *flush <= version);
            count.checked_sub(1).map(|at| flushes[at])
        };
        let mut needed = Needed { flushes: Vec::new(), changes: Vec::new() };
        let mut need = |first: Version, last: Version| {
            let flush = before(first);
            needed.flushes.extend(flush);
            let since = flush.map_or(0, |flush| flush.0 + 1);
            // Its own changes are asked for, even if it is a flush that it is made from.
            needed.changes.push((since.min(first.0), last.0));
        };
        let opening = opening.iter().copied().filter(|version| *version < horizon);
        kept.below_horizon().chain(opening).for_each(|at| need(at, at));
        // And all that come meanwhile.
        need(horizon, Version(u64::MAX));
        needed.flushes.extend(flushes.iter().filter(|flush| **flush >= horizon));
        needed.flushes.sort_unstable();
        needed.flushes.dedup();
        let replays = replays.iter().map(|(first, last)| (first.0, last.0));
        needed.changes.extend(replays.filter(|(first, last)| first <= last));
        needed.changes.sort_unstable();
        needed.changes.dedup_by(|next, before| {
            let joins = next.0 <= before.1.saturating_add(1);
            if joins {
                before.1 = before.1.max(next.1);
            }
            joins
        });
        needed
    }

    pub(crate) fn has_changes_of(&self, version: Version) -> bool {
        let behind = self.changes.partition_point(|(first, _)| *first <= version.0);
        behind > 0 && version.0 <= self.changes[behind - 1].1
    }

    /// The runs of versions before and between those whose changes are needed: the first, and the one behind the last.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let behind = self.changes.iter().map(|(_, last)| last.saturating_add(1));
        let starts = [0].into_iter().chain(behind);
        let gaps = starts.zip(self.changes.iter().map(|(first, _)| *first));
        gaps.filter(|(start, end)| start < end)
    }
}

/// The versions that are flushed, in order.
pub(crate) fn flushes(engine: &dyn Engine) -> Result<Vec<Version>, Error> {
    let version = |entry: Result<(Bytes, Bytes), _>| {
        flush::version_of(&entry?.0).ok_or(Error::Damaged(Damage::Manifest))
    };
    scan_prefix(engine, Keyspace::Meta, FLUSH_PREFIX).map(version).collect()
}

/// The last version that has the values of a list, and these.
pub(crate) fn listed(key: &[u8], bytes: &[u8]) -> Result<(Version, Vec<ReplacedValue>), Error> {
    let last = key.first_chunk().map_or(0, |last| u64::from_be_bytes(*last));
    let damage = Damage::Replaced(Version(last));
    let record::Replaced { values } = decode(bytes, damage)?;
    let is_key = key.len() == 8 + 8 + 4;
    is_key.then_some((Version(last), values)).ok_or(Error::Damaged(damage))
}

/// The newest version up to `last` that is kept or `open`.
pub(crate) fn newest_needed(kept: &Kept, open: &[Version], last: Version) -> Option<Version> {
    let opened = open[..open.partition_point(|version| *version <= last)].last().copied();
    opened.max(kept.newest_until(last))
}

/// The images of flushes, in order, as far as these are there.
pub(crate) fn images(engine: &dyn Engine, flushes: &[Version]) -> Result<Vec<Image>, Error> {
    let mut images = Vec::new();
    for flush in flushes {
        if let Some(bytes) = engine.get(Keyspace::Meta, &flush::key(*flush))? {
            let flush: record::Flush<'_> = decode(&bytes, Damage::Flush(*flush))?;
            images.push(flush.image);
        }
    }
    images.sort_unstable();
    Ok(images)
}

/// Deletes batch by batch, as far as it is allowed to go on.
pub(crate) struct Sweep<'a> {
    shared: &'a Shared,
    engine: &'a dyn Engine,
    writer: &'a Writer,
    /// Waits after something that has taken since then; false ends the sweep.
    pace: &'a dyn Fn(Instant) -> bool,
    batch: Batch,
    started: Instant,
    pub(crate) swept: Swept,
}

impl<'a> Sweep<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        writer: &'a Writer,
        pace: &'a dyn Fn(Instant) -> bool,
    ) -> Self {
        let (engine, (batch, swept)) = (&*shared.engine, <_>::default());
        Sweep { shared, engine, writer, pace, batch, started: Instant::now(), swept }
    }

    /// Deletes what nothing needs any more. What is kept was decided on before.
    pub(crate) fn run(&mut self) -> Result<(), Error> {
        let versions = &self.shared.versions;
        // Before the flushes: later ones need nothing of what is dead now.
        let segments = self.shared.segments.get();
        let starting = versions.starting();
        // Whoever opens a version holds it before he asks whether it is kept.
        let kept = versions.kept();
        let (opening, replays) = (versions.openers.held(), versions.replays.held());
        let flushes = flushes(self.engine)?;
        let needed = Needed::new(&flushes, &kept, &opening, &replays);
        // A flush before what it is behind: a version whose changes are gone must not be sought from it.
        for flush in flushes.iter().filter(|flush| needed.flushes.binary_search(flush).is_err()) {
            self.delete(Keyspace::Meta, flush::key(*flush).to_vec().into());
            self.swept.flushes += 1;
        }
        // If there are none, too: what makes something needless is durable before that is deleted.
        self.writer.write(std::mem::take(&mut self.batch)).wait()?;
        let images = [images(self.engine, &needed.flushes)?, versions.images.held()];
        drop(starting);
        for (start, end) in needed.gaps() {
            let (start, end) = (start.to_be_bytes(), end.to_be_bytes());
            let counted = self.count(Keyspace::Changes, &start, &end)?;
            let Some(freed) = counted else { return Ok(()) };
            if freed.count > 0 && !self.delete_range(Keyspace::Changes, &start, &end)? {
                return Ok(());
            }
            self.swept.changes.add(freed);
        }
        if !self.segments(&segments, images.concat())? {
            return Ok(());
        }
        let mut open = [opening, versions.readers.held()].concat();
        open.sort_unstable();
        self.values(&kept, &open)
    }

    /// Counts the entries from `start` to `end`, exclusive; `None` if it shall end before.
    fn count(&self, space: Keyspace, start: &[u8], end: &[u8]) -> Result<Option<Freed>, Error> {
        let mut freed = Freed::default();
        let (start, end) = (Included(start), Excluded(end));
        for entry in self.engine.scan(space, start, end, Direction::Ascending) {
            freed.add(Freed { count: 1, bytes: entry?.1.len() as u64 });
            let is_much = freed.count.is_multiple_of(DELETED_AT_ONCE as u64);
            if is_much && !(self.pace)(Instant::now()) {
                return Ok(None);
            }
        }
        Ok(Some(freed))
    }

    /// Deletes the entries from `start` to `end`, exclusive; false if it shall end.
    fn delete_range(&mut self, space: Keyspace, start: &[u8], end: &[u8]) -> Result<bool, Error> {
        self.engine.discard(space, start, end)?;
        // A crash here leaves any of them.
        let (start, end) = (Included(start), Excluded(end));
        for entry in self.engine.scan(space, start, end, Direction::Ascending) {
            self.delete(space, entry?.0);
            if self.batch.operations().len() >= DELETED_AT_ONCE && !self.write()? {
                return Ok(false);
            }
        }
        self.write()
    }

    /// Deletes the segments that are dead for these images and for all readers; false if it shall end.
    fn segments(&mut self, segments: &Table, mut images: Vec<Image>) -> Result<bool, Error> {
        images.sort_unstable();
        let oldest = self.shared.published().snapshot.version.tree.oldest();
        for (id, segment) in segments.free(&images, oldest) {
            let [start, end] = id.chunks(segment.chunks);
            if !self.delete_range(Keyspace::Pages, &start, &end)? {
                return Ok(false);
            }
            self.delete(Keyspace::Meta, id.key().into());
            if !self.write()? {
                return Ok(false);
            }
            self.shared.segments.remove(id);
            self.swept.pages.add(Freed { count: segment.pages.into(), bytes: segment.bytes });
        }
        Ok(true)
    }

    /// Deletes the values on their own that no version has which is kept or `open`. They are listed by the last version
    /// that has them; those which are needed by an older one alone are listed by that one from now on.
    fn values(&mut self, kept: &Kept, open: &[Version]) -> Result<(), Error> {
        let horizon = kept.horizon().0.to_be_bytes();
        let (start, end) = (Unbounded, Excluded(&horizon[..]));
        let mut damaged = None;
        for list in self.engine.scan(Keyspace::Replaced, start, end, Direction::Ascending) {
            let (key, bytes) = list?;
            match listed(&key, &bytes) {
                Ok((last, values)) => {
                    let needed = newest_needed(kept, open, last);
                    if needed != Some(last) {
                        self.values_of(key, values, needed);
                    }
                }
                // It stays as it is; a check names it.
                Err(error) => damaged = Some(error),
            }
            if !(self.pace)(Instant::now()) {
                break;
            }
            if self.batch.operations().len() >= DELETED_AT_ONCE {
                self.write()?;
            }
        }
        self.write()?;
        damaged.map_or(Ok(()), Err)
    }

    /// Deletes listed values which `needed` has not, the newest version that may need any of them.
    fn values_of(&mut self, list: Bytes, values: Vec<ReplacedValue>, needed: Option<Version>) {
        let stays = |value: &ReplacedValue| needed.is_some_and(|needed| value.version <= needed.0);
        let (stay, gone): (Vec<_>, Vec<_>) = values.into_iter().partition(stays);
        for ReplacedValue { version, index, length } in gone {
            self.delete(Keyspace::Values, numbered_key(version, index).to_vec().into());
            self.swept.values.add(Freed { count: 1, bytes: length.into() });
        }
        if let (false, Some(needed)) = (stay.is_empty(), needed) {
            let key = [&needed.0.to_be_bytes(), &list[8..]].concat();
            self.batch.put(Keyspace::Replaced, key, encode(&record::Replaced { values: stay }));
        }
        self.delete(Keyspace::Replaced, list);
    }

    fn delete(&mut self, space: Keyspace, key: Bytes) {
        self.batch.delete(space, key);
    }

    /// Waits until all that was deleted so far is; false if the sweep shall end.
    fn write(&mut self) -> Result<bool, Error> {
        if !self.batch.operations().is_empty() {
            self.writer.write(std::mem::take(&mut self.batch)).wait()?;
            // A crash here leaves the rest for the next sweep.
        }
        let goes_on = (self.pace)(self.started);
        self.started = Instant::now();
        Ok(goes_on)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::{engine::Memory, retention::Retention};

    /// The last ten of these versions.
    fn kept_of(newest: u64) -> Kept {
        let engine: std::sync::Arc<dyn Engine> = std::sync::Arc::new(Memory::new());
        let writer = Writer::new(engine.clone()).unwrap();
        let versions = crate::retention::Versions::load(&*engine).unwrap();
        let retention = Retention { last: NonZeroU64::new(10).unwrap(), every: None };
        versions.retain(&retention, Version(newest), &writer).unwrap();
        Kept::clone(&versions.kept())
    }

    fn gaps(
        flushes: &[u64],
        kept: &Kept,
        opening: &[u64],
        replays: &[(u64, u64)],
    ) -> Vec<(u64, u64)> {
        let versions = |all: &[u64]| all.iter().copied().map(Version).collect::<Vec<_>>();
        let replays = replays.iter().map(|(first, last)| (Version(*first), Version(*last)));
        let replays = replays.collect::<Vec<_>>();
        let needed = Needed::new(&versions(flushes), kept, &versions(opening), &replays);
        assert!(needed.gaps().all(|(start, end)| {
            (start..end).all(|version| !needed.has_changes_of(Version(version)))
        }));
        needed.gaps().collect()
    }

    #[test]
    fn changes_behind_the_horizon_are_needed_whatever_comes_meanwhile() {
        let kept = kept_of(100);
        assert_eq!(gaps(&[10], &kept, &[], &[]), [(0, 11)]);
        // Versions and flushes that came while the horizon was decided on.
        assert_eq!(gaps(&[10, 150], &kept, &[180], &[(151, 180)]), [(0, 11)]);
        assert_eq!(gaps(&[], &kept, &[], &[]), []);
        assert_eq!(gaps(&[91], &kept, &[], &[]), [(0, 91)]);
    }

    #[test]
    fn changes_that_are_being_read_are_needed() {
        let kept = kept_of(100);
        // One that was dropped while somebody began to open it; and one that was made from a flush which is gone.
        assert_eq!(gaps(&[10, 50, 80], &kept, &[30], &[]), [(0, 11), (31, 81)]);
        assert_eq!(gaps(&[80], &kept, &[], &[(21, 95)]), [(0, 21)]);
        assert_eq!(gaps(&[80], &kept, &[], &[(96, 95), (41, 40)]), [(0, 81)]);
    }
}
