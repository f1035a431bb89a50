//! What faulty nodes cost: executions, missed pledges, time; and their own scores.

use std::{collections::BTreeMap, io::Write};

use anwansi_client::{
    At, Client,
    proofs::{Next, NodeKey, Pledge, Tally, Vote, agreement::error_estimate, registry::Score},
};

use super::{
    DemoError, grouped,
    nodes::{Kind, Nodes},
    votes::leaves,
    words::Counted,
};

/// Prints what the transition cost, counted from its evidence, and the scores that the registry has since.
pub(super) fn show(
    client: &Client,
    nodes: &Nodes,
    counted: &Counted,
    out: &mut impl Write,
) -> Result<(), DemoError> {
    executions(nodes, counted, out)?;
    waiting(nodes, counted, out)?;
    scores(client, nodes, counted, out)
}

fn executions(nodes: &Nodes, counted: &Counted, out: &mut impl Write) -> Result<(), DemoError> {
    let tasks = &counted.evidence.agreed.tasks;
    let sum = |of: fn(&anwansi_client::proofs::Recounted) -> u32| tasks.iter().map(of).sum::<u32>();
    let (drawn, missed, faults) =
        (sum(|task| task.drawn), sum(|task| task.missed), sum(|task| task.faults));
    let ran = drawn - missed;
    let each = |count: u32| f64::from(count) / f64::from(counted.spec.tasks());
    let least = counted.spec.policy.lead * counted.spec.tasks();
    let all = u32::try_from(nodes.count()).unwrap_or(u32::MAX) * counted.spec.tasks();
    writeln!(
        out,
        "cost     {} executions, {:.1} a task: {} more than the {:.1} a task without any fault",
        grouped(ran as usize),
        each(ran),
        grouped((ran - least.min(ran)) as usize),
        each(least),
    )?;
    writeln!(
        out,
        "         {} on all {} nodes: {:.1} times as many",
        grouped(all as usize),
        nodes.count(),
        f64::from(all) / f64::from(ran),
    )?;
    writeln!(
        out,
        "         {} drawn, of which {missed} did not pledge and {faults} pledged and have no vote",
        grouped(drawn as usize),
    )?;
    Ok(())
}

/// How long rounds waited for nodes in vain.
#[derive(Default)]
struct Waited {
    rounds: u32,
    /// Rounds that waited for a pledge, or for a reveal, until the time was up.
    in_vain: u32,
    /// Of the task that waited longest.
    ms_max: u32,
}

fn waiting(nodes: &Nodes, counted: &Counted, out: &mut impl Write) -> Result<(), DemoError> {
    let Waited { rounds, in_vain, ms_max } = waited(nodes, counted)?;
    writeln!(
        out,
        "waiting  {in_vain} of {rounds} rounds ran until their time was up; the slowest chapter waited so \
         {:.1} s of the {:.1} s\n",
        f64::from(ms_max) / 1e3,
        counted.took.as_secs_f64(),
    )?;
    Ok(())
}

/// Goes through all rounds once more, as their evidence shows them.
fn waited(nodes: &Nodes, counted: &Counted) -> Result<Waited, DemoError> {
    let policy = &counted.spec.policy;
    let damaged = || DemoError::Unexpected("the evidence is not what was verified".into());
    let signs_two = |node: &NodeKey| nodes.kind(node) == Some(Kind::SignsTwo);
    let mut all = Waited::default();
    for (index, task) in counted.evidence.agreed.tasks.iter().enumerate() {
        let votes = Vote::read_all(&leaves(&counted.members, "votes", &index.to_string())?);
        let votes = votes.ok_or_else(damaged)?;
        let (mut tally, mut next) = (Tally::default(), Next::Draw(policy.lead));
        let mut ms = 0;
        for round in 0..task.rounds {
            let Next::Draw(drawn) = next else { return Err(damaged()) };
            let name = format!("{index}/{round}");
            let pledges = Pledge::read_all(&leaves(&counted.members, "pledges", &name)?);
            let pledges = pledges.ok_or_else(damaged)?;
            let cast = votes.iter().filter(|vote| vote.round == round).collect::<Vec<_>>();
            // Nobody waits for the reveal of a node that has signed two pledges.
            let has_vote = |pledge: &Pledge| cast.iter().any(|vote| vote.pledge == *pledge);
            let awaited = |pledge: &Pledge| !has_vote(pledge) && !signs_two(&pledge.node);
            let for_pledges = drawn as usize > pledges.len();
            let for_reveals = pledges.iter().any(awaited);
            all.rounds += 1;
            all.in_vain += u32::from(for_pledges || for_reveals);
            ms += u32::from(for_pledges) * policy.pledge_ms;
            ms += u32::from(for_reveals) * policy.reveal_ms;
            let digests = cast.iter().map(|vote| &vote.digest);
            next = tally.end_round(drawn, digests, usize::MAX, policy);
        }
        all.ms_max = all.ms_max.max(ms);
    }
    Ok(all)
}

/// A line for each kind of node.
fn scores(
    client: &Client,
    nodes: &Nodes,
    counted: &Counted,
    out: &mut impl Write,
) -> Result<(), DemoError> {
    let mut scores = BTreeMap::new();
    for node in client.nodes(At::Version(counted.decision.decided))?.value {
        if let Some(kind) = nodes.kind(&node.key) {
            let score: &mut Score = scores.entry(kind).or_default();
            *score = node.score.added_to(score);
        }
    }
    writeln!(
        out,
        "scores   {:27}{:>6}{:>11}{:>8}{:>11}{:>12}{:>13}{:>9}",
        "of nodes that",
        "agreed",
        "dissented",
        "missed",
        "no reveal",
        "bad reveal",
        "two pledges",
        "errs in",
    )?;
    let late = scores.get(&Kind::Honest).map_or(0, |score| score.missed);
    for (kind, score) in scores {
        let (valid, faulty) = score.successes_and_failures();
        let errs = match valid + faulty {
            0 => "?".into(),
            _ => format!("{:.1} %", 100.0 * error_estimate(valid, faulty)),
        };
        writeln!(
            out,
            "         {:27}{:>6}{:>11}{:>8}{:>11}{:>12}{:>13}{errs:>9}",
            format!("{} ({})", kind.name(), kind.count()),
            score.agreed,
            score.dissented,
            score.missed,
            score.no_reveal,
            score.bad_reveal,
            score.equivocated,
        )?;
    }
    writeln!(
        out,
        "         (from the registry of version {}, since they joined; the last column is an estimate, for \
         which to miss\n         is no error)",
        counted.decision.decided,
    )?;
    if late > 0 {
        writeln!(
            out,
            "         {late} times a node that does its part was too late: this machine is too slow for {} ms; \
             what\n         it ran then is not in the cost",
            counted.spec.policy.pledge_ms,
        )?;
    }
    writeln!(out)?;
    Ok(())
}
