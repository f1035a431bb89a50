//! Proofs, of single keys and of 100 random keys at once: made, and decoded, verified and asked.
#![allow(missing_docs, reason = "criterion's macro makes an item without")]

use anwansi_benches::{SIZES, filled, fjall, pick};
use anwansi_proofs::{Error, Proof, Question};
use anwansi_store::Which;
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fastrand::Rng;

/// Questions that are asked one after the other.
const QUESTIONS: usize = 1000;

fn prove(criterion: &mut Criterion) {
    for entries in SIZES {
        let directory = tempfile::tempdir().expect("there is room for temporary files");
        let (store, keys) = filled(&fjall(directory.path()), entries);
        let latest = store.latest();
        let root = latest.root();
        for (name, count) in [("one", 1), ("100", 100)] {
            let mut rng = Rng::with_seed(5);
            let asked = (0..QUESTIONS).map(|_| pick(&mut rng, &keys, count)).collect::<Vec<_>>();
            let prove = |keys: &Vec<Bytes>| {
                let question = keys.iter().fold(Question::default(), |all, key| all.key(key));
                latest.prove(Which::State, &question)
            };
            let mut next = asked.iter().cycle();
            let mut group = criterion.benchmark_group("prove");
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(BenchmarkId::new(name, entries), |bencher| {
                bencher.iter(|| prove(next.next().expect("questions come round")));
            });
            group.finish();

            let proofs = asked.iter().map(prove).collect::<Result<Vec<_>, _>>();
            let proofs = proofs.expect("storage works");
            let verify = |(keys, proof): (&Vec<Bytes>, &Vec<u8>)| -> Result<usize, Error> {
                let shown = Proof::decode(proof)?.verify(&root)?;
                let values = keys.iter().map(|key| shown.get(key));
                values.map(|value| Ok(usize::from(value?.is_some()))).sum()
            };
            let mut next = asked.iter().zip(&proofs).cycle();
            let mut group = criterion.benchmark_group("verify");
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(BenchmarkId::new(name, entries), |bencher| {
                bencher.iter(|| verify(next.next().expect("proofs come round")));
            });
            group.finish();
            assert!(asked.iter().zip(&proofs).all(|proof| verify(proof) == Ok(count)));
        }
    }
}

criterion_group!(benches, prove);
criterion_main!(benches);
