//! What is let go of can be read again.

use std::sync::Arc;

use crate::options::Options;
use crate::storage::{Fault, MemoryStorage};

/// A feed's change that a catalog's save took, and could not save, is in memory alone.
#[test]
fn a_feed_stays_in_memory_until_a_save_with_its_changes_succeeds() {
    let disk = MemoryStorage::new();
    let options = || {
        Options::new()
            .storage(Arc::new(disk.clone()))
            .background(false)
            .index_budget(0)
    };
    let store = options().open("/s").unwrap();
    let save = |model: &str, payload: &str| {
        let feed = store.feed("c", model).unwrap();
        feed.batch_save_raw(&[("id", payload)]).unwrap()
    };
    let _ = save("a", "1");
    store.checkpoint_catalog().unwrap();
    let _ = save("a", "22");
    // The budget is for one feed, so this evicts the other's index.
    let _ = save("b", "1");
    disk.fail(Fault::Write { after: 0 });
    store.checkpoint_catalog().unwrap_err();
    disk.heal();
    store.engine.forget_idle(&store.engine.catalog.lock());
    store.checkpoint_catalog().unwrap();
    let newest = |store: &crate::Store| {
        let found = store.feed("c", "a").unwrap().get(&["id"]).unwrap();
        found
            .iter()
            .map(|record| record.payload.map(<[u8]>::to_vec))
            .collect::<Vec<_>>()
    };
    let expected = [Some(b"22".to_vec())];
    assert_eq!(newest(&store), expected);
    drop(store);
    assert_eq!(newest(&options().open("/s").unwrap()), expected);
}
