//! Opening: from what is stored, whatever a crash left, to the newest durable version.

use std::{
    collections::HashMap,
    ops::Bound::{Included, Unbounded},
    sync::{Arc, Mutex},
    thread,
};

use anwansi_proofs::{Header, LogHash, Version};

use crate::{
    Damage, Error, Options, Store,
    commit::{Committer, IN_FLIGHT_MAX, Jobs},
    engine::{Batch, Direction, Engine, Keyspace, Writer},
    flush::{Flusher, Trigger},
    flushes::{self, Flushed},
    gate::Gate,
    keys::LogKey,
    ledger::{self, Clerk},
    log::Log,
    record::{MANIFEST_KEY, Manifest, SIGNED_KEY, Signed, decode, encode},
    replay::{GATHERED_BYTES, replay},
    retention::{Keep, Pruner, Versions},
    segments::{Image, Segments},
    snapshot::At,
    store::{Shared, Threads},
    threads,
    tree::{PageId, Pages, Tree, Write},
    undo::Undo,
    version,
};

/// Bytes of commits that wait for the committer, at most; a larger one waits alone.
const QUEUE_BYTES_MAX: usize = 256 << 20;

/// The part of the budget for pages that changes may have which are applied at once, if that is more than
/// [`GATHERED_BYTES`]: few pages are in memory yet.
const GATHERED_PART: usize = 8;

/// The part of the budget for pages that undo may take, beside it.
const UNDO_PART: usize = 16;

/// Opens the store in `engine`, or makes a new one.
pub(crate) fn open(
    engine: Arc<dyn Engine>,
    key: LogKey,
    options: &Options,
) -> Result<Store, Error> {
    let epoch = match engine.get(Keyspace::Meta, MANIFEST_KEY)? {
        Some(manifest) => next_epoch(&manifest, &key)?,
        None if newest_version(&*engine)?.is_some() => {
            return Err(Error::Damaged(Damage::Manifest));
        }
        None => 1,
    };
    let writer = Arc::new(Writer::new(engine.clone())?);
    let manifest = Manifest { vkey: key.vkey().to_string(), epoch };
    let mut batch = Batch::new();
    batch.put(Keyspace::Meta, MANIFEST_KEY, encode(&manifest));
    if epoch == 1 {
        let first = Header::first(key.origin().clone(), (options.clock)());
        version::write(&first, &[], &[], &mut batch);
        let mut log = Log::default();
        log.append(first.to_string().as_bytes(), &mut batch);
        log.note_signing(&mut batch);
    }
    writer.write(batch).wait()?;
    // A crash here leaves a store that was opened once more, or a new one that holds version 0.

    let pool = Arc::new(threads::pool(options)?);
    let pages = Arc::new(Pages::new(engine.clone(), options.cache_bytes, pool));
    let newest = newest_version(&*engine)?.ok_or(Error::Damaged(Damage::Header(Version(0))))?;
    let log = Log::load(&*engine, newest.0 + 1, |index| {
        Ok(version::read(&*engine, Version(index))?.1.header)
    })?;
    compare_with_signed(&*engine, &log)?;
    let (trigger, messages) = Trigger::new(options.cache_bytes);
    let versions = Versions::load(&*engine)?;
    let replayed = threads::aside(|| remake(&*engine, &pages, &writer, newest, &trigger))?;
    let (last_flush, header, tree) = replayed?;
    let image = last_flush.map_or_else(Image::default, |flush| flush.image);
    let segments = Segments::load(&*engine, image)?;
    let undo = Undo::new(options.cache_bytes / UNDO_PART, options.retention.as_ref());
    let at = Arc::new(At::new(header.clone(), tree.clone(), &versions));

    let clock = options.clock.clone();
    let state = (at, log.clone());
    let desk = ledger::recover(&*engine, options)?;
    let shared = Arc::new(Shared::new(
        engine,
        pages,
        (key, clock),
        trigger,
        (versions, segments, undo),
        state,
        desk,
    ));
    let (sender, received) = Store::queue();
    let jobs = Jobs { sender, queue: Gate::new(QUEUE_BYTES_MAX) };
    let keep = Keep { versions: options.retention, decided: options.keep_decided };
    let work = Flusher {
        shared: shared.clone(),
        writer: writer.clone(),
        epoch,
        flushed: last_flush,
        chunk: 0,
        keep,
    };
    let pruner = (keep != Keep::default()).then(|| Pruner {
        shared: shared.clone(),
        writer: writer.clone(),
        keep,
        done: options.pruned.clone(),
    });
    let in_flight = Gate::new(IN_FLIGHT_MAX);
    let requests = HashMap::new();
    let mut own = vec![writer.thread_id()];
    let clerk = Clerk { shared: shared.clone(), writer: writer.clone(), jobs: jobs.clone() };
    let journal = writer.clone();
    let committer =
        Committer { shared: shared.clone(), writer, header, tree, log, in_flight, requests };
    let mut handles = Vec::new();
    let mut spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        let thread =
            thread::Builder::new().name(name.into()).stack_size(threads::STACK_BYTES).spawn(run);
        let thread = thread.map_err(threads::not_started)?;
        own.push(thread.thread().id());
        handles.push(thread);
        Ok::<_, Error>(())
    };
    // If one does not start, those before it end with the queue that is dropped.
    spawn("anwansi committer", Box::new(move || committer.run(&received)))?;
    spawn("anwansi flusher", Box::new(move || work.run(&messages)))?;
    spawn("anwansi clerk", Box::new(move || clerk.run()))?;
    if let Some(pruner) = pruner {
        // What an earlier one has left, and what is behind the newest flush.
        let flushed = last_flush.map_or(Version(0), |flush| flush.version);
        shared.pruning.flushed(flushed, &pruner.keep);
        spawn("anwansi pruner", Box::new(move || pruner.run()))?;
    }
    // If nobody commits, nobody else asks for it.
    let state_bytes = shared.published().snapshot.bytes();
    shared.flush.after(0, state_bytes, shared.pages.unstored_bytes());
    let (jobs, writer) = (Mutex::new(Some(jobs)), Mutex::new(Some(journal)));
    let handles = Mutex::new(handles);
    let threads = Threads { jobs, writer, handles, own, shared: shared.clone() };
    Ok(Store::new(shared, threads))
}

/// Checks that the store is the one asked for, and gives the epoch of this opening.
fn next_epoch(manifest: &[u8], key: &LogKey) -> Result<u32, Error> {
    let Manifest { vkey: found, epoch } = decode(manifest, Damage::Manifest)?;
    let asked = key.vkey().to_string();
    if found != asked {
        return Err(Error::OtherLog { found, asked });
    }
    epoch.checked_add(1).ok_or(Error::Damaged(Damage::Manifest))
}

fn newest_version(engine: &dyn Engine) -> Result<Option<Version>, Error> {
    let damaged = Error::Damaged(Damage::Header(Version(0)));
    let mut newest = engine.scan(Keyspace::Headers, Unbounded, Unbounded, Direction::Descending);
    let Some(entry) = newest.next() else { return Ok(None) };
    let version = entry?.0[..].try_into().map_err(|_| damaged)?;
    Ok(Some(Version(u64::from_be_bytes(version))))
}

/// Refuses to go on behind a checkpoint that was signed: that would be a second history.
fn compare_with_signed(engine: &dyn Engine, log: &Log) -> Result<(), Error> {
    let bytes = engine.get(Keyspace::Meta, SIGNED_KEY)?.unwrap_or_default();
    let Signed { size, root } = decode(&bytes, Damage::Signed)?;
    // It is written in the batch of the version that it is for, so it names the newest one.
    if (size, LogHash(root)) == (log.size(), log.root()) {
        Ok(())
    } else {
        Err(Error::WentBack { signed: size })
    }
}

/// The newest version: the newest flush, and the changes since. Gives that flush too.
fn remake(
    engine: &dyn Engine,
    pages: &Pages,
    writer: &Writer,
    newest: Version,
    trigger: &Trigger,
) -> Result<(Option<Flushed>, Header, Tree), Error> {
    let found = flushes::newest(engine, newest)?;
    let start = match &found {
        Some((flush, bytes)) => (flush.version, flushes::tree(pages, (flush, bytes))?),
        None => <_>::default(),
    };
    let flushed = found.map(|(flush, _)| flush);
    let count = |changes: &[Write]| trigger.count(version::bytes_of(changes));
    let gathered_max = GATHERED_BYTES.max(pages.bytes_max() / GATHERED_PART);
    let (header, tree, _) = replay(engine, pages, start, newest, gathered_max, count)?;
    // Only now it is certain that the flush is what it says.
    sweep(engine, writer, flushed.map_or_else(Image::default, |flush| flush.image))?;
    Ok((flushed, header, tree))
}

/// Deletes the chunks of flushes that a crash left unfinished: those behind the newest finished one.
fn sweep(engine: &dyn Engine, writer: &Writer, newest: Image) -> Result<(), Error> {
    let end = PageId::chunk_key(newest.epoch, newest.chunks);
    let mut batch = Batch::new();
    for entry in engine.scan(Keyspace::Pages, Included(&end), Unbounded, Direction::Ascending) {
        batch.delete(Keyspace::Pages, entry?.0);
    }
    if !batch.operations().is_empty() {
        writer.write(batch).wait()?;
    }
    Ok(())
}
