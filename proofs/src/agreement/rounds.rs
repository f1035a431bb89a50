//! One task before it is drawn: its rounds, and how they can end.
//!
//! ```text
//!   right less wrong votes
//!   +lead  -------------------o--    accepted, right      Round 0 draws `lead` nodes, each further round
//!                            /                            as many as the leading answer still lacks. So
//!                    o------o                             a round ends on an edge or before it, never
//!       0  o        /                no agreement, if     beyond, and a task is decided by the draw that
//!           \------o                 the next round       takes its walk to an edge. It ends without
//!                                    is too many nodes    agreement before the round that could draw
//!   -lead  ----------------------    accepted, wrong      more than `nodes_max` nodes.
//!          |       | |      | |
//!          round 0  1    2   3
//! ```

use alloc::{vec, vec::Vec};

use super::probability;

/// The most nodes that a task may draw for its rounds to be computed: four times a lead of 128.
pub const ROUNDS_NODES_MAX: u32 = 512;

/// How a task draws its nodes and decides: until an answer is `lead` votes ahead, or more than `nodes_max`
/// nodes would be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounds {
    lead: u32,
    nodes_max: u32,
}

/// How drawn nodes go wrong. All wrong answers are the same one, all right ones too, and each drawn node
/// votes.
///
/// Probabilities and counts stand for the nearest possible ones, as everywhere in this module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Voters {
    /// Each with probability `error`, whatever the others do.
    Independent {
        /// The probability of a wrong vote.
        error: f64,
    },
    /// With an error of the task's own, drawn from the beta distribution of mean `error` and
    /// `correlation`.
    Correlated {
        /// The probability of a wrong vote, over all tasks.
        error: f64,
        /// The correlation (rho) between two nodes' errors on one task.
        correlation: f64,
    },
    /// Of `nodes` registered ones, drawn without replacement, `dishonest` are always wrong, and the
    /// others with probability `error`.
    Dishonest {
        /// How many are registered.
        nodes: u32,
        /// How many of them are dishonest.
        dishonest: u32,
        /// The probability of a wrong vote by an honest node.
        error: f64,
    },
}

/// How a task can end: `right`, `wrong` and `no_agreement` add up to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The probability that the right result is accepted.
    pub right: f64,
    /// The probability that a wrong result is accepted.
    pub wrong: f64,
    /// The probability that none is: more nodes than allowed, or than there are, would have to be drawn.
    pub no_agreement: f64,
    /// The mean number of nodes drawn, each of which runs the task once.
    pub executions: f64,
}

impl Rounds {
    /// The rounds of a task; `None` unless `1 <= lead <= nodes_max <= ROUNDS_NODES_MAX`.
    #[must_use]
    pub fn new(lead: u32, nodes_max: u32) -> Option<Self> {
        let computable = 1 <= lead && lead <= nodes_max && nodes_max <= ROUNDS_NODES_MAX;
        computable.then_some(Rounds { lead, nodes_max })
    }

    /// How a task ends, computed exactly: all ways to draw and vote are summed, none is left out.
    ///
    /// # Cost
    /// Time `nodes_max * lead^2`, space `lead^2`: about ten microseconds for a lead of 6 and 24 nodes, a
    /// third of a second for the worst case, a lead of 341 and 512 nodes.
    #[must_use]
    pub fn outcome(self, voters: Voters) -> Outcome {
        let nodes_max = self.nodes_max.min(voters.nodes());
        if self.lead > nodes_max {
            return Outcome { no_agreement: 1.0, ..Outcome::default() };
        }
        let mut walk = Walk::new(self.lead);
        let mut outcome = Outcome::default();
        *walk.state(self.lead, self.lead) = 1.0;
        for drawn in 0..nodes_max {
            walk.step(drawn, voters);
            for place in 0..=2 * self.lead {
                let ended = core::mem::take(walk.state(place, 0));
                if ended == 0.0 {
                    continue;
                }
                // The round is over, with so many votes cast, and so many that its leader still lacks.
                let (cast, lacking) = (drawn + 1, self.lead - place.abs_diff(self.lead));
                if lacking > 0 && cast + lacking <= nodes_max {
                    *walk.state(place, lacking) += ended;
                    continue;
                }
                outcome.executions += ended * f64::from(cast);
                match place {
                    0 => outcome.wrong += ended,
                    _ if lacking == 0 => outcome.right += ended,
                    _ => outcome.no_agreement += ended,
                }
            }
        }
        // Rounding may have added a little beyond certainty.
        for p in [&mut outcome.right, &mut outcome.wrong, &mut outcome.no_agreement] {
            *p = p.min(1.0);
        }
        outcome
    }
}

impl Outcome {
    /// The probability that a result is wrong, given that it was accepted; 1 if none ever is.
    #[must_use]
    pub fn wrong_given_accepted(&self) -> f64 {
        let accepted = self.wrong + self.right;
        if accepted > 0.0 { self.wrong / accepted } else { 1.0 }
    }
}

impl Voters {
    /// How many nodes there are to draw from.
    fn nodes(self) -> u32 {
        match self {
            Voters::Dishonest { nodes, .. } => nodes,
            Voters::Independent { .. } | Voters::Correlated { .. } => u32::MAX,
        }
    }

    /// The probability that the next node is wrong after `drawn` were, `wrong` of which were wrong.
    fn next_wrong(self, drawn: u32, wrong: u32) -> f64 {
        match self {
            Voters::Independent { error } => probability(error),
            Voters::Correlated { error, .. } if drawn == 0 => probability(error),
            Voters::Correlated { error, correlation } => {
                let rho = probability(correlation);
                let before = probability(error) * (1.0 - rho);
                (before + f64::from(wrong) * rho) / (1.0 - rho + f64::from(drawn) * rho)
            }
            Voters::Dishonest { nodes, dishonest, error } => {
                let (dishonest, error) = (dishonest.min(nodes), probability(error));
                let met = dishonest_met(nodes, dishonest, error, drawn, wrong);
                let left = (f64::from(dishonest) - met) / (f64::from(nodes) - f64::from(drawn));
                probability(left + (1.0 - left) * error)
            }
        }
    }
}

/// The mean number of dishonest nodes among `drawn` of which `wrong` were wrong.
///
/// The votes do not say which of the wrong nodes are dishonest and which are honest and erred. That `d` of
/// them are has a weight of `C(wrong, d)` times the ways to draw `d` dishonest and `drawn - d` honest nodes
/// times `error^(wrong - d)`. Taken from the largest `d` down, the weights' ratio falls, and so the first
/// that changes nothing is the last to be looked at.
fn dishonest_met(nodes: u32, dishonest: u32, error: f64, drawn: u32, wrong: u32) -> f64 {
    let mut d = f64::from(wrong.min(dishonest));
    let [honest, dishonest, drawn, wrong] =
        [nodes - dishonest, dishonest, drawn, wrong].map(f64::from);
    // The mean so far, and which part of the weight so far is the last one's.
    let (mut mean, mut share) = (d, 1.0);
    while d > 0.0 && share > f64::EPSILON / 1024.0 {
        let undrawn = (honest - drawn + d).max(0.0);
        let ratio = error * d * undrawn / ((wrong - d + 1.0) * (dishonest - d + 1.0));
        share *= ratio;
        share /= 1.0 + share;
        d -= 1.0;
        mean += (d - mean) * share;
    }
    mean
}

/// The probability of each state between two draws. A state's place is `lead` plus the right votes less the
/// wrong ones, 0 to `2 * lead`; with it goes the number of nodes that its round is still to draw.
///
/// INVARIANT: no further from the middle than `lead` less that number, for a round draws what is lacking.
struct Walk {
    lead: u32,
    now: Vec<f64>,
    next: Vec<f64>,
}

impl Walk {
    fn new(lead: u32) -> Self {
        let states = vec![0.0; row(2 * lead + 1, lead)];
        Walk { lead, now: states.clone(), next: states }
    }

    /// The probability of being at this place with so many nodes to draw in the round.
    fn state(&mut self, place: u32, to_draw: u32) -> &mut f64 {
        &mut self.now[row(place, self.lead) + to_draw as usize]
    }

    /// Draws one node in every state; before it, `drawn` were.
    fn step(&mut self, drawn: u32, voters: Voters) {
        self.next.fill(0.0);
        // At either edge nothing is left to draw.
        for place in 1..2 * self.lead {
            let start = row(place, self.lead);
            let to_draw = (self.lead - place.abs_diff(self.lead)) as usize;
            if self.now[start..=start + to_draw].iter().all(|state| *state == 0.0) {
                continue;
            }
            let wrong = (drawn + self.lead - place) / 2;
            let wrong = voters.next_wrong(drawn, wrong);
            let (down, up) = (row(place - 1, self.lead), row(place + 1, self.lead));
            for left in 1..=to_draw {
                let state = self.now[start + left];
                self.next[down + left - 1] += state * wrong;
                self.next[up + left - 1] += state * (1.0 - wrong);
            }
        }
        core::mem::swap(&mut self.now, &mut self.next);
    }
}

/// Where the states of a place start.
fn row(place: u32, lead: u32) -> usize {
    place as usize * (lead as usize + 1)
}
