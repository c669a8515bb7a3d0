//! Fetch as raw requests show it: sessions, long polls, limits, errors, and reading at followers.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tradewind_tests::kafka::{Connection, Kafka};
use tradewind_tests::{Cluster, ClusterSpec, wait};
use tradewind_wire::api::{ApiKey, RequestHeader, ResponseHeader};
use tradewind_wire::batch::{Batch, BatchBuilder, TimestampType, split};
use tradewind_wire::codec::{Reader, Writer};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::TopicId;
use tradewind_wire::messages::fetch::{FetchPartition, FetchTopic, ForgottenTopic, PartitionData};
use tradewind_wire::messages::{FetchRequest, FetchResponse, Message};

const TOPIC: &str = "letters";
/// Longer than any answer may take: who waits for it to pass has failed.
const FOREVER_MS: i32 = 120_000;

fn batch(records: i64, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    let value = vec![7; bytes];
    for number in 0..records {
        builder.append(1_000 + number, None, Some(&value), &[]);
    }
    builder.build()
}

fn partition(partition: i32, fetch_offset: i64) -> FetchPartition {
    FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    }
}

/// A request without a session, which does not wait.
fn request(partitions: Vec<FetchPartition>) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 50 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: TOPIC.into(),
            partitions,
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// What is asked next in a session, of the partitions that it has.
fn next(session_id: i32, session_epoch: i32) -> FetchRequest {
    FetchRequest {
        session_id,
        session_epoch,
        topics: Vec::new(),
        ..request(Vec::new())
    }
}

fn parts(response: &FetchResponse) -> Vec<(i32, ErrorCode, usize)> {
    let all = response.responses.iter().flat_map(|topic| &topic.partitions);
    all.map(|part| {
        let code = ErrorCode::from_code(part.error_code);
        (part.partition_index, code, batches(part).len())
    })
    .collect()
}

fn batches(part: &PartitionData) -> Vec<Batch> {
    split(part.records.to_bytes()).filter_map(Result::ok).collect()
}

fn sent(
    connection: &mut Connection,
    correlation_id: i32,
    request: &FetchRequest,
    version: i16,
) -> Result<()> {
    let header = RequestHeader {
        api_key: ApiKey::Fetch.code(),
        api_version: version,
        correlation_id,
        client_id: None,
    };
    let mut w = Writer::new();
    header.encode(&mut w)?;
    request.encode(&mut w, version)?;
    connection.write_frame(&w.into_bytes())
}

fn received(connection: &mut Connection, version: i16) -> Result<(i32, FetchResponse)> {
    let mut r = Reader::new(connection.read_frame()?);
    let header = ResponseHeader::decode(&mut r, ApiKey::Fetch, version)?;
    Ok((header.correlation_id, FetchResponse::decode(&mut r, version)?))
}

/// One daemon with a topic of three partitions.
fn one(folder: &std::path::Path) -> Result<(Cluster, Kafka, SocketAddr)> {
    let cluster = Cluster::start(folder, &ClusterSpec::new("east", 1))?;
    let mut kafka = cluster.kafka();
    kafka.create_topic(TOPIC, 3, &[])?;
    let at = kafka.leader(TOPIC, 0, true)?;
    Ok((cluster, kafka, at))
}

#[test]
fn a_session_asks_once_and_hears_of_what_changes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_cluster, mut kafka, at) = one(folder.path())?;
    let mut full = request((0..3).map(|number| partition(number, 0)).collect());
    full.session_epoch = 0;
    let answer = kafka.at(at, &full, 12)?;
    let id = answer.session_id;
    ensure!(id > 0 && parts(&answer).len() == 3, "{answer:?}");

    let quiet = kafka.at(at, &next(id, 1), 12)?;
    ensure!(quiet.session_id == id && quiet.responses.is_empty(), "{quiet:?}");
    kafka.append(TOPIC, 1, batch(3, 10))?;
    let news = kafka.at(at, &next(id, 2), 12)?;
    ensure!(parts(&news) == [(1, ErrorCode::None, 1)], "{news:?}");

    let mut moved = next(id, 3);
    moved.topics = vec![FetchTopic {
        topic: TOPIC.into(),
        partitions: vec![partition(1, 3)],
        ..Default::default()
    }];
    moved.forgotten_topics_data = vec![ForgottenTopic {
        topic: TOPIC.into(),
        topic_id: TopicId::default(),
        partitions: vec![0],
    }];
    let quiet = kafka.at(at, &moved, 12)?;
    ensure!(quiet.responses.is_empty(), "{quiet:?}");
    kafka.append(TOPIC, 0, batch(1, 10))?;
    let quiet = kafka.at(at, &next(id, 4), 12)?;
    ensure!(quiet.responses.is_empty(), "forgotten: {quiet:?}");

    let refused = |kafka: &mut Kafka, request: &FetchRequest, version| -> Result<ErrorCode> {
        let answer = kafka.at(at, request, version)?;
        ensure!(answer.responses.is_empty(), "{answer:?}");
        Ok(ErrorCode::from_code(answer.error_code))
    };
    ensure!(refused(&mut kafka, &next(id, 9), 12)? == ErrorCode::InvalidFetchSessionEpoch);
    ensure!(refused(&mut kafka, &next(id, 5), 13)? == ErrorCode::FetchSessionTopicIdError);
    let other = if id == 1 { 2 } else { id - 1 };
    ensure!(refused(&mut kafka, &next(other, 1), 12)? == ErrorCode::FetchSessionIdNotFound);
    ensure!(
        kafka.at(at, &next(id, 5), 12)?.error_code == 0,
        "refusals cost nothing"
    );
    let mut close = request(Vec::new());
    (close.session_id, close.topics) = (id, Vec::new());
    ensure!(kafka.at(at, &close, 12)?.session_id == 0);
    ensure!(refused(&mut kafka, &next(id, 6), 12)? == ErrorCode::FetchSessionIdNotFound);
    Ok(())
}

#[test]
fn a_session_by_topic_ids_says_which_ids_are_unknown() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_cluster, mut kafka, at) = one(folder.path())?;
    let topic_id = kafka.metadata(TOPIC)?.topics[0].topic_id;
    kafka.append(TOPIC, 0, batch(1, 10))?;
    let of = |topic_id| FetchTopic {
        topic_id,
        partitions: vec![partition(0, 0)],
        ..Default::default()
    };
    let mut full = request(Vec::new());
    full.session_epoch = 0;
    full.topics = vec![of(topic_id), of(TopicId([9; 16]))];
    let answer = kafka.at(at, &full, 17)?;
    let said = parts(&answer);
    ensure!(answer.session_id > 0, "{answer:?}");
    ensure!(
        said == [(0, ErrorCode::None, 1), (0, ErrorCode::UnknownTopicId, 0)],
        "{said:?}"
    );
    let again = kafka.at(at, &next(answer.session_id, 1), 17)?;
    ensure!(parts(&again).len() == 2, "an error is told every time: {again:?}");
    Ok(())
}

#[test]
fn a_long_poll_ends_with_enough_bytes_over_all_its_partitions_or_with_an_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_cluster, mut kafka, at) = one(folder.path())?;
    let one_batch = i32::try_from(batch(1, 100).len())?;
    let mut long = request((0..3).map(|number| partition(number, 0)).collect());
    (long.max_wait_ms, long.min_bytes) = (FOREVER_MS, 2 * one_batch);
    let mut waiting = Connection::open(at)?;
    sent(&mut waiting, 1, &long, 12)?;
    // Its own connection waits; the next request on it is answered after it, others are not held up.
    sent(&mut waiting, 2, &request(vec![partition(2, 0)]), 12)?;
    kafka.append(TOPIC, 0, batch(1, 100))?;
    ensure!(parts(&kafka.at(at, &request(vec![partition(0, 0)]), 12)?) == [(0, ErrorCode::None, 1)]);
    kafka.append(TOPIC, 2, batch(1, 100))?;
    let (first, answer) = received(&mut waiting, 12)?;
    ensure!(
        first == 1 && parts(&answer).iter().map(|part| part.2).sum::<usize>() == 2,
        "{answer:?}"
    );
    ensure!(received(&mut waiting, 12)?.0 == 2);

    for wrong in [partition(0, 99), partition(7, 0)] {
        let mut request = request(vec![partition(1, 0), wrong]);
        request.max_wait_ms = FOREVER_MS;
        let answer = kafka.at(at, &request, 12)?;
        let failed = &answer.responses[0].partitions[1];
        ensure!(
            failed.error_code != 0 && failed.high_watermark == -1,
            "{answer:?}"
        );
    }
    // At the end there is nothing, which is not an error; the watermark and the start are told all the same.
    let end = kafka.at(at, &request(vec![partition(0, 1)]), 12)?;
    let part = &end.responses[0].partitions[0];
    ensure!(
        (part.error_code, part.high_watermark, part.log_start_offset) == (0, 1, 0),
        "{part:?}"
    );
    Ok(())
}

#[test]
fn limits_hold_except_for_the_very_first_batch() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_cluster, mut kafka, at) = one(folder.path())?;
    for number in 0..3 {
        kafka.append(TOPIC, number, batch(1, 5_000))?;
        kafka.append(TOPIC, number, batch(1, 5_000))?;
    }
    let all = |limit: i32, total: i32| {
        let mut request = request((0..3).map(|number| partition(number, 0)).collect());
        request.max_bytes = total;
        for part in &mut request.topics[0].partitions {
            part.partition_max_bytes = limit;
        }
        request
    };
    let mut counts = |limit, total| -> Result<Vec<usize>> {
        let answer = kafka.at(at, &all(limit, total), 12)?;
        Ok(parts(&answer).iter().map(|part| part.2).collect())
    };
    ensure!(counts(1 << 20, 1 << 20)? == [2, 2, 2]);
    ensure!(counts(6_000, 1 << 20)? == [1, 1, 1], "per partition");
    ensure!(counts(1 << 20, 11_000)? == [2, 0, 0], "over all");
    ensure!(
        counts(1, 1 << 20)? == [1, 0, 0],
        "the first batch of the first partition is whole"
    );
    ensure!(counts(1, 1)? == [1, 0, 0]);
    ensure!(counts(0, 0)? == [1, 0, 0]);
    Ok(())
}

#[test]
fn epochs_are_checked_and_what_has_diverged_is_told() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_cluster, mut kafka, at) = one(folder.path())?;
    kafka.append(TOPIC, 0, batch(4, 10))?;
    let epoch = kafka.partitions(TOPIC)?[0].leader_epoch;
    let mut asked = |current: i32, last: i32, offset| -> Result<PartitionData> {
        let mut wanted = partition(0, offset);
        (wanted.current_leader_epoch, wanted.last_fetched_epoch) = (current, last);
        let mut answer = kafka.at(at, &request(vec![wanted]), 12)?;
        Ok(answer.responses.remove(0).partitions.remove(0))
    };
    let code = |part: &PartitionData| ErrorCode::from_code(part.error_code);
    ensure!(code(&asked(epoch, -1, 0)?) == ErrorCode::None);
    ensure!(code(&asked(epoch + 1, -1, 0)?) == ErrorCode::UnknownLeaderEpoch);
    if epoch > 0 {
        ensure!(code(&asked(epoch - 1, -1, 0)?) == ErrorCode::FencedLeaderEpoch);
    }
    let same = asked(-1, epoch, 2)?;
    ensure!(
        batches(&same).len() == 1 && same.diverging_epoch.end_offset == -1,
        "{same:?}"
    );
    let newer = asked(-1, epoch + 3, 2)?;
    ensure!(code(&newer) == ErrorCode::OffsetOutOfRange, "{newer:?}");
    Ok(())
}

/// Three daemons, each in a rack of its own, that send consumers to the copy in theirs.
fn racks(folder: &std::path::Path) -> Result<Cluster> {
    let mut cluster = Cluster::prepare(folder, "east", 3)?;
    let selector = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
    cluster.configure(&format!(
        "[topic_defaults]\n\"replica.selector.class\" = \"{selector}\"\n"
    ))?;
    for daemon in &cluster.daemons {
        let file = daemon.folder.join("tradewind.toml");
        let text = fs::read_to_string(&file)?;
        let rack = format!("[node]\nrack = \"rack-{}\"\n", daemon.id);
        fs::write(&file, text.replace("[node]\n", &rack))?;
    }
    cluster.start_all()?;
    Ok(cluster)
}

#[test]
fn consumers_are_sent_to_the_copy_in_their_rack_and_read_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = racks(folder.path())?;
    let mut kafka = cluster.kafka();
    kafka.create_topic(TOPIC, 1, &[])?;
    wait::until_true("all three copies are in sync", 30, || {
        Ok(kafka.partitions(TOPIC)?[0].isr_nodes.len() == 3)
    })?;
    kafka.append(TOPIC, 0, batch(4, 10))?;
    let leader = kafka.partitions(TOPIC)?[0].leader_id;
    let address = |id: i32| -> Result<SocketAddr> {
        let found = cluster.daemons.iter().find(|daemon| daemon.id == id);
        Ok(found.context("no such daemon")?.kafka)
    };
    let other = leader % 3 + 1;
    let in_rack = |id: i32, offset: i64| FetchRequest {
        rack_id: format!("rack-{id}").into(),
        ..request(vec![partition(0, offset)])
    };
    let one = |mut answer: FetchResponse| answer.responses.remove(0).partitions.remove(0);

    let sent_on = wait::until("the follower has confirmed", 30, || {
        let mut asked = in_rack(other, 0);
        asked.max_wait_ms = FOREVER_MS;
        let part = one(kafka.at(address(leader)?, &asked, 12)?);
        Ok(Some(part).filter(|part| part.preferred_read_replica == other))
    })?;
    ensure!(sent_on.records.is_empty() && sent_on.error_code == 0 && sent_on.high_watermark == 4);
    for own in [in_rack(leader, 0), in_rack(9, 0), request(vec![partition(0, 0)])] {
        let part = one(kafka.at(address(leader)?, &own, 12)?);
        ensure!(
            part.preferred_read_replica == -1 && batches(&part).len() == 1,
            "{part:?}"
        );
    }
    let past = one(kafka.at(address(leader)?, &in_rack(other, 99), 12)?);
    ensure!(past.error_code == ErrorCode::OffsetOutOfRange.code(), "{past:?}");

    let part = wait::until("the follower knows the watermark", 30, || {
        let part = one(kafka.at(address(other)?, &in_rack(other, 0), 12)?);
        Ok(Some(part).filter(|part| part.high_watermark == 4))
    })?;
    ensure!(batches(&part).len() == 1 && part.error_code == 0, "{part:?}");
    let past = one(kafka.at(address(other)?, &in_rack(other, 99), 12)?);
    ensure!(past.error_code == ErrorCode::OffsetOutOfRange.code(), "{past:?}");
    let old = one(kafka.at(address(other)?, &request(vec![partition(0, 0)]), 10)?);
    ensure!(old.error_code == ErrorCode::NotLeaderOrFollower.code(), "{old:?}");

    // A long poll at the follower ends when the watermark gets there.
    let mut waiting = Connection::open(address(other)?)?;
    let mut long = in_rack(other, 4);
    long.max_wait_ms = FOREVER_MS;
    sent(&mut waiting, 1, &long, 12)?;
    kafka.append(TOPIC, 0, batch(1, 10))?;
    let part = one(received(&mut waiting, 12)?.1);
    ensure!(batches(&part).len() == 1, "{part:?}");
    Ok(())
}
