//! The roots over pledges and votes: small trees, rebuilt whole by whoever has the leaves.

use alloc::vec::Vec;

use rs_merkle::{Hasher as SmallHasher, MerkleTree};

use crate::{
    Digest,
    hash::Hasher,
    vote::{Pledge, Vote},
};

/// Leaves are hashed behind a zero byte, nodes behind a one: neither can be taken for the other.
#[derive(Clone)]
struct Blake3;

impl SmallHasher for Blake3 {
    type Hash = [u8; 32];

    fn hash(leaf: &[u8]) -> [u8; 32] {
        tagged(0, leaf, &[])
    }

    fn concat_and_hash(left: &[u8; 32], right: Option<&[u8; 32]>) -> [u8; 32] {
        // A lone node moves up as it is.
        right.map_or(*left, |right| tagged(1, left, right))
    }
}

fn tagged(tag: u8, left: &[u8], right: &[u8]) -> [u8; 32] {
    let mut hasher = Hasher::default();
    hasher.update(&[tag]);
    hasher.update(left);
    hasher.update(right);
    hasher.finish().0
}

/// The root over the pledges of a round, which stand in the order of their nodes.
#[must_use]
pub fn pledges_root(pledges: &[Pledge]) -> Digest {
    root(pledges.iter().map(|pledge| Blake3::hash(&pledge.to_bytes())))
}

/// The root over the votes of a task, which stand in the order of their rounds, then of their nodes.
#[must_use]
pub fn votes_root(votes: &[Vote]) -> Digest {
    root(votes.iter().map(|vote| Blake3::hash(&vote.to_bytes())))
}

fn root(leaves: impl Iterator<Item = [u8; 32]>) -> Digest {
    let leaves = leaves.collect::<Vec<_>>();
    // Without leaves there is no node: the root is the digest of nothing.
    MerkleTree::<Blake3>::from_leaves(&leaves).root().map_or_else(|| Digest::of(&[]), Digest)
}
