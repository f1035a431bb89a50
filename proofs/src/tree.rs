//! A tree as its owner sees it: what a prover asks of it, and the tree of a sorted list.

use alloc::{borrow::Cow, vec::Vec};

use crate::{
    Digest, Root, hash,
    path::{bit, critical_bit},
};

/// One node of a [`Tree`], opened.
pub enum View<'a, N> {
    /// One entry.
    Leaf {
        /// Its key.
        key: &'a [u8],
    },
    /// Two subtrees.
    Branch {
        /// The first bit in which the keys below differ.
        bit: usize,
        /// Any key below: they share all bits before `bit`.
        key: &'a [u8],
        /// The keys with a `0` there.
        left: N,
        /// The keys with a `1` there.
        right: N,
    },
}

/// A tree that proofs are made from, whatever keeps its nodes.
pub trait Tree {
    /// A handle to one node, cheap to clone.
    type Node: Clone;
    /// Why a node could not be read.
    type Error;

    /// The top node; `None` if there are no entries.
    ///
    /// # Errors
    /// If it cannot be read.
    fn top(&self) -> Result<Option<Self::Node>, Self::Error>;

    /// Opens `node`.
    ///
    /// # Errors
    /// If it cannot be read.
    fn view<'a>(&'a self, node: &'a Self::Node) -> Result<View<'a, Self::Node>, Self::Error>;

    /// The digest of `node`, whose subtree starts at bit `start`.
    ///
    /// # Errors
    /// If it cannot be read.
    fn digest(&self, node: &Self::Node, start: usize) -> Result<Digest, Self::Error>;

    /// The value of the leaf `node`.
    ///
    /// # Errors
    /// If it cannot be read.
    fn value<'a>(&'a self, node: &'a Self::Node) -> Result<Cow<'a, [u8]>, Self::Error>;

    /// The digest of the value of the leaf `node`.
    ///
    /// # Errors
    /// If it cannot be read.
    fn value_digest(&self, node: &Self::Node) -> Result<Digest, Self::Error>;
}

/// The tree of a list of entries, computed when asked: for small trees and for tests.
///
/// # Cost
/// Opening or hashing a node reads all the entries below it.
pub struct Sorted<K, V> {
    entries: Vec<(K, V)>,
}

impl<K: AsRef<[u8]>, V: AsRef<[u8]>> Sorted<K, V> {
    /// Takes entries in strictly ascending key order.
    ///
    /// # Panics
    /// If they are not.
    #[must_use]
    pub fn new(entries: Vec<(K, V)>) -> Self {
        assert!(
            entries.is_sorted_by(|(a, _), (b, _)| a.as_ref() < b.as_ref()),
            "entries stand in strictly ascending key order"
        );
        Sorted { entries }
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Root {
        let top = 0..self.entries.len();
        if top.is_empty() { Root::empty() } else { Root(self.hash(&top, 0)) }
    }

    /// The entries again.
    #[must_use]
    pub fn into_entries(self) -> Vec<(K, V)> {
        self.entries
    }

    fn key(&self, at: usize) -> &[u8] {
        self.entries[at].0.as_ref()
    }

    fn hash(&self, node: &core::ops::Range<usize>, start: usize) -> Digest {
        let mut builder = Builder::default();
        for (key, value) in &self.entries[node.clone()] {
            let leaf = Part::Leaf(hash::leaf(key.as_ref(), &Digest::of(value.as_ref())));
            builder.push(key.as_ref(), leaf).expect("whole leaves can stand anywhere");
        }
        let digest = builder.finish(start).expect("whole leaves can stand anywhere");
        digest.expect("a node has entries")
    }
}

impl<K: AsRef<[u8]>, V: AsRef<[u8]>> Tree for Sorted<K, V> {
    type Node = core::ops::Range<usize>;
    type Error = core::convert::Infallible;

    fn top(&self) -> Result<Option<Self::Node>, Self::Error> {
        Ok((!self.entries.is_empty()).then_some(0..self.entries.len()))
    }

    fn view<'a>(&'a self, node: &'a Self::Node) -> Result<View<'a, Self::Node>, Self::Error> {
        let (first, last) = (self.key(node.start), self.key(node.end - 1));
        let Some(at) = critical_bit(first, last) else {
            return Ok(View::Leaf { key: first });
        };
        let entries = &self.entries[node.clone()];
        let right = node.start + entries.partition_point(|(key, _)| !bit(key.as_ref(), at));
        Ok(View::Branch { bit: at, key: first, left: node.start..right, right: right..node.end })
    }

    fn digest(&self, node: &Self::Node, start: usize) -> Result<Digest, Self::Error> {
        Ok(self.hash(node, start))
    }

    fn value<'a>(&'a self, node: &'a Self::Node) -> Result<Cow<'a, [u8]>, Self::Error> {
        Ok(self.entries[node.start].1.as_ref().into())
    }

    fn value_digest(&self, node: &Self::Node) -> Result<Digest, Self::Error> {
        Ok(Digest::of(self.entries[node.start].1.as_ref()))
    }
}

/// A piece of a tree that a [`Builder`] puts in its place.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    /// A leaf, by its hash: it may stand anywhere.
    Leaf(Digest),
    /// A subtree of which only the digest is known: it may only stand where it stood.
    Cut {
        /// The bit at which it starts.
        start: usize,
        /// Its digest there.
        digest: Digest,
    },
}

/// A part was moved that cannot be: the subtree that starts at this bit has to be known to do so.
#[derive(Debug)]
pub(crate) struct Moved(pub(crate) usize);

/// Computes the digest of a tree from its parts, handed over in the order of their paths.
///
/// Between two neighbouring parts lies exactly one branch, at the first bit in which their paths
/// differ. `open` holds the branches whose right side is still growing, top first, each with the
/// digest of its left side; a new part closes all those that start below the bit where it parts from
/// the part before it. So memory is one digest a level, and nothing recurses.
#[derive(Default)]
pub(crate) struct Builder {
    open: Vec<(usize, Digest)>,
    /// The newest part, and its path.
    last: Option<Part>,
    key: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Top {
    Part(Part),
    Branch { bit: usize, left: Digest, right: Digest },
}

impl Builder {
    /// Appends `part`, at the path of `key` (for a cut subtree: the prefix it stands at).
    pub(crate) fn push(&mut self, key: &[u8], part: Part) -> Result<(), Moved> {
        if let Some(at) = self.parts_at(key)? {
            if let Part::Cut { start, .. } = part
                && at >= start
            {
                return Err(Moved(start));
            }
            let left = self.close(at + 1)?;
            self.open.push((at, left));
        }
        self.key.clear();
        self.key.extend_from_slice(key);
        self.last = Some(part);
        Ok(())
    }

    /// The bit at which the path of `key`, which comes after the newest part, parts from it; `None` if
    /// there is no part yet. An error if `key` lies inside of the newest part.
    pub(crate) fn parts_at(&self, key: &[u8]) -> Result<Option<usize>, Moved> {
        let Some(last) = self.last else { return Ok(None) };
        let at = critical_bit(&self.key, key);
        match last {
            Part::Cut { start, .. } if at.is_none_or(|at| at >= start) => Err(Moved(start)),
            _ => Ok(Some(at.expect("parts come in strictly ascending order"))),
        }
    }

    /// The digest of the whole, as a subtree that starts at bit `start`; `None` if nothing came.
    pub(crate) fn finish(mut self, start: usize) -> Result<Option<Digest>, Moved> {
        if self.last.is_none() { Ok(None) } else { self.close(start).map(Some) }
    }

    /// Closes all branches at or below bit `start`, and gives the digest of what then starts there.
    fn close(&mut self, start: usize) -> Result<Digest, Moved> {
        let mut top = Top::Part(self.last.expect("there is a part to close"));
        while let Some((bit, left)) = self.open.pop_if(|(bit, _)| *bit >= start) {
            let right = self.place(top, bit + 1)?;
            top = Top::Branch { bit, left, right };
        }
        self.place(top, start)
    }

    /// The digest of `top`, which holds the newest part, at bit `start`.
    fn place(&self, top: Top, start: usize) -> Result<Digest, Moved> {
        match top {
            Top::Part(Part::Leaf(digest)) => Ok(digest),
            Top::Part(Part::Cut { start: was, digest }) if was == start => Ok(digest),
            Top::Part(Part::Cut { start: was, .. }) => Err(Moved(was)),
            Top::Branch { bit, left, right } => {
                Ok(hash::branch_below(&self.key, start..bit, &left, &right))
            }
        }
    }
}
