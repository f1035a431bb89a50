//! Old versions: the newest of them in memory, the others made again from a flush, or from one that is open.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use anwansi_proofs::Version;
use bytes::Bytes;

use crate::{
    Error,
    flushes::{self, Flushed},
    replay::{GATHERED_BYTES, replay},
    retention::{Hold, Kept, Versions},
    snapshot::{At, Snapshot},
    threads,
    tree::Tree,
};

/// Old versions that are kept open for the next request, at most.
const OPENED_MAX: usize = 16;

/// The part of the budget for pages that old versions may take.
const RECENT_PART: usize = 16;
/// About how much memory a version takes beside its pages.
const VERSION_BYTES: usize = 1 << 10;

/// The part of the budget that versions which are kept open may take, beside those that are being read.
const OPENED_PART: usize = 8;

/// Trees that are held for one that is open, at most: then another one is made from a flush, not from that one.
const HOLDS_MAX: usize = 2;

/// The versions that can be read at once.
#[derive(Default)]
pub(crate) struct History {
    /// The newest versions behind the published one, oldest first, with the memory each takes.
    recent: Mutex<Recent>,
    /// Versions that were asked for, the one used last at the back, with the memory that was taken for each.
    opened: Mutex<Vec<(Arc<At>, usize)>>,
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

    /// Lets go of versions that are not kept any more, and gives them for whoever has the time to drop them.
    pub(crate) fn forget(&self, kept: &Kept) -> Vec<Arc<At>> {
        self.retain(|at| kept.has(at.header.version()))
    }

    /// Lets go of versions that nobody reads and that were made from other flushes than these.
    pub(crate) fn forget_others(&self, flushes: &[Flushed]) -> Vec<Arc<At>> {
        self.retain(|at| {
            let is_one = |image| flushes.iter().any(|flush| flush.image == image);
            at.image.as_ref().is_none_or(|it| is_one(it.held())) || Arc::strong_count(at) > 1
        })
    }

    /// Lets go of versions that nobody reads and that were never made from a flush, if they can be from this one: they
    /// hold older pages.
    pub(crate) fn forget_behind(&self, flush: &Flushed) -> Vec<Arc<At>> {
        self.retain(|at| {
            let version = at.header.version();
            let is_behind = flush.since <= version && version < flush.version;
            !is_behind || at.image.is_some() || Arc::strong_count(at) > 1
        })
    }

    fn retain(&self, stays: impl Fn(&Arc<At>) -> bool) -> Vec<Arc<At>> {
        let stays = |(at, _): &(Arc<At>, usize)| stays(at);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = std::mem::take(&mut recent.versions);
        let (stay, mut gone): (VecDeque<_>, VecDeque<_>) = versions.into_iter().partition(stays);
        recent.bytes = stay.iter().map(|(_, bytes)| bytes).sum();
        recent.versions = stay;
        drop(recent);
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        gone.extend(opened.extract_if(.., |opened| !stays(opened)));
        gone.into_iter().map(|(at, _)| at).collect()
    }

    /// Opens `version`, which is kept and not above that of `newest`.
    pub(crate) fn open(
        &self,
        newest: &Snapshot,
        version: Version,
        versions: &Versions,
    ) -> Result<Snapshot, Error> {
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
        let below = opened.iter().filter(|(at, _)| {
            number(at) == version || number(at) < version && at.tree.holds() < HOLDS_MAX
        });
        let below = below.max_by_key(|(at, _)| number(at)).cloned();
        let (made, bytes) = match below {
            Some((below, bytes)) if number(&below) == version => (below, bytes),
            below => {
                make_room(&mut opened, usize::MAX)?;
                let below = below.as_ref().map(|(below, _)| &**below);
                let (made, bytes) = threads::aside(|| make(newest, below, version, versions))??;
                (Arc::new(made), bytes)
            }
        };
        opened.retain(|(at, _)| number(at) != version);
        make_room(&mut opened, (newest.pages.bytes_max() / OPENED_PART).saturating_sub(bytes))?;
        opened.push((made.clone(), bytes));
        Ok(at(made))
    }
}

/// Closes versions that nobody reads, those that were used longest ago first, until there is a place for another one and
/// all together take so many bytes at most.
fn make_room(opened: &mut Vec<(Arc<At>, usize)>, bytes_max: usize) -> Result<(), Error> {
    while opened.len() >= OPENED_MAX
        || opened.iter().map(|(_, bytes)| bytes).sum::<usize>() > bytes_max
    {
        let idle = opened.iter().position(|(at, _)| Arc::strong_count(at) == 1);
        match idle {
            Some(idle) => drop(opened.remove(idle)),
            None if opened.len() >= OPENED_MAX => return Err(Error::Busy),
            None => break,
        }
    }
    Ok(())
}

/// Makes a version again, from an open version below it or from a flush.
///
/// Gives the bytes of the pages that were made for it, too.
fn make(
    newest: &Snapshot,
    below: Option<&At>,
    version: Version,
    versions: &Versions,
) -> Result<(At, usize), Error> {
    let engine = &*newest.engine;
    let (start, tree, image, _replay) = {
        // Nobody may delete what it is made from, from its choice on.
        let _starting = versions.starting();
        let base = flushes::read_base(engine, version)?;
        let (start, tree, image) = match (below, base) {
            (Some(below), base) if is_nearer(below, base.as_ref(), version, versions) => {
                let image = below.image.as_ref().map(Hold::again);
                (below.header.version(), below.tree.clone(), image)
            }
            (_, Some((flush, bytes))) => {
                let tree = flushes::tree(&newest.pages, (&flush, &bytes))?;
                (flush.version, tree, Some(versions.images.hold(flush.image)))
            }
            // Before the first flush.
            (_, None) => (Version(0), Tree::default(), None),
        };
        (start, tree, image, versions.hold_steps(start, version))
    };
    let (header, tree, bytes) =
        replay(engine, &newest.pages, (start, tree), version, GATHERED_BYTES, |_| {})?;
    let mut at = At::new(header, tree, versions);
    at.image = image;
    Ok((at, bytes))
}

/// Whether it is better to make `version` from the version `below` than from `base`.
fn is_nearer(
    below: &At,
    base: Option<&(Flushed, Bytes)>,
    version: Version,
    versions: &Versions,
) -> bool {
    let below = below.header.version();
    match base {
        None => true,
        Some((flush, _)) if flush.version <= version => below >= flush.version,
        // All changes are there from the horizon on alone.
        Some((flush, _)) => {
            below.0 + 1 >= versions.kept().horizon().0
                && version.0 - below.0 <= flush.version.0 - version.0
        }
    }
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

    #[test]
    fn versions_that_nobody_reads_any_more_take_a_part_of_the_budget_at_most() {
        let key = LogKey::from_secret([7; 32], None).unwrap();
        let options = Options { cache_bytes: 8 << 20, ..Options::default() };
        let store = Store::open(Arc::new(Memory::new()), key, &options).unwrap();
        for version in 1..=300_u64 {
            let keys = (0..3000_u64).filter(|key| version == 1 || key % 300 == version % 300);
            let write = |key: u64| (key.to_string().into(), Some(vec![7; 100].into()));
            store.commit(Commit::new(keys.map(write).collect())).unwrap();
        }
        store.flush().unwrap();
        let unstored = || store.latest().pages.unstored_bytes();
        let before = unstored();
        // Each is made from nothing, in pages of its own.
        for version in (2..40).rev() {
            store.at(Version(version)).unwrap();
            assert!(unstored() - before <= options.cache_bytes / OPENED_PART, "{version}");
        }
        assert!(unstored() > before);
    }
}
