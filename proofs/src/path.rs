//! Paths: the place of every key in a tree, as an infinite string of bits.
//!
//! For each byte of the key a `1` and then its eight bits, high bit first; after the last byte zeros for
//! ever. So no path is a prefix of another, and the order of paths is the order of the keys' bytes.
//!
//! ```text
//! key "a" = 0x61:   1 0110 0001   0 0000 0000   0 ...
//!             bit:  0 1       8   9
//! ```
//!
//! A **prefix** of a path, down to some bit, is written as a byte string and a number of bits: the
//! first `bits` bits of that string's path. Every prefix that can occur in a tree is of this form
//! (rule P9 of SPEC.md), so a prefix and a key are compared the same way.

use alloc::vec::Vec;
use core::ops::Range;

/// The longest key, in bytes. The shortest has one.
pub const KEY_BYTES_MAX: usize = 1024;
/// The longest value, in bytes. The shortest has none.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// The last bit in which the paths of two keys can differ.
pub const BRANCH_BIT_MAX: usize = 9 * KEY_BYTES_MAX - 1;

/// Whether `key` has a length that keys have.
#[must_use]
pub fn is_key(key: &[u8]) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len())
}

/// Bit `i` of the path of `key`.
#[must_use]
pub fn bit(key: &[u8], i: usize) -> bool {
    match (key.get(i / 9), i % 9) {
        (None, _) => false,
        (Some(_), 0) => true,
        (Some(byte), place) => byte >> (8 - place) & 1 == 1,
    }
}

/// The first bit in which the paths of `a` and `b` differ; `None` if they are the same bytes.
#[must_use]
pub fn critical_bit(a: &[u8], b: &[u8]) -> Option<usize> {
    match a.iter().zip(b).position(|(a, b)| a != b) {
        Some(i) => Some(9 * i + 1 + (a[i] ^ b[i]).leading_zeros() as usize),
        None if a.len() == b.len() => None,
        // One ends where the other goes on: only the other has the `1` before a byte.
        None => Some(9 * a.len().min(b.len())),
    }
}

/// The bits `bits` of the path of `key`, packed high bit first, zero padded to whole bytes.
#[must_use]
pub fn pack(key: &[u8], bits: Range<usize>) -> Vec<u8> {
    let mut packed = alloc::vec![0; bits.len().div_ceil(8)];
    for (i, at) in bits.enumerate() {
        packed[i / 8] |= u8::from(bit(key, at)) << (7 - i % 8);
    }
    packed
}

/// The first byte string after all that start with `prefix`; `None` if there is none.
#[must_use]
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after)
}

/// Whether all keys below a prefix are smaller than `bound`.
///
/// Below a prefix lie the paths from the prefix followed by zeros to the prefix followed by ones.
#[must_use]
pub fn is_below(prefix: &[u8], bits: usize, bound: &[u8]) -> bool {
    critical_bit(prefix, bound).is_some_and(|at| at < bits && !bit(prefix, at))
}

/// Whether no key below a prefix is smaller than `bound`.
#[must_use]
pub fn is_not_below(prefix: &[u8], bits: usize, bound: &[u8]) -> bool {
    match critical_bit(prefix, bound) {
        Some(at) if at < bits => bit(prefix, at),
        _ => path_bits(bound) <= bits,
    }
}

/// Whether all keys below a prefix lie outside of `start..end`; `end` none is no end.
#[must_use]
pub fn is_outside(prefix: &[u8], bits: usize, start: &[u8], end: Option<&[u8]>) -> bool {
    is_below(prefix, bits, start) || end.is_some_and(|end| is_not_below(prefix, bits, end))
}

/// The number of bits after which the path of `key` has only zeros.
fn path_bits(key: &[u8]) -> usize {
    key.last().map_or(0, |last| 9 * key.len() - last.trailing_zeros().min(8) as usize)
}

/// A prefix that grows and shrinks while a tree is walked.
#[derive(Default)]
pub(crate) struct Prefix {
    /// No byte holds a bit at or after `bits`.
    key: Vec<u8>,
    bits: usize,
}

impl Prefix {
    /// The first `bits` bits of the path of `key`.
    pub(crate) fn of(key: &[u8], bits: usize) -> Self {
        let mut prefix = Prefix { key: key.to_vec(), bits: 0 };
        prefix.truncate(bits);
        prefix
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(crate) fn bits(&self) -> usize {
        self.bits
    }

    /// Whether a key can go on below this prefix in more than one way: all that end here are equal.
    pub(crate) fn goes_on(&self) -> bool {
        self.key.len() == self.bits.div_ceil(9)
    }

    /// Whether the path of `key` starts with this prefix.
    pub(crate) fn leads_to(&self, key: &[u8]) -> bool {
        critical_bit(&self.key, key).is_none_or(|at| at >= self.bits)
    }

    /// Appends one bit. Only a prefix that [`goes_on`](Self::goes_on) can be appended to.
    pub(crate) fn push(&mut self, bit: bool) {
        debug_assert!(self.goes_on(), "nothing parts behind the end of a key");
        let place = self.bits % 9;
        match self.key.last_mut() {
            _ if place == 0 => self.key.extend(bit.then_some(0)),
            Some(last) => *last |= u8::from(bit) << (8 - place),
            None => unreachable!("a bit inside of a byte follows the bit that begins the byte"),
        }
        self.bits += 1;
    }

    /// Cuts off everything from bit `bits` on.
    pub(crate) fn truncate(&mut self, bits: usize) {
        self.key.truncate(bits.div_ceil(9));
        if let (Some(last), place @ 1..) = (self.key.last_mut(), bits % 9) {
            *last &= !(0xff >> (place - 1));
        }
        self.bits = bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn critical_bit_is_the_first_bit_that_differs() {
        let keys: [&[u8]; 8] = [b"", b"\0", b"\0\0", b"a", b"a\0", b"ab", b"\xff", b"\xff\xff\x80"];
        for a in keys {
            for b in keys {
                let slow = (0..40).find(|i| bit(a, *i) != bit(b, *i));
                assert_eq!(critical_bit(a, b), slow, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn prefix_walks_along_a_path_and_back() {
        let key = b"\xa5\x00\xff";
        let mut prefix = Prefix::default();
        for bits in 0..=27 {
            assert_eq!(prefix.bits(), bits);
            assert!(prefix.leads_to(key) && prefix.goes_on());
            assert!((0..bits).all(|i| bit(prefix.key(), i) == bit(key, i)));
            if bits < 27 {
                prefix.push(bit(key, bits));
            }
        }
        for bits in (0..=27).rev() {
            prefix.truncate(bits);
            assert!((0..bits).all(|i| bit(prefix.key(), i) == bit(key, i)));
            assert!((bits..40).all(|i| i % 9 == 0 || !bit(prefix.key(), i)));
        }
    }

    #[test]
    fn outside_agrees_with_first_and_last_path_of_a_prefix() {
        let bounds: [&[u8]; 9] =
            [b"", b"\0", b"\x40", b"\x7f", b"\x80", b"\x80\0", b"\x80\x01", b"\xff", b"\xff\xff"];
        let paths = |key: &[u8]| (0..40).map(|i| bit(key, i)).collect::<Vec<_>>();
        for prefix in bounds {
            for bits in 0..=9 * prefix.len() {
                let filled = |with| {
                    let mut path = paths(prefix);
                    path[bits..].fill(with);
                    path
                };
                for start in bounds {
                    for end in bounds {
                        let slow = filled(true) < paths(start) || filled(false) >= paths(end);
                        let fast = is_outside(prefix, bits, start, Some(end));
                        assert_eq!(fast, slow, "{prefix:?}/{bits} {start:?}..{end:?}");
                    }
                }
            }
        }
    }
}
