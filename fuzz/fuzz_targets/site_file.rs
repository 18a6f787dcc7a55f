//! The file of a site.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| site::fuzz::file(bytes));
