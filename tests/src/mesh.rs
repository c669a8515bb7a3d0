//! Two clusters, `east` and `west`, with a flow from east to west.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::relay::{Line, Relay};
use crate::{program, wait};

/// What mirrored topics are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `east.orders`.
    Prefix,
    /// `orders`.
    Identity,
}

impl Naming {
    /// The word in a configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::Identity => "identity",
        }
    }

    /// What a topic of the east is called in the west.
    pub fn mirrored(self, topic: &str) -> String {
        match self {
            Self::Prefix => format!("east.{topic}"),
            Self::Identity => topic.to_owned(),
        }
    }
}

/// The two clusters.
#[derive(Debug)]
pub struct Mesh {
    /// The source.
    pub east: Cluster,
    /// The target: it runs the flow `east->west`.
    pub west: Cluster,
    /// What the flow calls its topics.
    pub naming: Naming,
}

impl Mesh {
    /// Starts both clusters with `daemons` each in `folder`, and waits until all are ready.
    pub fn start(folder: &Path, daemons: i32, naming: Naming) -> Result<Self> {
        Self::start_with(folder, daemons, naming, "")
    }

    /// As [`Self::start`], with further lines in every configuration file.
    pub fn start_with(folder: &Path, daemons: i32, naming: Naming, config: &str) -> Result<Self> {
        let east = Cluster::prepare(folder, "east", daemons)?;
        Self::start_to(folder, east, naming, config)
    }

    /// One daemon each, and between them a line of this kind: the west finds the east only through the relay.
    pub fn start_apart(folder: &Path, naming: Naming, line: Line, seed: u64) -> Result<(Self, Relay)> {
        let (mut mesh, relay) = Self::prepare_apart(folder, naming, line, seed, false)?;
        mesh.start_both()?;
        Ok((mesh, relay))
    }

    /// As [`Self::start_apart`], but starts nothing. With `kafka` the west reads the east by Kafka's protocol over TCP.
    pub fn prepare_apart(
        folder: &Path,
        naming: Naming,
        line: Line,
        seed: u64,
        kafka: bool,
    ) -> Result<(Self, Relay)> {
        let mut east = Cluster::prepare(folder, "east", 1)?;
        let daemon = east.daemon(1)?;
        let relay = if kafka {
            let relay = Relay::tcp(daemon.kafka, line, seed)?;
            daemon.advertised_kafka = Some(relay.addr());
            relay
        } else {
            let relay = Relay::udp(daemon.mesh, line, seed)?;
            daemon.advertised = Some(relay.addr());
            relay
        };
        let west = Cluster::prepare(folder, "west", 1)?;
        let mesh = Self { east, west, naming };
        mesh.configure("", kafka)?;
        Ok((mesh, relay))
    }

    /// `daemons` each, and a line of this kind between every daemon of the east and those of the west, but none within
    /// the east. With further lines in every configuration file.
    pub fn start_far(
        folder: &Path,
        naming: Naming,
        daemons: i32,
        line: Line,
        seed: u64,
        config: &str,
    ) -> Result<(Self, Vec<Relay>)> {
        let mut east = Cluster::prepare(folder, "east", daemons)?;
        let west = Cluster::prepare(folder, "west", daemons)?;
        let relays = put_before(&mut east, &west, line, seed)?;
        let mut mesh = Self { east, west, naming };
        mesh.configure(config, false)?;
        mesh.start_both()?;
        Ok((mesh, relays))
    }

    /// `daemons` each with identity naming, and a line before every daemon of both sides: a cut of all parts the two clusters,
    /// whoever dials.
    pub fn start_parted(folder: &Path, daemons: i32) -> Result<(Self, Vec<Relay>)> {
        let mut east = Cluster::prepare(folder, "east", daemons)?;
        let mut west = Cluster::prepare(folder, "west", daemons)?;
        let line = Line::of_rtt(Duration::ZERO);
        let mut relays = put_before(&mut east, &west, line, 1)?;
        relays.extend(put_before(&mut west, &east, line, 100)?);
        let naming = Naming::Identity;
        let mut mesh = Self { east, west, naming };
        mesh.configure("", false)?;
        mesh.start_both()?;
        Ok((mesh, relays))
    }

    fn start_to(folder: &Path, east: Cluster, naming: Naming, config: &str) -> Result<Self> {
        let west = Cluster::prepare(folder, "west", i32::try_from(east.daemons.len())?)?;
        let mut mesh = Self { east, west, naming };
        mesh.configure(config, false)?;
        mesh.start_both()?;
        Ok(mesh)
    }

    fn configure(&self, config: &str, kafka: bool) -> Result<()> {
        let Self { east, west, naming } = self;
        let flow = format!("\n[[mirror]]\nfrom = \"east\"\nnaming = \"{}\"\n", naming.word());
        let source = if kafka {
            let told = |daemon: &Daemon| format!("\"{}\"", daemon.advertised_kafka.unwrap_or(daemon.kafka));
            let all: Vec<String> = east.daemons.iter().map(told).collect();
            format!("[clusters.east]\nkafka = [{}]\n", all.join(", "))
        } else {
            remote(east, true)
        };
        east.configure(&(remote(west, true) + config))?;
        west.configure(&(source + &flow + config))
    }

    /// Starts both clusters and waits until all are ready. One after the other would double the wait.
    pub fn start_both(&mut self) -> Result<()> {
        let Self { east, west, .. } = self;
        std::thread::scope(|scope| {
            let other = scope.spawn(|| east.start_all());
            west.start_all()?;
            other
                .join()
                .map_err(|_| anyhow::anyhow!("starting the east panicked"))?
        })
    }

    /// Writes the east's configuration anew, for its next start, with these further lines.
    pub fn configure_east(&self, config: &str) -> Result<()> {
        self.east.configure(&(remote(&self.west, true) + config))
    }

    /// Writes the east's configuration anew, for its next start: the west may not fence its topics.
    pub fn forbid_fences(&self) -> Result<()> {
        self.east.configure(&remote(&self.west, false))
    }

    /// The flow's line of `mirror status`, as any daemon of the west tells it.
    pub fn status(&self) -> Result<Value> {
        let flows = self.west.ask(&["mirror", "status"])?;
        let flow = flows
            .as_array()
            .and_then(|all| all.iter().find(|flow| flow["flow"] == "east->west"));
        flow.cloned()
            .with_context(|| format!("no flow east->west in {flows}"))
    }

    /// Waits until the west has everything that the east had when this was called, groups included.
    pub fn wait_mirrored(&self, topics: u64, seconds: u64) -> Result<()> {
        wait::until("the flow has no lag", seconds, || {
            let status = self.status()?;
            let caught_up = status["lag_records"] == 0
                && status["topics"].as_u64() >= Some(topics)
                && status["groups"]["exact"] == status["groups"]["total"];
            ensure!(caught_up, "{status}");
            Ok(Some(()))
        })
    }

    /// `mirror verify 'east->west'` with these further options: whether all is the same, and its report.
    pub fn verify(&self, options: &[&str]) -> Result<(bool, Value)> {
        let url = self.west.daemons.first().context("a daemon")?.url();
        let command = ["mirror", "verify", "east->west", "--url", &url, "-o", "json"];
        let output = program::run(&[&command[..], options].concat())?;
        let report = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok((output.status.success(), report))
    }

    /// `failover 'east->west' --accept-loss`; returns its report.
    pub fn fail_over(&self) -> Result<Value> {
        self.west.ask(&["failover", "east->west", "--accept-loss"])
    }
}

/// How a cluster is named in another's configuration, and whether a switchover there may take topics away.
pub fn remote(other: &Cluster, may_fence: bool) -> String {
    let addresses: Vec<String> = other
        .daemons
        .iter()
        .map(|d| format!("\"{}\"", d.advertised.unwrap_or(d.mesh)))
        .collect();
    format!(
        "[clusters.{}]\nmesh = [{}]\ntls = {{ ca = \"{}\" }}\nmay_fence = {may_fence}\n",
        other.name,
        addresses.join(", "),
        other.authority().display()
    )
}

/// Puts a line before each daemon of `cluster` for those of `other`.
fn put_before(cluster: &mut Cluster, other: &Cluster, line: Line, seed: u64) -> Result<Vec<Relay>> {
    let far: Vec<SocketAddr> = other.daemons.iter().map(|daemon| daemon.mesh).collect();
    let mut relays = Vec::new();
    for (daemon, seed) in cluster.daemons.iter_mut().zip(seed..) {
        let relay = Relay::udp_before(daemon.mesh, far.clone(), line, seed)?;
        daemon.advertised = Some(relay.addr());
        relays.push(relay);
    }
    Ok(relays)
}
