//! Read-only file systems, and files that belong to somebody else.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use highwater::{Error, Options, Store};
use serde_json::json;

use crate::child::{can, plays};

fn create(path: &Path) {
    let store = Store::open(path).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let _ = feed.batch_save(&[json!({"id": 1})]).unwrap();
    store.close().unwrap();
}

/// An error of the system, about a file in `place`.
#[track_caller]
fn refused(opened: highwater::Result<Store>, place: &Path) {
    match opened {
        Err(Error::Io { path, .. } | Error::Catalog { path, .. }) => {
            assert!(path.starts_with(place), "{path:?}");
        }
        other => panic!("{other:?}"),
    }
}

fn content(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(content(&path)),
            false => files.push((path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    files.sort();
    files
}

#[test]
fn a_read_only_file_system_is_told_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    create(&path);
    let before = content(&path);
    let bound = "mount --bind \"$PLACE\" \"$PLACE\" && mount -o remount,bind,ro \"$PLACE\"";
    let trial = "PLACE=/tmp unshare -rm sh -c ".to_owned() + &quoted(bound);
    if can("a read-only mount", &trial) {
        let inner = quoted(&format!("{bound} && exec \"$@\""));
        plays(
            "read-only",
            &path,
            &format!("exec unshare -rm sh -c {inner} sh \"$@\""),
        );
        assert!(
            content(&path) == before,
            "a store that cannot be written was changed"
        );
    }
    create(&path);
}

fn quoted(shell: &str) -> String {
    format!("'{shell}'")
}

/// In a store on a file system that cannot be written.
pub fn open_what_cannot_be_written(place: &Path) {
    refused(Store::open(place), place);
    refused(Options::new().create(false).open(place), place);
    refused(Options::new().rebuild(place), place);
    let new = place.join("new");
    refused(Store::open(&new), &new);
}

/// An unprivileged user, to whom permissions apply.
const NOBODY: u32 = 65_534;

#[test]
fn missing_permissions_are_told_with_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    create(&path);
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|me| {
        use std::os::unix::fs::MetadataExt;
        me.uid() == 0
    });
    let mut shell = "exec \"$@\"".to_owned();
    if is_root {
        let user = format!("setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups");
        let program = std::env::current_exe().unwrap();
        let trial = format!("{user} test -x '{}'", program.display());
        if !can("running as another user", &trial) {
            return;
        }
        shell = format!("exec {user} \"$@\"");
        let owned = |path: &Path| chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        owned(dir.path());
        owned(&path);
        owned(&path.join("log"));
        content(&path).iter().for_each(|(path, _)| owned(path));
    }
    plays("no permission", &path, &shell);
}

/// In a store whose files belong to whoever runs this.
pub fn open_without_permission(place: &Path) {
    let before = content(place);
    let allow = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for (path, _) in &before {
        for mode in [0, 0o400] {
            allow(path, mode);
            refused_by(Store::open(place), path);
            allow(path, 0o600);
        }
    }
    for dir in [place.to_owned(), place.join("log")] {
        // Nothing can be created, or nothing be found.
        for mode in [0, 0o500] {
            allow(&dir, mode);
            match Store::open(place) {
                Err(Error::Io { path, .. } | Error::Catalog { path, .. }) => {
                    assert!(path.starts_with(place));
                }
                // What need not be created is no reason to fail.
                Ok(store) => drop(store.close()),
                Err(error) => panic!("{dir:?} {mode:o}: {error:?}"),
            }
            allow(&dir, 0o700);
        }
    }
    let store = Store::open(place).unwrap();
    assert_eq!(store.feed("c", "m").unwrap().count().unwrap(), 1);
}

/// The error names the file, or the catalog was made anew in its place.
#[track_caller]
fn refused_by(opened: highwater::Result<Store>, file: &Path) {
    match opened {
        Err(Error::Io { path, source, .. }) => {
            assert_eq!(path, file);
            assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
        }
        Err(Error::Catalog { path, .. }) => assert_eq!(path, file),
        other => panic!("{file:?}: {other:?}"),
    }
}

#[test]
fn everything_a_store_makes_is_for_its_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a").join("store");
    let options = Options::new().segment_size(16 << 10).eager_compaction(true);
    let store = options.index_limits_of(2000, 1000).open(&path).unwrap();
    let feed = store.feed("c", "m").unwrap();
    for round in 0..20 {
        let records: Vec<_> = (0..50)
            .map(|id| json!({"id": id + 20 * round, "round": round}))
            .collect();
        let _ = feed.batch_save(&records).unwrap();
    }
    let _ = store.compact().unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let files = content(&path);
    let has = |end: &str| {
        files
            .iter()
            .any(|(path, _)| path.to_string_lossy().ends_with(end))
    };
    assert!(has(".seg") && has(".pack") && has(".run"), "{files:?}");
    for (file, _) in &files {
        assert_eq!(mode(file), 0o600, "{file:?}");
        let mut dir = file.parent().unwrap();
        while dir != path.parent().unwrap().parent().unwrap() {
            assert_eq!(mode(dir), 0o700, "{dir:?}");
            dir = dir.parent().unwrap();
        }
    }
}
