//! Memory for pages, all of it counted.
//!
//! Memory that a page no longer needs is kept for the next one of about that size: a store in steady state hardly
//! asks the allocator for any. It counts against the budget like that of pages, for an allocator that has pages of
//! many sizes and ages gives hardly any of it back.

use std::{
    hint, iter,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What the counts of shared memory take in front of it, in bytes.
const COUNTS: usize = 2 * size_of::<usize>();
/// The least memory for a page together with these counts.
const BYTES_MIN: usize = 256;
/// A page may have memory that is so many sizes too large: by three fifths, if none of its own size is left.
const SIZES_TOO_LARGE: usize = 2;
/// From this part of the budget on, what is spare goes back to the allocator if other sizes are needed.
const SPARE_PART: usize = 8;

/// Memory for a page of so many bytes. There are four sizes from one power of two to the next, counts included,
/// as most allocators have them: so hardly any of it is wasted twice.
pub(super) fn memory(length: usize) -> Arc<[u8]> {
    iter::repeat_n(0, bytes_for(length)).collect()
}

/// How many bytes of memory a page of so many bytes is given.
fn bytes_for(length: usize) -> usize {
    let bytes = (length + COUNTS).max(BYTES_MIN);
    bytes.next_multiple_of(bytes.next_power_of_two() / 8) - COUNTS
}

/// Numbers the sizes of memory.
fn size(length: usize) -> usize {
    let last = (length + COUNTS).max(BYTES_MIN) - 1;
    let power = last.ilog2();
    (4 * power) as usize + (last >> (power - 2) & 3)
}

/// Memory that no page has, by its size. A reader may still have one that had it.
#[derive(Debug, Default)]
pub(super) struct Spare {
    sizes: Vec<Vec<Arc<[u8]>>>,
    bytes: usize,
}

impl Spare {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, memory: Arc<[u8]>) {
        let size = size(memory.len());
        if self.sizes.len() <= size {
            self.sizes.resize_with(size + 1, Vec::new);
        }
        self.bytes += memory.len();
        self.sizes[size].push(memory);
    }

    /// For a page of so many bytes.
    pub(super) fn pop(&mut self, length: usize) -> Option<Arc<[u8]>> {
        self.pop_of(size(length))
    }

    fn pop_of(&mut self, size: usize) -> Option<Arc<[u8]>> {
        let memory = self.sizes.get_mut(size)?.pop()?;
        self.bytes -= memory.len();
        Some(memory)
    }

    /// Some of the size of which there is most.
    fn pop_of_most(&mut self) -> Option<Arc<[u8]>> {
        let bytes =
            |memory: &Vec<Arc<[u8]>>| memory.len() * memory.first().map_or(0, |it| it.len());
        let most = self.sizes.iter().enumerate().max_by_key(|(_, memory)| bytes(memory))?.0;
        self.pop_of(most)
    }
}

/// All memory for the pages of a store.
#[derive(Debug)]
pub(super) struct Memory {
    spare: Mutex<Spare>,
    /// Bytes of all that there is.
    all: AtomicUsize,
    /// Bytes of what is spare.
    spare_bytes: AtomicUsize,
    /// The budget, in bytes.
    bytes_max: usize,
}

impl Memory {
    pub(super) fn new(bytes_max: usize) -> Self {
        let (spare, all, spare_bytes) = <_>::default();
        Memory { spare, all, spare_bytes, bytes_max }
    }

    /// The budget, in bytes.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Bytes of the memory that pages have.
    pub(super) fn used(&self) -> usize {
        let all = self.all.load(Ordering::Relaxed);
        all.saturating_sub(self.spare_bytes.load(Ordering::Relaxed))
    }

    /// Holds the spare memory while `change` is made to it.
    fn change<T>(&self, change: impl FnOnce(&mut Spare) -> T) -> T {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut spare);
        self.spare_bytes.store(spare.bytes, Ordering::Relaxed);
        result
    }

    /// Memory for pages of so many bytes: for one at least and at most `count`, which is not 0. None if there has to
    /// be room for it first.
    pub(super) fn take(&self, length: usize, count: usize) -> Vec<Arc<[u8]>> {
        let bytes = bytes_for(length);
        let mut dropped = Vec::new();
        let mut taken = self.change(|spare| {
            let taken = iter::from_fn(|| spare.pop(length)).take(count).collect::<Vec<_>>();
            if !taken.is_empty() || self.has_room(bytes) {
                return taken;
            }
            let too_large = size(length) + 1..=size(length) + SIZES_TOO_LARGE;
            let taken = too_large.filter_map(|size| spare.pop_of(size)).take(1).collect::<Vec<_>>();
            let is_much = |spare: &Spare| spare.bytes > self.bytes_max / SPARE_PART;
            while taken.is_empty() && is_much(spare) && !self.has_room(bytes) {
                let Some(memory) = spare.pop_of_most() else { break };
                self.all.fetch_sub(memory.len(), Ordering::Relaxed);
                dropped.push(memory);
            }
            taken
        });
        drop(dropped);
        let counts = taken.iter().map(Arc::strong_count);
        hint::black_box(counts.sum::<usize>());
        for taken in &mut taken {
            // A reader may still have it: then it is his.
            if Arc::get_mut(taken).is_none() {
                *taken = memory(taken.len());
            }
        }
        if taken.is_empty() && self.has_room(bytes) {
            taken.push(self.allocate(length));
        }
        taken
    }

    /// Whether there may be so many bytes more.
    fn has_room(&self, bytes: usize) -> bool {
        self.all.load(Ordering::Relaxed) + bytes <= self.bytes_max
    }

    /// New memory for a page of so many bytes, whether there is room for it or not.
    pub(super) fn allocate(&self, length: usize) -> Arc<[u8]> {
        let memory = memory(length);
        self.all.fetch_add(memory.len(), Ordering::Relaxed);
        memory
    }

    /// Takes memory back. What is too much for the budget is dropped, of the size of which there is most.
    pub(super) fn give_back(&self, back: Spare) {
        let mut dropped = Vec::new();
        self.change(|spare| {
            back.sizes.into_iter().flatten().for_each(|memory| spare.push(memory));
            while !self.has_room(0) {
                let Some(memory) = spare.pop_of_most() else { break };
                self.all.fetch_sub(memory.len(), Ordering::Relaxed);
                dropped.push(memory);
            }
        });
    }
}

#[cfg(test)]
impl Memory {
    /// Bytes of what is spare.
    pub(super) fn spare(&self) -> usize {
        self.change(|spare| {
            let bytes = spare.sizes.iter().flatten().map(|memory| memory.len()).sum();
            assert_eq!(bytes, spare.bytes);
            bytes
        })
    }
}
