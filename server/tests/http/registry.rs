//! Nodes and blobs, and who may do what: tokens, signatures, browsers.

use anwansi_proofs::{Digest, Spec};
use anwansi_server::Config;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    Answer, Running,
    machine::{Node, draft, open, progress, registered, run},
};

/// Sends a request with these headers.
type Send<'a> = Box<dyn Fn(&[(&str, &str)]) -> Answer + 'a>;

#[test]
fn the_registry_lists_nodes_with_their_scores() {
    let running = Running::in_memory();
    let nodes = registered(&running, 5);
    let id = run(&running, &nodes, &draft("", &["x"]), b"1");
    let voted = progress(&running, &id)["tasks"][0]["votes"].as_u64().unwrap();
    let mut keys = nodes.iter().map(|node| node.key().to_string()).collect::<Vec<_>>();
    keys.sort();
    let (mut path, mut seen, mut agreed) = ("/v1/nodes?limit=2".to_owned(), Vec::new(), 0);
    loop {
        let page = running.get(&path).json();
        for node in page["nodes"].as_array().unwrap() {
            let one = running.get(&format!("/v1/nodes/{}", node["key"].as_str().unwrap())).json();
            assert_eq!(&one, node);
            let mine = node["score"]["agreed"].as_u64().unwrap();
            let estimate = if mine == 0 { 0.5 } else { 1.0 / 3.0 };
            assert!((node["error_estimate"].as_f64().unwrap() - estimate).abs() < 1e-12);
            agreed += mine;
            seen.push(node["key"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/nodes?limit=2&from={next}"),
            None => break,
        }
    }
    assert_eq!((seen, agreed), (keys, voted));

    let (path, bearer) = (format!("/v1/nodes/{}", nodes[0].key()), running.bearer());
    let since = running.get(&path).json()["since"].clone();
    // To register again changes nothing.
    assert_eq!(nodes[0].join(&running).status, 200);
    assert_eq!(running.get(&path).json()["since"], since);
    let removed = running.delete(&path, &[("authorization", &bearer)]);
    assert_eq!(removed.status, 200, "{}", removed.text());
    assert!(removed.json()["version"].as_u64() > since.as_u64());
    running.get(&path).problem(404, "unknown-node");
    running.delete(&path, &[("authorization", &bearer)]).problem(404, "unknown-node");
    assert_eq!(running.get("/v1/nodes").json()["nodes"].as_array().unwrap().len(), 4);
}

#[test]
fn blobs_are_refused_under_another_digest() {
    let running = Running::in_memory();
    let bearer = running.bearer();
    let token = [("authorization", bearer.as_str())];
    let digest = Digest::of(b"content");
    let path = format!("/v1/blobs/{digest}");
    let problem = running.put(&path, &token, b"another").problem(422, "wrong-digest");
    assert_eq!(problem["digest"], Digest::of(b"another").to_string());
    running.get(&path).problem(404, "no-such-blob");
    running.put("/v1/blobs/x", &token, b"content").problem(400, "malformed");
    running.put(&path, &token, &vec![0; (16 << 20) + 1]).problem(413, "body-too-large");
    for _ in 0..2 {
        let kept = running.put(&path, &token, b"content");
        assert_eq!(kept.status, 201, "{}", kept.text());
        assert_eq!(kept.json(), json!({ "digest": digest.to_string(), "bytes": 7 }));
    }
    assert_eq!(running.get(&path).bytes, b"content");
    let largest = vec![7; 16 << 20];
    let path = format!("/v1/blobs/{}", Digest::of(&largest));
    assert_eq!(running.put(&path, &token, &largest).status, 201);
    assert!(running.get(&path).bytes == largest);
    let empty = format!("/v1/blobs/{}", Digest::of(b""));
    assert_eq!(running.put(&empty, &token, b"").status, 201);
    assert_eq!((running.get(&empty).status, running.get(&empty).bytes.len()), (200, 0));
}

#[test]
fn nodes_join_only_by_their_own_signature_over_this_log() {
    let running = Running::in_memory();
    let other = Running::in_memory();
    let bearer = running.bearer();
    let put = |node: &Node, body: &Value| {
        let path = format!("/v1/nodes/{}", node.key());
        running.put(&path, &[("authorization", &bearer)], body.to_string().as_bytes())
    };
    let (one, two) = (Node::new(1), Node::new(2));
    put(&one, &two.joins(&running)).problem(403, "bad-signature");
    put(&one, &one.joins(&other)).problem(403, "bad-signature");
    put(&one, &json!({ "signature": STANDARD.encode([0; 64]) })).problem(403, "bad-signature");
    put(&one, &json!({ "signature": "" })).problem(400, "malformed");
    put(&one, &json!({})).problem(400, "malformed");
    put(&one, &json!({ "signature": one.joins(&running)["signature"], "key": 1 }))
        .problem(400, "malformed");
    assert_eq!(running.newest().0, 0);
    assert_eq!(running.get("/v1/nodes").json(), json!({ "nodes": [] }));
    assert_eq!(put(&one, &one.joins(&running)).status, 200);
}

#[test]
fn each_route_asks_for_the_token_that_it_needs() {
    let directory = tempfile::tempdir().unwrap();
    let engine = format!("fjall:{}", directory.path().join("data").display());
    let config = Config { engine, ..Config::in_memory() };
    Running::start(config.clone()).stop();
    let file = directory.path().join("data/tokens.json");
    let mut tokens: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for scope in ["submit", "write"] {
        let token =
            json!({ "digest": Digest::of(scope.as_bytes()).to_string(), "scopes": [scope] });
        tokens["tokens"].as_array_mut().unwrap().push(token);
    }
    std::fs::write(&file, tokens.to_string()).unwrap();
    let running = Running::start(config);
    let nodes = registered(&running, 2);
    let (key, digest) = (nodes[0].key(), Digest::of(b"x"));
    let spec = Spec::new(&draft("", &["x"])).unwrap();
    let joins = nodes[0].joins(&running).to_string();
    let (node, blob) = (format!("/v1/nodes/{key}"), format!("/v1/blobs/{digest}"));
    let cancel = format!("/v1/transitions/{}/cancel", spec.id());
    let routes: [(&str, u16, Send<'_>); 7] = [
        ("submit", 201, Box::new(|token| running.post("/v1/transitions", token, spec.bytes()))),
        ("submit", 200, Box::new(|token| running.post(&cancel, token, b""))),
        ("submit", 201, Box::new(|token| running.put(&blob, token, b"x"))),
        ("admin", 200, Box::new(|token| running.put(&node, token, joins.as_bytes()))),
        ("admin", 200, Box::new(|token| running.delete(&node, token))),
        ("admin", 200, Box::new(|token| running.post("/v1/pins/1", token, b""))),
        ("admin", 200, Box::new(|token| running.delete("/v1/pins/1", token))),
    ];
    for (scope, status, send) in routes {
        let before = running.newest();
        let refused = send(&[]);
        refused.problem(401, "unauthorized");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        send(&[("authorization", "Bearer unknown-to-the-server")]).problem(401, "unauthorized");
        send(&[("authorization", "Bearer write")]).problem(403, "forbidden");
        if scope == "admin" {
            send(&[("authorization", "Bearer submit")]).problem(403, "forbidden");
        }
        assert_eq!(running.newest(), before);
        let token = if scope == "admin" { running.bearer() } else { "Bearer submit".into() };
        let done = send(&[("authorization", &token)]);
        assert_eq!(done.status, status, "{}", done.text());
    }
}

#[test]
fn browsers_of_other_sites_may_vote_and_read_but_not_administer() {
    let running = Running::in_memory();
    let nodes = registered(&running, 2);
    let preflight = |path: &str, method: &str| {
        let asked = format!(
            "OPTIONS {path} HTTP/1.1\r\nhost: x\r\norigin: https://a.example\r\n\
             access-control-request-method: {method}\r\nconnection: close\r\n\r\n"
        );
        let mut stream = std::net::TcpStream::connect(running.server().addr()).unwrap();
        std::io::Write::write_all(&mut stream, asked.as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        let methods = answer.lines().find_map(|line| {
            line.strip_prefix("access-control-allow-methods: ").map(str::to_owned)
        });
        methods.is_some_and(|methods| methods.split(',').any(|it| it == method))
    };
    let id = open(&running, &draft("", &["x"]));
    let key = nodes[0].key();
    assert!(preflight(&format!("/v1/transitions/{id}/tasks/0/pledges"), "POST"));
    assert!(preflight(&format!("/v1/transitions/{id}/tasks/0/reveals"), "POST"));
    assert!(preflight("/v1/events", "GET"));
    assert!(!preflight("/v1/transitions", "POST"));
    assert!(!preflight(&format!("/v1/transitions/{id}/cancel"), "POST"));
    assert!(!preflight(&format!("/v1/nodes/{key}"), "DELETE"));
    assert!(!preflight(&format!("/v1/blobs/{key}"), "PUT"));
    for path in ["/v1/commits", "/v1/transitions", &format!("/v1/transitions/{id}/cancel")] {
        let answer = running.get(path);
        assert_eq!(answer.status, 405);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
    }
    assert_eq!(running.get("/v1/info").header("access-control-allow-origin"), Some("*"));
}
