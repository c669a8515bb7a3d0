//! DescribeLogDirs and DescribeProducers, and the epochs that ListOffsets tells, against what was written.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tradewind_tests::kafka::Kafka;
use tradewind_tests::{Cluster, ClusterSpec, wait};
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::describe_log_dirs::{DescribableLogDirTopic, DescribeLogDirsResult};
use tradewind_wire::messages::describe_producers::{PartitionResponse, TopicRequest};
use tradewind_wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use tradewind_wire::messages::{DescribeLogDirsRequest, DescribeProducersRequest, ListOffsetsRequest};

const TOPIC: &str = "ledger";
/// The records are from 1970: they must not be deleted for that.
const KEEP: [(&str, &str); 1] = [("retention.ms", "-1")];

fn batch(producer: Option<(i64, i16, i32)>, time: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    for number in 0..3 {
        builder.append(time + number, None, Some(b"value"), &[]);
    }
    if let Some((id, epoch, sequence)) = producer {
        builder.producer(id, epoch, sequence);
    }
    builder.build()
}

fn log_dirs(
    kafka: &mut Kafka,
    version: i16,
    topics: Option<&[(&str, i32)]>,
) -> Result<DescribeLogDirsResult> {
    let asked = |of: &(&str, i32)| DescribableLogDirTopic {
        topic: of.0.into(),
        partitions: vec![of.1],
    };
    let request = DescribeLogDirsRequest {
        topics: topics.map(|topics| topics.iter().map(asked).collect()),
    };
    let answer = kafka.any(&request, version)?;
    ensure!(answer.error_code == 0 && answer.results.len() == 1, "{answer:?}");
    answer.results.into_iter().next().context("one directory")
}

fn producers(kafka: &mut Kafka, topic: &str, partition: i32) -> Result<PartitionResponse> {
    let request = DescribeProducersRequest {
        topics: vec![TopicRequest {
            name: topic.into(),
            partition_indexes: vec![partition],
        }],
    };
    let mut answer = kafka.any(&request, 0)?;
    Ok(answer.topics.remove(0).partitions.remove(0))
}

#[test]
fn sizes_and_producers_are_those_of_the_log() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 1))?;
    let mut kafka = cluster.kafka();
    kafka.create_topic(TOPIC, 2, &KEEP)?;
    let (id, epoch) = kafka.producer_id()?;
    let written = batch(Some((id, epoch, 0)), 5_000);
    kafka.append(TOPIC, 0, written.clone())?;
    kafka.append(TOPIC, 0, batch(Some((id, epoch, 3)), 6_000))?;
    let size = 2 * i64::try_from(written.len())?;

    for version in 1..=4 {
        let all = log_dirs(&mut kafka, version, None)?;
        let topic = all.topics.iter().find(|topic| topic.name == *TOPIC);
        let partitions = &topic.context("the topic is there")?.partitions;
        let sizes: Vec<_> = partitions
            .iter()
            .map(|p| (p.partition_index, p.partition_size))
            .collect();
        ensure!(sizes == [(0, size), (1, 0)], "{sizes:?}");
        ensure!(partitions.iter().all(|p| p.offset_lag == 0 && !p.is_future_key));
        ensure!(all.log_dir.starts_with('/') && all.error_code == 0, "{all:?}");
        let told = all.total_bytes >= all.usable_bytes && all.usable_bytes > 0;
        ensure!(told == (version == 4), "{} {}", all.total_bytes, all.usable_bytes);
    }
    let one = log_dirs(&mut kafka, 4, Some(&[(TOPIC, 1), ("absent", 0), (TOPIC, 9)]))?;
    ensure!(
        one.topics.len() == 1 && one.topics[0].partitions.len() == 1,
        "{one:?}"
    );
    ensure!(log_dirs(&mut kafka, 4, Some(&[]))?.topics.is_empty());

    let known = producers(&mut kafka, TOPIC, 0)?;
    ensure!(
        known.error_code == 0 && known.active_producers.len() == 1,
        "{known:?}"
    );
    let producer = &known.active_producers[0];
    ensure!(
        (producer.producer_id, producer.producer_epoch) == (id, i32::from(epoch)),
        "{producer:?}"
    );
    ensure!(
        (
            producer.last_sequence,
            producer.last_timestamp,
            producer.current_txn_start_offset
        ) == (5, 6_002, -1),
        "{producer:?}"
    );
    ensure!(producers(&mut kafka, TOPIC, 1)?.active_producers.is_empty());
    for (topic, partition, expect) in [
        (TOPIC, 7, ErrorCode::UnknownTopicOrPartition),
        ("absent", 0, ErrorCode::UnknownTopicOrPartition),
        ("a b", 0, ErrorCode::InvalidTopicException),
    ] {
        let refused = producers(&mut kafka, topic, partition)?;
        ensure!(
            refused.error_code == expect.code() && refused.error_message.is_some(),
            "{refused:?}"
        );
    }
    Ok(())
}

#[test]
fn offsets_come_with_the_epochs_of_their_records() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 1))?;
    cluster.kafka().create_topic(TOPIC, 1, &KEEP)?;
    cluster.kafka().append(TOPIC, 0, batch(None, 1_000))?;
    let first = cluster.kafka().partitions(TOPIC)?[0].leader_epoch;
    // The daemon that comes back leads under another epoch.
    cluster.kill_all();
    cluster.start_all()?;
    let mut kafka = cluster.kafka();
    let second = wait::until("it leads again", 30, || {
        let epoch = kafka.partitions(TOPIC)?[0].leader_epoch;
        Ok((epoch > first).then_some(epoch))
    })?;
    kafka.append(TOPIC, 0, batch(None, 2_000))?;
    let mut find = |timestamp: i64, version: i16| -> Result<(i64, i32, ErrorCode)> {
        let request = ListOffsetsRequest {
            topics: vec![ListOffsetsTopic {
                name: TOPIC.into(),
                partitions: vec![ListOffsetsPartition {
                    timestamp,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        };
        let found = &kafka.any(&request, version)?.topics[0].partitions[0];
        Ok((
            found.offset,
            found.leader_epoch,
            ErrorCode::from_code(found.error_code),
        ))
    };
    for (timestamp, expect) in [
        (-1, (6, second)),
        (-2, (0, first)),
        (-3, (5, second)),
        (-4, (0, first)),
        (-5, (-1, -1)),
        (1_001, (1, first)),
        (1_003, (3, second)),
        (9_000, (-1, -1)),
    ] {
        let found = find(timestamp, 10)?;
        ensure!(
            found == (expect.0, expect.1, ErrorCode::None),
            "{timestamp}: {found:?}"
        );
    }
    for (timestamp, version) in [(-3, 6), (-4, 7), (-5, 8), (-6, 10)] {
        ensure!(
            find(timestamp, version)?.2 == ErrorCode::UnsupportedVersion,
            "{timestamp}"
        );
    }
    Ok(())
}
