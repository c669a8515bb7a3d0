//! Checks 1 to 9: versions, frames, order and the life of a connection.

use anyhow::{Context, Result, ensure};
use tradewind_tests::kafka::Connection;
use tradewind_tests::wait;
use tradewind_wire::api::ApiKey;
use tradewind_wire::codec::{Reader, Writer};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::describe_configs::DescribeConfigsResource;
use tradewind_wire::messages::{
    ApiVersionsRequest, DescribeClusterRequest, DescribeConfigsRequest, FetchRequest, FindCoordinatorRequest,
    ListGroupsRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest,
};

use crate::support::{
    SOON, Topic, addresses, batch, brokers, connect, connect_other, error, fetch_request, fetched, is_oracle,
    kafka, list_offsets_request, metadata_request, not_here, own_cluster, produce_request, produced,
    producer_id, unique,
};

/// What a frame may hold where nothing else is set: `socket.request.max.bytes`.
const FRAME_BYTES: i32 = 100 * 1024 * 1024;

fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: "tradewind-checks".into(),
        client_software_version: "1.0".into(),
    }
}

/// Fails unless this connection still works.
fn still_works(connection: &mut Connection) -> Result<()> {
    let answer = connection.ask(&api_versions(), 3)?;
    ensure!(answer.error_code == 0, "{:?}", error(answer.error_code));
    Ok(())
}

fn no_topics() -> MetadataRequest {
    MetadataRequest {
        topics: Some(Vec::new()),
        ..Default::default()
    }
}

#[test]
fn check_01_a_newer_api_versions_is_answered_once_in_version_0() -> Result<()> {
    for version in [6, 7, 99, i16::MAX] {
        let mut connection = connect()?;
        // A body that nobody can know.
        let correlation = connection.send_body(ApiKey::ApiVersions.code(), version, &[9; 30])?;
        let mut r = Reader::new(connection.read_frame()?);
        assert_eq!(r.i32()?, correlation);
        assert_eq!(error(r.i16()?), ErrorCode::UnsupportedVersion);
        assert_eq!(r.i32()?, 1, "one entry");
        assert_eq!(r.i16()?, ApiKey::ApiVersions.code());
        assert_eq!(r.i16()?, 0);
        ensure!(r.i16()? >= 4, "the highest version of ApiVersions");
        assert_eq!(r.remaining(), 0, "version 0 has nothing after the entries");
        still_works(&mut connection)?;
    }
    Ok(())
}

#[test]
fn check_01_software_names_are_held_to_kafkas_pattern() -> Result<()> {
    let mut connection = connect()?;
    let good = ["a", "1", "apache-kafka-java", "my.lib-2.0"];
    let bad = ["", "-a", "a-", ".a", "a.", "a b", "a_b", "ä"];
    for version in [3, 4] {
        for (name, number) in good.iter().map(|name| (*name, "1")).chain([("x", "1.0-rc.1")]) {
            let request = ApiVersionsRequest {
                client_software_name: name.into(),
                client_software_version: number.into(),
            };
            assert_eq!(
                error(connection.ask(&request, version)?.error_code),
                ErrorCode::None,
                "{name:?}"
            );
        }
        for (name, number) in bad.iter().flat_map(|bad| [(*bad, "1"), ("name", *bad)]) {
            let request = ApiVersionsRequest {
                client_software_name: name.into(),
                client_software_version: number.into(),
            };
            let answer = connection.ask(&request, version)?;
            assert_eq!(
                error(answer.error_code),
                ErrorCode::InvalidRequest,
                "{name:?} {number:?}"
            );
            ensure!(answer.api_keys.is_empty(), "a refusal lists no APIs");
        }
    }
    // Versions 0 to 2 have no names to judge.
    let old = connection.ask(&ApiVersionsRequest::default(), 2)?;
    assert_eq!(error(old.error_code), ErrorCode::None);
    Ok(())
}

#[test]
fn check_02_what_is_not_served_closes_the_connection_without_an_answer() -> Result<()> {
    let served = connect()?.ask(&api_versions(), 3)?.api_keys;
    for entry in &served {
        if entry.api_key == ApiKey::ApiVersions.code() {
            continue;
        }
        let mut connection = connect()?;
        connection.send_body(entry.api_key, entry.max_version + 1, &[0; 40])?;
        let closed = connection.expect_closed();
        closed.with_context(|| format!("API {} version {}", entry.api_key, entry.max_version + 1))?;
        if entry.min_version > 0 {
            let mut connection = connect()?;
            connection.send_body(entry.api_key, entry.min_version - 1, &[0; 40])?;
            let closed = connection.expect_closed();
            closed.with_context(|| format!("API {} version {}", entry.api_key, entry.min_version - 1))?;
        }
    }
    for unknown in [-1, 97, 1000, i16::MAX] {
        let mut connection = connect()?;
        connection.send_body(unknown, 0, &[0; 40])?;
        connection
            .expect_closed()
            .with_context(|| format!("API {unknown}"))?;
    }
    Ok(())
}

/// Offered from 0 so that old clients find compression, though these have record formats that are no more (KIP-896).
#[test]
fn check_02_produce_is_offered_from_0_and_served_from_3() -> Result<()> {
    let served = connect()?.ask(&api_versions(), 3)?.api_keys;
    let produce = served
        .iter()
        .find(|entry| entry.api_key == ApiKey::Produce.code());
    assert_eq!(produce.context("Produce")?.min_version, 0);
    for version in 0..=2 {
        let mut connection = connect()?;
        // acks, timeout, no topics.
        connection.send_body(ApiKey::Produce.code(), version, &[0, 1, 0, 0, 0, 9, 0, 0, 0, 0])?;
        connection
            .expect_closed()
            .with_context(|| format!("Produce version {version}"))?;
    }
    Ok(())
}

#[test]
fn check_02_a_body_that_cannot_be_decoded_closes_the_connection() -> Result<()> {
    let cut: &[(ApiKey, i16, &[u8])] = &[
        (ApiKey::Metadata, 1, &[0, 0, 0, 2, 0, 1, b'a']),
        (ApiKey::Metadata, 12, &[3, 0]),
        (ApiKey::Fetch, 4, &[0, 0]),
        (ApiKey::Produce, 9, &[]),
        (ApiKey::JoinGroup, 2, &[0, 5, b'a']),
        (ApiKey::CreateTopics, 5, &[2, 2]),
        // A length of minus two.
        (ApiKey::FindCoordinator, 0, &[0xff, 0xfe, 0]),
    ];
    for &(key, version, body) in cut {
        let mut connection = connect()?;
        connection.send_body(key.code(), version, body)?;
        connection
            .expect_closed()
            .with_context(|| format!("{} {version}", key.name()))?;
    }
    Ok(())
}

#[test]
fn check_03_answers_come_in_the_order_of_requests() -> Result<()> {
    let mut topic = Topic::new("order", &[])?;
    let connection = &mut topic.leader;
    let metadata = metadata_request(&[&topic.name]);
    let sent = [
        connection.send(&metadata, 12)?,
        connection.send(&produce_request(&topic.name, 0, -1, batch(&["a"])), 9)?,
        connection.send(&fetch_request(&topic.name, 0), 11)?,
        connection.send(&list_offsets_request(&topic.name, -1), 8)?,
        connection.send(&api_versions(), 3)?,
    ];
    connection.receive::<MetadataRequest>(12, sent[0])?;
    let answer = produced(connection.receive::<ProduceRequest>(9, sent[1])?)?;
    assert_eq!(
        (error(answer.error_code), answer.base_offset),
        (ErrorCode::None, 0)
    );
    connection.receive::<FetchRequest>(11, sent[2])?;
    connection.receive::<ListOffsetsRequest>(8, sent[3])?;
    connection.receive::<ApiVersionsRequest>(3, sent[4])?;
    Ok(())
}

#[test]
fn check_03_a_waiting_fetch_is_not_overtaken_and_holds_up_nobody_else() -> Result<()> {
    let mut topic = Topic::new("waiting", &[])?;
    let mut fetch = fetch_request(&topic.name, 0);
    fetch.max_wait_ms = 12_000;
    let fetching = topic.leader.send(&fetch, 11)?;
    let next = topic.leader.send(&api_versions(), 3)?;

    // Another connection to the same broker is answered while the fetch waits, or the record would never come.
    let mut another = Connection::open(topic.leader_address)?;
    still_works(&mut another)?;
    let request = produce_request(&topic.name, 0, -1, batch(&["a"]));
    produced(another.ask(&request, 9)?)?;

    let read = fetched(topic.leader.receive::<FetchRequest>(11, fetching)?)?;
    ensure!(!read.records.is_empty(), "the fetch waited for the record");
    topic.leader.receive::<ApiVersionsRequest>(3, next)?;
    Ok(())
}

#[test]
fn check_03_five_idempotent_batches_in_flight_keep_their_order() -> Result<()> {
    let mut topic = Topic::new("inflight", &[])?;
    let (producer, epoch) = producer_id(&mut topic.kafka)?;
    let mut sent = Vec::new();
    for sequence in 0..5 {
        let batch = crate::producers::idempotent(producer, epoch, sequence, 1);
        sent.push(
            topic
                .leader
                .send(&produce_request(&topic.name, 0, -1, batch), 9)?,
        );
    }
    for (offset, correlation) in (0..).zip(sent) {
        let answer = produced(topic.leader.receive::<ProduceRequest>(9, correlation)?)?;
        assert_eq!(
            (error(answer.error_code), answer.base_offset),
            (ErrorCode::None, offset)
        );
    }
    Ok(())
}

/// A frame with a body of ApiVersions 3 that is as long as it should be by an unknown tagged field.
fn padded(length: i32) -> Result<Vec<u8>> {
    let mut w = Writer::new();
    let header = tradewind_wire::api::RequestHeader {
        api_key: ApiKey::ApiVersions.code(),
        api_version: 3,
        correlation_id: 1,
        client_id: None,
    };
    header.encode(&mut w)?;
    w.put(b"\x02a\x021");
    // One tagged field, number 99, whose length takes four bytes.
    w.put(b"\x01\x63");
    let rest = usize::try_from(length)? - w.len() - 4;
    w.put_uvarint(u32::try_from(rest)?);
    let mut frame = w.into_bytes().to_vec();
    frame.resize(usize::try_from(length)?, 7);
    Ok(frame)
}

#[test]
fn check_04_the_longest_frame_is_served_and_one_byte_more_closes() -> Result<()> {
    let mut connection = connect()?;
    connection.write_frame(&padded(FRAME_BYTES)?)?;
    connection.receive::<ApiVersionsRequest>(3, 1)?;
    connection.write_raw(&(FRAME_BYTES + 1).to_be_bytes())?;
    connection.expect_closed()
}

#[test]
fn check_04_a_negative_length_closes() -> Result<()> {
    for length in [-1, i32::MIN] {
        let mut connection = connect()?;
        connection.write_raw(&length.to_be_bytes())?;
        connection.expect_closed()?;
    }
    Ok(())
}

#[test]
fn check_04_unknown_tagged_fields_are_ignored_in_header_and_body() -> Result<()> {
    let topic = Topic::new("tagged", &[])?;
    let mut connection = connect()?;
    let mut w = Writer::new();
    w.put_i16(ApiKey::Metadata.code());
    w.put_i16(12);
    w.put_i32(1);
    w.put(b"\x00\x01c");
    // Two tagged fields in the header.
    w.put(b"\x02\x05\x03abc\x63\x00");
    // One topic: a zero id, its name, and a tagged field of its own.
    w.put(b"\x02");
    w.put(&[0; 16]);
    w.put_uvarint(u32::try_from(topic.name.len() + 1)?);
    w.put(topic.name.as_bytes());
    w.put(b"\x01\x4d\x02xy");
    // No creation, no operations, and tagged fields of the body.
    w.put(b"\x00\x00\x02\x07\x01z\x64\x00");
    connection.write_frame(&w.into_bytes())?;
    let response = connection.receive::<MetadataRequest>(12, 1)?;
    assert_eq!(response.topics.len(), 1);
    assert_eq!(error(response.topics[0].error_code), ErrorCode::None);
    Ok(())
}

#[test]
fn check_05_produce_without_acks_has_no_answer() -> Result<()> {
    let mut topic = Topic::new("acks0", &[])?;
    for value in ["a", "b", "c"] {
        topic
            .leader
            .send(&produce_request(&topic.name, 0, 0, batch(&[value])), 9)?;
    }
    // The next frame on the connection answers the next request.
    still_works(&mut topic.leader)?;
    wait::until_true("the records are there", SOON, || {
        Ok(topic.kafka.end(&topic.name, 0)? == 3)
    })?;
    still_works(&mut topic.leader)
}

#[test]
fn check_05_produce_without_acks_closes_the_connection_on_an_error() -> Result<()> {
    let topic = unique("nowhere");
    let mut connection = connect()?;
    connection.send(&produce_request(&topic, 0, 0, batch(&["a"])), 9)?;
    connection.expect_closed()
}

#[test]
fn check_06_counts_that_no_frame_can_hold_close_and_harm_nobody() -> Result<()> {
    let bodies: &[(ApiKey, i16, &[u8])] = &[
        (ApiKey::Metadata, 0, &[0x7f, 0xff, 0xff, 0xff]),
        (ApiKey::Metadata, 12, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        (ApiKey::CreateTopics, 2, &[0x7f, 0xff, 0xff, 0xff]),
        (ApiKey::ListGroups, 4, &[0xff, 0xff, 0xff, 0xff, 0x07]),
        // Tagged fields: a count, and a length.
        (ApiKey::ListGroups, 3, &[0xff, 0xff, 0xff, 0xff, 0x07]),
        (ApiKey::ListGroups, 3, &[0x01, 0x09, 0xff, 0xff, 0xff, 0xff, 0x07]),
    ];
    let mut bystander = connect()?;
    for &(key, version, body) in bodies {
        let mut connection = connect()?;
        connection.send_body(key.code(), version, body)?;
        connection
            .expect_closed()
            .with_context(|| format!("{} {version}", key.name()))?;
        still_works(&mut bystander)?;
    }
    Ok(())
}

/// The bounds that Kafka 4.4 brings: Apache Kafka 4.3 has none but the frame's length, so it is not asked.
#[test]
fn check_06_arrays_and_tagged_fields_have_the_bounds_of_kafka_4_4() -> Result<()> {
    if is_oracle() {
        not_here("Kafka has these bounds from 4.4 on");
        return Ok(());
    }
    const ELEMENTS: usize = 1_000_000;
    const TAGGED: u32 = 10_000;
    // Groups to list by state: names of one letter.
    let states = |count: usize| {
        let mut w = Writer::new();
        w.put_uvarint(u32::try_from(count + 1).unwrap_or(0));
        w.put(&b"\x02a".repeat(count));
        w.put(b"\x00");
        w.into_bytes()
    };
    let tagged = |count: u32| {
        let mut w = Writer::new();
        w.put_uvarint(count);
        for number in 0..count {
            w.put_uvarint(1000 + number);
            w.put(b"\x00");
        }
        w.into_bytes()
    };
    for (version, good, bad) in [
        (4, states(ELEMENTS), states(ELEMENTS + 1)),
        (3, tagged(TAGGED), tagged(TAGGED + 1)),
    ] {
        let mut connection = connect()?;
        let correlation = connection.send_body(ApiKey::ListGroups.code(), version, &good)?;
        connection.receive::<ListGroupsRequest>(version, correlation)?;
        connection.send_body(ApiKey::ListGroups.code(), version, &bad)?;
        connection.expect_closed()?;
    }
    Ok(())
}

#[test]
fn check_07_nobody_is_throttled_without_quotas() -> Result<()> {
    let mut topic = Topic::new("unthrottled", &[])?;
    let name = topic.name.clone();
    for _ in 0..20 {
        let produce = produce_request(&name, 0, -1, batch(&["a"]));
        assert_eq!(topic.leader.ask(&produce, 9)?.throttle_time_ms, 0);
        assert_eq!(
            topic.leader.ask(&fetch_request(&name, 0), 11)?.throttle_time_ms,
            0
        );
        assert_eq!(
            topic
                .leader
                .ask(&list_offsets_request(&name, -1), 8)?
                .throttle_time_ms,
            0
        );
        assert_eq!(
            topic
                .leader
                .ask(&metadata_request(&[&name]), 12)?
                .throttle_time_ms,
            0
        );
        assert_eq!(topic.leader.ask(&api_versions(), 3)?.throttle_time_ms, 0);
    }
    Ok(())
}

#[test]
fn check_08_idle_connections_are_closed_after_ten_minutes() -> Result<()> {
    let (id, address) = *brokers()?.first().context("a broker")?;
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 4,
            resource_name: id.to_string().into(),
            configuration_keys: Some(vec!["connections.max.idle.ms".into()]),
        }],
        ..Default::default()
    };
    let response = kafka().at(address, &request, 4)?;
    let result = response.results.first().context("a result")?;
    assert_eq!(error(result.error_code), ErrorCode::None);
    let value = result.configs.first().and_then(|config| config.value.clone());
    assert_eq!(value.as_deref(), Some("600000"));
    Ok(())
}

/// With a second instead of ten minutes, on a daemon of our own.
#[test]
fn check_08_an_idle_connection_is_closed_but_not_one_that_waits_for_an_answer() -> Result<()> {
    let Some((_folder, cluster)) = own_cluster(1, "[kafka]\nidle_timeout = \"1s\"\n")? else {
        return Ok(());
    };
    let mut kafka = cluster.kafka();
    let name = unique("idle");
    kafka.create_topic(&name, 1, &[])?;
    let address = cluster.daemons[0].kafka;
    let (mut idle, mut waiting) = (Connection::open(address)?, Connection::open(address)?);
    still_works(&mut idle)?;
    let mut fetch = fetch_request(&name, 0);
    fetch.max_wait_ms = 2_500;
    let correlation = waiting.send(&fetch, 11)?;
    idle.expect_closed()?;
    waiting.receive::<FetchRequest>(11, correlation)?;
    Ok(())
}

#[test]
fn check_09_addresses_are_those_of_the_listener_used() -> Result<()> {
    let mut first = connect()?;
    let plain = addresses(&first.ask(&no_topics(), 12)?)?;
    let mut seen = vec![listener(&mut first, &plain)?];
    if let Some(mut second) = connect_other()? {
        let other = addresses(&second.ask(&no_topics(), 12)?)?;
        assert_eq!(other.len(), plain.len());
        seen.push(listener(&mut second, &other)?);
    }
    ensure!(
        seen.len() == 2 || crate::support::is_foreign(),
        "there is a second listener"
    );
    let mut ports: Vec<_> = seen.concat();
    let all = ports.len();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), all, "no address belongs to two listeners");
    Ok(())
}

/// Fails unless every API names the brokers by these addresses, which must be reachable; returns their ports.
fn listener(connection: &mut Connection, brokers: &[(i32, std::net::SocketAddr)]) -> Result<Vec<u16>> {
    let cluster = connection.ask(&DescribeClusterRequest::default(), 0)?;
    for broker in &cluster.brokers {
        let address = (
            broker.broker_id,
            format!("{}:{}", &*broker.host, broker.port).parse()?,
        );
        ensure!(
            brokers.contains(&address),
            "DescribeCluster says {address:?}, Metadata {brokers:?}"
        );
    }
    let group = unique("listener");
    let request = FindCoordinatorRequest {
        coordinator_keys: vec![group.into()],
        ..Default::default()
    };
    let found = wait::until("there is a coordinator", SOON, || {
        let found = connection.ask(&request, 4)?.coordinators;
        Ok(found.into_iter().find(|found| found.error_code == 0))
    })?;
    let address = (found.node_id, format!("{}:{}", &*found.host, found.port).parse()?);
    ensure!(
        brokers.contains(&address),
        "FindCoordinator says {address:?}, Metadata {brokers:?}"
    );
    for (_, address) in brokers {
        still_works(&mut Connection::open(*address)?)?;
    }
    Ok(brokers.iter().map(|(_, address)| address.port()).collect())
}
