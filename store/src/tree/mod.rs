//! The tree of one version, in pages.
//!
//! A page is a connected piece of the tree: some two dozen slots in key order, a slot being an entry or a
//! child page. Between two neighbouring slots lies exactly one branch, at the first bit in which they
//! differ; so the branches of a page need no pointers, and the top one is the smallest of those bits.
//!
//! ```text
//! slots    a     b     [page]     c          3 branches: 12 is the top, 20 its left side, 31 the right
//! bits       20     12         31            one of 20, which lies above a and b
//! ```
//!
//! Pages never change once they are shared: an update makes new ones, from the changed leaves to the top,
//! and everything else is shared between versions. A page boundary never shows in a root. A child page's
//! top hash depends on the bit at which it starts, so a split or a join above changes it though the page
//! is untouched: its parent keeps the two hashes from which it follows.
//!
//! A page lies in a numbered frame (`frames.rs`), by which those above it know it, whether it is in memory or only in
//! storage. A tree holds its frames by a lease (`lineage.rs`), and `pages.rs` reads what is not in memory. What memory
//! pages take is counted, and given from one to the next (`memory.rs`).

mod build;
mod frames;
mod lineage;
mod memory;
mod page;
mod pages;
mod read;
mod slot;
mod update;

use std::sync::Arc;

use anwansi_proofs::Root;

use self::lineage::Lease;
use crate::{
    Error,
    record::{self, StoredValue},
};

pub use self::page::PageId;
pub(crate) use self::{
    frames::FrameId,
    page::{Page, Spot},
    pages::Pages,
    read::{Found, Near, Source},
    slot::{Child, Entry, Slot, Value},
    update::Write,
};

/// All entries of one version.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    pub(crate) top: Option<Slot>,
    pub(crate) entries: u64,
    /// Of keys and values together.
    pub(crate) bytes: u64,
    /// Its hold on the frames of its pages; none of the tree that has no page and follows no other.
    lease: Option<Arc<Lease>>,
}

impl Tree {
    /// A tree whose pages are all in storage; `None` if no slot could be written as `top` was.
    pub(crate) fn stored(pages: &Pages, flush: &record::Flush<'_>) -> Option<Self> {
        let (mut lease, mut top) = (None, None);
        if let Some(slot) = &flush.top {
            top = Some(Slot::from_record(slot, |id| {
                let (held, frame) = Lease::of_stored(pages, id);
                lease = Some(held);
                frame
            })?);
        }
        Some(Tree { top, entries: flush.entries, bytes: flush.bytes, lease })
    }

    /// The page of the child at its top.
    fn top_page(&self, pages: &Pages, child: &Child) -> Result<&Page, Error> {
        let lease = self.lease.as_ref().expect("a tree with pages has a lease");
        lease.top_page(|| pages.open(child))
    }

    /// The same, if it was read before.
    fn top_page_near(&self) -> Option<&Page> {
        self.lease.as_ref()?.top_page_near()
    }

    /// How many trees are held for this one, each because others went on from it in other ways.
    pub(crate) fn holds(&self) -> usize {
        self.lease.as_ref().map_or(0, |lease| lease.depth())
    }

    /// Bytes of the pages that were made for it.
    pub(crate) fn made_bytes(&self) -> usize {
        self.lease.as_ref().map_or(0, |lease| lease.made_bytes())
    }

    /// Bytes of the pages that it replaced of the tree that it was made from, as far as they were in memory.
    pub(crate) fn replaced_bytes(&self) -> usize {
        self.lease.as_ref().map_or(0, |lease| lease.replaced_bytes())
    }

    /// The values on their own that the tree before it had and it has not, in no order.
    pub(crate) fn replaced_values(&self) -> &[StoredValue] {
        self.lease.as_ref().map_or(&[], |lease| lease.replaced_values())
    }

    /// Its number, which is larger than those of the trees that it follows.
    pub(crate) fn number(&self) -> u64 {
        self.lease.as_ref().map_or(0, |lease| lease.number())
    }

    /// The number of the oldest tree that is held, of those that it follows.
    pub(crate) fn oldest(&self) -> u64 {
        self.lease.as_ref().map_or(0, |lease| lease.oldest())
    }

    /// Where pages were stored that this tree and those that it follows have replaced, each told once.
    pub(crate) fn take_dead(&self) -> Vec<PageId> {
        self.lease.as_ref().map_or_else(Vec::new, |lease| lease.take_dead())
    }

    /// Lets the page be stored anew that is stored at `id`, whose top branch is at `bit` and whose keys begin as `key`
    /// does until there, and those above it, which say where it is. Does nothing if the tree has no such page. `moved`
    /// is told where each of them was.
    pub(crate) fn unstore(
        &self,
        pages: &Pages,
        (id, bit, key): (PageId, usize, &[u8]),
        mut moved: impl FnMut(PageId),
    ) -> Result<(), Error> {
        let mut way = Vec::new();
        let mut next = self.top.clone();
        while let Some(Slot::Child(child)) = next.filter(|slot| slot.bits() <= bit) {
            way.push(child);
            let child = way.last().expect("it was pushed");
            if pages.id(child.frame) == Some(id) {
                for child in &way {
                    pages.unstore(child)?.map(&mut moved);
                }
                break;
            }
            let page = pages.open(child)?;
            next = Some(page.slot(page.candidate(key)));
        }
        Ok(())
    }

    /// The root: a function of the entries alone.
    pub(crate) fn root(&self) -> Root {
        self.top.as_ref().map_or_else(Root::empty, |top| Root(top.digest(0)))
    }
}
