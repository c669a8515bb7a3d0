//! DeleteGroups: forgets groups that have no members (KIP-229).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api DeleteGroups, 0..=2, flexible 2: DeleteGroupsRequest => DeleteGroupsResponse;

    /// The groups to delete.
    pub struct DeleteGroupsRequest {
        /// The groups' ids.
        groups_names: Vec<Str> [0+],
    }

    /// What became of each group.
    pub struct DeleteGroupsResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [0+],
        /// The groups.
        results: Vec<DeletableGroupResult> [0+],
    }

    /// What became of one group.
    pub struct DeletableGroupResult {
        /// The group's id.
        group_id: Str [0+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
    }
}
