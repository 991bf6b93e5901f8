//! `highwater backup`, `restore`, `verify` and `repair` from the outside.
#![cfg(feature = "cli")]
#![expect(
    clippy::disallowed_methods,
    reason = "the test damages files behind the store's back"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use highwater::Store;
use tempfile::TempDir;

fn shell() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    let feed = store.feed("c", "M").unwrap();
    let _ = feed
        .batch_save_raw(&[("a", "one"), ("b", "two"), ("c", "three")])
        .unwrap();
    store.close().unwrap();
    dir
}

/// Runs a command; its output and exit code.
fn run(dir: &TempDir, args: &str) -> (String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command
        .current_dir(dir.path())
        .args(args.split(' '))
        .stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        String::from_utf8(text).unwrap(),
        output.status.code().unwrap(),
    )
}

/// How many lines of a command's output are records.
fn records(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with('{')).count()
}

fn damage(dir: &Path, wanted: &[u8]) -> PathBuf {
    let log = fs::read_dir(dir.join("log")).unwrap();
    for path in log.map(|entry| entry.unwrap().path()) {
        let mut bytes = fs::read(&path).unwrap();
        let mut windows = bytes.windows(wanted.len());
        if let Some(at) = windows.position(|bytes| bytes == wanted) {
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            return path;
        }
    }
    panic!("not in the log");
}

#[test]
fn a_store_is_backed_up_and_restored() {
    let dir = shell();
    let (text, code) = run(&dir, "--store store backup backup");
    assert!(
        code == 0 && text.starts_with("backed up to backup: "),
        "{text}"
    );
    let (text, code) = run(&dir, "--store store backup backup");
    assert!(code == 0, "a second one: {text}");
    let (text, code) = run(&dir, "restore backup restored");
    assert!(code == 0 && text.contains("no damage in "), "{text}");
    let (text, _) = run(&dir, "--store restored feed -c c -m M");
    assert_eq!(records(&text), 3, "{text}");
    let (text, code) = run(&dir, "restore backup restored");
    assert!(
        code == 1 && text.contains("holds something else already"),
        "{text}"
    );
    let (text, code) = run(&dir, "restore nowhere there");
    assert!(
        code == 1 && text.contains("there is no backup in nowhere"),
        "{text}"
    );
    let (text, code) = run(&dir, "--store nowhere backup there");
    assert!(
        code == 1 && text.contains("there is no store in nowhere"),
        "{text}"
    );
}

#[test]
fn damage_is_listed_and_repaired_around() {
    let dir = shell();
    let (text, code) = run(&dir, "--store store verify --rate 100");
    assert!(code == 0 && text.ends_with("no damage\n"), "{text}");
    let path = damage(&dir.path().join("store"), b"two");
    let (text, code) = run(&dir, "--store store verify");
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains(path.file_name().unwrap().to_str().unwrap()),
        "{text}"
    );
    assert!(text.contains("is damaged at byte"), "{text}");
    assert!(text.contains("affected: c/M"), "{text}");

    let (text, code) = run(&dir, "repair store repaired");
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("lost: c/M") && text.contains(" of b\n"),
        "{text}"
    );
    assert!(
        text.contains("repaired to repaired: 2 records of 1 feed"),
        "{text}"
    );
    let (text, code) = run(&dir, "--store repaired verify");
    assert!(code == 0, "{text}");
    let (text, _) = run(&dir, "--store repaired feed -c c -m M");
    assert_eq!(records(&text), 2, "{text}");

    // With nothing damaged nothing is lost.
    let (text, code) = run(&dir, "repair repaired again");
    assert!(code == 0 && text.ends_with("nothing is lost\n"), "{text}");
    let (text, code) = run(&dir, "repair nowhere there");
    assert!(code == 1 && text.contains("nowhere"), "{text}");
}

#[test]
fn a_store_in_use_is_not_repaired() {
    let dir = shell();
    let store = Store::open(dir.path().join("store")).unwrap();
    let (text, code) = run(&dir, "repair store repaired");
    assert!(code == 3 && text.contains("is open in process"), "{text}");
    drop(store);
}
