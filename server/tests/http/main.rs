//! The server over real connections: what it answers is verified as a client would, what it is given
//! wrong is refused under the right name, and nothing of that is stored.
//!
//! `routes` has every route's good answers, `refused` every bad input, `life` starts, ends, repeats and
//! concurrency. The ledger has the same again: `ledger` for what it does, `ledger_refused`, `registry`, and
//! `follow` for those who wait; `machine` has the nodes. `retention` has what is pruned. Servers run in memory or in fresh directories, on ports of their own, and end with the
//! test.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod follow;
mod ledger;
mod ledger_refused;
mod life;
mod machine;
mod refused;
mod registry;
mod retention;
mod routes;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use anwansi_proofs::{Evidence, Policy};
use anwansi_server::{Config, Server, problem::TYPE_PREFIX};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A server, and a client that believes nothing else than its log's key.
struct Running {
    runtime: Runtime,
    server: Option<Server>,
    token: String,
    policy: Policy,
    agent: ureq::Agent,
}

/// What was answered.
struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    bytes: Vec<u8>,
}

impl Running {
    fn in_memory() -> Self {
        Self::start(Config::in_memory())
    }

    fn start(config: Config) -> Self {
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(Server::start(config)).unwrap();
        let token = fs::read_to_string(server.token_file()).unwrap().trim().to_owned();
        let policy = Policy::of_log(server.vkey().clone()).unwrap();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        Running { runtime, server: Some(server), token, policy, agent }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server().addr())
    }

    fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[])
    }

    fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.agent.get(self.url(path));
        let request = headers.iter().fold(request, |request, (n, v)| request.header(*n, *v));
        Answer::read(request.call().unwrap())
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let request = self.agent.post(self.url(path));
        let request = headers.iter().fold(request, |request, (n, v)| request.header(*n, *v));
        Answer::read(request.send(body).unwrap())
    }

    fn put(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let request = self.agent.put(self.url(path));
        let request = headers.iter().fold(request, |request, (n, v)| request.header(*n, *v));
        Answer::read(request.send(body).unwrap())
    }

    fn delete(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.agent.delete(self.url(path));
        let request = headers.iter().fold(request, |request, (n, v)| request.header(*n, *v));
        Answer::read(request.call().unwrap())
    }

    /// The header that carries the first token.
    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// A commit with the first token, and `more` headers.
    fn commit_with(&self, body: &Value, more: &[(&str, &str)]) -> Answer {
        let bearer = self.bearer();
        let headers = [&[("authorization", bearer.as_str())][..], more].concat();
        self.post("/v1/commits", &headers, body.to_string().as_bytes())
    }

    fn commit(&self, writes: &[(&str, Option<&str>)]) -> u64 {
        let done = self.commit_with(&json!({ "writes": writes_json(writes) }), &[]);
        assert_eq!(done.status, 201, "{}", done.text());
        done.json()["version"].as_u64().unwrap()
    }

    /// Sends bytes as they are, says that no more will come, and returns the status and body of the answer.
    fn raw(&self, bytes: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(self.server().addr()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        read_raw(&answer)
    }

    fn newest(&self) -> (u64, String) {
        let info = self.get("/v1/info").json();
        (info["version"].as_u64().unwrap(), info["state"].as_str().unwrap().to_owned())
    }

    fn stop(mut self) {
        let server = self.server.take().unwrap();
        self.runtime.block_on(server.shutdown()).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = self.runtime.block_on(server.shutdown());
        }
    }
}

impl Answer {
    fn read(mut response: ureq::http::Response<ureq::Body>) -> Self {
        let bytes = response.body_mut().with_config().limit(256 << 20).read_to_vec().unwrap();
        Answer { status: response.status().as_u16(), headers: response.headers().clone(), bytes }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn evidence(&self) -> Evidence {
        assert_eq!(self.status, 200, "{}", self.text());
        Evidence::parse(&self.bytes).unwrap()
    }

    /// Checks that this is a problem document of the kind `name`, and returns it.
    fn problem(&self, status: u16, name: &str) -> Value {
        assert_eq!(self.status, status, "{name}: {}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{name}");
        let problem = self.json();
        assert_problem(&problem, status, name);
        problem
    }
}

fn assert_problem(problem: &Value, status: u16, name: &str) {
    assert_eq!(problem["type"], format!("{TYPE_PREFIX}{name}"), "{problem}");
    assert_eq!(problem["status"], status);
    assert!(!problem["title"].as_str().unwrap().is_empty());
    assert!(!problem["detail"].as_str().unwrap().is_empty());
}

/// Takes an answer apart that was read to the end of its connection.
fn read_raw(answer: &[u8]) -> (u16, Vec<u8>) {
    let text = String::from_utf8_lossy(answer);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = head.map_or(Vec::new(), |head| answer[head + 4..].to_vec());
    (status.unwrap_or(0), body)
}

fn writes_json(writes: &[(&str, Option<&str>)]) -> Value {
    let write = |(key, value): &(&str, Option<&str>)| json!({ "key": key, "value": value.map(|value| STANDARD.encode(value)) });
    writes.iter().map(write).collect()
}
