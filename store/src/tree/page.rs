//! Pages: their slots, their branches, their bytes.

use std::fmt;
use std::sync::Arc;

use anwansi_proofs::{
    Digest, Version, hash,
    path::{critical_bit, is_key, pack},
};
use bytes::Bytes;

use super::Link;
use crate::{
    Damage, Error,
    record::{self, INLINE_BYTES_MAX, StoredValue},
};

/// The most slots of a page.
pub(crate) const SLOTS_MAX: usize = 32;
/// A child page with fewer slots goes back into its parent.
pub(crate) const SLOTS_JOIN: usize = SLOTS_MAX / 4;

/// A piece of a tree. It has at least two slots, so it has a top branch.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) slots: Vec<Slot>,
    /// The bit of the branch between each slot and the next.
    pub(crate) bits: Vec<u16>,
    /// The digest of that branch; of the top one, which depends on where the page starts, nothing.
    pub(crate) hashes: Vec<Digest>,
}

#[derive(Clone, Debug)]
pub(crate) enum Slot {
    Entry(Entry),
    Child(Child),
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Bytes,
    pub(crate) value: Value,
    /// The digest of the leaf.
    pub(crate) leaf: Digest,
}

/// A value, or where it lies.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Inline(Bytes),
    Stored(StoredValue),
}

/// A child page, as its parent knows it without opening it.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    /// A byte string whose path starts with the bits before `bit`.
    pub(crate) prefix: Bytes,
    /// The bit of the child's top branch.
    pub(crate) bit: u16,
    /// The digests of the two sides of that branch.
    pub(crate) left: Digest,
    pub(crate) right: Digest,
    pub(crate) link: Arc<Link>,
}

/// Where a page is stored: a place in a chunk. Ids are never reused for other bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

impl Value {
    pub(crate) fn digest(&self) -> Digest {
        match self {
            Value::Inline(value) => Digest::of(value),
            Value::Stored(stored) => Digest(stored.digest),
        }
    }

    /// In bytes.
    pub(crate) fn length(&self) -> usize {
        match self {
            Value::Inline(value) => value.len(),
            Value::Stored(stored) => stored.length as usize,
        }
    }

    pub(crate) fn to_record(&self) -> record::Value<'_> {
        match self {
            Value::Inline(value) => record::Value::Inline(value),
            Value::Stored(stored) => record::Value::Stored(*stored),
        }
    }

    /// `None` if it is longer than values in a record are.
    pub(crate) fn from_record(value: &record::Value<'_>) -> Option<Self> {
        match value {
            record::Value::Inline(value) if value.len() <= INLINE_BYTES_MAX => {
                Some(Value::Inline(Bytes::copy_from_slice(value)))
            }
            record::Value::Inline(_) => None,
            record::Value::Stored(stored) => Some(Value::Stored(*stored)),
        }
    }
}

impl Entry {
    pub(crate) fn new(key: Bytes, value: Value) -> Self {
        let leaf = hash::leaf(&key, &value.digest());
        Entry { key, value, leaf }
    }

    /// Of key and value, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        (self.key.len() + self.value.length()) as u64
    }
}

impl Slot {
    /// A byte string whose path starts as those of all keys below do.
    pub(crate) fn key(&self) -> &Bytes {
        match self {
            Slot::Entry(entry) => &entry.key,
            Slot::Child(child) => &child.prefix,
        }
    }

    /// The number of bits of [`key`](Self::key) that all keys below share.
    pub(crate) fn bits(&self) -> usize {
        match self {
            Slot::Entry(_) => usize::MAX,
            Slot::Child(child) => child.bit.into(),
        }
    }

    /// As it is stored. `placed` knows the pages that are on their way to storage.
    pub(crate) fn to_record(&self, placed: &impl Fn(&Child) -> Option<PageId>) -> record::Slot<'_> {
        match self {
            Slot::Entry(entry) => {
                record::Slot::Entry { key: &entry.key, value: entry.value.to_record() }
            }
            Slot::Child(child) => {
                let id = child.link.id().or_else(|| placed(child));
                let id = id.expect("children are written before their parents");
                record::Slot::Child(record::Child {
                    prefix: &child.prefix,
                    bit: child.bit,
                    left: child.left.0,
                    right: child.right.0,
                    epoch: id.epoch,
                    chunk: id.chunk,
                    offset: id.offset,
                    length: id.length,
                })
            }
        }
    }

    /// `None` if no slot could be written so.
    pub(crate) fn from_record(slot: &record::Slot<'_>) -> Option<Self> {
        match slot {
            record::Slot::Entry { key, value } => {
                let value = Value::from_record(value)?;
                is_key(key).then(|| Slot::Entry(Entry::new(Bytes::copy_from_slice(key), value)))
            }
            record::Slot::Child(child) => {
                let record::Child { prefix, bit, left, right, epoch, chunk, offset, length } =
                    *child;
                Some(Slot::Child(Child {
                    prefix: Bytes::copy_from_slice(prefix),
                    bit,
                    left: Digest(left),
                    right: Digest(right),
                    link: Arc::new(Link::stored(PageId { epoch, chunk, offset, length })),
                }))
            }
        }
    }
}

impl Page {
    /// Makes a page of two slots or more, and computes its branches.
    ///
    /// Gives the page, the bit of its top branch and the digests of that branch's sides.
    pub(crate) fn new(slots: Vec<Slot>) -> (Page, u16, [Digest; 2]) {
        let bits = parting_bits(&slots);
        let mut page = Page { hashes: vec![Digest::ZERO; bits.len()], slots, bits };
        let (top, sides) = page.fold();
        let bit = page.bits[top];
        (page, bit, sides)
    }

    /// Computes the digests of all branches but the top one. Gives the top one and its sides' digests.
    ///
    /// One pass from left to right: `open` holds the branches whose right side is still growing, top
    /// first, each with the digest of its left side.
    fn fold(&mut self) -> (usize, [Digest; 2]) {
        let mut open: Vec<(usize, Digest)> = Vec::with_capacity(self.bits.len());
        let mut last = None;
        for at in 0..self.slots.len() {
            // What ends at slot `at` closes down to the branch behind it; the last one closes all.
            let next = self.bits.get(at).map(|bit| usize::from(*bit) + 1);
            while let Some((branch, left)) = open.pop_if(|(branch, _)| {
                next.is_none_or(|next| usize::from(self.bits[*branch]) >= next)
            }) {
                let right = self.place(at, last, usize::from(self.bits[branch]) + 1);
                last = Some((branch, [left, right]));
            }
            if let Some(next) = next {
                let left = self.place(at, last, next);
                open.push((at, left));
                last = None;
            }
        }
        last.expect("a page has two slots or more")
    }

    /// The digest at bit `start` of the subtree that ends with slot `at`: of the branch `top`, or else
    /// the slot itself.
    fn place(&mut self, at: usize, top: Option<(usize, [Digest; 2])>, start: usize) -> Digest {
        let Some((branch, [left, right])) = top else { return self.slots[at].digest(start) };
        let bit = usize::from(self.bits[branch]);
        let segment = pack(self.slots[at].key(), start..bit);
        self.hashes[branch] = hash::branch(&segment, bit - start, &left, &right);
        self.hashes[branch]
    }

    /// About how many bytes of memory it takes.
    pub(crate) fn memory(&self) -> usize {
        let of_slot = |slot: &Slot| {
            size_of::<Slot>()
                + match slot {
                    Slot::Entry(Entry { key, value: Value::Inline(value), .. }) => {
                        key.len() + value.len() + 2 * BYTES_OVERHEAD
                    }
                    Slot::Entry(entry) => entry.key.len() + BYTES_OVERHEAD,
                    Slot::Child(child) => child.prefix.len() + BYTES_OVERHEAD + size_of::<Link>(),
                }
        };
        self.slots.iter().map(of_slot).sum::<usize>() + self.bits.len() * 34 + size_of::<Page>()
    }

    /// The page as it is stored.
    pub(crate) fn encode(&self, placed: &impl Fn(&Child) -> Option<PageId>) -> Vec<u8> {
        let slots = self.slots.iter().map(|slot| slot.to_record(placed)).collect();
        record::encode(&record::Page { slots })
    }

    /// Reads the page that `child` stands for, and checks that it is that one: all its branches are
    /// computed again.
    pub(crate) fn decode(bytes: &[u8], child: &Child, id: PageId) -> Result<Self, Error> {
        let damaged = || Error::Damaged(Damage::Page(id));
        let record: record::Page<'_> = record::decode(bytes, Damage::Page(id))?;
        let slots = record.slots.iter().map(Slot::from_record);
        let slots = slots.collect::<Option<Vec<_>>>().ok_or_else(damaged)?;
        let ordered = slots.windows(2).all(|pair| {
            critical_bit(pair[0].key(), pair[1].key())
                .is_some_and(|bit| bit < pair[0].bits().min(pair[1].bits()))
                && pair[0].key() < pair[1].key()
        });
        if slots.len() < 2 || !ordered {
            return Err(damaged());
        }
        let (page, bit, sides) = Page::new(slots);
        let same = (bit, sides) == (child.bit, [child.left, child.right]);
        if same { Ok(page) } else { Err(damaged()) }
    }
}

/// What the allocator and the counts of a shared byte string take, about.
const BYTES_OVERHEAD: usize = 48;

/// The bit of the branch between each slot and the next.
pub(crate) fn parting_bits(slots: &[Slot]) -> Vec<u16> {
    let bit = |pair: &[Slot]| {
        let bit = critical_bit(pair[0].key(), pair[1].key()).expect("slots differ");
        u16::try_from(bit).expect("paths part at bit 9215 or before")
    };
    slots.windows(2).map(bit).collect()
}

/// The child of a page's new slots: pages of at most [`SLOTS_MAX`] slots, cut where the tree is in
/// balance.
pub(crate) fn pack_slots(mut slots: Vec<Slot>) -> Child {
    while slots.len() > SLOTS_MAX {
        let (first, last) = nearest_to_half(&parting_bits(&slots));
        let below = slots.splice(first..=last, []).collect();
        let child = pack_slots(below);
        slots.insert(first, Slot::Child(child));
    }
    let (page, bit, [left, right]) = Page::new(slots);
    let prefix = page.slots[0].key();
    // Only the bits before `bit` are shared, and only they are kept.
    let length = prefix.len().min(usize::from(bit).div_ceil(9));
    let prefix = Bytes::copy_from_slice(&prefix[..length]);
    Child { prefix, bit, left, right, link: Arc::new(Link::fresh(page)) }
}

/// Of the subtrees below the top branch, the one whose number of slots is nearest to half of them: its
/// first and last slot.
fn nearest_to_half(bits: &[u16]) -> (usize, usize) {
    let slots = bits.len() + 1;
    // A branch reaches to both sides as far as all bits are larger than its own.
    let mut first = vec![0; bits.len()];
    let mut last = vec![bits.len(); bits.len()];
    let mut open: Vec<usize> = Vec::new();
    for (at, bit) in bits.iter().enumerate() {
        while let Some(above) = open.pop_if(|above| bits[*above] > *bit) {
            last[above] = at;
        }
        first[at] = open.last().map_or(0, |above| above + 1);
        open.push(at);
    }
    let sizes = first.into_iter().zip(last).filter(|(first, last)| last - first + 1 < slots);
    sizes
        .min_by_key(|(first, last)| (2 * (last - first + 1)).abs_diff(slots))
        .expect("a tree of more than two slots has a branch below the top")
}

impl StoredValue {
    /// What to say if the value is not there.
    pub(crate) fn damage(&self) -> Damage {
        Damage::Value { version: Version(self.version), index: self.index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_takes_the_subtree_nearest_to_half() {
        // Branches between seven slots: the top at bit 1, on its left 4 slots, on its right 3.
        assert_eq!(nearest_to_half(&[9, 5, 7, 1, 4, 3]), (0, 3));
        // A chain: every branch has one slot on its left.
        assert_eq!(nearest_to_half(&[1, 2, 3, 4, 5, 6, 7]), (4, 7));
    }

    fn child_of(values: std::ops::Range<u8>) -> Child {
        let entry = |i: u8| {
            let value = Value::Inline(Bytes::copy_from_slice(&[i; 3]));
            Slot::Entry(Entry::new(Bytes::copy_from_slice(&[3 * i, i]), value))
        };
        pack_slots(values.map(entry).collect())
    }

    #[test]
    fn stored_page_is_refused_if_any_byte_is_changed() {
        let child = child_of(0..20);
        let page = child.link.loaded().expect("fresh pages are in memory");
        let bytes = page.encode(&|_| None);
        let id = PageId { epoch: 1, chunk: 2, offset: 3, length: 4 };
        let again = Page::decode(&bytes, &child, id).unwrap();
        assert_eq!(again.hashes, page.hashes);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Page::decode(&changed, &child, id).is_err(), "byte {at}");
            assert!(Page::decode(&bytes[..at], &child, id).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn whole_page_in_the_place_of_another_is_refused() {
        let (one, other) = (child_of(0..20), child_of(0..19));
        let page = other.link.loaded().expect("fresh pages are in memory");
        let id = PageId { epoch: 1, chunk: 2, offset: 3, length: 4 };
        assert!(Page::decode(&page.encode(&|_| None), &other, id).is_ok());
        assert!(Page::decode(&page.encode(&|_| None), &one, id).is_err());
    }
}
