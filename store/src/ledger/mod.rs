//! The ledger: transitions split into tasks, the votes of the nodes that were drawn for them, decisions.
//!
//! ```text
//!   callers            check signatures, then under the lock:         Ledger         votes.rs
//!     |                pledge, reveal                                 Book, Task     book.rs, task.rs
//!     |                  -> a batch of their own, answered when durable              journal.rs
//!     |
//!   clerk (a thread)   what is complete or out of time:               Clerk          clerk.rs
//!     |                  closings, decisions -> a step                Step, Decision step.rs, decide.rs
//!     |                  ends of rounds -> a batch
//!     v
//!   committer          the step joins a version: state, records and journal in one batch
//! ```
//!
//! What was decided is kept whole as long as the store is told to, and then dropped (dropped.rs).
//!
//! Opening reads the journal back and applies it by the code that applied it first. A phase that was under
//! way gets its full time again, so that a restart blames no node.

mod blobs;
mod book;
pub(crate) mod check;
mod clerk;
mod decide;
pub(crate) mod dropped;
mod evidence;
mod fold;
mod journal;
mod nodes;
mod refusal;
pub(crate) mod step;
mod submit;
mod task;
mod view;
mod votes;

use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use anwansi_proofs::{
    Digest, NodeKey, Proof, Spec, TransitionId, Version, path::after_prefix, registry::NODE_PREFIX,
};

use self::book::{Book, Open};
pub(crate) use self::clerk::Clerk;
pub use self::{
    book::{OPEN_DRAWS_MAX, OPEN_MAX, OPEN_SPEC_BYTES_MAX, OPEN_TASKS_MAX},
    decide::RESULTS_BYTES_MAX,
    fold::OwnFold,
    nodes::Node,
    refusal::Refusal,
    step::STATE_BYTES_MAX,
    submit::Submitted,
    view::{Assignment, Equivocation, Load, Progress, Stage, TaskProgress, Turn},
};
use crate::{Damage, Error, Options, Store, engine::Engine, record, store::Clock, version};

/// Tasks of one transition, at most.
pub const TASKS_MAX: usize = 10_000;
/// Nodes that the tasks of one transition may draw, at most: tasks times `nodes_max`. So evidence stays within
/// its own limit.
pub const DRAWS_MAX: usize = 300_000;
/// Nodes that are registered at once, at most: a proof of them all is kept with every transition.
pub const REGISTERED_MAX: usize = 100_000;
/// The longest result of a task, in bytes.
pub const RESULT_BYTES_MAX: usize = 1 << 20;
/// The longest blob, in bytes.
pub const BLOB_BYTES_MAX: usize = 16 << 20;

/// The open transitions, with what they need of the outside.
pub(crate) struct Desk {
    book: Mutex<Book>,
    /// Told, with the lock of the book, when something may be due.
    due: Condvar,
    closed: AtomicBool,
    /// Milliseconds since some moment.
    uptime: Clock,
    folds: Vec<Arc<dyn OwnFold>>,
    /// The registry of the newest transition: most are opened under the same.
    registry: Mutex<Arc<[NodeKey]>>,
    /// From which version on decisions are kept; those before are dropped. It never goes back.
    horizon: AtomicU64,
}

impl Desk {
    /// The oldest version whose decisions are kept.
    pub(crate) fn horizon(&self) -> Version {
        Version(self.horizon.load(Ordering::SeqCst))
    }

    /// Drops what was decided before, once that is durable.
    fn raise_horizon(&self, horizon: Version) {
        self.horizon.fetch_max(horizon.0, Ordering::SeqCst);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A registry, in the memory of the one before if it is the same.
    fn share(&self, registry: Arc<[NodeKey]>) -> Arc<[NodeKey]> {
        let mut last = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != registry {
            *last = registry;
        }
        last.clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Ends the clerk.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        drop(self.book());
        self.due.notify_all();
    }
}

/// Reads the open transitions back from what is stored.
///
/// # Errors
/// [`Error::Damaged`] if it cannot have happened as it is written, and those of storage.
pub(crate) fn recover(engine: &dyn Engine, options: &Options) -> Result<Desk, Error> {
    let desk = Desk {
        book: Mutex::default(),
        due: Condvar::new(),
        closed: AtomicBool::new(false),
        uptime: options.uptime.clone(),
        folds: options.folds.clone(),
        registry: Mutex::new([].into()),
        horizon: journal::horizon(engine)?.0.into(),
    };
    let now = (desk.uptime)();
    for id in journal::open(engine)? {
        let (mut open, record) = replay(engine, &id)?;
        if record.decided.is_some() {
            return Err(Error::Damaged(Damage::Transition(id)));
        }
        open.registry = desk.share(open.registry);
        let mut book = desk.book();
        // It had room when it was opened, whatever the limits are now.
        let _ = book.take_room(&open.spec);
        book.add(open, now);
    }
    Ok(desk)
}

/// A transition as it was last, by all that happened to it.
fn replay(engine: &dyn Engine, id: &TransitionId) -> Result<(Open, record::Transition), Error> {
    let damaged = || Error::Damaged(Damage::Transition(*id));
    let record = journal::transition(engine, id)?.ok_or_else(damaged)?;
    let opened = Version(record.opened);
    let (spec, header) = (read_spec(engine, id)?, version::read(engine, opened)?.0);
    let registry = registry(engine, opened)?;
    if registry.len() < spec.policy.lead as usize {
        return Err(damaged());
    }
    let mut open = Open::new(Arc::new(spec), opened, header.digest(), registry);
    for (at, fact) in journal::facts(engine, id)? {
        open.replay(&at, &fact).ok_or_else(damaged)?;
    }
    Ok((open, record))
}

/// The specification of a transition that was opened.
fn read_spec(engine: &dyn Engine, id: &TransitionId) -> Result<Spec, Error> {
    let damaged = Error::Damaged(Damage::Transition(*id));
    let bytes = journal::spec(engine, id)?.ok_or(damaged.clone())?;
    let spec = Spec::parse(bytes.into()).map_err(|_| damaged.clone())?;
    if spec.id() == *id { Ok(spec) } else { Err(damaged) }
}

/// The nodes that were registered in a version, in the order of their keys.
fn registry(engine: &dyn Engine, opened: Version) -> Result<Arc<[NodeKey]>, Error> {
    let damaged = || Error::Damaged(Damage::Registry(opened));
    let proof = journal::registry(engine, opened)?;
    let state = version::read(engine, opened)?.0.state();
    let shown = Proof::decode(&proof).and_then(|proof| proof.verify(&state));
    let shown = shown.map_err(|_| damaged())?;
    let end = after_prefix(NODE_PREFIX);
    let keys = shown.keys(NODE_PREFIX, end.as_deref()).map_err(|_| damaged())?;
    let node = |key: &[u8]| Some(NodeKey(key[NODE_PREFIX.len()..].try_into().ok()?));
    keys.into_iter().map(node).collect::<Option<_>>().ok_or_else(damaged)
}

/// The ledger of a store.
///
/// Whatever is acknowledged is durable. Repeats of what was taken are answered as the first was.
pub struct Ledger<'a> {
    store: &'a Store,
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Ledger { store }
    }

    fn engine(&self) -> &dyn Engine {
        &*self.store.shared.engine
    }

    fn desk(&self) -> &Desk {
        &self.store.shared.desk
    }

    /// The oldest version whose decisions are kept with all that led to them. Of those before, records and state are.
    #[must_use]
    pub fn oldest(&self) -> Version {
        self.desk().horizon()
    }

    /// What was `read` of a transition, if that is not dropped by now: it is dropped before anything of it is deleted,
    /// so what was read is whole.
    fn if_kept<T>(&self, id: &TransitionId, read: Result<T, Error>) -> Result<T, Error> {
        let oldest = self.oldest();
        let decided = journal::transition(self.engine(), id)?.and_then(|record| record.decided);
        match decided.map(|decided| Version(decided.version)) {
            Some(decided) if decided < oldest => {
                Err(Refusal::Dropped { id: *id, decided, oldest }.into())
            }
            _ => read,
        }
    }

    /// The digest of the header of the version that opened a transition; [`Refusal::TooEarly`] if that
    /// version is on its way still.
    fn known(&self, id: &TransitionId) -> Result<Digest, Error> {
        if let Some(open) = self.desk().book().get(id) {
            return Ok(open.header);
        }
        let record = journal::transition(self.engine(), id)?;
        let record = record.ok_or(Refusal::UnknownTransition { id: *id })?;
        if record.decided.is_none() {
            // It leaves the book when its decision is durable: it was not there yet.
            return Err(Refusal::TooEarly.into());
        }
        Ok(version::read(self.engine(), Version(record.opened))?.0.digest())
    }
}
