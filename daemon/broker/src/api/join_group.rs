//! JoinGroup: enters a group. The answer comes when the generation is complete.

use bytes::Bytes;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::join_group::JoinGroupResponseMember;
use tradewind_wire::messages::{JoinGroupRequest, JoinGroupResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;
use crate::groups::{Join, JoinReply};

use super::owned;

pub(crate) async fn handle(broker: &Broker, call: Call<'_>, request: JoinGroupRequest) -> JoinGroupResponse {
    if request.group_id.is_empty() {
        return JoinGroupResponse {
            error_code: ErrorCode::InvalidGroupId.code(),
            protocol_name: Some(String::new().into()),
            member_id: request.member_id,
            ..Default::default()
        };
    }
    let rng = broker.cluster().rng();
    // What the id begins with is for people; the rest makes it unique.
    let prefix = request.group_instance_id.as_deref().unwrap_or(call.client_id);
    let fresh_id = format!("{prefix}-{:016x}{:016x}", rng.next_u64(), rng.next_u64());
    let rebalance_timeout_ms = if call.version >= 1 {
        request.rebalance_timeout_ms
    } else {
        request.session_timeout_ms
    };
    let join = Join {
        token: 0,
        member_id: request.member_id.to_string(),
        fresh_id,
        instance_id: owned(request.group_instance_id.as_ref()),
        client_id: call.client_id.to_owned(),
        client_host: format!("/{}", call.connection.host),
        two_step: call.version >= 4,
        knows_skip_assignment: call.version >= 9,
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        // Copied, because they outlive the frame that they came in.
        protocols: request
            .protocols
            .iter()
            .map(|protocol| {
                (
                    protocol.name.to_string(),
                    Bytes::copy_from_slice(&protocol.metadata),
                )
            })
            .collect(),
    };
    let reply = broker.coordinator().join(&request.group_id, join).await;
    respond(call.version, reply)
}

fn respond(version: i16, reply: JoinReply) -> JoinGroupResponse {
    // Before version 7 the name may not be null.
    let protocol_name = reply
        .protocol
        .map(Into::into)
        .or_else(|| (version < 7).then(|| String::new().into()));
    JoinGroupResponse {
        error_code: reply.error.map_or(ErrorCode::None, errors::of_group).code(),
        generation_id: reply.generation,
        protocol_type: reply.protocol_type.map(Into::into),
        protocol_name,
        leader: reply.leader.into(),
        skip_assignment: reply.skip_assignment,
        member_id: reply.member_id.into(),
        members: reply
            .members
            .into_iter()
            .map(|member| JoinGroupResponseMember {
                member_id: member.member_id.into(),
                group_instance_id: member.instance_id.map(Into::into),
                metadata: member.metadata,
            })
            .collect(),
        ..Default::default()
    }
}
