//! Running a program on files, a task each: a transition is drawn up, submitted and waited for.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anwansi_client::{
    At, BLOB_BYTES_MAX, Client, Error, no_agreement,
    proofs::{
        Apply, Draft, Input, SPEC_BYTES_MAX, Spec, TaskPolicy, agreement::wrong_given_accepted,
    },
};
use clap::Args;
use serde_json::json;

use super::{Ended, Global, named, output::Output, task::wait, work::program};

/// The longest input that stands in the specification; longer ones become blobs.
const INLINE_BYTES_MAX: usize = 4096;
/// Random bytes in a nonce.
const NONCE_BYTES: usize = 16;

const FOLD_HELP: &str = "How results become one value: sum, min, max, sum_vector, sum_by_key, union, \
merge, list [default: the program's]";

#[derive(Args)]
pub(super) struct Run {
    /// With --program the inputs, one task each; without it one file, a specification
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the nodes run: wordcount, matmul, or the full name of any other
    #[arg(long, value_name = "NAME", requires = "into")]
    program: Option<String>,
    /// The key that the folded results are written to
    #[arg(long, value_name = "KEY", requires = "program")]
    into: Option<String>,
    #[arg(long, value_name = "FOLD", requires = "program", help = FOLD_HELP)]
    fold: Option<String>,
    /// Fold into the value that is there, instead of replacing it
    #[arg(long, requires = "program")]
    add: bool,
    /// Write each member of the value, an object, to a key of its own: KEY, a slash, its name
    #[arg(long, requires = "program")]
    spread: bool,
    /// Any text; the same specification is run once [default: random]
    #[arg(long, value_name = "TEXT", requires = "program")]
    nonce: Option<String>,
    #[command(flatten)]
    policy: PolicyFlags,
    /// Wait until it is decided, and verify and show how
    #[arg(long)]
    wait: bool,
    /// Save the evidence of the decision, with the results, in this file
    #[arg(short, long, value_name = "FILE", requires = "wait")]
    output: Option<PathBuf>,
}

/// When a task's result is accepted.
#[derive(Args)]
struct PolicyFlags {
    /// Votes by which the first answer has to be ahead [default: 6]
    #[arg(long, value_name = "VOTES", requires = "program")]
    lead: Option<u32>,
    /// How often nodes are expected to err, in millionths [default: 100000]
    #[arg(long, value_name = "PPM", requires = "program")]
    error_ppm: Option<u32>,
    /// The most nodes drawn for a task [default: 4 times the lead]
    #[arg(long, value_name = "NODES", requires = "program")]
    nodes_max: Option<u32>,
    /// The most drawn nodes without a vote [default: 2 times the lead]
    #[arg(long, value_name = "NODES", requires = "program")]
    missed_max: Option<u32>,
    /// How long a round waits for pledges, in milliseconds [default: 30000]
    #[arg(long, value_name = "MS", requires = "program")]
    pledge_ms: Option<u32>,
    /// How long a round waits for reveals, in milliseconds [default: 10000]
    #[arg(long, value_name = "MS", requires = "program")]
    reveal_ms: Option<u32>,
}

impl PolicyFlags {
    fn policy(&self) -> TaskPolicy {
        let default = TaskPolicy::with_lead(self.lead.unwrap_or(TaskPolicy::default().lead));
        TaskPolicy {
            error_ppm: self.error_ppm.unwrap_or(default.error_ppm),
            lead: default.lead,
            nodes_max: self.nodes_max.unwrap_or(default.nodes_max),
            missed_max: self.missed_max.unwrap_or(default.missed_max),
            pledge_ms: self.pledge_ms.unwrap_or(default.pledge_ms),
            reveal_ms: self.reveal_ms.unwrap_or(default.reveal_ms),
        }
    }
}

impl Run {
    pub(super) fn run(&self, global: &Global, output: &mut Output) -> Result<Ended, Error> {
        let client = global.writer()?;
        let spec = match (&self.program, &self.into) {
            (Some(program), Some(into)) => self.draw_up(program, into, &client, output)?,
            _ => self.read()?,
        };
        let id = client.submit(&spec)?;
        describe(&spec, client.nodes(At::Newest)?.value.len(), output)?;
        if self.wait {
            return wait(&client, &id, self.output.as_deref(), output);
        }
        Ok(Ended::Done)
    }

    /// The specification in a file.
    fn read(&self) -> Result<Spec, Error> {
        let [file] = &self.files[..] else {
            let why = "several files are inputs: give --program and --into, or one specification";
            return Err(Error::Usage(why.into()));
        };
        let mut bytes = read(file, SPEC_BYTES_MAX)?;
        // Editors end a file with a newline, which is no part of the specification.
        bytes.pop_if(|last| *last == b'\n');
        Spec::parse(bytes).map_err(|error| named(file, &error))
    }

    /// The specification that the arguments describe; long inputs are put as blobs.
    fn draw_up(
        &self,
        name: &str,
        into: &str,
        client: &Client,
        output: &Output,
    ) -> Result<Spec, Error> {
        // The nodes may have programs that this one does not know.
        let name = if name.contains('/') { name.into() } else { program(name)?.name().to_owned() };
        let fold = match (&self.fold, &*name) {
            (Some(fold), _) => fold.clone(),
            (None, "wordcount/1") => "sum_by_key".into(),
            (None, "matmul/1") => "merge".into(),
            (None, name) => {
                return Err(Error::Usage(format!(
                    "say how results of {name} are put together: --fold"
                )));
            }
        };
        let nonce = match &self.nonce {
            Some(nonce) => nonce.clone(),
            None => nonce()?,
        };
        let mut draft = Draft {
            program: name,
            code: None,
            nonce,
            inputs: Vec::new(),
            fold,
            into: into.into(),
            apply: if self.add { Apply::Add } else { Apply::Replace },
            spread: self.spread,
            policy: self.policy.policy(),
        };
        // What is wrong with it is said before anything is put.
        let any = Input::Data(Vec::new());
        draft.inputs.push(any);
        Spec::new(&draft).map_err(|error| Error::Usage(error.to_string()))?;
        draft.inputs.clear();
        let bar = output.progress(self.files.len() as u64, "inputs");
        for file in &self.files {
            let content = read(file, BLOB_BYTES_MAX)?;
            draft.inputs.push(if content.len() <= INLINE_BYTES_MAX {
                Input::Data(content)
            } else {
                Input::Blob(client.put_blob(&content)?)
            });
            bar.inc(1);
        }
        bar.finish_and_clear();
        Spec::new(&draft).map_err(|error| Error::Usage(error.to_string()))
    }
}

/// Says what was submitted, and how likely it ends without a result.
fn describe(spec: &Spec, registered: usize, output: &Output) -> Result<(), Error> {
    let (id, tasks, policy) = (spec.id(), spec.tasks(), &spec.policy);
    let none = no_agreement(tasks, policy, registered);
    let wrong = wrong_given_accepted(policy.error(), policy.lead);
    output.line(
        || {
            let none = none.map_or("a probability not computed".into(), |none| format!("{none:.1e}"));
            let error = 100.0 * policy.error();
            format!(
                "transition {id}\n{tasks} tasks of {}, folded by {} into {}\neach result needs a lead of \
                 {} votes, from at most {} of {registered} nodes; if nodes err apart in {error} %,\n\
                 it is wrong with {wrong:.1e}, and some task ends without agreement with {none}",
                spec.program, spec.fold, spec.into, policy.lead, policy.nodes_max,
            )
        },
        || {
            json!({
                "transition": id.to_string(), "tasks": tasks, "program": spec.program,
                "fold": spec.fold, "into": spec.into, "lead": policy.lead,
                "nodes_max": policy.nodes_max, "registered": registered, "wrong": wrong, "no_agreement": none,
            })
        },
    )
}

fn nonce() -> Result<String, Error> {
    let mut bytes = [0; NONCE_BYTES];
    let filled = getrandom::fill(&mut bytes);
    filled.map_err(|error| Error::Usage(format!("no randomness for a nonce: {error}")))?;
    Ok(hex::encode(bytes))
}

fn read(file: &Path, max: usize) -> Result<Vec<u8>, Error> {
    let length = fs::metadata(file).map_err(|error| named(file, &error))?.len();
    if length > max as u64 {
        let file = file.display();
        return Err(Error::Usage(format!("{file}: {length} bytes, {max} are the most")));
    }
    fs::read(file).map_err(|error| named(file, &error))
}
