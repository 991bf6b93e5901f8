//! Operations against a model, on a simulated disk that loses power.

use std::collections::BTreeMap;
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use highwater::storage::{ManualClock, MemoryStorage, Survivors};
use highwater::{Action, Cursor, Durability, Expected, List, Options, Outcome, Store};
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
        models: Default::default(),
        checkpoint: None,
    };
    world.open(false);
    for _ in 0..OPS_MAX {
        if input.is_empty() {
            break;
        }
        let Ok(op) = Op::arbitrary(&mut input) else {
            break;
        };
        world.apply(op);
    }
    world.check();
    world.apply(Op::Reopen { rebuild: true });
    world.check();
}

impl World {
    fn open(&mut self, rebuild: bool) {
        self.store = None;
        let mut options = Options::new()
            .storage(Arc::new(self.disk.clone()))
            .clock(self.clock.clone())
            .secret([3; 32])
            .background(false);
        if self.setup.evict {
            options = options.index_budget(0);
        }
        if self.setup.small_segments {
            options = options.segment_size(4096);
        }
        if self.setup.relaxed {
            let interval = std::time::Duration::from_secs(1);
            options = options.durability(Durability::Relaxed { interval });
        }
        let opened = if rebuild {
            options.rebuild("/s")
        } else {
            options.open("/s")
        };
        self.store = Some(opened.unwrap());
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Save { feed, records } => {
                let which = usize::from(feed);
                let values: Vec<_> = records.iter().map(|r| value(*r)).collect();
                let feed = self.store().feed("c", MODELS[which]).unwrap();
                let applied = feed.batch_save(&values).unwrap();
                let expected = self.models[which].save(&records, true);
                assert_eq!(applied.outcomes, expected);
            }
            Op::SaveRaw { feed, records } => {
                let which = usize::from(feed);
                let raw: Vec<_> = records.iter().map(|r| (id(r.0), payload(*r))).collect();
                let feed = self.store().feed("c", MODELS[which]).unwrap();
                let applied = feed.batch_save_raw(&raw).unwrap();
                let expected = self.models[which].save(&records, false);
                // The same bytes are a change when they were JSON before, and the other way round.
                assert_eq!(applied.outcomes, expected);
            }
            Op::Delete { feed, ids } => {
                let which = usize::from(feed);
                let names: Vec<_> = ids.iter().map(|n| id(*n)).collect();
                let feed = self.store().feed("c", MODELS[which]).unwrap();
                let applied = feed.batch_delete(&names).unwrap();
                let expected = self.models[which].delete(&ids);
                assert_eq!(applied.outcomes, expected);
            }
            Op::Both {
                records,
                ids,
                checkpoint,
            } => self.both(&records, &ids, checkpoint),
            Op::Checkpoint { value } => {
                let any = Expected::Any;
                match value {
                    Some(n) => self
                        .store()
                        .save_checkpoint("c", "s", "", &json!({"n": n}), any),
                    None => self.store().clear_checkpoint("c", "s", "", any),
                }
                .unwrap();
                self.checkpoint = value;
            }
            Op::Follow { feed, limit } => self.follow(usize::from(feed), usize::from(limit) + 1),
            Op::Get { feed, ids } => self.get(usize::from(feed), &ids),
            Op::Clock { micros } => self.clock.set(u64::from(micros)),
            Op::Flush => self.store().flush().unwrap(),
            Op::SaveCatalog => self.store().checkpoint_catalog().unwrap(),
            Op::Reopen { rebuild } => self.open(rebuild),
            Op::Crash { how, seed } => self.crash(how, seed.into()),
        }
    }

    fn both(&mut self, records: &[(u8, u8)], ids: &[u8], checkpoint: u8) {
        let store = self.store();
        let [a, b] = MODELS.map(|model| store.feed("c", model).unwrap());
        let values: Vec<_> = records.iter().map(|r| value(*r)).collect();
        let names: Vec<_> = ids.iter().map(|n| id(*n)).collect();
        let mut batch = store.batch("c");
        batch.save(&a, &values).unwrap();
        batch.delete(&b, &names).unwrap();
        batch.delete(&a, &names).unwrap();
        batch
            .checkpoint("s", "", &json!({"n": checkpoint}), Expected::Any)
            .unwrap();
        let applied = batch.commit().unwrap();
        self.checkpoint = Some(checkpoint);
        assert_eq!(applied[0].outcomes, self.models[0].save(records, true));
        assert_eq!(applied[1].outcomes, self.models[1].delete(ids));
        assert_eq!(applied[2].outcomes, self.models[0].delete(ids));
    }

    fn follow(&mut self, which: usize, limit: usize) {
        let feed = self.store().feed("c", MODELS[which]).unwrap();
        let model = &mut self.models[which];
        let page = feed
            .list(&List::new().after(model.after).limit(limit).relative(false))
            .unwrap();
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
    }

    fn get(&self, which: usize, ids: &[u8]) {
        let feed = self.store().feed("c", MODELS[which]).unwrap();
        let names: Vec<_> = ids.iter().map(|n| id(*n)).collect();
        let page = feed.get(&names).unwrap();
        let known = names
            .iter()
            .filter(|name| self.models[which].records.contains_key(*name));
        let known: Vec<_> = known.collect();
        assert_eq!(page.len(), known.len());
        for (record, name) in page.iter().zip(known) {
            let (payload, _, action) = &self.models[which].records[name];
            assert_eq!(record.id, name);
            assert_eq!(
                (record.payload.unwrap(), record.last_action),
                (&payload[..], *action)
            );
        }
    }

    /// Everything that was acknowledged, or in relaxed durability flushed, is there afterwards.
    fn crash(&mut self, how: u8, seed: u64) {
        if self.setup.relaxed && !how.is_multiple_of(4) {
            self.store().flush().unwrap();
        }
        let survivors = match how % 4 {
            0 => Survivors::All,
            1 => Survivors::Synced,
            2 => Survivors::Sectors(seed),
            _ => Survivors::Prefix(seed),
        };
        let crashed = self.disk.crash(survivors);
        // Whatever the old process still does, it does to the old disk.
        self.store = None;
        self.disk = crashed;
        self.open(false);
    }

    /// Everything is as the model says, and the consumers converge to it.
    fn check(&mut self) {
        for (which, model) in MODELS.iter().enumerate() {
            let feed = self.store().feed("c", model).unwrap();
            loop {
                let before = self.models[which].after;
                self.follow(which, 5);
                let after = self.models[which].after;
                let more = feed.list(&List::new().after(after).limit(1)).unwrap();
                if more.is_empty() && before == after {
                    break;
                }
            }
            let model = &self.models[which];
            let right = model.records.iter().map(|(id, (payload, _, action))| {
                let payload = payload.clone();
                (id.clone(), (payload, *action))
            });
            assert_eq!(model.seen, right.collect::<BTreeMap<_, _>>());
            let live = model
                .records
                .values()
                .filter(|(_, _, action)| *action != Action::Deleted);
            assert_eq!(feed.count().unwrap(), live.clone().count() as u64);
            let bytes = live.map(|(payload, _, _)| payload.len() as u64);
            assert_eq!(feed.size().unwrap(), bytes.sum::<u64>());
        }
        let checkpoint = self.store().checkpoint("c", "s", "").unwrap();
        let expected = self
            .checkpoint
            .map(|n| json!({"n": n}).to_string().into_bytes());
        assert_eq!(checkpoint.map(|checkpoint| checkpoint.json), expected);
        let report = self.store().verify(|_, _| {}).unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

impl Model {
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
