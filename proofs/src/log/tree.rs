//! Makes roots and proofs of the log from hashes of its complete subtrees.
//!
//! Every function here asks a reader, `read(level, index)`, for the hash of the complete subtree over
//! the entries `index << level .. (index + 1) << level`, and only for subtrees that lie within the
//! size asked about. A server reads them from its store, a client from fetched [`Tile`](super::Tile)s:
//! proofs made from tiles of a stranger are verified like any other.
//!
//! ```
//! # use anwansi_proofs::{Error, LogHash, log::{tree, verify_inclusion}};
//! let entries = ["a", "b", "c", "d", "e"];
//! let read = |level: u8, index: u64| -> Result<LogHash, Error> {
//!     // A slow reader: it hashes the complete subtree from its entries.
//!     if level == 0 {
//!         return Ok(LogHash::leaf(entries[usize::try_from(index).unwrap()].as_bytes()));
//!     }
//!     let mut hashes: Vec<_> = (index << level..(index + 1) << level)
//!         .map(|i| LogHash::leaf(entries[usize::try_from(i).unwrap()].as_bytes()))
//!         .collect();
//!     while hashes.len() > 1 {
//!         hashes = hashes.chunks(2).map(|pair| LogHash::node(&pair[0], &pair[1])).collect();
//!     }
//!     Ok(hashes[0])
//! };
//! let root = tree::root_at(5, read)?;
//! let siblings = tree::inclusion_proof(2, 5, read)?;
//! verify_inclusion(2, 5, &LogHash::leaf(b"c"), &siblings, &root)?;
//! # Ok::<(), Error>(())
//! ```

use alloc::vec::Vec;

use super::LogHash;
use crate::Error;

/// The root of the log's first `size` entries.
///
/// # Errors
/// Those of `read`.
/// # Cost
/// One read for each bit that is set in `size`.
pub fn root_at<E>(
    size: u64,
    read: impl FnMut(u8, u64) -> Result<LogHash, E>,
) -> Result<LogHash, E> {
    fold(size, size, read)
}

/// The siblings that show the entry at `index` in the log's first `size` entries, from the leaf to
/// the root.
///
/// # Errors
/// [`Error::NotInLog`] if `index` is not below `size`; those of `read`.
/// # Cost
/// At most two reads for each bit of `size`.
pub fn inclusion_proof<E: From<Error>>(
    index: u64,
    size: u64,
    read: impl FnMut(u8, u64) -> Result<LogHash, E>,
) -> Result<Vec<LogHash>, E> {
    if index >= size {
        return Err(Error::NotInLog { index, size }.into());
    }
    let mut siblings = Vec::new();
    climb(0, index, size, &mut siblings, read)?;
    Ok(siblings)
}

/// The hashes that show that the log's first `older` entries are those its first `newer` entries
/// start with. None from 0, and none between equal sizes.
///
/// # Errors
/// [`Error::Inconsistent`] if `older` is above `newer`; those of `read`.
/// # Cost
/// At most two reads for each bit of `newer`.
pub fn consistency_proof<E: From<Error>>(
    older: u64,
    newer: u64,
    mut read: impl FnMut(u8, u64) -> Result<LogHash, E>,
) -> Result<Vec<LogHash>, E> {
    if older > newer {
        return Err(Error::Inconsistent { older, newer }.into());
    }
    let mut proof = Vec::new();
    if older == 0 || older == newer {
        return Ok(proof);
    }
    let (level, index) = last_complete(older, older.trailing_zeros());
    // A single complete subtree is the older root itself, which the verifier has.
    if !older.is_power_of_two() {
        proof.push(read(level, index)?);
    }
    climb(level, index, newer, &mut proof, read)?;
    Ok(proof)
}

/// Appends the siblings on the way from the subtree (`level`, `index`) to the root of `size` entries.
fn climb<E>(
    mut level: u8,
    mut index: u64,
    size: u64,
    siblings: &mut Vec<LogHash>,
    mut read: impl FnMut(u8, u64) -> Result<LogHash, E>,
) -> Result<(), E> {
    // The index of the level's last subtree, complete or not.
    let mut last = (size - 1) >> level;
    while last > 0 {
        if index % 2 == 1 {
            siblings.push(read(level, index - 1)?);
        } else if index + 1 < last {
            siblings.push(read(level, index + 1)?);
        } else if index + 1 == last {
            // The only sibling that may be incomplete: all entries from it to the end of the log.
            siblings.push(fold(size, size - (last << level), &mut read)?);
        }
        level += 1;
        index >>= 1;
        last >>= 1;
    }
    Ok(())
}

/// The hash over the last `count` of `size` entries, `count` being `size`, or the number of entries
/// that are left from some multiple of a power of two that is not below `count`.
///
/// The set bits of `count` are the complete subtrees it falls into, the smallest at the right.
fn fold<E>(
    size: u64,
    count: u64,
    mut read: impl FnMut(u8, u64) -> Result<LogHash, E>,
) -> Result<LogHash, E> {
    let mut hash = None;
    for bit in (0..u64::BITS).filter(|bit| count >> bit & 1 == 1) {
        let (level, index) = last_complete(size, bit);
        let left = read(level, index)?;
        hash = Some(match hash {
            None => left,
            Some(right) => LogHash::node(&left, &right),
        });
    }
    Ok(hash.unwrap_or_else(LogHash::empty))
}

/// The subtree of 2^`bit` entries that ends where the higher bits of `size` end; that bit is set.
fn last_complete(size: u64, bit: u32) -> (u8, u64) {
    let level = u8::try_from(bit).expect("a u64 has fewer than 256 bits");
    (level, (size >> bit) - 1)
}
