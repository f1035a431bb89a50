//! Frames: where pages lie in memory, or are known to lie in storage.
//!
//! A page knows its children by the numbers of their frames, which are copied with its other bytes: nothing is
//! counted up when a page is copied, nor down when it goes. Which tree needs which frame follows from when a page
//! was made and when it was replaced (`lineage.rs`). A frame that is free keeps its memory for the next page of
//! about that size: a store in steady state hardly asks the allocator for any.

use std::{
    hint, iter, mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{Page, PageId};

/// What the counts of shared memory take in front of it, in bytes.
const COUNTS: usize = 2 * size_of::<usize>();
/// The least memory for a page together with these counts.
const MEMORY_MIN: usize = 256;
/// The frames of one segment of the table, and how many segments there may be: enough for billions of entries.
const SEGMENT: usize = 1 << 13;
const SEGMENTS: usize = 1 << 15;
/// How many frames are made free at once.
const RELEASED_AT_ONCE: usize = 64;

/// The number of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FrameId(u32);

impl FrameId {
    pub(super) const LEN: usize = size_of::<u32>();
    pub(super) const FIRST: Self = FrameId(0);
    /// Of a child that has no frame yet.
    pub(super) const NONE: Self = FrameId(u32::MAX);

    pub(super) fn from_le_bytes(bytes: [u8; Self::LEN]) -> Self {
        FrameId(u32::from_le_bytes(bytes))
    }

    pub(super) fn to_le_bytes(self) -> [u8; Self::LEN] {
        self.0.to_le_bytes()
    }
}

/// What is in a frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) content: Content,
    /// The tree that its page was made for; of one that was read, that of the page above it.
    pub(super) born: u64,
    /// Where its page is stored, once it is durable.
    pub(super) id: Option<PageId>,
    /// Whether it was used since the clock last came by.
    pub(super) used: bool,
}

#[derive(Debug)]
pub(super) enum Content {
    Page(Page),
    /// In storage only; with the frames of its children, if it was ever read.
    Stored(Option<Box<[FrameId]>>),
    /// Nothing that any tree has.
    Free,
}

impl Frame {
    const FREE: Self = Frame { content: Content::Free, born: 0, id: None, used: false };

    /// The page, if it is in memory.
    pub(super) fn page(&mut self) -> Option<Page> {
        self.used = true;
        match &self.content {
            Content::Page(page) => Some(page.clone()),
            Content::Stored(_) => None,
            Content::Free => unreachable!("a tree holds its frames"),
        }
    }

    /// The frames of the children, as far as they have any yet.
    fn below(&self) -> Vec<FrameId> {
        match &self.content {
            Content::Page(page) => page.frames().collect(),
            Content::Stored(below) => below.iter().flatten().copied().collect(),
            Content::Free => Vec::new(),
        }
    }
}

/// One line of a processor's cache: a frame that is far away in memory is so once.
#[repr(align(64))]
#[derive(Debug)]
struct Line(Mutex<Frame>);

const _: () = assert!(size_of::<Line>() == 64);

/// A free frame with memory for a page.
#[derive(Debug)]
pub(super) struct Blank {
    pub(super) frame: FrameId,
    pub(super) memory: Arc<[u8]>,
}

/// The free frames: of each class of memory those that keep so much; and those that keep none.
#[derive(Debug, Default)]
pub(super) struct Blanks {
    classes: Vec<Vec<Blank>>,
    /// Bytes that these keep.
    bytes: usize,
    bare: Vec<FrameId>,
}

impl Blanks {
    pub(super) fn push(&mut self, blank: Blank) {
        let class = class(blank.memory.len());
        if self.classes.len() <= class {
            self.classes.resize_with(class + 1, Vec::new);
        }
        self.bytes += blank.memory.len();
        self.classes[class].push(blank);
    }

    /// One with memory for a page of so many bytes.
    pub(super) fn pop(&mut self, length: usize) -> Option<Blank> {
        let blank = self.classes.get_mut(class(length))?.pop()?;
        self.bytes -= blank.memory.len();
        Some(blank)
    }

    /// One of the class that has most bytes.
    fn pop_of_most(&mut self) -> Option<Blank> {
        let bytes = |blanks: &Vec<Blank>| {
            blanks.len() * blanks.first().map_or(0, |blank| blank.memory.len())
        };
        let blank = self.classes.iter_mut().max_by_key(|blanks| bytes(blanks))?.pop()?;
        self.bytes -= blank.memory.len();
        Some(blank)
    }
}

/// Memory for a page of so many bytes. There are four sizes from one power of two to the next, counts included,
/// as most allocators have them: so hardly any of it is wasted twice.
pub(super) fn memory(length: usize) -> Arc<[u8]> {
    let bytes = (length + COUNTS).max(MEMORY_MIN);
    let bytes = bytes.next_multiple_of(bytes.next_power_of_two() / 8);
    iter::repeat_n(0, bytes - COUNTS).collect()
}

/// Numbers the sizes of memory.
fn class(length: usize) -> usize {
    let last = (length + COUNTS).max(MEMORY_MIN) - 1;
    let power = last.ilog2();
    (4 * power) as usize + (last >> (power - 2) & 3)
}

/// All frames for the pages of a store.
#[derive(Debug)]
pub(super) struct Frames {
    /// Each is made when the one before it is full, and never moves.
    segments: Box<[OnceLock<Box<[Line]>>]>,
    /// How many frames there are.
    count: AtomicU32,
    /// Held while one is added.
    adding: Mutex<()>,
    free: Mutex<Blanks>,
    /// Bytes of the pages that could be dropped, because they are stored too.
    droppable: AtomicUsize,
    /// Bytes that free frames may keep.
    spare_max: usize,
    /// The trees that there have been.
    trees: AtomicU64,
}

impl Frames {
    /// Free frames may keep so many bytes.
    pub(super) fn new(spare_max: usize) -> Self {
        let segments = iter::repeat_with(OnceLock::new).take(SEGMENTS).collect();
        let (count, adding, free, droppable, trees) = <_>::default();
        Frames { segments, count, adding, free, droppable, spare_max, trees }
    }

    /// Counts trees: each has a number that is larger than those of all before it.
    pub(super) fn next_tree(&self) -> u64 {
        self.trees.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How many frames there are, free ones too.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// The frame behind `frame`; behind the last one the first.
    pub(super) fn next(&self, FrameId(frame): FrameId) -> FrameId {
        FrameId(if frame < self.count().saturating_sub(1) { frame + 1 } else { 0 })
    }

    fn of(&self, FrameId(frame): FrameId) -> &Mutex<Frame> {
        let (segment, place) = (frame as usize / SEGMENT, frame as usize % SEGMENT);
        &self.segments[segment].get().expect("it was made with its first frame")[place].0
    }

    /// Locks a frame: never while another one is locked, but for siblings in their order, and for the children of a
    /// page that is read.
    pub(super) fn lock(&self, frame: FrameId) -> MutexGuard<'_, Frame> {
        self.of(frame).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks a frame, unless another thread has.
    pub(super) fn try_lock(&self, frame: FrameId) -> Option<MutexGuard<'_, Frame>> {
        match self.of(frame).try_lock() {
            Ok(frame) => Some(frame),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Bytes of the pages that could be dropped.
    pub(super) fn droppable(&self) -> usize {
        self.droppable.load(Ordering::Relaxed)
    }

    fn free(&self) -> MutexGuard<'_, Blanks> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pages of siblings, in their order, as far as they are in memory. All their bytes are brought near side by
    /// side: not one after the other, when needed.
    pub(super) fn fetch(&self, frames: &[FrameId]) -> Vec<Option<Page>> {
        self.touch(frames);
        let mut locked = frames.iter().map(|frame| self.lock(*frame)).collect::<Vec<_>>();
        let counts = locked.iter().map(|frame| match &frame.content {
            Content::Page(page) => page.holders(),
            _ => 0,
        });
        hint::black_box(counts.sum::<usize>());
        let pages = locked.iter_mut().map(|frame| frame.page()).collect::<Vec<_>>();
        drop(locked);
        pages.iter().flatten().for_each(Page::fetch);
        pages
    }

    /// Looks at frames side by side: to lock them waits for each.
    pub(super) fn touch(&self, frames: &[FrameId]) {
        hint::black_box(frames.iter().filter(|frame| self.of(**frame).is_poisoned()).count());
    }

    /// Free frames with memory for pages of so many bytes: at least one of at most `count`, which is not 0.
    pub(super) fn blanks(&self, length: usize, count: usize) -> Vec<Blank> {
        let mut blanks = {
            let mut free = self.free();
            iter::from_fn(|| free.pop(length)).take(count).collect::<Vec<_>>()
        };
        self.touch(&blanks.iter().map(|blank| blank.frame).collect::<Vec<_>>());
        let counts = blanks.iter().map(|blank| Arc::strong_count(&blank.memory));
        hint::black_box(counts.sum::<usize>());
        for blank in &mut blanks {
            // A reader may still have it: then it is his.
            if Arc::get_mut(&mut blank.memory).is_none() {
                blank.memory = memory(length);
            }
        }
        if blanks.is_empty() {
            blanks.push(Blank { frame: self.bare(), memory: memory(length) });
        }
        blanks
    }

    /// Takes free frames back. They keep their memory; where it becomes too much, those of the class that has most
    /// lose it.
    pub(super) fn give_back(&self, blanks: Blanks) {
        let mut dropped = Vec::new();
        let mut free = self.free();
        free.bare.extend(blanks.bare);
        for blank in blanks.classes.into_iter().flatten() {
            free.push(blank);
            while free.bytes > self.spare_max {
                let Blank { frame, memory } = free.pop_of_most().expect("what there is has bytes");
                free.bare.push(frame);
                dropped.push(memory);
            }
        }
    }

    /// A free frame without memory.
    fn bare(&self) -> FrameId {
        let bare = self.free().bare.pop();
        bare.unwrap_or_else(|| self.add())
    }

    /// A new frame.
    fn add(&self) -> FrameId {
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.count.load(Ordering::Relaxed);
        self.segments[count as usize / SEGMENT]
            .get_or_init(|| iter::repeat_with(|| Line(Frame::FREE.into())).take(SEGMENT).collect());
        self.count.store(count + 1, Ordering::Release);
        FrameId(count)
    }

    /// Puts a page that was made for the tree `born` into a frame that is free.
    pub(super) fn put(&self, frame: FrameId, page: Page, born: u64) {
        *self.lock(frame) = Frame { content: Content::Page(page), born, id: None, used: true };
    }

    /// A frame for a page that is in storage only.
    pub(super) fn stored(&self, id: PageId, born: u64) -> FrameId {
        let frame = self.bare();
        let content = Content::Stored(None);
        *self.lock(frame) = Frame { content, born, id: Some(id), used: false };
        frame
    }

    /// Counts a page that is stored among those that could be dropped.
    pub(super) fn hold(&self, page: &Page) {
        self.droppable.fetch_add(page.memory(), Ordering::Relaxed);
    }

    /// Drops the page of a frame from memory, if storage could give it again.
    pub(super) fn evict(&self, frame: &mut Frame) {
        if let (Some(_), Content::Page(page)) = (frame.id, &frame.content) {
            self.droppable.fetch_sub(page.memory(), Ordering::Relaxed);
            frame.content = Content::Stored(Some(page.frames().collect()));
        }
    }

    /// Makes frames free that no tree needs any more.
    pub(super) fn release(&self, frames: &[FrameId]) {
        for frames in frames.chunks(RELEASED_AT_ONCE) {
            self.touch(frames);
            let mut free = Blanks::default();
            for at in frames {
                let Frame { content, id, .. } = mem::replace(&mut *self.lock(*at), Frame::FREE);
                match content {
                    Content::Page(page) => {
                        if id.is_some() {
                            self.droppable.fetch_sub(page.memory(), Ordering::Relaxed);
                        }
                        free.push(Blank { frame: *at, memory: page.into_memory() });
                    }
                    Content::Stored(_) => free.bare.push(*at),
                    Content::Free => unreachable!("a frame is made free once"),
                }
            }
            self.give_back(free);
        }
    }

    /// The frames below `top`, it included, that were made or first read for a tree behind number `after`.
    pub(super) fn made_after(&self, top: FrameId, after: u64) -> Vec<FrameId> {
        let (mut found, mut open) = (Vec::new(), vec![top]);
        while let Some(at) = open.pop() {
            let frame = self.lock(at);
            // What is below a page was made with it, or before.
            if frame.born > after {
                found.push(at);
                open.extend(frame.below());
            }
        }
        found
    }
}

#[cfg(test)]
impl Frames {
    /// How many frames are not free.
    pub(super) fn in_use(&self) -> usize {
        let is_used = |at: &u32| !matches!(self.lock(FrameId(*at)).content, Content::Free);
        (0..self.count()).filter(is_used).count()
    }

    /// Bytes that free frames keep.
    pub(super) fn spare(&self) -> usize {
        let free = self.free();
        let bytes = free.classes.iter().flatten().map(|blank| blank.memory.len()).sum();
        assert_eq!(bytes, free.bytes);
        bytes
    }
}
