//! DescribeConfigs: the configuration of topics and brokers, and where each value comes from (KIP-133, KIP-226).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api DescribeConfigs, 1..=4, flexible 4: DescribeConfigsRequest => DescribeConfigsResponse;

    /// Whose configuration is wanted.
    pub struct DescribeConfigsRequest {
        /// The resources.
        resources: Vec<DescribeConfigsResource> [1+],
        /// Whether to list every place that could give a value.
        include_synonyms: bool [1+],
        /// Whether to explain each key.
        include_documentation: bool [3+],
    }

    /// One resource.
    pub struct DescribeConfigsResource {
        /// The kind of resource: 2 for a topic, 4 for a broker.
        resource_type: i8 [1+],
        /// The resource's name: the topic's, or the broker's id in digits.
        resource_name: Str [1+],
        /// The keys; null for all.
        configuration_keys: Option<Vec<Str>> [1+],
    }

    /// The configuration.
    pub struct DescribeConfigsResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [1+],
        /// The resources.
        results: Vec<DescribeConfigsResult> [1+],
    }

    /// One resource's configuration.
    pub struct DescribeConfigsResult {
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [1+],
        /// What went wrong, in words.
        error_message: Option<Str> [1+],
        /// The kind of resource: 2 for a topic, 4 for a broker.
        resource_type: i8 [1+],
        /// The resource's name: the topic's, or the broker's id in digits.
        resource_name: Str [1+],
        /// The keys.
        configs: Vec<DescribeConfigsResourceResult> [1+],
    }

    /// One key.
    pub struct DescribeConfigsResourceResult {
        /// The key.
        name: Str [1+],
        /// The value; null if it is a secret.
        value: Option<Str> [1+],
        /// Whether the value cannot be changed.
        read_only: bool [1+],
        /// Where the value comes from: 1 topic, 2 this broker, 3 all brokers, 4 broker's file, 5 default.
        config_source: i8 [1+] = -1,
        /// Whether the value is a secret, and therefore withheld.
        is_sensitive: bool [1+],
        /// Every place that could give the value, the deciding one first.
        synonyms: Vec<DescribeConfigsSynonym> [1+],
        /// The value's type: 1 boolean, 2 string, 3 int, 4 short, 5 long, 6 double, 7 list, 8 class, 9 password.
        config_type: i8 [3+; ignorable],
        /// What the key means.
        documentation: Option<Str> [3+; ignorable],
    }

    /// A place that could give a value.
    pub struct DescribeConfigsSynonym {
        /// The key there.
        name: Str [1+],
        /// The value there; null if it is a secret.
        value: Option<Str> [1+],
        /// What place it is, as in `config_source`.
        source: i8 [1+],
    }
}
