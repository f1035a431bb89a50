//! A node at work, from the command line.

use std::{
    io,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use anwansi_client::{
    Assignment, At, Error, Phase,
    programs::{self, Program},
    worker::{Done, Event, Worker},
};
use clap::Args;
use serde_json::{Value, json};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use super::{Ended, Global, node::secret, output::Output};

/// What a shell says of a program that an interrupt has ended.
const INTERRUPTED: i32 = 130;

#[derive(Args)]
pub(super) struct Work {
    /// A program that this node runs; may be repeated [default: all it has: wordcount, matmul]
    #[arg(long, value_name = "NAME")]
    program: Vec<String>,
    /// The file with the node's secret key: `anwansi node key FILE` makes one
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Programs that run at once
    #[arg(long, value_name = "COUNT", default_value = "1")]
    jobs: NonZeroUsize,
    /// Where results are kept until they are decided [default: in --state-dir]
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
}

impl Work {
    pub(super) fn run(&self, global: &Global, output: &mut Output) -> Result<Ended, Error> {
        let programs = self.programs()?;
        let names = programs.iter().map(|program| program.name().to_owned()).collect::<Vec<_>>();
        let (secret, client) = (secret(&self.key)?, global.client()?);
        let node = secret.key();
        let registered = match client.node(&node, At::Newest) {
            Ok(node) => node.value.is_some(),
            // It will be asked for work again and again.
            Err(Error::Unreachable { .. }) => true,
            Err(error) => return Err(error),
        };
        if !registered {
            let file = self.key.display();
            eprintln!("anwansi: {node} is not registered, and will not be drawn: an admin runs");
            eprintln!("    anwansi node register {file}");
        }
        let directory = match &self.results {
            Some(directory) => directory.clone(),
            None => global.directory()?.join("results"),
        };
        let origin = client.policy().origin().to_owned();
        let worker = Worker::new(client, secret, programs, &directory)?;
        let stop = stop_flag().map_err(|error| Error::Usage(format!("signals: {error}")))?;
        output.line(
            || format!("node {node} of {origin} runs {}; ctrl-c stops it", names.join(", ")),
            || json!({ "node": node.to_string(), "origin": origin, "programs": names }),
        )?;
        let mut closed = None;
        worker.run(self.jobs, &stop, |event| {
            if let Err(error) = output.line(|| text(event), || json(event)) {
                stop.store(true, std::sync::atomic::Ordering::SeqCst);
                closed = Some(error);
            }
        })?;
        if let Some(error) = closed {
            return Err(error);
        }
        output.line(|| "stopped".into(), || json!({ "event": "stopped" }))?;
        Ok(Ended::Done)
    }

    fn programs(&self) -> Result<Vec<Box<dyn Program>>, Error> {
        if self.program.is_empty() {
            return Ok(programs::all());
        }
        self.program.iter().map(|name| program(name)).collect()
    }
}

/// The program with this name.
pub(super) fn program(name: &str) -> Result<Box<dyn Program>, Error> {
    programs::named(name).ok_or_else(|| {
        let known = programs::all().into_iter().map(|program| program.name().to_owned());
        let known = known.collect::<Vec<_>>().join(", ");
        Error::Usage(format!("there is no program {name:?}: there are {known}"))
    })
}

/// Set by the first interrupt; the second ends the process.
fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the flag is still unset when the first one looks at it.
        flag::register_conditional_shutdown(signal, INTERRUPTED, stop.clone())?;
        flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

fn text(event: &Event<'_>) -> String {
    match event {
        Event::Assigned(assignment) => {
            let what = match assignment.phase {
                Phase::Pledge => format!("to run {}", assignment.program),
                Phase::Reveal { closed } => format!("to reveal, closed in version {closed}"),
            };
            format!("{}: {what}", place(assignment))
        }
        Event::Done { assignment, done, took } => {
            let (what, digest) = match done {
                Done::Pledged { digest } => ("pledged", digest),
                Done::Revealed { digest } => ("revealed", digest),
            };
            let digest = &digest.to_string()[..8];
            format!("{}: {what} {digest}, {} ms", place(assignment), took.as_millis())
        }
        Event::NotDone { assignment, error, again } => {
            let again = again.map_or(String::new(), |wait| format!("; again in {wait:.1?}"));
            format!("{}: not done: {error}{again}", place(assignment))
        }
        Event::NoAnswer { error, again } => format!("{error}; again in {again:.1?}"),
        Event::Tidied { results } => format!("{results} results of decided transitions removed"),
    }
}

fn place(assignment: &Assignment) -> String {
    let Assignment { transition, index, round, .. } = assignment;
    format!("{} task {index} round {round}", &transition.to_string()[..8])
}

fn json(event: &Event<'_>) -> Value {
    let named = |name: &str, assignment: &Assignment| {
        json!({
            "event": name, "transition": assignment.transition.to_string(),
            "task": assignment.index, "round": assignment.round,
        })
    };
    match event {
        Event::Assigned(assignment) => {
            let mut event = named("assigned", assignment);
            let reveal = matches!(assignment.phase, Phase::Reveal { .. });
            event["phase"] = json!(if reveal { "reveal" } else { "pledge" });
            event
        }
        Event::Done { assignment, done, took } => {
            let (name, digest) = match done {
                Done::Pledged { digest } => ("pledged", digest),
                Done::Revealed { digest } => ("revealed", digest),
            };
            let mut event = named(name, assignment);
            event["digest"] = json!(digest.to_string());
            event["ms"] = json!(took.as_millis());
            event
        }
        Event::NotDone { assignment, error, again } => {
            let mut event = named("not-done", assignment);
            event["error"] = json!(error.to_string());
            event["again_ms"] = json!(again.map(|wait| wait.as_millis()));
            event
        }
        Event::NoAnswer { error, again } => {
            json!({ "event": "no-answer", "error": error.to_string(), "again_ms": again.as_millis() })
        }
        Event::Tidied { results } => json!({ "event": "tidied", "results": results }),
    }
}
