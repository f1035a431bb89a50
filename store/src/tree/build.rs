//! From slots to pages: branches, digests, and where a page that is too full is cut.

use std::{ops::Range, sync::Arc};

use anwansi_proofs::{Digest, hash, path::critical_bit};
use bytes::Bytes;

use super::{
    Child, FrameId, Page, Slot, Value,
    lineage::Draft,
    page::{PageWriter, SLOTS_MAX, SLOTS_SPLIT, body_bytes, page_bytes, patched_bytes},
};

/// A slot of a page to be.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// This slot of the page that is replaced, as it is.
    Kept(usize),
    /// Boxed, because most slots of most pages are kept.
    New(Box<Slot>),
}

impl Piece {
    pub(crate) fn new(slot: Slot) -> Self {
        Piece::New(Box::new(slot))
    }

    pub(crate) fn child(child: Child) -> Self {
        Piece::new(Slot::Child(child))
    }

    fn key<'a>(&'a self, old: Option<&'a Page>) -> &'a [u8] {
        match self {
            Piece::Kept(at) => kept(old).key(*at),
            Piece::New(slot) => slot.key(),
        }
    }
}

fn kept(old: Option<&Page>) -> &Page {
    old.expect("what is kept was in a page")
}

/// What becomes of a slot that stays where it is.
pub(crate) enum Patch<'w> {
    /// The entry of the same key with another value; and the digest of its leaf.
    Entry(&'w Value, Digest),
    /// The child with the same top branch.
    Child(Patched),
}

/// A page of which no branch came or went, as its parent has to know it.
#[derive(Clone, Debug)]
pub(crate) struct Patched {
    /// The digests of the sides of its top branch.
    pub(crate) sides: [Digest; 2],
    pub(crate) frame: FrameId,
}

/// The page `old` with some of its slots patched, in order: most pages change like this.
pub(crate) fn patch(draft: &Draft<'_>, old: &Page, patches: &[(usize, Patch<'_>)]) -> Patched {
    let mut sides = [Digest::ZERO; 2];
    let frame = draft.page(patched_bytes(old, patches), |memory| {
        Page::written(memory, old.count(), |memory| {
            let mut writer = PageWriter::over(memory, old, patches);
            let top = old.top(&(0..old.count()));
            let start = old.bit(top) + 1;
            let (left, right) = patches.split_at(patches.partition_point(|(at, _)| *at <= top));
            let left = refold(old, &mut writer, 0..top + 1, left, start);
            let right = refold(old, &mut writer, top + 1..old.count(), right, start);
            sides = [left, right];
            writer.finish()
        })
    });
    Patched { sides, frame }
}

/// Computes the digests in the subtree of some slots that follow from patches, and gives its own.
fn refold(
    old: &Page,
    writer: &mut PageWriter<'_>,
    slots: Range<usize>,
    patches: &[(usize, Patch<'_>)],
    start: usize,
) -> Digest {
    if slots.len() == 1 {
        let at = slots.start;
        let digest = match patches.first() {
            None => return old.digest(at),
            Some((_, Patch::Entry(_, leaf))) => *leaf,
            Some((_, Patch::Child(Patched { sides, .. }))) => old.digest_of_child(at, start, sides),
        };
        writer.set_digest(at, &digest);
        return digest;
    }
    let top = old.top(&slots);
    if patches.is_empty() {
        return old.hash(top);
    }
    let bit = old.bit(top);
    let (left, right) = patches.split_at(patches.partition_point(|(at, _)| *at <= top));
    let left = refold(old, writer, slots.start..top + 1, left, bit + 1);
    let right = refold(old, writer, top + 1..slots.end, right, bit + 1);
    let digest = old.digest_of_branch(slots.start, start..bit, &left, &right);
    writer.set_hash(top, &digest);
    digest
}

/// Two pieces or more, of which some are kept of the page `old`, as one page or, if they are too many, as what
/// takes its place in the parent: so pages split upwards, and those of one level hold about as many slots.
///
/// # Cost
/// Each split leaves at most seven eighths, or two thirds, of the pieces together, whatever their keys.
pub(crate) fn pages(draft: &Draft<'_>, old: Option<&Page>, mut pieces: Vec<Piece>) -> Vec<Slot> {
    while pieces.len() > SLOTS_MAX {
        let bits = parting_bits(old, &pieces);
        let top = (0..bits.len()).min_by_key(|at| bits[*at]).expect("two pieces have a branch");
        let shorter = (top + 1).min(pieces.len() - top - 1);
        if shorter >= SLOTS_SPLIT.max(pieces.len() / 8) {
            drop(bits);
            let right = pieces.split_off(top + 1);
            let mut slots = pages(draft, old, pieces);
            slots.append(&mut pages(draft, old, right));
            return slots;
        }
        // A top branch with hardly anything on one side would leave the other side as full as it was: the
        // subtree nearest to half of the slots moves down instead.
        let (first, last) = nearest_to_half(&bits);
        drop(bits);
        let below = pieces.splice(first..=last, []).collect();
        let below = pages(draft, old, below).into_iter().map(Piece::new);
        pieces.splice(first..first, below);
    }
    vec![Slot::Child(child(draft, old, &pieces))]
}

/// The child of so many pieces as fit into a page.
fn child(draft: &Draft<'_>, old: Option<&Page>, pieces: &[Piece]) -> Child {
    let plan = Plan::new(old, pieces);
    let frame = draft.page(plan.length(), |memory| plan.write(memory));
    let (bit, [left, right]) = plan.top();
    let key = pieces[0].key(old);
    // Only the bits before `bit` are shared, and only they are kept.
    let prefix = Bytes::copy_from_slice(&key[..key.len().min(usize::from(bit).div_ceil(9))]);
    Child { prefix, bit, left, right, frame }
}

/// A page to be, of two pieces or more: all but its memory.
pub(crate) struct Plan<'a> {
    old: Option<&'a Page>,
    pieces: &'a [Piece],
    bits: Vec<u16>,
    folded: Folded,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(old: Option<&'a Page>, pieces: &'a [Piece]) -> Self {
        let bits = parting_bits(old, pieces);
        let folded = Fold::new(old, pieces, &bits).run();
        Plan { old, pieces, bits, folded }
    }

    /// The bit of the top branch and the digests of its sides.
    pub(crate) fn top(&self) -> (u16, [Digest; 2]) {
        let (top, sides) = self.folded.top;
        (self.bits[top], sides)
    }

    /// In bytes.
    pub(crate) fn length(&self) -> usize {
        let bytes = |piece: &Piece| match piece {
            Piece::Kept(at) => kept(self.old).body_bytes(*at),
            Piece::New(slot) => body_bytes(slot),
        };
        let bodies = self.pieces.iter().map(bytes).sum();
        page_bytes(self.pieces.len(), self.has_children(), bodies)
    }

    fn has_children(&self) -> bool {
        self.pieces.iter().any(|piece| match piece {
            Piece::Kept(at) => kept(self.old).is_child(*at),
            Piece::New(slot) => slot.frame().is_some(),
        })
    }

    /// Writes it into memory that is long enough and nobody else's.
    pub(crate) fn write(&self, memory: Arc<[u8]>) -> Page {
        Page::written(memory, self.pieces.len(), |memory| {
            let Folded { digests, hashes, .. } = &self.folded;
            let mut writer =
                PageWriter::new(memory, &self.bits, (digests, hashes), self.has_children());
            let mut at = 0;
            while let Some(piece) = self.pieces.get(at) {
                match piece {
                    Piece::New(slot) => {
                        writer.push(slot);
                        at += 1;
                    }
                    Piece::Kept(first) => {
                        let run = self.pieces[at..].iter().zip(*first..);
                        let run = run.take_while(|(piece, next)| is_kept(piece, *next)).count();
                        writer.copy(kept(self.old), *first..first + run);
                        at += run;
                    }
                }
            }
            writer.finish()
        })
    }
}

fn is_kept(piece: &Piece, at: usize) -> bool {
    matches!(piece, Piece::Kept(kept) if *kept == at)
}

/// The bit of the branch between each piece and the next.
fn parting_bits(old: Option<&Page>, pieces: &[Piece]) -> Vec<u16> {
    let bit = |pair: &[Piece]| {
        let bit = match pair {
            [Piece::Kept(at), Piece::Kept(next)] if at + 1 == *next => kept(old).bit(*at),
            [one, next] => critical_bit(one.key(old), next.key(old)).expect("slots differ"),
            _ => unreachable!("windows of two"),
        };
        u16::try_from(bit).expect("paths part at bit 9215 or before")
    };
    pieces.windows(2).map(bit).collect()
}

/// Computes the digests of a page.
///
/// One pass from left to right: `open` holds the branches whose right side is still growing, top first. A
/// branch of which all slots are kept, and which starts where it did, keeps its digest.
struct Fold<'a> {
    old: Option<&'a Page>,
    pieces: &'a [Piece],
    bits: &'a [u16],
    digests: Vec<Digest>,
    hashes: Vec<Digest>,
    /// No piece from here on, up to the one that is looked at, is new.
    clean: usize,
}

/// A branch whose right side is still growing.
struct Open {
    branch: usize,
    left: Digest,
    /// Its first slot.
    first: usize,
}

/// A branch of which all is known but where it starts.
struct Closed {
    branch: usize,
    sides: [Digest; 2],
    first: usize,
}

struct Folded {
    digests: Vec<Digest>,
    hashes: Vec<Digest>,
    /// The top branch, and the digests of its sides.
    top: (usize, [Digest; 2]),
}

impl<'a> Fold<'a> {
    fn new(old: Option<&'a Page>, pieces: &'a [Piece], bits: &'a [u16]) -> Self {
        let (digests, hashes) = (Vec::with_capacity(pieces.len()), vec![Digest::ZERO; bits.len()]);
        Fold { old, pieces, bits, digests, hashes, clean: 0 }
    }

    fn run(mut self) -> Folded {
        let mut open: Vec<Open> = Vec::with_capacity(self.bits.len());
        let mut last: Option<Closed> = None;
        for at in 0..self.pieces.len() {
            if let Piece::New(_) = &self.pieces[at] {
                self.clean = at + 1;
            }
            // What ends at slot `at` closes down to the branch behind it; the last one closes all.
            let next = self.bits.get(at).map(|bit| usize::from(*bit) + 1);
            while let Some(Open { branch, left, first }) = open
                .pop_if(|open| next.is_none_or(|next| usize::from(self.bits[open.branch]) >= next))
            {
                let right = self.place(at, last.as_ref(), usize::from(self.bits[branch]) + 1);
                last = Some(Closed { branch, sides: [left, right], first });
            }
            if let Some(next) = next {
                let first = last.as_ref().map_or(at, |closed| closed.first);
                let left = self.place(at, last.as_ref(), next);
                open.push(Open { branch: at, left, first });
                last = None;
            }
        }
        let Closed { branch, sides, .. } = last.expect("a page has two slots or more");
        Folded { digests: self.digests, hashes: self.hashes, top: (branch, sides) }
    }

    /// The digest at bit `start` of the subtree that ends with slot `at`: of the branch `top`, or else
    /// the slot itself.
    fn place(&mut self, at: usize, top: Option<&Closed>, start: usize) -> Digest {
        let Some(&Closed { branch, sides: [left, right], first }) = top else {
            let digest = match &self.pieces[at] {
                Piece::Kept(slot) => kept(self.old).digest_from(*slot, start),
                Piece::New(slot) => slot.digest(start),
            };
            self.digests.push(digest);
            return digest;
        };
        self.hashes[branch] = self.kept_hash(first..at + 1, branch, start).unwrap_or_else(|| {
            let key = self.pieces[at].key(self.old);
            hash::branch_below(key, start..usize::from(self.bits[branch]), &left, &right)
        });
        self.hashes[branch]
    }

    /// The digest of a branch over `slots`, if it stood in the page that is replaced and started there too.
    ///
    /// Where slots are gone from between them, as many old ones end inside of the old branch, and so they
    /// start behind it.
    fn kept_hash(&self, slots: Range<usize>, branch: usize, start: usize) -> Option<Digest> {
        if slots.start < self.clean {
            return None;
        }
        let Piece::Kept(first) = self.pieces[slots.start] else { return None };
        let old = kept(self.old);
        let starts = old.start_of(&(first..first + slots.len())) == Some(start);
        starts.then(|| old.hash(first + branch - slots.start))
    }
}

/// Of the subtrees below the top branch, the one whose number of slots is nearest to half of them: its
/// first and last slot.
fn nearest_to_half(bits: &[u16]) -> (usize, usize) {
    let slots = bits.len() + 1;
    // A branch reaches to both sides as far as all bits are larger than its own.
    let mut first = vec![0; bits.len()];
    let mut last = vec![bits.len(); bits.len()];
    let mut open: Vec<usize> = Vec::new();
    for (at, bit) in bits.iter().enumerate() {
        while let Some(above) = open.pop_if(|above| bits[*above] > *bit) {
            last[above] = at;
        }
        first[at] = open.last().map_or(0, |above| above + 1);
        open.push(at);
    }
    let sizes = first.into_iter().zip(last).filter(|(first, last)| last - first + 1 < slots);
    sizes
        .min_by_key(|(first, last)| (2 * (last - first + 1)).abs_diff(slots))
        .expect("a tree of more than two slots has a branch below the top")
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::{
        super::{Entry, PageId, Pages, memory::memory, page::Spot},
        *,
    };
    use crate::engine::Memory;

    /// A store's pages, with nothing stored.
    fn pages_in_memory() -> Pages {
        Pages::on_two_threads(Arc::new(Memory::new()), 1 << 20)
    }

    fn page(old: Option<&Page>, pieces: &[Piece]) -> (Page, u16, [Digest; 2]) {
        let plan = Plan::new(old, pieces);
        let (bit, sides) = plan.top();
        (plan.write(memory(plan.length())), bit, sides)
    }

    #[test]
    fn split_takes_the_subtree_nearest_to_half() {
        // Branches between seven slots: the top at bit 1, on its left 4 slots, on its right 3.
        assert_eq!(nearest_to_half(&[9, 5, 7, 1, 4, 3]), (0, 3));
        // A chain: every branch has one slot on its left.
        assert_eq!(nearest_to_half(&[1, 2, 3, 4, 5, 6, 7]), (4, 7));
    }

    fn entry(key: &[u8], value: &[u8]) -> Piece {
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        Piece::new(Slot::Entry(Entry::new(key, Value::Inline(value))))
    }

    fn child_of(values: Range<u8>, draft: &Draft<'_>) -> (Child, Page) {
        let pieces = values.map(|i| entry(&[3 * i, i], &[i; 3])).collect::<Vec<_>>();
        let child = child(draft, None, &pieces);
        let page = draft.pages().loaded(child.frame).expect("it was made");
        (child, page)
    }

    fn no_children(_: FrameId) -> PageId {
        unreachable!("the page has entries only")
    }

    #[test]
    fn stored_page_is_refused_if_any_byte_is_changed() {
        let pages = pages_in_memory();
        let (child, page) = child_of(0..20, &Draft::begin(&pages, None, 0));
        let bytes = page.encode(&no_children);
        let id = PageId { epoch: 1, chunk: 2, offset: 3, length: 4 };
        let (again, _) = Page::decode(&bytes, &child, id, memory).unwrap();
        assert!((0..19).all(|at| again.hash(at) == page.hash(at)));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Page::decode(&changed, &child, id, memory).is_err(), "byte {at}");
            assert!(Page::decode(&bytes[..at], &child, id, memory).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn page_of_32_slots_is_read_and_changes_into_smaller_ones() {
        let in_memory = pages_in_memory();
        let draft = Draft::begin(&in_memory, None, 0);
        let (made, page) = child_of(0..32, &draft);
        let id = PageId { epoch: 1, chunk: 2, offset: 3, length: 4 };
        let (read, _) = Page::decode(&page.encode(&no_children), &made, id, memory).unwrap();
        let pieces = (0..32).map(Piece::Kept).chain([entry(&[0xff], b"")]).collect();
        let slots = pages(&draft, Some(&read), pieces);
        let counts = slots.iter().map(|slot| match slot {
            Slot::Child(child) => in_memory.loaded(child.frame).expect("it was made").count(),
            Slot::Entry(_) => 1,
        });
        let counts = counts.collect::<Vec<_>>();
        assert!(counts.iter().all(|count| *count <= SLOTS_MAX), "{counts:?}");
    }

    #[test]
    fn whole_page_in_the_place_of_another_is_refused() {
        let pages = pages_in_memory();
        let draft = Draft::begin(&pages, None, 0);
        let ((one, _), (other, page)) = (child_of(0..20, &draft), child_of(0..19, &draft));
        let id = PageId { epoch: 1, chunk: 2, offset: 3, length: 4 };
        assert!(Page::decode(&page.encode(&no_children), &other, id, memory).is_ok());
        assert!(Page::decode(&page.encode(&no_children), &one, id, memory).is_err());
    }

    /// Keys that share long and short beginnings, and go on behind one another.
    fn any_key(rng: &mut Rng) -> Vec<u8> {
        let letters = [0, 1, 0x80, 0xff];
        (0..rng.usize(1..6)).map(|_| *rng.choice(&letters).unwrap()).collect()
    }

    /// Those of a page.
    fn any_keys(rng: &mut Rng) -> Vec<Vec<u8>> {
        loop {
            let keys = sorted((0..rng.usize(2..=SLOTS_MAX)).map(|_| any_key(rng)));
            if keys.len() >= 2 {
                return keys;
            }
        }
    }

    fn sorted(keys: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
        let keys = keys.into_iter().collect::<std::collections::BTreeSet<_>>();
        keys.into_iter().collect()
    }

    #[test]
    fn keys_are_located_as_by_comparing_them_all() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..2000 {
            let keys = any_keys(&mut rng);
            let pieces = keys.iter().map(|key| entry(key, b"")).collect::<Vec<_>>();
            let page = page(None, &pieces).0;
            for _ in 0..20 {
                let key = any_key(&mut rng);
                let spot = match keys.binary_search(&key) {
                    Ok(at) => Spot::Inside(at),
                    Err(at) => Spot::Before(at),
                };
                assert_eq!(page.locate(&key), spot, "{key:?} in {keys:?}");
            }
        }
    }

    #[test]
    fn page_patched_is_the_page_made_anew() {
        let mut rng = Rng::with_seed(3);
        let pages = pages_in_memory();
        let draft = Draft::begin(&pages, None, 0);
        for _ in 0..2000 {
            let keys = any_keys(&mut rng);
            let pieces = keys.iter().map(|key| entry(key, b"old")).collect::<Vec<_>>();
            let (old, bit, _) = page(None, &pieces);
            let values = keys.iter().map(|_| match rng.usize(..3) {
                0 => vec![rng.u8(..); rng.usize(..8)],
                _ => b"old".to_vec(),
            });
            let values = values.collect::<Vec<_>>();
            let patches = keys.iter().zip(&values).enumerate().filter(|(_, (_, it))| *it != b"old");
            let patches = patches.map(|(at, (key, value))| {
                let value = Value::Inline(Bytes::copy_from_slice(value));
                (at, hash::leaf(key, &value.digest()), value)
            });
            let patches = patches.collect::<Vec<_>>();
            let patches = patches.iter().map(|(at, leaf, value)| (*at, Patch::Entry(value, *leaf)));
            let made = patch(&draft, &old, &patches.collect::<Vec<_>>());
            let pieces = keys.iter().zip(&values).map(|(key, value)| entry(key, value));
            let anew = page(None, &pieces.collect::<Vec<_>>());
            assert_eq!((bit, made.sides), (anew.1, anew.2));
            let made = pages.loaded(made.frame).expect("it was made");
            assert_eq!(format!("{made:?}"), format!("{:?}", anew.0));
        }
    }

    #[test]
    fn page_made_from_another_is_the_page_made_anew() {
        let mut rng = Rng::with_seed(2);
        for _ in 0..3000 {
            let before = sorted((0..rng.usize(4..20)).map(|_| any_key(&mut rng)));
            let pieces = before.iter().map(|key| entry(key, b"old")).collect::<Vec<_>>();
            if before.len() < 2 {
                continue;
            }
            let old = page(None, &pieces);
            let after = before.iter().filter(|_| rng.usize(..4) > 0).cloned();
            let after = after.collect::<Vec<_>>();
            let after =
                sorted(after.into_iter().chain((0..rng.usize(..3)).map(|_| any_key(&mut rng))));
            if after.len() < 2 {
                continue;
            }
            let mut fresh = Vec::new();
            let pieces = after.iter().map(|key| match before.binary_search(key) {
                Ok(at) if rng.usize(..6) > 0 => {
                    fresh.push(entry(key, b"old"));
                    Piece::Kept(at)
                }
                _ => {
                    fresh.push(entry(key, b"new value"));
                    entry(key, b"new value")
                }
            });
            let made = page(Some(&old.0), &pieces.collect::<Vec<_>>());
            let anew = page(None, &fresh);
            assert_eq!((made.1, made.2), (anew.1, anew.2));
            assert_eq!(format!("{:?}", made.0), format!("{:?}", anew.0));
        }
    }
}
