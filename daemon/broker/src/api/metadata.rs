//! Metadata: brokers, topics, leaders. Any daemon answers it from its own image.

use std::sync::Arc;

use tradewind_cluster::image::{Image, Partition, Topic};
use tradewind_wire::codec::Str;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::metadata::{
    MetadataRequestTopic, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use tradewind_wire::messages::{MetadataRequest, MetadataResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::topics;

pub(crate) async fn handle(broker: &Broker, call: Call<'_>, request: MetadataRequest) -> MetadataResponse {
    let may_create =
        broker.config().auto_create_topics && request.allow_auto_topic_creation && !call.connection.read_only;
    let wanted = match request.topics {
        Some(wanted) if !(call.version == 0 && wanted.is_empty()) => Some(wanted),
        _ => None,
    };
    let named = wanted.is_some();
    let mut topics: Vec<_> = match wanted {
        None => {
            let image = broker.cluster().image();
            let listener = &call.connection.listener;
            image
                .names
                .values()
                .filter_map(|id| image.topic_by_id(*id))
                .map(|topic| describe(&image, topic, listener, call.version))
                .collect()
        }
        Some(wanted) if call.version < 12 && wanted.iter().any(is_by_id) => {
            wanted.iter().map(refused_id).collect()
        }
        Some(wanted) => {
            let mut topics = Vec::with_capacity(wanted.len().min(1_000));
            for wanted in wanted {
                topics.push(one(broker, call, wanted, may_create).await);
            }
            topics
        }
    };
    if request.include_topic_authorized_operations {
        let found = topics.iter_mut().filter(|topic| topic.error_code == 0);
        found.for_each(|topic| topic.topic_authorized_operations = topics::TOPIC_OPERATIONS);
    }
    let image = broker.cluster().image();
    let moved = call.version >= 13 && !call.connection.read_only && named && all_moved(&image, &topics);
    let mut response = MetadataResponse {
        error_code: if moved {
            ErrorCode::RebootstrapRequired.code()
        } else {
            ErrorCode::None.code()
        },
        brokers: brokers(&image, &call.connection.listener),
        cluster_id: image.cluster_id.map(|id| id.to_string().into()),
        controller_id: topics::admin_node(broker, &image),
        topics,
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = topics::CLUSTER_OPERATIONS;
    }
    response
}

/// Whether there are topics and all of them were moved to another cluster: whoever asks for them should look there
/// (KIP-1102).
fn all_moved(image: &Image, topics: &[MetadataResponseTopic]) -> bool {
    let moved = |topic: &MetadataResponseTopic| {
        let known = image.topic_by_id(topic.topic_id);
        topic.error_code == ErrorCode::None.code() && known.is_some_and(|topic| topic.is_elsewhere())
    };
    !topics.is_empty() && topics.iter().all(moved)
}

/// Whether a topic is asked for by its id: possible from version 12 on, though 10 and 11 have room for it.
fn is_by_id(wanted: &MetadataRequestTopic) -> bool {
    wanted.name.is_none() || !wanted.topic_id.is_zero()
}

/// Such a request is refused as a whole.
fn refused_id(wanted: &MetadataRequestTopic) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(wanted.name.clone().unwrap_or_default()),
        topic_id: wanted.topic_id,
        ..Default::default()
    }
}

/// The active daemons that have the listener.
fn brokers(image: &Image, listener: &str) -> Vec<MetadataResponseBroker> {
    let describe = |daemon: &tradewind_cluster::image::Daemon| {
        let (host, port) = topics::address(daemon, listener)?;
        let rack = daemon.rack.as_deref().map(Into::into);
        Some(MetadataResponseBroker {
            node_id: daemon.id,
            host: host.into(),
            port,
            rack,
        })
    };
    image.active().filter_map(describe).collect()
}

async fn one(
    broker: &Broker,
    call: Call<'_>,
    wanted: MetadataRequestTopic,
    may_create: bool,
) -> MetadataResponseTopic {
    let failed = |error: ErrorCode| MetadataResponseTopic {
        error_code: error.code(),
        name: wanted.name.clone(),
        topic_id: wanted.topic_id,
        ..Default::default()
    };
    let image = broker.cluster().image();
    let listener = &call.connection.listener;
    if !wanted.topic_id.is_zero() {
        return match image.topic_by_id(wanted.topic_id) {
            Some(topic) => describe(&image, topic, listener, call.version),
            None => MetadataResponseTopic {
                name: None,
                ..failed(ErrorCode::UnknownTopicId)
            },
        };
    }
    let Some(name) = &wanted.name else {
        return MetadataResponseTopic {
            name: Some(Str::default()),
            ..failed(ErrorCode::InvalidRequest)
        };
    };
    if let Some(topic) = image.topic(name) {
        return describe(&image, topic, listener, call.version);
    }
    if !topics::is_valid_name(name) {
        return failed(ErrorCode::InvalidTopicException);
    }
    if !may_create {
        return failed(ErrorCode::UnknownTopicOrPartition);
    }
    let error = topics::create_on_demand(broker, name).await;
    let image = broker.cluster().image();
    match image.topic(name) {
        // It has leaders already: one round trip less than Kafka needs.
        Some(topic) => describe(&image, topic, listener, call.version),
        None => failed(error),
    }
}

fn describe(image: &Image, topic: &Arc<Topic>, listener: &str, version: i16) -> MetadataResponseTopic {
    let partitions = (0..).zip(&topic.partitions);
    MetadataResponseTopic {
        error_code: ErrorCode::None.code(),
        name: Some(topic.name.as_str().into()),
        topic_id: topic.id,
        is_internal: topic.internal,
        partitions: partitions
            .map(|(number, partition)| of_partition(image, number, partition, listener, version))
            .collect(),
        ..Default::default()
    }
}

fn of_partition(
    image: &Image,
    number: i32,
    partition: &Partition,
    listener: &str,
    version: i16,
) -> MetadataResponsePartition {
    let (leader_id, mut error) = topics::leader(image, partition, listener);
    if version < 6 && error == ErrorCode::ListenerNotFound {
        error = ErrorCode::LeaderNotAvailable;
    }
    MetadataResponsePartition {
        error_code: error.code(),
        partition_index: number,
        leader_id,
        leader_epoch: partition.leader_epoch,
        replica_nodes: partition.replicas.clone(),
        isr_nodes: partition.isr.clone(),
        offline_replicas: topics::offline(image, partition, listener),
    }
}
