//! What callers share a version, and what they write together.

use std::collections::{BTreeMap, HashSet};

use anwansi_proofs::Version;
use bytes::Bytes;

use crate::{
    Error,
    commit::{Answer, Work},
    engine::Batch,
    ledger::step::{Applied, Step},
    record::StoredValue,
    tree::{Pages, Tree, Value, Write},
    version::Values,
};

/// The commits and steps that share a version.
pub(crate) struct Group {
    pub(crate) version: Version,
    pub(crate) batch: Batch,
    pub(crate) values: Values,
    /// Those of the state that are stored on their own.
    pub(crate) coming: Vec<StoredValue>,
    pub(crate) writes: Writes,
    /// The tasks tree.
    pub(crate) tasks: BTreeMap<Bytes, Bytes>,
    /// The tree of the version before.
    pub(crate) before: Tree,
    /// What transitions in it write.
    pub(crate) applied: Vec<Applied>,
    /// Whether a step in it opens a transition.
    pub(crate) opens: bool,
    pub(crate) answers: Vec<Answer>,
}

impl Group {
    /// One for `version`, behind the version of the tree `before`, that nobody is in yet. It tells what leads back to that
    /// one, if that is allowed some bytes of memory and takes no more.
    pub(crate) fn new(version: Version, before: Tree, undo_bytes_max: Option<usize>) -> Self {
        let undo = undo_bytes_max.map(|bytes_max| (Vec::new(), bytes_max));
        Group {
            version,
            batch: Batch::new(),
            values: Values::new(version),
            coming: Vec::new(),
            writes: Writes { undo, ..Writes::default() },
            tasks: BTreeMap::new(),
            before,
            applied: Vec::new(),
            opens: false,
            answers: Vec::new(),
        }
    }

    /// Adds the writes of a member, which stand in key order.
    pub(crate) fn write(&mut self, writes: Vec<(Bytes, Option<Bytes>)>, pages: &Pages) {
        let mut place = |value: Bytes| {
            let placed = self.values.place(value.clone(), &mut self.batch);
            if let Value::Stored(stored) = &placed {
                // Later members, and the next versions, may read it before this one is stored.
                pages.expect_value(stored, value);
                self.coming.push(*stored);
            }
            placed
        };
        let writes = writes.into_iter().map(|(key, value)| {
            let value = value.map(&mut place);
            Write { key, value }
        });
        self.writes.runs.push(writes.collect());
    }

    /// Whether `work` cannot be in one version with what is here: it writes a key of theirs, or takes a node
    /// away that an opening has counted on.
    pub(crate) fn keeps_out(&mut self, work: &Work) -> bool {
        match work {
            _ if self.writes.runs.is_empty() => false,
            Work::Commit { commit, .. } => {
                commit.writes.iter().any(|(key, _)| self.writes.contains(key))
            }
            Work::Step(Step::Remove(_)) if self.opens => true,
            Work::Step(step) => step.keys().iter().any(|key| self.writes.contains(key)),
        }
    }
}

/// The writes of a version: those of each member in a run of its own, in key order.
#[derive(Default)]
pub(crate) struct Writes {
    runs: Vec<Vec<Write>>,
    /// The runs that are in the tree already.
    applied: usize,
    /// Bytes of the pages that these replaced, and the values on their own.
    replaced: usize,
    replaced_values: Vec<StoredValue>,
    /// What leads back from each of them to the one before, if that is asked for, and the bytes that are left for it.
    undo: Option<(Vec<u8>, usize)>,
    /// The keys of the first `indexed` runs.
    keys: HashSet<Bytes>,
    indexed: usize,
}

impl Writes {
    fn contains(&mut self, key: &Bytes) -> bool {
        for run in &self.runs[self.indexed..] {
            self.keys.extend(run.iter().map(|write| write.key.clone()));
        }
        self.indexed = self.runs.len();
        self.keys.contains(key)
    }

    /// Brings the tree up to date: once for as many members as came since the last time.
    pub(crate) fn apply(&mut self, tree: &mut Tree, pages: &Pages) -> Result<(), Error> {
        let merged;
        let writes = match &self.runs[self.applied..] {
            [] => return Ok(()),
            [run] => run,
            runs => {
                merged = merge(runs.iter().flatten().cloned().collect());
                &merged
            }
        };
        *tree = match self.undo.take() {
            None => tree.update(pages, writes)?,
            Some((mut undo, left)) => {
                let (next, back) = tree.update_undoably(pages, writes, left)?;
                self.undo = back.map(|back| {
                    let left = left - back.len();
                    undo.extend(back);
                    (undo, left)
                });
                next
            }
        };
        self.applied = self.runs.len();
        self.replaced += tree.replaced_bytes();
        self.replaced_values.extend(tree.replaced_values());
        Ok(())
    }

    /// Bytes of the pages that were replaced in the tree, as far as they were in memory.
    pub(crate) fn replaced_bytes(&self) -> usize {
        self.replaced
    }

    /// The values on their own that the tree has no more need of.
    pub(crate) fn take_replaced_values(&mut self) -> Vec<StoredValue> {
        std::mem::take(&mut self.replaced_values)
    }

    /// What leads back to the version before, one step behind the other, if that was asked for.
    pub(crate) fn take_undo(&mut self) -> Option<Vec<u8>> {
        self.undo.take().map(|(undo, _)| undo)
    }

    /// All writes, in key order.
    pub(crate) fn finish(mut self) -> Vec<Write> {
        match self.runs.len() {
            1 => self.runs.pop().expect("there is one"),
            _ => merge(self.runs.into_iter().flatten().collect()),
        }
    }
}

/// Runs one behind the other in key order. Of several writes to a key the last one stays.
pub(crate) fn merge(mut writes: Vec<Write>) -> Vec<Write> {
    // Finds the runs, and merges them.
    writes.sort_by(|a, b| a.key.cmp(&b.key));
    writes.dedup_by(|later, kept| {
        let same = later.key == kept.key;
        if same {
            std::mem::swap(later, kept);
        }
        same
    });
    writes
}
