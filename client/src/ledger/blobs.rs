//! Blobs: bytes that are found by their digest, and so cannot be others.

use anwansi_proofs::Digest;

use crate::{Client, Error, Fault, client::SHORT_BYTES_MAX};

/// The longest blob that is put or got, in bytes: a server's limit may be lower.
pub const BLOB_BYTES_MAX: usize = 16 << 20;

impl Client {
    /// Puts `bytes` where their digest finds them, and returns it.
    ///
    /// # Errors
    /// [`Error::Usage`] if they are too long, [`Error::Unreachable`], [`Error::Refused`].
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, Error> {
        if bytes.len() > BLOB_BYTES_MAX {
            let why = format!("a blob has {} bytes: {BLOB_BYTES_MAX} are the most", bytes.len());
            return Err(Error::Usage(why));
        }
        let digest = Digest::of(bytes);
        let path = format!("v1/blobs/{digest}");
        self.transport.put(&path, "application/octet-stream", bytes, SHORT_BYTES_MAX)?;
        Ok(digest)
    }

    /// The bytes with this digest.
    ///
    /// # Errors
    /// [`Error::NotProven`] if other bytes are answered, [`Error::Unreachable`], [`Error::Refused`].
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let bytes = self.transport.get(&format!("v1/blobs/{digest}"), BLOB_BYTES_MAX as u64)?.body;
        let answered = Digest::of(&bytes);
        if answered != *digest {
            return Err(Fault::OtherBytes { asked: *digest, answered }.into());
        }
        Ok(bytes)
    }
}
