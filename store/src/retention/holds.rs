//! Holds: what versions somebody has open.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anwansi_proofs::Version;

/// Counts who holds which version.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<BTreeMap<Version, usize>>);

/// One who holds a version, until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    holds: Arc<Holds>,
    version: Version,
}

impl Holds {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<Version, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hold(self: &Arc<Self>, version: Version) -> Hold {
        *self.counts().entry(version).or_default() += 1;
        Hold { holds: self.clone(), version }
    }

    /// The versions that are held, in order.
    pub(crate) fn versions(&self) -> Vec<Version> {
        self.counts().keys().copied().collect()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut counts = self.holds.counts();
        let count = counts.get_mut(&self.version).expect("it was counted");
        *count -= 1;
        if *count == 0 {
            counts.remove(&self.version);
        }
    }
}
