//! The table of APIs in `docs/reference/compatibility.md` is what the daemon advertises.

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
