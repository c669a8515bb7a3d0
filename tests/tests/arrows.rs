//! The arrows between our crates point down only, as `docs/internals/architecture.md` draws them.
//!
//! Reads what cargo itself resolved, so that an arrow cannot hide behind a feature or a renamed package.
//! Only normal and build dependencies count: a test may look at more than the code it tests.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Package, and what of ours it may use. A package that is missing here fails the test.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "server",
        &[
            "broker",
            "mirror",
            "cluster",
            "log",
            "client",
            "transport",
            "wire",
        ],
    ),
    ("broker", &["cluster", "log", "wire"]),
    ("cluster", &["log", "transport", "wire"]),
    ("mirror", &["client", "transport", "wire"]),
    ("client", &["transport", "wire"]),
    ("log", &["wire"]),
    ("transport", &[]),
    ("wire", &[]),
    // Tests reach daemons through processes and the wire (and measure bare QUIC), never through a daemon's crates.
    ("tests", &["transport", "wire"]),
    // The simulation replaces what is outside a daemon's cluster half, and runs that half in its own process.
    ("sim", &["cluster", "log", "transport", "wire"]),
];

/// Third-party crates that stay behind one of ours.
const KEPT_BEHIND: &[(&str, &str)] = &[
    ("openraft", "cluster"),
    ("redb", "cluster"),
    ("quinn", "transport"),
    ("quinn-proto", "transport"),
    ("rustls", "transport"),
    ("rcgen", "transport"),
];

/// Package name (without our prefix) to the names of its normal and build dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo metadata answers");
    let short = |name: &str| name.strip_prefix("tradewind-").unwrap_or(name).to_owned();
    metadata
        .packages
        .iter()
        .map(|package| {
            let used = package
                .dependencies
                .iter()
                .filter(|d| d.kind != DependencyKind::Development)
                .map(|d| short(&d.name))
                .collect();
            (short(&package.name), used)
        })
        .collect()
}

#[test]
fn arrows_between_our_crates_point_down() {
    let found = dependencies();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (package, used) in &found {
        let Some(may) = allowed.get(package.as_str()) else {
            wrong.push(format!("{package} has no line in ARROWS"));
            continue;
        };
        for ours in used.iter().filter(|name| found.contains_key(*name)) {
            if !may.contains(&ours.as_str()) {
                wrong.push(format!("{package} -> {ours}"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that may not be: {wrong:#?}");
    assert_eq!(
        found.len(),
        ARROWS.len(),
        "a line in ARROWS names a package that is gone"
    );
}

#[test]
fn third_party_machinery_stays_behind_one_crate() {
    let mut wrong = Vec::new();
    for (package, used) in dependencies() {
        for (kept, behind) in KEPT_BEHIND {
            if used.contains(*kept) && package != *behind {
                wrong.push(format!("{package} uses {kept}, which stays behind {behind}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
