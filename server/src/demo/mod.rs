//! The demo: real data goes in over HTTP, proofs come out, a client accepts them and refuses forgeries.
//!
//! ```text
//!   cities.rs    state: loaded, read, listed, audited; one digit changed, REFUSED
//!   words.rs     computation: a book is counted by nodes of which a third is faulty
//!     book.rs      its chapters, a task each, and the counts to compare with
//!     nodes.rs     the nodes, each with a client of its own
//!     cost.rs      what the faulty ones cost
//!     votes.rs     the evidence, checked level by level; one vote changed, REFUSED
//! ```
//!
//! Everything here goes through the HTTP interface and is verified by the client library, under the log's key,
//! which is the only thing that the client takes on trust.

mod book;
mod cities;
mod cost;
mod nodes;
mod votes;
mod words;

use std::{
    fmt,
    io::{IsTerminal as _, Write as _},
    sync::atomic::AtomicBool,
};

use anwansi_client::{Client, InMemory, proofs::TransitionId, trust};
use indicatif::{ProgressBar, ProgressStyle};

use nodes::Nodes;
use words::Plan;

/// Why the demo stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The client did not get what it asked for, or could not believe it.
    #[error("the client: {0}")]
    Client(#[from] anwansi_client::Error),
    /// A step answered something else than it must.
    #[error("{0}")]
    Unexpected(String),
    /// The terminal is gone, or a directory for the nodes' results cannot be made.
    #[error("cannot write: {0}")]
    Output(#[from] std::io::Error),
    /// It was asked to.
    #[error("interrupted; what was loaded stays")]
    Interrupted,
}

/// A server to show, and the word that is taken for it.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// Where it listens.
    pub url: &'a str,
    /// The key of its log.
    pub vkey: &'a str,
    /// A token of every scope.
    pub token: &'a str,
}

/// What the demo leaves behind: its nodes, which work on until this is dropped.
#[derive(Debug)]
pub struct Shown {
    /// The transition that counted the words.
    pub transition: TransitionId,
    _nodes: Nodes,
}

/// Runs the demo, and prints what happens to standard output, until all was shown or `stop` is set. It
/// blocks.
///
/// # Errors
/// [`DemoError`] at the first step that does not end as it must.
pub fn demo(stage: Stage<'_>, stop: &AtomicBool) -> Result<Shown, DemoError> {
    let Stage { url, vkey, token } = stage;
    let client = Client::connect(url, trust::of_vkey(vkey)?, InMemory::default())?;
    let client = client.with_token(token)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "server   {url}")?;
    writeln!(out, "trusted  {vkey}")?;
    writeln!(out, "         (this key, and nothing else, is what the client takes on trust)\n")?;
    cities::show(&client, &mut out)?;
    writeln!(out)?;
    let nodes = Nodes::start(stage, &client)?;
    let plan = Plan::new(book::chapters());
    let transition = words::show(&client, &nodes, &plan, stop, &mut out)?;
    Ok(Shown { transition, _nodes: nodes })
}

/// A bar on the terminal; none where there is no terminal.
fn bar(length: usize, style: &str) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(length as u64)
    } else {
        ProgressBar::hidden()
    };
    bar.with_style(ProgressStyle::with_template(style).expect("the template is right"))
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), DemoError> {
    if holds { Ok(()) } else { Err(DemoError::Unexpected(otherwise())) }
}

/// An integer with its thousands apart.
fn grouped(number: usize) -> impl fmt::Display {
    indicatif::HumanCount(number as u64)
}
