//! Compaction, and the files that it leaves to be used again.

use highwater::{Oldest, RunOptions, Sweep};

use crate::scripts::steps::Step::{
    self, Commit, Compact, CompactDuring, Rebuild, Reopen, SaveCatalog,
};

/// Compacts while a window is open, after pruning and deleting, while a replacement is filled, and
/// packs that were written before; with writes in between, reopens and a rebuild.
pub fn compacting() -> Vec<Step> {
    vec![
        Commit(|at| at.save("contact", 0..14, 0)),
        Commit(|at| at.save("company", 0..6, 0)),
        Commit(|at| at.save("contact", 4..12, 1)),
        Commit(|at| at.delete("contact", &["3", "4", "5"])),
        Commit(|at| at.feed("contact")?.consumer("app").map(drop)),
        Commit(|at| at.begin(RunOptions::new())),
        Commit(|at| at.run_feed("contact")?.track_deletes_start().map(drop)),
        Commit(|at| at.run_page(8..11, 1)),
        Commit(|at| at.save("company", 0..20, 1)),
        Commit(|at| at.save("company", 2..20, 2)),
        Compact,
        Commit(|at| at.run_page(0..2, 2)),
        Commit(|at| at.save("contact", 4..5, 3)),
        Commit(|at| {
            let contacts = at.run_feed("contact")?;
            contacts.track_deletes_end(&Sweep::new()).map(drop)
        }),
        Commit(|at| at.run.take().unwrap().succeed().map(drop)),
        Commit(|at| at.save("company", 0..18, 4)),
        Commit(|at| at.feed("contact")?.prune(&Oldest::all().limit(4)).map(drop)),
        Compact,
        Reopen,
        Commit(|at| at.replace("company")),
        Commit(|at| at.stage(0..18, 5)),
        Commit(|at| at.save("contact", 5..15, 5)),
        SaveCatalog,
        Compact,
        Commit(|at| at.finish_replacement()),
        Commit(|at| at.feed("contact")?.purge(&Oldest::all().limit(2)).map(drop)),
        Commit(|at| at.page(1)),
        Compact,
        Rebuild,
        Commit(|at| at.page(2)),
        Commit(|at| at.save("contact", 0..20, 6)),
        Compact,
        Reopen,
    ]
}

/// Packs of packs of packs, with and without anything new in the log.
pub fn packs() -> Vec<Step> {
    vec![
        Commit(|at| at.save("contact", 0..14, 0)),
        Commit(|at| at.save_large("company", "big", 5000)),
        Compact,
        Commit(|at| at.save("contact", 3..9, 1)),
        Commit(|at| at.save_large("company", "other", 5000)),
        Compact,
        Commit(|at| at.delete("contact", &["0", "1", "5"])),
        Commit(|at| at.save_large("company", "big", 4000)),
        Compact,
        Reopen,
        Commit(|at| at.feed("company")?.hard_delete(&Oldest::all()).map(drop)),
        Commit(|at| at.save("contact", 20..60, 2)),
        Compact,
        Commit(|at| at.feed("contact")?.purge(&Oldest::all()).map(drop)),
        Commit(|at| at.save_large("company", "big", 5000)),
        Compact,
        Rebuild,
        Commit(|at| at.save("contact", 30..70, 3)),
        Compact,
    ]
}

/// Commits at every moment when a compaction is at its files: before the pack is made, is synced,
/// has its name, and before the old files go.
pub fn while_writing() -> Vec<Step> {
    vec![
        Commit(|at| at.save("contact", 0..20, 0)),
        Commit(|at| at.save("contact", 5..25, 1)),
        Commit(|at| at.save("company", 0..20, 1)),
        Commit(|at| at.save("company", 2..20, 2)),
        CompactDuring(vec![
            |at| at.save("contact", 0..3, 3),
            |at| at.page(1),
            |at| at.delete("contact", &["7", "8"]),
            |at| at.save("company", 5..30, 3),
            |at| at.save("contact", 7..8, 4),
            |at| at.page(2),
        ]),
        Commit(|at| at.save("contact", 10..30, 5)),
        Commit(|at| at.save("company", 0..40, 5)),
        Reopen,
        CompactDuring(vec![
            |at| at.feed("contact")?.prune(&Oldest::all().limit(3)).map(drop),
            |at| at.feed("contact")?.purge(&Oldest::all()).map(drop),
            |at| at.save("contact", 12..14, 6),
            |at| at.replace("company"),
            |at| at.stage(0..3, 6),
            |at| at.finish_replacement(),
        ]),
        Commit(|at| at.save("company", 0..30, 7)),
        SaveCatalog,
        CompactDuring(vec![
            |at| at.feed("company")?.hard_delete(&Oldest::all()).map(drop),
            |at| at.save("contact", 0..20, 8),
            |at| at.save("company", 0..3, 8),
            |at| at.page(3),
        ]),
        Rebuild,
        Commit(|at| at.page(4)),
    ]
}

/// Frames of the same size again and again, so that a segment made of an old file has valid frames
/// behind every one of its own, at the very place where the next one goes.
pub fn recycling() -> Vec<Step> {
    const LEN: usize = 900;
    let mut steps = Vec::new();
    for round in 0..4 {
        for at in 0..13 {
            steps.push(Commit(match at % 3 {
                0 => |at| at.save_large("contact", "a", LEN),
                1 => |at| at.save_large("contact", "b", LEN - 1),
                _ => |at| at.save_large("contact", "a", LEN + 1),
            }));
        }
        steps.push(Compact);
        steps.push(Commit(|at| at.save("company", 0..3, 1)));
        steps.push(match round {
            0 => SaveCatalog,
            1 | 2 => Commit(|at| at.page(1)),
            _ => Rebuild,
        });
    }
    steps
}
