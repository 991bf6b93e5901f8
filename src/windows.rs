//! Deletion detection: a window is opened, everything a full fetch brings is marked as seen, and
//! what was not seen when the window is closed is deleted, in one commit.

use crate::cursor::Cursor;
use crate::defects::Defect;
use crate::error::{Error, Result};
use crate::feed::Feed;
use crate::feed::directory::FrameRef;
use crate::feed::marks::{Mark, Window};
use crate::feed::read::{Bodies, Span};
use crate::log::format::Author;
use crate::record::{Outcome, Totals};
use crate::runs::{RunScope, SyncRow};
use crate::write::classify::Prepared;
use crate::write::inputs::Input;
use crate::write::transaction::{Stop, Transaction, transact};
use crate::write::turn::FeedTurn;
use crate::write::{Verb, Write};

/// How a deletion window is closed; see [`Feed::track_deletes_end`].
#[derive(Clone, PartialEq, Debug, Default)]
#[must_use = "a sweep does nothing until a window is closed with it"]
pub struct Sweep {
    max_deleted: Option<u64>,
    max_fraction: Option<f64>,
    force: bool,
    pub(crate) own_records: bool,
    return_ids: bool,
}

impl Sweep {
    /// Deletes every record that was not seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Refuses to delete more records than this.
    pub fn max_deleted(mut self, records: u64) -> Self {
        self.max_deleted = Some(records);
        self
    }

    /// Refuses to delete more than this part of the feed's live records, from 0.0 to 1.0.
    pub fn max_fraction(mut self, fraction: f64) -> Self {
        self.max_fraction = Some(fraction);
        self
    }

    /// Deletes in spite of the limits.
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// Deletes only records of the sync whose run closes the window: those it wrote last, or saved
    /// last if the feed [tracks that](crate::FeedOptions::track_owner).
    pub fn own_records(mut self, own_records: bool) -> Self {
        self.own_records = own_records;
        self
    }

    /// Whether the ids of the deleted records are returned, and not only their number.
    pub fn return_ids(mut self, return_ids: bool) -> Self {
        self.return_ids = return_ids;
        self
    }

    fn check(&self, would_delete: u64, live: u64) -> Result<()> {
        let too_many = self.max_deleted.is_some_and(|max| would_delete > max)
            || self
                .max_fraction
                .is_some_and(|max| would_delete as f64 > max * live as f64);
        if too_many && !self.force {
            return Err(Error::SweepRefused { would_delete, live });
        }
        Ok(())
    }
}

/// What a closed deletion window has deleted.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Swept {
    /// How many records.
    pub deleted: u64,
    /// Their ids in the order of their deletion; empty unless [asked for](Sweep::return_ids).
    pub ids: Vec<String>,
    /// The cursor of the last deletion; `None` when there was none.
    pub last_cursor: Option<Cursor>,
}

fn author(feed: &Feed) -> Author {
    feed.run
        .as_deref()
        .map_or_else(Author::default, RunScope::author)
}

/// Opens a window; false when there was an open one.
pub(crate) fn open(feed: &Feed) -> Result<bool> {
    let author = author(feed);
    if let Some(dry) = feed.run.as_deref().and_then(RunScope::dry) {
        return dry.open_window(feed, author);
    }
    let mut tally = feed.run.as_deref().map(RunScope::tally);
    transact(&feed.engine, &[&feed.slot], author, |transaction| {
        let turn = transaction.turn(&feed.slot)?;
        let opened = !turn.writer.windows.contains_key(&author.sync);
        if opened {
            turn.marks.push(Mark::WindowOpened {
                sync: author.sync,
                start: turn.writer.next - 1,
                time: turn.engine.options.clock.now_micros(),
            });
        } else {
            turn.rest_on_newest();
        }
        if let Some(tally) = &mut tally {
            tally.check(transaction)?;
        }
        if opened {
            note_window(transaction, feed, true);
        }
        Ok(opened)
    })
}

/// Closes a window, and deletes what was not seen in it.
pub(crate) fn close(feed: &Feed, sweep: &Sweep) -> Result<Swept> {
    let author = author(feed);
    if let Some(run) = feed.run.as_deref()
        && let Some(dry) = run.dry()
    {
        let swept = dry.close_window(feed, author, sweep)?;
        run.note(&feed.key().model, deletions(swept.deleted));
        return Ok(swept);
    }
    let mut tally = feed.run.as_deref().map(RunScope::tally);
    let swept = transact(&feed.engine, &[&feed.slot], author, |transaction| {
        if let Some(run) = &feed.run {
            run.check_now(&feed.engine)?;
        }
        let swept = sweep_in(transaction.turn(&feed.slot)?, feed, sweep)?;
        if let Some(tally) = &mut tally {
            // For good, and after the sweep: it lines up with everything that changes state.
            tally.check(transaction)?;
        }
        note_window(transaction, feed, false);
        if let Some(tally) = &mut tally {
            let totals = deletions(swept.deleted);
            tally.add(transaction, std::iter::once((&feed.slot.key, totals)));
        }
        Ok(swept)
    })?;
    if let Some(tally) = tally {
        tally.done();
    }
    Ok(swept)
}

fn deletions(deleted: u64) -> Totals {
    Totals {
        deleted,
        ..Totals::default()
    }
}

fn sweep_in(turn: &mut FeedTurn<'_>, feed: &Feed, bounds: &Sweep) -> Result<Swept, Stop> {
    let sync = turn.author.sync;
    turn.settle()?;
    let window = turn.feed.published.read().marks.windows.get(&sync).cloned();
    let window = window.ok_or_else(|| Error::NoWindow {
        feed: feed.key().clone(),
    })?;
    let live = turn.live;
    let ids = unseen(turn, &window, bounds.own_records)?;
    let swept = sweep(turn, feed, ids, live, bounds)?;
    turn.marks.push(Mark::WindowClosed { sync });
    Ok(swept)
}

/// Deletes what was not seen in a window, if that is not too much of the `live` records.
pub(crate) fn sweep(
    turn: &mut FeedTurn<'_>,
    feed: &Feed,
    ids: Vec<String>,
    live: u64,
    sweep: &Sweep,
) -> Result<Swept> {
    if !turn.engine.options.defects.has(Defect::SweepWithoutLimit) {
        sweep.check(ids.len() as u64, live)?;
    }
    let inputs: Vec<Input<'_>> = ids.iter().map(|id| Input { id, body: &[] }).collect();
    let write = Write {
        feed: feed.slot.clone(),
        verb: Verb::Delete,
        inputs: &inputs,
        merging: None,
    };
    let outcomes = turn.classify(&Prepared::new(turn.engine, &write))?;
    debug_assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Deleted));
    Ok(Swept {
        deleted: ids.len() as u64,
        last_cursor: (!ids.is_empty()).then(|| turn.last_cursor()),
        ids: if sweep.return_ids { ids } else { Vec::new() },
    })
}

/// The ids of live records that were neither seen in the window nor changed since it was opened.
pub(crate) fn unseen(
    turn: &FeedTurn<'_>,
    window: &Window,
    own_records: bool,
) -> Result<Vec<String>> {
    let sweeps_seen = turn.engine.options.defects.has(Defect::SweepSeen);
    let spans: Vec<Span> = {
        let published = turn.feed.published.read();
        let marks = &published.marks;
        let sync = turn.author.sync;
        let owned = |frame: &FrameRef, position| {
            let author = || frame.origin(position).author.sync;
            !own_records || marks.claimed_by(position).unwrap_or_else(author) == sync
        };
        let frames = published.directory.iter();
        let frames = frames.take_while(|frame| frame.first <= window.start);
        let mut spans = Vec::new();
        for frame in frames.filter(|frame| frame.live_count > 0) {
            let unseen = |index: &u32| {
                let position = frame.first + u64::from(*index);
                position <= window.start
                    && (sweeps_seen || !window.seen.contains(position))
                    && owned(frame, position)
            };
            let wanted: Vec<u32> = frame.live_from(0).filter(unseen).collect();
            if !wanted.is_empty() {
                spans.push(Span::new(&turn.engine.log, frame, wanted)?);
            }
        }
        spans
    };
    let mut ids = Vec::new();
    let (mut table, mut buffer) = (Vec::new(), Vec::new());
    let (mut located, mut rows) = (Vec::new(), Vec::new());
    for span in spans {
        located.clear();
        rows.clear();
        buffer.clear();
        span.locate(&mut table, &mut located)?;
        located.retain(|record| !record.is_deleted());
        span.load(&located, Bodies::Skipped, &mut buffer, &mut rows)?;
        for row in &rows {
            // Verified to be UTF-8 when it was read.
            let id = std::str::from_utf8(&buffer[row.id.clone()]).unwrap_or_default();
            ids.push(id.to_owned());
        }
    }
    Ok(ids)
}

/// Keeps the list of a sync's windows, which a reset has to find.
fn note_window(transaction: &mut Transaction<'_>, feed: &Feed, open: bool) {
    let Some(run) = &feed.run else { return };
    // A window of a staged epoch goes with it.
    if run.replaces() {
        return;
    }
    let key = run.key.state_key();
    let mut row = SyncRow::read(transaction.state(&key).as_deref());
    let names = (feed.key().model.clone(), feed.key().variant.clone());
    row.windows.retain(|window| *window != names);
    if open {
        row.windows.push(names);
    }
    transaction.put(key, row.encode());
}
