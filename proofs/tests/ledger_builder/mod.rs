//! A small ledger that makes its own evidence: honest as it is made, and whatever a test makes of it.
//!
//! Nodes answer, err, miss and fail at random; who is drawn and what is decided follows the rule in its own
//! words. What comes of it is short data (states, tasks trees, pledges, votes, outputs) that a test may
//! change at will: [`Ledger::evidence`] then hashes, signs and proves what is there, so that a lie is as well
//! founded as the truth.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet};

use anwansi_proofs::{
    Apply, Digest, Draft, Drawn, Evidence, Finding, Fold, Header, Input, Json, Level, LogHash,
    LogProof, NodeKey, Note, Part, Place, Pledge, Policy, Question, Refused, Spec, TaskPolicy,
    Version, Vote, checkpoint_body,
    path::KEY_BYTES_MAX,
    pledges_root, prove,
    record::{
        ClosingRecord, OpenRecord, Outcome, Status, TaskRecord, TransitionRecord, closing_key,
        task_key,
    },
    registry::{NODE_PREFIX, NodeRecord, node_key},
    tree::Sorted,
    votes_root,
};
use ed25519_dalek::{Signer as _, SigningKey};
use fastrand::Rng;

use crate::signers;

pub type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a version holds.
#[derive(Clone, Default)]
pub struct Contents {
    pub state: Entries,
    pub tasks: Entries,
}

/// How a ledger comes about.
#[derive(Clone)]
pub struct Plan {
    pub nodes: usize,
    pub tasks: u32,
    pub policy: TaskPolicy,
    /// How often a node does not do what it should, in hundredths.
    pub failing: u32,
    /// How often a ledger of all final tasks has outputs that cannot be folded, in hundredths.
    pub unfoldable: u32,
    /// How often a round is closed in a version of its own, in hundredths.
    pub apart: u32,
    pub cancelled: bool,
    pub fold: &'static str,
    pub into: String,
    /// The least length of an output of `union`.
    pub output_bytes: usize,
    pub apply: Apply,
    pub spread: bool,
    /// Changes the opening version before anyone sees its header.
    pub opening: fn(&mut Contents),
}

#[derive(Clone)]
pub struct Ledger {
    pub spec: Spec,
    /// By number; the first is empty, the last decides.
    pub versions: Vec<Contents>,
    pub opening: usize,
    /// The digest of the opening version's header.
    pub opened: Digest,
    /// The version of the closing of each round.
    pub closings: BTreeMap<(u32, u32), usize>,
    pub pledges: BTreeMap<(u32, u32), Vec<Pledge>>,
    pub votes: BTreeMap<u32, Vec<Vote>>,
    pub outputs: Option<Vec<Vec<u8>>>,
    pub secrets: BTreeMap<NodeKey, SigningKey>,
    /// The keys that were written when it was applied.
    pub written: Vec<Vec<u8>>,
}

/// What a drawn node does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Agree,
    Dissent,
    Miss,
    NoReveal,
    BadReveal,
    Equivocate,
}

/// What the rule says at the end of a round, in its own words.
enum Rule {
    Final,
    NoAgreement,
    Draw(u32),
}

/// A task while it runs.
struct Task {
    status: Option<Status>,
    drawn: Drawn,
    count: u32,
    rounds: Vec<Version>,
    missed: u32,
    faults: [u32; 3],
}

impl Plan {
    /// A small transition, as any may be.
    pub fn any(rng: &mut Rng) -> Self {
        let lead = rng.u32(1..=3);
        let policy = TaskPolicy {
            nodes_max: rng.u32(lead..=4 * lead),
            missed_max: rng.u32(0..=2 * lead),
            ..TaskPolicy::with_lead(lead)
        };
        let fold = rng.choice(["sum", "sum_by_key", "union", "merge", "list", "median"]).unwrap();
        let known = fold.parse::<Fold>();
        let apply =
            if known.is_ok_and(Fold::adds) && rng.bool() { Apply::Add } else { Apply::Replace };
        Plan {
            nodes: rng.usize(lead as usize..=14),
            tasks: rng.u32(1..=4),
            policy,
            failing: *rng.choice([0, 10, 30, 60].iter()).unwrap(),
            unfoldable: 10,
            apart: 50,
            cancelled: rng.u32(..10) == 0,
            fold,
            into: "total".into(),
            output_bytes: 0,
            apply,
            spread: known.is_ok_and(Fold::spreads) && rng.bool(),
            opening: |_| (),
        }
    }
}

impl Ledger {
    pub fn new(plan: &Plan, rng: &mut Rng) -> Self {
        let unfoldable = rng.u32(..100) < plan.unfoldable;
        let (answers, wrong) = answers(plan, unfoldable, rng);
        let spec = Spec::new(&Draft {
            program: "test/1".into(),
            code: None,
            nonce: rng.u64(..).to_string(),
            inputs: (0..plan.tasks).map(|task| Input::Data(task.to_be_bytes().into())).collect(),
            fold: plan.fold.into(),
            into: plan.into.clone(),
            apply: plan.apply,
            spread: plan.spread,
            policy: plan.policy,
        });
        let secrets = (0..plan.nodes).map(|_| {
            SigningKey::from_bytes(&rng.u128(..).to_le_bytes().repeat(2).try_into().unwrap())
        });
        let secrets = secrets.map(|key| (NodeKey(key.verifying_key().to_bytes()), key)).collect();
        let mut ledger = Ledger {
            spec: spec.unwrap(),
            versions: vec![Contents::default()],
            opening: 0,
            opened: Digest::ZERO,
            closings: BTreeMap::new(),
            pledges: BTreeMap::new(),
            votes: (0..plan.tasks).map(|task| (task, Vec::new())).collect(),
            outputs: None,
            secrets,
            written: Vec::new(),
        };
        ledger.open(plan, rng);
        let mut tasks = (0..plan.tasks).map(|_| Task::new(&plan.policy)).collect::<Vec<_>>();
        if !plan.cancelled {
            ledger.run(&mut tasks, &answers, &wrong, plan, rng);
        }
        ledger.decide(&tasks, &[&answers[..], &wrong].concat(), plan);
        let all = answers.iter().chain(&wrong);
        let voted =
            ledger.votes.values().flatten().map(|vote| vote.digest).collect::<BTreeSet<_>>();
        let voted = all.filter(|output| voted.contains(&Digest::of(output)));
        ledger.outputs = Some(voted.cloned().collect::<BTreeSet<_>>().into_iter().collect());
        ledger
    }

    /// A version after the newest, with its state and nothing that happened.
    pub fn step(&mut self) -> &mut Contents {
        let state = self.versions.last().unwrap().state.clone();
        self.versions.push(Contents { state, tasks: Entries::new() });
        self.versions.last_mut().unwrap()
    }

    fn open(&mut self, plan: &Plan, rng: &mut Rng) {
        let nodes = self.secrets.keys().map(node_key).collect::<Vec<_>>();
        let since = NodeRecord { since: Version(1) }.to_bytes();
        let state = &mut self.step().state;
        state.extend(nodes.into_iter().map(|node| (node, since.clone())));
        state.insert(b"\0task/".to_vec(), Vec::new());
        state.insert(b"other".to_vec(), b"1".to_vec());
        if rng.bool() {
            for (key, old) in old_values(plan) {
                state.insert(key.into(), old.into());
            }
        }
        let (id, tasks) = (self.spec.id(), self.spec.tasks());
        self.opening = self.versions.len();
        let contents = self.step();
        contents.tasks.insert(id.0.0.to_vec(), OpenRecord { id, tasks }.to_bytes());
        contents.tasks.insert(b"another transition".to_vec(), Vec::new());
        (plan.opening)(contents);
        self.opened = self.headers()[self.opening].digest();
    }

    fn run(
        &mut self,
        tasks: &mut [Task],
        answers: &[Vec<u8>],
        wrong: &[Vec<u8>],
        plan: &Plan,
        rng: &mut Rng,
    ) {
        while tasks.iter().any(|task| task.status.is_none()) {
            for index in 0..plan.tasks {
                let at = index as usize;
                if tasks[at].status.is_some() {
                    continue;
                }
                // Rounds of several tasks are closed in one version, or each in its own.
                let newest =
                    tasks[at].rounds.last().map_or(self.opening, |version| version.0 as usize);
                if self.versions.len() - 1 == newest || rng.u32(..100) < plan.apart {
                    self.step().state.insert(b"other".to_vec(), rng.u64(..).to_string().into());
                }
                self.round(index, &mut tasks[at], [&answers[at], &wrong[at]], plan, rng);
                if tasks[at].status == Some(Status::NoAgreement) {
                    for task in tasks {
                        task.status.get_or_insert(Status::Expired);
                    }
                    return;
                }
            }
        }
    }

    fn round(
        &mut self,
        index: u32,
        task: &mut Task,
        outputs: [&Vec<u8>; 2],
        plan: &Plan,
        rng: &mut Rng,
    ) {
        let registry = self.registry();
        let round = task.rounds.len() as u32;
        let place = self.place(index, round);
        let mut nodes = task.drawn.draw(&place, &registry, task.count as usize).unwrap();
        nodes.sort_unstable();
        let mut pledges = Vec::new();
        for node in nodes {
            let failing = [Act::Dissent, Act::Miss, Act::NoReveal, Act::BadReveal, Act::Equivocate];
            let fails = rng.u32(..100) < plan.failing;
            let act = if fails { *rng.choice(&failing).unwrap() } else { Act::Agree };
            let digest = Digest::of(outputs[usize::from(act == Act::Dissent)]);
            let vote = self.vote(&place, &node, digest, [rng.u8(..); 32]);
            match act {
                Act::Agree | Act::Dissent => self.votes.get_mut(&index).unwrap().push(vote),
                Act::Miss => task.missed += 1,
                Act::NoReveal => task.faults[0] += 1,
                Act::BadReveal => task.faults[1] += 1,
                Act::Equivocate => task.faults[2] += 1,
            }
            if act != Act::Miss {
                pledges.push(vote.pledge);
            }
        }
        self.pledges.insert((index, round), pledges);
        self.closings.insert((index, round), self.versions.len() - 1);
        self.close(index, round);
        task.rounds.push(Version(self.versions.len() as u64 - 1));
        let drawn = task.drawn.count() as u32;
        match rule(&self.votes[&index], drawn, registry.len() as u32 - drawn, &plan.policy) {
            Rule::Final => task.status = Some(Status::Final),
            Rule::NoAgreement => task.status = Some(Status::NoAgreement),
            Rule::Draw(count) => task.count = count,
        }
    }

    fn decide(&mut self, tasks: &[Task], outputs: &[Vec<u8>], plan: &Plan) {
        let before = self.versions.last().unwrap().state.clone();
        self.step();
        let all_final = tasks.iter().all(|task| task.status == Some(Status::Final));
        let answers = (0..plan.tasks).filter_map(|task| {
            let (first, _) = *ranks(&self.votes[&task]).first()?;
            outputs.iter().find(|output| Digest::of(output) == first).cloned()
        });
        let answers = answers.collect::<Vec<_>>();
        let written = all_final.then(|| written(plan, &answers, &before)).flatten();
        let outcome = match &written {
            Some(_) => Outcome::Applied,
            None if plan.cancelled => Outcome::Cancelled,
            None => Outcome::Failed,
        };
        let value = written.map(|(value, writes)| {
            self.written = writes.keys().cloned().collect();
            self.newest().state.extend(writes);
            Digest::of(&value.to_bytes())
        });
        for (index, task) in (0..).zip(tasks) {
            let votes = &self.votes[&index];
            let ranks = ranks(votes);
            let record = TaskRecord {
                index,
                status: task.status.unwrap_or(Status::Cancelled),
                digest: ranks.first().map(|(digest, _)| *digest),
                agree: ranks.first().map_or(0, |(_, votes)| *votes),
                dissent: ranks.into_iter().skip(1).collect(),
                drawn: task.drawn.count() as u32,
                missed: task.missed,
                no_reveal: task.faults[0],
                bad_reveal: task.faults[1],
                equivocated: task.faults[2],
                closed: task.rounds.clone(),
                votes: votes_root(votes),
            };
            let key = task_key(&self.spec.id(), index).to_vec();
            self.newest().tasks.insert(key, record.to_bytes());
        }
        let record = TransitionRecord {
            id: self.spec.id(),
            fold: self.spec.fold.clone(),
            into: self.spec.into.clone(),
            opened: Version(self.opening as u64),
            outcome,
            tasks: self.spec.tasks(),
            value,
        };
        let id = self.spec.id().0.0.to_vec();
        self.newest().tasks.insert(id, record.to_bytes());
        self.newest().tasks.insert(b"another transition".to_vec(), Vec::new());
    }

    pub fn newest(&mut self) -> &mut Contents {
        self.versions.last_mut().unwrap()
    }

    /// The nodes of the opening version.
    pub fn registry(&self) -> Vec<NodeKey> {
        let state = &self.versions[self.opening].state;
        let keys = state.keys().filter_map(|key| key.strip_prefix(NODE_PREFIX));
        keys.filter_map(|key| key.try_into().ok().map(NodeKey)).collect()
    }

    pub fn place(&self, task: u32, round: u32) -> Place {
        Place { opened: self.opened, transition: self.spec.id(), task, round }
    }

    pub fn vote(&self, place: &Place, node: &NodeKey, digest: Digest, salt: [u8; 32]) -> Vote {
        let pledge = place.pledge(node, &digest, &salt);
        // Somebody without a secret here signs nothing that counts.
        let signature = self.secrets.get(node).map(|key| key.sign(&place.signed(&pledge)));
        let signature = signature.map_or([0; 64], |signature| signature.to_bytes());
        let pledge = Pledge { node: *node, pledge, signature };
        Vote { pledge, salt, digest, round: place.round }
    }

    /// Records the closing of a round as its pledges are now.
    pub fn close(&mut self, index: u32, round: u32) {
        let pledges = &self.pledges[&(index, round)];
        let root = pledges_root(pledges);
        let record = ClosingRecord { index, round, pledges: pledges.len() as u32, root };
        let key = closing_key(&self.spec.id(), index, round).to_vec();
        let version = self.closings[&(index, round)];
        self.versions[version].tasks.insert(key, record.to_bytes());
    }

    /// Records the root over a task's votes as they are now.
    pub fn root_votes(&mut self, index: u32) {
        let votes = votes_root(&self.votes[&index]);
        self.put_task(index, &TaskRecord { votes, ..self.task(index) });
    }

    pub fn record(&self) -> TransitionRecord {
        let tasks = &self.versions.last().unwrap().tasks;
        TransitionRecord::parse(&tasks[&self.spec.id().0.0[..]]).unwrap()
    }

    pub fn task(&self, index: u32) -> TaskRecord {
        let tasks = &self.versions.last().unwrap().tasks;
        TaskRecord::parse(&tasks[&task_key(&self.spec.id(), index)[..]]).unwrap()
    }

    pub fn put_record(&mut self, record: &TransitionRecord) {
        let id = self.spec.id().0.0.to_vec();
        self.newest().tasks.insert(id, record.to_bytes());
    }

    pub fn put_task(&mut self, index: u32, record: &TaskRecord) {
        let key = task_key(&self.spec.id(), index).to_vec();
        self.newest().tasks.insert(key, record.to_bytes());
    }

    fn headers(&self) -> Vec<Header> {
        let mut headers = vec![Header::first(signers::ORIGIN.parse().unwrap(), 0)];
        for (time, contents) in (1..).zip(&self.versions[1..]) {
            let [state, tasks] = [&contents.state, &contents.tasks].map(|it| sorted(it).root());
            headers.push(headers.last().unwrap().next(state, tasks, time));
        }
        headers
    }

    /// What a server answers, with nothing that is not needed.
    pub fn evidence(&self) -> Evidence {
        let (main, earlier) = self.parts();
        let pledges = self.pledges.iter().map(|(name, pledges)| (*name, pledges.clone()));
        let votes = self.votes.iter().map(|(task, votes)| (*task, votes.clone()));
        let evidence = Evidence::new(main).with_earlier(earlier);
        let evidence = evidence.with_votes(&self.spec, pledges, votes);
        match &self.outputs {
            Some(outputs) => evidence.with_outputs(outputs.clone()),
            None => evidence,
        }
    }

    /// The parts of the evidence: the main one, and those it rests on.
    pub fn parts(&self) -> (Part, Vec<Part>) {
        let headers = self.headers();
        let log = signers::log();
        let leaves = headers.iter().map(|header| LogHash::leaf(header.to_string().as_bytes()));
        let leaves = leaves.collect::<Vec<_>>();
        let body = checkpoint_body(&log.name, leaves.len() as u64, &log_root(&leaves)).unwrap();
        let note = Note::new(body.clone(), vec![log.sign(&body)]).unwrap();
        let id = self.spec.id();
        let main = self.versions.len() - 1;
        // The questions to the state and to the tasks tree of each version.
        let mut asked = BTreeMap::<usize, [Option<Question>; 2]>::new();
        let mut ask = |version, tree: usize, with: &dyn Fn(Question) -> Question| {
            let question = &mut asked.entry(version).or_default()[tree];
            *question = Some(with(question.take().unwrap_or_default()));
        };
        ask(self.opening, 0, &|it| it.prefix(NODE_PREFIX));
        ask(self.opening, 1, &|it| it.key(&id.0.0));
        for ((task, round), version) in &self.closings {
            ask(*version, 1, &|it| it.key(&closing_key(&id, *task, *round)));
        }
        ask(main, 1, &|it| it.prefix(&id.0.0));
        if self.outputs.is_some() {
            for key in &self.written {
                ask(main, 0, &|it| it.key(key));
                if self.spec.apply == Apply::Add {
                    ask(main - 1, 0, &|it| it.key(key));
                }
            }
        }
        let mut parts = asked.into_iter().map(|(version, asked)| {
            let contents = &self.versions[version];
            let [state, tasks] = asked;
            let show = |entries: &Entries, question: Option<Question>| {
                question.map(|question| prove(&sorted(entries), &question).unwrap())
            };
            let siblings = siblings(version, &leaves);
            let finality = LogProof::new(version as u64, siblings, note.clone()).unwrap();
            Part {
                header: headers[version].to_string(),
                finality: finality.to_string(),
                state: show(&contents.state, state),
                tasks: show(&contents.tasks, tasks),
            }
        });
        let mut parts = parts.by_ref().collect::<Vec<_>>();
        (parts.pop().unwrap(), parts)
    }
}

impl Task {
    fn new(policy: &TaskPolicy) -> Self {
        Task {
            status: None,
            drawn: Drawn::default(),
            count: policy.lead,
            rounds: Vec::new(),
            missed: 0,
            faults: [0; 3],
        }
    }
}

/// What nodes answer, and what those answer that err.
fn answers(plan: &Plan, unfoldable: bool, rng: &mut Rng) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let answer = |task: u32, number: u32| match plan.fold {
        "sum_by_key" => format!(r#"{{"a":{number},"b":-1}}"#),
        "union" => {
            let short = format!(r#"["{number}","x"]"#);
            let long = "y".repeat(plan.output_bytes.saturating_sub(short.len()));
            format!(r#"["{number}{long}","x"]"#)
        }
        "merge" => format!(r#"{{"{task}":{number}}}"#),
        _ => number.to_string(),
    };
    let mut answers = (0..plan.tasks).map(|task| answer(task, rng.u32(..9))).collect::<Vec<_>>();
    if unfoldable {
        answers[0] = "nonsense".into();
    }
    let wrong = (0..plan.tasks).map(|task| answer(task, 9).into_bytes()).collect();
    (answers.into_iter().map(String::into_bytes).collect(), wrong)
}

/// Old values that the folds can be added to.
fn old_values(plan: &Plan) -> Vec<(&'static str, &'static str)> {
    match (plan.fold, plan.spread) {
        ("sum", _) => vec![("total", "-7")],
        ("sum_by_key", true) => vec![("total/a", "100"), ("total/c", "1")],
        ("sum_by_key", false) => vec![("total", r#"{"b":5,"c":1}"#)],
        ("union", _) => vec![("total", r#"["old"]"#)],
        // A name of the first task's: it cannot be added to.
        ("merge", true) => vec![("total/0", "0")],
        ("merge", false) => vec![("total", r#"{"old":0}"#)],
        _ => vec![("total", "anything")],
    }
}

/// The folded value and what is written, unless one of it fails.
fn written(plan: &Plan, answers: &[Vec<u8>], before: &Entries) -> Option<(Json, Entries)> {
    // A fold of somebody's own, whose result is nobody else's business.
    let Ok(fold) = plan.fold.parse::<Fold>() else {
        return Some((Json::Null, Entries::from([(plan.into.clone().into(), b"null".to_vec())])));
    };
    let value = fold.fold(answers.iter().map(Vec::as_slice)).ok()?;
    let old = |key: &str| before.get(key.as_bytes()).map(Vec::as_slice);
    let adds = plan.apply == Apply::Add;
    let mut writes = Entries::new();
    if plan.spread {
        for (name, member) in fold.spread(&value).ok()? {
            let key = format!("{}/{name}", plan.into);
            if key.len() > KEY_BYTES_MAX {
                return None;
            }
            let added = adds.then(|| fold.add_member(old(&key), name, member));
            let new = added.transpose().ok()?.unwrap_or_else(|| member.clone());
            writes.insert(key.into(), new.to_bytes());
        }
    } else {
        let added = adds.then(|| fold.add(old(&plan.into), &value)).transpose().ok()?;
        writes.insert(plan.into.clone().into(), added.unwrap_or_else(|| value.clone()).to_bytes());
    }
    Some((value, writes))
}

fn ranks(votes: &[Vote]) -> Vec<(Digest, u32)> {
    let mut ranks = Vec::<(Digest, u32)>::new();
    for vote in votes {
        match ranks.iter_mut().find(|(digest, _)| *digest == vote.digest) {
            Some((_, votes)) => *votes += 1,
            None => ranks.push((vote.digest, 1)),
        }
    }
    ranks.sort_by(|(a, votes_a), (b, votes_b)| votes_b.cmp(votes_a).then(a.cmp(b)));
    ranks
}

fn rule(votes: &[Vote], drawn: u32, left: u32, policy: &TaskPolicy) -> Rule {
    let ranks = ranks(votes);
    let of = |rank: usize| ranks.get(rank).map_or(0, |(_, votes)| *votes);
    let gap = of(0) - of(1);
    if gap >= policy.lead {
        return Rule::Final;
    }
    let more = policy.lead - gap;
    let missed = drawn - votes.len() as u32;
    if drawn + more > policy.nodes_max || left < more || missed > policy.missed_max {
        Rule::NoAgreement
    } else {
        Rule::Draw(more)
    }
}

fn sorted(entries: &Entries) -> Sorted<&Vec<u8>, &Vec<u8>> {
    Sorted::new(entries.iter().collect())
}

/// A transition of two tasks, in which nodes fail only where a test makes them.
pub fn plan() -> Plan {
    Plan {
        nodes: 7,
        tasks: 2,
        policy: TaskPolicy::with_lead(3),
        failing: 0,
        unfoldable: 0,
        apart: 0,
        cancelled: false,
        fold: "sum",
        into: "total".into(),
        output_bytes: 0,
        apply: Apply::Replace,
        spread: false,
        opening: |_| (),
    }
}

pub fn ledger(plan: &Plan) -> Ledger {
    Ledger::new(plan, &mut Rng::with_seed(1))
}

/// What refuses the evidence, or the levels that it reaches.
pub fn check(evidence: &Evidence, policy: &Policy) -> Result<[bool; 2], Refused> {
    let checked = evidence.check(policy)?;
    let levels = [Level::Agreement, Level::Aggregate];
    Ok(levels.map(|level| checked.finding(level) == Finding::Verified))
}

/// Trusts the log of all ledgers.
pub fn policy() -> Policy {
    Policy::of_log(signers::log().log_key()).unwrap()
}

/// RFC 6962, as it says it.
fn log_root(leaves: &[LogHash]) -> LogHash {
    if let [leaf] = leaves {
        return *leaf;
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    LogHash::node(&log_root(left), &log_root(right))
}

fn siblings(at: usize, leaves: &[LogHash]) -> Vec<LogHash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (at, mine, other) =
        if at < left.len() { (at, left, right) } else { (at - left.len(), right, left) };
    let mut path = siblings(at, mine);
    path.push(log_root(other));
    path
}

/// The largest power of two below a number.
fn split(leaves: usize) -> usize {
    leaves.next_power_of_two() / 2
}
