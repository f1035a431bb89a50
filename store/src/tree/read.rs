//! Reading a tree: one key, a range either way, and what proofs are made from.

use std::{ops::Range, sync::Arc};

use anwansi_proofs::{Digest, tree::View};
use bytes::Bytes;

use super::{Entry, Page, Pages, Slot, Spot, Tree, Value};
use crate::{Error, engine::Direction};

impl Tree {
    /// The entry of `key`.
    pub(crate) fn get(&self, pages: &Pages, key: &[u8]) -> Result<Option<Entry>, Error> {
        match &self.top {
            Some(top) if top.side_of(key).is_eq() => match top {
                Slot::Entry(entry) => Ok(Some(entry.clone())),
                Slot::Child(child) => match &*child.link.peek() {
                    Some(page) => get_in(pages, page, key),
                    None => get_in(pages, &*pages.open(child)?, key),
                },
            },
            _ => Ok(None),
        }
    }

    /// Whether `key` has an entry that can be read without the engine, its value included.
    pub(crate) fn is_in_memory(&self, key: &[u8]) -> bool {
        match &self.top {
            Some(top) if top.side_of(key).is_eq() => is_in_memory(top, key, PAGES_NEAR),
            _ => false,
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
        Cursor { pages, start, end, direction, top: self.top.clone(), stack: Vec::new() }
    }
}

/// The entry of `key` in a page or below. Recurses from page to page: so none has to be shared on the way.
fn get_in(pages: &Pages, page: &Page, key: &[u8]) -> Result<Option<Entry>, Error> {
    let Spot::Inside(at) = page.locate(key) else { return Ok(None) };
    if let Some(link) = page.link(at)
        && let Some(below) = &*link.peek()
    {
        return get_in(pages, below, key);
    }
    match page.slot(at) {
        Slot::Entry(entry) => Ok(Some(entry)),
        Slot::Child(child) => get_in(pages, &*pages.open(&child)?, key),
    }
}

/// Pages above a key that is said to be in memory, at most: only keys that were made to do so lie deeper.
const PAGES_NEAR: usize = 16;

/// Whether the entry of `key` lies no more than so many pages below `slot`, and all of them are in memory.
fn is_in_memory(slot: &Slot, key: &[u8], pages: usize) -> bool {
    match slot {
        Slot::Entry(entry) => matches!(entry.value, Value::Inline(_)),
        Slot::Child(_) if pages == 0 => false,
        Slot::Child(child) => match &*child.link.peek() {
            Some(page) => match page.locate(key) {
                Spot::Inside(at) => is_in_memory(&page.slot(at), key, pages - 1),
                Spot::Before(_) => false,
            },
            None => false,
        },
    }
}

/// Walks over the entries of a range.
pub(crate) struct Cursor<'a> {
    pages: &'a Pages,
    start: Bytes,
    end: Option<Bytes>,
    direction: Direction,
    /// Not looked at yet.
    top: Option<Slot>,
    /// The open pages, each with the slots still to come.
    stack: Vec<(Arc<Page>, Range<usize>)>,
}

impl Cursor<'_> {
    /// The slots of a page that may hold a part of the range.
    fn within(&self, page: &Page) -> Range<usize> {
        let (Spot::Inside(first) | Spot::Before(first)) = page.locate(&self.start);
        let last = match self.end.as_ref().map(|end| page.locate(end)) {
            None => page.count(),
            Some(Spot::Before(at)) => at,
            // Of an entry that ends the range nothing is inside; of a child some may be.
            Some(Spot::Inside(at)) => at + usize::from(page.is_child(at)),
        };
        first..last.max(first)
    }

    /// The entry of a slot, if it lies in the range; the entries of a child come next.
    fn enter(&mut self, slot: Slot) -> Result<Option<Entry>, Error> {
        match slot {
            Slot::Entry(entry) => {
                let inside =
                    entry.key >= self.start && self.end.as_ref().is_none_or(|end| entry.key < *end);
                Ok(inside.then_some(entry))
            }
            Slot::Child(child) => {
                let page = self.pages.open(&child)?;
                let slots = self.within(&page);
                self.stack.push((page, slots));
                Ok(None)
            }
        }
    }

    /// The next slot to look at.
    fn next_slot(&mut self) -> Option<Slot> {
        if let Some(top) = self.top.take() {
            return Some(top);
        }
        loop {
            let (page, slots) = self.stack.last_mut()?;
            let at = match self.direction {
                Direction::Ascending => slots.next(),
                Direction::Descending => slots.next_back(),
            };
            match at {
                Some(at) => return Some(page.slot(at)),
                None => self.stack.pop(),
            };
        }
    }
}

impl Iterator for Cursor<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let slot = self.next_slot()?;
            match self.enter(slot) {
                Ok(None) => {}
                Ok(Some(entry)) => return Some(Ok(entry)),
                Err(error) => {
                    self.stack.clear();
                    return Some(Err(error));
                }
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
    Top(Slot),
    /// One slot of a page, or some neighbouring ones under one branch, but not all of them.
    Within {
        page: Arc<Page>,
        slots: Range<usize>,
    },
}

/// The branch on top of some slots of a page.
fn branch<'n>(page: &Arc<Page>, slots: Range<usize>, key: &'n [u8]) -> View<'n, Node> {
    let top = page.top(&slots);
    let within = |slots| Node::Within { page: page.clone(), slots };
    View::Branch {
        bit: page.bit(top),
        key,
        left: within(slots.start..top + 1),
        right: within(top + 1..slots.end),
    }
}

impl anwansi_proofs::tree::Tree for Source<'_> {
    type Node = Node;
    type Error = Error;

    fn top(&self) -> Result<Option<Node>, Error> {
        Ok(self.tree.top.clone().map(Node::Top))
    }

    fn view<'n>(&'n self, node: &'n Node) -> Result<View<'n, Node>, Error> {
        let (slot, key) = match node {
            Node::Top(slot) => (slot.clone(), &slot.key()[..]),
            Node::Within { page, slots } if slots.len() == 1 => {
                (page.slot(slots.start), page.key(slots.start))
            }
            Node::Within { page, slots } => {
                return Ok(branch(page, slots.clone(), page.key(slots.start)));
            }
        };
        Ok(match slot {
            Slot::Entry(entry) => View::Leaf { key, value: entry.value.digest() },
            Slot::Child(child) => {
                let page = self.pages.open(&child)?;
                branch(&page, 0..page.count(), key)
            }
        })
    }

    fn digest(&self, node: &Node, start: usize) -> Result<Digest, Error> {
        Ok(match node {
            Node::Top(slot) => slot.digest(start),
            Node::Within { page, slots } if slots.len() == 1 => {
                page.digest_from(slots.start, start)
            }
            Node::Within { page, slots } => page.hash(page.top(slots)),
        })
    }

    fn value(&self, node: &Node) -> Result<Vec<u8>, Error> {
        let slot = match node {
            Node::Top(slot) => slot.clone(),
            Node::Within { page, slots } => page.slot(slots.start),
        };
        match slot {
            Slot::Entry(entry) => Ok(self.pages.value(&entry.value)?.to_vec()),
            Slot::Child(_) => unreachable!("only leaves have values"),
        }
    }
}
