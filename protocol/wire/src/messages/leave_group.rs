//! LeaveGroup: members leave for good (KIP-345).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api LeaveGroup, 0..=5, flexible 4: LeaveGroupRequest => LeaveGroupResponse;

    /// Who leaves.
    pub struct LeaveGroupRequest {
        /// The group's id.
        group_id: Str [0+],
        /// The member's id, as the coordinator gave it.
        member_id: Str [0-2],
        /// The members that leave.
        members: Vec<MemberIdentity> [3+],
    }

    /// A member that leaves.
    pub struct MemberIdentity {
        /// The member's id; empty if a static member is named.
        member_id: Str [3+],
        /// The name that a static member chose for itself (KIP-345).
        group_instance_id: Option<Str> [3+],
        /// Why it leaves, in words (KIP-800).
        reason: Option<Str> [5+; ignorable],
    }

    /// What became of it.
    pub struct LeaveGroupResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [1+; ignorable],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// What became of each member.
        members: Vec<MemberResponse> [3+],
    }

    /// What became of one member.
    pub struct MemberResponse {
        /// The member's id, as the coordinator gave it.
        member_id: Str [3+],
        /// The name that a static member chose for itself (KIP-345).
        group_instance_id: Option<Str> [3+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [3+],
    }
}
