//! NDJSON into a store, the way the command line imports it.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater::storage::MemoryStorage;
use highwater::{List, Options};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::json::say_the_same;

const BATCH: usize = 4;

/// Lines are saved in batches; a batch with a bad record is refused whole. What was saved is there
/// as it was spelt, or in a spelling that says the same, and saving it again changes nothing.
pub fn import(data: &[u8]) {
    let options = Options::new().background(false);
    let options = options.storage(Arc::new(MemoryStorage::new()));
    let store = options.open("/s").unwrap();
    let feed = store.feed("c", "m").unwrap();
    let lines = data.split(|byte| *byte == b'\n');
    let records = lines.filter_map(|line| serde_json::from_slice::<&RawValue>(line).ok());
    let records: Vec<&RawValue> = records.filter(|record| !has_odd_id(record)).collect();
    let mut expected: BTreeMap<String, &RawValue> = BTreeMap::new();
    for batch in records.chunks(BATCH) {
        let ids: Option<Vec<String>> = batch.iter().map(|record| id(record)).collect();
        match (feed.batch_save(batch), ids) {
            (Ok(applied), Some(ids)) => {
                assert_eq!(applied.outcomes.len(), batch.len());
                let mut named = Vec::new();
                for (id, record) in ids.into_iter().zip(batch) {
                    if !named.contains(&id) {
                        expected.insert(id.clone(), record);
                        named.push(id);
                    }
                }
                let again = feed.batch_save(batch).unwrap();
                assert_eq!(again.totals.changed(), 0);
            }
            (Ok(applied), None) => panic!("saved without ids: {applied:?}"),
            (Err(_), _) => {}
        }
    }
    let page = feed.list(&List::new().limit(10_000)).unwrap();
    assert_eq!(page.len(), expected.len());
    for record in page.iter() {
        let saved: &RawValue = record.json().unwrap();
        assert!(say_the_same(saved, expected[record.id]), "{}", saved.get());
    }
    store.close().unwrap();
}

/// A record's id: a string, or the digits of a number.
fn id(record: &RawValue) -> Option<String> {
    let id = id_text(record)?;
    match serde_json::from_str(id).ok()? {
        Value::String(id) => Some(id),
        Value::Number(_) => Some(id.to_owned()),
        _ => None,
    }
}

fn id_text(record: &RawValue) -> Option<&str> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(record.get()).ok()?;
    fields.get("id").map(|id| id.get())
}

/// Whether the id is a number that may be spelt in another way than its canonical one.
fn has_odd_id(record: &RawValue) -> bool {
    let odd = |id: &str| id == "-0" || id.contains(['.', 'e', 'E']);
    id_text(record).is_some_and(|id| !id.starts_with('"') && odd(id))
}
