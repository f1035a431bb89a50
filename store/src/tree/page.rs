//! Pages: where a key belongs in one, and how one lies in memory and in storage.
//!
//! In memory a page of `n` slots is one string of bytes, so that it is copied at once and read without
//! following a pointer; integers are little-endian:
//!
//! ```text
//! bits      (n - 1) * 2    of the branch between each slot and the next
//! ends      n * 4          where the body of each slot ends, from the first on
//! frames    n * 4          of the children, in a page that has any
//! digests   n * 32         of what each slot stands for, where it starts in this page
//! hashes    (n - 1) * 32   of each branch; of the top one, which depends on where the page starts, nothing
//! bodies                   entry: key length 2, kind 1, key, value or where it lies
//!                          child: prefix length 2, bit 2, left 32, right 32, prefix
//! ```
//!
//! What is read on the way down to a key stands first, in few lines of a processor's cache.
//!
//! In storage there are the slots alone (FORMAT.md): all digests are computed again when a page is read.

mod write;

use std::{cmp::Ordering, fmt, hint, ops::Range, sync::Arc};

use anwansi_proofs::{
    Digest, hash,
    path::{bit, critical_bit},
};
use bytes::Bytes;
use wincode::{SchemaRead, SchemaWrite};

use super::{
    Child, Entry, FrameId, Slot, Value,
    build::{Piece, Plan},
    slot::side_of,
};
use crate::{
    Damage, Error,
    record::{self, StoredValue},
};

pub(super) use self::write::{PageWriter, body_bytes, page_bytes, patched_bytes};

/// The most slots of a page in storage (FORMAT.md): one with more than are made stays so until slots come or go.
const SLOTS_STORED_MAX: usize = 32;
/// The most slots of a page that is made: copying them all for one that changes should not take long.
pub(crate) const SLOTS_MAX: usize = 24;
/// A child page with fewer slots goes back into its parent.
pub(crate) const SLOTS_JOIN: usize = SLOTS_MAX / 4;

/// A page that is too full is split at its top branch if so many slots are on either side: neither goes back.
pub(crate) const SLOTS_SPLIT: usize = SLOTS_JOIN;

/// A piece of a tree. It has at least two slots, so it has a top branch. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// Those of the page, and what is left of the memory that it was given.
    bytes: Arc<[u8]>,
    /// Which slots are children, by their bits.
    children: u32,
    count: u8,
    /// Whether there are any. A `bool` also leaves values free to tell what is in a frame, which must stay small.
    has_children: bool,
    /// The bytes at the end of its memory that are not the page's.
    unused: u16,
}

const _: () = assert!(SLOTS_MAX <= SLOTS_STORED_MAX && SLOTS_STORED_MAX <= u32::BITS as usize);

/// Where a page is stored: a place in a chunk. Ids are never reused for other bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, SchemaWrite, SchemaRead)]
pub struct PageId {
    /// The opening of the store in which it was written.
    pub(crate) epoch: u32,
    /// The chunk within the epoch.
    pub(crate) chunk: u32,
    /// Where in the chunk the page starts, and its length, in bytes.
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

impl PageId {
    /// The key of the chunk: chunks of one epoch ascend.
    pub(crate) fn chunk_key(epoch: u32, chunk: u32) -> [u8; 8] {
        (u64::from(epoch) << 32 | u64::from(chunk)).to_be_bytes()
    }
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PageId { epoch, chunk, offset, length } = self;
        write!(f, "{epoch}/{chunk} at {offset}, {length} bytes")
    }
}

/// The lowest `count` bits.
fn first_bits(count: usize) -> u32 {
    let end = 1_u32.checked_shl(u32::try_from(count).expect("pages are small"));
    end.map_or(u32::MAX, |end| end - 1)
}

/// The branch on top of two or more slots, the smallest bit between them; and that bit.
fn top(bits: &[[u8; BIT]], slots: &Range<usize>) -> (usize, u16) {
    let (mut top, mut smallest) = (slots.start, u16::MAX);
    for (at, bit) in (slots.start..).zip(&bits[slots.start..slots.end - 1]) {
        let bit = u16::from_le_bytes(*bit);
        if bit < smallest {
            (top, smallest) = (at, bit);
        }
    }
    (top, smallest)
}

/// Where a key belongs in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    /// Into this slot: it is that entry's key, or lies below that child's top branch.
    Inside(usize),
    /// Between the slots before this one and those from it on.
    Before(usize),
}

/// Where the parts of a page of so many slots begin.
#[derive(Clone, Copy, Debug)]
struct Layout {
    count: usize,
    has_children: bool,
}

impl Layout {
    fn ends(self) -> usize {
        (self.count - 1) * BIT
    }

    fn frames(self) -> usize {
        self.ends() + self.count * END
    }

    fn digests(self) -> usize {
        self.frames() + usize::from(self.has_children) * self.count * FrameId::LEN
    }

    fn hashes(self) -> usize {
        self.digests() + self.count * Digest::LEN
    }

    fn bodies(self) -> usize {
        self.hashes() + (self.count - 1) * Digest::LEN
    }
}

/// What a processor brings near at once, in bytes, on most machines.
const CACHE_LINE: usize = 64;
const BIT: usize = size_of::<u16>();
const END: usize = size_of::<u32>();
const LENGTH: usize = size_of::<u16>();
/// Of an entry: the length of its key, and the kind of its value.
const ENTRY_HEAD: usize = LENGTH + 1;
/// Of a child: the length of its prefix, its bit, the digests of its sides.
const CHILD_HEAD: usize = LENGTH + BIT + 2 * Digest::LEN;

const KIND_INLINE: u8 = 0;
const KIND_STORED: u8 = 1;
/// Version, index, length and digest.
const STORED: usize = 8 + 4 + 4 + Digest::LEN;

impl Page {
    pub(crate) fn count(&self) -> usize {
        self.count.into()
    }

    /// Brings its bytes near: those of several pages then come at once, not one after the other when needed.
    pub(crate) fn fetch(&self) {
        self.fetch_first(self.length());
    }

    /// Brings all near but the bodies of its slots.
    pub(super) fn fetch_digests(&self) {
        self.fetch_first(self.layout().bodies());
    }

    fn fetch_first(&self, bytes: usize) {
        let bytes = self.bytes[..bytes].iter().step_by(CACHE_LINE);
        hint::black_box(bytes.fold(0, |all, byte| all ^ byte));
    }

    /// Brings near what is looked at on the way down to a key.
    pub(super) fn fetch_way(&self) {
        self.fetch_first(self.layout().digests());
    }

    /// How many have it, which brings its first bytes near.
    pub(super) fn holders(&self) -> usize {
        Arc::strong_count(&self.bytes)
    }

    /// In bytes.
    fn length(&self) -> usize {
        self.bytes.len() - usize::from(self.unused)
    }

    fn layout(&self) -> Layout {
        Layout { count: self.count(), has_children: self.has_children }
    }

    fn array<const N: usize>(&self, at: usize) -> &[u8; N] {
        self.bytes[at..].first_chunk().expect("a page is as long as it was made")
    }

    /// The bits of all branches.
    fn bits(&self) -> &[[u8; BIT]] {
        self.bytes[..self.layout().ends()].as_chunks().0
    }

    /// Where the bodies of the slots end.
    fn ends(&self) -> &[[u8; END]] {
        self.bytes[self.layout().ends()..self.layout().frames()].as_chunks().0
    }

    /// The bit of the branch between slot `at` and the next.
    pub(crate) fn bit(&self, at: usize) -> usize {
        u16::from_le_bytes(self.bits()[at]).into()
    }

    /// The digest of what slot `at` stands for, where it starts in this page.
    pub(crate) fn digest(&self, at: usize) -> Digest {
        Digest(*self.array(self.layout().digests() + at * Digest::LEN))
    }

    /// The digest of the branch between slot `at` and the next, which is not the top one.
    pub(crate) fn hash(&self, at: usize) -> Digest {
        Digest(*self.array(self.layout().hashes() + at * Digest::LEN))
    }

    /// Where the bodies of some slots lie, from the first body on.
    fn bodies(&self, slots: Range<usize>) -> Range<usize> {
        let ends = self.ends();
        let end = |at: usize| u32::from_le_bytes(ends[at]) as usize;
        let start = if slots.start == 0 { 0 } else { end(slots.start - 1) };
        start..end(slots.end - 1)
    }

    /// The body of slot `at`, in bytes of the page.
    fn body(&self, at: usize) -> Range<usize> {
        let (body, bodies) = (self.bodies(at..at + 1), self.layout().bodies());
        bodies + body.start..bodies + body.end
    }

    pub(crate) fn is_child(&self, at: usize) -> bool {
        self.children >> at & 1 == 1
    }

    /// The frame of the child in slot `at`, if there is one.
    pub(crate) fn frame(&self, at: usize) -> Option<FrameId> {
        let place = self.layout().frames() + at * FrameId::LEN;
        self.is_child(at).then(|| FrameId::from_le_bytes(*self.array(place)))
    }

    /// The frames of all children, in order.
    pub(crate) fn frames(&self) -> impl Iterator<Item = FrameId> + '_ {
        let slots = if self.has_children { 0..self.count() } else { 0..0 };
        slots.filter_map(|at| self.frame(at))
    }

    /// Notes where its children are, of a page that nobody else has yet.
    pub(super) fn set_frames(&mut self, frames: &[FrameId]) {
        let (children, place) = (self.children, self.layout().frames());
        let bytes = Arc::get_mut(&mut self.bytes).expect("it is nobody else's");
        let slots = (0..usize::from(self.count)).filter(|at| children >> at & 1 == 1);
        for (at, frame) in slots.zip(frames) {
            write::put_frame(bytes, place, at, *frame);
        }
    }

    /// The bytes that slot `at` takes for itself.
    pub(crate) fn body_bytes(&self, at: usize) -> usize {
        self.bodies(at..at + 1).len()
    }

    /// Where a byte string lies in the page whose path starts as those of all keys below slot `at` do.
    fn key_range(&self, at: usize) -> Range<usize> {
        let start = self.body(at).start;
        let length = usize::from(u16::from_le_bytes(*self.array(start)));
        let head = if self.is_child(at) { CHILD_HEAD } else { ENTRY_HEAD };
        start + head..start + head + length
    }

    /// A byte string whose path starts as those of all keys below slot `at` do.
    pub(crate) fn key(&self, at: usize) -> &[u8] {
        &self.bytes[self.key_range(at)]
    }

    /// The number of bits of [`key`](Self::key) that all keys below slot `at` share.
    pub(crate) fn bits_of(&self, at: usize) -> usize {
        if self.is_child(at) { self.child_bit(at).into() } else { usize::MAX }
    }

    fn child_bit(&self, at: usize) -> u16 {
        u16::from_le_bytes(*self.array(self.body(at).start + LENGTH))
    }

    /// Where the digests of the sides of the child in slot `at` lie, one behind the other.
    fn sides_at(&self, at: usize) -> usize {
        self.body(at).start + LENGTH + BIT
    }

    /// The digests of the sides of the child in slot `at`.
    fn sides(&self, at: usize) -> [Digest; 2] {
        let sides = self.sides_at(at);
        [Digest(*self.array(sides)), Digest(*self.array(sides + Digest::LEN))]
    }

    /// Where the value of the entry in slot `at` lies: in the page, or elsewhere.
    fn place_of_value(&self, at: usize) -> Result<Range<usize>, StoredValue> {
        let (body, key) = (self.body(at), self.key_range(at));
        match self.bytes[key.start - 1] {
            KIND_INLINE => Ok(key.end..body.end),
            _ => Err(read_stored(self.array(key.end))),
        }
    }

    /// The digest of what slot `at` stands for, if it starts at bit `start`.
    pub(crate) fn digest_from(&self, at: usize, start: usize) -> Digest {
        if !self.is_child(at) || self.start_of(&(at..at + 1)) == Some(start) {
            return self.digest(at);
        }
        self.digest_of_child(at, start, &self.sides(at))
    }

    /// The digest of the child in slot `at`, if it starts at bit `start` and has these sides.
    pub(super) fn digest_of_child(&self, at: usize, start: usize, sides: &[Digest; 2]) -> Digest {
        let [left, right] = sides;
        self.digest_of_branch(at, start..self.child_bit(at).into(), left, right)
    }

    /// The digest of a branch below which slot `at` lies.
    pub(super) fn digest_of_branch(
        &self,
        at: usize,
        segment: Range<usize>,
        left: &Digest,
        right: &Digest,
    ) -> Digest {
        // Keys are far away in memory, and hardly ever needed.
        let key = if segment.is_empty() { &[] } else { self.key(at) };
        hash::branch_below(key, segment, left, right)
    }

    /// The bit at which the subtree of some slots starts: behind that of its parent, which is the larger of
    /// those beside it. `None` for all slots: that is the parent page's affair.
    pub(crate) fn start_of(&self, slots: &Range<usize>) -> Option<usize> {
        let before = slots.start.checked_sub(1).map(|at| self.bit(at));
        let behind = (slots.end < self.count()).then(|| self.bit(slots.end - 1));
        before.max(behind).map(|bit| bit + 1)
    }

    /// The branch on top of two or more slots: the smallest bit between them.
    pub(crate) fn top(&self, slots: &Range<usize>) -> usize {
        top(self.bits(), slots).0
    }

    /// The only slot that `key` can be in, found by the bits of the key alone.
    ///
    /// From left to right, as in Ferguson's bit trees: behind a branch at which the key goes left, all are passed over
    /// that lie below it, which have larger bits. Written so that the processor has nothing to guess.
    pub(super) fn candidate(&self, key: &[u8]) -> usize {
        let (mut at, mut below) = (0, u16::MAX);
        for (branch, parts) in self.bits().iter().enumerate() {
            let parts = u16::from_le_bytes(*parts);
            let (is_on_way, goes_right) = (parts < below, bit(key, parts.into()));
            at = if is_on_way & goes_right { branch + 1 } else { at };
            let next = if goes_right { u16::MAX } else { parts };
            below = if is_on_way { next } else { below };
        }
        at
    }

    /// Where `key` belongs. If it parts from the only slot that it can be in, then it does at the edge of all slots
    /// that go on with that one there.
    pub(crate) fn locate(&self, key: &[u8]) -> Spot {
        let at = self.candidate(key);
        let parts = critical_bit(self.key(at), key).filter(|parts| *parts < self.bits_of(at));
        let Some(parts) = parts else { return Spot::Inside(at) };
        let goes_on = |at: &usize| self.bit(*at) > parts;
        if bit(key, parts) {
            Spot::Before(at + 1 + (at..self.count() - 1).take_while(goes_on).count())
        } else {
            Spot::Before(at - (0..at).rev().take_while(goes_on).count())
        }
    }

    /// Where `key` belongs: before slot `at`, into it, or behind it.
    pub(crate) fn side_of(&self, at: usize, key: &[u8]) -> Ordering {
        side_of(self.key(at), self.bits_of(at), key)
    }

    /// Slot `at`, copied out of the page.
    pub(crate) fn slot(&self, at: usize) -> Slot {
        if self.is_child(at) { Slot::Child(self.child(at)) } else { Slot::Entry(self.entry(at)) }
    }

    /// The child in slot `at`, copied out of the page.
    pub(crate) fn child(&self, at: usize) -> Child {
        let (bit, [left, right]) = (self.child_bit(at), self.sides(at));
        let prefix = Bytes::copy_from_slice(self.key(at));
        Child { prefix, bit, left, right, frame: self.frame(at).expect("it is a child") }
    }

    /// The entry in slot `at`, copied out of the page.
    pub(crate) fn entry(&self, at: usize) -> Entry {
        let key = Bytes::copy_from_slice(self.key(at));
        Entry { key, value: self.value(at), leaf: self.digest(at) }
    }

    /// The value of the entry in slot `at`, copied out of the page.
    pub(crate) fn value(&self, at: usize) -> Value {
        match self.value_bytes(at) {
            Ok(value) => Value::Inline(Bytes::copy_from_slice(value)),
            Err(stored) => Value::Stored(stored),
        }
    }

    /// The bytes of the value of the entry in slot `at`, if it lies in the page.
    pub(super) fn value_bytes(&self, at: usize) -> Result<&[u8], StoredValue> {
        self.place_of_value(at).map(|place| &self.bytes[place])
    }

    /// The digest of the value of the entry in slot `at`.
    pub(crate) fn value_digest(&self, at: usize) -> Digest {
        match self.value_bytes(at) {
            Ok(value) => Digest::of(value),
            Err(stored) => Digest(stored.digest),
        }
    }

    /// The bytes of key and value of the entry in slot `at`, as [`Entry::bytes`].
    pub(crate) fn content_bytes(&self, at: usize) -> u64 {
        let value = match self.place_of_value(at) {
            Ok(value) => value.len(),
            Err(stored) => stored.length as usize,
        };
        (self.key_range(at).len() + value) as u64
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..self.count()).map(|at| self.slot(at))
    }

    /// How many bytes of memory it takes.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.len()
    }

    /// The memory that it takes.
    pub(super) fn into_memory(self) -> Arc<[u8]> {
        self.bytes
    }

    /// The page as it is stored. `id` knows where its children are, or are about to be.
    pub(crate) fn encode(&self, id: &impl Fn(FrameId) -> PageId) -> Vec<u8> {
        let slot = |at| {
            let key = self.key(at);
            let Some(frame) = self.frame(at) else {
                let value = match self.value_bytes(at) {
                    Ok(value) => record::Value::Inline(value),
                    Err(stored) => record::Value::Stored(stored),
                };
                return record::Slot::Entry { key, value };
            };
            let (bit, [Digest(left), Digest(right)]) = (self.child_bit(at), self.sides(at));
            record::Slot::Child(record::Child { prefix: key, bit, left, right, page: id(frame) })
        };
        record::encode(&record::Page { slots: (0..self.count()).map(slot).collect() })
    }

    /// Reads the page that `child` stands for, and checks that it is that one: all its branches are
    /// computed again. It is given `memory` for so many bytes. Its children have no frames yet: their ids are given
    /// too.
    pub(super) fn decode(
        bytes: &[u8],
        child: &Child,
        id: PageId,
        memory: impl FnOnce(usize) -> Arc<[u8]>,
    ) -> Result<(Self, Vec<PageId>), Error> {
        let damaged = || Error::Damaged(Damage::Page(id));
        let record: record::Page<'_> = record::decode(bytes, Damage::Page(id))?;
        let mut below = Vec::new();
        let slots = record.slots.iter().map(|slot| {
            Slot::from_record(slot, |id| {
                below.push(id);
                FrameId::NONE
            })
        });
        let slots = slots.collect::<Option<Vec<_>>>().ok_or_else(damaged)?;
        let ordered = slots.windows(2).all(|pair| {
            critical_bit(pair[0].key(), pair[1].key())
                .is_some_and(|bit| bit < pair[0].bits().min(pair[1].bits()))
                && pair[0].key() < pair[1].key()
        });
        if !(2..=SLOTS_STORED_MAX).contains(&slots.len()) || !ordered {
            return Err(damaged());
        }
        // The bits before those of its own branches are under the parent's digests alone.
        let inside = side_of(&child.prefix, child.bit.into(), slots[0].key()).is_eq();
        let pieces = slots.into_iter().map(Piece::new).collect::<Vec<_>>();
        let plan = Plan::new(None, &pieces);
        let same = plan.top() == (child.bit, [child.left, child.right]);
        if same && inside { Ok((plan.write(memory(plan.length())), below)) } else { Err(damaged()) }
    }
}

fn read_stored(bytes: &[u8; STORED]) -> StoredValue {
    let mut bytes = &bytes[..];
    StoredValue {
        version: u64::from_le_bytes(take(&mut bytes)),
        index: u32::from_le_bytes(take(&mut bytes)),
        length: u32::from_le_bytes(take(&mut bytes)),
        digest: take(&mut bytes),
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (taken, rest) = bytes.split_first_chunk().expect("it is as long as its parts");
    *bytes = rest;
    *taken
}
