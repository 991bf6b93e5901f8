//! What a feed must hold: which record changed when, kept beside the engine.

use anyhow::{Result, ensure};

use crate::cache::{Action, Cache, Record};

/// The expected feed of `records`.
pub(crate) struct Model {
    /// The place of each record's newest change and what it was; `None` before it was saved.
    newest: Vec<Option<(u64, Action)>>,
    changes: u64,
}

/// A checksum of live records with their actions in the feed's order.
pub(crate) type Checksum = String;

impl Model {
    /// The empty feed.
    pub(crate) fn new(records: usize) -> Self {
        Self {
            newest: vec![None; records],
            changes: 0,
        }
    }

    /// Notes that a record was changed.
    pub(crate) fn change(&mut self, record: usize, action: Action) {
        self.changes += 1;
        self.newest[record] = Some((self.changes, action));
    }

    /// How many records are live.
    pub(crate) fn live(&self) -> usize {
        self.order().len()
    }

    /// The live records in the feed's order.
    fn order(&self) -> Vec<(u64, usize, Action)> {
        let place = |(record, newest): (usize, &Option<(u64, Action)>)| {
            let (place, action) = (*newest)?;
            (action != Action::Deleted).then_some((place, record, action))
        };
        let mut order: Vec<_> = self.newest.iter().enumerate().filter_map(place).collect();
        order.sort_unstable_by_key(|(place, ..)| *place);
        order
    }

    /// Drains a feed and compares it with what it must hold.
    pub(crate) fn check<C: Cache>(
        &self,
        cache: &C,
        feed: &C::Feed,
        records: &[Record],
    ) -> Result<Checksum> {
        let mut expected = blake3::Hasher::new();
        for (_, record, action) in self.order() {
            let (id, body) = &records[record];
            add(&mut expected, id.as_bytes(), body, action);
        }
        let (mut found, mut count) = (blake3::Hasher::new(), 0);
        let (mut after, mut has_more) = (None, true);
        while has_more {
            let page = cache.page(feed, after, 1000, &mut |shown| {
                if shown.action != Action::Deleted {
                    add(&mut found, shown.id, shown.body, shown.action);
                    count += 1;
                }
            })?;
            (after, has_more) = (Some(page.resume), page.has_more);
        }
        let live = self.live();
        ensure!(count == live, "the feed holds {count} records, not {live}");
        let (expected, found) = (expected.finalize(), found.finalize());
        ensure!(found == expected, "the feed holds other records");
        Ok(found.to_hex()[..16].to_owned())
    }
}

fn add(hasher: &mut blake3::Hasher, id: &[u8], body: &[u8], action: Action) {
    // Ids have one length, so the parts cannot run into one another.
    hasher.update(id).update(body).update(&[action as u8]);
}
