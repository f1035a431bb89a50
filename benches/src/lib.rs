//! What the benches share: a store of random keys, and the same keys in the same order for all.
//!
//! Keys are 32 random bytes, values 100; seeds are fixed. Each bench measures one operation and checks its
//! result outside of what is timed.

pub mod machine;

use std::path::Path;

use anwansi_store::{Commit, LogKey, Options, Store, engine};
use bytes::Bytes;
use fastrand::Rng;
use mimalloc::MiMalloc;

/// That of `anwansi-server`: pages are allocated on some threads and freed on others.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The number of entries in the stores that are read and written.
pub const ENTRIES: usize = 100_000;

/// A key of 32 random bytes.
#[must_use]
pub fn key(rng: &mut Rng) -> Bytes {
    let mut key = vec![0; 32];
    rng.fill(&mut key);
    // Keys that start with a zero byte are not for callers.
    key[0] |= 1;
    key.into()
}

/// A value of 100 random bytes.
#[must_use]
pub fn value(rng: &mut Rng) -> Bytes {
    let mut value = vec![0; 100];
    rng.fill(&mut value);
    value.into()
}

/// A store on fjall in `directory` with [`ENTRIES`] entries, and their keys.
///
/// # Panics
/// If the store cannot be made.
#[must_use]
pub fn filled(directory: &Path) -> (Store, Vec<Bytes>) {
    let engine = engine::open(&format!("fjall:{}", directory.join("data").display()));
    let key_of_log = LogKey::generate(None).expect("the machine has randomness");
    let engine = engine.expect("the directory is empty");
    let store = Store::open(engine, key_of_log, &Options::default()).expect("the store is new");
    let mut rng = Rng::with_seed(1);
    let keys = (0..ENTRIES).map(|_| key(&mut rng)).collect::<Vec<_>>();
    for keys in keys.chunks(10_000) {
        let writes = keys.iter().map(|key| (key.clone(), Some(value(&mut rng))));
        store.commit(Commit::new(writes.collect())).expect("the store takes commits");
    }
    (store, keys)
}
