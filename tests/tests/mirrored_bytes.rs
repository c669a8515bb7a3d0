//! What the west stores is what the east stores: the same compressed bytes at the same offsets, but for the leader epoch.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tradewind_tests::load::Load;
use tradewind_tests::{Daemon, Mesh, Naming, wait};
use tradewind_wire::batch::split;
use tradewind_wire::compression::Codec;

/// The segments of one partition on one daemon, joined, with every leader epoch set to zero.
fn stored(daemon: &Daemon, topic: &str, partition: i32) -> Result<Vec<u8>> {
    let folder = daemon
        .folder
        .join("data/topics")
        .join(topic)
        .join(partition.to_string());
    let mut segments: Vec<PathBuf> = fs::read_dir(&folder)
        .with_context(|| folder.display().to_string())?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    let mut joined = Vec::new();
    for segment in segments {
        for batch in split(Bytes::from(fs::read(&segment)?)) {
            let mut batch = batch.with_context(|| segment.display().to_string())?;
            batch.check_crc()?;
            batch.set_leader_epoch(0);
            joined.extend_from_slice(&batch.to_bytes());
        }
    }
    Ok(joined)
}

/// The id under which a cluster stores a topic.
fn topic_id(cluster: &tradewind_tests::Cluster, topic: &str) -> Result<String> {
    let response = cluster.kafka().metadata(topic)?;
    let found = response.topics.first().context("no answer for the topic")?;
    ensure!(found.error_code == 0, "{topic}: error {}", found.error_code);
    Ok(found.topic_id.to_string())
}

fn same_bytes(folder: &Path, daemons: i32) -> Result<()> {
    let mesh = Mesh::start(folder, daemons, Naming::Prefix)?;
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let topic = format!("{codec:?}").to_lowercase();
        mesh.east.kafka().create_topic(&topic, 2, &[])?;
        let load = Load::start(|| mesh.east.kafka(), &topic, 2, codec);
        wait::until_true("records are written", 60, || Ok(load.batches() >= 60))?;
        load.stop()?;
        let mirrored = format!("east.{topic}");
        let there = wait::until("the mirror topic exists", 30, || {
            Ok(Some(topic_id(&mesh.west, &mirrored)?))
        })?;
        let here = topic_id(&mesh.east, &topic)?;
        for partition in 0..2 {
            let source = wait::until("every replica of the source holds the same bytes", 60, || {
                let copies: Vec<Vec<u8>> = mesh
                    .east
                    .daemons
                    .iter()
                    .map(|daemon| stored(daemon, &here, partition))
                    .collect::<Result<_>>()?;
                let sizes: Vec<usize> = copies.iter().map(Vec::len).collect();
                ensure!(
                    copies.windows(2).all(|pair| pair[0] == pair[1]),
                    "copies of {sizes:?} bytes"
                );
                Ok(copies.into_iter().next())
            })?;
            ensure!(source.len() > 1000, "the source holds {} bytes", source.len());
            wait::until_true("every replica of the mirror holds the source's bytes", 60, || {
                for daemon in &mesh.west.daemons {
                    let mirror = stored(daemon, &there, partition)?;
                    ensure!(
                        mirror == source,
                        "{topic}/{partition}: {} of {} bytes",
                        mirror.len(),
                        source.len()
                    );
                }
                Ok(true)
            })?;
        }
    }
    Ok(())
}

#[test]
fn one_daemon_each_stores_the_same_bytes_with_every_codec() -> Result<()> {
    same_bytes(tempfile::tempdir()?.path(), 1)
}

#[test]
fn three_daemons_each_store_the_same_bytes_with_every_codec() -> Result<()> {
    same_bytes(tempfile::tempdir()?.path(), 3)
}
