//! The visibility trap. A reader that is shown a change before it is durable skips the version it
//! superseded; if the power then fails, the change is gone, the old version is back behind the
//! reader's cursor, and the reader has lost the record for ever (P3, G5).
//!
//! The property: whatever a reader was given, and whenever the power fails, it converges.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use highwater::storage::{Fault, Survivors};
use highwater::{Defect, Durability, Options};
use proptest::prelude::*;

use crate::driver::Driver;
use crate::reference::Write;

/// Saves records, lets a reader walk between further saves, fails the sync of the last one, and
/// cuts the power. Every save is `(record, version)`.
fn walk_into_the_trap(options: Options, saves: &[(u8, u8)], limit: usize, lost: (u8, u8)) {
    let mut driver = Driver::new(options);
    let write = |(record, version): (u8, u8)| {
        vec![(0, Write::SaveJson(vec![(format!("r{record}"), version, 0)]))]
    };
    for (at, save) in saves.iter().enumerate() {
        driver.commit(&write(*save), None);
        if at % 2 == 1 {
            driver.step_reader(0, limit);
        }
    }
    driver.mark_durable();
    // The change that gets lost: written, never synced. The reader walks while it is in flight.
    driver.disk.fail(Fault::Sync {
        after: 0,
        dropped: true,
    });
    let feed = driver.feed(0);
    let body = format!(r#"{{"id":"r{}","v":{}}}"#, lost.0, lost.1);
    let record = serde_json::value::RawValue::from_string(body).unwrap();
    let _ = feed.batch_save(&[record]);
    let mut reader = std::mem::take(&mut driver.readers[0]);
    while reader.step(&feed, limit, &Default::default()).unwrap() {}
    driver.readers[0] = reader;
    driver.crash(Survivors::Synced);
    driver.converge(limit);
}

fn history() -> impl Strategy<Value = (Vec<(u8, u8)>, usize, (u8, u8))> {
    let save = (0u8..5, 0u8..3);
    (
        prop::collection::vec(save, 1..12),
        1usize..4,
        (0u8..5, 3u8..6),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_reader_walks_past_a_change_that_can_still_be_lost(
        (saves, limit, lost) in history(),
        relaxed: bool,
    ) {
        let options = Options::new();
        let options = match relaxed {
            true => options.durability(Driver::relaxed()),
            false => options,
        };
        walk_into_the_trap(options, &saves, limit, lost);
    }
}

/// The same walk with the wrong order must fail, or the property above proves nothing.
#[test]
fn publishing_before_the_sync_is_caught() {
    for durability in [
        Durability::Durable,
        Durability::Relaxed {
            interval: Duration::from_secs(3600),
        },
    ] {
        let options = Options::new()
            .durability(durability)
            .defect(Defect::PublishBeforeSync);
        let walk = || walk_into_the_trap(options, &[(0, 0), (1, 0), (2, 0)], 1, (2, 5));
        let caught = catch_unwind(AssertUnwindSafe(walk));
        assert!(
            caught.is_err(),
            "the wrong publish order went unnoticed in {durability:?}"
        );
    }
}
