//! The transparency log's hashes: full tiles in storage, what is not full in memory.

use anwansi_proofs::{
    LogHash,
    log::{TILE_LEVEL_MAX, TILE_WIDTH, Tile, tree},
};
use bytes::Bytes;

use crate::{
    Damage, Error,
    engine::{Batch, Engine, Keyspace},
    record::{SIGNED_KEY, Signed, encode},
};

/// The log as of one size.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    size: u64,
    /// Of each level of tiles the hashes of the last tile, which is not full.
    partial: Vec<Vec<LogHash>>,
}

impl Log {
    /// The number of entries.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Appends an entry. A tile that it fills goes into `batch`.
    pub(crate) fn append(&mut self, entry: &[u8], batch: &mut Batch) {
        let mut hash = LogHash::leaf(entry);
        let mut index = self.size;
        self.size += 1;
        for level in 0.. {
            if self.partial.len() == level {
                self.partial.push(Vec::new());
            }
            let row = &mut self.partial[level];
            row.push(hash);
            if row.len() < usize::from(TILE_WIDTH) {
                return;
            }
            let level =
                u8::try_from(level).expect("a log of 2^53 entries has seven levels of tiles");
            index /= u64::from(TILE_WIDTH);
            batch.put(Keyspace::Tiles, key(level, index).to_vec(), tile_bytes(row));
            while row.len() > 1 {
                *row = row.chunks(2).map(|pair| LogHash::node(&pair[0], &pair[1])).collect();
            }
            hash = row.pop().expect("a full tile has one root");
        }
    }

    /// The log's root.
    pub(crate) fn root(&self) -> LogHash {
        let read = |level, index| {
            let tile = Tile::holding(level, index, self.size).expect("within the log");
            let row = &self.partial[usize::from(tile.level())];
            Ok::<_, std::convert::Infallible>(
                tile.hash(&tile_bytes(row), level, index).expect("the tile is as wide as the row"),
            )
        };
        match tree::root_at(self.size, read) {
            Ok(root) => root,
            Err(never) => match never {},
        }
    }

    /// Notes in `batch` that the checkpoint of this log is going to be signed: durable with the version
    /// that it is for, and before its signature exists. Gives the root that will be signed.
    pub(crate) fn note_signing(&self, batch: &mut Batch) -> LogHash {
        let root = self.root();
        let signed = Signed { size: self.size, root: root.0 };
        batch.put(Keyspace::Meta, SIGNED_KEY, encode(&signed));
        root
    }

    /// The siblings that show the entry at `index`, which is in the log.
    pub(crate) fn inclusion_proof(
        &self,
        engine: &dyn Engine,
        index: u64,
    ) -> Result<Vec<LogHash>, Error> {
        let read = |level, index| {
            let tile = Tile::holding(level, index, self.size)?;
            let bytes = self.tile(engine, tile).map_err(ReadError::Store)?;
            let bytes = bytes.expect("the tile is within the log");
            Ok(tile.hash(&bytes, level, index)?)
        };
        tree::inclusion_proof(index, self.size, read).map_err(|error| match error {
            ReadError::Store(error) => error,
            ReadError::Proof(error) => {
                panic!("the entry and all tiles are within the log: {error}")
            }
        })
    }

    /// The bytes of a tile; `None` if the log is not that long yet.
    pub(crate) fn tile(&self, engine: &dyn Engine, tile: Tile) -> Result<Option<Bytes>, Error> {
        let hashes = self.size >> (8 * tile.level());
        let first = tile.index() * u64::from(TILE_WIDTH);
        if hashes < first + u64::from(tile.width()) {
            return Ok(None);
        }
        let length = 32 * usize::from(tile.width());
        if hashes < first + u64::from(TILE_WIDTH) {
            let row = &self.partial[usize::from(tile.level())];
            return Ok(Some(Bytes::from(tile_bytes(&row[..usize::from(tile.width())]))));
        }
        let damage = Damage::Tile { level: tile.level(), index: tile.index() };
        let bytes = engine.get(Keyspace::Tiles, &key(tile.level(), tile.index()))?;
        let whole = |bytes: &Bytes| bytes.len() == 32 * usize::from(TILE_WIDTH);
        let bytes = bytes.filter(whole).ok_or(Error::Damaged(damage))?;
        Ok(Some(bytes.slice(..length)))
    }

    /// The log of `size` entries, from its full tiles and its last entries, which `entry` reads.
    pub(crate) fn load(
        engine: &dyn Engine,
        size: u64,
        mut entry: impl FnMut(u64) -> Result<String, Error>,
    ) -> Result<Self, Error> {
        let width = u64::from(TILE_WIDTH);
        let mut partial = Vec::new();
        for level in 0..=TILE_LEVEL_MAX {
            let hashes = size >> (8 * level);
            if hashes == 0 {
                break;
            }
            let row = (hashes / width * width..hashes).map(|index| match level.checked_sub(1) {
                None => Ok(LogHash::leaf(entry(index)?.as_bytes())),
                Some(below) => {
                    let tile = Tile::new(below, index, TILE_WIDTH).expect("a full tile of the log");
                    let damage = Damage::Tile { level: below, index };
                    let bytes = engine.get(Keyspace::Tiles, &key(below, index))?;
                    let bytes = bytes.ok_or(Error::Damaged(damage))?;
                    let half = |i| tile.hash(&bytes, 8 * below + 7, 2 * index + i);
                    let halves = half(0).and_then(|left| Ok((left, half(1)?)));
                    let (left, right) = halves.map_err(|_| Error::Damaged(damage))?;
                    Ok(LogHash::node(&left, &right))
                }
            });
            partial.push(row.collect::<Result<Vec<_>, Error>>()?);
        }
        Ok(Log { size, partial })
    }
}

/// What a reader of hashes meets: only the first kind happens.
enum ReadError {
    Store(Error),
    Proof(anwansi_proofs::Error),
}

impl From<anwansi_proofs::Error> for ReadError {
    fn from(error: anwansi_proofs::Error) -> Self {
        ReadError::Proof(error)
    }
}

/// The key of a full tile.
fn key(level: u8, index: u64) -> [u8; 9] {
    let mut key = [level; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

fn tile_bytes(hashes: &[LogHash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}
