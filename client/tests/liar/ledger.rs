//! The ledger's routes over the store's ledger, as a server has them, and the lies that can be told there.

use anwansi_proofs::{Digest, Input, NodeKey, Pledge, TransitionId, Version};
use anwansi_store::{Error, Refusal, Stage, Turn};
use axum::body::Bytes;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Answer, Cut, Lie, Pairs, Server, answer, problem};

impl Server {
    /// `None` if it is none of the ledger's routes.
    pub(super) fn ledger(
        &self,
        route: (&str, &[&str]),
        query: &Pairs,
        body: &Bytes,
        lie: Lie,
    ) -> Option<Answer> {
        let ledger = self.store.ledger();
        Some(match route {
            ("GET", ["v1", "assignments"]) => self.assignments(query, lie),
            ("PUT", ["v1", "nodes", key]) => {
                let body: Value = serde_json::from_slice(body).unwrap();
                let signature = STANDARD.decode(body["signature"].as_str().unwrap()).unwrap();
                let key = key.parse().unwrap();
                or_refused(ledger.register(&key, &signature.try_into().unwrap()), |done| {
                    answer(200, json!({ "version": done.version.0 }).to_string())
                })
            }
            ("PUT", ["v1", "blobs", digest]) => {
                let put = ledger.put_blob(&digest.parse().unwrap(), body.clone());
                or_refused(put, |()| answer(204, ""))
            }
            ("GET", ["v1", "blobs", digest]) => {
                or_refused(ledger.blob(&digest.parse().unwrap()), |blob| match lie {
                    Lie::OtherBlob => answer(200, [&blob[..], b" "].concat()),
                    _ => answer(200, blob),
                })
            }
            ("POST", ["v1", "transitions"]) => or_refused(ledger.submit(body), |submitted| {
                let id = if lie == Lie::OtherId {
                    Digest::of(b"").to_string()
                } else {
                    submitted.id.to_string()
                };
                let told = json!({ "id": id, "tasks": submitted.tasks, "no_agreement": 0.5 });
                answer(201, told.to_string())
            }),
            ("GET", ["v1", "transitions", id]) => self.progress(&id.parse().unwrap()),
            ("GET", ["v1", "transitions", id, "spec"]) => {
                let id = id.parse().unwrap();
                let id = match lie {
                    Lie::OtherSpec(other) => other,
                    _ => id,
                };
                or_refused(ledger.spec(&id), |spec| answer(200, spec))
            }
            ("GET", ["v1", "transitions", id, "evidence"]) => {
                let outputs = query.text("outputs") == Some("true");
                let evidence = ledger.evidence(&id.parse().unwrap(), outputs);
                or_refused(evidence, |evidence| {
                    let mut evidence: Value = serde_json::from_str(&evidence.to_json()).unwrap();
                    if lie == Lie::LostVote {
                        let votes = evidence["votes"]["0"].as_str().unwrap();
                        let votes = STANDARD.decode(votes).unwrap();
                        evidence["votes"]["0"] = json!(STANDARD.encode(&votes[196..]));
                    }
                    answer(200, evidence.to_string())
                })
            }
            ("GET", ["v1", "transitions", id, "tasks", index, "pledges"]) => {
                let round = u32::try_from(query.number("round").unwrap()).unwrap();
                let pledges = ledger.pledges(&id.parse().unwrap(), index.parse().unwrap(), round);
                or_refused(pledges, |mut pledges| {
                    if let Lie::ClosedWithout(node) = lie {
                        pledges.retain(|pledge| pledge.node != node);
                    }
                    let leaves = pledges.iter().flat_map(Pledge::to_bytes).collect::<Vec<_>>();
                    answer(200, json!({ "leaves": STANDARD.encode(leaves) }).to_string())
                })
            }
            ("POST", ["v1", "transitions", id, "tasks", index, what @ ("pledges" | "reveals")]) => {
                self.part(&id.parse().unwrap(), index.parse().unwrap(), what, body)
            }
            _ => return None,
        })
    }

    fn part(&self, id: &TransitionId, index: u32, what: &str, body: &Bytes) -> Answer {
        let told: Value = serde_json::from_slice(body).unwrap();
        self.wire.lock().unwrap().push((what.into(), told.clone()));
        let cut = self.cut.lock().unwrap().take_if(|cut| cut.what == what);
        if matches!(cut, Some(Cut { after: false, .. })) {
            std::panic::resume_unwind(Box::new(()));
        }
        let text = |name: &str| told[name].as_str().unwrap();
        let bytes = |name: &str| STANDARD.decode(text(name)).unwrap();
        let node: NodeKey = text("node").parse().unwrap();
        let round = u32::try_from(told["round"].as_u64().unwrap()).unwrap();
        let taken = if what == "pledges" {
            let signature = bytes("signature").try_into().unwrap();
            let pledge = Pledge { node, pledge: text("pledge").parse().unwrap(), signature };
            self.store.ledger().pledge(id, index, round, &pledge)
        } else {
            let salt = bytes("salt").try_into().unwrap();
            self.store.ledger().reveal(id, index, round, &node, salt, bytes("result").into())
        };
        if cut.is_some() {
            std::panic::resume_unwind(Box::new(()));
        }
        or_refused(taken, |()| answer(200, "{}"))
    }

    fn assignments(&self, query: &Pairs, lie: Lie) -> Answer {
        let node: NodeKey = query.text("node").unwrap().parse().unwrap();
        let asked = match lie {
            // Those of another node.
            Lie::NotDrawn(drawn) => drawn,
            _ => node,
        };
        let assignments =
            self.store.ledger().assignments(&asked, &[]).into_iter().map(|assignment| {
                let (name, content) = match assignment.input {
                    Input::Data(data) => ("data", STANDARD.encode(data)),
                    Input::Blob(digest) => ("blob", digest.to_string()),
                };
                let (phase, closed) = match (assignment.turn, lie) {
                    (_, Lie::Closed(version)) => ("reveal", Some(version)),
                    (Turn::Pledge, _) => ("pledge", None),
                    (Turn::Reveal { closed }, _) => ("reveal", Some(closed.0)),
                };
                let (mut draws, mut opened) = (assignment.draws, assignment.opened);
                match lie {
                    Lie::Draws(count) => draws[0] = count,
                    Lie::Opened(version) => opened = Version(version),
                    _ => {}
                }
                json!({
                    "transition": assignment.transition.to_string(), "index": assignment.index,
                    "round": assignment.round, "phase": phase, "opened": opened.0, "closed": closed,
                    "draws": draws, "program": assignment.program, "input": { name: content },
                    "until_ms": assignment.until_ms,
                })
            });
        answer(200, json!({ "assignments": assignments.collect::<Vec<_>>() }).to_string())
    }

    fn progress(&self, id: &TransitionId) -> Answer {
        or_refused(self.store.ledger().progress(id), |progress| {
            let tasks = progress.tasks.iter().zip(0_u32..).map(|(task, index)| {
                let phase = match task.stage {
                    Stage::Pledging => "pledging",
                    Stage::Closing => "closed",
                    Stage::Revealing | Stage::Counting | Stage::Ended => "revealing",
                    Stage::Decided(status) => status.as_str(),
                };
                let waiting = task.waiting_for.iter().map(ToString::to_string);
                json!({
                    "index": index, "phase": phase, "round": task.round, "votes": task.votes,
                    "waiting_for": waiting.collect::<Vec<_>>(), "until_ms": task.until_ms,
                })
            });
            let outcome = progress.decided.map_or("open", |(_, outcome)| outcome.as_str());
            let told = json!({
                "id": progress.id.to_string(), "outcome": outcome, "opened": progress.opened.0,
                "decided": progress.decided.map(|(version, _)| version.0),
                "reason": progress.reason, "tasks": tasks.collect::<Vec<_>>(),
            });
            answer(200, told.to_string())
        })
    }
}

fn or_refused<T>(result: Result<T, Error>, yes: impl FnOnce(T) -> Answer) -> Answer {
    match result {
        Ok(value) => yes(value),
        Err(Error::Refused(refusal)) => {
            let name = match refusal {
                Refusal::TooLate => "too-late",
                Refusal::TooEarly => "too-early",
                Refusal::NotDrawn => "not-drawn",
                Refusal::BadSignature => "bad-signature",
                Refusal::BadReveal => "bad-reveal",
                Refusal::Equivocated => "conflict",
                _ => "malformed",
            };
            problem(422, name, &refusal.to_string())
        }
        Err(error) => problem(500, "broken", &error.to_string()),
    }
}
