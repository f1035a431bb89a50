//! Transactions: reads that are remembered, and writes that happen only if what was read still holds.

use std::collections::BTreeMap;

use anwansi_proofs::{Digest, Version, path::after_prefix};
use bytes::Bytes;

use crate::{
    Error, Store,
    commit::{Commit, Committed},
    engine::Direction,
    snapshot::{Pair, Snapshot},
    tree::{Found, Pages, Tree},
};

/// What a transaction has read, and what it saw there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    /// Of each key the digest of its leaf, or that there was none.
    keys: BTreeMap<Bytes, Option<Digest>>,
    /// Of each range the digest of all its leaves.
    ranges: Vec<(Bytes, Option<Bytes>, Digest)>,
}

impl Reads {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty()
    }

    /// Checks that everything read is still the same in `tree`.
    ///
    /// # Errors
    /// [`Error::Conflict`] with the first key, or start of a range, that is not.
    pub(crate) fn validate(&self, tree: &Tree, pages: &Pages) -> Result<(), Error> {
        for (key, seen) in &self.keys {
            if tree.find(pages, key)?.map(|found| found.leaf()) != *seen {
                return Err(Error::Conflict { key: key.clone() });
            }
        }
        for (start, end, seen) in &self.ranges {
            if leaves(tree, pages, start, end.as_ref())? != *seen {
                return Err(Error::Conflict { key: start.clone() });
            }
        }
        Ok(())
    }
}

/// The digest of all leaves in a range: equal for equal content, phantoms included.
fn leaves(tree: &Tree, pages: &Pages, start: &Bytes, end: Option<&Bytes>) -> Result<Digest, Error> {
    let mut digests = Vec::new();
    for entry in tree.range(pages, start.clone(), end.cloned(), Direction::Ascending) {
        digests.extend(entry?.leaf.0);
    }
    Ok(Digest::of(&digests))
}

/// Reads and writes that take effect together, as if nobody else had been there, or not at all.
///
/// It reads the version at which it began, and its own writes. Everything it reads, absent keys and
/// whole ranges too, must be unchanged when it commits.
pub struct Transaction {
    store: Store,
    snapshot: Snapshot,
    reads: Reads,
    writes: BTreeMap<Bytes, Option<Bytes>>,
}

impl Transaction {
    pub(crate) fn new(store: Store, snapshot: Snapshot) -> Self {
        Transaction { store, snapshot, reads: Reads::default(), writes: BTreeMap::new() }
    }

    /// The version that it reads.
    #[must_use]
    pub fn version(&self) -> Version {
        self.snapshot.version()
    }

    /// The value of `key`, as this transaction has it.
    ///
    /// # Errors
    /// If storage fails or is damaged.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        if let Some(written) = self.writes.get(key) {
            return Ok(written.clone());
        }
        let pages = &self.snapshot.pages;
        let found = self.snapshot.version.tree.find(pages, key)?;
        let leaf = found.as_ref().map(Found::leaf);
        self.reads.keys.insert(Bytes::copy_from_slice(key), leaf);
        found.map(|found| found.value(pages)).transpose()
    }

    /// The entries from `start`, inclusive, to `end`, exclusive, in key order, as this transaction has
    /// them.
    ///
    /// # Errors
    /// If storage fails or is damaged.
    pub fn range(&mut self, start: &[u8], end: Option<&[u8]>) -> Result<Vec<Pair>, Error> {
        if end.is_some_and(|end| end <= start) {
            return Ok(Vec::new());
        }
        let (start, end) = (Bytes::copy_from_slice(start), end.map(Bytes::copy_from_slice));
        let (tree, pages) = (&self.snapshot.version.tree, &self.snapshot.pages);
        let seen = leaves(tree, pages, &start, end.as_ref())?;
        let stored = self.snapshot.range(&start, end.as_deref(), Direction::Ascending);
        let mut entries = stored.collect::<Result<BTreeMap<_, _>, _>>()?;
        let inside = |key: &Bytes| *key >= start && end.as_ref().is_none_or(|end| key < end);
        for (key, value) in self.writes.iter().filter(|(key, _)| inside(key)) {
            match value {
                Some(value) => entries.insert(key.clone(), value.clone()),
                None => entries.remove(key),
            };
        }
        self.reads.ranges.push((start, end, seen));
        Ok(entries.into_iter().collect())
    }

    /// The entries whose keys start with `prefix`, in key order, as this transaction has them.
    ///
    /// # Errors
    /// If storage fails or is damaged.
    pub fn prefix(&mut self, prefix: &[u8]) -> Result<Vec<Pair>, Error> {
        self.range(prefix, after_prefix(prefix).as_deref())
    }

    /// Gives `key` the value `value`.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.writes.insert(key.into(), Some(value.into()));
    }

    /// Removes `key`.
    pub fn remove(&mut self, key: impl Into<Bytes>) {
        self.writes.insert(key.into(), None);
    }

    /// Commits, and waits until the commit is durable and in a signed checkpoint.
    ///
    /// # Errors
    /// [`Error::Conflict`] if anything that was read has changed since: begin again. Others as of
    /// [`Store::commit`].
    pub fn commit(self) -> Result<Committed, Error> {
        self.store.commit_if(Commit::new(self.writes.into_iter().collect()), self.reads)
    }
}
