//! Verifier keys: who may sign a note, and how its signatures are checked.
//!
//! ```text
//! <name>+<key id, 8 hex digits>+<base64 of kind || public key>
//! key id = first four bytes of SHA-256(name || "\n" || kind || public key)
//! ```
//!
//! Source: C2SP signed-note, "Verifier keys".

use alloc::string::String;
use core::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

use crate::{
    Error, Format, cosignature,
    ed25519::PublicKey,
    text::{base64, base64_decode},
};

/// The longest name of a verifier key.
pub const KEY_NAME_BYTES_MAX: usize = 255;

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// Type 0x01, Ed25519 over the note's text: a log's.
    Ed25519,
    /// Type 0x04, Ed25519 over a time and the note's text: a witness's.
    Cosignature,
}

impl KeyKind {
    const fn byte(self) -> u8 {
        match self {
            KeyKind::Ed25519 => 0x01,
            KeyKind::Cosignature => 0x04,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [KeyKind::Ed25519, KeyKind::Cosignature].into_iter().find(|kind| kind.byte() == byte)
    }
}

/// A verifier key. `Display` and `FromStr` are its one text.
///
/// ```
/// # use anwansi_proofs::{Error, KeyKind, Vkey};
/// let text = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
/// let key: Vkey = text.parse()?;
/// assert_eq!((key.name(), key.id(), key.kind()), ("example.com/foo", 0x530d903a, KeyKind::Ed25519));
/// assert_eq!(Vkey::ed25519("example.com/foo", key.public())?.to_string(), text);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vkey {
    name: String,
    id: u32,
    kind: KeyKind,
    public: PublicKey,
}

impl Vkey {
    /// The key of a log, of type 0x01.
    ///
    /// # Errors
    /// [`Error::Malformed`], with the position in the key's text, if `name` is no key's name (1 to
    /// 255 bytes, no Unicode space, no `+`, no control character below U+0020), or `public` is
    /// not the one encoding of an Ed25519 key that is not of small order.
    pub fn ed25519(name: &str, public: &[u8; 32]) -> Result<Self, Error> {
        Vkey::new(name, KeyKind::Ed25519, public)
    }

    /// The key of a witness, of type 0x04.
    ///
    /// # Errors
    /// Those of [`Vkey::ed25519`].
    pub fn cosignature(name: &str, public: &[u8; 32]) -> Result<Self, Error> {
        Vkey::new(name, KeyKind::Cosignature, public)
    }

    fn new(name: &str, kind: KeyKind, public: &[u8; 32]) -> Result<Self, Error> {
        let refused = |at| Error::Malformed { format: Format::Vkey, at };
        if let Some(at) = name.find(not_in_name) {
            return Err(refused(at));
        }
        if !(1..=KEY_NAME_BYTES_MAX).contains(&name.len()) {
            return Err(refused(name.len().min(KEY_NAME_BYTES_MAX)));
        }
        let key = PublicKey::parse(public).ok_or(refused(name.len() + "+01234567+".len()))?;
        let hasher = Sha256::new().chain_update(name).chain_update([b'\n', kind.byte()]);
        let [a, b, c, d, ..] = hasher.chain_update(public).finalize().0;
        let id = u32::from_be_bytes([a, b, c, d]);
        Ok(Vkey { name: name.into(), id, kind, public: key })
    }

    /// The key's name: the origin of a log, the name a witness gives itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's id, which stands in its signature lines.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What the key signs.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The 32 bytes of the Ed25519 key.
    #[must_use]
    pub fn public(&self) -> &[u8; 32] {
        self.public.as_bytes()
    }

    /// Whether `signature` is of type 0x01, over `text`.
    pub(crate) fn signed(&self, text: &str, signature: &[u8]) -> bool {
        let signature = signature.try_into().ok();
        signature.is_some_and(|signature| self.public.verify(text.as_bytes(), signature))
    }

    /// The time of `signature`, if it is of type 0x04, over `text`.
    pub(crate) fn cosigned(&self, text: &str, signature: &[u8]) -> Option<u64> {
        let (time, signature) = cosignature::decode(signature)?;
        let message = cosignature::message(time, text);
        self.public.verify(message.as_bytes(), &signature).then_some(time)
    }
}

/// Whether a character may not stand in a key's name.
pub(crate) fn not_in_name(character: char) -> bool {
    character.is_whitespace() || character == '+' || character < ' '
}

impl fmt::Display for Vkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = [self.kind.byte(); 33];
        key[1..].copy_from_slice(self.public());
        write!(f, "{}+{:08x}+{}", self.name, self.id, base64(&key))
    }
}

impl FromStr for Vkey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        const KEY_TEXT_BYTES: usize = 44;
        let refused = |at| Error::Malformed { format: Format::Vkey, at };
        let (name, rest) = text.split_once('+').ok_or(refused(text.len()))?;
        let (id, key) = rest.split_once('+').ok_or(refused(text.len()))?;
        let (id_at, key_at) = (name.len() + 1, text.len() - key.len());
        let key = (key.len() == KEY_TEXT_BYTES).then(|| base64_decode(key)).flatten();
        let key: [u8; 33] = key.and_then(|key| key.try_into().ok()).ok_or(refused(key_at))?;
        let [kind, public @ ..] = key;
        let kind = KeyKind::from_byte(kind).ok_or(refused(key_at))?;
        let vkey = Vkey::new(name, kind, &public)?;
        if id == alloc::format!("{:08x}", vkey.id) { Ok(vkey) } else { Err(refused(id_at)) }
    }
}
