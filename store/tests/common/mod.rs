//! What several test files need: opening stores, and writing short commits.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use anwansi_store::{Commit, Error, LogKey, Options, Store, engine::Engine};

pub const SECRET: [u8; 32] = [7; 32];

pub fn try_open(engine: Arc<dyn Engine>) -> Result<Store, Error> {
    let key = LogKey::from_secret(SECRET, None).unwrap();
    // A small cache, so that pages leave memory and come back.
    let options = Options { cache_bytes: 256 << 10, ..Options::default() };
    Store::open(engine, key, &options)
}

pub fn open(engine: Arc<dyn Engine>) -> Store {
    try_open(engine).unwrap()
}

/// A commit of texts: `key=value` puts, `key` alone removes.
pub fn commit(writes: &[&str]) -> Commit {
    let write = |write: &&str| match write.split_once('=') {
        Some((key, value)) => (key.to_owned().into(), Some(value.to_owned().into())),
        None => ((*write).to_owned().into(), None),
    };
    Commit::new(writes.iter().map(write).collect())
}
