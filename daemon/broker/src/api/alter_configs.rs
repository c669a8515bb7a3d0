//! AlterConfigs: the old way, which puts back to its default whatever it does not name.

use tradewind_cluster::command::ConfigChange;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::alter_configs::{AlterConfigsResourceResponse, AlterableConfig};
use tradewind_wire::messages::{AlterConfigsRequest, AlterConfigsResponse};

use crate::broker::Broker;
use crate::configs::alter::{self, Altered, Refused, Wanted};
use crate::dispatch::Call;

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let wanted = request.resources.into_iter().map(|resource| Wanted {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        changes: resource.configs.iter().map(change).collect(),
    });
    let altered = alter::alter_each(broker, wanted.collect(), true, request.validate_only).await;
    AlterConfigsResponse {
        responses: altered.into_iter().map(response).collect(),
        ..Default::default()
    }
}

fn change(entry: &AlterableConfig) -> Result<(String, ConfigChange), Refused> {
    match &entry.value {
        Some(value) => Ok((entry.name.to_string(), ConfigChange::Set(value.to_string()))),
        None => {
            let message = format!("Null value not supported for : {}", entry.name);
            Err((ErrorCode::InvalidRequest, message))
        }
    }
}

fn response(altered: Altered) -> AlterConfigsResourceResponse {
    AlterConfigsResourceResponse {
        error_code: altered.error_code,
        error_message: altered.error_message,
        resource_type: altered.resource_type,
        resource_name: altered.resource_name,
    }
}
