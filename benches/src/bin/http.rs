//! The server under load over loopback; and for reads, under the same load, a handler that answers ready-made
//! bytes of the same length: what of the time is HTTP's, and what is ours.
//!
//! Both run in processes of their own, with the same allocator and runtime. `wrk` makes the load.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use anwansi_benches::{
    fill, fjall, keys, pick, value,
    wrk::{self, Load, Wrk},
};
use anwansi_proofs::{Evidence, Policy};
use anwansi_server::{Config, Server};
use axum::{Router, http::header::CONTENT_TYPE, routing::any, serve::ListenerExt as _};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use fastrand::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};

/// Lets the load write.
const TOKEN: &str = "token-of-the-load-generator";
const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
/// There are different requests for each row.
const KEYS_MIN: usize = 10_000;
/// Keys of one question, where it has many.
const KEYS: usize = 100;
/// Entries of one range, and writes of one commit, where it has many.
const ENTRIES: usize = 1000;
/// Different requests of one row, at most: of one key, and of many.
const ONE_MAX: usize = 100_000;
const MANY_MAX: usize = 2000;
/// Answers that are verified before a row is measured; the one of middle length is the ready-made one.
const VERIFIED: usize = 101;
/// How long a server is under load before it is measured.
const WARM_UP_S: u64 = 1;
/// How long one answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// The file of the ready-made answer.
const ANSWER: &str = "answer";

/// Put the server under load with wrk, and beside it a handler of ready-made answers.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Entries, of 32-byte keys and 100-byte values.
    #[arg(long, default_value_t = 100_000)]
    keys: usize,
    /// Connections that are kept open, each with one request on its way.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// How long each run takes.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Runs of each row; printed are the medians, with the least and the most.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// What is measured.
    #[arg(long, value_delimiter = ',', default_value = "key,keys,range,write,writes")]
    rows: Vec<Row>,
    /// The load generator.
    #[arg(long, default_value = "wrk")]
    wrk: PathBuf,
    /// Where files are made, in a folder that is removed in the end; if not given, where temporary files are.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// One of the two servers, for the program's own use.
    #[arg(long, hide = true, requires = "directory")]
    stage: Option<Stage>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Stage {
    /// The store behind the real server.
    Serve,
    /// The answer that lies ready.
    Ready,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    /// Evidence for one key.
    Key,
    /// Evidence for 100 keys.
    Keys,
    /// Evidence for a range of 1,000 entries.
    Range,
    /// A commit of one write.
    Write,
    /// A commit of 1,000 writes.
    Writes,
}

/// A whole request, and the keys that its answer shows, or that it writes.
struct Request {
    bytes: Vec<u8>,
    keys: Vec<Bytes>,
}

/// What all rows are measured with. The server ends before its directory is removed.
struct Bench {
    server: Process,
    policy: Policy,
    wrk: Wrk,
    directory: TempDir,
    arguments: Arguments,
}

/// One of the two servers, in a process of its own that ends with this.
struct Process {
    child: Child,
    address: SocketAddr,
    /// What it says beside its address.
    said: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match (arguments.stage, &arguments.directory) {
        (Some(Stage::Serve), Some(directory)) => serve(&arguments, directory),
        (Some(Stage::Ready), Some(directory)) => ready(directory),
        _ => all(arguments),
    };
    if let Err(error) = done {
        eprintln!("http: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Starts the server, measures row by row, and prints a table.
fn all(arguments: Arguments) -> Result<(), String> {
    if arguments.keys < KEYS_MIN {
        return Err(format!("--keys is {}: give {KEYS_MIN} or more", arguments.keys));
    }
    let parent = arguments.directory.clone().unwrap_or_else(std::env::temp_dir);
    let directory = tempfile::tempdir_in(parent).map_err(text)?;
    let wrk = Wrk::new(&arguments.wrk, directory.path(), arguments.connections)?;
    let server = Process::start(Stage::Serve, arguments.keys, directory.path());
    let policy = server.said.parse().ok().and_then(|vkey| Policy::of_log(vkey).ok());
    let policy = policy.expect("the server says its key");
    let keys = keys(arguments.keys);
    let bench = Bench { server, policy, wrk, directory, arguments };

    println!("| | bytes | requests/s | p50, ms | p99, ms | ready-made/s | p50, ms | p99, ms | % |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for row in &bench.arguments.rows {
        let requests = row.requests(&keys);
        wrk::write(&bench.requests(), requests.iter().map(|one| &one.bytes[..])).map_err(text)?;
        match row {
            Row::Key | Row::Keys | Row::Range => bench.read(*row, &requests)?,
            Row::Write | Row::Writes => bench.commit(*row, &requests),
        }
    }
    Ok(())
}

impl Bench {
    /// The file of the requests that are sent.
    fn requests(&self) -> PathBuf {
        self.directory.path().join("requests")
    }

    fn load(&self, process: &Process, seconds: u64) -> Load {
        self.wrk.run(process.address, &self.requests(), seconds)
    }

    /// Measures the server and the ready-made answers in turns.
    fn read(&self, row: Row, requests: &[Request]) -> Result<(), String> {
        let some = requests.iter().step_by((requests.len() / VERIFIED).max(1));
        let mut answers = some.map(|one| self.verified(row, one).0).collect::<Vec<_>>();
        answers.sort_by_key(Vec::len);
        let answer = &answers[answers.len() / 2];
        fs::write(self.directory.path().join(ANSWER), answer).map_err(text)?;
        let ready = Process::start(Stage::Ready, self.arguments.keys, self.directory.path());

        let both = |seconds| (self.load(&self.server, seconds), self.load(&ready, seconds));
        let _ = both(WARM_UP_S);
        let runs = (0..self.arguments.runs).map(|_| both(self.arguments.seconds));
        let (ours, theirs) = runs.unzip::<_, _, Vec<_>, Vec<_>>();
        let percent = ours.iter().zip(&theirs).map(|(a, b)| 100.0 * a.per_second / b.per_second);
        let (name, bytes, percent) = (row.name(), answer.len(), spread(percent, 0));
        println!("| {name} | {bytes} | {} | {} | {percent} |", columns(&ours), columns(&theirs));
        Ok(())
    }

    fn commit(&self, row: Row, requests: &[Request]) {
        // wrk takes the first request for a look only.
        let question = question(requests[1].keys.clone());
        let before = self.verified(Row::Keys, &question).1;
        let _ = self.load(&self.server, WARM_UP_S);
        let runs =
            (0..self.arguments.runs).map(|_| self.load(&self.server, self.arguments.seconds));
        let runs = runs.collect::<Vec<_>>();
        let after = self.verified(Row::Keys, &question).1;
        assert!(before.iter().zip(after).all(|(old, new)| *old != new), "all were written");
        println!("| {} | | {} | | | | |", row.name(), columns(&runs));
    }

    /// The answer to a request, and the values that it proves of the request's keys: none is absent, and in
    /// a range there are no others.
    fn verified(&self, row: Row, request: &Request) -> (Vec<u8>, Vec<Vec<u8>>) {
        let answer = ask(self.server.address, &request.bytes);
        let evidence = Evidence::parse(&answer).expect("evidence is answered");
        let checked = evidence.check(&self.policy).expect("it is true");
        let state = checked.version().state().expect("it is about the state");
        let value = |key| state.get(key).expect("it was asked for").expect("it is there").to_vec();
        let values = request.keys.iter().map(|key| value(key)).collect::<Vec<_>>();
        assert!(values.iter().all(|value| value.len() == 100), "values have 100 bytes");
        if let (Row::Range, [first, .., last]) = (row, &request.keys[..]) {
            let shown = state.keys(first, Some(last)).expect("it was asked for");
            assert_eq!(shown, request.keys[..ENTRIES - 1], "all of them and no others");
        }
        (answer, values)
    }
}

impl Row {
    fn name(self) -> &'static str {
        match self {
            Row::Key => "evidence for one key",
            Row::Keys => "evidence for 100 keys",
            Row::Range => "evidence for 1,000 entries in order",
            Row::Write => "commits of one write",
            Row::Writes => "commits of 1,000 writes",
        }
    }

    /// Requests for different random keys.
    fn requests(self, keys: &[Bytes]) -> Vec<Request> {
        let mut rng = Rng::with_seed(4);
        match self {
            Row::Key => keys.iter().take(ONE_MAX).map(evidence).collect(),
            Row::Keys => (0..MANY_MAX).map(|_| question(pick(&mut rng, keys, KEYS))).collect(),
            Row::Range => {
                let mut keys = keys.to_vec();
                keys.sort_unstable();
                let starts = (0..MANY_MAX).map(|_| rng.usize(..=keys.len() - ENTRIES));
                starts.map(|start| range(&keys[start..start + ENTRIES])).collect()
            }
            Row::Write => commits(keys, 1),
            Row::Writes => commits(keys, ENTRIES),
        }
    }
}

/// Asks for one key, as the client does.
fn evidence(key: &Bytes) -> Request {
    let path = format!("/v1/state?key_hex={}", hex::encode(key));
    Request { bytes: get(&path), keys: vec![key.clone()] }
}

/// Asks for keys by one proof.
fn question(keys: Vec<Bytes>) -> Request {
    let hex = keys.iter().map(hex::encode).collect::<Vec<_>>();
    Request { bytes: post("/v1/proofs", "", &json!({ "keys_hex": hex })), keys }
}

/// Asks for these keys, which lie side by side, as a range.
fn range(keys: &[Bytes]) -> Request {
    let (start, limit) = (hex::encode(&keys[0]), keys.len());
    let path = format!("/v1/state/range?start_hex={start}&limit={limit}");
    Request { bytes: get(&path), keys: keys.to_vec() }
}

/// Commits of so many writes, each of other keys; and then the same keys with other values, so that also
/// when all are sent again, each changes the state.
fn commits(keys: &[Bytes], count: usize) -> Vec<Request> {
    let mut rng = Rng::with_seed(count as u64);
    let keys = &keys[..keys.len().min(ONE_MAX / 2)];
    let batches = keys.chunks_exact(count).chain(keys.chunks_exact(count));
    let commit = |keys: &[Bytes]| {
        let write = |key| {
            let value = STANDARD.encode(value(&mut rng));
            json!({ "key_hex": hex::encode(key), "value": value })
        };
        let body = json!({ "writes": keys.iter().map(write).collect::<Vec<_>>() });
        let token = format!("authorization: Bearer {TOKEN}\r\n");
        Request { bytes: post("/v1/commits", &token, &body), keys: keys.to_vec() }
    };
    batches.map(commit).collect()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: */*\r\n\r\n").into()
}

fn post(path: &str, headers: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: */*\r\n{headers}\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into()
}

/// The body of the answer to a request, which is a good one.
fn ask(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(ANSWER_WAIT)).expect("it is not zero");
    stream.write_all(request).expect("the server reads");
    stream.shutdown(Shutdown::Write).expect("it is connected");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the server answers");
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    answer.split_off(end.expect("the head has an end") + 4)
}

/// Three columns of medians: requests a second, half and 99 of 100 answered in.
fn columns(runs: &[Load]) -> String {
    let per_second = spread(runs.iter().map(|run| run.per_second), 0);
    let p50 = spread(runs.iter().map(|run| run.p50_ms), 2);
    let p99 = spread(runs.iter().map(|run| run.p99_ms), 2);
    format!("{per_second} | {p50} | {p99}")
}

/// The median, with the least and the most.
fn spread(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let mut values = values.collect::<Vec<_>>();
    values.sort_by(f64::total_cmp);
    let (least, median, most) = (values[0], values[values.len() / 2], values[values.len() - 1]);
    format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
}

impl Process {
    fn start(stage: Stage, keys: usize, directory: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        let stage = stage.to_possible_value().expect("no stage is hidden");
        command.args(["--stage", stage.get_name(), "--keys", &keys.to_string(), "--directory"]);
        command.arg(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this program can be started");
        let stdout = child.stdout.take().expect("it is piped");
        // From here on it ends with this, also in a panic.
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let mut process = Process { child, address, said: String::new() };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        let (address, said) = line.trim_end().split_once(' ').expect("it says an address first");
        process.address = address.parse().expect("it says an address");
        said.clone_into(&mut process.said);
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // If it has ended by itself, there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes the store, serves it, and says where and under which key.
fn serve(arguments: &Arguments, directory: &Path) -> Result<(), String> {
    let runtime = Runtime::new().map_err(text)?;
    let config = Config {
        engine: fjall(directory),
        listen: LOOPBACK.into(),
        token: Some(TOKEN.into()),
        ..Config::default()
    };
    let server = runtime.block_on(Server::start(config)).map_err(text)?;
    fill(server.store(), &keys(arguments.keys));
    server.store().flush().map_err(text)?;
    println!("{} {}", server.addr(), server.vkey());
    wait_for_end();
    Ok(())
}

/// Answers every request, once it is read, with the bytes that lie ready.
fn ready(directory: &Path) -> Result<(), String> {
    let runtime = Runtime::new().map_err(text)?;
    let answer = Bytes::from(fs::read(directory.join(ANSWER)).map_err(text)?);
    let answer = move |_: Bytes| {
        let answer = answer.clone();
        async { ([(CONTENT_TYPE, "application/json")], answer) }
    };
    let app = Router::new().route("/v1/{*path}", any(answer));
    let listener = runtime.block_on(TcpListener::bind(SocketAddr::from(LOOPBACK)));
    let listener = listener.map_err(text)?;
    println!("{} ready", listener.local_addr().map_err(text)?);
    // As the server does it; an error would show in the figures.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    runtime.spawn(axum::serve(listener, app).into_future());
    wait_for_end();
    Ok(())
}

/// Waits until whoever started this process is gone.
fn wait_for_end() {
    // Nothing is written there: any outcome is the end.
    let _ = std::io::stdin().read(&mut [0]);
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
