//! Undo: what leads from a version back to the one before it.
//!
//! It is gathered in memory for the versions that a retention keeps behind the newest one, and stored by a flush: these
//! versions are then made from its image, and need none that is older.

use std::{
    collections::VecDeque,
    num::NonZeroU64,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anwansi_proofs::Version;

use crate::{Retention, group::merge, record, tree::Write};

/// The undo of the newest versions.
#[derive(Debug)]
pub(crate) struct Undo {
    newest: Mutex<Newest>,
    /// The bytes of memory that they may take together.
    bytes_max: usize,
    /// How many there may be at least.
    count_min: u64,
}

#[derive(Debug, Default)]
struct Newest {
    /// One version behind the other.
    steps: VecDeque<Step>,
    bytes: usize,
    /// How many there are at most.
    count_max: u64,
}

/// What leads from a version back to the one before it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) version: Version,
    /// Changes, one behind the other, as they were found: of several for one key the first one counts.
    changes: Arc<Vec<u8>>,
}

impl Step {
    fn new(version: Version, mut changes: Vec<u8>) -> Self {
        changes.shrink_to_fit();
        Step { version, changes: changes.into() }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.changes.len()
    }

    /// The writes, in key order.
    pub(crate) fn writes(&self) -> Vec<Write> {
        let write = |change| Write::from_record(&change).expect("it was in a tree");
        let mut writes = record::changes(&self.changes).map(write).collect::<Vec<_>>();
        writes.reverse();
        merge(writes)
    }
}

/// Of how many versions undo is kept: of those that are kept behind the newest one, but of none if no flush goes.
fn count(retention: &Retention) -> u64 {
    if retention.every == Some(NonZeroU64::MIN) { 0 } else { retention.last.get() - 1 }
}

impl Undo {
    /// Within so many bytes of memory, of as many versions as `retention` keeps behind the newest one, if it is one by
    /// which the store always prunes.
    pub(crate) fn new(bytes_max: usize, retention: Option<&Retention>) -> Self {
        let count_min = retention.map_or(0, count);
        let newest = Newest { count_max: count_min, ..Newest::default() };
        Undo { newest: newest.into(), bytes_max, count_min }
    }

    fn newest(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is pruned by this.
    pub(crate) fn keep(&self, retention: &Retention) {
        self.newest().count_max = count(retention).max(self.count_min);
    }

    /// The memory that a version's may take, if it is kept at all.
    pub(crate) fn bytes_max(&self) -> Option<usize> {
        (self.newest().count_max > 0).then_some(self.bytes_max)
    }

    /// Takes what leads back from the newest version, if that is known. Gives what is kept no longer, for whoever has the
    /// time to drop it.
    pub(crate) fn push(&self, version: Version, changes: Option<Vec<u8>>) -> Vec<Step> {
        let mut newest = self.newest();
        let Some(changes) = changes else {
            newest.bytes = 0;
            return newest.steps.drain(..).collect();
        };
        let step = Step::new(version, changes);
        newest.bytes += step.bytes();
        newest.steps.push_back(step);
        let mut gone = Vec::new();
        while newest.steps.len() as u64 > newest.count_max || newest.bytes > self.bytes_max {
            let Some(step) = newest.steps.pop_front() else { break };
            newest.bytes -= step.bytes();
            gone.push(step);
        }
        gone
    }

    /// The oldest version that is to be kept when `version` is the newest.
    pub(crate) fn oldest_before(&self, version: Version) -> Version {
        Version(version.0.saturating_sub(self.newest().count_max))
    }

    /// What leads back from `version`, as far as it is there: the oldest step first.
    pub(crate) fn back_from(&self, version: Version) -> Vec<Step> {
        let newest = self.newest();
        let until = newest.steps.partition_point(|step| step.version <= version);
        newest.steps.range(..until).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fastrand::Rng;

    use super::*;
    use crate::{
        engine::Memory,
        record::StoredValue,
        tree::{Pages, Tree, Value},
    };

    fn changes(changes: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, value) in changes {
            let value = Some(record::Value::Inline(value));
            record::append_change(&mut bytes, &record::Change { key, value });
        }
        bytes
    }

    fn versions(undo: &Undo, version: u64) -> Vec<u64> {
        undo.back_from(Version(version)).iter().map(|step| step.version.0).collect()
    }

    #[test]
    fn undo_reaches_back_without_a_gap_and_within_its_bounds() {
        let undo = Undo::new(10_000, None);
        let keep = |last, every| {
            let [last, every] = [last, every].map(NonZeroU64::new);
            undo.keep(&Retention { last: last.unwrap(), every });
            undo.bytes_max()
        };
        assert_eq!([undo.bytes_max(), keep(4, 1), keep(4, 2)], [None, None, Some(10_000)]);
        for version in 1..=5 {
            undo.push(Version(version), Some(changes(&[(b"key", b"value")])));
        }
        assert_eq!(versions(&undo, 5), [3, 4, 5]);
        assert_eq!(versions(&undo, 4), [3, 4]);
        assert_eq!(versions(&undo, 2), [0; 0]);
        // A version of which it is not known, and one that is too large.
        undo.push(Version(6), None);
        undo.push(Version(7), Some(Vec::new()));
        assert_eq!(versions(&undo, 7), [7]);
        undo.push(Version(8), Some(changes(&[(b"key", &[7; 10_000])])));
        assert_eq!(versions(&undo, 8), [0; 0]);
        assert_eq!(keep(1, 0), None);
        undo.push(Version(9), Some(Vec::new()));
        assert_eq!(versions(&undo, 9), [0; 0]);
    }

    /// Random writes to few keys or to many: new values, on their own or not, and removals.
    fn writes(rng: &mut Rng, keys: u32) -> Vec<Write> {
        let mut writes = BTreeMap::new();
        for _ in 0..rng.usize(1..200) {
            let value = match rng.u8(..4) {
                0 => None,
                1 => {
                    let digest = std::array::repeat(rng.u8(..));
                    let version = rng.u64(..);
                    Some(Value::Stored(StoredValue { version, index: 0, length: 2000, digest }))
                }
                _ => Some(Value::Inline(vec![rng.u8(..); rng.usize(..40)].into())),
            };
            writes.insert(rng.u32(..keys).to_be_bytes(), value);
        }
        let write = |(key, value): ([u8; 4], _)| Write { key: key.to_vec().into(), value };
        writes.into_iter().map(write).collect()
    }

    #[test]
    fn undo_leads_back_from_any_tree_to_the_one_before() {
        let mut rng = Rng::with_seed(4);
        for keys in [1, 2, 3, 40, 3000] {
            let pages = Pages::on_two_threads(Arc::new(Memory::new()), 1 << 20);
            let mut tree = Tree::default();
            for _ in 0..100 {
                let before = tree.clone();
                let mut all = Vec::new();
                for _ in 0..rng.usize(1..3) {
                    let writes = writes(&mut rng, keys);
                    let (next, undo) = tree.update_undoably(&pages, &writes, 1 << 20).unwrap();
                    all.extend(undo.unwrap());
                    tree = next;
                }
                let undo = Step::new(Version(1), all).writes();
                let back = tree.update(&pages, &undo).unwrap();
                assert_eq!(back.root(), before.root());
                assert_eq!((back.entries, back.bytes), (before.entries, before.bytes));
            }
        }
    }

    /// What undoes a write to a new key.
    fn changes_of(write: &Write) -> Vec<u8> {
        let mut bytes = Vec::new();
        record::append_change(&mut bytes, &record::Change { key: &write.key, value: None });
        bytes
    }

    #[test]
    fn undo_that_takes_too_much_memory_is_not_gathered() {
        let pages = Pages::on_two_threads(Arc::new(Memory::new()), 1 << 20);
        let writes = (0..100_u32).map(|key| Write {
            key: key.to_be_bytes().to_vec().into(),
            value: Some(Value::Inline(vec![1; 10].into())),
        });
        let writes = writes.collect::<Vec<_>>();
        let bytes = writes.iter().map(|write| changes_of(write).len()).sum::<usize>();
        for (bytes_max, is_there) in [(bytes, true), (bytes - 1, false), (0, false)] {
            let (_, undo) = Tree::default().update_undoably(&pages, &writes, bytes_max).unwrap();
            assert_eq!(undo.is_some(), is_there, "{bytes_max}");
        }
    }

    #[test]
    fn first_of_several_writes_to_a_key_leads_back() {
        let changes = changes(&[(b"b", b"before"), (b"a", b"first"), (b"b", b"between")]);
        let writes = Step::new(Version(1), changes).writes();
        let keys = writes.iter().map(|write| &write.key[..]).collect::<Vec<_>>();
        assert_eq!(keys, [b"a", b"b"]);
        assert!(matches!(&writes[1].value, Some(Value::Inline(value)) if value == "before"));
    }
}
