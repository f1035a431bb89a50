//! The engine over sled 0.34.7: one log file of segments, one tree for all keyspaces.
//!
//! Three habits of sled are met here. Batches are atomic within one tree only, so the keyspaces share
//! one, told apart by the first byte of the key. Its `flush` asks for `sync_file_range` and no more,
//! so [`Engine::sync`] adds the `fdatasync`. And what is larger than a quarter of a segment goes to
//! side files that are never synced, so larger values are stored in pieces:
//!
//! ```text
//! space | key                          0 | value               up to PIECE_BYTES
//! space | key                          1 | pieces, u32be       more; the pieces are under
//! space + 128 | key | index, u32be     piece                   PIECE_BYTES each, the last may be shorter
//! ```
//!
//! `space` is the keyspace's [`index`](Keyspace::index), one byte. An index has four bytes, so no
//! two keys share the key of a piece.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    ops::Bound,
    path::Path,
    sync::{RwLock, RwLockReadGuard},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sled::IVec;

use super::{
    Batch, Direction, Engine, EngineError, Keyspace, Scan, VALUE_BYTES_MAX,
    directory::{Directory, sync_directory},
    is_empty_range,
};

/// The scheme of its URL.
pub(super) const NAME: &str = "sled";

/// The largest that sled takes. Fixed when a store is made.
const SEGMENT_BYTES: usize = 16 << 20;
/// What is kept in one piece. The chunks the store packs are smaller.
const PIECE_BYTES: usize = 64 << 10;
/// What sled writes at once is a leaf: 17 entries before it is split, a few more after a merge.
const LEAF_ENTRIES_MAX: usize = 24;
const _: () = assert!(LEAF_ENTRIES_MAX * (PIECE_BYTES + 2048) < SEGMENT_BYTES / 4);

/// Pages kept in memory by the engine; what is worth keeping the store keeps itself.
const CACHE_BYTES: u64 = 64 << 20;
/// A dropped sled holds its own lock until its threads have ended.
const CLOSING: Duration = Duration::from_secs(10);

/// First bytes of a stored value.
const WHOLE: u8 = 0;
const IN_PIECES: u8 = 1;
/// What is added to the first byte of the key of a piece.
const PIECE: u8 = 128;
const _: () = assert!(Keyspace::ALL.len() <= PIECE as usize);
/// The most pieces a value can have.
const PIECES_MAX: usize = VALUE_BYTES_MAX.div_ceil(PIECE_BYTES);

/// A store in a local directory, kept by sled.
#[derive(Debug)]
pub struct Sled {
    database: sled::Db,
    /// The file sled writes to, opened a second time: syncing either syncs both.
    file: File,
    /// Held for writing while a batch is applied, so that what reads several entries sees it whole.
    batches: RwLock<()>,
    // Last, so that the directory is unlocked after the engine has closed its files.
    _directory: Directory,
}

impl Sled {
    /// Opens the store in `path`, making it if there is none.
    ///
    /// # Errors
    /// As [`super::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, EngineError> {
        let (directory, (database, file)) = Directory::open(path.as_ref(), NAME, build)?;
        Ok(Self { database, file, batches: RwLock::default(), _directory: directory })
    }

    fn no_batch(&self) -> RwLockReadGuard<'_, ()> {
        // It guards no data of ours: a panic while it was held has left nothing half done in it.
        self.batches.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Reads the value of `key`. The caller keeps batches out.
    fn read(&self, space: Keyspace, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let stored = self.database.get(tree_key(space, key)).map_err(error("reading"))?;
        stored.map(|stored| self.assemble(space, key, &stored)).transpose()
    }

    /// Returns the value of which `stored` is what the tree holds under the key itself.
    fn assemble(&self, space: Keyspace, key: &[u8], stored: &[u8]) -> Result<Bytes, EngineError> {
        let pieces = match Stored::decode(stored)? {
            Stored::Whole(value) => return Ok(Bytes::copy_from_slice(value)),
            Stored::InPieces(pieces) => pieces,
        };
        let mut value = Vec::new();
        for index in 0..pieces {
            let piece =
                self.database.get(piece_key(space, key, index)).map_err(error("reading"))?;
            let piece = piece.ok_or_else(|| damaged("a piece is missing"))?;
            if piece.len() > PIECE_BYTES {
                return Err(damaged("a piece is too long"));
            }
            value.extend_from_slice(&piece);
        }
        Ok(value.into())
    }

    /// Tells how many pieces the value of `key` has now, to be overwritten or removed.
    fn pieces(&self, space: Keyspace, key: &[u8]) -> Result<u32, EngineError> {
        let stored = self.database.get(tree_key(space, key)).map_err(error("reading"))?;
        match stored.as_deref().map(Stored::decode).transpose()? {
            None | Some(Stored::Whole(_)) => Ok(0),
            Some(Stored::InPieces(pieces)) => Ok(pieces),
        }
    }
}

impl Engine for Sled {
    fn get(&self, space: Keyspace, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let _no_batch = self.no_batch();
        self.read(space, key)
    }

    fn get_many(&self, space: Keyspace, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        let _no_batch = self.no_batch();
        keys.iter().map(|key| self.read(space, key)).collect()
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
        let first = index_byte(space);
        let start = match start.map(|key| tree_key(space, key)) {
            Bound::Unbounded => Bound::Included(vec![first]),
            start => start,
        };
        let end = match end.map(|key| tree_key(space, key)) {
            Bound::Unbounded => Bound::Excluded(vec![first + 1]),
            end => end,
        };
        let mut entries = self.database.range((start, end));
        Box::new(std::iter::from_fn(move || {
            // Not for the whole scan: that would hold up the writer for as long as it is kept.
            let _no_batch = self.no_batch();
            let entry = match direction {
                Direction::Ascending => entries.next(),
                Direction::Descending => entries.next_back(),
            };
            Some(entry?.map_err(error("scanning")).and_then(|(key, stored): (IVec, IVec)| {
                let key = Bytes::copy_from_slice(&key[1..]);
                let value = self.assemble(space, &key, &stored)?;
                Ok((key, value))
            }))
        }))
    }

    // Reads each key first, to remove the pieces of what it overwrites.
    fn write(&self, batch: Batch) -> Result<(), EngineError> {
        let last: BTreeMap<_, _> = batch
            .into_operations()
            .into_iter()
            .map(|operation| ((operation.space, operation.key), operation.value))
            .collect();
        let mut writes = sled::Batch::default();
        for ((space, key), value) in last {
            let old_pieces = self.pieces(space, &key)?;
            let pieces = match value {
                None => {
                    writes.remove(tree_key(space, &key));
                    0
                }
                Some(value) if value.len() <= PIECE_BYTES => {
                    writes.insert(tree_key(space, &key), Stored::Whole(&value).encode());
                    0
                }
                Some(value) => {
                    let mut pieces = 0;
                    for piece in value.chunks(PIECE_BYTES) {
                        writes.insert(piece_key(space, &key, pieces), piece);
                        pieces += 1;
                    }
                    writes.insert(tree_key(space, &key), Stored::InPieces(pieces).encode());
                    pieces
                }
            };
            for index in pieces..old_pieces {
                writes.remove(piece_key(space, &key, index));
            }
        }
        let _batch = self.batches.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.database.apply_batch(writes).map_err(error("writing a batch"))
        // A crash here leaves the batch whole, or what the log held before it.
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.database.flush().map_err(error("flushing"))?;
        // A crash of the process here leaves all batches; a loss of power may leave fewer.
        self.file.sync_data().map_err(EngineError::io("syncing the log"))
        // A crash here leaves all batches written before.
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn size_on_disk(&self) -> Result<u64, EngineError> {
        self.database.size_on_disk().map_err(error("measuring"))
    }
}

/// What the tree holds under a key.
enum Stored<'a> {
    Whole(&'a [u8]),
    InPieces(u32),
}

impl<'a> Stored<'a> {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Whole(value) => [&[WHOLE][..], value].concat(),
            Self::InPieces(pieces) => [&[IN_PIECES][..], &pieces.to_be_bytes()].concat(),
        }
    }

    fn decode(stored: &'a [u8]) -> Result<Self, EngineError> {
        match stored.split_first() {
            Some((&WHOLE, value)) => Ok(Self::Whole(value)),
            Some((&IN_PIECES, pieces)) => match pieces.try_into().map(u32::from_be_bytes) {
                Ok(pieces) if (2..=PIECES_MAX).contains(&(pieces as usize)) => {
                    Ok(Self::InPieces(pieces))
                }
                _ => Err(damaged("a value has an impossible number of pieces")),
            },
            _ => Err(damaged("a value is neither whole nor in pieces")),
        }
    }
}

fn tree_key(space: Keyspace, key: &[u8]) -> Vec<u8> {
    [&[index_byte(space)], key].concat()
}

fn piece_key(space: Keyspace, key: &[u8], index: u32) -> Vec<u8> {
    [&[index_byte(space) + PIECE], key, &index.to_be_bytes()].concat()
}

fn index_byte(space: Keyspace) -> u8 {
    u8::try_from(space.index()).expect("there are fewer keyspaces")
}

fn build(files: &Path) -> Result<(sled::Db, File), EngineError> {
    let config = sled::Config::new()
        .path(files)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None);
    let start = Instant::now();
    let database = loop {
        match config.open() {
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                if start.elapsed() > CLOSING {
                    return Err(EngineError::Locked { path: files.to_owned() });
                }
                thread::sleep(Duration::from_millis(5));
            }
            opened => break opened.map_err(error("opening"))?,
        }
    };
    let doing = "syncing the files of a new store";
    for name in ["conf", "db"] {
        let file = File::open(files.join(name)).and_then(|file| file.sync_all());
        file.map_err(EngineError::io(doing))?;
    }
    sync_directory(files).map_err(EngineError::io(doing))?;
    // A crash here leaves a store that opens, with nothing acknowledged missing.
    let file = OpenOptions::new().write(true).open(files.join("db"));
    Ok((database, file.map_err(EngineError::io("opening the log"))?))
}

fn damaged(what: &'static str) -> EngineError {
    EngineError::corrupt("reading a value", what)
}

/// Sorts sled's errors into ours, by what there is to do.
fn error(doing: &'static str) -> impl Fn(sled::Error) -> EngineError {
    move |error| match error {
        sled::Error::Io(source) => EngineError::io(doing)(source),
        error => EngineError::corrupt(doing, error),
    }
}
