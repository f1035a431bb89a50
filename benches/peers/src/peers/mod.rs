//! The stores that are compared, one a file, behind one trait.

mod anwansi;
mod commonware;
mod jmt;
mod nomt;

use std::{
    fmt,
    pin::pin,
    task::{Context, Poll, Waker},
};

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::workload::{Key, Measured, Place, Shape, Value};

/// A store that goes through the workload. Async because one of them is; the others are always ready.
pub(crate) trait Peer: Sized {
    /// What it is opened with.
    type Home;
    /// The writes of one commit, in the form that it takes them.
    type Batch;
    /// What a verifier trusts.
    type Root: PartialEq + fmt::Debug;
    /// A value as a read returns it.
    type Read: AsRef<[u8]>;

    /// Opens the store, or makes it.
    async fn open(home: &Self::Home) -> Result<Self>;

    /// Brings writes into the form that [`commit`](Self::commit) takes: this is not timed. No key is
    /// there twice.
    fn batch(entries: impl Iterator<Item = (Key, Value)>) -> Self::Batch;

    /// Writes all of `batch`. When it returns that is durable, and the root after it is known.
    async fn commit(&mut self, batch: Self::Batch) -> Result<()>;

    /// The root after the last commit.
    fn root(&self) -> Result<Self::Root>;

    /// The value of `key`.
    async fn get(&mut self, key: &Key) -> Result<Option<Self::Read>>;

    /// A proof of the value that `key` has, encoded as the peer encodes it.
    async fn prove(&mut self, key: &Key) -> Result<Vec<u8>>;

    /// Whether `proof` shows that `key` has `value` under `root`: all that a verifier does, from bytes.
    fn verify(root: &Self::Root, key: &Key, value: &Value, proof: &[u8]) -> bool;

    /// Closes the store, so that the next opening is as fast as it can be.
    async fn close(self) -> Result<()>;
}

/// The names of the peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Name {
    /// Anwansi on fjall
    AnwansiFjall,
    /// Anwansi on sled
    AnwansiSled,
    /// nomt
    Nomt,
    /// commonware-storage, `current` ordered
    CommonwareCurrent,
    /// commonware-storage, `any` ordered
    CommonwareAny,
    /// The Jellyfish Merkle Tree on fjall
    Jmt,
}

impl Name {
    /// All peers, in the order in which they run and are shown.
    pub(crate) const ALL: [Name; 6] = [
        Name::AnwansiFjall,
        Name::AnwansiSled,
        Name::Nomt,
        Name::CommonwareCurrent,
        Name::CommonwareAny,
        Name::Jmt,
    ];

    /// What the peer is called in a table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Name::AnwansiFjall => "Anwansi, fjall",
            Name::AnwansiSled => "Anwansi, sled",
            Name::Nomt => "nomt 1.0.5",
            Name::CommonwareCurrent => "commonware `current`",
            Name::CommonwareAny => "commonware `any`",
            Name::Jmt => "jmt 0.12 on fjall",
        }
    }

    /// What must be known to compare its numbers.
    pub(crate) fn note(self) -> &'static str {
        match self {
            Name::AnwansiFjall => anwansi::NOTE,
            Name::AnwansiSled => "As on fjall.",
            Name::Nomt => nomt::NOTE,
            Name::CommonwareCurrent => commonware::NOTE_CURRENT,
            Name::CommonwareAny => commonware::NOTE_ANY,
            Name::Jmt => jmt::NOTE,
        }
    }

    /// Takes the peer through the workload, in this process.
    ///
    /// # Errors
    /// If it fails, or gives a wrong answer.
    pub(crate) fn run(self, place: &Place, shape: Shape) -> Result<Measured> {
        match self {
            Name::AnwansiFjall => anwansi::run("fjall", place, shape),
            Name::AnwansiSled => anwansi::run("sled", place, shape),
            Name::Nomt => nomt::run(place, shape),
            Name::CommonwareCurrent => commonware::run_current(place, shape),
            Name::CommonwareAny => commonware::run_any(place, shape),
            Name::Jmt => jmt::run(place, shape),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no name is hidden");
        f.write_str(value.get_name())
    }
}

/// The outcome of a future that never waits.
fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("peers that are not async do not wait"),
    }
}
