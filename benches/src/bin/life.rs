//! The life of a store, each operation once: load, durable updates, reads, proofs, and opening it again after
//! it was closed and after it was killed. Each stage runs in a process of its own.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anwansi_benches::{
    growth, keys, load,
    process::{field, size},
    updates,
};
use anwansi_proofs::{Proof, Question};
use anwansi_store::{Commit, LogKey, Options, Snapshot, Store, Which, engine, engine::Direction};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use fastrand::Rng;

/// Load a store of random keys, update it, read it, prove from it, and open it again.
#[derive(Clone, Parser)]
#[command(version, about)]
struct Arguments {
    /// The engine: fjall or sled.
    #[arg(long, default_value = "fjall")]
    engine: String,
    /// Entries, of 32-byte keys and 100-byte values.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Random updates of them.
    #[arg(long, default_value_t = 500_000)]
    updates: usize,
    /// Writes of one commit.
    #[arg(long, default_value_t = 10_000)]
    batch: usize,
    /// Commits that are on their way at once; with 1 each is waited for before the next.
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Reads and proofs of single keys.
    #[arg(long, default_value_t = 200_000)]
    reads: usize,
    /// Memory for pages that are stored.
    #[arg(long, default_value_t = 1024)]
    cache_mib: usize,
    /// Where the store is made; it is removed in the end. In the folder for temporary files, if not given.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Do so with 10,000 keys, 30,000 and so on up to --keys, and draw how it grows into this SVG.
    #[arg(long, conflicts_with_all = ["directory", "stage"])]
    growth: Option<PathBuf>,
    /// One stage, for the program's own use: the directory is then left as it is.
    #[arg(long, hide = true)]
    stage: Option<Stage>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Stage {
    /// Load, update, read, prove, close.
    Main,
    /// Open, look, close.
    Reopen,
    /// Commit, and wait to be killed.
    Churn,
}

fn main() {
    let arguments = Arguments::parse();
    match (arguments.stage, &arguments.directory, &arguments.growth) {
        (Some(stage), Some(directory), _) => run(stage, &arguments, directory),
        (_, Some(directory), _) => all(&arguments, directory),
        (_, None, Some(figure)) => grow(&arguments, figure),
        (_, None, None) => {
            let directory = tempfile::tempdir().expect("there is room for temporary files");
            all(&arguments, &directory.path().join("store"));
        }
    }
}

/// Measures one size after the other, and draws them.
fn grow(arguments: &Arguments, figure: &Path) {
    let powers = (4..).flat_map(|power| [10_usize.pow(power), 3 * 10_usize.pow(power)]);
    let sizes = powers.take_while(|keys| *keys <= arguments.keys);
    let points = sizes.map(|keys| {
        let directory = tempfile::tempdir().expect("there is room for temporary files");
        let mut main = start(&Arguments { keys, ..arguments.clone() }, "main", directory.path());
        println!("-- {keys} keys");
        let (mut numbers, mut memory_before) = (HashMap::new(), 0.0);
        let rows = BufReader::new(main.stdout.take().expect("it is piped")).lines();
        for row in rows.map(|row| row.expect("it prints text")) {
            println!("{row}");
            let (name, rest) = row.split_at_checked(ROW).unwrap_or((&row, ""));
            let number = rest.split_whitespace().next().and_then(|number| number.parse().ok());
            numbers.extend(number.map(|number: f64| (name.trim().to_owned(), number)));
            memory_before = numbers.get("memory before").copied().unwrap_or(memory_before);
        }
        ended(main);
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let (keys, disk) = (keys as f64, size(directory.path()) as f64);
        growth::Point {
            keys,
            updates: numbers["durable updates"],
            proof: numbers["proof"] - 32.0 - 100.0,
            memory: (numbers["peak memory"] - memory_before) * 1e6,
            disk,
        }
    });
    let figure_of = growth::figure(&points.collect::<Vec<_>>());
    fs::write(figure, figure_of).expect("the figure can be written");
}

/// Runs the stages one after the other, each in a process of its own.
fn all(arguments: &Arguments, directory: &Path) {
    assert!(!directory.exists(), "{} is there already", directory.display());
    fs::create_dir_all(directory).expect("the directory can be made");
    ended(start(arguments, "main", directory));
    row("disk", &format!("{} MB", size(directory) / 1_000_000));
    println!("-- after a close");
    ended(start(arguments, "reopen", directory));
    let mut child = start(arguments, "churn", directory);
    let mut said = String::new();
    let stdout = child.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut said).expect("it says when it is ready");
    child.kill().expect("it runs");
    // That it was killed is known.
    let _ = child.wait();
    println!("-- after kill -9, {} changes after the last flush at most", said.trim());
    ended(start(arguments, "reopen", directory));
    fs::remove_dir_all(directory).expect("the directory can be removed");
}

/// Starts a stage in a process of its own; what it prints is read here if it is for others than the reader.
fn start(arguments: &Arguments, stage: &str, directory: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    let numbers = [
        ("--keys", arguments.keys),
        ("--updates", arguments.updates),
        ("--batch", arguments.batch),
        ("--in-flight", arguments.in_flight),
        ("--reads", arguments.reads),
        ("--cache-mib", arguments.cache_mib),
    ];
    for (name, number) in numbers {
        command.arg(name).arg(number.to_string());
    }
    command.args(["--engine", &arguments.engine, "--stage", stage, "--directory"]);
    let piped = stage == "churn" || arguments.growth.is_some();
    command.arg(directory).stdout(if piped { Stdio::piped() } else { Stdio::inherit() });
    command.spawn().expect("this program can be started")
}

/// Waits for a stage.
fn ended(mut stage: Child) {
    assert!(stage.wait().expect("it was started").success());
}

fn run(stage: Stage, arguments: &Arguments, directory: &Path) {
    let opened = Instant::now();
    let store = open(arguments, directory);
    let opened = opened.elapsed();
    match stage {
        Stage::Main => main_stage(arguments, store),
        Stage::Reopen => {
            row("open", &seconds(opened));
            let keys = keys(arguments.keys);
            let start = Instant::now();
            let latest = store.latest();
            assert!(latest.get(&keys[0]).expect("storage works").is_some());
            row("first read", &seconds(start.elapsed()));
            row("peak memory", &peak_memory());
            assert_eq!(latest.entries(), arguments.keys as u64);
        }
        Stage::Churn => {
            let keys = keys(arguments.keys);
            update(arguments, &store, &keys, &mut Rng::with_seed(9));
            println!("{}", arguments.updates);
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

fn open(arguments: &Arguments, directory: &Path) -> Store {
    let url = format!("{}:{}", arguments.engine, directory.join("data").display());
    let engine = engine::open(&url).expect("the engine opens");
    let secret = [7; 32];
    let log_key = LogKey::from_secret(secret, None).expect("the name is one");
    let options = Options { cache_bytes: arguments.cache_mib << 20, ..Options::default() };
    Store::open(engine, log_key, &options).expect("the store opens")
}

fn main_stage(arguments: &Arguments, store: Store) {
    let keys = keys(arguments.keys);
    let mut rng = Rng::with_seed(2);

    row("memory before", &peak_memory());
    let written = written_bytes();
    let took = commit_all(arguments, &store, load(&keys, arguments.batch));
    rate("load", "keys/s", arguments.keys, took);
    each("load, written", written_bytes() - written, arguments.keys);

    let written = written_bytes();
    let took = update(arguments, &store, &keys, &mut rng);
    rate("durable updates", "updates/s", arguments.updates, took);
    each("updates, written", written_bytes() - written, arguments.updates);

    let latest = store.latest();
    let picked = (0..arguments.reads).map(|_| rng.usize(..keys.len())).collect::<Vec<_>>();
    let picked = picked.iter().map(|at| &keys[*at]).collect::<Vec<_>>();
    let (took, found) = timed(|| picked.iter().filter(|key| is_there(&latest, key)).count());
    assert_eq!(found, picked.len());
    rate("gets, one thread", "gets/s", picked.len(), took);

    let ranges = picked.len() / 1000;
    let (took, found) = timed(|| {
        let range =
            |start: &&Bytes| latest.range(start, None, Direction::Ascending).take(1000).count();
        picked[..ranges].iter().map(range).sum::<usize>()
    });
    rate("ranges of 1,000", "entries/s", found, took);

    row("peak memory", &peak_memory());
    let prove = |key: &&Bytes| {
        latest.prove(Which::State, &Question::default().key(key)).expect("storage works")
    };
    let root = latest.root();
    let is_right = |(proof, key): &(&Vec<u8>, &&Bytes)| {
        let shown = Proof::decode(proof).and_then(|proof| proof.verify(&root));
        shown.is_ok_and(|shown| matches!(shown.get(key), Ok(Some(_))))
    };
    let (mut made, mut verified, mut bytes) = (Duration::ZERO, Duration::ZERO, 0);
    // No more at once: to keep them all would cost memory, and most of the time.
    for picked in picked.chunks(1000) {
        let (took, proofs) = timed(|| picked.iter().map(prove).collect::<Vec<_>>());
        made += took;
        bytes += proofs.iter().map(Vec::len).sum::<usize>();
        let (took, right) = timed(|| proofs.iter().zip(picked).filter(is_right).count());
        verified += took;
        assert_eq!(right, picked.len());
    }
    rate("proofs made, one thread", "proofs/s", picked.len(), made);
    let bytes = bytes / picked.len();
    row("proof", &format!("{bytes} bytes, {} without the entry", bytes - 32 - 100));
    rate("proofs verified, one thread", "proofs/s", picked.len(), verified);

    drop(latest);
    let (took, ()) = timed(|| drop(store));
    row("close", &seconds(took));
}

/// Updates random keys, and gives how long that took.
fn update(arguments: &Arguments, store: &Store, keys: &[Bytes], rng: &mut Rng) -> Duration {
    let commits = 0..arguments.updates / arguments.batch;
    let commits = commits.map(|_| updates(rng, keys, arguments.batch));
    commit_all(arguments, store, commits)
}

/// Gives how long it took until the last commit was durable; without making the commits, where that is not
/// done while others are on their way.
fn commit_all(
    arguments: &Arguments,
    store: &Store,
    mut commits: impl Iterator<Item = Commit>,
) -> Duration {
    let (sender, answers) = std::sync::mpsc::channel();
    let (start, mut made, mut waiting) = (Instant::now(), Duration::ZERO, 0);
    loop {
        let (took, next) = timed(|| commits.next());
        made += took;
        let Some(commit) = next else { break };
        let sender = sender.clone();
        let answer = move |done: Result<_, _>| {
            done.expect("storage works");
            // Who waits for it waits until the end.
            let _ = sender.send(());
        };
        store.commit_then(commit, Box::new(answer));
        waiting += 1;
        if waiting == arguments.in_flight {
            answers.recv().expect("every commit is answered");
            waiting -= 1;
        }
    }
    (0..waiting).for_each(|_| answers.recv().expect("every commit is answered"));
    let took = start.elapsed();
    if arguments.in_flight == 1 { took.saturating_sub(made) } else { took }
}

fn is_there(latest: &Snapshot, key: &[u8]) -> bool {
    latest.get(key).expect("storage works").is_some_and(|value| value.len() == 100)
}

fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let done = run();
    (start.elapsed(), done)
}

/// Columns of the name of what was measured.
const ROW: usize = 28;

fn row(what: &str, measured: &str) {
    println!("{what:ROW$} {measured}");
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn rate(what: &str, unit: &str, count: usize, took: Duration) {
    row(what, &format!("{:.0} {unit} ({})", count as f64 / took.as_secs_f64(), seconds(took)));
}

fn each(what: &str, bytes: u64, count: usize) {
    row(what, &format!("{} bytes each", bytes / count as u64));
}

fn seconds(took: Duration) -> String {
    format!("{:.3} s", took.as_secs_f64())
}

/// What this process has handed to the disk.
fn written_bytes() -> u64 {
    field("/proc/self/io", "write_bytes:")
}

fn peak_memory() -> String {
    format!("{} MB", field("/proc/self/status", "VmHWM:") * 1024 / 1_000_000)
}
