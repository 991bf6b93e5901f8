//! Random histories: every operation the engine has, in any order, over several feeds.

use highwater::Options;
use highwater::storage::Survivors;
use proptest::prelude::*;

use crate::driver::{Driver, FEEDS, SYNCS};
use crate::operations::{Begin, End, LetGo};
use crate::reference::{Doc, Write};
use crate::step::{Step, Who};

fn id() -> impl Strategy<Value = String> {
    (0u8..24).prop_map(|n| format!("r{n}"))
}

fn write() -> impl Strategy<Value = Write> {
    let json = prop::collection::vec((id(), 0u8..4, 0u8..4), 0..12);
    let raw = prop::collection::vec((id(), prop::collection::vec(any::<u8>(), 0..40)), 0..6);
    let partial = (id(), 0u8..4, any::<bool>()).prop_map(|(id, n, nested)| {
        let text = if nested {
            serde_json::json!({"id": id, "x": {(n.to_string()): n}})
        } else {
            serde_json::json!({"id": id, "v": n})
        };
        let serde_json::Value::Object(map) = text else {
            unreachable!("an object literal")
        };
        (id, Doc(map))
    });
    prop_oneof![
        6 => json.prop_map(Write::SaveJson),
        1 => raw.prop_map(Write::SaveRaw),
        2 => prop::collection::vec(partial, 0..4).prop_map(Write::Update),
        2 => prop::collection::vec(id(), 0..8).prop_map(Write::Delete),
    ]
}

fn who() -> impl Strategy<Value = Who> {
    prop::option::weighted(0.7, 0..SYNCS.len())
}

/// Runs, windows, bookmarks and all that lets go of data.
fn upkeep() -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        Just(End::Succeed),
        Just(End::Fail),
        Just(End::Interrupt),
        Just(End::Drop)
    ];
    let what = prop_oneof![
        2 => Just(LetGo::Prune),
        1 => Just(LetGo::HardDelete),
        2 => Just(LetGo::Purge),
    ];
    let max = prop_oneof![Just(u64::MAX), 0u64..6];
    prop_oneof![
        4 => (0..SYNCS.len(), prop::bool::weighted(0.2), prop::bool::weighted(0.2))
            .prop_map(|(sync, reset, replace)| Step::BeginRun(sync, Begin { reset, replace })),
        2 => (0..SYNCS.len(), end).prop_map(|(sync, end)| Step::EndRun(sync, end)),
        4 => (who(), 0..FEEDS).prop_map(|(who, feed)| Step::OpenWindow(who, feed)),
        5 => (who(), 0..FEEDS, any::<bool>(), max)
            .prop_map(|(who, feed, own, max)| Step::Sweep(who, feed, own, max)),
        3 => (0..FEEDS).prop_map(Step::Bookmark),
        5 => (what, 0..FEEDS, any::<bool>(), 1u64..12)
            .prop_map(|(what, feed, marked, limit)| Step::LetGo(what, feed, marked, limit)),
        1 => (0..FEEDS).prop_map(Step::HardDeleteAll),
        2 => (0..FEEDS).prop_map(Step::Acknowledge),
        2 => (0..FEEDS).prop_map(Step::Stage),
        4 => write().prop_map(Step::WriteStaged),
        1 => any::<bool>().prop_map(Step::WindowStaged),
        2 => prop::bool::weighted(0.7).prop_map(Step::EndStaged),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let by = (
        (who(), any::<bool>()),
        prop::collection::vec((0..FEEDS, write()), 1..3),
        prop::option::weighted(0.3, 0u64..1000),
    )
        .prop_map(|((who, merging), writes, at)| Step::CommitBy(who, merging, writes, at));
    let single = (0..FEEDS, write()).prop_map(|write| Step::Commit(vec![write], None));
    let several = (
        prop::collection::vec((0..FEEDS - 1, write()), 1..4),
        prop::option::of(0u64..1000),
    )
        .prop_map(|(writes, checkpoint)| Step::Commit(writes, checkpoint));
    let survivors = prop_oneof![
        Just(Survivors::Synced),
        Just(Survivors::All),
        (0u64..20_000).prop_map(Survivors::Prefix),
        any::<u64>().prop_map(Survivors::Sectors),
    ];
    prop_oneof![
        8 => single,
        4 => several,
        8 => by,
        12 => upkeep(),
        6 => (any::<usize>(), 1usize..20).prop_map(|(reader, limit)| Step::Read { reader, limit }),
        1 => Just(Step::Check),
        1 => Just(Step::Flush),
        1 => Just(Step::SaveCatalog),
        3 => Just(Step::Compact),
        1 => Just(Step::Reopen),
        1 => Just(Step::Rebuild),
        3 => survivors.prop_map(Step::Crash),
        1 => (-2_000_000i64..2_000_000).prop_map(Step::Clock),
    ]
}

fn run(options: Options, steps: Vec<Step>) {
    let mut driver = Driver::new(options);
    steps.iter().for_each(|step| step.apply(&mut driver));
    driver.check();
    driver.converge(7);
    let report = driver.store.verify(|_, _| {}).unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
    driver.close_and_open();
    driver.check();
    driver.converge(3);
}

fn save(record: u8, version: u8) -> Step {
    let records = vec![(format!("r{record}"), version, 0)];
    Step::Commit(vec![(0, Write::SaveJson(records))], None)
}

/// Found by the histories below: two crashes in a row leave a segment that was superseded before
/// it held a frame; the catalog's position in it must lead on to the next segment.
#[test]
fn a_catalog_position_in_a_superseded_segment_leads_on() {
    let crash = || Step::Crash(Survivors::Synced);
    let start = vec![
        save(0, 0),
        save(0, 1),
        crash(),
        crash(),
        Step::SaveCatalog,
        crash(),
    ];
    run(
        Options::new(),
        start.into_iter().chain([save(1, 0), crash()]).collect(),
    );
}

/// Small segments, all of which compaction replaces, indexes in runs, and a budget that evicts all
/// the time.
fn cramped() -> Options {
    let options = Options::new().segment_size(4096).index_budget(0);
    options.eager_compaction(true).index_limits_of(400, 200)
}

/// Found by the histories: what compaction packed of an epoch that was being filled was passed over
/// by a rebuild, also when the epoch took the other's place after that.
#[test]
fn a_staged_epoch_that_was_compacted_survives_its_swap_and_a_rebuild() {
    let save = |round: u8| {
        let records = (0..12).map(|n| (format!("r{n}"), round % 4, 0));
        Write::SaveJson(records.collect())
    };
    let mut steps = vec![Step::Stage(0), Step::WriteStaged(save(0))];
    steps.extend((0..12).map(|round| Step::Commit(vec![(1, save(round))], None)));
    steps.extend([Step::Compact, Step::EndStaged(true), Step::Rebuild]);
    run(cramped(), steps);
}

/// Payloads are compressed from the first few records of each feed on.
#[cfg(feature = "zstd")]
pub fn compressing(options: Options) -> Options {
    let zstd = highwater::Compression::Zstd { level: 1 };
    options.compression(zstd).dictionaries_from(7, 100)
}

/// Everything is encrypted.
#[cfg(feature = "encryption")]
pub fn encrypting(options: Options) -> Options {
    let key = highwater::Key::new(&[5; 32]);
    options.encryption(highwater::Encryption::new(&key))
}

/// 300 histories each, or as many as `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let given = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    let cases = given.unwrap_or(300);
    ProptestConfig {
        cases,
        max_shrink_iters: 3000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn durable_histories_agree_with_the_model(steps in prop::collection::vec(step(), 1..60)) {
        run(Options::new(), steps);
    }

    #[test]
    fn durable_histories_in_small_segments_agree(steps in prop::collection::vec(step(), 1..60)) {
        run(cramped(), steps);
    }

    #[test]
    fn relaxed_histories_agree_with_the_model(steps in prop::collection::vec(step(), 1..60)) {
        run(Options::new().durability(Driver::relaxed()), steps);
    }

    #[test]
    fn relaxed_histories_in_small_segments_agree(steps in prop::collection::vec(step(), 1..60)) {
        run(cramped().durability(Driver::relaxed()), steps);
    }
}

#[cfg(feature = "zstd")]
proptest! {
    #![proptest_config(config())]

    #[test]
    fn compressing_histories_agree_with_the_model(steps in prop::collection::vec(step(), 1..60)) {
        run(compressing(Options::new()), steps);
    }

    #[test]
    fn compressing_histories_in_small_segments_agree(steps in prop::collection::vec(step(), 1..60)) {
        run(compressing(cramped()).durability(Driver::relaxed()), steps);
    }
}

#[cfg(feature = "encryption")]
proptest! {
    #![proptest_config(config())]

    #[test]
    fn encrypted_histories_agree_with_the_model(steps in prop::collection::vec(step(), 1..60)) {
        run(encrypting(Options::new()), steps);
    }

    #[test]
    fn encrypted_histories_in_small_segments_agree(steps in prop::collection::vec(step(), 1..60)) {
        run(encrypting(cramped()).durability(Driver::relaxed()), steps);
    }
}
