//! One daemon: a process, its addresses and its folder. It ends with this value, and with the harness, however that ends.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{program, wait};

/// How long a daemon may take until it is ready.
const READY_SECONDS: u64 = 60;

/// A daemon that may or may not be running.
#[derive(Debug)]
pub struct Daemon {
    /// Its number in the cluster.
    pub id: i32,
    /// Where Kafka clients connect.
    pub kafka: SocketAddr,
    /// Its mesh address (UDP).
    pub mesh: SocketAddr,
    /// Where others are told to find it in the mesh, if that is not where it listens.
    pub advertised: Option<SocketAddr>,
    /// Where Kafka clients are told to connect, if that is not where it listens.
    pub advertised_kafka: Option<SocketAddr>,
    /// The program to run, if not the one that is under test.
    pub program: Option<PathBuf>,
    /// Its HTTP address.
    pub http: SocketAddr,
    /// Its folder: `tradewind.toml`, certificates, `data/`, `log`.
    pub folder: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// A daemon with free ports that was not started yet; its folder must hold its configuration when it is.
    pub fn new(id: i32, folder: PathBuf) -> Self {
        let [kafka, mesh, http] = [crate::ports::free(), crate::ports::free(), crate::ports::free()];
        Self {
            id,
            kafka,
            mesh,
            advertised: None,
            advertised_kafka: None,
            program: None,
            http,
            folder,
            child: None,
        }
    }

    /// Starts the process; what it prints is appended to `log`.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "daemon {} runs already", self.id);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))?;
        let child = Command::new(self.program.as_deref().unwrap_or_else(|| program::path()))
            .args(["start", "--exit-with-stdin", "--config"])
            .arg(self.folder.join("tradewind.toml"))
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting daemon {}", self.id))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until `/readyz` answers 200; fails at once if the process ends instead.
    pub fn wait_ready(&mut self) -> Result<()> {
        let url = format!("{}/readyz", self.url());
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(1)))
            .build()
            .into();
        let waited = wait::until("the daemon is ready", READY_SECONDS, || {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                return Ok(Some(Err(status)));
            }
            Ok(agent.get(&url).call().is_ok().then_some(Ok(())))
        });
        match waited {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("daemon {} ended with {status}:\n{}", self.id, self.log_tail()),
            Err(error) => Err(error).with_context(|| format!("daemon {}:\n{}", self.id, self.log_tail())),
        }
    }

    /// Ends the process as a crash does: SIGKILL, nothing flushed, nobody told.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks the process to end (SIGTERM) and waits until it has.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the daemon does not run")?;
        let asked = Command::new("kill").arg(child.id().to_string()).status()?;
        ensure!(asked.success(), "kill: {asked}");
        wait::until("the daemon ends after SIGTERM", 60, || Ok(child.try_wait()?)).inspect_err(|_| {
            let _ = child.kill();
        })
    }

    /// Whether the process was started and has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Memory that the process holds right now, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let pid = self.pid().context("the daemon does not run")?;
        resident_bytes(pid)
    }

    /// Where its HTTP port is.
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// What `/metrics` says of `name`, which has its labels with it; `None` if it is not there.
    pub fn metric(&self, name: &str) -> Result<Option<f64>> {
        let text = ureq::get(format!("{}/metrics", self.url()))
            .call()?
            .body_mut()
            .read_to_string()?;
        let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let value = lines.find_map(|(of, value)| (of == name).then_some(value));
        Ok(value.map(str::parse).transpose()?)
    }

    /// The last lines that it printed.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Resident memory of a process, in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}
