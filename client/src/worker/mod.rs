//! A node: runs its part of tasks, pledges the results, and reveals them once all pledges are closed.
//!
//! ```text
//!   assignment: pledge                            assignment: reveal
//!     opening verified, draw repeated               opening verified
//!     input by its digest, program run              closing verified, own pledge in it
//!     result on disk                                result and salt sent
//!     pledge sent                                   result removed once the transition is decided
//! ```
//!
//! The server hands out work and is not believed: a node signs nothing for an opening that is not in the
//! log or a draw that it is not in, and shows nothing before a closing in the log has its pledge. Whatever
//! a crash cuts off is done again with the same outcome: see [`NodeSecret`], and invariant W1 in
//! results.rs.
//!
//! Nodes that err, for tests and demonstrations, need nothing in here: a [`Program`] may err or give up,
//! and a node that signs two pledges or reveals something else is built from [`NodeSecret`],
//! [`Client::assignments`], [`Client::send_pledge`] and [`Client::send_reveal`].
//!
//! ```no_run
//! use std::{num::NonZeroUsize, path::Path, sync::{Arc, atomic::AtomicBool}};
//! use anwansi_client::{Client, programs, worker::{Event, NodeSecret, Worker}};
//!
//! # fn work(client: Client) -> Result<(), anwansi_client::Error> {
//! let secret = NodeSecret::load(Path::new("node.key"))?;
//! let worker = Worker::new(client, secret, programs::all(), Path::new("results"))?;
//! let stop = Arc::new(AtomicBool::new(false)); // set by somebody else
//! worker.run(NonZeroUsize::MIN, &stop, |event| match event {
//!     Event::Done { assignment, done, .. } => println!("task {}: {done:?}", assignment.index),
//!     other => eprintln!("{other:?}"),
//! })
//! # }
//! ```

mod opening;
mod pace;
mod results;
mod run;
mod secret;
mod shared;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anwansi_proofs::{
    Digest, Input, NodeKey, Place, TransitionId, Version,
    record::Outcome,
    registry::{TransitionState, transition_key},
};

use crate::{
    Assignment, At, Client, Error, Phase,
    programs::{Program, ProgramError},
};
use opening::{Closings, Opening};
use results::{Kept, Results};
use shared::Shared;

pub(crate) use pace::Backoff;
pub use results::RESULT_BYTES_MAX;
pub use run::Event;
pub use secret::NodeSecret;

/// How long a result is kept of a transition that is not decided: longer than any policy waits.
const KEPT: Duration = Duration::from_secs(100 * 24 * 60 * 60);

/// A node's side of the ledger.
pub struct Worker {
    client: Arc<Client>,
    secret: NodeSecret,
    node: NodeKey,
    programs: Vec<Box<dyn Program>>,
    results: Results,
    openings: Shared<(TransitionId, Version), Opening>,
    closings: Shared<(TransitionId, Version), Closings>,
}

/// What a node has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The server has its pledge.
    Pledged {
        /// The digest of the result.
        digest: Digest,
    },
    /// The server has its result.
    Revealed {
        /// The digest of the result.
        digest: Digest,
    },
}

/// Why a node does not do its part, for a reason of its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotDone {
    /// It does not have the program.
    #[error("this node does not run {name:?}")]
    UnknownProgram {
        /// The program.
        name: String,
    },
    /// Its program has another code than the specification asks for.
    #[error("this node runs another code of {name:?}")]
    OtherCode {
        /// The program.
        name: String,
    },
    /// The program gave no result.
    #[error("{name}: {source}")]
    Program {
        /// The program.
        name: String,
        /// Why.
        source: ProgramError,
    },
    /// The result is too long for a ledger.
    #[error("the result has {bytes} bytes: {RESULT_BYTES_MAX} are the most")]
    ResultTooLong {
        /// Its length.
        bytes: usize,
    },
    /// It shall reveal what it has not pledged, or has lost.
    #[error("no result is kept here that could be revealed")]
    NothingPledged,
    /// The transition is decided: what is pledged now counts for nothing.
    #[error("the transition is {}", outcome.as_str())]
    Decided {
        /// How.
        outcome: Outcome,
    },
}

impl Worker {
    /// The node with this secret, which keeps its results in `directory`. No request is made.
    ///
    /// # Errors
    /// [`Error::File`] if the directory cannot be used, or another worker of this node uses it.
    pub fn new(
        client: Client,
        secret: NodeSecret,
        programs: Vec<Box<dyn Program>>,
        directory: &Path,
    ) -> Result<Self, Error> {
        let node = secret.key();
        Ok(Worker {
            client: Arc::new(client),
            results: Results::open(directory, &node)?,
            secret,
            node,
            programs,
            openings: Shared::new(),
            closings: Shared::new(),
        })
    }

    /// Who the node is.
    #[must_use]
    pub fn node(&self) -> NodeKey {
        self.node
    }

    /// Does one assignment, once. To do it again has the same outcome.
    ///
    /// # Errors
    /// [`Error::NotProven`]: the server lies, and nothing was signed or shown. [`Error::NotDone`]: nothing
    /// was sent, either. [`Error::Refused`]: too late, for example; that is final. [`Error::Unreachable`]
    /// and [`Error::File`]: to be done again.
    pub fn handle(&self, assignment: &Assignment) -> Result<Done, Error> {
        match assignment.phase {
            Phase::Pledge => {
                // Before anything is asked for: there may be many tasks of programs of others.
                let program = self.program(&assignment.program)?;
                let opening = self.opening(assignment)?;
                self.pledge(assignment, &opening, &opening.place(assignment)?, program)
            }
            // Without the program: another start of this node may have run it.
            Phase::Reveal { closed } => {
                self.reveal(&self.opening(assignment)?.place(assignment)?, closed)
            }
        }
    }

    fn opening(&self, assignment: &Assignment) -> Result<Arc<Opening>, Error> {
        let Assignment { transition, opened, .. } = assignment;
        let verify = || Opening::verify(&self.client, transition, *opened);
        self.openings.get((*transition, *opened), verify)
    }

    fn pledge(
        &self,
        assignment: &Assignment,
        opening: &Opening,
        place: &Place,
        program: &dyn Program,
    ) -> Result<Done, Error> {
        opening.check_drawn(&self.node, assignment)?;
        let kept = match self.results.find(place)? {
            None => self.results.keep(place, self.result(opening, place, program)?)?,
            Some(kept) => kept,
        };
        let digest = kept.digest;
        // INVARIANT W1 (results.rs): what is pledged is what is kept.
        // A crash here leaves the result, which is pledged when the assignment comes again.
        self.client.send_pledge(place, &self.secret.pledge(place, &digest))?;
        // A crash here has the same pledge sent again.
        Ok(Done::Pledged { digest })
    }

    fn reveal(&self, place: &Place, closed: Version) -> Result<Done, Error> {
        let Place { transition, task, round, .. } = place;
        let Kept { digest, result } = self.results.find(place)?.ok_or(NotDone::NothingPledged)?;
        let closings = self
            .closings
            .get((*transition, closed), || Closings::verify(&self.client, transition, closed))?;
        let leaves = self.client.closed_pledges(transition, *task, *round)?;
        closings.check(place, &leaves, &self.secret.pledge(place, &digest))?;
        let salt = self.secret.salt(place, &digest);
        self.client.send_reveal(place, &self.node, &salt, &result)?;
        // A crash here has the same result sent again.
        Ok(Done::Revealed { digest })
    }

    /// Runs the program on the task's input.
    fn result(
        &self,
        opening: &Opening,
        place: &Place,
        program: &dyn Program,
    ) -> Result<Vec<u8>, Error> {
        let spec = &opening.spec;
        let name = || spec.program.clone();
        if spec.program != program.name() {
            return Err(NotDone::UnknownProgram { name: name() }.into());
        }
        if spec.code.is_some() && spec.code != program.code() {
            return Err(NotDone::OtherCode { name: name() }.into());
        }
        let index = usize::try_from(place.task).expect("the task is one of the specification");
        let blob;
        let input = match &spec.inputs[index] {
            Input::Data(data) => data,
            Input::Blob(digest) => {
                blob = self.client.blob(digest)?;
                &blob
            }
        };
        let seed = place.noise_seed(&self.node);
        let ran = catch_unwind(AssertUnwindSafe(|| program.run(input, &seed)));
        let ran = ran.unwrap_or_else(|_| Err(ProgramError::Failed("it panicked".into())));
        let result = ran.map_err(|source| NotDone::Program { name: name(), source })?;
        let bytes = result.len();
        if bytes > RESULT_BYTES_MAX {
            return Err(NotDone::ResultTooLong { bytes }.into());
        }
        Ok(result)
    }

    fn program(&self, name: &str) -> Result<&dyn Program, NotDone> {
        let program = self.programs.iter().find(|program| program.name() == name);
        program
            .map(|program| &**program)
            .ok_or_else(|| NotDone::UnknownProgram { name: name.into() })
    }

    /// Removes the results of transitions that are decided, which is proven, and very old ones; not of
    /// those that are `busy`, for which something is being done. Returns how many there were.
    ///
    /// # Errors
    /// As of [`Client::get_many`]; [`Error::File`].
    pub fn tidy(&self, busy: &BTreeSet<TransitionId>) -> Result<usize, Error> {
        let kept = self.results.transitions()?.into_iter().filter(|id| !busy.contains(id));
        let kept = kept.collect::<Vec<_>>();
        if kept.is_empty() {
            return Ok(0);
        }
        let keys = kept.iter().map(transition_key).collect::<Vec<_>>();
        let states = self.client.get_many(&keys, At::Newest)?.value;
        let decided = |state: &Option<Vec<u8>>| {
            let state = state.as_deref().and_then(TransitionState::parse);
            state.is_some_and(|state| state.decided.is_some())
        };
        let over = kept.iter().zip(&states).filter(|(_, state)| decided(state));
        let over = over.map(|(id, _)| *id).collect::<BTreeSet<_>>();
        // From here on nobody pledges there before it was asked again whether it is decided.
        self.openings.retain(|(id, _)| !over.contains(id));
        self.closings.retain(|(id, _)| !over.contains(id));
        self.results.remove(|id, age| over.contains(id) || age > KEPT && !busy.contains(id))
    }
}
