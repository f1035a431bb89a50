//! Every route's good answers, verified.

use std::collections::BTreeSet;

use anwansi_proofs::{Bundle, Change, Header, Level, LogProof, Policy, Proof, Tile};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::Running;

#[test]
fn a_committed_value_is_proven_and_an_absent_one_is_proven_absent() {
    let running = Running::in_memory();
    let done = running.commit_with(
        &json!({ "writes": [
            { "key": "greeting", "value": "aGVsbG8=" },
            { "key_hex": "ff00fe", "value": "" },
            { "key": "a b/ü", "value": "eA==" },
        ] }),
        &[],
    );
    assert_eq!(done.status, 201, "{}", done.text());
    let done = done.json();
    assert_eq!(done["version"], 1);

    let path = "/v1/state?key=greeting&key=answer&key_hex=ff00fe&key=%ff%00%FE&key=a+b%2F%C3%BC";
    let answer = running.get(path);
    assert_eq!(answer.header("anwansi-version"), Some("1"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let evidence = answer.evidence();
    let checked = evidence.check(&running.policy).unwrap();
    assert_eq!(checked.finding(Level::Inclusion), anwansi_proofs::Finding::Verified);
    assert_eq!(checked.version().header().version().0, 1);
    assert_eq!(checked.version().header().state().to_string(), done["state"].as_str().unwrap());
    let state = checked.version().state().unwrap();
    assert_eq!(state.get(b"greeting").unwrap(), Some(&b"hello"[..]));
    assert_eq!(state.get(b"answer").unwrap(), None);
    assert_eq!(state.get(b"\xff\x00\xfe").unwrap(), Some(&b""[..]));
    assert_eq!(state.get("a b/ü".as_bytes()).unwrap(), Some(&b"x"[..]));

    // A removal is a version too, and the version before it still answers.
    assert_eq!(running.commit(&[("greeting", None)]), 2);
    for (version, value) in [("2", None), ("1", Some(&b"hello"[..])), ("0", None)] {
        let answer = running.get(&format!("/v1/state?key=greeting&version={version}"));
        let evidence = answer.evidence();
        let checked = evidence.check(&running.policy).unwrap();
        assert_eq!(checked.version().header().version().to_string(), version);
        assert_eq!(checked.version().state().unwrap().get(b"greeting").unwrap(), value);
        assert_eq!(checked.checkpoint().size(), 3);
    }
}

#[test]
fn bare_proofs_are_given_to_those_who_accept_bytes() {
    let running = Running::in_memory();
    running.commit(&[("k", Some("v"))]);
    let root = running.newest().1.parse().unwrap();
    let octets = [("accept", "application/octet-stream")];
    let question = json!({ "keys": ["k"] }).to_string();
    for answer in [
        running.get_with("/v1/state?key=k", &octets),
        running.get_with("/v1/state/range?prefix=", &octets),
        running.post("/v1/proofs", &octets, question.as_bytes()),
    ] {
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.header("anwansi-version"), Some("1"));
        let shown = Proof::decode(&answer.bytes).unwrap().verify(&root).unwrap();
        assert_eq!(shown.get(b"k").unwrap(), Some(&b"v"[..]));
    }
}

#[test]
fn a_range_is_proven_complete_page_by_page() {
    let running = Running::in_memory();
    let keys = (0..25).map(|i| format!("city/ch/{i:02}")).collect::<Vec<_>>();
    let mut writes = keys.iter().map(|key| (key.as_str(), Some(key.as_str()))).collect::<Vec<_>>();
    writes.push(("city/de/00", Some("x")));
    running.commit(&writes);
    let (mut start, mut seen) = (hex::encode("city/ch/"), Vec::new());
    loop {
        let path = format!("/v1/state/range?start_hex={start}&end=city/ch0&limit=10&version=1");
        let answer = running.get(&path);
        let evidence = answer.evidence();
        let checked = evidence.check(&running.policy).unwrap();
        let next = answer.header("anwansi-next").map(|next| hex::decode(next).unwrap());
        let end = next.as_deref().unwrap_or(b"city/ch0");
        let state = checked.version().state().unwrap();
        let entries = state.range(&hex::decode(&start).unwrap(), Some(end)).unwrap();
        seen.extend(entries.iter().map(|entry| String::from_utf8(entry.key.to_vec()).unwrap()));
        match next {
            Some(next) => start = hex::encode(next),
            None => break,
        }
    }
    assert_eq!(seen, keys);
    let whole = running.get("/v1/state/range?prefix=city/ch/");
    assert_eq!(whole.header("anwansi-next"), None);
    let evidence = whole.evidence();
    let checked = evidence.check(&running.policy).unwrap();
    assert_eq!(checked.version().state().unwrap().prefix(b"city/ch/").unwrap().len(), 25);
    // Nothing there is proven too; equal ends are an empty range.
    for path in ["/v1/state/range?prefix=none", "/v1/state/range?start=a&end=a"] {
        let evidence = running.get(path).evidence();
        let checked = evidence.check(&running.policy).unwrap();
        assert_eq!(checked.version().state().unwrap().range(b"a", Some(b"a")).unwrap(), []);
    }
}

#[test]
fn one_proof_answers_keys_prefixes_and_ranges_and_the_tasks_tree() {
    let running = Running::in_memory();
    running.commit(&[("a", Some("1")), ("b/1", Some("2")), ("b/2", Some("3")), ("c", Some("4"))]);
    let question = json!({
        "version": 1, "keys": ["a", "none"], "keys_hex": ["63"], "prefixes": ["b/"],
        "prefixes_hex": ["7a"], "ranges": [{ "start": "b", "end_hex": "63" }, { "start": "x" }],
    });
    let answer = running.post("/v1/proofs", &[], question.to_string().as_bytes());
    let evidence = answer.evidence();
    let checked = evidence.check(&running.policy).unwrap();
    let state = checked.version().state().unwrap();
    assert_eq!(state.get(b"a").unwrap(), Some(&b"1"[..]));
    assert_eq!(state.get(b"none").unwrap(), None);
    assert_eq!(state.get(b"c").unwrap(), Some(&b"4"[..]));
    assert_eq!(state.prefix(b"b/").unwrap().len(), 2);
    assert_eq!(state.range(b"b", Some(b"c")).unwrap().len(), 2);
    assert_eq!(state.range(b"x", None).unwrap(), []);

    let question = json!({ "tree": "tasks", "prefixes": [""] }).to_string();
    let evidence = running.post("/v1/proofs", &[], question.as_bytes()).evidence();
    let checked = evidence.check(&running.policy).unwrap();
    assert!(checked.version().state().is_none());
    assert_eq!(checked.version().tasks().unwrap().prefix(b"").unwrap(), []);
}

#[test]
fn versions_are_headers_in_the_log_and_changes_lead_from_one_to_the_next() {
    let running = Running::in_memory();
    running.commit(&[("a", Some("1")), ("b", Some("2"))]);
    running.commit(&[("a", None), ("c", Some("3"))]);
    running.commit(&[("c", Some("4"))]);

    let page = running.get("/v1/versions?from=0&limit=2");
    assert_eq!(page.json()["next"], 2);
    assert!(page.header("cache-control").unwrap().contains("immutable"));
    let rest = running.get("/v1/versions?from=2");
    assert_eq!(rest.json().get("next"), None);
    assert_eq!(rest.header("cache-control"), Some("no-cache"));
    let texts = [&page, &rest].map(|list| list.json()["versions"].as_array().unwrap().clone());
    let headers = texts.concat().into_iter().map(|text| text.as_str().unwrap().parse().unwrap());
    let headers: Vec<Header> = headers.collect();
    assert_eq!(headers.len(), 4);

    for (number, header) in headers.iter().enumerate() {
        let one = running.get(&format!("/v1/versions/{number}")).json();
        assert_eq!(one["header"], header.to_string());
        let proof: LogProof = one["finality"].as_str().unwrap().parse().unwrap();
        let checkpoint = proof.verify(header.to_string().as_bytes(), &running.policy).unwrap();
        assert_eq!((proof.index(), checkpoint.size()), (number as u64, 4));

        let text = running.get(&format!("/v1/versions/{number}/changes")).text();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<Value> = lines.collect();
        let (first, last) = (&lines[0], &lines[lines.len() - 1]);
        assert_eq!(first["header"], header.to_string());
        assert_eq!(last["count"], lines.len() - 2);
        let before = &headers[number.saturating_sub(1)];
        let update = STANDARD.decode(first["update"].as_str().unwrap()).unwrap();
        let shown = Proof::decode(&update).unwrap().verify(&before.state()).unwrap();
        let changes = lines[1..lines.len() - 1].iter().map(|line| {
            let value = line["value"].as_str().map(|value| STANDARD.decode(value).unwrap());
            (hex::decode(line["key_hex"].as_str().unwrap()).unwrap(), value)
        });
        let changes: Vec<_> = changes.collect();
        let changes: Vec<_> =
            changes.iter().map(|(key, value)| Change { key, value: value.as_deref() }).collect();
        assert_eq!(shown.apply(&changes).unwrap(), header.state());
    }
}

#[test]
fn the_log_is_served_as_checkpoint_tiles_and_bundles() {
    let running = Running::in_memory();
    running.commit(&[("a", Some("1"))]);
    running.commit(&[("a", Some("2"))]);
    let answer = running.get("/checkpoint");
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    let checkpoint = running.policy.verify(&answer.text()).unwrap();
    assert_eq!(checkpoint.size(), 3);
    let bundle: Bundle = "tile/entries/000.p/3".parse().unwrap();
    let entries = running.get("/tile/entries/000.p/3");
    assert!(entries.header("cache-control").unwrap().contains("immutable"));
    let entries = bundle.decode(&entries.bytes).unwrap();
    let tile: Tile = "tile/0/000.p/3".parse().unwrap();
    let hashes = running.get("/tile/0/000.p/3").bytes;
    for (index, entry) in entries.iter().enumerate() {
        let leaf = anwansi_proofs::LogHash::leaf(entry);
        assert_eq!(tile.hash(&hashes, 0, index as u64).unwrap(), leaf);
    }
    // A narrower one is what the log once had.
    assert_eq!(running.get("/tile/0/000.p/2").bytes, hashes[..64]);
}

#[test]
fn answers_are_revalidated_by_version_and_checkpoint() {
    let running = Running::in_memory();
    running.commit(&[("a", Some("1"))]);
    let paths = [
        "/v1/state?key=a&version=1",
        "/v1/state/range?prefix=a&version=1",
        "/v1/versions/1",
        "/v1/versions/1/changes",
    ];
    let tags = paths.map(|path| running.get(path).header("etag").unwrap().to_owned());
    for (path, tag) in paths.iter().zip(&tags) {
        let again = running.get_with(path, &[("if-none-match", tag)]);
        assert_eq!((again.status, again.bytes.len()), (304, 0), "{path}");
        assert_eq!(again.header("etag"), Some(tag.as_str()));
    }
    // The bare proof is another answer under the same URL.
    let octets = [("accept", "application/octet-stream"), ("if-none-match", &tags[0])];
    assert_eq!(running.get_with(paths[0], &octets).status, 200);
    running.commit(&[("b", Some("1"))]);
    for (path, tag) in paths.iter().zip(&tags) {
        let newer = running.get_with(path, &[("if-none-match", tag)]);
        assert_eq!(newer.status, 200, "{path}: the checkpoint is another");
    }
}

#[test]
fn info_says_who_the_log_is_and_what_the_limits_are() {
    let running = Running::in_memory();
    let info = running.get("/v1/info").json();
    let policy = Policy::parse(info["policy"].as_str().unwrap()).unwrap();
    assert_eq!(policy, running.policy);
    assert_eq!(info["vkey"], running.server().vkey().to_string());
    assert_eq!(info["origin"], running.server().vkey().name());
    assert_eq!((&info["version"], &info["oldest"]), (&json!(0), &json!(0)));
    assert_eq!(info["engine"], "memory");
    assert_eq!(info["limits"]["key_bytes"], 1024);
    assert_eq!(info["limits"]["value_bytes"], 16 << 20);
    assert!(info["limits"].as_object().unwrap().values().all(|limit| limit.as_u64() > Some(0)));
}

#[test]
fn operators_see_health_and_figures() {
    let running = Running::in_memory();
    running.commit(&[("a", Some("1"))]);
    assert_eq!(running.get("/healthz").status, 200);
    assert_eq!(running.get("/readyz").status, 200);
    let text = running.get("/metrics").text();
    for line in ["anwansi_version 1", "anwansi_state_entries 1", "anwansi_commits_total 1"] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(text.contains(r#"route="/v1/commits",method="POST",status="201""#), "{text}");
}

#[test]
fn every_route_is_described_and_every_description_routed() {
    let running = Running::in_memory();
    let api = running.get("/openapi.json").json();
    let described: BTreeSet<_> = api["paths"].as_object().unwrap().keys().cloned().collect();
    let routes = [
        "/checkpoint",
        "/healthz",
        "/metrics",
        "/openapi.json",
        "/readyz",
        "/tile/{path}",
        "/v1/assignments",
        "/v1/blobs/{digest}",
        "/v1/commits",
        "/v1/events",
        "/v1/info",
        "/v1/nodes",
        "/v1/nodes/{key}",
        "/v1/pins",
        "/v1/pins/{v}",
        "/v1/proofs",
        "/v1/state",
        "/v1/state/range",
        "/v1/transitions",
        "/v1/transitions/{id}",
        "/v1/transitions/{id}/cancel",
        "/v1/transitions/{id}/evidence",
        "/v1/transitions/{id}/spec",
        "/v1/transitions/{id}/tasks/{i}/pledges",
        "/v1/transitions/{id}/tasks/{i}/reveals",
        "/v1/versions",
        "/v1/versions/{v}",
        "/v1/versions/{v}/changes",
    ];
    assert_eq!(described, routes.map(str::to_owned).into());
    for path in routes {
        if path == "/v1/events" {
            // It does not end: `follow` reads it.
            continue;
        }
        let path = path.replace("{v}", "0").replace("{path}", "entries/000.p/1");
        let answer = running.get(&path);
        assert!(matches!(answer.status, 200 | 400 | 405), "{path}: {}", answer.text());
    }
    // What is referred to is there.
    let text = api.to_string();
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(api["components"]["schemas"].get(name).is_some(), "{name}");
    }
}

#[test]
fn browsers_may_read_and_ask() {
    let running = Running::in_memory();
    let asked = "OPTIONS /v1/proofs HTTP/1.1\r\nhost: x\r\norigin: https://a.example\r\n\
                 access-control-request-method: POST\r\n\
                 access-control-request-headers: content-type\r\nconnection: close\r\n\r\n";
    assert_eq!(running.raw(asked.as_bytes()).0, 200);
    let exposed = running.get("/v1/state?key=a");
    assert_eq!(exposed.header("access-control-expose-headers"), Some("*"));
}
