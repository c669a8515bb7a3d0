//! DescribeGroups: state and members of groups that this daemon coordinates.

use tradewind_wire::codec::Str;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::describe_groups::{DescribedGroup, DescribedGroupMember};
use tradewind_wire::messages::{DescribeGroupsRequest, DescribeGroupsResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;
use crate::groups::{Description, GroupState};

pub(crate) async fn handle(
    broker: &Broker,
    call: Call<'_>,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let operations = super::group_operations(request.include_authorized_operations);
    let groups = request
        .groups
        .into_iter()
        .map(|group| DescribedGroup {
            authorized_operations: operations,
            ..describe(broker, call.version, group)
        })
        .collect();
    DescribeGroupsResponse {
        groups,
        ..Default::default()
    }
}

fn describe(broker: &Broker, version: i16, group_id: Str) -> DescribedGroup {
    match broker.coordinator().describe(&group_id) {
        Ok(Some(description)) => respond(group_id, description),
        // Up to version 5 a group that does not exist is one that is dead.
        Ok(None) => DescribedGroup {
            error_code: if version >= 6 {
                ErrorCode::GroupIdNotFound
            } else {
                ErrorCode::None
            }
            .code(),
            error_message: (version >= 6).then(|| format!("Group {group_id} not found.").into()),
            group_id,
            group_state: GroupState::Dead.name().into(),
            ..Default::default()
        },
        Err(error) => DescribedGroup {
            error_code: errors::of_group(error).code(),
            group_id,
            ..Default::default()
        },
    }
}

fn respond(group_id: Str, description: Description) -> DescribedGroup {
    DescribedGroup {
        group_id,
        group_state: description.state.name().into(),
        protocol_type: description.protocol_type.into(),
        protocol_data: description.protocol.into(),
        members: description
            .members
            .into_iter()
            .map(|member| DescribedGroupMember {
                member_id: member.member_id.into(),
                group_instance_id: member.instance_id.map(Into::into),
                client_id: member.client_id.into(),
                client_host: member.client_host.into(),
                member_metadata: member.metadata,
                member_assignment: member.assignment,
            })
            .collect(),
        ..Default::default()
    }
}
