//! Feeds: one dataset of one connection, and the handle to it.
//!
//! * [`state`]: what is in memory of a feed, and its locks; [`resident`]: its index; [`published`]: what
//!   readers see
//! * [`directory`]: the feed's frames and which of their records are live
//! * [`slot`]: which of the feed's epochs is the current one
//! * [`marks`], [`lives`]: what is known of records besides their newest version
//! * [`page`]: pages of the change feed; [`scan`] finds their records, [`load`] reads
//!   them, [`since`] tells what they mean to the reader
//! * [`read`]: reading records out of frames
//! * [`trail`]: where a re-sync is going

mod ahead;
#[cfg(feature = "async")]
mod changed;
mod description;
pub(crate) mod directory;
pub(crate) mod frame_ref;
pub(crate) mod gone;
mod iter;
pub(crate) mod lives;
pub(crate) mod load;
pub(crate) mod marks;
pub(crate) mod page;
pub(crate) mod published;
pub(crate) mod read;
pub(crate) mod resident;
mod scan;
mod since;
pub(crate) mod slot;
pub(crate) mod state;
pub(crate) mod trail;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

#[cfg(feature = "async")]
pub use changed::Changed;
pub use iter::Records;

use crate::codec::Encoder;
use crate::consumers::{self, Consumer, ConsumerInfo};
use crate::cursor::Cursor;
use crate::engine::Handle;
use crate::error::{Error, Result};
use crate::feed::page::{List, Page, check_cursor};
use crate::feed::published::Published;
use crate::feed::slot::FeedSlot;
use crate::feed::state::FeedState;
use crate::log::format::Author;
use crate::options::FeedOptions;
use crate::record::Applied;
use crate::replace::Replacement;
use crate::retention::prune::prune;
use crate::retention::removal::{hard_delete, purge};
use crate::retention::{Oldest, Removed};
use crate::runs::RunScope;
use crate::stats::FeedStats;
use crate::windows::{self, Sweep, Swept};
use crate::write::inputs::{self, Input, JsonText};
use crate::write::transaction::transact;
use crate::write::{Verb, Write, execute};

/// The longest connection, model, variant or sync name, in bytes.
const NAME_MAX: usize = 255;
/// The variant that means none.
pub(crate) const BASE_VARIANT: &str = "base";

/// What names a feed: connection, model, and an optional variant. Always compared as a whole.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub struct FeedKey {
    /// Whose data it is, such as the id of an account's connection to an API.
    pub connection: String,
    /// What the records are, such as `Contact`.
    pub model: String,
    /// A dataset of its own under the same model; `base` stands for none.
    pub variant: String,
}

impl FeedKey {
    /// A key; an empty variant is `base`.
    ///
    /// # Errors
    /// [`Error::InvalidName`] when a name is empty, longer than 255 bytes, or has a NUL byte.
    pub fn new(connection: &str, model: &str, variant: &str) -> Result<Self> {
        check_name("connection", connection)?;
        check_name("model", model)?;
        let variant = if variant.is_empty() {
            BASE_VARIANT
        } else {
            variant
        };
        check_name("variant", variant)?;
        let [connection, model, variant] = [connection, model, variant].map(str::to_owned);
        Ok(Self {
            connection,
            model,
            variant,
        })
    }

    /// The bytes that the feed's id is the hash of.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let names = Encoder::default().bytes(self.connection.as_bytes());
        names
            .bytes(self.model.as_bytes())
            .bytes(self.variant.as_bytes())
            .finish()
    }
}

pub(crate) fn check_name(what: &'static str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_MAX || name.contains('\0') {
        return Err(Error::InvalidName {
            what,
            name: name.to_owned(),
        });
    }
    Ok(())
}

impl fmt::Display for FeedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.connection, self.model)?;
        if self.variant == BASE_VARIANT {
            Ok(())
        } else {
            write!(f, "/{}", self.variant)
        }
    }
}

/// A handle to one feed of an open store. Cheap to clone and to send to other threads; it keeps
/// the store's files open until it is dropped or the store is closed.
#[derive(Clone)]
pub struct Feed {
    pub(crate) engine: Arc<Handle>,
    pub(crate) slot: Arc<FeedSlot>,
    /// The run that writes, if one does.
    pub(crate) run: Option<Arc<RunScope>>,
    pub(crate) merging: Option<Cursor>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Feed").field(&self.slot.key).finish()
    }
}

impl Feed {
    /// What names the feed.
    pub fn key(&self) -> &FeedKey {
        &self.slot.key
    }

    fn state(&self) -> Result<Arc<FeedState>> {
        self.engine.check_not_closed()?;
        Ok(self.slot.current())
    }

    /// Saves records: typed ones, `serde_json::Value`s, or verbatim JSON as
    /// `serde_json::value::RawValue`. Each must serialize to a JSON object with a field `id`, a
    /// string or a number.
    ///
    /// A record is `Unchanged` when its JSON is the same *value* as the stored one: the order of
    /// keys, white space and the spelling of numbers and strings do not matter, array order does.
    /// The call is atomic, and one invalid record refuses it whole. In the feed the changed
    /// records come in input order; of several with the same id, the first one counts.
    ///
    /// # Errors
    /// [`Error::InvalidRecord`] or [`Error::Serialize`] with the record's index,
    /// [`Error::DiskFull`], [`Error::Poisoned`] after a failure, [`Error::Closed`].
    ///
    /// ```
    /// use highwater::Outcome;
    /// use serde_json::json;
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = highwater::Store::open(dir.path())?;
    /// let contacts = store.feed("conn-42", "Contact")?;
    /// let _ = contacts.batch_save(&[json!({"id": 1, "name": "Ada"}), json!({"id": 2})])?;
    /// let again = contacts.batch_save(&[json!({"name": "Ada", "id": "1"}), json!({"id": 3})])?;
    /// // The id 1 and the id "1" are the same record, but its value has changed.
    /// assert_eq!(again.outcomes, [Outcome::Updated, Outcome::Added]);
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn batch_save<T: Serialize>(&self, records: &[T]) -> Result<Applied> {
        self.write_json(Verb::SaveJson, records)
    }

    /// Saves records with opaque payloads: pairs of id and bytes, compared byte for byte. A record
    /// that was saved as JSON before is changed by it, even when the bytes are the same.
    ///
    /// # Errors
    /// As for [`Feed::batch_save`].
    pub fn batch_save_raw<I, B>(&self, records: &[(I, B)]) -> Result<Applied>
    where
        I: AsRef<str>,
        B: AsRef<[u8]>,
    {
        let inputs = inputs::raw(records, self.engine.options.payload_max)?;
        self.write(Verb::SaveRaw, &inputs)
    }

    /// Merges partial JSON objects, each with its `id`, into the stored records: objects merge
    /// recursively, arrays and scalars replace, `null` overwrites, absent fields are kept.
    ///
    /// A record that is absent or deleted is `NotFound`; a merge that changes nothing is
    /// `Unchanged`.
    ///
    /// # Errors
    /// As for [`Feed::batch_save`]; also when a stored payload is not JSON.
    pub fn batch_update<T: Serialize>(&self, partials: &[T]) -> Result<Applied> {
        self.write_json(Verb::Update, partials)
    }

    /// Deletes records by id. Their last payload is kept and shown with the deletion.
    ///
    /// A record that is deleted already is `Unchanged`, an unknown one `NotFound`; neither appears
    /// in the feed.
    ///
    /// # Errors
    /// As for [`Feed::batch_save`].
    pub fn batch_delete<I: AsRef<str>>(&self, ids: &[I]) -> Result<Applied> {
        self.write(Verb::Delete, &inputs::ids(ids)?)
    }

    fn write_json<T: Serialize>(&self, verb: Verb, records: &[T]) -> Result<Applied> {
        let text = JsonText::new(records)?;
        let ids = text.ids(self.engine.options.payload_max)?;
        self.write(verb, &text.inputs(&ids))
    }

    fn write(&self, verb: Verb, inputs: &[Input<'_>]) -> Result<Applied> {
        if inputs.is_empty() && self.run.is_none() {
            self.engine.log.check_open()?;
            let outcomes = Vec::new();
            return Ok(Applied {
                outcomes,
                totals: Default::default(),
                last_cursor: None,
            });
        }
        let write = Write {
            feed: self.slot.clone(),
            verb,
            inputs,
            merging: self.merging,
        };
        let mut applied = execute(&self.engine, self.run.as_deref(), &[write], &[])?;
        // One write, one result.
        applied.pop().ok_or(Error::Closed)
    }

    /// Reads a page of the change feed: every record once, at the position of its newest change.
    ///
    /// A page always says where to go on and whether there is more, also when it is empty. A
    /// consumer that passes each page's resume cursor as the next `after` sees every change, and
    /// ends with exactly the live records.
    ///
    /// # Errors
    /// [`Error::ForeignCursor`] or [`Error::StaleCursor`] for a cursor that is not of this feed,
    /// [`Error::InvalidArgument`] for a limit out of range, [`Error::Corrupt`] for damage.
    ///
    /// ```
    /// use highwater::List;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = highwater::Store::open(dir.path())?;
    /// # let feed = store.feed("conn-42", "Contact")?;
    /// # let _ = feed.batch_save_raw(&[("a", "1"), ("b", "2"), ("c", "3")])?;
    /// let mut cursor = None;
    /// loop {
    ///     let page = feed.list(&List::new().after(cursor).limit(2))?;
    ///     for record in page.iter() {
    ///         println!("{} {}", record.last_action, record.id);
    ///     }
    ///     cursor = Some(page.resume_cursor());
    ///     if !page.has_more() {
    ///         break;
    ///     }
    /// }
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn list(&self, list: &List) -> Result<Page> {
        page::list(&self.engine, &self.state()?, list)
    }

    /// Reads records by id, in the order given. Deleted ones are there and say so; ids that were
    /// never saved are left out.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for damage, or an I/O error.
    pub fn get<I: AsRef<str>>(&self, ids: &[I]) -> Result<Page> {
        let ids: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
        page::get(&self.engine, &self.state()?, &ids)
    }

    /// Iterates over the feed from after a cursor (`None`: from the beginning), in change order, a
    /// page at a time in memory. Ends when it has caught up with the newest change.
    pub fn records(&self, after: Option<Cursor>) -> Records {
        Records::new(self.clone(), after)
    }

    /// The cursor of the oldest change in the feed; `None` when the feed is empty.
    ///
    /// # Errors
    /// An I/O error, or damage found on the way.
    pub fn first_cursor(&self) -> Result<Option<Cursor>> {
        self.visible(|published| {
            let frames = published.directory.iter();
            let mut live = frames.filter(|f| f.live_count > 0 && f.first <= published.tail);
            live.next()?.first_live()
        })
    }

    /// The cursor of the newest change in the feed; `None` when the feed is empty.
    ///
    /// # Errors
    /// As for [`Feed::first_cursor`].
    pub fn last_cursor(&self) -> Result<Option<Cursor>> {
        self.visible(|published| {
            let frames = published.directory.iter().rev();
            let mut live = frames.filter(|f| f.live_count > 0 && f.first <= published.tail);
            let frame = live.next()?;
            Some(frame.first + u64::from(frame.live_below(frame.span).next()?))
        })
    }

    fn visible(&self, position: impl Fn(&Published) -> Option<u64>) -> Result<Option<Cursor>> {
        let state = self.state()?;
        self.engine.make_visible(&state);
        let position = position(&state.published.read());
        Ok(position.map(|position| state.cursor(position)))
    }

    /// How many live records the feed has.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn count(&self) -> Result<u64> {
        self.counts(|published| published.live)
    }

    /// The bytes of all live records' payloads together.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn size(&self) -> Result<u64> {
        self.counts(|published| published.live_bytes)
    }

    fn counts(&self, count: impl Fn(&Published) -> u64) -> Result<u64> {
        let state = self.state()?;
        self.engine.make_visible(&state);
        Ok(count(&state.published.read()))
    }

    /// Counts and sizes of the feed.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn stats(&self) -> Result<FeedStats> {
        let state = self.state()?;
        self.engine.make_visible(&state);
        let consumers = self.consumers()?;
        Ok(FeedStats::of(&state, &consumers))
    }

    /// Waits until something newer than `after` is visible (`None`: until anything is), and says
    /// whether it is; false when `timeout` passed first.
    ///
    /// # Errors
    /// For a cursor that is not of this feed, as in [`Feed::list`]; [`Error::Closed`] when the store
    /// is closed meanwhile.
    pub fn wait(&self, after: Option<Cursor>, timeout: Duration) -> Result<bool> {
        // No deadline at all when the time-out is too long to be represented.
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let state = self.state()?;
            let position = after.map_or(Ok(0), |cursor| check_cursor(&state, cursor))?;
            self.engine.make_visible(&state);
            let found = state.wait_past(position, deadline);
            self.engine.check_not_closed()?;
            // Another epoch may have taken its place: a cursor is stale then, and no cursor means
            // waiting on there.
            if found || !state.is_superseded() {
                return Ok(found);
            }
            self.slot.check_not_abandoned()?;
        }
    }

    /// The options the feed was configured with.
    pub fn options(&self) -> FeedOptions {
        self.slot.current().writer.lock().options.clone()
    }

    /// Sets the feed's options, durably, for all writes that begin after this returns.
    ///
    /// # Errors
    /// As for any write.
    pub fn configure(&self, options: FeedOptions) -> Result<()> {
        transact(&self.engine, &[], Author::default(), |transaction| {
            let mut registration = transaction.registration(&self.slot);
            registration.options = options.clone();
            transaction.register(&self.slot, &registration);
            Ok(())
        })?;
        self.engine.refresh_options(&self.slot.current())
    }

    /// The same feed, with writes that leave records alone that another run, or a writer outside
    /// of this run, changed after `cursor`; their outcome is `Skipped`. Changes that the run made
    /// itself never block it. All writes outside of runs count as one writer. `None` overrides
    /// whatever is there, as by default.
    ///
    /// ```
    /// use highwater::{Outcome, RunOptions, SyncKey};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = highwater::Store::open(dir.path())?;
    /// let sync = SyncKey::new("conn-42", "contacts", "")?;
    /// let run = store.begin_run(&sync, RunOptions::new())?;
    /// let contacts = run.feed("Contact")?;
    /// let _ = contacts.batch_save_raw(&[("ada", "1")])?;
    /// let contacts = contacts.ignore_if_modified_after(contacts.last_cursor()?);
    /// // Meanwhile, an action changes the record here and at the provider.
    /// let _ = store.feed("conn-42", "Contact")?.batch_save_raw(&[("ada", "2")])?;
    /// let applied = contacts.batch_save_raw(&[("ada", "fetched before that")])?;
    /// assert_eq!(applied.outcomes, [Outcome::Skipped]);
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn ignore_if_modified_after(&self, cursor: impl Into<Option<Cursor>>) -> Self {
        Self {
            merging: cursor.into(),
            ..self.clone()
        }
    }

    /// Opens a deletion window: from now on, every write to the feed marks the records it names as
    /// seen, whatever becomes of them. The window stays open across restarts and later runs, until
    /// [`Feed::track_deletes_end`]. Each sync has windows of its own, and writers outside of runs
    /// have one together. Returns false, and changes nothing, when the window was open already.
    ///
    /// Marks are as durable as the next checkpoint, or anything else, that is saved after them. A
    /// caller that keeps its place elsewhere calls [`Store::flush`](crate::Store::flush) first.
    ///
    /// # Errors
    /// Those of any write.
    pub fn track_deletes_start(&self) -> Result<bool> {
        windows::open(self)
    }

    /// Deletes every live record that was neither seen in the deletion window nor changed since it
    /// was opened, and closes the window: one commit, which readers see whole or not at all.
    ///
    /// # Errors
    /// [`Error::NoWindow`] when none is open; [`Error::SweepRefused`] when it would delete more than
    /// allowed, and the window stays open; those of any write.
    ///
    /// ```
    /// use highwater::Sweep;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = highwater::Store::open(dir.path())?;
    /// # let feed = store.feed("conn-42", "Contact")?;
    /// # let _ = feed.batch_save_raw(&[("a", "1"), ("b", "2"), ("c", "3")])?;
    /// feed.track_deletes_start()?;
    /// // The provider has these two only, and one of them is new.
    /// let _ = feed.batch_save_raw(&[("b", "2"), ("d", "4")])?;
    /// let swept = feed.track_deletes_end(&Sweep::new().max_fraction(0.5).return_ids(true))?;
    /// assert_eq!(swept.ids, ["a", "c"]);
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn track_deletes_end(&self, sweep: &Sweep) -> Result<Swept> {
        windows::close(self, sweep)
    }

    /// Removes the payloads of the oldest records, live or deleted. Nothing else changes and no
    /// cursor moves; records that are pruned already are passed over.
    ///
    /// # Errors
    /// As for [`Feed::list`] for a cursor that is not of this feed; those of any write.
    pub fn prune(&self, oldest: &Oldest) -> Result<Removed> {
        prune(&self.engine, self.run.as_deref(), &self.slot, oldest)
    }

    /// Removes the oldest records entirely, without an event in the feed: readers are not told.
    /// Without bounds everything goes, and the feed starts over: cursors given out before are
    /// refused then, and what was being filled to replace the feed is [lost](Error::ReplaceLost).
    ///
    /// # Errors
    /// As for [`Feed::prune`].
    pub fn hard_delete(&self, oldest: &Oldest) -> Result<Removed> {
        hard_delete(&self.engine, self.run.as_deref(), &self.slot, oldest)
    }

    /// Removes the oldest deletions from the feed, but none that a named consumer has yet to see.
    /// A reader without a name that began before the purge, and has not come past it, is refused
    /// with [`Error::CursorExpired`].
    ///
    /// # Errors
    /// As for [`Feed::prune`].
    pub fn purge(&self, oldest: &Oldest) -> Result<Removed> {
        purge(&self.engine, self.run.as_deref(), &self.slot, oldest)
    }

    /// Begins to fill the feed anew; see [`Replacement`].
    ///
    /// # Errors
    /// [`Error::ReplaceInProgress`], and those of any write.
    pub fn replace(&self) -> Result<Replacement> {
        Replacement::new(self)
    }

    /// The named consumer of this feed, made if there is none: it begins at the feed's beginning.
    ///
    /// # Errors
    /// [`Error::InvalidName`], and those of any write.
    pub fn consumer(&self, name: &str) -> Result<Consumer> {
        Consumer::open(self, name)
    }

    /// All named consumers of the feed, and how far each is behind.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn consumers(&self) -> Result<Vec<ConsumerInfo>> {
        consumers::list(&self.engine, &self.slot)
    }
}
