//! When a task is decided: the rule that the ledger follows and that evidence follows again.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::{Digest, spec::TaskPolicy};

/// How a task stands at the end of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    votes: BTreeMap<Digest, u32>,
    drawn: u32,
}

/// What follows from how a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another round, of so many nodes.
    Draw(u32),
    /// The first answer is ahead by the lead.
    Final,
    /// It cannot be decided within the policy's limits.
    NoAgreement,
}

impl Tally {
    /// Counts the votes of a round for which `drawn` nodes were drawn, and says what follows; `left`
    /// registered nodes were not drawn yet.
    ///
    /// # Panics
    /// If more vote than were drawn.
    pub fn end_round<'a>(
        &mut self,
        drawn: u32,
        votes: impl IntoIterator<Item = &'a Digest>,
        left: usize,
        policy: &TaskPolicy,
    ) -> Next {
        self.drawn = self.drawn.saturating_add(drawn);
        for digest in votes {
            *self.votes.entry(*digest).or_default() += 1;
        }
        let ranks = self.ranks();
        let of = |rank: usize| ranks.get(rank).map_or(0, |(_, votes)| *votes);
        let counted: u32 = self.votes.values().sum();
        assert!(counted <= self.drawn, "only drawn nodes vote");
        let gap = of(0) - of(1);
        let Some(more) = policy.lead.checked_sub(gap).filter(|more| *more > 0) else {
            return Next::Final;
        };
        let enough = usize::try_from(more).is_ok_and(|more| more <= left);
        let fits = self.drawn.checked_add(more).is_some_and(|drawn| drawn <= policy.nodes_max);
        if enough && fits && self.drawn - counted <= policy.missed_max {
            Next::Draw(more)
        } else {
            Next::NoAgreement
        }
    }

    /// The nodes drawn so far.
    #[must_use]
    pub fn drawn(&self) -> u32 {
        self.drawn
    }

    /// The answers with their votes: most votes first, among equals the smaller digest.
    #[must_use]
    pub fn ranks(&self) -> Vec<(Digest, u32)> {
        let mut ranks =
            self.votes.iter().map(|(digest, votes)| (*digest, *votes)).collect::<Vec<_>>();
        ranks.sort_by_key(|(digest, votes)| (core::cmp::Reverse(*votes), *digest));
        ranks
    }
}
