//! The hash of everything but the log: the only file that calls BLAKE3.

use core::{fmt, ops::Range, str::FromStr};

use blake3::{
    BLOCK_LEN,
    platform::{self, Platform},
};

use crate::{
    Error, Format,
    path::{bit, pack},
};

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
    let (length, len) = crate::varint::encode(key.len());
    let parts = [b"anwansi/leaf/v1\n", &length[..len], key, &[32], &value.0];
    // Nearly all keys are short: then it is one message on the stack.
    let mut message = [0; LEAF_BYTES_SHORT];
    let mut end = 0;
    for part in parts {
        let Some(place) = message.get_mut(end..end + part.len()) else {
            let mut hasher = Hasher::default();
            for part in parts {
                hasher.update(part);
            }
            return hasher.finish();
        };
        place.copy_from_slice(part);
        end += part.len();
    }
    Digest::of(&message[..end])
}

/// The longest message of a leaf that is put together on the stack.
const LEAF_BYTES_SHORT: usize = 192;

/// The most segment bits that stand in a branch header as they are; longer ones stand hashed.
const SEGMENT_BITS_INLINE_MAX: usize = 352;

/// The hash of a branch whose `bits` segment bits are `packed` (high bit first, zero padded).
#[must_use]
pub fn branch(packed: &[u8], bits: usize, left: &Digest, right: &Digest) -> Digest {
    assert_eq!(packed.len(), bits.div_ceil(8), "a segment is packed into whole bytes");
    let header = match bits {
        0 => EMPTY,
        1 => SINGLE[usize::from(packed[0] >> 7)],
        bits => Header::of(packed, bits),
    };
    header.branch(left, right)
}

/// The hash of a branch whose segment are the bits `segment` of the path of `key`.
///
/// # Cost
/// One compression, for segments of no bit and of one; two or more for others, which are rare.
#[must_use]
pub fn branch_below(key: &[u8], segment: Range<usize>, left: &Digest, right: &Digest) -> Digest {
    let header = match segment.len() {
        0 => EMPTY,
        1 => SINGLE[usize::from(bit(key, segment.start))],
        bits => Header::of(&pack(key, segment), bits),
    };
    header.branch(left, right)
}

/// BLAKE3's state after the header of a branch, which is exactly one of its blocks. What follows is the other
/// one: so a header that is known saves half of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header([u32; 8]);

/// The header of a branch without a segment.
const EMPTY: Header = Header([
    0xea9c_287a,
    0x4063_6904,
    0xf946_ed0a,
    0x55bd_dd26,
    0xecd5_5435,
    0x2754_8876,
    0xf0f8_7ee8,
    0x0b38_1d3b,
]);
/// The headers of branches with a segment of one bit, `0` or `1`.
const SINGLE: [Header; 2] = [
    Header([
        0x5bda_bd95,
        0xff39_c29a,
        0x3f4a_b8d5,
        0x9465_be53,
        0x7280_23c4,
        0x5b5b_2846,
        0x4aad_24ec,
        0x61e0_b452,
    ]),
    Header([
        0xfdf1_a3a0,
        0x103f_fdb0,
        0x94ea_90ea,
        0x527b_75d1,
        0xa5dd_355b,
        0x6aa2_5bcd,
        0xc8b9_97de,
        0x81ac_8fbc,
    ]),
];

/// The state that BLAKE3 starts from, and the flags of a chunk's first and last block and of the last
/// compression of all: sections 2.2 and 2.4 of its paper.
const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 2;
const ROOT: u8 = 8;

impl Header {
    fn of(packed: &[u8], bits: usize) -> Self {
        let mut block = [0; BLOCK_LEN];
        block[..16].copy_from_slice(b"anwansi/node/v1\n");
        let count = u32::try_from(bits).expect("a segment is shorter than the longest path");
        block[16..20].copy_from_slice(&count.to_le_bytes());
        if bits <= SEGMENT_BITS_INLINE_MAX {
            block[20..20 + packed.len()].copy_from_slice(packed);
        } else {
            block[32..].copy_from_slice(&Digest::of(packed).0);
        }
        let mut state = START;
        compress(&mut state, &block, CHUNK_START);
        Header(state)
    }

    fn branch(self, left: &Digest, right: &Digest) -> Digest {
        let mut block = [0; BLOCK_LEN];
        block[..32].copy_from_slice(&left.0);
        block[32..].copy_from_slice(&right.0);
        let Header(mut state) = self;
        compress(&mut state, &block, CHUNK_END | ROOT);
        Digest(platform::le_bytes_from_words_32(&state))
    }
}

fn compress(state: &mut [u32; 8], block: &[u8; BLOCK_LEN], flags: u8) {
    const LEN: u8 = 64;
    Platform::detect().compress_in_place(state, block, LEN, 0, flags);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule as SPEC.md has it, hashed as one message.
    fn slow_branch(packed: &[u8], bits: u32, left: &Digest, right: &Digest) -> Digest {
        let mut message = [0; 128];
        message[..16].copy_from_slice(b"anwansi/node/v1\n");
        message[16..20].copy_from_slice(&bits.to_le_bytes());
        if bits <= 352 {
            message[20..20 + packed.len()].copy_from_slice(packed);
        } else {
            message[32..64].copy_from_slice(&Digest::of(packed).0);
        }
        message[64..96].copy_from_slice(&left.0);
        message[96..].copy_from_slice(&right.0);
        Digest::of(&message)
    }

    #[test]
    fn states_that_are_kept_are_those_of_their_headers() {
        assert_eq!(EMPTY, Header::of(&[], 0));
        assert_eq!(SINGLE, [Header::of(&[0], 1), Header::of(&[0x80], 1)]);
    }

    #[test]
    fn leaves_are_the_hash_of_their_message() {
        let value = Digest::of(b"value");
        for length in [1, 2, 32, 127, 128, 139, 140, 141, 142, 143, 144, 1023, 1024] {
            let key = alloc::vec![7; length];
            let mut message = b"anwansi/leaf/v1\n".to_vec();
            let (bytes, len) = crate::varint::encode(length);
            message.extend(&bytes[..len]);
            message.extend(&key);
            message.push(32);
            message.extend(&value.0);
            assert_eq!(leaf(&key, &value), Digest::of(&message), "{length}");
        }
    }

    #[test]
    fn branches_are_the_hash_of_their_message() {
        let key = (0..200).map(|at: u8| at.wrapping_mul(167)).collect::<alloc::vec::Vec<_>>();
        let (left, right) = (Digest::of(b"left"), Digest::of(b"right"));
        for bits in [0, 1, 2, 7, 8, 9, 351, 352, 353, 360, 1000] {
            for start in 0..30 {
                let packed = pack(&key, start..start + bits);
                let count = u32::try_from(bits).expect("it is small");
                let slow = slow_branch(&packed, count, &left, &right);
                assert_eq!(branch(&packed, bits, &left, &right), slow);
                assert_eq!(branch_below(&key, start..start + bits, &left, &right), slow);
            }
        }
    }
}
