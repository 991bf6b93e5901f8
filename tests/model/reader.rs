//! A consumer that stands in a feed while everything happens to it.

use std::collections::{BTreeMap, BTreeSet};

use highwater::{Action, Cursor, Error, Feed, List};

use crate::checker::same_payload;
use crate::reference::{FeedNo, ModelFeed};

/// Applies pages in order to its own copy. Of a pruned record it knows no payload.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    pub feed: FeedNo,
    pub cursor: Option<Cursor>,
    pub copy: BTreeMap<String, Option<Vec<u8>>>,
    /// Whether it had seen everything when it was given its cursor.
    caught_up: bool,
}

impl Reader {
    pub fn of(feed: FeedNo) -> Self {
        Self {
            feed,
            ..Self::default()
        }
    }

    /// Reads one page and applies it; starts over when it is told to. Returns whether there is
    /// more. `forgotten` are records that were hard-deleted, of which readers are not told.
    pub fn step(
        &mut self,
        feed: &Feed,
        limit: usize,
        forgotten: &BTreeSet<String>,
    ) -> highwater::Result<bool> {
        let page = match feed.list(&List::new().after(self.cursor).limit(limit)) {
            Err(Error::StaleCursor { .. } | Error::CursorExpired) if self.cursor.is_some() => {
                *self = Self::of(self.feed);
                return Ok(true);
            }
            page => page?,
        };
        let mut last = self.cursor;
        for record in page.iter() {
            assert!(
                last < Some(record.cursor),
                "pages ascend strictly and start after the cursor"
            );
            last = Some(record.cursor);
            let known = self.copy.contains_key(record.id);
            if self.cursor.is_some() && !forgotten.contains(record.id) {
                let added = record.last_action == Action::Added;
                assert!(!(added && known), "{} is no news to the reader", record.id);
                assert!(
                    added || known || !self.caught_up,
                    "{} is news to the reader: {:?}",
                    record.id,
                    record.last_action
                );
            }
            if record.is_deleted() {
                self.copy.remove(record.id);
            } else {
                let payload = record.payload.map(<[u8]>::to_vec);
                self.copy.insert(record.id.to_owned(), payload);
            }
        }
        assert!(page.len() <= limit);
        assert!(Some(page.resume_cursor()) >= last);
        self.cursor = Some(page.resume_cursor());
        self.caught_up = !page.has_more();
        Ok(page.has_more())
    }

    /// Catches up.
    pub fn drain(
        &mut self,
        feed: &Feed,
        limit: usize,
        forgotten: &BTreeSet<String>,
    ) -> highwater::Result<()> {
        for _ in 0..10_000 {
            if !self.step(feed, limit, forgotten)? {
                return Ok(());
            }
        }
        panic!("the reader never comes to the feed's end")
    }

    /// One that has caught up must have exactly the live records.
    pub fn check(&self, expected: &ModelFeed, forgotten: &BTreeSet<String>) {
        let records = expected.records.iter();
        let live: BTreeMap<_, _> = records.filter(|(_, record)| record.is_live()).collect();
        let extra = |id: &&String| !live.contains_key(id) && !forgotten.contains(*id);
        assert_eq!(self.copy.keys().find(extra), None, "the consumer converges");
        for (id, record) in live {
            match self.copy.get(id) {
                Some(Some(found)) => assert!(
                    same_payload(found, &record.payload),
                    "the consumer has an old {id}"
                ),
                Some(None) => assert!(record.pruned.is_some(), "{id} has a payload"),
                // Hard-deleted and not there again, or never come by.
                None => panic!("the consumer lacks {id}"),
            }
        }
    }
}
