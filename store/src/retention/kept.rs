//! The versions that are kept: all from the horizon on, and some below it.

use std::{
    collections::BTreeMap,
    iter,
    num::NonZeroU64,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use anwansi_proofs::Version;

use super::{Hold, Holds, Retention};
use crate::{
    Damage, Error,
    engine::{Batch, Engine, Keyspace, Writer, scan_prefix},
    record::{self, HORIZON_KEY, Horizon, KEPT_PREFIX, decode, encode},
    segments::Image,
};

/// How many notes are written at once: the writer does nothing else meanwhile.
const NOTED_AT_ONCE: usize = 10_000;

/// Which versions are kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// From this version on all are.
    horizon: Version,
    /// The others, and pinned ones wherever they are: each with whether it is pinned.
    noted: BTreeMap<Version, bool>,
}

impl Kept {
    /// What storage says.
    pub(crate) fn load(engine: &dyn Engine) -> Result<Self, Error> {
        let horizon = match engine.get(Keyspace::Meta, HORIZON_KEY)? {
            Some(bytes) => decode::<Horizon>(&bytes, Damage::Kept)?.version,
            None => 0,
        };
        let mut noted = BTreeMap::new();
        for entry in scan_prefix(engine, Keyspace::Meta, KEPT_PREFIX) {
            let (key, bytes) = entry?;
            let version = key.strip_prefix(KEPT_PREFIX).and_then(|version| version.try_into().ok());
            let version = u64::from_be_bytes(version.ok_or(Error::Damaged(Damage::Kept))?);
            let kept: record::Kept = decode(&bytes, Damage::Kept)?;
            noted.insert(Version(version), kept.is_pinned);
        }
        Ok(Kept { horizon: Version(horizon), noted })
    }

    pub(crate) fn horizon(&self) -> Version {
        self.horizon
    }

    pub(crate) fn has(&self, version: Version) -> bool {
        version >= self.horizon || self.noted.contains_key(&version)
    }

    /// The oldest version that is kept.
    pub(crate) fn oldest(&self) -> Version {
        self.below_horizon().next().unwrap_or(self.horizon)
    }

    /// The newest version that is kept, of those up to this one.
    pub(crate) fn newest_until(&self, version: Version) -> Option<Version> {
        if version >= self.horizon {
            return Some(version);
        }
        self.noted.range(..=version).next_back().map(|(version, _)| *version)
    }

    /// Those below the horizon, in order.
    pub(crate) fn below_horizon(&self) -> impl Iterator<Item = Version> + '_ {
        self.noted.range(..self.horizon).map(|(version, _)| *version)
    }

    fn pins(&self) -> impl Iterator<Item = Version> + '_ {
        self.noted.iter().filter(|(_, is_pinned)| **is_pinned).map(|(version, _)| *version)
    }

    /// What is kept by `retention` if `newest` is the newest version; and how many versions are not any more.
    fn by(&self, retention: &Retention, newest: Version) -> (Self, u64) {
        let first = match retention.every {
            // Then all are, and need no notes.
            Some(NonZeroU64::MIN) => Version(0),
            _ => Version((newest.0 + 1).saturating_sub(retention.last.get())),
        };
        let mut next = Kept { horizon: first.max(self.horizon), noted: self.noted.clone() };
        if let Some(every) = retention.every {
            let first = self.horizon.0.checked_next_multiple_of(every.get());
            let multiples = iter::successors(first, |version| version.checked_add(every.get()));
            for version in multiples.take_while(|version| *version < next.horizon.0) {
                next.noted.entry(Version(version)).or_insert(false);
            }
        }
        let is_multiple = |version: &Version| {
            retention.every.is_some_and(|every| version.0.is_multiple_of(every.get()))
        };
        let horizon = next.horizon;
        next.noted.retain(|version, is_pinned| {
            *is_pinned || *version < horizon && (*version >= first || is_multiple(version))
        });
        let count = |kept: &Kept| kept.below_horizon().count() as u64 + newest.0 - kept.horizon.0;
        let dropped = count(self) - count(&next);
        (next, dropped)
    }

    /// What has to be written for storage to say so, where it said `before`: first what is kept, last the horizon, then
    /// what is not kept. After each of them storage says something that loses nothing.
    fn changes_since(&self, before: &Kept) -> Vec<Batch> {
        let mut batches = vec![Batch::new()];
        let mut change = |key: Vec<u8>, value: Option<Vec<u8>>| {
            if batches.last().is_none_or(|batch| batch.operations().len() >= NOTED_AT_ONCE) {
                batches.push(Batch::new());
            }
            let batch = batches.last_mut().expect("there is one");
            match value {
                Some(value) => batch.put(Keyspace::Meta, key, value),
                None => batch.delete(Keyspace::Meta, key),
            }
        };
        for (version, is_pinned) in &self.noted {
            if before.noted.get(version) != Some(is_pinned) {
                let kept = record::Kept { is_pinned: *is_pinned };
                change(key(*version), Some(encode(&kept)));
            }
        }
        if self.horizon != before.horizon {
            let horizon = Horizon { version: self.horizon.0 };
            change(HORIZON_KEY.to_vec(), Some(encode(&horizon)));
        }
        for version in before.noted.keys().filter(|version| !self.noted.contains_key(version)) {
            change(key(*version), None);
        }
        batches.retain(|batch| !batch.is_empty());
        batches
    }
}

fn key(version: Version) -> Vec<u8> {
    [KEPT_PREFIX, &version.0.to_be_bytes()].concat()
}

/// The versions of a store: which are kept, and which somebody has open.
#[derive(Debug)]
pub(crate) struct Versions {
    kept: RwLock<Arc<Kept>>,
    /// Held while something else becomes kept.
    deciding: Mutex<()>,
    /// Who reads: of these versions all values are needed.
    pub(crate) readers: Arc<Holds<Version>>,
    /// Who is about to read what a version consists of.
    pub(crate) openers: Arc<Holds<Version>>,
    /// Held while it is chosen from which flush a version is made, and by whoever deletes flushes.
    starting: Mutex<()>,
    /// Who applies changes, or undo: of which versions, the first and the last.
    pub(crate) changes: Arc<Holds<(Version, Version)>>,
    pub(crate) undo: Arc<Holds<(Version, Version)>>,
    /// From which images in storage versions that were opened again are read.
    pub(crate) images: Arc<Holds<Image>>,
}

impl Versions {
    pub(crate) fn load(engine: &dyn Engine) -> Result<Self, Error> {
        let kept = RwLock::new(Arc::new(Kept::load(engine)?));
        let (deciding, readers, openers, starting, changes, undo, images) = <_>::default();
        Ok(Versions { kept, deciding, readers, openers, starting, changes, undo, images })
    }

    pub(crate) fn kept(&self) -> Arc<Kept> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets what `version` consists of stay while it is being opened, if it is kept and not above `newest`.
    pub(crate) fn open(&self, version: Version, newest: Version) -> Result<Hold<Version>, Error> {
        if version > newest {
            return Err(Error::NoSuchVersion { version, newest });
        }
        // Before it is asked whether it is kept: whoever frees something asks in the other order.
        let hold = self.openers.hold(version);
        let kept = self.kept();
        let oldest = kept.oldest();
        if kept.has(version) { Ok(hold) } else { Err(Error::Pruned { version, oldest }) }
    }

    fn deciding(&self) -> MutexGuard<'_, ()> {
        self.deciding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets nobody delete flushes.
    pub(crate) fn starting(&self) -> MutexGuard<'_, ()> {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets stay what leads from one version to another.
    pub(crate) fn hold_steps(&self, from: Version, to: Version) -> Hold<(Version, Version)> {
        if from <= to {
            self.changes.hold((Version(from.0 + 1), to))
        } else {
            self.undo.hold((Version(to.0 + 1), from))
        }
    }

    /// Makes `next` what is kept, once that is durable; `deciding` is held meanwhile.
    fn decide(&self, next: Kept, writer: &Writer) -> Result<(), Error> {
        for batch in next.changes_since(&self.kept()) {
            writer.write(batch).wait()?;
        }
        // A crash before leaves what was kept; one behind it leaves more than is kept, which is freed later.
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(())
    }

    /// Keeps what `retention` says, and gives how many versions are not kept any more.
    pub(crate) fn retain(
        &self,
        retention: &Retention,
        newest: Version,
        writer: &Writer,
    ) -> Result<u64, Error> {
        let _deciding = self.deciding();
        let (next, dropped) = self.kept().by(retention, newest);
        self.decide(next, writer)?;
        Ok(dropped)
    }

    /// Keeps a version until it is unpinned.
    pub(crate) fn pin(&self, version: Version, writer: &Writer) -> Result<(), Error> {
        let _deciding = self.deciding();
        let kept = self.kept();
        if !kept.has(version) {
            return Err(Error::Pruned { version, oldest: kept.oldest() });
        }
        let mut next = Kept::clone(&kept);
        next.noted.insert(version, true);
        self.decide(next, writer)
    }

    /// Keeps a version no longer than any other; false if it was not pinned.
    pub(crate) fn unpin(&self, version: Version, writer: &Writer) -> Result<bool, Error> {
        let _deciding = self.deciding();
        let mut next = Kept::clone(&self.kept());
        match next.noted.get_mut(&version) {
            Some(is_pinned) if *is_pinned => *is_pinned = false,
            _ => return Ok(false),
        }
        self.decide(next, writer)?;
        Ok(true)
    }

    /// The versions that are pinned, in order.
    pub(crate) fn pins(&self) -> Vec<Version> {
        self.kept().pins().collect()
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::engine::Memory;

    #[test]
    fn what_is_kept_is_what_the_rule_says_and_what_storage_says() {
        let mut rng = Rng::with_seed(5);
        for _ in 0..200 {
            let engine: Arc<dyn Engine> = Arc::new(Memory::new());
            let writer = Writer::new(engine.clone()).unwrap();
            let versions = Versions::load(&*engine).unwrap();
            // The versions there are, and those of them that are pinned.
            let (mut model, mut pins) = (std::collections::BTreeSet::from([0]), Vec::new());
            let mut newest = 0;
            for _ in 0..30 {
                match rng.u8(..4) {
                    0 => {
                        let more = rng.u64(1..20);
                        model.extend(newest + 1..=newest + more);
                        newest += more;
                    }
                    1 => {
                        let version = rng.u64(..=newest);
                        let pinned = versions.pin(Version(version), &writer);
                        assert_eq!(pinned.is_ok(), model.contains(&version));
                        if pinned.is_ok() {
                            pins.push(version);
                        } else {
                            assert!(matches!(pinned, Err(Error::Pruned { .. })));
                        }
                    }
                    2 => {
                        let version = rng.u64(..=newest);
                        let was = versions.unpin(Version(version), &writer).unwrap();
                        assert_eq!(was, pins.contains(&version));
                        pins.retain(|pin| *pin != version);
                    }
                    _ => {
                        let last = NonZeroU64::new(rng.u64(1..12)).unwrap();
                        let every = NonZeroU64::new(rng.u64(..9));
                        let retention = Retention { last, every };
                        let before = model.len() as u64;
                        model.retain(|version| {
                            version + last.get() > newest
                                || pins.contains(version)
                                || every.is_some_and(|every| version % every.get() == 0)
                        });
                        let dropped =
                            versions.retain(&retention, Version(newest), &writer).unwrap();
                        assert_eq!(dropped, before - model.len() as u64);
                    }
                }
                let reloaded = Kept::load(&*engine).unwrap();
                for kept in [&*versions.kept(), &reloaded] {
                    let has = (0..=newest).filter(|version| kept.has(Version(*version)));
                    assert!(has.eq(model.iter().copied()));
                    assert_eq!(kept.oldest().0, *model.first().unwrap());
                    let mut pins = pins.clone();
                    pins.sort_unstable();
                    pins.dedup();
                    assert!(kept.pins().map(|pin| pin.0).eq(pins));
                    let until = rng.u64(..=newest);
                    let expected = model.range(..=until).next_back().copied();
                    assert_eq!(kept.newest_until(Version(until)).map(|it| it.0), expected);
                }
            }
        }
    }
}
