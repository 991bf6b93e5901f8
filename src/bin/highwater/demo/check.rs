//! What the changes should have been: snapshots compared as plain maps.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::consumer::Changes;
use super::provider::Saved;
use super::snapshot::Snapshot;
use crate::terminal::grouped;

/// Records by id.
pub(super) type Values = BTreeMap<String, Value>;

/// The records of a snapshot, parsed.
pub(super) fn values(snapshot: &Snapshot) -> serde_json::Result<Values> {
    let parsed = snapshot.records.iter().map(|(id, text)| {
        let value = serde_json::from_str(text.get())?;
        Ok((id.clone(), value))
    });
    parsed.collect()
}

/// The changes from one snapshot to the next.
pub(super) struct Expected<'a> {
    added: BTreeSet<&'a String>,
    updated: BTreeSet<&'a String>,
    deleted: BTreeSet<&'a String>,
    unchanged: u64,
}

/// A line about a snapshot.
pub(super) struct Difference {
    pub(super) text: String,
    pub(super) agrees: bool,
}

impl<'a> Expected<'a> {
    pub(super) fn between(before: &'a Values, after: &'a Values) -> Self {
        let mut expected = Self {
            added: BTreeSet::new(),
            updated: BTreeSet::new(),
            deleted: before
                .keys()
                .filter(|id| !after.contains_key(*id))
                .collect(),
            unchanged: 0,
        };
        for (id, value) in after {
            match before.get(id) {
                None => drop(expected.added.insert(id)),
                Some(old) if equal(old, value) => expected.unchanged += 1,
                Some(_) => drop(expected.updated.insert(id)),
            }
        }
        expected
    }

    /// Compares the totals of the writes, and the ids in the feed one by one.
    pub(super) fn compare(&self, saved: &Saved, changes: &Changes) -> Difference {
        let totals = &saved.totals;
        let rows = [
            ("added", &self.added, totals.added, &changes.added),
            ("updated", &self.updated, totals.updated, &changes.updated),
            ("deleted", &self.deleted, saved.deleted, &changes.deleted),
        ];
        let mut agrees = self.unchanged == totals.unchanged;
        let mut text = String::new();
        for (what, expected, total, read) in rows {
            let same = expected.iter().copied().eq(read.iter());
            agrees &= same && total == expected.len() as u64;
            let [expected, read] = [expected.len(), read.len()].map(|n| grouped(n as u64));
            text += &format!("{what} {read} of {expected}, ");
        }
        text += if agrees {
            "the same ids"
        } else {
            "THEY DIFFER"
        };
        Difference { text, agrees }
    }
}

/// Whether two sets of records are the same.
pub(super) fn equal_maps(left: &Values, right: &Values) -> bool {
    let pairs = || left.iter().zip(right);
    left.len() == right.len() && pairs().all(|(l, r)| l.0 == r.0 && equal(l.1, r.1))
}

/// Whether two values are the same, where 1 and 1.0 are. (Beyond 2^53 this is less exact than the
/// store; no snapshot so far has such numbers.)
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left == right || left.as_f64() == right.as_f64()
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| equal(l, r))
        }
        (Value::Object(left), Value::Object(right)) => {
            let same = |(key, value)| right.get(key).is_some_and(|other| equal(value, other));
            left.len() == right.len() && left.iter().all(same)
        }
        _ => left == right,
    }
}
