//! Tiles: where the log's hashes are, and how they are read from there.
//!
//! A tile of level L holds up to 256 hashes of the tree's level 8 L, each of a complete subtree; the
//! tree's levels between are hashed anew by who reads it. Source: C2SP tlog-tiles.
//!
//! ```text
//! tile/<L>/<N>         256 hashes: from N * 256 on, of subtrees of 256^L entries each
//! tile/<L>/<N>.p/<W>   the first W of them, 1 to 255, in a log that has no more yet
//! N = 1234067 is written x001/x234/067
//! ```

use core::{fmt, str::FromStr};

use alloc::string::ToString;

use super::LogHash;
use crate::{Error, Format, text::DECIMAL_MAX};

/// The most hashes in a tile, and entries in a bundle.
pub const TILE_WIDTH: u16 = 256;

/// The highest level with a tile: 256^6 entries are fewer than 2^53, 256^7 are more.
pub const TILE_LEVEL_MAX: u8 = 6;

/// Levels of the tree from one level of tiles to the next.
const HEIGHT: u8 = 8;

const HASH_BYTES: usize = 32;

/// The longest path is that of a partial bundle with five parts to its index.
const PATH_BYTES_MAX: usize = "tile/entries/x000/x000/x000/x000/000.p/255".len();

/// Names a tile of hashes. `Display` and `FromStr` are its path, `tile/0/x001/x234/067.p/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

impl Tile {
    /// The tile with the first `width` hashes from `index * 256` on, of level `level`.
    /// `None` if no log of at most 2^53 - 1 entries has such a tile.
    #[must_use]
    pub fn new(level: u8, index: u64, width: u16) -> Option<Self> {
        if level > TILE_LEVEL_MAX || !(1..=TILE_WIDTH).contains(&width) {
            return None;
        }
        let hashes = index.checked_mul(TILE_WIDTH.into())?.checked_add(width.into())?;
        let held = hashes <= DECIMAL_MAX >> (HEIGHT * level);
        held.then_some(Tile { level, index, width })
    }

    /// The tile from which the hash of the complete subtree (`level`, `index`) of the tree can be
    /// read, as wide as it is in a log of `size` entries.
    ///
    /// # Errors
    /// [`Error::NotInLog`] for the subtree's last entry, if the subtree is not complete in that log
    /// or the log is longer than logs are.
    pub fn holding(level: u8, index: u64, size: u64) -> Result<Self, Error> {
        let complete = size.checked_shr(level.into()).is_some_and(|complete| index < complete);
        if !complete || size > DECIMAL_MAX {
            let first = index.checked_shl(level.into()).filter(|first| first >> level == index);
            let last = first.map_or(u64::MAX, |first| first | ((1 << level) - 1));
            return Err(Error::NotInLog { index: last, size });
        }
        let tile_level = level / HEIGHT;
        let tile_index = (index << (level % HEIGHT)) / u64::from(TILE_WIDTH);
        let hashes = (size >> (HEIGHT * tile_level)) - tile_index * u64::from(TILE_WIDTH);
        let width = u16::try_from(hashes).map_or(TILE_WIDTH, |hashes| hashes.min(TILE_WIDTH));
        Ok(Tile { level: tile_level, index: tile_index, width })
    }

    /// The hash of the complete subtree (`level`, `index`) of the tree, from the tile's `bytes`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `bytes` are not as many hashes as the tile is wide, or the subtree is
    /// not within this tile ([`Tile::holding`] names the one it is in).
    /// # Cost
    /// A hash for each node within the subtree down to the tile's hashes: none to 127.
    pub fn hash(&self, bytes: &[u8], level: u8, index: u64) -> Result<LogHash, Error> {
        let refused = |at| Error::Malformed { format: Format::Tile, at };
        let bytes_wanted = usize::from(self.width) * HASH_BYTES;
        if bytes.len() != bytes_wanted {
            return Err(refused(bytes.len().min(bytes_wanted)));
        }
        let held = self.held(level, index).ok_or(refused(bytes.len()))?;
        let (hashes, _) = bytes.as_chunks::<HASH_BYTES>();
        let mut row = [LogHash([0; HASH_BYTES]); TILE_WIDTH as usize / 2];
        let mut count = held.len();
        for (hash, bytes) in row.iter_mut().zip(&hashes[held]) {
            *hash = LogHash(*bytes);
        }
        while count > 1 {
            count /= 2;
            for i in 0..count {
                row[i] = LogHash::node(&row[2 * i], &row[2 * i + 1]);
            }
        }
        Ok(row[0])
    }

    /// The level among tiles, not that of the tree.
    #[must_use]
    pub fn level(&self) -> u8 {
        self.level
    }

    /// The index among the tiles of the level.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The number of hashes, 1 to 256.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Which of the tile's hashes the subtree spans: a power of two of them, at most 128.
    fn held(&self, level: u8, index: u64) -> Option<core::ops::Range<usize>> {
        let height = level.checked_sub(HEIGHT * self.level).filter(|height| *height < HEIGHT)?;
        let count = 1_u64 << height;
        let first = index.checked_mul(count)?;
        let start = first.checked_sub(self.index * u64::from(TILE_WIDTH))?;
        let end = start.checked_add(count).filter(|end| *end <= self.width.into())?;
        Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }
}

/// Writes `<N>[.p/<W>]`.
pub(super) fn write_place(f: &mut fmt::Formatter<'_>, index: u64, width: u16) -> fmt::Result {
    const GROUP: u64 = 1000;
    let mut unit = 1;
    while index / unit >= GROUP {
        unit *= GROUP;
    }
    while unit > 1 {
        write!(f, "x{:03}/", index / unit % GROUP)?;
        unit /= GROUP;
    }
    write!(f, "{:03}", index % GROUP)?;
    if width < TILE_WIDTH { write!(f, ".p/{width}") } else { Ok(()) }
}

/// Reads the path of `T`, of which `guess` makes something of any text: only what is written just
/// so is accepted.
pub(super) fn read_path<T: fmt::Display>(
    text: &str,
    format: Format,
    guess: impl Fn(&str) -> Option<T>,
) -> Result<T, Error> {
    let refused = |at| Error::Malformed { format, at };
    if text.len() > PATH_BYTES_MAX {
        return Err(refused(PATH_BYTES_MAX));
    }
    let named = guess(text).ok_or(refused(0))?;
    let written = named.to_string();
    let same = text.bytes().zip(written.bytes()).take_while(|(a, b)| a == b).count();
    if text == written { Ok(named) } else { Err(refused(same)) }
}

/// Reads `<N>[.p/<W>]`, and some texts that [`write_place`] never writes.
pub(super) fn guess_place(text: &str) -> Option<(u64, u16)> {
    let (index, width) = match text.split_once(".p/") {
        Some((index, width)) => (index, width.parse().ok().filter(|width| *width < TILE_WIDTH)?),
        None => (text, TILE_WIDTH),
    };
    let digits = index.bytes().filter(u8::is_ascii_digit);
    let index = digits.into_iter().try_fold(0_u64, |index, digit| {
        index.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })?;
    Some((index, width))
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/", self.level)?;
        write_place(f, self.index, self.width)
    }
}

impl FromStr for Tile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        read_path(text, Format::Tile, |text| {
            let (level, place) = text.strip_prefix("tile/")?.split_once('/')?;
            let (index, width) = guess_place(place)?;
            Tile::new(level.parse().ok()?, index, width)
        })
    }
}
