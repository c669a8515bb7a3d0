//! Configurations of topics, daemons and groups as Kafka's admin clients see them: types, sources, synonyms, descriptions.
//!
//! Which keys exist, their defaults and what is a valid value stand in `tradewind_cluster::config`; what a value does is
//! decided where it is used. Here is how it is told ([`words`] has the texts), and in `alter.rs` how it is changed.

pub(crate) mod alter;
mod words;

use std::collections::BTreeMap;

use tradewind_cluster::Cluster;
use tradewind_cluster::config::{BROKER_CONFIGS, ConfigKey, ConfigKind, GROUP_CONFIGS, TOPIC_CONFIGS};
use tradewind_cluster::image::Topic;

pub(crate) use words::broker_synonym;
use words::documentation;

/// Kafka's numbers for kinds of resources.
pub(crate) mod resource {
    pub(crate) const TOPIC: i8 = 2;
    pub(crate) const BROKER: i8 = 4;
    pub(crate) const BROKER_LOGGER: i8 = 8;
    pub(crate) const CLIENT_METRICS: i8 = 16;
    pub(crate) const GROUP: i8 = 32;
}

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
    /// Set on the group.
    DynamicGroup = 8,
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

impl Described {
    /// A configuration whose value is the first of `synonyms`, which is not empty.
    fn new(name: &'static str, key: &ConfigKey, synonyms: Vec<Synonym>) -> Self {
        let (value, source) = synonyms.first().map_or_else(
            || (key.default.to_owned(), Source::Default),
            |first| (first.value.clone(), first.source),
        );
        Self {
            name,
            value,
            source,
            read_only: false,
            synonyms,
            kind: kind_of(key),
            documentation: documentation(key.name),
        }
    }
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

/// Gathers places that could give a value, from what holds to what holds last.
#[derive(Default)]
struct Places(Vec<Synonym>);

impl Places {
    fn add(&mut self, name: &'static str, value: Option<&str>, source: Source) {
        if let Some(value) = value {
            self.0.push(Synonym {
                name,
                value: value.to_owned(),
                source,
            });
        }
    }
}

/// Every configuration of a topic as it holds on this daemon, if the topic itself has these.
pub(crate) fn of_topic(cluster: &Cluster, own: &BTreeMap<String, String>) -> Vec<Described> {
    let describe = |key: &'static ConfigKey| {
        let mut places = Places::default();
        places.add(
            key.name,
            own.get(key.name).map(String::as_str),
            Source::DynamicTopic,
        );
        behind(cluster, key, &mut places);
        Described::new(key.name, key, places.0)
    };
    TOPIC_CONFIGS.iter().map(describe).collect()
}

/// As [`of_topic`], of a topic that there is.
pub(crate) fn of(cluster: &Cluster, topic: &Topic) -> Vec<Described> {
    of_topic(cluster, &topic.configs)
}

/// Adds the places of a topic's configuration that are not the topic's own.
fn behind(cluster: &Cluster, key: &'static ConfigKey, places: &mut Places) {
    let image = cluster.image();
    let name = broker_synonym(key.name).unwrap_or(key.name);
    let own = image.node_configs.get(&cluster.node_id());
    let text =
        |configs: Option<&BTreeMap<String, String>>| configs.and_then(|all| all.get(key.name)).cloned();
    places.add(name, text(own).as_deref(), Source::DynamicBroker);
    let all = text(Some(&image.cluster_configs));
    places.add(name, all.as_deref(), Source::DynamicDefaultBroker);
    places.add(name, cluster.file_default(key.name), Source::StaticBroker);
    places.add(name, Some(key.default), Source::Default);
}

/// The configurations of this daemon that clients ask for.
pub(crate) fn of_broker(cluster: &Cluster, config: &crate::BrokerConfig) -> Vec<Described> {
    let defaults_of_topics = TOPIC_CONFIGS.iter().filter_map(|key| {
        let name = broker_synonym(key.name)?;
        let mut places = Places::default();
        behind(cluster, key, &mut places);
        Some(Described::new(name, key, places.0))
    });
    let set = BROKER_CONFIGS.iter().filter_map(|key| {
        let mut places = Places::default();
        behind(cluster, key, &mut places);
        // Kafka tells of these only once they are set.
        (places.0.len() > 1).then(|| Described::new(key.name, key, places.0))
    });
    let mut all: Vec<Described> = defaults_of_topics.chain(set).collect();
    all.extend(fixed(cluster, config));
    all.sort_by_key(|described| described.name);
    all
}

/// What was set for all daemons at run time.
pub(crate) fn of_all_brokers(cluster: &Cluster) -> Vec<Described> {
    let image = cluster.image();
    let describe = |key: &'static ConfigKey| {
        let name = broker_synonym(key.name)?;
        let value = image.cluster_configs.get(key.name)?;
        let mut places = Places::default();
        places.add(name, Some(value), Source::DynamicDefaultBroker);
        places.add(name, Some(key.default), Source::Default);
        Some(Described::new(name, key, places.0))
    };
    let keys = TOPIC_CONFIGS.iter().chain(BROKER_CONFIGS);
    keys.filter_map(describe).collect()
}

/// Every configuration of a consumer group, whether or not it exists.
pub(crate) fn of_group(cluster: &Cluster, group: &str) -> Vec<Described> {
    let image = cluster.image();
    let describe = |key: &'static ConfigKey| {
        let mut places = Places::default();
        places.add(
            key.name,
            image.group_config(group, key.name),
            Source::DynamicGroup,
        );
        let name = group_default(key.name);
        places.add(name, cluster.file_default(name), Source::StaticBroker);
        places.add(name, Some(key.default), Source::Default);
        Described::new(key.name, key, places.0)
    };
    GROUP_CONFIGS.iter().map(describe).collect()
}

/// Kafka's name for the broker-wide default of a group's configuration.
fn group_default(key: &'static str) -> &'static str {
    match key {
        "consumer.heartbeat.interval.ms" => "group.consumer.heartbeat.interval.ms",
        "consumer.session.timeout.ms" => "group.consumer.session.timeout.ms",
        other => other,
    }
}

/// What cannot be changed while the daemon runs.
fn fixed(cluster: &Cluster, config: &crate::BrokerConfig) -> Vec<Described> {
    let of_file = |key: &str, default: &str| cluster.file_default(key).unwrap_or(default).to_owned();
    let rack = cluster
        .image()
        .nodes
        .get(&cluster.node_id())
        .and_then(|daemon| daemon.rack.clone());
    let all = [
        (
            "advertised.listeners",
            Some(advertised(cluster)),
            Kind::String,
            "Where clients reach this daemon.",
        ),
        (
            "auto.create.topics.enable",
            Some(config.auto_create_topics.to_string()),
            Kind::Boolean,
            "Whether topics are created when a client first names them.",
        ),
        (
            "auto.leader.rebalance.enable",
            Some(of_file("auto.leader.rebalance.enable", "true")),
            Kind::Boolean,
            "Whether preferred leaders lead again by themselves.",
        ),
        (
            "broker.id",
            Some(cluster.node_id().to_string()),
            Kind::Int,
            "This daemon's id.",
        ),
        ("broker.rack", rack, Kind::String, "This daemon's failure domain."),
        (
            "connections.max.idle.ms",
            Some(config.max_idle.as_millis().to_string()),
            Kind::Long,
            "After what time without a request a connection is closed.",
        ),
        (
            "default.replication.factor",
            Some(config.default_replication_factor.to_string()),
            Kind::Int,
            "Replicas of topics that do not say how many; lowered to the number of daemons.",
        ),
        (
            "group.consumer.heartbeat.interval.ms",
            Some(config.group.consumer.heartbeat_interval_ms.to_string()),
            Kind::Int,
            "How often members of groups of the consumer protocol send a heartbeat.",
        ),
        (
            "group.consumer.migration.policy",
            Some(config.group.consumer.migration.name().to_owned()),
            Kind::String,
            "Which way groups with members may change their protocol.",
        ),
        (
            "group.consumer.session.timeout.ms",
            Some(config.group.consumer.session_timeout_ms.to_string()),
            Kind::Int,
            "After what silence a member of such a group is removed.",
        ),
        (
            "group.initial.rebalance.delay.ms",
            Some(config.group.initial_rebalance_delay_ms.to_string()),
            Kind::Int,
            "How long the first join of an empty group waits for others.",
        ),
        (
            "group.max.session.timeout.ms",
            Some(config.group.max_session_timeout_ms.to_string()),
            Kind::Int,
            "The longest session timeout allowed.",
        ),
        (
            "group.min.session.timeout.ms",
            Some(config.group.min_session_timeout_ms.to_string()),
            Kind::Int,
            "The shortest session timeout allowed.",
        ),
        (
            "leader.imbalance.check.interval.seconds",
            Some(of_file("leader.imbalance.check.interval.seconds", "5")),
            Kind::Long,
            "How often preferred leaders that do not lead are looked for.",
        ),
        (
            "log.retention.check.interval.ms",
            Some(of_file("log.retention.check.interval.ms", "300000")),
            Kind::Long,
            "How often old segments are looked for.",
        ),
        (
            "node.id",
            Some(cluster.node_id().to_string()),
            Kind::Int,
            "This daemon's id.",
        ),
        (
            "num.partitions",
            Some(config.num_partitions.to_string()),
            Kind::Int,
            "Partitions of topics that do not say how many.",
        ),
        (
            "offset.metadata.max.bytes",
            Some(config.group.max_metadata_bytes.to_string()),
            Kind::Int,
            "The longest note that a commit may carry.",
        ),
        (
            "offsets.topic.num.partitions",
            Some(config.offsets_partitions.to_string()),
            Kind::Int,
            "Partitions of __consumer_offsets.",
        ),
        (
            "replica.lag.time.max.ms",
            Some(of_file("replica.lag.time.max.ms", "30000")),
            Kind::Long,
            "After what time a replica that lags leaves the in-sync set.",
        ),
        (
            "socket.request.max.bytes",
            Some(config.max_request_bytes.to_string()),
            Kind::Int,
            "The largest request.",
        ),
    ];
    let of_this_daemon = |name| {
        matches!(
            name,
            "advertised.listeners" | "broker.id" | "broker.rack" | "node.id"
        )
    };
    let describe =
        |(name, value, kind, documentation): (&'static str, Option<String>, Kind, &'static str)| {
            let value = value?;
            let source = if cluster.file_default(name).is_some() || of_this_daemon(name) {
                Source::StaticBroker
            } else {
                Source::Default
            };
            Some(Described {
                name,
                synonyms: vec![Synonym {
                    name,
                    value: value.clone(),
                    source,
                }],
                value,
                source,
                read_only: true,
                kind,
                documentation,
            })
        };
    all.into_iter().filter_map(describe).collect()
}

/// The daemon's listeners as Kafka writes them.
fn advertised(cluster: &Cluster) -> String {
    let image = cluster.image();
    let own = image.nodes.get(&cluster.node_id());
    let listeners = own.into_iter().flat_map(|daemon| &daemon.listeners);
    let written = listeners.map(|at| format!("{}://{}:{}", at.name, at.host, at.port));
    written.collect::<Vec<_>>().join(",")
}

fn kind_of(config: &ConfigKey) -> Kind {
    match config.kind {
        ConfigKind::Boolean | ConfigKind::OnlyFalse(_) => Kind::Boolean,
        ConfigKind::Int(..) => Kind::Int,
        ConfigKind::Long(..) => Kind::Long,
        ConfigKind::Double(..) => Kind::Double,
        ConfigKind::ListOf(_) | ConfigKind::Replicas => Kind::List,
        ConfigKind::OneOf(_) => Kind::String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configuration_has_kafkas_type() {
        let kind = |name: &str| kind_of(tradewind_cluster::config::topic_config(name).unwrap());
        assert_eq!(kind("retention.ms"), Kind::Long);
        assert_eq!(kind("segment.bytes"), Kind::Int);
        assert_eq!(kind("cleanup.policy"), Kind::List);
        assert_eq!(kind("leader.replication.throttled.replicas"), Kind::List);
        assert_eq!(kind("preallocate"), Kind::Boolean);
        assert_eq!(kind("remote.storage.enable"), Kind::Boolean);
        assert_eq!(kind("min.cleanable.dirty.ratio"), Kind::Double);
        assert_eq!(kind("message.timestamp.type"), Kind::String);
        assert_eq!(kind("compression.zstd.level"), Kind::Int);
    }

    #[test]
    fn every_configuration_is_explained() {
        for key in TOPIC_CONFIGS.iter().chain(BROKER_CONFIGS).chain(GROUP_CONFIGS) {
            assert_ne!(documentation(key.name), "As in Apache Kafka.", "{}", key.name);
        }
    }

    #[test]
    fn daemons_call_the_defaults_of_topics_as_kafka_does() {
        assert_eq!(broker_synonym("segment.ms"), Some("log.roll.ms"));
        assert_eq!(broker_synonym("max.message.bytes"), Some("message.max.bytes"));
        assert_eq!(broker_synonym("min.insync.replicas"), Some("min.insync.replicas"));
        assert_eq!(broker_synonym("leader.replication.throttled.replicas"), None);
    }
}
