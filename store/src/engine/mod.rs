//! The seam to storage: what an engine promises, and how one is opened.
//!
//! An engine keeps ordered keyspaces and changes them in atomic batches. No snapshots and no merges: what
//! is written under an id never changes, and is deleted by batches when the store has no more need of it.
//! Entries of a whole range may be discarded first, if the engine has a cheaper way.
//!
//! Accepted is not durable. [`Engine::write`] makes a batch visible, [`Engine::sync`] makes what was
//! written durable; [`Writer`] joins the two and hands out the only acknowledgement there is, a
//! [`Ticket`]. After a crash an engine holds a prefix of the batches it accepted, each whole, with at
//! least those that were synced.
//!
//! Engines like values of 8 to 32 KiB under ascending keys; the store packs what it writes
//! accordingly. Caching is the store's own too, so the engines are opened with small caches.

mod batch;
mod directory;
mod error;
mod fjall;
mod memory;
mod sled;
mod writer;

use std::{fmt, ops::Bound, sync::Arc};

use anwansi_proofs::path::after_prefix;
use bytes::Bytes;

pub use self::{
    batch::{Batch, KEY_BYTES_MAX, Operation, VALUE_BYTES_MAX},
    error::EngineError,
    fjall::Fjall,
    memory::Memory,
    sled::Sled,
    writer::{QUEUE_BATCHES_MAX, QUEUE_BYTES_MAX, Ticket, Writer},
};

/// A keyspace: a set of keys in order of their bytes. Each has one owner in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keyspace {
    /// The manifest and other single records.
    Meta,
    /// One header a version.
    Headers,
    /// Entries and tiles of the log.
    Tiles,
    /// The changes of each version, in chunks.
    Changes,
    /// Values too large to stay with their change.
    Values,
    /// Images of the tree, in chunks.
    Pages,
    /// Requests already answered, by idempotency key.
    Requests,
    /// Transitions, and what happened to their tasks.
    Ledger,
    /// Inputs and results of tasks, by digest.
    Blobs,
    /// What happened to tasks in each version, in chunks.
    Tasks,
    /// Large values that a version has replaced, by the last one that has them.
    Replaced,
    /// What leads from flushed versions back to those before them, in chunks.
    Undo,
}

/// Which end of a range a scan starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key up.
    Ascending,
    /// From the largest key down.
    Descending,
}

/// The entries of a scan, in order. After an error the rest is unknown: stop.
pub type Scan<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), EngineError>> + Send + 'a>;

/// One open store of keys and values. Writes come from one thread, reads from any.
///
/// Any method may answer [`EngineError::Io`] or [`EngineError::Corrupt`], and an engine beyond one
/// machine [`EngineError::Fenced`] or [`EngineError::Unavailable`]. After an error of `write` or
/// `sync` it is unknown what was kept: drop the engine, open it again and read. [`Writer`] sees to
/// it that nothing is written in between.
pub trait Engine: Send + Sync + fmt::Debug {
    /// Returns the value of `key`, as of the last batch accepted.
    ///
    /// # Errors
    /// See [`Engine`].
    fn get(&self, space: Keyspace, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Returns the values of `keys`, in their order, all as of one moment between two batches.
    ///
    /// # Errors
    /// See [`Engine`].
    fn get_many(&self, space: Keyspace, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError>;

    /// Returns the entries between `start` and `end`, in the order of `direction`. A range that is
    /// empty or turned round has none.
    ///
    /// It holds the batches accepted before the call, and any part of those accepted while it runs:
    /// entries that may change meanwhile are to be read with [`get_many`](Engine::get_many).
    ///
    /// # Errors
    /// See [`Engine`]; each entry has its own result.
    fn scan<'a>(
        &'a self,
        space: Keyspace,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        direction: Direction,
    ) -> Scan<'a>;

    /// Accepts `batch`: all of it is visible to reads that start after this returns, and none of it
    /// to reads that end before. It is not durable yet.
    ///
    /// # Errors
    /// See [`Engine`].
    fn write(&self, batch: Batch) -> Result<(), EngineError>;

    /// Makes durable all that was accepted before the call, against loss of power: one
    /// `fdatasync` or its equal lies between the call and its return.
    ///
    /// # Errors
    /// See [`Engine`].
    fn sync(&self) -> Result<(), EngineError>;

    /// Begins to store many new entries of `space` past the log of batches. `None`, if the engine has no way that
    /// is cheaper than batches.
    ///
    /// # Errors
    /// See [`Engine`].
    fn ingest(&self, space: Keyspace) -> Result<Option<Ingest<'_>>, EngineError> {
        let _ = space;
        Ok(None)
    }

    /// Frees what it can at once of the entries of `space` from `start` to `end`, exclusive, which nobody needs: more
    /// cheaply than batches would. Any of them may be left or, after a crash, be there again, even if they were deleted
    /// before: delete what is found afterwards.
    ///
    /// # Errors
    /// See [`Engine`].
    fn discard(&self, space: Keyspace, start: &[u8], end: &[u8]) -> Result<(), EngineError> {
        let _ = (space, start, end);
        Ok(())
    }

    /// Gives back to the file system what [`discard`](Engine::discard) has freed, as far as readers let it.
    ///
    /// # Errors
    /// See [`Engine`].
    fn reclaim(&self) -> Result<(), EngineError> {
        Ok(())
    }

    /// Returns the engine's name, the scheme of its URL.
    fn name(&self) -> &'static str;

    /// Returns the bytes the engine takes where it stores them, about: space freed and not yet
    /// reused is counted by some and not by others.
    ///
    /// # Errors
    /// See [`Engine`].
    fn size_on_disk(&self) -> Result<u64, EngineError>;
}

/// Many new entries on their way. They are visible and durable when it is finished: all, or none if it is dropped
/// or a crash comes before. It may go on beside [`Engine::write`]: no batch touches the same keys.
pub struct Ingest<'a> {
    step: Step<'a>,
}

/// Takes the next entry; `None` finishes.
type Step<'a> = Box<dyn FnMut(Option<(Bytes, Bytes)>) -> Result<(), EngineError> + 'a>;

impl Ingest<'_> {
    /// Adds an entry whose key is larger than all keys of its keyspace.
    ///
    /// # Errors
    /// See [`Engine`].
    pub fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), EngineError> {
        (self.step)(Some((key, value)))
    }

    /// Makes all entries durable, and shows them.
    ///
    /// # Errors
    /// See [`Engine`].
    pub fn finish(mut self) -> Result<(), EngineError> {
        (self.step)(None)
    }
}

impl fmt::Debug for Ingest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingest").finish_non_exhaustive()
    }
}

/// The forms of URL that [`open`] knows.
pub const URLS: &[&str] = &["fjall:PATH", "sled:PATH", "memory:"];

/// Opens the engine that `url` names, for writing: `fjall:./data`, `sled:./data` or `memory:`.
///
/// A directory that is absent is made, for its owner only (0700). It is locked while the engine is
/// open. A directory is ours if it carries our marker file; any other is refused unless empty.
///
/// # Errors
/// [`EngineError::UnknownUrl`]; for a directory [`EngineError::Locked`] (open elsewhere, in this process
/// or another), [`EngineError::NotOurs`] (nothing in it was changed), [`EngineError::OtherEngine`],
/// [`EngineError::Corrupt`] and [`EngineError::Io`].
pub fn open(url: &str) -> Result<Arc<dyn Engine>, EngineError> {
    match url.split_once(':') {
        Some((fjall::NAME, path)) if !path.is_empty() => Ok(Arc::new(Fjall::open(path)?)),
        Some((sled::NAME, path)) if !path.is_empty() => Ok(Arc::new(Sled::open(path)?)),
        Some((memory::NAME, "")) => Ok(Arc::new(Memory::new())),
        _ => Err(EngineError::UnknownUrl { url: url.to_owned() }),
    }
}

impl Keyspace {
    /// All keyspaces, in the order of [`index`](Keyspace::index).
    pub const ALL: [Keyspace; 12] = [
        Keyspace::Meta,
        Keyspace::Headers,
        Keyspace::Tiles,
        Keyspace::Changes,
        Keyspace::Values,
        Keyspace::Pages,
        Keyspace::Requests,
        Keyspace::Ledger,
        Keyspace::Blobs,
        Keyspace::Tasks,
        Keyspace::Replaced,
        Keyspace::Undo,
    ];

    /// Returns the name under which it is stored.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Keyspace::Meta => "meta",
            Keyspace::Headers => "headers",
            Keyspace::Tiles => "tiles",
            Keyspace::Changes => "changes",
            Keyspace::Values => "values",
            Keyspace::Pages => "pages",
            Keyspace::Requests => "requests",
            Keyspace::Ledger => "ledger",
            Keyspace::Blobs => "blobs",
            Keyspace::Tasks => "tasks",
            Keyspace::Replaced => "replaced",
            Keyspace::Undo => "undo",
        }
    }

    /// Returns its place in [`ALL`](Keyspace::ALL). Engines store it: places are never reused.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

const _: () = {
    let mut index = 0;
    while index < Keyspace::ALL.len() {
        assert!(Keyspace::ALL[index].index() == index);
        index += 1;
    }
};

/// The entries whose keys start with `prefix`, in order.
pub(crate) fn scan_prefix<'a>(engine: &'a dyn Engine, space: Keyspace, prefix: &[u8]) -> Scan<'a> {
    let end = after_prefix(prefix);
    let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    engine.scan(space, Bound::Included(prefix), end, Direction::Ascending)
}

/// Tells whether no key lies between the bounds. Ordered maps panic on some such ranges.
fn is_empty_range(start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
        | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
    }
}
