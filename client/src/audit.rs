//! The audit: every version of the log, followed by somebody who keeps no state.
//!
//! ```text
//! 1  all entries   have the root that the verified checkpoint names, and each header follows the last
//! 2  each version  update proof under the state before, changes applied, root = the header's state
//! ```
//!
//! What a version's tasks tree holds cannot be seen from its changes, and is not audited here.

use anwansi_proofs::{
    Change, Header, LogHash, Proof, Root, Version,
    log::{Bundle, TILE_WIDTH},
    path::{KEY_BYTES_MAX, VALUE_BYTES_MAX, is_key},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::{Client, Error, Fault, transport::Lines};

/// The longest list of changes of one version, with its update proof.
const CHANGES_BYTES_MAX: u64 = 512 << 20;
/// The longest bundle of headers.
const BUNDLE_BYTES_MAX: u64 = TILE_WIDTH as u64 * (2 + anwansi_proofs::log::ENTRY_BYTES_MAX as u64);

/// What an audit went through without finding anything wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// The header of the newest version.
    pub newest: Header,
    /// How many versions there are.
    pub versions: u64,
    /// How many changes they made.
    pub changes: u64,
}

impl Client {
    /// Checks every version up to the newest. `progress` is told how many are done, of how many.
    ///
    /// # Errors
    /// [`Error::NotProven`] with the first bad version; and as of [`evidence`](Self::evidence).
    ///
    /// # Cost
    /// One request a version and two for 256; 32 bytes of memory a version, and one version's changes.
    pub fn audit(&self, mut progress: impl FnMut(u64, u64)) -> Result<Audited, Error> {
        let checkpoint = self.checkpoint()?;
        let size = checkpoint.size();
        progress(0, size);
        let leaves = self.audit_log(size, checkpoint.root())?;
        let mut before: Option<Header> = None;
        let mut changes = 0;
        for index in 0..size.div_ceil(TILE_WIDTH.into()) {
            // Fetched a second time, and compared: all headers together may not fit into memory.
            let (bundle, bytes) = self.bundle(index, size)?;
            let first = index * u64::from(TILE_WIDTH);
            for (version, entry) in (first..).map(Version).zip(bundle.decode(&bytes)?) {
                let at = usize::try_from(version.0).expect("as many as there are leaves");
                if LogHash::leaf(entry) != leaves[at] {
                    return Err(Error::at(version, Fault::OtherHeader));
                }
                let header = read_header(entry).map_err(|fault| Error::at(version, fault))?;
                changes += self.audit_version(entry, &header, before.as_ref())?;
                progress(version.0 + 1, size);
                before = Some(header);
            }
        }
        let newest = before.ok_or(Error::form("a log without versions"))?;
        Ok(Audited { newest, versions: size, changes })
    }

    /// Checks that the log's entries are headers, each the next after the one before, and have the root
    /// of the checkpoint. Returns their hashes.
    fn audit_log(&self, size: u64, root: &LogHash) -> Result<Vec<LogHash>, Error> {
        let mut leaves = Vec::new();
        let mut before: Option<Header> = None;
        let mut bad = None;
        for index in 0..size.div_ceil(TILE_WIDTH.into()) {
            let (bundle, bytes) = self.bundle(index, size)?;
            for entry in bundle.decode(&bytes)? {
                let version = Version(leaves.len() as u64);
                leaves.push(LogHash::leaf(entry));
                match self.follows(entry, version, before.as_ref()) {
                    Ok(header) => before = Some(header),
                    Err(fault) => bad = bad.or(Some((version, fault))),
                }
            }
        }
        // Until the root is compared the entries are anyone's word; but which does not fit tells where.
        if root_of(leaves.clone()) != *root {
            let version = bad.map(|(version, _)| version);
            return Err(Error::NotProven { version, fault: Fault::LogRoot });
        }
        bad.map_or(Ok(leaves), |(version, fault)| Err(Error::at(version, fault)))
    }

    fn follows(
        &self,
        entry: &[u8],
        version: Version,
        before: Option<&Header>,
    ) -> Result<Header, Fault> {
        let header = read_header(entry)?;
        match before {
            Some(before) => header.follows(before)?,
            None if header.origin().as_str() != self.policy().origin() => {
                return Err(anwansi_proofs::Error::OriginMismatch.into());
            }
            None => {}
        }
        let answered = header.version();
        if answered == version {
            Ok(header)
        } else {
            Err(Fault::OtherVersion { asked: version, answered })
        }
    }

    /// Checks that a version's changes lead from the state before to its own. Returns how many.
    fn audit_version(
        &self,
        entry: &[u8],
        header: &Header,
        before: Option<&Header>,
    ) -> Result<u64, Error> {
        let version = header.version();
        let path = format!("v1/versions/{version}/changes");
        let mut lines = self.transport.lines(&path, CHANGES_BYTES_MAX).map_err(at(version))?;
        let first: First = lines.json().map_err(at(version))?;
        if first.header.as_bytes() != entry {
            return Err(Error::at(version, Fault::OtherHeader));
        }
        let form = |what: &str| Error::at(version, Fault::Form(what.into()));
        let update = STANDARD.decode(first.update).map_err(|_| form("update is not base64"))?;
        let mut changes: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        loop {
            match lines.json().map_err(at(version))? {
                Line::Change { key_hex, value } => {
                    let key = hex::decode(key_hex).map_err(|_| form("a key is not hex"))?;
                    let value = value.map(|value| STANDARD.decode(value)).transpose();
                    let value = value.map_err(|_| form("a value is not base64"))?;
                    let long = value.as_ref().is_some_and(|value| value.len() > VALUE_BYTES_MAX);
                    if !is_key(&key) || long {
                        let fault =
                            format!("a key over {KEY_BYTES_MAX} bytes or a value over 16 MiB");
                        return Err(Error::at(version, Fault::Form(fault)));
                    }
                    changes.push((key, value));
                }
                Line::End { count } if count == changes.len() as u64 => break,
                Line::End { .. } => return Err(Error::at(version, Fault::Cut)),
            }
        }
        if lines.next().map_err(at(version))?.is_some() {
            return Err(form("a line after the last"));
        }
        let state = before.map_or(Root::empty(), Header::state);
        let changes = changes
            .iter()
            .map(|(key, value)| Change { key, value: value.as_deref() })
            .collect::<Vec<_>>();
        let root = Proof::decode(&update)
            .and_then(|proof| proof.verify(&state)?.apply(&changes))
            .map_err(|error| Error::at(version, error))?;
        if root != header.state() {
            return Err(Error::at(version, Fault::Changes));
        }
        Ok(changes.len() as u64)
    }

    fn bundle(&self, index: u64, size: u64) -> Result<(Bundle, Vec<u8>), Error> {
        let first = index * u64::from(TILE_WIDTH);
        let bundle = Bundle::holding(first, size)?;
        let bytes = self.transport.get(&bundle.to_string(), BUNDLE_BYTES_MAX)?.body;
        Ok((bundle, bytes))
    }
}

#[derive(Deserialize)]
struct First {
    header: String,
    update: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Change { key_hex: String, value: Option<String> },
    End { count: u64 },
}

impl Lines {
    /// The next line, which has to be there.
    fn json<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T, Error> {
        let line = self.next()?.ok_or(Fault::Cut)?;
        serde_json::from_slice(&line).map_err(Error::form)
    }
}

/// Says of which version it was that something did not hold.
fn at(version: Version) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::NotProven { version: None, fault } => Error::at(version, fault),
        error => error,
    }
}

fn read_header(entry: &[u8]) -> Result<Header, Fault> {
    let text = std::str::from_utf8(entry).map_err(|_| Fault::Form("a header is text".into()))?;
    Ok(text.parse::<Header>()?)
}

/// The root of a log of these leaves: each level from the one below, a lone node moving up unchanged.
fn root_of(mut level: Vec<LogHash>) -> LogHash {
    while level.len() > 1 {
        let parent = |pair: &[LogHash]| match pair {
            [left, right] => LogHash::node(left, right),
            lone => lone[0],
        };
        level = level.chunks(2).map(parent).collect();
    }
    level.pop().unwrap_or_else(LogHash::empty)
}
