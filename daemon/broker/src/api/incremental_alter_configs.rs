//! IncrementalAlterConfigs: sets, removes, extends or shortens single configurations of topics, daemons and groups.

use tradewind_cluster::command::ConfigChange;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, AlterableConfig,
};
use tradewind_wire::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use crate::broker::Broker;
use crate::configs::alter::{self, Refused};
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
    let named = request.resources.iter();
    let repeated = alter::repeated(named.map(|one| (one.resource_type, one.resource_name.as_str())));
    let mut responses = Vec::with_capacity(request.resources.len().min(1_000));
    for (resource, repeated) in request.resources.into_iter().zip(repeated) {
        let changed = if repeated {
            let message = "Each resource must appear at most once.".to_owned();
            Err((ErrorCode::InvalidRequest, message))
        } else {
            change(broker, &resource, request.validate_only).await
        };
        let (error, message) = match changed {
            Ok(()) => (ErrorCode::None, None),
            Err((error, message)) => (error, Some(message.into())),
        };
        responses.push(AlterConfigsResourceResponse {
            error_code: error.code(),
            error_message: message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
        });
    }
    IncrementalAlterConfigsResponse {
        responses,
        ..Default::default()
    }
}

async fn change(
    broker: &Broker,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refused> {
    let mut changes = Vec::with_capacity(resource.configs.len().min(1_000));
    for entry in &resource.configs {
        changes.push((entry.name.to_string(), operation(entry)?));
    }
    let which = (resource.resource_type, resource.resource_name.as_str());
    alter::alter(broker, which, false, changes, validate_only).await
}

fn operation(entry: &AlterableConfig) -> Result<ConfigChange, Refused> {
    let value = || {
        let value = entry.value.as_ref().map(ToString::to_string);
        let message = || format!("Null value not supported for : {}", entry.name);
        value.ok_or_else(|| (ErrorCode::InvalidRequest, message()))
    };
    match entry.config_operation {
        SET => value().map(ConfigChange::Set),
        DELETE => Ok(ConfigChange::Delete),
        APPEND => value().map(ConfigChange::Append),
        SUBTRACT => value().map(ConfigChange::Subtract),
        other => Err((ErrorCode::InvalidRequest, format!("Unknown operation {other}."))),
    }
}
