//! One round after the other: who is drawn by the rule, who pledged in the closing, who opened the pledge.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::{
    CheckedVersion, Disagreement, Earlier, Refused, Spot,
    agreement::{all_recorded, refused, unproven},
    form::{Task, TaskRound},
};
use crate::{
    Digest, Drawn, Next, NodeKey, Place, Pledge, Shown, Spec, Tally, TaskPolicy, TransitionId,
    Version, Vote,
    path::after_prefix,
    pledges_root,
    record::{ClosingRecord, OpenRecord, closing_key},
    registry::NODE_PREFIX,
};

/// The most nodes that are drawn again: the sum, over the ended rounds of all tasks, of the nodes drawn for
/// the task up to that round. It bounds the work where records say that thousands were drawn and missed.
pub const DRAWN_SUM_MAX: u64 = 1 << 24;

/// What is the same for all rounds of a transition, and what they use up together.
pub(super) struct Rounds<'e> {
    transition: TransitionId,
    policy: TaskPolicy,
    opening: Version,
    /// The digest of the opening version's header.
    opened: Digest,
    /// The nodes registered in the opening version, ascending.
    registry: Vec<NodeKey>,
    earlier: &'e Earlier<'e>,
    pledges: &'e BTreeMap<TaskRound, Vec<u8>>,
    ended: usize,
    /// Towards [`DRAWN_SUM_MAX`].
    drawn_sum: u64,
}

/// How a task stands after the rounds so far.
pub(super) struct Standing {
    pub(super) tally: Tally,
    pub(super) next: Next,
    pub(super) missed: u32,
    pub(super) faults: u32,
    drawn: Drawn,
    /// The version of the newest closing, or of the opening.
    closed: Version,
}

impl<'e> Rounds<'e> {
    /// Finds the open record of the transition in the version that opened it, and who was registered then.
    pub(super) fn new(
        spec: &Spec,
        opening: Version,
        earlier: &'e Earlier<'e>,
        pledges: &'e BTreeMap<TaskRound, Vec<u8>>,
    ) -> Result<Self, Refused> {
        let no_part = refused(Disagreement::NoPart { version: opening });
        let part = earlier.get(&opening).ok_or(no_part.clone())?;
        let (state, tasks) = part.state().zip(part.tasks()).ok_or(no_part)?;
        let record = tasks.get(&spec.id().0.0).map_err(unproven)?.and_then(OpenRecord::parse);
        if record != Some(OpenRecord { id: spec.id(), tasks: spec.tasks() }) {
            return Err(refused(Disagreement::Record { record: "of the opening" }));
        }
        let nodes = state.keys(NODE_PREFIX, after_prefix(NODE_PREFIX).as_deref());
        let nodes = nodes.map_err(unproven)?.into_iter().map(|key| {
            let node = &key[NODE_PREFIX.len()..];
            let fault = Disagreement::Registry { bytes: node.len() };
            node.try_into().map(NodeKey).map_err(|_| refused(fault))
        });
        Ok(Rounds {
            transition: spec.id(),
            policy: spec.policy,
            opening,
            opened: part.header().digest(),
            registry: nodes.collect::<Result<_, _>>()?,
            earlier,
            pledges,
            ended: 0,
            drawn_sum: 0,
        })
    }

    /// How a task stands before its first round.
    pub(super) fn begin(&self) -> Standing {
        Standing {
            tally: Tally::default(),
            next: Next::Draw(self.policy.lead),
            missed: 0,
            faults: 0,
            drawn: Drawn::default(),
            closed: self.opening,
        }
    }

    /// Recounts a round that was closed in the version `closed` and in which these votes were cast.
    pub(super) fn end(
        &mut self,
        task: u32,
        round: u32,
        closed: Version,
        votes: &[Vote],
        standing: &mut Standing,
    ) -> Result<(), Refused> {
        let refused = |fault| Refused::Agreement { at: Spot::Round { task, round }, fault };
        let place = Place { opened: self.opened, transition: self.transition, task, round };
        let Next::Draw(count) = standing.next else {
            return Err(refused(Disagreement::RoundTooMany));
        };
        let after = core::mem::replace(&mut standing.closed, closed);
        if closed <= after {
            return Err(refused(Disagreement::ClosedTooEarly { closed, after }));
        }
        self.ended += 1;
        self.drawn_sum += u64::from(standing.tally.drawn()) + u64::from(count);
        if self.drawn_sum > DRAWN_SUM_MAX {
            return Err(refused(Disagreement::TooManyDrawn));
        }
        let drawn = standing.drawn.draw(&place, &self.registry, count as usize);
        let drawn = drawn.ok_or(refused(Disagreement::TooFewNodes { count }))?;
        let drawn = drawn.into_iter().collect::<BTreeSet<_>>();

        let pledges = self.closed_pledges(&place, closed)?;
        for pledge in &pledges {
            let right = check_pledge(&place, pledge, &drawn);
            right.map_err(|fault| at_node(&place, pledge.node, fault))?;
        }
        if !votes.is_sorted_by(|a, b| a.pledge.node < b.pledge.node) {
            return Err(refused(Disagreement::Order { member: "votes" }));
        }
        for vote in votes {
            let right = check_vote(&place, vote, &pledges);
            right.map_err(|fault| at_node(&place, vote.pledge.node, fault))?;
        }

        // All who voted had pledged, all who pledged were drawn, each once: no difference is negative.
        standing.missed += count - length(pledges.len());
        standing.faults += length(pledges.len() - votes.len());
        let digests = votes.iter().map(|vote| &vote.digest);
        let left = self.registry.len() - standing.drawn.count();
        standing.next = standing.tally.end_round(count, digests, left, &self.policy);
        Ok(())
    }

    /// The pledges of a round, one a node, under the root that its closing has in the version `closed`.
    fn closed_pledges(&self, place: &Place, closed: Version) -> Result<Vec<Pledge>, Refused> {
        let at = Spot::Round { task: place.task, round: place.round };
        let refused = |fault| Refused::Agreement { at, fault };
        let pledges = self.pledges.get(&TaskRound(Task(place.task), place.round));
        let pledges = pledges.ok_or(refused(Disagreement::Missing { member: "pledges" }))?;
        let pledges = Pledge::read_all(pledges);
        let pledges = pledges.ok_or(refused(Disagreement::Leaves { member: "pledges" }))?;
        let no_part = refused(Disagreement::NoPart { version: closed });
        let tasks = self.earlier.get(&closed).and_then(CheckedVersion::tasks).ok_or(no_part)?;
        let record = closing(tasks, place).map_err(refused)?;
        let recorded = [
            ("pledges", usize::try_from(record.pledges) == Ok(pledges.len())),
            ("root", record.root == pledges_root(&pledges)),
        ];
        all_recorded(at, &recorded)?;
        if !pledges.is_sorted_by(|a, b| a.node < b.node) {
            return Err(refused(Disagreement::Order { member: "pledges" }));
        }
        Ok(pledges)
    }

    /// How many rounds there were, of all tasks.
    pub(super) fn ended(&self) -> usize {
        self.ended
    }

    /// How many nodes could be drawn.
    pub(super) fn registered(&self) -> usize {
        self.registry.len()
    }
}

/// Reads the record of a closing from the tasks tree of its version.
fn closing(tasks: &Shown<'_>, place: &Place) -> Result<ClosingRecord, Disagreement> {
    let Place { transition, task, round, .. } = place;
    let record = tasks.get(&closing_key(transition, *task, *round)).map_err(Disagreement::Proof)?;
    let record = record.and_then(ClosingRecord::parse);
    let record = record.filter(|record| record.index == *task && record.round == *round);
    record.ok_or(Disagreement::Record { record: "of the closing" })
}

/// A pledge is that of a node which was drawn and has signed it.
fn check_pledge(
    place: &Place,
    pledge: &Pledge,
    drawn: &BTreeSet<NodeKey>,
) -> Result<(), Disagreement> {
    if !drawn.contains(&pledge.node) {
        return Err(Disagreement::NotDrawn);
    }
    if pledge.is_signed(place) { Ok(()) } else { Err(Disagreement::NotSigned) }
}

/// A vote opens one of these pledges, to the letter.
fn check_vote(place: &Place, vote: &Vote, pledges: &[Pledge]) -> Result<(), Disagreement> {
    let pledge = pledges.binary_search_by_key(&vote.pledge.node, |pledge| pledge.node);
    if pledge.map(|at| pledges[at]) != Ok(vote.pledge) {
        return Err(Disagreement::NotPledged);
    }
    if vote.opens(place) { Ok(()) } else { Err(Disagreement::NotOpened) }
}

fn at_node(place: &Place, node: NodeKey, fault: Disagreement) -> Refused {
    let at = Spot::Node { task: place.task, round: place.round, node };
    Refused::Agreement { at, fault }
}

/// The number of pledges or votes of a round, for which that many nodes were drawn.
fn length(leaves: usize) -> u32 {
    u32::try_from(leaves).expect("no more pledge or vote than were drawn")
}
