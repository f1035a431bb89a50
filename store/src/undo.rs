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

use crate::{group::merge, tree::Write};

/// The undo of the newest versions.
#[derive(Debug)]
pub(crate) struct Undo {
    newest: Mutex<Newest>,
    /// The memory that they may take together, about, in bytes.
    bytes_max: usize,
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
    /// As they were found: of several writes to one key the first one counts.
    writes: Arc<Vec<Write>>,
    bytes: usize,
}

impl Step {
    fn new(version: Version, writes: Vec<Write>) -> Self {
        let bytes = size_of::<Self>() + writes.iter().map(Write::memory).sum::<usize>();
        Step { version, writes: writes.into(), bytes }
    }

    /// The writes, in key order.
    pub(crate) fn writes(&self) -> Vec<Write> {
        merge(self.writes.iter().rev().cloned().collect())
    }
}

impl Undo {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Undo { newest: Mutex::default(), bytes_max }
    }

    fn newest(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the `last` versions are to be kept.
    pub(crate) fn keep(&self, last: NonZeroU64) {
        self.newest().count_max = last.get() - 1;
    }

    /// Whether it is kept at all.
    pub(crate) fn is_kept(&self) -> bool {
        self.newest().count_max > 0
    }

    /// Takes what leads back from the newest version, if that is known. Gives what is kept no longer, for whoever has the
    /// time to drop it.
    pub(crate) fn push(&self, version: Version, writes: Option<Vec<Write>>) -> Vec<Step> {
        let mut newest = self.newest();
        let Some(writes) = writes else {
            newest.bytes = 0;
            return newest.steps.drain(..).collect();
        };
        let step = Step::new(version, writes);
        newest.bytes += step.bytes;
        newest.steps.push_back(step);
        let mut gone = Vec::new();
        while newest.steps.len() as u64 > newest.count_max || newest.bytes > self.bytes_max {
            let Some(step) = newest.steps.pop_front() else { break };
            newest.bytes -= step.bytes;
            gone.push(step);
        }
        gone
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
    use super::*;
    use crate::tree::Value;

    fn write(key: &'static [u8], value: &'static [u8]) -> Write {
        Write { key: key.into(), value: Some(Value::Inline(value.into())) }
    }

    fn versions(undo: &Undo, version: u64) -> Vec<u64> {
        undo.back_from(Version(version)).iter().map(|step| step.version.0).collect()
    }

    #[test]
    fn undo_reaches_back_without_a_gap_and_within_its_bounds() {
        let undo = Undo::new(10_000);
        assert!(!undo.is_kept());
        undo.keep(NonZeroU64::new(4).unwrap());
        for version in 1..=5 {
            undo.push(Version(version), Some(vec![write(b"key", b"value")]));
        }
        assert_eq!(versions(&undo, 5), [3, 4, 5]);
        assert_eq!(versions(&undo, 4), [3, 4]);
        assert_eq!(versions(&undo, 2), [0; 0]);
        // A version of which it is not known, and one that is too large.
        undo.push(Version(6), None);
        undo.push(Version(7), Some(Vec::new()));
        assert_eq!(versions(&undo, 7), [7]);
        undo.push(Version(8), Some(vec![write(b"key", &[7; 10_000])]));
        assert_eq!(versions(&undo, 8), [0; 0]);
        undo.keep(NonZeroU64::MIN);
        undo.push(Version(9), Some(Vec::new()));
        assert_eq!(versions(&undo, 9), [0; 0]);
    }

    #[test]
    fn first_of_several_writes_to_a_key_leads_back() {
        let writes = vec![write(b"b", b"before"), write(b"a", b"first"), write(b"b", b"between")];
        let writes = Step::new(Version(1), writes).writes();
        let keys = writes.iter().map(|write| &write.key[..]).collect::<Vec<_>>();
        assert_eq!(keys, [b"a", b"b"]);
        assert!(matches!(&writes[1].value, Some(Value::Inline(value)) if value == "before"));
    }
}
