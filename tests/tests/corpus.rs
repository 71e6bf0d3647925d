//! All that the fuzzer found worth keeping is decoded and executed once more: bytes from outside neither stop a
//! node nor are taken for something else, and whatever transactions say, the state stays sound.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

use assent_proto::Body;
use assent_proto::field::Message;
use assent_tests::fuzz;

/// What the fuzzer kept: one input a line.
fn kept(target: &str) -> Vec<Vec<u8>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/{target}.hex"));
    std::fs::read_to_string(file).unwrap().lines().map(|line| hex::decode(line).unwrap()).collect()
}

fn each(target: &str, run: fn(&[u8])) {
    let kept = kept(target);
    assert!(kept.len() > 100, "there is something to run");
    for data in kept {
        let done = std::panic::catch_unwind(|| run(&data));
        assert!(done.is_ok(), "{target} fails on {}", hex::encode(data));
    }
}

#[test]
fn what_was_found_by_decoding_arbitrary_bytes_is_survived() {
    each("decode", fuzz::decode);
}

#[test]
fn what_was_found_by_executing_arbitrary_transactions_is_survived() {
    each("execute", fuzz::execute);
}

/// Bodies of every kind of transaction, from the conformance vectors.
fn bodies() -> Vec<bytes::Bytes> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/tests");
    let files = ["vectors.txt", "decision.txt"].map(|f| std::fs::read_to_string(vectors.join(f)).unwrap());
    let values = files.iter().flat_map(|f| f.lines()).filter_map(|line| line.split_once(": "));
    let bytes = values.filter_map(|(_, value)| hex::decode(value).ok());
    bytes.filter_map(|bytes| Body::decode(&bytes).ok()).map(|body| body.encode()).collect()
}

/// What the fuzzer began with, before it had anything of its own.
#[test]
fn bodies_of_every_kind_are_executed() {
    let bodies = bodies();
    let mut kinds: Vec<_> = bodies.iter().map(|b| Body::decode(b).unwrap().action.kind()).collect();
    kinds.sort();
    kinds.dedup();
    assert!(kinds.len() >= 15, "only {kinds:?}");
    for seed in fuzz::seeds(&bodies) {
        fuzz::execute(&seed);
    }
}
