//! ConsumerGroupHeartbeat: a member of a group of the consumer protocol joins, lives, or leaves (KIP-848).

use std::collections::BTreeSet;

use tradewind_wire::codec::Str;
use tradewind_wire::messages::consumer_group_heartbeat::{Assignment, TopicPartitions};
use tradewind_wire::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;
use crate::groups::{GroupError, Heartbeat, HeartbeatReply, Partitions, Refusal};

use super::owned;

pub(crate) async fn handle(
    broker: &Broker,
    call: Call<'_>,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let group_id = request.group_id.clone();
    if group_id.is_empty() {
        return refused(Refusal {
            error: GroupError::InvalidRequest,
            message: "GroupId can't be empty.".to_owned(),
        });
    }
    let mut member_id = request.member_id.to_string();
    // From version 1 on clients make their ids (KIP-1082).
    if call.version == 0 && request.member_epoch == 0 && member_id.is_empty() {
        let rng = broker.cluster().rng();
        member_id = format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64());
    }
    let names = |names: &Vec<Str>| {
        names
            .iter()
            .map(ToString::to_string)
            .collect::<BTreeSet<String>>()
    };
    let heartbeat = Heartbeat {
        member_id,
        epoch: request.member_epoch,
        instance_id: owned(request.instance_id.as_ref()),
        rack_id: owned(request.rack_id.as_ref()),
        rebalance_timeout_ms: Some(request.rebalance_timeout_ms).filter(|timeout| *timeout != -1),
        client_id: call.client_id.to_owned(),
        client_host: format!("/{}", call.connection.host),
        topics: request.subscribed_topic_names.as_ref().map(names),
        regex: owned(request.subscribed_topic_regex.as_ref()),
        assignor: owned(request.server_assignor.as_ref()),
        owned: request.topic_partitions.map(partitions),
    };
    match broker
        .coordinator()
        .consumer_heartbeat(&group_id, heartbeat)
        .await
    {
        Ok(reply) => respond(reply),
        Err(refusal) => refused(refusal),
    }
}

fn partitions(topics: Vec<TopicPartitions>) -> Partitions {
    let mut all = Partitions::new();
    for topic in topics {
        all.entry(topic.topic_id).or_default().extend(topic.partitions);
    }
    all
}

fn respond(reply: HeartbeatReply) -> ConsumerGroupHeartbeatResponse {
    let assignment = reply.assignment.map(|assignment| Assignment {
        topic_partitions: assignment
            .into_iter()
            .map(|(topic_id, partitions)| TopicPartitions {
                topic_id,
                partitions: partitions.into_iter().collect(),
            })
            .collect(),
    });
    ConsumerGroupHeartbeatResponse {
        member_id: Some(reply.member_id.into()),
        member_epoch: reply.epoch,
        heartbeat_interval_ms: reply.heartbeat_interval_ms,
        assignment,
        ..Default::default()
    }
}

fn refused(refusal: Refusal) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: errors::of_group(refusal.error).code(),
        error_message: Some(refusal.message.into()),
        ..Default::default()
    }
}
