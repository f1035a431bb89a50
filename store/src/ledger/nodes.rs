//! The registry of nodes, and what each has done.

use anwansi_proofs::{
    NodeKey, Version,
    path::after_prefix,
    registry::{NODE_PREFIX, NodeRecord, Score, join_message, node_key, score_key},
};

use super::{Ledger, Refusal, step::Step};
use crate::{Committed, Damage, Error, Snapshot, engine::Direction};

/// A node of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Who it is.
    pub key: NodeKey,
    /// The version that registered it.
    pub since: Version,
    /// What it has done in transitions that were decided.
    pub score: Score,
}

impl Ledger<'_> {
    /// Registers a node, which has signed that it wants to join this log. From the next version on it may
    /// be drawn.
    ///
    /// # Errors
    /// [`Refusal::BadSignature`], [`Refusal::TooManyNodes`]; those of
    /// [`Store::commit`](crate::Store::commit).
    ///
    /// # Cost
    /// A pass over the nodes that are registered, on the committer.
    pub fn register(&self, node: &NodeKey, signature: &[u8; 64]) -> Result<Committed, Error> {
        if !node.verify(&join_message(self.store.origin()), signature) {
            return Err(Refusal::BadSignature.into());
        }
        self.store.step(Step::Register(*node))
    }

    /// Removes a node. Where it was drawn it stays drawn; its score is kept.
    ///
    /// # Errors
    /// [`Refusal::UnknownNode`]; those of [`Store::commit`](crate::Store::commit).
    pub fn remove(&self, node: &NodeKey) -> Result<Committed, Error> {
        self.store.step(Step::Remove(*node))
    }

    /// A node of the newest version.
    ///
    /// # Errors
    /// [`Refusal::UnknownNode`]; those of storage.
    pub fn node(&self, node: &NodeKey) -> Result<Node, Error> {
        let version = self.store.latest();
        let record = version.get(&node_key(node))?.ok_or(Refusal::UnknownNode)?;
        read(&version, *node, &record)
    }

    /// The nodes of the newest version from `first` on, at most `limit`, in the order of their keys.
    ///
    /// # Errors
    /// Those of storage.
    pub fn nodes(&self, first: &NodeKey, limit: usize) -> Result<Vec<Node>, Error> {
        let version = self.store.latest();
        let end = after_prefix(NODE_PREFIX);
        let entries = version.range(&node_key(first), end.as_deref(), Direction::Ascending);
        let node = |entry: Result<(bytes::Bytes, bytes::Bytes), Error>| {
            let (key, record) = entry?;
            let damaged = Error::Damaged(Damage::Changes(version.version()));
            let key = key[NODE_PREFIX.len()..].try_into().map_err(|_| damaged)?;
            read(&version, NodeKey(key), &record)
        };
        entries.take(limit).map(node).collect()
    }
}

fn read(version: &Snapshot, key: NodeKey, record: &[u8]) -> Result<Node, Error> {
    let damaged = || Error::Damaged(Damage::Changes(version.version()));
    let NodeRecord { since } = NodeRecord::parse(record).ok_or_else(damaged)?;
    let score = match version.get(&score_key(&key))? {
        Some(score) => Score::parse(&score).ok_or_else(damaged)?,
        None => Score::default(),
    };
    Ok(Node { key, since, score })
}
