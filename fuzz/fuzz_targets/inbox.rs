//! What lies in the inbox of a laptop.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| client::fuzz::inbox(bytes));
