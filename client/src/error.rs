//! Why there is no answer, so that a caller knows whether to ask again.

use std::{fmt, io, path::PathBuf, time::Duration};

use anwansi_proofs::{Digest, TransitionId, Version};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The answer proves nothing: the server lies, or is broken, or somebody between changed it.
    /// To ask the same server again will not help.
    #[error("not proven{}: {fault}", of(*.version))]
    NotProven {
        /// The version that it was about, where that is known.
        version: Option<Version>,
        /// What is wrong with it.
        fault: Fault,
    },
    /// No answer came, or one that says that the server is in trouble. To ask again may help; whether
    /// a commit took effect is not known: send it again under its idempotency key.
    #[error("no answer from {url}: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What happened instead.
        reason: String,
        /// How long the server asks to wait before the next question.
        retry_after: Option<Duration>,
    },
    /// The server does not do what was asked, and says why. Nothing happened.
    #[error("the server refuses: {0}")]
    Refused(Problem),
    /// The log signed two histories. Nothing from it is believed any more, ever.
    #[error("the log {origin} signed two histories: both checkpoints are kept in {kept}")]
    Forked {
        /// The log.
        origin: String,
        /// Where both signed notes are.
        kept: String,
    },
    /// Nobody has said which log to trust.
    #[error(
        "no key is trusted for {server} yet: give --policy or --vkey, or look at the server's key and \
         pin it with `anwansi trust {server}`"
    )]
    NoTrust {
        /// The server.
        server: String,
    },
    /// A file of this client cannot be read or written, or does not hold what it should.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A node does not do its part of a task, for a reason of its own.
    #[error(transparent)]
    NotDone(#[from] crate::worker::NotDone),
}

fn of(version: Option<Version>) -> String {
    version.map_or(String::new(), |version| format!(" (version {version})"))
}

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A proof, signature or text does not hold, or does not cover the question.
    #[error(transparent)]
    Proof(#[from] anwansi_proofs::Error),
    /// Evidence is refused, and by which of its levels.
    #[error(transparent)]
    Evidence(#[from] anwansi_proofs::Refused),
    /// It is not what the route answers with: not JSON, or other members.
    #[error("the answer is not of the expected form: {0}")]
    Form(String),
    /// It is longer than any such answer may be.
    #[error("the answer is longer than {max} bytes")]
    TooLong {
        /// The most that would have been read.
        max: u64,
    },
    /// Another version was answered than was asked for.
    #[error("the answer is about version {answered}, not about version {asked}")]
    OtherVersion {
        /// The one asked for.
        asked: Version,
        /// The one answered.
        answered: Version,
    },
    /// The log has been seen with more entries than the answer knows of.
    #[error("the answer knows {answered} versions, and {remembered} were seen before")]
    WentBack {
        /// The size of the remembered checkpoint.
        remembered: u64,
        /// The size answered.
        answered: u64,
    },
    /// The server does not show that its log continues the one that was seen before.
    #[error("not shown that the log of {answered} versions continues the log of {remembered}")]
    NotContinued {
        /// The size of the remembered checkpoint.
        remembered: u64,
        /// The size answered.
        answered: u64,
    },
    /// The cosignatures are older than the caller accepts, or there are none.
    #[error("no quorum of witnesses cosigned the checkpoint within the last {seconds} seconds")]
    Stale {
        /// The oldest that is accepted.
        seconds: u64,
    },
    /// What was committed is not what the version holds.
    #[error("the version does not hold what was sent under the key {}", crate::escape(.key))]
    NotWhatWasSent {
        /// The key.
        key: Vec<u8>,
    },
    /// The entries of the log do not have the root that its checkpoint names.
    #[error("the log's entries do not have the root that the checkpoint names")]
    LogRoot,
    /// A version's changes lead to another state than its header names.
    #[error("the changes lead to another state than the header names")]
    Changes,
    /// The list of a version's changes ended early.
    #[error("the list of changes was cut off")]
    Cut,
    /// Another header was answered than the log has.
    #[error("the header is not the one in the log")]
    OtherHeader,
    /// Other bytes were answered than have this digest.
    #[error("what was answered for {asked} has the digest {answered}")]
    OtherBytes {
        /// The digest asked for.
        asked: Digest,
        /// That of the answer.
        answered: Digest,
    },
    /// Another transition was answered than was asked for.
    #[error("the transition {answered} was answered for {asked}")]
    OtherTransition {
        /// The one asked for.
        asked: TransitionId,
        /// The one answered.
        answered: TransitionId,
    },
    /// A record of the ledger is missing, or says something else than it must.
    #[error("no record {what} is shown")]
    NoRecord {
        /// What it should have said.
        what: String,
    },
    /// The numbers of nodes drawn in each round cannot be.
    #[error(
        "no task of this policy draws {draws:?} nodes in its rounds, from {registered} registered"
    )]
    Draws {
        /// What was announced.
        draws: Vec<u32>,
        /// The nodes that are registered.
        registered: usize,
    },
    /// The node was not drawn, though the server gave it the task.
    #[error("the draw of task {index}, round {round}, does not include this node")]
    NotDrawn {
        /// The task.
        index: u32,
        /// The round.
        round: u32,
    },
    /// Other pledges were answered than were closed.
    #[error("the pledges that were answered are not those that the log has closed")]
    OtherPledges,
    /// The pledges of the round were closed without that of the node.
    #[error("this node's pledge is not among those that were closed")]
    NotAmongPledges,
}

/// What a server says when it refuses: RFC 9457, made safe to print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The last part of its type, a stable name such as `reserved-key`; empty where there is none.
    pub name: String,
    /// What a person should know.
    pub detail: String,
}

impl Problem {
    pub(crate) fn read(status: u16, body: &[u8]) -> Self {
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct Document {
            r#type: String,
            title: String,
            detail: String,
        }
        let document: Document = serde_json::from_slice(body).unwrap_or_default();
        let name = document.r#type.rsplit('/').next().unwrap_or_default();
        let detail = if document.detail.is_empty() { &document.title } else { &document.detail };
        let safe = |text: &str| crate::escape(text.as_bytes());
        Problem { status, name: safe(name), detail: safe(detail) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { status, name, detail } = self;
        match (name.as_str(), detail.as_str()) {
            ("", "") => write!(f, "status {status}"),
            ("", detail) => write!(f, "{detail} (status {status})"),
            (name, "") => write!(f, "{name} (status {status})"),
            (name, detail) => write!(f, "{detail} ({name}, status {status})"),
        }
    }
}

impl Error {
    /// Of an answer about `version`.
    pub(crate) fn at(version: Version, fault: impl Into<Fault>) -> Self {
        Error::NotProven { version: Some(version), fault: fault.into() }
    }

    pub(crate) fn form(what: impl fmt::Display) -> Self {
        Fault::Form(crate::escape(what.to_string().as_bytes())).into()
    }

    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Error::File { path, source }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Error::NotProven { version: None, fault }
    }
}

impl From<anwansi_proofs::Refused> for Error {
    fn from(refused: anwansi_proofs::Refused) -> Self {
        Fault::Evidence(refused).into()
    }
}

impl From<anwansi_proofs::Error> for Error {
    fn from(error: anwansi_proofs::Error) -> Self {
        Fault::Proof(error).into()
    }
}
