//! Goal: the writer acknowledges what is durable, in order, and nothing after a failure.
//!
//! Method: the engine in memory, which counts operations, fails on demand and shows what a crash
//! leaves; where it matters what waits for what, a gate holds its syncs up.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail by panicking too")]

mod common;

use std::{
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anwansi_store::engine::{
    Batch, Direction, Engine, EngineError, Keyspace, Memory, QUEUE_BATCHES_MAX, QUEUE_BYTES_MAX,
    Ticket, Writer,
};
use bytes::Bytes;

use common::Gated;

/// A batch that can be told from others.
fn batch(number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(Keyspace::Headers, number.to_be_bytes().to_vec(), "");
    batch
}

/// The numbers of the batches an engine holds.
fn held(engine: &dyn Engine) -> Vec<u64> {
    engine
        .scan(Keyspace::Headers, Bound::Unbounded, Bound::Unbounded, Direction::Ascending)
        .map(|entry| u64::from_be_bytes(entry.unwrap().0[..].try_into().unwrap()))
        .collect()
}

fn assert_poisoned_by_io(result: Result<(), EngineError>) {
    match result {
        Err(EngineError::Poisoned { cause }) => {
            assert!(matches!(*cause, EngineError::Io { .. }), "{cause:?}");
        }
        other => panic!("not poisoned: {other:?}"),
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn acknowledged_batches_survive_a_crash_and_the_others_leave_a_prefix() {
    let engine = Arc::new(Gated::default());
    let writer = Writer::new(engine.clone()).unwrap();
    engine.open();
    for number in 0..10 {
        writer.write(batch(number)).wait().unwrap();
    }
    assert_eq!(engine.memory.unsynced(), 0);
    let closed = engine.close();
    let tickets: Vec<_> = (10..20).map(|number| writer.write(batch(number))).collect();
    wait_until("the first of them written", || engine.memory.unsynced() > 0);
    for kept in 0..=engine.memory.unsynced() {
        let after = held(&engine.memory.crash(kept));
        assert_eq!(after, (0..10 + kept as u64).collect::<Vec<_>>());
    }
    drop(closed);
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert_eq!(held(&engine.memory.crash(0)), (0..20).collect::<Vec<_>>());
}

#[test]
fn one_sync_serves_all_batches_that_wait_for_it() {
    let engine = Arc::new(Gated::default());
    let writer = Writer::new(engine.clone()).unwrap();
    let first = writer.write(batch(0));
    wait_until("the first batch written", || engine.memory.unsynced() == 1);
    let tickets: Vec<_> = (1..=100).map(|number| writer.write(batch(number))).collect();
    assert!(!first.is_done());
    assert!(tickets.iter().all(|ticket| !ticket.is_done()));
    engine.open();
    first.wait().unwrap();
    for ticket in tickets {
        wait_until("done", || ticket.is_done());
        ticket.wait().unwrap();
    }
    assert_eq!(engine.memory.syncs(), 2, "one for the first, one for the hundred that gathered");
    assert_eq!(held(&engine.memory.crash(0)), (0..=100).collect::<Vec<_>>());
}

#[test]
fn callbacks_run_in_the_order_of_writes_and_when_durable() {
    let engine = Arc::new(Memory::new());
    let writer = Writer::new(engine.clone()).unwrap();
    let (done, order) = mpsc::channel();
    for number in 0..1000 {
        let (done, engine) = (done.clone(), engine.clone());
        writer.write_then(batch(number), move |result| {
            result.unwrap();
            let key = number.to_be_bytes();
            let durable = number % 100 != 0
                || engine.crash(0).get(Keyspace::Headers, &key).unwrap().is_some();
            done.send((number, durable)).unwrap();
        });
    }
    drop((writer, done));
    let order: Vec<_> = order.iter().collect();
    assert_eq!(order, (0..1000).map(|number| (number, true)).collect::<Vec<_>>());
}

#[test]
fn a_failed_sync_poisons_the_writer_and_all_in_flight() {
    let engine = Arc::new(Gated::default());
    let writer = Writer::new(engine.clone()).unwrap();
    let first = writer.write(batch(0));
    wait_until("the first batch written", || engine.memory.unsynced() == 1);
    let second = writer.write(batch(1));
    engine.memory.fail_after(1);
    engine.open();
    assert_poisoned_by_io(first.wait());
    assert_poisoned_by_io(second.wait());
    assert_poisoned_by_io(writer.write(batch(2)).wait());
    drop(writer);
    // One write and one failed sync: nothing was tried after the failure.
    assert_eq!(engine.memory.operations(), 2);
    assert_eq!(engine.memory.syncs(), 0);
}

#[test]
fn a_failed_write_poisons_the_writer_and_is_not_synced_over() {
    let engine = Arc::new(Gated::default());
    let writer = Writer::new(engine.clone()).unwrap();
    let first = writer.write(batch(0));
    wait_until("the first batch written", || engine.memory.unsynced() == 1);
    let tickets: Vec<_> = (1..=4).map(|number| writer.write(batch(number))).collect();
    engine.memory.fail_after(3); // the sync of the first, the write of 1, the write of 2
    engine.open();
    first.wait().unwrap();
    for ticket in tickets {
        assert_poisoned_by_io(ticket.wait());
    }
    assert_poisoned_by_io(writer.write(batch(5)).wait());
    assert_eq!(engine.memory.operations(), 4, "nothing was tried after the failure");
    assert_eq!(held(&engine.memory.crash(0)), [0]);
    assert_eq!(held(&engine.memory.crash(usize::MAX)), [0, 1]);
}

#[test]
fn every_failing_operation_leaves_what_was_acknowledged_and_a_prefix() {
    for nth in 1..=20 {
        let engine = Arc::new(Memory::new());
        engine.fail_after(nth);
        let writer = Writer::new(engine.clone()).unwrap();
        let mut acknowledged = 0;
        while acknowledged < 100 && writer.write(batch(acknowledged)).wait().is_ok() {
            acknowledged += 1;
        }
        assert_eq!(acknowledged, (nth - 1) / 2, "a write and a sync each");
        assert_eq!(held(&engine.crash(0)), (0..acknowledged).collect::<Vec<_>>());
    }
}

#[test]
fn dropping_the_writer_finishes_what_was_queued() {
    let engine = Arc::new(Gated::default());
    let writer = Writer::new(engine.clone()).unwrap();
    let tickets: Vec<_> = (0..50).map(|number| writer.write(batch(number))).collect();
    thread::scope(|scope| {
        scope.spawn(|| drop(writer));
        engine.open();
    });
    assert!(tickets.iter().all(Ticket::is_done));
    assert_eq!(held(&engine.memory.crash(0)), (0..50).collect::<Vec<_>>());
}

#[test]
fn the_queue_is_bounded_in_batches() {
    let engine = Arc::new(Gated::default());
    let writer = Writer::new(engine.clone()).unwrap();
    let first = writer.write(batch(0));
    wait_until("the first batch written", || engine.memory.unsynced() == 1);
    let accepted = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=QUEUE_BATCHES_MAX as u64 + 1 {
                drop(writer.write(batch(number)));
                accepted.fetch_add(1, Ordering::SeqCst);
            }
        });
        wait_until("full", || accepted.load(Ordering::SeqCst) == QUEUE_BATCHES_MAX);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(accepted.load(Ordering::SeqCst), QUEUE_BATCHES_MAX);
        engine.open();
    });
    first.wait().unwrap();
    drop(writer);
    assert_eq!(held(&engine.memory.crash(0)).len(), QUEUE_BATCHES_MAX + 2);
}

#[test]
fn the_queue_is_bounded_in_bytes_but_takes_one_batch_of_any_size() {
    let engine = Arc::new(Gated::default());
    let writer = Writer::new(engine.clone()).unwrap();
    drop(writer.write(batch(0)));
    wait_until("the first batch written", || engine.memory.unsynced() == 1);
    let mut large = Batch::new();
    let value = Bytes::from(vec![0; QUEUE_BYTES_MAX / 2]);
    for key in ["a", "b", "c"] {
        large.put(Keyspace::Values, key, value.clone());
    }
    assert!(large.bytes() > QUEUE_BYTES_MAX);
    drop(writer.write(large)); // the queue is empty: it is let in
    let accepted = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            drop(writer.write(batch(1)));
            accepted.store(1, Ordering::SeqCst);
        });
        thread::sleep(Duration::from_millis(20));
        assert_eq!(accepted.load(Ordering::SeqCst), 0);
        engine.open();
    });
    drop(writer);
    assert_eq!(held(&engine.memory.crash(0)), [0, 1]);
}

#[test]
fn a_panicking_callback_leaves_nobody_waiting() {
    let engine = Arc::new(Gated::default());
    let writer = Writer::new(engine.clone()).unwrap();
    writer.write_then(batch(0), |_| panic!("on purpose, by a test"));
    wait_until("the first batch written", || engine.memory.unsynced() == 1);
    let second = writer.write(batch(1));
    engine.open();
    for result in [second.wait(), writer.write(batch(2)).wait()] {
        match result {
            Err(EngineError::Poisoned { cause }) => {
                assert!(matches!(*cause, EngineError::Unavailable { .. }), "{cause:?}");
            }
            other => panic!("not poisoned: {other:?}"),
        }
    }
}

#[test]
fn second_writer_of_one_engine_is_refused() {
    let engine: Arc<dyn Engine> = Arc::new(Memory::new());
    let first = Writer::new(engine.clone()).unwrap();
    assert!(matches!(Writer::new(engine.clone()), Err(EngineError::Locked { .. })));
    let other: Arc<dyn Engine> = Arc::new(Memory::new());
    assert!(Writer::new(other).is_ok());
    drop(first);
    assert!(Writer::new(engine).is_ok());
}
