//! ConsumerGroupDescribe: the members of `consumer` groups and what they hold (KIP-848).

use crate::codec::Str;
use crate::ids::TopicId;
use crate::messages::declare::declare;

declare! {
    api ConsumerGroupDescribe, 0..=1, flexible 0: ConsumerGroupDescribeRequest => ConsumerGroupDescribeResponse;

    /// Which groups to describe.
    pub struct ConsumerGroupDescribeRequest {
        /// The groups' ids.
        group_ids: Vec<Str> [0+],
        /// Whether to say what the client may do with each group.
        include_authorized_operations: bool [0+],
    }

    /// The groups.
    pub struct ConsumerGroupDescribeResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [0+],
        /// The groups.
        groups: Vec<DescribedGroup> [0+],
    }

    /// One group.
    pub struct DescribedGroup {
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// What the error says.
        error_message: Option<Str> [0+],
        /// The group's id.
        group_id: Str [0+],
        /// The group's state, such as `Stable`.
        group_state: Str [0+],
        /// The group's epoch: grows with every change of its members or their subscriptions.
        group_epoch: i32 [0+],
        /// The epoch of the target assignment.
        assignment_epoch: i32 [0+],
        /// The assignor in use.
        assignor_name: Str [0+],
        /// The members.
        members: Vec<Member> [0+],
        /// What the client may do with the group, one bit per operation; `i32::MIN` if not asked for.
        authorized_operations: i32 [0+] = i32::MIN,
    }

    /// One member.
    pub struct Member {
        /// The member's id.
        member_id: Str [0+],
        /// The static member's name.
        instance_id: Option<Str> [0+],
        /// The member's rack.
        rack_id: Option<Str> [0+],
        /// The member's epoch.
        member_epoch: i32 [0+],
        /// The client's id.
        client_id: Str [0+],
        /// The client's host.
        client_host: Str [0+],
        /// The topics that it subscribes to by name.
        subscribed_topic_names: Vec<Str> [0+],
        /// The regular expression of the topics that it subscribes to.
        subscribed_topic_regex: Option<Str> [0+],
        /// What the member holds.
        assignment: Assignment [0+],
        /// What the member shall hold.
        target_assignment: Assignment [0+],
        /// Its protocol: 0 classic, 1 consumer, -1 unknown (KIP-1099).
        member_type: i8 [1+; ignorable] = -1,
    }

    /// The partitions of a member.
    pub struct Assignment {
        /// The topics.
        topic_partitions: Vec<TopicPartitions> [0+],
    }

    /// One topic.
    pub struct TopicPartitions {
        /// The topic's id.
        topic_id: TopicId [0+],
        /// The topic's name.
        topic_name: Str [0+],
        /// The partitions' numbers.
        partitions: Vec<i32> [0+],
    }
}
