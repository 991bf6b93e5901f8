//! Which runs each feed has. The catalog is saved with it; a run's file goes only when no catalog
//! names it any more.

use std::collections::BTreeMap;

use crate::codec::{Decoder, Encoder};
use crate::cursor::{FeedId, StreamId};
use crate::log::Lsn;

/// What the entries of a run hold for besides the versions in the log. When it changed, the run is
/// of no use any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Basis {
    /// How many times records were removed from the feed.
    pub(crate) removals: u32,
    /// A fingerprint of the options that contents are compared under.
    pub(crate) options: u64,
}

/// What is known of a run without opening it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RunInfo {
    pub(crate) id: u64,
    /// It has what the frames up to here say, from where the run before it ends.
    pub(crate) lsn: Lsn,
    pub(crate) basis: Basis,
}

/// See the module.
#[derive(Default, Debug)]
pub(crate) struct Shelf {
    /// Oldest run first.
    streams: BTreeMap<StreamId, Vec<RunInfo>>,
    newest_id: u64,
    /// Runs that are not needed any more.
    obsolete: Vec<u64>,
}

impl Shelf {
    /// A number for a new run.
    pub(crate) fn new_id(&mut self) -> u64 {
        self.newest_id += 1;
        self.newest_id
    }

    /// Takes note that there is a file with this number, needed or not.
    pub(crate) fn note_id(&mut self, id: u64) {
        self.newest_id = self.newest_id.max(id);
    }

    /// The runs of a feed, oldest first, if they are still right: `lsn` is up to where its frames
    /// are known.
    pub(crate) fn of(&mut self, stream: StreamId, basis: Basis, lsn: Lsn) -> Vec<RunInfo> {
        let runs = self.streams.get(&stream).cloned().unwrap_or_default();
        let right = |run: &RunInfo| run.basis == basis && run.lsn <= lsn;
        if runs.iter().all(right) {
            return runs;
        }
        self.forget(stream);
        Vec::new()
    }

    pub(crate) fn has(&self, id: u64) -> bool {
        let mut all = self.streams.values().flatten();
        all.any(|run| run.id == id)
    }

    /// All runs.
    pub(crate) fn ids(&self) -> Vec<u64> {
        self.streams.values().flatten().map(|run| run.id).collect()
    }

    /// All runs, each with the feed it is of.
    pub(crate) fn named(&self) -> Vec<(StreamId, u64)> {
        let all = self.streams.iter();
        let named = all.flat_map(|(stream, runs)| runs.iter().map(|run| (*stream, run.id)));
        named.collect()
    }

    /// Adds a run that is newer than the others of the feed.
    pub(crate) fn add(&mut self, stream: StreamId, run: RunInfo) {
        self.streams.entry(stream).or_default().push(run);
    }

    /// Puts a merged run in the place of those it was made of; false when they are not all there.
    pub(crate) fn replace(&mut self, stream: StreamId, ids: &[u64], merged: u64) -> bool {
        let Some(runs) = self.streams.get_mut(&stream) else {
            return false;
        };
        let first = runs.iter().position(|run| ids.contains(&run.id));
        let made_of = |runs: &[RunInfo]| runs.iter().map(|run| run.id).eq(ids.iter().copied());
        let Some(first) = first.filter(|first| {
            let end = first + ids.len();
            runs.get(*first..end).is_some_and(made_of)
        }) else {
            return false;
        };
        let last = runs[first + ids.len() - 1];
        runs.drain(first..first + ids.len());
        runs.insert(first, RunInfo { id: merged, ..last });
        self.obsolete.extend_from_slice(ids);
        true
    }

    /// Forgets all runs of a feed.
    pub(crate) fn forget(&mut self, stream: StreamId) {
        let gone = self.streams.remove(&stream).unwrap_or_default();
        self.obsolete.extend(gone.iter().map(|run| run.id));
    }

    /// Forgets the runs of feeds that `is_over`.
    pub(crate) fn forget_where(&mut self, is_over: impl Fn(&StreamId) -> bool) {
        let over: Vec<StreamId> = self.streams.keys().copied().filter(is_over).collect();
        over.into_iter().for_each(|stream| self.forget(stream));
    }

    /// Feeds with runs.
    pub(crate) fn streams(&self) -> Vec<StreamId> {
        self.streams.keys().copied().collect()
    }

    /// What the catalog has to know, and which runs may go once it does.
    pub(crate) fn save(&mut self) -> (Vec<u8>, Vec<u64>) {
        (self.encode(), std::mem::take(&mut self.obsolete))
    }

    /// Takes back runs whose files are still to be removed.
    pub(crate) fn keep_obsolete(&mut self, ids: Vec<u64>) {
        self.obsolete.extend(ids);
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::default().u64(self.newest_id);
        encoder = encoder.u32(self.streams.len() as u32);
        for (stream, runs) in &self.streams {
            encoder = encoder.u64(stream.feed.0).u32(stream.epoch);
            encoder = encoder.u32(runs.len() as u32);
            for run in runs {
                let RunInfo { id, lsn, basis } = run;
                encoder = encoder.u64(*id).u64(lsn.0);
                encoder = encoder.u32(basis.removals).u64(basis.options);
            }
        }
        encoder.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Decoder::new(bytes);
        let mut shelf = Self {
            newest_id: fields.u64()?,
            ..Self::default()
        };
        for _ in 0..fields.u32()? {
            let stream = StreamId {
                feed: FeedId(fields.u64()?),
                epoch: fields.u32()?,
            };
            let mut runs = Vec::new();
            for _ in 0..fields.u32()? {
                runs.push(RunInfo {
                    id: fields.u64()?,
                    lsn: Lsn(fields.u64()?),
                    basis: Basis {
                        removals: fields.u32()?,
                        options: fields.u64()?,
                    },
                });
            }
            shelf.streams.insert(stream, runs);
        }
        fields.is_empty().then_some(shelf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId {
        feed: FeedId(4),
        epoch: 1,
    };
    const BASIS: Basis = Basis {
        removals: 2,
        options: 9,
    };

    fn run(id: u64, lsn: u64) -> RunInfo {
        RunInfo {
            id,
            lsn: Lsn(lsn),
            basis: BASIS,
        }
    }

    #[test]
    fn a_merged_run_takes_the_place_of_its_parts() {
        let mut shelf = Shelf::default();
        (1..=4).for_each(|id| shelf.add(STREAM, run(id, 10 * id)));
        assert!(!shelf.replace(STREAM, &[2, 4], 5), "not neighbours");
        assert!(shelf.replace(STREAM, &[2, 3], 5));
        let now = vec![run(1, 10), run(5, 30), run(4, 40)];
        assert_eq!(shelf.of(STREAM, BASIS, Lsn(40)), now);
        let (bytes, obsolete) = shelf.save();
        assert_eq!(obsolete, [2, 3]);
        let mut again = Shelf::decode(&bytes).unwrap();
        assert_eq!(again.of(STREAM, BASIS, Lsn(40)), now);
        assert_eq!(again.of(STREAM, BASIS, Lsn(39)), [], "the log ends before");
        assert_eq!(again.save().1, [1, 5, 4]);
        for len in 0..bytes.len() {
            assert!(Shelf::decode(&bytes[..len]).is_none());
        }
    }
}
