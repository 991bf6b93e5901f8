//! What the driver can do besides writing and reading: runs, deletion windows, letting go of data,
//! replacing feeds, named consumers. Each does the same to the engine and to the model.

use highwater::storage::Clock;
use highwater::{Error, Feed, Oldest, Outcome, Removed, RunOptions, Sweep};

use crate::driver::{Driver, Staged, sync_key};
use crate::reference::{Bounds, By, FeedNo, Model, ModelFeed, ModelRecord, Status, SyncNo, Write};

/// How a run ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Succeed,
    Fail,
    Interrupt,
    Drop,
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

    /// Begins a run of a sync. The one before is dropped first, or fenced by a reset.
    pub fn begin_run(&mut self, sync: SyncNo, reset: bool) {
        if !reset {
            self.end_run(sync, End::Drop);
        }
        let fenced = self.runs.remove(&sync);
        let options = RunOptions::new().reset(reset);
        let run = self.store.begin_run(&sync_key(sync), options).unwrap();
        assert_eq!(run.id(), self.model.begin(sync, reset));
        self.committed(true);
        if let Some(fenced) = fenced {
            assert!(fenced.is_fenced());
            let feed = fenced.feed("contact").unwrap();
            let refused = feed.batch_save_raw(&[("fenced", "1")]);
            assert!(matches!(refused, Err(Error::RunFenced { .. })));
            assert!(matches!(fenced.succeed(), Err(Error::RunFenced { .. })));
        }
        self.runs.insert(sync, run);
    }

    pub fn end_run(&mut self, sync: SyncNo, end: End) {
        let Some(run) = self.runs.remove(&sync) else {
            return;
        };
        let author = Some((sync, run.id()));
        let status = match end {
            End::Succeed => run.succeed().map(|_| Status::Succeeded),
            End::Fail => run.fail("no").map(|_| Status::Failed),
            End::Interrupt => run.interrupt("stop").map(|_| Status::Interrupted),
            End::Drop => {
                drop(run);
                Ok(Status::Interrupted)
            }
        };
        self.model.end(author, status.unwrap());
        self.committed(true);
    }

    pub fn open_window(&mut self, sync: Option<SyncNo>, feed: FeedNo) {
        let author = self.author(sync, feed);
        let opened = self.writer(feed, author).track_deletes_start().unwrap();
        let sequence = self.model.sequence;
        let windows = &mut self.model.feeds.entry(feed).or_default().windows;
        let sync = author.map(|(sync, _)| sync);
        assert_eq!(opened, !windows.contains_key(&sync));
        windows.entry(sync).or_default().start = match windows.get(&sync) {
            Some(window) if !opened => window.start,
            _ => sequence,
        };
        self.committed(opened);
    }

    /// Closes a window, if it would delete no more than `max` records.
    pub fn sweep(&mut self, sync: Option<SyncNo>, feed: FeedNo, own: bool, max: u64) {
        let author = self.author(sync, feed);
        let sync = author.map(|(sync, _)| sync);
        let sweep = Sweep::new().own_records(own).max_deleted(max);
        let swept = self
            .writer(feed, author)
            .track_deletes_end(&sweep.return_ids(true));
        let Some(unseen) = self.model_feed(feed).unseen(sync, own) else {
            assert!(matches!(swept, Err(Error::NoWindow { .. })), "{swept:?}");
            return;
        };
        if unseen.len() as u64 > max {
            let live = self.model_feed(feed).live() as u64;
            let expected = (unseen.len() as u64, live);
            match swept {
                Err(Error::SweepRefused { would_delete, live }) => {
                    assert_eq!((would_delete, live), expected);
                }
                other => panic!("{other:?}"),
            }
            return;
        }
        assert_eq!(swept.unwrap().ids, unseen);
        let closed = &mut self.model.feeds.entry(feed).or_default().windows;
        closed.remove(&sync);
        let by = By {
            author,
            after: None,
        };
        let deletes = [(feed, Write::Delete(unseen))];
        let done = self.model.commit(self.clock.now_micros(), by, &deletes);
        let done = done.unwrap().remove(0);
        assert!(done.iter().all(|outcome| *outcome == Outcome::Deleted));
        self.model.tally(author, &[(feed, done)], true);
        self.committed(true);
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
        let handle = self.feed(feed);
        let oldest = oldest.limit(limit);
        let dry = operation(&handle, &oldest.dry_run(true)).unwrap();
        let removed = operation(&handle, &oldest).unwrap();
        assert_eq!(removed, dry);
        let live = |id: &&String| model.records[*id].is_live();
        check_removed(removed, &ids, ids.iter().filter(live).count(), has_more);
        let now = self.clock.now_micros();
        let model = self.model.feeds.entry(feed).or_default();
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
        if let LetGo::HardDelete = what {
            self.forgotten.entry(feed).or_default().extend(ids);
        }
        self.committed(true);
    }

    /// Hard-deletes a whole feed.
    pub fn hard_delete_all(&mut self, feed: FeedNo) {
        let model = self.model_feed(feed);
        let removed = self.feed(feed).hard_delete(&Oldest::all()).unwrap();
        let ids: Vec<String> = model.records.keys().cloned().collect();
        check_removed(removed, &ids, model.live(), false);
        self.model.feeds.insert(feed, model.start_over());
        if let Some(staged) = self.staged.as_mut().filter(|staged| staged.feed == feed) {
            staged.lost = true;
        }
        self.committed(true);
    }

    /// Has the feed's named consumer acknowledge the feed's bookmark, or start over.
    pub fn acknowledge(&mut self, feed: FeedNo) {
        let consumer = self.feed(feed).consumer("app").unwrap();
        let model = self.model.feeds.entry(feed).or_default();
        let known = *model.consumer.get_or_insert((model.epoch, 0));
        self.committed(true);
        let Some(bookmark) = self.bookmark(feed) else {
            consumer.restart().unwrap();
            let model = self.model.feeds.entry(feed).or_default();
            model.consumer = Some((model.epoch, 0));
            self.committed(true);
            return;
        };
        let model = self.model.feeds.entry(feed).or_default();
        let missed = bookmark.purges < model.purges && bookmark.sequence < model.purged_through;
        match consumer.acknowledge(bookmark.cursor) {
            Err(Error::CursorExpired) => assert!(missed),
            other => {
                other.unwrap();
                assert!(!missed);
                model.consumer = Some(known.max((bookmark.epoch, bookmark.sequence)));
            }
        }
        self.committed(true);
    }

    /// Begins to fill a feed anew, unless one is being filled.
    pub fn stage(&mut self, feed: FeedNo) {
        if self.staged.is_some() {
            return;
        }
        let replacement = self.feed(feed).replace().unwrap();
        self.staged = Some(Staged {
            feed,
            replacement,
            model: Model::default(),
            lost: false,
        });
        self.committed(true);
    }

    /// Writes to what is staged, if something is.
    pub fn write_staged(&mut self, write: Write) {
        let Some(mut staged) = self.staged.take() else {
            return;
        };
        let write = write.fit_for(staged.feed);
        let now = self.clock.now_micros();
        // Times and order go on; what is in the feed now does not matter.
        staged.model.sequence = self.model.sequence;
        let writes = [(staged.feed, write.clone())];
        let expected = staged.model.commit(now, By::default(), &writes);
        let result = crate::driver::write_to(staged.replacement.feed(), &write);
        match expected {
            Some(expected) => {
                crate::driver::check_outcomes(&write, &result.unwrap().outcomes, &expected[0]);
            }
            None => assert!(matches!(result, Err(Error::InvalidRecord { .. }))),
        }
        self.model.sequence = staged.model.sequence;
        self.staged = Some(staged);
        self.committed(true);
    }

    /// Puts what is staged in the place of the feed, or throws it away.
    pub fn end_staged(&mut self, commit: bool) {
        let Some(staged) = self.staged.take() else {
            return;
        };
        if !commit {
            staged.replacement.abort();
            return;
        }
        let committed = staged.replacement.commit();
        if staged.lost {
            assert!(matches!(committed, Err(Error::ReplaceLost { .. })));
            return;
        }
        committed.unwrap();
        let new = staged
            .model
            .feeds
            .get(&staged.feed)
            .cloned()
            .unwrap_or_default();
        let mut next = self.model_feed(staged.feed).start_over();
        let live = new
            .records
            .into_iter()
            .filter(|(_, record)| record.is_live());
        let added = |(id, record)| {
            let action = highwater::Action::Added;
            (id, ModelRecord { action, ..record })
        };
        (next.records, next.time) = (live.map(added).collect(), new.time);
        self.model.feeds.insert(staged.feed, next);
        self.committed(true);
    }
}

fn check_removed(removed: Removed, ids: &[String], live: usize, has_more: bool) {
    let found = (removed.records, removed.live, removed.has_more);
    assert_eq!(found, (ids.len() as u64, live as u64, has_more));
    assert_eq!(removed.last_cursor.is_some(), !ids.is_empty());
}
