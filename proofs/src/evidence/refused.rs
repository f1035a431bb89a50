//! Why evidence proves nothing: the level that refused, where, and what was wrong there.

use alloc::string::String;
use core::fmt;

use super::Level;
use crate::{
    Digest, Error, FoldError, Next, NodeKey, SpecFault, Version,
    record::{Outcome, Status},
};

/// Why evidence proves nothing, none of its levels, and which of them refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A part is not shown to be in the log, or not under the same checkpoint as the others.
    #[error("finality: {}{error}", Part(*.earlier))]
    Finality {
        /// The part's place in `earlier`; `None` for the main one.
        earlier: Option<usize>,
        /// What is wrong with it.
        error: Error,
    },
    /// A proof does not lead to the root in the header of its part.
    #[error("inclusion: {}{error}", Part(*.earlier))]
    Inclusion {
        /// The part's place in `earlier`; `None` for the main one.
        earlier: Option<usize>,
        /// What is wrong with it.
        error: Error,
    },
    /// The votes do not come to what the records say.
    #[error("agreement: {at}{fault}")]
    Agreement {
        /// Where it was found.
        at: Spot,
        /// What is wrong there.
        fault: Disagreement,
    },
    /// The outputs do not come to what the record and the state say.
    #[error("aggregate: {0}")]
    Aggregate(#[from] Misfold),
}

impl Refused {
    /// The level that refused.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Refused::Finality { .. } => Level::Finality,
            Refused::Inclusion { .. } => Level::Inclusion,
            Refused::Agreement { .. } => Level::Agreement,
            Refused::Aggregate(_) => Level::Aggregate,
        }
    }
}

/// A place in a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// The whole of it.
    Transition,
    /// One task.
    Task(u32),
    /// One round of a task.
    Round {
        /// The task.
        task: u32,
        /// Its round.
        round: u32,
    },
    /// What one node did in a round.
    Node {
        /// The task.
        task: u32,
        /// Its round.
        round: u32,
        /// The node.
        node: NodeKey,
    },
}

/// How the votes that are shown fail to support what the records say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Disagreement {
    /// A member of the evidence, or an entry of one, is not there.
    #[error("{member:?} has nothing for it")]
    Missing {
        /// The member's name.
        member: &'static str,
    },
    /// A member of the evidence has entries that belong to no task or round.
    #[error("{member:?} has more than belongs to the transition")]
    LeftOver {
        /// The member's name.
        member: &'static str,
    },
    /// The version is not among the parts, or without the proof that is needed.
    #[error("version {version} is not among the parts with its proof")]
    NoPart {
        /// The version.
        version: Version,
    },
    /// A proof does not show what is needed.
    #[error("{0}")]
    Proof(Error),
    /// The specification breaks a rule.
    #[error("not a specification: {0}")]
    Spec(SpecFault),
    /// The tasks tree has other records under the transition's id than its own and one a task.
    #[error(
        "the version does not show one record of this transition and one of each task, no others"
    )]
    OtherRecords,
    /// There is no record, or it is malformed, or about something else.
    #[error("the record {record} is missing, or not of its form, or about something else")]
    Record {
        /// Which one.
        record: &'static str,
    },
    /// A record says something that the evidence does not come to.
    #[error("the record's {member:?} is not what the evidence comes to")]
    Recorded {
        /// The record's member.
        member: &'static str,
    },
    /// A key of the registry is not that of a node.
    #[error("the registry has a key of {bytes} bytes, which is no node's")]
    Registry {
        /// The length of what should be a node's key.
        bytes: usize,
    },
    /// The rule had decided before this round.
    #[error("the task was decided before it")]
    RoundTooMany,
    /// It was closed before it could begin.
    #[error("it was closed in version {closed}, which is not above version {after}")]
    ClosedTooEarly {
        /// The version of the closing.
        closed: Version,
        /// That of the closing before it, or of the opening.
        after: Version,
    },
    /// Fewer nodes are registered than have to be drawn.
    #[error("{count} nodes have to be drawn, and so many are not left")]
    TooFewNodes {
        /// The nodes to be drawn.
        count: u32,
    },
    /// To draw all nodes again would take more work than a verifier does.
    #[error("more nodes are drawn than a verifier recounts")]
    TooManyDrawn,
    /// The bytes do not divide into whole pledges or votes.
    #[error("{member:?} has bytes left over")]
    Leaves {
        /// The member's name.
        member: &'static str,
    },
    /// Pledges or votes are not one a node in the order of rounds and nodes.
    #[error("{member:?} is not in strictly ascending order")]
    Order {
        /// The member's name.
        member: &'static str,
    },
    /// The node was not drawn for this round.
    #[error("it was not drawn")]
    NotDrawn,
    /// The pledge is not signed by its node.
    #[error("its pledge is not signed by it")]
    NotSigned,
    /// The vote is not of the pledge that was closed.
    #[error("its vote is not of a pledge that was closed")]
    NotPledged,
    /// The vote's digest and salt do not open its pledge.
    #[error("its vote does not open its pledge")]
    NotOpened,
    /// The task's record says otherwise than the rule.
    #[error("recorded as {}, where the rule comes to {rule:?}", status.as_str())]
    Status {
        /// What the record says.
        status: Status,
        /// What the rule says after the last round.
        rule: Next,
    },
    /// What became of the transition is not what became of its tasks.
    #[error("recorded as {}, which its tasks are not", outcome.as_str())]
    Outcome {
        /// What the record says.
        outcome: Outcome,
    },
}

/// How the outputs that are shown fail to support the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misfold {
    /// An output is another than its name says.
    #[error("the output {name} is another")]
    Misnamed {
        /// The digest that it should have.
        name: Digest,
    },
    /// An output is none that a node voted for.
    #[error("nobody voted for the output {name}")]
    NotVotedFor {
        /// Its digest.
        name: Digest,
    },
    /// The output of a task is not there.
    #[error("the output of task {task} is missing")]
    Missing {
        /// The task.
        task: u32,
    },
    /// The outputs of all tasks are together longer than
    /// [`FOLDED_BYTES_MAX`](crate::FOLDED_BYTES_MAX).
    #[error("the outputs are longer than a verifier folds")]
    TooLong,
    /// The fold of the outputs fails, or adding it to what was there: it cannot have been applied.
    #[error("it cannot have been applied: {0}")]
    Fold(#[from] FoldError),
    /// The outputs fold to another value than the record names.
    #[error("the outputs come to the value {computed}, which is not the record's")]
    OtherValue {
        /// The digest of what they come to.
        computed: Digest,
    },
    /// A member of the value cannot be written: its key would be too long.
    #[error("it cannot have been applied: a key is too long")]
    KeyTooLong,
    /// The version is not among the parts with a proof of its state.
    #[error("version {version} is not among the parts with a proof of its state")]
    NoState {
        /// The version: that of the decision, or the one before it.
        version: Version,
    },
    /// A state proof does not cover a key that was written.
    #[error("the key {key:?}: {error}")]
    Unproven {
        /// The key.
        key: String,
        /// What is wrong with the question.
        error: Error,
    },
    /// The state does not have what was to be written.
    #[error("the state does not have under the key {key:?} what the outputs come to")]
    NotWritten {
        /// The key.
        key: String,
    },
}

struct Part(Option<usize>);

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(at) => write!(f, "earlier part {at}: "),
        }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spot::Transition => Ok(()),
            Spot::Task(task) => write!(f, "task {task}: "),
            Spot::Round { task, round } => write!(f, "task {task}, round {round}: "),
            Spot::Node { task, round, node } => {
                write!(f, "task {task}, round {round}, node {node}: ")
            }
        }
    }
}
