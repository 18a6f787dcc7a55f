//! What stands in the journal of a keeper.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hpc_consumer::fuzz::keeper_journal(bytes));
