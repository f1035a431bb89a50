//! Old versions: the newest of them in memory, the others made again from the nearest one below.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use anwansi_proofs::Version;

use crate::{
    Damage, Error, flush,
    record::{self, decode},
    replay::replay,
    snapshot::{At, Snapshot},
    threads,
    tree::{Pages, Tree},
};

/// Old versions that are kept open for the next request, at most.
const OPENED_MAX: usize = 16;

/// The part of the budget for pages that old versions may take.
const RECENT_PART: usize = 16;
/// About how much memory a version takes beside its pages.
const VERSION_BYTES: usize = 1 << 10;

/// Trees that are held for one that is open, at most: then another one is made from a flush, not from that one.
const HOLDS_MAX: usize = 2;

/// The versions that can be read at once.
#[derive(Default)]
pub(crate) struct History {
    /// The newest versions behind the published one, oldest first, with the memory each takes.
    recent: Mutex<Recent>,
    /// Versions that were asked for, the one used last at the back.
    opened: Mutex<Vec<Arc<At>>>,
}

#[derive(Default)]
struct Recent {
    versions: VecDeque<(Arc<At>, usize)>,
    bytes: usize,
}

impl History {
    /// Keeps a version that is no longer the newest, within a part of the budget for pages: so many bytes of its pages
    /// were replaced by the version after it.
    ///
    /// Gives those that are kept no longer: to drop one frees thousands of pages.
    pub(crate) fn remember(&self, snapshot: &Snapshot, replaced: usize) -> Vec<Arc<At>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = replaced + VERSION_BYTES;
        recent.versions.push_back((snapshot.version.clone(), bytes));
        recent.bytes += bytes;
        let mut gone = Vec::new();
        while recent.bytes > snapshot.pages.bytes_max() / RECENT_PART {
            let Some((version, bytes)) = recent.versions.pop_front() else { break };
            recent.bytes -= bytes;
            gone.push(version);
        }
        gone
    }

    /// Opens `version`, which is not above that of `newest`.
    pub(crate) fn open(&self, newest: &Snapshot, version: Version) -> Result<Snapshot, Error> {
        let number = |at: &Arc<At>| at.header.version();
        let at = |version| Snapshot { version, ..newest.clone() };
        if version == newest.version() {
            return Ok(newest.clone());
        }
        {
            let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            if let Ok(found) = recent.versions.binary_search_by_key(&version, |(at, _)| number(at))
            {
                return Ok(at(recent.versions[found].0.clone()));
            }
        }
        // Held while a version is made: one at a time, and two callers for one version make it once.
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let below = opened.iter().filter(|at| {
            number(at) == version || number(at) < version && at.tree.holds() < HOLDS_MAX
        });
        let below = below.max_by_key(|at| number(at));
        let below = below.cloned();
        let made = match below {
            Some(below) if number(&below) == version => below,
            below => {
                make_room(&mut opened)?;
                Arc::new(threads::aside(|| make(newest, below.as_deref(), version))??)
            }
        };
        opened.retain(|at| number(at) != version);
        opened.push(made.clone());
        Ok(at(made))
    }
}

/// Closes the version that was used longest ago, of those that nobody reads, if all places are taken.
fn make_room(opened: &mut Vec<Arc<At>>) -> Result<(), Error> {
    if opened.len() >= OPENED_MAX {
        let idle = opened.iter().position(|at| Arc::strong_count(at) == 1).ok_or(Error::Busy)?;
        opened.remove(idle);
    }
    Ok(())
}

/// Makes a version again: from an open version below it or from the flush at or before it, whichever
/// is nearer, by the changes since.
fn make(newest: &Snapshot, below: Option<&At>, version: Version) -> Result<At, Error> {
    let (flushed, tree) = flushed_tree(newest, version)?;
    let start = match below.filter(|below| below.header.version() >= flushed) {
        Some(below) => (below.header.version(), below.tree.clone()),
        None => (flushed, tree),
    };
    replay(&*newest.engine, &newest.pages, start, version, |_| {})
}

/// The newest flushed version up to `version`, and its tree; before the first flush, that of version 0.
fn flushed_tree(newest: &Snapshot, version: Version) -> Result<(Version, Tree), Error> {
    match flush::find(&*newest.engine, version)? {
        Some((version, bytes)) => Ok((version, read_flush(&newest.pages, &bytes, version)?.0)),
        None => Ok((Version(0), Tree::default())),
    }
}

/// The tree that a flush names, and the epoch and chunks that it lies in.
pub(crate) fn read_flush(
    pages: &Pages,
    bytes: &[u8],
    version: Version,
) -> Result<(Tree, (u32, u32)), Error> {
    let damage = Damage::Flush(version);
    let flush: record::Flush<'_> = decode(bytes, damage)?;
    let tree = Tree::stored(pages, &flush).ok_or(Error::Damaged(damage))?;
    Ok((tree, (flush.epoch, flush.chunks)))
}

#[cfg(test)]
mod tests {
    use crate::{Commit, LogKey, Options, Store, engine::Memory};

    use super::*;

    #[test]
    fn old_versions_opened_between_one_another_are_found_again() {
        let key = LogKey::from_secret([7; 32], None).unwrap();
        // No version but the newest stays in memory.
        let options = Options { cache_bytes: 256 << 10, ..Options::default() };
        let store = Store::open(Arc::new(Memory::new()), key, &options).unwrap();
        for version in 1..=120 {
            let keys = (0..400).filter(|key| key % 7 == version % 7 || version == 1);
            let write = |key: u64| (key.to_string().into(), Some(version.to_string().into()));
            store.commit(Commit::new(keys.map(write).collect())).unwrap();
        }
        // Each lies between two that are open: a tree that goes on from one before it, in another way.
        let order = [10, 100, 50, 90, 70, 85, 77, 82, 79, 81, 80];
        let open = |version| store.at(Version(version)).unwrap();
        let opened = order.map(|version| (version, open(version)));
        for (version, snapshot) in &opened {
            assert!(Arc::ptr_eq(&snapshot.version, &open(*version).version), "{version}");
            let newest = |key: u64| (1..=*version).rev().find(|at| key % 7 == at % 7 || *at == 1);
            for key in 0..400 {
                let value = snapshot.get(key.to_string().as_bytes()).unwrap().unwrap();
                assert_eq!(value, newest(key).unwrap().to_string(), "{key} at {version}");
            }
        }
    }
}
