//! Reads: random keys, and ranges of 1,000 entries, of the newest version and of old ones.
#![allow(missing_docs, reason = "criterion's macro makes an item without")]

use anwansi_benches::{SIZES, filled, fjall, updates};
use anwansi_proofs::Version;
use anwansi_store::{Snapshot, engine::Direction};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fastrand::Rng;

/// Entries of a range.
const RANGE: usize = 1000;
/// Old versions that are read one after the other.
const OLD: usize = 100;
/// Old versions that are made again, one after the other: more than the store keeps open.
const REPLAYED: usize = 20;
/// Versions that are applied to make one again, of so many writes each.
const VERSIONS: usize = 10;
const WRITES: usize = 100;
/// Versions of a hundred writes that push older ones out of memory.
const PUSHED: usize = 600;

fn newest(criterion: &mut Criterion) {
    for entries in SIZES {
        let directory = tempfile::tempdir().expect("there is room for temporary files");
        let (store, keys) = filled(&fjall(directory.path()), entries);
        let latest = store.latest();
        let mut next = keys.iter().cycle();
        let mut next = || next.next().expect("keys come round");
        criterion.bench_function(&format!("get/{entries}"), |bencher| {
            bencher.iter(|| latest.get(next()));
        });
        assert!(keys.iter().all(|key| has(&latest, key)));

        let range = |start: &[u8]| latest.range(start, None, Direction::Ascending).take(RANGE);
        let mut group = criterion.benchmark_group("range");
        group.throughput(Throughput::Elements(RANGE as u64));
        group.bench_function(BenchmarkId::new("1000", entries), |bencher| {
            bencher.iter(|| range(next()).count());
        });
        group.finish();
        let found = range(&[]).map(|entry| entry.expect("storage works").0).collect::<Vec<_>>();
        assert!(found.len() == RANGE && found.is_sorted());
    }
}

/// Opens an old version and reads a key that it changed: from memory, and made again from the pages before it
/// and the changes since.
fn old(criterion: &mut Criterion) {
    let entries = SIZES[1];
    let directory = tempfile::tempdir().expect("there is room for temporary files");
    let (store, keys) = filled(&fjall(directory.path()), entries);
    let mut rng = Rng::with_seed(2);
    let mut commit = || {
        let commit = updates(&mut rng, &keys, WRITES);
        let write = commit.writes[0].clone();
        let done = store.commit(commit).expect("the store takes commits");
        (done.version, write.0, write.1.expect("it is no removal"))
    };
    let flushed = |_| {
        store.flush().expect("storage works");
        (0..VERSIONS).map(|_| commit()).last().expect("there are some")
    };
    let replayed = (0..REPLAYED).map(flushed).collect::<Vec<_>>();
    let recent = (0..PUSHED).map(|_| commit()).collect::<Vec<_>>();

    let read = |(version, key, _): &(Version, Bytes, Bytes)| store.at(*version)?.get(key);
    let cases = [("memory", &recent[PUSHED - OLD..]), ("replay", &replayed[..])];
    let mut group = criterion.benchmark_group("old");
    for (name, versions) in cases {
        let mut next = versions.iter().cycle();
        group.bench_function(BenchmarkId::new(name, entries), |bencher| {
            bencher.iter(|| read(next.next().expect("versions come round")));
        });
        assert!(
            versions.iter().all(|old| read(old).is_ok_and(|value| value == Some(old.2.clone())))
        );
    }
    group.finish();
}

fn has(latest: &Snapshot, key: &[u8]) -> bool {
    latest.get(key).expect("storage works").is_some_and(|value| value.len() == 100)
}

criterion_group!(benches, newest, old);
criterion_main!(benches);
