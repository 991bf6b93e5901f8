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
use crate::feed::lives::Lives;
use crate::feed::read::{Located, Span};
use crate::feed::state::{FeedState, Published};
use crate::hash::Fingerprint;
use crate::record::Action;

/// A reader's place.
pub(crate) struct Since {
    position: u64,
    /// Commit time of the change at the base, and of that at the position.
    base_time: u64,
    time: u64,
    /// The records that the same commit changed after the position; read when they matter.
    rest: OnceCell<HashSet<Fingerprint>>,
}

impl Since {
    pub(crate) fn new(published: &Published, cursor: Cursor) -> Self {
        Self {
            position: cursor.position,
            base_time: published
                .directory
                .time_at(cursor.base.min(cursor.position)),
            time: published.directory.time_at(cursor.position),
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
        let later =
            record.time == self.time || self.rest(engine, feed)?.contains(&record.entry.key);
        Ok(if later { before } else { after })
    }

    fn rest(&self, engine: &Engine, feed: &FeedState) -> Result<&HashSet<Fingerprint>> {
        if let Some(rest) = self.rest.get() {
            return Ok(rest);
        }
        let spans: Vec<Span> = {
            let published = feed.published.read();
            let frames = published.directory.frames();
            let first = published.directory.frame_after(self.position);
            let same = frames[first..]
                .iter()
                .take_while(|frame| frame.time == self.time);
            let span = |frame: &crate::feed::directory::FrameRef| {
                let from = (self.position + 1).saturating_sub(frame.first) as u32;
                Span::new(&engine.log, frame, (from..frame.count).collect())
            };
            same.map(span).collect::<Result<_>>()?
        };
        let mut located = Vec::new();
        for span in spans {
            span.locate(&mut located)?;
        }
        let keys = located.iter().map(|record| record.entry.key).collect();
        Ok(self.rest.get_or_init(|| keys))
    }
}

fn earlier_lives(span: &Span, record: &Located) -> Result<Lives> {
    let (mut buffer, mut rows) = (Vec::new(), Vec::new());
    span.load(&[*record], false, &mut buffer, &mut rows)?;
    let row = rows.first();
    let bytes = row.and_then(|row| buffer.get(row.lives.clone()));
    let lives = bytes.and_then(|bytes| Lives::decode(record.entry.first_seen, bytes));
    lives.ok_or_else(|| Error::corrupt(span.path(), 0, "a record's earlier lives"))
}
