//! Checks 10 to 14: what Metadata tells of brokers and topics.

use anyhow::{Context, Result, ensure};
use tradewind_tests::{Kafka, wait};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::TopicId;
use tradewind_wire::messages::create_topics::{CreatableReplicaAssignment, CreatableTopic};
use tradewind_wire::messages::metadata::{MetadataRequestTopic, MetadataResponseTopic};
use tradewind_wire::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, DeleteTopicsResponse, MetadataRequest,
};

use crate::creation::{plain, try_create};
use crate::support::{
    SOON, Topic, await_topic, batch, brokers, connect, connect_alone, create, error, fetch_request,
    is_oracle, kafka, metadata_request, not_here, own_cluster, replication, unique,
};

/// The answer for one topic.
pub(crate) fn told(
    kafka: &mut Kafka,
    request: &MetadataRequest,
    version: i16,
) -> Result<MetadataResponseTopic> {
    let response = kafka.any(request, version)?;
    response
        .topics
        .into_iter()
        .next()
        .context("an answer for the topic")
}

#[test]
fn check_10_all_topics_or_none() -> Result<()> {
    let topic = Topic::new("listed", &[])?;
    let mut connection = connect()?;
    let none = MetadataRequest {
        topics: Some(Vec::new()),
        ..Default::default()
    };
    let all = MetadataRequest::default();
    // Not yet nullable: an empty list is all.
    let old = connection.ask(&none, 0)?;
    ensure!(
        old.topics.iter().any(|t| t.name.as_deref() == Some(&topic.name)),
        "version 0, empty"
    );
    for version in 1..=13 {
        ensure!(
            connection.ask(&none, version)?.topics.is_empty(),
            "version {version}, empty"
        );
        let listed = connection.ask(&all, version)?.topics;
        let found = listed.iter().any(|t| t.name.as_deref() == Some(&topic.name));
        ensure!(found, "version {version}, null");
    }
    Ok(())
}

#[test]
fn check_10_the_cluster_has_an_id_and_a_live_controller() -> Result<()> {
    let none = MetadataRequest {
        topics: Some(Vec::new()),
        ..Default::default()
    };
    let mut kafka = kafka();
    let mut ids = Vec::new();
    for (_, address) in brokers()? {
        for version in [2, 9, 12] {
            let response = kafka.at(address, &none, version)?;
            ids.push(response.cluster_id.context("a cluster id")?.to_string());
            let alive: Vec<i32> = response.brokers.iter().map(|broker| broker.node_id).collect();
            ensure!(
                alive.contains(&response.controller_id),
                "{} of {alive:?}",
                response.controller_id
            );
        }
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    ensure!(!ids[0].is_empty());
    Ok(())
}

#[test]
fn check_11_an_unknown_topic_is_not_created_unless_asked_for() -> Result<()> {
    let name = unique("unasked");
    let mut kafka = kafka();
    for version in [4, 9, 12] {
        let answer = told(&mut kafka, &metadata_request(&[&name]), version)?;
        assert_eq!(error(answer.error_code), ErrorCode::UnknownTopicOrPartition);
        assert_eq!(answer.name.as_deref(), Some(&*name));
        ensure!(answer.partitions.is_empty());
    }
    Ok(())
}

#[test]
fn check_11_names_that_cannot_be_are_invalid() -> Result<()> {
    let long = "x".repeat(250);
    let mut kafka = kafka();
    for name in ["", ".", "..", "a b", "a/b", "ä", &long] {
        for auto in [true, false] {
            let mut request = metadata_request(&[name]);
            request.allow_auto_topic_creation = auto;
            let answer = told(&mut kafka, &request, 9)?;
            assert_eq!(
                error(answer.error_code),
                ErrorCode::InvalidTopicException,
                "{name:?} {auto}"
            );
        }
        let created = try_create(plain(name), false, 5)?;
        assert_eq!(
            error(created.error_code),
            ErrorCode::InvalidTopicException,
            "{name:?}"
        );
    }
    Ok(())
}

#[test]
fn check_11_a_topic_that_is_asked_for_is_created_and_soon_of_use() -> Result<()> {
    for version in [1, 4, 12] {
        let name = unique("auto");
        let mut kafka = kafka();
        let mut request = metadata_request(&[&name]);
        request.allow_auto_topic_creation = true;
        let first = error(told(&mut kafka, &request, version)?.error_code);
        // Apache Kafka begins with one of the errors; ours may have made it by then.
        let mut expected = vec![ErrorCode::UnknownTopicOrPartition, ErrorCode::LeaderNotAvailable];
        if !is_oracle() {
            expected.push(ErrorCode::None);
        }
        ensure!(expected.contains(&first), "the first answer is {first:?}");
        await_topic(&mut kafka, &name, replication()?.try_into()?)?;
        let mut topic = Topic::open(name, kafka)?;
        assert_eq!(topic.append(batch(&["a"]))?, 0);
        assert_eq!(topic.kafka.partitions(&topic.name)?.len(), 3, "num.partitions");
    }
    Ok(())
}

/// Ours only: a setting of the whole cluster.
#[test]
fn check_11_with_auto_create_off_nothing_is_created() -> Result<()> {
    let Some((_folder, cluster)) =
        own_cluster(1, "[topic_defaults]\n\"auto.create.topics.enable\" = false\n")?
    else {
        return Ok(());
    };
    let mut kafka = cluster.kafka();
    let name = unique("off");
    let mut request = metadata_request(&[&name]);
    request.allow_auto_topic_creation = true;
    for version in [0, 3, 12] {
        let answer = told(&mut kafka, &request, version)?;
        assert_eq!(
            error(answer.error_code),
            ErrorCode::UnknownTopicOrPartition,
            "version {version}"
        );
    }
    Ok(())
}

#[test]
fn check_12_topics_have_ids_and_a_new_one_when_made_again() -> Result<()> {
    let name = unique("ids");
    let replicas = replication()?;
    let mut kafka = kafka();
    let mut ids: Vec<TopicId> = Vec::new();
    for _ in 0..3 {
        create(&name, 1, replicas, &[])?;
        await_topic(&mut kafka, &name, replicas.try_into()?)?;
        let answer = told(&mut kafka, &metadata_request(&[&name]), 12)?;
        ensure!(!answer.topic_id.is_zero(), "an id of zero");
        ensure!(!ids.contains(&answer.topic_id), "the id of an earlier topic");
        ids.push(answer.topic_id);
        delete(&name)?;
        await_absence(&name)?;
    }
    for id in ids {
        let answer = told(&mut kafka, &by_id(id), 12)?;
        assert_eq!(
            error(answer.error_code),
            ErrorCode::UnknownTopicId,
            "the id of what was deleted"
        );
    }
    Ok(())
}

fn by_id(topic_id: TopicId) -> MetadataRequest {
    MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { topic_id, name: None }]),
        allow_auto_topic_creation: false,
        ..Default::default()
    }
}

pub(crate) fn delete(name: &str) -> Result<DeleteTopicsResponse> {
    let request = DeleteTopicsRequest {
        topic_names: vec![name.into()],
        timeout_ms: 30_000,
        ..Default::default()
    };
    let response = kafka().any(&request, 5)?;
    assert_eq!(error(response.responses[0].error_code), ErrorCode::None);
    Ok(response)
}

pub(crate) fn await_absence(name: &str) -> Result<()> {
    let mut kafka = kafka();
    for (_, address) in brokers()? {
        wait::until_true("no broker has the topic", SOON, || {
            let response = kafka.at(address, &metadata_request(&[name]), 12)?;
            Ok(error(response.topics[0].error_code) == ErrorCode::UnknownTopicOrPartition)
        })?;
    }
    Ok(())
}

#[test]
fn check_12_metadata_by_id() -> Result<()> {
    let mut topic = Topic::new("metabyid", &[])?;
    for version in [12, 13] {
        let answer = told(&mut topic.kafka, &by_id(topic.id), version)?;
        assert_eq!(error(answer.error_code), ErrorCode::None);
        assert_eq!(answer.name.as_deref(), Some(&*topic.name));
        assert_eq!(answer.topic_id, topic.id);
        assert_eq!(answer.partitions.len(), 1);

        let unknown = TopicId([7; 16]);
        let answer = told(&mut topic.kafka, &by_id(unknown), version)?;
        assert_eq!(error(answer.error_code), ErrorCode::UnknownTopicId);
        assert_eq!((answer.topic_id, answer.name), (unknown, None));
    }
    Ok(())
}

/// Versions 10 and 11 have a field for the id, and must not use it.
#[test]
fn check_12_metadata_10_and_11_take_no_ids() -> Result<()> {
    let topic = Topic::new("idtooearly", &[])?;
    let mut connection = connect()?;
    for version in [10, 11] {
        let response = connection.ask(&by_id(topic.id), version)?;
        ensure!(!response.topics.is_empty());
        for answer in response.topics {
            assert_eq!(
                error(answer.error_code),
                ErrorCode::InvalidRequest,
                "version {version}"
            );
        }
    }
    Ok(())
}

/// Ours only: a daemon is killed.
#[test]
fn check_13_and_14_the_leader_epoch_grows_and_a_lost_leader_is_told() -> Result<()> {
    let Some((_folder, mut cluster)) = own_cluster(3, "")? else {
        return Ok(());
    };
    let mut kafka = cluster.kafka();
    let name = unique("epoch");
    kafka.create_topic(&name, 1, &[])?;
    await_topic(&mut kafka, &name, 3)?;
    let before = kafka.partitions(&name)?.remove(0);
    // Beside it a topic whose only replica is on the daemon that will be lost.
    let alone = unique("alone");
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: alone.as_str().into(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: vec![CreatableReplicaAssignment {
                partition_index: 0,
                broker_ids: vec![before.leader_id],
            }],
            ..Default::default()
        }],
        timeout_ms: 30_000,
        ..Default::default()
    };
    assert_eq!(
        error(kafka.any(&request, 5)?.topics[0].error_code),
        ErrorCode::None
    );
    await_topic(&mut kafka, &alone, 1)?;

    cluster.daemon(before.leader_id)?.kill();
    let mut kafka = cluster.kafka();
    let after = wait::until("another leader", 60, || {
        let led = kafka.partitions(&name)?.remove(0);
        Ok((led.leader_id != before.leader_id && led.leader_id >= 0).then_some(led))
    })?;
    ensure!(
        after.leader_epoch > before.leader_epoch,
        "{} after {}",
        after.leader_epoch,
        before.leader_epoch
    );
    let lost = wait::until("the loss is known", 60, || {
        let mut answer = told(&mut kafka, &metadata_request(&[&alone]), 12)?;
        let partition = answer.partitions.remove(0);
        Ok((partition.leader_id < 0).then_some((answer.error_code, partition)))
    })?;
    assert_eq!(error(lost.0), ErrorCode::None, "of the topic");
    let partition = lost.1;
    assert_eq!(error(partition.error_code), ErrorCode::LeaderNotAvailable);
    assert_eq!(partition.leader_id, -1);
    assert_eq!(partition.offline_replicas, [before.leader_id]);
    assert_eq!(partition.replica_nodes, [before.leader_id]);
    let shrunk = kafka.partitions(&name)?.remove(0);
    assert_eq!(shrunk.offline_replicas, [before.leader_id]);
    assert_eq!(shrunk.replica_nodes, before.replica_nodes);
    Ok(())
}

#[test]
fn check_13_a_topic_made_again_is_taken_by_its_id() -> Result<()> {
    let name = unique("again");
    let replicas = replication()?;
    let mut kafka = kafka();
    create(&name, 1, replicas, &[])?;
    await_topic(&mut kafka, &name, replicas.try_into()?)?;
    let mut first = Topic::open(name.clone(), kafka)?;
    first.append(batch(&["a", "b"]))?;
    delete(&name)?;
    await_absence(&name)?;
    create(&name, 1, replicas, &[])?;
    let mut kafka = crate::support::kafka();
    await_topic(&mut kafka, &name, replicas.try_into()?)?;
    let mut second = Topic::open(name, kafka)?;
    // Nothing of the old one is left, whoever leads, and its id is not taken for the new one's.
    assert_eq!(second.append(batch(&["c"]))?, 0);
    let mut request = fetch_request("", 0);
    request.topics[0].topic_id = first.id;
    let response = second.leader.ask(&request, 16)?;
    assert_eq!(
        error(response.responses[0].partitions[0].error_code),
        ErrorCode::UnknownTopicId
    );
    Ok(())
}

#[test]
fn check_14_replicas_in_sync_and_offline_are_told() -> Result<()> {
    let mut topic = Topic::with_partitions("replicas", 4, &[])?;
    let all: Vec<i32> = brokers()?.into_iter().map(|(id, _)| id).collect();
    for partition in topic.kafka.partitions(&topic.name)? {
        assert_eq!(error(partition.error_code), ErrorCode::None);
        ensure!(partition.replica_nodes.contains(&partition.leader_id));
        ensure!(partition.replica_nodes.iter().all(|id| all.contains(id)));
        let mut in_sync = partition.isr_nodes.clone();
        let mut replicas = partition.replica_nodes.clone();
        in_sync.sort_unstable();
        replicas.sort_unstable();
        assert_eq!(in_sync, replicas);
        ensure!(partition.offline_replicas.is_empty());
    }
    Ok(())
}

/// A client of a listener that only one broker has cannot reach the leaders that others are.
#[test]
fn check_14_leaders_without_the_listener_that_is_used_are_not_found() -> Result<()> {
    let Some(mut connection) = connect_alone()? else {
        not_here("no listener that only one broker has");
        return Ok(());
    };
    let mut topic = Topic::with_partitions("alone", 3, &[])?;
    let led = topic.kafka.partitions(&topic.name)?;
    let only = connection.ask(&metadata_request(&[]), 12)?.brokers;
    let home = only.first().context("the broker that has it")?.node_id;
    assert_eq!(only.len(), 1, "who does not have the listener is not told of");
    ensure!(led.iter().any(|partition| partition.leader_id == home), "{led:?}");
    ensure!(led.iter().any(|partition| partition.leader_id != home), "{led:?}");
    for version in 4..=13 {
        let response = connection.ask(&metadata_request(&[&topic.name]), version)?;
        let told = response.topics.into_iter().next().context("the topic")?;
        assert_eq!(error(told.error_code), ErrorCode::None);
        for partition in told.partitions {
            let index = usize::try_from(partition.partition_index)?;
            let expected = if led[index].leader_id == home {
                (home, ErrorCode::None)
            } else if version < 6 {
                (-1, ErrorCode::LeaderNotAvailable)
            } else {
                (-1, ErrorCode::ListenerNotFound)
            };
            assert_eq!(
                (partition.leader_id, error(partition.error_code)),
                expected,
                "version {version}"
            );
            let sorted = |mut ids: Vec<i32>| {
                ids.sort_unstable();
                ids
            };
            let replicas = sorted(led[index].replica_nodes.clone());
            assert_eq!(sorted(partition.replica_nodes), replicas, "version {version}");
            assert_eq!(sorted(partition.isr_nodes), replicas, "version {version}");
            if version >= 5 {
                let others: Vec<i32> = replicas.into_iter().filter(|id| *id != home).collect();
                assert_eq!(sorted(partition.offline_replicas), others, "version {version}");
            }
        }
    }
    Ok(())
}
