//! Checks 19 to 24: what a producer may write, what it is told, and what becomes of the bytes.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tradewind_tests::kafka::Connection;
use tradewind_tests::{Cluster, wait};
use tradewind_wire::batch::{Batch, BatchBuilder, BatchHeader, TimestampType, split};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::ProduceRequest;
use tradewind_wire::messages::produce::PartitionProduceResponse;

use crate::support::{Topic, batch, brokers, error, now, own_cluster, produce_request, produced, unique};

/// A batch with its header changed and its CRC made right again.
fn forged(change: impl FnOnce(&mut BatchHeader)) -> Result<Bytes> {
    let whole = batch(&["a", "b"]);
    let mut header = BatchHeader::parse(&whole)?;
    change(&mut header);
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&whole[bytes.len()..]);
    Ok(sealed(bytes))
}

fn sealed(mut bytes: Vec<u8>) -> Bytes {
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// CRC-32C bit by bit: a second opinion beside the product's.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| {
        if crc & 1 == 1 {
            crc >> 1 ^ 0x82f6_3b78
        } else {
            crc >> 1
        }
    };
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// What the leader says to these bytes.
pub(crate) fn verdict(
    topic: &mut Topic,
    bytes: impl Into<Bytes>,
) -> Result<(ErrorCode, PartitionProduceResponse)> {
    let answer = topic.produce(bytes)?;
    let code = error(answer.error_code);
    if code != ErrorCode::None {
        assert_eq!(answer.base_offset, -1, "an error comes without an offset");
    }
    Ok((code, answer))
}

#[test]
fn check_19_batches_that_break_a_rule_are_invalid_records() -> Result<()> {
    let mut topic = Topic::new("strict", &[])?;
    let two = [batch(&["a"]), batch(&["b"])].concat();
    let cases: Vec<(&str, Bytes)> = vec![
        ("two batches", two.into()),
        ("no batch", Bytes::new()),
        ("a base offset of 5", forged(|header| header.base_offset = 5)?),
        (
            "a last offset delta beyond the count",
            forged(|header| header.last_offset_delta = 2)?,
        ),
        (
            "a last offset delta below the count",
            forged(|header| header.last_offset_delta = 0)?,
        ),
        (
            "a negative last offset delta",
            forged(|header| header.last_offset_delta = -1)?,
        ),
        (
            "a count above the records",
            forged(|header| {
                header.records_count = 3;
                header.last_offset_delta = 2;
            })?,
        ),
        (
            "a count below the records",
            forged(|header| {
                header.records_count = 1;
                header.last_offset_delta = 0;
            })?,
        ),
        ("a count of none", forged(|header| header.records_count = 0)?),
        ("a control batch", forged(|header| header.attributes |= 0x20)?),
        (
            "a producer without a sequence",
            forged(|header| {
                header.producer_id = 5;
                header.producer_epoch = 0;
            })?,
        ),
        ("magic 1", {
            let mut bytes = batch(&["a"]).to_vec();
            bytes[16] = 1;
            sealed(bytes)
        }),
    ];
    for (what, bytes) in cases {
        let (code, _) = verdict(&mut topic, bytes)?;
        assert_eq!(code, ErrorCode::InvalidRecord, "{what}");
    }
    assert_eq!(topic.kafka.end(&topic.name, 0)?, 0, "nothing was appended");
    Ok(())
}

#[test]
fn check_19_a_wrong_crc_is_a_corrupt_message() -> Result<()> {
    let mut topic = Topic::new("crc", &[])?;
    let mut bytes = batch(&["a", "b"]).to_vec();
    *bytes.last_mut().context("bytes")? ^= 1;
    assert_eq!(verdict(&mut topic, bytes)?.0, ErrorCode::CorruptMessage);
    assert_eq!(topic.kafka.end(&topic.name, 0)?, 0);
    Ok(())
}

#[test]
fn check_19_zstd_is_refused_before_produce_7() -> Result<()> {
    let mut topic = Topic::new("zstd", &[])?;
    let mut builder = BatchBuilder::new(Codec::Zstd, TimestampType::Create);
    let packed = builder.append(now(), None, Some(&[7; 100]), &[]).build();
    for version in [3, 6] {
        let answer = topic
            .leader
            .ask(&produce_request(&topic.name, 0, -1, packed.clone()), version)?;
        assert_eq!(
            error(produced(answer)?.error_code),
            ErrorCode::UnsupportedCompressionType
        );
    }
    let answer = topic
        .leader
        .ask(&produce_request(&topic.name, 0, -1, packed), 7)?;
    assert_eq!(error(produced(answer)?.error_code), ErrorCode::None);
    Ok(())
}

#[test]
fn check_19_a_record_without_a_key_is_named_on_a_compacted_topic() -> Result<()> {
    let mut topic = Topic::new("keyless", &[("cleanup.policy", "compact")])?;
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    builder.append(now(), Some(b"k"), Some(b"v"), &[]);
    builder.append(now(), None, Some(b"v"), &[]);
    let (code, answer) = verdict(&mut topic, builder.build())?;
    assert_eq!(code, ErrorCode::InvalidRecord);
    let places: Vec<i32> = answer
        .record_errors
        .iter()
        .map(|error| error.batch_index)
        .collect();
    assert_eq!(places, [1]);
    ensure!(answer.error_message.is_some(), "with a message");
    Ok(())
}

#[test]
fn check_20_a_batch_over_max_message_bytes_is_too_large() -> Result<()> {
    let size = 1000;
    let mut topic = Topic::new("large", &[("max.message.bytes", "1000")])?;
    let of = |size: usize, codec| {
        // The record takes ten bytes beside its value: two-byte lengths twice, and six of one byte.
        let value = vec![b'x'; size];
        let mut builder = BatchBuilder::new(codec, TimestampType::Create);
        builder.append(now(), None, Some(&value), &[]).build()
    };
    let overhead = of(size, Codec::None).len() - size;
    assert_eq!(
        verdict(&mut topic, of(size - overhead, Codec::None))?.0,
        ErrorCode::None,
        "just as large"
    );
    assert_eq!(
        verdict(&mut topic, of(size - overhead + 1, Codec::None))?.0,
        ErrorCode::MessageTooLarge
    );
    // What counts is the size as it is sent.
    assert_eq!(
        verdict(&mut topic, of(20_000, Codec::Gzip))?.0,
        ErrorCode::None,
        "compressed"
    );
    Ok(())
}

#[test]
fn check_20_a_batch_over_the_segment_is_too_large_a_list() -> Result<()> {
    let configs = [("max.message.bytes", "3000000"), ("segment.bytes", "1048576")];
    let mut topic = Topic::new("oversegment", &configs)?;
    let value = vec![b'x'; 1_100_000];
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    let bytes = builder.append(now(), None, Some(&value), &[]).build();
    assert_eq!(verdict(&mut topic, bytes)?.0, ErrorCode::RecordListTooLarge);
    Ok(())
}

#[test]
fn check_21_other_acks_than_all_one_and_none_are_invalid() -> Result<()> {
    let mut topic = Topic::new("acks", &[])?;
    for acks in [2, -2, 3, i16::MAX] {
        let answer = topic
            .leader
            .ask(&produce_request(&topic.name, 0, acks, batch(&["a"])), 9)?;
        let answer = produced(answer)?;
        assert_eq!(error(answer.error_code), ErrorCode::InvalidRequiredAcks, "{acks}");
        assert_eq!(answer.base_offset, -1);
    }
    for acks in [-1, 1] {
        let answer = topic
            .leader
            .ask(&produce_request(&topic.name, 0, acks, batch(&["a"])), 9)?;
        assert_eq!(error(produced(answer)?.error_code), ErrorCode::None, "{acks}");
    }
    Ok(())
}

#[test]
fn check_21_who_does_not_lead_says_so_and_who_does() -> Result<()> {
    let mut topic = Topic::new("elsewhere", &[])?;
    let led = topic.kafka.partitions(&topic.name)?.remove(0);
    let others = brokers()?.into_iter().filter(|(id, _)| *id != led.leader_id);
    for (_, address) in others {
        let mut connection = Connection::open(address)?;
        for acks in [-1, 1] {
            let request = produce_request(&topic.name, 0, acks, batch(&["a"]));
            let response = connection.ask(&request, 10)?;
            let endpoints: Vec<i32> = response.node_endpoints.iter().map(|node| node.node_id).collect();
            let answer = produced(response)?;
            assert_eq!(error(answer.error_code), ErrorCode::NotLeaderOrFollower);
            assert_eq!(answer.current_leader.leader_id, led.leader_id);
            assert_eq!(answer.current_leader.leader_epoch, led.leader_epoch);
            assert_eq!(endpoints, [led.leader_id]);
        }
    }
    Ok(())
}

#[test]
fn check_21_unknown_topics_and_partitions_are_named() -> Result<()> {
    let mut topic = Topic::new("partial", &[])?;
    for (name, partition) in [(topic.name.clone(), 7), (unique("nowhere"), 0)] {
        let answer = topic
            .leader
            .ask(&produce_request(&name, partition, -1, batch(&["a"])), 9)?;
        let answer = produced(answer)?;
        assert_eq!(error(answer.error_code), ErrorCode::UnknownTopicOrPartition);
        assert_eq!((answer.index, answer.base_offset), (partition, -1));
    }
    Ok(())
}

/// Ours only: brokers are killed.
#[test]
fn check_21_fewer_in_sync_replicas_than_asked_for_are_not_enough() -> Result<()> {
    let Some((_folder, mut cluster)) = own_cluster(3, "")? else {
        return Ok(());
    };
    let mut topic = Topic::in_cluster(&cluster, "few", &[("min.insync.replicas", "3")])?;
    topic.append(batch(&["a"]))?;

    let led = topic.kafka.partitions(&topic.name)?.remove(0);
    let follower = *led
        .isr_nodes
        .iter()
        .find(|id| **id != led.leader_id)
        .context("a follower")?;
    cluster.daemon(follower)?.kill();
    // Until the leader knows, copies are missed only after the append.
    let mut appended = 1;
    wait::until_true("the leader refuses", 60, || {
        match verdict(&mut topic, batch(&["b"]))?.0 {
            ErrorCode::NotEnoughReplicas => return Ok(true),
            ErrorCode::NotEnoughReplicasAfterAppend | ErrorCode::RequestTimedOut => appended += 1,
            other => bail!("{other:?}"),
        }
        Ok(false)
    })?;
    // Whoever does not ask for all is served, with the offset after what was appended: not that of what was refused.
    let request = produce_request(&topic.name, 0, 1, batch(&["c"]));
    let answer = produced(topic.leader.ask(&request, 9)?)?;
    assert_eq!(
        (error(answer.error_code), answer.base_offset),
        (ErrorCode::None, appended)
    );
    cluster.start_all()?;
    wait::until_true("the set is whole again", 60, || {
        Ok(topic.kafka.partitions(&topic.name)?[0].isr_nodes.len() == 3)
    })?;
    wait::until_true("all are enough again", 60, || {
        Ok(verdict(&mut topic, batch(&["d"]))?.0 == ErrorCode::None)
    })
}

/// Ours only: a broker is held still, so that it leaves the set while a record waits for it.
#[test]
fn check_21_a_set_that_shrinks_after_the_append_is_told_as_such() -> Result<()> {
    let Some((_folder, mut cluster)) = own_cluster(3, "")? else {
        return Ok(());
    };
    let mut topic = Topic::in_cluster(&cluster, "shrinks", &[("min.insync.replicas", "3")])?;
    topic.append(batch(&["a"]))?;
    let led = topic.kafka.partitions(&topic.name)?.remove(0);
    let follower = *led
        .isr_nodes
        .iter()
        .rfind(|id| **id != led.leader_id)
        .context("a follower")?;
    wait::until_true("the record was appended before the set shrank", 60, || {
        signal(&mut cluster, &[follower], "-STOP")?;
        let mut request = produce_request(&topic.name, 0, -1, batch(&["b"]));
        // Longer than a session.
        request.timeout_ms = 4_000;
        let answer = topic.leader.ask(&request, 9);
        signal(&mut cluster, &[follower], "-CONT")?;
        let code = error(produced(answer?)?.error_code);
        wait::until_true("the set is whole again", 60, || {
            Ok(topic.kafka.partitions(&topic.name)?[0].isr_nodes.len() == 3)
        })?;
        // On a busy machine the set has shrunk before, or not when the time was up.
        let slow = [ErrorCode::NotEnoughReplicas, ErrorCode::RequestTimedOut];
        ensure!(
            code == ErrorCode::NotEnoughReplicasAfterAppend || slow.contains(&code),
            "{code:?}"
        );
        Ok(code == ErrorCode::NotEnoughReplicasAfterAppend)
    })
}

fn signal(cluster: &mut Cluster, daemons: &[i32], name: &str) -> Result<()> {
    for id in daemons {
        let pid = cluster.daemon(*id)?.pid().context("it runs")?.to_string();
        ensure!(
            Command::new("kill").args([name, &pid]).status()?.success(),
            "kill {name} {pid}"
        );
    }
    Ok(())
}

/// Ours only: brokers are held still, so that copies do not come.
#[test]
fn check_21_copies_that_do_not_come_in_time_time_out() -> Result<()> {
    let Some((_folder, mut cluster)) = own_cluster(3, "")? else {
        return Ok(());
    };
    let mut topic = Topic::in_cluster(&cluster, "slow", &[])?;
    topic.append(batch(&["a"]))?;
    let leader = topic.kafka.partitions(&topic.name)?[0].leader_id;
    let others: Vec<i32> = cluster.daemons.iter().map(|daemon| daemon.id).collect();
    let others: Vec<i32> = others.into_iter().filter(|id| *id != leader).collect();
    signal(&mut cluster, &others, "-STOP")?;
    let mut request = produce_request(&topic.name, 0, -1, batch(&["b"]));
    request.timeout_ms = 200;
    let answer = topic.leader.ask(&request, 9);
    signal(&mut cluster, &others, "-CONT")?;
    let answer = produced(answer?)?;
    assert_eq!(error(answer.error_code), ErrorCode::RequestTimedOut);
    ensure!(
        answer.base_offset != 0,
        "the offset of a record that is another's"
    );
    Ok(())
}

#[test]
fn check_22_the_answer_has_the_first_offset_and_the_log_start() -> Result<()> {
    let mut topic = Topic::new("offsets", &[])?;
    assert_eq!(topic.append(batch(&["a", "b", "c"]))?, 0);
    let answer = topic.produce(batch(&["d", "e"]))?;
    assert_eq!(
        (error(answer.error_code), answer.base_offset),
        (ErrorCode::None, 3)
    );
    assert_eq!((answer.log_append_time_ms, answer.log_start_offset), (-1, 0));
    assert_eq!(topic.append(batch(&["f"]))?, 5);
    Ok(())
}

#[test]
fn check_22_and_23_log_append_time_is_the_brokers() -> Result<()> {
    let mut topic = Topic::new("appendtime", &[("message.timestamp.type", "LogAppendTime")])?;
    let before = now();
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    // What the producer says of the time does not matter, however far off.
    builder.append(1000, None, Some(b"a"), &[]);
    builder.append(before + 10 * 86_400_000, None, Some(b"b"), &[]);
    let answer = topic.produce(builder.build())?;
    assert_eq!(
        (error(answer.error_code), answer.base_offset),
        (ErrorCode::None, 0)
    );
    let stamped = answer.log_append_time_ms;
    ensure!(
        (before..=now()).contains(&stamped),
        "{stamped}, asked at {before}"
    );

    let data = topic.fetch(0)?;
    let batch = Batch::parse(data.records.to_bytes())?;
    batch.check_crc()?;
    assert_eq!(batch.header().timestamp_type(), TimestampType::LogAppend);
    assert_eq!(batch.header().max_timestamp, stamped);

    // Lookups by time go by it.
    let found = topic.list_offsets(stamped)?;
    assert_eq!((found.offset, found.timestamp), (0, stamped));
    assert_eq!(topic.list_offsets(1000)?.offset, 0);
    assert_eq!(topic.list_offsets(stamped + 1)?.offset, -1);
    Ok(())
}

#[test]
fn check_23_timestamps_out_of_bounds_are_invalid() -> Result<()> {
    let configs = [
        ("message.timestamp.before.max.ms", "3600000"),
        ("message.timestamp.after.max.ms", "1800000"),
    ];
    let mut topic = Topic::new("bounds", &configs)?;
    let at = |time: i64| {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
        builder.append(now(), None, Some(b"a"), &[]);
        builder.append(time, None, Some(b"b"), &[]).build()
    };
    for good in [0, -3_000_000, 1_700_000] {
        assert_eq!(
            verdict(&mut topic, at(now() + good))?.0,
            ErrorCode::None,
            "{good}"
        );
    }
    for bad in [-3_700_000, 1_900_000] {
        let (code, answer) = verdict(&mut topic, at(now() + bad))?;
        assert_eq!(code, ErrorCode::InvalidTimestamp, "{bad}");
        let places: Vec<i32> = answer
            .record_errors
            .iter()
            .map(|error| error.batch_index)
            .collect();
        assert_eq!(places, [1]);
    }
    Ok(())
}

/// Headers that repeat and have an order, null and empty told apart.
fn awkward(codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new(codec, TimestampType::Create);
    let time = now();
    builder.append(time, None, None, &[]);
    builder.append(
        time - 5,
        Some(b""),
        Some(b""),
        &[(b"n", Some(b"2")), (b"n", Some(b"1")), (b"", None)],
    );
    builder.append(time + 5, Some(b"k"), None, &[(b"a", Some(b"")), (b"n", None)]);
    builder.append(time, None, Some(&[b'z'; 3000]), &[]);
    builder.build()
}

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

#[test]
fn check_24_bytes_are_kept_as_they_came() -> Result<()> {
    let mut topic = Topic::new("verbatim", &[])?;
    for codec in CODECS {
        let sent = awkward(codec);
        let offset = topic.append(sent.clone())?;
        let data = topic.fetch(offset)?.records.to_bytes();
        assert_eq!(data.len(), sent.len(), "{codec:?}");
        // Only base offset (0 to 8) and leader epoch (12 to 16) are the broker's.
        assert_eq!(data[8..12], sent[8..12], "{codec:?}");
        assert_eq!(data[16..], sent[16..], "{codec:?}");
    }
    Ok(())
}

#[test]
fn check_24_compression_type_recompresses() -> Result<()> {
    let wanted = [
        ("uncompressed", Codec::None),
        ("gzip", Codec::Gzip),
        ("snappy", Codec::Snappy),
        ("lz4", Codec::Lz4),
        ("zstd", Codec::Zstd),
    ];
    for (word, codec) in wanted {
        let mut topic = Topic::new(word, &[("compression.type", word)])?;
        for sent in [Codec::None, Codec::Lz4, Codec::Zstd] {
            let bytes = awkward(sent);
            let offset = topic.append(bytes.clone())?;
            let kept = Batch::parse(topic.fetch(offset)?.records.to_bytes())?;
            kept.check_crc()?;
            assert_eq!(kept.header().compression(), Some(codec), "{sent:?} on {word}");
            let told = |batch: &Batch, base: i64| -> Result<Vec<String>> {
                let records = batch.records(1 << 20)?;
                let told = records.iter().map(|record| {
                    let r = record?;
                    let headers: Vec<_> = r.headers.collect();
                    let place = r.offset - base;
                    Ok(format!(
                        "{place} {} {:?} {:?} {headers:?}",
                        r.timestamp, r.key, r.value
                    ))
                });
                told.collect()
            };
            assert_eq!(
                told(&kept, offset)?,
                told(&Batch::parse(bytes)?, 0)?,
                "{sent:?} on {word}"
            );
        }
    }
    Ok(())
}

#[test]
fn check_21_each_partition_has_its_own_verdict() -> Result<()> {
    let mut topic = Topic::with_partitions("each", 1, &[])?;
    let mut request: ProduceRequest = produce_request(&topic.name, 0, -1, batch(&["a"]));
    let mut wrong = produce_request(&topic.name, 9, -1, batch(&["b"]))
        .topic_data
        .remove(0);
    request.topic_data[0]
        .partition_data
        .append(&mut wrong.partition_data);
    let response = topic.leader.ask(&request, 9)?;
    let mut codes: Vec<_> = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses)
        .map(|answer| (answer.index, error(answer.error_code)))
        .collect();
    codes.sort_unstable();
    assert_eq!(
        codes,
        [(0, ErrorCode::None), (9, ErrorCode::UnknownTopicOrPartition)]
    );
    let all: Result<Vec<_>, _> = split(topic.fetch(0)?.records.to_bytes()).collect();
    assert_eq!(all?.len(), 1);
    Ok(())
}
