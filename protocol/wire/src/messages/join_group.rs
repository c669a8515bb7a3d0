//! JoinGroup: enters a group, or enters it again for its next generation.

use bytes::Bytes;

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api JoinGroup, 0..=9, flexible 6: JoinGroupRequest => JoinGroupResponse;

    /// A member that wants to be in the next generation.
    pub struct JoinGroupRequest {
        /// The group's id.
        group_id: Str [0+],
        /// After how many milliseconds without a heartbeat the member counts as dead.
        session_timeout_ms: i32 [0+],
        /// How many milliseconds members have to join again; -1 for the session timeout.
        rebalance_timeout_ms: i32 [1+; ignorable] = -1,
        /// The member's id, as the coordinator gave it; empty at first.
        member_id: Str [0+],
        /// The name that a static member chose for itself (KIP-345).
        group_instance_id: Option<Str> [5+],
        /// What kind of group it is: `consumer`, `connect` or whatever its clients say.
        protocol_type: Str [0+],
        /// The protocols that the member knows, the preferred one first.
        protocols: Vec<JoinGroupRequestProtocol> [0+],
        /// Why the member joins, in words (KIP-800).
        reason: Option<Str> [8+; ignorable],
    }

    /// A protocol that a member knows.
    pub struct JoinGroupRequestProtocol {
        /// The protocol's name.
        name: Str [0+],
        /// What the member has to say in this protocol, such as its subscription.
        metadata: Bytes [0+],
    }

    /// The new generation.
    pub struct JoinGroupResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [2+; ignorable],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// The group's generation.
        generation_id: i32 [0+] = -1,
        /// What kind of group it is: `consumer`, `connect` or whatever its clients say.
        protocol_type: Option<Str> [7+; ignorable],
        /// The protocol, that is the assignor, that the generation uses.
        protocol_name: Option<Str> [0+, null 7+],
        /// The id of the member that is to assign.
        leader: Str [0+],
        /// Whether the leader shall not assign, as the last assignment stands (KIP-814).
        skip_assignment: bool [9+],
        /// The member's id, as the coordinator gave it.
        member_id: Str [0+],
        /// All members with their metadata; empty to all but the leader.
        members: Vec<JoinGroupResponseMember> [0+],
    }

    /// One member.
    pub struct JoinGroupResponseMember {
        /// The member's id, as the coordinator gave it.
        member_id: Str [0+],
        /// The name that a static member chose for itself (KIP-345).
        group_instance_id: Option<Str> [5+; ignorable],
        /// What the member said in the chosen protocol.
        metadata: Bytes [0+],
    }
}
