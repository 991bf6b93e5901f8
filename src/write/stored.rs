//! Stored versions that a write has to look at: payloads to compare and merge, earlier lives to
//! carry on.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::feed::lives::Lives;
use crate::feed::read::{Bodies, Span};
use crate::log::commit::Stage;
use crate::write::turn::FeedTurn;

/// Versions by position.
#[derive(Default)]
pub(crate) struct Stored {
    buffer: Vec<u8>,
    rows: HashMap<u64, StoredRow>,
}

struct StoredRow {
    first_seen: u64,
    lives: Range<usize>,
    body: Range<usize>,
}

impl Stored {
    fn insert(&mut self, position: u64, first_seen: u64, lives: &[u8], body: &[u8]) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(lives);
        let end = self.buffer.len();
        self.buffer.extend_from_slice(body);
        let row = StoredRow {
            first_seen,
            lives: start..end,
            body: end..self.buffer.len(),
        };
        self.rows.insert(position, row);
    }

    /// The payload at `position`.
    pub(crate) fn payload(&self, position: u64) -> &[u8] {
        let row = self.rows.get(&position);
        row.and_then(|row| self.buffer.get(row.body.clone()))
            .unwrap_or_default()
    }

    /// The lives before the one that the version at `position` belongs to.
    pub(crate) fn lives(&self, position: u64) -> Lives {
        let row = self.rows.get(&position);
        row.and_then(|row| Lives::decode(row.first_seen, self.buffer.get(row.lives.clone())?))
            .unwrap_or_default()
    }
}

impl FeedTurn<'_> {
    /// Reads stored versions, also those of commits on their way to the disk.
    pub(crate) fn stored(&self, mut positions: Vec<u64>, bodies: bool) -> Result<Stored> {
        positions.sort_unstable();
        positions.dedup();
        let mut stored = Stored::default();
        for frame in &self.changes.frames {
            for position in &positions {
                if let Some((entry, id, body)) = frame.record_at(*position) {
                    let behind = Lives::behind(&entry, id);
                    match entry.plain_len {
                        0 => stored.insert(*position, entry.first_seen, behind, body),
                        len => {
                            let mut plain = Vec::new();
                            let decoded = self.feed.codec.decode(body, len, &mut plain);
                            decoded.map_err(|error| error.at(&self.engine.path, 0))?;
                            stored.insert(*position, entry.first_seen, behind, &plain);
                        }
                    }
                }
            }
        }
        positions.retain(|position| !stored.rows.contains_key(position));
        self.await_written(&positions)?;
        let spans = {
            let published = self.feed.published.read();
            let mut spans = Vec::new();
            let mut rest = positions.as_slice();
            while let Some(first) = rest.first() {
                let Some(frame) = published.directory.find(*first) else {
                    let path = &self.engine.path;
                    return Err(Error::corrupt(path, 0, "a stored record is in no frame"));
                };
                let (here, later) = rest.split_at(rest.partition_point(|at| *at < frame.end()));
                let wanted = here.iter().map(|at| (at - frame.first) as u32).collect();
                spans.push(Span::new(&self.engine.log, frame, wanted)?);
                rest = later;
            }
            spans
        };
        let (mut table, mut located, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for span in spans {
            located.clear();
            span.locate(&mut table, &mut located)?;
            let bodies = match bodies {
                true => Bodies::Plain(&self.feed.codec),
                false => Bodies::Skipped,
            };
            span.load(&located, bodies, &mut stored.buffer, &mut rows)?;
            let rows = located.iter().zip(rows.drain(..));
            stored.rows.extend(rows.map(|(record, row)| {
                let stored = StoredRow {
                    first_seen: record.entry.first_seen,
                    lives: row.lives,
                    body: row.body,
                };
                (record.position, stored)
            }));
        }
        Ok(stored)
    }

    /// Waits until the versions at `positions` are in the log's files, whether visible or not.
    fn await_written(&self, positions: &[u64]) -> Result<()> {
        let Some(last) = positions.last() else {
            return Ok(());
        };
        let placed = {
            let published = self.feed.published.read();
            published.directory.frames().last().map_or(0, |f| f.end())
        };
        if *last < placed {
            return Ok(());
        }
        let newest = self.writer.newest.as_ref();
        newest.map_or(Ok(()), |ticket| {
            self.engine.log.wait(ticket, Stage::Written)
        })
    }
}
