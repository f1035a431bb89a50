//! From bytes to a [`Proof`]: strict, in one pass, without recursion.

use super::{
    Child, FLAG_LEFT_CUT, FLAG_RIGHT_CUT, FLAG_SEGMENT, KIND_BRANCH, KIND_EMPTY, KIND_HIDDEN,
    KIND_LEAF, KIND_LEAF_DIGEST, Node, Place, Proof, Segment, Value,
};
use crate::{
    Digest, Error, Format,
    path::{BRANCH_BIT_MAX, KEY_BYTES_MAX, Prefix, VALUE_BYTES_MAX},
    varint,
};
use alloc::vec::Vec;

/// A branch whose right side has not begun yet.
struct Open {
    /// The index of its place.
    branch: usize,
    /// The bit in which its sides differ.
    bit: usize,
}

impl<'a> Proof<'a> {
    /// Reads a proof; `bytes` must be one whole proof and nothing else.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the first byte refused.
    ///
    /// # Cost
    /// One pass. Memory of at most eight bytes for each node in the input, and nothing that a length in
    /// the input only announces.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader { bytes, at: 0 };
        if u32::try_from(bytes.len()).is_err() {
            return Err(refused(reader.at));
        }
        let mut places: Vec<Place> = Vec::new();
        let mut open: Vec<Open> = Vec::new();
        let mut path = Prefix::default();
        loop {
            let branch = places.len();
            let kind = reader.place(&mut places)?;
            let mut done = match kind {
                KIND_EMPTY if branch == 0 => true,
                KIND_HIDDEN if branch == 0 => {
                    reader.take(Digest::LEN)?;
                    true
                }
                KIND_LEAF | KIND_LEAF_DIGEST => {
                    let (key, _) = reader.leaf(kind)?;
                    if !path.leads_to(key) {
                        return Err(refused(places[branch].at as usize));
                    }
                    true
                }
                KIND_BRANCH..=0x0f => {
                    let segment = reader.segment(kind)?;
                    for bit in segment.iter() {
                        if !path.goes_on() {
                            return Err(refused(places[branch].at as usize));
                        }
                        path.push(bit);
                    }
                    let bit = path.bits();
                    if bit == 0 || bit > BRANCH_BIT_MAX || !path.goes_on() {
                        return Err(refused(places[branch].at as usize));
                    }
                    open.push(Open { branch, bit });
                    let left_cut = kind & FLAG_LEFT_CUT != 0;
                    if left_cut {
                        reader.take(Digest::LEN)?;
                    } else {
                        path.push(false);
                    }
                    left_cut
                }
                _ => return Err(refused(places[branch].at as usize)),
            };
            // What is done is the left side of the last open branch: on to its right side.
            while done {
                let Some(Open { branch, bit }) = open.pop() else {
                    return if reader.at == bytes.len() {
                        Ok(Proof { bytes, places })
                    } else {
                        Err(refused(reader.at))
                    };
                };
                done = bytes[places[branch].at as usize] & FLAG_RIGHT_CUT != 0;
                places[branch].right = if done { reader.offset() } else { index(places.len()) };
                if done {
                    reader.take(Digest::LEN)?;
                } else {
                    path.truncate(bit);
                    path.push(true);
                }
            }
        }
    }

    /// The node at index `at` of the places.
    pub(super) fn node(&self, at: usize) -> Node<'a> {
        let place = &self.places[at];
        let mut reader = Reader { bytes: self.bytes, at: place.at as usize };
        self.read(&mut reader, at, place.right as usize)
            .expect("decode has read these bytes the same way")
    }

    fn read(&self, reader: &mut Reader<'a>, at: usize, right: usize) -> Result<Node<'a>, Error> {
        Ok(match reader.take(1)?[0] {
            KIND_EMPTY => Node::Empty,
            KIND_HIDDEN => Node::Hidden(reader.digest()?),
            kind @ (KIND_LEAF | KIND_LEAF_DIGEST) => {
                let (key, value) = reader.leaf(kind)?;
                Node::Leaf { key, value }
            }
            kind => {
                let segment = reader.segment(kind)?;
                let left = match kind & FLAG_LEFT_CUT {
                    0 => Child::Node(at + 1),
                    _ => Child::Cut(reader.digest()?),
                };
                let right = match kind & FLAG_RIGHT_CUT {
                    0 => Child::Node(right),
                    _ => Child::Cut(Reader { bytes: self.bytes, at: right }.digest()?),
                };
                Node::Branch { segment, left, right }
            }
        })
    }
}

fn refused(at: usize) -> Error {
    Error::Malformed { format: Format::Proof, at }
}

/// The index of a place, of which there are fewer than bytes.
fn index(at: usize) -> u32 {
    u32::try_from(at).expect("a proof has fewer than 2^32 bytes")
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn refused(&self) -> Error {
        refused(self.at)
    }

    fn offset(&self) -> u32 {
        index(self.at)
    }

    /// Reads a kind byte and notes its place.
    fn place(&mut self, places: &mut Vec<Place>) -> Result<u8, Error> {
        let at = self.offset();
        let kind = self.take(1)?[0];
        places.push(Place { at, right: 0 });
        Ok(kind)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let taken = self.bytes[self.at..].get(..len).ok_or(self.refused())?;
        self.at += len;
        Ok(taken)
    }

    fn digest(&mut self) -> Result<Digest, Error> {
        let bytes = self.take(Digest::LEN)?;
        Ok(Digest(bytes.try_into().expect("as many bytes as were asked for")))
    }

    /// A length for which `allowed` holds.
    fn length(&mut self, allowed: impl Fn(usize) -> bool) -> Result<usize, Error> {
        let (length, len) = varint::decode(&self.bytes[self.at..])
            .filter(|(length, _)| allowed(*length))
            .ok_or(self.refused())?;
        self.at += len;
        Ok(length)
    }

    fn leaf(&mut self, kind: u8) -> Result<(&'a [u8], Value<'a>), Error> {
        let length = self.length(|length| (1..=KEY_BYTES_MAX).contains(&length))?;
        let key = self.take(length)?;
        if kind == KIND_LEAF_DIGEST {
            return Ok((key, Value::Digest(self.digest()?)));
        }
        let length = self.length(|length| length <= VALUE_BYTES_MAX)?;
        Ok((key, Value::Shown(self.take(length)?)))
    }

    fn segment(&mut self, kind: u8) -> Result<Segment<'a>, Error> {
        if kind & FLAG_SEGMENT == 0 {
            return Ok(Segment { bits: 0, packed: &[] });
        }
        let bits = self.length(|bits| (1..=BRANCH_BIT_MAX).contains(&bits))?;
        let at = self.at;
        let packed = self.take(bits.div_ceil(8))?;
        let padding_bits = 8 * packed.len() - bits;
        if packed[packed.len() - 1].trailing_zeros() < u32::try_from(padding_bits).expect("below 8")
        {
            return Err(refused(at + packed.len() - 1));
        }
        Ok(Segment { bits, packed })
    }
}
