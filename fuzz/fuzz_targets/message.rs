//! What arrives in either queue, and what is submitted.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| protocol::fuzz::message(bytes));
