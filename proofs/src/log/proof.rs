//! Finality proofs: an entry is in the log under a checkpoint. Offline, in one text.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64>            optional; proves nothing and is not looked at
//! index <decimal>
//! <base64 hash>             siblings from the leaf to the root, at most 63
//!
//! <checkpoint, verbatim>
//! ```
//!
//! Source: C2SP tlog-proof.

use alloc::vec::Vec;
use core::{fmt, str::FromStr};

use super::{LogHash, SIBLINGS_MAX, verify_inclusion};
use crate::{
    Checkpoint, Error, Format, Note, Policy,
    note::NOTE_BYTES_MAX,
    text::{DECIMAL_MAX, base64, base64_decode, decimal},
};

/// The longest text of a proof.
pub const LOG_PROOF_BYTES_MAX: usize = 2 * NOTE_BYTES_MAX;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// Claims that an entry stands at an index of a log, and shows it: [`LogProof::verify`].
///
/// `Display` and `FromStr` are the text, of which there is one for each proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogProof {
    extra: Vec<u8>,
    index: u64,
    siblings: Vec<LogHash>,
    checkpoint: Note,
}

impl LogProof {
    /// Puts together the proof of the entry at `index`, without an `extra` line.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the index or the number of siblings is over its limit.
    pub fn new(index: u64, siblings: Vec<LogHash>, checkpoint: Note) -> Result<Self, Error> {
        let refused = |at| Error::Malformed { format: Format::LogProof, at };
        if index > DECIMAL_MAX {
            return Err(refused(2));
        }
        if siblings.len() > SIBLINGS_MAX {
            return Err(refused(3 + SIBLINGS_MAX));
        }
        Ok(LogProof { extra: Vec::new(), index, siblings, checkpoint })
    }

    /// Checks that `entry` stands at [`index`](LogProof::index) of the log `policy` names, under a
    /// checkpoint that the policy accepts, and returns that checkpoint. Its size and root decide.
    ///
    /// The caller compares the index with the one it asked for: a header's version.
    ///
    /// # Errors
    /// Those of [`Policy::verify`], and [`Error::NotInLog`].
    /// # Cost
    /// That of [`Policy::verify`], the hash of the entry, and one hash for each sibling.
    pub fn verify(&self, entry: &[u8], policy: &Policy) -> Result<Checkpoint, Error> {
        let checkpoint = policy.verify_note(&self.checkpoint)?;
        let leaf = LogHash::leaf(entry);
        let (size, root) = (checkpoint.size(), checkpoint.root());
        verify_inclusion(self.index, size, &leaf, &self.siblings, root)?;
        Ok(checkpoint)
    }

    /// The index at which the entry is claimed to stand.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The hashes from the leaf's sibling to the root's child.
    #[must_use]
    pub fn siblings(&self) -> &[LogHash] {
        &self.siblings
    }

    /// The checkpoint, as claimed.
    #[must_use]
    pub fn checkpoint(&self) -> &Note {
        &self.checkpoint
    }
}

impl fmt::Display for LogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        if !self.extra.is_empty() {
            writeln!(f, "extra {}", base64(&self.extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        for sibling in &self.siblings {
            writeln!(f, "{sibling}")?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for LogProof {
    type Err = Error;

    /// Reads a proof. Positions in what is refused of the checkpoint are those within the
    /// checkpoint, and their format is [`Format::Note`].
    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = |at| Error::Malformed { format: Format::LogProof, at };
        if text.len() > LOG_PROOF_BYTES_MAX {
            return Err(refused(1));
        }
        // No line before the checkpoint is empty, so the first empty line ends them.
        let (claim, checkpoint) = text.split_once("\n\n").ok_or(refused(1))?;
        let mut lines = (1..).zip(claim.split('\n')).peekable();
        lines.next_if_eq(&(1, FIRST_LINE)).ok_or(refused(1))?;
        let extra = match lines.peek().and_then(|(_, line)| line.strip_prefix("extra ")) {
            Some(extra) => {
                lines.next();
                let extra = base64_decode(extra).filter(|extra| !extra.is_empty());
                extra.ok_or(refused(2))?
            }
            None => Vec::new(),
        };
        let after_extra = if extra.is_empty() { 2 } else { 3 };
        let index = lines.next().and_then(|(_, line)| line.strip_prefix("index "));
        let index = index.and_then(decimal).ok_or(refused(after_extra))?;
        let mut siblings = Vec::new();
        for (at, line) in lines {
            if siblings.len() == SIBLINGS_MAX {
                return Err(refused(at));
            }
            siblings.push(line.parse().map_err(|_| refused(at))?);
        }
        Ok(LogProof { extra, index, siblings, checkpoint: checkpoint.parse()? })
    }
}
