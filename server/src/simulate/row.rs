//! What was counted beside what was computed, and whether chance explains the difference.
//!
//! A row's three values are each tested by a `z`, which lies within plus or minus [`Z_MAX`] but for a chance
//! below one in a million:
//!
//! - of `k` in `n` tasks, with `p` expected, `z` is the square root of `2 n D`, where
//!   `D = q ln(q/p) + (1-q) ln((1-q)/(1-p))` and `q = k/n`, with the sign of `q - p`. By Chernoff's bound it
//!   is beyond `z` with a probability below `2 exp(-z^2 / 2)`, for every `n` and `p`, rare events included;
//!   near `p` it is the number of standard deviations;
//! - the mean of executions differs by `z` of its standard errors, which are taken from the sample.

use anwansi_proofs::agreement::{Outcome, Rounds, Voters, first_to_wrong};

use super::task::{Rule, Tally};

/// How far a measured value may lie from its figure.
pub(super) const Z_MAX: f64 = 5.4;

/// The tasks of one case.
pub(super) struct Row {
    pub(super) rule: Rule,
    pub(super) voters: Voters,
    pub(super) tally: Tally,
}

/// A measured value, the figure for it, and how far they are apart.
#[derive(Clone, Copy)]
pub(super) struct Compared {
    pub(super) measured: f64,
    pub(super) figure: f64,
    pub(super) z: f64,
}

impl Row {
    /// How often a wrong result was accepted.
    pub(super) fn wrong(&self) -> Compared {
        compare_count(self.tally.wrong, self.tally.tasks, self.figures().wrong)
    }

    /// How often no result was accepted.
    pub(super) fn no_agreement(&self) -> Compared {
        compare_count(self.tally.no_agreement, self.tally.tasks, self.figures().no_agreement)
    }

    /// Executions a task.
    #[expect(clippy::cast_precision_loss, reason = "sums of whole numbers below 2^53")]
    pub(super) fn executions(&self) -> Compared {
        let (figure, tasks) = (self.figures().executions, f64::from(self.tally.tasks));
        let measured = self.tally.executions as f64 / tasks;
        let variance = (self.tally.squares as f64 / tasks - measured * measured).max(0.0);
        let difference = measured - figure;
        let z = if difference.abs() < 1e-9 { 0.0 } else { difference / (variance / tasks).sqrt() };
        Compared { measured, figure, z }
    }

    /// The values that chance does not explain, a sentence each.
    pub(super) fn outside(&self) -> Vec<String> {
        let values = [
            ("accepted and wrong", self.wrong()),
            ("no agreement", self.no_agreement()),
            ("executions a task", self.executions()),
        ];
        let outside = values.into_iter().filter(|(_, value)| !value.is_within());
        let sentence = |(name, value): (&str, Compared)| {
            let Compared { measured, figure, z } = value;
            let Row { rule, voters, .. } = self;
            format!("{name}: {measured}, not {figure} (z = {z:.1}) for {rule:?}, {voters:?}")
        };
        outside.map(sentence).collect()
    }

    /// What is computed for the case.
    fn figures(&self) -> Outcome {
        match (self.rule, self.voters) {
            (Rule::Lead { lead, nodes_max }, voters) => {
                Rounds::new(lead, nodes_max).expect("the cases are within bounds").outcome(voters)
            }
            (Rule::FirstTo { count }, Voters::Independent { error }) => {
                decided(first_to_wrong(error, count), first_to_votes(error, count))
            }
            (Rule::Replicas { nodes }, Voters::Independent { error }) => {
                decided(first_to_wrong(error, nodes.div_ceil(2)), f64::from(nodes))
            }
            (Rule::FirstTo { .. } | Rule::Replicas { .. }, _) => {
                unreachable!("other rules are compared where nodes err independently")
            }
        }
    }
}

impl Compared {
    /// Whether chance explains the difference.
    pub(super) fn is_within(self) -> bool {
        self.z.abs() <= Z_MAX
    }
}

/// The outcome of a rule that always decides.
fn decided(wrong: f64, executions: f64) -> Outcome {
    Outcome { right: 1.0 - wrong, wrong, no_agreement: 0.0, executions }
}

/// The mean number of votes until an answer has `count` of them.
fn first_to_votes(error: f64, count: u32) -> f64 {
    let (right, wrong) = (1.0 - error, error);
    let all = |p: f64| (0..count).fold(1.0, |all, _| all * p);
    // How likely it is that one side gets its last vote when the other has `behind`.
    let (mut ends, mut sum) = ([all(right), all(wrong)], 0.0);
    for behind in 0..count {
        let votes = f64::from(count + behind);
        sum += votes * (ends[0] + ends[1]);
        let more = votes / f64::from(behind + 1);
        ends = [ends[0] * wrong * more, ends[1] * right * more];
    }
    sum
}

/// Compares a count of tasks with the probability of each.
fn compare_count(count: u32, tasks: u32, figure: f64) -> Compared {
    let tasks = f64::from(tasks);
    let measured = f64::from(count) / tasks;
    let part = |q: f64, p: f64| if q == 0.0 { 0.0 } else { q * (q / p).ln() };
    let divergence = part(measured, figure) + part(1.0 - measured, 1.0 - figure);
    let z = (2.0 * tasks * divergence.max(0.0)).sqrt().copysign(measured - figure);
    Compared { measured, figure, z }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_refused_outside_of_their_interval_only() {
        let within = |count, p| compare_count(count, 1_000_000, p).is_within();
        // 5.4 standard deviations of 1000 either way, and both sides of few.
        assert!(within(1000, 1e-3) && within(1165, 1e-3) && within(840, 1e-3));
        assert!(!within(1185, 1e-3) && !within(820, 1e-3));
        assert!(within(0, 1e-6) && within(8, 1e-6) && !within(12, 1e-6));
        assert!(within(0, 1e-5) && !within(0, 2e-5));
        // What cannot happen must not, and what must happen must always.
        assert!(within(0, 0.0) && !within(1, 0.0));
        assert!(within(1_000_000, 1.0) && !within(999_999, 1.0));
    }

    #[test]
    fn votes_to_be_first_are_those_of_all_sequences() {
        // Of three votes two agree: the third is asked if the first two do not.
        assert!((first_to_votes(0.1, 2) - (2.0 + 2.0 * 0.9 * 0.1)).abs() < 1e-12);
        assert!((first_to_votes(0.0, 5) - 5.0).abs() < 1e-12);
        assert!((first_to_votes(0.3, 1) - 1.0).abs() < 1e-12);
    }
}
