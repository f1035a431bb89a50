//! Pages in memory and in storage: read when needed, dropped when they have to make room.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anwansi_proofs::Digest;
use arc_swap::{ArcSwapOption, Guard};
use bytes::Bytes;
use rayon::ThreadPool;

use super::{Child, Page, PageId, Value};
use crate::{
    Damage, Error,
    engine::{Engine, Keyspace},
    record::StoredValue,
};

/// A page, wherever it is: in memory, in storage or both.
#[derive(Debug)]
pub(crate) struct Link {
    /// Where it is stored, once it is durable.
    id: OnceLock<PageId>,
    /// The page in memory; never empty while there is no id. Read without a lock: an update looks at thousands,
    /// each for the first time in a while. Changed under the lock of `held`.
    page: ArcSwapOption<Page>,
    /// What it takes of the cache's budget; nothing as long as it is not stored, or not in memory.
    held: Mutex<Option<Held>>,
    /// Whether it was used since the cache last came by.
    used: AtomicBool,
}

/// Bytes that count against the budget of a cache, until this is dropped.
#[derive(Debug)]
struct Held {
    bytes: usize,
    of: Arc<AtomicUsize>,
}

impl Held {
    fn new(bytes: usize, of: &Arc<AtomicUsize>) -> Self {
        of.fetch_add(bytes, Ordering::Relaxed);
        Held { bytes, of: of.clone() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Link {
    /// A page that is in memory only.
    pub(crate) fn fresh(page: Page) -> Self {
        let page = ArcSwapOption::from_pointee(page);
        Link { id: OnceLock::new(), page, held: Mutex::default(), used: true.into() }
    }

    /// A page that is in storage only.
    pub(crate) fn stored(id: PageId) -> Self {
        let (page, held) = (ArcSwapOption::empty(), Mutex::default());
        Link { id: id.into(), page, held, used: false.into() }
    }

    /// Where it is stored; `None` if it is not.
    pub(crate) fn id(&self) -> Option<PageId> {
        self.id.get().copied()
    }

    /// The page, if it is in memory, for a moment: cheaper than to share it.
    pub(crate) fn peek(&self) -> Guard<Option<Arc<Page>>> {
        let page = self.page.load();
        // Stored only when it changes: the line is shared between readers.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        page
    }

    /// The page, if it is in memory.
    pub(crate) fn loaded(&self) -> Option<Arc<Page>> {
        Guard::into_inner(self.peek())
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads pages and values, and keeps within a budget those that storage could give again.
#[derive(Debug)]
pub(crate) struct Pages {
    engine: Arc<dyn Engine>,
    /// The pages that could be dropped, in the order in which they are looked at (the clock algorithm).
    clock: Mutex<VecDeque<Weak<Link>>>,
    /// Bytes of the pages that could be dropped.
    bytes: Arc<AtomicUsize>,
    /// The budget for all pages.
    bytes_max: usize,
    /// What others take of it.
    taken: AtomicUsize,
    /// On which trees are updated.
    threads: Arc<ThreadPool>,
}

impl Pages {
    pub(crate) fn new(engine: Arc<dyn Engine>, bytes_max: usize, threads: Arc<ThreadPool>) -> Self {
        Pages {
            engine,
            clock: Mutex::default(),
            bytes: Arc::default(),
            bytes_max,
            taken: 0.into(),
            threads,
        }
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
    /// versions; a quarter is left in any case.
    fn is_full(&self) -> bool {
        let left = self.bytes_max / 8 * 7;
        let left = left.saturating_sub(self.taken.load(Ordering::Relaxed));
        self.bytes.load(Ordering::Relaxed) > left.max(self.bytes_max / 4)
    }

    /// The page below `child`.
    pub(crate) fn open(&self, child: &Child) -> Result<Arc<Page>, Error> {
        if let Some(page) = child.link.loaded() {
            return Ok(page);
        }
        let page = Arc::new(self.read(child)?);
        {
            let mut held = child.link.held();
            // Another reader may have been quicker.
            if let Some(page) = child.link.loaded() {
                return Ok(page);
            }
            child.link.page.store(Some(page.clone()));
            *held = Some(Held::new(page.memory(), &self.bytes));
        }
        self.make_room(&child.link);
        Ok(page)
    }

    /// Reads the page below `child` from storage, and leaves it there.
    pub(crate) fn read(&self, child: &Child) -> Result<Page, Error> {
        let id = child.link.id().expect("a page that is not in memory is in storage");
        let damaged = Error::Damaged(Damage::Page(id));
        let chunk = self.engine.get(Keyspace::Pages, &PageId::chunk_key(id.epoch, id.chunk))?;
        let end = id.offset as usize + id.length as usize;
        let bytes = chunk.as_ref().and_then(|chunk| chunk.get(id.offset as usize..end));
        Page::decode(bytes.ok_or(damaged)?, child, id)
    }

    /// Notes that the page of `link` is now stored at `id`, and may leave memory.
    pub(crate) fn stored(&self, link: &Arc<Link>, id: PageId) {
        {
            let mut held = link.held();
            let page = link.loaded().expect("a page that was not stored is in memory");
            *held = Some(Held::new(page.memory(), &self.bytes));
            link.id.set(id).expect("a page is stored once");
        }
        self.make_room(link);
    }

    /// Puts a page into the clock, and drops others that nobody used since it came by.
    fn make_room(&self, link: &Arc<Link>) {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.push_back(Arc::downgrade(link));
        // Twice round at most: the first time clears the marks, the second finds them cleared. Two steps
        // always, so that pages which are gone do not gather.
        for step in 0..2 * clock.len() {
            if step >= 2 && !self.is_full() {
                break;
            }
            let Some(weak) = clock.pop_front() else { break };
            let Some(link) = weak.upgrade() else { continue };
            if self.is_full() && !link.used.swap(false, Ordering::Relaxed) {
                let mut held = link.held();
                link.page.store(None);
                *held = None;
            } else {
                clock.push_back(weak);
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

impl StoredValue {
    /// Its key in storage: the values of one version stand together.
    pub(crate) fn key(&self) -> [u8; 12] {
        let mut key = [0; 12];
        key[..8].copy_from_slice(&self.version.to_be_bytes());
        key[8..].copy_from_slice(&self.index.to_be_bytes());
        key
    }
}
