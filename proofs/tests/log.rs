//! Goal: the log's roots, proofs, tiles and bundles are those of RFC 6962 and C2SP tlog-tiles, and
//! nothing else is accepted.
//!
//! Method: a slow recursive reference, written from the RFC's definitions, for every size up to 300
//! and every pair within; the vector; logs of equal entries for sizes no test could hold; lies of each
//! kind against every honest proof; random input from fixed seeds.
#![allow(clippy::unwrap_used)]

use std::{cell::RefCell, collections::HashMap};

use anwansi_proofs::{
    Bundle, DECIMAL_MAX, Error, Format, LogHash, Tile,
    log::{ENTRY_BYTES_MAX, SIBLINGS_MAX, tree, verify_consistency, verify_inclusion},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

const SIZE_MAX: u64 = 300;

/// RFC 6962, section 2.1, as it is written there. Entry i is the decimal of i.
#[derive(Default)]
struct Reference {
    hashes: RefCell<HashMap<(u64, u64), LogHash>>,
}

impl Reference {
    fn entry(index: u64) -> Vec<u8> {
        index.to_string().into_bytes()
    }

    /// MTH(D[from:to]).
    fn hash(&self, from: u64, to: u64) -> LogHash {
        if let Some(known) = self.hashes.borrow().get(&(from, to)) {
            return *known;
        }
        let bytes = match to - from {
            0 => vec![],
            1 => [vec![0], Self::entry(from)].concat(),
            count => {
                let split = from + Self::split(count);
                let (left, right) = (self.hash(from, split), self.hash(split, to));
                [&[1][..], &left.0, &right.0].concat()
            }
        };
        let hash = LogHash(Sha256::digest(bytes).into());
        self.hashes.borrow_mut().insert((from, to), hash);
        hash
    }

    fn root(&self, size: u64) -> LogHash {
        self.hash(0, size)
    }

    /// PATH(m, D[from:to]), m counted from `from`.
    fn path(&self, index: u64, from: u64, to: u64) -> Vec<LogHash> {
        if to - from == 1 {
            return vec![];
        }
        let split = Self::split(to - from);
        let (mut path, sibling) = if index < split {
            (self.path(index, from, from + split), self.hash(from + split, to))
        } else {
            (self.path(index - split, from + split, to), self.hash(from, from + split))
        };
        path.push(sibling);
        path
    }

    /// SUBPROOF(m, D[from:to], whole), m counted from `from`.
    fn subproof(&self, older: u64, from: u64, to: u64, whole: bool) -> Vec<LogHash> {
        if older == to - from {
            return if whole { vec![] } else { vec![self.hash(from, to)] };
        }
        let split = Self::split(to - from);
        let (mut proof, sibling) = if older <= split {
            (self.subproof(older, from, from + split, whole), self.hash(from + split, to))
        } else {
            let right = self.subproof(older - split, from + split, to, false);
            (right, self.hash(from, from + split))
        };
        proof.push(sibling);
        proof
    }

    fn consistency(&self, older: u64, newer: u64) -> Vec<LogHash> {
        if older == 0 { vec![] } else { self.subproof(older, 0, newer, true) }
    }

    /// The largest power of two below `count`.
    fn split(count: u64) -> u64 {
        let mut split = 1;
        while split * 2 < count {
            split *= 2;
        }
        split
    }

    /// A reader of complete subtrees that gives none beyond `size`.
    fn reader(&self, size: u64) -> impl FnMut(u8, u64) -> Result<LogHash, Error> {
        move |level, index| {
            assert!((index + 1) << level <= size, "({level}, {index}) is not complete in {size}");
            Ok(self.hash(index << level, (index + 1) << level))
        }
    }
}

fn hex(text: &Value) -> LogHash {
    let bytes = hex::decode(text.as_str().unwrap()).unwrap();
    LogHash(bytes.try_into().unwrap())
}

#[test]
fn the_vector_has_our_roots_and_consistency_proofs() {
    let vector: Value = serde_json::from_str(include_str!("../vectors/log.json")).unwrap();
    let headers: Vec<&str> =
        vector["headers"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let roots: Vec<LogHash> =
        vector["log_roots_by_size"].as_array().unwrap().iter().map(hex).collect();
    assert_eq!(roots.len(), headers.len() + 1);
    let read = |level: u8, index: u64| {
        let mut row: Vec<LogHash> = (index << level..(index + 1) << level)
            .map(|i| LogHash::leaf(headers[usize::try_from(i).unwrap()].as_bytes()))
            .collect();
        while row.len() > 1 {
            row = row.chunks(2).map(|pair| LogHash::node(&pair[0], &pair[1])).collect();
        }
        Ok::<_, Error>(row[0])
    };
    for (size, root) in (0..).zip(&roots) {
        assert_eq!(tree::root_at(size, read), Ok(*root));
    }
    for step in vector["consistency"].as_array().unwrap() {
        let [older, newer] = ["from", "to"].map(|name| step[name].as_u64().unwrap());
        let proof: Vec<LogHash> = step["proof"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hash| hash.as_str().unwrap().parse().unwrap())
            .collect();
        assert_eq!(tree::consistency_proof(older, newer, read).as_ref(), Ok(&proof));
        let [from, to] = [older, newer].map(|size| &roots[usize::try_from(size).unwrap()]);
        assert_eq!(verify_consistency(older, from, newer, to, &proof), Ok(()));
    }
}

/// Which hash of a proof to lie about: up to size 70 each, beyond one that changes from pair to pair.
fn lied_at(len: usize, a: u64, b: u64) -> Vec<usize> {
    let one = usize::try_from(a + b).unwrap().checked_rem(len);
    if b <= 70 { (0..len).collect() } else { one.into_iter().collect() }
}

#[test]
fn every_inclusion_up_to_300_is_the_reference_and_its_lies_are_refused() {
    let reference = Reference::default();
    let other = LogHash([7; 32]);
    for size in 0..=SIZE_MAX {
        let root = reference.root(size);
        let longer = reference.root(size + 1);
        assert_eq!(tree::root_at(size, reference.reader(size)), Ok(root));
        let outside = Err(Error::NotInLog { index: size, size });
        assert_eq!(tree::inclusion_proof(size, size, reference.reader(size)), outside);
        for index in 0..size {
            let refused = |index, size| Err(Error::NotInLog { index, size });
            let leaf = LogHash::leaf(&Reference::entry(index));
            let path = tree::inclusion_proof(index, size, reference.reader(size)).unwrap();
            assert_eq!(path, reference.path(index, 0, size));
            assert_eq!(verify_inclusion(index, size, &leaf, &path, &root), Ok(()));

            for wrong in [index + 1, index ^ 1, index.wrapping_sub(1), size, u64::MAX] {
                let lie = verify_inclusion(wrong, size, &leaf, &path, &root);
                assert_eq!(lie, refused(wrong, size));
            }
            // Under the other size's root; a path alone does not say how long its log is.
            let lie = verify_inclusion(index, size + 1, &leaf, &path, &longer);
            assert_eq!(lie, refused(index, size + 1));
            assert_eq!(verify_inclusion(index, 0, &leaf, &path, &root), refused(index, 0));
            assert_eq!(verify_inclusion(index, size, &other, &path, &root), refused(index, size));
            let added = [&path[..], &[other]].concat();
            let before = [&[other], &path[..]].concat();
            let mut lies = vec![added, before];
            for at in lied_at(path.len(), index, size) {
                let (mut dropped, mut changed) = (path.clone(), path.clone());
                dropped.remove(at);
                changed[at].0[at] ^= 1;
                lies.extend([dropped, changed]);
            }
            for lie in lies {
                assert_eq!(verify_inclusion(index, size, &leaf, &lie, &root), refused(index, size));
            }
        }
    }
}

#[test]
fn every_consistency_up_to_300_is_the_reference_and_its_lies_are_refused() {
    let reference = Reference::default();
    let other = LogHash([7; 32]);
    for newer in 0..=SIZE_MAX {
        let to = reference.root(newer);
        for older in 0..=newer {
            let refused = Err(Error::Inconsistent { older, newer });
            let from = reference.root(older);
            let proof = tree::consistency_proof(older, newer, reference.reader(newer)).unwrap();
            assert_eq!(proof, reference.consistency(older, newer));
            assert_eq!(verify_consistency(older, &from, newer, &to, &proof), Ok(()));

            assert_eq!(verify_consistency(older, &other, newer, &to, &proof), refused);
            // From nothing, any newer root follows; it is a root only under its checkpoint.
            let forked = verify_consistency(older, &from, newer, &other, &proof);
            assert_eq!(forked, if older == 0 && newer > 0 { Ok(()) } else { refused });
            let mut lies = vec![[&proof[..], &[other]].concat(), [&[other], &proof[..]].concat()];
            for at in lied_at(proof.len(), older, newer) {
                let (mut dropped, mut changed) = (proof.clone(), proof.clone());
                dropped.remove(at);
                changed[at].0[at] ^= 1;
                lies.extend([dropped, changed]);
            }
            for lie in lies {
                assert_eq!(verify_consistency(older, &from, newer, &to, &lie), refused);
            }
            if older < newer {
                let backward = Err(Error::Inconsistent { older: newer, newer: older });
                assert_eq!(verify_consistency(newer, &to, older, &from, &proof), backward);
                let made = tree::consistency_proof(newer, older, reference.reader(newer));
                assert_eq!(made.map(|_| ()), backward);
            }
        }
    }
}

#[test]
fn a_root_kept_under_a_larger_size_is_refused() {
    let reference = Reference::default();
    for older in [1, 2, 4, 256] {
        let root = reference.root(older);
        for newer in [older + 1, 2 * older, 4 * older, u64::MAX] {
            let refused = Err(Error::Inconsistent { older, newer });
            assert_eq!(verify_consistency(older, &root, newer, &root, &[]), refused);
        }
    }
}

/// Hashes of complete subtrees of a log in which every entry is empty, by level.
fn of_equal_entries() -> Vec<LogHash> {
    let below = |hash: &LogHash| Some(LogHash::node(hash, hash));
    std::iter::successors(Some(LogHash::leaf(b"")), below).take(64).collect()
}

#[test]
fn logs_of_any_size_are_shown_up_to_63_siblings() {
    let hashes = of_equal_entries();
    let read = |level: u8, _| Ok::<_, Error>(hashes[usize::from(level)]);
    let mut sizes = vec![DECIMAL_MAX - 1, DECIMAL_MAX, u64::MAX - 1, u64::MAX];
    for bit in [1, 2, 3, 7, 8, 9, 16, 31, 32, 33, 52, 53, 54, 62, 63] {
        sizes.extend([(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
    }
    for &size in &sizes {
        let root = tree::root_at(size, read).unwrap();
        let indices = [0, 1, size / 3, size / 2, size.saturating_sub(2), size - 1];
        for index in indices.into_iter().filter(|index| *index < size) {
            let path = tree::inclusion_proof(index, size, read).unwrap();
            let shown = verify_inclusion(index, size, &hashes[0], &path, &root);
            assert_eq!(shown.is_ok(), path.len() <= SIBLINGS_MAX, "{index} of {size}");
        }
        for &older in sizes.iter().filter(|older| **older <= size) {
            let from = tree::root_at(older, read).unwrap();
            let proof = tree::consistency_proof(older, size, read).unwrap();
            let shown = verify_consistency(older, &from, size, &root, &proof);
            assert_eq!(shown.is_ok(), proof.len() <= SIBLINGS_MAX, "{older} to {size}");
        }
    }
}

#[test]
fn random_proofs_are_refused_without_a_panic() {
    let seed = 0x10_6001;
    println!("seed {seed:#x}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..20_000 {
        let bits = random.u32(0..64);
        let (a, b) = (random.u64(..) >> bits, random.u64(..) >> random.u32(0..64));
        let count = random.usize(0..=SIBLINGS_MAX + 1);
        let hashes: Vec<LogHash> = (0..count).map(|i| LogHash([i.to_le_bytes()[0]; 32])).collect();
        let (from, to) = (LogHash([1; 32]), LogHash([2; 32]));
        assert!(verify_inclusion(a, b, &from, &hashes, &to).is_err());
        assert!(verify_consistency(a, &from, b, &to, &hashes).is_err());
    }
}

#[test]
fn a_log_hash_has_one_text() {
    let text = LogHash::empty().to_string();
    assert_eq!(text, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    assert_eq!(text.parse(), Ok(LogHash::empty()));
    for lie in ["", "47DE", &text[1..], &format!("{text}="), &text.replace("U=", "V=")] {
        assert!(lie.parse::<LogHash>().is_err(), "{lie}");
    }
    assert!(text.replace('+', "-").replace('/', "_").parse::<LogHash>().is_err());
}

#[test]
fn tile_paths_are_written_one_way() {
    let paths = [
        (0, 0, 256, "tile/0/000"),
        (0, 1, 1, "tile/0/001.p/1"),
        (1, 255, 255, "tile/1/255.p/255"),
        (2, 256, 17, "tile/2/256.p/17"),
        (0, 999, 256, "tile/0/999"),
        (3, 1000, 256, "tile/3/x001/000"),
        (0, 1_234_067, 8, "tile/0/x001/x234/067.p/8"),
        (0, DECIMAL_MAX >> 8, 255, "tile/0/x035/x184/x372/x088/831.p/255"),
        (6, 0, 31, "tile/6/000.p/31"),
    ];
    for (level, index, width, path) in paths {
        let tile = Tile::new(level, index, width).unwrap();
        assert_eq!(tile.to_string(), path);
        assert_eq!(path.parse(), Ok(tile));
        assert_eq!((tile.level(), tile.index(), tile.width()), (level, index, width));
        if level == 0 {
            let bundle = Bundle::new(index, width).unwrap();
            let path = path.replace("tile/0/", "tile/entries/");
            assert_eq!(bundle.to_string(), path);
            assert_eq!(path.parse(), Ok(bundle));
            assert!(path.parse::<Tile>().is_err());
        }
        assert!(path.parse::<Bundle>().is_err());
        // A changed character names another tile, or none; no two paths name one.
        for at in 0..path.len() {
            for byte in 0..=u8::MAX {
                let mut changed = path.as_bytes().to_vec();
                changed[at] = byte;
                let Ok(changed) = String::from_utf8(changed) else { continue };
                if let Ok(named) = changed.parse::<Tile>() {
                    assert_eq!(named.to_string(), changed);
                    assert_eq!(named == tile, changed == path);
                }
            }
        }
    }
    assert_eq!(Tile::new(0, DECIMAL_MAX >> 8, 256), None);
    assert_eq!(Tile::new(6, 0, 32), None);
    assert_eq!(Tile::new(7, 0, 1), None);
    assert_eq!(Tile::new(0, 0, 0), None);
    assert_eq!(Tile::new(0, 0, 257), None);
    assert_eq!(Tile::new(0, u64::MAX, 1), None);
}

#[test]
fn other_spellings_of_a_tile_path_are_refused() {
    let refused = [
        ("", 0),
        ("tile/0/", 7),
        ("/tile/0/000", 0),
        ("tile/00/000", 6),
        ("tile/+0/000", 5),
        ("tile/7/000", 0),
        ("tile/0/0", 8),
        ("tile/0/0000", 10),
        ("tile/0/x000/000", 7),
        ("tile/0/001/000", 7),
        ("tile/0/x001/x000", 12),
        ("tile/0/000.p/0", 0),
        ("tile/0/000.p/01", 13),
        ("tile/0/000.p/+1", 13),
        ("tile/0/000.p/256", 0),
        ("tile/0/000.p/", 0),
        ("tile/0/000.p/1/", 0),
        ("tile/0/000/", 10),
        ("tile/0/000?", 10),
        ("tile/0/x018/x446/x744/x073/x709/551/615", 0),
        ("tile/0/x000/x000/x000/x000/x000/x000/x000/x000/000", 42),
        ("tile/entries/000", 0),
    ];
    for (path, at) in refused {
        assert_eq!(
            path.parse::<Tile>(),
            Err(Error::Malformed { format: Format::Tile, at }),
            "{path}"
        );
    }
}

/// The tiles of the reference's log at `size`, with their bytes, as tlog-tiles defines them.
fn tiles(reference: &Reference, size: u64) -> HashMap<Tile, Vec<u8>> {
    let mut tiles = HashMap::new();
    for level in 0..3_u8 {
        let each = 1_u64 << (8 * level);
        let hashes: Vec<[u8; 32]> = (0..size / each)
            .map(|index| reference.hash(index * each, (index + 1) * each).0)
            .collect();
        for (index, chunk) in (0..).zip(hashes.chunks(256)) {
            let tile = Tile::new(level, index, u16::try_from(chunk.len()).unwrap()).unwrap();
            tiles.insert(tile, chunk.concat());
        }
    }
    tiles
}

#[test]
fn proofs_made_from_tiles_are_the_reference() {
    let reference = Reference::default();
    for size in [1, 255, 256, 257, 511, 1000, 65_536, 70_000] {
        let tiles = tiles(&reference, size);
        let read = |level: u8, index: u64| {
            let tile = Tile::holding(level, index, size)?;
            tile.hash(&tiles[&tile], level, index)
        };
        assert_eq!(tree::root_at(size, read), Ok(reference.root(size)));
        for index in [0, size / 3, size / 2, size - 1] {
            let path = reference.path(index, 0, size);
            assert_eq!(tree::inclusion_proof(index, size, read), Ok(path));
            let proof = reference.consistency(index + 1, size);
            assert_eq!(tree::consistency_proof(index + 1, size, read), Ok(proof));
        }
    }
    // The example of tlog-tiles: which tiles a log of 70,000 entries has.
    let mut widths = [vec![], vec![], vec![]];
    for tile in tiles(&reference, 70_000).keys() {
        widths[usize::from(tile.level())].push(tile.width());
    }
    for widths in &mut widths {
        widths.sort_unstable();
    }
    assert_eq!((widths[0].len(), widths[0][0], widths[0][1]), (274, 112, 256));
    assert_eq!(widths[1..], [vec![17, 256], vec![1]]);
}

#[test]
fn a_tile_gives_only_hashes_that_it_holds() {
    let reference = Reference::default();
    let tile = Tile::new(0, 1, 44).unwrap();
    let bytes: Vec<u8> = (256..300).flat_map(|i| reference.hash(i, i + 1).0).collect();
    for level in 0..64 {
        for index in (0..400).chain([u64::MAX / 256, u64::MAX]) {
            let from = index.checked_mul(1_u64 << level);
            let held = from.filter(|from| (256..300).contains(from) && from + (1 << level) <= 300);
            let wanted = held.map(|from| reference.hash(from, from + (1 << level)));
            assert_eq!(tile.hash(&bytes, level, index).ok(), wanted, "({level}, {index})");
        }
    }
    for cut in [0, 1, 31, 32, 44 * 32 - 1] {
        let refused = Err(Error::Malformed { format: Format::Tile, at: cut });
        assert_eq!(tile.hash(&bytes[..cut], 0, 256), refused);
    }
    let trailing = [&bytes[..], &[0]].concat();
    assert_eq!(
        tile.hash(&trailing, 0, 256),
        Err(Error::Malformed { format: Format::Tile, at: 44 * 32 })
    );
    assert!(Tile::new(0, 0, 44).unwrap().hash(&bytes, 0, 256).is_err());
    assert!(Tile::new(1, 0, 44).unwrap().hash(&bytes, 7, 0).is_err());
}

#[test]
fn the_tile_that_holds_a_hash_is_as_wide_as_the_log_allows() {
    let path = |level, index, size| Tile::holding(level, index, size).map(|tile| tile.to_string());
    assert_eq!(path(0, 0, 1).unwrap(), "tile/0/000.p/1");
    assert_eq!(path(0, 0, 256).unwrap(), "tile/0/000");
    assert_eq!(path(7, 1, 256).unwrap(), "tile/0/000");
    assert_eq!(path(8, 0, 256).unwrap(), "tile/1/000.p/1");
    assert_eq!(path(0, 256, 257).unwrap(), "tile/0/001.p/1");
    assert_eq!(path(52, 0, DECIMAL_MAX).unwrap(), "tile/6/000.p/31");
    assert_eq!(
        path(0, DECIMAL_MAX - 1, DECIMAL_MAX).unwrap(),
        "tile/0/x035/x184/x372/x088/831.p/255"
    );
    let refused = [
        (0, 0, 0, 0),
        (0, 5, 5, 5),
        (1, 2, 5, 5),
        (8, 0, 255, 255),
        (53, 0, DECIMAL_MAX, DECIMAL_MAX),
        (64, 0, DECIMAL_MAX, u64::MAX),
        (255, 3, 9, u64::MAX),
        (0, u64::MAX, 9, u64::MAX),
        (63, u64::MAX, 9, u64::MAX),
        (0, 0, DECIMAL_MAX + 1, 0),
    ];
    for (level, index, size, last) in refused {
        assert_eq!(Tile::holding(level, index, size), Err(Error::NotInLog { index: last, size }));
    }
    assert_eq!(Bundle::holding(256, 300).unwrap().to_string(), "tile/entries/001.p/44");
    assert_eq!(Bundle::holding(300, 300), Err(Error::NotInLog { index: 300, size: 300 }));
}

#[test]
fn a_bundle_is_its_entries_and_nothing_more() {
    let bundle = Bundle::new(0, 3).unwrap();
    let entries = [&b"a"[..], b"", b"bcd"];
    let bytes = bundle.encode(&entries).unwrap();
    assert_eq!(bytes, b"\0\x01a\0\0\0\x03bcd");
    assert_eq!(bundle.decode(&bytes).unwrap(), entries);
    let refused = |at| Err(Error::Malformed { format: Format::Bundle, at });
    // Cut anywhere, the entry that is cut is refused at its start.
    for (cut, at) in [0, 0, 0, 3, 3, 5, 5, 5, 5, 5].into_iter().enumerate() {
        assert_eq!(bundle.decode(&bytes[..cut]), refused(at), "{cut}");
    }
    assert_eq!(bundle.decode(&[&bytes[..], &[0]].concat()), refused(10));
    assert_eq!(bundle.encode(&entries[..2]), refused(5).map(|_: Vec<&[u8]>| vec![]));
    assert_eq!(Bundle::new(0, 2).unwrap().decode(&bytes), refused(5));
    assert_eq!(Bundle::new(0, 2).unwrap().encode(&entries).unwrap_err(), refused(5).unwrap_err());

    let full = Bundle::new(1, 256).unwrap();
    let longest = vec![vec![7; ENTRY_BYTES_MAX]; 256];
    assert_eq!(full.decode(&full.encode(&longest).unwrap()).unwrap(), longest);
    let one = Bundle::new(0, 1).unwrap();
    assert_eq!(one.encode(&[vec![7; ENTRY_BYTES_MAX + 1]]).unwrap_err(), refused(0).unwrap_err());
}
