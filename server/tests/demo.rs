//! Goal: the demo, which takes its time, ends at once when it is interrupted, and says so.
//!
//! Method: the built program is started on a store in memory, and gets SIGINT once it has begun. What it
//! shows is tested where it is made, in src/demo/words.rs; CI runs the whole of it.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How long the end may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn an_interrupted_demo_ends_and_says_so() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_anwansi-server"));
    demo.args(["demo", "--engine", "memory:", "--listen", "127.0.0.1:0", "--log-level", "error"]);
    let mut demo = demo.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("server   http://127.0.0.1:"));
    let start = Instant::now();
    let killed = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let status = demo.wait().unwrap();
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    let mut said = String::new();
    demo.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
}
