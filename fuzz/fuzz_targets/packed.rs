#![no_main]
// The macro opens a file.
#![allow(clippy::disallowed_methods)]

libfuzzer_sys::fuzz_target!(
    init: {
        // libFuzzer's hook aborts at any panic, also at those of redb on a damaged catalog that the
        // engine catches. A panic that nobody catches is still a finding.
        std::panic::set_hook(Box::new(|info| {
            if info.location().is_none_or(|at| !at.file().contains("redb-")) {
                eprintln!("{info}");
            }
        }));
    },
    |data: &[u8]| highwater_fuzz::packed(data)
);
