//! Clients of our own under load: a producer per partition, a group and a plain reader. They know of no trouble: the first
//! error that their library hands out ends them, and everything that they did becomes a history.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tradewind_client::producer::Delivery;
use tradewind_client::{
    Client, ClientConfig, ConsumerRecord, GroupConfig, GroupConsumer, PartitionReader, Producer,
    ProducerConfig, Record,
};
use tradewind_tests::history::{History, Id, Outcome, Read, Span, Write};
use tradewind_tests::load::{self, id_of};
use tradewind_tests::{Kafka, MachineClock, wait};

/// How long the last records may take to be acknowledged, or read.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a writer rests after each record: the load is there to see what happens, not to fill the machine.
const REST: Duration = Duration::from_millis(2);

/// Clients of one topic at work.
pub(crate) struct Clients {
    runtime: Runtime,
    kafka: Kafka,
    topic: String,
    partitions: i32,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    read: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Result<Vec<Write>>>>,
    readers: Vec<JoinHandle<Result<Vec<Read>>>>,
}

impl Clients {
    /// Starts a producer and a plain reader for each partition of `topic`, and a group of two that shares them.
    pub(crate) fn start(bootstrap: &str, kafka: Kafka, topic: &str, partitions: i32) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let _entered = runtime.enter();
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let read = Arc::new(AtomicU64::new(0));
        let shared = || Shared {
            client: client(bootstrap),
            topic: topic.to_owned(),
            begun: Instant::now(),
            stop: Arc::clone(&stop),
            acknowledged: Arc::clone(&acknowledged),
            read: Arc::clone(&read),
        };
        let first = shared();
        let like = || Shared {
            begun: first.begun,
            ..shared()
        };
        let writers = (0..partitions).map(|partition| tokio::spawn(like().write(partition)));
        let writers = writers.collect();
        let plain = (0..partitions).map(|partition| tokio::spawn(like().follow(partition)));
        let members = (0..2).map(|_| tokio::spawn(like().share()));
        let readers = plain.chain(members).collect();
        drop(_entered);
        Ok(Self {
            runtime,
            kafka,
            topic: topic.to_owned(),
            partitions,
            stop,
            acknowledged,
            read,
            writers,
            readers,
        })
    }

    /// Waits until every client has got on by about `records` per partition; fails with the error that has ended one.
    pub(crate) fn get_on(&mut self, records: u64) -> Result<()> {
        let more = records * u64::from(self.partitions.unsigned_abs());
        let goals = [&self.acknowledged, &self.read].map(|count| count.load(Ordering::Relaxed) + more);
        let waited = wait::until_true("the clients get on", 60, || {
            ensure!(!self.has_failed(), "a client has ended");
            let now = [&self.acknowledged, &self.read].map(|count| count.load(Ordering::Relaxed));
            Ok(now.iter().zip(&goals).all(|(now, goal)| now >= goal))
        });
        if self.has_failed() {
            self.errors()?;
        }
        waited
    }

    fn has_failed(&self) -> bool {
        self.writers.iter().any(JoinHandle::is_finished) || self.readers.iter().any(JoinHandle::is_finished)
    }

    /// The error of a client that has ended.
    fn errors(&mut self) -> Result<()> {
        for writer in self.writers.extract_if(.., |writer| writer.is_finished()) {
            self.runtime.block_on(writer)?.context("a producer")?;
        }
        for reader in self.readers.extract_if(.., |reader| reader.is_finished()) {
            self.runtime.block_on(reader)?.context("a consumer")?;
        }
        Ok(())
    }

    /// Ends the clients; every one of them must have had no error. Everything that they did, and the logs.
    pub(crate) fn end(mut self) -> Result<History> {
        self.stop.store(true, Ordering::Relaxed);
        let mut history = History::default();
        self.runtime.block_on(async {
            for writer in self.writers.drain(..) {
                history.writes.extend(writer.await?.context("a producer")?);
            }
            for reader in self.readers.drain(..) {
                history.reads.extend(reader.await?.context("a consumer")?);
            }
            anyhow::Ok(())
        })?;
        for partition in 0..self.partitions {
            let log = load::read_log(&mut self.kafka, &self.topic, partition)?;
            history.logs.insert(partition, log);
        }
        place_repeats(&mut history);
        Ok(history)
    }
}

/// A batch whose repeat was found in the log is acknowledged without an offset, if the broker does not know it any more:
/// it stands where it is found, if it is.
fn place_repeats(history: &mut History) {
    let logs = history.logs.values().flatten();
    let places: HashMap<Id, i64> = logs.map(|(offset, id)| (*id, *offset)).collect();
    for write in &mut history.writes {
        if let (Outcome::Acknowledged(-1), Some(place)) = (write.outcome, places.get(&write.first)) {
            write.outcome = Outcome::Acknowledged(*place);
        }
    }
}

/// A client that connects on its own.
pub(crate) fn client(bootstrap: &str) -> Client {
    let bootstrap = bootstrap.split(',').map(str::to_owned).collect();
    Client::new(ClientConfig::new(bootstrap, Arc::new(MachineClock::default())))
}

/// What one task has.
struct Shared {
    client: Client,
    topic: String,
    begun: Instant,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    read: Arc<AtomicU64>,
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn since(&self, begun: Duration) -> Span {
        Span {
            begun,
            ended: self.begun.elapsed(),
        }
    }

    /// Sends records to one partition with the library's defaults: idempotent, `acks=all`, several batches on the way.
    async fn write(self, partition: i32) -> Result<Vec<Write>> {
        let config = ProducerConfig {
            linger: Duration::ZERO,
            ..ProducerConfig::default()
        };
        let producer = Producer::start(self.client.clone(), config);
        let (writer, zero) = (partition.unsigned_abs(), self.begun);
        let (sent, mut deliveries) = mpsc::channel::<(Duration, Delivery)>(10_000);
        let acknowledged = Arc::clone(&self.acknowledged);
        let collected = tokio::spawn(async move {
            let mut writes = Vec::new();
            while let Some((begun, delivery)) = deliveries.recv().await {
                let delivered = delivery.await?;
                let number = writes.len() as u64;
                writes.push(Write {
                    partition,
                    first: Id { writer, number },
                    count: 1,
                    span: Span {
                        begun,
                        ended: zero.elapsed(),
                    },
                    outcome: Outcome::Acknowledged(delivered.offset),
                });
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(writes)
        });
        let mut number = 0_u64;
        while self.goes_on() {
            let mut record =
                Record::new(&self.topic, format!("{number} tradewind")).with_key(writer.to_string());
            record.partition = Some(partition);
            let begun = self.begun.elapsed();
            let delivery = producer.send(record).await?;
            // It fails when a delivery has: the collector tells why.
            if sent.send((begun, delivery)).await.is_err() {
                break;
            }
            number += 1;
            wait::pace_async(REST).await;
        }
        drop(sent);
        timeout(PATIENCE, producer.flush()).await.context("flush")?;
        collected.await?
    }

    /// Reads one partition from its beginning.
    async fn follow(self, partition: i32) -> Result<Vec<Read>> {
        let mut reader = PartitionReader::new(self.client.clone(), &self.topic, partition, 0);
        let mut reads = Vec::new();
        while self.goes_on() {
            let begun = self.begun.elapsed();
            let records = reader.poll(Duration::from_millis(200)).await?;
            self.note(&records, begun, &mut reads)?;
        }
        Ok(reads)
    }

    /// Reads as a member of the group, with the library's defaults but for a session that ends within the test.
    async fn share(self) -> Result<Vec<Read>> {
        let mut config = GroupConfig::new("onlookers", [self.topic.clone()]);
        config.heartbeat_interval = Duration::from_millis(500);
        config.auto_commit = Some(Duration::from_millis(300));
        let mut member = GroupConsumer::new(self.client.clone(), config);
        let mut reads = Vec::new();
        while self.goes_on() {
            let begun = self.begun.elapsed();
            let records = member.poll(Duration::from_millis(200)).await?;
            self.note(&records, begun, &mut reads)?;
        }
        member.close(PATIENCE).await?;
        Ok(reads)
    }

    /// What one poll brought, partition by partition.
    fn note(&self, records: &[ConsumerRecord], begun: Duration, reads: &mut Vec<Read>) -> Result<()> {
        let mut found: BTreeMap<i32, Vec<(i64, Id)>> = BTreeMap::new();
        for record in records {
            let id = id_of(record.key.as_deref(), record.value.as_deref())?;
            found
                .entry(record.partition)
                .or_default()
                .push((record.offset, id));
        }
        self.read.fetch_add(records.len() as u64, Ordering::Relaxed);
        for (partition, records) in found {
            let from = records.first().map_or(0, |(offset, _)| *offset);
            reads.push(Read {
                partition,
                from,
                records,
                span: self.since(begun),
            });
        }
        Ok(())
    }
}
