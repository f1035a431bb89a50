//! What the votes prove: evidence checked level by level, what it means, and that a forgery is refused.

use std::{collections::BTreeMap, io::Write};

use anwansi_client::{
    Client, no_agreement,
    proofs::{
        Checked, Digest, Evidence, Finding, Json, Level, Recounted, Refused, Vote,
        agreement::{Rounds, Voters, bounds_sum, wrong_given_accepted},
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{
    DemoError, book, expect, grouped,
    words::{Counted, INTO},
};

/// Words to look up.
const WORDS: [&str; 3] = ["whale", "ahab", "sea"];

/// Checks the evidence as anyone can who has the log's key, and shows what follows from it.
pub(super) fn show(
    client: &Client,
    chapters: &[String],
    counted: &Counted,
    out: &mut impl Write,
) -> Result<(), DemoError> {
    let evidence = &counted.evidence.evidence;
    let checked = evidence.check(client.policy()).map_err(|error| refused(&error))?;
    levels(evidence, &checked, out)?;
    leads(&counted.evidence.agreed.tasks, out)?;
    words(&checked, counted, out)?;
    compare(&checked, chapters, out)?;
    model(counted, out)?;
    tamper(client, counted, out)
}

/// The bytes under `name` in a member of evidence.
pub(super) fn leaves(members: &Value, member: &str, name: &str) -> Result<Vec<u8>, DemoError> {
    let bytes = members[member][name].as_str().and_then(|text| STANDARD.decode(text).ok());
    bytes.ok_or_else(|| DemoError::Unexpected(format!("no {member} of {name} in the evidence")))
}

fn refused(error: &Refused) -> DemoError {
    DemoError::Unexpected(format!("the evidence is refused: {error}"))
}

fn levels(
    evidence: &Evidence,
    checked: &Checked<'_>,
    out: &mut impl Write,
) -> Result<(), DemoError> {
    let bytes = evidence.to_json().len();
    writeln!(out, "evidence {} bytes, checked by the client without the server:", grouped(bytes))?;
    let levels = [
        (Level::Finality, "finality", "the versions are in the log that the client trusts"),
        (Level::Inclusion, "inclusion", "every proof leads to the root of its version"),
        (
            Level::Agreement,
            "agreement",
            "every vote was drawn, pledged, signed and opened: recounted",
        ),
        (Level::Aggregate, "aggregate", "the chapters' counts, added up again, are in the state"),
    ];
    for (level, name, meaning) in levels {
        let verified = checked.finding(level) == Finding::Verified;
        expect(verified, || format!("the level {name} is not shown"))?;
        writeln!(out, "         {name:10} verified   {meaning}")?;
    }
    Ok(())
}

/// The votes for the result and for each other one: `7 to 1`.
fn standing(task: &Recounted) -> String {
    let others = task.dissent.iter().map(|(_, votes)| votes.to_string()).collect::<Vec<_>>();
    let others = if others.is_empty() { "0".into() } else { others.join(" and ") };
    format!("{} to {others}", task.agree)
}

/// How many votes ahead a task's result is.
fn lead(task: &Recounted) -> u32 {
    task.agree - task.dissent.first().map_or(0, |(_, votes)| *votes)
}

fn leads(tasks: &[Recounted], out: &mut impl Write) -> Result<(), DemoError> {
    let mut chapters = BTreeMap::new();
    for task in tasks {
        let dissent = task.dissent.iter().map(|(_, votes)| votes).sum::<u32>();
        *chapters.entry((dissent, standing(task))).or_insert(0) += 1;
    }
    let votes = chapters.iter().map(|((_, votes), count)| format!("{votes} in {count}"));
    let votes = votes.collect::<Vec<_>>().join("; ");
    let least = tasks.iter().map(lead).min().unwrap_or_default();
    writeln!(out, "votes    {least} ahead in each chapter, at least: {votes}")?;
    Ok(())
}

/// Looks some words up: in the state, and in the results of the chapters.
fn words(checked: &Checked<'_>, counted: &Counted, out: &mut impl Write) -> Result<(), DemoError> {
    let tasks = &counted.evidence.agreed.tasks;
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        let digest = task.digest.map(|digest| digest.to_string()).unwrap_or_default();
        let result = Json::parse(&leaves(&counted.members, "outputs", &digest)?);
        results.push(result.map_err(anwansi_client::Error::from)?);
    }
    let version = checked.version().header().version();
    let state = checked.version().state();
    let state = state.ok_or_else(|| DemoError::Unexpected("no proof of the state".into()))?;
    for word in WORDS {
        let key = format!("{INTO}/{word}");
        let value = state.get(key.as_bytes()).map_err(anwansi_client::Error::from)?;
        let value = value.map_or("absent".into(), String::from_utf8_lossy);
        let of = |result: &Json| result.as_object()?.get(word)?.as_u64();
        let counts = results.iter().map(|result| of(result).unwrap_or(0));
        let most = counts.zip(tasks).zip(1..).max_by_key(|((count, _), _)| *count);
        let most = most.filter(|((count, _), _)| *count > 0).map(|((count, task), chapter)| {
            format!("; most in chapter {chapter}: {count}, by {} votes", standing(task))
        });
        let most = most.unwrap_or_default();
        writeln!(out, "get      {key} = {value}   (version {version}, verified{most})")?;
    }
    Ok(())
}

/// Compares every count with those that the demo finds itself.
fn compare(
    checked: &Checked<'_>,
    chapters: &[String],
    out: &mut impl Write,
) -> Result<(), DemoError> {
    let expected = book::count(chapters);
    let words = expected.len();
    let found = checked.value().and_then(Json::as_object).into_iter().flatten();
    let found = found.map(|(word, count)| Some((word.clone(), count.as_u64()?)));
    let found = found.collect::<Option<BTreeMap<_, _>>>();
    expect(found.as_ref() == Some(&expected), || "the counts are wrong".into())?;
    writeln!(
        out,
        "right    all {} counts are those of one pass over the book, made here without any node\n",
        grouped(words),
    )?;
    Ok(())
}

/// What the model says of such a transition, and what happened.
fn model(counted: &Counted, out: &mut impl Write) -> Result<(), DemoError> {
    let (spec, tasks) = (&counted.spec, &counted.evidence.agreed.tasks);
    let (policy, error, count) = (&spec.policy, spec.policy.error(), spec.tasks());
    let wrong = wrong_given_accepted(error, policy.lead);
    let bound = bounds_sum(tasks.iter().map(|task| wrong_given_accepted(error, lead(task))));
    let rounds = Rounds::new(policy.lead, policy.nodes_max).expect("the default policy is small");
    let task = rounds.outcome(Voters::Independent { error });
    let none = no_agreement(count, policy, counted.evidence.agreed.registered)
        .expect("the default policy is small");
    let odds = (1.0 - error) / error;
    let agree = tasks.iter().map(|task| task.agree).sum::<u32>();
    let votes = tasks.iter().flat_map(|task| &task.dissent).map(|(_, votes)| votes).sum::<u32>();
    writeln!(
        out,
        "model    all nodes that are drawn vote, and err apart from each other in {:.0} % of their votes; all \
         wrong\n         answers are the same, which is the worst they can be:",
        100.0 * error,
    )?;
    writeln!(
        out,
        "         wrong though accepted   1 / (1 + {odds:.0}^{}) = {wrong:.1e}, for any of {count} chapters \
         {bound:.1e} at most",
        policy.lead,
    )?;
    writeln!(
        out,
        "         without agreement       {p:.1e}, for any of {count} chapters 1 - (1 - {p:.1e})^{count} = \
         {none:.1e}",
        p = task.no_agreement,
    )?;
    writeln!(out, "         votes for a result      {:.1} on average", task.executions)?;
    writeln!(
        out,
        "run      0 of {count} chapters wrong, 0 without agreement, {:.1} votes on average, {votes} of {} \
         votes were wrong ({:.1} %)",
        f64::from(agree + votes) / f64::from(count),
        grouped((agree + votes) as usize),
        100.0 * f64::from(votes) / f64::from(agree + votes),
    )?;
    Ok(())
}

/// Changes the digest in one vote, and shows that the whole is refused.
fn tamper(client: &Client, counted: &Counted, out: &mut impl Write) -> Result<(), DemoError> {
    let tasks = &counted.evidence.agreed.tasks;
    let dissent = |task: &Recounted| !task.dissent.is_empty();
    let index = tasks.iter().position(dissent).unwrap_or_default();
    let name = index.to_string();
    let won = tasks[index].digest.unwrap_or(Digest([0; 32]));
    let votes = Vote::read_all(&leaves(&counted.members, "votes", &name)?);
    let mut votes = votes.unwrap_or_default();
    let at = votes.iter().position(|vote| vote.digest != won);
    let vote = votes.get_mut(at.unwrap_or_default());
    let vote = vote.ok_or_else(|| DemoError::Unexpected("a chapter without votes".into()))?;
    let how = match at {
        Some(_) => "dissent, made a vote for the result that won",
        None => "vote, made one for another result",
    };
    vote.digest = if at.is_some() { won } else { Digest::of(b"another result") };
    let (node, chapter) = (vote.pledge.node.to_string(), index + 1);
    writeln!(out, "\nforged   chapter {chapter} (task {index}), node {}..: its {how}", &node[..8])?;
    let mut members = counted.members.clone();
    let forged = votes.iter().flat_map(Vote::to_bytes).collect::<Vec<_>>();
    members["votes"][name] = STANDARD.encode(forged).into();
    let evidence = Evidence::parse(members.to_string().as_bytes());
    let evidence = evidence.map_err(anwansi_client::Error::from)?;
    match evidence.check(client.policy()).map(drop) {
        Err(error) if error.level() == Level::Agreement => writeln!(out, "REFUSED  {error}")?,
        other => {
            return Err(DemoError::Unexpected(format!("the forged votes came to {other:?}")));
        }
    }
    Ok(())
}
