//! A cluster of daemons in one folder: certificates from the program's own command, a configuration file each.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::kafka::Kafka;
use crate::program;

/// What a cluster is to be.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// Its name in the mesh.
    pub name: String,
    /// How many daemons.
    pub daemons: i32,
    /// Further lines of each configuration file: topic defaults, other clusters, flows.
    pub config: String,
}

impl ClusterSpec {
    /// A cluster without other clusters.
    pub fn new(name: &str, daemons: i32) -> Self {
        Self {
            name: name.to_owned(),
            daemons,
            config: String::new(),
        }
    }
}

/// A cluster's daemons.
#[derive(Debug)]
pub struct Cluster {
    /// Its name in the mesh.
    pub name: String,
    /// Its daemons, by rising id from 1.
    pub daemons: Vec<Daemon>,
    folder: PathBuf,
}

impl Cluster {
    /// Makes the authority, the identities and the folders in `folder`. Starts nothing.
    pub fn prepare(folder: &Path, name: &str, daemons: i32) -> Result<Self> {
        let folder = folder.join(name);
        fs::create_dir_all(&folder)?;
        let authority = folder.join("ca");
        program::stdout(&["cert", "init", "--out", text(&authority)?])?;
        let mut cluster = Self {
            name: name.to_owned(),
            daemons: Vec::new(),
            folder,
        };
        for _ in 1..=daemons {
            cluster.enlarge()?;
        }
        Ok(cluster)
    }

    /// Makes the identity and the folder of one more daemon, with the next id. Starts nothing.
    fn enlarge(&mut self) -> Result<()> {
        let id = 1 + self.daemons.last().map_or(0, |daemon| daemon.id);
        let daemon = Daemon::new(id, self.folder.join(id.to_string()));
        fs::create_dir_all(&daemon.folder)?;
        let (out, number) = (text(&daemon.folder)?, id.to_string());
        program::stdout(&[
            "cert",
            "issue",
            "--ca",
            text(&self.folder.join("ca"))?,
            "--cluster",
            &self.name,
            "--node",
            &number,
            "--host",
            "127.0.0.1",
            "--host",
            "localhost",
            "--out",
            out,
        ])?;
        self.daemons.push(daemon);
        Ok(())
    }

    /// Starts one more daemon, of which the others' files say nothing; its id. It waits to be made a member.
    pub fn start_another(&mut self) -> Result<i32> {
        self.enlarge()?;
        let daemon = self.daemons.last().context("one was just made")?;
        let id = daemon.id;
        self.write_config(daemon, "")?;
        self.daemon(id)?.start()?;
        Ok(id)
    }

    /// Writes each daemon's configuration, with `more` at its end.
    pub fn configure(&self, more: &str) -> Result<()> {
        self.daemons
            .iter()
            .try_for_each(|daemon| self.write_config(daemon, more))
    }

    /// Writes the configuration of one daemon, which names all that there are.
    fn write_config(&self, daemon: &Daemon, more: &str) -> Result<()> {
        let nodes: Vec<String> = self
            .daemons
            .iter()
            .map(|d| {
                format!(
                    "{{ id = {}, mesh = \"{}\" }}",
                    d.id,
                    d.advertised.unwrap_or(d.mesh)
                )
            })
            .collect();
        let text = format!(
            "[cluster]\nname = \"{name}\"\nnodes = [{nodes}]\n\n\
             [node]\nid = {id}\ndata_dir = \"data\"\n\n\
             [mesh]\nlisten = \"{mesh}\"\n\
             tls = {{ ca = \"ca.pem\", cert = \"node.pem\", key = \"node.key\" }}\n\n\
             [[kafka.listener]]\nlisten = \"{kafka}\"\nadvertise = \"{told}\"\n\n\
             [http]\nlisten = \"{http}\"\n\n{more}",
            name = self.name,
            nodes = nodes.join(", "),
            id = daemon.id,
            mesh = daemon.mesh,
            kafka = daemon.kafka,
            told = daemon.advertised_kafka.unwrap_or(daemon.kafka),
            http = daemon.http,
        );
        fs::write(daemon.folder.join("tradewind.toml"), text)?;
        Ok(())
    }

    /// Makes a cluster in `folder` and waits until all its daemons are ready.
    pub fn start(folder: &Path, spec: &ClusterSpec) -> Result<Self> {
        let mut cluster = Self::prepare(folder, &spec.name, spec.daemons)?;
        cluster.configure(&spec.config)?;
        cluster.start_all()?;
        Ok(cluster)
    }

    /// Starts every daemon that does not run, and waits until all are ready.
    pub fn start_all(&mut self) -> Result<()> {
        for daemon in &mut self.daemons {
            if !daemon.is_running() {
                daemon.kill();
                daemon.start()?;
            }
        }
        self.daemons.iter_mut().try_for_each(Daemon::wait_ready)
    }

    /// SIGKILL to every daemon.
    pub fn kill_all(&mut self) {
        self.daemons.iter_mut().for_each(Daemon::kill);
    }

    /// The daemon of this number.
    pub fn daemon(&mut self, id: i32) -> Result<&mut Daemon> {
        self.daemons
            .iter_mut()
            .find(|daemon| daemon.id == id)
            .with_context(|| format!("no daemon {id}"))
    }

    /// A client of this cluster.
    pub fn kafka(&self) -> Kafka {
        Kafka::new(self.daemons.iter().map(|daemon| daemon.kafka).collect())
    }

    /// Kafka addresses, separated by commas.
    pub fn bootstrap(&self) -> String {
        let all: Vec<String> = self
            .daemons
            .iter()
            .map(|daemon| daemon.kafka.to_string())
            .collect();
        all.join(",")
    }

    /// The authority that signs this cluster's certificates.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca").join("ca.pem")
    }

    /// `tradewind ARGS --url ... -o json`, asked of the first daemon.
    pub fn ask(&self, args: &[&str]) -> Result<Value> {
        let url = self.daemons.first().context("a cluster has a daemon")?.url();
        program::json(&[args, &["--url", &url]].concat())
    }
}

/// A path as a command line takes it.
fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}
