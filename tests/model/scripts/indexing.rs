//! Indexes in files.

use highwater::Oldest;

use crate::scripts::steps::Step::{self, Commit, Compact, Rebuild, Reopen, SaveCatalog};

/// Spills, merges, goes on from the runs that are there, and loses them to removals.
pub fn indexing() -> Vec<Step> {
    vec![
        Commit(|at| at.save("contact", 0..30, 0)),
        Commit(|at| at.save("contact", 30..42, 0)),
        Commit(|at| at.save("company", 0..5, 0)),
        SaveCatalog,
        Commit(|at| at.save("contact", 40..52, 1)),
        Commit(|at| at.save("contact", 10..22, 1)),
        Commit(|at| at.save("contact", 60..72, 1)),
        Commit(|at| at.delete("contact", &["3", "44", "61"])),
        Reopen,
        Commit(|at| at.save("contact", 0..12, 2)),
        Commit(|at| at.save("contact", 61..64, 2)),
        SaveCatalog,
        Commit(|at| {
            let oldest = Oldest::all().limit(4);
            at.feed("contact")?.hard_delete(&oldest).map(drop)
        }),
        Commit(|at| at.save("contact", 20..40, 3)),
        Compact,
        Commit(|at| at.save("contact", 70..90, 3)),
        Rebuild,
        Commit(|at| at.page(1)),
        Commit(|at| at.save("contact", 0..30, 4)),
        Reopen,
    ]
}
