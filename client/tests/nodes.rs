//! Goal: a node signs and shows what it should, once, and nothing else.
//!
//! Method: workers against a real ledger behind a server that can be told to lie in one way at a time, or
//! to cut a connection before or after what was sent has its effect. All that nodes send is written down.
#![allow(clippy::unwrap_used, reason = "what fails in a test shall fail it")]

mod liar;

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anwansi_client::{
    Assignment, Client, Error, Fault, InMemory, Phase,
    programs::{self, Program, ProgramError},
    worker::{Done, Event, NodeSecret, NotDone, Worker},
};
use anwansi_proofs::{
    Apply, Digest, Draft, Error as ProofError, Input, Json, NodeKey, Policy, Refused, Spec,
    TaskPolicy, TransitionId, Version,
    record::{Outcome, Status},
};
use liar::{Cut, Liar, Lie, TOKEN, commit, start};
use serde_json::Value;
use tempfile::TempDir;

fn secret(node: u8) -> NodeSecret {
    NodeSecret::from_bytes(&[node; 32])
}

fn key(node: u8) -> NodeKey {
    secret(node).key()
}

/// A ledger with the nodes 1 to `count`, also in the fork.
fn ledger(count: u8) -> Liar {
    let liar = start();
    for store in [&liar.store, &liar.other] {
        for node in 1..=count {
            let signature = secret(node).join(store.origin());
            store.ledger().register(&key(node), &signature).unwrap();
        }
    }
    liar
}

fn client(liar: &Liar) -> Client {
    let policy = Policy::of_log(liar.store.vkey().clone()).unwrap();
    Client::connect(&liar.url, policy, InMemory::default()).unwrap().with_token(TOKEN).unwrap()
}

fn worker(liar: &Liar, node: u8, directory: &Path) -> Worker {
    Worker::new(client(liar), secret(node), programs::all(), directory).unwrap()
}

fn draft(lead: u32, inputs: Vec<Input>) -> Draft {
    Draft {
        program: "wordcount/1".into(),
        code: None,
        nonce: "a test".into(),
        inputs,
        fold: "sum_by_key".into(),
        into: "wc".into(),
        apply: Apply::Replace,
        spread: false,
        policy: TaskPolicy { nodes_max: lead, ..TaskPolicy::with_lead(lead) },
    }
}

fn texts(count: usize) -> Vec<Input> {
    let text = |i: usize| Input::Data(format!("the whale\nand the {}", "sea ".repeat(i)).into());
    (0..count).map(text).collect()
}

fn open(liar: &Liar, draft: &Draft) -> Spec {
    let spec = Spec::new(draft).unwrap();
    liar.store.ledger().submit(spec.bytes()).unwrap();
    spec
}

/// What there is to do for a node, as soon as there is something.
fn assignments(liar: &Liar, node: u8) -> Vec<Assignment> {
    let client = client(liar);
    for _ in 0..500 {
        let found = client.assignments(&key(node), &[], Duration::from_secs(1)).unwrap();
        if !found.is_empty() {
            return found;
        }
    }
    panic!("nothing to do for node {node}");
}

fn sent(liar: &Liar, what: &str, node: u8) -> Vec<Value> {
    let (wire, node) = (liar.wire.lock().unwrap(), key(node).to_string());
    let own = wire.iter().filter(|(sent, body)| sent == what && body["node"] == node);
    own.map(|(_, body)| body.clone()).collect()
}

fn fault(result: Result<Done, Error>) -> Fault {
    match result {
        Err(Error::NotProven { fault, .. }) => fault,
        other => panic!("not refused as a lie: {other:?}"),
    }
}

/// A node that works until it is dropped.
struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Vec<String>>>,
}

fn run(worker: Worker) -> Running {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = thread::spawn(move || {
        let mut heard = Vec::new();
        let jobs = NonZeroUsize::new(2).unwrap();
        let hear = |event: &Event<'_>| heard.push(format!("{event:?}"));
        worker.run(jobs, &stopped, hear).unwrap();
        heard
    });
    Running { stop, thread: Some(thread) }
}

impl Running {
    fn stop(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

#[test]
fn nodes_that_work_decide_a_transition_and_its_evidence_holds() {
    let liar = ledger(8);
    let directory = TempDir::new().unwrap();
    let nodes = (1..=8).map(|node| run(worker(&liar, node, directory.path())));
    let nodes = nodes.collect::<Vec<_>>();
    let client = client(&liar);
    let blob = client.put_blob(b"Call me Ishmael. The whale.").unwrap();
    let inputs = [texts(5), vec![Input::Blob(blob)]].concat();
    let spec = Spec::new(&draft(3, inputs)).unwrap();
    assert_eq!(client.submit(&spec).unwrap(), spec.id());
    assert_eq!(client.submit(&spec).unwrap(), spec.id(), "again is the same");
    let mut seen = 0;
    let decision = client.wait(&spec.id(), |progress| {
        seen = seen.max(progress.unwrap().tasks.len());
        ControlFlow::Continue(())
    });
    let decision = decision.unwrap().unwrap();
    assert_eq!((decision.outcome, seen), (Outcome::Applied, 6));
    let proven = client.transition_evidence(&spec.id(), true).unwrap();
    assert_eq!(proven.version(), decision.decided);
    let agreed = &proven.value.agreed;
    assert!(agreed.tasks.iter().all(|task| task.status == Status::Final && task.agree == 3));
    let value = proven.value.value.unwrap();
    let counts = value.as_object().unwrap();
    let count = |word: &str| counts.get(word).and_then(Json::as_u32);
    assert_eq!((count("the"), count("sea"), count("ishmael")), (Some(11), Some(10), Some(1)));
    let stored = client.get(b"wc", anwansi_client::At::Newest).unwrap().value.unwrap();
    assert_eq!(stored, value.to_bytes());
    // All pledges came before the first reveal of their round, and nothing was sent twice.
    let agreed = client.nodes(anwansi_client::At::Newest).unwrap().value;
    assert_eq!(agreed.len(), 8);
    assert_eq!(agreed.iter().map(|node| node.score.agreed).sum::<u64>(), 18);
    liar.tell(Lie::LostVote);
    let lost = client.transition_evidence(&spec.id(), true).unwrap_err();
    let by_level = matches!(&lost, Error::NotProven { fault: Fault::Evidence(refused), .. }
        if refused.level() == anwansi_proofs::Level::Agreement);
    assert!(by_level, "{lost}");
    for node in nodes {
        let start = Instant::now();
        let heard = node.stop();
        assert!(start.elapsed() < Duration::from_secs(5), "it stops without waiting for work");
        assert!(!heard.iter().any(|event| event.contains("NotDone")), "{heard:#?}");
    }
}

/// Gives another result each time, which no honest program does: whoever ran it again would be seen.
struct Counter(Arc<AtomicU64>);

impl Program for Counter {
    fn name(&self) -> &'static str {
        "wordcount/1"
    }

    fn run(&self, _: &[u8], _: &Digest) -> Result<Vec<u8>, ProgramError> {
        let runs = self.0.fetch_add(1, Ordering::SeqCst);
        if runs == 0 {
            return Err(ProgramError::Failed("not the first time".into()));
        }
        Ok(format!("{{\"runs\":{runs}}}").into_bytes())
    }
}

#[test]
fn a_node_that_dies_at_any_step_repeats_itself_and_loses_nothing() {
    let cuts = [("pledges", false), ("pledges", true), ("reveals", false), ("reveals", true)];
    // Dies at one step, or at each.
    let one = cuts.map(|cut| vec![cut]);
    for cuts in one.into_iter().chain([cuts.to_vec(), Vec::new()]) {
        let liar = ledger(1);
        let directory = TempDir::new().unwrap();
        let runs = Arc::new(AtomicU64::new(0));
        let spec = open(&liar, &draft(1, texts(1)));
        let mut cuts_left = cuts.iter();
        let decided = || liar.store.ledger().progress(&spec.id()).unwrap().decided;
        let mut lives = 0;
        while decided().is_none() {
            // Each life ends with the first thing done, or not done.
            let programs: Vec<Box<dyn Program>> = vec![Box::new(Counter(runs.clone()))];
            let worker = Worker::new(client(&liar), secret(1), programs, directory.path()).unwrap();
            let Some(assignment) =
                client(&liar).assignments(&key(1), &[], Duration::ZERO).unwrap().into_iter().next()
            else {
                continue;
            };
            let mut cut = liar.cut.lock().unwrap();
            if cut.is_none() {
                *cut = cuts_left.next().map(|(what, after)| Cut { what, after: *after });
            }
            drop(cut);
            let _ = worker.handle(&assignment);
            lives += 1;
            assert!(lives < 20);
        }
        assert_eq!(runs.load(Ordering::SeqCst), 2, "{cuts:?}: run once more than it failed");
        for what in ["pledges", "reveals"] {
            let sent = sent(&liar, what, 1);
            assert!(sent.iter().all(|body| *body == sent[0]), "{cuts:?}: another one was sent");
            let expected = 1 + cuts.iter().filter(|(cut, _)| *cut == what).count();
            assert!(sent.len() <= expected && !sent.is_empty(), "{cuts:?} {what}");
        }
        let task =
            &client(&liar).transition_evidence(&spec.id(), true).unwrap().value.agreed.tasks[0];
        assert_eq!(task.digest, Some(Digest::of(b"{\"runs\":1}")), "{cuts:?}");
        assert_eq!((task.agree, task.faults, task.missed), (1, 0, 0));
    }
}

#[test]
fn a_node_that_is_cut_off_while_it_runs_tries_again() {
    for (what, after) in
        [("pledges", false), ("pledges", true), ("reveals", false), ("reveals", true)]
    {
        let liar = ledger(1);
        let directory = TempDir::new().unwrap();
        *liar.cut.lock().unwrap() = Some(Cut { what, after });
        let spec = open(&liar, &draft(1, texts(1)));
        let node = run(worker(&liar, 1, directory.path()));
        let decision = client(&liar).wait(&spec.id(), |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(decision.unwrap().outcome, Outcome::Applied);
        let heard = node.stop();
        let again = heard.iter().filter(|event| event.contains("again: Some"));
        assert_eq!(again.count(), 1, "{what} {after}: {heard:#?}");
    }
}

/// Tells a lie, and checks that the node sends nothing and does its part once the truth is told.
fn refuses(
    liar: &Liar,
    node: u8,
    assignment: &Assignment,
    lie: Lie,
    expected: impl Fn(&Fault) -> bool,
) {
    let directory = TempDir::new().unwrap();
    let worker = worker(liar, node, directory.path());
    let before = liar.wire.lock().unwrap().len();
    liar.tell(lie);
    let fault = fault(worker.handle(assignment));
    liar.tell(Lie::None);
    assert!(expected(&fault), "{lie:?}: {fault:?}");
    assert!(!fault.to_string().is_empty());
    assert_eq!(liar.wire.lock().unwrap().len(), before, "{lie:?}: it was sent nevertheless");
    let own = directory.path().join(key(node).to_string());
    assert_eq!(std::fs::read_dir(own).unwrap().count(), 1, "{lie:?}: nothing but the lock is kept");
}

#[test]
fn a_node_that_is_lied_to_about_an_opening_signs_nothing() {
    let liar = ledger(4);
    let other = open(&liar, &Draft { nonce: "another".into(), ..draft(2, texts(1)) });
    let blob = client(&liar).put_blob(b"a chapter").unwrap();
    let spec = open(&liar, &draft(2, vec![Input::Blob(blob)]));
    let drawn = (1..=4).find(|node| {
        let all = liar.store.ledger().assignments(&key(*node), &[]);
        all.iter().any(|assignment| assignment.transition == spec.id())
    });
    let drawn = drawn.unwrap();
    let stranger = (1..=4).find(|node| {
        let all = liar.store.ledger().assignments(&key(*node), &[]);
        !all.iter().any(|assignment| assignment.transition == spec.id())
    });
    let stranger = stranger.unwrap();
    let all = assignments(&liar, drawn);
    let true_one = all.iter().find(|assignment| assignment.transition == spec.id()).unwrap();
    let opened = true_one.opened;

    let is_other = |fault: &Fault| matches!(fault, Fault::OtherTransition { .. });
    refuses(&liar, drawn, true_one, Lie::OtherSpec(other.id()), is_other);
    let not_in_log = |fault: &Fault| {
        matches!(
            fault,
            Fault::Evidence(Refused::Finality { error: ProofError::NotInLog { .. }, .. })
        )
    };
    refuses(&liar, drawn, true_one, Lie::HeaderSwapped, not_in_log);
    let other_root = |fault: &Fault| {
        matches!(
            fault,
            Fault::Evidence(Refused::Inclusion { error: ProofError::RootMismatch { .. }, .. })
        )
    };
    refuses(&liar, drawn, true_one, Lie::OtherTasks, other_root);
    refuses(&liar, drawn, true_one, Lie::Absent, other_root);
    refuses(&liar, drawn, true_one, Lie::OtherBlob, |fault| {
        matches!(fault, Fault::OtherBytes { .. })
    });

    // What the assignment itself says.
    let claims = |change: &dyn Fn(&mut Assignment)| {
        let mut claimed = true_one.clone();
        change(&mut claimed);
        claimed
    };
    let no_record = |fault: &Fault| matches!(fault, Fault::NoRecord { .. });
    let no_draws = |fault: &Fault| matches!(fault, Fault::Draws { .. });
    let not_drawn = |fault: &Fault| matches!(fault, Fault::NotDrawn { .. });
    let before = claims(&|claimed| claimed.opened = Version(opened.0 - 1));
    // It is the version itself that does not say so, before the state is asked when it was.
    let not_opened = |fault: &Fault| no_record(fault) && fault.to_string().contains("with 1 tasks");
    refuses(&liar, drawn, &before, Lie::None, not_opened);
    let no_task = claims(&|claimed| claimed.index = 1);
    refuses(&liar, drawn, &no_task, Lie::None, no_record);
    for draws in [vec![], vec![1], vec![3], vec![4], vec![2, 0], vec![2, 1], vec![2, 2]] {
        let other_draws = claims(&|claimed| claimed.draws.clone_from(&draws));
        refuses(&liar, drawn, &other_draws, Lie::None, no_draws);
    }
    let next_round = claims(&|claimed| (claimed.round, claimed.draws) = (1, vec![2, 1]));
    refuses(&liar, drawn, &next_round, Lie::None, no_draws);
    refuses(&liar, stranger, true_one, Lie::None, not_drawn);

    let directory = TempDir::new().unwrap();
    let unknown = claims(&|claimed| claimed.program = "wordcount/2".into());
    let worker = worker(&liar, drawn, directory.path());
    let refused = worker.handle(&unknown).unwrap_err();
    assert!(matches!(refused, Error::NotDone(NotDone::UnknownProgram { .. })), "{refused}");
    let version = Version(liar.store.latest().version().0 + 1);
    let future = claims(&|claimed| claimed.opened = version);
    assert!(matches!(worker.handle(&future), Err(Error::Refused(_))));
    assert!(sent(&liar, "pledges", drawn).is_empty());
    let done = worker.handle(true_one).unwrap();
    assert!(matches!(done, Done::Pledged { .. }));
    assert_eq!(sent(&liar, "pledges", drawn).len(), 1);
}

#[test]
fn a_node_that_is_lied_to_about_a_closing_shows_nothing() {
    let liar = ledger(2);
    let policy = TaskPolicy { pledge_ms: 1500, ..TaskPolicy::with_lead(2) };
    let policy = TaskPolicy { nodes_max: 2, ..policy };
    open(&liar, &Draft { policy, ..draft(2, texts(2)) });
    let directories = [(); 3].map(|()| TempDir::new().unwrap());
    let one = worker(&liar, 1, directories[1].path());
    let two = worker(&liar, 2, directories[2].path());
    for assignment in assignments(&liar, 1) {
        one.handle(&assignment).unwrap();
    }
    let to_pledge = assignments(&liar, 2);
    // The second node's pledge for task 1 does not reach the ledger in time.
    two.handle(&to_pledge[0]).unwrap();
    *liar.cut.lock().unwrap() = Some(Cut { what: "pledges", after: false });
    assert!(matches!(two.handle(&to_pledge[1]), Err(Error::Unreachable { .. })));
    let reveal = |node, index| loop {
        let found = assignments(&liar, node).into_iter().find(|assignment| {
            assignment.index == index && matches!(assignment.phase, Phase::Reveal { .. })
        });
        if let Some(found) = found {
            return found;
        }
    };
    let first = reveal(1, 0);
    let Phase::Reveal { closed } = first.phase else { panic!("a reveal") };

    let nothing_shown =
        || assert!(liar.wire.lock().unwrap().iter().all(|(what, _)| what == "pledges"));
    liar.tell(Lie::ClosedWithout(key(2)));
    assert_eq!(fault(one.handle(&first)), Fault::OtherPledges);
    liar.tell(Lie::ClosedWithout(key(1)));
    assert_eq!(fault(one.handle(&first)), Fault::OtherPledges);
    liar.tell(Lie::None);
    let elsewhere = |version| {
        let phase = Phase::Reveal { closed: Version(version) };
        Assignment { phase, ..first.clone() }
    };
    for version in [closed.0 - 1, first.opened.0, 1] {
        let refused = fault(one.handle(&elsewhere(version)));
        assert!(matches!(refused, Fault::NoRecord { .. }), "{version}: {refused}");
    }
    liar.tell(Lie::OtherTasks);
    // Of a version that was not verified before.
    let fresh = worker(&liar, 1, directories[0].path());
    let kept = fresh.handle(&first).unwrap_err();
    assert!(matches!(kept, Error::NotProven { .. }), "{kept}");
    liar.tell(Lie::None);
    let kept = fresh.handle(&first).unwrap_err();
    assert!(matches!(kept, Error::NotDone(NotDone::NothingPledged)), "{kept}");
    nothing_shown();

    // A true closing, in the log, without the own pledge.
    let second = reveal(1, 1);
    assert_eq!(fault(two.handle(&second)), Fault::NotAmongPledges);
    nothing_shown();
    let late = two.handle(&to_pledge[1]).unwrap_err();
    assert!(matches!(&late, Error::Refused(problem) if problem.name == "too-late"), "{late}");
    assert!(matches!(one.handle(&first).unwrap(), Done::Revealed { .. }));
    assert_eq!(sent(&liar, "reveals", 1).len(), 1);
}

#[test]
fn many_tasks_of_a_transition_cost_one_verification() {
    let liar = ledger(1);
    let directory = TempDir::new().unwrap();
    let spec = open(&liar, &draft(1, texts(40)));
    let node = run(worker(&liar, 1, directory.path()));
    let decision = client(&liar).wait(&spec.id(), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(decision.unwrap().outcome, Outcome::Applied);
    node.stop();
    let paths = liar.paths.lock().unwrap();
    let asked = |end: &str| paths.iter().filter(|path| path.ends_with(end)).count();
    assert_eq!((asked("/spec"), asked("state/range")), (1, 1));
    let closings = asked("v1/proofs") - 1;
    assert!(closings <= 40, "a closing each at most: {closings}");
    assert_eq!(sent(&liar, "pledges", 1).len(), 40);
    assert_eq!(sent(&liar, "reveals", 1).len(), 40);
}

#[test]
fn what_is_too_late_is_not_tried_again() {
    let liar = ledger(2);
    let policy = TaskPolicy { pledge_ms: 100, ..draft(2, texts(1)).policy };
    let spec = open(&liar, &Draft { policy, ..draft(2, texts(1)) });
    let assignment = assignments(&liar, 1).remove(0);
    let node = {
        let directory = TempDir::new().unwrap();
        let programs: Vec<Box<dyn Program>> = vec![Box::new(Slow)];
        run(Worker::new(client(&liar), secret(1), programs, directory.path()).unwrap())
    };
    let decision = client(&liar).wait(&spec.id(), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(decision.unwrap().outcome, Outcome::Failed);
    thread::sleep(Duration::from_millis(1200));
    let heard = node.stop();
    assert_eq!(sent(&liar, "pledges", 1).len(), 0, "{heard:#?}");
    assert_eq!(heard.iter().filter(|event| event.contains("NotDone")).count(), 1, "{heard:#?}");
    let directory = TempDir::new().unwrap();
    let late = worker(&liar, 1, directory.path()).handle(&assignment).unwrap_err();
    let over = matches!(late, Error::NotDone(NotDone::Decided { outcome: Outcome::Failed }));
    assert!(over, "{late}");
}

struct Slow;

impl Program for Slow {
    fn name(&self) -> &'static str {
        "wordcount/1"
    }

    fn run(&self, _: &[u8], _: &Digest) -> Result<Vec<u8>, ProgramError> {
        thread::sleep(Duration::from_secs(1));
        panic!("as programs do");
    }
}

#[test]
fn results_are_removed_once_it_is_proven_that_nobody_needs_them() {
    let liar = ledger(1);
    let directory = TempDir::new().unwrap();
    let node = worker(&liar, 1, directory.path());
    let spec = open(&liar, &draft(1, texts(2)));
    let kept = || {
        let own = directory.path().join(key(1).to_string());
        std::fs::read_dir(own).unwrap().count() - 1
    };
    let tidy = |busy: &[TransitionId]| node.tidy(&busy.iter().copied().collect::<BTreeSet<_>>());
    let first = assignments(&liar, 1);
    while liar.store.ledger().progress(&spec.id()).unwrap().decided.is_none() {
        for assignment in liar_assignments(&liar) {
            if let Done::Pledged { .. } = node.handle(&assignment).unwrap() {
                assert_eq!(tidy(&[]).unwrap(), 0, "while it is open");
            }
        }
    }
    assert_eq!(kept(), 2);
    assert_eq!(tidy(&[spec.id()]).unwrap(), 0, "while something is being done");
    while liar.other.latest().version() < liar.store.latest().version() {
        commit(&liar.other, &[("other", Some("still open"))]);
    }
    liar.tell(Lie::Absent);
    assert!(matches!(tidy(&[]), Err(Error::NotProven { .. })));
    liar.tell(Lie::None);
    assert_eq!((tidy(&[]).unwrap(), kept()), (2, 0));
    // Nobody has it pledge there again.
    let before = liar.wire.lock().unwrap().len();
    for assignment in &first {
        let again = node.handle(assignment).unwrap_err();
        assert!(matches!(again, Error::NotDone(NotDone::Decided { .. })), "{again}");
    }
    assert_eq!((liar.wire.lock().unwrap().len(), kept()), (before, 0));
}

fn liar_assignments(liar: &Liar) -> Vec<Assignment> {
    client(liar).assignments(&key(1), &[], Duration::ZERO).unwrap()
}

#[test]
fn a_transition_under_another_id_was_not_submitted() {
    let liar = ledger(1);
    let client = client(&liar);
    let spec = Spec::new(&draft(1, texts(1))).unwrap();
    liar.tell(Lie::OtherId);
    let Err(Error::NotProven { fault, .. }) = client.submit(&spec) else { panic!("another id") };
    assert!(matches!(fault, Fault::OtherTransition { .. }));
    liar.tell(Lie::OtherSpec(spec.id()));
    let Err(Error::NotProven { fault, .. }) = client.spec(&TransitionId(Digest::ZERO)) else {
        panic!("another specification")
    };
    assert!(matches!(fault, Fault::OtherTransition { .. }));
}
