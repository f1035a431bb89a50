//! Frames: where pages lie in memory, or are known to lie in storage.
//!
//! A page knows its children by the numbers of their frames, which are copied with its other bytes: nothing is
//! counted up when a page is copied, nor down when it goes. Which tree needs which frame follows from when a page
//! was made and when it was replaced (`lineage.rs`).

use std::{
    hint, iter, mem,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError, TryLockError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{
    Page, PageId,
    memory::{Memory, Spare},
};

/// The frames of one block of the table, and how many blocks there may be: enough for billions of entries.
const BLOCK: usize = 1 << 13;
const BLOCKS: usize = 1 << 15;
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
            Content::Page(page) => {
                // To clone it waits for what was begun before, and lets nothing begin until it is done.
                page.fetch_way();
                Some(page.clone())
            }
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

/// All frames for the pages of a store.
#[derive(Debug)]
pub(super) struct Frames {
    /// Each is made when the one before it is full, and never moves.
    blocks: Box<[OnceLock<Box<[Line]>>]>,
    /// How many frames there are.
    count: AtomicU32,
    /// Held while one is added.
    adding: Mutex<()>,
    free: Mutex<Vec<FrameId>>,
    memory: Memory,
    /// Bytes of the pages that could be dropped, because they are stored too.
    droppable: AtomicUsize,
    /// The trees that there have been.
    trees: AtomicU64,
}

impl Frames {
    /// With a budget for the memory of pages, in bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        let blocks = iter::repeat_with(OnceLock::new).take(BLOCKS).collect();
        let (count, adding, free, droppable, trees) = <_>::default();
        Frames { blocks, count, adding, free, memory: Memory::new(bytes_max), droppable, trees }
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
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
        let (block, place) = (frame as usize / BLOCK, frame as usize % BLOCK);
        &self.blocks[block].get().expect("it was made with its first frame")[place].0
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

    /// Bytes of the pages that are not stored.
    pub(super) fn unstored(&self) -> usize {
        self.memory.used().saturating_sub(self.droppable())
    }

    fn free(&self) -> MutexGuard<'_, Vec<FrameId>> {
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

    /// Free frames: at least one, of at most `count`, which is not 0.
    pub(super) fn take(&self, count: usize) -> Vec<FrameId> {
        let mut free = self.free();
        let rest = free.len().saturating_sub(count);
        let mut taken = free.split_off(rest);
        drop(free);
        if taken.is_empty() {
            taken.push(self.add());
        }
        self.touch(&taken);
        taken
    }

    /// Takes free frames back.
    pub(super) fn give_back(&self, frames: &[FrameId]) {
        self.free().extend(frames);
    }

    /// A new frame.
    fn add(&self) -> FrameId {
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.count.load(Ordering::Relaxed);
        self.blocks[count as usize / BLOCK]
            .get_or_init(|| iter::repeat_with(|| Line(Frame::FREE.into())).take(BLOCK).collect());
        self.count.store(count + 1, Ordering::Release);
        FrameId(count)
    }

    /// Puts a page that was made for the tree `born` into a frame that is free.
    pub(super) fn put(&self, frame: FrameId, page: Page, born: u64) {
        *self.lock(frame) = Frame { content: Content::Page(page), born, id: None, used: true };
    }

    /// A frame for a page that is in storage only.
    pub(super) fn stored(&self, id: PageId, born: u64) -> FrameId {
        let frame = self.take(1)[0];
        let content = Content::Stored(None);
        *self.lock(frame) = Frame { content, born, id: Some(id), used: false };
        frame
    }

    /// Counts a page that is stored among those that could be dropped.
    pub(super) fn hold(&self, page: &Page) {
        self.droppable.fetch_add(page.memory(), Ordering::Relaxed);
    }

    /// Lets a page that is stored and in memory be stored anew. Gives where it was; `None` if it is not stored.
    pub(super) fn unstore(&self, frame: &mut Frame) -> Option<PageId> {
        let Content::Page(page) = &frame.content else { return None };
        let id = frame.id.take()?;
        self.droppable.fetch_sub(page.memory(), Ordering::Relaxed);
        Some(id)
    }

    /// Drops the page of a frame from memory, if storage could give it again. What memory it had is spare.
    pub(super) fn evict(&self, frame: &mut Frame, spare: &mut Spare) {
        if let (Some(_), Content::Page(page)) = (frame.id, &frame.content) {
            let stored = Content::Stored(Some(page.frames().collect()));
            if let Content::Page(page) = mem::replace(&mut frame.content, stored) {
                self.droppable.fetch_sub(page.memory(), Ordering::Relaxed);
                spare.push(page.into_memory());
            }
        }
    }

    /// Makes frames free that no tree needs any more, and gives where the pages of those are stored that are.
    pub(super) fn release(&self, frames: &[FrameId]) -> Vec<PageId> {
        let mut stored = Vec::new();
        for frames in frames.chunks(RELEASED_AT_ONCE) {
            self.touch(frames);
            let mut spare = Spare::default();
            for at in frames {
                let Frame { content, id, .. } = mem::replace(&mut *self.lock(*at), Frame::FREE);
                stored.extend(id);
                match content {
                    Content::Page(page) => {
                        if id.is_some() {
                            self.droppable.fetch_sub(page.memory(), Ordering::Relaxed);
                        }
                        spare.push(page.into_memory());
                    }
                    Content::Stored(_) => {}
                    Content::Free => unreachable!("a frame is made free once"),
                }
            }
            self.memory.give_back(spare);
            self.give_back(frames);
        }
        stored
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
}
