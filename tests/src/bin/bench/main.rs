//! First figures: produce, end-to-end latency, mirror, start-up and idle memory, each beside a baseline of the same run.
//!
//! ```text
//! cargo run --release -p tradewind-tests --bin bench -- [--bytes N] [--rounds N] [--json FILE]
//! ```
//!
//! `bench cells` measures twelve named cells, with latencies at half load (`cells.rs`); `bench groups` how long many groups
//! take to settle (`groups.rs`); `bench kill` how long writes stop when a leader is killed (`kill.rs`); `bench
//! scale` what thousands of partitions cost (`scale.rs`); `bench line` what a long line costs a flow (`line.rs`); `bench
//! mirrormaker` how a flow compares with MirrorMaker 2 (`mirrormaker.rs`).
//!
//! Two systems never run at the same time: they take turns, `--rounds` times, with the same client program (Apache
//! Kafka's `kafka-producer-perf-test` and end-to-end latency test) and the same topic (6 partitions, 3 replicas). Both
//! are measured with every append flushed (`flush.messages=1`) and with flushing left to the operating system. What is
//! printed are medians over the rounds, and ratios between figures of one run; bare times say nothing elsewhere.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

mod baseline;
mod cells;
mod clients;
mod figures;
mod groups;
mod kill;
mod line;
mod mirror;
mod mirrormaker;
mod mirrors;
mod process;
mod scale;
mod systems;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tradewind_tests::options::Options as Said;

use crate::clients::Java;
use crate::systems::SYSTEMS;

/// Partitions of every topic that is measured.
const PARTITIONS: u32 = 6;

struct Options {
    bytes: u64,
    rounds: usize,
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("groups") => return groups::run(std::env::args().skip(2)),
        Some("cells") => return cells::run(std::env::args().skip(2)),
        Some("kill") => return kill::run(std::env::args().skip(2)),
        Some("mirrormaker") => return mirrormaker::run(std::env::args().skip(2)),
        Some("line") => return line::run(std::env::args().skip(2)),
        Some("scale") => return scale::run(std::env::args().skip(2)),
        _ => {}
    }
    let options = options()?;
    let folder = tempfile::tempdir()?;
    let mut figures = Map::new();
    baselines(&options, folder.path(), &mut figures)?;
    produce(&options, folder.path(), &mut figures)?;
    mirrored(&options, folder.path(), &mut figures)?;
    write(options.json.as_deref(), &figures)
}

fn options() -> Result<Options> {
    let mut said = Said::read(std::env::args().skip(1))?;
    let options = Options {
        bytes: said.take("--bytes")?.unwrap_or(1 << 30),
        rounds: said.take("--rounds")?.unwrap_or(3),
        json: said.take("--json")?,
    };
    said.end("see the head of tests/src/bin/bench/main.rs")?;
    Ok(options)
}

/// Writes figures where they are wanted.
fn write(json: Option<&Path>, figures: &impl Serialize) -> Result<()> {
    let Some(path) = json else { return Ok(()) };
    let text = serde_json::to_string_pretty(figures)?;
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn baselines(options: &Options, folder: &Path, figures: &mut Map<String, Value>) -> Result<()> {
    println!("baselines, {} MiB", options.bytes >> 20);
    let written = baseline::file_write(folder, options.bytes)?;
    let flushed = baseline::file_write_flushed(folder, options.bytes.min(64 << 20))?;
    let quic = baseline::loopback_quic(folder, options.bytes)?;
    println!("  file write, flushed once at the end        {written:8.0} MB/s");
    println!("  file write, flushed every 256 KiB          {flushed:8.0} MB/s");
    println!("  QUIC over loopback, one stream             {quic:8.0} MB/s");
    figures.insert(
        "baseline".into(),
        json!({ "file": written, "file_flushed": flushed, "quic": quic }),
    );
    Ok(())
}

/// Produce with acks=all and end-to-end latency, the two systems taking turns.
fn produce(options: &Options, folder: &Path, figures: &mut Map<String, Value>) -> Result<()> {
    let java = Java::find()?;
    let mut cells: Vec<Value> = Vec::new();
    for round in 0..options.rounds {
        for name in SYSTEMS {
            let place = folder.join(format!("{name}-{round}"));
            let system = systems::start(name, &place, "", 3)?;
            let idle = system.idle_bytes()?;
            println!(
                "round {round}, {name}: ready in {:.2} s, idle {} MiB a daemon",
                system.start_seconds(),
                idle >> 20
            );
            let mut cell = json!({ "system": name, "round": round, "ready_s": system.start_seconds(), "idle_bytes": idle });
            for (flush, setting) in [("flushed", "1"), ("unflushed", "9223372036854775807")] {
                for size in [100, 1024] {
                    let topic = format!("{flush}-{size}");
                    java.create_topic(&system.bootstrap(), &topic, PARTITIONS, 3, setting)?;
                    let cpu = system.cpu_seconds()?;
                    let produced = java.produce(&system.bootstrap(), &topic, options.bytes / size, size)?;
                    let cpu = (system.cpu_seconds()? - cpu) / (options.bytes as f64 / 1e9);
                    println!(
                        "  acks=all {flush:9} {size:5} B  {:7.1} MB/s {:9.0} records/s  p50 {:4} ms p99 {:4} ms  {cpu:5.1} CPU s/GB",
                        produced.megabytes, produced.records, produced.p50_ms, produced.p99_ms
                    );
                    cell[topic] = json!({ "mb_s": produced.megabytes, "records_s": produced.records,
                        "p50_ms": produced.p50_ms, "p99_ms": produced.p99_ms, "cpu_s_per_gb": cpu });
                }
                let topic = format!("{flush}-latency");
                java.create_topic(&system.bootstrap(), &topic, 1, 3, setting)?;
                let latency = java.end_to_end(&system.bootstrap(), &topic, 5_000)?;
                println!(
                    "  end to end, {flush}: p50 {} ms, p99 {} ms",
                    latency.p50_ms, latency.p99_ms
                );
                cell[topic] = json!({ "p50_ms": latency.p50_ms, "p99_ms": latency.p99_ms });
            }
            cells.push(cell);
        }
    }
    ratios(&cells, figures);
    figures.insert("produce".into(), cells.into());
    Ok(())
}

/// Medians over the rounds, ours by theirs.
fn ratios(cells: &[Value], figures: &mut Map<String, Value>) {
    println!("ratios, ours / Apache Kafka's, medians of the rounds");
    let mut table = Map::new();
    let of = |system: &str, topic: &str, key: &str| {
        let cells = cells.iter().filter(|cell| cell["system"] == system);
        median(cells.filter_map(|cell| {
            if topic.is_empty() {
                cell[key].as_f64()
            } else {
                cell[topic][key].as_f64()
            }
        }))
    };
    for topic in ["flushed-100", "flushed-1024", "unflushed-100", "unflushed-1024"] {
        let line: Vec<String> = ["mb_s", "p99_ms", "cpu_s_per_gb"]
            .iter()
            .map(|key| {
                let ratio = of("tradewind", topic, key) / of("apache", topic, key);
                table.insert(format!("{topic}.{key}"), json!(ratio));
                format!("{key} {ratio:.2}")
            })
            .collect();
        println!("  {topic:15} {}", line.join("  "));
    }
    for key in ["ready_s", "idle_bytes"] {
        let ratio = of("tradewind", "", key) / of("apache", "", key);
        println!("  {key:15} {ratio:.4}");
        table.insert(key.into(), json!(ratio));
    }
    figures.insert("ratio".into(), table.into());
}

fn mirrored(options: &Options, folder: &Path, figures: &mut Map<String, Value>) -> Result<()> {
    let java = Java::find()?;
    let mut rates = Vec::new();
    for round in 0..options.rounds {
        let mirrored = mirror::run(&java, &folder.join(format!("mirror-{round}")), options.bytes)?;
        println!(
            "mirror, round {round}: {:.1} MB/s, target {:.1} and source {:.1} CPU s/GB",
            mirrored.megabytes, mirrored.target_cpu_per_gb, mirrored.source_cpu_per_gb
        );
        rates.push(
            json!({ "mb_s": mirrored.megabytes, "target_cpu_s_per_gb": mirrored.target_cpu_per_gb,
            "source_cpu_s_per_gb": mirrored.source_cpu_per_gb }),
        );
    }
    let rate = median(rates.iter().filter_map(|rate| rate["mb_s"].as_f64()));
    let quic = figures["baseline"]["quic"].as_f64().unwrap_or(f64::NAN);
    println!("mirror / QUIC over loopback: {:.2}", rate / quic);
    figures.insert("mirror".into(), rates.into());
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
