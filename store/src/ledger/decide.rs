//! The decision of a transition: one atomic step, with its state, its records and its scores.

use std::{collections::BTreeMap, sync::Arc};

use anwansi_proofs::{
    Apply, Digest, Json, NodeKey, Spec, Version,
    path::{KEY_BYTES_MAX, VALUE_BYTES_MAX},
    record::{Outcome, Status, TaskRecord, TransitionRecord, task_key},
    registry::{Score, TransitionState, score_key, transition_key},
};
use bytes::Bytes;

use super::{
    book::{Ending, Open, inputs},
    fold::Folding,
    journal,
    step::{Additions, Applied, Joining},
    task::{Deed, Phase},
};
use crate::{COMMIT_BYTES_MAX, COMMIT_WRITES_MAX, Damage, Error, engine::Engine, record};

/// Bytes of all accepted results of one transition, at most; with more it fails.
pub const RESULTS_BYTES_MAX: usize = anwansi_proofs::FOLDED_BYTES_MAX;

/// What is to happen, as far as it can be known before its version.
pub(crate) struct Decision {
    spec: Arc<Spec>,
    opened: Version,
    tasks: Vec<TaskRecord>,
    scores: BTreeMap<NodeKey, Score>,
    effect: Effect,
    /// The results that anyone may read from now on.
    readable: Vec<Digest>,
    /// The inputs and results that stay as long as it is kept.
    named: Vec<Digest>,
}

/// What there is to apply.
enum Effect {
    Cancelled,
    /// Results that are still to be folded.
    Agreed,
    /// Nothing, for this reason.
    Failed(String),
    /// The folded results, and how they are written.
    Value {
        digest: Digest,
        /// Of the value.
        bytes: usize,
        folding: Folding,
        members: Vec<Member>,
    },
}

/// What is written to one key: the whole value, or one member of it.
struct Member {
    key: Bytes,
    /// Its name in the value, if that is spread.
    name: Option<String>,
    value: Json,
}

impl Decision {
    /// The decision of a transition that has ended, its results not folded yet.
    pub(crate) fn new(open: &Open, ending: Ending) -> Self {
        let status = |phase| match (phase, ending) {
            (_, Ending::Cancelled) => Status::Cancelled,
            (Phase::Ended(status), _) => status,
            _ => Status::Expired,
        };
        let records = (0..).zip(&open.tasks);
        let tasks = records.map(|(index, task)| task.record(index, status(task.phase)));
        let tasks = tasks.collect::<Vec<_>>();
        let mut readable = Vec::new();
        for record in &tasks {
            readable.extend(record.digest);
            readable.extend(record.dissent.iter().map(|(digest, _)| *digest));
        }
        let mut named = readable.iter().copied().chain(inputs(&open.spec)).collect::<Vec<_>>();
        for digests in [&mut readable, &mut named] {
            digests.sort_unstable();
            digests.dedup();
        }
        let effect = match ending {
            Ending::Cancelled => Effect::Cancelled,
            Ending::NoAgreement { task } => {
                Effect::Failed(format!("task {task} ended without agreement"))
            }
            Ending::Agreed => Effect::Agreed,
        };
        let (spec, opened) = (open.spec.clone(), open.opened);
        Decision { spec, opened, scores: scores(open), tasks, effect, readable, named }
    }

    pub(crate) fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Folds the results, if all tasks are final.
    ///
    /// # Errors
    /// Those of storage. A fold that fails is no error, nor is a result that was damaged since it was taken:
    /// the transition fails with it.
    pub(crate) fn fold(
        mut self,
        folding: Option<Folding>,
        engine: &dyn Engine,
    ) -> Result<Self, Error> {
        if let Effect::Agreed = self.effect {
            self.effect = fold(&self.spec, folding, &self.tasks, engine)?;
        }
        // While the transition is open, nothing of this is deleted; so what is read here stays.
        let (mut sealed, mut named) = (Vec::new(), Vec::new());
        for digest in self.named {
            match journal::since(engine, &digest) {
                // What was put as an input stays for ever.
                Ok(Some(Version(0))) => {}
                // What anyone may read already stays so from where it was.
                Ok(Some(_)) => named.push(digest),
                // A damaged mark is made anew.
                Ok(None) | Err(Error::Damaged(_)) => {
                    sealed.extend(self.readable.binary_search(&digest).is_ok().then_some(digest));
                    named.push(digest);
                }
                Err(error) => return Err(error),
            }
        }
        (self.readable, self.named) = (sealed, named);
        Ok(self)
    }

    pub(crate) fn keys(&self) -> Vec<Bytes> {
        let members = match &self.effect {
            Effect::Value { members, .. } => &members[..],
            _ => &[],
        };
        let members = members.iter().map(|member| member.key.clone());
        members.chain([transition_key(&self.spec.id()).into()]).collect()
    }

    /// Bytes of what is written, about.
    pub(crate) fn bytes(&self) -> usize {
        let value = match &self.effect {
            Effect::Value { bytes, .. } => *bytes,
            _ => 0,
        };
        value + self.tasks.len() * size_of::<TaskRecord>()
    }

    /// Adds the step to a version: all of it, or the failure alone.
    pub(crate) fn join(
        &self,
        version: &Joining<'_>,
        additions: &mut Additions,
    ) -> Result<(), Error> {
        let (id, opened) = (self.spec.id(), self.opened);
        let (outcome, value, reason) = match &self.effect {
            Effect::Cancelled => (Outcome::Cancelled, None, None),
            Effect::Agreed => unreachable!("results are folded before they are written"),
            Effect::Failed(reason) => (Outcome::Failed, None, Some(reason.clone())),
            Effect::Value { digest, folding, members, .. } => {
                match written(&self.spec, folding, members, version)? {
                    Ok(writes) => {
                        additions.applied = Some(applied(&self.spec, &writes));
                        additions.writes.extend(writes);
                        (Outcome::Applied, Some(*digest), None)
                    }
                    Err(reason) => (Outcome::Failed, None, Some(reason)),
                }
            }
        };
        for task in &self.tasks {
            additions.record(task_key(&id, task.index).to_vec(), task.to_bytes());
        }
        let record = TransitionRecord {
            id,
            fold: self.spec.fold.clone(),
            into: self.spec.into.clone(),
            opened,
            outcome,
            tasks: self.spec.tasks(),
            value,
        };
        additions.record(id.0.0.to_vec(), record.to_bytes());
        let state = TransitionState { opened, decided: Some((version.version, outcome)) };
        additions.put(transition_key(&id), state.to_bytes());
        for (node, deeds) in &self.scores {
            let key = score_key(node);
            let damaged = Error::Damaged(Damage::Changes(version.version));
            let score = match version.get(&key)? {
                Some(before) => deeds.added_to(&Score::parse(&before).ok_or(damaged)?),
                None => *deeds,
            };
            additions.put(key, score.to_bytes());
        }
        let decided = record::Decided { version: version.version.0, reason };
        let record = record::Transition { opened: opened.0, decided: Some(decided) };
        journal::put_transition(&mut additions.batch, &id, &record);
        for digest in &self.readable {
            journal::put_readable(&mut additions.batch, digest, version.version);
        }
        for digest in &self.named {
            journal::put_named(&mut additions.batch, digest, version.version);
        }
        Ok(())
    }
}

/// Folds the results of a transition whose tasks are all final.
fn fold(
    spec: &Spec,
    folding: Option<Folding>,
    tasks: &[TaskRecord],
    engine: &dyn Engine,
) -> Result<Effect, Error> {
    let Some(folding) = folding else {
        return Ok(Effect::Failed(format!("there is no fold {:?} here any more", spec.fold)));
    };
    let (mut outputs, mut bytes) = (Vec::with_capacity(tasks.len()), 0);
    for task in tasks {
        let digest = task.digest.expect("a task that is final has votes");
        let output = match journal::blob(engine, &digest) {
            Ok(Some(output)) => output,
            Ok(None) | Err(Error::Damaged(_)) => {
                let index = task.index;
                return Ok(Effect::Failed(format!("the stored result of task {index} is damaged")));
            }
            Err(error) => return Err(error),
        };
        bytes += output.len();
        outputs.push(output);
        if bytes > RESULTS_BYTES_MAX {
            let reason = format!("the results have more than {RESULTS_BYTES_MAX} bytes together");
            return Ok(Effect::Failed(reason));
        }
    }
    let value = match folding.fold(&outputs) {
        Ok(value) => value,
        Err(reason) => return Ok(Effect::Failed(reason)),
    };
    let bytes = value.to_bytes();
    let (digest, bytes) = (Digest::of(&bytes), bytes.len());
    Ok(match members(spec, value) {
        Ok(members) => Effect::Value { digest, bytes, folding, members },
        Err(reason) => Effect::Failed(reason),
    })
}

/// What a value is to be written as.
fn members(spec: &Spec, value: Json) -> Result<Vec<Member>, String> {
    if !spec.spread {
        return Ok(vec![Member { key: spec.into.clone().into(), name: None, value }]);
    }
    let Json::Object(members) = value else {
        return Err("the value is no object, so it has no members to spread".into());
    };
    let member = |(name, value): (String, Json)| {
        let key = format!("{}/{name}", spec.into);
        if key.len() > KEY_BYTES_MAX {
            let length = key.len();
            return Err(format!(
                "a member's key has {length} bytes: keys have at most {KEY_BYTES_MAX}"
            ));
        }
        Ok(Member { key: key.into(), name: Some(name), value })
    };
    if members.len() > COMMIT_WRITES_MAX {
        let found = members.len();
        return Err(format!(
            "the value has {found} members, at most {COMMIT_WRITES_MAX} are spread"
        ));
    }
    members.into_iter().map(member).collect()
}

/// The writes of a value onto the version before; or why they cannot be made.
#[expect(clippy::type_complexity, reason = "storage fails outside, the transition inside")]
fn written(
    spec: &Spec,
    folding: &Folding,
    members: &[Member],
    version: &Joining<'_>,
) -> Result<Result<Vec<(Bytes, Option<Bytes>)>, String>, Error> {
    let (mut writes, mut bytes) = (Vec::with_capacity(members.len()), 0);
    for Member { key, name, value } in members {
        let value = match spec.apply {
            Apply::Replace => Ok(value.to_bytes()),
            Apply::Add => {
                let old = version.get(key)?;
                folding.add(old.as_deref(), name.as_deref(), value).map(|sum| sum.to_bytes())
            }
        };
        let value = match value {
            Ok(value) => value,
            Err(reason) => return Ok(Err(reason)),
        };
        bytes += key.len() + value.len();
        if value.len() > VALUE_BYTES_MAX || bytes > COMMIT_BYTES_MAX {
            return Ok(Err(format!(
                "the value is too long: {VALUE_BYTES_MAX} bytes fit under a key, and \
                 {COMMIT_BYTES_MAX} bytes of keys and values into a transition"
            )));
        }
        writes.push((key.clone(), Some(Bytes::from(value))));
    }
    Ok(Ok(writes))
}

/// What is kept of the state with a transition that makes these writes.
fn applied(spec: &Spec, writes: &[(Bytes, Option<Bytes>)]) -> Applied {
    let length =
        |(key, value): &(Bytes, Option<Bytes>)| key.len() + value.as_ref().map_or(0, Bytes::len);
    let keys = writes.iter().map(|(key, _)| key.clone()).collect();
    Applied { id: spec.id(), apply: spec.apply, keys, bytes: writes.iter().map(length).sum() }
}

/// What each node did in the rounds that ended. Votes count for or against it only where a task became
/// final: elsewhere nobody knows which answer was right.
fn scores(open: &Open) -> BTreeMap<NodeKey, Score> {
    let mut scores: BTreeMap<NodeKey, Score> = BTreeMap::new();
    for task in &open.tasks {
        let accepted = match task.phase {
            Phase::Ended(Status::Final) => task.first(),
            _ => None,
        };
        for (node, deed) in task.deeds() {
            let score = scores.entry(node).or_default();
            let count = match deed {
                Deed::Missed => &mut score.missed,
                Deed::NoReveal => &mut score.no_reveal,
                Deed::BadReveal => &mut score.bad_reveal,
                Deed::Equivocated => &mut score.equivocated,
                Deed::Voted(digest) if Some(digest) == accepted => &mut score.agreed,
                Deed::Voted(_) if accepted.is_some() => &mut score.dissented,
                Deed::Voted(_) => continue,
            };
            *count += 1;
        }
    }
    scores
}
