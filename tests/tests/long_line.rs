//! The mirror over a long, lossy line that is cut while records are written: everything arrives once, in order, and nothing
//! lags in the end. Also says how much of a partition's throughput a round trip of 100 ms costs.
#![allow(
    clippy::disallowed_methods,
    reason = "the throughput that is printed is measured in real time"
)]

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use tradewind_tests::load::{self, Load};
use tradewind_tests::relay::Line;
use tradewind_tests::{Mesh, Naming, wait};
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;

const RTT: Duration = Duration::from_millis(100);

#[test]
fn everything_arrives_once_over_a_long_lossy_line_that_is_cut() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let line = Line {
        jitter: Duration::from_millis(5),
        loss: 0.01,
        reordering: 0.005,
        bytes_per_second: Some(12_500_000),
        ..Line::of_rtt(RTT)
    };
    let (mesh, relay) = Mesh::start_apart(folder.path(), Naming::Prefix, line, 5)?;
    mesh.east.kafka().create_topic("orders", 2, &[])?;
    let load = Load::start(|| mesh.east.kafka(), "orders", 2, Codec::Zstd);
    wait::until_true("the mirror has begun", 60, || {
        Ok(mesh.west.kafka().end("east.orders", 0)? > 0)
    })?;

    relay.cut();
    wait::until_true("the cut is told", 60, || {
        Ok(mesh.status()?["state"] == "source-unreachable")
    })?;
    let before = load.batches();
    wait::until_true("the east goes on writing", 60, || {
        Ok(load.batches() >= before + 50)
    })?;
    relay.heal();
    let written = load.stop()?;
    mesh.wait_mirrored(1, 60)?;
    let mut west = mesh.west.kafka();
    for partition in &written {
        load::check(&mut west, "east.orders", partition)?;
    }
    let (forwarded, lost) = relay.counts();
    ensure!(lost > 0, "nothing of {forwarded} was lost");
    Ok(())
}

#[test]
fn the_throughput_of_one_partition_over_a_long_line_is_told() -> Result<()> {
    const BATCHES: usize = 16;
    const MEGABYTES: f64 = BATCHES as f64 * 0.5;
    let folder = tempfile::tempdir()?;
    let now = i64::try_from(
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_millis(),
    )?;
    let (mut mesh, relay) =
        Mesh::start_apart(folder.path(), Naming::Prefix, Line::of_rtt(Duration::ZERO), 5)?;
    let (mut east, mut west) = (mesh.east.kafka(), mesh.west.kafka());
    let mut copy = |topic: &str, rtt| -> Result<f64> {
        east.create_topic(topic, 1, &[])?;
        mesh.wait_mirrored(1, 30)?;
        let mirrored = Naming::Prefix.mirrored(topic);
        wait::until("the mirror topic is there", 30, || {
            west.end(&mirrored, 0).map(Some)
        })?;
        mesh.west.kill_all();
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
        builder.append(now, None, Some(&vec![7; 500_000]), &[]);
        let batch = builder.build();
        for _ in 0..BATCHES {
            wait::until("a batch is written", 30, || {
                east.append(topic, 0, batch.clone()).map(Some)
            })?;
        }
        relay.set(Line::of_rtt(rtt));
        mesh.west.start_all()?;
        // From the first batch on: finding the source again is not throughput.
        wait::until_true("the first batch is here", 60, || Ok(west.end(&mirrored, 0)? > 0))?;
        let (first, began) = (west.end(&mirrored, 0)?, Instant::now());
        wait::until_true("all of it is here", 60, || {
            Ok(west.end(&mirrored, 0)? == BATCHES as i64)
        })?;
        let share = 1.0 - first as f64 / BATCHES as f64;
        Ok(MEGABYTES * share / began.elapsed().as_secs_f64().max(0.001))
    };
    let near = copy("near", Duration::ZERO)?;
    let far = copy("far", RTT)?;
    println!(
        "one partition: {near:.1} MB/s at 0 ms, {far:.1} MB/s at 100 ms, ratio {:.2}",
        far / near
    );
    Ok(())
}
