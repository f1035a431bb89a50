//! nomt: a binary Merkle trie in pages of an on-disk hash table, the newest state only.

use std::{num::NonZero, path::PathBuf, thread};

use anyhow::{Context as _, Result};
use nomt::{
    KeyReadWrite, Nomt, Options, Root, Session, SessionParams, WitnessMode,
    hasher::{Blake3Hasher, ValueHasher as _},
    proof::PathProof,
    trie::{KeyPath, LeafData},
};

use super::{Peer, ready};
use crate::workload::{Key, Measured, Place, Shape, Value, measure};

/// What must be known to compare its numbers.
pub(super) const NOTE: &str = "Keeps the newest state only, and no order of keys. Its hash table is allocated in full \
    when it is made: that is most of its disk. A proof holds the key and the value's hash, 64 bytes, encoded with borsh.";

/// Buckets of the hash table by default, and what they are enough for: see README.md.
const BUCKETS: usize = 64_000;
const KEYS_PER_BUCKETS: usize = 1_000_000;

/// How a store is opened.
pub(super) struct Home {
    directory: PathBuf,
    buckets: u32,
}

/// An open store.
pub(super) struct Db {
    nomt: Nomt<Blake3Hasher>,
    /// Reads go through a session; while there is one nothing can be committed.
    session: Option<Session<Blake3Hasher>>,
}

/// Takes the store through the workload.
pub(super) fn run(place: &Place, shape: Shape) -> Result<Measured> {
    let buckets = BUCKETS * place.keys.div_ceil(KEYS_PER_BUCKETS);
    let buckets = u32::try_from(buckets).context("too many keys")?;
    let home = Home { directory: place.directory.clone(), buckets };
    ready(measure::<Db>(&home, place, shape))
}

impl Db {
    fn session(&mut self) -> &Session<Blake3Hasher> {
        self.session.get_or_insert_with(|| self.nomt.begin_session(params()))
    }
}

/// Without a witness of all that a session touches: single proofs are asked for instead.
fn params() -> SessionParams {
    SessionParams::default().witness_mode(WitnessMode::disabled())
}

impl Peer for Db {
    type Home = Home;
    type Batch = Vec<(KeyPath, KeyReadWrite)>;
    type Root = Root;
    type Read = Vec<u8>;

    async fn open(home: &Home) -> Result<Self> {
        let mut options = Options::new();
        options.path(&home.directory);
        options.hashtable_buckets(home.buckets);
        options.commit_concurrency(thread::available_parallelism().map_or(1, NonZero::get));
        Ok(Db { nomt: Nomt::open(options)?, session: None })
    }

    fn batch(entries: impl Iterator<Item = (Key, Value)>) -> Self::Batch {
        entries.map(|(key, value)| (key, KeyReadWrite::Write(Some(value.to_vec())))).collect()
    }

    async fn commit(&mut self, mut batch: Self::Batch) -> Result<()> {
        self.session = None;
        let session = self.nomt.begin_session(params());
        batch.sort_unstable_by_key(|write| write.0);
        session.finish(batch)?.commit(&self.nomt)
    }

    fn root(&self) -> Result<Root> {
        Ok(self.nomt.root())
    }

    async fn get(&mut self, key: &Key) -> Result<Option<Vec<u8>>> {
        self.session().read(*key)
    }

    async fn prove(&mut self, key: &Key) -> Result<Vec<u8>> {
        Ok(borsh::to_vec(&self.session().prove(*key)?)?)
    }

    fn verify(root: &Root, key: &Key, value: &Value, proof: &[u8]) -> bool {
        let Ok(proof) = borsh::from_slice::<PathProof>(proof) else { return false };
        let leaf = LeafData { key_path: *key, value_hash: Blake3Hasher::hash_value(value) };
        let path = proof.terminal.path();
        let verified = proof.verify::<Blake3Hasher>(path, root.into_inner());
        verified.is_ok_and(|verified| matches!(verified.confirm_value(&leaf), Ok(true)))
    }

    async fn close(self) -> Result<()> {
        // A commit is whole when it returns: there is nothing to do but to end the threads.
        drop(self.session);
        drop(self.nomt);
        Ok(())
    }
}
