//! A few seeds at every run of the tests: nothing is lost under faults, and the same seed is the same run.
//!
//! Many seeds are a matter of the command: `cargo run --release -p tradewind-sim --bin sim -- --seeds 500 --from 1`.

use std::process::{Command, Output};

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(args)
        .env_remove("RUST_LOG")
        .output()
        .expect("the simulation starts")
}

fn must_pass(args: &[&str]) {
    let output = sim(args);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "sim {}:\n{said}", args.join(" "));
}

#[test]
fn seeds_pass_and_repeat() {
    must_pass(&["--seeds", "2", "--from", "1", "--storm", "8", "--twice"]);
}

#[test]
fn totals_are_kept_and_taken_up_again() {
    let path = std::env::temp_dir().join(format!("tradewind-sim-totals-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let file = path.to_string_lossy();
    // No time to come back in is a failure of every seed.
    let of = |seeds, from| {
        let output = sim(&[
            "--seeds",
            seeds,
            "--from",
            from,
            "--storm",
            "1",
            "--patience",
            "0",
            "--totals",
            &file,
        ]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (said, output.status.success())
    };
    let (said, well) = of("1", "3");
    assert!(
        !well && said.ends_with("1 seeds from 3 in all, 1 failed: [3]\n"),
        "{said}"
    );
    let (said, _) = of("2", "3");
    assert!(
        !said.contains("seed 3:") && said.ends_with("2 seeds from 3 in all, 2 failed: [3, 4]\n"),
        "{said}"
    );
    let (said, well) = of("2", "4");
    assert!(
        !well && said.is_empty(),
        "these are totals of other seeds: {said}"
    );
    let _ = std::fs::remove_file(&path);
}

#[test]
fn a_seed_that_fails_is_told_with_the_command_that_repeats_it() {
    // No time to come back in is a failure of every seed.
    let output = sim(&["--seeds", "1", "--from", "3", "--storm", "1", "--patience", "0"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("seed 3: FAILED"), "{said}");
    assert!(
        said.contains("repeat with: cargo run") && said.contains("--seed 3"),
        "{said}"
    );
}

/// `cargo test --release -p tradewind-sim --features known-bugs -- --nocapture`: mistakes that are put back are found, and
/// within how many seeds.
#[cfg(feature = "known-bugs")]
#[test]
fn known_bugs_are_found() {
    let found_within = [
        ("SameEpochAgain", 20),
        ("TruncateToWatermark", 20),
        ("WatermarkWithoutOwnFlush", 100),
        ("JoinBelowEpochStart", 100),
        ("ProducersSurviveTruncation", 200),
        ("LeaderWithoutFencing", 200),
        ("StreamSurvivesEpoch", 300),
        ("InSyncWithoutEpochs", 200),
        ("ElectionOnStaleImage", 200),
    ];
    for (bug, most) in found_within {
        let fails = |seed: &u64| !sim(&["--seed", &seed.to_string(), "--bug", bug]).status.success();
        let seed = (1..=most).find(fails);
        println!("{bug}: {seed:?}");
        assert!(seed.is_some(), "{bug} is not found within {most} seeds");
    }
}
