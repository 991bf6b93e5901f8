//! Commits of which no record is left: compaction dropped the frames, but a reader may still stand
//! there, and what a change means to it depends on when that was.
//!
//! The newest ones are kept exactly. Of older ones it is only known that there were some; then a
//! reader is taken to have seen a record rather than not, so that it is never left with a record
//! that was deleted.

use crate::codec::{Decoder, Encoder};
use crate::feed::frame_ref::Origin;
use crate::feed::published::Published;

/// How many commits are remembered: 24 bytes each.
const GONE_MAX: usize = 512;

/// See the module.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Gone {
    /// Position of the first record and after the last, and commit time in microseconds, ascending.
    commits: Vec<(u64, u64, u64)>,
    /// The newest commit that is not remembered any more began here.
    forgotten: u64,
}

impl Gone {
    pub(crate) fn add(&mut self, origins: &[Origin]) {
        let gone = origins
            .iter()
            .map(|origin| (origin.first, origin.end, origin.time));
        self.commits.extend(gone);
        self.commits.sort_unstable();
        self.commits.dedup();
        let over = self.commits.len().saturating_sub(GONE_MAX);
        if let Some((first, ..)) = self.commits.drain(..over).next_back() {
            self.forgotten = self.forgotten.max(first);
        }
    }

    /// Whether a commit at `time` is among them that had records after `position`.
    pub(crate) fn has_after(&self, time: u64, position: u64) -> bool {
        let mut commits = self.commits.iter();
        commits.any(|(_, end, known)| *known == time && *end > position + 1)
    }

    pub(crate) fn encode(&self, encoder: Encoder) -> Encoder {
        let encoder = encoder.u64(self.forgotten).u32(self.commits.len() as u32);
        let commits = self.commits.iter();
        commits.fold(encoder, |encoder, (first, end, time)| {
            encoder.u64(*first).u64(*end).u64(*time)
        })
    }

    pub(crate) fn decode(fields: &mut Decoder<'_>) -> Option<Self> {
        let mut gone = Self {
            forgotten: fields.u64()?,
            commits: Vec::new(),
        };
        for _ in 0..fields.u32()? {
            gone.commits
                .push((fields.u64()?, fields.u64()?, fields.u64()?));
        }
        Some(gone)
    }
}

/// When the newest change at or before some position was committed, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Moment {
    pub(crate) least: u64,
    /// The same, unless it is not known exactly.
    pub(crate) most: u64,
}

impl Published {
    /// When the newest change at or before `position` was committed.
    pub(crate) fn moment(&self, position: u64) -> Moment {
        let gone = &self.marks.gone;
        let (before, next) = self.directory.commits_around(position);
        let split = gone
            .commits
            .partition_point(|(first, ..)| *first <= position);
        let (gone_before, gone_next) = gone.commits.split_at(split);
        let place = |origin: Origin| (origin.first, origin.time);
        let gone_place = |commit: &(u64, u64, u64)| (commit.0, commit.2);
        let before = before.map(place).max(gone_before.last().map(gone_place));
        let (first, least) = before.unwrap_or_default();
        if first >= gone.forgotten {
            return Moment { least, most: least };
        }
        let next = next
            .map(place)
            .into_iter()
            .chain(gone_next.first().map(gone_place));
        let most = next.min().map_or(self.time, |(_, time)| time - 1);
        Moment { least, most }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::format::Author;

    fn origin(first: u64) -> Origin {
        let author = Author::default();
        let (end, time) = (first + 1, 10 * first);
        Origin {
            first,
            end,
            time,
            author,
        }
    }

    #[test]
    fn a_commit_has_records_after_every_position_before_its_last() {
        let mut gone = Gone::default();
        gone.add(&[Origin {
            end: 13,
            ..origin(10)
        }]);
        let before_last = (9..14).filter(|position| gone.has_after(100, *position));
        assert_eq!(before_last.collect::<Vec<_>>(), [9, 10, 11]);
        assert!(!gone.has_after(99, 0) && !gone.has_after(101, 0));
    }

    #[test]
    fn moments_are_exact_as_far_as_commits_are_remembered() {
        let mut published = Published {
            time: 1_000_000,
            ..Published::default()
        };
        let gone = &mut published.marks.gone;
        gone.add(&(1..=100).map(origin).collect::<Vec<_>>());
        let exact = |time| Moment {
            least: time,
            most: time,
        };
        assert_eq!(published.moment(50), exact(500));
        assert_eq!(published.moment(400), exact(1000));
        let later: Vec<Origin> = (200..=200 + GONE_MAX as u64).map(origin).collect();
        published.marks.gone.add(&later);
        let between = Moment {
            least: 0,
            most: 2009,
        };
        assert_eq!(
            published.moment(50),
            between,
            "somewhere before the oldest known"
        );
        assert_eq!(published.moment(300), exact(3000));
        let bytes = published.marks.gone.encode(Encoder::default()).finish();
        let read = Gone::decode(&mut Decoder::new(&bytes));
        assert_eq!(read.as_ref(), Some(&published.marks.gone));
    }
}
