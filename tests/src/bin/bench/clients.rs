//! The measuring clients, the same for both systems: Apache Kafka's own command line tools, and librdkafka's load generator
//! (`rdkafka_performance`), which is built from the sources that the tests of librdkafka use.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Something that produces a load and says what came of it.
pub(crate) trait Producer {
    fn load(&self, bootstrap: &str, topic: &str, load: &Load) -> Result<Produced>;
}

/// The fetched jars, and how to run a tool of theirs.
#[derive(Clone)]
pub(crate) struct Java {
    jars: PathBuf,
    logging: PathBuf,
}

/// What the producer test said.
pub(crate) struct Produced {
    pub(crate) records: f64,
    pub(crate) megabytes: f64,
    pub(crate) p50_ms: u64,
    pub(crate) p99_ms: u64,
    pub(crate) p999_ms: u64,
}

/// What the producer test is to do.
pub(crate) struct Load {
    pub(crate) records: u64,
    pub(crate) record_bytes: u64,
    /// A file of lines to choose records from, each of `record_bytes`; letters at random if absent.
    pub(crate) payload: Option<PathBuf>,
    /// Records a second; as fast as it goes if absent.
    pub(crate) rate: Option<u64>,
    /// Records at the beginning that are sent and not counted.
    pub(crate) uncounted: u64,
    /// `key=value` settings of the producer.
    pub(crate) properties: Vec<String>,
}

/// What the latency test said.
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Java {
    /// Fetches the jars if they are not there yet.
    pub(crate) fn find() -> Result<Self> {
        Ok(Self {
            jars: fetched("need_java", "KAFKA_JARS").context("no Java, no Maven or no jars")?,
            logging: clients().join("kafka/log4j2.properties"),
        })
    }

    /// A `java` command with the jars.
    pub(crate) fn command(&self, heap: &str) -> Command {
        let mut command = Command::new("java");
        command
            .arg(format!("-Xmx{heap}"))
            .arg("-XX:+UseSerialGC")
            .arg(format!("-Dlog4j2.configurationFile={}", self.logging.display()))
            .args(["-cp", &format!("{}/*", self.jars.display())]);
        command
    }

    /// Runs a tool to its end; its standard output.
    pub(crate) fn run(&self, class: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command("512m").arg(class).args(arguments).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{class}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(text)
    }

    pub(crate) fn create_topic(
        &self,
        bootstrap: &str,
        topic: &str,
        partitions: u32,
        replicas: u32,
        flush_messages: &str,
    ) -> Result<()> {
        let in_sync = format!("min.insync.replicas={}", replicas.min(2));
        let (partitions, replicas) = (partitions.to_string(), replicas.to_string());
        let flush = format!("flush.messages={flush_messages}");
        self.run(
            "org.apache.kafka.tools.TopicCommand",
            &[
                "--bootstrap-server",
                bootstrap,
                "--create",
                "--topic",
                topic,
                "--partitions",
                &partitions,
                "--replication-factor",
                &replicas,
                "--config",
                &in_sync,
                "--config",
                &flush,
            ],
        )?;
        Ok(())
    }

    /// Produces as fast as it goes with acks=all and the client's other defaults.
    pub(crate) fn produce(&self, bootstrap: &str, topic: &str, records: u64, size: u64) -> Result<Produced> {
        let load = Load {
            records,
            record_bytes: size,
            payload: None,
            rate: None,
            uncounted: 0,
            properties: vec!["acks=all".to_owned()],
        };
        self.load(bootstrap, topic, &load)
    }

    /// One record at a time from a producer to a consumer.
    pub(crate) fn end_to_end(&self, bootstrap: &str, topic: &str, records: u64) -> Result<Latency> {
        let records = records.to_string();
        let text = self.run(
            "org.apache.kafka.tools.EndToEndLatency",
            &[
                "--bootstrap-server",
                bootstrap,
                "--topic",
                topic,
                "--num-records",
                &records,
                "--producer-acks",
                "all",
                "--record-size",
                "100",
            ],
        )?;
        let line = text
            .lines()
            .find(|line| line.starts_with("Percentiles"))
            .context("no percentiles")?;
        let after = |key: &str| -> Result<f64> {
            let rest = line
                .split(key)
                .nth(1)
                .with_context(|| format!("no {key} in {line}"))?;
            let number: String = rest
                .trim_start()
                .chars()
                .take_while(|c| c.is_ascii_digit() || *c == '.')
                .collect();
            Ok(number.parse()?)
        };
        Ok(Latency {
            p50_ms: after("50th =")?,
            p99_ms: after("99th =")?,
        })
    }
}

impl Producer for Java {
    /// Runs the producer test.
    fn load(&self, bootstrap: &str, topic: &str, load: &Load) -> Result<Produced> {
        let (records, size) = (load.records.to_string(), load.record_bytes.to_string());
        let rate = load.rate.map_or_else(|| "-1".to_owned(), |rate| rate.to_string());
        let (servers, uncounted) = (
            format!("bootstrap.servers={bootstrap}"),
            load.uncounted.to_string(),
        );
        let payload = load.payload.as_ref().map(|path| path.display().to_string());
        let mut arguments = vec!["--topic", topic, "--num-records", &records];
        match &payload {
            Some(path) => arguments.extend(["--payload-file", path]),
            None => arguments.extend(["--record-size", &size]),
        }
        arguments.extend(["--throughput", &rate]);
        if load.uncounted > 0 {
            arguments.extend(["--warmup-records", &uncounted]);
        }
        arguments.extend(["--producer-props", &servers]);
        arguments.extend(load.properties.iter().map(String::as_str));
        let text = self.run("org.apache.kafka.tools.ProducerPerformance", &arguments)?;
        let last = text
            .lines()
            .rfind(|line| line.contains("99.9th"))
            .context("no summary")?;
        Ok(Produced {
            records: before(last, " records/sec")?,
            megabytes: before(last, " MB/sec")? * 1.048_576,
            p50_ms: before(last, " ms 50th")? as u64,
            p99_ms: before(last, " ms 99th")? as u64,
            p999_ms: before(last, " ms 99.9th")? as u64,
        })
    }
}

/// librdkafka's load generator.
pub(crate) struct Librdkafka {
    program: PathBuf,
}

impl Librdkafka {
    /// Builds it if it is not there yet.
    pub(crate) fn find() -> Result<Self> {
        let sources = fetched("need_librdkafka", "LIBRDKAFKA").context("librdkafka cannot be built")?;
        Ok(Self {
            program: sources.join("examples/rdkafka_performance"),
        })
    }
}

impl Producer for Librdkafka {
    /// Latencies are measured only under a rate: from handing a record over until its delivery report. A rate is kept by
    /// waiting whole microseconds after each record.
    fn load(&self, bootstrap: &str, topic: &str, load: &Load) -> Result<Produced> {
        ensure!(
            load.payload.is_none(),
            "librdkafka's producer makes its records itself"
        );
        let latencies = tempfile::NamedTempFile::new()?;
        let mut command = Command::new(&self.program);
        command.args(["-P", "-t", topic, "-b", bootstrap]).args([
            "-c",
            &load.records.to_string(),
            "-s",
            &load.record_bytes.to_string(),
        ]);
        if let Some(rate) = load.rate {
            command
                .args(["-r", &rate.to_string(), "-l", "-A"])
                .arg(latencies.path());
        }
        for property in &load.properties {
            command.args(["-X", property]);
        }
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "rdkafka_performance: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let last = text
            .lines()
            .rfind(|line| line.contains("messages produced"))
            .with_context(|| format!("no summary: {text}"))?;
        ensure!(
            last.contains(", 0 failed)") || last.contains(" 0 failed)"),
            "{last}"
        );
        let mut microseconds: Vec<u64> = std::fs::read_to_string(latencies.path())?
            .lines()
            .skip(load.uncounted as usize)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        microseconds.sort_unstable();
        let at = |share: f64| {
            let index = (microseconds.len() as f64 * share) as usize;
            microseconds.get(index).map_or(0, |latency| latency / 1000)
        };
        let records = before(last, " msgs/s")?;
        Ok(Produced {
            records,
            megabytes: records * load.record_bytes as f64 / 1e6,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
        })
    }
}

/// The folder of the scripts that fetch clients.
fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Has `lib.sh` fetch a client; the folder that it then names in `variable`.
fn fetched(need: &str, variable: &str) -> Result<PathBuf> {
    let script = format!(
        ". '{}/lib.sh' && {need} >&2 && printf %s \"${variable}\"",
        clients().display()
    );
    let output = Command::new("bash").args(["-euc", &script]).output()?;
    ensure!(
        output.status.success(),
        "{need}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(PathBuf::from(String::from_utf8(output.stdout)?))
}

/// The number before `unit`.
fn before(line: &str, unit: &str) -> Result<f64> {
    let head = line
        .split(unit)
        .next()
        .with_context(|| format!("no {unit} in {line}"))?;
    let number = head.rsplit([' ', '(']).next().unwrap_or_default();
    number
        .parse()
        .with_context(|| format!("{number:?} before {unit} in {line}"))
}
