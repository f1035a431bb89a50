//! Goal: the command line says what is so, and its exit code agrees.
//!
//! Method: the built program against a server in this process that is told to lie where it should fail.
#![allow(clippy::unwrap_used, reason = "what fails in a test shall fail it")]

mod liar;

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output},
};

use liar::{Liar, Lie, TOKEN, commit, start};
use serde_json::Value;
use tempfile::TempDir;

struct Shell<'a> {
    liar: &'a Liar,
    directory: TempDir,
}

impl Shell<'_> {
    fn new(liar: &Liar) -> Shell<'_> {
        Shell { liar, directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Runs the program without any trust.
    fn bare(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anwansi"));
        command.env_clear().env("ANWANSI_TOKEN", TOKEN).env("ANWANSI_SERVER", &self.liar.url);
        command.arg("--state-dir").arg(self.path()).args(arguments).output().unwrap()
    }

    /// Runs the program with the key of the true log; returns its exit code and what it printed.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let vkey = self.liar.vkey();
        let output = self.bare(&[&["--vkey", &vkey], arguments].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!error.contains(TOKEN) && !text.contains(TOKEN), "the token is shown");
        assert!(!error.contains("panicked"), "{error}");
        (output.status.code().unwrap(), text)
    }
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let liar = start();
    let shell = Shell::new(&liar);
    assert_eq!(shell.run(&["get", "key"]), (0, "value\n".into()));
    assert_eq!(shell.run(&["get", "nobody"]).0, 1);
    assert_eq!(shell.run(&["get", ""]).0, 2);
    assert_eq!(shell.run(&["get", "--hex", "6k"]).0, 2);
    assert_eq!(shell.run(&["frobnicate"]).0, 2);
    liar.tell(Lie::EmptyTree);
    assert_eq!(shell.run(&["get", "key"]), (3, String::new()));
    liar.tell(Lie::Broken);
    assert_eq!(shell.run(&["get", "key"]).0, 4);
    liar.tell(Lie::None);
    assert_eq!(shell.run(&["--token", "wrong", "put", "key", "other"]).0, 5);
    assert_eq!(shell.run(&["get", "key", "--at", "77"]).0, 5);
    let output = shell.bare(&["get", "key"]);
    assert_eq!(output.status.code(), Some(8));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(&format!("anwansi trust {}", liar.url)), "{error}");
    liar.tell(Lie::Fork);
    assert_eq!(shell.run(&["get", "other"]), (7, String::new()));
    liar.tell(Lie::None);
    assert_eq!(shell.run(&["get", "key"]), (7, String::new()));
}

#[test]
fn a_pin_is_trust() {
    let liar = start();
    let shell = Shell::new(&liar);
    let refused = shell.bare(&["trust", &liar.url]);
    assert_eq!(refused.status.code(), Some(2), "nobody said yes");
    assert_eq!(shell.bare(&["trust", &liar.url, "--yes"]).status.code(), Some(0));
    assert_eq!(shell.bare(&["get", "key"]).stdout, b"value\n");
}

#[test]
fn entries_are_written_read_and_listed() {
    let liar = start();
    let shell = Shell::new(&liar);
    assert_eq!(shell.run(&["put", "tab", "a\tb"]).0, 0);
    assert_eq!(shell.run(&["get", "tab"]), (0, "a\\tb\n".into()));
    assert_eq!(shell.run(&["get", "tab", "--raw"]), (0, "a\tb".into()));
    assert_eq!(shell.run(&["get", "746162", "--hex"]), (0, "610962\n".into()));
    assert_eq!(shell.run(&["rm", "tab"]).0, 0);
    assert_eq!(shell.run(&["get", "tab"]).0, 1);
    let all = "list/a\t1\nlist/b\t2\nlist/c\t3\n";
    assert_eq!(shell.run(&["prefix", "list/"]), (0, all.into()));
    assert_eq!(shell.run(&["range", "list/", "list/c"]), (0, all[..18].into()));
    assert_eq!(shell.run(&["prefix", "list/", "--limit", "1"]), (0, all[..9].into()));
    let (code, json) = shell.run(&["get", "key", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (code, json["value"].as_str(), json["key"].as_str()),
        (0, Some("dmFsdWU="), Some("key"))
    );
}

#[test]
fn evidence_is_verified_offline_and_refused_by_its_level() {
    let liar = start();
    let shell = Shell::new(&liar);
    let file = shell.path().join("evidence.json");
    let path = file.to_str().unwrap();
    assert_eq!(shell.run(&["evidence", "key", "nobody", "--prefix", "list/", "-o", path]).0, 0);
    let vkey = liar.vkey();
    // Another state directory, and no server.
    let stranger = Shell::new(&liar);
    let verify = |shell: &Shell<'_>, path: &str| {
        let output =
            shell.bare(&["--vkey", &vkey, "--server", "http://127.0.0.1:1", "verify", path]);
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = verify(&stranger, path);
    assert_eq!(code, 0);
    assert!(
        text.contains("finality   verified") && text.contains("aggregate  not shown"),
        "{text}"
    );
    let answer = stranger.run(&["verify", path, "--get", "key", "--get", "nobody"]).1;
    assert!(answer.ends_with("key\tvalue\nnobody\t-\n"), "{answer}");
    assert_eq!(stranger.run(&["verify", path, "--get", "other"]).0, 3);

    let mut evidence: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    evidence["votes"] = serde_json::json!({});
    std::fs::write(&file, evidence.to_string()).unwrap();
    let (code, text) = verify(&stranger, path);
    assert_eq!((code, text), (3, String::new()), "there are votes, and no specification");

    evidence.as_object_mut().unwrap().remove("votes");
    let state = evidence["state"].as_str().unwrap();
    let swapped = if state.ends_with('=') { "AA==" } else { "AAAA" };
    evidence["state"] = format!("{}{swapped}", &state[..state.len() - 4]).into();
    std::fs::write(&file, evidence.to_string()).unwrap();
    assert_eq!(verify(&stranger, path).0, 3);
    assert_eq!(verify(&stranger, "no such file").0, 2);
}

#[test]
fn an_audit_passes_on_the_truth_and_names_what_is_not() {
    let liar = start();
    let shell = Shell::new(&liar);
    let (code, text) = shell.run(&["audit"]);
    assert_eq!(code, 0);
    assert!(text.contains("4 versions, 7 changes"), "{text}");
    liar.tell(Lie::Change(2));
    let output = shell.bare(&["--vkey", &liar.vkey(), "audit"]);
    assert_eq!(output.status.code(), Some(3));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("(version 2)"), "{error}");
}

#[test]
fn watch_prints_versions_as_they_are_proven() {
    let liar = start();
    let shell = Shell::new(&liar);
    let (code, text) = shell.run(&["watch", "--from", "1", "--count", "3", "--json"]);
    let versions = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["version"].as_u64().unwrap()
    });
    assert_eq!((code, versions.collect::<Vec<_>>()), (0, vec![1, 2, 3]));
    liar.tell(Lie::HeaderSwapped);
    assert_eq!(shell.run(&["watch", "--from", "2", "--count", "1"]).0, 3);
}

/// Ten lines, of which the last but one has the key of the first but one.
fn lines() -> String {
    let line = |i: i32| format!("city/{}\t{i},0\n", if i == 8 { 7 } else { i });
    (0..10).map(line).collect()
}

/// Loads `lines` in one go, and returns the roots of the versions that it made.
fn uninterrupted() -> Vec<String> {
    let liar = start();
    let shell = Shell::new(&liar);
    let file = shell.path().join("cities.tsv");
    std::fs::write(&file, lines()).unwrap();
    assert_eq!(shell.run(&["load", file.to_str().unwrap(), "--batch", "3"]).0, 0);
    roots(&liar)
}

fn roots(liar: &Liar) -> Vec<String> {
    let newest = liar.store.latest().version().0;
    let root = |version| liar.store.at(anwansi_proofs::Version(version)).unwrap().root();
    (4..=newest).map(|version| root(version).to_string()).collect()
}

#[test]
fn a_load_goes_on_after_a_cut_and_no_batch_becomes_two_versions() {
    let whole = uninterrupted();
    // 0 1 2, 3 4 5, 6 7, 7 9
    assert_eq!(whole.len(), 4);
    for lose_progress in [false, true] {
        let liar = start();
        let shell = Shell::new(&liar);
        let file = shell.path().join("cities.tsv.gz");
        let zipped = std::fs::File::create(&file).unwrap();
        let mut zipped = flate2::write::GzEncoder::new(zipped, flate2::Compression::fast());
        zipped.write_all(lines().as_bytes()).unwrap();
        zipped.finish().unwrap();
        let load = || shell.run(&["load", file.to_str().unwrap(), "--batch", "3"]).0;
        // Each time what was made before is acknowledged, one batch more is made, and nobody is told.
        liar.tell(Lie::CutNew);
        for cut in 1..=4 {
            assert_eq!(load(), 4);
            assert_eq!(roots(&liar).len(), cut);
            if lose_progress {
                let _ = std::fs::remove_dir_all(shell.path().join("loads"));
            } else if cut > 1 {
                let other = ["load", file.to_str().unwrap(), "--batch", "4"];
                assert_eq!(shell.run(&other).0, 2, "other batches would be other versions");
            }
        }
        assert_eq!(load(), 0);
        assert_eq!(roots(&liar), whole);
    }
}

#[test]
fn a_wrong_line_stores_nothing() {
    let liar = start();
    let shell = Shell::new(&liar);
    let file = shell.path().join("bad.tsv");
    let long = format!("{}\t1\n", "k".repeat(1025));
    for bad in ["no tab\n", "\tno key\n", "\0reserved\t1\n", &long] {
        std::fs::write(&file, format!("good\t1\n{bad}")).unwrap();
        let output = shell.bare(&["--vkey", &liar.vkey(), "load", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{bad}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("line 2"), "{bad}");
        assert_eq!(liar.store.latest().version().0, 3);
    }
    std::fs::write(&file, "").unwrap();
    assert_eq!(shell.run(&["load", file.to_str().unwrap()]).0, 0);
    commit(&liar.store, &[("still", Some("there"))]);
}
