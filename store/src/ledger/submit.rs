//! Submitting and cancelling: what a transition has to be before its nodes are drawn.

use std::{sync::Arc, time::Duration};

use anwansi_proofs::{
    NodeKey, Spec, TaskPolicy, TransitionId, Version,
    record::Outcome,
    registry::{TransitionState, transition_key},
};

use super::{
    DRAWS_MAX, Ledger, Refusal, TASKS_MAX,
    book::{Open, draws, inputs},
    fold::Folding,
    journal, registry,
    step::Step,
};
use crate::{Damage, Error, version};

/// A transition that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Its name.
    pub id: TransitionId,
    /// How many tasks it has.
    pub tasks: u32,
    /// The version that opened it, by which its nodes are drawn.
    pub opened: Version,
    /// How its tasks are decided.
    pub policy: TaskPolicy,
    /// How many nodes are drawn from.
    pub registered: usize,
}

impl Submitted {
    fn new(spec: &Spec, opened: Version, registry: &[NodeKey]) -> Self {
        let (id, tasks, policy) = (spec.id(), spec.tasks(), spec.policy);
        Submitted { id, tasks, opened, policy, registered: registry.len() }
    }
}

impl Ledger<'_> {
    /// Opens a transition; one that was opened before is answered as then, unless it was dropped since.
    ///
    /// # Errors
    /// [`Refusal::KnownTransition`] if it was dropped.
    /// [`Error::Refused`] with the rule that the specification breaks, the input, fold or nodes that are
    /// missing, or that too much is open; those of [`Store::commit`](crate::Store::commit).
    pub fn submit(&self, spec: &[u8]) -> Result<Submitted, Error> {
        let spec = match Spec::parse(spec.to_vec()) {
            Ok(spec) => Arc::new(spec),
            Err(anwansi_proofs::Error::Spec(fault)) => return Err(Refusal::Spec(fault).into()),
            Err(error) => unreachable!("a specification is refused for what it is, not by {error}"),
        };
        if let Some(before) = self.submitted(&spec)? {
            return Ok(before);
        }
        self.check(&spec)?;
        let opened = match self.store.step(Step::Open(spec.clone())) {
            Ok(committed) => committed.version,
            Err(error) => {
                self.desk().book().abandon(&spec);
                return match error {
                    // Somebody else was quicker; their version may still be on its way.
                    Error::Refused(Refusal::KnownTransition { .. }) => {
                        self.wait_until(|| self.submitted(&spec))
                    }
                    error => Err(error),
                };
            }
        };
        // A crash here leaves a transition that is open: reading it back does what is done here.
        let open = self.opened(&spec, opened);
        // Nothing else would do it before then.
        let open = open.inspect_err(|error| self.store.shared.fail(error))?;
        let submitted = Submitted::new(&spec, opened, &open.registry);
        self.desk().book().add(open, (self.desk().uptime)());
        self.desk().due.notify_all();
        self.store.shared.announce();
        Ok(submitted)
    }

    /// A transition as it is when its version is durable.
    fn opened(&self, spec: &Arc<Spec>, opened: Version) -> Result<Open, Error> {
        let header = version::read(self.engine(), opened)?.0.digest();
        let registry = self.desk().share(registry(self.engine(), opened)?);
        Ok(Open::new(spec.clone(), opened, header, registry))
    }

    /// Waits, version by version, until `find` finds something.
    fn wait_until<T>(&self, find: impl Fn() -> Result<Option<T>, Error>) -> Result<T, Error> {
        loop {
            let seen = self.store.latest().version();
            if let Some(found) = find()? {
                return Ok(found);
            }
            if let Some(failure) = self.store.failure() {
                return Err(failure);
            }
            if self.desk().is_closed() {
                return Err(Error::Closed);
            }
            // A failure wakes nobody.
            let _ = self.store.wait_for_newer(seen, Duration::from_millis(50));
        }
    }

    /// What was answered when this transition was opened, if it was.
    fn submitted(&self, spec: &Spec) -> Result<Option<Submitted>, Error> {
        let id = spec.id();
        let Some(state) = self.state(&id)? else { return Ok(None) };
        let registry = registry(self.engine(), state.opened);
        // Asked for before this is asked: what is dropped is so before it is deleted.
        if state.decided.is_some_and(|(decided, _)| decided < self.oldest()) {
            return Err(Refusal::KnownTransition { id }.into());
        }
        Ok(Some(Submitted::new(spec, state.opened, &registry?)))
    }

    /// Checks what can be checked before a version is made, and takes the room that it needs.
    fn check(&self, spec: &Arc<Spec>) -> Result<(), Error> {
        let (found, max) = (spec.inputs.len(), TASKS_MAX);
        if found > max {
            return Err(Refusal::TooManyTasks { found, max }.into());
        }
        let folding = Folding::find(&spec.fold, &self.desk().folds);
        let unknown = || Refusal::UnknownFold { name: spec.fold.clone() };
        folding.ok_or_else(unknown)?.check(spec)?;
        let (found, max) = (draws(spec), DRAWS_MAX);
        if found > max {
            return Err(Refusal::TooManyDraws { found, max }.into());
        }
        self.desk().book().begin(spec)?;
        // Only now: an input that is found stays.
        self.has_inputs(spec).inspect_err(|_| self.desk().book().abandon(spec))
    }

    /// Checks that all inputs are there, and readable.
    fn has_inputs(&self, spec: &Spec) -> Result<(), Error> {
        let shown = self.store.latest().version();
        for digest in inputs(spec) {
            if !journal::is_readable(self.engine(), &digest, shown)? {
                return Err(Refusal::UnknownBlob { digest }.into());
            }
        }
        Ok(())
    }

    /// Cancels a transition of which no node has pledged yet, and waits until that is decided.
    ///
    /// # Errors
    /// [`Refusal::NotCancellable`], [`Refusal::UnknownTransition`].
    pub fn cancel(&self, id: &TransitionId) -> Result<(), Error> {
        self.known(id)?;
        let cancelled = self.desk().book().cancel(id);
        if let Err(refusal) = cancelled {
            // A repeat is answered as the first was.
            let before = matches!(self.outcome(id)?, Some(Outcome::Cancelled));
            return if before { Ok(()) } else { Err(refusal.into()) };
        }
        self.desk().due.notify_all();
        self.wait_until(|| self.outcome(id)).map(drop)
    }

    /// What became of a transition, as the newest version says.
    fn outcome(&self, id: &TransitionId) -> Result<Option<Outcome>, Error> {
        Ok(self.state(id)?.and_then(|state| state.decided).map(|(_, outcome)| outcome))
    }

    /// How a transition stands in the newest version; `None` if that does not have it.
    fn state(&self, id: &TransitionId) -> Result<Option<TransitionState>, Error> {
        let Some(state) = self.store.latest().get(&transition_key(id))? else { return Ok(None) };
        let damaged = Error::Damaged(Damage::Transition(*id));
        TransitionState::parse(&state).map(Some).ok_or(damaged)
    }
}
