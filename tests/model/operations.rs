//! What the driver can do besides writing and reading: runs, deletion windows, letting go of data,
//! replacing feeds, named consumers. Each does the same to the engine and to the model.

use std::sync::Arc;

use highwater::storage::Clock;
use highwater::{Error, Feed, List, Oldest, Outcome, Removed, RunOptions, Sweep};

use crate::checker::{check_outcomes, status_of};
use crate::driver::{Driver, Filler, Filling, Next, Trust, sync_key};
use crate::reference::{
    Author, Bounds, By, FeedNo, Model, ModelFeed, ModelRecord, Status, SyncNo, Write,
};
use crate::writing::write_to;

/// How a run ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Succeed,
    Fail,
    Interrupt,
    Drop,
}

/// How a run is begun: going on, fencing the one before, or filling its feeds anew.
#[derive(Clone, Copy, Debug, Default)]
pub struct Begin {
    pub reset: bool,
    pub replace: bool,
}

/// An operation on the oldest records of a feed.
#[derive(Clone, Copy, Debug)]
pub enum LetGo {
    Prune,
    HardDelete,
    Purge,
}

impl Driver {
    fn model_feed(&self, feed: FeedNo) -> ModelFeed {
        self.model.feeds.get(&feed).cloned().unwrap_or_default()
    }

    /// What an author finds where it writes.
    fn feed_of(&self, filler: Option<Filler>, feed: FeedNo) -> ModelFeed {
        let model = match filler {
            Some(filler) => &self.fillings[&filler].model,
            None => &self.model,
        };
        model.feeds.get(&feed).cloned().unwrap_or_default()
    }

    /// Begins a run of a sync. The one before is dropped first, or fenced by a reset.
    pub fn begin_run(&mut self, sync: SyncNo, begin: Begin) {
        if !begin.reset {
            self.end_run(sync, End::Drop);
        }
        let options = RunOptions::new().reset(begin.reset).replace(begin.replace);
        let answer = self.store.begin_run(&sync_key(sync), options);
        let (next, id) = self.next(None, |model| model.begin(sync, begin.reset));
        let Some(run) = self.conclude(answer, next, true) else {
            return;
        };
        assert_eq!(run.id(), id);
        let filled = self.fillings.remove(&Some(sync));
        if let Some(fenced) = self.runs.insert(sync, run) {
            assert!(fenced.is_fenced());
            let writes = filled.as_ref();
            let writes = writes.is_none_or(|filling| filling.feeds.contains(&0));
            let lost = filled.map(|filling| filling.lost).unwrap_or_default();
            // What it has filled may be gone besides.
            let is_refusal = |lost: bool, error: &Error| match error {
                Error::RunFenced { .. } => true,
                Error::ReplaceLost { .. } => lost,
                _ => false,
            };
            if writes {
                let feed = fenced.feed("contact");
                let refused = feed.and_then(|feed| feed.batch_save_raw(&[("fenced", "1")]));
                self.refuses(refused, |error| is_refusal(lost.contains(&0), error));
            }
            let refused = fenced.succeed();
            self.refuses(refused, |error| is_refusal(!lost.is_empty(), error));
        }
        if begin.replace {
            self.fillings.insert(Some(sync), Filling::default());
        }
    }

    /// The answer must be a refusal, or a failure that has a reason.
    fn refuses<T: std::fmt::Debug>(
        &mut self,
        answer: highwater::Result<T>,
        expected: impl Fn(&Error) -> bool,
    ) {
        match answer {
            Err(error) if expected(&error) => {}
            Err(error) => self.excuse(&error, None),
            Ok(done) => panic!("what should be refused is done: {done:?}"),
        }
    }

    /// The same for writes to what was lost.
    pub fn refuses_lost<T: std::fmt::Debug>(&mut self, answer: highwater::Result<T>) {
        self.refuses(answer, |error| matches!(error, Error::ReplaceLost { .. }));
    }

    pub fn end_run(&mut self, sync: SyncNo, end: End) {
        let Some(run) = self.runs.remove(&sync) else {
            return;
        };
        let author = Some((sync, run.id()));
        let filling = self.fillings.remove(&Some(sync));
        let lost = filling
            .as_ref()
            .is_some_and(|filling| !filling.lost.is_empty());
        let answer = match end {
            End::Succeed => run.succeed().map(|_| Status::Succeeded),
            End::Fail => run.fail("no").map(|_| Status::Failed),
            End::Interrupt => run.interrupt("stop").map(|_| Status::Interrupted),
            End::Drop => {
                drop(run);
                Ok(Status::Interrupted)
            }
        };
        let answer = match answer {
            // What is left of the run ends as if it had been dropped.
            Err(Error::ReplaceLost { .. }) => {
                assert!(lost, "a replacement is lost that was not");
                Ok(Status::Interrupted)
            }
            answer => {
                let succeeded = matches!(answer, Ok(Status::Succeeded));
                assert!(!(lost && succeeded), "a replacement was lost");
                answer
            }
        };
        let status = match &answer {
            Ok(status) => *status,
            Err(_) if matches!(end, End::Succeed) && !lost => Status::Succeeded,
            Err(_) if matches!(end, End::Fail) => Status::Failed,
            Err(_) => Status::Interrupted,
        };
        let swaps = filling.filter(|_| status == Status::Succeeded);
        let (next, ()) = self.next(None, |model| {
            if let Some(filling) = &swaps {
                filling
                    .feeds
                    .iter()
                    .for_each(|feed| swap(model, filling, *feed));
            }
            model.end(author, status);
        });
        let died = answer.is_err() || matches!(end, End::Drop);
        if died && (self.poisoned || self.trust != Trust::Sound) {
            // Dropping it has tried to end it, too, and says nothing about that.
            self.find_end(sync, author, next);
        } else {
            self.conclude(answer, next, true);
        }
    }

    /// A run was left while the disk was failing: its report says whether that ended it.
    fn find_end(&mut self, sync: SyncNo, author: Author, next: Next) {
        let reports = self.store.runs(&sync_key(sync));
        let Some(reports) = self.look(reports) else {
            return;
        };
        let number = author.map_or(0, |(_, run)| run);
        let report = reports.iter().find(|report| report.run == number);
        let status = report.map(|report| status_of(report.status));
        let (interrupted, ()) = self.next(None, |model| model.end(author, Status::Interrupted));
        match status {
            // In relaxed durability not even its beginning may have been seen.
            Some(Status::Running) | None => {
                // Its end may be on its way, in one of two forms.
                let cause = Arc::new(Error::Closed);
                let ends = [next.model, interrupted.model];
                self.excuse(&Error::Poisoned { cause }, ends);
            }
            Some(Status::Interrupted) => drop(self.conclude(Ok(()), interrupted, true)),
            status => panic!("a run that was dropped is {status:?}"),
        }
    }

    pub fn open_window(&mut self, sync: Option<SyncNo>, feed: FeedNo) {
        let author = self.author(sync, feed);
        let filler = self.filler(author);
        if let Some(handle) = self.writer(feed, author) {
            self.open_window_of(&handle, author, filler, feed);
        }
    }

    fn open_window_of(
        &mut self,
        handle: &Feed,
        author: Author,
        filler: Option<Filler>,
        feed: FeedNo,
    ) {
        let answer = handle.track_deletes_start();
        if self.is_lost(filler, feed) {
            return self.refuses_lost(answer);
        }
        let sync = author.map(|(sync, _)| sync);
        let known = self.feed_of(filler, feed).windows.contains_key(&sync);
        let (next, ()) = self.next(filler, |model| {
            let sequence = model.sequence;
            let windows = &mut model.feeds.entry(feed).or_default().windows;
            if !known {
                windows.entry(sync).or_default().start = sequence;
            }
        });
        if let Some(opened) = self.conclude(answer, next, !known) {
            assert_eq!(opened, !known);
        }
    }

    /// Closes a window, if it would delete no more than `max` records.
    pub fn sweep(&mut self, sync: Option<SyncNo>, feed: FeedNo, own: bool, max: u64) {
        let author = self.author(sync, feed);
        let filler = self.filler(author);
        if let Some(handle) = self.writer(feed, author) {
            self.sweep_of(&handle, author, filler, feed, (own, max));
        }
    }

    fn sweep_of(
        &mut self,
        handle: &Feed,
        author: Author,
        filler: Option<Filler>,
        feed: FeedNo,
        (own, max): (bool, u64),
    ) {
        let sync = author.map(|(sync, _)| sync);
        let sweep = Sweep::new().own_records(own).max_deleted(max);
        let answer = handle.track_deletes_end(&sweep.return_ids(true));
        if self.is_lost(filler, feed) {
            return self.refuses_lost(answer);
        }
        let expected = self.feed_of(filler, feed);
        let Some(unseen) = expected.unseen(sync, own) else {
            self.refuses(answer, |error| matches!(error, Error::NoWindow { .. }));
            return;
        };
        if unseen.len() as u64 > max {
            let expected = (unseen.len() as u64, expected.live() as u64);
            let as_expected = |error: &Error| match error {
                Error::SweepRefused { would_delete, live } => (*would_delete, *live) == expected,
                _ => false,
            };
            self.refuses(answer, as_expected);
            return;
        }
        let by = By {
            author,
            after: None,
        };
        let now = self.clock.now_micros();
        let deletes = [(feed, Write::Delete(unseen.clone()))];
        let (mut next, done) = self.next(filler, |model| {
            let closed = &mut model.feeds.entry(feed).or_default().windows;
            closed.remove(&sync);
            model.commit(now, by, &deletes)
        });
        let done = done.unwrap().remove(0);
        assert!(done.iter().all(|outcome| *outcome == Outcome::Deleted));
        next.model.tally(author, &[(feed, done)], true);
        if let Some(swept) = self.conclude(answer, next, true) {
            assert_eq!(swept.ids, unseen);
        }
    }

    /// Lets go of the oldest records of a feed, up to its bookmark or without bound, and says
    /// first what it would do.
    pub fn let_go(&mut self, what: LetGo, feed: FeedNo, bookmarked: bool, limit: u64) {
        let bookmark = self.bookmark(feed).filter(|_| bookmarked);
        let mut bounds = Bounds {
            until: bookmark.map(|bookmark| bookmark.sequence),
            limit,
        };
        let model = self.model_feed(feed);
        let mut held_back = false;
        if let (LetGo::Purge, Some((epoch, at))) = (what, model.consumer) {
            held_back = epoch != model.epoch || at == 0;
            bounds.until = Some(bounds.until.map_or(at, |until| until.min(at)));
        }
        let (ids, has_more) = match what {
            LetGo::Prune => model.oldest(bounds, |record| record.pruned.is_none()),
            LetGo::HardDelete => model.oldest(bounds, |_| true),
            LetGo::Purge if held_back => (Vec::new(), false),
            LetGo::Purge => model.oldest(bounds, |record| !record.is_live()),
        };
        let oldest = bookmark.map_or(Oldest::all(), |bookmark| Oldest::until(bookmark.cursor));
        let operation = match what {
            LetGo::Prune => Feed::prune,
            LetGo::HardDelete => Feed::hard_delete,
            LetGo::Purge => Feed::purge,
        };
        let handle = self.try_feed(feed);
        let Some(handle) = self.look(handle) else {
            return;
        };
        let oldest = oldest.limit(limit);
        let dry = operation(&handle, &oldest.dry_run(true));
        let Some(dry) = self.look(dry) else {
            return;
        };
        self.notice_poison();
        if self.poisoned {
            // It says what it would do to what is published, which may be older.
            return;
        }
        let live = |id: &&String| model.records[*id].is_live();
        check_removed(dry, &ids, ids.iter().filter(live).count(), has_more);
        if let LetGo::HardDelete = what {
            // Readers may go on having them, also if it only may have been done.
            self.forgotten.entry(feed).or_default().extend(ids.clone());
        }
        let answer = operation(&handle, &oldest);
        let now = self.clock.now_micros();
        let (next, ()) = self.next(None, |model| {
            let model = model.feeds.entry(feed).or_default();
            if let (LetGo::Purge, Some(last)) = (what, ids.last()) {
                model.purges += 1;
                model.purged_through = model.purged_through.max(model.records[last].sequence);
            }
            for id in &ids {
                match what {
                    LetGo::Prune => model.records.get_mut(id).unwrap().pruned = Some(now),
                    LetGo::HardDelete | LetGo::Purge => drop(model.records.remove(id)),
                }
            }
        });
        // With nothing to let go of, nothing is written that vouches for what came before.
        if let Some(removed) = self.conclude(answer, next, !ids.is_empty()) {
            assert_eq!(removed, dry);
        }
    }

    /// Hard-deletes a whole feed.
    pub fn hard_delete_all(&mut self, feed: FeedNo) {
        let handle = self.try_feed(feed);
        let Some(handle) = self.look(handle) else {
            return;
        };
        let answer = handle.hard_delete(&Oldest::all());
        let model = self.model_feed(feed);
        let (next, ()) = self.next(None, |all| {
            all.feeds.insert(feed, model.start_over());
        });
        if let Some(removed) = self.conclude(answer, next, true) {
            let ids: Vec<String> = model.records.keys().cloned().collect();
            check_removed(removed, &ids, model.live(), false);
            let fillings = self.fillings.values_mut();
            for hit in fillings.filter(|filling| filling.feeds.contains(&feed)) {
                hit.lost.insert(feed);
            }
        }
    }

    /// Has the feed's named consumer acknowledge the feed's bookmark, or start over.
    pub fn acknowledge(&mut self, feed: FeedNo) {
        let Some(consumer) = self.consumer(feed) else {
            return;
        };
        let Some(bookmark) = self.bookmark(feed) else {
            let answer = consumer.restart();
            let (next, ()) = self.next(None, |model| {
                let model = model.feeds.entry(feed).or_default();
                model.consumer = Some((model.epoch, 0));
            });
            self.conclude(answer, next, true);
            return;
        };
        let model = self.model_feed(feed);
        let missed = bookmark.purges < model.purges && bookmark.sequence < model.purged_through;
        let answer = consumer.acknowledge(bookmark.cursor);
        if missed {
            self.refuses(answer, |error| matches!(error, Error::CursorExpired));
            return;
        }
        let (next, ()) = self.next(None, |model| {
            let model = model.feeds.entry(feed).or_default();
            let known = model.consumer.unwrap_or_default();
            model.consumer = Some(known.max((bookmark.epoch, bookmark.sequence)));
        });
        self.conclude(answer, next, true);
    }

    /// The feed's named consumer, made if there is none.
    fn consumer(&mut self, feed: FeedNo) -> Option<highwater::Consumer> {
        let answer = self.try_feed(feed).and_then(|feed| feed.consumer("app"));
        let (next, ()) = self.next(None, |model| {
            let model = model.feeds.entry(feed).or_default();
            model.consumer.get_or_insert((model.epoch, 0));
        });
        self.conclude(answer, next, true)
    }

    /// Has the feed's named consumer read a page, and acknowledge it.
    pub fn consume(&mut self, feed: FeedNo, limit: usize) {
        let Some(consumer) = self.consumer(feed) else {
            return;
        };
        let page = match consumer.list(List::new().limit(limit)) {
            Err(Error::StaleCursor { .. }) => {
                let model = self.model_feed(feed);
                let epoch = model.consumer.map(|(epoch, _)| epoch);
                assert_ne!(epoch, Some(model.epoch), "the consumer's cursor is good");
                let answer = consumer.restart();
                let (next, ()) = self.next(None, |model| {
                    let model = model.feeds.entry(feed).or_default();
                    model.consumer = Some((model.epoch, 0));
                });
                self.conclude(answer, next, true);
                return;
            }
            page => page,
        };
        let Some(page) = self.look(page) else { return };
        if self.poisoned {
            return;
        }
        self.mark_durable();
        let cursor = page.resume_cursor();
        self.show(feed, cursor, false);
        // Which changes that is past, told by the whole feed.
        let all = self
            .try_feed(feed)
            .and_then(|feed| feed.list(&List::new().limit(10_000)));
        let Some(all) = self.look(all) else { return };
        let model = self.model_feed(feed);
        let passed = all.iter().filter(|record| record.cursor <= cursor);
        let passed = passed.map(|record| model.records[record.id].sequence).max();
        let answer = consumer.acknowledge(cursor);
        let (next, ()) = self.next(None, |model| {
            let model = model.feeds.entry(feed).or_default();
            let known = model.consumer.unwrap_or_default();
            // Past nothing, but begun: that holds nothing back either.
            model.consumer = Some(known.max((model.epoch, passed.unwrap_or(0))));
        });
        self.conclude(answer, next, true);
    }

    /// Begins to fill a feed anew, unless one is being filled outside of runs.
    pub fn stage(&mut self, feed: FeedNo) {
        if self.replacement.is_some() {
            return;
        }
        let answer = self.try_feed(feed).and_then(|feed| feed.replace());
        if self.is_being_filled(feed) {
            self.refuses(answer, |error| {
                matches!(error, Error::ReplaceInProgress { .. })
            });
            return;
        }
        if let Some(replacement) = self.look(answer) {
            self.replacement = Some((feed, replacement));
            let feeds = [feed].into();
            let filling = Filling {
                feeds,
                ..Filling::default()
            };
            self.fillings.insert(None, filling);
            self.committed(true);
        }
    }

    /// Writes to what is staged, if something is.
    pub fn write_staged(&mut self, write: Write) {
        let Some((feed, replacement)) = &self.replacement else {
            return;
        };
        let write = write.fit_for(*feed);
        let now = self.clock.now_micros();
        let writes = [(*feed, write.clone())];
        let answer = write_to(replacement.feed(), &write);
        if self.is_lost(Some(None), *feed) {
            return match answer {
                // Nobody looks where there is nothing to write.
                Ok(applied) => assert!(applied.outcomes.is_empty()),
                refused => self.refuses_lost(refused),
            };
        }
        let commit = |model: &mut Model| model.commit(now, By::default(), &writes);
        let (next, expected) = self.next(Some(None), commit);
        match expected {
            Some(expected) => {
                if let Some(applied) = self.conclude(answer, next, true) {
                    check_outcomes(&write, &applied.outcomes, &expected[0]);
                }
            }
            None => self.refuses(answer, |error| matches!(error, Error::InvalidRecord { .. })),
        }
    }

    /// Opens a deletion window in what is staged, or closes it.
    pub fn window_staged(&mut self, open: bool) {
        let Some((feed, replacement)) = &self.replacement else {
            return;
        };
        let (feed, handle) = (*feed, replacement.feed().clone());
        match open {
            true => self.open_window_of(&handle, None, Some(None), feed),
            false => self.sweep_of(&handle, None, Some(None), feed, (false, u64::MAX)),
        }
    }

    /// Puts what is staged in the place of the feed, or throws it away.
    pub fn end_staged(&mut self, commit: bool) {
        let Some((feed, replacement)) = self.replacement.take() else {
            return;
        };
        let filling = self.fillings.remove(&None).unwrap_or_default();
        if !commit {
            replacement.abort();
            return;
        }
        let answer = replacement.commit();
        if !filling.lost.is_empty() {
            return self.refuses_lost(answer);
        }
        let (next, ()) = self.next(None, |model| swap(model, &filling, feed));
        self.conclude(answer, next, true);
    }
}

/// Puts what a feed was filled with in its place.
fn swap(model: &mut Model, filling: &Filling, feed: FeedNo) {
    let new = filling.model.feeds.get(&feed).cloned().unwrap_or_default();
    let old = model.feeds.get(&feed).cloned().unwrap_or_default();
    let mut next = old.start_over();
    let records = new.records.into_iter();
    let live = records.filter(|(_, record)| record.is_live());
    let added = |(id, record)| {
        let action = highwater::Action::Added;
        (id, ModelRecord { action, ..record })
    };
    (next.records, next.time) = (live.map(added).collect(), new.time);
    model.feeds.insert(feed, next);
}

fn check_removed(removed: Removed, ids: &[String], live: usize, has_more: bool) {
    let found = (removed.records, removed.live, removed.has_more);
    assert_eq!(found, (ids.len() as u64, live as u64, has_more));
    assert_eq!(removed.last_cursor.is_some(), !ids.is_empty());
}
