//! Writing a page: anew, or over an older one.

use std::{ops::Range, sync::Arc};

use anwansi_proofs::Digest;

use super::{
    BIT, CHILD_HEAD, END, ENTRY_HEAD, KIND_INLINE, KIND_STORED, LENGTH, Layout, Page,
    SLOTS_STORED_MAX, STORED, first_bits,
};
use crate::{
    record::StoredValue,
    tree::{
        Child, Link, Slot, Value,
        build::{Patch, Patched},
    },
};

/// Writes a page, part by part.
pub(crate) struct PageWriter {
    bytes: Vec<u8>,
    layout: Layout,
    /// The slots written so far.
    written: usize,
    children: u32,
    links: Vec<Arc<Link>>,
}

impl PageWriter {
    /// Begins a page with these branches and digests; `bodies` is how many bytes its bodies take.
    pub(crate) fn new(bits: &[u16], digests: &[Digest], hashes: &[Digest], bodies: usize) -> Self {
        let count = digests.len();
        assert!(bits.len() + 1 == count && hashes.len() + 1 == count && count <= SLOTS_STORED_MAX);
        let layout = Layout { count };
        let mut bytes = Vec::with_capacity(layout.bodies() + bodies);
        for bit in bits {
            bytes.extend(bit.to_le_bytes());
        }
        for digest in digests.iter().chain(hashes) {
            bytes.extend(digest.0);
        }
        bytes.resize(layout.bodies(), 0);
        PageWriter { bytes, layout, written: 0, children: 0, links: Vec::new() }
    }

    /// A page like `old`, but for the bodies of some slots: which digests follow is still to be set.
    pub(crate) fn over(old: &Page, patches: &[(usize, Patch<'_>)]) -> Self {
        let stays = |(at, patch): &(usize, Patch<'_>)| match patch {
            Patch::Entry(value, _) => entry_bytes(old.key(*at), value) == old.body_bytes(*at),
            Patch::Child(_) => true,
        };
        if patches.iter().all(stays) {
            return Self::in_place(old, patches);
        }
        let layout = old.layout();
        let (mut length, mut replaced) = (old.bytes.len(), 0);
        for (at, patch) in patches {
            if let Patch::Entry(value, _) = patch {
                length += entry_bytes(old.key(*at), value);
                replaced += old.body_bytes(*at);
            }
        }
        let mut bytes = Vec::with_capacity(length - replaced);
        bytes.extend_from_slice(&old.bytes[..layout.bodies()]);
        let links = Vec::with_capacity(old.links.len());
        let mut writer = PageWriter { bytes, layout, written: 0, children: 0, links };
        let mut next = 0;
        for (at, patch) in patches {
            if next < *at {
                writer.copy(old, next..*at);
            }
            match patch {
                Patch::Entry(value, _) => writer.push_entry(old.key(*at), value),
                Patch::Child(Patched { sides, link }) => {
                    writer.copy(old, *at..*at + 1);
                    let body = writer.bytes.len() - old.body_bytes(*at);
                    put_sides(&mut writer.bytes, body + LENGTH + BIT, sides);
                    *writer.links.last_mut().expect("a child was copied") = link.clone();
                }
            }
            next = at + 1;
        }
        if next < old.count {
            writer.copy(old, next..old.count);
        }
        writer
    }

    /// The same, for bodies that are as long as those before: copied all at once.
    fn in_place(old: &Page, patches: &[(usize, Patch<'_>)]) -> Self {
        let mut bytes = old.bytes.to_vec();
        let mut links = Vec::with_capacity(old.links.len());
        for (at, patch) in patches {
            let (body, key) = (old.body(*at), old.key_range(*at));
            match patch {
                Patch::Entry(value, _) => {
                    let place = &mut bytes[key.end..body.end];
                    bytes_of_value(value, |part, at| {
                        place[at..at + part.len()].copy_from_slice(part);
                    });
                    bytes[key.start - 1] = kind_of(value);
                }
                Patch::Child(Patched { sides, link }) => {
                    put_sides(&mut bytes, old.sides_at(*at), sides);
                    links.extend_from_slice(&old.links[links.len()..old.link_at(*at)]);
                    links.push(link.clone());
                }
            }
        }
        links.extend_from_slice(&old.links[links.len()..]);
        let (layout, written, children) = (old.layout(), old.count, old.children);
        PageWriter { bytes, layout, written, children, links }
    }

    pub(crate) fn set_digest(&mut self, at: usize, digest: &Digest) {
        put_digest(&mut self.bytes, self.layout.digests() + at * Digest::LEN, digest);
    }

    pub(crate) fn set_hash(&mut self, at: usize, digest: &Digest) {
        put_digest(&mut self.bytes, self.layout.hashes() + at * Digest::LEN, digest);
    }

    /// Writes the next slots as they are in `page`, at once.
    pub(crate) fn copy(&mut self, page: &Page, slots: Range<usize>) {
        let (from, bodies) = (page.bodies(slots.clone()), page.layout().bodies());
        let (start, moved) = (from.start, self.bytes.len() - self.layout.bodies());
        self.bytes.extend_from_slice(&page.bytes[bodies + from.start..bodies + from.end]);
        let links = page.link_at(slots.start)..page.link_at(slots.end);
        self.links.extend_from_slice(&page.links[links]);
        let children = page.children >> slots.start & first_bits(slots.len());
        self.children |= children << self.written;
        let ends = self.layout.ends() + self.written * END;
        let ends = ends..ends + slots.len() * END;
        self.written += slots.len();
        let ends = self.bytes[ends].as_chunks_mut::<END>().0;
        for (new, old) in ends.iter_mut().zip(&page.ends()[slots]) {
            let end = u32::from_le_bytes(*old) as usize - start + moved;
            *new = u32::try_from(end).expect("pages are small").to_le_bytes();
        }
    }

    /// Writes the next slot.
    pub(crate) fn push(&mut self, slot: &Slot) {
        match slot {
            Slot::Entry(entry) => self.push_entry(&entry.key, &entry.value),
            Slot::Child(Child { prefix, bit, left, right, link }) => {
                self.length(prefix);
                self.bytes.extend(bit.to_le_bytes());
                self.bytes.extend(left.0);
                self.bytes.extend(right.0);
                self.bytes.extend_from_slice(prefix);
                self.children |= 1 << self.written;
                self.links.push(link.clone());
                self.ended(self.bytes.len() - self.layout.bodies());
            }
        }
    }

    fn push_entry(&mut self, key: &[u8], value: &Value) {
        self.length(key);
        self.bytes.push(kind_of(value));
        self.bytes.extend_from_slice(key);
        bytes_of_value(value, |part, _| self.bytes.extend_from_slice(part));
        self.ended(self.bytes.len() - self.layout.bodies());
    }

    fn length(&mut self, key: &[u8]) {
        let length = u16::try_from(key.len()).expect("keys have at most 1024 bytes");
        self.bytes.extend(length.to_le_bytes());
    }

    /// The next slot ends here.
    fn ended(&mut self, end: usize) {
        let end = u32::try_from(end).expect("pages are small");
        let at = self.layout.ends() + self.written * END;
        self.bytes[at..at + END].copy_from_slice(&end.to_le_bytes());
        self.written += 1;
    }

    pub(crate) fn finish(self) -> Page {
        let PageWriter { bytes, layout: Layout { count }, written, children, links } = self;
        assert_eq!(written, count, "a page has the slots that it was begun with");
        Page { bytes: bytes.into(), count, children, links: links.into() }
    }
}

/// The bytes that an entry takes for itself in a page.
fn entry_bytes(key: &[u8], value: &Value) -> usize {
    let value = match value {
        Value::Inline(value) => value.len(),
        Value::Stored(_) => STORED,
    };
    ENTRY_HEAD + key.len() + value
}

fn put_digest(bytes: &mut [u8], at: usize, digest: &Digest) {
    bytes[at..at + Digest::LEN].copy_from_slice(&digest.0);
}

fn put_sides(bytes: &mut [u8], at: usize, [left, right]: &[Digest; 2]) {
    put_digest(bytes, at, left);
    put_digest(bytes, at + Digest::LEN, right);
}

/// The bytes that a slot takes for itself in a page.
pub(in crate::tree) fn body_bytes(slot: &Slot) -> usize {
    match slot {
        Slot::Entry(entry) => entry_bytes(&entry.key, &entry.value),
        Slot::Child(child) => CHILD_HEAD + child.prefix.len(),
    }
}

fn kind_of(value: &Value) -> u8 {
    match value {
        Value::Inline(_) => KIND_INLINE,
        Value::Stored(_) => KIND_STORED,
    }
}

/// Hands over the bytes that stand for a value in a page, part by part, each with its place.
fn bytes_of_value(value: &Value, mut write: impl FnMut(&[u8], usize)) {
    match value {
        Value::Inline(value) => write(value, 0),
        Value::Stored(StoredValue { version, index, length, digest }) => {
            write(&version.to_le_bytes(), 0);
            write(&index.to_le_bytes(), 8);
            write(&length.to_le_bytes(), 12);
            write(digest, 16);
        }
    }
}
