//! The slow obvious tree: SPEC.md as directly as it can be written, to compare everything with.
//!
//! Bits are booleans in vectors, the tree is boxes, hashing and cutting recurse. It shares no code with
//! the crate but the BLAKE3 function.
#![allow(clippy::cast_possible_truncation, clippy::implicit_clone)]
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::BTreeMap;

pub type State = BTreeMap<Vec<u8>, Vec<u8>>;
pub type Hash = [u8; 32];

pub fn h(bytes: &[u8]) -> Hash {
    anwansi_proofs::Digest::of(bytes).0
}

/// The path of a key, with enough of its zeros.
pub fn path(key: &[u8]) -> Vec<bool> {
    let mut bits = Vec::new();
    for byte in key {
        bits.push(true);
        bits.extend((0..8).rev().map(|i| byte >> i & 1 == 1));
    }
    bits.resize(9 * 1026, false);
    bits
}

/// The same, with as many of its zeros as keys of at most `longest` bytes need to be told apart.
fn path_among(key: &[u8], longest: usize) -> Vec<bool> {
    let mut bits = path(key);
    bits.truncate(9 * longest + 1);
    bits.shrink_to_fit();
    bits
}

pub fn uvarint(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n > 127 {
        bytes.push((n % 128) as u8 + 128);
        n /= 128;
    }
    bytes.push(n as u8);
    bytes
}

fn packed(bits: &[bool]) -> Vec<u8> {
    bits.chunks(8)
        .map(|chunk| chunk.iter().enumerate().map(|(i, b)| u8::from(*b) << (7 - i)).sum())
        .collect()
}

pub enum Tree {
    Leaf {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    /// `start..at` is the segment; `path` that of any key below.
    Branch {
        start: usize,
        at: usize,
        path: Vec<bool>,
        left: Box<Tree>,
        right: Box<Tree>,
    },
    /// Only for malformed trees: a branch that says what it likes.
    Forged {
        segment: Vec<bool>,
        left: Box<Tree>,
        right: Box<Tree>,
    },
}

impl Tree {
    pub fn new(state: &State) -> Option<Tree> {
        let longest = state.keys().map(Vec::len).max().unwrap_or(0);
        let entries = state.iter().map(|(k, v)| (path_among(k, longest), k, v)).collect::<Vec<_>>();
        (!entries.is_empty()).then(|| Tree::below(&entries, 0))
    }

    fn below(entries: &[(Vec<bool>, &Vec<u8>, &Vec<u8>)], start: usize) -> Tree {
        if let [(_, key, value)] = entries {
            return Tree::Leaf { key: key.to_vec(), value: value.to_vec() };
        }
        let mut at = start;
        while entries.iter().all(|entry| entry.0[at] == entries[0].0[at]) {
            at += 1;
        }
        let (left, right) = entries.split_at(entries.iter().filter(|entry| !entry.0[at]).count());
        Tree::Branch {
            start,
            at,
            path: entries[0].0[..at].to_vec(),
            left: Box::new(Tree::below(left, at + 1)),
            right: Box::new(Tree::below(right, at + 1)),
        }
    }

    fn segment(&self) -> &[bool] {
        match self {
            Tree::Leaf { .. } => &[],
            Tree::Branch { start, at, path, .. } => &path[*start..*at],
            Tree::Forged { segment, .. } => segment,
        }
    }

    pub fn hash(&self) -> Hash {
        match self {
            Tree::Leaf { key, value } => {
                let len = uvarint(key.len());
                h(&[b"anwansi/leaf/v1\n", &len[..], key, &uvarint(32), &h(value)].concat())
            }
            Tree::Branch { left, right, .. } | Tree::Forged { left, right, .. } => {
                let bits = packed(self.segment());
                let mut field = [0; 44];
                if self.segment().len() <= 352 {
                    field[..bits.len()].copy_from_slice(&bits);
                } else {
                    field[12..].copy_from_slice(&h(&bits));
                }
                let length = (self.segment().len() as u32).to_le_bytes();
                let header = [b"anwansi/node/v1\n", &length[..], &field].concat();
                assert_eq!(header.len(), 64);
                h(&[&header[..], &left.hash(), &right.hash()].concat())
            }
        }
    }

    /// The proof that shows what `keep` says: `Cut`, or the node, with its value or without.
    pub fn cut(&self, keep: &impl Fn(&Tree) -> Keep) -> Vec<u8> {
        match self {
            Tree::Leaf { key, value } => {
                let key = [uvarint(key.len()), key.clone()].concat();
                if keep(self) == Keep::Value {
                    [&[2][..], &key, &uvarint(value.len()), value].concat()
                } else {
                    [&[3][..], &key, &h(value)].concat()
                }
            }
            Tree::Branch { left, right, .. } | Tree::Forged { left, right, .. } => {
                let segment = self.segment();
                let cuts = [left, right].map(|side| keep(side) == Keep::Cut);
                let flags = u8::from(cuts[0]) + 2 * u8::from(cuts[1]);
                let mut proof = vec![8 + flags + if segment.is_empty() { 0 } else { 4 }];
                if !segment.is_empty() {
                    proof.extend(uvarint(segment.len()));
                    proof.extend(packed(segment));
                }
                for (side, cut) in [left, right].into_iter().zip(cuts) {
                    proof.extend(if cut { side.hash().to_vec() } else { side.cut(keep) });
                }
                proof
            }
        }
    }

    /// Everything below, in order.
    pub fn leaves(&self) -> Vec<(&[u8], &[u8])> {
        match self {
            Tree::Leaf { key, value } => vec![(key, value)],
            Tree::Branch { left, right, .. } | Tree::Forged { left, right, .. } => {
                [left.leaves(), right.leaves()].concat()
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    Cut,
    Node,
    Value,
}

pub fn root(state: &State) -> Hash {
    Tree::new(state).map_or_else(|| h(b"anwansi/none/v1\n"), |tree| tree.hash())
}
