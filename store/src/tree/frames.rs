//! Frames: where pages lie in memory, or are known to lie in storage.
//!
//! A page knows its children by the numbers of their frames, which are copied with its other bytes: nothing is
//! counted up when a page is copied, nor down when it goes. Which tree needs which frame follows from when a page
//! was made and when it was replaced (`lineage.rs`). A frame that is free keeps its memory for the next page of
//! about that size: a store in steady state hardly asks the allocator for any.

use std::{
    array, hint, iter, mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{Page, PageId};

/// The memory of pages comes in multiples of this, in bytes.
const CLASS_BYTES: usize = 256;
/// The frames of the first segment of the table; each further one has twice as many.
const SEGMENT_FIRST: usize = 1024;
const SEGMENTS: usize = 22;
/// How many frames are made free at once.
const RELEASED_AT_ONCE: usize = 64;

/// The number of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FrameId(u32);

impl FrameId {
    pub(super) const LEN: usize = size_of::<u32>();
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

impl Blank {
    fn class(&self) -> usize {
        self.memory.len() / CLASS_BYTES
    }
}

/// The free frames: of each class of memory those that keep so much, and of class 0 those that keep none.
#[derive(Debug, Default)]
pub(super) struct Blanks {
    classes: Vec<Vec<Blank>>,
    bare: Vec<FrameId>,
}

impl Blanks {
    pub(super) fn push(&mut self, blank: Blank) {
        let class = blank.class();
        if self.classes.len() <= class {
            self.classes.resize_with(class + 1, Vec::new);
        }
        self.classes[class].push(blank);
    }

    /// One with memory for a page of so many bytes.
    pub(super) fn pop(&mut self, length: usize) -> Option<Blank> {
        self.classes.get_mut(length.div_ceil(CLASS_BYTES))?.pop()
    }
}

/// Memory for a page of so many bytes.
pub(super) fn memory(length: usize) -> Arc<[u8]> {
    iter::repeat_n(0, length.next_multiple_of(CLASS_BYTES)).collect()
}

/// All frames for the pages of a store.
#[derive(Debug)]
pub(super) struct Frames {
    /// Each is made when the one before it is full, and never moves.
    segments: [OnceLock<Box<[Line]>>; SEGMENTS],
    /// How many frames there are.
    count: AtomicUsize,
    free: Mutex<Blanks>,
    /// Bytes of the pages that could be dropped, because they are stored too.
    droppable: AtomicUsize,
    /// Bytes that free frames keep, and how many they may.
    spare: AtomicUsize,
    spare_max: usize,
    /// The trees that there have been.
    trees: AtomicU64,
}

impl Frames {
    /// Free frames may keep so many bytes.
    pub(super) fn new(spare_max: usize) -> Self {
        let segments = array::from_fn(|_| OnceLock::new());
        let (free, count, droppable, spare, trees) = <_>::default();
        Frames { segments, count, free, droppable, spare, spare_max, trees }
    }

    /// Counts trees: each has a number that is larger than those of all before it.
    pub(super) fn next_tree(&self) -> u64 {
        self.trees.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How many frames there are, free ones too.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// The frame at a place in the table, free or not.
    pub(super) fn at(&self, place: usize) -> &Mutex<Frame> {
        let (segment, place) = place_of(place);
        &self.segments[segment].get().expect("it was made with its first frame")[place].0
    }

    fn of(&self, FrameId(frame): FrameId) -> &Mutex<Frame> {
        self.at(frame as usize)
    }

    /// Locks a frame: never while another one is waited for, but for siblings in their order, and for the new
    /// children of a page that is read.
    pub(super) fn lock(&self, frame: FrameId) -> MutexGuard<'_, Frame> {
        self.of(frame).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of memory that could be given back: of pages that are stored too, and of free frames.
    pub(super) fn droppable(&self) -> usize {
        self.droppable.load(Ordering::Relaxed) + self.spare.load(Ordering::Relaxed)
    }

    fn free(&self) -> MutexGuard<'_, Blanks> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pages of siblings, in their order, as far as they are in memory. All their bytes are brought near side by
    /// side: not one after the other, when needed.
    pub(super) fn fetch(&self, frames: &[FrameId]) -> Vec<Option<Page>> {
        self.touch(frames.iter().copied());
        let mut locked = frames.iter().map(|frame| self.lock(*frame)).collect::<Vec<_>>();
        for frame in &locked {
            if let Content::Page(page) = &frame.content {
                page.fetch();
            }
        }
        locked.iter_mut().map(|frame| frame.page()).collect()
    }

    /// Looks at frames side by side: to lock them waits for each.
    fn touch(&self, frames: impl Iterator<Item = FrameId>) {
        hint::black_box(frames.filter(|frame| self.of(*frame).is_poisoned()).count());
    }

    /// Free frames with memory for pages of so many bytes, `count` of them.
    pub(super) fn blanks(&self, length: usize, count: usize) -> Vec<Blank> {
        let mut blanks = Vec::with_capacity(count);
        let mut bare = Vec::new();
        {
            let mut free = self.free();
            blanks.extend(iter::from_fn(|| free.pop(length)).take(count));
            let left = free.bare.len().saturating_sub(count - blanks.len());
            bare.extend(free.bare.drain(left..));
        }
        self.touch(blanks.iter().map(|blank| blank.frame));
        let kept = blanks.iter().map(|blank| blank.memory.len()).sum();
        self.spare.fetch_sub(kept, Ordering::Relaxed);
        let counts = blanks.iter().map(|blank| Arc::strong_count(&blank.memory));
        hint::black_box(counts.sum::<usize>());
        for blank in &mut blanks {
            // A reader may still have it: then it is his.
            if Arc::get_mut(&mut blank.memory).is_none() {
                blank.memory = memory(length);
            }
        }
        while blanks.len() < count {
            let frame = bare.pop().unwrap_or_else(|| self.add());
            blanks.push(Blank { frame, memory: memory(length) });
        }
        blanks
    }

    /// Takes free frames back.
    pub(super) fn give_back(&self, blanks: Blanks) {
        let mut free = self.free();
        free.bare.extend(blanks.bare);
        let mut kept = 0;
        for blank in blanks.classes.into_iter().flatten() {
            kept += blank.memory.len();
            free.push(blank);
        }
        self.spare.fetch_add(kept, Ordering::Relaxed);
    }

    /// A new frame.
    fn add(&self) -> FrameId {
        // One at a time makes them.
        let _free = self.free();
        let count = self.count.load(Ordering::Relaxed);
        let (segment, _) = place_of(count);
        self.segments[segment].get_or_init(|| {
            let lines = iter::repeat_with(|| Line(Frame::FREE.into()));
            lines.take(SEGMENT_FIRST << segment).collect()
        });
        self.count.store(count + 1, Ordering::Release);
        FrameId(u32::try_from(count).expect("the table ends before"))
    }

    /// Puts a page that was made for the tree `born` into a frame that is free.
    pub(super) fn put(&self, frame: FrameId, page: Page, born: u64) {
        *self.lock(frame) = Frame { content: Content::Page(page), born, id: None, used: true };
    }

    /// A frame for a page that is in storage only.
    pub(super) fn stored(&self, id: PageId, born: u64) -> FrameId {
        let bare = self.free().bare.pop();
        let frame = bare.unwrap_or_else(|| self.add());
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
            let mut free = Blanks::default();
            let mut spare = self.spare.load(Ordering::Relaxed);
            self.touch(frames.iter().copied());
            for at in frames {
                let Frame { content, id, .. } = mem::replace(&mut *self.lock(*at), Frame::FREE);
                assert!(!matches!(content, Content::Free), "a frame is made free once");
                let Content::Page(page) = content else {
                    free.bare.push(*at);
                    continue;
                };
                if id.is_some() {
                    self.droppable.fetch_sub(page.memory(), Ordering::Relaxed);
                }
                if spare < self.spare_max {
                    spare += page.memory();
                    free.push(Blank { frame: *at, memory: page.into_memory() });
                } else {
                    free.bare.push(*at);
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

    /// The frames that were made for the tree `born`.
    pub(super) fn made_for(&self, born: u64) -> Vec<FrameId> {
        let frames = (0..self.count()).map(|at| FrameId(u32::try_from(at).expect("it is one's")));
        let made = frames.filter(|frame| {
            let frame = self.lock(*frame);
            frame.born == born && !matches!(frame.content, Content::Free)
        });
        made.collect()
    }
}

impl Frame {
    /// The page, if it is in memory.
    pub(super) fn page(&mut self) -> Option<Page> {
        self.used = true;
        match &self.content {
            Content::Page(page) => Some(page.clone()),
            Content::Stored(_) => None,
            Content::Free => unreachable!("a tree holds its frames"),
        }
    }
}

/// The segment of a frame, and its place in it.
fn place_of(frame: usize) -> (usize, usize) {
    let segment = (frame / SEGMENT_FIRST + 1).ilog2() as usize;
    (segment, frame - ((1 << segment) - 1) * SEGMENT_FIRST)
}

#[cfg(test)]
impl Frames {
    /// How many frames are not free.
    pub(super) fn in_use(&self) -> usize {
        let is_used = |at: &usize| !matches!(self.at(*at).lock().unwrap().content, Content::Free);
        (0..self.count()).filter(is_used).count()
    }

    /// Bytes of the pages that could be dropped.
    pub(super) fn droppable_pages(&self) -> usize {
        self.droppable.load(Ordering::Relaxed)
    }
}
