//! ConsumerGroupDescribe: groups of the consumer protocol, their members, what these hold and shall hold (KIP-848).

use tradewind_wire::codec::Str;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::TopicId;
use tradewind_wire::messages::consumer_group_describe::{
    Assignment, DescribedGroup, Member, TopicPartitions,
};
use tradewind_wire::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;
use crate::groups::{ConsumerGroup, GroupError, Topics};

/// The numbers that say that a member speaks the classic protocol, or the consumer protocol (KIP-1099).
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let operations = super::group_operations(request.include_authorized_operations);
    let groups = request.group_ids.into_iter().map(|group_id| DescribedGroup {
        authorized_operations: operations,
        ..one(broker, group_id)
    });
    ConsumerGroupDescribeResponse {
        groups: groups.collect(),
        ..Default::default()
    }
}

fn one(broker: &Broker, group_id: Str) -> DescribedGroup {
    let failed = |error: ErrorCode, message: String| DescribedGroup {
        error_code: error.code(),
        error_message: Some(message.into()),
        group_id: group_id.clone(),
        ..Default::default()
    };
    if group_id.is_empty() {
        return failed(ErrorCode::InvalidGroupId, "The group id is empty.".to_owned());
    }
    let described = broker
        .coordinator()
        .consumer(&group_id, |group, topics| describe(&group_id, group, topics));
    match described {
        Ok(Some(described)) => described,
        Ok(None) => failed(
            errors::of_group(GroupError::GroupNotFound),
            format!("There is no group {group_id} of the consumer protocol."),
        ),
        Err(error) => failed(errors::of_group(error), error.to_string()),
    }
}

fn describe(group_id: &Str, group: &ConsumerGroup, topics: &dyn Topics) -> DescribedGroup {
    let members = group.members().map(|(id, member)| {
        let current = group.current(id);
        let held = current.assigned.iter();
        let held = held.map(|(topic, all)| (*topic, all.keys().copied().collect()));
        let target = group.target(id).into_iter();
        let target = target.map(|(topic, all)| (topic, all.into_iter().collect()));
        Member {
            member_id: id.into(),
            instance_id: member.instance_id.as_deref().map(Into::into),
            rack_id: member.rack_id.as_deref().map(Into::into),
            member_epoch: current.epoch,
            client_id: member.client_id.as_str().into(),
            client_host: member.client_host.as_str().into(),
            subscribed_topic_names: member.topics.iter().map(|name| name.as_str().into()).collect(),
            subscribed_topic_regex: member.effective_regex().map(Into::into),
            assignment: assignment(held, topics),
            target_assignment: assignment(target, topics),
            member_type: match member.classic {
                Some(_) => CLASSIC_MEMBER,
                None => CONSUMER_MEMBER,
            },
        }
    });
    DescribedGroup {
        group_id: group_id.clone(),
        group_state: group.state().name().into(),
        group_epoch: group.epoch(),
        assignment_epoch: group.target_epoch(),
        assignor_name: group.assignor().name().into(),
        members: members.collect(),
        ..Default::default()
    }
}

/// Partitions of topics that are no more are left out: there is no name for them.
fn assignment(partitions: impl Iterator<Item = (TopicId, Vec<i32>)>, topics: &dyn Topics) -> Assignment {
    let named = partitions.filter_map(|(topic_id, partitions)| {
        Some(TopicPartitions {
            topic_id,
            topic_name: topics.name(topic_id)?.into(),
            partitions,
        })
    });
    Assignment {
        topic_partitions: named.collect(),
    }
}
