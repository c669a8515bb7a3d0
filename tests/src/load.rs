//! Writers under load, each of which remembers what was acknowledged, and the check that all of it is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;

use crate::kafka::Kafka;

/// Records in a batch.
const BATCH: u64 = 10;

/// How long a writer repeats one batch before it gives up.
const GIVE_UP: Duration = Duration::from_secs(90);

/// What one writer saw.
#[derive(Debug, Default)]
pub struct Written {
    /// Its partition.
    pub partition: i32,
    /// How many records were acknowledged: those numbered below this.
    pub acknowledged: u64,
    /// When each batch was acknowledged.
    pub times: Vec<Instant>,
    /// Attempts that failed and were repeated.
    pub failures: Vec<String>,
}

/// One idempotent writer per partition, each with one batch in flight under `acks=all`.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    batches: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Result<Written>>>,
}

impl Load {
    /// Starts a writer for each of the topic's first `partitions` partitions. They go on until [`Self::stop`].
    pub fn start(cluster: impl Fn() -> Kafka, topic: &str, partitions: i32, codec: Codec) -> Self {
        let (stop, batches) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writers = (0..partitions).map(|partition| {
            let (kafka, topic) = (cluster(), topic.to_owned());
            let (stop, batches) = (Arc::clone(&stop), Arc::clone(&batches));
            thread::spawn(move || write(kafka, &topic, partition, codec, &stop, &batches))
        });
        Self {
            writers: writers.collect(),
            stop,
            batches,
        }
    }

    /// How many batches were acknowledged so far.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Whether a writer has given up.
    pub fn has_failed(&self) -> bool {
        self.writers.iter().any(JoinHandle::is_finished)
    }

    /// Lets each writer end after the batch in its hands, and returns what they saw.
    pub fn stop(self) -> Result<Vec<Written>> {
        self.stop.store(true, Ordering::Relaxed);
        self.writers
            .into_iter()
            .map(|writer| writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?)
            .collect()
    }
}

fn write(
    mut kafka: Kafka,
    topic: &str,
    partition: i32,
    codec: Codec,
    stop: &AtomicBool,
    batches: &AtomicU64,
) -> Result<Written> {
    let (id, epoch) = crate::wait::until("a producer id", 30, || Ok(Some(kafka.producer_id()?)))?;
    let mut seen = Written {
        partition,
        ..Written::default()
    };
    while !stop.load(Ordering::Relaxed) {
        let first = seen.acknowledged;
        let batch = numbered_batch(codec, (id, epoch), first)?;
        let begun = Instant::now();
        while let Err(error) = kafka.append(topic, partition, batch.clone()) {
            ensure!(
                begun.elapsed() < GIVE_UP,
                "partition {partition}, record {first}: {error:#}"
            );
            seen.failures.push(format!("{error:#}"));
            thread::sleep(Duration::from_millis(5));
        }
        seen.acknowledged += BATCH;
        seen.times.push(Instant::now());
        batches.fetch_add(1, Ordering::Relaxed);
    }
    Ok(seen)
}

/// The batch of the records numbered from `first` on; the same again for the same arguments, but for its time.
pub fn numbered_batch(codec: Codec, (id, epoch): (i64, i16), first: u64) -> Result<Bytes> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_millis();
    let mut builder = BatchBuilder::new(codec, TimestampType::Create);
    for number in first..first + BATCH {
        let value = format!("{number} {}", "trade wind ".repeat(usize::try_from(number % 9)?));
        builder.append(i64::try_from(now)?, Some(b"key"), Some(value.as_bytes()), &[]);
    }
    builder.producer(id, epoch, i32::try_from(first % (1 << 31))?);
    Ok(builder.build())
}

/// Checks that a partition holds every acknowledged record once and in order, and nothing else.
pub fn check(kafka: &mut Kafka, topic: &str, written: &Written) -> Result<()> {
    let partition = written.partition;
    let found = crate::wait::until("the partition can be read", 60, || {
        Ok(Some(kafka.records(topic, partition, 0)?))
    })?;
    for (place, record) in found.iter().enumerate() {
        let value = record.value.as_deref().context("a null value")?;
        let number = std::str::from_utf8(value)?.split(' ').next().unwrap_or_default();
        ensure!(
            number == place.to_string(),
            "partition {partition}: record {number} stands in place {place}, at offset {}",
            record.offset
        );
    }
    ensure!(
        found.len() as u64 == written.acknowledged,
        "partition {partition}: {} records were acknowledged, {} are there",
        written.acknowledged,
        found.len()
    );
    Ok(())
}

/// The longest time without an acknowledgement that was going on at some moment between `from` and `to`.
pub fn longest_gap(written: &Written, from: Instant, to: Instant) -> Option<Duration> {
    let gaps = written
        .times
        .windows(2)
        .filter(|pair| pair[1] >= from && pair[0] < to);
    gaps.map(|pair| pair[1] - pair[0]).max()
}
