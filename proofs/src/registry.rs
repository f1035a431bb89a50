//! The ledger's keys in the state: nodes, their scores, and which transitions there ever were.

use alloc::vec::Vec;

use crate::{
    Origin, Version,
    json::Json,
    members::{Members, version},
    record::{Outcome, object},
    spec::TransitionId,
    vote::NodeKey,
};

/// What the keys of nodes start with; the 32 bytes of the node's key follow.
pub const NODE_PREFIX: &[u8] = b"\0node/";
/// What the keys of scores start with; the 32 bytes of the node's key follow.
pub const SCORE_PREFIX: &[u8] = b"\0score/";
/// What the keys of transitions start with; the 32 bytes of the id follow.
pub const TASK_PREFIX: &[u8] = b"\0task/";

/// A registered node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// The version that registered it.
    pub since: Version,
}

/// What a node has done, in tasks that were decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Votes for the answer that became final.
    pub agreed: u64,
    /// Votes for another one.
    pub dissented: u64,
    /// Rounds in which it was drawn and did not pledge in time.
    pub missed: u64,
    /// Pledges without a reveal.
    pub no_reveal: u64,
    /// Reveals that did not open the pledge.
    pub bad_reveal: u64,
    /// Rounds in which it signed two pledges.
    pub equivocated: u64,
}

/// What became of a transition, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransitionState {
    /// The version that opened it.
    pub opened: Version,
    /// The version that decided it and how, once it is.
    pub decided: Option<(Version, Outcome)>,
}

/// The key of a node in the state.
#[must_use]
pub fn node_key(node: &NodeKey) -> Vec<u8> {
    [NODE_PREFIX, &node.0].concat()
}

/// The key of a node's score in the state.
#[must_use]
pub fn score_key(node: &NodeKey) -> Vec<u8> {
    [SCORE_PREFIX, &node.0].concat()
}

/// The key of a transition in the state.
#[must_use]
pub fn transition_key(id: &TransitionId) -> Vec<u8> {
    [TASK_PREFIX, &id.0.0].concat()
}

/// The bytes that a node signs to be registered with the log of this origin.
#[must_use]
pub fn join_message(origin: &Origin) -> Vec<u8> {
    [b"anwansi/join/v1\n", origin.as_str().as_bytes()].concat()
}

impl NodeRecord {
    /// The record as canonical JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        object([("since", Json::from(self.since.0))])
    }

    /// Reads it; `None` if it is anything else.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut members = Members::parse(bytes)?;
        let record = NodeRecord { since: members.version("since")? };
        members.finish().map(|()| record)
    }
}

impl Score {
    /// The record as canonical JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        object([
            ("agreed", Json::from(self.agreed)),
            ("bad_reveal", Json::from(self.bad_reveal)),
            ("dissented", Json::from(self.dissented)),
            ("equivocated", Json::from(self.equivocated)),
            ("missed", Json::from(self.missed)),
            ("no_reveal", Json::from(self.no_reveal)),
        ])
    }

    /// Reads it; `None` if it is anything else.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut members = Members::parse(bytes)?;
        let mut count = |name| members.take(name)?.as_u64();
        let score = Score {
            agreed: count("agreed")?,
            dissented: count("dissented")?,
            missed: count("missed")?,
            no_reveal: count("no_reveal")?,
            bad_reveal: count("bad_reveal")?,
            equivocated: count("equivocated")?,
        };
        members.finish().map(|()| score)
    }

    /// The score with what was there before.
    #[must_use]
    pub fn added_to(&self, before: &Score) -> Self {
        Score {
            agreed: self.agreed.saturating_add(before.agreed),
            dissented: self.dissented.saturating_add(before.dissented),
            missed: self.missed.saturating_add(before.missed),
            no_reveal: self.no_reveal.saturating_add(before.no_reveal),
            bad_reveal: self.bad_reveal.saturating_add(before.bad_reveal),
            equivocated: self.equivocated.saturating_add(before.equivocated),
        }
    }

    /// What the node did well, and what it did not: dissent and faults.
    #[must_use]
    pub fn successes_and_failures(&self) -> (u64, u64) {
        let faults = [self.dissented, self.no_reveal, self.bad_reveal, self.equivocated];
        (self.agreed, faults.iter().fold(0, |sum, faults| sum.saturating_add(*faults)))
    }
}

impl TransitionState {
    /// The record as canonical JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let opened = Json::from(self.opened.0);
        match self.decided {
            None => object([("opened", opened)]),
            Some((version, outcome)) => object([
                ("decided", Json::from(version.0)),
                ("opened", opened),
                ("outcome", Json::from(outcome.as_str())),
            ]),
        }
    }

    /// Reads it; `None` if it is anything else.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut members = Members::parse(bytes)?;
        let opened = members.version("opened")?;
        let decided = match (members.take("decided"), members.take("outcome")) {
            (Some(decided), Some(outcome)) => {
                Some((version(&decided)?, Outcome::parse(outcome.as_str()?)?))
            }
            (None, None) => None,
            _ => return None,
        };
        members.finish()?;
        Some(TransitionState { opened, decided })
    }
}
