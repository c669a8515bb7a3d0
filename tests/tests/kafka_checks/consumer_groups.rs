//! Check 44a: groups of the consumer protocol (KIP-848), whose assignments the coordinator makes.

use anyhow::{Context, Result, ensure};
use tradewind_tests::kafka::Connection;
use tradewind_tests::wait;
use tradewind_wire::codec::Str;
use tradewind_wire::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicPartition, Versioned,
};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::TopicId;
use tradewind_wire::messages::consumer_group_describe::DescribedGroup;
use tradewind_wire::messages::consumer_group_heartbeat::TopicPartitions;
use tradewind_wire::messages::join_group::JoinGroupRequestProtocol;
use tradewind_wire::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use tradewind_wire::messages::sync_group::SyncGroupRequestAssignment;
use tradewind_wire::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    DescribeGroupsRequest, ListGroupsRequest, OffsetFetchRequest,
};

use crate::expiry::positions;
use crate::member::{self, Group, commit_request, committed};
use crate::support::{SOON, Topic, await_topic, create, error, kafka, replication, unique};

/// A member that heartbeats when it is told to.
struct Member {
    connection: Connection,
    /// What it sends next; of what has not changed, nothing is sent again.
    request: ConsumerGroupHeartbeatRequest,
    /// What it was given last: topics and their partitions.
    assigned: Vec<(TopicId, i32)>,
}

impl Member {
    /// A member that wants these topics and has not joined yet; it makes up its own id (KIP-1082).
    fn new(group: &Group, topics: &[&str]) -> Result<Self> {
        Ok(Self {
            connection: group.connect()?,
            request: ConsumerGroupHeartbeatRequest {
                group_id: group.id.as_str().into(),
                member_id: unique("member").into(),
                member_epoch: 0,
                rebalance_timeout_ms: 30_000,
                subscribed_topic_names: Some(topics.iter().map(|topic| (*topic).into()).collect()),
                topic_partitions: Some(Vec::new()),
                ..Default::default()
            },
            assigned: Vec::new(),
        })
    }

    /// One heartbeat, whatever comes of it.
    fn ask(&mut self) -> Result<ConsumerGroupHeartbeatResponse> {
        self.connection.ask(&self.request, 1)
    }

    fn verdict(&mut self) -> Result<ErrorCode> {
        Ok(error(self.ask()?.error_code))
    }

    /// A heartbeat that must work. What it is given it takes at once, and says so in the next one.
    fn beat(&mut self) -> Result<ConsumerGroupHeartbeatResponse> {
        let answer = self.ask()?;
        let code = error(answer.error_code);
        ensure!(code == ErrorCode::None, "{code:?}: {:?}", answer.error_message);
        self.request.member_epoch = answer.member_epoch;
        self.request.subscribed_topic_names = None;
        self.request.subscribed_topic_regex = None;
        self.request.server_assignor = None;
        self.request.topic_partitions = None;
        if let Some(assignment) = &answer.assignment {
            self.assigned = assignment
                .topic_partitions
                .iter()
                .flat_map(|topic| {
                    topic
                        .partitions
                        .iter()
                        .map(|partition| (topic.topic_id, *partition))
                })
                .collect();
            self.assigned
                .sort_unstable_by_key(|(topic, partition)| (topic.0, *partition));
            let owned = assignment.topic_partitions.iter().map(|topic| TopicPartitions {
                topic_id: topic.topic_id,
                partitions: topic.partitions.clone(),
            });
            self.request.topic_partitions = Some(owned.collect());
        }
        Ok(answer)
    }

    /// Heartbeats until this many partitions are its own.
    fn await_partitions(&mut self, count: usize) -> Result<()> {
        wait::until_true(&format!("{count} partitions"), SOON, || {
            self.beat()?;
            ensure!(self.assigned.len() == count, "it has {:?}", self.assigned);
            Ok(true)
        })
    }

    fn id(&self) -> &str {
        &self.request.member_id
    }
}

fn describe(group: &Group) -> Result<DescribedGroup> {
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![group.id.as_str().into()],
        ..Default::default()
    };
    let response = group.connect()?.ask(&request, 1)?;
    response.groups.into_iter().next().context("the group")
}

#[test]
fn check_44a_a_member_joins_and_is_given_everything() -> Result<()> {
    let topic = Topic::with_partitions("c-join", 3, &[])?;
    let group = Group::new("c-join")?;
    let mut member = Member::new(&group, &[&topic.name])?;
    let joined = member.beat()?;
    ensure!(joined.member_epoch > 0);
    assert_eq!(joined.member_id.as_deref(), Some(member.id()));
    assert_eq!(joined.heartbeat_interval_ms, 5_000);
    member.await_partitions(3)?;
    assert_eq!(member.assigned, [(topic.id, 0), (topic.id, 1), (topic.id, 2)]);
    // What has not changed is not told again.
    member.beat()?;
    assert_eq!(member.beat()?.assignment, None);

    let told = describe(&group)?;
    assert_eq!(
        (error(told.error_code), &*told.group_state),
        (ErrorCode::None, "Stable")
    );
    assert_eq!(told.assignor_name, "uniform");
    let one = told.members.first().context("the member")?;
    assert_eq!(&*one.member_id, member.id());
    assert_eq!(one.member_epoch, member.request.member_epoch);
    assert_eq!(one.subscribed_topic_names, [Str::from(topic.name.as_str())]);
    assert_eq!(one.assignment.topic_partitions[0].partitions.len(), 3);
    assert_eq!(one.assignment.topic_partitions[0].topic_name, topic.name);
    assert_eq!(one.assignment, one.target_assignment);
    assert_eq!((&*one.client_id, &*one.client_host), ("suites", "/127.0.0.1"));
    Ok(())
}

#[test]
fn check_44a_ids_are_the_brokers_in_version_0_and_the_clients_in_version_1() -> Result<()> {
    let topic = Topic::new("c-ids", &[])?;
    let group = Group::new("c-ids")?;
    let mut member = Member::new(&group, &[&topic.name])?;
    member.request.member_id = "".into();
    let answer = member.connection.ask(&member.request, 0)?;
    assert_eq!(error(answer.error_code), ErrorCode::None);
    ensure!(!answer.member_id.unwrap_or_default().is_empty());
    assert_eq!(member.verdict()?, ErrorCode::InvalidRequest);
    Ok(())
}

#[test]
fn check_44a_requests_that_make_no_sense_are_invalid() -> Result<()> {
    let topic = Topic::new("c-invalid", &[])?;
    let group = Group::new("c-invalid")?;
    let invalid = |what: &str, change: &dyn Fn(&mut ConsumerGroupHeartbeatRequest)| -> Result<()> {
        let mut member = Member::new(&group, &[&topic.name])?;
        change(&mut member.request);
        assert_eq!(member.verdict()?, ErrorCode::InvalidRequest, "{what}");
        Ok(())
    };
    invalid("no group", &|request| request.group_id = "".into())?;
    invalid("no rebalance timeout", &|request| {
        request.rebalance_timeout_ms = -1
    })?;
    invalid("no topics", &|request| request.subscribed_topic_names = None)?;
    invalid("owned partitions null", &|request| {
        request.topic_partitions = None
    })?;
    invalid("an empty instance", &|request| {
        request.instance_id = Some("".into())
    })?;
    invalid("an empty rack", &|request| request.rack_id = Some("".into()))?;
    invalid("an epoch of -3", &|request| request.member_epoch = -3)?;
    invalid("a static leave without instance", &|request| {
        request.member_epoch = -2
    })?;
    Ok(())
}

#[test]
fn check_44a_partitions_are_given_up_before_they_are_given_on() -> Result<()> {
    let topic = Topic::with_partitions("c-revoke", 4, &[])?;
    let group = Group::new("c-revoke")?;
    let mut first = Member::new(&group, &[&topic.name])?;
    first.await_partitions(4)?;
    first.beat()?;
    let mut second = Member::new(&group, &[&topic.name])?;
    second.beat()?;
    // The first one still holds everything.
    for _ in 0..3 {
        second.beat()?;
        assert_eq!(second.assigned, []);
    }
    // Told to give up two, it does so with its next heartbeat, and not before may they be another's.
    wait::until_true("it is told", SOON, || {
        first.beat()?;
        Ok(first.assigned.len() == 2)
    })?;
    second.beat()?;
    assert_eq!(
        second.assigned,
        [],
        "the first has not yet said that it gave them up"
    );
    first.beat()?;
    second.await_partitions(2)?;
    let mut all = [first.assigned.clone(), second.assigned.clone()].concat();
    all.sort_unstable_by_key(|(_, partition)| *partition);
    assert_eq!(all, [(topic.id, 0), (topic.id, 1), (topic.id, 2), (topic.id, 3)]);
    second.beat()?;
    assert_eq!(first.request.member_epoch, second.request.member_epoch);

    // Who leaves is replaced at once.
    second.request.member_epoch = -1;
    let left = second.ask()?;
    assert_eq!((error(left.error_code), left.member_epoch), (ErrorCode::None, -1));
    first.await_partitions(4)
}

#[test]
fn check_44a_wrong_epochs_and_unknown_members_are_fenced() -> Result<()> {
    let topic = Topic::new("c-fenced", &[])?;
    let group = Group::new("c-fenced")?;
    // A group that is not there, for one who says that it is a member.
    let mut nobody = Member::new(&group, &[&topic.name])?;
    nobody.request.member_epoch = 5;
    assert_eq!(nobody.verdict()?, ErrorCode::GroupIdNotFound);

    let mut member = Member::new(&group, &[&topic.name])?;
    member.await_partitions(1)?;
    member.beat()?;
    assert_eq!(nobody.verdict()?, ErrorCode::UnknownMemberId);
    let epoch = member.request.member_epoch;
    for wrong in [epoch + 1, epoch + 100] {
        member.request.member_epoch = wrong;
        assert_eq!(member.verdict()?, ErrorCode::FencedMemberEpoch);
    }
    member.request.member_epoch = epoch;
    assert_eq!(member.verdict()?, ErrorCode::None);
    Ok(())
}

#[test]
fn check_44a_static_members_leave_for_a_while_and_for_good() -> Result<()> {
    let topic = Topic::with_partitions("c-static", 2, &[])?;
    let group = Group::new("c-static")?;
    let as_static = |group: &Group| -> Result<Member> {
        let mut member = Member::new(group, &[&topic.name])?;
        member.request.instance_id = Some("instance".into());
        Ok(member)
    };
    let mut old = as_static(&group)?;
    old.await_partitions(2)?;
    old.beat()?;
    let epoch = old.request.member_epoch;
    let mut new = as_static(&group)?;
    assert_eq!(
        new.verdict()?,
        ErrorCode::UnreleasedInstanceId,
        "while the old one is there"
    );
    old.request.member_epoch = -2;
    let left = old.ask()?;
    assert_eq!((error(left.error_code), left.member_epoch), (ErrorCode::None, -2));
    // The new one takes its place and what it had, without another epoch.
    new.beat()?;
    new.await_partitions(2)?;
    assert_eq!(new.request.member_epoch, epoch);
    old.request.member_epoch = epoch;
    assert_eq!(old.verdict()?, ErrorCode::FencedInstanceId);
    Ok(())
}

#[test]
fn check_44a_assignors_are_those_that_the_broker_has() -> Result<()> {
    let topic = Topic::with_partitions("c-assignor", 2, &[])?;
    let group = Group::new("c-assignor")?;
    let mut member = Member::new(&group, &[&topic.name])?;
    member.request.server_assignor = Some("nonsense".into());
    let refused = member.ask()?;
    assert_eq!(error(refused.error_code), ErrorCode::UnsupportedAssignor);
    ensure!(
        refused
            .error_message
            .is_some_and(|message| message.contains("range")),
        "it names those there are"
    );
    member.request.server_assignor = Some("range".into());
    member.await_partitions(2)?;
    assert_eq!(describe(&group)?.assignor_name, "range");
    Ok(())
}

#[test]
fn check_44a_a_pattern_finds_topics_that_come_later() -> Result<()> {
    let word = unique("c-regex");
    let group = Group::new("c-regex")?;
    let replicas = replication()?;
    create(&format!("{word}-1"), 1, replicas, &[])?;
    await_topic(&mut kafka(), &format!("{word}-1"), replicas.try_into()?)?;
    let mut member = Member::new(&group, &[])?;
    member.request.subscribed_topic_names = None;
    for bad in ["(", "[a-"] {
        member.request.subscribed_topic_regex = Some(bad.into());
        assert_eq!(member.verdict()?, ErrorCode::InvalidRegularExpression, "{bad}");
    }
    member.request.subscribed_topic_regex = Some(format!("{word}-[0-9]+").into());
    member.await_partitions(1)?;
    create(&format!("{word}-2"), 2, replicas, &[])?;
    create(&format!("{word}-other"), 2, replicas, &[])?;
    member.await_partitions(3)?;
    let told = describe(&group)?;
    assert_eq!(
        told.members[0].subscribed_topic_regex,
        Some(format!("{word}-[0-9]+").into())
    );
    Ok(())
}

#[test]
fn check_44a_a_topic_that_comes_or_grows_is_assigned() -> Result<()> {
    let name = unique("c-later");
    let group = Group::new("c-later")?;
    let mut member = Member::new(&group, &[&name])?;
    member.beat()?;
    assert_eq!(member.assigned, []);
    create(&name, 2, replication()?, &[])?;
    member.await_partitions(2)
}

#[test]
fn check_44a_a_commit_of_another_epoch_is_stale() -> Result<()> {
    let topic = Topic::new("c-commit", &[])?;
    let group = Group::new("c-commit")?;
    let mut member = Member::new(&group, &[&topic.name])?;
    member.await_partitions(1)?;
    member.beat()?;
    let epoch = member.request.member_epoch;
    let mut commit = commit_request(&group.id, &topic.name, 5);
    commit.member_id = member.id().into();
    let mut connection = group.connect()?;
    for (epoch, expect) in [
        (epoch, ErrorCode::None),
        (epoch - 1, ErrorCode::StaleMemberEpoch),
        (epoch + 1, ErrorCode::StaleMemberEpoch),
    ] {
        commit.generation_id_or_member_epoch = epoch;
        assert_eq!(committed(&mut connection, &commit, 9)?, expect, "epoch {epoch}");
    }
    commit.member_id = "nobody".into();
    commit.generation_id_or_member_epoch = epoch;
    assert_eq!(
        committed(&mut connection, &commit, 9)?,
        ErrorCode::UnknownMemberId
    );
    // From outside, as to any group that has members.
    commit.member_id = "".into();
    commit.generation_id_or_member_epoch = -1;
    assert_eq!(
        committed(&mut connection, &commit, 9)?,
        ErrorCode::UnknownMemberId
    );

    let fetch = |member: &str, epoch: i32| OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.id.as_str().into(),
            member_id: Some(member.into()),
            member_epoch: epoch,
            topics: Some(vec![OffsetFetchRequestTopics {
                name: topic.name.as_str().into(),
                partition_indexes: vec![0],
            }]),
        }],
        ..Default::default()
    };
    let found = connection.ask(&fetch(member.id(), epoch), 9)?;
    assert_eq!(found.groups[0].topics[0].partitions[0].committed_offset, 5);
    let stale = connection.ask(&fetch(member.id(), epoch + 1), 9)?;
    assert_eq!(error(stale.groups[0].error_code), ErrorCode::StaleMemberEpoch);
    let unknown = connection.ask(&fetch("nobody", epoch), 9)?;
    assert_eq!(error(unknown.groups[0].error_code), ErrorCode::UnknownMemberId);
    Ok(())
}

#[test]
fn check_44a_a_group_is_of_one_kind() -> Result<()> {
    let topic = Topic::new("c-kind", &[])?;
    let group = Group::new("c-kind")?;
    let mut member = Member::new(&group, &[&topic.name])?;
    member.await_partitions(1)?;
    let mut connection = group.connect()?;
    let list = ListGroupsRequest {
        types_filter: vec!["consumer".into()],
        ..Default::default()
    };
    // A coordinator that is still loading another partition of groups has no list yet; clients ask again.
    let listed = wait::until("a whole list", SOON, || {
        let listed = connection.ask(&list, 5)?;
        let whole = error(listed.error_code) != ErrorCode::CoordinatorLoadInProgress;
        Ok(whole.then_some(listed))
    })?;
    assert_eq!(error(listed.error_code), ErrorCode::None);
    let found = listed.groups.iter().find(|listed| *listed.group_id == *group.id);
    let found = found.context("it is listed")?;
    assert_eq!(
        (&*found.group_type, &*found.protocol_type),
        ("consumer", "consumer")
    );
    // The call for classic groups does not know it.
    let old = DescribeGroupsRequest {
        groups: vec![group.id.as_str().into()],
        ..Default::default()
    };
    let told = connection.ask(&old, 6)?;
    assert_eq!(error(told.groups[0].error_code), ErrorCode::GroupIdNotFound);
    // And that for consumer groups knows no classic one.
    let classic = Group::new("c-classic")?;
    let mut classic_member = classic.stable_member()?;
    assert_eq!(error(describe(&classic)?.error_code), ErrorCode::GroupIdNotFound);
    let mut stranger = Member::new(&classic, &[&topic.name])?;
    ensure!(
        stranger.verdict()? != ErrorCode::None,
        "its protocol is not that of consumers"
    );
    assert_eq!(classic_member.heartbeat()?, ErrorCode::None);
    Ok(())
}

/// A classic member of the protocol "consumer", which owns nothing when it joins.
fn classic_member(group: &Group, topic: &str) -> Result<member::Member> {
    let subscription = ConsumerProtocolSubscription {
        topics: vec![topic.into()],
        ..Default::default()
    };
    let mut classic = group.member()?;
    classic.join.protocol_type = "consumer".into();
    classic.join.protocols = vec![JoinGroupRequestProtocol {
        name: "range".into(),
        metadata: subscription.to_bytes(3)?,
    }];
    Ok(classic)
}

/// What a classic member is told to read.
fn synced(classic: &mut member::Member) -> Result<Vec<i32>> {
    let answer = classic.sync(&[])?;
    ensure!(answer.error_code == 0, "{:?}", error(answer.error_code));
    let assignment = ConsumerProtocolAssignment::from_bytes(answer.assignment)?;
    let topics = assignment.assigned_partitions.into_iter();
    Ok(topics.flat_map(|topic| topic.partitions).collect())
}

fn kind(group: &Group) -> Result<String> {
    let mut connection = group.connect()?;
    // While any of its groups are still loaded, the coordinator does not list the others.
    let listed = wait::until("groups are listed", SOON, || {
        let listed = connection.ask(&ListGroupsRequest::default(), 5)?;
        Ok((listed.error_code == 0).then_some(listed))
    })?;
    let found = listed
        .groups
        .into_iter()
        .find(|listed| *listed.group_id == *group.id);
    Ok(found.context("it is listed")?.group_type.to_string())
}

/// Members go over one by one, and back, without losing a position.
#[test]
fn check_44a_a_group_goes_over_to_the_consumer_protocol_and_back() -> Result<()> {
    let topic = Topic::with_partitions("c-migrates", 4, &[])?;
    let group = Group::new("c-migrates")?;
    let mut classic = classic_member(&group, &topic.name)?;
    classic.join()?;
    let all = ConsumerProtocolAssignment {
        assigned_partitions: vec![TopicPartition {
            topic: topic.name.as_str().into(),
            partitions: vec![0, 1, 2, 3],
        }],
        ..Default::default()
    };
    let mut request = classic.sync_request(&[]);
    request.assignments = vec![SyncGroupRequestAssignment {
        member_id: classic.id().into(),
        assignment: all.to_bytes(3)?,
    }];
    assert_eq!(
        error(classic.connection.ask(&request, 5)?.error_code),
        ErrorCode::None
    );
    assert_eq!(classic.commit(&topic.name, 5)?, ErrorCode::None);
    assert_eq!(kind(&group)?, "classic");

    let mut new = Member::new(&group, &[&topic.name])?;
    new.beat()?;
    assert_eq!(kind(&group)?, "consumer");
    wait::until_true("the classic member is asked to give up a half", SOON, || {
        new.beat()?;
        Ok(classic.heartbeat()? == ErrorCode::RebalanceInProgress)
    })?;
    // It gives up everything, as the protocol without steps has it, and joins again.
    classic.join()?;
    let mut half = synced(&mut classic)?;
    assert_eq!(half.len(), 2, "{half:?}");
    new.await_partitions(2)?;
    half.extend(new.assigned.iter().map(|(_, partition)| *partition));
    half.sort_unstable();
    assert_eq!(half, [0, 1, 2, 3]);
    assert_eq!(classic.heartbeat()?, ErrorCode::None);
    assert_eq!(classic.commit(&topic.name, 6)?, ErrorCode::None);

    // The last member of the new protocol goes: the group is a classic one again, which rebalances.
    new.request.member_epoch = -1;
    assert_eq!(new.verdict()?, ErrorCode::None);
    assert_eq!(kind(&group)?, "classic");
    wait::until_true("the classic member is asked to join", SOON, || {
        Ok(classic.heartbeat()? == ErrorCode::RebalanceInProgress)
    })?;
    let joined = classic.join()?;
    assert_eq!(
        joined.leader, classic.join.member_id,
        "it assigns by itself again"
    );
    assert_eq!(positions(&group, &[&topic.name])?, [6]);
    Ok(())
}
