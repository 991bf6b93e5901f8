//! Letting go of data: payloads of old records, deletions that everybody has seen, whole feeds.
//!
//! * [`prune`]: removes payloads, and changes nothing else
//! * [`removal`]: removes records without a trace in the feed, and deletions that are not needed
//! * [`maintain`](mod@maintain): does all of it in small steps, as a policy says

pub(crate) mod maintain;
pub(crate) mod prune;
pub(crate) mod removal;

use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::feed::page::check_cursor;
use crate::feed::read::{Bodies, Located, Span};
use crate::runs::RunScope;
use crate::write::transaction::{Stop, Transaction};
use crate::write::turn::FeedTurn;

/// How far an operation on the oldest records of a feed goes.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = highwater::Store::open(dir.path())?;
/// # let feed = store.feed("conn-42", "Contact")?;
/// # let _ = feed.batch_save_raw(&[("a", "1"), ("b", "2")])?;
/// use highwater::Oldest;
/// let until = feed.last_cursor()?.expect("the feed has records");
/// let would = feed.prune(&Oldest::until(until).limit(1).dry_run(true))?;
/// assert_eq!((would.records, would.has_more), (1, true));
/// # Ok::<(), highwater::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[must_use = "this does nothing until an operation is called with it"]
pub struct Oldest {
    pub(crate) until: Option<Cursor>,
    pub(crate) limit: Option<u64>,
    pub(crate) dry_run: bool,
}

impl Oldest {
    /// All records of the feed.
    pub fn all() -> Self {
        Self::default()
    }

    /// Records at or before a cursor.
    pub fn until(cursor: Cursor) -> Self {
        Self {
            until: Some(cursor),
            ..Self::default()
        }
    }

    /// No more than this many records, the oldest first.
    pub fn limit(mut self, records: u64) -> Self {
        self.limit = Some(records);
        self
    }

    /// Only says what would be done.
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }
}

/// What an operation on the oldest records of a feed did, or would do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct Removed {
    /// Records it was done to.
    pub records: u64,
    /// How many of them were live.
    pub live: u64,
    /// The last one's cursor; `None` when there was none.
    pub last_cursor: Option<Cursor>,
    /// Whether the limit left some for the next call.
    pub has_more: bool,
}

/// Whoever lets go of data through a run must not be fenced.
fn check_run(run: Option<&RunScope>, transaction: &mut Transaction<'_>) -> Result<()> {
    run.map_or(Ok(()), |run| run.check(transaction))
}

/// A walk over the oldest records of a feed, whose turn holds everybody else off.
struct Walk {
    removed: Removed,
    /// Position of the last record it was done to.
    last: u64,
    live_bytes: u64,
    positions: Vec<u64>,
}

/// Visits the newest versions after `after` and up to where `oldest` says, the oldest first, and
/// takes up those that `wanted` accepts.
fn walk(
    turn: &mut FeedTurn<'_>,
    oldest: &Oldest,
    after: u64,
    wanted: impl Fn(&Located) -> bool,
) -> Result<Walk, Stop> {
    turn.settle()?;
    let until = match oldest.until {
        Some(cursor) => check_cursor(turn.feed, cursor)?,
        None => u64::MAX,
    };
    if let Some(0) = oldest.limit {
        return Err(Stop::Failed(Error::InvalidArgument {
            what: "limit",
            given: 0,
            min: 1,
            max: u64::MAX,
        }));
    }
    let pruned_through = turn.writer.pruned_through;
    let mut walk = Walk {
        removed: Removed::default(),
        last: 0,
        live_bytes: 0,
        positions: Vec::new(),
    };
    let spans: Vec<Span> = {
        let published = turn.feed.published.read();
        let directory = &published.directory;
        let frames = directory.iter().skip(directory.frame_after(after));
        let frames = frames.take_while(|frame| frame.first <= until);
        let span = |frame: &crate::feed::directory::FrameRef| {
            let here = |index: &u32| {
                let position = frame.first + u64::from(*index);
                position > after && position <= until
            };
            let live = frame.live_from(0).filter(here).collect();
            Span::new(&turn.engine.log, frame, live)
        };
        let live = frames.filter(|frame| frame.live_count > 0);
        live.map(span).collect::<Result<_>>()?
    };
    let limit = oldest.limit.unwrap_or(u64::MAX);
    let (mut table, mut buffer) = (Vec::new(), Vec::new());
    let (mut located, mut rows) = (Vec::new(), Vec::new());
    for span in spans {
        located.clear();
        rows.clear();
        buffer.clear();
        span.locate(&mut table, &mut located)?;
        // Entries say what is wanted, and they are verified together with the ids.
        span.load(&located, Bodies::Skipped, &mut buffer, &mut rows)?;
        for record in located.iter().filter(|record| wanted(record)) {
            if walk.removed.records == limit {
                walk.removed.has_more = true;
                return Ok(walk.with_cursor(turn));
            }
            walk.removed.records += 1;
            walk.last = record.position;
            walk.positions.push(record.position);
            if !record.is_deleted() {
                walk.removed.live += 1;
                if record.position > pruned_through {
                    walk.live_bytes += u64::from(record.body_len());
                }
            }
        }
    }
    Ok(walk.with_cursor(turn))
}

/// Takes up all records of a feed. Nothing is read for that, so it gets rid of damaged ones too.
fn everything(turn: &mut FeedTurn<'_>) -> Result<Walk, Stop> {
    turn.settle()?;
    let published = turn.feed.published.read();
    let frames = published.directory.frames();
    let newest = frames.iter().rev().find_map(|frame| {
        let index = frame.live_from(0).last()?;
        Some(frame.first + u64::from(index))
    });
    let walk = Walk {
        removed: Removed {
            records: frames.iter().map(|frame| u64::from(frame.live_count)).sum(),
            live: turn.live,
            ..Removed::default()
        },
        last: newest.unwrap_or_default(),
        live_bytes: turn.live_bytes,
        positions: Vec::new(),
    };
    Ok(walk.with_cursor(turn))
}

impl Walk {
    fn with_cursor(mut self, turn: &FeedTurn<'_>) -> Self {
        self.removed.last_cursor = (self.removed.records > 0).then(|| turn.feed.cursor(self.last));
        self
    }
}
