//! What goes in and what comes out: actions, outcomes, times.

use std::fmt;
use std::str::FromStr;

use crate::cursor::Cursor;

/// What the newest change of a record did to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// The record appeared, for the first time or again after a deletion.
    Added,
    /// The record's content changed.
    Updated,
    /// The record was deleted; its last payload is kept.
    Deleted,
}

impl Action {
    /// The name in the form the feed shows: `ADDED`, `UPDATED` or `DELETED`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Updated => "UPDATED",
            Self::Deleted => "DELETED",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A set of actions, to list only some changes. The default is all of them.
///
/// ```
/// use highwater::{Action, Actions};
/// let filter: Actions = "added,Deleted".parse()?;
/// assert!(filter.contains(Action::Added) && !filter.contains(Action::Updated));
/// # Ok::<(), highwater::ParseActionsError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Actions(u8);

impl Actions {
    /// Every action.
    pub const ALL: Self = Self(0b111);

    /// Whether the set has `action`.
    pub fn contains(self, action: Action) -> bool {
        self.0 & 1 << action as u8 != 0
    }
}

impl Default for Actions {
    fn default() -> Self {
        Self::ALL
    }
}

impl From<Action> for Actions {
    fn from(action: Action) -> Self {
        Self(1 << action as u8)
    }
}

impl std::ops::BitOr for Actions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOr for Action {
    type Output = Actions;

    fn bitor(self, other: Self) -> Actions {
        Actions::from(self) | Actions::from(other)
    }
}

/// The text does not name a set of actions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseActionsError {
    /// The part that was not understood.
    pub found: String,
}

impl fmt::Display for ParseActionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not one of added, updated, deleted", self.found)
    }
}

impl std::error::Error for ParseActionsError {}

impl FromStr for Actions {
    type Err = ParseActionsError;

    /// Reads names separated by commas, in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut set = Self(0);
        for name in text.split(',').map(str::trim) {
            let all = [Action::Added, Action::Updated, Action::Deleted];
            let action = all
                .into_iter()
                .find(|action| action.as_str().eq_ignore_ascii_case(name));
            set = set
                | action
                    .ok_or_else(|| ParseActionsError {
                        found: name.to_owned(),
                    })?
                    .into();
        }
        Ok(set)
    }
}

/// What became of one input record of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The record was absent or deleted and is now live.
    Added,
    /// The record's content changed.
    Updated,
    /// The record was deleted.
    Deleted,
    /// Nothing changed; nothing was written.
    Unchanged,
    /// The same id came earlier in the batch; this one was left out.
    Duplicate,
    /// There is no live record with this id to update or delete.
    NotFound,
    /// A pruned record was saved again with the content it had: its payload is back.
    Restored,
    /// Another writer changed the record after the cursor that the run goes by; it was left alone.
    Skipped,
    /// The record's payload was pruned, so a partial update has nothing to merge into.
    Pruned,
}

impl Outcome {
    /// Whether the record got a new place in the feed.
    pub fn is_change(self) -> bool {
        matches!(
            self,
            Self::Added | Self::Updated | Self::Deleted | Self::Restored
        )
    }
}

/// How many inputs of a batch had each outcome.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// Inputs that were added.
    pub added: u64,
    /// Inputs that were updated.
    pub updated: u64,
    /// Inputs that were deleted.
    pub deleted: u64,
    /// Inputs that changed nothing.
    pub unchanged: u64,
    /// Inputs whose id came earlier in the batch.
    pub duplicate: u64,
    /// Inputs that named no live record.
    pub not_found: u64,
    /// Inputs that brought a pruned payload back.
    pub restored: u64,
    /// Inputs whose record was left alone because another writer had changed it.
    pub skipped: u64,
    /// Updates of records whose payload was pruned.
    pub pruned: u64,
}

impl Totals {
    /// How many inputs made a change, so how many cursors were given out.
    pub fn changed(&self) -> u64 {
        self.added + self.updated + self.deleted + self.restored
    }

    pub(crate) fn count(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Added => &mut self.added,
            Outcome::Updated => &mut self.updated,
            Outcome::Deleted => &mut self.deleted,
            Outcome::Unchanged => &mut self.unchanged,
            Outcome::Duplicate => &mut self.duplicate,
            Outcome::NotFound => &mut self.not_found,
            Outcome::Restored => &mut self.restored,
            Outcome::Skipped => &mut self.skipped,
            Outcome::Pruned => &mut self.pruned,
        } += 1;
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.added += other.added;
        self.updated += other.updated;
        self.deleted += other.deleted;
        self.unchanged += other.unchanged;
        self.duplicate += other.duplicate;
        self.not_found += other.not_found;
        self.restored += other.restored;
        self.skipped += other.skipped;
        self.pruned += other.pruned;
    }
}

/// The result of a write call on one feed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "the outcomes say which records changed"]
pub struct Applied {
    /// One outcome per input, in input order.
    pub outcomes: Vec<Outcome>,
    /// The outcomes, counted.
    pub totals: Totals,
    /// The cursor of the newest change this call made; `None` when it changed nothing.
    pub last_cursor: Option<Cursor>,
}

/// A moment in microseconds since the Unix epoch. `Display` writes RFC 3339 in UTC.
///
/// ```
/// let moment = highwater::Timestamp::from_micros(1_700_000_000_123_456);
/// assert_eq!(moment.to_string(), "2023-11-14T22:13:20.123456Z");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From microseconds since the Unix epoch.
    pub fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub fn as_micros(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_microsecond(micros) {
            Ok(moment) => write!(f, "{moment:.6}"),
            // Past the year 9999 there is no RFC 3339 form.
            Err(_) => write!(f, "{micros}us"),
        }
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A record as the feed shows it, borrowed from its page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Record<'a> {
    /// The record's id inside its feed.
    pub id: &'a str,
    /// The payload as it was saved, byte for byte; for a deleted record its last one. `None` when
    /// it was pruned, or when the page was read with metadata only.
    pub payload: Option<&'a [u8]>,
    /// What the newest change did; on a page that was read after a cursor, what it did to a reader
    /// who knew the feed up to there. See [`List::relative`](crate::List::relative).
    pub last_action: Action,
    /// Position of the newest change in the feed.
    pub cursor: Cursor,
    /// When the record was added; starts anew when a deleted record is added again.
    pub first_seen_at: Timestamp,
    /// When the newest change was committed; never decreases along the feed.
    pub last_modified_at: Timestamp,
    /// When the record was deleted; `None` while it is live.
    pub deleted_at: Option<Timestamp>,
    /// When the payload was pruned; `None` while it is there.
    pub pruned_at: Option<Timestamp>,
}

impl Record<'_> {
    /// Whether the record is deleted.
    pub fn is_deleted(&self) -> bool {
        self.deleted_at.is_some()
    }

    /// The payload as a typed value.
    ///
    /// # Errors
    /// When the payload is not JSON of that type; a record without payload reads as `null`.
    pub fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_slice(self.payload.unwrap_or(b"null"))
    }

    /// A copy that outlives the page.
    pub fn to_owned(&self) -> OwnedRecord {
        OwnedRecord {
            id: self.id.to_owned(),
            payload: self.payload.map(<[u8]>::to_vec),
            last_action: self.last_action,
            cursor: self.cursor,
            first_seen_at: self.first_seen_at,
            last_modified_at: self.last_modified_at,
            deleted_at: self.deleted_at,
            pruned_at: self.pruned_at,
        }
    }
}

/// A record that owns its bytes. The fields are those of [`Record`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct OwnedRecord {
    /// See [`Record::id`].
    pub id: String,
    /// See [`Record::payload`].
    pub payload: Option<Vec<u8>>,
    /// See [`Record::last_action`].
    pub last_action: Action,
    /// See [`Record::cursor`].
    pub cursor: Cursor,
    /// See [`Record::first_seen_at`].
    pub first_seen_at: Timestamp,
    /// See [`Record::last_modified_at`].
    pub last_modified_at: Timestamp,
    /// See [`Record::deleted_at`].
    pub deleted_at: Option<Timestamp>,
    /// See [`Record::pruned_at`].
    pub pruned_at: Option<Timestamp>,
}
