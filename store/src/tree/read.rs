//! Reading a tree: one key, a range either way, and what proofs are made from.

use std::{borrow::Cow, ops::Range};

use anwansi_proofs::{Digest, tree::View};
use bytes::Bytes;

use super::{Entry, Page, Pages, Slot, Spot, Tree, Value};
use crate::{Error, engine::Direction};

impl Tree {
    /// The value of `key`, and the digest of its leaf.
    pub(crate) fn get(&self, pages: &Pages, key: &[u8]) -> Result<Option<(Value, Digest)>, Error> {
        let mut page = match &self.top {
            Some(top) if top.side_of(key).is_eq() => match top {
                Slot::Entry(entry) => return Ok(Some((entry.value.clone(), entry.leaf))),
                Slot::Child(child) => Cow::Borrowed(self.top_page(pages, child)?),
            },
            _ => return Ok(None),
        };
        loop {
            match page.locate(key) {
                Spot::Inside(at) if page.is_child(at) => {
                    page = Cow::Owned(pages.below(&page, at)?);
                }
                Spot::Inside(at) => return Ok(Some((page.value(at), page.digest(at)))),
                Spot::Before(_) => return Ok(None),
            }
        }
    }

    /// Whether `key` has an entry that can be read without the engine, its value included. Never waits: where others
    /// are just now, nothing is said to be in memory.
    pub(crate) fn is_in_memory(&self, pages: &Pages, key: &[u8]) -> bool {
        let mut frame = match &self.top {
            Some(top) if top.side_of(key).is_eq() => match top {
                Slot::Entry(entry) => return matches!(entry.value, Value::Inline(_)),
                Slot::Child(child) => child.frame,
            },
            _ => return false,
        };
        for _ in 0..PAGES_NEAR {
            let Some(page) = pages.near(frame) else { return false };
            let Spot::Inside(at) = page.locate(key) else { return false };
            match page.frame(at) {
                Some(below) => frame = below,
                None => return page.has_value(at),
            }
        }
        false
    }

    /// The entries from `start`, inclusive, to `end`, exclusive, in order of `direction`.
    pub(crate) fn range<'a>(
        &'a self,
        pages: &'a Pages,
        start: Bytes,
        end: Option<Bytes>,
        direction: Direction,
    ) -> Cursor<'a> {
        let (top, stack) = (self.top.as_ref(), Vec::new());
        Cursor { tree: self, pages, start, end, direction, top, stack }
    }
}

/// Pages above a key that is said to be in memory, at most: only keys that were made to do so lie deeper.
const PAGES_NEAR: usize = 16;

/// Walks over the entries of a range.
pub(crate) struct Cursor<'a> {
    tree: &'a Tree,
    pages: &'a Pages,
    start: Bytes,
    end: Option<Bytes>,
    direction: Direction,
    /// Not looked at yet.
    top: Option<&'a Slot>,
    /// The open pages, each with the slots still to come.
    stack: Vec<(Page, Range<usize>)>,
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

    /// Whether the range has this key.
    fn has(&self, key: &[u8]) -> bool {
        *key >= self.start[..] && self.end.as_ref().is_none_or(|end| *key < end[..])
    }

    /// The slots of a page that is opened come next.
    fn enter(&mut self, page: Page) {
        let slots = self.within(&page);
        self.stack.push((page, slots));
    }

    /// Looks at the next slot: its entry, if it has one and that lies in the range.
    fn step(&mut self) -> Result<Option<Entry>, Error> {
        match self.top.take() {
            Some(Slot::Entry(entry)) => return Ok(self.has(&entry.key).then(|| entry.clone())),
            Some(Slot::Child(child)) => {
                self.enter(self.tree.top_page(self.pages, child)?.clone());
                return Ok(None);
            }
            None => {}
        }
        let Some((page, slots)) = self.stack.last_mut() else { return Ok(None) };
        let at = match self.direction {
            Direction::Ascending => slots.next(),
            Direction::Descending => slots.next_back(),
        };
        match at {
            Some(at) if page.is_child(at) => {
                let below = self.pages.below(page, at)?;
                self.enter(below);
            }
            Some(at) => {
                let page = page.clone();
                return Ok(self.has(page.key(at)).then(|| page.entry(at)));
            }
            None => drop(self.stack.pop()),
        }
        Ok(None)
    }
}

impl Iterator for Cursor<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.top.is_some() || !self.stack.is_empty() {
            match self.step() {
                Ok(None) => {}
                Ok(Some(entry)) => return Some(Ok(entry)),
                Err(error) => {
                    self.stack.clear();
                    return Some(Err(error));
                }
            }
        }
        None
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
        page: Page,
        slots: Range<usize>,
    },
}

/// The branch on top of some slots of a page.
fn branch<'n>(page: &Page, slots: Range<usize>, key: &'n [u8]) -> View<'n, Node> {
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
        let (below, key) = match node {
            Node::Top(Slot::Entry(entry)) => {
                return Ok(View::Leaf { key: &entry.key, value: entry.value.digest() });
            }
            Node::Top(Slot::Child(child)) => {
                let page = self.tree.top_page(self.pages, child)?;
                return Ok(branch(page, 0..page.count(), &child.prefix));
            }
            Node::Within { page, slots } => {
                let (at, key) = (slots.start, page.key(slots.start));
                if slots.len() > 1 {
                    return Ok(branch(page, slots.clone(), key));
                }
                if !page.is_child(at) {
                    return Ok(View::Leaf { key, value: page.value_digest(at) });
                }
                (self.pages.below(page, at)?, key)
            }
        };
        Ok(branch(&below, 0..below.count(), key))
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
        let value = match node {
            Node::Top(Slot::Entry(entry)) => entry.value.clone(),
            Node::Within { page, slots } if !page.is_child(slots.start) => page.value(slots.start),
            _ => unreachable!("only leaves have values"),
        };
        Ok(self.pages.value(&value)?.to_vec())
    }
}
