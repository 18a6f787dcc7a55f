//! What is asked of the edge: the head and the body.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edge::fuzz::request(bytes));
