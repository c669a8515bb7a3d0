//! Membership of a consumer group: joining, sharing out, leaving. Kafka's classic protocol, eager.
//!
//! A join waits for the other members, so it has a connection of its own and the rebalance timeout as its deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use tradewind_wire::codec::{DecodeError, Str};
use tradewind_wire::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicPartition as WirePartitions, Versioned,
};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::join_group::{JoinGroupRequestProtocol, JoinGroupResponse};
use tradewind_wire::messages::leave_group::MemberIdentity;
use tradewind_wire::messages::sync_group::SyncGroupRequestAssignment;
use tradewind_wire::messages::{JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest};

use super::assignor::{Assignor, Member, TopicPartition};
use super::group::GroupConfig;
use crate::client::Client;
use crate::error::ClientError;
use crate::net::pool::Lane;

/// The protocol type of ordinary consumers.
const PROTOCOL_TYPE: Str = Str::from_static("consumer");

/// The version of the subscriptions and assignments written; every client reads it.
const SUBSCRIPTION_VERSION: i16 = 0;

/// How long beyond the rebalance timeout a join may take.
const GRACE: Duration = Duration::from_secs(5);

/// Tries to join before giving up; each is a whole round with the coordinator.
const MAX_JOINS: u32 = 20;

/// Why a member cannot take part any more.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MemberError {
    /// The coordinator refused for good.
    #[error("group {group}: {}", code.name())]
    Refused {
        /// The group.
        group: String,
        /// Why.
        code: ErrorCode,
    },
    /// The group does not come to rest.
    #[error("group {group}: no stable generation after {MAX_JOINS} tries")]
    Unstable {
        /// The group.
        group: String,
    },
    /// Members agreed on a strategy that was not offered.
    #[error("group {group}: the strategy `{strategy}` was chosen, which was not offered")]
    UnknownStrategy {
        /// The group.
        group: String,
        /// Its name.
        strategy: String,
    },
    /// Another member's or the leader's bytes cannot be read.
    #[error("group {group}: {source}")]
    Malformed {
        /// The group.
        group: String,
        /// What is wrong.
        source: DecodeError,
    },
    /// The coordinator cannot be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// What a member has become by joining.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) generation: i32,
    pub(super) partitions: Vec<TopicPartition>,
    /// For the leader: partition counts it has shared out, to notice when they change.
    pub(super) shared_out: Option<BTreeMap<String, i32>>,
}

/// Joins until a generation stands. `member_id` is the id of an earlier generation, or empty; it holds the newest one
/// also if this is dropped half-way, so that the next try does not leave a stranger behind.
pub(super) async fn join(
    client: &Client,
    lane: Lane,
    config: &GroupConfig,
    member_id: &mut String,
) -> Result<Membership, MemberError> {
    let group = &config.group;
    for _ in 0..MAX_JOINS {
        let joined = join_once(client, lane, config, member_id).await?;
        match ErrorCode::from_code(joined.error_code) {
            ErrorCode::None => {}
            // KIP-394: the first join only gives an id.
            ErrorCode::MemberIdRequired => {
                *member_id = joined.member_id.to_string();
                continue;
            }
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration => {
                member_id.clear();
                continue;
            }
            ErrorCode::RebalanceInProgress => continue,
            code => {
                return Err(MemberError::Refused {
                    group: group.clone(),
                    code,
                });
            }
        }
        *member_id = joined.member_id.to_string();
        let (assignments, shared_out) = if joined.leader == joined.member_id && !joined.skip_assignment {
            share_out(client, config, &joined).await?
        } else {
            (Vec::new(), None)
        };
        match sync(client, lane, config, &joined, assignments).await? {
            Ok(partitions) => {
                let generation = joined.generation_id;
                return Ok(Membership {
                    generation,
                    partitions,
                    shared_out,
                });
            }
            Err(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration) => member_id.clear(),
            Err(ErrorCode::RebalanceInProgress) => {}
            Err(code) => {
                return Err(MemberError::Refused {
                    group: group.clone(),
                    code,
                });
            }
        }
    }
    Err(MemberError::Unstable { group: group.clone() })
}

/// Leaves the group, so that its partitions are shared out at once. A static member stays until its session ends.
pub(super) async fn leave(
    client: &Client,
    lane: Lane,
    config: &GroupConfig,
    member_id: &str,
) -> Result<(), ClientError> {
    if member_id.is_empty() || config.instance_id.is_some() {
        return Ok(());
    }
    let build = |version: i16| {
        let mut request = LeaveGroupRequest {
            group_id: (&config.group).into(),
            ..Default::default()
        };
        if version >= 3 {
            request.members = vec![MemberIdentity {
                member_id: member_id.into(),
                ..Default::default()
            }];
        } else {
            request.member_id = member_id.into();
        }
        request
    };
    let limit = client.config().request_timeout;
    let answer = client
        .at_coordinator(&config.group, lane, limit, build, |answer| {
            ErrorCode::from_code(answer.error_code)
        })
        .await?;
    match ErrorCode::from_code(answer.error_code) {
        // Whoever is not known has left already.
        ErrorCode::None | ErrorCode::UnknownMemberId => Ok(()),
        code => Err(ClientError::broker(
            format!("leave group {}", config.group),
            code,
            None,
        )),
    }
}

async fn join_once(
    client: &Client,
    lane: Lane,
    config: &GroupConfig,
    member_id: &str,
) -> Result<JoinGroupResponse, MemberError> {
    let subscription = ConsumerProtocolSubscription {
        topics: config.topics.iter().map(Into::into).collect(),
        ..Default::default()
    };
    let metadata = subscription
        .to_bytes(SUBSCRIPTION_VERSION)
        .map_err(ClientError::from)?;
    let build = |version: i16| JoinGroupRequest {
        group_id: (&config.group).into(),
        session_timeout_ms: millis(config.session_timeout),
        rebalance_timeout_ms: millis(config.rebalance_timeout),
        member_id: member_id.into(),
        group_instance_id: config
            .instance_id
            .as_ref()
            .filter(|_| version >= 5)
            .map(Into::into),
        protocol_type: PROTOCOL_TYPE,
        protocols: config
            .assignors
            .iter()
            .map(|assignor| JoinGroupRequestProtocol {
                name: Str::from_static(assignor.name()),
                metadata: metadata.clone(),
            })
            .collect(),
        reason: None,
    };
    let limit = config.rebalance_timeout + GRACE;
    let code = |answer: &JoinGroupResponse| ErrorCode::from_code(answer.error_code);
    Ok(client
        .at_coordinator(&config.group, lane, limit, build, code)
        .await?)
}

/// The leader's work: who reads what.
async fn share_out(
    client: &Client,
    config: &GroupConfig,
    joined: &JoinGroupResponse,
) -> Result<(Vec<SyncGroupRequestAssignment>, Option<BTreeMap<String, i32>>), MemberError> {
    let group = &config.group;
    let malformed = |source| MemberError::Malformed {
        group: group.clone(),
        source,
    };
    let mut members = Vec::with_capacity(joined.members.len());
    for member in &joined.members {
        let subscription =
            ConsumerProtocolSubscription::from_bytes(member.metadata.clone()).map_err(malformed)?;
        members.push(Member {
            id: member.member_id.to_string(),
            instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
            topics: subscription.topics.iter().map(ToString::to_string).collect(),
        });
    }
    let strategy = joined.protocol_name.as_deref().unwrap_or_default();
    let assignor = config
        .assignors
        .iter()
        .find(|assignor| assignor.name() == strategy);
    let assignor: &Assignor = assignor.ok_or_else(|| MemberError::UnknownStrategy {
        group: group.clone(),
        strategy: strategy.to_owned(),
    })?;
    let topics: BTreeSet<&str> = members
        .iter()
        .flat_map(|member| &member.topics)
        .map(String::as_str)
        .collect();
    let counts = partition_counts(client, &topics).await?;
    let shares = assignor.assign(&members, &counts);
    let mut assignments = Vec::with_capacity(shares.len());
    for (member, partitions) in shares {
        let assignment = encode_assignment(&partitions).map_err(ClientError::from)?;
        assignments.push(SyncGroupRequestAssignment {
            member_id: member.into(),
            assignment,
        });
    }
    Ok((assignments, Some(counts)))
}

/// How many partitions each of the topics has now; missing topics are left out.
pub(super) async fn partition_counts(
    client: &Client,
    topics: &BTreeSet<&str>,
) -> Result<BTreeMap<String, i32>, ClientError> {
    let names: Vec<&str> = topics.iter().copied().collect();
    let metadata = client.retrying(|| client.metadata(&names)).await?;
    let count = |name: &&str| {
        let topic = metadata.topics.get(*name).filter(|topic| topic.error.is_none())?;
        Some(((*name).to_owned(), i32::try_from(topic.partitions.len()).ok()?))
    };
    Ok(names.iter().filter_map(count).collect())
}

async fn sync(
    client: &Client,
    lane: Lane,
    config: &GroupConfig,
    joined: &JoinGroupResponse,
    assignments: Vec<SyncGroupRequestAssignment>,
) -> Result<Result<Vec<TopicPartition>, ErrorCode>, MemberError> {
    let build = |version: i16| SyncGroupRequest {
        group_id: (&config.group).into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: config
            .instance_id
            .as_ref()
            .filter(|_| version >= 3)
            .map(Into::into),
        protocol_type: Some(PROTOCOL_TYPE),
        protocol_name: joined.protocol_name.clone(),
        assignments: assignments.clone(),
    };
    let limit = config.rebalance_timeout + GRACE;
    let answer = client
        .at_coordinator(&config.group, lane, limit, build, |answer| {
            ErrorCode::from_code(answer.error_code)
        })
        .await?;
    match ErrorCode::from_code(answer.error_code) {
        ErrorCode::None => {
            let malformed = |source| MemberError::Malformed {
                group: config.group.clone(),
                source,
            };
            Ok(Ok(decode_assignment(answer.assignment).map_err(malformed)?))
        }
        code => Ok(Err(code)),
    }
}

fn encode_assignment(partitions: &[TopicPartition]) -> Result<Bytes, tradewind_wire::codec::EncodeError> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    let topic = |(topic, partitions): (&str, _)| WirePartitions {
        topic: topic.into(),
        partitions,
    };
    let assignment = ConsumerProtocolAssignment {
        assigned_partitions: topics.into_iter().map(topic).collect(),
        user_data: None,
    };
    assignment.to_bytes(SUBSCRIPTION_VERSION)
}

/// The partitions of an assignment; none for a member that the leader left out.
fn decode_assignment(bytes: Bytes) -> Result<Vec<TopicPartition>, DecodeError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let assignment = ConsumerProtocolAssignment::from_bytes(bytes)?;
    let mut partitions = Vec::new();
    for topic in assignment.assigned_partitions {
        let name = topic.topic.to_string();
        partitions.extend(
            topic
                .partitions
                .into_iter()
                .map(|partition| (name.clone(), partition)),
        );
    }
    Ok(partitions)
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_round_trip() {
        let partitions = vec![("a".to_owned(), 0), ("a".to_owned(), 2), ("b".to_owned(), 1)];
        assert_eq!(
            decode_assignment(encode_assignment(&partitions).unwrap()),
            Ok(partitions)
        );
        assert_eq!(decode_assignment(Bytes::new()), Ok(vec![]));
        assert!(decode_assignment(Bytes::from_static(b"\0\0\x7f\xff\xff\xff\0\0")).is_err());
    }
}
