//! Running a part of a test in another process, under limits or in a world of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{descriptors, forbidden, full};

const ROLE: &str = "HIGHWATER_TEST_ROLE";
const PLACE: &str = "HIGHWATER_TEST_PLACE";

/// Not a test of its own: what the child processes run.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let place = PathBuf::from(std::env::var_os(PLACE).unwrap());
    match role.as_str() {
        "full disk" => full::fill_a_disk(&place),
        "file size" => full::reach_the_largest_file(&place),
        "read-only" => forbidden::open_what_cannot_be_written(&place),
        "no permission" => forbidden::open_without_permission(&place),
        "descriptors" => descriptors::run_out(&place),
        role => panic!("unknown role {role}"),
    }
    println!("\nplayed: {role}");
}

/// Has a child play a role. `shell` prepares its world; `"$@"` in it is the child, and `$PLACE` where
/// the role is to be played.
pub fn play(role: &str, place: &Path, shell: &str) -> Output {
    let child = std::env::current_exe().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", shell, "sh"]).arg(child);
    command.args(["--exact", "child::child", "--nocapture"]);
    let command = command.env(ROLE, role).env(PLACE, place);
    command.env("PLACE", place).output().unwrap()
}

/// Plays a role that must succeed.
#[track_caller]
pub fn plays(role: &str, place: &Path, shell: &str) {
    let output = play(role, place, shell);
    let [said, complained] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    let played = said.contains(&format!("played: {role}"));
    assert!(
        output.status.success() && played,
        "{role}: {}\n{said}\n{complained}",
        output.status
    );
}

/// Whether a shell command works here; if not, says why a test is skipped.
pub fn can(what: &str, shell: &str) -> bool {
    let output = Command::new("sh").args(["-c", shell]).output().unwrap();
    let works = output.status.success();
    if !works {
        let why = String::from_utf8_lossy(&output.stderr);
        println!("skipped, as {what} is not possible here: {}", why.trim());
    }
    works
}
