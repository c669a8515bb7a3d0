//! What somebody deleted at the source (DeleteRecords) is deleted in its mirror; what retention removed there is not.

use anyhow::{Result, ensure};
use bytes::Bytes;
use tradewind_tests::{Kafka, Mesh, Naming, wait};
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;

const TOPIC: &str = "journal";
/// The records are from 1970: they must not be removed for that.
const KEEP: &str = "[topic_defaults]\n\"retention.ms\" = -1\n";
/// Every batch begins a segment, and only the newest segment stays.
const REMOVE: &str = "[topic_defaults]\n\"retention.ms\" = -1\n\"retention.bytes\" = 1\n\"segment.bytes\" = 500\n\
    \"log.retention.check.interval.ms\" = 50\n";

fn ten() -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    for number in 0..10 {
        builder.append(
            1_000 + number,
            None,
            Some(b"a value of some length, so that"),
            &[],
        );
    }
    builder.build()
}

fn append(kafka: &mut Kafka, batches: usize) -> Result<()> {
    for _ in 0..batches {
        wait::until("ten records are written", 30, || {
            kafka.append(TOPIC, 0, ten()).map(Some)
        })?;
    }
    Ok(())
}

fn delete(kafka: &mut Kafka, offset: i64) -> Result<()> {
    wait::until_true("records are deleted", 30, || {
        Ok(kafka.delete_records(TOPIC, 0, offset)? >= offset)
    })
}

fn wait_start(kafka: &mut Kafka, topic: &str, start: i64) -> Result<()> {
    wait::until_true(&format!("{topic} begins at {start}"), 30, || {
        let found = kafka.start(topic, 0)?;
        ensure!(found == start, "it begins at {found}");
        Ok(true)
    })
}

#[test]
fn a_mirror_deletes_what_was_deleted_at_its_source_and_keeps_what_retention_removed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut mesh = Mesh::start_with(folder.path(), 1, Naming::Prefix, KEEP)?;
    let mirrored = Naming::Prefix.mirrored(TOPIC);
    let (mut east, mut west) = (mesh.east.kafka(), mesh.west.kafka());
    east.create_topic(TOPIC, 1, &[])?;
    append(&mut east, 4)?;
    mesh.wait_mirrored(1, 30)?;
    delete(&mut east, 15)?;
    wait_start(&mut west, &mirrored, 15)?;
    ensure!(
        west.records(&mirrored, 0, 15)?.len() == 25,
        "what is left is readable"
    );

    // Retention at the source, by its own defaults, which are not the mirror's.
    mesh.east.daemons[0].terminate()?;
    mesh.configure_east(REMOVE)?;
    mesh.east.start_all()?;
    append(&mut east, 2)?;
    wait_start(&mut east, TOPIC, 50)?;
    mesh.wait_mirrored(1, 30)?;
    ensure!(
        west.start(&mirrored, 0)? == 15,
        "retention removed records of a mirror"
    );
    // A position below the log start is still a wish: these records are in the mirror.
    delete(&mut east, 25)?;
    wait_start(&mut west, &mirrored, 25)?;

    // Written and deleted while the mirror was away: it has missed nothing.
    mesh.west.kill_all();
    mesh.east.daemons[0].terminate()?;
    mesh.configure_east(KEEP)?;
    mesh.east.start_all()?;
    append(&mut east, 2)?;
    delete(&mut east, 75)?;
    mesh.west.start_all()?;
    wait_start(&mut west, &mirrored, 75)?;
    mesh.wait_mirrored(1, 30)?;
    ensure!(west.records(&mirrored, 0, 75)?.len() == 5);
    let status = mesh.status()?;
    ensure!(status["problems"] == serde_json::json!([]), "{status}");

    // What is promoted is this cluster's own.
    mesh.fail_over()?;
    delete(&mut east, 80)?;
    ensure!(west.append(&mirrored, 0, ten())? == 80);
    ensure!(
        west.start(&mirrored, 0)? == 75,
        "a promoted topic follows its source"
    );
    Ok(())
}

#[test]
fn any_leader_of_the_source_knows_what_was_deleted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut mesh = Mesh::start_with(folder.path(), 3, Naming::Identity, KEEP)?;
    let (mut east, mut west) = (mesh.east.kafka(), mesh.west.kafka());
    east.create_topic(TOPIC, 1, &[])?;
    append(&mut east, 3)?;
    mesh.wait_mirrored(1, 60)?;

    mesh.west.kill_all();
    let leader = east.leader(TOPIC, 0, true)?;
    delete(&mut east, 22)?;
    let gone = mesh.east.daemons.iter_mut().find(|daemon| daemon.kafka == leader);
    gone.into_iter().for_each(tradewind_tests::Daemon::kill);
    mesh.west.start_all()?;
    wait_start(&mut west, TOPIC, 22)?;
    for daemon in &mut mesh.west.daemons {
        daemon.kill();
        daemon.start()?;
        daemon.wait_ready()?;
    }
    wait_start(&mut west, TOPIC, 22)?;
    ensure!(west.records(TOPIC, 0, 22)?.len() == 8);
    Ok(())
}
