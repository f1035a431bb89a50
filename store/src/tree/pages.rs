//! Pages in memory and in storage: read when needed, dropped when they have to make room.

use std::sync::{
    Arc, Mutex, TryLockError,
    atomic::{AtomicUsize, Ordering},
};

use anwansi_proofs::Digest;
use bytes::Bytes;
use rayon::ThreadPool;

use super::{
    Child, FrameId, Page, PageId, Value,
    frames::{Content, Frame, Frames},
};
use crate::{
    Damage, Error,
    engine::{Engine, Keyspace},
    record::StoredValue,
};

/// The part of the budget that free frames may keep.
const SPARE_PART: usize = 16;

/// Reads pages and values, and keeps within a budget those that storage could give again.
#[derive(Debug)]
pub(crate) struct Pages {
    engine: Arc<dyn Engine>,
    frames: Arc<Frames>,
    /// The frame that is looked at next, if room has to be made (the clock algorithm).
    hand: Mutex<FrameId>,
    /// The budget for all pages.
    bytes_max: usize,
    /// What others take of it.
    taken: AtomicUsize,
    /// On which trees are updated.
    threads: Arc<ThreadPool>,
}

impl Pages {
    pub(crate) fn new(engine: Arc<dyn Engine>, bytes_max: usize, threads: Arc<ThreadPool>) -> Self {
        let frames = Arc::new(Frames::new(bytes_max / SPARE_PART));
        Pages { engine, frames, hand: FrameId::FIRST.into(), bytes_max, taken: 0.into(), threads }
    }

    pub(super) fn frames(&self) -> &Arc<Frames> {
        &self.frames
    }

    /// Runs something that may share its work among threads.
    pub(crate) fn install<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        self.threads.install(run)
    }

    pub(crate) fn threads(&self) -> &Arc<ThreadPool> {
        &self.threads
    }

    /// The budget for all pages.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Notes how many bytes of the budget pages take that are not stored yet.
    pub(crate) fn leave_room(&self, bytes: u64) {
        self.taken.store(usize::try_from(bytes).unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Whether the pages that could be dropped take more than is left for them. An eighth of the budget is for old
    /// versions and free frames; a quarter is left in any case.
    fn is_full(&self) -> bool {
        let left = self.bytes_max / 8 * 7;
        let left = left.saturating_sub(self.taken.load(Ordering::Relaxed));
        self.frames.droppable() > left.max(self.bytes_max / 4)
    }

    /// The page in a frame, if it is in memory.
    pub(super) fn loaded(&self, frame: FrameId) -> Option<Page> {
        self.frames.lock(frame).page()
    }

    /// The page in a frame, if it is in memory and no other thread looks at it just now.
    pub(super) fn near(&self, frame: FrameId) -> Option<Page> {
        self.frames.try_lock(frame)?.page()
    }

    /// The page below `child`.
    pub(crate) fn open(&self, child: &Child) -> Result<Page, Error> {
        if let Some(page) = self.loaded(child.frame) {
            return Ok(page);
        }
        let page = self.read(child, |frame, page| {
            frame.content = Content::Page(page.clone());
            self.frames.hold(page);
        })?;
        self.make_room();
        Ok(page)
    }

    /// The page below the child in slot `at` of another one.
    pub(super) fn below(&self, page: &Page, at: usize) -> Result<Page, Error> {
        let loaded = page.frame(at).and_then(|frame| self.loaded(frame));
        loaded.map_or_else(|| self.open(&page.child(at)), Ok)
    }

    /// The page below `child`, which is about to be replaced: no need to keep it in memory.
    pub(super) fn open_once(&self, child: &Child) -> Result<Page, Error> {
        match self.loaded(child.frame) {
            Some(page) => Ok(page),
            None => self.read(child, |frame, page| {
                frame.content = Content::Stored(Some(page.frames().collect()));
            }),
        }
    }

    /// Reads a page from storage. `keep` keeps of it what is to be kept.
    fn read(&self, child: &Child, keep: impl FnOnce(&mut Frame, &Page)) -> Result<Page, Error> {
        let id = self.id(child.frame).expect("a page that is not in memory is in storage");
        let damaged = Error::Damaged(Damage::Page(id));
        let chunk = self.engine.get(Keyspace::Pages, &PageId::chunk_key(id.epoch, id.chunk))?;
        let end = id.offset as usize + id.length as usize;
        let bytes = chunk.as_ref().and_then(|chunk| chunk.get(id.offset as usize..end));
        let (mut page, below) = Page::decode(bytes.ok_or(damaged.clone())?, child, id)?;
        let mut frame = self.frames.lock(child.frame);
        let born = frame.born;
        match &frame.content {
            // Another reader was quicker.
            Content::Page(page) => return Ok(page.clone()),
            Content::Stored(Some(frames)) => {
                // Which pages there are is under no digest.
                let same = |(frame, id): (&FrameId, &PageId)| {
                    self.id(*frame).is_none_or(|stored| stored == *id)
                };
                if frames.len() != below.len() || !frames.iter().zip(&below).all(same) {
                    return Err(damaged);
                }
                page.set_frames(frames);
            }
            _ => {
                let frames = below.into_iter().map(|id| self.frames.stored(id, born));
                page.set_frames(&frames.collect::<Vec<_>>());
            }
        }
        keep(&mut frame, &page);
        Ok(page)
    }

    /// Where the page of a frame is stored; `None` if it is not.
    pub(crate) fn id(&self, frame: FrameId) -> Option<PageId> {
        self.frames.lock(frame).id
    }

    /// The page of a frame that has none in storage, if it is so.
    pub(crate) fn unstored(&self, frame: FrameId) -> Option<Page> {
        let frame = self.frames.lock(frame);
        match (&frame.content, frame.id) {
            (Content::Page(page), None) => Some(page.clone()),
            _ => None,
        }
    }

    /// Notes that the page of a frame is now stored at `id`, and may leave memory.
    pub(crate) fn stored(&self, frame: FrameId, id: PageId) {
        {
            let mut frame = self.frames.lock(frame);
            assert!(frame.id.is_none(), "a page is stored once");
            frame.id = Some(id);
            let Content::Page(page) = &frame.content else { unreachable!("it was in memory only") };
            self.frames.hold(page);
        }
        self.make_room();
    }

    /// Drops pages that nobody used since the hand came by.
    fn make_room(&self) {
        if !self.is_full() {
            return;
        }
        // Whoever has the hand makes room for all.
        let mut hand = match self.hand.try_lock() {
            Ok(hand) => hand,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        // Twice round at most: the first time clears the marks, the second finds them cleared.
        for _ in 0..2 * u64::from(self.frames.count()) {
            if !self.is_full() {
                break;
            }
            *hand = self.frames.next(*hand);
            // One that is locked is in use just now.
            let Some(mut frame) = self.frames.try_lock(*hand) else { continue };
            if !std::mem::take(&mut frame.used) {
                self.frames.evict(&mut frame);
            }
        }
    }

    /// The bytes of `value`, wherever they lie.
    pub(crate) fn value(&self, value: &Value) -> Result<Bytes, Error> {
        match value {
            Value::Inline(value) => Ok(value.clone()),
            Value::Stored(stored) => self.stored_value(stored),
        }
    }

    fn stored_value(&self, stored: &StoredValue) -> Result<Bytes, Error> {
        let value = self.engine.get(Keyspace::Values, &stored.key())?;
        let whole = |value: &Bytes| {
            value.len() == stored.length as usize && Digest::of(value).0 == stored.digest
        };
        value.filter(whole).ok_or(Error::Damaged(stored.damage()))
    }
}

#[cfg(test)]
impl Pages {
    /// Those of no store.
    pub(super) fn on_two_threads(engine: Arc<dyn Engine>, bytes_max: usize) -> Self {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
        Pages::new(engine, bytes_max, Arc::new(pool.expect("threads can be started")))
    }
}

impl StoredValue {
    /// Its key in storage: the values of one version stand together.
    pub(crate) fn key(&self) -> [u8; 12] {
        let mut key = [0; 12];
        key[..8].copy_from_slice(&self.version.to_be_bytes());
        key[8..].copy_from_slice(&self.index.to_be_bytes());
        key
    }
}
