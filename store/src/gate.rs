//! A gate: lets in so much at once, and makes the rest wait.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Counts what is inside.
#[derive(Debug)]
pub(crate) struct Gate {
    inside: Mutex<usize>,
    fewer: Condvar,
    max: usize,
}

/// What was let in; leaves when it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Gate>,
    amount: usize,
}

impl Gate {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Gate { inside: Mutex::new(0), fewer: Condvar::new(), max })
    }

    /// Waits until there is room for `amount`; more than fits is let in alone.
    pub(crate) fn enter(self: &Arc<Self>, amount: usize) -> Pass {
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |inside: &mut usize| *inside > 0 && *inside + amount > self.max;
        let mut inside =
            self.fewer.wait_while(inside, full).unwrap_or_else(PoisonError::into_inner);
        *inside += amount;
        Pass { gate: self.clone(), amount }
    }

    /// Waits until nothing is inside.
    pub(crate) fn wait_for_none(&self) {
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.fewer.wait_while(inside, |inside| *inside > 0));
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        *self.gate.inside.lock().unwrap_or_else(PoisonError::into_inner) -= self.amount;
        self.gate.fewer.notify_all();
    }
}
