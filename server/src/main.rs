//! The command `anwansi-server`.

use std::{
    env, fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anwansi_server::{
    Config, ConfigError, DemoError, LogFormat, Server, Settings, Shown, Stage, TASKS_MAX, TASKS_MIN,
};
use anwansi_store::Keep;
use clap::{Args, Parser, Subcommand};
use mimalloc::MiMalloc;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
};

/// Pages are made on some threads and freed on others, which most allocators find hard.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// A token of every scope; not a flag, since those can be seen by other users of the machine.
const TOKEN_VARIABLE: &str = "ANWANSI_TOKEN";

/// Where the client asks if it is not told another server.
const DEFAULT_URL: &str = "http://127.0.0.1:7171";

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

const DEMO_HELP: &str = "\
State: the cities of the world are loaded, read with proofs, listed, audited, and one
is forged. Computation: 30 nodes count the words of Moby-Dick, chapter by chapter,
each with a key and a client of its own; ten of them err, are silent, or cheat. What
they cost is shown, the votes of all chapters are recounted from their evidence, and
one is forged. It all goes over HTTP, and is believed only as far as it is proven.

Then it serves on, and so do the nodes, until ctrl-c: it prints what to try. All that
was loaded stays in the data directory; the nodes' own results do not.

  anwansi-server demo                            in ./anwansi-data, on port 7171
  anwansi-server demo --once --engine memory:    leaves nothing behind

Exit codes: 0 all was as it must be; 1 it was not, or was interrupted; 2 the command
cannot be carried out as it was given.";

const PRUNE_HELP: &str = "\
The store must not be open elsewhere: a server prunes by itself, while it serves, if
it is started with the same settings. Versions that are not kept can never be read
again; headers, the log, the records of all tasks and the newest state stay. So does
what led to decisions, votes and results, unless --keep-decided is given.

  anwansi-server prune --keep-last 100                       and those that are pinned
  anwansi-server prune --keep-last 100 --keep-every 10000    and each ten-thousandth
  anwansi-server prune --keep-decided 100000                 all versions, and fewer votes

Exit codes: 0 all was freed; 2 the store cannot be pruned as it was given.";

const SIMULATE_HELP: &str = "\
Nodes err independently, together, or lie; they are drawn and vote, in rounds, until
a result has its lead. How often a wrong result was accepted, how often none was, and
how many nodes ran a task is printed beside what is computed for it, next to other
rules: first to a number of votes, and replicas that all run everything. No store,
no network.

  anwansi-server simulate                      the page on standard output
  anwansi-server simulate --tasks 2000         a quick look
  anwansi-server simulate --seed 7 --out docs  the page and its figure in docs/

Exit codes: 0 all measured values lie in their intervals; 1 some do not, and are named;
2 the files cannot be written.";

/// What clap counts in is i64.
const TASKS_RANGE: std::ops::RangeInclusive<i64> = TASKS_MIN as i64..=TASKS_MAX as i64;

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
    /// Show it all: a state with proofs, words counted by faulty nodes, forgeries refused; then serve on
    #[command(after_help = DEMO_HELP)]
    Demo {
        #[command(flatten)]
        given: Given,
        /// End when all was shown, instead of serving on
        #[arg(long)]
        once: bool,
    },
    /// Read and hash again everything that a store holds, and name what is damaged
    Check(Given),
    /// Free what versions and decisions leave that are not kept, as the --keep-... say and pins allow
    #[command(after_help = PRUNE_HELP)]
    Prune(Given),
    /// Play many tasks by chance, and hold what happens against the figures of agreement
    #[command(after_help = SIMULATE_HELP)]
    Simulate {
        /// Where chance begins: the same seed, the same outcome
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
        /// How many tasks are played of each kind
        #[arg(long, value_name = "N", default_value_t = 1_000_000)]
        #[arg(value_parser = clap::value_parser!(u32).range(TASKS_RANGE))]
        tasks: u32,
        /// Where to write simulation.md and simulation.svg, instead of printing the page
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
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
    Prune,
}

fn main() -> ExitCode {
    let Cli { command, serve } = Cli::parse();
    let (given, what) = match command {
        None => (serve, What::Serve),
        Some(Command::Serve(given)) => (given, What::Serve),
        Some(Command::Demo { given, once }) => (given, What::Demo { once }),
        Some(Command::Check(given)) => (given, What::Check),
        Some(Command::Prune(given)) => (given, What::Prune),
        Some(Command::Simulate { seed, tasks, out }) => {
            return simulate(seed, tasks, out.as_deref());
        }
    };
    let mut config = match given.config() {
        Ok(config) => config,
        Err(error) => return refused(&error),
    };
    match what {
        What::Check => return check(&config),
        What::Prune => return prune(&config),
        What::Serve | What::Demo { .. } => {}
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
    // Before anything is printed, so that whoever has read it can end this.
    let mut signalled = pin!(signalled());
    let given = config.token.take();
    let server = match Server::start(Config { token: given.clone(), ..config }).await {
        Ok(server) => server,
        Err(error) => return refused(&error),
    };
    let file = server.token_file().to_owned();
    let token = given.map_or_else(|| fs::read_to_string(&file), Ok);
    let url = format!("http://{}", server.addr());
    let shown = match token {
        Ok(token) => shown(url.clone(), server.vkey().to_string(), token, signalled.as_mut()).await,
        Err(error) => Err(format!("no token to write with, in {}: {error}", file.display())),
    };
    let shown = shown.map(|shown| (!once).then_some(shown));
    if let Ok(Some(shown)) = &shown {
        try_by_hand(shown, &url, &file);
        signalled.await;
    }
    // The nodes first: they would miss the server.
    let shown = spawn_blocking(|| shown.map(drop)).await.expect("nodes end without a panic");
    let closed = server.shutdown().await.map_err(|error| error.to_string());
    match shown.and(closed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("anwansi-server: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo where blocking hinders nobody, until it has ended or a signal ends it.
async fn shown(
    url: String,
    vkey: String,
    token: String,
    signalled: impl Future<Output = ()>,
) -> Result<Shown, String> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let shown = spawn_blocking(move || {
        let stage = Stage { url: &url, vkey: &vkey, token: token.trim() };
        anwansi_server::demo(stage, &stopped).map_err(|error| error.to_string())
    });
    tokio::select! {
        shown = shown => shown.expect("the demo does not panic"),
        () = signalled => {
            stop.store(true, Ordering::SeqCst);
            Err(DemoError::Interrupted.to_string())
        }
    }
}

/// What to do with the server, and with the nodes that work on.
fn try_by_hand(shown: &Shown, url: &str, token_file: &Path) {
    let (id, file) = (shown.transition, token_file.display());
    println!("\nserving on, and so do the nodes, until you press ctrl-c. In another terminal:\n");
    if url != DEFAULT_URL {
        println!("  export ANWANSI_SERVER={url}");
    }
    println!("  anwansi trust --yes");
    println!("  anwansi get moby-dick/whale");
    println!("  anwansi task show {id} -o counted.json");
    println!("  anwansi verify counted.json --get moby-dick/whale");
    println!("  anwansi node list");
    println!("  anwansi --token-file {file} run --program wordcount --into mine --spread \\");
    println!("      --pledge-ms 1500 --reveal-ms 1500 --wait FILE");
}

fn simulate(seed: u64, tasks: u32, out: Option<&Path>) -> ExitCode {
    let simulated = anwansi_server::simulate(seed, tasks);
    let written = match out {
        None => io::stdout().write_all(simulated.page.as_bytes()),
        Some(directory) => fs::create_dir_all(directory)
            .and_then(|()| fs::write(directory.join("simulation.md"), &simulated.page))
            .and_then(|()| fs::write(directory.join("simulation.svg"), &simulated.figure)),
    };
    if let Err(error) = written {
        return refused(&format!("cannot write the simulation: {error}"));
    }
    for value in &simulated.outside {
        eprintln!("anwansi-server: outside of its interval: {value}");
    }
    if simulated.outside.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Ends when the process is asked to, by a signal that comes after this call.
fn signalled() -> impl Future<Output = ()> {
    let handler = |kind| signal(kind).expect("signals can be waited for");
    let (mut terminate, mut interrupt) =
        (handler(SignalKind::terminate()), handler(SignalKind::interrupt()));
    async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

fn prune(config: &Config) -> ExitCode {
    if config.keep == Keep::default() {
        return refused(
            &"give --keep-last, how many of the newest versions are kept, or --keep-decided, of how \
              many the ledger keeps all",
        );
    }
    match anwansi_server::prune(config) {
        Ok(receipt) => {
            println!("{receipt}");
            ExitCode::SUCCESS
        }
        Err(error) => refused(&error),
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
    if report.left > 0 {
        println!("{} records of what was pruned wait for the next pruning", report.left);
    }
    for damage in &report.damages {
        println!("damaged: {damage}");
    }
    if report.damages.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
