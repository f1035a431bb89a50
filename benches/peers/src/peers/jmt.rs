//! The Jellyfish Merkle Tree, a library without storage, on fjall: every version is kept.
//!
//! Two keyspaces, written in one batch a version:
//!
//! ```text
//! nodes    version, big endian | one byte a nibble of the path -> node, borsh     new nodes are written in order
//! values   key | version, big endian                           -> value           the newest is the last of its key
//! ```

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use jmt::{
    KeyHash, OwnedValue, RootHash, Sha256Jmt, Version,
    proof::SparseMerkleProof,
    storage::{LeafNode, Node, NodeBatch, NodeKey, TreeReader, TreeWriter},
};
use sha2::Sha256;

use super::{Peer, ready};
use crate::workload::{Key, Measured, Place, Shape, Value, measure};

/// What must be known to compare its numbers.
pub(super) const NOTE: &str = "A library without storage: the two keyspaces on fjall are ours, so opening and closing \
    are fjall's. Keeps every version. A proof holds the key and the value's hash, 64 bytes, encoded with borsh.";

/// The budget for blocks in memory, as large as that of the other peers' caches.
const CACHE_BYTES: u64 = 1 << 30;

/// An open tree.
pub(super) struct Db {
    storage: Storage,
    /// The newest version, and its root.
    newest: Option<(Version, RootHash)>,
}

/// Takes the tree through the workload.
pub(super) fn run(place: &Place, shape: Shape) -> Result<Measured> {
    ready(measure::<Db>(&place.directory, place, shape))
}

impl Db {
    fn version(&self) -> Result<Version> {
        Ok(self.newest.context("nothing has been committed")?.0)
    }
}

impl Peer for Db {
    type Home = PathBuf;
    type Batch = Vec<(KeyHash, Option<OwnedValue>)>;
    type Root = RootHash;
    type Read = OwnedValue;

    async fn open(directory: &PathBuf) -> Result<Self> {
        let storage = Storage::open(directory)?;
        let newest = match storage.newest()? {
            Some(version) => Some((version, Sha256Jmt::new(&storage).get_root_hash(version)?)),
            None => None,
        };
        Ok(Db { storage, newest })
    }

    fn batch(entries: impl Iterator<Item = (Key, Value)>) -> Self::Batch {
        // The keys are random: hashing them first would only cost time.
        entries.map(|(key, value)| (KeyHash(key), Some(value.to_vec()))).collect()
    }

    async fn commit(&mut self, batch: Self::Batch) -> Result<()> {
        let version = self.newest.map_or(0, |(version, _)| version + 1);
        let (root, update) = Sha256Jmt::new(&self.storage).put_value_set(batch, version)?;
        self.storage.write_node_batch(&update.node_batch)?;
        self.newest = Some((version, root));
        Ok(())
    }

    fn root(&self) -> Result<RootHash> {
        Ok(self.newest.context("nothing has been committed")?.1)
    }

    async fn get(&mut self, key: &Key) -> Result<Option<OwnedValue>> {
        Sha256Jmt::new(&self.storage).get(KeyHash(*key), self.version()?)
    }

    async fn prove(&mut self, key: &Key) -> Result<Vec<u8>> {
        let tree = Sha256Jmt::new(&self.storage);
        let (_, proof) = tree.get_with_proof(KeyHash(*key), self.version()?)?;
        Ok(borsh::to_vec(&proof)?)
    }

    fn verify(root: &RootHash, key: &Key, value: &Value, proof: &[u8]) -> bool {
        let proof = borsh::from_slice::<SparseMerkleProof<Sha256>>(proof);
        proof.is_ok_and(|proof| proof.verify_existence(*root, KeyHash(*key), value).is_ok())
    }

    async fn close(self) -> Result<()> {
        Ok(self.storage.database.persist(PersistMode::SyncAll)?)
    }
}

/// Nodes and values on fjall.
struct Storage {
    nodes: Keyspace,
    values: Keyspace,
    database: Database,
}

impl Storage {
    fn open(directory: &PathBuf) -> Result<Self> {
        let database = Database::builder(directory).cache_size(CACHE_BYTES).open()?;
        // Nodes are only asked for when they are there.
        let nodes = || KeyspaceCreateOptions::default().expect_point_read_hits(true);
        let nodes = database.keyspace("nodes", nodes)?;
        let values = database.keyspace("values", KeyspaceCreateOptions::default)?;
        Ok(Storage { nodes, values, database })
    }

    /// The newest version: that of the last node.
    fn newest(&self) -> Result<Option<Version>> {
        let Some(last) = self.nodes.last_key_value() else { return Ok(None) };
        let key = last.key()?;
        let version = key.first_chunk().context("a node's key is too short")?;
        Ok(Some(Version::from_be_bytes(*version)))
    }
}

impl TreeReader for Storage {
    fn get_node_option(&self, key: &NodeKey) -> Result<Option<Node>> {
        let node = self.nodes.get(node_key(key))?;
        Ok(node.map(|node| borsh::from_slice(&node)).transpose()?)
    }

    fn get_value_option(&self, newest: Version, key: KeyHash) -> Result<Option<OwnedValue>> {
        let last = self.values.range(value_key(key, 0)..=value_key(key, newest)).next_back();
        Ok(last.map(fjall::Guard::value).transpose()?.map(|value| value.to_vec()))
    }

    fn get_rightmost_leaf(&self) -> Result<Option<(NodeKey, LeafNode)>> {
        bail!("only restoring a tree from proofs asks for this")
    }
}

impl TreeWriter for Storage {
    /// Writes all of it in one batch, durable on return.
    fn write_node_batch(&self, written: &NodeBatch) -> Result<()> {
        let count = written.nodes().len() + written.values().len();
        let mut batch = OwnedWriteBatch::with_capacity(self.database.clone(), count)
            .durability(Some(PersistMode::SyncAll));
        for (key, node) in written.nodes() {
            batch.insert(&self.nodes, node_key(key), borsh::to_vec(node)?);
        }
        for ((version, key), value) in written.values() {
            let value = value.as_ref().context("nothing is removed here")?;
            batch.insert(&self.values, value_key(*key, *version), value.as_slice());
        }
        Ok(batch.commit()?)
    }
}

fn node_key(key: &NodeKey) -> Vec<u8> {
    let nibbles = key.nibble_path().nibbles().map(u8::from);
    key.version().to_be_bytes().into_iter().chain(nibbles).collect()
}

fn value_key(key: KeyHash, version: Version) -> Vec<u8> {
    [&key.0[..], &version.to_be_bytes()].concat()
}
