//! What the ledger does not take, as problems: each refusal under a name of its own, with a way to mend it.

use anwansi_proofs::SpecFault;
use anwansi_store::Refusal;

use crate::problem::{Kind, Problem};

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (kind, mend) = match &refusal {
            Refusal::Spec(fault) => (kind_of(fault), ""),
            Refusal::TooManyTasks { .. } => (Kind::TooManyTasks, "submit several transitions"),
            Refusal::TooManyDraws { .. } => {
                (Kind::TooManyTasks, "submit several transitions, or give a smaller nodes_max")
            }
            Refusal::UnknownFold { .. } => (
                Kind::UnknownFold,
                "give sum, min, max, sum_vector, sum_by_key, union, merge, list, or one that this \
                 server was built with",
            ),
            Refusal::FoldUse { .. } => (Kind::FoldUse, "leave that out, or give another fold"),
            Refusal::UnknownBlob { .. } => (Kind::UnknownBlob, "with PUT /v1/blobs/{digest}"),
            Refusal::TooFewRegistered { .. } => {
                (Kind::TooFewNodes, "register more nodes, or give a smaller lead")
            }
            Refusal::TooMuchOpen => (Kind::TooMuchOpen, ""),
            Refusal::KnownTransition { .. } => (Kind::Conflict, ""),
            Refusal::UnknownTransition { .. } => {
                (Kind::UnknownTransition, "give an id that POST /v1/transitions has answered")
            }
            Refusal::Dropped { .. } => {
                (Kind::Pruned, "GET /v1/transitions/{id} has what is recorded of it")
            }
            Refusal::UnknownTask { .. } => (Kind::UnknownTask, "tasks count from 0"),
            Refusal::NotDecided => (
                Kind::NotDecided,
                "see GET /v1/transitions/{id}, or wait for its tasks in GET /v1/events",
            ),
            Refusal::NotCancellable => (Kind::NotCancellable, "wait until it is decided"),
            Refusal::NotDrawn => (Kind::NotDrawn, "ask GET /v1/assignments what it has to do"),
            Refusal::TooLate => {
                (Kind::TooLate, "it counts for nothing and against nobody, do not send it again")
            }
            Refusal::TooEarly => (Kind::TooEarly, ""),
            Refusal::NotPledged => (Kind::NotPledged, "pledge first"),
            Refusal::BadSignature => (
                Kind::BadSignature,
                "sign the bytes that the specification of anwansi-proofs names, with the key of this \
                 node",
            ),
            Refusal::BadReveal => (
                Kind::BadReveal,
                "this is recorded; reveal what was pledged, as long as the round takes it",
            ),
            Refusal::Equivocated => (Kind::Equivocated, "sign one pledge a round"),
            Refusal::TooLong { .. } => (Kind::ResultTooLarge, "make the tasks smaller"),
            Refusal::WrongDigest { .. } => (Kind::WrongDigest, "put it under that"),
            Refusal::NoSuchBlob { .. } => (
                Kind::NoSuchBlob,
                "results are sealed until their transition is decided, and go when it is pruned",
            ),
            Refusal::UnknownNode => (Kind::UnknownNode, "see GET /v1/nodes for those that are"),
            Refusal::TooManyNodes { .. } => (Kind::TooManyNodes, ""),
            refusal => return Problem::internal(refusal),
        };
        let said = refusal.to_string();
        let detail = if mend.is_empty() { said } else { format!("{said}: {mend}") };
        with_members(Problem::new(kind, detail), &refusal)
    }
}

/// Adds what programs would otherwise read out of the detail.
fn with_members(problem: Problem, refusal: &Refusal) -> Problem {
    match refusal {
        Refusal::Spec(SpecFault::NotCanonical { at }) => problem.with("at", *at),
        Refusal::Spec(SpecFault::Member { name }) => problem.with("member", *name),
        Refusal::TooManyTasks { max, .. }
        | Refusal::TooManyDraws { max, .. }
        | Refusal::TooManyNodes { max }
        | Refusal::TooLong { max, .. } => problem.with("max", *max),
        Refusal::UnknownBlob { digest } => problem.with("digest", digest.to_string()),
        Refusal::WrongDigest { found } => problem.with("digest", found.to_string()),
        Refusal::TooFewRegistered { registered, lead } => {
            problem.with("registered", *registered).with("lead", *lead)
        }
        Refusal::Dropped { decided, oldest, .. } => {
            problem.with("decided", decided.0).with("oldest", oldest.0)
        }
        Refusal::UnknownTask { tasks, .. } => problem.with("tasks", *tasks),
        _ => problem,
    }
}

fn kind_of(fault: &SpecFault) -> Kind {
    match fault {
        SpecFault::NoInputs => Kind::NoInputs,
        SpecFault::Into => Kind::BadInto,
        SpecFault::TooLong { .. } => Kind::BodyTooLarge,
        SpecFault::ErrorRate { .. } | SpecFault::NoLead | SpecFault::TooFewNodes { .. } => {
            Kind::BadPolicy
        }
        // With them those that are not known here yet.
        _ => Kind::MalformedSpec,
    }
}
