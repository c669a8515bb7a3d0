//! Moves a region to and fro under load, again and again, kills daemons in the middle, and judges what clients saw.
//!
//! `switchovers --switchovers N --totals FILE [--seed S] [--batch N] [--folder DIR]`
//!
//! Three daemons in the east, three in the west; one idempotent writer per partition and a group go where the clusters send
//! them (`moving.rs`). About every second switchover loses a daemon of either side by SIGKILL at a moment of the seed's
//! choice, be it the one that was asked; then the command is given again until it says that all is done. After each:
//! clients go on, and the cluster that was left takes no write and no commit. At the end of a batch: both clusters hold
//! every acknowledged record once and in order, and nothing else; no group was ever below its last acknowledged commit;
//! acknowledgements changed sides as often as the region moved, so that never two clusters took writes at once. As with
//! `crashes`, batches of 10 have seeds of their own, FILE keeps the totals, and the first batch with a fault ends the run.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use tradewind_tests::batches::{self, Batch};
use tradewind_tests::moving::{self, BACK, Clients, FLOW};
use tradewind_tests::siege::middle_and_longest;
use tradewind_tests::{Cluster, Mesh, program, wait};

const DAEMONS: i32 = 3;

/// What all batches so far came to.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Totals {
    batches: u64,
    switchovers: u64,
    kills: u64,
    /// Records that were acknowledged, and found on both sides.
    records: u64,
    /// Commits of the group that were acknowledged.
    commits: u64,
    /// The longest time that a partition took no write, in ms, for each switchover in which nobody was killed.
    calm_ms: Vec<u64>,
    /// The same where a daemon was killed.
    killed_ms: Vec<u64>,
    /// The seed of the next batch.
    next_seed: u64,
}

impl batches::Totals for Totals {
    fn done(&self) -> u64 {
        self.switchovers
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
        format!(
            "{} switchovers in {} batches, {} daemons killed; {} records acknowledged, each once on both sides; {} commits \
             kept; 0 faults; time without writes: nobody killed {}; a daemon killed {}",
            self.switchovers,
            self.batches,
            self.kills,
            self.records,
            self.commits,
            gaps(&self.calm_ms),
            gaps(&self.killed_ms)
        )
    }
}

fn main() -> Result<()> {
    batches::run("switchovers", "switchovers", 10, batch)
}

fn batch(batch: Batch<'_>, totals: &mut Totals) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(batch.seed);
    let mut mesh = moving::begin(batch.folder, DAEMONS)?;
    let clients = Clients::start(&mesh);
    clients.go_on(10)?;
    let (mut moves, mut began) = (Vec::new(), Instant::now());
    for number in 0..batch.count {
        let westward = number % 2 == 0;
        let (killed, told) = switch_over(&mut mesh, westward, &mut rng)?;
        clients.go_on(10)?;
        moving::has_left(if westward { &mesh.east } else { &mesh.west })?;
        let ended = Instant::now();
        moves.push((killed, told, began, ended));
        began = ended;
    }
    let seen = clients.stop()?;
    seen.ensure_changed(batch.count)?;
    for cluster in [&mesh.east, &mesh.west] {
        wait::until("both sides hold everything", 120, || {
            seen.holds(cluster).map(Some)
        })?;
    }
    for (killed, told, from, to) in moves {
        let gap = seen.without_writes(from, to).unwrap_or_default();
        let ms = u64::try_from(gap.as_millis())?;
        println!(
            "seed {}: {ms} ms without writes, {told} as told{}",
            batch.seed,
            if killed { ", a daemon killed" } else { "" }
        );
        if killed {
            totals.kills += 1;
            totals.killed_ms.push(ms);
        } else {
            totals.calm_ms.push(ms);
        }
    }
    totals.batches += 1;
    totals.switchovers += batch.count;
    totals.records += seen.acknowledged();
    let commits = seen.history.commits.iter();
    totals.commits += commits.filter(|commit| commit.acknowledged).count() as u64;
    Ok(())
}

/// Moves the region; whether a daemon was killed meanwhile, and how many ms without writes the report tells.
fn switch_over(mesh: &mut Mesh, westward: bool, rng: &mut StdRng) -> Result<(bool, i64)> {
    let flow = if westward { FLOW } else { BACK };
    moving::wait_active(target(mesh, westward), flow)?;
    let kills = rng.random_bool(0.5);
    let asked = rng.random_range(0..usize::try_from(DAEMONS)?);
    let url = target(mesh, westward).daemons[asked].url();
    let begun = thread::spawn(move || program::run(&["switchover", flow, "--url", &url, "-o", "json"]));
    if kills {
        wait::moment(rng, 1_000);
        let cluster = if rng.random_bool(0.5) {
            &mut mesh.east
        } else {
            &mut mesh.west
        };
        cluster.daemon(rng.random_range(1..=DAEMONS))?.kill();
        wait::moment(rng, 2_000);
        cluster.start_all()?;
    }
    let output = begun
        .join()
        .map_err(|_| anyhow::anyhow!("the command panicked"))??;
    // It may have been the one that was asked who was killed.
    ensure!(
        kills || output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report = wait::until("the switchover is done", 120, || {
        target(mesh, westward).ask(&["switchover", flow]).map(Some)
    })?;
    moving::promoted(&report)?;
    let told = report["without_writes_ms"]
        .as_i64()
        .context("no time without writes")?;
    Ok((kills, told))
}

fn target(mesh: &Mesh, westward: bool) -> &Cluster {
    if westward { &mesh.west } else { &mesh.east }
}
