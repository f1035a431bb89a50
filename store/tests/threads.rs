//! Roots depend on the entries alone: not on the number of threads, nor on the engine.
//!
//! Method: the same commits, large enough to be shared among threads, go to stores that differ in these; after
//! each, all headers name one root, which is that of the tree made from a sorted list.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, num::NonZeroUsize};

use anwansi_proofs::tree::Sorted;
use anwansi_store::{Commit, LogKey, Options, Store, engine};
use bytes::Bytes;
use fastrand::Rng;

fn store(url: &str, threads: usize) -> Store {
    let key = LogKey::from_secret([7; 32], None).unwrap();
    let options = Options {
        threads: NonZeroUsize::new(threads).unwrap(),
        // Little enough for pages to leave memory.
        cache_bytes: 256 << 10,
        ..Options::default()
    };
    Store::open(engine::open(url).unwrap(), key, &options).unwrap()
}

/// Keys of random lengths, many of which begin alike.
fn any_key(rng: &mut Rng) -> Bytes {
    let key = (0..rng.usize(1..12)).map(|at| if at < 2 { rng.u8(1..4) } else { rng.u8(..) });
    key.collect()
}

#[test]
fn roots_are_equal_on_any_number_of_threads_and_any_engine() {
    let directory = tempfile::tempdir().unwrap();
    let url = |engine: &str| format!("{engine}:{}", directory.path().join(engine).display());
    let stores = [
        store("memory:", 1),
        store("memory:", 2),
        store("memory:", 7),
        store(&url("fjall"), 2),
        store(&url("sled"), 3),
    ];
    let (mut rng, mut model) = (Rng::with_seed(1), BTreeMap::new());
    for round in 0..12 {
        let mut writes = BTreeMap::new();
        for _ in 0..2000 {
            // Now and then what is there is written again, or removed.
            let old = rng.usize(..3) == 0 && !model.is_empty();
            let key =
                if old { rng.choice(model.keys()).cloned().unwrap() } else { any_key(&mut rng) };
            let length = rng.usize(..40);
            let value = (rng.usize(..5) > 0).then(|| Bytes::from(vec![rng.u8(..); length]));
            writes.insert(key, value);
        }
        for (key, value) in &writes {
            match value {
                Some(value) => drop(model.insert(key.clone(), value.clone())),
                None => drop(model.remove(key)),
            }
        }
        let slow = Sorted::new(model.clone().into_iter().collect()).root();
        for store in &stores {
            let done = store.commit(Commit::new(writes.clone().into_iter().collect())).unwrap();
            assert_eq!((done.version.0, done.state), (round + 1, slow));
        }
        if round % 4 == 3 {
            for store in &stores {
                store.flush().unwrap();
            }
        }
    }
    assert!(model.len() > 5000, "{}", model.len());
}
