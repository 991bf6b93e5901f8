//! The job: a records cache, as every engine has to do it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

/// A record as a sync fetched it: its id and its body.
pub(crate) type Record = (String, Vec<u8>);

/// When a save returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Durability {
    /// Once it is on stable storage.
    Durable,
    /// Once the operating system has it; [`Cache::sync`] brings it to stable storage.
    Relaxed,
}

/// What the newest change of a record did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Added,
    Updated,
    Deleted,
}

/// How many records of a batch had each outcome.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Totals {
    pub(crate) added: u64,
    pub(crate) updated: u64,
    pub(crate) unchanged: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.added += other.added;
        self.updated += other.updated;
        self.unchanged += other.unchanged;
    }
}

/// A record as a reader gets it, as little copied as the engine's interface allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a> {
    pub(crate) id: &'a [u8],
    pub(crate) body: &'a [u8],
    pub(crate) action: Action,
}

/// Takes the records of a page one after the other.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(Shown<'_>);

/// Where a page ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page<C> {
    pub(crate) resume: C,
    pub(crate) has_more: bool,
}

/// A records cache in a directory.
pub(crate) trait Cache: Sized + Send + Sync {
    /// A feed in use.
    type Feed: Send + Sync;
    /// A position in a feed.
    type Cursor: Copy + Ord + Send + Sync;

    /// Opens the cache, creating it if needed.
    fn open(dir: &Path, durability: Durability) -> Result<Self>;

    /// The feed with this number.
    fn feed(&self, number: u32) -> Result<Self::Feed>;

    /// Saves a batch in one transaction. Its ids differ. A record that is stored with the same
    /// content is not written; the others get the feed's next cursors, in the batch's order.
    fn save(&self, feed: &Self::Feed, batch: &[Record]) -> Result<Totals>;

    /// Shows at most `limit` records after a cursor, in the order of their newest changes.
    fn page(
        &self,
        feed: &Self::Feed,
        after: Option<Self::Cursor>,
        limit: usize,
        visit: Visit<'_>,
    ) -> Result<Page<Self::Cursor>>;

    /// Shows the records with these ids.
    fn get(&self, feed: &Self::Feed, ids: &[&str], visit: Visit<'_>) -> Result<()>;

    /// From now on, what is saved counts as seen.
    fn sweep_begin(&self, feed: &Self::Feed) -> Result<()>;

    /// Deletes what was not seen, in one transaction; how many records that were.
    fn sweep_end(&self, feed: &Self::Feed) -> Result<u64>;

    /// The newest change; `None` in an empty feed.
    fn last(&self, feed: &Self::Feed) -> Result<Option<Self::Cursor>>;

    /// Blocks until there is something after the cursor; false when the time is over.
    fn wait(
        &self,
        feed: &Self::Feed,
        after: Option<Self::Cursor>,
        timeout: Duration,
    ) -> Result<bool>;

    /// Brings what was saved to stable storage.
    fn sync(&self) -> Result<()>;

    /// Closes the cache after the work it put off: compaction, checkpoints.
    fn settle(self) -> Result<()>;
}
