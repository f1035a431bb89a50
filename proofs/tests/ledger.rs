//! Specifications, draws, pledges, votes and records are those of the vectors, to the byte.
//!
//! Method: everything in `ledger.json` computed again from as little of it as possible; then each rule for
//! specifications broken by name.
#![allow(clippy::unwrap_used)]

use anwansi_proofs::{
    Apply, Digest, Draft, Drawn, Error, Header, Input, Next, NodeKey, Place, Pledge, Spec,
    SpecFault, Tally, TaskPolicy, Vote, pledges_root,
    record::{TaskRecord, TransitionRecord, task_key},
    votes_root,
};
use serde_json::Value;

fn vectors() -> Value {
    let path = format!("{}/vectors/ledger.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_string()
}

fn nodes(value: &Value) -> Vec<NodeKey> {
    value.as_array().unwrap().iter().map(|node| text(node).parse().unwrap()).collect()
}

fn spec(vectors: &Value) -> Spec {
    Spec::parse(text(&vectors["spec"]).into_bytes()).unwrap()
}

fn place(vectors: &Value, task: u32, round: u32) -> Place {
    let opened = text(&vectors["o"]).parse().unwrap();
    Place { opened, transition: spec(vectors).id(), task, round }
}

fn votes(vectors: &Value, task: u32) -> Vec<Vote> {
    let votes = vectors["votes"][task.to_string()].as_array().unwrap();
    let bytes = votes.iter().flat_map(|vote| hex::decode(text(vote)).unwrap()).collect::<Vec<_>>();
    Vote::read_all(&bytes).unwrap()
}

#[test]
fn specification_reads_and_writes_as_the_vector() {
    let vectors = vectors();
    let spec = spec(&vectors);
    assert_eq!(spec.id().to_string(), text(&vectors["transition"]));
    assert_eq!(spec.program, "wordcount/1");
    assert_eq!(spec.inputs, [Input::Data(b"a b a".to_vec()), Input::Data(b"b c".to_vec())]);
    assert_eq!((spec.tasks(), spec.apply, spec.spread), (2, Apply::Replace, true));
    assert_eq!(Spec::new(&spec).unwrap(), spec);
    let opened: Header = text(&vectors["opened_header"]).parse().unwrap();
    assert_eq!(Digest::of(opened.to_string().as_bytes()).to_string(), text(&vectors["o"]));
}

#[test]
fn draws_are_those_of_the_vector() {
    let vectors = vectors();
    let registry = nodes(&vectors["registry"]);
    for task in 0..2 {
        let mut drawn = Drawn::default();
        let all = drawn.draw(&place(&vectors, task, 0), &registry, 3).unwrap();
        let mut all = all;
        for round in 1.. {
            let closed = format!("{task}/{round}");
            if vectors["pledges_root"].get(closed).is_none() {
                break;
            }
            let place = place(&vectors, task, round);
            let left = nodes(&vectors["drawn"][task.to_string()]).len() - all.len();
            // Two rounds follow, of two nodes and of one.
            all.extend(drawn.draw(&place, &registry, left.min(3 - round as usize)).unwrap());
        }
        assert_eq!(all, nodes(&vectors["drawn"][task.to_string()]));
        assert_eq!(drawn.count(), all.len());
    }
    let first = nodes(&vectors["drawn"]["0"])[0];
    let seed = place(&vectors, 0, 0).noise_seed(&first);
    assert_eq!(seed.to_string(), text(&vectors["noise_seed_task_0_round_0_first_node"]));
}

#[test]
fn forty_of_a_thousand_are_drawn_as_in_the_vector() {
    let vectors = vectors();
    let draw = &vectors["draw_40_of_1000"];
    let mut registry = (0..1000)
        .map(|i| NodeKey(Digest::of(format!("node {i}").as_bytes()).0))
        .collect::<Vec<_>>();
    registry.sort_unstable();
    let number = |name: &str| u32::try_from(draw[name].as_u64().unwrap()).unwrap();
    let place = place(&vectors, number("task"), number("round"));
    assert_eq!(Drawn::default().draw(&place, &registry, 40).unwrap(), nodes(&draw["drawn"]));
}

/// The rule in its own words: sort what is left, shuffle it from the front.
#[test]
fn draws_over_many_rounds_are_those_of_a_plain_shuffle() {
    let vectors = vectors();
    let mut random = fastrand::Rng::with_seed(7);
    for size in [1, 2, 3, 16, 17, 100] {
        let mut registry =
            (0..size).map(|_| NodeKey(core::array::from_fn(|_| random.u8(..)))).collect::<Vec<_>>();
        registry.sort_unstable();
        let mut left = registry.clone();
        let mut drawn = Drawn::default();
        for round in 0.. {
            let place = place(&vectors, 3, round);
            let count = random.usize(1..=3);
            let before = drawn.clone();
            let Some(nodes) = drawn.draw(&place, &registry, count) else {
                assert!(count > left.len());
                assert_eq!(drawn, before, "a draw that fails changes nothing");
                break;
            };
            left.sort_unstable();
            let mut hasher = blake3_xof(&place);
            for at in 0..count {
                let span = (left.len() - at) as u128;
                let word = loop {
                    let word = u128::from(hasher());
                    if word < (1 << 64) / span * span {
                        break word;
                    }
                };
                left.swap(at, at + usize::try_from(word % span).unwrap());
            }
            assert_eq!(nodes, left.drain(..count).collect::<Vec<_>>());
        }
    }
}

fn blake3_xof(place: &Place) -> impl FnMut() -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"anwansi/draw/v1\n");
    hasher.update(&place.opened.0);
    hasher.update(&place.transition.0.0);
    hasher.update(&place.task.to_be_bytes());
    hasher.update(&place.round.to_be_bytes());
    let mut reader = hasher.finalize_xof();
    move || {
        let mut word = [0; 8];
        reader.fill(&mut word);
        u64::from_le_bytes(word)
    }
}

#[test]
fn votes_are_signed_open_their_pledges_and_lead_to_the_roots_of_the_vector() {
    let vectors = vectors();
    for task in 0..2 {
        let votes = votes(&vectors, task);
        assert_eq!(votes_root(&votes).to_string(), text(&vectors["votes_root"][task.to_string()]));
        for vote in &votes {
            let here = place(&vectors, task, vote.round);
            assert!(vote.pledge.is_signed(&here) && vote.opens(&here));
            let elsewhere = [
                Place { task: task + 1, ..here },
                Place { round: vote.round + 1, ..here },
                Place { opened: Digest::ZERO, ..here },
            ];
            for place in elsewhere {
                assert!(!vote.pledge.is_signed(&place) && !vote.opens(&place));
            }
            assert!(!Vote { round: vote.round + 1, ..*vote }.opens(&here));
            let bytes = vote.to_bytes();
            assert_eq!(Vote::read_all(&bytes).unwrap(), [*vote]);
            assert!(Vote::read_all(&bytes[1..]).is_none());
            let leaf = vote.pledge.to_bytes();
            assert_eq!(Pledge::read_all(&leaf).unwrap(), [vote.pledge]);
            assert!(Pledge::read_all(&leaf[..127]).is_none());
        }
    }
    // In task 1 all who pledged have voted.
    let pledges = votes(&vectors, 1).iter().map(|vote| vote.pledge).collect::<Vec<_>>();
    assert_eq!(pledges_root(&pledges).to_string(), text(&vectors["pledges_root"]["1/0"]));
    assert_eq!(votes_root(&[]).to_string(), text(&vectors["no_votes_root"]));
    assert_eq!(pledges_root(&[]), votes_root(&[]));
}

#[test]
fn records_read_and_write_as_the_vector() {
    let vectors = vectors();
    let id = spec(&vectors).id();
    let record = |key: &[u8]| text(&vectors["records"][hex::encode(key)]).into_bytes();
    let decided = record(&id.0.0);
    let transition = TransitionRecord::parse(&decided).unwrap();
    assert_eq!(transition.to_bytes(), decided);
    for task in 0..2 {
        let bytes = record(&task_key(&id, task));
        let read = TaskRecord::parse(&bytes).unwrap();
        assert_eq!(read.to_bytes(), bytes);
        assert_eq!(read.votes(), votes(&vectors, task).len() as u64);
        for cut in 0..bytes.len() {
            assert!(TaskRecord::parse(&bytes[..cut]).is_none());
        }
    }
    assert!(TaskRecord::parse(&decided).is_none() && TransitionRecord::parse(b"{}").is_none());
}

#[test]
fn the_rule_decides_the_vectors_tasks() {
    let vectors = vectors();
    let policy = spec(&vectors).policy;
    let mut tally = Tally::default();
    let votes = votes(&vectors, 0);
    let round =
        |round| votes.iter().filter(move |vote| vote.round == round).map(|vote| &vote.digest);
    // Two agree and one dissents; one more is missing, so that the next round is of two.
    assert_eq!(tally.end_round(3, round(0), 17, &policy), Next::Draw(2));
    assert_eq!(tally.end_round(2, round(1), 15, &policy), Next::Draw(1));
    assert_eq!(tally.end_round(1, round(2), 14, &policy), Next::Final);
    assert_eq!((tally.drawn(), tally.ranks()[0].1, tally.ranks()[1].1), (6, 4, 1));
}

#[test]
fn the_rule_stops_at_each_limit() {
    let policy = TaskPolicy { nodes_max: 5, missed_max: 2, ..TaskPolicy::with_lead(3) };
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let end = |drawn, votes: &[&Digest], left| {
        Tally::default().end_round(drawn, votes.iter().copied(), left, &policy)
    };
    assert_eq!(end(3, &[&a, &a, &a], 0), Next::Final);
    assert_eq!(end(3, &[&a, &a], 1), Next::Draw(1));
    assert_eq!(end(3, &[&a, &a], 0), Next::NoAgreement, "nobody is left");
    assert_eq!(end(3, &[&a, &a, &b], 9), Next::Draw(2), "as many as the policy allows");
    assert_eq!(end(3, &[&a, &b], 9), Next::NoAgreement, "one more than the policy allows");
    assert_eq!(end(3, &[&a], 9), Next::Draw(2), "as many missed as the policy allows");
    assert_eq!(end(3, &[], 9), Next::NoAgreement, "too many missed");
    assert_eq!(end(u32::MAX, &[&a], usize::MAX), Next::NoAgreement);
    let tie = Tally::default();
    assert!(tie.ranks().is_empty());
    let mut tie = tie;
    let _ = tie.end_round(2, [&a, &b], 9, &policy);
    assert_eq!(tie.ranks()[0].0, a.min(b), "among equals the smaller digest is first");
}

fn draft() -> Draft {
    Draft {
        program: "wordcount/1".into(),
        code: None,
        nonce: String::new(),
        inputs: vec![Input::Blob(Digest::ZERO)],
        fold: "sum".into(),
        into: "k".into(),
        apply: Apply::Add,
        spread: false,
        policy: TaskPolicy::default(),
    }
}

#[test]
fn specifications_that_break_a_rule_are_refused_with_it() {
    let fault = |change: &dyn Fn(&mut Draft)| {
        let mut draft = draft();
        change(&mut draft);
        match Spec::new(&draft) {
            Ok(_) => None,
            Err(Error::Spec(fault)) => Some(fault),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(fault(&|_| ()), None);
    assert_eq!(fault(&|draft| draft.code = Some(Digest::ZERO)), None);
    assert_eq!(fault(&|draft| draft.inputs.clear()), Some(SpecFault::NoInputs));
    assert_eq!(fault(&|draft| draft.into.clear()), Some(SpecFault::Into));
    assert_eq!(fault(&|draft| draft.into = "\0node/x".into()), Some(SpecFault::Into));
    assert_eq!(fault(&|draft| draft.into = "k".repeat(1024)), None);
    assert_eq!(fault(&|draft| draft.into = "k".repeat(1025)), Some(SpecFault::Into));
    assert_eq!(fault(&|draft| draft.policy.lead = 0), Some(SpecFault::NoLead));
    assert_eq!(fault(&|draft| draft.policy.error_ppm = 499_999), None);
    let error_ppm = 500_000;
    let refused = Some(SpecFault::ErrorRate { error_ppm });
    assert_eq!(fault(&|draft| draft.policy.error_ppm = error_ppm), refused);
    assert_eq!(fault(&|draft| draft.policy.nodes_max = 6), None);
    let refused = Some(SpecFault::TooFewNodes { nodes_max: 5, lead: 6 });
    assert_eq!(fault(&|draft| draft.policy.nodes_max = 5), refused);
}

#[test]
fn specifications_with_other_members_are_refused() {
    let good = String::from_utf8(Spec::new(&draft()).unwrap().bytes().to_vec()).unwrap();
    let fault = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        match Spec::parse(good.replacen(from, to, 1).into_bytes()) {
            Err(Error::Spec(fault)) => fault,
            other => panic!("{from} {to}: {other:?}"),
        }
    };
    let member = |name| SpecFault::Member { name };
    assert_eq!(fault("\"nonce\":\"\",", ""), member("nonce"));
    assert_eq!(fault("\"spread\":false", "\"spread\":0"), member("spread"));
    assert_eq!(fault("\"add\"", "\"append\""), member("apply"));
    assert_eq!(fault("\"lead\":6", "\"lead\":4294967296"), member("lead"));
    assert_eq!(fault("\"lead\":6", "\"lead\":-1"), member("lead"));
    assert_eq!(fault("{\"blob\"", "{\"blub\""), member("inputs"));
    assert_eq!(fault("0000\"}]", "000\"}]"), member("inputs"));
    assert_eq!(fault("\"fold\"", "\"code\":\"00\",\"fold\""), member("code"));
    assert_eq!(fault("\"fold\"", "\"cost\":1,\"fold\""), SpecFault::UnknownName);
    assert_eq!(fault("\"reveal_ms\":10000", "\"reveal_ms\":10000,\"x\":1"), SpecFault::UnknownName);
    assert!(matches!(fault("\"lead\":6", "\"lead\":6.0"), SpecFault::NotCanonical { .. }));
    assert!(matches!(fault("{\"apply\"", "{ \"apply\""), SpecFault::NotCanonical { at: 1 }));
    assert!(Spec::parse(b"[]".to_vec()).is_err() && Spec::parse(Vec::new()).is_err());
}
