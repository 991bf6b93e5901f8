//! One operation of a history, chosen by [`histories`](crate::histories) or by a
//! [`simulation`](crate::simulation).

use highwater::storage::{Clock, Survivors};

use crate::driver::Driver;
use crate::operations::{Begin, End, LetGo};
use crate::recovering::Interruption;
use crate::reference::{FeedNo, SyncNo, Write};

/// Somebody who writes: outside of runs, or through the run of a sync, if there is one.
pub type Who = Option<SyncNo>;

#[derive(Clone, Debug)]
pub enum Step {
    Commit(Vec<(FeedNo, Write)>, Option<u64>),
    CommitBy(Who, bool, Vec<(FeedNo, Write)>, Option<u64>),
    AddToBatch(usize, Who, (FeedNo, Write)),
    CommitBatch(usize),
    BeginRun(SyncNo, Begin),
    EndRun(SyncNo, End),
    OpenWindow(Who, FeedNo),
    Sweep(Who, FeedNo, bool, u64),
    Bookmark(FeedNo),
    LetGo(LetGo, FeedNo, bool, u64),
    HardDeleteAll(FeedNo),
    Acknowledge(FeedNo),
    Consume(FeedNo, usize),
    Stage(FeedNo),
    WriteStaged(Write),
    WindowStaged(bool),
    EndStaged(bool),
    Read { reader: usize, limit: usize },
    Check,
    Flush,
    SaveCatalog,
    Compact,
    OpenTwice,
    Reopen,
    Rebuild,
    Crash(Survivors),
    CrashThrough(Survivors, Vec<Interruption>),
    Clock(i64),
}

impl Step {
    pub fn apply(&self, driver: &mut Driver) {
        match self {
            Self::Commit(writes, checkpoint) => driver.commit(writes, *checkpoint),
            Self::CommitBy(who, merging, writes, at) => {
                driver.commit_by(*who, *merging, writes, *at);
            }
            Self::AddToBatch(writer, who, write) => {
                driver.add_to_batch(*writer, *who, write.clone());
            }
            Self::CommitBatch(writer) => driver.commit_batch(*writer),
            Self::BeginRun(sync, begin) => driver.begin_run(*sync, *begin),
            Self::EndRun(sync, end) => driver.end_run(*sync, *end),
            Self::OpenWindow(who, feed) => driver.open_window(*who, *feed),
            Self::Sweep(who, feed, own, max) => driver.sweep(*who, *feed, *own, *max),
            Self::Bookmark(feed) => driver.set_bookmark(*feed),
            Self::LetGo(what, feed, marked, limit) => {
                driver.let_go(*what, *feed, *marked, *limit);
            }
            Self::HardDeleteAll(feed) => driver.hard_delete_all(*feed),
            Self::Acknowledge(feed) => driver.acknowledge(*feed),
            Self::Consume(feed, limit) => driver.consume(*feed, *limit),
            Self::Stage(feed) => driver.stage(*feed),
            Self::WriteStaged(write) => driver.write_staged(write.clone()),
            Self::WindowStaged(open) => driver.window_staged(*open),
            Self::EndStaged(commit) => driver.end_staged(*commit),
            Self::Read { reader, limit } => driver.step_reader(*reader, *limit),
            Self::Check => driver.check(),
            Self::Flush => driver.mark_durable(),
            Self::SaveCatalog => driver.save_catalog(),
            Self::Compact => driver.compact(),
            Self::OpenTwice => driver.open_twice(),
            Self::Reopen => driver.close_and_open(),
            Self::Rebuild => driver.rebuild(),
            Self::Crash(survivors) => driver.crash(*survivors),
            Self::CrashThrough(survivors, interruptions) => {
                driver.crash_through(*survivors, interruptions);
            }
            Self::Clock(jump) => {
                let now = driver.clock.now_micros();
                driver.clock.set(now.saturating_add_signed(*jump));
            }
        }
    }

    /// Its kind, for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Commit(..) => "commits",
            Self::CommitBy(..) => "commits of runs and merges",
            Self::AddToBatch(..) => "additions to open batches",
            Self::CommitBatch(..) => "commits of open batches",
            Self::BeginRun(..) => "runs begun",
            Self::EndRun(..) => "runs ended",
            Self::OpenWindow(..) => "windows opened",
            Self::Sweep(..) => "sweeps",
            Self::Bookmark(..) => "bookmarks",
            Self::LetGo(LetGo::Prune, ..) => "prunes",
            Self::LetGo(LetGo::HardDelete, ..) => "hard deletions",
            Self::LetGo(LetGo::Purge, ..) => "purges",
            Self::HardDeleteAll(..) => "feeds emptied",
            Self::Acknowledge(..) => "acknowledgements",
            Self::Consume(..) => "pages of named consumers",
            Self::Stage(..) => "replacements begun",
            Self::WriteStaged(..) => "writes to replacements",
            Self::WindowStaged(..) => "windows in replacements",
            Self::EndStaged(..) => "replacements ended",
            Self::Read { .. } => "pages of readers",
            Self::Check => "checks",
            Self::Flush => "flushes",
            Self::SaveCatalog => "catalog saves",
            Self::Compact => "compactions",
            Self::OpenTwice => "second openers",
            Self::Reopen => "reopens",
            Self::Rebuild => "rebuilds",
            Self::Crash(..) => "crashes",
            Self::CrashThrough(..) => "crashes with crashes in recovery",
            Self::Clock(..) => "clock jumps",
        }
    }
}
