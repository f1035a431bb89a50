//! From one version's tree to the next one's.

use std::{cmp::Ordering, sync::Arc};

use anwansi_proofs::path::{bit, critical_bit};
use bytes::Bytes;

use super::{
    Child, Entry, Pages, Slot, Tree, Value,
    page::{SLOTS_JOIN, pack_slots},
};
use crate::{Error, record};

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
}

impl Tree {
    /// The tree after `writes`, which stand in strictly ascending key order.
    ///
    /// Pages that only this tree has are taken apart and used again; shared ones are copied.
    ///
    /// # Errors
    /// If a page cannot be read: the tree is then lost.
    pub(crate) fn update(self, pages: &Pages, writes: &[Write]) -> Result<Tree, Error> {
        let mut update = Update { pages, entries: self.entries, bytes: self.bytes };
        let mut top = Vec::with_capacity(1);
        let slots = update.merge(self.top.into_iter().collect(), writes)?;
        match slots.len() {
            0 | 1 => top = slots,
            _ => top.push(Slot::Child(pack_slots(slots))),
        }
        Ok(Tree { top: top.pop(), entries: update.entries, bytes: update.bytes })
    }
}

struct Update<'a> {
    pages: &'a Pages,
    entries: u64,
    bytes: u64,
}

impl Update<'_> {
    /// The slots of one page after `writes`, all of which fall into it. Recurses from page to page.
    fn merge(&mut self, slots: Vec<Slot>, mut writes: &[Write]) -> Result<Vec<Slot>, Error> {
        let mut merged = Vec::with_capacity(slots.len() + writes.len());
        for slot in slots {
            let before = writes.partition_point(|write| slot.side_of(&write.key).is_lt());
            let (ahead, rest) = writes.split_at(before);
            self.put(ahead, &mut merged);
            let inside = rest.partition_point(|write| slot.side_of(&write.key).is_le());
            let (inside, rest) = rest.split_at(inside);
            writes = rest;
            match slot {
                _ if inside.is_empty() => merged.push(slot),
                Slot::Entry(entry) => {
                    self.entries -= 1;
                    self.bytes -= entry.bytes();
                    self.put(inside, &mut merged);
                }
                Slot::Child(child) => {
                    let mut below = self.slots_of(child)?;
                    below = self.merge(below, inside)?;
                    if below.len() < SLOTS_JOIN {
                        merged.append(&mut below);
                    } else {
                        merged.push(Slot::Child(pack_slots(below)));
                    }
                }
            }
        }
        self.put(writes, &mut merged);
        Ok(merged)
    }

    /// Appends the new entries among `writes`.
    fn put(&mut self, writes: &[Write], merged: &mut Vec<Slot>) {
        for Write { key, value } in writes {
            if let Some(value) = value {
                let entry = Entry::new(key.clone(), value.clone());
                self.entries += 1;
                self.bytes += entry.bytes();
                merged.push(Slot::Entry(entry));
            }
        }
    }

    /// The slots below `child`, taken out of its page if nobody else has it.
    fn slots_of(&self, child: Child) -> Result<Vec<Slot>, Error> {
        let page = match child.link.loaded() {
            // It is about to be replaced: no need to keep it in the cache.
            None => return Ok(self.pages.read(&child)?.slots),
            Some(page) => match Arc::try_unwrap(child.link) {
                Ok(link) => {
                    drop(page);
                    link.into_page().expect("it was in memory, and nobody else could drop it")
                }
                Err(_) => page,
            },
        };
        Ok(match Arc::try_unwrap(page) {
            Ok(page) => page.slots,
            Err(page) => page.slots.clone(),
        })
    }
}

impl Slot {
    /// Where `key` belongs: before this slot, into it, or behind it.
    pub(crate) fn side_of(&self, key: &[u8]) -> Ordering {
        match critical_bit(self.key(), key) {
            Some(at) if at < self.bits() => {
                if bit(key, at) {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
            _ => Ordering::Equal,
        }
    }
}
