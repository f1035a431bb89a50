//! How a store is opened.

use std::{
    fmt,
    num::{NonZeroU64, NonZeroUsize},
    sync::Arc,
    thread::available_parallelism,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use crate::{Error, Receipt, Retention, ledger::OwnFold, store::Clock};

/// Told what a pruning did.
pub type Pruned = Arc<dyn Fn(&Result<Receipt, Error>) + Send + Sync>;

/// How a store is opened. Only how it works depends on them, never what a version is.
#[derive(Clone)]
pub struct Options {
    /// The budget for pages, in bytes of memory: for those that storage could give again, those that are not stored yet,
    /// old versions, and memory that is free for the next ones. Commits wait for a flush while five eighths of it are
    /// not stored. Only what must be in memory goes beyond it: pages that a reader of an old version holds, or that one
    /// commit makes. Beside it some 100 bytes are taken for each page that lies below one that was looked at since the
    /// opening, changes that are made again when a store is opened, with a retention a sixteenth of this for what leads back
    /// from the newest versions, and what the engine needs for itself.
    pub cache_bytes: usize,
    /// Tells the time, in milliseconds since 1970: what headers carry.
    pub clock: Clock,
    /// Tells the milliseconds since some moment, and never goes back: what the ledger's deadlines count.
    /// With [`clock`](Self::clock) the only clocks the store has.
    pub uptime: Clock,
    /// On how many threads the tree is updated, where a commit is large, also when it is applied again.
    pub threads: NonZeroUsize,
    /// Folds of the program's own, beside those of the format.
    pub folds: Vec<Arc<dyn OwnFold>>,
    /// Which versions are kept, if not all: what others leave is freed in the background.
    pub retention: Option<Retention>,
    /// Of how many of the newest versions the ledger keeps what led to their decisions, if not of all: specifications,
    /// votes and results of transitions that were decided before are deleted in the background. Their records and their
    /// state stay.
    pub keep_decided: Option<NonZeroU64>,
    /// Told what each pruning in the background did, on a thread of the store.
    pub pruned: Pruned,
}

impl Default for Options {
    /// A cache of 1 GiB, the system's clocks, a thread for each processor, and no folds of the program's own; all
    /// versions are kept, and all that the ledger has.
    fn default() -> Self {
        let now = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
        };
        let start = Instant::now();
        let uptime = move || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Options {
            cache_bytes: 1 << 30,
            clock: Arc::new(now),
            uptime: Arc::new(uptime),
            threads: available_parallelism().unwrap_or(NonZeroUsize::MIN),
            folds: Vec::new(),
            retention: None,
            keep_decided: None,
            pruned: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("cache_bytes", &self.cache_bytes).finish_non_exhaustive()
    }
}
