//! What a client knows of its cluster: brokers, topics, leaders. An immutable picture, replaced as a whole.

use std::collections::BTreeMap;
use std::time::Duration;

use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::messages::MetadataResponse;
use tradewind_wire::messages::metadata::{MetadataResponsePartition, MetadataResponseTopic};

/// A picture of the cluster, as its answers built it up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterMetadata {
    /// The cluster's id, if the broker tells it.
    pub cluster_id: Option<String>,
    /// The broker to send changes to.
    pub controller: Option<NodeId>,
    /// The brokers.
    pub brokers: BTreeMap<NodeId, Broker>,
    /// The topics that were asked about, by name; those that do not exist carry an error.
    pub topics: BTreeMap<String, TopicMetadata>,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its id.
    pub id: NodeId,
    /// The host to reach it at.
    pub host: String,
    /// The port.
    pub port: i32,
    /// Its rack, if it has one.
    pub rack: Option<String>,
}

impl Broker {
    /// `host:port`, with brackets around an IPv6 address.
    pub fn addr(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Its name.
    pub name: String,
    /// Its id; zero if the cluster has none.
    pub id: TopicId,
    /// Whether it belongs to the cluster itself.
    pub internal: bool,
    /// Why the topic cannot be used, if it cannot.
    pub error: Option<ErrorCode>,
    /// The partitions by number.
    pub partitions: BTreeMap<i32, PartitionMetadata>,
    /// When this was learnt, on the client's monotonic clock.
    pub learnt_at: Duration,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// The leader, if there is one.
    pub leader: Option<NodeId>,
    /// The leader epoch; -1 if the cluster does not tell.
    pub leader_epoch: i32,
    /// The replicas.
    pub replicas: Vec<NodeId>,
    /// The in-sync replicas.
    pub isr: Vec<NodeId>,
}

impl ClusterMetadata {
    /// This picture with an answer worked in. `whole` says that the answer lists all topics, so others are gone.
    pub(crate) fn merge(&self, answer: &MetadataResponse, whole: bool, now: Duration) -> Self {
        let brokers = answer.brokers.iter().map(|broker| {
            let known = Broker {
                id: broker.node_id,
                host: broker.host.to_string(),
                port: broker.port,
                rack: broker.rack.as_ref().map(ToString::to_string),
            };
            (known.id, known)
        });
        let mut topics = if whole {
            BTreeMap::new()
        } else {
            self.topics.clone()
        };
        for topic in &answer.topics {
            let Some(name) = &topic.name else { continue };
            let learnt = TopicMetadata::new(topic, self.topics.get(&**name), now);
            topics.insert(name.to_string(), learnt);
        }
        Self {
            cluster_id: answer
                .cluster_id
                .as_ref()
                .map(ToString::to_string)
                .or_else(|| self.cluster_id.clone()),
            controller: (answer.controller_id >= 0).then_some(answer.controller_id),
            brokers: brokers.collect(),
            topics,
        }
    }
}

impl TopicMetadata {
    /// From an answer; `known` is what was known before. A broker may lag behind another that was asked earlier: for the
    /// same topic an older leader epoch never replaces a newer one.
    fn new(answer: &MetadataResponseTopic, known: Option<&Self>, now: Duration) -> Self {
        let known = known.filter(|known| !known.id.is_zero() && known.id == answer.topic_id);
        let partitions = answer.partitions.iter().map(|partition| {
            let learnt = PartitionMetadata::new(partition);
            let kept = known
                .and_then(|known| known.partitions.get(&partition.partition_index))
                .filter(|kept| kept.leader_epoch > learnt.leader_epoch);
            (partition.partition_index, kept.cloned().unwrap_or(learnt))
        });
        Self {
            name: answer.name.as_deref().unwrap_or_default().to_owned(),
            id: answer.topic_id,
            internal: answer.is_internal,
            error: (answer.error_code != 0).then(|| ErrorCode::from_code(answer.error_code)),
            partitions: partitions.collect(),
            learnt_at: now,
        }
    }
}

impl PartitionMetadata {
    fn new(answer: &MetadataResponsePartition) -> Self {
        Self {
            leader: (answer.leader_id >= 0).then_some(answer.leader_id),
            leader_epoch: answer.leader_epoch,
            replicas: answer.replica_nodes.clone(),
            isr: answer.isr_nodes.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn topic(name: &str, id: u8, leader: i32, epoch: i32) -> MetadataResponseTopic {
        MetadataResponseTopic {
            name: Some(name.into()),
            topic_id: TopicId([id; 16]),
            partitions: vec![MetadataResponsePartition {
                leader_id: leader,
                leader_epoch: epoch,
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn answer(topics: Vec<MetadataResponseTopic>) -> MetadataResponse {
        MetadataResponse {
            topics,
            ..Default::default()
        }
    }

    fn leader(metadata: &ClusterMetadata, name: &str) -> Option<NodeId> {
        metadata.topics[name].partitions[&0].leader
    }

    #[test]
    fn a_lagging_broker_does_not_bring_back_an_old_leader() {
        let first = ClusterMetadata::default().merge(&answer(vec![topic("t", 1, 2, 5)]), false, NOW);
        let lagging = first.merge(&answer(vec![topic("t", 1, 1, 4)]), false, NOW);
        assert_eq!(leader(&lagging, "t"), Some(2));
        let newer = lagging.merge(&answer(vec![topic("t", 1, 3, 6)]), false, NOW);
        assert_eq!(leader(&newer, "t"), Some(3));
        // The same leader may be lost without a new epoch.
        assert_eq!(
            leader(&newer.merge(&answer(vec![topic("t", 1, -1, 6)]), false, NOW), "t"),
            None
        );
    }

    #[test]
    fn a_topic_created_again_starts_over() {
        let first = ClusterMetadata::default().merge(&answer(vec![topic("t", 1, 2, 5)]), false, NOW);
        let again = first.merge(&answer(vec![topic("t", 2, 1, 0)]), false, NOW);
        assert_eq!(leader(&again, "t"), Some(1));
    }

    #[test]
    fn a_whole_answer_drops_what_it_does_not_mention() {
        let both = ClusterMetadata::default().merge(
            &answer(vec![topic("a", 1, 1, 0), topic("b", 2, 1, 0)]),
            false,
            NOW,
        );
        assert_eq!(
            both.merge(&answer(vec![topic("a", 1, 1, 0)]), false, NOW)
                .topics
                .len(),
            2
        );
        assert_eq!(
            both.merge(&answer(vec![topic("a", 1, 1, 0)]), true, NOW)
                .topics
                .len(),
            1
        );
    }

    #[test]
    fn addresses_of_ipv6_hosts_have_brackets() {
        let mut broker = Broker {
            id: 1,
            host: "::1".into(),
            port: 9092,
            rack: None,
        };
        assert_eq!(broker.addr(), "[::1]:9092");
        broker.host = "east".into();
        assert_eq!(broker.addr(), "east:9092");
    }
}
