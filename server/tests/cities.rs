//! The cities that ship with the program have the root that the slow tree gives them.
#![allow(clippy::unwrap_used)]

#[path = "../../proofs/tests/reference/mod.rs"]
mod reference;

use std::{
    io::{BufRead as _, BufReader},
    sync::Arc,
};

use anwansi_proofs::{Digest, Root};
use anwansi_store::{Commit, LogKey, Options, Store, engine::Memory};
use flate2::read::GzDecoder;
use reference::State;

#[test]
fn root_of_the_cities_is_that_of_the_slow_tree() {
    let file = include_bytes!("../data/cities.tsv.gz");
    let lines = BufReader::new(GzDecoder::new(&file[..])).lines().map(Result::unwrap);
    let cities = lines.map(|line| {
        let (key, value) = line.split_once('\t').unwrap();
        (key.to_owned().into_bytes(), value.to_owned().into_bytes())
    });
    let cities = cities.collect::<Vec<_>>();
    assert_eq!(cities.len(), 171_075);

    let key = LogKey::from_secret([7; 32], None).unwrap();
    let store = Store::open(Arc::new(Memory::new()), key, &Options::default()).unwrap();
    // In batches, and not in order: roots do not depend on either.
    for batch in cities.chunks(9_999).rev() {
        let write =
            |(key, value): &(Vec<u8>, Vec<u8>)| (key.clone().into(), Some(value.clone().into()));
        store.commit(Commit::new(batch.iter().map(write).collect())).unwrap();
    }
    let latest = store.latest();
    assert_eq!(latest.entries(), 171_075);
    let slow = reference::root(&cities.into_iter().collect::<State>());
    assert_eq!(latest.root(), Root(Digest(slow)));
}
