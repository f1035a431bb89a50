//! Durable commits of random updates: one caller, batches of 1, 100 and 10,000, each with its signed root.
#![allow(missing_docs, reason = "criterion's macro makes an item without")]

use anwansi_benches::{filled, value};
use anwansi_store::Commit;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fastrand::Rng;

fn commit(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("there is room for temporary files");
    let (store, keys) = filled(directory.path());
    let mut rng = Rng::with_seed(2);
    let mut group = criterion.benchmark_group("commit");
    group.sample_size(20);
    for count in [1, 100, 10_000] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(count.to_string(), |bencher| {
            let writes = || {
                let keys = rng.choose_multiple(keys.iter(), count);
                let writes = keys.into_iter().map(|key| (key.clone(), Some(value(&mut rng))));
                Commit::new(writes.collect())
            };
            let commit = |commit| store.commit(commit).expect("the store takes commits");
            bencher.iter_batched(writes, commit, BatchSize::PerIteration);
        });
    }
    group.finish();
    assert_eq!(store.latest().entries(), keys.len() as u64);
}

criterion_group!(benches, commit);
criterion_main!(benches);
