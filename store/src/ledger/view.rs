//! What can be seen of transitions: how they stand, and what each node has to do.

use anwansi_proofs::{
    Digest, Input, NodeKey, Place, Pledge, TransitionId, Version,
    record::{Outcome, Status, TaskRecord},
};
use bytes::Bytes;

use super::{
    Ledger, Refusal,
    book::Open,
    journal::{self, Fact, RoundId},
    task::Phase,
};
use crate::{Error, version};

/// Assignments that are answered at once, at most; those to come follow when these are done.
const ASSIGNMENTS_MAX: usize = 256;
/// Bytes of inputs after which no more are answered at once.
const ASSIGNMENTS_BYTES_MAX: usize = 4 << 20;

/// What a node has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The transition.
    pub transition: TransitionId,
    /// The task.
    pub index: u32,
    /// The round.
    pub round: u32,
    /// What is awaited.
    pub turn: Turn,
    /// The version that opened the transition.
    pub opened: Version,
    /// How many nodes were drawn in each round so far.
    pub draws: Vec<u32>,
    /// What to run.
    pub program: String,
    /// The digest of its code, where it matters.
    pub code: Option<Digest>,
    /// What to run it on.
    pub input: Input,
    /// How long there is, in milliseconds from now.
    pub until_ms: u64,
}

/// How much is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Transitions that are not decided, at most [`OPEN_MAX`](crate::OPEN_MAX).
    pub transitions: usize,
    /// Their tasks, at most [`OPEN_TASKS_MAX`](crate::OPEN_TASKS_MAX).
    pub tasks: usize,
}

/// What is awaited of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A pledge.
    Pledge,
    /// The reveal of what it has pledged.
    Reveal {
        /// The version with the closing that contains its pledge.
        closed: Version,
    },
}

/// How a transition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The transition.
    pub id: TransitionId,
    /// The version that opened it.
    pub opened: Version,
    /// The version that decided it and how, once it is.
    pub decided: Option<(Version, Outcome)>,
    /// Why nothing was applied, where that is so.
    pub reason: Option<String>,
    /// Its tasks, by index; none for the moment in which it is being opened or decided.
    pub tasks: Vec<TaskProgress>,
    /// Nodes that signed two pledges for one round; none once the transition is dropped.
    pub equivocations: Vec<Equivocation>,
}

/// How a task stands. Which answers there are is sealed until its transition is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskProgress {
    /// Where it is.
    pub stage: Stage,
    /// The round that is under way, or was the last.
    pub round: u32,
    /// The votes of the rounds that ended.
    pub votes: u64,
    /// The nodes that it waits for.
    pub waiting_for: Vec<NodeKey>,
    /// How long it waits for them at most, in milliseconds from now.
    pub until_ms: Option<u64>,
    /// Its record, once its transition is decided.
    pub record: Option<TaskRecord>,
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waits for pledges.
    Pledging,
    /// Waits for the closing of its pledges in a version.
    Closing,
    /// Waits for reveals.
    Revealing,
    /// Waits for the count of its votes.
    Counting,
    /// Its own rounds are over; it waits for the transition's decision.
    Ended,
    /// Decided with its transition.
    Decided(Status),
}

/// Two pledges for one round, both signed by one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Equivocation {
    /// What both were signed for.
    pub place: Place,
    /// The one that came first, and is in the closing.
    pub first: Pledge,
    /// The other one.
    pub second: Pledge,
}

impl Ledger<'_> {
    /// What `node` has to do for one of `programs`, or for any if none is named; what ends first first, and
    /// some of it, if it is much.
    #[must_use]
    pub fn assignments(&self, node: &NodeKey, programs: &[String]) -> Vec<Assignment> {
        let now = (self.desk().uptime)();
        let book = self.desk().book();
        let assigned = |(id, index): (TransitionId, u32)| {
            let open = book.get(&id)?;
            if !programs.is_empty() && !programs.contains(&open.spec.program) {
                return None;
            }
            let task = &open.tasks[index as usize];
            let turn = match (task.phase, task.current().closed) {
                (Phase::Revealing, Some(closed)) => Turn::Reveal { closed },
                _ => Turn::Pledge,
            };
            let draws = task.rounds.iter().map(|round| u32::try_from(round.seats.len()));
            let draws = draws.collect::<Result<_, _>>().expect("no more than nodes_max");
            let until_ms = open.until(index)?.saturating_sub(now);
            let (round, spec, opened) = (task.round(), open.spec.clone(), open.opened);
            // Inputs are long: nobody else waits while they are copied.
            Some(move || Assignment {
                transition: id,
                index,
                round,
                turn,
                opened,
                draws,
                program: spec.program.clone(),
                code: spec.code,
                input: spec.inputs[index as usize].clone(),
                until_ms,
            })
        };
        let assigned = book.awaited_of(node).filter_map(assigned).take(ASSIGNMENTS_MAX);
        let assigned = assigned.collect::<Vec<_>>();
        drop(book);
        let mut bytes = 0;
        let fits = |assignment: &Assignment| {
            let fits = bytes <= ASSIGNMENTS_BYTES_MAX;
            bytes += if let Input::Data(data) = &assignment.input { data.len() } else { 0 };
            fits
        };
        assigned.into_iter().map(|assignment| assignment()).take_while(fits).collect()
    }

    /// How much is open, with what is being opened.
    #[must_use]
    pub fn load(&self) -> Load {
        let (transitions, tasks) = self.desk().book().load();
        Load { transitions, tasks }
    }

    /// How a transition stands.
    ///
    /// # Errors
    /// [`Refusal::UnknownTransition`]; those of storage.
    pub fn progress(&self, id: &TransitionId) -> Result<Progress, Error> {
        let record = journal::transition(self.engine(), id)?;
        let record = record.ok_or(Refusal::UnknownTransition { id: *id })?;
        let opened = Version(record.opened);
        let shown = self.store.latest().version();
        let decided = record.decided.filter(|decided| decided.version <= shown.0);
        if let Some(decided) = decided {
            let version = Version(decided.version);
            let (outcome, records) = self.records(id, version)?;
            // Looked for only where there may be some: counted, or in a round that did not end.
            let some = outcome == Outcome::Failed || records.iter().any(|it| it.equivocated > 0);
            let equivocations = if some { self.equivocations(id, opened) } else { Ok(Vec::new()) };
            let equivocations = match self.if_kept(id, equivocations) {
                Err(Error::Refused(Refusal::Dropped { .. })) => Vec::new(),
                equivocations => equivocations?,
            };
            let tasks = records.into_iter().map(decided_task).collect();
            let decided_at = Some((version, outcome));
            let reason = decided.reason;
            return Ok(Progress {
                id: *id,
                opened,
                decided: decided_at,
                reason,
                tasks,
                equivocations,
            });
        }
        let now = (self.desk().uptime)();
        let book = self.desk().book();
        let (tasks, equivocations) = match book.get(id) {
            Some(open) => {
                let tasks = (0..open.spec.tasks()).map(|index| task_progress(open, index, now));
                (tasks.collect(), open.equivocations())
            }
            // Its version is on the way: the opening one, or the one that decides it.
            None => (Vec::new(), Vec::new()),
        };
        Ok(Progress { id: *id, opened, decided: None, reason: None, tasks, equivocations })
    }

    fn equivocations(
        &self,
        id: &TransitionId,
        opened: Version,
    ) -> Result<Vec<Equivocation>, Error> {
        let opened = version::read(self.engine(), opened)?.0.digest();
        let facts = journal::facts(self.engine(), id)?;
        let equivocation = |(at, fact): (RoundId, Fact)| match fact {
            Fact::Pledged { pledge: first, second: Some(second) } => {
                let place = Place { opened, transition: *id, task: at.task, round: at.round };
                Some(Equivocation { place, first, second })
            }
            _ => None,
        };
        Ok(facts.into_iter().filter_map(equivocation).collect())
    }

    /// The exact bytes of a transition's specification.
    ///
    /// # Errors
    /// [`Refusal::UnknownTransition`], [`Refusal::Dropped`]; those of storage.
    pub fn spec(&self, id: &TransitionId) -> Result<Bytes, Error> {
        let spec = journal::spec(self.engine(), id)?;
        self.if_kept(id, spec.ok_or(Refusal::UnknownTransition { id: *id }.into()))
    }

    /// The pledges of a round that was closed, in the order of their nodes.
    ///
    /// # Errors
    /// [`Refusal::UnknownTransition`], [`Refusal::Dropped`]; [`Refusal::TooEarly`] as long as it is not closed, if it
    /// ever will be.
    pub fn pledges(&self, id: &TransitionId, index: u32, round: u32) -> Result<Vec<Pledge>, Error> {
        self.known(id)?;
        let at = RoundId { transition: *id, task: index, round };
        let facts = self.if_kept(id, journal::facts_of_round(self.engine(), &at))?;
        let shown = self.store.latest().version();
        let is_closed = |fact: &Fact| matches!(fact, Fact::Closed { version } if *version <= shown);
        if !facts.iter().any(is_closed) {
            return Err(Refusal::TooEarly.into());
        }
        let pledge = |fact| match fact {
            Fact::Pledged { pledge, .. } => Some(pledge),
            _ => None,
        };
        Ok(facts.into_iter().filter_map(pledge).collect())
    }
}

fn task_progress(open: &Open, index: u32, now: u64) -> TaskProgress {
    let task = &open.tasks[index as usize];
    let waits = open.ending.is_none();
    let awaited = task.current().seats.iter().filter(|seat| waits && seat.is_awaited(task.phase));
    TaskProgress {
        stage: match task.phase {
            _ if !waits => Stage::Ended,
            Phase::Pledging => Stage::Pledging,
            Phase::Closing => Stage::Closing,
            Phase::Revealing => Stage::Revealing,
            Phase::Ending => Stage::Counting,
            Phase::Ended(_) => Stage::Ended,
        },
        round: task.round(),
        votes: task.counted(),
        waiting_for: awaited.map(|seat| seat.node).collect(),
        until_ms: open.until(index).map(|until| until.saturating_sub(now)),
        record: None,
    }
}

fn decided_task(record: TaskRecord) -> TaskProgress {
    TaskProgress {
        stage: Stage::Decided(record.status),
        round: u32::try_from(record.closed.len().saturating_sub(1)).unwrap_or(u32::MAX),
        votes: record.votes(),
        waiting_for: Vec::new(),
        until_ms: None,
        record: Some(record),
    }
}
