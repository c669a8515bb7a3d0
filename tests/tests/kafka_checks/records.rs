//! Checks 26 and 27: records that go away, by request and by compaction.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tradewind_tests::kafka::{Connection, Record};
use tradewind_tests::wait;
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::DeleteRecordsRequest;
use tradewind_wire::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};

use crate::support::{SOON, Topic, batch, brokers, error, now};

/// Deletes the records of a partition before `offset`; the error and the new first offset.
fn delete(
    connection: &mut Connection,
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
        timeout_ms: 30_000,
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

/// One record with a time of its own: a tenth of a second between two of them begins another segment.
fn keyed(key: &str, value: Option<&str>, time: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    builder
        .append(time, Some(key.as_bytes()), value.map(str::as_bytes), &[])
        .build()
}

const COMPACT: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "100"),
    ("min.cleanable.dirty.ratio", "0.001"),
    ("retention.ms", "-1"),
];

/// Offset, key and value of every record.
fn all(topic: &mut Topic) -> Result<Vec<(i64, String, Option<String>)>> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let records: Vec<Record> = topic.kafka.records(&topic.name, 0, 0)?;
    let told = records.iter().map(|r| {
        (
            r.offset,
            r.key.as_ref().map(text).unwrap_or_default(),
            r.value.as_ref().map(text),
        )
    });
    Ok(told.collect())
}

#[test]
fn check_27_compaction_keeps_the_last_value_of_each_key_at_its_offset() -> Result<()> {
    let mut topic = Topic::new("compacted", &COMPACT)?;
    let start = now() - 600_000;
    let records = [
        ("a", Some("1")),
        ("b", Some("1")),
        ("a", Some("2")),
        ("c", Some("1")),
        ("b", None),
        ("a", Some("3")),
        ("d", Some("1")),
        ("d", Some("2")),
    ];
    for ((key, value), number) in records.iter().zip(0..) {
        topic.append(keyed(key, *value, start + number * 10_000))?;
    }
    let of =
        |offset: i64, key: &str, value: Option<&str>| (offset, key.to_owned(), value.map(ToOwned::to_owned));
    // The last record is in the active segment, which is never compacted: of it and what is before it both are there.
    let expected = vec![
        of(3, "c", Some("1")),
        of(4, "b", None),
        of(5, "a", Some("3")),
        of(6, "d", Some("1")),
        of(7, "d", Some("2")),
    ];
    wait::until_true("superseded records are gone", 60, || {
        let found = all(&mut topic)?;
        ensure!(found == expected, "{found:?}");
        Ok(true)
    })?;
    assert_eq!(topic.list_offsets(-1)?.offset, 8, "the end is where it was");
    // Who was at an offset that is gone reads on with the next one.
    for offset in 0..3 {
        let data = topic.fetch(offset)?;
        assert_eq!(error(data.error_code), ErrorCode::None);
        let records = topic.kafka.records(&topic.name, 0, offset)?;
        assert_eq!(records.first().map(|record| record.offset), Some(3));
    }
    Ok(())
}

#[test]
fn check_27_tombstones_go_after_their_retention() -> Result<()> {
    let mut configs = COMPACT.to_vec();
    configs.push(("delete.retention.ms", "100"));
    let mut topic = Topic::new("tombstones", &configs)?;
    let start = now() - 600_000;
    topic.append(keyed("gone", Some("1"), start))?;
    topic.append(keyed("kept", Some("1"), start + 10_000))?;
    topic.append(keyed("gone", None, start + 20_000))?;
    let mut next = 3;
    wait::until_true("the tombstone is gone", 60, || {
        // Something new, so that there is something to compact.
        topic.append(keyed("other", Some("1"), start + next * 10_000))?;
        next += 1;
        let found = all(&mut topic)?;
        ensure!(
            found.iter().any(|(offset, ..)| *offset == 1),
            "what is kept is there"
        );
        Ok(found.iter().all(|(_, key, _)| key != "gone"))
    })?;
    assert_eq!(topic.list_offsets(-1)?.offset, next);
    Ok(())
}

#[test]
fn check_27_a_batch_loses_records_and_keeps_its_place() -> Result<()> {
    let mut topic = Topic::new("partly", &COMPACT)?;
    let start = now() - 600_000;
    let mut builder = BatchBuilder::new(Codec::Lz4, TimestampType::Create);
    for (key, value) in [("a", "1"), ("b", "1"), ("c", "1")] {
        builder.append(start, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
    }
    topic.append(builder.build())?;
    topic.append(keyed("a", Some("2"), start + 10_000))?;
    topic.append(keyed("c", Some("2"), start + 20_000))?;
    topic.append(keyed("z", Some("1"), start + 30_000))?;
    wait::until_true("superseded records are gone", 60, || {
        let found: Vec<i64> = all(&mut topic)?.into_iter().map(|(offset, ..)| offset).collect();
        Ok(found == [1, 3, 4, 5])
    })?;
    let first = topic
        .kafka
        .batches(&topic.name, 0, 0)?
        .into_iter()
        .next()
        .context("a batch")?;
    // Its last offset stays, though the record there is gone (KIP-98): the next batch begins after it.
    assert_eq!(
        (first.header().last_offset(), first.header().records_count),
        (2, 1)
    );
    first.check_crc()?;
    wait::until_true("it is read by time", SOON, || {
        Ok(topic.list_offsets(start)?.offset == 1)
    })
}
