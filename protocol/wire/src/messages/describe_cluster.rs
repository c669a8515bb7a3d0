//! DescribeCluster: the brokers and the controller, without topics (KIP-700, KIP-919, KIP-1073).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api DescribeCluster, 0..=2, flexible 0: DescribeClusterRequest => DescribeClusterResponse;

    /// What to say about the cluster.
    pub struct DescribeClusterRequest {
        /// Whether to say what the client may do with the cluster.
        include_cluster_authorized_operations: bool [0+],
        /// What to describe: 1 for brokers, 2 for controllers.
        endpoint_type: i8 [1+] = 1,
        /// Whether to list brokers that are fenced, too.
        include_fenced_brokers: bool [2+],
    }

    /// The cluster.
    pub struct DescribeClusterResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [0+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// What went wrong, in words.
        error_message: Option<Str> [0+],
        /// What is described: 1 for brokers, 2 for controllers.
        endpoint_type: i8 [1+] = 1,
        /// The cluster's id.
        cluster_id: Str [0+],
        /// The broker that takes administrative requests, -1 if unknown.
        controller_id: i32 [0+] = -1,
        /// The brokers.
        brokers: Vec<DescribeClusterBroker> [0+],
        /// What the client may do with the cluster, one bit per operation; `i32::MIN` if not asked for.
        cluster_authorized_operations: i32 [0+] = i32::MIN,
    }

    /// One broker.
    pub struct DescribeClusterBroker {
        /// The broker's id.
        broker_id: i32 [0+],
        /// The host to connect to.
        host: Str [0+],
        /// The port to connect to.
        port: i32 [0+],
        /// The broker's rack, if it has one.
        rack: Option<Str> [0+],
        /// Whether the broker is fenced, that is, registered but not to be used.
        is_fenced: bool [2+],
    }
}
