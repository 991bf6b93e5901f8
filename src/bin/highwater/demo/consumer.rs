//! The side that reads: keeps its own copy of the data up to date from the change feed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::ensure;
use highwater::{Action, Cursor, Feed, List};
use serde_json::Value;

/// Examples shown of each action.
const EXAMPLES: usize = 2;
/// Characters of a value that are shown.
const SHOWN: usize = 88;

/// A consumer: its copy, and the cursor up to which the copy is complete, as the text that a
/// real one would keep next to its data.
pub(super) struct Consumer {
    pub(super) copy: BTreeMap<String, Value>,
    pub(super) cursor: Option<String>,
    pub(super) page: usize,
}

/// The changes that a consumer was given.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) added: BTreeSet<String>,
    pub(super) updated: BTreeSet<String>,
    pub(super) deleted: BTreeSet<String>,
    pub(super) examples: Vec<Example>,
    pub(super) pages: u64,
    pub(super) reading: Duration,
}

impl Changes {
    pub(super) fn count(&self) -> u64 {
        (self.added.len() + self.updated.len() + self.deleted.len()) as u64
    }
}

impl Consumer {
    pub(super) fn new(page: usize) -> Self {
        Self {
            copy: BTreeMap::new(),
            cursor: None,
            page,
        }
    }

    /// Reads and applies pages, all there are or so many, and says whether there is more.
    pub(super) fn read(
        &mut self,
        feed: &Feed,
        pages: Option<u64>,
        changes: &mut Changes,
    ) -> anyhow::Result<bool> {
        let started = Instant::now();
        let mut more = true;
        let mut left = pages.unwrap_or(u64::MAX);
        while more && left > 0 {
            more = self.page(feed, changes)?;
            left -= 1;
        }
        changes.reading += started.elapsed();
        Ok(more)
    }

    fn page(&mut self, feed: &Feed, changes: &mut Changes) -> anyhow::Result<bool> {
        let after: Option<Cursor> = self.cursor.as_deref().map(str::parse).transpose()?;
        let page = feed.list(&List::new().after(after).limit(self.page).relative(false))?;
        let mut last = after;
        for record in page.iter() {
            ensure!(last < Some(record.cursor), "cursors must increase");
            last = Some(record.cursor);
            let value: Value = record.json()?;
            let id = record.id.to_owned();
            let (set, before, after) = match record.last_action {
                Action::Added | Action::Updated => {
                    let before = self.copy.insert(id.clone(), value.clone());
                    let added = record.last_action == Action::Added;
                    let set = if added {
                        &mut changes.added
                    } else {
                        &mut changes.updated
                    };
                    (set, before, Some(value))
                }
                Action::Deleted => (&mut changes.deleted, self.copy.remove(&id), None),
            };
            if set.len() < EXAMPLES {
                let payload = record.payload.unwrap_or_default();
                changes.examples.push(Example {
                    action: record.last_action,
                    id: id.clone(),
                    change: before.zip(after),
                    payload: String::from_utf8_lossy(payload).into_owned(),
                });
            }
            set.insert(id);
        }
        changes.pages += 1;
        self.cursor = Some(page.resume_cursor().to_string());
        Ok(page.has_more())
    }
}

/// One change as an example.
pub(super) struct Example {
    action: Action,
    id: String,
    /// What the consumer had, and what it has now, if both.
    change: Option<(Value, Value)>,
    payload: String,
}

impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = self.change.as_ref();
        let text = change.and_then(|(before, after)| difference(before, after));
        let text = text.as_deref().unwrap_or(&self.payload);
        write!(f, "{:<7} {:<9} {}", self.action, self.id, shortened(text))
    }
}

/// The fields that differ, with old and new value.
fn difference(before: &Value, after: &Value) -> Option<String> {
    let (before, after) = (before.as_object()?, after.as_object()?);
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let shown = |value: Option<&Value>| value.map_or("-".to_owned(), Value::to_string);
    let differing = names.into_iter().filter_map(|name| {
        let (before, after) = (before.get(name), after.get(name));
        let text = || format!("{name}: {} -> {}", shown(before), shown(after));
        (before != after).then(text)
    });
    Some(differing.collect::<Vec<_>>().join(", "))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
