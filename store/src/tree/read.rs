//! Reading a tree: one key, a range either way, and what proofs are made from.

use std::{ops::Range, sync::Arc};

use anwansi_proofs::{
    Digest,
    path::{is_below, is_not_below},
    tree::View,
};
use bytes::Bytes;

use super::{Entry, Page, Pages, Slot, Tree};
use crate::{Error, engine::Direction};

impl Tree {
    /// The entry of `key`.
    pub(crate) fn get(&self, pages: &Pages, key: &[u8]) -> Result<Option<Entry>, Error> {
        let mut slot = match &self.top {
            Some(top) if top.side_of(key).is_eq() => top.clone(),
            _ => return Ok(None),
        };
        loop {
            let child = match slot {
                Slot::Entry(entry) => return Ok(Some(entry)),
                Slot::Child(child) => child,
            };
            let page = pages.open(&child)?;
            let at = page.slots.partition_point(|slot| slot.side_of(key).is_gt());
            match page.slots.get(at) {
                Some(found) if found.side_of(key).is_eq() => slot = found.clone(),
                _ => return Ok(None),
            }
        }
    }

    /// The entries from `start`, inclusive, to `end`, exclusive, in order of `direction`.
    pub(crate) fn range<'a>(
        &self,
        pages: &'a Pages,
        start: Bytes,
        end: Option<Bytes>,
        direction: Direction,
    ) -> Cursor<'a> {
        let stack = self.top.iter().map(|top| vec![top.clone()].into_iter()).collect();
        Cursor { pages, start, end, direction, stack }
    }
}

/// Walks over the entries of a range.
pub(crate) struct Cursor<'a> {
    pages: &'a Pages,
    start: Bytes,
    end: Option<Bytes>,
    direction: Direction,
    /// Of each open page the slots still to come, the next at the front (or the back, going down).
    stack: Vec<std::vec::IntoIter<Slot>>,
}

impl Cursor<'_> {
    /// The slots of a page that may hold a part of the range.
    fn within(&self, page: &Page) -> std::vec::IntoIter<Slot> {
        let below = |slot: &Slot| is_below_start(slot, &self.start);
        let first = page.slots.partition_point(below);
        let last = self.end.as_ref().map_or(page.slots.len(), |end| {
            page.slots.partition_point(|slot| !is_past_end(slot, end))
        });
        let slots: Vec<Slot> = page.slots[first..last.max(first)].into();
        slots.into_iter()
    }
}

fn is_below_start(slot: &Slot, start: &[u8]) -> bool {
    match slot {
        Slot::Entry(entry) => entry.key[..] < *start,
        Slot::Child(child) => is_below(&child.prefix, child.bit.into(), start),
    }
}

fn is_past_end(slot: &Slot, end: &[u8]) -> bool {
    match slot {
        Slot::Entry(entry) => entry.key[..] >= *end,
        Slot::Child(child) => is_not_below(&child.prefix, child.bit.into(), end),
    }
}

impl Iterator for Cursor<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let slots = self.stack.last_mut()?;
            let slot = match self.direction {
                Direction::Ascending => slots.next(),
                Direction::Descending => slots.next_back(),
            };
            match slot {
                None => {
                    self.stack.pop();
                }
                Some(Slot::Entry(entry)) => {
                    let inside = entry.key >= self.start
                        && self.end.as_ref().is_none_or(|end| entry.key < *end);
                    if inside {
                        return Some(Ok(entry));
                    }
                }
                Some(Slot::Child(child)) => match self.pages.open(&child) {
                    Ok(page) => self.stack.push(self.within(&page)),
                    Err(error) => {
                        self.stack.clear();
                        return Some(Err(error));
                    }
                },
            }
        }
    }
}

/// A tree with its pages: what proofs are made from.
pub(crate) struct Source<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) pages: &'a Pages,
}

/// A node of the binary tree, inside of the pages.
#[derive(Clone)]
pub(crate) enum Node {
    /// An entry, or the top of a page.
    Slot(Slot),
    /// Two or more neighbouring slots of a page under one branch, but not all of them.
    Inner { page: Arc<Page>, slots: Range<usize> },
}

impl Node {
    fn of(page: &Arc<Page>, slots: Range<usize>) -> Self {
        if slots.len() == 1 {
            Node::Slot(page.slots[slots.start].clone())
        } else {
            Node::Inner { page: page.clone(), slots }
        }
    }

    /// The branch on top of some slots: the smallest bit between them.
    fn top(page: &Page, slots: &Range<usize>) -> usize {
        let branches = slots.start..slots.end - 1;
        branches.min_by_key(|branch| page.bits[*branch]).expect("two slots have a branch")
    }
}

impl anwansi_proofs::tree::Tree for Source<'_> {
    type Node = Node;
    type Error = Error;

    fn top(&self) -> Result<Option<Node>, Error> {
        Ok(self.tree.top.clone().map(Node::Slot))
    }

    fn view<'n>(&'n self, node: &'n Node) -> Result<View<'n, Node>, Error> {
        let branch = |page: &Arc<Page>, slots: Range<usize>, key: &'n [u8]| {
            let top = Node::top(page, &slots);
            View::Branch {
                bit: page.bits[top].into(),
                key,
                left: Node::of(page, slots.start..top + 1),
                right: Node::of(page, top + 1..slots.end),
            }
        };
        Ok(match node {
            Node::Slot(Slot::Entry(entry)) => {
                View::Leaf { key: &entry.key, value: entry.value.digest() }
            }
            Node::Slot(Slot::Child(child)) => {
                let page = self.pages.open(child)?;
                let all = 0..page.slots.len();
                branch(&page, all, &child.prefix)
            }
            Node::Inner { page, slots } => {
                branch(page, slots.clone(), page.slots[slots.start].key())
            }
        })
    }

    fn digest(&self, node: &Node, start: usize) -> Result<Digest, Error> {
        Ok(match node {
            Node::Slot(slot) => slot.digest(start),
            Node::Inner { page, slots } => page.hashes[Node::top(page, slots)],
        })
    }

    fn value(&self, node: &Node) -> Result<Vec<u8>, Error> {
        match node {
            Node::Slot(Slot::Entry(entry)) => Ok(self.pages.value(&entry.value)?.to_vec()),
            _ => unreachable!("only leaves have values"),
        }
    }
}
