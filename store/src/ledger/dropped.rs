//! Dropped transitions: of those that were decided long enough ago only the records and the state stay.
//!
//! ```text
//!   horizon                       durable: from here on they are refused
//!     |  for each of them
//!   results and inputs            with the reveals that name the results; those that others need stay
//!   specification                 it names the inputs, so behind them
//!   pledges, closings, ends
//!   registry                      if no other needs that of this version
//!   entry "9, version, id"        last: whatever a crash leaves is found by it
//! ```
//!
//! A blob may be the result of many, and the input of others. It stays while it was put as an input; while a decision
//! that is kept names it, which its Named record tells; and while it is an input or a result of what is open or being
//! opened, which the book tells. Both are asked, and the deletion handed to the writer, under the lock of the book. So
//! whoever needs the blob is known there before, or writes it anew behind the deletion, or finds it gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
    time::Instant,
};

use anwansi_proofs::{Digest, TransitionId, Version, record::OpenRecord};

use super::{book::inputs, journal, read_spec};
use crate::{
    Damage, Error, Freed,
    engine::{Batch, Engine, Writer},
    retention::DELETED_AT_ONCE,
    snapshot,
    store::Shared,
    tree::Pages,
};

/// How many blobs are looked at under the lock of the book, at most.
const BLOBS_AT_ONCE: usize = DELETED_AT_ONCE / 4;

/// What was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Transitions of which nothing else is left.
    pub(crate) transitions: u64,
    /// Entries of the ledger.
    pub(crate) entries: u64,
    pub(crate) blobs: Freed,
    /// Whether it was to end before all was deleted.
    pub(crate) is_ended: bool,
}

/// Keeps the decisions of as many of the newest versions, refuses those before from now on, and deletes what is left of
/// them. `pace` waits after something that has taken since then; if it says no more, the rest is left for the next time.
///
/// # Errors
/// Those of storage. [`Error::Damaged`] if something stays because it cannot be read: all else is deleted.
pub(crate) fn drop_decided(
    shared: &Shared,
    writer: &Writer,
    kept: NonZeroU64,
    pace: &dyn Fn(Instant) -> bool,
) -> Result<Dropped, Error> {
    let newest = shared.published().snapshot.version();
    let horizon = Version((newest.0 + 1).saturating_sub(kept.get()));
    if horizon > shared.desk.horizon() {
        let mut batch = Batch::new();
        journal::put_horizon(&mut batch, horizon);
        writer.write(batch).wait()?;
        // A crash before leaves what was kept; one behind it leaves more than is kept, which is deleted later.
        shared.desk.raise_horizon(horizon);
    }
    let (engine, horizon) = (&*shared.engine, shared.desk.horizon());
    let (batch, blobs, registries, dropped) = <_>::default();
    let started = Instant::now();
    let mut dropping = Dropping {
        shared,
        engine,
        writer,
        pace,
        horizon,
        batch,
        blobs,
        registries,
        started,
        dropped,
    };
    dropping.dropped.is_ended = !dropping.run()?;
    Ok(dropping.dropped)
}

/// Whether a transition that `opened` has opened is open, or was decided from `horizon` on.
///
/// # Errors
/// Those of storage.
pub(crate) fn needs_registry(
    engine: &dyn Engine,
    pages: &Pages,
    opened: Version,
    horizon: Version,
) -> Result<bool, Error> {
    for (_, record) in snapshot::tasks(engine, pages, opened)? {
        let Some(OpenRecord { id, .. }) = OpenRecord::parse(&record) else { continue };
        let damaged = Error::Damaged(Damage::Transition(id));
        let record = journal::transition(engine, &id)?.ok_or(damaged)?;
        if record.decided.is_none_or(|decided| decided.version >= horizon.0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// For whom a blob stays, as far as storage tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// For all: it was put as an input.
    Input,
    /// For a decision that is kept.
    Decision,
    Nobody,
}

impl Need {
    /// For whom this one stays, if the decisions from `horizon` on are kept.
    ///
    /// # Errors
    /// Those of storage.
    pub(crate) fn of(
        engine: &dyn Engine,
        digest: &Digest,
        horizon: Version,
    ) -> Result<Self, Error> {
        let is_named = journal::named(engine, digest)?.is_some_and(|last| last >= horizon);
        Ok(match journal::since(engine, digest)? {
            _ if is_named => Need::Decision,
            Some(Version(0)) => Need::Input,
            _ => Need::Nobody,
        })
    }
}

/// Deletes batch by batch, as far as it is allowed to go on.
struct Dropping<'a> {
    shared: &'a Shared,
    engine: &'a dyn Engine,
    writer: &'a Writer,
    pace: &'a dyn Fn(Instant) -> bool,
    horizon: Version,
    batch: Batch,
    /// To be looked at before the batch is written, and deleted with it.
    blobs: BTreeSet<Digest>,
    /// Versions whose registry was looked at.
    registries: BTreeSet<Version>,
    started: Instant,
    dropped: Dropped,
}

impl Dropping<'_> {
    /// False if it shall end before all is deleted.
    fn run(&mut self) -> Result<bool, Error> {
        let mut damaged = None;
        for decided in journal::decided_before(self.engine, self.horizon) {
            let (version, id) = decided?;
            match self.transition(version, &id) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                // What is left of it stays as it is; a check names it.
                Err(error @ Error::Damaged(_)) => damaged = Some(error),
                Err(error) => return Err(error),
            }
        }
        self.write()?;
        damaged.map_or(Ok(true), Err)
    }

    /// Deletes what is left of a transition; false if it shall end.
    fn transition(&mut self, decided: Version, id: &TransitionId) -> Result<bool, Error> {
        if self.shared.desk.book().get(id).is_some() {
            // It is decided, but not taken out yet: to the book its results are needed. The next time they are not.
            return Ok(true);
        }
        let damaged = Error::Damaged(Damage::Transition(*id));
        let record = journal::transition(self.engine, id)?.ok_or(damaged.clone())?;
        if record.decided.is_none_or(|it| it.version != decided.0) {
            return Err(damaged);
        }
        for reveal in journal::reveals(self.engine, id) {
            let (key, digest) = reveal?;
            self.blobs.insert(digest);
            journal::delete_fact(&mut self.batch, key);
            self.dropped.entries += 1;
            if !self.write_much()? {
                return Ok(false);
            }
        }
        if journal::spec(self.engine, id)?.is_some() {
            for digest in inputs(&read_spec(self.engine, id)?) {
                self.blobs.insert(digest);
                if !self.write_much()? {
                    return Ok(false);
                }
            }
            journal::delete_spec(&mut self.batch, id);
            self.dropped.entries += 1;
        }
        for key in journal::fact_keys(self.engine, id) {
            journal::delete_fact(&mut self.batch, key?);
            self.dropped.entries += 1;
            if !self.write_much()? {
                return Ok(false);
            }
        }
        self.registry(Version(record.opened))?;
        journal::delete_decided(&mut self.batch, decided, id);
        self.dropped.entries += 1;
        self.dropped.transitions += 1;
        self.write_much()
    }

    /// Deletes the registry of a version, if nobody needs it.
    fn registry(&mut self, opened: Version) -> Result<(), Error> {
        let pages = &self.shared.pages;
        if self.registries.insert(opened)
            && !needs_registry(self.engine, pages, opened, self.horizon)?
        {
            journal::delete_registry(&mut self.batch, opened);
            self.dropped.entries += 1;
        }
        Ok(())
    }

    /// Writes what was deleted so far, if it is much; false if it shall end.
    fn write_much(&mut self) -> Result<bool, Error> {
        let is_much = self.blobs.len() >= BLOBS_AT_ONCE
            || self.batch.operations().len() >= DELETED_AT_ONCE - 3 * BLOBS_AT_ONCE;
        if is_much { self.write() } else { Ok(true) }
    }

    /// Waits until all that was deleted so far is, with the blobs that nobody needs; false if it shall end.
    fn write(&mut self) -> Result<bool, Error> {
        if !self.batch.is_empty() || !self.blobs.is_empty() {
            let lengths = self.lengths()?;
            let desk = &self.shared.desk;
            let mut book = desk.book();
            book.keep_needed(&mut self.blobs);
            let mut going = BTreeSet::new();
            for digest in std::mem::take(&mut self.blobs) {
                let Some(length) = lengths.get(&digest) else { continue };
                // Again: whoever needed it until now may be in the book no more, because it was decided.
                match Need::of(self.engine, &digest, self.horizon) {
                    Ok(Need::Decision) | Err(Error::Damaged(_)) => {}
                    Ok(Need::Nobody) if !book.putting.contains(&digest) => {
                        journal::delete_blob(&mut self.batch, &digest);
                        self.dropped.blobs.add(*length);
                        going.insert(digest);
                    }
                    // Input, or about to be one.
                    Ok(Need::Nobody | Need::Input) => {
                        journal::delete_named(&mut self.batch, &digest);
                    }
                    Err(error) => return Err(error),
                }
            }
            book.going = going;
            let ticket = self.writer.write(std::mem::take(&mut self.batch));
            drop(book);
            let done = ticket.wait();
            desk.book().going.clear();
            done?;
            // A crash here leaves the rest for the next time.
        }
        let goes_on = (self.pace)(self.started);
        self.started = Instant::now();
        Ok(goes_on)
    }

    /// How long the blobs are that no decision needs any more: what is needed by one that is kept stays so.
    fn lengths(&self) -> Result<BTreeMap<Digest, Freed>, Error> {
        let mut lengths = BTreeMap::new();
        for digest in &self.blobs {
            match Need::of(self.engine, digest, self.horizon) {
                Ok(Need::Decision) => {}
                Ok(Need::Input) => drop(lengths.insert(*digest, Freed::default())),
                Ok(Need::Nobody) => {
                    let bytes = journal::blob_bytes(self.engine, digest)?;
                    let freed = bytes.map(|bytes| Freed { count: 1, bytes });
                    lengths.insert(*digest, freed.unwrap_or_default());
                }
                // It stays; a check names it.
                Err(Error::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(lengths)
    }
}
