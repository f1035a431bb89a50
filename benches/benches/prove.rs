//! Proofs of single keys: made, and decoded, verified and asked, one by one.
#![allow(missing_docs, reason = "criterion's macro makes an item without")]

use anwansi_benches::filled;
use anwansi_proofs::{Error, Proof, Question};
use anwansi_store::Which;
use criterion::{Criterion, criterion_group, criterion_main};

fn prove(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("there is room for temporary files");
    let (store, keys) = filled(directory.path());
    let latest = store.latest();
    let mut next = keys.iter().cycle();
    criterion.bench_function("prove", |bencher| {
        bencher.iter(|| {
            let key = next.next().expect("keys come round");
            latest.prove(Which::State, &Question::default().key(key))
        });
    });

    let proofs = keys.iter().take(1000).map(|key| {
        let proof = latest.prove(Which::State, &Question::default().key(key));
        (key, proof.expect("the store can be read"))
    });
    let proofs = proofs.collect::<Vec<_>>();
    let root = latest.root();
    let verify = |(key, proof): &(&bytes::Bytes, Vec<u8>)| -> Result<bool, Error> {
        Ok(Proof::decode(proof)?.verify(&root)?.get(key)?.is_some())
    };
    let mut next = proofs.iter().cycle();
    criterion.bench_function("verify", |bencher| {
        bencher.iter(|| verify(next.next().expect("proofs come round")));
    });
    assert!(proofs.iter().all(|proof| verify(proof) == Ok(true)));
}

criterion_group!(benches, prove);
criterion_main!(benches);
