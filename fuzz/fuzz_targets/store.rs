#![no_main]
// The macro opens a file.
#![allow(clippy::disallowed_methods)]

libfuzzer_sys::fuzz_target!(
    init: highwater_fuzz::pass_over_caught_panics(),
    |data: &[u8]| highwater_fuzz::store(data)
);
