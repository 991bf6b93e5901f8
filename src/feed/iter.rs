//! Iterating over a feed, a page at a time.

use std::collections::VecDeque;

use crate::cursor::Cursor;
use crate::error::Result;
use crate::feed::Feed;
use crate::feed::page::List;
use crate::record::OwnedRecord;

const PAGE_RECORDS: usize = 1000;

/// An iterator over the changes of a feed; see [`Feed::records`](crate::Feed::records).
#[derive(Debug)]
pub struct Records {
    feed: Feed,
    after: Option<Cursor>,
    page: VecDeque<OwnedRecord>,
    finished: bool,
    /// Whether actions are told relative to a cursor: not when the reader began without one.
    relative: bool,
}

impl Records {
    pub(crate) fn new(feed: Feed, after: Option<Cursor>) -> Self {
        Self {
            feed,
            after,
            page: VecDeque::new(),
            finished: false,
            relative: after.is_some(),
        }
    }

    fn fill(&mut self) -> Result<()> {
        let list = List::new().after(self.after).limit(PAGE_RECORDS);
        let page = self.feed.list(&list.relative(self.relative))?;
        self.after = Some(page.resume_cursor());
        self.finished = !page.has_more();
        self.page
            .extend(page.iter().map(|record| record.to_owned()));
        Ok(())
    }
}

impl Iterator for Records {
    type Item = Result<OwnedRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.page.is_empty() && !self.finished {
            if let Err(error) = self.fill() {
                self.finished = true;
                return Some(Err(error));
            }
        }
        self.page.pop_front().map(Ok)
    }
}
