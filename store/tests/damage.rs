//! Damaged bytes are named, refused or harmless: never read as something else, never a panic.
//!
//! Method: every byte of everything a small store has stored is changed, each in a copy of its own; the
//! copy is opened, read and checked. Then what is missing, foreign, newer or older than what was signed.
#![allow(clippy::unwrap_used)]

mod common;
mod machine;

use std::{num::NonZeroU64, ops::Bound::Unbounded, sync::Arc};

use anwansi_proofs::{Digest, Version};
use anwansi_store::{
    Commit, Damage, Error, LogKey, Options, RequestId, Retention, Store,
    engine::{Batch, Direction, Engine, Keyspace, Memory},
};
use bytes::Bytes;
use common::{commit, open, try_open};
use machine::{Habit, Node};

/// A store with some of everything: three versions, a flush between, a value on its own, a request, a
/// transition with faults, a pin, a value that is replaced, and what leads back from the last versions.
fn small() -> Memory {
    let memory = Arc::new(Memory::new());
    let store = open(memory.clone());
    let keys = (0..40).map(|i| (format!("key{i}").into(), Some(vec![i; 3].into()))).collect();
    store.commit(Commit::new(keys)).unwrap();
    store.flush().unwrap();
    let name = Digest::of(b"request");
    let large = vec![("large".into(), Some(vec![1; 1100].into()))];
    let request = Some(RequestId { name, body: name });
    store.commit(Commit { request, ..Commit::new(large) }).unwrap();
    store.commit(commit(&["key1=2", "key2"])).unwrap();
    let nodes = [Habit::Honest, Habit::Honest, Habit::Equivocates, Habit::Cheats, Habit::Honest];
    let nodes = (0..).zip(nodes).map(|(number, habit)| Node::new(number, habit));
    let nodes = nodes.collect::<Vec<_>>();
    for node in &nodes {
        node.join(&store);
    }
    let mut draft = machine::draft("", &["x"]);
    (draft.policy.pledge_ms, draft.policy.reveal_ms) = (60_000, 100);
    machine::decide(&store, &nodes, &machine::submit(&store, &draft));
    // Nothing is pruned, but for it undo is kept from now on.
    let retention = Retention { last: NonZeroU64::new(100).unwrap(), every: None };
    store.prune(&retention).unwrap();
    store.pin(Version(2)).unwrap();
    store.commit(commit(&["key1=3", "large=small"])).unwrap();
    store.commit(commit(&["key1", "large"])).unwrap();
    drop(store);
    // What versions in memory held is freed, too.
    open(memory.clone()).prune(&retention).unwrap();
    memory.crash(usize::MAX)
}

fn entries(engine: &dyn Engine) -> Vec<(Keyspace, Bytes, Bytes)> {
    let entries = |space| {
        engine.scan(space, Unbounded, Unbounded, Direction::Ascending).map(move |entry| {
            let (key, value) = entry.unwrap();
            (space, key, value)
        })
    };
    Keyspace::ALL.into_iter().flat_map(entries).collect()
}

fn with(memory: &Memory, space: Keyspace, key: &Bytes, value: Option<Bytes>) -> Arc<Memory> {
    let copy = memory.crash(usize::MAX);
    let mut batch = Batch::new();
    match value {
        Some(value) => batch.put(space, key.clone(), value),
        None => batch.delete(space, key.clone()),
    }
    copy.write(batch).unwrap();
    copy.sync().unwrap();
    Arc::new(copy)
}

/// What is wrong with a store, by opening, checking and reading it; `None` if nothing is.
fn wrong(engine: Arc<Memory>) -> Option<String> {
    let store = match try_open(engine) {
        Ok(store) => store,
        Err(error) => return Some(error.to_string()),
    };
    let report = store.check(|_, _| {}).unwrap();
    if let Some(damage) = report.damages.first() {
        return Some(damage.to_string());
    }
    // A segment that nobody knows is never freed.
    if report.left > 0 {
        return Some("left".into());
    }
    // A request is not looked at before it is repeated.
    let name = Digest::of(b"request");
    let request = Some(RequestId { name, body: name });
    match store.commit(Commit { request, ..commit(&["large=x"]) }) {
        Ok(done) => (done.version != Version(2)).then(|| "forgotten request".into()),
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    let memory = small();
    assert_eq!(wrong(Arc::new(memory.crash(usize::MAX))), None);
    let mut changed = 0;
    for (space, key, value) in entries(&memory) {
        let step = if value.len() > 1000 { 7 } else { 1 };
        for at in (0..value.len()).step_by(step) {
            let mut bytes = value.to_vec();
            bytes[at] ^= 0x10;
            let wrong = wrong(with(&memory, space, &key, Some(bytes.into())));
            assert!(wrong.is_some(), "byte {at} of {key:?} in {space:?}");
            changed += 1;
        }
        let cuts = [0, 1, value.len() / 2, value.len().saturating_sub(1)];
        for cut in cuts.into_iter().filter(|cut| *cut < value.len()) {
            let wrong = wrong(with(&memory, space, &key, Some(value.slice(..cut))));
            assert!(wrong.is_some(), "{key:?} in {space:?} cut at {cut}");
        }
        let wrong = wrong(with(&memory, space, &key, None));
        // Others do for a flush, and a pin that is not there was unpinned.
        let is_meta = |prefix| space == Keyspace::Meta && key.starts_with(prefix);
        let harmless = is_meta(b"flush/") || is_meta(b"kept/");
        assert!(wrong.is_some() || harmless, "{key:?} of {space:?} left out");
    }
    assert!(changed > 2000, "{changed}");
}

#[test]
fn damaged_tile_is_named() {
    let memory = Arc::new(Memory::new());
    let store = open(memory.clone());
    for i in 0..300 {
        store.commit(commit(&[&format!("key={i}")])).unwrap();
    }
    drop(store);
    let all = entries(&*memory);
    let tiles = all.iter().filter(|(space, _, _)| *space == Keyspace::Tiles).collect::<Vec<_>>();
    assert_eq!(tiles.len(), 1);
    let (space, key, value) = tiles[0];
    let mut bytes = value.to_vec();
    bytes[77] ^= 1;
    // The log's root no longer is the one that was signed.
    let opened = try_open(with(&memory, *space, key, Some(bytes.into())));
    assert!(matches!(opened, Err(Error::WentBack { signed: 301 })), "{opened:?}");
}

#[test]
fn damaged_page_hides_its_own_entries_and_no_others() {
    let memory = small();
    let all = entries(&memory);
    let pages = all.iter().filter(|(space, _, _)| *space == Keyspace::Pages);
    let (mut right, mut refused) = (0, 0);
    for (space, key, value) in pages {
        let mut bytes = value.to_vec();
        bytes[20] ^= 1;
        let Ok(store) = try_open(with(&memory, *space, key, Some(bytes.into()))) else { continue };
        for i in 3..40_u8 {
            match store.latest().get(format!("key{i}").as_bytes()) {
                Ok(value) => {
                    assert_eq!(value.as_deref(), Some(&[i; 3][..]));
                    right += 1;
                }
                Err(error) => {
                    assert!(matches!(error, Error::Damaged(Damage::Page(_))), "{error:?}");
                    refused += 1;
                }
            }
        }
        let report = store.check(|_, _| {}).unwrap();
        assert!(matches!(report.damages[..], [Damage::Page(_)]), "{report:?}");
    }
    assert!(right > 0 && refused > 0, "{right} right, {refused} refused");
}

#[test]
fn changes_of_another_version_are_not_this_ones() {
    let memory = Arc::new(Memory::new());
    let store = open(memory.clone());
    for i in 0..4 {
        store.commit(commit(&[&format!("key{i}=1")])).unwrap();
    }
    drop(store);
    let all = entries(&*memory);
    let chunks = all.iter().filter(|(space, _, _)| *space == Keyspace::Changes).collect::<Vec<_>>();
    // Whole records, each in the other's place: only the roots tell.
    let swapped = with(&memory, Keyspace::Changes, &chunks[1].1, Some(chunks[2].2.clone()));
    let store = open(swapped);
    let at = |version| store.at(Version(version)).map(|at| at.version());
    assert!(matches!(at(2), Err(Error::Damaged(Damage::State { version: Version(2), .. }))));
    assert_eq!((at(1).unwrap(), at(4).unwrap()), (Version(1), Version(4)));
    let report = store.check(|_, _| {}).unwrap();
    assert!(matches!(report.damages[0], Damage::State { version: Version(2), .. }), "{report:?}");
}

#[test]
fn store_that_went_back_behind_its_signature_is_refused() {
    let memory = small();
    let all = entries(&memory);
    let headers = all.iter().filter(|(space, _, _)| *space == Keyspace::Headers);
    let newest = &headers.clone().next_back().unwrap().1;
    let versions = headers.count() as u64;
    let opened = try_open(with(&memory, Keyspace::Headers, newest, None));
    let Err(Error::WentBack { signed }) = opened else { panic!("{opened:?}") };
    assert_eq!(signed, versions);
}

#[test]
fn newer_and_foreign_stores_are_refused() {
    let memory = small();
    let all = entries(&memory);
    let (space, key, value) = all.iter().find(|(_, key, _)| *key == "manifest").unwrap();
    let mut bytes = value.to_vec();
    bytes.truncate(bytes.len() - 8);
    bytes[1] += 1;
    let sum = Digest::of(&bytes);
    bytes.extend(&sum.0[..8]);
    let opened = try_open(with(&memory, *space, key, Some(bytes.into())));
    assert!(matches!(opened, Err(Error::OtherFormat { found: 4, known: 3 })), "{opened:?}");

    let other = LogKey::from_secret([8; 32], None).unwrap();
    let opened = Store::open(Arc::new(memory), other, &Options::default());
    assert!(matches!(opened, Err(Error::OtherLog { .. })), "{opened:?}");
}

#[test]
fn key_file_is_private_made_once_and_checked() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log.key");
    let made = LogKey::load_or_create(&file, None).unwrap();
    let mode_of = |file| std::fs::metadata(file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode_of(&file), 0o600);
    let again = LogKey::load_or_create(&file, None).unwrap();
    assert_eq!(made.vkey(), again.vkey());
    assert!(made.origin().as_str().starts_with("localhost:7171/"));
    assert!(!format!("{made:?}").contains("secret"));

    let other = "example.org/log".parse().unwrap();
    assert!(LogKey::load_or_create(&file, Some(other)).is_err(), "another origin");
    let text = std::fs::read_to_string(&file).unwrap();
    for at in 0..text.len() - 1 {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        std::fs::write(&file, &changed).unwrap();
        let loaded = LogKey::load_or_create(&file, None);
        assert!(loaded.is_err_and(|error| !error.to_string().contains(&text)), "byte {at}");
    }
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    let readable = LogKey::load_or_create(&file, None).unwrap_err();
    assert!(readable.to_string().contains("600"), "{readable}");
}

#[test]
fn store_without_its_manifest_is_not_made_anew() {
    let memory = small();
    let manifest = Bytes::from("manifest");
    let damaged = with(&memory, Keyspace::Meta, &manifest, None);
    let before = entries(&*damaged);
    let opened = try_open(damaged.clone());
    assert!(matches!(opened, Err(Error::Damaged(Damage::Manifest))), "{opened:?}");
    assert_eq!(entries(&*damaged), before, "and nothing was written");
}

#[test]
fn damaged_request_is_named_and_harms_nothing_else() {
    let memory = small();
    let all = entries(&memory);
    let (space, key, _) = all.iter().find(|(space, _, _)| *space == Keyspace::Requests).unwrap();
    let store = open(with(&memory, *space, key, Some("damaged".into())));
    assert_eq!(store.check(|_, _| {}).unwrap().damages, [Damage::Request]);
    store.commit(commit(&["key1=3"])).unwrap();
    store.flush().unwrap();
    store.commit(commit(&["key1=4"])).unwrap();
    store.flush().unwrap();
    assert_eq!(store.check(|_, _| {}).unwrap().damages, []);
}

#[test]
fn damaged_record_of_a_segment_harms_nothing_else() {
    let memory = small();
    let all = entries(&memory);
    let is_segment = |key: &Bytes| key.starts_with(b"segment/");
    let segments = all.iter().filter(|(_, key, _)| is_segment(key)).collect::<Vec<_>>();
    let (space, key, _) = segments.last().unwrap();
    let store = open(with(&memory, *space, key, Some("damaged".into())));
    let damages = store.check(|_, _| {}).unwrap().damages;
    assert!(damages.iter().any(|damage| matches!(damage, Damage::Segment { .. })), "{damages:?}");
    assert_eq!(store.latest().get(b"key5").unwrap().unwrap(), [5; 3][..]);
    // Its pages stay, whatever becomes of the others.
    for number in 0..3 {
        store.commit(commit(&[&format!("key5={number}")])).unwrap();
        store.prune(&Retention { last: NonZeroU64::MIN, every: None }).unwrap();
        assert_eq!(store.latest().get(b"key6").unwrap().unwrap(), [6; 3][..]);
    }
    assert_eq!(store.check(|_, _| {}).unwrap().damages, damages);
}

#[test]
fn neighbours_of_the_key_file_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let neighbour = directory.path().join("log.new");
    std::fs::write(&neighbour, "mine").unwrap();
    LogKey::load_or_create(&directory.path().join("log.key"), None).unwrap();
    assert_eq!(std::fs::read_to_string(neighbour).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
}
