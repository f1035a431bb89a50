//! Flushes: the tree of one version written as pages, so that opening need not replay the whole log.
//!
//! In the background, from a version that never changes, while commits go on. Children before parents;
//! pages that an older flush has written are shared with it. Behind them, while the store prunes, what leads back
//! from that version (undo.rs). Written last, when all of it is durable: the record that names the top.

use std::{
    collections::HashMap,
    ops::Bound::{Excluded, Included},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use anwansi_proofs::{Version, path::critical_bit};
use bytes::Bytes;

use crate::{
    Damage, Error,
    commit::is_forgettable,
    engine::{Batch, Direction, Engine, EngineError, Ingest, Keyspace, Ticket, Writer},
    flushes::{self, Flushed},
    record::{self, Segment, encode},
    retention::Keep,
    segments::{Account, Image, SegmentId, Table, segment_bytes},
    snapshot::Snapshot,
    store::Shared,
    tree::{FrameId, PageId, Pages, Slot, Tree},
    undo::Step,
    version,
};

/// Bytes of changes after which a flush is due, if that is more than a quarter of the state.
const LOG_BYTES: u64 = 128 << 20;
/// The bytes at which a chunk of pages is closed: two to four pages. To read one page of it is to read them all.
const PAGES_BYTES: usize = 8 << 10;
/// The parts of the budget in which pages that are not stored are counted: if they take [`UNSTORED_DUE`] a flush is due,
/// and commits may bring [`UNSTORED_MORE`] while it goes on. Then they wait for it.
const UNSTORED_PART: usize = 16;
const UNSTORED_DUE: usize = 7;
const UNSTORED_MORE: usize = 3;
/// The part of the budget that pages may take which one flush writes anew so that segments can be freed.
const MOVED_PART: usize = 8;
/// Bytes of pages, or of undo, that are handed to the engine at once.
const BATCH_BYTES: usize = 4 << 20;

/// Counts what has changed since the last flush, and wakes the flusher.
pub(crate) struct Trigger {
    flusher: SyncSender<Message>,
    changed: Mutex<Changed>,
    /// Told when a flush has ended.
    ended: Condvar,
    /// The budget for the memory of pages, in bytes.
    bytes_max: usize,
}

/// What is not stored in pages.
#[derive(Default)]
struct Changed {
    /// Of keys and values, since the last flush began.
    bytes: u64,
    /// Whether a flush goes on, or was asked for.
    is_flushing: bool,
    /// Bytes of the pages that are not stored, those of old versions included; and the fewest that these were since the
    /// last flush ended.
    unstored: usize,
    unstored_before: usize,
}

enum Message {
    Due,
    /// Answered when done. Sparse segments may be written anew for it.
    Now {
        done: SyncSender<()>,
        is_pruning: bool,
    },
    End,
}

impl Trigger {
    /// With a budget for the memory of pages, in bytes.
    pub(crate) fn new(bytes_max: usize) -> (Self, Messages) {
        let (flusher, messages) = sync_channel(1);
        let (changed, ended) = <_>::default();
        (Trigger { flusher, changed, ended, bytes_max }, Messages(messages))
    }

    fn changed(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts changes.
    pub(crate) fn count(&self, bytes: u64) {
        self.changed().bytes += bytes;
    }

    /// Counts a version that changed so many bytes, of a state of so many, behind which so many bytes of pages are not
    /// stored; asks for a flush if it is time for one.
    pub(crate) fn after(&self, bytes: u64, state_bytes: u64, unstored: usize) {
        let mut changed = self.changed();
        changed.bytes += bytes;
        changed.unstored = unstored;
        changed.unstored_before = changed.unstored_before.min(unstored);
        // A flush leaves what nobody but readers of old versions has: it is not due again because of that.
        let made = unstored.saturating_sub(changed.unstored_before);
        let much = changed.bytes >= LOG_BYTES.max(state_bytes / 4)
            || unstored >= self.bytes_max / UNSTORED_PART * UNSTORED_DUE
                && made >= self.bytes_max / UNSTORED_PART;
        // While one goes on, what it is about to store is counted too.
        if much && !changed.is_flushing {
            // If it cannot be asked for, the next version asks again.
            changed.is_flushing = self.flusher.try_send(Message::Due).is_ok();
        }
    }

    /// A flush begins, of a version that is shown after this: it stores all that was counted.
    fn begin(&self) {
        let mut changed = self.changed();
        changed.is_flushing = true;
        changed.bytes = 0;
    }

    /// A flush has ended: so many bytes of pages are still not stored.
    fn end_of_flush(&self, unstored: usize) {
        let mut changed = self.changed();
        changed.is_flushing = false;
        (changed.unstored, changed.unstored_before) = (unstored, unstored);
        self.ended.notify_all();
    }

    /// Waits while a flush has to make room for the pages of the next version.
    pub(crate) fn wait_for_room(&self) {
        let part = self.bytes_max / UNSTORED_PART;
        let full = |changed: &mut Changed| {
            let due = (part * UNSTORED_DUE).max(changed.unstored_before);
            changed.is_flushing && changed.unstored >= due + part * UNSTORED_MORE
        };
        drop(self.ended.wait_while(self.changed(), full).unwrap_or_else(PoisonError::into_inner));
    }

    /// Flushes the newest version and waits for it; false if the flusher has ended. An error of the
    /// flusher is kept as the store's failure. If it is for a pruning, pages are moved that hold much up.
    pub(crate) fn now(&self, is_pruning: bool) -> bool {
        let (done, wait) = sync_channel(1);
        self.flusher.send(Message::Now { done, is_pruning }).is_ok() && wait.recv().is_ok()
    }

    /// Flushes once more and ends the flusher.
    pub(crate) fn end(&self) {
        // It may have ended already.
        let _ = self.flusher.send(Message::End);
    }
}

/// What the flusher is told.
pub(crate) struct Messages(Receiver<Message>);

/// Writes flushes, one at a time, on a thread of its own.
pub(crate) struct Flusher {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) epoch: u32,
    /// The newest flush.
    pub(crate) flushed: Option<Flushed>,
    /// The next chunk of this epoch.
    pub(crate) chunk: u32,
    /// What the store keeps, as it prunes itself.
    pub(crate) keep: Keep,
}

/// A flush that goes on. Dropped, it lets all go on who wait for it, whatever became of it.
struct Flushing<'a> {
    shared: &'a Shared,
    snapshot: Snapshot,
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            // The panic was reported where it happened; nobody flushes any more.
            self.shared.fail(&EngineError::Unavailable { doing: "flushing" }.poison().into());
        }
        self.shared.flush.end_of_flush(self.shared.pages.unstored_bytes());
    }
}

impl Flusher {
    pub(crate) fn run(mut self, messages: &Messages) {
        let shared = self.shared.clone();
        for message in &messages.0 {
            shared.flush.begin();
            let snapshot = shared.published().snapshot.clone();
            let flushing = Flushing { shared: &shared, snapshot };
            let moves = match message {
                Message::Now { is_pruning, .. } => is_pruning,
                // While nothing is dropped, no segment is freed by moving its pages.
                Message::Due => {
                    self.keep.versions.is_some() && shared.versions.kept().horizon() > Version(0)
                }
                Message::End => false,
            };
            if shared.failure().is_none()
                && let Err(error) = self.flush(&flushing.snapshot, moves)
            {
                self.shared.fail(&error);
            }
            match message {
                Message::Due => {}
                // The caller may have gone.
                Message::Now { done, .. } => drop(done.send(())),
                Message::End => return,
            }
        }
    }

    /// Writes what is not stored of a version. If it `moves` pages, it writes also those anew that keep segments from
    /// being freed of which most is dead.
    fn flush(&mut self, snapshot: &Snapshot, moves: bool) -> Result<(), Error> {
        let (shared, tree) = (self.shared.clone(), &snapshot.version.tree);
        let version = snapshot.version();
        let is_new = self.flushed.is_none_or(|flush| flush.version != version);
        // At once: soon commits push the oldest out.
        let undo = if is_new { shared.undo.back_from(version) } else { Vec::new() };
        let mut account = Account::begin(&shared.segments);
        if is_new {
            for id in tree.take_dead() {
                account.after.bury(id);
            }
        }
        let is_moving = moves && self.move_pages(tree, &mut account.after)?;
        if !is_new && !is_moving {
            return Ok(());
        }
        let mut pack = Pack::new(self);
        if let Some(Slot::Child(top)) = &tree.top {
            pack.page(top.frame)?;
        }
        let Packed { placed, mut segments, chunk } = pack.finish()?;
        // No other image ends there, though it may have the same pages.
        let image = Image { epoch: self.epoch, chunks: chunk + 1 };
        self.chunk = image.chunks;
        for (_, segment) in &mut segments {
            segment.born = image;
        }
        account.after.all.extend(segments);
        let since = match self.flushed {
            Some(flush) if !is_new => flush.since,
            _ => self.write_undo(version, &undo)?,
        };
        // A crash here leaves chunks that no record names: the next opening sweeps them, and the next pruning the undo.
        let id = |frame| id_of(&shared.pages, &placed, frame);
        let flush = record::Flush {
            top: tree.top.as_ref().map(|top| top.to_record(id)),
            entries: tree.entries,
            bytes: tree.bytes,
            image,
            since: since.0,
        };
        let mut batch = Batch::new();
        batch.put(Keyspace::Meta, flushes::key(version).to_vec(), encode(&flush));
        account.close(image, tree.number(), &mut batch);
        self.writer.write(batch).wait()?;
        // A crash here leaves a finished flush.
        for (frame, id) in placed {
            shared.pages.stored(frame, id);
        }
        account.settle();
        self.flushed = Some(Flushed { version, since, image });
        shared.pruning.flushed(version, &self.keep);
        // Deleting is left to the committer: it alone knows which of them are being made again.
        shared.forget(old_requests(&*shared.engine, (shared.clock)())?);
        Ok(())
    }

    /// Stores what leads back from `version` step by step, and gives the oldest version that undo leads to.
    fn write_undo(&self, version: Version, steps: &[Step]) -> Result<Version, Error> {
        let Some(first) = steps.first() else { return Ok(version) };
        let start = Version(first.version.0 - 1);
        let mut batches = Batches::new(&self.writer);
        // The flush before has stored those up to its own version.
        let flushed = self.flushed.map_or(Version(0), |flush| flush.version);
        for step in steps.iter().filter(|step| step.version > flushed) {
            version::write_undo(step.version, &step.writes(), |space, key, chunk| {
                batches.put(space, key, chunk);
            });
        }
        batches.finish()?;
        Ok(match &self.flushed {
            // That one's goes on where these end, as after an opening.
            Some(flush) if flush.version == start => {
                flush.since.max(self.shared.undo.oldest_before(version))
            }
            Some(flush) => flush.since.max(start),
            None => start,
        })
    }

    /// Lets the pages of sparse segments that the tree has be written anew, and those above them. False if there are
    /// none.
    fn move_pages(&self, tree: &Tree, segments: &mut Table) -> Result<bool, Error> {
        let kept = self.shared.versions.kept();
        // Older versions are made from older flushes.
        let alone =
            kept.horizon().0.checked_sub(1).and_then(|last| kept.newest_until(Version(last)));
        let base = alone.map(|version| flushes::read_base(&*self.shared.engine, version));
        let base = match base.transpose() {
            // Then it is not known what stays in any case; a check names it.
            Err(Error::Damaged(_)) => return Ok(false),
            base => base?,
        };
        let held = base.flatten().map(|(flush, _)| flush.image);
        let bytes_max = self.shared.pages.bytes_max() / MOVED_PART;
        let sparse = segments.sparse(held, bytes_max as u64);
        for id in &sparse {
            match self.move_segment(tree, *id, segments) {
                // What could be read is moved, the rest stays as it is; a check names it.
                Err(Error::Damaged(_)) => {}
                moved => moved?,
            }
        }
        Ok(!sparse.is_empty())
    }

    fn move_segment(&self, tree: &Tree, id: SegmentId, segments: &mut Table) -> Result<(), Error> {
        let pages = &*self.shared.pages;
        let (start, end) = (id.chunk_key(), id.behind(&segments.all[&id]).chunk_key());
        let chunks = self.shared.engine.scan(
            Keyspace::Pages,
            Included(&start),
            Excluded(&end),
            Direction::Ascending,
        );
        for entry in chunks {
            let (key, bytes) = entry?;
            let SegmentId { epoch, chunk } =
                SegmentId::of_chunk(&key).ok_or(Error::Damaged(Damage::Segments))?;
            for (id, bit, key) in pages_of(epoch, chunk, &bytes)? {
                tree.unstore(pages, (id, bit, &key), |moved| segments.bury(moved))?;
            }
        }
        Ok(())
    }
}

/// The pages of a chunk: where each is, at which bit its top branch, and what its keys begin with.
fn pages_of(
    epoch: u32,
    chunk: u32,
    mut bytes: &[u8],
) -> Result<Vec<(PageId, usize, Bytes)>, Error> {
    let (mut pages, mut offset) = (Vec::new(), 0);
    while !bytes.is_empty() {
        let mut id = PageId { epoch, chunk, offset, length: 0 };
        let damage = Damage::Page(id);
        let length = record::length::<record::Page<'_>>(bytes).ok_or(Error::Damaged(damage))?;
        let (page, rest) = bytes.split_at(length);
        let page: record::Page<'_> = record::decode(page, damage)?;
        let [first, .., last] = &page.slots[..] else { return Err(Error::Damaged(damage)) };
        // All slots lie on one side of it or on the other.
        let bit = critical_bit(first.key(), last.key()).ok_or(Error::Damaged(damage))?;
        id.length = u32::try_from(length).expect("pages are small");
        pages.push((id, bit, Bytes::copy_from_slice(first.key())));
        (bytes, offset) = (rest, offset + id.length);
    }
    Ok(pages)
}

/// Where pages were put, by their frames.
type Placed = HashMap<FrameId, PageId>;

/// Where the page of a frame is, or is about to be.
fn id_of(pages: &Pages, placed: &Placed, frame: FrameId) -> PageId {
    let id = placed.get(&frame).copied().or_else(|| pages.id(frame));
    id.expect("children are written before their parents")
}

/// Pages on their way into chunks, and these into segments.
struct Pack<'a> {
    chunk: Vec<u8>,
    /// The number of that chunk.
    number: u32,
    flusher: &'a Flusher,
    /// The segment that is being written, once there is one.
    open: Option<(SegmentId, Segment, Chunks<'a>)>,
    segments: Vec<(SegmentId, Segment)>,
    /// The pages in the chunk.
    pages: u32,
    placed: Placed,
}

/// Where pages are now.
struct Packed {
    placed: Placed,
    segments: Vec<(SegmentId, Segment)>,
    /// The number of the next chunk.
    chunk: u32,
}

impl<'a> Pack<'a> {
    fn new(flusher: &'a Flusher) -> Self {
        let (chunk, segments, pages, placed) = <_>::default();
        Pack { chunk, number: flusher.chunk, flusher, open: None, segments, pages, placed }
    }

    /// Writes the page of a frame and all below it that are not stored. Recurses from page to page.
    fn page(&mut self, frame: FrameId) -> Result<(), Error> {
        let pages = &*self.flusher.shared.pages;
        let Some(page) = pages.unstored(frame) else { return Ok(()) };
        page.frames().try_for_each(|below| self.page(below))?;
        let bytes = page.encode(&|frame| id_of(pages, &self.placed, frame));
        let id = PageId {
            epoch: self.flusher.epoch,
            chunk: self.number,
            offset: u32::try_from(self.chunk.len()).expect("chunks are small"),
            length: u32::try_from(bytes.len()).expect("pages are small"),
        };
        self.chunk.extend(bytes);
        self.pages += 1;
        self.placed.insert(frame, id);
        if self.chunk.len() >= PAGES_BYTES { self.close_chunk() } else { Ok(()) }
    }

    fn close_chunk(&mut self) -> Result<(), Error> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let Flusher { shared, writer, epoch, .. } = self.flusher;
        let id = SegmentId { epoch: *epoch, chunk: self.number };
        let (_, segment, chunks) = match &mut self.open {
            Some(open) => open,
            none => none.insert((id, Segment::default(), Chunks::new(&*shared.engine, writer)?)),
        };
        segment.chunks += 1;
        segment.pages += std::mem::take(&mut self.pages);
        segment.bytes += self.chunk.len() as u64;
        segment.live = segment.bytes;
        let is_full = segment.bytes >= segment_bytes(shared.pages.bytes_max());
        chunks.put(PageId::chunk_key(*epoch, self.number), std::mem::take(&mut self.chunk))?;
        self.number += 1;
        if is_full { self.close_segment() } else { Ok(()) }
    }

    /// Waits until the pages so far are durable.
    fn close_segment(&mut self) -> Result<(), Error> {
        if let Some((id, segment, chunks)) = self.open.take() {
            chunks.finish()?;
            self.segments.push((id, segment));
        }
        Ok(())
    }

    /// Waits until all pages are durable.
    fn finish(mut self) -> Result<Packed, Error> {
        self.close_chunk()?;
        self.close_segment()?;
        Ok(Packed { placed: self.placed, segments: self.segments, chunk: self.number })
    }
}

/// Where chunks go: past the engine's log, or into batches.
enum Chunks<'a> {
    Ingest(Ingest<'a>),
    Batches(Batches<'a>),
}

impl<'a> Chunks<'a> {
    fn new(engine: &'a dyn Engine, writer: &'a Writer) -> Result<Self, Error> {
        let ingest = engine.ingest(Keyspace::Pages)?;
        Ok(ingest.map_or_else(|| Chunks::Batches(Batches::new(writer)), Chunks::Ingest))
    }

    fn put(&mut self, key: [u8; 8], chunk: Vec<u8>) -> Result<(), Error> {
        match self {
            Chunks::Ingest(ingest) => ingest.put(key.to_vec().into(), chunk.into())?,
            Chunks::Batches(batches) => batches.put(Keyspace::Pages, key.to_vec(), chunk),
        }
        Ok(())
    }

    /// Waits until all chunks are durable.
    fn finish(self) -> Result<(), Error> {
        match self {
            Chunks::Ingest(ingest) => ingest.finish()?,
            Chunks::Batches(batches) => batches.finish()?,
        }
        Ok(())
    }
}

/// What need not appear at once, in batches of some size.
struct Batches<'a> {
    writer: &'a Writer,
    batch: Batch,
    tickets: Vec<Ticket>,
}

impl<'a> Batches<'a> {
    fn new(writer: &'a Writer) -> Self {
        Batches { writer, batch: Batch::new(), tickets: Vec::new() }
    }

    fn put(&mut self, space: Keyspace, key: Vec<u8>, value: Vec<u8>) {
        self.batch.put(space, key, value);
        if self.batch.bytes() >= BATCH_BYTES {
            self.tickets.push(self.writer.write(std::mem::take(&mut self.batch)));
        }
    }

    /// Waits until all are durable.
    fn finish(mut self) -> Result<(), Error> {
        self.tickets.push(self.writer.write(self.batch));
        Ok(self.tickets.into_iter().try_for_each(Ticket::wait)?)
    }
}

/// The names of the requests that nobody has to remember any more.
fn old_requests(engine: &dyn Engine, now: u64) -> Result<Vec<Bytes>, Error> {
    use std::ops::Bound::Unbounded;
    let mut old = Vec::new();
    for entry in engine.scan(Keyspace::Requests, Unbounded, Unbounded, Direction::Ascending) {
        let (name, request) = entry?;
        if is_forgettable(&request, now) {
            old.push(name);
        }
    }
    Ok(old)
}

#[cfg(test)]
mod tests {
    use crate::{Commit, LogKey, Options, Store, engine::Memory};

    use super::*;

    #[test]
    fn flush_is_asked_for_again_when_the_one_before_has_ended() {
        let (trigger, Messages(messages)) = Trigger::new(1600);
        let after = |unstored| {
            trigger.after(1, 1, unstored);
            messages.try_recv().is_ok()
        };
        assert!(!after(699));
        assert!(after(700));
        assert!(!after(999));
        trigger.begin();
        assert!(!after(1100));
        trigger.end_of_flush(400);
        // What it has stored is no reason any more.
        assert!(!after(699));
        assert!(after(700));
        trigger.begin();
        trigger.end_of_flush(650);
        assert!(!after(749));
        assert!(after(750));
        trigger.begin();
        // Readers hold much, and let it go.
        trigger.end_of_flush(3000);
        assert!(!after(3099));
        assert!(!after(600));
        assert!(after(700));
    }

    #[test]
    fn pages_that_only_readers_hold_are_no_reason_to_flush() {
        let engine = Arc::new(Memory::new());
        let key = LogKey::from_secret([7; 32], None).unwrap();
        let options = Options { cache_bytes: 1 << 20, ..Options::default() };
        let store = Store::open(engine.clone(), key, &options).unwrap();
        let write =
            |key: u32, value: &[u8]| (key.to_string().into(), Some(Bytes::copy_from_slice(value)));
        store.commit(Commit::new((0..2000).map(|key| write(key, &[1; 100])).collect())).unwrap();
        // All pages that were ever made stay in memory, stored or not: soon more than the budget.
        let held = (0..600).map(|key| {
            store.commit(Commit::new(vec![write(key, &[2; 100])])).unwrap();
            store.latest()
        });
        let held = held.collect::<Vec<_>>();
        assert!(held[0].pages.unstored_bytes() > options.cache_bytes);
        store.close().unwrap();
        let flushes = flushes::all(&*engine).count();
        assert!((2..100).contains(&flushes), "{flushes} flushes");
    }
}
