//! Re-syncs in every order: outcomes are the model's, whether saves walk through the feed as it was
//! saved, leave records out, repeat them, change some, or jump about, and whatever happens to the
//! log, the index and the commit queue in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater::storage::{ManualClock, MemoryStorage, Survivors};
use highwater::{Durability, Feed, List, Oldest, Options, Outcome, Store};
use proptest::prelude::*;

const IDS: u16 = 600;

#[derive(Clone, Debug)]
struct Walk {
    from: u16,
    len: u16,
    backwards: bool,
    batch: usize,
    /// One record in so many is left out, brings another content, or comes twice; 0 for none.
    skip: u16,
    change: u16,
    repeat: u16,
    /// Records are taken in steps of this size, which is no divisor of their number.
    stride: u16,
    content: u8,
}

#[derive(Clone, Debug)]
enum Step {
    Walk(Walk),
    Delete { from: u16, len: u16 },
    Prune,
    Remove { limit: u64 },
    Flush,
    Compact,
    Reopen,
    Crash,
}

fn walk() -> impl Strategy<Value = Walk> {
    let stride = prop_oneof![6 => Just(1u16), 1 => Just(7), 1 => Just(271)];
    let sometimes = |most: u16| prop_oneof![3 => Just(0), 1 => 2..most];
    let place = (0..IDS, 40..IDS, prop::bool::weighted(0.1), 1..400usize);
    let changes = (sometimes(60), sometimes(60), sometimes(90), stride, 0..3u8);
    (place, changes).prop_map(
        |((from, len, backwards, batch), (skip, change, repeat, stride, content))| Walk {
            from,
            len,
            backwards,
            batch,
            skip,
            change,
            repeat,
            stride,
            content,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => walk().prop_map(Step::Walk),
        1 => (0..IDS, 1..200u16).prop_map(|(from, len)| Step::Delete { from, len }),
        1 => Just(Step::Prune),
        1 => (1..300u64).prop_map(|limit| Step::Remove { limit }),
        1 => Just(Step::Flush),
        2 => Just(Step::Compact),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

#[derive(Clone, PartialEq, Debug)]
struct Known {
    content: u8,
    pruned: bool,
    deleted: bool,
}

struct World {
    disk: MemoryStorage,
    options: Options,
    store: Store,
    feed: Feed,
    model: BTreeMap<u16, Known>,
    /// Oldest change first.
    order: Vec<u16>,
}

fn id(number: u16) -> String {
    format!("record-{number}")
}

fn payload(number: u16, content: u8) -> Vec<u8> {
    format!("{number}/{content}").into_bytes()
}

impl World {
    fn new(options: Options) -> Self {
        let disk = MemoryStorage::new();
        let clock = Arc::new(ManualClock::new(1_700_000_000_000_000));
        let options = options.background(false).secret([5; 32]).clock(clock);
        let (store, feed) = Self::open(&disk, &options);
        let (model, order) = (BTreeMap::new(), Vec::new());
        Self {
            disk,
            options,
            store,
            feed,
            model,
            order,
        }
    }

    fn open(disk: &MemoryStorage, options: &Options) -> (Store, Feed) {
        let options = options.clone().storage(Arc::new(disk.clone()));
        let store = options.open("/store").unwrap();
        let feed = store.feed("c", "m").unwrap();
        (store, feed)
    }

    fn moved(&mut self, number: u16) {
        self.order.retain(|other| *other != number);
        self.order.push(number);
    }

    /// What saving one record does, in the model.
    fn save(&mut self, number: u16, content: u8) -> Outcome {
        let outcome = match self.model.get(&number) {
            Some(known) if known.deleted => Outcome::Added,
            Some(known) if known.content != content => Outcome::Updated,
            Some(known) if known.pruned => Outcome::Restored,
            Some(_) => return Outcome::Unchanged,
            None => Outcome::Added,
        };
        let now = Known {
            content,
            pruned: false,
            deleted: false,
        };
        self.model.insert(number, now);
        self.moved(number);
        outcome
    }

    fn walk(&mut self, walk: &Walk) {
        let mut inputs: Vec<(u16, u8)> = Vec::new();
        for step in 0..walk.len {
            let hits = |one_in: u16| one_in > 0 && step % one_in == one_in - 1;
            let along = u32::from(if walk.backwards {
                walk.len - step
            } else {
                step
            });
            let at = u32::from(walk.from) + along * u32::from(walk.stride);
            let number = (at % u32::from(IDS)) as u16;
            if hits(walk.skip) {
                continue;
            }
            let content = match (hits(walk.change), self.model.get(&number)) {
                (true, _) | (false, None) => walk.content,
                (false, Some(known)) => known.content,
            };
            inputs.push((number, content));
            if hits(walk.repeat) {
                let earlier = inputs[inputs.len() / 2].0;
                inputs.push((earlier, walk.content));
            }
        }
        for batch in inputs.chunks(walk.batch) {
            let mut seen = std::collections::BTreeSet::new();
            let expected: Vec<Outcome> = batch
                .iter()
                .map(|(number, content)| match seen.insert(*number) {
                    true => self.save(*number, *content),
                    false => Outcome::Duplicate,
                })
                .collect();
            let records: Vec<(String, Vec<u8>)> = batch
                .iter()
                .map(|(number, content)| (id(*number), payload(*number, *content)))
                .collect();
            let applied = self.feed.batch_save_raw(&records).unwrap();
            assert_eq!(applied.outcomes, expected);
        }
    }

    fn delete(&mut self, from: u16, len: u16) {
        let numbers: Vec<u16> = (0..len).map(|step| (from + step) % IDS).collect();
        let ids: Vec<String> = numbers.iter().map(|number| id(*number)).collect();
        let _ = self.feed.batch_delete(&ids).unwrap();
        for number in numbers {
            if let Some(known) = self.model.get_mut(&number).filter(|known| !known.deleted) {
                known.deleted = true;
                self.moved(number);
            }
        }
    }

    fn prune(&mut self) {
        let _ = self.feed.prune(&Oldest::all()).unwrap();
        self.model
            .values_mut()
            .for_each(|known| known.pruned = true);
    }

    fn remove(&mut self, limit: u64) {
        let _ = self.feed.hard_delete(&Oldest::all().limit(limit)).unwrap();
        let gone = (limit as usize).min(self.order.len());
        for number in self.order.drain(..gone) {
            self.model.remove(&number);
        }
    }

    fn check(&self) {
        let mut there = Vec::new();
        let mut list = List::new().limit(500).relative(false);
        loop {
            let page = self.feed.list(&list).unwrap();
            for record in page.iter() {
                let number: u16 = record.id["record-".len()..].parse().unwrap();
                there.push(number);
                let known = &self.model[&number];
                let expected = (!known.pruned).then(|| payload(number, known.content));
                assert_eq!(record.payload.map(<[u8]>::to_vec), expected);
            }
            if !page.has_more() {
                break;
            }
            list = list.after(page.resume_cursor());
        }
        let differs = there
            .iter()
            .zip(&self.order)
            .position(|(one, other)| one != other);
        assert_eq!((there.len(), differs), (self.order.len(), None));
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Walk(walk) => self.walk(walk),
            Step::Delete { from, len } => self.delete(*from, *len),
            Step::Prune => self.prune(),
            Step::Remove { limit } => self.remove(*limit),
            Step::Flush => self.store.flush().unwrap(),
            Step::Compact => drop(self.store.compact().unwrap()),
            Step::Reopen => {
                self.store.close().unwrap();
                (self.store, self.feed) = Self::open(&self.disk, &self.options);
            }
            Step::Crash => {
                self.store.flush().unwrap();
                self.disk = self.disk.crash(Survivors::Synced);
                (self.store, self.feed) = Self::open(&self.disk, &self.options);
            }
        }
    }
}

fn history(options: Options, steps: &[Step]) {
    let mut world = World::new(options);
    for step in steps {
        world.run(step);
    }
    world.check();
}

fn relaxed() -> Options {
    let interval = Duration::from_secs(3600);
    Options::new().durability(Durability::Relaxed { interval })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_resync_in_any_order_finds_what_changed(
        steps in prop::collection::vec(step(), 1..20),
    ) {
        history(Options::new().segment_size(32 << 10), &steps);
    }

    /// Commits stay in the queue: what they supersede is not the newest version any more.
    #[test]
    fn a_resync_behind_queued_commits_finds_what_changed(
        steps in prop::collection::vec(step(), 1..20),
    ) {
        history(relaxed().segment_size(32 << 10), &steps);
    }

    /// Indexes are in runs, of which there are many.
    #[test]
    fn a_resync_with_an_index_in_files_finds_what_changed(
        steps in prop::collection::vec(step(), 1..20),
    ) {
        let options = relaxed().segment_size(32 << 10).index_limits_of(2000, 1000);
        history(options, &steps);
    }

    #[test]
    fn a_resync_without_memory_finds_what_changed(
        steps in prop::collection::vec(step(), 1..20),
    ) {
        history(relaxed().segment_size(32 << 10).index_budget(0).eager_compaction(true), &steps);
    }
}
