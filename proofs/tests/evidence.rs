//! Evidence is believed for what was checked and for nothing else.
//!
//! Method: every case of `evidence.json` and `evidence_lies.json`. Those that form, finality or inclusion
//! must refuse are named here; all others pass these two levels and must say that nobody looked further.
#![allow(clippy::unwrap_used)]

mod signers;

use anwansi_proofs::{
    Error, Evidence, Finding, Header, Level, LogHash, LogProof, Note, Part, Policy, checkpoint_body,
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

/// The cases that need no votes to be refused.
const REFUSED: [&str; 11] = [
    // evidence.json
    "header of another version",
    "index of another version",
    "checkpoint's root changed",
    // evidence_lies.json
    "a state proof of another version",
    "a tasks proof of another version",
    "another format",
    "a header of another origin",
    "unknown name",
    "unknown name in a part",
    "a part twice",
    "two forks",
];

#[test]
fn levels_are_verified_refused_or_not_checked() {
    let mut refused = Vec::new();
    for vectors in [read("evidence.json"), read("evidence_lies.json")] {
        let policy = policy(&vectors);
        for case in vectors["cases"].as_array().unwrap() {
            let comment = case["comment"].as_str().unwrap();
            let json = case["evidence"].to_string();
            let checked = Evidence::parse(json.as_bytes());
            let checked = checked.as_ref().map_err(|error| *error).and_then(|it| it.check(&policy));
            let Ok(checked) = checked else {
                assert!(case["levels"].is_null(), "{comment}");
                refused.push(comment.to_string());
                continue;
            };
            let named = ["finality", "inclusion", "agreement", "aggregate"];
            let levels = [Level::Finality, Level::Inclusion, Level::Agreement, Level::Aggregate];
            let members = ["spec", "pledges", "votes", "outputs"];
            let votes = members.iter().any(|name| case["evidence"].get(name).is_some());
            for (name, level) in named.into_iter().zip(levels) {
                let finding = checked.finding(level);
                if level >= Level::Agreement {
                    assert_ne!(finding, Finding::Verified, "{comment}");
                    assert!(votes || finding == Finding::NotShown, "{comment}");
                    assert!(!votes || level == Level::Aggregate || finding == Finding::NotChecked);
                } else if let Some(reached) = case["levels"].as_array() {
                    let reached = reached.contains(&json!(name));
                    assert_eq!(finding == Finding::Verified, reached, "{comment} {name}");
                }
            }
        }
    }
    refused.sort();
    let mut expected = REFUSED.to_vec();
    expected.sort_unstable();
    assert_eq!(refused, expected);
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
    assert!(checked.earlier().is_empty() && checked.version().tasks().is_none());
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
fn evidence_for_another_log_is_refused() {
    let (_, evidence) = one_key();
    let other = policy(&read("evidence_lies.json"));
    let evidence = Evidence::parse(evidence.to_string().as_bytes()).unwrap();
    assert!(matches!(evidence.check(&other), Err(Error::NotSigned | Error::OriginMismatch)));
}

#[test]
fn proof_of_another_version_of_the_same_log_is_refused() {
    let (policy, evidence) = one_key();
    let text = |name: &str| evidence[name].as_str().unwrap().to_string();
    let log = read("log.json");
    let header = log["headers"][2].as_str().unwrap().to_string();
    let part = Part { header, finality: text("finality"), state: None, tasks: None };
    assert!(matches!(Evidence::new(part).check(&policy), Err(Error::NotInLog { .. })));
    // The empty tree's proof is well formed, and leads to another root.
    let state = Some(vec![0]);
    let part = Part { header: text("header"), finality: text("finality"), state, tasks: None };
    assert!(matches!(Evidence::new(part).check(&policy), Err(Error::RootMismatch { .. })));
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
    assert!(matches!(misplaced.check(&policy), Err(Error::NotInLog { index: 2, size: 2 })));
    let stranger = Header::first("example.org/other".parse().unwrap(), 7).next(empty, empty, 8);
    let stranger = second_entry(&stranger.to_string(), &log);
    assert!(matches!(stranger.check(&policy), Err(Error::OriginMismatch)));
}
