//! Arbitrary transactions are executed; what is done with them is in `tests/src/fuzz.rs`.
#![no_main]

#[path = "../../src/fuzz.rs"]
#[allow(dead_code)]
mod fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::execute(data));
