//! DeleteGroups: forgets groups that nobody is in, with their positions.

use tradewind_wire::messages::delete_groups::DeletableGroupResult;
use tradewind_wire::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len().min(1_000));
    for group_id in request.groups_names {
        let deleted = broker.coordinator().delete(&group_id).await;
        results.push(DeletableGroupResult {
            group_id,
            error_code: errors::of_group_result(&deleted).code(),
        });
    }
    DeleteGroupsResponse {
        results,
        ..Default::default()
    }
}
