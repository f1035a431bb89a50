//! Whatever a crash leaves, the store opens with every acknowledged commit and no half of one.
//!
//! Method: a workload of commits, large values and flushes is run again and again, and the n-th operation
//! of the engine fails, for every n there is. What a power cut could leave then is opened: all that was
//! synced, and any prefix of what was not. A second test kills a process that writes to fjall.
#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::BTreeMap, sync::Arc};

use anwansi_proofs::{Digest, Policy, Root, Version};
use anwansi_store::{
    Commit, Error, RequestId, Store,
    engine::{self, Direction, Memory},
};
use bytes::Bytes;
use common::{STORE_URL, child_on, open, try_open};
use fastrand::Rng;

#[path = "../../proofs/tests/reference/mod.rs"]
mod reference;

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// The commit that makes version `version`: the same each time.
fn nth_commit(version: u64) -> Vec<(Bytes, Option<Bytes>)> {
    let mut rng = Rng::with_seed(version);
    let mut writes = BTreeMap::new();
    for _ in 0..rng.usize(1..30) {
        let key = format!("key/{}", rng.u32(..80));
        let length = if rng.u8(..) < 10 { 5000 } else { rng.usize(..20) };
        let value = (rng.u8(..) < 200).then(|| vec![rng.u8(..); length].into());
        writes.insert(Bytes::from(key), value);
    }
    writes.insert("version".into(), Some(version.to_string().into()));
    writes.into_iter().collect()
}

fn states(versions: u64) -> Vec<State> {
    let mut states = vec![State::new()];
    for version in 1..=versions {
        let mut state = states.last().unwrap().clone();
        for (key, value) in nth_commit(version) {
            match value {
                Some(value) => state.insert(key.to_vec(), value.to_vec()),
                None => state.remove(&key[..]),
            };
        }
        states.push(state);
    }
    states
}

/// Checks that `store` holds versions 0 to `newest` as they must be, all of them provable.
fn check(store: &Store, states: &[State]) {
    let newest = store.latest().version().0;
    for version in 0..=newest {
        let snapshot = store.at(Version(version)).unwrap();
        let state = &states[usize::try_from(version).unwrap()];
        assert_eq!(snapshot.root(), Root(Digest(reference::root(state))), "version {version}");
    }
    let latest = store.latest();
    let entries = latest.range(b"", None, Direction::Ascending).map(Result::unwrap);
    let expected = &states[usize::try_from(newest).unwrap()];
    assert!(
        entries.eq(expected.iter().map(|(key, value)| (key.clone().into(), value.clone().into())))
    );
    assert_eq!(store.check(|_, _| {}).unwrap().damages, []);
}

#[test]
fn crash_after_any_operation_loses_nothing_acknowledged() {
    const VERSIONS: u64 = 12;
    let states = states(VERSIONS + 1);
    let mut openings = 0;
    for nth in 1.. {
        let memory = Arc::new(Memory::new());
        memory.fail_after(nth);
        let (mut acknowledged, mut checkpoint) = (0, None);
        if let Ok(store) = try_open(memory.clone()) {
            checkpoint = Some(store.checkpoint().to_string());
            for version in 1..=VERSIONS {
                if store.commit(Commit::new(nth_commit(version))).is_err() {
                    break;
                }
                acknowledged = version;
                checkpoint = Some(store.checkpoint().to_string());
                if version % 4 == 0 && store.flush().is_err() {
                    break;
                }
            }
        }
        for kept in 0..=memory.unsynced() {
            let store = open(Arc::new(memory.crash(kept)));
            let newest = store.latest().version().0;
            assert!((acknowledged..=acknowledged + 1).contains(&newest), "operation {nth}");
            check(&store, &states);
            // What was signed before the crash is the beginning of the log there is now.
            if let Some(seen) = &checkpoint {
                let policy = Policy::of_log(store.vkey().clone()).unwrap();
                let seen = policy.verify(seen).unwrap();
                assert!(seen.size() <= newest + 1);
                assert_eq!(seen.root(), &log_root(&store, seen.size()));
            }
            // It goes on from there.
            let version = store.commit(Commit::new(nth_commit(newest + 1))).unwrap().version;
            assert_eq!(version, Version(newest + 1));
            check(&store, &states);
            openings += 1;
        }
        if acknowledged == VERSIONS && memory.operations() < nth {
            break;
        }
    }
    assert!(openings > 50, "{openings} openings");
}

/// The root of the log's first entries, computed from the headers.
fn log_root(store: &Store, size: u64) -> anwansi_proofs::LogHash {
    use anwansi_proofs::LogHash;
    fn root(leaves: &[LogHash]) -> LogHash {
        match leaves {
            [] => LogHash::empty(),
            [one] => *one,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                LogHash::node(&root(left), &root(right))
            }
        }
    }
    let headers = store.headers(Version(0), usize::try_from(size).unwrap()).unwrap();
    root(&headers.iter().map(|header| LogHash::leaf(header.as_bytes())).collect::<Vec<_>>())
}

#[test]
fn failed_write_poisons_the_store_and_answers_everybody() {
    for nth in 1..4 {
        let memory = Arc::new(Memory::new());
        let store = open(memory.clone());
        store.commit(common::commit(&["a=1"])).unwrap();
        memory.fail_after(nth);
        let (answer, answers) = std::sync::mpsc::channel();
        for i in 0..50 {
            let answer = answer.clone();
            let commit = common::commit(&[&format!("key{i}=1")]);
            store.commit_then(commit, Box::new(move |result| answer.send(result).unwrap()));
        }
        drop(answer);
        let results = answers.iter().collect::<Vec<_>>();
        assert_eq!(results.len(), 50);
        let refused = store.commit(common::commit(&["b=1"]));
        assert!(matches!(refused, Err(Error::Engine(_))), "{refused:?}");
        assert!(store.failure().is_some());
        // What was shown before stays readable.
        assert_eq!(store.latest().get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
        assert!(store.close().is_err());
        let durable = results.iter().flatten().map(|done| done.version).max();
        drop(store);
        let store = open(Arc::new(memory.crash(0)));
        assert!(durable.is_none_or(|durable| store.latest().version() >= durable));
    }
}

#[test]
fn chunks_of_an_unfinished_flush_are_swept_at_opening() {
    use anwansi_store::engine::{Batch, Engine as _, Keyspace};
    let memory = Arc::new(Memory::new());
    let store = open(memory.clone());
    store.commit(Commit::new(nth_commit(1))).unwrap();
    store.close().unwrap();
    let chunks = || {
        use std::ops::Bound::Unbounded;
        let chunks = memory.scan(Keyspace::Pages, Unbounded, Unbounded, Direction::Ascending);
        chunks.map(|chunk| chunk.unwrap().0.to_vec()).collect::<Vec<_>>()
    };
    let finished = chunks();
    assert_eq!(finished.len(), 1);
    // What the first chunk of the next flush would be, for no two end at the same one; and one of an opening to come.
    let mut batch = Batch::new();
    batch.put(Keyspace::Pages, vec![0, 0, 0, 1, 0, 0, 0, 2], "half");
    batch.put(Keyspace::Pages, vec![0, 0, 0, 2, 0, 0, 0, 0], "half");
    memory.write(batch).unwrap();
    assert_eq!(chunks().len(), 3);
    let store = open(memory.clone());
    assert_eq!(chunks(), finished);
    check(&store, &states(1));
}

#[test]
fn more_changes_than_are_gathered_at_once_are_made_again_after_a_crash() {
    let memory = Arc::new(Memory::new());
    let store = open(memory.clone());
    let (mut roots, large) = (Vec::new(), Bytes::from(vec![1; 1 << 20]));
    // Every version brings 8 MiB, and changes what the one before it wrote: 32 MiB are gathered.
    for number in 0..11 {
        let other = [
            (format!("small{number}").into(), Some("".into())),
            ("same".into(), Some(format!("{number}").into())),
        ];
        let removed = (number > 0).then(|| (format!("large{}", number - 1).into(), None));
        let large = (0..8).map(|part| (format!("large{}", 8 * number + part), Some(large.clone())));
        let large = large.map(|(key, value)| (key.into(), value));
        let writes = large.chain(other).chain(removed).collect();
        roots.push(store.commit(Commit::new(writes)).unwrap().state);
    }
    let store = open(Arc::new(memory.crash(0)));
    let state = |version: usize| store.at(Version(version as u64 + 1)).unwrap().root();
    assert_eq!((0..11).map(state).collect::<Vec<_>>(), roots);
    assert_eq!(store.latest().get(b"same").unwrap().as_deref(), Some(&b"10"[..]));
}

/// Not a test, unless run by one: commits until it is killed, and says what was acknowledged.
#[test]
fn child() {
    let Ok(url) = std::env::var(STORE_URL) else { return };
    let store = open(engine::open(&url).unwrap());
    println!("\nopened");
    for version in store.latest().version().0 + 1.. {
        let mut commit = Commit::new(nth_commit(version));
        let name = Digest::of(&version.to_be_bytes());
        commit.request = Some(RequestId { name, body: name });
        assert_eq!(store.commit(commit).unwrap().version, Version(version));
        println!("acknowledged {version}");
        if version % 7 == 0 {
            store.flush().unwrap();
        }
    }
}

fn kill_at_random_moments(scheme: &str) {
    const ROUNDS: u32 = 12;
    let directory = tempfile::tempdir().unwrap();
    let url = format!("{scheme}:{}", directory.path().join("data").display());
    let mut rng = Rng::with_seed(3);
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let (mut child, mut lines) = child_on(&url);
        let patience = rng.u32(1..12);
        for line in lines.by_ref().take(usize::try_from(patience).unwrap()) {
            acknowledged = line.strip_prefix("acknowledged ").unwrap().parse().unwrap();
        }
        std::thread::sleep(std::time::Duration::from_micros(rng.u64(..6000)));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            if let Some(version) = line.strip_prefix("acknowledged ") {
                acknowledged = version.parse().unwrap();
            }
        }
        let store = open(engine::open(&url).unwrap());
        let newest = store.latest().version().0;
        assert!(newest >= acknowledged, "round {round}: {newest} of {acknowledged}");
        check(&store, &states(newest));
        // A repeat of the last request is answered, not carried out again.
        if acknowledged > 0 {
            let mut repeat = Commit::new(nth_commit(acknowledged));
            let name = Digest::of(&acknowledged.to_be_bytes());
            repeat.request = Some(RequestId { name, body: name });
            assert_eq!(store.commit(repeat).unwrap().version, Version(acknowledged));
            assert_eq!(store.latest().version().0, newest);
        }
    }
    assert!(acknowledged > u64::from(ROUNDS), "the children got something done");
}

#[test]
fn killed_process_loses_nothing_acknowledged_on_fjall() {
    kill_at_random_moments("fjall");
}

#[test]
fn killed_process_loses_nothing_acknowledged_on_sled() {
    kill_at_random_moments("sled");
}
