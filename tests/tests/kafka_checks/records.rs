//! Check 26: records that are deleted by request.

use anyhow::{Context, Result};
use tradewind_tests::kafka::Connection;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::DeleteRecordsRequest;
use tradewind_wire::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};

use crate::support::{Topic, await_topic, batch, brokers, create, error, kafka, unique};

/// Deletes the records of a partition before `offset`; the error and the new first offset.
fn delete(
    connection: &mut Connection,
    topic: &str,
    partition_index: i32,
    offset: i64,
    version: i16,
) -> Result<(ErrorCode, i64)> {
    delete_within(connection, 30_000, topic, partition_index, offset, version)
}

/// As [`delete`], with a timeout in ms.
fn delete_within(
    connection: &mut Connection,
    timeout_ms: i32,
    topic: &str,
    partition_index: i32,
    offset: i64,
    version: i16,
) -> Result<(ErrorCode, i64)> {
    let request = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: topic.into(),
            partitions: vec![DeleteRecordsPartition {
                partition_index,
                offset,
            }],
        }],
        timeout_ms,
    };
    let response = connection.ask(&request, version)?;
    let topic = response.topics.first().context("the topic")?;
    let partition = topic.partitions.first().context("the partition")?;
    assert_eq!(partition.partition_index, partition_index);
    Ok((error(partition.error_code), partition.low_watermark))
}

#[test]
fn check_26_deleted_records_are_gone_everywhere() -> Result<()> {
    let mut topic = Topic::new("deleterecords", &[])?;
    topic.append(batch(&["a", "b", "c"]))?;
    topic.append_singly(5)?;
    let name = topic.name.clone();
    for (version, offset) in [(0, 1), (1, 4), (2, 5)] {
        assert_eq!(
            delete(&mut topic.leader, &name, 0, offset, version)?,
            (ErrorCode::None, offset)
        );
        assert_eq!(topic.list_offsets(-2)?.offset, offset);
        let below = topic.fetch(offset - 1)?;
        assert_eq!(error(below.error_code), ErrorCode::OffsetOutOfRange);
        let at = topic.fetch(offset)?;
        assert_eq!(
            (error(at.error_code), at.log_start_offset),
            (ErrorCode::None, offset)
        );
    }
    // Further back changes nothing.
    assert_eq!(delete(&mut topic.leader, &name, 0, 2, 2)?, (ErrorCode::None, 5));
    let answer = topic.produce(batch(&["x"]))?;
    assert_eq!((answer.base_offset, answer.log_start_offset), (8, 5));
    // Minus one is all that there is.
    assert_eq!(delete(&mut topic.leader, &name, 0, -1, 2)?, (ErrorCode::None, 9));
    assert_eq!(topic.list_offsets(-2)?.offset, 9);
    assert_eq!(topic.list_offsets(-1)?.offset, 9);
    assert_eq!(topic.append(batch(&["y"]))?, 9);
    Ok(())
}

#[test]
fn check_26_where_nobody_else_has_a_copy_no_timeout_is_too_short() -> Result<()> {
    let name = unique("deletealone");
    create(&name, 4, 1, &[])?;
    let mut kafka = kafka();
    await_topic(&mut kafka, &name, 1)?;
    for partition in 0..4 {
        kafka.append(&name, partition, batch(&["a", "b", "c"]))?;
        let mut leader = Connection::open(kafka.leader(&name, partition, false)?)?;
        let told = delete_within(&mut leader, 0, &name, partition, 2, 2)?;
        assert_eq!(told, (ErrorCode::None, 2));
    }
    Ok(())
}

#[test]
fn check_26_what_cannot_be_deleted_is_refused() -> Result<()> {
    let mut topic = Topic::new("undeletable", &[])?;
    topic.append(batch(&["a", "b"]))?;
    let name = topic.name.clone();
    let beyond = delete(&mut topic.leader, &name, 0, 3, 2)?;
    assert_eq!(beyond, (ErrorCode::OffsetOutOfRange, -1));
    assert_eq!(
        delete(&mut topic.leader, &name, 0, -2, 2)?,
        (ErrorCode::OffsetOutOfRange, -1)
    );
    assert_eq!(
        delete(&mut topic.leader, &name, 7, 1, 2)?.0,
        ErrorCode::UnknownTopicOrPartition
    );
    let led = topic.kafka.partitions(&name)?.remove(0);
    for (_, address) in brokers()?.into_iter().filter(|(id, _)| *id != led.leader_id) {
        let code = delete(&mut Connection::open(address)?, &name, 0, 1, 2)?.0;
        assert_eq!(code, ErrorCode::NotLeaderOrFollower);
    }
    assert_eq!(topic.list_offsets(-2)?.offset, 0);
    Ok(())
}
