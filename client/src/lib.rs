//! Reads and writes Anwansi's state over HTTP, and believes nothing that it has not verified.
//!
//! ```text
//!   Policy, from outside      whose word counts: a file, a key, a pin           trust.rs
//!        |
//!   Memory, on disk           the newest checkpoint ever accepted, or a fork    memory.rs, remember.rs
//!        |
//!   Client                    asks, verifies, remembers; then answers           client.rs
//!        |                    the whole log, version by version                 audit.rs
//!        |                    transitions, nodes, blobs                         ledger/
//!        |                    a node: runs tasks, pledges, reveals              worker/, programs/
//!   - - - | - - - - - - - - - - - - - - - - - - - - - - - - - - - -  trust ends here
//!   Transport                 bytes of bounded length, from anyone              transport.rs
//! ```
//!
//! Every value comes with the version that it is from. It was proven under a checkpoint that satisfies
//! the policy and that continues all that were accepted before; otherwise there is an [`Error`], which
//! tells a server that lies ([`Error::NotProven`]) from one that does not answer ([`Error::Unreachable`]).
//!
//! ```no_run
//! use anwansi_client::{At, Client, FileMemory, Write, trust};
//!
//! # fn main() -> Result<(), anwansi_client::Error> {
//! let policy = trust::of_vkey("example.org/memory+55315757+AVfiiiPgrKqUTFL20me1TKAR9YWwjCsP6ZilidHZxCFe")?;
//! let memory = FileMemory::new("/var/lib/example", policy.origin())?;
//! let client = Client::connect("https://example.org/memory", policy, memory)?.with_token("s3cret")?;
//! let version = client.put(b"greeting", b"hello")?;
//! let answer = client.get(b"greeting", At::Version(version))?;
//! assert_eq!(answer.value.as_deref(), Some(&b"hello"[..]));
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod audit;
mod client;
mod error;
mod escape;
mod ledger;
mod memory;
pub mod programs;
mod remember;
mod transport;
pub mod trust;
pub mod worker;

pub use audit::Audited;
pub use client::{Asked, At, Client, Page, Proven, Verified, Write};
pub use error::{Error, Fault, Problem};
pub use escape::escape;
pub use ledger::{
    Assignment, BLOB_BYTES_MAX, Decision, Node, Phase, Progress, TaskProgress, TransitionEvidence,
    no_agreement,
};
pub use memory::{FileMemory, InMemory, Memory, Recalled, write_atomically};

pub use anwansi_proofs as proofs;
