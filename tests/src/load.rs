//! Writers under load, each of which remembers what was acknowledged, and the check that all of it is there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;

use crate::history::{History, Id, Outcome, Span, Write};
use crate::kafka::{Kafka, Record, Refused};
use crate::wait;
use crate::watch::Notes;

/// Records in a batch.
pub const BATCH: u64 = 10;

/// How long a writer repeats one batch before it gives up.
const GIVE_UP: Duration = Duration::from_secs(90);

/// How long a writer rests after a batch that was not acknowledged.
const SETBACK: Duration = Duration::from_millis(5);

/// Writers that never repeat a batch are numbered from here on.
const ONCE: u32 = 1_000;

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
    /// Every batch, in order.
    pub writes: Vec<Write>,
}

/// What is to be written.
#[derive(Debug, Clone)]
pub struct Plan {
    /// A writer goes to each of the topic's first partitions.
    pub partitions: i32,
    /// How batches are compressed.
    pub codec: Codec,
    /// How long a writer rests after each batch.
    pub rest: Duration,
    /// Whether each partition has a second writer, without a producer id, that sends every batch once and goes on with
    /// the next, whatever became of it.
    pub once: bool,
}

/// One idempotent writer per partition, each with one batch in flight under `acks=all`.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    batches: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Result<Written>>>,
    once: Vec<JoinHandle<Result<Vec<Write>>>>,
}

impl Load {
    /// Starts a writer for each of the topic's first `partitions` partitions. They go on until [`Self::stop`].
    pub fn start(cluster: impl Fn() -> Kafka, topic: &str, partitions: i32, codec: Codec) -> Self {
        let plan = Plan {
            partitions,
            codec,
            rest: Duration::ZERO,
            once: false,
        };
        Self::with(cluster, topic, &plan, &Notes::new(partitions))
    }

    /// Starts the writers of this plan; what was acknowledged is also told to `notes`.
    pub fn with(cluster: impl Fn() -> Kafka, topic: &str, plan: &Plan, notes: &Arc<Notes>) -> Self {
        let (stop, batches) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writer = |partition, tag| Writer {
            kafka: cluster(),
            topic: topic.to_owned(),
            partition,
            tag,
            codec: plan.codec,
            rest: plan.rest,
            stop: Arc::clone(&stop),
            batches: Arc::clone(&batches),
            beat: notes.client(),
            notes: Arc::clone(notes),
        };
        let all: Vec<(i32, u32)> = (0..plan.partitions).zip(0..).collect();
        let steady = all.iter().map(|&(partition, tag)| writer(partition, tag));
        let once = all.iter().filter(|_| plan.once);
        let once = once.map(|&(partition, tag)| writer(partition, ONCE + tag));
        Self {
            writers: steady.map(|w| thread::spawn(move || w.write())).collect(),
            once: once.map(|w| thread::spawn(move || w.write_once())).collect(),
            stop,
            batches,
        }
    }

    /// How many batches of idempotent writers were acknowledged so far.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Whether a writer has given up.
    pub fn has_failed(&self) -> bool {
        self.writers.iter().any(JoinHandle::is_finished)
    }

    /// Lets each writer end after the batch in its hands, and returns what the idempotent ones saw.
    pub fn stop(self) -> Result<Vec<Written>> {
        Ok(self.stop_all()?.0)
    }

    /// As [`Self::stop`], with the batches of those that send each once.
    pub fn stop_all(self) -> Result<(Vec<Written>, Vec<Write>)> {
        self.stop.store(true, Ordering::Relaxed);
        let written: Result<Vec<Written>> = self.writers.into_iter().map(joined).collect();
        let once: Result<Vec<Vec<Write>>> = self.once.into_iter().map(joined).collect();
        Ok((written?, once?.concat()))
    }
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?
}

struct Writer {
    kafka: Kafka,
    topic: String,
    partition: i32,
    tag: u32,
    codec: Codec,
    rest: Duration,
    stop: Arc<AtomicBool>,
    batches: Arc<AtomicU64>,
    beat: Arc<AtomicU64>,
    notes: Arc<Notes>,
}

impl Writer {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// One attempt; what it was told is noted before it counts as ended.
    fn attempt(&mut self, batch: Bytes) -> Result<i64> {
        let answer = self.kafka.append(&self.topic, self.partition, batch);
        if let Ok(base) = &answer {
            self.notes.knows(self.partition, base + BATCH as i64);
        }
        self.beat.fetch_add(1, Ordering::Release);
        answer
    }

    /// Repeats each batch until it is acknowledged.
    fn write(mut self) -> Result<Written> {
        let kafka = &mut self.kafka;
        let (id, epoch) = wait::until("a producer id", 30, || Ok(Some(kafka.producer_id()?)))?;
        let mut seen = Written {
            partition: self.partition,
            ..Written::default()
        };
        while self.goes_on() {
            let first = seen.acknowledged;
            let batch = numbered_batch(self.codec, Some((id, epoch)), self.tag, first)?;
            let begun = self.notes.now();
            let base = loop {
                match self.attempt(batch.clone()) {
                    Ok(base) => break base,
                    Err(error) if self.notes.now() - begun > GIVE_UP => {
                        bail!("partition {}, record {first}: {error:#}", self.partition)
                    }
                    Err(error) => seen.failures.push(format!("{error:#}")),
                }
                wait::pace(SETBACK);
            };
            let span = self.notes.since(begun);
            seen.writes
                .push(self.noted(first, span, Outcome::Acknowledged(base)));
            seen.acknowledged += BATCH;
            seen.times.push(Instant::now());
            self.batches.fetch_add(1, Ordering::Relaxed);
            wait::pace(self.rest);
        }
        Ok(seen)
    }

    /// Sends each batch once.
    fn write_once(mut self) -> Result<Vec<Write>> {
        let mut writes = Vec::new();
        let mut first = 0;
        while self.goes_on() {
            let batch = numbered_batch(self.codec, None, self.tag, first)?;
            let begun = self.notes.now();
            let outcome = match self.attempt(batch) {
                Ok(base) => Outcome::Acknowledged(base),
                // The only refusal here that comes before the append and at no other time.
                Err(error) if error_code(&error) == Some(ErrorCode::NotEnoughReplicas) => Outcome::Refused,
                Err(_) => Outcome::Unknown,
            };
            let span = self.notes.since(begun);
            writes.push(self.noted(first, span, outcome));
            first += BATCH;
            if !matches!(outcome, Outcome::Acknowledged(_)) {
                wait::pace(SETBACK);
            }
            wait::pace(self.rest);
        }
        Ok(writes)
    }

    fn noted(&self, first: u64, span: Span, outcome: Outcome) -> Write {
        Write {
            partition: self.partition,
            first: Id {
                writer: self.tag,
                number: first,
            },
            count: BATCH,
            span,
            outcome,
        }
    }
}

fn error_code(error: &anyhow::Error) -> Option<ErrorCode> {
    error.downcast_ref::<Refused>().map(|refused| refused.0)
}

/// The batch of a writer's records numbered from `first` on; the same again for the same arguments, but for its time.
pub fn numbered_batch(codec: Codec, producer: Option<(i64, i16)>, writer: u32, first: u64) -> Result<Bytes> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_millis();
    let mut builder = BatchBuilder::new(codec, TimestampType::Create);
    let key = writer.to_string();
    for number in first..first + BATCH {
        let value = format!("{number} {}", "trade wind ".repeat(usize::try_from(number % 9)?));
        builder.append(
            i64::try_from(now)?,
            Some(key.as_bytes()),
            Some(value.as_bytes()),
            &[],
        );
    }
    if let Some((id, epoch)) = producer {
        builder.producer(id, epoch, i32::try_from(first % (1 << 31))?);
    }
    Ok(builder.build())
}

/// What the writer called this record.
pub fn id_of(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Id> {
    let text = |bytes: Option<&[u8]>| -> Result<String> {
        Ok(std::str::from_utf8(bytes.context("null")?)?.to_owned())
    };
    let (key, value) = (text(key).context("key")?, text(value).context("value")?);
    let number = value.split(' ').next().unwrap_or_default();
    Ok(Id {
        writer: key.parse().with_context(|| format!("key {key:?}"))?,
        number: number.parse().with_context(|| format!("value {value:?}"))?,
    })
}

/// A partition from its beginning, as a history wants it.
pub fn read_log(kafka: &mut Kafka, topic: &str, partition: i32) -> Result<Vec<(i64, Id)>> {
    let found = wait::until("the partition can be read", 60, || {
        Ok(Some(kafka.records(topic, partition, 0)?))
    })?;
    let named = |record: &Record| {
        Ok((
            record.offset,
            id_of(record.key.as_deref(), record.value.as_deref())?,
        ))
    };
    found.iter().map(named).collect()
}

/// Checks that a partition holds every acknowledged record once and in order, and nothing else.
pub fn check(kafka: &mut Kafka, topic: &str, written: &Written) -> Result<()> {
    let partition = written.partition;
    let history = History {
        writes: written.writes.clone(),
        logs: BTreeMap::from([(partition, read_log(kafka, topic, partition)?)]),
        ..History::default()
    };
    ensure_sound(&history)
}

/// Fails with the first faults that are in a history, if there are any.
pub fn ensure_sound(history: &History) -> Result<()> {
    let faults = history.check();
    let told: Vec<String> = faults.iter().take(20).map(ToString::to_string).collect();
    ensure!(faults.is_empty(), "{} faults:\n{}", faults.len(), told.join("\n"));
    Ok(())
}

/// The longest time without an acknowledgement that came to its end between `from` and `to`. One that begins shortly before
/// `to` is what happened then, and not counted here.
pub fn longest_gap(written: &Written, from: Instant, to: Instant) -> Option<Duration> {
    let gaps = written
        .times
        .windows(2)
        .filter(|pair| (from..to).contains(&pair[1]));
    gaps.map(|pair| pair[1] - pair[0]).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_belongs_to_the_span_in_which_it_ends() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let written = Written {
            times: [0, 10, 400, 410, 990, 3_000, 3_010].map(at).to_vec(),
            ..Written::default()
        };
        let gap = |from, to| longest_gap(&written, at(from), at(to)).map(|gap| gap.as_millis());
        assert_eq!(gap(5, 500), Some(390));
        // The one that begins at 990 is the next span's.
        assert_eq!(gap(405, 1_000), Some(580));
        assert_eq!(gap(1_000, 5_000), Some(2_010));
        assert_eq!(gap(1_000, 2_000), None);
    }
}
