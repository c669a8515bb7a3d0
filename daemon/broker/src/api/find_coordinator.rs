//! FindCoordinator: which daemon looks after a group. The first question creates `__consumer_offsets`.

use tradewind_cluster::image::Image;
use tradewind_wire::codec::Str;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::find_coordinator::Coordinator;
use tradewind_wire::messages::{FindCoordinatorRequest, FindCoordinatorResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::{offsets_topic, topics};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(crate) async fn handle(
    broker: &Broker,
    call: Call<'_>,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let many = call.version >= 4;
    let keys = if many {
        request.coordinator_keys
    } else {
        vec![request.key]
    };
    if request.key_type == GROUP && broker.cluster().image().topic(offsets_topic::NAME).is_none() {
        let _one_at_a_time = broker.inner().auto_creation.lock().await;
        if let Err(error) = offsets_topic::create(broker.cluster(), broker.config()).await {
            tracing::debug!(%error, "the offsets topic is not created yet");
        }
    }
    let image = broker.cluster().image();
    let mut coordinators: Vec<Coordinator> = keys
        .into_iter()
        .map(|key| find(broker, call, &image, request.key_type, key))
        .collect();
    if many {
        return FindCoordinatorResponse {
            coordinators,
            ..Default::default()
        };
    }
    let only = coordinators.pop().unwrap_or_default();
    FindCoordinatorResponse {
        error_code: only.error_code,
        error_message: only.error_message,
        node_id: only.node_id,
        host: only.host,
        port: only.port,
        ..Default::default()
    }
}

fn find(broker: &Broker, call: Call<'_>, image: &Image, key_type: i8, key: Str) -> Coordinator {
    let failed = |error: ErrorCode, message: &str| Coordinator {
        key: key.clone(),
        node_id: -1,
        port: -1,
        error_code: error.code(),
        error_message: Some(message.into()),
        ..Default::default()
    };
    match key_type {
        GROUP if key.is_empty() => return failed(ErrorCode::InvalidGroupId, "The group id is empty."),
        GROUP => {}
        TRANSACTION => return failed(ErrorCode::InvalidRequest, "Transactions are not supported."),
        _ => {
            return failed(
                ErrorCode::InvalidRequest,
                "There are coordinators of groups only.",
            );
        }
    }
    let partition = broker.coordinator().partition_of(&key);
    let leader = image
        .topic(offsets_topic::NAME)
        .and_then(|topic| topic.partition(partition))
        .and_then(|partition| partition.leader)
        .and_then(|leader| image.nodes.get(&leader));
    let address = leader
        .and_then(|daemon| topics::address(daemon, &call.connection.listener).map(|at| (daemon.id, at)));
    match address {
        Some((node_id, (host, port))) => Coordinator {
            key,
            node_id,
            host: host.into(),
            port,
            ..Default::default()
        },
        None => failed(
            ErrorCode::CoordinatorNotAvailable,
            "The group's partition has no leader yet.",
        ),
    }
}
