//! What a verified proof answers: a partial map that says where it ends.

use alloc::vec::Vec;

use super::{Child, Node, Proof, Value};
use crate::{
    Error,
    path::{Prefix, after_prefix, bit, is_outside},
};

/// What a verified proof shows: some of the entries under a root, and where there are none.
///
/// It never guesses: a question that reaches into what was cut away is [`Error::NotCovered`].
#[must_use]
pub struct Shown<'a> {
    pub(super) proof: Proof<'a>,
}

/// A key and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// 1 to 1024 bytes.
    pub key: &'a [u8],
    /// 0 to 16 MiB.
    pub value: &'a [u8],
}

impl<'a> Shown<'a> {
    pub(super) fn new(proof: Proof<'a>) -> Self {
        Shown { proof }
    }

    /// The value of `key`; `None` if the key is absent, which is then proven.
    ///
    /// # Errors
    /// [`Error::NotCovered`] if the path of the key ends in a cut subtree, or in its leaf shown without
    /// the value.
    ///
    /// # Cost
    /// One step a level.
    pub fn get(&self, key: &[u8]) -> Result<Option<&'a [u8]>, Error> {
        let mut depth = 0;
        let mut at = 0;
        loop {
            match self.proof.node(at) {
                Node::Empty => return Ok(None),
                Node::Hidden(_) => return Err(Error::NotCovered { depth }),
                Node::Leaf { key: found, .. } if found != key => return Ok(None),
                Node::Leaf { value: Value::Shown(value), .. } => return Ok(Some(value)),
                Node::Leaf { .. } => return Err(Error::NotCovered { depth }),
                Node::Branch { segment, left, right } => {
                    if segment.iter().enumerate().any(|(i, shared)| bit(key, depth + i) != shared) {
                        return Ok(None);
                    }
                    depth += segment.bits;
                    let child = if bit(key, depth) { right } else { left };
                    depth += 1;
                    match child {
                        Child::Cut(_) => return Err(Error::NotCovered { depth }),
                        Child::Node(child) => at = child,
                    }
                }
            }
        }
    }

    /// The entries from `start`, inclusive, to `end`, exclusive (none: to the last key), in key order,
    /// all of them.
    ///
    /// # Errors
    /// [`Error::NotCovered`] if a cut subtree or a leaf without its value may lie inside: nothing is
    /// said about the range then.
    ///
    /// # Cost
    /// One pass over the shown nodes; allocates the result only.
    pub fn range(&self, start: &[u8], end: Option<&[u8]>) -> Result<Vec<Entry<'a>>, Error> {
        self.leaves(start, end, |key, value| match value {
            Value::Shown(value) => Some(Entry { key, value }),
            Value::Digest(_) => None,
        })
    }

    /// The keys from `start`, inclusive, to `end`, exclusive, in order, all of them; their values need
    /// not be shown.
    ///
    /// # Errors
    /// [`Error::NotCovered`] if a cut subtree may lie inside.
    pub fn keys(&self, start: &[u8], end: Option<&[u8]>) -> Result<Vec<&'a [u8]>, Error> {
        self.leaves(start, end, |key, _| Some(key))
    }

    /// What `read` makes of every leaf in a range; nothing may be hidden there, nor be `None`.
    fn leaves<T>(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        read: impl Fn(&'a [u8], Value<'a>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let mut leaves = Vec::new();
        if end.is_some_and(|end| start >= end) {
            return Ok(leaves);
        }
        self.proof.walk(|piece, path| {
            let hidden = Error::NotCovered { depth: path.bits() };
            match piece {
                Piece::Leaf { key, value } => {
                    if key >= start && end.is_none_or(|end| key < end) {
                        leaves.push(read(key, value).ok_or(hidden)?);
                    }
                    Ok(())
                }
                Piece::Cut(_) if is_outside(path.key(), path.bits(), start, end) => Ok(()),
                Piece::Cut(_) => Err(hidden),
            }
        })?;
        Ok(leaves)
    }

    /// The entries whose keys start with `prefix`, in key order, all of them.
    ///
    /// # Errors
    /// As of [`range`](Self::range).
    pub fn prefix(&self, prefix: &[u8]) -> Result<Vec<Entry<'a>>, Error> {
        self.range(prefix, after_prefix(prefix).as_deref())
    }
}

/// What a proof is made of, from left to right.
pub(super) enum Piece<'a> {
    Leaf { key: &'a [u8], value: Value<'a> },
    Cut(crate::Digest),
}

impl<'a> Proof<'a> {
    /// Hands every leaf and every cut subtree to `each`, in path order, with the prefix it stands at.
    pub(super) fn walk(
        &self,
        mut each: impl FnMut(Piece<'a>, &Prefix) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut path = Prefix::default();
        // Right sides still to come, each with the bit of its branch.
        let mut open: Vec<(Child, usize)> = Vec::new();
        let mut next = Child::Node(0);
        loop {
            match next {
                Child::Cut(digest) => each(Piece::Cut(digest), &path)?,
                Child::Node(at) => match self.node(at) {
                    Node::Empty => {}
                    Node::Hidden(root) => each(Piece::Cut(root), &path)?,
                    Node::Leaf { key, value } => each(Piece::Leaf { key, value }, &path)?,
                    Node::Branch { segment, left, right } => {
                        segment.iter().for_each(|bit| path.push(bit));
                        open.push((right, path.bits()));
                        path.push(false);
                        next = left;
                        continue;
                    }
                },
            }
            let Some((right, bit)) = open.pop() else { return Ok(()) };
            path.truncate(bit);
            path.push(true);
            next = right;
        }
    }
}
