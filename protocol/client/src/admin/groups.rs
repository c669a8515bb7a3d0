//! Groups: listing, describing and deleting them, their offsets and their members.

use std::collections::BTreeMap;

use bytes::Bytes;
use tradewind_wire::consumer_protocol::{ConsumerProtocolAssignment, Versioned};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::NodeId;
use tradewind_wire::messages::consumer_group_describe::{Assignment, Member, TopicPartitions};
use tradewind_wire::messages::describe_groups::{DescribedGroup, DescribedGroupMember};
use tradewind_wire::messages::leave_group::MemberIdentity;
use tradewind_wire::messages::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use tradewind_wire::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DeleteGroupsRequest, DescribeGroupsRequest,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, OffsetDeleteRequest, OffsetDeleteResponse,
};

use super::{Outcomes, refusal};
use crate::client::Client;
use crate::consumer::assignor::TopicPartition;
use crate::error::ClientError;
use crate::net::pool::Lane;

/// A group as ListGroups tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// The name.
    pub group: String,
    /// `consumer`, or whatever the members call it; empty for one that only keeps offsets.
    pub protocol_type: String,
    /// The state; empty from old brokers.
    pub state: String,
    /// `classic`, `consumer` or another type that the cluster has; empty from old brokers.
    pub kind: String,
}

/// Which protocol a group speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupKind {
    /// Members share out the partitions themselves.
    Classic,
    /// The coordinator does (KIP-848).
    Consumer,
}

impl GroupKind {
    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        }
    }
}

/// A group as its coordinator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// The name.
    pub group: String,
    /// Which protocol it speaks.
    pub kind: GroupKind,
    /// The state, by Kafka's name; `Dead` for a group that does not exist.
    pub state: String,
    /// `consumer`, or whatever classic members call it.
    pub protocol_type: String,
    /// Who shares the partitions out; empty while nobody does.
    pub assignor: String,
    /// The group's epoch; `None` for a classic one.
    pub epoch: Option<i32>,
    /// The broker that coordinates it.
    pub coordinator: NodeId,
    /// The members.
    pub members: Vec<GroupMember>,
}

/// Partitions by topic.
pub type Assigned = BTreeMap<String, Vec<i32>>;

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// The id.
    pub id: String,
    /// The name of a static member.
    pub instance: Option<String>,
    /// The client's id.
    pub client: String,
    /// The client's address.
    pub host: String,
    /// What it reads; empty if its assignment is not one of consumers.
    pub assignment: Assigned,
    /// What it shall read; `None` in a classic group.
    pub target: Option<Assigned>,
    /// Its epoch; `None` in a classic group.
    pub epoch: Option<i32>,
}

/// A member that shall leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberToRemove {
    /// The one with this id.
    Id(String),
    /// The static one of this name.
    Instance(String),
}

impl Client {
    /// The groups of all brokers. An error of one broker is an error of the whole, so that no group is missed unseen.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, ClientError> {
        self.retrying(|| async move {
            let metadata = self.metadata(&[]).await?;
            let mut groups = BTreeMap::new();
            for node in metadata.brokers.keys() {
                let answer = self.send(*node, ListGroupsRequest::default()).await?;
                refusal(format!("groups of broker {node}"), answer.error_code, None)?;
                for group in answer.groups {
                    let listing = GroupListing {
                        group: group.group_id.to_string(),
                        protocol_type: group.protocol_type.to_string(),
                        state: group.group_state.to_string(),
                        kind: group.group_type.to_string(),
                    };
                    groups.insert(listing.group.clone(), listing);
                }
            }
            Ok(groups.into_values().collect())
        })
        .await
    }

    /// Describes groups, each asked of its coordinator. A group that does not exist has the state `Dead`.
    pub async fn describe_groups(&self, groups: &[&str]) -> Result<Vec<DescribedGroup>, ClientError> {
        let limit = self.attempt_timeout();
        let mut described = Vec::with_capacity(groups.len());
        for group in groups {
            let build = |_| DescribeGroupsRequest {
                groups: vec![(*group).into()],
                ..Default::default()
            };
            let code = |answer: &tradewind_wire::messages::DescribeGroupsResponse| {
                let code = answer.groups.first().map_or(0, |group| group.error_code);
                ErrorCode::from_code(code)
            };
            let answer = self
                .at_coordinator(group, Lane::Short, limit, build, code)
                .await?;
            let what = format!("describe group {group}");
            let mut found = answer
                .groups
                .into_iter()
                .next()
                .ok_or_else(|| ClientError::Missing { what: what.clone() })?;
            if found.error_code == ErrorCode::GroupIdNotFound.code() {
                found.group_state = "Dead".into();
            } else {
                refusal(what, found.error_code, found.error_message.as_deref())?;
            }
            described.push(found);
        }
        Ok(described)
    }

    /// Deletes a group that has no members, with its offsets.
    pub async fn delete_group(&self, group: &str) -> Result<(), ClientError> {
        let limit = self.attempt_timeout();
        let build = |_| DeleteGroupsRequest {
            groups_names: vec![group.into()],
        };
        let code = |answer: &tradewind_wire::messages::DeleteGroupsResponse| {
            ErrorCode::from_code(answer.results.first().map_or(0, |result| result.error_code))
        };
        let answer = self
            .at_coordinator(group, Lane::Short, limit, build, code)
            .await?;
        refusal(format!("delete group {group}"), code(&answer).code(), None)
    }

    /// Describes one group of either protocol. A group that does not exist has the state `Dead`.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, ClientError> {
        match self.describe_consumer_group(group).await {
            Ok(Some(described)) => return Ok(described),
            // Not of that protocol, or a broker from before it.
            Ok(None) | Err(ClientError::Unsupported { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut described = self.describe_groups(&[group]).await?;
        let found = described.pop().ok_or_else(|| ClientError::Missing {
            what: format!("describe group {group}"),
        })?;
        let member = |member: DescribedGroupMember| GroupMember {
            id: member.member_id.to_string(),
            instance: member.group_instance_id.as_ref().map(ToString::to_string),
            client: member.client_id.to_string(),
            host: member.client_host.to_string(),
            assignment: classic_assignment(&found.protocol_type, member.member_assignment),
            target: None,
            epoch: None,
        };
        Ok(GroupDescription {
            group: group.to_owned(),
            kind: GroupKind::Classic,
            state: found.group_state.to_string(),
            protocol_type: found.protocol_type.to_string(),
            assignor: found.protocol_data.to_string(),
            epoch: None,
            coordinator: self.coordinator(group).await?,
            members: found.members.into_iter().map(member).collect(),
        })
    }

    /// Describes a group of the protocol of KIP-848; `None` if there is no such group of that protocol.
    async fn describe_consumer_group(&self, group: &str) -> Result<Option<GroupDescription>, ClientError> {
        let build = |_| ConsumerGroupDescribeRequest {
            group_ids: vec![group.into()],
            ..Default::default()
        };
        let code = |answer: &ConsumerGroupDescribeResponse| {
            ErrorCode::from_code(answer.groups.first().map_or(0, |group| group.error_code))
        };
        let limit = self.attempt_timeout();
        let answer = self
            .at_coordinator(group, Lane::Short, limit, build, code)
            .await?;
        let what = format!("describe group {group}");
        let found = answer.groups.into_iter().next();
        let found = found.ok_or_else(|| ClientError::Missing { what: what.clone() })?;
        match ErrorCode::from_code(found.error_code) {
            ErrorCode::GroupIdNotFound | ErrorCode::UnsupportedVersion => return Ok(None),
            _ => refusal(what, found.error_code, found.error_message.as_deref())?,
        }
        let member = |member: Member| GroupMember {
            id: member.member_id.to_string(),
            instance: member.instance_id.as_ref().map(ToString::to_string),
            client: member.client_id.to_string(),
            host: member.client_host.to_string(),
            assignment: assigned(&member.assignment),
            target: Some(assigned(&member.target_assignment)),
            epoch: Some(member.member_epoch),
        };
        Ok(Some(GroupDescription {
            group: group.to_owned(),
            kind: GroupKind::Consumer,
            state: found.group_state.to_string(),
            protocol_type: "consumer".to_owned(),
            assignor: found.assignor_name.to_string(),
            epoch: Some(found.group_epoch),
            coordinator: self.coordinator(group).await?,
            members: found.members.into_iter().map(member).collect(),
        }))
    }

    /// Removes what a group has committed for these partitions (KIP-496). A topic that its members subscribe to is
    /// refused with `GROUP_SUBSCRIBED_TO_TOPIC`.
    pub async fn delete_group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Outcomes, ClientError> {
        let build = |_| {
            let mut topics: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
            for (topic, partition_index) in partitions {
                let partition_index = *partition_index;
                topics
                    .entry(topic)
                    .or_default()
                    .push(OffsetDeleteRequestPartition { partition_index });
            }
            let topic = |(name, partitions): (&str, _)| OffsetDeleteRequestTopic {
                name: name.into(),
                partitions,
            };
            OffsetDeleteRequest {
                group_id: group.into(),
                topics: topics.into_iter().map(topic).collect(),
            }
        };
        let code = |answer: &OffsetDeleteResponse| ErrorCode::from_code(answer.error_code);
        let limit = self.attempt_timeout();
        let answer = self
            .at_coordinator(group, Lane::Short, limit, build, code)
            .await?;
        refusal(format!("offsets of {group}"), answer.error_code, None)?;
        let mut outcomes = Outcomes::new();
        for topic in answer.topics {
            for one in topic.partitions {
                let what = format!("offset of {}-{}", topic.name, one.partition_index);
                let outcome = refusal(what, one.error_code, None);
                outcomes.insert((topic.name.to_string(), one.partition_index), outcome);
            }
        }
        Ok(outcomes)
    }

    /// Makes members leave a group, for this reason. One result per member, in order.
    pub async fn remove_members(
        &self,
        group: &str,
        members: &[MemberToRemove],
        reason: &str,
    ) -> Result<Vec<Result<(), ClientError>>, ClientError> {
        let node = self.coordinator(group).await?;
        // Before version 3 only a member itself could leave.
        self.require::<LeaveGroupRequest>(node, 3).await?;
        let member = |member: &MemberToRemove| MemberIdentity {
            member_id: match member {
                MemberToRemove::Id(id) => id.into(),
                MemberToRemove::Instance(_) => "".into(),
            },
            group_instance_id: match member {
                MemberToRemove::Id(_) => None,
                MemberToRemove::Instance(name) => Some(name.into()),
            },
            reason: Some(reason.into()),
        };
        let build = |_| LeaveGroupRequest {
            group_id: group.into(),
            members: members.iter().map(member).collect(),
            ..Default::default()
        };
        let code = |answer: &LeaveGroupResponse| ErrorCode::from_code(answer.error_code);
        let limit = self.attempt_timeout();
        let answer = self
            .at_coordinator(group, Lane::Short, limit, build, code)
            .await?;
        refusal(format!("members of {group}"), answer.error_code, None)?;
        let outcome = |(index, asked): (usize, &MemberToRemove)| {
            let (MemberToRemove::Id(name) | MemberToRemove::Instance(name)) = asked;
            let what = format!("member {name}");
            match answer.members.get(index) {
                None => Err(ClientError::Missing { what }),
                Some(told) => refusal(what, told.error_code, None),
            }
        };
        Ok(members.iter().enumerate().map(outcome).collect())
    }
}

fn assigned(assignment: &Assignment) -> Assigned {
    let topic = |topic: &TopicPartitions| (topic.topic_name.to_string(), topic.partitions.clone());
    assignment.topic_partitions.iter().map(topic).collect()
}

/// What a classic member reads. Its assignment is opaque to brokers: only that of consumers can be read, and one that
/// cannot is shown as nothing rather than as an error.
fn classic_assignment(protocol_type: &str, bytes: Bytes) -> Assigned {
    if protocol_type != "consumer" || bytes.is_empty() {
        return Assigned::new();
    }
    let read = ConsumerProtocolAssignment::from_bytes(bytes).unwrap_or_default();
    let topics = read.assigned_partitions.into_iter();
    topics
        .map(|topic| (topic.topic.to_string(), topic.partitions))
        .collect()
}

#[cfg(test)]
mod tests {
    use tradewind_wire::consumer_protocol::TopicPartition as OfTopic;

    use super::*;

    #[test]
    fn only_the_assignment_of_a_consumer_is_read_and_a_broken_one_is_empty() {
        let assignment = ConsumerProtocolAssignment {
            assigned_partitions: vec![OfTopic {
                topic: "a".into(),
                partitions: vec![0, 2],
            }],
            user_data: None,
        };
        let bytes = assignment.to_bytes(1).unwrap();
        assert_eq!(
            classic_assignment("consumer", bytes.clone()),
            Assigned::from([("a".to_owned(), vec![0, 2])])
        );
        assert_eq!(classic_assignment("connect", bytes.clone()), Assigned::new());
        assert_eq!(classic_assignment("consumer", bytes.slice(..5)), Assigned::new());
    }
}
