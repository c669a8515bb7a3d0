//! A daemon is lost, then all of them, under `acks=all` load: every acknowledged record is there once and in order.
//!
//! `TRADEWIND_KILLS` says how often a leader is killed; a few times in plain `cargo test`, twenty in `.ci/run`.
#![allow(
    clippy::disallowed_methods,
    reason = "measures real time against real processes"
)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tradewind_tests::load::{self, Load};
use tradewind_tests::{Cluster, ClusterSpec, Kafka, wait};
use tradewind_wire::compression::Codec;

const TOPIC: &str = "ledger";
const PARTITIONS: i32 = 6;

fn kills() -> usize {
    std::env::var("TRADEWIND_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2)
}

fn start(folder: &std::path::Path) -> Result<Cluster> {
    let cluster = Cluster::start(folder, &ClusterSpec::new("east", 3))?;
    cluster
        .kafka()
        .create_topic(TOPIC, PARTITIONS, &[("min.insync.replicas", "2")])?;
    Ok(cluster)
}

/// Waits until every partition has a leader and all three daemons in its in-sync set.
fn whole(kafka: &mut Kafka) -> Result<()> {
    wait::until_true("all replicas are in sync", 60, || {
        let partitions = kafka.partitions(TOPIC)?;
        ensure!(
            partitions
                .iter()
                .all(|p| p.leader_id >= 0 && p.isr_nodes.len() == 3),
            "{:?}",
            partitions
                .iter()
                .map(|p| (p.leader_id, &p.isr_nodes))
                .collect::<Vec<_>>()
        );
        Ok(true)
    })
}

/// Waits until the load has moved on by some batches for every partition.
fn moving(load: &Load) -> Result<()> {
    let before = load.batches();
    wait::until_true("writes go on", 60, || {
        ensure!(!load.has_failed(), "a writer gave up");
        Ok(load.batches() >= before + 20 * u64::from(PARTITIONS.unsigned_abs()))
    })
}

#[test]
fn every_acknowledged_record_survives_the_leader_again_and_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = start(folder.path())?;
    let mut kafka = cluster.kafka();
    let load = Load::start(|| cluster.kafka(), TOPIC, PARTITIONS, Codec::Lz4);
    moving(&load)?;
    let mut moments = Vec::new();
    for _ in 0..kills() {
        whole(&mut kafka)?;
        let leader = kafka.partitions(TOPIC)?.first().context("a partition")?.leader_id;
        moments.push(Instant::now());
        cluster.daemon(leader)?.kill();
        moving(&load)?;
        cluster.start_all()?;
        moving(&load)?;
    }
    let written = load.stop()?;
    for partition in &written {
        load::check(&mut kafka, TOPIC, partition)?;
    }
    // What happened between one kill and the next is the first one's doing.
    let ends = moments.iter().skip(1).copied().chain([Instant::now()]);
    let mut gaps: Vec<Duration> = moments
        .iter()
        .zip(ends)
        .filter_map(|(&from, to)| {
            written
                .iter()
                .filter_map(|w| load::longest_gap(w, from, to))
                .max()
        })
        .collect();
    gaps.sort();
    let total: u64 = written.iter().map(|w| w.acknowledged).sum();
    println!(
        "{} leaders killed, {total} records acknowledged, all there once and in order; \
         time without writes: p50 {:.2?}, max {:.2?}",
        gaps.len(),
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1]
    );
    Ok(())
}

#[test]
fn every_acknowledged_record_survives_the_whole_cluster() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = start(folder.path())?;
    let load = Load::start(|| cluster.kafka(), TOPIC, PARTITIONS, Codec::None);
    moving(&load)?;
    for _ in 0..2 {
        let killed = Instant::now();
        cluster.kill_all();
        cluster.start_all()?;
        moving(&load)?;
        println!("all killed; writes went on within {:.2?}", killed.elapsed());
    }
    let written = load.stop()?;
    let mut kafka = cluster.kafka();
    for partition in &written {
        load::check(&mut kafka, TOPIC, partition)?;
    }
    Ok(())
}
