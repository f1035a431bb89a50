//! Those who wait: nodes for something to do, followers for what happens.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anwansi_server::{Config, Limits};
use serde_json::{Value, json};

use super::{
    Running, assert_problem,
    machine::{Node, awaited, draft, open, place, registered, run},
    read_raw,
};

/// Where an event stream is read from.
struct Follower(BufReader<TcpStream>);

#[derive(Debug)]
struct Event {
    id: u64,
    kind: String,
    data: Value,
}

impl Follower {
    fn new(running: &Running, last: Option<u64>) -> Self {
        let mut stream = TcpStream::connect(running.server().addr()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let last = last.map_or(String::new(), |last| format!("last-event-id: {last}\r\n"));
        write!(stream, "GET /v1/events HTTP/1.1\r\nhost: x\r\n{last}\r\n").unwrap();
        let mut follower = Follower(BufReader::new(stream));
        let head = std::iter::from_fn(|| Some(follower.line()).filter(|line| !line.is_empty()));
        let head = head.collect::<Vec<_>>();
        assert!(head[0].contains("200"), "{head:?}");
        assert!(head.iter().any(|line| line == "content-type: text/event-stream"), "{head:?}");
        assert!(head.iter().any(|line| line == "access-control-allow-origin: *"), "{head:?}");
        follower
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next event; the sizes of chunks and comments are passed over.
    fn next(&mut self) -> Event {
        let mut event = Event { id: 0, kind: String::new(), data: Value::Null };
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some(("id", id)) => event.id = id.parse().unwrap(),
                Some(("event", kind)) => kind.clone_into(&mut event.kind),
                Some(("data", data)) => {
                    event.data = serde_json::from_str(data).unwrap();
                    return event;
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_node_that_waits_is_answered_when_there_is_something_to_do() {
    let running = Running::in_memory();
    let nodes = registered(&running, 2);
    let ask = |node: &Node, wait_ms: u64| {
        let begun = Instant::now();
        let path = format!("/v1/assignments?node={}&wait_ms={wait_ms}", node.key());
        let answer = running.get(&path);
        assert_eq!(answer.status, 200, "{}", answer.text());
        (answer.json()["assignments"].as_array().unwrap().clone(), begun.elapsed())
    };
    // Without a wait, and after one in vain.
    assert_eq!(ask(&nodes[0], 0).0, Vec::<Value>::new());
    let (none, waited) = ask(&nodes[0], 200);
    assert_eq!(none, Vec::<Value>::new());
    assert!(waited >= Duration::from_millis(200), "{waited:?}");
    // Versions alone are nothing to do.
    let (todo, waited) = thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&nodes[0], 20_000));
        thread::sleep(Duration::from_millis(100));
        running.commit(&[("a", Some("1"))]);
        thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished());
        open(&running, &draft("", &["x"]));
        waiting.join().unwrap()
    });
    assert_eq!((todo.len(), &todo[0]["phase"]), (1, &json!("pledge")));
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    // What is there is answered at once.
    assert!(ask(&nodes[0], 20_000).1 < Duration::from_secs(10));
    // To a node that runs another program it is nothing to do.
    let program = todo[0]["program"].as_str().unwrap();
    let of = |programs: &str| {
        let path = format!("/v1/assignments?node={}{programs}&wait_ms=100", nodes[0].key());
        running.get(&path).json()["assignments"].as_array().unwrap().len()
    };
    assert_eq!(of("&program=other%2F1"), 0);
    assert_eq!(of(&format!("&program=other/1&program={program}")), 1);
}

#[test]
fn a_node_that_waits_hears_of_the_closing_and_of_the_next_transition() {
    let running = Running::in_memory();
    let nodes = registered(&running, 2);
    let id = open(&running, &draft("", &["x"]));
    let place = place(&running, &id, 0, 0);
    let path = format!("/v1/assignments?node={}&wait_ms=20000", nodes[0].key());
    assert_eq!(nodes[0].pledge(&running, &place, b"1").status, 200);
    let todo = thread::scope(|scope| {
        let waiting = scope.spawn(|| running.get(&path).json());
        thread::sleep(Duration::from_millis(100));
        assert_eq!(nodes[1].pledge(&running, &place, b"1").status, 200);
        waiting.join().unwrap()
    });
    assert_eq!(todo["assignments"][0]["phase"], "reveal", "{todo}");
    assert_eq!(nodes[0].reveal(&running, &place, b"1").status, 200);
    let todo = thread::scope(|scope| {
        let waiting = scope.spawn(|| running.get(&path).json());
        open(&running, &draft("next", &["x"]));
        waiting.join().unwrap()
    });
    assert_eq!(todo["assignments"][0]["phase"], "pledge", "{todo}");
}

#[test]
fn those_who_wait_are_let_go_when_the_server_ends() {
    let mut running = Running::in_memory();
    let nodes = registered(&running, 1);
    let mut follower = Follower::new(&running, None);
    assert_eq!(follower.next().kind, "version");
    let mut waiting = TcpStream::connect(running.server().addr()).unwrap();
    waiting.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let key = nodes[0].key();
    write!(waiting, "GET /v1/assignments?node={key}&wait_ms=30000 HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    let server = running.server.take().unwrap();
    running.runtime.block_on(server.shutdown()).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let mut answer = Vec::new();
    waiting.read_to_end(&mut answer).unwrap();
    let (status, body) = read_raw(&answer);
    assert_eq!((status, &body[..]), (200, &br#"{"assignments":[]}"#[..]));
    // The stream ends as streams end.
    let mut rest = Vec::new();
    follower.0.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn events_tell_versions_and_decided_tasks_and_can_be_replayed() {
    let running = Running::in_memory();
    let nodes = registered(&running, 2);
    let mut live = Follower::new(&running, None);
    let first = live.next();
    let newest = running.newest();
    assert_eq!((first.id, first.kind.as_str()), (newest.0 << 20, "version"));
    assert_eq!(
        (&first.data["version"], &first.data["state"]),
        (&json!(newest.0), &json!(newest.1))
    );
    assert!(first.data["time"].is_u64() && first.data["tasks"].is_string());

    let id = run(&running, &nodes, &draft("", &["x"]), b"1");
    let version = running.newest().0;
    let mut events = vec![first];
    while events.last().unwrap().id < (version << 20) + 1 {
        events.push(live.next());
    }
    assert!(events.windows(2).all(|two| two[0].id < two[1].id), "{events:?}");
    let task = events.last().unwrap();
    assert_eq!((task.kind.as_str(), task.id), ("task", (version << 20) + 1));
    assert_eq!(task.data["transition"], id.to_string());
    assert_eq!((&task.data["index"], &task.data["status"]), (&json!(0), &json!("final")));
    assert_eq!((&task.data["outcome"], &task.data["agree"]), (&json!("applied"), &json!(2)));
    let versions = events.iter().filter(|it| it.kind == "version").map(|it| it.id >> 20);
    assert_eq!(versions.collect::<Vec<_>>(), (newest.0..=version).collect::<Vec<_>>());

    // From any event on, the same again.
    for (at, event) in events.iter().enumerate().take(events.len() - 1) {
        let mut replayed = Follower::new(&running, Some(event.id));
        for expected in &events[at + 1..] {
            let found = replayed.next();
            assert_eq!(
                (found.id, &found.kind, &found.data),
                (expected.id, &expected.kind, &expected.data)
            );
        }
    }
    let mut all = Follower::new(&running, Some(0));
    assert_eq!(all.next().id, 1 << 20);
    // Behind the last one there is nothing, until there is.
    let mut behind = Follower::new(&running, Some(task.id));
    let next = running.commit(&[("a", Some("1"))]);
    assert_eq!(behind.next().id, next << 20);
    assert_eq!(live.next().id, next << 20);
}

#[test]
fn ids_of_no_event_are_refused() {
    let running = Running::in_memory();
    let follow = |last: &str| running.get_with("/v1/events", &[("last-event-id", last)]);
    for last in ["x", "", "-1", "01", "9007199254740992", "1 "] {
        if last.trim() == last {
            follow(last).problem(400, "malformed");
        }
    }
    follow(&(1_u64 << 20).to_string()).problem(404, "no-such-version");
    follow("9007199254740991").problem(404, "no-such-version");
}

#[test]
fn there_is_room_for_so_many_who_wait() {
    let limits = Limits { connections: 8, ..Limits::default() };
    let running = Running::start(Config { limits, ..Config::in_memory() });
    let limits = running.get("/v1/info").json()["limits"].clone();
    assert_eq!((&limits["followers"], &limits["waits"]), (&json!(2), &json!(4)));
    let two = [(); 2].map(|()| Follower::new(&running, None));
    running.get("/v1/events").problem(503, "too-busy");
    let key = Node::new(0).key();
    let path = format!("/v1/assignments?node={key}&wait_ms=20000");
    let waiting = [(); 4].map(|()| {
        let mut stream = TcpStream::connect(running.server().addr()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        stream
    });
    thread::sleep(Duration::from_millis(200));
    let refused = running.get(&path);
    assert_problem(&refused.json(), 503, "too-busy");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Whoever does not wait is answered.
    assert_eq!(running.get(&format!("/v1/assignments?node={key}")).status, 200);
    drop((two, waiting));
}

#[test]
fn long_waits_are_cut_at_the_limit() {
    let limits = Limits { timeout: Duration::from_secs(2), ..Limits::default() };
    let running = Running::start(Config { limits, ..Config::in_memory() });
    assert_eq!(running.get("/v1/info").json()["limits"]["wait_ms"], 1000);
    let key = Node::new(0).key();
    let begun = Instant::now();
    let answer = running.get(&format!("/v1/assignments?node={key}&wait_ms=9007199254740991"));
    assert_eq!((answer.status, answer.json()), (200, json!({ "assignments": [] })));
    let waited = begun.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(2)).contains(&waited), "{waited:?}");
}

#[test]
fn nodes_hear_of_what_they_miss() {
    let running = Running::in_memory();
    let nodes = registered(&running, 4);
    let mut slow = draft("", &["x"]);
    slow.policy.pledge_ms = 100;
    let mut follower = Follower::new(&running, None);
    let id = open(&running, &slow);
    let place = place(&running, &id, 0, 0);
    let drawn = awaited(&running, &place, &nodes);
    // Nobody does anything: without a vote the next round is drawn, and then no nodes are left.
    assert_eq!(drawn.len(), 2);
    let missed = loop {
        let event = follower.next();
        if event.kind == "task" {
            break event.data;
        }
    };
    assert_eq!((&missed["status"], &missed["outcome"]), (&json!("no_agreement"), &json!("failed")));
    assert_eq!(missed["missed"], 4, "{missed}");
    let score = running.get(&format!("/v1/nodes/{}", drawn[0].key())).json();
    assert_eq!(score["score"]["missed"], 1);
}
