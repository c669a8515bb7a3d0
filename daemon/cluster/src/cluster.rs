//! One daemon's part in its cluster: ties metadata, logs and streams together, and is what the broker and the program see.
//!
//! Start-up is in two steps, so that the program can serve its health page meanwhile: [`Cluster::start`] opens metadata
//! and logs and answers other daemons; [`Cluster::join`] registers and from then on follows every new image. Stopping is
//! the reverse: partitions are handed over, logs flushed and closed, and a mark left that nothing needs to be recovered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tradewind_log::{CheckpointError, Checkpoints, DataDir, DataDirError, LogEnv, Volume};
use tradewind_transport::{FrameRx, FrameTx, Mesh, Peer};
use tradewind_wire::audit::Audit;
use tradewind_wire::clock::{Clock, Rng};
use tradewind_wire::drill::{Rehearsal, Rehearsed};
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::mesh::Conversation;

use crate::audit;
use crate::calls::{self, CallError, CallHandler, Calls};
use crate::cleaner::{Cleaner, CleanerOptions};
use crate::command::{Command, Outcome, Registration};
use crate::config::SAFETY_KEYS;
use crate::flusher::Flusher;
use crate::image::{Endpoint, Image, Topic};
use crate::inner::{Inner, Recovery};
use crate::metadata::{Metadata, MetadataOptions, ProposeError, RegisterError, Standing, StartError, Timing};
use crate::peers::{Own, Pool};
use crate::rehearsal;
use crate::replica::{Replica, ReplicaContext};
use crate::replicas::Replicas;
use crate::threads;

/// How long handing leaderships over may take.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// How a daemon's part in its cluster is started.
pub struct ClusterOptions {
    /// The cluster's name, unique in the mesh.
    pub cluster_name: String,
    /// This daemon.
    pub node: NodeId,
    /// Its failure domain.
    pub rack: Option<String>,
    /// Its data directory, opened and locked.
    pub data_dir: Arc<DataDir>,
    /// Where `meta.redb` and the snapshots live.
    pub meta_dir: PathBuf,
    /// Every daemon of the configuration, this one included, with its mesh address `host:port`.
    pub seeds: BTreeMap<NodeId, String>,
    /// The bound mesh endpoint.
    pub mesh: Mesh,
    /// Binds another endpoint on any port, for Raft and sessions; called within their runtime.
    pub control_mesh: Box<dyn FnOnce() -> std::io::Result<Mesh> + Send>,
    /// Where other daemons reach this one, `host:port`.
    pub mesh_addr: String,
    /// Where clients reach this daemon.
    pub listeners: Vec<Endpoint>,
    /// Topic configuration defaults from the configuration file, by Kafka's names.
    pub defaults: BTreeMap<String, String>,
    /// `replica.lag.time.max.ms`.
    pub replica_lag_max: Duration,
    /// `log.retention.check.interval.ms`.
    pub retention_check: Duration,
    /// How logs are compacted.
    pub cleaner: CleanerOptions,
    /// How many bytes of the data directory's volume records leave free: with less, writes are refused.
    pub disk_reserve: u64,
    /// The operating system's boot id.
    pub boot_id: String,
    /// Intervals and timeouts of Raft and sessions.
    pub timing: Timing,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers.
    pub rng: Arc<dyn Rng>,
}

/// Why a daemon's part in its cluster did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The metadata did not start.
    #[error(transparent)]
    Metadata(#[from] StartError),
    /// The cluster refuses this daemon.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The data directory cannot be read or written.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The checkpoints cannot be read.
    #[error(transparent)]
    Checkpoints(#[from] CheckpointError),
    /// The operating system gives no threads.
    #[error("cannot start the flusher: {0}")]
    Threads(#[from] std::io::Error),
}

/// Serves Kafka requests, and those of other clusters about moving a region, that arrive as streams of the mesh.
#[async_trait]
pub trait KafkaStreams: Send + Sync {
    /// Serves one stream, past hello and welcome, until it ends. `conversation` is `Kafka`, `Query` or
    /// `Region`.
    async fn serve(&self, conversation: Conversation, peer: Peer, tx: FrameTx, rx: FrameRx);
}

/// One daemon's part in its cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

impl Cluster {
    /// Opens metadata and logs, and begins to answer other daemons. `replica_lag_max` and the other intervals are those
    /// of `options`. Blocks on disk while logs are recovered.
    pub async fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        let cluster_id = Arc::new(Mutex::new(options.data_dir.cluster_id()));
        let own = Own {
            cluster_name: options.cluster_name.clone(),
            node: options.node,
            cluster_id: Arc::clone(&cluster_id),
        };
        let metadata = start_metadata(
            &options.data_dir,
            &own,
            options.control_mesh,
            MetadataOptions {
                node: options.node,
                cluster_name: options.cluster_name.clone(),
                cluster_id: options.data_dir.cluster_id(),
                storage_id: options.data_dir.storage_id(),
                dir: options.meta_dir,
                seeds: options.seeds.clone(),
                clock: Arc::clone(&options.clock),
                rng: Arc::clone(&options.rng),
                timing: options.timing,
            },
        )
        .await?;

        let checkpoints = checkpoints(&options.data_dir)?;
        let in_touch = Arc::new(AtomicBool::new(true));
        let checkpoint_asked = Arc::new(Notify::new());
        let context = ReplicaContext {
            own: options.node,
            clock: Arc::clone(&options.clock),
            flusher: Flusher::start(&options.clock)?,
            in_touch: Arc::clone(&in_touch),
            checkpoint: Arc::clone(&checkpoint_asked),
        };
        let logs = LogEnv::new(Arc::clone(&options.clock));
        let room = Arc::clone(&logs.room);
        room.note(&options.data_dir.volume(), options.disk_reserve);
        let replicas = Arc::new(Replicas::new(
            Arc::clone(&options.data_dir),
            logs,
            options.defaults.clone(),
            context,
            checkpoints,
        ));
        let clean_stop = replicas.stopped_cleanly();
        let recovered = replicas.recover(&metadata.image())?;
        // From here on there is something to recover again.
        replicas.write_checkpoints(false)?;
        tracing::info!(
            logs = recovered.logs,
            clean_stop,
            truncated_bytes = recovered.truncated_bytes,
            damaged = recovered.damaged.len(),
            "recovered logs"
        );

        let cleaner = Cleaner::start(&replicas, options.cleaner, &options.clock)?;
        let inner = Arc::new(Inner {
            cluster_name: options.cluster_name,
            node: options.node,
            rack: options.rack,
            seeds: options.seeds,
            pool: Pool::new(options.mesh.clone(), own),
            mesh: options.mesh,
            mesh_addr: options.mesh_addr,
            listeners: options.listeners,
            defaults: options.defaults,
            boot_id: options.boot_id,
            clock: options.clock,
            rng: options.rng,
            data_dir: options.data_dir,
            room,
            cluster_id,
            metadata,
            replicas,
            cleaner,
            recovery: Mutex::new(Recovery {
                clean_stop,
                damaged: recovered.damaged,
                suspect: recovered.suspect,
                told: false,
            }),
            in_sync: Arc::default(),
            in_touch,
            checkpoint_asked,
            calls: Calls::default(),
            audits: audit::audits(),
            rehearsals: rehearsal::rehearsals(),
            kafka: OnceLock::new(),
            lanes: Mutex::default(),
            following: Mutex::default(),
            downstream: Mutex::default(),
            reconciled: watch::channel(0).0,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let answers = [
            crate::quorum::answer(inner.metadata.clone()),
            crate::members::answer(inner.metadata.clone()),
        ];
        for (name, handler) in answers {
            inner.calls.register(name, handler);
        }
        inner.spawn_start_tasks(
            options.replica_lag_max,
            options.retention_check,
            options.disk_reserve,
        );
        Ok(Self { inner })
    }

    /// Registers this daemon and takes up its roles. Returns when the registration is applied here, every copy knows
    /// its role and the controller has heard from it; retries for as long as there is no controller.
    pub async fn join(&self) -> Result<i64, ClusterError> {
        let inner = &self.inner;
        let (clean_stop, damaged) = {
            let recovery = inner.recovery.lock();
            (recovery.clean_stop, recovery.damaged.clone())
        };
        let safety = |(key, _): &(&String, &String)| SAFETY_KEYS.contains(&key.as_str());
        let registration = Registration {
            node: inner.node,
            incarnation: u128::from(inner.rng.next_u64()) << 64 | u128::from(inner.rng.next_u64()),
            replaces: None,
            own: BTreeSet::new(),
            boot_id: inner.boot_id.clone(),
            clean_stop,
            damaged,
            rack: inner.rack.clone(),
            mesh: inner.mesh_addr.clone(),
            listeners: inner.listeners.clone(),
            defaults: inner
                .defaults
                .iter()
                .filter(safety)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        };
        let epoch = inner.metadata.register(registration).await?;
        tracing::info!(epoch, "registered");
        let index = u64::try_from(epoch).unwrap_or_default();
        let mut reconciled = inner.reconciled.subscribe();
        let _ = reconciled.wait_for(|seen| *seen >= index).await;
        let suspect = {
            let mut recovery = inner.recovery.lock();
            recovery.told = true;
            std::mem::take(&mut recovery.suspect)
        };
        inner.replicas.told(&suspect);
        // Until then a leader without followers takes no writes.
        let mut standing = inner.metadata.standing();
        let _ = standing.wait_for(|standing| standing.in_touch).await;
        Ok(epoch)
    }

    /// This daemon.
    pub fn node_id(&self) -> NodeId {
        self.inner.node
    }

    /// Whether this daemon's disk is full up to its reserve, so that writes to its copies are refused.
    pub fn disk_is_full(&self) -> bool {
        self.inner.room.is_full()
    }

    /// The cluster's name.
    pub fn cluster_name(&self) -> &str {
        &self.inner.cluster_name
    }

    /// Time.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// Random numbers.
    pub fn rng(&self) -> &Arc<dyn Rng> {
        &self.inner.rng
    }

    /// The newest image that is applied here *and* to this daemon's copies.
    pub fn image(&self) -> Arc<Image> {
        self.inner.metadata.image()
    }

    /// Tells of every new image.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Image>> {
        self.inner.metadata.subscribe()
    }

    /// The index of the last image that this daemon's copies have taken over: roles and epochs are at least that new.
    pub fn reconciled(&self) -> watch::Receiver<u64> {
        self.inner.reconciled.subscribe()
    }

    /// How this daemon stands.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.inner.metadata.standing()
    }

    /// The metadata's own handle.
    pub fn metadata(&self) -> &Metadata {
        &self.inner.metadata
    }

    /// The daemons of the configuration file with their mesh addresses.
    pub fn seeds(&self) -> &BTreeMap<NodeId, String> {
        &self.inner.seeds
    }

    /// The copy of a partition here.
    pub fn replica(&self, topic: TopicId, partition: i32) -> Option<Arc<Replica>> {
        self.inner.replicas.of(topic, partition)
    }

    /// Digests of what a partition led here holds between `bounds`, as its files have it; with `items` of every batch.
    pub async fn audit(
        &self,
        topic: TopicId,
        partition: i32,
        bounds: Vec<i64>,
        items: bool,
    ) -> Result<Audit, String> {
        let replica = self.replica(topic, partition);
        let replica = replica.ok_or_else(|| "there is no such partition here".to_owned())?;
        audit::audit(replica, &self.inner.audits, bounds, items).await
    }

    /// Rehearses the promotion of a partition led here, on a branch of its log that is gone again when this returns. One at
    /// a time. The error is for a person to read.
    pub async fn rehearse(&self, rehearsal: Rehearsal) -> Result<Rehearsed, String> {
        let replica = self.replica(rehearsal.topic, rehearsal.partition);
        let replica = replica.ok_or_else(|| "there is no such partition here".to_owned())?;
        rehearsal::rehearse(&self.inner, replica, rehearsal).await
    }

    /// Every copy here.
    pub fn replicas(&self) -> Vec<Arc<Replica>> {
        self.inner.replicas.all()
    }

    /// The value of a topic configuration as it holds on this daemon; `None` for the topic asks for the default.
    pub fn topic_config(&self, topic: Option<&Topic>, key: &str) -> Option<String> {
        self.inner.replicas.config(&self.image(), topic, key)
    }

    /// A configuration default of this daemon's file (`num.partitions`, say).
    pub fn file_default(&self, key: &str) -> Option<&str> {
        self.inner.defaults.get(key).map(String::as_str)
    }

    /// Where this daemon keeps its data, and how full that is.
    pub fn volume(&self) -> Volume {
        self.inner.data_dir.volume()
    }

    /// Proposes a change to the metadata; see [`Metadata::propose`]. The answer comes after this daemon's copies have
    /// taken it over, too.
    pub async fn propose(&self, command: Command, timeout: Duration) -> Result<Outcome, ProposeError> {
        let outcome = self.inner.metadata.propose(command, timeout).await?;
        let index = self.image().index;
        let mut reconciled = self.inner.reconciled.subscribe();
        let taken_over = reconciled.wait_for(|seen| *seen >= index);
        // Copies follow the image within milliseconds; an answer is not held back for a slow disk.
        let _ = tokio::time::timeout(Duration::from_secs(1), taken_over).await;
        Ok(outcome)
    }

    /// Asks another daemon of this cluster (or this one).
    pub async fn call(
        &self,
        node: NodeId,
        name: &str,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let fail = |reason: String| CallError { node, reason };
        let calling = async {
            if node == self.inner.node {
                return self.inner.calls.answer(name, payload).await;
            }
            let opened = self.inner.stream(node, Conversation::Call).await;
            let (tx, rx) = opened?;
            calls::call(tx, rx, name, payload, timeout).await
        };
        match tokio::time::timeout(timeout, calling).await {
            Ok(result) => result.map_err(fail),
            Err(_) => Err(fail("no answer in time".to_owned())),
        }
    }

    /// Answers calls of `name` from daemons of this cluster.
    pub fn register_call(&self, name: &str, handler: CallHandler) {
        self.inner.calls.register(name, handler);
    }

    /// Serves Kafka requests that come over the mesh; only the first service counts.
    pub fn serve_kafka(&self, service: Arc<dyn KafkaStreams>) {
        let _ = self.inner.kafka.set(service);
    }

    /// Other clusters that mirror from this daemon right now.
    pub fn downstream_clusters(&self) -> Vec<String> {
        self.inner.downstream.lock().keys().cloned().collect()
    }

    /// Hands leaderships over, flushes and closes every log. A daemon that is only killed loses nothing either; this
    /// spares its clients and its next start some waiting.
    pub async fn stop(&self) {
        let inner = Arc::clone(&self.inner);
        inner.metadata.stop(HANDOVER_TIMEOUT).await;
        inner.stop.cancel();
        inner.tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(2), inner.tasks.wait()).await;
        inner.mesh.close().await;
        let closing = threads::blocking(move || {
            inner.cleaner.stop();
            // A run that was not registered does not speak for the one before it, which may have lost its page cache: the
            // cluster has yet to hear of that.
            let speaks = {
                let recovery = inner.recovery.lock();
                recovery.told || recovery.clean_stop
            };
            let clean = inner.replicas.close() && speaks;
            if let Err(error) = inner.replicas.write_checkpoints(clean) {
                tracing::warn!(%error, "the next start will check every log");
            }
        });
        let _ = closing.await;
    }
}

/// The checkpoints of the run before. Without a readable file every log is scanned whole; nothing is lost.
fn checkpoints(data_dir: &DataDir) -> Result<Checkpoints, CheckpointError> {
    match Checkpoints::load(data_dir.path()) {
        Err(error @ CheckpointError::Damaged { .. }) => {
            tracing::warn!(%error, "every log will be checked from its start");
            Ok(Checkpoints::default())
        }
        other => other,
    }
}

async fn start_metadata(
    data_dir: &DataDir,
    own: &Own,
    control_mesh: Box<dyn FnOnce() -> std::io::Result<Mesh> + Send>,
    options: MetadataOptions,
) -> Result<Metadata, ClusterError> {
    let own = own.clone();
    let dir = data_dir.path().to_owned();
    // The endpoint must be opened within the metadata's runtime, but a failure must be seen here: bind errors are kept.
    let metadata = Metadata::start(options, move || match control_mesh() {
        Ok(mesh) => Arc::new(Pool::new(mesh, own)) as _,
        Err(error) => {
            tracing::error!(%error, dir = %dir.display(), "cannot open the control endpoint");
            Arc::new(crate::peers::Unreachable(error.to_string())) as _
        }
    })
    .await?;
    Ok(metadata)
}
