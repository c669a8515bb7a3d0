//! One daemon's part in its cluster: ties metadata, logs and streams together, and is what the broker and the program see.
//!
//! Start-up is in two steps, so that the program can serve its health page meanwhile: [`Cluster::start`] opens metadata
//! and logs and answers other daemons; [`Cluster::join`] registers and from then on follows every new image. Stopping is
//! the reverse: partitions are handed over, logs flushed and closed, and a mark left that nothing needs to be recovered.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tradewind_log::{CheckpointError, Checkpoints, DataDir, DataDirError, LogEnv};
use tradewind_transport::{FrameRx, FrameTx, Mesh, Peer};
use tradewind_wire::clock::{Clock, Rng};
use tradewind_wire::ids::{ClusterId, NodeId, TopicId};
use tradewind_wire::mesh::Conversation;

use crate::calls::{self, CallError, CallHandler, Calls};
use crate::command::{Command, Outcome, Registration};
use crate::config::SAFETY_KEYS;
use crate::flusher::Flusher;
use crate::gate;
use crate::image::{Endpoint, Image, Topic};
use crate::in_sync::InSync;
use crate::metadata::{Metadata, MetadataOptions, ProposeError, RegisterError, Standing, StartError, Timing};
use crate::peers::{Own, Pool};
use crate::replica::{Replica, ReplicaContext};
use crate::replicas::{Key, Replicas};
use crate::replicate::follower::{FollowerHost, Lane};
use crate::replicate::leader::LeaderHost;

/// How many streams carry one follower's partitions of one leader.
const LANES: u64 = 2;
/// How often log starts, recovery points and watermarks are written down.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a call to another daemon takes to open at most.
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

/// Serves Kafka requests that arrive as streams of the mesh.
#[async_trait]
pub trait KafkaStreams: Send + Sync {
    /// Serves one stream, past hello and welcome, until it ends. `conversation` is `Kafka` or `Query`.
    async fn serve(&self, conversation: Conversation, peer: Peer, tx: FrameTx, rx: FrameRx);
}

/// One daemon's part in its cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

/// What the tasks of a daemon share.
pub(crate) struct Inner {
    cluster_name: String,
    node: NodeId,
    rack: Option<String>,
    seeds: BTreeMap<NodeId, String>,
    mesh: Mesh,
    mesh_addr: String,
    listeners: Vec<Endpoint>,
    defaults: BTreeMap<String, String>,
    boot_id: String,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    data_dir: Arc<DataDir>,
    cluster_id: Arc<Mutex<Option<ClusterId>>>,
    metadata: Metadata,
    replicas: Arc<Replicas>,
    recovery: Mutex<Recovery>,
    in_sync: Arc<InSync>,
    in_touch: Arc<AtomicBool>,
    pool: Pool,
    calls: Calls,
    kafka: OnceLock<Arc<dyn KafkaStreams>>,
    lanes: Mutex<HashMap<(NodeId, u64), Arc<Lane>>>,
    following: Mutex<HashMap<Key, (NodeId, u64)>>,
    downstream: Mutex<BTreeMap<String, usize>>,
    reconciled: watch::Sender<u64>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct Recovery {
    clean_stop: bool,
    damaged: Vec<Key>,
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
        let context = ReplicaContext {
            own: options.node,
            clock: Arc::clone(&options.clock),
            flusher: Flusher::start(&options.clock)?,
            in_touch: Arc::clone(&in_touch),
        };
        let replicas = Arc::new(Replicas::new(
            Arc::clone(&options.data_dir),
            LogEnv::new(Arc::clone(&options.clock)),
            options.defaults.clone(),
            context,
            checkpoints,
        ));
        let clean_stop = replicas.stopped_cleanly();
        let recovered = replicas.recover(&metadata.image())?;
        // From here on there is something to recover again.
        replicas.write_checkpoints(false);
        tracing::info!(
            logs = recovered.logs,
            clean_stop,
            truncated_bytes = recovered.truncated_bytes,
            damaged = recovered.damaged.len(),
            "recovered logs"
        );

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
            cluster_id,
            metadata,
            replicas,
            recovery: Mutex::new(Recovery {
                clean_stop,
                damaged: recovered.damaged,
            }),
            in_sync: Arc::default(),
            in_touch,
            calls: Calls::default(),
            kafka: OnceLock::new(),
            lanes: Mutex::default(),
            following: Mutex::default(),
            downstream: Mutex::default(),
            reconciled: watch::channel(0).0,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        inner.spawn_start_tasks(options.replica_lag_max, options.retention_check);
        Ok(Self { inner })
    }

    /// Registers this daemon and takes up its roles. Returns when the registration is applied here and every copy knows
    /// its role; retries for as long as there is no controller.
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
        Ok(epoch)
    }

    /// This daemon.
    pub fn node_id(&self) -> NodeId {
        self.inner.node
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
            calls::call(tx, rx, name, payload).await
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
        let closing = tokio::task::spawn_blocking(move || {
            let clean = inner.replicas.close();
            inner.replicas.write_checkpoints(clean);
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

impl Inner {
    pub(crate) fn own_node(&self) -> NodeId {
        self.node
    }

    pub(crate) fn cluster_name(&self) -> &str {
        &self.cluster_name
    }

    pub(crate) fn cluster_id(&self) -> Option<ClusterId> {
        *self.cluster_id.lock()
    }

    pub(crate) fn storage_id(&self) -> [u8; 16] {
        self.data_dir.storage_id()
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    pub(crate) fn kafka_service(&self) -> Option<Arc<dyn KafkaStreams>> {
        self.kafka.get().cloned()
    }

    /// Whether `node` belongs to this cluster, by the metadata or, before there is any, by the configuration.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        let image = self.metadata.image();
        image.members.contains(&node) || image.nodes.contains_key(&node) || self.seeds.contains_key(&node)
    }

    /// Notes that `cluster` mirrors from here until the returned guard is dropped.
    pub(crate) fn downstream(self: &Arc<Self>, cluster: &str) -> Downstream {
        *self.downstream.lock().entry(cluster.to_owned()).or_default() += 1;
        Downstream {
            inner: Arc::clone(self),
            cluster: cluster.to_owned(),
        }
    }

    async fn stream(&self, node: NodeId, conversation: Conversation) -> Result<(FrameTx, FrameRx), String> {
        let image = self.metadata.image();
        let addr = image
            .nodes
            .get(&node)
            .map(|daemon| &daemon.mesh)
            .or_else(|| self.seeds.get(&node));
        let addr = addr.ok_or_else(|| format!("node {node} is unknown"))?.clone();
        let opened = self.pool.stream(node, &addr, conversation, None).await;
        opened
            .map(|(tx, rx, _)| (tx, rx))
            .map_err(|error| error.to_string())
    }

    fn spawn_start_tasks(self: &Arc<Self>, lag_max: Duration, retention_check: Duration) {
        let mesh = self.mesh.clone();
        self.tasks.spawn(gate::run(
            Arc::clone(self),
            mesh,
            self.tasks.clone(),
            self.stop.clone(),
        ));
        self.spawn(Self::follow_image);
        self.spawn(Self::follow_standing);
        self.spawn(move |inner| async move {
            let in_sync = Arc::clone(&inner.in_sync);
            in_sync
                .run(
                    inner.node,
                    inner.metadata.clone(),
                    Arc::clone(&inner.replicas),
                    lag_max,
                )
                .await;
        });
        self.spawn(move |inner| inner.keep_house(retention_check));
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(self: &Arc<Self>, task: impl FnOnce(Arc<Self>) -> F) {
        let (task, stop) = (task(Arc::clone(self)), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! { () = task => {}, () = stop.cancelled() => {} }
        });
    }

    /// Takes every new image over into the copies here.
    async fn follow_image(self: Arc<Self>) {
        let mut images = self.metadata.subscribe();
        loop {
            let image = images.borrow_and_update().clone();
            self.learn_cluster_id(&image);
            let registered = self
                .metadata
                .standing()
                .borrow()
                .daemon_epoch
                .is_some_and(|epoch| u64::try_from(epoch).is_ok_and(|epoch| epoch <= image.index));
            let inner = Arc::clone(&self);
            let of_image = Arc::clone(&image);
            // Opening logs touches the disk.
            let reconciling =
                tokio::task::spawn_blocking(move || inner.replicas.reconcile(&of_image, registered));
            if let Ok((touched, gone)) = reconciling.await {
                for replica in &touched {
                    self.assign_lane(replica);
                }
                for key in &gone {
                    self.leave_lane(*key);
                }
            }
            self.reconciled.send_replace(image.index);
            let mut standing = self.metadata.standing();
            let registers = async {
                // A registration that is applied counts at once, also without a newer image.
                if registered {
                    std::future::pending::<()>().await
                }
                let _ = standing
                    .wait_for(|standing| standing.daemon_epoch.is_some())
                    .await;
            };
            tokio::select! {
                changed = images.changed() => if changed.is_err() { return },
                () = registers => {}
            }
        }
    }

    async fn follow_standing(self: Arc<Self>) {
        let mut standing = self.metadata.standing();
        loop {
            let in_touch = standing.borrow_and_update().in_touch;
            self.in_touch.store(in_touch, Ordering::Release);
            if standing.changed().await.is_err() {
                return;
            }
        }
    }

    async fn keep_house(self: Arc<Self>, retention_check: Duration) {
        let mut checkpoint = tokio::time::interval(CHECKPOINT_INTERVAL);
        let mut retention = tokio::time::interval(retention_check);
        loop {
            let inner = Arc::clone(&self);
            let work = tokio::select! {
                _ = checkpoint.tick() => tokio::task::spawn_blocking(move || {
                    inner.replicas.write_checkpoints(false);
                }),
                _ = retention.tick() => tokio::task::spawn_blocking(move || {
                    inner.replicas.retain(inner.clock.now_ms());
                }),
            };
            let _ = work.await;
        }
    }

    fn learn_cluster_id(&self, image: &Image) {
        let Some(id) = image.cluster_id else { return };
        let mut known = self.cluster_id.lock();
        if *known != Some(id) {
            *known = Some(id);
            if let Err(error) = self.data_dir.set_cluster_id(id) {
                tracing::error!(%error, "cannot store the cluster id");
            }
        }
    }

    fn assign_lane(self: &Arc<Self>, replica: &Arc<Replica>) {
        let key = (replica.topic, replica.partition);
        let Some(leader) = replica.follows() else {
            return self.leave_lane(key);
        };
        let lane =
            u64::from(replica.topic.0[0]).wrapping_add(u64::from(replica.partition.unsigned_abs())) % LANES;
        let before = self.following.lock().insert(key, (leader, lane));
        if let Some(before) = before.filter(|before| *before != (leader, lane))
            && let Some(lane) = self.lanes.lock().get(&before)
        {
            lane.leave(key.0, key.1);
        }
        self.lane(leader, lane).follow(replica);
    }

    fn leave_lane(&self, key: Key) {
        if let Some(lane) = self.following.lock().remove(&key)
            && let Some(lane) = self.lanes.lock().get(&lane)
        {
            lane.leave(key.0, key.1);
        }
    }

    fn lane(self: &Arc<Self>, leader: NodeId, number: u64) -> Arc<Lane> {
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry((leader, number)).or_insert_with(|| {
            let lane = Arc::new(Lane::default());
            let host: Arc<dyn FollowerHost> = Arc::clone(self) as _;
            self.tasks
                .spawn(Arc::clone(&lane).run(host, leader, self.stop.clone()));
            lane
        });
        Arc::clone(lane)
    }
}

impl LeaderHost for Inner {
    fn replica(&self, topic: TopicId, partition: i32) -> Option<Arc<Replica>> {
        self.replicas.of(topic, partition)
    }

    fn daemon_epoch(&self, node: NodeId) -> Option<i64> {
        self.metadata.image().nodes.get(&node).map(|daemon| daemon.epoch)
    }

    fn check_in_sync(&self, replica: &Arc<Replica>) {
        self.in_sync.check(replica);
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

#[async_trait]
impl FollowerHost for Inner {
    async fn open_replicate(&self, leader: NodeId) -> Result<(FrameTx, FrameRx), String> {
        self.stream(leader, Conversation::Replicate).await
    }

    fn own_daemon_epoch(&self) -> Option<i64> {
        self.metadata.standing().borrow().daemon_epoch
    }
}

/// Another cluster's mirroring from here, while it lasts.
pub(crate) struct Downstream {
    inner: Arc<Inner>,
    cluster: String,
}

impl Drop for Downstream {
    fn drop(&mut self) {
        let mut downstream = self.inner.downstream.lock();
        if let Some(streams) = downstream.get_mut(&self.cluster) {
            *streams -= 1;
            if *streams == 0 {
                downstream.remove(&self.cluster);
            }
        }
    }
}
