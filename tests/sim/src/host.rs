//! One simulated machine: a runtime with a clock of its own, a data directory, and the daemon on it while it runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};
use tradewind_cluster::metadata::Timing;
use tradewind_cluster::{CleanerOptions, Cluster, ClusterOptions};
use tradewind_log::DataDir;
use tradewind_transport::{Mesh, MeshOptions, MeshTls, certs};
use tradewind_wire::clock::{Clock, Rng};
use tradewind_wire::ids::NodeId;

use crate::disk;
use crate::entropy::Dice;
use crate::net::Net;

/// The cluster's name.
const CLUSTER: &str = "east";
/// What the wall clock shows when a simulation begins.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// A host's clocks, in milliseconds since the simulation began; the wall clock may be wrong.
#[derive(Debug, Default)]
pub struct HostClock {
    now: AtomicU64,
    skew: AtomicI64,
}

impl HostClock {
    /// Sets how wrong the wall clock is.
    pub fn set_skew(&self, ms: i64) {
        self.skew.store(ms, Ordering::Relaxed);
    }
}

impl Clock for HostClock {
    fn now_ms(&self) -> i64 {
        EPOCH_MS + self.now.load(Ordering::Relaxed) as i64 + self.skew.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        // Not zero at the beginning, as on any machine.
        Duration::from_secs(1_000) + Duration::from_millis(self.now.load(Ordering::Relaxed))
    }
}

/// How the daemon on a host is doing.
#[derive(Default)]
pub struct Daemon {
    cluster: Mutex<Option<Cluster>>,
    joined: AtomicBool,
    ended: Mutex<Option<String>>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// What is the same for all hosts of a cluster.
#[derive(Debug)]
pub struct Site {
    /// Where the hosts' directories are.
    pub dir: PathBuf,
    /// The seed.
    pub seed: u64,
    /// Every daemon.
    pub nodes: Vec<NodeId>,
    /// Between them.
    pub net: Net,
}

/// One machine.
pub struct Host {
    /// The daemon on it.
    pub node: NodeId,
    /// Its clocks.
    pub clock: Arc<HostClock>,
    site: Arc<Site>,
    boots: u64,
    /// How often the machine itself was started.
    power_cycles: u64,
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    daemon: Arc<Daemon>,
}

impl Site {
    /// A cluster of `count` daemons whose directories are below `dir`.
    pub fn new(dir: &Path, seed: u64, count: i32, net: Net) -> Result<Self> {
        let nodes: Vec<NodeId> = (1..=count).collect();
        certs::init_ca(&dir.join("ca"))?;
        for &node in &nodes {
            let out = dir.join(format!("certs-{node}"));
            certs::issue(&dir.join("ca"), CLUSTER, node, &["10.0.0.1".to_owned()], &out)?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            seed,
            nodes,
            net,
        })
    }
}

impl Host {
    /// A machine that is off.
    pub fn new(site: &Arc<Site>, node: NodeId) -> Self {
        Self {
            node,
            clock: Arc::default(),
            site: Arc::clone(site),
            boots: 0,
            power_cycles: 0,
            running: None,
        }
    }

    /// Whether a daemon runs here.
    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Whether it is registered.
    pub fn has_joined(&self) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| running.daemon.joined.load(Ordering::Relaxed))
    }

    /// Which run of the daemon this is.
    pub fn boots(&self) -> u64 {
        self.boots
    }

    /// The daemon, once its logs are recovered.
    pub fn cluster(&self) -> Option<Cluster> {
        let daemon = &self.running.as_ref()?.daemon;
        daemon.cluster.lock().unwrap_or_else(|p| p.into_inner()).clone()
    }

    /// Why the daemon ended by itself, if it did.
    pub fn ended(&self) -> Option<String> {
        let daemon = &self.running.as_ref()?.daemon;
        daemon.ended.lock().unwrap_or_else(|p| p.into_inner()).clone()
    }

    /// Does something as if from within the daemon.
    pub fn within<T>(&self, act: impl FnOnce(&Runtime, &Cluster) -> T) -> Option<T> {
        let cluster = self.cluster()?;
        let runtime = &self.running.as_ref()?.runtime;
        let _guard = runtime.enter();
        Some(act(runtime, &cluster))
    }

    /// Starts the daemon.
    pub fn start(&mut self, now: u64) -> Result<()> {
        self.boots += 1;
        self.clock.now.store(now, Ordering::Relaxed);
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        let daemon = Arc::new(Daemon::default());
        let options = self.options()?;
        let of_task = Arc::clone(&daemon);
        runtime.spawn(async move {
            if let Err(error) = serve(options, &of_task).await {
                *of_task.ended.lock().unwrap_or_else(|p| p.into_inner()) = Some(format!("{error:#}"));
            }
        });
        self.running = Some(Running { runtime, daemon });
        Ok(())
    }

    fn options(&self) -> Result<impl FnOnce() -> Result<ClusterOptions> + Send + use<>> {
        let (site, node) = (Arc::clone(&self.site), self.node);
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        let purpose = format!("host {node} boot {}", self.boots);
        let dice = Arc::new(Dice::new(site.seed, &purpose));
        let power_cycles = self.power_cycles;
        let file = |name: &str| site.dir.join(format!("certs-{node}")).join(name);
        let tls = MeshTls::load(&file("ca.pem"), &file("node.pem"), &file("node.key"), &[])?;
        let tls = Arc::new(tls);
        let data = site.dir.join(format!("data-{node}"));
        let net = site.net.clone();
        let seeds: BTreeMap<NodeId, String> = site
            .nodes
            .iter()
            .map(|node| (*node, Net::address(*node).to_string()))
            .collect();
        Ok(move || {
            let data_dir = DataDir::open(&data, &*dice).context("opening the data directory")?;
            let endpoint = |dice: &Dice, others, key: [u8; 64]| {
                let mut seed = [0; 32];
                seed[..8].copy_from_slice(&dice.next().to_be_bytes());
                (net.open(node, others), seed, MeshOptions::new(key))
            };
            let (socket, seed, options) = endpoint(&dice, false, [node as u8; 64]);
            let mesh = Mesh::on(socket, seed, Arc::clone(&tls), options)?;
            let (socket, seed, options) = endpoint(&dice, true, [0; 64]);
            let control_mesh =
                Box::new(move || Mesh::on(socket, seed, tls, options).map_err(std::io::Error::other));
            Ok(ClusterOptions {
                cluster_name: CLUSTER.to_owned(),
                node,
                rack: None,
                meta_dir: data.join("meta"),
                data_dir: Arc::new(data_dir),
                mesh,
                control_mesh,
                mesh_addr: Net::address(node).to_string(),
                listeners: Vec::new(),
                defaults: BTreeMap::from([(
                    "min.insync.replicas".to_owned(),
                    seeds.len().min(2).to_string(),
                )]),
                seeds,
                replica_lag_max: Duration::from_secs(3),
                retention_check: Duration::from_secs(300),
                cleaner: CleanerOptions::default(),
                disk_reserve: 0,
                boot_id: format!("boot-{power_cycles}"),
                timing: Timing::default(),
                clock,
                rng: dice as Arc<dyn Rng>,
            })
        })
    }

    /// Runs the host until `now`, at most one step further than it is. A host that slept much longer wakes up there.
    pub fn step(&mut self, now: u64) {
        let before = self.clock.now.swap(now, Ordering::Relaxed);
        let Some(running) = &self.running else { return };
        let passed = Duration::from_millis(now.saturating_sub(before));
        running.runtime.block_on(async {
            if passed > Duration::from_millis(1) {
                tokio::time::advance(passed).await;
            } else {
                tokio::time::sleep(passed).await;
            }
        });
    }

    /// Ends the daemon's process at once. With `power_lost` the machine goes down, too: what was not flushed may be gone.
    /// Says what was lost.
    pub fn crash(&mut self, power_lost: Option<&Dice>) -> Result<Vec<String>> {
        let lost = match power_lost {
            Some(_) => self.cluster().map(|cluster| disk::unflushed(&cluster)),
            None => None,
        };
        if let Some(running) = self.running.take() {
            if let Ok(mut cluster) = running.daemon.cluster.lock() {
                *cluster = None;
            }
            running.runtime.shutdown_background();
        }
        self.site.net.close(self.node);
        let Some(dice) = power_lost else {
            return Ok(Vec::new());
        };
        self.power_cycles += 1;
        lost.unwrap_or_default()
            .iter()
            .map(|tail| tail.lose(dice))
            .filter_map(Result::transpose)
            .collect()
    }
}

async fn serve(options: impl FnOnce() -> Result<ClusterOptions>, daemon: &Daemon) -> Result<()> {
    let cluster = Cluster::start(options()?).await.context("starting")?;
    *daemon.cluster.lock().unwrap_or_else(|p| p.into_inner()) = Some(cluster.clone());
    let mut standing = cluster.standing();
    cluster.join().await.context("joining")?;
    daemon.joined.store(true, Ordering::Relaxed);
    let fatal = standing.wait_for(|standing| standing.fatal.is_some()).await;
    // It was asked to stop.
    let Ok(fatal) = fatal.map(|standing| standing.fatal.clone()) else {
        return Ok(());
    };
    anyhow::bail!("Raft has ended: {}", fatal.unwrap_or_default())
}
