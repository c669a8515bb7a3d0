//! Checks 37 to 39: classic groups from the first join to the last leave.

use anyhow::{Context, Result, ensure};
use tradewind_tests::wait;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::join_group::JoinGroupResponseMember;
use tradewind_wire::messages::leave_group::MemberIdentity;
use tradewind_wire::messages::{JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest};

use crate::member::{Group, Member, committed, coordinator_in, protocol};
use crate::support::{SOON, Topic, error, own_cluster, unique};

#[test]
fn check_37_a_new_member_is_told_its_id_first() -> Result<()> {
    for version in [4, 5, 9] {
        let mut member = Group::new("idrequired")?.member()?;
        let told = member.connection.ask(&member.join, version)?;
        assert_eq!(error(told.error_code), ErrorCode::MemberIdRequired);
        ensure!(!told.member_id.is_empty(), "no id");
        member.join.member_id = told.member_id.clone();
        let joined = member.connection.ask(&member.join, version)?;
        assert_eq!(error(joined.error_code), ErrorCode::None);
        assert_eq!(
            (joined.member_id, joined.generation_id),
            (told.member_id.clone(), 1)
        );
        assert_eq!(joined.leader, told.member_id);
    }
    // Older clients do not know the step, and static members do not need it.
    for version in [0, 3] {
        let mut member = Group::new("noid")?.member()?;
        let joined = member.connection.ask(&member.join, version)?;
        assert_eq!(
            (error(joined.error_code), joined.generation_id),
            (ErrorCode::None, 1)
        );
        ensure!(!joined.member_id.is_empty());
    }
    let mut member = Group::new("static")?.member()?;
    member.join.group_instance_id = Some("one".into());
    let joined = member.connection.ask(&member.join, 5)?;
    assert_eq!(error(joined.error_code), ErrorCode::None);
    Ok(())
}

#[test]
fn check_37_an_id_that_nobody_was_given_is_unknown() -> Result<()> {
    let group = Group::new("strangerid")?;
    let mut member = group.member()?;
    member.join.member_id = "made-up".into();
    assert_eq!(
        error(member.connection.ask(&member.join, 5)?.error_code),
        ErrorCode::UnknownMemberId
    );
    let _other = group.stable_member()?;
    assert_eq!(
        error(member.connection.ask(&member.join, 5)?.error_code),
        ErrorCode::UnknownMemberId
    );
    Ok(())
}

/// Whoever was told an id and does not come back holds up the others for its session timeout and no longer.
#[test]
fn check_37_a_pending_member_expires() -> Result<()> {
    let group = Group::new("pending")?;
    let mut first = group.stable_member()?;
    let mut pending = group.member()?;
    pending.join.session_timeout_ms = 1_000;
    let told = pending.connection.ask(&pending.join, 5)?;
    assert_eq!(error(told.error_code), ErrorCode::MemberIdRequired);
    // The leader joins again: the next generation waits for the pending member.
    let joined = first.join()?;
    assert_eq!(joined.generation_id, 2);
    assert_eq!(joined.members.len(), 1);
    pending.join.member_id = told.member_id;
    let late = pending.connection.ask(&pending.join, 5)?;
    assert_eq!(error(late.error_code), ErrorCode::UnknownMemberId);
    Ok(())
}

#[test]
fn check_37_protocols_must_fit_the_group() -> Result<()> {
    let group = Group::new("protocols")?;
    let _first = group.stable_member()?;
    let mut other = group.member()?;
    for (kind, name) in [("connect", "range"), ("checks", "roundrobin"), ("", "range")] {
        other.join.protocol_type = kind.into();
        other.join.protocols = vec![protocol(name, b"")];
        let answer = other.connection.ask(&other.join, 3)?;
        assert_eq!(
            error(answer.error_code),
            ErrorCode::InconsistentGroupProtocol,
            "{kind:?} {name:?}"
        );
    }
    // Neither can a first member come without any.
    let mut alone = Group::new("noprotocol")?.member()?;
    alone.join.protocols.clear();
    assert_eq!(
        error(alone.connection.ask(&alone.join, 3)?.error_code),
        ErrorCode::InconsistentGroupProtocol
    );
    Ok(())
}

#[test]
fn check_37_session_timeouts_have_bounds() -> Result<()> {
    let mut member = Group::new("bounds")?.member()?;
    for timeout in [0, -1, 10, 1_800_001, i32::MAX] {
        member.join.session_timeout_ms = timeout;
        let answer = member.connection.ask(&member.join, 5)?;
        assert_eq!(
            error(answer.error_code),
            ErrorCode::InvalidSessionTimeout,
            "{timeout}"
        );
    }
    Ok(())
}

#[test]
fn check_37_an_empty_group_id_is_invalid() -> Result<()> {
    let group = Group::new("empty")?;
    let mut member = group.member()?;
    member.join.group_id = "".into();
    assert_eq!(
        error(member.connection.ask(&member.join, 5)?.error_code),
        ErrorCode::InvalidGroupId
    );
    member.generation = 1;
    member.join.member_id = "x".into();
    assert_eq!(member.heartbeat()?, ErrorCode::InvalidGroupId);
    assert_eq!(error(member.sync(&[])?.error_code), ErrorCode::InvalidGroupId);
    Ok(())
}

/// The clusters are started with `group.max.size=8`.
#[test]
fn check_37_a_full_group_takes_nobody() -> Result<()> {
    let group = Group::new("full")?;
    let mut first = group.stable_member()?;
    let mut others = Vec::new();
    for _ in 0..7 {
        let mut member = group.member()?;
        let sent = member.send_join()?;
        others.push((member, sent));
    }
    await_rebalance(&mut first)?;
    first.join()?;
    for (member, sent) in &mut others {
        member.receive_join(*sent)?;
    }
    let mut ninth = group.member()?;
    for version in [3, 5] {
        let answer = ninth.connection.ask(&ninth.join, version)?;
        assert_eq!(error(answer.error_code), ErrorCode::GroupMaxSizeReached);
    }
    Ok(())
}

#[test]
fn check_37_any_kind_of_group_may_be() -> Result<()> {
    for kind in ["connect", "sr", "stream", "whatever"] {
        let mut member = Group::new(kind)?.member()?;
        member.join.protocol_type = kind.into();
        member.join.protocols = vec![protocol("v0", b"")];
        let joined = member.join()?;
        assert_eq!(joined.protocol_type.as_deref(), Some(kind));
        assert_eq!(joined.protocol_name.as_deref(), Some("v0"));
    }
    Ok(())
}

/// Two members of a group that are through with their first join together; the leader comes first.
fn pair(group: &Group) -> Result<(Member, Member, Vec<JoinGroupResponseMember>)> {
    let (mut a, mut b) = (group.stable_member()?, group.member()?);
    b.join.protocols = vec![protocol("range", b"b's metadata")];
    let b_sent = b.send_join()?;
    await_rebalance(&mut a)?;
    let a_sent = a.send_join()?;
    let a_joined = a.receive_join(a_sent)?;
    let b_joined = b.receive_join(b_sent)?;
    assert_eq!(a_joined.generation_id, b_joined.generation_id);
    assert_eq!(a_joined.leader, b_joined.leader);
    assert_eq!(a_joined.leader, a.join.member_id, "who was the leader stays it");
    ensure!(
        b_joined.members.is_empty(),
        "only the leader is told of the others"
    );
    Ok((a, b, a_joined.members))
}

/// Waits until this member's heartbeats say that it has to join again.
fn await_rebalance(member: &mut Member) -> Result<()> {
    wait::until_true("the rebalance begins", SOON, || {
        Ok(member.heartbeat()? == ErrorCode::RebalanceInProgress)
    })
}

#[test]
fn check_37_the_leader_is_given_everybodys_metadata() -> Result<()> {
    let group = Group::new("metadata")?;
    let (mut a, mut b, members) = pair(&group)?;
    let mut told: Vec<_> = members
        .iter()
        .map(|m| (m.member_id.to_string(), &m.metadata[..]))
        .collect();
    told.sort();
    let mut expected = vec![
        (a.id().to_owned(), b"metadata".as_slice()),
        (b.id().to_owned(), b"b's metadata".as_slice()),
    ];
    expected.sort();
    assert_eq!(told, expected);

    // The follower's wait ends when the leader has assigned.
    let waiting = b.connection.send(&b.sync_request(&[]), 5)?;
    let (a_id, b_id) = (a.id().to_owned(), b.id().to_owned());
    let synced = a.sync(&[(&a_id, b"for a"), (&b_id, b"for b")])?;
    assert_eq!(
        (error(synced.error_code), &synced.assignment[..]),
        (ErrorCode::None, b"for a".as_slice())
    );
    let synced = b.connection.receive::<SyncGroupRequest>(5, waiting)?;
    assert_eq!(
        (error(synced.error_code), &synced.assignment[..]),
        (ErrorCode::None, b"for b".as_slice())
    );
    assert_eq!(synced.protocol_type.as_deref(), Some("checks"));
    assert_eq!(synced.protocol_name.as_deref(), Some("range"));
    // Asked again, it is told again.
    assert_eq!(&b.sync(&[])?.assignment[..], b"for b");
    assert_eq!(
        (a.heartbeat()?, b.heartbeat()?),
        (ErrorCode::None, ErrorCode::None)
    );
    Ok(())
}

#[test]
fn check_37_the_protocol_is_one_that_all_know() -> Result<()> {
    let group = Group::new("common")?;
    let mut a = group.member()?;
    a.join.protocols = vec![protocol("mine", b"1"), protocol("ours", b"2")];
    assert_eq!(a.join()?.protocol_name.as_deref(), Some("mine"));
    a.sync_alone()?;
    let mut b = group.member()?;
    b.join.protocols = vec![protocol("theirs", b"3"), protocol("ours", b"4")];
    let b_sent = b.send_join()?;
    await_rebalance(&mut a)?;
    let joined = a.join()?;
    assert_eq!(joined.protocol_name.as_deref(), Some("ours"));
    let mut told: Vec<&[u8]> = joined.members.iter().map(|m| &m.metadata[..]).collect();
    told.sort();
    assert_eq!(told, [b"2", b"4"]);
    b.receive_join(b_sent)?;
    Ok(())
}

#[test]
fn check_38_wrong_generations_and_unknown_members_are_told_apart() -> Result<()> {
    let topic = Topic::new("generations", &[])?;
    let mut member = Group::new("generations")?.stable_member()?;
    let good = member.generation;
    assert_eq!(member.commit(&topic.name, 1)?, ErrorCode::None);
    for wrong in [good + 1, good - 1] {
        member.generation = wrong;
        assert_eq!(member.heartbeat()?, ErrorCode::IllegalGeneration);
        assert_eq!(error(member.sync(&[])?.error_code), ErrorCode::IllegalGeneration);
        assert_eq!(member.commit(&topic.name, 2)?, ErrorCode::IllegalGeneration);
    }
    member.generation = good;
    let id = std::mem::replace(&mut member.join.member_id, "somebody".into());
    assert_eq!(member.heartbeat()?, ErrorCode::UnknownMemberId);
    assert_eq!(error(member.sync(&[])?.error_code), ErrorCode::UnknownMemberId);
    assert_eq!(member.commit(&topic.name, 3)?, ErrorCode::UnknownMemberId);
    member.join.member_id = id;
    assert_eq!(member.heartbeat()?, ErrorCode::None);

    // A group that is not there has no members either.
    let mut nobody = Group::new("nobody")?.member()?;
    nobody.join.member_id = "somebody".into();
    nobody.generation = 1;
    assert_eq!(nobody.heartbeat()?, ErrorCode::UnknownMemberId);
    assert_eq!(error(nobody.sync(&[])?.error_code), ErrorCode::UnknownMemberId);
    Ok(())
}

#[test]
fn check_38_a_sync_must_name_the_groups_protocol() -> Result<()> {
    let mut member = Group::new("syncprotocol")?.member()?;
    member.join()?;
    for (kind, name) in [("connect", "range"), ("checks", "sticky")] {
        let mut request = member.sync_request(&[]);
        request.protocol_type = Some(kind.into());
        request.protocol_name = Some(name.into());
        let answer = member.connection.ask(&request, 5)?;
        assert_eq!(error(answer.error_code), ErrorCode::InconsistentGroupProtocol);
    }
    member.sync_alone()
}

#[test]
fn check_38_during_a_rebalance_members_are_sent_to_join() -> Result<()> {
    let topic = Topic::new("rebalance", &[])?;
    let group = Group::new("rebalance")?;
    let mut a = group.stable_member()?;
    let mut b = group.member()?;
    let b_sent = b.send_join()?;
    // Until all have joined: what was read may still be committed.
    await_rebalance(&mut a)?;
    assert_eq!(error(a.sync(&[])?.error_code), ErrorCode::RebalanceInProgress);
    assert_eq!(a.commit(&topic.name, 5)?, ErrorCode::None);
    let a_joined = a.join()?;
    b.receive_join(b_sent)?;
    assert_eq!(a_joined.generation_id, 2);
    // Until all are assigned: nothing is theirs yet.
    assert_eq!(a.commit(&topic.name, 6)?, ErrorCode::RebalanceInProgress);
    assert_eq!(b.commit(&topic.name, 6)?, ErrorCode::RebalanceInProgress);
    assert_eq!(a.heartbeat()?, ErrorCode::None, "who has joined need not again");
    let own = a.id().to_owned();
    assert_eq!(error(a.sync(&[(&own, b"all")])?.error_code), ErrorCode::None);
    assert_eq!(a.commit(&topic.name, 7)?, ErrorCode::None);
    // Nothing was assigned to the other one.
    let synced = b.sync(&[])?;
    assert_eq!(
        (error(synced.error_code), synced.assignment.len()),
        (ErrorCode::None, 0)
    );
    Ok(())
}

#[test]
fn check_38_a_join_waits_for_the_rebalance_timeout_and_no_longer() -> Result<()> {
    let group = Group::new("slow")?;
    let mut gone = group.member()?;
    gone.join.rebalance_timeout_ms = 1_000;
    gone.join()?;
    gone.sync_alone()?;
    let mut b = group.member()?;
    b.join.rebalance_timeout_ms = 1_000;
    // The first one never joins again.
    let joined = b.join()?;
    assert_eq!((joined.generation_id, joined.members.len()), (2, 1));
    assert_eq!(joined.leader, b.join.member_id);
    assert_eq!(gone.heartbeat()?, ErrorCode::UnknownMemberId);
    Ok(())
}

#[test]
fn check_38_a_member_without_heartbeats_is_removed_after_its_session() -> Result<()> {
    let group = Group::new("session")?;
    let mut silent = group.member()?;
    silent.join.session_timeout_ms = 3_000;
    silent.join()?;
    silent.sync_alone()?;
    let mut b = group.member()?;
    let joined = b.join()?;
    assert_eq!(
        joined.members.len(),
        1,
        "the silent one was waited for until its session ended"
    );
    assert_eq!(silent.heartbeat()?, ErrorCode::UnknownMemberId);
    Ok(())
}

fn static_member(group: &Group, instance: &str) -> Result<Member> {
    let mut member = group.member()?;
    member.join.group_instance_id = Some(instance.into());
    Ok(member)
}

/// KIP-345.
#[test]
fn check_39_a_static_member_comes_back_without_a_rebalance_under_a_new_id() -> Result<()> {
    let group = Group::new("static")?;
    let mut leader = static_member(&group, "leader")?;
    leader.join()?;
    leader.sync_alone()?;
    let mut old = static_member(&group, "other")?;
    let sent = old.send_join()?;
    await_rebalance(&mut leader)?;
    leader.join()?;
    old.receive_join(sent)?;
    let (a, b) = (leader.id().to_owned(), old.id().to_owned());
    let waiting = old.connection.send(&old.sync_request(&[]), 5)?;
    leader.sync(&[(&a, b"for leader"), (&b, b"for other")])?;
    old.connection.receive::<SyncGroupRequest>(5, waiting)?;

    // The same instance on another connection, as after a restart; the old one did not leave.
    let mut new = static_member(&group, "other")?;
    let joined = new.join()?;
    assert_eq!(joined.generation_id, old.generation, "a new generation");
    ensure!(new.id() != old.id(), "the id of the one before");
    assert_eq!(
        &new.sync(&[])?.assignment[..],
        b"for other",
        "its assignment is kept"
    );
    assert_eq!(leader.heartbeat()?, ErrorCode::None, "nobody else notices");

    let topic = Topic::new("fenced", &[])?;
    assert_eq!(old.heartbeat()?, ErrorCode::FencedInstanceId);
    assert_eq!(error(old.sync(&[])?.error_code), ErrorCode::FencedInstanceId);
    assert_eq!(old.commit(&topic.name, 1)?, ErrorCode::FencedInstanceId);
    assert_eq!(
        error(old.connection.ask(&old.join, 9)?.error_code),
        ErrorCode::FencedInstanceId
    );
    assert_eq!(new.commit(&topic.name, 1)?, ErrorCode::None);
    Ok(())
}

/// KIP-814: the leader comes back as leader, is given the members, and does not assign anew.
#[test]
fn check_39_a_static_leader_comes_back_and_skips_the_assignment() -> Result<()> {
    let group = Group::new("staticleader")?;
    let mut old = static_member(&group, "only")?;
    let first = old.join()?;
    ensure!(!first.skip_assignment);
    old.sync_alone()?;
    let mut new = static_member(&group, "only")?;
    let joined = new.join()?;
    assert_eq!(joined.generation_id, old.generation);
    ensure!(joined.skip_assignment, "it is to assign");
    assert_eq!(joined.leader, new.join.member_id);
    assert_eq!(joined.members.len(), 1);
    assert_eq!(&new.sync(&[])?.assignment[..], b"assignment");
    Ok(())
}

/// Changed metadata alone does not: a client that finds that it wants other topics joins once more, under its id.
#[test]
fn check_39_a_static_member_that_brings_other_protocols_begins_a_rebalance() -> Result<()> {
    let group = Group::new("changed")?;
    let mut old = static_member(&group, "only")?;
    old.join()?;
    old.sync_alone()?;
    let mut new = static_member(&group, "only")?;
    new.join.protocols = vec![protocol("range", b"other topics")];
    assert_eq!(new.join()?.generation_id, old.generation, "other metadata");
    assert_eq!(&new.sync(&[])?.assignment[..], b"assignment");
    new.join.protocols = vec![protocol("range", b"yet other topics")];
    let joined = new.join()?;
    assert_eq!(joined.generation_id, old.generation + 1, "under its id");
    assert_eq!(&joined.members[0].metadata[..], b"yet other topics");
    assert_eq!(joined.members[0].group_instance_id.as_deref(), Some("only"));
    new.sync_alone()?;

    let mut third = static_member(&group, "only")?;
    third.join.protocols = vec![protocol("sticky", b"other topics"), protocol("range", b"")];
    let joined = third.join()?;
    assert_eq!(joined.generation_id, new.generation + 1, "another protocol");
    assert_eq!(joined.protocol_name.as_deref(), Some("sticky"));
    assert_eq!(&joined.members[0].metadata[..], b"other topics");
    Ok(())
}

#[test]
fn check_39_leaving_names_each_members_fate() -> Result<()> {
    let group = Group::new("leave")?;
    let (mut a, b, _) = pair(&group)?;
    let of = |member_id: &str, instance: Option<&str>| MemberIdentity {
        member_id: member_id.into(),
        group_instance_id: instance.map(Into::into),
        reason: Some("test".into()),
    };
    let request = LeaveGroupRequest {
        group_id: group.id.as_str().into(),
        members: vec![
            of(b.id(), None),
            of("nobody", None),
            of("", Some("no such instance")),
        ],
        ..Default::default()
    };
    for version in [3, 5] {
        let response = a.connection.ask(&request, version)?;
        assert_eq!(error(response.error_code), ErrorCode::None);
        let codes: Vec<_> = response.members.iter().map(|m| error(m.error_code)).collect();
        let first = if version == 3 {
            ErrorCode::None
        } else {
            // It left a moment ago.
            ErrorCode::UnknownMemberId
        };
        assert_eq!(
            codes,
            [first, ErrorCode::UnknownMemberId, ErrorCode::UnknownMemberId]
        );
    }
    // Before version 3 there is one member and one code.
    let one = LeaveGroupRequest {
        group_id: group.id.as_str().into(),
        member_id: a.id().into(),
        ..Default::default()
    };
    assert_eq!(error(a.connection.ask(&one, 2)?.error_code), ErrorCode::None);
    assert_eq!(
        error(a.connection.ask(&one, 2)?.error_code),
        ErrorCode::UnknownMemberId
    );
    Ok(())
}

#[test]
fn check_39_a_static_member_is_removed_by_its_instance_id() -> Result<()> {
    let group = Group::new("removed")?;
    let mut member = static_member(&group, "only")?;
    member.join()?;
    member.sync_alone()?;
    let request = LeaveGroupRequest {
        group_id: group.id.as_str().into(),
        members: vec![MemberIdentity {
            group_instance_id: Some("only".into()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let response = member.connection.ask(&request, 4)?;
    assert_eq!(
        error(response.members.first().context("the member")?.error_code),
        ErrorCode::None
    );
    assert_eq!(member.heartbeat()?, ErrorCode::UnknownMemberId);
    Ok(())
}

#[test]
fn check_39_a_static_member_outlives_its_connection() -> Result<()> {
    let group = Group::new("closed")?;
    let mut member = static_member(&group, "only")?;
    member.join()?;
    member.sync_alone()?;
    member.connection = group.connect()?;
    assert_eq!(member.heartbeat()?, ErrorCode::None);
    let commit = member.commit_request("nowhere", 1);
    // Known by its id, whatever becomes of the commit.
    ensure!(committed(&mut member.connection, &commit, 8)? != ErrorCode::UnknownMemberId);
    let again = member.connection.ask(
        &JoinGroupRequest {
            ..member.join.clone()
        },
        9,
    )?;
    assert_eq!(error(again.error_code), ErrorCode::None);
    Ok(())
}

/// Ours only: the clusters that are judged have no such delay, so that the other checks are quick. The default is 3 s.
#[test]
fn check_38_a_new_group_waits_for_more_members_before_its_first_generation() -> Result<()> {
    let Some((_folder, cluster)) = own_cluster(1, "")? else {
        return Ok(());
    };
    let id = unique("delay");
    let coordinator = coordinator_in(&mut cluster.kafka(), &id)?;
    let group = Group { id, coordinator };
    let (mut first, mut second) = (group.member()?, group.member()?);
    // The second one comes before the first is answered, and both are in the first generation.
    let sent = [first.send_join()?, second.send_join()?];
    let joined = [first.receive_join(sent[0])?, second.receive_join(sent[1])?];
    let generations = [joined[0].generation_id, joined[1].generation_id];
    assert_eq!(generations, [1, 1]);
    assert_eq!(joined[0].members.len() + joined[1].members.len(), 2);
    Ok(())
}
