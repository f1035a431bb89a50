//! The prover and the verifier equal the slow tree, on random states, questions and changes.
//!
//! Method: small alphabets make shared prefixes, keys that extend others and long segments frequent;
//! seeds are fixed. The slow side decides node by node, from the definition, what must be shown.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod reference;

use std::collections::BTreeMap;

use anwansi_proofs::{
    Change, Digest, Error, Proof, Question, Root, prove, prove_update, tree::Sorted,
};
use fastrand::Rng;
use reference::{Keep, State, Tree, path};

const SEEDS: std::ops::Range<u64> = 0..400;

type Range = (Vec<u8>, Option<Vec<u8>>);

/// Keys from a few bytes, mostly short, now and then long: they share prefixes.
fn key(rng: &mut Rng) -> Vec<u8> {
    let alphabet = [0, 1, 0x60, 0x61, 0x80, 0xff];
    let length = if rng.u8(..) < 8 { rng.usize(40..60) } else { rng.usize(1..5) };
    let mut key = vec![0x61; length];
    for byte in key.iter_mut().rev().take(4) {
        *byte = alphabet[rng.usize(..alphabet.len())];
    }
    key
}

fn state(rng: &mut Rng) -> State {
    let sizes = [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33];
    (0..sizes[rng.usize(..sizes.len())]).map(|i| (key(rng), vec![i; rng.usize(..4)])).collect()
}

fn sorted(state: &State) -> Sorted<&Vec<u8>, &Vec<u8>> {
    Sorted::new(state.iter().collect())
}

fn root_of(state: &State) -> Root {
    Root(Digest(reference::root(state)))
}

/// The first path below a node that starts at `start`, and the last: zeros and ones behind what is fixed.
fn first_and_last(tree: &Tree, start: usize) -> (Vec<bool>, Vec<bool>) {
    let fixed = path(tree.leaves()[0].0)[..start].to_vec();
    let fill = |with| {
        let mut bits = fixed.clone();
        bits.resize(9 * 1026, with);
        bits
    };
    (fill(false), fill(true))
}

/// Where each node starts, by the address of its first leaf and its size.
fn starts(tree: &Tree, start: usize, into: &mut BTreeMap<*const Tree, usize>) {
    into.insert(tree, start);
    if let Tree::Branch { at, left, right, .. } = tree {
        starts(left, at + 1, into);
        starts(right, at + 1, into);
    }
}

fn slow_proof(state: &State, keys: &[Vec<u8>], ranges: &[Range]) -> Vec<u8> {
    let Some(tree) = Tree::new(state) else { return vec![0] };
    if keys.is_empty() && ranges.is_empty() {
        return [&[1][..], &tree.hash()].concat();
    }
    let mut starts_at = BTreeMap::new();
    starts(&tree, 0, &mut starts_at);
    let in_range = |key: &[u8]| {
        ranges
            .iter()
            .any(|(start, end)| key >= &start[..] && end.as_ref().is_none_or(|end| key < &end[..]))
    };
    let keep = |node: &Tree| {
        if let Tree::Leaf { key, .. } = node
            && (keys.contains(key) || in_range(key))
        {
            return Keep::Value;
        }
        let (first, last) = first_and_last(node, starts_at[&std::ptr::from_ref(node)]);
        let asked = keys.iter().any(|key| (&first..=&last).contains(&&path(key)))
            || ranges.iter().any(|(start, end)| {
                last >= path(start) && end.as_ref().is_none_or(|end| first < path(end))
            });
        if asked { Keep::Node } else { Keep::Cut }
    };
    tree.cut(&keep)
}

#[test]
fn segments_around_the_longest_that_stands_in_a_header() {
    for bits in [350, 351, 352, 353, 354, 9214, 9215] {
        // Two keys whose paths part at bit `bits`: inside of a byte, or where one of them ends.
        let shared = vec![0xa5; bits / 9];
        let mut other = shared.clone();
        other.push(match bits % 9 {
            0 => 0,
            place => 0x80 >> (place - 1),
        });
        let mut one = shared;
        if bits % 9 > 0 {
            one.push(0);
        }
        let state = State::from([(one, vec![1]), (other.clone(), vec![2])]);
        assert_eq!(sorted(&state).root(), root_of(&state), "{bits} bits");
        let proof = prove(&sorted(&state), &Question::default().key(&other)).unwrap();
        let shown = Proof::decode(&proof).unwrap().verify(&root_of(&state)).unwrap();
        assert_eq!(shown.get(&other), Ok(Some(&[2][..])));
    }
}

#[test]
fn smallest_proofs_are_the_slow_ones_and_answer_exactly_what_they_cover() {
    for seed in SEEDS {
        let mut rng = Rng::with_seed(seed);
        let state = state(&mut rng);
        let root = root_of(&state);
        assert_eq!(sorted(&state).root(), root, "seed {seed}");
        let mut question = Question::default();
        let any_key = |rng: &mut Rng| match rng.choice(state.keys()) {
            Some(known) if rng.bool() => known.clone(),
            _ => key(rng),
        };
        let keys = (0..rng.usize(..4)).map(|_| any_key(&mut rng)).collect::<Vec<_>>();
        let mut ranges: Vec<Range> = Vec::new();
        for _ in 0..rng.usize(..3) {
            let (start, end) = (any_key(&mut rng), rng.bool().then(|| any_key(&mut rng)));
            if end.as_ref().is_none_or(|end| start < *end) {
                ranges.push((start, end));
            }
        }
        for key in &keys {
            question = question.key(key);
        }
        for (start, end) in &ranges {
            question = question.range(start, end.as_deref());
        }
        let proof = prove(&sorted(&state), &question).unwrap();
        assert_eq!(proof, slow_proof(&state, &keys, &ranges), "seed {seed}");

        let shown = Proof::decode(&proof).unwrap().verify(&root).unwrap();
        for key in &keys {
            assert_eq!(shown.get(key), Ok(state.get(key).map(Vec::as_slice)), "seed {seed}");
        }
        for (start, end) in &ranges {
            let entries = shown.range(start, end.as_deref()).unwrap();
            let in_range = |key: &Vec<u8>| key >= start && end.as_ref().is_none_or(|end| key < end);
            let expected = state.iter().filter(|(key, _)| in_range(key));
            assert!(
                entries
                    .iter()
                    .map(|e| (e.key, e.value))
                    .eq(expected.map(|(k, v)| (&k[..], &v[..])))
            );
        }
        let all = shown.keys(b"", None);
        assert!(all.is_err() || all.is_ok_and(|all| all.iter().copied().eq(state.keys())));
        // What else it is asked, it answers truly or not at all.
        for _ in 0..20 {
            let key = any_key(&mut rng);
            match shown.get(&key) {
                Ok(value) => assert_eq!(value, state.get(&key).map(Vec::as_slice), "seed {seed}"),
                Err(refused) => assert!(matches!(refused, Error::NotCovered { .. })),
            }
            let end = any_key(&mut rng);
            if let Ok(entries) = shown.range(&key, Some(&end)) {
                let expected = state.iter().filter(|(k, _)| **k >= key && **k < end);
                assert!(entries.iter().map(|e| e.key).eq(expected.map(|(k, _)| &k[..])));
            }
        }
    }
}

#[test]
fn update_proofs_are_minimal_and_lead_to_the_next_root() {
    for seed in SEEDS {
        let mut rng = Rng::with_seed(seed);
        let mut state = state(&mut rng);
        let before = root_of(&state);
        let mut changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        // Removals of whole neighbourhoods empty subtrees on many levels at once.
        let removed = rng.usize(..=state.len());
        let first = rng.usize(..=state.len() - removed);
        if rng.bool() {
            changes.extend(state.keys().skip(first).take(removed).map(|key| (key.clone(), None)));
        }
        for i in 0..rng.u8(..4) {
            changes.insert(key(&mut rng), rng.bool().then(|| vec![i]));
        }
        let borrowed = changes
            .iter()
            .map(|(key, value)| Change { key, value: value.as_deref() })
            .collect::<Vec<_>>();
        let proof = prove_update(&sorted(&state), &borrowed).unwrap();
        let shown = Proof::decode(&proof).unwrap().verify(&before).unwrap();
        for (key, value) in &changes {
            match value {
                Some(value) => state.insert(key.clone(), value.clone()),
                None => state.remove(key),
            };
        }
        assert_eq!(shown.apply(&borrowed), Ok(root_of(&state)), "seed {seed}");

        // Each node is needed: with any one cut away, the root can no longer be computed.
        for smaller in with_one_node_cut(&proof) {
            let shown = Proof::decode(&smaller).unwrap().verify(&before).unwrap();
            let applied = shown.apply(&borrowed);
            assert!(matches!(applied, Err(Error::NotCovered { .. })), "seed {seed}: {applied:?}");
        }
    }
}

/// All proofs that are `proof` with one leaf, or one branch whose children are cut, cut away too.
fn with_one_node_cut(proof: &[u8]) -> Vec<Vec<u8>> {
    let tree = Parsed::read(proof, &mut 0);
    let mut all = Vec::new();
    if let Parsed::Branch { .. } = tree {
        for i in 0.. {
            let mut left = i;
            let (bytes, _) = tree.write(&mut left);
            if left != usize::MAX {
                break;
            }
            all.push(bytes);
        }
    }
    all
}

/// A proof's nodes, read without any check: for cutting what is known to be well formed.
enum Parsed {
    Leaf { bytes: Vec<u8>, hash: Vec<u8> },
    Cut(Vec<u8>),
    Branch { segment: Vec<u8>, bits: usize, sides: [Box<Parsed>; 2] },
}

impl Parsed {
    fn read(proof: &[u8], at: &mut usize) -> Parsed {
        let mut take = |n: usize| {
            *at += n;
            proof[*at - n..*at].to_vec()
        };
        let kind = take(1)[0];
        let uvarint = |take: &mut dyn FnMut(usize) -> Vec<u8>| match take(1)[0] {
            byte @ 0..128 => byte as usize,
            byte => (byte & 127) as usize + 128 * take(1)[0] as usize,
        };
        match kind {
            0 | 1 => Parsed::Cut(take(if kind == 0 { 0 } else { 32 })),
            2 | 3 => {
                let length = uvarint(&mut take);
                let key = take(length);
                assert_eq!(kind, 3, "update proofs show no values");
                let digest = take(32);
                let header = [b"anwansi/leaf/v1\n", &reference::uvarint(length)[..]].concat();
                let hash = reference::h(&[&header, &key, &[32][..], &digest].concat());
                let bytes = [&[3][..], &reference::uvarint(length), &key, &digest].concat();
                Parsed::Leaf { bytes, hash: hash.to_vec() }
            }
            _ => {
                let bits = if kind & 4 == 0 { 0 } else { uvarint(&mut take) };
                let segment = take(bits.div_ceil(8));
                let mut side = |cut: bool| {
                    Box::new(if cut {
                        *at += 32;
                        Parsed::Cut(proof[*at - 32..*at].to_vec())
                    } else {
                        Parsed::read(proof, at)
                    })
                };
                let sides = [side(kind & 1 != 0), side(kind & 2 != 0)];
                Parsed::Branch { segment, bits, sides }
            }
        }
    }

    /// Writes it with the `cut`-th node that can be cut written as its hash (then `cut` is `MAX`).
    fn write(&self, cut: &mut usize) -> (Vec<u8>, Vec<u8>) {
        match self {
            Parsed::Cut(hash) => (hash.clone(), hash.clone()),
            Parsed::Leaf { bytes, hash } => (bytes.clone(), hash.clone()),
            Parsed::Branch { segment, bits, sides } => {
                let mut body = Vec::new();
                let mut hashes = Vec::new();
                let mut flags = if *bits > 0 { 4 } else { 0 };
                for (i, side) in sides.iter().enumerate() {
                    let whole = match &**side {
                        Parsed::Branch { sides, .. } => {
                            sides.iter().all(|side| matches!(**side, Parsed::Cut(_)))
                        }
                        Parsed::Leaf { .. } => true,
                        Parsed::Cut(_) => false,
                    };
                    let (mut bytes, hash) = side.write(cut);
                    let chosen = whole && *cut == 0;
                    if whole && *cut != usize::MAX {
                        *cut = cut.wrapping_sub(1);
                    }
                    if chosen {
                        bytes.clone_from(&hash);
                    }
                    if chosen || matches!(**side, Parsed::Cut(_)) {
                        flags |= 1 << i;
                    }
                    body.extend(bytes);
                    hashes.extend(hash);
                }
                let mut proof = vec![8 + flags];
                if *bits > 0 {
                    proof.extend(reference::uvarint(*bits));
                    proof.extend(segment);
                }
                proof.extend(body);
                let mut header = [0; 64];
                header[..16].copy_from_slice(b"anwansi/node/v1\n");
                header[16..20].copy_from_slice(&u32::try_from(*bits).unwrap().to_le_bytes());
                if *bits <= 352 {
                    header[20..20 + segment.len()].copy_from_slice(segment);
                } else {
                    header[32..].copy_from_slice(&reference::h(segment));
                }
                (proof, reference::h(&[&header[..], &hashes].concat()).to_vec())
            }
        }
    }
}
