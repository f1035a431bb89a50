//! Holds: which versions somebody has open, or which images in storage.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts who holds what.
#[derive(Debug)]
pub(crate) struct Holds<T>(Mutex<BTreeMap<T, usize>>);

/// One who holds something, until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold<T: Copy + Ord> {
    holds: Arc<Holds<T>>,
    held: T,
}

impl<T> Default for Holds<T> {
    fn default() -> Self {
        Holds(BTreeMap::new().into())
    }
}

impl<T: Copy + Ord> Holds<T> {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<T, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hold(self: &Arc<Self>, held: T) -> Hold<T> {
        *self.counts().entry(held).or_default() += 1;
        Hold { holds: self.clone(), held }
    }

    /// What is held, in order.
    pub(crate) fn held(&self) -> Vec<T> {
        self.counts().keys().copied().collect()
    }
}

impl<T: Copy + Ord> Hold<T> {
    pub(crate) fn held(&self) -> T {
        self.held
    }

    /// Another hold on the same.
    pub(crate) fn again(&self) -> Self {
        self.holds.hold(self.held)
    }
}

impl<T: Copy + Ord> Drop for Hold<T> {
    fn drop(&mut self) {
        let mut counts = self.holds.counts();
        let count = counts.get_mut(&self.held).expect("it was counted");
        *count -= 1;
        if *count == 0 {
            counts.remove(&self.held);
        }
    }
}
