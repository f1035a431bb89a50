//! Goal: from the command line alone, nodes join, work and are held to it, and results come with evidence.
//!
//! Method: the built program, several of it at once, against a server in this process with a real ledger.
#![allow(clippy::unwrap_used, reason = "what fails in a test shall fail it")]

mod liar;

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anwansi_proofs::{Apply, Draft, Input, Spec, TaskPolicy};
use liar::{Liar, Lie, TOKEN, start};
use serde_json::Value;
use tempfile::TempDir;

struct Shell {
    liar: Liar,
    directory: TempDir,
}

impl Shell {
    fn new() -> Self {
        Shell { liar: start(), directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().into()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anwansi"));
        command.env_clear().env("ANWANSI_TOKEN", TOKEN).env("ANWANSI_SERVER", &self.liar.url);
        command.arg("--state-dir").arg(self.file("state"));
        command.args(["--vkey", &self.liar.vkey()]).args(arguments);
        command
    }

    /// Runs the program; returns its exit code and all that it printed.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let text = [stdout, stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        assert!(!text.contains(TOKEN) && !text.contains("panicked"), "{text}");
        (status.code().unwrap(), text)
    }

    /// Makes and registers nodes, whose keys are in files of these names.
    fn register(&self, names: &[&str]) {
        for name in names {
            let file = self.path(name);
            assert_eq!(self.run(&["node", "key", &file]).0, 0);
            let (code, text) = self.run(&["node", "register", &file]);
            assert_eq!(code, 0, "{text}");
            assert!(text.contains("registered since version"), "{text}");
        }
    }

    fn work(&self, name: &str) -> Working {
        let (key, results) = (self.path(name), self.path("results"));
        let arguments = ["work", "--key", &key, "--results", &results, "--jobs", "2"];
        let child = self.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        Working(Some(child))
    }
}

/// A node at work, killed when it is dropped.
struct Working(Option<Child>);

impl Working {
    /// Has it stop, and returns its exit code and what it printed.
    fn interrupt(mut self) -> (i32, String) {
        let child = self.0.take().unwrap();
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// Something changed in evidence.
type Alter = fn(&mut Value);

#[test]
fn files_are_run_by_nodes_and_the_result_comes_with_its_evidence() {
    let shell = Shell::new();
    let nodes = ["one", "two", "three"];
    shell.register(&nodes);
    let working = nodes.map(|name| shell.work(name));
    let (short, long) = (shell.path("short"), shell.path("long"));
    fs::write(&short, "the whale\n").unwrap();
    fs::write(&long, "the sea\n".repeat(1000)).unwrap();
    let evidence = shell.path("evidence.json");
    let run =
        ["run", &short, &long, &short, "--program", "wordcount", "--into", "wc", "--lead", "2"];
    let (code, text) = shell.run(&[&run[..], &["--wait", "-o", &evidence]].concat());
    assert_eq!(code, 0, "{text}");
    for said in [
        "3 tasks of wordcount/1, folded by sum_by_key into wc",
        "a lead of 2 votes, from at most 8 of 3 nodes",
        "some task ends without agreement with",
        "task 2: final, 2 agree, 0 dissent, 0 missed, 0 faults",
        "applied: 3 tasks of wordcount/1, nodes drawn from 3 registered",
        "folded by sum_by_key into wc: folded again",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert_eq!(shell.run(&["get", "wc"]).1, "{\"sea\":1000,\"the\":1002,\"whale\":2}\n");
    let id = text.split("transition ").nth(1).unwrap()[..64].to_owned();
    let (code, shown) = shell.run(&["task", "show", &id]);
    assert!(code == 0 && shown.contains("decided in version"), "{shown}");
    // The short input stands in the specification, the long one is a blob.
    let spec = shell.liar.store.ledger().spec(&id.parse().unwrap()).unwrap();
    let spec = String::from_utf8(spec.to_vec()).unwrap();
    assert_eq!((spec.matches("\"blob\"").count(), spec.matches("\"data\"").count()), (1, 2));

    let (code, list) = shell.run(&["node", "list", "--json"]);
    let agreed = list.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let agreed = agreed.map(|node| node["agreed"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!((code, agreed.len(), agreed.iter().sum::<u64>()), (0, 3, 6));
    let key = shell.run(&["node", "key", &shell.path("one")]).1;
    let (code, score) = shell.run(&["node", "score", key.trim()]);
    assert!(code == 0 && score.contains("dissented 0"), "{score}");
    assert_eq!(shell.run(&["node", "score", &"0".repeat(64)]).0, 1);

    let told = working.map(|node| {
        let (code, told) = node.interrupt();
        assert!(code == 0 && told.ends_with("stopped\n"), "{code}: {told}");
        told
    });
    // One of them may have been drawn for nothing.
    let told = told.concat();
    for what in [": pledged ", ": revealed "] {
        assert_eq!(told.matches(what).count(), 6, "{told}");
    }

    let (code, verified) = shell.run(&["verify", &evidence]);
    assert_eq!(code, 0);
    for level in ["finality   verified", "agreement  verified", "aggregate  verified"] {
        assert!(verified.contains(level), "{verified}");
    }
    let whole: Value = serde_json::from_slice(&fs::read(&evidence).unwrap()).unwrap();
    let lies: [(&str, Alter); 4] = [
        ("inclusion", |evidence| evidence["tasks"] = evidence["state"].clone()),
        ("agreement", |evidence| evidence["votes"]["0"] = "".into()),
        ("agreement", |evidence| evidence["pledges"]["1/0"] = "".into()),
        ("aggregate", |evidence| {
            let outputs = evidence["outputs"].as_object_mut().unwrap();
            *outputs.values_mut().next().unwrap() = "e30=".into();
        }),
    ];
    for (level, lie) in lies {
        let mut evidence = whole.clone();
        lie(&mut evidence);
        let file = shell.path("lie.json");
        fs::write(&file, evidence.to_string()).unwrap();
        let (code, text) = shell.run(&["--json", "verify", &file]);
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code, told["level"].as_str()), (3, Some(level)), "{text}");
    }
}

#[test]
fn nodes_that_are_killed_again_and_again_are_never_at_fault() {
    let shell = Shell::new();
    let nodes = ["one", "two", "three"];
    shell.register(&nodes);
    let text = shell.path("text");
    fs::write(&text, "the whale\n").unwrap();
    let files = vec![&*text; 30];
    let run = ["--program", "wordcount", "--into", "wc", "--lead", "2", "--wait"];
    let run = [&["run"][..], &files, &run].concat();
    let over = AtomicBool::new(false);
    let ((code, text), lives) = thread::scope(|scope| {
        let lives = nodes.map(|name| {
            let (shell, over) = (&shell, &over);
            scope.spawn(move || {
                let mut lives: u64 = 0;
                while !over.load(Ordering::SeqCst) {
                    let life = shell.work(name);
                    lives += 1;
                    // From before its first question to after its last answer, and longer each time.
                    thread::sleep(Duration::from_millis(20 + 37 * lives));
                    drop(life);
                }
                lives
            })
        });
        let ended = shell.run(&run);
        over.store(true, Ordering::SeqCst);
        (ended, lives.map(|lives| lives.join().unwrap()))
    });
    assert_eq!(code, 0, "{text}");
    assert!(lives.iter().all(|lives| *lives > 2), "{lives:?}");
    let faults = [" 0 dissent", " 0 missed", " 0 faults"];
    let tasks = text.lines().filter(|line| line.starts_with("task "));
    for task in tasks {
        assert!(faults.iter().all(|none| task.contains(none)), "{task}");
    }
    for what in ["pledges", "reveals"] {
        let wire = shell.liar.wire.lock().unwrap();
        let sent = wire.iter().filter(|(sent, _)| sent == what).map(|(_, body)| body.to_string());
        let mut sent = sent.collect::<Vec<_>>();
        sent.sort();
        sent.dedup();
        // Thirty tasks of two nodes each; a salt tells tasks apart where all results are the same.
        assert_eq!(sent.len(), 60, "{what}: none but one for each place");
    }
}

#[test]
fn what_is_not_applied_is_no_success() {
    let shell = Shell::new();
    shell.register(&["one", "two"]);
    let policy = TaskPolicy { pledge_ms: 800, missed_max: 0, ..TaskPolicy::with_lead(2) };
    let draft = Draft {
        program: "wordcount/1".into(),
        code: None,
        nonce: "once".into(),
        inputs: vec![Input::Data(b"text".to_vec())],
        fold: "sum_by_key".into(),
        into: "wc".into(),
        apply: Apply::Replace,
        spread: false,
        policy,
    };
    let spec = Spec::new(&draft).unwrap();
    let file = shell.path("spec.json");
    fs::write(&file, [spec.bytes(), b"\n"].concat()).unwrap();
    let id = spec.id().to_string();
    let (code, text) = shell.run(&["run", &file]);
    assert!(code == 0 && text.contains(&id), "{text}");
    let (code, text) = shell.run(&["task", "show", &id]);
    assert_eq!(code, 0);
    assert!(
        text.contains("task 0: pledging, round 0, 0 votes") && text.contains("waits for"),
        "{text}"
    );
    assert!(text.contains("nothing is proven"), "{text}");
    assert_eq!(shell.run(&["task", "show", &id, "-o", &shell.path("early")]).0, 2);
    let (code, text) = shell.run(&["task", "show", &id, "--wait"]);
    assert_eq!(code, 6, "{text}");
    assert!(text.contains("task 0: no_agreement") && text.contains("2 missed"), "{text}");
    assert!(text.contains("the server says why"), "{text}");
    assert_eq!(shell.run(&["get", "wc"]).0, 1);
    shell.liar.tell(Lie::Broken);
    assert_eq!(shell.run(&["task", "show", &id]).0, 4);
}

#[test]
fn what_cannot_be_is_said_before_anything_is_sent() {
    let shell = Shell::new();
    shell.register(&["one"]);
    let file = shell.path("file");
    fs::write(&file, "text").unwrap();
    let before = shell.liar.paths.lock().unwrap().len();
    let none = shell.path("none");
    let wordcount = ["--program", "wordcount", "--into", "wc"];
    let refused: [&[&str]; 9] = [
        &["run", &file],
        &["run", &file, &file],
        &["run", &file, "--program", "wordcount"],
        &["run", &file, "--program", "nonsense", "--into", "wc"],
        &["run", &file, "--program", "another/1", "--into", "wc"],
        &["run", &file, "--lead", "2"],
        &["work", "--key", &none],
        &["work", "--key", &shell.path("one"), "--program", "nonsense"],
        &["task", "show", "12"],
    ];
    for arguments in refused {
        let (code, text) = shell.run(arguments);
        assert_eq!(code, 2, "{arguments:?}: {text}");
    }
    for policy in [["--lead", "0"], ["--nodes-max", "5"], ["--error-ppm", "500000"]] {
        let (code, text) = shell.run(&[&["run", &file][..], &wordcount, &policy].concat());
        assert_eq!(code, 2, "{text}");
    }
    assert_eq!(shell.run(&[&["run", &none][..], &wordcount].concat()).0, 2);
    assert_eq!(shell.liar.paths.lock().unwrap().len(), before);
    // One worker a node, and only one that has the key.
    let first = shell.work("one");
    thread::sleep(Duration::from_millis(500));
    let (key, results) = (shell.path("one"), shell.path("results"));
    let (code, text) = shell.run(&["work", "--key", &key, "--results", &results]);
    assert!(code == 9 && text.contains("another worker of this node"), "{text}");
    assert_eq!(first.interrupt().0, 0);
}
