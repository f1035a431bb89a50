//! Entry bundles: the log's entries, 256 in a file.
//!
//! ```text
//! tile/entries/<N>[.p/<W>]   entries from N * 256 on, as many as the tile of level 0 has hashes
//! each entry: length, two bytes, big endian || entry
//! ```

use alloc::vec::Vec;
use core::{fmt, str::FromStr};

use super::tile::{Tile, guess_place, read_path, write_place};
use crate::{Error, Format};

/// The longest entry a bundle can hold.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

const LENGTH_BYTES: usize = 2;

/// Names a bundle of entries. `Display` and `FromStr` are its path, `tile/entries/000.p/7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bundle {
    index: u64,
    width: u16,
}

impl Bundle {
    /// The bundle of the first `width` entries from `index * 256` on.
    /// `None` if no log of at most 2^53 - 1 entries has such a bundle.
    #[must_use]
    pub fn new(index: u64, width: u16) -> Option<Self> {
        Tile::new(0, index, width).map(|_| Bundle { index, width })
    }

    /// The bundle with the entry at `entry`, as wide as it is in a log of `size` entries.
    ///
    /// # Errors
    /// [`Error::NotInLog`] if `entry` is not below `size`, or the log is longer than logs are.
    pub fn holding(entry: u64, size: u64) -> Result<Self, Error> {
        let tile = Tile::holding(0, entry, size)?;
        Ok(Bundle { index: tile.index(), width: tile.width() })
    }

    /// Writes the bundle's entries.
    ///
    /// # Errors
    /// [`Error::Malformed`] at the byte where an entry would stand that is over
    /// [`ENTRY_BYTES_MAX`], missing, or more than the bundle has.
    pub fn encode<T: AsRef<[u8]>>(&self, entries: &[T]) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let refused =
            |bytes: &Vec<u8>| Error::Malformed { format: Format::Bundle, at: bytes.len() };
        for entry in entries.iter().take(self.width.into()) {
            let entry = entry.as_ref();
            let len = u16::try_from(entry.len()).map_err(|_| refused(&bytes))?;
            bytes.extend(len.to_be_bytes());
            bytes.extend(entry);
        }
        if entries.len() == usize::from(self.width) { Ok(bytes) } else { Err(refused(&bytes)) }
    }

    /// Reads the bundle's entries, as many as it is wide. They are claims until each is shown to be
    /// in the log.
    ///
    /// # Errors
    /// [`Error::Malformed`] at the entry that is cut off, or at the first byte after the last one.
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, Error> {
        let mut entries = Vec::with_capacity(self.width.into());
        let mut rest = bytes;
        for _ in 0..self.width {
            let at = bytes.len() - rest.len();
            let cut = Error::Malformed { format: Format::Bundle, at };
            let (len, after) = rest.split_first_chunk::<LENGTH_BYTES>().ok_or(cut)?;
            let len = usize::from(u16::from_be_bytes(*len));
            let (entry, after) = after.split_at_checked(len).ok_or(cut)?;
            entries.push(entry);
            rest = after;
        }
        let at = bytes.len() - rest.len();
        let trailing = Error::Malformed { format: Format::Bundle, at };
        if rest.is_empty() { Ok(entries) } else { Err(trailing) }
    }

    /// The index among the bundles.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The number of entries, 1 to 256.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }
}

const _: () = assert!(ENTRY_BYTES_MAX >> (8 * LENGTH_BYTES) == 0);

impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tile/entries/")?;
        write_place(f, self.index, self.width)
    }
}

impl FromStr for Bundle {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        read_path(text, Format::Bundle, |text| {
            let (index, width) = guess_place(text.strip_prefix("tile/entries/")?)?;
            Bundle::new(index, width)
        })
    }
}
