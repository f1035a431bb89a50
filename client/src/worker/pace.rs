//! How long to wait before the next attempt: longer each time, and not all nodes at once.

use std::time::Duration;

use anwansi_proofs::{Digest, hash::Hasher};

use crate::Error;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(15);

/// The waits of one series of attempts.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    /// Makes the waits of two nodes differ.
    seed: Digest,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(seed: &Digest) -> Self {
        Backoff { seed: *seed, failures: 0 }
    }

    /// The last attempt was a success: the next failure is the first.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after this failure: what the server asks for, but no less than twice as long as
    /// the last time, give or take a quarter.
    pub(crate) fn after(&mut self, error: &Error) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let mut hasher = Hasher::default();
        hasher.update(&self.seed.0);
        hasher.update(&self.failures.to_le_bytes());
        let spread = u32::from(hasher.finish().0[0]);
        let wait = doubled * 3 / 4 + doubled * spread / 512;
        match error {
            Error::Unreachable { retry_after: Some(asked), .. } => wait.max(*asked),
            _ => wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_heed_the_server() {
        let failure = |retry_after| Error::Unreachable {
            url: String::new(),
            reason: String::new(),
            retry_after,
        };
        let mut backoff = Backoff::new(&Digest([1; 32]));
        let waits = (0..100).map(|_| backoff.after(&failure(None))).collect::<Vec<_>>();
        for (attempt, wait) in waits.iter().enumerate() {
            let middle = FIRST.saturating_mul(1 << attempt.min(16)).min(LONGEST);
            assert!(*wait >= middle * 3 / 4 && *wait <= middle * 5 / 4, "{attempt} {wait:?}");
        }
        let mut other = Backoff::new(&Digest([2; 32]));
        assert_ne!((0..100).map(|_| other.after(&failure(None))).collect::<Vec<_>>(), waits);
        let asked = Duration::from_secs(60);
        assert_eq!(backoff.after(&failure(Some(asked))), asked);
        backoff.reset();
        assert!(backoff.after(&failure(None)) <= FIRST * 5 / 4);
    }
}
