//! The copies on this daemon: opens and recovers their logs, makes them agree with each new image, and keeps house.
//!
//! [`Replicas`] only knows what is here; who leads what comes from the image. Nothing on disk is judged (deleted or set
//! aside) before this daemon's registration is applied, because an old image may not know a new topic.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tradewind_log::{
    CheckpointError, Checkpoints, DataDir, DataDirError, Log, LogConfig, LogEnv, OpenError,
    PartitionCheckpoint, Recovered,
};
use tradewind_wire::batch::TimestampType;
use tradewind_wire::ids::{NodeId, TopicId};

use crate::config::default_of;
use crate::image::{Image, Topic};
use crate::replica::{Replica, ReplicaContext, ReplicaSettings};

/// Topic and partition.
pub(crate) type Key = (TopicId, i32);

/// The copies on this daemon.
pub(crate) struct Replicas {
    own: NodeId,
    data_dir: Arc<DataDir>,
    env: LogEnv,
    context: Arc<ReplicaContext>,
    /// Topic defaults from this daemon's configuration file.
    defaults: BTreeMap<String, String>,
    copies: RwLock<HashMap<Key, Arc<Replica>>>,
    /// Logs recovered at start whose topics the image has not shown yet.
    recovered: Mutex<HashMap<Key, Arc<Log>>>,
    /// What the run before left.
    hints: Mutex<Checkpoints>,
    /// The topics as last reconciled, with the index that changed the configuration around them.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    topics: BTreeMap<TopicId, Arc<Topic>>,
    configs: Option<(BTreeMap<String, String>, BTreeMap<String, String>)>,
    registered: bool,
    /// The daemon stops.
    closed: bool,
}

/// What recovery found.
#[derive(Debug, Default)]
pub(crate) struct RecoveryReport {
    /// Replicas that are short or damaged.
    pub(crate) damaged: Vec<Key>,
    /// Those, and the ones that have lost no more than was never acknowledged.
    pub(crate) suspect: Vec<Key>,
    /// How many logs were opened.
    pub(crate) logs: usize,
    /// Bytes of torn tails that were cut.
    pub(crate) truncated_bytes: u64,
}

impl Replicas {
    /// No copies yet. `defaults` are the topic defaults of this daemon's file, `hints` what the run before left.
    pub(crate) fn new(
        data_dir: Arc<DataDir>,
        env: LogEnv,
        defaults: BTreeMap<String, String>,
        context: ReplicaContext,
        hints: Checkpoints,
    ) -> Self {
        Self {
            own: context.own,
            data_dir,
            env,
            context: Arc::new(context),
            defaults,
            copies: RwLock::default(),
            recovered: Mutex::default(),
            hints: Mutex::new(hints),
            seen: Mutex::default(),
        }
    }

    /// The copy of a partition here.
    pub(crate) fn of(&self, topic: TopicId, partition: i32) -> Option<Arc<Replica>> {
        self.copies.read().get(&(topic, partition)).cloned()
    }

    /// Every copy here.
    pub(crate) fn all(&self) -> Vec<Arc<Replica>> {
        self.copies.read().values().cloned().collect()
    }

    /// Whether the run before ended in order.
    pub(crate) fn stopped_cleanly(&self) -> bool {
        self.hints.lock().clean
    }

    /// Opens every log of the data directory, cutting torn tails, and those that the checkpoints know and the directory
    /// does not: a replica whose files are gone must not pass for one that never had any.
    pub(crate) fn recover(&self, image: &Image) -> Result<RecoveryReport, DataDirError> {
        let mut report = RecoveryReport::default();
        let mut keys = BTreeSet::from_iter(self.data_dir.partitions()?);
        keys.extend(self.hints.lock().partitions.keys());
        for key in keys {
            let topic = image.topic_by_id(key.0).map(Arc::as_ref);
            match self.open(key, self.log_config(image, topic)) {
                Ok((log, recovered)) => {
                    report.logs += 1;
                    report.truncated_bytes += recovered.truncated_bytes;
                    if recovered.damaged || recovered.unflushed_lost {
                        report.suspect.push(key);
                    }
                    // Where every append is flushed, nothing that was not flushed has been acknowledged.
                    let flushed = topic.is_some_and(|topic| self.settings(image, topic).flush_each);
                    if recovered.damaged || recovered.unflushed_lost && !flushed {
                        report.damaged.push(key);
                    }
                    self.recovered.lock().insert(key, log);
                }
                Err(error) => {
                    tracing::error!(topic = %key.0, partition = key.1, %error, "cannot open a log; it is set aside");
                    self.set_aside(key);
                    report.damaged.push(key);
                    report.suspect.push(key);
                }
            }
        }
        Ok(report)
    }

    /// The cluster knows what recovery found.
    pub(crate) fn told(&self, suspect: &[Key]) {
        for (topic, partition) in suspect {
            let Some(replica) = self.of(*topic, *partition) else {
                continue;
            };
            if let Err(error) = replica.log().told() {
                tracing::warn!(topic = %replica.topic_name, partition, %error, "a replica will be reported as damaged again");
            }
        }
    }

    fn open(&self, key: Key, config: LogConfig) -> Result<(Arc<Log>, Recovered), OpenError> {
        let dir = self.data_dir.partition_dir(key.0, key.1);
        let hint = self.hints.lock().hint(key.0, key.1);
        let (log, recovered) = Log::open(&dir, config, hint, &self.env)?;
        Ok((Arc::new(log), recovered))
    }

    fn set_aside(&self, key: Key) {
        match self.data_dir.set_stray(key.0, key.1, self.context.clock.now_ms()) {
            Ok(place) => tracing::warn!(place = %place.display(), "set aside the files of a replica"),
            Err(error) => {
                tracing::error!(topic = %key.0, partition = key.1, %error, "cannot set a replica's files aside")
            }
        }
    }

    fn remove(&self, key: Key) {
        // Should the replica come back, it begins anew.
        self.hints.lock().partitions.remove(&key);
        if let Err(error) = self.data_dir.remove_partition(key.0, key.1) {
            tracing::error!(topic = %key.0, partition = key.1, %error, "cannot delete a replica's files");
        }
    }

    /// Makes the copies agree with `image`: opens new ones, drops deleted ones, tells all others their role. Returns the
    /// copies whose role may have changed and the keys of those that are gone.
    ///
    /// `registered` is whether this daemon's registration is applied in `image`.
    pub(crate) fn reconcile(&self, image: &Image, registered: bool) -> (Vec<Arc<Replica>>, Vec<Key>) {
        let mut seen = self.seen.lock();
        if seen.closed {
            return (Vec::new(), Vec::new());
        }
        let configs = (
            image.cluster_configs.clone(),
            image.node_configs.get(&self.own).cloned().unwrap_or_default(),
        );
        let all = seen.registered != registered || seen.configs.as_ref() != Some(&configs);
        let mut touched = Vec::new();
        for (id, topic) in &image.topics {
            if !all
                && seen
                    .topics
                    .get(id)
                    .is_some_and(|before| Arc::ptr_eq(before, topic))
            {
                continue;
            }
            self.reconcile_topic(image, topic, registered, &mut touched);
        }
        let gone: Vec<(Key, &str)> = {
            let copies = self.copies.read();
            let judge = |key: &Key| match image.topic_by_id(key.0) {
                None => Some((*key, "the topic is deleted")),
                // An image from before this daemon's registration may be older than what brought the replica here.
                Some(topic) if registered && !self.is_replica(topic, key.1) => {
                    Some((*key, "the replica was moved away"))
                }
                Some(_) => None,
            };
            copies.keys().filter_map(judge).collect()
        };
        for (key, reason) in &gone {
            self.delete(*key, reason);
        }
        let gone = gone.into_iter().map(|(key, _)| key).collect();
        if registered {
            self.judge_leftovers(image);
        }
        *seen = Seen {
            topics: image.topics.clone(),
            configs: Some(configs),
            registered,
            closed: false,
        };
        (touched, gone)
    }

    fn reconcile_topic(
        &self,
        image: &Image,
        topic: &Topic,
        registered: bool,
        touched: &mut Vec<Arc<Replica>>,
    ) {
        let settings = self.settings(image, topic);
        for (number, partition) in (0..).zip(&topic.partitions) {
            if !partition.replicas.contains(&self.own) {
                continue;
            }
            let key = (topic.id, number);
            let replica = match self.of(topic.id, number) {
                Some(replica) => {
                    replica.log().set_config(self.log_config(image, Some(topic)));
                    replica
                }
                None => match self.add(image, topic, number, settings) {
                    Ok(replica) => replica,
                    Err(error) => {
                        tracing::error!(topic = %topic.name, partition = number, error, "cannot open a log");
                        continue;
                    }
                },
            };
            let cut = partition.cut.map_or(0, |cut| cut.target_end);
            replica.log().set_inherited(cut);
            replica.apply(partition, settings, registered);
            self.copies.write().insert(key, Arc::clone(&replica));
            self.recovered.lock().remove(&key);
            touched.push(replica);
        }
    }

    fn add(
        &self,
        image: &Image,
        topic: &Topic,
        partition: i32,
        settings: ReplicaSettings,
    ) -> Result<Arc<Replica>, String> {
        let key = (topic.id, partition);
        // It stays among these until it is among the copies: the checkpoints are never without it.
        let recovered = self.recovered.lock().get(&key).cloned();
        let config = self.log_config(image, Some(topic));
        let log = match recovered {
            Some(log) => {
                log.set_config(config);
                log
            }
            None => self.open(key, config).map_err(|error| error.to_string())?.0,
        };
        let saved = self.hints.lock().partitions.get(&key).copied();
        let name = topic.name.clone();
        Ok(Replica::new(
            key.0,
            name,
            partition,
            log,
            settings,
            saved.unwrap_or_default(),
            Arc::clone(&self.context),
        ))
    }

    /// Whether the image has a replica of this partition on this daemon.
    fn is_replica(&self, topic: &Topic, partition: i32) -> bool {
        topic
            .partition(partition)
            .is_some_and(|partition| partition.replicas.contains(&self.own))
    }

    fn delete(&self, key: Key, reason: &str) {
        let Some(replica) = self.copies.write().remove(&key) else {
            return;
        };
        tracing::info!(topic = %replica.topic_name, partition = key.1, reason, "deleting a replica");
        replica.deleted(reason);
        self.remove(key);
    }

    /// Recovered logs of partitions that have no replica here: deleted or moved while this daemon was away, or unknown.
    fn judge_leftovers(&self, image: &Image) {
        let leftovers = std::mem::take(&mut *self.recovered.lock());
        for (key, log) in leftovers {
            let known = image.topic_by_id(key.0);
            if known.is_some_and(|topic| self.is_replica(topic, key.1)) {
                continue;
            }
            log.discard();
            if known.is_some() || image.tombstones.contains_key(&key.0) {
                self.remove(key);
            } else {
                self.set_aside(key);
            }
        }
    }

    /// Applies retention where this daemon leads; followers follow their leader's log start.
    pub(crate) fn retain(&self, now_ms: i64) {
        for replica in self.all().iter().filter(|replica| replica.is_leader()) {
            let deleted = replica.log().retain(now_ms, replica.high_watermark());
            if !deleted.is_empty() {
                tracing::info!(
                    topic = %replica.topic_name, partition = replica.partition, segments = deleted.len(),
                    log_start = replica.log().start(), "deleted old segments"
                );
                replica.subscribers.ready();
            }
        }
    }

    /// Has logs flushed whose unflushed records have waited for `flush.ms`.
    pub(crate) fn flush_aged(&self, now_ms: i64) {
        for replica in self.copies.read().values() {
            replica.flush_aged(now_ms);
        }
    }

    /// Writes down what the next start wants to know of every log.
    pub(crate) fn write_checkpoints(&self, clean: bool) -> Result<(), CheckpointError> {
        let mut checkpoints = Checkpoints {
            clean,
            ..Checkpoints::default()
        };
        for (key, log) in self.recovered.lock().iter() {
            // Not shown by an image yet: as it was, but for what recovery cut.
            let hint = self.hints.lock().partitions.get(key).copied();
            let mut checkpoint = hint.unwrap_or_default();
            checkpoint.recovery_point = checkpoint.recovery_point.min(log.flushed_end());
            checkpoints.partitions.insert(*key, checkpoint);
        }
        let replicas = self.all();
        for replica in &replicas {
            let log = replica.log();
            let log_start = log.start();
            let checkpoint = PartitionCheckpoint {
                log_start,
                // After the log start, of which it is a part.
                deleted: replica.deleted_to(log_start),
                recovery_point: log.flushed_end(),
                high_watermark: replica.high_watermark(),
            };
            checkpoints
                .partitions
                .insert((replica.topic, replica.partition), checkpoint);
        }
        checkpoints.store(self.data_dir.path())?;
        for replica in &replicas {
            let saved = checkpoints.partitions.get(&(replica.topic, replica.partition));
            if let Some(saved) = saved {
                replica.start_saved(saved.log_start);
            }
            if let Some(Err(error)) = saved.map(|saved| replica.log().checkpointed(saved.recovery_point)) {
                tracing::warn!(topic = %replica.topic_name, partition = replica.partition, %error, "checkpoint");
            }
        }
        Ok(())
    }

    /// Flushes and closes every log: the end of a clean stop. False if one could not be closed in order, or was out of
    /// service before: the next start must not believe it unseen.
    ///
    /// From then on no image is taken over, so that nothing is deleted under a log that is being closed.
    pub(crate) fn close(&self) -> bool {
        self.seen.lock().closed = true;
        self.all().iter().fold(true, |clean, replica| {
            let usable = replica.log().poisoned().is_none();
            match replica.log().close() {
                Ok(()) => clean && usable,
                Err(error) => {
                    tracing::error!(topic = %replica.topic_name, partition = replica.partition, %error, "cannot close a log");
                    false
                }
            }
        })
    }

    fn settings(&self, image: &Image, topic: &Topic) -> ReplicaSettings {
        let number = |key| {
            self.config(image, Some(topic), key)
                .and_then(|value| value.parse::<i64>().ok())
        };
        ReplicaSettings {
            min_in_sync: number("min.insync.replicas")
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(1),
            flush_each: number("flush.messages") == Some(1),
            flush_messages: number("flush.messages").unwrap_or(i64::MAX),
            flush_ms: number("flush.ms").unwrap_or(i64::MAX),
            fenced: topic.fence.is_some(),
        }
    }

    fn log_config(&self, image: &Image, topic: Option<&Topic>) -> LogConfig {
        let text = |key| self.config(image, topic, key);
        let number = |key, otherwise: i64| {
            text(key)
                .and_then(|value| value.trim().parse().ok())
                .unwrap_or(otherwise)
        };
        let size = |key, otherwise: u64| u64::try_from(number(key, -1)).unwrap_or(otherwise);
        let standard = LogConfig::default();
        let policies = text("cleanup.policy").unwrap_or_else(|| "delete".to_owned());
        let policy = |wanted| policies.split(',').any(|word| word.trim() == wanted);
        let log_append_time = text("message.timestamp.type").as_deref() == Some("LogAppendTime");
        LogConfig {
            segment_bytes: size("segment.bytes", standard.segment_bytes),
            segment_ms: number("segment.ms", standard.segment_ms),
            segment_jitter_ms: number("segment.jitter.ms", standard.segment_jitter_ms),
            segment_index_bytes: size("segment.index.bytes", standard.segment_index_bytes),
            retention_ms: number("retention.ms", standard.retention_ms),
            retention_bytes: number("retention.bytes", standard.retention_bytes),
            compact: policy("compact"),
            delete_retention_ms: number("delete.retention.ms", standard.delete_retention_ms),
            min_compaction_lag_ms: number("min.compaction.lag.ms", standard.min_compaction_lag_ms),
            max_compaction_lag_ms: number("max.compaction.lag.ms", standard.max_compaction_lag_ms),
            min_cleanable_ratio: text("min.cleanable.dirty.ratio")
                .and_then(|value| value.trim().parse().ok())
                .unwrap_or(standard.min_cleanable_ratio),
            mirrored: topic.is_some_and(Topic::is_mirroring),
            delete: policy("delete"),
            index_interval_bytes: size("index.interval.bytes", standard.index_interval_bytes),
            max_message_bytes: usize::try_from(number("max.message.bytes", -1))
                .unwrap_or(standard.max_message_bytes),
            // Mirrored batches keep their timestamps until clients write the topic.
            timestamp_type: if log_append_time && !topic.is_some_and(Topic::is_mirroring) {
                TimestampType::LogAppend
            } else {
                TimestampType::Create
            },
            producer_expiry_ms: number("producer.id.expiration.ms", standard.producer_expiry_ms),
        }
    }

    /// The value of a topic configuration here: the topic's own, dynamic defaults, this daemon's file, the key's default.
    pub(crate) fn config(&self, image: &Image, topic: Option<&Topic>, key: &str) -> Option<String> {
        topic
            .and_then(|topic| topic.configs.get(key))
            .or_else(|| image.node_configs.get(&self.own)?.get(key))
            .or_else(|| image.cluster_configs.get(key))
            .or_else(|| self.defaults.get(key))
            .cloned()
            .or_else(|| default_of(key).map(str::to_owned))
    }
}
