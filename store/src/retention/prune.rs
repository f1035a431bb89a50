//! Pruning: versions that are not kept any more are refused from one moment on, and then freed bit by bit.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anwansi_proofs::{Root, Version};

use super::{Freed, Retention, sweep::Sweep};
use crate::{Error, Pruned, engine::Writer, store::Shared, version};

/// What a pruning did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// How many versions are not kept any more.
    pub dropped: u64,
    /// The oldest version that is kept.
    pub oldest: Version,
    /// How many flushes were deleted: trees of versions, in pages.
    pub flushes: u64,
    /// Changes of versions that were deleted, in chunks.
    pub changes: Freed,
    /// Values of more than 1 KiB that were deleted.
    pub values: Freed,
    /// The newest version when it began; the root of its state then, and as storage has it afterwards.
    pub newest: Version,
    /// The root of its state when the pruning began.
    pub root_before: Root,
    /// The root of its state as it is stored after the pruning: the same.
    pub root_after: Root,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Receipt { dropped, oldest, flushes, changes, values, newest, .. } = self;
        write!(
            f,
            "{dropped} versions dropped, the oldest kept is {oldest}, the newest {newest}; freed: {} chunks of \
             changes with {} bytes, {} large values with {} bytes, {flushes} flushes; root before {}, after {}; \
             took {:.1} s",
            changes.count,
            changes.bytes,
            values.count,
            values.bytes,
            self.root_before,
            self.root_after,
            self.took.as_secs_f64(),
        )
    }
}

/// What prunings of a store have in common.
#[derive(Debug)]
pub(crate) struct Pruning {
    /// Held by one that goes on, and by whoever must find everything as it was.
    going_on: Mutex<()>,
    /// The version with which there is something to free: all of the newest ones that are kept are then behind the
    /// newest flush.
    due: AtomicU64,
    /// Whether the pruner is asked for; it ends when the store closes.
    asked: Mutex<bool>,
    told: Condvar,
    is_closed: AtomicBool,
}

impl Default for Pruning {
    fn default() -> Self {
        let (going_on, asked, told, is_closed) = <_>::default();
        Pruning { going_on, due: u64::MAX.into(), asked, told, is_closed }
    }
}

impl Pruning {
    /// Lets nothing be freed while it is held.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.going_on.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, bool> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the pruner.
    pub(crate) fn ask(&self) {
        *self.asked() = true;
        self.told.notify_all();
    }

    /// A version is shown.
    pub(crate) fn published(&self, version: Version) {
        if version.0 >= self.due.load(Ordering::Relaxed)
            && self.due.swap(u64::MAX, Ordering::Relaxed) < u64::MAX
        {
            self.ask();
        }
    }

    /// A version is flushed.
    pub(crate) fn flushed(&self, version: Version, retention: &Retention) {
        self.due.store(version.0.saturating_add(retention.last.get()), Ordering::Relaxed);
        self.ask();
    }

    /// Ends the pruner, and what it is doing.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.ask();
    }
}

/// Keeps what `retention` says, and frees the rest. `pace` waits after something that has taken since then; if it says
/// no more, the rest is left for the next one.
pub(crate) fn prune(
    shared: &Shared,
    writer: &Writer,
    retention: &Retention,
    pace: &dyn Fn(Instant) -> bool,
) -> Result<Receipt, Error> {
    let _going_on = shared.pruning.hold();
    let started = Instant::now();
    let (newest, root_before) = {
        let published = shared.published();
        (published.snapshot.version(), published.snapshot.root())
    };
    let dropped = shared.versions.retain(retention, newest, writer)?;
    let kept = shared.versions.kept();
    drop(shared.history.forget(&kept));
    let mut sweep = Sweep::new(&*shared.engine, writer, pace);
    sweep.run(&shared.versions, newest)?;
    let swept = sweep.swept;
    Ok(Receipt {
        dropped,
        oldest: kept.oldest(),
        flushes: swept.flushes,
        changes: swept.changes,
        values: swept.values,
        newest,
        root_before,
        root_after: version::read(&*shared.engine, newest)?.0.state(),
        took: started.elapsed(),
    })
}

/// Prunes by itself, on a thread of its own.
pub(crate) struct Pruner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) retention: Retention,
    /// Told what each did.
    pub(crate) done: Pruned,
}

impl Pruner {
    /// Prunes whenever it is asked to, until the store closes or fails.
    pub(crate) fn run(self) {
        let pruning = &self.shared.pruning;
        loop {
            let asked = pruning.told.wait_while(pruning.asked(), |asked| !*asked);
            *asked.unwrap_or_else(PoisonError::into_inner) = false;
            if pruning.is_closed.load(Ordering::Relaxed) || self.shared.failure().is_some() {
                return;
            }
            let receipt = prune(&self.shared, &self.writer, &self.retention, &|since| {
                self.rest(since.elapsed())
            });
            (self.done)(&receipt);
        }
    }

    /// Leaves to others as much time as it took; false if the store closes.
    fn rest(&self, took: Duration) -> bool {
        let is_closed = || self.shared.pruning.is_closed.load(Ordering::Relaxed);
        if !is_closed() {
            thread::sleep(took.min(REST_MAX));
        }
        !is_closed()
    }
}

/// The longest pause: what closes the store waits for its end.
const REST_MAX: Duration = Duration::from_millis(100);
