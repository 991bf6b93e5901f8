//! Records, checkpoints, and the log's own life.

use serde_json::json;

use crate::scripts::steps::Step::{self, Commit, Flush, Rebuild, Reopen, SaveCatalog};

/// The first open, and opens of a store with next to nothing in it.
pub fn opening() -> Vec<Step> {
    vec![
        Reopen,
        Rebuild,
        Commit(|at| at.save("contact", 0..1, 0)),
        Reopen,
        SaveCatalog,
        Commit(|at| at.delete("contact", &["0"])),
        Rebuild,
        Commit(|at| {
            at.store
                .set_connection_metadata("c", &json!({"region": "eu"}))
        }),
        Reopen,
        Reopen,
    ]
}

/// Load, update half, delete, undelete, merge, pages with checkpoints, segment rolls, catalog
/// saves, clean reopens and a rebuild.
pub fn writing() -> Vec<Step> {
    vec![
        Commit(|at| at.save("contact", 0..20, 0)),
        Commit(|at| at.save("company", 0..8, 0)),
        Commit(|at| at.save("contact", 5..15, 1)),
        Commit(|at| at.delete("contact", &["3", "4", "5"])),
        SaveCatalog,
        Commit(|at| at.save("contact", 4..6, 2)),
        Commit(|at| {
            let contacts = at.feed("contact")?;
            contacts
                .batch_update(&[json!({"id": 7, "x": {"y": 1}})])
                .map(drop)
        }),
        Commit(|at| at.page(1)),
        Reopen,
        Commit(|at| at.page(2)),
        Commit(|at| at.save("contact", 0..40, 3)),
        Commit(|at| at.page(3)),
        SaveCatalog,
        Commit(|at| at.page(4)),
        Rebuild,
        Commit(|at| at.page(5)),
        Reopen,
    ]
}

/// Frames that fill a segment, do not fit into one, and leave a few bytes of it.
pub fn rolling() -> Vec<Step> {
    vec![
        Commit(|at| at.save_large("contact", "a", 3000)),
        Commit(|at| at.save_large("contact", "a", 2000)),
        Commit(|at| at.save_large("company", "b", 9000)),
        Commit(|at| at.save("contact", 0..2, 0)),
        Commit(|at| at.save_large("company", "c", 3500)),
        Flush,
        Commit(|at| at.save_large("contact", "b", 20_000)),
        Commit(|at| at.save_large("contact", "b", 4096)),
        Commit(|at| at.page(1)),
        Commit(|at| at.save("contact", 0..60, 1)),
        SaveCatalog,
        Commit(|at| at.save_large("company", "c", 3700)),
        Commit(|at| at.save_large("company", "c", 3800)),
        Reopen,
        Commit(|at| at.save_large("company", "c", 3900)),
        Commit(|at| at.delete("contact", &["a", "b"])),
        Commit(|at| at.save_large("contact", "a", 5000)),
        Rebuild,
        Commit(|at| at.page(2)),
    ]
}

/// The catalog saved again and again, with more and more feeds in it.
pub fn cataloguing() -> Vec<Step> {
    vec![
        SaveCatalog,
        Commit(|at| at.save("contact", 0..30, 0)),
        SaveCatalog,
        Commit(|at| {
            let mut batch = at.store.batch("c");
            for feed in 0..30 {
                let feed = at.feed(&format!("feed-{feed}"))?;
                batch.save(&feed, &[json!({"id": 1}), json!({"id": 2})])?;
            }
            batch.commit().map(drop)
        }),
        SaveCatalog,
        Commit(|at| at.page(1)),
        SaveCatalog,
        Commit(|at| at.delete("feed-7", &["1"])),
        Commit(|at| at.page(2)),
        SaveCatalog,
        SaveCatalog,
        Commit(|at| at.save("contact", 10..40, 1)),
        Reopen,
        Commit(|at| at.save("feed-8", 0..5, 1)),
        SaveCatalog,
        Rebuild,
        Commit(|at| at.page(3)),
        SaveCatalog,
    ]
}

/// Closed and opened after every commit, after none, and derived anew again and again.
pub fn reopening() -> Vec<Step> {
    vec![
        Commit(|at| at.save("contact", 0..10, 0)),
        Reopen,
        Commit(|at| at.save("contact", 5..15, 1)),
        Reopen,
        Reopen,
        Commit(|at| at.page(1)),
        Rebuild,
        Rebuild,
        Commit(|at| at.delete("contact", &["3", "4"])),
        Reopen,
        Commit(|at| at.save("company", 0..40, 0)),
        Rebuild,
        Commit(|at| at.page(2)),
        Reopen,
    ]
}
