//! What the benches share: a store of random keys, and the same keys in the same order for all.
//!
//! Keys are 32 random bytes, values 100; seeds are fixed. Each bench measures one operation and checks its
//! result outside of what is timed.

pub mod figure;
pub mod growth;
pub mod machine;
pub mod process;
pub mod wrk;

use std::{collections::HashSet, path::Path};

use anwansi_store::{Commit, LogKey, Options, Store, engine};
use bytes::Bytes;
use fastrand::Rng;
use mimalloc::MiMalloc;

/// That of `anwansi-server`: pages are allocated on some threads and freed on others.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Entries of the stores that criterion's benches read and write.
pub const SIZES: [usize; 3] = [10_000, 100_000, 1_000_000];

/// A key of 32 random bytes.
#[must_use]
pub fn key(rng: &mut Rng) -> Bytes {
    let mut key = [0; 32];
    rng.fill(&mut key);
    // Keys that start with a zero byte are not for callers.
    key[0] |= 1;
    // Of an owner, they take no more memory when they are cloned.
    Bytes::from_owner(key)
}

/// A value of 100 random bytes.
#[must_use]
pub fn value(rng: &mut Rng) -> Bytes {
    let mut value = vec![0; 100];
    rng.fill(&mut value);
    value.into()
}

/// So many random keys, the same each time.
#[must_use]
pub fn keys(count: usize) -> Vec<Bytes> {
    let mut rng = Rng::with_seed(1);
    (0..count).map(|_| key(&mut rng)).collect()
}

/// So many of `keys` at random, none twice.
#[must_use]
pub fn pick(rng: &mut Rng, keys: &[Bytes], count: usize) -> Vec<Bytes> {
    let mut picked = HashSet::with_capacity(count);
    let random = std::iter::repeat_with(|| rng.usize(..keys.len()));
    let random = random.filter(|at| picked.insert(*at)).take(count.min(keys.len()));
    random.map(|at| keys[at].clone()).collect()
}

/// A commit of random values for so many of `keys`.
#[must_use]
pub fn updates(rng: &mut Rng, keys: &[Bytes], count: usize) -> Commit {
    let picked = pick(rng, keys, count).into_iter();
    Commit::new(picked.map(|key| (key, Some(value(rng)))).collect())
}

/// Commits of so many writes that give each of `keys` a random value.
pub fn load(keys: &[Bytes], batch: usize) -> impl Iterator<Item = Commit> {
    let mut rng = Rng::with_seed(3);
    keys.chunks(batch).map(move |keys| {
        let writes = keys.iter().map(|key| (key.clone(), Some(value(&mut rng))));
        Commit::new(writes.collect())
    })
}

/// Gives each of `keys` a random value, in commits of 10,000.
///
/// # Panics
/// If the store takes no commits.
pub fn fill(store: &Store, keys: &[Bytes]) {
    for commit in load(keys, 10_000) {
        store.commit(commit).expect("the store takes commits");
    }
}

/// A store with so many entries, on the engine of this URL, and their keys.
///
/// # Panics
/// If the store cannot be made.
#[must_use]
pub fn filled(url: &str, entries: usize) -> (Store, Vec<Bytes>) {
    let engine = engine::open(url).expect("nothing is there yet");
    let log_key = LogKey::generate(None).expect("the machine has randomness");
    let store = Store::open(engine, log_key, &Options::default()).expect("the store is new");
    let keys = keys(entries);
    fill(&store, &keys);
    (store, keys)
}

/// The URL of an engine on fjall in `directory`.
#[must_use]
pub fn fjall(directory: &Path) -> String {
    format!("fjall:{}", directory.join("data").display())
}
