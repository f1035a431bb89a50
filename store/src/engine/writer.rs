//! The writer: one thread that makes batches durable, many at a time, in order.
//!
//! ```text
//! write(a) write(b) write(c)  ->  queue  ->  write a, write b, write c, one sync  ->  a, b, c done
//! ```
//!
//! While the thread syncs, the queue fills; what has gathered meanwhile shares the next sync. So the
//! cost of a sync is split among as many as wait for it, without anyone waiting for company.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle, ThreadId},
};

use super::{Batch, Engine, EngineError};

/// Batches that wait in the queue, at most.
pub const QUEUE_BATCHES_MAX: usize = 256;

/// Bytes of batches that wait in the queue, at most. A larger batch waits for the queue to empty.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Writes batches to an engine in the order given, and acknowledges each when it is durable.
///
/// After a failure it is poisoned: all that is in flight and all that is asked later is answered
/// [`EngineError::Poisoned`], and nothing more reaches the engine. Dropping it finishes what was
/// queued, and waits for that.
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    thread_id: ThreadId,
    #[expect(dead_code, reason = "given back when it is dropped, last")]
    only: Only,
}

/// The engines that are written to in this process, by address. An engine's lock keeps other processes
/// out; this keeps out a second writer of the same handle, who would make a second history.
static WRITTEN: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// The right to write to an engine. It keeps the engine, so that no other one gets the address before.
struct Only(Arc<dyn Engine>);

impl Only {
    fn take(engine: &Arc<dyn Engine>) -> Result<Self, EngineError> {
        let mut written = WRITTEN.lock().expect(UNPOISONED);
        if written.contains(&address(engine)) {
            return Err(EngineError::Locked { path: engine.name().into() });
        }
        written.push(address(engine));
        Ok(Only(engine.clone()))
    }
}

fn address(engine: &Arc<dyn Engine>) -> usize {
    Arc::as_ptr(engine).cast::<()>().addr()
}

impl Drop for Only {
    fn drop(&mut self) {
        WRITTEN.lock().expect(UNPOISONED).retain(|written| *written != address(&self.0));
    }
}

/// A batch on its way. Dropping the ticket does not stop the batch.
#[derive(Debug)]
#[must_use = "a batch is durable only after its ticket says so"]
pub struct Ticket {
    outcome: Arc<Outcome>,
}

type Done = Box<dyn FnOnce(Result<(), EngineError>) + Send>;

/// What callers and the thread share.
struct Shared {
    queue: Mutex<Queue>,
    /// Told when the thread may find something new: a job, or the end.
    filled: Condvar,
    /// Told when callers may find room, or poison.
    emptied: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
    closed: bool,
    poison: Option<EngineError>,
}

struct Job {
    batch: Batch,
    done: Done,
}

impl Writer {
    /// Starts the thread. Nothing else may write to `engine` while it runs.
    ///
    /// # Errors
    /// [`EngineError::Locked`] if there is a writer for this engine already; [`EngineError::Io`] if the operating system has no thread to give.
    pub fn new(engine: Arc<dyn Engine>) -> Result<Self, EngineError> {
        let only = Only::take(&engine)?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        });
        let thread = thread::Builder::new()
            .name(format!("{} writer", engine.name()))
            .spawn({
                let shared = Arc::clone(&shared);
                move || {
                    let _last = Last(&shared);
                    run(&shared, &*engine);
                }
            })
            .map_err(EngineError::io("starting the writer's thread"))?;
        Ok(Self { shared, thread_id: thread.thread().id(), thread: Some(thread), only })
    }

    /// Returns the thread on which batches are written and callbacks run.
    #[must_use]
    pub fn thread_id(&self) -> ThreadId {
        self.thread_id
    }

    /// Queues `batch` and returns its ticket. Blocks while the queue is full.
    pub fn write(&self, batch: Batch) -> Ticket {
        let outcome = Arc::new(Outcome::default());
        let promise = Promise(Arc::clone(&outcome));
        self.write_then(batch, move |result| promise.keep(result));
        Ticket { outcome }
    }

    /// Queues `batch` and calls `done` with what its ticket would say. Blocks while the queue is full.
    ///
    /// `done` runs on the writer's thread, or at once on this one if the writer is poisoned: it
    /// holds up all that come after it. It is dropped uncalled only if the writer's thread panics.
    ///
    /// # Panics
    /// If called by such a `done`: the writer would wait for itself when the queue is full.
    pub fn write_then(
        &self,
        batch: Batch,
        done: impl FnOnce(Result<(), EngineError>) + Send + 'static,
    ) {
        assert!(thread::current().id() != self.thread_id, "the writer does not write to itself");
        let mut queue = self.shared.queue();
        while queue.poison.is_none() && !queue.has_room(&batch) {
            queue = self.shared.emptied.wait(queue).expect(UNPOISONED);
        }
        if let Some(poison) = queue.poison.clone() {
            drop(queue);
            return done(Err(poison));
        }
        queue.bytes += batch.bytes();
        queue.jobs.push_back(Job { batch, done: Box::new(done) });
        self.shared.filled.notify_one();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.filled.notify_one();
        // Dropped by a `done`, it cannot wait for its own thread; that ends by itself.
        if let Some(thread) = self.thread.take()
            && thread::current().id() != self.thread_id
        {
            // A panic there has been answered by `Last`, and reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.shared.queue();
        f.debug_struct("Writer")
            .field("queued", &queue.jobs.len())
            .field("poison", &queue.poison)
            .finish_non_exhaustive()
    }
}

impl Ticket {
    /// Waits until the batch is durable.
    ///
    /// # Errors
    /// [`EngineError::Poisoned`] if this batch or one before it failed: it may be stored or not. Drop
    /// the writer and the engine, reopen, and read.
    pub fn wait(self) -> Result<(), EngineError> {
        self.outcome.wait()
    }

    /// Tells whether [`wait`](Ticket::wait) would return at once.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.outcome.lock().is_some()
    }
}

/// The writer's thread: until the writer is dropped and the queue empty, or a failure.
fn run(shared: &Shared, engine: &dyn Engine) {
    while let Some(jobs) = shared.next_jobs() {
        let mut waiting = Vec::with_capacity(jobs.len());
        let mut result = Ok(());
        for Job { batch, done } in jobs {
            if result.is_ok() {
                result = engine.write(batch);
                // A crash here leaves a prefix of the batches written so far, with all that were
                // acknowledged; nobody has been told of the others.
            }
            waiting.push(done);
        }
        // Not after a failed write: what the engine holds now is unknown, and must not be blessed.
        if result.is_ok() {
            result = engine.sync();
            // A crash here leaves all of them; nobody has been told, so whoever asked must look.
        }
        let result = result.map_err(EngineError::poison);
        if let Err(poison) = &result {
            // Before anyone is told, so that what they write next is refused.
            shared.poison(poison);
        }
        for done in waiting {
            done(result.clone());
        }
        if let Err(poison) = result {
            return shared.refuse_all(&poison);
        }
    }
}

/// Ends the thread, also by a panic: nobody may wait for it any more.
struct Last<'a>(&'a Shared);

impl Drop for Last<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.poison(&EngineError::Unavailable { doing: PANIC }.poison());
            // Dropping a job uncalled answers its ticket.
            let jobs = mem::take(&mut self.0.queue().jobs);
            drop(jobs);
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect(UNPOISONED)
    }

    /// Waits for jobs and takes all there are; `None` when there will be no more.
    fn next_jobs(&self) -> Option<VecDeque<Job>> {
        let mut queue = self.queue();
        while queue.jobs.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self.filled.wait(queue).expect(UNPOISONED);
        }
        queue.bytes = 0;
        self.emptied.notify_all();
        Some(mem::take(&mut queue.jobs))
    }

    fn poison(&self, poison: &EngineError) {
        self.queue().poison = Some(poison.clone());
        self.emptied.notify_all();
    }

    fn refuse_all(&self, poison: &EngineError) {
        let jobs = mem::take(&mut self.queue().jobs);
        for job in jobs {
            (job.done)(Err(poison.clone()));
        }
    }
}

impl Queue {
    fn has_room(&self, batch: &Batch) -> bool {
        self.jobs.is_empty()
            || (self.jobs.len() < QUEUE_BATCHES_MAX
                && self.bytes.saturating_add(batch.bytes()) <= QUEUE_BYTES_MAX)
    }
}

/// What became of a batch, once that is known.
#[derive(Debug, Default)]
struct Outcome {
    result: Mutex<Option<Result<(), EngineError>>>,
    told: Condvar,
}

impl Outcome {
    fn lock(&self) -> MutexGuard<'_, Option<Result<(), EngineError>>> {
        self.result.lock().expect(UNPOISONED)
    }

    fn wait(&self) -> Result<(), EngineError> {
        let mut result = self.lock();
        loop {
            if let Some(result) = &*result {
                return result.clone();
            }
            result = self.told.wait(result).expect(UNPOISONED);
        }
    }
}

/// The other end of a ticket. Dropped without a word, it answers that the outcome is unknown.
struct Promise(Arc<Outcome>);

impl Promise {
    fn keep(self, result: Result<(), EngineError>) {
        *self.0.lock() = Some(result);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.0
            .lock()
            .get_or_insert_with(|| Err(EngineError::Unavailable { doing: PANIC }.poison()));
        self.0.told.notify_all();
    }
}

const PANIC: &str = "writing: the writer's thread panicked";
const UNPOISONED: &str = "nothing panics while it holds the lock";
