//! Heartbeat: a member lives.

use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::{HeartbeatRequest, HeartbeatResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;
use crate::groups::Committer;

use super::owned;

pub(crate) async fn handle(broker: &Broker, _: Call<'_>, request: HeartbeatRequest) -> HeartbeatResponse {
    let error = if request.group_id.is_empty() {
        ErrorCode::InvalidGroupId
    } else {
        let member = Committer {
            member_id: request.member_id.to_string(),
            instance_id: owned(request.group_instance_id.as_ref()),
            generation: request.generation_id,
            knows_epochs: false,
        };
        errors::of_group_result(&broker.coordinator().heartbeat(&request.group_id, &member))
    };
    HeartbeatResponse {
        error_code: error.code(),
        ..Default::default()
    }
}
