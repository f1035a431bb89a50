//! What a client remembers of a log: the newest checkpoint it accepted, or that the log was forked.
//!
//! ```text
//! <directory>/logs/<name>.checkpoint     the whole signed note
//! <directory>/logs/<name>.fork           two signed notes, as JSON: nothing is believed while it is there
//! <directory>/logs/<name>.doubt          two signed notes that were not shown to follow from each other
//! <directory>/logs/<name>.lock           held while one of these is read or replaced
//! ```
//!
//! `<name>` is the log's origin, made a file's name, and a part of its digest.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anwansi_proofs::{Digest, NOTE_BYTES_MAX};

use crate::Error;

/// Where a client keeps what it knows of one log. Each function takes effect as a whole, also between
/// processes.
pub trait Memory: Send + Sync {
    /// What is remembered.
    ///
    /// # Errors
    /// [`Error::File`] if that cannot be told: then nothing may be believed.
    fn recall(&self) -> Result<Recalled, Error>;

    /// Remembers the note `new`, for good, if `old` is still what is remembered; `false` if it is not.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be kept: then nothing may be believed that rests on it.
    fn replace(&self, old: Option<&str>, new: &str) -> Result<bool, Error>;

    /// Keeps the proof of a fork, for ever, and tells where.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be kept.
    fn keep_fork(&self, evidence: &str) -> Result<String, Error>;

    /// Keeps two notes that were not shown to follow from each other, in place of such before.
    ///
    /// # Errors
    /// [`Error::File`] if they cannot be kept.
    fn keep_doubt(&self, evidence: &str) -> Result<(), Error>;
}

/// What is remembered of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// Nothing: any checkpoint that the policy accepts is the first.
    Nothing,
    /// The signed note of the newest checkpoint that was accepted.
    Checkpoint(String),
    /// The log was forked.
    Forked {
        /// Where the evidence is.
        kept: String,
    },
}

/// Memory in files of a directory that only its owner reads.
#[derive(Debug)]
pub struct FileMemory {
    directory: PathBuf,
    name: String,
}

impl FileMemory {
    /// The memory of the log `origin` in `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be made.
    pub fn new(directory: impl AsRef<Path>, origin: &str) -> Result<Self, Error> {
        let directory = directory.as_ref().join("logs");
        make_directory(&directory)?;
        Ok(FileMemory { directory, name: file_name(origin) })
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.directory.join(format!("{}.{kind}", self.name))
    }

    /// Waits until nobody else reads or writes these files; they are let go with what is returned.
    fn lock(&self) -> Result<File, Error> {
        let path = self.path("lock");
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let file = file.map_err(Error::file(&path))?;
        file.lock().map_err(Error::file(&path))?;
        Ok(file)
    }

    fn recall_locked(&self) -> Result<Recalled, Error> {
        let fork = self.path("fork");
        if fork.try_exists().map_err(Error::file(&fork))? {
            return Ok(Recalled::Forked { kept: fork.display().to_string() });
        }
        let path = self.path("checkpoint");
        let read = File::open(&path).and_then(|file| {
            let mut note = String::new();
            file.take(NOTE_BYTES_MAX as u64 + 1).read_to_string(&mut note).map(|_| note)
        });
        match read {
            Ok(note) => Ok(Recalled::Checkpoint(note)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Recalled::Nothing),
            Err(error) => Err(Error::file(path)(error)),
        }
    }
}

impl Memory for FileMemory {
    fn recall(&self) -> Result<Recalled, Error> {
        let _lock = self.lock()?;
        self.recall_locked()
    }

    fn replace(&self, old: Option<&str>, new: &str) -> Result<bool, Error> {
        let _lock = self.lock()?;
        let still = match self.recall_locked()? {
            Recalled::Nothing => old.is_none(),
            Recalled::Checkpoint(note) => old == Some(&*note),
            Recalled::Forked { .. } => false,
        };
        if still {
            write_atomically(&self.path("checkpoint"), new.as_bytes())?;
        }
        Ok(still)
    }

    fn keep_fork(&self, evidence: &str) -> Result<String, Error> {
        let _lock = self.lock()?;
        let path = self.path("fork");
        // The first one is kept: it is enough, and it has been named.
        if !path.try_exists().map_err(Error::file(&path))? {
            write_atomically(&path, evidence.as_bytes())?;
        }
        Ok(path.display().to_string())
    }

    fn keep_doubt(&self, evidence: &str) -> Result<(), Error> {
        let _lock = self.lock()?;
        write_atomically(&self.path("doubt"), evidence.as_bytes())
    }
}

/// Memory that ends with the process: for tests, and for those who keep the note themselves.
#[derive(Debug, Default)]
pub struct InMemory(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    note: Option<String>,
    fork: Option<String>,
}

impl InMemory {
    /// A memory of this note, which was accepted before.
    #[must_use]
    pub fn of(note: String) -> Self {
        InMemory(Mutex::new(Kept { note: Some(note), fork: None }))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory for InMemory {
    fn recall(&self) -> Result<Recalled, Error> {
        let kept = self.kept();
        Ok(match (&kept.fork, &kept.note) {
            (Some(_), _) => Recalled::Forked { kept: "memory".into() },
            (None, Some(note)) => Recalled::Checkpoint(note.clone()),
            (None, None) => Recalled::Nothing,
        })
    }

    fn replace(&self, old: Option<&str>, new: &str) -> Result<bool, Error> {
        let mut kept = self.kept();
        let still = kept.fork.is_none() && kept.note.as_deref() == old;
        if still {
            kept.note = Some(new.into());
        }
        Ok(still)
    }

    fn keep_fork(&self, evidence: &str) -> Result<String, Error> {
        self.kept().fork.get_or_insert_with(|| evidence.into());
        Ok("memory".into())
    }

    fn keep_doubt(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }
}

impl<M: Memory + ?Sized> Memory for std::sync::Arc<M> {
    fn recall(&self) -> Result<Recalled, Error> {
        (**self).recall()
    }

    fn replace(&self, old: Option<&str>, new: &str) -> Result<bool, Error> {
        (**self).replace(old, new)
    }

    fn keep_fork(&self, evidence: &str) -> Result<String, Error> {
        (**self).keep_fork(evidence)
    }

    fn keep_doubt(&self, evidence: &str) -> Result<(), Error> {
        (**self).keep_doubt(evidence)
    }
}

/// The name of a file for `text`: what is harmless of it, and enough of its digest to be its own.
pub(crate) fn file_name(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let shown = text.bytes().take(SHOWN_MAX);
    let shown = shown.map(|byte| if harmless(byte) { char::from(byte) } else { '_' });
    let digest = Digest::of(text.as_bytes()).to_string();
    format!("{}-{}", shown.collect::<String>(), &digest[..16])
}

/// Makes a directory, and those above it, which only its owner reads.
pub(crate) fn make_directory(directory: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(Error::file(directory))
}

/// Writes a file that only its owner reads, in place of the one that is there, as a whole and for good.
///
/// # Errors
/// [`Error::File`]: then the file is what it was, or what it should be.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let write = || {
        // Made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        // A crash here leaves the old file, and a temporary one that nobody reads.
        file.persist(path)?;
        fs::File::open(directory)?.sync_all()
    };
    write().map_err(Error::file(path))
}
