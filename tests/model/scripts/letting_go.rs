//! Pruning, removing, purging, replacing.

use highwater::{Oldest, RunOptions};

use crate::scripts::steps::Step::{self, Commit, Rebuild, Reopen, SaveCatalog};

/// Prunes, restores, removes, purges, and replaces, which is given up once and a crash finds
/// half-done.
pub fn letting_go() -> Vec<Step> {
    vec![
        Commit(|at| at.save("contact", 0..10, 0)),
        Commit(|at| at.save("company", 0..6, 0)),
        Commit(|at| at.feed("contact")?.prune(&Oldest::all().limit(6)).map(drop)),
        Commit(|at| at.save("contact", 2..4, 0)),
        Commit(|at| at.delete("contact", &["0", "2", "7"])),
        Commit(|at| at.feed("contact")?.purge(&Oldest::all().limit(2)).map(drop)),
        SaveCatalog,
        Commit(|at| {
            let oldest = Oldest::all().limit(3);
            at.feed("contact")?.hard_delete(&oldest).map(drop)
        }),
        Commit(|at| at.replace("contact")),
        Commit(|at| at.stage(0..9, 5)),
        SaveCatalog,
        Commit(|at| {
            drop(at.replacement.take());
            at.save("contact", 3..5, 6)
        }),
        Reopen,
        Commit(|at| at.replace("contact")),
        Commit(|at| at.stage(4..9, 7)),
        Commit(|at| {
            let staged = at.replacement.as_ref().unwrap().feed();
            staged.batch_delete(&["5"]).map(drop)
        }),
        Commit(|at| at.finish_replacement()),
        Commit(|at| at.save("contact", 0..6, 7)),
        Commit(|at| at.feed("company")?.hard_delete(&Oldest::all()).map(drop)),
        Rebuild,
        Commit(|at| at.save("company", 0..2, 8)),
        Commit(|at| at.feed("contact")?.prune(&Oldest::all()).map(drop)),
        Reopen,
    ]
}

/// Deletions purged and payloads pruned in steps, of feeds that go on changing.
pub fn purging() -> Vec<Step> {
    vec![
        Commit(|at| at.save("contact", 0..12, 0)),
        Commit(|at| at.delete("contact", &["0", "2", "4", "6", "8"])),
        Commit(|at| at.feed("contact")?.purge(&Oldest::all().limit(2)).map(drop)),
        Commit(|at| at.save("contact", 2..3, 1)),
        Commit(|at| at.feed("contact")?.prune(&Oldest::all().limit(1)).map(drop)),
        Reopen,
        Commit(|at| at.feed("contact")?.purge(&Oldest::all()).map(drop)),
        Commit(|at| at.feed("contact")?.prune(&Oldest::all().limit(3)).map(drop)),
        SaveCatalog,
        Commit(|at| {
            let oldest = Oldest::all().limit(2);
            at.feed("contact")?.hard_delete(&oldest).map(drop)
        }),
        Commit(|at| at.save("contact", 0..4, 2)),
        Rebuild,
        Commit(|at| at.delete("contact", &["3", "9"])),
        Commit(|at| at.feed("contact")?.hard_delete(&Oldest::all()).map(drop)),
        Commit(|at| at.save("contact", 8..10, 3)),
        Commit(|at| at.delete("contact", &["8"])),
        Commit(|at| at.feed("contact")?.purge(&Oldest::all()).map(drop)),
        Reopen,
    ]
}

/// Replacements beside writes to the feed, in a run, given up, and one after the other.
pub fn replacing() -> Vec<Step> {
    vec![
        Commit(|at| at.save("contact", 0..8, 0)),
        Commit(|at| at.replace("contact")),
        Commit(|at| at.stage(0..4, 1)),
        Commit(|at| at.save("contact", 6..9, 1)),
        Commit(|at| at.stage(4..40, 1)),
        SaveCatalog,
        Commit(|at| at.stage(2..6, 2)),
        Commit(|at| at.finish_replacement()),
        Commit(|at| at.page(1)),
        Commit(|at| at.begin(RunOptions::new().replace(true))),
        Commit(|at| at.run_page(0..5, 1)),
        Commit(|at| at.run_page(5..7, 2)),
        Commit(|at| at.run.take().unwrap().succeed().map(drop)),
        Reopen,
        // A crash, or here a close, gives what was staged up.
        Commit(|at| at.replace("company")),
        Commit(|at| at.stage(0..7, 3)),
        Reopen,
        Commit(|at| at.replace("company")),
        Commit(|at| at.stage(0..2, 4)),
        Commit(|at| at.finish_replacement()),
        Rebuild,
        Commit(|at| at.replace("contact")),
        Commit(|at| at.finish_replacement()),
        Commit(|at| at.save("contact", 0..3, 5)),
        Reopen,
    ]
}
