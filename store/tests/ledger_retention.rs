//! What led to decisions that are kept is there, whole and provable, and what led to others is gone, whatever they share.
//!
//! Method: random transitions that share results and inputs with each other, some of them open, some half way; random
//! inputs, rules and reopenings, beside a list of what was decided when. After each pruning every transition is asked for,
//! and at the end all are dropped and storage is counted. A second test fails the n-th operation of the engine, for every
//! n, and opens what a crash could leave then; a third prunes while nodes vote. Seeds are fixed and printed.
#![allow(clippy::unwrap_used)]

mod common;
mod machine;

use std::{
    collections::BTreeSet,
    num::NonZeroU64,
    ops::Bound::Unbounded,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anwansi_proofs::{
    Apply, Digest, Draft, Finding, Input, Level, Policy, Spec, TransitionId, Version,
    record::Outcome,
};
use anwansi_store::{
    Commit, Error, Keep, LogKey, Options, Progress, Receipt, Refusal, Retention, Stage, Store,
    engine::{self, Direction, Engine, Keyspace, Memory},
};
use common::Gated;
use fastrand::Rng;
use machine::{Habit, Node, PLEDGE_MS, Uptime, decide, draft, open, run};

/// Enough for a lead, whoever errs.
fn nodes() -> Vec<Node> {
    let faulty = [Habit::Errs, Habit::Equivocates, Habit::Hides];
    let habits = [Habit::Honest; 11].into_iter().chain(faulty);
    (0..).zip(habits).map(|(number, habit)| Node::new(number, habit)).collect()
}

fn join(store: &Store, nodes: &[Node]) {
    for node in nodes {
        node.join(store);
    }
}

fn keep(decided: u64) -> Keep {
    Keep { versions: None, decided: NonZeroU64::new(decided) }
}

fn fill(store: &Store) {
    store.commit(Commit::new(vec![("filler".into(), Some("x".into()))])).unwrap();
}

/// The results of nodes are lengths: few different ones.
fn result(length: u64) -> Vec<u8> {
    length.to_string().into_bytes()
}

fn count(engine: &dyn Engine, space: Keyspace) -> usize {
    engine.scan(space, Unbounded, Unbounded, Direction::Ascending).count()
}

/// What a transition is, and what became of it.
struct Known {
    spec: Spec,
    decided: Option<Progress>,
}

impl Known {
    fn id(&self) -> TransitionId {
        self.spec.id()
    }

    fn decided(&self) -> Option<Version> {
        Some(self.decided.as_ref()?.decided?.0)
    }
}

struct World {
    store: Store,
    nodes: Vec<Node>,
    uptime: Uptime,
    known: Vec<Known>,
    put: BTreeSet<Vec<u8>>,
    horizon: Version,
    dropped: u64,
    random: Rng,
}

impl World {
    fn new(engine: Arc<dyn Engine>, seed: u64) -> Self {
        let (uptime, nodes) = (Uptime::default(), nodes());
        let store = open(engine, &uptime);
        join(&store, &nodes);
        let (random, horizon) = (Rng::with_seed(seed), Version(0));
        let (known, put, dropped) = <_>::default();
        World { store, nodes, uptime, known, put, horizon, dropped, random }
    }

    fn step(&mut self) {
        match self.random.u8(..10) {
            0..3 => self.submit(),
            3 => self.work_a_little(),
            4..7 => self.decide_one(),
            7 => self.put(),
            8 => fill(&self.store),
            _ => {
                let decided = self.random.u64(1..16);
                self.prune(decided);
                self.compare();
            }
        }
    }

    fn submit(&mut self) {
        let mut draft = draft(&self.known.len().to_string(), &[]);
        for _ in 0..self.random.usize(1..=3) {
            let length = self.random.u64(1..6);
            // A result of others, or something that was put, if it is there.
            let digest = Digest::of(&result(length));
            let is_there = self.store.ledger().blob(&digest).is_ok();
            draft.inputs.push(if is_there && self.random.bool() {
                Input::Blob(digest)
            } else {
                Input::Data(vec![b'x'; usize::try_from(length).unwrap()])
            });
        }
        let spec = Spec::new(&draft).unwrap();
        self.store.ledger().submit(spec.bytes()).unwrap();
        self.known.push(Known { spec, decided: None });
    }

    /// Some nodes do some of what they have to: results are revealed that nobody may read yet.
    fn work_a_little(&mut self) {
        for _ in 0..self.random.usize(1..6) {
            for node in &self.nodes {
                for todo in self.store.ledger().assignments(&node.key(), &[]) {
                    if self.random.u8(..4) > 0 {
                        node.act(&self.store, &todo);
                    }
                }
            }
            sleep(Duration::from_millis(2));
        }
        if self.random.bool() {
            self.uptime.pass(u64::from(PLEDGE_MS));
        }
        self.note();
    }

    fn decide_one(&mut self) {
        let open = self.known.iter().filter(|known| known.decided.is_none());
        let open = open.map(Known::id).collect::<Vec<_>>();
        let Some(id) = self.random.choice(open) else { return };
        self.decide(&id);
    }

    /// Lets nodes work on this one alone, until it is decided.
    fn decide(&mut self, id: &TransitionId) {
        let stuck = Instant::now() + Duration::from_secs(30);
        let mut idle = 0;
        while self.store.ledger().progress(id).unwrap().decided.is_none() {
            assert!(Instant::now() < stuck);
            let mut acted = false;
            for node in &self.nodes {
                for todo in self.store.ledger().assignments(&node.key(), &[]) {
                    acted |= todo.transition == *id
                        && node.act(&self.store, &todo).iter().any(Result::is_ok);
                }
            }
            idle = if acted { 0 } else { idle + 1 };
            if idle == 10 {
                self.uptime.pass(u64::from(PLEDGE_MS));
                idle = 0;
            }
            sleep(Duration::from_millis(u64::from(!acted)));
        }
        self.note();
    }

    /// Notes what was decided. Waits until all that is open waits for nodes: then no version comes by itself.
    fn note(&mut self) {
        let stuck = Instant::now() + Duration::from_secs(30);
        loop {
            let (mut open, mut moves) = (0, false);
            for known in self.known.iter_mut().filter(|known| known.decided.is_none()) {
                let progress = self.store.ledger().progress(&known.id()).unwrap();
                if progress.decided.is_some() {
                    known.decided = Some(progress);
                } else {
                    open += 1;
                    moves |= !waits_for_nodes(&progress);
                }
            }
            if !moves && self.store.ledger().load().transitions == open {
                return;
            }
            assert!(Instant::now() < stuck);
            sleep(Duration::from_millis(1));
        }
    }

    fn put(&mut self) {
        let content = result(self.random.u64(1..6));
        self.store.ledger().put_blob(&Digest::of(&content), content.clone().into()).unwrap();
        self.put.insert(content);
    }

    fn prune(&mut self, decided: u64) -> Receipt {
        self.note();
        let newest = self.store.latest().version();
        self.horizon = self.horizon.max(Version((newest.0 + 1).saturating_sub(decided)));
        let dropped = self.known.iter().filter_map(Known::decided);
        let dropped = dropped.filter(|decided| *decided < self.horizon).count() as u64;
        // Now and then the versions go, too.
        let last = NonZeroU64::new(self.random.u64(..4));
        let versions = last.map(|last| Retention { last, every: None });
        let receipt = self.store.prune(Keep { versions, ..keep(decided) }).unwrap();
        let report = self.store.check(|_, _| {}).unwrap();
        // If versions are not pruned this time, those that were before may have left something since.
        assert!(report.left == 0 || versions.is_none(), "{report:?} after {receipt}");
        assert_eq!(receipt.transitions, dropped - self.dropped);
        assert_eq!(receipt.oldest_decided, self.horizon);
        self.dropped = dropped;
        receipt
    }

    /// All that is kept can be shown, and all else is refused.
    fn compare(&self) {
        let policy = Policy::of_log(self.store.vkey().clone()).unwrap();
        assert_eq!(self.store.ledger().oldest(), self.horizon);
        for known in &self.known {
            match &known.decided {
                Some(progress) if known.decided().unwrap() < self.horizon => {
                    is_dropped(&self.store, &known.spec, progress);
                }
                Some(progress) => is_whole(&self.store, &policy, progress),
                None => {
                    let id = known.id();
                    self.store.ledger().spec(&id).unwrap();
                    assert_eq!(self.store.ledger().progress(&id).unwrap().decided, None);
                }
            }
        }
        for content in &self.put {
            let kept = self.store.ledger().blob(&Digest::of(content)).unwrap();
            assert_eq!(kept, &content[..], "what was put stays");
        }
        assert_eq!(self.store.check(|_, _| {}).unwrap().damages, []);
    }

    fn reopen(&mut self, engine: impl FnOnce() -> Arc<dyn Engine>) {
        self.note();
        // The engine is locked while it is open.
        let elsewhere = open(Arc::new(Memory::new()), &self.uptime);
        drop(std::mem::replace(&mut self.store, elsewhere));
        self.store = open(engine(), &self.uptime);
    }

    /// Decides all, drops all, and counts what is left.
    fn finish(mut self) {
        for id in self.known.iter().map(Known::id).collect::<Vec<_>>() {
            run(&self.store, &self.nodes, &self.uptime, &id);
        }
        self.note();
        self.compare();
        fill(&self.store);
        self.prune(1);
        self.compare();
        assert_eq!(count(self.store.engine(), Keyspace::Ledger), self.known.len());
        assert_eq!(count(self.store.engine(), Keyspace::Blobs), 2 * self.put.len());
    }
}

/// Whether nothing becomes of a transition before a node does something, or time passes.
fn waits_for_nodes(progress: &Progress) -> bool {
    let (ended, others): (Vec<_>, Vec<_>) =
        progress.tasks.iter().partition(|task| task.stage == Stage::Ended);
    let waits = others.iter().all(|task| {
        matches!(task.stage, Stage::Pledging | Stage::Revealing)
            && task.until_ms.is_some_and(|until| until > 0)
            && !task.waiting_for.is_empty()
    });
    waits && ended.len() < progress.tasks.len()
}

fn is_clean(store: &Store) {
    let report = store.check(|_, _| {}).unwrap();
    assert_eq!((report.damages, report.left), (vec![], 0));
}

/// A transition can be shown with its results.
fn is_whole(store: &Store, policy: &Policy, progress: &Progress) {
    let evidence = store.ledger().evidence(&progress.id, true).unwrap();
    let checked = evidence.check(policy).unwrap();
    assert_eq!(checked.finding(Level::Agreement), Finding::Verified);
    let is_applied = progress.decided.unwrap().1 == Outcome::Applied;
    assert_eq!(checked.finding(Level::Aggregate) == Finding::Verified, is_applied);
    let records = progress.tasks.iter().filter_map(|task| task.record.as_ref());
    for record in records {
        let dissent = record.dissent.iter().map(|(digest, _)| *digest);
        for digest in record.digest.into_iter().chain(dissent) {
            assert_eq!(Digest::of(&store.ledger().blob(&digest).unwrap()), digest);
        }
    }
    assert_eq!(store.ledger().progress(&progress.id).unwrap(), *progress);
    store.ledger().spec(&progress.id).unwrap();
}

/// Of a transition the records are there, and nothing else is asked for in vain.
fn is_dropped(store: &Store, spec: &Spec, progress: &Progress) {
    let (ledger, id) = (store.ledger(), progress.id);
    let dropped = |error: Error| match error {
        Error::Refused(Refusal::Dropped { id: named, decided, oldest }) => {
            assert_eq!((named, decided), (id, progress.decided.unwrap().0));
            assert_eq!(oldest, ledger.oldest());
            assert!(decided < oldest);
        }
        error => panic!("{error}"),
    };
    dropped(ledger.evidence(&id, false).unwrap_err());
    dropped(ledger.evidence(&id, true).unwrap_err());
    dropped(ledger.spec(&id).unwrap_err());
    dropped(ledger.pledges(&id, 0, 0).unwrap_err());
    let expected = Progress { equivocations: Vec::new(), ..progress.clone() };
    assert_eq!(ledger.progress(&id).unwrap(), expected);
    let again = ledger.submit(spec.bytes());
    assert!(matches!(again, Err(Error::Refused(Refusal::KnownTransition { .. }))), "{again:?}");
    let cancelled = ledger.cancel(&id);
    assert!(matches!(cancelled, Err(Error::Refused(Refusal::NotCancellable))), "{cancelled:?}");
}

fn run_on(seeds: std::ops::Range<u64>, engine: impl Fn(u64) -> Box<dyn Fn() -> Arc<dyn Engine>>) {
    let mut dropped = 0;
    for seed in seeds {
        println!("seed {seed}");
        let engine = engine(seed);
        let mut world = World::new(engine(), seed);
        for _ in 0..70 {
            world.step();
            if world.random.u8(..25) == 0 {
                world.reopen(&engine);
            }
        }
        dropped += world.dropped;
        world.finish();
    }
    assert!(dropped > 10, "{dropped} transitions were dropped on the way");
}

#[test]
fn dropped_ledger_in_memory_equals_the_model() {
    run_on(0..8, |_| {
        let memory: Arc<dyn Engine> = Arc::new(Memory::new());
        Box::new(move || memory.clone())
    });
}

fn run_on_disk(scheme: &'static str) {
    run_on(20..22, |_| {
        let directory = tempfile::tempdir().unwrap();
        Box::new(move || {
            engine::open(&format!("{scheme}:{}", directory.path().join("data").display())).unwrap()
        })
    });
}

#[test]
fn dropped_ledger_on_fjall_equals_the_model() {
    run_on_disk("fjall");
}

#[test]
fn dropped_ledger_on_sled_equals_the_model() {
    run_on_disk("sled");
}

/// Transitions that share their results, decided one after the other; and an open one that has such a result as input.
fn some(engine: Arc<dyn Engine>, count: usize) -> World {
    let mut world = World::new(engine, 1);
    for number in 0..=count {
        let lengths = (number % 7..).take(4);
        let inputs = lengths.map(|length| Input::Data(vec![b'x'; length])).collect();
        let mut draft = Draft { inputs, ..draft(&number.to_string(), &[]) };
        if number == count {
            draft.inputs.push(Input::Blob(Digest::of(b"2")));
        }
        let spec = Spec::new(&draft).unwrap();
        world.store.ledger().submit(spec.bytes()).unwrap();
        world.known.push(Known { spec, decided: None });
        if number < count {
            world.decide(&world.known[number].id());
        }
    }
    world
}

#[test]
fn crash_at_any_write_of_a_pruning_loses_nothing_that_is_kept() {
    const COUNT: usize = 40;
    let stored = Arc::new(Memory::new());
    let World { store, nodes, uptime, known, .. } = some(stored.clone(), COUNT);
    // Most of those that are decided are dropped, in more than one batch.
    let horizon = known[COUNT - 10].decided().unwrap();
    let decided = store.latest().version().0 + 1 - horizon.0;
    store.close().unwrap();
    let mut openings = 0;
    for nth in 1.. {
        let memory = Arc::new(stored.crash(0));
        let store = open(memory.clone(), &uptime);
        memory.fail_after(nth);
        let done = store.prune(keep(decided));
        for cut in 0..=memory.unsynced() {
            let store = open(Arc::new(memory.crash(cut)), &uptime);
            let policy = Policy::of_log(store.vkey().clone()).unwrap();
            let compare = |is_pruned: bool| {
                for known in &known[..COUNT] {
                    let progress = known.decided.as_ref().unwrap();
                    if known.decided().unwrap() < horizon && is_pruned {
                        is_dropped(&store, &known.spec, progress);
                    } else {
                        is_whole(&store, &policy, progress);
                    }
                }
                assert_eq!(store.check(|_, _| {}).unwrap().damages, []);
            };
            compare(store.ledger().oldest() == horizon);
            store.prune(keep(decided)).unwrap();
            compare(true);
            is_clean(&store);
            // The one that is open has what it needs.
            let progress = run(&store, &nodes, &uptime, &known[COUNT].id());
            assert_eq!(progress.decided.unwrap().1, Outcome::Applied);
            is_whole(&store, &policy, &progress);
            openings += 1;
        }
        if done.is_ok() {
            break;
        }
    }
    assert!(openings > 12, "{openings} openings");
}

#[test]
fn transitions_of_one_version_keep_its_registry_until_the_last_is_dropped() {
    let memory = Arc::new(Memory::new());
    let mut world = World::new(memory.clone(), 1);
    // In one version, if they come together: until they do.
    let (first, second) = (0..)
        .find_map(|nonce| {
            let specs =
                [0, 1].map(|which| Spec::new(&draft(&format!("{nonce}/{which}"), &["a"])).unwrap());
            let opened = std::thread::scope(|scope| {
                let submit =
                    |spec: &Spec| world.store.ledger().submit(spec.bytes()).unwrap().opened;
                let threads = specs.each_ref().map(|spec| scope.spawn(move || submit(spec)));
                threads.map(|thread| thread.join().unwrap())
            });
            let [first, second] = specs.map(|spec| Known { spec, decided: None });
            if opened[0] == opened[1] {
                return Some((first, second));
            }
            for known in [first, second] {
                run(&world.store, &world.nodes, &world.uptime, &known.id());
                world.known.push(known);
            }
            None
        })
        .unwrap();
    let (id, open) = (first.id(), second.id());
    world.known.extend([first, second]);
    world.decide(&id);
    fill(&world.store);
    world.prune(1);
    world.compare();
    // It is drawn from the registry when it is read back.
    world.reopen(|| memory.clone());
    world.decide(&open);
    world.compare();
    world.finish();
}

#[test]
fn versions_and_decisions_are_kept_by_rules_of_their_own() {
    let memory = Arc::new(Memory::new());
    let mut world = some(memory.clone(), 5);
    let policy = Policy::of_log(world.store.vkey().clone()).unwrap();
    let last = NonZeroU64::new(1).unwrap();
    // The version of a decision goes, and what led to it stays.
    let receipt = world.store.prune(&Retention { last, every: None }).unwrap();
    assert!(receipt.dropped > 0);
    assert_eq!((receipt.transitions, receipt.oldest_decided), (0, Version(0)));
    for known in &world.known[..5] {
        let gone = world.store.at(known.decided().unwrap());
        assert!(matches!(gone, Err(Error::Pruned { .. })), "{gone:?}");
        is_whole(&world.store, &policy, known.decided.as_ref().unwrap());
    }
    // Both at once.
    run(&world.store, &world.nodes, &world.uptime, &world.known[5].id());
    world.note();
    fill(&world.store);
    let both = Keep { versions: Some(Retention { last, every: None }), decided: Some(last) };
    let receipt = world.store.prune(both).unwrap();
    assert_eq!((receipt.transitions, receipt.oldest_decided), (6, world.store.latest().version()));
    // The results 1, 2, 3, 4, and that of the node which errs, where it was drawn.
    assert!(receipt.blobs.count >= 4, "{receipt}");
    assert!(receipt.dropped > 0 && receipt.entries > 6 * 10, "{receipt}");
    let again = world.store.prune(both).unwrap();
    assert_eq!((again.transitions, again.entries, again.blobs.count), (0, 0, 0));
    // It never comes back.
    world.store.prune(keep(1000)).unwrap();
    assert_eq!(world.store.ledger().oldest(), receipt.oldest_decided);
    is_clean(&world.store);
}

#[test]
fn proof_of_a_state_that_is_too_long_goes_with_its_version() {
    let uptime = Uptime::default();
    let store = open(Arc::new(Memory::new()), &uptime);
    let nodes = (0..3).map(|number| Node::new(number, Habit::Honest)).collect::<Vec<_>>();
    join(&store, &nodes);
    let policy = Policy::of_log(store.vkey().clone()).unwrap();
    // As much as a result may be, in as many tasks as are too many; and in one less.
    let result = |input: &[u8]| format!("\"{}{}\"", "x".repeat((1 << 20) - 3), input.len() % 10);
    for (tasks, is_kept) in [(7, true), (8, false)] {
        let inputs = (1..=tasks).map(|length| Input::Data(vec![b'x'; length])).collect();
        let (fold, apply) = ("list".into(), Apply::Replace);
        let spec = Spec::new(&Draft { inputs, fold, apply, ..draft("", &[]) }).unwrap();
        store.ledger().submit(spec.bytes()).unwrap();
        let stuck = Instant::now() + Duration::from_secs(60);
        while store.ledger().progress(&spec.id()).unwrap().decided.is_none() {
            assert!(Instant::now() < stuck);
            for node in &nodes {
                for todo in store.ledger().assignments(&node.key(), &[]) {
                    let Input::Data(input) = &todo.input else { unreachable!() };
                    node.vote(&store, &todo, result(input).as_bytes()).unwrap();
                }
            }
        }
        let progress = store.ledger().progress(&spec.id()).unwrap();
        assert_eq!(progress.decided.unwrap().1, Outcome::Applied, "{:?}", progress.reason);
        is_whole(&store, &policy, &progress);
        fill(&store);
        store.prune(&Retention { last: NonZeroU64::MIN, every: None }).unwrap();
        if is_kept {
            is_whole(&store, &policy, &progress);
        } else {
            let gone = store.ledger().evidence(&spec.id(), true);
            assert!(matches!(gone, Err(Error::Pruned { .. })), "{gone:?}");
            store.ledger().evidence(&spec.id(), false).unwrap();
        }
        is_clean(&store);
    }
}

#[test]
fn result_of_a_task_that_ended_stays_when_its_older_owner_is_dropped() {
    let uptime = Uptime::default();
    let store = open(Arc::new(Memory::new()), &uptime);
    let nodes = (0..3).map(|number| Node::new(number, Habit::Honest)).collect::<Vec<_>>();
    join(&store, &nodes);
    let first = machine::submit(&store, &draft("first", &["one"]));
    run(&store, &nodes, &uptime, &first);
    // One of its tasks has the same result, and the other one keeps it open.
    let second = machine::submit(&store, &draft("second", &["two", "sixsix"]));
    let stuck = Instant::now() + Duration::from_secs(30);
    while store.ledger().progress(&second).unwrap().tasks[0].stage != Stage::Ended {
        assert!(Instant::now() < stuck);
        for node in &nodes {
            for todo in store.ledger().assignments(&node.key(), &[]) {
                if todo.index == 0 {
                    node.act(&store, &todo);
                }
            }
        }
    }
    fill(&store);
    assert_eq!(store.prune(keep(1)).unwrap().transitions, 1);
    let progress = run(&store, &nodes, &uptime, &second);
    assert_eq!(progress.decided.unwrap().1, Outcome::Applied, "{:?}", progress.reason);
    is_whole(&store, &Policy::of_log(store.vkey().clone()).unwrap(), &progress);
    is_clean(&store);
}

#[test]
fn late_votes_for_a_dropped_transition_are_too_late() {
    let mut world = World::new(Arc::new(Memory::new()), 1);
    let spec = Spec::new(&draft("", &["one"])).unwrap();
    world.store.ledger().submit(spec.bytes()).unwrap();
    let id = spec.id();
    let todo = world
        .nodes
        .iter()
        .find_map(|node| Some((node, world.store.ledger().assignments(&node.key(), &[]).pop()?)));
    let (node, todo) = todo.unwrap();
    let place = machine::place(&world.store, &todo);
    let (result, salt) = (node.result(b"one"), node.salt(&place));
    let (pledge, node) = (node.pledge(&place, &result, &salt), node.key());
    run(&world.store, &world.nodes, &world.uptime, &id);
    world.known.push(Known { spec, decided: None });
    fill(&world.store);
    world.prune(1);
    let ledger = world.store.ledger();
    let late = ledger.pledge(&id, 0, 0, &pledge);
    assert!(matches!(late, Err(Error::Refused(Refusal::TooLate))), "{late:?}");
    let late = ledger.reveal(&id, 0, 0, &node, salt, result.clone());
    assert!(matches!(late, Err(Error::Refused(Refusal::TooLate))), "{late:?}");
    let digest = Digest::of(&result);
    let gone = ledger.blob(&digest);
    assert!(matches!(gone, Err(Error::Refused(Refusal::NoSuchBlob { .. }))), "{gone:?}");
    world.finish();
}

#[test]
fn blob_whose_deletion_is_on_its_way_is_put_behind_it_or_is_no_input() {
    // Two transitions whose results are refused, and not deleted yet.
    let memory = Arc::new(Memory::new());
    let World { store, uptime, .. } = some(memory.clone(), 2);
    fill(&store);
    memory.fail_after(3);
    store.prune(keep(1)).unwrap_err();
    let memory = memory.crash(memory.unsynced());
    let gated = Arc::new(Gated::new(memory));
    let store = open(gated.clone(), &uptime);
    assert_eq!(store.ledger().oldest(), store.latest().version());

    let (put, input) = (result(1), Digest::of(&result(3)));
    let digest = Digest::of(&put);
    let draft = Draft { inputs: vec![Input::Blob(input)], ..draft("late", &[]) };
    let spec = Spec::new(&draft).unwrap();
    std::thread::scope(|scope| {
        // Within, so that it opens if this panics: the threads are waited for then, too.
        let closed = gated.close();
        let later = || sleep(Duration::from_millis(50));
        // Nothing behind this is written until the gate opens.
        scope.spawn(|| fill(&store));
        later();
        store.ledger().blob(&digest).unwrap();
        scope.spawn(|| store.ledger().put_blob(&digest, put.clone().into()).unwrap());
        later();
        let pruning = scope.spawn(|| store.prune(keep(2)).unwrap());
        later();
        // It is there still.
        store.ledger().blob(&input).unwrap();
        let late = scope.spawn(|| store.ledger().submit(spec.bytes()));
        later();
        drop(closed);
        assert_eq!(pruning.join().unwrap().transitions, 2);
        assert_eq!(store.ledger().blob(&digest).unwrap(), put);
        let found = store.ledger().blob(&input);
        match late.join().unwrap() {
            Err(Error::Refused(Refusal::UnknownBlob { digest })) => {
                assert_eq!(digest, input);
                assert!(
                    matches!(found, Err(Error::Refused(Refusal::NoSuchBlob { .. }))),
                    "{found:?}"
                );
            }
            // It was quicker, and so the input stays.
            late => assert_eq!((late.unwrap().id, found.unwrap()), (spec.id(), result(3).into())),
        }
    });
    is_clean(&store);
}

/// A store that prunes itself, with a clock that runs.
fn pruning_itself(memory: Arc<Memory>, decided: u64) -> Store {
    let key = LogKey::from_secret([7; 32], None).unwrap();
    let options = Options { keep_decided: NonZeroU64::new(decided), ..Options::default() };
    Store::open(memory, key, &options).unwrap()
}

#[test]
fn store_drops_by_itself_what_it_is_told_not_to_keep() {
    let (memory, nodes) = (Arc::new(Memory::new()), nodes());
    let store = pruning_itself(memory.clone(), 2);
    join(&store, &nodes);
    let spec = Spec::new(&draft("", &["one"])).unwrap();
    store.ledger().submit(spec.bytes()).unwrap();
    decide(&store, &nodes, &spec.id());
    // As many versions as it waits for, and nobody flushes.
    let stuck = Instant::now() + Duration::from_secs(30);
    while store.ledger().spec(&spec.id()).is_ok() {
        assert!(Instant::now() < stuck);
        fill(&store);
    }
    while count(&*memory, Keyspace::Ledger) > 1 {
        assert!(Instant::now() < stuck);
        sleep(Duration::from_millis(1));
    }
    store.close().unwrap();
    drop(store);
    // And what an opening finds.
    let store = pruning_itself(memory.clone(), 1000);
    let spec = Spec::new(&draft("2", &["one"])).unwrap();
    store.ledger().submit(spec.bytes()).unwrap();
    decide(&store, &nodes, &spec.id());
    fill(&store);
    store.close().unwrap();
    drop(store);
    let store = pruning_itself(memory, 1);
    let stuck = Instant::now() + Duration::from_secs(30);
    while store.ledger().spec(&spec.id()).is_ok() {
        assert!(Instant::now() < stuck);
        sleep(Duration::from_millis(1));
    }
    store.close().unwrap();
}

#[test]
fn what_is_dropped_while_nodes_vote_and_inputs_come_takes_nothing_from_them() {
    let (memory, mut nodes) = (Arc::new(Memory::new()), nodes());
    // Time is not moved by hand here, and nobody is to wait for those who never reveal.
    nodes.retain(|node| node.habit != Habit::Hides);
    let key = LogKey::from_secret([7; 32], None).unwrap();
    let store = Store::open(memory.clone(), key, &Options::default()).unwrap();
    let policy = Policy::of_log(store.vkey().clone()).unwrap();
    join(&store, &nodes);
    let ended = AtomicBool::new(false);
    let dropped = std::thread::scope(|scope| {
        let pruning = scope.spawn(|| {
            let mut dropped = 0;
            while !ended.load(Ordering::Relaxed) {
                dropped += store.prune(keep(1)).unwrap().transitions;
            }
            dropped
        });
        let putting = scope.spawn(|| {
            for length in 0.. {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                // Now and then one that is a result, too: from then on it is not dropped any more.
                let content = if length == 150 { result(3) } else { result(1000 + length) };
                let digest = Digest::of(&content);
                store.ledger().put_blob(&digest, content.into()).unwrap();
                store.ledger().blob(&digest).unwrap();
                sleep(Duration::from_millis(1));
            }
        });
        for nonce in 0..40 {
            let mut draft: Draft = draft(&nonce.to_string(), &["one", "four"]);
            let three = Digest::of(b"3");
            // The result of the last one, if it is there still: then it stays.
            let spec = Spec::new(&{
                draft.inputs.push(Input::Blob(three));
                draft.clone()
            });
            let spec = match store.ledger().submit(spec.as_ref().unwrap().bytes()) {
                Ok(_) => spec.unwrap(),
                Err(Error::Refused(Refusal::UnknownBlob { .. })) => {
                    draft.inputs.pop();
                    let spec = Spec::new(&draft).unwrap();
                    store.ledger().submit(spec.bytes()).unwrap();
                    spec
                }
                Err(error) => panic!("{error}"),
            };
            let progress = decide(&store, &nodes, &spec.id());
            assert_eq!(progress.decided.unwrap().1, Outcome::Applied, "{:?}", progress.reason);
            assert!(progress.tasks.iter().all(|it| matches!(it.stage, Stage::Decided(_))));
            // It may be dropped at any moment, and then it is refused.
            match store.ledger().evidence(&spec.id(), true) {
                Ok(evidence) => {
                    let checked = evidence.check(&policy).unwrap();
                    assert_eq!(checked.finding(Level::Aggregate), Finding::Verified);
                }
                Err(Error::Refused(Refusal::Dropped { .. })) => {}
                Err(error) => panic!("{error}"),
            }
        }
        ended.store(true, Ordering::Relaxed);
        putting.join().unwrap();
        pruning.join().unwrap()
    });
    assert!(dropped > 20, "{dropped} of 40 were dropped meanwhile");
    assert_eq!(store.check(|_, _| {}).unwrap().damages, []);
    fill(&store);
    store.prune(keep(1)).unwrap();
    is_clean(&store);
    assert_eq!(count(&*memory, Keyspace::Ledger), 40);
}
