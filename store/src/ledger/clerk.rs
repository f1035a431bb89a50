//! The clerk: one thread that moves open transitions on, when something is complete or out of time.
//!
//! Each turn it takes all that is due, makes it durable, and then tells the book. So closings of many tasks
//! share a version, and ends of many rounds share a sync, whenever they come faster than storage is.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use anwansi_proofs::TransitionId;

use super::{
    Desk,
    book::{Due, TaskId},
    decide::Decision,
    fold::Folding,
    journal::{self, RoundId},
    step::{Closing, Step},
};
use crate::{
    Error,
    commit::{self, Awaited, Jobs, Work},
    engine::{Batch, Ticket, Writer},
    store::Shared,
};

/// How long the clerk sleeps at most while a deadline is set: clocks of tests do not wake it.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// Bytes of decisions after which those on their way are waited for.
const DECISIONS_BYTES: usize = 16 << 20;

pub(crate) struct Clerk {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) jobs: Jobs,
}

impl Clerk {
    /// Works until the store closes or fails.
    pub(crate) fn run(self) {
        while let Some(due) = self.wait() {
            if let Err(error) = self.turn(due) {
                self.shared.fail(&error);
                return;
            }
            self.shared.announce();
        }
    }

    fn desk(&self) -> &Desk {
        &self.shared.desk
    }

    /// What is due next; `None` once the store closes.
    fn wait(&self) -> Option<Due> {
        let desk = self.desk();
        let mut book = desk.book();
        loop {
            let now = (desk.uptime)();
            let (due, next) = book.take_due(now);
            if desk.is_closed() || self.shared.failure().is_some() {
                return None;
            }
            if !due.is_empty() {
                return Some(due);
            }
            let sleep = next.map(|next| Duration::from_millis(next.saturating_sub(now)));
            let sleep = sleep.map_or(Duration::MAX, |sleep| sleep.min(SLEEP_MAX));
            let woken = desk.due.wait_timeout(book, sleep);
            book = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn turn(&self, due: Due) -> Result<(), Error> {
        // All of it is on its way before any of it is waited for.
        let closing = self.close(&due.close);
        let ending = self.end(&due.end);
        if let Some(closing) = closing {
            let version = closing.wait()?.version;
            // A crash here leaves a version with closings that nobody was told of: reading it back, the
            // rounds are closed.
            self.desk().book().closed(&due.close, version, (self.desk().uptime)());
        }
        if let Some(ending) = ending {
            ending.wait()?;
            // A crash here leaves rounds that ended; reading them back, what follows is drawn as here.
            self.desk().book().ended(&due.end, (self.desk().uptime)());
        }
        let mut due = due.decide.into_iter().peekable();
        while due.peek().is_some() {
            // Several share a version; how many depends on what they write.
            let (mut sent, mut bytes) = (Vec::new(), 0);
            while let Some(id) = due.next_if(|_| bytes < DECISIONS_BYTES) {
                let decision = self.decide(&id)?;
                bytes += decision.bytes();
                sent.push((id, self.send(Step::Decide(Box::new(decision)))));
            }
            for (id, decided) in sent {
                decided.wait()?;
                self.desk().book().decided(&id);
            }
        }
        Ok(())
    }

    /// Sends the closings of rounds on their way into a version.
    fn close(&self, tasks: &BTreeSet<TaskId>) -> Option<Awaited> {
        let book = self.desk().book();
        let closing = |(id, index): &TaskId| {
            let task = &book.get(id)?.tasks[*index as usize];
            let at = RoundId { transition: *id, task: *index, round: task.round() };
            Some(Closing { at, pledges: task.current().pledges() })
        };
        let closings = tasks.iter().filter_map(closing).collect::<Vec<_>>();
        drop(book);
        (!closings.is_empty()).then(|| self.send(Step::Close(closings)))
    }

    /// Sends the ends of rounds on their way to being durable.
    fn end(&self, tasks: &BTreeSet<TaskId>) -> Option<Ticket> {
        let book = self.desk().book();
        let mut batch = Batch::new();
        for (id, index) in tasks {
            if let Some(open) = book.get(id) {
                let round = open.tasks[*index as usize].round();
                journal::put_ended(&mut batch, &RoundId { transition: *id, task: *index, round });
            }
        }
        drop(book);
        (!batch.is_empty()).then(|| self.writer.write(batch))
    }

    /// The decision of a transition that has ended.
    fn decide(&self, id: &TransitionId) -> Result<Decision, Error> {
        let desk = self.desk();
        // Nothing is added to a transition that has ended, and nobody else takes it out.
        let decision = {
            let book = desk.book();
            let open = book.get(id).expect("it is taken out when it is decided");
            let ending = open.ending.expect("what is due to be decided has ended");
            Decision::new(open, ending)
        };
        let folding = Folding::find(&decision.spec().fold, &desk.folds);
        decision.fold(folding, &*self.shared.engine)
    }

    fn send(&self, step: Step) -> Awaited {
        let (answer, awaited) = commit::answer();
        self.jobs.send(Work::Step(step), answer);
        awaited
    }
}
