//! A store that keeps its last versions, beside one that keeps all: throughput, disk and memory while both are updated.

use std::{
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anwansi_benches::{
    keys, load,
    process::{field, size},
    updates,
};
use anwansi_store::{LogKey, Options, Receipt, Retention, Store, engine};
use clap::Parser;
use fastrand::Rng;

/// Updates a store of random keys version by version, first without and then with a retention, and prints every so many
/// versions what it takes.
#[derive(Parser)]
struct Arguments {
    /// The engine
    #[arg(long, default_value = "fjall")]
    engine: String,
    /// How many keys there are
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// How many versions are made of them
    #[arg(long, default_value_t = 200)]
    versions: usize,
    /// How many keys each of them updates
    #[arg(long, default_value_t = 10_000)]
    batch: usize,
    /// How many versions are kept
    #[arg(long, default_value = "10")]
    keep_last: NonZeroU64,
    /// The cache for pages
    #[arg(long, default_value_t = 1024)]
    cache_mib: usize,
    /// After how many versions a row is printed
    #[arg(long, default_value_t = 10)]
    every: usize,
    /// Where the stores are made, instead of in the directory for temporary files
    #[arg(long)]
    directory: Option<PathBuf>,
}

fn main() {
    let arguments = Arguments::parse();
    let temporary = tempfile::tempdir().expect("there is room for temporary files");
    let directory = arguments.directory.as_deref().unwrap_or(temporary.path());
    let all = run(&arguments, None, &directory.join("all"));
    let last = Retention { last: arguments.keep_last, every: None };
    let kept = run(&arguments, Some(last), &directory.join("last"));
    println!("throughput with pruning: {:.0} % of that without", kept / all * 100.0);
}

/// Gives updates a second.
fn run(arguments: &Arguments, retention: Option<Retention>, directory: &Path) -> f64 {
    match retention {
        Some(Retention { last, .. }) => println!("-- the last {last} versions are kept"),
        None => println!("-- all versions are kept"),
    }
    std::fs::create_dir_all(directory).expect("the directory can be made");
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
        println!("settled: {}", store.prune(retention).expect("the store can be pruned"));
    }
    for receipt in receipts.lock().expect("nobody panics").iter() {
        println!("{receipt}");
    }
    store.close().expect("the store closes");
    drop(store);
    let disk = size(directory);
    println!("closed: {} MB on disk, {} MB of keys and values", disk / 1_000_000, live / 1_000_000);
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let rate = (arguments.versions * arguments.batch) as f64 / all.as_secs_f64();
    println!("{rate:.0} updates/s");
    rate
}
