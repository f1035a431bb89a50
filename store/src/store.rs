//! The store: what is shared between its threads, and the handle that callers hold.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, PoisonError, RwLock,
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle, ThreadId},
};

use anwansi_proofs::{
    Change, Evidence, Note, Origin, Part, Question, Version, Vkey,
    log::{Bundle, Tile},
    prove_update,
};
use bytes::Bytes;

use crate::{
    Error, Options,
    check::{self, Report},
    commit::{self, Answer, Commit, Committed, Job, Jobs, Work},
    engine::{Engine, Writer},
    finality::{Finality, Published},
    flush, flushes,
    history::History,
    keys::LogKey,
    ledger::{Desk, Ledger, step::Step},
    log::Log,
    record::ChunkKind,
    recover,
    retention::{Hold, Keep, Pruning, Receipt, Versions, prune},
    segments::Segments,
    snapshot::{self, At, Pair, Snapshot, Which, prove_tasks},
    threads,
    transaction::{Reads, Transaction},
    tree::{Pages, Write},
    undo::Undo,
    version,
};

/// Commits that wait to be looked at, at most; then callers wait.
const QUEUE_COMMITS_MAX: usize = 4096;

/// A store of versions, open for writing. A handle: clones share it, the last one closes it.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    threads: Arc<Threads>,
}

/// What the store's threads share.
pub(crate) struct Shared {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) pages: Arc<Pages>,
    pub(crate) key: LogKey,
    pub(crate) clock: Clock,
    pub(crate) history: History,
    pub(crate) flush: flush::Trigger,
    pub(crate) versions: Versions,
    pub(crate) segments: Segments,
    pub(crate) pruning: Pruning,
    pub(crate) undo: Undo,
    /// What readers see.
    published: RwLock<Arc<Published>>,
    /// Told when it changes.
    changed: (Mutex<()>, Condvar),
    /// The first failure of a write: nothing is written after it.
    failure: Mutex<Option<Error>>,
    /// Requests that a flush has found to be too old to be remembered.
    forgettable: Mutex<Vec<Bytes>>,
    /// The open transitions.
    pub(crate) desk: Desk,
    /// Told of each new version, and of each change of the ledger.
    listeners: Mutex<Vec<Listener>>,
}

/// Told that something may have changed.
pub(crate) type Listener = Box<dyn Fn() + Send + Sync>;

/// Milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

impl Shared {
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        pages: Arc<Pages>,
        (key, clock): (LogKey, Clock),
        flush: flush::Trigger,
        (versions, segments, undo): (Versions, Segments, Undo),
        (at, log): (Arc<At>, Log),
        desk: Desk,
    ) -> Self {
        let snapshot = Snapshot { version: at, pages: pages.clone(), engine: engine.clone() };
        let root = log.root();
        let published = RwLock::new(Arc::new(Published::signed(&key, snapshot, log, &root)));
        let history = History::default();
        let (changed, failure, forgettable, listeners, pruning) = <_>::default();
        Shared {
            engine,
            pages,
            key,
            clock,
            history,
            flush,
            versions,
            segments,
            pruning,
            undo,
            published,
            changed,
            failure,
            forgettable,
            desk,
            listeners,
        }
    }

    pub(crate) fn published(&self) -> Arc<Published> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows a durable version to readers, which changed so many bytes and replaced so many bytes of pages. Gives the
    /// versions that are kept in memory no longer, for whoever has the time to drop them.
    pub(crate) fn publish(
        &self,
        published: Published,
        bytes: u64,
        replaced: usize,
    ) -> Vec<Arc<At>> {
        let published = Arc::new(published);
        let snapshot = published.snapshot.clone();
        let before = std::mem::replace(
            &mut *self.published.write().unwrap_or_else(PoisonError::into_inner),
            published,
        );
        let gone = self.history.remember(&before.snapshot, replaced);
        let (lock, condvar) = &self.changed;
        drop(lock.lock().unwrap_or_else(PoisonError::into_inner));
        condvar.notify_all();
        self.announce();
        self.pruning.published(snapshot.version());
        self.flush.after(bytes, snapshot.bytes(), self.pages.unstored_bytes());
        gone
    }

    /// Tells all who listen that something may have changed.
    pub(crate) fn announce(&self) {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.iter() {
            // Its own affair, and reported where it happened.
            let _ = catch_unwind(AssertUnwindSafe(listener));
        }
    }

    pub(crate) fn failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing more is written after a failed write; other errors are their callers' affair.
    pub(crate) fn fail_if_unwritten(&self, error: &Error) {
        if let Error::Engine(_) = error {
            self.fail(error);
        }
    }

    pub(crate) fn fail(&self, error: &Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| error.clone());
    }
}

impl Shared {
    /// Takes the requests that may be forgotten.
    pub(crate) fn forgettable(&self) -> Vec<Bytes> {
        std::mem::take(&mut *self.forgettable.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn forget(&self, requests: Vec<Bytes>) {
        *self.forgettable.lock().unwrap_or_else(PoisonError::into_inner) = requests;
    }
}

/// The store's threads, ended when the last handle is dropped.
pub(crate) struct Threads {
    /// To the committer; gone once the store closes. With it all other threads end.
    pub(crate) jobs: Mutex<Option<Jobs>>,
    /// Of what the ledger is told between versions; gone once the store closes.
    pub(crate) writer: Mutex<Option<Arc<Writer>>>,
    /// Those that are waited for; emptied by whoever waits first.
    pub(crate) handles: Mutex<Vec<JoinHandle<()>>>,
    /// All of the store's own threads: none of them can wait for the others.
    pub(crate) own: Vec<ThreadId>,
    pub(crate) shared: Arc<Shared>,
}

impl Store {
    /// Opens the store in `engine`, or makes a new one there; what a crash left is put in order.
    ///
    /// # Errors
    /// [`Error::OtherFormat`], [`Error::OtherLog`], [`Error::WentBack`], [`Error::Damaged`], and those of
    /// the engine.
    ///
    /// # Cost
    /// Reads the pages that are needed, and applies the changes since the last flush again: about two seconds for a
    /// million of them if a million entries are stored, five if ten million are. After a clean close there are none.
    pub fn open(engine: Arc<dyn Engine>, key: LogKey, options: &Options) -> Result<Self, Error> {
        recover::open(engine, key, options)
    }

    pub(crate) fn new(shared: Arc<Shared>, threads: Threads) -> Self {
        Store { shared, threads: Arc::new(threads) }
    }

    pub(crate) fn queue() -> (SyncSender<Job>, std::sync::mpsc::Receiver<Job>) {
        sync_channel(QUEUE_COMMITS_MAX)
    }

    /// The newest version.
    #[must_use]
    pub fn latest(&self) -> Snapshot {
        self.shared.published().snapshot.clone()
    }

    /// The newest version together with its checkpoint, whatever comes after them.
    #[must_use]
    pub fn published(&self) -> Arc<Published> {
        self.shared.published()
    }

    /// The version `version`.
    ///
    /// # Errors
    /// [`Error::NoSuchVersion`], [`Error::Pruned`]; [`Error::Busy`] if too many old versions are in use; those of
    /// storage.
    ///
    /// # Cost
    /// Nothing for the newest ones; for others the changes since a flush, or since a version that is open, are applied
    /// again, or undone.
    pub fn at(&self, version: Version) -> Result<Snapshot, Error> {
        let published = self.shared.published();
        let (shared, newest) = (&self.shared, &published.snapshot);
        let _opening = shared.versions.open(version, newest.version())?;
        shared.history.open(newest, version, &shared.versions)
    }

    /// Commits, and waits until the commit is durable and in a signed checkpoint.
    ///
    /// # Errors
    /// [`Error::KeyLength`], [`Error::ValueTooLarge`], [`Error::ReservedKey`], [`Error::KeyTwice`],
    /// [`Error::NoWrites`], [`Error::CommitTooLarge`], [`Error::Conflict`],
    /// [`Error::UnexpectedVersion`], [`Error::RequestMismatch`]: then nothing happened.
    /// [`Error::Engine`]: then it is unknown, and the store answers no commit until it is opened again.
    pub fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        self.commit_if(commit, Reads::default())
    }

    /// Commits if everything in `reads` is still as it was.
    pub(crate) fn commit_if(&self, commit: Commit, reads: Reads) -> Result<Committed, Error> {
        let (answer, awaited) = commit::answer();
        self.send(commit, reads, answer);
        awaited.wait()
    }

    /// As [`commit`](Self::commit), without waiting: `answer` is called once.
    ///
    /// It waits only while the queue is full, so it must not be called by an answer.
    pub fn commit_then(&self, commit: Commit, answer: Answer) {
        self.send(commit, Reads::default(), answer);
    }

    fn send(&self, mut commit: Commit, reads: Reads, answer: Answer) {
        match commit.prepare() {
            Ok(()) => self.send_work(Work::Commit { commit, reads }, answer),
            Err(error) => answer(Err(error)),
        }
    }

    /// Lets the ledger take a step, and waits until it is durable and in a signed checkpoint.
    pub(crate) fn step(&self, step: Step) -> Result<Committed, Error> {
        let (answer, awaited) = commit::answer();
        self.send_work(Work::Step(step), answer);
        awaited.wait()
    }

    fn send_work(&self, work: Work, answer: Answer) {
        let jobs = self.threads.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match jobs {
            Some(jobs) => jobs.send(work, answer),
            None => answer(Err(Error::Closed)),
        }
    }

    /// Begins a transaction on the newest version.
    #[must_use]
    pub fn begin(&self) -> Transaction {
        Transaction::new(self.clone(), self.latest())
    }

    /// The changes of a version, in key order: new values, and `None` where a key was removed.
    ///
    /// # Errors
    /// [`Error::NoSuchVersion`], [`Error::Pruned`] and those of storage.
    pub fn changes(&self, version: Version) -> Result<Vec<(Bytes, Option<Bytes>)>, Error> {
        let (writes, _opening) = self.writes(version)?;
        let value = |write: Write| {
            let value = write.value.map(|value| self.shared.pages.value(&value)).transpose()?;
            Ok((write.key, value))
        };
        writes.into_iter().map(value).collect()
    }

    /// What a version writes, and a hold on the values of it.
    fn writes(&self, version: Version) -> Result<(Vec<Write>, Hold<Version>), Error> {
        let opening = self.shared.versions.open(version, self.latest().version())?;
        let engine = &*self.shared.engine;
        let (_, record) = version::read(engine, version)?;
        let writes = version::read_chunks(engine, version, ChunkKind::State, &record)?;
        Ok((writes, opening))
    }

    /// The proof over the version before `version` from which this version's root follows, with its
    /// changes. Version 0 has no changes: its proof is that of the empty tree.
    ///
    /// # Errors
    /// As of [`at`](Self::at) and [`changes`](Self::changes).
    pub fn update_proof(&self, version: Version) -> Result<Vec<u8>, Error> {
        let (writes, _opening) = self.writes(version)?;
        // Which nodes are needed depends on whether keys get a value, not on which: none is read.
        let value = |write: &Write| write.value.as_ref().map(|_| &[][..]);
        let changes = writes.iter().map(|write| Change { key: &write.key, value: value(write) });
        let changes = changes.collect::<Vec<_>>();
        let before = self.at(Version(version.0.saturating_sub(1)))?;
        prove_update(&before.source(), &changes)
    }

    /// The entries of the tasks tree of a version, in key order: what [`Snapshot::tasks`] gives, without the
    /// cost of opening the version.
    ///
    /// # Errors
    /// [`Error::NoSuchVersion`] and those of storage.
    pub fn tasks(&self, version: Version) -> Result<Vec<Pair>, Error> {
        let newest = self.latest().version();
        if version > newest {
            return Err(Error::NoSuchVersion { version, newest });
        }
        snapshot::tasks(&*self.shared.engine, &self.shared.pages, version)
    }

    /// The newest checkpoint, signed.
    #[must_use]
    pub fn checkpoint(&self) -> Note {
        self.shared.published().checkpoint.clone()
    }

    /// The texts of the headers from `first` on, at most `limit`.
    ///
    /// # Errors
    /// Those of storage.
    pub fn headers(&self, first: Version, limit: usize) -> Result<Vec<String>, Error> {
        let newest = self.latest().version();
        let end = first.0.saturating_add(limit as u64).min(newest.0 + 1);
        let header = |version| Ok(version::read(&*self.shared.engine, Version(version))?.1.header);
        (first.0..end).map(header).collect()
    }

    /// The header of a version, and the proof that it is in the log under the newest checkpoint.
    ///
    /// # Errors
    /// [`Error::NoSuchVersion`] and those of storage.
    pub fn finality(&self, version: Version) -> Result<Arc<Finality>, Error> {
        self.published().finality(version)
    }

    /// Evidence that answers `question` at `version`, under the newest checkpoint.
    ///
    /// # Errors
    /// As of [`at`](Self::at).
    pub fn evidence(
        &self,
        version: Version,
        which: Which,
        question: &Question,
    ) -> Result<Evidence, Error> {
        let (state, tasks) = match which {
            Which::State => (Some(self.at(version)?.prove(which, question)?), None),
            Which::Tasks => (None, Some(prove_tasks(self.tasks(version)?, question))),
        };
        let finality = self.finality(version)?;
        Ok(Evidence::new(Part { state, tasks, ..finality.part() }))
    }

    /// The bytes of a tile of the log; `None` if the log is not that long yet.
    ///
    /// # Errors
    /// Those of storage.
    pub fn tile(&self, tile: Tile) -> Result<Option<Bytes>, Error> {
        self.shared.published().log.tile(&*self.shared.engine, tile)
    }

    /// The bytes of a bundle of the log's entries; `None` if the log is not that long yet.
    ///
    /// # Errors
    /// Those of storage.
    pub fn bundle(&self, bundle: Bundle) -> Result<Option<Vec<u8>>, Error> {
        let first = bundle.index() * u64::from(anwansi_proofs::log::TILE_WIDTH);
        if first + u64::from(bundle.width()) > self.latest().version().0 + 1 {
            return Ok(None);
        }
        let entries = self.headers(Version(first), bundle.width().into())?;
        Ok(Some(bundle.encode(&entries).expect("headers are short, and as many as asked for")))
    }

    /// Waits until a version newer than `seen` is there, or the store is closed.
    #[must_use]
    pub fn wait_for_newer(&self, seen: Version, at_most: std::time::Duration) -> Option<Snapshot> {
        let (lock, condvar) = &self.shared.changed;
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = || self.shared.desk.is_closed();
        let waiting = |(): &mut ()| self.latest().version() <= seen && !closed();
        drop(condvar.wait_timeout_while(guard, at_most, waiting));
        let latest = self.latest();
        (latest.version() > seen).then_some(latest)
    }

    /// Calls `listener` after each new version and each change of the ledger, on a thread of the store, and
    /// sometimes when nothing has changed. It must not block, nor call the store: it may only wake others.
    pub fn listen(&self, listener: impl Fn() + Send + Sync + 'static) {
        let listeners = self.shared.listeners.lock();
        listeners.unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    /// The ledger of transitions and their tasks.
    #[must_use]
    pub fn ledger(&self) -> Ledger<'_> {
        Ledger::new(self)
    }

    /// Of what the ledger is told between versions.
    pub(crate) fn writer(&self) -> Result<Arc<Writer>, Error> {
        let writer = self.threads.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.clone().ok_or(Error::Closed)
    }

    /// Reads and hashes again everything that is stored, and names what is damaged. Readers and writers
    /// go on meanwhile; `progress` is told of each version looked at and how many there are. Prunings wait until it is
    /// done: `progress` must not ask for one.
    ///
    /// # Errors
    /// If storage fails; damage is no error but in the report.
    pub fn check(&self, progress: impl FnMut(u64, u64) + Send) -> Result<Report, Error> {
        threads::aside(|| check::check(&self.shared, progress))?
    }

    /// Writes the pages of the newest version, so that the next opening is quick. Also done by itself,
    /// now and then, and on closing.
    ///
    /// # Errors
    /// Those of storage, and [`Error::Closed`].
    pub fn flush(&self) -> Result<(), Error> {
        self.flush_now(false)
    }

    fn flush_now(&self, is_pruning: bool) -> Result<(), Error> {
        let flushed = self.shared.flush.now(is_pruning);
        match self.shared.failure() {
            Some(failure) => Err(failure),
            None if flushed => Ok(()),
            None => Err(Error::Closed),
        }
    }

    /// Keeps from now on what `keep` says (a [`Retention`](crate::Retention) is a rule for versions alone) and what is
    /// pinned, and frees what all other versions leave, and what led to all other decisions. Readers and writers go on
    /// meanwhile; whoever has a version open that is not kept any more goes on reading it, and what it needs is freed by a
    /// later pruning. If versions are not all kept, the newest one is flushed first. No root changes.
    ///
    /// # Errors
    /// Those of storage: then the versions to be dropped are dropped or not, none that is kept has lost anything, and the
    /// next pruning frees what is left.
    ///
    /// # Cost
    /// Reads and deletes what is freed.
    pub fn prune(&self, keep: impl Into<Keep>) -> Result<Receipt, Error> {
        let keep = keep.into();
        if keep.versions.is_some() {
            self.flush_now(true)?;
            let flush = flushes::newest(&*self.shared.engine, self.latest().version())?;
            // What keeps older pages in memory keeps them in storage.
            drop(flush.map(|(flush, _)| self.shared.history.forget_behind(&flush)));
        }
        prune(&self.shared, &*self.writer()?, &keep, &|_| !self.shared.pruning.is_closed())
    }

    /// Keeps a version until it is unpinned, whatever the retention is.
    ///
    /// # Errors
    /// [`Error::NoSuchVersion`], [`Error::Pruned`] and those of storage.
    pub fn pin(&self, version: Version) -> Result<(), Error> {
        let newest = self.latest().version();
        if version > newest {
            return Err(Error::NoSuchVersion { version, newest });
        }
        let pinned = self.shared.versions.pin(version, &*self.writer()?);
        pinned.inspect_err(|error| self.shared.fail_if_unwritten(error))
    }

    /// Lets the retention decide again about a version; false if it was not pinned.
    ///
    /// # Errors
    /// Those of storage.
    pub fn unpin(&self, version: Version) -> Result<bool, Error> {
        let unpinned = self.shared.versions.unpin(version, &*self.writer()?);
        unpinned.inspect_err(|error| self.shared.fail_if_unwritten(error))
    }

    /// The versions that are pinned, in order.
    #[must_use]
    pub fn pins(&self) -> Vec<Version> {
        self.shared.versions.pins()
    }

    /// The oldest version that is kept: not all between it and the newest need be.
    #[must_use]
    pub fn oldest(&self) -> Version {
        self.shared.versions.kept().oldest()
    }

    /// The name of the log.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        self.shared.key.origin()
    }

    /// The key that the log's checkpoints are verified with.
    #[must_use]
    pub fn vkey(&self) -> &Vkey {
        self.shared.key.vkey()
    }

    /// The engine below.
    #[must_use]
    pub fn engine(&self) -> &dyn Engine {
        &*self.shared.engine
    }

    /// Why the store takes no more commits; `None` while it does.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.shared.failure()
    }

    /// Takes no more commits, finishes those that were accepted, flushes, and ends the threads.
    ///
    /// # Errors
    /// Why the last writes failed, if they did.
    pub fn close(&self) -> Result<(), Error> {
        self.threads.close();
        self.shared.failure().map_or(Ok(()), Err)
    }
}

impl Threads {
    fn close(&self) {
        self.shared.desk.close();
        self.shared.pruning.close();
        let (lock, condvar) = &self.shared.changed;
        drop(lock.lock().unwrap_or_else(PoisonError::into_inner));
        condvar.notify_all();
        drop(self.writer.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        // The last handle may be dropped by an answer, on one of these threads: they end by themselves.
        if self.own.contains(&thread::current().id()) {
            return;
        }
        // Held while waiting, so that a second caller returns no earlier than the first.
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        for handle in handles.drain(..) {
            handle.join().expect("the store's threads do not panic");
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.origin();
        f.debug_struct("Store").field("origin", origin).field("latest", &self.latest()).finish()
    }
}
