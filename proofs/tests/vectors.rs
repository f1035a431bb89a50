//! Every vector of `vectors/` that concerns trees and proofs, through the public functions.
//!
//! Method: the roots and the smallest proofs are recomputed and compared byte by byte; each proof is
//! decoded, verified and asked what the vector says it answers and what it does not.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod reference;

use anwansi_proofs::{
    Change, Digest, Entry, Error, Header, Proof, Question, Root, prove, prove_update, tree::Sorted,
};
use reference::State;
use serde_json::Value;

fn read(name: &str) -> Value {
    let path = format!("{}/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).unwrap()
}

fn maybe(value: &Value) -> Option<Vec<u8>> {
    (!value.is_null()).then(|| bytes(value))
}

fn root(value: &Value) -> Root {
    text(value).parse().unwrap()
}

fn sorted(state: &State) -> Sorted<&Vec<u8>, &Vec<u8>> {
    Sorted::new(state.iter().collect())
}

#[test]
fn tree_roots_proofs_and_answers() {
    let mut proofs = 0;
    for case in list(&read("tree.json")["cases"]) {
        let entries = list(&case["entries"]).iter();
        let state: State = entries.map(|entry| (bytes(&entry[0]), bytes(&entry[1]))).collect();
        let (tree, root) = (sorted(&state), root(&case["root"]));
        assert_eq!(tree.root(), root, "{}", case["comment"]);
        assert_eq!(reference::root(&state), root.0.0, "{}", case["comment"]);
        for shown in list(&case["proofs"]) {
            let mut question = Question::default();
            let mut keys = Vec::new();
            if let Some(key) = shown.get("get") {
                keys.push(bytes(key));
            }
            if let Some(all) = shown.get("get_all") {
                keys.extend(list(all).iter().map(bytes));
            }
            for key in &keys {
                question = question.key(key);
            }
            let range = shown.get("range").map(|range| (bytes(&range[0]), maybe(&range[1])));
            if let Some((start, end)) = &range {
                question = question.range(start, end.as_deref());
            }
            let proof = bytes(&shown["proof"]);
            let made = prove(&tree, &question).unwrap();
            assert_eq!(hex::encode(&made), hex::encode(&proof), "{}", case["comment"]);

            let answer = Proof::decode(&proof).unwrap().verify(&root).unwrap();
            for key in &keys {
                assert_eq!(answer.get(key), Ok(state.get(key).map(Vec::as_slice)));
            }
            if let Some(value) = shown.get("value") {
                assert_eq!(answer.get(&keys[0]), Ok(maybe(value).as_deref()));
            }
            if let Some((start, end)) = range {
                let entries = answer.range(&start, end.as_deref()).unwrap();
                let in_range =
                    |key: &[u8]| key >= &start[..] && end.as_ref().is_none_or(|end| key < &end[..]);
                let expected = state.iter().filter(|(key, _)| in_range(key));
                assert!(
                    expected.map(|(key, value)| Entry { key, value }).eq(entries.iter().copied())
                );
                match &shown["entries"] {
                    Value::Number(count) => {
                        assert_eq!(entries.len() as u64, count.as_u64().unwrap());
                    }
                    listed => assert!(
                        list(listed).iter().map(|entry| (bytes(&entry[0]), bytes(&entry[1]))).eq(
                            entries.iter().map(|entry| (entry.key.to_vec(), entry.value.to_vec()))
                        )
                    ),
                }
            }
            for key in shown.get("not_covered").map_or(&[][..], list) {
                let answer = answer.get(&bytes(key));
                assert!(
                    matches!(answer, Err(Error::NotCovered { .. })),
                    "{} {key}",
                    case["comment"]
                );
            }
            proofs += 1;
        }
    }
    assert_eq!(proofs, 239, "the number of proofs in the file");
}

#[test]
fn steps_from_root_to_root() {
    let mut state = State::new();
    let vectors = read("steps.json");
    for step in list(&vectors["steps"]) {
        let (before, after) = (root(&step["before"]), root(&step["after"]));
        let changes = list(&step["changes"]);
        let changes =
            changes.iter().map(|change| (bytes(&change[0]), maybe(&change[1]))).collect::<Vec<_>>();
        let changes = changes
            .iter()
            .map(|(key, value)| Change { key, value: value.as_deref() })
            .collect::<Vec<_>>();
        assert_eq!(sorted(&state).root(), before);
        let proof = bytes(&step["proof"]);
        assert_eq!(
            hex::encode(prove_update(&sorted(&state), &changes).unwrap()),
            hex::encode(&proof)
        );
        let shown = Proof::decode(&proof).unwrap().verify(&before).unwrap();
        assert_eq!(shown.apply(&changes), Ok(after));
        for change in changes {
            match change.value {
                Some(value) => state.insert(change.key.to_vec(), value.to_vec()),
                None => state.remove(change.key),
            };
        }
        assert_eq!(reference::root(&state), after.0.0);
    }
}

#[test]
fn no_refused_proof_is_decoded() {
    for case in list(&read("refuse.json")["cases"]) {
        let proof = bytes(&case["proof"]);
        let refused = Proof::decode(&proof).err();
        assert!(matches!(refused, Some(Error::Malformed { .. })), "{}", case["comment"]);
    }
}

#[test]
fn no_refused_header_is_read() {
    for case in list(&read("refuse_headers.json")["cases"]) {
        let refused = text(&case["header"]).parse::<Header>().err();
        assert!(matches!(refused, Some(Error::Malformed { .. })), "{}", case["comment"]);
    }
}

#[test]
fn headers_are_read_written_and_chained() {
    let log = read("log.json");
    let mut before: Option<Header> = None;
    for (header, digest) in list(&log["headers"]).iter().zip(list(&log["header_digests"])) {
        let read: Header = text(header).parse().unwrap();
        assert_eq!(read.to_string(), text(header));
        assert_eq!(read.digest(), text(digest).parse::<Digest>().unwrap());
        if let Some(before) = before {
            read.follows(&before).unwrap();
            assert!(before.follows(&read).is_err());
        }
        before = Some(read);
    }
}
