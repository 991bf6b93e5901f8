//! The store's small state: feed registrations, checkpoints, connection metadata, runs, consumers.
//! It is held in memory whole, changed by state frames in the log, and saved in the catalog.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::codec::{Decoder, Encoder};
use crate::cursor::{FIRST_EPOCH, FeedId, StreamId};
use crate::feed::FeedKey;
use crate::log::commit::{Stage, Ticket};
use crate::log::format::SyncId;
use crate::options::FeedOptions;
use crate::primitives::{Mutex, MutexGuard, RwLock};

const TABLE_FEED: u8 = 1;
const TABLE_CHECKPOINT: u8 = 2;
const TABLE_METADATA: u8 = 3;
const TABLE_SYNC: u8 = 4;
const TABLE_RUN: u8 = 5;
const TABLE_TALLY: u8 = 6;
const TABLE_CONSUMER: u8 = 7;
const TABLE_FEED_USE: u8 = 8;
#[cfg(feature = "sync")]
const TABLE_DOCUMENT: u8 = 9;
const TABLE_DICTIONARY: u8 = 10;
const TABLE_BRANCH: u8 = 11;

/// The encoded key of a state value: its table, then its fields.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct StateKey(Vec<u8>);

impl StateKey {
    pub(crate) fn feed(feed: FeedId) -> Self {
        Self(Encoder::default().u8(TABLE_FEED).u64(feed.0).finish())
    }

    pub(crate) fn checkpoint(connection: &str, sync: &str, variant: &str) -> Self {
        Self::named(TABLE_CHECKPOINT, &[connection, sync, variant])
    }

    pub(crate) fn metadata(connection: &str) -> Self {
        Self::named(TABLE_METADATA, &[connection])
    }

    /// What is known of a sync: the number of its newest run, and which runs are fenced.
    pub(crate) fn sync(connection: &str, sync: &str, variant: &str) -> Self {
        Self::named(TABLE_SYNC, &[connection, sync, variant])
    }

    /// Begins the keys of all runs of a sync.
    pub(crate) fn runs(connection: &str, sync: &str, variant: &str) -> Self {
        Self::named(TABLE_RUN, &[connection, sync, variant])
    }

    /// Begins the keys of all runs.
    pub(crate) fn all_runs() -> Self {
        Self(vec![TABLE_RUN])
    }

    /// A run of the sync whose runs have the key `runs`; later runs have greater keys.
    pub(crate) fn run(runs: &Self, run: u64) -> Self {
        let high_to_low = (0..8).rev().map(|byte| (run >> (8 * byte)) as u8);
        Self(runs.0.iter().copied().chain(high_to_low).collect())
    }

    /// What a run has done so far.
    pub(crate) fn tally(sync: SyncId, run: u64) -> Self {
        Self(
            Encoder::default()
                .u8(TABLE_TALLY)
                .u64(sync.0)
                .u64(run)
                .finish(),
        )
    }

    /// Begins the keys of all consumers of a feed.
    pub(crate) fn consumers(feed: FeedId) -> Self {
        Self(Encoder::default().u8(TABLE_CONSUMER).u64(feed.0).finish())
    }

    pub(crate) fn consumer(feed: FeedId, name: &str) -> Self {
        let mut key = Self::consumers(feed);
        key.0.extend_from_slice(name.as_bytes());
        key
    }

    /// When a run that used the feed last succeeded.
    pub(crate) fn feed_use(feed: FeedId) -> Self {
        Self(Encoder::default().u8(TABLE_FEED_USE).u64(feed.0).finish())
    }

    /// Begins the keys of the dictionaries of a feed.
    pub(crate) fn dictionaries(feed: FeedId) -> Self {
        Self(Encoder::default().u8(TABLE_DICTIONARY).u64(feed.0).finish())
    }

    /// What the payloads of one epoch of a feed are compressed with.
    pub(crate) fn dictionary(stream: StreamId) -> Self {
        let mut key = Self::dictionaries(stream.feed);
        key.0.extend_from_slice(&stream.epoch.to_le_bytes());
        key
    }

    /// Since when history goes on from a backup or a repair; see [`crate::branch`].
    pub(crate) fn branch() -> Self {
        Self(vec![TABLE_BRANCH])
    }

    /// A document of another part of this crate, such as a schedule; `parts` are its name.
    #[cfg(feature = "sync")]
    pub(crate) fn document(parts: &[&str]) -> Self {
        Self::named(TABLE_DOCUMENT, parts)
    }

    fn named(table: u8, parts: &[&str]) -> Self {
        let encoder = Encoder::default().u8(table);
        let parts = parts.iter().map(|part| part.as_bytes());
        Self(parts.fold(encoder, Encoder::bytes).finish())
    }

    /// The number of the run that this is the key of.
    pub(crate) fn run_number(&self) -> Option<u64> {
        let bytes = self
            .0
            .last_chunk::<8>()
            .filter(|_| self.0.first() == Some(&TABLE_RUN))?;
        Some(
            bytes
                .iter()
                .fold(0, |run, byte| run << 8 | u64::from(*byte)),
        )
    }

    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the key of a registration.
    pub(crate) fn is_feed(&self) -> bool {
        self.0.first() == Some(&TABLE_FEED)
    }

    /// The feed whose registration this is the key of.
    pub(crate) fn as_feed(&self) -> Option<FeedId> {
        let mut fields = Decoder::new(&self.0);
        (fields.u8()? == TABLE_FEED).then(|| fields.u64().map(FeedId))?
    }
}

/// A value that is put under a key, or removed. A cleared checkpoint is a value too, so that its
/// version goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct StateOp {
    pub(crate) key: StateKey,
    pub(crate) value: Option<Vec<u8>>,
}

impl StateOp {
    /// The payload of a state frame.
    pub(crate) fn encode_all(operations: &[Self]) -> Vec<u8> {
        let encoder = operations
            .iter()
            .fold(Encoder::default(), |encoder, operation| {
                let encoder = encoder.bytes(&operation.key.0);
                match &operation.value {
                    Some(value) => encoder.u8(1).bytes(value),
                    None => encoder.u8(0),
                }
            });
        encoder.finish()
    }

    /// Reads a state frame's payload; `None` when it is not `count` whole operations.
    pub(crate) fn decode_all(count: u32, bytes: &[u8]) -> Option<Vec<Self>> {
        let mut fields = Decoder::new(bytes);
        let mut operations = Vec::new();
        for _ in 0..count {
            let key = StateKey(fields.bytes()?.to_vec());
            let value = match fields.u8()? {
                0 => None,
                1 => Some(fields.bytes()?.to_vec()),
                _ => return None,
            };
            operations.push(Self { key, value });
        }
        fields.is_empty().then_some(operations)
    }
}

/// What the state knows of a feed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Registration {
    pub(crate) key: FeedKey,
    /// The epoch that readers see.
    pub(crate) epoch: u32,
    /// The newest epoch that was ever begun. When it is not the one that readers see, it was being
    /// filled to replace that one; it is given up when the store is opened again.
    pub(crate) newest_epoch: u32,
    pub(crate) options: FeedOptions,
}

impl Registration {
    pub(crate) fn new(key: FeedKey) -> Self {
        Self {
            key,
            epoch: FIRST_EPOCH,
            newest_epoch: FIRST_EPOCH,
            options: FeedOptions::default(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let names = &self.options.ignored_fields;
        let encoder = Encoder::default()
            .bytes(self.key.connection.as_bytes())
            .bytes(self.key.model.as_bytes())
            .bytes(self.key.variant.as_bytes())
            .u32(self.epoch)
            .u32(self.newest_epoch)
            .u8(u8::from(self.options.keep_pruned) | u8::from(self.options.track_owner) << 1)
            .u32(names.len() as u32);
        names
            .iter()
            .fold(encoder, |encoder, name| encoder.bytes(name.as_bytes()))
            .finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Decoder::new(bytes);
        let key = FeedKey {
            connection: fields.string()?,
            model: fields.string()?,
            variant: fields.string()?,
        };
        let (epoch, newest_epoch) = (fields.u32()?, fields.u32()?);
        let flags = fields.u8()?;
        let mut ignored_fields = Vec::new();
        for _ in 0..fields.u32()? {
            ignored_fields.push(fields.string()?);
        }
        let options = FeedOptions {
            ignored_fields,
            keep_pruned: flags & 1 != 0,
            track_owner: flags & 2 != 0,
        };
        fields.is_empty().then_some(Self {
            key,
            epoch,
            newest_epoch,
            options,
        })
    }
}

/// A checkpoint's row: the version goes on across clears, so that no version ever comes back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CheckpointRow {
    pub(crate) version: u64,
    pub(crate) json: Option<Vec<u8>>,
}

impl CheckpointRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let encoder = Encoder::default().u64(self.version);
        match &self.json {
            Some(json) => encoder.u8(1).bytes(json).finish(),
            None => encoder.u8(0).finish(),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Decoder::new(bytes);
        let version = fields.u64()?;
        let json = match fields.u8()? {
            0 => None,
            1 => Some(fields.bytes()?.to_vec()),
            _ => return None,
        };
        fields.is_empty().then_some(Self { version, json })
    }
}

/// Published values, and what writers have put into the queue on top of them.
#[derive(Default)]
pub(crate) struct State {
    published: RwLock<Published>,
    turn: Mutex<Queued>,
}

#[derive(Default)]
struct Published {
    values: BTreeMap<StateKey, Vec<u8>>,
    /// Changed since the catalog was last brought up to date.
    dirty: BTreeSet<StateKey>,
}

/// So few queued keys are not looked through for published values.
const CROWD_MIN: usize = 16;

type QueuedValue = (Arc<Ticket>, Option<Vec<u8>>);

/// Values on their way to the disk, newest last.
#[derive(Default)]
struct Queued {
    values: HashMap<StateKey, Vec<QueuedValue>>,
    /// With so many keys it is time to forget those whose values are published.
    crowd: usize,
}

impl State {
    /// The state as the catalog has it.
    pub(crate) fn restore(values: BTreeMap<StateKey, Vec<u8>>) -> Self {
        let published = Published {
            values,
            dirty: BTreeSet::new(),
        };
        Self {
            published: RwLock::new(published),
            turn: Mutex::default(),
        }
    }

    /// The published value.
    pub(crate) fn get(&self, key: &StateKey) -> Option<Vec<u8>> {
        self.published.read().values.get(key).cloned()
    }

    /// The published values whose keys begin with `prefix`, in the order of their keys.
    pub(crate) fn with_prefix(&self, prefix: &StateKey) -> Vec<(StateKey, Vec<u8>)> {
        let published = self.published.read();
        let from = published.values.range(prefix.clone()..);
        let these = from.take_while(|(key, _)| key.0.starts_with(&prefix.0));
        these
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Everything, as operations that put it.
    pub(crate) fn all(&self) -> Vec<StateOp> {
        let all = self.with_prefix(&StateKey(Vec::new())).into_iter();
        let put = |(key, value)| StateOp {
            key,
            value: Some(value),
        };
        all.map(put).collect()
    }

    /// All registrations, in no order.
    pub(crate) fn registrations(&self) -> Vec<Registration> {
        let published = self.published.read();
        let feeds = published.values.iter().filter(|(key, _)| key.is_feed());
        feeds
            .filter_map(|(_, value)| Registration::decode(value))
            .collect()
    }

    /// Applies operations that are durable.
    pub(crate) fn publish(&self, operations: &[StateOp]) {
        let mut published = self.published.write();
        for operation in operations {
            match &operation.value {
                Some(value) => published
                    .values
                    .insert(operation.key.clone(), value.clone()),
                None => published.values.remove(&operation.key),
            };
            published.dirty.insert(operation.key.clone());
        }
    }

    /// What changed since the last call, for the catalog; all values there are when `whole`.
    pub(crate) fn changes(&self, whole: bool) -> Vec<StateOp> {
        let mut published = self.published.write();
        let dirty = std::mem::take(&mut published.dirty);
        let operation = |key: &StateKey| StateOp {
            key: key.clone(),
            value: published.values.get(key).cloned(),
        };
        if whole {
            published.values.keys().map(operation).collect()
        } else {
            dirty.iter().map(operation).collect()
        }
    }

    /// Takes the right to change values; held until the change is in the commit queue, so that
    /// concurrent read-modify-writes line up.
    pub(crate) fn turn(&self) -> StateTurn<'_> {
        StateTurn {
            state: self,
            queued: self.turn.lock(),
        }
    }
}

/// The right to change values. Sees what other writers have put into the queue.
pub(crate) struct StateTurn<'a> {
    state: &'a State,
    queued: MutexGuard<'a, Queued>,
}

impl StateTurn<'_> {
    /// The newest value, published or queued.
    pub(crate) fn get(&mut self, key: &StateKey) -> Option<Vec<u8>> {
        if let Some(queued) = self.queued.values.get_mut(key) {
            queued.retain(|(ticket, _)| !ticket.is_aborted());
            if let Some((_, value)) = queued.last() {
                return value.clone();
            }
        }
        self.state.get(key)
    }

    /// Remembers operations that are in the queue now, and forgets those that are published.
    pub(crate) fn queued(&mut self, operations: &[StateOp], ticket: &Arc<Ticket>) {
        let Queued { values, crowd } = &mut *self.queued;
        let forget_published = |queue: &mut Vec<QueuedValue>| {
            queue.retain(|(ticket, _)| !ticket.reached(Stage::Durable));
        };
        if values.len() >= *crowd {
            values.retain(|_, queue| {
                forget_published(queue);
                !queue.is_empty()
            });
            // Looking through all of them each time would take longer the more there are.
            *crowd = 2 * values.len().max(CROWD_MIN);
        }
        for operation in operations {
            let queue = values.entry(operation.key.clone()).or_default();
            forget_published(queue);
            queue.push((ticket.clone(), operation.value.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_and_rows_round_trip() {
        let registration = Registration {
            key: FeedKey::new("c", "m", "v").unwrap(),
            epoch: 3,
            newest_epoch: 4,
            options: FeedOptions::new()
                .ignored_fields(["b", "a", "b"])
                .track_owner(true),
        };
        assert_eq!(
            Registration::decode(&registration.encode()),
            Some(registration.clone())
        );
        let row = CheckpointRow {
            version: 9,
            json: Some(b"{}".to_vec()),
        };
        assert_eq!(CheckpointRow::decode(&row.encode()), Some(row.clone()));
        let operations = vec![
            StateOp {
                key: StateKey::feed(FeedId(1)),
                value: Some(registration.encode()),
            },
            StateOp {
                key: StateKey::checkpoint("c", "s", ""),
                value: Some(row.encode()),
            },
            StateOp {
                key: StateKey::metadata("c"),
                value: None,
            },
        ];
        let bytes = StateOp::encode_all(&operations);
        assert_eq!(StateOp::decode_all(3, &bytes), Some(operations));
        for len in 0..bytes.len() {
            assert_eq!(StateOp::decode_all(3, &bytes[..len]), None);
        }
    }

    #[test]
    fn keys_do_not_run_into_each_other() {
        assert_ne!(
            StateKey::checkpoint("ab", "c", ""),
            StateKey::checkpoint("a", "bc", "")
        );
        assert_ne!(
            StateKey::checkpoint("a", "b", "c"),
            StateKey::checkpoint("a", "bc", "")
        );
    }
}
