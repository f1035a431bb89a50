//! The results that a node has pledged or is about to: on disk before anyone hears of them.
//!
//! ```text
//! <directory>/<node>/lock                                     held by the one worker of this node
//! <directory>/<node>/<transition>.<task>.<round>.<opened>     digest of the result, the result
//! ```
//!
//! INVARIANT W1: what a node has pledged at a place is the result in the file of that place. The file is
//! durable before the pledge is sent, and never replaced; so a node that starts again pledges the same, or
//! finds the file damaged and pledges nothing.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anwansi_proofs::{Digest, NodeKey, Place, TransitionId};

use crate::{Error, memory::make_directory};

/// The longest result that is kept and pledged, in bytes: a ledger takes no longer one, and to pledge what
/// cannot be revealed is a fault.
pub const RESULT_BYTES_MAX: usize = 1 << 20;

/// A node's results on disk.
pub(crate) struct Results {
    directory: PathBuf,
    /// Let go when the worker ends, however it does.
    _lock: File,
}

/// A result that is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) digest: Digest,
    pub(crate) result: Vec<u8>,
}

impl Results {
    /// Opens the results of `node` in `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// [`Error::File`], also if another worker has them: two would pledge without hearing of each other.
    pub(crate) fn open(directory: &Path, node: &NodeKey) -> Result<Self, Error> {
        let own = directory.join(node.to_string());
        make_directory(&own)?;
        let path = own.join("lock");
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let lock = lock.map_err(Error::file(&path))?;
        lock.try_lock().map_err(|error| {
            Error::file(&path)(match error {
                fs::TryLockError::WouldBlock => {
                    io::Error::new(io::ErrorKind::WouldBlock, "another worker of this node runs")
                }
                fs::TryLockError::Error(error) => error,
            })
        })?;
        // A new directory is found again after a power cut once those above it are on disk.
        for above in own.ancestors().skip(1).take(2).filter(|path| !path.as_os_str().is_empty()) {
            File::open(above).and_then(|above| above.sync_all()).map_err(Error::file(above))?;
        }
        let results = Results { directory: own, _lock: lock };
        // What was cut off while it was written: nothing was pledged for it.
        for (path, name) in results.files()? {
            if name.is_none() && path.file_name().is_some_and(|name| name != "lock") {
                fs::remove_file(&path).map_err(Error::file(&path))?;
            }
        }
        Ok(results)
    }

    /// The result that was kept for `place`.
    ///
    /// # Errors
    /// [`Error::File`]: also if it is damaged. Then what was pledged is not known any more.
    pub(crate) fn find(&self, place: &Place) -> Result<Option<Kept>, Error> {
        let path = self.path(place);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file(path)(error)),
        };
        let kept = bytes.split_first_chunk().and_then(|(digest, result)| {
            let digest = Digest(*digest);
            (Digest::of(result) == digest).then(|| Kept { digest, result: result.into() })
        });
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the kept result is damaged");
        kept.map(Some).ok_or_else(|| Error::file(path)(damaged()))
    }

    /// Keeps `result` for `place`, durably, and returns what is kept: another result, if one was there.
    ///
    /// # Errors
    /// [`Error::File`]: then nothing may be pledged.
    pub(crate) fn keep(&self, place: &Place, result: Vec<u8>) -> Result<Kept, Error> {
        let kept = Kept { digest: Digest::of(&result), result };
        let path = self.path(place);
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
            file.write_all(&kept.digest.0)?;
            file.write_all(&kept.result)?;
            file.as_file().sync_all()?;
            // A crash here leaves a temporary file, which the next start removes.
            let named = file.persist_noclobber(&path).map_err(|error| error.error);
            let named = named.map(|_| true).or_else(|error| {
                if error.kind() == io::ErrorKind::AlreadyExists { Ok(false) } else { Err(error) }
            })?;
            // A crash here may lose the name: nothing was pledged yet.
            File::open(&self.directory)?.sync_all()?;
            Ok(named)
        };
        if write().map_err(Error::file(&path))? {
            return Ok(kept);
        }
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the kept result is gone");
        self.find(place)?.ok_or_else(|| Error::file(path)(gone()))
    }

    /// The transitions that results are kept of.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(crate) fn transitions(&self) -> Result<BTreeSet<TransitionId>, Error> {
        Ok(self.files()?.into_iter().filter_map(|(_, name)| name).collect())
    }

    /// Removes the results for which `over` says so, and returns how many there were.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(crate) fn remove(
        &self,
        over: impl Fn(&TransitionId, Duration) -> bool,
    ) -> Result<usize, Error> {
        let mut removed = 0;
        for (path, transition) in self.files()? {
            let Some(transition) = transition else { continue };
            let written = fs::metadata(&path).and_then(|metadata| metadata.modified());
            let written = written.map_err(Error::file(&path))?;
            let age = SystemTime::now().duration_since(written).unwrap_or_default();
            if over(&transition, age) {
                fs::remove_file(&path).map_err(Error::file(&path))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn path(&self, place: &Place) -> PathBuf {
        let Place { opened, transition, task, round } = place;
        self.directory.join(format!("{transition}.{task}.{round}.{opened}"))
    }

    /// All files, those of results with their transition.
    fn files(&self) -> Result<Vec<(PathBuf, Option<TransitionId>)>, Error> {
        let read = || -> io::Result<_> {
            let paths = fs::read_dir(&self.directory)?.map(|entry| Ok(entry?.path()));
            paths.collect::<io::Result<Vec<_>>>()
        };
        let transition = |path: &PathBuf| {
            let name = path.file_name()?.to_str()?;
            name.split_once('.')?.0.parse().ok()
        };
        let paths = read().map_err(Error::file(&self.directory))?;
        Ok(paths.into_iter().map(|path| (transition(&path), path)).map(|(id, p)| (p, id)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(transition: u8, task: u32) -> Place {
        let transition = TransitionId(Digest([transition; 32]));
        Place { opened: Digest([1; 32]), transition, task, round: 0 }
    }

    const NODE: NodeKey = NodeKey([5; 32]);

    #[test]
    fn what_is_kept_is_found_again_and_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let results = Results::open(directory.path(), &NODE).unwrap();
        assert_eq!(results.find(&place(1, 0)).unwrap(), None);
        let kept = results.keep(&place(1, 0), b"first".to_vec()).unwrap();
        assert_eq!((kept.digest, &*kept.result), (Digest::of(b"first"), &b"first"[..]));
        assert_eq!(results.keep(&place(1, 0), b"second".to_vec()).unwrap(), kept);
        assert_eq!(results.keep(&place(1, 1), Vec::new()).unwrap().result, b"");
        drop(results);
        let results = Results::open(directory.path(), &NODE).unwrap();
        assert_eq!(results.find(&place(1, 0)).unwrap(), Some(kept));
        for other in [
            Place { opened: Digest([2; 32]), ..place(1, 0) },
            Place { round: 1, ..place(1, 0) },
            place(1, 2),
            place(2, 0),
        ] {
            assert_eq!(results.find(&other).unwrap(), None);
        }
        let other = Results::open(directory.path(), &NodeKey([6; 32])).unwrap();
        assert_eq!(other.find(&place(1, 0)).unwrap(), None);
    }

    #[test]
    fn one_worker_at_a_time_has_a_nodes_results() {
        let directory = tempfile::tempdir().unwrap();
        let results = Results::open(directory.path(), &NODE).unwrap();
        assert!(matches!(Results::open(directory.path(), &NODE), Err(Error::File { .. })));
        drop(results);
        assert!(Results::open(directory.path(), &NODE).is_ok());
    }

    #[test]
    fn a_damaged_result_is_neither_used_nor_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let results = Results::open(directory.path(), &NODE).unwrap();
        let whole = results.keep(&place(1, 0), b"result".to_vec()).unwrap();
        let path = results.path(&place(1, 0));
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            for damaged in [&damaged[..], &bytes[..at]] {
                fs::write(&path, damaged).unwrap();
                assert!(results.find(&place(1, 0)).is_err());
                assert!(results.keep(&place(1, 0), b"other".to_vec()).is_err());
            }
        }
        fs::write(&path, &bytes).unwrap();
        assert_eq!(results.find(&place(1, 0)).unwrap(), Some(whole));
    }

    #[test]
    fn what_was_cut_off_is_swept_away_and_what_is_over_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let results = Results::open(directory.path(), &NODE).unwrap();
        results.keep(&place(1, 0), b"1".to_vec()).unwrap();
        results.keep(&place(2, 0), b"2".to_vec()).unwrap();
        results.keep(&place(2, 1), b"3".to_vec()).unwrap();
        fs::write(results.directory.join(".tmpXYZ"), "half").unwrap();
        drop(results);
        let results = Results::open(directory.path(), &NODE).unwrap();
        assert_eq!(results.files().unwrap().len(), 4, "three results and the lock");
        let ids = results.transitions().unwrap();
        assert_eq!(ids.into_iter().map(|id| id.0.0[0]).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(results.remove(|id, _| id.0.0[0] == 2).unwrap(), 2);
        assert!(results.find(&place(1, 0)).unwrap().is_some());
        assert_eq!(results.find(&place(2, 1)).unwrap(), None);
        assert_eq!(results.remove(|_, age| age > Duration::from_secs(3600)).unwrap(), 0);
    }
}
