//! Several daemons' metadata in one process, joined by channels whose links can be cut: for tests.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tradewind_tests::wait;
use tradewind_wire::clock::{Clock, Rng};
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::mesh::Conversation;

use crate::command::{Command, CreateTopic, Outcome, Registration};
use crate::image::Image;
use crate::link::{FrameSink, FrameSource, Link, LinkError, Peers};
use crate::metadata::{Metadata, MetadataOptions, ProposeError, RegisterError, Timing};

/// How long anything that is waited for may take. Generous: machines that test are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How long a connection over a cut link takes to fail.
const SILENCE: Duration = Duration::from_millis(200);

pub(crate) struct TestClock(Instant);

impl TestClock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000 + self.monotonic().as_millis() as i64
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// splitmix64: distinct seeds give unrelated streams.
pub(crate) struct TestRng(AtomicU64);

impl TestRng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Rng for TestRng {
    fn next_u64(&self) -> u64 {
        let mut z = self
            .0
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
            .wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The daemons of one cluster.
pub(crate) struct TestCluster {
    dir: TempDir,
    wires: Arc<Wires>,
    ids: Vec<NodeId>,
    runs: AtomicU64,
    pub(crate) timing: Timing,
}

#[derive(Default)]
struct Wires {
    running: Mutex<HashMap<NodeId, Metadata>>,
    cut: Mutex<HashSet<(NodeId, NodeId)>>,
    /// How often a daemon has got another disk.
    disks: Mutex<HashMap<NodeId, u8>>,
}

impl Wires {
    fn disk(&self, node: NodeId) -> u8 {
        self.disks.lock().get(&node).copied().unwrap_or(0)
    }

    fn storage_id(&self, node: NodeId) -> [u8; 16] {
        let mut id = [node as u8; 16];
        id[0] = self.disk(node);
        id
    }
}

impl TestCluster {
    pub(crate) fn new(ids: &[NodeId]) -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            wires: Arc::default(),
            ids: ids.to_vec(),
            runs: AtomicU64::new(1),
            timing: Timing::default(),
        }
    }

    pub(crate) fn options(&self, node: NodeId) -> MetadataOptions {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        // A daemon that is added later names itself, too; those that were there before do not know of it.
        let all = self.ids.iter().chain([&node]);
        let seeds: BTreeMap<_, _> = all.map(|id| (*id, format!("node-{id}"))).collect();
        let disk = self.wires.disk(node);
        MetadataOptions {
            node,
            cluster_name: "east".to_owned(),
            cluster_id: None,
            storage_id: self.wires.storage_id(node),
            dir: self.dir.path().join(format!("{node}-{disk}")),
            seeds,
            clock: Arc::new(TestClock::new()),
            rng: Arc::new(TestRng::new(run << 32 | node as u64)),
            timing: self.timing,
        }
    }

    /// Starts a daemon on its directory; it does not register.
    pub(crate) async fn start(&self, node: NodeId) -> Metadata {
        let peers = Arc::new(ChannelPeers {
            own: node,
            wires: Arc::clone(&self.wires),
        });
        let metadata = Metadata::start(self.options(node), move || peers).await.unwrap();
        self.wires.running.lock().insert(node, metadata.clone());
        metadata
    }

    pub(crate) async fn start_all(&self) -> Vec<Metadata> {
        let mut all = Vec::new();
        for &id in &self.ids {
            all.push(self.start(id).await);
        }
        all
    }

    /// Starts and registers every daemon.
    pub(crate) async fn up(&self) -> Vec<Metadata> {
        let all = self.start_all().await;
        for metadata in &all {
            self.register(metadata).await.unwrap();
        }
        all
    }

    pub(crate) async fn register(&self, metadata: &Metadata) -> Result<i64, RegisterError> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let registration = registration(metadata.node_id(), u128::from(run));
        tokio::time::timeout(PATIENCE, metadata.register(registration))
            .await
            .expect("no controller registers this daemon")
    }

    /// Stops a daemon as a kill would, and waits until its files are closed.
    pub(crate) async fn kill(&self, metadata: Metadata) {
        self.wires.running.lock().remove(&metadata.node_id());
        metadata.abandon().await;
    }

    /// The daemon's data directory is lost: it starts with an empty one next time.
    pub(crate) fn lose_disk(&self, node: NodeId) {
        *self.wires.disks.lock().entry(node).or_default() += 1;
    }

    /// From now on nothing gets through between `node` and the others.
    pub(crate) fn isolate(&self, node: NodeId) {
        let mut cut = self.wires.cut.lock();
        for &other in self.ids.iter().filter(|id| **id != node) {
            cut.insert((node, other));
            cut.insert((other, node));
        }
    }

    pub(crate) fn heal(&self) {
        self.wires.cut.lock().clear();
    }
}

pub(crate) fn registration(node: NodeId, incarnation: u128) -> Registration {
    Registration {
        node,
        incarnation,
        replaces: None,
        own: BTreeSet::new(),
        boot_id: "boot".to_owned(),
        clean_stop: false,
        damaged: Vec::new(),
        rack: None,
        mesh: format!("node-{node}"),
        listeners: Vec::new(),
        defaults: BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]),
    }
}

/// Creates a topic through `metadata`; its id.
pub(crate) async fn create_topic(metadata: &Metadata, name: &str, id: u8) -> Result<Outcome, ProposeError> {
    let create = CreateTopic::new(name, TopicId([id; 16]), 3, 3);
    metadata.propose(Command::CreateTopic(create), PATIENCE).await
}

/// Waits until the image of `metadata` is as wanted.
pub(crate) async fn until(metadata: &Metadata, what: &str, wanted: impl FnMut(&Arc<Image>) -> bool) {
    let mut images = metadata.subscribe();
    let waited = tokio::time::timeout(PATIENCE, images.wait_for(wanted)).await;
    assert!(
        matches!(waited, Ok(Ok(_))),
        "node {} never saw: {what}; image: {:#?}",
        metadata.node_id(),
        metadata.image()
    );
}

/// Waits until `of` all agree on a controller among them.
pub(crate) async fn controller(of: &[&Metadata]) -> NodeId {
    let look = async || {
        let told: Vec<Option<NodeId>> = of.iter().map(|metadata| metadata.controller()).collect();
        let agreed = told[0].filter(|leader| told.iter().all(|other| *other == Some(*leader)));
        let among = agreed.filter(|leader| of.iter().any(|metadata| metadata.node_id() == *leader));
        among.ok_or_else(|| format!("{told:?}"))
    };
    let found = wait::until_async("a controller is elected", PATIENCE.as_secs(), look).await;
    found.unwrap()
}

struct ChannelPeers {
    own: NodeId,
    wires: Arc<Wires>,
}

#[async_trait]
impl Peers for ChannelPeers {
    async fn open(
        &self,
        node: NodeId,
        _addr: &str,
        conversation: Conversation,
        expect_storage: Option<[u8; 16]>,
    ) -> Result<Link, LinkError> {
        let failed = |reason: &str| LinkError {
            node,
            reason: reason.to_owned(),
        };
        if self.wires.cut.lock().contains(&(self.own, node)) {
            // A cut link does not refuse, it is silent.
            wait::span_async(SILENCE).await;
            return Err(failed("cut"));
        }
        let peer = self.wires.running.lock().get(&node).cloned();
        let peer = peer.ok_or_else(|| failed("not running"))?;
        let storage_id = self.wires.storage_id(node);
        if expect_storage.is_some_and(|expected| expected != storage_id) {
            return Err(failed("another disk"));
        }
        let (there, here_rx) = mpsc::channel(64);
        let (here, there_rx) = mpsc::channel(64);
        let link = |from: NodeId, to: NodeId, tx, rx| Link {
            storage_id,
            tx: Box::new(ChannelSink {
                from,
                to,
                wires: Arc::clone(&self.wires),
                tx,
            }),
            rx: Box::new(ChannelSource(rx)),
        };
        peer.serve(conversation, self.own, link(node, self.own, there, there_rx))
            .await;
        Ok(link(self.own, node, here, here_rx))
    }
}

struct ChannelSink {
    from: NodeId,
    to: NodeId,
    wires: Arc<Wires>,
    tx: mpsc::Sender<Bytes>,
}

#[async_trait]
impl FrameSink for ChannelSink {
    async fn send(&mut self, parts: &[Bytes]) -> Result<(), LinkError> {
        if self.wires.cut.lock().contains(&(self.from, self.to)) {
            return Ok(());
        }
        let mut frame = BytesMut::new();
        for part in parts {
            frame.extend_from_slice(part);
        }
        self.tx.send(frame.freeze()).await.map_err(|_| LinkError {
            node: self.to,
            reason: "closed".to_owned(),
        })
    }
}

struct ChannelSource(mpsc::Receiver<Bytes>);

#[async_trait]
impl FrameSource for ChannelSource {
    async fn recv(&mut self) -> Result<Option<Bytes>, LinkError> {
        Ok(self.0.recv().await)
    }
}
