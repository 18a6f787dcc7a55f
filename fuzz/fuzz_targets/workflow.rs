//! The document of a workflow.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| workflow::fuzz::document(bytes));
