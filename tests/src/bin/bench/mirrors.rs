//! What stands at the target of a mirror from Apache Kafka: a daemon of ours, or MirrorMaker 2 and the broker of Apache
//! Kafka that it writes to.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Result, ensure};
use tradewind_tests::daemon::resident_bytes;

use crate::clients::Java;
use crate::systems::{Apache, System, Tradewind};

/// Ours, MirrorMaker 2 with its defaults, and MirrorMaker 2 as guides tune it, as the tables and options name them.
pub(crate) const MIRRORS: [&str; 3] = ["tradewind", "default", "tuned"];

/// The heap of MirrorMaker 2.
const HEAP: &str = "512m";

/// What makes a run short without changing what is copied or how: new topics and groups are looked for every second, as
/// are positions. There is one broker, so everything has one copy.
const SHORT: &str = "\
replication.factor = 1
checkpoints.topic.replication.factor = 1
heartbeats.topic.replication.factor = 1
offset-syncs.topic.replication.factor = 1
offset.storage.replication.factor = 1
status.storage.replication.factor = 1
config.storage.replication.factor = 1
refresh.topics.interval.seconds = 1
refresh.groups.interval.seconds = 1
emit.checkpoints.interval.seconds = 1
sync.group.offsets.enabled = true
sync.group.offsets.interval.seconds = 1
sync.topic.acls.enabled = false
";

/// What guides for many records over long lines advise: larger fetches, more records a poll, a receive buffer that the
/// system sizes, larger batches that wait for more, several requests in flight, two tasks. (Red Hat's high-volume example
/// has `batch.size` 327680, `linger.ms` 100, `fetch.max.bytes` 52428800 and two tasks; 100 ms would count against its
/// latency here.) Records are compressed as at the source.
const TUNED: &str = "\
tasks.max = 2
east.consumer.fetch.max.bytes = 52428800
east.consumer.max.partition.fetch.bytes = 8388608
east.consumer.max.poll.records = 5000
east.consumer.receive.buffer.bytes = -1
west.producer.batch.size = 327680
west.producer.linger.ms = 20
west.producer.buffer.memory = 67108864
west.producer.max.request.size = 8388608
west.producer.enable.idempotence = true
west.producer.max.in.flight.requests.per.connection = 5
";

/// A running target.
pub(crate) struct Target {
    system: Box<dyn System>,
    maker: Option<Maker>,
}

/// MirrorMaker 2. It ends with this value.
struct Maker(Child);

impl Drop for Maker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Target {
    /// Starts one of [`MIRRORS`]: it copies the topics that match `topics` from the cluster at `source`, which it calls
    /// `east`. `codec` is what a tuned MirrorMaker 2 compresses with.
    pub(crate) fn start(
        java: &Java,
        mirror: &str,
        folder: &Path,
        source: SocketAddr,
        topics: &str,
        codec: &str,
    ) -> Result<Self> {
        if mirror == "tradewind" {
            let config = format!(
                "[clusters.east]\nkafka = [\"{source}\"]\n\n\
                 [[mirror]]\nfrom = \"east\"\nnaming = \"prefix\"\ntopics = [\"{topics}\"]\n"
            );
            let system = Box::new(Tradewind::start_with(folder, &config, 1)?);
            return Ok(Self { system, maker: None });
        }
        let system = Box::new(Apache::start(java, folder, 1)?);
        let tuned = match mirror {
            "tuned" => format!("{TUNED}west.producer.compression.type = {codec}\n"),
            _ => String::new(),
        };
        let properties = format!(
            "clusters = east, west\neast.bootstrap.servers = {source}\nwest.bootstrap.servers = {}\n\
             east->west.enabled = true\nwest->east.enabled = false\ntopics = {topics}\n{SHORT}{tuned}",
            system.bootstrap()
        );
        let file = folder.join("mm2.properties");
        fs::write(&file, properties)?;
        let log = File::create(folder.join("mm2.log"))?;
        let mut command = java.command(HEAP);
        command
            .arg("org.apache.kafka.connect.mirror.MirrorMaker")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let maker = Some(Maker(command.spawn()?));
        Ok(Self { system, maker })
    }

    /// Where clients of the target connect.
    pub(crate) fn brokers(&self) -> Result<Vec<SocketAddr>> {
        self.system.brokers()
    }

    /// Fails if MirrorMaker 2 has ended.
    pub(crate) fn ensure_running(&mut self) -> Result<()> {
        if let Some(maker) = &mut self.maker {
            let ended = maker.0.try_wait()?;
            ensure!(ended.is_none(), "MirrorMaker 2 has ended: see its log");
        }
        Ok(())
    }

    fn pids(&self) -> Vec<u32> {
        let mut pids = self.system.pids();
        pids.extend(self.maker.as_ref().map(|maker| maker.0.id()));
        pids
    }

    /// Processor seconds of everything at the target so far.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        self.pids().into_iter().map(crate::process::cpu_seconds).sum()
    }

    /// Resident memory of everything at the target.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        self.pids().into_iter().map(resident_bytes).sum()
    }
}
