//! What is said about each topic configuration: Kafka's name for its broker-wide default, and a sentence for people.

/// Kafka's name for the broker-wide default of a topic configuration; `None` for what topics alone have.
pub(crate) fn broker_synonym(key: &'static str) -> Option<&'static str> {
    Some(match key {
        "cleanup.policy" => "log.cleanup.policy",
        "delete.retention.ms" => "log.cleaner.delete.retention.ms",
        "file.delete.delay.ms" => "log.segment.delete.delay.ms",
        "flush.messages" => "log.flush.interval.messages",
        "flush.ms" => "log.flush.interval.ms",
        "follower.replication.throttled.replicas" | "leader.replication.throttled.replicas" => return None,
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
        "remote.log.copy.disable" | "remote.log.delete.on.disable" | "remote.storage.enable" => return None,
        "retention.bytes" => "log.retention.bytes",
        "retention.ms" => "log.retention.ms",
        "segment.bytes" => "log.segment.bytes",
        "segment.index.bytes" => "log.index.size.max.bytes",
        "segment.jitter.ms" => "log.roll.jitter.ms",
        "segment.ms" => "log.roll.ms",
        // The others have one name in both places.
        other => other,
    })
}

/// What a configuration of a topic, a daemon or a group means. What is accepted without an effect says so.
pub(crate) fn documentation(key: &str) -> &'static str {
    match key {
        "cleanup.policy" => {
            "What happens to old records: delete (by time and size), compact (the last record of each key stays), or \
             both. Empty: nothing is removed."
        }
        "compression.gzip.level" => {
            "The level where compression.type is gzip: 1 to 9, or -1 for the codec's own."
        }
        "compression.lz4.level" => "The level where compression.type is lz4: 1 to 17.",
        "compression.type" => "The codec of batches at rest; producer keeps what the producer chose.",
        "compression.zstd.level" => "The level where compression.type is zstd: -131072 to 22.",
        "consumer.heartbeat.interval.ms" => "How often members of the group send a heartbeat.",
        "consumer.session.timeout.ms" => "After what silence a member is removed from the group.",
        "delete.retention.ms" => "How long compaction keeps tombstones.",
        "file.delete.delay.ms" => "How long a removed segment's file is kept.",
        "flush.messages" => {
            "1: records count as replicated only when flushed to disk. Any other number leaves flushing to the daemon."
        }
        "flush.ms" => "How long records may stay unflushed.",
        "follower.replication.throttled.replicas" | "leader.replication.throttled.replicas" => {
            "Replicas whose replication is limited, as Kafka's tools set them while they move replicas. Accepted without \
             an effect: moves are not limited."
        }
        "follower.replication.throttled.rate" | "leader.replication.throttled.rate" => {
            "Bytes per second of limited replicas, as Kafka's tools set them while they move replicas. Accepted without \
             an effect: moves are not limited."
        }
        "index.interval.bytes" => "Log bytes between two entries of the offset index.",
        "local.retention.bytes" | "local.retention.ms" => {
            "What is kept on local disks where there is tiered storage. Accepted without an effect: there is none."
        }
        "max.compaction.lag.ms" => "After what time a record is compacted at the latest.",
        "max.message.bytes" => "The largest record batch, after compression.",
        "message.timestamp.after.max.ms" => "How far in the future a record's timestamp may lie.",
        "message.timestamp.before.max.ms" => "How far in the past a record's timestamp may lie.",
        "message.timestamp.type" => {
            "Whether records carry their producer's time or the time of their append."
        }
        "min.cleanable.dirty.ratio" => "Which part of a log is to be compacted anew before it is.",
        "min.compaction.lag.ms" => "How long a record stays as it is before it may be compacted.",
        "min.insync.replicas" => "How many replicas must have a record before acks=all succeeds.",
        "preallocate" => {
            "Whether a segment's file gets its whole size at once. Accepted without an effect: files grow."
        }
        "remote.log.copy.disable" | "remote.log.delete.on.disable" | "remote.storage.enable" => {
            "Tiered storage, which there is not: remote.storage.enable can only be false, the others have no effect."
        }
        "replica.alter.log.dirs.io.max.bytes.per.second" => {
            "Bytes per second of moves between disks of one daemon. Accepted without an effect: a daemon has one."
        }
        "retention.bytes" => "How many bytes of a partition are kept; -1 for all.",
        "retention.ms" => "How long records are kept; -1 for ever.",
        "segment.bytes" => "The size of a segment file. Kafka wants at least 1 MiB; here it may be less.",
        "segment.index.bytes" => "The largest index file of a segment.",
        "segment.jitter.ms" => "By how much segment.ms is shortened at random.",
        "segment.ms" => "After what time a new segment is begun.",
        "unclean.leader.election.enable" => {
            "Whether a replica that may lack records may become leader if no other can."
        }
        _ => "As in Apache Kafka.",
    }
}
