//! Habits of the house that no compiler lint knows: every file says what it is, none is unfinished or outgrown.

use std::fs;
use std::path::{Path, PathBuf};

/// Beyond this a file holds a second thing; look for it. (`docs/internals/architecture.md`)
const LINES_AT_MOST: usize = 700;

/// The workspace.
const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Every Rust file under version control's eyes: not build output, not the fuzz crate's corpus.
fn sources() -> Vec<PathBuf> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder)
            .expect("a folder of the workspace is readable")
            .flatten()
        {
            let path = entry.path();
            let name = entry.file_name();
            let hidden = name.to_string_lossy().starts_with('.');
            if path.is_dir() && !hidden && name != "target" {
                walk(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                into.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new(TOP), &mut found);
    assert!(found.len() > 10, "the workspace was not found");
    found
}

/// Runs `judge` on each file's path from the top and its text, and fails with all that it says.
fn every_file(judge: impl Fn(&str, &str) -> Option<String>) {
    let wrong: Vec<String> = sources()
        .into_iter()
        .filter_map(|path| {
            let text = fs::read_to_string(&path).expect("a source file is UTF-8");
            let name = path.strip_prefix(TOP).expect("a path below the top");
            let name = name.to_str().expect("a path that is UTF-8");
            judge(name, &text).map(|why| format!("{name}: {why}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_begins_with_its_role() {
    every_file(|_, text| {
        let first = text
            .lines()
            .find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
        (!first.is_some_and(|line| line.starts_with("//!"))).then(|| "no `//!` head".to_owned())
    });
}

#[test]
fn no_file_is_unfinished() {
    // Spelled in two halves so that this file passes its own test.
    let marks = [
        concat!("todo", "!("),
        concat!("unimpl", "emented!("),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    every_file(|_, text| {
        text.lines()
            .position(|line| marks.iter().any(|mark| line.contains(mark)))
            .map(|at| format!("unfinished at line {}", at + 1))
    });
}

#[test]
fn no_test_sleeps() {
    // The first is where waiting is written; what is left of time in a simulation is not a test's.
    let may = [
        "tests/src/wait.rs",
        "tests/sim/src/host.rs",
        "tests/sim/src/main.rs",
    ];
    let of_tests = ["/tests/", "_tests.rs", "/tests.rs", "/test_net.rs", "/fakes.rs"];
    every_file(|name, text| {
        let is_test = name.starts_with("tests/") || of_tests.iter().any(|part| name.contains(part));
        let judged = is_test && !may.contains(&name);
        let at = text.lines().position(|line| line.contains(concat!("sle", "ep(")));
        let said = |at| format!("line {} sleeps: see tests/src/wait.rs", at + 1);
        at.filter(|_| judged).map(said)
    });
}

#[test]
fn no_file_has_outgrown_its_room() {
    every_file(|_, text| {
        let lines = text.lines().count();
        (lines > LINES_AT_MOST).then(|| format!("{lines} lines, more than {LINES_AT_MOST}"))
    });
}
