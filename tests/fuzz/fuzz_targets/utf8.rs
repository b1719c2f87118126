//! See the entry that it calls.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| capturer::fuzz::check("utf8", bytes));
