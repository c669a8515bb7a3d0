//! The keys that a configuration may hold: their names, shapes and meaning.
//!
//! Checking, suggestions, the commented template and the reference page are all read from this one table. A key enters
//! it in the change that implements it; until then it is an unknown key.

/// One key of a table.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its name, as written.
    pub(crate) name: &'static str,
    /// What may stand behind it.
    pub(crate) shape: Shape,
    /// Whether a configuration without it is refused (if its table is there at all, or always for required tables).
    pub(crate) required: bool,
    /// The value it has when it is not written; empty if there is none to show.
    pub(crate) default: &'static str,
    /// One sentence on its meaning.
    pub(crate) doc: &'static str,
}

/// What may stand behind a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// A table with these keys.
    Table(&'static [Key]),
    /// A table of tables: names of the user's choice, each with these keys.
    Named(&'static [Key]),
    /// A list of tables with these keys.
    Tables(&'static [Key]),
    /// Kafka's broker and topic settings, by Kafka's names ([`TOPIC_DEFAULTS`]).
    TopicDefaults,
    /// Any text that is not empty.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number within these bounds.
    Integer(i64, i64),
    /// `true` or `false`.
    Flag,
    /// A duration with its unit.
    Duration,
    /// A number of bytes with its unit.
    Size,
    /// `host:port`.
    Address,
    /// A list of `host:port`.
    Addresses,
    /// A list of regular expressions.
    Patterns,
    /// A path; a relative one starts at the file that it is written in.
    Path,
}

/// The whole configuration.
pub(crate) const ROOT: &[Key] = &[
    need(
        "cluster",
        Shape::Table(CLUSTER),
        "The cluster that this daemon belongs to.",
    ),
    need("node", Shape::Table(NODE), "This daemon."),
    need(
        "mesh",
        Shape::Table(MESH),
        "QUIC (UDP) between daemons, inside the cluster and to other clusters.",
    ),
    need("kafka", Shape::Table(KAFKA), "Where Kafka clients connect (TCP)."),
    may("http", Shape::Table(HTTP), "", "Health, metrics and /v1."),
    may(
        "topic_defaults",
        Shape::TopicDefaults,
        "",
        "Settings of topics that do not set their own, and a few of the broker's, by Kafka's names.",
    ),
    may(
        "clusters",
        Shape::Named(REMOTE),
        "",
        "Other clusters, by the name that they have here.",
    ),
    may("mirror", Shape::Tables(MIRROR), "", "Flows into this cluster."),
];

const fn need(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key {
        name,
        shape,
        required: true,
        default: "",
        doc,
    }
}

const fn may(name: &'static str, shape: Shape, default: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        shape,
        required: false,
        default,
        doc,
    }
}

const CLUSTER: &[Key] = &[
    need(
        "name",
        Shape::Text,
        "Unique in the mesh; letters, digits, `.`, `_` and `-`.",
    ),
    need(
        "nodes",
        Shape::Tables(CLUSTER_NODE),
        "All daemons of the cluster; the same list in each daemon's file.",
    ),
];

const CLUSTER_NODE: &[Key] = &[
    need(
        "id",
        Shape::Integer(0, i32::MAX as i64),
        "The daemon's number, unique in the cluster.",
    ),
    need("mesh", Shape::Address, "Where the others reach its mesh port."),
];

const NODE: &[Key] = &[
    need(
        "id",
        Shape::Integer(0, i32::MAX as i64),
        "Which of `cluster.nodes` this daemon is.",
    ),
    need(
        "data_dir",
        Shape::Path,
        "Everything that the daemon keeps; made if it is not there.",
    ),
    may(
        "disk_reserve",
        Shape::Size,
        "256MiB",
        "With less than this free on the data directory's volume, records are refused; metadata and the rest go on.",
    ),
    may("rack", Shape::Text, "", "The failure domain, told to clients."),
    may(
        "drain_timeout",
        Shape::Duration,
        "30s",
        "How long SIGTERM may take to hand work over.",
    ),
];

const MESH: &[Key] = &[
    need("listen", Shape::Address, "The UDP address to bind."),
    may(
        "advertise",
        Shape::Address,
        "this daemon's entry in cluster.nodes",
        "Where others reach it.",
    ),
    need(
        "tls",
        Shape::Table(MESH_TLS),
        "This daemon's identity; `tradewind cert` makes one.",
    ),
];

const MESH_TLS: &[Key] = &[
    need(
        "ca",
        Shape::Path,
        "The authority that signs the cluster's certificates.",
    ),
    need("cert", Shape::Path, "This daemon's certificate."),
    need("key", Shape::Path, "Its private key."),
];

const KAFKA: &[Key] = &[
    need("listener", Shape::Tables(LISTENER), "One or more."),
    may(
        "max_connections",
        Shape::Integer(1, 1_000_000),
        "10000",
        "Further connections are closed at once.",
    ),
    may(
        "max_connections_per_ip",
        Shape::Integer(1, 1_000_000),
        "1000000",
        "So many of one client address; further ones are closed at once.",
    ),
    may(
        "queued_request_bytes",
        Shape::Size,
        "256MiB",
        "Memory for requests that are being read or answered; connections wait for room in it.",
    ),
    may(
        "max_request_bytes",
        Shape::Size,
        "100MiB",
        "A longer request closes its connection.",
    ),
    may(
        "idle_timeout",
        Shape::Duration,
        "10m",
        "A connection without a request for so long is closed.",
    ),
];

const LISTENER: &[Key] = &[
    need("listen", Shape::Address, "The TCP address to bind."),
    may(
        "advertise",
        Shape::Address,
        "listen",
        "The address that clients are told.",
    ),
    may(
        "name",
        Shape::Text,
        "its place in the list",
        "A client is told the addresses of the listeners of this name.",
    ),
    may(
        "security",
        Shape::Word(SECURITY),
        "plaintext",
        "Only `plaintext` so far.",
    ),
];

const HTTP: &[Key] = &[may(
    "listen",
    Shape::Address,
    "127.0.0.1:9644",
    "The TCP address to bind; there is no authentication, so keep it on loopback.",
)];

const REMOTE: &[Key] = &[
    may(
        "mesh",
        Shape::Addresses,
        "",
        "A Tradewind cluster: mesh addresses of some of its daemons.",
    ),
    may("kafka", Shape::Addresses, "", "Any Kafka: bootstrap addresses."),
    may(
        "security",
        Shape::Word(SECURITY),
        "plaintext",
        "Of `kafka`; only `plaintext` so far.",
    ),
    may("tls", Shape::Table(REMOTE_TLS), "", "Of `mesh`."),
    may(
        "may_fence",
        Shape::Flag,
        "false",
        "Of `mesh`: whether a `switchover` or `failover` there may fence topics here and take them over.",
    ),
    may(
        "boot_guard",
        Shape::Flag,
        "true",
        "With `may_fence`: topics that it copies stay read-only after all daemons here were down, until it has answered.",
    ),
];

const REMOTE_TLS: &[Key] = &[need(
    "ca",
    Shape::Path,
    "The authority that signs that cluster's certificates.",
)];

const MIRROR: &[Key] = &[
    need("from", Shape::Text, "The source: one of `[clusters.NAME]`."),
    may(
        "topics",
        Shape::Patterns,
        "[\".*\"]",
        "Topics to mirror: regular expressions on the whole name.",
    ),
    may(
        "topics_exclude",
        Shape::Patterns,
        "[\".*[\\\\-.]internal\", \".*\\\\.replica\", \"__.*\"]",
        "Topics never to mirror.",
    ),
    may(
        "groups",
        Shape::Patterns,
        "[\".*\"]",
        "Consumer groups whose positions are mirrored.",
    ),
    may(
        "groups_exclude",
        Shape::Patterns,
        "[\"console-consumer-.*\", \"connect-.*\", \"__.*\"]",
        "Consumer groups never to mirror.",
    ),
    may(
        "naming",
        Shape::Word(&["prefix", "identity"]),
        "prefix",
        "`prefix`: SOURCE.topic here; `identity`: the same name.",
    ),
    may(
        "separator",
        Shape::Text,
        ".",
        "Between source and topic with `prefix`.",
    ),
    may(
        "offsets",
        Shape::Word(&["preserve", "append"]),
        "preserve",
        "Only `preserve` so far: a record has the offset that it has at the source.",
    ),
];

const SECURITY: &[&str] = &["plaintext", "tls", "sasl_plaintext", "sasl_tls"];

/// Keys that are planned and known not to work yet: a clearer answer than "unknown key".
pub(crate) const NOT_YET: &[&str] = &["sasl", "grant", "lease", "meta_dir"];

/// How a Kafka setting is written and handed on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Setting {
    /// A whole number, at least this.
    Integer(i64),
    /// Milliseconds: a whole number (-1 = none) or a duration with its unit.
    Millis,
    /// Bytes: a whole number (-1 = none) or a size with its unit.
    Bytes,
    /// A number with a fraction, 0 to 1.
    Ratio,
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// What `[topic_defaults]` may hold, with the defaults: Kafka's, but for `flush.messages` and three partitions and copies
/// (lowered to the number of daemons where there are fewer).
pub(crate) const TOPIC_DEFAULTS: &[(&str, Setting, &str)] = &[
    ("auto.create.topics.enable", Setting::Flag, "true"),
    ("auto.leader.rebalance.enable", Setting::Flag, "true"),
    (
        "cleanup.policy",
        Setting::Word(&["delete", "compact", "compact,delete", "delete,compact"]),
        "delete",
    ),
    (
        "compression.type",
        Setting::Word(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        "producer",
    ),
    ("default.replication.factor", Setting::Integer(1), "3"),
    ("delete.retention.ms", Setting::Millis, "86400000"),
    ("flush.messages", Setting::Integer(1), "1"),
    ("flush.ms", Setting::Millis, "9223372036854775807"),
    ("group.consumer.heartbeat.interval.ms", Setting::Millis, "5000"),
    ("group.consumer.max.size", Setting::Integer(1), "2147483647"),
    (
        "group.consumer.migration.policy",
        Setting::Word(&["bidirectional", "upgrade", "downgrade", "disabled"]),
        "bidirectional",
    ),
    ("group.consumer.session.timeout.ms", Setting::Millis, "45000"),
    ("group.initial.rebalance.delay.ms", Setting::Millis, "3000"),
    ("group.max.session.timeout.ms", Setting::Millis, "1800000"),
    ("group.max.size", Setting::Integer(1), "20000"),
    ("group.min.session.timeout.ms", Setting::Millis, "6000"),
    ("index.interval.bytes", Setting::Bytes, "4096"),
    (
        "leader.imbalance.check.interval.seconds",
        Setting::Integer(1),
        "5",
    ),
    ("log.cleaner.backoff.ms", Setting::Millis, "15000"),
    ("log.cleaner.dedupe.buffer.size", Setting::Bytes, "134217728"),
    (
        "log.cleaner.io.max.bytes.per.second",
        Setting::Bytes,
        "9223372036854775807",
    ),
    ("log.cleaner.threads", Setting::Integer(1), "1"),
    ("log.retention.check.interval.ms", Setting::Millis, "300000"),
    ("max.compaction.lag.ms", Setting::Millis, "9223372036854775807"),
    (
        "max.incremental.fetch.session.cache.slots",
        Setting::Integer(0),
        "1000",
    ),
    ("max.message.bytes", Setting::Bytes, "1048588"),
    ("message.timestamp.after.max.ms", Setting::Millis, "3600000"),
    (
        "message.timestamp.before.max.ms",
        Setting::Millis,
        "9223372036854775807",
    ),
    (
        "message.timestamp.type",
        Setting::Word(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
    ),
    ("min.cleanable.dirty.ratio", Setting::Ratio, "0.5"),
    ("min.compaction.lag.ms", Setting::Millis, "0"),
    ("min.insync.replicas", Setting::Integer(1), "1"),
    ("num.partitions", Setting::Integer(1), "3"),
    ("offset.metadata.max.bytes", Setting::Bytes, "4096"),
    ("offsets.retention.check.interval.ms", Setting::Millis, "600000"),
    ("offsets.retention.minutes", Setting::Integer(1), "10080"),
    ("producer.id.expiration.ms", Setting::Millis, "86400000"),
    ("replica.lag.time.max.ms", Setting::Millis, "30000"),
    (
        "replica.selector.class",
        Setting::Word(&[
            "leader",
            "rack-aware",
            "org.apache.kafka.common.replica.LeaderSelector",
            "org.apache.kafka.common.replica.RackAwareReplicaSelector",
        ]),
        "leader",
    ),
    ("retention.bytes", Setting::Bytes, "-1"),
    ("retention.ms", Setting::Millis, "604800000"),
    ("segment.bytes", Setting::Bytes, "1073741824"),
    ("segment.index.bytes", Setting::Bytes, "10485760"),
    ("segment.jitter.ms", Setting::Millis, "0"),
    ("segment.ms", Setting::Millis, "604800000"),
    ("unclean.leader.election.enable", Setting::Flag, "false"),
];
