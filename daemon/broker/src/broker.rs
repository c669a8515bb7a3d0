//! The broker: what answers Kafka's requests on one daemon.
//!
//! It opens no socket and keeps no connection; the program hands it frames and sends what comes back. Everything durable
//! is the cluster's. See `dispatch.rs` for the way of a request and `api/` for what each one does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use tradewind_cluster::Cluster;
use tradewind_cluster::apply::{Position, apply};
use tradewind_cluster::command::{Command, Outcome};
use tradewind_cluster::metadata::ProposeError;

use crate::fetching::nearby;
use crate::fetching::sessions::Sessions;
use crate::groups::{Coordinator, GroupConfig};
use crate::guard::Guard;
use crate::offsets_topic;
use crate::producer_ids::ProducerIds;

/// The listener name of requests that come over the mesh; they are given mesh addresses.
pub const MESH_LISTENER: &str = "mesh";

/// How long a change of metadata may take that a client asked for without a limit of its own.
pub(crate) const METADATA_TIMEOUT: Duration = Duration::from_secs(30);

/// What can be set about a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerConfig {
    /// Limits and delays of groups.
    pub group: GroupConfig,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `default.replication.factor`; lowered to the number of daemons.
    pub default_replication_factor: i16,
    /// `offsets.topic.num.partitions`. Never changes in the life of a cluster.
    pub offsets_partitions: i32,
    /// `connections.max.idle.ms`, as the program keeps it; only told.
    pub max_idle: Duration,
    /// `socket.request.max.bytes`, as the program keeps it; only told.
    pub max_request_bytes: usize,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_sessions: usize,
    /// Whether `replica.selector.class` sends consumers to a copy in their own rack (KIP-392).
    pub rack_aware_fetch: bool,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            group: GroupConfig::default(),
            auto_create_topics: true,
            num_partitions: 3,
            default_replication_factor: 3,
            offsets_partitions: 50,
            max_idle: Duration::from_secs(600),
            max_request_bytes: 100 << 20,
            fetch_sessions: 1_000,
            rack_aware_fetch: false,
        }
    }
}

impl BrokerConfig {
    /// The settings of the daemon's configuration file, under Kafka's names; defaults for what it does not say.
    pub fn from_file(cluster: &Cluster) -> Self {
        fn read<T: std::str::FromStr>(cluster: &Cluster, key: &str, into: &mut T) {
            if let Some(value) = cluster
                .file_default(key)
                .and_then(|text| text.trim().parse().ok())
            {
                *into = value;
            }
        }
        let mut config = Self::default();
        read(
            cluster,
            "auto.create.topics.enable",
            &mut config.auto_create_topics,
        );
        read(cluster, "num.partitions", &mut config.num_partitions);
        read(
            cluster,
            "default.replication.factor",
            &mut config.default_replication_factor,
        );
        read(
            cluster,
            "group.initial.rebalance.delay.ms",
            &mut config.group.initial_rebalance_delay_ms,
        );
        read(
            cluster,
            "group.min.session.timeout.ms",
            &mut config.group.min_session_timeout_ms,
        );
        read(
            cluster,
            "group.max.session.timeout.ms",
            &mut config.group.max_session_timeout_ms,
        );
        read(
            cluster,
            "group.consumer.heartbeat.interval.ms",
            &mut config.group.consumer.heartbeat_interval_ms,
        );
        read(
            cluster,
            "group.consumer.session.timeout.ms",
            &mut config.group.consumer.session_timeout_ms,
        );
        read(
            cluster,
            "group.consumer.max.size",
            &mut config.group.consumer.max_size,
        );
        read(
            cluster,
            "group.consumer.migration.policy",
            &mut config.group.consumer.migration,
        );
        read(cluster, "group.max.size", &mut config.group.max_size);
        read(
            cluster,
            "offset.metadata.max.bytes",
            &mut config.group.max_metadata_bytes,
        );
        let mut minutes = config.group.offsets_retention_ms / 60_000;
        read(cluster, "offsets.retention.minutes", &mut minutes);
        config.group.offsets_retention_ms = minutes.saturating_mul(60_000);
        read(
            cluster,
            "offsets.retention.check.interval.ms",
            &mut config.group.retention_check_interval_ms,
        );
        read(
            cluster,
            "max.incremental.fetch.session.cache.slots",
            &mut config.fetch_sessions,
        );
        config.rack_aware_fetch = cluster
            .file_default("replica.selector.class")
            .is_some_and(nearby::is_rack_aware);
        config
    }
}

/// Where a request comes from.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The name of the listener that it came in by; answers carry addresses of that listener. [`MESH_LISTENER`] for
    /// requests over the mesh.
    pub listener: String,
    /// The peer's address without its port, as text.
    pub host: String,
    /// Whether the peer may only ask: no request of its own makes or changes anything, auto-created topics included.
    pub read_only: bool,
}

/// What is to be done with a request that was handled. Frames have no length prefix.
pub enum Reply {
    /// Send these chunks as one frame.
    Frame(Vec<Bytes>),
    /// Send what this comes to; meanwhile the connection's next request may be handled. Answers of one connection go out
    /// in the order of its requests.
    Later(BoxFuture<'static, Self>),
    /// Send nothing: the client asked for no answer.
    None,
    /// Close the connection, for this reason.
    Close(String),
}

impl Reply {
    /// Waits until it is known what to send: never [`Reply::Later`].
    pub async fn settled(self) -> Self {
        let mut reply = self;
        while let Self::Later(later) = reply {
            reply = later.await;
        }
        reply
    }
}

/// Answers Kafka's requests on one daemon. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) cluster: Cluster,
    pub(crate) config: BrokerConfig,
    pub(crate) coordinator: Coordinator,
    pub(crate) producer_ids: Mutex<ProducerIds>,
    /// One creation of topics by themselves at a time: clients ask for a new topic many times over.
    pub(crate) auto_creation: Mutex<()>,
    /// How many batches may be checked on blocking threads at once.
    pub(crate) validation: Semaphore,
    pub(crate) fetch_sessions: Sessions,
    pub(crate) guard: Guard,
}

impl Broker {
    /// A broker over `cluster`. It answers at once; [`Broker::run`] must run for groups to work.
    pub fn new(cluster: Cluster, config: BrokerConfig) -> Self {
        let clock = Arc::clone(cluster.clock());
        let coordinator = Coordinator::new(config.group.clone(), config.offsets_partitions, clock);
        let inner = Inner {
            fetch_sessions: Sessions::new(config.fetch_sessions),
            cluster,
            coordinator,
            config,
            guard: Guard::default(),
            producer_ids: Mutex::default(),
            auto_creation: Mutex::default(),
            validation: Semaphore::new(std::thread::available_parallelism().map_or(4, usize::from)),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Follows the leadership of the offsets topic and runs the groups' timers, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::join!(
            self.inner.coordinator.run(stop.clone()),
            offsets_topic::follow(&self.inner.cluster, &self.inner.coordinator, stop),
        );
    }

    /// Handles one request. Requests of one connection are handed in one after the other, in their order; large batches
    /// are checked and all batches appended before this returns, so that producers' sequences stay in order.
    pub async fn handle(&self, connection: &Connection, frame: Bytes) -> Reply {
        crate::dispatch::handle(self, connection, frame).await
    }

    /// Makes groups usable before the first client asks for one: a mirror writes positions into them.
    pub async fn prepare_groups(&self) -> Result<(), ProposeError> {
        offsets_topic::create(&self.inner.cluster, &self.inner.config).await
    }

    /// What `command` would come to if it were the next entry, and nothing is done: for requests that are only to be
    /// validated.
    pub(crate) fn rehearse(&self, command: &Command) -> Result<Outcome, ProposeError> {
        let image = self.inner.cluster.image();
        let next = Position {
            index: image.index + 1,
            term: image.term,
        };
        apply(&image, next, command).1.map_err(ProposeError::Refused)
    }

    /// The group coordinator.
    pub fn coordinator(&self) -> &Coordinator {
        &self.inner.coordinator
    }

    /// What clients may not write yet since this process began.
    pub fn guard(&self) -> &Guard {
        &self.inner.guard
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.inner.cluster
    }

    /// What can be set about it.
    pub fn config(&self) -> &BrokerConfig {
        &self.inner.config
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }
}
