//! ListGroups: the groups that this daemon coordinates, filtered by state and type.

use tradewind_wire::codec::Str;
use tradewind_wire::messages::list_groups::ListedGroup;
use tradewind_wire::messages::{ListGroupsRequest, ListGroupsResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;

pub(crate) async fn handle(broker: &Broker, _: Call<'_>, request: ListGroupsRequest) -> ListGroupsResponse {
    let passes = |filter: &[Str], value: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    match broker.coordinator().list() {
        Err(error) => ListGroupsResponse {
            error_code: errors::of_group(error).code(),
            ..Default::default()
        },
        Ok(groups) => ListGroupsResponse {
            groups: groups
                .into_iter()
                .filter(|group| passes(&request.states_filter, group.state))
                .filter(|group| passes(&request.types_filter, group.kind))
                .map(|group| ListedGroup {
                    group_id: group.id.into(),
                    protocol_type: group.protocol_type.into(),
                    group_state: group.state.into(),
                    group_type: group.kind.into(),
                })
                .collect(),
            ..Default::default()
        },
    }
}
