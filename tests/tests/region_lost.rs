//! A region is lost: every daemon of the east is killed, the flow fails over, and applications carry on in the west.
//!
//! Shown for both namings with compressed batches of idempotent producers. The same with foreign clients and their
//! groups: `tests/clients/region.py`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use tradewind_tests::kafka::Record;
use tradewind_tests::load::{self, Load, Written};
use tradewind_tests::{Kafka, Mesh, Naming, wait};
use tradewind_wire::compression::Codec;

const TOPIC: &str = "orders";
const GROUP: &str = "billing";
const PARTITIONS: i32 = 3;

/// Every partition's records from the given positions on.
fn read_from(kafka: &mut Kafka, topic: &str, positions: &[(i32, i64)]) -> Result<BTreeMap<i32, Vec<Record>>> {
    positions
        .iter()
        .map(|&(p, offset)| Ok((p, kafka.records(topic, p, offset)?)))
        .collect()
}

/// Writes some records into each partition with batches of this codec.
fn write_some(mesh: &Mesh, codec: Codec, batches: u64) -> Result<Vec<Written>> {
    let load = Load::start(|| mesh.east.kafka(), TOPIC, PARTITIONS, codec);
    wait::until_true("records are written", 60, || {
        ensure!(!load.has_failed(), "a writer gave up");
        Ok(load.batches() >= batches)
    })?;
    load.stop()
}

fn lose_the_east(daemons: i32, naming: Naming, codec: Codec) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut mesh = Mesh::start(folder.path(), daemons, naming)?;
    let mut east = mesh.east.kafka();
    east.create_topic(TOPIC, PARTITIONS, &[])?;
    let written = write_some(&mesh, codec, 300)?;

    // The group has read a third of each partition.
    let positions: Vec<(i32, i64)> = written
        .iter()
        .map(|w| (w.partition, i64::try_from(w.acknowledged / 3).unwrap_or(0)))
        .collect();
    // A coordinator that is still loading says so, and clients ask again.
    wait::until("the group's position is committed", 30, || {
        east.commit(GROUP, TOPIC, &positions).map(Some)
    })?;
    let before = read_from(&mut east, TOPIC, &positions)?;

    mesh.wait_mirrored(1, 60)?;
    let mirrored = naming.mirrored(TOPIC);
    let mut west = mesh.west.kafka();
    refuses_clients(&mut west, &mirrored)?;

    mesh.east.kill_all();
    let report = mesh.fail_over()?;
    reports_cuts(&report, &mirrored, &written)?;

    // The group goes on in the west where it stood, with the same records.
    let committed = west.committed(GROUP, &mirrored, PARTITIONS)?;
    let expected: Vec<i64> = positions.iter().map(|&(_, offset)| offset).collect();
    ensure!(
        committed == expected,
        "the group stands at {committed:?}, committed {expected:?}"
    );
    let after = read_from(&mut west, &mirrored, &positions)?;
    ensure!(
        before == after,
        "what the group has left to read differs from what it had"
    );

    // All of it is there, and new records can be produced.
    for partition in &written {
        load::check(&mut west, &mirrored, partition)?;
    }
    let more = Load::start(|| mesh.west.kafka(), &mirrored, PARTITIONS, codec);
    wait::until_true("the west takes new records", 60, || Ok(more.batches() >= 30))?;
    for new in more.stop()? {
        let end = west.end(&mirrored, new.partition)?;
        let old = written
            .iter()
            .find(|w| w.partition == new.partition)
            .context("the partition was written")?;
        let expected = old.acknowledged + new.acknowledged;
        ensure!(
            end == i64::try_from(expected)?,
            "partition {} ends at {end}, not {expected}",
            new.partition
        );
    }
    // Repeating a failover changes nothing.
    let again = mesh.fail_over()?;
    ensure!(
        again["topics"] == report["topics"],
        "a repeated failover says {again}, the first said {report}"
    );
    Ok(())
}

/// Until a mirror topic is promoted, only its flow writes to it.
fn refuses_clients(west: &mut Kafka, topic: &str) -> Result<()> {
    let end = west.end(topic, 0)?;
    let batch = load::numbered_batch(Codec::None, Some(west.producer_id()?), 0, 0)?;
    let refused = west.append(topic, 0, batch);
    ensure!(
        refused.is_err(),
        "a client wrote to a mirror topic at {refused:?}"
    );
    ensure!(west.end(topic, 0)? == end, "a refused write moved the end");
    Ok(())
}

/// The report names every partition with its cut: here all that was acknowledged in the east.
fn reports_cuts(report: &serde_json::Value, topic: &str, written: &[Written]) -> Result<()> {
    let promoted = report["topics"]
        .as_array()
        .and_then(|all| all.iter().find(|t| t["topic"] == topic));
    let promoted = promoted.with_context(|| format!("{topic} is not in {report}"))?;
    for partition in written {
        let found = promoted["partitions"]
            .as_array()
            .and_then(|all| all.iter().find(|p| p["partition"] == partition.partition))
            .with_context(|| format!("partition {} is not in {report}", partition.partition))?;
        ensure!(
            found["cut"] == partition.acknowledged,
            "cut of {found}, acknowledged {}",
            partition.acknowledged
        );
    }
    Ok(())
}

#[test]
fn a_region_of_one_daemon_is_lost_with_prefix_naming() -> Result<()> {
    lose_the_east(1, Naming::Prefix, Codec::Zstd)
}

#[test]
fn a_region_of_one_daemon_is_lost_with_identity_naming() -> Result<()> {
    lose_the_east(1, Naming::Identity, Codec::Lz4)
}

#[test]
fn a_region_of_three_daemons_is_lost_with_prefix_naming() -> Result<()> {
    lose_the_east(3, Naming::Prefix, Codec::Snappy)
}

#[test]
fn a_region_of_three_daemons_is_lost_with_identity_naming() -> Result<()> {
    lose_the_east(3, Naming::Identity, Codec::Gzip)
}
