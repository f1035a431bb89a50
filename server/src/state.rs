//! What the routes share: the store, the tokens, and the room there is for requests.
//!
//! Everything that callers could make grow has a budget here, and a request that finds no room is told to
//! come again: connections, work that blocks, callers who wait for something to happen, bytes of bodies that
//! came in, bytes of answers on their way out.

use std::{sync::Arc, time::Duration};

use anwansi_proofs::{
    SPEC_BYTES_MAX, Version,
    path::{KEY_BYTES_MAX, VALUE_BYTES_MAX},
};
use anwansi_store::{
    BLOB_BYTES_MAX, COMMIT_BYTES_MAX, COMMIT_WRITES_MAX, DRAWS_MAX, Error, OPEN_DRAWS_MAX,
    OPEN_MAX, OPEN_SPEC_BYTES_MAX, OPEN_TASKS_MAX, REGISTERED_MAX, RESULT_BYTES_MAX, Snapshot,
    Store, TASKS_MAX,
};
use bytes::Bytes;
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};
use utoipa::ToSchema;

use crate::{
    auth::Tokens,
    ledger::waiters::Waiters,
    metrics::{Metrics, Prunings},
    news::News,
    problem::Problem,
};

/// The longest body of a question.
pub const QUESTION_BYTES_MAX: usize = 4 << 20;
/// Keys, prefixes and ranges in one question, together.
pub const PROOF_KEYS_MAX: usize = 1024;
/// Entries in the answer for one range, at most, and where no limit is given.
pub const RANGE_ENTRIES_MAX: usize = 10_000;
/// See [`RANGE_ENTRIES_MAX`].
pub const RANGE_ENTRIES: usize = 1000;
/// Bytes of keys and values in one answer, unless a single entry has more.
pub const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Headers in one list, at most, and where no limit is given.
pub const VERSIONS_MAX: usize = 1000;
/// See [`VERSIONS_MAX`].
pub const VERSIONS: usize = 100;
/// Nodes in one list, at most, and where no limit is given.
pub const NODES_MAX: usize = 1000;
/// See [`NODES_MAX`].
pub const NODES: usize = 100;
/// The longest that a caller is kept waiting for something to do, if requests may take so long.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// The longest head of a request: path, query and header fields.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// The longest `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// How long a request waits for its turn before it is refused.
const TURN_WAIT: Duration = Duration::from_secs(2);
/// Pledges and reveals that are waited for at once until they are durable: many share a sync.
const VOTES_MAX: usize = 64;
/// Steps of the ledger that holders of a token wait for at once. Apart from the votes, which need no token,
/// so that nodes cannot keep the operator out.
const STEPS_MAX: usize = 16;
/// Evidence of transitions that is put together at once: each may take 200 MiB.
const EVIDENCE_MAX: usize = 4;
/// Callers who wait at once for something to do; no more than half of all connections.
const WAITS_MAX: usize = 512;
/// Callers who follow the events at once; no more than a quarter of all connections.
const FOLLOWERS_MAX: usize = 64;
/// Commits that were accepted and not answered yet: fewer than the store's queue holds, so that
/// handing one over never waits.
const COMMITS_MAX: usize = 2048;
/// Memory for bodies that came in: a body is kept until its request is answered.
const BODIES_BYTES_MAX: usize = 256 << 20;
/// Memory for answers that callers have not taken yet.
const ANSWERS_BYTES_MAX: usize = 512 << 20;
/// Answers of so many bytes need no room in it: a connection has one at most.
const ANSWER_BYTES_SMALL: usize = 8 << 10;
/// Versions that are pinned at once.
pub(crate) const PINS_MAX: usize = 1000;
/// Answers that are streamed at once.
const STREAMS_MAX: usize = 8;
/// What bodies and answers are counted in.
const UNIT_BYTES: usize = 1024;

/// The bounds that are the operator's to set.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest body of a commit.
    pub body_bytes: usize,
    /// Reads that are worked on at once.
    pub reads: usize,
    /// Connections that are open at once.
    pub connections: usize,
    /// How long a request may take; its body must be there in half of it.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body_bytes: 32 << 20,
            reads: 16,
            connections: 1024,
            timeout: Duration::from_secs(60),
        }
    }
}

impl Limits {
    /// The longest that a caller is kept waiting: well before its request takes too long.
    pub(crate) fn wait(&self) -> Duration {
        WAIT_MAX.min(self.timeout / 2)
    }

    fn waits(&self) -> usize {
        WAITS_MAX.min(self.connections / 2).max(1)
    }

    fn followers(&self) -> usize {
        FOLLOWERS_MAX.min(self.connections / 4).max(1)
    }
}

/// All bounds, as `/v1/info` tells them.
#[derive(Serialize, ToSchema)]
pub(crate) struct AllLimits {
    body_bytes: usize,
    question_bytes: usize,
    head_bytes: usize,
    key_bytes: usize,
    value_bytes: usize,
    commit_writes: usize,
    commit_bytes: usize,
    idempotency_key_bytes: usize,
    keys_per_proof: usize,
    entries_per_range: usize,
    answer_bytes: usize,
    versions_per_list: usize,
    spec_bytes: usize,
    tasks_per_transition: usize,
    open_transitions: usize,
    draws_per_transition: usize,
    open_tasks: usize,
    open_draws: usize,
    open_spec_bytes: usize,
    result_bytes: usize,
    blob_bytes: usize,
    registered_nodes: usize,
    nodes_per_list: usize,
    connections: usize,
    reads: usize,
    votes: usize,
    waits: usize,
    wait_ms: u64,
    followers: usize,
    request_timeout_ms: u64,
}

impl AllLimits {
    pub(crate) fn new(limits: &Limits) -> Self {
        AllLimits {
            body_bytes: limits.body_bytes,
            question_bytes: QUESTION_BYTES_MAX,
            head_bytes: HEAD_BYTES_MAX,
            key_bytes: KEY_BYTES_MAX,
            value_bytes: VALUE_BYTES_MAX,
            commit_writes: COMMIT_WRITES_MAX,
            commit_bytes: COMMIT_BYTES_MAX,
            idempotency_key_bytes: IDEMPOTENCY_KEY_BYTES_MAX,
            keys_per_proof: PROOF_KEYS_MAX,
            entries_per_range: RANGE_ENTRIES_MAX,
            answer_bytes: ANSWER_BYTES_MAX,
            versions_per_list: VERSIONS_MAX,
            spec_bytes: SPEC_BYTES_MAX,
            tasks_per_transition: TASKS_MAX,
            open_transitions: OPEN_MAX,
            draws_per_transition: DRAWS_MAX,
            open_tasks: OPEN_TASKS_MAX,
            open_draws: OPEN_DRAWS_MAX,
            open_spec_bytes: OPEN_SPEC_BYTES_MAX,
            result_bytes: RESULT_BYTES_MAX,
            blob_bytes: BLOB_BYTES_MAX,
            registered_nodes: REGISTERED_MAX,
            nodes_per_list: NODES_MAX,
            connections: limits.connections,
            reads: limits.reads,
            votes: VOTES_MAX,
            waits: limits.waits(),
            wait_ms: millis(limits.wait()),
            followers: limits.followers(),
            request_timeout_ms: millis(limits.timeout),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What the routes share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) tokens: Tokens,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) news: News,
    pub(crate) waiters: Waiters,
    reads: Arc<Semaphore>,
    votes: Arc<Semaphore>,
    steps: Arc<Semaphore>,
    evidence: Arc<Semaphore>,
    waits: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    commits: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

pub(crate) type App = Arc<Shared>;

/// A place in one of the budgets, given back when it is dropped.
pub(crate) type Room = OwnedSemaphorePermit;

impl Shared {
    pub(crate) fn new(store: Store, tokens: Tokens, limits: Limits, prunings: Prunings) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Shared {
            metrics: Metrics::new(prunings),
            news: News::of(&store),
            waiters: Waiters::default(),
            reads: places(limits.reads),
            votes: places(VOTES_MAX),
            steps: places(STEPS_MAX),
            evidence: places(EVIDENCE_MAX),
            waits: places(limits.waits()),
            followers: places(limits.followers()),
            commits: places(COMMITS_MAX),
            streams: places(STREAMS_MAX),
            bodies: places(BODIES_BYTES_MAX / UNIT_BYTES),
            answers: places(ANSWERS_BYTES_MAX / UNIT_BYTES),
            store,
            tokens,
            limits,
        }
    }

    /// Reads from the store, where blocking hinders nobody.
    ///
    /// # Errors
    /// [`TooBusy`](crate::problem::Kind::TooBusy) if it does not get its turn in time; so below.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.blocking(&self.reads, "another read", work).await
    }

    /// Takes what a node sends, and waits until it is durable.
    pub(crate) async fn vote<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.blocking(&self.votes, "another pledge or reveal", work).await
    }

    /// Does what a holder of a token wants of the ledger, and waits until it is durable.
    pub(crate) async fn step<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.blocking(&self.steps, "another step of the ledger", work).await
    }

    /// Puts evidence of a transition together.
    pub(crate) async fn evidence<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.blocking(&self.evidence, "more evidence", work).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        turns: &Arc<Semaphore>,
        what: &str,
        work: impl FnOnce(&Store) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = tokio::time::timeout(TURN_WAIT, turns.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| Problem::busy(what))?;
        let turn = turn.expect("nobody closes the semaphore");
        let store = self.store.clone();
        let done = spawn_blocking(move || {
            // Held until the work ends, whoever still waits for it.
            let _turn = turn;
            work(&store)
        });
        done.await.map_err(|error| Problem::internal(&error))?
    }

    /// Room for a commit that is on its way to being durable.
    pub(crate) fn room_for_commit(&self) -> Result<Room, Problem> {
        self.commits.clone().try_acquire_owned().map_err(|_| Problem::busy("another commit"))
    }

    /// Room for an answer that is made while it is sent.
    pub(crate) fn room_for_stream(&self) -> Result<Room, Problem> {
        self.streams.clone().try_acquire_owned().map_err(|_| Problem::busy("another long answer"))
    }

    /// Room for a caller who waits for something to do.
    pub(crate) fn room_for_wait(&self) -> Result<Room, Problem> {
        self.waits.clone().try_acquire_owned().map_err(|_| Problem::busy("another who waits"))
    }

    /// Room for a caller who follows the events.
    pub(crate) fn room_for_follower(&self) -> Result<Room, Problem> {
        self.followers.clone().try_acquire_owned().map_err(|_| Problem::busy("another follower"))
    }

    /// Room for a body of so many bytes.
    pub(crate) fn room_for_body(&self, bytes: usize) -> Result<Room, Problem> {
        room(&self.bodies, bytes).ok_or_else(|| Problem::busy("this body"))
    }

    /// An answer that counts against the budget until it is sent.
    pub(crate) fn answer(&self, bytes: impl Into<Bytes>) -> Result<Bytes, Problem> {
        let bytes = bytes.into();
        if bytes.len() <= ANSWER_BYTES_SMALL {
            return Ok(bytes);
        }
        let room = room(&self.answers, bytes.len()).ok_or_else(|| Problem::busy("this answer"))?;
        Ok(Bytes::from_owner(Held { bytes, _room: room }))
    }
}

fn room(budget: &Arc<Semaphore>, bytes: usize) -> Option<Room> {
    let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()?;
    budget.clone().try_acquire_many_owned(units).ok()
}

struct Held {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The version that was asked for, or the newest.
pub(crate) fn at(store: &Store, version: Option<Version>) -> Result<Snapshot, Error> {
    version.map_or_else(|| Ok(store.latest()), |version| store.at(version))
}
