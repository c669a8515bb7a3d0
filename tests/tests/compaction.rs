//! Compacted topics in a cluster of real processes: each copy is compacted by its own daemon, one comes back from behind the
//! gaps, leaders are killed, and the newest value of every key is still there. So are the positions of groups, whose topic
//! is compacted too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tradewind_tests::{Cluster, ClusterSpec, Kafka, wait};
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;
use tradewind_wire::messages::IncrementalAlterConfigsRequest;
use tradewind_wire::messages::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};

const TOPIC: &str = "state";
const KEYS: usize = 40;
const RECORDS: usize = 10;

/// The newest value of each key, none for a tombstone.
type Newest = BTreeMap<String, Option<String>>;

fn start(folder: &Path) -> Result<Cluster> {
    let spec = ClusterSpec {
        config: "[topic_defaults]\n\"log.cleaner.backoff.ms\" = 100\n".to_owned(),
        ..ClusterSpec::new("east", 3)
    };
    Cluster::start(folder, &spec)
}

/// An idempotent producer of records whose values tell when they were written.
struct Writer {
    id: (i64, i16),
    written: usize,
    newest: Newest,
    last: Option<(bytes::Bytes, i64)>,
}

impl Writer {
    fn new(kafka: &mut Kafka) -> Result<Self> {
        Ok(Self {
            id: wait::until("a producer id", 30, || Ok(Some(kafka.producer_id()?)))?,
            written: 0,
            newest: Newest::new(),
            last: None,
        })
    }

    fn write(&mut self, kafka: &mut Kafka, batches: usize) -> Result<()> {
        for _ in 0..batches {
            let codec = Codec::ALL[self.written / RECORDS % 5];
            let mut builder = BatchBuilder::new(codec, TimestampType::Create);
            for number in self.written..self.written + RECORDS {
                let key = format!("key {}", number * 7 % KEYS);
                let value = (number % 11 > 0).then(|| format!("value {number} {}", "x".repeat(number % 50)));
                builder.append(
                    1_700_000_000_000,
                    Some(key.as_bytes()),
                    value.as_deref().map(str::as_bytes),
                    &[],
                );
                self.newest.insert(key, value);
            }
            builder.producer(self.id.0, self.id.1, i32::try_from(self.written)?);
            let batch = builder.build();
            // The same batch again and again is written once: that is what the sequence is for.
            let offset = wait::until("a batch is written", 60, || {
                Ok(Some(kafka.append(TOPIC, 0, batch.clone())?))
            })?;
            self.written += RECORDS;
            self.last = Some((batch, offset));
        }
        Ok(())
    }

    /// What is in the log now is as it should be, read by whoever leads.
    fn check(&self, kafka: &mut Kafka) -> Result<usize> {
        let records = wait::until("the topic can be read", 60, || {
            Ok(Some(kafka.records(TOPIC, 0, 0)?))
        })?;
        let mut seen = Newest::new();
        for record in &records {
            let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
            seen.insert(
                record.key.as_ref().map(text).context("a key")?,
                record.value.as_ref().map(text),
            );
        }
        ensure!(seen == self.newest, "{seen:?}\nis not\n{:?}", self.newest);
        let (batch, offset) = self.last.clone().context("something was written")?;
        let again = wait::until("a repeat is answered", 60, || {
            Ok(Some(kafka.append(TOPIC, 0, batch.clone())?))
        })?;
        ensure!(
            again == offset,
            "a repeat of {offset} was taken for new, at {again}"
        );
        Ok(records.len())
    }
}

/// The files called `first-dirty` of a daemon's logs, with what they say.
fn first_dirty(daemon: &Path) -> Vec<(PathBuf, i64)> {
    let list = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let partitions = list(&daemon.join("data").join("topics"));
    let files = partitions
        .iter()
        .flat_map(|topic| list(topic))
        .map(|dir| dir.join("first-dirty"));
    files
        .filter_map(|file| {
            let offset = std::fs::read_to_string(&file).ok()?.parse().ok()?;
            Some((file, offset))
        })
        .collect()
}

/// Waits until a daemon has compacted some log up to `offset` or further.
fn compacted(cluster: &Cluster, id: i32, offset: i64) -> Result<()> {
    let daemon = cluster
        .daemons
        .iter()
        .find(|daemon| daemon.id == id)
        .context("a daemon")?;
    wait::until_true("a copy is compacted", 60, || {
        Ok(first_dirty(&daemon.folder).iter().any(|(_, at)| *at >= offset))
    })
}

fn in_sync(kafka: &mut Kafka, topic: &str, count: usize) -> Result<i32> {
    wait::until("the copies are in sync", 60, || {
        let partitions = kafka.partitions(topic)?;
        let all = partitions
            .iter()
            .all(|p| p.leader_id >= 0 && p.isr_nodes.len() == count);
        Ok(partitions.first().filter(|_| all).map(|p| p.leader_id))
    })
}

#[test]
fn a_compacted_topic_keeps_the_newest_of_every_key_whoever_leads() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = start(folder.path())?;
    let mut kafka = cluster.kafka();
    let configs = [
        ("cleanup.policy", "compact"),
        ("min.insync.replicas", "2"),
        ("segment.bytes", "4096"),
        ("min.cleanable.dirty.ratio", "0.01"),
    ];
    kafka.create_topic(TOPIC, 1, &configs)?;
    let leader = in_sync(&mut kafka, TOPIC, 3)?;
    let mut writer = Writer::new(&mut kafka)?;
    writer.write(&mut kafka, 10)?;

    // One follower stays away while the others write and compact.
    let away = (1..=3).find(|id| *id != leader).context("a follower")?;
    cluster.daemon(away)?.kill();
    writer.write(&mut kafka, 60)?;
    let end = kafka.end(TOPIC, 0)?;
    for id in (1..=3).filter(|id| *id != away) {
        compacted(&cluster, id, end - 120)?;
    }
    let left = writer.check(&mut kafka)?;
    ensure!(left < 350, "{left} records of {} are left", writer.written);
    for offset in [0, 1, 50, 250] {
        let (batches, _) = kafka.fetch(TOPIC, 0, offset)?;
        ensure!(!batches.is_empty(), "a removed offset gives the next batch");
    }

    // It catches up across the gaps, and is as good a leader as the others.
    cluster.start_all()?;
    in_sync(&mut kafka, TOPIC, 3)?;
    for round in 0..3 {
        let leader = in_sync(&mut kafka, TOPIC, 3)?;
        cluster.daemon(leader)?.kill();
        writer.check(&mut kafka)?;
        writer.write(&mut kafka, 10)?;
        writer.check(&mut kafka)?;
        cluster.start_all()?;
        println!("round {round}: {leader} was killed");
    }
    in_sync(&mut kafka, TOPIC, 3)?;
    let end = kafka.end(TOPIC, 0)?;
    for id in 1..=3 {
        compacted(&cluster, id, end - 150)?;
    }
    writer.check(&mut kafka)?;
    Ok(())
}

#[test]
fn positions_of_groups_outlive_the_compaction_of_their_topic() -> Result<()> {
    const POSITIONS: i64 = 400;
    let folder = tempfile::tempdir()?;
    let mut cluster = start(folder.path())?;
    let mut kafka = cluster.kafka();
    kafka.create_topic(TOPIC, 3, &[])?;
    wait::until_true("a first position is kept", 60, || {
        kafka.commit("readers", TOPIC, &[(0, 0), (1, 0), (2, 7)])?;
        Ok(true)
    })?;
    let set = |name: &str, value: &str| AlterableConfig {
        name: name.into(),
        config_operation: 0,
        value: Some(value.into()),
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 2,
            resource_name: "__consumer_offsets".into(),
            configs: vec![
                set("segment.bytes", "4096"),
                set("min.cleanable.dirty.ratio", "0.01"),
            ],
        }],
        ..Default::default()
    };
    let response = kafka.any(&request, 1)?;
    ensure!(
        response.responses.iter().all(|r| r.error_code == 0),
        "{response:?}"
    );
    for at in 1..=POSITIONS {
        wait::until_true("a position is kept", 60, || {
            kafka.commit("readers", TOPIC, &[(0, at), (1, 2 * at)])?;
            Ok(true)
        })?;
    }
    for id in 1..=3 {
        compacted(&cluster, id, POSITIONS)?;
    }
    let expected = vec![POSITIONS, 2 * POSITIONS, 7];
    ensure!(kafka.committed("readers", TOPIC, 3)? == expected);
    // Every daemon reads them back from its own copy.
    for id in 1..=3 {
        cluster.daemon(id)?.kill();
        wait::until_true("the positions are there", 60, || {
            let found = kafka.committed("readers", TOPIC, 3)?;
            ensure!(found == expected, "{found:?}");
            Ok(true)
        })?;
        cluster.start_all()?;
        in_sync(&mut kafka, "__consumer_offsets", 3)?;
    }
    cluster.kill_all();
    cluster.start_all()?;
    wait::until_true("the positions are there", 60, || {
        Ok(kafka.committed("readers", TOPIC, 3)? == expected)
    })
}
