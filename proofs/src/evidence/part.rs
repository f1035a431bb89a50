//! Finality and inclusion: each part is in the log, and its proofs lead to the roots in its header.

use alloc::string::ToString as _;

use super::{EARLIER_MAX, Earlier, Evidence, Refused};
use crate::{
    Checkpoint, Error, Format, Header, LogHash, LogProof, Policy, Proof, Root, Shown,
    log::verify_inclusion,
};

/// A version that is final, and what was shown of it.
pub struct CheckedVersion<'a> {
    header: Header,
    state: Option<Shown<'a>>,
    tasks: Option<Shown<'a>>,
}

/// Checks all parts: under one checkpoint, each in the log and with proofs of its own version.
pub(super) fn check<'a>(
    evidence: &'a Evidence,
    policy: &Policy,
) -> Result<(Checkpoint, CheckedVersion<'a>, Earlier<'a>), Refused> {
    let Evidence { header, finality, state, tasks, .. } = evidence;
    let refused = |error| Refused::Finality { earlier: None, error };
    if evidence.earlier.len() > EARLIER_MAX {
        return Err(refused(Error::Malformed { format: Format::Evidence, at: 0 }));
    }
    let finality = finality.parse::<LogProof>().map_err(refused)?;
    let checkpoint = policy.verify_note(finality.checkpoint()).map_err(refused)?;
    let header = final_header(header, &finality, &checkpoint).map_err(refused)?;
    let main = CheckedVersion::new(header, state.as_deref(), tasks.as_deref())
        .map_err(|error| Refused::Inclusion { earlier: None, error })?;
    let mut versions = Earlier::new();
    for (at, part) in evidence.earlier.iter().enumerate() {
        let refused = |error| Refused::Finality { earlier: Some(at), error };
        let finality = part.finality.parse::<LogProof>().map_err(refused)?;
        // One checkpoint for all, to the letter: then its signatures need no second look.
        if finality.checkpoint().to_string() != checkpoint.note() {
            return Err(refused(Error::PartsDisagree));
        }
        let header = final_header(&part.header, &finality, &checkpoint).map_err(refused)?;
        let version = header.version();
        if version >= main.header.version() || versions.contains_key(&version) {
            return Err(refused(Error::PartsDisagree));
        }
        let checked = CheckedVersion::new(header, part.state.as_deref(), part.tasks.as_deref())
            .map_err(|error| Refused::Inclusion { earlier: Some(at), error })?;
        versions.insert(version, checked);
    }
    Ok((checkpoint, main, versions))
}

/// Reads a header that is in the log under a checkpoint that was accepted.
fn final_header(text: &str, finality: &LogProof, checkpoint: &Checkpoint) -> Result<Header, Error> {
    let header: Header = text.parse()?;
    let (index, size) = (header.version().0, checkpoint.size());
    if header.origin().as_str() != checkpoint.origin() {
        return Err(Error::OriginMismatch);
    }
    if finality.index() != index {
        return Err(Error::NotInLog { index, size });
    }
    let leaf = LogHash::leaf(text.as_bytes());
    verify_inclusion(index, size, &leaf, finality.siblings(), checkpoint.root())?;
    Ok(header)
}

impl<'a> CheckedVersion<'a> {
    /// Verifies what is shown of the version with this header.
    fn new(
        header: Header,
        state: Option<&'a [u8]>,
        tasks: Option<&'a [u8]>,
    ) -> Result<Self, Error> {
        let show = |proof: Option<&'a [u8]>, root: Root| {
            proof.map(|proof| Proof::decode(proof)?.verify(&root)).transpose()
        };
        let (state, tasks) = (show(state, header.state())?, show(tasks, header.tasks())?);
        Ok(CheckedVersion { header, state, tasks })
    }

    /// Its header, which is in the log.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What is shown of its state.
    #[must_use]
    pub fn state(&self) -> Option<&Shown<'a>> {
        self.state.as_ref()
    }

    /// What is shown of its tasks tree.
    #[must_use]
    pub fn tasks(&self) -> Option<&Shown<'a>> {
        self.tasks.as_ref()
    }
}
