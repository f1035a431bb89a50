//! The command line: its arguments, where its files are, and what its exit codes mean.

mod agreed;
mod load;
mod log;
mod node;
mod offline;
mod output;
mod run;
mod state;
mod task;
mod work;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anwansi_client::{At, Client, Error, FileMemory, proofs::Policy, proofs::Version, trust};
use clap::{Args, Parser, Subcommand};
use etcetera::BaseStrategy as _;

use output::Output;

const EXIT_CODES: &str = "\
Exit codes:
  0  done, and everything there was verified
  1  absent: the key that was asked for is proven to have no value
  2  the command line, or a file it names, is not right
  3  not proven: the answer is refused; the server lies, or is broken
  4  unreachable: no answer, or the server is in trouble; try again
  5  the server refuses, and says why
  6  not applied: it is proven that a transition failed or was cancelled
  7  fork: the log signed two histories; both checkpoints are kept
  8  no key is trusted for this server yet
  9  a file of this program's own cannot be read or written

Keys and values are shown as text; what is not printable is written \\t \\n \\r \\\\ \\xNN.";

/// Reads, writes and verifies a state that comes with proofs. Nothing is shown that was not verified.
#[derive(Parser)]
#[command(name = "anwansi", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
#[command(next_help_heading = "Options of all commands")]
struct Global {
    /// The server
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "ANWANSI_SERVER",
        default_value = "http://127.0.0.1:7171"
    )]
    server: String,
    /// Trust by this policy file: a log's key, witnesses, a quorum
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "vkey")]
    policy: Option<PathBuf>,
    /// Trust the log with this key, without witnesses
    #[arg(long, global = true, value_name = "VKEY")]
    vkey: Option<String>,
    /// The token that allows writes; better in the environment or a file, where others do not see it
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "ANWANSI_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// A file with the token; it goes before --token
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where pins and remembered checkpoints are kept [default: the user's state directory]
    #[arg(long, global = true, value_name = "DIR", env = "ANWANSI_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Refuse checkpoints that the policy's witnesses did not cosign within this time
    #[arg(long, global = true, value_name = "SECONDS")]
    max_age: Option<u64>,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Show the server's key, and after a yes trust it from now on
    Trust(Trust),
    /// Show the value of a key; exit code 1 if it is proven absent
    Get(state::Get),
    /// Give a key a value
    Put(state::Put),
    /// Remove a key
    Rm(state::Rm),
    /// List the entries from START to END, all of them
    Range(state::Range),
    /// List the entries whose keys start with PREFIX, all of them
    Prefix(state::Prefix),
    /// Commit the lines of a file, key TAB value; run it again to go on where it was interrupted
    Load(load::Load),
    /// Run a program on files, a task each, by nodes that have to agree; or submit a specification
    Run(run::Run),
    /// Look at transitions and their tasks
    #[command(subcommand)]
    Task(task::Task),
    /// Be a node: run tasks, pledge their results, reveal them
    Work(work::Work),
    /// Make a node's key, register nodes, see what each has done
    #[command(subcommand)]
    Node(node::Node),
    /// Save evidence that anyone can verify later, without this server
    Evidence(offline::Save),
    /// Verify evidence in a file, offline
    Verify(offline::Verify),
    /// Check every version of the log, and that its changes lead from each state to the next
    Audit,
    /// Print new versions as they come
    Watch(log::Watch),
}

#[derive(Args)]
struct Trust {
    /// The server [default: --server]
    url: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Which version, and how keys are written: for all commands that read.
#[derive(Args)]
struct Reading {
    /// The version to read [default: the newest]
    #[arg(long = "at", value_name = "VERSION")]
    version: Option<u64>,
    /// Keys and values are hex digits, here and in the output
    #[arg(long)]
    hex: bool,
}

impl Reading {
    fn at(&self) -> At {
        self.version.map_or(At::Newest, |version| At::Version(Version(version)))
    }

    fn bytes(&self, text: &str) -> Result<Vec<u8>, Error> {
        bytes(text, self.hex)
    }
}

/// What the user wrote for bytes.
fn bytes(text: &str, hex: bool) -> Result<Vec<u8>, Error> {
    if !hex {
        return Ok(text.into());
    }
    let why = |error| Error::Usage(format!("{text:?} is not hex: {error}"));
    hex::decode(text).map_err(why)
}

/// How a command ended, if not with an error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Done,
    Absent,
    NotApplied,
}

pub(crate) fn run() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    let mut output = Output::new(global.json);
    let result = match command {
        Command::Trust(trust) => global.trust(&trust, &mut output),
        Command::Get(get) => get.run(&global, &mut output),
        Command::Put(put) => put.run(&global, &mut output),
        Command::Rm(rm) => rm.run(&global, &mut output),
        Command::Range(range) => range.run(&global, &mut output),
        Command::Prefix(prefix) => prefix.run(&global, &mut output),
        Command::Load(load) => load.run(&global, &mut output),
        Command::Run(run) => run.run(&global, &mut output),
        Command::Task(task) => task.run(&global, &mut output),
        Command::Work(work) => work.run(&global, &mut output),
        Command::Node(node) => node.run(&global, &mut output),
        Command::Evidence(save) => save.run(&global, &mut output),
        Command::Verify(verify) => verify.run(&global, &mut output),
        Command::Audit => log::audit(&global, &mut output),
        Command::Watch(watch) => watch.run(&global, &mut output),
    };
    let code = match &result {
        Ok(Ended::Done) => 0,
        Ok(Ended::Absent) => 1,
        Ok(Ended::NotApplied) => 6,
        Err(Error::Usage(_)) => 2,
        Err(Error::NotProven { .. }) => 3,
        Err(Error::Unreachable { .. }) => 4,
        Err(Error::Refused(_)) => 5,
        Err(Error::Forked { .. }) => 7,
        Err(Error::NoTrust { .. }) => 8,
        Err(_) => 9,
    };
    if let Err(error) = result {
        // Somebody who stopped reading has what they wanted.
        if matches!(&error, Error::File { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
        {
            return ExitCode::SUCCESS;
        }
        output.error(&error, code);
    }
    ExitCode::from(code)
}

impl Global {
    fn client(&self) -> Result<Client, Error> {
        let policy = self.trusted()?;
        let memory = FileMemory::new(self.directory()?, policy.origin())?;
        let mut client = Client::connect(&self.server, policy, memory)?;
        if let Some(seconds) = self.max_age {
            client = client.with_age_max(Duration::from_secs(seconds))?;
        }
        Ok(client)
    }

    /// A client that may write, if a token was given.
    fn writer(&self) -> Result<Client, Error> {
        let client = self.client()?;
        let token = match &self.token_file {
            Some(path) => Some(input_file(path)?),
            None => self.token.clone(),
        };
        match token {
            Some(token) => client.with_token(token.trim_end()),
            None => Ok(client),
        }
    }

    /// The policy by which answers are believed.
    fn trusted(&self) -> Result<Policy, Error> {
        match (&self.policy, &self.vkey) {
            (Some(file), _) => trust::of_file(file).map_err(as_usage),
            (None, Some(vkey)) => trust::of_vkey(vkey),
            (None, None) => trust::pinned(&self.directory()?, &self.server)?
                .ok_or_else(|| Error::NoTrust { server: self.server.clone() }),
        }
    }

    fn directory(&self) -> Result<PathBuf, Error> {
        if let Some(directory) = &self.state_dir {
            return Ok(directory.clone());
        }
        let strategy = etcetera::choose_base_strategy();
        let strategy = strategy.map_err(|_| {
            Error::Usage(
                "there is no home directory to keep checkpoints in: give --state-dir".into(),
            )
        })?;
        Ok(strategy.state_dir().unwrap_or_else(|| strategy.data_dir()).join("anwansi"))
    }

    fn trust(&self, trust: &Trust, output: &mut Output) -> Result<Ended, Error> {
        let url = trust.url.as_ref().unwrap_or(&self.server);
        let vkey = trust::offered(url)?;
        if !trust.yes {
            eprintln!("{url} says that its log has the key\n\n  {vkey}\n");
            eprintln!("Compare it with what its operator shows elsewhere: anyone can say so.");
            eprint!("Trust it from now on? [y/N] ");
            let mut answer = String::new();
            io::stdin().read_line(&mut answer).map_err(|error| Error::Usage(error.to_string()))?;
            if !matches!(answer.trim(), "y" | "Y" | "yes") {
                return Err(Error::Usage("nothing is trusted: the answer was not y".into()));
            }
        }
        let path = trust::pin(&self.directory()?, url, &vkey)?;
        output.line(
            || format!("trusted from now on: {vkey}\nkept in {}", path.display()),
            || serde_json::json!({ "vkey": vkey.to_string(), "policy": path }),
        )?;
        Ok(Ended::Done)
    }
}

/// Reads a short file that the user named.
fn input_file(path: &Path) -> Result<String, Error> {
    const BYTES_MAX: u64 = 1 << 20;
    let read = || {
        if std::fs::metadata(path)?.len() > BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too long"));
        }
        std::fs::read_to_string(path)
    };
    read().map_err(|error| named(path, &error))
}

/// What is wrong with a file that the user named is wrong with the command line.
fn named(path: &Path, error: &dyn std::error::Error) -> Error {
    Error::Usage(format!("{}: {error}", path.display()))
}

fn as_usage(error: Error) -> Error {
    match error {
        Error::File { path, source } => named(&path, &source),
        error => error,
    }
}

/// Writes to standard output, which may be closed.
fn print(bytes: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|source| Error::File { path: "standard output".into(), source })
}
