//! AlterConfigs: the old way, which puts back to its default whatever it does not name.

use tradewind_cluster::command::ConfigChange;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::alter_configs::{AlterConfigsResource, AlterConfigsResourceResponse};
use tradewind_wire::messages::{AlterConfigsRequest, AlterConfigsResponse};

use crate::broker::Broker;
use crate::configs::alter::{self, Refused};
use crate::dispatch::Call;

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let named = request.resources.iter();
    let repeated = alter::repeated(named.map(|one| (one.resource_type, one.resource_name.as_str())));
    let mut responses = Vec::with_capacity(request.resources.len().min(1_000));
    for (resource, repeated) in request.resources.into_iter().zip(repeated) {
        let changed = if repeated {
            let message = "Each resource must appear at most once.".to_owned();
            Err((ErrorCode::InvalidRequest, message))
        } else {
            replace(broker, &resource, request.validate_only).await
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
    AlterConfigsResponse {
        responses,
        ..Default::default()
    }
}

async fn replace(
    broker: &Broker,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refused> {
    let mut changes = Vec::with_capacity(resource.configs.len().min(1_000));
    for entry in &resource.configs {
        let Some(value) = &entry.value else {
            let message = format!("Null value not supported for : {}", entry.name);
            return Err((ErrorCode::InvalidRequest, message));
        };
        changes.push((entry.name.to_string(), ConfigChange::Set(value.to_string())));
    }
    let which = (resource.resource_type, resource.resource_name.as_str());
    alter::alter(broker, which, true, changes, validate_only).await
}
