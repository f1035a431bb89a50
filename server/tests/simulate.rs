//! Goal: what happens to tasks is what is computed for them, and the command says so by its exit code.
//!
//! Method: the built program plays a few tasks of every case. Seeds are fixed: each of these stays within the
//! intervals, as all but one in some thousands do. That a value outside is noticed is tested beside the
//! intervals, in `src/simulate/row.rs`.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::{
    fs,
    process::{Command, Output},
};

fn simulate(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_anwansi-server");
    Command::new(program).arg("simulate").args(arguments).env_clear().output().unwrap()
}

#[test]
fn every_measured_value_lies_in_its_interval() {
    for seed in ["1", "2", "3"] {
        let output = simulate(&["--tasks", "2000", "--seed", seed]);
        let (page, errors) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "seed {seed}: {errors}");
        assert_eq!(errors, "");
        assert!(page.contains(&format!("--seed {seed} --tasks 2000")));
        let rows = page.lines().filter(|line| line.starts_with("| ")).count();
        assert_eq!(rows, 4 + 19 + 12 + 6 + 9, "{page}");
    }
}

#[test]
fn the_page_and_its_figure_are_the_same_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let written = ["once", "again"].map(|name| {
        let out = directory.path().join(name);
        let output = simulate(&["--tasks", "2000", "--out", out.to_str().unwrap()]);
        assert!(output.status.success() && output.stdout.is_empty());
        ["simulation.md", "simulation.svg"].map(|file| fs::read_to_string(out.join(file)).unwrap())
    });
    let [page, figure] = &written[0];
    assert!(page.contains("](simulation.svg)") && figure.starts_with("<svg "));
    assert_eq!(written[0], written[1]);
    let printed = simulate(&["--tasks", "2000"]).stdout;
    assert_eq!(*page, String::from_utf8(printed).unwrap());
}

#[test]
fn what_cannot_be_carried_out_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let not_a_directory = file.path().to_str().unwrap();
    for arguments in [&["--tasks", "0"], &["--tasks", "4000000000"], &["--out", not_a_directory]] {
        let mut arguments = arguments.to_vec();
        if arguments[0] == "--out" {
            arguments.extend(["--tasks", "1000"]);
        }
        let output = simulate(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}
