//! Nodes: their keys, their registration, and what each has done.

use std::path::{Path, PathBuf};

use anwansi_client::{
    At, Client, Error,
    proofs::{NodeKey, Version},
    worker::NodeSecret,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Ended, Global, as_usage, output::Output};

#[derive(Subcommand)]
pub(super) enum Node {
    /// Make a node's secret key in FILE, or read the one that is there, and print the public key
    Key(Key),
    /// Register a node, which may be drawn from then on; takes an admin's token
    Register(Key),
    /// List the registered nodes with their scores
    List(List),
    /// Show one node's score
    Score(Score),
}

#[derive(Args)]
pub(super) struct Key {
    /// The file with the node's secret key, which only its owner can read
    file: PathBuf,
}

#[derive(Args)]
pub(super) struct List {
    /// The version to read [default: the newest]
    #[arg(long = "at", value_name = "VERSION")]
    version: Option<u64>,
}

#[derive(Args)]
pub(super) struct Score {
    /// The node's public key, in hex
    node: String,
    /// The version to read [default: the newest]
    #[arg(long = "at", value_name = "VERSION")]
    version: Option<u64>,
}

impl Node {
    pub(super) fn run(&self, global: &Global, output: &mut Output) -> Result<Ended, Error> {
        match self {
            Node::Key(Key { file }) => key(file, output),
            Node::Register(Key { file }) => register(file, &global.writer()?, output),
            Node::List(List { version }) => list(&global.client()?, at(*version), output),
            Node::Score(Score { node, version }) => {
                score(node, &global.client()?, at(*version), output)
            }
        }
    }
}

fn at(version: Option<u64>) -> At {
    version.map_or(At::Newest, |version| At::Version(Version(version)))
}

/// The secret key in a file that the user named.
pub(super) fn secret(file: &Path) -> Result<NodeSecret, Error> {
    NodeSecret::load(file).map_err(as_usage)
}

fn key(file: &Path, output: &Output) -> Result<Ended, Error> {
    let there = file.try_exists().map_err(|error| super::named(file, &error))?;
    let secret = if there { secret(file)? } else { NodeSecret::create(file).map_err(as_usage)? };
    let key = secret.key();
    output.line(|| key.to_string(), || json!({ "node": key.to_string(), "made": !there }))?;
    Ok(Ended::Done)
}

fn register(file: &Path, client: &Client, output: &Output) -> Result<Ended, Error> {
    let secret = secret(file)?;
    let (key, origin) = (secret.key(), client.policy().origin().parse()?);
    let node = client.register(&key, &secret.join(&origin))?;
    let since = node.value.record.since;
    output.line(
        || format!("node {key}, registered since version {since}, proven"),
        || json!({ "node": key.to_string(), "since": since.0, "version": node.version().0 }),
    )?;
    Ok(Ended::Done)
}

fn list(client: &Client, at: At, output: &Output) -> Result<Ended, Error> {
    let nodes = client.nodes(at)?;
    let version = nodes.version();
    for node in &nodes.value {
        output.line(|| text(node), || json(node, version))?;
    }
    Ok(Ended::Done)
}

fn score(node: &str, client: &Client, at: At, output: &Output) -> Result<Ended, Error> {
    let key: NodeKey = node.parse().map_err(|_| {
        Error::Usage(format!("{node:?} is no node's key: it has 64 lower-case hex digits"))
    })?;
    let node = client.node(&key, at)?;
    let version = node.version();
    let Some(node) = node.value else {
        output.line(
            || format!("not registered in version {version}, proven"),
            || json!({ "node": key.to_string(), "version": version.0, "since": null }),
        )?;
        return Ok(Ended::Absent);
    };
    output.line(|| text(&node), || json(&node, version))?;
    Ok(Ended::Done)
}

fn text(node: &anwansi_client::Node) -> String {
    let score = &node.score;
    format!(
        "{}  since {}  agreed {}  dissented {}  missed {}  no reveal {}  bad reveal {}  \
         equivocated {}  errs in {:.1} % by this",
        node.key,
        node.record.since,
        score.agreed,
        score.dissented,
        score.missed,
        score.no_reveal,
        score.bad_reveal,
        score.equivocated,
        100.0 * node.error_estimate(),
    )
}

fn json(node: &anwansi_client::Node, version: Version) -> Value {
    let score = &node.score;
    json!({
        "node": node.key.to_string(),
        "version": version.0,
        "since": node.record.since.0,
        "agreed": score.agreed,
        "dissented": score.dissented,
        "missed": score.missed,
        "no_reveal": score.no_reveal,
        "bad_reveal": score.bad_reveal,
        "equivocated": score.equivocated,
        "error_estimate": node.error_estimate(),
    })
}
