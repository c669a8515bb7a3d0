//! Configurations of topics, brokers, groups and whatever else has one.

use std::collections::BTreeMap;
use std::fmt;

use tradewind_wire::ids::NodeId;
use tradewind_wire::messages::describe_configs::{DescribeConfigsResource, DescribeConfigsSynonym};
use tradewind_wire::messages::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
use tradewind_wire::messages::{
    DescribeConfigsRequest, IncrementalAlterConfigsRequest, ListConfigResourcesRequest,
};

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
    /// All brokers, where they have no value of their own.
    BrokerDefaults,
    /// A broker's loggers (KIP-412).
    BrokerLoggers(NodeId),
    /// A group (KIP-848).
    Group(String),
    /// A subscription to metrics of clients (KIP-714).
    ClientMetrics(String),
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BrokerDefaults => f.write_str("the brokers' defaults"),
            named => write!(f, "{} {}", named.kind_name(), named.name()),
        }
    }
}

impl ConfigResource {
    /// The resource of this number and name, if the number is known and fits the name.
    pub fn from_wire(kind: i8, name: &str) -> Option<Self> {
        Some(match (kind, name) {
            (2, _) => Self::Topic(name.to_owned()),
            (4, "") => Self::BrokerDefaults,
            (4, _) => Self::Broker(name.parse().ok()?),
            (8, _) => Self::BrokerLoggers(name.parse().ok()?),
            (16, _) => Self::ClientMetrics(name.to_owned()),
            (32, _) => Self::Group(name.to_owned()),
            _ => return None,
        })
    }

    /// What kind of thing it is, in Kafka's words.
    pub fn kind_name(&self) -> &'static str {
        match self {
            Self::Topic(_) => "topic",
            Self::Broker(_) | Self::BrokerDefaults => "broker",
            Self::BrokerLoggers(_) => "broker-logger",
            Self::Group(_) => "group",
            Self::ClientMetrics(_) => "client-metrics",
        }
    }

    /// Its name: empty for the brokers' defaults.
    pub fn name(&self) -> String {
        match self {
            Self::Topic(name) | Self::Group(name) | Self::ClientMetrics(name) => name.clone(),
            Self::Broker(id) | Self::BrokerLoggers(id) => id.to_string(),
            Self::BrokerDefaults => String::new(),
        }
    }

    fn kind(&self) -> i8 {
        match self {
            Self::Topic(_) => 2,
            Self::Broker(_) | Self::BrokerDefaults => 4,
            Self::BrokerLoggers(_) => 8,
            Self::ClientMetrics(_) => 16,
            Self::Group(_) => 32,
        }
    }

    /// The only broker that knows and changes it; `None` where any one does.
    fn node(&self) -> Option<NodeId> {
        match self {
            Self::Broker(id) | Self::BrokerLoggers(id) => Some(*id),
            _ => None,
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
    /// Every place that could give a value, the deciding one first; empty unless they were asked for.
    pub synonyms: Vec<ConfigSynonym>,
    /// Whether it cannot be changed.
    pub read_only: bool,
    /// Whether it is secret.
    pub sensitive: bool,
}

/// A place that could give a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// The key there.
    pub name: String,
    /// The value there; `None` if it is secret.
    pub value: Option<String>,
    /// What place it is, numbered as [`ConfigEntry::source`].
    pub source: i8,
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
    /// Add these elements, separated by commas, to a list.
    Append(String),
    /// Take these elements, separated by commas, off a list.
    Subtract(String),
}

impl Client {
    /// The configurations of resources, by key.
    pub async fn describe_configs(
        &self,
        resources: &[ConfigResource],
    ) -> Result<BTreeMap<ConfigResource, BTreeMap<String, ConfigEntry>>, ClientError> {
        self.describe_configs_as(resources, false).await
    }

    /// The same, with every place that could give a value.
    pub async fn describe_configs_and_synonyms(
        &self,
        resources: &[ConfigResource],
    ) -> Result<BTreeMap<ConfigResource, BTreeMap<String, ConfigEntry>>, ClientError> {
        self.describe_configs_as(resources, true).await
    }

    async fn describe_configs_as(
        &self,
        resources: &[ConfigResource],
        synonyms: bool,
    ) -> Result<BTreeMap<ConfigResource, BTreeMap<String, ConfigEntry>>, ClientError> {
        let mut described = BTreeMap::new();
        let mut by_node: BTreeMap<Option<NodeId>, Vec<ConfigResource>> = BTreeMap::new();
        for resource in resources {
            by_node.entry(resource.node()).or_default().push(resource.clone());
        }
        for (node, resources) in by_node {
            let request = describe_request(&resources, synonyms);
            let answer = match node {
                Some(node) => self.send(node, request).await?,
                None => self.any(&request).await?,
            };
            collect_configs(&mut described, &resources, &answer)?;
        }
        Ok(described)
    }

    /// Changes configuration keys of one resource; other keys stay as they are. With `validate_only` nothing is changed.
    pub async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &BTreeMap<String, ConfigChange>,
        validate_only: bool,
    ) -> Result<(), ClientError> {
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: resource.kind(),
                resource_name: resource.name().into(),
                configs: changes.iter().map(alterable).collect(),
            }],
            validate_only,
        };
        let answer = match resource.node() {
            Some(node) => self.send(node, request).await?,
            None => {
                self.at_controller(
                    |_| request.clone(),
                    |answer| answer.responses.iter().map(|result| result.error_code).collect(),
                )
                .await?
            }
        };
        let what = format!("alter configuration of {resource}");
        match answer.responses.first() {
            None => Err(ClientError::Missing { what }),
            Some(result) => refusal(what, result.error_code, result.error_message.as_deref()),
        }
    }

    /// Everything that has a configuration of its own, or may have one (KIP-1142).
    pub async fn list_config_resources(&self) -> Result<Vec<ConfigResource>, ClientError> {
        let metadata = self.metadata(&[]).await?;
        let node = metadata.brokers.keys().next().copied();
        let node = node.ok_or_else(|| ClientError::NoBroker { tried: Vec::new() })?;
        // Version 0 knows client metrics only.
        self.require::<ListConfigResourcesRequest>(node, 1).await?;
        let answer = self.send(node, ListConfigResourcesRequest::default()).await?;
        refusal("configuration resources".to_owned(), answer.error_code, None)?;
        let known = answer
            .config_resources
            .iter()
            .filter_map(|one| ConfigResource::from_wire(one.resource_type, &one.resource_name));
        Ok(known.collect())
    }
}

fn alterable((name, change): (&String, &ConfigChange)) -> AlterableConfig {
    let (config_operation, value) = match change {
        ConfigChange::Set(value) => (0, Some(value.into())),
        ConfigChange::Delete => (1, None),
        ConfigChange::Append(value) => (2, Some(value.into())),
        ConfigChange::Subtract(value) => (3, Some(value.into())),
    };
    AlterableConfig {
        name: name.into(),
        config_operation,
        value,
    }
}

fn describe_request(resources: &[ConfigResource], include_synonyms: bool) -> DescribeConfigsRequest {
    let resource = |resource: &ConfigResource| DescribeConfigsResource {
        resource_type: resource.kind(),
        resource_name: resource.name().into(),
        configuration_keys: None,
    };
    DescribeConfigsRequest {
        resources: resources.iter().map(resource).collect(),
        include_synonyms,
        ..Default::default()
    }
}

fn collect_configs(
    described: &mut BTreeMap<ConfigResource, BTreeMap<String, ConfigEntry>>,
    asked: &[ConfigResource],
    answer: &tradewind_wire::messages::DescribeConfigsResponse,
) -> Result<(), ClientError> {
    for resource in asked {
        let what = format!("configuration of {resource}");
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
                synonyms: config.synonyms.iter().map(synonym).collect(),
                read_only: config.read_only,
                sensitive: config.is_sensitive,
            };
            (config.name.to_string(), entry)
        });
        described.insert(resource.clone(), entries.collect());
    }
    Ok(())
}

fn synonym(told: &DescribeConfigsSynonym) -> ConfigSynonym {
    ConfigSynonym {
        name: told.name.to_string(),
        value: told.value.as_ref().map(ToString::to_string),
        source: told.source,
    }
}
