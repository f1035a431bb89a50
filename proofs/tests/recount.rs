//! The votes behind a transition are recounted, and every other thing that records could say is refused.
//!
//! Method: a small ledger runs random transitions and makes honest evidence of them, which must verify. Then
//! it lies: each member of each record is changed, each rule broken by name, always under trees and a log
//! that are hashed and signed as if it were true.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod ledger_builder;
mod signers;

use std::collections::BTreeSet;

use anwansi_proofs::{
    DRAWN_SUM_MAX, Digest, Disagreement, Evidence, Fold, Json, Level, Misfold, Next, NodeKey,
    Pledge, Refused, Spot, TaskPolicy, Version, Vote,
    record::{Outcome, Status, TaskRecord, TransitionRecord, closing_key, task_key},
    registry::node_key,
};
use ed25519_dalek::{Signature, SigningKey, Verifier as _, VerifyingKey};
use fastrand::Rng;
use ledger_builder::{Contents, Ledger, Plan, check, ledger, plan, policy};

fn disagreement(ledger: &Ledger) -> (Spot, Disagreement) {
    match check(&ledger.evidence(), &policy()) {
        Err(Refused::Agreement { at, fault }) => (at, fault),
        other => panic!("{other:?}"),
    }
}

/// A ledger of `plan` whose first task took more than one round.
fn of_many_rounds(plan: &Plan) -> Ledger {
    let plan = Plan { failing: 30, nodes: 14, apart: 100, ..plan.clone() };
    let mut ledgers = (0..).map(|seed| Ledger::new(&plan, &mut Rng::with_seed(seed)));
    ledgers.find(|ledger| ledger.task(0).closed.len() > 1 && !ledger.votes[&0].is_empty()).unwrap()
}

#[test]
fn honest_evidence_of_any_transition_reaches_its_levels() {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let rng = &mut Rng::with_seed(seed);
        let plan = Plan::any(rng);
        let mut ledger = Ledger::new(&plan, rng);
        let evidence = ledger.evidence();
        let again = Evidence::parse(evidence.to_json().as_bytes()).unwrap();
        assert_eq!(again, evidence);
        let trusted = policy();
        let checked = evidence.check(&trusted).unwrap_or_else(|error| panic!("{seed}: {error}"));

        let agreed = checked.agreed().unwrap();
        let record = ledger.record();
        assert_eq!((&agreed.spec, &agreed.record), (&ledger.spec, &record));
        assert_eq!(agreed.registered, plan.nodes);
        for (index, task) in (0..).zip(&agreed.tasks) {
            let record = ledger.task(index);
            assert_eq!(
                (task.status, task.digest, task.agree),
                (record.status, record.digest, record.agree)
            );
            assert_eq!((&task.dissent, task.drawn), (&record.dissent, record.drawn));
            assert_eq!((task.missed, task.rounds as usize), (record.missed, record.closed.len()));
            assert_eq!(u64::from(task.faults), task.claimed.sum());
            let votes = record.votes() as u32;
            assert_eq!(task.drawn, votes + task.missed + task.faults, "{seed}");
            seen.insert(format!("{:?} {:?}", task.status, agreed.record.outcome));
        }
        let known = plan.fold.parse::<Fold>().is_ok();
        let folded = known && record.outcome == Outcome::Applied;
        assert_eq!(checked.value().is_some(), folded, "{seed}");
        assert_eq!(
            checked.value().map(|value| Digest::of(&value.to_bytes())),
            record.value.filter(|_| known)
        );
        seen.insert(format!("{} {:?} {}", plan.fold, plan.apply, plan.spread && folded));

        ledger.outputs = None;
        assert_eq!(check(&ledger.evidence(), &trusted), Ok([true, false]));
        let (main, earlier) = ledger.parts();
        assert_eq!(check(&Evidence::new(main).with_earlier(earlier), &trusted), Ok([false, false]));
    }
    for together in [
        "Final Applied",
        "Final Failed",
        "NoAgreement Failed",
        "Expired Failed",
        "Cancelled Cancelled",
        "sum Add false",
        "sum_by_key Add true",
        "sum_by_key Replace true",
        "merge Add true",
        "list Replace false",
        "median Replace false",
    ] {
        assert!(seen.contains(together), "never {together}: {seen:?}");
    }
}

/// Everything else that may stand in the place of a record's member.
fn others(name: &str, value: &Json) -> Vec<Json> {
    let another = Json::from(Digest::of(b"another").to_string());
    let words = match name {
        "status" => vec!["final", "no_agreement", "expired", "cancelled"],
        "outcome" => vec!["applied", "failed", "cancelled", "open"],
        _ => vec![],
    };
    let mut others = words.into_iter().map(Json::from).collect::<Vec<_>>();
    others.extend([Json::Null, Json::Bool(true), another.clone(), Json::from("other")]);
    match value {
        Json::Integer(integer) => {
            others.extend([-1, 1].map(|more| Json::Integer(integer + more)));
        }
        Json::Array(values) => {
            let one_more = values.first().cloned().unwrap_or(Json::from(3_u32));
            others.push(values.iter().cloned().chain([one_more]).collect());
            others.push(values.iter().rev().cloned().collect());
            for at in 0..values.len() {
                let mut fewer = values.clone();
                fewer.remove(at);
                others.push(fewer.into());
                for other in self::others("", &values[at]) {
                    let mut changed = values.clone();
                    changed[at] = other;
                    others.push(changed.into());
                }
            }
        }
        _ => {}
    }
    others.retain(|other| other != value);
    others
}

#[test]
fn records_that_say_anything_else_are_refused() {
    for seed in 0..60 {
        let rng = &mut Rng::with_seed(seed);
        let plan = Plan { tasks: rng.u32(1..=2), ..Plan::any(rng) };
        let ledger = Ledger::new(&plan, rng);
        let trusted = policy();
        let known = plan.fold.parse::<Fold>().is_ok();
        let applied = ledger.record().outcome == Outcome::Applied;
        for version in ledger.opening + 1..ledger.versions.len() {
            for (key, bytes) in &ledger.versions[version].tasks {
                let Ok(Json::Object(members)) = Json::parse(bytes) else { continue };
                for (name, value) in &members {
                    for other in others(name, value) {
                        let is_digest = other.as_str().is_some_and(|text| text.len() == 64);
                        let mut members = members.clone();
                        members.insert(name.clone(), other);
                        let lied = Json::Object(members).to_bytes();
                        let said = String::from_utf8_lossy(&lied).into_owned();
                        let mut lie = ledger.clone();
                        lie.versions[version].tasks.insert(key.clone(), lied);
                        let refused = check(&lie.evidence(), &trusted);
                        if name == "value" && is_digest && applied {
                            // Nobody else knows what a fold of somebody's own comes to.
                            let other_value = matches!(
                                refused,
                                Err(Refused::Aggregate(Misfold::OtherValue { .. }))
                            );
                            assert!(other_value || !known, "{seed} {said}");
                        } else {
                            let level = refused.map_err(|refused| refused.level());
                            assert_eq!(level, Err(Level::Agreement), "{seed} {said}");
                        }
                    }
                }
            }
        }
    }
}

/// A lie about what came after the opening, all roots made anew.
fn lie(plan: &Plan, change: impl FnOnce(&mut Ledger)) -> Ledger {
    let mut ledger = ledger(plan);
    change(&mut ledger);
    ledger
}

/// The same with the root over the votes of the first task as they then are.
fn vote_lie(change: impl FnOnce(&mut Vec<Vote>)) -> (Spot, Disagreement) {
    disagreement(&lie(&plan(), |ledger| {
        change(ledger.votes.get_mut(&0).unwrap());
        ledger.root_votes(0);
    }))
}

/// The same with the closing of the first task's first round as its pledges then are.
fn pledge_lie(change: impl FnOnce(&Ledger, &mut Vec<Pledge>)) -> (Spot, Disagreement) {
    disagreement(&lie(&plan(), |ledger| {
        let mut pledges = ledger.pledges[&(0, 0)].clone();
        change(ledger, &mut pledges);
        ledger.pledges.insert((0, 0), pledges);
        ledger.close(0, 0);
    }))
}

const FIRST: Spot = Spot::Round { task: 0, round: 0 };

fn first(node: NodeKey) -> Spot {
    Spot::Node { task: 0, round: 0, node }
}

#[test]
fn votes_that_are_not_of_closed_pledges_or_do_not_open_them_are_refused() {
    let ledger = ledger(&plan());
    let node = ledger.votes[&0][0].pledge.node;
    let votes = Disagreement::Order { member: "votes" };
    assert_eq!(vote_lie(|votes| votes.push(votes[2])), (FIRST, votes));
    assert_eq!(vote_lie(|votes| votes.swap(0, 1)), (FIRST, votes));
    assert_eq!(vote_lie(|votes| votes[2].round = 1), (Spot::Task(0), votes));
    assert_eq!(vote_lie(|votes| votes[0].round = 1), (Spot::Task(0), votes));
    let not_opened = (first(node), Disagreement::NotOpened);
    assert_eq!(vote_lie(|votes| votes[0].digest = Digest::of(b"other")), not_opened);
    assert_eq!(vote_lie(|votes| votes[0].salt[0] ^= 1), not_opened);
    let not_pledged = (first(node), Disagreement::NotPledged);
    assert_eq!(vote_lie(|votes| votes[0].pledge.signature[0] ^= 1), not_pledged);
    assert_eq!(vote_lie(|votes| votes[0].pledge.pledge = Digest::ZERO), not_pledged);
    let other = ledger.votes[&1][0];
    let refused = vote_lie(|votes| votes[0] = other);
    assert!(matches!(refused, (Spot::Node { .. }, Disagreement::NotPledged)), "{refused:?}");
    // Counted as it then is: whom the ledger does not count, it says, had a fault; but it stops too early.
    let censored = lie(&plan(), |ledger| {
        ledger.votes.get_mut(&0).unwrap().pop();
        ledger.root_votes(0);
        let record = ledger.task(0);
        ledger.put_task(0, &TaskRecord { agree: 2, no_reveal: 1, ..record });
    });
    let fault = Disagreement::Status { status: Status::Final, rule: Next::Draw(1) };
    assert_eq!(disagreement(&censored), (Spot::Task(0), fault));
}

#[test]
fn pledges_that_are_not_signed_by_drawn_nodes_in_their_order_are_refused() {
    let ledger = ledger(&plan());
    let drawn = &ledger.pledges[&(0, 0)];
    let node = drawn[0].node;
    let pledges = (FIRST, Disagreement::Order { member: "pledges" });
    assert_eq!(pledge_lie(|_, pledges| pledges.swap(0, 1)), pledges);
    assert_eq!(pledge_lie(|_, pledges| pledges.push(pledges[2])), pledges);
    assert_eq!(pledge_lie(|_, pledges| pledges.insert(0, pledges[0])), pledges);
    let not_signed = (first(node), Disagreement::NotSigned);
    assert_eq!(pledge_lie(|_, pledges| pledges[0].signature[0] ^= 1), not_signed);
    assert_eq!(pledge_lie(|_, pledges| pledges[0].pledge = Digest::ZERO), not_signed);
    let elsewhere = [ledger.place(1, 0), ledger.place(0, 1)];
    for place in elsewhere {
        let other = ledger.vote(&place, &node, Digest::ZERO, [0; 32]).pledge;
        assert_eq!(pledge_lie(|_, pledges| pledges[0] = other), not_signed);
    }
    let mut others = ledger.secrets.keys().filter(|node| drawn.iter().all(|it| it.node != **node));
    let other = *others.next().unwrap();
    let not_drawn = pledge_lie(|ledger, pledges| {
        pledges.push(ledger.vote(&ledger.place(0, 0), &other, Digest::ZERO, [0; 32]).pledge);
        pledges.sort_by_key(|pledge| pledge.node);
    });
    assert_eq!(not_drawn, (first(other), Disagreement::NotDrawn));
    // Who had pledged cannot be made to have missed: the vote is there.
    let hidden = pledge_lie(|_, pledges| {
        pledges.remove(0);
    });
    assert_eq!(hidden, (first(node), Disagreement::NotPledged));
}

/// The point 1 + p, which is the neutral one: its secret key is zero, as it were, and everyone has it.
const NOT_REDUCED: [u8; 32] = {
    let mut key = [0xff; 32];
    key[0] = 0xee;
    key[31] = 0x7f;
    key
};

#[test]
fn a_node_whose_key_is_not_canonical_signs_nothing() {
    let everyone = Plan {
        nodes: 5,
        policy: TaskPolicy::with_lead(6),
        opening: |contents| {
            contents.state.insert(node_key(&NodeKey(NOT_REDUCED)), Vec::new());
        },
        ..plan()
    };
    let mut lie = ledger(&everyone);
    let fault = (first(NodeKey(NOT_REDUCED)), Disagreement::NotSigned);
    assert_eq!(disagreement(&lie), fault);

    // A signature that the plain equation S B = R + k A accepts.
    let scalar = SigningKey::from_bytes(&[7; 32]);
    let forged = [scalar.verifying_key().to_bytes(), scalar.to_scalar().to_bytes()].concat();
    let forged: [u8; 64] = forged.try_into().unwrap();
    let place = lie.place(0, 0);
    let mut pledges = lie.pledges[&(0, 0)].clone();
    for pledge in pledges.iter_mut().filter(|pledge| pledge.node.0 == NOT_REDUCED) {
        pledge.signature = forged;
        let key = VerifyingKey::from_bytes(&NOT_REDUCED).unwrap();
        let signature = Signature::from_bytes(&forged);
        assert!(key.verify(&place.signed(&pledge.pledge), &signature).is_ok());
    }
    for vote in lie.votes.get_mut(&0).unwrap() {
        vote.pledge = *pledges.iter().find(|pledge| pledge.node == vote.pledge.node).unwrap();
    }
    lie.pledges.insert((0, 0), pledges);
    lie.close(0, 0);
    lie.root_votes(0);
    assert_eq!(disagreement(&lie), fault);
}

#[test]
fn what_the_opening_version_says_must_fit() {
    let record =
        |change: fn(&mut Contents)| disagreement(&ledger(&Plan { opening: change, ..plan() })).1;
    let open = Disagreement::Record { record: "of the opening" };
    for change in [
        |contents: &mut Contents| replace(contents, "\"tasks\":2", "\"tasks\":3"),
        |contents: &mut Contents| replace(contents, "\"open\"", "\"closed\""),
        |contents: &mut Contents| replace(contents, "\"id\":\"", "\"id\":\"0"),
        |contents: &mut Contents| replace(contents, "\"tasks\":2", "\"tasks\":2,\"x\":0"),
        |contents: &mut Contents| contents.tasks.clear(),
    ] {
        assert_eq!(record(change), open);
    }
    for (bytes, change) in [
        (0, (|contents| with_node(contents, 0)) as fn(&mut Contents)),
        (31, |contents| with_node(contents, 31)),
        (33, |contents| with_node(contents, 33)),
    ] {
        assert_eq!(record(change), Disagreement::Registry { bytes });
    }
}

/// Changes the open record.
fn replace(contents: &mut Contents, from: &str, to: &str) {
    let record = contents.tasks.iter_mut().find(|(key, _)| key.len() == 32);
    let (_, record) = record.unwrap();
    let text = String::from_utf8(record.clone()).unwrap();
    assert!(text.contains(from), "{text}");
    *record = text.replacen(from, to, 1).into();
}

/// Registers a node whose key has so many bytes.
fn with_node(contents: &mut Contents, bytes: usize) {
    let mut key = node_key(&NodeKey([0xab; 32]));
    key.resize(key.len() - 32 + bytes, 0xab);
    contents.state.insert(key, Vec::new());
}

#[test]
fn rounds_are_closed_one_after_the_other_and_above_the_opening() {
    let mut lie = of_many_rounds(&plan());
    let mut record = lie.task(0);
    let [earlier, later] = [record.closed[0], record.closed[1]];
    let refused = |lie: &Ledger| disagreement(lie).1;
    record.closed[1] = earlier;
    lie.closings.insert((0, 1), earlier.0 as usize);
    lie.close(0, 1);
    lie.put_task(0, &record);
    let fault = Disagreement::ClosedTooEarly { closed: earlier, after: earlier };
    assert_eq!(refused(&lie), fault, "both in one version");
    record.closed[0] = later;
    lie.closings.insert((0, 0), later.0 as usize);
    lie.close(0, 0);
    lie.put_task(0, &record);
    let fault = Disagreement::ClosedTooEarly { closed: earlier, after: later };
    assert_eq!(refused(&lie), fault, "the second first");
    let opening = Version(lie.opening as u64);
    record.closed[0] = opening;
    lie.put_task(0, &record);
    let fault = Disagreement::ClosedTooEarly { closed: opening, after: opening };
    assert_eq!(refused(&lie), fault, "as it was opened");
    record.closed[0] = Version(lie.versions.len() as u64 - 1);
    lie.put_task(0, &record);
    let fault = Disagreement::NoPart { version: record.closed[0] };
    assert_eq!(refused(&lie), fault, "as it was decided");
}

#[test]
fn statuses_and_outcomes_stand_together_as_the_rule_has_it() {
    let many = Plan { policy: TaskPolicy { nodes_max: 3, ..TaskPolicy::with_lead(3) }, ..plan() };
    let failed = (0..)
        .map(|seed| Ledger::new(&Plan { failing: 20, ..many.clone() }, &mut Rng::with_seed(seed)));
    let statuses = |ledger: &Ledger| [0, 1].map(|task| ledger.task(task).status);
    let with = |first, second| {
        let found = failed.clone().find(|ledger| statuses(ledger) == [first, second]);
        found.unwrap()
    };
    let outcome = |mut ledger: Ledger, outcome| {
        let value = (outcome == Outcome::Applied).then(|| Digest::of(b"1"));
        let record = TransitionRecord { outcome, value, ..ledger.record() };
        ledger.put_record(&record);
        ledger.outputs = None;
        match check(&ledger.evidence(), &policy()) {
            Ok(_) => true,
            Err(Refused::Agreement { fault: Disagreement::Outcome { outcome: said }, .. }) => {
                assert_eq!(said, outcome);
                false
            }
            other => panic!("{other:?}"),
        }
    };
    let cancelled = Ledger::new(&Plan { cancelled: true, ..many.clone() }, &mut Rng::with_seed(1));
    let mut half_cancelled = with(Status::NoAgreement, Status::Expired);
    let record = half_cancelled.task(1);
    half_cancelled.put_task(1, &TaskRecord { status: Status::Cancelled, ..record });
    let mut expired = cancelled.clone();
    for task in 0..2 {
        let record = expired.task(task);
        expired.put_task(task, &TaskRecord { status: Status::Expired, ..record });
    }
    for (ledger, [applied, failed, cancelled]) in [
        (with(Status::Final, Status::Final), [true, true, false]),
        (with(Status::Final, Status::NoAgreement), [false, true, false]),
        (with(Status::NoAgreement, Status::Expired), [false, true, false]),
        (half_cancelled, [false, false, false]),
        (expired, [false, false, false]),
        (cancelled, [false, false, true]),
    ] {
        let statuses = statuses(&ledger);
        assert_eq!(outcome(ledger.clone(), Outcome::Applied), applied, "{statuses:?}");
        assert_eq!(outcome(ledger.clone(), Outcome::Failed), failed, "{statuses:?}");
        assert_eq!(outcome(ledger, Outcome::Cancelled), cancelled, "{statuses:?}");
    }
}

#[test]
fn nothing_with_a_round_was_cancelled() {
    let mut lie = ledger(&plan());
    for task in 0..2 {
        lie.put_task(task, &TaskRecord { status: Status::Cancelled, ..lie.task(task) });
    }
    let record = TransitionRecord { outcome: Outcome::Cancelled, value: None, ..lie.record() };
    lie.put_record(&record);
    let fault = Disagreement::Status { status: Status::Cancelled, rule: Next::Final };
    assert_eq!(disagreement(&lie), (Spot::Task(0), fault));
}

#[test]
fn every_record_stands_under_its_own_key() {
    let id = ledger(&plan()).spec.id();
    let first = task_key(&id, 0).to_vec();
    for key in
        [task_key(&id, 2).to_vec(), closing_key(&id, 0, 0).to_vec(), [&first[..], b"\0"].concat()]
    {
        // One too many, and then the right number.
        let mut lie = ledger(&plan());
        let second = lie.newest().tasks[&task_key(&id, 1)[..]].clone();
        lie.newest().tasks.insert(key, second);
        assert_eq!(disagreement(&lie), (Spot::Transition, Disagreement::OtherRecords));
        lie.newest().tasks.remove(&task_key(&id, 1)[..]);
        assert_eq!(disagreement(&lie), (Spot::Transition, Disagreement::OtherRecords));
    }
}

/// A ledger in which nobody who was drawn ever pledged.
fn all_missed(nodes: u32, tasks: u32, lead: u32, rounds: u32) -> Ledger {
    let policy =
        TaskPolicy { nodes_max: u32::MAX, missed_max: u32::MAX, ..TaskPolicy::with_lead(lead) };
    let plan = Plan { cancelled: true, nodes: nodes as usize, tasks, policy, ..plan() };
    let mut ledger = ledger(&plan);
    let decision = ledger.versions.pop().unwrap();
    let first = ledger.versions.len() as u64;
    for round in 0..rounds {
        ledger.step();
        for task in 0..tasks {
            ledger.pledges.insert((task, round), Vec::new());
            ledger.closings.insert((task, round), ledger.versions.len() - 1);
            ledger.close(task, round);
        }
    }
    ledger.versions.push(decision);
    let closed = (first..).take(rounds as usize).map(Version).collect::<Vec<_>>();
    let status = Status::NoAgreement;
    for task in 0..tasks {
        let (drawn, closed) = (lead * rounds, closed.clone());
        let record = TaskRecord { status, drawn, missed: drawn, closed, ..ledger.task(task) };
        ledger.put_task(task, &record);
    }
    ledger.put_record(&TransitionRecord { outcome: Outcome::Failed, ..ledger.record() });
    ledger
}

#[test]
fn more_than_are_registered_or_than_a_verifier_draws_are_not_drawn() {
    assert_eq!(check(&all_missed(7, 2, 7, 1).evidence(), &policy()), Ok([true, false]));
    let round = |nodes, lead| disagreement(&all_missed(nodes, 2, lead, 1));
    assert_eq!(round(7, 8), (FIRST, Disagreement::TooFewNodes { count: 8 }));
    let most = u32::try_from(DRAWN_SUM_MAX).unwrap();
    assert_eq!(round(7, most), (FIRST, Disagreement::TooFewNodes { count: most }));
    assert_eq!(round(7, most + 1), (FIRST, Disagreement::TooManyDrawn));
    // Each of 64 rounds adds 32 to what is drawn again: 252 tasks come to just less than the most.
    let task = (1..=64).map(|rounds| 32 * rounds).sum::<u64>();
    assert!(252 * task <= DRAWN_SUM_MAX && DRAWN_SUM_MAX < 253 * task);
    let evidence = all_missed(2048, 252, 32, 64).evidence();
    assert_eq!(check(&evidence, &policy()), Ok([true, false]));
    let (at, fault) = disagreement(&all_missed(2048, 253, 32, 64));
    assert!(matches!(at, Spot::Round { task: 252, .. }), "{at:?}");
    assert_eq!(fault, Disagreement::TooManyDrawn);
}

#[test]
fn ten_thousand_tasks_are_recounted() {
    let patient = TaskPolicy { nodes_max: 40, missed_max: 40, ..TaskPolicy::with_lead(2) };
    let many = Plan { tasks: 10_000, nodes: 200, policy: patient, failing: 5, ..plan() };
    let ledger = ledger(&many);
    let evidence = ledger.evidence();
    let start = std::time::Instant::now();
    let trusted = policy();
    let checked = evidence.check(&trusted).unwrap();
    let agreed = checked.agreed().unwrap();
    assert_eq!((agreed.tasks.len(), agreed.record.outcome), (10_000, Outcome::Applied));
    assert!(checked.value().is_some());
    let pledges = ledger.pledges.values().map(Vec::len).sum::<usize>();
    println!("{pledges} pledges of 10,000 tasks in {:?}", start.elapsed());
}
