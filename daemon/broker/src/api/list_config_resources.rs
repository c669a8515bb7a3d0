//! ListConfigResources (KIP-1142): what DescribeConfigs could be asked about.
//!
//! Version 0 asks for the subscriptions of client metrics, of which there never are any. Daemons have no loggers of their
//! own to configure.

use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::list_config_resources::ConfigResource;
use tradewind_wire::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};

use crate::broker::Broker;
use crate::configs::resource::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::dispatch::Call;

/// The types that can be asked for.
const TYPES: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

pub(crate) async fn handle(
    broker: &Broker,
    call: Call<'_>,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let wanted = match request.resource_types {
        _ if call.version == 0 => vec![CLIENT_METRICS],
        types if types.is_empty() => TYPES.to_vec(),
        types => types,
    };
    if wanted.iter().any(|asked| !TYPES.contains(asked)) {
        return ListConfigResourcesResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..Default::default()
        };
    }
    let image = broker.cluster().image();
    let mut config_resources = Vec::new();
    for resource_type in TYPES.into_iter().filter(|known| wanted.contains(known)) {
        let names: Vec<String> = match resource_type {
            TOPIC => image.names.keys().cloned().collect(),
            BROKER => image.nodes.keys().map(ToString::to_string).collect(),
            GROUP => image.group_configs.keys().cloned().collect(),
            _ => Vec::new(),
        };
        config_resources.extend(names.into_iter().map(|name| ConfigResource {
            resource_name: name.into(),
            resource_type,
        }));
    }
    ListConfigResourcesResponse {
        config_resources,
        ..Default::default()
    }
}
