//! A store that keeps its last versions, beside one that keeps all: throughput, disk and memory while both are updated,
//! each in a process of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    num::NonZeroU64,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anwansi_benches::{
    figure::{Line, Panel, figure, plain},
    keys, load,
    process::{field, size},
    updates,
};
use anwansi_store::{LogKey, Options, Receipt, Retention, Store, engine};
use clap::{Parser, ValueEnum};
use fastrand::Rng;

/// Updates a store of random keys version by version, first without and then with a retention, and prints every so many
/// versions what it takes.
#[derive(Parser)]
#[command(version, about, args_override_self = true)]
struct Arguments {
    /// The engine: fjall or sled.
    #[arg(long, default_value = "fjall")]
    engine: String,
    /// Entries, of 32-byte keys and 100-byte values.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Versions that update them.
    #[arg(long, default_value_t = 200)]
    versions: usize,
    /// Keys that each of them updates.
    #[arg(long, default_value_t = 10_000)]
    batch: usize,
    /// Versions that are kept.
    #[arg(long, default_value = "10")]
    keep_last: NonZeroU64,
    /// Memory for pages that are stored.
    #[arg(long, default_value_t = 1024)]
    cache_mib: usize,
    /// Versions from one row to the next.
    #[arg(long, default_value_t = 10)]
    every: usize,
    /// Runs, of which medians are taken.
    #[arg(long, default_value = "1")]
    runs: NonZeroU64,
    /// Draw the medians of all runs into this SVG.
    #[arg(long)]
    figure: Option<PathBuf>,
    /// Where the stores are made; they are removed in the end. In the folder for temporary files, if not given.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// One store, for the program's own use: the directory is then left as it is.
    #[arg(long, hide = true)]
    part: Option<Part>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// All versions are kept.
    All,
    /// The last ones are.
    Last,
}

/// What it took up to some version: the median and the most milliseconds of a commit, and megabytes.
#[derive(Clone, Copy)]
struct Row {
    version: f64,
    median: f64,
    most: f64,
    disk: f64,
    memory: f64,
}

impl Row {
    /// The one that was printed so, if it is one.
    fn parse(line: &str) -> Option<Self> {
        let numbers = line.split_whitespace().map(|number| number.parse().ok());
        let numbers = numbers.collect::<Option<Vec<_>>>()?;
        let [version, median, most, disk, memory] = numbers[..] else { return None };
        Some(Row { version, median, most, disk, memory })
    }
}

/// What was measured of a store.
#[derive(Default)]
struct Measured {
    rows: Vec<Row>,
    /// A second.
    updates: f64,
}

fn main() {
    let arguments = Arguments::parse();
    let temporary = tempfile::tempdir().expect("there is room for temporary files");
    let directory = arguments.directory.as_deref().unwrap_or(temporary.path());
    if let Some(part) = arguments.part {
        return run(&arguments, part, directory);
    }
    let (mut runs, mut shares) = (Vec::new(), Vec::new());
    for _ in 0..arguments.runs.get() {
        let [all, last] = [Part::All, Part::Last].map(|part| measure(part, directory));
        shares.push(last.updates / all.updates * 100.0);
        println!("throughput with pruning: {:.0} % of that without", shares[shares.len() - 1]);
        runs.push([all, last]);
    }
    println!("median of {} runs: {:.0} %", shares.len(), median(shares));
    if let Some(file) = &arguments.figure {
        fs::write(file, drawn(&arguments, &runs)).expect("the figure can be written");
    }
}

/// Measures one store in a process of its own, and removes it.
fn measure(part: Part, directory: &Path) -> Measured {
    let directory = directory.join("store");
    assert!(!directory.exists(), "{} is there already", directory.display());
    let part = part.to_possible_value().expect("each has a name");
    let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
        .args(std::env::args_os().skip(1))
        .args(["--part", part.get_name(), "--directory"])
        .arg(&directory)
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be started");
    let mut measured = Measured::default();
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        let line = line.expect("it prints text");
        println!("{line}");
        measured.rows.extend(Row::parse(&line));
        if let Some(updates) = line.strip_suffix(" updates/s") {
            measured.updates = updates.parse().expect("it prints numbers");
        }
    }
    assert!(child.wait().expect("it was started").success());
    fs::remove_dir_all(&directory).expect("the directory can be removed");
    measured
}

fn run(arguments: &Arguments, part: Part, directory: &Path) {
    let last = arguments.keep_last;
    let retention = match part {
        Part::All => None,
        Part::Last => Some(Retention { last, every: None }),
    };
    match part {
        Part::All => println!("-- all versions are kept"),
        Part::Last => println!("-- the last {last} versions are kept"),
    }
    fs::create_dir_all(directory).expect("the directory can be made");
    let url = format!("{}:{}", arguments.engine, directory.join("data").display());
    let receipts: Arc<Mutex<Vec<Receipt>>> = Arc::default();
    let noted = receipts.clone();
    let options = Options {
        cache_bytes: arguments.cache_mib << 20,
        retention,
        pruned: Arc::new(move |receipt| {
            let receipt = receipt.as_ref().expect("pruning works").clone();
            noted.lock().expect("nobody panics").push(receipt);
        }),
        ..Options::default()
    };
    let engine = engine::open(&url).expect("the engine opens");
    let key = LogKey::from_secret([7; 32], None).expect("the name is one");
    let store = Store::open(engine, key, &options).expect("the store opens");
    let keys = keys(arguments.keys);
    for commit in load(&keys, arguments.batch) {
        store.commit(commit).expect("the store takes commits");
    }
    println!(
        "{:>8} {:>10} {:>10} {:>10} {:>10}",
        "versions", "median ms", "most ms", "disk MB", "memory MB"
    );
    let mut rng = Rng::with_seed(2);
    let (mut took, mut all) = (Vec::new(), Duration::ZERO);
    for version in 1..=arguments.versions {
        let commit = updates(&mut rng, &keys, arguments.batch);
        let started = Instant::now();
        store.commit(commit).expect("the store takes commits");
        took.push(started.elapsed());
        all += started.elapsed();
        if version % arguments.every == 0 {
            took.sort_unstable();
            let milliseconds = |took: Duration| took.as_secs_f64() * 1e3;
            println!(
                "{version:>8} {:>10.1} {:>10.1} {:>10} {:>10}",
                milliseconds(took[took.len() / 2]),
                milliseconds(took[took.len() - 1]),
                size(directory) / 1_000_000,
                field("/proc/self/status", "VmRSS:") * 1024 / 1_000_000,
            );
            took.clear();
        }
    }
    let live = store.latest().bytes();
    if let Some(retention) = &retention {
        let receipt = store.prune(retention).expect("the store can be pruned");
        receipts.lock().expect("nobody panics").push(receipt);
        for receipt in receipts.lock().expect("nobody panics").iter() {
            println!("{receipt}");
        }
    }
    disk("then", directory, live);
    store.close().expect("the store closes");
    drop(store);
    disk("closed", directory, live);
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let rate = (arguments.versions * arguments.batch) as f64 / all.as_secs_f64();
    println!("{rate:.0} updates/s");
}

/// Prints what the store takes on disk.
#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn disk(when: &str, directory: &Path, live: u64) {
    let disk = size(directory);
    let times = disk as f64 / live as f64;
    println!("{when}: {} MB on disk, {times:.2} times the keys and values", disk / 1_000_000);
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// The figure of the medians of all runs.
fn drawn(arguments: &Arguments, runs: &[[Measured; 2]]) -> String {
    let last = format!("the last {}", arguments.keep_last);
    let names = ["all", &last];
    let panel = |title, subtitle, value: fn(&Row) -> f64| {
        let line = |part: usize| {
            let point = |at: usize| {
                let values = runs.iter().map(|run| value(&run[part].rows[at])).collect();
                (runs[0][part].rows[at].version, median(values))
            };
            let points = (0..runs[0][part].rows.len()).map(point).collect();
            Line { name: names[part], points }
        };
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let range = 0.0..arguments.versions as f64;
        let lines = vec![line(0), line(1)];
        Panel { title, subtitle, over: "versions", range, place: plain, value: plain, lines }
    };
    let panels = [
        panel("Disk, MB", "journals of the engine included", |row| row.disk),
        panel("Memory, MB", "of the process, keys of its own included", |row| row.memory),
        panel("Milliseconds for a commit", "the median since the point before", |row| row.median),
        panel("The longest of them", "milliseconds since the point before", |row| row.most),
    ];
    figure(&panels, (2, 2), (1000, 640))
}
