//! Reads of the newest version: random keys, and ranges of 1,000 entries.
#![allow(missing_docs, reason = "criterion's macro makes an item without")]

use anwansi_benches::filled;
use anwansi_store::engine::Direction;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn read(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("there is room for temporary files");
    let (store, keys) = filled(directory.path());
    let latest = store.latest();
    let mut next = keys.iter().cycle();
    criterion.bench_function("get", |bencher| {
        bencher.iter(|| latest.get(next.next().expect("keys come round")));
    });
    assert!(keys.iter().all(|key| latest.get(key).is_ok_and(|value| value.is_some())));

    let mut group = criterion.benchmark_group("range");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("1000", |bencher| {
        bencher.iter(|| {
            let start = next.next().expect("keys come round");
            latest.range(start, None, Direction::Ascending).take(1000).count()
        });
    });
    group.finish();
}

criterion_group!(benches, read);
criterion_main!(benches);
