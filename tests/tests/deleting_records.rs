//! DeleteRecords: what it refuses, and that what it deleted stays deleted on every daemon, after any crash.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tradewind_tests::kafka::Kafka;
use tradewind_tests::{Cluster, ClusterSpec, wait};
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use tradewind_wire::messages::fetch::{FetchPartition, FetchTopic};
use tradewind_wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use tradewind_wire::messages::{DeleteRecordsRequest, FetchRequest, ListOffsetsRequest};

const TOPIC: &str = "journal";
/// The records are from 1970: they must not be deleted for that.
const KEEP: [(&str, &str); 1] = [("retention.ms", "-1")];

fn batch(records: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    for number in 0..records {
        builder.append(1_000 + number, None, Some(b"value"), &[]);
    }
    builder.build()
}

/// The low watermark and the error of one partition.
fn delete(
    kafka: &mut Kafka,
    at: SocketAddr,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<(i64, ErrorCode)> {
    let request = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: topic.into(),
            partitions: vec![DeleteRecordsPartition {
                partition_index: partition,
                offset,
            }],
        }],
        timeout_ms: 20_000,
    };
    let answer = kafka.at(at, &request, 2)?;
    let part = answer
        .topics
        .first()
        .and_then(|topic| topic.partitions.first())
        .context("no answer for the partition")?;
    Ok((part.low_watermark, ErrorCode::from_code(part.error_code)))
}

fn start_of(kafka: &mut Kafka, at: SocketAddr, topic: &str) -> Result<(i64, ErrorCode)> {
    let request = ListOffsetsRequest {
        topics: vec![ListOffsetsTopic {
            name: topic.into(),
            partitions: vec![ListOffsetsPartition {
                timestamp: -2,
                ..Default::default()
            }],
        }],
        ..Default::default()
    };
    let answer = kafka.at(at, &request, 7)?;
    let part = &answer.topics[0].partitions[0];
    Ok((part.offset, ErrorCode::from_code(part.error_code)))
}

fn fetch_error(kafka: &mut Kafka, at: SocketAddr, topic: &str, offset: i64) -> Result<ErrorCode> {
    let request = FetchRequest {
        max_wait_ms: 0,
        topics: vec![FetchTopic {
            topic: topic.into(),
            partitions: vec![FetchPartition {
                fetch_offset: offset,
                partition_max_bytes: 1 << 20,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = kafka.at(at, &request, 11)?;
    Ok(ErrorCode::from_code(answer.responses[0].partitions[0].error_code))
}

#[test]
fn records_are_deleted_up_to_the_watermark_and_no_further() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 1))?;
    let mut kafka = cluster.kafka();
    kafka.create_topic(TOPIC, 1, &KEEP)?;
    kafka.create_topic("latest-only", 1, &[("cleanup.policy", "compact")])?;
    kafka.create_topic("both", 1, &[("cleanup.policy", "compact,delete")])?;
    for _ in 0..4 {
        kafka.append(TOPIC, 0, batch(10))?;
    }
    let at = kafka.leader(TOPIC, 0, true)?;

    ensure!(
        delete(&mut kafka, at, TOPIC, 0, 15)? == (15, ErrorCode::None),
        "within a batch"
    );
    ensure!(start_of(&mut kafka, at, TOPIC)? == (15, ErrorCode::None));
    ensure!(fetch_error(&mut kafka, at, TOPIC, 14)? == ErrorCode::OffsetOutOfRange);
    ensure!(kafka.records(TOPIC, 0, 15)?.len() == 25);
    ensure!(
        delete(&mut kafka, at, TOPIC, 0, 3)? == (15, ErrorCode::None),
        "deleted long ago"
    );
    ensure!(delete(&mut kafka, at, TOPIC, 0, 41)? == (-1, ErrorCode::OffsetOutOfRange));
    ensure!(delete(&mut kafka, at, TOPIC, 0, -2)? == (-1, ErrorCode::OffsetOutOfRange));
    ensure!(
        delete(&mut kafka, at, TOPIC, 0, -1)? == (40, ErrorCode::None),
        "all there is"
    );
    ensure!(kafka.append(TOPIC, 0, batch(1))? == 40, "offsets go on");

    ensure!(delete(&mut kafka, at, TOPIC, 7, 0)? == (-1, ErrorCode::UnknownTopicOrPartition));
    ensure!(delete(&mut kafka, at, "absent", 0, 0)? == (-1, ErrorCode::UnknownTopicOrPartition));
    ensure!(delete(&mut kafka, at, "latest-only", 0, 0)? == (-1, ErrorCode::PolicyViolation));
    ensure!(delete(&mut kafka, at, "both", 0, -1)? == (0, ErrorCode::None));
    Ok(())
}

#[test]
fn what_was_deleted_stays_deleted_whoever_leads_and_whatever_crashes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 3))?;
    let mut kafka = cluster.kafka();
    kafka.create_topic(TOPIC, 1, &KEEP)?;
    wait::until_true("all three copies are in sync", 30, || {
        Ok(kafka.partitions(TOPIC)?[0].isr_nodes.len() == 3)
    })?;
    for _ in 0..5 {
        kafka.append(TOPIC, 0, batch(10))?;
    }
    let leader = kafka.leader(TOPIC, 0, true)?;
    for other in cluster
        .daemons
        .iter()
        .map(|daemon| daemon.kafka)
        .filter(|at| *at != leader)
    {
        let refused = delete(&mut cluster.kafka(), other, TOPIC, 0, 1)?;
        ensure!(refused == (-1, ErrorCode::NotLeaderOrFollower), "{refused:?}");
    }
    ensure!(delete(&mut kafka, leader, TOPIC, 0, 33)? == (33, ErrorCode::None));

    // The leader is gone the moment after it has answered.
    let gone = cluster
        .daemons
        .iter_mut()
        .find(|daemon| daemon.kafka == leader)
        .context("the leader is one of the daemons")?;
    gone.kill();
    let left: Vec<SocketAddr> = cluster
        .daemons
        .iter()
        .map(|d| d.kafka)
        .filter(|at| *at != leader)
        .collect();
    let mut kafka = Kafka::new(left);
    let next = wait::until("another daemon leads", 60, || {
        let next = kafka.leader(TOPIC, 0, true)?;
        Ok(Some(next).filter(|next| *next != leader))
    })?;
    // A leader that has just begun sends its clients away for a moment; that it leads makes no other answer right.
    let start = wait::until("the new leader answers", 60, || {
        let (start, error) = start_of(&mut kafka, next, TOPIC)?;
        let later = [ErrorCode::NotLeaderOrFollower, ErrorCode::OffsetNotAvailable];
        Ok((!later.contains(&error)).then_some((start, error)))
    })?;
    ensure!(start == (33, ErrorCode::None), "{start:?}");
    ensure!(fetch_error(&mut kafka, next, TOPIC, 32)? == ErrorCode::OffsetOutOfRange);

    // All at once, before any of them could have written more down.
    ensure!(delete(&mut kafka, next, TOPIC, 0, 41)? == (41, ErrorCode::None));
    cluster.kill_all();
    cluster.start_all()?;
    let mut kafka = cluster.kafka();
    let start = wait::until("the partition is led again", 60, || {
        let at = kafka.leader(TOPIC, 0, true)?;
        let (start, error) = start_of(&mut kafka, at, TOPIC)?;
        Ok((error == ErrorCode::None).then_some(start))
    })?;
    ensure!(start == 41, "{start}");
    ensure!(kafka.records(TOPIC, 0, 41)?.len() == 9);
    Ok(())
}
