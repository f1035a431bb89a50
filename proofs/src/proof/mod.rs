//! The one proof format: the tree with everything cut away that a question does not need.
//!
//! In pre-order, each node one kind byte and its body (SPEC.md, "Proofs"):
//!
//! ```text
//! 0      empty tree             only as the whole proof
//! 1      nothing shown          root, 32 bytes; only as the whole proof
//! 2      leaf with value        uvarint length, key, uvarint length, value
//! 3      leaf without value     uvarint length, key, 32 bytes of value digest
//! 8 + f  branch                 [4: uvarint bits, packed segment] left right
//!                               left and right are nodes, or 32 bytes of hash where cut [1: left, 2: right]
//! ```
//!
//! A [`Proof`] is a claim by anyone. [`Proof::verify`] hashes it, and what comes out is [`Shown`]: the
//! partial, read-only map that a trusted root commits to.

mod apply;
mod decode;
mod prove;
mod shown;

use alloc::vec::Vec;

pub use apply::Change;
pub use prove::{Question, prove, prove_update};
pub use shown::{Entry, Shown};

use crate::{Digest, Error, Root, hash};

const KIND_EMPTY: u8 = 0;
const KIND_HIDDEN: u8 = 1;
const KIND_LEAF: u8 = 2;
const KIND_LEAF_DIGEST: u8 = 3;
const KIND_BRANCH: u8 = 8;
const FLAG_LEFT_CUT: u8 = 1;
const FLAG_RIGHT_CUT: u8 = 2;
const FLAG_SEGMENT: u8 = 4;

/// A well-formed proof: what somebody claims to stand under some root.
///
/// It borrows the bytes it was decoded from, and keeps eight bytes of index a node beside them.
#[must_use = "a proof shows nothing until it is verified"]
pub struct Proof<'a> {
    bytes: &'a [u8],
    /// In pre-order; the first is the top. A left child stands right behind its branch.
    places: Vec<Place>,
}

/// Where one node stands.
struct Place {
    /// The offset of its kind byte.
    at: u32,
    /// Of a branch: the index of its right child, or where that is cut, the offset of its hash.
    right: u32,
}

/// One node of a decoded proof.
enum Node<'a> {
    Empty,
    Hidden(Digest),
    Leaf { key: &'a [u8], value: Value<'a> },
    Branch { segment: Segment<'a>, left: Child, right: Child },
}

/// What a leaf says of its value.
#[derive(Clone, Copy)]
enum Value<'a> {
    Shown(&'a [u8]),
    Digest(Digest),
}

impl Value<'_> {
    fn digest(&self) -> Digest {
        match self {
            Value::Shown(value) => Digest::of(value),
            Value::Digest(digest) => *digest,
        }
    }
}

/// The bits that all keys below a branch share, from where its subtree starts.
#[derive(Clone, Copy)]
struct Segment<'a> {
    bits: usize,
    packed: &'a [u8],
}

impl Segment<'_> {
    fn iter(&self) -> impl Iterator<Item = bool> + '_ {
        (0..self.bits).map(|i| self.packed[i / 8] >> (7 - i % 8) & 1 == 1)
    }
}

#[derive(Clone, Copy)]
enum Child {
    Cut(Digest),
    /// The index of its place.
    Node(usize),
}

impl<'a> Proof<'a> {
    /// Checks that this proof leads to `root`; what it shows is then true of everything under that root.
    ///
    /// # Errors
    /// [`Error::RootMismatch`] if it leads elsewhere: then it shows nothing at all.
    ///
    /// # Cost
    /// One hash a node and one a shown value; a digest of memory for each open level.
    pub fn verify(self, root: &Root) -> Result<Shown<'a>, Error> {
        let computed = self.root();
        if computed == *root { Ok(Shown::new(self)) } else { Err(Error::RootMismatch { computed }) }
    }

    /// The root that this proof leads to, which says nothing about whether to trust it.
    #[must_use]
    pub fn root(&self) -> Root {
        // From the last node to the first: both children of a branch are done before it, left on top.
        let mut done: Vec<Digest> = Vec::new();
        for at in (0..self.places.len()).rev() {
            let digest = match self.node(at) {
                Node::Empty => return Root::empty(),
                Node::Hidden(root) => root,
                Node::Leaf { key, value } => hash::leaf(key, &value.digest()),
                Node::Branch { segment, left, right } => {
                    let mut child = |child| match child {
                        Child::Cut(digest) => digest,
                        Child::Node(_) => done.pop().expect("children come behind their branch"),
                    };
                    let (left, right) = (child(left), child(right));
                    hash::branch(segment.packed, segment.bits, &left, &right)
                }
            };
            done.push(digest);
        }
        Root(done.pop().expect("a proof has a top node"))
    }
}
