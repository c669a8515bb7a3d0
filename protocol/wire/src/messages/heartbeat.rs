//! Heartbeat: a member is alive, and learns of a rebalance.

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api Heartbeat, 0..=4, flexible 4: HeartbeatRequest => HeartbeatResponse;

    /// A member is alive.
    pub struct HeartbeatRequest {
        /// The group's id.
        group_id: Str [0+],
        /// The group's generation.
        generation_id: i32 [0+],
        /// The member's id, as the coordinator gave it.
        member_id: Str [0+],
        /// The name that a static member chose for itself (KIP-345).
        group_instance_id: Option<Str> [3+],
    }

    /// Whether the member is still in its generation.
    pub struct HeartbeatResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [1+; ignorable],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
    }
}
