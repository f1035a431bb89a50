//! What an engine should hold: a map of maps, and random batches to fill both with.

use std::{collections::BTreeMap, ops::Bound};

use anwansi_store::engine::{Batch, Direction, Engine, Keyspace};
use bytes::Bytes;

/// The slow engine to compare with.
#[derive(Default)]
pub(crate) struct Model {
    spaces: BTreeMap<Keyspace, BTreeMap<Bytes, Bytes>>,
}

impl Model {
    pub(crate) fn apply(&mut self, batch: &Batch) {
        for operation in batch.operations() {
            let entries = self.spaces.entry(operation.space).or_default();
            match &operation.value {
                Some(value) => entries.insert(operation.key.clone(), value.clone()),
                None => entries.remove(&operation.key),
            };
        }
    }

    /// Compares everything, read one by one, together, and by scans.
    pub(crate) fn assert_holds(&self, engine: &dyn Engine) {
        for space in Keyspace::ALL {
            self.assert_scan(engine, space, Bound::Unbounded, Bound::Unbounded);
            let Some(entries) = self.spaces.get(&space) else { continue };
            let keys: Vec<&[u8]> = entries.keys().map(|key| &key[..]).collect();
            let values = engine.get_many(space, &keys).unwrap();
            for ((key, expected), value) in entries.iter().zip(values) {
                assert!(value.as_ref() == Some(expected), "{space:?} {key:?}");
                assert!(engine.get(space, key).unwrap().as_ref() == Some(expected));
            }
        }
    }

    /// Compares one range, both ways.
    pub(crate) fn assert_scan(
        &self,
        engine: &dyn Engine,
        space: Keyspace,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) {
        let inside = |key: &[u8]| {
            let above = match start {
                Bound::Included(start) => key >= start,
                Bound::Excluded(start) => key > start,
                Bound::Unbounded => true,
            };
            let below = match end {
                Bound::Included(end) => key <= end,
                Bound::Excluded(end) => key < end,
                Bound::Unbounded => true,
            };
            above && below
        };
        let mut expected: Vec<(Bytes, Bytes)> = Vec::new();
        for (key, value) in self.spaces.get(&space).into_iter().flatten() {
            if inside(key) {
                expected.push((key.clone(), value.clone()));
            }
        }
        for direction in [Direction::Ascending, Direction::Descending] {
            let found: Vec<_> =
                engine.scan(space, start, end, direction).collect::<Result<_, _>>().unwrap();
            assert!(found == expected, "{space:?} {start:?} {end:?} {direction:?}");
            expected.reverse();
        }
    }
}

/// All ranges that two keys can bound.
pub(crate) fn bounds<'a>(
    start: &'a [u8],
    end: &'a [u8],
) -> impl Iterator<Item = (Bound<&'a [u8]>, Bound<&'a [u8]>)> {
    let starts = [Bound::Included(start), Bound::Excluded(start), Bound::Unbounded];
    let ends = [Bound::Included(end), Bound::Excluded(end), Bound::Unbounded];
    starts.into_iter().flat_map(move |start| ends.into_iter().map(move |end| (start, end)))
}

/// A generator whose seed is printed, for the output of a failed test.
pub(crate) fn seeded(seed: u64) -> fastrand::Rng {
    println!("seed {seed}");
    fastrand::Rng::with_seed(seed)
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// A batch over few keys, so that it often overwrites and deletes.
pub(crate) fn random_batch(random: &mut fastrand::Rng) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..random.usize(0..20) {
        let space = Keyspace::ALL[random.usize(0..Keyspace::ALL.len())];
        let key: Vec<u8> = (0..random.usize(1..4)).map(|_| random.u8(0..4)).collect();
        let size = match random.u8(0..40) {
            0..10 => {
                batch.delete(space, key);
                continue;
            }
            10 => random.usize(0..600_000),
            11..20 => random.usize(0..40_000),
            20.. => random.usize(0..200),
        };
        batch.put(space, key, bytes(random.u64(..), size));
    }
    batch
}
