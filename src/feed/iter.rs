//! Iterating over a feed, a page at a time.

use crate::cursor::Cursor;
use crate::error::Result;
use crate::feed::Feed;
use crate::feed::page::{List, Page};
use crate::record::OwnedRecord;

const PAGE_RECORDS: usize = 1000;

/// An iterator over the changes of a feed; see [`Feed::records`](crate::Feed::records).
#[derive(Debug)]
pub struct Records {
    feed: Feed,
    after: Option<Cursor>,
    page: Option<Page>,
    /// How many records of the page were given out.
    given: usize,
    finished: bool,
    /// Whether actions are told relative to a cursor: not when the reader began without one.
    relative: bool,
}

impl Records {
    pub(crate) fn new(feed: Feed, after: Option<Cursor>) -> Self {
        Self {
            feed,
            after,
            page: None,
            given: 0,
            finished: false,
            relative: after.is_some(),
        }
    }

    fn fill(&mut self) -> Result<()> {
        // Given up first, so that the next page has its memory.
        self.page = None;
        let list = List::new().after(self.after).limit(PAGE_RECORDS);
        let page = self.feed.list(&list.relative(self.relative))?;
        self.after = Some(page.resume_cursor());
        self.finished = !page.has_more();
        (self.page, self.given) = (Some(page), 0);
        Ok(())
    }

    /// The next record of the page.
    fn take(&mut self) -> Option<OwnedRecord> {
        let record = self.page.as_ref()?.get(self.given)?;
        self.given += 1;
        Some(record.to_owned())
    }
}

impl Iterator for Records {
    type Item = Result<OwnedRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.take() {
                return Some(Ok(record));
            }
            if self.finished {
                return None;
            }
            if let Err(error) = self.fill() {
                self.finished = true;
                return Some(Err(error));
            }
        }
    }
}
