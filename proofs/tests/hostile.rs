//! Nothing that a liar sends is believed, and nothing it sends costs more than its length.
//!
//! Method: every proof of the vectors with bytes changed, cut and doubled; trees that are malformed but
//! well hashed, so that only their shape can give them away; the forgeries that other stores have
//! accepted; the deepest tree there is, on a stack too small for recursion.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod reference;

use anwansi_proofs::{
    Change, Digest, Error, Proof, Question, Root, prove, prove_update, tree::Sorted,
};
use fastrand::Rng;
use reference::{Keep, State, Tree};
use serde_json::Value;

fn vector_proofs() -> Vec<(Root, Vec<u8>)> {
    let read = |name: &str| -> Value {
        let path = format!("{}/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let proof = |root: &Value, proof: &Value| {
        let root: Root = root.as_str().unwrap().parse().unwrap();
        (root, hex::decode(proof.as_str().unwrap()).unwrap())
    };
    let mut proofs = Vec::new();
    for case in read("tree.json")["cases"].as_array().unwrap() {
        let shown = case["proofs"].as_array().unwrap().iter();
        proofs.extend(shown.map(|shown| proof(&case["root"], &shown["proof"])));
    }
    for step in read("steps.json")["steps"].as_array().unwrap() {
        proofs.push(proof(&step["before"], &step["proof"]));
    }
    proofs
}

fn accepted(proof: &[u8], root: &Root) -> bool {
    Proof::decode(proof).is_ok_and(|proof| proof.verify(root).is_ok())
}

#[test]
fn no_changed_cut_or_doubled_byte_is_accepted() {
    let mut rng = Rng::with_seed(1);
    let mut tried = 0_u64;
    for (root, proof) in vector_proofs() {
        assert!(accepted(&proof, &root));
        // The longest ones are tried at random places only: each try hashes them as a whole.
        let step = proof.len().div_ceil(2500);
        for at in (rng.usize(..step)..proof.len()).step_by(step) {
            for with in [proof[at] ^ 1, proof[at] ^ 0x80, rng.u8(..)] {
                let mut changed = proof.clone();
                changed[at] = with;
                assert!(with == proof[at] || !accepted(&changed, &root), "byte {at} to {with}");
                tried += 1;
            }
            assert!(!accepted(&proof[..at], &root), "cut at {at}");
            let doubled = [&proof[..=at], &proof[at..]].concat();
            assert!(!accepted(&doubled, &root), "byte {at} doubled");
            let without = [&proof[..at], &proof[at + 1..]].concat();
            assert!(!accepted(&without, &root), "byte {at} left out");
        }
    }
    assert!(tried > 100_000, "{tried}");
}

/// A tree of any shape with leaves anywhere: hashed as a prover would who can build what he likes.
fn malformed(rng: &mut Rng, depth: usize) -> Tree {
    if depth == 0 || rng.u8(..) < 60 {
        let key = (0..rng.usize(1..3)).map(|_| rng.choice([0x61, 0x62, 0xe1]).unwrap()).collect();
        return Tree::Leaf { key, value: vec![rng.u8(..)] };
    }
    // Mostly segments that a real tree could have, so that many of the lies are decoded at all.
    let segment = match rng.u8(..4) {
        0 => vec![true],
        1 => vec![],
        2 => (0..rng.usize(..12)).map(|_| rng.bool()).collect(),
        _ => reference::path(&[0x61, 0x62])[..rng.usize(..10)].to_vec(),
    };
    let mut side = || Box::new(malformed(rng, depth - 1));
    Tree::Forged { segment, left: side(), right: side() }
}

#[test]
fn no_root_shows_a_key_both_present_and_absent() {
    let keys = [0x61_u8, 0x62, 0xe1].iter().flat_map(|a| {
        let two = [0x61_u8, 0x62, 0xe1].map(|b| vec![*a, b]);
        [vec![vec![*a]], two.to_vec()].concat()
    });
    let keys = keys.collect::<Vec<_>>();
    let (mut decoded, mut answers) = (0, 0);
    for seed in 0..30_000 {
        let mut rng = Rng::with_seed(seed);
        let tree = malformed(&mut rng, 4);
        let root = Root(Digest(tree.hash()));
        let mut said: Vec<Option<Option<Vec<u8>>>> = vec![None; keys.len()];
        for _ in 0..8 {
            let choice = rng.u64(..);
            let cut_by = |node: &Tree| {
                let salt = node.hash()[0];
                match (choice >> (salt % 60)) & 3 {
                    0 => Keep::Cut,
                    1 => Keep::Node,
                    _ => Keep::Value,
                }
            };
            let proof = tree.cut(&cut_by);
            let Ok(proof) = Proof::decode(&proof) else { continue };
            let shown =
                proof.verify(&root).expect("what is decoded leads to the root it was hashed to");
            decoded += 1;
            for (key, said) in keys.iter().zip(&mut said) {
                let Ok(answer) = shown.get(key) else { continue };
                let answer = answer.map(<[u8]>::to_vec);
                assert!(said.as_ref().is_none_or(|said| *said == answer), "seed {seed} {key:?}");
                *said = Some(answer);
                answers += 1;
            }
        }
    }
    assert!(decoded > 10_000 && answers > 20_000, "{decoded} decoded, {answers} answers");
}

/// Keys whose paths part at every bit there is: branches down to bit 9215, each below the last.
fn deepest() -> State {
    let longest = vec![0xaa; 1024];
    let mut state = State::new();
    for byte in 0..1024 {
        for place in 0..8 {
            let mut key = longest.clone();
            key[byte] ^= 0x80 >> place;
            state.insert(key, vec![1]);
        }
        if byte > 0 {
            state.insert(longest[..byte].to_vec(), vec![2]);
        }
    }
    state.insert(longest, vec![3]);
    state
}

#[test]
fn deepest_tree_is_proven_and_verified_without_recursion() {
    let state = deepest();
    assert_eq!(state.len(), 9216);
    let work = move || {
        let longest = vec![0xaa; 1024];
        let tree = Sorted::new(state.iter().collect::<Vec<_>>());
        let root = tree.root();
        let question = Question::default().key(&longest).prefix(&longest[..1023]);
        let proof = prove(&tree, &question).unwrap();
        let shown = Proof::decode(&proof).unwrap().verify(&root).unwrap();
        assert_eq!(shown.get(&longest), Ok(Some(&[3][..])));
        assert_eq!(shown.prefix(&longest[..1023]).unwrap().len(), 10);
        assert!(matches!(shown.get(&longest[..1022]), Err(Error::NotCovered { .. })));
        let removed = [Change { key: &longest, value: None }];
        let update = prove_update(&tree, &removed).unwrap();
        let shown = Proof::decode(&update).unwrap().verify(&root).unwrap();
        let after = shown.apply(&removed).unwrap();
        let without = state.iter().filter(|(key, _)| **key != longest).collect::<Vec<_>>();
        assert_eq!(after, Sorted::new(without).root());
        // Everything at once: all 9,215 branches and 9,216 leaves.
        let all = prove(&tree, &Question::default().range(b"", None)).unwrap();
        let shown = Proof::decode(&all).unwrap().verify(&root).unwrap();
        assert_eq!(shown.range(b"", None).unwrap().len(), 9216);
    };
    // One frame of 15 bytes a level would be too much.
    let small = std::thread::Builder::new().stack_size(128 * 1024).spawn(work).unwrap();
    small.join().unwrap();
}

/// A tree in memory whose nodes are found at once: as a server's is.
struct Linked {
    nodes: Vec<LinkedNode>,
}

#[derive(Clone)]
enum LinkedNode {
    Leaf(Vec<u8>),
    Branch { bit: usize, key: Vec<u8>, sides: [usize; 2] },
}

impl anwansi_proofs::tree::Tree for Linked {
    type Node = usize;
    type Error = std::convert::Infallible;

    fn top(&self) -> Result<Option<usize>, Self::Error> {
        Ok(Some(self.nodes.len() - 1))
    }

    fn view<'a>(
        &'a self,
        node: &'a usize,
    ) -> Result<anwansi_proofs::tree::View<'a, usize>, Self::Error> {
        use anwansi_proofs::tree::View;
        Ok(match &self.nodes[*node] {
            LinkedNode::Leaf(key) => View::Leaf { key },
            LinkedNode::Branch { bit, key, sides: [left, right] } => {
                View::Branch { bit: *bit, key, left: *left, right: *right }
            }
        })
    }

    fn digest(&self, _: &usize, _: usize) -> Result<Digest, Self::Error> {
        Ok(Digest([0; 32]))
    }

    fn value(&self, _: &usize) -> Result<std::borrow::Cow<'_, [u8]>, Self::Error> {
        Ok((&[]).into())
    }

    fn value_digest(&self, _: &usize) -> Result<Digest, Self::Error> {
        Ok(Digest([0; 32]))
    }
}

#[test]
fn removing_the_deepest_chain_is_proven_in_reasonable_time() {
    // Each branch has one leaf and the rest of the chain: to look at the rest again at each of them
    // would be cubic in the length of the keys.
    let mut keys = deepest().into_keys().collect::<Vec<_>>();
    let longest = vec![0xaa; 1024];
    keys.retain(|key| *key != longest);
    let parts = |key: &Vec<u8>| anwansi_proofs::path::critical_bit(key, &longest).unwrap();
    let mut chain = keys.clone();
    chain.sort_by_key(|key| std::cmp::Reverse(parts(key)));
    let mut nodes = vec![LinkedNode::Leaf(longest.clone())];
    for key in chain {
        let (bit, below) = (parts(&key), nodes.len() - 1);
        nodes.push(LinkedNode::Leaf(key.clone()));
        let leaf = nodes.len() - 1;
        let right = anwansi_proofs::path::bit(&key, bit);
        let sides = if right { [below, leaf] } else { [leaf, below] };
        nodes.push(LinkedNode::Branch { bit, key: longest.clone(), sides });
    }
    keys.push(longest);
    keys.sort();
    let changes = keys.iter().map(|key| Change { key, value: None }).collect::<Vec<_>>();
    let start = std::time::Instant::now();
    let proof = prove_update(&Linked { nodes }, &changes).unwrap();
    assert!(Proof::decode(&proof).is_ok());
    assert!(start.elapsed() < std::time::Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn announced_lengths_allocate_nothing() {
    for length in [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0x80, 0x80, 0x80, 0x08]] {
        let proof = [&[2, 1, b'a'], length].concat();
        assert!(matches!(Proof::decode(&proof), Err(Error::Malformed { .. })));
    }
}

fn small() -> (State, Root) {
    let entries: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"ab", b"2"), (b"abc", b"3"), (b"b", b"4")];
    let state = entries.map(|(key, value)| (key.to_vec(), value.to_vec())).into_iter().collect();
    let root = Root(Digest(reference::root(&state)));
    (state, root)
}

fn show(state: &State, question: &Question) -> Vec<u8> {
    prove(&Sorted::new(state.iter().collect()), question).unwrap()
}

#[test]
fn value_digest_of_another_value_is_not_that_value() {
    // GroveDB #553: a kind that carries the digest, swapped for the kind that carries a value.
    let (state, root) = small();
    let proof = show(&state, &Question::default().key(b"b"));
    assert!(proof.ends_with(&[2, 1, b'b', 1, b'4']));
    let other = [&proof[..proof.len() - 1], b"5"].concat();
    assert!(!accepted(&other, &root));
    let digest = [&proof[..proof.len() - 5], &[3, 1, b'b'][..], &Digest::of(b"5").0].concat();
    assert!(!accepted(&digest, &root));
    let digest = [&proof[..proof.len() - 5], &[3, 1, b'b'][..], &Digest::of(b"4").0].concat();
    let shown = Proof::decode(&digest).unwrap().verify(&root).unwrap();
    assert!(matches!(shown.get(b"b"), Err(Error::NotCovered { .. })), "a digest is no value");
    assert!(matches!(shown.range(b"b", None), Err(Error::NotCovered { .. })));
}

#[test]
fn present_key_behind_a_cut_is_not_absent() {
    // GroveDB #853 and Firewood #1950: what an opaque hash hides is neither there nor not there.
    let (state, root) = small();
    let proof = show(&state, &Question::default().key(b"zzz"));
    let shown = Proof::decode(&proof).unwrap().verify(&root).unwrap();
    assert_eq!(shown.get(b"zzz"), Ok(None));
    for key in state.keys() {
        assert!(matches!(shown.get(key), Err(Error::NotCovered { .. })));
    }
    let nothing = [&[1][..], &root.0.0].concat();
    let shown = Proof::decode(&nothing).unwrap().verify(&root).unwrap();
    assert!(matches!(shown.get(b"zzz"), Err(Error::NotCovered { depth: 0 })));
    assert!(matches!(shown.range(b"", None), Err(Error::NotCovered { depth: 0 })));
}

#[test]
fn truncated_range_is_not_complete() {
    // GroveDB #647 and AKD #422: fewer entries than there are, shown as all of them.
    let (state, root) = small();
    let whole = Question::default().prefix(b"a");
    let less = show(&state, &Question::default().key(b"a").key(b"ab"));
    let shown = Proof::decode(&less).unwrap().verify(&root).unwrap();
    assert!(matches!(shown.prefix(b"a"), Err(Error::NotCovered { .. })));
    assert_eq!(shown.range(b"a", Some(b"ab\0")).unwrap().len(), 2);
    let whole = show(&state, &whole);
    let shown = Proof::decode(&whole).unwrap().verify(&root).unwrap();
    assert_eq!(shown.prefix(b"a").unwrap().len(), 3);
}

#[test]
fn both_children_of_a_branch_are_hashed() {
    // IAVL: a right child left out of the hash as soon as there was a left one.
    let (state, root) = small();
    let proof = show(&state, &Question::default().key(b"zzz"));
    let len = proof.len();
    for at in [len - 64, len - 1] {
        let mut other = proof.clone();
        other[at] ^= 1;
        assert!(!accepted(&other, &root));
    }
    let swapped = [&proof[..len - 64], &proof[len - 32..], &proof[len - 64..len - 32]].concat();
    assert!(!accepted(&swapped, &root));
}

#[test]
fn image_of_a_branch_is_no_leaf() {
    // ICS23 over a tree without prefixes: the 64 bytes of two children read as an entry.
    let (state, root) = small();
    let proof = show(&state, &Question::default().key(b"zzz"));
    let children = &proof[proof.len() - 64..];
    for split in 1..64 {
        let (key, value) = children.split_at(split);
        let (key_length, value_length) = (split as u8, value.len() as u8);
        let leaf = [&[2, key_length], key, &[value_length], value].concat();
        assert!(!accepted(&leaf, &root));
    }
}

#[test]
fn leaf_in_another_place_is_refused() {
    // A well-hashed tree in which "b" stands on the side of "a": decoding finds it, not hashing.
    let leaf = |key: &[u8], value: &[u8]| {
        Box::new(Tree::Leaf { key: key.to_vec(), value: value.to_vec() })
    };
    let segment = reference::path(b"a")[..7].to_vec();
    let swapped = Tree::Forged { segment, left: leaf(b"b", b"4"), right: leaf(b"a", b"1") };
    let proof = swapped.cut(&|_| Keep::Value);
    assert!(matches!(Proof::decode(&proof), Err(Error::Malformed { .. })));
    // With the leaf cut away the shape is sound, and says of its keys nothing that could be wrong.
    let cut = swapped.cut(&|node| if node.leaves().len() == 1 { Keep::Cut } else { Keep::Node });
    let shown = Proof::decode(&cut).unwrap().verify(&Root(Digest(swapped.hash()))).unwrap();
    for key in [b"a", b"b"] {
        assert!(matches!(shown.get(key), Err(Error::NotCovered { .. })));
    }
}

#[test]
fn dropped_or_forged_change_gives_another_root() {
    // Firewood #2109 and #2064: an operation forged, a put left out.
    let (state, root) = small();
    let changes = [
        Change { key: b"a", value: None },
        Change { key: b"ac", value: Some(b"5") },
        Change { key: b"b", value: Some(b"6") },
    ];
    let proof = prove_update(&Sorted::new(state.iter().collect()), &changes).unwrap();
    let shown = Proof::decode(&proof).unwrap().verify(&root).unwrap();
    let after = shown.apply(&changes).unwrap();
    for without in 0..changes.len() {
        let mut fewer = changes.to_vec();
        fewer.remove(without);
        assert_ne!(shown.apply(&fewer), Ok(after));
    }
    let mut forged = changes;
    forged[1].value = Some(b"7");
    assert_ne!(shown.apply(&forged), Ok(after));
    forged.swap(0, 1);
    assert_eq!(shown.apply(&forged), Err(Error::BadChanges));
    assert_eq!(shown.apply(&[changes[0], changes[0]]), Err(Error::BadChanges));
    assert_eq!(shown.apply(&[Change { key: b"", value: None }]), Err(Error::BadChanges));
}

#[test]
fn removal_of_a_hidden_key_is_not_covered() {
    let (state, root) = small();
    let proof = show(&state, &Question::default().key(b"b"));
    let shown = Proof::decode(&proof).unwrap().verify(&root).unwrap();
    for key in [&b"a"[..], b"ab", b"ad"] {
        let applied = shown.apply(&[Change { key, value: None }]);
        assert!(matches!(applied, Err(Error::NotCovered { .. })), "{key:?} {applied:?}");
    }
    assert_eq!(shown.apply(&[Change { key: b"c", value: None }]), Ok(root));
}
