//! The evidence of a decided transition: all that a client recounts, and folds again.

use std::collections::{BTreeMap, BTreeSet};

use anwansi_proofs::{
    Apply, Digest, Evidence, Json, Part, Pledge, Question, Spec, TransitionId, Version, Vote,
    record::{Outcome, TaskRecord, TransitionRecord, closing_key, task_key},
    registry::NODE_PREFIX,
};
use bytes::Bytes;

use super::{
    Ledger, Refusal,
    fold::Folding,
    journal::{self, Fact, Moment, Reveal},
    read_spec,
};
use crate::{
    Damage, Error, Which,
    finality::Published,
    snapshot::{Pair, prove_tasks},
};

/// By task and round, the pledges of a closed round.
type Pledges = BTreeMap<(u32, u32), Vec<Pledge>>;
/// By task, its votes.
type Votes = BTreeMap<u32, Vec<Vote>>;

/// What is to be shown of a version.
#[derive(Default)]
struct Shown {
    /// The keys of the state that the transition writes, before or after that.
    written: Option<(Moment, Question)>,
    /// All nodes that were registered.
    registry: bool,
    /// Keys of the tasks tree.
    tasks: Option<Question>,
}

impl Ledger<'_> {
    /// Evidence of a transition that was decided: its records, the votes and pledges behind them, the
    /// registry and the closings that they rest on; with `outputs` also the results, and what was made of
    /// them where it was applied.
    ///
    /// # Errors
    /// [`Refusal::UnknownTransition`], [`Refusal::NotDecided`], [`Refusal::Dropped`]; those of storage, and those
    /// of [`Store::at`](crate::Store::at) for the states before and after the decision, where what it wrote is so much
    /// that a proof of it was not kept: more than [`STATE_BYTES_MAX`](crate::STATE_BYTES_MAX).
    pub fn evidence(&self, id: &TransitionId, outputs: bool) -> Result<Evidence, Error> {
        self.if_kept(id, self.read_evidence(id, outputs))
    }

    fn read_evidence(&self, id: &TransitionId, outputs: bool) -> Result<Evidence, Error> {
        let published = self.store.shared.published();
        let newest = published.snapshot.version();
        let kept = journal::transition(self.engine(), id)?;
        let kept = kept.ok_or(Refusal::UnknownTransition { id: *id })?;
        let decided = kept.decided.filter(|decided| decided.version <= newest.0);
        let decided = Version(decided.ok_or(Refusal::NotDecided)?.version);
        let spec = read_spec(self.engine(), id)?;
        let (outcome, records) = self.records(id, decided)?;

        let mut shown: BTreeMap<Version, Shown> = BTreeMap::new();
        let main = shown.entry(decided).or_default();
        main.tasks = Some(Question::default().prefix(&id.0.0));
        let outputs = if outputs { Some(self.outputs(&records)?) } else { None };
        if let (Some(outputs), Outcome::Applied) = (&outputs, outcome) {
            let written = written(&spec, &records, outputs);
            main.written = Some((Moment::After, written.clone()));
            if spec.apply == Apply::Add {
                let before = shown.entry(Version(decided.0 - 1)).or_default();
                before.written = Some((Moment::Before, written));
            }
        }
        let opening = shown.entry(Version(kept.opened)).or_default();
        (opening.registry, opening.tasks) = (true, Some(Question::default().key(&id.0.0)));
        for record in &records {
            for (round, closed) in (0..).zip(&record.closed) {
                let question = &mut shown.entry(*closed).or_default().tasks;
                let key = closing_key(id, record.index, round);
                *question = Some(question.take().unwrap_or_default().key(&key));
            }
        }
        let part =
            |(version, shown): (&Version, &Shown)| self.part(&published, id, *version, shown);
        let parts = shown.iter().map(part);
        let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
        let main = parts.pop().expect("the deciding version is the newest of them");

        let (pledges, votes) = self.pledges_and_votes(id, &records)?;
        let evidence = Evidence::new(main).with_earlier(parts).with_votes(&spec, pledges, votes);
        Ok(match outputs {
            Some(outputs) => evidence.with_outputs(outputs.into_values().map(Vec::from)),
            None => evidence,
        })
    }

    /// A version with what is to be shown of it, under one checkpoint.
    fn part(
        &self,
        published: &Published,
        id: &TransitionId,
        version: Version,
        shown: &Shown,
    ) -> Result<Part, Error> {
        let finality = published.finality(version)?;
        let state = match (&shown.written, shown.registry) {
            // Kept with the transition, for when the version itself is gone.
            (None, true) => Some(journal::registry(self.engine(), version)?.into()),
            (None, false) => None,
            (Some((moment, question)), registry) => {
                let kept = journal::state(self.engine(), id, *moment)?;
                let state = if let Some(proof) = kept.filter(|_| !registry) {
                    proof.into()
                } else {
                    let question = question.clone();
                    let question = if registry { question.prefix(NODE_PREFIX) } else { question };
                    self.store.at(version)?.prove(Which::State, &question)?
                };
                Some(state)
            }
        };
        let tasks = match &shown.tasks {
            Some(question) => Some(prove_tasks(self.store.tasks(version)?, question)),
            None => None,
        };
        Ok(Part { state, tasks, ..finality.part() })
    }

    /// What became of a transition and of its tasks, as the version that decided it records them.
    pub(super) fn records(
        &self,
        id: &TransitionId,
        decided: Version,
    ) -> Result<(Outcome, Vec<TaskRecord>), Error> {
        records(&self.store.tasks(decided)?, id, decided)
    }

    /// The accepted results, by digest.
    fn outputs(&self, records: &[TaskRecord]) -> Result<BTreeMap<Digest, Bytes>, Error> {
        let digests = records.iter().filter_map(|record| record.digest).collect::<BTreeSet<_>>();
        let output = |digest| {
            let output = journal::blob(self.engine(), &digest)?;
            Ok((digest, output.ok_or(Error::Damaged(Damage::Blob(digest)))?))
        };
        digests.into_iter().map(output).collect()
    }

    /// The pledges of all rounds that ended, and the votes that count.
    fn pledges_and_votes(
        &self,
        id: &TransitionId,
        records: &[TaskRecord],
    ) -> Result<(Pledges, Votes), Error> {
        let mut votes: Votes = records.iter().map(|record| (record.index, Vec::new())).collect();
        let rounds = records.iter().flat_map(|record| {
            (0..).zip(&record.closed).map(|(round, _)| ((record.index, round), Vec::new()))
        });
        let mut pledges: Pledges = rounds.collect();
        let mut reveals: BTreeMap<_, Reveal> = BTreeMap::new();
        let facts = journal::facts(self.engine(), id)?;
        for (at, fact) in &facts {
            if let Fact::Revealed { node, reveal } = fact {
                reveals.insert((*at, *node), *reveal);
            }
        }
        for (at, fact) in facts {
            let Fact::Pledged { pledge, second } = fact else { continue };
            let Some(round) = pledges.get_mut(&(at.task, at.round)) else { continue };
            round.push(pledge);
            if let (Some(Reveal { salt, digest }), None) = (reveals.get(&(at, pledge.node)), second)
            {
                let vote = Vote { pledge, salt: *salt, digest: *digest, round: at.round };
                votes.entry(at.task).or_default().push(vote);
            }
        }
        Ok((pledges, votes))
    }
}

/// What became of a transition and of its tasks, by the tasks tree of the version that decided it.
pub(super) fn records(
    entries: &[Pair],
    id: &TransitionId,
    decided: Version,
) -> Result<(Outcome, Vec<TaskRecord>), Error> {
    let damaged = || Error::Damaged(Damage::Changes(decided));
    let find = |key: &[u8]| {
        let at = entries.binary_search_by(|(found, _)| found[..].cmp(key)).ok()?;
        Some(&entries[at].1)
    };
    let record = find(&id.0.0).and_then(|bytes| TransitionRecord::parse(bytes));
    let record = record.ok_or_else(damaged)?;
    let task = |index| {
        let record = find(&task_key(id, index)).and_then(|bytes| TaskRecord::parse(bytes));
        record.ok_or_else(damaged)
    };
    Ok((record.outcome, (0..record.tasks).map(task).collect::<Result<_, _>>()?))
}

/// The keys of the state that a transition has written.
fn written(spec: &Spec, records: &[TaskRecord], outputs: &BTreeMap<Digest, Bytes>) -> Question {
    let question = Question::default();
    if !spec.spread {
        return question.key(spec.into.as_bytes());
    }
    let outputs = records.iter().filter_map(|record| outputs.get(&record.digest?).cloned());
    // Only folds of the format can be spread, and this one succeeded once.
    let value = Folding::find(&spec.fold, &[]).map(|fold| fold.fold(&outputs.collect::<Vec<_>>()));
    let Some(Ok(Json::Object(members))) = value else { return question };
    members
        .keys()
        .fold(question, |question, name| question.key(format!("{}/{name}", spec.into).as_bytes()))
}
