//! Every metric that is recorded is described, and `docs/reference/metrics.md` and the alert rules speak of no others.

use std::collections::{BTreeMap, BTreeSet};

use super::PARTS;

/// The files in which metrics are recorded: clippy refuses the macros elsewhere.
const SOURCES: [&str; 5] = [
    include_str!("metrics.rs"),
    include_str!("../../cluster/src/metrics.rs"),
    include_str!("../../log/src/metrics.rs"),
    include_str!("../../broker/src/metrics.rs"),
    include_str!("../../../mirror/src/metrics.rs"),
];
const PAGE: &str = include_str!("../../../docs/reference/metrics.md");
const ALERTS: &str = include_str!("../../../examples/prometheus/alerts.yml");

/// Name, kind and labels of each metric.
type Metrics<'a> = BTreeMap<&'a str, (&'a str, Vec<&'a str>)>;

/// The metrics as they are recorded.
fn recorded() -> Metrics<'static> {
    let mut found = BTreeMap::new();
    for source in SOURCES {
        for kind in ["counter", "gauge", "histogram"] {
            for call in source.split(&format!("{kind}!(")).skip(1) {
                let statement = call.split(';').next().unwrap();
                // Descriptions take their names from a variable.
                let Some(quoted) = statement.trim_start().strip_prefix('"') else {
                    continue;
                };
                let name = quoted.split('"').next().unwrap();
                let pieces: Vec<&str> = statement.split(" =>").collect();
                let labels = pieces[..pieces.len() - 1].iter();
                let labels: Vec<&str> = labels.map(|piece| piece.rsplit('"').nth(1).unwrap()).collect();
                let before = found.insert(name, (kind, labels.clone()));
                let same = before.is_none_or(|before| before == (kind, labels));
                assert!(same, "{name} is recorded in two ways");
            }
        }
    }
    found
}

/// Every word of `text` that looks like a metric's name, without what the lines of a histogram add to it.
fn named<'a>(text: &'a str, recorded: &Metrics<'static>) -> BTreeSet<&'a str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names = words.filter(|word| word.starts_with("tradewind_"));
    names
        .map(|word| {
            let added = ["_bucket", "_sum", "_count"];
            let base = added.into_iter().find_map(|added| word.strip_suffix(added));
            let is_histogram = |base: &str| recorded.get(base).is_some_and(|(kind, _)| *kind == "histogram");
            base.filter(|base| is_histogram(base)).unwrap_or(word)
        })
        .collect()
}

#[test]
fn every_metric_is_recorded_and_described() {
    let described: BTreeSet<&str> = PARTS.into_iter().flatten().map(|(name, _)| *name).collect();
    let recorded: BTreeSet<&str> = recorded().into_keys().collect();
    assert_eq!(recorded, described);
}

#[test]
fn the_page_of_metrics_is_current() {
    let mut page = BTreeMap::new();
    for row in PAGE.lines().filter(|line| line.starts_with("| `tradewind_")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[3].split('`').map(str::trim);
        let labels: Vec<&str> = labels.filter(|label| !label.is_empty()).collect();
        page.insert(cells[1].trim_matches('`'), (cells[2], labels));
    }
    let recorded = recorded();
    assert_eq!(page, recorded);
    let named = named(PAGE, &recorded);
    assert!(named.iter().all(|name| page.contains_key(*name)));
}

#[test]
fn alerts_are_over_metrics_that_exist_and_say_what_to_do() {
    let recorded = recorded();
    let unknown = |name: &&str| !recorded.contains_key(*name);
    assert_eq!(named(ALERTS, &recorded).into_iter().find(unknown), None);
    let rules: Vec<&str> = ALERTS.split("- alert: ").skip(1).collect();
    assert!(rules.len() > 10, "the rules were not found");
    for rule in rules {
        for part in ["expr: ", "for: ", "severity: ", "summary: ", "description: "] {
            assert!(rule.contains(part), "no `{part}` in {rule}");
        }
        assert!(rule.contains("docs/operate/"), "no page to follow in {rule}");
        for rest in rule.split("docs/operate/").skip(1) {
            let page = rest.split(".md").next().unwrap();
            let path = format!("{}/../../docs/operate/{page}.md", env!("CARGO_MANIFEST_DIR"));
            assert!(std::fs::exists(&path).unwrap(), "there is no {path}");
        }
    }
}
