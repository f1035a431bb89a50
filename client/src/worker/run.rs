//! The loop of a node: asks for work, has several tasks done at once, and tries again what failed.
//!
//! ```text
//!   poller, one thread         long polls, in its own time
//!      | assignments
//!   dispatcher, the caller     knows each part: busy, waiting for another attempt, over
//!      |            ^
//!      v            | done, or why not
//!   threads that run and pledge, and others that reveal: a reveal never waits for a program
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use anwansi_proofs::{Digest, NodeKey, TransitionId, Version};

use super::{Backoff, Done, Worker};
use crate::{Assignment, Client, Error, Phase};

/// How long a question for work may wait for an answer.
const POLL_WAIT: Duration = Duration::from_secs(20);
/// How long until the next question if the answer was nothing new.
const POLL_PAUSE: Duration = Duration::from_millis(200);
/// How often the dispatcher looks around.
const TICK: Duration = Duration::from_millis(50);
/// When old results are removed for the first time, and how often after that.
const TIDY_FIRST: Duration = Duration::from_secs(5);
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// How long a part that is over is known: if the server gives it out after that, it is done again.
const OVER_KNOWN: Duration = Duration::from_secs(600);
/// The most parts that are known at once.
const PARTS_MAX: usize = 100_000;
/// Threads that reveal.
const REVEALERS: usize = 2;

/// What a worker tells of itself.
#[derive(Debug)]
pub enum Event<'a> {
    /// It will do this, when its turn comes.
    Assigned(&'a Assignment),
    /// It has done this.
    Done {
        /// What was to be done.
        assignment: &'a Assignment,
        /// What was done.
        done: Done,
        /// How long it took.
        took: Duration,
    },
    /// It has not done this.
    NotDone {
        /// What was to be done.
        assignment: &'a Assignment,
        /// Why not.
        error: &'a Error,
        /// When it tries again; `None`: never.
        again: Option<Duration>,
    },
    /// It does not know what there is to do.
    NoAnswer {
        /// Why not.
        error: &'a Error,
        /// When it asks again.
        again: Duration,
    },
    /// It has removed results of transitions that are decided.
    Tidied {
        /// How many.
        results: usize,
    },
}

/// One node's part in one phase of one round.
type Part = (TransitionId, u32, u32, Version, Phase);

fn part(assignment: &Assignment) -> Part {
    let Assignment { transition, index, round, opened, phase, .. } = assignment;
    (*transition, *index, *round, *opened, *phase)
}

enum State {
    Busy(Backoff),
    Waiting { since: Instant, wait: Duration, backoff: Backoff, assignment: Assignment },
    Over(Instant),
}

type Polled = Result<Vec<Assignment>, (Error, Duration)>;

struct Finished {
    assignment: Assignment,
    result: Result<Done, Error>,
    took: Duration,
}

impl Worker {
    /// Works until `stop` is set, with `jobs` programs running at once; `hear` is told what happens.
    /// Returns when the programs that run have ended; `stop` is set then, whatever ended it.
    ///
    /// # Errors
    /// [`Error::Forked`]: there is nobody left to work for.
    pub fn run(
        &self,
        jobs: NonZeroUsize,
        stop: &Arc<AtomicBool>,
        mut hear: impl FnMut(&Event<'_>),
    ) -> Result<(), Error> {
        let (polled_in, polled) = mpsc::sync_channel(1);
        let (client, node, stopped) = (self.client.clone(), self.node, stop.clone());
        // Not waited for in the end: it may be waiting itself, for an answer that nobody needs.
        let programs = self.programs.iter().map(|program| program.name().to_owned());
        let programs = programs.collect::<Vec<_>>();
        thread::spawn(move || poll(&client, &node, &programs, &stopped, &polled_in));
        let (finished_in, finished) = mpsc::channel();
        let (to_run, run) = mpsc::channel();
        let (to_reveal, reveal) = mpsc::channel();
        let (run, reveal) = (Mutex::new(run), Mutex::new(reveal));
        thread::scope(|scope| {
            for queue in (0..jobs.get()).map(|_| &run).chain((0..REVEALERS).map(|_| &reveal)) {
                let finished = finished_in.clone();
                scope.spawn(move || self.work(queue, stop, &finished));
            }
            // What is still to be heard ends with the last thread.
            drop(finished_in);
            let mut dispatcher = Dispatcher {
                worker: self,
                parts: HashMap::new(),
                listed: BTreeSet::new(),
                to_run,
                to_reveal,
            };
            let ended = dispatcher.run(stop, &polled, &finished, &mut hear);
            // Also if it ended by itself.
            stop.store(true, Ordering::SeqCst);
            drop(dispatcher);
            for Finished { assignment, result, took } in finished {
                match result {
                    Ok(done) => hear(&Event::Done { assignment: &assignment, done, took }),
                    Err(error) => {
                        let (assignment, error) = (&assignment, &error);
                        hear(&Event::NotDone { assignment, error, again: None });
                    }
                }
            }
            ended
        })
    }

    fn work(
        &self,
        queue: &Mutex<Receiver<Assignment>>,
        stop: &AtomicBool,
        finished: &Sender<Finished>,
    ) {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(assignment) = next else { return };
            if stop.load(Ordering::SeqCst) {
                return;
            }
            let start = Instant::now();
            let result = self.handle(&assignment);
            let done = Finished { assignment, result, took: start.elapsed() };
            if finished.send(done).is_err() {
                return;
            }
        }
    }
}

/// Asks for work until `stop` is set or nobody listens.
fn poll(
    client: &Client,
    node: &NodeKey,
    programs: &[String],
    stop: &AtomicBool,
    polled: &SyncSender<Polled>,
) {
    let mut backoff = Backoff::new(&Digest(node.0));
    let mut last = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let (answer, pause) = match client.assignments(node, programs, POLL_WAIT) {
            Ok(assignments) => {
                backoff.reset();
                let parts = assignments.iter().map(part).collect::<Vec<_>>();
                // The server answers at once while there is something to do, also while it is being done.
                let nothing_new = parts.iter().all(|part| last.contains(part));
                let pause = if nothing_new { POLL_PAUSE } else { Duration::ZERO };
                last = parts;
                (Ok(assignments), pause)
            }
            Err(error) => {
                let wait = backoff.after(&error);
                (Err((error, wait)), wait)
            }
        };
        if polled.send(answer).is_err() {
            return;
        }
        let start = Instant::now();
        while start.elapsed() < pause && !stop.load(Ordering::SeqCst) {
            thread::sleep(TICK.min(pause));
        }
    }
}

/// Whether the same may succeed a little later.
fn may_help_again(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } | Error::File { .. } => true,
        // Its closing is on the way into the log.
        Error::Refused(problem) => problem.name == "too-early",
        _ => false,
    }
}

struct Dispatcher<'a> {
    worker: &'a Worker,
    parts: HashMap<Part, State>,
    /// What the server gave out last.
    listed: BTreeSet<(TransitionId, u32, u32)>,
    to_run: Sender<Assignment>,
    to_reveal: Sender<Assignment>,
}

impl Dispatcher<'_> {
    fn run(
        &mut self,
        stop: &AtomicBool,
        polled: &Receiver<Polled>,
        finished: &Receiver<Finished>,
        hear: &mut impl FnMut(&Event<'_>),
    ) -> Result<(), Error> {
        let (mut tidied, mut wait) = (Instant::now(), TIDY_FIRST);
        while !stop.load(Ordering::SeqCst) {
            match finished.recv_timeout(TICK) {
                Ok(finished) => self.finished(finished, hear)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    unreachable!("threads end only once they are stopped")
                }
            }
            match polled.try_recv() {
                Ok(Ok(assignments)) => self.assigned(assignments, hear),
                Ok(Err((error @ Error::Forked { .. }, _))) => return Err(error),
                Ok(Err((error, again))) => hear(&Event::NoAnswer { error: &error, again }),
                Err(_) => {}
            }
            self.again(hear);
            if tidied.elapsed() > wait {
                self.tidy(hear)?;
                (tidied, wait) = (Instant::now(), TIDY_EVERY);
            }
        }
        Ok(())
    }

    fn assigned(&mut self, assignments: Vec<Assignment>, hear: &mut impl FnMut(&Event<'_>)) {
        let place =
            |assignment: &Assignment| (assignment.transition, assignment.index, assignment.round);
        self.listed = assignments.iter().map(place).collect();
        for assignment in assignments {
            if self.parts.len() >= PARTS_MAX {
                break;
            }
            if !self.parts.contains_key(&part(&assignment)) {
                hear(&Event::Assigned(&assignment));
                let backoff = Backoff::new(&Digest(self.worker.node.0));
                self.dispatch(assignment, backoff);
            }
        }
    }

    fn dispatch(&mut self, assignment: Assignment, backoff: Backoff) {
        self.parts.insert(part(&assignment), State::Busy(backoff));
        let queue = match assignment.phase {
            Phase::Pledge => &self.to_run,
            Phase::Reveal { .. } => &self.to_reveal,
        };
        queue.send(assignment).expect("threads end only once their queue has");
    }

    fn finished(
        &mut self,
        Finished { assignment, result, took }: Finished,
        hear: &mut impl FnMut(&Event<'_>),
    ) -> Result<(), Error> {
        let part = part(&assignment);
        let now = Instant::now();
        let error = match result {
            Ok(done) => {
                hear(&Event::Done { assignment: &assignment, done, took });
                self.parts.insert(part, State::Over(now));
                return Ok(());
            }
            Err(error @ Error::Forked { .. }) => return Err(error),
            Err(error) => error,
        };
        let state = self.parts.remove(&part);
        let again = match state {
            Some(State::Busy(mut backoff)) if may_help_again(&error) => {
                Some((backoff.after(&error), backoff))
            }
            _ => None,
        };
        let wait = again.as_ref().map(|(wait, _)| *wait);
        hear(&Event::NotDone { assignment: &assignment, error: &error, again: wait });
        let state = match again {
            Some((wait, backoff)) => State::Waiting { since: now, wait, backoff, assignment },
            None => State::Over(now),
        };
        self.parts.insert(part, state);
        Ok(())
    }

    /// Begins again with what has waited long enough, if the server still wants it.
    fn again(&mut self, hear: &mut impl FnMut(&Event<'_>)) {
        let due = self.parts.extract_if(|_, state| match state {
            State::Busy(_) => false,
            State::Waiting { since, wait, .. } => since.elapsed() >= *wait,
            State::Over(since) => since.elapsed() > OVER_KNOWN,
        });
        for (_, state) in due.collect::<Vec<_>>() {
            let State::Waiting { backoff, assignment, .. } = state else { continue };
            let Assignment { transition, index, round, .. } = assignment;
            if self.listed.contains(&(transition, index, round)) {
                hear(&Event::Assigned(&assignment));
                self.dispatch(assignment, backoff);
            }
        }
    }

    fn tidy(&mut self, hear: &mut impl FnMut(&Event<'_>)) -> Result<(), Error> {
        let over = |state: &State| matches!(state, State::Over(_));
        let busy = self.parts.iter().filter(|(_, state)| !over(state)).map(|(part, _)| part.0);
        match self.worker.tidy(&busy.collect()) {
            Ok(0) => Ok(()),
            Ok(results) => {
                hear(&Event::Tidied { results });
                Ok(())
            }
            Err(error @ Error::Forked { .. }) => Err(error),
            Err(error) => {
                hear(&Event::NoAnswer { error: &error, again: TIDY_EVERY });
                Ok(())
            }
        }
    }
}
