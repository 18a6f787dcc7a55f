//! What `/proc` tells of processes.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hpc_consumer::fuzz::proc_files(bytes));
