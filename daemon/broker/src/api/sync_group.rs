//! SyncGroup: fetches a member's assignment; the leader brings everyone's.

use bytes::Bytes;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::{SyncGroupRequest, SyncGroupResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;
use crate::groups::Sync;

use super::owned;

pub(crate) async fn handle(broker: &Broker, call: Call<'_>, request: SyncGroupRequest) -> SyncGroupResponse {
    let failed = |error: ErrorCode| SyncGroupResponse {
        error_code: error.code(),
        ..Default::default()
    };
    if request.group_id.is_empty() {
        return failed(ErrorCode::InvalidGroupId);
    }
    if call.version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return failed(ErrorCode::InconsistentGroupProtocol);
    }
    let sync = Sync {
        token: 0,
        member_id: request.member_id.to_string(),
        instance_id: owned(request.group_instance_id.as_ref()),
        generation: request.generation_id,
        protocol_type: owned(request.protocol_type.as_ref()),
        protocol: owned(request.protocol_name.as_ref()),
        assignments: request
            .assignments
            .iter()
            .map(|given| {
                (
                    given.member_id.to_string(),
                    Bytes::copy_from_slice(&given.assignment),
                )
            })
            .collect(),
    };
    match broker.coordinator().sync(&request.group_id, sync).await {
        Ok(reply) => SyncGroupResponse {
            protocol_type: reply.protocol_type.map(Into::into),
            protocol_name: reply.protocol.map(Into::into),
            assignment: reply.assignment,
            ..Default::default()
        },
        Err(error) => failed(errors::of_group(error)),
    }
}
