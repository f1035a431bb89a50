//! Goal: a load that is cut by kill -9 of the server, again and again, ends as one that never was: each
//! acknowledged batch stays, each batch is one version, and what was signed is never taken back.
//!
//! Method: the built program serves a store on disk, and a client loads batches into it under their names,
//! as `anwansi load` does. At seeded moments the server is killed while a batch is on its way. Then it is
//! started again, all that was acknowledged is read with proofs, by a client that remembers the newest
//! checkpoint seen before the kill, and the load goes on at the first batch that was not acknowledged.
//! The roots to compare with are those of a store in memory that nobody interrupts.
//!
//! ```text
//! sent     written, synced     in a signed checkpoint     answer on its way     answered     proven
//!   |-------------|----------------------|------------------------|----------------|-----------|
//!   After: anywhere from here to twice the usual time           Held        acknowledged from here
//! ```
//!
//! What a killed process has written the operating system keeps: that a power cut, too, leaves what was
//! synced is for the store's tests.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::{
    collections::HashSet,
    io::{self, BufRead as _, BufReader, Read as _},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anwansi_client::{
    At, Client, Error, InMemory, Write,
    proofs::{Digest, Policy, Root, Version},
    trust,
};
use anwansi_store::{Commit, LogKey, Options, Store, engine};
use fastrand::Rng;
use flate2::read::GzDecoder;

const SEED: u64 = 1;
const CITIES: &[u8] = include_bytes!("../data/cities.tsv.gz");
const BATCHES: usize = 120;
const ENTRIES: usize = 20;
/// Batches before the first kill, to learn how long a commit takes.
const CALM: usize = 8;
const KILLS_MIN: usize = 50;
const TOKEN: &str = "of-a-test-and-of-nothing-else";
/// How long anything may take that should take no time.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is loaded, and what must come of it.
struct Data {
    /// Of the file that the batches were cut from.
    digest: Digest,
    batches: Vec<Vec<Write>>,
    /// The state's root at each version, in a load that nothing interrupts.
    roots: Vec<Root>,
}

impl Data {
    /// Cities from all over the file, none of them twice.
    fn new() -> Self {
        let lines = BufReader::new(GzDecoder::new(CITIES)).lines().map(Result::unwrap);
        let lines = lines.step_by(71).take(BATCHES * ENTRIES).collect::<Vec<_>>();
        let digest = Digest::of((lines.join("\n") + "\n").as_bytes());
        let write = |line: &String| {
            let (key, value) = line.split_once('\t').unwrap();
            Write { key: key.into(), value: Some(value.into()) }
        };
        let writes = lines.iter().map(write).collect::<Vec<_>>();
        let keys = writes.iter().map(|write| &write.key).collect::<HashSet<_>>();
        assert_eq!(keys.len(), BATCHES * ENTRIES);
        let batches = writes.chunks(ENTRIES).map(<[Write]>::to_vec).collect::<Vec<_>>();
        let roots = uninterrupted(&batches);
        Data { digest, batches, roots }
    }

    /// The name under which `anwansi load` sends a batch.
    fn batch_name(&self, number: usize) -> String {
        let number = u64::try_from(number).unwrap();
        Digest::of(&[&self.digest.0[..], &number.to_be_bytes()].concat()).to_string()
    }
}

fn uninterrupted(batches: &[Vec<Write>]) -> Vec<Root> {
    let engine = engine::open("memory:").unwrap();
    let store = Store::open(engine, LogKey::generate(None).unwrap(), &Options::default()).unwrap();
    let mut roots = vec![store.latest().root()];
    for batch in batches {
        let write = |write: &Write| (write.key.clone().into(), write.value.clone().map(Into::into));
        roots.push(store.commit(Commit::new(batch.iter().map(write).collect())).unwrap().state);
    }
    roots
}

/// The built program, serving; killed when it is dropped.
struct Server {
    child: Child,
    url: String,
    vkey: String,
}

impl Server {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_anwansi-server"))
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "json", "--engine"])
            .arg(format!("fjall:{}", directory.join("data").display()))
            .env_clear()
            .env("ANWANSI_TOKEN", TOKEN)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut server = Server { child, url: String::new(), vkey: String::new() };
        let mut lines = stderr.lines().map(Result::unwrap);
        let mut log = Vec::new();
        let line = lines
            .by_ref()
            .inspect(|line| log.push(line.clone()))
            .find(|line| line.contains("\"listening\""));
        let line = line.unwrap_or_else(|| panic!("the server does not start: {log:#?}"));
        // Read on, so that the server never waits for its log; ends with it.
        thread::spawn(move || lines.for_each(drop));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        line["address"].as_str().unwrap().clone_into(&mut server.url);
        line["vkey"].as_str().unwrap().clone_into(&mut server.vkey);
        server
    }

    fn client(&self, policy: &Policy, memory: &Arc<InMemory>) -> Client {
        let client = Client::connect(&self.url, policy.clone(), memory.clone()).unwrap();
        client.with_token(TOKEN).unwrap()
    }

    /// Sends SIGKILL, and returns when the process is gone.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// When the server is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after a batch was sent, in thousandths of what a commit usually takes.
    After(u32),
    /// While the answer is held on its way, and once a checkpoint with the batch was seen elsewhere.
    Held,
}

/// What happens at an attempt to send a batch: the same each time that the test is run.
fn moment(batch: usize, attempt: u64) -> Option<Moment> {
    if batch < CALM {
        return None;
    }
    let mut rng = Rng::with_seed(SEED << 32 | (batch as u64) << 16 | attempt);
    match rng.u8(..8) {
        0..5 => Some(Moment::After(rng.u32(..2000))),
        5 => Some(Moment::Held),
        _ => None,
    }
}

/// Passes on what one client sends to `server`, and no answer: `came` is told once there is one.
///
/// Ends when both sides have closed.
fn hold_answer(listener: &TcpListener, server: &str, came: &mpsc::Sender<()>) {
    let (client, _) = listener.accept().unwrap();
    let mut server = TcpStream::connect(server).unwrap();
    let mut answer = server.try_clone().unwrap();
    answer.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut asking = client.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || io::copy(&mut asking, &mut server));
        let read = answer.read(&mut [0; 1]).unwrap();
        assert_eq!(read, 1, "the server closed without an answer");
        came.send(()).unwrap();
        // To the end, which is the server's.
        let _ = io::copy(&mut answer, &mut io::sink());
        client.shutdown(Shutdown::Both).unwrap();
    });
}

/// What the kills hit.
#[derive(Debug, Default)]
struct Hits {
    kills: usize,
    /// No answer came, and there was no version.
    before_write: usize,
    /// No answer came, and there was a version.
    written_unanswered: usize,
    /// The same, while the answer was held on its way.
    durable_unanswered: usize,
    /// No answer came to a repeat of what had become a version before.
    repeats: usize,
    /// The answer came, its proof did not.
    answered_unproven: usize,
    /// Between two batches.
    acknowledged: usize,
}

/// How the sending of a batch ended.
#[derive(PartialEq, Eq)]
enum Sent {
    Acknowledged,
    Answered,
    Unanswered,
}

fn sent(result: Result<Version, Error>, batch: usize) -> Sent {
    match result {
        Ok(version) => {
            assert_eq!(version, Version(batch as u64 + 1), "batch {batch} became another version");
            Sent::Acknowledged
        }
        Err(Error::Unreachable { url, .. }) if url.ends_with("/v1/commits") => Sent::Unanswered,
        Err(Error::Unreachable { .. }) => Sent::Answered,
        Err(error) => panic!("batch {batch}: {error}"),
    }
}

/// Sends a batch, and kills the server so long after it was sent.
fn send_and_kill(
    server: &mut Server,
    client: &Client,
    (data, batch): (&Data, usize),
    after: Duration,
) -> Sent {
    let result = thread::scope(|scope| {
        let killer = scope.spawn(|| {
            thread::sleep(after);
            server.kill();
        });
        let result = client.commit(&data.batches[batch], Some(&data.batch_name(batch)));
        killer.join().unwrap();
        result
    });
    sent(result, batch)
}

/// Sends a batch, and kills the server while the answer is held on its way.
fn send_and_kill_at_answer(
    server: &mut Server,
    (policy, memory): (&Policy, &Arc<InMemory>),
    (data, batch): (&Data, usize),
) -> Sent {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = Client::connect(&url, policy.clone(), memory.clone()).unwrap();
    let client = client.with_token(TOKEN).unwrap();
    let watcher = server.client(policy, memory);
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let (came, answer) = mpsc::channel();
    let result = thread::scope(|scope| {
        scope.spawn(|| hold_answer(&listener, &address, &came));
        let sending =
            scope.spawn(|| client.commit(&data.batches[batch], Some(&data.batch_name(batch))));
        answer.recv_timeout(PATIENCE).unwrap();
        // What is answered is in a signed checkpoint; that one is remembered from now on.
        assert_eq!(watcher.checkpoint().unwrap().size(), batch as u64 + 2);
        server.kill();
        sending.join().unwrap()
    });
    sent(result, batch)
}

/// Checks that the first `done` batches are there, all of them, each value proven.
fn check_acknowledged(client: &Client, data: &Data, done: usize) {
    let writes = data.batches[..done].iter().flatten().collect::<Vec<_>>();
    let keys = writes.iter().map(|write| &write.key).collect::<Vec<_>>();
    let found = client.get_many(&keys, At::Newest).unwrap();
    assert!(found.value.iter().eq(writes.iter().map(|write| &write.value)), "{done} batches");
    if done > 0 {
        let header = client.header(Version(done as u64)).unwrap();
        assert_eq!(header.state(), data.roots[done], "the last acknowledged version");
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn load_killed_again_and_again_ends_as_an_uninterrupted_one() {
    let start = Instant::now();
    println!("seed {SEED}");
    let data = Data::new();
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(directory.path());
    let policy = trust::of_vkey(&server.vkey).unwrap();
    // It outlives each client, as a file would.
    let memory = Arc::new(InMemory::default());
    let mut client = server.client(&policy, &memory);
    let (mut hits, mut times) = (Hits::default(), Vec::new());
    // Batches that were acknowledged, and how often the next one was sent.
    let (mut done, mut attempt) = (0, 0);
    while done < BATCHES {
        let Some(moment) = moment(done, attempt) else {
            let begun = Instant::now();
            let result = client.commit(&data.batches[done], Some(&data.batch_name(done)));
            times.push(begun.elapsed());
            assert!(sent(result, done) == Sent::Acknowledged, "batch {done}: nobody was killed");
            // One version each, also if it was sent before.
            assert_eq!(client.checkpoint().unwrap().size(), done as u64 + 2);
            (done, attempt) = (done + 1, 0);
            continue;
        };
        let before = client.checkpoint().unwrap().size();
        let how = match moment {
            Moment::After(thousandths) => {
                let after = median(&mut times) * thousandths / 1000;
                send_and_kill(&mut server, &client, (&data, done), after)
            }
            Moment::Held => send_and_kill_at_answer(&mut server, (&policy, &memory), (&data, done)),
        };
        server = Server::start(directory.path());
        // It remembers what was signed before the kill, and demands that the log continues it.
        client = server.client(&policy, &memory);
        let size = client.checkpoint().unwrap().size();
        let with_batch = done as u64 + 2;
        assert!(size == with_batch || size == with_batch - 1, "{size} versions, {done} batches");
        let there = size == with_batch;
        hits.kills += 1;
        match how {
            Sent::Acknowledged => {
                assert!(there, "the acknowledged batch {done} is lost");
                hits.acknowledged += 1;
                (done, attempt) = (done + 1, 0);
            }
            Sent::Answered => {
                assert!(there, "the answered batch {done} is lost");
                hits.answered_unproven += 1;
                attempt += 1;
            }
            Sent::Unanswered => {
                let held = matches!(moment, Moment::Held);
                assert!(there || !held, "batch {done} was in a signed checkpoint, and is lost");
                // What an earlier attempt left does not count for this one.
                let new = before < with_batch;
                hits.before_write += usize::from(!there);
                hits.repeats += usize::from(!new);
                hits.written_unanswered += usize::from(there && new && !held);
                hits.durable_unanswered += usize::from(new && held);
                attempt += 1;
            }
        }
        check_acknowledged(&client, &data, done);
    }

    // As if nothing had happened.
    for (version, root) in (0..).map(Version).zip(&data.roots) {
        assert_eq!(client.header(version).unwrap().state(), *root, "version {version}");
    }
    let audited = client.audit(|_, _| {}).unwrap();
    assert_eq!(audited.versions, BATCHES as u64 + 1);
    assert_eq!(audited.changes, (BATCHES * ENTRIES) as u64);
    assert_eq!(audited.newest.state(), data.roots[BATCHES]);
    println!(
        "{BATCHES} batches, {hits:?}, usual commit {:?}, {:.1} s",
        median(&mut times),
        start.elapsed().as_secs_f64(),
    );
    assert!(hits.kills >= KILLS_MIN, "{hits:?}");
    assert!(hits.durable_unanswered > 0, "{hits:?}");
}
