//! A daemon's life, in order: data directory, ports, logs, cluster, clients; and back again when it is told to stop.
//!
//! Nothing listens until everything that can be wrong with the configuration has been looked at, and all ports are bound
//! before the first of them is served: a daemon that cannot have one of them ends with nothing left listening.
//! HTTP answers from then on (`/readyz` with 503), so that a long recovery can be watched.

use std::fmt::Display;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tradewind_broker::{Broker, BrokerConfig};
use tradewind_cluster::image::Endpoint;
use tradewind_cluster::metadata::{RESTORE_LEADERS, Timing};
use tradewind_cluster::{CleanerOptions, Cluster, ClusterError, ClusterOptions};
use tradewind_log::DataDir;
use tradewind_mirror::{Mirror, network_sources};
use tradewind_transport::{Mesh, MeshOptions, MeshTls, TransportOptions, tcp};
use tradewind_wire::clock::Rng;

use crate::cli::kafka;
use crate::clock::{SystemClock, SystemRng};
use crate::config::Settings;
use crate::connection::{Budget, Limits, STALL_TIMEOUT};
use crate::flows;
use crate::guard::BootGuard;
use crate::http::{self, Facts};
use crate::listener::{self, PerIp, Room};
use crate::metrics;
use crate::notify;
use crate::regions::Regions;
use crate::service::{MeshRequests, Requests};
use crate::signals::{self, Stop};

/// Why a daemon did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// What the configuration says cannot be had: a file or a port. Nothing is left listening.
    #[error("{0}")]
    Unusable(String),
    /// The daemon cannot go on.
    #[error("{0}")]
    Failed(String),
}

impl BootError {
    fn failed(error: impl Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Runs a daemon until it is told to stop; `stdin` makes the end of standard input such a word.
pub(crate) fn run(settings: Settings, stdin: bool) -> Result<(), BootError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(BootError::failed)?;
    let result = runtime.block_on(live(settings, stdin));
    // Whatever still runs was given its time.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn live(settings: Settings, stdin: bool) -> Result<(), BootError> {
    let stop = signals::listen(stdin).map_err(BootError::failed)?;
    signals::outlive_hangup().map_err(BootError::failed)?;
    signals::outlive_file_limit().map_err(BootError::failed)?;
    let tls = mesh_tls(&settings)?;
    let data_dir = open_data_dir(&settings.data_dir)?;
    let expires_seconds = tls.expires_seconds();
    let ports = Ports::bind(&settings, tls)?;
    let handle = metrics::install().map_err(BootError::failed)?;
    metrics::certificate(expires_seconds);
    let facts = Facts::new(handle, stop.drain.clone());
    let http_stop = CancellationToken::new();
    let http_task = tokio::spawn(http::serve(ports.http, facts.clone(), http_stop.clone()));

    tracing::info!(
        cluster = settings.cluster,
        node = settings.node,
        mesh = %settings.mesh_listen,
        kafka = ?ports.kafka.iter().map(|(_, at)| format!("{}:{}", at.host, at.port)).collect::<Vec<_>>(),
        http = %settings.http_listen,
        "bound"
    );

    let starting = async {
        let mesh = ports.mesh.clone();
        let options = cluster_options(&settings, data_dir, ports.mesh, ports.control, &ports.kafka);
        let cluster = Cluster::start(options).await.map_err(cluster_failed)?;
        facts.cluster(cluster.clone());
        Daemon::start(&settings, cluster, mesh, ports.kafka, &facts).await
    };
    let daemon = tokio::select! {
        daemon = starting => daemon?,
        // Told to stop before it served anybody: there is nothing to hand over.
        () = stop.drain.cancelled() => return Ok(()),
    };
    let ended = daemon.until(&stop).await;
    tokio::select! {
        () = daemon.drain(settings.drain_timeout) => {}
        () = stop.now.cancelled() => tracing::warn!("stopping at once"),
    }
    http_stop.cancel();
    let _ = tokio::time::timeout(Duration::from_millis(200), http_task).await;
    tracing::info!("stopped");
    ended
}

/// Every port, bound and not yet served.
struct Ports {
    mesh: Mesh,
    control: Box<dyn FnOnce() -> std::io::Result<Mesh> + Send>,
    kafka: Vec<(TcpListener, Endpoint)>,
    http: TcpListener,
}

impl Ports {
    fn bind(settings: &Settings, tls: Arc<MeshTls>) -> Result<Self, BootError> {
        let unusable = |key, error: &dyn Display| BootError::Unusable(format!("{key}: {error}"));
        let mut options = MeshOptions::new(reset_key(&settings.data_dir)?);
        options.transport = TransportOptions::default();
        let control_options = options.clone();
        let control_tls = Arc::clone(&tls);
        let control_ip = settings.mesh_listen.ip();
        let mesh = Mesh::bind(settings.mesh_listen, tls, options)
            .map_err(|error| unusable("mesh.listen", &error))?;
        let http = tcp::bind(settings.http_listen).map_err(|error| unusable("http.listen", &error))?;
        let mut kafka = Vec::new();
        for listener in &settings.listeners {
            let bound = tcp::bind(listener.listen).map_err(|error| unusable("kafka.listener", &error))?;
            let (host, port) = listener.advertise.clone();
            let port = match port {
                0 => bound
                    .local_addr()
                    .map_err(|error| unusable("kafka.listener", &error))?
                    .port(),
                port => port,
            };
            kafka.push((
                bound,
                Endpoint {
                    name: listener.name.clone(),
                    host,
                    port,
                },
            ));
        }
        let control = Box::new(move || {
            Mesh::bind((control_ip, 0).into(), control_tls, control_options).map_err(std::io::Error::other)
        });
        Ok(Self {
            mesh,
            control,
            kafka,
            http,
        })
    }
}

fn mesh_tls(settings: &Settings) -> Result<Arc<MeshTls>, BootError> {
    let peers: Vec<_> = settings
        .clusters
        .iter()
        .filter_map(|(name, remote)| Some((name.clone(), remote.ca.clone()?)))
        .collect();
    let files = &settings.tls;
    let tls = MeshTls::load(&files.ca, &files.cert, &files.key, &peers)
        .map_err(|error| BootError::Unusable(format!("mesh.tls: {error}")))?;
    let (cluster, node) = tls.identity();
    if (cluster, node) != (settings.cluster.as_str(), settings.node) {
        return Err(BootError::Unusable(format!(
            "mesh.tls.cert: {} is the identity of daemon {node} of {cluster}, not of daemon {} of {}",
            files.cert.display(),
            settings.node,
            settings.cluster,
        )));
    }
    Ok(Arc::new(tls))
}

fn open_data_dir(path: &Path) -> Result<Arc<DataDir>, BootError> {
    std::fs::create_dir_all(path).map_err(|error| {
        BootError::Unusable(format!(
            "node.data_dir: cannot create {}: {error}",
            path.display()
        ))
    })?;
    DataDir::open(path, &SystemRng)
        .map(Arc::new)
        .map_err(BootError::failed)
}

/// The key that lets peers notice a restart at once; drawn when it is first needed and kept, readable by its owner alone.
fn reset_key(data_dir: &Path) -> Result<[u8; 64], BootError> {
    let path = data_dir.join("reset.key");
    if let Ok(bytes) = std::fs::read(&path)
        && let Ok(key) = bytes.try_into()
    {
        return Ok(key);
    }
    let mut key = [0; 64];
    for chunk in key.chunks_mut(8) {
        chunk.copy_from_slice(&SystemRng.next_u64().to_be_bytes());
    }
    let write = || {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(&key)
    };
    write().map_err(|error| BootError::Failed(format!("cannot write {}: {error}", path.display())))?;
    Ok(key)
}

fn cluster_options(
    settings: &Settings,
    data_dir: Arc<DataDir>,
    mesh: Mesh,
    control_mesh: Box<dyn FnOnce() -> std::io::Result<Mesh> + Send>,
    listeners: &[(TcpListener, Endpoint)],
) -> ClusterOptions {
    ClusterOptions {
        cluster_name: settings.cluster.clone(),
        node: settings.node,
        rack: settings.rack.clone(),
        data_dir,
        meta_dir: settings.data_dir.join("meta"),
        seeds: settings.nodes.clone(),
        mesh,
        control_mesh,
        mesh_addr: settings.mesh_advertise.clone(),
        listeners: listeners.iter().map(|(_, endpoint)| endpoint.clone()).collect(),
        defaults: settings.topic_defaults.clone(),
        replica_lag_max: millis(settings, "replica.lag.time.max.ms", REPLICA_LAG_MAX),
        retention_check: millis(settings, "log.retention.check.interval.ms", RETENTION_CHECK),
        cleaner: cleaner(settings),
        disk_reserve: settings.disk_reserve,
        boot_id: boot_id(),
        timing: Timing {
            restore_leaders: restore_leaders(settings),
            ..Timing::default()
        },
        clock: Arc::new(SystemClock::new()),
        rng: Arc::new(SystemRng),
    }
}

/// How often this daemon, as the controller, lets preferred leaders lead again.
fn restore_leaders(settings: &Settings) -> Option<Duration> {
    let set = |key| settings.topic_defaults.get(key);
    let every = set("leader.imbalance.check.interval.seconds").and_then(|text| text.parse().ok());
    let enabled = set("auto.leader.rebalance.enable").is_none_or(|text| text == "true");
    enabled.then(|| every.map_or(RESTORE_LEADERS, Duration::from_secs))
}

/// How this daemon compacts its logs.
fn cleaner(settings: &Settings) -> CleanerOptions {
    let standard = CleanerOptions::default();
    let number = |key: &str| -> Option<u64> {
        let set = settings.topic_defaults.get(key)?.parse().ok();
        set.filter(|set| *set > 0)
    };
    let size = |key: &str| number(key).and_then(|set| usize::try_from(set).ok());
    CleanerOptions {
        threads: size("log.cleaner.threads").unwrap_or(standard.threads),
        backoff: millis(settings, "log.cleaner.backoff.ms", standard.backoff),
        map_bytes: size("log.cleaner.dedupe.buffer.size").unwrap_or(standard.map_bytes),
        // As large as a number can be written: no limit.
        bytes_per_second: number("log.cleaner.io.max.bytes.per.second")
            .filter(|rate| *rate < i64::MAX as u64)
            .unwrap_or(standard.bytes_per_second),
    }
}

/// A setting that is not a topic's; what is not positive counts as not set.
fn millis(settings: &Settings, key: &str, default: Duration) -> Duration {
    let set = settings
        .topic_defaults
        .get(key)
        .and_then(|text| text.parse().ok());
    set.filter(|set| *set > 0).map_or(default, Duration::from_millis)
}

/// Changes when the machine starts anew, which is when unwritten pages may be gone.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| String::new(), |id| id.trim().to_owned())
}

fn cluster_failed(error: ClusterError) -> BootError {
    BootError::failed(error)
}

/// A daemon that serves.
struct Daemon {
    cluster: Cluster,
    mirror: Mirror,
    connections: Room,
    /// What works beside the connections; ends with [`Self::background_stop`].
    background: TaskTracker,
    background_stop: CancellationToken,
}

impl Daemon {
    /// Registers with the cluster and serves clients.
    async fn start(
        settings: &Settings,
        cluster: Cluster,
        mesh: Mesh,
        listeners: Vec<(TcpListener, Endpoint)>,
        facts: &Facts,
    ) -> Result<Self, BootError> {
        let connections = room(settings);
        let broker_config = BrokerConfig {
            max_idle: settings.idle_timeout,
            max_request_bytes: settings.max_request_bytes,
            ..BrokerConfig::from_file(&cluster)
        };
        let broker = Broker::new(cluster.clone(), broker_config);
        tokio::select! {
            joined = cluster.join() => drop(joined.map_err(cluster_failed)?),
            reason = fatal(&cluster) => return Err(BootError::Failed(reason)),
        }
        let sources = network_sources(mesh.clone(), Arc::clone(cluster.clock()));
        let guard = BootGuard::begin(&broker, &settings.clusters, &sources);
        // Not before: a daemon that does not know its cluster yet would deny topics that exist.
        cluster.serve_kafka(Arc::new(MeshRequests {
            broker: broker.clone(),
            room: connections.clone(),
            regions: Arc::new(Regions::new(broker.clone(), settings.clusters.clone())),
        }));
        let (background, background_stop) = (TaskTracker::new(), CancellationToken::new());
        let running = broker.clone();
        let stop = background_stop.clone();
        background.spawn(async move { running.run(stop).await });
        background.spawn(Arc::clone(&guard).run(background_stop.clone()));
        guard.first_words().await;
        facts.guard(guard);
        let address = |(_, at): &(_, Endpoint)| format!("{}:{}", at.host, at.port);
        let own_addresses: Vec<String> = listeners.iter().map(address).collect();
        for (listener, endpoint) in listeners {
            let (broker, name) = (broker.clone(), endpoint.name.clone());
            let requests = move |peer| Requests::of_client(broker.clone(), &name, peer);
            background.spawn(listener::run(
                listener,
                endpoint.name,
                connections.clone(),
                requests,
            ));
        }
        let mirror = flows::start(&broker, mesh, settings.flows.clone());
        facts.mirror(mirror.clone());
        background.spawn(flows::prepare_groups(broker.clone(), background_stop.clone()));
        background.spawn(flows::offer(
            cluster.clone(),
            settings.flows.clone(),
            background_stop.clone(),
        ));
        facts.serving(kafka::client(&own_addresses));
        notify::ready();
        tracing::info!("serving");
        Ok(Self {
            cluster,
            mirror,
            connections,
            background,
            background_stop,
        })
    }

    /// Waits for a reason to stop: being told to, or having failed.
    async fn until(&self, stop: &Stop) -> Result<(), BootError> {
        tokio::select! {
            () = stop.drain.cancelled() => {
                notify::stopping();
                tracing::info!("draining");
                Ok(())
            }
            reason = fatal(&self.cluster) => Err(BootError::Failed(reason)),
        }
    }

    /// Answers what was asked, hands leaderships over, closes the logs.
    async fn drain(self, timeout: Duration) {
        let draining = async {
            self.connections.drain.cancel();
            self.connections.tasks.close();
            let _ = tokio::time::timeout(CONNECTIONS_DRAIN, self.connections.tasks.wait()).await;
            let _ = tokio::time::timeout(CONNECTIONS_DRAIN, self.mirror.stop()).await;
            self.background_stop.cancel();
            self.background.close();
            let _ = tokio::time::timeout(CONNECTIONS_DRAIN, self.background.wait()).await;
            self.cluster.stop().await;
        };
        if tokio::time::timeout(timeout, draining).await.is_err() {
            tracing::warn!(?timeout, "the drain took too long; stopping without it");
        }
    }
}

fn room(settings: &Settings) -> Room {
    Room {
        places: Arc::new(Semaphore::new(settings.max_connections)),
        per_ip: PerIp::new(settings.max_connections_per_ip),
        limits: Limits {
            idle_timeout: settings.idle_timeout,
            stall_timeout: settings.idle_timeout.min(STALL_TIMEOUT),
            budget: Budget::new(settings.queued_request_bytes),
        },
        max_request_bytes: settings.max_request_bytes,
        tasks: TaskTracker::new(),
        drain: CancellationToken::new(),
    }
}

/// Waits until the metadata log has failed for good, and says why.
async fn fatal(cluster: &Cluster) -> String {
    let mut standing = cluster.standing();
    let failed = standing.wait_for(|standing| standing.fatal.is_some()).await;
    let reason = failed.ok().and_then(|standing| standing.fatal.clone());
    format!(
        "the metadata log has failed: {}",
        reason.unwrap_or_else(|| "its thread has ended".to_owned())
    )
}

/// Kafka's `replica.lag.time.max.ms`.
const REPLICA_LAG_MAX: Duration = Duration::from_secs(30);
/// Kafka's `log.retention.check.interval.ms`.
const RETENTION_CHECK: Duration = Duration::from_secs(300);
/// How long connections may take to answer what they have read.
const CONNECTIONS_DRAIN: Duration = Duration::from_secs(3);
