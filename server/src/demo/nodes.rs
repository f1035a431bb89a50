//! The nodes of the demo: most of them do their part, a third does not.
//!
//! ```text
//!   honest             a Worker, as `anwansi work` runs it
//!   errs               a Worker whose program is wrong one time in five
//!   silent             registered, and never heard of again
//!   reveals other      built here from the Worker's pieces: the reveal does not open the pledge
//!   signs two          likewise: a second pledge, for another result
//! ```
//!
//! Each has a client of its own with the log's key as its policy, and believes the server as little as the
//! demo does.

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anwansi_client::{
    Assignment, At, Client, Error, InMemory, Phase,
    programs::{Program, ProgramError, WordCount},
    proofs::{BigInt, Digest, Input, Json, NodeKey, Place, Spec, TransitionId, hash::Hasher},
    trust,
    worker::{NodeSecret, Worker},
};
use fastrand::Rng;
use tempfile::TempDir;

use super::{DemoError, Stage};

/// How often a node that errs does so: one time in so many.
const ERRS_ONE_IN: u64 = 5;
/// How long a node that is built here waits for an assignment, and how long until it asks again.
const WAIT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

/// What a node is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Honest,
    Errs,
    Silent,
    RevealsOther,
    SignsTwo,
}

impl Kind {
    pub(super) const ALL: [Kind; 5] =
        [Kind::Honest, Kind::Errs, Kind::Silent, Kind::RevealsOther, Kind::SignsTwo];

    /// How many there are of it.
    pub(super) fn count(self) -> usize {
        match self {
            Kind::Honest => 20,
            Kind::Errs => 5,
            Kind::Silent => 3,
            Kind::RevealsOther | Kind::SignsTwo => 1,
        }
    }

    /// What such nodes do.
    pub(super) fn description(self) -> &'static str {
        match self {
            Kind::Honest => "do their part",
            Kind::Errs => "err one time in five, each in its own way",
            Kind::Silent => "are silent",
            Kind::RevealsOther => "reveals something else than it pledged",
            Kind::SignsTwo => "signs two pledges for each task",
        }
    }

    /// The same in short, of one node.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Honest => "does its part",
            Kind::Errs => "errs one time in five",
            Kind::Silent => "is silent",
            Kind::RevealsOther => "reveals another result",
            Kind::SignsTwo => "signs two pledges",
        }
    }
}

/// Nodes that are registered and at work, until this is dropped.
#[derive(Debug)]
pub(super) struct Nodes {
    kinds: BTreeMap<NodeKey, Kind>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Gone when the threads have ended.
    results: TempDir,
}

impl Nodes {
    /// Registers the nodes with `admin`, unless they are, and sets them to work.
    pub(super) fn start(stage: Stage<'_>, admin: &Client) -> Result<Self, DemoError> {
        let results = tempfile::Builder::new().prefix("anwansi-nodes-").tempdir()?;
        let mut nodes =
            Nodes { kinds: BTreeMap::new(), stop: Arc::default(), threads: Vec::new(), results };
        let origin = admin.policy().origin().parse().map_err(Error::from)?;
        let kinds = Kind::ALL.into_iter().flat_map(|kind| [kind].repeat(kind.count()));
        for (number, kind) in (0..).zip(kinds) {
            let secret = secret(stage.token, number);
            let key = secret.key();
            if admin.node(&key, At::Newest)?.value.is_none() {
                let _ = admin.register(&key, &secret.join(&origin))?;
            }
            nodes.kinds.insert(key, kind);
            let client =
                Client::connect(stage.url, trust::of_vkey(stage.vkey)?, InMemory::default())?;
            let program: Box<dyn Program> = match kind {
                Kind::Honest => Box::new(WordCount),
                Kind::Errs => Box::new(ErringCount),
                Kind::Silent => continue,
                Kind::RevealsOther | Kind::SignsTwo => {
                    nodes.run_faulty(Faulty { client, secret, kind });
                    continue;
                }
            };
            let worker = Worker::new(client, secret, vec![program], nodes.results.path())?;
            nodes.run(worker);
        }
        Ok(nodes)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.kinds.len()
    }

    /// What the node is like, if it is one of these.
    pub(super) fn kind(&self, node: &NodeKey) -> Option<Kind> {
        self.kinds.get(node).copied()
    }

    fn run(&mut self, worker: Worker) {
        let stop = self.stop.clone();
        self.threads.push(thread::spawn(move || {
            // What a node fails to do shows in the votes; if the log forks there is nothing to do.
            let _ = worker.run(NonZeroUsize::MIN, &stop, |_| {});
        }));
    }

    fn run_faulty(&mut self, faulty: Faulty) {
        let stop = self.stop.clone();
        self.threads.push(thread::spawn(move || faulty.run(&stop)));
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A node that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

/// The key of a node: the same each time the demo runs on one store, and known to nobody else.
fn secret(token: &str, number: u32) -> NodeSecret {
    let mut hasher = Hasher::default();
    hasher.update(b"anwansi/demo/node\n");
    hasher.update(&number.to_le_bytes());
    hasher.update(token.as_bytes());
    NodeSecret::from_bytes(&hasher.finish().0)
}

/// Counts words, and is wrong one time in five: one word's count is too high.
///
/// When, where and by how much follows from the noise, so that two nodes that err do not err alike.
struct ErringCount;

impl Program for ErringCount {
    fn name(&self) -> &str {
        WordCount.name()
    }

    fn run(&self, input: &[u8], seed: &Digest) -> Result<Vec<u8>, ProgramError> {
        let result = WordCount.run(input, seed)?;
        let word = seed.0.first_chunk().expect("a digest has eight bytes");
        let mut rng = Rng::with_seed(u64::from_le_bytes(*word));
        Ok(if rng.u64(..ERRS_ONE_IN) == 0 { miscounted(&result, &mut rng) } else { result })
    }
}

/// The same counts, but for one word.
fn miscounted(result: &[u8], rng: &mut Rng) -> Vec<u8> {
    let Ok(Json::Object(mut counts)) = Json::parse(result) else { return result.to_vec() };
    let at = rng.usize(..counts.len().max(1));
    let word = counts.get_indexed(at).map(|(word, _)| word.clone());
    if let Some(Json::Integer(count)) = word.and_then(|word| counts.get_mut(&word)) {
        *count += BigInt::from(rng.u32(1..1000));
    }
    Json::Object(counts).to_bytes()
}

/// A node that means harm, without the checks and the memory of a [`Worker`].
struct Faulty {
    client: Client,
    secret: NodeSecret,
    kind: Kind,
}

/// A transition, and the digest of the header that opened it.
type Known = (TransitionId, Spec, Digest);

impl Faulty {
    fn run(&self, stop: &AtomicBool) {
        let mut done = HashSet::new();
        let mut known = None;
        while !stop.load(Ordering::SeqCst) {
            // It gives up as easily as it lies.
            for assignment in
                self.client.assignments(&self.secret.key(), &[], WAIT).unwrap_or_default()
            {
                let Assignment { transition, index, round, phase, .. } = assignment;
                if done.insert((transition, index, round, phase)) {
                    let _ = self.handle(&assignment, &mut known);
                }
            }
            thread::sleep(PAUSE);
        }
    }

    fn handle(&self, assignment: &Assignment, known: &mut Option<Known>) -> Result<(), Error> {
        let Assignment { transition, index, round, opened, phase, .. } = *assignment;
        if known.as_ref().is_none_or(|(id, ..)| *id != transition) {
            let header = self.client.header(opened)?.digest();
            *known = Some((transition, self.client.spec(&transition)?, header));
        }
        let Some((_, spec, header)) = known else { return Ok(()) };
        let place = Place { opened: *header, transition, task: index, round };
        let input = match &spec.inputs[index as usize] {
            Input::Data(data) => data.clone(),
            Input::Blob(digest) => self.client.blob(digest)?,
        };
        let node = self.secret.key();
        let seed = place.noise_seed(&node);
        let Ok(result) = WordCount.run(&input, &seed) else { return Ok(()) };
        let other = miscounted(&result, &mut Rng::with_seed(index.into()));
        let digest = Digest::of(&result);
        let salt = self.secret.salt(&place, &digest);
        match (phase, self.kind) {
            (Phase::Pledge, Kind::SignsTwo) => {
                self.client.send_pledge(&place, &self.secret.pledge(&place, &digest))?;
                self.client.send_pledge(&place, &self.secret.pledge(&place, &Digest::of(&other)))
            }
            (Phase::Pledge, _) => {
                self.client.send_pledge(&place, &self.secret.pledge(&place, &digest))
            }
            (Phase::Reveal { .. }, Kind::RevealsOther) => {
                self.client.send_reveal(&place, &node, &salt, &other)
            }
            // Its second pledge came too late to be held against it.
            (Phase::Reveal { .. }, _) => self.client.send_reveal(&place, &node, &salt, &result),
        }
    }
}
