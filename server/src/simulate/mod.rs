//! Plays tasks by the rule of rounds, many thousands of each kind, and holds what happened against the
//! figures of `anwansi_proofs::agreement`.
//!
//! ```text
//!   groups()      what is played: rules, and nodes that go wrong in one way or another
//!     |
//!   task.rs       one task after the other, with seeded chance: no formula in there
//!     |
//!   row.rs        counts against figures: by how much do they differ, and is that chance?
//!     |
//!   page.rs, plot.rs     for people
//! ```

mod page;
mod plot;
mod row;
mod task;

use anwansi_proofs::agreement::{Voters, first_to_wrong, wrong_given_accepted};
use fastrand::Rng;

use row::Row;
use task::Rule;

/// The fewest tasks of a kind: with less, executions a task do not follow the normal law that they are
/// tested by.
pub const TASKS_MIN: u32 = 1_000;
/// The most tasks of a kind; they take about an hour.
pub const TASKS_MAX: u32 = 1_000_000_000;

/// How often a node errs, in the cases that are compared; often enough to see wrong results accepted.
const ERRORS: [f64; 3] = [0.1, 0.2, 0.3];
/// The leads that are drawn as lines.
const LEADS: std::ops::RangeInclusive<u32> = 1..=6;
/// The leads that other rules are compared with.
const COMPARED: [u32; 2] = [3, 6];

/// What came out of a simulation.
#[derive(Clone, Debug)]
pub struct Simulated {
    /// A page of Markdown with all rows, which shows the figure as `simulation.svg`.
    pub page: String,
    /// The figure, an SVG image.
    pub figure: String,
    /// The measured values that lie outside of their intervals, a sentence each. A right program has one
    /// for less than one seed in five thousand.
    pub outside: Vec<String>,
}

/// Some cases, and what they show.
struct Group {
    title: &'static str,
    text: &'static str,
    rows: Vec<Row>,
}

/// Plays `tasks` tasks of each case, at least [`TASKS_MIN`] and at most [`TASKS_MAX`]. The same seed gives
/// the same outcome.
///
/// # Cost
/// Some four seconds of one core for a million tasks of each case.
#[must_use]
pub fn simulate(seed: u64, tasks: u32) -> Simulated {
    let tasks = tasks.clamp(TASKS_MIN, TASKS_MAX);
    let mut chance = Rng::with_seed(seed);
    // Each case has a chance of its own, and so playing longer changes none of the others.
    let groups = groups(|rule, voters| Row {
        rule,
        voters,
        tally: task::play(rule, voters, tasks, &mut chance.fork()),
    });
    let outside = groups.iter().flat_map(|group| &group.rows).flat_map(Row::outside).collect();
    let page = page::page(seed, tasks, &groups);
    Simulated { page, figure: plot::figure(&groups), outside }
}

/// Plays every case that the page shows.
fn groups(mut play: impl FnMut(Rule, Voters) -> Row) -> [Group; 4] {
    let independent = |error| Voters::Independent { error };
    let dishonest = |dishonest, error| Voters::Dishonest { nodes: 100, dishonest, error };
    let correlated = |correlation| Voters::Correlated { error: 0.1, correlation };
    let lead = |lead| Rule::Lead { lead, nodes_max: 4 * lead };
    let short = Rule::Lead { lead: 6, nodes_max: 15 };

    let [mut alone, mut others, mut together, mut liars] = [const { Vec::new() }; 4];
    for error in ERRORS {
        alone.extend(LEADS.map(|votes| play(lead(votes), independent(error))));
        for votes in COMPARED {
            others.push(play(Rule::FirstTo { count: votes }, independent(error)));
            let as_safe = Rule::Replicas { nodes: replicas_needed(error, votes) };
            others.push(play(as_safe, independent(error)));
        }
    }
    alone.push(play(short, independent(0.1)));
    for votes in COMPARED {
        together.extend([0.02, 0.1, 0.3].map(|rho| play(lead(votes), correlated(rho))));
        let voters =
            [dishonest(10, 0.0), dishonest(20, 0.0), dishonest(33, 0.0), dishonest(20, 0.1)];
        liars.extend(voters.map(|voters| play(lead(votes), voters)));
    }
    liars.push(play(short, dishonest(20, 0.0)));
    [
        Group { title: "A lead of votes", text: page::ALONE, rows: alone },
        Group { title: "First to so many votes, and replicas", text: page::OTHERS, rows: others },
        Group { title: "Errors that come together", text: page::TOGETHER, rows: together },
        Group { title: "Dishonest nodes", text: page::LIARS, rows: liars },
    ]
}

/// The fewest replicas of which most are wrong no more often than an accepted result with this lead is.
fn replicas_needed(error: f64, lead: u32) -> u32 {
    // A single replica is as safe as a lead of 1, which rounding must not deny.
    let target = wrong_given_accepted(error, lead) * (1.0 + 1e-9);
    let count = (1..u32::MAX / 2).find(|count| first_to_wrong(error, *count) <= target);
    2 * count.expect("more replicas are wrong less often, without end") - 1
}
