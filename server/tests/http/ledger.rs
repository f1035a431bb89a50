//! The ledger's life over HTTP: nodes vote, transitions are decided, and their evidence is checked as a
//! client would.

use std::thread;

use anwansi_proofs::{
    BigInt, Digest, Finding, Input, Json, Level, Place, Pledge, Spec, pledges_root,
    record::{ClosingRecord, Outcome, TransitionRecord, closing_key},
};
use anwansi_server::Config;
use anwansi_store::Damage;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    Running,
    machine::{
        Node, awaited, decided, draft, open, place, progress, registered, send, submit, vote,
        wait_for, wait_for_phase,
    },
};

#[test]
fn a_transition_is_decided_by_votes_and_its_evidence_is_recounted_by_anyone() {
    let running = Running::in_memory();
    let nodes = registered(&running, 4);
    let bearer = running.bearer();
    let token = [("authorization", bearer.as_str())];
    let input = Digest::of(b"large");
    assert_eq!(running.put(&format!("/v1/blobs/{input}"), &token, b"large").status, 201);
    let mut draft = draft("", &["three"]);
    draft.inputs.push(Input::Blob(input));
    draft.code = Some(Digest::of(b"code"));
    let spec = Spec::new(&draft).unwrap();

    let submitted = submit(&running, &draft);
    assert_eq!(submitted.status, 201, "{}", submitted.text());
    let answer = submitted.json();
    assert_eq!(answer["id"], spec.id().to_string());
    assert_eq!(answer["tasks"], 2);
    let (id, opened) = (spec.id(), answer["opened"].as_u64().unwrap());
    // Two tasks of up to four nodes: each ends without agreement if the first two differ, and the next too.
    let differ = 2.0 * 0.05 * 0.95;
    let none = 1.0 - (1.0 - differ * differ) * (1.0_f64 - differ * differ);
    assert!((answer["no_agreement"].as_f64().unwrap() - none).abs() < 1e-9, "{answer} {none}");
    assert_eq!(running.get(&format!("/v1/transitions/{id}/spec")).bytes, spec.bytes());

    // Each drawn node finds what it has to do.
    let [one, two] = [0, 1].map(|task| place(&running, &id, task, 0));
    let progress = progress(&running, &id);
    assert_eq!((&progress["outcome"], &progress["opened"]), (&json!("open"), &json!(opened)));
    assert!(progress.get("decided").is_none() && progress.get("reason").is_none());
    for (at, place) in [&one, &two].into_iter().enumerate() {
        let task = &progress["tasks"][at];
        assert_eq!((&task["index"], &task["phase"]), (&json!(at), &json!("pledging")));
        assert_eq!((&task["round"], &task["votes"]), (&json!(0), &json!(0)));
        assert!((1..=30_000).contains(&task["until_ms"].as_u64().unwrap()));
        assert!(task.get("record").is_none());
        let drawn = awaited(&running, place, &nodes);
        assert_eq!(drawn.len(), 2);
        for node in drawn {
            let todo = node.todo(&running);
            let todo = todo.iter().find(|todo| todo["index"] == at).unwrap();
            assert_eq!(todo["transition"], id.to_string());
            assert_eq!((&todo["phase"], &todo["round"]), (&json!("pledge"), &json!(0)));
            assert_eq!((&todo["opened"], &todo["draws"]), (&json!(opened), &json!([2])));
            assert_eq!(todo["program"], "number/1");
            assert_eq!(todo["code"], Digest::of(b"code").to_string());
            assert!(todo.get("closed").is_none());
            let input = if at == 0 {
                json!({ "data": STANDARD.encode("three") })
            } else {
                json!({ "blob": input.to_string() })
            };
            assert_eq!(todo["input"], input);
        }
    }

    // The first task agrees at once, the second only after one of its nodes erred.
    vote(&running, &one, &nodes, b"3", b"3");
    vote(&running, &two, &nodes, b"40", b"4");
    let again = Place { round: 1, ..two };
    vote(&running, &again, &nodes, b"4", b"4");
    let progress = decided(&running, &id);
    assert_eq!(progress["outcome"], "applied", "{progress}");
    let version = progress["decided"].as_u64().unwrap();
    let (first, second) = (&progress["tasks"][0], &progress["tasks"][1]);
    assert_eq!((&first["phase"], &second["phase"]), (&json!("final"), &json!("final")));
    assert_eq!((&first["votes"], &second["votes"]), (&json!(2), &json!(4)));
    assert_eq!(first["record"]["digest"], Digest::of(b"3").to_string());
    assert_eq!((&second["record"]["agree"], &second["record"]["rounds"]), (&json!(3), &json!(2)));
    assert_eq!(second["record"]["dissent"], json!([[Digest::of(b"40").to_string(), 1]]));
    assert_eq!(progress["equivocations"], json!([]));

    // Whoever has the log's key recounts it, and finds the sum in the state.
    let path = format!("/v1/transitions/{id}/evidence");
    for (query, aggregate) in [("", Finding::NotShown), ("?outputs=true", Finding::Verified)] {
        let answer = running.get(&format!("{path}{query}"));
        let evidence = answer.evidence();
        let checked = evidence.check(&running.policy).unwrap();
        assert_eq!(checked.version().header().version().0, version);
        assert_eq!(checked.finding(Level::Agreement), Finding::Verified);
        assert_eq!(checked.finding(Level::Aggregate), aggregate);
        let agreed = checked.agreed().unwrap();
        assert_eq!((agreed.record.outcome, agreed.registered), (Outcome::Applied, 4));
        assert_eq!((agreed.tasks[0].agree, agreed.tasks[1].agree), (2, 3));
        if aggregate == Finding::Verified {
            assert_eq!(checked.value(), Some(&Json::Integer(BigInt::from(7))));
        }
        let tag = answer.header("etag").unwrap();
        let same = running.get_with(&format!("{path}{query}"), &[("if-none-match", tag)]);
        assert_eq!((same.status, same.bytes.len()), (304, 0));
    }
    let evidence = running.get("/v1/state?key=total").evidence();
    let checked = evidence.check(&running.policy).unwrap();
    assert_eq!(checked.version().state().unwrap().get(b"total").unwrap(), Some(&b"7"[..]));

    // What was sent again is answered as it was.
    let repeat = submit(&running, &draft);
    assert_eq!((repeat.status, repeat.json()), (201, answer));
}

#[test]
fn a_closing_contains_what_was_pledged_before_anything_was_revealed() {
    let running = Running::in_memory();
    let nodes = registered(&running, 3);
    let id = open(&running, &draft("", &["x"]));
    let place = place(&running, &id, 0, 0);
    let path = format!("/v1/transitions/{id}/tasks/0/pledges?round=0");
    let drawn = awaited(&running, &place, &nodes);
    for node in &drawn {
        running.get(&path).problem(409, "too-early");
        assert_eq!(node.pledge(&running, &place, b"1").status, 200);
    }
    wait_for_phase(&running, &place, "revealing");
    for node in &drawn {
        let todo = &node.todo(&running)[0];
        assert_eq!(todo["phase"], "reveal");
        let closed = todo["closed"].as_u64().unwrap();
        // The node finds its own pledge under the root in the closing's version.
        let answer = running.get(&path);
        assert!(answer.header("cache-control").unwrap().contains("immutable"));
        let leaves = STANDARD.decode(answer.json()["leaves"].as_str().unwrap()).unwrap();
        let pledges = Pledge::read_all(&leaves).unwrap();
        assert!(pledges.iter().any(|pledge| pledge.node == node.key() && pledge.is_signed(&place)));
        let question = json!({
            "version": closed, "tree": "tasks", "keys_hex": [hex::encode(closing_key(&id, 0, 0))],
        });
        let evidence = running.post("/v1/proofs", &[], question.to_string().as_bytes()).evidence();
        let checked = evidence.check(&running.policy).unwrap();
        let record = checked.version().tasks().unwrap().get(&closing_key(&id, 0, 0)).unwrap();
        let record = ClosingRecord::parse(record.unwrap()).unwrap();
        assert_eq!((record.root, record.pledges), (pledges_root(&pledges), 2));
    }
}

#[test]
fn results_are_sealed_until_the_decision() {
    let running = Running::in_memory();
    let nodes = registered(&running, 4);
    let id = open(&running, &draft("", &["x"]));
    let first = place(&running, &id, 0, 0);
    let (wrong, right) = (b"wrong-but-json".as_slice(), b"12345".as_slice());
    vote(&running, &first, &nodes, wrong, right);
    let second = Place { round: 1, ..first };
    wait_for_phase(&running, &second, "pledging");
    let sealed = || {
        for result in [wrong, right] {
            let blob = running.get(&format!("/v1/blobs/{}", Digest::of(result)));
            blob.problem(404, "no-such-blob");
        }
        running.get(&format!("/v1/transitions/{id}/evidence")).problem(409, "not-decided");
        let progress = progress(&running, &id).to_string();
        for result in [wrong, right] {
            assert!(!progress.contains(&Digest::of(result).to_string()), "{progress}");
        }
    };
    sealed();
    let drawn = awaited(&running, &second, &nodes);
    for node in &drawn {
        assert_eq!(node.pledge(&running, &second, right).status, 200);
    }
    wait_for_phase(&running, &second, "revealing");
    assert_eq!(drawn[0].reveal(&running, &second, right).status, 200);
    sealed();
    assert_eq!(drawn[1].reveal(&running, &second, right).status, 200);
    assert_eq!(decided(&running, &id)["outcome"], "applied");
    for result in [wrong, right] {
        let digest = Digest::of(result);
        let blob = running.get(&format!("/v1/blobs/{digest}"));
        assert_eq!((blob.status, &blob.bytes[..]), (200, result));
        assert_eq!(blob.header("content-type"), Some("application/octet-stream"));
        assert_eq!(blob.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(blob.header("etag"), Some(format!("\"{digest}\"").as_str()));
        let tag = [("if-none-match", blob.header("etag").unwrap())];
        assert_eq!(running.get_with(&format!("/v1/blobs/{digest}"), &tag).status, 304);
    }
}

#[test]
fn what_nodes_repeat_is_answered_as_the_first_was() {
    let running = Running::in_memory();
    let nodes = registered(&running, 2);
    let id = open(&running, &draft("", &["x"]));
    let place = place(&running, &id, 0, 0);
    let twice = |send: &dyn Fn() -> super::Answer| {
        let (first, second) = (send(), send());
        assert_eq!((first.status, first.json()), (200, json!({ "taken": true })));
        assert_eq!((second.status, second.json()), (200, json!({ "taken": true })));
    };
    for node in &nodes {
        twice(&|| node.pledge(&running, &place, b"1"));
    }
    wait_for_phase(&running, &place, "revealing");
    for node in &nodes {
        twice(&|| node.pledge(&running, &place, b"1"));
    }
    for node in &nodes {
        twice(&|| node.reveal(&running, &place, b"1"));
    }
    decided(&running, &id);
    // Also long after.
    for node in &nodes {
        twice(&|| node.pledge(&running, &place, b"1"));
        twice(&|| node.reveal(&running, &place, b"1"));
    }
    for line in [
        "anwansi_open_transitions 0",
        "anwansi_open_tasks 0",
        "anwansi_transitions_opened_total 1",
        "anwansi_tasks_opened_total 1",
        "anwansi_rounds_closed_total 1",
        r#"anwansi_transitions_decided_total{outcome="applied"} 1"#,
        r#"anwansi_tasks_decided_total{status="final"} 1"#,
        r#"anwansi_node_faults_total{fault="missed"} 0"#,
        r#"anwansi_votes_taken_total{kind="pledge"} 12"#,
        r#"anwansi_votes_taken_total{kind="reveal"} 8"#,
    ] {
        // Versions are counted soon after they are there.
        wait_for(|| running.get("/metrics").text().lines().any(|it| it == line).then_some(()));
    }
}

#[test]
fn two_pledges_for_one_round_are_shown_with_both_signatures() {
    let running = Running::in_memory();
    let nodes = registered(&running, 6);
    let id = open(&running, &draft("", &["x"]));
    let first = place(&running, &id, 0, 0);
    let drawn = awaited(&running, &first, &nodes);
    assert_eq!(drawn[0].pledge(&running, &first, b"1").status, 200);
    drawn[0].pledge(&running, &first, b"2").problem(409, "equivocated");
    drawn[0].pledge(&running, &first, b"3").problem(409, "equivocated");
    assert_eq!(drawn[1].pledge(&running, &first, b"1").status, 200);
    wait_for_phase(&running, &first, "revealing");
    drawn[0].reveal(&running, &first, b"1").problem(409, "equivocated");
    let is_shown = |progress: &Value| {
        let shown = &progress["equivocations"];
        assert_eq!(shown.as_array().unwrap().len(), 1, "{progress}");
        let shown = &shown[0];
        assert_eq!(shown["node"], drawn[0].key().to_string());
        assert_eq!((&shown["index"], &shown["round"]), (&json!(0), &json!(0)));
        let pledge = |which: &str| Pledge {
            node: drawn[0].key(),
            pledge: shown[which]["pledge"].as_str().unwrap().parse().unwrap(),
            signature: STANDARD
                .decode(shown[which]["signature"].as_str().unwrap())
                .unwrap()
                .try_into()
                .unwrap(),
        };
        let (one, two) = (pledge("first"), pledge("second"));
        assert_ne!(one.pledge, two.pledge);
        assert!(one.is_signed(&first) && two.is_signed(&first));
    };
    is_shown(&progress(&running, &id));
    assert_eq!(drawn[1].reveal(&running, &first, b"1").status, 200);
    // One vote is left of two: one more is needed.
    let second = Place { round: 1, ..first };
    vote(&running, &second, &nodes, b"1", b"1");
    let progress = decided(&running, &id);
    assert_eq!(progress["tasks"][0]["record"]["equivocated"], 1, "{progress}");
    is_shown(&progress);
    let node = running.get(&format!("/v1/nodes/{}", drawn[0].key())).json();
    assert_eq!(node["score"]["equivocated"], 1);
    let evidence = running.get(&format!("/v1/transitions/{id}/evidence?outputs=1")).evidence();
    let checked = evidence.check(&running.policy).unwrap();
    assert_eq!(checked.finding(Level::Aggregate), Finding::Verified);
}

#[test]
fn a_transition_without_agreement_fails_whole_and_says_why() {
    let running = Running::in_memory();
    let nodes = registered(&running, 2);
    running.commit(&[("total", Some("5"))]);
    let id = open(&running, &draft("", &["x", "y"]));
    vote(&running, &place(&running, &id, 0, 0), &nodes, b"1", b"2");
    let progress = decided(&running, &id);
    assert_eq!(progress["outcome"], "failed");
    assert!(progress["reason"].as_str().unwrap().contains("task 0"), "{progress}");
    assert_eq!(progress["tasks"][0]["phase"], "no_agreement");
    assert_eq!(progress["tasks"][1]["phase"], "expired");
    let evidence = running.get("/v1/state?key=total").evidence();
    let checked = evidence.check(&running.policy).unwrap();
    assert_eq!(checked.version().state().unwrap().get(b"total").unwrap(), Some(&b"5"[..]));
    let evidence = running.get(&format!("/v1/transitions/{id}/evidence")).evidence();
    let checked = evidence.check(&running.policy).unwrap();
    assert_eq!(checked.finding(Level::Agreement), Finding::Verified);
    // The other task can say so in pages.
    let page = running.get(&format!("/v1/transitions/{id}?limit=1")).json();
    assert_eq!((page["tasks"].as_array().unwrap().len(), &page["next"]), (1, &json!(1)));
    let rest = running.get(&format!("/v1/transitions/{id}?from=1")).json();
    assert_eq!(rest["tasks"][0]["index"], 1);
    assert!(rest.get("next").is_none());
    let beyond = running.get(&format!("/v1/transitions/{id}?from=7")).json();
    assert_eq!((&beyond["tasks"], beyond.get("next")), (&json!([]), None));
}

#[test]
fn a_transition_that_nobody_has_pledged_for_can_be_cancelled() {
    let running = Running::in_memory();
    let nodes = registered(&running, 2);
    let id = open(&running, &draft("", &["x"]));
    let bearer = running.bearer();
    let cancel = |id| {
        let path = format!("/v1/transitions/{id}/cancel");
        running.post(&path, &[("authorization", &bearer)], b"")
    };
    for _ in 0..2 {
        let done = cancel(id);
        assert_eq!(done.status, 200, "{}", done.text());
        assert_eq!(done.json(), json!({ "id": id.to_string(), "outcome": "cancelled" }));
    }
    let progress = progress(&running, &id);
    assert_eq!(
        (&progress["outcome"], &progress["tasks"][0]["phase"]),
        (&json!("cancelled"), &json!("cancelled"))
    );
    for node in &nodes {
        assert_eq!(node.todo(&running), Vec::<Value>::new());
    }
    let evidence = running.get(&format!("/v1/transitions/{id}/evidence")).evidence();
    assert_eq!(
        evidence.check(&running.policy).unwrap().finding(Level::Agreement),
        Finding::Verified
    );

    let id = open(&running, &draft("again", &["x"]));
    let place = place(&running, &id, 0, 0);
    assert_eq!(awaited(&running, &place, &nodes)[0].pledge(&running, &place, b"1").status, 200);
    cancel(id).problem(409, "not-cancellable");
}

#[test]
fn many_nodes_at_once_are_all_counted() {
    const TASKS: u32 = 40;
    let running = Running::in_memory();
    let nodes = registered(&running, 3);
    let inputs = vec!["x"; TASKS as usize];
    let id = open(&running, &draft("", &inputs));
    let base = place(&running, &id, 0, 0);
    let work = |node: &Node| {
        while progress(&running, &id)["outcome"] == "open" {
            for todo in node.todo(&running) {
                let number = |name: &str| u32::try_from(todo[name].as_u64().unwrap()).unwrap();
                let place = Place { task: number("index"), round: number("round"), ..base };
                let answer = match todo["phase"].as_str().unwrap() {
                    "pledge" => node.pledge(&running, &place, b"2"),
                    _ => node.reveal(&running, &place, b"2"),
                };
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        }
    };
    thread::scope(|scope| nodes.iter().for_each(|node| drop(scope.spawn(move || work(node)))));
    let evidence = running.get(&format!("/v1/transitions/{id}/evidence?outputs=true")).evidence();
    let checked = evidence.check(&running.policy).unwrap();
    assert_eq!(checked.value(), Some(&Json::Integer(BigInt::from(2 * TASKS))));
    assert_eq!(checked.agreed().unwrap().tasks.len(), TASKS as usize);
}

#[test]
fn an_open_transition_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let engine = format!("fjall:{}", directory.path().join("data").display());
    let config = Config { engine, ..Config::in_memory() };
    let running = Running::start(config.clone());
    let nodes = registered(&running, 3);
    let id = open(&running, &draft("", &["x"]));
    let place = place(&running, &id, 0, 0);
    let first = awaited(&running, &place, &nodes)[0];
    assert_eq!(first.pledge(&running, &place, b"1").status, 200);
    running.stop();

    let running = Running::start(config);
    assert_eq!(awaited(&running, &place, &nodes).len(), 1);
    assert_eq!(first.pledge(&running, &place, b"1").status, 200);
    let second = awaited(&running, &place, &nodes)[0];
    assert_eq!(second.pledge(&running, &place, b"1").status, 200);
    wait_for_phase(&running, &place, "revealing");
    for node in [first, second] {
        assert_eq!(send(&running, &place, "reveals", &node.reveals(&place, b"1")).status, 200);
    }
    assert_eq!(decided(&running, &id)["outcome"], "applied");
    let record = running.server().store().tasks(running.server().store().latest().version());
    let record = TransitionRecord::parse(&record.unwrap()[0].1).unwrap();
    assert_eq!((record.id, record.outcome), (id, Outcome::Applied));
    let report = running.server().store().check(|_, _| ()).unwrap();
    assert_eq!(report.damages, Vec::<Damage>::new());
}
