//! Segments: runs of chunks of pages, which are freed as a whole.
//!
//! A flush leaves an image of its tree in storage: the pages that it writes, in segments of its own, and those of older
//! ones that it shares. A page is dead as soon as the newest image is without it, and so is a segment whose pages all
//! are; it is freed when no image between the one that wrote it and the one it is dead for is needed any more. Before it
//! comes to that for the last few pages, a flush writes them anew, as log-structured file systems do (Rosenblum and
//! Ousterhout, 1992).

use std::{
    collections::BTreeMap,
    ops::Bound::{Included, Unbounded},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use wincode::{SchemaRead, SchemaWrite};

use crate::{
    Damage, Error,
    engine::{Batch, Engine, Keyspace, scan_prefix},
    record::{SEGMENT_PREFIX, Segment, decode, encode},
    tree::PageId,
};

/// The largest and the smallest bytes of pages at which a segment is closed.
const SEGMENT_BYTES_MAX: usize = 16 << 20;
const SEGMENT_BYTES_MIN: usize = 1 << 20;
/// The part of the budget for pages that one may have: some of them are written anew at once.
const SEGMENT_PART: usize = 32;

/// Bytes of pages at which a segment is closed, if there is such a budget for their memory.
pub(crate) fn segment_bytes(bytes_max: usize) -> u64 {
    (bytes_max / SEGMENT_PART).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX) as u64
}

/// The image of a tree in storage, by the epoch that wrote it and the first chunk of that epoch that it does not need:
/// later ones are larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, SchemaWrite, SchemaRead)]
pub(crate) struct Image {
    pub(crate) epoch: u32,
    pub(crate) chunks: u32,
}

/// The first chunk of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId {
    pub(crate) epoch: u32,
    pub(crate) chunk: u32,
}

impl SegmentId {
    /// Where its record is, in `Meta`.
    pub(crate) fn key(self) -> Vec<u8> {
        [SEGMENT_PREFIX, &self.chunk_key()].concat()
    }

    /// The one that begins with a chunk, by that one's key.
    pub(crate) fn of_chunk(key: &[u8]) -> Option<Self> {
        let (epoch, chunk) = key.split_first_chunk()?;
        let chunk = u32::from_be_bytes(chunk.try_into().ok()?);
        Some(SegmentId { epoch: u32::from_be_bytes(*epoch), chunk })
    }

    /// The key of its first chunk.
    pub(crate) fn chunk_key(self) -> [u8; 8] {
        PageId::chunk_key(self.epoch, self.chunk)
    }

    /// The one that would follow it.
    pub(crate) fn behind(self, segment: &Segment) -> Self {
        SegmentId { chunk: self.chunk + segment.chunks, ..self }
    }

    /// What it says of itself if its record is damaged.
    pub(crate) fn damage(self) -> Damage {
        Damage::Segment { epoch: self.epoch, chunk: self.chunk }
    }
}

impl Segment {
    /// Whether one of these images may have pages in it, which are in order.
    pub(crate) fn is_needed_by(&self, images: &[Image]) -> bool {
        let since = &images[images.partition_point(|image| *image < self.born)..];
        match self.died {
            Some(died) => since.first().is_some_and(|image| *image < died),
            None => true,
        }
    }
}

/// All segments there are.
#[derive(Debug)]
pub(crate) struct Segments(Mutex<Table>);

/// What is known of them since a flush.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// The newest image.
    pub(crate) newest: Image,
    pub(crate) all: BTreeMap<SegmentId, Segment>,
    /// For which tree dead ones are, by its number, as far as that was made since the opening: older ones may be held
    /// by readers.
    dead_for: BTreeMap<SegmentId, u64>,
}

/// A segment by its record.
pub(crate) fn read((key, bytes): (Bytes, Bytes)) -> Result<(SegmentId, Segment), Error> {
    let id = key.strip_prefix(SEGMENT_PREFIX).and_then(SegmentId::of_chunk);
    let id = id.ok_or(Error::Damaged(Damage::Segments))?;
    Ok((id, decode(&bytes, id.damage())?))
}

impl Segments {
    /// Those in storage, if `newest` is the newest image. What is damaged stays where it is, and so do its pages; a check
    /// names it.
    pub(crate) fn load(engine: &dyn Engine, newest: Image) -> Result<Self, Error> {
        let mut table = Table { newest, ..Table::default() };
        for entry in scan_prefix(engine, Keyspace::Meta, SEGMENT_PREFIX) {
            match read(entry?) {
                Err(Error::Damaged(_)) => {}
                read => table.all.extend([read?]),
            }
        }
        Ok(Segments(table.into()))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known now.
    pub(crate) fn get(&self) -> Table {
        self.table().clone()
    }

    /// Forgets one that was freed.
    pub(crate) fn remove(&self, id: SegmentId) {
        let mut table = self.table();
        table.all.remove(&id);
        table.dead_for.remove(&id);
    }
}

impl Table {
    /// The segment in which a chunk is.
    pub(crate) fn of(&self, epoch: u32, chunk: u32) -> Option<SegmentId> {
        let last = SegmentId { epoch, chunk };
        let (found, segment) = self.all.range((Unbounded, Included(last))).next_back()?;
        let is_inside = found.epoch == epoch && chunk - found.chunk < segment.chunks;
        is_inside.then_some(*found)
    }

    /// Those that can be freed: no page in them is in one of these images, which are in order, or was in the tree of this
    /// number, the oldest one that is held.
    pub(crate) fn free(
        &self,
        images: &[Image],
        oldest: u64,
    ) -> impl Iterator<Item = (SegmentId, &Segment)> {
        let all = self.all.iter().map(|(id, segment)| (*id, segment));
        all.filter(move |(id, segment)| {
            let is_held = self.dead_for.get(id).is_some_and(|number| oldest < *number);
            !is_held && !segment.is_needed_by(images)
        })
    }

    /// The segments that should be written anew for most of their pages are dead, the emptiest first: so many that of
    /// what is left four sevenths are alive, but no more than `bytes_max` of living pages. Those that the image `held`
    /// may need, or older ones, stay in any case and are left out.
    pub(crate) fn sparse(&self, held: Option<Image>, bytes_max: u64) -> Vec<SegmentId> {
        let is_movable =
            |segment: &Segment| segment.live > 0 && held.is_none_or(|held| held < segment.born);
        let mut living =
            self.all.iter().filter(|(_, segment)| is_movable(segment)).collect::<Vec<_>>();
        let mut all = living.iter().map(|(_, segment)| segment.bytes).sum::<u64>();
        let live = living.iter().map(|(_, segment)| segment.live).sum::<u64>();
        // Fewest living bytes for each byte that is freed.
        living.sort_by(|(_, a), (_, b)| {
            let weight =
                |one: &Segment, other: &Segment| u128::from(one.live) * u128::from(other.bytes);
            weight(a, b).cmp(&weight(b, a))
        });
        let (mut sparse, mut moved) = (Vec::new(), 0);
        for (id, segment) in living {
            if all <= live / 4 * 7 || segment.live == segment.bytes {
                break;
            }
            moved += segment.live;
            if moved > bytes_max {
                break;
            }
            all = all - segment.bytes + segment.live;
            sparse.push(*id);
        }
        sparse
    }

    /// A page is dead from the next image on.
    pub(crate) fn bury(&mut self, id: PageId) {
        if let Some(segment) = self.of(id.epoch, id.chunk).and_then(|id| self.all.get_mut(&id)) {
            segment.live = segment.live.saturating_sub(id.length.into());
        }
    }
}

/// A flush's account of what becomes of segments.
pub(crate) struct Account<'a> {
    segments: &'a Segments,
    /// As it was, and as it is going to be.
    before: Table,
    pub(crate) after: Table,
}

impl<'a> Account<'a> {
    pub(crate) fn begin(segments: &'a Segments) -> Self {
        let before = segments.get();
        Account { segments, after: before.clone(), before }
    }

    /// The account for a new image of the tree of this number: notes it in `batch`.
    pub(crate) fn close(&mut self, image: Image, number: u64, batch: &mut Batch) {
        self.after.newest = image;
        for (id, segment) in &mut self.after.all {
            if segment.live == 0 && segment.died.is_none() {
                segment.died = Some(image);
                self.after.dead_for.insert(*id, number);
            }
            if self.before.all.get(id) != Some(segment) {
                batch.put(Keyspace::Meta, id.key(), encode(segment));
            }
        }
    }

    /// That batch is durable. What was dead before may have been freed meanwhile.
    pub(crate) fn settle(self) {
        let mut table = self.segments.table();
        table.newest = self.after.newest;
        for (id, segment) in self.after.all {
            let was_dead = self.before.all.get(&id).is_some_and(|before| before.died.is_some());
            if !was_dead {
                table.all.insert(id, segment);
            }
        }
        for (id, number) in self.after.dead_for {
            if table.all.contains_key(&id) {
                table.dead_for.insert(id, number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(chunks: u32) -> Image {
        Image { epoch: 1, chunks }
    }

    fn table(segments: &[(u64, u64)]) -> Table {
        let segment = |(at, (live, bytes)): (usize, &(u64, u64))| {
            let id = SegmentId { epoch: 1, chunk: 10 * u32::try_from(at).unwrap() };
            (id, Segment { chunks: 10, live: *live, bytes: *bytes, ..Segment::default() })
        };
        Table { all: segments.iter().enumerate().map(segment).collect(), ..Table::default() }
    }

    #[test]
    fn emptiest_segments_are_sparse_until_four_sevenths_are_alive() {
        let sparse = |segments: &[(u64, u64)], bytes_max| {
            let sparse = table(segments).sparse(None, bytes_max);
            sparse.into_iter().map(|id| id.chunk / 10).collect::<Vec<_>>()
        };
        assert_eq!(sparse(&[(60, 100), (57, 100)], 1000), [0; 0]);
        assert_eq!(sparse(&[(60, 100), (10, 100), (20, 100)], 1000), [1, 2]);
        // To free the first is enough.
        assert_eq!(sparse(&[(5, 100), (60, 100), (60, 100)], 1000), [0]);
        // Dead ones are free already, full ones have nothing to free.
        assert_eq!(sparse(&[(0, 100), (100, 100)], 1000), [0; 0]);
        assert_eq!(sparse(&[(30, 100), (20, 100), (10, 100)], 35), [2, 1]);

        let mut table = table(&[(10, 100), (10, 100)]);
        for ((_, segment), born) in table.all.iter_mut().zip([3, 7]) {
            segment.born = image(born);
        }
        let sparse = |held: &[Image]| table.sparse(held.last().copied(), 1000).len();
        assert_eq!(
            [&[][..], &[image(2)], &[image(3), image(6)], &[image(7)]].map(sparse),
            [2, 2, 1, 0]
        );
    }

    #[test]
    fn segment_is_needed_by_images_from_its_own_to_the_one_it_is_dead_for() {
        let died = |died| Segment { born: image(5), died, ..Segment::default() };
        let dead = died(Some(image(9)));
        for (images, is_needed) in [
            (&[][..], false),
            (&[4], false),
            (&[5], true),
            (&[8], true),
            (&[9], false),
            (&[3, 12], false),
            (&[3, 6, 12], true),
        ] {
            let images = images.iter().copied().map(image).collect::<Vec<_>>();
            assert_eq!(dead.is_needed_by(&images), is_needed, "{images:?}");
            assert!(died(None).is_needed_by(&images));
        }
    }

    #[test]
    fn segment_that_was_freed_during_a_flush_does_not_come_back() {
        let mut dead = table(&[(0, 10), (10, 10)]);
        dead.all.values_mut().next().unwrap().died = Some(image(2));
        let segments = Segments(dead.into());
        let mut account = Account::begin(&segments);
        let freed = SegmentId { epoch: 1, chunk: 0 };
        segments.remove(freed);
        let mut batch = Batch::new();
        account.after.bury(PageId { epoch: 1, chunk: 10, offset: 0, length: 10 });
        account.close(image(30), 7, &mut batch);
        // Its record is not written again either.
        assert_eq!(batch.operations().len(), 1);
        account.settle();
        let table = segments.get();
        assert_eq!(table.all.keys().map(|id| id.chunk).collect::<Vec<_>>(), [10]);
        assert_eq!(table.free(&[], 6).count(), 0);
        assert_eq!(table.free(&[], 7).count(), 1);
        assert_eq!(table.free(&[image(29)], 7).count(), 0);
    }

    #[test]
    fn chunks_are_found_in_their_segment_alone() {
        let mut table = table(&[(1, 1), (1, 1)]);
        table
            .all
            .insert(SegmentId { epoch: 2, chunk: 3 }, Segment { chunks: 1, ..Segment::default() });
        let found = |epoch, chunk| table.of(epoch, chunk).map(|id| (id.epoch, id.chunk));
        assert_eq!(
            [found(1, 0), found(1, 9), found(1, 10), found(1, 19)],
            [Some((1, 0)), Some((1, 0)), Some((1, 10)), Some((1, 10))]
        );
        assert_eq!([found(1, 20), found(2, 2), found(2, 4), found(0, 5)], [None; 4]);
        assert_eq!(found(2, 3), Some((2, 3)));
    }
}
