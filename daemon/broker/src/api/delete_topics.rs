//! DeleteTopics, by name or (from version 6 on) by id.

use std::collections::HashMap;

use tradewind_cluster::command::Command;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::failback::RESCUE_PREFIX;
use tradewind_wire::messages::delete_topics::{DeletableTopicResult, DeleteTopicState};
use tradewind_wire::messages::{DeleteTopicsRequest, DeleteTopicsResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;

use super::limit;

pub(crate) async fn handle(
    broker: &Broker,
    call: Call<'_>,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let wanted = if call.version >= 6 {
        request.topics
    } else {
        let named = |name| DeleteTopicState {
            name: Some(name),
            ..Default::default()
        };
        request.topic_names.into_iter().map(named).collect()
    };
    let mut responses = Vec::with_capacity(wanted.len().min(1_000));
    let mut named = HashMap::new();
    for wanted in &wanted {
        *named
            .entry((wanted.name.clone(), wanted.topic_id))
            .or_insert(0_usize) += 1;
    }
    for wanted in wanted {
        let times = match named.get_mut(&(wanted.name.clone(), wanted.topic_id)) {
            // The first of several was answered for all.
            Some(0) | None => continue,
            Some(times) => std::mem::replace(times, 0),
        };
        let mut result = DeletableTopicResult {
            name: wanted.name.clone(),
            topic_id: wanted.topic_id,
            ..Default::default()
        };
        let deleted = match &wanted.name {
            Some(_) if !wanted.topic_id.is_zero() => {
                refuse("You may not specify both topic name and topic id.")
            }
            None if wanted.topic_id.is_zero() => refuse("Neither topic name nor id were specified."),
            Some(_) if times > 1 => refuse("Duplicate topic name."),
            None if times > 1 => refuse("Duplicate topic id."),
            _ => delete(broker, &wanted, request.timeout_ms, &mut result).await,
        };
        if let Err((error, message)) = deleted {
            result.error_code = error.code();
            result.error_message = Some(message.into());
        }
        responses.push(result);
    }
    DeleteTopicsResponse {
        responses,
        ..Default::default()
    }
}

fn refuse(message: &str) -> Result<(), (ErrorCode, String)> {
    Err((ErrorCode::InvalidRequest, message.to_owned()))
}

async fn delete(
    broker: &Broker,
    wanted: &DeleteTopicState,
    timeout_ms: i32,
    result: &mut DeletableTopicResult,
) -> Result<(), (ErrorCode, String)> {
    let image = broker.cluster().image();
    let topic = match &wanted.name {
        Some(name) => image.topic(name).ok_or_else(|| {
            (
                ErrorCode::UnknownTopicOrPartition,
                "This server does not host this topic-partition.".to_owned(),
            )
        })?,
        None => image.topic_by_id(wanted.topic_id).ok_or_else(|| {
            (
                ErrorCode::UnknownTopicId,
                "This server does not host this topic ID.".to_owned(),
            )
        })?,
    };
    result.name = Some(topic.name.as_str().into());
    result.topic_id = topic.id;
    // What a failback has kept is the operator's to delete.
    if topic.internal && !topic.name.starts_with(RESCUE_PREFIX) {
        return Err((
            ErrorCode::InvalidRequest,
            format!("{} belongs to the cluster.", topic.name),
        ));
    }
    // It would not give way with the others, and what it alone has would be gone.
    if let Some(refusal) = broker.guard().refusal(topic.id, &topic.name) {
        return Err((ErrorCode::PolicyViolation, refusal));
    }
    let proposed = broker
        .cluster()
        .propose(Command::DeleteTopic { id: topic.id }, limit(timeout_ms))
        .await;
    proposed.map(drop).map_err(|error| errors::of_propose(&error))
}
