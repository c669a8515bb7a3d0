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
        let grown = match named.get_mut(topic.name.as_str()) {
            // The first of several was answered for all.
            Some(0) | None => continue,
            Some(count) if *count > 1 => {
                *count = 0;
                Err((ErrorCode::InvalidRequest, "Duplicate topic name.".to_owned()))
            }
            Some(_) => grow(broker, &topic, request.timeout_ms, request.validate_only).await,
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
            "This server does not host this topic-partition.".to_owned(),
        )
    })?;
    if topic.internal {
        return Err((
            ErrorCode::InvalidRequest,
            format!("{} belongs to the cluster.", topic.name),
        ));
    }
    if let Some(refusal) = broker.guard().refusal(topic.id, &topic.name) {
        return Err((ErrorCode::PolicyViolation, refusal));
    }
    let assignment: Option<Vec<Vec<i32>>> = wanted
        .assignments
        .as_ref()
        .map(|assignments| assignments.iter().map(|entry| entry.broker_ids.clone()).collect());
    let command = Command::GrowTopic(GrowTopic {
        id: topic.id,
        count: wanted.count,
        assignment,
        flow: None,
    });
    let grown = if validate_only {
        broker.rehearse(&command)
    } else {
        broker.cluster().propose(command, limit(timeout_ms)).await
    };
    grown.map(drop).map_err(|error| errors::of_propose(&error))
}
