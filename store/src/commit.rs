//! The commit path: from callers' writes to a durable version in a signed checkpoint.
//!
//! ```text
//! callers -> queue -> committer thread: validate, update the tree, header, log     (versions in order)
//!                          |  one batch a version
//!                          v
//!                     writer thread: write, one sync for all in flight
//!                          |  durable
//!                          v
//!                     publish: sign the checkpoint, show the version to readers, answer callers
//! ```
//!
//! While earlier versions are being synced, callers gather in the queue; those that do not touch one
//! another's keys then share a version. A version is shown and signed only when it is durable.

use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    time::Duration,
};

use anwansi_proofs::{
    Digest, Header, Root, Version,
    path::{KEY_BYTES_MAX, VALUE_BYTES_MAX},
    tree::Sorted,
};
use bytes::Bytes;

use crate::{
    Damage, Error,
    engine::{Batch, Keyspace, Writer},
    finality::Published,
    gate::{Gate, Pass},
    group::Group,
    ledger::step::{self, Joining, Step},
    log::Log,
    record::{Request, decode, encode},
    snapshot::At,
    store::Shared,
    transaction::Reads,
    tree::{Tree, Write},
    version,
};

/// The most writes in one commit.
pub const COMMIT_WRITES_MAX: usize = 100_000;
/// The most bytes of keys and values in one commit.
pub const COMMIT_BYTES_MAX: usize = 64 << 20;
/// How long the answer to a request id is remembered.
pub const REQUEST_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The most bytes that callers may bring together into one version, unless one alone has more.
const GROUP_BYTES_MAX: usize = 16 << 20;
/// The most callers that share a version.
const GROUP_COMMITS_MAX: usize = 1024;
/// Versions on their way to being durable, at most; callers gather meanwhile.
pub(crate) const IN_FLIGHT_MAX: usize = 4;

/// Writes that take effect together in one version.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// New values, and `None` where a key is removed. No key twice; any order.
    pub writes: Vec<(Bytes, Option<Bytes>)>,
    /// The newest version must be this one: otherwise nothing happens.
    pub expect_version: Option<Version>,
    /// Names the request, so that a repeat is answered as the first was and not carried out again.
    pub request: Option<RequestId>,
}

/// Names a request for a day: a digest of the caller's name for it, and one of what it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// Of the name.
    pub name: Digest,
    /// Of the content: another one under the same name is refused.
    pub body: Digest,
}

/// What became of a commit: it is durable, and in a signed checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The version that it is part of.
    pub version: Version,
    /// The root of that version's state.
    pub state: Root,
}

/// Called once with what became of a commit, on a thread of the store: it must not block, and so it must
/// not commit again by itself.
pub type Answer = Box<dyn FnOnce(Result<Committed, Error>) + Send>;

impl Commit {
    /// A commit of `writes`, whatever the newest version is.
    #[must_use]
    pub fn new(writes: Vec<(Bytes, Option<Bytes>)>) -> Self {
        Commit { writes, ..Commit::default() }
    }

    /// Checks all limits and puts the writes in key order.
    pub(crate) fn prepare(&mut self) -> Result<(), Error> {
        let too_large = |what, found, max| Err(Error::CommitTooLarge { what, found, max });
        if self.writes.is_empty() {
            return Err(Error::NoWrites);
        }
        if self.writes.len() > COMMIT_WRITES_MAX {
            return too_large("writes", self.writes.len(), COMMIT_WRITES_MAX);
        }
        for (key, value) in &self.writes {
            if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
                return Err(Error::KeyLength { length: key.len() });
            }
            if key[0] == 0 {
                return Err(Error::ReservedKey { key: key.clone() });
            }
            let length = value.as_ref().map_or(0, Bytes::len);
            if length > VALUE_BYTES_MAX {
                return Err(Error::ValueTooLarge { length, max: VALUE_BYTES_MAX });
            }
        }
        if self.bytes() > COMMIT_BYTES_MAX {
            return too_large("bytes", self.bytes(), COMMIT_BYTES_MAX);
        }
        self.writes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        match self.writes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(Error::KeyTwice { key: pair[0].0.clone() }),
            None => Ok(()),
        }
    }

    /// Of keys and values.
    pub(crate) fn bytes(&self) -> usize {
        let write = |(key, value): &(Bytes, Option<Bytes>)| {
            key.len() + value.as_ref().map_or(0, Bytes::len)
        };
        self.writes.iter().map(write).sum()
    }
}

/// A commit or a step on its way, with the caller to answer.
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) answer: Answer,
    /// Its place in the queue.
    pub(crate) pass: Pass,
}

/// What becomes part of a version.
pub(crate) enum Work {
    /// A commit, and what its transaction has read.
    Commit { commit: Commit, reads: Reads },
    /// A step of the ledger.
    Step(Step),
}

impl Work {
    /// Of what it brings, about.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Work::Commit { commit, .. } => commit.bytes(),
            Work::Step(step) => step.bytes(),
        }
    }
}

/// An answer for one who waits for it, and where it arrives.
pub(crate) fn answer() -> (Answer, Awaited) {
    let (send, receive) = sync_channel(1);
    // Whoever waited may have gone.
    (Box::new(move |result| drop(send.send(result))), Awaited(receive))
}

/// What becomes of work on its way.
pub(crate) struct Awaited(Receiver<Result<Committed, Error>>);

impl Awaited {
    pub(crate) fn wait(self) -> Result<Committed, Error> {
        self.0.recv().unwrap_or(Err(Error::Closed))
    }
}

/// The way to the committer, which ends when all of them are gone.
#[derive(Clone)]
pub(crate) struct Jobs {
    pub(crate) sender: SyncSender<Job>,
    /// Bounds what waits.
    pub(crate) queue: Arc<Gate>,
}

impl Jobs {
    /// Hands work to the committer; waits only while the queue is full.
    pub(crate) fn send(&self, work: Work, answer: Answer) {
        let pass = self.queue.enter(work.bytes());
        self.sender.send(Job { work, answer, pass }).expect("the committer takes all jobs");
    }
}

/// Makes versions, one after the other, on a thread of its own.
pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Arc<Writer>,
    /// The newest version, durable or not.
    pub(crate) header: Header,
    pub(crate) tree: Tree,
    pub(crate) log: Log,
    pub(crate) in_flight: Arc<Gate>,
    /// Requests that are not in storage yet.
    pub(crate) requests: HashMap<Digest, Request>,
}

impl Committer {
    /// Serves `jobs` until all senders are gone, and then finishes what was accepted.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>) {
        let mut waiting: VecDeque<Job> = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match jobs.recv() {
                    Ok(job) => waiting.push_back(job),
                    Err(_) => break,
                }
            }
            // Until there is room below, more callers gather, and share the next version.
            let pass = self.in_flight.enter(1);
            self.shared.flush.wait_for_room();
            gather(jobs, &mut waiting);
            if let Some(failed) = self.shared.failure() {
                for job in waiting.drain(..) {
                    reply(job.answer, Err(failed.clone()));
                }
                continue;
            }
            match self.group(&mut waiting) {
                Ok(Some(group)) => self.finish(group, pass),
                Ok(None) => {}
                Err(error) => self.shared.fail(&error),
            }
        }
        // Every accepted commit is answered, and every durable version shown, before this ends.
        self.in_flight.wait_for_none();
        self.shared.flush.end();
    }

    /// Takes the commits that can share the next version out of `waiting` and applies them to the tree.
    /// `None` if none could: each of those was answered.
    fn group(&mut self, waiting: &mut VecDeque<Job>) -> Result<Option<Group>, Error> {
        let version = Version(self.header.version().0 + 1);
        let mut group = Group::new(version, self.tree.clone(), self.shared.undo.bytes_max());
        let (mut bytes, mut later, mut failed) = (0, VecDeque::new(), None);
        while let Some(Job { work, answer, pass }) = waiting.pop_front() {
            // What writes a key that a member writes waits, and so does all that came after it.
            let full = bytes > 0 && bytes + work.bytes() > GROUP_BYTES_MAX;
            if full || group.keeps_out(&work) {
                later.push_back(Job { work, answer, pass });
                break;
            }
            bytes += work.bytes();
            let joined = match work {
                Work::Commit { commit, reads } => self.join(&mut group, commit, &reads),
                Work::Step(step) => self.join_step(&mut group, &step),
            };
            match joined {
                Ok(Joined::Member) => group.answers.push(answer),
                Ok(Joined::Repeat(version)) if version == group.version => {
                    group.answers.push(answer);
                }
                Ok(Joined::Repeat(version)) => self.answer_repeat(version, answer),
                Err(Refused::Caller(error)) => reply(answer, Err(error)),
                Err(Refused::Store(error)) => {
                    group.answers.push(answer);
                    failed = Some(error);
                    break;
                }
            }
        }
        later.append(waiting);
        *waiting = later;
        let pages = &self.shared.pages;
        let applied = failed.map_or_else(|| group.writes.apply(&mut self.tree, pages), Err);
        if let Err(error) = applied {
            for answer in group.answers {
                reply(answer, Err(error.clone()));
            }
            return Err(error);
        }
        Ok((!group.answers.is_empty()).then_some(group))
    }

    /// Validates `commit` against the version before and the members ahead of it, and applies it.
    fn join(
        &mut self,
        group: &mut Group,
        commit: Commit,
        reads: &Reads,
    ) -> Result<Joined, Refused> {
        if let Some(RequestId { name, body }) = commit.request
            && let Some(before) = self.request(name).map_err(Refused::Caller)?
        {
            let same = before.body == body.0;
            let repeat = Joined::Repeat(Version(before.version));
            return if same { Ok(repeat) } else { Err(Refused::Caller(Error::RequestMismatch)) };
        }
        let newest = self.header.version();
        if let Some(expected) = commit.expect_version
            && (expected != newest || !group.answers.is_empty())
        {
            let newest = if group.answers.is_empty() { newest } else { group.version };
            return Err(Refused::Caller(Error::UnexpectedVersion { expected, newest }));
        }
        if !reads.is_empty() {
            self.apply(group)?;
            reads.validate(&self.tree, &self.shared.pages).map_err(Refused::Caller)?;
        }
        group.write(commit.writes, &self.shared.pages);
        if let Some(RequestId { name, body }) = commit.request {
            let time = (self.shared.clock)();
            let request = Request { body: body.0, version: group.version.0, time };
            group.batch.put(Keyspace::Requests, name.0.to_vec(), encode(&request));
            self.requests.insert(name, request);
        }
        Ok(Joined::Member)
    }

    /// Lets the ledger take a step, onto the version before and the members ahead of it.
    fn join_step(&mut self, group: &mut Group, step: &Step) -> Result<Joined, Refused> {
        self.apply(group)?;
        let mut additions = step.join(&self.joining(group.version)).map_err(Refused::Caller)?;
        additions.writes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        group.write(additions.writes, &self.shared.pages);
        group.tasks.extend(additions.tasks);
        group.batch.append(additions.batch);
        group.applied.extend(additions.applied);
        group.opens |= step.opens();
        Ok(Joined::Member)
    }

    /// The version that is being made, as far as it was.
    fn joining(&self, version: Version) -> Joining<'_> {
        Joining { version, tree: &self.tree, pages: &self.shared.pages }
    }

    /// Brings the tree to where the members of a group have left it so far.
    fn apply(&mut self, group: &mut Group) -> Result<(), Refused> {
        group.writes.apply(&mut self.tree, &self.shared.pages).map_err(Refused::Store)
    }

    /// What a request of this name was, if it is remembered.
    fn request(&mut self, name: Digest) -> Result<Option<Request>, Error> {
        let published = self.shared.published().snapshot.version();
        self.requests.retain(|_, request| request.version > published.0);
        if let Some(request) = self.requests.get(&name) {
            return Ok(Some(*request));
        }
        let Some(bytes) = self.shared.engine.get(Keyspace::Requests, &name.0)? else {
            return Ok(None);
        };
        let request: Request = decode(&bytes, Damage::Request)?;
        let age = Duration::from_millis((self.shared.clock)().saturating_sub(request.time));
        Ok((age < REQUEST_KEPT).then_some(request))
    }

    /// Answers a repeat once the version of the first request is durable: an empty batch is behind it.
    fn answer_repeat(&self, version: Version, answer: Answer) {
        let shared = self.shared.clone();
        self.writer.write_then(Batch::new(), move |done| {
            let committed = || {
                done?;
                let (header, _) = version::read(&*shared.engine, version)?;
                Ok(Committed { version, state: header.state() })
            };
            reply(answer, committed());
        });
    }

    /// Makes a group's version and sends it to be durable.
    fn finish(&mut self, group: Group, pass: Pass) {
        let Group { version, mut batch, mut values, coming, mut writes, tasks, answers, .. } =
            group;
        let joining = self.joining(version);
        let registry = if group.opens { step::keep_registry(&joining, &mut batch) } else { Ok(()) };
        let mut applied = group.applied.iter();
        let kept = registry.and_then(|()| {
            applied.try_for_each(|applied| {
                step::keep_states(&joining, &group.before, applied, &mut batch)
            })
        });
        drop(group.before);
        if let Err(error) = kept {
            // The tree could not be read: nothing more can be built on it.
            self.shared.fail(&error);
            for answer in answers {
                reply(answer, Err(error.clone()));
            }
            return;
        }
        let values_replaced = writes.take_replaced_values();
        let undo = writes.take_undo();
        let replaced = writes.replaced_bytes() + size_of_val(&values_replaced[..]);
        version::write_replaced(version, values_replaced, &mut batch);
        let changes = writes.finish();
        let time = (self.shared.clock)();
        let tasks = Sorted::new(tasks.into_iter().collect());
        let header = self.header.next(self.tree.root(), tasks.root(), time);
        let task = |(key, value)| Write { key, value: Some(values.place(value, &mut batch)) };
        let tasks = tasks.into_entries().into_iter().map(task).collect::<Vec<_>>();
        version::write(&header, &changes, &tasks, &mut batch);
        self.forget_requests(time, &mut batch);
        self.log.append(header.to_string().as_bytes(), &mut batch);
        let root = self.log.note_signing(&mut batch);
        self.header = header.clone();
        let at = Arc::new(At::new(header, self.tree.clone(), &self.shared.versions));
        let (log, shared) = (self.log.clone(), self.shared.clone());
        let mut pending = Pending { shared: shared.clone(), answers, committed: None, pass };
        self.writer.write_then(batch, move |done| {
            // A crash before this leaves the version out or whole; nobody was told of it.
            let mut gone = (Vec::new(), Vec::new());
            match done {
                Ok(()) => {
                    shared.pages.values_have_come(&coming);
                    let (version, state) = (at.header.version(), at.header.state());
                    let bytes = version::bytes_of(&changes);
                    let published = Published::new(&shared, at, log, &root);
                    // Before it is shown: whoever flushes it needs it.
                    gone.0 = shared.undo.push(version, undo);
                    gone.1 = shared.publish(published, bytes, replaced);
                    pending.committed = Some(Committed { version, state });
                }
                Err(error) => shared.fail(&error.into()),
            }
            drop(pending);
            // Only now: callers need not wait for it.
            drop(gone);
        });
    }

    /// Deletes the records of requests that a flush found to be too old, if they still are.
    fn forget_requests(&self, now: u64, batch: &mut Batch) {
        for name in self.shared.forgettable() {
            let again =
                name[..].try_into().is_ok_and(|name| self.requests.contains_key(&Digest(name)));
            // One that cannot be read is left for the next flush to find.
            let stored = self.shared.engine.get(Keyspace::Requests, &name).ok().flatten();
            if !again && stored.is_some_and(|stored| is_forgettable(&stored, now)) {
                batch.delete(Keyspace::Requests, name);
            }
        }
    }
}

/// Whether nobody has to remember this request any more. Nothing can be remembered of a damaged one.
pub(crate) fn is_forgettable(request: &[u8], now: u64) -> bool {
    decode(request, Damage::Request).map_or(true, |Request { time, .. }| {
        u128::from(now.saturating_sub(time)) >= REQUEST_KEPT.as_millis()
    })
}

/// The callers of a version on its way. Dropped, it answers them, whatever has happened, and lets the next
/// version in.
struct Pending {
    shared: Arc<Shared>,
    answers: Vec<Answer>,
    committed: Option<Committed>,
    #[expect(dead_code, reason = "left when it is dropped, after the answers")]
    pass: Pass,
}

impl Drop for Pending {
    fn drop(&mut self) {
        for answer in self.answers.drain(..) {
            let failed = || self.shared.failure().unwrap_or(Error::Closed);
            reply(answer, self.committed.ok_or_else(failed));
        }
    }
}

/// Answers a caller. If its answer panics, that is its own affair: others are answered all the same.
fn reply(answer: Answer, result: Result<Committed, Error>) {
    // The panic was reported where it happened.
    let _ = catch_unwind(AssertUnwindSafe(|| answer(result)));
}

enum Joined {
    Member,
    /// The request was carried out before, in this version.
    Repeat(Version),
}

enum Refused {
    /// The commit, alone.
    Caller(Error),
    /// The whole version: the tree could not be read.
    Store(Error),
}

/// Takes what else is in the queue.
fn gather(jobs: &Receiver<Job>, waiting: &mut VecDeque<Job>) {
    while waiting.len() < GROUP_COMMITS_MAX {
        match jobs.try_recv() {
            Ok(job) => waiting.push_back(job),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
}
