//! What is kept is there, whole and provable, and what is not is gone, whatever happens in between.
//!
//! Method: random commits, rules, pins, flushes, reopenings and readers that stay, beside a list of ordered maps and the
//! set of versions that the rules leave; after each pruning everything is compared. A second test fails the n-th
//! operation of the engine, for every n, and opens what a crash could leave then. A third kills processes that prune. Seeds
//! are fixed and printed.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
    ops::Bound::Unbounded,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anwansi_proofs::{Digest, Policy, Question, Root, Version};
use anwansi_store::{
    Commit, Error, LogKey, Options, Retention, Snapshot, Store, Which,
    engine::{self, Direction, Engine, Keyspace, Memory},
};
use bytes::Bytes;
use common::{SECRET, STORE_URL, child_on, open, try_open};
use fastrand::Rng;

#[path = "../../proofs/tests/reference/mod.rs"]
mod reference;

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// Some keys with small values, and few with large ones, which are replaced again and again.
fn random_writes(rng: &mut Rng) -> Vec<(Bytes, Option<Bytes>)> {
    let mut writes = BTreeMap::new();
    for _ in 0..rng.usize(1..25) {
        let number = rng.u32(..60);
        let length = if number < 8 { rng.usize(1025..3000) } else { rng.usize(..30) };
        let value = (rng.u8(..) < 200).then(|| vec![rng.u8(..); length].into());
        writes.insert(Bytes::from(format!("key/{number}")), value);
    }
    writes.into_iter().collect()
}

fn apply(state: &State, writes: &[(Bytes, Option<Bytes>)]) -> State {
    let mut state = state.clone();
    for (key, value) in writes {
        match value {
            Some(value) => state.insert(key.to_vec(), value.to_vec()),
            None => state.remove(&key[..]),
        };
    }
    state
}

fn root(state: &State) -> Root {
    Root(Digest(reference::root(state)))
}

fn version(number: usize) -> Version {
    Version(number as u64)
}

/// A snapshot has all that the model has, and proves it.
fn compare(snapshot: &Snapshot, state: &State) {
    let entries = snapshot.range(b"", None, Direction::Ascending).map(Result::unwrap);
    let entries = entries.map(|(key, value)| (key.to_vec(), value.to_vec()));
    assert!(entries.eq(state.clone()), "{:?}", snapshot.version());
    assert_eq!(snapshot.root(), root(state));
    let question = Question::default().range(b"", None);
    let proof = snapshot.prove(Which::State, &question).unwrap();
    let proof = anwansi_proofs::Proof::decode(&proof).unwrap();
    assert_eq!(proof.verify(&root(state)).unwrap().range(b"", None).unwrap().len(), state.len());
}

/// What the rules leave.
struct Model {
    states: Vec<State>,
    kept: BTreeSet<usize>,
    pins: BTreeSet<usize>,
}

impl Model {
    fn new() -> Self {
        Model { states: vec![State::new()], kept: [0].into(), pins: BTreeSet::new() }
    }

    fn commit(&mut self, store: &Store, rng: &mut Rng) {
        let writes = random_writes(rng);
        let state = apply(self.states.last().unwrap(), &writes);
        let done = store.commit(Commit::new(writes)).unwrap();
        assert_eq!(done.version, version(self.states.len()));
        self.kept.insert(self.states.len());
        self.states.push(state);
    }

    fn prune(&mut self, store: &Store, retention: &Retention) {
        let before = self.kept.len();
        let newest = self.states.len() - 1;
        self.kept.retain(|version| {
            let version = *version as u64;
            version + retention.last.get() > newest as u64
                || retention.every.is_some_and(|every| version.is_multiple_of(every.get()))
                || self.pins.contains(&usize::try_from(version).unwrap())
        });
        let receipt = store.prune(retention).unwrap();
        assert_eq!(receipt.dropped, (before - self.kept.len()) as u64);
        assert_eq!(receipt.oldest, version(*self.kept.first().unwrap()));
        assert_eq!(receipt.newest, version(newest));
        assert_eq!([receipt.root_before, receipt.root_after], [root(&self.states[newest]); 2]);
    }

    /// Everything that is kept is there, and nothing else is.
    fn compare(&self, store: &Store) {
        let oldest = version(*self.kept.first().unwrap());
        assert_eq!(store.oldest(), oldest);
        assert!(store.pins().into_iter().eq(self.pins.iter().map(|pin| version(*pin))));
        for (number, state) in self.states.iter().enumerate() {
            if self.kept.contains(&number) {
                compare(&store.at(version(number)).unwrap(), state);
                let changes = store.changes(version(number)).unwrap();
                if number > 0 {
                    let before = &self.states[number - 1];
                    assert_eq!(apply(before, &changes), *state);
                }
            } else {
                let pruned = |error: Error| match error {
                    Error::Pruned { version: asked, oldest: named } => {
                        assert_eq!((asked, named), (version(number), oldest));
                    }
                    error => panic!("{error}"),
                };
                pruned(store.at(version(number)).unwrap_err());
                pruned(store.changes(version(number)).unwrap_err());
            }
        }
        let report = store.check(|_, _| {}).unwrap();
        assert_eq!((report.damages, report.left), (vec![], 0));
    }
}

fn any_retention(rng: &mut Rng) -> Retention {
    let last = [1, 2, 5, 20][rng.usize(..4)];
    let every = [0, 0, 2, 7, 16][rng.usize(..5)];
    Retention { last: NonZeroU64::new(last).unwrap(), every: NonZeroU64::new(every) }
}

fn run(seed: u64, mut engine: impl FnMut() -> Arc<dyn Engine>) {
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let mut store = open(engine());
    let mut model = Model::new();
    let mut readers: Vec<Snapshot> = Vec::new();
    let mut evidence = Vec::new();
    let all = Question::default().range(b"", None);
    for _ in 0..120 {
        let newest = model.states.len() - 1;
        match rng.u8(..16) {
            0 => {
                readers.clear();
                drop(store);
                store = open(engine());
            }
            1 => store.flush().unwrap(),
            2 => {
                let one = rng.usize(..=newest);
                let pinned = store.pin(version(one));
                if model.kept.contains(&one) {
                    pinned.unwrap();
                    model.pins.insert(one);
                } else {
                    assert!(matches!(pinned, Err(Error::Pruned { .. })), "{pinned:?}");
                }
            }
            3 => {
                let one = rng.usize(..=newest);
                let one = *rng.choice(&model.pins).filter(|_| rng.bool()).unwrap_or(&one);
                assert_eq!(store.unpin(version(one)).unwrap(), model.pins.remove(&one));
            }
            4 => {
                let one = version(*rng.choice(&model.kept).unwrap());
                readers.push(store.at(one).unwrap());
                evidence.push((one, store.evidence(one, Which::State, &all).unwrap()));
            }
            5 if !readers.is_empty() => drop(readers.swap_remove(rng.usize(..readers.len()))),
            6 | 7 => {
                model.prune(&store, &any_retention(&mut rng));
                model.compare(&store);
            }
            _ => model.commit(&store, &mut rng),
        }
        for reader in &readers {
            compare(reader, &model.states[usize::try_from(reader.version().0).unwrap()]);
        }
    }
    let policy = Policy::of_log(store.vkey().clone()).unwrap();
    for evidence in evidence {
        let checked = evidence.1.check(&policy).unwrap();
        assert_eq!(checked.version().header().version(), evidence.0);
    }
    drop(readers);
    model.pins.clear();
    store.pins().into_iter().for_each(|pin| assert!(store.unpin(pin).unwrap()));
    model.prune(&store, &Retention { last: NonZeroU64::MIN, every: None });
    model.compare(&store);
    store.close().unwrap();
}

#[test]
fn pruned_store_in_memory_equals_the_model() {
    for seed in 0..12 {
        let memory: Arc<dyn Engine> = Arc::new(Memory::new());
        run(seed, || memory.clone());
    }
}

fn run_on(scheme: &str) {
    for seed in 20..23 {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("{scheme}:{}", directory.path().join("data").display());
        run(seed, || engine::open(&url).unwrap());
    }
}

#[test]
fn pruned_store_on_fjall_equals_the_model() {
    run_on("fjall");
}

#[test]
fn pruned_store_on_sled_equals_the_model() {
    run_on("sled");
}

/// How many entries a keyspace has.
fn count(engine: &dyn Engine, space: Keyspace) -> usize {
    engine.scan(space, Unbounded, Unbounded, Direction::Ascending).count()
}

#[test]
fn receipt_counts_what_is_gone_from_storage() {
    let memory = Arc::new(Memory::new());
    let store = open(memory.clone());
    let large = |byte| Some(Bytes::from(vec![byte; 2000]));
    // Each version replaces the large value of the one before it.
    for number in 1..=9 {
        let small = ("small".into(), Some(number.to_string().into()));
        store.commit(Commit::new(vec![("large".into(), large(number)), small])).unwrap();
        if number == 4 {
            store.flush().unwrap();
        }
    }
    store.pin(Version(3)).unwrap();
    let last = NonZeroU64::new(2).unwrap();
    let receipt = store.prune(&Retention { last, every: None }).unwrap();
    assert_eq!(receipt.dropped, 8 - 1);
    assert_eq!((receipt.oldest, receipt.newest), (Version(3), Version(9)));
    // Of versions 8 and 9, made from the flush of 4, and of 3, made from nothing: 4 alone is not on the way.
    assert_eq!((receipt.changes.count, receipt.flushes), (1, 0));
    assert_eq!((receipt.values.count, receipt.values.bytes), (6, 6 * 2000));
    assert_eq!(count(&*memory, Keyspace::Changes), 8);
    assert_eq!(count(&*memory, Keyspace::Values), 3);
    assert_eq!(store.at(Version(3)).unwrap().get(b"large").unwrap(), large(3));

    assert!(store.unpin(Version(3)).unwrap());
    let receipt = store.prune(&Retention { last: NonZeroU64::MIN, every: None }).unwrap();
    assert_eq!((receipt.dropped, receipt.oldest), (2, Version(9)));
    // Version 9 is flushed: its own changes stay, because they may be asked for.
    assert_eq!((receipt.changes.count, receipt.flushes), (7, 1));
    assert_eq!(receipt.values.count, 2);
    assert_eq!(count(&*memory, Keyspace::Values), 1);
    assert_eq!(store.changes(Version(9)).unwrap().len(), 2);
    assert!(matches!(store.update_proof(Version(9)), Err(Error::Pruned { .. })));
    // Headers, finality and what happened to tasks stay.
    assert_eq!(store.headers(Version(0), 100).unwrap().len(), 10);
    store.finality(Version(1)).unwrap();
    assert_eq!(store.tasks(Version(1)).unwrap(), []);
    // A version that replaces nothing large lists nothing.
    store.commit(common::commit(&["small=10"])).unwrap();
    assert_eq!(count(&*memory, Keyspace::Replaced), 0);
}

#[test]
fn versions_behind_a_flush_go_back_from_it_and_need_none_before() {
    let memory = Arc::new(Memory::new());
    // A few versions alone stay in memory.
    let options = Options { cache_bytes: 512 << 10, ..Options::default() };
    let key = || LogKey::from_secret(SECRET, None).unwrap();
    let open = || Store::open(memory.clone(), key(), &options).unwrap();
    let store = open();
    let (mut rng, mut model) = (Rng::with_seed(9), Model::new());
    let retention = Retention { last: NonZeroU64::new(10).unwrap(), every: NonZeroU64::new(4) };
    model.prune(&store, &retention);
    let records = |prefix: &str| {
        let records = memory.scan(Keyspace::Meta, Unbounded, Unbounded, Direction::Ascending);
        records.filter(|it| it.as_ref().unwrap().0.starts_with(prefix.as_bytes())).count()
    };
    for round in 0..8 {
        (0..17).for_each(|_| model.commit(&store, &mut rng));
        let without_every = Retention { every: None, ..retention };
        let retention = if round % 2 == 0 { without_every } else { retention };
        // It stays where it is made from, when there are newer flushes and its neighbours are gone.
        if round == 3 {
            let pin = model.states.len() - 5;
            store.pin(version(pin)).unwrap();
            model.pins.insert(pin);
        }
        // One that holds what it was made from.
        let reader = (round >= 3).then(|| store.at(version(model.states.len() - 7)).unwrap());
        model.prune(&store, &retention);
        model.compare(&store);
        drop(reader);
        if round < 3 && round % 2 == 0 {
            assert_eq!(records("flush/"), 1);
            assert_eq!(records("segment/"), 1);
        }
        assert!(count(&*memory, Keyspace::Undo) > 0);
    }
    store.close().unwrap();
    drop(store);
    let store = open();
    model.compare(&store);
    // Nobody has gathered what leads back over the opening: the flush before it is needed until that is behind it.
    let last_ten = Retention { every: None, ..retention };
    (0..3).for_each(|_| model.commit(&store, &mut rng));
    model.pins.clear();
    store.pins().into_iter().for_each(|pin| assert!(store.unpin(pin).unwrap()));
    model.prune(&store, &last_ten);
    model.compare(&store);
    assert_eq!(records("flush/"), 2);
    (0..10).for_each(|_| model.commit(&store, &mut rng));
    model.prune(&store, &last_ten);
    model.compare(&store);
    assert_eq!(records("flush/"), 1);
    // If it is gathered from the opening on, it goes on where that of the flush before ends.
    store.close().unwrap();
    drop(store);
    let store = open();
    model.prune(&store, &last_ten);
    (0..3).for_each(|_| model.commit(&store, &mut rng));
    model.prune(&store, &last_ten);
    model.compare(&store);
    assert_eq!(records("flush/"), 1);
    // With the last of them, no undo is left.
    model.prune(&store, &Retention { last: NonZeroU64::MIN, every: None });
    model.compare(&store);
    assert_eq!(count(&*memory, Keyspace::Undo), 0);
}

/// The bytes of all pages in storage.
fn page_bytes(engine: &dyn Engine) -> usize {
    let chunks = engine.scan(Keyspace::Pages, Unbounded, Unbounded, Direction::Ascending);
    chunks.map(|chunk| chunk.unwrap().1.len()).sum()
}

#[test]
fn pages_of_pruned_versions_are_freed_and_the_last_of_them_moved() {
    let memory = Arc::new(Memory::new());
    // Room to move pages in, but not for all of them.
    let options = Options { cache_bytes: 4 << 20, ..Options::default() };
    let key = LogKey::from_secret(SECRET, None).unwrap();
    let store = Store::open(memory.clone(), key, &options).unwrap();
    let retention = Retention { last: NonZeroU64::MIN, every: None };
    let mut rng = Rng::with_seed(6);
    let all = (0..20_000_u32).map(|number| number.to_be_bytes().map(|byte| byte | 1).to_vec());
    let all = all.collect::<BTreeSet<_>>().into_iter().map(Bytes::from).collect::<Vec<_>>();
    let write = |key: &Bytes, byte| (key.clone(), Some(Bytes::from(vec![byte; 60])));
    store.commit(Commit::new(all.iter().map(|key| write(key, 0)).collect())).unwrap();
    store.prune(&retention).unwrap();
    let (alone, mut most, mut moved) = (page_bytes(&*memory), 0, false);
    for round in 1..60 {
        // A tenth of the pages each time: each flush leaves a little of all before it.
        let first = rng.usize(..all.len() * 9 / 10);
        let some = all[first..first + all.len() / 10].iter();
        store.commit(Commit::new(some.map(|key| write(key, round)).collect())).unwrap();
        let before = page_bytes(&*memory);
        let receipt = store.prune(&retention).unwrap();
        let after = page_bytes(&*memory);
        most = most.max(after);
        // What was written anew beside the tenth.
        moved |= after + usize::try_from(receipt.pages.bytes).unwrap() > before + alone / 5;
        let report = store.check(|_, _| {}).unwrap();
        assert_eq!((report.damages, report.left, report.flushes), (vec![], 0, 1));
    }
    assert!(moved, "no pages were moved");
    assert!(most < 2 * alone, "{most} bytes, {alone} for the state alone");
    for at in (0..all.len()).step_by(97) {
        assert_eq!(store.latest().get(&all[at]).unwrap().unwrap().len(), 60);
    }
    store.close().unwrap();
    drop(store);
    let report = open(memory).check(|_, _| {}).unwrap();
    assert_eq!((report.damages, report.left), (vec![], 0));
}

/// A store with so small a cache that hardly any page stays in it, and what is written to it: so many entries, all at once.
fn many(memory: &Arc<Memory>) -> (Store, impl Fn(u8) -> Commit) {
    let options = Options { cache_bytes: 64 << 10, ..Options::default() };
    let key = LogKey::from_secret(SECRET, None).unwrap();
    let store = Store::open(memory.clone(), key, &options).unwrap();
    let write = |byte: u8| {
        let keys = (0..4000_u32).map(|number| format!("key/{number}").into());
        Commit::new(keys.map(|key| (key, Some(Bytes::from(vec![byte; 60])))).collect())
    };
    (store, write)
}

fn has_all(snapshot: &Snapshot, byte: u8) {
    let entries = snapshot.range(b"", None, Direction::Ascending).map(Result::unwrap);
    let right = entries.filter(|(_, value)| value[..] == [byte; 60]).count();
    assert_eq!(right, 4000);
}

#[test]
fn pages_that_only_a_reader_needs_stay_until_he_goes() {
    let retention = Retention { last: NonZeroU64::MIN, every: None };
    let memory = Arc::new(Memory::new());
    let (store, write) = many(&memory);
    for byte in 1..=3 {
        store.commit(write(byte)).unwrap();
        store.flush().unwrap();
    }
    // One reads what was the newest when he began, the other an older version that was made again.
    let newest = store.latest();
    store.pin(Version(2)).unwrap();
    store.prune(&retention).unwrap();
    let old = store.at(Version(2)).unwrap();
    assert!(store.unpin(Version(2)).unwrap());
    for byte in 4..=6 {
        store.commit(write(byte)).unwrap();
        store.prune(&retention).unwrap();
        has_all(&newest, 3);
        has_all(&old, 2);
        has_all(&store.latest(), byte);
        assert!(matches!(store.at(Version(2)), Err(Error::Pruned { .. })));
    }
    let held = page_bytes(&*memory);
    drop(old);
    store.prune(&retention).unwrap();
    assert!(page_bytes(&*memory) < held / 6 * 5);
    has_all(&newest, 3);
    drop(newest);
    store.prune(&retention).unwrap();
    assert!(page_bytes(&*memory) < held / 2);
}

#[test]
fn version_stays_though_the_next_flush_has_no_pages() {
    let memory = Arc::new(Memory::new());
    let (store, write) = many(&memory);
    store.commit(write(1)).unwrap();
    store.flush().unwrap();
    store.pin(Version(1)).unwrap();
    let removed = write(1).writes.into_iter().map(|(key, _)| (key, None)).collect();
    store.commit(Commit::new(removed)).unwrap();
    let retention = Retention { last: NonZeroU64::MIN, every: None };
    store.prune(&retention).unwrap();
    store.close().unwrap();
    drop(store);
    let (store, _) = many(&memory);
    assert_eq!(store.latest().entries(), 0);
    has_all(&store.at(Version(1)).unwrap(), 1);
    assert!(store.unpin(Version(1)).unwrap());
    store.prune(&retention).unwrap();
    assert_eq!(page_bytes(&*memory), 0);
}

#[test]
fn versions_that_are_not_there_are_not_pinned() {
    let store = open(Arc::new(Memory::new()));
    for number in 1..=3 {
        store.commit(common::commit(&[&format!("key={number}")])).unwrap();
    }
    let absent = store.pin(Version(4));
    assert!(
        matches!(absent, Err(Error::NoSuchVersion { version: Version(4), newest: Version(3) })),
        "{absent:?}"
    );
    store.prune(&Retention { last: NonZeroU64::MIN, every: None }).unwrap();
    let pruned = store.pin(Version(2));
    assert!(
        matches!(pruned, Err(Error::Pruned { version: Version(2), oldest: Version(3) })),
        "{pruned:?}"
    );
    assert_eq!(store.pins(), []);
    assert!(!store.unpin(Version(2)).unwrap());
    store.close().unwrap();
    assert!(matches!(store.pin(Version(3)), Err(Error::Closed)));
    assert!(matches!(
        store.prune(&Retention { last: NonZeroU64::MIN, every: None }),
        Err(Error::Closed)
    ));
}

/// With `undo`, the pruning makes versions from the flush behind them, and lets those before it go.
fn crash_at_any_write(undo: bool) {
    let retention = Retention { last: NonZeroU64::new(3).unwrap(), every: NonZeroU64::new(5) };
    let mut openings = 0;
    for nth in 1.. {
        let memory = Arc::new(Memory::new());
        let mut rng = Rng::with_seed(9);
        let mut model = Model::new();
        let store = open(memory.clone());
        for number in 1..=17 {
            model.commit(&store, &mut rng);
            if number % 6 == 0 {
                store.flush().unwrap();
            }
            if undo && number == 4 {
                // From now on it is gathered.
                store.prune(&retention).unwrap();
            }
        }
        // Everything up to here is durable.
        memory.fail_after(nth);
        // What stays in any case, and what may have been pinned.
        let kept = |version: usize| version == 7 || version >= 15 || version.is_multiple_of(5);
        let done = store.pin(Version(7)).and_then(|()| store.prune(&retention));
        let done = done.and_then(|_| store.unpin(Version(7)));
        for cut in 0..=memory.unsynced() {
            let store = open(Arc::new(memory.crash(cut)));
            for (number, state) in model.states.iter().enumerate() {
                match store.at(version(number)) {
                    Ok(snapshot) => compare(&snapshot, state),
                    Err(Error::Pruned { .. }) => assert!(!kept(number), "{number} of {nth}"),
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(store.check(|_, _| {}).unwrap().damages, []);
            // The next one frees what is left.
            store.prune(&retention).unwrap();
            let report = store.check(|_, _| {}).unwrap();
            assert_eq!((report.damages, report.left), (vec![], 0));
            for number in (0..model.states.len()).filter(|number| *number != 7 && kept(*number)) {
                compare(&store.at(version(number)).unwrap(), &model.states[number]);
            }
            openings += 1;
        }
        if done.is_ok() {
            assert_eq!(count(&*memory, Keyspace::Undo) > 0, undo);
            break;
        }
    }
    assert!(openings > 10, "{openings} openings");
}

#[test]
fn crash_at_any_write_of_a_pruning_loses_nothing_that_is_kept() {
    crash_at_any_write(false);
}

#[test]
fn crash_at_any_write_of_a_pruning_with_undo_loses_nothing_that_is_kept() {
    crash_at_any_write(true);
}

/// The same writes for a version each time.
fn nth_writes(version: u64) -> Vec<(Bytes, Option<Bytes>)> {
    random_writes(&mut Rng::with_seed(version))
}

fn pruned_by_child() -> Retention {
    Retention { last: NonZeroU64::new(5).unwrap(), every: NonZeroU64::new(7) }
}

/// Not a test, unless run by one: commits and prunes until it is killed, and says what was acknowledged.
#[test]
fn child() {
    let Ok(url) = std::env::var(STORE_URL) else { return };
    let store = open(engine::open(&url).unwrap());
    println!("\nopened");
    for number in store.latest().version().0 + 1.. {
        store.commit(Commit::new(nth_writes(number))).unwrap();
        println!("acknowledged {number}");
        if number % 4 == 0 {
            store.prune(&pruned_by_child()).unwrap();
        }
    }
}

fn kill_while_pruning(scheme: &str) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("{scheme}:{}", directory.path().join("data").display());
    let (mut rng, mut states) = (Rng::with_seed(8), vec![State::new()]);
    for round in 0..12 {
        let (mut child, mut lines) = child_on(&url);
        let patience = rng.usize(1..16);
        lines.by_ref().take(patience).for_each(drop);
        std::thread::sleep(std::time::Duration::from_micros(rng.u64(..8000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let said = lines.last();
        let store = open(engine::open(&url).unwrap());
        let newest = store.latest().version().0;
        let acknowledged = said.and_then(|line| line.strip_prefix("acknowledged ")?.parse().ok());
        assert!(acknowledged.is_none_or(|acknowledged: u64| acknowledged <= newest));
        for number in states.len() as u64..=newest {
            states.push(apply(states.last().unwrap(), &nth_writes(number)));
        }
        for (number, state) in states.iter().enumerate() {
            match store.at(version(number)) {
                Ok(snapshot) => compare(&snapshot, state),
                Err(Error::Pruned { .. }) => {
                    let is_kept = number.is_multiple_of(7) || number as u64 + 5 > newest;
                    assert!(!is_kept, "{number} of {newest} in round {round}");
                }
                Err(error) => panic!("{error} in round {round}"),
            }
        }
        assert_eq!(store.check(|_, _| {}).unwrap().damages, []);
        if round % 3 == 2 {
            store.prune(&pruned_by_child()).unwrap();
            let report = store.check(|_, _| {}).unwrap();
            assert_eq!((report.damages, report.left), (vec![], 0));
        }
    }
    assert!(states.len() > 40, "the children got something done");
}

#[test]
fn killed_pruning_loses_nothing_that_is_kept_on_fjall() {
    kill_while_pruning("fjall");
}

#[test]
fn killed_pruning_loses_nothing_that_is_kept_on_sled() {
    kill_while_pruning("sled");
}

#[test]
fn store_prunes_by_itself_while_it_is_written_and_read() {
    let memory: Arc<dyn Engine> = Arc::new(Memory::new());
    let dropped = Arc::new(AtomicU64::new(0));
    let pruned = dropped.clone();
    let options = Options {
        cache_bytes: 256 << 10,
        retention: Some(Retention { last: NonZeroU64::new(10).unwrap(), every: None }),
        pruned: Arc::new(move |receipt| {
            pruned.fetch_add(receipt.as_ref().unwrap().dropped, Ordering::Relaxed);
        }),
        ..Options::default()
    };
    let key = LogKey::from_secret(SECRET, None).unwrap();
    let store = Store::open(memory.clone(), key, &options).unwrap();
    let mut rng = Rng::with_seed(4);
    let mut model = Model::new();
    std::thread::scope(|scope| {
        let reader = store.clone();
        let reading = scope.spawn(move || {
            let (mut rng, mut read) = (Rng::with_seed(5), 0);
            while reader.latest().version() < Version(600) {
                let newest = reader.latest().version().0;
                let asked = Version(newest.saturating_sub(rng.u64(..20)));
                match reader.at(asked) {
                    // It stays whole, whatever is pruned meanwhile.
                    Ok(snapshot) => {
                        let entries = snapshot.range(b"", None, Direction::Ascending);
                        let count = entries.map(Result::unwrap).count() as u64;
                        assert_eq!(count, snapshot.entries());
                        read += 1;
                    }
                    Err(Error::Pruned { version, oldest }) => {
                        assert_eq!(version, asked);
                        assert!(oldest > asked);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            read
        });
        for number in 1..=600 {
            model.commit(&store, &mut rng);
            if number % 25 == 0 {
                store.flush().unwrap();
            }
        }
        assert!(reading.join().unwrap() > 0);
    });
    let waited = std::time::Instant::now();
    while dropped.load(Ordering::Relaxed) < 500 {
        assert!(waited.elapsed() < std::time::Duration::from_secs(60));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for number in 591..=600 {
        compare(&store.at(version(number)).unwrap(), &model.states[number]);
    }
    store.close().unwrap();
    assert!(count(&*memory, Keyspace::Changes) < 100);
    let store = try_open(memory).unwrap();
    let report = store.check(|_, _| {}).unwrap();
    assert_eq!(report.damages, []);
}
