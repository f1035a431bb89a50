//! What votes came to, task by task, and what that means: for evidence that was recounted.

use anwansi_client::{
    Error,
    proofs::{
        Agreed, Json, Recounted,
        agreement::{bounds_sum, wrong_given_accepted},
        record::{Outcome, Status},
    },
};
use serde_json::{Value, json};

use super::output::Output;

/// Prints a transition that was recounted: a line for each task, and then what they come to.
pub(super) fn show(agreed: &Agreed, value: Option<&Json>, output: &Output) -> Result<(), Error> {
    for (index, task) in agreed.tasks.iter().enumerate() {
        output.line(|| task_text(index, task, agreed), || task_json(index, task, agreed))?;
    }
    let (record, spec) = (&agreed.record, &agreed.spec);
    let bound = bounds_sum(agreed.tasks.iter().filter_map(|task| wrong(task, agreed)));
    output.line(
        || {
            let mut lines = vec![format!(
                "{}: {} tasks of {}, nodes drawn from {} registered",
                record.outcome.as_str(),
                spec.tasks(),
                spec.program,
                agreed.registered,
            )];
            if record.outcome == Outcome::Applied {
                let error = 100.0 * spec.policy.error();
                let (fold, into) = (&record.fold, &record.into);
                let checked = if value.is_some() { "folded again" } else { "not folded again" };
                lines.push(format!("folded by {fold} into {into}: {checked}"));
                lines.push(format!(
                    "some result is wrong with at most {bound:.1e}, if nodes err apart in {error} %"
                ));
            }
            if agreed.tasks.iter().any(|task| task.faults > 0) {
                lines
                    .push("how faults divide is the server's word; their sum was recounted".into());
            }
            lines.join("\n")
        },
        || {
            json!({
                "transition": record.id.to_string(), "outcome": record.outcome.as_str(),
                "program": spec.program, "tasks": spec.tasks(), "registered": agreed.registered,
                "fold": record.fold, "into": record.into, "opened": record.opened.0,
                "value": record.value.map(|value| value.to_string()),
                "folded": value.is_some(), "wrong_at_most": bound,
            })
        },
    )
}

/// How likely the result is wrong though it was accepted, if nodes err apart and as often as the policy
/// says.
fn wrong(task: &Recounted, agreed: &Agreed) -> Option<f64> {
    let second = task.dissent.first().map_or(0, |(_, votes)| *votes);
    let ahead = task.agree.saturating_sub(second);
    let accepted = task.status == Status::Final;
    accepted.then(|| wrong_given_accepted(agreed.spec.policy.error(), ahead))
}

fn task_text(index: usize, task: &Recounted, agreed: &Agreed) -> String {
    let dissent = task.dissent.iter().map(|(_, votes)| votes).sum::<u32>();
    let Recounted { status, rounds, drawn, agree, missed, faults, .. } = task;
    let mut text = format!(
        "task {index}: {}, {agree} agree, {dissent} dissent, {missed} missed, {faults} faults, of {drawn} \
         drawn in {rounds} rounds",
        status.as_str()
    );
    if *faults > 0 {
        let claimed = &task.claimed;
        let parts = [
            (claimed.no_reveal, "no reveal"),
            (claimed.bad_reveal, "bad reveal"),
            (claimed.equivocated, "equivocated"),
        ];
        let parts = parts.into_iter().filter(|(count, _)| *count > 0);
        let parts = parts.map(|(count, name)| format!("{count} {name}")).collect::<Vec<_>>();
        text = format!("{text} ({})", parts.join(", "));
    }
    match wrong(task, agreed) {
        Some(wrong) => format!("{text}; wrong with {wrong:.1e}"),
        None => text,
    }
}

fn task_json(index: usize, task: &Recounted, agreed: &Agreed) -> Value {
    let dissent = task.dissent.iter().map(|(digest, votes)| json!([digest.to_string(), votes]));
    json!({
        "task": index, "status": task.status.as_str(), "agree": task.agree,
        "digest": task.digest.map(|digest| digest.to_string()),
        "dissent": dissent.collect::<Vec<_>>(), "rounds": task.rounds, "drawn": task.drawn,
        "missed": task.missed, "faults": task.faults,
        "claimed": {
            "no_reveal": task.claimed.no_reveal, "bad_reveal": task.claimed.bad_reveal,
            "equivocated": task.claimed.equivocated,
        },
        "wrong": wrong(task, agreed),
    })
}
