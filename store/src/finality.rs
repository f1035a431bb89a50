//! Finality: a version is durable, and its header is in the log under a signed checkpoint.

use std::sync::{Arc, OnceLock};

use anwansi_proofs::{EvidenceStart, LogHash, LogProof, Note, Part, Version};

use crate::{
    Error,
    keys::LogKey,
    log::Log,
    snapshot::{At, Snapshot},
    store::Shared,
    version,
};

/// The newest durable version, with the checkpoint that makes it final.
pub struct Published {
    pub(crate) snapshot: Snapshot,
    pub(crate) log: Log,
    pub(crate) checkpoint: Note,
    /// That of this version: made for the first who asks.
    finality: OnceLock<Arc<Finality>>,
}

/// What shows that a version is final.
#[derive(Debug, PartialEq, Eq)]
pub struct Finality {
    /// The text of its header.
    pub header: String,
    /// That the header is in the log, under a signed checkpoint.
    pub proof: LogProof,
    /// The size of the log under that checkpoint: one more than the newest version.
    pub log_size: u64,
    /// What evidence about its state begins with: made for the first who asks.
    start: OnceLock<EvidenceStart>,
}

impl Finality {
    /// What evidence says of the version, without any proof yet.
    #[must_use]
    pub fn part(&self) -> Part {
        let (header, finality) = (self.header.clone(), self.proof.to_string());
        Part { header, finality, state: None, tasks: None }
    }

    /// The evidence with a proof over the version's state, as JSON.
    #[must_use]
    pub fn evidence(&self, proof: &[u8]) -> String {
        let start = || EvidenceStart::new(&self.header, &self.proof.to_string());
        self.start.get_or_init(start).with(proof)
    }
}

impl Published {
    /// Signs the checkpoint of a durable version, whose log has the root `root`.
    pub(crate) fn new(shared: &Shared, at: Arc<At>, log: Log, root: &LogHash) -> Self {
        let (pages, engine) = (shared.pages.clone(), shared.engine.clone());
        Self::signed(&shared.key, Snapshot { version: at, pages, engine }, log, root)
    }

    pub(crate) fn signed(key: &LogKey, snapshot: Snapshot, log: Log, root: &LogHash) -> Self {
        let checkpoint = key.checkpoint(log.size(), root);
        Published { snapshot, log, checkpoint, finality: OnceLock::new() }
    }

    /// The version.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The header of this version or an older one, and the proof that it is in the log under this checkpoint.
    ///
    /// # Errors
    /// [`Error::NoSuchVersion`] and those of storage.
    pub fn finality(&self, version: Version) -> Result<Arc<Finality>, Error> {
        let newest = self.snapshot.version();
        if version > newest {
            return Err(Error::NoSuchVersion { version, newest });
        }
        if version == newest
            && let Some(made) = self.finality.get()
        {
            return Ok(made.clone());
        }
        let engine = &*self.snapshot.engine;
        let siblings = self.log.inclusion_proof(engine, version.0)?;
        let proof = LogProof::new(version.0, siblings, self.checkpoint.clone());
        let proof = proof.expect("versions and proofs are within the log's limits");
        let header = if version < newest {
            version::read(engine, version)?.1.header
        } else {
            self.snapshot.header().to_string()
        };
        let (log_size, start) = (self.log.size(), OnceLock::new());
        let finality = Arc::new(Finality { header, proof, log_size, start });
        if version < newest {
            return Ok(finality);
        }
        Ok(self.finality.get_or_init(|| finality).clone())
    }
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Published").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}
