//! Topics: their names, finding them for a request, and creating them when a client first names them.

use std::collections::BTreeSet;
use std::sync::Arc;

use tradewind_cluster::command::{Command, CreateTopic, MetaError};
use tradewind_cluster::image::{Daemon, FlowState, Image, Partition, Topic};
use tradewind_cluster::metadata::ProposeError;
use tradewind_wire::codec::Str;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::flow::Naming;
use tradewind_wire::ids::{NodeId, TopicId};

use crate::broker::{Broker, MESH_LISTENER, METADATA_TIMEOUT};
use crate::offsets_topic;

/// What anybody may do with a topic while there are no access rules: one bit for each of Kafka's operations, of which
/// READ is 3, WRITE 4, CREATE 5, DELETE 6, ALTER 7, DESCRIBE 8, DESCRIBE_CONFIGS 10 and ALTER_CONFIGS 11.
pub(crate) const TOPIC_OPERATIONS: i32 =
    1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;

/// What anybody may do with the cluster: CREATE, ALTER, DESCRIBE, CLUSTER_ACTION (9), DESCRIBE_CONFIGS, ALTER_CONFIGS and
/// IDEMPOTENT_WRITE (12).
pub(crate) const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// The longest topic name (Kafka's).
const MAX_NAME: usize = 249;

/// Whether `name` may be a topic's.
pub(crate) fn is_valid_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= MAX_NAME && name != "." && name != ".." && name.bytes().all(legal)
}

/// The topic that a request names by id or, in versions before ids, by name.
pub(crate) fn find<'a>(image: &'a Image, name: &str, id: TopicId) -> Result<&'a Arc<Topic>, ErrorCode> {
    if id.is_zero() {
        image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)
    } else {
        image.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId)
    }
}

/// Creates `name` because a client named it, if that is allowed. The error is what the client is told.
pub(crate) async fn create_on_demand(broker: &Broker, name: &str) -> ErrorCode {
    if !is_valid_name(name) {
        return ErrorCode::InvalidTopicException;
    }
    let (cluster, config) = (broker.cluster(), broker.config());
    let _one_at_a_time = broker.inner().auto_creation.lock().await;
    if cluster.image().topic(name).is_some() {
        return ErrorCode::LeaderNotAvailable;
    }
    if name == offsets_topic::NAME {
        return match offsets_topic::create(cluster, config).await {
            Ok(()) => ErrorCode::LeaderNotAvailable,
            Err(_) => ErrorCode::UnknownTopicOrPartition,
        };
    }
    // A flow would find the name taken, and an application would write where only the mirror may.
    if may_be_mirrored(&cluster.image(), name) {
        return ErrorCode::UnknownTopicOrPartition;
    }
    let id = TopicId::random(cluster.rng().as_ref());
    let topic = CreateTopic::new(name, id, config.num_partitions, config.default_replication_factor);
    match cluster
        .propose(Command::CreateTopic(topic), METADATA_TIMEOUT)
        .await
    {
        // Clients ask again, and find it.
        Ok(_) | Err(ProposeError::Refused(MetaError::TopicExists(_))) => ErrorCode::LeaderNotAvailable,
        Err(ProposeError::Refused(MetaError::InvalidTopic(_))) => ErrorCode::InvalidTopicException,
        Err(error) => {
            tracing::debug!(topic = name, %error, "topic not created on demand");
            ErrorCode::UnknownTopicOrPartition
        }
    }
}

/// Whether a flow into this cluster may create a topic of this name.
pub(crate) fn may_be_mirrored(image: &Image, name: &str) -> bool {
    let open = image
        .flows
        .values()
        .filter(|flow| flow.state != FlowState::Promoted);
    open.map(|flow| &flow.spec).any(|spec| match &spec.naming {
        // Heartbeats, checkpoints and whatever else stands under the source's name belong to the flow.
        Naming::Prefix { separator } => name
            .strip_prefix(&spec.source_cluster)
            .is_some_and(|rest| rest.starts_with(separator)),
        Naming::Identity => matches(&spec.topics, name) && !matches(&spec.topics_exclude, name),
    })
}

/// Whether one of the patterns matches the whole name. A pattern that is none was refused when it was declared.
fn matches(patterns: &[String], name: &str) -> bool {
    let whole = |pattern: &String| regex::Regex::new(&format!("^(?:{pattern})$"));
    patterns
        .iter()
        .any(|pattern| whole(pattern).is_ok_and(|pattern| pattern.is_match(name)))
}

/// Where a daemon is reached by clients of `listener`.
pub(crate) fn address(daemon: &Daemon, listener: &str) -> Option<(String, i32)> {
    if listener == MESH_LISTENER {
        let (host, port) = daemon.mesh.rsplit_once(':')?;
        return Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?));
    }
    let endpoint = daemon
        .listeners
        .iter()
        .find(|endpoint| endpoint.name == listener)?;
    Some((endpoint.host.clone(), i32::from(endpoint.port)))
}

/// Where clients of `listener` reach daemons that an answer names (KIP-951), each once, as `endpoint(id, host, port, rack)`. A
/// daemon without such a listener is left out, and so are negative ids.
pub(crate) fn endpoints<T>(
    image: &Image,
    listener: &str,
    named: impl Iterator<Item = NodeId>,
    endpoint: impl Fn(NodeId, Str, i32, Option<Str>) -> T,
) -> Vec<T> {
    let nodes: BTreeSet<NodeId> = named.collect();
    let found = nodes.into_iter().filter_map(|node| {
        let daemon = image.nodes.get(&node)?;
        let (host, port) = address(daemon, listener)?;
        let rack = daemon.rack.as_deref().map(Into::into);
        Some(endpoint(node, host.into(), port, rack))
    });
    found.collect()
}

/// The leader of a partition as clients of `listener` are told, -1 with an error if they cannot reach one.
pub(crate) fn leader(image: &Image, partition: &Partition, listener: &str) -> (NodeId, ErrorCode) {
    let reachable = |node: NodeId| {
        let daemon = image.nodes.get(&node);
        daemon.is_some_and(|daemon| address(daemon, listener).is_some())
    };
    match partition.leader {
        Some(leader) if reachable(leader) => (leader, ErrorCode::None),
        Some(_) => (-1, ErrorCode::ListenerNotFound),
        None => (-1, ErrorCode::LeaderNotAvailable),
    }
}

/// The replicas of a partition that clients of `listener` cannot reach: their daemons do not serve or do not have it, or their
/// disk failed.
pub(crate) fn offline(image: &Image, partition: &Partition, listener: &str) -> Vec<NodeId> {
    let reachable = |node: &NodeId| {
        let daemon = image.nodes.get(node);
        daemon.is_some_and(|daemon| address(daemon, listener).is_some())
    };
    let away = |node: &NodeId| !image.is_active(*node) || partition.failed.contains(node) || !reachable(node);
    partition.replicas.iter().copied().filter(away).collect()
}

/// Who takes administrative requests: every daemon does, so the controller if it is alive, else this one.
pub(crate) fn admin_node(broker: &Broker, image: &Image) -> NodeId {
    let controller = broker.cluster().metadata().controller();
    controller
        .filter(|node| image.is_active(*node))
        .unwrap_or_else(|| broker.cluster().node_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        for name in ["a", "east.orders", "__consumer_offsets", "A-1_b.c"] {
            assert!(is_valid_name(name), "{name}");
        }
        let long = "a".repeat(250);
        for name in ["", ".", "..", "a b", "ü", "a/b", "a:b", &long] {
            assert!(!is_valid_name(name), "{name}");
        }
    }

    #[test]
    fn addresses_belong_to_the_listener_used() {
        let daemon = Daemon {
            id: 1,
            epoch: 1,
            session: 1,
            incarnation: 0,
            boot_id: String::new(),
            state: tradewind_cluster::image::DaemonState::Active,
            rack: None,
            mesh: "[::1]:7100".into(),
            listeners: vec![tradewind_cluster::image::Endpoint {
                name: "out".into(),
                host: "h".into(),
                port: 9092,
            }],
            defaults: std::collections::BTreeMap::new(),
        };
        assert_eq!(address(&daemon, "out"), Some(("h".into(), 9092)));
        assert_eq!(address(&daemon, MESH_LISTENER), Some(("::1".into(), 7100)));
        assert_eq!(address(&daemon, "in"), None);
    }
}
