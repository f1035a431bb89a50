//! Compares each accepted checkpoint with the remembered one, and remembers the newer.
//!
//! ```text
//! same size, same root                            nothing to do
//! same size, another root                         a fork
//! the newer continues the older, by its tiles     the newer is remembered
//! tiles under the newer root, another beginning   a fork
//! tiles that show neither                         refused; both notes are kept, the memory stays
//! ```

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::PoisonError,
};

use anwansi_proofs::{
    Checkpoint, LogHash,
    log::{TILE_WIDTH, Tile, tree, verify_consistency},
};
use serde_json::json;

use crate::{Client, Error, Fault, memory::Recalled};

/// How often others may move the memory while a checkpoint is being compared with it.
const RACES_MAX: usize = 100;

const TILE_BYTES_MAX: u64 = 32 * TILE_WIDTH as u64;

impl Client {
    /// The newest checkpoint that was ever accepted, by this client or others of the same memory.
    ///
    /// # Errors
    /// [`Error::Forked`] if the log is known to be, and those of the memory.
    pub fn remembered(&self) -> Result<Option<Checkpoint>, Error> {
        let note = match self.memory.recall()? {
            Recalled::Nothing => return Ok(None),
            Recalled::Forked { kept } => return Err(self.forked(kept)),
            Recalled::Checkpoint(note) => note,
        };
        let mut recalled = self.recalled.lock().unwrap_or_else(PoisonError::into_inner);
        if recalled.as_ref().is_none_or(|recalled| recalled.note() != note) {
            *recalled = Some(self.log.verify(&note).map_err(|error| {
                Error::Usage(format!(
                    "what is remembered of the log {} is not signed by the key that is trusted now \
                     ({error}): if the log was replaced on purpose, remove its files from the state \
                     directory",
                    self.policy.origin(),
                ))
            })?);
        }
        Ok(recalled.clone())
    }

    /// Compares an accepted checkpoint with the remembered one, and remembers the newer.
    pub(crate) fn remember(&self, new: &Checkpoint) -> Result<(), Error> {
        for _ in 0..RACES_MAX {
            let Some(old) = self.remembered()? else {
                if self.memory.replace(None, new.note())? {
                    return Ok(());
                }
                continue;
            };
            if old.size() >= new.size() {
                return self.check_continues(new, &old, (&old, new));
            }
            self.check_continues(&old, new, (&old, new))?;
            if self.memory.replace(Some(old.note()), new.note())? {
                return Ok(());
            }
        }
        Err(Error::Usage("the memory is written too often by others: try again".into()))
    }

    /// Checks that the log of `newer` starts with that of `older`, by the server's tiles. `kept` and
    /// `shown` are the same two checkpoints, in the order in which they became known.
    ///
    /// Tiles come from the server, so that they fail to show it proves no fork: that takes tiles which
    /// lead to the newer root and, in front of it, to another root than the older.
    fn check_continues(
        &self,
        older: &Checkpoint,
        newer: &Checkpoint,
        (kept, shown): (&Checkpoint, &Checkpoint),
    ) -> Result<(), Error> {
        let notes = json!({
            "format": "anwansi/fork/v1", "remembered": kept.note(), "shown": shown.note(),
        });
        if older.size() == newer.size() {
            if older.root() == newer.root() {
                return Ok(());
            }
            return Err(self.forked(self.memory.keep_fork(&format!("{notes:#}\n"))?));
        }
        let mut tiles = HashMap::new();
        let mut read = |level, index| self.log_hash(level, index, newer.size(), &mut tiles);
        let (older_size, newer_size) = (older.size(), newer.size());
        let shown_by_tiles = tree::consistency_proof(older_size, newer_size, &mut read)
            .and_then(|proof| Ok((proof, tree::root_at(older_size, &mut read)?)));
        match shown_by_tiles {
            Ok((proof, _)) if newer.continues(older, &proof).is_ok() => return Ok(()),
            Ok((proof, prefix))
                if verify_consistency(older_size, &prefix, newer_size, newer.root(), &proof)
                    .is_ok() =>
            {
                let mut fork = notes;
                let text = |hash: &LogHash| hash.to_string();
                fork["root_of_newer_at_older_size"] = json!(text(&prefix));
                fork["consistency"] = json!(proof.iter().map(text).collect::<Vec<_>>());
                return Err(self.forked(self.memory.keep_fork(&format!("{fork:#}\n"))?));
            }
            Ok(_) | Err(Error::NotProven { .. } | Error::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        let mut doubt = notes;
        doubt["format"] = json!("anwansi/doubt/v1");
        self.memory.keep_doubt(&format!("{doubt:#}\n"))?;
        Err(Fault::NotContinued { remembered: kept.size(), answered: shown.size() }.into())
    }

    /// The hash of a complete subtree, as the server's tiles have it.
    fn log_hash(
        &self,
        level: u8,
        index: u64,
        size: u64,
        tiles: &mut HashMap<Tile, Vec<u8>>,
    ) -> Result<LogHash, Error> {
        let tile = Tile::holding(level, index, size)?;
        let bytes = match tiles.entry(tile) {
            Entry::Occupied(bytes) => bytes.into_mut(),
            Entry::Vacant(place) => place.insert(self.tile(tile)?),
        };
        Ok(tile.hash(bytes, level, index)?)
    }

    fn tile(&self, tile: Tile) -> Result<Vec<u8>, Error> {
        let full = Tile::new(tile.level(), tile.index(), TILE_WIDTH).filter(|full| *full != tile);
        match (self.transport.get(&tile.to_string(), TILE_BYTES_MAX), full) {
            // A log may drop the partial tiles of a full one.
            (Err(Error::Refused(problem)), Some(full)) if problem.status == 404 => {
                let mut bytes = self.transport.get(&full.to_string(), TILE_BYTES_MAX)?.body;
                bytes.truncate(32 * usize::from(tile.width()));
                Ok(bytes)
            }
            (answer, _) => Ok(answer?.body),
        }
    }

    fn forked(&self, kept: String) -> Error {
        Error::Forked { origin: self.policy.origin().into(), kept }
    }
}
