//! Pruning: versions that are not kept any more are refused from one moment on, and then freed bit by bit.

use std::{
    fmt,
    num::NonZeroU64,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anwansi_proofs::{Root, Version};

use super::{
    Freed, Keep,
    sweep::{Sweep, Swept},
};
use crate::{
    Error, Pruned,
    engine::Writer,
    flushes,
    ledger::dropped::{Dropped, drop_decided},
    store::Shared,
    tree::Pages,
    version,
};

/// The ledger is pruned again when so large a part of the versions has come whose decisions are kept, and no fewer than
/// these; and with each flush.
const LEDGER_PART: u64 = 8;
const LEDGER_VERSIONS_MIN: u64 = 64;

/// What a pruning did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// How many versions are not kept any more.
    pub dropped: u64,
    /// The oldest version that is kept.
    pub oldest: Version,
    /// How many flushes were deleted: trees of versions, in pages.
    pub flushes: u64,
    /// Changes of versions that were deleted, and what led back from versions, in chunks.
    pub changes: Freed,
    /// Values of more than 1 KiB that were deleted.
    pub values: Freed,
    /// Pages of trees that were deleted, together with those that were moved before.
    pub pages: Freed,
    /// The oldest version whose decisions the ledger keeps with all that led to them.
    pub oldest_decided: Version,
    /// How many transitions are dropped from the ledger now, but for their records.
    pub transitions: u64,
    /// How many entries of the ledger were deleted for them.
    pub entries: u64,
    /// Their results, and other blobs that only they needed, which were deleted.
    pub blobs: Freed,
    /// The newest version when it began.
    pub newest: Version,
    /// The newest version whose pages were stored when it was decided what to free.
    pub flushed: Version,
    /// The root of the state of that version, by its header.
    pub root_before: Root,
    /// The same after the pruning, by its pages as they are then stored.
    pub root_after: Root,
    /// How long it took.
    pub took: Duration,
    /// Whether everything was freed: if the store closed meanwhile, the rest is left for the next pruning.
    pub is_whole: bool,
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Receipt { dropped, oldest, flushes, changes, values, pages, newest, .. } = self;
        let Receipt { oldest_decided, transitions, entries, blobs, .. } = self;
        write!(
            f,
            "{dropped} versions dropped, the oldest kept is {oldest}, the newest {newest}; freed: {} chunks of \
             changes with {} bytes, {} large values with {} bytes, {} pages with {} bytes, {flushes} flushes; \
             {transitions} transitions dropped, decisions are kept from {oldest_decided} on; freed: {entries} \
             entries of the ledger, {} blobs with {} bytes; root of {} before {}, after {}; took {:.1} s{}",
            changes.count,
            changes.bytes,
            values.count,
            values.bytes,
            pages.count,
            pages.bytes,
            blobs.count,
            blobs.bytes,
            self.flushed,
            self.root_before,
            self.root_after,
            self.took.as_secs_f64(),
            if self.is_whole { "" } else { ", and the store closed before it was done" },
        )
    }
}

/// What prunings of a store have in common.
#[derive(Debug)]
pub(crate) struct Pruning {
    state: Mutex<State>,
    changed: Condvar,
    /// The version with which there is something to free: all of the newest ones that are kept are then behind the
    /// newest flush.
    due: AtomicU64,
    /// The version with which enough was decided since to drop some of the ledger again.
    ledger_due: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Whether one goes on, or something else that must find everything as it was.
    is_held: bool,
    /// Whether the pruner is asked for.
    is_asked: bool,
    is_closed: bool,
}

/// Lets nothing else be freed until it is dropped.
pub(crate) struct Held<'a>(&'a Pruning);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.state().is_held = false;
        self.0.changed.notify_all();
    }
}

impl Default for Pruning {
    fn default() -> Self {
        let (state, changed) = <_>::default();
        Pruning { state, changed, due: u64::MAX.into(), ledger_due: u64::MAX.into() }
    }
}

impl Pruning {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as `until` says.
    fn wait(&self, until: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let state = self.changed.wait_while(self.state(), |state| until(state));
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is freed, and lets nothing be freed while it is held.
    pub(crate) fn hold(&self) -> Held<'_> {
        self.wait(|state| state.is_held).is_held = true;
        Held(self)
    }

    /// The same; `None` if the store closes.
    fn hold_unless_closed(&self) -> Option<Held<'_>> {
        let mut state = self.wait(|state| state.is_held && !state.is_closed);
        if state.is_closed {
            return None;
        }
        state.is_held = true;
        Some(Held(self))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Asks for the pruner.
    pub(crate) fn ask(&self) {
        self.state().is_asked = true;
        self.changed.notify_all();
    }

    /// A version is shown.
    pub(crate) fn published(&self, version: Version) {
        for due in [&self.due, &self.ledger_due] {
            if version.0 >= due.load(Ordering::Relaxed)
                && due.swap(u64::MAX, Ordering::Relaxed) < u64::MAX
            {
                self.ask();
            }
        }
    }

    /// A version is flushed: it is time for the pruner, and again when all that is kept is newer.
    pub(crate) fn flushed(&self, version: Version, keep: &Keep) {
        if let Some(retention) = &keep.versions {
            self.due.store(version.0.saturating_add(retention.last.get()), Ordering::Relaxed);
        }
        if *keep != Keep::default() {
            self.ask();
        }
    }

    /// With `newest` all is dropped from the ledger that is not kept, as far as that is known.
    fn ledger_pruned(&self, newest: Version, kept: NonZeroU64) {
        let more = (kept.get() / LEDGER_PART).max(LEDGER_VERSIONS_MIN);
        self.ledger_due.store(newest.0.saturating_add(more), Ordering::Relaxed);
    }

    /// Ends the pruner, and what goes on.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }
}

/// Keeps what `keep` says, and frees the rest. `pace` waits after something that has taken since then; if it says
/// no more, the rest is left for the next one.
pub(crate) fn prune(
    shared: &Shared,
    writer: &Writer,
    keep: &Keep,
    pace: &dyn Fn(Instant) -> bool,
) -> Result<Receipt, Error> {
    let _held = shared.pruning.hold_unless_closed().ok_or(Error::Closed)?;
    let started = Instant::now();
    let newest = shared.published().snapshot.version();
    let failed = |error: &Error| shared.fail_if_unwritten(error);
    let versions = keep.versions.map_or(Ok(<_>::default()), |retention| {
        shared.undo.keep(&retention);
        let dropped = shared.versions.retain(&retention, newest, writer)?;
        drop(shared.history.forget(&shared.versions.kept()));
        let swept = Sweep::new(shared, writer, pace).run()?;
        Ok((dropped, swept))
    });
    // What is damaged among the versions keeps nothing of the ledger.
    let decided = keep.decided.map_or(Ok(Dropped::default()), |kept| {
        shared.pruning.ledger_pruned(newest, kept);
        drop_decided(shared, writer, kept, pace)
    });
    let (dropped, swept) = versions.inspect_err(failed)?;
    let Dropped { transitions, entries, blobs, is_ended } = decided.inspect_err(failed)?;
    let Swept { flushes, changes, values, pages, newest: flush, is_ended: is_ended_before } = swept;
    let flush = match flush {
        Some(flush) => Some(flush),
        None => flushes::newest(&*shared.engine, newest)?.map(|(flush, _)| flush),
    };
    let flushed = flush.map_or(Version(0), |flush| flush.version);
    let kept = shared.versions.kept();
    Ok(Receipt {
        dropped,
        oldest: kept.oldest(),
        flushes,
        changes,
        values,
        pages,
        oldest_decided: shared.desk.horizon(),
        transitions,
        entries,
        blobs,
        newest,
        flushed,
        root_before: version::read(&*shared.engine, flushed)?.0.state(),
        root_after: root_of(shared, flushed)?,
        took: started.elapsed(),
        is_whole: !is_ended && !is_ended_before,
    })
}

/// The root of a flushed version's state, from its pages.
fn root_of(shared: &Shared, flushed: Version) -> Result<Root, Error> {
    let Some((flush, bytes)) = flushes::newest(&*shared.engine, flushed)? else {
        return Ok(Root::empty());
    };
    // In no memory that the store has: it is read from storage.
    let pages = Pages::new(shared.engine.clone(), 0, shared.pages.threads().clone());
    let tree = flushes::tree(&pages, (&flush, &bytes))?;
    // Its top page is read, and hashed again.
    tree.find(&pages, &[0])?;
    Ok(tree.root())
}

/// Prunes by itself, on a thread of its own.
pub(crate) struct Pruner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) keep: Keep,
    /// Told what each did.
    pub(crate) done: Pruned,
}

impl Pruner {
    /// Prunes whenever it is asked to, until the store closes or fails.
    pub(crate) fn run(self) {
        let pruning = &self.shared.pruning;
        loop {
            let mut state = pruning.wait(|state| !state.is_asked && !state.is_closed);
            state.is_asked = false;
            drop(state);
            if pruning.is_closed() || self.shared.failure().is_some() {
                return;
            }
            let pace = |since: Instant| self.rest(since.elapsed());
            match prune(&self.shared, &self.writer, &self.keep, &pace) {
                Err(Error::Closed) => return,
                // If that panics it is its own affair, and was reported where it happened.
                receipt => drop(catch_unwind(AssertUnwindSafe(|| (self.done)(&receipt)))),
            }
        }
    }

    /// Leaves to others as much time as it took; false if the store closes.
    fn rest(&self, took: Duration) -> bool {
        let is_closed = || self.shared.pruning.is_closed();
        if !is_closed() {
            thread::sleep(took.min(REST_MAX));
        }
        !is_closed()
    }
}

/// The longest pause: what closes the store waits for its end.
const REST_MAX: Duration = Duration::from_millis(100);
