//! What the queue API answers.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| queues::fuzz::answer(bytes));
