//! What the writes of one run share.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codec::Encoder;
use crate::cursor::FeedId;
use crate::defects::Defect;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::feed::FeedKey;
use crate::feed::slot::FeedSlot;
use crate::log::format::{Author, SyncId};
use crate::primitives::Mutex;
use crate::primitives::atomic::{AtomicBool, Ordering};
use crate::record::Totals;
use crate::replace;
use crate::runs::dry::DryRun;
use crate::runs::report::{Models, SyncKey, decode_models, encode_models};
use crate::runs::rows::SyncRow;
use crate::state::StateKey;
use crate::write::transaction::Transaction;

/// See the module.
pub(crate) struct RunScope {
    pub(crate) key: SyncKey,
    pub(crate) run: u64,
    sync: SyncId,
    pub(crate) ended: AtomicBool,
    /// Counts of writes that changed nothing, and so committed nothing: they wait for a commit.
    uncommitted: Mutex<Models>,
    feeds: Mutex<Feeds>,
    replaces: bool,
    dry: Option<DryRun>,
}

#[derive(Default)]
struct Feeds {
    used: BTreeMap<FeedId, Arc<FeedSlot>>,
    /// By the slot that readers see: what is going to take its place.
    staged: BTreeMap<FeedId, Arc<FeedSlot>>,
}

impl RunScope {
    pub(crate) fn new(engine: &Engine, key: SyncKey, run: u64, replaces: bool) -> Self {
        Self {
            sync: key.id(engine),
            key,
            run,
            ended: AtomicBool::new(false),
            uncommitted: Mutex::default(),
            feeds: Mutex::default(),
            replaces,
            dry: None,
        }
    }

    /// The scope of a run that commits nothing.
    pub(crate) fn new_dry(engine: &Engine, key: SyncKey, run: u64) -> Self {
        Self {
            dry: Some(DryRun::default()),
            ..Self::new(engine, key, run, false)
        }
    }

    pub(crate) fn dry(&self) -> Option<&DryRun> {
        self.dry.as_ref()
    }

    /// Counts what a dry run has found out.
    pub(crate) fn note(&self, model: &str, totals: Totals) {
        *self.uncommitted.lock().entry(model.to_owned()).or_default() += totals;
    }

    /// What a dry run has found out.
    pub(crate) fn noted(&self) -> Models {
        self.uncommitted.lock().clone()
    }

    pub(crate) fn author(&self) -> Author {
        Author {
            run: self.run,
            sync: self.sync,
        }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.ended.load(Ordering::Acquire) {
            Err(Error::RunEnded { run: self.run })
        } else {
            Ok(())
        }
    }

    /// Refuses when the run has ended, or another one took over, for the rest of the transaction.
    pub(crate) fn check(&self, transaction: &mut Transaction<'_>) -> Result<()> {
        if transaction.engine.options.defects.has(Defect::IgnoreFence) {
            return self.check_open();
        }
        let value = transaction.state(&self.key.state_key());
        self.check_row(value)
    }

    /// The same as of now, without holding up everything that changes state.
    pub(crate) fn check_now(&self, engine: &Engine) -> Result<()> {
        // Also what is not published yet: it was acknowledged.
        let value = engine.state.turn().get(&self.key.state_key());
        self.check_row(value)
    }

    fn check_row(&self, value: Option<Vec<u8>>) -> Result<()> {
        self.check_open()?;
        if SyncRow::read(value.as_deref()).fenced_below > self.run {
            return Err(Error::RunFenced { run: self.run });
        }
        Ok(())
    }

    /// Whether writes go to epochs that nobody sees yet.
    pub(crate) fn replaces(&self) -> bool {
        self.replaces
    }

    /// The slot that the run writes to for a feed.
    pub(crate) fn feed(&self, engine: &Engine, key: &FeedKey) -> Result<Arc<FeedSlot>> {
        let public = engine.slot(key)?;
        let mut feeds = self.feeds.lock();
        feeds.used.insert(public.id, public.clone());
        if !self.replaces {
            return Ok(public);
        }
        if let Some(staged) = feeds.staged.get(&public.id) {
            return Ok(staged.clone());
        }
        let staged = replace::begin(engine, &public)?;
        feeds.staged.insert(public.id, staged.clone());
        Ok(staged)
    }

    /// The feeds the run has asked for.
    pub(crate) fn feeds(&self) -> Vec<FeedId> {
        self.feeds.lock().used.keys().copied().collect()
    }

    /// The feeds that the run replaces, with what it has staged for them.
    pub(crate) fn staged(&self) -> Vec<(Arc<FeedSlot>, Arc<FeedSlot>)> {
        let feeds = self.feeds.lock();
        let public = |(id, staged): (&FeedId, &Arc<FeedSlot>)| {
            Some((feeds.used.get(id)?.clone(), staged.clone()))
        };
        feeds.staged.iter().filter_map(public).collect()
    }

    /// What one commit adds to what the run has done.
    pub(crate) fn tally(&self) -> Tally<'_> {
        Tally {
            scope: self,
            taken: Models::new(),
            waiting: Models::new(),
            done: false,
        }
    }
}

/// The counts of one commit of a run. They are committed with its changes; when it has none, they
/// wait for the run's next commit.
pub(crate) struct Tally<'a> {
    scope: &'a RunScope,
    /// Taken from those that waited, to be committed.
    taken: Models,
    /// To wait, should this commit have nothing to write.
    waiting: Models,
    done: bool,
}

impl Tally<'_> {
    /// Refuses when the run has ended, or another one took over.
    pub(crate) fn check(&self, transaction: &mut Transaction<'_>) -> Result<()> {
        self.scope.check(transaction)
    }

    /// Adds what the commit does.
    pub(crate) fn add<'k>(
        &mut self,
        transaction: &mut Transaction<'_>,
        totals: impl Iterator<Item = (&'k FeedKey, Totals)>,
    ) {
        let mut models = Models::new();
        for (key, totals) in totals {
            *models.entry(key.model.clone()).or_default() += totals;
        }
        if transaction.has_changes() {
            let mut all = self.models(transaction);
            merge(&mut all, &models);
            let value = encode_models(Encoder::default(), &all).finish();
            transaction.put(StateKey::tally(self.scope.sync, self.scope.run), value);
            self.waiting.clear();
        } else {
            self.put_back();
            self.waiting = models;
        }
    }

    /// Everything the run has done before this commit.
    pub(crate) fn models(&mut self, transaction: &mut Transaction<'_>) -> Models {
        let value = transaction.state(&StateKey::tally(self.scope.sync, self.scope.run));
        let mut all = value.as_deref().and_then(decode_models).unwrap_or_default();
        // An earlier attempt at this commit may have taken some already.
        let more = std::mem::take(&mut *self.scope.uncommitted.lock());
        merge(&mut self.taken, &more);
        merge(&mut all, &self.taken);
        all
    }

    /// Notes that the commit got through.
    pub(crate) fn done(mut self) {
        self.done = true;
    }

    fn put_back(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        merge(&mut self.scope.uncommitted.lock(), &taken);
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        if self.done {
            merge(&mut self.scope.uncommitted.lock(), &self.waiting);
        } else {
            self.put_back();
        }
    }
}

fn merge(into: &mut Models, more: &Models) {
    for (model, totals) in more {
        *into.entry(model.clone()).or_default() += *totals;
    }
}
