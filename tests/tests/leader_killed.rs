//! A daemon is lost, then all of them, under `acks=all` load: every acknowledged record is there once and in order, and
//! nobody saw anything else.
//!
//! `TRADEWIND_KILLS` says how often a leader is killed; a few times in plain `cargo test`, twenty in `.ci/run`, which also
//! lets the program `crashes` kill at random.

use anyhow::{Context, Result, ensure};
use tradewind_tests::load;
use tradewind_tests::siege::{Siege, SiegeSpec, Target, middle_and_longest};
use tradewind_wire::compression::Codec;

fn kills() -> usize {
    std::env::var("TRADEWIND_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2)
}

#[test]
fn every_acknowledged_record_survives_the_leader_again_and_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut siege = Siege::start(folder.path(), SiegeSpec::default())?;
    for _ in 0..kills() {
        siege.strike(Target::Leader, true)?;
    }
    let (history, strikes) = siege.end()?;
    load::ensure_sound(&history)?;
    let gaps = strikes
        .iter()
        .filter_map(|strike| strike.without_writes)
        .collect();
    let (middle, longest) = middle_and_longest(gaps).context("a leader was killed")?;
    println!(
        "{} leaders killed ({} of them the controller), {} records acknowledged, all there once and in order; \
         time without writes: p50 {middle:.2?}, max {longest:.2?}",
        strikes.len(),
        strikes.iter().filter(|strike| strike.controller).count(),
        history.acknowledged(),
    );
    Ok(())
}

#[test]
fn every_acknowledged_record_survives_the_whole_cluster() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let spec = SiegeSpec {
        codec: Codec::None,
        segment_bytes: 64 << 10,
        ..SiegeSpec::default()
    };
    let mut siege = Siege::start(folder.path(), spec)?;
    siege.strike(Target::All, true)?;
    siege.strike(Target::Power, true)?;
    siege.strike(Target::Power, false)?;
    let (history, _) = siege.end()?;
    ensure!(history.acknowledged() > 0, "nothing was written");
    load::ensure_sound(&history)
}
