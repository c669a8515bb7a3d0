//! ListGroups: the groups that a broker coordinates.

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api ListGroups, 0..=5, flexible 3: ListGroupsRequest => ListGroupsResponse;

    /// Which groups to list.
    pub struct ListGroupsRequest {
        /// The states wanted; empty for all.
        states_filter: Vec<Str> [4+],
        /// The types wanted; empty for all.
        types_filter: Vec<Str> [5+],
    }

    /// The groups.
    pub struct ListGroupsResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [1+; ignorable],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// The groups.
        groups: Vec<ListedGroup> [0+],
    }

    /// One group.
    pub struct ListedGroup {
        /// The group's id.
        group_id: Str [0+],
        /// What kind of group it is: `consumer`, `connect` or whatever its clients say.
        protocol_type: Str [0+],
        /// The group's state, by Kafka's name for it.
        group_state: Str [4+; ignorable],
        /// The group's type, `classic` or `consumer`.
        group_type: Str [5+; ignorable],
    }
}
