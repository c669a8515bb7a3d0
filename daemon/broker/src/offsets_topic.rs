//! `__consumer_offsets`: creates it, and keeps the coordinator's shards in step with who leads its partitions.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tradewind_cluster::Cluster;
use tradewind_cluster::command::{Command, CreateTopic, MetaError};
use tradewind_cluster::image::{Image, Topic};
use tradewind_cluster::metadata::ProposeError;
use tradewind_cluster::replica::{CommitError, Replica, ReplicaError};
use tradewind_wire::batch::{self, Batch, BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;
use tradewind_wire::ids::{NodeId, TopicId};

use crate::broker::{BrokerConfig, METADATA_TIMEOUT};
use crate::groups::{Coordinator, EachRecord, Entry, GroupError, Journal, Topics};

/// The topic's name, as Kafka has it.
pub const NAME: &str = "__consumer_offsets";

/// What one read of a replay takes from the log.
const REPLAY_BYTES: usize = 1 << 20;
/// What a batch of the topic may decompress to.
const MAX_DECOMPRESSED: usize = 64 << 20;
/// How long a replay waits before it looks again whether its replica has taken up its role.
const ROLE_POLL: Duration = Duration::from_millis(50);

/// Creates the topic if enough daemons are active: as many as a default replication factor asks for, or as the cluster
/// began with. Done at the first use, so that its replicas are spread over all of them.
pub(crate) async fn create(cluster: &Cluster, config: &BrokerConfig) -> Result<(), ProposeError> {
    let image = cluster.image();
    if image.topic(NAME).is_some() {
        return Ok(());
    }
    let nodes = cluster.seeds().len().max(1);
    let wanted = usize::try_from(config.default_replication_factor)
        .unwrap_or(1)
        .clamp(1, nodes);
    if image.active().count() < wanted {
        return Err(ProposeError::NoController);
    }
    let id = TopicId::random(cluster.rng().as_ref());
    let factor = i16::try_from(nodes.min(3)).unwrap_or(3);
    let mut topic = CreateTopic::new(NAME, id, config.offsets_partitions, factor);
    topic.internal = true;
    for (key, value) in [
        ("cleanup.policy", "compact"),
        ("compression.type", "producer"),
        ("segment.bytes", "104857600"),
    ] {
        topic.configs.insert(key.to_owned(), value.to_owned());
    }
    match cluster
        .propose(Command::CreateTopic(topic), METADATA_TIMEOUT)
        .await
    {
        Ok(_) | Err(ProposeError::Refused(MetaError::TopicExists(_))) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Keeps the coordinator's shards in step with the image, until `stop`.
pub(crate) async fn follow(cluster: &Cluster, coordinator: &Coordinator, stop: CancellationToken) {
    let mut images = cluster.subscribe();
    let mut last = images.borrow().clone();
    let mut known = None;
    loop {
        let image = images.borrow_and_update().clone();
        let topics = ImageTopics::new(Arc::clone(&image));
        if known != Some((topics.version, topics.settings)) {
            known = Some((topics.version, topics.settings));
            coordinator.set_topics(Arc::new(topics));
        }
        follow_image(cluster, coordinator, &image);
        let gone: Vec<String> = last
            .names
            .iter()
            .filter(|(_, id)| !image.topics.contains_key(*id))
            .map(|(name, _)| name.clone())
            .collect();
        if !gone.is_empty() {
            coordinator.topics_deleted(&gone);
        }
        last = image;
        tokio::select! {
            changed = images.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// The topics of an image, as the coordinator wants to see them.
struct ImageTopics {
    image: Arc<Image>,
    /// A fingerprint of names, ids and partition counts.
    version: u64,
    /// A fingerprint of the settings of groups and of what they may not commit on.
    settings: u64,
    /// Whether groups may not commit on some topic.
    any_moves: bool,
}

impl ImageTopics {
    fn new(image: Arc<Image>) -> Self {
        let mut hasher = DefaultHasher::new();
        for (id, topic) in &image.topics {
            (id.0, &topic.name, topic.partitions.len()).hash(&mut hasher);
        }
        let version = hasher.finish();
        let mut hasher = DefaultHasher::new();
        image.group_configs.hash(&mut hasher);
        let fenced = |topic: &&Arc<Topic>| has_left(topic) || image.is_arriving(topic);
        let moving: Vec<_> = image
            .topics
            .values()
            .filter(fenced)
            .map(|topic| topic.id.0)
            .collect();
        moving.hash(&mut hasher);
        let settings = hasher.finish();
        Self {
            any_moves: !moving.is_empty(),
            image,
            version,
            settings,
        }
    }
}

/// Whether the groups of a topic belong to another cluster.
fn has_left(topic: &Topic) -> bool {
    topic.fence.as_ref().is_some_and(|fence| fence.groups)
}

impl Topics for ImageTopics {
    fn version(&self) -> u64 {
        self.version
    }

    fn topic(&self, name: &str) -> Option<(TopicId, i32)> {
        let topic = self.image.topic(name)?;
        Some((topic.id, i32::try_from(topic.partitions.len()).ok()?))
    }

    fn name(&self, id: TopicId) -> Option<String> {
        self.image.topic_by_id(id).map(|topic| topic.name.clone())
    }

    fn names(&self) -> Vec<String> {
        self.image.names.keys().cloned().collect()
    }

    fn moves(&self, name: &str) -> bool {
        let topic = self.image.topic(name);
        topic.is_some_and(|topic| has_left(topic) || self.image.is_arriving(topic))
    }

    fn has_left(&self, name: &str) -> bool {
        self.image.topic(name).is_some_and(|topic| has_left(topic))
    }

    fn any_moves(&self) -> bool {
        self.any_moves
    }

    fn group_config(&self, group: &str, key: &str) -> Option<String> {
        self.image.group_config(group, key).map(str::to_owned)
    }
}

fn follow_image(cluster: &Cluster, coordinator: &Coordinator, image: &Image) {
    let own = cluster.node_id();
    let led = image.topic(NAME).map(|topic| led(topic, own)).unwrap_or_default();
    let current = coordinator.epochs();
    for partition in current.keys() {
        if !led.iter().any(|(led, _, _)| led == partition) {
            coordinator.resigned(*partition);
        }
    }
    for (partition, epoch, topic) in led {
        if current.get(&partition) != Some(&epoch) {
            let journal = ReplicaJournal {
                cluster: cluster.clone(),
                topic,
                partition,
                epoch,
            };
            coordinator.elected(partition, epoch, Arc::new(journal));
        }
    }
}

fn led(topic: &Topic, own: NodeId) -> Vec<(i32, i32, TopicId)> {
    let numbered = (0..).zip(&topic.partitions);
    numbered
        .filter(|(_, partition)| partition.leader == Some(own))
        .map(|(number, partition)| (number, partition.leader_epoch, topic.id))
        .collect()
}

/// A partition of the topic under one leader epoch.
#[derive(Clone)]
struct ReplicaJournal {
    cluster: Cluster,
    topic: TopicId,
    partition: i32,
    epoch: i32,
}

impl Journal for ReplicaJournal {
    fn append(&self, entries: &[Entry]) -> Result<i64, GroupError> {
        let replica = self.replica()?;
        let now_ms = self.cluster.clock().now_ms();
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
        for (key, value) in entries {
            builder.append(now_ms, Some(key), value.as_deref(), &[]);
        }
        let batch = Batch::parse(builder.build()).map_err(|_| GroupError::Unavailable)?;
        let appended = replica.append_in_epoch(batch, -1, self.epoch);
        let appended = appended.map_err(|error| refused(&error))?;
        Ok(appended.base_offset)
    }

    fn committed(&self, offset: i64, timeout: Duration) -> BoxFuture<'static, Result<(), GroupError>> {
        let (replica, epoch) = (self.replica(), self.epoch);
        async move {
            replica?
                .committed(offset, epoch, timeout)
                .await
                .map_err(|error| match error {
                    CommitError::NotLeader => GroupError::NotCoordinator,
                    CommitError::TimedOut | CommitError::NotEnoughReplicasAfterAppend => {
                        GroupError::Unavailable
                    }
                })
        }
        .boxed()
    }

    fn replay(&self, mut each: Box<EachRecord>) -> BoxFuture<'static, Result<(), GroupError>> {
        let this = self.clone();
        async move {
            let (replica, end) = this.elected().await?;
            // However long it takes: positions that are not committed yet may not be shown, nor be passed over.
            while let Err(error) = replica
                .committed(end - 1, this.epoch, Duration::from_secs(60))
                .await
            {
                if error == CommitError::NotLeader {
                    return Err(GroupError::NotCoordinator);
                }
            }
            let read = tokio::task::spawn_blocking(move || read(&replica, end, &mut each));
            read.await.unwrap_or(Err(GroupError::Unavailable))
        }
        .boxed()
    }
}

impl ReplicaJournal {
    fn replica(&self) -> Result<Arc<Replica>, GroupError> {
        self.cluster
            .replica(self.topic, self.partition)
            .ok_or(GroupError::NotCoordinator)
    }

    /// Waits until the replica has taken up the role that the image gives it; answers the log's end.
    async fn elected(&self) -> Result<(Arc<Replica>, i64), GroupError> {
        let progress = Arc::new(Notify::new());
        loop {
            if let Ok(replica) = self.replica() {
                replica.on_progress(&progress);
                match replica.leader(Some(self.epoch)) {
                    Ok(view) => return Ok((replica, view.end)),
                    Err(ReplicaError::FencedEpoch { .. }) => return Err(GroupError::NotCoordinator),
                    Err(_) => {}
                }
            }
            let current = self.cluster.image();
            let epoch = current
                .partition(self.topic, self.partition)
                .map(|partition| partition.leader_epoch);
            if epoch.is_none_or(|epoch| epoch > self.epoch) {
                return Err(GroupError::NotCoordinator);
            }
            let _ = tokio::time::timeout(ROLE_POLL, progress.notified()).await;
        }
    }
}

fn refused(error: &ReplicaError) -> GroupError {
    match error {
        ReplicaError::NotLeader { .. } | ReplicaError::FencedEpoch { .. } => GroupError::NotCoordinator,
        _ => GroupError::Unavailable,
    }
}

fn read(replica: &Replica, end: i64, each: &mut EachRecord) -> Result<(), GroupError> {
    let log = replica.log();
    let failed = |what: &dyn std::fmt::Display| {
        tracing::error!(partition = replica.partition, error = %what, "cannot read the offsets topic");
        GroupError::Unavailable
    };
    let mut position = log.start();
    while position < end {
        let slice = log
            .read(position, REPLAY_BYTES, end)
            .map_err(|error| failed(&error))?;
        if slice.records.is_empty() || slice.next_offset <= position {
            break;
        }
        position = slice.next_offset;
        let chunks = slice.records.into_iter();
        for batch in chunks.flat_map(batch::split) {
            let batch = batch.map_err(|error| failed(&error))?;
            if batch.header().is_control() {
                continue;
            }
            let records = batch.records(MAX_DECOMPRESSED).map_err(|error| failed(&error))?;
            for record in &records {
                let record = record.map_err(|error| failed(&error))?;
                if let Some(key) = record.key {
                    each(record.offset, key, record.value);
                }
            }
        }
    }
    Ok(())
}
