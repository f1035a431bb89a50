//! A batch: changes to several keyspaces that happen together or not at all.

use bytes::Bytes;

use super::Keyspace;

/// The longest key an engine takes, in bytes. The shortest has one byte.
pub const KEY_BYTES_MAX: usize = 1100;

/// The longest value an engine takes, in bytes. The shortest is empty.
pub const VALUE_BYTES_MAX: usize = 32 << 20;

/// Puts and deletes that an engine applies as one. Of several for one key the last counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    operations: Vec<Operation>,
    bytes: usize,
}

/// One change to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Where the key lies.
    pub space: Keyspace,
    /// The key, of 1 to [`KEY_BYTES_MAX`] bytes.
    pub key: Bytes,
    /// Its new value, of at most [`VALUE_BYTES_MAX`] bytes; `None` deletes the key.
    pub value: Option<Bytes>,
}

impl Batch {
    /// Returns a batch that changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `key` the value `value`.
    ///
    /// # Panics
    /// If the key has no bytes or more than [`KEY_BYTES_MAX`], or the value more than
    /// [`VALUE_BYTES_MAX`]: what comes from outside is measured before it gets here.
    pub fn put(&mut self, space: Keyspace, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.push(space, key.into(), Some(value.into()));
    }

    /// Removes `key`, if it is there.
    ///
    /// # Panics
    /// As [`put`](Batch::put).
    pub fn delete(&mut self, space: Keyspace, key: impl Into<Bytes>) {
        self.push(space, key.into(), None);
    }

    /// Adds the changes of `other` behind its own.
    pub fn append(&mut self, other: Batch) {
        self.operations.extend(other.operations);
        self.bytes += other.bytes;
    }

    /// Returns the changes, in the order they were asked for.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Returns the changes by value, in the same order.
    #[must_use]
    pub fn into_operations(self) -> Vec<Operation> {
        self.operations
    }

    /// Returns the bytes of all keys and values in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Tells whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    fn push(&mut self, space: Keyspace, key: Bytes, value: Option<Bytes>) {
        let value_bytes = value.as_ref().map_or(0, Bytes::len);
        assert!((1..=KEY_BYTES_MAX).contains(&key.len()), "a key has 1 to {KEY_BYTES_MAX} bytes");
        assert!(value_bytes <= VALUE_BYTES_MAX, "a value has at most {VALUE_BYTES_MAX} bytes");
        self.bytes += key.len() + value_bytes;
        self.operations.push(Operation { space, key, value });
    }
}
