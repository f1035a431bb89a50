//! A node's secret key: signs its pledges, and derives what hides its results until they are revealed.
//!
//! ```text
//! the file    anwansi/node/v1 <base64 of 32 bytes>\n       mode 0600, never replaced
//! the salt    H("anwansi/salt/v1\n" || secret || opened || transition || task || round || digest)
//! ```
//!
//! A salt follows from the secret, the place and the result, and a signature from the secret and what is
//! signed: a node that does its part again, after a crash, repeats itself to the byte. Nobody learns the
//! secret from salts, which are shown in the end: they are digests.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anwansi_proofs::{
    Digest, NodeKey, Origin, Place, Pledge, hash::Hasher, registry::join_message,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};

use crate::Error;

/// What the file of a node's key starts with.
const FORMAT: &str = "anwansi/node/v1 ";
/// Longer than such a file is.
const FILE_BYTES_MAX: u64 = 1024;

/// A node's secret key. Never shown.
pub struct NodeSecret(SigningKey);

impl NodeSecret {
    /// The key with these secret bytes.
    #[must_use]
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        NodeSecret(SigningKey::from_bytes(secret))
    }

    /// Makes a key from the operating system's randomness.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is none.
    pub fn generate() -> Result<Self, Error> {
        let mut secret = [0; 32];
        let filled = getrandom::fill(&mut secret);
        filled.map_err(|error| Error::Usage(format!("no randomness: {error}")))?;
        Ok(Self::from_bytes(&secret))
    }

    /// Makes a key and writes it to `file`, which only its owner can read.
    ///
    /// # Errors
    /// [`Error::File`]: also if the file is there, since nobody's key is ever replaced.
    pub fn create(file: &Path) -> Result<Self, Error> {
        let secret = Self::generate()?;
        secret.write(file).map_err(Error::file(file))?;
        Ok(secret)
    }

    /// Reads the key in `file`.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read, holds no key, or can be read by others.
    pub fn load(file: &Path) -> Result<Self, Error> {
        let read = || {
            let metadata = fs::metadata(file)?;
            let mode = metadata.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(invalid(format!("has mode {mode:o}: make it 600")));
            }
            if metadata.len() > FILE_BYTES_MAX {
                return Err(invalid("holds no node's key".into()));
            }
            let text = fs::read_to_string(file)?;
            Self::parse(&text).ok_or_else(|| invalid("holds no node's key".into()))
        };
        read().map_err(Error::file(file))
    }

    /// Who the node is.
    #[must_use]
    pub fn key(&self) -> NodeKey {
        NodeKey(self.0.verifying_key().to_bytes())
    }

    /// The node's signature that it wants to be registered with the log `origin`.
    #[must_use]
    pub fn join(&self, origin: &Origin) -> [u8; 64] {
        self.0.sign(&join_message(origin)).to_bytes()
    }

    /// What hides the result with this digest in the node's pledge: the same each time.
    #[must_use]
    pub fn salt(&self, place: &Place, digest: &Digest) -> [u8; 32] {
        let mut hasher = Hasher::default();
        hasher.update(b"anwansi/salt/v1\n");
        hasher.update(self.0.as_bytes());
        hasher.update(&place.opened.0);
        hasher.update(&place.transition.0.0);
        hasher.update(&place.task.to_be_bytes());
        hasher.update(&place.round.to_be_bytes());
        hasher.update(&digest.0);
        hasher.finish().0
    }

    /// The node's signed pledge for the result with this digest: the same each time.
    ///
    /// Two pledges for two results at one place are a fault that the ledger keeps for ever: whoever
    /// calls this has made sure that the result is the one of before.
    #[must_use]
    pub fn pledge(&self, place: &Place, digest: &Digest) -> Pledge {
        let node = self.key();
        let pledge = place.pledge(&node, digest, &self.salt(place, digest));
        let signature = self.0.sign(&place.signed(&pledge)).to_bytes();
        Pledge { node, pledge, signature }
    }

    fn parse(text: &str) -> Option<Self> {
        let secret = text.strip_prefix(FORMAT)?.strip_suffix('\n')?;
        let secret = STANDARD.decode(secret).ok()?.try_into().ok()?;
        Some(Self::from_bytes(&secret))
    }

    fn write(&self, file: &Path) -> io::Result<()> {
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        // Made with mode 0600.
        let mut written = tempfile::NamedTempFile::new_in(directory)?;
        writeln!(written, "{FORMAT}{}", STANDARD.encode(self.0.as_bytes()))?;
        written.as_file().sync_all()?;
        // A crash here leaves a temporary file, which nothing reads.
        written.persist_noclobber(file)?;
        fs::File::open(directory)?.sync_all()
    }
}

impl fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeSecret(of {})", self.key())
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use anwansi_proofs::{TransitionId, Vote};

    use super::*;

    fn place() -> Place {
        let transition = TransitionId(Digest([2; 32]));
        Place { opened: Digest([1; 32]), transition, task: 3, round: 4 }
    }

    #[test]
    fn a_pledge_is_signed_opens_and_repeats_itself() {
        let secret = NodeSecret::from_bytes(&[7; 32]);
        let (place, digest) = (place(), Digest::of(b"result"));
        let pledge = secret.pledge(&place, &digest);
        assert!(pledge.is_signed(&place));
        let salt = secret.salt(&place, &digest);
        assert!(Vote { pledge, salt, digest, round: 4 }.opens(&place));
        assert_eq!(NodeSecret::from_bytes(&[7; 32]).pledge(&place, &digest), pledge);
    }

    #[test]
    fn everything_that_a_salt_depends_on_changes_it() {
        let secret = NodeSecret::from_bytes(&[7; 32]);
        let (here, digest) = (place(), Digest::of(b"result"));
        let others = [
            Place { opened: Digest([9; 32]), ..here },
            Place { transition: TransitionId(Digest([9; 32])), ..here },
            Place { task: 9, ..here },
            Place { round: 9, ..here },
        ];
        let mut salts = others.map(|place| secret.salt(&place, &digest)).to_vec();
        salts.push(secret.salt(&here, &digest));
        salts.push(secret.salt(&here, &Digest::of(b"other")));
        salts.push(NodeSecret::from_bytes(&[8; 32]).salt(&here, &digest));
        for (index, salt) in salts.iter().enumerate() {
            assert!(!salts[..index].contains(salt), "{index}");
            assert_ne!(*salt, [7; 32]);
        }
    }

    #[test]
    fn a_key_is_kept_in_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let made = NodeSecret::create(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(NodeSecret::load(&file).unwrap().key(), made.key());
        let again = NodeSecret::create(&file).unwrap_err();
        assert!(matches!(again, Error::File { .. }), "{again}");
        assert_eq!(NodeSecret::load(&file).unwrap().key(), made.key(), "it is never replaced");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let open = NodeSecret::load(&file).unwrap_err();
        assert!(open.to_string().contains("has mode 640"), "{open}");
        for text in ["", "anwansi/node/v1 AA==\n", "anwansi/node/v2 \n", "AAAA\n"] {
            let file = directory.path().join("other");
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(NodeSecret::load(&file).is_err(), "{text:?}");
        }
        assert!(!format!("{made:?}").contains(&STANDARD.encode(made.0.as_bytes())));
    }
}
