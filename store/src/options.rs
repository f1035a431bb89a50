//! How a store is opened.

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::store::Clock;

/// How a store is opened. Only how it works depends on them, never what is stored.
#[derive(Clone)]
pub struct Options {
    /// The budget, in bytes of memory, for pages that storage could give again; half as much again may
    /// be taken by pages that are not stored yet, and an eighth by old versions.
    pub cache_bytes: usize,
    /// Tells the time, in milliseconds since 1970. The only clock the store has.
    pub clock: Clock,
}

impl Default for Options {
    /// A cache of 1 GiB, and the system's clock.
    fn default() -> Self {
        let now = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
        };
        Options { cache_bytes: 1 << 30, clock: Arc::new(now) }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("cache_bytes", &self.cache_bytes).finish_non_exhaustive()
    }
}
