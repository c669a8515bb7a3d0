//! The configuration keys that this cluster knows, with Kafka's names, bounds and (but for `flush.messages`) defaults.
//!
//! Only tables. The bounds are Kafka 4's; `segment.bytes` alone may be smaller than Kafka allows.

use super::{ConfigKey, ConfigKind};

/// The defaults of a daemon's file that decide about safety, and therefore travel with its registration.
pub const SAFETY_KEYS: [&str; 3] = [
    "flush.messages",
    "min.insync.replicas",
    "unclean.leader.election.enable",
];

const fn key(name: &'static str, kind: ConfigKind, default: &'static str) -> ConfigKey {
    ConfigKey { name, kind, default }
}

/// A number of 32 bits, at least this.
const fn int(least: i32) -> ConfigKind {
    ConfigKind::Int(least, i32::MAX)
}

/// A number of 64 bits, at least this.
const fn long(least: i64) -> ConfigKind {
    ConfigKind::Long(least, i64::MAX)
}

const FOR_EVER: &str = "9223372036854775807";

const NO_TIERS: ConfigKind = ConfigKind::OnlyFalse(
    "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
);

/// Every topic configuration key, in alphabetical order.
pub const TOPIC_CONFIGS: &[ConfigKey] = &[
    key(
        "cleanup.policy",
        ConfigKind::ListOf(&["compact", "delete"]),
        "delete",
    ),
    // -1 is zlib's own choice.
    key("compression.gzip.level", ConfigKind::Int(-1, 9), "-1"),
    key("compression.lz4.level", ConfigKind::Int(1, 17), "9"),
    key(
        "compression.type",
        ConfigKind::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "producer",
    ),
    key("compression.zstd.level", ConfigKind::Int(-131_072, 22), "3"),
    key("delete.retention.ms", long(0), "86400000"),
    key("file.delete.delay.ms", long(0), "60000"),
    // Unlike Kafka: acks=all means flushed on every in-sync replica, unless a topic or the file says otherwise.
    key("flush.messages", long(1), "1"),
    key("flush.ms", long(0), FOR_EVER),
    key(
        "follower.replication.throttled.replicas",
        ConfigKind::Replicas,
        "",
    ),
    key("index.interval.bytes", int(0), "4096"),
    key("leader.replication.throttled.replicas", ConfigKind::Replicas, ""),
    key("local.retention.bytes", long(-2), "-2"),
    key("local.retention.ms", long(-2), "-2"),
    key("max.compaction.lag.ms", long(1), FOR_EVER),
    key("max.message.bytes", int(0), "1048588"),
    key("message.timestamp.after.max.ms", long(0), "3600000"),
    key("message.timestamp.before.max.ms", long(0), FOR_EVER),
    key(
        "message.timestamp.type",
        ConfigKind::OneOf(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
    ),
    key("min.cleanable.dirty.ratio", ConfigKind::Double(0.0, 1.0), "0.5"),
    key("min.compaction.lag.ms", long(0), "0"),
    key("min.insync.replicas", int(1), "1"),
    key("preallocate", ConfigKind::Boolean, "false"),
    key("remote.log.copy.disable", ConfigKind::Boolean, "false"),
    key("remote.log.delete.on.disable", ConfigKind::Boolean, "false"),
    key("remote.storage.enable", NO_TIERS, "false"),
    key("retention.bytes", long(-1), "-1"),
    key("retention.ms", long(-1), "604800000"),
    key("segment.bytes", int(14), "1073741824"),
    key("segment.index.bytes", int(4), "10485760"),
    key("segment.jitter.ms", long(0), "0"),
    key("segment.ms", long(1), "604800000"),
    key("unclean.leader.election.enable", ConfigKind::Boolean, "false"),
];

/// The keys that daemons have beside the defaults of topics and that can be set while they run. Kafka's tools for moving
/// replicas set and remove them; they limit nothing here.
pub const BROKER_CONFIGS: &[ConfigKey] = &[
    key("follower.replication.throttled.rate", long(0), FOR_EVER),
    key("leader.replication.throttled.rate", long(0), FOR_EVER),
    key(
        "replica.alter.log.dirs.io.max.bytes.per.second",
        long(0),
        FOR_EVER,
    ),
];

/// The keys of consumer groups (KIP-848), in alphabetical order.
pub const GROUP_CONFIGS: &[ConfigKey] = &[
    key(
        "consumer.heartbeat.interval.ms",
        ConfigKind::Int(5_000, 15_000),
        "5000",
    ),
    key(
        "consumer.session.timeout.ms",
        ConfigKind::Int(45_000, 60_000),
        "45000",
    ),
];
