//! The nodes of a log: who is registered, and what each has done.

use anwansi_proofs::{
    NodeKey,
    agreement::error_estimate,
    registry::{NODE_PREFIX, NodeRecord, SCORE_PREFIX, Score, node_key, score_key},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    At, Client, Error, Fault,
    client::{SHORT_BYTES_MAX, Verified},
};

/// The most nodes that a registry is read with.
pub(crate) const NODES_MAX: usize = 1_000_000;

/// Entries of the state that are named by nodes, in key order.
type ByNode = Vec<(NodeKey, Vec<u8>)>;

/// A registered node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Who it is.
    pub key: NodeKey,
    /// Since when.
    pub record: NodeRecord,
    /// What it has done: agreed and dissented follow from votes, how its faults divide is the server's word.
    pub score: Score,
}

impl Node {
    /// How often the node errs, as its score suggests: `(f + 1) / (s + f + 2)` with its successes and its
    /// failures. One half for a node that has done nothing yet.
    #[must_use]
    pub fn error_estimate(&self) -> f64 {
        let (successes, failures) = self.score.successes_and_failures();
        error_estimate(successes, failures)
    }
}

impl Client {
    /// Registers a node by its signature over
    /// [`join_message`](anwansi_proofs::registry::join_message), and returns once it is proven that it is
    /// registered. A node that is registered stays so.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unreachable`], and as of [`Client::evidence`].
    pub fn register(&self, key: &NodeKey, signature: &[u8; 64]) -> Result<Verified<Node>, Error> {
        let body = json!({ "signature": STANDARD.encode(signature) }).to_string();
        let path = format!("v1/nodes/{key}");
        self.transport.put(&path, "application/json", body.as_bytes(), SHORT_BYTES_MAX)?;
        let Verified { header, value } = self.node(key, At::Newest)?;
        match value {
            Some(value) => Ok(Verified { header, value }),
            None => {
                Err(Error::at(header.version(), Fault::NoRecord { what: format!("of node {key}") }))
            }
        }
    }

    /// A node, if it is registered.
    ///
    /// # Errors
    /// As of [`Client::evidence`].
    pub fn node(&self, key: &NodeKey, at: At) -> Result<Verified<Option<Node>>, Error> {
        let Verified { header, value } = self.get_many(&[node_key(key), score_key(key)], at)?;
        let [record, score] = <[_; 2]>::try_from(value).expect("two keys have two answers");
        let node = record.map(|record| node(*key, &record, score.as_deref())).transpose();
        let value = node.map_err(|fault| Error::at(header.version(), fault))?;
        Ok(Verified { header, value })
    }

    /// All registered nodes, in key order.
    ///
    /// # Errors
    /// As of [`Client::evidence`].
    pub fn nodes(&self, at: At) -> Result<Verified<Vec<Node>>, Error> {
        let records = self.keyed_by_node(NODE_PREFIX, at)?;
        let version = At::Version(records.version());
        let mut scores = self.keyed_by_node(SCORE_PREFIX, version)?.value.into_iter().peekable();
        let mut nodes = Vec::with_capacity(records.value.len());
        for (key, record) in records.value {
            while scores.next_if(|(other, _)| *other < key).is_some() {}
            let score = scores.next_if(|(other, _)| *other == key).map(|(_, score)| score);
            let node = node(key, &record, score.as_deref());
            nodes.push(node.map_err(|fault| Error::at(records.header.version(), fault))?);
        }
        Ok(Verified { header: records.header, value: nodes })
    }

    /// All entries of the state that are named by `prefix` and a node's key.
    pub(crate) fn keyed_by_node(&self, prefix: &[u8], at: At) -> Result<Verified<ByNode>, Error> {
        let mut all = Vec::new();
        let (mut at, mut from) = (at, None);
        loop {
            let page = self.prefix(prefix, from.as_deref(), None, at)?;
            let version = page.version();
            for (key, value) in page.value.entries {
                let key = key[prefix.len()..].try_into().map_err(|_| {
                    let what = format!("of a node can have the key {}", crate::escape(&key));
                    Error::at(version, Fault::NoRecord { what })
                })?;
                all.push((NodeKey(key), value));
            }
            if all.len() > NODES_MAX {
                let why = format!("more than {NODES_MAX} nodes");
                return Err(Error::at(version, Fault::Form(why)));
            }
            match page.value.next {
                Some(next) => (at, from) = (At::Version(version), Some(next)),
                None => return Ok(Verified { header: page.header, value: all }),
            }
        }
    }
}

fn node(key: NodeKey, record: &[u8], score: Option<&[u8]>) -> Result<Node, Fault> {
    let unread = |what: &str| Fault::NoRecord { what: format!("of the {what} of node {key}") };
    let record = NodeRecord::parse(record).ok_or_else(|| unread("registration"))?;
    let score = match score {
        Some(score) => Score::parse(score).ok_or_else(|| unread("score"))?,
        None => Score::default(),
    };
    Ok(Node { key, record, score })
}
