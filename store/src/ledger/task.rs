//! One task: who was drawn, who pledged, who revealed, and what follows. No clock, no storage.
//!
//! ```text
//!             all have pledged,             in a version              all have revealed,
//!             or time is up                                           or time is up
//!   Pledging ------------------> Closing ------------> Revealing ------------------> Ending
//!      ^                                                                                |  durable
//!      |                       the lead is not reached, and may be                      |
//!      +--------------------------------------------------------------------------------+
//!                                                                                       |
//!                                                             final, or no agreement    v
//!                                                                                     Ended
//! ```

use anwansi_proofs::{
    Digest, Drawn, Next, NodeKey, Place, Pledge, Tally, TaskPolicy, Version, Vote,
    record::{Status, TaskRecord},
    votes_root,
};

use super::{
    Refusal,
    journal::{Fact, Reveal},
};

/// A task of an open transition.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) phase: Phase,
    /// All rounds that began; the last one is under way, or ended with the task.
    pub(crate) rounds: Vec<Round>,
    drawn: Drawn,
    tally: Tally,
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Pledging,
    /// No more pledges; the closing is on its way into a version.
    Closing,
    Revealing,
    /// No more reveals; that is on its way to being durable.
    Ending,
    Ended(Status),
}

/// One round.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// Those drawn, in the order of their keys.
    pub(crate) seats: Vec<Seat>,
    pub(crate) closed: Option<Version>,
}

/// What a drawn node did.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) node: NodeKey,
    pub(crate) pledge: Option<Pledge>,
    /// Another pledge that it signed for the same round.
    pub(crate) second: Option<Pledge>,
    pub(crate) reveal: Option<Reveal>,
    pub(crate) bad_reveal: bool,
}

/// What a seat counts for when its round has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Missed,
    NoReveal,
    BadReveal,
    Equivocated,
    Voted(Digest),
}

/// What became of something that a node sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is new.
    New,
    /// It was here before: it is answered as then.
    Known,
    /// A second pledge, which is kept as evidence.
    Equivocation,
    /// The first reveal that does not open the pledge, which is kept as a fault.
    BadReveal,
}

impl Round {
    fn new(mut nodes: Vec<NodeKey>) -> Self {
        nodes.sort_unstable();
        let seat =
            |node| Seat { node, pledge: None, second: None, reveal: None, bad_reveal: false };
        Round { seats: nodes.into_iter().map(seat).collect(), closed: None }
    }

    pub(crate) fn seat(&self, node: &NodeKey) -> Option<&Seat> {
        self.seats.binary_search_by_key(node, |seat| seat.node).ok().map(|at| &self.seats[at])
    }

    fn seat_mut(&mut self, node: &NodeKey) -> Option<&mut Seat> {
        self.seats.binary_search_by_key(node, |seat| seat.node).ok().map(|at| &mut self.seats[at])
    }

    /// The pledges, first ones only, in the order of their nodes.
    pub(crate) fn pledges(&self) -> Vec<Pledge> {
        self.seats.iter().filter_map(|seat| seat.pledge).collect()
    }

    /// The votes, in the order of their nodes.
    fn votes(&self, round: u32) -> impl Iterator<Item = Vote> + '_ {
        self.seats.iter().filter_map(move |seat| {
            let (pledge, Reveal { salt, digest }) = (seat.pledge?, seat.reveal?);
            seat.second.is_none().then_some(Vote { pledge, salt, digest, round })
        })
    }
}

impl Seat {
    pub(crate) fn deed(&self) -> Deed {
        match (&self.pledge, &self.second, &self.reveal) {
            (None, ..) => Deed::Missed,
            (_, Some(_), _) => Deed::Equivocated,
            (.., Some(reveal)) => Deed::Voted(reveal.digest),
            _ if self.bad_reveal => Deed::BadReveal,
            _ => Deed::NoReveal,
        }
    }

    /// Whether something is still to come from it in a phase that is under way.
    pub(crate) fn is_awaited(&self, phase: Phase) -> bool {
        match phase {
            Phase::Pledging => self.pledge.is_none(),
            Phase::Revealing => {
                self.pledge.is_some() && self.second.is_none() && self.reveal.is_none()
            }
            _ => false,
        }
    }
}

impl Task {
    /// A task whose first round is drawn.
    ///
    /// # Panics
    /// If fewer nodes are registered than the lead: such transitions are not opened.
    pub(crate) fn new(place: &Place, registry: &[NodeKey], policy: &TaskPolicy) -> Self {
        let mut task = Task {
            phase: Phase::Pledging,
            rounds: Vec::new(),
            drawn: Drawn::default(),
            tally: Tally::default(),
        };
        task.draw(place, registry, policy.lead);
        task
    }

    fn draw(&mut self, place: &Place, registry: &[NodeKey], count: u32) {
        let place = Place { round: self.round_number(), ..*place };
        let nodes = self.drawn.draw(&place, registry, count as usize);
        self.rounds.push(Round::new(nodes.expect("no more are asked for than there are")));
        self.phase = Phase::Pledging;
    }

    fn round_number(&self) -> u32 {
        u32::try_from(self.rounds.len()).expect("each round draws a node or more")
    }

    /// The number of the round that is under way, or was the last.
    pub(crate) fn round(&self) -> u32 {
        self.round_number() - 1
    }

    pub(crate) fn current(&self) -> &Round {
        self.rounds.last().expect("the first round is drawn at once")
    }

    fn current_mut(&mut self) -> &mut Round {
        self.rounds.last_mut().expect("the first round is drawn at once")
    }

    /// The votes of the rounds that ended.
    pub(crate) fn counted(&self) -> u64 {
        self.tally.ranks().iter().map(|(_, votes)| u64::from(*votes)).sum()
    }

    /// The answer with the most votes in the rounds that ended.
    pub(crate) fn first(&self) -> Option<Digest> {
        self.tally.ranks().first().map(|(digest, _)| *digest)
    }

    /// Whether nothing more is to come before the phase ends.
    pub(crate) fn is_complete(&self) -> bool {
        let moves = matches!(self.phase, Phase::Pledging | Phase::Revealing);
        moves && !self.current().seats.iter().any(|seat| seat.is_awaited(self.phase))
    }

    /// Takes a pledge whose signature was checked.
    pub(crate) fn pledge(&mut self, round: u32, pledge: &Pledge) -> Result<Taken, Refusal> {
        let phase = self.phase;
        let seat = self.seat(round, &pledge.node)?;
        match (&seat.pledge, &seat.second) {
            // Signatures can be made anew; the pledge is what binds.
            (Some(first), _) if first.pledge == pledge.pledge => Ok(Taken::Known),
            (Some(_), Some(_)) => Err(Refusal::Equivocated),
            (Some(_), None) if matches!(phase, Phase::Ending | Phase::Ended(_)) => {
                Err(Refusal::TooLate)
            }
            (Some(_), None) => {
                seat.second = Some(*pledge);
                Ok(Taken::Equivocation)
            }
            (None, _) if phase == Phase::Pledging => {
                seat.pledge = Some(*pledge);
                Ok(Taken::New)
            }
            (None, _) => Err(Refusal::TooLate),
        }
    }

    /// Takes a reveal: the digest of a result, and the salt that hid it.
    ///
    /// A reveal that does not open the pledge shuts out no other: it is not signed, so it may be somebody
    /// else's, and the node can still show what it has pledged.
    pub(crate) fn reveal(
        &mut self,
        place: &Place,
        node: &NodeKey,
        reveal: &Reveal,
    ) -> Result<Taken, Refusal> {
        let phase = self.phase;
        let seat = self.seat(place.round, node)?;
        let Some(pledge) = &seat.pledge else {
            let early = phase == Phase::Pledging;
            return Err(if early { Refusal::NotPledged } else { Refusal::TooLate });
        };
        let opens = place.pledge(node, &reveal.digest, &reveal.salt) == pledge.pledge;
        match phase {
            _ if seat.second.is_some() => Err(Refusal::Equivocated),
            _ if opens && seat.reveal.is_some() => Ok(Taken::Known),
            Phase::Pledging | Phase::Closing => Err(Refusal::TooEarly),
            Phase::Ending | Phase::Ended(_) => Err(Refusal::TooLate),
            Phase::Revealing if opens => {
                seat.reveal = Some(*reveal);
                Ok(Taken::New)
            }
            Phase::Revealing if seat.bad_reveal => Err(Refusal::BadReveal),
            Phase::Revealing => {
                seat.bad_reveal = true;
                Ok(Taken::BadReveal)
            }
        }
    }

    /// The seat of a node in the round that is under way.
    fn seat(&mut self, round: u32, node: &NodeKey) -> Result<&mut Seat, Refusal> {
        if round < self.round() {
            let drawn = self.rounds[round as usize].seat(node).is_some();
            return Err(if drawn { Refusal::TooLate } else { Refusal::NotDrawn });
        }
        if round > self.round() {
            return Err(Refusal::NotDrawn);
        }
        self.current_mut().seat_mut(node).ok_or(Refusal::NotDrawn)
    }

    /// The pledging of the round is in a version.
    pub(crate) fn closed(&mut self, version: Version) {
        self.current_mut().closed = Some(version);
        self.phase = Phase::Revealing;
    }

    /// The end of the round is durable: draws the next round, or ends the task.
    pub(crate) fn end_round(&mut self, place: &Place, registry: &[NodeKey], policy: &TaskPolicy) {
        let round = self.current();
        let drawn = u32::try_from(round.seats.len()).expect("no more than nodes_max");
        let votes = round.votes(self.round()).map(|vote| vote.digest).collect::<Vec<_>>();
        let left = registry.len() - self.drawn.count();
        match self.tally.end_round(drawn, &votes, left, policy) {
            Next::Draw(count) => self.draw(place, registry, count),
            Next::Final => self.phase = Phase::Ended(Status::Final),
            Next::NoAgreement => self.phase = Phase::Ended(Status::NoAgreement),
        }
    }

    /// Applies what was read back; `None` if it cannot have happened.
    pub(crate) fn replay(
        &mut self,
        place: &Place,
        registry: &[NodeKey],
        policy: &TaskPolicy,
        fact: &Fact,
    ) -> Option<()> {
        let expected = match fact {
            Fact::Pledged { .. } | Fact::Closed { .. } => Phase::Pledging,
            Fact::Revealed { .. } | Fact::BadReveal { .. } | Fact::Ended => Phase::Revealing,
        };
        if place.round != self.round() || self.phase != expected {
            return None;
        }
        match fact {
            Fact::Pledged { pledge, second } => {
                let seat = self.current_mut().seat_mut(&pledge.node)?;
                (seat.pledge, seat.second) = (Some(*pledge), *second);
            }
            Fact::Closed { version } => self.closed(*version),
            Fact::Revealed { node, reveal } => {
                self.current_mut().seat_mut(node)?.reveal = Some(*reveal);
            }
            Fact::BadReveal { node } => self.current_mut().seat_mut(node)?.bad_reveal = true,
            Fact::Ended => self.end_round(place, registry, policy),
        }
        Some(())
    }

    /// The rounds whose reveals ended.
    pub(crate) fn ended_rounds(&self) -> &[Round] {
        let under_way = !matches!(self.phase, Phase::Ended(_));
        &self.rounds[..self.rounds.len() - usize::from(under_way)]
    }

    /// The votes that count, by round and node.
    pub(crate) fn votes(&self) -> Vec<Vote> {
        (0..).zip(self.ended_rounds()).flat_map(|(number, round)| round.votes(number)).collect()
    }

    /// What every node did that was drawn in a round that ended.
    pub(crate) fn deeds(&self) -> impl Iterator<Item = (NodeKey, Deed)> + '_ {
        let seats = self.ended_rounds().iter().flat_map(|round| &round.seats);
        seats.map(|seat| (seat.node, seat.deed()))
    }

    /// The task's record, if this is what becomes of it.
    pub(crate) fn record(&self, index: u32, status: Status) -> TaskRecord {
        let ranks = self.tally.ranks();
        let count = |deed| {
            let count = self.deeds().filter(|(_, found)| *found == deed).count();
            u32::try_from(count).expect("no more than were drawn")
        };
        let closed = self.ended_rounds().iter().map(|round| round.closed.expect("it has ended"));
        TaskRecord {
            index,
            status,
            digest: ranks.first().map(|(digest, _)| *digest),
            agree: ranks.first().map_or(0, |(_, votes)| *votes),
            dissent: ranks.into_iter().skip(1).collect(),
            drawn: self.tally.drawn(),
            missed: count(Deed::Missed),
            no_reveal: count(Deed::NoReveal),
            bad_reveal: count(Deed::BadReveal),
            equivocated: count(Deed::Equivocated),
            closed: closed.collect(),
            votes: votes_root(&self.votes()),
        }
    }
}
