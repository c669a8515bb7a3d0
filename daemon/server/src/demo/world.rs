//! Two regions of daemons on this machine: their folder, certificates, ports, files and processes.
//!
//! Each daemon is a process of its own, `tradewind start`, as it would be on a machine of its own. It ends when the pipe
//! to its standard input closes, which the operating system does even if this process is killed.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tradewind_transport::certs;
use tradewind_wire::clock::Clock;

use crate::cli::DemoNaming;

/// Both regions. Dropping it ends every daemon and removes the folder.
pub(super) struct World {
    folder: PathBuf,
    keep: bool,
    /// Where clients write.
    pub(super) east: Region,
    /// Where they go when the east is lost.
    pub(super) west: Region,
}

/// One region: a cluster.
pub(super) struct Region {
    /// The cluster's name.
    pub(super) name: &'static str,
    /// Its daemons, by number from 1.
    pub(super) daemons: Vec<Daemon>,
}

/// One daemon.
pub(super) struct Daemon {
    id: i32,
    folder: PathBuf,
    mesh: SocketAddr,
    /// Where Kafka clients connect.
    pub(super) kafka: SocketAddr,
    /// Where its HTTP port is.
    pub(super) http: SocketAddr,
    process: Option<Child>,
}

impl World {
    /// Prepares the folder and starts every daemon; `west` carries the flow `east->west`.
    pub(super) fn start(daemons: i32, naming: DemoNaming, keep: bool) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("tradewind-demo-{}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut ports = Ports::default();
        let (east, west) = (
            region("east", daemons, &folder, &mut ports)?,
            region("west", daemons, &folder, &mut ports)?,
        );
        drop(ports);
        let mut world = Self {
            folder,
            keep,
            east,
            west,
        };
        certs::init_ca(&world.folder.join("ca"))?;
        let flow = flow_section(&world.east, naming);
        world.east.launch(&world.folder.join("ca"), "")?;
        world.west.launch(&world.folder.join("ca"), &flow)?;
        Ok(world)
    }

    /// The folder with data and logs.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until every daemon says that it is ready.
    pub(super) async fn wait_until_ready(&mut self, clock: &dyn Clock) -> anyhow::Result<()> {
        let deadline = clock.monotonic() + READY_TIMEOUT;
        for daemon in self.east.daemons.iter_mut().chain(&mut self.west.daemons) {
            while !daemon.is_ready().await {
                daemon.check_alive()?;
                if clock.monotonic() > deadline {
                    bail!(
                        "{} is not ready after {READY_TIMEOUT:?}\n{}",
                        daemon.folder.display(),
                        daemon.log_tail()
                    );
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Says when a daemon ends that was not told to; runs until nothing is left to watch.
    pub(super) async fn watch(&mut self) {
        loop {
            for region in [&mut self.east, &mut self.west] {
                for daemon in &mut region.daemons {
                    if let Some(process) = &mut daemon.process
                        && let Ok(Some(status)) = process.try_wait()
                    {
                        eprintln!("daemon {} of {} ended: {status}", daemon.id, region.name);
                        daemon.process = None;
                    }
                }
            }
            tokio::time::sleep(WATCH).await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.east.kill();
        self.west.kill();
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

impl Region {
    /// Kafka addresses, separated by commas.
    pub(super) fn bootstrap(&self) -> Vec<String> {
        self.daemons
            .iter()
            .map(|daemon| daemon.kafka.to_string())
            .collect()
    }

    /// The processes' numbers.
    pub(super) fn process_ids(&self) -> Vec<u32> {
        self.daemons
            .iter()
            .filter_map(|daemon| Some(daemon.process.as_ref()?.id()))
            .collect()
    }

    /// Ends every daemon at once and without warning (SIGKILL).
    pub(super) fn kill(&mut self) {
        let mut processes: Vec<_> = self
            .daemons
            .iter_mut()
            .filter_map(|daemon| daemon.process.take())
            .collect();
        for process in &mut processes {
            let _ = process.kill();
        }
        for process in &mut processes {
            let _ = process.wait();
        }
    }

    fn launch(&mut self, ca: &Path, extra: &str) -> anyhow::Result<()> {
        let mut nodes = String::new();
        for daemon in &self.daemons {
            let _ = writeln!(nodes, "  {{ id = {}, mesh = \"{}\" }},", daemon.id, daemon.mesh);
        }
        for daemon in &mut self.daemons {
            std::fs::create_dir(&daemon.folder)?;
            certs::issue(
                ca,
                self.name,
                daemon.id,
                &["127.0.0.1".to_owned()],
                &daemon.folder,
            )?;
            let text = daemon.config(self.name, &nodes) + extra;
            std::fs::write(daemon.folder.join("tradewind.toml"), text)?;
            daemon.launch()?;
        }
        Ok(())
    }
}

impl Daemon {
    fn config(&self, cluster: &str, nodes: &str) -> String {
        // With one or two daemons, one copy in sync must do: one of them may be missing.
        let min_in_sync = if nodes.lines().count() > 2 { 2 } else { 1 };
        format!(
            "[cluster]\nname = \"{cluster}\"\nnodes = [\n{nodes}]\n\n\
             [node]\nid = {}\ndata_dir = \"data\"\nrack = \"{cluster}-{}\"\n\n\
             [mesh]\nlisten = \"{}\"\ntls = {{ ca = \"ca.pem\", cert = \"node.pem\", key = \"node.key\" }}\n\n\
             [[kafka.listener]]\nlisten = \"{}\"\n\n\
             [http]\nlisten = \"{}\"\n\n\
             [topic_defaults]\n\"num.partitions\" = 3\n\"default.replication.factor\" = 3\n\
             \"group.initial.rebalance.delay.ms\" = 0\n\
             \"min.insync.replicas\" = {min_in_sync}\n\n",
            self.id, self.id, self.mesh, self.kafka, self.http,
        )
    }

    fn launch(&mut self) -> anyhow::Result<()> {
        let log = File::create(self.folder.join("log"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["start", "--exit-with-stdin", "--config"])
            .arg(self.folder.join("tradewind.toml"))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // The terminal's ^C is for the demo, which then ends its daemons.
            .process_group(0);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("TRADEWIND__")) {
                command.env_remove(name);
            }
        }
        self.process = Some(command.spawn().context("cannot start a daemon")?);
        Ok(())
    }

    async fn is_ready(&self) -> bool {
        let url = format!("http://{}/readyz", self.http);
        let asking = tokio::task::spawn_blocking(move || {
            let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(2)));
            ureq::Agent::from(config.build()).get(&url).call().is_ok()
        });
        asking.await.unwrap_or(false)
    }

    fn check_alive(&mut self) -> anyhow::Result<()> {
        if let Some(process) = &mut self.process
            && let Some(status) = process.try_wait()?
        {
            bail!("a daemon ended by itself: {status}\n{}", self.log_tail());
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

fn region(name: &'static str, daemons: i32, folder: &Path, ports: &mut Ports) -> anyhow::Result<Region> {
    let daemon = |id| {
        anyhow::Ok(Daemon {
            id,
            folder: folder.join(format!("{name}-{id}")),
            mesh: ports.udp()?,
            kafka: ports.tcp()?,
            http: ports.tcp()?,
            process: None,
        })
    };
    let daemons = (1..=daemons).map(daemon).collect::<anyhow::Result<_>>()?;
    Ok(Region { name, daemons })
}

fn flow_section(source: &Region, naming: DemoNaming) -> String {
    let mesh: Vec<String> = source
        .daemons
        .iter()
        .map(|daemon| format!("\"{}\"", daemon.mesh))
        .collect();
    let naming = match naming {
        DemoNaming::Prefix => "prefix",
        DemoNaming::Identity => "identity",
    };
    format!(
        "[clusters.{0}]\nmesh = [{1}]\n\n[[mirror]]\nfrom = \"{0}\"\ntopics = [\".*\"]\ngroups = [\".*\"]\nnaming = \"{naming}\"\n",
        source.name,
        mesh.join(", "),
    )
}

/// Finds ports that nobody uses; they stay reserved until this is dropped, so that no two are the same.
#[derive(Default)]
struct Ports {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Ports {
    fn tcp(&mut self) -> std::io::Result<SocketAddr> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = socket.local_addr()?;
        self.tcp.push(socket);
        Ok(address)
    }

    fn udp(&mut self) -> std::io::Result<SocketAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = socket.local_addr()?;
        self.udp.push(socket);
        Ok(address)
    }
}

/// Six daemons start within a second on an idle machine.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const WATCH: Duration = Duration::from_millis(200);
