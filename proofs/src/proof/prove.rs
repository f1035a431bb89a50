//! The smallest proof that answers a question, from any [`Tree`].

use alloc::{vec, vec::Vec};

use super::{
    Change, FLAG_LEFT_CUT, FLAG_RIGHT_CUT, FLAG_SEGMENT, KIND_BRANCH, KIND_EMPTY, KIND_HIDDEN,
    KIND_LEAF, KIND_LEAF_DIGEST,
};
use crate::{
    Digest,
    path::{Prefix, bit, critical_bit, is_below, is_not_below, pack},
    tree::{Tree, View},
    varint,
};

/// What a proof shall answer: keys and ranges of keys, as many as there are, in any order.
#[derive(Clone, Debug, Default)]
pub struct Question {
    keys: Vec<Vec<u8>>,
    ranges: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Question {
    /// Asks for the value of `key`, or that there is none.
    #[must_use]
    pub fn key(mut self, key: &[u8]) -> Self {
        self.keys.push(key.to_vec());
        self
    }

    /// Asks for all entries from `start`, inclusive, to `end`, exclusive; none: to the last.
    #[must_use]
    pub fn range(mut self, start: &[u8], end: Option<&[u8]>) -> Self {
        if end.is_none_or(|end| start < end) {
            self.ranges.push((start.to_vec(), end.map(<[u8]>::to_vec)));
        }
        self
    }

    /// Asks for all entries whose keys start with `prefix`.
    #[must_use]
    pub fn prefix(self, prefix: &[u8]) -> Self {
        self.range(prefix, crate::path::after_prefix(prefix).as_deref())
    }
}

/// The smallest proof over `tree` that answers `question`.
///
/// # Errors
/// If a node of the tree cannot be read.
///
/// # Cost
/// Opens the nodes that it shows, no other; memory is that of the proof.
pub fn prove<T: Tree>(tree: &T, question: &Question) -> Result<Vec<u8>, T::Error> {
    let target = |key| Target { key, ask: Ask::Value };
    let mut keys = question.keys.iter().map(|key| target(&key[..])).collect::<Vec<_>>();
    keys.sort_unstable_by_key(|target| target.key);
    keys.dedup_by_key(|target| target.key);
    let ranges = disjoint(question.ranges.clone());
    Prover::run(tree, Asked { keys: &keys, ranges: &ranges })
}

/// The smallest proof over `tree` from which the root after `changes` follows
/// ([`Shown::apply`](super::Shown::apply)): the update proof of the version that makes them.
///
/// # Panics
/// If the changes are not in strictly ascending key order.
///
/// # Errors
/// If a node of the tree cannot be read.
///
/// # Cost
/// As of [`prove`], twice if keys are removed.
pub fn prove_update<T: Tree>(tree: &T, changes: &[Change<'_>]) -> Result<Vec<u8>, T::Error> {
    assert!(
        changes.is_sorted_by(|a, b| a.key < b.key),
        "changes stand in strictly ascending order"
    );
    let ask = |value: Option<&[u8]>| if value.is_some() { Ask::Put } else { Ask::Remove };
    let target = |&Change { key, value }| Target { key, ask: ask(value) };
    let keys = changes.iter().map(target).collect::<Vec<_>>();
    Prover::run(tree, Asked { keys: &keys, ranges: &[] })
}

/// The same ranges in order, those that touch made one: then all that reach into a subtree stand side
/// by side.
fn disjoint(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            Some((_, last)) if last.as_ref().is_none_or(|last| start <= *last) => {
                // No end is the furthest end.
                let further = last.is_some() && (end.is_none() || end > *last);
                if further {
                    *last = end;
                }
            }
            _ => merged.push((start, end)),
        }
    }
    merged
}

/// A key that the proof is about.
#[derive(Clone, Copy)]
struct Target<'q> {
    key: &'q [u8],
    ask: Ask,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    Value,
    Put,
    Remove,
}

type Range = (Vec<u8>, Option<Vec<u8>>);

/// What of the question concerns one subtree; both in path order.
#[derive(Clone, Copy)]
struct Asked<'q> {
    keys: &'q [Target<'q>],
    ranges: &'q [Range],
}

impl<'q> Asked<'q> {
    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty()
    }

    /// The parts for both sides of a branch at bit `at`, below which `key` lies. A target whose path
    /// leaves the segment ends at the branch itself and concerns neither.
    fn split(&self, key: &[u8], at: usize) -> (Asked<'q>, Asked<'q>) {
        let parts = |target: &Target<'_>| critical_bit(key, target.key).filter(|bit| *bit < at);
        let keys = match self.keys {
            [target] if parts(target).is_some() => &[],
            [_] => self.keys,
            keys => {
                let before = |target: &_| parts(target).is_some_and(|parts| bit(key, parts));
                let first = keys.partition_point(before);
                let within = |target: &_| parts(target).is_none_or(|parts| bit(key, parts));
                &keys[first..keys.partition_point(within)]
            }
        };
        let (left, right) = keys.split_at(keys.partition_point(|target| !bit(target.key, at)));
        let [left_ranges, right_ranges] =
            [false, true].map(|side| self.ranges_below(key, at, side));
        (Asked { keys: left, ranges: left_ranges }, Asked { keys: right, ranges: right_ranges })
    }

    /// Of the ranges, those that may reach into one side of a branch.
    fn ranges_below(&self, key: &[u8], at: usize, side: bool) -> &'q [Range] {
        if self.ranges.is_empty() {
            return &[];
        }
        let mut prefix = Prefix::of(key, at);
        prefix.push(side);
        let (key, bits) = (prefix.key(), prefix.bits());
        let before =
            |(_, end): &Range| end.as_ref().is_some_and(|end| is_not_below(key, bits, end));
        let first = self.ranges.partition_point(before);
        let last = self.ranges.partition_point(|(start, _)| !is_below(key, bits, start));
        &self.ranges[first..last.max(first)]
    }

    /// Whether the value of the leaf `key` is asked for.
    fn value_of(&self, key: &[u8]) -> bool {
        let in_range = |(start, end): &Range| {
            start.as_slice() <= key && end.as_ref().is_none_or(|end| key < end.as_slice())
        };
        self.keys.iter().any(|target| target.ask == Ask::Value && target.key == key)
            || self.ranges.iter().any(in_range)
    }
}

/// What is still to be written, the next on top.
enum Work<'q, N> {
    Node { node: N, start: usize, asked: Asked<'q> },
    Hash(Digest),
}

/// As many bytes as the proof of one entry has, among millions.
const PROOF_BYTES_USUAL: usize = 1024;

/// As many parts as wait for their turn, for one entry among millions.
const WORK_USUAL: usize = 32;

/// Writes one proof.
struct Prover<'t, T: Tree> {
    tree: &'t T,
    proof: Vec<u8>,
    /// Of the nodes that something is asked of and that are not written yet, in pre-order: which of
    /// their sides the changes leave empty.
    emptied: vec::IntoIter<[bool; 2]>,
}

impl<'t, T: Tree> Prover<'t, T> {
    fn run(tree: &'t T, asked: Asked<'_>) -> Result<Vec<u8>, T::Error> {
        let Some(top) = tree.top()? else { return Ok(vec![KIND_EMPTY]) };
        let proof = Vec::with_capacity(PROOF_BYTES_USUAL);
        let mut prover = Prover { tree, proof, emptied: <_>::default() };
        if asked.is_empty() {
            prover.proof.push(KIND_HIDDEN);
            prover.proof.extend_from_slice(&tree.digest(&top, 0)?.0);
            return Ok(prover.proof);
        }
        if asked.keys.iter().any(|target| target.ask == Ask::Remove) {
            prover.emptied = emptied(tree, top.clone(), asked)?.into_iter();
        }
        let mut work = Vec::with_capacity(WORK_USUAL);
        work.push(Work::Node { node: top, start: 0, asked });
        while let Some(next) = work.pop() {
            match next {
                Work::Hash(digest) => prover.proof.extend_from_slice(&digest.0),
                Work::Node { node, start, asked } => prover.node(&node, start, asked, &mut work)?,
            }
        }
        Ok(prover.proof)
    }

    fn node<'q>(
        &mut self,
        node: &T::Node,
        start: usize,
        asked: Asked<'q>,
        work: &mut Vec<Work<'q, T::Node>>,
    ) -> Result<(), T::Error> {
        let known = if asked.is_empty() { None } else { self.emptied.next() };
        let [left_goes, right_goes] = known.unwrap_or_default();
        let (at, key, left, right) = match self.tree.view(node)? {
            View::Branch { bit, key, left, right } => (bit, key, left, right),
            View::Leaf { key } => {
                let shown = asked.value_of(key);
                self.proof.push(if shown { KIND_LEAF } else { KIND_LEAF_DIGEST });
                self.length(key.len());
                self.proof.extend_from_slice(key);
                if shown {
                    let value = self.tree.value(node)?;
                    self.length(value.len());
                    self.proof.extend_from_slice(&value);
                } else {
                    self.proof.extend_from_slice(&self.tree.value_digest(node)?.0);
                }
                return Ok(());
            }
        };
        let (left_asked, right_asked) = asked.split(key, at);
        // A side left alone moves up, which changes its hash: its top node has to be known.
        let left_cut = left_asked.is_empty() && !right_goes;
        let right_cut = right_asked.is_empty() && !left_goes;

        let flag = |set, flag| if set { flag } else { 0 };
        let segment = flag(at > start, FLAG_SEGMENT);
        let cuts = flag(left_cut, FLAG_LEFT_CUT) | flag(right_cut, FLAG_RIGHT_CUT);
        self.proof.push(KIND_BRANCH | segment | cuts);
        if at > start {
            self.length(at - start);
            self.proof.extend_from_slice(&pack(key, start..at));
        }
        for (node, asked, cut) in [(right, right_asked, right_cut), (left, left_asked, left_cut)] {
            work.push(if cut {
                Work::Hash(self.tree.digest(&node, at + 1)?)
            } else {
                Work::Node { node, start: at + 1, asked }
            });
        }
        Ok(())
    }

    fn length(&mut self, length: usize) {
        let (bytes, len) = varint::encode(length);
        self.proof.extend_from_slice(&bytes[..len]);
    }
}

/// A node on the way down, or the index of one whose sides are done, and which of these were looked at.
enum Visit<'q, N> {
    Enter(N, Asked<'q>),
    Leave { index: usize, keeps: bool, asked: [bool; 2] },
}

/// Of every node that something is asked of, in pre-order, which of its sides the changes leave empty.
///
/// A subtree is left empty if nothing is put there and every entry in it is removed.
fn emptied<T: Tree>(tree: &T, top: T::Node, asked: Asked<'_>) -> Result<Vec<[bool; 2]>, T::Error> {
    let mut sides = Vec::new();
    // Of the nodes that are done and whose parents are not: whether they are left empty.
    let mut done = Vec::new();
    let mut visits = vec![Visit::Enter(top, asked)];
    while let Some(visit) = visits.pop() {
        let (node, asked) = match visit {
            Visit::Enter(node, asked) => (node, asked),
            Visit::Leave { index, keeps, asked: [left, right] } => {
                let mut of = |asked| asked && done.pop().expect("a side that was entered is done");
                let (right, left) = (of(right), of(left));
                sides[index] = [left, right];
                done.push(!keeps && left && right);
                continue;
            }
        };
        let keeps = asked.keys.iter().any(|target| target.ask != Ask::Remove);
        let index = sides.len();
        sides.push([false; 2]);
        match tree.view(&node)? {
            View::Leaf { key } => {
                done.push(!keeps && asked.keys.iter().any(|target| target.key == key));
            }
            View::Branch { bit, key, left, right } => {
                let (left_asked, right_asked) = asked.split(key, bit);
                let asked = [!left_asked.is_empty(), !right_asked.is_empty()];
                visits.push(Visit::Leave { index, keeps, asked });
                let sides = [(right, right_asked), (left, left_asked)].into_iter();
                let entered = sides.filter(|(_, asked)| !asked.is_empty());
                visits.extend(entered.map(|(node, asked)| Visit::Enter(node, asked)));
            }
        }
    }
    Ok(sides)
}
