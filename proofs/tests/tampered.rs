//! Whatever is left out of evidence, put in or changed on the way is noticed.
//!
//! Method: honest evidence of a small ledger, and that of the vectors, with each member left out, entries that
//! belong to nothing put in, and a bit of every byte flipped.
#![allow(clippy::unwrap_used)]

mod ledger_builder;
mod signers;

use anwansi_proofs::{
    Apply, Digest, Disagreement, EARLIER_MAX, Error, Evidence, Format, Misfold, Part, Policy,
    Refused, Spot, TaskPolicy, record::Outcome,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use fastrand::Rng;
use ledger_builder::{Ledger, Plan, check, ledger, plan, policy};
use serde_json::Value;

/// The evidence as JSON, and each of its members that can be left out or is base64, by its path.
fn members(evidence: &Evidence) -> (Value, Vec<Vec<String>>) {
    fn walk(value: &Value, path: &[String], all: &mut Vec<Vec<String>>) {
        let inner: Vec<(String, &Value)> = match value {
            Value::Object(members) => members.iter().map(|(name, it)| (name.clone(), it)).collect(),
            Value::Array(parts) => {
                parts.iter().enumerate().map(|(at, it)| (at.to_string(), it)).collect()
            }
            _ => Vec::new(),
        };
        for (name, value) in inner {
            let path = [path, &[name]].concat();
            walk(value, &path, all);
            all.push(path);
        }
    }
    let json = serde_json::from_str(&evidence.to_json()).unwrap();
    let mut all = Vec::new();
    walk(&json, &[], &mut all);
    (json, all)
}

fn at<'v>(value: &'v mut Value, path: &[String]) -> &'v mut Value {
    path.iter().fold(value, |value, name| match value {
        Value::Array(parts) => &mut parts[name.parse::<usize>().unwrap()],
        value => value.get_mut(name).unwrap(),
    })
}

fn refused(json: &Value, policy: &Policy) -> bool {
    Evidence::parse(json.to_string().as_bytes()).map_or(true, |it| it.check(policy).is_err())
}

#[test]
fn nothing_can_be_left_out() {
    for seed in 0..40 {
        let rng = &mut Rng::with_seed(seed);
        let ledger = Ledger::new(&Plan::any(rng), rng);
        let trusted = policy();
        let (json, paths) = members(&ledger.evidence());
        for path in paths {
            let (name, above) = path.split_last().unwrap();
            let mut less = json.clone();
            match at(&mut less, above) {
                Value::Array(parts) => drop(parts.remove(name.parse::<usize>().unwrap())),
                object => drop(object.as_object_mut().unwrap().remove(name)),
            }
            let needless = match name.as_str() {
                // Without outputs less is claimed; those that lost, and those of what was not applied, prove
                // nothing.
                "outputs" => true,
                "state" if above.is_empty() => !ledger.written.is_empty(),
                name if above == ["outputs"] => {
                    let firsts = (0..ledger.spec.tasks()).map(|task| ledger.task(task).digest);
                    let first = firsts.flatten().any(|digest| digest.to_string() == name);
                    let folded = ledger.record().outcome == Outcome::Applied;
                    !(first && folded && ledger.spec.fold != "median")
                }
                _ => false,
            };
            assert!(refused(&less, &trusted) || needless, "{seed} {path:?}");
        }
    }
}

#[test]
fn parts_are_below_the_main_one_and_each_once() {
    let ledger = ledger(&plan());
    let (main, earlier) = ledger.parts();
    let refused = |main: &Part, earlier: &[&Part]| {
        let earlier = earlier.iter().copied().cloned();
        let evidence = Evidence::new(main.clone()).with_earlier(earlier);
        evidence.check(&policy()).map(drop)
    };
    let disagree = |at| Err(Refused::Finality { earlier: Some(at), error: Error::PartsDisagree });
    assert_eq!(refused(&main, &[&earlier[1], &earlier[0]]), Ok(()), "in any order");
    assert_eq!(refused(&main, &[&earlier[0], &earlier[0]]), disagree(1));
    assert_eq!(refused(&main, &[&earlier[0], &main]), disagree(1));
    assert_eq!(refused(&earlier[1], &[&earlier[0]]), Ok(()));
    assert_eq!(refused(&earlier[0], &[&earlier[1]]), disagree(0));
    let nothing = Part { header: String::new(), finality: String::new(), state: None, tasks: None };
    let many = vec![&nothing; EARLIER_MAX + 1];
    let error = Error::Malformed { format: Format::Evidence, at: 0 };
    assert_eq!(refused(&main, &many), Err(Refused::Finality { earlier: None, error }));
    let error = Error::Malformed { format: Format::LogProof, at: 1 };
    assert_eq!(refused(&main, &many[1..]), Err(Refused::Finality { earlier: Some(0), error }));
}

#[test]
fn nothing_can_be_put_in() {
    let ledger = ledger(&plan());
    let trusted = policy();
    let (json, _) = members(&ledger.evidence());
    for (member, name) in [
        ("votes", "2"),
        ("votes", "4294967295"),
        ("pledges", "0/1"),
        ("pledges", "2/0"),
        ("outputs", &Digest::of(&[]).to_string()),
    ] {
        let mut more = json.clone();
        more[member][name] = "".into();
        let evidence = Evidence::parse(more.to_string().as_bytes()).unwrap();
        match check(&evidence, &trusted) {
            Err(Refused::Agreement { at: Spot::Transition, fault }) => {
                assert!(matches!(fault, Disagreement::LeftOver { member: it } if it == member));
            }
            Err(Refused::Aggregate(Misfold::NotVotedFor { .. })) => assert_eq!(member, "outputs"),
            other => panic!("{member} {name}: {other:?}"),
        }
    }
    for (member, bytes) in [("pledges", 1), ("pledges", 127), ("votes", 1), ("votes", 195)] {
        for task in ["0", "1"] {
            let name = if member == "votes" { task.to_string() } else { format!("{task}/0") };
            let mut more = json.clone();
            let leaves = STANDARD.decode(more[member][&name].as_str().unwrap()).unwrap();
            more[member][&name] = STANDARD.encode([leaves, vec![0; bytes]].concat()).into();
            let evidence = Evidence::parse(more.to_string().as_bytes()).unwrap();
            let leaves = matches!(
                check(&evidence, &trusted),
                Err(Refused::Agreement { fault: Disagreement::Leaves { member: it }, .. }) if it == member
            );
            assert!(leaves, "{member} {name} {bytes}");
        }
    }
}

#[test]
fn every_byte_of_every_member_counts() {
    let mut cases = Vec::new();
    for (file, at) in [("evidence", 3), ("evidence_lies", 0)] {
        let path = format!("{}/vectors/{file}.json", env!("CARGO_MANIFEST_DIR"));
        let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let trusted = format!("log {}\nquorum none\n", vectors["log_vkey"].as_str().unwrap());
        let evidence = Evidence::parse(vectors["cases"][at]["evidence"].to_string().as_bytes());
        cases.push((evidence.unwrap(), Policy::parse(&trusted).unwrap()));
    }
    let small = Plan { policy: TaskPolicy::with_lead(1), apply: Apply::Add, nodes: 3, ..plan() };
    cases.push((ledger(&small).evidence(), policy()));
    let mut random = Rng::with_seed(1);
    for (evidence, trusted) in cases {
        let (json, paths) = members(&evidence);
        let mut changed = 0;
        for path in paths {
            let mut json = json.clone();
            let Some(member) = at(&mut json, &path).as_str().map(String::from) else { continue };
            let is_text = matches!(path.last().unwrap().as_str(), "format" | "header" | "finality");
            let mut bytes =
                if is_text { member.clone().into() } else { STANDARD.decode(&member).unwrap() };
            for byte in 0..bytes.len() {
                let bit = 1 << random.u8(..8);
                bytes[byte] ^= bit;
                let text = if is_text {
                    String::from_utf8(bytes.clone()).ok()
                } else {
                    Some(STANDARD.encode(&bytes))
                };
                bytes[byte] ^= bit;
                let Some(text) = text else { continue };
                *at(&mut json, &path) = text.into();
                assert!(refused(&json, &trusted), "{path:?} byte {byte} by {bit}");
                changed += 1;
            }
            *at(&mut json, &path) = member.into();
            assert!(!refused(&json, &trusted));
        }
        assert!(changed > 3000, "{changed}");
    }
}
