//! Tables in `docs/` that say what is there: the APIs that the daemon advertises, and the tests of topic configurations.

use std::fs;
use std::path::Path;

use tradewind_wire::api::ADVERTISED;

#[test]
fn the_table_of_apis_is_current() {
    let page = include_str!("../../docs/reference/compatibility.md");
    let documented: Vec<&str> = page
        .lines()
        .filter(|line| {
            line.strip_prefix("| ")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .collect();
    let mut rows = ADVERTISED.to_vec();
    rows.sort_by_key(|(key, ..)| key.code());
    let advertised: Vec<String> = rows
        .iter()
        .map(|(key, min, max)| format!("| {} | {} | {min} to {max} |", key.code(), key.name()))
        .collect();
    assert_eq!(
        documented, advertised,
        "run python3 tests/clients/compatibility.py"
    );
}

/// What stands between backticks in a text.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_topic_configuration_has_a_test() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("a file of the workspace");
    let page = read("docs/internals/configs.md");
    let mut named = Vec::new();
    let (table, rest) = page.split_once("Accepted without an effect").expect("both parts");
    for row in table.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').collect();
        let [_, keys, tests, place, _] = cells[..] else {
            panic!("three columns: {row}");
        };
        named.extend(quoted(keys));
        let source = quoted(place).first().map(|path| read(path)).unwrap_or_default();
        for test in quoted(tests) {
            assert!(
                source.contains(&format!("fn {test}()")),
                "{test} is not in {place}"
            );
        }
    }
    named.extend(quoted(rest));
    named.sort_unstable();
    let tables = read("daemon/cluster/src/config/tables.rs");
    let topics = tables.split("pub const TOPIC_CONFIGS").nth(1).expect("the table");
    let topics = topics.split("];").next().expect("its end");
    // Keys are the only words in quotes that have a dot.
    let mut keys: Vec<&str> = topics.split('"').skip(1).step_by(2).collect();
    keys.retain(|word| word.contains('.') && word.contains(|c: char| c.is_ascii_alphabetic()));
    keys.extend(["preallocate"]);
    keys.sort_unstable();
    assert_eq!(named, keys);
}
