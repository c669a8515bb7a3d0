//! Changing and describing a cluster: topics, configurations, groups.
//!
//! Changes go to the controller. One that may have been carried out is not sent again: the caller sees the error and
//! decides.

use std::collections::BTreeMap;
use std::time::Duration;

use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::messages::create_partitions::CreatePartitionsTopic;
use tradewind_wire::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreatableTopicResult,
};
use tradewind_wire::messages::delete_topics::DeleteTopicState;
use tradewind_wire::messages::describe_configs::DescribeConfigsResource;
use tradewind_wire::messages::describe_groups::DescribedGroup;
use tradewind_wire::messages::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
use tradewind_wire::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest, DeleteTopicsRequest,
    DescribeConfigsRequest, DescribeGroupsRequest, IncrementalAlterConfigsRequest, ListGroupsRequest,
    Request,
};

use crate::client::{ANY_VERSION, Client};
use crate::error::ClientError;
use crate::net::pool::Lane;

/// The first version of DeleteTopics that has a structure per topic.
const DELETE_STATES_FROM: i16 = 6;

/// A topic to create.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// The name.
    pub name: String,
    /// How many partitions; `None` for the cluster's default.
    pub partitions: Option<i32>,
    /// How many replicas each; `None` for the cluster's default.
    pub replication_factor: Option<i16>,
    /// The brokers of each partition, instead of the two counts.
    pub assignment: Vec<Vec<NodeId>>,
    /// Its configuration.
    pub configs: BTreeMap<String, String>,
}

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

/// A group as ListGroups tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// The name.
    pub group: String,
    /// `consumer`, or whatever the members call it; empty for one that only keeps offsets.
    pub protocol_type: String,
    /// The state; empty from old brokers.
    pub state: String,
}

impl Client {
    /// Creates topics. One result per topic, in order.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<Vec<Result<TopicId, ClientError>>, ClientError> {
        let request = CreateTopicsRequest {
            topics: topics.iter().map(creatable).collect(),
            timeout_ms: self.timeout_ms(),
            validate_only,
        };
        let answer = self
            .at_controller(
                |_| request.clone(),
                |answer| answer.topics.iter().map(|topic| topic.error_code).collect(),
            )
            .await?;
        let find = |wanted: &NewTopic| answer.topics.iter().find(|topic| *topic.name == *wanted.name);
        Ok(topics
            .iter()
            .map(|topic| {
                let what = format!("create topic {}", topic.name);
                match find(topic) {
                    None => Err(ClientError::Missing { what }),
                    Some(CreatableTopicResult {
                        error_code,
                        error_message,
                        topic_id,
                        ..
                    }) => refusal(what, *error_code, error_message.as_deref()).map(|()| *topic_id),
                }
            })
            .collect())
    }

    /// Creates one topic and waits until its leaders are known.
    pub async fn create_topic(&self, topic: &NewTopic) -> Result<TopicId, ClientError> {
        let results = self.create_topics(std::slice::from_ref(topic), false).await?;
        let missing = || ClientError::Missing {
            what: format!("create topic {}", topic.name),
        };
        let id = results.into_iter().next().ok_or_else(missing)??;
        self.retrying(|| async move {
            let metadata = self.metadata(&[&topic.name]).await?;
            let known = metadata.topics.get(&topic.name);
            let ready = |known: &&crate::TopicMetadata| {
                known.error.is_none()
                    && !known.partitions.is_empty()
                    && known
                        .partitions
                        .values()
                        .all(|partition| partition.leader.is_some())
            };
            match known.filter(ready) {
                Some(_) => Ok(()),
                None => Err(ClientError::NoLeader {
                    topic: topic.name.clone(),
                    partition: 0,
                }),
            }
        })
        .await?;
        Ok(id)
    }

    /// Deletes topics by name. One result per topic, in order.
    pub async fn delete_topics(&self, names: &[&str]) -> Result<Vec<Result<(), ClientError>>, ClientError> {
        let timeout_ms = self.timeout_ms();
        let build = |version| {
            let mut request = DeleteTopicsRequest {
                timeout_ms,
                ..Default::default()
            };
            if version >= DELETE_STATES_FROM {
                let state = |name: &&str| DeleteTopicState {
                    name: Some((*name).into()),
                    ..Default::default()
                };
                request.topics = names.iter().map(state).collect();
            } else {
                request.topic_names = names.iter().map(|name| (*name).into()).collect();
            }
            request
        };
        let answer = self
            .at_controller(build, |answer| {
                answer.responses.iter().map(|topic| topic.error_code).collect()
            })
            .await?;
        Ok(names
            .iter()
            .map(|name| {
                let what = format!("delete topic {name}");
                let found = answer
                    .responses
                    .iter()
                    .find(|topic| topic.name.as_deref() == Some(name));
                match found {
                    None => Err(ClientError::Missing { what }),
                    Some(result) => refusal(what, result.error_code, result.error_message.as_deref()),
                }
            })
            .collect())
    }

    /// Grows a topic to `count` partitions.
    pub async fn create_partitions(&self, topic: &str, count: i32) -> Result<(), ClientError> {
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: topic.into(),
                count,
                assignments: None,
            }],
            timeout_ms: self.timeout_ms(),
            validate_only: false,
        };
        let answer = self
            .at_controller(
                |_| request.clone(),
                |answer| answer.results.iter().map(|topic| topic.error_code).collect(),
            )
            .await?;
        let what = format!("grow topic {topic}");
        match answer.results.first() {
            None => Err(ClientError::Missing { what }),
            Some(result) => refusal(what, result.error_code, result.error_message.as_deref()),
        }
    }

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

    /// The groups of all brokers. An error of one broker is an error of the whole, so that no group is missed unseen.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, ClientError> {
        self.retrying(|| async move {
            let metadata = self.metadata(&[]).await?;
            let mut groups = BTreeMap::new();
            for node in metadata.brokers.keys() {
                let answer = self.send(*node, ListGroupsRequest::default()).await?;
                refusal(format!("groups of broker {node}"), answer.error_code, None)?;
                for group in answer.groups {
                    let listing = GroupListing {
                        group: group.group_id.to_string(),
                        protocol_type: group.protocol_type.to_string(),
                        state: group.group_state.to_string(),
                    };
                    groups.insert(listing.group.clone(), listing);
                }
            }
            Ok(groups.into_values().collect())
        })
        .await
    }

    /// Describes groups, each asked of its coordinator. A group that does not exist has the state `Dead`.
    pub async fn describe_groups(&self, groups: &[&str]) -> Result<Vec<DescribedGroup>, ClientError> {
        let limit = self.attempt_timeout();
        let mut described = Vec::with_capacity(groups.len());
        for group in groups {
            let build = |_| DescribeGroupsRequest {
                groups: vec![(*group).into()],
                ..Default::default()
            };
            let code = |answer: &tradewind_wire::messages::DescribeGroupsResponse| {
                let code = answer.groups.first().map_or(0, |group| group.error_code);
                ErrorCode::from_code(code)
            };
            let answer = self
                .at_coordinator(group, Lane::Short, limit, build, code)
                .await?;
            let what = format!("describe group {group}");
            let mut found = answer
                .groups
                .into_iter()
                .next()
                .ok_or_else(|| ClientError::Missing { what: what.clone() })?;
            if found.error_code == ErrorCode::GroupIdNotFound.code() {
                found.group_state = "Dead".into();
            } else {
                refusal(what, found.error_code, found.error_message.as_deref())?;
            }
            described.push(found);
        }
        Ok(described)
    }

    /// Deletes a group that has no members, with its offsets.
    pub async fn delete_group(&self, group: &str) -> Result<(), ClientError> {
        let limit = self.attempt_timeout();
        let build = |_| DeleteGroupsRequest {
            groups_names: vec![group.into()],
        };
        let code = |answer: &tradewind_wire::messages::DeleteGroupsResponse| {
            ErrorCode::from_code(answer.results.first().map_or(0, |result| result.error_code))
        };
        let answer = self
            .at_coordinator(group, Lane::Short, limit, build, code)
            .await?;
        refusal(format!("delete group {group}"), code(&answer).code(), None)
    }

    /// Calls the controller. Tried again only where the request was certainly not carried out: no connection, or the
    /// broker says that it is not the controller.
    async fn at_controller<R: Request>(
        &self,
        build: impl Fn(i16) -> R,
        codes: impl Fn(&R::Response) -> Vec<i16>,
    ) -> Result<R::Response, ClientError> {
        let (build, codes) = (&build, &codes);
        let limit = self.config().request_timeout + Duration::from_secs(2);
        // The inner result is settled; the outer one decides about another try.
        self.retrying(|| async move {
            let metadata = self.metadata(&[]).await?;
            let node = metadata
                .controller
                .or_else(|| metadata.brokers.keys().next().copied());
            let node = node.ok_or_else(|| ClientError::NoBroker { tried: Vec::new() })?;
            match self
                .send_built(node, Lane::Short, limit, ANY_VERSION, build)
                .await
            {
                Ok(answer) if codes(&answer).contains(&ErrorCode::NotController.code()) => {
                    Err(ClientError::broker(R::KEY.name(), ErrorCode::NotController, None))
                }
                Ok(answer) => Ok(Ok(answer)),
                Err(error @ (ClientError::Connect { .. } | ClientError::UnknownBroker(_))) => Err(error),
                Err(error) => Ok(Err(error)),
            }
        })
        .await?
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.config().request_timeout.as_millis()).unwrap_or(i32::MAX)
    }
}

fn creatable(topic: &NewTopic) -> CreatableTopic {
    let assignments = topic
        .assignment
        .iter()
        .zip(0..)
        .map(|(brokers, partition_index)| CreatableReplicaAssignment {
            partition_index,
            broker_ids: brokers.clone(),
        });
    let config = |(name, value): (&String, &String)| CreatableTopicConfig {
        name: name.into(),
        value: Some(value.into()),
    };
    CreatableTopic {
        name: (&topic.name).into(),
        num_partitions: topic
            .partitions
            .filter(|_| topic.assignment.is_empty())
            .unwrap_or(-1),
        replication_factor: topic
            .replication_factor
            .filter(|_| topic.assignment.is_empty())
            .unwrap_or(-1),
        assignments: assignments.collect(),
        configs: topic.configs.iter().map(config).collect(),
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

fn refusal(what: String, code: i16, message: Option<&str>) -> Result<(), ClientError> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(ClientError::broker(what, code, message)),
    }
}
