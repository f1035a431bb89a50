//! The outputs of a transition are folded again, and whatever else the record or the state say is refused.
//!
//! Method: a small ledger applies random transitions; then its outputs, the state that it wrote and the state
//! that it added to are changed, and what cannot be folded or written is called applied, always under trees
//! and a log that are hashed and signed as if it were true.
#![allow(clippy::unwrap_used)]

mod ledger_builder;
mod signers;

use anwansi_proofs::{
    Apply, Digest, FOLDED_BYTES_MAX, Fold, Misfold, Refused, TaskPolicy,
    record::{Outcome, TransitionRecord},
};
use fastrand::Rng;
use ledger_builder::{Ledger, Plan, check, ledger, plan, policy};

fn misfold(ledger: &Ledger) -> Misfold {
    match check(&ledger.evidence(), &policy()) {
        Err(Refused::Aggregate(misfold)) => misfold,
        other => panic!("{other:?}"),
    }
}

#[test]
fn outputs_that_were_not_voted_for_or_folded_or_written_are_refused() {
    let output = |ledger: &Ledger, task: u32| {
        let digest = ledger.task(task).digest.unwrap();
        let outputs = ledger.outputs.as_ref().unwrap();
        outputs.iter().position(|output| Digest::of(output) == digest).unwrap()
    };
    let mut checked = 0;
    for seed in 0..60 {
        let rng = &mut Rng::with_seed(seed);
        let plan =
            Plan { fold: rng.choice(["sum", "sum_by_key", "union"]).unwrap(), ..Plan::any(rng) };
        let spreads = plan.fold == "sum_by_key";
        let plan = Plan {
            cancelled: false,
            unfoldable: 0,
            failing: 10,
            spread: plan.spread && spreads,
            ..plan
        };
        let honest = Ledger::new(&plan, rng);
        if honest.record().outcome != Outcome::Applied {
            continue;
        }
        assert_eq!(check(&honest.evidence(), &policy()), Ok([true, true]));
        let lie = |change: &dyn Fn(&mut Ledger)| {
            let mut lie = honest.clone();
            change(&mut lie);
            misfold(&lie)
        };
        let name = Digest::of(b"nobody's");
        let refused = lie(&|lie| lie.outputs.as_mut().unwrap().push(b"nobody's".to_vec()));
        assert_eq!(refused, Misfold::NotVotedFor { name });
        let refused = lie(&|lie| {
            let at = output(lie, 0);
            lie.outputs.as_mut().unwrap().remove(at);
        });
        assert_eq!(refused, Misfold::Missing { task: 0 });
        for key in &honest.written {
            let not_written = Misfold::NotWritten { key: String::from_utf8(key.clone()).unwrap() };
            let refused = lie(&|lie| drop(lie.newest().state.remove(key)));
            assert_eq!(refused, not_written);
            let refused = lie(&|lie| lie.newest().state.get_mut(key).unwrap().push(b' '));
            assert_eq!(refused, not_written);
            let before = honest.versions.len() - 2;
            let old = match plan.fold {
                "union" => "[\"another\"]",
                "sum_by_key" if !plan.spread => "{\"another\":1}",
                _ => "123",
            };
            for old in [old, "nonsense"] {
                let mut lie = honest.clone();
                lie.versions[before].state.insert(key.clone(), old.into());
                match (plan.apply, check(&lie.evidence(), &policy())) {
                    (Apply::Replace, found) => assert_eq!(found, Ok([true, true])),
                    (Apply::Add, Err(Refused::Aggregate(Misfold::Fold(_)))) => {
                        assert_eq!(old, "nonsense");
                    }
                    (Apply::Add, found) => assert_eq!(found, Err(not_written.clone().into())),
                }
            }
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked}");
}

#[test]
fn applied_is_refused_of_what_cannot_be_applied() {
    let applied = |plan: &Plan| {
        let mut lie = ledger(plan);
        assert_eq!(lie.record().outcome, Outcome::Failed);
        let outputs = (0..2).map(|task| {
            let digest = lie.task(task).digest.unwrap();
            lie.outputs.as_ref().unwrap().iter().find(|it| Digest::of(it) == digest).unwrap()
        });
        let value = plan.fold.parse::<Fold>().unwrap().fold(outputs.map(Vec::as_slice));
        let value = value.map_or(Digest::ZERO, |value| Digest::of(&value.to_bytes()));
        let record =
            TransitionRecord { outcome: Outcome::Applied, value: Some(value), ..lie.record() };
        lie.put_record(&record);
        lie.written = vec![plan.into.clone().into()];
        misfold(&lie)
    };
    let is_fold = |misfold| matches!(misfold, Misfold::Fold(_));
    assert!(is_fold(applied(&Plan { unfoldable: 100, ..plan() })));
    assert!(is_fold(applied(&Plan { fold: "list", apply: Apply::Add, ..plan() })));
    assert!(is_fold(applied(&Plan { spread: true, ..plan() })));
    let long = Plan { fold: "sum_by_key", spread: true, into: "k".repeat(1023), ..plan() };
    assert_eq!(applied(&long), Misfold::KeyTooLong);
    let longest = ledger(&Plan { into: "k".repeat(1022), ..long });
    assert_eq!(check(&longest.evidence(), &policy()), Ok([true, true]));
}

#[test]
fn outputs_are_folded_up_to_a_limit_though_many_tasks_share_them() {
    let mebibytes = u32::try_from(FOLDED_BYTES_MAX >> 20).unwrap();
    let one = Plan { policy: TaskPolicy::with_lead(1), ..plan() };
    let one = Plan { fold: "union", output_bytes: 1 << 20, ..one };
    let of = |tasks| ledger(&Plan { tasks, ..one.clone() });
    assert_eq!(check(&of(mebibytes).evidence(), &policy()), Ok([true, true]));
    assert_eq!(misfold(&of(mebibytes + 1)), Misfold::TooLong);
}
