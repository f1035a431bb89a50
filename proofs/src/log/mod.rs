//! The log of headers: the RFC 6962 Merkle tree over SHA-256, and proofs about it.
//!
//! A log only grows. What a reader trusts is one root with a size, from a verified
//! [`Checkpoint`](crate::Checkpoint); [`verify_inclusion`] shows that an entry is under it, and
//! [`verify_consistency`] that a newer log continues an older one. [`tree`] makes both proofs from
//! hashes of complete subtrees, which [`Tile`]s carry.
//!
//! ```text
//! size 7:            root            the left child is the largest complete subtree
//!                /          \        that is smaller than the whole
//!             *                *
//!          /     \           /   \
//!        *         *       *      \      level 1; (level 1, index 2) are entries 4 and 5
//!       / \       / \     / \      \
//!      0   1     2   3   4   5      6    level 0: leaves
//! ```

mod bundle;
mod proof;
mod tile;
pub mod tree;

use core::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

pub use bundle::{Bundle, ENTRY_BYTES_MAX};
pub use proof::{LOG_PROOF_BYTES_MAX, LogProof};
pub use tile::{TILE_LEVEL_MAX, TILE_WIDTH, Tile};

use crate::{
    Error, Format,
    text::{base64, base64_decode},
};

/// The most hashes of a proof about the log.
pub const SIBLINGS_MAX: usize = 63;

/// A hash of the log's tree; written as standard base64 with padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogHash(pub [u8; 32]);

impl LogHash {
    /// The root of a log without entries: SHA-256 of nothing.
    #[must_use]
    pub fn empty() -> Self {
        LogHash(Sha256::digest(b"").into())
    }

    /// The hash of an entry: SHA-256 of `0x00 || entry`.
    #[must_use]
    pub fn leaf(entry: &[u8]) -> Self {
        LogHash(Sha256::new().chain_update([0]).chain_update(entry).finalize().into())
    }

    /// The hash of a subtree with two children: SHA-256 of `0x01 || left || right`.
    #[must_use]
    pub fn node(left: &LogHash, right: &LogHash) -> Self {
        let hasher = Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0);
        LogHash(hasher.finalize().into())
    }
}

/// Checks that the entry whose hash is `leaf` stands at `index` in the log of `size` entries under
/// `root`. `siblings` go from the leaf to the root.
///
/// `size` and `root` have to come from one verified checkpoint, never from whoever shows the proof.
/// Source: RFC 9162, section 2.1.3.2.
///
/// # Errors
/// [`Error::NotInLog`] if it is not shown.
/// # Cost
/// One hash for each sibling.
pub fn verify_inclusion(
    index: u64,
    size: u64,
    leaf: &LogHash,
    siblings: &[LogHash],
    root: &LogHash,
) -> Result<(), Error> {
    let refused = Err(Error::NotInLog { index, size });
    if index >= size || siblings.len() > SIBLINGS_MAX {
        return refused;
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in siblings {
        if last == 0 {
            return refused;
        }
        if node % 2 == 1 || node == last {
            hash = LogHash::node(sibling, &hash);
            // The last node of a level moves up unchanged for as long as it is a left child. It is
            // not 0 here, so the shift is below 64.
            let lone = node.trailing_zeros();
            node >>= lone;
            last >>= lone;
        } else {
            hash = LogHash::node(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last == 0 && hash == *root { Ok(()) } else { refused }
}

/// Checks that the log of `newer_size` entries under `newer_root` starts with the entries of the
/// log of `older_size` entries under `older_root`.
///
/// From size 0 the proof is empty and the older root is [`LogHash::empty`]; between equal sizes the
/// proof is empty and the roots are equal. Source: RFC 9162, section 2.1.4.2.
///
/// # Errors
/// [`Error::Inconsistent`] if it is not shown. Where both roots come from verified checkpoints and
/// the proof was made by an honest party, the log was forked: keep both checkpoints.
/// # Cost
/// At most two hashes for each hash of the proof.
pub fn verify_consistency(
    older_size: u64,
    older_root: &LogHash,
    newer_size: u64,
    newer_root: &LogHash,
    proof: &[LogHash],
) -> Result<(), Error> {
    let holds = if older_size == 0 {
        let both_empty = newer_size > 0 || newer_root == older_root;
        proof.is_empty() && *older_root == LogHash::empty() && both_empty
    } else if older_size == newer_size {
        proof.is_empty() && older_root == newer_root
    } else {
        older_size < newer_size
            && proof.len() <= SIBLINGS_MAX
            && roots_of(older_size, older_root, newer_size, proof)
                == Some((*older_root, *newer_root))
    };
    let inconsistent = Error::Inconsistent { older: older_size, newer: newer_size };
    if holds { Ok(()) } else { Err(inconsistent) }
}

/// The two roots that `proof` leads to, for 0 < `older` < `newer`; `None` if it has too few or too
/// many hashes.
fn roots_of(
    older: u64,
    older_root: &LogHash,
    newer: u64,
    proof: &[LogHash],
) -> Option<(LogHash, LogHash)> {
    // An older log that is one complete subtree is the node to start from, so the proof leaves it
    // out; else the proof starts with its last complete subtree.
    let (start, rest) =
        if older.is_power_of_two() { (older_root, proof) } else { proof.split_first()? };
    let (mut older_hash, mut newer_hash) = (*start, *start);
    let level = older.trailing_zeros();
    let (mut node, mut last) = ((older - 1) >> level, (newer - 1) >> level);
    for sibling in rest {
        if last == 0 {
            return None;
        }
        if node % 2 == 1 || node == last {
            older_hash = LogHash::node(sibling, &older_hash);
            newer_hash = LogHash::node(sibling, &newer_hash);
            let lone = node.trailing_zeros();
            node >>= lone;
            last >>= lone;
        } else {
            newer_hash = LogHash::node(&newer_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some((older_hash, newer_hash))
}

impl fmt::Display for LogHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64(&self.0))
    }
}

impl fmt::Debug for LogHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LogHash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        const TEXT_BYTES: usize = 44;
        let refused = |at| Error::Malformed { format: Format::LogHash, at };
        if text.len() != TEXT_BYTES {
            return Err(refused(text.len().min(TEXT_BYTES)));
        }
        let bytes = base64_decode(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(LogHash).ok_or(refused(0))
    }
}
