//! Which version of each API to speak with a broker: what it says it has, against what we know.

use std::collections::HashMap;

use tradewind_wire::api::ApiKey;
use tradewind_wire::messages::api_versions::ApiVersion;
use tradewind_wire::messages::{ApiVersionsResponse, Request};

/// The version of ApiVersions that is tried first: the highest that every broker since Kafka 2.4 knows.
pub(crate) const FIRST_API_VERSIONS: i16 = 3;

/// A broker's answer to ApiVersions: lowest and highest version by API number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BrokerVersions(HashMap<i16, (i16, i16)>);

impl BrokerVersions {
    pub(crate) fn new(response: &ApiVersionsResponse) -> Self {
        let entry = |api: &ApiVersion| (api.api_key, (api.min_version, api.max_version));
        Self(response.api_keys.iter().map(entry).collect())
    }

    /// The highest version of `R` that both sides know and that is not above `cap`.
    pub(crate) fn common<R: Request>(&self, cap: i16) -> Option<i16> {
        let (min, max) = *self.0.get(&R::KEY.code())?;
        let version = max.min(R::VERSIONS.1).min(cap);
        (version >= min.max(R::VERSIONS.0)).then_some(version)
    }
}

/// The version of ApiVersions to ask with after a refusal (KIP-511): the highest in common if the broker says what it
/// has, else 0, which every broker understands. `None` if the answer was no refusal of the version.
pub(crate) fn after_refusal(response: &ApiVersionsResponse) -> i16 {
    let key = ApiKey::ApiVersions.code();
    let offered = response.api_keys.iter().find(|api| api.api_key == key);
    offered.map_or(0, |api| api.max_version.clamp(0, FIRST_API_VERSIONS - 1))
}

#[cfg(test)]
mod tests {
    use tradewind_wire::messages::{FetchRequest, Message, ProduceRequest};

    use super::*;

    fn offers(apis: &[(ApiKey, i16, i16)]) -> ApiVersionsResponse {
        let entry = |&(key, min_version, max_version): &(ApiKey, i16, i16)| ApiVersion {
            api_key: key.code(),
            min_version,
            max_version,
        };
        ApiVersionsResponse {
            api_keys: apis.iter().map(entry).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn the_highest_version_in_common_is_chosen() {
        let (_, highest) = FetchRequest::VERSIONS;
        let versions = BrokerVersions::new(&offers(&[(ApiKey::Fetch, 0, i16::MAX), (ApiKey::Produce, 0, 2)]));
        assert_eq!(versions.common::<FetchRequest>(i16::MAX), Some(highest));
        assert_eq!(versions.common::<FetchRequest>(12), Some(12));
        assert_eq!(versions.common::<FetchRequest>(3), None);
        assert_eq!(versions.common::<ProduceRequest>(i16::MAX), None);
        assert_eq!(BrokerVersions::default().common::<FetchRequest>(i16::MAX), None);
    }

    #[test]
    fn a_refused_version_falls_back() {
        assert_eq!(after_refusal(&offers(&[])), 0);
        assert_eq!(after_refusal(&offers(&[(ApiKey::ApiVersions, 0, 2)])), 2);
        assert_eq!(after_refusal(&offers(&[(ApiKey::ApiVersions, 0, 9)])), 2);
    }
}
