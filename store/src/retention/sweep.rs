//! Sweep: what no version needs that is kept or open is deleted. It asks storage what is there, so that one which a
//! crash has ended is made up for by the next.

use std::{
    ops::Bound::{Excluded, Included, Unbounded},
    time::Instant,
};

use anwansi_proofs::{Version, path::after_prefix};
use bytes::Bytes;

use super::{Kept, Versions};
use crate::{
    Damage, Error,
    engine::{Batch, Direction, Engine, Keyspace, Writer},
    flush,
    record::{self, FLUSH_PREFIX, ReplacedValue, decode, encode, value_key},
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
    fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
    }
}

/// What was freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) flushes: u64,
    pub(crate) changes: Freed,
    pub(crate) values: Freed,
}

/// What versions that are kept or being opened are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Needed {
    /// The flushes from which they are made.
    pub(crate) flushes: Vec<Version>,
    /// The versions of which the changes are needed: first and last of each run, in order; after the last run come
    /// versions that are newer than all that was looked at.
    pub(crate) changes: Vec<(u64, u64)>,
}

impl Needed {
    /// Of the versions that are kept, those that are being opened, and the newest one, if these flushes are there.
    pub(crate) fn new(
        flushes: &[Version],
        kept: &Kept,
        opening: &[Version],
        newest: Version,
    ) -> Self {
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
        kept.below_horizon().chain(opening.iter().copied()).for_each(|at| need(at, at));
        need(kept.horizon(), newest);
        needed.flushes.extend(flushes.iter().filter(|flush| **flush >= kept.horizon()));
        needed.flushes.sort_unstable();
        needed.flushes.dedup();
        needed.changes.sort_unstable();
        needed.changes.dedup_by(|next, before| {
            let joins = next.0 <= before.1 + 1;
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
        let starts = [0].into_iter().chain(self.changes.iter().map(|(_, last)| last + 1));
        let gaps = starts.zip(self.changes.iter().map(|(first, _)| *first));
        gaps.filter(|(start, end)| start < end)
    }
}

/// The versions that are flushed, in order.
pub(crate) fn flushes(engine: &dyn Engine) -> Result<Vec<Version>, Error> {
    let end = after_prefix(FLUSH_PREFIX).expect("the prefix is text");
    let (start, end) = (Included(FLUSH_PREFIX), Excluded(&end[..]));
    let version = |entry: Result<(Bytes, Bytes), _>| {
        flush::version_of(&entry?.0).ok_or(Error::Damaged(Damage::Manifest))
    };
    engine.scan(Keyspace::Meta, start, end, Direction::Ascending).map(version).collect()
}

/// Deletes batch by batch, as far as it is allowed to go on.
pub(crate) struct Sweep<'a> {
    pub(crate) engine: &'a dyn Engine,
    pub(crate) writer: &'a Writer,
    /// Waits after something that has taken since then; false ends the sweep.
    pub(crate) pace: &'a dyn Fn(Instant) -> bool,
    batch: Batch,
    started: Instant,
    pub(crate) swept: Swept,
}

impl<'a> Sweep<'a> {
    pub(crate) fn new(
        engine: &'a dyn Engine,
        writer: &'a Writer,
        pace: &'a dyn Fn(Instant) -> bool,
    ) -> Self {
        let (batch, swept) = <_>::default();
        Sweep { engine, writer, pace, batch, started: Instant::now(), swept }
    }

    /// Deletes what nothing needs any more. `versions` have been decided on before.
    pub(crate) fn run(&mut self, versions: &Versions, newest: Version) -> Result<(), Error> {
        // Whoever opens a version holds it before he asks whether it is kept.
        let kept = versions.kept();
        let opening = versions.openers.versions();
        let flushes = flushes(self.engine)?;
        let needed = Needed::new(&flushes, &kept, &opening, newest);
        // A flush before what it is behind: a version whose changes are gone must not be sought from it.
        for flush in flushes.iter().filter(|flush| needed.flushes.binary_search(flush).is_err()) {
            self.delete(Keyspace::Meta, flush::key(*flush).to_vec().into());
            self.swept.flushes += 1;
        }
        if !self.write()? {
            return Ok(());
        }
        for (start, end) in needed.gaps() {
            if !self.changes(start, end)? {
                return Ok(());
            }
        }
        let mut open = [opening, versions.readers.versions()].concat();
        open.sort_unstable();
        self.values(&kept, &open)
    }

    /// Deletes the changes of versions from `start` up to `end`, exclusive; false if it shall end.
    fn changes(&mut self, start: u64, end: u64) -> Result<bool, Error> {
        let (start, end) = (start.to_be_bytes(), end.to_be_bytes());
        let (start, end) = (Included(&start[..]), Excluded(&end[..]));
        for entry in self.engine.scan(Keyspace::Changes, start, end, Direction::Ascending) {
            let (key, chunk) = entry?;
            self.delete(Keyspace::Changes, key);
            self.swept.changes.add(chunk.len());
            if !self.write_if_enough()? {
                return Ok(false);
            }
        }
        self.write()
    }

    /// Deletes the values on their own that no version has which is kept or `open`. They are listed by the last version
    /// that has them; those which are needed by an older one alone are listed by that one from now on.
    fn values(&mut self, kept: &Kept, open: &[Version]) -> Result<(), Error> {
        let mut next = 0_u64;
        // From list to list: those of versions that are needed are passed over.
        while next < kept.horizon().0 {
            let start = next.to_be_bytes();
            let mut lists = self.engine.scan(
                Keyspace::Replaced,
                Included(&start),
                Unbounded,
                Direction::Ascending,
            );
            let Some(entry) = lists.next() else { break };
            drop(lists);
            let (key, bytes) = entry?;
            let Some((last, rest)) = key.split_first_chunk() else {
                return Err(Error::Damaged(Damage::Replaced(Version(next))));
            };
            let last = Version(u64::from_be_bytes(*last));
            if last >= kept.horizon() {
                break;
            }
            let opened = open[..open.partition_point(|version| *version <= last)].last().copied();
            let needed = opened.max(kept.newest_until(last));
            if needed == Some(last) {
                next = last.0 + 1;
                continue;
            }
            next = last.0;
            let record::Replaced { values } = decode(&bytes, Damage::Replaced(last))?;
            let stays =
                |value: &ReplacedValue| needed.is_some_and(|needed| value.version <= needed.0);
            let (stay, gone): (Vec<_>, Vec<_>) = values.into_iter().partition(stays);
            for ReplacedValue { version, index, length } in gone {
                self.delete(Keyspace::Values, value_key(version, index).to_vec().into());
                self.swept.values.add(length as usize);
            }
            if let (false, Some(needed)) = (stay.is_empty(), needed) {
                let key = [&needed.0.to_be_bytes(), rest].concat();
                self.batch.put(Keyspace::Replaced, key, encode(&record::Replaced { values: stay }));
            }
            self.delete(Keyspace::Replaced, key);
            // What is read next must not show this list again.
            if !self.write()? {
                break;
            }
        }
        Ok(())
    }

    fn delete(&mut self, space: Keyspace, key: Bytes) {
        self.batch.delete(space, key);
    }

    fn write_if_enough(&mut self) -> Result<bool, Error> {
        if self.batch.operations().len() < DELETED_AT_ONCE { Ok(true) } else { self.write() }
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
