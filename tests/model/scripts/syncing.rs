//! Runs, deletion windows, consumers.

use highwater::{Oldest, RunOptions, Sweep};

use crate::scripts::steps::Step::{self, Commit, Rebuild, Reopen, SaveCatalog};

/// Runs with pages and checkpoints, windows that stay open across reopens, a sweep, a reset, and
/// a consumer that acknowledges.
pub fn syncing() -> Vec<Step> {
    vec![
        Commit(|at| at.save("contact", 0..12, 1)),
        Commit(|at| at.begin(RunOptions::new())),
        Commit(|at| at.run_feed("contact")?.track_deletes_start().map(drop)),
        Commit(|at| at.run_page(0..3, 1)),
        // Nothing of this page is news: it commits marks and the checkpoint.
        Commit(|at| at.run_page(3..6, 2)),
        Commit(|at| at.feed("contact")?.consumer("app").map(drop)),
        SaveCatalog,
        Reopen,
        Commit(|at| at.begin(RunOptions::new())),
        Commit(|at| at.run_page(10..14, 3)),
        Commit(|at| {
            let contacts = at.feed("contact")?;
            let last = contacts.last_cursor()?.unwrap();
            contacts.consumer("app")?.acknowledge(last)
        }),
        Commit(|at| {
            let contacts = at.run_feed("contact")?;
            contacts.track_deletes_end(&Sweep::new()).map(drop)
        }),
        Commit(|at| at.run.take().unwrap().succeed().map(drop)),
        Commit(|at| at.begin(RunOptions::new())),
        Commit(|at| at.run_feed("contact")?.track_deletes_start().map(drop)),
        Commit(|at| at.begin(RunOptions::new().reset(true))),
        Commit(|at| at.run_page(5..8, 1)),
        Rebuild,
        Commit(|at| at.begin(RunOptions::new())),
        Commit(|at| at.run_page(20..22, 2)),
        Commit(|at| at.run.take().unwrap().fail("no").map(drop)),
        Reopen,
    ]
}

/// Consumers that come, acknowledge, start over and leave, and hold deletions back meanwhile.
pub fn consuming() -> Vec<Step> {
    vec![
        Commit(|at| at.save("contact", 0..6, 0)),
        Commit(|at| at.feed("contact")?.consumer("app").map(drop)),
        Commit(|at| at.feed("contact")?.consumer("crm").map(drop)),
        Commit(|at| {
            let contacts = at.feed("contact")?;
            let last = contacts.last_cursor()?.unwrap();
            contacts.consumer("app")?.acknowledge(last)
        }),
        SaveCatalog,
        Commit(|at| at.delete("contact", &["1", "3"])),
        // It has not seen the deletions, so they stay.
        Commit(|at| at.feed("contact")?.purge(&Oldest::all()).map(drop)),
        Commit(|at| at.feed("company")?.consumer("app").map(drop)),
        Reopen,
        Commit(|at| {
            let contacts = at.feed("contact")?;
            let last = contacts.last_cursor()?.unwrap();
            contacts.consumer("app")?.acknowledge(last)?;
            Ok(())
        }),
        Commit(|at| at.feed("contact")?.consumer("crm")?.remove()),
        Commit(|at| at.feed("contact")?.purge(&Oldest::all()).map(drop)),
        Rebuild,
        Commit(|at| at.feed("contact")?.consumer("app")?.restart()),
        Commit(|at| at.save("contact", 1..3, 1)),
        Commit(|at| at.feed("company")?.consumer("app")?.remove()),
        Reopen,
    ]
}
