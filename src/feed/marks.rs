//! What happens to records without changing them, and what is known of it: deletion windows and
//! what was seen in them, pruned payloads, purged deletions, records taken over by another sync.
//!
//! Marks travel in frames of their own kind, in the same commits as everything else, and are kept
//! whole with the feed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codec::{Decoder, Encoder};
use crate::cursor::POSITION_MAX;
use crate::feed::directory::Directory;
use crate::feed::gone::Gone;
use crate::log::format::SyncId;
use crate::positions::{self, Positions};

/// One event of a frame of marks. Lists of positions ascend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Mark {
    /// A deletion window was opened: records changed after `start` count as seen.
    WindowOpened { sync: SyncId, start: u64, time: u64 },
    /// A deletion window was closed, swept or given up.
    WindowClosed { sync: SyncId },
    /// These versions were named by writes while a window was open.
    Seen(Vec<u64>),
    /// These versions were saved again, unchanged, by a sync that did not write them.
    Claimed { sync: SyncId, positions: Vec<u64> },
    /// The payloads of all records at or before a position were removed.
    Pruned { through: u64, time: u64 },
    /// All records at or before a position were removed.
    Removed { through: u64 },
    /// These deletions were removed.
    Purged(Vec<u64>),
    /// History goes on from an earlier state: positions between these two, neither included, were
    /// or may have been given out before, for changes that are not in it.
    Forked { after: u64, before: u64 },
}

impl Mark {
    /// The content of a frame of marks.
    pub(crate) fn encode_all(marks: &[Self]) -> Vec<u8> {
        marks.iter().fold(Encoder::default(), Self::encode).finish()
    }

    fn encode(encoder: Encoder, mark: &Self) -> Encoder {
        let list = |list: &[u64]| {
            let mut bytes = Vec::new();
            positions::encode(list.iter().copied(), &mut bytes);
            bytes
        };
        match mark {
            Self::WindowOpened { sync, start, time } => {
                encoder.u8(1).u64(sync.0).u64(*start).u64(*time)
            }
            Self::WindowClosed { sync } => encoder.u8(2).u64(sync.0),
            Self::Seen(positions) => encoder.u8(3).bytes(&list(positions)),
            Self::Claimed { sync, positions } => encoder.u8(4).u64(sync.0).bytes(&list(positions)),
            Self::Pruned { through, time } => encoder.u8(5).u64(*through).u64(*time),
            Self::Removed { through } => encoder.u8(6).u64(*through),
            Self::Purged(positions) => encoder.u8(7).bytes(&list(positions)),
            Self::Forked { after, before } => encoder.u8(8).u64(*after).u64(*before),
        }
    }

    /// Reads the content of a frame; `None` when it is not `count` whole marks.
    pub(crate) fn decode_all(count: u32, bytes: &[u8]) -> Option<Vec<Self>> {
        let mut fields = Decoder::new(bytes);
        let mut marks = Vec::new();
        for _ in 0..count {
            marks.push(Self::decode(&mut fields)?);
        }
        fields.is_empty().then_some(marks)
    }

    fn decode(fields: &mut Decoder<'_>) -> Option<Self> {
        Some(match fields.u8()? {
            1 => Self::WindowOpened {
                sync: SyncId(fields.u64()?),
                start: fields.u64()?,
                time: fields.u64()?,
            },
            2 => Self::WindowClosed {
                sync: SyncId(fields.u64()?),
            },
            3 => Self::Seen(positions::decode(fields.bytes()?, POSITION_MAX)?),
            4 => Self::Claimed {
                sync: SyncId(fields.u64()?),
                positions: positions::decode(fields.bytes()?, POSITION_MAX)?,
            },
            5 => Self::Pruned {
                through: fields.u64()?,
                time: fields.u64()?,
            },
            6 => Self::Removed {
                through: fields.u64()?,
            },
            7 => Self::Purged(positions::decode(fields.bytes()?, POSITION_MAX)?),
            8 => Self::Forked {
                after: fields.u64()?,
                before: fields.u64()?,
            },
            _ => return None,
        })
    }
}

/// An open deletion window.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Window {
    /// The newest position when it was opened: later ones are changes made in the window.
    pub(crate) start: u64,
    /// When it was opened, in microseconds.
    pub(crate) time: u64,
    /// Earlier versions that a write has named since.
    pub(crate) seen: Positions,
}

/// Up to which position payloads were pruned, and when: pruning goes from the oldest record on, so
/// each time it only moves a line.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Prunes(Vec<(u64, u64)>);

impl Prunes {
    /// Records at or before this position have no payload.
    pub(crate) fn through(&self) -> u64 {
        self.0.last().map_or(0, |(through, _)| *through)
    }

    /// When the payload at `position` was pruned.
    pub(crate) fn at(&self, position: u64) -> Option<u64> {
        let step = self.0.partition_point(|(through, _)| *through < position);
        self.0.get(step).map(|(_, time)| *time)
    }
}

/// What is known of a feed besides its versions.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Marks {
    /// By the sync that opened them; 0 for those opened outside of runs.
    pub(crate) windows: BTreeMap<SyncId, Window>,
    pub(crate) prunes: Arc<Prunes>,
    /// How many times deletions were purged, and up to which position at most. A cursor that was
    /// begun before, and stands before that position, may have missed one.
    pub(crate) purges: u32,
    pub(crate) purged_through: u64,
    /// How many times records were removed: an index from before has too many.
    pub(crate) removals: u32,
    /// Versions that belong to another sync than the one that wrote them.
    claims: BTreeMap<SyncId, Positions>,
    /// Commits of which compaction has left nothing.
    pub(crate) gone: Gone,
    /// Between which positions history was given up, ascending; see [`Mark::Forked`].
    forks: Vec<(u64, u64)>,
}

/// Purges that another branch of history may have had are not to be taken for later ones of this.
const FORK_PURGES: u32 = 1 << 16;

impl Marks {
    /// Applies a mark that is on stable storage.
    pub(crate) fn apply(&mut self, mark: &Mark, directory: &mut Directory) {
        match mark {
            Mark::WindowOpened { sync, start, time } => {
                let window = Window {
                    start: *start,
                    time: *time,
                    seen: Positions::default(),
                };
                self.windows.insert(*sync, window);
            }
            Mark::WindowClosed { sync } => {
                self.windows.remove(sync);
            }
            Mark::Seen(positions) => {
                for window in self.windows.values_mut() {
                    let before = positions.partition_point(|at| *at <= window.start);
                    window.seen.extend(&positions[..before]);
                }
            }
            Mark::Claimed { sync, positions } => {
                self.forget(positions);
                self.claims.entry(*sync).or_default().extend(positions);
            }
            Mark::Pruned { through, time } => {
                Arc::make_mut(&mut self.prunes).0.push((*through, *time));
            }
            Mark::Removed { through } => {
                directory.retire_through(*through);
                self.removals += 1;
            }
            Mark::Purged(positions) => {
                directory.retire(positions);
                self.removals += 1;
                self.purges += 1;
                let last = positions.last().copied().unwrap_or_default();
                self.purged_through = self.purged_through.max(last);
            }
            Mark::Forked { after, before } => {
                self.forks.push((*after, *before));
                self.purges = self.purges.saturating_add(FORK_PURGES);
            }
        }
    }

    /// Whether a position belongs to history that was given up.
    pub(crate) fn is_forked_off(&self, position: u64) -> bool {
        let mut forks = self.forks.iter();
        forks.any(|(after, before)| *after < position && position < *before)
    }

    /// Has every reader that began before now start over.
    pub(crate) fn expire_readers(&mut self, tail: u64) {
        self.purges = self.purges.saturating_add(FORK_PURGES);
        self.purged_through = tail + 1;
    }

    /// The position each open window began at.
    pub(crate) fn window_starts(&self) -> BTreeMap<SyncId, u64> {
        let windows = self.windows.iter();
        windows
            .map(|(sync, window)| (*sync, window.start))
            .collect()
    }

    /// The sync that a version belongs to, if not to the one that wrote it.
    pub(crate) fn claimed_by(&self, position: u64) -> Option<SyncId> {
        let claims = self.claims.iter();
        let mut holders = claims.filter(|(_, positions)| positions.contains(position));
        holders.next().map(|(sync, _)| *sync)
    }

    /// Forgets who claimed versions that are no longer the newest ones; whether anybody had.
    pub(crate) fn forget(&mut self, positions: &[u64]) -> bool {
        let some = !self.claims.is_empty();
        for claimed in self.claims.values_mut() {
            positions
                .iter()
                .for_each(|position| claimed.remove(*position));
        }
        self.claims.retain(|_, claimed| !claimed.is_empty());
        some
    }

    /// The marks as the catalog keeps them.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let list = |positions: &Positions| {
            let mut bytes = Vec::new();
            positions::encode(positions.iter(), &mut bytes);
            bytes
        };
        let mut encoder = Encoder::default()
            .u32(self.purges)
            .u64(self.purged_through)
            .u32(self.removals)
            .u32(self.prunes.0.len() as u32);
        for (through, time) in &self.prunes.0 {
            encoder = encoder.u64(*through).u64(*time);
        }
        encoder = encoder.u32(self.windows.len() as u32);
        for (sync, window) in &self.windows {
            encoder = encoder.u64(sync.0).u64(window.start).u64(window.time);
            encoder = encoder.bytes(&list(&window.seen));
        }
        encoder = encoder.u32(self.claims.len() as u32);
        for (sync, positions) in &self.claims {
            encoder = encoder.u64(sync.0).bytes(&list(positions));
        }
        encoder = self.gone.encode(encoder);
        // Nothing where there are none, as before there could be any.
        if !self.forks.is_empty() {
            encoder = encoder.u32(self.forks.len() as u32);
        }
        let forks = self.forks.iter();
        let encoder = forks.fold(encoder, |to, (after, before)| to.u64(*after).u64(*before));
        encoder.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let set = |fields: &mut Decoder<'_>| -> Option<Positions> {
            let positions = positions::decode(fields.bytes()?, POSITION_MAX)?;
            Some(positions.into_iter().collect())
        };
        let mut fields = Decoder::new(bytes);
        let mut marks = Self {
            purges: fields.u32()?,
            purged_through: fields.u64()?,
            removals: fields.u32()?,
            ..Self::default()
        };
        let prunes = Arc::make_mut(&mut marks.prunes);
        for _ in 0..fields.u32()? {
            prunes.0.push((fields.u64()?, fields.u64()?));
        }
        for _ in 0..fields.u32()? {
            let sync = SyncId(fields.u64()?);
            let (start, time) = (fields.u64()?, fields.u64()?);
            let seen = set(&mut fields)?;
            marks.windows.insert(sync, Window { start, time, seen });
        }
        for _ in 0..fields.u32()? {
            let sync = SyncId(fields.u64()?);
            marks.claims.insert(sync, set(&mut fields)?);
        }
        marks.gone = Gone::decode(&mut fields)?;
        let forks = match fields.is_empty() {
            true => 0,
            false => fields.u32()?,
        };
        for _ in 0..forks {
            marks.forks.push((fields.u64()?, fields.u64()?));
        }
        fields.is_empty().then_some(marks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Vec<Mark> {
        let sync = SyncId(7);
        vec![
            Mark::WindowOpened {
                sync,
                start: 50,
                time: 9,
            },
            Mark::Seen(vec![1, 2, 3, 50, 51]),
            Mark::Claimed {
                sync,
                positions: vec![4, 9],
            },
            Mark::Pruned {
                through: 20,
                time: 11,
            },
            Mark::Pruned {
                through: 30,
                time: 12,
            },
            Mark::Removed { through: 2 },
            Mark::Purged(vec![5, 40]),
            Mark::WindowOpened {
                sync: SyncId(0),
                start: 60,
                time: 13,
            },
            Mark::Forked {
                after: 70,
                before: 90,
            },
        ]
    }

    #[test]
    fn marks_round_trip_and_apply() {
        let all = marks();
        let bytes = Mark::encode_all(&all);
        assert_eq!(
            Mark::decode_all(all.len() as u32, &bytes),
            Some(all.clone())
        );
        for len in 0..bytes.len() {
            assert_eq!(Mark::decode_all(all.len() as u32, &bytes[..len]), None);
        }
        let mut marks = Marks::default();
        let mut directory = Directory::default();
        all.iter()
            .for_each(|mark| marks.apply(mark, &mut directory));
        let seen = &marks.windows[&SyncId(7)].seen;
        assert_eq!(
            seen.iter().collect::<Vec<_>>(),
            [1, 2, 3, 50],
            "51 is a change of its own"
        );
        assert_eq!(
            (marks.prunes.at(20), marks.prunes.at(21)),
            (Some(11), Some(12))
        );
        assert_eq!((marks.prunes.at(31), marks.prunes.through()), (None, 30));
        assert_eq!((marks.purges, marks.purged_through), (1 + FORK_PURGES, 40));
        let forked_off = [70, 71, 89, 90].map(|position| marks.is_forked_off(position));
        assert_eq!(forked_off, [false, true, true, false]);
        assert_eq!(marks.claimed_by(9), Some(SyncId(7)));
        assert_eq!(Marks::decode(&marks.encode()), Some(marks.clone()));
        marks.forget(&[4, 9]);
        assert_eq!(marks.claimed_by(9), None);
        assert_eq!(Marks::decode(&marks.encode()), Some(marks));
    }
}
