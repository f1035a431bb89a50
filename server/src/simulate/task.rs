//! One task after the other: nodes are drawn, vote, and a rule decides.

use anwansi_proofs::agreement::Voters;
use fastrand::Rng;

/// How a task is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// When an answer is `lead` votes ahead, in rounds, with no more than `nodes_max` nodes: the ledger's
    /// rule.
    Lead { lead: u32, nodes_max: u32 },
    /// When an answer has `count` votes.
    FirstTo { count: u32 },
    /// When all of `nodes` nodes, an odd number, have run it: as most of them say.
    Replicas { nodes: u32 },
}

/// What happened to the tasks of a case.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) tasks: u32,
    /// Tasks of which a wrong result was accepted.
    pub(super) wrong: u32,
    /// Tasks of which none was.
    pub(super) no_agreement: u32,
    /// Executions of all tasks together, and their squares.
    pub(super) executions: u64,
    pub(super) squares: u64,
}

/// Plays tasks of one kind.
pub(super) fn play(rule: Rule, voters: Voters, tasks: u32, chance: &mut Rng) -> Tally {
    let mut nodes = Nodes::new(voters);
    let mut tally = Tally { tasks, ..Tally::default() };
    for _ in 0..tasks {
        nodes.start(chance);
        let mut cast = Votes::default();
        match decide(rule, &mut nodes, &mut cast, chance) {
            None => tally.no_agreement += 1,
            Some(Vote::Wrong) => tally.wrong += 1,
            Some(Vote::Right) => {}
        }
        let executions = u64::from(cast.right + cast.wrong);
        tally.executions += executions;
        tally.squares += executions * executions;
    }
    tally
}

#[derive(Clone, Copy)]
enum Vote {
    Right,
    Wrong,
}

/// The votes of a task. All wrong ones are for the same answer, which is the worst that they can be.
#[derive(Default)]
struct Votes {
    right: u32,
    wrong: u32,
}

impl Votes {
    fn leader(&self) -> Vote {
        if self.wrong > self.right { Vote::Wrong } else { Vote::Right }
    }
}

/// Draws nodes until the rule decides; `None` if it ends without agreement.
fn decide(rule: Rule, nodes: &mut Nodes, votes: &mut Votes, chance: &mut Rng) -> Option<Vote> {
    let mut round = |votes: &mut Votes, draws: u32| {
        for _ in 0..draws {
            match nodes.draw(chance)? {
                Vote::Right => votes.right += 1,
                Vote::Wrong => votes.wrong += 1,
            }
        }
        Some(())
    };
    match rule {
        Rule::Lead { lead, nodes_max } => loop {
            let gap = votes.right.abs_diff(votes.wrong);
            if gap >= lead {
                return Some(votes.leader());
            }
            if votes.right + votes.wrong + lead - gap > nodes_max {
                return None;
            }
            round(votes, lead - gap)?;
        },
        Rule::FirstTo { count } => {
            while votes.right.max(votes.wrong) < count {
                round(votes, 1)?;
            }
            Some(votes.leader())
        }
        Rule::Replicas { nodes } => {
            round(votes, nodes)?;
            Some(votes.leader())
        }
    }
}

/// The nodes that one task after the other draws from.
struct Nodes {
    voters: Voters,
    /// The error of this task's nodes.
    error: f64,
    /// Which of the registered nodes are dishonest; those drawn for this task come first. It is never put
    /// back in order: the next task draws from all of it again.
    dishonest: Vec<bool>,
    drawn: usize,
}

impl Nodes {
    fn new(voters: Voters) -> Self {
        let dishonest = match voters {
            Voters::Dishonest { nodes, dishonest, .. } => {
                (0..nodes).map(|node| node < dishonest).collect()
            }
            Voters::Independent { .. } | Voters::Correlated { .. } => Vec::new(),
        };
        Nodes { voters, error: 0.0, dishonest, drawn: 0 }
    }

    /// Begins a task: all nodes are there again.
    fn start(&mut self, chance: &mut Rng) {
        self.drawn = 0;
        self.error = match self.voters {
            Voters::Independent { error } | Voters::Dishonest { error, .. } => error,
            Voters::Correlated { error, correlation } => {
                let scale = 1.0 / correlation - 1.0;
                let wrong = gamma(error * scale, chance);
                wrong / (wrong + gamma((1.0 - error) * scale, chance))
            }
        };
    }

    /// One more node's vote; `None` if all are drawn.
    fn draw(&mut self, chance: &mut Rng) -> Option<Vote> {
        let dishonest = matches!(self.voters, Voters::Dishonest { .. }) && {
            if self.drawn == self.dishonest.len() {
                return None;
            }
            let at = chance.usize(self.drawn..self.dishonest.len());
            self.dishonest.swap(self.drawn, at);
            self.drawn += 1;
            self.dishonest[self.drawn - 1]
        };
        let wrong = dishonest || chance.f64() < self.error;
        Some(if wrong { Vote::Wrong } else { Vote::Right })
    }
}

/// A number drawn from the gamma distribution of this shape; two of them, one over the sum of both, are
/// beta-distributed. Source: Marsaglia and Tsang, A Simple Method for Generating Gamma Variables, 2000.
fn gamma(shape: f64, chance: &mut Rng) -> f64 {
    if shape < 1.0 {
        return gamma(shape + 1.0, chance) * chance.f64().powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    loop {
        // Box and Muller's normal number; 1 less a number below 1 has a logarithm.
        let radius = (-2.0 * (1.0 - chance.f64()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * chance.f64()).cos();
        let v = (1.0 + normal / (9.0 * d).sqrt()).powi(3);
        if v > 0.0 && (1.0 - chance.f64()).ln() < normal * normal / 2.0 + d * (1.0 - v + v.ln()) {
            return d * v;
        }
    }
}
