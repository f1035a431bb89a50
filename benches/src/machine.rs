//! A store with honest nodes that answer each task at once: what the ledger costs, and nothing else.

use std::{path::Path, thread, time::Duration};

use anwansi_proofs::{
    Apply, Digest, Draft, Input, NodeKey, Place, Pledge, Spec, TaskPolicy, TransitionId,
    registry::join_message,
};
use anwansi_store::{Assignment, LogKey, Options, Store, Turn, engine};
use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};

/// The nodes that are registered.
pub const NODES: u8 = 30;
/// The threads of the nodes, and of those who submit.
const THREADS: usize = NODES as usize;
/// How often a node looks for something to do while there is nothing.
const POLL: Duration = Duration::from_millis(1);
/// The votes that decide a task, all of them cast in its first round.
pub const LEAD: u32 = 3;

/// A store on fjall, and the secrets of its nodes.
pub struct Machine {
    /// The store.
    pub store: Store,
    secrets: Vec<SigningKey>,
    transitions: u64,
}

impl Machine {
    /// A store in `directory` with [`NODES`] nodes.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        let engine = engine::open(&format!("fjall:{}", directory.join("data").display()));
        let key = LogKey::generate(None).expect("the machine has randomness");
        let engine = engine.expect("the directory is empty");
        let store = Store::open(engine, key, &Options::default()).expect("the store is new");
        let secrets = (0..NODES).map(|number| SigningKey::from_bytes(&[number; 32]));
        let secrets = secrets.collect::<Vec<_>>();
        for secret in &secrets {
            let signature = secret.sign(&join_message(store.origin())).to_bytes();
            store.ledger().register(&node(secret), &signature).expect("it is signed");
        }
        Machine { store, secrets, transitions: 0 }
    }

    /// A specification of so many tasks, like no other.
    pub fn spec(&mut self, tasks: usize) -> Spec {
        self.transitions += 1;
        let input = |task: usize| Input::Data(task.to_string().into_bytes());
        Spec::new(&Draft {
            program: "length/1".into(),
            code: None,
            nonce: self.transitions.to_string(),
            inputs: (0..tasks).map(input).collect(),
            fold: "sum".into(),
            into: "total".into(),
            apply: Apply::Replace,
            spread: false,
            policy: TaskPolicy::with_lead(LEAD),
        })
        .expect("it follows the rules")
    }

    /// Submits transitions and has their tasks done until all are decided.
    ///
    /// # Panics
    /// If one is not applied.
    pub fn run(&self, specs: &[Spec]) -> Vec<TransitionId> {
        thread::scope(|scope| {
            for specs in specs.chunks(specs.len().div_ceil(THREADS)) {
                scope.spawn(move || {
                    for spec in specs {
                        self.store.ledger().submit(spec.bytes()).expect("there is room");
                    }
                });
            }
        });
        thread::scope(|scope| {
            for secret in &self.secrets {
                scope.spawn(|| self.work(secret));
            }
        });
        let is_decided = |id: &TransitionId| {
            self.store.ledger().progress(id).expect("it was submitted").decided.is_some()
        };
        let ids = specs.iter().map(Spec::id).collect::<Vec<_>>();
        assert!(ids.iter().all(is_decided), "what is open no more is decided");
        ids
    }

    /// Does a node's part until nothing is open.
    fn work(&self, secret: &SigningKey) {
        let ledger = self.store.ledger();
        while ledger.load().transitions > 0 {
            let todo = ledger.assignments(&node(secret), &[]);
            for todo in &todo {
                self.act(secret, todo);
            }
            if todo.is_empty() {
                thread::sleep(POLL);
            }
        }
    }

    fn act(&self, secret: &SigningKey, todo: &Assignment) {
        let (ledger, node) = (self.store.ledger(), node(secret));
        let opened = self.store.headers(todo.opened, 1).expect("it was opened").remove(0);
        let place = Place {
            opened: Digest::of(opened.as_bytes()),
            transition: todo.transition,
            task: todo.index,
            round: todo.round,
        };
        let Input::Data(input) = &todo.input else { unreachable!("inputs are data here") };
        let result = Bytes::from(input.len().to_string());
        let salt = place.noise_seed(&node).0;
        let done = match todo.turn {
            Turn::Pledge => {
                let pledge = place.pledge(&node, &Digest::of(&result), &salt);
                let signature = secret.sign(&place.signed(&pledge)).to_bytes();
                let pledge = Pledge { node, pledge, signature };
                ledger.pledge(&todo.transition, todo.index, todo.round, &pledge)
            }
            Turn::Reveal { .. } => {
                ledger.reveal(&todo.transition, todo.index, todo.round, &node, salt, result)
            }
        };
        done.expect("nobody is late");
    }
}

fn node(secret: &SigningKey) -> NodeKey {
    NodeKey(secret.verifying_key().to_bytes())
}
