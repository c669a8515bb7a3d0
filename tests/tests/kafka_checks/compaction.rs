//! Check 27: what compaction removes, and what it leaves alone.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tradewind_tests::kafka::Record;
use tradewind_tests::wait;
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;

use crate::support::{SOON, Topic, error, now};

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
    // What is superseded only by the active segment may stay as long as that one is open.
    let expected = vec![
        of(3, "c", Some("1")),
        of(4, "b", None),
        of(5, "a", Some("3")),
        of(7, "d", Some("2")),
    ];
    wait::until_true("superseded records are gone", 60, || {
        let mut found = all(&mut topic)?;
        found.retain(|(offset, ..)| *offset != 6);
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
