//! Whatever nodes do and whenever the store crashes, the ledger keeps its word.
//!
//! Method: random schedules of submissions, honest and faulty nodes, passing time, crashes that lose any
//! batches that were not synced, and failed writes. Beside the store runs a model that knows only what was
//! acknowledged. After each step: no version holds a part of a transition, what was decided stays as it was,
//! no result is readable before its decision. At the end everything is decided, each decision is recounted
//! from its evidence, and all that was acknowledged is found in it.
#![allow(clippy::unwrap_used)]

mod machine;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anwansi_proofs::{
    Apply, Digest, Finding, Level, NodeKey, Pledge, Policy, TransitionId, Version, Vote,
    record::{Outcome, Status, TaskRecord, TransitionRecord, task_key},
    registry::{TransitionState, transition_key},
};
use anwansi_store::{Error, Refusal, Store, Turn, engine::Memory};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use fastrand::Rng;
use machine::{Habit, Node, PLEDGE_MS, Uptime, draft, place, run, submit, try_open};

/// A round of a task of a transition.
type Round = (TransitionId, u32, u32);

/// Records by their keys.
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the store has acknowledged.
#[derive(Default)]
struct Model {
    submitted: BTreeMap<TransitionId, Apply>,
    pledges: BTreeMap<(Round, NodeKey), Digest>,
    reveals: BTreeSet<(Round, NodeKey, Digest)>,
    /// Nodes that signed two pledges: whether that was acknowledged, or may be kept or lost.
    equivocated: BTreeMap<(Round, NodeKey), bool>,
    /// What was decided, and in which version.
    decided: BTreeMap<TransitionId, (Version, Records)>,
    /// The versions that were looked at.
    seen: u64,
    /// The sum under the key that all transitions write, as of the versions seen.
    total: Option<u64>,
}

impl Model {
    fn equivocated(&mut self, at: (Round, NodeKey), answer: &Result<(), Error>) {
        match answer {
            Ok(()) => panic!("a second pledge was taken as if it were the first"),
            Err(Error::Refused(Refusal::Equivocated)) => drop(self.equivocated.insert(at, true)),
            Err(Error::Refused(_)) => {}
            Err(_) => drop(self.equivocated.entry(at).or_insert(false)),
        }
    }
}

struct World {
    memory: Arc<Memory>,
    store: Store,
    nodes: Vec<Node>,
    uptime: Uptime,
    model: Model,
    random: Rng,
}

/// One node of each fault among this many.
const NODES: u8 = 20;

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let (memory, uptime) = (Arc::new(Memory::new()), Uptime::default());
        let store = try_open(memory.clone(), &uptime).unwrap();
        let mut faulty =
            vec![Habit::Errs, Habit::Silent, Habit::Hides, Habit::Cheats, Habit::Equivocates];
        faulty.truncate(random.usize(..=faulty.len()));
        let habits = faulty.into_iter().chain(std::iter::repeat(Habit::Honest));
        let nodes = (0..NODES).zip(habits).map(|(number, habit)| Node::new(number, habit));
        let nodes = nodes.collect::<Vec<_>>();
        for node in &nodes {
            node.join(&store);
        }
        World { memory, store, nodes, uptime, model: Model::default(), random }
    }

    fn step(&mut self, number: u32) {
        match self.random.u8(..100) {
            0..8 => self.submit(number),
            8..12 => self.uptime.pass(u64::from(PLEDGE_MS)),
            12..20 => self.uptime.pass(u64::from(PLEDGE_MS) / 8),
            20..23 => self.crash(),
            23..25 => self.memory.fail_after(self.random.u64(1..20)),
            25..27 => self.equivocate_late(),
            _ => self.act(),
        }
        if self.store.failure().is_some() {
            self.crash();
        }
        self.look();
    }

    fn submit(&mut self, number: u32) {
        let mut draft = draft(&number.to_string(), &["one", "three", "five5"]);
        draft.inputs.truncate(self.random.usize(1..=3));
        if self.random.bool() {
            draft.apply = Apply::Replace;
        }
        let spec = anwansi_proofs::Spec::new(&draft).unwrap();
        if self.store.ledger().submit(spec.bytes()).is_ok() {
            self.model.submitted.insert(spec.id(), draft.apply);
        }
    }

    /// One node does one thing that it has to, or something wrong.
    fn act(&mut self) {
        self.random.shuffle(&mut self.nodes);
        let todo = self.nodes.iter().find_map(|node| {
            let assignments = self.store.ledger().assignments(&node.key(), &[]);
            Some((node, self.random.choice(assignments)?))
        });
        let Some((node, todo)) = todo else { return };
        let at = (todo.transition, todo.index, todo.round);
        let place = place(&self.store, &todo);
        let anwansi_proofs::Input::Data(input) = &todo.input else { unreachable!() };
        let (result, salt) = (node.result(input), node.salt(&place));
        let answers = node.act(&self.store, &todo);
        let Some(first) = answers.first() else { return };
        match todo.turn {
            Turn::Pledge => {
                if let Some(second) = answers.get(1) {
                    self.model.equivocated((at, node.key()), second);
                }
                if first.is_ok() {
                    let pledge = node.pledge(&place, &result, &salt).pledge;
                    self.model.pledges.insert((at, node.key()), pledge);
                }
            }
            Turn::Reveal { .. } if first.is_ok() => {
                self.model.reveals.insert((at, node.key(), Digest::of(&result)));
            }
            Turn::Reveal { .. } => {}
        }
    }

    /// A node signs a second pledge for a round in which it has pledged already.
    fn equivocate_late(&mut self) {
        let pledged = self.model.pledges.keys().copied().collect::<Vec<_>>();
        let Some((at, key)) = self.random.choice(pledged) else { return };
        let (id, task, round) = at;
        let Ok(progress) = self.store.ledger().progress(&id) else { return };
        let node = self.nodes.iter().find(|node| node.key() == key).unwrap();
        let opened = self.store.finality(progress.opened).unwrap().header.clone();
        let opened = Digest::of(opened.as_bytes());
        let place = anwansi_proofs::Place { opened, transition: id, task, round };
        let second = node.pledge(&place, b"another", &[9; 32]);
        let answer = self.store.ledger().pledge(&id, task, round, &second);
        self.model.equivocated((at, key), &answer);
    }

    /// Power is lost: any of the batches that were not synced may be gone.
    fn crash(&mut self) {
        let kept = self.random.usize(..=self.memory.unsynced());
        let memory = Arc::new(self.memory.crash(kept));
        let store = try_open(memory.clone(), &self.uptime).unwrap();
        drop(std::mem::replace(&mut self.store, store));
        self.memory = memory;
        // The registry was there before all else.
        assert_eq!(
            self.store.ledger().nodes(&NodeKey([0; 32]), 99).unwrap().len(),
            usize::from(NODES)
        );
        for id in self.model.submitted.keys() {
            self.store.ledger().progress(id).unwrap();
        }
    }

    /// Looks at the versions that are new, and at what must not have changed.
    fn look(&mut self) {
        let newest = self.store.latest().version().0;
        assert!(newest >= self.model.seen, "what was shown went back");
        for version in self.model.seen + 1..=newest {
            let snapshot = self.store.at(Version(version)).unwrap();
            let tasks = snapshot.tasks().unwrap();
            for (key, value) in tasks.iter().filter(|(key, _)| key.len() == 32) {
                if let Some(record) = TransitionRecord::parse(value) {
                    self.decided(Version(version), key, &record, &tasks);
                }
            }
            let stored = snapshot.get(b"total").unwrap();
            let stored = stored.map(|it| std::str::from_utf8(&it).unwrap().parse().unwrap());
            assert_eq!(stored, self.model.total, "version {version}");
            let decisions = tasks.iter().filter(|(key, _)| key.len() == 36).count();
            let here = self.model.decided.values().filter(|(at, _)| at.0 == version);
            let whole = here.map(|(_, records)| records.len() - 1).sum::<usize>();
            assert_eq!(decisions, whole, "a task without its transition");
        }
        self.model.seen = newest;
        for id in self.model.submitted.keys() {
            if !self.model.decided.contains_key(id) {
                let progress = self.store.ledger().progress(id).unwrap();
                let undecided = progress.decided.is_none_or(|(version, _)| version.0 > newest);
                assert!(undecided, "decided, and not in its version");
                assert!(undecided || progress.tasks.iter().all(|task| task.record.is_none()));
            }
        }
    }

    fn decided(
        &mut self,
        version: Version,
        key: &[u8],
        record: &TransitionRecord,
        tasks: &[(bytes::Bytes, bytes::Bytes)],
    ) {
        let id = record.id;
        assert_eq!(id.0.0, *key);
        let all = tasks.iter().filter(|(found, _)| found.starts_with(key) && found.len() <= 36);
        let all =
            all.map(|(key, value)| (key.to_vec(), value.to_vec())).collect::<BTreeMap<_, _>>();
        assert_eq!(all.len(), record.tasks as usize + 1, "all tasks with their transition");
        let statuses = (0..record.tasks).map(|index| {
            let task = TaskRecord::parse(&all[&task_key(&id, index)[..]]).unwrap();
            if record.outcome == Outcome::Applied {
                let values = [3, 5, 5].map(|length: u64| length);
                let right = values[index as usize];
                let results = [right, right + 1_000_000];
                let digest = task.digest.unwrap();
                let found =
                    results.into_iter().find(|it| Digest::of(it.to_string().as_bytes()) == digest);
                return (task.status, found.unwrap());
            }
            (task.status, 0)
        });
        let (statuses, values): (Vec<_>, Vec<_>) = statuses.unzip();
        let applied = record.outcome == Outcome::Applied;
        assert_eq!(applied, statuses.iter().all(|status| *status == Status::Final));
        if applied {
            let sum = values.iter().sum::<u64>();
            let adds = self.model.submitted.get(&id).is_none_or(|apply| *apply == Apply::Add);
            // One that was never acknowledged may have been submitted all the same: ask for its spec.
            let spec = self.store.ledger().spec(&id).unwrap();
            let adds =
                adds && anwansi_proofs::Spec::parse(spec.into()).unwrap().apply == Apply::Add;
            self.model.total = Some(sum + if adds { self.model.total.unwrap_or(0) } else { 0 });
        }
        let state = self.store.at(version).unwrap().get(&transition_key(&id)).unwrap().unwrap();
        let state = TransitionState::parse(&state).unwrap();
        assert_eq!(state.decided, Some((version, record.outcome)));
        let before = self.model.decided.insert(id, (version, all));
        assert!(before.is_none(), "decided twice");
        self.model.submitted.entry(id).or_insert(Apply::Add);
    }

    /// Decides all that is open, and recounts everything.
    fn finish(mut self) {
        // The copy has no failure before it.
        self.crash();
        let open = self.model.submitted.keys().copied().collect::<Vec<_>>();
        for id in &open {
            run(&self.store, &self.nodes, &self.uptime, id);
        }
        self.look();
        let policy = Policy::of_log(self.store.vkey().clone()).unwrap();
        for id in &open {
            let evidence = self.store.ledger().evidence(id, true).unwrap();
            let checked = evidence.check(&policy).unwrap();
            assert_eq!(checked.finding(Level::Agreement), Finding::Verified);
            let outcome = checked.agreed().unwrap().record.outcome;
            let aggregate = checked.finding(Level::Aggregate) == Finding::Verified;
            assert_eq!(aggregate, outcome == Outcome::Applied);
            self.all_acknowledged_counts(id, &evidence.to_json());
        }
        assert!(self.store.check(|_, _| ()).unwrap().damages.is_empty());
    }

    /// Every acknowledged pledge is in its closing, every acknowledged reveal among the votes.
    fn all_acknowledged_counts(&self, id: &TransitionId, evidence: &str) {
        let evidence: serde_json::Value = serde_json::from_str(evidence).unwrap();
        let bytes = |member: &str, name: &str| {
            Some(STANDARD.decode(evidence[member].get(name)?.as_str()?).unwrap())
        };
        for (((transition, task, round), node), pledge) in &self.model.pledges {
            // A round whose reveals did not end is not in the evidence.
            if transition == id
                && let Some(leaves) = bytes("pledges", &format!("{task}/{round}"))
            {
                let leaves = Pledge::read_all(&leaves).unwrap();
                let leaf = leaves.iter().find(|leaf| leaf.node == *node);
                assert_eq!(leaf.map(|leaf| leaf.pledge), Some(*pledge), "a pledge was lost");
            }
        }
        for (at @ (transition, task, round), node, digest) in &self.model.reveals {
            if transition == id && bytes("pledges", &format!("{task}/{round}")).is_some() {
                let votes = Vote::read_all(&bytes("votes", &task.to_string()).unwrap()).unwrap();
                let vote = votes.iter().find(|it| it.pledge.node == *node && it.round == *round);
                let found = vote.map(|vote| vote.digest);
                match self.model.equivocated.get(&(*at, *node)) {
                    None => assert_eq!(found, Some(*digest), "a vote was lost"),
                    Some(true) => assert_eq!(found, None, "a vote of an equivocator counts"),
                    Some(false) => assert!(found.is_none_or(|found| found == *digest)),
                }
            }
        }
    }
}

#[test]
fn random_schedules_with_crashes_lose_nothing_and_decide_everything() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(40);
    let (mut decided, mut applied) = (0, 0);
    for seed in 0..seeds {
        println!("seed {seed}");
        let mut world = World::new(seed);
        submit(&world.store, &draft("first", &["one"]));
        for number in 0..200 {
            world.step(number);
        }
        decided += world.model.decided.len();
        applied += u64::from(world.model.total.is_some());
        world.finish();
    }
    assert!(decided as u64 > seeds, "{decided} decided on the way, over {seeds} seeds");
    println!("{decided} decided on the way; applied in {applied} of {seeds} schedules");
    assert!(applied > seeds / 2, "in {applied} of {seeds} schedules something was applied");
}
