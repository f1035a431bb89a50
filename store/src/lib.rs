//! Persistence of Anwansi: everything that must outlive the process is written here.
//!
//! ```text
//!      versions, pages, ledger, log        what is kept, and in which order it is written
//!                  |
//!               Writer                     one thread: many batches, one sync, then the tickets
//!                  |
//!   ----------- Engine ------------        the seam: atomic batches over ordered keyspaces
//!     fjall      sled      memory
//! ```
//!
//! Start at [`engine`]: what a storage engine must promise, and nothing about what is stored in it.
//!
//! ```
//! use anwansi_store::engine::{self, Batch, Keyspace, Writer};
//!
//! # fn main() -> Result<(), engine::EngineError> {
//! let engine = engine::open("memory:")?; // or "fjall:./data"
//! let writer = Writer::new(engine.clone())?;
//!
//! let mut batch = Batch::new();
//! batch.put(Keyspace::Meta, "greeting", "hello");
//! writer.write(batch).wait()?; // durable from here on
//!
//! assert_eq!(engine.get(Keyspace::Meta, b"greeting")?.as_deref(), Some(&b"hello"[..]));
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

pub mod engine;
