//! Starting, ending, repeating, and many at once.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    thread,
    time::Duration,
};

use anwansi_proofs::LogProof;
use anwansi_server::{Config, Server};
use serde_json::json;

use super::{Running, read_raw};

fn in_directory(directory: &tempfile::TempDir) -> Config {
    let data = directory.path().join("data");
    Config { engine: format!("fjall:{}", data.display()), ..Config::in_memory() }
}

#[test]
fn a_repeated_request_is_answered_as_the_first_was_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(in_directory(&directory));
    let body =
        json!({ "writes": [{ "key": "a", "value": "MQ==" }, { "key": "b", "value": null }] });
    // The same content in other words.
    let same = json!({ "writes": [{ "key_hex": "62", "value": null }, { "key_hex": "61", "value": "MQ==" }] });
    let other = json!({ "writes": [{ "key": "a", "value": "Mg==" }] });
    let named = [("idempotency-key", "load of monday/1")];
    let first = running.commit_with(&body, &named);
    assert_eq!(first.status, 201);
    assert_eq!(running.commit_with(&other, &[]).json()["version"], 2);
    for repeat in [&body, &same] {
        let again = running.commit_with(repeat, &named);
        assert_eq!((again.status, again.json()), (201, first.json()));
    }
    // Each thing that a commit says makes it another.
    let write = |key: &str, value: Option<&str>| json!({ "key": key, "value": value });
    for differs in [
        other.clone(),
        json!({ "writes": [write("a", Some("Mg==")), write("b", None)] }),
        json!({ "writes": [write("a", Some("MQ==")), write("b", Some(""))] }),
        json!({ "writes": [write("a", Some("MQ==")), write("c", None)] }),
        json!({ "writes": [write("a", Some("MQ==")), write("b", None)], "expect_version": 0 }),
    ] {
        running.commit_with(&differs, &named).problem(422, "idempotency-mismatch");
    }
    let before = running.newest();
    let (token, vkey) = (running.token.clone(), running.server().vkey().clone());
    running.stop();

    let running = Running::start(in_directory(&directory));
    assert_eq!((&running.token, running.server().vkey()), (&token, &vkey));
    assert_eq!(running.commit_with(&same, &named).json(), first.json());
    running.commit_with(&other, &named).problem(422, "idempotency-mismatch");
    assert_eq!(running.newest(), before);
    // Without the name it is a commit like any other.
    assert_eq!(running.commit_with(&body, &[]).json()["version"], 3);
}

#[test]
fn concurrent_commits_are_all_there_and_proven() {
    const CALLERS: usize = 8;
    const COMMITS: usize = 20;
    let running = Running::in_memory();
    let one = |caller: usize, i: usize| {
        let key = format!("{caller}/{i}");
        let version = running.commit(&[(&key, Some("x"))]);
        // What was answered can be read, and proven, at once.
        let evidence = running.get(&format!("/v1/state?key={key}")).evidence();
        let checked = evidence.check(&running.policy).unwrap();
        assert!(checked.version().header().version().0 >= version);
        assert_eq!(
            checked.version().state().unwrap().get(key.as_bytes()).unwrap(),
            Some(&b"x"[..])
        );
    };
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            scope.spawn(move || (0..COMMITS).for_each(|i| one(caller, i)));
        }
    });
    let evidence = running.get("/v1/state/range?prefix=").evidence();
    let checked = evidence.check(&running.policy).unwrap();
    let entries = checked.version().state().unwrap().prefix(b"").unwrap();
    assert_eq!(entries.len(), CALLERS * COMMITS);
}

#[test]
fn one_of_many_who_expect_the_same_version_wins() {
    let running = Running::in_memory();
    let commit = |caller: usize| {
        let write = json!({ "key": "seat", "value": "", });
        let other = json!({ "key": format!("{caller}"), "value": "" });
        running.commit_with(&json!({ "writes": [write, other], "expect_version": 0 }), &[]).status
    };
    let statuses = thread::scope(|scope| {
        let callers = (0..8).map(|caller| scope.spawn(move || commit(caller)));
        let callers = callers.collect::<Vec<_>>();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 7, "{statuses:?}");
    assert_eq!(running.newest().0, 1);
}

#[test]
fn shutdown_finishes_a_request_that_was_begun() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(in_directory(&directory));
    let server = running.server.take().unwrap();
    let body = r#"{"writes":[{"key":"late","value":""}]}"#;
    let head = format!(
        "POST /v1/commits HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
        running.token,
        body.len()
    );
    let mut stream = TcpStream::connect(server.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let addr = server.addr();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body.as_bytes()[..10]).unwrap();
    thread::sleep(Duration::from_millis(300));
    let ending = running.runtime.spawn(server.shutdown());
    thread::sleep(Duration::from_millis(300));
    // Nobody new is taken, the request is.
    assert!(TcpStream::connect(addr).is_err());
    stream.write_all(&body.as_bytes()[10..]).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let (status, answer) = read_raw(&answer);
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&answer));
    running.runtime.block_on(ending).unwrap().unwrap();

    let running = Running::start(in_directory(&directory));
    let evidence = running.get("/v1/state?key=late").evidence();
    let checked = evidence.check(&running.policy).unwrap();
    assert_eq!(checked.version().state().unwrap().get(b"late").unwrap(), Some(&b""[..]));
}

#[test]
fn keys_and_tokens_are_for_their_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(in_directory(&directory));
    let data = directory.path().join("data");
    assert_eq!(running.server().token_file(), data.join("admin-token"));
    for name in ["admin-token", "tokens.json", "log.key"] {
        let mode = fs::metadata(data.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let kept = fs::read_to_string(data.join("tokens.json")).unwrap();
    assert!(!kept.contains(&running.token));
    running.stop();
    // One that others can read is not believed.
    let file = data.join("tokens.json");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(Server::start(in_directory(&directory))).unwrap_err();
    assert!(error.to_string().contains("make it 600"), "{error}");
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let start = |config| runtime.block_on(Server::start(config)).unwrap_err().to_string();
    let unknown = Config { engine: "paper:./x".into(), ..Config::in_memory() };
    assert!(start(unknown).contains("known are fjall:PATH"));
    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("letter"), "dear").unwrap();
    let engine = format!("fjall:{}", foreign.path().display());
    assert!(start(Config { engine, ..Config::in_memory() }).contains("someone else"));
    assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 1);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    assert!(start(Config { listen, ..Config::in_memory() }).contains("cannot listen"));
    let short = Config { token: Some("short".into()), ..Config::in_memory() };
    assert!(start(short).contains("token"));
}

#[test]
fn the_log_goes_on_where_it_was_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = BTreeSet::new();
    for round in 1..=3_u64 {
        let running = Running::start(in_directory(&directory));
        assert_eq!(running.commit(&[("round", Some(&round.to_string()))]), round);
        let one = running.get(&format!("/v1/versions/{round}")).json();
        let proof: LogProof = one["finality"].as_str().unwrap().parse().unwrap();
        let header = one["header"].as_str().unwrap();
        assert_eq!(proof.verify(header.as_bytes(), &running.policy).unwrap().size(), round + 1);
        let first = running.get("/v1/versions?limit=1").json()["versions"][0].to_string();
        seen.insert(first);
        running.stop();
    }
    assert_eq!(seen.len(), 1, "version 0 stays as it was");
}
