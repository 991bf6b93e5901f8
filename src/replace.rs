//! Replacing a feed: records are saved into a new epoch that nobody sees, and one commit puts it
//! in the place of the old one. Until then, a crash or a change of mind leaves everything as it was.

use std::sync::Arc;

use crate::engine::{Engine, Handle};
use crate::error::{Error, Result};
use crate::feed::Feed;
use crate::feed::marks::Mark;
use crate::feed::slot::FeedSlot;
use crate::log::format::{Author, SyncId};
use crate::write::transaction::{Stop, Transaction, transact};

/// A feed being filled anew; made by [`Feed::replace`](crate::Feed::replace). Dropping it without
/// [`Replacement::commit`] leaves the feed as it was.
///
/// ```
/// use highwater::{Error, List};
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = highwater::Store::open(dir.path())?;
/// let feed = store.feed("conn-42", "Contact")?;
/// let _ = feed.batch_save_raw(&[("a", "old"), ("b", "old")])?;
/// let cursor = feed.last_cursor()?;
///
/// let replacement = feed.replace()?;
/// let _ = replacement.feed().batch_save_raw(&[("b", "new")])?;
/// assert_eq!(feed.count()?, 2, "nothing shows yet");
/// let would = replacement.dry_run()?;
/// assert_eq!((would.added, would.removed), (1, 2));
/// assert_eq!(replacement.commit()?, would);
/// assert_eq!(feed.count()?, 1);
/// let stale = feed.list(&List::new().after(cursor));
/// assert!(matches!(stale, Err(Error::StaleCursor { .. })));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
#[must_use = "a replacement does nothing until it is committed"]
pub struct Replacement {
    target: Feed,
    staged: Feed,
    finished: bool,
}

impl Replacement {
    pub(crate) fn new(target: &Feed) -> Result<Self> {
        // The handle may be one of an earlier replacement.
        let target = Feed {
            slot: target.engine.slot(&target.slot.key)?,
            ..target.clone()
        };
        let slot = begin(&target.engine, &target.slot)?;
        let staged = Feed {
            slot,
            ..target.clone()
        };
        Ok(Self {
            target,
            staged,
            finished: false,
        })
    }

    /// The feed to fill. What is saved here is seen by nobody else, and counts as added.
    pub fn feed(&self) -> &Feed {
        &self.staged
    }

    /// Puts what was saved in the place of the old records, in one commit. Changes that were made
    /// to the feed meanwhile go with the old records; cursors given out before are refused.
    ///
    /// # Errors
    /// [`Error::ReplaceLost`] when the feed was hard-deleted meanwhile, and those of any write.
    pub fn commit(mut self) -> Result<Replaced> {
        let engine: &Handle = &self.target.engine;
        let (public, staged) = (&self.target.slot, &self.staged.slot);
        let slots = [public, staged];
        let replaced = transact(engine, &slots, Author::default(), |transaction| {
            if let Some(run) = &self.target.run {
                run.check(transaction)?;
            }
            swap_in(transaction, public, staged)
        })?;
        finish(engine, public, staged, true);
        self.finished = true;
        Ok(replaced)
    }

    /// What [`Replacement::commit`] would say now. Nothing is changed.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn dry_run(&self) -> Result<Replaced> {
        Ok(Replaced {
            added: self.staged.count()?,
            removed: self.target.count()?,
        })
    }

    /// Leaves the feed as it was.
    pub fn abort(self) {}
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.finished {
            let engine: &Handle = &self.target.engine;
            finish(engine, &self.target.slot, &self.staged.slot, false);
        }
    }
}

/// What a replacement did, or would do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct Replaced {
    /// Live records the feed has now.
    pub added: u64,
    /// Live records it had before.
    pub removed: u64,
}

/// Begins a new epoch of a feed. Returns where to write to it.
pub(crate) fn begin(engine: &Engine, slot: &Arc<FeedSlot>) -> Result<Arc<FeedSlot>> {
    if !engine.feeds.lock().replacing.insert(slot.id) {
        return Err(Error::ReplaceInProgress {
            feed: slot.key.clone(),
        });
    }
    let registered = transact(engine, &[], Author::default(), |transaction| {
        let mut registration = transaction.registration(slot);
        registration.newest_epoch += 1;
        transaction.register(slot, &registration);
        Ok(registration)
    });
    match registered {
        Ok(registration) => {
            let epoch = registration.newest_epoch;
            let state = engine.new_stream(slot, epoch, registration.options);
            state.set_staged(true);
            Ok(Arc::new(FeedSlot::new(slot.key.clone(), state)))
        }
        Err(error) => {
            engine.feeds.lock().replacing.remove(&slot.id);
            Err(error)
        }
    }
}

/// Makes the staged epoch the one that readers see, as part of a commit on both.
pub(crate) fn swap_in(
    transaction: &mut Transaction<'_>,
    public: &Arc<FeedSlot>,
    staged: &Arc<FeedSlot>,
) -> Result<Replaced, Stop> {
    let state = staged.current();
    let mut registration = transaction.registration(public);
    if registration.newest_epoch != state.epoch {
        return Err(Stop::Failed(Error::ReplaceLost {
            feed: public.key.clone(),
        }));
    }
    registration.epoch = state.epoch;
    let turn = transaction.turn(staged)?;
    turn.settle()?;
    // The feed may have been configured anew meanwhile.
    turn.writer.options = registration.options.clone();
    // A record that was saved and deleted again before anybody saw it never was.
    let deleted = turn.feed.deleted(&turn.engine.log)?;
    if !deleted.is_empty() {
        turn.marks.push(Mark::Purged(deleted));
    }
    // Nor is a window of the staging one of the feed that comes of it.
    let windows: Vec<SyncId> = turn.writer.windows.keys().copied().collect();
    let closed = windows.into_iter().map(|sync| Mark::WindowClosed { sync });
    turn.marks.extend(closed);
    turn.removes = true;
    let added = turn.live;
    // Held until readers see the new epoch: nobody may write to the old one behind its back.
    let old = transaction.turn(public)?;
    old.removes = true;
    let removed = old.live;
    transaction.register(public, &registration);
    transaction.swap(public, state);
    Ok(Replaced { added, removed })
}

/// After a swap, or instead of one: forgets the epoch that is not in use any more.
pub(crate) fn finish(engine: &Engine, public: &FeedSlot, staged: &FeedSlot, swapped: bool) {
    if swapped {
        engine.forget_streams_of(public);
    } else {
        engine.forget_stream(&staged.current());
    }
    engine.feeds.lock().replacing.remove(&public.id);
}
