//! Reading a tree: one key, a range either way, and what proofs are made from.

use std::{borrow::Cow, cell::Cell, ops::Range, rc::Rc};

use anwansi_proofs::{Digest, tree::View};
use bytes::Bytes;

use super::{Child, Entry, FrameId, Page, Pages, Slot, Spot, Tree, Value};
use crate::{Error, engine::Direction, record::StoredValue};

/// An entry that was found, still in its page.
pub(crate) enum Found<'a> {
    Top(&'a Entry),
    Within { page: Cow<'a, Page>, at: usize },
}

impl Found<'_> {
    /// The bytes of its value.
    pub(crate) fn value(&self, pages: &Pages) -> Result<Bytes, Error> {
        match self {
            Found::Top(entry) => pages.value(&entry.value),
            Found::Within { page, at } => pages.value(&page.value(*at)),
        }
    }

    /// The digest of its leaf.
    pub(crate) fn leaf(&self) -> Digest {
        match self {
            Found::Top(entry) => entry.leaf,
            Found::Within { page, at } => page.digest(*at),
        }
    }
}

impl Tree {
    /// The entry of `key`.
    ///
    /// As in Morrison's PATRICIA, the key is compared once, with that of the only entry that can be its: what the pages
    /// on the way share with it need not be looked at.
    pub(crate) fn find(&self, pages: &Pages, key: &[u8]) -> Result<Option<Found<'_>>, Error> {
        let mut page = match &self.top {
            Some(Slot::Child(child)) => Cow::Borrowed(self.top_page(pages, child)?),
            Some(Slot::Entry(entry)) => return Ok((entry.key == key).then_some(Found::Top(entry))),
            None => return Ok(None),
        };
        loop {
            let at = page.candidate(key);
            if !page.is_child(at) {
                return Ok((page.key(at) == key).then_some(Found::Within { page, at }));
            }
            page = Cow::Owned(pages.below(&page, at)?);
        }
    }

    /// The bytes of the value of `key`.
    pub(crate) fn value(&self, pages: &Pages, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.find(pages, key)?.map(|found| found.value(pages)).transpose()
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
pub(crate) enum Node<'a> {
    Top(&'a Slot),
    /// One slot of a page, or some neighbouring ones under one branch, but not all of them.
    Within {
        page: Rc<Page>,
        slots: Range<usize>,
    },
}

/// The branch on top of some slots of a page.
fn branch<'n, 'a>(page: &Rc<Page>, slots: Range<usize>, key: &'n [u8]) -> View<'n, Node<'a>> {
    let top = page.top(&slots);
    let within = |slots| Node::Within { page: page.clone(), slots };
    View::Branch {
        bit: page.bit(top),
        key,
        left: within(slots.start..top + 1),
        right: within(top + 1..slots.end),
    }
}

impl<'a> Node<'a> {
    /// What it looks like; `top` and `below` open the top page and the one below the child in a slot of another.
    fn view<'n, E>(
        &'n self,
        top: impl FnOnce(&'n Child) -> Result<Page, E>,
        below: impl FnOnce(&Page, usize) -> Result<Page, E>,
    ) -> Result<View<'n, Node<'a>>, E> {
        let (page, key) = match self {
            Node::Top(Slot::Entry(entry)) => {
                return Ok(View::Leaf { key: &entry.key });
            }
            Node::Top(Slot::Child(child)) => (top(child)?, &child.prefix[..]),
            Node::Within { page, slots } => {
                let (at, key) = (slots.start, page.key(slots.start));
                if slots.len() > 1 {
                    return Ok(branch(page, slots.clone(), key));
                }
                if !page.is_child(at) {
                    return Ok(View::Leaf { key });
                }
                (below(page, at)?, key)
            }
        };
        page.fetch_digests();
        let slots = 0..page.count();
        Ok(branch(&Rc::new(page), slots, key))
    }

    fn digest(&self, start: usize) -> Digest {
        match self {
            Node::Top(slot) => slot.digest(start),
            Node::Within { page, slots } if slots.len() == 1 => {
                page.digest_from(slots.start, start)
            }
            Node::Within { page, slots } => page.hash(page.top(slots)),
        }
    }

    /// The value of a leaf, if it does not lie elsewhere.
    fn value(&self) -> Result<&[u8], StoredValue> {
        match self {
            Node::Top(Slot::Entry(Entry { value: Value::Inline(value), .. })) => Ok(value),
            Node::Top(Slot::Entry(Entry { value: Value::Stored(stored), .. })) => Err(*stored),
            Node::Within { page, slots } if !page.is_child(slots.start) => {
                page.value_bytes(slots.start)
            }
            _ => unreachable!("only leaves have values"),
        }
    }

    /// The digest of the value of a leaf.
    fn value_digest(&self) -> Digest {
        match self {
            Node::Top(Slot::Entry(entry)) => entry.value.digest(),
            Node::Within { page, slots } if !page.is_child(slots.start) => {
                page.value_digest(slots.start)
            }
            _ => unreachable!("only leaves have values"),
        }
    }
}

impl<'s> anwansi_proofs::tree::Tree for Source<'s> {
    type Node = Node<'s>;
    type Error = Error;

    fn top(&self) -> Result<Option<Node<'s>>, Error> {
        Ok(self.tree.top.as_ref().map(Node::Top))
    }

    fn view<'n>(&'n self, node: &'n Node<'s>) -> Result<View<'n, Node<'s>>, Error> {
        let top = |child| self.tree.top_page(self.pages, child).cloned();
        node.view(top, |page, at| self.pages.below(page, at))
    }

    fn digest(&self, node: &Node<'_>, start: usize) -> Result<Digest, Error> {
        Ok(node.digest(start))
    }

    fn value<'n>(&'n self, node: &'n Node<'s>) -> Result<Cow<'n, [u8]>, Error> {
        match node.value() {
            Ok(value) => Ok(value.into()),
            Err(stored) => Ok(Vec::from(self.pages.stored_value(&stored)?).into()),
        }
    }

    fn value_digest(&self, node: &Node<'_>) -> Result<Digest, Error> {
        Ok(node.value_digest())
    }
}

/// The same, as far as it is in memory: it never waits.
pub(crate) struct Near<'a> {
    source: Source<'a>,
    /// Pages that may still be looked at.
    pages: Cell<usize>,
}

/// Something is not in memory, or other threads are just there, or too much would have to be looked at.
pub(crate) struct Far;

impl<'a> Near<'a> {
    /// Of so many pages at most.
    pub(crate) fn new(source: Source<'a>, pages: usize) -> Self {
        Near { source, pages: pages.into() }
    }

    fn page(&self, frame: FrameId) -> Result<Page, Far> {
        let left = self.pages.get().checked_sub(1).ok_or(Far)?;
        self.pages.set(left);
        self.source.pages.near(frame).ok_or(Far)
    }
}

impl<'s> anwansi_proofs::tree::Tree for Near<'s> {
    type Node = Node<'s>;
    type Error = Far;

    fn top(&self) -> Result<Option<Node<'s>>, Far> {
        Ok(self.source.tree.top.as_ref().map(Node::Top))
    }

    fn view<'n>(&'n self, node: &'n Node<'s>) -> Result<View<'n, Node<'s>>, Far> {
        let below = |page: &Page, at| page.frame(at).ok_or(Far).and_then(|frame| self.page(frame));
        let top = |child: &Child| match self.source.tree.top_page_near() {
            Some(page) => Ok(page.clone()),
            None => self.page(child.frame),
        };
        node.view(top, below)
    }

    fn digest(&self, node: &Node<'_>, start: usize) -> Result<Digest, Far> {
        Ok(node.digest(start))
    }

    fn value<'n>(&'n self, node: &'n Node<'s>) -> Result<Cow<'n, [u8]>, Far> {
        node.value().map(Cow::Borrowed).map_err(|_| Far)
    }

    fn value_digest(&self, node: &Node<'_>) -> Result<Digest, Far> {
        Ok(node.value_digest())
    }
}
