//! Transitions: submitted, followed while they are open, and proven once they are decided.

use std::{ops::ControlFlow, thread, time::Duration};

use anwansi_proofs::{
    Agreed, DECIMAL_MAX, EVIDENCE_BYTES_MAX, Evidence, Json, NodeKey, SPEC_BYTES_MAX, Spec,
    TaskPolicy, TransitionId, Version,
    agreement::{Rounds, Voters, some_task},
    record::Outcome,
    registry::{TransitionState, transition_key},
};
use serde::Deserialize;

use crate::{
    At, Client, Error, Fault,
    client::{ANSWER_BYTES_MAX, SHORT_BYTES_MAX, Verified},
    transport::Idempotency,
    worker::Backoff,
};

/// How often progress is asked for.
const PROGRESS_PAUSE: Duration = Duration::from_millis(300);

/// How a transition stands. The server's word, good for waiting and for nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The transition.
    pub id: TransitionId,
    /// The version that opened it.
    pub opened: Version,
    /// The version that decided it and how, once it is.
    pub decided: Option<(Version, Outcome)>,
    /// Why it failed.
    pub reason: Option<String>,
    /// Its tasks, by index.
    pub tasks: Vec<TaskProgress>,
}

/// How a task stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskProgress {
    /// The task.
    pub index: u32,
    /// `pledging`, `closed`, `revealing`, or how it ended.
    pub phase: String,
    /// The round.
    pub round: u32,
    /// The votes so far.
    pub votes: u32,
    /// The nodes that are waited for.
    pub waiting_for: Vec<NodeKey>,
    /// How long they will be, from when the answer was made.
    pub until: Option<Duration>,
}

/// What became of a transition, proven by the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The version that opened it.
    pub opened: Version,
    /// The version that decided it.
    pub decided: Version,
    /// How.
    pub outcome: Outcome,
}

/// Evidence of a transition and all its tasks, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitionEvidence {
    /// What it comes to: the votes of all tasks, recounted.
    pub agreed: Agreed,
    /// What the results were folded to, which is in the state; `None` if that is not shown.
    pub value: Option<Json>,
    /// The evidence, to be kept and checked elsewhere.
    pub evidence: Evidence,
}

#[derive(Deserialize)]
struct ToldProgress {
    id: String,
    outcome: String,
    opened: u64,
    decided: Option<u64>,
    reason: Option<String>,
    tasks: Vec<ToldTask>,
}

#[derive(Deserialize)]
struct ToldTask {
    index: u32,
    phase: String,
    round: u32,
    votes: u32,
    #[serde(default)]
    waiting_for: Vec<String>,
    until_ms: Option<u64>,
}

/// The probability that some task of a transition ends without agreement, if its nodes, drawn from so many
/// registered ones, err apart and as often as the policy says; `None` if too many are drawn to compute it.
#[must_use]
pub fn no_agreement(tasks: u32, policy: &TaskPolicy, registered: usize) -> Option<f64> {
    let nodes_max = policy.nodes_max.min(u32::try_from(registered).unwrap_or(u32::MAX));
    let rounds = Rounds::new(policy.lead, nodes_max)?;
    let task = rounds.outcome(Voters::Independent { error: policy.error() });
    Some(some_task(task.no_agreement, tasks))
}

impl Client {
    /// Submits a transition, and returns its id. To submit it again changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unreachable`]: it may have been taken, submit it again; and
    /// [`Error::NotProven`] if another was taken.
    pub fn submit(&self, spec: &Spec) -> Result<TransitionId, Error> {
        #[derive(Deserialize)]
        struct Told {
            id: String,
        }
        let bytes = spec.bytes();
        // A server that knows an older log would take it into a history that nobody believes.
        self.remembered()?;
        let named = Some(Idempotency(None));
        let answer = self.transport.post("v1/transitions", bytes, named, SHORT_BYTES_MAX)?;
        let Told { id } = serde_json::from_slice(&answer.body).map_err(Error::form)?;
        let (asked, answered) = (spec.id(), id.parse()?);
        if asked != answered {
            return Err(Fault::OtherTransition { asked, answered }.into());
        }
        Ok(asked)
    }

    /// The specification of a transition, which no other has the id of.
    ///
    /// # Errors
    /// [`Error::NotProven`] if another is answered, [`Error::Unreachable`], [`Error::Refused`].
    pub fn spec(&self, id: &TransitionId) -> Result<Spec, Error> {
        let path = format!("v1/transitions/{id}/spec");
        let bytes = self.transport.get(&path, SPEC_BYTES_MAX as u64)?.body;
        // Before it is read: what has the id is what was opened, and not made to be hard to read.
        let answered = TransitionId::of(&bytes);
        if answered != *id {
            return Err(Fault::OtherTransition { asked: *id, answered }.into());
        }
        Ok(Spec::parse(bytes)?)
    }

    /// How a transition stands. The server's word.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Refused`], and [`Error::NotProven`] if it is no such answer.
    pub fn progress(&self, id: &TransitionId) -> Result<Progress, Error> {
        let answer = self.transport.get(&format!("v1/transitions/{id}"), ANSWER_BYTES_MAX)?;
        let told: ToldProgress = serde_json::from_slice(&answer.body).map_err(Error::form)?;
        let progress = Progress::read(told)?;
        if progress.id != *id {
            return Err(Fault::OtherTransition { asked: *id, answered: progress.id }.into());
        }
        Ok(progress)
    }

    /// What the state says of a transition: nothing, that it was opened, or how it was decided.
    ///
    /// # Errors
    /// As of [`Client::evidence`].
    pub fn transition(
        &self,
        id: &TransitionId,
        at: At,
    ) -> Result<Verified<Option<TransitionState>>, Error> {
        let Verified { header, value } = self.get(&transition_key(id), at)?;
        let read = |bytes: Vec<u8>| {
            let record = TransitionState::parse(&bytes);
            let what = || format!("of transition {id} in the state");
            record.ok_or_else(|| Error::at(header.version(), Fault::NoRecord { what: what() }))
        };
        let value = value.map(read).transpose()?;
        Ok(Verified { header, value })
    }

    /// Waits until a transition is decided, which is proven, or until `watch` breaks: then `None`.
    /// `watch` hears each answer, and each failure to get one, after which it is asked again.
    ///
    /// # Errors
    /// As of [`Client::evidence`], without [`Error::Unreachable`].
    pub fn wait(
        &self,
        id: &TransitionId,
        mut watch: impl FnMut(Result<&Progress, &Error>) -> ControlFlow<()>,
    ) -> Result<Option<Decision>, Error> {
        let mut backoff = Backoff::new(&id.0);
        loop {
            let asked = self.progress(id).and_then(|progress| {
                if watch(Ok(&progress)).is_break() {
                    return Ok(ControlFlow::Break(None));
                }
                if progress.decided.is_none() {
                    return Ok(ControlFlow::Continue(()));
                }
                self.decision(id).map(|decision| ControlFlow::Break(Some(decision)))
            });
            match asked {
                Ok(ControlFlow::Break(decision)) => return Ok(decision),
                Ok(ControlFlow::Continue(())) => {
                    backoff.reset();
                    thread::sleep(PROGRESS_PAUSE);
                }
                Err(error @ Error::Unreachable { .. }) => {
                    if watch(Err(&error)).is_break() {
                        return Ok(None);
                    }
                    thread::sleep(backoff.after(&error));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What became of a transition that the server says is decided.
    fn decision(&self, id: &TransitionId) -> Result<Decision, Error> {
        let Verified { header, value } = self.transition(id, At::Newest)?;
        let decision = value.and_then(|TransitionState { opened, decided }| {
            decided.map(|(decided, outcome)| Decision { opened, decided, outcome })
        });
        let what = || format!("of a decision of {id} in the state");
        decision.ok_or_else(|| Error::at(header.version(), Fault::NoRecord { what: what() }))
    }

    /// Evidence of a transition that was decided, with the votes of all its tasks, recounted. With
    /// `outputs` the results come too, and where they were applied they are folded again.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is not decided; as of [`Client::evidence`].
    pub fn transition_evidence(
        &self,
        id: &TransitionId,
        outputs: bool,
    ) -> Result<Verified<TransitionEvidence>, Error> {
        let before = self.remembered()?;
        let state = self.transition(id, At::Newest)?;
        let Some((decided, _)) = state.value.and_then(|state| state.decided) else {
            return Err(Error::Usage(format!("the transition {id} is not decided")));
        };
        let path = format!("v1/transitions/{id}/evidence?outputs={outputs}");
        let answer = self.transport.get(&path, EVIDENCE_BYTES_MAX as u64)?;
        let evidence = Evidence::parse(&answer.body)?;
        let at = At::Version(decided);
        let (header, checkpoint, (agreed, value)) =
            self.check(&evidence, at, before.as_ref(), |checked| {
                let missing = || Fault::NoRecord { what: format!("of the votes for {id}") };
                let agreed = checked.agreed().ok_or_else(missing)?;
                let (asked, answered) = (*id, agreed.spec.id());
                if asked != answered {
                    return Err(Fault::OtherTransition { asked, answered });
                }
                Ok((agreed.clone(), checked.value().cloned()))
            })?;
        self.remember(&checkpoint)?;
        Ok(Verified { header, value: TransitionEvidence { agreed, value, evidence } })
    }
}

impl Progress {
    fn read(told: ToldProgress) -> Result<Self, Error> {
        let version = |version: u64| {
            let version = Some(version).filter(|version| *version <= DECIMAL_MAX).map(Version);
            version.ok_or_else(|| Error::form("there is no such version"))
        };
        let decided = match (&*told.outcome, told.decided) {
            ("open", None) => None,
            (outcome, Some(decided)) => {
                let outcomes = [Outcome::Applied, Outcome::Failed, Outcome::Cancelled];
                let outcome = outcomes.into_iter().find(|known| known.as_str() == outcome);
                Some((version(decided)?, outcome.ok_or_else(|| Error::form("no such outcome"))?))
            }
            _ => return Err(Error::form("decided without a version")),
        };
        let safe = |text: String| crate::escape(text.as_bytes());
        let tasks = told.tasks.into_iter().map(|task| {
            let nodes = task.waiting_for.iter().map(|node| node.parse());
            Ok(TaskProgress {
                index: task.index,
                phase: safe(task.phase),
                round: task.round,
                votes: task.votes,
                waiting_for: nodes.collect::<Result<_, anwansi_proofs::Error>>()?,
                until: task.until_ms.map(Duration::from_millis),
            })
        });
        Ok(Progress {
            id: told.id.parse()?,
            opened: version(told.opened)?,
            decided,
            reason: told.reason.map(safe),
            tasks: tasks.collect::<Result<_, Error>>()?,
        })
    }
}
