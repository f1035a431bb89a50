//! Agreement: a transition's votes, recounted from what its nodes signed.
//!
//! ```text
//! specification   its digest is the id under which the deciding version shows
//!     |           one record of the transition and one of each task
//! opening         version of the open record: its header seeds the draws, its registry is drawn from
//!     |
//! each round      nodes drawn by the rule -> their pledges, under the root in the closing's version
//!     |                                   -> votes, each of which opens one of these pledges
//! decision        the rule again, after each round: it goes on until the record says that it ended
//! ```

use alloc::vec::Vec;

use super::{
    CheckedVersion, Disagreement, Earlier, Evidence, Refused, Spot,
    form::{Named, Task},
    round::{Rounds, Standing},
};
use crate::{
    Digest, Error, Next, Spec, TransitionId, Vote,
    record::{Outcome, Status, TaskRecord, TransitionRecord, task_key},
    votes_root,
};

/// A transition whose votes were recounted, and how it was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Agreed {
    /// What it was to do, and how its tasks were to be decided.
    pub spec: Spec,
    /// Its record, all of which was checked; `value` only if the level aggregate is there.
    pub record: TransitionRecord,
    /// How many nodes were registered in the version that opened it: those drawn from.
    pub registered: usize,
    /// Its tasks, by their indexes.
    pub tasks: Vec<Recounted>,
}

/// A task whose votes were recounted. Rounds that had not ended at the decision are in none of its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recounted {
    /// What became of it.
    pub status: Status,
    /// The first answer; none without votes.
    pub digest: Option<Digest>,
    /// The votes for it.
    pub agree: u32,
    /// The other answers with their votes, in rank order.
    pub dissent: Vec<(Digest, u32)>,
    /// The rounds that ended.
    pub rounds: u32,
    /// The nodes drawn: as many as agree, dissent, missed and have faults.
    pub drawn: u32,
    /// Those without a pledge in the closing of their round.
    pub missed: u32,
    /// Those with a pledge and without a vote.
    pub faults: u32,
    /// How the faults divide.
    pub claimed: Claimed,
}

/// How the faults of a task divide: the server's word. That their sum is right was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Those that pledged and did not reveal.
    pub no_reveal: u32,
    /// Those whose reveal did not open their pledge.
    pub bad_reveal: u32,
    /// Those that signed two pledges.
    pub equivocated: u32,
}

/// Recounts the transition that `main` decided; `None` if the level is not there.
pub(super) fn check(
    evidence: &Evidence,
    main: &CheckedVersion<'_>,
    earlier: &Earlier<'_>,
) -> Result<Option<Agreed>, Refused> {
    let Evidence { spec, pledges, votes, outputs, .. } = evidence;
    if spec.is_none() && pledges.is_none() && votes.is_none() && outputs.is_none() {
        return Ok(None);
    }
    let missing = |member| refused(Disagreement::Missing { member });
    let spec = spec.as_deref().ok_or(missing("spec"))?;
    let Named(pledges) = pledges.as_ref().ok_or(missing("pledges"))?;
    let Named(votes) = votes.as_ref().ok_or(missing("votes"))?;

    // Nobody's specification is read before the log is seen to have decided one of this id.
    let id = TransitionId::of(spec);
    let tasks = main.tasks().ok_or(missing("tasks"))?;
    let records = tasks.prefix(&id.0.0).map_err(unproven)?;
    let others = refused(Disagreement::OtherRecords);
    let decision = records.split_first().filter(|(decision, _)| decision.key == id.0.0);
    let (decision, records) = decision.ok_or(others.clone())?;
    let spec = Spec::parse(spec.to_vec()).map_err(|error| match error {
        Error::Spec(fault) => refused(Disagreement::Spec(fault)),
        error => unproven(error),
    })?;
    let keys = (0..spec.tasks()).map(|index| task_key(&id, index));
    if !records.iter().map(|record| record.key).eq(keys) {
        return Err(others);
    }
    let record = TransitionRecord::parse(decision.value).filter(|record| record.id == id);
    let record = record.ok_or(refused(Disagreement::Record { record: "of the decision" }))?;
    let recorded = [
        ("tasks", record.tasks == spec.tasks()),
        ("fold", record.fold == spec.fold),
        ("into", record.into == spec.into),
        ("value", record.value.is_some() == (record.outcome == Outcome::Applied)),
    ];
    all_recorded(Spot::Transition, &recorded)?;

    let mut rounds = Rounds::new(&spec, record.opened, earlier, pledges)?;
    let mut recounted = Vec::with_capacity(records.len());
    for (index, record) in (0..).zip(records) {
        let votes = votes.get(&Task(index)).map(Vec::as_slice);
        recounted.push(recount(&mut rounds, index, record.value, votes)?);
    }
    if votes.len() != recounted.len() {
        return Err(refused(Disagreement::LeftOver { member: "votes" }));
    }
    if pledges.len() != rounds.ended() {
        return Err(refused(Disagreement::LeftOver { member: "pledges" }));
    }
    if !is_outcome(record.outcome, &recounted) {
        return Err(refused(Disagreement::Outcome { outcome: record.outcome }));
    }
    let registered = rounds.registered();
    Ok(Some(Agreed { spec, record, registered, tasks: recounted }))
}

/// Recounts one task from its record and its votes.
fn recount(
    rounds: &mut Rounds<'_>,
    task: u32,
    record: &[u8],
    votes: Option<&[u8]>,
) -> Result<Recounted, Refused> {
    let refused = |fault| Refused::Agreement { at: Spot::Task(task), fault };
    let record = TaskRecord::parse(record).filter(|record| record.index == task);
    let record = record.ok_or(refused(Disagreement::Record { record: "of the task" }))?;
    let votes = votes.ok_or(refused(Disagreement::Missing { member: "votes" }))?;
    let votes = Vote::read_all(votes);
    let votes = votes.ok_or(refused(Disagreement::Leaves { member: "votes" }))?;
    // Cheap, and so before the signatures.
    all_recorded(Spot::Task(task), &[("votes", record.votes == votes_root(&votes))])?;

    let mut standing = rounds.begin();
    let mut ended = 0;
    let mut left = &votes[..];
    for closed in &record.closed {
        let cast = left.iter().take_while(|vote| vote.round == ended).count();
        let (cast, later) = left.split_at(cast);
        rounds.end(task, ended, *closed, cast, &mut standing)?;
        left = later;
        ended += 1;
    }
    if !left.is_empty() {
        return Err(refused(Disagreement::Order { member: "votes" }));
    }

    let Standing { tally, next, missed, faults, .. } = standing;
    let mut ranks = tally.ranks().into_iter();
    let first = ranks.next();
    let digest = first.map(|(digest, _)| digest);
    let agree = first.map_or(0, |(_, votes)| votes);
    let dissent = ranks.collect();
    let TaskRecord { status, no_reveal, bad_reveal, equivocated, .. } = record;
    let claimed = Claimed { no_reveal, bad_reveal, equivocated };
    let recorded = [
        ("digest", record.digest == digest),
        ("agree", record.agree == agree),
        ("dissent", record.dissent == dissent),
        ("drawn", record.drawn == tally.drawn()),
        ("missed", record.missed == missed),
        ("no_reveal", claimed.sum() == u64::from(faults)),
    ];
    all_recorded(Spot::Task(task), &recorded)?;
    if !is_status(status, next, ended) {
        return Err(refused(Disagreement::Status { status, rule: next }));
    }
    let (rounds, drawn) = (ended, tally.drawn());
    Ok(Recounted { status, digest, agree, dissent, rounds, drawn, missed, faults, claimed })
}

/// Which outcome goes with which statuses.
fn is_outcome(outcome: Outcome, tasks: &[Recounted]) -> bool {
    let all = |status| tasks.iter().all(|task| task.status == status);
    let any = |status| tasks.iter().any(|task| task.status == status);
    match outcome {
        Outcome::Applied => all(Status::Final),
        // With all tasks final the fold or a write has failed: which, no evidence tells.
        Outcome::Failed if all(Status::Final) => true,
        Outcome::Failed => any(Status::NoAgreement) && !any(Status::Cancelled),
        Outcome::Cancelled => all(Status::Cancelled),
    }
}

/// Which status goes with what the rule says after the last of so many rounds.
fn is_status(status: Status, rule: Next, rounds: u32) -> bool {
    match status {
        Status::Final => rule == Next::Final,
        Status::NoAgreement => rule == Next::NoAgreement,
        Status::Expired => matches!(rule, Next::Draw(_)),
        Status::Cancelled => rounds == 0,
    }
}

impl Claimed {
    /// The faults.
    #[must_use]
    pub fn sum(&self) -> u64 {
        [self.no_reveal, self.bad_reveal, self.equivocated].map(u64::from).iter().sum()
    }
}

/// Refuses by the first member of a record of which it is not known that it is right.
pub(super) fn all_recorded(at: Spot, members: &[(&'static str, bool)]) -> Result<(), Refused> {
    match members.iter().find(|(_, right)| !right) {
        None => Ok(()),
        Some((member, _)) => {
            Err(Refused::Agreement { at, fault: Disagreement::Recorded { member } })
        }
    }
}

pub(super) fn refused(fault: Disagreement) -> Refused {
    Refused::Agreement { at: Spot::Transition, fault }
}

pub(super) fn unproven(error: Error) -> Refused {
    refused(Disagreement::Proof(error))
}
