//! Evidence in files: saved from a server, verified without one.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anwansi_client::{
    Asked, Error, FileMemory, Memory as _, Recalled, escape,
    proofs::{
        Checkpoint, EVIDENCE_BYTES_MAX, Error as ProofError, Evidence, Finding, Level, Policy,
    },
};
use clap::Args;
use serde_json::json;

use super::{
    Ended, Global, Reading, agreed, named,
    output::{Form, Output, level_name},
};

#[derive(Args)]
pub(super) struct Save {
    /// The keys; one that is absent is proven absent
    #[arg(required_unless_present = "prefix")]
    keys: Vec<String>,
    /// All entries whose keys start with this
    #[arg(long, value_name = "PREFIX")]
    prefix: Vec<String>,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    reading: Reading,
}

impl Save {
    pub(super) fn run(&self, global: &Global, output: &mut Output) -> Result<Ended, Error> {
        let all = |texts: &[String]| {
            let bytes = texts.iter().map(|text| self.reading.bytes(text));
            bytes.collect::<Result<Vec<_>, Error>>()
        };
        let asked = Asked { keys: all(&self.keys)?, prefixes: all(&self.prefix)? };
        let proven = global.client()?.evidence(&asked, self.reading.at())?;
        let version = proven.version();
        let json = proven.value.to_json();
        let written =
            fs::File::create(&self.output).and_then(|mut file| file.write_all(json.as_bytes()));
        written.map_err(|error| named(&self.output, &error))?;
        let path = self.output.display();
        output.line(
            || format!("evidence of version {version} in {path}, verified: {} bytes", json.len()),
            || json!({ "version": version.0, "file": self.output, "bytes": json.len() }),
        )?;
        Ok(Ended::Done)
    }
}

#[derive(Args)]
pub(super) struct Verify {
    /// The evidence
    file: PathBuf,
    /// Show what the evidence says of this key
    #[arg(long, value_name = "KEY")]
    get: Vec<String>,
    /// Keys and values are hex digits
    #[arg(long)]
    hex: bool,
}

impl Verify {
    pub(super) fn run(&self, global: &Global, output: &mut Output) -> Result<Ended, Error> {
        let policy = global.trusted()?;
        let evidence = Evidence::parse(&read(&self.file)?)?;
        let checked = evidence.check(&policy)?;
        let remembered = compare(global, &policy, checked.checkpoint())?;
        if let Some(seconds) = global.max_age {
            check_age(&policy, checked.checkpoint(), seconds)?;
        }
        let header = checked.version().header();
        let levels = [Level::Finality, Level::Inclusion, Level::Agreement, Level::Aggregate];
        let found = levels.map(|level| (level_name(level), checked.finding(level)));
        output.line(
            || {
                let mut lines = vec![format!("{} version {}", header.origin(), header.version())];
                lines
                    .extend(found.map(|(level, finding)| format!("{level:<10} {}", said(finding))));
                lines.push(format!("remembered {remembered}"));
                lines.join("\n")
            },
            || {
                let levels = found.map(|(level, finding)| (level.to_owned(), json!(said(finding))));
                json!({
                    "origin": header.origin().as_str(),
                    "version": header.version().0,
                    "time_ms": header.time(),
                    "levels": serde_json::Map::from_iter(levels),
                    "remembered": remembered,
                })
            },
        )?;
        if let Some(agreed) = checked.agreed() {
            agreed::show(agreed, checked.value(), output)?;
        }
        for key in &self.get {
            let key = super::bytes(key, self.hex)?;
            let state = checked.version().state();
            let state = state.ok_or(ProofError::NotCovered { depth: 0 })?;
            let form = if self.hex { Form::HexEntry } else { Form::Entry };
            output.entry(header.version(), &key, state.get(&key)?, form)?;
        }
        Ok(Ended::Done)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let length = fs::metadata(path).map_err(|error| named(path, &error))?.len();
    if length > EVIDENCE_BYTES_MAX as u64 {
        return Err(Error::Usage(format!("{}: longer than evidence is", path.display())));
    }
    fs::read(path).map_err(|error| named(path, &error))
}

/// Compares the evidence's checkpoint with the remembered one, as far as that goes without tiles.
fn compare(
    global: &Global,
    policy: &Policy,
    checkpoint: &Checkpoint,
) -> Result<&'static str, Error> {
    let memory = FileMemory::new(global.directory()?, policy.origin())?;
    let note = match memory.recall()? {
        Recalled::Nothing => return Ok("nothing to compare with"),
        Recalled::Forked { kept } => {
            return Err(Error::Forked { origin: escape(policy.origin().as_bytes()), kept });
        }
        Recalled::Checkpoint(note) => note,
    };
    let kept = Policy::of_log(policy.log().clone())?.verify(&note)?;
    if kept.size() != checkpoint.size() {
        return Ok("not compared: another size");
    }
    if kept.root() == checkpoint.root() {
        return Ok("the same checkpoint");
    }
    let fork = json!({
        "format": "anwansi/fork/v1", "remembered": note, "shown": checkpoint.note(),
    });
    let kept = memory.keep_fork(&format!("{fork:#}\n"))?;
    Err(Error::Forked { origin: policy.origin().into(), kept })
}

fn check_age(policy: &Policy, checkpoint: &Checkpoint, seconds: u64) -> Result<(), Error> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let since = now.unwrap_or_default().as_secs().saturating_sub(seconds);
    if policy.fresh_since(checkpoint, since) {
        return Ok(());
    }
    Err(Error::NotProven { version: None, fault: anwansi_client::Fault::Stale { seconds } })
}

fn said(finding: Finding) -> &'static str {
    match finding {
        Finding::Verified => "verified",
        Finding::NotShown => "not shown",
    }
}
