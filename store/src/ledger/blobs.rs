//! Blobs: inputs that anyone may read, and results that are sealed until their transition is decided.

use anwansi_proofs::{Digest, Version};
use bytes::Bytes;

use super::{BLOB_BYTES_MAX, Ledger, Refusal, journal};
use crate::{Error, engine::Batch};

impl Ledger<'_> {
    /// Keeps content that specifications may name as an input; anyone may read it.
    ///
    /// # Errors
    /// [`Refusal::TooLong`], [`Refusal::WrongDigest`]; those of storage.
    pub fn put_blob(&self, digest: &Digest, content: Bytes) -> Result<(), Error> {
        let (length, max) = (content.len(), BLOB_BYTES_MAX);
        if length > max {
            return Err(Refusal::TooLong { length, max }.into());
        }
        let found = Digest::of(&content);
        if found != *digest {
            return Err(Refusal::WrongDigest { found }.into());
        }
        let mut batch = Batch::new();
        journal::put_blob(&mut batch, digest, content);
        // Inputs are nobody's secret.
        journal::put_readable(&mut batch, digest, Version(0));
        let writer = self.store.writer()?;
        let mut book = self.desk().book();
        book.putting.push(*digest);
        // Under the lock: what deletes a result of the same digest is written before, or knows of this.
        let ticket = writer.write(batch);
        drop(book);
        let done = ticket.wait();
        let mut book = self.desk().book();
        let at = book.putting.iter().position(|put| put == digest).expect("it was noted");
        book.putting.swap_remove(at);
        Ok(done?)
    }

    /// The content of this digest: an input, or a result of a transition that was decided and is not dropped.
    ///
    /// # Errors
    /// [`Refusal::NoSuchBlob`], also while it is sealed, and when it was dropped; those of storage.
    pub fn blob(&self, digest: &Digest) -> Result<Bytes, Error> {
        let shown = self.store.latest().version();
        let readable = journal::is_readable(self.engine(), digest, shown)?;
        let blob = if readable { journal::blob(self.engine(), digest)? } else { None };
        Ok(blob.ok_or(Refusal::NoSuchBlob { digest: *digest })?)
    }
}
