//! Kills the daemons of a real cluster under load, again and again, and judges what their clients saw.
//!
//! `crashes --kills N --totals FILE [--seed S] [--batch N] [--folder DIR]`
//!
//! Goes on until the totals in FILE say that N processes were killed (by SIGKILL), in batches of 100 unless told
//! otherwise, each with a cluster of its own and a seed of its own: S plus the batch's number. FILE is written after each
//! batch, so that a run can be broken off and taken up again. The first batch whose history has a fault ends the run: it
//! prints the faults and the command that draws the same strikes again, and leaves the cluster's files where they are. The
//! seed fixes who is killed and when, not what the machine does meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tradewind_tests::batches::{self, Batch};
use tradewind_tests::siege::{Siege, SiegeSpec, Strike, Target, middle_and_longest};

/// What all batches so far came to.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Totals {
    /// Histories that were judged.
    batches: u64,
    /// Strikes by target.
    strikes: BTreeMap<Target, u64>,
    /// Processes killed.
    kills: u64,
    /// Bytes at the ends of logs that power cuts spoilt.
    torn_bytes: u64,
    /// Records acknowledged under `acks=all`.
    acknowledged: u64,
    /// Writes whose end nobody knows.
    unknown: u64,
    /// Records read while all this went on.
    read: u64,
    /// Ends and positions of a group that were told.
    told: u64,
    /// Faults in the histories.
    faults: u64,
    /// Milliseconds without writes, for each leader killed while all was well.
    leader_ms: Vec<u64>,
    /// The same where the leader was also the controller.
    controller_ms: Vec<u64>,
    /// The seed of the next batch.
    next_seed: u64,
}

fn main() -> Result<()> {
    batches::run("crashes", "kills", 100, batch)
}

/// One cluster, its strikes, and the verdict on its history.
fn batch(batch: Batch<'_>, totals: &mut Totals) -> Result<()> {
    let seed = batch.seed;
    let spec = SiegeSpec {
        seed,
        rest: Duration::from_millis(8),
        segment_bytes: 1 << 20,
        ..SiegeSpec::default()
    };
    let mut siege = Siege::start(batch.folder, spec)?;
    let mut kills = 0;
    while kills < batch.count {
        kills += siege.strike_any()?;
    }
    let (history, strikes) = siege.end()?;
    let faults = history.check();
    for fault in faults.iter().take(20) {
        println!("{fault}");
    }
    totals.batches += 1;
    totals.faults += faults.len() as u64;
    totals.acknowledged += history.acknowledged();
    totals.unknown += history.unknown();
    totals.read += history
        .reads
        .iter()
        .map(|read| read.records.len() as u64)
        .sum::<u64>();
    totals.told += (history.ends.len() + history.positions.len()) as u64;
    strikes.iter().for_each(|strike| totals.count(strike));
    println!(
        "seed {seed}: {} strikes, {} records acknowledged, {} faults",
        strikes.len(),
        history.acknowledged(),
        faults.len()
    );
    ensure!(faults.is_empty(), "seed {seed}: {} faults", faults.len());
    Ok(())
}

impl Totals {
    fn count(&mut self, strike: &Strike) {
        *self.strikes.entry(strike.target).or_default() += 1;
        self.kills += strike.kills;
        self.torn_bytes += strike.torn_bytes;
        if let Some(gap) = strike.without_writes {
            let ms = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
            if strike.controller {
                self.controller_ms.push(ms);
            } else {
                self.leader_ms.push(ms);
            }
        }
    }
}

impl batches::Totals for Totals {
    fn done(&self) -> u64 {
        self.kills
    }

    fn next_seed(&mut self) -> &mut u64 {
        &mut self.next_seed
    }

    fn told(&self) -> String {
        let gaps = |ms: &[u64]| {
            let times = ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
            middle_and_longest(times).map_or_else(
                || "none".to_owned(),
                |(middle, longest)| format!("p50 {middle:.2?}, max {longest:.2?} of {}", ms.len()),
            )
        };
        let mut strikes: Vec<String> = Vec::new();
        for (target, count) in &self.strikes {
            strikes.push(format!("{count} {target:?}").to_lowercase());
        }
        format!(
            "{} processes killed in {} batches ({}; {} KiB spoilt); {} records acknowledged, {} writes without an answer, {} records read \
             meanwhile, {} ends and positions told; {} faults; time without writes: leader {}; controller {}",
            self.kills,
            self.batches,
            strikes.join(", "),
            self.torn_bytes >> 10,
            self.acknowledged,
            self.unknown,
            self.read,
            self.told,
            self.faults,
            gaps(&self.leader_ms),
            gaps(&self.controller_ms),
        )
    }
}
