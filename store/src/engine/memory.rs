//! The engine in memory, for tests and `memory:`. The one place where faults are injected.
//!
//! It remembers which batches were not synced, so that a test can cut the power at any of them and
//! look at what a real engine could have kept: a prefix.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::{Mutex, MutexGuard},
};

use bytes::Bytes;

use super::{Batch, Direction, Engine, EngineError, Keyspace, Scan, is_empty_range};

/// The scheme of its URL.
pub(super) const NAME: &str = "memory";

/// A store that ends with the process.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
}

type Entries = BTreeMap<Bytes, Bytes>;

#[derive(Debug, Default)]
struct State {
    /// What readers see: `durable` with `unsynced` applied, one map a keyspace.
    live: [Entries; Keyspace::ALL.len()],
    /// What a crash leaves for certain.
    durable: [Entries; Keyspace::ALL.len()],
    /// What a crash may leave a prefix of, in the order written.
    unsynced: Vec<Batch>,
    operations: u64,
    syncs: u64,
    /// Operations until the one that fails, that one counted.
    fails_in: Option<u64>,
}

impl Memory {
    /// Returns an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns what a crash now could leave: all that was synced, and of the batches that were not
    /// the first `kept` (or all, if they are fewer). This store is left as it is.
    #[must_use]
    pub fn crash(&self, kept: usize) -> Memory {
        let state = self.state();
        let mut durable = state.durable.clone();
        for batch in state.unsynced.iter().take(kept) {
            apply(&mut durable, batch);
        }
        let live = durable.clone();
        Self { state: Mutex::new(State { live, durable, ..State::default() }) }
    }

    /// Makes the `nth` operation from now fail with [`EngineError::Io`], once; 1 is the next.
    /// Operations are writes and syncs. One that fails changes nothing.
    ///
    /// # Panics
    /// If `nth` is 0.
    pub fn fail_after(&self, nth: u64) {
        assert!(nth > 0, "the operations to come count from 1");
        self.state().fails_in = Some(nth);
    }

    /// Returns how many writes and syncs were asked for, with those that failed.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Returns how many syncs succeeded.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Returns how many batches a crash now could lose.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.state().unsynced.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }
}

impl State {
    /// Counts an operation, and fails it if its turn has come.
    fn operation(&mut self, doing: &'static str) -> Result<(), EngineError> {
        self.operations += 1;
        self.fails_in = match self.fails_in {
            Some(1) => {
                self.fails_in = None;
                return Err(EngineError::io(doing)(io::Error::other("injected by a test")));
            }
            left => left.map(|left| left - 1),
        };
        Ok(())
    }
}

impl Engine for Memory {
    fn get(&self, space: Keyspace, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.state().live[space.index()].get(key).cloned())
    }

    fn get_many(&self, space: Keyspace, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        let state = self.state();
        let entries = &state.live[space.index()];
        Ok(keys.iter().map(|&key| entries.get(key).cloned()).collect())
    }

    // Copies the handles of all entries in the range before it returns the first.
    fn scan<'a>(
        &'a self,
        space: Keyspace,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        direction: Direction,
    ) -> Scan<'a> {
        if is_empty_range(start, end) {
            return Box::new(std::iter::empty());
        }
        let entries: Vec<_> = self.state().live[space.index()]
            .range::<[u8], _>((start, end))
            .map(|(key, value)| Ok((key.clone(), value.clone())))
            .collect();
        match direction {
            Direction::Ascending => Box::new(entries.into_iter()),
            Direction::Descending => Box::new(entries.into_iter().rev()),
        }
    }

    fn write(&self, batch: Batch) -> Result<(), EngineError> {
        let mut state = self.state();
        state.operation("writing a batch")?;
        apply(&mut state.live, &batch);
        state.unsynced.push(batch);
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        let mut state = self.state();
        state.operation("syncing")?;
        state.syncs += 1;
        for batch in std::mem::take(&mut state.unsynced) {
            apply(&mut state.durable, &batch);
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        NAME
    }

    /// Returns the bytes of all keys and values: there is no disk.
    fn size_on_disk(&self) -> Result<u64, EngineError> {
        let state = self.state();
        let entries = state.live.iter().flatten();
        Ok(entries.map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }
}

fn apply(spaces: &mut [Entries; Keyspace::ALL.len()], batch: &Batch) {
    for operation in batch.operations() {
        let entries = &mut spaces[operation.space.index()];
        match &operation.value {
            Some(value) => drop(entries.insert(operation.key.clone(), value.clone())),
            None => drop(entries.remove(&operation.key)),
        }
    }
}
