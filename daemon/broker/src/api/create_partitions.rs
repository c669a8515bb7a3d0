//! CreatePartitions: a topic only ever grows.

use std::collections::HashMap;

use tradewind_cluster::command::{Command, GrowTopic};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::create_partitions::{CreatePartitionsTopic, CreatePartitionsTopicResult};
use tradewind_wire::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;

use super::limit;

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut named: HashMap<String, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.to_string()).or_default() += 1;
    }
    let mut results = Vec::with_capacity(request.topics.len().min(1_000));
    for topic in request.topics {
        let grown = if named.get(topic.name.as_str()).is_some_and(|count| *count > 1) {
            Err((
                ErrorCode::InvalidRequest,
                "The request names this topic more than once.".to_owned(),
            ))
        } else {
            grow(broker, &topic, request.timeout_ms, request.validate_only).await
        };
        let (error, message) = match grown {
            Ok(()) => (ErrorCode::None, None),
            Err((error, message)) => (error, Some(message.into())),
        };
        results.push(CreatePartitionsTopicResult {
            name: topic.name,
            error_code: error.code(),
            error_message: message,
        });
    }
    CreatePartitionsResponse {
        results,
        ..Default::default()
    }
}

async fn grow(
    broker: &Broker,
    wanted: &CreatePartitionsTopic,
    timeout_ms: i32,
    validate_only: bool,
) -> Result<(), (ErrorCode, String)> {
    let image = broker.cluster().image();
    let topic = image.topic(&wanted.name).ok_or_else(|| {
        (
            ErrorCode::UnknownTopicOrPartition,
            format!("The topic '{}' does not exist.", wanted.name),
        )
    })?;
    let present = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    if wanted.count <= present {
        let message = format!(
            "The topic has {present} partitions; {} would not be an increase.",
            wanted.count
        );
        return Err((ErrorCode::InvalidPartitions, message));
    }
    if topic.internal {
        return Err((
            ErrorCode::InvalidRequest,
            format!("{} belongs to the cluster.", topic.name),
        ));
    }
    let assignment: Option<Vec<Vec<i32>>> = wanted
        .assignments
        .as_ref()
        .map(|assignments| assignments.iter().map(|entry| entry.broker_ids.clone()).collect());
    if assignment
        .as_ref()
        .is_some_and(|assignment| assignment.len() as i64 != i64::from(wanted.count - present))
    {
        let message = format!(
            "{} partitions are added; as many must be assigned.",
            wanted.count - present
        );
        return Err((ErrorCode::InvalidReplicaAssignment, message));
    }
    if topic.is_mirroring() {
        let message = format!("Topic '{}' grows with its source.", topic.name);
        return Err((ErrorCode::PolicyViolation, message));
    }
    if validate_only {
        return Ok(());
    }
    let command = Command::GrowTopic(GrowTopic {
        id: topic.id,
        count: wanted.count,
        assignment,
        flow: None,
    });
    let proposed = broker.cluster().propose(command, limit(timeout_ms)).await;
    proposed.map(drop).map_err(|error| errors::of_propose(&error))
}
