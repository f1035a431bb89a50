//! What the ledger is asked and told: transitions, nodes, blobs, and a node's part of a task.
//!
//! Answers about what is final are verified like any other. What is still under way is the server's word,
//! and is called so: nothing rests on it but when to ask again.

mod assignments;
mod blobs;
mod nodes;
mod transitions;

pub use assignments::{Assignment, Phase};
pub use blobs::BLOB_BYTES_MAX;
pub use nodes::Node;
pub use transitions::{Decision, Progress, TaskProgress, TransitionEvidence, no_agreement};
