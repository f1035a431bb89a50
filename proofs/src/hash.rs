//! The hash of everything but the log: the only file that calls BLAKE3.

use core::{fmt, str::FromStr};

use crate::{Error, Format};

/// 32 bytes of BLAKE3; written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// The root of a tree: the digest of its top node, and so of its whole content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Root(pub Digest);

impl Root {
    /// The root of a tree without entries.
    #[must_use]
    pub fn empty() -> Self {
        Root(Digest::of(b"anwansi/none/v1\n"))
    }
}

impl Digest {
    /// The bytes of a digest.
    pub const LEN: usize = 32;
    /// 32 zero bytes: the parent of version 0.
    pub const ZERO: Digest = Digest([0; 32]);

    /// Hashes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Digest(*blake3::hash(bytes).as_bytes())
    }
}

/// Hashes bytes that come piece by piece: the digest is that of all of them in a row.
#[derive(Clone, Debug, Default)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes so far.
    #[must_use]
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }

    /// The extended output over all bytes so far, word by word.
    pub(crate) fn seed(&self) -> Seed {
        Seed(self.0.finalize_xof())
    }
}

/// BLAKE3's extended output: as many words as anyone needs.
pub(crate) struct Seed(blake3::OutputReader);

impl Seed {
    /// The next eight bytes, little-endian.
    pub(crate) fn next_word(&mut self) -> u64 {
        let mut word = [0; 8];
        self.0.fill(&mut word);
        u64::from_le_bytes(word)
    }
}

/// The hash of a leaf: the key and the digest of its value, wherever in a tree it stands.
#[must_use]
pub fn leaf(key: &[u8], value: &Digest) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"anwansi/leaf/v1\n");
    let (bytes, len) = crate::varint::encode(key.len());
    hasher.update(&bytes[..len]);
    hasher.update(key);
    hasher.update(&[32]);
    hasher.update(&value.0);
    Digest(*hasher.finalize().as_bytes())
}

/// The most segment bits that stand in a branch header as they are; longer ones stand hashed.
const SEGMENT_BITS_INLINE_MAX: usize = 352;

/// The hash of a branch whose `bits` segment bits are `packed` (high bit first, zero padded).
#[must_use]
pub fn branch(packed: &[u8], bits: usize, left: &Digest, right: &Digest) -> Digest {
    assert_eq!(packed.len(), bits.div_ceil(8), "a segment is packed into whole bytes");
    // Exactly two BLAKE3 blocks: header, then children.
    let mut block = [0; 128];
    block[..16].copy_from_slice(b"anwansi/node/v1\n");
    let count = u32::try_from(bits).expect("a segment is shorter than the longest path");
    block[16..20].copy_from_slice(&count.to_le_bytes());
    if bits <= SEGMENT_BITS_INLINE_MAX {
        block[20..20 + packed.len()].copy_from_slice(packed);
    } else {
        block[32..64].copy_from_slice(&Digest::of(packed).0);
    }
    block[64..96].copy_from_slice(&left.0);
    block[96..].copy_from_slice(&right.0);
    Digest::of(&block)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = |at| Error::Malformed { format: Format::Digest, at };
        let lower_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if let Some(at) = text.as_bytes().iter().position(|byte| !lower_hex(byte)) {
            return Err(refused(at));
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| refused(text.len()))?;
        Ok(Digest(bytes))
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Root {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse().map(Root)
    }
}
