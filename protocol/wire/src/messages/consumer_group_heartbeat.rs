//! ConsumerGroupHeartbeat: how a member of a `consumer` group joins, stays, and learns its partitions (KIP-848).

use crate::codec::Str;
use crate::ids::TopicId;
use crate::messages::declare::declare;

declare! {
    api ConsumerGroupHeartbeat, 0..=1, flexible 0: ConsumerGroupHeartbeatRequest => ConsumerGroupHeartbeatResponse;

    /// What the member tells. A null field has not changed since its last heartbeat.
    pub struct ConsumerGroupHeartbeatRequest {
        /// The group's id.
        group_id: Str [0+],
        /// The member's id; from version 1 on the client makes it (KIP-1082).
        member_id: Str [0+],
        /// The member's epoch; 0 to join, -1 to leave, -2 to leave for a while as a static member.
        member_epoch: i32 [0+],
        /// The static member's name.
        instance_id: Option<Str> [0+],
        /// The member's rack.
        rack_id: Option<Str> [0+],
        /// How many milliseconds the member may take to give partitions up; -1 if it has not changed.
        rebalance_timeout_ms: i32 [0+] = -1,
        /// The topics that it subscribes to by name.
        subscribed_topic_names: Option<Vec<Str>> [0+],
        /// The regular expression of the topics that it subscribes to.
        subscribed_topic_regex: Option<Str> [1+],
        /// The assignor that the member wants the coordinator to use.
        server_assignor: Option<Str> [0+],
        /// The partitions that the member holds.
        topic_partitions: Option<Vec<TopicPartitions>> [0+],
    }

    /// One topic.
    pub struct TopicPartitions {
        /// The topic's id.
        topic_id: TopicId [0+],
        /// The partitions' numbers.
        partitions: Vec<i32> [0+],
    }

    /// What the coordinator tells.
    pub struct ConsumerGroupHeartbeatResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [0+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// What the error says.
        error_message: Option<Str> [0+],
        /// The member's id, in answer to a join.
        member_id: Option<Str> [0+],
        /// The member's epoch.
        member_epoch: i32 [0+],
        /// After how many milliseconds the next heartbeat is due.
        heartbeat_interval_ms: i32 [0+],
        /// What the member shall hold; null if that has not changed.
        assignment: Option<Assignment> [0+],
    }

    /// The partitions of a member.
    pub struct Assignment {
        /// The topics.
        topic_partitions: Vec<TopicPartitions> [0+],
    }
}
