//! The records that the store keeps, and their bytes.
//!
//! ```text
//! kind 1 | format 1 | fields, in bincode's wire format | the first 8 bytes of BLAKE3 over all before
//! ```
//!
//! Integers are fixed and little-endian, lengths u64, enums and their data led by a u32 (FORMAT.md,
//! "Records"). Reading takes the whole input or fails. No record is longer than [`RECORD_BYTES_MAX`]:
//! what could be, is split.

use anwansi_proofs::Digest;
use wincode::{SchemaRead, SchemaWrite, config::DefaultConfig};

use crate::{Damage, Error, PageId, engine::Keyspace, segments::Image};

/// The format of every kind of record, and of their arrangement.
pub(crate) const FORMAT: u8 = 3;

/// The longest record, in bytes: far below what the codec allows for one sequence.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 20;

/// The longest value that stands inside of records and pages; longer ones are stored on their own.
pub(crate) const INLINE_BYTES_MAX: usize = 1024;

/// The bytes at which a chunk of changes is closed.
pub(crate) const CHUNK_BYTES: usize = 32 << 10;

/// Something that is stored as one record.
pub(crate) trait Record {
    /// Tells it from all other kinds; never reused.
    const KIND: u8;
}

/// Appends a change to others in memory. [`changes`] reads them.
pub(crate) fn append_change(bytes: &mut Vec<u8>, change: &Change<'_>) {
    wincode::serialize_into(bytes, change).expect("memory takes all that is written");
}

/// The changes that were appended one behind the other.
pub(crate) fn changes(mut bytes: &[u8]) -> impl Iterator<Item = Change<'_>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let change: Change<'_> = wincode::deserialize(bytes).expect("it was written so");
        let length = wincode::serialized_size(&change).expect("it can be written");
        bytes = &bytes[usize::try_from(length).expect("it is in memory")..];
        Some(change)
    })
}

/// The bytes of `record`.
pub(crate) fn encode<T: Record + SchemaWrite<DefaultConfig, Src = T>>(record: &T) -> Vec<u8> {
    let length = wincode::serialized_size(record).expect("it can be written");
    let length = usize::try_from(length).expect("memory takes all that is written");
    let mut bytes = Vec::with_capacity(2 + length + CHECKSUM_BYTES);
    bytes.extend([T::KIND, FORMAT]);
    wincode::serialize_into(&mut bytes, record).expect("memory takes all that is written");
    bytes.extend(checksum(&bytes));
    assert!(bytes.len() <= RECORD_BYTES_MAX, "what could be longer is split before it gets here");
    bytes
}

/// The record in `bytes`; `damage` is what to say if there is none.
///
/// # Errors
/// [`Error::Damaged`], or [`Error::OtherFormat`] if a program of another format wrote it.
pub(crate) fn decode<'a, T: Record + SchemaRead<'a, DefaultConfig, Dst = T>>(
    bytes: &'a [u8],
    damage: Damage,
) -> Result<T, Error> {
    let damaged = Error::Damaged(damage);
    let Some((content, sum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
        return Err(damaged);
    };
    match content {
        _ if bytes.len() > RECORD_BYTES_MAX || checksum(content) != *sum => Err(damaged),
        [kind, FORMAT, body @ ..] if *kind == T::KIND => {
            wincode::deserialize_exact(body).map_err(|_| damaged)
        }
        [kind, format, ..] if *kind == T::KIND && *format != FORMAT => {
            Err(Error::OtherFormat { found: (*format).into(), known: FORMAT.into() })
        }
        _ => Err(damaged),
    }
}

/// How long the record is that `bytes` begin with; `None` if it is none.
pub(crate) fn length<
    'a,
    T: Record + SchemaRead<'a, DefaultConfig, Dst = T> + SchemaWrite<DefaultConfig, Src = T>,
>(
    bytes: &'a [u8],
) -> Option<usize> {
    let record: T = wincode::deserialize(bytes.get(2..)?).ok()?;
    let length = usize::try_from(wincode::serialized_size(&record).ok()?).ok()?;
    Some(2 + length + CHECKSUM_BYTES).filter(|length| *length <= bytes.len())
}

const CHECKSUM_BYTES: usize = 8;

/// Tells damage from what was written; it is no proof against anyone.
fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let Digest(digest) = Digest::of(content);
    *digest.first_chunk().expect("a digest is longer")
}

/// What the whole store is.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct Manifest {
    /// The key that its log is signed with.
    pub(crate) vkey: String,
    /// How often the store was opened for writing: ids made in one epoch are never used in another.
    pub(crate) epoch: u32,
}

/// The tree of one version, as far as it lies in pages.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct Flush<'a> {
    pub(crate) top: Option<Slot<'a>>,
    pub(crate) entries: u64,
    /// Of keys and values together.
    pub(crate) bytes: u64,
    pub(crate) image: Image,
    /// The oldest version that undo leads back to; its own if there is none.
    pub(crate) since: u64,
}

/// A run of chunks of pages, all of one flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, SchemaWrite, SchemaRead)]
pub(crate) struct Segment {
    pub(crate) chunks: u32,
    pub(crate) pages: u32,
    /// Of all pages.
    pub(crate) bytes: u64,
    /// Of those that the newest image has.
    pub(crate) live: u64,
    /// The image that it was written for.
    pub(crate) born: Image,
    /// The first image that has none of its pages, once there is one.
    pub(crate) died: Option<Image>,
}

/// A version, without its content.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct VersionRecord {
    pub(crate) header: String,
    /// How many chunks of each kind there are, by [`ChunkKind`].
    pub(crate) chunks: [u32; 2],
}

/// What a chunk of a version holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkKind {
    /// Changes of the state.
    State = 0,
    /// Entries of the tasks tree.
    Tasks = 1,
}

impl ChunkKind {
    /// Where chunks of it are.
    pub(crate) fn space(self) -> Keyspace {
        match self {
            ChunkKind::State => Keyspace::Changes,
            ChunkKind::Tasks => Keyspace::Tasks,
        }
    }
}

/// Some of a version's changes, in key order.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct Chunk<'a> {
    pub(crate) changes: Vec<Change<'a>>,
}

#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct Change<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: Option<Value<'a>>,
}

#[derive(SchemaWrite, SchemaRead)]
pub(crate) enum Value<'a> {
    Inline(&'a [u8]),
    Stored(StoredValue),
}

/// Where a value of more than [`INLINE_BYTES_MAX`] bytes lies, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredValue {
    /// The version that wrote it.
    pub(crate) version: u64,
    /// Its number among that version's stored values.
    pub(crate) index: u32,
    pub(crate) length: u32,
    pub(crate) digest: [u8; 32],
}

/// The slots of one page.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct Page<'a> {
    pub(crate) slots: Vec<Slot<'a>>,
}

#[derive(SchemaWrite, SchemaRead)]
pub(crate) enum Slot<'a> {
    Entry { key: &'a [u8], value: Value<'a> },
    Child(Child<'a>),
}

impl Slot<'_> {
    /// What the keys below begin with.
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Slot::Entry { key, .. } => key,
            Slot::Child(child) => child.prefix,
        }
    }
}

/// The top of a page, as its parent knows it.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct Child<'a> {
    pub(crate) prefix: &'a [u8],
    pub(crate) bit: u16,
    pub(crate) left: [u8; 32],
    pub(crate) right: [u8; 32],
    pub(crate) page: PageId,
}

/// From which version on all are kept.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct Horizon {
    pub(crate) version: u64,
}

/// A version that is kept, wherever the horizon is.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct Kept {
    /// Until it is unpinned; otherwise as long as the policy says so.
    pub(crate) is_pinned: bool,
}

/// Values on their own that no version behind a certain one has.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct Replaced {
    pub(crate) values: Vec<ReplacedValue>,
}

/// One of them.
#[derive(Clone, Copy, SchemaWrite, SchemaRead)]
pub(crate) struct ReplacedValue {
    /// The version that wrote it, and its number among that version's.
    pub(crate) version: u64,
    pub(crate) index: u32,
    pub(crate) length: u32,
}

/// The key of a value on its own, or of a chunk: those of one version stand together.
pub(crate) fn numbered_key(version: u64, index: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&version.to_be_bytes());
    key[8..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The checkpoint that may have been signed last.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct Signed {
    pub(crate) size: u64,
    pub(crate) root: [u8; 32],
}

/// A request that was carried out.
#[derive(Clone, Copy, SchemaWrite, SchemaRead)]
pub(crate) struct Request {
    /// The digest of what was asked.
    pub(crate) body: [u8; 32],
    pub(crate) version: u64,
    /// When, in milliseconds since 1970.
    pub(crate) time: u64,
}

/// A transition that was opened.
#[derive(Clone, SchemaWrite, SchemaRead)]
pub(crate) struct Transition {
    /// The version that opened it.
    pub(crate) opened: u64,
    pub(crate) decided: Option<Decided>,
}

/// How a transition ended.
#[derive(Clone, SchemaWrite, SchemaRead)]
pub(crate) struct Decided {
    /// The version that decided it.
    pub(crate) version: u64,
    /// Why nothing was applied, in words, where that is so.
    pub(crate) reason: Option<String>,
}

/// A node's pledge and its signature; and the second ones, of a node that equivocates.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct Pledged {
    pub(crate) first: ([u8; 32], [u8; 64]),
    pub(crate) second: Option<([u8; 32], [u8; 64])>,
}

/// The pledging of a round ended.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct Closed {
    /// The version with the closing's record.
    pub(crate) version: u64,
}

/// What a node showed of its result, which is a blob.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct Revealed {
    pub(crate) salt: [u8; 32],
    pub(crate) digest: [u8; 32],
}

/// Anyone may read a blob.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct Readable {
    /// Once this version is shown.
    pub(crate) since: u64,
}

/// Decisions name a blob, as an input or a result.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct Named {
    /// The newest version with such a decision.
    pub(crate) last: u64,
}

/// From which version on the ledger keeps what was decided.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct LedgerHorizon {
    pub(crate) version: u64,
}

/// The reveals of a round ended: what came until then counts, and nothing after.
#[derive(SchemaWrite, SchemaRead)]
pub(crate) struct Ended {}

macro_rules! kinds {
    ($($kind:literal $record:ty)*) => { $(impl Record for $record { const KIND: u8 = $kind; })* };
}

kinds! {
    1 Manifest
    2 Flush<'_>
    3 VersionRecord
    4 Chunk<'_>
    5 Page<'_>
    6 Signed
    7 Request
    8 Transition
    9 Pledged
    10 Closed
    11 Revealed
    12 Ended
    13 Readable
    14 Horizon
    15 Kept
    16 Replaced
    17 Segment
    18 Named
    19 LedgerHorizon
}

/// Where in `Meta` the manifest is.
pub(crate) const MANIFEST_KEY: &[u8] = b"manifest";
/// Where in `Meta` the last signed checkpoint is.
pub(crate) const SIGNED_KEY: &[u8] = b"signed";
/// Where in `Meta` the horizon is.
pub(crate) const HORIZON_KEY: &[u8] = b"horizon";
/// Where in `Meta` the ledger's horizon is.
pub(crate) const LEDGER_HORIZON_KEY: &[u8] = b"ledger-horizon";
/// What in `Meta` the keys of flushes start with; the version follows.
pub(crate) const FLUSH_PREFIX: &[u8] = b"flush/";
/// What in `Meta` the keys of segments start with; their first chunk follows.
pub(crate) const SEGMENT_PREFIX: &[u8] = b"segment/";
/// What in `Meta` the keys of versions that are kept start with; the version follows.
pub(crate) const KEPT_PREFIX: &[u8] = b"kept/";
