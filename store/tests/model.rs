//! The store equals a list of ordered maps, one a version, whatever happens to it.
//!
//! Method: random commits, flushes, reopenings and reads of old versions on every engine, with keys that
//! share prefixes and values on both sides of the size that stands inside of pages. Roots are those of the
//! slow tree. Seeds are fixed and printed.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

#[path = "../../proofs/tests/reference/mod.rs"]
mod reference;

use std::sync::Arc;

use anwansi_proofs::{Change, Digest, Policy, Proof, Question, Root, Version};
use anwansi_store::{
    Commit, LogKey, Options, Snapshot, Store, Which,
    engine::{self, Direction, Engine, Memory},
};
use bytes::Bytes;
use fastrand::Rng;
use reference::State;

fn key(rng: &mut Rng) -> Vec<u8> {
    let alphabet = [0, 1, 0x61, 0x62, 0x80, 0xff];
    let length = if rng.u8(..) < 8 { rng.usize(900..=1024) } else { rng.usize(1..6) };
    let mut key = vec![0x61; length];
    for byte in key.iter_mut().rev().take(4) {
        *byte = alphabet[rng.usize(..alphabet.len())];
    }
    if key[0] == 0 {
        key[0] = 1;
    }
    key
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let length = match rng.u8(..) {
        0..20 => rng.usize(1000..1050),
        20..25 => rng.usize(1025..70_000),
        _ => rng.usize(..40),
    };
    vec![rng.u8(..); length]
}

fn open(engine: Arc<dyn Engine>) -> Store {
    let key = LogKey::from_secret([7; 32], None).unwrap();
    // A small cache, so that pages leave memory and come back.
    let options = Options { cache_bytes: 256 << 10, ..Options::default() };
    Store::open(engine, key, &options).unwrap()
}

type Writes = Vec<(Bytes, Option<Bytes>)>;

fn random_writes(rng: &mut Rng, state: &State) -> Writes {
    let mut writes = std::collections::BTreeMap::new();
    let count = [1, 1, 2, 5, 60, 300][rng.usize(..6)];
    for _ in 0..count {
        let known = rng.choice(state.keys()).filter(|_| rng.bool()).cloned();
        let key = known.unwrap_or_else(|| key(rng));
        let value = (rng.u8(..) < 160).then(|| value(rng).into());
        writes.insert(Bytes::from(key), value);
    }
    // Now and then whole neighbourhoods go, so that pages shrink and join.
    if rng.u8(..) < 25 {
        let first = rng.usize(..=state.len());
        for key in state.keys().skip(first).take(rng.usize(..200)) {
            writes.insert(Bytes::from(key.clone()), None);
        }
    }
    writes.into_iter().collect()
}

fn apply(state: &mut State, writes: &Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => state.insert(key.to_vec(), value.to_vec()),
            None => state.remove(&key[..]),
        };
    }
}

fn compare(snapshot: &Snapshot, state: &State, rng: &mut Rng) {
    assert_eq!(snapshot.root(), Root(Digest(reference::root(state))));
    assert_eq!(snapshot.entries(), state.len() as u64);
    let bytes = state.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    assert_eq!(snapshot.bytes(), bytes as u64);
    for _ in 0..5 {
        let known = rng.choice(state.keys()).filter(|_| rng.bool()).cloned();
        let one = known.unwrap_or_else(|| key(rng));
        assert_eq!(snapshot.get(&one).unwrap().as_deref(), state.get(&one).map(Vec::as_slice));
        let other = key(rng);
        let (start, end) = if one < other { (one, other) } else { (other, one) };
        let end = rng.bool().then_some(end);
        let inside = |key: &Vec<u8>| *key >= start && end.as_ref().is_none_or(|end| key < end);
        let expected = state.iter().filter(|(key, _)| inside(key));
        let expected = expected.map(|(key, value)| (key.clone(), value.clone()));
        let expected = expected.collect::<Vec<_>>();
        let read = |direction| {
            let entries = snapshot.range(&start, end.as_deref(), direction);
            entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap())
        };
        assert!(read(Direction::Ascending).eq(expected.iter().cloned()));
        assert!(read(Direction::Descending).eq(expected.iter().rev().cloned()));

        let question = Question::default().key(&start).range(&start, end.as_deref());
        let proof = snapshot.prove(Which::State, &question).unwrap();
        let shown = Proof::decode(&proof).unwrap().verify(&snapshot.root()).unwrap();
        assert_eq!(shown.get(&start).unwrap(), state.get(&start).map(Vec::as_slice));
        let entries = shown.range(&start, end.as_deref()).unwrap();
        assert!(entries.iter().map(|e| (e.key.to_vec(), e.value.to_vec())).eq(expected));
    }
}

/// The version's changes lead from the root before it to its own, for somebody who keeps no state.
fn step(store: &Store, version: Version, before: &State, after: &State) {
    let changes = store.changes(version).unwrap();
    let changes = changes
        .iter()
        .map(|(key, value)| Change { key, value: value.as_deref() })
        .collect::<Vec<_>>();
    let proof = store.update_proof(version).unwrap();
    let root = Root(Digest(reference::root(before)));
    let shown = Proof::decode(&proof).unwrap().verify(&root).unwrap();
    assert_eq!(shown.apply(&changes), Ok(Root(Digest(reference::root(after)))));
}

fn run(seed: u64, mut engine: impl FnMut() -> Arc<dyn Engine>) {
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let mut store = open(engine());
    let mut states = vec![State::new()];
    for _ in 0..60 {
        let mut state = states.last().unwrap().clone();
        let writes = random_writes(&mut rng, &state);
        apply(&mut state, &writes);
        let done = store.commit(Commit::new(writes)).unwrap();
        states.push(state);
        assert_eq!(done.version, Version(states.len() as u64 - 1));
        match rng.u8(..12) {
            0 => {
                drop(store);
                store = open(engine());
            }
            1 => store.flush().unwrap(),
            2..5 => {
                let version = rng.usize(..states.len());
                let old = store.at(Version(version as u64)).unwrap();
                compare(&old, &states[version], &mut rng);
                if version > 0 {
                    step(&store, old.version(), &states[version - 1], &states[version]);
                }
            }
            _ => {}
        }
        compare(&store.latest(), states.last().unwrap(), &mut rng);
    }
    let policy = Policy::of_log(store.vkey().clone()).unwrap();
    for (version, state) in states.iter().enumerate() {
        let version = Version(version as u64);
        let question = Question::default().range(b"", None);
        let evidence = store.evidence(version, Which::State, &question).unwrap();
        let checked = evidence.check(&policy).unwrap();
        assert_eq!(checked.version().header().version(), version);
        let entries = checked.version().state().unwrap().range(b"", None).unwrap();
        assert!(
            entries
                .iter()
                .map(|e| (e.key, e.value))
                .eq(state.iter().map(|(k, v)| (&k[..], &v[..])))
        );
        let tasks = store.evidence(version, Which::Tasks, &question).unwrap();
        let checked = tasks.check(&policy).unwrap();
        assert_eq!(checked.version().tasks().unwrap().range(b"", None).unwrap(), []);
    }
    let report = store.check(|_, _| {}).unwrap();
    assert_eq!(report.damages, []);
    assert_eq!(report.versions, states.len() as u64);
    store.close().unwrap();
}

#[test]
fn store_in_memory_equals_the_model() {
    for seed in 0..6 {
        let memory: Arc<dyn Engine> = Arc::new(Memory::new());
        run(seed, || memory.clone());
    }
}

fn run_on(scheme: &str) {
    for seed in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("{scheme}:{}", directory.path().join("data").display());
        run(seed, || engine::open(&url).unwrap());
    }
}

#[test]
fn store_on_fjall_equals_the_model() {
    run_on("fjall");
}

#[test]
fn store_on_sled_equals_the_model() {
    run_on("sled");
}
