//! CreateTopics. The answer comes when this daemon knows the topic.

use std::collections::{BTreeMap, HashMap};

use tradewind_cluster::command::{Command, CreateTopic, Outcome};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::messages::create_topics::{CreatableTopic, CreatableTopicConfigs, CreatableTopicResult};
use tradewind_wire::messages::{CreateTopicsRequest, CreateTopicsResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::{configs, errors, offsets_topic, topics};

use super::limit;

pub(crate) async fn handle(
    broker: &Broker,
    call: Call<'_>,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut named: HashMap<String, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.to_string()).or_default() += 1;
    }
    let mut topics = Vec::with_capacity(request.topics.len().min(1_000));
    for topic in request.topics {
        let created = match named.get_mut(topic.name.as_str()) {
            // The first of several was answered for all.
            Some(0) | None => continue,
            Some(count) if *count > 1 => {
                *count = 0;
                Err((ErrorCode::InvalidRequest, "Duplicate topic name.".to_owned()))
            }
            Some(_) => create(broker, call, &topic, request.timeout_ms, request.validate_only).await,
        };
        topics.push(created.unwrap_or_else(|(error, message)| CreatableTopicResult {
            name: topic.name.clone(),
            error_code: error.code(),
            error_message: Some(message.into()),
            ..Default::default()
        }));
    }
    CreateTopicsResponse {
        topics,
        ..Default::default()
    }
}

type Refused = (ErrorCode, String);

async fn create(
    broker: &Broker,
    call: Call<'_>,
    topic: &CreatableTopic,
    timeout_ms: i32,
    validate_only: bool,
) -> Result<CreatableTopicResult, Refused> {
    let cluster = broker.cluster();
    let command = command(broker, topic)?;
    let configs = command.configs.clone();
    let command = Command::CreateTopic(command);
    let outcome = if validate_only {
        broker.rehearse(&command)
    } else {
        cluster.propose(command, limit(timeout_ms)).await
    };
    let outcome = outcome.map_err(|error| errors::of_propose(&error))?;
    let mut result = CreatableTopicResult {
        name: topic.name.clone(),
        ..Default::default()
    };
    if let Outcome::Topic {
        id,
        partitions,
        replication_factor,
    } = outcome
    {
        result.topic_id = if validate_only { TopicId::default() } else { id };
        result.num_partitions = partitions;
        result.replication_factor = replication_factor;
    }
    if call.version >= 5 {
        let image = cluster.image();
        let created = image.topic_by_id(result.topic_id);
        let described = configs::of_topic(cluster, created.map_or(&configs, |topic| &topic.configs));
        result.configs = Some(described.into_iter().map(listed).collect());
    }
    Ok(result)
}

fn listed(described: configs::Described) -> CreatableTopicConfigs {
    CreatableTopicConfigs {
        name: described.name.into(),
        value: Some(described.value.into()),
        read_only: described.read_only,
        config_source: described.source as i8,
        is_sensitive: false,
    }
}

/// What is proposed, with defaults filled in.
fn command(broker: &Broker, topic: &CreatableTopic) -> Result<CreateTopic, Refused> {
    let name = topic.name.to_string();
    if !topics::is_valid_name(&name) {
        return Err((
            ErrorCode::InvalidTopicException,
            format!("Topic name '{name}' is not valid."),
        ));
    }
    if name == offsets_topic::NAME {
        let message = format!("{name} is created by the cluster itself.");
        return Err((ErrorCode::InvalidRequest, message));
    }
    let assignment = assignment(topic)?;
    if assignment.is_none() && topic.replication_factor < -1 || topic.replication_factor == 0 {
        let message = "Replication factor must be larger than 0, or -1 to use the default value.";
        return Err((ErrorCode::InvalidReplicationFactor, message.to_owned()));
    }
    let mut configs = BTreeMap::new();
    for entry in &topic.configs {
        let Some(value) = &entry.value else {
            return Err((
                ErrorCode::InvalidConfig,
                format!("Null value not supported for topic configs: {}", entry.name),
            ));
        };
        configs.insert(entry.name.to_string(), value.to_string());
    }
    let settings = broker.config();
    let default_factor = topic.replication_factor == -1;
    let mut command = CreateTopic::new(
        &name,
        TopicId::random(broker.cluster().rng().as_ref()),
        if topic.num_partitions == -1 {
            settings.num_partitions
        } else {
            topic.num_partitions
        },
        if default_factor {
            settings.default_replication_factor
        } else {
            topic.replication_factor
        },
    );
    command.clamp = default_factor;
    command.assignment = assignment;
    command.configs = configs;
    Ok(command)
}

fn assignment(topic: &CreatableTopic) -> Result<Option<Vec<Vec<NodeId>>>, Refused> {
    if topic.assignments.is_empty() {
        return Ok(None);
    }
    let excluded = match (topic.num_partitions, topic.replication_factor) {
        (-1, -1) => None,
        (-1, _) => Some("replication factor"),
        _ => Some("numPartitions"),
    };
    if let Some(what) = excluded {
        let message = format!("A manual partition assignment was specified, but {what} was not set to -1.");
        return Err((ErrorCode::InvalidRequest, message));
    }
    let mut by_partition: BTreeMap<i32, Vec<NodeId>> = BTreeMap::new();
    for entry in &topic.assignments {
        if by_partition
            .insert(entry.partition_index, entry.broker_ids.clone())
            .is_some()
        {
            let message = format!(
                "Found multiple manual partition assignments for partition {}",
                entry.partition_index
            );
            return Err((ErrorCode::InvalidReplicaAssignment, message));
        }
    }
    if !by_partition.keys().copied().eq((0..).take(by_partition.len())) {
        let message = "partitions should be a consecutive 0-based integer sequence";
        return Err((ErrorCode::InvalidReplicaAssignment, message.to_owned()));
    }
    Ok(Some(by_partition.into_values().collect()))
}
