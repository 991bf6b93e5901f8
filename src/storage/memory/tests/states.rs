//! The states of a disk that are worse than any prefix, and the record of a disk's past.

use super::*;

/// What `survivors` leave of two files: one that was there, and one that is new.
fn left(disk: &MemoryStorage, survivors: Survivors) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let crashed = disk.crash(survivors);
    assert_eq!(crashed.unsynced_bytes(), 0);
    (crashed.read_file(at("a")), crashed.read_file(at("b")))
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

/// A file with changes of its bytes and its length, and another one with a new name.
fn changed() -> MemoryStorage {
    let disk = disk();
    let a = durable(&disk, "a", b"....");
    let b = create(&disk, "b");
    b.write_all_at(&[b"12"], 0).unwrap();
    a.write_all_at(&[b"345"], 2).unwrap();
    a.allocate(7).unwrap();
    disk
}

#[test]
fn a_suffix_is_what_a_prefix_is_not() {
    let disk = disk();
    let (a, b) = (durable(&disk, "a", b"......"), durable(&disk, "b", b""));
    a.write_all_at(&[b"12", b"3"], 0).unwrap();
    b.write_all_at(&[b"45"], 0).unwrap();
    create(&disk, "c");
    a.write_all_at(&[b"678"], 3).unwrap();
    let expected = [
        ("......", "", false),
        (".....8", "", false),
        ("....78", "", false),
        ("...678", "", false),
        ("...678", "\x005", true),
        ("...678", "45", true),
        ("..3678", "45", true),
        (".23678", "45", true),
        ("123678", "45", true),
    ];
    for (limit, (in_a, in_b, is_named)) in (0..).zip(expected) {
        let crashed = disk.crash(Survivors::Suffix(limit));
        let content = (crashed.read_file(at("a")), crashed.read_file(at("b")));
        assert_eq!(content, (bytes(in_a), bytes(in_b)), "limit {limit}");
        assert_eq!(names(&crashed).len() == 3, is_named, "limit {limit}");
    }
}

#[test]
fn kinds_of_changes_survive_alone() {
    let disk = changed();
    assert_eq!(left(&disk, Survivors::Names), (bytes("...."), bytes("")));
    assert_eq!(left(&disk, Survivors::Contents), (bytes("..345\0\0"), None));
    let zeros = (bytes("....\0\0\0"), bytes("\0\0"));
    assert_eq!(left(&disk, Survivors::Lengths), zeros);
    assert_eq!(left(&disk, Survivors::Data), (bytes("..34"), bytes("")));
}

#[test]
fn half_a_sector_may_survive() {
    let disk = disk();
    let file = durable(&disk, "a", &[1; 512]);
    file.write_all_at(&[&[2; 512]], 0).unwrap();
    let halves = |survivors| {
        let bytes = disk.crash(survivors).read_file(at("a")).unwrap();
        for half in [&bytes[..256], &bytes[256..]] {
            assert!(half.iter().all(|byte| *byte == half[0]), "no half tears");
        }
        (bytes[0], bytes[256])
    };
    let seen: std::collections::BTreeSet<_> = (0..100)
        .map(|seed| halves(Survivors::HalfSectors(seed)))
        .collect();
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        [(1, 1), (1, 2), (2, 1), (2, 2)]
    );
    assert!((0..100).all(|seed| matches!(halves(Survivors::Sectors(seed)), (1, 1) | (2, 2))));
}

#[test]
fn disks_are_the_same_if_nobody_can_tell_them_apart() {
    let disk = changed();
    let states = [
        Survivors::Synced,
        Survivors::Names,
        Survivors::Contents,
        Survivors::Lengths,
        Survivors::Data,
        Survivors::Prefix(u64::MAX),
    ];
    let disks: Vec<_> = states.map(|survivors| disk.crash(survivors)).into();
    for (at, one) in disks.iter().enumerate() {
        for (other_at, other) in disks.iter().enumerate() {
            assert_eq!(one.is_same(other), at == other_at, "{at} {other_at}");
        }
    }
    // What is pending can still be lost, which makes a difference.
    assert!(!disk.crash(Survivors::All).is_same(&disks[5]));
    assert!(disk.is_same(&disk.clone()));
}

#[test]
fn a_record_has_the_disk_before_each_operation() {
    let disk = disk();
    let file = durable(&disk, "a", b"..");
    disk.record();
    file.write_all_at(&[b"1"], 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&[b"2"], 1).unwrap();
    let recorded = disk.recorded();
    let current: Vec<_> = recorded
        .iter()
        .map(|disk| disk.read_file(at("a")))
        .collect();
    assert_eq!(current, [bytes(".."), bytes("1."), bytes("1.")]);
    let synced = |disk: &MemoryStorage| disk.crash(Survivors::Synced).read_file(at("a"));
    let durable: Vec<_> = recorded.iter().map(synced).collect();
    assert_eq!(durable, [bytes(".."), bytes(".."), bytes("1.")]);
    file.sync_data().unwrap();
    assert!(disk.recorded().is_empty(), "it has ended");
}
