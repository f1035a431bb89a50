//! What a commit may be, who shares a version, and when a transaction gives way.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::{
    collections::HashSet,
    sync::{Arc, Barrier, Mutex, mpsc},
};

use anwansi_proofs::{Digest, Question, Version};
use anwansi_store::{
    COMMIT_WRITES_MAX, Commit, Error, LogKey, Options, RequestId, Store, Which,
    engine::{self, Direction, Engine, Keyspace, Memory},
};
use bytes::Bytes;
use common::{Gated, SECRET, commit, open};

fn memory() -> Store {
    open(Arc::new(Memory::new()))
}

#[test]
fn bad_commits_are_refused_and_change_nothing() {
    let store = memory();
    let before = store.latest();
    let put = |key: &[u8], length: usize| {
        Commit::new(vec![(Bytes::copy_from_slice(key), Some(vec![0; length].into()))])
    };
    let refused = |commit| store.commit(commit).unwrap_err();
    assert!(matches!(refused(put(b"", 0)), Error::KeyLength { length: 0 }));
    assert!(matches!(refused(put(&[1; 1025], 0)), Error::KeyLength { length: 1025 }));
    let long = (16 << 20) + 1;
    assert!(
        matches!(refused(put(b"a", long)), Error::ValueTooLarge { length, .. } if length == long)
    );
    assert!(matches!(refused(put(b"\0a", 0)), Error::ReservedKey { .. }));
    assert!(matches!(refused(commit(&[])), Error::NoWrites));
    assert!(
        matches!(refused(commit(&["a=1", "b=1", "a=2"])), Error::KeyTwice { key } if key == "a")
    );
    assert!(matches!(refused(commit(&["a=1", "a"])), Error::KeyTwice { .. }));
    let many = |count: usize| (0..count).map(|i| (i.to_string().into(), None)).collect();
    assert!(matches!(
        refused(Commit::new(many(COMMIT_WRITES_MAX + 1))),
        Error::CommitTooLarge { what: "writes", .. }
    ));
    let large = (0..5_u8).map(|i| (vec![i + 1].into(), Some(vec![0; 14 << 20].into()))).collect();
    assert!(matches!(refused(Commit::new(large)), Error::CommitTooLarge { what: "bytes", .. }));
    let latest = store.latest();
    assert_eq!((latest.version(), latest.root()), (before.version(), before.root()));
    store.commit(put(&[1; 1024], 0)).unwrap();
    store.commit(Commit::new(many(COMMIT_WRITES_MAX))).unwrap();
    assert_eq!(store.latest().entries(), 1);
}

#[test]
fn commit_that_changes_nothing_still_makes_a_version() {
    let store = memory();
    let one = store.commit(commit(&["a=1"])).unwrap();
    let two = store.commit(commit(&["a=1", "b"])).unwrap();
    assert_eq!(two.version, Version(2));
    assert_eq!(two.state, one.state);
    assert_eq!(store.changes(Version(2)).unwrap().len(), 2);
}

#[test]
fn large_values_go_through_commit_reopening_and_reading() {
    let directory = tempfile::tempdir().unwrap();
    let lengths = [1023, 1024, 1025, 4 << 20, (4 << 20) + 1, 16 << 20];
    let value = |length: usize| -> Bytes { (0..length).map(|i| (i % 251) as u8).collect() };
    for scheme in ["fjall", "sled"] {
        let url = format!("{scheme}:{}", directory.path().join(scheme).display());
        let store = open(engine::open(&url).unwrap());
        for length in lengths {
            let writes = vec![(length.to_string().into(), Some(value(length)))];
            store.commit(Commit::new(writes)).unwrap();
        }
        let root = store.latest().root();
        for reopened in [false, true] {
            let store = if reopened { open(engine::open(&url).unwrap()) } else { store.clone() };
            assert_eq!(store.latest().root(), root);
            for length in lengths {
                let read = store.latest().get(length.to_string().as_bytes()).unwrap();
                assert_eq!(read, Some(value(length)), "{scheme}");
            }
            assert_eq!(store.check(|_, _| {}).unwrap().values, 4);
            if !reopened {
                drop(store);
                break;
            }
        }
        drop(store);
        let store = open(engine::open(&url).unwrap());
        assert_eq!(store.latest().root(), root);
        for length in lengths {
            let read = store.latest().get(length.to_string().as_bytes()).unwrap();
            assert_eq!(read, Some(value(length)), "{scheme}");
        }
    }
}

#[test]
fn key_is_proven_at_once_if_that_needs_no_engine() {
    let engine = Arc::new(Memory::new());
    let store = open(engine.clone());
    let small = (0..300).map(|number| (format!("small{number}").into(), Some("short".into())));
    let large = [("large".into(), Some(vec![1; 1025].into()))];
    store.commit(Commit::new(small.chain(large).collect())).unwrap();
    let question = |key: &str| Question::default().key(key.as_bytes());
    let latest = store.latest();
    for key in ["small7", "absent"] {
        let proof = latest.prove(Which::State, &question(key)).unwrap();
        assert_eq!(latest.prove_near(&question(key)), Some(proof), "{key}");
    }
    assert_eq!(latest.prove_near(&question("large")), None, "its value is not in a page");
    store.close().unwrap();
    drop((store, latest));
    let store = open(engine);
    let latest = store.latest();
    assert_eq!(latest.prove_near(&question("small7")), None, "nothing was read yet");
    assert!(latest.get(b"small7").unwrap().is_some());
    assert!(latest.prove_near(&question("small7")).is_some());
}

#[test]
fn finality_is_that_of_its_version_however_often_it_is_asked() {
    let store = memory();
    for number in 1..4 {
        store.commit(common::commit(&[&format!("a={number}")])).unwrap();
        let versions = (0..=number).map(Version);
        let answers = versions.map(|version| {
            let finality = store.finality(version).unwrap();
            assert_eq!(store.finality(version).unwrap(), finality);
            assert_eq!(finality.header, store.headers(version, 1).unwrap()[0]);
            assert_eq!(finality.log_size, number + 1);
            finality.header.clone()
        });
        assert_eq!(answers.collect::<HashSet<_>>().len(), usize::try_from(number).unwrap() + 1);
    }
}

#[test]
fn repeat_of_a_request_is_answered_as_the_first_was() {
    let memory: Arc<dyn Engine> = Arc::new(Memory::new());
    let store = open(memory.clone());
    let request = |name: &str, body: &str, writes: &[&str]| {
        let (name, body) = (Digest::of(name.as_bytes()), Digest::of(body.as_bytes()));
        Commit { request: Some(RequestId { name, body }), ..commit(writes) }
    };
    let first = store.commit(request("r", "b", &["a=1"])).unwrap();
    store.commit(commit(&["a=2"])).unwrap();
    assert_eq!(store.commit(request("r", "b", &["a=1"])).unwrap(), first);
    let other = store.commit(request("r", "c", &["a=3"]));
    assert!(matches!(other, Err(Error::RequestMismatch)));
    drop(store);
    let store = open(memory);
    assert_eq!(store.commit(request("r", "b", &["a=1"])).unwrap(), first);
    assert_eq!(store.latest().version(), Version(2));
    assert_eq!(store.latest().get(b"a").unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn repeats_in_flight_make_one_version() {
    let store = memory();
    let barrier = Arc::new(Barrier::new(8));
    let threads = (0..8).map(|_| {
        let (store, barrier) = (store.clone(), barrier.clone());
        std::thread::spawn(move || {
            let name = Digest::of(b"r");
            barrier.wait();
            let request = Some(RequestId { name, body: name });
            store.commit(Commit { request, ..commit(&["a=1"]) }).unwrap()
        })
    });
    let threads = threads.collect::<Vec<_>>();
    for thread in threads {
        assert_eq!(thread.join().unwrap().version, Version(1));
    }
    assert_eq!(store.latest().version(), Version(1));
}

#[test]
fn forgotten_request_is_a_new_one() {
    let now = Arc::new(Mutex::new(1_000_000));
    let clock = {
        let now = now.clone();
        Arc::new(move || *now.lock().unwrap())
    };
    let options = Options { clock, ..Options::default() };
    let key = LogKey::from_secret(SECRET, None).unwrap();
    let store = Store::open(Arc::new(Memory::new()), key, &options).unwrap();
    let name = Digest::of(b"r");
    let request = || {
        let request = Some(RequestId { name, body: name });
        Commit { request, ..commit(&["a=1"]) }
    };
    assert_eq!(store.commit(request()).unwrap().version, Version(1));
    *now.lock().unwrap() += 24 * 60 * 60 * 1000 - 1;
    assert_eq!(store.commit(request()).unwrap().version, Version(1));
    *now.lock().unwrap() += 1;
    assert_eq!(store.commit(request()).unwrap().version, Version(2));
}

type Read = fn(&mut anwansi_store::Transaction);

#[test]
fn transaction_gives_way_if_what_it_read_has_changed() {
    let store = memory();
    store.commit(commit(&["a=1", "b=1", "m/1=1", "m/2=1"])).unwrap();
    // What the transaction reads, what others write meanwhile, and the key it then conflicts on.
    let cases: [(Read, &str, Option<&str>); 9] = [
        (|t| drop(t.get(b"a").unwrap()), "a=2", Some("a")),
        (|t| drop(t.get(b"a").unwrap()), "b=2", None),
        (|t| drop(t.get(b"absent").unwrap()), "absent=1", Some("absent")),
        (|t| drop(t.get(b"gone").unwrap()), "gone", None),
        (|t| drop(t.prefix(b"m/").unwrap()), "m/1=2", Some("m/")),
        (|t| drop(t.prefix(b"m/").unwrap()), "m/3=1", Some("m/")),
        (|t| drop(t.prefix(b"m/").unwrap()), "m/1", Some("m/")),
        (|t| drop(t.range(b"m/1", Some(b"m/2")).unwrap()), "m/2=5", None),
        (|_| {}, "a=9", None),
    ];
    for (read, meanwhile, conflict) in cases {
        let mut transaction = store.begin();
        read(&mut transaction);
        transaction.put("written", meanwhile.to_owned());
        store.commit(commit(&[meanwhile])).unwrap();
        match (transaction.commit(), conflict) {
            (Ok(_), None) => {}
            (Err(Error::Conflict { key }), Some(conflict)) => assert_eq!(key, conflict),
            (result, _) => panic!("{meanwhile}: {result:?}"),
        }
    }
}

#[test]
fn transaction_reads_its_own_writes() {
    let store = memory();
    store.commit(commit(&["a=1", "b=1", "c=1"])).unwrap();
    let mut transaction = store.begin();
    transaction.put("b", "2");
    transaction.remove("c");
    transaction.put("d", "2");
    assert_eq!(transaction.get(b"b").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(transaction.get(b"c").unwrap(), None);
    let pair = |key: &'static str, value: &'static str| (Bytes::from(key), Bytes::from(value));
    let all = transaction.range(b"", None).unwrap();
    assert_eq!(all, [pair("a", "1"), pair("b", "2"), pair("d", "2")]);
    transaction.commit().unwrap();
    let latest = store.latest();
    let stored = latest.range(b"", None, Direction::Ascending).map(Result::unwrap);
    assert!(stored.eq([pair("a", "1"), pair("b", "2"), pair("d", "2")]));
}

#[test]
fn concurrent_transactions_on_one_counter_lose_no_step() {
    let store = memory();
    let threads = (0..4).map(|_| {
        let store = store.clone();
        std::thread::spawn(move || {
            let mut steps = 0;
            while steps < 25 {
                let mut transaction = store.begin();
                let count = transaction.get(b"count").unwrap();
                let count =
                    count.map_or(0, |count| std::str::from_utf8(&count).unwrap().parse().unwrap());
                transaction.put("count", (count + 1_u32).to_string());
                match transaction.commit() {
                    Ok(_) => steps += 1,
                    Err(Error::Conflict { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    assert_eq!(store.latest().get(b"count").unwrap().as_deref(), Some(&b"100"[..]));
}

#[test]
fn expected_version_is_the_newest_or_the_commit_is_refused() {
    let store = memory();
    let expecting = |version, writes: &[&str]| {
        store.commit(Commit { expect_version: Some(Version(version)), ..commit(writes) })
    };
    assert_eq!(expecting(0, &["a=1"]).unwrap().version, Version(1));
    let refused = expecting(0, &["a=2"]);
    assert!(matches!(refused, Err(Error::UnexpectedVersion { newest: Version(1), .. })));
    assert!(matches!(expecting(7, &["a=2"]), Err(Error::UnexpectedVersion { .. })));
    assert_eq!(expecting(1, &["a=2"]).unwrap().version, Version(2));
}

#[test]
fn commits_that_gather_share_a_version_unless_they_touch_the_same_key() {
    let engine = Arc::new(Gated::default());
    engine.open();
    let store = open(engine.clone());
    let closed = engine.close();
    let (answer, answers) = mpsc::channel();
    let send = |name: &'static str, commit: Commit| {
        let answer = answer.clone();
        store.commit_then(commit, Box::new(move |result| answer.send((name, result)).unwrap()));
    };
    // Four versions can be under way; the rest gathers until the first of them is durable.
    for name in ["w=1", "w=2", "w=3", "w=4"] {
        send(name, commit(&[name]));
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    send("a", commit(&["a=1"]));
    send("b", commit(&["b=1"]));
    send("expecting", Commit { expect_version: Some(Version(4)), ..commit(&["c=1"]) });
    send("a again", commit(&["a=2"]));
    send("d", commit(&["d=1"]));
    assert!(answers.try_recv().is_err(), "nothing is answered before it is durable");
    assert_eq!(store.latest().version(), Version(0), "and nothing is shown");
    drop(closed);
    drop(answer);
    let answers = answers.iter().collect::<std::collections::BTreeMap<_, _>>();
    let version = |name| answers[name].as_ref().unwrap().version.0;
    assert_eq!([version("a"), version("b")], [5, 5]);
    // Others are ahead of it in the group.
    let expecting = &answers["expecting"];
    assert!(matches!(expecting, Err(Error::UnexpectedVersion { .. })), "{expecting:?}");
    // It writes a key that a member writes: it waits, and so does what came after it.
    assert_eq!([version("a again"), version("d")], [6, 6]);
    assert_eq!(store.latest().get(b"a").unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn closing_finishes_what_was_accepted() {
    let memory = Arc::new(Memory::new());
    let store = open(memory.clone());
    let (answer, answers) = mpsc::channel();
    for i in 0..200 {
        let answer = answer.clone();
        let commit = commit(&[&format!("key{i}=1")]);
        store.commit_then(commit, Box::new(move |result| answer.send(result).unwrap()));
    }
    drop(answer);
    store.close().unwrap();
    assert!(matches!(store.commit(commit(&["late=1"])), Err(Error::Closed)));
    assert!(answers.iter().all(|answer| answer.is_ok()));
    let store = open(Arc::new(memory.crash(0)));
    assert_eq!(store.latest().entries(), 200);
}

#[test]
fn last_handle_dropped_by_an_answer_closes_the_store() {
    for writes in [&["a=1"][..], &[]] {
        let memory = Arc::new(Memory::new());
        let store = open(memory.clone());
        let (answer, answered) = mpsc::channel();
        let own = store.clone();
        // A commit that is refused is answered at once, here; one that expects too much, by the committer.
        let commit =
            Commit { expect_version: writes.is_empty().then_some(Version(9)), ..commit(&["b=1"]) };
        store.commit_then(
            commit,
            Box::new(move |result| {
                std::thread::sleep(std::time::Duration::from_millis(50));
                drop(own);
                answer.send(result.is_ok()).unwrap();
            }),
        );
        drop(store);
        assert_eq!(answered.recv().unwrap(), !writes.is_empty());
        // The threads end by themselves: then nobody holds the engine any more.
        for _ in 0..1000 {
            if Arc::strong_count(&memory) == 1 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(Arc::strong_count(&memory), 1);
    }
}

#[test]
fn answer_that_panics_takes_no_other_with_it() {
    let store = memory();
    let (answer, answers) = mpsc::channel();
    for i in 0..20 {
        let answer = answer.clone();
        store.commit_then(
            commit(&[&format!("key{i}=1")]),
            Box::new(move |result| {
                assert!(i % 5 != 0, "a caller that panics, on purpose");
                answer.send(result.is_ok()).unwrap();
            }),
        );
    }
    drop(answer);
    assert_eq!(answers.iter().filter(|done| *done).count(), 16);
    store.close().unwrap();
    assert_eq!(store.latest().entries(), 20);
}

#[test]
fn old_requests_are_forgotten_and_those_made_again_are_not() {
    let now = Arc::new(Mutex::new(0));
    let clock = {
        let now = now.clone();
        Arc::new(move || *now.lock().unwrap())
    };
    let memory = Arc::new(Memory::new());
    let key = LogKey::from_secret(SECRET, None).unwrap();
    let options = Options { clock, ..Options::default() };
    let store = Store::open(memory.clone(), key, &options).unwrap();
    let request = |name: &str| {
        let name = Digest::of(name.as_bytes());
        let request = Some(RequestId { name, body: name });
        store.commit(Commit { request, ..commit(&["a=1"]) }).unwrap().version
    };
    assert_eq!([request("one"), request("two")], [Version(1), Version(2)]);
    *now.lock().unwrap() = 25 * 60 * 60 * 1000;
    // The flush finds both too old; one of them is made again before they are deleted.
    store.flush().unwrap();
    assert_eq!(request("two"), Version(3));
    assert_eq!(request("two"), Version(3));
    let left = |name: &str| memory.get(Keyspace::Requests, &Digest::of(name.as_bytes()).0).unwrap();
    assert!(left("one").is_none() && left("two").is_some());
}
