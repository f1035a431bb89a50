//! Flushes: the tree of one version written as pages, so that opening need not replay the whole log.
//!
//! In the background, from a version that never changes, while commits go on. Children before parents;
//! pages that an older flush has written are shared with it. Written last, when all pages are durable:
//! the record that names the top.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
};

use anwansi_proofs::Version;
use bytes::Bytes;

use crate::{
    Damage, Error,
    commit::is_forgettable,
    engine::{Batch, Direction, Engine, Keyspace, Ticket, Writer},
    record::{self, CHUNK_BYTES, FLUSH_PREFIX, encode},
    snapshot::Snapshot,
    store::Shared,
    tree::{Link, PageId, Slot},
};

/// Bytes of changes after which a flush is due, if that is more than a quarter of the state.
const LOG_BYTES: u64 = 128 << 20;
/// Bytes of pages that are handed to the engine at once.
const BATCH_BYTES: usize = 4 << 20;

/// Counts what has changed since the last flush, and wakes the flusher.
pub(crate) struct Trigger {
    flusher: SyncSender<Message>,
    bytes: AtomicU64,
    writes: AtomicU64,
    /// Memory for pages that are not stored yet.
    dirty_bytes_max: u64,
}

enum Message {
    Due,
    /// Answered when done.
    Now(SyncSender<()>),
    End,
}

impl Trigger {
    pub(crate) fn new(dirty_bytes_max: u64) -> (Self, Messages) {
        let (flusher, messages) = sync_channel(1);
        let (bytes, writes) = <_>::default();
        (Trigger { flusher, bytes, writes, dirty_bytes_max }, Messages(messages))
    }

    /// Counts a version, and gives what has changed since the last flush: bytes and writes.
    pub(crate) fn count(&self, bytes: u64, writes: usize) -> (u64, u64) {
        let writes = writes as u64;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (bytes, self.writes.fetch_add(writes, Ordering::Relaxed) + writes)
    }

    /// Counts a version; asks for a flush if it is time for one.
    pub(crate) fn after(&self, snapshot: &Snapshot, bytes: u64, writes: usize) {
        let (bytes, writes) = self.count(bytes, writes);
        let dirty = snapshot.version.tree.memory_of(writes);
        if bytes >= LOG_BYTES.max(snapshot.bytes() / 4) || dirty >= self.dirty_bytes_max {
            match self.flusher.try_send(Message::Due) {
                Ok(()) => self.reset(),
                // It is busy: the next version asks again.
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
            }
        }
    }

    fn reset(&self) {
        self.bytes.store(0, Ordering::Relaxed);
        self.writes.store(0, Ordering::Relaxed);
    }

    /// Flushes the newest version and waits for it; false if the flusher has ended. An error of the
    /// flusher is kept as the store's failure.
    pub(crate) fn now(&self) -> bool {
        let (done, wait) = sync_channel(1);
        self.flusher.send(Message::Now(done)).is_ok() && wait.recv().is_ok()
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
    /// The newest version that is flushed.
    pub(crate) flushed: Option<Version>,
    /// The next chunk of this epoch.
    pub(crate) chunk: u32,
}

impl Flusher {
    pub(crate) fn run(mut self, messages: &Messages) {
        for message in &messages.0 {
            let snapshot = self.shared.published().snapshot.clone();
            if self.shared.failure().is_none()
                && let Err(error) = self.flush(&snapshot)
            {
                self.shared.fail(&error);
            }
            match message {
                Message::Due => {}
                // The caller may have gone.
                Message::Now(done) => drop(done.send(())),
                Message::End => return,
            }
        }
    }

    fn flush(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        if self.flushed == Some(snapshot.version()) {
            return Ok(());
        }
        let tree = &snapshot.version.tree;
        let mut pack = Pack::new(self);
        if let Some(Slot::Child(top)) = &tree.top {
            pack.page(&top.link);
        }
        let (placed, chunk) = pack.finish()?;
        self.chunk = chunk;
        // A crash here leaves chunks that no record names: the next opening sweeps them.
        let id = |link: &Arc<Link>| placed.get(&Arc::as_ptr(link)).map(|(_, id)| *id);
        let flush = record::Flush {
            top: tree.top.as_ref().map(|top| top.to_record(&id)),
            entries: tree.entries,
            bytes: tree.bytes,
            epoch: self.epoch,
            chunks: self.chunk,
        };
        let mut batch = Batch::new();
        batch.put(Keyspace::Meta, key(snapshot.version()).to_vec(), encode(&flush));
        self.writer.write(batch).wait()?;
        // A crash here leaves a finished flush.
        for (link, id) in placed.into_values() {
            self.shared.pages.stored(&link, id);
        }
        self.flushed = Some(snapshot.version());
        // Deleting is left to the committer: it alone knows which of them are being made again.
        self.shared.forget(old_requests(&*self.shared.engine, (self.shared.clock)())?);
        Ok(())
    }
}

/// Where pages were put, by the address of their links.
type Placed = HashMap<*const Link, (Arc<Link>, PageId)>;

/// Pages on their way into chunks.
struct Pack<'a> {
    flusher: &'a Flusher,
    chunk: Vec<u8>,
    /// The number of that chunk.
    number: u32,
    batch: Batch,
    tickets: Vec<Ticket>,
    placed: Placed,
}

impl<'a> Pack<'a> {
    fn new(flusher: &'a Flusher) -> Self {
        let (chunk, tickets, placed) = <_>::default();
        Pack { flusher, chunk, number: flusher.chunk, batch: Batch::new(), tickets, placed }
    }

    /// Writes the page of `link` and all below it that are not stored. Recurses from page to page.
    fn page(&mut self, link: &Arc<Link>) {
        if link.id().is_some() {
            return;
        }
        let page = link.loaded().expect("a page that is not stored is in memory");
        page.links().iter().for_each(|below| self.page(below));
        let id = |link: &Arc<Link>| self.placed.get(&Arc::as_ptr(link)).map(|(_, id)| *id);
        let bytes = page.encode(&id);
        let id = PageId {
            epoch: self.flusher.epoch,
            chunk: self.number,
            offset: u32::try_from(self.chunk.len()).expect("chunks are small"),
            length: u32::try_from(bytes.len()).expect("pages are small"),
        };
        self.chunk.extend(bytes);
        self.placed.insert(Arc::as_ptr(link), (link.clone(), id));
        if self.chunk.len() >= CHUNK_BYTES {
            self.close_chunk();
        }
    }

    fn close_chunk(&mut self) {
        if self.chunk.is_empty() {
            return;
        }
        let key = PageId::chunk_key(self.flusher.epoch, self.number);
        self.number += 1;
        self.batch.put(Keyspace::Pages, key.to_vec(), std::mem::take(&mut self.chunk));
        if self.batch.bytes() >= BATCH_BYTES {
            let batch = std::mem::take(&mut self.batch);
            self.tickets.push(self.flusher.writer.write(batch));
        }
    }

    /// Waits until all pages are durable. Gives where they are, and the number of the next chunk.
    fn finish(mut self) -> Result<(Placed, u32), Error> {
        self.close_chunk();
        self.tickets.push(self.flusher.writer.write(self.batch));
        for ticket in self.tickets {
            ticket.wait()?;
        }
        Ok((self.placed, self.number))
    }
}

/// The key of the record of a flush.
pub(crate) fn key(version: Version) -> [u8; 14] {
    let mut key = [0; 14];
    key[..6].copy_from_slice(FLUSH_PREFIX);
    key[6..].copy_from_slice(&version.0.to_be_bytes());
    key
}

/// The newest flush of a version up to `version`: the version and its record's bytes.
pub(crate) fn find(
    engine: &dyn Engine,
    version: Version,
) -> Result<Option<(Version, Bytes)>, Error> {
    use std::ops::Bound::Included;
    let (first, last) = (key(Version(0)), key(version));
    let mut found =
        engine.scan(Keyspace::Meta, Included(&first), Included(&last), Direction::Descending);
    let Some(entry) = found.next() else { return Ok(None) };
    let (key, value) = entry?;
    // A key of another length is none that was written.
    let version = version_of(&key).ok_or(Error::Damaged(Damage::Manifest))?;
    Ok(Some((version, value)))
}

/// The version in the key of the record of a flush.
pub(crate) fn version_of(key: &[u8]) -> Option<Version> {
    let version = key.strip_prefix(FLUSH_PREFIX)?.try_into().ok()?;
    Some(Version(u64::from_be_bytes(version)))
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
