//! Goal: each figure of agreement is the probability that it says it is, for whatever it is asked.
//!
//! Method: published values, to the digits they were published with; small cases against an enumeration of
//! every sequence of votes, written from the rule of rounds and from urns, not from the formulas; large ones
//! against a seeded simulation, within 4.5 standard deviations of a binomial (a right program fails one such
//! comparison in 150,000); limits, order, and every pair of hostile arguments.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(clippy::float_cmp, reason = "ends are met exactly")]

use anwansi_proofs::agreement::{
    Outcome, ROUNDS_NODES_MAX, Rounds, Voters, bounds_sum, dishonest_drawn, error_estimate,
    first_to_wrong, lead_needed, some_task, unanimous_wrong, unanimous_wrong_correlated,
    votes_mean, wrong_given_accepted, wrong_given_accepted_correlated,
};

/// Asserts that two figures differ by no more than this part of the second.
#[track_caller]
fn near(found: f64, expected: f64, part: f64) {
    assert!((found - expected).abs() <= part * expected.abs(), "{found} is not {expected}");
}

/// As [`near`], to half a unit of the last of two digits.
#[track_caller]
fn two_digits(found: f64, expected: f64) {
    near(found, expected, 0.05);
    assert_eq!(format!("{found:.1e}"), format!("{expected:.1e}"));
}

fn outcome(lead: u32, nodes_max: u32, voters: Voters) -> Outcome {
    Rounds::new(lead, nodes_max).unwrap().outcome(voters)
}

fn dishonest(nodes: u32, dishonest: u32) -> Voters {
    Voters::Dishonest { nodes, dishonest, error: 0.0 }
}

const INDEPENDENT: Voters = Voters::Independent { error: 0.1 };

#[test]
fn published_values_are_met() {
    near(unanimous_wrong(0.1, 3), 1e-3, 1e-15);
    near(wrong_given_accepted(0.1, 3), 1.0 / 730.0, 1e-14);
    assert_eq!(format!("{:.2}", votes_mean(0.1, 3)), "3.74");
    assert_eq!(lead_needed(0.1, 1e-6), Some(7));
    assert_eq!(format!("{:.5}", first_to_wrong(0.1, 3)), "0.00856");
    two_digits(first_to_wrong(0.1, 5), 8.9e-4);
    two_digits(unanimous_wrong_correlated(0.1, 0.1, 3), 5.0e-3);
    two_digits(wrong_given_accepted_correlated(0.1, 0.1, 3, 0), 6.6e-3);
    two_digits(dishonest_drawn(100, 20, 3, 3), 7.1e-3);
    two_digits(dishonest_drawn(100, 33, 21, 14), 4.1e-4);
    two_digits(dishonest_drawn(100, 20, 15, 6), 4.6e-2);
    two_digits(outcome(6, 15, dishonest(100, 20)).wrong, 8.1e-5);
    two_digits(outcome(6, 15, INDEPENDENT).no_agreement, 7.8e-3);
    two_digits(outcome(6, 24, INDEPENDENT).no_agreement, 3.4e-5);
    near(error_estimate(17, 2), 3.0 / 21.0, 1e-15);
    assert_eq!(error_estimate(0, 0), 0.5);
}

#[test]
fn a_thousand_votes_and_nodes_that_never_err_are_certain() {
    assert_eq!(wrong_given_accepted(0.1, 1000), 0.0);
    near(wrong_given_accepted(0.4, 1000), (2.0 / 3.0_f64).powi(1000), 1e-10);
    assert_eq!(wrong_given_accepted(0.0, 1000), 0.0);
    assert_eq!(wrong_given_accepted(0.0, 0), 0.5);
    assert_eq!((unanimous_wrong(0.0, 0), unanimous_wrong(0.0, 1)), (1.0, 0.0));
    assert_eq!(votes_mean(0.0, 1000), 1000.0);
    assert_eq!((votes_mean(0.0, 0), votes_mean(0.5, 0)), (0.0, 0.0));
    assert_eq!(first_to_wrong(0.0, 5), 0.0);
    near(votes_mean(0.1, 1000), 1250.0, 1e-15);
}

#[test]
fn nodes_that_are_hardly_better_than_a_coin_are_worth_a_coin() {
    let error = 0.5_f64.next_down();
    near(wrong_given_accepted(error, 10), 0.5, 1e-14);
    near(votes_mean(error, 10), 100.0, 1e-14);
    assert_eq!(votes_mean(0.5, 10), 100.0);
    near(first_to_wrong(error, 10), 0.5, 1e-13);
    assert_eq!(lead_needed(error, 1e-6), None);
    assert_eq!(lead_needed(0.5, 0.49), None);
    assert_eq!(lead_needed(0.5, 0.5), Some(1));
    assert_eq!(lead_needed(0.4, 0.0), None);
    assert_eq!(lead_needed(0.0, 0.0), Some(1));
}

#[test]
fn lead_needed_is_the_smallest_that_is_enough() {
    for error in [0.001, 0.01, 0.1, 0.25, 0.4, 0.49] {
        for target in [0.4, 0.1, 1e-3, 1e-6, 1e-9, 1e-15, 1e-300] {
            let lead = lead_needed(error, target).unwrap();
            assert!(wrong_given_accepted(error, lead) <= target, "{error} {target}");
            assert!(
                lead == 1 || wrong_given_accepted(error, lead - 1) > target,
                "{error} {target}"
            );
        }
        for lead in 1..100 {
            // Right on the edge, where a quotient of logarithms may round either way.
            assert_eq!(lead_needed(error, wrong_given_accepted(error, lead)), Some(lead));
        }
    }
}

#[test]
fn figures_grow_with_error_and_correlation_and_fall_with_lead() {
    let errors = (0..50).map(|i| f64::from(i) / 100.0);
    for (smaller, larger) in errors.clone().zip(errors.skip(1)) {
        for lead in [1, 2, 3, 6, 20] {
            let of = |error, lead| {
                [
                    unanimous_wrong(error, lead),
                    wrong_given_accepted(error, lead),
                    unanimous_wrong_correlated(error, 0.1, lead),
                    wrong_given_accepted_correlated(error, 0.1, lead + 2, 2),
                    outcome(lead, 4 * lead, Voters::Independent { error }).wrong,
                    outcome(lead, 4 * lead, Voters::Correlated { error, correlation: 0.1 }).wrong,
                ]
            };
            let pairs = of(smaller, lead).into_iter().zip(of(larger, lead));
            assert!(pairs.clone().all(|(less, more)| less < more), "{larger} {lead}");
            let pairs = of(larger, lead).into_iter().zip(of(larger, lead + 1));
            assert!(pairs.clone().all(|(more, less)| less < more), "{larger} {lead}");
        }
    }
    let rhos = (0..=100).map(|i| f64::from(i) / 100.0);
    for (smaller, larger) in rhos.clone().zip(rhos.skip(1)) {
        let of = |rho| {
            let walk = outcome(3, 12, Voters::Correlated { error: 0.1, correlation: rho });
            [
                unanimous_wrong_correlated(0.1, rho, 4),
                wrong_given_accepted_correlated(0.1, rho, 5, 1),
                walk.wrong,
            ]
        };
        assert!(of(smaller).into_iter().zip(of(larger)).all(|(a, b)| a < b), "{larger}");
    }
    for bad in 0..100 {
        let [less, more] = [bad, bad + 1].map(|bad| outcome(3, 12, dishonest(100, bad)).wrong);
        assert!(less <= more + f64::EPSILON, "{bad}");
        let [less, more] = [bad, bad + 1].map(|bad| dishonest_drawn(100, bad, 12, 3));
        assert!(less <= more, "{bad}");
    }
}

/// The product of (start + k * step) for k below n, as an urn gives it.
fn rising(start: f64, step: f64, n: u32) -> f64 {
    (0..n).map(|k| start + f64::from(k) * step).product()
}

#[test]
fn correlation_goes_over_into_independence_and_into_one_node() {
    for (agree, dissent) in [(1, 0), (3, 0), (6, 0), (5, 2), (9, 6), (3000, 2990), (2995, 5)] {
        let wald = wrong_given_accepted(0.3, agree - dissent);
        near(wrong_given_accepted_correlated(0.3, 0.0, agree, dissent), wald, 1e-9);
        near(wrong_given_accepted_correlated(0.3, 1e-14, agree, dissent), wald, 1e-6);
        near(unanimous_wrong_correlated(0.3, 0.0, agree), unanimous_wrong(0.3, agree), 1e-9);
        // All nodes are one: a second vote says nothing, and dissent that the model is wrong.
        let one = if dissent == 0 { 0.3 } else { 0.5 };
        near(wrong_given_accepted_correlated(0.3, 1.0, agree, dissent), one, 1e-15);
        near(unanimous_wrong_correlated(0.3, 1.0, agree), 0.3, 1e-15);
        // Beta functions of A + a and B + w are, but for a common factor, rising products.
        let (rho, few) = (0.2, agree <= 9);
        let [a, b] = [0.3, 0.7].map(|part| part * (1.0 / rho - 1.0));
        let wrong = rising(a, 1.0, agree) * rising(b, 1.0, dissent);
        let right = rising(a, 1.0, dissent) * rising(b, 1.0, agree);
        if few {
            let found = wrong_given_accepted_correlated(0.3, rho, agree, dissent);
            near(found, wrong / (wrong + right), 1e-13);
            let found = wrong_given_accepted_correlated(0.3, rho, dissent, agree);
            near(found, right / (wrong + right), 1e-13);
            let all = rising(a, 1.0, agree) / rising(a + b, 1.0, agree);
            near(unanimous_wrong_correlated(0.3, rho, agree), all, 1e-13);
        }
    }
    assert_eq!(wrong_given_accepted_correlated(0.1, 0.1, 4, 4), 0.5);
    assert_eq!(unanimous_wrong_correlated(0.1, 0.1, 0), 1.0);
}

#[test]
fn blocks_of_votes_make_no_figure_smaller_and_hardly_larger() {
    let (error, rho) = (0.45, 0.01);
    let singly: f64 = (0..200_000)
        .map(|k| {
            let k = f64::from(k) * rho / (1.0 - rho);
            ((1.0 - error + k) / (error + k)).ln()
        })
        .sum();
    let expected = 1.0 / (1.0 + singly.exp());
    let found = wrong_given_accepted_correlated(error, rho, 200_000, 0);
    assert!(found > expected, "{found} {expected}");
    near(found, expected, 1e-5);
}

#[derive(Clone, Copy, PartialEq)]
enum Node {
    Right,
    Errs,
    Dishonest,
}

fn count(nodes: &[Node], which: Node) -> u32 {
    u32::try_from(nodes.iter().filter(|node| **node == which).count()).unwrap()
}

struct Case {
    lead: u32,
    nodes_max: u32,
    voters: Voters,
}

impl Case {
    fn candidates(&self) -> u32 {
        if let Voters::Dishonest { nodes, .. } = self.voters { nodes } else { u32::MAX }
    }

    /// The probability that the next node is of this kind, by an urn of which these are drawn.
    fn urn(&self, drawn: &[Node], next: Node) -> f64 {
        let n = f64::from(u32::try_from(drawn.len()).unwrap());
        let (dishonest, error) = match self.voters {
            Voters::Independent { error } => (0.0, error),
            Voters::Correlated { error, correlation: 0.0 } => (0.0, error),
            Voters::Correlated { error, .. } if drawn.is_empty() => (0.0, error),
            Voters::Correlated { error, correlation } => {
                let balls = 1.0 / correlation - 1.0;
                (0.0, (error * balls + f64::from(count(drawn, Node::Errs))) / (balls + n))
            }
            Voters::Dishonest { nodes, dishonest, error } => {
                let left = dishonest - count(drawn, Node::Dishonest);
                (f64::from(left) / (f64::from(nodes) - n), error)
            }
        };
        match next {
            Node::Dishonest => dishonest,
            Node::Errs => (1.0 - dishonest) * error,
            Node::Right => (1.0 - dishonest) * (1.0 - error),
        }
    }

    /// Draws every sequence of nodes, `left` more in this round, and adds up how each ends. This one has
    /// the probability `p` so far.
    fn enumerate(&self, drawn: &mut Vec<Node>, left: u32, p: f64, sum: &mut Outcome) {
        if p == 0.0 {
            return;
        }
        if left > 0 {
            for next in [Node::Right, Node::Errs, Node::Dishonest] {
                let p = p * self.urn(drawn, next);
                drawn.push(next);
                self.enumerate(drawn, left - 1, p, sum);
                drawn.pop();
            }
            return;
        }
        let n = u32::try_from(drawn.len()).unwrap();
        let right = count(drawn, Node::Right);
        let gap = right.abs_diff(n - right);
        if gap >= self.lead {
            *(if right > n - right { &mut sum.right } else { &mut sum.wrong }) += p;
        } else if n + self.lead - gap > self.nodes_max || self.candidates() - n < self.lead - gap {
            sum.no_agreement += p;
        } else {
            return self.enumerate(drawn, self.lead - gap, p, sum);
        }
        sum.executions += p * f64::from(n);
    }
}

#[test]
fn rounds_end_as_every_sequence_of_votes_says() {
    let mut voters = vec![
        Voters::Independent { error: 0.0 },
        Voters::Independent { error: 0.1 },
        Voters::Independent { error: 0.45 },
        Voters::Independent { error: 1.0 },
        Voters::Correlated { error: 0.2, correlation: 0.0 },
        Voters::Correlated { error: 0.2, correlation: 0.3 },
        Voters::Correlated { error: 0.2, correlation: 1.0 },
    ];
    for nodes in [1, 2, 3, 5, 8, 100] {
        for part in [0, 1, 2, 5, 8] {
            for error in [0.0, 0.2, 1.0] {
                voters.push(Voters::Dishonest { nodes, dishonest: part.min(nodes), error });
            }
        }
    }
    for lead in 1..=4 {
        for nodes_max in lead..=9 {
            for voters in &voters {
                let case = Case { lead, nodes_max, voters: *voters };
                let mut expected = Outcome::default();
                if lead <= case.candidates() {
                    case.enumerate(&mut Vec::new(), lead, 1.0, &mut expected);
                } else {
                    expected.no_agreement = 1.0;
                }
                let found = outcome(lead, nodes_max, *voters);
                for (found, expected) in [
                    (found.right, expected.right),
                    (found.wrong, expected.wrong),
                    (found.no_agreement, expected.no_agreement),
                    (found.executions, expected.executions),
                ] {
                    let close = (found - expected).abs() <= 1e-12 * expected + 1e-16;
                    assert!(close, "{found} {expected}: {lead} of {nodes_max}, {voters:?}");
                }
            }
        }
    }
}

#[test]
fn stopping_at_nodes_max_leaves_what_is_wrong_among_the_accepted() {
    for (lead, nodes_max) in [(1, 1), (2, 5), (6, 15), (6, 24), (10, 11), (128, 512)] {
        for error in [0.01, 0.1, 0.3, 0.49] {
            let outcome = outcome(lead, nodes_max, Voters::Independent { error });
            near(outcome.wrong_given_accepted(), wrong_given_accepted(error, lead), 1e-9);
            near(outcome.right + outcome.wrong + outcome.no_agreement, 1.0, 1e-12);
        }
    }
    near(outcome(6, 512, INDEPENDENT).executions, votes_mean(0.1, 6), 1e-12);
    // As many registered nodes as there can be are an urn that hardly changes.
    let voters = Voters::Dishonest { nodes: u32::MAX, dishonest: u32::MAX / 10, error: 0.0 };
    near(outcome(6, 24, voters).wrong, outcome(6, 24, INDEPENDENT).wrong, 1e-6);
    let voters = Voters::Dishonest { nodes: u32::MAX, dishonest: u32::MAX / 20, error: 0.05 };
    let sum = Voters::Independent { error: 0.05 + 0.95 * 0.05 };
    near(outcome(6, 24, voters).wrong, outcome(6, 24, sum).wrong, 1e-6);
}

#[test]
fn a_committee_that_must_be_unanimous_is_the_first_round() {
    for (nodes, bad, lead) in [(100, 20, 3), (100, 33, 6), (7, 7, 7), (7, 2, 3)] {
        let walk = outcome(lead, lead, dishonest(nodes, bad));
        near(walk.wrong, dishonest_drawn(nodes, bad, lead, lead), 1e-12);
        assert_eq!(walk.executions, f64::from(lead));
    }
}

/// `n` choose `k`.
fn choose(n: u32, k: u32) -> f64 {
    if k > n { 0.0 } else { (0..k).map(|i| f64::from(n - i) / f64::from(i + 1)).product() }
}

#[test]
fn tails_are_sums_of_all_their_terms() {
    for nodes in [0, 1, 2, 7, 8, 9, 40] {
        for bad in 0..=nodes {
            for drawn in 0..=nodes {
                for agree in 0..=nodes + 1 {
                    let ways = |k| choose(bad, k) * choose(nodes - bad, drawn - k);
                    let tail: f64 = (agree..=drawn).map(ways).sum::<f64>() / choose(nodes, drawn);
                    near(dishonest_drawn(nodes, bad, drawn, agree), tail, 1e-11);
                }
            }
        }
    }
    for count in [1, 2, 3, 10, 60] {
        for error in [0.001, 0.1, 0.4, 0.5, 0.9, 1.0] {
            // By the vote that decides: count - 1 wrong ones and some right ones before it.
            let last = |right| {
                choose(count - 1 + right, right)
                    * f64::powi(1.0 - error, right.cast_signed())
                    * f64::powi(error, count.cast_signed())
            };
            near(first_to_wrong(error, count), (0..count).map(last).sum(), 1e-11);
        }
    }
}

#[test]
fn transitions_add_up_without_cancelling() {
    near(some_task(1e-20, 1000), 1e-17, 1e-14);
    near(some_task(0.25, 2), 0.4375, 1e-15);
    assert_eq!((some_task(1.0, 0), some_task(0.0, u32::MAX), some_task(1.0, 5)), (0.0, 0.0, 1.0));
    near(bounds_sum([1e-3, 2e-3, 3e-3]), 6e-3, 1e-15);
    assert_eq!(bounds_sum([]), 0.0);
    assert_eq!(bounds_sum([0.7, 0.7]), 1.0);
    assert_eq!(bounds_sum([0.0, f64::NAN]), 1.0);
    assert_eq!(bounds_sum([-3.0, f64::INFINITY]), 1.0);
}

#[test]
fn rounds_are_limited() {
    let max = ROUNDS_NODES_MAX;
    for (lead, nodes_max) in [(0, 0), (0, 5), (3, 2), (1, max + 1), (max + 1, max + 1)] {
        assert_eq!(Rounds::new(lead, nodes_max), None);
    }
    for (lead, nodes_max) in [(1, 1), (max, max), (1, max), (max / 2, max)] {
        let found = outcome(lead, nodes_max, dishonest(1000, 300));
        near(found.right + found.wrong + found.no_agreement, 1.0, 1e-12);
    }
}

#[test]
fn whatever_is_asked_the_answer_is_a_figure() {
    let reals = [
        0.0,
        -0.0,
        f64::MIN_POSITIVE,
        5e-324,
        1e-17,
        0.1,
        0.5_f64.next_down(),
        0.5,
        0.5_f64.next_up(),
        1.0_f64.next_down(),
        1.0,
        1.5,
        -1.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];
    let counts = [0, 1, 2, 3, 64, 1000, 2048, 1 << 31, u32::MAX - 1, u32::MAX];
    let is = |p: f64| assert!((0.0..=1.0).contains(&p), "{p}");
    for error in reals {
        for n in counts {
            is(unanimous_wrong(error, n));
            is(wrong_given_accepted(error, n));
            is(first_to_wrong(error, n));
            is(some_task(error, n));
            let (mean, least) = (votes_mean(error, n), f64::from(n));
            assert!(
                (least - 1e-12 * least..=least * least * (1.0 + 1e-12)).contains(&mean),
                "{error} {n}: {mean}"
            );
            for other in reals {
                is(unanimous_wrong_correlated(error, other, n));
                let _ = lead_needed(error, other);
                for m in counts {
                    is(wrong_given_accepted_correlated(error, other, n, m));
                }
            }
            for m in counts {
                let voters = Voters::Dishonest { nodes: n, dishonest: m, error };
                let found = outcome(5, 13, voters);
                near(found.right + found.wrong + found.no_agreement, 1.0, 1e-12);
                is(found.wrong_given_accepted());
                assert!((0.0..=13.0).contains(&found.executions));
            }
        }
        for other in reals {
            let found = outcome(5, 13, Voters::Correlated { error, correlation: other });
            near(found.right + found.wrong + found.no_agreement, 1.0, 1e-12);
            is(found.wrong_given_accepted());
        }
    }
    for nodes in counts {
        for bad in counts {
            for drawn in counts {
                for agree in counts {
                    is(dishonest_drawn(nodes, bad, drawn, agree));
                }
            }
        }
    }
    is(error_estimate(u64::MAX, u64::MAX));
}

/// How many of `tasks` end wrong and how many without agreement, when a seeded machine draws the nodes.
fn simulate(lead: usize, nodes_max: usize, bad: usize, error: f64, tasks: u32) -> [u32; 2] {
    const NODES: usize = 60;
    let mut random = fastrand::Rng::with_seed(54);
    let [mut wrong, mut none] = [0, 0];
    for _ in 0..tasks {
        let mut nodes: Vec<usize> = (0..NODES).collect();
        random.shuffle(&mut nodes);
        let mut votes = [0_usize; 2];
        let mut drawn = 0;
        loop {
            let gap = votes[0].abs_diff(votes[1]);
            if gap >= lead {
                wrong += u32::from(votes[1] > votes[0]);
                break;
            }
            if drawn + lead - gap > nodes_max {
                none += 1;
                break;
            }
            for node in nodes.drain(..lead - gap) {
                votes[usize::from(node < bad || random.f64() < error)] += 1;
            }
            drawn += lead - gap;
        }
    }
    [wrong, none]
}

#[test]
fn rounds_end_as_a_simulation_says_with_dishonest_nodes_and_errors_together() {
    const TASKS: u32 = 200_000;
    for (lead, nodes_max, bad, error) in [(2, 8, 10, 0.1), (3, 12, 12, 0.05), (4, 30, 6, 0.2)] {
        let voters = Voters::Dishonest { nodes: 60, dishonest: u32::try_from(bad).unwrap(), error };
        let expected = outcome(lead, nodes_max, voters);
        let found = simulate(lead as usize, nodes_max as usize, bad, error, TASKS);
        for (found, p) in found.into_iter().zip([expected.wrong, expected.no_agreement]) {
            let mean = f64::from(TASKS) * p;
            let sigmas = (f64::from(found) - mean).abs() / (mean * (1.0 - p)).sqrt();
            assert!(sigmas < 4.5, "{found} for {mean}: {sigmas} standard deviations");
        }
    }
}
