//! The log's signing key: made on first start, kept in a file that only its owner can read.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anwansi_proofs::{Digest, LogHash, Note, Origin, Signature, Vkey, checkpoint_body};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};

/// What every key file starts with, as other tools for signed notes write it.
const SCHEME: &str = "PRIVATE+KEY+";
/// Ed25519.
const KIND: u8 = 1;

/// Signs the log's checkpoints.
pub struct LogKey {
    origin: Origin,
    vkey: Vkey,
    secret: SigningKey,
}

impl LogKey {
    /// The key with this secret, for the log `origin`; none: `localhost:7171/` and eight hex digits of
    /// the public key's digest.
    ///
    /// # Errors
    /// If the origin is no name for a key.
    pub fn from_secret(
        secret: [u8; 32],
        origin: Option<Origin>,
    ) -> Result<Self, anwansi_proofs::Error> {
        let secret = SigningKey::from_bytes(&secret);
        let public = secret.verifying_key().to_bytes();
        let origin = match origin {
            Some(origin) => origin,
            None => format!("localhost:7171/{}", &Digest::of(&public).to_string()[..8]).parse()?,
        };
        let vkey = Vkey::ed25519(origin.as_str(), &public)?;
        Ok(LogKey { origin, vkey, secret })
    }

    /// Makes a key from the operating system's randomness.
    ///
    /// # Errors
    /// If there is none.
    pub fn generate(origin: Option<Origin>) -> io::Result<Self> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        Self::from_secret(secret, origin).map_err(io::Error::other)
    }

    /// Reads the key in `file`, or makes one and writes it there, readable by its owner only.
    ///
    /// # Errors
    /// If the file cannot be read or written, is readable by others, holds no key, or holds the key of
    /// another origin than the one asked for.
    pub fn load_or_create(file: &Path, origin: Option<Origin>) -> io::Result<Self> {
        match fs::read_to_string(file) {
            Ok(text) => {
                let mode = fs::metadata(file)?.permissions().mode();
                if mode & 0o077 != 0 {
                    let mode = mode & 0o777;
                    return Err(invalid(file, &format!("has mode {mode:o}: make it 600")));
                }
                let key =
                    Self::parse(&text).ok_or_else(|| invalid(file, "holds no signing key"))?;
                match origin {
                    Some(origin) if origin != key.origin => {
                        let found = key.origin;
                        Err(invalid(file, &format!("holds the key of {found}, not of {origin}")))
                    }
                    _ => Ok(key),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Self::generate(origin)?;
                write_secret(file, &key.to_text())?;
                Ok(key)
            }
            Err(error) => Err(error),
        }
    }

    /// The name of the log.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The key that checkpoints are verified with.
    #[must_use]
    pub fn vkey(&self) -> &Vkey {
        &self.vkey
    }

    /// The signed checkpoint of a log of `size` entries with the root `root`.
    #[must_use]
    pub fn checkpoint(&self, size: u64, root: &LogHash) -> Note {
        let body = checkpoint_body(self.origin.as_str(), size, root)
            .expect("the origin is a name and the size that of a log");
        let signature = self.secret.sign(body.as_bytes()).to_bytes();
        Note::new(body, vec![Signature::new(&self.vkey, &signature)])
            .expect("a checkpoint is the text of a note")
    }

    fn to_text(&self) -> String {
        let secret = [&[KIND][..], &self.secret.to_bytes()].concat();
        format!("{SCHEME}{}+{:08x}+{}\n", self.origin, self.vkey.id(), STANDARD.encode(secret))
    }

    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_suffix('\n')?.strip_prefix(SCHEME)?;
        let (origin, rest) = rest.split_once('+')?;
        let (_, secret) = rest.split_once('+')?;
        let secret = STANDARD.decode(secret).ok()?;
        let secret = secret.strip_prefix(&[KIND])?.try_into().ok()?;
        let key = Self::from_secret(secret, Some(origin.parse().ok()?)).ok()?;
        // The id in the middle follows from the rest.
        (key.to_text() == text).then_some(key)
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogKey").field("vkey", &self.vkey).finish_non_exhaustive()
    }
}

fn invalid(file: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} {what}", file.display()))
}

/// Writes a new file that only its owner can read, durable before it has its name. Refused if there is
/// one by now: nobody's key is ever replaced.
fn write_secret(file: &Path, text: &str) -> io::Result<()> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    // Made with mode 0600.
    let mut written = tempfile::NamedTempFile::new_in(directory)?;
    written.write_all(text.as_bytes())?;
    written.as_file().sync_all()?;
    // A crash here leaves a temporary file, which nothing reads.
    written.persist_noclobber(file)?;
    fs::File::open(directory)?.sync_all()
}
