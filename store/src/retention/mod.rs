//! Retention: which versions are kept, by what rule, and what the others still leave to be freed.

mod holds;
mod kept;
mod prune;
mod sweep;

use std::num::NonZeroU64;

pub(crate) use self::{
    holds::{Hold, Holds},
    kept::{Kept, Versions},
    prune::{Pruner, Pruning, prune},
    sweep::{Needed, images, listed, newest_needed},
};
pub use self::{prune::Receipt, sweep::Freed};

/// Which versions are kept, beside those that are pinned. All others are pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How many of the newest versions are kept, at least.
    pub last: NonZeroU64,
    /// Each version that is a multiple of this is kept, too; version 0 is one of any.
    pub every: Option<NonZeroU64>,
}
