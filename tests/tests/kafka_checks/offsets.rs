//! Checks 40 to 44: positions of groups, what is told of groups, and who looks after them.

use anyhow::{Context, Result, ensure};
use tradewind_tests::kafka::Connection;
use tradewind_tests::wait;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::describe_groups::DescribedGroup;
use tradewind_wire::messages::offset_commit::OffsetCommitRequestPartition;
use tradewind_wire::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics, OffsetFetchResponsePartition,
};
use tradewind_wire::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, LeaveGroupRequest, ListGroupsRequest, OffsetFetchRequest,
};

use crate::member::{Group, commit_request, committed, protocol};
use crate::support::{SOON, Topic, await_topic, brokers, error, own_cluster, unique};

/// A fetch of one partition's position, up to version 7.
fn position_request(group: &str, topic: &str, partition: i32) -> OffsetFetchRequest {
    OffsetFetchRequest {
        group_id: group.into(),
        topics: Some(vec![OffsetFetchRequestTopic {
            name: topic.into(),
            partition_indexes: vec![partition],
        }]),
        ..Default::default()
    }
}

fn position(group: &Group, topic: &str, version: i16) -> Result<OffsetFetchResponsePartition> {
    let response = group
        .connect()?
        .ask(&position_request(&group.id, topic, 0), version)?;
    assert_eq!(error(response.error_code), ErrorCode::None);
    let topic = response.topics.into_iter().next().context("the topic")?;
    topic.partitions.into_iter().next().context("the partition")
}

#[test]
fn check_40_commits_from_outside_need_a_group_without_members() -> Result<()> {
    let topic = Topic::new("outside", &[])?;
    let group = Group::new("outside")?;
    let mut connection = group.connect()?;
    let commit = commit_request(&group.id, &topic.name, 7);
    for version in [2, 5, 8] {
        assert_eq!(
            committed(&mut connection, &commit, version)?,
            ErrorCode::None,
            "an unknown group"
        );
    }
    assert_eq!(position(&group, &topic.name, 5)?.committed_offset, 7);
    let member = group.stable_member()?;
    for version in [2, 8] {
        assert_eq!(
            committed(&mut connection, &commit, version)?,
            ErrorCode::UnknownMemberId,
            "with a member"
        );
    }
    let leave = LeaveGroupRequest {
        group_id: group.id.as_str().into(),
        member_id: member.id().into(),
        ..Default::default()
    };
    assert_eq!(error(connection.ask(&leave, 2)?.error_code), ErrorCode::None);
    assert_eq!(
        committed(&mut connection, &commit, 8)?,
        ErrorCode::None,
        "empty again"
    );
    Ok(())
}

#[test]
fn check_40_a_generation_needs_a_group() -> Result<()> {
    let topic = Topic::new("nogroup", &[])?;
    let group = Group::new("nogroup")?;
    let mut commit = commit_request(&group.id, &topic.name, 7);
    commit.generation_id_or_member_epoch = 3;
    commit.member_id = "somebody".into();
    let mut connection = group.connect()?;
    for version in [2, 5, 8] {
        assert_eq!(
            committed(&mut connection, &commit, version)?,
            ErrorCode::IllegalGeneration
        );
    }
    assert_eq!(
        committed(&mut connection, &commit, 9)?,
        ErrorCode::GroupIdNotFound
    );
    Ok(())
}

#[test]
fn check_40_notes_have_a_bound_and_topics_must_exist() -> Result<()> {
    let topic = Topic::new("notes", &[])?;
    let group = Group::new("notes")?;
    let mut connection = group.connect()?;
    let mut commit = commit_request(&group.id, &topic.name, 7);
    for (length, expect) in [(4096, ErrorCode::None), (4097, ErrorCode::OffsetMetadataTooLarge)] {
        commit.topics[0].partitions[0].committed_metadata = Some("x".repeat(length).into());
        assert_eq!(committed(&mut connection, &commit, 8)?, expect, "{length}");
    }
    assert_eq!(
        position(&group, &topic.name, 5)?
            .metadata
            .context("a note")?
            .len(),
        4096
    );
    // One partition's refusal is not the other's.
    commit.topics[0].partitions[0].committed_offset = 8;
    commit.topics[0].partitions.push(OffsetCommitRequestPartition {
        partition_index: 9,
        committed_offset: 1,
        ..Default::default()
    });
    commit.topics[0].partitions[0].committed_metadata = None;
    let response = connection.ask(&commit, 8)?;
    let mut codes: Vec<_> = response.topics[0]
        .partitions
        .iter()
        .map(|p| (p.partition_index, error(p.error_code)))
        .collect();
    codes.sort_unstable();
    assert_eq!(
        codes,
        [(0, ErrorCode::None), (9, ErrorCode::UnknownTopicOrPartition)]
    );
    assert_eq!(position(&group, &topic.name, 5)?.committed_offset, 8);
    Ok(())
}

#[test]
fn check_41_a_position_that_is_not_there_is_no_error() -> Result<()> {
    let topic = Topic::new("noposition", &[])?;
    let group = Group::new("noposition")?;
    for name in [&topic.name, &unique("nowhere")] {
        for version in [1, 2, 5, 7] {
            let found = position(&group, name, version)?;
            assert_eq!(error(found.error_code), ErrorCode::None, "version {version}");
            assert_eq!((found.committed_offset, found.committed_leader_epoch), (-1, -1));
            assert_eq!(found.metadata.as_deref(), Some(""));
        }
    }
    Ok(())
}

#[test]
fn check_34_and_41_position_epoch_and_note_come_back() -> Result<()> {
    let topic = Topic::new("comesback", &[])?;
    let group = Group::new("comesback")?;
    let mut commit = commit_request(&group.id, &topic.name, 123);
    commit.topics[0].partitions[0].committed_leader_epoch = 5;
    assert_eq!(committed(&mut group.connect()?, &commit, 8)?, ErrorCode::None);
    for version in [1, 4, 5, 7] {
        let found = position(&group, &topic.name, version)?;
        let epoch = if version >= 5 { 5 } else { -1 };
        assert_eq!(
            (found.committed_offset, found.committed_leader_epoch),
            (123, epoch)
        );
        assert_eq!(found.metadata.as_deref(), Some("note"));
    }
    // A later commit replaces all of it.
    let commit = commit_request(&group.id, &topic.name, 124);
    assert_eq!(committed(&mut group.connect()?, &commit, 8)?, ErrorCode::None);
    let found = position(&group, &topic.name, 5)?;
    assert_eq!((found.committed_offset, found.committed_leader_epoch), (124, -1));
    Ok(())
}

#[test]
fn check_41_null_topics_are_all_that_the_group_has() -> Result<()> {
    let (one, two) = (Topic::new("all1", &[])?, Topic::with_partitions("all2", 2, &[])?);
    let group = Group::new("all")?;
    let mut connection = group.connect()?;
    assert_eq!(
        committed(&mut connection, &commit_request(&group.id, &one.name, 1), 8)?,
        ErrorCode::None
    );
    let mut commit = commit_request(&group.id, &two.name, 2);
    commit.topics[0].partitions[0].partition_index = 1;
    assert_eq!(committed(&mut connection, &commit, 8)?, ErrorCode::None);
    let mut expected = vec![(one.name, 0, 1), (two.name, 1, 2)];
    expected.sort();
    for version in [2, 5, 7] {
        let request = OffsetFetchRequest {
            group_id: group.id.as_str().into(),
            topics: None,
            ..Default::default()
        };
        let response = connection.ask(&request, version)?;
        let mut found = Vec::new();
        for topic in response.topics {
            let name = topic.name.to_string();
            found.extend(
                topic
                    .partitions
                    .iter()
                    .map(|p| (name.clone(), p.partition_index, p.committed_offset)),
            );
        }
        found.sort();
        assert_eq!(found, expected, "version {version}");
    }
    Ok(())
}

#[test]
fn check_41_several_groups_in_one_request() -> Result<()> {
    let topic = Topic::new("several", &[])?;
    // Two groups of one coordinator.
    let first = Group::new("several")?;
    let second = wait::until("a second group of the same coordinator", SOON, || {
        let group = Group::new("several")?;
        Ok((group.coordinator == first.coordinator).then_some(group))
    })?;
    let mut connection = first.connect()?;
    assert_eq!(
        committed(&mut connection, &commit_request(&first.id, &topic.name, 1), 8)?,
        ErrorCode::None
    );
    assert_eq!(
        committed(&mut connection, &commit_request(&second.id, &topic.name, 2), 8)?,
        ErrorCode::None
    );
    let of = |group: &Group, all: bool| OffsetFetchRequestGroup {
        group_id: group.id.as_str().into(),
        topics: (!all).then(|| {
            vec![OffsetFetchRequestTopics {
                name: topic.name.as_str().into(),
                partition_indexes: vec![0],
            }]
        }),
        ..Default::default()
    };
    let request = OffsetFetchRequest {
        groups: vec![of(&first, false), of(&second, true)],
        ..Default::default()
    };
    for version in [8, 9] {
        let response = connection.ask(&request, version)?;
        let mut found: Vec<_> = response
            .groups
            .iter()
            .map(|group| {
                assert_eq!(error(group.error_code), ErrorCode::None);
                (
                    group.group_id.to_string(),
                    group.topics[0].partitions[0].committed_offset,
                )
            })
            .collect();
        found.sort();
        let mut expected = vec![(first.id.clone(), 1), (second.id.clone(), 2)];
        expected.sort();
        assert_eq!(found, expected);
    }
    Ok(())
}

/// Where the error of a group stands differs by version.
#[test]
fn check_41_and_44_another_broker_is_not_the_coordinator() -> Result<()> {
    let topic = Topic::new("elsewhere", &[])?;
    let group = Group::new("elsewhere")?;
    let other = brokers()?
        .into_iter()
        .find(|(_, address)| *address != group.coordinator);
    let Some((_, address)) = other else { return Ok(()) };
    let mut stranger = Connection::open(address)?;

    let old = stranger.ask(&position_request(&group.id, &topic.name, 0), 1)?;
    assert_eq!(
        error(old.topics[0].partitions[0].error_code),
        ErrorCode::NotCoordinator
    );
    for version in [2, 5, 7] {
        let answer = stranger.ask(&position_request(&group.id, &topic.name, 0), version)?;
        assert_eq!(
            error(answer.error_code),
            ErrorCode::NotCoordinator,
            "version {version}"
        );
    }
    let batch = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.id.as_str().into(),
            topics: None,
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = stranger.ask(&batch, 8)?;
    assert_eq!(error(answer.groups[0].error_code), ErrorCode::NotCoordinator);

    let commit = commit_request(&group.id, &topic.name, 1);
    assert_eq!(committed(&mut stranger, &commit, 8)?, ErrorCode::NotCoordinator);
    let mut member = group.member()?;
    member.connection = stranger;
    assert_eq!(
        error(member.connection.ask(&member.join, 5)?.error_code),
        ErrorCode::NotCoordinator
    );
    member.generation = 1;
    member.join.member_id = "x".into();
    assert_eq!(member.heartbeat()?, ErrorCode::NotCoordinator);
    assert_eq!(error(member.sync(&[])?.error_code), ErrorCode::NotCoordinator);
    let leave = LeaveGroupRequest {
        group_id: group.id.as_str().into(),
        member_id: "x".into(),
        ..Default::default()
    };
    assert_eq!(
        error(member.connection.ask(&leave, 2)?.error_code),
        ErrorCode::NotCoordinator
    );
    assert_eq!(
        error(describe(&mut member.connection, &group.id, 5)?.error_code),
        ErrorCode::NotCoordinator
    );
    let deleted = member.connection.ask(&delete_request(&group.id), 2)?;
    assert_eq!(error(deleted.results[0].error_code), ErrorCode::NotCoordinator);
    Ok(())
}

fn delete_request(group: &str) -> DeleteGroupsRequest {
    DeleteGroupsRequest {
        groups_names: vec![group.into()],
    }
}

#[test]
fn check_42_only_groups_without_members_are_deleted() -> Result<()> {
    let topic = Topic::new("deleted", &[])?;
    let group = Group::new("deleted")?;
    let mut connection = group.connect()?;
    let unknown = connection.ask(&delete_request(&group.id), 2)?;
    assert_eq!(error(unknown.results[0].error_code), ErrorCode::GroupIdNotFound);

    let mut member = group.stable_member()?;
    assert_eq!(member.commit(&topic.name, 5)?, ErrorCode::None);
    let full = connection.ask(&delete_request(&group.id), 2)?;
    assert_eq!(error(full.results[0].error_code), ErrorCode::NonEmptyGroup);
    let leave = LeaveGroupRequest {
        group_id: group.id.as_str().into(),
        member_id: member.id().into(),
        ..Default::default()
    };
    assert_eq!(error(connection.ask(&leave, 2)?.error_code), ErrorCode::None);
    let empty = connection.ask(&delete_request(&group.id), 2)?;
    assert_eq!(error(empty.results[0].error_code), ErrorCode::None);
    assert_eq!(
        position(&group, &topic.name, 5)?.committed_offset,
        -1,
        "with its positions"
    );
    assert_eq!(describe(&mut connection, &group.id, 5)?.group_state, "Dead");
    Ok(())
}

#[test]
fn check_42_a_deleted_topic_takes_its_positions_along() -> Result<()> {
    let topic = Topic::new("gone", &[])?;
    let group = Group::new("gone")?;
    let commit = commit_request(&group.id, &topic.name, 5);
    assert_eq!(committed(&mut group.connect()?, &commit, 8)?, ErrorCode::None);
    let request = tradewind_wire::messages::DeleteTopicsRequest {
        topic_names: vec![topic.name.as_str().into()],
        timeout_ms: 30_000,
        ..Default::default()
    };
    let deleted = crate::support::kafka().any(&request, 5)?;
    assert_eq!(error(deleted.responses[0].error_code), ErrorCode::None);
    wait::until_true("the position is gone", SOON, || {
        Ok(position(&group, &topic.name, 5)?.committed_offset == -1)
    })
}

fn describe(connection: &mut Connection, group: &str, version: i16) -> Result<DescribedGroup> {
    let request = DescribeGroupsRequest {
        groups: vec![group.into()],
        ..Default::default()
    };
    let response = connection.ask(&request, version)?;
    response.groups.into_iter().next().context("the group")
}

#[test]
fn check_43_an_unknown_group_is_dead_and_from_version_6_not_found() -> Result<()> {
    let group = Group::new("unknown")?;
    let mut connection = group.connect()?;
    for version in 0..=5 {
        let told = describe(&mut connection, &group.id, version)?;
        assert_eq!(
            (error(told.error_code), &*told.group_state),
            (ErrorCode::None, "Dead")
        );
    }
    let told = describe(&mut connection, &group.id, 6)?;
    assert_eq!(
        (error(told.error_code), &*told.group_state),
        (ErrorCode::GroupIdNotFound, "Dead")
    );
    ensure!(told.error_message.is_some(), "with a message");
    Ok(())
}

#[test]
fn check_43_a_group_is_told_with_its_members_bytes() -> Result<()> {
    let group = Group::new("told")?;
    let mut member = group.member()?;
    member.join.group_instance_id = Some("instance".into());
    member.join.protocol_type = "sr".into();
    member.join.protocols = vec![protocol("v0", b"\x00\xffmeta"), protocol("v1", b"other")];
    member.join()?;
    let mut connection = group.connect()?;
    wait::until_true("the group waits for its leader", SOON, || {
        Ok(describe(&mut connection, &group.id, 5)?.group_state == "CompletingRebalance")
    })?;
    let own = member.id().to_owned();
    member.sync(&[(&own, b"\xff\x00assigned")])?;
    for version in [0, 4, 5, 6] {
        let told = describe(&mut connection, &group.id, version)?;
        assert_eq!(
            (error(told.error_code), &*told.group_state),
            (ErrorCode::None, "Stable")
        );
        assert_eq!((&*told.protocol_type, &*told.protocol_data), ("sr", "v0"));
        assert_eq!(told.authorized_operations, i32::MIN, "not asked for");
        let one = told.members.first().context("the member")?;
        assert_eq!(&*one.member_id, own);
        assert_eq!(&one.member_metadata[..], b"\x00\xffmeta");
        assert_eq!(&one.member_assignment[..], b"\xff\x00assigned");
        assert_eq!((&*one.client_id, &*one.client_host), ("suites", "/127.0.0.1"));
        if version >= 4 {
            assert_eq!(one.group_instance_id.as_deref(), Some("instance"));
        }
    }
    Ok(())
}

#[test]
fn check_43_groups_are_listed_by_state_and_type() -> Result<()> {
    let topic = Topic::new("listing", &[])?;
    let group = Group::new("listing")?;
    let mut connection = group.connect()?;
    let mut listed = |states: &[&str], types: &[&str], version: i16| -> Result<Option<(String, String)>> {
        let request = ListGroupsRequest {
            states_filter: states.iter().map(|state| (*state).into()).collect(),
            types_filter: types.iter().map(|kind| (*kind).into()).collect(),
        };
        let response = connection.ask(&request, version)?;
        assert_eq!(error(response.error_code), ErrorCode::None);
        let found = response
            .groups
            .into_iter()
            .find(|listed| *listed.group_id == *group.id);
        Ok(found.map(|found| (found.group_state.to_string(), found.group_type.to_string())))
    };
    assert_eq!(listed(&[], &[], 5)?, None);
    let mut member = group.stable_member()?;
    assert_eq!(member.commit(&topic.name, 5)?, ErrorCode::None);
    let stable = Some(("Stable".to_owned(), "classic".to_owned()));
    assert_eq!(listed(&[], &[], 5)?, stable);
    assert_eq!(listed(&["Stable"], &[], 5)?, stable);
    assert_eq!(
        listed(&["stable", "Empty"], &["Classic"], 5)?,
        stable,
        "in any case"
    );
    assert_eq!(listed(&["Empty"], &[], 5)?, None);
    assert_eq!(listed(&[], &["consumer"], 5)?, None);
    ensure!(listed(&[], &[], 0)?.is_some());
    assert_eq!(
        listed(&["Stable"], &[], 4)?.map(|(state, _)| state).as_deref(),
        Some("Stable")
    );
    let leave = LeaveGroupRequest {
        group_id: group.id.as_str().into(),
        member_id: member.id().into(),
        ..Default::default()
    };
    assert_eq!(
        error(member.connection.ask(&leave, 2)?.error_code),
        ErrorCode::None
    );
    assert_eq!(
        listed(&["Empty"], &[], 5)?,
        Some(("Empty".to_owned(), "classic".to_owned()))
    );
    Ok(())
}

/// Ours only: the coordinator is killed.
#[test]
fn check_44_a_coordinator_that_moves_has_every_position_or_says_that_it_loads() -> Result<()> {
    let Some((_folder, mut cluster)) = own_cluster(3, crate::support::SETTINGS)? else {
        return Ok(());
    };
    let mut kafka = cluster.kafka();
    let (topic, group) = (unique("moves"), unique("moves"));
    kafka.create_topic(&topic, 1, &[])?;
    await_topic(&mut kafka, &topic, 3)?;
    wait::until_true("the group is served", SOON, || {
        Ok(kafka.commit(&group, &topic, &[(0, 42)]).is_ok())
    })?;
    for round in 0..2 {
        // A coordinator without copies could not move.
        wait::until_true("every copy is in sync", 60, || {
            let partitions = kafka.partitions("__consumer_offsets")?;
            Ok(partitions.iter().all(|p| p.isr_nodes.len() == 3))
        })?;
        let old = kafka.coordinator(&group)?;
        let daemon = cluster.daemons.iter_mut().find(|daemon| daemon.kafka == old);
        daemon.context("the coordinator")?.kill();
        let mut asked = 0;
        wait::until_true("another coordinator has the position", 60, || {
            asked += 1;
            let mut kafka = cluster.kafka();
            let at = kafka.coordinator(&group)?;
            let answer = kafka.at(at, &position_request(&group, &topic, 0), 5)?;
            let code = error(answer.error_code);
            if code != ErrorCode::None {
                let expected = [
                    ErrorCode::CoordinatorLoadInProgress,
                    ErrorCode::NotCoordinator,
                    ErrorCode::CoordinatorNotAvailable,
                ];
                assert!(expected.contains(&code), "{code:?}");
                return Ok(false);
            }
            let found = &answer.topics[0].partitions[0];
            assert_eq!(
                (found.committed_offset, error(found.error_code)),
                (42, ErrorCode::None),
                "{round}: {asked}"
            );
            Ok(true)
        })?;
        cluster.start_all()?;
        kafka = cluster.kafka();
    }
    Ok(())
}
