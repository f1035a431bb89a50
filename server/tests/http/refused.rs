//! Everything that can be wrong with a request: refused under its name, and nothing stored.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anwansi_server::{Config, Limits};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Running, assert_problem, read_raw};

/// A server with one version; what follows must not make another.
fn with_one_version() -> (Running, (u64, String)) {
    let running = Running::in_memory();
    running.commit(&[("a", Some("1"))]);
    let before = running.newest();
    (running, before)
}

#[test]
fn bad_questions_are_refused() {
    let (running, before) = with_one_version();
    let long = "k".repeat(1025);
    let many = "key=a&".repeat(1025);
    let cases = [
        ("/v1/state", 400, "malformed"),
        ("/v1/state?", 400, "malformed"),
        ("/v1/state?key=", 400, "key-length"),
        ("/v1/state?key_hex=", 400, "key-length"),
        (&format!("/v1/state?key={long}"), 400, "key-length"),
        (&format!("/v1/state?key=a&key={long}"), 400, "key-length"),
        ("/v1/state?key_hex=0", 400, "malformed"),
        ("/v1/state?key_hex=zz", 400, "malformed"),
        ("/v1/state?key=%zz", 400, "malformed"),
        ("/v1/state?key=%", 400, "malformed"),
        ("/v1/state?key=a%2", 400, "malformed"),
        ("/v1/state?ke%zzy=a", 400, "malformed"),
        ("/v1/state?kye=a", 400, "malformed"),
        ("/v1/state?key=a&version=1&version=1", 400, "malformed"),
        ("/v1/state?key=a&version=", 400, "malformed"),
        ("/v1/state?key=a&version=-1", 400, "malformed"),
        ("/v1/state?key=a&version=1.5", 400, "malformed"),
        ("/v1/state?key=a&version=01", 400, "malformed"),
        ("/v1/state?key=a&version=9007199254740992", 400, "malformed"),
        ("/v1/state?key=a&version=99999999999999999999999", 400, "malformed"),
        ("/v1/state?key=a&version=2", 404, "no-such-version"),
        ("/v1/state?key=a&version=9007199254740991", 404, "no-such-version"),
        (&format!("/v1/state?{many}"), 400, "malformed"),
        ("/v1/state/range?prefix=a&start=b", 400, "malformed"),
        ("/v1/state/range?start=b&end=a", 400, "malformed"),
        ("/v1/state/range?start=b&start_hex=62", 400, "malformed"),
        ("/v1/state/range?start_hex=6", 400, "malformed"),
        ("/v1/state/range?end=%f", 400, "malformed"),
        (&format!("/v1/state/range?prefix={long}"), 400, "key-length"),
        ("/v1/state/range?limit=0", 400, "malformed"),
        ("/v1/state/range?limit=10001", 400, "malformed"),
        ("/v1/state/range?limit=x", 400, "malformed"),
        ("/v1/state/range?version=2", 404, "no-such-version"),
        ("/v1/versions?from=2", 404, "no-such-version"),
        ("/v1/versions?from=x", 400, "malformed"),
        ("/v1/versions?limit=0", 400, "malformed"),
        ("/v1/versions?limit=1001", 400, "malformed"),
        ("/v1/versions/2", 404, "no-such-version"),
        ("/v1/versions/9007199254740991", 404, "no-such-version"),
        ("/v1/versions/9007199254740992", 400, "malformed"),
        ("/v1/versions/x", 400, "malformed"),
        ("/v1/versions/-1", 400, "malformed"),
        ("/v1/versions/%zz", 400, "malformed"),
        ("/v1/versions/%ff", 400, "malformed"),
        ("/v1/versions/2/changes", 404, "no-such-version"),
        ("/v1/versions/x/changes", 400, "malformed"),
        ("/tile/0/000", 404, "no-such-tile"),
        ("/tile/0/000.p/3", 404, "no-such-tile"),
        ("/tile/0/000.p/0", 404, "no-such-tile"),
        ("/tile/9/000", 404, "no-such-tile"),
        ("/tile/entries/001", 404, "no-such-tile"),
        ("/tile/0/x999/x999/x999/x999/x999/999", 404, "no-such-tile"),
        ("/tile/%ff", 404, "no-such-tile"),
        ("/tile/../v1/info", 404, "no-such-tile"),
        ("/", 404, "unknown-route"),
        ("/v1", 404, "unknown-route"),
        ("/v1/state/", 404, "unknown-route"),
        ("/v2/info", 404, "unknown-route"),
        ("/tile", 404, "unknown-route"),
        ("/%00", 404, "unknown-route"),
    ];
    for (path, status, name) in cases {
        // As they are: a client might mend them.
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let (found, body) = running.raw(request.as_bytes());
        assert_eq!(found, status, "{path}: {}", String::from_utf8_lossy(&body));
        assert_problem(&serde_json::from_slice(&body).unwrap(), status, name);
    }
    assert_eq!(running.newest(), before);
}

#[test]
fn bad_bodies_of_questions_are_refused() {
    let (running, before) = with_one_version();
    let many = json!({ "keys": vec!["a"; 1025] }).to_string();
    let together = json!({ "keys": vec!["a"; 1000], "prefixes": vec!["a"; 25] }).to_string();
    let long = json!({ "keys": ["k".repeat(1025)] }).to_string();
    let deep = "[".repeat(100_000);
    let cases = [
        ("", 400, "malformed"),
        ("{", 400, "malformed"),
        ("null", 400, "malformed"),
        ("[]", 400, "malformed"),
        ("{}", 400, "malformed"),
        (r#"{"keys":[]}"#, 400, "malformed"),
        (r#"{"keys":"a"}"#, 400, "malformed"),
        (r#"{"keys":[1]}"#, 400, "malformed"),
        (r#"{"keys":["a"],"keys":["b"]}"#, 400, "malformed"),
        (r#"{"keys":["a"],"what":1}"#, 400, "malformed"),
        (r#"{"keys":["a"]} x"#, 400, "malformed"),
        (r#"{"keys":["a"],"version":-1}"#, 400, "malformed"),
        (r#"{"keys":["a"],"version":1.0}"#, 400, "malformed"),
        (r#"{"keys":["a"],"version":"1"}"#, 400, "malformed"),
        (r#"{"keys":["a"],"version":9007199254740992}"#, 400, "malformed"),
        (r#"{"keys":["a"],"version":1e400}"#, 400, "malformed"),
        (r#"{"keys":["a"],"version":2}"#, 404, "no-such-version"),
        (r#"{"keys":["a"],"tree":"leaves"}"#, 400, "malformed"),
        (r#"{"keys":["\ud800"]}"#, 400, "malformed"),
        (r#"{"keys":[""]}"#, 400, "key-length"),
        (r#"{"keys_hex":["6"]}"#, 400, "malformed"),
        (r#"{"prefixes_hex":["zz"]}"#, 400, "malformed"),
        (r#"{"ranges":[{"start":"b","end":"a"}]}"#, 400, "malformed"),
        (r#"{"ranges":[{"start":"a","start_hex":"61"}]}"#, 400, "malformed"),
        (r#"{"ranges":[["a","b"]]}"#, 400, "malformed"),
        (&long, 400, "key-length"),
        (&many, 400, "malformed"),
        (&together, 400, "malformed"),
        (&deep, 400, "malformed"),
    ];
    for (body, status, name) in cases {
        running.post("/v1/proofs", &[], body.as_bytes()).problem(status, name);
    }
    running.post("/v1/proofs", &[], b"{\"keys\":[\"\xff\"]}").problem(400, "malformed");
    let large = vec![b' '; (4 << 20) + 1];
    running.post("/v1/proofs", &[], &large).problem(413, "body-too-large");
    assert_eq!(running.newest(), before);
}

#[test]
fn bad_commits_are_refused_and_nothing_is_stored() {
    let (running, before) = with_one_version();
    let write = |key: &str| json!({ "writes": [{ "key": key, "value": "" }] });
    let hex = |key: &str| json!({ "writes": [{ "key_hex": key, "value": "" }] });
    let value = |value: Value| json!({ "writes": [{ "key": "b", "value": value }] });
    let cases = [
        (json!(null), 400, "malformed"),
        (json!([]), 400, "malformed"),
        (json!({}), 400, "malformed"),
        (json!({ "writes": [] }), 400, "malformed"),
        (json!({ "writes": {} }), 400, "malformed"),
        (json!({ "writes": ["b"] }), 400, "malformed"),
        (json!({ "writes": [{ "key": "b" }] }), 400, "malformed"),
        (json!({ "writes": [{ "value": "" }] }), 400, "malformed"),
        (json!({ "writes": [{ "key": "b", "key_hex": "62", "value": "" }] }), 400, "malformed"),
        (json!({ "writes": [{ "key": "b", "value": "", "ttl": 1 }] }), 400, "malformed"),
        (json!({ "writes": [{ "key": "b", "value": "" }], "more": 1 }), 400, "malformed"),
        (
            json!({ "writes": [{ "key": "b", "value": "" }, { "key_hex": "62", "value": null }] }),
            400,
            "malformed",
        ),
        (value(json!(1)), 400, "malformed"),
        (value(json!("eA")), 400, "malformed"),
        (value(json!("e A=")), 400, "malformed"),
        (value(json!("_-==")), 400, "malformed"),
        (hex("6"), 400, "malformed"),
        (hex("zz"), 400, "malformed"),
        (write(""), 400, "key-length"),
        (hex(""), 400, "key-length"),
        (write(&"k".repeat(1025)), 400, "key-length"),
        (hex(&"6b".repeat(1025)), 400, "key-length"),
        (write("\0node/x"), 400, "reserved-key"),
        (hex("00"), 400, "reserved-key"),
        (value(json!(STANDARD.encode(vec![0; (16 << 20) + 1]))), 413, "value-too-large"),
        (
            json!({ "writes": vec![json!({ "key": "b", "value": null }); 100_001] }),
            413,
            "commit-too-large",
        ),
        (json!({ "writes": [{ "key": "b", "value": "" }], "expect_version": 0 }), 409, "conflict"),
        (json!({ "writes": [{ "key": "b", "value": "" }], "expect_version": 2 }), 409, "conflict"),
        (
            json!({ "writes": [{ "key": "b", "value": "" }], "expect_version": -1 }),
            400,
            "malformed",
        ),
        (
            json!({ "writes": [{ "key": "b", "value": "" }], "expect_version": 1_u64 << 53 }),
            400,
            "malformed",
        ),
    ];
    for (body, status, name) in cases {
        running.commit_with(&body, &[]).problem(status, name);
    }
    for name in ["", "x".repeat(256).as_str(), "\u{fc}"] {
        let headers = [("idempotency-key", name)];
        running.commit_with(&write("b"), &headers).problem(400, "malformed");
    }
    let twice = [("idempotency-key", "x"), ("idempotency-key", "y")];
    running.commit_with(&write("b"), &twice).problem(400, "malformed");
    assert_eq!(running.newest(), before);
    // The largest key and an empty value are none of this.
    assert_eq!(running.commit_with(&write(&"k".repeat(1024)), &[]).status, 201);
}

#[test]
fn commits_need_a_token_that_is_known_and_reaches() {
    let directory = tempfile::tempdir().unwrap();
    let engine = format!("fjall:{}", directory.path().join("data").display());
    let config = Config { engine, ..Config::in_memory() };
    Running::start(config.clone()).stop();
    // As an operator would add one.
    let file = directory.path().join("data/tokens.json");
    let mut tokens: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let digest = |token: &str| anwansi_proofs::Digest::of(token.as_bytes()).to_string();
    let list = tokens["tokens"].as_array_mut().unwrap();
    list.push(json!({ "digest": digest("the-submitter"), "scopes": ["submit"] }));
    list.push(json!({ "digest": digest("the-writer"), "scopes": ["write"] }));
    std::fs::write(&file, tokens.to_string()).unwrap();

    let token = "set-by-the-environment";
    let running = Running::start(Config { token: Some(token.into()), ..config });
    let before = running.newest();
    let body = json!({ "writes": [{ "key": "a", "value": "" }] }).to_string();
    let commit = |headers: &[(&str, &str)]| running.post("/v1/commits", headers, body.as_bytes());
    for headers in [
        &[][..],
        &[("authorization", "")],
        &[("authorization", "Bearer")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Bearer x")],
        &[("authorization", "Basic dGhlLXdyaXRlcg==")],
        &[("authorization", &running.token)],
        &[("authorization", "Bearer the-writer"), ("authorization", "Bearer the-writer")],
    ] {
        let refused = commit(headers);
        refused.problem(401, "unauthorized");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    }
    commit(&[("authorization", "Bearer the-submitter")]).problem(403, "forbidden");
    assert_eq!(running.newest(), before);
    for token in ["the-writer", token, &running.token] {
        assert_eq!(commit(&[("authorization", &format!("Bearer {token}"))]).status, 201, "{token}");
    }
}

#[test]
fn methods_that_a_route_does_not_know_are_refused() {
    let (running, before) = with_one_version();
    let cases = [
        ("POST", "/v1/info"),
        ("DELETE", "/v1/state"),
        ("PUT", "/v1/commits"),
        ("GET", "/v1/commits"),
        ("GET", "/v1/proofs"),
        ("PATCH", "/checkpoint"),
        ("BREW", "/v1/versions"),
    ];
    for (method, path) in cases {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let (status, body) = running.raw(request.as_bytes());
        assert_eq!(status, 405, "{method} {path}");
        assert_problem(&serde_json::from_slice(&body).unwrap(), 405, "method-not-allowed");
    }
    assert_eq!(running.newest(), before);
}

#[test]
fn bodies_over_the_limit_are_refused_with_or_without_a_length() {
    let limits = Limits { body_bytes: 1 << 20, ..Limits::default() };
    let running = Running::start(Config { limits, ..Config::in_memory() });
    let before = running.newest();
    let value = STANDARD.encode(vec![7; 1 << 20]);
    let body = json!({ "writes": [{ "key": "a", "value": value }] });
    let problem = running.commit_with(&body, &[]).problem(413, "body-too-large");
    assert_eq!(problem["max"], 1 << 20);

    let head = format!(
        "POST /v1/commits HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n",
        running.token
    );
    let body = body.to_string();
    let chunked =
        format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let (status, answer) = running.raw(chunked.as_bytes());
    assert_eq!(status, 413);
    assert_problem(&serde_json::from_slice(&answer).unwrap(), 413, "body-too-large");
    // One who waits to be asked for a body of a terabyte is not asked.
    let expecting = format!("{head}expect: 100-continue\r\ncontent-length: 1099511627776\r\n\r\n");
    let mut stream = TcpStream::connect(running.server().addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(expecting.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(read_raw(&answer).0, 413);
    assert_eq!(running.newest(), before);
}

#[test]
fn bodies_cut_short_store_nothing() {
    let limits = Limits { timeout: Duration::from_secs(2), ..Limits::default() };
    let running = Running::start(Config { limits, ..Config::in_memory() });
    let before = running.newest();
    // All of the JSON is there, and still the body is not.
    let body = r#"{"writes":[{"key":"a","value":""}]}"#;
    let head = format!(
        "POST /v1/commits HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n",
        running.token
    );
    let short = format!("{head}content-length: {}\r\n\r\n{body}", body.len() + 1);
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", body.len());
    for cut in [&short, &chunked] {
        let (status, answer) = running.raw(cut.as_bytes());
        assert_eq!(status, 400, "{}", String::from_utf8_lossy(&answer));
        assert_problem(&serde_json::from_slice(&answer).unwrap(), 400, "malformed");
    }
    // One who stays and sends nothing more is told.
    let mut stream = TcpStream::connect(running.server().addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(short.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let (status, answer) = read_raw(&answer);
    assert_eq!(status, 408);
    assert_problem(&serde_json::from_slice(&answer).unwrap(), 408, "request-timeout");
    assert_eq!(running.newest(), before);
}

#[test]
fn what_is_no_request_ends_the_connection_and_nothing_else() {
    let (running, before) = with_one_version();
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(200_000));
    for bytes in [&b"\0\0\0\0\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", b"GET", long.as_bytes()] {
        // A connection that is reset while it is still written to is an answer too.
        let mut stream = TcpStream::connect(running.server().addr()).unwrap();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(running.newest(), before);
}

#[test]
fn answers_that_would_be_too_large_are_refused_or_cut() {
    let running = Running::in_memory();
    let value = STANDARD.encode(vec![7; 5 << 20]);
    for key in ["a", "b", "c"] {
        let body = json!({ "writes": [{ "key": key, "value": value }] });
        assert_eq!(running.commit_with(&body, &[]).status, 201);
    }
    running.get("/v1/state?key=a&key=b").problem(413, "answer-too-large");
    let all = json!({ "prefixes": [""] }).to_string();
    running.post("/v1/proofs", &[], all.as_bytes()).problem(413, "answer-too-large");
    let first = running.get("/v1/state/range?prefix=");
    assert_eq!(first.header("anwansi-next"), Some("62"));
    let evidence = first.evidence();
    let checked = evidence.check(&running.policy).unwrap();
    assert_eq!(checked.version().state().unwrap().range(b"", Some(b"b")).unwrap().len(), 1);
}
