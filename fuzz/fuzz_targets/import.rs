#![no_main]
// The macro opens a file.
#![allow(clippy::disallowed_methods)]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::import(data));
