//! Fetch: reads batches, and waits for them where there are none yet. The parts are in `fetching/`.

use std::time::Duration;

use tradewind_cluster::image::Image;
use tradewind_cluster::replica::Isolation;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::fetch::{FetchableTopicResponse, NodeEndpoint};
use tradewind_wire::messages::{FetchRequest, FetchResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::fetching::Answer;
use crate::fetching::nearby::Nearby;
use crate::fetching::plan::{Plan, Terms};
use crate::{metrics, topics};

/// The most bytes of records in one answer (`fetch.max.bytes`), whatever the client asks for.
const MAX_BYTES: usize = 55 << 20;
/// The longest wait of one fetch.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// The first version in which consumers name their rack, and know that a follower may answer (KIP-392).
const RACKS_FROM: i16 = 11;
/// The first version that is told where the leaders are that an answer names (KIP-951).
const ENDPOINTS_FROM: i16 = 16;

pub(crate) async fn handle(broker: &Broker, call: Call<'_>, request: FetchRequest) -> FetchResponse {
    let cluster = broker.cluster();
    let sessions = &broker.inner().fetch_sessions;
    let now_ms = || u64::try_from(cluster.clock().monotonic().as_millis()).unwrap_or(u64::MAX);
    let fetching = match sessions.begin(&request, call.version, now_ms()) {
        Ok(fetching) => fetching,
        Err(error) => return refuse(0, error),
    };
    let size = |bytes: i32| usize::try_from(bytes).unwrap_or(0);
    let terms = Terms {
        isolation: if request.isolation_level == 1 {
            Isolation::ReadCommitted
        } else {
            Isolation::ReadUncommitted
        },
        wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(MAX_WAIT),
        min_bytes: size(request.min_bytes),
        max_bytes: size(request.max_bytes).min(MAX_BYTES),
        at_followers: call.version >= RACKS_FROM,
    };
    let nearby = if call.version >= RACKS_FROM && broker.config().rack_aware_fetch {
        let listener = &call.connection.listener;
        Nearby::new(cluster.image(), cluster.node_id(), &request.rack_id, listener)
    } else {
        None
    };
    let plan = Plan::new(cluster, fetching.asked(), terms, nearby);
    let Some(answers) = plan.run().await else {
        return refuse(0, ErrorCode::UnknownServerError);
    };
    let (session_id, answers) = match sessions.finish(&fetching, answers, now_ms()) {
        Ok(finished) => finished,
        Err((session_id, error)) => return refuse(session_id, error),
    };
    let responses = by_topic(answers);
    let all = responses.iter().flat_map(|topic| &topic.partitions);
    metrics::fetched(all.map(|partition| partition.records.len()).sum());
    let node_endpoints = if call.version >= ENDPOINTS_FROM {
        leaders(&responses, &cluster.image(), &call.connection.listener)
    } else {
        Vec::new()
    };
    FetchResponse {
        session_id,
        responses,
        node_endpoints,
        ..Default::default()
    }
}

fn refuse(session_id: i32, error: ErrorCode) -> FetchResponse {
    FetchResponse {
        error_code: error.code(),
        session_id,
        ..Default::default()
    }
}

/// Puts what follows each other of the same topic together; the order of the partitions says what was read first.
fn by_topic(answers: Vec<Answer>) -> Vec<FetchableTopicResponse> {
    let mut topics: Vec<FetchableTopicResponse> = Vec::new();
    for (asked, data) in answers {
        match topics.last_mut() {
            Some(last) if last.topic_id == asked.topic.id && last.topic == asked.topic.name => {
                last.partitions.push(data);
            }
            _ => topics.push(FetchableTopicResponse {
                topic: asked.topic.name,
                topic_id: asked.topic.id,
                partitions: vec![data],
            }),
        }
    }
    topics
}

/// Where to reach the leaders that partitions name.
fn leaders(found: &[FetchableTopicResponse], image: &Image, listener: &str) -> Vec<NodeEndpoint> {
    let named = found
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|partition| partition.current_leader.leader_id);
    topics::endpoints(image, listener, named, |node_id, host, port, rack| NodeEndpoint {
        node_id,
        host,
        port,
        rack,
    })
}
