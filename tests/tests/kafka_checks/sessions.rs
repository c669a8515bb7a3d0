//! Checks 12, 31, 33 and 35: fetch sessions (KIP-227), and reads from a replica nearby (KIP-392).

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tradewind_tests::kafka::Connection;
use tradewind_tests::wait;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::create_topics::{CreatableReplicaAssignment, CreatableTopic};
use tradewind_wire::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use tradewind_wire::messages::fetch::{FetchTopic, ForgottenTopic, PartitionData};
use tradewind_wire::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, FetchRequest, FetchResponse,
    MetadataRequest,
};

use crate::support::{
    SOON, Topic, addresses, await_topic, batch, brokers, error, fetch_partition, fetch_request, fetched,
    kafka, led_with_the_first, produce_request, produced, unique,
};

/// A topic, and a session over some partitions that one broker leads.
struct Session {
    topic: Topic,
    partitions: Vec<i32>,
    id: i32,
    epoch: i32,
}

/// The highest version that names topics by name.
const BY_NAME: i16 = 12;

impl Session {
    fn open(name: &str) -> Result<Self> {
        let mut topic = Topic::with_partitions(name, 6, &[])?;
        let partitions = led_with_the_first(&mut topic)?;
        ensure!(partitions.len() >= 2, "one broker leads only {partitions:?}");
        let mut session = Self {
            topic,
            partitions,
            id: 0,
            epoch: 0,
        };
        let first = session.ask(Some(0))?;
        assert_eq!(error(first.error_code), ErrorCode::None);
        assert_eq!(
            told(&first),
            session.partitions,
            "the first answer has every partition"
        );
        session.id = first.session_id;
        session.epoch = 1;
        Ok(session)
    }

    /// A fetch of the session: of all partitions from `offset`, or of what it has.
    fn request(&self, offset: Option<i64>) -> FetchRequest {
        let mut request = fetch_request(&self.topic.name, 0);
        request.session_id = self.id;
        request.session_epoch = self.epoch;
        request.topics = offset
            .map(|offset| FetchTopic {
                topic: self.topic.name.as_str().into(),
                partitions: self
                    .partitions
                    .iter()
                    .map(|p| fetch_partition(*p, offset))
                    .collect(),
                ..Default::default()
            })
            .into_iter()
            .collect();
        request
    }

    fn ask(&mut self, offset: Option<i64>) -> Result<FetchResponse> {
        let request = self.request(offset);
        self.topic.leader.ask(&request, BY_NAME)
    }

    /// The next fetch with nothing new to say.
    fn next(&mut self) -> Result<FetchResponse> {
        let response = self.ask(None)?;
        assert_eq!(error(response.error_code), ErrorCode::None);
        assert_eq!(response.session_id, self.id);
        self.epoch += 1;
        Ok(response)
    }

    fn append(&mut self, partition: i32) -> Result<()> {
        let request = produce_request(&self.topic.name, partition, -1, batch(&["a"]));
        assert_eq!(
            error(produced(self.topic.leader.ask(&request, 9)?)?.error_code),
            ErrorCode::None
        );
        Ok(())
    }
}

/// Which partitions an answer has something to say of.
fn told(response: &FetchResponse) -> Vec<i32> {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    let mut numbers: Vec<i32> = partitions.map(|data| data.partition_index).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn check_33_a_fetch_outside_of_sessions_has_none() -> Result<()> {
    let mut topic = Topic::new("sessionless", &[])?;
    for version in [7, 11, 12] {
        let answer = topic.leader.ask(&fetch_request(&topic.name, 0), version)?;
        assert_eq!(answer.session_id, 0);
        assert_eq!(told(&answer), [0]);
    }
    Ok(())
}

#[test]
fn check_33_a_session_omits_what_has_not_changed() -> Result<()> {
    let mut session = Session::open("incremental")?;
    ensure!(session.id != 0, "there is no session");
    assert_eq!(told(&session.next()?), [0; 0], "nothing is new");
    let (one, two) = (session.partitions[0], session.partitions[1]);
    session.append(two)?;
    let answer = session.next()?;
    assert_eq!(told(&answer), [two]);
    let data: &PartitionData = &answer.responses[0].partitions[0];
    ensure!(!data.records.is_empty());
    // It was not told that the records have arrived: they come again.
    assert_eq!(told(&session.next()?), [two]);
    // From the next offset on there is nothing, and another partition's records come alone.
    let mut request = session.request(None);
    request.topics = vec![FetchTopic {
        topic: session.topic.name.as_str().into(),
        partitions: vec![fetch_partition(two, 1)],
        ..Default::default()
    }];
    let answer = session.topic.leader.ask(&request, BY_NAME)?;
    session.epoch += 1;
    assert_eq!(told(&answer), [0; 0]);
    session.append(one)?;
    assert_eq!(told(&session.next()?), [one]);
    Ok(())
}

/// Redpanda #11748: an error and a moved log start are news, with or without records.
#[test]
fn check_33_errors_and_a_moved_log_start_are_told() -> Result<()> {
    let mut session = Session::open("news")?;
    ensure!(session.id != 0, "there is no session");
    let one = session.partitions[0];
    for _ in 0..3 {
        session.append(one)?;
    }
    // From the end on.
    let mut request = session.request(None);
    request.topics = vec![FetchTopic {
        topic: session.topic.name.as_str().into(),
        partitions: vec![fetch_partition(one, 3)],
        ..Default::default()
    }];
    session.topic.leader.ask(&request, BY_NAME)?;
    session.epoch += 1;
    assert_eq!(told(&session.next()?), [0; 0], "nothing is new");

    let delete = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: session.topic.name.as_str().into(),
            partitions: vec![DeleteRecordsPartition {
                partition_index: one,
                offset: 2,
            }],
        }],
        timeout_ms: 30_000,
    };
    session.topic.leader.ask(&delete, 2)?;
    let answer = session.next()?;
    assert_eq!(told(&answer), [one]);
    assert_eq!(answer.responses[0].partitions[0].log_start_offset, 2);
    assert_eq!(told(&session.next()?), [0; 0], "and told once");

    // An error is told as long as it lasts.
    let mut request = session.request(None);
    request.topics = vec![FetchTopic {
        topic: session.topic.name.as_str().into(),
        partitions: vec![fetch_partition(one, 0)],
        ..Default::default()
    }];
    let answer = session.topic.leader.ask(&request, BY_NAME)?;
    session.epoch += 1;
    for answer in [answer, session.next()?, session.next()?] {
        assert_eq!(told(&answer), [one]);
        assert_eq!(
            error(answer.responses[0].partitions[0].error_code),
            ErrorCode::OffsetOutOfRange
        );
    }
    Ok(())
}

/// A watermark that has moved is news, though there was no room for records.
#[test]
fn check_33_a_moved_watermark_is_told_without_records() -> Result<()> {
    let mut session = Session::open("watermark")?;
    ensure!(session.id != 0, "there is no session");
    let (one, two) = (session.partitions[0], session.partitions[1]);
    session.append(one)?;
    session.append(two)?;
    let mut request = session.request(None);
    request.max_bytes = 1;
    let answer = session.topic.leader.ask(&request, BY_NAME)?;
    session.epoch += 1;
    assert_eq!(told(&answer), [one, two]);
    for data in &answer.responses[0].partitions {
        assert_eq!(
            (data.high_watermark, data.records.is_empty()),
            (1, data.partition_index == two)
        );
    }
    Ok(())
}

/// Where only one partition's records fit, each has its turn: who was served goes to the end.
#[test]
fn check_31_partitions_take_turns_in_a_session() -> Result<()> {
    let mut session = Session::open("turns")?;
    ensure!(session.id != 0, "there is no session");
    let partitions = session.partitions.clone();
    for partition in &partitions {
        for _ in 0..3 {
            session.append(*partition)?;
        }
    }
    let mut served = Vec::new();
    for round in 0..2 * partitions.len() {
        let mut request = session.request(None);
        request.max_bytes = 1;
        // As a consumer does: it goes on behind what it was given last.
        request.topics = served
            .last()
            .map(|partition| FetchTopic {
                topic: session.topic.name.as_str().into(),
                partitions: vec![fetch_partition(
                    *partition,
                    i64::from(round > partitions.len()) + 1,
                )],
                ..Default::default()
            })
            .into_iter()
            .collect();
        let answer = session.topic.leader.ask(&request, BY_NAME)?;
        session.epoch += 1;
        let all = answer.responses.iter().flat_map(|topic| &topic.partitions);
        let with_records: Vec<i32> = all
            .filter(|data| !data.records.is_empty())
            .map(|data| data.partition_index)
            .collect();
        ensure!(with_records.len() == 1, "{with_records:?} in round {round}");
        served.extend(with_records);
    }
    assert_eq!(served, [partitions.clone(), partitions].concat());
    Ok(())
}

#[test]
fn check_33_forgotten_partitions_are_no_longer_read() -> Result<()> {
    let mut session = Session::open("forgotten")?;
    ensure!(session.id != 0, "there is no session");
    let (one, two) = (session.partitions[0], session.partitions[1]);
    let mut request = session.request(None);
    request.forgotten_topics_data = vec![ForgottenTopic {
        topic: session.topic.name.as_str().into(),
        partitions: vec![one],
        ..Default::default()
    }];
    session.topic.leader.ask(&request, BY_NAME)?;
    session.epoch += 1;
    session.append(one)?;
    session.append(two)?;
    assert_eq!(told(&session.next()?), [two]);
    Ok(())
}

#[test]
fn check_33_wrong_epochs_and_unknown_sessions_are_told_at_the_top() -> Result<()> {
    let mut session = Session::open("wrong")?;
    ensure!(session.id != 0, "there is no session");
    for wrong in [0, 2, 7] {
        let mut request = session.request(None);
        request.session_epoch = wrong + session.epoch;
        if wrong == 0 {
            // The right one, once.
            session.next()?;
        }
        let answer = session.topic.leader.ask(&request, BY_NAME)?;
        assert_eq!(error(answer.error_code), ErrorCode::InvalidFetchSessionEpoch);
        ensure!(answer.responses.is_empty(), "and nothing else");
    }
    let id = std::mem::replace(&mut session.id, 0x7654_3210);
    let answer = session.ask(None)?;
    assert_eq!(error(answer.error_code), ErrorCode::FetchSessionIdNotFound);
    ensure!(answer.responses.is_empty());
    // The session itself goes on.
    session.id = id;
    session.next()?;
    Ok(())
}

#[test]
fn check_33_a_session_is_closed_and_begun_anew() -> Result<()> {
    let mut session = Session::open("closed")?;
    ensure!(session.id != 0, "there is no session");
    // Epoch zero ends it and begins another one.
    session.epoch = 0;
    let again = session.ask(Some(0))?;
    assert_eq!(error(again.error_code), ErrorCode::None);
    let old = std::mem::replace(&mut session.id, again.session_id);
    ensure!(old != session.id && session.id != 0);
    assert_eq!(told(&again), session.partitions);
    session.epoch = 1;
    session.next()?;
    // The last one ends it.
    let epoch = std::mem::replace(&mut session.epoch, -1);
    let last = session.ask(Some(0))?;
    assert_eq!((error(last.error_code), last.session_id), (ErrorCode::None, 0));
    assert_eq!(
        told(&last),
        session.partitions,
        "everything, as without a session"
    );
    session.epoch = epoch;
    for id in [old, session.id] {
        session.id = id;
        assert_eq!(
            error(session.ask(None)?.error_code),
            ErrorCode::FetchSessionIdNotFound
        );
    }
    Ok(())
}

#[test]
fn check_12_names_and_ids_do_not_mix_in_a_session() -> Result<()> {
    let mut session = Session::open("mixed")?;
    ensure!(session.id != 0, "there is no session");
    let mut request = session.request(Some(0));
    request.topics[0].topic_id = session.topic.id;
    let answer = session.topic.leader.ask(&request, 13)?;
    assert_eq!(error(answer.error_code), ErrorCode::FetchSessionTopicIdError);
    ensure!(answer.responses.is_empty());
    Ok(())
}

#[test]
fn check_12_a_topic_made_again_is_not_taken_for_the_one_of_the_session() -> Result<()> {
    // Both times on the same broker, or another would lead.
    let (home, _) = *brokers()?.first().context("a broker")?;
    let name = unique("sessionid");
    create_on(&name, home)?;
    let mut kafka = kafka();
    await_topic(&mut kafka, &name, 1)?;
    let mut topic = Topic::open(name, kafka)?;
    topic.append(batch(&["a"]))?;
    let mut request = fetch_request("", 0);
    request.topics[0].topic_id = topic.id;
    request.session_epoch = 0;
    let opened = topic.leader.ask(&request, 16)?;
    ensure!(opened.session_id != 0, "there is no session");
    let delete = DeleteTopicsRequest {
        topic_names: vec![topic.name.as_str().into()],
        timeout_ms: 30_000,
        ..Default::default()
    };
    assert_eq!(
        error(topic.kafka.any(&delete, 5)?.responses[0].error_code),
        ErrorCode::None
    );
    wait::until_true("it is made again", SOON, || {
        Ok(create_on(&topic.name, home).is_ok())
    })?;
    await_topic(&mut topic.kafka, &topic.name, 1)?;
    let mut next = fetch_request("", 0);
    next.session_id = opened.session_id;
    next.session_epoch = 1;
    next.topics.clear();
    let answer = topic.leader.ask(&next, 16)?;
    assert_eq!(error(answer.error_code), ErrorCode::None);
    let data = &answer.responses[0].partitions[0];
    let code = error(data.error_code);
    // By the name it had there is another topic now; by its id there is none.
    ensure!(
        [ErrorCode::InconsistentTopicId, ErrorCode::UnknownTopicId].contains(&code),
        "{code:?}"
    );
    ensure!(data.records.is_empty());
    Ok(())
}

/// Makes a topic of one partition with its only replica on this broker.
fn create_on(name: &str, broker: i32) -> Result<()> {
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.into(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: vec![CreatableReplicaAssignment {
                partition_index: 0,
                broker_ids: vec![broker],
            }],
            ..Default::default()
        }],
        timeout_ms: 30_000,
        ..Default::default()
    };
    let code = error(kafka().any(&request, 5)?.topics[0].error_code);
    ensure!(code == ErrorCode::None, "{code:?}");
    Ok(())
}

/// Every broker and its rack.
fn racks() -> Result<Vec<(i32, SocketAddr, Option<String>)>> {
    let none = MetadataRequest {
        topics: Some(Vec::new()),
        ..Default::default()
    };
    let response = kafka().any(&none, 12)?;
    let found = addresses(&response)?;
    let racks = response
        .brokers
        .iter()
        .map(|broker| broker.rack.as_ref().map(ToString::to_string));
    Ok(found
        .into_iter()
        .zip(racks)
        .map(|((id, address), rack)| (id, address, rack))
        .collect())
}

#[test]
fn check_35_a_consumer_is_sent_to_the_replica_in_its_rack() -> Result<()> {
    let mut topic = Topic::new("nearby", &[])?;
    topic.append_singly(3)?;
    let leader = topic.kafka.partitions(&topic.name)?[0].leader_id;
    let all = racks()?;
    for (id, address, rack) in &all {
        let mut request = fetch_request(&topic.name, 0);
        request.rack_id = rack.as_deref().context("every broker has a rack")?.into();
        // The leader may not know at once that a follower has everything.
        wait::until_true("the leader points to the rack's replica", SOON, || {
            let data = fetched(topic.leader.ask(&request, 11)?)?;
            assert_eq!(error(data.error_code), ErrorCode::None);
            if *id == leader {
                assert_eq!(
                    (data.preferred_read_replica, data.records.is_empty()),
                    (-1, false)
                );
                return Ok(true);
            }
            if data.preferred_read_replica == *id {
                ensure!(data.records.is_empty(), "records and another replica");
                return Ok(true);
            }
            Ok(false)
        })?;
        // There the records are.
        let mut nearby = Connection::open(*address)?;
        wait::until_true("the replica serves", SOON, || {
            let data = fetched(nearby.ask(&request, 11)?)?;
            Ok(data.error_code == 0 && data.high_watermark == 3 && !data.records.is_empty())
        })?;
    }
    // Who names no rack, or one without a replica, reads from the leader.
    for rack in ["", "elsewhere"] {
        let mut request = fetch_request(&topic.name, 0);
        request.rack_id = rack.into();
        let data = fetched(topic.leader.ask(&request, 11)?)?;
        assert_eq!(
            (data.preferred_read_replica, data.records.is_empty()),
            (-1, false),
            "{rack:?}"
        );
    }
    Ok(())
}

#[test]
fn check_35_a_follower_serves_no_more_than_it_knows_to_be_committed() -> Result<()> {
    let mut topic = Topic::new("follower", &[])?;
    topic.append_singly(3)?;
    let leader = topic.kafka.partitions(&topic.name)?[0].leader_id;
    for (_, address, _) in racks()?.into_iter().filter(|(id, ..)| *id != leader) {
        let mut follower = Connection::open(address)?;
        wait::until_true("the follower has everything", SOON, || {
            let data = fetched(follower.ask(&fetch_request(&topic.name, 0), 11)?)?;
            Ok(data.error_code == 0 && data.high_watermark == 3)
        })?;
        let data = fetched(follower.ask(&fetch_request(&topic.name, 4), 11)?)?;
        let code = error(data.error_code);
        ensure!(
            [ErrorCode::OffsetNotAvailable, ErrorCode::OffsetOutOfRange].contains(&code),
            "{code:?}"
        );
        // Epochs are compared there too.
        let mut request = fetch_request(&topic.name, 0);
        request.topics[0].partitions[0].current_leader_epoch = 1000;
        let data = fetched(follower.ask(&request, 11)?)?;
        assert_eq!(error(data.error_code), ErrorCode::UnknownLeaderEpoch);
    }
    Ok(())
}
