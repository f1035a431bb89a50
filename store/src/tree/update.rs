//! From one version's tree to the next one's.

use std::ops::Range;

use anwansi_proofs::hash;
use bytes::Bytes;
use rayon::prelude::*;

use super::{
    Entry, FrameId, Page, Pages, Slot, Spot, Tree, Value,
    build::{self, Patch, Patched, Piece},
    lineage::Draft,
    page::SLOTS_JOIN,
};
use crate::{Error, record};

/// Writes below one page from which on its children are shared among threads.
const PARALLEL_WRITES: usize = 64;

/// What happens to one key: a new value, or none.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) key: Bytes,
    pub(crate) value: Option<Value>,
}

impl Write {
    /// Of key and value.
    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Value::length)
    }

    pub(crate) fn to_record(&self) -> record::Change<'_> {
        let value = self.value.as_ref().map(Value::to_record);
        record::Change { key: &self.key, value }
    }

    /// `None` if its value is longer than values in a record are.
    pub(crate) fn from_record(change: &record::Change<'_>) -> Option<Self> {
        let value = match &change.value {
            Some(value) => Some(Value::from_record(value)?),
            None => None,
        };
        Some(Write { key: Bytes::copy_from_slice(change.key), value })
    }
}

impl Tree {
    /// The tree after `writes`, which stand in strictly ascending key order.
    ///
    /// Pages on the way to a changed key are made anew, all others are shared.
    ///
    /// # Errors
    /// If a page cannot be read.
    pub(crate) fn update(&self, pages: &Pages, writes: &[Write]) -> Result<Tree, Error> {
        let draft = Draft::begin(pages, self.lease.as_ref(), writes.len());
        Ok(self.finish_with(draft, writes)?.0)
    }

    /// The same, and what leads back from it to this tree, if that takes no more than so many bytes: changes, one behind
    /// the other, in no order.
    pub(crate) fn update_undoably(
        &self,
        pages: &Pages,
        writes: &[Write],
        bytes_max: usize,
    ) -> Result<(Tree, Option<Vec<u8>>), Error> {
        let draft = Draft::begin(pages, self.lease.as_ref(), writes.len());
        self.finish_with(draft.undoable(bytes_max), writes)
    }

    fn finish_with(
        &self,
        draft: Draft<'_>,
        writes: &[Write],
    ) -> Result<(Tree, Option<Vec<u8>>), Error> {
        let pages = draft.pages();
        let mut growth = Growth::default();
        let mut slots = Vec::new();
        let (mut ahead, mut inside, mut behind) = (writes, &writes[..0], &writes[..0]);
        if let Some(top) = &self.top {
            let first = writes.partition_point(|write| top.side_of(&write.key).is_lt());
            (ahead, inside) = writes.split_at(first);
            let last = inside.partition_point(|write| top.side_of(&write.key).is_le());
            (inside, behind) = inside.split_at(last);
        }
        growth.put(&draft, ahead, &mut slots);
        match &self.top {
            Some(top) if inside.is_empty() => slots.push(Piece::new(top.clone())),
            Some(Slot::Entry(entry)) => {
                growth.lose(entry.bytes());
                if let Value::Stored(stored) = entry.value {
                    draft.replace_value(stored);
                }
                draft.undo(&entry.key, Some(entry.value.to_record()));
                let new = inside.iter().filter_map(|write| growth.entry(write));
                slots.extend(new.map(|entry| Piece::new(Slot::Entry(entry))));
            }
            Some(Slot::Child(child)) => {
                let page = pages.open_once(child)?;
                let below = if inside.len() < PARALLEL_WRITES {
                    merge(&draft, &page, inside)?
                } else {
                    pages.install(|| merge(&draft, &page, inside))?
                };
                below.replaces(&draft, child.frame, page.memory());
                growth.add(&below.growth);
                match below.left {
                    Left::Same => slots.push(Piece::child(child.clone())),
                    Left::Patched(patched) => {
                        slots.push(Piece::child(child.clone().patched(patched)));
                    }
                    Left::Slots(below) => slots.extend(below.into_iter().map(Piece::new)),
                }
            }
            None => {}
        }
        growth.put(&draft, behind, &mut slots);
        // What is too much for one page becomes several, below one more.
        while slots.len() > 1 {
            slots = build::pages(&draft, None, slots).into_iter().map(Piece::new).collect();
        }
        let top = slots.pop().map(|piece| match piece {
            Piece::New(slot) => *slot,
            Piece::Kept(_) => unreachable!("there is no page to keep anything of"),
        });
        // Counts lie under no digest: a damaged one must not stop what the root allows.
        let entries = self.entries.saturating_add_signed(growth.entries);
        let bytes = self.bytes.saturating_add_signed(growth.bytes);
        let (lease, undo) = draft.finish(top.as_ref().and_then(Slot::frame));
        Ok((Tree { top, entries, bytes, lease: Some(lease) }, undo))
    }
}

/// How much more there is after some writes.
#[derive(Default)]
struct Growth {
    entries: i64,
    bytes: i64,
}

impl Growth {
    fn add(&mut self, other: &Growth) {
        self.entries += other.entries;
        self.bytes += other.bytes;
    }

    /// An entry of so many bytes is replaced or removed.
    fn lose(&mut self, bytes: u64) {
        self.entries -= 1;
        self.bytes -= bytes.cast_signed();
    }

    /// A write makes an entry.
    fn gain(&mut self, write: &Write) {
        self.entries += 1;
        self.bytes += (write.bytes() as u64).cast_signed();
    }

    /// The entry that a write makes, if it makes one.
    fn entry(&mut self, write: &Write) -> Option<Entry> {
        let entry = Entry::new(write.key.clone(), write.value.clone()?);
        self.gain(write);
        Some(entry)
    }

    /// The entry that a write to a new key makes, if it makes one.
    fn new_entry(&mut self, draft: &Draft<'_>, write: &Write) -> Option<Entry> {
        let entry = self.entry(write)?;
        draft.undo(&write.key, None);
        Some(entry)
    }

    /// Appends the entries that writes to new keys make.
    fn put(&mut self, draft: &Draft<'_>, writes: &[Write], pieces: &mut Vec<Piece>) {
        let entries = writes.iter().filter_map(|write| self.new_entry(draft, write));
        pieces.extend(entries.map(|entry| Piece::new(Slot::Entry(entry))));
    }
}

/// What became of a child page.
struct Below {
    left: Left,
    growth: Growth,
}

impl Below {
    /// Notes that the page of `frame`, with so many bytes of memory, has become this.
    fn replaces(&self, draft: &Draft<'_>, frame: FrameId, bytes: usize) {
        if !matches!(self.left, Left::Same) {
            draft.replace(frame, bytes);
        }
    }
}

enum Left {
    /// Nothing has changed.
    Same,
    /// Only what its slots stand for.
    Patched(Patched),
    /// Another page; or several, if they were too many for one; or slots that are too few for one.
    Slots(Vec<Slot>),
}

/// What happens to some slots of a page, or between two of them.
enum Step<'w> {
    Keep(Range<usize>),
    /// A write to a new key.
    Put(&'w Write),
    /// A write to the key of an entry.
    Replace(usize, &'w Write),
    /// Writes below a child.
    Below(usize, &'w [Write]),
}

/// What is left of some slots of a page, or is new between two of them.
enum Change<'w> {
    Kept(Range<usize>),
    Patched(usize, Patch<'w>),
    New(Box<Slot>),
}

/// A page after `writes`, all of which fall into it. Recurses from page to page.
fn merge(draft: &Draft<'_>, page: &Page, writes: &[Write]) -> Result<Below, Error> {
    let steps = steps(page, writes);
    let mut below = below(draft, page, &steps, writes.len())?.into_iter();
    let mut growth = Growth::default();
    let mut changes = Vec::with_capacity(steps.len());
    // Whether each slot stays where it is, and none comes between.
    let mut in_place = true;
    for step in steps {
        match step {
            Step::Keep(slots) => changes.push(Change::Kept(slots)),
            Step::Put(write) => {
                let entry = growth.new_entry(draft, write);
                let entry = entry.map(|entry| Change::New(Box::new(Slot::Entry(entry))));
                in_place &= entry.is_none();
                changes.extend(entry);
            }
            Step::Replace(at, write) => {
                growth.lose(page.content_bytes(at));
                let before = match page.value_bytes(at) {
                    Ok(value) => record::Value::Inline(value),
                    Err(stored) => {
                        draft.replace_value(stored);
                        record::Value::Stored(stored)
                    }
                };
                draft.undo(&write.key, Some(before));
                in_place &= write.value.is_some();
                if let Some(value) = &write.value {
                    growth.gain(write);
                    let leaf = hash::leaf(&write.key, &value.digest());
                    changes.push(Change::Patched(at, Patch::Entry(value, leaf)));
                }
            }
            Step::Below(at, _) => {
                let below = below.next().expect("each has its result");
                growth.add(&below.growth);
                match below.left {
                    Left::Same => changes.push(Change::Kept(at..at + 1)),
                    Left::Patched(patched) => {
                        changes.push(Change::Patched(at, Patch::Child(patched)));
                    }
                    Left::Slots(slots) => {
                        in_place = false;
                        changes.extend(slots.into_iter().map(|slot| Change::New(Box::new(slot))));
                    }
                }
            }
        }
    }
    let left =
        if in_place { patched(draft, page, changes) } else { made_anew(draft, page, changes) };
    Ok(Below { left, growth })
}

/// A page whose slots stay where they are.
fn patched(draft: &Draft<'_>, page: &Page, changes: Vec<Change<'_>>) -> Left {
    let patch = |change| match change {
        Change::Patched(at, patch) => Some((at, patch)),
        _ => None,
    };
    let patches = changes.into_iter().filter_map(patch).collect::<Vec<_>>();
    if patches.is_empty() {
        return Left::Same;
    }
    Left::Patched(build::patch(draft, page, &patches))
}

/// A page whose slots come and go.
fn made_anew(draft: &Draft<'_>, page: &Page, changes: Vec<Change<'_>>) -> Left {
    let mut pieces = Vec::with_capacity(page.count() + changes.len());
    for change in changes {
        match change {
            Change::Kept(slots) => pieces.extend(slots.map(Piece::Kept)),
            Change::Patched(at, Patch::Entry(value, leaf)) => {
                let (key, value) = (Bytes::copy_from_slice(page.key(at)), value.clone());
                pieces.push(Piece::new(Slot::Entry(Entry { key, value, leaf })));
            }
            Change::Patched(at, Patch::Child(patched)) => {
                pieces.push(Piece::child(page.child(at).patched(patched)));
            }
            Change::New(slot) => pieces.push(Piece::New(slot)),
        }
    }
    if pieces.len() >= SLOTS_JOIN {
        return Left::Slots(build::pages(draft, Some(page), pieces));
    }
    let slot = |piece| match piece {
        Piece::Kept(at) => page.slot(at),
        Piece::New(slot) => *slot,
    };
    Left::Slots(pieces.into_iter().map(slot).collect())
}

/// What `writes` do to the slots of a page, in order.
fn steps<'w>(page: &Page, mut writes: &'w [Write]) -> Vec<Step<'w>> {
    let mut steps = Vec::with_capacity(1 + 2 * writes.len().min(page.count()));
    let mut next = 0;
    while let Some(first) = writes.first() {
        let spot = page.locate(&first.key);
        let (Spot::Inside(at) | Spot::Before(at)) = spot;
        steps.push(Step::Keep(next..at));
        next = at;
        let count = match spot {
            // At least the first one.
            Spot::Inside(at) if page.is_child(at) => {
                1 + writes[1..].partition_point(|write| page.side_of(at, &write.key).is_le())
            }
            _ => 1,
        };
        let (these, rest) = writes.split_at(count);
        writes = rest;
        steps.push(match spot {
            Spot::Inside(at) if page.is_child(at) => Step::Below(at, these),
            Spot::Inside(at) => Step::Replace(at, first),
            Spot::Before(_) => Step::Put(first),
        });
        next += usize::from(matches!(spot, Spot::Inside(_)));
    }
    steps.push(Step::Keep(next..page.count()));
    steps
}

/// What becomes of the children that are written below, in order: on all threads, if it is much.
fn below(
    draft: &Draft<'_>,
    page: &Page,
    steps: &[Step<'_>],
    writes: usize,
) -> Result<Vec<Below>, Error> {
    let children = steps.iter().filter_map(|step| match step {
        Step::Below(at, writes) => Some((*at, *writes)),
        _ => None,
    });
    let children = children.collect::<Vec<_>>();
    let frame = |at| page.frame(at).expect("it is a child");
    let below = |at, loaded: Option<Page>, writes| {
        let bytes = loaded.as_ref().map_or(0, Page::memory);
        let below = match loaded {
            Some(loaded) => merge(draft, &loaded, writes)?,
            None => merge(draft, &draft.pages().open_once(&page.child(at))?, writes)?,
        };
        below.replaces(draft, frame(at), bytes);
        Ok(below)
    };
    if writes >= PARALLEL_WRITES && children.len() > 1 {
        let below = |(at, writes)| below(at, draft.pages().loaded(frame(at)), writes);
        return children.into_par_iter().map(below).collect();
    }
    let frames = children.iter().map(|(at, _)| frame(*at)).collect::<Vec<_>>();
    let children = children.into_iter().zip(draft.pages().frames().fetch(&frames));
    children.map(|((at, writes), loaded)| below(at, loaded, writes)).collect()
}
