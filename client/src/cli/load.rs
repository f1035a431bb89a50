//! Loading a file: `key TAB value` lines, in batches of which each becomes one version, once.
//!
//! A batch is named by the file's digest and its number, and sent under that name: whoever crashed, the
//! same file cut into the same batches goes on at the first one that was not acknowledged. A progress file
//! spares sending again what was.
//!
//! ```text
//! batch k   Idempotency-Key: hex of H(file digest || k, 8 bytes, big endian)
//! a batch   ends after --batch lines, 8 MiB of keys and values, or before a key that it holds already
//! ```

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use anwansi_client::{
    Client, Error, Write,
    proofs::{
        Digest, Version,
        hash::Hasher,
        path::{KEY_BYTES_MAX, VALUE_BYTES_MAX},
    },
    write_atomically,
};
use clap::Args;
use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Ended, Global, named, output::Output};

/// Keys and values of one batch, unless one entry alone has more.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// A line with the longest key and the longest value.
const LINE_BYTES_MAX: u64 = (KEY_BYTES_MAX + 1 + VALUE_BYTES_MAX + 1) as u64;
/// The most lines in a batch: a server's limit for one commit may be lower.
const BATCH_LINES_MAX: u64 = 100_000;

#[derive(Args)]
pub(super) struct Load {
    /// Lines of key, TAB, value; compressed if its name ends in .gz
    file: PathBuf,
    /// Lines in a batch; the same when it is run again
    #[arg(long, value_name = "LINES", default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(1..=BATCH_LINES_MAX))]
    batch: u64,
}

/// What was acknowledged of a file.
#[derive(Deserialize, Serialize)]
struct Progress {
    /// Lines in a batch.
    batch: u64,
    /// Batches that were acknowledged, from the first on.
    done: u64,
}

impl Load {
    pub(super) fn run(&self, global: &Global, output: &mut Output) -> Result<Ended, Error> {
        let client = global.writer()?;
        // The whole file is looked at first: a line that is wrong stores nothing.
        let (digest, lines) = self.look_through()?;
        let path = progress_path(&global.directory()?, &client, &digest)?;
        let mut progress = self.progress(&path)?;
        let resumed = progress.done;
        let bar = output.progress(lines, "entries");
        let mut version = None;
        let mut batches = Batches::new(entries(&self.file)?, self.batch);
        let mut number = 0;
        while let Some(batch) = batches.next(&self.file)? {
            if number >= progress.done {
                version = Some(client.commit(&batch, Some(&batch_name(&digest, number)))?);
                // A crash here sends this batch again; its name lets it be answered as it was.
                progress.done = number + 1;
                save(&path, &progress)?;
            }
            number += 1;
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        // It is done: to load the same file some other day is another load.
        fs::remove_file(&path).or_else(gone).map_err(|source| Error::File { path, source })?;
        let version = version.map(|version: Version| version.0);
        output.line(
            || {
                let at = version.map_or("none".into(), |version| version.to_string());
                let before = match resumed {
                    0 => String::new(),
                    batches => format!(" ({batches} batches were acknowledged before)"),
                };
                format!("{lines} entries in {number} batches{before}, proven; newest version: {at}")
            },
            || {
                json!({
                    "entries": lines, "batches": number, "acknowledged_before": resumed,
                    "version": version, "digest": digest.to_string(),
                })
            },
        )?;
        Ok(Ended::Done)
    }

    /// Reads every line, and returns the digest of the file and how many lines there are.
    fn look_through(&self) -> Result<(Digest, u64), Error> {
        let wrong = |error: io::Error| named(&self.file, &error);
        let mut hasher = Hasher::default();
        let mut file = File::open(&self.file).map_err(wrong)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer).map_err(wrong)? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        let mut entries = entries(&self.file)?;
        let mut lines = 0;
        while entries.next(&self.file)?.is_some() {
            lines += 1;
        }
        Ok((hasher.finish(), lines))
    }

    fn progress(&self, path: &Path) -> Result<Progress, Error> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Progress { batch: self.batch, done: 0 });
            }
            Err(source) => return Err(Error::File { path: path.into(), source }),
        };
        let progress: Progress = serde_json::from_str(&text)
            .map_err(|error| Error::File { path: path.into(), source: error.into() })?;
        if progress.batch != self.batch {
            let batch = progress.batch;
            return Err(Error::Usage(format!(
                "this file was begun with --batch {batch}: go on with the same, or its batches would \
                 become other versions"
            )));
        }
        Ok(progress)
    }
}

fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn save(path: &Path, progress: &Progress) -> Result<(), Error> {
    let text = serde_json::to_string(progress).expect("two numbers are JSON");
    write_atomically(path, text.as_bytes())
}

fn batch_name(file: &Digest, number: u64) -> String {
    let mut name = file.0.to_vec();
    name.extend(number.to_be_bytes());
    Digest::of(&name).to_string()
}

/// One for each log and file.
fn progress_path(directory: &Path, client: &Client, file: &Digest) -> Result<PathBuf, Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    let directory = directory.join("loads");
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    made.map_err(|source| Error::File { path: directory.clone(), source })?;
    let name = [client.policy().origin().as_bytes(), b"\n", &file.0].concat();
    Ok(directory.join(format!("{}.json", Digest::of(&name))))
}

/// The lines of a file.
struct Entries {
    reader: Box<dyn BufRead>,
    line: u64,
}

fn entries(path: &Path) -> Result<Entries, Error> {
    let file = File::open(path).map_err(|error| named(path, &error))?;
    let file = BufReader::with_capacity(1 << 16, file);
    let zipped = path.extension().is_some_and(|extension| extension == "gz");
    let reader: Box<dyn BufRead> =
        if zipped { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) };
    Ok(Entries { reader, line: 0 })
}

impl Entries {
    fn next(&mut self, path: &Path) -> Result<Option<Write>, Error> {
        let mut line = Vec::new();
        let reader = (&mut self.reader).take(LINE_BYTES_MAX);
        let read = { reader }.read_until(b'\n', &mut line).map_err(|error| named(path, &error))?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        let wrong = |what: &str| {
            Err(Error::Usage(format!("{}, line {}: {what}", path.display(), self.line)))
        };
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let Some(tab) = line.iter().position(|byte| *byte == b'\t') else {
            return wrong("there is no tab between key and value");
        };
        let value = line[tab + 1..].to_vec();
        line.truncate(tab);
        match line.first() {
            _ if line.len() > KEY_BYTES_MAX => {
                wrong("the key is too long: keys have at most 1024 bytes")
            }
            _ if value.len() > VALUE_BYTES_MAX => {
                wrong("the value is too long: values have at most 16 MiB")
            }
            None => wrong("the key is empty"),
            Some(0) => wrong("the key starts with a zero byte: such keys are reserved"),
            Some(_) => Ok(Some(Write { key: line, value: Some(value) })),
        }
    }
}

/// Cuts the lines into batches, always in the same places.
struct Batches {
    entries: Entries,
    lines_max: u64,
    /// Read, and left for the next batch.
    left: Option<Write>,
}

impl Batches {
    fn new(entries: Entries, lines_max: u64) -> Self {
        Batches { entries, lines_max, left: None }
    }

    fn next(&mut self, path: &Path) -> Result<Option<Vec<Write>>, Error> {
        let mut batch: Vec<Write> = Vec::new();
        let mut keys = HashSet::new();
        let mut bytes = 0;
        while (batch.len() as u64) < self.lines_max {
            let entry = match self.left.take() {
                Some(entry) => entry,
                None => match self.entries.next(path)? {
                    Some(entry) => entry,
                    None => break,
                },
            };
            bytes += entry.key.len() + entry.value.as_ref().map_or(0, Vec::len);
            let full = !batch.is_empty() && bytes > BATCH_BYTES_MAX;
            if full || !keys.insert(entry.key.clone()) {
                self.left = Some(entry);
                break;
            }
            batch.push(entry);
        }
        Ok((!batch.is_empty()).then_some(batch))
    }
}
