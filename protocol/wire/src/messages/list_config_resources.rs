//! ListConfigResources: the names of whatever has a configuration of its own (KIP-1142; version 0 is KIP-714's
//! ListClientMetricsResources).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api ListConfigResources, 0..=1, flexible 0: ListConfigResourcesRequest => ListConfigResourcesResponse;

    /// Which resources to list.
    pub struct ListConfigResourcesRequest {
        /// Their types, as in DescribeConfigs; empty for all that can be listed.
        resource_types: Vec<i8> [1+],
    }

    /// The resources.
    pub struct ListConfigResourcesResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [0+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// The resources.
        config_resources: Vec<ConfigResource> [0+],
    }

    /// One resource.
    pub struct ConfigResource {
        /// Its name.
        resource_name: Str [0+],
        /// Its type; 16 for client metrics.
        resource_type: i8 [1+; ignorable] = 16,
    }
}
