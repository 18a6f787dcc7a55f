//! What the hub of an edge sends.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| client::fuzz::hub_events(bytes));
