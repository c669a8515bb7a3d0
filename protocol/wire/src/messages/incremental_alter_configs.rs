//! IncrementalAlterConfigs: changes single configuration keys (KIP-339).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api IncrementalAlterConfigs, 0..=1, flexible 1: IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse;

    /// What to change.
    pub struct IncrementalAlterConfigsRequest {
        /// The resources.
        resources: Vec<AlterConfigsResource> [0+],
        /// Whether to check the request only, and change nothing.
        validate_only: bool [0+],
    }

    /// One resource.
    pub struct AlterConfigsResource {
        /// The kind of resource: 2 for a topic, 4 for a broker.
        resource_type: i8 [0+],
        /// The resource's name: the topic's, or the broker's id in digits.
        resource_name: Str [0+],
        /// The keys.
        configs: Vec<AlterableConfig> [0+],
    }

    /// One key.
    pub struct AlterableConfig {
        /// The key.
        name: Str [0+],
        /// What to do: 0 set, 1 delete, 2 append to a list, 3 subtract from a list.
        config_operation: i8 [0+],
        /// The value.
        value: Option<Str> [0+],
    }

    /// What became of it.
    pub struct IncrementalAlterConfigsResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [0+],
        /// The resources.
        responses: Vec<AlterConfigsResourceResponse> [0+],
    }

    /// What became of one resource.
    pub struct AlterConfigsResourceResponse {
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// What went wrong, in words.
        error_message: Option<Str> [0+],
        /// The kind of resource: 2 for a topic, 4 for a broker.
        resource_type: i8 [0+],
        /// The resource's name: the topic's, or the broker's id in digits.
        resource_name: Str [0+],
    }
}
