//! Retention: which versions are kept, by what rule, and what the others still leave to be freed.

mod holds;
mod kept;
mod prune;
mod sweep;

use std::num::NonZeroU64;

pub(crate) use self::sweep::DELETED_AT_ONCE;
pub(crate) use self::{
    holds::{Hold, Holds},
    kept::{Kept, Versions},
    prune::{Pruner, Pruning, prune},
    sweep::{Needed, images, listed, newest_needed},
};
pub use self::{prune::Receipt, sweep::Freed};

/// What is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Which versions; none: all of them.
    pub versions: Option<Retention>,
    /// Of how many of the newest versions, what led to their decisions: specifications, votes and results. None: of all.
    pub decided: Option<NonZeroU64>,
}

impl From<&Retention> for Keep {
    /// These versions, and all that the ledger has.
    fn from(retention: &Retention) -> Self {
        Keep { versions: Some(*retention), decided: None }
    }
}

/// Which versions are kept, beside those that are pinned. All others are pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How many of the newest versions are kept, at least.
    pub last: NonZeroU64,
    /// Each version that is a multiple of this is kept, too; version 0 is one of any.
    pub every: Option<NonZeroU64>,
}
