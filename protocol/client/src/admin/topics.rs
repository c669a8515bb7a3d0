//! Topics: creating, growing and deleting them.

use std::collections::BTreeMap;

use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::messages::create_partitions::{CreatePartitionsAssignment, CreatePartitionsTopic};
use tradewind_wire::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreatableTopicResult,
};
use tradewind_wire::messages::delete_topics::DeleteTopicState;
use tradewind_wire::messages::{CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest};

use super::refusal;
use crate::client::Client;
use crate::error::ClientError;

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
        self.create_partitions_at(topic, count, &[], false).await
    }

    /// Grows a topic to `count` partitions whose new ones go to these brokers, the preferred leader of each first; the
    /// cluster places them if there are none. With `validate_only` nothing is changed.
    pub async fn create_partitions_at(
        &self,
        topic: &str,
        count: i32,
        assignment: &[Vec<NodeId>],
        validate_only: bool,
    ) -> Result<(), ClientError> {
        let placed = |brokers: &Vec<NodeId>| CreatePartitionsAssignment {
            broker_ids: brokers.clone(),
        };
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: topic.into(),
                count,
                assignments: (!assignment.is_empty()).then(|| assignment.iter().map(placed).collect()),
            }],
            timeout_ms: self.timeout_ms(),
            validate_only,
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
