//! Commits of random updates: one caller, each waited for, with its signed root. On fjall each is durable; in
//! memory there is no disk, and what is left is mostly the update of the tree.
#![allow(missing_docs, reason = "criterion's macro makes an item without")]

use anwansi_benches::{SIZES, filled, fjall, updates};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fastrand::Rng;

fn commit(criterion: &mut Criterion) {
    for entries in SIZES {
        let directory = tempfile::tempdir().expect("there is room for temporary files");
        run(criterion, "commit", &fjall(directory.path()), entries, &[1, 100, 10_000]);
        run(criterion, "apply", "memory:", entries, &[100, 10_000]);
    }
}

fn run(criterion: &mut Criterion, name: &str, url: &str, entries: usize, batches: &[usize]) {
    let (store, keys) = filled(url, entries);
    let mut rng = Rng::with_seed(2);
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);
    for count in batches {
        let id = BenchmarkId::new(count.to_string(), entries);
        group.throughput(Throughput::Elements(*count as u64)).bench_function(id, |bencher| {
            let writes = || updates(&mut rng, &keys, *count);
            let commit = |commit| store.commit(commit).expect("the store takes commits");
            bencher.iter_batched(writes, commit, BatchSize::PerIteration);
        });
    }
    group.finish();
    let commit = updates(&mut rng, &keys, 100);
    let done = store.commit(commit.clone()).expect("the store takes commits");
    let latest = store.latest();
    assert_eq!((latest.version(), latest.root()), (done.version, done.state));
    assert_eq!(latest.entries(), entries as u64, "no key was added");
    assert!(commit.writes.iter().all(|(key, value)| latest.get(key).is_ok_and(|is| is == *value)));
}

criterion_group!(benches, commit);
criterion_main!(benches);
