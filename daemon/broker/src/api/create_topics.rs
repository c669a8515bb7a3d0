//! CreateTopics. The answer comes when this daemon knows the topic.

use std::collections::{BTreeMap, HashMap};

use tradewind_cluster::command::{Command, CreateTopic, Outcome};
use tradewind_cluster::config;
use tradewind_cluster::image::Image;
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
        let repeated = named.get(topic.name.as_str()).is_some_and(|count| *count > 1);
        let created = if repeated {
            Err((
                ErrorCode::InvalidRequest,
                "The request names this topic more than once.".to_owned(),
            ))
        } else {
            create(broker, call, &topic, request.timeout_ms, request.validate_only).await
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
    let (partitions, factor) = checked(&cluster.image(), &command)?;
    let mut result = CreatableTopicResult {
        name: topic.name.clone(),
        num_partitions: partitions,
        replication_factor: factor,
        ..Default::default()
    };
    if !validate_only {
        topics::warn_about_compaction(&command.name, &command.configs);
        let id = command.id;
        let outcome = cluster
            .propose(Command::CreateTopic(command), limit(timeout_ms))
            .await;
        let outcome = outcome.map_err(|error| errors::of_propose(&error))?;
        result.topic_id = id;
        if let Outcome::Topic {
            id,
            partitions,
            replication_factor,
        } = outcome
        {
            result.topic_id = id;
            result.num_partitions = partitions;
            result.replication_factor = replication_factor;
        }
    }
    if call.version >= 5 {
        let image = cluster.image();
        let created = image.topic_by_id(result.topic_id);
        let described = configs::of_topic(cluster, created.map(AsRef::as_ref));
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
    let mut configs = BTreeMap::new();
    for entry in &topic.configs {
        let Some(value) = &entry.value else {
            return Err((
                ErrorCode::InvalidConfig,
                format!("Null value for configuration {}.", entry.name),
            ));
        };
        config::validate(&entry.name, value).map_err(|message| (ErrorCode::InvalidConfig, message))?;
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
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        let message = "A manual assignment excludes a number of partitions and a replication factor.";
        return Err((ErrorCode::InvalidRequest, message.to_owned()));
    }
    let mut by_partition: BTreeMap<i32, Vec<NodeId>> = BTreeMap::new();
    for entry in &topic.assignments {
        if by_partition
            .insert(entry.partition_index, entry.broker_ids.clone())
            .is_some()
        {
            let message = format!("Partition {} is assigned twice.", entry.partition_index);
            return Err((ErrorCode::InvalidReplicaAssignment, message));
        }
    }
    if !by_partition.keys().copied().eq((0..).take(by_partition.len())) {
        let message = "Partitions must be numbered from 0 without gaps.";
        return Err((ErrorCode::InvalidReplicaAssignment, message.to_owned()));
    }
    Ok(Some(by_partition.into_values().collect()))
}

/// What can be known without proposing; the metadata checks it all again. Answers partitions and replicas to expect.
fn checked(image: &Image, command: &CreateTopic) -> Result<(i32, i16), Refused> {
    if image.topic(&command.name).is_some() {
        return Err((
            ErrorCode::TopicAlreadyExists,
            format!("Topic '{}' already exists.", command.name),
        ));
    }
    let daemons = image.active().count();
    if let Some(assignment) = &command.assignment {
        let factor = assignment.first().map_or(0, Vec::len);
        return Ok((assignment.len() as i32, factor as i16));
    }
    if command.partitions <= 0 {
        let message = "Number of partitions must be larger than 0.".to_owned();
        return Err((ErrorCode::InvalidPartitions, message));
    }
    let factor = usize::try_from(command.replication_factor).unwrap_or(0);
    if factor == 0 || (factor > daemons && !command.clamp) {
        let message = format!(
            "Replication factor {} does not fit {daemons} daemons.",
            command.replication_factor
        );
        return Err((ErrorCode::InvalidReplicationFactor, message));
    }
    Ok((command.partitions, factor.min(daemons.max(1)) as i16))
}
