//! Evidence is believed for what was checked and for nothing else.
//!
//! Method: every case of `evidence.json` and `evidence_lies.json` reaches the levels that it names, or is
//! refused by the level that is named here.
#![allow(clippy::unwrap_used)]

mod signers;

use std::collections::BTreeMap;

use anwansi_proofs::{
    Error, Evidence, EvidenceStart, Finding, Header, Level, LogHash, LogProof, Note, Part, Policy,
    Refused, checkpoint_body,
};
use serde_json::{Value, json};

fn read(name: &str) -> Value {
    let path = format!("{}/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn policy(vectors: &Value) -> Policy {
    let text = format!("log {}\nquorum none\n", vectors["log_vkey"].as_str().unwrap());
    Policy::parse(&text).unwrap()
}

/// Who refuses each case, by the level; those of the form are refused before there are levels.
const REFUSED: [(Option<Level>, &[&str]); 5] = [
    (None, &["another format", "unknown name", "unknown name in a part"]),
    (
        Some(Level::Finality),
        &[
            // evidence.json
            "header of another version",
            "index of another version",
            "checkpoint's root changed",
            // evidence_lies.json
            "a header of another origin",
            "a part twice",
            "two forks",
        ],
    ),
    (
        Some(Level::Inclusion),
        &["a state proof of another version", "a tasks proof of another version"],
    ),
    (
        Some(Level::Agreement),
        &[
            // evidence.json
            "a vote's digest changed",
            "a vote's signature changed",
            "a pledge changed",
            "the dissenting vote left out",
            "a vote twice",
            "a silent node's round left out",
            "another spec",
            "spec with white space",
            "registry cut",
            "registry of another version",
            "a closing left out",
            "one task's record cut away",
            // evidence_lies.json
            "agree one too high",
            "dissent hidden",
            "missed hidden",
            "fewer drawn",
            "no_reveal called a bad reveal and more",
            "final one vote short",
            "no agreement, though final",
            "no agreement too early",
            "expired, though final",
            "another round after the decision",
            "an idle round after the decision",
            "another root of votes",
            "a vote of a round that is not there",
            "a vote without a pledge",
            "the server's friends drawn",
            "a stranger drawn",
            "more drawn than the rule",
            "a vote signed by nobody",
            "a pledge that opens to something else",
            "a salt of another pledge",
            "closing with another count",
            "closing of another round",
            "closing of another task",
            "closing with another root",
            "closing before the opening",
            "closing in the deciding version",
            "opened elsewhere",
            "open record counts other tasks",
            "open record of another id",
            "record counts other tasks",
            "record of another fold",
            "record of another key",
            "a task more",
            "applied without a value",
            "cancelled after votes",
            "a name more in a record",
            "lead 0",
            "spec missing",
            "votes missing",
            "pledges missing",
        ],
    ),
    (
        Some(Level::Aggregate),
        &[
            // evidence.json
            "output changed",
            "a member of the aggregate cut away",
            // evidence_lies.json
            "another value",
            "another state",
            "added to nothing",
            "a spread member missing",
            "outputs missing",
            "the version before missing",
        ],
    ),
];

const LEVELS: [Level; 4] = [Level::Finality, Level::Inclusion, Level::Agreement, Level::Aggregate];

#[test]
fn each_case_reaches_its_levels_or_is_refused_by_its_level() {
    let mut expected = REFUSED
        .iter()
        .flat_map(|(level, comments)| comments.iter().map(|comment| (comment.to_string(), *level)))
        .collect::<BTreeMap<_, _>>();
    for vectors in [read("evidence.json"), read("evidence_lies.json")] {
        let policy = policy(&vectors);
        for case in vectors["cases"].as_array().unwrap() {
            let comment = case["comment"].as_str().unwrap();
            let evidence = Evidence::parse(case["evidence"].to_string().as_bytes());
            let checked = match &evidence {
                Ok(evidence) => evidence.check(&policy).map_err(|refused| Some(refused.level())),
                Err(_) => Err(None),
            };
            match checked {
                Ok(checked) => {
                    let named = LEVELS.map(|level| format!("{level:?}").to_lowercase());
                    let verified = LEVELS.map(|level| checked.finding(level) == Finding::Verified);
                    let verified = named.iter().zip(verified).filter(|(_, verified)| *verified);
                    let verified = verified.map(|(name, _)| name.as_str()).collect::<Vec<_>>();
                    assert_eq!(json!(verified), case["levels"], "{comment}");
                    assert_eq!(checked.agreed().is_some(), verified.contains(&"agreement"));
                    assert_eq!(checked.value().is_some(), verified.contains(&"aggregate"));
                }
                Err(level) => {
                    assert!(case["levels"].is_null(), "{comment}");
                    assert_eq!(expected.remove(comment), Some(level), "{comment}");
                }
            }
        }
    }
    assert_eq!(expected, BTreeMap::new(), "not refused");
}

#[test]
fn evidence_is_written_as_it_was_read() {
    for case in read("evidence.json")["cases"].as_array().unwrap() {
        let evidence = Evidence::parse(case["evidence"].to_string().as_bytes()).unwrap();
        let written: Value = serde_json::from_str(&evidence.to_json()).unwrap();
        assert_eq!(written, case["evidence"]);
    }
}

fn one_key() -> (Policy, Value) {
    let vectors = read("evidence.json");
    (policy(&vectors), vectors["cases"][0]["evidence"].clone())
}

#[test]
fn checked_evidence_answers_for_its_key_alone() {
    let (policy, evidence) = one_key();
    let evidence = Evidence::parse(evidence.to_string().as_bytes()).unwrap();
    let checked = evidence.check(&policy).unwrap();
    assert_eq!(checked.checkpoint().size(), 7);
    assert_eq!(checked.version().header().version().0, 1);
    assert!(checked.earlier().len() == 0 && checked.version().tasks().is_none());
    let state = checked.version().state().unwrap();
    assert_eq!(state.get(b"greeting"), Ok(Some(&b"hello"[..])));
    assert!(matches!(state.range(b"", None), Err(Error::NotCovered { .. })));
}

#[test]
fn names_given_twice_or_unknown_or_null_are_refused() {
    let (_, evidence) = one_key();
    let text = evidence.to_string();
    let with = |more: &str| format!("{}{more}}}", text.strip_suffix('}').unwrap());
    assert!(Evidence::parse(with("").as_bytes()).is_ok());
    for more in [
        r#","state":"AA==""#,
        r#","header":"x""#,
        r#","trust":true"#,
        r#","spec":null"#,
        r#","votes":null"#,
        r#","votes":{"0":"","0":""}"#,
        &format!(r#","outputs":{{"{0}":"AA==","{0}":"AA=="}}"#, "0".repeat(64)),
        r#","votes":{"0":1}"#,
        r#","votes":[]"#,
        r#","votes":{"a":""}"#,
        r#","votes":{"01":""}"#,
        r#","votes":{"4294967296":""}"#,
        r#","pledges":{"0":""}"#,
        r#","pledges":{"0/-1":""}"#,
        r#","outputs":{"aa":""}"#,
        r#","earlier":[["",""]]"#,
        r#","spec":"AA""#,
        r#","spec":"AB==""#,
        r#","spec":"A A=""#,
        r#","earlier":[{"header":"","finality":"","state":"AA==","state":"AA=="}]"#,
    ] {
        let refused = Evidence::parse(with(more).as_bytes());
        assert!(matches!(refused, Err(Error::Malformed { .. })), "{more}");
    }
    let members = ["format", "header", "finality", "state"].map(|name| evidence[name].to_string());
    let list = format!("[{}]", members.join(","));
    assert!(Evidence::parse(list.as_bytes()).is_err(), "a list is no object");
    let digest = "0".repeat(64);
    let known =
        format!(r#","votes":{{"0":""}},"pledges":{{"0/1":""}},"outputs":{{"{digest}":""}}"#);
    assert!(Evidence::parse(with(&known).as_bytes()).is_ok());
    for cut in 0..text.len() {
        assert!(Evidence::parse(&text.as_bytes()[..cut]).is_err(), "cut at {cut}");
    }
    let behind = format!("{text} {{}}");
    assert!(Evidence::parse(behind.as_bytes()).is_err(), "something behind it");
    let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    assert!(Evidence::parse(deep.as_bytes()).is_err(), "hostile depth");
}

#[test]
fn evidence_that_begins_as_others_do_is_written_as_on_its_own() {
    // A text may hold what JSON escapes.
    let (header, finality) = ("anwansi/header/v1\nname \"é\"\n", "c2sp.org/tlog-proof@v1\n\\\n");
    let start = EvidenceStart::new(header, finality);
    for length in 0..10 {
        let proof = vec![0xfa; length];
        let (header, finality) = (header.to_owned(), finality.to_owned());
        let part = Part { header, finality, state: Some(proof.clone()), tasks: None };
        assert_eq!(start.with(&proof), Evidence::new(part).to_json());
    }
}

#[test]
fn evidence_for_another_log_is_refused() {
    let (_, evidence) = one_key();
    let other = policy(&read("evidence_lies.json"));
    let evidence = Evidence::parse(evidence.to_string().as_bytes()).unwrap();
    assert!(matches!(
        evidence.check(&other),
        Err(Refused::Finality { earlier: None, error: Error::NotSigned | Error::OriginMismatch })
    ));
}

#[test]
fn proof_of_another_version_of_the_same_log_is_refused() {
    let (policy, evidence) = one_key();
    let text = |name: &str| evidence[name].as_str().unwrap().to_string();
    let log = read("log.json");
    let header = log["headers"][2].as_str().unwrap().to_string();
    let part = Part { header, finality: text("finality"), state: None, tasks: None };
    assert!(matches!(
        Evidence::new(part).check(&policy),
        Err(Refused::Finality { earlier: None, error: Error::NotInLog { .. } })
    ));
    // The empty tree's proof is well formed, and leads to another root.
    let state = Some(vec![0]);
    let part = Part { header: text("header"), finality: text("finality"), state, tasks: None };
    assert!(matches!(
        Evidence::new(part).check(&policy),
        Err(Refused::Inclusion { earlier: None, error: Error::RootMismatch { .. } })
    ));
}

/// Evidence of the second of two entries, in a log that `by` signs, at index 1.
fn second_entry(entry: &str, by: &signers::Party) -> Evidence {
    let leaves = ["first entry", entry].map(|entry| LogHash::leaf(entry.as_bytes()));
    let root = LogHash::node(&leaves[0], &leaves[1]);
    let body = checkpoint_body(&by.name, 2, &root).unwrap();
    let note = Note::new(body.clone(), vec![by.sign(&body)]).unwrap();
    let finality = LogProof::new(1, vec![leaves[0]], note).unwrap().to_string();
    Evidence::new(Part { header: entry.into(), finality, state: None, tasks: None })
}

#[test]
fn header_at_another_index_or_of_another_origin_is_refused_though_the_log_signed_it() {
    let log = signers::log();
    let policy = Policy::of_log(log.log_key()).unwrap();
    let first = Header::first(log.name.parse().unwrap(), 7);
    let empty = first.state();
    let second = first.next(empty, empty, 8);
    let third = second.next(empty, empty, 9);
    assert!(second_entry(&second.to_string(), &log).check(&policy).is_ok());
    let misplaced = second_entry(&third.to_string(), &log);
    assert!(matches!(
        misplaced.check(&policy),
        Err(Refused::Finality { earlier: None, error: Error::NotInLog { index: 2, size: 2 } })
    ));
    let stranger = Header::first("example.org/other".parse().unwrap(), 7).next(empty, empty, 8);
    let stranger = second_entry(&stranger.to_string(), &log);
    assert!(matches!(
        stranger.check(&policy),
        Err(Refused::Finality { earlier: None, error: Error::OriginMismatch })
    ));
}
