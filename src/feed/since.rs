//! What a reader knows of a record at its cursor.
//!
//! A reader had seen everything at its cursor's base, and has since come by everything up to its
//! position. Had a record been there at any moment in between, the reader may have seen it; if not,
//! it cannot. Commit times rise strictly, so "in between" is a span of time, and a record was there
//! if one of its [lives](crate::feed::lives) overlaps it. Only a cursor in the middle of a commit
//! needs more: for records that the same commit changed further on, the reader is still before it.

use std::cell::OnceCell;
use std::collections::HashSet;

use crate::cursor::Cursor;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::feed::frame_ref::Origin;
use crate::feed::lives::Lives;
use crate::feed::published::Published;
use crate::feed::read::{Bodies, Located, Span};
use crate::feed::state::FeedState;
use crate::hash::Fingerprint;
use crate::record::Action;

/// A reader's place.
pub(crate) struct Since {
    position: u64,
    /// Commit time of the change at the base, and of that at the position.
    base_time: u64,
    time: u64,
    /// The records that the same commit changed after the position; read when they matter. `None`
    /// when compaction may have dropped some of them.
    rest: OnceCell<Option<HashSet<Fingerprint>>>,
}

impl Since {
    pub(crate) fn new(published: &Published, cursor: Cursor) -> Self {
        Self {
            position: cursor.position,
            // Where times are not known exactly, the reader is taken to have seen more.
            base_time: published.moment(cursor.base.min(cursor.position)).least,
            time: published.moment(cursor.position).most,
            rest: OnceCell::new(),
        }
    }

    /// What a change means to the reader; `None` when it is not worth mentioning.
    pub(crate) fn action(
        &self,
        engine: &Engine,
        feed: &FeedState,
        span: &Span,
        record: &Located,
    ) -> Result<Option<Action>> {
        let known = self.knows(engine, feed, span, record)?;
        Ok(match (known, record.is_deleted()) {
            (true, true) => Some(Action::Deleted),
            (true, false) => Some(Action::Updated),
            (false, true) => None,
            (false, false) => Some(Action::Added),
        })
    }

    fn knows(
        &self,
        engine: &Engine,
        feed: &FeedState,
        span: &Span,
        record: &Located,
    ) -> Result<bool> {
        let first_seen = record.entry.first_seen;
        if !record.entry.reborn && first_seen != self.time {
            return Ok(first_seen < self.time);
        }
        let lives = if record.entry.reborn && first_seen >= self.time {
            earlier_lives(span, record)?
        } else {
            Lives::default()
        };
        // The change itself comes after the reader's place, so the newest life had not ended there.
        let lived_until =
            |time: u64| first_seen <= time || lives.overlap(self.base_time.min(time), time);
        let before = lived_until(self.time.saturating_sub(1));
        let after = lived_until(self.time);
        if before == after {
            return Ok(after);
        }
        if record.time == self.time {
            return Ok(before);
        }
        Ok(match self.rest(engine, feed)? {
            Some(rest) if rest.contains(&record.entry.key) => before,
            Some(_) => after,
            None => true,
        })
    }

    fn rest(&self, engine: &Engine, feed: &FeedState) -> Result<Option<&HashSet<Fingerprint>>> {
        if let Some(rest) = self.rest.get() {
            return Ok(rest.as_ref());
        }
        let mut keys = None;
        if let Some(spans) = self.rest_of_commit(engine, feed)? {
            let (mut table, mut located) = (Vec::new(), Vec::new());
            for span in spans {
                span.locate(&mut table, &mut located)?;
            }
            keys = Some(located.iter().map(|record| record.entry.key).collect());
        }
        Ok(self.rest.get_or_init(|| keys).as_ref())
    }

    /// Where the records are that the commit at the position changed after it; `None` when not all
    /// of them are there any more.
    fn rest_of_commit(&self, engine: &Engine, feed: &FeedState) -> Result<Option<Vec<Span>>> {
        let published = feed.published.read();
        if published.marks.gone.has_after(self.time, self.position) {
            return Ok(None);
        }
        let first = published.directory.frame_after(self.position);
        let mut spans = Vec::new();
        for frame in &published.directory.frames()[first..] {
            let of_commit = |origin: &Origin| origin.time == self.time;
            let origins = frame.origins();
            let Some(origin) = origins.iter().find(|origin| of_commit(origin)) else {
                break;
            };
            if frame.packing.is_some() {
                if origin.end > self.position + 1 {
                    return Ok(None);
                }
                continue;
            }
            let from = (self.position + 1).saturating_sub(frame.first) as u32;
            spans.push(Span::new(
                &engine.log,
                frame,
                (from..frame.count).collect(),
            )?);
        }
        Ok(Some(spans))
    }
}

fn earlier_lives(span: &Span, record: &Located) -> Result<Lives> {
    let (mut buffer, mut rows) = (Vec::new(), Vec::new());
    span.load(&[*record], Bodies::Skipped, &mut buffer, &mut rows)?;
    let row = rows.first();
    let bytes = row.and_then(|row| buffer.get(row.lives.clone()));
    let lives = bytes.and_then(|bytes| Lives::decode(record.entry.first_seen, bytes));
    lives.ok_or_else(|| Error::corrupt(span.path(), 0, "a record's earlier lives"))
}
