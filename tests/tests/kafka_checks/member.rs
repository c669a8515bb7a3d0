//! A member of a classic group, one request at a time: every field of a request is the test's to choose.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tradewind_tests::kafka::{Connection, Kafka};
use tradewind_tests::wait;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::join_group::JoinGroupRequestProtocol;
use tradewind_wire::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use tradewind_wire::messages::sync_group::SyncGroupRequestAssignment;
use tradewind_wire::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, OffsetCommitRequest, OffsetFetchRequest,
    SyncGroupRequest, SyncGroupResponse,
};

use crate::support::{SOON, error, kafka, unique};

/// A group of one test.
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) coordinator: SocketAddr,
}

impl Group {
    /// A name that no group has, once its coordinator serves it.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let id = unique(name);
        let coordinator = coordinator(&id)?;
        Ok(Self { id, coordinator })
    }

    /// A connection to the coordinator.
    pub(crate) fn connect(&self) -> Result<Connection> {
        Connection::open(self.coordinator)
    }

    /// A member that has not joined yet.
    pub(crate) fn member(&self) -> Result<Member> {
        Ok(Member {
            connection: self.connect()?,
            join: JoinGroupRequest {
                group_id: self.id.as_str().into(),
                session_timeout_ms: 30_000,
                rebalance_timeout_ms: 60_000,
                // Kafka reads the metadata of "consumer", and that has to be right then.
                protocol_type: "checks".into(),
                protocols: vec![protocol("range", b"metadata")],
                ..Default::default()
            },
            generation: -1,
        })
    }

    /// A member that is alone in its group, which is stable.
    pub(crate) fn stable_member(&self) -> Result<Member> {
        let mut member = self.member()?;
        member.join()?;
        member.sync_alone()?;
        Ok(member)
    }
}

/// Where a group is looked after, once it is.
pub(crate) fn coordinator(group: &str) -> Result<SocketAddr> {
    coordinator_in(&mut kafka(), group)
}

/// As [`coordinator`], in a test's own cluster.
pub(crate) fn coordinator_in(kafka: &mut Kafka, group: &str) -> Result<SocketAddr> {
    wait::until("the group has a coordinator that serves it", SOON, || {
        let at = kafka.coordinator(group)?;
        let request = OffsetFetchRequest {
            group_id: group.into(),
            topics: Some(Vec::new()),
            ..Default::default()
        };
        let answer = kafka.at(at, &request, 5)?;
        Ok((answer.error_code == 0).then_some(at))
    })
}

/// A protocol that a member knows.
pub(crate) fn protocol(name: &str, metadata: &'static [u8]) -> JoinGroupRequestProtocol {
    JoinGroupRequestProtocol {
        name: name.into(),
        metadata: Bytes::from_static(metadata),
    }
}

/// The highest version of JoinGroup.
const JOIN: i16 = 9;

/// One member, its connection and what it joins with.
pub(crate) struct Member {
    pub(crate) connection: Connection,
    /// With the member's id, once it has one.
    pub(crate) join: JoinGroupRequest,
    pub(crate) generation: i32,
}

impl Member {
    pub(crate) fn id(&self) -> &str {
        &self.join.member_id
    }

    /// Sends a join, in the first step under the id that it is told to take.
    pub(crate) fn send_join(&mut self) -> Result<i32> {
        if self.join.member_id.is_empty() && self.join.group_instance_id.is_none() {
            let told = self.connection.ask(&self.join, JOIN)?;
            assert_eq!(error(told.error_code), ErrorCode::MemberIdRequired);
            self.join.member_id = told.member_id;
        }
        self.connection.send(&self.join, JOIN)
    }

    /// Waits for the generation that a join leads to.
    pub(crate) fn receive_join(&mut self, sent: i32) -> Result<JoinGroupResponse> {
        let joined = self.connection.receive::<JoinGroupRequest>(JOIN, sent)?;
        ensure!(joined.error_code == 0, "joining: {:?}", error(joined.error_code));
        self.join.member_id = joined.member_id.clone();
        self.generation = joined.generation_id;
        Ok(joined)
    }

    /// Joins; nobody else is waited for.
    pub(crate) fn join(&mut self) -> Result<JoinGroupResponse> {
        let sent = self.send_join()?;
        self.receive_join(sent)
    }

    /// A SyncGroup of this member with these assignments.
    pub(crate) fn sync_request(&self, assignments: &[(&str, &'static [u8])]) -> SyncGroupRequest {
        let assignments = assignments
            .iter()
            .map(|(member, bytes)| SyncGroupRequestAssignment {
                member_id: (*member).into(),
                assignment: Bytes::from_static(bytes),
            });
        SyncGroupRequest {
            group_id: self.join.group_id.clone(),
            generation_id: self.generation,
            member_id: self.join.member_id.clone(),
            group_instance_id: self.join.group_instance_id.clone(),
            protocol_type: Some(self.join.protocol_type.clone()),
            protocol_name: self.join.protocols.first().map(|protocol| protocol.name.clone()),
            assignments: assignments.collect(),
        }
    }

    /// Hands out these assignments, or none; returns what the coordinator says.
    pub(crate) fn sync(&mut self, assignments: &[(&str, &'static [u8])]) -> Result<SyncGroupResponse> {
        let request = self.sync_request(assignments);
        self.connection.ask(&request, 5)
    }

    /// Gives itself an assignment, which must work.
    pub(crate) fn sync_alone(&mut self) -> Result<()> {
        let own = self.id().to_owned();
        let synced = self.sync(&[(&own, b"assignment")])?;
        assert_eq!(error(synced.error_code), ErrorCode::None);
        assert_eq!(&synced.assignment[..], b"assignment");
        Ok(())
    }

    /// A heartbeat as this member would send it now.
    pub(crate) fn heartbeat_request(&self) -> HeartbeatRequest {
        HeartbeatRequest {
            group_id: self.join.group_id.clone(),
            generation_id: self.generation,
            member_id: self.join.member_id.clone(),
            group_instance_id: self.join.group_instance_id.clone(),
        }
    }

    /// What a heartbeat is answered with.
    pub(crate) fn heartbeat(&mut self) -> Result<ErrorCode> {
        let request = self.heartbeat_request();
        Ok(error(self.connection.ask(&request, 4)?.error_code))
    }

    /// A commit of one position as this member would send it now.
    pub(crate) fn commit_request(&self, topic: &str, offset: i64) -> OffsetCommitRequest {
        OffsetCommitRequest {
            generation_id_or_member_epoch: self.generation,
            member_id: self.join.member_id.clone(),
            group_instance_id: self.join.group_instance_id.clone(),
            ..commit_request(&self.join.group_id, topic, offset)
        }
    }

    /// What a commit is answered with.
    pub(crate) fn commit(&mut self, topic: &str, offset: i64) -> Result<ErrorCode> {
        let request = self.commit_request(topic, offset);
        committed(&mut self.connection, &request, 8)
    }
}

/// A commit of one position from outside of the group.
pub(crate) fn commit_request(group: &str, topic: &str, offset: i64) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: group.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: offset,
                committed_metadata: Some("note".into()),
                ..Default::default()
            }],
        }],
        ..Default::default()
    }
}

/// What a commit of one position is answered with.
pub(crate) fn committed(
    connection: &mut Connection,
    request: &OffsetCommitRequest,
    version: i16,
) -> Result<ErrorCode> {
    let response = connection.ask(request, version)?;
    let partition = response.topics.first().and_then(|topic| topic.partitions.first());
    Ok(error(partition.context("the partition")?.error_code))
}
