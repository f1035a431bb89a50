//! What the ledger does to a version: steps that join commits on their way through the committer.

use std::sync::Arc;

use anwansi_proofs::{
    Apply, NodeKey, Pledge, Question, Spec, TransitionId, Version,
    path::after_prefix,
    pledges_root, prove,
    record::{ClosingRecord, OpenRecord, closing_key},
    registry::{NODE_PREFIX, NodeRecord, TransitionState, node_key, transition_key},
};
use bytes::Bytes;

use super::{
    REGISTERED_MAX, Refusal,
    decide::Decision,
    journal::{self, Moment, RoundId},
};
use crate::{
    Error,
    engine::{Batch, Direction},
    record,
    tree::{Pages, Source, Tree},
};

/// The longest proof of what a transition has written that is kept with it, in bytes. What evidence shows of the state is
/// otherwise made from its version, as long as that is kept.
pub const STATE_BYTES_MAX: usize = 8 << 20;

/// A step of the ledger that needs a version.
pub(crate) enum Step {
    /// A node, whose signature was checked, is registered.
    Register(NodeKey),
    /// A node is registered no more. It stays drawn where it was.
    Remove(NodeKey),
    Open(Arc<Spec>),
    /// The pledging of rounds has ended.
    Close(Vec<Closing>),
    Decide(Box<Decision>),
}

/// The pledging of a round, ended.
pub(crate) struct Closing {
    pub(crate) at: RoundId,
    pub(crate) pledges: Vec<Pledge>,
}

/// The version that a step joins, as far as it was made.
pub(crate) struct Joining<'a> {
    pub(crate) version: Version,
    pub(crate) tree: &'a Tree,
    pub(crate) pages: &'a Pages,
}

/// What a step adds to its version.
#[derive(Default)]
pub(crate) struct Additions {
    /// To the state, no key twice.
    pub(crate) writes: Vec<(Bytes, Option<Bytes>)>,
    /// To the tasks tree.
    pub(crate) tasks: Vec<(Bytes, Bytes)>,
    /// To what the ledger keeps.
    pub(crate) batch: Batch,
    /// What is to be shown of the state, once it is made.
    pub(crate) applied: Option<Applied>,
}

/// What a transition has written to the state.
pub(crate) struct Applied {
    pub(crate) id: TransitionId,
    pub(crate) apply: Apply,
    pub(crate) keys: Vec<Bytes>,
    /// Of keys and values together.
    pub(crate) bytes: usize,
}

impl Step {
    /// The keys of the state that no other member of the version may write. Scores are not among them:
    /// one step adds to what the steps before it made of them.
    pub(crate) fn keys(&self) -> Vec<Bytes> {
        match self {
            Step::Register(node) | Step::Remove(node) => vec![node_key(node).into()],
            Step::Open(spec) => vec![transition_key(&spec.id()).into()],
            Step::Close(_) => Vec::new(),
            Step::Decide(decision) => decision.keys(),
        }
    }

    /// Bytes that it brings, about.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Step::Register(node) | Step::Remove(node) => node.0.len(),
            Step::Open(spec) => spec.bytes().len(),
            Step::Close(closings) => closings.len() * size_of::<ClosingRecord>(),
            Step::Decide(decision) => decision.bytes(),
        }
    }

    /// What it adds to the version that it joins.
    ///
    /// # Errors
    /// [`Error::Refused`], and those of storage: then it adds nothing.
    pub(crate) fn join(&self, version: &Joining<'_>) -> Result<Additions, Error> {
        let mut additions = Additions::default();
        match self {
            Step::Register(node) => {
                let since = NodeRecord { since: version.version };
                // Who is registered stays so, since then.
                if version.get(&node_key(node))?.is_none() {
                    if version.count(NODE_PREFIX, REGISTERED_MAX)? == REGISTERED_MAX {
                        return Err(Refusal::TooManyNodes { max: REGISTERED_MAX }.into());
                    }
                    additions.put(node_key(node), since.to_bytes());
                }
            }
            Step::Remove(node) => {
                version.get(&node_key(node))?.ok_or(Refusal::UnknownNode)?;
                additions.writes.push((node_key(node).into(), None));
            }
            Step::Open(spec) => open(spec, version, &mut additions)?,
            Step::Close(closings) => {
                for closing in closings {
                    closing.join(version, &mut additions);
                }
            }
            Step::Decide(decision) => decision.join(version, &mut additions)?,
        }
        Ok(additions)
    }

    /// Whether the registry of its version has to be kept.
    pub(crate) fn opens(&self) -> bool {
        matches!(self, Step::Open(_))
    }
}

/// Puts a proof of all nodes into the batch of a version that opens transitions: who was registered can
/// then be shown when the version itself is gone.
pub(crate) fn keep_registry(version: &Joining<'_>, batch: &mut Batch) -> Result<(), Error> {
    let source = Source { tree: version.tree, pages: version.pages };
    let question = Question::default().prefix(NODE_PREFIX);
    journal::put_registry(batch, version.version, prove(&source, &question)?);
    Ok(())
}

/// Puts proofs of what a transition has written into the batch of its version: evidence can then be given when the version
/// itself is gone. `before` is the tree of the version before.
pub(crate) fn keep_states(
    version: &Joining<'_>,
    before: &Tree,
    applied: &Applied,
    batch: &mut Batch,
) -> Result<(), Error> {
    let Applied { id, apply, keys, bytes } = applied;
    let question = keys.iter().fold(Question::default(), |question, key| question.key(key));
    let mut keep = |moment, tree| {
        let source = Source { tree, pages: version.pages };
        let proof = if *bytes <= STATE_BYTES_MAX { Some(prove(&source, &question)?) } else { None };
        let proof = proof.filter(|proof| proof.len() <= STATE_BYTES_MAX);
        journal::put_state(batch, id, moment, proof);
        Ok(())
    };
    keep(Moment::After, version.tree)?;
    match apply {
        Apply::Add => keep(Moment::Before, before),
        Apply::Replace => Ok(()),
    }
}

fn open(spec: &Spec, version: &Joining<'_>, additions: &mut Additions) -> Result<(), Error> {
    let id = spec.id();
    if version.get(&transition_key(&id))?.is_some() {
        return Err(Error::Refused(Refusal::KnownTransition { id }));
    }
    let registered = version.count(NODE_PREFIX, spec.policy.lead as usize)?;
    if registered < spec.policy.lead as usize {
        return Err(Refusal::TooFewRegistered { registered, lead: spec.policy.lead }.into());
    }
    let opened = version.version;
    let state = TransitionState { opened, decided: None };
    additions.put(transition_key(&id), state.to_bytes());
    additions.record(id.0.0.to_vec(), OpenRecord { id, tasks: spec.tasks() }.to_bytes());
    journal::put_spec(&mut additions.batch, &id, spec.bytes());
    let record = record::Transition { opened: opened.0, decided: None };
    journal::put_transition(&mut additions.batch, &id, &record);
    Ok(())
}

impl Closing {
    fn join(&self, version: &Joining<'_>, additions: &mut Additions) {
        let RoundId { transition, task, round } = self.at;
        let pledges = u32::try_from(self.pledges.len()).expect("no more than nodes_max");
        let root = pledges_root(&self.pledges);
        let record = ClosingRecord { index: task, round, pledges, root };
        let key = closing_key(&transition, task, round);
        additions.record(key.to_vec(), record.to_bytes());
        journal::put_closed(&mut additions.batch, &self.at, version.version);
    }
}

impl Joining<'_> {
    /// The value of a key, as the members of the version before this one left it.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.tree.value(self.pages, key)
    }

    /// The number of keys with a prefix, counted up to `enough`.
    fn count(&self, prefix: &[u8], enough: usize) -> Result<usize, Error> {
        let end = after_prefix(prefix).map(Bytes::from);
        let start = Bytes::copy_from_slice(prefix);
        let entries = self.tree.range(self.pages, start, end, Direction::Ascending);
        entries.take(enough).try_fold(0, |count, entry| entry.map(|_| count + 1))
    }
}

impl Additions {
    pub(crate) fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.writes.push((key.into(), Some(value.into())));
    }

    pub(crate) fn record(&mut self, key: Vec<u8>, record: Vec<u8>) {
        self.tasks.push((key.into(), record.into()));
    }
}
