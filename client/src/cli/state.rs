//! Reading and writing entries: get, put, rm, range, prefix.

use std::io::{self, Read as _};

use anwansi_client::{
    At, Client, Error,
    proofs::path::{VALUE_BYTES_MAX, after_prefix},
};
use clap::Args;
use serde_json::json;

use super::{
    Ended, Global, Reading, bytes,
    output::{Form, Output},
    print,
};

#[derive(Args)]
pub(super) struct Get {
    /// The key
    key: String,
    #[command(flatten)]
    reading: Reading,
    /// Print the value's bytes as they are, and nothing else
    #[arg(long, conflicts_with = "hex")]
    raw: bool,
}

impl Get {
    pub(super) fn run(&self, global: &Global, output: &mut Output) -> Result<Ended, Error> {
        let key = self.reading.bytes(&self.key)?;
        let answer = global.client()?.get(&key, self.reading.at())?;
        let version = answer.version();
        match (&answer.value, self.raw) {
            (Some(value), true) => print(value)?,
            (None, true) => eprintln!("anwansi: absent in version {version}"),
            (value, false) => {
                let form = if self.reading.hex { Form::HexValue } else { Form::Value };
                output.entry(version, &key, value.as_deref(), form)?;
            }
        }
        Ok(if answer.value.is_some() { Ended::Done } else { Ended::Absent })
    }
}

#[derive(Args)]
pub(super) struct Put {
    /// The key
    key: String,
    /// The value; `-` reads it from standard input, as it is
    value: String,
    /// Key and value are hex digits
    #[arg(long)]
    hex: bool,
}

impl Put {
    pub(super) fn run(&self, global: &Global, output: &mut Output) -> Result<Ended, Error> {
        let key = bytes(&self.key, self.hex)?;
        let value =
            if self.value == "-" { standard_input()? } else { bytes(&self.value, self.hex)? };
        let version = global.writer()?.put(&key, &value)?;
        output.line(
            || format!("version {version}, proven"),
            || json!({ "version": version.0, "key_hex": hex::encode(&key) }),
        )?;
        Ok(Ended::Done)
    }
}

fn standard_input() -> Result<Vec<u8>, Error> {
    let mut value = Vec::new();
    let read = io::stdin().take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut value);
    read.map_err(|error| Error::Usage(format!("standard input: {error}")))?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(Error::Usage("the value is too long: values have at most 16 MiB".into()));
    }
    Ok(value)
}

#[derive(Args)]
pub(super) struct Rm {
    /// The key
    key: String,
    /// The key is hex digits
    #[arg(long)]
    hex: bool,
}

impl Rm {
    pub(super) fn run(&self, global: &Global, output: &mut Output) -> Result<Ended, Error> {
        let key = bytes(&self.key, self.hex)?;
        let version = global.writer()?.remove(&key)?;
        output.line(
            || format!("version {version}, proven absent"),
            || json!({ "version": version.0, "key_hex": hex::encode(&key) }),
        )?;
        Ok(Ended::Done)
    }
}

#[derive(Args)]
pub(super) struct Range {
    /// The first key
    start: String,
    /// The key to stop before [default: after the last one]
    end: Option<String>,
    /// Stop after this many entries
    #[arg(long, value_name = "ENTRIES")]
    limit: Option<usize>,
    #[command(flatten)]
    reading: Reading,
}

impl Range {
    pub(super) fn run(&self, global: &Global, output: &mut Output) -> Result<Ended, Error> {
        let start = self.reading.bytes(&self.start)?;
        let end = self.end.as_ref().map(|end| self.reading.bytes(end)).transpose()?;
        list(&global.client()?, (start, end), self.limit, &self.reading, output)
    }
}

#[derive(Args)]
pub(super) struct Prefix {
    /// What the keys start with
    #[arg(value_name = "PREFIX")]
    start: String,
    /// Stop after this many entries
    #[arg(long, value_name = "ENTRIES")]
    limit: Option<usize>,
    #[command(flatten)]
    reading: Reading,
}

impl Prefix {
    pub(super) fn run(&self, global: &Global, output: &mut Output) -> Result<Ended, Error> {
        let start = self.reading.bytes(&self.start)?;
        let end = after_prefix(&start);
        list(&global.client()?, (start, end), self.limit, &self.reading, output)
    }
}

/// Prints the entries of a range, page by page, all from the version of the first page.
fn list(
    client: &Client,
    (mut start, end): (Vec<u8>, Option<Vec<u8>>),
    mut limit: Option<usize>,
    reading: &Reading,
    output: &mut Output,
) -> Result<Ended, Error> {
    let form = if reading.hex { Form::HexEntry } else { Form::Entry };
    let mut at = reading.at();
    loop {
        if limit == Some(0) {
            return Ok(Ended::Done);
        }
        let page = client.range(&start, end.as_deref(), limit.map(|limit| limit.min(1000)), at)?;
        let version = page.version();
        let entries = page.value.entries.iter().take(limit.unwrap_or(usize::MAX));
        for (key, value) in entries {
            output.entry(version, key, Some(value), form)?;
        }
        limit = limit.map(|limit| limit.saturating_sub(page.value.entries.len()));
        let Some(next) = page.value.next else { return Ok(Ended::Done) };
        (start, at) = (next, At::Version(version));
    }
}
