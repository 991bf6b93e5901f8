//! Calls real feeds and notes what was asked, what was answered, and when.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use data_encoding::BASE64URL_NOPAD;
use highwater::{Applied, Cursor, Feed, List, Page, Store};

use crate::checker::{Call, Event, Id, Value, Version};

pub const FEEDS: usize = 2;

/// Which record is saved as what, or deleted.
pub type Records = Vec<(Id, Option<Value>)>;

/// One call, as a program has it.
#[derive(Clone, Debug)]
pub enum Step {
    Save(usize, Vec<(Id, Value)>),
    Delete(usize, Vec<Id>),
    /// One commit of both feeds.
    SaveBoth([Vec<(Id, Value)>; FEEDS]),
    /// The next page of this thread's reader.
    Follow(usize, usize),
    ListAll(usize),
    Get(usize, Vec<Id>),
    Count(usize),
    Flush,
    SaveCatalog,
    Compact,
    Pause,
}

/// What all threads of a run share.
#[derive(Default)]
pub struct Clock {
    now: AtomicU64,
    joint: AtomicUsize,
}

/// One thread's view of a store: handles, readers, and what it has noted.
pub struct Recorder<'a> {
    store: &'a Store,
    clock: &'a Clock,
    feeds: [Feed; FEEDS],
    readers: [Option<Cursor>; FEEDS],
    pub noted: [Vec<Event>; FEEDS],
}

impl Clock {
    fn tick(&self) -> u64 {
        self.now.fetch_add(1, Ordering::SeqCst)
    }
}

impl<'a> Recorder<'a> {
    pub fn new(store: &'a Store, clock: &'a Clock) -> Self {
        Self {
            store,
            clock,
            feeds: ["a", "b"].map(|model| store.feed("c", model).unwrap()),
            readers: [None; FEEDS],
            noted: Default::default(),
        }
    }

    pub fn run(&mut self, step: &Step) {
        match step {
            Step::Save(feed, records) => {
                let raw = raw(records);
                let save = |feed: &Feed| feed.batch_save_raw(&raw).unwrap();
                self.note(*feed, |feed| written(saves(records), save(feed)));
            }
            Step::Delete(feed, ids) => {
                let names: Vec<String> = ids.iter().map(Id::to_string).collect();
                let deletes = ids.iter().map(|id| (*id, None)).collect();
                let delete = |feed: &Feed| feed.batch_delete(&names).unwrap();
                self.note(*feed, |feed| written(deletes, delete(feed)));
            }
            Step::SaveBoth(records) => self.save_both(records),
            Step::Follow(feed, limit) => {
                let after = self.readers[*feed];
                self.readers[*feed] = Some(self.list(*feed, after, *limit));
            }
            Step::ListAll(feed) => drop(self.list(*feed, None, 1000)),
            Step::Get(feed, ids) => self.note(*feed, |feed| {
                let names: Vec<String> = ids.iter().map(Id::to_string).collect();
                let found = versions(&feed.get(&names).unwrap());
                let ids = ids.clone();
                Call::Get { ids, found }
            }),
            Step::Count(feed) => self.note(*feed, |feed| Call::Count(feed.count().unwrap())),
            Step::Flush => self.store.flush().unwrap(),
            Step::SaveCatalog => self.store.checkpoint_catalog().unwrap(),
            Step::Compact => drop(self.store.compact().unwrap()),
            Step::Pause => std::thread::yield_now(),
        }
    }

    fn note(&mut self, feed: usize, call: impl FnOnce(&Feed) -> Call) {
        let begun = self.clock.tick();
        let call = call(&self.feeds[feed]);
        let ended = self.clock.tick();
        self.noted[feed].push(Event {
            begun,
            ended,
            call,
            joint: None,
        });
    }

    fn save_both(&mut self, records: &[Vec<(Id, Value)>; FEEDS]) {
        let joint = Some(self.clock.joint.fetch_add(1, Ordering::SeqCst));
        let begun = self.clock.tick();
        let mut batch = self.store.batch("c");
        for (feed, records) in self.feeds.iter().zip(records) {
            batch.save_raw(feed, &raw(records)).unwrap();
        }
        let applied = batch.commit().unwrap();
        let ended = self.clock.tick();
        for ((noted, records), applied) in self.noted.iter_mut().zip(records).zip(applied) {
            noted.push(Event {
                begun,
                ended,
                call: written(saves(records), applied),
                joint,
            });
        }
    }

    fn list(&mut self, feed: usize, after: Option<Cursor>, limit: usize) -> Cursor {
        let mut resume = None;
        self.note(feed, |feed| {
            let list = List::new().after(after).limit(limit).relative(false);
            let page = feed.list(&list).unwrap();
            resume = Some(page.resume_cursor());
            Call::List {
                after: after.map_or(0, position),
                limit,
                resume: position(page.resume_cursor()),
                more: page.has_more(),
                page: versions(&page),
            }
        });
        resume.unwrap()
    }
}

fn raw(records: &[(Id, Value)]) -> Vec<(String, Vec<u8>)> {
    let raw = |(id, value): &(Id, Value)| (id.to_string(), vec![*value; 40]);
    records.iter().map(raw).collect()
}

fn saves(records: &[(Id, Value)]) -> Records {
    let save = |(id, value): &(Id, Value)| (*id, Some(*value));
    records.iter().map(save).collect()
}

fn written(records: Records, applied: Applied) -> Call {
    Call::Write {
        records,
        outcomes: applied.outcomes,
        last: applied.last_cursor.map(position),
    }
}

fn versions(page: &Page) -> Vec<Version> {
    let version = |record: highwater::Record<'_>| {
        let payload = record.payload.unwrap();
        assert!(payload.len() == 40 && payload.iter().all(|byte| *byte == payload[0]));
        Version {
            id: record.id.parse().unwrap(),
            position: position(record.cursor),
            action: record.last_action,
            value: payload[0],
        }
    };
    page.iter().map(version).collect()
}

/// What several threads have noted, by feed.
pub fn together(noted: impl IntoIterator<Item = [Vec<Event>; FEEDS]>) -> [Vec<Event>; FEEDS] {
    let mut histories = <[Vec<Event>; FEEDS]>::default();
    for noted in noted {
        for (history, noted) in histories.iter_mut().zip(noted) {
            history.extend(noted);
        }
    }
    histories
}

/// The position in a cursor's text, as the format defines it.
fn position(cursor: Cursor) -> u64 {
    let bytes = BASE64URL_NOPAD
        .decode(cursor.to_string().as_bytes())
        .unwrap();
    let mut position = [0; 8];
    position[..6].copy_from_slice(&bytes[13..19]);
    u64::from_le_bytes(position)
}
