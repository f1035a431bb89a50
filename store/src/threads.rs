//! Threads whose stacks are long enough for the deepest tree.

use std::{io, panic, sync::Arc, thread};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{Error, Options, engine::EngineError};

/// The store's threads recurse from page to page, and keys can be made to need a thousand pages.
pub(crate) const STACK_BYTES: usize = 64 << 20;

/// The threads among which the update of a tree is shared.
pub(crate) fn pool(options: &Options) -> Result<ThreadPool, Error> {
    let threads = ThreadPoolBuilder::new()
        .num_threads(options.threads.get())
        .stack_size(STACK_BYTES)
        .thread_name(|number| format!("anwansi tree {number}"));
    threads.build().map_err(|error| not_started(io::Error::other(error)))
}

/// Runs something that goes down a tree, for a caller whose stack may be short: on a thread of its own, so that
/// commits do not wait for it.
///
/// # Errors
/// If the operating system has no thread to give.
pub(crate) fn aside<T: Send>(run: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, run);
        Ok(thread
            .map_err(not_started)?
            .join()
            .unwrap_or_else(|panicked| panic::resume_unwind(panicked)))
    })
}

/// What to say if a thread could not be started.
pub(crate) fn not_started(source: io::Error) -> Error {
    Error::Engine(EngineError::Io { doing: "starting a thread", source: Arc::new(source) })
}
