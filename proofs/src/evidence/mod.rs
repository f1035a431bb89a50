//! Evidence: what a server answers and a client keeps, checked level by level.
//!
//! ```text
//! finality     the header is in the log, under a checkpoint that satisfies the policy
//! inclusion    the proofs lead to that header's roots: they may be asked
//! agreement    the votes behind a transition, recounted
//! aggregate    its results, folded again and found in the state
//! ```
//!
//! A level is there when its members are; then anything missing or wrong refuses the whole, and [`Refused`]
//! names the level. A level that is not there is [`Finding::NotShown`], never verified.

mod aggregate;
mod agreement;
mod form;
mod part;
mod refused;
mod round;

use alloc::collections::BTreeMap;

pub use aggregate::FOLDED_BYTES_MAX;
pub use agreement::{Agreed, Claimed, Recounted};
pub use form::{EARLIER_MAX, EVIDENCE_BYTES_MAX, Evidence, EvidenceStart, Part};
pub use part::CheckedVersion;
pub use refused::{Disagreement, Misfold, Refused, Spot};
pub use round::DRAWN_SUM_MAX;

use crate::{Checkpoint, Json, Policy, Version};

/// What evidence can show, each level resting on those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The header is in the log.
    Finality,
    /// The proofs are over that header's trees.
    Inclusion,
    /// The votes behind a transition were recounted.
    Agreement,
    /// The results were folded again, and found in the state.
    Aggregate,
}

/// What was found of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is there, and all of it is right.
    Verified,
    /// It is not there.
    NotShown,
}

/// Evidence of which all that is there holds. How much that is, [`finding`](Self::finding) tells.
#[must_use]
pub struct Checked<'a> {
    checkpoint: Checkpoint,
    main: CheckedVersion<'a>,
    earlier: Earlier<'a>,
    agreed: Option<Agreed>,
    value: Option<Json>,
}

/// The versions that evidence rests on.
type Earlier<'a> = BTreeMap<Version, CheckedVersion<'a>>;

impl Evidence {
    /// Checks every level that is there.
    ///
    /// # Errors
    /// Whatever is wrong first, with its level: then nothing of the evidence holds.
    ///
    /// # Cost
    /// A signature each for the log and the witnesses of the policy, one for each pledge, and hashing all
    /// proofs, votes and outputs.
    pub fn check(&self, policy: &Policy) -> Result<Checked<'_>, Refused> {
        let (checkpoint, main, earlier) = part::check(self, policy)?;
        let agreed = agreement::check(self, &main, &earlier)?;
        let value = match &agreed {
            Some(agreed) => aggregate::check(self, agreed, &main, &earlier)?,
            None => None,
        };
        Ok(Checked { checkpoint, main, earlier, agreed, value })
    }
}

impl<'a> Checked<'a> {
    /// What was found of `level`.
    #[must_use]
    pub fn finding(&self, level: Level) -> Finding {
        let mut versions = self.earlier.values().chain([&self.main]);
        let there = match level {
            Level::Finality => true,
            Level::Inclusion => versions.any(|it| it.state().is_some() || it.tasks().is_some()),
            Level::Agreement => self.agreed.is_some(),
            Level::Aggregate => self.value.is_some(),
        };
        if there { Finding::Verified } else { Finding::NotShown }
    }

    /// The checkpoint that all parts are under.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The version that the evidence is about.
    #[must_use]
    pub fn version(&self) -> &CheckedVersion<'a> {
        &self.main
    }

    /// The versions that it rests on, in their order.
    #[must_use]
    pub fn earlier(&self) -> impl ExactSizeIterator<Item = &CheckedVersion<'a>> {
        self.earlier.values()
    }

    /// The transition that this version decided, recounted from its votes; `None` if the level agreement is
    /// not there.
    #[must_use]
    pub fn agreed(&self) -> Option<&Agreed> {
        self.agreed.as_ref()
    }

    /// What its results were folded to, which is in the state; `None` if the level aggregate is not there.
    #[must_use]
    pub fn value(&self) -> Option<&Json> {
        self.value.as_ref()
    }
}
