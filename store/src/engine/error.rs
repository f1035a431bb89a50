//! Why an engine did not do what it was asked, and what to do about it.

use std::{error::Error, io, path::PathBuf, sync::Arc};

use super::URLS;

/// What went wrong below the store. Cheap to clone: one failed sync answers many tickets.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The URL names no engine. Mend the URL.
    #[error("no engine is named by {url:?}; known are {}", URLS.join(", "))]
    UnknownUrl {
        /// What was asked for.
        url: String,
    },
    /// Another handle, of this process or another, has the directory open. Close that one first;
    /// do not remove the lock file, the lock is not its existence.
    #[error("{} is open elsewhere: one writer at a time, close the other first", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds files and none of them is our marker. Nothing in it was changed: give
    /// another directory.
    #[error("{} holds files of someone else: give an empty directory or one of ours", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
    /// The directory is ours, written by another engine. Open it with that one.
    #[error("{} was made by another engine: open it as {found}:{}", path.display(), path.display())]
    OtherEngine {
        /// The directory.
        path: PathBuf,
        /// The engine that wrote it.
        found: String,
    },
    /// A newer writer has taken the store over. Drop everything after the last durable version;
    /// reopen only to take it back.
    #[error("a newer writer has taken the store over: drop all that is not durable")]
    Fenced,
    /// It is unknown whether the write happened. Reopen with a new epoch, which fences the late
    /// write, then read.
    #[error("the storage gave no answer while {doing}: outcome unknown, reopen the store and read")]
    Unavailable {
        /// What was under way.
        doing: &'static str,
    },
    /// The stored bytes are not what an engine wrote. Restore from a backup or another replica.
    #[error("the stored bytes are damaged ({doing}): restore the store")]
    Corrupt {
        /// What was under way.
        doing: &'static str,
        /// What the engine says.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The operating system refused. Mend that (space, permissions, disk), then reopen.
    #[error("the operating system refused while {doing}: mend that, then reopen the store")]
    Io {
        /// What was under way.
        doing: &'static str,
        /// What the operating system says.
        #[source]
        source: Arc<io::Error>,
    },
    /// A write or sync of this handle failed, so what is stored is unknown. Nothing more is
    /// written through it: drop it, reopen the store, which recovers, and read.
    #[error("a write failed, nothing more is written until the store is reopened")]
    Poisoned {
        /// The failure. If it is [`Fenced`](EngineError::Fenced), do as that says.
        #[source]
        cause: Arc<EngineError>,
    },
}

impl EngineError {
    /// Returns a function for `map_err` that says what the operating system refused.
    pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source: Arc::new(source) }
    }

    pub(super) fn corrupt(
        doing: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Corrupt { doing, source: Arc::from(source.into()) }
    }

    /// Returns what every write after this failure is answered.
    pub(crate) fn poison(self) -> Self {
        match self {
            Self::Poisoned { .. } => self,
            cause => Self::Poisoned { cause: Arc::new(cause) },
        }
    }
}
