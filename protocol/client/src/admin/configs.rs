//! Configurations of topics and brokers.

use std::collections::BTreeMap;

use tradewind_wire::ids::NodeId;
use tradewind_wire::messages::describe_configs::DescribeConfigsResource;
use tradewind_wire::messages::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
use tradewind_wire::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use super::refusal;
use crate::client::Client;
use crate::error::ClientError;

/// The kind of thing that has a configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ConfigResource {
    /// A topic.
    Topic(String),
    /// A broker.
    Broker(NodeId),
}

impl ConfigResource {
    fn kind(&self) -> i8 {
        match self {
            Self::Topic(_) => 2,
            Self::Broker(_) => 4,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Topic(name) => name.clone(),
            Self::Broker(id) => id.to_string(),
        }
    }
}

/// One configuration value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The value; `None` if it is secret or not set.
    pub value: Option<String>,
    /// Where it comes from, as Kafka numbers it: 1 the topic itself, 5 the default.
    pub source: i8,
    /// Whether it cannot be changed.
    pub read_only: bool,
    /// Whether it is secret.
    pub sensitive: bool,
}

impl ConfigEntry {
    /// Whether the value was set on the topic itself.
    pub fn is_topics_own(&self) -> bool {
        self.source == 1
    }
}

/// A change of one configuration key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigChange {
    /// Set it.
    Set(String),
    /// Back to the default.
    Delete,
}

impl Client {
    /// The configurations of topics or brokers, by key.
    pub async fn describe_configs(
        &self,
        resources: &[ConfigResource],
    ) -> Result<BTreeMap<ConfigResource, BTreeMap<String, ConfigEntry>>, ClientError> {
        let mut described = BTreeMap::new();
        let (brokers, topics): (Vec<_>, Vec<_>) = resources
            .iter()
            .cloned()
            .partition(|resource| matches!(resource, ConfigResource::Broker(_)));
        if !topics.is_empty() {
            let answer = self.any(&describe_request(&topics)).await?;
            collect_configs(&mut described, &topics, &answer)?;
        }
        for broker in brokers {
            let ConfigResource::Broker(node) = broker else {
                continue;
            };
            let one = [broker];
            let answer = self.send(node, describe_request(&one)).await?;
            collect_configs(&mut described, &one, &answer)?;
        }
        Ok(described)
    }

    /// Changes configuration keys of one topic or broker; other keys stay as they are.
    pub async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &BTreeMap<String, ConfigChange>,
    ) -> Result<(), ClientError> {
        let alter = |(name, change): (&String, &ConfigChange)| AlterableConfig {
            name: name.into(),
            config_operation: match change {
                ConfigChange::Set(_) => 0,
                ConfigChange::Delete => 1,
            },
            value: match change {
                ConfigChange::Set(value) => Some(value.into()),
                ConfigChange::Delete => None,
            },
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: resource.kind(),
                resource_name: resource.name().into(),
                configs: changes.iter().map(alter).collect(),
            }],
            validate_only: false,
        };
        let answer = match resource {
            ConfigResource::Broker(node) => self.send(*node, request).await?,
            ConfigResource::Topic(_) => {
                self.at_controller(
                    |_| request.clone(),
                    |answer| answer.responses.iter().map(|result| result.error_code).collect(),
                )
                .await?
            }
        };
        let what = format!("alter configuration of {}", resource.name());
        match answer.responses.first() {
            None => Err(ClientError::Missing { what }),
            Some(result) => refusal(what, result.error_code, result.error_message.as_deref()),
        }
    }
}

fn describe_request(resources: &[ConfigResource]) -> DescribeConfigsRequest {
    let resource = |resource: &ConfigResource| DescribeConfigsResource {
        resource_type: resource.kind(),
        resource_name: resource.name().into(),
        configuration_keys: None,
    };
    DescribeConfigsRequest {
        resources: resources.iter().map(resource).collect(),
        ..Default::default()
    }
}

fn collect_configs(
    described: &mut BTreeMap<ConfigResource, BTreeMap<String, ConfigEntry>>,
    asked: &[ConfigResource],
    answer: &tradewind_wire::messages::DescribeConfigsResponse,
) -> Result<(), ClientError> {
    for resource in asked {
        let what = format!("configuration of {}", resource.name());
        let is_it = |name: &str, kind| kind == resource.kind() && name == resource.name();
        let found = answer
            .results
            .iter()
            .find(|result| is_it(&result.resource_name, result.resource_type));
        let found = found.ok_or_else(|| ClientError::Missing { what: what.clone() })?;
        refusal(what, found.error_code, found.error_message.as_deref())?;
        let entries = found.configs.iter().map(|config| {
            let entry = ConfigEntry {
                value: config.value.as_ref().map(ToString::to_string),
                source: config.config_source,
                read_only: config.read_only,
                sensitive: config.is_sensitive,
            };
            (config.name.to_string(), entry)
        });
        described.insert(resource.clone(), entries.collect());
    }
    Ok(())
}
