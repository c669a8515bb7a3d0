//! The two systems that take turns: daemons of ours, and as many brokers of Apache Kafka.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use tradewind_tests::daemon::resident_bytes;
use tradewind_tests::{Cluster, ports, wait};

use crate::clients::Java;

/// Ours and theirs, as the tables and options name them.
pub(crate) const SYSTEMS: [&str; 2] = ["tradewind", "apache"];

/// Starts one of [`SYSTEMS`]: so many daemons with nothing in them. `config` holds further lines of the configuration
/// files of ours.
pub(crate) fn start(name: &str, folder: &Path, config: &str, daemons: u32) -> Result<Box<dyn System>> {
    Ok(match name {
        "tradewind" => Box::new(Tradewind::start_with(folder, config, daemons)?),
        "apache" => Box::new(Apache::start(&Java::find()?, folder, daemons)?),
        _ => bail!("no system {name}: there are {}", SYSTEMS.join(" and ")),
    })
}

/// A running system.
pub(crate) trait System {
    fn bootstrap(&self) -> String;
    fn pids(&self) -> Vec<u32>;
    /// From the first process started to the last one ready.
    fn start_seconds(&self) -> f64;
    /// SIGKILL for one daemon, by its number.
    fn kill(&mut self, id: i32) -> Result<()>;
    /// Starts a daemon that was killed, and waits until it answers.
    fn start_again(&mut self, id: i32) -> Result<()>;

    /// Where its daemons listen.
    fn brokers(&self) -> Result<Vec<SocketAddr>> {
        addresses(&self.bootstrap())
    }

    fn cpu_seconds(&self) -> Result<f64> {
        self.pids().into_iter().map(crate::process::cpu_seconds).sum()
    }

    /// The mean resident memory of one process.
    fn idle_bytes(&self) -> Result<u64> {
        let pids = self.pids();
        let all: u64 = pids.iter().map(|pid| resident_bytes(*pid)).sum::<Result<u64>>()?;
        Ok(all / pids.len().max(1) as u64)
    }
}

/// The addresses in a list as clients are given it.
pub(crate) fn addresses(bootstrap: &str) -> Result<Vec<SocketAddr>> {
    let one = |address: &str| address.to_socket_addrs()?.next().context("an address");
    bootstrap.split(',').map(one).collect()
}

/// Our daemons.
pub(crate) struct Tradewind {
    cluster: Cluster,
    start_seconds: f64,
}

impl Tradewind {
    /// A cluster of so many daemons, with further lines in their configuration files.
    pub(crate) fn start_with(folder: &Path, config: &str, daemons: u32) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut cluster = Cluster::prepare(folder, "bench", i32::try_from(daemons)?)?;
        cluster.configure(config)?;
        let began = Instant::now();
        cluster.start_all()?;
        Ok(Self {
            cluster,
            start_seconds: began.elapsed().as_secs_f64(),
        })
    }
}

impl System for Tradewind {
    fn bootstrap(&self) -> String {
        self.cluster.bootstrap()
    }

    fn pids(&self) -> Vec<u32> {
        self.cluster
            .daemons
            .iter()
            .filter_map(|daemon| daemon.pid())
            .collect()
    }

    fn start_seconds(&self) -> f64 {
        self.start_seconds
    }

    fn kill(&mut self, id: i32) -> Result<()> {
        self.cluster.daemon(id)?.kill();
        Ok(())
    }

    fn start_again(&mut self, _id: i32) -> Result<()> {
        self.cluster.start_all()
    }
}

/// A second listener, for clients that are told another address than where it listens: that of a relay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Far {
    pub(crate) listen: SocketAddr,
    pub(crate) told: SocketAddr,
}

/// Brokers, each also a controller.
pub(crate) struct Apache {
    java: Java,
    brokers: Vec<Broker>,
    bootstrap: String,
    start_seconds: f64,
}

/// One of them, numbered from 1 in their order.
struct Broker {
    process: Child,
    /// Its configuration.
    file: String,
    place: PathBuf,
    port: u16,
}

impl Apache {
    /// So many brokers with nothing in them.
    pub(crate) fn start(java: &Java, folder: &Path, brokers: u32) -> Result<Self> {
        Self::start_with(java, folder, brokers, None)
    }

    /// One broker that has a listener for those far away, too.
    pub(crate) fn start_far(java: &Java, folder: &Path, far: Far) -> Result<Self> {
        Self::start_with(java, folder, 1, Some(far))
    }

    fn start_with(java: &Java, folder: &Path, brokers: u32, far: Option<Far>) -> Result<Self> {
        let ports: Vec<[u16; 2]> = (0..brokers)
            .map(|_| [ports::free().port(), ports::free().port()])
            .collect();
        let voters: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(i, [_, port])| format!("{}@127.0.0.1:{port}", i + 1))
            .collect();
        let id = java.run("kafka.tools.StorageTool", &["random-uuid"])?;
        let mut files = Vec::new();
        for (i, [kafka, controller]) in ports.iter().enumerate() {
            let place = folder.join((i + 1).to_string());
            fs::create_dir_all(&place)?;
            let file = place.join("server.properties");
            fs::write(
                &file,
                properties(i + 1, [*kafka, *controller], &voters.join(","), far, &place),
            )?;
            let file = file.display().to_string();
            java.run(
                "kafka.tools.StorageTool",
                &["format", "-t", id.trim(), "-c", &file],
            )?;
            files.push((file, place, *kafka));
        }
        let began = Instant::now();
        let mut apache = Self {
            java: java.clone(),
            brokers: Vec::new(),
            bootstrap: String::new(),
            start_seconds: 0.0,
        };
        for (file, place, port) in files {
            apache.brokers.push(Broker {
                process: process(java, &file, &place)?,
                file,
                place,
                port,
            });
        }
        for broker in &apache.brokers {
            broker.wait_listening()?;
        }
        apache.start_seconds = began.elapsed().as_secs_f64();
        let all: Vec<String> = ports
            .iter()
            .map(|[kafka, _]| format!("127.0.0.1:{kafka}"))
            .collect();
        apache.bootstrap = all.join(",");
        for broker in &mut apache.brokers {
            let ended = broker.process.try_wait()?;
            ensure!(ended.is_none(), "a broker of Apache Kafka has ended");
        }
        Ok(apache)
    }

    fn broker(&mut self, id: i32) -> Result<&mut Broker> {
        let at = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        at.and_then(|at| self.brokers.get_mut(at))
            .with_context(|| format!("there is no broker {id}"))
    }
}

impl Broker {
    fn wait_listening(&self) -> Result<()> {
        wait::until_true("Apache Kafka listens", 90, || {
            Ok(TcpStream::connect(("127.0.0.1", self.port)).is_ok())
        })
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a broker.
fn process(java: &Java, file: &str, place: &Path) -> Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(place.join("log"))?;
    let mut command = java.command("1g");
    command
        .args(["kafka.Kafka", file])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command.spawn()?)
}

fn properties(
    id: usize,
    [kafka, controller]: [u16; 2],
    voters: &str,
    far: Option<Far>,
    place: &Path,
) -> String {
    let listener = |addr: SocketAddr| format!(",FAR://{addr}");
    let [listen, told] = [
        far.map(|far| listener(far.listen)).unwrap_or_default(),
        far.map(|far| listener(far.told)).unwrap_or_default(),
    ];
    let copies = voters.split(',').count();
    format!(
        "process.roles=broker,controller\nnode.id={id}\n\
         listeners=PLAINTEXT://127.0.0.1:{kafka}{listen},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{kafka}{told}\ncontroller.listener.names=CONTROLLER\n\
         controller.quorum.voters={voters}\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,FAR:PLAINTEXT\nlog.dirs={}/data\n\
         offsets.topic.replication.factor={copies}\ntransaction.state.log.replication.factor={copies}\n\
         share.coordinator.state.topic.replication.factor={copies}\ngroup.initial.rebalance.delay.ms=0\n",
        place.display()
    )
}

impl System for Apache {
    fn bootstrap(&self) -> String {
        self.bootstrap.clone()
    }

    fn pids(&self) -> Vec<u32> {
        self.brokers.iter().map(|broker| broker.process.id()).collect()
    }

    fn start_seconds(&self) -> f64 {
        self.start_seconds
    }

    fn kill(&mut self, id: i32) -> Result<()> {
        self.broker(id)?.kill();
        Ok(())
    }

    fn start_again(&mut self, id: i32) -> Result<()> {
        let java = self.java.clone();
        let broker = self.broker(id)?;
        broker.process = process(&java, &broker.file, &broker.place)?;
        broker.wait_listening()
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        for broker in &mut self.brokers {
            broker.kill();
        }
    }
}
