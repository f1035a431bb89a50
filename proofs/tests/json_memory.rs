//! What hostile JSON costs in memory is bounded by its length.
//!
//! Method: documents of a megabyte that consist of the shortest values are read with an allocator that counts.
#![allow(clippy::unwrap_used)]

use anwansi_proofs::Json;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// What a byte of input may take in memory while it is read, as `Json::parse` says.
const BYTES_PER_BYTE_MAX: usize = 64;

#[test]
fn the_shortest_values_take_no_more_than_64_times_their_bytes() {
    for item in ["0", "1", "\"\"", "[]", "{}", "[0]", "[1]", "{\"\":0}", "{\"\":1}", "[[1]]"] {
        let document = format!("[{}]", vec![item; (1 << 20) / (item.len() + 1)].join(","));
        check(&document, item);
    }
    let member = |at: usize| format!("\"{at:05x}\":1");
    let members = (0..100_000).map(member).collect::<Vec<_>>().join(",");
    check(&format!("{{{members}}}"), "the members of one object");
}

fn check(document: &str, what: &str) {
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let value = Json::parse(document.as_bytes()).unwrap();
    let taken = ALLOCATED.peak_usage() - before;
    assert!(taken <= BYTES_PER_BYTE_MAX * document.len(), "{what}: {}", taken / document.len());
    drop(value);
}
