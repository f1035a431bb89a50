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
        Child, FrameId, Slot, Value,
        build::{Patch, Patched},
    },
};

/// Writes a page, part by part, into memory that is long enough.
pub(crate) struct PageWriter<'m> {
    memory: &'m mut [u8],
    /// Where the next part goes.
    end: usize,
    layout: Layout,
    /// The slots written so far.
    written: usize,
    children: u32,
}

/// The bytes of a page of so many slots, whose bodies take `bodies` bytes.
pub(crate) fn page_bytes(count: usize, has_children: bool, bodies: usize) -> usize {
    Layout { count, has_children }.bodies() + bodies
}

/// The bytes of a page that is like `old`, but for some patches.
pub(crate) fn patched_bytes(old: &Page, patches: &[(usize, Patch<'_>)]) -> usize {
    let mut length = old.length();
    for (at, patch) in patches {
        if let Patch::Entry(value, _) = patch {
            length = length + entry_bytes(old.key(*at), value) - old.body_bytes(*at);
        }
    }
    length
}

impl<'m> PageWriter<'m> {
    /// Begins a page with these branches and digests.
    pub(crate) fn new(
        memory: &'m mut [u8],
        bits: &[u16],
        (digests, hashes): (&[Digest], &[Digest]),
        has_children: bool,
    ) -> Self {
        let count = digests.len();
        assert!(bits.len() + 1 == count && hashes.len() + 1 == count && count <= SLOTS_STORED_MAX);
        let layout = Layout { count, has_children };
        let mut writer = PageWriter { memory, end: 0, layout, written: 0, children: 0 };
        for bit in bits {
            writer.put(&bit.to_le_bytes());
        }
        // The ends and frames are written slot by slot.
        writer.end = layout.digests();
        for digest in digests.iter().chain(hashes) {
            writer.put(&digest.0);
        }
        writer
    }

    /// A page like `old`, but for the bodies of some slots: which digests follow is still to be set.
    pub(crate) fn over(memory: &'m mut [u8], old: &Page, patches: &[(usize, Patch<'_>)]) -> Self {
        let stays = |(at, patch): &(usize, Patch<'_>)| match patch {
            Patch::Entry(value, _) => entry_bytes(old.key(*at), value) == old.body_bytes(*at),
            Patch::Child(_) => true,
        };
        let layout = old.layout();
        let mut writer = PageWriter { memory, end: 0, layout, written: 0, children: 0 };
        if patches.iter().all(stays) {
            writer.put(&old.bytes[..old.length()]);
            (writer.written, writer.children) = (old.count(), old.children);
            writer.patch_in_place(old, patches);
            return writer;
        }
        writer.put(&old.bytes[..layout.bodies()]);
        let mut next = 0;
        for (at, patch) in patches {
            if next < *at {
                writer.copy(old, next..*at);
            }
            match patch {
                Patch::Entry(value, _) => writer.push_entry(old.key(*at), value),
                Patch::Child(child) => {
                    let sides = writer.end + LENGTH + BIT;
                    writer.copy(old, *at..*at + 1);
                    writer.patch_child(*at, sides, child);
                }
            }
            next = at + 1;
        }
        if next < old.count() {
            writer.copy(old, next..old.count());
        }
        writer
    }

    /// Patches bodies that are as long as those before.
    fn patch_in_place(&mut self, old: &Page, patches: &[(usize, Patch<'_>)]) {
        for (at, patch) in patches {
            let (body, key) = (old.body(*at), old.key_range(*at));
            match patch {
                Patch::Entry(value, _) => {
                    let place = &mut self.memory[key.end..body.end];
                    bytes_of_value(value, |part, at| {
                        place[at..at + part.len()].copy_from_slice(part);
                    });
                    self.memory[key.start - 1] = kind_of(value);
                }
                Patch::Child(child) => self.patch_child(*at, old.sides_at(*at), child),
            }
        }
    }

    /// Notes what became of the child in slot `at`, whose sides stand at `sides`.
    fn patch_child(&mut self, at: usize, sides: usize, child: &Patched) {
        for (side, digest) in child.sides.iter().enumerate() {
            put_digest(self.memory, sides + side * Digest::LEN, digest);
        }
        put_frame(self.memory, self.layout.frames(), at, child.frame);
    }

    /// Appends some bytes.
    fn put(&mut self, bytes: &[u8]) {
        self.memory[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    pub(crate) fn set_digest(&mut self, at: usize, digest: &Digest) {
        put_digest(self.memory, self.layout.digests() + at * Digest::LEN, digest);
    }

    pub(crate) fn set_hash(&mut self, at: usize, digest: &Digest) {
        put_digest(self.memory, self.layout.hashes() + at * Digest::LEN, digest);
    }

    /// Writes the next slots as they are in `page`, at once.
    pub(crate) fn copy(&mut self, page: &Page, slots: Range<usize>) {
        let (from, bodies) = (page.bodies(slots.clone()), page.layout().bodies());
        let (start, moved) = (from.start, self.end - self.layout.bodies());
        self.put(&page.bytes[bodies + from.start..bodies + from.end]);
        let children = page.children >> slots.start & first_bits(slots.len());
        self.children |= children << self.written;
        let ends = self.layout.ends() + self.written * END;
        let ends = ends..ends + slots.len() * END;
        let ends = self.memory[ends].as_chunks_mut::<END>().0;
        for (new, old) in ends.iter_mut().zip(&page.ends()[slots.clone()]) {
            let end = u32::from_le_bytes(*old) as usize - start + moved;
            *new = u32::try_from(end).expect("pages are small").to_le_bytes();
        }
        for at in slots {
            self.put_frame(page.frame(at));
        }
    }

    /// Writes the next slot.
    pub(crate) fn push(&mut self, slot: &Slot) {
        match slot {
            Slot::Entry(entry) => self.push_entry(&entry.key, &entry.value),
            Slot::Child(Child { prefix, bit, left, right, frame }) => {
                self.put_length(prefix);
                self.put(&bit.to_le_bytes());
                self.put(&left.0);
                self.put(&right.0);
                self.put(prefix);
                self.children |= 1 << self.written;
                self.put_end(Some(*frame));
            }
        }
    }

    fn push_entry(&mut self, key: &[u8], value: &Value) {
        self.put_length(key);
        self.put(&[kind_of(value)]);
        self.put(key);
        bytes_of_value(value, |part, _| self.put(part));
        self.put_end(None);
    }

    fn put_length(&mut self, key: &[u8]) {
        let length = u16::try_from(key.len()).expect("keys have at most 1024 bytes");
        self.put(&length.to_le_bytes());
    }

    /// The next slot ends here; it is a child if it has a frame.
    fn put_end(&mut self, frame: Option<FrameId>) {
        let end = u32::try_from(self.end - self.layout.bodies()).expect("pages are small");
        let at = self.layout.ends() + self.written * END;
        self.memory[at..at + END].copy_from_slice(&end.to_le_bytes());
        self.put_frame(frame);
    }

    /// Notes the frame of the next slot, which is then written.
    fn put_frame(&mut self, frame: Option<FrameId>) {
        if self.layout.has_children {
            let frame = frame.unwrap_or(FrameId::NONE);
            put_frame(self.memory, self.layout.frames(), self.written, frame);
        }
        self.written += 1;
    }

    /// Ends the page: which slots of it are children, by their bits; and how many bytes it has.
    pub(crate) fn finish(self) -> (u32, usize) {
        let Layout { count, has_children } = self.layout;
        assert_eq!(self.written, count, "a page has the slots that it was begun with");
        assert_eq!(self.children > 0, has_children, "a page has room for frames if it has any");
        (self.children, self.end)
    }
}

impl Page {
    /// Writes a page of `count` slots into memory that nobody else has.
    pub(in crate::tree) fn written(
        mut memory: Arc<[u8]>,
        count: usize,
        write: impl FnOnce(&mut [u8]) -> (u32, usize),
    ) -> Self {
        let bytes = Arc::get_mut(&mut memory).expect("it is nobody else's");
        let (children, length) = write(bytes);
        let count = u8::try_from(count).expect("pages have few slots");
        let unused = u16::try_from(bytes.len() - length).expect("memory is hardly too long");
        Page { bytes: memory, children, count, has_children: children > 0, unused }
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

/// Writes the frame of slot `at` among all those of a page, which start at `frames`.
pub(super) fn put_frame(bytes: &mut [u8], frames: usize, at: usize, frame: FrameId) {
    let place = frames + at * FrameId::LEN;
    bytes[place..place + FrameId::LEN].copy_from_slice(&frame.to_le_bytes());
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
