//! Check 42: positions that go away, by request and by time.

use anyhow::{Context, Result, ensure};
use tradewind_tests::wait;
use tradewind_wire::consumer_protocol::{ConsumerProtocolSubscription, Versioned};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::join_group::JoinGroupRequestProtocol;
use tradewind_wire::messages::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use tradewind_wire::messages::offset_fetch::OffsetFetchRequestTopic;
use tradewind_wire::messages::{OffsetDeleteRequest, OffsetFetchRequest};

use crate::member::{Group, commit_request, committed};
use crate::support::{SOON, Topic, error};

/// A group's position in partition 0 of each topic; -1 for none.
pub(crate) fn positions(group: &Group, topics: &[&str]) -> Result<Vec<i64>> {
    let asked = topics.iter().map(|topic| OffsetFetchRequestTopic {
        name: (*topic).into(),
        partition_indexes: vec![0],
    });
    let request = OffsetFetchRequest {
        group_id: group.id.as_str().into(),
        topics: Some(asked.collect()),
        ..Default::default()
    };
    let response = group.connect()?.ask(&request, 5)?;
    assert_eq!(error(response.error_code), ErrorCode::None);
    let position = |topic: &&str| {
        let found = response.topics.iter().find(|found| found.name == **topic);
        Ok(found.context("the topic")?.partitions[0].committed_offset)
    };
    topics.iter().map(position).collect()
}

fn delete(group: &Group, topics: &[(&str, i32)]) -> Result<(ErrorCode, Vec<ErrorCode>)> {
    let asked = topics
        .iter()
        .map(|(name, partition_index)| OffsetDeleteRequestTopic {
            name: (*name).into(),
            partitions: vec![OffsetDeleteRequestPartition {
                partition_index: *partition_index,
            }],
        });
    let request = OffsetDeleteRequest {
        group_id: group.id.as_str().into(),
        topics: asked.collect(),
    };
    let response = group.connect()?.ask(&request, 0)?;
    let code = |name: &str| {
        let found = response.topics.iter().find(|topic| topic.name == *name);
        Ok(error(found.context("the topic")?.partitions[0].error_code))
    };
    let each: Result<Vec<_>> = if response.topics.is_empty() {
        Ok(Vec::new())
    } else {
        topics.iter().map(|(name, _)| code(name)).collect()
    };
    Ok((error(response.error_code), each?))
}

/// The retention that versions 2 to 4 can ask for.
#[test]
fn check_42_a_position_expires_when_its_time_is_over() -> Result<()> {
    let topics = [Topic::new("expires", &[])?, Topic::new("stays", &[])?];
    let names = [topics[0].name.as_str(), topics[1].name.as_str()];
    let group = Group::new("expires")?;
    let mut connection = group.connect()?;
    let mut short = commit_request(&group.id, names[0], 5);
    short.retention_time_ms = 1_000;
    assert_eq!(committed(&mut connection, &short, 4)?, ErrorCode::None);
    assert_eq!(
        committed(&mut connection, &commit_request(&group.id, names[1], 7), 5)?,
        ErrorCode::None
    );
    wait::until_true("the short one is gone", SOON, || {
        Ok(positions(&group, &names)? == [-1, 7])
    })
}

#[test]
fn check_42_positions_are_deleted_one_by_one_but_not_those_in_use() -> Result<()> {
    let topics = [Topic::new("used", &[])?, Topic::new("unused", &[])?];
    let names = [topics[0].name.as_str(), topics[1].name.as_str()];
    let group = Group::new("offsetdelete")?;
    assert_eq!(delete(&group, &[(names[0], 0)])?.0, ErrorCode::GroupIdNotFound);
    let mut connection = group.connect()?;
    for name in names {
        assert_eq!(
            committed(&mut connection, &commit_request(&group.id, name, 5), 8)?,
            ErrorCode::None
        );
    }
    let subscription = ConsumerProtocolSubscription {
        topics: vec![names[0].into()],
        ..Default::default()
    };
    let mut member = group.member()?;
    member.join.protocol_type = "consumer".into();
    member.join.protocols = vec![JoinGroupRequestProtocol {
        name: "range".into(),
        metadata: subscription.to_bytes(1)?,
    }];
    member.join()?;
    let own = member.id().to_owned();
    member.sync(&[(&own, b"")])?;
    let (all, each) = delete(&group, &[(names[0], 0), (names[1], 0)])?;
    assert_eq!(all, ErrorCode::None);
    assert_eq!(each, [ErrorCode::GroupSubscribedToTopic, ErrorCode::None]);
    assert_eq!(positions(&group, &names)?, [5, -1]);
    Ok(())
}

/// Redpanda #26664: what members of other kinds of groups read is not known, so nothing of theirs may be deleted.
#[test]
fn check_42_a_group_of_another_kind_must_be_empty_first() -> Result<()> {
    let topic = Topic::new("otherkind", &[])?;
    let group = Group::new("otherkind")?;
    let mut member = group.stable_member()?;
    assert_eq!(member.commit(&topic.name, 5)?, ErrorCode::None);
    let (all, each) = delete(&group, &[(&topic.name, 0)])?;
    assert_eq!((all, each.len()), (ErrorCode::NonEmptyGroup, 0));
    ensure!(positions(&group, &[&topic.name])? == [5]);
    Ok(())
}
