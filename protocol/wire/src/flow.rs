//! What a flow is: the words that the metadata log, the mirror and the command line share about it.
//!
//! A flow copies topics and consumer-group positions from one cluster into another; the target runs it. These are plain
//! values; how they are agreed on is the cluster's business, how they are carried out the mirror's.

use serde::{Deserialize, Serialize};

use crate::ids::TopicId;

/// The declaration of one flow, as it stands in the target's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSpec {
    /// The source cluster's name as the target knows it; also the prefix of mirrored topics.
    pub source_cluster: String,
    /// The target cluster's name.
    pub target_cluster: String,
    /// How the source is reached.
    pub source: FlowSource,
    /// Regular expressions; a topic is mirrored if one of them matches its whole name.
    pub topics: Vec<String>,
    /// Regular expressions; a topic that one of them matches whole is never mirrored.
    pub topics_exclude: Vec<String>,
    /// Regular expressions; a group's positions are mirrored if one of them matches its whole name.
    pub groups: Vec<String>,
    /// Regular expressions; a group that one of them matches whole is never mirrored.
    pub groups_exclude: Vec<String>,
    /// What a mirrored topic is called here.
    pub naming: Naming,
}

impl FlowSpec {
    /// The flow's name, `source->target`.
    pub fn name(&self) -> String {
        format!("{}->{}", self.source_cluster, self.target_cluster)
    }
}

/// That an operator has a flow, or one of its topics, stand still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when, in ms since the epoch, by the clock of the daemon that was asked.
    pub since_ms: i64,
    /// Why, in the operator's words; may be empty.
    pub reason: String,
}

/// How a flow reaches its source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowSource {
    /// A Tradewind cluster, over QUIC: mesh addresses as `host:port`, any of which may answer.
    Mesh(Vec<String>),
    /// Any Kafka, over TCP: bootstrap addresses as `host:port`.
    Kafka(Vec<String>),
}

/// What a mirrored topic is called in the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    /// `<source cluster><separator><topic>`, as MirrorMaker 2's default policy does.
    Prefix {
        /// What stands between the two; a dot by default.
        separator: String,
    },
    /// The same name as in the source.
    Identity,
}

impl Naming {
    /// The target's name for the source topic `topic`.
    pub fn target_topic(&self, source_cluster: &str, topic: &str) -> String {
        match self {
            Self::Prefix { separator } => format!("{source_cluster}{separator}{topic}"),
            Self::Identity => topic.to_owned(),
        }
    }
}

/// Where the records of a mirror topic were first written: the first cluster of the chain, as far as anybody says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// That cluster's id, as its Metadata answers give it; empty if it has none.
    pub cluster_id: String,
    /// What the cluster that copies from it calls it.
    pub cluster: String,
    /// The topic's name there.
    pub topic: String,
    /// The topic's id there; zero if that cluster knows no topic ids.
    pub topic_id: TopicId,
    /// Whether that cluster says which of its topics are mirrors. If not, this one may be a mirror all the same.
    pub tells: bool,
}

impl Origin {
    /// Whether both are one topic of one cluster. Clusters without an id are never the same.
    pub fn is_same(&self, other: &Self) -> bool {
        let ids_known = !self.topic_id.is_zero() && !other.topic_id.is_zero();
        !self.cluster_id.is_empty()
            && self.cluster_id == other.cluster_id
            && self.topic == other.topic
            && (!ids_known || self.topic_id == other.topic_id)
    }
}

impl Origin {
    /// Whether this is the very topic that a flow copies, `topic` with the id `id` at its source, and not one of which that is
    /// a mirror. Ids are random, and a Tradewind cluster, which alone has mirrors that say so, has them.
    pub fn is_first_hand(&self, topic: &str, id: TopicId) -> bool {
        self.topic_id == id && self.topic == topic
    }
}

/// Of these topics, the ones that have the records of `origin`, going by what each keeps as its own origin.
pub fn of_origin<T>(
    topics: impl IntoIterator<Item = T>,
    origin_of: impl Fn(&T) -> Option<&Origin>,
    origin: &Origin,
) -> impl Iterator<Item = T> {
    let topics = topics.into_iter();
    topics.filter(move |topic| origin_of(topic).is_some_and(|known| known.is_same(origin)))
}

/// What a Tradewind cluster says of one of its topics when another one is about to copy it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provenance {
    /// Its clients write it, and it was never a mirror.
    Own,
    /// A flow writes it.
    Mirror(Origin),
    /// Its clients write it; until a failover or switchover a flow did.
    Promoted(Origin),
}

/// The topic that carries a cluster's heartbeats; in the target always prefixed, whatever the naming.
pub const HEARTBEATS_TOPIC: &str = "heartbeats";

/// Where one source leader epoch begins in a mirror partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The first offset here that was copied under this source epoch.
    pub target_first: i64,
    /// The source cluster's id, as its Metadata answers give it.
    pub source_cluster_id: String,
    /// The source topic's id; zero if the source knows no topic ids.
    pub source_topic_id: TopicId,
    /// The source partition's leader epoch.
    pub source_epoch: i32,
    /// The first offset there that was read under this epoch.
    pub source_first: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mirrormakers() {
        let prefix = Naming::Prefix {
            separator: ".".into(),
        };
        assert_eq!(prefix.target_topic("east", "orders"), "east.orders");
        assert_eq!(Naming::Identity.target_topic("east", "orders"), "orders");
    }
}
