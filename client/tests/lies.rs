//! Goal: a client believes what is proven and nothing else.
//!
//! Method: a server over a real store that can be told to lie in one way at a time. Each time the same
//! questions: the truth is accepted; the lie is refused with the right kind of error, no value comes of it,
//! and the memory is where it was.
#![allow(clippy::unwrap_used, reason = "what fails in a test shall fail it")]

mod liar;

use std::{sync::Arc, thread};

use anwansi_client::{
    Asked, At, Client, Error, Fault, FileMemory, InMemory, Memory, Recalled, Write,
};
use anwansi_proofs::{Error as ProofError, Policy, Refused, Version};
use liar::{Liar, Lie, TOKEN, commit, start};

fn policy(liar: &Liar) -> Policy {
    Policy::of_log(liar.store.vkey().clone()).unwrap()
}

fn client(liar: &Liar, memory: &Arc<InMemory>) -> Client {
    Client::connect(&liar.url, policy(liar), memory.clone()).unwrap().with_token(TOKEN).unwrap()
}

fn fault(error: &Error) -> &Fault {
    match error {
        Error::NotProven { fault, .. } => fault,
        error => panic!("not a refused proof: {error:?}"),
    }
}

#[test]
fn what_is_true_is_accepted() {
    let liar = start();
    let memory = Arc::new(InMemory::default());
    let client = client(&liar, &memory);
    let answer = client.get(b"key", At::Newest).unwrap();
    assert_eq!((answer.version(), answer.value), (Version(3), Some(b"value".to_vec())));
    assert_eq!(client.get(b"nobody", At::Newest).unwrap().value, None);
    assert_eq!(client.get(b"key", At::Version(Version(1))).unwrap().value, None);
    let keys = ["list/a", "key", "none"];
    let many = client.get_many(&keys, At::Newest).unwrap().value;
    assert_eq!(many, [Some(b"1".to_vec()), Some(b"value".to_vec()), None]);
    let page = client.prefix(b"list/", None, None, At::Newest).unwrap();
    assert_eq!(page.value.entries.len(), 2);
    let next = page.value.next.unwrap();
    assert_eq!(next, b"list/c");
    let page =
        client.prefix(b"list/", Some(&next), None, At::Version(page.header.version())).unwrap();
    assert_eq!(page.value.entries, [(b"list/c".to_vec(), b"3".to_vec())]);
    assert_eq!(page.value.next, None);
    assert_eq!(client.checkpoint().unwrap().size(), 4);
    assert_eq!(client.header(Version(2)).unwrap().version(), Version(2));
    let asked = Asked { keys: vec![b"key".to_vec()], prefixes: vec![b"list".to_vec()] };
    let proven = client.evidence(&asked, At::Newest).unwrap();
    assert!(proven.value.check(client.policy()).is_ok());
    let version = client.put(b"new", b"").unwrap();
    assert_eq!(client.get(b"new", At::Version(version)).unwrap().value, Some(Vec::new()));
    assert_eq!(client.remove(b"new").unwrap(), Version(version.0 + 1));
    assert_eq!(client.remembered().unwrap().unwrap().size(), 6);
    assert_eq!(client.audit(|_, _| {}).unwrap().versions, 6);
}

#[test]
fn every_lie_about_a_key_is_refused_and_moves_no_memory() {
    let lies = [
        Lie::OldRoot(2),
        Lie::OtherKey,
        Lie::CutProof,
        Lie::Hidden,
        Lie::EmptyTree,
        Lie::Absent,
        Lie::HeaderSwapped,
        Lie::WrongIndex,
        Lie::ChangedValue,
        Lie::Unsigned,
        Lie::Oversize,
        Lie::NotJson,
    ];
    for lie in lies {
        let liar = start();
        let memory = Arc::new(InMemory::default());
        let client = client(&liar, &memory);
        let _ = client.checkpoint().unwrap();
        // There is more to learn, and nothing of it is learned from a lie.
        commit(&liar.store, &[("more", Some("1"))]);
        let before = memory.recall().unwrap();
        liar.tell(lie);
        for at in [At::Newest, At::Version(Version(4))] {
            let refused = [
                client.get(b"key", at).map(drop),
                client.get_many(&["key", "nobody"], at).map(drop),
                client
                    .evidence(&Asked { keys: vec![b"key".to_vec()], ..Asked::default() }, at)
                    .map(drop),
            ];
            for error in refused.map(|result| result.expect_err(&format!("{lie:?}"))) {
                assert!(matches!(error, Error::NotProven { .. }), "{lie:?}: {error}");
            }
            assert_eq!(memory.recall().unwrap(), before, "{lie:?}");
        }
        liar.tell(Lie::None);
        assert_eq!(client.get(b"key", At::Newest).unwrap().value.as_deref(), Some(&b"value"[..]));
        assert_ne!(memory.recall().unwrap(), before);
    }
}

#[test]
fn lies_have_the_faults_they_should() {
    let liar = start();
    let client = client(&liar, &Arc::default());
    let _ = client.checkpoint().unwrap();
    let told = |lie, at| {
        liar.tell(lie);
        let error = client.get(b"key", at).unwrap_err();
        fault(&error).clone()
    };
    let now = At::Version(Version(3));
    let refused = |lie| match told(lie, now) {
        Fault::Evidence(Refused::Finality { error, .. } | Refused::Inclusion { error, .. }) => {
            error
        }
        fault => panic!("{lie:?}: {fault}"),
    };
    assert_eq!(told(Lie::OldRoot(2), At::Newest), Fault::WentBack { remembered: 4, answered: 3 });
    let other = Fault::OtherVersion { asked: Version(3), answered: Version(2) };
    assert_eq!(told(Lie::OldRoot(2), now), other);
    assert!(matches!(told(Lie::OtherKey, now), Fault::Proof(ProofError::NotCovered { .. })));
    assert!(matches!(refused(Lie::CutProof), ProofError::Malformed { .. }));
    assert!(matches!(refused(Lie::Absent), ProofError::RootMismatch { .. }));
    assert!(matches!(refused(Lie::ChangedValue), ProofError::RootMismatch { .. }));
    assert!(matches!(refused(Lie::HeaderSwapped), ProofError::NotInLog { .. }));
    assert!(matches!(refused(Lie::WrongIndex), ProofError::NotInLog { .. }));
    assert!(matches!(refused(Lie::Unsigned), ProofError::NotSigned));
    assert!(matches!(told(Lie::Oversize, now), Fault::TooLong { .. }));
    assert!(matches!(told(Lie::NotJson, now), Fault::Proof(ProofError::Malformed { .. })));
}

#[test]
fn an_old_version_is_not_the_newest_even_at_first_sight() {
    let liar = start();
    let client = client(&liar, &Arc::default());
    liar.tell(Lie::OldRoot(1));
    let error = client.get(b"key", At::Newest).unwrap_err();
    let other = Fault::OtherVersion { asked: Version(3), answered: Version(1) };
    assert_eq!(fault(&error), &other);
}

#[test]
fn a_range_is_complete_or_refused() {
    let liar = start();
    let client = client(&liar, &Arc::default());
    for lie in [Lie::Next, Lie::OtherKey, Lie::CutProof, Lie::Hidden, Lie::EmptyTree, Lie::Absent] {
        liar.tell(lie);
        let error = client.prefix(b"list/", None, None, At::Newest).unwrap_err();
        fault(&error);
    }
    let error = client.range(b"b", Some(b"a"), None, At::Newest).unwrap_err();
    assert!(matches!(error, Error::Usage(_)));
}

#[test]
fn trouble_is_not_a_lie() {
    let liar = start();
    let client = client(&liar, &Arc::default());
    liar.tell(Lie::Broken);
    assert!(matches!(client.get(b"key", At::Newest), Err(Error::Unreachable { .. })));
    assert!(matches!(client.put(b"key", b""), Err(Error::Unreachable { .. })));
    let policy = policy(&liar);
    let url = liar.url.clone();
    drop(liar);
    let client = Client::connect(&url, policy, InMemory::default()).unwrap();
    assert!(matches!(client.get(b"key", At::Newest), Err(Error::Unreachable { .. })));
    assert!(matches!(client.checkpoint(), Err(Error::Unreachable { .. })));
}

#[test]
fn a_refusal_says_why() {
    let liar = start();
    let without = Client::connect(&liar.url, policy(&liar), InMemory::default()).unwrap();
    let Err(Error::Refused(problem)) = without.put(b"key", b"") else { panic!("no token") };
    assert_eq!((problem.status, &*problem.name), (401, "unauthorized"));
    let with = client(&liar, &Arc::default());
    let Err(Error::Refused(problem)) = with.put(b"\0key", b"") else { panic!("reserved") };
    assert_eq!(problem.status, 422);
    let future = with.get(b"key", At::Version(Version(99)));
    assert!(matches!(future, Err(Error::Refused(_))));
    assert!(matches!(with.get(b"", At::Newest), Err(Error::Usage(_))));
    assert!(matches!(with.get(&[1; 1025], At::Newest), Err(Error::Usage(_))));
}

#[test]
fn a_commit_that_was_not_made_is_not_believed() {
    let liar = start();
    let client = client(&liar, &Arc::default());
    liar.tell(Lie::CommitLost);
    let error = client.put(b"key", b"another value").unwrap_err();
    assert_eq!(fault(&error), &Fault::NotWhatWasSent { key: b"key".to_vec() });
}

#[test]
fn a_commit_under_one_name_is_made_once() {
    let liar = start();
    let client = client(&liar, &Arc::default());
    let writes = [Write { key: b"once".to_vec(), value: Some(b"1".to_vec()) }];
    let version = client.commit(&writes, Some("a-name")).unwrap();
    assert_eq!(client.commit(&writes, Some("a-name")).unwrap(), version);
    let others = [Write { key: b"once".to_vec(), value: Some(b"2".to_vec()) }];
    assert!(matches!(client.commit(&others, Some("a-name")), Err(Error::Refused(_))));
}

#[test]
fn a_log_that_goes_back_is_refused() {
    let liar = start();
    let memory = Arc::new(InMemory::default());
    let client = client(&liar, &memory);
    let _ = client.checkpoint().unwrap();
    let before = memory.recall().unwrap();
    liar.tell(Lie::WentBack);
    let error = client.checkpoint().unwrap_err();
    assert_eq!(fault(&error), &Fault::WentBack { remembered: 4, answered: 1 });
    assert_eq!(memory.recall().unwrap(), before);
}

#[test]
fn older_evidence_of_an_old_version_is_accepted_and_moves_no_memory() {
    let liar = start();
    let memory = Arc::new(InMemory::default());
    let client = client(&liar, &memory);
    // The fork's server, as if it were a cache of the same log that stopped at four entries.
    let cache = start();
    commit(&liar.store, &[("more", Some("1"))]);
    let _ = client.checkpoint().unwrap();
    let note = memory.recall().unwrap();
    let behind = Client::connect(&cache.url, policy(&liar), memory.clone()).unwrap();
    // It has no tiles of five entries, so that it cannot show that its four continue.
    let error = behind.get(b"key", At::Version(Version(2))).unwrap_err();
    assert_eq!(fault(&error), &Fault::NotContinued { remembered: 5, answered: 4 });
    commit(&cache.store, &[("more", Some("1"))]);
    assert!(behind.get(b"key", At::Version(Version(2))).is_ok());
    assert_eq!(memory.recall().unwrap(), note);
}

#[test]
fn a_fork_is_kept_and_the_log_refused_ever_after() {
    // Longer than what is remembered, as long, and shorter.
    for more in [0, 2, 4] {
        let liar = start();
        for version in 0..more {
            commit(&liar.store, &[("more", Some(&version.to_string()))]);
        }
        let directory = tempfile::tempdir().unwrap();
        let memory = || FileMemory::new(directory.path(), "example.org/liar").unwrap();
        let connect = || Client::connect(&liar.url, policy(&liar), memory());
        let client = connect().unwrap();
        let _ = client.checkpoint().unwrap();
        let Recalled::Checkpoint(note) = memory().recall().unwrap() else { panic!("remembered") };
        liar.tell(Lie::Fork);
        let refused = client.get(b"other", At::Newest);
        if more == 4 {
            // What is shorter never gets so far: it went back, or its tiles do not reach.
            fault(&refused.unwrap_err());
            continue;
        }
        let Err(Error::Forked { kept, .. }) = refused else { panic!("{more}: {refused:?}") };
        let evidence = std::fs::read_to_string(&kept).unwrap();
        let evidence: serde_json::Value = serde_json::from_str(&evidence).unwrap();
        assert_eq!(evidence["remembered"], note);
        assert_eq!(evidence["shown"], liar.other.checkpoint().to_string());
        liar.tell(Lie::None);
        assert!(matches!(client.get(b"key", At::Newest), Err(Error::Forked { .. })));
        assert!(matches!(client.put(b"key", b""), Err(Error::Forked { .. })));
        let again = connect().map(drop);
        assert!(matches!(again, Err(Error::Forked { kept: named, .. }) if named == kept));
    }
}

#[test]
fn tiles_that_show_nothing_are_no_fork() {
    let liar = start();
    let directory = tempfile::tempdir().unwrap();
    let memory = Arc::new(FileMemory::new(directory.path(), "example.org/liar").unwrap());
    let client = Client::connect(&liar.url, policy(&liar), memory.clone()).unwrap();
    let _ = client.checkpoint().unwrap();
    let before = memory.recall().unwrap();
    commit(&liar.store, &[("more", Some("1"))]);
    commit(&liar.store, &[("more", Some("2"))]);
    for lie in [Lie::Tiles, Lie::NoTiles] {
        liar.tell(lie);
        let error = client.get(b"key", At::Newest).unwrap_err();
        assert_eq!(fault(&error), &Fault::NotContinued { remembered: 4, answered: 6 });
        assert_eq!(memory.recall().unwrap(), before);
    }
    liar.tell(Lie::None);
    assert!(client.get(b"key", At::Newest).is_ok());
}

#[test]
fn memory_outlives_the_client() {
    let liar = start();
    let directory = tempfile::tempdir().unwrap();
    let connect = || {
        let memory = FileMemory::new(directory.path(), "example.org/liar").unwrap();
        Client::connect(&liar.url, policy(&liar), memory).unwrap()
    };
    let _ = connect().checkpoint().unwrap();
    assert_eq!(connect().remembered().unwrap().unwrap().size(), 4);
    liar.tell(Lie::OldRoot(1));
    fault(&connect().get(b"key", At::Newest).unwrap_err());
    for file in walk(directory.path()) {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", file.display());
    }
    // What is damaged is not forgotten.
    for file in walk(directory.path()) {
        if file.extension().is_some_and(|extension| extension == "checkpoint") {
            std::fs::write(&file, "nothing").unwrap();
        }
    }
    let memory = FileMemory::new(directory.path(), "example.org/liar").unwrap();
    assert!(Client::connect(&liar.url, policy(&liar), memory).is_err());
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let logs = directory.join("logs");
    let files = std::fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().path());
    files.chain([logs.clone()]).collect()
}

#[test]
fn many_clients_share_a_memory_that_never_goes_back() {
    let liar = start();
    let directory = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        for client in 0..4 {
            let (liar, directory) = (&liar, directory.path());
            scope.spawn(move || {
                let memory = FileMemory::new(directory, "example.org/liar").unwrap();
                let own = Client::connect(&liar.url, policy(liar), memory).unwrap();
                let own = own.with_token(TOKEN).unwrap();
                let mut size = 0;
                for round in 0..10 {
                    let key = format!("{client}/{round}");
                    let version = own.put(key.as_bytes(), b"1").unwrap();
                    let _ = own.checkpoint().unwrap();
                    let _ = own.get(key.as_bytes(), At::Newest).unwrap();
                    let now = own.remembered().unwrap().unwrap().size();
                    assert!(now > version.0 && now >= size, "{size} {now} {version}");
                    size = now;
                }
            });
        }
    });
    let memory = FileMemory::new(directory.path(), "example.org/liar").unwrap();
    let client = Client::connect(&liar.url, policy(&liar), memory).unwrap();
    assert_eq!(client.remembered().unwrap().unwrap().note(), liar.store.checkpoint().to_string());
}

#[test]
fn an_audit_names_the_version_that_does_not_hold() {
    let liar = start();
    let client = client(&liar, &Arc::default());
    assert_eq!(client.audit(|_, _| {}).unwrap().changes, 7);
    let told = |lie| {
        liar.tell(lie);
        client.audit(|_, _| {}).unwrap_err()
    };
    for bad in [1, 2, 3] {
        for lie in [Lie::Change(bad), Lie::Update(bad)] {
            let error = told(lie);
            let named = matches!(&error, Error::NotProven { version: Some(version), .. }
                if version.0 == bad);
            assert!(named, "{lie:?}: {error:?}");
        }
    }
    assert_eq!(fault(&told(Lie::Change(2))), &Fault::Changes);
    assert_eq!(fault(&told(Lie::CutChanges)), &Fault::Cut);
    assert_eq!(fault(&told(Lie::Bundle)), &Fault::LogRoot);
    assert!(matches!(told(Lie::Broken), Error::Unreachable { .. }));
}

#[test]
fn an_audit_crosses_bundles() {
    let liar = start();
    for version in 4..=260 {
        commit(&liar.store, &[("counter", Some(&version.to_string()))]);
    }
    let client = client(&liar, &Arc::default());
    let mut seen = 0;
    let audited = client.audit(|done, total| seen = seen.max(done * u64::from(total == 261)));
    assert_eq!((audited.unwrap().versions, seen), (261, 261));
    liar.tell(Lie::Change(258));
    let error = client.audit(|_, _| {}).unwrap_err();
    assert!(matches!(error, Error::NotProven { version: Some(Version(258)), .. }), "{error}");
    // From four entries to 261 in one step, by tiles of two levels.
    liar.tell(Lie::None);
    let memory = Arc::new(InMemory::default());
    let late = Client::connect(&liar.url, policy(&liar), memory).unwrap();
    let _ = late.checkpoint().unwrap();
    commit(&liar.store, &[("more", Some("1"))]);
    assert_eq!(late.checkpoint().unwrap().size(), 262);
}
