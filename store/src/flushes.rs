//! The flushes there are, and from which of them a version is made.
//!
//! ```text
//! versions    1  2  3  4  5  6  7  8  9
//! flushes           3              8        3 leads to 4 and 5 by their changes; 8 leads back to
//!                   --> -->  <-- <--  -->   7 and 6 by undo, and to 9 by changes
//! ```

use std::ops::Bound::{Excluded, Included};

use anwansi_proofs::Version;
use bytes::Bytes;

use crate::{
    Damage, Error,
    engine::{Direction, Engine, Keyspace, scan_prefix},
    record::{self, FLUSH_PREFIX, decode},
    segments::Image,
    tree::{Pages, Tree},
};

/// A flush in storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flushed {
    pub(crate) version: Version,
    /// The oldest version that undo leads back to: no newer flush has an older one.
    pub(crate) since: Version,
    pub(crate) image: Image,
}

impl Flushed {
    /// The flush of a version, by its record.
    pub(crate) fn read(version: Version, bytes: &[u8]) -> Result<Self, Error> {
        let damage = Damage::Flush(version);
        let record: record::Flush<'_> = decode(bytes, damage)?;
        let since = Version(record.since);
        let flush = Flushed { version, since, image: record.image };
        (since <= version).then_some(flush).ok_or(Error::Damaged(damage))
    }

    fn of_entry((key, bytes): (Bytes, Bytes)) -> Result<(Self, Bytes), Error> {
        Ok((Self::read(version(&key)?, &bytes)?, bytes))
    }
}

/// The version in the key of the record of a flush.
pub(crate) fn version(key: &[u8]) -> Result<Version, Error> {
    // A key of another length is none that was written.
    let version = key.strip_prefix(FLUSH_PREFIX).and_then(|version| version.try_into().ok());
    Ok(Version(u64::from_be_bytes(version.ok_or(Error::Damaged(Damage::Manifest))?)))
}

/// The key of the record of a flush.
pub(crate) fn key(version: Version) -> [u8; 14] {
    let mut key = [0; 14];
    key[..6].copy_from_slice(FLUSH_PREFIX);
    key[6..].copy_from_slice(&version.0.to_be_bytes());
    key
}

/// All flushes, in order.
pub(crate) fn all(engine: &dyn Engine) -> impl Iterator<Item = Result<Flushed, Error>> {
    let flushes = scan_prefix(engine, Keyspace::Meta, FLUSH_PREFIX);
    flushes.map(|entry| Ok(Flushed::of_entry(entry?)?.0))
}

/// The newest flush of a version up to `version`, with its record.
pub(crate) fn newest(
    engine: &dyn Engine,
    version: Version,
) -> Result<Option<(Flushed, Bytes)>, Error> {
    let (first, last) = (key(Version(0)), key(version));
    let mut found =
        engine.scan(Keyspace::Meta, Included(&first), Included(&last), Direction::Descending);
    found.next().map(|entry| Flushed::of_entry(entry?)).transpose()
}

/// From which of all `flushes`, which are in order, `version` is made: by undo if it is older, otherwise by changes.
pub(crate) fn base(flushes: &[Flushed], version: Version) -> Option<&Flushed> {
    flushes[..flushes.partition_point(|flush| flush.since <= version)].last()
}

/// The same, read from storage with its record.
pub(crate) fn read_base(
    engine: &dyn Engine,
    version: Version,
) -> Result<Option<(Flushed, Bytes)>, Error> {
    let (start, end) = (key(version), key(Version(u64::MAX)));
    let newer = engine.scan(Keyspace::Meta, Excluded(&start), Included(&end), Direction::Ascending);
    let mut base = None;
    for entry in newer {
        match Flushed::of_entry(entry?) {
            Ok((flush, bytes)) if flush.since <= version => base = Some((flush, bytes)),
            // One that is damaged leads nowhere; perhaps an older one does.
            Ok(_) | Err(Error::Damaged(_)) => break,
            Err(error) => return Err(error),
        }
    }
    if base.is_some() { Ok(base) } else { newest(engine, version) }
}

/// The tree of a flush, by its record.
pub(crate) fn tree(pages: &Pages, (flush, bytes): (&Flushed, &[u8])) -> Result<Tree, Error> {
    let damage = Damage::Flush(flush.version);
    let record: record::Flush<'_> = decode(bytes, damage)?;
    Tree::stored(pages, &record).ok_or(Error::Damaged(damage))
}
