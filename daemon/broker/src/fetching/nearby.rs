//! Sending consumers to a copy in their own rack (KIP-392).
//!
//! Off unless the daemon is told `replica.selector.class`; then it does what Kafka's `RackAwareReplicaSelector` does: a
//! leader sends a consumer that names its rack to the follower of that rack that has the most, unless the leader is in it
//! itself. Only followers in sync that hold the wanted offset come into question, and only daemons that are alive.

use std::sync::Arc;

use tradewind_cluster::image::Image;
use tradewind_cluster::replica::Replica;
use tradewind_wire::ids::NodeId;

use crate::topics;

/// Kafka's class, and its short name: any of them turns selection by rack on.
const RACK_AWARE: &[&str] = &[
    "org.apache.kafka.common.replica.RackAwareReplicaSelector",
    "RackAwareReplicaSelector",
    "rack-aware",
];

/// Whether `replica.selector.class` asks for selection by rack.
pub(crate) fn is_rack_aware(selector: &str) -> bool {
    RACK_AWARE.contains(&selector.trim())
}

/// Chooses for one consumer.
pub(crate) struct Nearby {
    image: Arc<Image>,
    rack: String,
    listener: String,
}

impl Nearby {
    /// For a consumer in `rack`, on daemon `own`. Nothing to choose if it does not say, or if this daemon is in that rack.
    pub(crate) fn new(image: Arc<Image>, own: NodeId, rack: &str, listener: &str) -> Option<Self> {
        let near = image.nodes.get(&own)?.rack.as_deref() == Some(rack);
        (!rack.is_empty() && !near).then(|| Self {
            image,
            rack: rack.to_owned(),
            listener: listener.to_owned(),
        })
    }

    /// The follower to read `offset` from instead of the leader, which is here.
    pub(crate) fn choose(&self, replica: &Replica, offset: i64) -> Option<NodeId> {
        let copies = replica.copies_with(offset).into_iter();
        let near = copies.filter(|copy| {
            self.image.is_active(copy.node)
                && self.image.nodes.get(&copy.node).is_some_and(|daemon| {
                    daemon.rack.as_deref() == Some(self.rack.as_str())
                        && topics::address(daemon, &self.listener).is_some()
                })
        });
        near.max_by_key(|copy| (copy.end, copy.caught_up_ms, std::cmp::Reverse(copy.node)))
            .map(|copy| copy.node)
    }
}
