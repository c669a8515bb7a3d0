//! The copies on this daemon: opens and recovers their logs, makes them agree with each new image, and keeps house.
//!
//! [`Replicas`] only knows what is here; who leads what comes from the image. Nothing on disk is judged (deleted or set
//! aside) before this daemon's registration is applied, because an old image may not know a new topic.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{Mutex, RwLock};
use tradewind_log::{Checkpoint, Checkpoints, DataDir, Log, LogConfig, LogEnv, OpenHint};
use tradewind_wire::clock::Clock;
use tradewind_wire::ids::{NodeId, TopicId};

use crate::config::default_of;
use crate::flusher::Flusher;
use crate::image::{Image, Topic};
use crate::replica::{Replica, ReplicaContext, ReplicaSettings};

/// Topic and partition.
pub(crate) type Key = (TopicId, i32);

/// The copies on this daemon.
pub(crate) struct Replicas {
    own: NodeId,
    data_dir: Arc<DataDir>,
    env: Arc<LogEnv>,
    context: Arc<ReplicaContext>,
    /// Topic defaults from this daemon's configuration file.
    defaults: BTreeMap<String, String>,
    copies: RwLock<HashMap<Key, Arc<Replica>>>,
    /// Logs recovered at start whose topics the image has not shown yet.
    recovered: Mutex<HashMap<Key, Arc<Log>>>,
    hints: HashMap<Key, Checkpoint>,
    /// The topics as last reconciled, with the index that changed the configuration around them.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    topics: BTreeMap<TopicId, Arc<Topic>>,
    configs: Option<(BTreeMap<String, String>, BTreeMap<String, String>)>,
    registered: bool,
}

/// What recovery found.
#[derive(Debug, Default)]
pub(crate) struct RecoveryReport {
    /// Replicas that are short or damaged.
    pub(crate) damaged: Vec<Key>,
    /// How many logs were opened.
    pub(crate) logs: usize,
    /// Bytes of torn tails that were cut.
    pub(crate) truncated_bytes: u64,
}

impl Replicas {
    pub(crate) fn new(
        own: NodeId,
        data_dir: Arc<DataDir>,
        env: Arc<LogEnv>,
        defaults: BTreeMap<String, String>,
        clock: Arc<dyn Clock>,
        flusher: Flusher,
        in_touch: Arc<AtomicBool>,
        checkpoints: &Checkpoints,
    ) -> Self {
        Self {
            own,
            data_dir,
            env,
            context: Arc::new(ReplicaContext {
                own,
                clock,
                flusher,
                in_touch,
            }),
            defaults,
            copies: RwLock::default(),
            recovered: Mutex::default(),
            hints: checkpoints.entries().clone(),
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

    /// Opens every log of the data directory, cutting torn tails. `clean` says that the run before ended in order.
    pub(crate) fn recover(&self, image: &Image, clean: bool) -> std::io::Result<RecoveryReport> {
        let mut report = RecoveryReport::default();
        for key in self.data_dir.partitions()? {
            let config = self.log_config(image, image.topic_by_id(key.0).map(Arc::as_ref));
            match self.open(key, config, clean) {
                Ok((log, damaged, truncated_bytes)) => {
                    report.logs += 1;
                    report.truncated_bytes += truncated_bytes;
                    if damaged {
                        report.damaged.push(key);
                    }
                    self.recovered.lock().insert(key, log);
                }
                Err(error) => {
                    tracing::error!(topic = %key.0, partition = key.1, %error, "cannot open a log; it is set aside");
                    self.data_dir.set_aside(key.0, key.1)?;
                    report.damaged.push(key);
                }
            }
        }
        Ok(report)
    }

    fn open(
        &self,
        key: Key,
        config: LogConfig,
        clean: bool,
    ) -> Result<(Arc<Log>, bool, u64), tradewind_log::OpenError> {
        let hint = self.hints.get(&key).copied().unwrap_or_default();
        let hint = OpenHint {
            log_start: hint.log_start,
            recovery_point: hint.recovery_point,
            clean_shutdown: clean,
        };
        let dir = self.data_dir.partition_dir(key.0, key.1);
        let (log, recovered) = Log::open(&dir, config, hint, Arc::clone(&self.env))?;
        Ok((Arc::new(log), recovered.damaged, recovered.truncated_bytes))
    }

    /// Makes the copies agree with `image`: opens new ones, drops deleted ones, tells all others their role. Returns the
    /// copies whose role may have changed and the keys of those that are gone.
    ///
    /// `registered` is whether this daemon's registration is applied in `image`.
    pub(crate) fn reconcile(&self, image: &Image, registered: bool) -> (Vec<Arc<Replica>>, Vec<Key>) {
        let mut seen = self.seen.lock();
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
        let gone: Vec<Key> = {
            let copies = self.copies.read();
            copies
                .keys()
                .filter(|key| !image.topics.contains_key(&key.0))
                .copied()
                .collect()
        };
        for key in &gone {
            self.delete(*key);
        }
        if registered {
            self.judge_leftovers(image);
        }
        *seen = Seen {
            topics: image.topics.clone(),
            configs: Some(configs),
            registered,
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
            replica.apply(partition, settings, registered);
            self.copies.write().insert(key, Arc::clone(&replica));
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
        let recovered = self.recovered.lock().remove(&key);
        let config = self.log_config(image, Some(topic));
        let log = match recovered {
            Some(log) => {
                log.set_config(config);
                log
            }
            None => self.open(key, config, true).map_err(|error| error.to_string())?.0,
        };
        let high_watermark = self.hints.get(&key).map_or(0, |hint| hint.high_watermark);
        let name = topic.name.clone();
        Ok(Replica::new(
            key.0,
            name,
            partition,
            log,
            settings,
            high_watermark,
            Arc::clone(&self.context),
        ))
    }

    fn delete(&self, key: Key) {
        let Some(replica) = self.copies.write().remove(&key) else {
            return;
        };
        replica.deleted();
        tracing::info!(topic = %replica.topic_name, partition = key.1, "deleting a replica");
        if let Err(error) = self.data_dir.remove_partition(key.0, key.1) {
            tracing::error!(topic = %key.0, partition = key.1, %error, "cannot delete a replica's files");
        }
    }

    /// Recovered logs of topics that the image does not have: deleted while this daemon was away, or unknown.
    fn judge_leftovers(&self, image: &Image) {
        let leftovers = std::mem::take(&mut *self.recovered.lock());
        for (key, log) in leftovers {
            if image.topics.contains_key(&key.0) {
                continue;
            }
            drop(log);
            let result = if image.tombstones.contains_key(&key.0) {
                self.data_dir.remove_partition(key.0, key.1)
            } else {
                tracing::warn!(topic = %key.0, partition = key.1, "setting aside the files of an unknown topic");
                self.data_dir.set_aside(key.0, key.1)
            };
            if let Err(error) = result {
                tracing::error!(topic = %key.0, partition = key.1, %error, "cannot put away a replica's files");
            }
        }
    }

    /// Applies retention where this daemon leads; followers follow their leader's log start.
    pub(crate) fn retain(&self, now_ms: i64) {
        for replica in self.all().iter().filter(|replica| replica.is_leader()) {
            match replica.log().retain(now_ms, replica.high_watermark()) {
                Ok(0) => {}
                Ok(segments) => {
                    tracing::info!(
                        topic = %replica.topic_name, partition = replica.partition, segments, "deleted old segments"
                    );
                    replica.subscribers.ready();
                }
                Err(error) => replica.failed(format!("retention: {error}")),
            }
        }
    }

    /// What the next start wants to know of every log.
    pub(crate) fn checkpoints(&self) -> HashMap<Key, Checkpoint> {
        let mut entries: HashMap<Key, Checkpoint> = self
            .hints
            .iter()
            .filter(|(key, _)| self.recovered.lock().contains_key(key))
            .map(|(k, v)| (*k, *v))
            .collect();
        for replica in self.all() {
            let log = replica.log();
            entries.insert(
                (replica.topic, replica.partition),
                Checkpoint {
                    log_start: log.start(),
                    recovery_point: log.flushed_end(),
                    high_watermark: replica.high_watermark(),
                },
            );
        }
        entries
    }

    /// Flushes and closes every log: the end of a clean stop. False if one could not be closed in order.
    pub(crate) fn close(&self) -> bool {
        self.all().iter().fold(true, |clean, replica| match replica.log().close() {
            Ok(()) => clean,
            Err(error) => {
                tracing::error!(topic = %replica.topic_name, partition = replica.partition, %error, "cannot close a log");
                false
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
        }
    }

    fn log_config(&self, image: &Image, topic: Option<&Topic>) -> LogConfig {
        LogConfig::from_configs(|key| self.config(image, topic, key))
    }

    /// The value of a topic configuration here: the topic's own, dynamic defaults, this daemon's file, Kafka's default.
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
