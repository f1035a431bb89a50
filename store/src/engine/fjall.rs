//! The engine over fjall 3, the default: log-structured trees behind one journal.
//!
//! A batch is one entry of the journal; `sync` is `fdatasync` on it. A journal is synced whole before
//! the next one is begun, so syncing the newest covers what was written before.

use std::{ops::Bound, path::Path};

use bytes::Bytes;
use fjall::{
    AbstractTree as _, CompressionType, Database, KeyspaceCreateOptions, PersistMode,
    Readable as _, config::CompressionPolicy,
};

use super::{
    Batch, Direction, Engine, EngineError, Ingest, Keyspace, Scan, directory::Directory,
    is_empty_range,
};

/// The scheme of its URL.
pub(super) const NAME: &str = "fjall";

/// Blocks kept in memory by the engine; what is worth keeping the store keeps itself.
const CACHE_BYTES: u64 = 16 << 20;
/// What a keyspace collects in memory before it is written out as a table.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// What journals may take on disk before the keyspaces that hold them back are written out.
const JOURNALS_BYTES_MAX: u64 = 64 << 20;
/// Threads that write tables and compact them.
const WORKERS: usize = 2;

/// A store in a local directory, kept by fjall.
pub struct Fjall {
    spaces: [fjall::Keyspace; Keyspace::ALL.len()],
    database: Database,
    // Last, so that the directory is unlocked after the engine has closed its files.
    directory: Directory,
}

impl Fjall {
    /// Opens the store in `path`, making it if there is none.
    ///
    /// # Errors
    /// As [`super::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, EngineError> {
        let (directory, (database, spaces)) =
            Directory::open(path.as_ref(), NAME, |files| build(files).map_err(error("opening")))?;
        Ok(Self { spaces, database, directory })
    }

    fn space(&self, space: Keyspace) -> &fjall::Keyspace {
        &self.spaces[space.index()]
    }
}

impl Engine for Fjall {
    fn get(&self, space: Keyspace, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        // Without a snapshot fjall reads what a batch has inserted so far.
        let value =
            self.database.snapshot().get(self.space(space), key).map_err(error("reading"))?;
        Ok(value.map(Bytes::from))
    }

    fn get_many(&self, space: Keyspace, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        let snapshot = self.database.snapshot();
        let get = |key: &&[u8]| Ok(snapshot.get(self.space(space), key)?.map(Bytes::from));
        keys.iter().map(get).collect::<fjall::Result<_>>().map_err(error("reading"))
    }

    fn scan<'a>(
        &'a self,
        space: Keyspace,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        direction: Direction,
    ) -> Scan<'a> {
        if is_empty_range(start, end) {
            return Box::new(std::iter::empty());
        }
        let entries = self.database.snapshot().range::<&[u8], _>(self.space(space), (start, end));
        let read = |guard: fjall::Guard| {
            let (key, value) = guard.into_inner().map_err(error("scanning"))?;
            Ok((Bytes::from(key), Bytes::from(value)))
        };
        match direction {
            Direction::Ascending => Box::new(entries.map(read)),
            Direction::Descending => Box::new(entries.rev().map(read)),
        }
    }

    fn write(&self, batch: Batch) -> Result<(), EngineError> {
        let operations = batch.into_operations();
        let mut writes =
            fjall::OwnedWriteBatch::with_capacity(self.database.clone(), operations.len());
        for operation in operations {
            let space = self.space(operation.space);
            match operation.value {
                Some(value) => writes.insert(space, operation.key, value),
                None => writes.remove(space, operation.key),
            }
        }
        writes.commit().map_err(error("writing a batch"))
        // A crash here leaves the batch whole, or what the journal held before it.
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.database.persist(PersistMode::SyncData).map_err(error("syncing the journal"))
        // A crash here leaves all batches written before.
    }

    // Whole tables, if there are any that hold nothing else.
    fn discard(&self, space: Keyspace, start: &[u8], end: &[u8]) -> Result<(), EngineError> {
        if is_empty_range(Bound::Included(start), Bound::Excluded(end)) {
            return Ok(());
        }
        let dropped = self.space(space).tree.drop_range(start..end);
        dropped.map_err(|source| error("dropping tables")(source.into()))
        // A crash here leaves any of the entries.
    }

    // Tables that were dropped are deleted with the lists that named them, whenever some memtable is rotated; and a
    // journal when no memtable is older. Empty ones are left.
    fn reclaim(&self) -> Result<(), EngineError> {
        let rotate = |space: &fjall::Keyspace| space.rotate_memtable().map(drop);
        self.spaces.iter().try_for_each(rotate).map_err(error("rotating a memtable"))
    }

    // Straight into tables, each synced when it is full: what goes through the journal is written twice.
    fn ingest(&self, space: Keyspace) -> Result<Option<Ingest<'_>>, EngineError> {
        let tables = self.space(space).start_ingestion().map_err(error("beginning a table"))?;
        let mut tables = Some(tables);
        let step = move |entry| match (entry, &mut tables) {
            (Some((key, value)), Some(tables)) => {
                tables.write::<Bytes, Bytes>(key, value).map_err(error("writing a table"))
            }
            // A crash before leaves tables that no list names, and no entry; one behind it leaves all.
            (None, tables) => tables
                .take()
                .map_or(Ok(()), |tables| tables.finish().map_err(error("finishing tables"))),
            (Some(_), None) => unreachable!("nothing is put behind the end"),
        };
        Ok(Some(Ingest { step: Box::new(step) }))
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn size_on_disk(&self) -> Result<u64, EngineError> {
        self.database.disk_space().map_err(error("measuring"))
    }
}

impl std::fmt::Debug for Fjall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fjall").field("directory", &self.directory).finish_non_exhaustive()
    }
}

fn build(files: &Path) -> fjall::Result<(Database, [fjall::Keyspace; Keyspace::ALL.len()])> {
    let database = Database::builder(files)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(JOURNALS_BYTES_MAX)
        .worker_threads(WORKERS)
        // Most of what is stored are digests, proofs of work or already packed: it does not shrink.
        .journal_compression(CompressionType::None)
        .open()?;
    let mut spaces = Vec::with_capacity(Keyspace::ALL.len());
    for space in Keyspace::ALL {
        spaces.push(database.keyspace(space.name(), || {
            KeyspaceCreateOptions::default()
                .data_block_compression_policy(CompressionPolicy::disabled())
                .max_memtable_size(MEMTABLE_BYTES)
        })?);
    }
    let spaces = spaces.try_into().ok().expect("one was opened for each");
    Ok((database, spaces))
}

/// Sorts fjall's errors into ours, by what there is to do.
fn error(doing: &'static str) -> impl Fn(fjall::Error) -> EngineError {
    move |error| match error {
        fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => {
            EngineError::io(doing)(source)
        }
        // An earlier failure, perhaps of a thread in the background: what is stored is unknown.
        fjall::Error::Poisoned => EngineError::Unavailable { doing }.poison(),
        error => EngineError::corrupt(doing, error),
    }
}
