//! Anwansi itself, on each of its engines.

use std::path::PathBuf;

use anwansi_proofs::{Proof, Question, Root};
use anwansi_store::{Commit, LogKey, Options, Snapshot, Store, Which, engine};
use anyhow::{Context as _, Result};
use bytes::Bytes;

use super::{Peer, ready};
use crate::workload::{Key, Measured, Place, Shape, Value, measure};

/// What must be known to compare its numbers.
pub(super) const NOTE: &str = "Each commit also signs a checkpoint of the log of versions, and keeps what changed in \
    each version. A proof holds the key and the value, 132 bytes, and can show absence and complete ranges too.";

/// How a store is opened.
pub(super) struct Home {
    directory: PathBuf,
    engine: &'static str,
}

/// An open store.
pub(super) struct Anwansi {
    store: Store,
    /// The newest version, once something has been asked since the last commit.
    latest: Option<Snapshot>,
}

/// Takes the store on `engine` through the workload.
pub(super) fn run(engine: &'static str, place: &Place, shape: Shape) -> Result<Measured> {
    let home = Home { directory: place.directory.clone(), engine };
    ready(measure::<Anwansi>(&home, place, shape))
}

impl Anwansi {
    fn latest(&mut self) -> &Snapshot {
        self.latest.get_or_insert_with(|| self.store.latest())
    }
}

impl Peer for Anwansi {
    type Home = Home;
    type Batch = Commit;
    type Root = Root;
    type Read = Bytes;

    async fn open(home: &Home) -> Result<Self> {
        std::fs::create_dir_all(&home.directory)?;
        let key = LogKey::load_or_create(&home.directory.join("log-key"), None)?;
        let data = home.directory.join("data");
        let engine = engine::open(&format!("{}:{}", home.engine, data.display()))?;
        let store = Store::open(engine, key, &Options::default())?;
        Ok(Anwansi { store, latest: None })
    }

    fn batch(entries: impl Iterator<Item = (Key, Value)>) -> Commit {
        let write = |(key, value): (Key, Value)| {
            (Bytes::copy_from_slice(&key), Some(Bytes::copy_from_slice(&value)))
        };
        Commit::new(entries.map(write).collect())
    }

    async fn commit(&mut self, batch: Commit) -> Result<()> {
        self.latest = None;
        self.store.commit(batch)?;
        Ok(())
    }

    fn root(&self) -> Result<Root> {
        Ok(self.store.latest().root())
    }

    async fn get(&mut self, key: &Key) -> Result<Option<Bytes>> {
        Ok(self.latest().get(key)?)
    }

    async fn prove(&mut self, key: &Key) -> Result<Vec<u8>> {
        Ok(self.latest().prove(Which::State, &Question::default().key(key))?)
    }

    fn verify(root: &Root, key: &Key, value: &Value, proof: &[u8]) -> bool {
        let shown = Proof::decode(proof).and_then(|proof| proof.verify(root));
        shown.is_ok_and(|shown| matches!(shown.get(key), Ok(Some(found)) if found == value))
    }

    async fn close(mut self) -> Result<()> {
        self.latest = None;
        self.store.close().context("closing the store")
    }
}
