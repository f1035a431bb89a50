//! Goal: every engine keeps the contract of `anwansi_store::engine`, in calm and in a crash.
//!
//! Method: one suite, run on each engine. Contents are compared with a `BTreeMap`; sizes are those
//! around limits and powers of two. For crashes a child process (this file, run again) writes
//! batches that all carry one number, says which are acknowledged, and is killed at a random moment;
//! what is found then must be all batches up to some number, whole, and no less than was said.
//! `fdatasync.sh` runs the same child under strace. Seeds are fixed and printed.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail by panicking too")]

#[path = "engines/child.rs"]
mod child;
#[path = "engines/model.rs"]
mod model;

use std::{
    fs,
    ops::Bound,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anwansi_store::engine::{
    self, Batch, Direction, Engine, EngineError, KEY_BYTES_MAX, Keyspace, VALUE_BYTES_MAX,
};
use bytes::Bytes;
use model::Model;

/// Where an engine under test keeps its store.
struct Place {
    scheme: &'static str,
    directory: tempfile::TempDir,
}

impl Place {
    fn new(scheme: &'static str) -> Self {
        Self { scheme, directory: tempfile::tempdir().unwrap() }
    }

    /// Not there yet, in a directory that is.
    fn path(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn url(&self) -> String {
        match self.scheme {
            "memory" => "memory:".to_owned(),
            scheme => format!("{scheme}:{}", self.path().display()),
        }
    }

    fn open(&self) -> Arc<dyn Engine> {
        engine::open(&self.url()).unwrap()
    }

    fn open_error(&self) -> EngineError {
        engine::open(&self.url()).unwrap_err()
    }
}

macro_rules! suite {
    ($name:ident on $($engine:ident),*: $tests:tt) => {
        mod $name {
            $(mod $engine { suite! { @ $engine $tests } })*
        }
    };
    (@ $engine:ident { $($test:ident)* }) => {
        $(#[test]
        fn $test() {
            super::super::$test(&super::super::Place::new(stringify!($engine)));
        })*
    };
}

suite! { contract on memory, fjall, sled: {
    batches_are_visible_at_once
    keyspaces_do_not_share_keys
    scans_are_ordered_and_bounded_both_ways
    the_last_change_to_a_key_counts
    keys_of_all_sizes_are_kept
    values_of_all_sizes_are_kept
    batches_of_many_chunks_are_kept
    get_many_answers_in_the_order_asked
    random_batches_match_a_map
} }

suite! { durable on fjall, sled: {
    synced_data_is_there_after_reopening
    random_batches_match_a_map_over_reopenings
    values_of_all_sizes_are_there_after_reopening
    a_second_writer_is_refused
    a_foreign_directory_is_refused_and_untouched
    a_directory_of_another_engine_is_refused
    a_creation_cut_short_is_begun_anew
    a_store_whose_files_are_gone_is_corrupt
    a_new_directory_is_for_its_owner_only
    what_is_ingested_is_there_when_finished_and_not_before
    what_is_discarded_and_then_deleted_is_gone_and_nothing_else
    killed_at_any_moment_it_keeps_a_prefix_with_all_that_was_acknowledged
} }

fn what_is_ingested_is_there_when_finished_and_not_before(place: &Place) {
    let entry = |number: u32| {
        let key = Bytes::copy_from_slice(&number.to_be_bytes());
        (key, Bytes::from(vec![number.to_be_bytes()[3]; 40_000]))
    };
    let mut expected = Vec::new();
    // The first of each round ends with the process that was to finish it.
    for round in 0..3 {
        let engine = place.open();
        assert_eq!(all(&*engine, Keyspace::Pages), expected);
        for finished in [false, true] {
            // Not every engine has a way of its own.
            let Some(mut ingest) = engine.ingest(Keyspace::Pages).unwrap() else { return };
            let entries = (100 * round..100 * round + 50).map(entry).collect::<Vec<_>>();
            for (key, value) in &entries {
                ingest.put(key.clone(), value.clone()).unwrap();
            }
            // Batches go on meanwhile, and other entries of the same keyspace too.
            let mut batch = Batch::new();
            batch.put(Keyspace::Meta, "round", vec![u8::try_from(round).unwrap()]);
            batch.delete(Keyspace::Pages, entry(100 * round + 99).0);
            engine.write(batch).unwrap();
            assert_eq!(all(&*engine, Keyspace::Pages), expected);
            if finished {
                ingest.finish().unwrap();
                expected.extend(entries);
                assert_eq!(all(&*engine, Keyspace::Pages), expected);
            }
        }
        // Batches change what was ingested.
        let (gone, _) = expected.remove(0);
        let mut batch = Batch::new();
        batch.delete(Keyspace::Pages, gone);
        engine.write(batch).unwrap();
        engine.sync().unwrap();
        assert_eq!(all(&*engine, Keyspace::Pages), expected);
    }
}

fn what_is_discarded_and_then_deleted_is_gone_and_nothing_else(place: &Place) {
    let key = |number: u32| Bytes::copy_from_slice(&number.to_be_bytes());
    let engine = place.open();
    // Some in tables of their own, if the engine has such, some in none yet; a part of those that go are deleted before.
    for run in [0..100_u32, 100..200, 200..300] {
        if let Some(mut ingest) = engine.ingest(Keyspace::Pages).unwrap() {
            run.for_each(|at| ingest.put(key(at), vec![7; 9000].into()).unwrap());
            ingest.finish().unwrap();
        } else {
            let mut batch = Batch::new();
            run.for_each(|at| batch.put(Keyspace::Pages, key(at), vec![7; 9000]));
            engine.write(batch).unwrap();
        }
    }
    let mut batch = Batch::new();
    (300..310).for_each(|at| batch.put(Keyspace::Pages, key(at), "new"));
    (150..160).for_each(|at| batch.delete(Keyspace::Pages, key(at)));
    engine.write(batch).unwrap();
    let before = all(&*engine, Keyspace::Pages);
    engine.discard(Keyspace::Pages, &key(90), &key(90)).unwrap();
    engine.discard(Keyspace::Pages, &key(91), &key(90)).unwrap();
    assert_eq!(all(&*engine, Keyspace::Pages), before);

    engine.discard(Keyspace::Pages, &key(90), &key(250)).unwrap();
    let is_inside = |entry: &(Bytes, Bytes)| (key(90)..key(250)).contains(&entry.0);
    let left = all(&*engine, Keyspace::Pages).into_iter().filter(is_inside).collect::<Vec<_>>();
    let mut batch = Batch::new();
    for (key, _) in left {
        batch.delete(Keyspace::Pages, key);
    }
    engine.write(batch).unwrap();
    engine.sync().unwrap();
    let expected = before.into_iter().filter(|entry| !is_inside(entry)).collect::<Vec<_>>();
    assert_eq!(all(&*engine, Keyspace::Pages), expected);
    drop(engine);
    assert_eq!(all(&*place.open(), Keyspace::Pages), expected);
}

fn all(engine: &dyn Engine, space: Keyspace) -> Vec<(Bytes, Bytes)> {
    engine
        .scan(space, Bound::Unbounded, Bound::Unbounded, Direction::Ascending)
        .collect::<Result<_, _>>()
        .unwrap()
}

fn batches_are_visible_at_once(place: &Place) {
    let engine = place.open();
    let number = |value: Option<Bytes>| -> u32 {
        value.map_or(0, |value| u32::from_be_bytes(value[..].try_into().unwrap()))
    };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=3000_u32 {
                let mut batch = Batch::new();
                for space in Keyspace::ALL {
                    for key in ["a", "b", "c"] {
                        batch.put(space, key, n.to_be_bytes().to_vec());
                    }
                }
                engine.write(batch).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            // What one read has seen, every later one sees, in the order of writing and against it.
            let mut seen = 0;
            for space in Keyspace::ALL.into_iter().chain(Keyspace::ALL.into_iter().rev()) {
                for key in [b"a", b"b", b"c", b"b", b"a"] {
                    let now = number(engine.get(space, key).unwrap());
                    assert!(now >= seen, "{now} after {seen}");
                    seen = now;
                }
                let many = engine.get_many(space, &[b"a", b"c", b"b"]).unwrap();
                let many: Vec<u32> = many.into_iter().map(number).collect();
                assert!(many[0] >= seen && many[0] == many[1] && many[1] == many[2], "{many:?}");
                seen = many[0];
            }
        }
    });
    for space in Keyspace::ALL {
        assert_eq!(number(engine.get(space, b"c").unwrap()), 3000);
    }
}

fn keyspaces_do_not_share_keys(place: &Place) {
    let engine = place.open();
    for space in Keyspace::ALL {
        let mut batch = Batch::new();
        batch.put(space, "key", space.name());
        engine.write(batch).unwrap();
    }
    let mut batch = Batch::new();
    batch.delete(Keyspace::Tiles, "key");
    engine.write(batch).unwrap();
    for space in Keyspace::ALL {
        let value = (space != Keyspace::Tiles).then(|| Bytes::from(space.name()));
        assert_eq!(engine.get(space, b"key").unwrap(), value);
        assert_eq!(all(&*engine, space).len(), usize::from(value.is_some()));
    }
}

fn scans_are_ordered_and_bounded_both_ways(place: &Place) {
    let engine = place.open();
    let mut model = Model::default();
    let mut batch = Batch::new();
    // Prefixes of one another, zeros at the end, and the ends of the byte range.
    let keys: [&[u8]; 12] = [
        b"\0",
        b"\0\0",
        b"\0\0\0\0\0",
        b"\x01",
        b"a",
        b"a\0",
        b"a\0\0\0\0\x01",
        b"ab",
        b"b",
        b"\xfe\xff",
        b"\xff",
        b"\xff\xff\xff",
    ];
    for key in keys {
        for space in [Keyspace::Meta, Keyspace::Pages, Keyspace::Requests] {
            batch.put(space, key.to_vec(), [space.name().as_bytes(), key].concat());
        }
    }
    model.apply(&batch);
    engine.write(batch).unwrap();
    for space in Keyspace::ALL {
        for start in &keys {
            for end in &keys {
                for (start, end) in model::bounds(start, end) {
                    model.assert_scan(&*engine, space, start, end);
                }
            }
        }
    }
}

fn the_last_change_to_a_key_counts(place: &Place) {
    let engine = place.open();
    let space = Keyspace::Meta;
    let mut batch = Batch::new();
    batch.put(space, "put put", "1");
    batch.put(space, "put put", "2");
    batch.put(space, "put delete", "1");
    batch.delete(space, "put delete");
    batch.put(space, "old put delete", "1");
    batch.delete(space, "delete put");
    batch.put(space, "delete put", "1");
    batch.put(space, "large small", vec![1; 1 << 20]);
    batch.put(space, "large small", "2");
    batch.put(space, "old large", vec![1; 1 << 20]);
    engine.write(batch).unwrap();
    let mut batch = Batch::new();
    batch.put(space, "old put delete", "2");
    batch.delete(space, "old put delete");
    batch.delete(space, "never there");
    batch.put(space, "old large", "2");
    engine.write(batch).unwrap();
    engine.write(Batch::new()).unwrap();
    let expected: Vec<(Bytes, Bytes)> =
        [("delete put", "1"), ("large small", "2"), ("old large", "2"), ("put put", "2")]
            .map(|(key, value)| (key.into(), value.into()))
            .into();
    assert_eq!(all(&*engine, space), expected);
    if place.scheme != "memory" {
        engine.sync().unwrap();
        drop(engine);
        assert_eq!(all(&*place.open(), space), expected);
    }
}

fn keys_of_all_sizes_are_kept(place: &Place) {
    let engine = place.open();
    let sizes = [1, 2, 3, 7, 8, 9, 31, 32, 33, 127, 128, 129, 255, 256, 257, 1023, 1024, 1025];
    let mut model = Model::default();
    for size in sizes.into_iter().chain([KEY_BYTES_MAX - 1, KEY_BYTES_MAX]) {
        let mut batch = Batch::new();
        for fill in [0, 0x61, 0xff] {
            batch.put(Keyspace::Requests, vec![fill; size], size.to_be_bytes().to_vec());
        }
        model.apply(&batch);
        engine.write(batch).unwrap();
    }
    model.assert_holds(&*engine);
}

/// Sizes around powers of two, up to the largest.
fn value_sizes() -> impl Iterator<Item = usize> {
    let powers = (1..25).map(|power| 1 << power).flat_map(|size| [size - 1, size, size + 1]);
    [0].into_iter().chain(powers).chain([VALUE_BYTES_MAX - 1, VALUE_BYTES_MAX])
}

fn write_values_of_all_sizes(engine: &dyn Engine) {
    for size in value_sizes() {
        let mut batch = Batch::new();
        batch.put(Keyspace::Values, size.to_be_bytes().to_vec(), model::bytes(size as u64, size));
        engine.write(batch).unwrap();
    }
}

fn assert_values_of_all_sizes(engine: &dyn Engine) {
    for size in value_sizes() {
        let value = engine.get(Keyspace::Values, &size.to_be_bytes()).unwrap().unwrap();
        assert!(value == model::bytes(size as u64, size), "size {size}");
    }
    let entries =
        engine.scan(Keyspace::Values, Bound::Unbounded, Bound::Unbounded, Direction::Descending);
    let mut sizes: Vec<usize> = entries
        .map(|entry| {
            let (key, value) = entry.unwrap();
            assert_eq!(key, value.len().to_be_bytes()[..]);
            value.len()
        })
        .collect();
    sizes.reverse();
    let mut expected: Vec<usize> = value_sizes().collect();
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(sizes, expected);
}

fn values_of_all_sizes_are_kept(place: &Place) {
    let engine = place.open();
    write_values_of_all_sizes(&*engine);
    assert_values_of_all_sizes(&*engine);
    assert!(engine.size_on_disk().unwrap() > VALUE_BYTES_MAX as u64);
}

fn values_of_all_sizes_are_there_after_reopening(place: &Place) {
    let engine = place.open();
    write_values_of_all_sizes(&*engine);
    engine.sync().unwrap();
    drop(engine);
    let engine = place.open();
    assert_values_of_all_sizes(&*engine);
    let mut batch = Batch::new();
    for size in value_sizes() {
        batch.delete(Keyspace::Values, size.to_be_bytes().to_vec());
    }
    engine.write(batch).unwrap();
    engine.sync().unwrap();
    drop(engine);
    assert_eq!(all(&*place.open(), Keyspace::Values), []);
}

fn batches_of_many_chunks_are_kept(place: &Place) {
    const CHUNK: usize = 32 << 10;
    let engine = place.open();
    for first in [0_u32, 1000] {
        let mut batch = Batch::new();
        for id in first..first + 1000 {
            let chunk = model::bytes(u64::from(id), CHUNK);
            batch.put(Keyspace::Pages, id.to_be_bytes().to_vec(), chunk);
        }
        assert_eq!(batch.bytes(), 1000 * (4 + CHUNK));
        engine.write(batch).unwrap();
        engine.sync().unwrap();
    }
    for (id, (key, value)) in (0_u32..).zip(all(&*engine, Keyspace::Pages)) {
        assert_eq!(key, id.to_be_bytes()[..]);
        assert!(value == model::bytes(u64::from(id), CHUNK), "chunk {id}");
    }
    assert_eq!(all(&*engine, Keyspace::Pages).len(), 2000);
}

fn get_many_answers_in_the_order_asked(place: &Place) {
    let engine = place.open();
    let mut batch = Batch::new();
    for key in ["a", "b", "c"] {
        batch.put(Keyspace::Headers, key, key);
    }
    engine.write(batch).unwrap();
    let keys: [&[u8]; 6] = [b"c", b"absent", b"a", b"c", b"", b"b"];
    let answer = engine.get_many(Keyspace::Headers, &keys).unwrap();
    let expected = [Some("c"), None, Some("a"), Some("c"), None, Some("b")];
    assert_eq!(answer, expected.map(|value| value.map(Bytes::from)));
    assert_eq!(engine.get_many(Keyspace::Headers, &[]).unwrap(), []);
    assert_eq!(engine.get(Keyspace::Headers, b"").unwrap(), None, "no key is empty");
}

fn random_batches_match_a_map(place: &Place) {
    let mut random = model::seeded(1);
    let engine = place.open();
    let mut model = Model::default();
    for _ in 0..300 {
        let batch = model::random_batch(&mut random);
        model.apply(&batch);
        engine.write(batch).unwrap();
    }
    model.assert_holds(&*engine);
}

fn synced_data_is_there_after_reopening(place: &Place) {
    for round in 0..3_u8 {
        let engine = place.open();
        for before in 0..round {
            assert_eq!(engine.get(Keyspace::Meta, &[before]).unwrap().unwrap(), vec![before; 99]);
        }
        assert_eq!(all(&*engine, Keyspace::Meta).len(), usize::from(round));
        let mut batch = Batch::new();
        batch.put(Keyspace::Meta, vec![round], vec![round; 99]);
        engine.write(batch).unwrap();
        engine.sync().unwrap();
    }
}

fn random_batches_match_a_map_over_reopenings(place: &Place) {
    let mut random = model::seeded(2);
    let mut model = Model::default();
    for _ in 0..6 {
        let engine = place.open();
        model.assert_holds(&*engine);
        for _ in 0..100 {
            let batch = model::random_batch(&mut random);
            model.apply(&batch);
            engine.write(batch).unwrap();
        }
        engine.sync().unwrap();
    }
    model.assert_holds(&*place.open());
}

fn a_second_writer_is_refused(place: &Place) {
    let engine = place.open();
    assert!(matches!(place.open_error(), EngineError::Locked { path } if path == place.path()));
    assert_eq!(child::open(&place.url()), "locked");
    // The refused ones have done no harm, and the lock goes with its holder.
    let mut batch = Batch::new();
    batch.put(Keyspace::Meta, "key", "value");
    engine.write(batch).unwrap();
    engine.sync().unwrap();
    drop(engine);
    assert_eq!(child::open(&place.url()), "opened");
    assert_eq!(place.open().get(Keyspace::Meta, b"key").unwrap().unwrap(), "value");
}

fn a_foreign_directory_is_refused_and_untouched(place: &Place) {
    fs::create_dir(place.path()).unwrap();
    fs::write(place.path().join("thesis.txt"), "years of work").unwrap();
    let before = fs::metadata(place.path()).unwrap().modified().unwrap();
    assert!(matches!(place.open_error(), EngineError::NotOurs { path } if path == place.path()));
    let names: Vec<_> =
        fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["thesis.txt"]);
    assert_eq!(fs::read(place.path().join("thesis.txt")).unwrap(), b"years of work");
    assert_eq!(fs::metadata(place.path()).unwrap().modified().unwrap(), before);
    // An empty directory is as good as none.
    fs::remove_file(place.path().join("thesis.txt")).unwrap();
    drop(place.open());
}

fn a_directory_of_another_engine_is_refused(place: &Place) {
    drop(place.open());
    let marker = place.path().join("anwansi-store");
    let text = fs::read_to_string(&marker).unwrap();
    fs::write(&marker, text.replace(place.scheme, "abacus")).unwrap();
    assert!(
        matches!(place.open_error(), EngineError::OtherEngine { found, .. } if found == "abacus")
    );
    fs::write(&marker, "anwansi-store 2\n").unwrap();
    assert!(matches!(place.open_error(), EngineError::Corrupt { .. }));
    fs::write(&marker, text).unwrap();
    drop(place.open());
}

fn a_creation_cut_short_is_begun_anew(place: &Place) {
    drop(place.open());
    let marker = place.path().join("anwansi-store");
    let ready = fs::read_to_string(&marker).unwrap();
    let creating = ready.replace("ready", "creating");
    assert_ne!(ready, creating);
    // Cut short among the engine's files: half of them are there.
    fs::write(&marker, &creating).unwrap();
    for entry in fs::read_dir(place.path().join(place.scheme)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.extension().is_none() {
            fs::remove_file(path).unwrap();
        }
    }
    drop(place.open());
    assert_eq!(fs::read_to_string(&marker).unwrap(), ready);
    // Cut short before the marker: a lock file, and the next marker half written.
    fs::remove_dir_all(place.path().join(place.scheme)).unwrap();
    fs::remove_file(&marker).unwrap();
    fs::write(place.path().join("anwansi-store.next"), "anwan").unwrap();
    drop(place.open());
    assert_eq!(fs::read_to_string(&marker).unwrap(), ready);
}

fn a_store_whose_files_are_gone_is_corrupt(place: &Place) {
    drop(place.open());
    fs::remove_dir_all(place.path().join(place.scheme)).unwrap();
    assert!(matches!(place.open_error(), EngineError::Corrupt { .. }));
}

fn a_new_directory_is_for_its_owner_only(place: &Place) {
    drop(place.open());
    let mode = fs::metadata(place.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

fn killed_at_any_moment_it_keeps_a_prefix_with_all_that_was_acknowledged(place: &Place) {
    let mut random = model::seeded(3);
    let mut last = 0;
    for round in 0..10 {
        let acknowledged = child::write_and_be_killed(&place.url(), last, &mut random);
        let engine = place.open();
        let held = child::assert_prefix(&*engine);
        assert!(held >= acknowledged, "round {round}: {held} held, {acknowledged} acknowledged");
        println!("round {round}: {last} before, {acknowledged} acknowledged, {held} held");
        last = held;
    }
    assert!(last > 100, "the children wrote too little to tell: {last} batches");
}

/// sled never syncs its side files, whatever is asked of it.
#[test]
fn sled_puts_nothing_into_side_files() {
    let place = Place::new("sled");
    let engine = place.open();
    write_values_of_all_sizes(&*engine);
    engine.sync().unwrap();
    let side_files = fs::read_dir(place.path().join("sled/blobs")).unwrap().count();
    assert_eq!(side_files, 0);
}

#[test]
fn urls_that_name_no_engine_are_refused_with_those_that_do() {
    for url in ["", "fjall", "fjall:", "memory", "memory:x", "redis:./data", ":", "./data"] {
        let error = engine::open(url).unwrap_err();
        assert!(matches!(&error, EngineError::UnknownUrl { url: named } if named == url));
        for known in engine::URLS {
            assert!(error.to_string().contains(known), "{error}");
        }
    }
}

#[test]
#[should_panic(expected = "a key has 1 to 1100 bytes")]
fn a_key_one_byte_too_long_is_a_mistake_of_ours() {
    Batch::new().put(Keyspace::Meta, vec![0; KEY_BYTES_MAX + 1], "");
}

#[test]
#[should_panic(expected = "a key has 1 to 1100 bytes")]
fn an_empty_key_is_a_mistake_of_ours() {
    Batch::new().delete(Keyspace::Meta, "");
}

#[test]
#[should_panic(expected = "a value has at most")]
fn a_value_one_byte_too_long_is_a_mistake_of_ours() {
    Batch::new().put(Keyspace::Meta, "key", vec![0; VALUE_BYTES_MAX + 1]);
}

/// A child that is being started shares our open files until it runs its own program.
#[test]
fn directory_that_was_closed_is_free_even_while_processes_are_started() {
    let place = Place::new("fjall");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::process::Command::new("true").status().unwrap();
                }
            });
        }
        for _ in 0..60 {
            let opened = engine::open(&place.url());
            if opened.is_err() {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            drop(opened.unwrap());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
