//! Files that are gone, cut, doubled, or somebody else's.

use highwater::storage::Survivors;

use crate::examiner::Examiner;
use crate::stores::{CATALOG, build, build_all_kinds, build_foreign, files, segments};

/// Cuts the file short, doubles it and so on.
fn misshapen(bytes: &[u8], other: &[u8]) -> Vec<(&'static str, Option<Vec<u8>>)> {
    let len = bytes.len();
    vec![
        ("missing", None),
        ("empty", Some(Vec::new())),
        ("one byte", Some(bytes[..len.min(1)].to_vec())),
        ("100 bytes", Some(bytes[..len.min(100)].to_vec())),
        ("half", Some(bytes[..len / 2].to_vec())),
        (
            "a byte short",
            Some(bytes[..len.saturating_sub(1)].to_vec()),
        ),
        ("a byte long", Some([bytes, &[0]].concat())),
        ("a foreign byte long", Some([bytes, &[0xA5]].concat())),
        ("4 KiB long", Some([bytes, &[0; 4096]].concat())),
        ("doubled", Some([bytes, bytes].concat())),
        ("zeroed", Some(vec![0; len])),
        ("another file's", Some(other.to_vec())),
        ("text", Some(b"not what it was".repeat(99))),
    ]
}

#[test]
fn any_file_in_any_wrong_shape() {
    let disk = build();
    let mut examiner = Examiner::new(&disk);
    let mut paths = segments(&disk);
    paths.push(CATALOG.to_owned());
    for (at, path) in paths.iter().enumerate() {
        let bytes = disk.read_file(path).unwrap();
        let next = &paths[(at + 1) % paths.len()];
        let other = disk.read_file(next).unwrap();
        for (shape, content) in misshapen(&bytes, &other) {
            // Without a catalog nothing knows how far the last segment went.
            let last = at + 2 >= paths.len();
            for catalog in [true, last] {
                let copy = disk.crash(Survivors::All);
                if !catalog {
                    copy.remove_file(CATALOG).unwrap();
                }
                match &content {
                    Some(content) => copy.write_file(path, content).unwrap(),
                    None => copy.remove_file(path).unwrap(),
                }
                examiner.examine(&copy, &format!("{path} {shape}, catalog {catalog}"));
            }
        }
        let copy = disk.crash(Survivors::All);
        copy.write_file(path, &other).unwrap();
        copy.write_file(next, &bytes).unwrap();
        examiner.examine(&copy, &format!("{path} swapped with {next}"));
    }
    examiner.finish("shapes");
}

#[test]
fn files_that_do_not_belong() {
    let disk = build();
    let mut examiner = Examiner::new(&disk);
    let foreign = build_foreign();
    let last = segments(&disk).pop().unwrap();
    let extra = disk.read_file(&last).unwrap();
    let theirs = foreign.read_file("/s/log/0000000001.seg").unwrap();
    for (path, bytes) in [
        ("/s/notes.txt", &extra),
        ("/s/log/notes.txt", &extra),
        ("/s/log/0000000009.seg", &extra),
        ("/s/log/0000000009.seg", &theirs),
        ("/s/log/0000000001.seg", &theirs),
        ("/s/log/0000000000.seg", &extra),
        ("/s/log/9.seg", &extra),
        ("/s/log/0000000009.tmp", &extra),
        ("/s/log/0000000001.seg.bak", &theirs),
    ] {
        let copy = disk.crash(Survivors::All);
        copy.write_file(path, bytes).unwrap();
        examiner.examine(&copy, &format!("extra {path}"));
    }
    let copy = disk.crash(Survivors::All);
    let catalog = foreign.read_file(CATALOG).unwrap();
    copy.write_file(CATALOG, &catalog).unwrap();
    examiner.examine(&copy, "another store's catalog");
    // The catalog is derived data: no catalog of any other store gets in the way.
    let counts = (examiner.unharmed, examiner.refused);
    examiner.finish("strangers");
    assert_eq!(counts, (6, 4));
}

/// Each kind of file in each wrong shape, and in each wrong place.
#[test]
fn every_kind_of_file_in_any_wrong_shape_and_place() {
    let disk = build_all_kinds();
    let mut examiner = Examiner::new(&disk);
    let mut shapes = 0;
    for end in [".seg", ".pack", ".run", ".redb", "LOCK"] {
        let paths = files(&disk, end);
        for (path, other) in paths.iter().zip(paths.iter().cycle().skip(1)) {
            let bytes = disk.read_file(path).unwrap();
            let theirs = disk.read_file(other).unwrap();
            for (shape, content) in misshapen(&bytes, &theirs) {
                let copy = disk.crash(Survivors::All);
                match content {
                    Some(content) => copy.write_file(path, &content).unwrap(),
                    None => copy.remove_file(path).unwrap(),
                }
                examiner.examine(&copy, &format!("{path} {shape}"));
                shapes += 1;
            }
            let name = path.rsplit('/').next().unwrap();
            for place in ["/s", "/s/log", "/s/index", "/s/log/log"] {
                for is_moved in [true, false] {
                    let copy = disk.crash(Survivors::All);
                    let target = format!("{place}/{name}");
                    if is_moved {
                        copy.remove_file(path).unwrap();
                    }
                    copy.write_file(&target, &bytes).unwrap();
                    examiner.examine(&copy, &format!("{path} as {target}, moved: {is_moved}"));
                    shapes += 1;
                }
            }
        }
    }
    assert!(shapes > 100, "{shapes}");
    examiner.finish(&format!("{shapes} shapes and places"));
}
