//! The bodies of the fuzz targets, as plain functions: libFuzzer drives them, and so does the
//! smoke test, which needs neither nightly nor a fuzzer.
//!
//! A target panics when it has found something. Everything runs on simulated disks.
#![allow(clippy::unwrap_used, clippy::panic)]

mod damage;
mod import;
mod json;
mod ops;
mod values;

use highwater::Cursor;

pub use damage::{frame, packed, store};
pub use import::import;
pub use json::json;
pub use ops::ops;
pub use values::values;

/// For targets that damage catalogs: libFuzzer's hook aborts at any panic, also at those of redb that the
/// engine catches. A panic that nobody catches is still a finding.
pub fn pass_over_caught_panics() {
    std::panic::set_hook(Box::new(|info| {
        if info
            .location()
            .is_none_or(|at| !at.file().contains("redb-"))
        {
            eprintln!("{info}");
        }
    }));
}

/// Text as a cursor: refused, or exactly the text of the cursor it parsed to.
pub fn cursor(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match text.parse::<Cursor>() {
        Ok(cursor) => {
            assert_eq!(cursor.to_string(), text, "two texts of one cursor");
            let json = serde_json::to_string(&cursor).unwrap();
            assert_eq!(serde_json::from_str::<Cursor>(&json).unwrap(), cursor);
        }
        Err(error) => assert!(matches!(error, highwater::Error::InvalidCursor)),
    }
}
