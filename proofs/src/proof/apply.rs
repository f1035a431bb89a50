//! From one version's root to the next one's, for somebody who keeps no state.

use super::{Shown, shown::Piece};
use crate::{
    Digest, Error, Root, hash,
    path::{VALUE_BYTES_MAX, is_key},
    tree::{Builder, Moved, Part},
};

/// What happens to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The key, 1 to 1024 bytes.
    pub key: &'a [u8],
    /// Its new value, or `None`: the key is removed. Removing an absent key changes nothing.
    pub value: Option<&'a [u8]>,
}

impl Shown<'_> {
    /// The root after `changes`, all at once, in strictly ascending key order.
    ///
    /// The proof has to show, for every changed key, the node where its path ends (for this a leaf
    /// without its value will do), and of every branch that loses one side, the top node of the other.
    ///
    /// # Errors
    /// [`Error::NotCovered`] if it does not show enough; [`Error::BadChanges`] if the changes are not in
    /// order, or a key or value has no length that those have.
    ///
    /// # Cost
    /// One hash a shown node and a changed entry; a digest of memory for each open level.
    pub fn apply(&self, changes: &[Change<'_>]) -> Result<Root, Error> {
        let ordered = changes.is_sorted_by(|a, b| a.key < b.key);
        let within = |change: &Change<'_>| {
            is_key(change.key) && change.value.is_none_or(|value| value.len() <= VALUE_BYTES_MAX)
        };
        if !ordered || !changes.iter().all(within) {
            return Err(Error::BadChanges);
        }
        let mut builder = Builder::default();
        let mut changes = changes.iter().peekable();
        let walked = self.proof.walk(|piece, path| {
            let (key, part) = match piece {
                Piece::Leaf { key, value } => (key, Part::Leaf(hash::leaf(key, &value.digest()))),
                Piece::Cut(digest) => (path.key(), Part::Cut { start: path.bits(), digest }),
            };
            // Below a cut subtree no key is smaller than its prefix: what lies in it comes after it.
            while let Some(change) = changes.next_if(|change| change.key < key) {
                builder.change(change)?;
            }
            match (piece, changes.next_if(|change| change.key == key)) {
                (Piece::Leaf { .. }, Some(change)) => builder.change(change)?,
                (_, None) => builder.push(key, part)?,
                (Piece::Cut(_), Some(_)) => return Err(Error::NotCovered { depth: path.bits() }),
            }
            Ok(())
        });
        walked?;
        for change in changes {
            builder.change(change)?;
        }
        Ok(builder.finish(0)?.map_or(Root::empty(), Root))
    }
}

impl Builder {
    fn change(&mut self, change: &Change<'_>) -> Result<(), Moved> {
        match change.value {
            Some(value) => {
                let leaf = hash::leaf(change.key, &Digest::of(value));
                self.push(change.key, Part::Leaf(leaf))
            }
            // The key is gone or was never there; but inside of a cut subtree nobody knows.
            None => self.parts_at(change.key).map(|_| ()),
        }
    }
}

impl From<Moved> for Error {
    fn from(Moved(depth): Moved) -> Self {
        Error::NotCovered { depth }
    }
}
