//! Topic and broker configurations as Kafka's admin clients see them: types, sources, synonyms, descriptions.
//!
//! Which keys exist, their defaults and what is a valid value stand in `tradewind_cluster::config`; what a value does is
//! decided where it is used. Here is only how it is told.

use tradewind_cluster::Cluster;
use tradewind_cluster::config::{ConfigKind, TOPIC_CONFIGS, TopicConfig};
use tradewind_cluster::image::Topic;

/// Where a value comes from, under Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum Source {
    /// Set on the topic.
    DynamicTopic = 1,
    /// Set on this daemon at run time.
    DynamicBroker = 2,
    /// Set for all daemons at run time.
    DynamicDefaultBroker = 3,
    /// From the configuration file.
    StaticBroker = 4,
    /// Nobody set it.
    Default = 5,
}

/// A value that stands behind a configuration, and would hold if those before it were gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synonym {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) source: Source,
}

/// One configuration of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) source: Source,
    pub(crate) read_only: bool,
    /// From what holds to what holds last.
    pub(crate) synonyms: Vec<Synonym>,
    pub(crate) kind: Kind,
    pub(crate) documentation: &'static str,
}

/// The type of a value, under Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// Every configuration of a topic as it holds on this daemon; of a topic yet to be made if there is none.
pub(crate) fn of_topic(cluster: &Cluster, topic: Option<&Topic>) -> Vec<Described> {
    let image = cluster.image();
    let own = image.node_configs.get(&cluster.node_id());
    let describe = |config: &'static TopicConfig| {
        let mut synonyms = Vec::new();
        let mut add = |name: &'static str, value: Option<&str>, source| {
            if let Some(value) = value {
                synonyms.push(Synonym {
                    name,
                    value: value.to_owned(),
                    source,
                });
            }
        };
        let key = config.name;
        let broker_key = broker_synonym(key);
        add(
            key,
            topic.and_then(|topic| topic.configs.get(key)).map(String::as_str),
            Source::DynamicTopic,
        );
        add(
            broker_key,
            own.and_then(|own| own.get(key)).map(String::as_str),
            Source::DynamicBroker,
        );
        add(
            broker_key,
            image.cluster_configs.get(key).map(String::as_str),
            Source::DynamicDefaultBroker,
        );
        add(broker_key, cluster.file_default(key), Source::StaticBroker);
        add(broker_key, Some(config.default), Source::Default);
        let (value, source) = synonyms.first().map_or_else(
            || (config.default.to_owned(), Source::Default),
            |first| (first.value.clone(), first.source),
        );
        Described {
            name: key,
            value,
            source,
            read_only: false,
            synonyms,
            kind: kind_of(config),
            documentation: documentation(key),
        }
    };
    TOPIC_CONFIGS.iter().map(describe).collect()
}

/// The configurations of this daemon that clients ask for.
pub(crate) fn of_broker(cluster: &Cluster, config: &crate::BrokerConfig) -> Vec<Described> {
    let mut all: Vec<Described> = of_topic(cluster, None)
        .into_iter()
        .map(|described| Described {
            name: broker_synonym(described.name),
            read_only: false,
            ..described
        })
        .collect();
    let fixed: [(&'static str, String, Kind, &'static str); 10] = [
        (
            "advertised.listeners",
            advertised(cluster),
            Kind::String,
            "Where clients reach this daemon.",
        ),
        (
            "auto.create.topics.enable",
            config.auto_create_topics.to_string(),
            Kind::Boolean,
            "Whether topics are created when a client first names them.",
        ),
        (
            "broker.id",
            cluster.node_id().to_string(),
            Kind::Int,
            "This daemon's id.",
        ),
        (
            "default.replication.factor",
            config.default_replication_factor.to_string(),
            Kind::Int,
            "Replicas of topics that do not say how many.",
        ),
        (
            "group.initial.rebalance.delay.ms",
            config.group.initial_rebalance_delay_ms.to_string(),
            Kind::Int,
            "How long the first join of an empty group waits for others.",
        ),
        (
            "group.max.session.timeout.ms",
            config.group.max_session_timeout_ms.to_string(),
            Kind::Int,
            "The longest session timeout allowed.",
        ),
        (
            "group.min.session.timeout.ms",
            config.group.min_session_timeout_ms.to_string(),
            Kind::Int,
            "The shortest session timeout allowed.",
        ),
        (
            "num.partitions",
            config.num_partitions.to_string(),
            Kind::Int,
            "Partitions of topics that do not say how many.",
        ),
        (
            "offset.metadata.max.bytes",
            config.group.max_metadata_bytes.to_string(),
            Kind::Int,
            "The longest note that a commit may carry.",
        ),
        (
            "offsets.topic.num.partitions",
            config.offsets_partitions.to_string(),
            Kind::Int,
            "Partitions of __consumer_offsets.",
        ),
    ];
    for (name, value, kind, documentation) in fixed {
        let source =
            if cluster.file_default(name).is_some() || matches!(name, "advertised.listeners" | "broker.id") {
                Source::StaticBroker
            } else {
                Source::Default
            };
        let synonyms = vec![Synonym {
            name,
            value: value.clone(),
            source,
        }];
        all.push(Described {
            name,
            value,
            source,
            read_only: true,
            synonyms,
            kind,
            documentation,
        });
    }
    all
}

/// The daemon's listeners as Kafka writes them.
fn advertised(cluster: &Cluster) -> String {
    let image = cluster.image();
    let own = image.nodes.get(&cluster.node_id());
    let listeners = own.into_iter().flat_map(|daemon| &daemon.listeners);
    let written = listeners.map(|at| format!("{}://{}:{}", at.name, at.host, at.port));
    written.collect::<Vec<_>>().join(",")
}

/// Kafka's name for the broker-wide default of a topic configuration.
pub(crate) fn broker_synonym(key: &'static str) -> &'static str {
    match key {
        "cleanup.policy" => "log.cleanup.policy",
        "delete.retention.ms" => "log.cleaner.delete.retention.ms",
        "file.delete.delay.ms" => "log.segment.delete.delay.ms",
        "flush.messages" => "log.flush.interval.messages",
        "flush.ms" => "log.flush.interval.ms",
        "index.interval.bytes" => "log.index.interval.bytes",
        "local.retention.bytes" => "log.local.retention.bytes",
        "local.retention.ms" => "log.local.retention.ms",
        "max.compaction.lag.ms" => "log.cleaner.max.compaction.lag.ms",
        "max.message.bytes" => "message.max.bytes",
        "message.timestamp.after.max.ms" => "log.message.timestamp.after.max.ms",
        "message.timestamp.before.max.ms" => "log.message.timestamp.before.max.ms",
        "message.timestamp.type" => "log.message.timestamp.type",
        "min.cleanable.dirty.ratio" => "log.cleaner.min.cleanable.ratio",
        "min.compaction.lag.ms" => "log.cleaner.min.compaction.lag.ms",
        "preallocate" => "log.preallocate",
        "retention.bytes" => "log.retention.bytes",
        "retention.ms" => "log.retention.ms",
        "segment.bytes" => "log.segment.bytes",
        "segment.index.bytes" => "log.index.size.max.bytes",
        "segment.jitter.ms" => "log.roll.jitter.ms",
        "segment.ms" => "log.roll.ms",
        // The others have one name in both places.
        other => other,
    }
}

fn kind_of(config: &TopicConfig) -> Kind {
    match config.kind {
        ConfigKind::Boolean => Kind::Boolean,
        // Kafka calls what fits 32 bits an int; clients only show it.
        ConfigKind::Integer(_, most) if most <= i64::from(i32::MAX) => Kind::Int,
        ConfigKind::Integer(..) => Kind::Long,
        ConfigKind::Ratio => Kind::Double,
        ConfigKind::ListOf(_) => Kind::List,
        ConfigKind::OneOf(words) if words.contains(&"false") => Kind::Boolean,
        ConfigKind::Text => Kind::List,
        _ => Kind::String,
    }
}

fn documentation(key: &str) -> &'static str {
    match key {
        "cleanup.policy" => {
            "What happens to old records: delete (by time and size). compact is accepted but removes nothing yet."
        }
        "compression.type" => "The codec of batches at rest; producer keeps what the producer chose.",
        "delete.retention.ms" => "How long compaction keeps tombstones.",
        "file.delete.delay.ms" => "How long a removed segment's file is kept.",
        "flush.messages" => "1: records count as replicated only when flushed to disk.",
        "flush.ms" => "How long records may stay unflushed.",
        "index.interval.bytes" => "Log bytes between two entries of the offset index.",
        "max.message.bytes" => "The largest record batch, after compression.",
        "message.timestamp.after.max.ms" => "How far in the future a record's timestamp may lie.",
        "message.timestamp.before.max.ms" => "How far in the past a record's timestamp may lie.",
        "message.timestamp.type" => {
            "Whether records carry their producer's time or the time of their append."
        }
        "min.insync.replicas" => "How many replicas must have a record before acks=all succeeds.",
        "retention.bytes" => "How many bytes of a partition are kept; -1 for all.",
        "retention.ms" => "How long records are kept; -1 for ever.",
        "segment.bytes" => "The size of a segment file.",
        "segment.ms" => "After what time a new segment is begun.",
        "unclean.leader.election.enable" => {
            "Whether a replica that may lack records may become leader if no other can."
        }
        _ => "As in Apache Kafka.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_configuration_has_a_type_that_clients_know() {
        let kind = |name: &str| kind_of(tradewind_cluster::config::topic_config(name).unwrap());
        assert_eq!(kind("retention.ms"), Kind::Long);
        assert_eq!(kind("segment.bytes"), Kind::Int);
        assert_eq!(kind("cleanup.policy"), Kind::List);
        assert_eq!(kind("preallocate"), Kind::Boolean);
        assert_eq!(kind("min.cleanable.dirty.ratio"), Kind::Double);
        assert_eq!(kind("message.timestamp.type"), Kind::String);
    }
}
