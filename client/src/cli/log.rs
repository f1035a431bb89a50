//! The log as a whole: audited, or watched as it grows.

use std::{thread, time::Duration};

use anwansi_client::{
    Error,
    proofs::{Header, Version},
};
use clap::Args;
use serde_json::json;

use super::{Ended, Global, output::Output};

pub(super) fn audit(global: &Global, output: &mut Output) -> Result<Ended, Error> {
    let client = global.client()?;
    let bar = output.progress(0, "versions");
    let audited = client.audit(|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let audited = audited?;
    let (versions, changes, newest) = (audited.versions, audited.changes, &audited.newest);
    output.line(
        || {
            format!(
                "{versions} versions, {changes} changes: all follow from each other\n\
                 newest: version {}, state {}",
                newest.version(),
                newest.state()
            )
        },
        || {
            json!({
                "versions": versions, "changes": changes, "newest": newest.version().0,
                "state": newest.state().to_string(),
            })
        },
    )?;
    Ok(Ended::Done)
}

#[derive(Args)]
pub(super) struct Watch {
    /// Seconds between questions
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    interval: f64,
    /// Begin with this version [default: the first new one]
    #[arg(long, value_name = "VERSION")]
    from: Option<u64>,
    /// Stop after this many versions
    #[arg(long, value_name = "VERSIONS")]
    count: Option<u64>,
}

impl Watch {
    pub(super) fn run(&self, global: &Global, output: &mut Output) -> Result<Ended, Error> {
        let interval = Duration::try_from_secs_f64(self.interval)
            .map_err(|_| Error::Usage("--interval is a number of seconds".into()))?;
        let client = global.client()?;
        let mut next = self.from;
        let mut left = self.count;
        loop {
            match client.checkpoint() {
                Ok(checkpoint) => {
                    let first = *next.get_or_insert(checkpoint.size());
                    for version in first..checkpoint.size() {
                        if left == Some(0) {
                            return Ok(Ended::Done);
                        }
                        match client.header(Version(version)) {
                            Ok(header) => show(&header, output)?,
                            Err(error) => {
                                wait(error, output)?;
                                break;
                            }
                        }
                        next = Some(version + 1);
                        left = left.map(|left| left - 1);
                    }
                }
                Err(error) => wait(error, output)?,
            }
            if left == Some(0) {
                return Ok(Ended::Done);
            }
            thread::sleep(interval);
        }
    }
}

/// A server that does not answer may answer later; all else ends the watch.
fn wait(error: Error, output: &Output) -> Result<(), Error> {
    match error {
        Error::Unreachable { .. } => {
            output.error(&error, 4);
            Ok(())
        }
        error => Err(error),
    }
}

fn show(header: &Header, output: &Output) -> Result<(), Error> {
    let (version, state, time) = (header.version(), header.state(), header.time());
    output.line(
        || format!("version {version}\tstate {state}\ttime {time}"),
        || json!({ "version": version.0, "state": state.to_string(), "time_ms": time }),
    )
}
