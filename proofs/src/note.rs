//! Signed notes: a text, and lines that sign it.
//!
//! ```text
//! <text, lines; may hold empty ones>
//!                                       the last empty line splits
//! — <key name> <base64 of key id || signature>
//! ```
//!
//! Parsing checks no signature: a [`Note`] is a claim. Source: C2SP signed-note v1.0.0.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, str::FromStr};

use crate::{
    Error, Format, KeyKind, Vkey,
    text::{base64, base64_decode},
    vkey::not_in_name,
};

/// The longest note: room for a checkpoint and [`SIGNATURES_MAX`] Ed25519 signatures, or sixteen of the
/// largest post-quantum ones.
pub const NOTE_BYTES_MAX: usize = 256 * 1024;

/// The most signature lines of a note.
pub const SIGNATURES_MAX: usize = 100;

const DASH: &str = "\u{2014} ";

const KEY_ID_BYTES: usize = 4;

/// A text and who is said to have signed it. `Display` and `FromStr` are its one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

/// A signature line. `Display` and `FromStr` are the line without its newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    name: String,
    key_id: u32,
    bytes: Vec<u8>,
}

impl Note {
    /// Puts together a note, whose signatures may or may not be right.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the text does not end in a newline or holds another control character,
    /// or the note has no signature or is over a limit.
    pub fn new(text: String, signatures: Vec<Signature>) -> Result<Self, Error> {
        if !text.ends_with('\n') {
            let lines = text.split('\n').count();
            return Err(Error::Malformed { format: Format::Note, at: lines });
        }
        // What cannot be read is not written.
        Note { text, signatures }.to_string().parse()
    }

    /// The signed text, with its last newline.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines in their order, of known and unknown keys.
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Whether `key`, of type 0x01, signed the text; `false` for a key of another type.
    ///
    /// # Errors
    /// [`Error::BadSignature`] if one of this key's lines is wrong: that rejects the note.
    /// # Cost
    /// One signature check for each line of this key.
    pub fn signed_by(&self, key: &Vkey) -> Result<bool, Error> {
        let mut signed = false;
        for signature in self.lines_of(key, KeyKind::Ed25519) {
            if !key.signed(&self.text, &signature.bytes) {
                return Err(Error::BadSignature { key_id: key.id() });
            }
            signed = true;
        }
        Ok(signed)
    }

    /// The time, in seconds since 1970, at which `key`, of type 0x04, cosigned the text: the latest
    /// of several. `None` if it did not, or the key is of another type.
    ///
    /// # Errors
    /// [`Error::BadSignature`] if one of this key's lines is wrong: that rejects the note.
    /// # Cost
    /// One signature check for each line of this key.
    pub fn cosigned_by(&self, key: &Vkey) -> Result<Option<u64>, Error> {
        let mut latest = None;
        for signature in self.lines_of(key, KeyKind::Cosignature) {
            let time = key.cosigned(&self.text, &signature.bytes);
            let time = time.ok_or(Error::BadSignature { key_id: key.id() })?;
            latest = latest.max(Some(time));
        }
        Ok(latest)
    }

    /// The lines with this key's name and id; none if the key is not of `kind`.
    fn lines_of<'a>(&'a self, key: &'a Vkey, kind: KeyKind) -> impl Iterator<Item = &'a Signature> {
        let of_key = move |line: &&Signature| line.name == key.name() && line.key_id == key.id();
        self.signatures.iter().filter(move |_| key.kind() == kind).filter(of_key)
    }
}

impl Signature {
    /// The line for a signature by `key`: for type 0x01 the 64 bytes of Ed25519 over the note's text,
    /// for type 0x04 what [`cosignature::encode`](crate::cosignature::encode) gives.
    #[must_use]
    pub fn new(key: &Vkey, bytes: &[u8]) -> Self {
        Signature { name: key.name().into(), key_id: key.id(), bytes: bytes.into() }
    }

    /// The name of the key.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of the key.
    #[must_use]
    pub fn key_id(&self) -> u32 {
        self.key_id
    }

    /// The signature itself, without the key's id.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

impl FromStr for Note {
    type Err = Error;

    fn from_str(note: &str) -> Result<Self, Error> {
        let refused = |at| Error::Malformed { format: Format::Note, at };
        let line_at = |at: usize| 1 + note[..at].matches('\n').count();
        if note.len() > NOTE_BYTES_MAX {
            return Err(refused(1));
        }
        if let Some(at) = note.find(|character| character < ' ' && character != '\n') {
            return Err(refused(line_at(at)));
        }
        let split = note.rfind("\n\n").ok_or(refused(line_at(note.len())))?;
        let (text, lines) = (&note[..=split], &note[split + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(refused(line_at(note.len())))?;
        let first_at = line_at(split + 2);
        let mut signatures = Vec::new();
        for (at, line) in (first_at..).zip(lines.split('\n')) {
            if signatures.len() == SIGNATURES_MAX {
                return Err(refused(at));
            }
            signatures.push(line.parse().map_err(|_| refused(at))?);
        }
        Ok(Note { text: text.into(), signatures })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.key_id.to_be_bytes().to_vec();
        bytes.extend(&self.bytes);
        write!(f, "{DASH}{} {}", self.name, base64(&bytes))
    }
}

impl FromStr for Signature {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self, Error> {
        let refused = Error::Malformed { format: Format::Note, at: 1 };
        if line.len() > NOTE_BYTES_MAX {
            return Err(refused);
        }
        let (name, signature) =
            line.strip_prefix(DASH).and_then(|line| line.split_once(' ')).ok_or(refused)?;
        if name.is_empty() || name.contains(not_in_name) {
            return Err(refused);
        }
        let signature = base64_decode(signature).ok_or(refused)?;
        let (key_id, bytes) = signature.split_first_chunk::<KEY_ID_BYTES>().ok_or(refused)?;
        if bytes.is_empty() {
            return Err(refused);
        }
        let key_id = u32::from_be_bytes(*key_id);
        Ok(Signature { name: name.into(), key_id, bytes: bytes.into() })
    }
}
