//! Branches of a store's history. A store that was restored from a backup, or repaired, goes on from
//! an earlier state than its cursors may know: what was handed out for later changes must not be
//! given to others, and whoever has seen those must be told.
//!
//! So it begins a branch, with a [generation](crate::log::commit::POSITION_JUMP) that is greater by
//! far. Every feed's next change skips as many positions as no store gives out between two backups,
//! and carries a [mark](crate::feed::marks::Mark::Forked) of where; cursors in between are refused.

use crate::codec::{Decoder, Encoder};
use crate::engine::Engine;
use crate::error::Result;
use crate::log::format::Author;
use crate::state::StateKey;
use crate::write::transaction::transact;

/// By how much the generation rises with a branch: 2^32 positions of each feed.
pub(crate) const BRANCH_GENERATIONS: u64 = 1 << 8;

/// A branch of a store's history; the default is the one it began with.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Branch {
    /// The generation of the log it begins with.
    pub(crate) generation: u32,
    /// Tells branches apart that begin with the same one.
    pub(crate) id: [u8; 8],
}

impl Branch {
    pub(crate) fn encode(self) -> Vec<u8> {
        Encoder::default()
            .u32(self.generation)
            .array(&self.id)
            .finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Decoder::new(bytes);
        let branch = Self {
            generation: fields.u32()?,
            id: fields.array()?,
        };
        fields.is_empty().then_some(branch)
    }

    /// The branch that the store is on, as its state says.
    pub(crate) fn of(engine: &Engine) -> Self {
        let value = engine.state.get(&StateKey::branch());
        value.as_deref().and_then(Self::decode).unwrap_or_default()
    }

    /// Begins a branch with the log's generation, and puts that on stable storage.
    pub(crate) fn begin(engine: &Engine) -> Result<Self> {
        let generation = engine.log.generation();
        let now = engine.options.clock.now_micros();
        let before = Self::of(engine);
        let named = Encoder::default()
            .array(&before.id)
            .u32(generation)
            .u64(now)
            .finish();
        let mut id = [0; 8];
        id.copy_from_slice(&engine.hasher.content(&named).to_bytes()[..8]);
        let branch = Self { generation, id };
        transact(engine, &[], Author::default(), |transaction| {
            transaction.put(StateKey::branch(), branch.encode());
            Ok(())
        })?;
        engine.log.flush()?;
        Ok(branch)
    }
}
