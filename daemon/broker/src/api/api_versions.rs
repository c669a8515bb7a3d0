//! ApiVersions: what this daemon serves (KIP-511). The version itself is judged in `dispatch.rs`.

use tradewind_wire::api;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::api_versions::{FinalizedFeatureKey, SupportedFeatureKey};
use tradewind_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};

use crate::broker::Broker;
use crate::dispatch::Call;

/// The feature that says whether there are groups of the consumer protocol (KIP-848).
const GROUP_VERSION: &str = "group.version";

pub(crate) async fn handle(_: &Broker, call: Call<'_>, request: ApiVersionsRequest) -> ApiVersionsResponse {
    if call.version >= 3
        && !(is_software(&request.client_software_name) && is_software(&request.client_software_version))
    {
        return ApiVersionsResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            ..Default::default()
        };
    }
    ApiVersionsResponse {
        api_keys: api::advertised(),
        supported_features: vec![SupportedFeatureKey {
            name: GROUP_VERSION.into(),
            min_version: 0,
            max_version: 1,
        }],
        // Never changes in the life of a cluster so far.
        finalized_features_epoch: 0,
        finalized_features: vec![FinalizedFeatureKey {
            name: GROUP_VERSION.into(),
            max_version_level: 1,
            min_version_level: 1,
        }],
        ..Default::default()
    }
}

/// Kafka's pattern `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`.
fn is_software(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::is_software;

    #[test]
    fn software_is_named_as_kafka_wants_it() {
        assert!(is_software("apache-kafka-java") && is_software("4.1.0") && is_software("a"));
        assert!(!is_software("") && !is_software("-a") && !is_software("a-") && !is_software("a b"));
    }
}
