//! What daemon and keeper tell each other.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hpc_consumer::fuzz::keeper_lines(bytes));
