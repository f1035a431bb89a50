//! The open transitions, in memory, under one lock: what callers add to and the clerk moves on.
//!
//! Everything here follows from what is durable or on its way: a batch is handed to the writer while the
//! lock is held, so that what is decided here is written in that order. Nobody who holds the lock waits
//! for anything to become durable.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use anwansi_proofs::{
    Digest, Input, NodeKey, Place, Pledge, Spec, TransitionId, Version, record::Status,
};

use super::{
    Equivocation, Refusal,
    journal::{Fact, Reveal, RoundId},
    task::{Phase, Taken, Task},
};

/// Transitions that are open at once, at most.
pub const OPEN_MAX: usize = 1024;
/// Tasks of all open transitions, at most.
pub const OPEN_TASKS_MAX: usize = 100_000;
/// Nodes that the tasks of all open transitions may draw, at most.
pub const OPEN_DRAWS_MAX: usize = 1_000_000;
/// Bytes of the specifications of all open transitions, at most.
pub const OPEN_SPEC_BYTES_MAX: usize = 256 << 20;

/// The open transitions, and what is due.
#[derive(Default)]
pub(crate) struct Book {
    open: BTreeMap<TransitionId, Open>,
    room: Room,
    /// By node, the tasks in which something is awaited of it, and until when: the first to end first.
    awaited: HashMap<NodeKey, BTreeSet<(u64, TaskId)>>,
    /// When phases end, in milliseconds of uptime, and that of which task.
    deadlines: BTreeSet<(u64, TaskId)>,
    due: Due,
    /// Of transitions whose opening is on its way.
    opening: Vec<Arc<Spec>>,
    /// Inputs on their way to being durable.
    pub(crate) putting: Vec<Digest>,
    /// Blobs whose deletion is on its way.
    pub(crate) going: BTreeSet<Digest>,
}

/// What is taken of the room for open transitions.
#[derive(Clone, Copy, Default)]
struct Room {
    transitions: usize,
    tasks: usize,
    draws: usize,
    spec_bytes: usize,
}

impl Room {
    fn with(self, spec: &Spec) -> Self {
        Room {
            transitions: self.transitions + 1,
            tasks: self.tasks + spec.inputs.len(),
            draws: self.draws.saturating_add(draws(spec)),
            spec_bytes: self.spec_bytes + spec.bytes().len(),
        }
    }

    /// What is left when a transition gives back its part; one that was read back may never have had one.
    fn without(self, spec: &Spec) -> Self {
        Room {
            transitions: self.transitions.saturating_sub(1),
            tasks: self.tasks.saturating_sub(spec.inputs.len()),
            draws: self.draws.saturating_sub(draws(spec)),
            spec_bytes: self.spec_bytes.saturating_sub(spec.bytes().len()),
        }
    }
}

/// How many nodes the tasks of a transition may draw together.
pub(crate) fn draws(spec: &Spec) -> usize {
    spec.inputs.len().saturating_mul(spec.policy.nodes_max as usize)
}

/// The inputs of a transition that are blobs.
pub(crate) fn inputs(spec: &Spec) -> impl Iterator<Item = Digest> + '_ {
    spec.inputs.iter().filter_map(|input| match input {
        Input::Blob(digest) => Some(*digest),
        Input::Data(_) => None,
    })
}

/// A task, by its transition and index.
pub(crate) type TaskId = (TransitionId, u32);

/// What is complete or out of time, for the clerk to carry on with.
#[derive(Default)]
pub(crate) struct Due {
    pub(crate) close: BTreeSet<TaskId>,
    pub(crate) end: BTreeSet<TaskId>,
    pub(crate) decide: BTreeSet<TransitionId>,
}

impl Due {
    pub(crate) fn is_empty(&self) -> bool {
        self.close.is_empty() && self.end.is_empty() && self.decide.is_empty()
    }
}

/// A transition that is not decided.
pub(crate) struct Open {
    pub(crate) spec: Arc<Spec>,
    pub(crate) opened: Version,
    /// The digest of the header of that version.
    pub(crate) header: Digest,
    /// The nodes that are drawn from.
    pub(crate) registry: Arc<[NodeKey]>,
    pub(crate) tasks: Vec<Task>,
    /// By task, when its phase ends.
    until: Vec<Option<u64>>,
    /// Tasks that are final.
    agreed: usize,
    pub(crate) ending: Option<Ending>,
}

/// Why a transition takes nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Agreed,
    NoAgreement { task: u32 },
    Cancelled,
}

impl Open {
    pub(crate) fn new(
        spec: Arc<Spec>,
        opened: Version,
        header: Digest,
        registry: Arc<[NodeKey]>,
    ) -> Self {
        let place = |task| Place { opened: header, transition: spec.id(), task, round: 0 };
        let task = |index| Task::new(&place(index), &registry, &spec.policy);
        let tasks = (0..spec.tasks()).map(task).collect::<Vec<_>>();
        let until = vec![None; tasks.len()];
        Open { spec, opened, header, registry, tasks, until, agreed: 0, ending: None }
    }

    /// Applies what was read back; `None` if it cannot have happened.
    pub(crate) fn replay(&mut self, at: &RoundId, fact: &Fact) -> Option<()> {
        let place = self.place(at.task, at.round);
        let task = self.tasks.get_mut(at.task as usize)?;
        task.replay(&place, &self.registry, &self.spec.policy, fact)
    }

    pub(crate) fn place(&self, task: u32, round: u32) -> Place {
        Place { opened: self.header, transition: self.spec.id(), task, round }
    }

    fn task(&mut self, index: u32) -> Result<&mut Task, Refusal> {
        let tasks = self.spec.tasks();
        if self.ending.is_some() {
            return Err(Refusal::TooLate);
        }
        self.tasks.get_mut(index as usize).ok_or(Refusal::UnknownTask { index, tasks })
    }

    /// The second pledges so far.
    pub(crate) fn equivocations(&self) -> Vec<Equivocation> {
        let mut equivocations = Vec::new();
        for (index, task) in (0..).zip(&self.tasks) {
            for (round, seats) in (0..).zip(task.rounds.iter().map(|round| &round.seats)) {
                let place = self.place(index, round);
                equivocations.extend(seats.iter().filter_map(|seat| {
                    let (first, second) = (seat.pledge?, seat.second?);
                    Some(Equivocation { place, first, second })
                }));
            }
        }
        equivocations
    }

    /// The milliseconds of uptime at which the phase of a task ends.
    pub(crate) fn until(&self, index: u32) -> Option<u64> {
        self.until[index as usize]
    }
}

impl Book {
    /// Takes room for another transition; false, and nothing is taken, if there is none.
    pub(crate) fn take_room(&mut self, spec: &Spec) -> bool {
        let taken = self.room.with(spec);
        let fits = taken.transitions <= OPEN_MAX
            && taken.tasks <= OPEN_TASKS_MAX
            && taken.draws <= OPEN_DRAWS_MAX
            && taken.spec_bytes <= OPEN_SPEC_BYTES_MAX;
        if fits {
            self.room = taken;
        }
        fits
    }

    /// Takes room for a transition that is to be opened. Its inputs stay from now on, if they are there.
    ///
    /// # Errors
    /// [`Refusal::TooMuchOpen`], and [`Refusal::UnknownBlob`] for an input that is just being deleted.
    pub(crate) fn begin(&mut self, spec: &Arc<Spec>) -> Result<(), Refusal> {
        if let Some(digest) = inputs(spec).find(|digest| self.going.contains(digest)) {
            return Err(Refusal::UnknownBlob { digest });
        }
        if !self.take_room(spec) {
            return Err(Refusal::TooMuchOpen);
        }
        self.opening.push(spec.clone());
        Ok(())
    }

    /// The transition is not opened after all.
    pub(crate) fn abandon(&mut self, spec: &Spec) {
        self.room = self.room.without(spec);
        self.end_opening(&spec.id());
    }

    /// Forgets one opening of a transition.
    fn end_opening(&mut self, id: &TransitionId) {
        if let Some(at) = self.opening.iter().position(|spec| spec.id() == *id) {
            self.opening.swap_remove(at);
        }
    }

    /// Takes those out of `digests` that a transition has as an input or a result which is open or being opened.
    ///
    /// # Cost
    /// A pass over all inputs and all drawn nodes of what is open.
    pub(crate) fn keep_needed(&self, digests: &mut BTreeSet<Digest>) {
        let specs = self.open.values().map(|open| &open.spec).chain(&self.opening);
        for digest in specs.flat_map(|spec| inputs(spec)) {
            digests.remove(&digest);
        }
        let tasks = self.open.values().flat_map(|open| &open.tasks);
        let seats = tasks.flat_map(|task| &task.rounds).flat_map(|round| &round.seats);
        for reveal in seats.filter_map(|seat| seat.reveal) {
            digests.remove(&reveal.digest);
        }
    }

    /// Adds a transition that was opened, or read back, at `now` milliseconds of uptime.
    pub(crate) fn add(&mut self, open: Open, now: u64) {
        let id = open.spec.id();
        let indexes = 0..open.spec.tasks();
        self.end_opening(&id);
        let before = self.open.insert(id, open);
        assert!(before.is_none(), "a transition is opened once");
        indexes.for_each(|index| self.began((id, index), now));
    }

    /// How many transitions and tasks are open, or being opened.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.room.transitions, self.room.tasks)
    }

    /// Whether something is due at once.
    pub(crate) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    pub(crate) fn get(&self, id: &TransitionId) -> Option<&Open> {
        self.open.get(id)
    }

    /// The tasks in which something is awaited of `node`, the first to end first.
    pub(crate) fn awaited_of(&self, node: &NodeKey) -> impl Iterator<Item = TaskId> + '_ {
        self.awaited.get(node).into_iter().flatten().map(|(_, task)| *task)
    }

    /// Takes a pledge whose signature was checked.
    pub(crate) fn pledge(
        &mut self,
        at: &RoundId,
        pledge: &Pledge,
    ) -> Result<(Taken, Pledge), Refusal> {
        let open = self.open.get_mut(&at.transition).ok_or(Refusal::TooLate)?;
        let task = open.task(at.task)?;
        let taken = task.pledge(at.round, pledge)?;
        let seat = task.current().seat(&pledge.node);
        let first = seat.and_then(|seat| seat.pledge).unwrap_or(*pledge);
        self.heard((at.transition, at.task), &pledge.node);
        Ok((taken, first))
    }

    /// Takes a reveal.
    pub(crate) fn reveal(
        &mut self,
        at: &RoundId,
        node: &NodeKey,
        reveal: &Reveal,
    ) -> Result<Taken, Refusal> {
        let open = self.open.get_mut(&at.transition).ok_or(Refusal::TooLate)?;
        let place = open.place(at.task, at.round);
        let taken = open.task(at.task)?.reveal(&place, node, reveal)?;
        self.heard((at.transition, at.task), node);
        Ok(taken)
    }

    /// Cancels a transition of which no node has pledged yet.
    pub(crate) fn cancel(&mut self, id: &TransitionId) -> Result<(), Refusal> {
        let open = self.open.get_mut(id).ok_or(Refusal::NotCancellable)?;
        let mut seats = open.tasks.iter().flat_map(|task| &task.rounds).flat_map(|it| &it.seats);
        let began = seats.any(|seat| seat.pledge.is_some());
        let closing = open.tasks.iter().any(|task| task.phase != Phase::Pledging);
        if open.ending.is_some() || began || closing {
            return Err(Refusal::NotCancellable);
        }
        self.end(id, Ending::Cancelled);
        Ok(())
    }

    /// What is due at `now`, and when something is next if nothing comes before.
    pub(crate) fn take_due(&mut self, now: u64) -> (Due, Option<u64>) {
        while let Some((until, id)) = self.deadlines.first().copied().filter(|it| it.0 <= now) {
            self.deadlines.remove(&(until, id));
            self.complete(id);
        }
        let mut due = std::mem::take(&mut self.due);
        let mut taken = |tasks: &mut BTreeSet<TaskId>, phase| {
            tasks.retain(|(id, index)| {
                let open = self.open.get_mut(id).filter(|open| open.ending.is_none());
                open.map(|open| open.tasks[*index as usize].phase = phase).is_some()
            });
        };
        taken(&mut due.close, Phase::Closing);
        taken(&mut due.end, Phase::Ending);
        (due, self.deadlines.first().map(|(until, _)| *until))
    }

    /// The pledging of these tasks' rounds is in a version.
    pub(crate) fn closed(&mut self, tasks: &BTreeSet<TaskId>, version: Version, now: u64) {
        for id in tasks {
            let Some(open) = self.open.get_mut(&id.0) else { continue };
            open.tasks[id.1 as usize].closed(version);
            self.began(*id, now);
        }
    }

    /// That these tasks' rounds ended is durable.
    pub(crate) fn ended(&mut self, tasks: &BTreeSet<TaskId>, now: u64) {
        for id in tasks {
            let Some(open) = self.open.get_mut(&id.0) else { continue };
            let place = open.place(id.1, 0);
            open.tasks[id.1 as usize].end_round(&place, &open.registry, &open.spec.policy);
            self.began(*id, now);
        }
    }

    /// Takes out a transition that is decided.
    pub(crate) fn decided(&mut self, id: &TransitionId) {
        let open = self.open.remove(id).expect("it was open until now");
        self.room = self.room.without(&open.spec);
    }

    /// A phase of a task began.
    fn began(&mut self, id: TaskId, now: u64) {
        let Some(open) = self.open.get_mut(&id.0).filter(|open| open.ending.is_none()) else {
            return;
        };
        let task = &open.tasks[id.1 as usize];
        let policy = &open.spec.policy;
        let ms = match task.phase {
            Phase::Pledging => policy.pledge_ms,
            Phase::Revealing => policy.reveal_ms,
            Phase::Ended(Status::NoAgreement) => {
                return self.end(&id.0, Ending::NoAgreement { task: id.1 });
            }
            Phase::Ended(_) => {
                open.agreed += 1;
                if open.agreed == open.tasks.len() {
                    self.end(&id.0, Ending::Agreed);
                }
                return;
            }
            Phase::Closing | Phase::Ending => return,
        };
        let until = now.saturating_add(ms.into());
        for seat in task.current().seats.iter().filter(|seat| seat.is_awaited(task.phase)) {
            self.awaited.entry(seat.node).or_default().insert((until, id));
        }
        open.until[id.1 as usize] = Some(until);
        self.deadlines.insert((until, id));
        if task.is_complete() {
            self.complete(id);
        }
    }

    /// Something came from `node` for this task.
    fn heard(&mut self, id: TaskId, node: &NodeKey) {
        let open = &self.open[&id.0];
        let task = &open.tasks[id.1 as usize];
        let complete = task.is_complete();
        let seat = task.current().seat(node);
        if let Some(until) = open.until(id.1)
            && seat.is_none_or(|seat| !seat.is_awaited(task.phase))
        {
            self.forget_awaited((until, id), node);
        }
        if complete {
            self.complete(id);
        }
    }

    fn forget_awaited(&mut self, id: (u64, TaskId), node: &NodeKey) {
        if let Some(tasks) = self.awaited.get_mut(node) {
            tasks.remove(&id);
            if tasks.is_empty() {
                self.awaited.remove(node);
            }
        }
    }

    /// The phase of a task is over: nothing more is to come, or time is up.
    fn complete(&mut self, id: TaskId) {
        self.quiet(id);
        match self.open[&id.0].tasks[id.1 as usize].phase {
            Phase::Pledging => self.due.close.insert(id),
            Phase::Revealing => self.due.end.insert(id),
            _ => false,
        };
    }

    /// Nothing is awaited any more in the phase of a task, and no deadline.
    fn quiet(&mut self, id: TaskId) {
        let open = self.open.get_mut(&id.0).expect("its phase is under way");
        let Some(until) = open.until[id.1 as usize].take() else { return };
        self.deadlines.remove(&(until, id));
        let task = &open.tasks[id.1 as usize];
        let nodes = task.current().seats.iter().map(|seat| seat.node).collect::<Vec<_>>();
        for node in &nodes {
            self.forget_awaited((until, id), node);
        }
    }

    /// A transition takes nothing more: it is to be decided.
    fn end(&mut self, id: &TransitionId, ending: Ending) {
        let open = self.open.get_mut(id).expect("it is open");
        open.ending = Some(ending);
        let indexes = 0..open.spec.tasks();
        indexes.for_each(|index| self.quiet((*id, index)));
        self.due.decide.insert(*id);
    }
}
