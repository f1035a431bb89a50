//! How long the evidence of a transition is, and how long it takes to make and to check, by its tasks.

use std::time::Instant;

use anwansi_benches::machine::{LEAD, Machine, NODES};
use anwansi_proofs::{Evidence, Finding, Level, Policy};

fn main() {
    let directory = tempfile::tempdir().expect("there is room for temporary files");
    let mut machine = Machine::new(directory.path());
    let policy = Policy::of_log(machine.store.vkey().clone()).expect("it is a log's key");
    println!("tasks | votes | bytes of JSON | a task | decided in s | made in ms | checked in ms");
    for tasks in [1, 135, 10_000] {
        let spec = machine.spec(tasks);
        let start = Instant::now();
        let ids = machine.run(&[spec]);
        let decided = start.elapsed();
        let start = Instant::now();
        let json = machine.store.ledger().evidence(&ids[0], true).expect("it is decided").to_json();
        let made = start.elapsed();
        let start = Instant::now();
        let evidence = Evidence::parse(json.as_bytes()).expect("it was just written");
        let checked = evidence.check(&policy).expect("it is true");
        let verified = start.elapsed();
        assert_eq!(checked.finding(Level::Aggregate), Finding::Verified);
        println!(
            "{tasks} | {} | {} | {} | {:.2} | {:.1} | {:.1}",
            tasks * LEAD as usize,
            json.len(),
            json.len() / tasks,
            decided.as_secs_f64(),
            made.as_secs_f64() * 1e3,
            verified.as_secs_f64() * 1e3,
        );
    }
    println!("lead {LEAD}, {NODES} registered nodes, all honest; results of a few bytes");
}
