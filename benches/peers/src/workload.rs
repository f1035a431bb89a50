//! What every peer goes through, in the same order with the same keys and values, and what is measured.
//!
//! ```text
//! open -> load: commits of new keys -> update: commits of known keys -> gets -> proofs -> verify -> close -> reopen
//!                                          | bytes written, peak memory
//! ```
//!
//! Keys, values and the order of everything come from fixed seeds. Each result is checked, outside of what is
//! timed: a peer whose answer is wrong is an error and has no numbers.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::peers::Peer;

/// A key: 32 random bytes, of which the first is not zero (such keys are Anwansi's own).
pub(crate) type Key = [u8; 32];
/// A value.
pub(crate) type Value = [u8; 100];

/// How many proofs are checked in every way, and how many keys after reopening.
const SAMPLES: usize = 200;

/// How much of everything there is.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// Keys to load
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) keys: usize,
    /// Updates of loaded keys
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) updates: usize,
    /// Writes in one commit, of different keys
    #[arg(long, default_value_t = 10_000)]
    pub(crate) batch: usize,
    /// Reads of random keys
    #[arg(long, default_value_t = 200_000)]
    pub(crate) gets: usize,
    /// Proofs of random keys to make, and then to verify
    #[arg(long, default_value_t = 20_000)]
    pub(crate) proofs: usize,
}

impl Shape {
    fn is_positive(&self) -> bool {
        let Shape { keys, updates, batch, gets, proofs } = *self;
        [keys, updates, batch, gets, proofs].iter().all(|&count| count > 0)
    }
}

/// Where a peer keeps its files, and for how many keys.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Empty or absent at first.
    pub(crate) directory: PathBuf,
    /// The number of keys it will hold: some peers size a table by it.
    pub(crate) keys: usize,
}

/// What was measured of one peer in one run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// New keys a second, each batch durable with its root.
    pub(crate) loads_per_s: f64,
    /// Updates of known keys a second, each batch durable with its root.
    pub(crate) updates_per_s: f64,
    /// Processor time for an update, in microseconds, all threads: it says more than
    /// [`updates_per_s`](Self::updates_per_s) on a machine that has other work.
    pub(crate) cpu_us_per_update: f64,
    /// Bytes written to storage for an update, from the first commit's start to the last one's return.
    pub(crate) written_per_update: f64,
    /// The same to the end of the clean close: with what was put off until then.
    pub(crate) written_until_closed_per_update: f64,
    /// The most memory the process has had when all updates were done.
    pub(crate) memory_bytes_max: u64,
    /// Reads a second.
    pub(crate) gets_per_s: f64,
    /// Proofs made and encoded a second.
    pub(crate) proofs_made_per_s: f64,
    /// Proofs decoded and verified a second, one by one.
    pub(crate) proofs_verified_per_s: f64,
    /// The mean length of an encoded proof.
    pub(crate) proof_bytes: f64,
    /// How long the clean close took.
    pub(crate) close_s: f64,
    /// How long it took to open again, and to know the root and one value.
    pub(crate) reopen_s: f64,
    /// What the closed directory takes on disk, allocated blocks.
    pub(crate) disk_bytes: u64,
}

/// Takes a peer through the workload.
///
/// # Errors
/// If the peer fails, or gives a wrong answer.
pub(crate) async fn measure<P: Peer>(
    home: &P::Home,
    place: &Place,
    shape: Shape,
) -> Result<Measured> {
    ensure!(shape.is_positive(), "there must be some of each");
    let mut entries = Entries::new(shape.keys);
    let mut peer = P::open(home).await.context("opening")?;

    let mut loading = Duration::ZERO;
    for first in (0..shape.keys).step_by(shape.batch) {
        let picked = first..shape.keys.min(first + shape.batch);
        loading += commit(&mut peer, &entries, picked).await.context("loading")?;
    }

    let (written_before, cpu_before) = (written()?, cpu()?);
    let mut updating = Duration::ZERO;
    let mut updates = 0;
    while updates < shape.updates {
        let picked = entries.pick(shape.batch.min(shape.updates - updates));
        updates += picked.len();
        updating += commit(&mut peer, &entries, picked).await.context("updating")?;
    }
    let written_updating = written()? - written_before;
    let cpu_updating = cpu()?.saturating_sub(cpu_before);
    let memory_bytes_max = memory_max()?;

    let gets_per_s = gets(&mut peer, &entries, shape.gets).await.context("reading")?;
    let proofs = proofs(&mut peer, &entries, shape.proofs).await.context("proving")?;

    let root = peer.root()?;
    let start = Instant::now();
    peer.close().await.context("closing")?;
    let close_s = start.elapsed().as_secs_f64();
    let written_until_closed = written()? - written_before;
    let disk_bytes = disk_bytes(&place.directory)?;

    let reopen_s = reopen::<P>(home, &root, &entries).await.context("opening again")?;

    Ok(Measured {
        loads_per_s: per_second(shape.keys, loading),
        updates_per_s: per_second(updates, updating),
        cpu_us_per_update: 1e6 / per_second(updates, cpu_updating),
        written_per_update: ratio(written_updating, updates),
        written_until_closed_per_update: ratio(written_until_closed, updates),
        memory_bytes_max,
        gets_per_s,
        proofs_made_per_s: proofs.made_per_s,
        proofs_verified_per_s: proofs.verified_per_s,
        proof_bytes: proofs.bytes,
        close_s,
        reopen_s,
        disk_bytes,
    })
}

/// Opens a peer again that was closed with `root`, and returns the seconds that took.
async fn reopen<P: Peer>(home: &P::Home, root: &P::Root, entries: &Entries) -> Result<f64> {
    let start = Instant::now();
    let mut peer = P::open(home).await?;
    let again = peer.root()?;
    let first = peer.get(&entries.keys[0]).await?;
    let taken = start.elapsed();
    ensure!(again == *root, "the root was {root:?} and is {again:?} now");
    is_value(first.as_ref(), entries, 0)?;
    for index in entries.random(4, SAMPLES) {
        is_value(peer.get(&entries.keys[index]).await?.as_ref(), entries, index)?;
    }
    peer.close().await?;
    Ok(taken.as_secs_f64())
}

/// Commits the newest values of the keys at `picked`, and says how long that took.
async fn commit<P: Peer>(
    peer: &mut P,
    entries: &Entries,
    picked: impl IntoIterator<Item = usize>,
) -> Result<Duration> {
    let batch =
        P::batch(picked.into_iter().map(|index| (entries.keys[index], entries.value(index))));
    let start = Instant::now();
    peer.commit(batch).await?;
    Ok(start.elapsed())
}

/// Reads random keys, and returns how many a second.
async fn gets<P: Peer>(peer: &mut P, entries: &Entries, count: usize) -> Result<f64> {
    // A tenth comes first and does not count: caches are warm then, as in a process that has run for long.
    for index in entries.random(2, count.div_ceil(10)) {
        is_value(peer.get(&entries.keys[index]).await?.as_ref(), entries, index)?;
    }
    let indexes = entries.random(3, count);
    let mut sum = 0_u64;
    let start = Instant::now();
    for &index in &indexes {
        let value = peer.get(&entries.keys[index]).await?.context("a loaded key has no value")?;
        sum = sum.wrapping_add(head(value.as_ref()));
    }
    let taken = start.elapsed();
    let expected = indexes.iter().map(|&index| head(&entries.value(index)));
    ensure!(sum == expected.fold(0, u64::wrapping_add), "wrong values were read");
    Ok(per_second(count, taken))
}

/// What was measured of proofs.
struct Proofs {
    made_per_s: f64,
    verified_per_s: f64,
    /// The mean length.
    bytes: f64,
}

/// Makes proofs of random keys, and verifies them against the root alone.
async fn proofs<P: Peer>(peer: &mut P, entries: &Entries, count: usize) -> Result<Proofs> {
    for index in entries.random(5, count.div_ceil(10)) {
        peer.prove(&entries.keys[index]).await?;
    }
    let indexes = entries.random(6, count);
    let mut proofs = Vec::with_capacity(count);
    let start = Instant::now();
    for &index in &indexes {
        proofs.push(peer.prove(&entries.keys[index]).await?);
    }
    let making = start.elapsed();

    let root = peer.root()?;
    let claims = indexes.iter().map(|&index| (entries.keys[index], entries.value(index)));
    let claims = claims.zip(&proofs).collect::<Vec<_>>();
    let mut verified = 0;
    let start = Instant::now();
    for ((key, value), proof) in &claims {
        verified += usize::from(P::verify(&root, key, value, proof));
    }
    let verifying = start.elapsed();
    ensure!(verified == count, "{verified} of {count} proofs are good");

    for ((key, value), proof) in claims.iter().take(SAMPLES) {
        refuses_lies::<P>(&root, key, value, proof)?;
    }
    let bytes = proofs.iter().map(Vec::len).sum::<usize>();
    Ok(Proofs {
        made_per_s: per_second(count, making),
        verified_per_s: per_second(count, verifying),
        bytes: ratio(bytes as u64, count),
    })
}

/// Checks that the proof of one value is none of another, and that a changed proof is none at all.
fn refuses_lies<P: Peer>(root: &P::Root, key: &Key, value: &Value, proof: &[u8]) -> Result<()> {
    let mut other = *value;
    other[99] ^= 1;
    ensure!(!P::verify(root, key, &other, proof), "a proof is good for a value it is not of");
    let mut key = *key;
    key[31] ^= 1;
    ensure!(!P::verify(root, &key, value, proof), "a proof is good for a key it is not of");
    key[31] ^= 1;
    let mut changed = proof.to_vec();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    ensure!(!P::verify(root, &key, value, &changed), "a changed proof is good");
    Ok(())
}

fn is_value(found: Option<&impl AsRef<[u8]>>, entries: &Entries, index: usize) -> Result<()> {
    match found {
        Some(value) if value.as_ref() == entries.value(index) => Ok(()),
        Some(_) => bail!("the value of key {index} is not that of its last update"),
        None => bail!("key {index} has no value"),
    }
}

/// The keys, and which value each has now.
struct Entries {
    keys: Vec<Key>,
    /// How often each key was updated: from this its value follows.
    generations: Vec<u32>,
    /// The indexes in some order: [`pick`](Self::pick) shuffles as many as it needs to the front.
    order: Vec<u32>,
    rng: Rng,
}

impl Entries {
    fn new(count: usize) -> Self {
        let mut rng = Rng::with_seed(1);
        let mut key = || {
            let mut key = [0; 32];
            rng.fill(&mut key);
            key[0] = rng.u8(1..);
            key
        };
        let keys = (0..count).map(|_| key()).collect();
        let order = (0..u32::try_from(count).expect("keys are counted in 32 bits")).collect();
        Entries { keys, generations: vec![0; count], order, rng: Rng::with_seed(7) }
    }

    /// Gives `count` random keys, all different, new values, and returns their indexes. There are no more
    /// than there are keys.
    fn pick(&mut self, count: usize) -> Vec<usize> {
        let count = count.min(self.order.len());
        for front in 0..count {
            let other = self.rng.usize(front..self.order.len());
            self.order.swap(front, other);
        }
        let picked = self.order[..count].iter().map(|&index| index as usize).collect::<Vec<_>>();
        for &index in &picked {
            self.generations[index] += 1;
        }
        picked
    }

    /// The newest value of the key at `index`.
    fn value(&self, index: usize) -> Value {
        let mut value = [0; 100];
        let seed = (index as u64) << 32 | u64::from(self.generations[index]);
        Rng::with_seed(seed).fill(&mut value);
        value
    }

    /// `count` random indexes, which may repeat.
    fn random(&self, seed: u64, count: usize) -> Vec<usize> {
        let mut rng = Rng::with_seed(seed);
        (0..count).map(|_| rng.usize(..self.keys.len())).collect()
    }
}

/// The first eight bytes: enough to notice another value.
fn head(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |head| u64::from_le_bytes(*head))
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn per_second(count: usize, taken: Duration) -> f64 {
    count as f64 / taken.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn ratio(sum: u64, count: usize) -> f64 {
    sum as f64 / count as f64
}

/// The bytes this process has caused to be written to storage, by the kernel's account.
fn written() -> Result<u64> {
    number("/proc/self/io", "write_bytes:")
}

/// The processor time that all threads of this process have had.
fn cpu() -> Result<Duration> {
    let text = fs::read_to_string("/proc/self/stat")?;
    // The second field is a name in parentheses; after it the user's time is the 12th, the system's the 13th.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    ensure!(ticks.len() == 2, "/proc/self/stat is too short");
    // The kernel counts in hundredths of a second there, whatever its own clock.
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 10))
}

/// The most memory this process has had, in bytes.
fn memory_max() -> Result<u64> {
    Ok(number("/proc/self/status", "VmHWM:")? << 10)
}

/// The number after `name` in a file of the kernel's.
fn number(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).context(file.to_owned())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).with_context(|| format!("{file} has no {name}"))
}

/// What the files below `path` take on disk, in bytes.
fn disk_bytes(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;

    let metadata = fs::symlink_metadata(path)?;
    let mut bytes = metadata.blocks() * 512;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += disk_bytes(&entry?.path())?;
        }
    }
    Ok(bytes)
}
