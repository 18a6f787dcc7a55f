//! What stands in a pack of files.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| transfer::fuzz::pack(bytes));
