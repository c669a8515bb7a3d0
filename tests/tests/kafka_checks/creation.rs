//! Checks 15 and 16: how topics are created, grow and are deleted.

use anyhow::{Context, Result, ensure};
use tradewind_tests::kafka::Connection;
use tradewind_tests::wait;
use tradewind_wire::codec::Str;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::TopicId;
use tradewind_wire::messages::create_partitions::CreatePartitionsTopic;
use tradewind_wire::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreatableTopicResult,
};
use tradewind_wire::messages::delete_topics::DeleteTopicState;
use tradewind_wire::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest,
};

use crate::support::{
    SOON, Topic, await_topic, batch, brokers, create, error, kafka, metadata_request, produce_request,
    produced, replication, unique,
};
use crate::topics::{await_absence, delete, told};

/// Creates one topic, whatever comes of it.
pub(crate) fn try_create(
    topic: CreatableTopic,
    validate_only: bool,
    version: i16,
) -> Result<CreatableTopicResult> {
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 30_000,
        validate_only,
    };
    let response = kafka().any(&request, version)?;
    response
        .topics
        .into_iter()
        .next()
        .context("an answer for the topic")
}

/// A topic that leaves everything to the brokers.
pub(crate) fn plain(name: &str) -> CreatableTopic {
    CreatableTopic {
        name: name.into(),
        num_partitions: -1,
        replication_factor: -1,
        ..Default::default()
    }
}

fn config(name: &str, value: &str) -> CreatableTopicConfig {
    CreatableTopicConfig {
        name: name.into(),
        value: Some(value.into()),
    }
}

/// Whether any broker has such a topic.
fn exists(name: &str) -> Result<bool> {
    let answer = told(&mut kafka(), &metadata_request(&[name]), 12)?;
    Ok(error(answer.error_code) == ErrorCode::None)
}

#[test]
fn check_15_minus_one_takes_the_brokers_defaults() -> Result<()> {
    for version in [4, 7] {
        let name = unique("defaults");
        let created = try_create(plain(&name), false, version)?;
        assert_eq!(
            error(created.error_code),
            ErrorCode::None,
            "{:?}",
            created.error_message
        );
        let mut kafka = kafka();
        await_topic(&mut kafka, &name, replication()?.try_into()?)?;
        assert_eq!(kafka.partitions(&name)?.len(), 3);
        if version >= 7 {
            ensure!(!created.topic_id.is_zero());
            assert_eq!(
                (created.num_partitions, created.replication_factor),
                (3, replication()?)
            );
            let configs = created.configs.context("configurations")?;
            let policy = configs.iter().find(|config| config.name == "cleanup.policy");
            assert_eq!(policy.context("cleanup.policy")?.value.as_deref(), Some("delete"));
        }
    }
    Ok(())
}

#[test]
fn check_15_replicas_placed_by_hand_exclude_counts() -> Result<()> {
    let ids: Vec<i32> = brokers()?.into_iter().map(|(id, _)| id).collect();
    let (first, last) = (ids[0], ids[ids.len() - 1]);
    let by_hand = |name: &str| CreatableTopic {
        assignments: [vec![last], vec![first]]
            .into_iter()
            .zip(0..)
            .map(|(broker_ids, partition_index)| CreatableReplicaAssignment {
                partition_index,
                broker_ids,
            })
            .collect(),
        ..plain(name)
    };
    let name = unique("byhand");
    assert_eq!(
        error(try_create(by_hand(&name), false, 5)?.error_code),
        ErrorCode::None
    );
    let mut kafka = kafka();
    await_topic(&mut kafka, &name, 1)?;
    let placed: Vec<_> = kafka
        .partitions(&name)?
        .into_iter()
        .map(|p| p.replica_nodes)
        .collect();
    assert_eq!(placed, [vec![last], vec![first]]);

    let name = unique("both");
    for (partitions, replicas) in [(2, -1), (-1, 1), (2, 1)] {
        let both = CreatableTopic {
            num_partitions: partitions,
            replication_factor: replicas,
            ..by_hand(&name)
        };
        assert_eq!(
            error(try_create(both, false, 5)?.error_code),
            ErrorCode::InvalidRequest
        );
    }
    let broken: [&[(i32, &[i32])]; 5] = [
        &[(1, &[first])],
        &[(0, &[first]), (2, &[first])],
        &[(0, &[first, first])],
        &[(0, &[9999])],
        &[(0, &[])],
    ];
    for placement in broken {
        let assignments = placement
            .iter()
            .map(|(partition_index, ids)| CreatableReplicaAssignment {
                partition_index: *partition_index,
                broker_ids: ids.to_vec(),
            });
        let topic = CreatableTopic {
            assignments: assignments.collect(),
            ..plain(&name)
        };
        assert_eq!(
            error(try_create(topic, false, 5)?.error_code),
            ErrorCode::InvalidReplicaAssignment,
            "{placement:?}"
        );
    }
    ensure!(!exists(&name)?, "it was created all the same");
    Ok(())
}

#[test]
fn check_15_what_is_only_validated_is_not_created() -> Result<()> {
    let name = unique("validated");
    let result = try_create(plain(&name), true, 7)?;
    assert_eq!(error(result.error_code), ErrorCode::None);
    ensure!(!exists(&name)?, "it was created");
    let wrong = CreatableTopic {
        configs: vec![config("nonsense", "1")],
        ..plain(&name)
    };
    assert_eq!(
        error(try_create(wrong, true, 7)?.error_code),
        ErrorCode::InvalidConfig
    );
    Ok(())
}

#[test]
fn check_15_refusals_have_their_codes_and_create_nothing() -> Result<()> {
    let count = i16::try_from(brokers()?.len())?;
    let name = unique("refused");
    let cases = [
        (
            CreatableTopic {
                replication_factor: count + 1,
                ..plain(&name)
            },
            ErrorCode::InvalidReplicationFactor,
        ),
        (
            CreatableTopic {
                replication_factor: 0,
                ..plain(&name)
            },
            ErrorCode::InvalidReplicationFactor,
        ),
        (
            CreatableTopic {
                num_partitions: 0,
                ..plain(&name)
            },
            ErrorCode::InvalidPartitions,
        ),
        (
            CreatableTopic {
                configs: vec![config("no.such.config", "1")],
                ..plain(&name)
            },
            ErrorCode::InvalidConfig,
        ),
        (
            CreatableTopic {
                configs: vec![config("retention.ms", "soon")],
                ..plain(&name)
            },
            ErrorCode::InvalidConfig,
        ),
        (
            CreatableTopic {
                configs: vec![config("cleanup.policy", "burn")],
                ..plain(&name)
            },
            ErrorCode::InvalidConfig,
        ),
    ];
    for (topic, expect) in cases {
        let said = format!("{topic:?}");
        let result = try_create(topic, false, 7)?;
        assert_eq!(error(result.error_code), expect, "{said}");
        ensure!(result.error_message.is_some(), "with a message: {said}");
        ensure!(result.topic_id.is_zero(), "an id: {said}");
    }
    ensure!(!exists(&name)?, "it was created all the same");
    let topic = Topic::new("twice", &[])?;
    assert_eq!(
        error(try_create(plain(&topic.name), false, 7)?.error_code),
        ErrorCode::TopicAlreadyExists
    );
    Ok(())
}

#[test]
fn check_15_a_name_given_twice_is_an_invalid_request() -> Result<()> {
    let (name, other) = (unique("double"), unique("single"));
    let request = CreateTopicsRequest {
        topics: vec![plain(&name), plain(&other), plain(&name)],
        timeout_ms: 30_000,
        ..Default::default()
    };
    let response = kafka().any(&request, 7)?;
    let mut codes: Vec<(Str, ErrorCode)> = response
        .topics
        .iter()
        .map(|t| (t.name.clone(), error(t.error_code)))
        .collect();
    codes.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        (name.as_str().into(), ErrorCode::InvalidRequest),
        (other.as_str().into(), ErrorCode::None),
    ];
    assert_eq!(codes, expected);
    ensure!(!exists(&name)?, "one of the two was created");
    Ok(())
}

#[test]
fn check_15_partitions_can_be_added_and_not_taken_away() -> Result<()> {
    let mut topic = Topic::with_partitions("grows", 2, &[])?;
    let mut grow = |count: i32, validate_only: bool| -> Result<ErrorCode> {
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: topic.name.as_str().into(),
                count,
                assignments: None,
            }],
            timeout_ms: 30_000,
            validate_only,
        };
        let response = topic.kafka.any(&request, 3)?;
        Ok(error(response.results[0].error_code))
    };
    assert_eq!(grow(1, false)?, ErrorCode::InvalidPartitions, "fewer");
    assert_eq!(grow(2, false)?, ErrorCode::InvalidPartitions, "as many");
    assert_eq!(grow(5, true)?, ErrorCode::None, "validated");
    assert_eq!(grow(4, false)?, ErrorCode::None);
    wait::until_true("there are four", SOON, || {
        Ok(topic.kafka.partitions(&topic.name)?.len() == 4)
    })?;
    await_topic(&mut topic.kafka, &topic.name, replication()?.try_into()?)
}

#[test]
fn check_15_topics_are_deleted_by_name_and_by_id() -> Result<()> {
    let (by_name, by_id) = (Topic::new("byname", &[])?, Topic::new("byid", &[])?);
    let (unknown, strange) = (unique("nowhere"), TopicId([5; 16]));
    let named = |name: &str| DeleteTopicState {
        name: Some(name.into()),
        topic_id: TopicId::default(),
    };
    let with_id = |topic_id: TopicId| DeleteTopicState { name: None, topic_id };
    let request = DeleteTopicsRequest {
        topics: vec![
            named(&by_name.name),
            with_id(by_id.id),
            named(&unknown),
            with_id(strange),
        ],
        timeout_ms: 30_000,
        ..Default::default()
    };
    let response = kafka().any(&request, 6)?;
    assert_eq!(response.responses.len(), 4);
    for result in response.responses {
        let name = result.name.as_deref().unwrap_or_default().to_owned();
        let expect = if name == by_name.name || result.topic_id == by_id.id {
            ErrorCode::None
        } else if name == unknown {
            ErrorCode::UnknownTopicOrPartition
        } else {
            ErrorCode::UnknownTopicId
        };
        assert_eq!(error(result.error_code), expect, "{name:?} {:?}", result.topic_id);
    }
    await_absence(&by_name.name)?;
    await_absence(&by_id.name)
}

#[test]
fn check_16_every_broker_soon_knows_of_creation_and_deletion() -> Result<()> {
    let all = brokers()?;
    let name = unique("spread");
    let replicas = replication()?;
    // Asked of one broker, shown by all.
    create(&name, 2, replicas, &[])?;
    let mut kafka = kafka();
    for (_, address) in &all {
        wait::until_true("the topic is shown", SOON, || {
            let response = kafka.at(*address, &metadata_request(&[&name]), 12)?;
            Ok(response.topics[0].error_code == 0 && response.topics[0].partitions.len() == 2)
        })?;
    }
    await_topic(&mut kafka, &name, replicas.try_into()?)?;
    delete(&name)?;
    await_absence(&name)?;
    for (_, address) in &all {
        let listed = kafka.at(*address, &MetadataRequest::default(), 12)?;
        ensure!(
            listed.topics.iter().all(|t| t.name.as_deref() != Some(&*name)),
            "it is still listed"
        );
        let mut connection = Connection::open(*address)?;
        let answer = connection.ask(&produce_request(&name, 0, -1, batch(&["a"])), 9)?;
        assert_eq!(
            error(produced(answer)?.error_code),
            ErrorCode::UnknownTopicOrPartition
        );
    }
    Ok(())
}
