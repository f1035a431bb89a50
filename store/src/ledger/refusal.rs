//! What the ledger does not take, and why.

use anwansi_proofs::{Digest, SpecFault, TransitionId, Version};

/// Why the ledger does not take what it was given. Nothing has changed then, unless it says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The specification breaks a rule of its format.
    #[error("not a specification of a transition: {0}")]
    Spec(#[from] SpecFault),
    /// The transition has too many tasks.
    #[error("the transition has {found} tasks, at most {max} are allowed")]
    TooManyTasks {
        /// How many it has.
        found: usize,
        /// How many it may have.
        max: usize,
    },
    /// The transition's tasks may draw too many nodes: what they sign would be more than evidence holds.
    #[error(
        "the tasks may draw {found} nodes together, at most {max} are allowed: tasks * nodes_max"
    )]
    TooManyDraws {
        /// How many they may draw.
        found: usize,
        /// How many they might at most.
        max: usize,
    },
    /// Nobody registered this fold here.
    #[error("there is no fold {name:?}")]
    UnknownFold {
        /// Its name in the specification.
        name: String,
    },
    /// The fold cannot be applied as the specification wants.
    #[error("the fold {name:?} cannot be used with {with}")]
    FoldUse {
        /// Its name.
        name: String,
        /// What it cannot be used with.
        with: &'static str,
    },
    /// An input is not there.
    #[error("there is no blob {digest}: put it first")]
    UnknownBlob {
        /// Its digest.
        digest: Digest,
    },
    /// No task could be decided.
    #[error("{registered} nodes are registered, and a lead of {lead} needs as many")]
    TooFewRegistered {
        /// How many are registered.
        registered: usize,
        /// The lead asked for.
        lead: u32,
    },
    /// Too much is open at once. Try again later.
    #[error("too many transitions and tasks are open: try again later")]
    TooMuchOpen,
    /// The transition was opened before.
    #[error("the transition {id} was opened before")]
    KnownTransition {
        /// Its name.
        id: TransitionId,
    },
    /// There is no such transition.
    #[error("there is no transition {id}")]
    UnknownTransition {
        /// Its name.
        id: TransitionId,
    },
    /// The transition was decided so long ago that only its records and its state are kept.
    #[error(
        "the transition {id} was decided in version {decided}, and what led to it is dropped: that of \
         decisions from version {oldest} on is kept"
    )]
    Dropped {
        /// Its name.
        id: TransitionId,
        /// The version that decided it.
        decided: Version,
        /// The oldest version whose decisions are kept.
        oldest: Version,
    },
    /// The transition has no such task.
    #[error("the transition has {tasks} tasks, and so no task {index}")]
    UnknownTask {
        /// What was asked for.
        index: u32,
        /// How many there are.
        tasks: u32,
    },
    /// The transition is not decided: what was asked for is not known yet, or sealed.
    #[error("the transition is not decided yet")]
    NotDecided,
    /// The transition was decided, or a node has pledged: it goes on.
    #[error("a transition can be cancelled only before the first pledge")]
    NotCancellable,
    /// The node was not drawn for this round.
    #[error("the node is not drawn for this round")]
    NotDrawn,
    /// It came after the end of its phase: it counts for nothing, and against nobody.
    #[error("it came too late")]
    TooLate,
    /// What it follows on is not in the log yet: the version that opens the transition, or the closing of
    /// the round's pledges.
    #[error("what this follows on is not in the log yet: try again a little later")]
    TooEarly,
    /// The node has not pledged in this round.
    #[error("the node has not pledged in this round")]
    NotPledged,
    /// The signature is not the node's.
    #[error("the signature is not this node's over this pledge")]
    BadSignature,
    /// The result and the salt do not open the pledge. It is recorded.
    #[error("the result and the salt do not open the node's pledge")]
    BadReveal,
    /// The node signed another pledge for this round. Both are kept, and it counts for nothing.
    #[error("the node has signed two pledges for this round: both are kept as evidence")]
    Equivocated,
    /// A result or a blob is too long.
    #[error("it has {length} bytes, at most {max} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The longest allowed.
        max: usize,
    },
    /// The content has another digest.
    #[error("the content has the digest {found}, not the one it was given under")]
    WrongDigest {
        /// The digest that it has.
        found: Digest,
    },
    /// Nobody may read it, or it is not there: results are sealed until their transition is decided.
    #[error("there is no readable blob {digest}")]
    NoSuchBlob {
        /// The digest asked for.
        digest: Digest,
    },
    /// The node is not registered.
    #[error("the node is not registered")]
    UnknownNode,
    /// As many nodes are registered as can be.
    #[error("{max} nodes are registered, and no more can be: remove some")]
    TooManyNodes {
        /// How many can be registered.
        max: usize,
    },
}
