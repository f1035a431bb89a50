//! `anwansi`: reads, writes, verifies and watches from the command line.
//!
//! Exit codes:
//!
//! ```text
//! 0  done, and everything there was verified
//! 1  absent: the key that was asked for is proven to have no value
//! 2  the command line, or a file it names, is not right
//! 3  not proven: the answer is refused; the server lies, or is broken
//! 4  unreachable: no answer, or the server is in trouble; try again
//! 5  the server refuses, and says why
//! 6  not applied: it is proven that a transition failed or was cancelled
//! 7  fork: the log signed two histories; both checkpoints are kept
//! 8  no key is trusted for this server yet
//! 9  a file of this program's own cannot be read or written
//! ```
#![forbid(unsafe_code)]

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
