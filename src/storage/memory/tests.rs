//! Tests of the simulated disk itself: a simulator nobody tested proves nothing.

mod states;

use proptest::prelude::*;

use super::*;

type File = Arc<dyn StorageFile>;

/// A disk with a durable, empty directory `/d`.
fn disk() -> MemoryStorage {
    let disk = MemoryStorage::new();
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk
}

fn at(name: &str) -> PathBuf {
    Path::new("/d").join(name)
}

fn create(disk: &MemoryStorage, name: &str) -> File {
    disk.open(&at(name), OpenMode::CreateNew).unwrap()
}

fn open(disk: &MemoryStorage, name: &str) -> File {
    disk.open(&at(name), OpenMode::Existing).unwrap()
}

/// A file whose name and `bytes` are durable.
fn durable(disk: &MemoryStorage, name: &str, bytes: &[u8]) -> File {
    let file = create(disk, name);
    file.write_all_at(&[bytes], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file
}

fn read(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Everything on the disk.
fn content(disk: &MemoryStorage) -> Vec<(PathBuf, Vec<u8>)> {
    let files = disk.files().into_iter();
    files
        .map(|(path, _)| (path.clone(), disk.read_file(&path).unwrap()))
        .collect()
}

fn names(disk: &MemoryStorage) -> Vec<String> {
    disk.list(Path::new("/d")).unwrap()
}

fn kind<T: Debug>(result: io::Result<T>) -> io::ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn names_behave_like_a_file_system() {
    let disk = disk();
    let a = create(&disk, "a");
    create(&disk, "b");
    assert_eq!(names(&disk), ["a", "b"]);
    assert_eq!(
        kind(disk.open(&at("a"), OpenMode::CreateNew)),
        io::ErrorKind::AlreadyExists
    );
    assert_eq!(
        kind(disk.open(&at("c"), OpenMode::Existing)),
        io::ErrorKind::NotFound
    );
    let lost = Path::new("/no/such");
    assert_eq!(
        kind(disk.open(lost, OpenMode::CreateNew)),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        kind(disk.open(Path::new("/d"), OpenMode::CreateNew)),
        io::ErrorKind::AlreadyExists
    );
    assert_eq!(kind(disk.list(lost)), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.sync_dir(lost)), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.remove(&at("c"))), io::ErrorKind::NotFound);
    assert_eq!(
        kind(disk.rename(&at("c"), &at("a"))),
        io::ErrorKind::NotFound
    );
    assert_eq!(kind(disk.rename(&at("a"), lost)), io::ErrorKind::NotFound);
    assert_eq!(
        kind(disk.rename(&at("a"), Path::new("/d"))),
        io::ErrorKind::IsADirectory
    );
    assert_eq!(
        kind(disk.create_dir_all(&at("a").join("x"))),
        io::ErrorKind::AlreadyExists
    );
    a.write_all_at(&[b"from ", b"a"], 0).unwrap();
    disk.rename(&at("a"), &at("a")).unwrap();
    disk.rename(&at("a"), &at("b")).unwrap();
    assert_eq!(content(&disk), [(at("b"), b"from a".to_vec())]);
    let relative = disk.open(Path::new("./x"), OpenMode::CreateNew).unwrap();
    relative.set_len(3).unwrap();
    assert_eq!(disk.list(Path::new("")).unwrap(), ["x"]);
    assert_eq!(
        disk.files(),
        [(PathBuf::from("/d/b"), 6), (PathBuf::from("x"), 3)]
    );
}

#[test]
fn a_clone_is_the_same_disk_and_a_crash_is_another() {
    let disk = disk();
    let file = durable(&disk, "a", b"old");
    let crashed = disk.crash(Survivors::Synced);
    file.write_all_at(&[b"new"], 0).unwrap();
    assert_eq!(read(&open(&disk.clone(), "a")), b"new");
    assert_eq!(read(&open(&crashed, "a")), b"old");
    open(&crashed, "a").write_all_at(&[b"else"], 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(read(&file), b"new");
    assert_eq!(
        disk.crash(Survivors::Synced).read_file(at("a")).unwrap(),
        b"new"
    );
    assert_eq!(crashed.read_file(at("a")).unwrap(), b"else");
}

#[test]
fn synced_loses_what_was_not_synced() {
    let disk = disk();
    let file = durable(&disk, "a", b"durable");
    file.write_all_at(&[b"PENDING AND LONGER"], 0).unwrap();
    assert_eq!(
        disk.crash(Survivors::Synced).read_file(at("a")).unwrap(),
        b"durable"
    );
    file.set_len(2).unwrap();
    assert_eq!(
        disk.crash(Survivors::Synced).read_file(at("a")).unwrap(),
        b"durable"
    );
    file.allocate(9).unwrap();
    file.sync_data().unwrap();
    assert_eq!(
        disk.crash(Survivors::Synced).read_file(at("a")).unwrap(),
        b"PE\0\0\0\0\0\0\0"
    );
}

#[test]
fn all_is_a_kill_after_which_power_can_still_fail() {
    let disk = disk();
    durable(&disk, "a", b"old")
        .write_all_at(&[b"new"], 0)
        .unwrap();
    create(&disk, "b").write_all_at(&[b"b"], 0).unwrap();
    let killed = disk.crash(Survivors::All);
    assert_eq!(content(&killed), content(&disk));
    assert_eq!(killed.unsynced_bytes(), 4);
    assert_eq!(
        content(&killed.crash(Survivors::Synced)),
        [(at("a"), b"old".to_vec())]
    );
    open(&killed, "a").sync_data().unwrap();
    open(&killed, "b").sync_data().unwrap();
    killed.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(content(&killed.crash(Survivors::Synced)), content(&killed));
    assert_eq!(
        disk.unsynced_bytes(),
        4,
        "the killed disk's syncs are its own"
    );
}

#[test]
fn a_created_name_needs_its_directory_synced() {
    let disk = disk();
    let file = create(&disk, "a");
    file.write_all_at(&[b"synced"], 0).unwrap();
    file.sync_data().unwrap();
    assert!(names(&disk.crash(Survivors::Synced)).is_empty());
    disk.sync_dir(Path::new("/")).unwrap();
    assert!(
        names(&disk.crash(Survivors::Synced)).is_empty(),
        "that was the parent"
    );
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(
        disk.crash(Survivors::Synced).read_file(at("a")).unwrap(),
        b"synced"
    );
}

#[test]
fn a_rename_needs_its_directory_synced() {
    let disk = disk();
    durable(&disk, "a", b"old");
    durable(&disk, "tmp", b"new");
    disk.rename(&at("tmp"), &at("a")).unwrap();
    assert_eq!(content(&disk), [(at("a"), b"new".to_vec())]);
    let reverted = [(at("a"), b"old".to_vec()), (at("tmp"), b"new".to_vec())];
    assert_eq!(content(&disk.crash(Survivors::Synced)), reverted);
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(content(&disk.crash(Survivors::Synced)), content(&disk));
}

#[test]
fn a_rename_does_not_sync_the_bytes() {
    let disk = disk();
    durable(&disk, "a", b"old");
    create(&disk, "tmp").write_all_at(&[b"new"], 0).unwrap();
    disk.rename(&at("tmp"), &at("a")).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(
        content(&disk.crash(Survivors::Synced)),
        [(at("a"), Vec::new())]
    );
}

#[test]
fn a_rename_across_directories_needs_both_synced() {
    let (from, to) = (Path::new("/d/a"), Path::new("/e/a"));
    let start = disk();
    start.create_dir_all(Path::new("/e")).unwrap();
    durable(&start, "a", b"x");
    start.rename(from, to).unwrap();
    let after = |synced: &[&str]| {
        let disk = start.crash(Survivors::All);
        synced
            .iter()
            .for_each(|dir| disk.sync_dir(Path::new(dir)).unwrap());
        disk.crash(Survivors::Synced)
            .files()
            .into_iter()
            .map(|(path, _)| path)
            .collect::<Vec<_>>()
    };
    assert_eq!(after(&[]), [from]);
    assert_eq!(after(&["/e"]), [from, to]);
    assert_eq!(after(&["/d"]), Vec::<PathBuf>::new());
    assert_eq!(after(&["/d", "/e"]), [to]);
}

#[test]
fn a_removed_file_stays_readable_and_comes_back_unless_synced() {
    let disk = disk();
    let file = durable(&disk, "a", b"kept");
    disk.remove(&at("a")).unwrap();
    assert!(names(&disk).is_empty());
    assert_eq!(read(&file), b"kept");
    file.write_all_at(&[b"K"], 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(
        disk.crash(Survivors::Synced).read_file(at("a")).unwrap(),
        b"Kept"
    );
    assert!(names(&disk.crash(Survivors::All)).is_empty());
    disk.sync_dir(Path::new("/d")).unwrap();
    assert!(names(&disk.crash(Survivors::Synced)).is_empty());
    assert_eq!(read(&file), b"Kept");
    let new = create(&disk, "a");
    assert_eq!((read(&new), read(&file)), (Vec::new(), b"Kept".to_vec()));
}

#[test]
fn a_prefix_is_torn_at_the_exact_byte_across_files() {
    let disk = disk();
    let (a, b) = (durable(&disk, "a", b"......"), durable(&disk, "b", b""));
    a.write_all_at(&[b"12", b"3"], 0).unwrap();
    b.write_all_at(&[b"45"], 0).unwrap();
    a.write_all_at(&[b"678"], 3).unwrap();
    b.set_len(5).unwrap();
    let expected: [(&[u8], &[u8]); 10] = [
        (b"......", b""),
        (b"1.....", b""),
        (b"12....", b""),
        (b"123...", b""),
        (b"123...", b"4"),
        (b"123...", b"45"),
        (b"1236..", b"45"),
        (b"12367.", b"45"),
        (b"123678", b"45\0\0\0"),
        (b"123678", b"45\0\0\0"),
    ];
    assert_eq!(disk.unsynced_bytes(), 8);
    for (limit, (in_a, in_b)) in (0..).zip(expected) {
        let crashed = disk.crash(Survivors::Prefix(limit));
        let content = (
            crashed.read_file(at("a")).unwrap(),
            crashed.read_file(at("b")).unwrap(),
        );
        assert_eq!(content, (in_a.to_vec(), in_b.to_vec()), "limit {limit}");
        assert_eq!(crashed.unsynced_bytes(), 0);
    }
}

#[test]
fn a_prefix_keeps_the_names_issued_before_the_cut() {
    let disk = disk();
    let a = create(&disk, "a");
    a.write_all_at(&[b"12"], 0).unwrap();
    disk.rename(&at("a"), &at("b")).unwrap();
    create(&disk, "c").write_all_at(&[b"3"], 0).unwrap();
    disk.remove(&at("b")).unwrap();
    let after = |limit| names(&disk.crash(Survivors::Prefix(limit)));
    assert_eq!(after(0), ["a"]);
    assert_eq!(after(1), ["a"]);
    assert_eq!(after(2), ["b", "c"]);
    assert_eq!(after(3), ["c"]);
    a.sync_data().unwrap();
    assert_eq!(after(0), ["b", "c"], "synced bytes no longer count");
    assert_eq!(
        disk.crash(Survivors::Prefix(0)).read_file(at("b")).unwrap(),
        b"12"
    );
}

#[test]
fn sectors_survive_whole_and_in_every_combination() {
    let disk = disk();
    let file = durable(&disk, "a", &[1; 2048]);
    file.write_all_at(&[&[2; 1200]], 300).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..400 {
        let bytes = disk
            .crash(Survivors::Sectors(seed))
            .read_file(at("a"))
            .unwrap();
        assert_eq!(bytes.len(), 2048);
        let mut survived = Vec::new();
        for (index, sector) in bytes.chunks(512).enumerate() {
            let whole = |value: u8| {
                let written = 300..1500_usize;
                let byte = |i: usize| {
                    if written.contains(&(index * 512 + i)) {
                        value
                    } else {
                        1
                    }
                };
                sector
                    .iter()
                    .enumerate()
                    .all(|(i, &found)| found == byte(i))
            };
            assert!(
                whole(1) || whole(2),
                "sector {index} is torn with seed {seed}"
            );
            survived.push(!whole(1));
        }
        seen.insert(survived);
    }
    assert_eq!(seen.len(), 8, "three sectors were written");
}

#[test]
fn a_sector_never_holds_a_later_write_without_an_earlier_one() {
    let disk = disk();
    let file = durable(&disk, "a", &[0; 512]);
    (0..4).for_each(|i| file.write_all_at(&[&[1; 100]], i * 100).unwrap());
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let bytes = disk
            .crash(Survivors::Sectors(seed))
            .read_file(at("a"))
            .unwrap();
        let ones = bytes.iter().filter(|&&byte| byte == 1).count();
        assert!(bytes[..ones].iter().all(|&byte| byte == 1), "seed {seed}");
        seen.insert(ones);
    }
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        [0, 100, 200, 300, 400]
    );
}

#[test]
fn sectors_part_length_from_data_and_names_from_both() {
    let disk = disk();
    let file = durable(&disk, "a", &[1; 100]);
    create(&disk, "b");
    file.write_all_at(&[&[2; 412]], 100).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let crashed = disk.crash(Survivors::Sectors(seed));
        let bytes = crashed.read_file(at("a")).unwrap();
        assert_eq!(bytes[..100], [1; 100]);
        let tail = bytes.get(100).copied();
        assert!(bytes[100..].iter().all(|&byte| Some(byte) == tail));
        assert!([100, 512].contains(&bytes.len()));
        seen.insert((tail, names(&crashed).len()));
    }
    let tails = [None, Some(0), Some(2)];
    let all = tails.into_iter().flat_map(|tail| [(tail, 1), (tail, 2)]);
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        all.collect::<Vec<_>>()
    );
}

#[test]
fn sectors_flip_a_coin_for_every_change_of_length() {
    let disk = disk();
    let file = durable(&disk, "a", b"abcdef");
    file.set_len(2).unwrap();
    file.allocate(4).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        seen.insert(
            disk.crash(Survivors::Sectors(seed))
                .read_file(at("a"))
                .unwrap(),
        );
    }
    let expected: [&[u8]; 3] = [b"ab", b"ab\0\0", b"abcdef"];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_write_within_the_file_does_not_bring_its_length_along() {
    let disk = disk();
    let file = durable(&disk, "a", b"");
    file.set_len(600).unwrap();
    file.write_all_at(&[&[1; 100]], 0).unwrap();
    for seed in 0..100 {
        let bytes = disk
            .crash(Survivors::Sectors(seed))
            .read_file(at("a"))
            .unwrap();
        assert!([0, 600].contains(&bytes.len()), "seed {seed}");
    }
}

#[test]
fn a_lost_rename_does_not_let_a_removal_hit_another_file() {
    let disk = disk();
    durable(&disk, "a", b"old");
    durable(&disk, "tmp", b"new");
    disk.rename(&at("tmp"), &at("a")).unwrap();
    disk.remove(&at("a")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    (0..100).for_each(|seed| {
        seen.insert(names(&disk.crash(Survivors::Sectors(seed))));
    });
    let expected: [&[&str]; 3] = [&[], &["a"], &["a", "tmp"]];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn some_seeds_lose_little_and_some_nearly_all() {
    let disk = disk();
    durable(&disk, "a", &[0; 51_200])
        .write_all_at(&[&[1; 51_200]], 0)
        .unwrap();
    let survived = |seed| {
        let bytes = disk
            .crash(Survivors::Sectors(seed))
            .read_file(at("a"))
            .unwrap();
        bytes.iter().filter(|&&byte| byte == 1).count() / 512
    };
    let survived: Vec<usize> = (0..50).map(survived).collect();
    assert!(survived.iter().any(|&sectors| sectors < 25));
    assert!(survived.iter().any(|&sectors| sectors > 75));
}

#[test]
fn a_crash_of_a_crash_knows_old_from_new() {
    let disk = disk();
    durable(&disk, "a", b"...")
        .write_all_at(&[b"12"], 0)
        .unwrap();
    let killed = disk.crash(Survivors::All);
    create(&killed, "b").write_all_at(&[b"x"], 0).unwrap();
    open(&killed, "a").write_all_at(&[b"3"], 2).unwrap();
    let after = |limit| content(&killed.crash(Survivors::Prefix(limit)));
    assert_eq!(after(1), [(at("a"), b"1..".to_vec())]);
    assert_eq!(
        after(4),
        [(at("a"), b"123".to_vec()), (at("b"), b"x".to_vec())]
    );
    let lost = disk.crash(Survivors::Synced);
    create(&lost, "b").write_all_at(&[b"x"], 0).unwrap();
    let again = content(&lost.crash(Survivors::Prefix(1)));
    assert_eq!(
        again,
        [(at("a"), b"...".to_vec()), (at("b"), b"x".to_vec())]
    );
}

#[test]
fn data_cut_off_by_a_crash_never_shows_up_again() {
    let disk = disk();
    create(&disk, "a").write_all_at(&[&[7; 5000]], 0).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    for seed in 0..50 {
        let crashed = disk.crash(Survivors::Sectors(seed));
        let file = open(&crashed, "a");
        let len = file.len().unwrap() as usize;
        file.set_len(8192).unwrap();
        assert!(
            read(&file)[len..].iter().all(|&byte| byte == 0),
            "seed {seed}"
        );
    }
}

#[test]
fn a_seed_decides_everything() {
    let run = || {
        let disk = disk();
        for i in 0..6_u64 {
            let file = create(&disk, &format!("f{i}"));
            file.write_all_at(&[&[i as u8 + 1; 3000]], i * 700).unwrap();
            file.allocate(5000 + i).unwrap();
        }
        disk
    };
    let (left, right) = (run(), run());
    let crash = |disk: &MemoryStorage, seed| content(&disk.crash(Survivors::Sectors(seed)));
    for seed in 0..20 {
        assert_eq!(crash(&left, seed), crash(&right, seed));
        assert_eq!(crash(&left, seed), crash(&left, seed));
    }
    assert_ne!(crash(&left, 1), crash(&left, 2));
}

#[test]
fn a_write_fault_writes_half_and_stays() {
    let disk = disk();
    let file = create(&disk, "a");
    disk.fail(Fault::Write { after: 1 });
    file.write_all_at(&[b"abcd"], 0).unwrap();
    file.write_all_at(&[b"EF", b"GHI"], 4).unwrap_err();
    assert_eq!(read(&file), b"abcdEF");
    file.write_all_at(&[b"x"], 0).unwrap_err();
    assert_eq!(read(&file), b"abcdEF");
    disk.heal();
    file.write_all_at(&[b"x"], 0).unwrap();
    assert_eq!(read(&file), b"xbcdEF");
    assert_eq!((disk.counts().writes, disk.counts().bytes_written), (4, 7));
}

#[test]
fn a_failed_sync_that_drops_is_never_made_up_for() {
    let disk = disk();
    let file = durable(&disk, "a", b"0123456789");
    file.write_all_at(&[b"AB"], 0).unwrap();
    disk.fail(Fault::Sync {
        after: 0,
        dropped: true,
    });
    file.sync_data().unwrap_err();
    file.write_all_at(&[b"YZ"], 8).unwrap();
    file.write_all_at(&[b"!"], 12).unwrap();
    file.sync_data().unwrap();
    let lost = b"01234567YZ\0\0!".to_vec();
    let read_back = b"AB234567YZ\0\0!".to_vec();
    assert_eq!(read(&file), read_back);
    for survivors in [
        Survivors::Synced,
        Survivors::Prefix(u64::MAX),
        Survivors::Sectors(1),
    ] {
        assert_eq!(disk.crash(survivors).read_file(at("a")).unwrap(), lost);
    }
    let killed = disk.crash(Survivors::All);
    open(&killed, "a").sync_data().unwrap();
    assert_eq!(killed.read_file(at("a")).unwrap(), read_back);
    assert_eq!(
        killed.crash(Survivors::Synced).read_file(at("a")).unwrap(),
        lost
    );
}

#[test]
fn a_failed_sync_that_keeps_can_be_repeated() {
    let disk = disk();
    let (a, b) = (durable(&disk, "a", b"old"), durable(&disk, "b", b"old"));
    disk.fail(Fault::Sync {
        after: 1,
        dropped: false,
    });
    a.write_all_at(&[b"new"], 0).unwrap();
    b.sync_data().unwrap();
    a.sync_data().unwrap_err();
    assert_eq!(
        disk.crash(Survivors::Synced).read_file(at("a")).unwrap(),
        b"old"
    );
    a.sync_data().unwrap();
    assert_eq!(
        disk.crash(Survivors::Synced).read_file(at("a")).unwrap(),
        b"new"
    );
    assert_eq!(disk.counts().syncs, 4);
}

#[test]
fn a_failed_directory_sync_leaves_names_pending() {
    let disk = disk();
    create(&disk, "a");
    disk.fail(Fault::SyncDir { after: 0 });
    disk.sync_dir(Path::new("/d")).unwrap_err();
    assert!(names(&disk.crash(Survivors::Synced)).is_empty());
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(names(&disk.crash(Survivors::Synced)), ["a"]);
    assert_eq!(disk.counts().dir_syncs, 1);
}

#[test]
fn one_read_fails() {
    let disk = disk();
    let file = durable(&disk, "a", b"abc");
    disk.fail(Fault::Read { after: 1 });
    let mut bytes = [0; 3];
    assert_eq!(file.read_at(&mut bytes, 1).unwrap(), 2);
    file.read_at(&mut bytes, 0).unwrap_err();
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 3);
    assert_eq!((disk.counts().reads, disk.counts().bytes_read), (3, 5));
}

#[test]
fn a_full_disk_takes_what_fits_until_space_is_freed() {
    let full = io::ErrorKind::StorageFull;
    let disk = disk();
    let (a, b) = (durable(&disk, "a", b"1234"), durable(&disk, "b", &[0; 100]));
    disk.fail(Fault::Full { bytes: 10 });
    a.write_all_at(&[b"4321"], 0).unwrap();
    a.allocate(10).unwrap();
    assert_eq!(kind(a.allocate(15)), full);
    assert_eq!(kind(b.set_len(105)), full);
    assert_eq!((a.len().unwrap(), b.len().unwrap()), (10, 100));
    assert_eq!(kind(a.write_all_at(&[b"abc", b"defgh"], 8)), full);
    assert_eq!(read(&a), b"4321\0\0\0\0abcdef");
    assert_eq!(kind(a.write_all_at(&[b"x"], 14)), full);
    assert_eq!(kind(a.write_all_at(&[b"x"], 50)), full);
    a.write_all_at(&[b"x"], 13).unwrap();
    create(&disk, "c").write_all_at(&[b""], 0).unwrap();
    b.set_len(99).unwrap();
    a.write_all_at(&[b"x"], 14).unwrap();
    assert_eq!(kind(a.write_all_at(&[b"x"], 15)), full);
    disk.remove(&at("b")).unwrap();
    a.allocate(114).unwrap();
    assert_eq!(kind(a.allocate(115)), full);
    disk.heal();
    a.allocate(115).unwrap();
}

#[test]
fn short_reads_are_transparent_to_exact_reads() {
    let disk = disk();
    let bytes: Vec<u8> = (0..10_000_u32).map(|i| (i % 251) as u8).collect();
    let file = durable(&disk, "a", &bytes);
    disk.fail(Fault::ShortReads { seed: 9 });
    let (mut short, mut interrupted) = (0, 0);
    for _ in 0..100 {
        match file.read_at(&mut [0; 1000], 0) {
            Ok(1000) => {}
            Ok(count) => {
                assert!((1..1000).contains(&count));
                short += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::Interrupted);
                interrupted += 1;
            }
        }
    }
    assert!(short > 10 && interrupted > 2);
    (0..50).for_each(|_| assert_eq!(read(&file), bytes));
    assert_eq!(
        kind(file.read_exact_at(&mut [0; 2], 9999)),
        io::ErrorKind::UnexpectedEof
    );
}

#[test]
fn locks_exclude_each_other_until_dropped_or_crashed() {
    let disk = disk();
    let lock = disk.lock(&at("lock")).unwrap();
    assert_eq!(names(&disk), ["lock"]);
    assert_eq!(
        kind(disk.clone().lock(&at("./lock"))),
        io::ErrorKind::WouldBlock
    );
    let other = disk.lock(&at("other")).unwrap();
    let crashed = disk.crash(Survivors::All);
    let theirs = crashed.lock(&at("lock")).unwrap();
    drop(lock);
    let again = disk.lock(&at("lock")).unwrap();
    assert_eq!(kind(crashed.lock(&at("lock"))), io::ErrorKind::WouldBlock);
    assert_eq!(kind(disk.lock(&at("other"))), io::ErrorKind::WouldBlock);
    drop((other, theirs, again));
    assert_eq!(
        kind(disk.lock(Path::new("/no/such"))),
        io::ErrorKind::NotFound
    );
    assert_eq!(disk.operations(), 3, "two creates and the one that failed");
}

#[test]
fn every_mutating_operation_counts_and_stops() {
    type Step = fn(&MemoryStorage, &File) -> io::Result<()>;
    let steps: [Step; 9] = [
        |_, file| file.write_all_at(&[b"new"], 0),
        |_, file| file.set_len(1),
        |_, file| file.allocate(50),
        |_, file| file.sync_data(),
        |disk, _| disk.open(&at("b"), OpenMode::CreateNew).map(drop),
        |disk, _| disk.rename(&at("b"), &at("c")),
        |disk, _| disk.link(&at("a"), &at("e")),
        |disk, _| disk.remove(&at("c")),
        |disk, _| disk.sync_dir(Path::new("/d")),
    ];
    for stop in 0..=steps.len() {
        let disk = disk();
        disk.write_file(at("a"), b"old").unwrap();
        assert_eq!(disk.operations(), 0);
        let file = open(&disk, "a");
        disk.stop_at(stop as u64);
        for (index, step) in steps.iter().enumerate() {
            let before = (
                content(&disk),
                disk.counts(),
                content(&disk.crash(Survivors::Synced)),
            );
            let result = step(&disk, &file);
            assert_eq!(result.is_ok(), index < stop, "step {index}, stop {stop}");
            if let Err(error) = result {
                assert_eq!(error.to_string(), "simulated power loss");
                assert_eq!(error.kind(), io::ErrorKind::Other);
                let after = (
                    content(&disk),
                    disk.counts(),
                    content(&disk.crash(Survivors::Synced)),
                );
                assert_eq!(before, after);
            }
        }
        assert_eq!(disk.operations(), stop as u64);
        disk.create_dir_all(Path::new("/new/one")).unwrap_err();
        disk.list(Path::new("/new")).unwrap_err();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let crashed = disk.crash(Survivors::All);
        assert_eq!(
            (crashed.operations(), crashed.counts()),
            (0, Counts::default())
        );
        create(&crashed, "d");
    }
}

#[test]
fn a_crash_leaves_a_healthy_disk() {
    let disk = disk();
    durable(&disk, "a", b"abc");
    disk.fail(Fault::Write { after: 0 });
    disk.fail(Fault::Sync {
        after: 0,
        dropped: true,
    });
    disk.fail(Fault::Full { bytes: 0 });
    for survivors in [Survivors::Synced, Survivors::All, Survivors::Sectors(3)] {
        let file = open(&disk.crash(survivors), "a");
        file.write_all_at(&[b"longer"], 0).unwrap();
        file.sync_data().unwrap();
    }
}

#[test]
fn damage_is_durable_and_seen_by_everybody() {
    let disk = disk();
    let file = create(&disk, "a");
    file.write_all_at(&[b"pending"], 0).unwrap();
    disk.write_file(at("a"), b"damage").unwrap();
    disk.write_file("/new/dir/b", b"b").unwrap();
    assert_eq!(read(&file), b"damage");
    let expected = [
        (at("a"), b"damage".to_vec()),
        (PathBuf::from("/new/dir/b"), b"b".to_vec()),
    ];
    assert_eq!(content(&disk.crash(Survivors::Synced)), expected);
    assert_eq!((disk.operations(), disk.counts().writes), (2, 1));
    disk.remove_file(at("a")).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(disk.read_file(at("a")), None);
    assert_eq!(content(&disk.crash(Survivors::Synced)), expected[1..]);
    create(&disk, "c");
    disk.remove_file(at("c")).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(content(&disk.crash(Survivors::Synced)), expected[1..]);
    assert_eq!(kind(disk.write_file("/", b"")), io::ErrorKind::InvalidInput);
}

#[test]
fn damage_outlives_pending_changes_of_the_name() {
    let disk = disk();
    create(&disk, "a");
    disk.remove(&at("a")).unwrap();
    disk.write_file(at("a"), b"planted").unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(content(&disk), [(at("a"), b"planted".to_vec())]);
    assert_eq!(content(&disk.crash(Survivors::Synced)), content(&disk));
}

#[test]
fn nothing_can_be_written_past_the_largest_offset() {
    let disk = disk();
    let file = create(&disk, "a");
    assert_eq!(
        kind(file.write_all_at(&[b"ab"], u64::MAX)),
        io::ErrorKind::InvalidInput
    );
    assert!(file.is_empty().unwrap());
    assert_eq!(file.read_at(&mut [0; 4], u64::MAX).unwrap(), 0);
}

#[test]
fn a_link_is_the_same_file_and_pending_until_its_directory_is_synced() {
    let disk = disk();
    disk.create_dir_all(Path::new("/e")).unwrap();
    let file = durable(&disk, "a", b"old");
    let other = Path::new("/e/b");
    disk.link(&at("a"), other).unwrap();
    assert!(file.is_linked().unwrap());
    assert_eq!(
        kind(disk.link(&at("a"), other)),
        io::ErrorKind::AlreadyExists
    );
    assert_eq!(kind(disk.link(&at("x"), &at("y"))), io::ErrorKind::NotFound);
    file.write_all_at(&[b"new"], 0).unwrap();
    assert_eq!(disk.read_file(other).unwrap(), b"new");
    let lost = disk.crash(Survivors::Synced);
    assert_eq!(lost.read_file(other), None);
    assert!(!open(&lost, "a").is_linked().unwrap());
    disk.sync_dir(Path::new("/e")).unwrap();
    disk.remove(&at("a")).unwrap();
    assert!(!file.is_linked().unwrap());
    disk.sync_dir(Path::new("/d")).unwrap();
    // The name is durable, what was written since the file was synced is not.
    let crashed = disk.crash(Survivors::Synced);
    assert_eq!(crashed.read_file(other).unwrap(), b"old");
    file.sync_data().unwrap();
    let crashed = disk.crash(Survivors::Synced);
    assert_eq!(crashed.read_file(other).unwrap(), b"new");
}

#[test]
fn a_linked_file_takes_its_space_once() {
    let disk = disk();
    let file = durable(&disk, "a", &[1; 100]);
    disk.link(&at("a"), &at("b")).unwrap();
    disk.fail(Fault::Full { bytes: 10 });
    file.allocate(110).unwrap();
    assert_eq!(kind(file.allocate(111)), io::ErrorKind::StorageFull);
    disk.remove(&at("a")).unwrap();
    assert_eq!(kind(file.allocate(111)), io::ErrorKind::StorageFull);
}

#[derive(Clone, Debug)]
enum Step {
    Link(u8, u8),
    Write(u8, u16, u16),
    SetLen(u8, u16),
    Sync(u8),
    Create(u8),
    Rename(u8, u8),
    Remove(u8),
    SyncDir,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..3_u8;
    prop_oneof![
        6 => (name.clone(), 0..3000_u16, 1..3000_u16).prop_map(|(f, at, n)| Step::Write(f, at, n)),
        1 => (name.clone(), 0..5000_u16).prop_map(|(f, len)| Step::SetLen(f, len)),
        2 => name.clone().prop_map(Step::Sync),
        4 => name.clone().prop_map(Step::Create),
        2 => (name.clone(), name.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        2 => (name.clone(), name.clone()).prop_map(|(from, to)| Step::Link(from, to)),
        1 => name.prop_map(Step::Remove),
        2 => Just(Step::SyncDir),
    ]
}

/// Runs a step; one that makes no sense at the moment fails and changes nothing.
fn run(disk: &MemoryStorage, index: usize, step: &Step) {
    let path = |name: u8| at(&name.to_string());
    let file = |name: u8| disk.open(&path(name), OpenMode::Existing);
    let _ = match *step {
        Step::Write(name, offset, len) => file(name).and_then(|file| {
            file.write_all_at(
                &[&vec![index as u8 + 1; usize::from(len)]],
                u64::from(offset),
            )
        }),
        Step::SetLen(name, len) => file(name).and_then(|file| file.set_len(u64::from(len))),
        Step::Sync(name) => file(name).and_then(|file| file.sync_data()),
        Step::Create(name) => disk.open(&path(name), OpenMode::CreateNew).map(drop),
        Step::Link(from, to) => disk.link(&path(from), &path(to)),
        Step::Rename(from, to) => disk.rename(&path(from), &path(to)),
        Step::Remove(name) => disk.remove(&path(name)),
        Step::SyncDir => disk.sync_dir(Path::new("/d")),
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The limits of each kind of crash agree with each other, whatever happened before.
    #[test]
    fn kinds_of_crash_agree(steps in prop::collection::vec(step(), 1..30), seed: u64) {
        let disk = disk();
        steps.iter().enumerate().for_each(|(index, step)| run(&disk, index, step));
        let now = content(&disk);
        let limit = disk.unsynced_bytes();
        prop_assert_eq!(&content(&disk.crash(Survivors::All)), &now);
        prop_assert_eq!(&content(&disk.crash(Survivors::Prefix(limit))), &now);
        let killed = disk.crash(Survivors::All);
        for survivors in [Survivors::Synced, Survivors::Sectors(seed), Survivors::Prefix(seed)] {
            let crashed = content(&disk.crash(survivors));
            prop_assert_eq!(&content(&killed.crash(survivors)), &crashed);
        }
        prop_assert_eq!(&content(&disk), &now);

        for (path, _) in disk.files() {
            disk.open(&path, OpenMode::Existing).unwrap().sync_data().unwrap();
        }
        disk.sync_dir(Path::new("/d")).unwrap();
        prop_assert_eq!(disk.unsynced_bytes(), 0);
        for survivors in [Survivors::Synced, Survivors::Sectors(seed), Survivors::Prefix(0)] {
            prop_assert_eq!(&content(&disk.crash(survivors)), &now);
        }
    }

    /// Stopping before a step and crashing equals never having run it.
    #[test]
    fn a_stopped_script_is_a_shorter_script(
        steps in prop::collection::vec(step(), 1..30),
        stop in 0..30_u64,
        seed: u64,
    ) {
        let (stopped, shorter) = (disk(), disk());
        stopped.stop_at(stop);
        for (index, step) in steps.iter().enumerate() {
            run(&stopped, index, step);
            if shorter.operations() < stop {
                run(&shorter, index, step);
            }
        }
        for survivors in [Survivors::Synced, Survivors::All, Survivors::Sectors(seed)] {
            let (left, right) = (stopped.crash(survivors), shorter.crash(survivors));
            prop_assert_eq!(content(&left), content(&right));
        }
    }
}

#[test]
fn a_lost_sync_says_that_it_succeeded() {
    let disk = disk();
    let file = durable(&disk, "a", b"old");
    let all = |percent| Fault::LostSyncs { seed: 7, percent };
    disk.fail(all(100));
    file.write_all_at(&[b"new"], 0).unwrap();
    file.sync_data().unwrap();
    create(&disk, "b");
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(read(&file), b"new");
    let crashed = disk.crash(Survivors::Synced);
    assert_eq!(content(&crashed), [(at("a"), b"old".to_vec())]);
    disk.heal();
    file.sync_data().unwrap();
    let crashed = disk.crash(Survivors::Synced);
    assert_eq!(content(&crashed), [(at("a"), b"new".to_vec())]);
    disk.fail(all(50));
    (0..100).for_each(|_| file.sync_data().unwrap());
    let lost = disk.strikes()["lost syncs"];
    assert!((30..70).contains(&lost), "about half of them: {lost}");
}

#[test]
fn a_misdirected_write_lands_elsewhere_once() {
    let disk = disk();
    let file = durable(&disk, "a", b"........");
    disk.fail(Fault::Misdirected { after: 1, by: 3 });
    file.write_all_at(&[b"1"], 0).unwrap();
    file.write_all_at(&[b"2"], 1).unwrap();
    file.write_all_at(&[b"3"], 2).unwrap();
    assert_eq!(read(&file), b"1.3.2...");
    file.sync_data().unwrap();
    let crashed = disk.crash(Survivors::Synced);
    assert_eq!(read(&open(&crashed, "a")), b"1.3.2...");
    assert_eq!(disk.strikes(), BTreeMap::from([("misdirected writes", 1)]));
}

#[test]
fn a_flipped_bit_is_flipped_for_everybody_and_for_good() {
    let disk = disk();
    let file = durable(&disk, "a", b"AAAA");
    file.write_all_at(&[b"B"], 3).unwrap();
    disk.flip(at("a"), 1, 3).unwrap();
    assert_eq!(read(&file), b"ABAB");
    assert_eq!(read(&open(&disk.crash(Survivors::Synced), "a")), b"ABAA");
    assert_eq!(read(&open(&disk.crash(Survivors::All), "a")), b"ABAB");
    let past_the_end = disk.flip(at("a"), 4, 1);
    assert_eq!(kind(past_the_end), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.flip(at("b"), 0, 1)), io::ErrorKind::NotFound);
    let crashed = disk.crash(Survivors::All);
    assert_eq!(crashed.strikes(), BTreeMap::new(), "a disk of its own");
}
