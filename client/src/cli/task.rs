//! Transitions and their tasks: what each waits for, and how it was decided.

use std::{
    fs,
    io::Write as _,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anwansi_client::{
    Client, Error, Progress, TaskProgress,
    proofs::{TransitionId, record::Outcome},
};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Ended, Global, agreed, named, output::Output};

#[derive(Subcommand)]
pub(super) enum Task {
    /// Show what each task of a transition waits for; once it is decided, verify and show how
    Show(Show),
}

#[derive(Args)]
pub(super) struct Show {
    /// The transition's id, in hex
    id: String,
    /// Wait until it is decided
    #[arg(long)]
    wait: bool,
    /// Save the evidence of its decision, with the results, in this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Task {
    pub(super) fn run(&self, global: &Global, output: &mut Output) -> Result<Ended, Error> {
        let Task::Show(show) = self;
        let id: TransitionId = show.id.parse().map_err(|_| {
            let id = &show.id;
            Error::Usage(format!("{id:?} is no transition's id: it has 64 lower-case hex digits"))
        })?;
        let client = global.client()?;
        if show.wait {
            return wait(&client, &id, show.output.as_deref(), output);
        }
        let progress = client.progress(&id)?;
        if progress.decided.is_some() {
            return decided(&client, &id, show.output.as_deref(), output);
        }
        if show.output.is_some() {
            return Err(Error::Usage("it is not decided, and so there is no evidence yet".into()));
        }
        for task in &progress.tasks {
            output.line(
                || open_text(task),
                || {
                    let nodes = task.waiting_for.iter().map(ToString::to_string);
                    json!({
                        "task": task.index, "phase": task.phase, "round": task.round,
                        "votes": task.votes, "waiting_for": nodes.collect::<Vec<_>>(),
                        "until_ms": task.until.map(|until| until.as_millis()),
                    })
                },
            )?;
        }
        let opened = progress.opened;
        output.line(
            || format!("open since version {opened}: this is the server's word, nothing is proven"),
            || json!({ "transition": id.to_string(), "outcome": "open", "opened": opened.0 }),
        )?;
        Ok(Ended::Done)
    }
}

fn open_text(task: &TaskProgress) -> String {
    let TaskProgress { index, phase, round, votes, waiting_for, until } = task;
    let mut text = format!("task {index}: {phase}, round {round}, {votes} votes");
    if let Some(until) = until {
        text = format!("{text}, {:.1} s left", until.as_secs_f64());
    }
    if waiting_for.is_empty() {
        return text;
    }
    let nodes = waiting_for.iter().map(|node| node.to_string()[..8].to_owned());
    format!("{text}, waits for {}", nodes.collect::<Vec<_>>().join(" "))
}

/// Shows progress until a transition is decided, and then its verified decision.
pub(super) fn wait(
    client: &Client,
    id: &TransitionId,
    save: Option<&Path>,
    output: &Output,
) -> Result<Ended, Error> {
    let bar = output.progress(0, "tasks");
    let waited = client.wait(id, |asked| {
        match asked {
            Ok(progress) => {
                bar.set_length(progress.tasks.len() as u64);
                bar.set_position(ended(progress));
            }
            Err(error) => bar.suspend(|| output.error(error, 4)),
        }
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    waited?;
    decided(client, id, save, output)
}

/// Tasks that wait for nobody any more.
fn ended(progress: &Progress) -> u64 {
    let over = |task: &&TaskProgress| task.waiting_for.is_empty() && task.until.is_none();
    progress.tasks.iter().filter(over).count() as u64
}

/// Verifies how a transition was decided, and shows it.
fn decided(
    client: &Client,
    id: &TransitionId,
    save: Option<&Path>,
    output: &Output,
) -> Result<Ended, Error> {
    let proven = client.transition_evidence(id, true)?;
    let agreed = &proven.value.agreed;
    agreed::show(agreed, proven.value.value.as_ref(), output)?;
    let outcome = agreed.record.outcome;
    // Asked for after the decision was verified: why it failed, only the server knows.
    let reason = match outcome {
        Outcome::Applied => None,
        _ => client.progress(id)?.reason,
    };
    let version = proven.version();
    output.line(
        || {
            let text = format!("decided in version {version}, verified");
            match &reason {
                Some(reason) => format!("{text}; the server says why: {reason}"),
                None => text,
            }
        },
        || json!({ "transition": id.to_string(), "decided": version.0, "reason": reason }),
    )?;
    if let Some(path) = save {
        let evidence = proven.value.evidence.to_json();
        let written =
            fs::File::create(path).and_then(|mut file| file.write_all(evidence.as_bytes()));
        written.map_err(|error| named(path, &error))?;
        let file = path.display();
        output.line(
            || format!("evidence in {file}: {} bytes", evidence.len()),
            || json!({ "file": path, "bytes": evidence.len() }),
        )?;
    }
    Ok(if outcome == Outcome::Applied { Ended::Done } else { Ended::NotApplied })
}
