//! Everything that a store shows of the feeds that scripts write to.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater::storage::{MemoryStorage, Survivors};
use highwater::{
    Action, Cursor, Options, OwnedRecord, RunOptions, RunReport, RunStatus, Store, Sweep,
};

use crate::driver::{PATH, sync_key};

/// The feeds that are looked into; of others only the number of records is looked at.
pub const FEEDS: [&str; 2] = ["contact", "company"];

/// Everything a store shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    pub feeds: BTreeMap<&'static str, Vec<OwnedRecord>>,
    /// How many live records each feed has that has some.
    counts: BTreeMap<String, u64>,
    checkpoint: Option<Vec<u8>>,
    /// By feed: open windows, and where the named consumers stand.
    windows: BTreeMap<&'static str, u64>,
    consumers: BTreeMap<&'static str, Vec<(String, Cursor)>>,
    /// What the sync's window would delete now.
    unseen: Option<Vec<String>>,
    /// As they are after a reopen: interrupted if they were going on, whenever that was noticed.
    runs: Vec<RunReport>,
}

impl View {
    /// What a new store shows.
    pub fn of_nothing() -> Self {
        Self {
            feeds: FEEDS.map(|feed| (feed, vec![])).into(),
            windows: FEEDS.map(|feed| (feed, 0)).into(),
            consumers: FEEDS.map(|feed| (feed, vec![])).into(),
            ..Self::default()
        }
    }

    /// What `store`, which is on `disk`, shows.
    pub fn of(store: &Store, disk: &MemoryStorage, options: &Options) -> highwater::Result<Self> {
        let mut view = Self {
            feeds: records_of(store)?,
            ..Self::default()
        };
        for model in FEEDS {
            let feed = store.feed("c", model)?;
            let consumers = feed.consumers()?.into_iter();
            let standing = consumers.map(|info| (info.name, info.cursor)).collect();
            view.windows.insert(model, feed.stats()?.windows);
            view.consumers.insert(model, standing);
        }
        let infos = store.feeds()?.into_iter().filter(|info| info.live > 0);
        view.counts = infos.map(|info| (info.key.model, info.live)).collect();
        let checkpoint = store.checkpoint("c", "sync", "")?;
        view.checkpoint = checkpoint.map(|checkpoint| checkpoint.json);
        view.runs = store.runs(&sync_key(0))?;
        for run in &mut view.runs {
            if run.status == RunStatus::Running {
                run.status = RunStatus::Interrupted;
                run.error = Some("the process ended".to_owned());
                run.checkpoint_to = text(view.checkpoint.as_ref());
            }
            run.ended = None;
        }
        if view.windows["contact"] > 0 {
            view.unseen = Some(unseen(disk, options)?);
        }
        Ok(view)
    }
}

/// All records of the feeds that are looked into.
pub fn records_of(store: &Store) -> highwater::Result<BTreeMap<&'static str, Vec<OwnedRecord>>> {
    let mut feeds = BTreeMap::new();
    for model in FEEDS {
        let feed = store.feed("c", model)?;
        let records = feed.records(None).collect::<highwater::Result<Vec<_>>>()?;
        let live = records
            .iter()
            .filter(|record| record.last_action != Action::Deleted);
        assert_eq!(feed.count()?, live.clone().count() as u64);
        let bytes = live.map(|record| record.payload.as_ref().map_or(0, Vec::len) as u64);
        assert_eq!(feed.size()?, bytes.sum::<u64>());
        feeds.insert(model, records);
    }
    Ok(feeds)
}

/// Nobody can look into a window, so it is closed in a copy of the store.
fn unseen(disk: &MemoryStorage, options: &Options) -> highwater::Result<Vec<String>> {
    let copy = disk.crash(Survivors::All);
    let store = options.clone().storage(Arc::new(copy)).open(PATH)?;
    let run = store.begin_run(&sync_key(0), RunOptions::new())?;
    let contacts = run.feed("contact")?;
    let swept = contacts.track_deletes_end(&Sweep::new().return_ids(true))?;
    Ok(swept.ids)
}

fn text(json: Option<&Vec<u8>>) -> Option<String> {
    json.map(|json| String::from_utf8(json.clone()).unwrap())
}
