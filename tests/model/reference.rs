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

/// Syncs are told apart by a small number too.
pub type SyncNo = usize;

/// This feed keeps pruned records pruned; and this one knows who saved a record last.
pub const KEEPS_PRUNED: FeedNo = 3;
pub const TRACKS_OWNER: FeedNo = 1;

/// Who writes: a run of a sync, or nobody in particular.
pub type Author = Option<(SyncNo, u64)>;

#[derive(Clone, Debug, PartialEq)]
pub struct ModelRecord {
    /// Remembered of pruned records too: they are compared with it.
    pub payload: Payload,
    pub pruned: Option<u64>,
    pub action: Action,
    /// Order of the newest change among all changes of the store.
    pub sequence: u64,
    pub first_seen: u64,
    pub modified: u64,
    pub author: Author,
    /// The sync that the record belongs to.
    pub owner: Option<SyncNo>,
}

impl ModelRecord {
    pub fn is_live(&self) -> bool {
        self.action != Action::Deleted
    }
}

/// An open deletion window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// Changes after this one were made in the window.
    pub start: u64,
    pub seen: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelFeed {
    pub records: BTreeMap<String, ModelRecord>,
    /// Commit time of the newest change.
    pub time: u64,
    /// By the sync that opened them.
    pub windows: BTreeMap<Option<SyncNo>, Window>,
    /// How often deletions were purged, and up to which change at most.
    pub purges: u64,
    pub purged_through: u64,
    /// Goes up when the feed is replaced or hard-deleted.
    pub epoch: u64,
    /// Up to where, in which epoch, the named consumer has acknowledged.
    pub consumer: Option<(u64, u64)>,
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

    /// The oldest records up to a change that are `wanted`, no more than `limit`, and whether
    /// there are more.
    pub fn oldest(
        &self,
        bounds: Bounds,
        wanted: impl Fn(&ModelRecord) -> bool,
    ) -> (Vec<String>, bool) {
        let within =
            |record: &ModelRecord| bounds.until.is_none_or(|until| record.sequence <= until);
        let all = self.in_order().into_iter();
        let mut all = all.filter(|(_, record)| within(record) && wanted(record));
        let taken = all.by_ref().take(bounds.limit as usize);
        let taken = taken.map(|(id, _)| id.clone()).collect();
        (taken, all.next().is_some())
    }

    /// What a sweep would delete: live records neither seen nor changed since the window's start.
    pub fn unseen(&self, sync: Option<SyncNo>, own: bool) -> Option<Vec<String>> {
        let window = self.windows.get(&sync)?;
        let unseen = |id: &str, record: &ModelRecord| {
            record.is_live()
                && record.sequence <= window.start
                && !window.seen.contains(id)
                && (!own || record.owner == sync)
        };
        let all = self.in_order().into_iter();
        let unseen = all.filter(|(id, record)| unseen(id, record));
        Some(unseen.map(|(id, _)| id.clone()).collect())
    }

    /// How many records the named consumer has yet to see.
    pub fn lag(&self) -> Option<u64> {
        let (epoch, at) = self.consumer?;
        let at = if epoch == self.epoch { at } else { 0 };
        let behind = self.records.values().filter(|record| record.sequence > at);
        Some(behind.count() as u64)
    }

    /// The feed with nothing in it, in its next epoch.
    pub fn start_over(&self) -> Self {
        Self {
            epoch: self.epoch + 1,
            consumer: self.consumer,
            ..Self::default()
        }
    }
}

/// How far an operation on the oldest records goes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub until: Option<u64>,
    pub limit: u64,
}

/// All outcomes, in the order they are counted in.
pub const OUTCOMES: [Outcome; 9] = [
    Outcome::Added,
    Outcome::Updated,
    Outcome::Deleted,
    Outcome::Unchanged,
    Outcome::Duplicate,
    Outcome::NotFound,
    Outcome::Restored,
    Outcome::Skipped,
    Outcome::Pruned,
];

/// Where two of them are.
pub const UPDATED: usize = 1;
pub const RESTORED: usize = 6;

/// How often there was each outcome, by feed.
pub type Report = BTreeMap<FeedNo, [u64; OUTCOMES.len()]>;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Status {
    Running,
    Succeeded,
    Failed,
    Interrupted,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ModelRun {
    pub status: Status,
    pub report: Report,
    /// Outcomes of writes that committed nothing: they wait for the run's next commit.
    pub waiting: Report,
    pub from: Option<u64>,
    pub to: Option<u64>,
}

fn add_all(report: &mut Report, more: &Report) {
    for (feed, counts) in more {
        let all = report.entry(*feed).or_default();
        all.iter_mut()
            .zip(counts)
            .for_each(|(all, more)| *all += more);
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

/// Who writes a commit, and what it leaves alone: what others changed after this.
#[derive(Clone, Copy, Debug, Default)]
pub struct By {
    pub author: Author,
    pub after: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub feeds: BTreeMap<FeedNo, ModelFeed>,
    pub checkpoints: BTreeMap<SyncNo, u64>,
    /// Runs by sync, the first one first.
    pub runs: BTreeMap<SyncNo, Vec<ModelRun>>,
    pub sequence: u64,
}

impl Model {
    /// Applies a commit at clock time `now`. `None` when the contract refuses the batch.
    pub fn commit(
        &mut self,
        now: u64,
        by: By,
        writes: &[(FeedNo, Write)],
    ) -> Option<Vec<Vec<Outcome>>> {
        let mut next = self.clone();
        let mut outcomes = Vec::new();
        let mut times = BTreeMap::new();
        for (feed, write) in writes {
            let time = *times.entry(*feed).or_insert_with(|| {
                let last = self.feeds.get(feed).map_or(0, |feed| feed.time);
                now.max(last + 1)
            });
            outcomes.push(next.apply(*feed, time, by, write)?);
        }
        *self = next;
        Some(outcomes)
    }

    /// Counts what a run has done in a commit that was there only if `committed`.
    pub fn tally(&mut self, author: Author, done: &[(FeedNo, Vec<Outcome>)], committed: bool) {
        let Some(run) = self.run(author) else { return };
        for (feed, outcomes) in done {
            let counts = run.waiting.entry(*feed).or_default();
            for (count, outcome) in counts.iter_mut().zip(OUTCOMES) {
                *count += outcomes.iter().filter(|found| **found == outcome).count() as u64;
            }
        }
        if committed {
            add_all(&mut run.report, &std::mem::take(&mut run.waiting));
        }
    }

    fn run(&mut self, author: Author) -> Option<&mut ModelRun> {
        let (sync, run) = author?;
        self.runs.get_mut(&sync)?.get_mut(run as usize - 1)
    }

    /// Begins a run; the number it has.
    pub fn begin(&mut self, sync: SyncNo, reset: bool) -> u64 {
        if reset {
            self.stop(sync);
            self.checkpoints.remove(&sync);
            for feed in self.feeds.values_mut() {
                feed.windows.remove(&Some(sync));
            }
        }
        let runs = self.runs.entry(sync).or_default();
        runs.push(ModelRun {
            status: Status::Running,
            report: Report::new(),
            waiting: Report::new(),
            from: self.checkpoints.get(&sync).copied(),
            to: None,
        });
        runs.len() as u64
    }

    /// The run itself says that it ends.
    pub fn end(&mut self, author: Author, status: Status) {
        let to = author.and_then(|(sync, _)| self.checkpoints.get(&sync).copied());
        let Some(run) = self.run(author) else { return };
        add_all(&mut run.report, &std::mem::take(&mut run.waiting));
        (run.status, run.to) = (status, to);
    }

    /// The runs of a sync are over, and cannot say anything any more.
    pub fn stop(&mut self, sync: SyncNo) {
        let to = self.checkpoints.get(&sync).copied();
        for run in self.runs.entry(sync).or_default() {
            if run.status == Status::Running {
                run.waiting.clear();
                (run.status, run.to) = (Status::Interrupted, to);
            }
        }
    }

    /// The same store after it was opened again: nobody writes to it. On a full disk it cannot say
    /// of the runs of some syncs that they are over; those are `left`.
    pub fn reopened(mut self, left: &BTreeSet<SyncNo>) -> Self {
        let syncs: Vec<SyncNo> = self.runs.keys().copied().collect();
        for sync in syncs {
            match self.runs.get_mut(&sync).filter(|_| left.contains(&sync)) {
                Some(runs) => runs.iter_mut().for_each(|run| run.waiting.clear()),
                None => self.stop(sync),
            }
        }
        self
    }

    fn apply(&mut self, feed: FeedNo, time: u64, by: By, write: &Write) -> Option<Vec<Outcome>> {
        let mut seen = BTreeSet::new();
        let mut outcome = |model: &mut Self, id: &str, step: Step<'_>| {
            if !seen.insert(id.to_owned()) {
                return Some(Outcome::Duplicate);
            }
            let saves = matches!(step, Step::Save(_));
            let outcome = model.step(feed, time, by, id, step)?;
            model.note(feed, by, id, saves && outcome == Outcome::Unchanged);
            Some(outcome)
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

    /// A write has named a record: open windows have seen it, and whoever saves it owns it.
    fn note(&mut self, feed: FeedNo, by: By, id: &str, claims: bool) {
        let tracks_owner = feed == TRACKS_OWNER;
        let feed = self.feeds.entry(feed).or_default();
        for window in feed.windows.values_mut() {
            window.seen.insert(id.to_owned());
        }
        if let Some((sync, _)) = by.author.filter(|_| claims && tracks_owner)
            && let Some(record) = feed.records.get_mut(id)
        {
            record.owner = Some(sync);
        }
    }

    fn step(
        &mut self,
        feed: FeedNo,
        time: u64,
        by: By,
        id: &str,
        step: Step<'_>,
    ) -> Option<Outcome> {
        let keeps_pruned = feed == KEEPS_PRUNED;
        let found = self
            .feeds
            .get(&feed)
            .and_then(|feed| feed.records.get(id))
            .cloned();
        let foreign = |record: &ModelRecord| {
            by.after.is_some_and(|after| record.sequence > after) && record.author != by.author
        };
        if found.as_ref().is_some_and(foreign) {
            return Some(Outcome::Skipped);
        }
        let live = found.clone().filter(ModelRecord::is_live);
        let mut pruned = None;
        let (payload, outcome, first_seen) = match (step, live) {
            (Step::Save(payload), None) => (payload.clone(), Outcome::Added, time),
            (Step::Save(payload), Some(old)) => {
                let outcome = match (old.payload == *payload, old.pruned) {
                    (true, Some(_)) if !keeps_pruned => Outcome::Restored,
                    (true, _) => return Some(Outcome::Unchanged),
                    (false, _) => Outcome::Updated,
                };
                (payload.clone(), outcome, old.first_seen)
            }
            (Step::Update(_), None) => return Some(Outcome::NotFound),
            (Step::Update(_), Some(old)) if old.pruned.is_some() => return Some(Outcome::Pruned),
            (Step::Update(partial), Some(old)) => {
                let Payload::Json(doc) = &old.payload else {
                    return None;
                };
                let mut merged = doc.clone();
                merged.merge(partial);
                if merged == *doc {
                    return Some(Outcome::Unchanged);
                }
                (Payload::Json(merged), Outcome::Updated, old.first_seen)
            }
            (Step::Delete, None) if found.is_some() => return Some(Outcome::Unchanged),
            (Step::Delete, None) => return Some(Outcome::NotFound),
            (Step::Delete, Some(old)) => {
                pruned = old.pruned;
                (old.payload, Outcome::Deleted, old.first_seen)
            }
        };
        self.sequence += 1;
        let sequence = self.sequence;
        let feed = self.feeds.entry(feed).or_default();
        feed.time = time;
        let record = ModelRecord {
            payload,
            pruned,
            action: match outcome {
                Outcome::Added => Action::Added,
                Outcome::Deleted => Action::Deleted,
                _ => Action::Updated,
            },
            sequence,
            first_seen,
            modified: time,
            author: by.author,
            owner: by.author.map(|(sync, _)| sync),
        };
        feed.records.insert(id.to_owned(), record);
        Some(outcome)
    }
}

enum Step<'a> {
    Save(&'a Payload),
    Update(&'a Doc),
    Delete,
}
