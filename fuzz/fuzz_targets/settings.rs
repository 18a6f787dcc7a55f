//! What stands in a settings file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| program::fuzz::settings(bytes));
