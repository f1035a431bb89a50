//! Versions that are pruned, pinned, and asked for all the same.

use std::{num::NonZeroU64, process::Command, time::Instant};

use anwansi_proofs::{Digest, Finding, Level};
use anwansi_server::Config;
use anwansi_store::{Keep, Retention};
use serde_json::json;

use super::{
    machine::{decided, draft, open, place, progress, registered, run, submit, vote},
    *,
};

fn keeping(last: u64) -> Config {
    let versions = Retention { last: NonZeroU64::new(last).unwrap(), every: None };
    Config { keep: Keep { versions: Some(versions), decided: None }, ..Config::in_memory() }
}

impl Running {
    fn commits(&self, versions: std::ops::RangeInclusive<u64>) {
        for version in versions {
            assert_eq!(self.commit(&[("key", Some(&version.to_string()))]), version);
        }
    }

    /// Writes the pages of the newest version, and waits until the server has pruned up to `oldest`.
    fn pruned(&self, oldest: u64) {
        self.server().store().flush().unwrap();
        let started = Instant::now();
        while self.get("/v1/info").json()["oldest"] != oldest {
            assert!(started.elapsed() < Duration::from_secs(30), "{}", self.get("/v1/info").text());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn pruned_versions_are_gone_and_what_was_handed_out_stays_valid() {
    let running = Running::start(keeping(3));
    running.commits(1..=8);
    let evidence = running.get("/v1/state?key=key&version=2").evidence();
    let read = running.get("/v1/state?key=key&version=7").header("etag").unwrap().to_owned();
    running.pruned(6);
    for path in [
        "/v1/state?key=key&version=2",
        "/v1/state/range?prefix=k&version=2",
        "/v1/versions/2/changes",
    ] {
        let problem = running.get(path).problem(410, "pruned");
        assert_eq!(problem["oldest"], 6, "{path}");
    }
    let asked = json!({ "version": 2, "keys": ["key"] }).to_string();
    assert_eq!(
        running.post("/v1/proofs", &[], asked.as_bytes()).problem(410, "pruned")["oldest"],
        6
    );
    running.get("/v1/state?key=key&version=9").problem(404, "no-such-version");
    let checked = evidence.check(&running.policy).unwrap();
    assert_eq!(checked.version().state().unwrap().get(b"key").unwrap(), Some(&b"2"[..]));
    // Headers and their finality stay, and so does what is kept.
    assert_eq!(running.get("/v1/versions/2").status, 200);
    assert_eq!(running.get("/v1/versions").json()["versions"].as_array().unwrap().len(), 9);
    let kept = running.get("/v1/state?key=key&version=7");
    assert_eq!(kept.header("etag").unwrap(), read);
    let evidence = kept.evidence();
    let checked = evidence.check(&running.policy).unwrap();
    assert_eq!(checked.version().state().unwrap().get(b"key").unwrap(), Some(&b"7"[..]));
    let metrics = running.get("/metrics").text();
    assert!(metrics.contains("\nanwansi_oldest_version 6\n"), "{metrics}");
    assert!(metrics.contains("\nanwansi_pruned_versions_total 6\n"), "{metrics}");
    running.stop();
}

#[test]
fn pinned_versions_stay_until_they_are_unpinned() {
    let running = Running::start(keeping(1));
    running.commits(1..=4);
    let bearer = running.bearer();
    let token = [("authorization", bearer.as_str())];
    let pins = || running.get("/v1/pins").json()["pins"].clone();
    let pin = |version: &str| running.post(&format!("/v1/pins/{version}"), &token, b"");
    let unpin = |version: &str| running.delete(&format!("/v1/pins/{version}"), &token);

    running.post("/v1/pins/2", &[], b"").problem(401, "unauthorized");
    running.delete("/v1/pins/2", &[]).problem(401, "unauthorized");
    pin("5").problem(404, "no-such-version");
    for wrong in ["x", "-1", "02", "18446744073709551616", "%ff"] {
        pin(wrong).problem(400, "malformed");
        unpin(wrong).problem(400, "malformed");
    }
    unpin("2").problem(404, "no-such-pin");
    assert_eq!(pins(), json!([]));

    for _ in 0..2 {
        assert_eq!(pin("2").json(), json!({ "version": 2, "pinned": true }));
        assert_eq!(pins(), json!([2]));
    }
    running.commits(5..=6);
    running.pruned(2);
    let kept = running.get("/v1/state?key=key&version=2").evidence();
    let checked = kept.check(&running.policy).unwrap();
    assert_eq!(checked.version().state().unwrap().get(b"key").unwrap(), Some(&b"2"[..]));
    pin("3").problem(410, "pruned");

    assert_eq!(unpin("2").json(), json!({ "version": 2, "pinned": false }));
    assert_eq!(pins(), json!([]));
    running.commits(7..=8);
    running.pruned(8);
    running.get("/v1/state?key=key&version=2").problem(410, "pruned");
    running.stop();
}

#[test]
fn votes_and_results_of_pruned_decisions_are_gone_and_their_records_stay() {
    let keep = Keep { versions: None, decided: NonZeroU64::new(3) };
    let running = Running::start(Config { keep, ..Config::in_memory() });
    let nodes = registered(&running, 4);
    let id = run(&running, &nodes, &draft("", &["three"]), b"3");
    let path = format!("/v1/transitions/{id}");
    let evidence = running.get(&format!("{path}/evidence?outputs=true")).evidence();
    let first = progress(&running, &id);
    let version = first["decided"].as_u64().unwrap();
    // Another one with the same result, half way.
    let half = open(&running, &draft("half", &["three"]));
    let place = place(&running, &half, 0, 0);
    assert_eq!(running.get("/v1/info").json()["oldest_decided"], 0);
    for _ in 0..3 {
        running.commit(&[("key", Some("value"))]);
    }
    let started = Instant::now();
    let oldest = loop {
        running.server().store().flush().unwrap();
        let oldest = running.get("/v1/info").json()["oldest_decided"].as_u64().unwrap();
        if oldest > version {
            break oldest;
        }
        assert!(started.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(2));
    };
    for asked in ["evidence", "evidence?outputs=true", "spec", "tasks/0/pledges?round=0"] {
        let problem = running.get(&format!("{path}/{asked}")).problem(410, "pruned");
        assert_eq!((&problem["decided"], &problem["oldest"]), (&json!(version), &json!(oldest)));
    }
    assert_eq!(progress(&running, &id), first);
    submit(&running, &draft("", &["three"])).problem(409, "conflict");
    // What was handed out stays valid.
    let checked = evidence.check(&running.policy).unwrap();
    assert_eq!(checked.finding(Level::Aggregate), Finding::Verified);
    let digest = Digest::of(b"3");
    let gone = || running.get("/metrics").text().contains("\nanwansi_pruned_transitions_total 1\n");
    while !gone() {
        assert!(started.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(2));
    }
    running.get(&format!("/v1/blobs/{digest}")).problem(404, "no-such-blob");
    let metrics = running.get("/metrics").text();
    assert!(metrics.contains(&format!("\nanwansi_oldest_decided_version {oldest}\n")), "{metrics}");
    // The same result again.
    vote(&running, &place, &nodes, b"3", b"3");
    assert_eq!(decided(&running, &half)["outcome"], "applied");
    let evidence = running.get(&format!("/v1/transitions/{half}/evidence?outputs=true")).evidence();
    let checked = evidence.check(&running.policy).unwrap();
    assert_eq!(checked.finding(Level::Aggregate), Finding::Verified);
    assert_eq!(running.get(&format!("/v1/blobs/{digest}")).bytes, b"3");
    running.stop();
}

#[test]
fn the_command_prunes_a_store_that_is_not_open() {
    let directory = tempfile::tempdir().unwrap();
    let engine = format!("fjall:{}", directory.path().join("data").display());
    let prune = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anwansi-server"));
        let output = command.args(["prune", "--engine", &engine]).args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    for (arguments, said) in [
        (&[][..], "give --keep-last"),
        (&["--keep-last", "0"], "keep_last is \"0\""),
        (&["--keep-every", "7"], "give keep_last too"),
        (&["--keep-last", "1", "--keep-every", "0"], "keep_every is \"0\""),
        (&["--keep-decided", "0"], "keep_decided is \"0\""),
        (&["--keep-decided", "2"], "there is no store"),
        (&["--keep-last", "2"], "there is no store"),
    ] {
        let (code, out, error) = prune(arguments);
        assert_eq!((code, &out[..]), (2, ""), "{arguments:?}");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
    let config = Config { engine: engine.clone(), ..Config::in_memory() };
    let running = Running::start(config.clone());
    running.commits(1..=9);
    let (code, _, error) = prune(&["--keep-last", "2"]);
    assert_eq!(code, 2, "{error}");
    running.stop();
    let (code, out, error) = prune(&["--keep-decided", "3"]);
    assert_eq!((code, &error[..]), (0, ""));
    assert!(out.starts_with("0 versions dropped, the oldest kept is 0, the newest 9;"), "{out}");
    assert!(out.contains("0 transitions dropped, decisions are kept from 7 on"), "{out}");
    let (code, out, error) = prune(&["--keep-last", "2", "--keep-every", "4"]);
    assert_eq!((code, &error[..]), (0, ""));
    assert!(out.starts_with("6 versions dropped, the oldest kept is 0, the newest 9;"), "{out}");
    let running = Running::start(config);
    for version in 0..=9 {
        let answer = running.get(&format!("/v1/state?key=key&version={version}"));
        let status = if [0, 4, 8, 9].contains(&version) { 200 } else { 410 };
        assert_eq!(answer.status, status, "{version}");
    }
    running.stop();
}
