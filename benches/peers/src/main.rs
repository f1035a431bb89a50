//! The same workload through Anwansi and through other authenticated stores, side by side.
//!
//! ```text
//! anwansi-peers [--peers a,b] [--rounds 3]     the parent: takes turns, keeps results, prints tables   main.rs
//!     |                                                                                                report.rs
//!     +-- anwansi-peers run --peer a           one process a peer and round: prints one line of JSON   workload.rs
//!             |
//!             +-- trait Peer                   anwansi, nomt, commonware, jmt                          peers/
//! ```
#![forbid(unsafe_code)]

mod peers;
mod report;
mod workload;

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, Subcommand};
use mimalloc::MiMalloc;
use serde::{Deserialize, Serialize};

use crate::{
    peers::Name,
    workload::{Measured, Place, Shape},
};

/// The same workload through Anwansi and through other authenticated stores.
#[derive(Parser, Debug)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<RunOne>,
    #[command(flatten)]
    compare: Compare,
}

#[derive(Subcommand, Debug)]
enum RunOne {
    /// Take one peer through the workload, in this process, and print what was measured as a line of JSON
    Run {
        #[arg(long)]
        peer: Name,
        #[command(flatten)]
        shape: Shape,
        /// An empty directory for the peer's files
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Args, Debug)]
struct Compare {
    #[command(flatten)]
    shape: Shape,
    /// The peers, in the order of their turns
    #[arg(long, value_delimiter = ',', default_values_t = Name::ALL)]
    peers: Vec<Name>,
    /// How often each peer has its turn
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Where the peers keep their files, which are removed after each turn [default: a temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Results, one a line: what is in it already is not measured again
    #[arg(long, default_value = "results.jsonl")]
    out: PathBuf,
    /// A turn that takes longer has failed
    #[arg(long, default_value_t = 60)]
    timeout_minutes: u64,
}

/// One turn of one peer, as a line of the results file.
#[derive(Debug, Serialize, Deserialize)]
struct Turn {
    peer: Name,
    round: u32,
    shape: Shape,
    outcome: Outcome,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Measured(Measured),
    /// Why there are no numbers.
    Failed(String),
}

/// For all peers the same.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(RunOne::Run { peer, shape, dir }) => {
            let place = Place { directory: dir, keys: shape.keys };
            println!("{}", serde_json::to_string(&peer.run(&place, shape)?)?);
            Ok(())
        }
        None => compare(&cli.compare),
    }
}

fn compare(options: &Compare) -> Result<()> {
    let mut turns = load(&options.out)?;
    turns.retain(|turn| turn.shape == options.shape);
    let temporary = tempfile::tempdir()?;
    let directory = options.dir.as_deref().unwrap_or(temporary.path());
    for round in 1..=options.rounds {
        for &peer in &options.peers {
            let is_done = |turn: &Turn| {
                (turn.peer, turn.round) == (peer, round)
                    && matches!(turn.outcome, Outcome::Measured(_))
            };
            if turns.iter().any(is_done) {
                continue;
            }
            eprintln!("{peer}, round {round} of {}", options.rounds);
            let outcome = take_turn(peer, options, directory)?;
            if let Outcome::Failed(reason) = &outcome {
                eprintln!("{peer} failed: {reason}");
            }
            let turn = Turn { peer, round, shape: options.shape, outcome };
            append(&options.out, &turn)?;
            turns.retain(|other| (other.peer, other.round) != (peer, round));
            turns.push(turn);
        }
    }
    turns.retain(|turn| options.peers.contains(&turn.peer) && turn.round <= options.rounds);
    print!("{}", report::markdown(&options.shape, &options.peers, &turns));
    Ok(())
}

/// Runs one peer in a process of its own, on an empty directory.
///
/// # Errors
/// If the process cannot be started or its files cannot be made; what goes wrong in it is an outcome.
fn take_turn(peer: Name, options: &Compare, directory: &Path) -> Result<Outcome> {
    fs::create_dir_all(directory)?;
    let work = tempfile::Builder::new().prefix(&format!("{peer}-")).tempdir_in(directory)?;
    let (stdout, stderr) = (work.path().join("stdout"), work.path().join("stderr"));
    let shape = options.shape;
    let numbers = [
        ("--keys", shape.keys),
        ("--updates", shape.updates),
        ("--batch", shape.batch),
        ("--gets", shape.gets),
        ("--proofs", shape.proofs),
    ];
    // What the turn before has left to be written is written first.
    ensure!(Command::new("sync").status()?.success(), "sync failed");
    let child = Command::new(env::current_exe()?)
        .args(["run", "--peer", &peer.to_string(), "--dir"])
        .arg(work.path().join("data"))
        .args(numbers.iter().flat_map(|(name, number)| [(*name).to_owned(), number.to_string()]))
        // The reason is to come first, and to be all there is.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(File::create(&stdout)?)
        .stderr(File::create(&stderr)?)
        .spawn()?;
    let limit = Duration::from_secs(options.timeout_minutes * 60);
    let Some(status) = wait(child, limit)? else {
        return Ok(Outcome::Failed(format!("not done after {} minutes", options.timeout_minutes)));
    };
    let (stdout, stderr) = (fs::read(stdout)?, fs::read(stderr)?);
    if !status.success() {
        let said =
            String::from_utf8_lossy(&stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        let said = said.chars().take(500).collect::<String>();
        return Ok(Outcome::Failed(format!("{status}: {said}")));
    }
    let measured =
        serde_json::from_slice(&stdout).context("the peer's process printed no result")?;
    Ok(Outcome::Measured(measured))
}

/// Waits for `child` to end, and ends it if it has not after `limit`.
fn wait(mut child: Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The turns in `file`. A last line that is not whole is from a process that was ended: it does not count.
fn load(file: &Path) -> Result<Vec<Turn>> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(file)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let turn = |(number, line)| {
        serde_json::from_str(line)
            .with_context(|| format!("line {} of {} is no result", number + 1, file.display()))
    };
    whole.lines().enumerate().map(turn).collect()
}

/// Adds `turn` to `file`.
fn append(file: &Path, turn: &Turn) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    let line = format!("{}\n", serde_json::to_string(turn)?);
    file.write_all(line.as_bytes())?;
    Ok(file.sync_data()?)
}
