//! What a drill costs those who do not know of it: paired runs of a load with drills beside it and without.
//!
//! `drills [--pairs N] [--seconds N] [--daemons N] [--drills N] [--out FILE]`
//!
//! Two clusters, a writer per partition under `acks=all` in the east, a flow into the west. Of each pair one run has so many
//! drills, evenly spread, the other none; which comes first alternates. Measured in each: records per second, time to the
//! acknowledgement, and time from the acknowledgement until the record can be read in the west. A drill costs nothing that
//! counts if the means of the two kinds of run differ by less than the runs without drills among themselves (their largest
//! minus their smallest). The exit code says whether that holds for all three.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tradewind_tests::options::Options;
use tradewind_tests::{Mesh, Naming, load, program, wait};
use tradewind_wire::compression::Codec;

const USAGE: &str = "drills [--pairs N] [--seconds N] [--daemons N] [--drills N] [--out FILE]";
const TOPIC: &str = "orders";
const MIRROR: &str = "east.orders";
const PARTITIONS: i32 = 4;
/// How often the end in the west is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// One run.
#[derive(Debug, Clone, Serialize)]
struct Run {
    drills: usize,
    /// How long the slowest drill took, in ms.
    slowest_drill_ms: f64,
    records_per_second: f64,
    ack_p50_ms: f64,
    ack_p99_ms: f64,
    visible_p50_ms: f64,
    visible_p99_ms: f64,
}

/// A figure of all runs.
#[derive(Debug, Serialize)]
struct Figure {
    figure: &'static str,
    without: f64,
    with: f64,
    difference: f64,
    /// The largest minus the smallest of the runs without drills.
    spread: f64,
    within: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    figures: Vec<Figure>,
    runs: Vec<Run>,
}

fn main() -> Result<()> {
    let mut options = Options::read(std::env::args().skip(1))?;
    let pairs: usize = options.take("--pairs")?.unwrap_or(10);
    let seconds: u64 = options.take("--seconds")?.unwrap_or(20);
    let daemons: i32 = options.take("--daemons")?.unwrap_or(1);
    let drills: usize = options.take("--drills")?.unwrap_or(4);
    let out: Option<PathBuf> = options.take("--out")?;
    options.end(USAGE)?;
    ensure!(pairs > 0 && seconds > 0 && drills > 0, "{USAGE}");
    let folder = tempfile::tempdir()?;
    let mesh = Mesh::start(folder.path(), daemons, Naming::Prefix)?;
    // Some segments are closed by the time of the first drill.
    mesh.east
        .kafka()
        .create_topic(TOPIC, PARTITIONS, &[("segment.bytes", "1048576")])?;
    let length = Duration::from_secs(seconds);
    // The first run warms up and does not count.
    run(&mesh, length, 1)?;
    mesh.wait_mirrored(1, 120)?;
    let mut runs = Vec::new();
    for pair in 0..pairs {
        let order = if pair % 2 == 0 { [0, drills] } else { [drills, 0] };
        for drills in order {
            let run = run(&mesh, length, drills)?;
            eprintln!("{}", serde_json::to_string(&run)?);
            runs.push(run);
            mesh.wait_mirrored(1, 120)?;
        }
    }
    let figures = vec![
        figure("records per second", &runs, |run| run.records_per_second),
        figure("acknowledged, p99 in ms", &runs, |run| run.ack_p99_ms),
        figure("visible in the west, p99 in ms", &runs, |run| run.visible_p99_ms),
    ];
    let within = figures.iter().all(|figure| figure.within);
    let report = serde_json::to_string_pretty(&Report { figures, runs })?;
    println!("{report}");
    if let Some(out) = out {
        std::fs::write(&out, &report).with_context(|| out.display().to_string())?;
    }
    ensure!(within, "drills cost more than what runs differ by anyway");
    Ok(())
}

fn figure(name: &'static str, runs: &[Run], of: impl Fn(&Run) -> f64) -> Figure {
    let all = |with: bool| -> Vec<f64> {
        let runs = runs.iter().filter(|run| (run.drills > 0) == with);
        runs.map(&of).collect()
    };
    let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len().max(1) as f64;
    let (without, with) = (all(false), all(true));
    let largest = without.iter().copied().fold(f64::MIN, f64::max);
    let smallest = without.iter().copied().fold(f64::MAX, f64::min);
    let (without, with) = (mean(&without), mean(&with));
    let (difference, spread) = ((with - without).abs(), largest - smallest);
    Figure {
        figure: name,
        without,
        with,
        difference,
        spread,
        within: difference < spread,
    }
}

/// One writer's batches: the offset after each, when it was sent and when it was acknowledged.
type Sent = Vec<(i64, Instant, Instant)>;
/// Ends as they were seen.
type Seen = Vec<(Instant, i64)>;

fn run(mesh: &Mesh, length: Duration, drills: usize) -> Result<Run> {
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let (sent, seen, took) = thread::scope(|scope| -> Result<_> {
        let stop = &stop;
        let writers: Vec<_> = (0..PARTITIONS)
            .map(|p| scope.spawn(move || write(mesh, p, stop)))
            .collect();
        let watchers: Vec<_> = (0..PARTITIONS)
            .map(|p| scope.spawn(move || watch(mesh, p, stop)))
            .collect();
        let drilled = drill(mesh, length, drills);
        stop.store(true, Ordering::Relaxed);
        let sent: Result<Vec<Sent>> = writers.into_iter().map(joined).collect();
        let seen: Result<Vec<Seen>> = watchers.into_iter().map(joined).collect();
        Ok((sent?, seen?, drilled?))
    })?;
    let elapsed = began.elapsed().as_secs_f64();
    let batches: usize = sent.iter().map(Vec::len).sum();
    let mut acks: Vec<f64> = Vec::new();
    let mut visible: Vec<f64> = Vec::new();
    for (sent, seen) in sent.iter().zip(&seen) {
        acks.extend(
            sent.iter()
                .map(|(_, from, to)| millis(to.saturating_duration_since(*from))),
        );
        for (next, _, acknowledged) in sent {
            let first = seen.partition_point(|(_, end)| end < next);
            if let Some((at, _)) = seen.get(first) {
                visible.push(millis(at.saturating_duration_since(*acknowledged)));
            }
        }
    }
    ensure!(
        !acks.is_empty() && !visible.is_empty(),
        "nothing was written or copied"
    );
    Ok(Run {
        drills,
        slowest_drill_ms: took,
        records_per_second: batches as f64 * load::BATCH as f64 / elapsed,
        ack_p50_ms: at(&mut acks, 0.5),
        ack_p99_ms: at(&mut acks, 0.99),
        visible_p50_ms: at(&mut visible, 0.5),
        visible_p99_ms: at(&mut visible, 0.99),
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("a client has panicked"))?
}

fn write(mesh: &Mesh, partition: i32, stop: &AtomicBool) -> Result<Sent> {
    let mut kafka = mesh.east.kafka();
    let mut sent = Sent::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let batch = load::numbered_batch(Codec::Lz4, None, 0, number)?;
        let from = Instant::now();
        let base = kafka.append(TOPIC, partition, batch)?;
        sent.push((base + i64::try_from(load::BATCH)?, from, Instant::now()));
        number += load::BATCH;
        wait::pace(Duration::from_millis(1));
    }
    Ok(sent)
}

fn watch(mesh: &Mesh, partition: i32, stop: &AtomicBool) -> Result<Seen> {
    let mut kafka = mesh.west.kafka();
    wait::until("the mirror is there", 60, || {
        kafka.end(MIRROR, partition).map(Some)
    })?;
    let mut seen = Seen::new();
    while !stop.load(Ordering::Relaxed) {
        let end = kafka.end(MIRROR, partition)?;
        if seen.last().is_none_or(|(_, last)| *last < end) {
            seen.push((Instant::now(), end));
        }
        wait::pace(LOOK);
    }
    Ok(seen)
}

/// Lets the time pass, with so many drills in it; how long the slowest took, in ms.
fn drill(mesh: &Mesh, length: Duration, drills: usize) -> Result<f64> {
    let url = mesh.west.daemons.first().context("a daemon")?.url();
    let pause = length / u32::try_from(drills + 1)?;
    let began = Instant::now();
    let mut slowest = 0.0;
    for number in 1..=drills {
        wait::span((pause * u32::try_from(number)?).saturating_sub(began.elapsed()));
        let report = program::json(&["drill", "east->west", "--url", &url])?;
        slowest = f64::max(slowest, report["took_ms"].as_f64().context("a time")?);
    }
    wait::span(length.saturating_sub(began.elapsed()));
    Ok(slowest)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn at(all: &mut [f64], share: f64) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    let last = all.len().saturating_sub(1);
    all.get((last as f64 * share) as usize)
        .copied()
        .unwrap_or(f64::NAN)
}
