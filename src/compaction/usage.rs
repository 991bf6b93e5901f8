//! How full the files of the log are, and which of them are worth replacing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Result;
use crate::log::SegmentId;
use crate::log::segment::Segment;

/// Compaction begins when the log is larger than what is needed by this part, ...
const EXCESS_MAX: f64 = 0.20;
/// ... and goes on until it is larger by no more than this.
const EXCESS_LEFT: f64 = 0.10;
/// A file that is needed to more than this part is not worth copying.
const NEEDED_MAX: f64 = 0.85;
/// At least this much of what is needed is copied in one round, as a part of the store: a round
/// ends with a look at whole feeds, which must not cost more than the copying.
const ROUND_PART: u64 = 16;

/// See the module. The segment that is being written to, whatever the catalog does not cover yet,
/// and what is damaged, is not part of it.
pub(crate) struct Usage {
    files: Vec<File>,
    segment_size: u64,
    eager: bool,
}

struct File {
    segment: Arc<Segment>,
    len: u64,
    needed: u64,
    /// How many files are newer.
    age: usize,
}

impl Usage {
    pub(crate) fn of(engine: &Engine, damaged: &BTreeSet<SegmentId>) -> Result<Self> {
        let needed = needed(engine)?;
        let covered = engine.catalog.lock().root.position().segment;
        let mut segments = engine.log.segments();
        segments.retain(|segment| segment.id().is_pack() || segment.id() < covered);
        segments.retain(|segment| !damaged.contains(&segment.id()));
        segments.sort_by_key(|segment| segment.header.first_lsn);
        let count = segments.len();
        let file = |(at, segment): (usize, Arc<Segment>)| {
            let len = segment.len()?;
            let needed = needed.get(&segment.id()).copied().unwrap_or(0).min(len);
            Ok(File {
                segment,
                len,
                needed,
                age: count - at,
            })
        };
        let files = segments.into_iter().enumerate().map(file);
        Ok(Self {
            files: files.collect::<Result<_>>()?,
            segment_size: engine.options.segment_size,
            eager: engine.options.compacts_eagerly(),
        })
    }

    /// The files that a round of compaction should replace by one; none when it is not worth it.
    ///
    /// What is freed is weighed against what is copied, and by age, because what is old is likely
    /// to stay: the cost-benefit policy of the log-structured file system (Rosenblum and Ousterhout,
    /// 1991).
    pub(crate) fn victims(mut self) -> Vec<Arc<Segment>> {
        if self.eager {
            return self.files.into_iter().map(|file| file.segment).collect();
        }
        let sum = |of: fn(&File) -> u64| self.files.iter().map(of).sum::<u64>();
        let (needed, mut len) = (sum(|file| file.needed), sum(|file| file.len));
        let over = |len: u64, part: f64| len as f64 > needed as f64 * (1.0 + part);
        if !over(len, EXCESS_MAX) || len - needed < self.segment_size / 2 {
            return Vec::new();
        }
        self.files.sort_by(|a, b| b.score().total_cmp(&a.score()));
        let most = self.segment_size.max(needed / ROUND_PART);
        let (mut victims, mut copied) = (Vec::new(), 0);
        for file in self.files {
            let worth = file.needed as f64 <= file.len as f64 * NEEDED_MAX;
            let room = copied == 0 || copied + file.needed <= most;
            if file.needed == 0 || (worth && room && over(len, EXCESS_LEFT)) {
                len -= file.len - file.needed;
                copied += file.needed;
                victims.push(file.segment);
            }
        }
        victims
    }
}

impl File {
    fn score(&self) -> f64 {
        let part = self.needed as f64 / self.len.max(1) as f64;
        (1.0 - part) * self.age as f64 / (1.0 + part)
    }
}

/// How many bytes of every file are needed, as far as directories tell.
fn needed(engine: &Engine) -> Result<BTreeMap<SegmentId, u64>> {
    let mut needed = BTreeMap::new();
    engine.each_directory(|frames, pruned_through| {
        for frame in frames {
            *needed.entry(frame.segment).or_default() += frame.needed_len(pruned_through);
        }
    })?;
    Ok(needed)
}
