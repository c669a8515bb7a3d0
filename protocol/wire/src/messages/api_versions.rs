//! ApiVersions: the first request on a connection, which settles what versions both sides know (KIP-35, KIP-511).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api ApiVersions, 0..=4, flexible 3: ApiVersionsRequest => ApiVersionsResponse;

    /// What the client is.
    pub struct ApiVersionsRequest {
        /// The name of the client library.
        client_software_name: Str [3+; ignorable],
        /// The version of the client library.
        client_software_version: Str [3+; ignorable],
    }

    /// What the broker can do. Sent with response header version 0 in every version.
    pub struct ApiVersionsResponse {
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// The APIs, each with its range of versions.
        api_keys: Vec<ApiVersion> [0+],
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [1+; ignorable],
        /// Features that the broker could enable.
        supported_features: Vec<SupportedFeatureKey> [3+, tag 0; ignorable],
        /// The version of `finalized_features`, -1 if unknown.
        finalized_features_epoch: i64 [3+, tag 1; ignorable] = -1,
        /// Features that are enabled in the whole cluster; void if the epoch is negative.
        finalized_features: Vec<FinalizedFeatureKey> [3+, tag 2; ignorable],
        /// Whether a controller could take over from ZooKeeper; never set here.
        zk_migration_ready: bool [3+, tag 3; ignorable],
    }

    /// One API.
    pub struct ApiVersion {
        /// The API's [`ApiKey`](crate::api::ApiKey).
        api_key: i16 [0+],
        /// The lowest version accepted.
        min_version: i16 [0+],
        /// The highest version accepted.
        max_version: i16 [0+],
    }

    /// A feature that could be enabled.
    pub struct SupportedFeatureKey {
        /// The feature's name.
        name: Str [3+],
        /// The lowest level that could be enabled.
        min_version: i16 [3+],
        /// The highest level that could be enabled.
        max_version: i16 [3+],
    }

    /// A feature that is enabled.
    pub struct FinalizedFeatureKey {
        /// The feature's name.
        name: Str [3+],
        /// The highest level in use.
        max_version_level: i16 [3+],
        /// The lowest level in use.
        min_version_level: i16 [3+],
    }
}
