//! What the tasks of one daemon's cluster half share, and those tasks: each new image is taken over into the copies here,
//! followers get their lanes, and house is kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tradewind_log::{DataDir, Room};
use tradewind_transport::{FrameRx, FrameTx, Mesh};
use tradewind_wire::clock::{Clock, Rng};
use tradewind_wire::ids::{ClusterId, NodeId, TopicId};
use tradewind_wire::mesh::Conversation;

use crate::audit::Audits;
use crate::calls::Calls;
use crate::cleaner::Cleaner;
use crate::cluster::KafkaStreams;
use crate::gate;
use crate::image::{Endpoint, Image};
use crate::in_sync::InSync;
use crate::metadata::Metadata;
use crate::peers::Pool;
use crate::rehearsal::Rehearsals;
use crate::replica::Replica;
use crate::replicas::{Key, Replicas};
use crate::replicate::follower::{FollowerHost, Lane};
use crate::replicate::leader::LeaderHost;
use crate::threads;

/// How many streams carry one follower's partitions of one leader.
const LANES: u64 = 2;
/// How often log starts, recovery points and watermarks are written down.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
/// How often logs are looked at for `flush.ms`.
const FLUSH_CHECK: Duration = Duration::from_millis(500);
/// How often the free space is looked at: what a fast disk takes meanwhile must fit into the reserve.
const DISK_CHECK: Duration = Duration::from_millis(250);

/// What the tasks of a daemon share.
pub(crate) struct Inner {
    pub(crate) cluster_name: String,
    pub(crate) node: NodeId,
    pub(crate) rack: Option<String>,
    pub(crate) seeds: BTreeMap<NodeId, String>,
    pub(crate) mesh: Mesh,
    pub(crate) mesh_addr: String,
    pub(crate) listeners: Vec<Endpoint>,
    pub(crate) defaults: BTreeMap<String, String>,
    pub(crate) boot_id: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
    pub(crate) data_dir: Arc<DataDir>,
    pub(crate) room: Arc<Room>,
    pub(crate) cluster_id: Arc<Mutex<Option<ClusterId>>>,
    pub(crate) metadata: Metadata,
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) cleaner: Cleaner,
    pub(crate) recovery: Mutex<Recovery>,
    pub(crate) in_sync: Arc<InSync>,
    pub(crate) in_touch: Arc<AtomicBool>,
    pub(crate) checkpoint_asked: Arc<Notify>,
    pub(crate) pool: Pool,
    pub(crate) calls: Calls,
    pub(crate) audits: Audits,
    pub(crate) rehearsals: Rehearsals,
    pub(crate) kafka: OnceLock<Arc<dyn KafkaStreams>>,
    pub(crate) lanes: Mutex<HashMap<(NodeId, u64), Arc<Lane>>>,
    pub(crate) following: Mutex<HashMap<Key, (NodeId, u64)>>,
    pub(crate) downstream: Mutex<BTreeMap<String, usize>>,
    pub(crate) reconciled: watch::Sender<u64>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// What recovery found, for the registration.
#[derive(Default)]
pub(crate) struct Recovery {
    pub(crate) clean_stop: bool,
    pub(crate) damaged: Vec<Key>,
    /// Replicas whose logs remember it until the registration is applied.
    pub(crate) suspect: Vec<Key>,
    /// The registration is applied: the cluster has decided on what was found.
    pub(crate) told: bool,
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

    /// Opens a stream to another daemon of this cluster.
    pub(crate) async fn stream(
        &self,
        node: NodeId,
        conversation: Conversation,
    ) -> Result<(FrameTx, FrameRx), String> {
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

    /// Starts the tasks that run for as long as the daemon does.
    pub(crate) fn spawn_start_tasks(
        self: &Arc<Self>,
        lag_max: Duration,
        retention_check: Duration,
        disk_reserve: u64,
    ) {
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
        self.spawn(Self::keep_checkpoints);
        self.spawn(move |inner| inner.keep_house(retention_check));
        self.spawn(move |inner| inner.watch_disk(disk_reserve));
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
            let reconciling = threads::blocking(move || inner.replicas.reconcile(&of_image, registered));
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

    /// Writes checkpoints now and then, and at once when somebody waits for one. Those who ask while one is being written
    /// share the next.
    async fn keep_checkpoints(self: Arc<Self>) {
        let mut checkpoint = tokio::time::interval(CHECKPOINT_INTERVAL);
        loop {
            tokio::select! {
                _ = checkpoint.tick() => {}
                () = self.checkpoint_asked.notified() => {}
            }
            let inner = Arc::clone(&self);
            let work = threads::blocking(move || {
                if let Err(error) = inner.replicas.write_checkpoints(false) {
                    tracing::warn!(%error, "cannot write checkpoints");
                }
            });
            let _ = work.await;
        }
    }

    async fn keep_house(self: Arc<Self>, retention_check: Duration) {
        let mut retention = tokio::time::interval(retention_check);
        let mut flush = tokio::time::interval(FLUSH_CHECK);
        loop {
            let inner = Arc::clone(&self);
            let work = tokio::select! {
                _ = retention.tick() => threads::blocking(move || {
                    inner.replicas.retain(inner.clock.now_ms());
                }),
                _ = flush.tick() => {
                    self.replicas.flush_aged(self.clock.now_ms());
                    continue;
                }
            };
            let _ = work.await;
        }
    }

    async fn watch_disk(self: Arc<Self>, reserve: u64) {
        let mut look = tokio::time::interval(DISK_CHECK);
        loop {
            look.tick().await;
            let inner = Arc::clone(&self);
            let looked = threads::blocking(move || inner.room.note(&inner.data_dir.volume(), reserve));
            let _ = looked.await;
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
