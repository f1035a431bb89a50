//! What a node makes sure of before it works: that the transition was opened, and that it was drawn.
//!
//! ```text
//! the specification      its bytes have the id
//! the header             of the opening version, in the log: the seed of the draw
//! its tasks tree         shows the record that opened the transition, with as many tasks
//! its state              shows all keys of nodes, and so the candidates
//! the newest state       shows that the transition was opened there, and is not decided
//! ```
//!
//! The last is why a result may be removed once its transition is decided: nobody can have the node
//! pledge there again.

use anwansi_proofs::{
    Digest, Drawn, Entry, NodeKey, Place, Pledge, Spec, TransitionId, Version, pledges_root,
    record::{ClosingRecord, OpenRecord, closing_key},
    registry::NODE_PREFIX,
};

use super::NotDone;
use crate::{
    Asked, Assignment, At, Client, Error, Fault,
    client::{Tree, Verified},
};

/// A transition whose opening is in the log, with the nodes that its tasks draw from.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) spec: Spec,
    /// The digest of that version's header.
    header: Digest,
    /// In strictly ascending order.
    registry: Vec<NodeKey>,
}

impl Opening {
    /// Has the server show that the transition `id` was opened in `version`, and is not decided.
    pub(crate) fn verify(
        client: &Client,
        id: &TransitionId,
        version: Version,
    ) -> Result<Self, Error> {
        let spec = client.spec(id)?;
        let nodes = client.keyed_by_node(NODE_PREFIX, At::Version(version))?;
        let header = nodes.header.digest();
        let registry = nodes.value.into_iter().map(|(key, _)| key).collect();
        let asked = Asked { keys: vec![id.0.0.to_vec()], ..Asked::default() };
        let opened = client.question(Tree::Tasks, &asked, At::Version(version), |shown| {
            Ok(shown.get(&id.0.0)?.and_then(OpenRecord::parse))
        })?;
        // One version has one header, in one log.
        if opened.header.digest() != header {
            return Err(Error::at(version, Fault::OtherHeader));
        }
        let record = OpenRecord { id: *id, tasks: spec.tasks() };
        let not_opened = |version: Version, what: &str| {
            let what = format!("that {id} was opened {what}");
            Error::at(version, Fault::NoRecord { what })
        };
        if opened.value.as_ref() != Some(&record) {
            return Err(not_opened(version, &format!("with {} tasks", spec.tasks())));
        }
        let Verified { header: newest, value: state } = client.transition(id, At::Newest)?;
        match state {
            Some(state) if state.opened == version => match state.decided {
                None => Ok(Opening { spec, header, registry }),
                Some((_, outcome)) => Err(NotDone::Decided { outcome }.into()),
            },
            _ => Err(not_opened(newest.version(), &format!("in version {version}"))),
        }
    }

    /// The place of one round of one task.
    pub(crate) fn place(&self, assignment: &Assignment) -> Result<Place, Fault> {
        let Assignment { index, round, .. } = *assignment;
        if index >= self.spec.tasks() {
            let what = format!("of a task {index}: there are {}", self.spec.tasks());
            return Err(Fault::NoRecord { what });
        }
        let transition = self.spec.id();
        Ok(Place { opened: self.header, transition, task: index, round })
    }

    /// Draws again for all rounds that the assignment announces, and checks that `node` was drawn in the
    /// last one, which is the assignment's.
    ///
    /// Whether so many had to be drawn only the votes can tell: later, as evidence.
    pub(crate) fn check_drawn(&self, node: &NodeKey, assignment: &Assignment) -> Result<(), Fault> {
        let Assignment { index, round, draws, .. } = assignment;
        let policy = &self.spec.policy;
        let wrong = || Fault::Draws { draws: draws.clone(), registered: self.registry.len() };
        // Round 0 draws the lead, each further one what the lead still lacks.
        let lacking = |(_, count): (usize, &u32)| (1..=policy.lead).contains(count);
        let sum = draws.iter().map(|count| u64::from(*count)).sum::<u64>();
        if draws.len() as u64 != u64::from(*round) + 1
            || draws.first() != Some(&policy.lead)
            || !draws.iter().enumerate().all(lacking)
            || sum > u64::from(policy.nodes_max)
        {
            return Err(wrong());
        }
        let mut drawn = Drawn::default();
        let mut last = Vec::new();
        for (round, count) in (0..=*round).zip(draws) {
            let transition = self.spec.id();
            let place = Place { opened: self.header, transition, task: *index, round };
            let count = usize::try_from(*count).map_err(|_| wrong())?;
            last = drawn.draw(&place, &self.registry, count).ok_or_else(wrong)?;
        }
        if last.contains(node) {
            Ok(())
        } else {
            Err(Fault::NotDrawn { index: *index, round: *round })
        }
    }
}

/// The rounds of a transition that one version closed.
#[derive(Clone, Debug)]
pub(crate) struct Closings {
    version: Version,
    records: Vec<ClosingRecord>,
}

impl Closings {
    /// Has the server show all that version `closed` says of the transition `id`.
    pub(crate) fn verify(
        client: &Client,
        id: &TransitionId,
        closed: Version,
    ) -> Result<Self, Error> {
        let prefix = id.0.0;
        let asked = Asked { prefixes: vec![prefix.to_vec()], ..Asked::default() };
        let shown = client.question(Tree::Tasks, &asked, At::Version(closed), |shown| {
            let entries = shown.prefix(&prefix)?.into_iter();
            let closings = entries.filter(|entry| entry.key.len() == CLOSING_KEY_BYTES);
            // A record under another key than its own is none.
            let own = |entry: Entry<'_>| {
                let record = ClosingRecord::parse(entry.value)?;
                let key = closing_key(id, record.index, record.round);
                (key == *entry.key).then_some(record)
            };
            Ok(closings.filter_map(own).collect())
        })?;
        Ok(Closings { version: closed, records: shown.value })
    }

    /// Checks that `leaves` are the pledges with which the round at `place` was closed, and that `own` is
    /// among them: then they were fixed, all of them, before anyone reveals.
    pub(crate) fn check(
        &self,
        place: &Place,
        leaves: &[Pledge],
        own: &Pledge,
    ) -> Result<(), Error> {
        let refused = |fault| Err(Error::at(self.version, fault));
        let Place { transition, task, round, .. } = place;
        let closes = |record: &&ClosingRecord| record.index == *task && record.round == *round;
        let Some(record) = self.records.iter().find(closes) else {
            let what = format!("that closes round {round} of task {task} of {transition}");
            return refused(Fault::NoRecord { what });
        };
        let ascending = leaves.is_sorted_by(|one, next| one.node < next.node);
        let counted = usize::try_from(record.pledges).is_ok_and(|count| count == leaves.len());
        if !ascending || !counted || pledges_root(leaves) != record.root {
            return refused(Fault::OtherPledges);
        }
        if !leaves.contains(own) {
            return refused(Fault::NotAmongPledges);
        }
        Ok(())
    }
}

/// The id, the task's index, the round.
const CLOSING_KEY_BYTES: usize = 40;
