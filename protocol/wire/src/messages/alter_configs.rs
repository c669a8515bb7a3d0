//! AlterConfigs: replaces the whole configuration of resources; old clients only (KIP-133).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api AlterConfigs, 0..=2, flexible 2: AlterConfigsRequest => AlterConfigsResponse;

    /// The configuration that resources shall have; what is not given returns to its default.
    pub struct AlterConfigsRequest {
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
        /// The value.
        value: Option<Str> [0+],
    }

    /// What became of it.
    pub struct AlterConfigsResponse {
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
