//! A small probabilistic machine to test the ledger with: nodes that behave as they are told, a clock that
//! stands still until it is moved.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anwansi_proofs::{
    Apply, Digest, Draft, Input, NodeKey, Place, Pledge, Spec, TaskPolicy, TransitionId,
    registry::join_message,
};
use anwansi_store::{
    Assignment, Error, Ledger, LogKey, Options, OwnFold, Progress, Store, Turn, engine::Engine,
};
use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};

/// What a node does with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    Honest,
    /// Has another result than the others, the same one each time.
    Errs,
    /// Never pledges.
    Silent,
    /// Pledges, and never reveals.
    Hides,
    /// Reveals something else than it has pledged.
    Cheats,
    /// Signs two pledges, and reveals the first.
    Equivocates,
}

pub struct Node {
    pub secret: SigningKey,
    pub habit: Habit,
}

impl Node {
    pub fn new(number: u8, habit: Habit) -> Self {
        let Digest(seed) = Digest::of(&[number]);
        Node { secret: SigningKey::from_bytes(&seed), habit }
    }

    pub fn key(&self) -> NodeKey {
        NodeKey(self.secret.verifying_key().to_bytes())
    }

    pub fn join(&self, store: &Store) {
        let signature = self.secret.sign(&join_message(store.origin())).to_bytes();
        store.ledger().register(&self.key(), &signature).unwrap();
    }

    /// The result that it has, and whether that is the right one follows from its habit.
    pub fn result(&self, input: &[u8]) -> Bytes {
        let right = input.len();
        let result = if self.habit == Habit::Errs { right + 1_000_000 } else { right };
        Bytes::from(result.to_string())
    }

    pub fn salt(&self, place: &Place) -> [u8; 32] {
        Digest::of(&[&self.secret.to_bytes()[..], &place.noise_seed(&self.key()).0].concat()).0
    }

    pub fn pledge(&self, place: &Place, result: &[u8], salt: &[u8; 32]) -> Pledge {
        let pledge = place.pledge(&self.key(), &Digest::of(result), salt);
        let signature = self.secret.sign(&place.signed(&pledge)).to_bytes();
        Pledge { node: self.key(), pledge, signature }
    }

    /// Does what is assigned, as its habit is. What the ledger answers is for the caller to judge.
    pub fn act(&self, store: &Store, todo: &Assignment) -> Vec<Result<(), Error>> {
        let (ledger, place) = (store.ledger(), place(store, todo));
        let input = match &todo.input {
            Input::Data(data) => data.clone(),
            Input::Blob(digest) => ledger.blob(digest).expect("inputs stay readable").into(),
        };
        let (result, salt) = (self.result(&input), self.salt(&place));
        let send = |pledge| ledger.pledge(&todo.transition, todo.index, todo.round, &pledge);
        let show = |result| {
            ledger.reveal(&todo.transition, todo.index, todo.round, &self.key(), salt, result)
        };
        match (todo.turn, self.habit) {
            (Turn::Pledge, Habit::Silent) | (Turn::Reveal { .. }, Habit::Hides) => Vec::new(),
            (Turn::Pledge, Habit::Equivocates) => {
                let second = self.pledge(&place, b"something else", &salt);
                vec![send(self.pledge(&place, &result, &salt)), send(second)]
            }
            (Turn::Pledge, _) => vec![send(self.pledge(&place, &result, &salt))],
            (Turn::Reveal { .. }, Habit::Cheats) => vec![show("something else".into())],
            (Turn::Reveal { .. }, _) => vec![show(result)],
        }
    }
}

impl Node {
    /// Votes for a result of any kind, as is its turn. What the ledger answers is for the caller to judge.
    pub fn vote(&self, store: &Store, todo: &Assignment, result: &[u8]) -> Result<(), Error> {
        let (ledger, place) = (store.ledger(), place(store, todo));
        let (id, index, round, salt) =
            (&todo.transition, todo.index, todo.round, self.salt(&place));
        match todo.turn {
            Turn::Pledge => ledger.pledge(id, index, round, &self.pledge(&place, result, &salt)),
            Turn::Reveal { .. } => {
                let result = Bytes::copy_from_slice(result);
                ledger.reveal(id, index, round, &self.key(), salt, result)
            }
        }
    }
}

pub fn place(store: &Store, todo: &Assignment) -> Place {
    let opened = store.finality(todo.opened).unwrap().header.clone();
    Place {
        opened: Digest::of(opened.as_bytes()),
        transition: todo.transition,
        task: todo.index,
        round: todo.round,
    }
}

/// A clock that is moved by hand.
#[derive(Clone, Default)]
pub struct Uptime(Arc<AtomicU64>);

impl Uptime {
    pub fn pass(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

pub fn try_open(engine: Arc<dyn Engine>, uptime: &Uptime) -> Result<Store, Error> {
    open_with(engine, uptime, Vec::new())
}

pub fn open_with(
    engine: Arc<dyn Engine>,
    uptime: &Uptime,
    folds: Vec<Arc<dyn OwnFold>>,
) -> Result<Store, Error> {
    let key = LogKey::from_secret([7; 32], None).unwrap();
    let clock = uptime.clone();
    let options = Options {
        cache_bytes: 256 << 10,
        uptime: Arc::new(move || clock.0.load(Ordering::SeqCst)),
        folds,
        ..Options::default()
    };
    Store::open(engine, key, &options)
}

pub fn open(engine: Arc<dyn Engine>, uptime: &Uptime) -> Store {
    try_open(engine, uptime).unwrap()
}

pub const PLEDGE_MS: u32 = 1000;
pub const REVEAL_MS: u32 = 500;

/// A transition that counts the bytes of its inputs, and needs a lead of three.
pub fn draft(nonce: &str, inputs: &[&str]) -> Draft {
    let policy = TaskPolicy {
        nodes_max: 9,
        missed_max: 4,
        pledge_ms: PLEDGE_MS,
        reveal_ms: REVEAL_MS,
        ..TaskPolicy::with_lead(3)
    };
    Draft {
        program: "length/1".into(),
        code: None,
        nonce: nonce.into(),
        inputs: inputs.iter().map(|input| Input::Data(input.as_bytes().to_vec())).collect(),
        fold: "sum".into(),
        into: "total".into(),
        apply: Apply::Add,
        spread: false,
        policy,
    }
}

pub fn submit(store: &Store, draft: &Draft) -> TransitionId {
    let spec = Spec::new(draft).unwrap();
    store.ledger().submit(spec.bytes()).unwrap().id
}

/// Lets all nodes do what they have to, and time pass where they have nothing to do, until it is decided.
pub fn run(store: &Store, nodes: &[Node], uptime: &Uptime, id: &TransitionId) -> Progress {
    let ledger: Ledger<'_> = store.ledger();
    let stuck = Instant::now() + Duration::from_secs(30);
    let mut idle = 0;
    loop {
        let progress = ledger.progress(id).unwrap();
        if progress.decided.is_some() {
            return progress;
        }
        assert!(Instant::now() < stuck, "undecided: {progress:?}");
        let mut acted = false;
        for node in nodes {
            for todo in ledger.assignments(&node.key(), &[]) {
                acted |= node.act(store, &todo).iter().any(Result::is_ok);
            }
        }
        // The ledger may be about to ask for more.
        idle = if acted { 0 } else { idle + 1 };
        if idle == 10 {
            uptime.pass(u64::from(PLEDGE_MS));
            idle = 0;
        }
        if idle > 0 {
            sleep(Duration::from_millis(3));
        }
    }
}

/// Lets all nodes do what they have to, on a clock that runs by itself, until it is decided.
pub fn decide(store: &Store, nodes: &[Node], id: &TransitionId) -> Progress {
    let stuck = Instant::now() + Duration::from_secs(30);
    loop {
        let progress = store.ledger().progress(id).unwrap();
        if progress.decided.is_some() {
            return progress;
        }
        assert!(Instant::now() < stuck, "undecided: {progress:?}");
        for node in nodes {
            for todo in store.ledger().assignments(&node.key(), &[]) {
                node.act(store, &todo);
            }
        }
        sleep(Duration::from_millis(1));
    }
}
