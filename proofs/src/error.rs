//! Why something that was shown proves nothing.

use core::fmt;

use crate::{Digest, Root, SpecFault};

/// Which format a piece of input failed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// 32 bytes as 64 lower-case hex digits.
    Digest,
    /// A proof over a tree (SPEC.md, "Proofs"); positions are bytes.
    Proof,
    /// A version's header; positions are lines, from 1.
    Header,
    /// The origin of a log; positions are bytes.
    Origin,
    /// A hash of the log: 32 bytes as base64; positions are bytes.
    LogHash,
    /// A signed note; positions are lines, from 1.
    Note,
    /// A verifier key; positions are bytes.
    Vkey,
    /// A checkpoint's body; positions are lines, from 1.
    Checkpoint,
    /// A tlog-proof; positions are lines, from 1.
    LogProof,
    /// A tile, its path or its hashes; positions are bytes.
    Tile,
    /// A bundle of entries, its path or its entries; positions are bytes.
    Bundle,
    /// A policy file; positions are lines, from 1.
    Policy,
    /// Evidence; positions are lines of its JSON, from 1.
    Evidence,
    /// Canonical JSON; positions are bytes.
    Json,
    /// The name of a fold; positions are bytes.
    Fold,
}

impl Format {
    /// What positions in it count.
    fn unit(self) -> &'static str {
        match self {
            Format::Header
            | Format::Note
            | Format::Checkpoint
            | Format::LogProof
            | Format::Policy
            | Format::Evidence => "line",
            _ => "byte",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Digest => "digest",
            Format::Proof => "proof",
            Format::Header => "header",
            Format::Origin => "origin",
            Format::Note => "signed note",
            Format::Vkey => "verifier key",
            Format::Checkpoint => "checkpoint",
            Format::LogProof => "tlog-proof",
            Format::LogHash => "hash of a log",
            Format::Tile => "tile",
            Format::Bundle => "bundle of entries",
            Format::Policy => "policy",
            Format::Evidence => "evidence",
            Format::Json => "canonical JSON",
            Format::Fold => "name of a fold",
        })
    }
}

/// Why an answer proves nothing. The prover's fault, or damage on the way: refuse, do not retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not the canonical encoding of its format; `at` is the first position refused.
    #[error("not a well-formed {format}: refused at {} {at}", format.unit())]
    Malformed {
        /// What it should have been.
        format: Format,
        /// Where it stopped being that, in the format's unit.
        at: usize,
    },
    /// The proof hashes to another root than the trusted one.
    #[error("the proof leads to the root {computed}, not to the trusted one")]
    RootMismatch {
        /// The root it does lead to.
        computed: Root,
    },
    /// The question reaches below a cut subtree that starts at bit `depth`, or asks for a value of
    /// which only the digest is shown. Nothing is said about it: neither present nor absent.
    #[error("the proof does not cover the question: cut at bit {depth}")]
    NotCovered {
        /// The bit at which the subtree starts that is not shown.
        depth: usize,
    },
    /// Changes handed to [`Shown::apply`](crate::Shown::apply) are not in strictly ascending key
    /// order, or a key or value has no length that those have.
    #[error("the changes are not one per key in ascending order, or a key or value is too long")]
    BadChanges,
    /// The note carries no signature by this log key.
    #[error("no signature by the log's key")]
    NotSigned,
    /// A signature by a known key is wrong, which rejects the whole note.
    #[error("a signature by a known key (id {key_id:08x}) is wrong")]
    BadSignature {
        /// The key's id, as its signature line carries it.
        key_id: u32,
    },
    /// The witnesses that cosigned do not make the policy's quorum.
    #[error("the cosignatures do not make the policy's quorum")]
    NoQuorum,
    /// The entry is not in the log at this index under this checkpoint.
    #[error("not in the log at index {index} of {size} entries")]
    NotInLog {
        /// The index claimed.
        index: u64,
        /// The checkpoint's number of entries.
        size: u64,
    },
    /// Two checkpoints of one log do not follow from each other: the log was forked.
    #[error("the log of {newer} entries does not continue the log of {older} entries")]
    Inconsistent {
        /// Entries under the older checkpoint.
        older: u64,
        /// Entries under the newer one.
        newer: u64,
    },
    /// Header, checkpoint and log key do not name one origin.
    #[error("header, checkpoint and log key name different origins")]
    OriginMismatch,
    /// A header is not the next one after the header before it.
    #[error("version {version} does not follow from the version before it, digest {parent}")]
    NotNext {
        /// The version that should have been the next.
        version: u64,
        /// The digest of the header before it.
        parent: Digest,
    },
    /// Parts of one evidence contradict each other: different checkpoints, or versions in the
    /// wrong order.
    #[error("the parts of the evidence contradict each other")]
    PartsDisagree,
    /// A transition's specification breaks a rule.
    #[error("not a specification of a transition: {0}")]
    Spec(SpecFault),
}
