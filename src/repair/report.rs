//! What a repair found.

use std::fmt;

use crate::cursor::Cursor;
use crate::error::Error;
use crate::feed::FeedKey;

/// What a repair saved and what it could not. See [`Options::repair`](crate::Options::repair).
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Repaired {
    /// Files of the log that were read.
    pub files: u64,
    /// Feeds that are in the repaired store.
    pub feeds: u64,
    /// Records that are in it, deletions included.
    pub records: u64,
    /// Everything that did not hold, with file and offset. Not all of it was needed.
    pub damage: Vec<Error>,
    /// What the repaired store is without.
    pub lost: Vec<Lost>,
}

/// Something that a repair could not save.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Lost {
    /// Changes of a feed. All cursors of the feed from before the repair are refused: its readers
    /// start over. Records that these changes were of may show in an older version, or not at all,
    /// until they are saved again.
    Changes {
        /// The feed.
        feed: FeedKey,
        /// The first of them.
        first: Cursor,
        /// The last of them.
        last: Cursor,
        /// Ids of records that were changed, as far as they are known.
        ids: Vec<String>,
    },
    /// The feed may have had more changes after this one. Cursors of such changes are refused. What
    /// happened to its records since then without changing them may be undone, too.
    Tail {
        /// The feed.
        feed: FeedKey,
        /// The newest change that is left.
        after: Cursor,
    },
    /// Perhaps something that happened to records of a feed without changing them: that they were
    /// pruned, hard-deleted, purged, or taken over by another sync. Some of it may be undone. All
    /// cursors of the feed from before the repair are refused.
    Marks {
        /// The feed.
        feed: FeedKey,
        /// It happened after this change,
        after: Cursor,
        /// and before this one, which is the next that is left.
        before: Option<Cursor>,
    },
    /// The payload of a deleted record.
    Payload {
        /// The feed.
        feed: FeedKey,
        /// The deletion, which is there.
        deletion: Cursor,
    },
    /// A feed whose name is lost, and so the feed.
    Feed {
        /// A fingerprint of the name.
        id: u64,
    },
    /// Changes of checkpoints, metadata, runs, consumers or registrations: what there is of them may
    /// be from earlier.
    State,
    /// Parts of commits of which nothing tells what they held. What that can have been is told besides,
    /// feed by feed.
    Unknown {
        /// How many there were, at most.
        frames: u64,
    },
}

impl Repaired {
    /// Whether everything was saved.
    pub fn is_complete(&self) -> bool {
        self.lost.is_empty()
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changes {
                feed,
                first,
                last,
                ids,
            } => {
                match first == last {
                    true => write!(f, "{feed}: change {first}")?,
                    false => write!(f, "{feed}: changes {first} to {last}")?,
                }
                match ids.as_slice() {
                    [] => Ok(()),
                    ids => write!(f, " of {}", ids.join(", ")),
                }
            }
            Self::Tail { feed, after } => {
                write!(f, "{feed}: perhaps changes after {after}")
            }
            Self::Marks {
                feed,
                after,
                before,
            } => {
                let what = "perhaps what was pruned, hard-deleted, purged or taken over";
                write!(f, "{feed}: {what} after {after}")?;
                match before {
                    Some(before) => write!(f, " and before {before}"),
                    None => Ok(()),
                }
            }
            Self::Payload { feed, deletion } => {
                write!(f, "{feed}: the payload of the deletion {deletion}")
            }
            Self::Feed { id } => write!(f, "a feed whose name is not known ({id:016x})"),
            Self::State => f.write_str("perhaps checkpoints, metadata, runs or consumers"),
            Self::Unknown { frames } => {
                write!(
                    f,
                    "{frames} frames of the log, of which nothing tells what they held"
                )
            }
        }
    }
}
