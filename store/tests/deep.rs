//! The deepest tree that keys can make is read, proven from, updated, checked and opened again, by threads with a
//! quarter of the usual stack.
//!
//! Method: keys of ones, each of which parts from the longest one at another bit: a branch at every bit of a path,
//! and pages below one another.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anwansi_proofs::{Change, Proof, Question, path::KEY_BYTES_MAX};
use anwansi_store::{
    Commit, Store, Which,
    engine::{Direction, Memory},
};
use bytes::Bytes;
use common::open;

/// The longest key of ones, and for each of its bits the key that ends where that bit is none.
fn chain() -> Vec<Bytes> {
    let mut keys = vec![Bytes::from(vec![0xff; KEY_BYTES_MAX])];
    for length in 0..KEY_BYTES_MAX {
        for bit in 0..8 {
            let mut key = vec![0xff; length];
            key.push(!(1 << bit));
            keys.push(key.into());
        }
    }
    keys
}

fn write(store: &Store, keys: &[Bytes], value: Option<&'static str>) {
    let writes = keys.iter().map(|key| (key.clone(), value.map(Bytes::from))).collect();
    store.commit(Commit::new(writes)).unwrap();
}

#[test]
fn commit_of_keys_that_part_six_by_six_is_as_quick_as_any() {
    let store = open(Arc::new(Memory::new()));
    let key = |(length, bit, last): (usize, u32, u8)| {
        let mut key = vec![0xff; length];
        key.extend([!(1_u8 << bit), last]);
        Bytes::from(key)
    };
    let places = (0..KEY_BYTES_MAX - 1).flat_map(|length| (0..8_u32).map(move |bit| (length, bit)));
    let keys = places.flat_map(|(length, bit)| (0..6).map(move |last| (length, bit, last)));
    let keys = keys.map(key).collect::<Vec<_>>();
    let start = Instant::now();
    write(&store, &keys, Some(""));
    // A second or two; with a pass over all of them for each six it was minutes.
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert_eq!(store.latest().entries(), keys.len() as u64);
}

#[test]
fn deepest_tree_overflows_no_stack() {
    let thread = thread::Builder::new().stack_size(512 << 10).spawn(live);
    thread.unwrap().join().unwrap();
}

fn live() {
    let keys = chain();
    let engine = Arc::new(Memory::new());
    let store = open(engine.clone());
    // Many at once and few at once go different ways.
    let (many, few) = keys.split_at(keys.len() - 400);
    for keys in many.chunks(2000).chain(few.chunks(40)) {
        write(&store, keys, Some("old"));
    }
    let before = store.latest().version();
    write(&store, &keys, Some("new"));
    write(&store, &keys[..1], Some("newest"));
    store.flush().unwrap();
    drop(store);

    let store = open(engine);
    let latest = store.latest();
    assert_eq!(latest.entries(), keys.len() as u64);
    let mut near = 0;
    let some = keys.iter().step_by(101).chain([&keys[0]]);
    for key in some.clone() {
        let value = latest.get(key).unwrap().unwrap();
        let question = Question::default().key(key);
        let proof = latest.prove(Which::State, &question).unwrap();
        let shown = Proof::decode(&proof).unwrap().verify(&latest.root()).unwrap();
        assert_eq!(shown.get(key).unwrap(), Some(&value[..]));
        near += usize::from(latest.prove_near(&question).is_some());
    }
    assert!(near < some.count(), "most keys lie too deep to be proven at once");
    for direction in [Direction::Ascending, Direction::Descending] {
        assert_eq!(latest.range(b"", None, direction).count(), keys.len());
    }
    assert_eq!(store.at(before).unwrap().get(&keys[0]).unwrap().unwrap(), "old");
    let newest = latest.version();
    let update = store.update_proof(newest).unwrap();
    let earlier = store.at(anwansi_proofs::Version(newest.0 - 1)).unwrap();
    let shown = Proof::decode(&update).unwrap().verify(&earlier.root()).unwrap();
    let change = Change { key: &keys[0], value: Some(b"newest") };
    assert_eq!(shown.apply(&[change]).unwrap(), latest.root());
    assert_eq!(store.check(|_, _| ()).unwrap().damages, []);
    write(&store, &keys, None);
    assert_eq!(store.latest().entries(), 0);
}
