//! Transitions of honest nodes, from their submission to their decision, every step durable: votes of one
//! large transition, and many small transitions at once.
#![allow(missing_docs, reason = "criterion's macro makes an item without")]

use anwansi_benches::machine::{LEAD, Machine};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const TASKS: usize = 500;
const TRANSITIONS: usize = 100;

fn ledger(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("there is room for temporary files");
    let mut machine = Machine::new(directory.path());
    let mut group = criterion.benchmark_group("ledger");
    group.sample_size(10);

    group.throughput(Throughput::Elements(u64::from(LEAD) * TASKS as u64));
    group.bench_function("votes", |bencher| {
        let specs = (0..64).map(|_| [machine.spec(TASKS)]).collect::<Vec<_>>();
        let mut specs = specs.into_iter();
        let next = || specs.next().expect("there are enough");
        bencher.iter_batched(next, |specs| machine.run(&specs), BatchSize::PerIteration);
    });

    group.throughput(Throughput::Elements(TRANSITIONS as u64));
    group.bench_function("transitions", |bencher| {
        let mut next = || (0..TRANSITIONS).map(|_| machine.spec(1)).collect::<Vec<_>>();
        let batches = (0..64).map(|_| next()).collect::<Vec<_>>();
        let mut batches = batches.into_iter();
        let next = || batches.next().expect("there are enough");
        bencher.iter_batched(next, |specs| machine.run(&specs), BatchSize::PerIteration);
    });
    group.finish();
    let damages = machine.store.check(|_, _| ()).expect("storage works").damages;
    assert!(damages.is_empty(), "{damages:?}");
}

criterion_group!(benches, ledger);
criterion_main!(benches);
