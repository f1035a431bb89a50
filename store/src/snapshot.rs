//! One version, to be read and proven from: it never changes and never waits.

use std::{fmt, sync::Arc};

use anwansi_proofs::{Header, Question, Root, Version, path::after_prefix, prove, tree::Sorted};
use bytes::Bytes;

use crate::{
    Damage, Error,
    engine::{Direction, Engine},
    record::ChunkKind,
    retention::{Hold, Versions},
    segments::Image,
    tree::{Near, Pages, Source, Tree, Write},
    version,
};

/// Which of a version's two trees is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// All entries.
    #[default]
    State,
    /// What happened to tasks in this version alone.
    Tasks,
}

/// A version of the state. Cheap to clone; holds in memory what it shares with no other.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) version: Arc<At>,
    pub(crate) pages: Arc<Pages>,
    pub(crate) engine: Arc<dyn Engine>,
}

/// The header and the tree of one version.
#[derive(Debug)]
pub(crate) struct At {
    pub(crate) header: Header,
    pub(crate) tree: Tree,
    #[expect(dead_code, reason = "left when it is dropped")]
    hold: Hold<Version>,
    /// Of one that was opened again: the image from which its pages are read.
    pub(crate) image: Option<Hold<Image>>,
}

impl At {
    /// The version that `header` is of, which is held as long as this lives.
    pub(crate) fn new(header: Header, tree: Tree, versions: &Versions) -> Self {
        let hold = versions.readers.hold(header.version());
        At { header, tree, hold, image: None }
    }
}

/// Pages that are looked at for a proof without waiting, at most: only keys that were made to do so lie deeper.
const PAGES_NEAR_MAX: usize = 64;

/// An entry that was read: a key and its value.
pub type Pair = (Bytes, Bytes);

impl Snapshot {
    /// The header, whose text is the log's entry.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.version.header
    }

    /// The number of the version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.header().version()
    }

    /// The root of the state.
    #[must_use]
    pub fn root(&self) -> Root {
        self.header().state()
    }

    /// The number of entries.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.version.tree.entries
    }

    /// The bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.version.tree.bytes
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// If storage fails or is damaged.
    ///
    /// # Cost
    /// At most one engine read for each page on the way that is not in memory, and one for a value of
    /// more than 1 KiB.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.version.tree.value(&self.pages, key)
    }

    /// The entries from `start`, inclusive, to `end`, exclusive (none: to the last), in the order of
    /// `direction`. After an error there are no more.
    pub fn range(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
    ) -> impl Iterator<Item = Result<Pair, Error>> + use<'_> {
        let (start, end) = (Bytes::copy_from_slice(start), end.map(Bytes::copy_from_slice));
        let cursor = self.version.tree.range(&self.pages, start, end, direction);
        cursor.map(|entry| {
            let entry = entry?;
            Ok((entry.key, self.pages.value(&entry.value)?))
        })
    }

    /// The entries whose keys start with `prefix`, in key order.
    pub fn prefix(&self, prefix: &[u8]) -> impl Iterator<Item = Result<Pair, Error>> + use<'_> {
        self.range(prefix, after_prefix(prefix).as_deref(), Direction::Ascending)
    }

    /// The smallest proof that answers `question` under this version's header.
    ///
    /// # Errors
    /// If storage fails or is damaged.
    pub fn prove(&self, which: Which, question: &Question) -> Result<Vec<u8>, Error> {
        match which {
            Which::State => prove(&self.source(), question),
            Which::Tasks => Ok(prove_tasks(self.tasks()?, question)),
        }
    }

    /// As [`prove`](Self::prove) of the state, if all that it takes is in memory and little, and no other thread is
    /// just there.
    ///
    /// # Cost
    /// It never waits, and looks at 64 pages at most: some ten microseconds for each key.
    #[must_use]
    pub fn prove_near(&self, question: &Question) -> Option<Vec<u8>> {
        prove(&Near::new(self.source(), PAGES_NEAR_MAX), question).ok()
    }

    /// The entries of the tasks tree, in key order.
    ///
    /// # Errors
    /// If storage fails or is damaged.
    pub fn tasks(&self) -> Result<Vec<Pair>, Error> {
        tasks(&*self.engine, &self.pages, self.version())
    }

    pub(crate) fn source(&self) -> Source<'_> {
        Source { tree: &self.version.tree, pages: &self.pages }
    }
}

/// The smallest proof that answers `question` about a tasks tree with these entries.
pub(crate) fn prove_tasks(tasks: Vec<Pair>, question: &Question) -> Vec<u8> {
    let Ok(proof) = prove(&Sorted::new(tasks), question);
    proof
}

/// The entries of a version's tasks tree, in key order: they need no other version.
pub(crate) fn tasks(
    engine: &dyn Engine,
    pages: &Pages,
    version: Version,
) -> Result<Vec<Pair>, Error> {
    let (_, record) = version::read(engine, version)?;
    let tasks = version::read_chunks(engine, version, ChunkKind::Tasks, &record)?;
    let task = |task: Write| {
        let value = task.value.as_ref().ok_or(Error::Damaged(Damage::Changes(version)))?;
        Ok((task.key, pages.value(value)?))
    };
    tasks.into_iter().map(task).collect()
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("header", self.header()).finish_non_exhaustive()
    }
}
