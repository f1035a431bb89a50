//! A node's part of a task, as the server hands it out and as the node answers it.
//!
//! Nothing here checks that an assignment is right: that is the [`Worker`](crate::worker::Worker)'s part.
//! These are the pieces to build other nodes from, faulty ones for tests among them.

use std::{fmt::Write as _, time::Duration};

use anwansi_proofs::{DECIMAL_MAX, Digest, NodeKey, Place, Pledge, TransitionId, Version};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;

use crate::{
    Client, Error, Fault,
    client::{ANSWER_BYTES_MAX, SHORT_BYTES_MAX},
};

/// The most assignments that are looked at in one answer; others come again.
const ASSIGNMENTS_MAX: usize = 10_000;
/// The most rounds that an assignment may announce.
const ROUNDS_MAX: usize = 100_000;
/// The longest list of a round's pledges: as many as draws are announced of.
const LEAVES_BYTES_MAX: u64 = 64 << 20;

/// What a server says that a node has to do: a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The transition.
    pub transition: TransitionId,
    /// The index of the task.
    pub index: u32,
    /// The round.
    pub round: u32,
    /// What is waited for.
    pub phase: Phase,
    /// The version that opened the transition.
    pub opened: Version,
    /// How many nodes were drawn in each round so far, this one last.
    pub draws: Vec<u32>,
    /// The program. The specification says it too, and what it says counts.
    pub program: String,
    /// How long it will be waited for, from when the answer was made.
    pub until: Duration,
}

/// What a node's part of a task is, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// To run the task, and to pledge its result.
    Pledge,
    /// To reveal the result: this version closed the round.
    Reveal {
        /// The version.
        closed: Version,
    },
}

#[derive(Deserialize)]
struct Answered {
    assignments: Vec<Told>,
}

/// What the answer says. Input and code are read from the specification, which cannot be another.
#[derive(Deserialize)]
struct Told {
    transition: String,
    index: u32,
    round: u32,
    phase: String,
    opened: u64,
    closed: Option<u64>,
    draws: Vec<u32>,
    program: String,
    until_ms: u64,
}

impl Client {
    /// What `node` has to do for one of `programs`, or for any if none is named, as soon as there is something,
    /// or nothing after `wait`. The server's word.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Refused`], and [`Error::NotProven`] if it is no such list.
    pub fn assignments(
        &self,
        node: &NodeKey,
        programs: &[String],
        wait: Duration,
    ) -> Result<Vec<Assignment>, Error> {
        let mut path = format!("v1/assignments?node={node}&wait_ms={}", wait.as_millis());
        for program in programs {
            let program = utf8_percent_encode(program, NON_ALPHANUMERIC);
            write!(path, "&program={program}").expect("strings take what is written");
        }
        let answer = self.transport.get(&path, ANSWER_BYTES_MAX)?;
        let Answered { assignments } = serde_json::from_slice(&answer.body).map_err(Error::form)?;
        assignments.into_iter().take(ASSIGNMENTS_MAX).map(Assignment::read).collect()
    }

    /// Sends a node's pledge.
    ///
    /// # Errors
    /// [`Error::Refused`]: it was not taken, for good. [`Error::Unreachable`]: it may have been; the same
    /// may be sent again.
    pub fn send_pledge(&self, place: &Place, pledge: &Pledge) -> Result<(), Error> {
        let body = json!({
            "node": pledge.node.to_string(), "round": place.round,
            "pledge": pledge.pledge.to_string(), "signature": STANDARD.encode(pledge.signature),
        });
        self.send(place, "pledges", &body.to_string())
    }

    /// Opens a node's pledge: shows its result.
    ///
    /// # Errors
    /// As of [`Client::send_pledge`].
    pub fn send_reveal(
        &self,
        place: &Place,
        node: &NodeKey,
        salt: &[u8; 32],
        result: &[u8],
    ) -> Result<(), Error> {
        let body = json!({
            "node": node.to_string(), "round": place.round,
            "salt": STANDARD.encode(salt), "result": STANDARD.encode(result),
        });
        self.send(place, "reveals", &body.to_string())
    }

    fn send(&self, place: &Place, what: &str, body: &str) -> Result<(), Error> {
        let Place { transition, task, .. } = place;
        let path = format!("v1/transitions/{transition}/tasks/{task}/{what}");
        self.transport.post(&path, body.as_bytes(), None, SHORT_BYTES_MAX).map(drop)
    }

    /// The pledges of a round that was closed, in the order of their nodes. The server's word, until they
    /// are compared with the closing's record.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Refused`], and [`Error::NotProven`] if it is no such list.
    pub fn closed_pledges(
        &self,
        transition: &TransitionId,
        index: u32,
        round: u32,
    ) -> Result<Vec<Pledge>, Error> {
        #[derive(Deserialize)]
        struct Leaves {
            leaves: String,
        }
        let path = format!("v1/transitions/{transition}/tasks/{index}/pledges?round={round}");
        let answer = self.transport.get(&path, LEAVES_BYTES_MAX)?;
        let Leaves { leaves } = serde_json::from_slice(&answer.body).map_err(Error::form)?;
        let leaves = STANDARD.decode(leaves).map_err(Error::form)?;
        Pledge::read_all(&leaves).ok_or_else(|| Error::form("the last leaf is cut off"))
    }
}

impl Assignment {
    fn read(told: Told) -> Result<Self, Error> {
        let version = |version: u64| {
            let version = Some(version).filter(|version| *version <= DECIMAL_MAX).map(Version);
            version.ok_or_else(|| Error::form("there is no such version"))
        };
        let phase = match (&*told.phase, told.closed) {
            ("pledge", _) => Phase::Pledge,
            ("reveal", Some(closed)) => Phase::Reveal { closed: version(closed)? },
            ("reveal", None) => {
                return Err(Error::form("a reveal without the version that closed"));
            }
            (phase, _) => return Err(Error::form(format!("the phase {phase:?}"))),
        };
        if told.draws.len() > ROUNDS_MAX {
            return Err(Fault::Form(format!("more than {ROUNDS_MAX} rounds")).into());
        }
        Ok(Assignment {
            transition: TransitionId(told.transition.parse::<Digest>()?),
            index: told.index,
            round: told.round,
            phase,
            opened: version(told.opened)?,
            draws: told.draws,
            program: crate::escape(told.program.as_bytes()),
            until: Duration::from_millis(told.until_ms),
        })
    }
}
