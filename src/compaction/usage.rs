//! How full the files of the log are, and which of them are worth replacing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::encryption::same_key;
use crate::engine::Engine;
use crate::error::Result;
use crate::feed::directory::Directory;
use crate::log::segment::Segment;
use crate::log::{SegmentId, seal};

/// Compaction begins when the log is larger than what is needed by this part, ...
const EXCESS_MAX: f64 = 0.23;
/// ... goes on until it is larger by no more than this, ...
const EXCESS_LEFT: f64 = 0.17;
/// ... and does not hold itself back when it is larger by this.
const EXCESS_URGENT: f64 = 0.26;
/// A file that is needed to more than this part is not worth copying.
const NEEDED_MAX: f64 = 0.85;
/// What is needed is copied in steps of this part of it, and segments are no larger: what is being
/// written or copied takes space twice.
const STEP_PART: u64 = 16;
/// The least such step: a segment costs two syncs.
const STEP_MIN: u64 = 4 << 20;
/// A round ends with descriptions of whole feeds: so many times their length is copied at least, or
/// a quarter of what is needed.
const DESCRIBED_PART: u64 = 4;
/// A feed is scattered when it has at least this many frames ...
const SCATTERED_FRAMES: usize = 1024;
/// ... with fewer live records than this each.
const SCATTERED_RECORDS: u64 = 32;

/// See the module. What is damaged is not part of it.
pub(crate) struct Usage {
    /// Files that may be replaced: neither the segment that is being written to, nor what the
    /// catalog does not cover yet.
    files: Vec<File>,
    /// The length of all files, and what is needed of it.
    len: u64,
    needed: u64,
    step: u64,
    /// How much is copied in a round.
    most: u64,
    eager: bool,
}

struct File {
    segment: Arc<Segment>,
    len: u64,
    needed: u64,
    /// How many of its frames belong to scattered feeds.
    scattered: usize,
    /// How many files are newer.
    age: usize,
    /// Whether it is under another key than what is written now.
    outdated: bool,
}

/// What a round of compaction should do.
pub(crate) struct Plan {
    /// The files to replace by one; none when it is not worth it.
    pub(crate) victims: Vec<Arc<Segment>>,
    /// About how much is going to be copied.
    pub(crate) copied: u64,
    /// Whether it is about putting small frames together, or about keys, and not about space.
    pub(crate) gathers: bool,
    /// Whether there is so much to give back that writers may feel it.
    pub(crate) urgent: bool,
}

/// What directories tell of the files.
#[derive(Default)]
struct Needed {
    /// What encryption adds to each record, in bytes.
    sealing: u64,
    /// About how long feed frames are.
    described: u64,
    bytes: BTreeMap<SegmentId, u64>,
    scattered: BTreeMap<SegmentId, usize>,
}

impl Usage {
    /// With `covered`, as far as the catalog covers the log by now; else as if it covered all of it.
    pub(crate) fn of(
        engine: &Engine,
        damaged: &BTreeSet<SegmentId>,
        covered: bool,
    ) -> Result<Self> {
        let mut known = Needed {
            sealing: match engine.log.cipher() {
                Some(_) => seal::PER_RECORD,
                None => 0,
            },
            ..Needed::default()
        };
        engine.each_directory(|directory, pruned| known.add(directory, pruned))?;
        let mut segments = engine.log.segments();
        let open = segments.iter().map(|segment| segment.id());
        let open = open.filter(|id| !id.is_pack()).max();
        let end = match covered {
            true => Some(engine.catalog.lock().root.position().segment),
            false => open,
        };
        let len = segments.iter().map(|segment| segment.len());
        let len = len.sum::<Result<u64>>()?;
        let records = known.bytes.values().sum::<u64>();
        let needed = (records + known.described).min(len);
        segments.retain(|segment| segment.id().is_pack() || Some(segment.id()) < end);
        segments.retain(|segment| !damaged.contains(&segment.id()));
        segments.sort_by_key(|segment| segment.header.first_lsn);
        let count = segments.len();
        let file = |(at, segment): (usize, Arc<Segment>)| {
            let (id, len) = (segment.id(), segment.len()?);
            Ok(File {
                len,
                needed: known.bytes.get(&id).copied().unwrap_or(0).min(len),
                scattered: known.scattered.get(&id).copied().unwrap_or(0),
                age: count - at,
                outdated: !same_key(&segment.cipher, engine.log.cipher()),
                segment,
            })
        };
        let files = segments.into_iter().enumerate().map(file);
        let step = (needed / STEP_PART).max(STEP_MIN);
        let step = step.min(engine.options.segment_size);
        Ok(Self {
            files: files.collect::<Result<_>>()?,
            len,
            needed,
            step,
            most: step.max((DESCRIBED_PART * known.described).min(needed / 4)),
            eager: engine.options.compacts_eagerly(),
        })
    }

    /// How large a segment should be, so that what is dead in the open one does not weigh much.
    pub(crate) fn step(&self) -> u64 {
        self.step
    }

    /// How much longer the log may get before there is something to do, less a step: it gets longer by
    /// whole ones before anybody looks.
    pub(crate) fn room(&self) -> u64 {
        let bound = (self.needed as f64 * (1.0 + EXCESS_MAX)) as u64;
        bound.saturating_sub(self.len + self.step)
    }

    fn is_over(&self, len: u64, part: f64) -> bool {
        len as f64 > self.needed as f64 * (1.0 + part)
    }

    /// The next round. What is freed is weighed against what is copied, and by age, because what
    /// is old is likely to stay: the cost-benefit policy of the log-structured file system
    /// (Rosenblum and Ousterhout, 1991), with the root of the age, since files of the hot part of a
    /// store empty within a few others. With `spent`, only small frames are put together.
    pub(crate) fn plan(mut self, spent: bool) -> Plan {
        let urgent = self.is_over(self.len, EXCESS_URGENT);
        let mut files = std::mem::take(&mut self.files);
        if files.iter().any(|file| file.outdated) {
            return self.renew(files);
        }
        if self.eager && spent {
            files.clear();
        }
        if self.eager {
            files.sort_by_key(|file| file.segment.id());
            return Plan::new(files, false, urgent);
        }
        let dead: u64 = files.iter().map(|file| file.len - file.needed).sum();
        if spent || !self.is_over(self.len, EXCESS_MAX) || dead < self.step / 2 {
            return self.gather(files);
        }
        files.sort_by(|a, b| b.score().total_cmp(&a.score()));
        let (mut copied, mut len) = (0, self.len);
        let is_worth_it = |file: &mut File| {
            let worth = file.needed as f64 <= file.len as f64 * NEEDED_MAX;
            let room = copied == 0 || copied + file.needed <= self.most;
            let chosen = file.needed == 0 || (worth && room && self.is_over(len, EXCESS_LEFT));
            if chosen {
                len -= file.len - file.needed;
                copied += file.needed;
            }
            chosen
        };
        let victims: Vec<File> = files.extract_if(.., is_worth_it).collect();
        match victims.is_empty() {
            true => self.gather(files),
            false => Plan::new(victims, false, urgent),
        }
    }

    /// Rewrites files that are under an older key, in the order of the log, whatever they are worth.
    fn renew(&self, mut files: Vec<File>) -> Plan {
        files.retain(|file| file.outdated);
        files.truncate(self.fitting(&files));
        Plan::new(files, true, false)
    }

    /// How many files, from the first on, are copied in one round.
    fn fitting(&self, files: &[File]) -> usize {
        let mut copied = 0;
        let room = |file: &&File| {
            copied += file.needed;
            copied == file.needed || copied <= self.most
        };
        files.iter().take_while(room).count()
    }

    /// Rewrites segments, oldest first, whose frames are too many and too small. Packs are left
    /// alone, so it ends.
    fn gather(&self, mut files: Vec<File>) -> Plan {
        files.retain(|file| file.scattered > 0 && !file.segment.id().is_pack());
        if files.iter().map(|file| file.scattered).sum::<usize>() < SCATTERED_FRAMES {
            return Plan::new(Vec::new(), true, false);
        }
        // Neighbours go together, for a packed frame does not reach over what is left alone.
        files.truncate(self.fitting(&files));
        Plan::new(files, true, false)
    }
}

impl Plan {
    fn new(files: Vec<File>, gathers: bool, urgent: bool) -> Self {
        Self {
            copied: files.iter().map(|file| file.needed).sum(),
            victims: files.into_iter().map(|file| file.segment).collect(),
            gathers,
            urgent,
        }
    }
}

impl Needed {
    fn add(&mut self, frames: &Directory, pruned_through: u64) {
        let shown = || frames.iter().filter(|frame| frame.live_count > 0);
        let live: u64 = shown().map(|frame| u64::from(frame.live_count)).sum();
        let count = shown().count();
        if count >= SCATTERED_FRAMES && live < SCATTERED_RECORDS * count as u64 {
            for frame in shown() {
                *self.scattered.entry(frame.segment).or_default() += 1;
            }
        }
        for frame in frames.iter() {
            self.described += frame.described_len();
            *self.bytes.entry(frame.segment).or_default() +=
                frame.needed_len(pruned_through, self.sealing);
        }
    }
}

impl File {
    fn score(&self) -> f64 {
        // A file of which nothing is needed is not infinitely better than one of which little is.
        let needed = self.needed.max(self.len / 64).max(1) as f64;
        (self.len - self.needed) as f64 / needed * (self.age as f64).sqrt()
    }
}
