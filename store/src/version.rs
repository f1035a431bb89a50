//! A version in storage: its header, its changes and its tasks, written once and read back.

use anwansi_proofs::{Header, Version, path::KEY_BYTES_MAX};
use bytes::Bytes;

use crate::{
    Damage, Error,
    engine::{Batch, Engine, Keyspace, scan_prefix},
    record::{
        self, CHUNK_BYTES, ChunkKind, INLINE_BYTES_MAX, Replaced, ReplacedValue, StoredValue,
        VersionRecord, decode, encode, numbered_key,
    },
    tree::{Value, Write},
};

/// The values of one version that are stored on their own.
pub(crate) struct Values {
    version: Version,
    count: u32,
}

impl Values {
    pub(crate) fn new(version: Version) -> Self {
        Values { version, count: 0 }
    }

    /// Puts `value` where it belongs: into its record, or into `batch` on its own.
    pub(crate) fn place(&mut self, value: Bytes, batch: &mut Batch) -> Value {
        if value.len() <= INLINE_BYTES_MAX {
            return Value::Inline(value);
        }
        let stored = StoredValue {
            version: self.version.0,
            index: self.count,
            length: u32::try_from(value.len()).expect("values have at most 16 MiB"),
            digest: anwansi_proofs::Digest::of(&value).0,
        };
        self.count += 1;
        batch.put(Keyspace::Values, stored.key().to_vec(), value);
        Value::Stored(stored)
    }
}

/// Puts a version into `batch`: `changes` of the state and entries of the tasks tree, in key order.
pub(crate) fn write(header: &Header, changes: &[Write], tasks: &[Write], batch: &mut Batch) {
    let version = header.version();
    let mut put = |space, key, chunk| batch.put(space, key, chunk);
    let state_chunks = write_chunks(version, ChunkKind::State.space(), changes, &mut put);
    let task_chunks = write_chunks(version, ChunkKind::Tasks.space(), tasks, &mut put);
    let record = VersionRecord { header: header.to_string(), chunks: [state_chunks, task_chunks] };
    batch.put(Keyspace::Headers, version.0.to_be_bytes().to_vec(), encode(&record));
}

/// Puts into `batch` which values on their own `version` has no more: listed by the one before, the last that has them.
pub(crate) fn write_replaced(version: Version, mut values: Vec<StoredValue>, batch: &mut Batch) {
    let last = version.0 - 1;
    values.sort_unstable_by_key(StoredValue::key);
    let lists = values.chunks(CHUNK_BYTES / size_of::<ReplacedValue>());
    for (number, list) in (0_u32..).zip(lists) {
        let value = |value: &StoredValue| {
            let StoredValue { version, index, length, .. } = *value;
            ReplacedValue { version, index, length }
        };
        let record = Replaced { values: list.iter().map(value).collect() };
        // By what is the last version that is kept and has them; at first this one.
        let key = [&last.to_be_bytes()[..], &last.to_be_bytes(), &number.to_be_bytes()].concat();
        batch.put(Keyspace::Replaced, key, encode(&record));
    }
}

/// The bytes of keys and values in `changes`.
pub(crate) fn bytes_of(changes: &[Write]) -> u64 {
    changes.iter().map(|write| write.bytes() as u64).sum()
}

/// Puts the writes that lead back from `version` to the one before, which stand in key order.
pub(crate) fn write_undo(
    version: Version,
    undo: &[Write],
    put: impl FnMut(Keyspace, Vec<u8>, Vec<u8>),
) {
    write_chunks(version, Keyspace::Undo, undo, put);
}

/// Puts `changes` into chunks, and gives their number.
fn write_chunks(
    version: Version,
    space: Keyspace,
    mut changes: &[Write],
    mut put: impl FnMut(Keyspace, Vec<u8>, Vec<u8>),
) -> u32 {
    let mut chunks = 0;
    while !changes.is_empty() {
        let mut bytes = 0;
        let fits = |write: &&Write| {
            let fits = bytes < CHUNK_BYTES;
            bytes += write.bytes().min(KEY_BYTES_MAX + INLINE_BYTES_MAX);
            fits
        };
        let (chunk, rest) = changes.split_at(changes.iter().take_while(fits).count());
        let record = record::Chunk { changes: chunk.iter().map(Write::to_record).collect() };
        put(space, numbered_key(version.0, chunks).to_vec(), encode(&record));
        (changes, chunks) = (rest, chunks + 1);
    }
    chunks
}

/// The header of `version` and the rest of its record.
pub(crate) fn read(
    engine: &dyn Engine,
    version: Version,
) -> Result<(Header, VersionRecord), Error> {
    let damage = Damage::Header(version);
    let bytes = engine.get(Keyspace::Headers, &version.0.to_be_bytes())?;
    let record: VersionRecord = decode(&bytes.ok_or(Error::Damaged(damage))?, damage)?;
    let header: Header = record.header.parse().map_err(|_| Error::Damaged(damage))?;
    if header.version() == version { Ok((header, record)) } else { Err(Error::Damaged(damage)) }
}

/// The changes of a version, or the entries of its tasks tree, in key order.
pub(crate) fn read_chunks(
    engine: &dyn Engine,
    version: Version,
    kind: ChunkKind,
    record: &VersionRecord,
) -> Result<Vec<Write>, Error> {
    let damage = Damage::Changes(version);
    let mut changes = Vec::new();
    for index in 0..record.chunks[kind as usize] {
        let bytes = engine.get(kind.space(), &numbered_key(version.0, index))?;
        read_chunk(&bytes.ok_or(Error::Damaged(damage))?, damage, &mut changes)?;
    }
    Ok(changes)
}

/// The writes that lead back from `version` to the one before, in key order. How many there are is not known: whether
/// they are all shows the root that they lead to.
pub(crate) fn read_undo(engine: &dyn Engine, version: Version) -> Result<Vec<Write>, Error> {
    let mut undo = Vec::new();
    for entry in scan_prefix(engine, Keyspace::Undo, &version.0.to_be_bytes()) {
        read_chunk(&entry?.1, Damage::Undo(version), &mut undo)?;
    }
    Ok(undo)
}

/// Appends the writes of a chunk to those before it.
fn read_chunk(bytes: &[u8], damage: Damage, writes: &mut Vec<Write>) -> Result<(), Error> {
    let damaged = || Error::Damaged(damage);
    let chunk: record::Chunk<'_> = decode(bytes, damage)?;
    for change in &chunk.changes {
        let write = Write::from_record(change).ok_or_else(damaged)?;
        let ascends = writes.last().is_none_or(|last| last.key < write.key);
        if !ascends || !anwansi_proofs::path::is_key(&write.key) {
            return Err(damaged());
        }
        writes.push(write);
    }
    Ok(())
}
