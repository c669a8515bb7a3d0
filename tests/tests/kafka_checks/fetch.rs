//! Checks 28 to 32: what a fetch answers, when, and how much of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tradewind_tests::kafka::Connection;
use tradewind_wire::batch::{Batch, BatchBuilder, BatchError, TimestampType, split};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::TopicId;
use tradewind_wire::messages::fetch::{FetchTopic, PartitionData};
use tradewind_wire::messages::{FetchRequest, FetchResponse};

use crate::support::{
    Topic, batch, brokers, error, fetch_partition, fetch_request, fetched, led_with_the_first, now,
    produce_request, produced, unique,
};

/// Longer than any test takes: a fetch that waits for this waits for something else.
const LONG: i32 = 12_000;

/// Whole batches of an answer; a cut one at the end is allowed.
fn whole(data: &PartitionData) -> Result<Vec<Batch>> {
    let mut batches = Vec::new();
    for batch in split(data.records.to_bytes()) {
        match batch {
            Ok(batch) => batches.push(batch),
            Err(BatchError::Cut { .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(batches)
}

/// A batch of one record of about this size.
fn sized(size: usize) -> Bytes {
    let value = vec![b'x'; size];
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    builder.append(now(), None, Some(&value), &[]).build()
}

/// The bytes of an answer's frame after its header.
fn raw(connection: &mut Connection, request: &FetchRequest, version: i16) -> Result<(FetchResponse, Bytes)> {
    use tradewind_wire::api::{ApiKey, ResponseHeader};
    use tradewind_wire::messages::Message;
    connection.send(request, version)?;
    let frame = connection.read_frame()?;
    let mut r = tradewind_wire::codec::Reader::new(frame.clone());
    ResponseHeader::decode(&mut r, ApiKey::Fetch, version)?;
    Ok((FetchResponse::decode(&mut r, version)?, frame))
}

/// The errors that Java's consumer knows what to do with; any other ends it.
const ALLOWED: [ErrorCode; 15] = [
    ErrorCode::None,
    ErrorCode::NotLeaderOrFollower,
    ErrorCode::ReplicaNotAvailable,
    ErrorCode::KafkaStorageError,
    ErrorCode::FencedLeaderEpoch,
    ErrorCode::OffsetNotAvailable,
    ErrorCode::UnknownTopicOrPartition,
    ErrorCode::UnknownTopicId,
    ErrorCode::InconsistentTopicId,
    ErrorCode::OffsetOutOfRange,
    ErrorCode::TopicAuthorizationFailed,
    ErrorCode::UnknownLeaderEpoch,
    ErrorCode::UnknownServerError,
    ErrorCode::CorruptMessage,
    // In the list of Java's FetchCollector too, by way of sessions.
    ErrorCode::FetchSessionTopicIdError,
];

#[test]
fn check_28_every_error_is_one_that_javas_consumer_knows() -> Result<()> {
    let mut topic = Topic::new("errors", &[])?;
    topic.append(batch(&["a"]))?;
    let epoch = topic.kafka.partitions(&topic.name)?[0].leader_epoch;
    let mut wrong: Vec<(FetchRequest, ErrorCode)> = Vec::new();
    let mut case = |expect: ErrorCode, change: &dyn Fn(&mut FetchTopic)| {
        let mut request = fetch_request(&topic.name, 0);
        change(&mut request.topics[0]);
        wrong.push((request, expect));
    };
    case(ErrorCode::OffsetOutOfRange, &|t| t.partitions[0].fetch_offset = 2);
    case(ErrorCode::OffsetOutOfRange, &|t| {
        t.partitions[0].fetch_offset = -1
    });
    case(ErrorCode::UnknownTopicOrPartition, &|t| {
        t.partitions[0].partition = 5
    });
    case(ErrorCode::UnknownTopicOrPartition, &|t| {
        t.partitions[0].partition = -1
    });
    case(ErrorCode::UnknownTopicOrPartition, &|t| {
        t.topic = unique("nowhere").into()
    });
    case(ErrorCode::UnknownTopicOrPartition, &|t| {
        t.topic = "not a name".into()
    });
    case(ErrorCode::UnknownLeaderEpoch, &|t| {
        t.partitions[0].current_leader_epoch = epoch + 1
    });
    for (request, expect) in wrong {
        for version in [4, 7, 9, 11, 12] {
            if version < 9 && expect == ErrorCode::UnknownLeaderEpoch {
                continue;
            }
            let data = fetched(topic.leader.ask(&request, version)?)?;
            let code = error(data.error_code);
            assert_eq!(code, expect, "version {version}: {request:?}");
            ensure!(ALLOWED.contains(&code), "{code:?}");
        }
    }
    Ok(())
}

#[test]
fn check_28_who_does_not_lead_says_so_and_who_does() -> Result<()> {
    let mut topic = Topic::new("led", &[])?;
    topic.append(batch(&["a"]))?;
    let led = topic.kafka.partitions(&topic.name)?.remove(0);
    let stranger = brokers()?
        .into_iter()
        .find(|(id, _)| !led.replica_nodes.contains(id));
    // Every broker has a replica here, and followers serve those who name no epoch (check 35): name a wrong one.
    let other = stranger.or_else(|| brokers().ok()?.into_iter().find(|(id, _)| *id != led.leader_id));
    let Some((_, address)) = other else { return Ok(()) };
    let request = tradewind_wire::messages::ListOffsetsRequest {
        ..crate::support::list_offsets_request(&topic.name, -1)
    };
    let answer = Connection::open(address)?.ask(&request, 8)?;
    assert_eq!(
        error(answer.topics[0].partitions[0].error_code),
        ErrorCode::NotLeaderOrFollower
    );
    Ok(())
}

#[test]
fn check_29_at_the_end_a_fetch_is_empty_and_waits() -> Result<()> {
    let mut topic = Topic::new("end", &[])?;
    topic.append(batch(&["a", "b"]))?;
    let mut request = fetch_request(&topic.name, 2);
    request.max_wait_ms = 300;
    let asked = Instant::now();
    let (response, _) = raw(&mut topic.leader, &request, 11)?;
    ensure!(
        asked.elapsed() >= Duration::from_millis(295),
        "it did not wait: {:?}",
        asked.elapsed()
    );
    let data = fetched(response)?;
    assert_eq!(error(data.error_code), ErrorCode::None);
    assert_eq!(
        (
            data.high_watermark,
            data.last_stable_offset,
            data.log_start_offset
        ),
        (2, 2, 0)
    );
    ensure!(data.records.is_empty(), "no records");
    Ok(())
}

#[test]
fn check_29_out_of_range_has_no_watermark_and_empty_not_null_records() -> Result<()> {
    let mut topic = Topic::new("range", &[])?;
    topic.append(batch(&["a", "b"]))?;
    for offset in [3, 1000, -1] {
        // Version 11 ends with the records: their length, then nothing more.
        let (response, frame) = raw(&mut topic.leader, &fetch_request(&topic.name, offset), 11)?;
        let data = fetched(response)?;
        assert_eq!(error(data.error_code), ErrorCode::OffsetOutOfRange, "{offset}");
        assert_eq!(
            (data.high_watermark, data.last_stable_offset),
            (-1, -1),
            "{offset}"
        );
        assert_eq!(
            frame[frame.len() - 4..],
            [0, 0, 0, 0],
            "empty records, not null ones"
        );
        // Compact: a length of one is empty, zero would be null; two tagged fields' counts follow, and the body's.
        let (response, frame) = raw(&mut topic.leader, &fetch_request(&topic.name, offset), 12)?;
        assert_eq!(error(fetched(response)?.error_code), ErrorCode::OffsetOutOfRange);
        ensure!(
            frame.len() > 4 && !ends_with_null(&frame),
            "null records: {frame:02x?}"
        );
    }
    Ok(())
}

/// Whether a flexible answer for one partition has null records: 0, then no tagged field of partition, topic and body.
fn ends_with_null(frame: &[u8]) -> bool {
    frame.ends_with(&[0, 0, 0, 0])
}

#[test]
fn check_29_an_answer_with_records_tells_where_the_log_begins_and_ends() -> Result<()> {
    let mut topic = Topic::new("watermarks", &[])?;
    topic.append_singly(4)?;
    for version in [5, 11, 12] {
        let data = fetched(topic.leader.ask(&fetch_request(&topic.name, 1), version)?)?;
        assert_eq!(error(data.error_code), ErrorCode::None);
        assert_eq!(
            (
                data.high_watermark,
                data.last_stable_offset,
                data.log_start_offset
            ),
            (4, 4, 0)
        );
        assert_eq!(data.preferred_read_replica, -1);
        let offsets: Vec<i64> = whole(&data)?
            .iter()
            .map(|batch| batch.header().base_offset)
            .collect();
        assert_eq!(offsets, [1, 2, 3]);
    }
    Ok(())
}

#[test]
fn check_30_new_data_wakes_a_waiting_fetch() -> Result<()> {
    let mut topic = Topic::new("wakes", &[])?;
    let mut request = fetch_request(&topic.name, 0);
    request.max_wait_ms = LONG;
    let mut writer = Connection::open(topic.leader_address)?;
    for round in 0..3 {
        request.topics[0].partitions[0].fetch_offset = round;
        let waiting = topic.leader.send(&request, 11)?;
        let written = Instant::now();
        produced(writer.ask(&produce_request(&topic.name, 0, -1, batch(&["a"])), 9)?)?;
        let data = fetched(topic.leader.receive::<FetchRequest>(11, waiting)?)?;
        assert_eq!(whole(&data)?.len(), 1);
        // Not by its own end: that would have been at the earliest then.
        ensure!(
            written.elapsed() < Duration::from_millis(LONG.unsigned_abs().into()),
            "it was not woken"
        );
    }
    Ok(())
}

#[test]
fn check_30_min_bytes_is_waited_for_over_all_partitions() -> Result<()> {
    let mut topic = Topic::new("minbytes", &[])?;
    let one = sized(1000);
    let mut request = fetch_request(&topic.name, 0);
    request.max_wait_ms = LONG;
    request.min_bytes = i32::try_from(one.len() * 3)?;
    let mut writer = Connection::open(topic.leader_address)?;
    let waiting = topic.leader.send(&request, 11)?;
    for _ in 0..3 {
        produced(writer.ask(&produce_request(&topic.name, 0, -1, one.clone()), 9)?)?;
    }
    let data = fetched(topic.leader.receive::<FetchRequest>(11, waiting)?)?;
    assert_eq!(whole(&data)?.len(), 3, "not before there are three");
    // More than there will be: the wait ends with what there is.
    request.max_wait_ms = 200;
    request.min_bytes = 1 << 20;
    let asked = Instant::now();
    let data = fetched(topic.leader.ask(&request, 11)?)?;
    ensure!(
        asked.elapsed() >= Duration::from_millis(195),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(whole(&data)?.len(), 3);
    Ok(())
}

#[test]
fn check_30_an_error_in_one_partition_ends_the_wait() -> Result<()> {
    // As many partitions as it takes for one broker to lead two.
    let mut topic = Topic::with_partitions("errorends", 6, &[])?;
    let led = led_with_the_first(&mut topic)?;
    ensure!(led.len() >= 2, "one broker leads only {led:?}");
    let mut request = fetch_request(&topic.name, 0);
    request.max_wait_ms = LONG;
    // Beyond the end: what the log itself refuses. (Apache Kafka waits beside a partition that it does not know.)
    request.topics[0].partitions.push(fetch_partition(led[1], 99));
    let asked = Instant::now();
    let response = topic.leader.ask(&request, 11)?;
    ensure!(
        asked.elapsed() < Duration::from_millis(LONG.unsigned_abs().into()),
        "it waited"
    );
    let mut codes: Vec<_> = response.responses.iter().flat_map(|t| &t.partitions).collect();
    codes.sort_by_key(|data| data.partition_index);
    assert_eq!(error(codes[0].error_code), ErrorCode::None);
    assert_eq!(error(codes[1].error_code), ErrorCode::OffsetOutOfRange);
    Ok(())
}

/// KIP-74.
#[test]
fn check_31_the_first_batch_comes_whole_however_small_the_limits() -> Result<()> {
    let mut topic = Topic::new("firstwhole", &[])?;
    let sizes = [50_000, 100, 100];
    for size in sizes {
        topic.append(sized(size))?;
    }
    for (max_bytes, partition_max_bytes) in [(1, 1), (10_000, 1 << 20), (1 << 20, 1000), (0, 0)] {
        let mut request = fetch_request(&topic.name, 0);
        request.max_bytes = max_bytes;
        request.topics[0].partitions[0].partition_max_bytes = partition_max_bytes;
        let data = fetched(topic.leader.ask(&request, 11)?)?;
        let batches = whole(&data)?;
        assert_eq!(batches.len(), 1, "limits {max_bytes}, {partition_max_bytes}");
        batches[0].check_crc()?;
        ensure!(batches[0].size() > 50_000);
    }
    Ok(())
}

#[test]
fn check_31_limits_hold_once_there_is_something() -> Result<()> {
    let mut topic = Topic::new("limits", &[])?;
    for _ in 0..10 {
        topic.append(sized(1000))?;
    }
    let mut request = fetch_request(&topic.name, 0);
    request.topics[0].partitions[0].partition_max_bytes = 3500;
    let data = fetched(topic.leader.ask(&request, 11)?)?;
    assert_eq!(whole(&data)?.len(), 3, "as many as fit");
    ensure!(data.records.len() <= 3500, "{} bytes", data.records.len());
    request.topics[0].partitions[0].partition_max_bytes = 1 << 20;
    request.max_bytes = 5500;
    let data = fetched(topic.leader.ask(&request, 11)?)?;
    assert_eq!(whole(&data)?.len(), 5);
    Ok(())
}

#[test]
fn check_31_only_the_first_partition_with_records_may_exceed_the_limit() -> Result<()> {
    // As many partitions as it takes for one broker to lead two.
    let mut topic = Topic::with_partitions("second", 6, &[])?;
    let led = led_with_the_first(&mut topic)?;
    ensure!(led.len() >= 2, "one broker leads only {led:?}");
    for partition in &led {
        let request = produce_request(&topic.name, *partition, -1, sized(5000));
        produced(topic.leader.ask(&request, 9)?)?;
    }
    let mut request = fetch_request(&topic.name, 0);
    request.max_bytes = 1000;
    // Partitions without records do not count as the first.
    request.topics[0].partitions = vec![fetch_partition(led[0], 1)];
    request.topics[0]
        .partitions
        .extend(led[1..].iter().map(|p| fetch_partition(*p, 0)));
    let response = topic.leader.ask(&request, 11)?;
    let with_records: Vec<i32> = response
        .responses
        .iter()
        .flat_map(|t| &t.partitions)
        .filter(|data| !data.records.is_empty())
        .map(|data| data.partition_index)
        .collect();
    assert_eq!(with_records, [led[1]]);
    Ok(())
}

#[test]
fn check_31_a_batch_is_given_from_its_beginning() -> Result<()> {
    let mut topic = Topic::new("middle", &[])?;
    topic.append(batch(&["a", "b", "c", "d"]))?;
    topic.append(batch(&["e", "f"]))?;
    for (offset, base) in [(0, 0), (2, 0), (3, 0), (4, 4), (5, 4)] {
        let data = topic.fetch(offset)?;
        let first = whole(&data)?.into_iter().next().context("a batch")?;
        assert_eq!(first.header().base_offset, base, "from {offset}");
    }
    Ok(())
}

/// Transactions are another matter: without any, both levels see the same.
#[test]
fn check_32_aborted_transactions_are_listed_for_read_committed_only() -> Result<()> {
    let mut topic = Topic::new("isolation", &[])?;
    topic.append_singly(3)?;
    let mut request = fetch_request(&topic.name, 0);
    for version in [4, 11, 12] {
        request.isolation_level = 0;
        let all = fetched(topic.leader.ask(&request, version)?)?;
        ensure!(
            all.aborted_transactions.as_ref().is_none_or(Vec::is_empty),
            "{:?}",
            all.aborted_transactions
        );
        request.isolation_level = 1;
        let committed = fetched(topic.leader.ask(&request, version)?)?;
        assert_eq!(committed.aborted_transactions, Some(Vec::new()));
        assert_eq!((committed.high_watermark, committed.last_stable_offset), (3, 3));
        assert_eq!(committed.records, all.records);
    }
    Ok(())
}

#[test]
fn check_12_fetch_by_topic_id() -> Result<()> {
    let mut topic = Topic::new("byid", &[])?;
    topic.append(batch(&["a"]))?;
    let mut request = fetch_request("", 0);
    request.topics[0].topic_id = topic.id;
    for version in [13, 15, 16, 17] {
        let response = topic.leader.ask(&request, version)?;
        assert_eq!(response.responses[0].topic_id, topic.id);
        assert_eq!(whole(&fetched(response)?)?.len(), 1, "version {version}");
    }
    let mut unknown = request.clone();
    unknown.topics[0].topic_id = TopicId([9; 16]);
    unknown.topics.extend(request.topics.clone());
    let response = topic.leader.ask(&unknown, 16)?;
    assert_eq!(error(response.error_code), ErrorCode::None);
    for answer in &response.responses {
        let data = &answer.partitions[0];
        if answer.topic_id == topic.id {
            assert_eq!(error(data.error_code), ErrorCode::None);
        } else {
            assert_eq!(error(data.error_code), ErrorCode::UnknownTopicId);
            assert_eq!(data.high_watermark, -1);
        }
    }
    assert_eq!(response.responses.len(), 2);
    Ok(())
}
