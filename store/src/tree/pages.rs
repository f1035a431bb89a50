//! Pages in memory and in storage: read when needed, dropped when they have to make room.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use anwansi_proofs::Digest;
use bytes::Bytes;
use rayon::ThreadPool;

use super::{
    Child, FrameId, Page, PageId, Value,
    frames::{Content, Frame, Frames},
    memory::{Spare, memory},
};
use crate::{
    Damage, Error,
    engine::{Engine, Keyspace},
    record::{StoredValue, numbered_key},
};

/// If less than this part of the budget could be dropped, it is not looked for.
const DROPPABLE_PART: usize = 16;
/// How many bytes are dropped at once, at least.
const DROPPED_MIN: usize = 64 << 10;

/// Reads pages and values, and keeps within a budget those that storage could give again.
#[derive(Debug)]
pub(crate) struct Pages {
    engine: Arc<dyn Engine>,
    frames: Arc<Frames>,
    /// The frame that is looked at next, if room has to be made (the clock algorithm).
    hand: Mutex<FrameId>,
    /// On which trees are updated.
    threads: Arc<ThreadPool>,
    /// Values on their own whose version is made, and not stored yet.
    coming: RwLock<HashMap<[u8; 12], Bytes>>,
}

/// What was read.
enum Read {
    /// The page, and where its children are.
    Page(Page, Vec<PageId>),
    /// Nothing: the page is in memory, or elsewhere, since somebody looked.
    Moved,
}

impl Pages {
    pub(crate) fn new(engine: Arc<dyn Engine>, bytes_max: usize, threads: Arc<ThreadPool>) -> Self {
        let frames = Arc::new(Frames::new(bytes_max));
        Pages { engine, frames, hand: FrameId::FIRST.into(), threads, coming: RwLock::default() }
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

    /// The budget for the memory of all pages, in bytes.
    pub(crate) fn bytes_max(&self) -> usize {
        self.frames.memory().bytes_max()
    }

    /// Bytes of the pages that are not stored, and so cannot leave memory.
    pub(crate) fn unstored_bytes(&self) -> usize {
        self.frames.unstored()
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
        let memory = |length| self.memory(length, 1).pop().expect("it is for one page at least");
        let (mut page, below) = match self.read(child, memory)? {
            Read::Page(page, below) => (page, below),
            Read::Moved => return self.open(child),
        };
        let mut frame = self.frames.lock(child.frame);
        let found = match &frame.content {
            // Another reader was quicker.
            Content::Page(page) => Ok(page.clone()),
            _ => match self.connect(&frame, &mut page, below) {
                Ok(()) => {
                    self.frames.hold(&page);
                    frame.content = Content::Page(page.clone());
                    return Ok(page);
                }
                Err(error) => Err(error),
            },
        };
        let mut spare = Spare::default();
        spare.push(page.into_memory());
        self.frames.memory().give_back(spare);
        found
    }

    /// The page below the child in slot `at` of another one.
    pub(super) fn below(&self, page: &Page, at: usize) -> Result<Page, Error> {
        let loaded = page.frame(at).and_then(|frame| self.loaded(frame));
        loaded.map_or_else(|| self.open(&page.child(at)), Ok)
    }

    /// The page below `child`, which is about to be replaced: no need to keep it in memory.
    pub(super) fn open_once(&self, child: &Child) -> Result<Page, Error> {
        if let Some(page) = self.loaded(child.frame) {
            return Ok(page);
        }
        let (mut page, below) = match self.read(child, memory)? {
            Read::Page(page, below) => (page, below),
            Read::Moved => return self.open_once(child),
        };
        let mut frame = self.frames.lock(child.frame);
        if let Content::Page(page) = &frame.content {
            return Ok(page.clone());
        }
        self.connect(&frame, &mut page, below)?;
        frame.content = Content::Stored(Some(page.frames().collect()));
        Ok(page)
    }

    /// Reads a page from storage, into `memory` of so many bytes.
    fn read(&self, child: &Child, memory: impl FnOnce(usize) -> Arc<[u8]>) -> Result<Read, Error> {
        let Some(id) = self.id(child.frame) else { return Ok(Read::Moved) };
        let chunk = self.engine.get(Keyspace::Pages, &PageId::chunk_key(id.epoch, id.chunk))?;
        let end = id.offset as usize + id.length as usize;
        let bytes = chunk.as_ref().and_then(|chunk| chunk.get(id.offset as usize..end));
        let Some(bytes) = bytes else {
            let is_moved = self.id(child.frame) != Some(id);
            return if is_moved { Ok(Read::Moved) } else { Err(Error::Damaged(Damage::Page(id))) };
        };
        let (page, below) = Page::decode(bytes, child, id, memory)?;
        Ok(Read::Page(page, below))
    }

    /// Gives a page that was read for `frame` the frames of its children: those that they had before, if it was read
    /// before.
    fn connect(&self, frame: &Frame, page: &mut Page, below: Vec<PageId>) -> Result<(), Error> {
        if let Content::Stored(Some(frames)) = &frame.content {
            // Where they are stored, the frames know better: some may have been moved since.
            if frames.len() != below.len() {
                let id = frame.id.expect("what was read is in storage");
                return Err(Error::Damaged(Damage::Page(id)));
            }
            page.set_frames(frames);
        } else {
            let frames = below.into_iter().map(|id| self.frames.stored(id, frame.born));
            page.set_frames(&frames.collect::<Vec<_>>());
        }
        Ok(())
    }

    /// Memory for pages of so many bytes: for one at least and at most `count`, which is not 0. Pages may have to leave
    /// theirs for it.
    pub(super) fn memory(&self, length: usize, count: usize) -> Vec<Arc<[u8]>> {
        let memory = self.frames.memory();
        loop {
            let taken = memory.take(length, count);
            if !taken.is_empty() {
                return taken;
            }
            if !self.make_room(length) {
                return vec![memory.allocate(length)];
            }
        }
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
        let mut frame = self.frames.lock(frame);
        assert!(frame.id.is_none(), "a page is stored once");
        frame.id = Some(id);
        let Content::Page(page) = &frame.content else { unreachable!("it was in memory only") };
        self.frames.hold(page);
    }

    /// Lets the page below `child` be stored anew. Gives where it was; `None` if it is not stored.
    pub(super) fn unstore(&self, child: &Child) -> Result<Option<PageId>, Error> {
        loop {
            self.open(child)?;
            let mut frame = self.frames.lock(child.frame);
            // It may have left memory again.
            if matches!(frame.content, Content::Page(_)) {
                return Ok(self.frames.unstore(&mut frame));
            }
        }
    }

    /// Drops pages of `bytes` bytes or more that nobody used since the hand came by. False if there is nothing to drop.
    fn make_room(&self, bytes: usize) -> bool {
        if self.frames.droppable() < self.bytes_max() / DROPPABLE_PART {
            return false;
        }
        let mut hand = self.hand.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut spare, bytes) = (Spare::default(), bytes.max(DROPPED_MIN));
        // Twice round at most: the first time clears the marks, the second finds them cleared.
        for _ in 0..2 * u64::from(self.frames.count()) {
            if spare.bytes() >= bytes {
                break;
            }
            *hand = self.frames.next(*hand);
            // One that is locked is in use just now.
            let Some(mut frame) = self.frames.try_lock(*hand) else { continue };
            if !std::mem::take(&mut frame.used) {
                self.frames.evict(&mut frame, &mut spare);
            }
        }
        let is_found = spare.bytes() > 0;
        self.frames.memory().give_back(spare);
        is_found
    }

    /// The bytes of `value`, wherever they lie.
    pub(crate) fn value(&self, value: &Value) -> Result<Bytes, Error> {
        match value {
            Value::Inline(value) => Ok(value.clone()),
            Value::Stored(stored) => self.stored_value(stored),
        }
    }

    /// The bytes of a value that does not lie in a page.
    pub(crate) fn stored_value(&self, stored: &StoredValue) -> Result<Bytes, Error> {
        let key = stored.key();
        let value = match self.engine.get(Keyspace::Values, &key)? {
            Some(value) => Some(value),
            None => self.value_to_come(&key)?,
        };
        let whole = |value: &Bytes| {
            value.len() == stored.length as usize && Digest::of(value).0 == stored.digest
        };
        value.filter(whole).ok_or(Error::Damaged(stored.damage()))
    }

    fn value_to_come(&self, key: &[u8; 12]) -> Result<Option<Bytes>, Error> {
        let coming = self.coming.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        match coming {
            Some(value) => Ok(Some(value)),
            // It may have come since it was looked for.
            None => Ok(self.engine.get(Keyspace::Values, key)?),
        }
    }

    /// Lets a value be read before its version is stored.
    pub(crate) fn expect_value(&self, stored: &StoredValue, value: Bytes) {
        let mut coming = self.coming.write().unwrap_or_else(PoisonError::into_inner);
        coming.insert(stored.key(), value);
    }

    /// The version of these values is stored.
    pub(crate) fn values_have_come(&self, values: &[StoredValue]) {
        if values.is_empty() {
            return;
        }
        let mut coming = self.coming.write().unwrap_or_else(PoisonError::into_inner);
        for stored in values {
            coming.remove(&stored.key());
        }
    }
}

#[cfg(test)]
impl Pages {
    /// Those of no store.
    pub(crate) fn on_two_threads(engine: Arc<dyn Engine>, bytes_max: usize) -> Self {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
        Pages::new(engine, bytes_max, Arc::new(pool.expect("threads can be started")))
    }
}

impl StoredValue {
    /// Its key in storage.
    pub(crate) fn key(&self) -> [u8; 12] {
        numbered_key(self.version, self.index)
    }
}
