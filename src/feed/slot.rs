//! What a feed handle holds on to: the feed's current epoch, which a replacement swaps.

use std::sync::Arc;

use crate::cursor::FeedId;
use crate::error::{Error, Result};
use crate::feed::FeedKey;
use crate::feed::state::FeedState;
use crate::primitives::RwLock;

/// The place of a feed's current state.
pub(crate) struct FeedSlot {
    pub(crate) id: FeedId,
    pub(crate) key: FeedKey,
    current: RwLock<Arc<FeedState>>,
}

impl FeedSlot {
    pub(crate) fn new(key: FeedKey, state: Arc<FeedState>) -> Self {
        Self {
            id: state.id,
            key,
            current: RwLock::new(state),
        }
    }

    /// The state that readers and writers find now. A writer must look whether it was superseded
    /// before it got the state's write lock.
    pub(crate) fn current(&self) -> Arc<FeedState> {
        self.current.read().clone()
    }

    /// Refuses when this is the slot of a replacement that is over: its epoch was superseded, and
    /// nothing is going to take its place here.
    pub(crate) fn check_not_abandoned(&self) -> Result<()> {
        let state = self.current();
        // A swap puts the new epoch here before the old one is superseded.
        if state.is_superseded() && Arc::ptr_eq(&state, &self.current()) {
            let feed = self.key.clone();
            return Err(Error::ReplaceLost { feed });
        }
        Ok(())
    }

    /// Puts another epoch in the place of the current one, which the caller has to supersede.
    pub(crate) fn swap(&self, state: Arc<FeedState>) -> Arc<FeedState> {
        std::mem::replace(&mut *self.current.write(), state)
    }
}
