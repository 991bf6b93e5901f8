//! Operations against a model, on a simulated disk that fails, fills up and loses power.

use std::collections::BTreeMap;
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use highwater::storage::{Fault, ManualClock, MemoryStorage, Survivors};
use highwater::{Action, Cursor, Durability, Error, Expected, List, Options, Outcome, Store};
use serde_json::json;

const OPS_MAX: usize = 60;
const MODELS: [&str; 2] = ["a", "b"];

#[derive(Arbitrary, Debug)]
enum Op {
    Save {
        feed: bool,
        records: Vec<(u8, u8)>,
    },
    SaveRaw {
        feed: bool,
        records: Vec<(u8, u8)>,
    },
    Delete {
        feed: bool,
        ids: Vec<u8>,
    },
    Both {
        records: Vec<(u8, u8)>,
        ids: Vec<u8>,
        checkpoint: u8,
    },
    Checkpoint {
        value: Option<u8>,
    },
    Follow {
        feed: bool,
        limit: u8,
    },
    Get {
        feed: bool,
        ids: Vec<u8>,
    },
    Clock {
        micros: u32,
    },
    Flush,
    SaveCatalog,
    Compact,
    /// Something goes wrong soon, until an operation was told so.
    Fail {
        kind: u8,
        after: u8,
    },
    Reopen {
        rebuild: bool,
    },
    Crash {
        how: u8,
        seed: u16,
    },
}

#[derive(Arbitrary, Debug)]
struct Setup {
    evict: bool,
    small_runs: bool,
    relaxed: bool,
    small_segments: bool,
}

/// What a feed should hold, and a consumer that reads along.
#[derive(Clone, Default)]
struct Model {
    /// Payload, whether it is JSON, and the newest action.
    records: BTreeMap<String, (Vec<u8>, bool, Action)>,
    after: Option<Cursor>,
    seen: BTreeMap<String, (Vec<u8>, Action)>,
}

struct World {
    setup: Setup,
    disk: MemoryStorage,
    clock: Arc<ManualClock>,
    store: Option<Store>,
    expected: Expectation,
    /// Whether something may go wrong.
    failing: bool,
}

/// What the store should hold.
#[derive(Clone, Default)]
struct Expectation {
    models: [Model; 2],
    checkpoint: Option<u8>,
}

/// Runs the operations the input stands for, comparing everything with the model.
pub fn ops(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(setup) = Setup::arbitrary(&mut input) else {
        return;
    };
    let mut world = World {
        setup,
        disk: MemoryStorage::new(),
        clock: Arc::new(ManualClock::new(1_000_000)),
        store: None,
        expected: Expectation::default(),
        failing: false,
    };
    world.open(false);
    for _ in 0..OPS_MAX {
        if input.is_empty() {
            break;
        }
        let Ok(op) = Op::arbitrary(&mut input) else {
            break;
        };
        world.apply(&op);
    }
    world.heal();
    world.check();
    world.apply(&Op::Reopen { rebuild: true });
    world.check();
}

impl World {
    fn options(&self) -> Options {
        let mut options = Options::new()
            .storage(Arc::new(self.disk.clone()))
            .clock(self.clock.clone())
            .secret([3; 32])
            .background(false)
            .eager_compaction(true);
        if self.setup.evict {
            options = options.index_budget(0);
        }
        if self.setup.small_runs {
            options = options.index_limits_of(0, 0);
        }
        if self.setup.small_segments {
            options = options.segment_size(4096);
        }
        if self.setup.relaxed {
            let interval = std::time::Duration::from_secs(1);
            options = options.durability(Durability::Relaxed { interval });
        }
        options
    }

    fn open(&mut self, rebuild: bool) {
        self.store = None;
        let open = |options: Options| match rebuild {
            true => options.rebuild("/s"),
            false => options.open("/s"),
        };
        let mut opened = open(self.options());
        if opened.is_err() && self.failing {
            self.heal();
            opened = open(self.options());
        }
        self.store = Some(opened.unwrap());
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn heal(&mut self) {
        self.disk.heal();
        self.failing = false;
    }

    fn apply(&mut self, op: &Op) {
        let mut after = self.expected.clone();
        let outcomes = after.write(op);
        match self.attempt(op) {
            Ok(applied) => {
                assert_eq!(applied, outcomes, "{op:?}");
                self.expected.checkpoint = after.checkpoint;
                for (model, after) in self.expected.models.iter_mut().zip(after.models) {
                    model.records = after.records;
                }
            }
            Err(error) => self.recover(&error, after),
        }
    }

    /// After something went wrong the store is opened anew, and has the whole operation or nothing
    /// of it.
    fn recover(&mut self, error: &Error, after: Expectation) {
        assert!(self.failing, "{error}");
        self.heal();
        let survivors = match self.setup.relaxed {
            true => Survivors::All,
            false => Survivors::Synced,
        };
        self.lose(survivors);
        if !self.holds(&self.expected) {
            assert!(self.holds(&after), "neither before nor after: {error}");
            self.expected = after;
        }
    }

    /// Whatever the old process still does, it does to the old disk.
    fn lose(&mut self, survivors: Survivors) {
        let crashed = self.disk.crash(survivors);
        self.store = None;
        self.disk = crashed;
        self.open(false);
    }

    fn holds(&self, expected: &Expectation) -> bool {
        let checkpoint = self.store().checkpoint("c", "s", "").unwrap();
        let checkpoint = checkpoint.map(|checkpoint| checkpoint.json);
        let models = MODELS.iter().zip(&expected.models);
        let fits = |(name, model): (&&str, &Model)| {
            let feed = self.store().feed("c", name).unwrap();
            let records = feed.records(None).map(Result::unwrap);
            let records = records.map(|it| (it.id, (it.payload.unwrap(), it.last_action)));
            records.collect::<BTreeMap<_, _>>() == model.shown()
        };
        checkpoint == expected.checkpoint_json() && models.into_iter().all(fits)
    }

    /// Carries an operation out; the outcomes of its writes.
    fn attempt(&mut self, op: &Op) -> Result<Vec<Vec<Outcome>>, Error> {
        let feed = |which: bool| self.store().feed("c", MODELS[usize::from(which)]);
        match op {
            Op::Save {
                feed: which,
                records,
            } => {
                let values: Vec<_> = records.iter().map(|r| value(*r)).collect();
                return Ok(vec![feed(*which)?.batch_save(&values)?.outcomes]);
            }
            Op::SaveRaw {
                feed: which,
                records,
            } => {
                let raw: Vec<_> = records.iter().map(|r| (id(r.0), payload(*r))).collect();
                return Ok(vec![feed(*which)?.batch_save_raw(&raw)?.outcomes]);
            }
            Op::Delete { feed: which, ids } => {
                let names: Vec<_> = ids.iter().map(|n| id(*n)).collect();
                return Ok(vec![feed(*which)?.batch_delete(&names)?.outcomes]);
            }
            Op::Both {
                records,
                ids,
                checkpoint,
            } => return self.both(records, ids, *checkpoint),
            Op::Checkpoint { value: Some(n) } => {
                let any = Expected::Any;
                self.store()
                    .save_checkpoint("c", "s", "", &json!({"n": n}), any)?;
            }
            Op::Checkpoint { value: None } => {
                self.store().clear_checkpoint("c", "s", "", Expected::Any)?;
            }
            Op::Follow { feed, limit } => {
                self.follow(usize::from(*feed), usize::from(*limit) + 1)?;
            }
            Op::Get { feed, ids } => self.get(usize::from(*feed), ids)?,
            Op::Clock { micros } => self.clock.set(u64::from(*micros)),
            Op::Flush => self.store().flush()?,
            Op::SaveCatalog => self.store().checkpoint_catalog()?,
            Op::Compact => drop(self.store().compact()?),
            Op::Fail { kind, after } => self.fail(*kind, u64::from(*after)),
            Op::Reopen { rebuild } => self.open(*rebuild),
            Op::Crash { how, seed } => self.crash(*how, u64::from(*seed))?,
        }
        Ok(Vec::new())
    }

    fn fail(&mut self, kind: u8, after: u64) {
        self.failing = true;
        self.disk.fail(match kind % 5 {
            0 => Fault::Write { after },
            1 => Fault::Sync {
                after,
                dropped: !self.setup.relaxed,
            },
            2 => Fault::SyncDir { after: after % 8 },
            3 => Fault::Read { after },
            _ => Fault::Full { bytes: 64 * after },
        });
    }

    fn both(
        &self,
        records: &[(u8, u8)],
        ids: &[u8],
        checkpoint: u8,
    ) -> Result<Vec<Vec<Outcome>>, Error> {
        let store = self.store();
        let (a, b) = (store.feed("c", MODELS[0])?, store.feed("c", MODELS[1])?);
        let values: Vec<_> = records.iter().map(|r| value(*r)).collect();
        let names: Vec<_> = ids.iter().map(|n| id(*n)).collect();
        let mut batch = store.batch("c");
        batch.save(&a, &values)?;
        batch.delete(&b, &names)?;
        batch.delete(&a, &names)?;
        batch.checkpoint("s", "", &json!({"n": checkpoint}), Expected::Any)?;
        let applied = batch.commit()?;
        Ok(applied
            .into_iter()
            .map(|applied| applied.outcomes)
            .collect())
    }

    fn follow(&mut self, which: usize, limit: usize) -> Result<(), Error> {
        let feed = self.store().feed("c", MODELS[which])?;
        let model = &mut self.expected.models[which];
        let page = feed.list(&List::new().after(model.after).limit(limit).relative(false))?;
        let mut after = model.after;
        let mut time = None;
        for record in page.iter() {
            assert!(after.is_none_or(|after| after < record.cursor));
            assert!(
                Some(record.last_modified_at) >= time,
                "time goes backwards in the feed"
            );
            after = Some(record.cursor);
            time = Some(record.last_modified_at);
            let seen = (record.payload.unwrap().to_vec(), record.last_action);
            model.seen.insert(record.id.to_owned(), seen);
        }
        assert!(after <= Some(page.resume_cursor()));
        model.after = Some(page.resume_cursor());
        Ok(())
    }

    fn get(&self, which: usize, ids: &[u8]) -> Result<(), Error> {
        let feed = self.store().feed("c", MODELS[which])?;
        let records = &self.expected.models[which].records;
        let names: Vec<_> = ids.iter().map(|n| id(*n)).collect();
        let page = feed.get(&names)?;
        let known = names.iter().filter(|name| records.contains_key(*name));
        let known: Vec<_> = known.collect();
        assert_eq!(page.len(), known.len());
        for (record, name) in page.iter().zip(known) {
            let (payload, _, action) = &records[name];
            assert_eq!(record.id, name);
            assert_eq!(
                (record.payload.unwrap(), record.last_action),
                (&payload[..], *action)
            );
        }
        Ok(())
    }

    /// Everything that was acknowledged, or in relaxed durability flushed, is there afterwards.
    fn crash(&mut self, how: u8, seed: u64) -> Result<(), Error> {
        if self.setup.relaxed && !how.is_multiple_of(4) {
            self.store().flush()?;
        }
        self.lose(match how % 4 {
            0 => Survivors::All,
            1 => Survivors::Synced,
            2 => Survivors::Sectors(seed),
            _ => Survivors::Prefix(seed),
        });
        Ok(())
    }

    /// Everything is as the model says, and the consumers converge to it.
    fn check(&mut self) {
        for (which, model) in MODELS.iter().enumerate() {
            let feed = self.store().feed("c", model).unwrap();
            loop {
                let before = self.expected.models[which].after;
                self.follow(which, 5).unwrap();
                let after = self.expected.models[which].after;
                let more = feed.list(&List::new().after(after).limit(1)).unwrap();
                if more.is_empty() && before == after {
                    break;
                }
            }
            let model = &self.expected.models[which];
            assert_eq!(model.seen, model.shown());
            let live = model
                .records
                .values()
                .filter(|(_, _, action)| *action != Action::Deleted);
            assert_eq!(feed.count().unwrap(), live.clone().count() as u64);
            let bytes = live.map(|(payload, _, _)| payload.len() as u64);
            assert_eq!(feed.size().unwrap(), bytes.sum::<u64>());
        }
        assert!(self.holds(&self.expected));
        let report = self.store().verify(|_, _| {}).unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

impl Expectation {
    /// What an operation does, and the outcomes of its writes.
    fn write(&mut self, op: &Op) -> Vec<Vec<Outcome>> {
        let [a, b] = &mut self.models;
        match op {
            Op::Save { feed, records } => {
                vec![self.models[usize::from(*feed)].save(records, true)]
            }
            Op::SaveRaw { feed, records } => {
                // The same bytes are a change when they were JSON before, and the other way round.
                vec![self.models[usize::from(*feed)].save(records, false)]
            }
            Op::Delete { feed, ids } => vec![self.models[usize::from(*feed)].delete(ids)],
            Op::Both {
                records,
                ids,
                checkpoint,
            } => {
                self.checkpoint = Some(*checkpoint);
                vec![a.save(records, true), b.delete(ids), a.delete(ids)]
            }
            Op::Checkpoint { value } => {
                self.checkpoint = *value;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn checkpoint_json(&self) -> Option<Vec<u8>> {
        let json = |n| json!({"n": n}).to_string().into_bytes();
        self.checkpoint.map(json)
    }
}

impl Model {
    /// What a feed shows: payload and newest action by id.
    fn shown(&self) -> BTreeMap<String, (Vec<u8>, Action)> {
        let records = self.records.iter();
        let shown = records.map(|(id, (payload, _, action))| {
            let payload = payload.clone();
            (id.clone(), (payload, *action))
        });
        shown.collect()
    }

    fn save(&mut self, records: &[(u8, u8)], json: bool) -> Vec<Outcome> {
        let mut named = Vec::new();
        let mut outcomes = Vec::new();
        for record in records {
            let name = id(record.0);
            if named.contains(&name) {
                outcomes.push(Outcome::Duplicate);
                continue;
            }
            named.push(name.clone());
            let payload = payload(*record);
            let (outcome, action) = match self.records.get(&name) {
                Some((old, was_json, action)) if *action != Action::Deleted => {
                    if *old == payload && *was_json == json {
                        outcomes.push(Outcome::Unchanged);
                        continue;
                    }
                    (Outcome::Updated, Action::Updated)
                }
                _ => (Outcome::Added, Action::Added),
            };
            outcomes.push(outcome);
            self.records.insert(name, (payload, json, action));
        }
        outcomes
    }

    fn delete(&mut self, ids: &[u8]) -> Vec<Outcome> {
        let mut named = Vec::new();
        let mut outcomes = Vec::new();
        for name in ids.iter().map(|n| id(*n)) {
            if named.contains(&name) {
                outcomes.push(Outcome::Duplicate);
                continue;
            }
            named.push(name.clone());
            outcomes.push(match self.records.get_mut(&name) {
                None => Outcome::NotFound,
                Some((_, _, Action::Deleted)) => Outcome::Unchanged,
                Some((_, _, action)) => {
                    *action = Action::Deleted;
                    Outcome::Deleted
                }
            });
        }
        outcomes
    }
}

fn id(n: u8) -> String {
    format!("id-{}", n % 24)
}

fn value((n, version): (u8, u8)) -> serde_json::Value {
    let pad = "p".repeat(usize::from(version % 8) * 40);
    json!({"id": id(n), "pad": pad, "v": version % 8})
}

fn payload(record: (u8, u8)) -> Vec<u8> {
    serde_json::to_vec(&value(record)).unwrap()
}
