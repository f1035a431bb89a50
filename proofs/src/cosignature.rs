//! Cosignatures of witnesses: what is signed, and the bytes of the signature.
//!
//! ```text
//! signed:  cosignature/v1 \n time <decimal seconds since 1970> \n <checkpoint body>
//! bytes:   time, 8 bytes, big endian || Ed25519 signature, 64 bytes
//! ```
//!
//! By it a witness says that at that time this was the largest tree of the log it had seen, and that it
//! continues all it saw before. Source: C2SP tlog-cosignature, `cosignature/v1`.

use alloc::{format, string::String};

/// The latest time of a cosignature, in seconds since 1970.
pub const TIME_MAX: u64 = i64::MAX as u64;

/// The bytes of a cosignature.
pub const COSIGNATURE_BYTES: usize = TIME_BYTES + SIGNATURE_BYTES;

const TIME_BYTES: usize = 8;
const SIGNATURE_BYTES: usize = 64;

/// The message to sign, for a cosignature at `time` (seconds since 1970, at most [`TIME_MAX`]) of
/// a checkpoint with this body.
#[must_use]
pub fn message(time: u64, body: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{body}")
}

/// The bytes that stand in a witness's signature line.
#[must_use]
pub fn encode(time: u64, signature: &[u8; SIGNATURE_BYTES]) -> [u8; COSIGNATURE_BYTES] {
    let mut bytes = [0; COSIGNATURE_BYTES];
    bytes[..TIME_BYTES].copy_from_slice(&time.to_be_bytes());
    bytes[TIME_BYTES..].copy_from_slice(signature);
    bytes
}

/// Reads what [`encode`] writes for times up to [`TIME_MAX`].
pub(crate) fn decode(bytes: &[u8]) -> Option<(u64, [u8; SIGNATURE_BYTES])> {
    let (time, signature) = bytes.split_first_chunk::<TIME_BYTES>()?;
    let time = u64::from_be_bytes(*time);
    let signature = signature.try_into().ok()?;
    (time <= TIME_MAX).then_some((time, signature))
}
