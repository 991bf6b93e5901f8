//! A repair that is interrupted anywhere leaves the damaged store as it was, and is never taken for
//! one that was not.

use std::path::Path;

use highwater::storage::{Fault, MemoryStorage, Storage, Survivors};
use highwater::{Cursor, Error, Expected, List, Lost, Repaired, Store};
use serde_json::json;

use crate::world::{
    CATALOG, FRAME_HEADER_LEN, RESTORED, STORE, View, change, contents, feed, files, frames_of,
    options, place_of, records, save, verify, view,
};

const SURVIVORS: [Survivors; 8] = [
    Survivors::Synced,
    Survivors::All,
    Survivors::Prefix(700),
    Survivors::Prefix(6000),
    Survivors::Sectors(1),
    Survivors::Sectors(2),
    Survivors::Names,
    Survivors::Contents,
];

/// What is wrong with the store that is repaired.
#[derive(Clone, Copy, Debug)]
enum Damage {
    None,
    /// Nobody closed it.
    Left,
    FrameContent,
    /// And the catalog is gone, which would make up for it.
    FrameHeader,
    Segment,
    Pack,
    Catalog,
    NoCatalog,
}

/// A store with packs and segments, and the cursors that were handed out.
fn build(damage: Damage) -> (MemoryStorage, Vec<Cursor>) {
    let disk = MemoryStorage::new();
    let store = options(&disk).eager_compaction(true).open(STORE).unwrap();
    let (contacts, company) = (feed(&store, "contact"), feed(&store, "company"));
    save(&contacts, 0..6, 900, 'a');
    save(&company, 0..3, 900, 'A');
    save(&contacts, 3..8, 900, 'b');
    let _ = contacts.batch_delete(&["1"]).unwrap();
    let _ = store.compact().unwrap();
    let page = json!({"page": 1});
    store
        .save_checkpoint("c", "s", "", &page, Expected::Absent)
        .unwrap();
    for id in 4..12 {
        save(&contacts, [id], 900, 'c');
        save(&company, [id], 400, 'C');
    }
    let _ = contacts.batch_delete(&["2", "5"]).unwrap();
    let cursors = records(&contacts).iter().map(|it| it.cursor).collect();
    let disk = match damage {
        Damage::Left => disk.crash(Survivors::All),
        _ => store.close().map(|()| disk).unwrap(),
    };
    harm(&disk, damage);
    // Everything in it is on stable storage.
    for (path, bytes) in contents(&disk) {
        disk.write_file(&path, &bytes.unwrap()).unwrap();
    }
    (disk, cursors)
}

fn harm(disk: &MemoryStorage, damage: Damage) {
    let middle = |suffix: &str| {
        let all = files(disk, "/s/log", suffix);
        all[all.len() / 2].clone()
    };
    // Of a record's newest version, with others before and behind it.
    let in_frame = |within: usize| {
        let (path, at) = place_of(disk, &[b'c'; 900]);
        change(disk, &path, |bytes| {
            let frames = frames_of(bytes).into_iter();
            let frame = frames.take_while(|frame| *frame < at).last().unwrap();
            bytes[frame + within..frame + within + 8].fill(0xaa);
        });
    };
    match damage {
        Damage::None | Damage::Left => {}
        Damage::FrameHeader => {
            in_frame(0);
            disk.remove_file(CATALOG).unwrap();
        }
        Damage::FrameContent => in_frame(FRAME_HEADER_LEN),
        Damage::Segment => disk.remove_file(middle(".seg")).unwrap(),
        Damage::Pack => disk.remove_file(middle(".pack")).unwrap(),
        Damage::Catalog => change(disk, CATALOG, |bytes| bytes[..600].fill(0xaa)),
        Damage::NoCatalog => disk.remove_file(CATALOG).unwrap(),
    }
}

/// Everything that a reader can tell of a repaired store.
#[derive(PartialEq, Debug)]
struct Shown {
    view: View,
    checkpoint: Option<Vec<u8>>,
    /// Which of the old cursors are accepted.
    accepted: Vec<bool>,
}

fn shown(store: &Store, cursors: &[Cursor]) -> Shown {
    verify(store);
    let contacts = feed(store, "contact");
    let accepted = cursors.iter().map(|cursor| {
        let page = contacts.list(&List::new().after(*cursor));
        assert!(
            matches!(page, Ok(_) | Err(Error::CursorExpired)),
            "{page:?}"
        );
        page.is_ok()
    });
    Shown {
        view: view(store),
        checkpoint: store.checkpoint("c", "s", "").unwrap().map(|it| it.json),
        accepted: accepted.collect(),
    }
}

/// What the damaged store is to become.
struct World {
    disk: MemoryStorage,
    cursors: Vec<Cursor>,
    source: Vec<(String, Option<Vec<u8>>)>,
    expected: Shown,
    lost: Vec<Lost>,
}

impl World {
    fn new(damage: Damage) -> Self {
        let (disk, cursors) = build(damage);
        let whole = disk.crash(Survivors::Synced);
        let report = options(&whole).repair(STORE, RESTORED).unwrap();
        let store = options(&whole).create(false).open(RESTORED).unwrap();
        let harmless = matches!(damage, Damage::None | Damage::Catalog | Damage::NoCatalog);
        assert_eq!(report.is_complete(), harmless, "{damage:?}");
        Self {
            source: contents(&disk),
            expected: shown(&store, &cursors),
            lost: report.lost,
            disk,
            cursors,
        }
    }

    /// A copy of the disk as it was before the repair.
    fn disk(&self) -> MemoryStorage {
        self.disk.crash(Survivors::Synced)
    }

    fn check_report(&self, report: &Repaired) {
        assert_eq!(report.lost, self.lost);
    }

    /// Checks what is there after a repair was `done` or not, and that it can be made once more.
    /// Whether there is a whole store.
    fn check(&self, disk: &MemoryStorage, done: bool) -> bool {
        assert!(
            contents(disk) == self.source,
            "the damaged store was changed"
        );
        let is_whole = match options(disk).create(false).open(RESTORED) {
            Ok(store) => {
                assert_eq!(shown(&store, &self.cursors), self.expected);
                store.close().unwrap();
                true
            }
            Err(Error::Unfinished { path }) if !done => {
                assert_eq!(path, Path::new(RESTORED));
                let again = options(disk).repair(STORE, RESTORED);
                assert!(matches!(again, Err(Error::Occupied { .. })), "{again:?}");
                empty(disk);
                self.repair_into(disk, RESTORED);
                false
            }
            // It was not begun.
            Err(Error::Io { source, .. })
                if !done && source.kind() == std::io::ErrorKind::NotFound =>
            {
                self.repair_into(disk, RESTORED);
                false
            }
            other => panic!("done: {done}: {other:?}"),
        };
        self.repair_into(disk, "/t");
        is_whole
    }

    fn repair_into(&self, disk: &MemoryStorage, to: &str) {
        let report = options(disk).repair(STORE, to).unwrap();
        self.check_report(&report);
        assert!(
            contents(disk) == self.source,
            "the damaged store was changed"
        );
        let store = options(disk).create(false).open(to).unwrap();
        assert_eq!(shown(&store, &self.cursors), self.expected);
    }
}

/// Removes everything from where the repair went.
fn empty(disk: &MemoryStorage) {
    for dir in [RESTORED, "/r/log", "/r/index"] {
        for name in disk.list(Path::new(dir)).unwrap_or_default() {
            let path = Path::new(dir).join(name);
            if disk.read_file(&path).is_some() {
                disk.remove(&path).unwrap();
            }
        }
    }
}

/// Returns how many distinct disks crashes have left.
fn each_crash(damage: Damage) -> usize {
    let world = World::new(damage);
    let disk = world.disk();
    disk.record();
    let report = options(&disk).repair(STORE, RESTORED).unwrap();
    world.check_report(&report);
    let mut left: Vec<MemoryStorage> = Vec::new();
    let mut whole = 0;
    for stopped in disk.recorded() {
        // Disks before neighbouring operations are often left in the same state.
        let recent = left.len().saturating_sub(2 * SURVIVORS.len());
        let mut states: Vec<MemoryStorage> = left.split_off(recent);
        for survivors in SURVIVORS {
            let crashed = stopped.crash(survivors);
            if states.iter().any(|other| other.is_same(&crashed)) {
                continue;
            }
            whole += usize::from(world.check(&crashed.crash(Survivors::All), false));
            states.push(crashed);
        }
        left.append(&mut states);
    }
    assert!(
        whole <= 2 * SURVIVORS.len(),
        "only the last operations may make it whole"
    );
    for survivors in SURVIVORS {
        assert!(world.check(&disk.crash(survivors), true));
    }
    left.len() + SURVIVORS.len()
}

#[test]
fn a_crash_at_any_operation_of_a_repair() {
    let damages = [
        Damage::None,
        Damage::Left,
        Damage::FrameHeader,
        Damage::FrameContent,
        Damage::Segment,
        Damage::Pack,
        Damage::Catalog,
        Damage::NoCatalog,
    ];
    for damage in damages {
        let crashes = each_crash(damage);
        println!("{crashes} crashes in a repair, {damage:?}");
        assert!(crashes > 100);
    }
}

/// Nothing of what fails is passed over, and nothing that fails makes a store that is not whole count.
#[test]
fn a_failing_call_in_a_repair() {
    let faults: [fn(u64) -> Fault; 4] = [
        |after| Fault::Write { after },
        |after| Fault::Sync {
            after,
            dropped: true,
        },
        |after| Fault::SyncDir { after },
        |bytes| Fault::Full {
            bytes: bytes * 1024,
        },
    ];
    let world = World::new(Damage::FrameHeader);
    let mut failed = 0;
    for fault in faults {
        for after in 0.. {
            let disk = world.disk();
            disk.fail(fault(after));
            let done = options(&disk).repair(STORE, RESTORED).is_ok();
            failed += usize::from(!done);
            disk.heal();
            for survivors in [Survivors::Synced, Survivors::All] {
                let _ = world.check(&disk.crash(survivors), done);
            }
            if done {
                break;
            }
        }
    }
    println!("{failed} failing calls in a repair");
    assert!(failed > 20);
}
