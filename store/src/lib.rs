//! The memory of a distributed computation: versions of a state, each final, each provable.
//!
//! ```text
//!   commit           validate, update the tree, header, log: one batch a version      commit.rs
//!     |                                                                               version.rs
//!   Writer           one thread: many batches, one sync, then the answers             engine/writer.rs
//!     |
//!   publish          sign the checkpoint, show the version to readers                 finality.rs
//!     |
//!   flush            now and then the tree's pages, in the background                 flush.rs
//!
//!   prune            what no version needs that is kept, in the background            retention/, segments.rs
//!
//!   ledger           transitions, tasks, votes; their steps join commits              ledger/
//!
//!   ------------------------------ Engine: atomic batches over ordered keyspaces ------------------
//!     fjall                sled                memory                                 engine/
//! ```
//!
//! Opening replays what came after the last flush (recover.rs). What the bytes are, and in which order they
//! become durable, is in FORMAT.md; what is proven, in SPEC.md of `anwansi-proofs`.
//!
//! ```
//! use anwansi_proofs::{Policy, Question};
//! use anwansi_store::{Commit, LogKey, Options, Store, Which, engine};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Store::open(
//!     engine::open("memory:")?, // or "fjall:./data"
//!     LogKey::generate(None)?,  // or LogKey::load_or_create, to keep it
//!     &Options::default(),
//! )?;
//! let done = store.commit(Commit::new(vec![("greeting".into(), Some("hello".into()))]))?;
//!
//! // Anyone who has the log's key can check this, without trusting whoever sent it.
//! let question = Question::default().key(b"greeting").key(b"answer");
//! let evidence = store.evidence(done.version, Which::State, &question)?;
//! let checked = evidence.check(&Policy::of_log(store.vkey().clone())?)?;
//! let state = checked.version().state().expect("the state was asked for");
//! assert_eq!(state.get(b"greeting")?, Some(&b"hello"[..]));
//! assert_eq!(state.get(b"answer")?, None);
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod check;
mod commit;
pub mod engine;
mod error;
mod finality;
mod flush;
mod flushes;
mod gate;
mod group;
mod history;
mod keys;
mod ledger;
mod log;
mod options;
mod record;
mod recover;
mod replay;
mod retention;
mod segments;
mod snapshot;
mod store;
mod threads;
mod transaction;
mod tree;
mod undo;
mod version;

pub use check::Report;
pub use commit::{
    Answer, COMMIT_BYTES_MAX, COMMIT_WRITES_MAX, Commit, Committed, REQUEST_KEPT, RequestId,
};
pub use error::{Damage, Error};
pub use finality::{Finality, Published};
pub use keys::LogKey;
pub use ledger::{
    Assignment, BLOB_BYTES_MAX, DRAWS_MAX, Equivocation, Ledger, Load, Node, OPEN_DRAWS_MAX,
    OPEN_MAX, OPEN_SPEC_BYTES_MAX, OPEN_TASKS_MAX, OwnFold, Progress, REGISTERED_MAX,
    RESULT_BYTES_MAX, RESULTS_BYTES_MAX, Refusal, STATE_BYTES_MAX, Stage, Submitted, TASKS_MAX,
    TaskProgress, Turn,
};
pub use options::{Options, Pruned};
pub use retention::{Freed, Keep, Receipt, Retention};
pub use snapshot::{Pair, Snapshot, Which};
pub use store::{Clock, Store};
pub use transaction::Transaction;
pub use tree::PageId;
