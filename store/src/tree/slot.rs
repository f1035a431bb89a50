//! Slots: what a page holds, out of the page and as it is stored.

use std::cmp::Ordering;

use anwansi_proofs::{
    Digest, Version, hash,
    path::{BRANCH_BIT_MAX, KEY_BYTES_MAX, bit, critical_bit, is_key},
};
use bytes::Bytes;

use super::{FrameId, PageId, build::Patched};
use crate::{
    Damage,
    record::{self, INLINE_BYTES_MAX, StoredValue},
};

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
    pub(crate) frame: FrameId,
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

impl Child {
    /// The same place in the tree, with what became of its page.
    pub(crate) fn patched(self, Patched { sides: [left, right], frame }: Patched) -> Self {
        Child { left, right, frame, ..self }
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

    /// The digest of what is below, if it starts at bit `start`.
    pub(crate) fn digest(&self, start: usize) -> Digest {
        match self {
            Slot::Entry(entry) => entry.leaf,
            Slot::Child(Child { prefix, bit, left, right, .. }) => {
                hash::branch_below(prefix, start..usize::from(*bit), left, right)
            }
        }
    }

    /// The frame of the page, if it is a child.
    pub(crate) fn frame(&self) -> Option<FrameId> {
        match self {
            Slot::Entry(_) => None,
            Slot::Child(child) => Some(child.frame),
        }
    }

    /// Where `key` belongs: before this slot, into it, or behind it.
    pub(crate) fn side_of(&self, key: &[u8]) -> Ordering {
        side_of(self.key(), self.bits(), key)
    }

    /// As it is stored. `id` knows where the page is, or is about to be.
    pub(crate) fn to_record(&self, id: impl FnOnce(FrameId) -> PageId) -> record::Slot<'_> {
        match self {
            Slot::Entry(entry) => {
                record::Slot::Entry { key: &entry.key, value: entry.value.to_record() }
            }
            Slot::Child(child) => record::Slot::Child(record::Child {
                prefix: &child.prefix,
                bit: child.bit,
                left: child.left.0,
                right: child.right.0,
                page: id(child.frame),
            }),
        }
    }

    /// `None` if no slot could be written so. `frame` gives the page of a child one.
    pub(crate) fn from_record(
        slot: &record::Slot<'_>,
        frame: impl FnOnce(PageId) -> FrameId,
    ) -> Option<Self> {
        match slot {
            record::Slot::Entry { key, value } => {
                let value = Value::from_record(value)?;
                is_key(key).then(|| Slot::Entry(Entry::new(Bytes::copy_from_slice(key), value)))
            }
            record::Slot::Child(child) => {
                let record::Child { prefix, bit, left, right, page } = *child;
                if prefix.len() > KEY_BYTES_MAX || !(1..=BRANCH_BIT_MAX).contains(&bit.into()) {
                    return None;
                }
                Some(Slot::Child(Child {
                    prefix: Bytes::copy_from_slice(prefix),
                    bit,
                    left: Digest(left),
                    right: Digest(right),
                    frame: frame(page),
                }))
            }
        }
    }
}

/// Where `key` belongs beside the keys whose paths start with the first `bits` bits of that of `prefix`.
pub(super) fn side_of(prefix: &[u8], bits: usize, key: &[u8]) -> Ordering {
    match critical_bit(prefix, key) {
        Some(at) if at < bits && bit(key, at) => Ordering::Greater,
        Some(at) if at < bits => Ordering::Less,
        _ => Ordering::Equal,
    }
}

impl StoredValue {
    /// What to say if the value is not there.
    pub(crate) fn damage(&self) -> Damage {
        Damage::Value { version: Version(self.version), index: self.index }
    }
}
