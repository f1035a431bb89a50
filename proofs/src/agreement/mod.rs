//! What it means that nodes agreed: how likely a result is wrong although it was accepted.
//!
//! A task's result is accepted when its leading answer is `lead` votes ahead of the next. Three ways in
//! which nodes go wrong are counted, each with all wrong answers the same, which is the worst they can be:
//!
//! ```text
//!                     independently     together, now and then     dishonest, f of N
//!                     error e           error e, correlation rho   drawn without replacement
//!   a vote that was   wrong_given_      wrong_given_accepted_      -
//!   counted           accepted          correlated
//!   l nodes asked,    unanimous_wrong   unanimous_wrong_           dishonest_drawn, with l of l
//!   all agree                           correlated
//!   a task, before    Rounds::outcome of Voters: accepted and right, accepted and wrong, no agreement,
//!   it is drawn       executions
//!   a counter that    -                 -                          dishonest_drawn, of all drawn
//!   censors votes
//! ```
//!
//! A transition's tasks together: [`bounds_sum`] and [`some_task`]. How many votes ahead a result must be:
//! [`lead_needed`]. Nothing here is stored or signed: everyone computes these figures from the policy of a
//! task and its recounted votes, and gets the same bits, since no processor's own logarithm is used.
//!
//! **Arguments come from anywhere.** A probability stands for the nearest one in 0..=1, and one that is
//! not a number for 1, the worst. Of counts that cannot be together, such as more dishonest nodes than
//! nodes, the smaller holds. No function here panics, and none returns what is not a number.
//!
//! ```
//! use anwansi_proofs::agreement::{Rounds, Voters, lead_needed, wrong_given_accepted};
//!
//! assert_eq!(lead_needed(0.1, 1e-6), Some(7)); // one node in ten errs, one result in a million may
//! assert!(wrong_given_accepted(0.1, 7) < 1e-6);
//! let rounds = Rounds::new(7, 28).expect("the lead is within the nodes, and they are not too many");
//! let outcome = rounds.outcome(Voters::Independent { error: 0.1 });
//! assert!(outcome.no_agreement < 1e-4 && outcome.executions < 8.8);
//! ```
//!
//! Sources: A. Wald, Sequential Tests of Statistical Hypotheses, 1945; L. Sarmenta, Sabotage-Tolerance
//! Mechanisms for Volunteer Computing Systems, 2001 (voting by credibility, of which this is the case of
//! equal nodes). Correlation is that of the beta-binomial distribution, committees are hypergeometric.

mod rounds;

pub use rounds::{Outcome, ROUNDS_NODES_MAX, Rounds, Voters};

use libm::{atanh, ceil, exp, expm1, lgamma, log, log1p, pow, tanh};

/// From this vote on, the sums over votes go in blocks of a thousandth part: see [`log_sum`].
const VOTES_SINGLY: u32 = 1024;

/// The probability that `lead` nodes, chosen beforehand, all agree and are wrong: `e^l`.
///
/// Nodes err independently, with probability `error` each. It is the smaller figure: of the results that
/// were accepted, more are wrong ([`wrong_given_accepted`]).
#[must_use]
pub fn unanimous_wrong(error: f64, lead: u32) -> f64 {
    pow(probability(error), f64::from(lead))
}

/// The probability that an accepted result is wrong, its answer `lead` votes ahead:
/// `1 / (1 + ((1-e)/e)^d)`.
///
/// Nodes err independently, with probability `error` each, and right and wrong are as likely before the
/// first vote. How many votes there were does not matter, nor that voting would have stopped at some number
/// of nodes. 0.5 for a lead of 0. Source: Wald's sequential test; Sarmenta's credibility.
#[must_use]
pub fn wrong_given_accepted(error: f64, lead: u32) -> f64 {
    // Zero times the infinite odds of a node that never errs would not be a number.
    if lead == 0 { 0.5 } else { against(f64::from(lead) * log_odds(probability(error))) }
}

/// The mean number of votes until an answer is `lead` ahead, if there is no end to the nodes:
/// `d (1-2P) / (1-2e)`, `P` being [`wrong_given_accepted`].
///
/// Nodes err independently, with probability `error` each. It grows to `d^2` as the error nears one half.
/// With an end to the nodes, see [`Outcome::executions`]. Source: Wald's sequential test.
#[must_use]
pub fn votes_mean(error: f64, lead: u32) -> f64 {
    let (surplus, lead) = (1.0 - 2.0 * probability(error), f64::from(lead));
    if surplus == 0.0 {
        lead * lead
    } else if lead == 0.0 {
        0.0
    } else {
        // 1 - 2P in a form that does not cancel: log_odds(e) = 2 atanh(1 - 2e).
        lead * tanh(lead * atanh(surplus)) / surplus
    }
}

/// The smallest lead, 1 at least, with [`wrong_given_accepted`] not above `target`:
/// `ceil(ln((1-a)/a) / ln((1-e)/e))`.
///
/// None if there is none in a `u32`: nodes that are wrong half of the time never get there.
#[must_use]
pub fn lead_needed(error: f64, target: f64) -> Option<u32> {
    let (error, target) = (probability(error), probability(target));
    let enough = |lead: &u32| wrong_given_accepted(error, *lead) <= target;
    if enough(&1) {
        return Some(1);
    }
    // A figure that is too small for an f64 is no proof of certainty.
    if error >= 0.5 || target == 0.0 {
        return None;
    }
    let leads = ceil(log_odds(target) / log_odds(error));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let leads = leads as u32;
    // Rounding may have moved the quotient over the edge, either way.
    (leads.saturating_sub(1)..=leads.saturating_add(1)).find(enough)
}

/// The probability that the first answer to get `count` votes is wrong. **Not used**: this is what a lead is
/// compared with.
///
/// Nodes err independently, with probability `error` each. It is also the probability that most of
/// `2 * count - 1` nodes are wrong which all run the task: stopping at the first `count` saves executions
/// and decides the same. 0.5 for a count of 0, where nothing was asked.
///
/// # Cost
/// At most about `9 * sqrt(count)` terms; its relative error is below 1e-14 times `count`.
#[must_use]
pub fn first_to_wrong(error: f64, count: u32) -> f64 {
    let error = probability(error);
    if count == 0 {
        return 0.5;
    }
    if error > 0.5 {
        return 1.0 - first_to_wrong(1.0 - error, count);
    }
    // The upper half of a binomial distribution over all votes, from its middle on.
    let (count, votes) = (f64::from(count), 2.0 * f64::from(count) - 1.0);
    let middle = log_choose(votes, count) + count * log(error) + (count - 1.0) * log1p(-error);
    let ratio = |step| (count - 1.0 - step) / (count + 1.0 + step) * (error / (1.0 - error));
    sum_of_falling(exp(middle), ratio).min(0.5)
}

/// Like [`unanimous_wrong`], with errors that come together.
///
/// Each task has an error of its own, drawn from a beta distribution of mean `error`, and two nodes' errors
/// have the `correlation` (rho): `A = e (1/rho - 1)`, `B = (1-e) (1/rho - 1)`, and the figure is
/// `B(A+l, B) / B(A, B)`. It is `e^l` without correlation, and `e` with a correlation of 1.
///
/// # Cost
/// That of [`wrong_given_accepted_correlated`].
#[must_use]
pub fn unanimous_wrong_correlated(error: f64, correlation: f64, lead: u32) -> f64 {
    let (error, rho) = (probability(error), probability(correlation));
    if lead == 0 {
        return 1.0;
    }
    // The next node's probability to err after k others did is (A+k) / (A+B+k).
    let (wrong, right) = (error * (1.0 - rho), (1.0 - error) * (1.0 - rho));
    exp(log(error) - log_sum(1, lead, |k| log1p(right / (wrong + k * rho))))
}

/// Like [`wrong_given_accepted`], with errors that come together: `agree` votes for the result, `dissent`
/// votes for another.
///
/// The model is that of [`unanimous_wrong_correlated`]; the figure is
/// `B(A+a, B+w) / (B(A+a, B+w) + B(A+w, B+a))`. Without correlation it depends on the lead `a - w` alone.
/// With it, dissent also says that the task is one on which nodes err.
///
/// # Cost
/// One logarithm a vote of the lead, and never more than 20,000: from the 1024th vote on they are taken in
/// blocks, which changes the logarithm of the odds by less than one part in ten million, and for an error
/// below 0.5 makes the figure larger, never smaller.
#[must_use]
pub fn wrong_given_accepted_correlated(
    error: f64,
    correlation: f64,
    agree: u32,
    dissent: u32,
) -> f64 {
    if agree < dissent {
        return 1.0 - wrong_given_accepted_correlated(error, correlation, dissent, agree);
    }
    if agree == dissent {
        return 0.5;
    }
    let (error, rho) = (probability(error), probability(correlation));
    // What the beta functions leave: the product of (B+k) / (A+k) for k = w .. a-1.
    let first = if dissent == 0 { log_odds(error) } else { 0.0 };
    let (wrong, surplus) = (error * (1.0 - rho), (1.0 - 2.0 * error) * (1.0 - rho));
    against(first + log_sum(dissent.max(1), agree, |k| log1p(surplus / (wrong + k * rho))))
}

/// The probability that at least `agree` of `drawn` nodes are dishonest, drawn without replacement from
/// `nodes` of which `dishonest` are: the tail of the hypergeometric distribution.
///
/// With all nodes drawn for a task, those that missed it included, this bounds what a server could reach
/// that suppresses votes of its choice. With `agree` and `drawn` both the lead it is a committee's figure.
///
/// # Cost
/// At most 9 standard deviations' terms, 150,000 of them in the worst case. Its relative error is below
/// 1e-14 times `nodes`.
#[must_use]
pub fn dishonest_drawn(nodes: u32, dishonest: u32, drawn: u32, agree: u32) -> f64 {
    let (dishonest, drawn) = (dishonest.min(nodes), drawn.min(nodes));
    if agree <= drawn.saturating_sub(nodes - dishonest) {
        return 1.0;
    }
    if agree > drawn.min(dishonest) {
        return 0.0;
    }
    let [nodes, dishonest, drawn, agree] = [nodes, dishonest, drawn, agree].map(f64::from);
    let honest = nodes - dishonest;
    let exactly = |k| {
        let ways = log_choose(dishonest, k) + log_choose(honest, drawn - k);
        exp(ways - log_choose(nodes, drawn))
    };
    // P(k+1) / P(k), which falls with k.
    let ratio = |k: f64| (dishonest - k) / (k + 1.0) * ((drawn - k) / (honest - drawn + k + 1.0));
    if ratio(agree - 1.0) < 1.0 {
        sum_of_falling(exactly(agree), |step| ratio(agree + step)).min(1.0)
    } else {
        // The terms still rise at `agree`: those below it are the falling ones.
        let below = |step| 1.0 / ratio(agree - 2.0 - step);
        (1.0 - sum_of_falling(exactly(agree - 1.0), below)).max(0.0)
    }
}

/// The probability that something happens to at least one of `tasks` independent tasks:
/// `1 - (1-p)^T`, right for the smallest probabilities too.
#[must_use]
pub fn some_task(each: f64, tasks: u32) -> f64 {
    if tasks == 0 { 0.0 } else { -expm1(f64::from(tasks) * log1p(-probability(each))) }
}

/// What bounds a transition: the sum of its tasks' bounds, 1 at most. The tasks may depend on each other.
#[must_use]
pub fn bounds_sum(bounds: impl IntoIterator<Item = f64>) -> f64 {
    bounds.into_iter().map(probability).sum::<f64>().min(1.0)
}

/// A node's error, estimated from its `valid` and `faulty` results: `(f+1) / (s+f+2)`.
///
/// The mean of what can be believed after them when at first each error was as likely as any other (the rule
/// of succession): one half for a node that nobody knows.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "an estimate needs no more than 53 bits")]
pub fn error_estimate(valid: u64, faulty: u64) -> f64 {
    (faulty as f64 + 1.0) / (valid as f64 + faulty as f64 + 2.0)
}

/// The probability that an argument stands for: the nearest, and 1 for what is not a number.
fn probability(given: f64) -> f64 {
    // The first branch takes -0 too, whose inverse would be the wrong infinity; of NaN and 1, `min` is 1.
    if given <= 0.0 { 0.0 } else { given.min(1.0) }
}

/// `ln((1-p) / p)`, without cancellation around one half.
fn log_odds(probability: f64) -> f64 {
    log1p((1.0 - 2.0 * probability) / probability)
}

/// The probability of what has the odds `e^log_odds` against it, exact in both tails.
fn against(log_odds: f64) -> f64 {
    if log_odds > 0.0 {
        let odds = exp(-log_odds);
        odds / (1.0 + odds)
    } else {
        1.0 / (1.0 + exp(log_odds))
    }
}

/// `ln(n! / (k! (n-k)!))`.
fn log_choose(n: f64, k: f64) -> f64 {
    lgamma(n + 1.0) - lgamma(k + 1.0) - lgamma(n - k + 1.0)
}

/// The sum of `first`, `first * ratio(0)`, `first * ratio(0) * ratio(1)` and so on, until a term changes
/// nothing. The ratios fall, and at some step they are 0.
fn sum_of_falling(first: f64, ratio: impl Fn(f64) -> f64) -> f64 {
    let (mut sum, mut term, mut step) = (0.0, first, 0.0);
    while term > sum * (f64::EPSILON / 16.0) {
        sum += term;
        term *= ratio(step);
        step += 1.0;
    }
    sum
}

/// The sum of `term(k)` for k from `from` up to but not including `to`, `term` being convex and falling.
///
/// From [`VOTES_SINGLY`] on, a block of votes counts as often as its middle one, so that the work grows
/// with the logarithm of the votes. By convexity the sum is then too small, never too large.
fn log_sum(from: u32, to: u32, term: impl Fn(f64) -> f64) -> f64 {
    let (mut sum, mut k) = (0.0, from);
    while k < to {
        let block = (k / VOTES_SINGLY).max(1).min(to - k);
        sum += f64::from(block) * term(f64::from(k) + f64::from(block - 1) / 2.0);
        k += block;
    }
    sum
}
