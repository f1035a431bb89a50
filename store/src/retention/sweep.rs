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
    engine::{Batch, Direction, Engine, Keyspace, Writer},
    flushes::{self, Flushed},
    record::{self, ReplacedValue, decode, encode, numbered_key},
    segments::{Image, Table},
    store::Shared,
};

/// How much is deleted at once, at most: the writer does nothing else meanwhile.
pub(crate) const DELETED_AT_ONCE: usize = 1000;

/// What was freed of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// How many of them.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Freed {
    pub(crate) fn add(&mut self, more: Freed) {
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
    /// The newest flush: it is needed.
    pub(crate) newest: Option<Flushed>,
    /// Whether it was to end before all was deleted.
    pub(crate) is_ended: bool,
}

/// What versions that are kept or being opened are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Needed {
    /// The flushes from which they are made, in order.
    pub(crate) flushes: Vec<Flushed>,
    /// The versions of which the changes are needed. The last run has no end.
    pub(crate) changes: Runs,
    /// Those of which the undo is needed. What is newer than the newest flush is none of its business.
    pub(crate) undo: Runs,
}

impl Needed {
    /// Of the versions that are kept, those that are being opened, and those whose changes or undo is being applied (first
    /// and last), if these flushes are there.
    pub(crate) fn new(
        flushes: &[Flushed],
        kept: &Kept,
        opening: &[Version],
        [changes, undo]: [&[(Version, Version)]; 2],
    ) -> Self {
        let horizon = kept.horizon();
        let run = |(first, last): &(Version, Version)| (first.0, last.0);
        let mut changes = changes.iter().map(run).collect::<Vec<_>>();
        let mut undo = undo.iter().map(run).collect::<Vec<_>>();
        let mut needed = Vec::new();
        let mut need = |first: Version, last: Version| {
            let base = flushes::base(flushes, first);
            needed.extend(base);
            let since = base.map_or(0, |flush| flush.version.0 + 1);
            // Its own changes are asked for, even if it is a flush that it is made from.
            changes.push((since.min(first.0), last.0));
            undo.push((first.0 + 1, since.saturating_sub(1)));
        };
        let opening = opening.iter().copied().filter(|version| *version < horizon);
        kept.below_horizon().chain(opening).for_each(|at| need(at, at));
        // And all that come meanwhile.
        need(horizon, Version(u64::MAX));
        // Of any that comes before the next one's undo begins; and the last is for the next opening.
        for (at, flush) in flushes.iter().enumerate() {
            let first = flush.since.max(horizon);
            if flushes.get(at + 1).is_none_or(|next| first < next.since) {
                needed.push(flush);
                undo.push((first.0 + 1, flush.version.0));
            }
        }
        let mut needed = needed.into_iter().copied().collect::<Vec<_>>();
        needed.sort_unstable_by_key(|flush| flush.version);
        needed.dedup();
        let newest = flushes.last().map_or(0, |flush| flush.version.0);
        undo.push((newest + 1, u64::MAX));
        Needed { flushes: needed, changes: Runs::new(changes), undo: Runs::new(undo) }
    }

    pub(crate) fn has_flush(&self, version: Version) -> bool {
        self.flushes.binary_search_by_key(&version, |flush| flush.version).is_ok()
    }

    /// Where what is not needed of changes and undo is: the first key, and the one behind the last.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = (Keyspace, [u8; 8], [u8; 8])> + '_ {
        let spaces = [(Keyspace::Changes, &self.changes), (Keyspace::Undo, &self.undo)];
        spaces.into_iter().flat_map(|(space, runs)| {
            runs.gaps().map(move |(start, end)| (space, start.to_be_bytes(), end.to_be_bytes()))
        })
    }
}

/// Runs of versions, in order and apart from one another: first and last of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runs(Vec<(u64, u64)>);

impl Runs {
    fn new(mut runs: Vec<(u64, u64)>) -> Self {
        runs.retain(|(first, last)| first <= last);
        runs.sort_unstable();
        runs.dedup_by(|next, before| {
            let joins = next.0 <= before.1.saturating_add(1);
            if joins {
                before.1 = before.1.max(next.1);
            }
            joins
        });
        Runs(runs)
    }

    /// The run that a version is in.
    fn run(&self, version: Version) -> Option<(u64, u64)> {
        let behind = self.0.partition_point(|(first, _)| *first <= version.0);
        let run = behind.checked_sub(1).map(|at| self.0[at]);
        run.filter(|(_, last)| version.0 <= *last)
    }

    pub(crate) fn have(&self, version: Version) -> bool {
        self.run(version).is_some()
    }

    /// The version before the first one of the run that one is in, or that itself.
    pub(crate) fn first_before(&self, version: Version) -> Version {
        Version(self.run(version).map_or(version.0, |(first, _)| first - 1))
    }

    /// The runs of versions before and between them: the first, and the one behind the last.
    fn gaps(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let behind = self.0.iter().map(|(_, last)| last.saturating_add(1));
        let starts = [0].into_iter().chain(behind);
        let gaps = starts.zip(self.0.iter().map(|(first, _)| *first));
        gaps.filter(|(start, end)| start < end)
    }
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

/// The images from which versions are made, or read by those who `hold` them, in order.
pub(crate) fn images(needed: &Needed, held: Vec<Image>) -> Vec<Image> {
    let mut images = held;
    images.extend(needed.flushes.iter().map(|flush| flush.image));
    images.sort_unstable();
    images
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
    swept: Swept,
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
    pub(crate) fn run(mut self) -> Result<Swept, Error> {
        self.swept.is_ended = !self.all()?;
        if self.swept.changes.count > 0 || self.swept.pages.count > 0 {
            self.engine.reclaim()?;
        }
        Ok(self.swept)
    }

    /// The same; false if it was to end before all was deleted.
    fn all(&mut self) -> Result<bool, Error> {
        let versions = &self.shared.versions;
        // Before the flushes: later ones need nothing of what is dead now.
        let segments = self.shared.segments.get();
        let starting = versions.starting();
        // Whoever opens a version holds it before he asks whether it is kept.
        let kept = versions.kept();
        let opening = versions.openers.held();
        let (changes, undo) = (versions.changes.held(), versions.undo.held());
        let flushes = flushes::all(self.engine).collect::<Result<Vec<_>, _>>()?;
        let needed = Needed::new(&flushes, &kept, &opening, [&changes, &undo]);
        self.swept.newest = flushes.last().copied();
        // A flush before what it is behind: a version whose changes are gone must not be sought from it.
        for flush in flushes.iter().filter(|flush| !needed.has_flush(flush.version)) {
            self.delete(Keyspace::Meta, flushes::key(flush.version).to_vec().into());
            self.swept.flushes += 1;
        }
        // If there are none, too: what makes something needless is durable before that is deleted.
        self.writer.write(std::mem::take(&mut self.batch)).wait()?;
        drop(starting);
        drop(self.shared.history.forget_others(&needed.flushes));
        // From now on nobody reads another one who does not so far.
        let images = images(&needed, versions.images.held());
        for (space, start, end) in needed.gaps() {
            let counted = self.count(space, &start, &end)?;
            let Some(freed) = counted else { return Ok(false) };
            if freed.count > 0 && !self.delete_range(space, &start, &end)? {
                return Ok(false);
            }
            self.swept.changes.add(freed);
        }
        if !self.segments(&segments, &images)? {
            return Ok(false);
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
    fn segments(&mut self, segments: &Table, images: &[Image]) -> Result<bool, Error> {
        let oldest = self.shared.published().snapshot.version.tree.oldest();
        let mut free = segments.free(images, oldest).peekable();
        while let Some((first, segment)) = free.next() {
            // Those that follow go with it: an engine that drops whole tables writes a list of them each time.
            let mut gone = vec![first];
            let mut end = first.behind(segment);
            let mut freed = Freed { count: segment.pages.into(), bytes: segment.bytes };
            while let Some((id, segment)) = free.next_if(|(id, _)| *id == end) {
                gone.push(id);
                end = id.behind(segment);
                freed.add(Freed { count: segment.pages.into(), bytes: segment.bytes });
            }
            if !self.delete_range(Keyspace::Pages, &first.chunk_key(), &end.chunk_key())? {
                return Ok(false);
            }
            for id in &gone {
                self.delete(Keyspace::Meta, id.key().into());
            }
            let goes_on = self.write()?;
            for id in gone {
                self.shared.segments.remove(id);
            }
            self.swept.pages.add(freed);
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Deletes the values on their own that no version has which is kept or `open`. They are listed by the last version
    /// that has them; those which are needed by an older one alone are listed by that one from now on. False if it is to
    /// end before.
    fn values(&mut self, kept: &Kept, open: &[Version]) -> Result<bool, Error> {
        let horizon = kept.horizon().0.to_be_bytes();
        let (start, end) = (Unbounded, Excluded(&horizon[..]));
        let (mut damaged, mut goes_on) = (None, true);
        let lists = self.engine.scan(Keyspace::Replaced, start, end, Direction::Ascending);
        for (number, list) in (1_usize..).zip(lists) {
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
            let is_much = self.batch.operations().len() >= DELETED_AT_ONCE;
            if is_much || number.is_multiple_of(DELETED_AT_ONCE) {
                goes_on = self.write()?;
                if !goes_on {
                    break;
                }
            }
        }
        self.write()?;
        damaged.map_or(Ok(goes_on), Err)
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

    fn flush((version, since): (u64, u64)) -> Flushed {
        let (version, since) = (Version(version), Version(since));
        Flushed { version, since, image: Image::default() }
    }

    /// The versions of the flushes that are needed of these.
    fn flushes_of(flushes: &[(u64, u64)], kept: &Kept) -> Vec<u64> {
        let flushes = flushes.iter().copied().map(flush).collect::<Vec<_>>();
        let needed = Needed::new(&flushes, kept, &[], [&[], &[]]);
        needed.flushes.iter().map(|flush| flush.version.0).collect()
    }

    /// The gaps of the changes and of the undo that are needed, if there are flushes of these versions which undo leads
    /// back from to those.
    fn gaps(
        flushes: &[(u64, u64)],
        kept: &Kept,
        opening: &[u64],
        replays: [&[(u64, u64)]; 2],
    ) -> [Vec<(u64, u64)>; 2] {
        let flushes = flushes.iter().copied().map(flush).collect::<Vec<_>>();
        let opening = opening.iter().copied().map(Version).collect::<Vec<_>>();
        let replays = replays.map(|replays| {
            let versions = replays.iter().map(|(first, last)| (Version(*first), Version(*last)));
            versions.collect::<Vec<_>>()
        });
        let replays = [&replays[0][..], &replays[1]];
        let needed = Needed::new(&flushes, kept, &opening, replays);
        [needed.changes, needed.undo].map(|runs| {
            let gaps = runs.gaps().collect::<Vec<_>>();
            let inside = |(start, end): &(u64, u64)| (*start..*end).map(Version);
            assert!(gaps.iter().flat_map(inside).all(|version| !runs.have(version)));
            gaps
        })
    }

    #[test]
    fn changes_behind_the_horizon_are_needed_whatever_comes_meanwhile() {
        let kept = kept_of(100);
        let changes = |flushes: &[(u64, u64)], opening: &[u64], replays: &[(u64, u64)]| {
            let [changes, _] = gaps(flushes, &kept, opening, [replays, &[]]);
            changes
        };
        assert_eq!(changes(&[(10, 10)], &[], &[]), [(0, 11)]);
        // Versions and flushes that came while the horizon was decided on.
        assert_eq!(changes(&[(10, 10), (150, 150)], &[180], &[(151, 180)]), [(0, 11)]);
        assert_eq!(changes(&[], &[], &[]), []);
        assert_eq!(changes(&[(91, 91)], &[], &[]), [(0, 91)]);
    }

    #[test]
    fn changes_that_are_being_read_are_needed() {
        let kept = kept_of(100);
        let changes = |flushes: &[(u64, u64)], opening: &[u64], replays: &[(u64, u64)]| {
            let [changes, _] = gaps(flushes, &kept, opening, [replays, &[]]);
            changes
        };
        // One that was dropped while somebody began to open it; and one that was made from a flush which is gone.
        assert_eq!(changes(&[(10, 10), (50, 50), (80, 80)], &[30], &[]), [(0, 11), (31, 81)]);
        assert_eq!(changes(&[(80, 80)], &[], &[(21, 95)]), [(0, 21)]);
        assert_eq!(changes(&[(80, 80)], &[], &[(96, 95), (41, 40)]), [(0, 81)]);
    }

    #[test]
    fn undo_stands_for_the_flush_and_the_changes_before_it() {
        let kept = kept_of(100);
        let needed = |flushes: &[(u64, u64)]| gaps(flushes, &kept, &[], [&[], &[]]);
        // The last ten go back from 99 to 91.
        assert_eq!(needed(&[(10, 10), (99, 90)]), [vec![(0, 91)], vec![(0, 92)]]);
        // Undo does not reach far enough.
        assert_eq!(needed(&[(10, 10), (99, 92)]), [vec![(0, 11)], vec![(0, 93)]]);
        // Two flushes that undo leads back from: both may be used.
        assert_eq!(needed(&[(95, 80), (99, 94)]), [vec![(0, 91)], vec![(0, 92)]]);
        assert_eq!(needed(&[(85, 80), (88, 84)]), [vec![(0, 89)], vec![(0, 89)]]);
        // After an opening many lead back to it and no further: the newest of them does for all.
        assert_eq!(flushes_of(&[(95, 80), (97, 95), (98, 95), (99, 95)], &kept), [95, 99]);
        assert_eq!(flushes_of(&[(20, 20), (60, 60), (90, 88), (99, 98)], &kept), [90, 99]);
        assert_eq!(flushes_of(&[(20, 20), (60, 60), (99, 90)], &kept), [99]);
        // One that is being opened, and another that is being made.
        let opening = gaps(&[(50, 40), (99, 90)], &kept, &[45], [&[], &[(60, 62)]]);
        assert_eq!(opening, [vec![(0, 45), (46, 91)], vec![(0, 46), (51, 60), (63, 92)]]);
    }
}
