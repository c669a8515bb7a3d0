//! IncrementalAlterConfigs: sets, removes, extends or shortens single configurations of topics and daemons.

use std::collections::BTreeMap;

use tradewind_cluster::command::{Command, ConfigChange, ConfigResource};
use tradewind_cluster::config::{self, TOPIC_CONFIGS};
use tradewind_cluster::image::Image;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, AlterableConfig,
};
use tradewind_wire::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use crate::broker::{Broker, METADATA_TIMEOUT};
use crate::dispatch::Call;
use crate::{configs, errors, topics};

use super::describe_configs::{BROKER, TOPIC};

type Refused = (ErrorCode, String);

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len().min(1_000));
    for resource in request.resources {
        let (error, message) = match alter(broker, &resource, request.validate_only).await {
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

async fn alter(broker: &Broker, resource: &AlterConfigsResource, validate_only: bool) -> Result<(), Refused> {
    let target = target(&broker.cluster().image(), resource)?;
    let mut changes = BTreeMap::new();
    for entry in &resource.configs {
        let key = key_of(resource.resource_type, &entry.name)?;
        if changes.insert(key.to_owned(), change(key, entry)?).is_some() {
            return Err((
                ErrorCode::InvalidRequest,
                format!("{} is named more than once.", entry.name),
            ));
        }
    }
    if validate_only {
        return Ok(());
    }
    let set = changes.iter().filter_map(|(key, change)| match change {
        ConfigChange::Set(value) | ConfigChange::Append(value) => Some((key.clone(), value.clone())),
        _ => None,
    });
    topics::warn_about_compaction(&resource.resource_name, &set.collect());
    let command = Command::AlterConfigs {
        resource: target,
        replace: false,
        changes,
    };
    let proposed = broker.cluster().propose(command, METADATA_TIMEOUT).await;
    proposed.map(drop).map_err(|error| errors::of_propose(&error))
}

fn target(image: &Image, resource: &AlterConfigsResource) -> Result<ConfigResource, Refused> {
    let name = resource.resource_name.as_str();
    match resource.resource_type {
        TOPIC => match image.topic(name) {
            Some(topic) => Ok(ConfigResource::Topic(topic.id)),
            None => Err((
                ErrorCode::UnknownTopicOrPartition,
                format!("Topic '{name}' does not exist."),
            )),
        },
        BROKER if name.is_empty() => Ok(ConfigResource::Broker(None)),
        BROKER => match name.parse() {
            Ok(node) if image.nodes.contains_key(&node) => Ok(ConfigResource::Broker(Some(node))),
            _ => Err((ErrorCode::InvalidRequest, format!("There is no daemon {name}."))),
        },
        other => Err((
            ErrorCode::InvalidRequest,
            format!("Resource type {other} is not known here."),
        )),
    }
}

/// The topic key that a name stands for: itself, or for daemons the one whose broker-wide default it is.
fn key_of(resource_type: i8, name: &str) -> Result<&'static str, Refused> {
    let matches =
        |key: &'static str| key == name || (resource_type == BROKER && configs::broker_synonym(key) == name);
    let found = TOPIC_CONFIGS
        .iter()
        .map(|config| config.name)
        .find(|key| matches(key));
    found.ok_or_else(|| {
        (
            ErrorCode::InvalidConfig,
            format!("Unknown config name, or one that cannot be changed: {name}"),
        )
    })
}

fn change(key: &str, entry: &AlterableConfig) -> Result<ConfigChange, Refused> {
    const DELETE: i8 = 1;
    let value = match &entry.value {
        Some(value) => value.to_string(),
        None if entry.config_operation == DELETE => return Ok(ConfigChange::Delete),
        None => {
            return Err((
                ErrorCode::InvalidConfig,
                format!("Null value for configuration {key}."),
            ));
        }
    };
    let is_list = || {
        let list = config::topic_config(key)
            .is_some_and(|config| matches!(config.kind, config::ConfigKind::ListOf(_)));
        let message = || format!("{key} is not a list.");
        if list {
            Ok(())
        } else {
            Err((ErrorCode::InvalidConfig, message()))
        }
    };
    match entry.config_operation {
        0 => {
            config::validate(key, &value).map_err(|message| (ErrorCode::InvalidConfig, message))?;
            Ok(ConfigChange::Set(value))
        }
        DELETE => Ok(ConfigChange::Delete),
        2 => is_list().map(|()| ConfigChange::Append(value)),
        3 => is_list().map(|()| ConfigChange::Subtract(value)),
        other => Err((ErrorCode::InvalidRequest, format!("Unknown operation {other}."))),
    }
}
