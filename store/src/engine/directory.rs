//! The directory of a local engine: made, recognised as ours, and locked to one writer.
//!
//! ```text
//! data/             0700
//!   lock            empty; locked by whoever has the directory open
//!   anwansi-store   the marker: format, engine, state; replaced by renaming
//!   fjall/          the engine's own files, in a directory of the engine's name
//! ```
//!
//! The marker says `creating` until the engine has made its files for the first time, then `ready`.
//! Some engines do not survive a crash in the middle of that; nothing can have been acknowledged
//! yet, so their files are removed and made again.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::EngineError;

const LOCK: &str = "lock";
const MARKER: &str = "anwansi-store";
const MARKER_NEXT: &str = "anwansi-store.next";

/// First line of the marker; the number is that of this layout.
const FORMAT: &str = "anwansi-store 1";
/// The longest marker that is read, in bytes.
const MARKER_BYTES_MAX: u64 = 256;

/// A directory that is ours, and locked until this is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    engine: &'static str,
    _lock: Lock,
}

/// The lock file, locked until this is dropped.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Said outright: a process that is just being started has a copy of the open file until it runs
        // its own program, and closing ours would leave the lock with that. An error leaves it to closing.
        let _ = self.0.unlock();
    }
}

/// What the marker says of the engine's files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Creating,
    Ready,
}

impl Directory {
    /// Locks `path` for `engine`, making it if need be, and returns what `build` makes of the
    /// directory in which the engine keeps its files.
    ///
    /// # Errors
    /// As [`super::open`], and those of `build`.
    pub(super) fn open<T>(
        path: &Path,
        engine: &'static str,
        build: impl FnOnce(&Path) -> Result<T, EngineError>,
    ) -> Result<(Self, T), EngineError> {
        create_private(path).map_err(EngineError::io("making the directory"))?;
        // The lock file is made in a directory that is ours or empty, never in a foreign one.
        refuse_foreign(path)?;
        let directory = Self { path: path.to_owned(), engine, _lock: lock(path)? };
        // Again, now that nobody else can be filling it.
        refuse_foreign(path)?;
        let files = path.join(engine);
        if directory.read_marker()? != Some(State::Ready) {
            directory.write_marker(State::Creating)?;
            // A crash here leaves an empty store that says so, and is made anew.
            remove_all(&files).map_err(EngineError::io("removing half made files"))?;
            create_private(&files).map_err(EngineError::io("making the engine's directory"))?;
            let opened = build(&files)?;
            // A crash here leaves the engine's files, complete or not, without data: made anew.
            directory.write_marker(State::Ready)?;
            // A crash here leaves an empty store.
            return Ok((directory, opened));
        }
        if !files.is_dir() {
            return Err(EngineError::corrupt("opening", "the engine's directory is missing"));
        }
        let opened = build(&files)?;
        Ok((directory, opened))
    }

    fn read_marker(&self) -> Result<Option<State>, EngineError> {
        let doing = "reading the marker file";
        let path = self.path.join(MARKER);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(EngineError::io(doing)(error)),
            Ok(metadata) if metadata.len() > MARKER_BYTES_MAX => {
                return Err(EngineError::corrupt(doing, "longer than any marker"));
            }
            Ok(_) => {}
        }
        let text = fs::read(&path).map_err(EngineError::io(doing))?;
        let text = String::from_utf8(text).map_err(|error| EngineError::corrupt(doing, error))?;
        let lines: Vec<&str> = text.lines().collect();
        let [FORMAT, found, state] = lines[..] else {
            return Err(EngineError::corrupt(doing, "not a marker of this format"));
        };
        if found != self.engine {
            return Err(EngineError::OtherEngine {
                path: self.path.clone(),
                found: found.to_owned(),
            });
        }
        match state {
            "creating" => Ok(Some(State::Creating)),
            "ready" => Ok(Some(State::Ready)),
            _ => Err(EngineError::corrupt(doing, "neither creating nor ready")),
        }
    }

    fn write_marker(&self, state: State) -> Result<(), EngineError> {
        let state = match state {
            State::Creating => "creating",
            State::Ready => "ready",
        };
        let text = format!("{FORMAT}\n{}\n{state}\n", self.engine);
        replace(&self.path, &text).map_err(EngineError::io("writing the marker file"))
    }
}

/// Refuses a directory with other files than ours. One with nothing but what a crash before the
/// first marker leaves counts as empty.
fn refuse_foreign(path: &Path) -> Result<(), EngineError> {
    let doing = "listing the directory";
    if path.join(MARKER).try_exists().map_err(EngineError::io(doing))? {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(EngineError::io(doing))? {
        let name = entry.map_err(EngineError::io(doing))?.file_name();
        if name != LOCK && name != MARKER_NEXT {
            return Err(EngineError::NotOurs { path: path.to_owned() });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<Lock, EngineError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join(LOCK))
        .map_err(EngineError::io("making the lock file"))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(EngineError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(EngineError::io("locking the directory")(error)),
    }
}

/// Replaces the marker at once and durably.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let next = path.join(MARKER_NEXT);
    let mut file = File::create(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // A crash here leaves the old marker, or none, and a file beside it that nobody reads.
    fs::rename(&next, path.join(MARKER))?;
    sync_directory(path)
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a directory and its parents, for their owner only, durably.
fn create_private(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_private(parent)?;
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        // Someone else has just made it: the lock decides whose it is.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_directory(parent),
    }
}

fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
