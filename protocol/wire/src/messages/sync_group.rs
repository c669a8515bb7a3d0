//! SyncGroup: the leader hands out the assignment of a generation, every member collects its part.

use bytes::Bytes;

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api SyncGroup, 0..=5, flexible 4: SyncGroupRequest => SyncGroupResponse;

    /// From the leader, everybody's assignment; from others, none.
    pub struct SyncGroupRequest {
        /// The group's id.
        group_id: Str [0+],
        /// The group's generation.
        generation_id: i32 [0+],
        /// The member's id, as the coordinator gave it.
        member_id: Str [0+],
        /// The name that a static member chose for itself (KIP-345).
        group_instance_id: Option<Str> [3+],
        /// What kind of group it is: `consumer`, `connect` or whatever its clients say.
        protocol_type: Option<Str> [5+; ignorable],
        /// The protocol, that is the assignor, that the generation uses.
        protocol_name: Option<Str> [5+; ignorable],
        /// The assignment of each member.
        assignments: Vec<SyncGroupRequestAssignment> [0+],
    }

    /// The assignment of one member.
    pub struct SyncGroupRequestAssignment {
        /// The member's id, as the coordinator gave it.
        member_id: Str [0+],
        /// The assignment, in the protocol's own format.
        assignment: Bytes [0+],
    }

    /// The member's own assignment.
    pub struct SyncGroupResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [1+; ignorable],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// What kind of group it is: `consumer`, `connect` or whatever its clients say.
        protocol_type: Option<Str> [5+; ignorable],
        /// The protocol, that is the assignor, that the generation uses.
        protocol_name: Option<Str> [5+; ignorable],
        /// The assignment, in the protocol's own format.
        assignment: Bytes [0+],
    }
}
