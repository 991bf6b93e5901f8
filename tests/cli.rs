//! The `highwater` command from the outside, one process per command as a user runs it.
#![cfg(feature = "cli")]
#![expect(
    clippy::disallowed_methods,
    reason = "input files are no part of a store"
)]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use flate2::{Compression, write::GzEncoder};
use highwater::Store;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory with a store that commands work on.
struct Shell {
    dir: TempDir,
}

impl Shell {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { dir }
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        command.current_dir(self.dir.path());
        command.args(["--store", "store"]).args(args.split(' '));
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, args: &str) -> Output {
        self.command(args).output().expect("the command runs")
    }

    /// Standard output of a command that succeeds.
    fn ok(&self, args: &str) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    fn lines(&self, args: &str) -> Vec<Value> {
        let text = self.ok(args);
        let line = |line| serde_json::from_str(line).expect("a line of JSON");
        text.lines().map(line).collect()
    }

    /// Feeds `input` to a command on standard input.
    fn pipe(&self, args: &str, input: &[u8]) -> Output {
        let mut command = self.command(args);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command runs");
        let mut stdin = child.stdin.take().expect("standard input");
        stdin.write_all(input).expect("written");
        drop(stdin);
        child.wait_with_output().expect("the command ends")
    }

    /// The error and exit code of a command that fails.
    fn fails(&self, args: &str) -> (String, i32) {
        let output = self.run(args);
        assert!(!output.status.success(), "{args} succeeded");
        (stderr(&output), output.status.code().expect("an exit code"))
    }

    fn file(&self, name: &str, content: &[u8]) {
        fs::write(self.dir.path().join(name), content).expect("written");
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn ids(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .filter_map(|line| line["id"].as_str())
        .collect()
}

const THREE: &[u8] = b"{\"id\":\"a\",\"n\":1}\n\n{\"id\":\"b\",\"n\":2}\n{\"id\":3,\"n\":3}";

#[test]
fn import_and_feed() {
    let shell = Shell::new();
    shell.file("three.ndjson", THREE);
    let text = shell.ok("import -c c -m M three.ndjson");
    assert!(
        text.starts_with("added 3  updated 0  unchanged 0  duplicate 0"),
        "{text}"
    );

    // The same values in another spelling are the same records; one has changed.
    let again = b"{\"n\":1.0, \"id\":\"a\"}\n{\"n\":9,\"id\":\"b\"}\n{\"id\":\"a\"}\n";
    let output = shell.pipe("import --connection c --model M -", again);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.starts_with("added 0  updated 1  unchanged 1  duplicate 1"),
        "{text}"
    );

    let lines = shell.lines("feed -c c -m M");
    assert_eq!(ids(&lines), ["a", "3", "b"]);
    assert_eq!(lines[2]["action"], "UPDATED");
    assert_eq!(lines[2]["record"], json!({"id": "b", "n": 9}));
    assert_eq!(lines[2]["deleted_at"], Value::Null);

    // The variant is another feed.
    assert_eq!(shell.ok("feed -c c -m M --variant v"), "");
}

#[test]
fn import_unzips() {
    let shell = Shell::new();
    let mut zip = GzEncoder::new(Vec::new(), Compression::fast());
    zip.write_all(THREE).expect("zipped");
    let zipped = zip.finish().expect("zipped");
    shell.file("three", &zipped);
    let text = shell.ok("import -c c -m M three");
    assert!(text.starts_with("added 3 "), "{text}");
    let output = shell.pipe("import -c c -m M", &zipped);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.starts_with("added 0  updated 0  unchanged 3 "),
        "{text}"
    );

    shell.file("cut", &zipped[..zipped.len() - 10]);
    let (error, code) = shell.fails("import -c c -m N cut");
    assert!(error.contains("cannot read line"), "{error}");
    assert_eq!(code, 1);
}

#[test]
fn a_bad_line_is_named_and_its_batch_is_not_saved() {
    let shell = Shell::new();
    let table: [(&[u8], &str); 4] = [
        (b"{\"id\":5", "line 5: it is not JSON"),
        (b"{\"n\":5}", "line 5: it has no id"),
        (b"[]", "line 5: it is not a JSON object"),
        (b"{\"id\":\"\xff\"}", "line 5: it is not JSON"),
    ];
    for (at, (bad, expected)) in table.into_iter().enumerate() {
        let lines = [THREE, bad, b"{\"id\":6}"].join(&b'\n');
        shell.file("bad.ndjson", &lines);
        let args = format!("import -c c -m M{at} --batch 2 bad.ndjson");
        let output = shell.run(&args);
        let error = stderr(&output);
        assert!(
            error.contains("bad.ndjson") && error.contains(expected),
            "{error}"
        );
        assert!(
            error.contains("nothing from line 4 on was imported"),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.starts_with(b"added 2 "));
        assert_eq!(
            ids(&shell.lines(&format!("feed -c c -m M{at}"))),
            ["a", "b"]
        );
    }
}

#[test]
fn another_field_can_be_the_id() {
    let shell = Shell::new();
    shell.file("keys", b"{\"key\":\"x\",\"n\":1}\n{\"n\":1,\"key\":70}\n");
    let _ = shell.ok("import -c c -m M --id-field key keys");
    let lines = shell.lines("feed -c c -m M");
    assert_eq!(ids(&lines), ["x", "70"]);
    assert_eq!(lines[1]["record"], json!({"id": 70, "n": 1, "key": 70}));

    // It is compared as a value: another spelling is no change.
    shell.file("keys", b"{\"n\":1e0,\"key\":\"x\"}\n");
    let text = shell.ok("import -c c -m M --id-field key --relaxed keys");
    assert!(
        text.starts_with("added 0  updated 0  unchanged 1 "),
        "{text}"
    );

    for bad in ["{\"n\":1}", "{\"key\":1,\"id\":2}"] {
        shell.file("keys", bad.as_bytes());
        let (error, _) = shell.fails("import -c c -m M --id-field key keys");
        assert!(error.contains("line 1: "), "{error}");
    }
}

#[test]
fn the_feed_goes_on_after_a_cursor() {
    let shell = Shell::new();
    let _ = shell.pipe("import -c c -m M", THREE);
    let output = shell.run("feed -c c -m M --limit 2");
    let error = stderr(&output);
    let cursor = error.trim_end().strip_prefix("cursor: ").expect("a cursor");
    let rest = shell.lines(&format!("feed -c c -m M --after {cursor}"));
    assert_eq!(ids(&rest), ["3"]);

    let store = Store::open(shell.store()).expect("opened");
    let feed = store.feed("c", "M").expect("a feed");
    let _ = feed.batch_delete(&["a"]).expect("deleted");
    let _ = feed.batch_save_raw(&[("raw", b"\x00\xff")]).expect("saved");
    store.close().expect("closed");
    let changes = shell.lines(&format!("feed -c c -m M --after {cursor} --filter Deleted"));
    assert_eq!(ids(&changes), ["a"]);
    assert_eq!(changes[0]["action"], "DELETED");
    assert!(changes[0]["deleted_at"].is_string());
    let changes = shell.lines("feed -c c -m M --filter added,updated --metadata-only");
    assert_eq!(ids(&changes), ["b", "3", "raw"]);
    assert!(changes.iter().all(|line| line.get("record").is_none()));
    let raw = shell.lines("get -c c -m M raw");
    assert_eq!(raw[0]["record"], json!({"bytes_base64": "AP8="}));

    let (error, code) = shell.fails("feed -c c -m M --after nonsense");
    assert!(error.contains("is not a cursor"), "{error}");
    assert_eq!(code, 2);
    let (error, code) = shell.fails(&format!("feed -c c -m Other --after {cursor}"));
    assert!(error.contains("another feed"), "{error}");
    assert_eq!(code, 1);
}

#[test]
fn follow_sees_what_another_process_saves() {
    let shell = Shell::new();
    let _ = shell.pipe("import -c c -m M", THREE);
    let mut follow = shell.command("feed -c c -m M --follow --limit 4");
    let follow = follow.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = follow.spawn().expect("the command runs");
    let saved = shell.pipe("--wait 60 import -c c -m M", b"{\"id\":\"new\"}");
    assert!(saved.status.success(), "{}", stderr(&saved));
    let output = child
        .wait_with_output()
        .expect("it ends after four records");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(text.lines().count(), 4);
    assert!(
        text.lines()
            .last()
            .is_some_and(|line| line.contains("\"new\"")),
        "{text}"
    );
}

#[test]
fn get_tells_what_is_missing() {
    let shell = Shell::new();
    let _ = shell.pipe("import -c c -m M", THREE);
    assert_eq!(ids(&shell.lines("get -c c -m M 3 a")), ["3", "a"]);
    let output = shell.run("get -c c -m M a nope");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "not found: nope\n");
    assert!(output.stdout.starts_with(b"{\"id\":\"a\""));
}

#[test]
fn stats_verify_and_rebuild() {
    let shell = Shell::new();
    let _ = shell.pipe("import -c c -m M", THREE);
    let _ = shell.pipe("import -c c -m M --variant v", THREE);
    let before = shell.lines("stats --json");
    assert_eq!(before[0]["store"]["live"], 6);
    assert_eq!(before[0]["feeds"][1]["variant"], "v");
    assert_eq!(before[0]["feeds"][1]["live"], 3);
    assert!(shell.ok("stats").contains("c/M/v"));

    assert!(shell.ok("verify").ends_with("no damage\n"));
    let text = shell.ok("rebuild");
    assert!(text.contains("2 feeds with 6 live records"), "{text}");
    let after = shell.lines("stats --json");
    assert_eq!(
        after[0]["feeds"][1]["last_cursor"],
        before[0]["feeds"][1]["last_cursor"]
    );
}

#[test]
fn verify_finds_damage() {
    let shell = Shell::new();
    let _ = shell.pipe("import -c c -m M", THREE);
    let log = shell.store().join("log");
    let segment = fs::read_dir(log).expect("a log").next().expect("a segment");
    let path = segment.expect("a segment").path();
    let mut bytes = fs::read(&path).expect("read");
    let payload = br#""n":2"#;
    let at = bytes
        .windows(payload.len())
        .position(|bytes| bytes == payload);
    bytes[at.expect("the payload is there as it was saved")] ^= 1;
    fs::write(&path, bytes).expect("written");
    let output = shell.run("verify");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("is damaged at byte"), "{text}");
}

#[test]
fn a_store_has_one_owner() {
    let shell = Shell::new();
    let store = Store::open(shell.store()).expect("opened");
    let (error, code) = shell.fails("stats");
    let holder = format!("is open in process {}", std::process::id());
    assert!(error.contains(&holder), "{error}");
    assert_eq!((error.lines().count(), code), (1, 3));
    store.close().expect("closed");
    let _ = shell.ok("stats");

    // One that waits comes in as soon as the owner leaves.
    let store = Store::open(shell.store()).expect("opened");
    let mut waiting = shell.command("--wait 60 stats");
    let waiting = waiting
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command runs");
    store.close().expect("closed");
    let output = waiting.wait_with_output().expect("it ends");
    assert!(output.status.success());
}

#[test]
fn mistakes_are_one_clear_line() {
    let shell = Shell::new();
    for (args, expected) in [
        ("stats", "there is no store in store"),
        ("import -c c -m M nowhere", "cannot open nowhere"),
        ("import -c c -m M .", "is a directory"),
    ] {
        let (error, code) = shell.fails(args);
        assert!(
            error.starts_with("highwater: ") && error.contains(expected),
            "{error}"
        );
        assert_eq!((error.lines().count(), code), (1, 1), "{error}");
    }
    assert!(!shell.store().exists());
}

#[test]
fn a_reader_may_leave_early() {
    let shell = Shell::new();
    let many: String = (0..20_000).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    let _ = shell.pipe("import -c c -m M --batch 5000", many.as_bytes());
    let mut command = shell.command("feed -c c -m M");
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    assert_eq!(stderr(&output), "");
}

#[test]
fn the_demo_agrees_with_itself() {
    let shell = Shell::new();
    let text = shell.ok("demo");
    assert!(text.ends_with("Everything agrees.\n"), "{text}");
    let one = br#"{"a": {"n": 1}, "b": "Name\nStreet\nLand", "c": {"n": 3}}"#;
    let two = br#"{"a": {"n": 1.0}, "b": "Name\nRoad\nLand", "d": {}}"#;
    let other = Shell::new();
    for shell in [&shell, &other] {
        shell.file("one.json", one);
        shell.file("two.json", two);
    }
    let (error, _) = shell.fails("demo one.json two.json");
    assert!(
        error.contains("has been used by the demo before"),
        "{error}"
    );
    let text = other.ok("demo one.json two.json one.json");
    assert!(text.contains("1 added, 1 updated, 1 unchanged"), "{text}");
    assert!(text.ends_with("Everything agrees.\n"), "{text}");
}

fn ndjson(ids: std::ops::Range<u32>) -> Vec<u8> {
    ids.flat_map(|id| format!("{}\n", json!({"id": id})).into_bytes())
        .collect()
}

const CONTACTS: &str = "-c acme -m Contact";

#[test]
fn import_deletes_what_is_gone_from_the_file_when_asked_to() {
    let shell = Shell::new();
    let import =
        |options: &str, ids| shell.pipe(&format!("import {CONTACTS} {options}"), &ndjson(ids));
    assert!(import("--batch 10", 0..40).status.success());
    let all = import("--track-deletes --max-fraction 0.5", 0..30);
    assert!(stdout(&all).contains("unchanged 30"), "{}", stdout(&all));
    assert!(stdout(&all).contains("deleted 10"), "{}", stdout(&all));

    // Too much is gone: nothing is deleted, and the window stays open for the next import.
    let refused = import("--track-deletes --max-deleted 5", 0..10);
    assert!(!refused.status.success());
    assert!(
        stderr(&refused).contains("20 of 30"),
        "{}",
        stderr(&refused)
    );
    let forced = import("--track-deletes --max-deleted 5 --force", 10..15);
    assert!(
        stdout(&forced).contains("deleted 15"),
        "{}",
        stdout(&forced)
    );

    let runs = shell.lines("runs --json --connection acme");
    let statuses: Vec<_> = runs
        .iter()
        .map(|run| run["status"].as_str().expect("text"))
        .collect();
    assert_eq!(statuses, ["succeeded", "failed", "succeeded", "succeeded"]);
    assert_eq!(runs[0]["models"]["Contact"]["deleted"], 15);
    assert!(shell.ok("runs --last").contains("acme/import #4 succeeded"));
}

#[test]
fn a_bad_line_deletes_nothing() {
    let shell = Shell::new();
    assert!(
        shell
            .pipe(&format!("import {CONTACTS}"), &ndjson(0..5))
            .status
            .success()
    );
    let mut bad = ndjson(0..1);
    bad.extend_from_slice(b"{");
    assert!(
        !shell
            .pipe(&format!("import {CONTACTS} --track-deletes"), &bad)
            .status
            .success()
    );
    assert_eq!(
        shell
            .lines(&format!("feed {CONTACTS} --filter deleted"))
            .len(),
        0
    );
}

#[test]
fn prune_and_purge_say_what_they_would_do_and_do_it() {
    let shell = Shell::new();
    let import =
        |options: &str, ids| shell.pipe(&format!("import {CONTACTS} {options}"), &ndjson(ids));
    assert!(import("--batch 100", 0..10).status.success());
    assert!(import("--track-deletes", 0..8).status.success());
    assert!(
        shell
            .ok(&format!("prune {CONTACTS} --older-than 30d"))
            .contains("pruned 0 records")
    );
    let would = shell.ok(&format!("prune {CONTACTS} --limit 3 --dry-run"));
    assert!(
        would.starts_with("would have pruned 3 records up to "),
        "{would}"
    );
    assert!(would.contains("more to go"), "{would}");
    assert!(
        shell
            .ok(&format!("prune {CONTACTS} --limit 3"))
            .starts_with("pruned 3 records")
    );
    let first = &shell.lines(&format!("get {CONTACTS} 0"))[0];
    assert_eq!(first["record"], Value::Null);

    // A consumer that has seen nothing yet holds deletions back.
    let cursors: Vec<Value> = shell.lines(&format!("feed {CONTACTS}"));
    let [first, .., last] = &cursors[..] else {
        panic!("records")
    };
    let cursor = |line: &Value| line["cursor"].as_str().expect("a cursor").to_owned();
    let acknowledge = |cursor: &str| {
        shell.ok(&format!(
            "consumers {CONTACTS} --name app --acknowledge {cursor}"
        ))
    };
    acknowledge(&cursor(first));
    assert!(
        shell
            .ok(&format!("purge {CONTACTS}"))
            .contains("purged 0 records")
    );
    assert!(acknowledge(&cursor(last)).contains("0 behind"));
    assert!(
        shell
            .ok(&format!("purge {CONTACTS}"))
            .contains("purged 2 records")
    );
    let consumers = shell.lines(&format!("consumers {CONTACTS} --json"));
    assert_eq!(
        (&consumers[0]["name"], &consumers[0]["lag"]),
        (&json!("app"), &json!(0))
    );
    shell.ok(&format!("consumers {CONTACTS} --name app --remove"));
    assert_eq!(shell.ok(&format!("consumers {CONTACTS}")), "");
    assert!(
        !shell
            .run(&format!("consumers {CONTACTS} --name app --restart"))
            .status
            .success()
    );

    let kept = shell.ok("maintain --prune-after 30d --delete-after 60d --purge");
    assert_eq!(kept, "pruned 0  purged 0  feeds deleted 0\n");
    assert!(!shell.run("maintain --prune-after 30").status.success());
}

#[test]
fn checkpoints_and_metadata_are_shown_and_set() {
    let shell = Shell::new();
    assert!(
        shell
            .pipe(&format!("import {CONTACTS}"), &ndjson(0..1))
            .status
            .success()
    );
    let sync = "-c acme -s contacts";
    assert_eq!(
        shell.run(&format!("checkpoint {sync}")).status.code(),
        Some(1)
    );
    let set = shell.lines(&format!(
        "checkpoint {sync} --set {{\"page\":7}} --expect 0"
    ));
    assert_eq!(set[0], json!({"version": 1, "checkpoint": {"page": 7}}));
    let conflict = shell.run(&format!("checkpoint {sync} --clear --expect 9"));
    assert!(
        stderr(&conflict).contains("version 1"),
        "{}",
        stderr(&conflict)
    );
    shell.ok(&format!("checkpoint {sync} --clear --expect 1"));
    assert_eq!(
        shell.run(&format!("checkpoint {sync}")).status.code(),
        Some(1)
    );
    assert!(stderr(&shell.run(&format!("checkpoint {sync} --set 7"))).contains("object"));

    assert_eq!(shell.run("metadata -c acme").status.code(), Some(1));
    shell.ok("metadata -c acme --set {\"region\":\"eu\",\"n\":1}");
    let merged = shell.lines("metadata -c acme --merge {\"n\":2}");
    assert_eq!(merged[0], json!({"region": "eu", "n": 2}));
}

#[cfg(feature = "encryption")]
#[test]
fn an_encrypted_store_needs_its_key_and_gets_another() {
    let shell = Shell::new();
    shell.file("key", &[7; 32]);
    shell.file("next", "0a".repeat(32).as_bytes());
    shell.file("none", b"0a0a");
    shell.file("in.ndjson", THREE);
    let _ = shell.ok("import -c c -m M --key-file key in.ndjson");
    assert_eq!(ids(&shell.lines("feed -c c -m M --key-file key")).len(), 3);
    let by_environment = shell
        .command("feed -c c -m M")
        .env("HIGHWATER_KEY_FILE", "key")
        .output()
        .expect("the command runs");
    assert!(by_environment.status.success());
    for (args, expected) in [
        ("stats", "it needs the key"),
        ("stats --key-file next", "which was not given"),
        ("stats --key-file none", "neither 32 bytes nor 64"),
        ("stats --key-file nowhere", "cannot read the key file"),
    ] {
        let output = shell.run(args);
        assert_eq!(output.status.code(), Some(1));
        let error = stderr(&output);
        assert!(error.contains(expected), "{args}: {error}");
    }
    let keys = shell.ok("rotate --key-file next --old-key-file key");
    assert_eq!(keys.lines().count(), 1);
    assert_eq!(ids(&shell.lines("feed -c c -m M --key-file next")).len(), 3);
    let _ = shell.ok("verify --key-file next");
    assert!(!shell.run("stats --key-file key").status.success());
}
