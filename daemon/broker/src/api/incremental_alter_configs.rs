//! IncrementalAlterConfigs: sets, removes, extends or shortens single configurations of topics, daemons and groups.

use tradewind_cluster::command::ConfigChange;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::incremental_alter_configs::{AlterConfigsResourceResponse, AlterableConfig};
use tradewind_wire::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use crate::broker::Broker;
use crate::configs::alter::{self, Altered, Refused, Wanted};
use crate::dispatch::Call;

/// Kafka's numbers for what is to be done with a key.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let wanted = request.resources.into_iter().map(|resource| Wanted {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        changes: resource.configs.iter().map(change).collect(),
    });
    let altered = alter::alter_each(broker, wanted.collect(), false, request.validate_only).await;
    IncrementalAlterConfigsResponse {
        responses: altered.into_iter().map(response).collect(),
        ..Default::default()
    }
}

fn change(entry: &AlterableConfig) -> Result<(String, ConfigChange), Refused> {
    let value = || {
        let value = entry.value.as_ref().map(ToString::to_string);
        let message = || format!("Null value not supported for : {}", entry.name);
        value.ok_or_else(|| (ErrorCode::InvalidRequest, message()))
    };
    let change = match entry.config_operation {
        SET => ConfigChange::Set(value()?),
        DELETE => ConfigChange::Delete,
        APPEND => ConfigChange::Append(value()?),
        SUBTRACT => ConfigChange::Subtract(value()?),
        other => return Err((ErrorCode::InvalidRequest, format!("Unknown operation {other}."))),
    };
    Ok((entry.name.to_string(), change))
}

fn response(altered: Altered) -> AlterConfigsResourceResponse {
    AlterConfigsResourceResponse {
        error_code: altered.error_code,
        error_message: altered.error_message,
        resource_type: altered.resource_type,
        resource_name: altered.resource_name,
    }
}
