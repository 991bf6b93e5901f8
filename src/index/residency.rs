//! Bringing indexes into memory, and out of it when they outgrow their share of the budget.

use std::ops::Range;
use std::sync::Arc;

use crate::cursor::StreamId;
use crate::defects::Defect;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::feed::directory::FrameRef;
use crate::feed::published::Published;
use crate::feed::read::read_entries;
use crate::feed::resident::Resident;
use crate::feed::state::{FeedState, Writer};
use crate::index::run::{self, Run, RunName, RunScan, RunWriter};
use crate::index::shelf::{Basis, RunInfo};
use crate::index::sorted::{order, sorted};
use crate::index::{Index, IndexEntry};
use crate::log::Lsn;
use crate::log::commit::Stage;
use crate::log::segment::Segment;

/// So many runs of about one size are merged into one, or up to twice as many: each entry is written
/// about once for each time the feed grows by this factor, and a look-up asks a few filters.
const MERGED: usize = 4;
/// With more runs than this a writer waits until some are merged.
const RUNS_MAX: usize = 24;

/// How much of the memory budget one feed may use, in bytes of entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// An index that is larger goes into runs.
    pub(crate) resident: usize,
    /// So much of it stays in memory at most.
    pub(crate) delta: usize,
}

impl Limits {
    /// The share of a budget.
    pub(crate) fn of(budget: usize) -> Self {
        const LEAST: usize = 1 << 20;
        Self {
            resident: (budget / 2).max(LEAST),
            delta: (budget / 8).max(LEAST),
        }
    }

    /// Sizes of runs are compared by their level: a run of the next level is as large as several.
    fn level(self, run: &Run) -> u32 {
        let full = (self.delta / size_of::<IndexEntry>()).max(1) as u64;
        (run.count() / full).max(1).ilog(MERGED as u64)
    }

    /// Which runs should be merged next, if any: neighbours of one size, the small ones first. `all`
    /// says to leave only one run.
    fn crowded(self, runs: &[Arc<Run>], all: bool) -> Range<usize> {
        let sizes: Vec<u32> = runs.iter().map(|run| self.level(run)).collect();
        let mut end = sizes.len();
        for group in sizes.chunk_by(|one, next| one == next).rev() {
            let start = end - group.len();
            if group.len() >= MERGED {
                return start..end.min(start + 2 * MERGED);
            }
            end = start;
        }
        match all && sizes.len() > 1 {
            true => sizes.len().saturating_sub(2 * MERGED)..sizes.len(),
            false => 0..0,
        }
    }
}

/// A feed's frames as the index is built from them, and what that rests on.
struct Sources {
    frames: Vec<(FrameRef, Arc<Segment>)>,
    lsn: Lsn,
    basis: Basis,
}

impl Engine {
    /// Makes sure that the feed's index is in memory, as far as it has room there.
    pub(crate) fn load_index(&self, feed: &Arc<FeedState>) -> Result<()> {
        self.budget.touch(feed);
        if feed.index.read().index.is_some() {
            return Ok(());
        }
        let mut resident = feed.index.write();
        if resident.index.is_some() {
            return Ok(());
        }
        let sources = self.sources(feed)?;
        let index = match self.build_index(feed.stream(), &sources) {
            Err(error) if self.is_of_index(&error) => {
                // Derived data: it is derived again.
                self.shelf.lock().forget(feed.stream());
                self.build_index(feed.stream(), &sources)?
            }
            built => built?,
        };
        resident.index = Some(index);
        // What the feed's trail holds is counted when its writer is done.
        self.budget.resize(feed, resident.memory());
        drop(resident);
        self.budget.enforce(feed);
        Ok(())
    }

    /// Merges an index's delta into its base when it has grown enough: behind the commit's sync if
    /// there is one to wait for, and a thread that has the time. To be called with the feed's write
    /// turn, which that thread needs too.
    pub(crate) fn maintain_index(&self, feed: &Arc<FeedState>, index: &mut Index) {
        if !index.is_due(1) {
            return;
        }
        let waits = self.log.acknowledged_stage() == Stage::Durable;
        let behind = self.options.background && waits && !index.is_due(2);
        if !behind || self.unmerged.0.try_send(feed.clone()).is_err() {
            index.maintain();
        }
    }

    /// Does what [`Engine::maintain_index`] has left for later.
    pub(crate) fn maintain_behind(&self, feed: &Arc<FeedState>) {
        // A writer remembers slots of the index while it classifies.
        let writer = feed.writer.lock();
        let mut resident = feed.index.write();
        if let Some(index) = &mut resident.index {
            index.maintain();
            self.note_memory(feed, &writer, &resident);
        }
    }

    /// Tells the budget how much memory a feed's index and trail take now.
    pub(crate) fn note_memory(&self, feed: &Arc<FeedState>, writer: &Writer, resident: &Resident) {
        let trail = writer.trail.memory();
        self.budget.resize(feed, resident.memory() + trail);
    }

    /// Drops an index whose runs turned out to be damaged; it is derived again from the log. False
    /// when the error is another one, or commits in the queue are known to the index alone.
    pub(crate) fn drop_damaged_index(&self, feed: &Arc<FeedState>, error: &Error) -> bool {
        if !self.is_of_index(error) {
            return false;
        }
        let mut resident = feed.index.write();
        let dropped = resident.drop_settled(feed.published.read().lsn);
        if dropped {
            // Together with the index: what is added to the shelf goes on from what is there.
            self.shelf.lock().forget(feed.stream());
            self.budget.resize(feed, 0);
        }
        dropped
    }

    fn is_of_index(&self, error: &Error) -> bool {
        matches!(error, Error::Corrupt { path, .. } if path.starts_with(&self.index_dir))
    }

    fn sources(&self, feed: &FeedState) -> Result<Sources> {
        let options = self.compared_under(feed);
        let published = feed.published.read();
        let (lsn, basis) = self.rests_on(&published, options);
        let frames = published.directory.iter();
        let visible = frames.filter(|f| f.live_count > 0 && f.lsn <= lsn);
        // Under the lock: compaction may replace them any time after.
        let frames = visible
            .map(|frame| Ok((frame.clone(), self.log.segment_of(frame)?)))
            .collect::<Result<_>>()?;
        Ok(Sources { frames, lsn, basis })
    }

    /// Stands for the options under which the feed's contents are taken for equal.
    fn compared_under(&self, feed: &FeedState) -> u64 {
        let options = self.registration(feed.id).map(|known| known.options);
        let names = options.unwrap_or_default().ignored_fields.join("\0");
        self.hasher.content(names.as_bytes()).head()
    }

    fn build_index(&self, stream: StreamId, sources: &Sources) -> Result<Index> {
        let Sources { frames, lsn, basis } = sources;
        let limits = self.options.index_limits();
        let infos = self.shelf.lock().of(stream, *basis, *lsn);
        let covered = infos.last().map_or(Lsn(0), |info| info.lsn);
        let name = |id| self.run_name(stream, id);
        let open = |info: &RunInfo| {
            let storage = self.options.storage.as_ref();
            let cipher = self.log.cipher();
            Run::open(storage, &self.index_dir, name(info.id), cipher).map(Arc::new)
        };
        let mut runs: Vec<Arc<Run>> = infos.iter().map(open).collect::<Result<_>>()?;
        let newer = || frames.iter().filter(|(frame, _)| frame.lsn > covered);
        let live: usize = newer().map(|(frame, _)| frame.live_count as usize).sum();
        let room = live * size_of::<IndexEntry>();
        let paged = !runs.is_empty() || room > limits.resident;
        let room = if paged { room.min(limits.delta) } else { room };
        let mut entries = Vec::with_capacity(room / size_of::<IndexEntry>());
        for (frame, segment) in newer() {
            read_entries(frame, segment, &mut entries)?;
            if paged && size_of_val(&*entries) >= limits.delta {
                let info = RunInfo {
                    id: self.shelf.lock().new_id(),
                    lsn: frame.lsn,
                    basis: *basis,
                };
                let count = entries.len() as u64;
                let all = sorted(&entries).into_iter().map(Ok);
                runs.push(self.write_run(name(info.id), count, all)?);
                self.shelf.lock().add(stream, info);
                entries.clear();
                while let Some((place, merged)) = self.merge_crowded(stream, &runs, false)? {
                    let ids: Vec<u64> = runs[place.clone()].iter().map(|run| run.id()).collect();
                    self.shelf.lock().replace(stream, &ids, merged.id());
                    runs.splice(place, [merged]);
                }
            }
        }
        Ok(match runs.is_empty() {
            true => Index::build(&entries),
            false => Index::paged(runs, &entries),
        })
    }

    /// Up to where a feed is published, and what an index of it rests on besides.
    fn rests_on(&self, published: &Published, options: u64) -> (Lsn, Basis) {
        let removals = match self.options.defects.has(Defect::KeepStaleRuns) {
            true => 0,
            false => published.marks.removals,
        };
        (published.lsn, Basis { removals, options })
    }

    pub(crate) fn run_name(&self, stream: StreamId, id: u64) -> RunName {
        RunName {
            store: self.log.identity().store,
            stream,
            id,
        }
    }

    /// Writes a run of entries in order, `count` of them at most.
    fn write_run(
        &self,
        name: RunName,
        count: u64,
        entries: impl Iterator<Item = Result<IndexEntry>>,
    ) -> Result<Arc<Run>> {
        let storage = self.options.storage.as_ref();
        let failed = |error| Error::io("create", &self.index_dir, error);
        storage.create_dir_all(&self.index_dir).map_err(failed)?;
        let mut run = RunWriter::create(storage, &self.index_dir, name, count, self.log.cipher())?;
        for entry in entries {
            run.push(&entry?)?;
        }
        run.finish().map(Arc::new)
    }

    /// Whether so much of the feed's index is in memory that it should be spilled.
    pub(crate) fn index_outgrown(&self, feed: &FeedState) -> bool {
        let limits = self.options.index_limits();
        let resident = feed.index.read();
        resident.index.as_ref().is_some_and(|index| {
            let limit = match index.runs().is_empty() {
                true => limits.resident,
                false => limits.delta,
            };
            index.spillable() > limit
        })
    }

    /// Puts what is in memory of the feed's index into a run. The caller has the feed's write turn,
    /// and everything of the feed is published.
    pub(crate) fn spill_index(&self, feed: &Arc<FeedState>) -> Result<()> {
        let stream = feed.stream();
        let resident = feed.index.read();
        let Some(index) = resident.index.as_ref() else {
            return Ok(());
        };
        let options = self.compared_under(feed);
        let (lsn, basis) = self.rests_on(&feed.published.read(), options);
        let id = self.shelf.lock().new_id();
        let info = RunInfo { id, lsn, basis };
        let count = index.len() as u64;
        let name = self.run_name(stream, info.id);
        let run = self.write_run(name, count, index.in_order().map(Ok))?;
        drop(resident);
        let mut resident = feed.index.write();
        // Runs may have been merged meanwhile; nothing new has come in.
        let mut runs = match &resident.index {
            Some(index) => index.runs().to_vec(),
            None => return Ok(()),
        };
        runs.push(run);
        let wait = runs.len() > RUNS_MAX || !self.options.background;
        self.shelf.lock().add(stream, info);
        resident.index = Some(Index::paged(runs, &[]));
        self.budget.resize(feed, resident.memory());
        drop(resident);
        // Mostly somebody else is at it already; then this only waits.
        while wait && self.tidy_index(feed, false)? {}
        Ok(())
    }

    /// Merges runs of the feed if there are many of one size, or `all` of them; false when there is
    /// nothing to do. Takes no lock of the feed while it works.
    pub(crate) fn tidy_index(&self, feed: &Arc<FeedState>, all: bool) -> Result<bool> {
        // One at a time, so that nothing is merged twice.
        let _merging = self.merging.lock();
        let runs = match &feed.index.read().index {
            Some(index) => index.runs().to_vec(),
            None => return Ok(false),
        };
        let Some((place, merged)) = self.merge_crowded(feed.stream(), &runs, all)? else {
            return Ok(false);
        };
        let ids: Vec<u64> = runs[place].iter().map(|run| run.id()).collect();
        let mut resident = feed.index.write();
        if !self.shelf.lock().replace(feed.stream(), &ids, merged.id()) {
            // The feed has let go of them meanwhile.
            drop(resident);
            let path = run::path_of(&self.index_dir, merged.id());
            let removed = self.options.storage.remove(&path);
            removed.map_err(|error| Error::io("remove", &path, error))?;
            return Ok(false);
        }
        if let Some(index) = &mut resident.index {
            index.replace_runs(&ids, merged);
        }
        Ok(true)
    }

    /// Merges runs of all feeds that have many.
    pub(crate) fn tidy_indexes(&self, all: bool) -> Result<()> {
        let streams = self.shelf.lock().streams();
        for stream in streams {
            let feed = self.feeds.lock().streams.get(&stream).cloned();
            if let Some(feed) = feed {
                while self.tidy_index(&feed, all)? {
                    self.check_not_closed()?;
                }
            }
        }
        Ok(())
    }

    /// Merges some of the runs, if there are too many: which ones, and the merged run.
    fn merge_crowded(
        &self,
        stream: StreamId,
        runs: &[Arc<Run>],
        all: bool,
    ) -> Result<Option<(Range<usize>, Arc<Run>)>> {
        let place = self.options.index_limits().crowded(runs, all);
        let group = &runs[place.clone()];
        if group.is_empty() {
            return Ok(None);
        }
        let count = group.iter().map(|run| run.count()).sum();
        let mut merge = Merge::of(group)?;
        let entries = std::iter::from_fn(|| merge.next().transpose());
        let name = self.run_name(stream, self.shelf.lock().new_id());
        let merged = self.write_run(name, count, entries)?;
        Ok(Some((place, merged)))
    }
}

/// Several runs read as one: of a key that more than one has, the newest run's entry.
struct Merge<'a> {
    /// Oldest first.
    scans: Vec<(Option<IndexEntry>, RunScan<'a>)>,
}

impl<'a> Merge<'a> {
    fn of(runs: &'a [Arc<Run>]) -> Result<Self> {
        let begin = |run: &'a Arc<Run>| {
            let mut scan = run.scan();
            Ok((scan.next()?, scan))
        };
        let scans = runs.iter().map(begin).collect::<Result<_>>()?;
        Ok(Self { scans })
    }

    fn next(&mut self) -> Result<Option<IndexEntry>> {
        let mut least: Option<IndexEntry> = None;
        for (entry, _) in &self.scans {
            // Later ones are newer, so they go first where keys are the same.
            if let Some(entry) = entry
                && least.is_none_or(|least| order(entry) <= order(&least))
            {
                least = Some(*entry);
            }
        }
        if let Some(least) = least {
            for (entry, scan) in &mut self.scans {
                if entry.is_some_and(|entry| entry.key == least.key) {
                    *entry = scan.next()?;
                }
            }
        }
        Ok(least)
    }
}
