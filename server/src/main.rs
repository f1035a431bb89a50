//! The command `anwansi-server`.

use std::{
    env, fs,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anwansi_server::{Config, ConfigError, LogFormat, Server, Settings};
use clap::{Args, Parser, Subcommand};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
};

/// A token of every scope; not a flag, since those can be seen by other users of the machine.
const TOKEN_VARIABLE: &str = "ANWANSI_TOKEN";

const AFTER_HELP: &str = "\
Settings are taken from flags, then from the environment, then from --config FILE
(TOML, the names of the flags with _ for -), then from the defaults. ANWANSI_TOKEN
sets a token of every scope; otherwise the first token lies in the file admin-token
in the data directory, which only its owner can read.

  anwansi-server                                    a store in ./anwansi-data on port 7171
  anwansi-server --engine memory: --listen [::1]:0  for a try: gone when it ends
  curl -H \"Authorization: Bearer $(cat anwansi-data/admin-token)\" http://127.0.0.1:7171/v1/commits \\
       -d '{\"writes\":[{\"key\":\"greeting\",\"value\":\"aGVsbG8=\"}]}'
  curl 'http://127.0.0.1:7171/v1/state?key=greeting'  the value with its proof

Exit codes: 0 all is well; 1 the server failed, or check found damage; 2 the command
cannot be carried out as it was given.";

/// Keeps state, and answers every question about it with a proof.
#[derive(Parser)]
#[command(name = "anwansi-server", version, args_conflicts_with_subcommands = true)]
#[command(after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Given,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a store over HTTP (what is done without a subcommand)
    #[command(after_help = AFTER_HELP)]
    Serve(Given),
    /// Load the cities of the world, prove and verify some, refuse a forgery, and go on serving
    Demo {
        #[command(flatten)]
        given: Given,
        /// End when all was shown, instead of serving on
        #[arg(long)]
        once: bool,
    },
    /// Read and hash again everything that a store holds, and name what is damaged
    Check(Given),
}

#[derive(Args)]
struct Given {
    /// A file with settings
    #[arg(long, env = "ANWANSI_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl Given {
    fn config(self) -> Result<Config, ConfigError> {
        let file = self.config.map(|file| Settings::read(&file)).transpose()?;
        self.settings.or(file.unwrap_or_default()).check()
    }
}

enum What {
    Serve,
    Demo { once: bool },
    Check,
}

fn main() -> ExitCode {
    let Cli { command, serve } = Cli::parse();
    let (given, what) = match command {
        None => (serve, What::Serve),
        Some(Command::Serve(given)) => (given, What::Serve),
        Some(Command::Demo { given, once }) => (given, What::Demo { once }),
        Some(Command::Check(given)) => (given, What::Check),
    };
    let mut config = match given.config() {
        Ok(config) => config,
        Err(error) => return refused(&error),
    };
    if let What::Check = what {
        return check(&config);
    }
    config.token = match env::var(TOKEN_VARIABLE) {
        Ok(token) => Some(token),
        Err(env::VarError::NotPresent) => None,
        Err(error @ env::VarError::NotUnicode(_)) => {
            // The error would repeat the token.
            drop(error);
            return refused(&format!("{TOKEN_VARIABLE} is not UTF-8"));
        }
    };
    log_to_stderr(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("the operating system gives threads");
    if let What::Demo { once } = what {
        return runtime.block_on(demo(config, once));
    }
    match runtime.block_on(async { anwansi_server::serve(config, signalled()).await }) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        // Logged where it was met.
        Ok(Err(_)) => ExitCode::FAILURE,
        Err(error) => refused(&error),
    }
}

fn refused(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("anwansi-server: {error}");
    ExitCode::from(2)
}

fn log_to_stderr(config: &Config) {
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(config.log_level)
        .with_target(false);
    match config.log {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// Starts a server, shows what it can do, and serves on unless it shall end.
async fn demo(mut config: Config, once: bool) -> ExitCode {
    let given = config.token.take();
    let server = match Server::start(Config { token: given.clone(), ..config }).await {
        Ok(server) => server,
        Err(error) => return refused(&error),
    };
    let file = server.token_file().to_owned();
    let token = given.map_or_else(|| fs::read_to_string(&file), Ok);
    let (url, vkey) = (format!("http://{}", server.addr()), server.vkey().to_string());
    let shown = match token {
        Ok(token) => {
            let shown = spawn_blocking(move || anwansi_server::demo(&url, &vkey, token.trim()));
            tokio::select! {
                shown = shown => shown.expect("the demo does not panic").map_err(|error| error.to_string()),
                () = signalled() => Err("interrupted; what was loaded stays".to_owned()),
            }
        }
        Err(error) => Err(format!("no token to write with, in {}: {error}", file.display())),
    };
    if shown.is_ok() && !once {
        println!("\nserving on, until you press ctrl-c");
        signalled().await;
    }
    let closed = server.shutdown().await.map_err(|error| error.to_string());
    match shown.and(closed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("anwansi-server: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends when the process is asked to.
async fn signalled() {
    let handler = |kind| signal(kind).expect("signals can be waited for");
    let (mut terminate, mut interrupt) =
        (handler(SignalKind::terminate()), handler(SignalKind::interrupt()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn check(config: &Config) -> ExitCode {
    let (terminal, mut shown) = (io::stderr().is_terminal(), None);
    let progress = |done: u64, all: u64| {
        let percent = done * 100 / all.max(1);
        // Each percent for people, each tenth for files.
        let step = if terminal { percent } else { percent / 10 * 10 };
        if shown.replace(step) != Some(step) {
            let (start, end) = if terminal { ("\r", "") } else { ("", "\n") };
            eprint!("{start}checking: {step:3} % of {all} versions{end}");
            // Nothing depends on whether the progress is seen.
            let _ = io::stderr().flush();
        }
    };
    let report = anwansi_server::check(config, progress);
    if terminal {
        eprintln!();
    }
    let report = match report {
        Ok(report) => report,
        Err(error) => return refused(&error),
    };
    println!(
        "{} versions, {} values of their own, {} flushes and {} pages are as they were written",
        report.versions, report.values, report.flushes, report.pages
    );
    for damage in &report.damages {
        println!("damaged: {damage}");
    }
    if report.damages.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
