//! What several test files need: opening stores, writing short commits, holding syncs up.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead as _, BufReader},
    ops::Bound,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
};

use anwansi_store::{
    Commit, Error, LogKey, Options, Store,
    engine::{Batch, Direction, Engine, EngineError, Keyspace, Memory, Scan},
};
use bytes::Bytes;

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

/// Set for a child: the URL of the store to write to.
pub const STORE_URL: &str = "ANWANSI_TEST_STORE";

/// Runs the test `child` of the same file in a process of its own, on the store at `url`. Gives what it says once it has
/// opened that.
pub fn child_on(url: &str) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(STORE_URL, url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.by_ref().find(|line| line == "opened").expect("the child opens the store");
    (child, lines)
}

/// A commit of texts: `key=value` puts, `key` alone removes.
pub fn commit(writes: &[&str]) -> Commit {
    let write = |write: &&str| match write.split_once('=') {
        Some((key, value)) => (key.to_owned().into(), Some(value.to_owned().into())),
        None => ((*write).to_owned().into(), None),
    };
    Commit::new(writes.iter().map(write).collect())
}

/// The engine in memory, with syncs that wait at a gate; it is closed at first.
#[derive(Debug, Default)]
pub struct Gated {
    pub memory: Memory,
    open: Mutex<bool>,
    opened: Condvar,
}

/// A gate that opens when this is dropped, so that a test that fails does not hang.
pub struct Closed(Arc<Gated>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.open();
    }
}

impl Gated {
    /// An open gate, with this behind it.
    pub fn new(memory: Memory) -> Self {
        Gated { memory, open: true.into(), ..Gated::default() }
    }

    pub fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    pub fn close(self: &Arc<Self>) -> Closed {
        *self.open.lock().unwrap() = false;
        Closed(self.clone())
    }
}

impl Engine for Gated {
    fn get(&self, space: Keyspace, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.memory.get(space, key)
    }
    fn get_many(&self, space: Keyspace, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.memory.get_many(space, keys)
    }
    fn scan<'a>(
        &'a self,
        space: Keyspace,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        direction: Direction,
    ) -> Scan<'a> {
        self.memory.scan(space, start, end, direction)
    }
    fn write(&self, batch: Batch) -> Result<(), EngineError> {
        self.memory.write(batch)
    }
    fn sync(&self) -> Result<(), EngineError> {
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
        self.memory.sync()
    }
    fn name(&self) -> &'static str {
        "gated"
    }
    fn size_on_disk(&self) -> Result<u64, EngineError> {
        self.memory.size_on_disk()
    }
}
