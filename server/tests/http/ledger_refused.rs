//! Everything that the ledger refuses: under its name, with its status, and nothing stored.

use anwansi_proofs::{Apply, Digest, Draft, Input, Place, Spec};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    Running,
    machine::{
        Node, awaited, decided, draft, open, place, registered, run, send, submit, submit_bytes,
        wait_for, wait_for_phase,
    },
};

/// What a path names that is not there.
const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn specifications_are_refused_for_what_is_wrong_with_them() {
    let running = Running::in_memory();
    let nodes = registered(&running, 2);
    let before = running.newest();
    let good = Spec::new(&draft("", &["x"])).unwrap();
    let good = std::str::from_utf8(good.bytes()).unwrap();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} in {good}");
        good.replacen(from, to, 1)
    };
    let cases = [
        (String::new(), 422, "malformed-spec"),
        ("{}".into(), 422, "malformed-spec"),
        ("[]".into(), 422, "malformed-spec"),
        (format!(" {good}"), 422, "malformed-spec"),
        (good.replacen(':', ": ", 1), 422, "malformed-spec"),
        (good[..good.len() - 1].into(), 422, "malformed-spec"),
        (with(r#""nonce":"","#, ""), 422, "malformed-spec"),
        (with(r#""nonce":"","#, r#""nonce":"","note":"","#), 422, "malformed-spec"),
        (with(r#""apply":"replace""#, r#""apply":"swap""#), 422, "malformed-spec"),
        (with(r#""data":"eA==""#, r#""data":"eA""#), 422, "malformed-spec"),
        (with(r#"[{"data":"eA=="}]"#, "[]"), 422, "no-inputs"),
        (with(r#""into":"total""#, r#""into":"""#), 422, "bad-into"),
        (with(r#""into":"total""#, r#""into":"\u0000node/""#), 422, "bad-into"),
        (with(r#""error_ppm":50000"#, r#""error_ppm":500000"#), 422, "bad-policy"),
        (with(r#""lead":2"#, r#""lead":0"#), 422, "bad-policy"),
        (with(r#""lead":2"#, r#""lead":9"#), 422, "bad-policy"),
        (with(r#""lead":2"#, r#""lead":3"#), 409, "too-few-nodes"),
        (with(r#""fold":"sum""#, r#""fold":"product""#), 422, "unknown-fold"),
        (with(r#""spread":false"#, r#""spread":true"#), 422, "fold-use"),
    ];
    for (spec, status, name) in cases {
        submit_bytes(&running, spec.as_bytes()).problem(status, name);
    }
    let refused = |change: &dyn Fn(&mut Draft), status, name| {
        let mut draft = draft("", &["x"]);
        change(&mut draft);
        submit(&running, &draft).problem(status, name)
    };
    let list: &dyn Fn(&mut Draft) = &|it| (it.fold, it.apply) = ("list".into(), Apply::Add);
    refused(list, 422, "fold-use");
    let digest = Digest::of(b"not here");
    let problem = refused(&|it| it.inputs.push(Input::Blob(digest)), 422, "unknown-blob");
    assert_eq!(problem["digest"], digest.to_string());
    let many: &dyn Fn(&mut Draft) = &|it| it.inputs = vec![Input::Data(Vec::new()); 10_001];
    assert_eq!(refused(many, 413, "too-many-tasks")["max"], 10_000);
    let draws: &dyn Fn(&mut Draft) = &|it| {
        (it.inputs, it.policy.nodes_max) = (vec![Input::Data(Vec::new()); 10_000], 31);
    };
    assert_eq!(refused(draws, 413, "too-many-tasks")["max"], 300_000);
    let problem =
        refused(&|it| (it.policy.lead, it.policy.nodes_max) = (3, 9), 409, "too-few-nodes");
    assert_eq!((&problem["registered"], &problem["lead"]), (&json!(2), &json!(3)));
    let problem = submit_bytes(&running, b"{\"a\":01}").problem(422, "malformed-spec");
    assert!(problem["at"].is_u64(), "{problem}");
    let problem = submit_bytes(&running, b"{\"program\":1}").problem(422, "malformed-spec");
    assert_eq!(problem["member"], "program");
    submit_bytes(&running, &vec![b' '; (16 << 20) + 1]).problem(413, "body-too-large");
    assert_eq!(running.newest(), before);
    assert_eq!(nodes[0].todo(&running), Vec::<Value>::new());
}

#[test]
fn what_is_not_there_is_said_to_be_so() {
    let running = Running::in_memory();
    let bearer = running.bearer();
    let nodes = registered(&running, 2);
    let token = [("authorization", bearer.as_str())];
    let gets = [
        ("/v1/transitions/{}", "unknown-transition"),
        ("/v1/transitions/{}/spec", "unknown-transition"),
        ("/v1/transitions/{}/evidence", "unknown-transition"),
        ("/v1/transitions/{}/tasks/0/pledges?round=0", "unknown-transition"),
        ("/v1/nodes/{}", "unknown-node"),
        ("/v1/blobs/{}", "no-such-blob"),
    ];
    for (path, name) in gets {
        running.get(&path.replace("{}", NOTHING)).problem(404, name);
        for malformed in ["x", &NOTHING[1..], &format!("{NOTHING}0"), &"A".repeat(64), "%ff"] {
            running.get(&path.replace("{}", malformed)).problem(400, "malformed");
        }
    }
    let cancel = format!("/v1/transitions/{NOTHING}/cancel");
    running.post(&cancel, &token, b"").problem(404, "unknown-transition");
    running.delete(&format!("/v1/nodes/{NOTHING}"), &token).problem(404, "unknown-node");
    let id = open(&running, &draft("", &["x"]));
    let there = place(&running, &id, 0, 0);
    let other = Place { transition: NOTHING.parse().unwrap(), ..there };
    nodes[0].pledge(&running, &other, b"1").problem(404, "unknown-transition");
    nodes[0].reveal(&running, &other, b"1").problem(404, "unknown-transition");
    let other = Place { task: 1, ..there };
    let problem = nodes[0].pledge(&running, &other, b"1").problem(404, "unknown-task");
    assert_eq!(problem["tasks"], 1);
    nodes[0].reveal(&running, &other, b"1").problem(404, "unknown-task");
    // Nobody pledges for what was never opened in this way.
    for path in [
        format!("/v1/transitions/{id}/tasks/01/pledges"),
        format!("/v1/transitions/{id}/tasks/-1/pledges"),
        format!("/v1/transitions/{id}/tasks/4294967296/pledges"),
        format!("/v1/transitions/{id}/tasks/x/reveals"),
    ] {
        let body = nodes[0].pledges(&there, b"1").to_string();
        running.post(&path, &[], body.as_bytes()).problem(400, "malformed");
    }
}

#[test]
fn questions_of_the_ledger_are_read_strictly() {
    let running = Running::in_memory();
    registered(&running, 2);
    let id = open(&running, &draft("", &["x"]));
    let key = Node::new(0).key();
    let cases = [
        "/v1/assignments".to_owned(),
        "/v1/assignments?node=".into(),
        "/v1/assignments?node=x".into(),
        format!("/v1/assignments?node={key}&node={key}"),
        format!("/v1/assignments?node={key}&wait_ms=-1"),
        format!("/v1/assignments?node={key}&wait=1"),
        "/v1/nodes?limit=0".into(),
        "/v1/nodes?limit=1001".into(),
        "/v1/nodes?from=x".into(),
        format!("/v1/transitions/{id}?limit=0"),
        format!("/v1/transitions/{id}?limit=10001"),
        format!("/v1/transitions/{id}?from=4294967296"),
        format!("/v1/transitions/{id}?outputs=true"),
        format!("/v1/transitions/{id}/evidence?outputs=yes"),
        format!("/v1/transitions/{id}/evidence?outputs"),
        format!("/v1/transitions/{id}/tasks/0/pledges"),
        format!("/v1/transitions/{id}/tasks/0/pledges?round=x"),
        format!("/v1/transitions/{id}/tasks/0/pledges?round=4294967296"),
    ];
    for path in cases {
        running.get(&path).problem(400, "malformed");
    }
}

#[test]
fn pledges_are_refused_for_what_is_wrong_with_them() {
    let running = Running::in_memory();
    let nodes = registered(&running, 4);
    let id = open(&running, &draft("", &["x"]));
    let first = place(&running, &id, 0, 0);
    let drawn = awaited(&running, &first, &nodes);
    let others = nodes.iter().filter(|node| drawn.iter().all(|it| it.key() != node.key()));
    let stranger = Node::new(99);
    for node in others.chain([&stranger]) {
        node.pledge(&running, &first, b"1").problem(403, "not-drawn");
    }
    let later = Place { round: 1, ..first };
    drawn[0].pledge(&running, &later, b"1").problem(403, "not-drawn");

    let good = drawn[0].pledges(&first, b"1");
    let with = |member: &str, value: Value| {
        let mut body = good.clone();
        body[member] = value;
        send(&running, &first, "pledges", &body)
    };
    // Signed by another, for another round, and not at all.
    let other = drawn[1].pledges(&first, b"1")["signature"].clone();
    with("signature", other).problem(403, "bad-signature");
    let other = drawn[0].pledges(&later, b"1")["signature"].clone();
    with("signature", other).problem(403, "bad-signature");
    with("signature", json!(STANDARD.encode([0; 64]))).problem(403, "bad-signature");
    with("node", json!(NOTHING)).problem(403, "bad-signature");
    with("pledge", json!(NOTHING)).problem(403, "bad-signature");
    let malformed = [
        ("signature", json!(STANDARD.encode([0; 63]))),
        ("signature", json!("x")),
        ("signature", json!(null)),
        ("node", json!(7)),
        ("node", json!(&NOTHING[1..])),
        ("pledge", json!("A".repeat(64))),
        ("round", json!(-1)),
        ("round", json!(1_u64 << 32)),
        ("round", json!("0")),
        ("more", json!(1)),
    ];
    for (member, value) in malformed {
        with(member, value).problem(400, "malformed");
    }
    let path = format!("/v1/transitions/{id}/tasks/0/pledges");
    for body in ["", "{}", "[]", "null", "{\"node\":"] {
        running.post(&path, &[], body.as_bytes()).problem(400, "malformed");
    }
    running.post(&path, &[], &[b' '; 5000]).problem(413, "body-too-large");
    // None of it counts against the node.
    assert_eq!(send(&running, &first, "pledges", &good).status, 200);
    vote_of(&running, drawn[1], &first);
    wait_for_phase(&running, &first, "revealing");
    drawn[0].reveal(&running, &first, b"1");
    drawn[1].reveal(&running, &first, b"1");
    assert_eq!(decided(&running, &id)["tasks"][0]["record"]["agree"], 2);
    drawn[0].pledge(&running, &first, b"2").problem(409, "too-late");
    drawn[0].reveal(&running, &first, b"2").problem(409, "too-late");
}

fn vote_of(running: &Running, node: &Node, place: &Place) {
    let taken = node.pledge(running, place, b"1");
    assert_eq!(taken.status, 200, "{}", taken.text());
}

#[test]
fn reveals_are_refused_for_what_is_wrong_with_them() {
    let running = Running::in_memory();
    let nodes = registered(&running, 4);
    let id = open(&running, &draft("", &["x"]));
    let first = place(&running, &id, 0, 0);
    let drawn = awaited(&running, &first, &nodes);
    Node::new(99).reveal(&running, &first, b"1").problem(403, "not-drawn");
    drawn[0].reveal(&running, &first, b"1").problem(409, "not-pledged");
    vote_of(&running, drawn[0], &first);
    drawn[0].reveal(&running, &first, b"1").problem(409, "too-early");
    vote_of(&running, drawn[1], &first);
    wait_for_phase(&running, &first, "revealing");

    let good = drawn[0].reveals(&first, b"1");
    let with = |member: &str, value: Value| {
        let mut body = good.clone();
        body[member] = value;
        send(&running, &first, "reveals", &body)
    };
    let malformed = [
        ("salt", json!(NOTHING)),
        ("salt", json!(STANDARD.encode([0; 31]))),
        ("result", json!("x")),
        ("result", json!(null)),
        ("result", json!(1)),
        ("round", json!(0.5)),
        ("pledge", json!(NOTHING)),
    ];
    for (member, value) in malformed {
        with(member, value).problem(400, "malformed");
    }
    let result = |bytes: usize| json!(STANDARD.encode(vec![b'1'; bytes]));
    let problem = with("result", result((1 << 20) + 1)).problem(413, "result-too-large");
    assert_eq!(problem["max"], 1 << 20);
    with("result", result((1 << 20) + 10_000)).problem(413, "body-too-large");
    // Another result, as long as results may be; then another salt; and then the right ones.
    with("result", result(1 << 20)).problem(422, "bad-reveal");
    with("salt", json!(STANDARD.encode([0; 32]))).problem(422, "bad-reveal");
    assert_eq!(send(&running, &first, "reveals", &good).status, 200);
    drawn[1].reveal(&running, &first, b"2").problem(422, "bad-reveal");
    assert_eq!(drawn[1].reveal(&running, &first, b"1").status, 200);
    let record = &decided(&running, &id)["tasks"][0]["record"];
    assert_eq!((&record["agree"], &record["bad_reveal"]), (&json!(2), &json!(0)));
}

#[test]
fn what_comes_after_its_phase_is_too_late() {
    let running = Running::in_memory();
    let nodes = registered(&running, 6);
    let mut quick = draft("", &["x"]);
    (quick.policy.pledge_ms, quick.policy.reveal_ms) = (300, 300);
    let id = open(&running, &quick);
    let first = place(&running, &id, 0, 0);
    let drawn = awaited(&running, &first, &nodes);
    vote_of(&running, drawn[0], &first);
    wait_for_phase(&running, &first, "revealing");
    drawn[1].pledge(&running, &first, b"1").problem(409, "too-late");
    drawn[1].reveal(&running, &first, b"1").problem(409, "too-late");
    let second = Place { round: 1, ..first };
    wait_for_phase(&running, &second, "pledging");
    drawn[0].reveal(&running, &first, b"1").problem(409, "too-late");
    // What came in time is answered as it was.
    vote_of(&running, drawn[0], &first);
}

#[test]
fn fold_that_fails_fails_the_transition_and_says_why() {
    let running = Running::in_memory();
    let nodes = registered(&running, 2);
    let id = run(&running, &nodes, &draft("", &["x"]), b"\"no integer\"");
    let progress = decided(&running, &id);
    assert_eq!(progress["outcome"], "failed");
    assert!(!progress["reason"].as_str().unwrap().is_empty(), "{progress}");
    assert_eq!(progress["tasks"][0]["phase"], "final");
}

#[test]
fn a_full_ledger_says_so_and_takes_more_when_there_is_room() {
    let running = Running::in_memory();
    let nodes = registered(&running, 2);
    let inputs = vec!["x"; 10_000];
    let ids = (0..10).map(|nonce| open(&running, &draft(&nonce.to_string(), &inputs)));
    let ids = ids.collect::<Vec<_>>();
    let refused = submit(&running, &draft("more", &["x"]));
    refused.problem(503, "too-much-open");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let cancel = format!("/v1/transitions/{}/cancel", ids[0]);
    let done = running.post(&cancel, &[("authorization", &running.bearer())], b"");
    assert_eq!(done.status, 200, "{}", done.text());
    // There is room very soon, as the answer above says.
    wait_for(|| (submit(&running, &draft("more", &["x"])).status == 201).then_some(()));
    // The others go on, to their last tasks.
    let last = place(&running, &ids[1], 9_999, 0);
    for node in awaited(&running, &last, &nodes) {
        vote_of(&running, node, &last);
    }
    wait_for_phase(&running, &last, "revealing");
}
