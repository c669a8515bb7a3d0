//! Check 36: offsets by time and by name.

use anyhow::Result;
use bytes::Bytes;
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;

use crate::support::{Topic, error, list_offsets_request};

/// A batch whose records have these times.
fn timed(codec: Codec, times: &[i64]) -> Bytes {
    let mut builder = BatchBuilder::new(codec, TimestampType::Create);
    for time in times {
        builder.append(*time, None, Some(b"v"), &[]);
    }
    builder.build()
}

/// These records are years old: they must not be deleted for that.
const KEEP: [(&str, &str); 1] = [("retention.ms", "-1")];

/// Offset, time and leader epoch of what was found.
fn find(topic: &mut Topic, timestamp: i64) -> Result<(i64, i64, i32)> {
    let found = topic.list_offsets(timestamp)?;
    assert_eq!(error(found.error_code), ErrorCode::None);
    Ok((found.offset, found.timestamp, found.leader_epoch))
}

#[test]
fn check_36_end_and_beginning() -> Result<()> {
    let mut topic = Topic::new("ends", &[])?;
    let epoch = topic.kafka.partitions(&topic.name)?[0].leader_epoch;
    assert_eq!(find(&mut topic, -1)?.0, 0);
    assert_eq!(find(&mut topic, -2)?.0, 0);
    topic.append_singly(3)?;
    assert_eq!(find(&mut topic, -1)?, (3, -1, epoch));
    assert_eq!(find(&mut topic, -2)?, (0, -1, epoch));
    // Without tiers the local log is all there is, and nothing is in a tier.
    assert_eq!(find(&mut topic, -4)?.0, 0);
    let request = list_offsets_request(&topic.name, -5);
    let tiered = topic
        .leader
        .ask(&request, 9)?
        .topics
        .remove(0)
        .partitions
        .remove(0);
    assert_eq!((error(tiered.error_code), tiered.offset), (ErrorCode::None, -1));
    Ok(())
}

#[test]
fn check_36_isolation_without_transactions_changes_nothing() -> Result<()> {
    let mut topic = Topic::new("levels", &[])?;
    topic.append_singly(2)?;
    for level in [0, 1] {
        let mut request = list_offsets_request(&topic.name, -1);
        request.isolation_level = level;
        let found = topic
            .leader
            .ask(&request, 8)?
            .topics
            .remove(0)
            .partitions
            .remove(0);
        assert_eq!(found.offset, 2);
    }
    Ok(())
}

#[test]
fn check_36_by_time_the_exact_record_is_found() -> Result<()> {
    for codec in [Codec::None, Codec::Lz4] {
        let mut topic = Topic::new("bytime", &KEEP)?;
        let epoch = topic.kafka.partitions(&topic.name)?[0].leader_epoch;
        let base = 1_600_000_000_000;
        topic.append(timed(codec, &[base, base + 10, base + 20]))?;
        // Out of order inside the batch and against the one before.
        topic.append(timed(codec, &[base + 5, base + 50, base + 30]))?;
        topic.append(timed(codec, &[base + 40]))?;
        let cases = [
            (0, 0, base),
            (base, 0, base),
            (base + 1, 1, base + 10),
            (base + 10, 1, base + 10),
            (base + 20, 2, base + 20),
            (base + 21, 4, base + 50),
            (base + 31, 4, base + 50),
            (base + 50, 4, base + 50),
        ];
        for (asked, offset, time) in cases {
            assert_eq!(
                find(&mut topic, asked)?,
                (offset, time, epoch),
                "{codec:?} {}",
                asked - base
            );
        }
        assert_eq!(find(&mut topic, base + 51)?, (-1, -1, -1), "nothing is so young");
    }
    Ok(())
}

/// KAFKA-16310: the record itself, and the first of several.
#[test]
fn check_36_the_highest_timestamp_is_found_exactly() -> Result<()> {
    let mut topic = Topic::new("highest", &KEEP)?;
    assert_eq!(find(&mut topic, -3)?, (-1, -1, -1), "an empty log has none");
    let base = 1_600_000_000_000;
    topic.append(timed(Codec::None, &[base, base + 9, base + 3]))?;
    assert_eq!(find(&mut topic, -3)?.0, 1);
    topic.append(timed(Codec::Gzip, &[base + 9, base + 30, base + 30, base + 1]))?;
    topic.append(timed(Codec::None, &[base + 30, base + 2]))?;
    let (offset, time, _) = find(&mut topic, -3)?;
    assert_eq!((offset, time), (4, base + 30));
    Ok(())
}

#[test]
fn check_36_a_partition_asked_for_twice_is_an_invalid_request() -> Result<()> {
    let mut topic = Topic::new("twice", &[])?;
    let mut request = list_offsets_request(&topic.name, -1);
    let again = request.topics[0].partitions[0].clone();
    request.topics[0].partitions.push(again);
    for version in [1, 5, 8] {
        let response = topic.leader.ask(&request, version)?;
        for partition in &response.topics[0].partitions {
            assert_eq!(error(partition.error_code), ErrorCode::InvalidRequest);
        }
    }
    Ok(())
}

#[test]
fn check_36_what_is_not_there_is_named() -> Result<()> {
    let mut topic = Topic::new("listed", &[])?;
    let mut request = list_offsets_request(&topic.name, -1);
    request.topics[0].partitions[0].partition_index = 3;
    let answer = topic
        .leader
        .ask(&request, 8)?
        .topics
        .remove(0)
        .partitions
        .remove(0);
    assert_eq!(error(answer.error_code), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(
        (answer.offset, answer.timestamp, answer.leader_epoch),
        (-1, -1, -1)
    );
    Ok(())
}
