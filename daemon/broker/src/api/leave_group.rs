//! LeaveGroup: members go, or are removed by an operator (several at once from version 3 on).

use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::leave_group::{MemberIdentity, MemberResponse};
use tradewind_wire::messages::{LeaveGroupRequest, LeaveGroupResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;

use super::owned;

pub(crate) async fn handle(
    broker: &Broker,
    call: Call<'_>,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let failed = |error: ErrorCode| LeaveGroupResponse {
        error_code: error.code(),
        ..Default::default()
    };
    if request.group_id.is_empty() {
        return failed(ErrorCode::InvalidGroupId);
    }
    let members = if call.version >= 3 {
        request.members
    } else {
        vec![MemberIdentity {
            member_id: request.member_id,
            ..Default::default()
        }]
    };
    let identities: Vec<(String, Option<String>)> = members
        .iter()
        .map(|member| {
            (
                member.member_id.to_string(),
                owned(member.group_instance_id.as_ref()),
            )
        })
        .collect();
    let outcomes = match broker.coordinator().leave(&request.group_id, &identities) {
        Ok(outcomes) => outcomes,
        Err(error) => return failed(errors::of_group(error)),
    };
    if call.version < 3 {
        return failed(outcomes.first().map_or(ErrorCode::None, errors::of_group_result));
    }
    let respond = |(member, outcome): (MemberIdentity, _)| MemberResponse {
        member_id: member.member_id,
        group_instance_id: member.group_instance_id,
        error_code: errors::of_group_result(outcome).code(),
    };
    LeaveGroupResponse {
        members: members.into_iter().zip(&outcomes).map(respond).collect(),
        ..Default::default()
    }
}
