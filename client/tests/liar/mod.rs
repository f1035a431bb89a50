//! A server over a store in memory that answers as a server should, and can be told to lie.
#![allow(dead_code, reason = "each test uses a part of it")]

mod ledger;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use anwansi_proofs::{
    Digest, Evidence, NodeKey, Question, TransitionId, Version, log::Bundle, log::Tile,
};
use anwansi_store::{Commit, LogKey, Options, RequestId, Store, Which, engine};
use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Method, Response, Uri},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

pub(crate) const TOKEN: &str = "s3cret";

/// What the server answers in place of the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    /// Evidence of this version, whatever is asked.
    OldRoot(u64),
    /// The proof for the key `other`.
    OtherKey,
    /// The proof without its last byte.
    CutProof,
    /// A proof that shows nothing.
    Hidden,
    /// The proof that the tree is empty.
    EmptyTree,
    /// The proof of a state in which the keys are absent, under the true header.
    Absent,
    /// Everything from another log that the same key signed.
    Fork,
    /// The checkpoint of when there was one version.
    WentBack,
    /// The header of the version before, in the true one's place in the log.
    HeaderSwapped,
    /// The finality proof says another index.
    WrongIndex,
    /// A byte of a value in the proof.
    ChangedValue,
    /// A byte of each tile.
    Tiles,
    /// No tiles.
    NoTiles,
    /// The update proof of this version.
    Update(u64),
    /// A value in the changes of this version.
    Change(u64),
    /// The changes end before their count.
    CutChanges,
    /// A header in a bundle of entries.
    Bundle,
    /// The note is signed by nobody who is trusted.
    Unsigned,
    /// More bytes than any answer has.
    Oversize,
    NotJson,
    Broken,
    /// Where a range was cut, the key before its start.
    Next,
    /// Commits are acknowledged, and not made.
    CommitLost,
    /// The connection is cut once a commit has made a version; one made before is answered.
    CutNew,
    /// Another transition was submitted.
    OtherId,
    /// The specification of this transition.
    OtherSpec(TransitionId),
    /// A blob with a byte more.
    OtherBlob,
    /// The evidence without the first vote.
    LostVote,
    /// The assignments of this node, to everyone.
    NotDrawn(NodeKey),
    /// So many were drawn in round 0.
    Draws(u32),
    /// This version has opened it.
    Opened(u64),
    /// This version has closed the round.
    Closed(u64),
    /// The pledges of a round without that of this node.
    ClosedWithout(NodeKey),
    /// The tasks tree of the version in the fork.
    OtherTasks,
}

/// The connection is cut once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// At `pledges` or `reveals`.
    pub(crate) what: &'static str,
    /// Before it has its effect, or after.
    pub(crate) after: bool,
}

/// What nodes have sent, in the order in which it came in: `pledges` or `reveals`, and the body.
pub(crate) type Wire = Arc<Mutex<Vec<(String, Value)>>>;

pub(crate) struct Liar {
    pub(crate) url: String,
    pub(crate) store: Store,
    /// The fork.
    pub(crate) other: Store,
    pub(crate) lie: Arc<Mutex<Lie>>,
    pub(crate) cut: Arc<Mutex<Option<Cut>>>,
    pub(crate) wire: Wire,
    /// What was asked for, without what stands behind `?`.
    pub(crate) paths: Arc<Mutex<Vec<String>>>,
    _runtime: tokio::runtime::Runtime,
}

struct Server {
    store: Store,
    other: Store,
    lie: Arc<Mutex<Lie>>,
    cut: Arc<Mutex<Option<Cut>>>,
    wire: Wire,
    paths: Arc<Mutex<Vec<String>>>,
}

pub(crate) fn open() -> Store {
    let origin = "example.org/liar".parse().unwrap();
    let key = LogKey::from_secret([7; 32], Some(origin)).unwrap();
    let options = Options { clock: Arc::new(|| 1_800_000_000_000), ..Options::default() };
    Store::open(engine::open("memory:").unwrap(), key, &options).unwrap()
}

pub(crate) fn commit(store: &Store, entries: &[(&str, Option<&str>)]) -> u64 {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let writes = entries.iter().map(|(key, value)| (bytes(key), value.map(bytes)));
    store.commit(Commit::new(writes.collect())).unwrap().version.0
}

/// Versions 1 to 3 of the true log, and five of its fork, which says other things of the same keys.
pub(crate) fn start() -> Liar {
    let (store, other) = (open(), open());
    commit(&store, &[("other", Some("x")), ("z/gone", Some("1"))]);
    commit(&store, &[("key", Some("value")), ("list/a", Some("1")), ("list/b", Some("2"))]);
    commit(&store, &[("list/c", Some("3")), ("z/gone", None)]);
    for version in 1..=5 {
        commit(&other, &[("other", Some(&format!("fork {version}")))]);
    }
    let lie = Arc::new(Mutex::new(Lie::None));
    let (cut, wire, paths) = (Arc::default(), Wire::default(), Arc::default());
    let server = Arc::new(Server {
        store: store.clone(),
        other: other.clone(),
        lie: lie.clone(),
        cut: Arc::clone(&cut),
        wire: wire.clone(),
        paths: Arc::clone(&paths),
    });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().fallback(move |method, uri, headers, body| {
        let server = server.clone();
        async move {
            let answer = server.answer(&method, &uri, &headers, &body);
            if uri.path() == "/v1/assignments" {
                // A server waits until there is something.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            answer
        }
    });
    runtime.spawn(async move { axum::serve(listener, routes).await });
    Liar { url, store, other, lie, cut, wire, paths, _runtime: runtime }
}

impl Liar {
    pub(crate) fn tell(&self, lie: Lie) {
        *self.lie.lock().unwrap() = lie;
    }

    pub(crate) fn vkey(&self) -> String {
        self.store.vkey().to_string()
    }
}

type Answer = Response<Body>;

fn answer(status: u16, body: impl Into<Body>) -> Answer {
    Response::builder().status(status).body(body.into()).unwrap()
}

fn problem(status: u16, name: &str, detail: &str) -> Answer {
    let kind = format!("https://anwansi.example/problems/{name}");
    let body = json!({ "type": kind, "title": name, "status": status, "detail": detail });
    answer(status, body.to_string())
}

impl Server {
    fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Answer {
        let lie = *self.lie.lock().unwrap();
        match lie {
            Lie::Oversize => return answer(200, vec![b' '; (64 << 20) + 1]),
            Lie::NotJson => return answer(200, "<html>Welcome!</html>"),
            Lie::Broken => return answer(500, "oh"),
            _ => {}
        }
        let store = if lie == Lie::Fork { &self.other } else { &self.store };
        let query = Pairs::of(uri.query().unwrap_or_default());
        let path = uri.path().trim_start_matches('/');
        self.paths.lock().unwrap().push(path.into());
        let parts = path.split('/').collect::<Vec<_>>();
        if let Some(answer) = self.ledger((method.as_str(), &parts), &query, body, lie) {
            return answer;
        }
        match (method.as_str(), &parts[..]) {
            ("GET", ["checkpoint"]) => checkpoint(store, lie),
            ("GET", ["tile", "entries", ..]) => bundle(store, lie, path.parse().unwrap()),
            ("GET", ["tile", ..]) => tile(store, lie, path.parse().unwrap()),
            ("GET", ["v1", "info"]) => {
                let vkey = store.vkey().to_string();
                answer(200, json!({ "origin": store.origin().as_str(), "vkey": vkey }).to_string())
            }
            ("GET", ["v1", "versions", version]) => header(store, lie, version),
            ("GET", ["v1", "versions", version, "changes"]) => changes(store, lie, version),
            ("GET", ["v1", "state"]) => {
                let keys = query.all("key_hex");
                let question = keys.fold(Question::default(), |question, key| question.key(&key));
                self.evidence(store, lie, &question, query.version(), None)
            }
            ("GET", ["v1", "state", "range"]) => self.range(store, lie, &query),
            ("POST", ["v1", "proofs"]) => {
                let body: Value = serde_json::from_slice(body).unwrap();
                let all = |name: &str| -> Vec<Vec<u8>> {
                    let empty = Vec::new();
                    let all = body[name].as_array().unwrap_or(&empty);
                    all.iter().map(|hex| hex::decode(hex.as_str().unwrap()).unwrap()).collect()
                };
                let question = Question::default();
                let question = all("keys_hex").iter().fold(question, |asked, key| asked.key(key));
                let prefixes = all("prefixes_hex");
                let question = prefixes.iter().fold(question, |asked, prefix| asked.prefix(prefix));
                if body["tree"] == "tasks" {
                    return self.tasks(store, lie, &question, body["version"].as_u64().unwrap());
                }
                self.evidence(store, lie, &question, body["version"].as_u64(), None)
            }
            ("POST", ["v1", "commits"]) => commit_answer(store, lie, headers, body),
            _ => problem(404, "no-such-route", path),
        }
    }

    fn evidence(
        &self,
        store: &Store,
        lie: Lie,
        question: &Question,
        version: Option<u64>,
        next: Option<&[u8]>,
    ) -> Answer {
        let mut version = Version(version.unwrap_or(store.latest().version().0));
        if version > store.latest().version() {
            return problem(404, "no-such-version", "not yet");
        }
        if let Lie::OldRoot(old) = lie {
            version = Version(old);
        }
        let evidence = |store: &Store, version, question: &Question| -> Value {
            let evidence: Evidence = store.evidence(version, Which::State, question).unwrap();
            serde_json::from_str(&evidence.to_json()).unwrap()
        };
        let mut told = evidence(store, version, question);
        let mut state = STANDARD.decode(told["state"].as_str().unwrap()).unwrap();
        match lie {
            Lie::OtherKey => {
                let other = evidence(store, version, &Question::default().key(b"other"));
                state = STANDARD.decode(other["state"].as_str().unwrap()).unwrap();
            }
            Lie::CutProof => drop(state.pop()),
            Lie::Hidden => {
                state = [&[1][..], &store.at(version).unwrap().root().0.0].concat();
            }
            Lie::EmptyTree => state = vec![0],
            Lie::Absent => {
                let fork = evidence(&self.other, version, question);
                state = STANDARD.decode(fork["state"].as_str().unwrap()).unwrap();
            }
            Lie::HeaderSwapped => {
                let before = Version(version.0 - 1);
                let before = evidence(store, before, question);
                told["header"] = before["header"].clone();
                state = STANDARD.decode(before["state"].as_str().unwrap()).unwrap();
            }
            Lie::WrongIndex => told["finality"] = other_index(&told["finality"], version),
            Lie::ChangedValue => {
                let at = state.windows(5).position(|bytes| bytes == b"value").unwrap();
                state[at] ^= 1;
            }
            Lie::Unsigned => {
                let key = LogKey::from_secret([8; 32], Some(store.origin().clone())).unwrap();
                let root = store.checkpoint().text().lines().nth(2).unwrap().parse().unwrap();
                let note = key.checkpoint(store.latest().version().0 + 1, &root);
                let text = told["finality"].as_str().unwrap();
                let (proof, _) = text.split_once("\n\n").unwrap();
                told["finality"] = json!(format!("{proof}\n\n{note}"));
            }
            _ => {}
        }
        told["state"] = json!(STANDARD.encode(state));
        let mut answer = answer(200, told.to_string());
        if let Some(next) = next {
            answer.headers_mut().insert("Anwansi-Next", hex::encode(next).parse().unwrap());
        }
        answer
    }

    fn tasks(&self, store: &Store, lie: Lie, question: &Question, version: u64) -> Answer {
        let evidence = |store: &Store| -> Value {
            let evidence = store.evidence(Version(version), Which::Tasks, question).unwrap();
            serde_json::from_str(&evidence.to_json()).unwrap()
        };
        let mut told = evidence(store);
        match lie {
            Lie::OtherTasks => told["tasks"] = evidence(&self.other)["tasks"].clone(),
            // A version that the log does not have, signed as if it had.
            Lie::HeaderSwapped => {
                let other = evidence(&self.other);
                told["header"] = other["header"].clone();
                told["tasks"] = other["tasks"].clone();
            }
            _ => {}
        }
        answer(200, told.to_string())
    }

    fn range(&self, store: &Store, lie: Lie, query: &Pairs) -> Answer {
        let start = query.all("start_hex").next().unwrap_or_default();
        let end = query.all("end_hex").next();
        let limit = query.number("limit").map_or(2, |limit| usize::try_from(limit).unwrap().min(2));
        let version = query.version().unwrap_or(store.latest().version().0);
        let Ok(snapshot) = store.at(Version(version)) else {
            return problem(404, "no-such-version", "not yet");
        };
        let mut entries = snapshot.range(&start, end.as_deref(), engine::Direction::Ascending);
        let mut next = entries.nth(limit).map(|entry| entry.unwrap().0);
        if lie == Lie::Next {
            next = Some(Bytes::from_static(b"a"));
        }
        let to = next.as_deref().or(end.as_deref());
        let question = Question::default().range(&start, to);
        self.evidence(store, lie, &question, Some(version), next.as_deref())
    }
}

fn commit_answer(store: &Store, lie: Lie, headers: &HeaderMap, body: &Bytes) -> Answer {
    if headers.get("Authorization").is_none_or(|token| token != &format!("Bearer {TOKEN}")) {
        return problem(401, "unauthorized", "give a token");
    }
    let parsed: Value = serde_json::from_slice(body).unwrap();
    let write = |write: &Value| {
        let value = write["value"].as_str().map(|value| STANDARD.decode(value).unwrap().into());
        (hex::decode(write["key_hex"].as_str().unwrap()).unwrap().into(), value)
    };
    let mut commit = Commit::new(parsed["writes"].as_array().unwrap().iter().map(write).collect());
    commit.request = headers
        .get("Idempotency-Key")
        .map(|name| RequestId { name: Digest::of(name.as_bytes()), body: Digest::of(body) });
    if lie == Lie::CommitLost {
        let newest = store.latest();
        let told = json!({ "version": newest.version().0, "state": newest.root().to_string() });
        return answer(201, told.to_string());
    }
    let newest = store.latest().version();
    let done = match store.commit(commit) {
        Ok(done) => done,
        Err(error) => return problem(422, "malformed", &error.to_string()),
    };
    if lie == Lie::CutNew && done.version > newest {
        // The connection ends with its task; no message is printed, unlike by a panic.
        std::panic::resume_unwind(Box::new(()));
    }
    answer(201, json!({ "version": done.version.0, "state": done.state.to_string() }).to_string())
}

fn checkpoint(store: &Store, lie: Lie) -> Answer {
    if lie == Lie::WentBack {
        let finality = open().finality(Version(0)).unwrap();
        return answer(200, finality.proof.checkpoint().to_string());
    }
    answer(200, store.checkpoint().to_string())
}

fn bundle(store: &Store, lie: Lie, bundle: Bundle) -> Answer {
    let Some(mut bytes) = store.bundle(bundle).unwrap() else {
        return problem(404, "no-such-tile", "not yet");
    };
    if lie == Lie::Bundle {
        // The time of the last header.
        let at = bytes.len() - 2;
        bytes[at] ^= 1;
    }
    answer(200, bytes)
}

fn tile(store: &Store, lie: Lie, tile: Tile) -> Answer {
    let bytes = store.tile(tile).unwrap().filter(|_| lie != Lie::NoTiles);
    let Some(bytes) = bytes else {
        return problem(404, "no-such-tile", "not yet");
    };
    let mut bytes = bytes.to_vec();
    if lie == Lie::Tiles {
        for byte in &mut bytes {
            *byte ^= 1;
        }
    }
    answer(200, bytes)
}

fn other_index(finality: &Value, version: Version) -> Value {
    let (line, other) = (format!("index {version}\n"), format!("index {}\n", version.0 - 1));
    json!(finality.as_str().unwrap().replace(&line, &other))
}

fn header(store: &Store, lie: Lie, version: &str) -> Answer {
    let version = Version(version.parse().unwrap());
    let Ok(shown) = store.finality(version) else {
        return problem(404, "no-such-version", "not yet");
    };
    let (mut header, mut finality) = (shown.header.clone(), json!(shown.proof.to_string()));
    match lie {
        Lie::HeaderSwapped => {
            header.clone_from(&store.finality(Version(version.0 - 1)).unwrap().header);
        }
        Lie::WrongIndex => finality = other_index(&finality, version),
        _ => {}
    }
    answer(200, json!({ "header": header, "finality": finality }).to_string())
}

fn changes(store: &Store, lie: Lie, version: &str) -> Answer {
    let version = Version(version.parse().unwrap());
    let shown = store.finality(version).unwrap();
    let (header, proof) = (shown.header.clone(), &shown.proof);
    let mut update = store.update_proof(version).unwrap();
    if lie == Lie::Update(version.0) {
        let last = update.len() - 1;
        update[last] ^= 1;
    }
    let first = json!({
        "header": header, "finality": proof.to_string(), "update": STANDARD.encode(update),
    });
    let mut lines = vec![first];
    for (key, value) in store.changes(version).unwrap() {
        let value = value.map(|value| match lie {
            Lie::Change(bad) if bad == version.0 => b"changed".to_vec(),
            _ => value.to_vec(),
        });
        let value = value.map(|value| STANDARD.encode(value));
        lines.push(json!({ "key_hex": hex::encode(key), "value": value }));
    }
    let count = lines.len() - 1;
    lines.push(json!({ "count": count }));
    if lie == Lie::CutChanges {
        lines.pop();
    }
    let lines = lines.iter().map(Value::to_string).collect::<Vec<_>>();
    answer(200, lines.join("\n") + "\n")
}

/// A query of hex digits and decimals.
struct Pairs(Vec<(String, String)>);

impl Pairs {
    fn of(query: &str) -> Self {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        Pairs(pairs.map(|(name, value)| (name.into(), value.into())).collect())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Vec<u8>> + 'a {
        let named = self.0.iter().filter(move |pair| pair.0 == name);
        named.map(|pair| hex::decode(&pair.1).unwrap())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|pair| pair.0 == name).map(|pair| &*pair.1)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name).map(|text| text.parse().unwrap())
    }

    fn version(&self) -> Option<u64> {
        self.number("version")
    }
}
