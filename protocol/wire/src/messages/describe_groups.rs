//! DescribeGroups: state, members and assignment of groups.

use bytes::Bytes;

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api DescribeGroups, 0..=6, flexible 5: DescribeGroupsRequest => DescribeGroupsResponse;

    /// Which groups to describe.
    pub struct DescribeGroupsRequest {
        /// The groups' ids.
        groups: Vec<Str> [0+],
        /// Whether to say what the client may do with each group.
        include_authorized_operations: bool [3+],
    }

    /// The groups.
    pub struct DescribeGroupsResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [1+; ignorable],
        /// The groups.
        groups: Vec<DescribedGroup> [0+],
    }

    /// One group.
    pub struct DescribedGroup {
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// What went wrong, in words.
        error_message: Option<Str> [6+],
        /// The group's id.
        group_id: Str [0+],
        /// The group's state, by Kafka's name for it; `Dead` if there is no such group.
        group_state: Str [0+],
        /// What kind of group it is: `consumer`, `connect` or whatever its clients say.
        protocol_type: Str [0+],
        /// The protocol, that is the assignor, in use; empty if there is none.
        protocol_data: Str [0+],
        /// The members.
        members: Vec<DescribedGroupMember> [0+],
        /// What the client may do with the group, one bit per operation; `i32::MIN` if not asked for.
        authorized_operations: i32 [3+] = i32::MIN,
    }

    /// One member.
    pub struct DescribedGroupMember {
        /// The member's id, as the coordinator gave it.
        member_id: Str [0+],
        /// The name that a static member chose for itself (KIP-345).
        group_instance_id: Option<Str> [4+; ignorable],
        /// The client id that the member joined with.
        client_id: Str [0+],
        /// The address that the member joined from.
        client_host: Str [0+],
        /// What the member said in the protocol in use.
        member_metadata: Bytes [0+],
        /// The member's assignment, in the protocol's own format.
        member_assignment: Bytes [0+],
    }
}
