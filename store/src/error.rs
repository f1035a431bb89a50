//! Why the store did not do what it was asked.

use anwansi_proofs::{Digest, Root, TransitionId, Version};
use bytes::Bytes;

use crate::{engine::EngineError, ledger::Refusal, tree::PageId};

/// What went wrong. Cheap to clone: one failed write answers many callers.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Storage failed. After a failed write the store answers nothing but this: reopen it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What is stored is not what was written.
    #[error("stored data is damaged: {0}; restore the store")]
    Damaged(Damage),
    /// The store was written by a program that is older or newer.
    #[error(
        "the store has format {found}, this program knows format {known}: use the one that wrote it"
    )]
    OtherFormat {
        /// The format found.
        found: u32,
        /// The format known here.
        known: u32,
    },
    /// The store belongs to another log, by its name or its key. Give the key file that belongs to it.
    #[error(
        "the store is that of the log {found}, not of {asked}: give the key that belongs to it"
    )]
    OtherLog {
        /// The verifier key in the store.
        found: String,
        /// That of the key which was given.
        asked: String,
    },
    /// The data went back behind what was signed: to go on would sign a second history.
    #[error(
        "a checkpoint of {signed} versions was signed, and the store does not hold the log it names: \
         restore newer data, or start a new store under another origin"
    )]
    WentBack {
        /// The size of the last signed checkpoint.
        signed: u64,
    },
    /// A key has no length that keys have.
    #[error("a key has {length} bytes: keys have 1 to 1024")]
    KeyLength {
        /// Its length in bytes.
        length: usize,
    },
    /// A value is too long.
    #[error("a value has {length} bytes: values have at most {max}")]
    ValueTooLarge {
        /// Its length in bytes.
        length: usize,
        /// The longest allowed.
        max: usize,
    },
    /// A key starts with a zero byte: such keys belong to the ledger.
    #[error("the key {key:?} starts with a zero byte: such keys are reserved")]
    ReservedKey {
        /// The key.
        key: Bytes,
    },
    /// A commit writes one key twice.
    #[error("the key {key:?} is written twice in one commit")]
    KeyTwice {
        /// The key.
        key: Bytes,
    },
    /// A commit writes nothing.
    #[error("a commit writes at least one key")]
    NoWrites,
    /// A commit is larger than commits may be.
    #[error("a commit has {found} {what}: at most {max} are allowed")]
    CommitTooLarge {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// Something that the transaction read has changed since. Read again and retry.
    #[error("the key {key:?}, or the range that starts there, has changed since it was read")]
    Conflict {
        /// The key, or the start of the range.
        key: Bytes,
    },
    /// The commit was for another version than the newest.
    #[error("the commit expects version {expected}, the newest is {newest}")]
    UnexpectedVersion {
        /// What was asked for.
        expected: Version,
        /// What there is.
        newest: Version,
    },
    /// The request id was used for another commit.
    #[error("the same request id came with another commit before")]
    RequestMismatch,
    /// There is no such version yet.
    #[error("there is no version {version}, the newest is {newest}")]
    NoSuchVersion {
        /// What was asked for.
        version: Version,
        /// What there is.
        newest: Version,
    },
    /// The version was there, and has been pruned.
    #[error("version {version} has been pruned, the oldest one kept is {oldest}")]
    Pruned {
        /// What was asked for.
        version: Version,
        /// The oldest version that is kept.
        oldest: Version,
    },
    /// The pool of opened old versions is full of versions in use. Try again later.
    #[error("too many old versions are open at once: try again later")]
    Busy,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The ledger does not take it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// What of the stored data is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The manifest.
    #[error("the manifest")]
    Manifest,
    /// The record of a flush.
    #[error("the record of the flush of version {0}")]
    Flush(Version),
    /// The record of the last signed checkpoint.
    #[error("the record of the last signed checkpoint")]
    Signed,
    /// The record of a segment of pages.
    #[error("the record of the segment of pages from chunk {epoch}/{chunk} on")]
    Segment {
        /// The opening of the store in which it was written.
        epoch: u32,
        /// Its first chunk.
        chunk: u32,
    },
    /// A segment of pages has no record.
    #[error("the list of the segments of pages")]
    Segments,
    /// The record of which versions are kept.
    #[error("the record of the versions that are kept")]
    Kept,
    /// The record of values that a version has replaced.
    #[error("the record of values that are replaced behind version {0}")]
    Replaced(Version),
    /// A version's header.
    #[error("the header of version {0}")]
    Header(Version),
    /// A version's changes or tasks.
    #[error("the changes of version {0}")]
    Changes(Version),
    /// What leads back from a version to the one before.
    #[error("what leads back from version {0}")]
    Undo(Version),
    /// A value that is stored on its own.
    #[error("value {index} of version {version}")]
    Value {
        /// The version that wrote it.
        version: Version,
        /// Its number in that version.
        index: u32,
    },
    /// A page of the tree.
    #[error("page {0}")]
    Page(PageId),
    /// A tile of the log.
    #[error("tile {index} of level {level}")]
    Tile {
        /// Its level.
        level: u8,
        /// Its index.
        index: u64,
    },
    /// The record of a request.
    #[error("the record of a request")]
    Request,
    /// What was kept of a transition.
    #[error("the record of the transition {0}")]
    Transition(TransitionId),
    /// The record of from which version on decisions are kept.
    #[error("the record of the decisions that are kept")]
    Decisions,
    /// An entry of the ledger that belongs to nothing.
    #[error("an entry of the ledger")]
    Ledger,
    /// The nodes that were registered when transitions were opened.
    #[error("the registry of version {0}")]
    Registry(Version),
    /// An input or a result.
    #[error("the blob {0}")]
    Blob(Digest),
    /// A version's changes lead to another root than its header names.
    #[error("the state of version {version}, which has the root {computed} by its changes")]
    State {
        /// The version.
        version: Version,
        /// The root that the changes lead to.
        computed: Root,
    },
}
