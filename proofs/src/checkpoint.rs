//! Checkpoints: the size and root of a log, as its signers vouch for them.
//!
//! ```text
//! <origin>
//! <decimal size>
//! <base64 root>      and no line more
//! ```
//!
//! A [`Note`] with such a text is a claim. A [`Checkpoint`] is a fact under a policy, and
//! [`Policy::verify`] is the only door to it. Source: C2SP tlog-checkpoint.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use crate::{
    Error, Format, LogHash, Note, Policy, Vkey,
    log::verify_consistency,
    text::{DECIMAL_MAX, decimal},
};

/// A checkpoint that a policy accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Checkpoint {
    body: Body,
    note: String,
    cosignatures: Vec<Cosignature>,
}

/// A verified cosignature by a witness of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignature {
    witness: Vkey,
    time: u64,
}

/// What a checkpoint's text says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Body {
    origin: String,
    size: u64,
    root: LogHash,
}

impl Checkpoint {
    /// Checks a note under a policy: the contract is [`Policy::verify`]'s. No other function makes a
    /// checkpoint.
    pub(crate) fn verified(note: &Note, policy: &Policy) -> Result<Self, Error> {
        if !note.signed_by(policy.log())? {
            return Err(Error::NotSigned);
        }
        let body = Body::parse(note.text())?;
        if body.origin != policy.origin() {
            return Err(Error::OriginMismatch);
        }
        let mut cosignatures = Vec::new();
        for witness in policy.witnesses() {
            if let Some(time) = note.cosigned_by(witness)? {
                cosignatures.push(Cosignature { witness: witness.clone(), time });
            }
        }
        if !policy.quorum_since(&cosignatures, 0) {
            return Err(Error::NoQuorum);
        }
        Ok(Checkpoint { body, note: note.to_string(), cosignatures })
    }

    /// The origin of the log: its key's name.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.body.origin
    }

    /// The number of entries, at most 2^53 - 1.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.body.size
    }

    /// The root of the log's tree.
    #[must_use]
    pub fn root(&self) -> &LogHash {
        &self.body.root
    }

    /// The whole note it was verified from, to be kept and shown again.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The cosignatures of the policy's witnesses, in the policy's order, one of each witness.
    #[must_use]
    pub fn cosignatures(&self) -> &[Cosignature] {
        &self.cosignatures
    }

    /// Checks that this log continues that of an `older` checkpoint: it starts with its entries.
    ///
    /// # Errors
    /// [`Error::OriginMismatch`] between two logs; else those of [`verify_consistency`]: on
    /// [`Error::Inconsistent`] with an honest proof the log was forked, and the two notes show it.
    pub fn continues(&self, older: &Checkpoint, proof: &[LogHash]) -> Result<(), Error> {
        if self.origin() != older.origin() {
            return Err(Error::OriginMismatch);
        }
        verify_consistency(older.size(), older.root(), self.size(), self.root(), proof)
    }
}

impl Cosignature {
    /// The key of the witness.
    #[must_use]
    pub fn witness(&self) -> &Vkey {
        &self.witness
    }

    /// When it was made by the witness's clock, in seconds since 1970.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.time
    }
}

/// The text a log signs, and witnesses after it.
///
/// # Errors
/// [`Error::Malformed`] in the line where no reader would accept it: an origin that is empty or holds
/// a control character, a size over 2^53 - 1, or the root of an empty log for another one.
pub fn checkpoint_body(origin: &str, size: u64, root: &LogHash) -> Result<String, Error> {
    let body = format!("{origin}\n{size}\n{root}\n");
    let Body { .. } = Body::parse(&body)?;
    Ok(body)
}

impl Body {
    /// Reads a checkpoint's text.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the line.
    fn parse(text: &str) -> Result<Self, Error> {
        let refused = |at| Error::Malformed { format: Format::Checkpoint, at };
        let mut lines = text.split_inclusive('\n').map(|line| line.strip_suffix('\n'));
        let mut line = |at| lines.next().flatten().ok_or(refused(at));
        let (origin, size, root) = (line(1)?, line(2)?, line(3)?);
        if lines.next().is_some() {
            return Err(refused(4));
        }
        if origin.is_empty() || origin.contains(|character| character < ' ') {
            return Err(refused(1));
        }
        let size = decimal(size).filter(|size| *size <= DECIMAL_MAX).ok_or(refused(2))?;
        let root: LogHash = root.parse().map_err(|_| refused(3))?;
        // A log without entries has one root, and no other log has it.
        if (size == 0) != (root == LogHash::empty()) {
            return Err(refused(3));
        }
        Ok(Body { origin: origin.into(), size, root })
    }
}
