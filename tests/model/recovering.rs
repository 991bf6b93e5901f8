//! Reopening a store, also after a crash, and finding out in which of the states it is that the
//! history allows.

use std::rc::Rc;
use std::sync::Arc;

use highwater::storage::{Clock, Fault, MemoryStorage, Survivors};
use highwater::{Error, Result, RunOptions, Store, Sweep};

use crate::checker::{feed_agrees, status_of, syncs_agree};
use crate::driver::{Driver, FEEDS, NAMES, PATH, SYNCS, Trust, feed_of, sync_key};
use crate::reader::Reader;
use crate::reference::{FeedNo, Model, ModelFeed, Status, SyncNo};

/// What keeps an open from coming to its end.
#[derive(Clone, Copy, Debug)]
pub enum Interruption {
    /// The power fails after so many operations, and leaves this of the disk.
    Power(u64, Survivors),
    /// A fault strikes; the next attempt is made in the same boot.
    Fault(Fault),
}

impl Driver {
    pub fn close_and_open(&mut self) {
        self.reopen(false);
    }

    pub fn rebuild(&mut self) {
        self.reopen(true);
    }

    /// Closes the store, and opens it again in the same boot; again when that fails.
    fn reopen(&mut self, rebuild: bool) {
        let closed = self.store.close();
        let closed = self.look(closed).is_some();
        let probe = self.disk.crash(Survivors::All);
        let opened = self.open_again(rebuild);
        if self.look(opened).is_none() {
            if self.reported.is_some() {
                return;
            }
            self.disk.heal();
            if let Err(error) = self.open_again(rebuild) {
                // The power may be gone.
                self.excuse(&error, None);
                return;
            }
        }
        if closed && !self.poisoned {
            self.settle(self.reopened(&self.model));
        } else {
            self.find_survivors(&probe, Survivors::All);
        }
    }

    pub fn compact(&mut self) {
        let compacted = self.store.compact();
        if self.look(compacted).is_some() {
            self.mark_durable();
        }
    }

    pub fn save_catalog(&mut self) {
        let saved = self.store.checkpoint_catalog();
        if self.look(saved).is_some() {
            self.mark_durable();
        }
    }

    /// Nobody else can open the store.
    pub fn open_twice(&mut self) {
        let options = self.options.clone().storage(Arc::new(self.disk.clone()));
        match options.open(PATH) {
            Ok(_) => panic!("two have the store open"),
            Err(Error::Locked { .. }) => {}
            Err(error) => self.excuse(&error, None),
        }
    }

    fn open_again(&mut self, rebuild: bool) -> Result<()> {
        // Handles of the store that was left are good for nothing.
        self.runs.clear();
        self.replacement = None;
        self.fillings.clear();
        self.batches.clear();
        let options = self.options.clone().storage(Arc::new(self.disk.clone()));
        self.store = match rebuild {
            true => options.rebuild(PATH),
            false => options.open(PATH),
        }?;
        Ok(())
    }

    /// A state as it is when the store is open again.
    fn reopened(&self, state: &Model) -> Model {
        let goes_on = |sync: &SyncNo| {
            let reports = self.store.runs(&sync_key(*sync)).unwrap_or_default();
            let newest = reports.first().map(|report| status_of(report.status));
            newest == Some(Status::Running)
        };
        let left = (0..SYNCS.len()).filter(|sync| self.trust != Trust::Sound && goes_on(sync));
        state.clone().reopened(&left.collect())
    }

    /// Everything up to here is on stable storage.
    fn settle(&mut self, model: Model) {
        self.model = model;
        self.poisoned = false;
        self.history.push(Rc::new(self.model.clone()));
        self.forget_history();
        self.unvouched.clone_from(&self.history);
    }

    /// Cuts the power (or kills the process), opens again, and finds out which commits survived:
    /// a prefix of the history that has at least everything known to be durable.
    pub fn crash(&mut self, survivors: Survivors) {
        self.crash_through(survivors, &[]);
    }

    /// The same, with opens that are interrupted before the last one.
    pub fn crash_through(&mut self, mut survivors: Survivors, interruptions: &[Interruption]) {
        self.leave(survivors);
        for interruption in interruptions {
            let trust = self.trust;
            self.trust = trust.or_failing();
            let left = match *interruption {
                Interruption::Power(after, survivors) => {
                    self.disk.stop_at(after);
                    survivors
                }
                Interruption::Fault(fault) => {
                    self.disk.fail(fault);
                    Survivors::All
                }
            };
            self.open_and_look(survivors);
            self.trust = trust;
            if self.reported.is_some() {
                return;
            }
            if left != Survivors::All {
                survivors = left;
            }
            self.leave(left);
        }
        self.open_and_look(survivors);
    }

    /// The process ends, or everything does; whoever still has handles finds no disk behind them.
    fn leave(&mut self, survivors: Survivors) {
        let left = self.disk.crash(survivors);
        let dead = std::mem::replace(&mut self.disk, left);
        dead.stop_at(0);
        for (fault, times) in dead.strikes() {
            *self.strikes.entry(fault).or_default() += times;
        }
    }

    fn open_and_look(&mut self, survivors: Survivors) {
        let probe = self.disk.crash(Survivors::All);
        let opened = self.open_again(false);
        if self.look(opened).is_some() {
            self.find_survivors(&probe, survivors);
        }
    }

    /// The store was opened after an unclean end: it must be in one of the states that the history
    /// allows. `probe` is the disk before.
    fn find_survivors(&mut self, probe: &MemoryStorage, survivors: Survivors) {
        let found = self.survivors(probe, survivors);
        if let Some(found) = self.look(found) {
            if found != self.reopened(&self.model) && self.trust != Trust::Sound {
                // What readers were given is gone: the disk did not do what it said.
                self.bookmarks.clear();
                self.shown.clear();
                let afresh = |reader: &mut Reader| *reader = Reader::of(reader.feed);
                self.readers.iter_mut().for_each(afresh);
            }
            // Nothing has been written yet that vouches for what was found.
            let (found_at, states) = (Rc::new(found.clone()), self.states());
            let at = states.iter().rposition(|state| *state == found_at);
            self.settle(found);
            self.unvouched = states;
            self.unvouched.truncate(at.map_or(0, |at| at + 1));
        }
    }

    /// The states that the store may be in after an unclean end, as they are when it is open again.
    fn states(&self) -> Vec<Rc<Model>> {
        let older = match self.trust {
            Trust::Lying => &[],
            _ => &self.unvouched[..],
        };
        let states = older.iter().chain(&self.history);
        let states = states.map(|state| Rc::new(self.reopened(state)));
        states.collect()
    }

    fn survivors(&self, probe: &MemoryStorage, survivors: Survivors) -> Result<Model> {
        let mut states = self.states();
        if self.trust != Trust::Damaged {
            states.drain(..states.len() - self.history.len());
        }
        let is_newest = |state: &Rc<Model>| **state == self.model;
        let acknowledged = self.history.iter().rposition(is_newest);
        let acknowledged = acknowledged.map(|at| states.len() - self.history.len() + at);
        for state in states.iter().rev() {
            if !self.agrees(probe, state)? {
                continue;
            }
            let found = states.iter().rposition(|other| other == state);
            assert!(
                survivors != Survivors::All || self.trust != Trust::Sound || found >= acknowledged,
                "a killed process loses nothing"
            );
            return Ok(Model::clone(state));
        }
        let newest = states.last().map(|state| self.difference(state));
        let newest = newest.transpose()?.flatten();
        panic!(
            "after {survivors:?} the store is at none of {} states; the newest has {}",
            states.len(),
            newest.unwrap_or("other windows")
        )
    }

    fn agrees(&self, probe: &MemoryStorage, model: &Model) -> Result<bool> {
        Ok(self.shows(model)?
            && self.windows_agree(probe, model)?
            && self.times_agree(probe, model)?)
    }

    /// Whether the next changes would be as late as the model says. Only that tells a feed from which
    /// everything was removed from one that was emptied as a whole.
    fn times_agree(&self, probe: &MemoryStorage, model: &Model) -> Result<bool> {
        let now = self.clock.now_micros();
        for feed in 0..FEEDS {
            let next = |model: &Model| {
                let known = model.feeds.get(&feed).map_or(0, |feed| feed.time);
                now.max(known + 1)
            };
            let expected = next(model);
            let mut others = self.history.iter().chain(&self.unvouched);
            if others.all(|other| next(other) == expected) {
                continue;
            }
            let written = self.on_copy(probe, |store| {
                let feed = feed_of(store, feed)?;
                let _ = feed.batch_save_raw(&[("next", "1")])?;
                feed.get(&["next"])
            })?;
            let time = written.get(0).unwrap().last_modified_at.as_micros();
            if time != expected {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What somebody would do with the store, done with a copy of it.
    fn on_copy<T>(
        &self,
        probe: &MemoryStorage,
        act: impl FnOnce(&Store) -> Result<T>,
    ) -> Result<T> {
        let disk = probe.crash(Survivors::All);
        let options = self.options.clone().storage(Arc::new(disk.clone()));
        let store = options.open(PATH)?;
        let done = act(&store);
        disk.stop_at(0);
        done
    }

    /// Whether readers see what the model says.
    pub fn shows(&self, model: &Model) -> Result<bool> {
        Ok(self.difference(model)?.is_none())
    }

    /// What of the model readers do not see, if anything.
    fn difference(&self, model: &Model) -> Result<Option<&'static str>> {
        let empty = ModelFeed::default();
        for (feed, (_, name, _)) in NAMES.iter().enumerate() {
            let expected = model.feeds.get(&feed).unwrap_or(&empty);
            if !feed_agrees(&self.try_feed(feed)?, expected)? {
                return Ok(Some(name));
            }
        }
        let same = syncs_agree(&self.store, model, self.counts_loosely)?;
        Ok((!same).then_some("other checkpoints or reports"))
    }

    /// Whether closing each open window would delete what the model says: tried on a copy of the
    /// store, as nobody can look into a window.
    pub fn windows_agree(&self, probe: &MemoryStorage, model: &Model) -> Result<bool> {
        for (feed, expected) in &model.feeds {
            let windows = self.try_feed(*feed)?.stats()?.windows;
            if windows != expected.windows.len() as u64 {
                return Ok(false);
            }
            for sync in expected.windows.keys() {
                if self.swept_of(probe, *feed, *sync)? != expected.unseen(*sync, false) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// What a sweep deletes in a copy of the store.
    fn swept_of(
        &self,
        probe: &MemoryStorage,
        feed: FeedNo,
        sync: Option<SyncNo>,
    ) -> Result<Option<Vec<String>>> {
        let swept = self.on_copy(probe, |store| {
            let begin = |sync| store.begin_run(&sync_key(sync), RunOptions::new());
            let run = sync.map(begin).transpose()?;
            let feed = match &run {
                Some(run) => run.feed(NAMES[feed].1)?,
                None => feed_of(store, feed)?,
            };
            // A refusal says that there is no such window.
            Ok(feed.track_deletes_end(&Sweep::new().return_ids(true)))
        })?;
        match swept {
            Ok(swept) => Ok(Some(swept.ids)),
            Err(Error::NoWindow { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
