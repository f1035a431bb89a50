//! Transitions are decided by the votes of drawn nodes, and what was decided can be shown to anyone.
//!
//! Method: nodes with set habits on a store in memory, time moved by hand; every decision is checked as a
//! client would check it, from its evidence. Then each thing that the ledger refuses, by name.
#![allow(clippy::unwrap_used)]

mod common;
mod machine;

use std::{
    ops::Bound::Unbounded,
    sync::{Arc, Barrier},
};

use anwansi_proofs::{
    Apply, BigInt, Digest, Draft, Finding, Input, Json, Level, NodeKey, Pledge, Policy, Spec,
    SpecFault, TaskPolicy,
    record::{Outcome, Status},
    registry::{NODE_PREFIX, Score, score_key},
};
use anwansi_store::{
    Commit, DRAWS_MAX, Error, Refusal, Stage, Store, TASKS_MAX, Turn,
    engine::{Batch, Direction, Engine, Keyspace, Memory},
};
use machine::{Habit, Node, PLEDGE_MS, REVEAL_MS, Uptime, draft, open, place, run, submit};

fn nodes(habits: &[(Habit, u8)]) -> Vec<Node> {
    let habits = habits.iter().flat_map(|(habit, count)| vec![*habit; usize::from(*count)]);
    (0..).zip(habits).map(|(number, habit)| Node::new(number, habit)).collect()
}

fn store_with(nodes: &[Node]) -> (Store, Uptime) {
    let uptime = Uptime::default();
    let store = open(Arc::new(Memory::new()), &uptime);
    for node in nodes {
        node.join(&store);
    }
    (store, uptime)
}

fn policy(store: &Store) -> Policy {
    Policy::of_log(store.vkey().clone()).unwrap()
}

#[test]
fn honest_nodes_agree_at_once_and_the_sum_is_in_the_state() {
    let nodes = nodes(&[(Habit::Honest, 5)]);
    let (store, uptime) = store_with(&nodes);
    store.commit(Commit::new(vec![("total".into(), Some("100".into()))])).unwrap();
    let id = submit(&store, &draft("", &["four", "seven77"]));
    let progress = run(&store, &nodes, &uptime, &id);
    let (decided, outcome) = progress.decided.unwrap();
    assert_eq!(outcome, Outcome::Applied);
    assert_eq!(store.latest().get(b"total").unwrap().unwrap(), "111");
    for task in &progress.tasks {
        let record = task.record.as_ref().unwrap();
        assert_eq!((record.status, record.agree, record.drawn), (Status::Final, 3, 3));
        assert_eq!(task.stage, Stage::Decided(Status::Final));
    }
    let evidence = store.ledger().evidence(&id, true).unwrap();
    let json = evidence.to_json();
    let evidence = anwansi_proofs::Evidence::parse(json.as_bytes()).unwrap();
    let policy = policy(&store);
    let checked = evidence.check(&policy).unwrap();
    assert_eq!(checked.version().header().version(), decided);
    for level in [Level::Finality, Level::Inclusion, Level::Agreement, Level::Aggregate] {
        assert_eq!(checked.finding(level), Finding::Verified, "{level:?}");
    }
    assert_eq!(checked.value(), Some(&Json::Integer(BigInt::from(11))));
    // Without the results it is still recounted.
    let evidence = store.ledger().evidence(&id, false).unwrap();
    let checked = evidence.check(&policy).unwrap();
    assert_eq!(checked.finding(Level::Agreement), Finding::Verified);
    assert_eq!(checked.finding(Level::Aggregate), Finding::NotShown);
}

#[test]
fn faulty_nodes_cost_rounds_and_are_counted() {
    let nodes = nodes(&[
        (Habit::Honest, 12),
        (Habit::Errs, 1),
        (Habit::Silent, 1),
        (Habit::Hides, 1),
        (Habit::Cheats, 1),
        (Habit::Equivocates, 1),
    ]);
    let (store, uptime) = store_with(&nodes);
    let mut total = 0;
    let mut faults = Score::default();
    let of = |habit| {
        let node = nodes.iter().find(|node| node.habit == habit).unwrap();
        store.ledger().node(&node.key()).unwrap().score
    };
    // Who is drawn is chance: until each of them was.
    let all_met = || {
        of(Habit::Errs).dissented > 0
            && of(Habit::Silent).missed > 0
            && of(Habit::Hides).no_reveal > 0
            && of(Habit::Cheats).bad_reveal > 0
            && of(Habit::Equivocates).equivocated > 0
    };
    for nonce in (0..200).take_while(|nonce| *nonce < 12 || !all_met()) {
        let id = submit(&store, &draft(&nonce.to_string(), &["one", "three", "sixsix"]));
        let progress = run(&store, &nodes, &uptime, &id);
        let evidence = store.ledger().evidence(&id, true).unwrap();
        let policy = policy(&store);
        let checked = evidence.check(&policy).unwrap();
        assert_eq!(checked.finding(Level::Agreement), Finding::Verified);
        let (_, outcome) = progress.decided.unwrap();
        if outcome == Outcome::Applied {
            total += 3 + 5 + 6;
            assert_eq!(checked.finding(Level::Aggregate), Finding::Verified);
        }
        for task in &progress.tasks {
            let record = task.record.as_ref().unwrap();
            faults.missed += u64::from(record.missed);
            faults.no_reveal += u64::from(record.no_reveal);
            faults.bad_reveal += u64::from(record.bad_reveal);
            faults.equivocated += u64::from(record.equivocated);
        }
        let records = progress.tasks.iter().map(|task| task.record.as_ref().unwrap());
        let records = records.collect::<Vec<_>>();
        // In a round that did not end it is kept, and not counted.
        let ended = |place: &anwansi_proofs::Place| {
            (place.round as usize) < records[place.task as usize].closed.len()
        };
        let counted = progress.equivocations.iter().filter(|it| ended(&it.place)).count();
        assert_eq!(counted, records.iter().map(|it| it.equivocated as usize).sum::<usize>());
        for shown in &progress.equivocations {
            assert!(shown.first.is_signed(&shown.place) && shown.second.is_signed(&shown.place));
            assert_ne!(shown.first.pledge, shown.second.pledge);
        }
    }
    let value = store.latest().get(b"total").unwrap().unwrap();
    assert_eq!(value, total.to_string());
    assert!(faults.missed > 0 && faults.no_reveal > 0, "{faults:?}");
    assert!(faults.bad_reveal > 0 && faults.equivocated > 0, "{faults:?}");
    let scores = nodes.iter().map(|node| store.ledger().node(&node.key()).unwrap().score);
    let sum = scores.fold(Score::default(), |sum, score| score.added_to(&sum));
    let votes = Score { agreed: sum.agreed, dissented: sum.dissented, ..faults };
    assert_eq!(sum, votes, "every fault is somebody's");
    let silent = of(Habit::Silent);
    assert_eq!(silent, Score { missed: silent.missed, ..Score::default() });
    assert!(of(Habit::Hides).agreed == 0 && of(Habit::Hides).no_reveal > 0);
    assert!(of(Habit::Cheats).agreed == 0 && of(Habit::Cheats).bad_reveal > 0);
    assert_eq!(of(Habit::Equivocates).equivocated, faults.equivocated);
    assert_eq!(of(Habit::Equivocates).agreed, 0);
    assert!(of(Habit::Errs).dissented > 0 && of(Habit::Errs).agreed == 0);
    assert!(store.check(|_, _| ()).unwrap().damages.is_empty());
}

#[test]
fn nodes_that_never_agree_fail_the_transition_and_change_nothing() {
    // Whoever is drawn, two votes are no lead of three.
    let nodes = nodes(&[(Habit::Honest, 2), (Habit::Silent, 7)]);
    let (store, uptime) = store_with(&nodes);
    let id = submit(&store, &draft("", &["one", "two"]));
    let progress = run(&store, &nodes, &uptime, &id);
    let statuses = progress.tasks.iter().map(|task| task.record.as_ref().unwrap().status);
    assert_eq!(progress.decided.unwrap().1, Outcome::Failed);
    assert!(statuses.collect::<Vec<_>>().contains(&Status::NoAgreement));
    assert!(progress.reason.unwrap().contains("without agreement"));
    assert_eq!(store.latest().get(b"total").unwrap(), None);
    let evidence = store.ledger().evidence(&id, true).unwrap();
    let policy = policy(&store);
    let checked = evidence.check(&policy).unwrap();
    assert_eq!(checked.finding(Level::Agreement), Finding::Verified);
    assert_eq!(checked.finding(Level::Aggregate), Finding::NotShown);
}

#[test]
fn results_are_sealed_until_the_decision() {
    let nodes = nodes(&[(Habit::Honest, 4), (Habit::Hides, 1)]);
    let (store, uptime) = store_with(&nodes);
    let id = submit(&store, &draft("", &["sealed"]));
    let sealed = Digest::of(b"6");
    let mut revealed = false;
    let progress = loop {
        for node in &nodes {
            for todo in store.ledger().assignments(&node.key(), &[]) {
                let is_reveal = matches!(todo.turn, Turn::Reveal { .. });
                revealed |= is_reveal && node.act(&store, &todo).contains_ok();
                if !is_reveal {
                    node.act(&store, &todo);
                }
            }
        }
        let progress = store.ledger().progress(&id).unwrap();
        if progress.decided.is_some() {
            break progress;
        }
        assert!(matches!(
            store.ledger().blob(&sealed),
            Err(Error::Refused(Refusal::NoSuchBlob { .. }))
        ));
        assert!(progress.tasks.iter().all(|task| task.record.is_none()));
        assert!(matches!(
            store.ledger().evidence(&id, true),
            Err(Error::Refused(Refusal::NotDecided))
        ));
        uptime.pass(u64::from(PLEDGE_MS) / 10);
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert!(revealed);
    assert_eq!(progress.decided.unwrap().1, Outcome::Applied);
    assert_eq!(store.ledger().blob(&sealed).unwrap(), "6");
}

trait ContainsOk {
    fn contains_ok(&self) -> bool;
}

impl ContainsOk for Vec<Result<(), Error>> {
    fn contains_ok(&self) -> bool {
        self.iter().any(Result::is_ok)
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Refusal {
    match result {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn submissions_are_refused_for_what_is_wrong_with_them() {
    let nodes = nodes(&[(Habit::Honest, 3)]);
    let (store, _) = store_with(&nodes[..2]);
    let ledger = store.ledger();
    let submit = |change: &dyn Fn(&mut anwansi_proofs::Draft)| {
        let mut draft = draft("", &["x"]);
        change(&mut draft);
        ledger.submit(Spec::new(&draft).unwrap().bytes())
    };
    let too_few = Refusal::TooFewRegistered { registered: 2, lead: 3 };
    assert_eq!(refusal(submit(&|_| ())), too_few);
    nodes[2].join(&store);
    let unknown = Refusal::UnknownFold { name: "average".into() };
    assert_eq!(refusal(submit(&|draft| draft.fold = "average".into())), unknown);
    let list = refusal(submit(&|draft| draft.fold = "list".into()));
    assert!(matches!(list, Refusal::FoldUse { with: "\"apply\": \"add\"", .. }));
    let spread = refusal(submit(&|draft| draft.spread = true));
    assert!(matches!(spread, Refusal::FoldUse { with: "\"spread\": true", .. }));
    let digest = Digest::of(b"blob");
    let blob = refusal(submit(&|draft| draft.inputs = vec![Input::Blob(digest)]));
    assert_eq!(blob, Refusal::UnknownBlob { digest });
    let many = |count| {
        move |draft: &mut anwansi_proofs::Draft| {
            draft.inputs = vec![Input::Data(Vec::new()); count];
        }
    };
    let too_many = Refusal::TooManyTasks { found: TASKS_MAX + 1, max: TASKS_MAX };
    assert_eq!(refusal(submit(&many(TASKS_MAX + 1))), too_many);
    let drawing = |nodes_max| {
        move |draft: &mut anwansi_proofs::Draft| {
            draft.inputs = vec![Input::Data(Vec::new()); TASKS_MAX];
            draft.policy.nodes_max = nodes_max;
        }
    };
    let too_many = Refusal::TooManyDraws { found: DRAWS_MAX + TASKS_MAX, max: DRAWS_MAX };
    assert_eq!(refusal(submit(&drawing(31))), too_many);
    let spec_fault = |bytes: &[u8]| match refusal(ledger.submit(bytes)) {
        Refusal::Spec(fault) => fault,
        other => panic!("{other}"),
    };
    assert_eq!(spec_fault(b"{}"), SpecFault::Member { name: "program" });
    assert_eq!(spec_fault(b"1.5"), SpecFault::NotCanonical { at: 1 });
    assert!(store.latest().prefix(b"\0task/").next().is_none(), "nothing was opened");
    // A task each, as many as there may be.
    let submitted = submit(&many(TASKS_MAX)).unwrap();
    assert_eq!(submitted.tasks as usize, TASKS_MAX);
    assert_eq!(
        submit(&many(TASKS_MAX)).unwrap(),
        submitted,
        "a repeat is answered as the first was"
    );
}

#[test]
fn pledges_and_reveals_are_refused_for_what_is_wrong_with_them() {
    let nodes = nodes(&[(Habit::Honest, 4)]);
    let stranger = Node::new(99, Habit::Honest);
    let (store, uptime) = store_with(&nodes);
    let ledger = store.ledger();
    let id = submit(&store, &draft("", &["abc"]));
    let drawn = |node: &&Node| !ledger.assignments(&node.key(), &[]).is_empty();
    let (inside, outside): (Vec<_>, Vec<_>) = nodes.iter().partition(drawn);
    assert_eq!((inside.len(), outside.len()), (3, 1));
    let todo = ledger.assignments(&inside[0].key(), &[]).remove(0);
    let place = place(&store, &todo);
    let send = |node: &Node, round| {
        let place = anwansi_proofs::Place { round, ..place };
        let pledge = node.pledge(&place, b"3", &node.salt(&place));
        ledger.pledge(&id, 0, round, &pledge)
    };
    let show = |node: &Node, result: &'static str| {
        ledger.reveal(&id, 0, 0, &node.key(), node.salt(&place), result.into())
    };
    assert_eq!(refusal(send(outside[0], 0)), Refusal::NotDrawn);
    assert_eq!(refusal(send(&stranger, 0)), Refusal::NotDrawn);
    assert_eq!(refusal(send(inside[0], 1)), Refusal::NotDrawn, "no such round");
    let mut unsigned = inside[0].pledge(&place, b"3", &[0; 32]);
    unsigned.signature[0] ^= 1;
    assert_eq!(refusal(ledger.pledge(&id, 0, 0, &unsigned)), Refusal::BadSignature);
    let elsewhere = inside[0].pledge(&place, b"3", &[0; 32]);
    assert_eq!(refusal(ledger.pledge(&id, 1, 0, &elsewhere)), Refusal::BadSignature);
    let unknown = anwansi_proofs::TransitionId(Digest::ZERO);
    let refused = refusal(ledger.pledge(&unknown, 0, 0, &elsewhere));
    assert_eq!(refused, Refusal::UnknownTransition { id: unknown });
    assert_eq!(refusal(show(inside[0], "3")), Refusal::NotPledged);
    assert_eq!(refusal(ledger.pledges(&id, 0, 0)), Refusal::TooEarly);

    send(inside[0], 0).unwrap();
    send(inside[0], 0).unwrap();
    assert_eq!(refusal(ledger.cancel(&id)), Refusal::NotCancellable);
    assert_eq!(refusal(show(inside[0], "3")), Refusal::TooEarly);
    send(inside[1], 0).unwrap();
    // The third is late: the round closes without it.
    uptime.pass(u64::from(PLEDGE_MS));
    let todo = wait_for(|| ledger.assignments(&inside[0].key(), &[]).pop());
    assert!(matches!(todo.turn, Turn::Reveal { .. }));
    assert_eq!(refusal(send(inside[2], 0)), Refusal::TooLate);
    assert_eq!(ledger.pledges(&id, 0, 0).unwrap().len(), 2);
    assert_eq!(refusal(show(inside[2], "3")), Refusal::TooLate);
    assert_eq!(refusal(show(inside[0], "4")), Refusal::BadReveal);
    let long = bytes::Bytes::from(vec![b'1'; anwansi_store::RESULT_BYTES_MAX + 1]);
    let refused = ledger.reveal(&id, 0, 0, &inside[0].key(), [0; 32], long);
    assert!(matches!(refusal(refused), Refusal::TooLong { .. }));
    show(inside[0], "3").unwrap();
    show(inside[0], "3").unwrap();
    uptime.pass(u64::from(REVEAL_MS));
    // Two more were to be drawn, and one is left.
    let progress =
        wait_for(|| Some(ledger.progress(&id).unwrap()).filter(|it| it.decided.is_some()));
    assert_eq!(progress.decided.unwrap().1, Outcome::Failed);
    let record = progress.tasks[0].record.clone().unwrap();
    assert_eq!((record.status, record.agree, record.missed), (Status::NoAgreement, 1, 1));
    assert_eq!((record.no_reveal, record.bad_reveal), (1, 0), "a right reveal mends a wrong one");
    send(inside[0], 0).unwrap();
    show(inside[0], "3").unwrap();
    assert_eq!(refusal(send(inside[2], 0)), Refusal::TooLate);
    assert_eq!(refusal(show(inside[1], "3")), Refusal::TooLate);
}

fn wait_for<T>(mut is_there: impl FnMut() -> Option<T>) -> T {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        if let Some(found) = is_there() {
            return found;
        }
        assert!(std::time::Instant::now() < end, "it never came");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn pledge_before_the_opening_is_taken_in_is_too_early() {
    let nodes = nodes(&[(Habit::Honest, 3)]);
    let (store, _) = store_with(&nodes);
    let spec = Spec::new(&draft("", &["abc"])).unwrap();
    let (id, node) = (spec.id(), nodes[0].key());
    let (sender, answers) = std::sync::mpsc::channel();
    let asked = std::sync::Mutex::new(store.clone());
    // It hears of the version before the ledger does, on the thread that makes it durable.
    store.listen(move || {
        let store = asked.lock().unwrap();
        let nothing = Pledge { node, pledge: Digest::ZERO, signature: [0; 64] };
        sender.send(store.ledger().pledge(&id, 0, 0, &nothing)).unwrap();
    });
    store.ledger().submit(spec.bytes()).unwrap();
    assert_eq!(refusal(answers.recv().unwrap()), Refusal::TooEarly);
    let nothing = Pledge { node, pledge: Digest::ZERO, signature: [0; 64] };
    assert_eq!(refusal(store.ledger().pledge(&id, 0, 0, &nothing)), Refusal::BadSignature);
}

#[test]
fn damaged_result_fails_its_transition_and_nothing_else() {
    let nodes = nodes(&[(Habit::Honest, 3)]);
    let uptime = Uptime::default();
    let engine = Arc::new(Memory::new());
    let store = open(engine.clone(), &uptime);
    for node in &nodes {
        node.join(&store);
    }
    let id = submit(&store, &draft("", &["abc", "four"]));
    let ledger = store.ledger();
    let todo = |node: &Node, index| {
        let todo = ledger.assignments(&node.key(), &[]);
        todo.into_iter().find(|todo| todo.index == index)
    };
    let act = |index| {
        for reveals in [false, true] {
            for node in &nodes {
                let awaited = || {
                    todo(node, index).filter(|it| matches!(it.turn, Turn::Reveal { .. }) == reveals)
                };
                let answers = node.act(&store, &wait_for(awaited));
                assert!(answers.iter().all(Result::is_ok), "{answers:?}");
            }
        }
    };
    act(0);
    let blobs = engine.scan(Keyspace::Blobs, Unbounded, Unbounded, Direction::Ascending);
    let keys = blobs.map(|blob| blob.unwrap().0).collect::<Vec<_>>();
    assert_eq!(keys.len(), 1);
    let mut batch = Batch::new();
    batch.put(Keyspace::Blobs, keys[0].clone(), "4");
    engine.write(batch).unwrap();
    act(1);
    let progress =
        wait_for(|| Some(ledger.progress(&id).unwrap()).filter(|it| it.decided.is_some()));
    assert_eq!(progress.decided.unwrap().1, Outcome::Failed);
    assert_eq!(progress.reason.unwrap(), "the stored result of task 0 is damaged");
    let id = submit(&store, &draft("next", &["seven77"]));
    let progress = run(&store, &nodes, &uptime, &id);
    assert_eq!(progress.decided.unwrap().1, Outcome::Applied);
    assert_eq!(store.latest().get(b"total").unwrap().unwrap(), "7");
}

#[test]
fn assignments_are_those_of_the_programs_asked_for() {
    let nodes = nodes(&[(Habit::Honest, 3)]);
    let (store, _) = store_with(&nodes);
    let many = vec!["x"; 300];
    submit(&store, &draft("", &many));
    let other = Draft { program: "other/1".into(), ..draft("", &["a", "b"]) };
    submit(&store, &other);
    let asked = |programs: &[&str]| {
        let programs = programs.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        store.ledger().assignments(&nodes[0].key(), &programs)
    };
    // Those that end first: all of the first transition, of which some fill the answer.
    assert_eq!(asked(&[]).len(), 256);
    let found = asked(&["other/1"]);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|todo| todo.program == "other/1"));
    assert_eq!(asked(&["other/1", "length/1"]).len(), 256);
    assert_eq!(asked(&["other/2"]), []);
    let load = store.ledger().load();
    assert_eq!((load.transitions, load.tasks), (2, 302));
}

#[test]
fn transition_without_a_pledge_can_be_cancelled() {
    let nodes = nodes(&[(Habit::Honest, 3)]);
    let (store, _) = store_with(&nodes);
    let id = submit(&store, &draft("", &["a", "b"]));
    store.ledger().cancel(&id).unwrap();
    let progress = store.ledger().progress(&id).unwrap();
    assert_eq!(progress.decided.unwrap().1, Outcome::Cancelled);
    store.ledger().cancel(&id).unwrap();
    assert!(store.ledger().assignments(&nodes[0].key(), &[]).is_empty());
    let evidence = store.ledger().evidence(&id, true).unwrap();
    let policy = policy(&store);
    let checked = evidence.check(&policy).unwrap();
    assert_eq!(checked.finding(Level::Agreement), Finding::Verified);
}

#[test]
fn folds_that_fail_fail_the_transition_with_their_reason() {
    let nodes = nodes(&[(Habit::Honest, 3)]);
    let (store, uptime) = store_with(&nodes);
    // The nodes answer integers, which is not what is folded.
    let mut draft = draft("", &["a"]);
    draft.fold = "sum_vector".into();
    let id = submit(&store, &draft);
    let progress = run(&store, &nodes, &uptime, &id);
    assert_eq!(progress.decided.unwrap().1, Outcome::Failed);
    assert!(progress.reason.unwrap().contains("task 0"));
    let evidence = store.ledger().evidence(&id, true).unwrap();
    let policy = policy(&store);
    assert_eq!(evidence.check(&policy).unwrap().finding(Level::Agreement), Finding::Verified);
    // What stands there is no integer.
    store.commit(Commit::new(vec![("total".into(), Some("not a number".into()))])).unwrap();
    draft.fold = "sum".into();
    let id = submit(&store, &draft);
    let progress = run(&store, &nodes, &uptime, &id);
    assert!(progress.reason.unwrap().contains("old value"));
    assert_eq!(store.latest().get(b"total").unwrap().unwrap(), "not a number");
    let evidence = store.ledger().evidence(&id, true).unwrap();
    assert_eq!(evidence.check(&policy).unwrap().finding(Level::Agreement), Finding::Verified);
}

#[test]
fn registry_lists_and_forgets_nodes() {
    let nodes = nodes(&[(Habit::Honest, 5)]);
    let (store, uptime) = store_with(&nodes);
    let ledger = store.ledger();
    let mut keys = nodes.iter().map(Node::key).collect::<Vec<_>>();
    keys.sort_unstable();
    let listed = ledger.nodes(&NodeKey([0; 32]), 100).unwrap();
    assert_eq!(listed.iter().map(|node| node.key).collect::<Vec<_>>(), keys);
    assert_eq!(ledger.nodes(&keys[2], 2).unwrap()[1].key, keys[3]);
    assert_eq!(refusal(ledger.register(&keys[0], &[0; 64])), Refusal::BadSignature);
    let since = ledger.node(&keys[0]).unwrap().since;
    nodes.iter().find(|node| node.key() == keys[0]).unwrap().join(&store);
    assert_eq!(ledger.node(&keys[0]).unwrap().since, since, "registered once");
    let id = submit(&store, &draft("", &["drawn before it left"]));
    let drawn = nodes.iter().find(|it| !ledger.assignments(&it.key(), &[]).is_empty()).unwrap();
    ledger.remove(&drawn.key()).unwrap();
    assert_eq!(refusal(ledger.remove(&drawn.key())), Refusal::UnknownNode);
    assert_eq!(refusal(ledger.node(&drawn.key())), Refusal::UnknownNode);
    assert_eq!(store.latest().prefix(NODE_PREFIX).count(), 4);
    let progress = run(&store, &nodes, &uptime, &id);
    assert_eq!(progress.decided.unwrap().1, Outcome::Applied);
    assert!(store.latest().get(&score_key(&drawn.key())).unwrap().is_some(), "scores are kept");
}

#[test]
fn spread_counts_are_added_key_by_key_and_verify() {
    let nodes = nodes(&[(Habit::Honest, 3)]);
    let (store, uptime) = store_with(&nodes);
    let engine: &dyn Engine = store.engine();
    assert_eq!(engine.name(), "memory");
    let mut draft = draft("", &[]);
    draft.fold = "merge".into();
    draft.spread = true;
    draft.apply = Apply::Replace;
    draft.inputs = vec![Input::Data(b"object".to_vec())];
    draft.policy =
        TaskPolicy { pledge_ms: PLEDGE_MS, reveal_ms: REVEAL_MS, ..TaskPolicy::with_lead(3) };
    let id = submit(&store, &draft);
    for _ in 0..2 {
        for node in &nodes {
            let todo = wait_for(|| store.ledger().assignments(&node.key(), &[]).pop());
            let place = place(&store, &todo);
            let (result, salt) = (&br#"{"a":[1],"b":{}}"#[..], node.salt(&place));
            match todo.turn {
                Turn::Pledge => {
                    let pledge = node.pledge(&place, result, &salt);
                    store.ledger().pledge(&id, 0, 0, &pledge).unwrap();
                }
                Turn::Reveal { .. } => {
                    let key = node.key();
                    store.ledger().reveal(&id, 0, 0, &key, salt, result.into()).unwrap();
                }
            }
        }
    }
    let progress = run(&store, &nodes, &uptime, &id);
    assert_eq!(progress.decided.unwrap().1, Outcome::Applied);
    assert_eq!(store.latest().get(b"total/a").unwrap().unwrap(), "[1]");
    let evidence = store.ledger().evidence(&id, true).unwrap();
    let policy = policy(&store);
    let checked = evidence.check(&policy).unwrap();
    assert_eq!(checked.finding(Level::Aggregate), Finding::Verified);
    let state = checked.version().state().unwrap();
    assert_eq!(state.get(b"total/b"), Ok(Some(&b"{}"[..])));
}

#[test]
fn second_submission_waits_for_the_version_of_the_first() {
    let gated = Arc::new(common::Gated::default());
    gated.open();
    let uptime = Uptime::default();
    let store = open(gated.clone(), &uptime);
    for node in nodes(&[(Habit::Honest, 3)]) {
        node.join(&store);
    }
    let closed = gated.close();
    let spec = Spec::new(&draft("", &["x"])).unwrap();
    let submitted = std::thread::scope(|scope| {
        let submit = || store.ledger().submit(spec.bytes());
        let both = [scope.spawn(submit), scope.spawn(submit)];
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(closed);
        both.map(|one| one.join().unwrap().unwrap())
    });
    assert_eq!(submitted[0], submitted[1]);
}

#[test]
fn node_that_leaves_while_a_transition_opens_leaves_after_it() {
    let gated = Arc::new(common::Gated::default());
    gated.open();
    let uptime = Uptime::default();
    let store = open(gated.clone(), &uptime);
    let nodes = nodes(&[(Habit::Honest, 3)]);
    for node in &nodes {
        node.join(&store);
    }
    let closed = gated.close();
    std::thread::scope(|scope| {
        // These fill what may be on its way, so that all else gathers behind them.
        for number in 0..8 {
            let commit = Commit::new(vec![("busy".into(), Some(vec![number].into()))]);
            store.commit_then(commit, Box::new(|done| assert!(done.is_ok())));
        }
        let submitting = scope.spawn(|| submit(&store, &draft("", &["x"])));
        std::thread::sleep(std::time::Duration::from_millis(50));
        let leaving = scope.spawn(|| store.ledger().remove(&nodes[0].key()));
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(closed);
        let id = submitting.join().unwrap();
        let left = leaving.join().unwrap().unwrap().version;
        assert!(left > store.ledger().progress(&id).unwrap().opened);
        let progress = run(&store, &nodes, &uptime, &id);
        assert_eq!(progress.decided.unwrap().1, Outcome::Applied);
    });
    drop(store);
    open(gated, &uptime);
}

/// Adds by saying how long the value was before. Its fold is met twice: when it begins, and before it ends.
struct Lengths(Barrier);

impl anwansi_store::OwnFold for Lengths {
    fn name(&self) -> &'static str {
        "lengths"
    }
    fn fold(&self, _: &[bytes::Bytes]) -> Result<Json, String> {
        self.0.wait();
        self.0.wait();
        Ok(Json::String("new".into()))
    }
    fn add(&self, old: &[u8], _: &Json) -> Result<Json, String> {
        Ok(Json::String(old.len().to_string()))
    }
}

#[test]
fn large_value_of_a_version_on_its_way_is_added_to() {
    let gated = Arc::new(common::Gated::default());
    gated.open();
    let (uptime, fold) = (Uptime::default(), Arc::new(Lengths(Barrier::new(2))));
    let store = machine::open_with(gated.clone(), &uptime, vec![fold.clone()]).unwrap();
    let nodes = nodes(&[(Habit::Honest, 3)]);
    for node in &nodes {
        node.join(&store);
    }
    let mut draft = draft("", &["x"]);
    draft.fold = "lengths".into();
    let id = submit(&store, &draft);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run(&store, &nodes, &uptime, &id));
        fold.0.wait();
        let closed = gated.close();
        // The first is being made durable, the second waits behind it: nothing of it is in storage.
        for (key, length) in [("busy", 1), ("total", 3000)] {
            let commit = Commit::new(vec![(key.into(), Some(vec![7; length].into()))]);
            store.commit_then(commit, Box::new(|done| assert!(done.is_ok())));
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        fold.0.wait();
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(closed);
        assert_eq!(running.join().unwrap().decided.unwrap().1, Outcome::Applied);
    });
    assert_eq!(store.latest().get(b"total").unwrap().unwrap(), "\"3000\"");
}

struct Panics;

impl anwansi_store::OwnFold for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }
    fn fold(&self, outputs: &[bytes::Bytes]) -> Result<Json, String> {
        assert!(outputs.is_empty(), "a fold that panics");
        Err(String::new())
    }
    fn add(&self, _: &[u8], new: &Json) -> Result<Json, String> {
        Ok(new.clone())
    }
}

#[test]
fn own_fold_that_panics_fails_its_transition_and_no_other() {
    let uptime = Uptime::default();
    let store =
        machine::open_with(Arc::new(Memory::new()), &uptime, vec![Arc::new(Panics)]).unwrap();
    let nodes = nodes(&[(Habit::Honest, 3)]);
    for node in &nodes {
        node.join(&store);
    }
    let mut draft = draft("", &["x"]);
    draft.fold = "panics".into();
    let id = submit(&store, &draft);
    let progress = run(&store, &nodes, &uptime, &id);
    assert_eq!(progress.decided.unwrap().1, Outcome::Failed);
    assert_eq!(progress.reason.unwrap(), "the fold panicked");
    draft.fold = "sum".into();
    let id = submit(&store, &draft);
    assert_eq!(run(&store, &nodes, &uptime, &id).decided.unwrap().1, Outcome::Applied);
}

#[test]
fn checks_of_a_ledger_at_work_find_no_damage() {
    let nodes = nodes(&[(Habit::Honest, 5)]);
    let (store, uptime) = store_with(&nodes);
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            for nonce in 0..20 {
                let id = submit(&store, &draft(&nonce.to_string(), &["a", "b", "c"]));
                run(&store, &nodes, &uptime, &id);
            }
        });
        while !working.is_finished() {
            assert_eq!(store.check(|_, _| ()).unwrap().damages, []);
        }
    });
}
