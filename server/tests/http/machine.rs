//! A machine of nodes that vote over HTTP, and the transitions that they are given.

use std::{
    thread,
    time::{Duration, Instant},
};

use anwansi_proofs::{
    Apply, Digest, Draft, Input, NodeKey, Place, Spec, TaskPolicy, TransitionId,
    registry::join_message,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

use super::{Answer, Running};

/// A node. What it answers to a task, the tests tell it.
pub(super) struct Node(SigningKey);

impl Node {
    pub(super) fn new(number: u8) -> Self {
        Node(SigningKey::from_bytes(&[number; 32]))
    }

    pub(super) fn key(&self) -> NodeKey {
        NodeKey(self.0.verifying_key().to_bytes())
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// What the node sends to be registered.
    pub(super) fn joins(&self, running: &Running) -> Value {
        let origin = running.server().store().origin().clone();
        json!({ "signature": STANDARD.encode(self.sign(&join_message(&origin))) })
    }

    pub(super) fn join(&self, running: &Running) -> Answer {
        let (path, bearer) = (format!("/v1/nodes/{}", self.key()), running.bearer());
        let body = self.joins(running).to_string();
        running.put(&path, &[("authorization", &bearer)], body.as_bytes())
    }

    /// What it has to do.
    pub(super) fn todo(&self, running: &Running) -> Vec<Value> {
        let answer = running.get(&format!("/v1/assignments?node={}", self.key()));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["assignments"].as_array().unwrap().clone()
    }

    /// A salt that a retry repeats.
    fn salt(&self, place: &Place, result: &[u8]) -> [u8; 32] {
        Digest::of(&[&self.0.to_bytes()[..], &place.noise_seed(&self.key()).0, result].concat()).0
    }

    /// The body of a pledge for a result.
    pub(super) fn pledges(&self, place: &Place, result: &[u8]) -> Value {
        let salt = self.salt(place, result);
        let pledge = place.pledge(&self.key(), &Digest::of(result), &salt);
        json!({
            "node": self.key().to_string(),
            "round": place.round,
            "pledge": pledge.to_string(),
            "signature": STANDARD.encode(self.sign(&place.signed(&pledge))),
        })
    }

    /// The body of the reveal of a result.
    pub(super) fn reveals(&self, place: &Place, result: &[u8]) -> Value {
        json!({
            "node": self.key().to_string(),
            "round": place.round,
            "salt": STANDARD.encode(self.salt(place, result)),
            "result": STANDARD.encode(result),
        })
    }

    pub(super) fn pledge(&self, running: &Running, place: &Place, result: &[u8]) -> Answer {
        send(running, place, "pledges", &self.pledges(place, result))
    }

    pub(super) fn reveal(&self, running: &Running, place: &Place, result: &[u8]) -> Answer {
        send(running, place, "reveals", &self.reveals(place, result))
    }
}

/// Sends a pledge or a reveal.
pub(super) fn send(running: &Running, place: &Place, what: &str, body: &Value) -> Answer {
    let path = format!("/v1/transitions/{}/tasks/{}/{what}", place.transition, place.task);
    running.post(&path, &[], body.to_string().as_bytes())
}

/// So many registered nodes.
pub(super) fn registered(running: &Running, count: u8) -> Vec<Node> {
    let nodes = (0..count).map(Node::new).collect::<Vec<_>>();
    for node in &nodes {
        let joined = node.join(running);
        assert_eq!(joined.status, 200, "{}", joined.text());
    }
    nodes
}

/// A transition that adds numbers up, decided by a lead of two.
pub(super) fn draft(nonce: &str, inputs: &[&str]) -> Draft {
    Draft {
        program: "number/1".into(),
        code: None,
        nonce: nonce.into(),
        inputs: inputs.iter().map(|input| Input::Data(input.as_bytes().to_vec())).collect(),
        fold: "sum".into(),
        into: "total".into(),
        apply: Apply::Replace,
        spread: false,
        policy: TaskPolicy { error_ppm: 50_000, ..TaskPolicy::with_lead(2) },
    }
}

pub(super) fn submit(running: &Running, draft: &Draft) -> Answer {
    let spec = Spec::new(draft).unwrap();
    submit_bytes(running, spec.bytes())
}

pub(super) fn submit_bytes(running: &Running, spec: &[u8]) -> Answer {
    running.post("/v1/transitions", &[("authorization", &running.bearer())], spec)
}

/// Opens a transition.
pub(super) fn open(running: &Running, draft: &Draft) -> TransitionId {
    let answer = submit(running, draft);
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().parse().unwrap()
}

pub(super) fn progress(running: &Running, id: &TransitionId) -> Value {
    let answer = running.get(&format!("/v1/transitions/{id}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The place of a round of a task, as a node computes it.
pub(super) fn place(running: &Running, id: &TransitionId, task: u32, round: u32) -> Place {
    let opened = &progress(running, id)["opened"];
    let header = running.get(&format!("/v1/versions/{opened}")).json()["header"].clone();
    let opened = Digest::of(header.as_str().unwrap().as_bytes());
    Place { opened, transition: *id, task, round }
}

/// Waits until something is there.
pub(super) fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "it did not come");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a task is in this phase of this round.
pub(super) fn wait_for_phase(running: &Running, place: &Place, phase: &str) {
    wait_for(|| {
        let progress = progress(running, &place.transition);
        let task = &progress["tasks"][place.task as usize];
        (task["phase"] == phase && task["round"] == place.round).then_some(())
    });
}

/// The nodes that a task waits for.
pub(super) fn awaited<'a>(running: &Running, place: &Place, nodes: &'a [Node]) -> Vec<&'a Node> {
    let progress = progress(running, &place.transition);
    let keys = progress["tasks"][place.task as usize]["waiting_for"].as_array().unwrap();
    let keys = keys.iter().map(|key| key.as_str().unwrap().parse::<NodeKey>().unwrap());
    keys.map(|key| nodes.iter().find(|node| node.key() == key).unwrap()).collect()
}

/// Lets all nodes that are drawn for a round vote, the first of them for `first`, the others for `others`.
pub(super) fn vote(running: &Running, place: &Place, nodes: &[Node], first: &[u8], others: &[u8]) {
    wait_for_phase(running, place, "pledging");
    let drawn = awaited(running, place, nodes);
    let results = || [first].into_iter().chain(std::iter::repeat(others));
    for (node, result) in drawn.iter().zip(results()) {
        let taken = node.pledge(running, place, result);
        assert_eq!(taken.status, 200, "{}", taken.text());
    }
    wait_for_phase(running, place, "revealing");
    for (node, result) in drawn.iter().zip(results()) {
        let taken = node.reveal(running, place, result);
        assert_eq!(taken.status, 200, "{}", taken.text());
    }
}

/// Waits until a transition is decided.
pub(super) fn decided(running: &Running, id: &TransitionId) -> Value {
    wait_for(|| Some(progress(running, id)).filter(|it| it["outcome"] != "open"))
}

/// A transition of one task for which all nodes vote alike, decided.
pub(super) fn run(running: &Running, nodes: &[Node], draft: &Draft, result: &[u8]) -> TransitionId {
    let id = open(running, draft);
    vote(running, &place(running, &id, 0, 0), nodes, result, result);
    decided(running, &id);
    id
}
