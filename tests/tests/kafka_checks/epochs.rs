//! Check 34: leader epochs (KIP-320), by which clients notice that what they read is no longer in the log.

use anyhow::{Context, Result, ensure};
use tradewind_tests::kafka::Connection;
use tradewind_tests::{Kafka, wait};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::alter_partition_reassignments::{ReassignablePartition, ReassignableTopic};
use tradewind_wire::messages::elect_leaders::TopicPartitions;
use tradewind_wire::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use tradewind_wire::messages::{
    AlterPartitionReassignmentsRequest, ElectLeadersRequest, OffsetForLeaderEpochRequest,
};

use crate::support::{
    SOON, Topic, batch, error, fetch_request, fetched, list_offsets_request, produce_request, produced,
};

/// KIP-320.
#[test]
fn check_34_fetch_and_list_offsets_compare_leader_epochs() -> Result<()> {
    let mut topic = Topic::new("leaderepoch", &[])?;
    topic.append(batch(&["a"]))?;
    let epoch = topic.kafka.partitions(&topic.name)?[0].leader_epoch;
    let mut cases = vec![(-1, ErrorCode::None), (epoch, ErrorCode::None)];
    cases.push((epoch + 1, ErrorCode::UnknownLeaderEpoch));
    if epoch > 0 {
        cases.push((epoch - 1, ErrorCode::FencedLeaderEpoch));
    }
    for (asked, expect) in cases {
        let mut fetch = fetch_request(&topic.name, 0);
        fetch.topics[0].partitions[0].current_leader_epoch = asked;
        for version in [9, 12] {
            let data = fetched(topic.leader.ask(&fetch, version)?)?;
            assert_eq!(
                error(data.error_code),
                expect,
                "epoch {asked}, the broker's is {epoch}"
            );
        }
        let mut list = list_offsets_request(&topic.name, -1);
        list.topics[0].partitions[0].current_leader_epoch = asked;
        let answer = topic.leader.ask(&list, 8)?;
        assert_eq!(error(answer.topics[0].partitions[0].error_code), expect);
        let found = epoch_end(&mut topic, asked, epoch)?;
        assert_eq!(error(found.error_code), expect);
    }
    Ok(())
}

fn epoch_end(topic: &mut Topic, current: i32, epoch: i32) -> Result<EpochEndOffset> {
    let request = OffsetForLeaderEpochRequest {
        replica_id: -1,
        topics: vec![OffsetForLeaderTopic {
            topic: topic.name.as_str().into(),
            partitions: vec![OffsetForLeaderPartition {
                partition: 0,
                current_leader_epoch: current,
                leader_epoch: epoch,
            }],
        }],
    };
    let response = topic.leader.ask(&request, 4)?;
    let found = response.topics.into_iter().next().context("the topic")?;
    found.partitions.into_iter().next().context("the partition")
}

#[test]
fn check_34_an_epochs_end_is_found() -> Result<()> {
    let mut topic = Topic::new("epochend", &[])?;
    topic.append_singly(3)?;
    let epoch = topic.kafka.partitions(&topic.name)?[0].leader_epoch;
    let found = epoch_end(&mut topic, -1, epoch)?;
    assert_eq!(
        (error(found.error_code), found.leader_epoch, found.end_offset),
        (ErrorCode::None, epoch, 3)
    );
    // An epoch that has not been yet.
    let found = epoch_end(&mut topic, -1, epoch + 1)?;
    assert_eq!(
        (error(found.error_code), found.leader_epoch, found.end_offset),
        (ErrorCode::None, -1, -1)
    );
    Ok(())
}

/// Makes `leader` the preferred leader of partition 0, and has it elected.
fn lead(kafka: &mut Kafka, topic: &str, leader: i32) -> Result<()> {
    let mut replicas = kafka.partitions(topic)?.remove(0).replica_nodes;
    replicas.sort_by_key(|id| *id != leader);
    let reorder = AlterPartitionReassignmentsRequest {
        topics: vec![ReassignableTopic {
            name: topic.into(),
            partitions: vec![ReassignablePartition {
                partition_index: 0,
                replicas: Some(replicas.clone()),
            }],
        }],
        timeout_ms: 30_000,
        ..Default::default()
    };
    let answer = kafka.any(&reorder, 0)?;
    assert_eq!(error(answer.error_code), ErrorCode::None);
    wait::until_true("the order is the new one", SOON, || {
        Ok(kafka.partitions(topic)?[0].replica_nodes == replicas)
    })?;
    let elect = ElectLeadersRequest {
        election_type: 0,
        topic_partitions: Some(vec![TopicPartitions {
            topic: topic.into(),
            partitions: vec![0],
        }]),
        timeout_ms: 30_000,
    };
    wait::until_true("the preferred one leads", SOON, || {
        kafka.any(&elect, 2)?;
        Ok(kafka.partitions(topic)?[0].leader_id == leader)
    })
}

#[test]
fn check_13_and_34_the_epoch_of_a_former_leader_is_fenced_and_its_end_is_known() -> Result<()> {
    let mut topic = Topic::new("formerleader", &[])?;
    topic.append_singly(3)?;
    let before = topic.kafka.partitions(&topic.name)?.remove(0);
    let next = before.replica_nodes.iter().find(|id| **id != before.leader_id);
    let Some(next) = next else {
        crate::support::not_here("there is one broker only");
        return Ok(());
    };
    lead(&mut topic.kafka, &topic.name, *next)?;
    let mut old = topic.leader;
    let mut topic = Topic::open(topic.name, topic.kafka)?;
    let led = topic.kafka.partitions(&topic.name)?.remove(0);
    let (was, is) = (before.leader_epoch, led.leader_epoch);
    ensure!(is > was, "{is} after {was}");
    wait::until_true("the new leader takes writes", SOON, || {
        Ok(error(topic.produce(batch(&["a", "b"]))?.error_code) == ErrorCode::None)
    })?;
    let end = topic.list_offsets(-1)?;
    assert_eq!((end.offset, end.leader_epoch), (5, is));
    assert_eq!(
        topic.list_offsets(-2)?.leader_epoch,
        was,
        "that of the first record"
    );

    for (asked, expect) in [
        (was, ErrorCode::FencedLeaderEpoch),
        (is, ErrorCode::None),
        (is + 1, ErrorCode::UnknownLeaderEpoch),
    ] {
        let mut fetch = fetch_request(&topic.name, 0);
        fetch.topics[0].partitions[0].current_leader_epoch = asked;
        for version in [9, 12] {
            let data = fetched(topic.leader.ask(&fetch, version)?)?;
            assert_eq!(error(data.error_code), expect, "epoch {asked} of {is}");
        }
        let mut list = list_offsets_request(&topic.name, -1);
        list.topics[0].partitions[0].current_leader_epoch = asked;
        let answer = topic.leader.ask(&list, 8)?;
        assert_eq!(error(answer.topics[0].partitions[0].error_code), expect);
        assert_eq!(error(epoch_end(&mut topic, asked, is)?.error_code), expect);
    }
    // The largest epoch up to the one that is asked for, and where the next one began.
    for (asked, epoch, end) in [(was, was, 3), (is - 1, was, 3), (is, is, 5)] {
        let found = epoch_end(&mut topic, -1, asked)?;
        assert_eq!(
            (error(found.error_code), found.leader_epoch, found.end_offset),
            (ErrorCode::None, epoch, end),
            "epoch {asked}"
        );
    }
    // Who led knows it, and does not write.
    former(&mut old, &topic.name)
}

fn former(old: &mut Connection, topic: &str) -> Result<()> {
    let answer = produced(old.ask(&produce_request(topic, 0, 1, batch(&["x"])), 9)?)?;
    assert_eq!(error(answer.error_code), ErrorCode::NotLeaderOrFollower);
    Ok(())
}
