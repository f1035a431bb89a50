//! What Anwansi's servers say, and how anyone checks it: no I/O, no clock, no unsafe code.
//!
//! ```text
//!   who is trusted       the log's key, witnesses          Policy         policy.rs, vkey.rs
//!        |                                                    | verify
//!   what they signed     size and root of the log          Checkpoint     checkpoint.rs, note.rs, log/
//!        |                                                    | LogProof::verify
//!   what is in the log   one header a version              Header         header.rs
//!        |                                                    | Proof::verify
//!   what is under it     entries, and where there are none Shown          proof/, path.rs, hash.rs
//!        |                                                    | Evidence::check
//!   who computed it      votes of drawn nodes, recounted   Agreed         evidence/, draw.rs, decision.rs, vote.rs
//! ```
//!
//! [`Evidence`] carries all of it in one file. A claim and a checked fact are different types, and checking
//! is the only door between them: a [`Proof`] says what anyone likes, a [`Shown`] is true of everything under
//! the root it was verified against.
//!
//! ```
//! # use anwansi_proofs::{Error, Proof, Root};
//! # fn ask(root: &Root, answer: &[u8]) -> Result<(), Error> {
//! let shown = Proof::decode(answer)?.verify(root)?;       // from anyone
//! match shown.get(b"alice")? {                            // Err: this proof does not answer that
//!     Some(value) => println!("{value:?}"),
//!     None => println!("no alice under this root"),
//! }
//! # Ok(()) }
//! ```
//!
//! The formats are in SPEC.md, beside the slow obvious tree in `tests/reference/` that all of this is compared
//! with. Without the feature `std` the crate needs only an allocator.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod agreement;
mod checkpoint;
pub mod cosignature;
mod decision;
mod draw;
mod ed25519;
mod error;
mod evidence;
mod fold;
pub mod hash;
mod header;
mod json;
pub mod log;
mod members;
mod note;
pub mod path;
mod policy;
mod proof;
pub mod record;
pub mod registry;
mod spec;
mod text;
pub mod tree;
mod varint;
mod vkey;
mod vote;
mod votes_tree;

pub use checkpoint::{Checkpoint, Cosignature, checkpoint_body};
pub use decision::{Next, Tally};
pub use draw::Drawn;
pub use error::{Error, Format};
pub use evidence::{
    Agreed, Checked, CheckedVersion, Claimed, DRAWN_SUM_MAX, Disagreement, EARLIER_MAX,
    EVIDENCE_BYTES_MAX, Evidence, EvidenceStart, FOLDED_BYTES_MAX, Finding, Level, Misfold, Part,
    Recounted, Refused, Spot,
};
pub use fold::{Fold, FoldError, Operand};
pub use hash::{Digest, Root};
pub use header::{HEADER_BYTES_MAX, Header, ORIGIN_BYTES_MAX, Origin, Version};
pub use json::{BigInt, DIGITS_MAX, Json, NESTING_MAX, Object};
pub use log::{Bundle, LogHash, LogProof, Tile};
pub use note::{NOTE_BYTES_MAX, Note, SIGNATURES_MAX, Signature};
pub use policy::{POLICY_BYTES_MAX, POLICY_NAMES_MAX, Policy};
pub use proof::{Change, Entry, Proof, Question, Shown, prove, prove_update};
pub use spec::{Apply, Draft, Input, SPEC_BYTES_MAX, Spec, SpecFault, TaskPolicy, TransitionId};
pub use text::DECIMAL_MAX;
pub use vkey::{KEY_NAME_BYTES_MAX, KeyKind, Vkey};
pub use vote::{NodeKey, Place, Pledge, Vote};
pub use votes_tree::{pledges_root, votes_root};
