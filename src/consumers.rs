//! Named consumers: readers whose place in a feed the store remembers.

use crate::codec::{Decoder, Encoder};
use crate::cursor::Cursor;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::feed::page::{self, List, Page, check_cursor, check_not_expired};
use crate::feed::slot::FeedSlot;
use crate::feed::state::FeedState;
use crate::feed::{Feed, check_name};
use crate::log::format::Author;
use crate::record::Timestamp;
use crate::state::StateKey;
use crate::write::transaction::transact;

/// A reader of a feed whose place is kept in the store; made by
/// [`Feed::consumer`](crate::Feed::consumer).
///
/// What it has acknowledged it never sees again, and what it has not it does, whatever happens in
/// between. Deletions stay in the feed until every named consumer has passed them.
///
/// ```
/// use highwater::List;
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = highwater::Store::open(dir.path())?;
/// # let feed = store.feed("conn-42", "Contact")?;
/// # let _ = feed.batch_save_raw(&[("a", "1"), ("b", "2")])?;
/// let search = feed.consumer("search-index")?;
/// loop {
///     let page = search.list(List::new().limit(500))?;
///     for record in page.iter() {
///         println!("{} {}", record.last_action, record.id);
///     }
///     search.acknowledge(page.resume_cursor())?;
///     if !page.has_more() {
///         break;
///     }
/// }
/// assert_eq!(feed.consumers()?[0].lag, 0);
/// # Ok::<(), highwater::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Consumer {
    feed: Feed,
    name: String,
}

/// Where a named consumer stands.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct ConsumerInfo {
    /// Its name.
    pub name: String,
    /// Up to where it has acknowledged. A cursor from before the feed's last replacement is stale:
    /// the consumer has to start over.
    pub cursor: Cursor,
    /// When it last acknowledged something, or was made.
    pub acknowledged_at: Timestamp,
    /// How many records of the feed it has yet to see.
    pub lag: u64,
}

impl Consumer {
    pub(crate) fn open(feed: &Feed, name: &str) -> Result<Self> {
        check_name("consumer", name)?;
        let key = StateKey::consumer(feed.slot.id, name);
        if feed.engine.read_state(&key)?.is_none() {
            let beginning = Row::now(&feed.engine, feed.slot.current().cursor(0));
            transact(&feed.engine, &[], Author::default(), |transaction| {
                if transaction.state(&key).is_none() {
                    transaction.put(key.clone(), beginning.encode());
                }
                Ok(())
            })?;
        }
        Ok(Self {
            feed: feed.clone(),
            name: name.to_owned(),
        })
    }

    /// The consumer's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn key(&self) -> StateKey {
        StateKey::consumer(self.feed.slot.id, &self.name)
    }

    /// Up to where the consumer has acknowledged.
    ///
    /// # Errors
    /// [`Error::UnknownConsumer`] when it was removed; [`Error::Closed`].
    pub fn cursor(&self) -> Result<Cursor> {
        let value = self.feed.engine.read_state(&self.key())?;
        let row = value.and_then(|value| Row::decode(&self.feed.slot, &value));
        row.map(|row| row.cursor).ok_or_else(|| self.unknown())
    }

    fn unknown(&self) -> Error {
        Error::UnknownConsumer {
            name: self.name.clone(),
        }
    }

    /// Reads the next page after what was acknowledged; see [`Feed::list`](crate::Feed::list).
    ///
    /// # Errors
    /// [`Error::StaleCursor`] after the feed was replaced: [`Consumer::restart`], and read it
    /// anew. Otherwise as for [`Feed::list`](crate::Feed::list).
    pub fn list(&self, list: List) -> Result<Page> {
        self.feed.list(&list.after(self.cursor()?))
    }

    /// Notes, durably, that everything up to `cursor` was dealt with. A consumer never goes back:
    /// an older cursor than the last one changes nothing.
    ///
    /// # Errors
    /// As for [`Feed::list`](crate::Feed::list) for a cursor that is not of this feed;
    /// [`Error::UnknownConsumer`], and those of any write.
    pub fn acknowledge(&self, cursor: Cursor) -> Result<()> {
        let engine: &Engine = &self.feed.engine;
        let state = self.feed.slot.current();
        check_cursor(&state, cursor)?;
        check_not_expired(engine, &state.published.read(), cursor)?;
        let row = Row::now(engine, cursor);
        transact(engine, &[], Author::default(), |transaction| {
            let known = transaction.state(&self.key());
            let known = known.and_then(|value| Row::decode(&self.feed.slot, &value));
            let known = known.ok_or_else(|| self.unknown())?;
            if known.cursor < cursor {
                transaction.put(self.key(), row.encode());
            }
            Ok(())
        })
    }

    /// Goes back to the beginning of the feed as it is now.
    ///
    /// # Errors
    /// Those of any write.
    pub fn restart(&self) -> Result<()> {
        let beginning = self.feed.slot.current().cursor(0);
        let row = Row::now(&self.feed.engine, beginning);
        transact(&self.feed.engine, &[], Author::default(), |transaction| {
            transaction.put(self.key(), row.encode());
            Ok(())
        })
    }

    /// Forgets the consumer; it holds no deletions back any more.
    ///
    /// # Errors
    /// Those of any write.
    pub fn remove(self) -> Result<()> {
        transact(&self.feed.engine, &[], Author::default(), |transaction| {
            transaction.remove(self.key());
            Ok(())
        })
    }
}

/// What the state holds of a consumer.
struct Row {
    cursor: Cursor,
    acknowledged_at: Timestamp,
}

impl Row {
    fn now(engine: &Engine, cursor: Cursor) -> Self {
        Self {
            cursor,
            acknowledged_at: Timestamp::from_micros(engine.options.clock.now_micros()),
        }
    }

    fn encode(&self) -> Vec<u8> {
        Encoder::default()
            .u32(self.cursor.epoch)
            .u64(self.cursor.position)
            .u64(self.cursor.base)
            .u32(self.cursor.purges)
            .u64(self.acknowledged_at.as_micros())
            .finish()
    }

    fn decode(slot: &FeedSlot, bytes: &[u8]) -> Option<Self> {
        let mut fields = Decoder::new(bytes);
        let cursor = Cursor {
            feed: slot.id,
            epoch: fields.u32()?,
            position: fields.u64()?,
            base: fields.u64()?,
            purges: fields.u32()?,
        };
        let acknowledged_at = Timestamp::from_micros(fields.u64()?);
        fields.is_empty().then_some(Self {
            cursor,
            acknowledged_at,
        })
    }
}

fn rows(engine: &Engine, slot: &FeedSlot) -> Result<Vec<(String, Row)>> {
    engine.check_not_closed()?;
    engine.make_all_visible();
    let prefix = StateKey::consumers(slot.id);
    let named = |(key, value): (StateKey, Vec<u8>)| {
        let name = key.as_bytes().get(prefix.as_bytes().len()..)?;
        let name = String::from_utf8(name.to_vec()).ok()?;
        Some((name, Row::decode(slot, &value)?))
    };
    let all = engine.state.with_prefix(&prefix);
    Ok(all.into_iter().filter_map(named).collect())
}

/// All named consumers of a feed.
pub(crate) fn list(engine: &Engine, slot: &FeedSlot) -> Result<Vec<ConsumerInfo>> {
    let state = slot.current();
    engine.make_visible(&state);
    let info = |(name, row): (String, Row)| ConsumerInfo {
        name,
        cursor: row.cursor,
        acknowledged_at: row.acknowledged_at,
        lag: lag(&state, row.cursor),
    };
    Ok(rows(engine, slot)?.into_iter().map(info).collect())
}

fn lag(state: &FeedState, cursor: Cursor) -> u64 {
    let after = if cursor.epoch == state.epoch {
        cursor.position
    } else {
        0
    };
    page::count_after(&state.published.read(), after)
}

/// How far every consumer of a feed has got: `None` when one of them has yet to begin in the feed's
/// epoch, `Some(None)` when there are no consumers at all.
pub(crate) fn passed_by_all(engine: &Engine, slot: &FeedSlot) -> Result<Option<Option<Cursor>>> {
    let epoch = slot.current().epoch;
    let mut least: Option<Cursor> = None;
    for (_, Row { cursor, .. }) in rows(engine, slot)? {
        if cursor.epoch != epoch || cursor.position == 0 {
            return Ok(None);
        }
        least = Some(least.map_or(cursor, |least| least.min(cursor)));
    }
    Ok(Some(least))
}
