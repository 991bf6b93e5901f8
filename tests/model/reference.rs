//! The model: what a store has to hold after a sequence of operations.

use std::collections::{BTreeMap, BTreeSet};

use highwater::{Action, Outcome};
use serde_json::{Map, Value, json};

/// Feeds are told apart by a small number; the driver maps it to connection and model.
pub type FeedNo = usize;

/// A JSON record: small enough to collide often, rich enough for merges to matter.
#[derive(Clone, Debug, PartialEq)]
pub struct Doc(pub Map<String, Value>);

impl Doc {
    pub fn new(id: &str, version: u8) -> Self {
        let Value::Object(map) = json!({"id": id, "v": version, "tags": [version, 1]}) else {
            unreachable!("an object literal")
        };
        Self(map)
    }

    /// The same value in one of four spellings.
    pub fn spell(&self, spelling: u8) -> String {
        let mut fields: Vec<String> = self
            .0
            .iter()
            .map(|(key, value)| {
                let text = match (value, spelling & 1) {
                    (Value::Number(number), 1) => format!("{number}.0"),
                    _ => value.to_string(),
                };
                format!("{}:{text}", Value::from(key.as_str()))
            })
            .collect();
        if spelling & 2 != 0 {
            fields.reverse();
        }
        format!(
            "{{{}}}",
            fields.join(if spelling & 1 == 0 { "," } else { " , " })
        )
    }

    /// Deep merge, as the contract says.
    pub fn merge(&mut self, partial: &Doc) {
        fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
            for (key, value) in from {
                match (into.get_mut(key), value) {
                    (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
                    _ => {
                        into.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        merge(&mut self.0, &partial.0);
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    Json(Doc),
    Raw(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ModelRecord {
    pub payload: Payload,
    pub action: Action,
    /// Order of the newest change among all changes of the store.
    pub sequence: u64,
    pub first_seen: u64,
    pub modified: u64,
}

impl ModelRecord {
    pub fn is_live(&self) -> bool {
        self.action != Action::Deleted
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelFeed {
    pub records: BTreeMap<String, ModelRecord>,
    /// Commit time of the newest change.
    pub time: u64,
}

impl ModelFeed {
    /// Records in feed order.
    pub fn in_order(&self) -> Vec<(&String, &ModelRecord)> {
        let mut records: Vec<_> = self.records.iter().collect();
        records.sort_by_key(|(_, record)| record.sequence);
        records
    }

    pub fn live(&self) -> usize {
        self.records
            .values()
            .filter(|record| record.is_live())
            .count()
    }
}

/// One write of a commit.
#[derive(Clone, Debug)]
pub enum Write {
    SaveJson(Vec<(String, u8, u8)>),
    SaveRaw(Vec<(String, Vec<u8>)>),
    Update(Vec<(String, Doc)>),
    Delete(Vec<String>),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub feeds: BTreeMap<FeedNo, ModelFeed>,
    pub checkpoint: Option<u64>,
    pub sequence: u64,
}

impl Model {
    /// Applies a commit at clock time `now`. `None` when the contract refuses the batch.
    pub fn commit(&mut self, now: u64, writes: &[(FeedNo, Write)]) -> Option<Vec<Vec<Outcome>>> {
        let mut next = self.clone();
        let mut outcomes = Vec::new();
        let mut times = BTreeMap::new();
        for (feed, write) in writes {
            let time = *times.entry(*feed).or_insert_with(|| {
                let last = self.feeds.get(feed).map_or(0, |feed| feed.time);
                now.max(last + 1)
            });
            outcomes.push(next.apply(*feed, time, write)?);
        }
        *self = next;
        Some(outcomes)
    }

    fn apply(&mut self, feed: FeedNo, time: u64, write: &Write) -> Option<Vec<Outcome>> {
        let mut seen = BTreeSet::new();
        let mut outcome = |model: &mut Self, id: &str, step: Step<'_>| {
            if !seen.insert(id.to_owned()) {
                return Some(Outcome::Duplicate);
            }
            model.step(feed, time, id, step)
        };
        match write {
            Write::SaveJson(records) => records
                .iter()
                .map(|(id, version, _)| {
                    let doc = Payload::Json(Doc::new(id, *version));
                    outcome(self, id, Step::Save(&doc))
                })
                .collect(),
            Write::SaveRaw(records) => records
                .iter()
                .map(|(id, body)| outcome(self, id, Step::Save(&Payload::Raw(body.clone()))))
                .collect(),
            Write::Update(records) => records
                .iter()
                .map(|(id, partial)| outcome(self, id, Step::Update(partial)))
                .collect(),
            Write::Delete(ids) => ids
                .iter()
                .map(|id| outcome(self, id, Step::Delete))
                .collect(),
        }
    }

    fn step(&mut self, feed: FeedNo, time: u64, id: &str, step: Step<'_>) -> Option<Outcome> {
        let found = self
            .feeds
            .get(&feed)
            .and_then(|feed| feed.records.get(id))
            .cloned();
        let live = found.clone().filter(ModelRecord::is_live);
        let (payload, action, first_seen) = match (step, live) {
            (Step::Save(payload), None) => (payload.clone(), Action::Added, time),
            (Step::Save(payload), Some(old)) => {
                if old.payload == *payload {
                    return Some(Outcome::Unchanged);
                }
                (payload.clone(), Action::Updated, old.first_seen)
            }
            (Step::Update(_), None) => return Some(Outcome::NotFound),
            (Step::Update(partial), Some(old)) => {
                let Payload::Json(doc) = &old.payload else {
                    return None;
                };
                let mut merged = doc.clone();
                merged.merge(partial);
                if merged == *doc {
                    return Some(Outcome::Unchanged);
                }
                (Payload::Json(merged), Action::Updated, old.first_seen)
            }
            (Step::Delete, None) if found.is_some() => return Some(Outcome::Unchanged),
            (Step::Delete, None) => return Some(Outcome::NotFound),
            (Step::Delete, Some(old)) => (old.payload, Action::Deleted, old.first_seen),
        };
        self.sequence += 1;
        let sequence = self.sequence;
        let feed = self.feeds.entry(feed).or_default();
        feed.time = time;
        let record = ModelRecord {
            payload,
            action,
            sequence,
            first_seen,
            modified: time,
        };
        feed.records.insert(id.to_owned(), record);
        Some(match action {
            Action::Added => Outcome::Added,
            Action::Updated => Outcome::Updated,
            Action::Deleted => Outcome::Deleted,
        })
    }
}

enum Step<'a> {
    Save(&'a Payload),
    Update(&'a Doc),
    Delete,
}
