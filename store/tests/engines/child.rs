//! The child process: opens a store, writes numbered batches, says which are acknowledged, dies.

use std::{
    collections::VecDeque,
    env,
    io::{BufRead as _, BufReader, Write as _},
    ops::Bound,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anwansi_store::engine::{self, Batch, Direction, Engine, EngineError, Keyspace, Writer};
use bytes::Bytes;

use crate::model;

/// Set for a child: the URL of the store to open.
const URL: &str = "ANWANSI_TEST_URL";
/// Set for a child: how many batches to write, if any.
const BATCHES: &str = "ANWANSI_TEST_BATCHES";
/// Set for a child: how many batches may await their acknowledgement.
const IN_FLIGHT: &str = "ANWANSI_TEST_IN_FLIGHT";

/// Longer than any step takes: what is not done by then hangs.
const HANG: Duration = Duration::from_secs(60);

/// How far behind a batch deletes what an older one has put.
const KEPT: u64 = 5;

/// Not a test, unless run by one or by `fdatasync.sh`.
#[test]
fn child() {
    let Ok(url) = env::var(URL) else { return };
    // Ends the line on which the test harness has put the test's name.
    say("");
    let engine = match engine::open(&url) {
        Ok(engine) => engine,
        Err(EngineError::Locked { .. }) => return say("locked"),
        Err(error) => panic!("{error:?}"),
    };
    say("opened");
    let Ok(batches) = env::var(BATCHES) else { return };
    let in_flight: usize = env::var(IN_FLIGHT).unwrap().parse().unwrap();
    let first = counter(&*engine) + 1;
    let writer = Writer::new(engine).unwrap();
    let mut waiting = VecDeque::new();
    for number in first..first + batches.parse::<u64>().unwrap() {
        waiting.push_back((number, writer.write(batch(number))));
        if waiting.len() == in_flight {
            let (number, ticket) = waiting.pop_front().unwrap();
            ticket.wait().unwrap();
            say(&format!("acknowledged {number}"));
        }
    }
    for (number, ticket) in waiting {
        ticket.wait().unwrap();
        say(&format!("acknowledged {number}"));
    }
}

/// Opens a store in another process and returns what that says: `opened` or `locked`.
pub(crate) fn open(url: &str) -> String {
    let output = command(url).stdout(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let output = String::from_utf8(output.stdout).unwrap();
    output.lines().find(|line| ["opened", "locked"].contains(line)).unwrap().to_owned()
}

/// Has another process write batches and kills it, sometimes while it opens the store, mostly
/// between two acknowledgements. Returns the last acknowledged number, or `last` if there was none.
pub(crate) fn write_and_be_killed(url: &str, last: u64, random: &mut fastrand::Rng) -> u64 {
    let acknowledgements = random.u64(0..60).saturating_sub(6);
    let delay = Duration::from_micros(random.u64(0..20_000));
    let in_flight = random.usize(1..9);
    let mut process = command(url)
        .env(BATCHES, "1000000")
        .env(IN_FLIGHT, in_flight.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (send, lines) = mpsc::channel();
    let output = BufReader::new(process.stdout.take().unwrap());
    let reader = thread::spawn(move || {
        for line in output.lines() {
            if let Some(number) = line.unwrap().strip_prefix("acknowledged ") {
                send.send(number.parse::<u64>().unwrap()).unwrap();
            }
        }
    });
    let mut acknowledged = last;
    for _ in 0..acknowledgements {
        let number = lines.recv_timeout(HANG).expect("the child hangs or has failed");
        assert_eq!(number, acknowledged + 1, "acknowledged out of order");
        acknowledged = number;
    }
    thread::sleep(delay);
    process.kill().unwrap();
    process.wait().unwrap();
    reader.join().unwrap();
    // What it managed to say before it died counts.
    lines.iter().last().unwrap_or(acknowledged)
}

/// Checks that a store holds batches 1 to some number, each whole, and nothing else. Returns the
/// number.
pub(crate) fn assert_prefix(engine: &dyn Engine) -> u64 {
    let last = counter(engine);
    let mut expected = model::Model::default();
    for number in 1..=last {
        expected.apply(&batch(number));
    }
    for space in Keyspace::ALL {
        let first =
            engine.scan(space, Bound::Unbounded, Bound::Unbounded, Direction::Descending).next();
        let first = first.map(|entry| entry.unwrap().0);
        assert!(last == 0 || first.is_some(), "{space:?} is empty, {last} batches in Meta");
    }
    expected.assert_holds(engine);
    last
}

/// The batch of a number: something in every keyspace, of a size that depends on the number, one
/// overwrite and deletes. Some are so large that a kill is likely to meet them half written.
fn batch(number: u64) -> Batch {
    let mut batch = Batch::new();
    let key = Bytes::copy_from_slice(&number.to_be_bytes());
    batch.put(Keyspace::Requests, key.clone(), "");
    batch.put(Keyspace::Headers, key.clone(), model::bytes(number, 330));
    batch.put(Keyspace::Tiles, key.clone(), key.clone());
    batch.put(Keyspace::Pages, key.clone(), model::bytes(number, 2000));
    batch.put(Keyspace::Tasks, key.clone(), model::bytes(number, 900));
    batch.put(Keyspace::Replaced, key.clone(), model::bytes(number, 40));
    batch.put(Keyspace::Undo, key.clone(), model::bytes(number, 300));
    batch.put(Keyspace::Ledger, key.clone(), model::bytes(number, 170));
    batch.put(Keyspace::Blobs, key.clone(), model::bytes(number, 700));
    for chunk in 0..=number % 4 {
        let id = [number.to_be_bytes(), chunk.to_be_bytes()].concat();
        batch.put(Keyspace::Changes, id, model::bytes(number + chunk, 32 << 10));
    }
    let value = if number.is_multiple_of(4) { (4 << 20) + 1 } else { 1025 };
    batch.put(Keyspace::Values, key.clone(), vec![key[7]; value]);
    batch.put(Keyspace::Meta, "counter", key);
    if let Some(old) = number.checked_sub(KEPT) {
        batch.delete(Keyspace::Requests, old.to_be_bytes().to_vec());
        batch.delete(Keyspace::Values, old.to_be_bytes().to_vec());
    }
    batch
}

fn counter(engine: &dyn Engine) -> u64 {
    let value = engine.get(Keyspace::Meta, b"counter").unwrap();
    value.map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()))
}

fn say(line: &str) {
    // One write, so that a kill cannot tear the line.
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn command(url: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child::child", "--nocapture", "--test-threads=1"]).env(URL, url);
    command
}
