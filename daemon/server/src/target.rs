//! The mirror's view of its own cluster: its `Target`, over this daemon's cluster and group coordinator.
//!
//! Only translation: every rule is the mirror's, the metadata log's or the coordinator's. Commands are made idempotent
//! here where the metadata log is not: what already holds is success.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tradewind_broker::Broker;
use tradewind_broker::groups::{
    Coordinator, GroupError as CoordinatorError, MirroredCommit, MirroredFrom, MirroredStatus,
};
use tradewind_cluster::Cluster;
use tradewind_cluster::command::{
    self, Command, ConfigChange, ConfigResource, CreateTopic, GrowTopic, MetaError, Outcome,
};
use tradewind_cluster::image::{self, Image, MirrorState};
use tradewind_cluster::metadata::ProposeError;
use tradewind_cluster::replica::{CommitError, Replica, ReplicaError};
use tradewind_log::{AbortedTransaction, AppendError};
use tradewind_mirror::target::{
    Aborted, CallError, CommandError, CommitOutcome, Cut, CutEntry, FlowMark, FlowState, FlowView,
    GroupError, LineageEntry, LogError, LogState, MirrorBinding, MirroredPosition, NewMirrorTopic,
    PartitionView, StoredPosition, Target, Tombstones, TopicView, View,
};
use tradewind_wire::audit::Audit;
use tradewind_wire::batch::Batch;
use tradewind_wire::clock::Clock;
use tradewind_wire::drill::{DrillNote, Rehearsal, Rehearsed};
use tradewind_wire::flow::{FlowSpec, Origin, Pause};
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::region::RegionCommand;

/// The name under which the daemons' mirrors call each other.
pub(crate) const MIRROR_CALL: &str = "mirror";

/// This daemon's cluster, as its mirror sees it.
pub(crate) struct OwnCluster {
    cluster: Cluster,
    broker: Broker,
    /// The last picture and the image it was made of.
    view: Mutex<Option<(Arc<Image>, Arc<View>)>>,
}

impl OwnCluster {
    /// The cluster of this broker.
    pub(crate) fn new(broker: Broker) -> Self {
        Self {
            cluster: broker.cluster().clone(),
            broker,
            view: Mutex::new(None),
        }
    }

    fn coordinator(&self) -> &Coordinator {
        self.broker.coordinator()
    }

    async fn propose(&self, command: Command) -> Result<Outcome, CommandError> {
        self.cluster
            .propose(command, PROPOSE_TIMEOUT)
            .await
            .map_err(proposed)
    }

    fn replica(&self, topic: TopicId, partition: i32) -> Result<Arc<Replica>, LogError> {
        self.cluster.replica(topic, partition).ok_or(LogError::NotLeader)
    }

    fn new_topic(&self, name: &str, partitions: i32) -> CreateTopic {
        let id = TopicId::random(self.cluster.rng().as_ref());
        CreateTopic::new(
            name,
            id,
            partitions,
            self.broker.config().default_replication_factor,
        )
    }

    fn is_bound(&self, name: &str, binding: &MirrorBinding) -> bool {
        let image = self.cluster.image();
        let mirror = image.topic(name).and_then(|topic| topic.mirror.as_ref());
        mirror.is_some_and(|mirror| {
            mirror.flow == binding.flow
                && mirror.source_topic == binding.source_topic
                && mirror.source_topic_id == binding.source_topic_id
        })
    }
}

#[async_trait]
impl Target for OwnCluster {
    fn node_id(&self) -> NodeId {
        self.cluster.node_id()
    }

    fn cluster_name(&self) -> &str {
        self.cluster.cluster_name()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(self.cluster.clock())
    }

    fn view(&self) -> Arc<View> {
        let image = self.cluster.image();
        let mut last = self.view.lock();
        match &*last {
            Some((of, view)) if Arc::ptr_eq(of, &image) => Arc::clone(view),
            before => {
                let view = Arc::new(picture(
                    &image,
                    before.as_ref().map(|(image, view)| (&**image, &**view)),
                ));
                *last = Some((image, Arc::clone(&view)));
                view
            }
        }
    }

    async fn changed(&self, seen: u64) {
        let mut images = self.cluster.subscribe();
        if images.wait_for(|image| image.index > seen).await.is_err() {
            // The metadata have ended, and so will this process; nothing changes any more.
            std::future::pending::<()>().await;
        }
    }

    async fn create_mirror_topic(&self, topic: NewMirrorTopic) -> Result<(), CommandError> {
        if self.is_bound(&topic.name, &topic.binding) {
            return Ok(());
        }
        let mut create = self.new_topic(&topic.name, topic.partitions);
        create.configs = topic.configs;
        create.mirror = Some(command::MirrorBinding {
            flow: topic.binding.flow.clone(),
            source_topic: topic.binding.source_topic.clone(),
            source_topic_id: topic.binding.source_topic_id,
            origin: topic.binding.origin.clone(),
        });
        match self.propose(Command::CreateTopic(create)).await {
            Err(CommandError::Conflict(_)) if self.is_bound(&topic.name, &topic.binding) => Ok(()),
            result => result.map(drop),
        }
    }

    async fn create_internal_topic(
        &self,
        name: &str,
        partitions: i32,
        configs: BTreeMap<String, String>,
    ) -> Result<(), CommandError> {
        if self.cluster.image().topic(name).is_some() {
            return Ok(());
        }
        let mut create = self.new_topic(name, partitions);
        create.configs = configs;
        match self.propose(Command::CreateTopic(create)).await {
            Err(CommandError::Conflict(_)) => Ok(()),
            result => result.map(drop),
        }
    }

    async fn grow_topic(&self, topic: TopicId, partitions: i32) -> Result<(), CommandError> {
        let image = self.cluster.image();
        let known = image.topic_by_id(topic);
        let known = known.ok_or_else(|| CommandError::Refused(format!("no topic {topic}")))?;
        if known.partitions.len() as i32 >= partitions {
            return Ok(());
        }
        let flow = known.mirror.as_ref().map(|mirror| mirror.flow.clone());
        let grow = GrowTopic {
            id: topic,
            count: partitions,
            assignment: None,
            flow,
        };
        self.propose(Command::GrowTopic(grow)).await.map(drop)
    }

    async fn set_topic_configs(
        &self,
        topic: TopicId,
        changes: Vec<(String, Option<String>)>,
    ) -> Result<(), CommandError> {
        let change = |(name, value): (String, Option<String>)| {
            (name, value.map_or(ConfigChange::Delete, ConfigChange::Set))
        };
        let command = Command::AlterConfigs {
            resource: ConfigResource::Topic(topic),
            replace: false,
            changes: changes.into_iter().map(change).collect(),
        };
        self.propose(command).await.map(drop)
    }

    async fn set_origin(&self, flow: &str, topic: TopicId, origin: Origin) -> Result<(), CommandError> {
        let flow = flow.to_owned();
        self.propose(Command::SetOrigin { flow, topic, origin })
            .await
            .map(drop)
    }

    async fn enter_lineage(
        &self,
        entries: Vec<LineageEntry>,
    ) -> Result<Vec<Result<i32, CommandError>>, CommandError> {
        let entry = |entry: LineageEntry| command::LineageEntry {
            topic: entry.topic,
            partition: entry.partition,
            leader_epoch: entry.leader_epoch,
            lineage: entry.lineage,
        };
        let entries = entries.into_iter().map(entry).collect();
        match self.propose(Command::Lineage { entries }).await? {
            Outcome::Lineage(outcomes) => Ok(outcomes
                .into_iter()
                .map(|outcome| outcome.map_err(refused))
                .collect()),
            other => Err(CommandError::Refused(format!("an unexpected outcome: {other:?}"))),
        }
    }

    async fn pause(&self, flow: &str, topic: Option<&str>, pause: Option<Pause>) -> Result<(), CommandError> {
        let flow = flow.to_owned();
        let command = match topic {
            Some(topic) => Command::PauseTopic {
                flow,
                topic: topic.to_owned(),
                pause,
            },
            None => Command::PauseFlow {
                flow,
                paused: pause.is_some(),
                at_ms: pause.as_ref().map_or(0, |pause| pause.since_ms),
                reason: pause.map(|pause| pause.reason).unwrap_or_default(),
            },
        };
        self.propose(command).await.map(drop)
    }

    async fn declare_flow(&self, spec: FlowSpec) -> Result<(), CommandError> {
        self.propose(Command::DeclareFlow { spec }).await.map(drop)
    }

    async fn remove_flow(&self, flow: &str, forget_source: bool) -> Result<(), CommandError> {
        let command = Command::RemoveFlow {
            flow: flow.to_owned(),
            at_ms: self.cluster.clock().now_ms(),
            keep_topics: true,
            forget_source,
        };
        self.propose(command).await.map(drop)
    }

    async fn begin_failover(&self, flow: &str) -> Result<(), CommandError> {
        self.propose(Command::BeginFailover {
            flow: flow.to_owned(),
        })
        .await
        .map(drop)
    }

    async fn record_cuts(&self, flow: &str, cuts: Vec<CutEntry>) -> Result<(), CommandError> {
        // A flow without a partition to cut was promoted when its failover began.
        for cut in cuts {
            self.propose(Command::RecordCut {
                flow: flow.to_owned(),
                topic: cut.topic,
                partition: cut.partition,
                leader_epoch: cut.leader_epoch,
                cut: cut.cut,
                source_end: cut.source_end,
            })
            .await?;
        }
        Ok(())
    }

    async fn region(&self, command: RegionCommand) -> Result<(), CommandError> {
        self.propose(Command::Region(command)).await.map(drop)
    }

    fn log(&self, topic: TopicId, partition: i32) -> Result<LogState, LogError> {
        let replica = self.replica(topic, partition)?;
        let view = replica.leader(None).map_err(log_error)?;
        Ok(LogState {
            leader_epoch: view.epoch,
            start: view.log_start,
            deleted: replica.deleted_to(view.log_start),
            end: view.end,
            high_watermark: view.high_watermark,
        })
    }

    async fn append_mirrored(
        &self,
        topic: TopicId,
        partition: i32,
        leader_epoch: i32,
        previous_end: i64,
        batches: Bytes,
    ) -> Result<i64, LogError> {
        let replica = self.replica(topic, partition)?;
        replica
            .append_mirrored(batches, previous_end, leader_epoch)
            .map_err(log_error)
    }

    async fn delete_mirrored(
        &self,
        topic: TopicId,
        partition: i32,
        leader_epoch: i32,
        offset: i64,
    ) -> Result<i64, LogError> {
        let replica = self.replica(topic, partition)?;
        let deleting = tokio::task::spawn_blocking(move || replica.delete_mirrored(offset, leader_epoch));
        let deleted = deleting
            .await
            .map_err(|error| LogError::Unusable(error.to_string()))?;
        deleted.map_err(log_error)
    }

    async fn abort_open(
        &self,
        topic: TopicId,
        partition: i32,
        leader_epoch: i32,
        cut: i64,
    ) -> Result<Vec<Aborted>, LogError> {
        let replica = self.replica(topic, partition)?;
        let aborting =
            tokio::task::spawn_blocking(move || replica.abort_open_transactions(cut, leader_epoch));
        let aborted = aborting
            .await
            .map_err(|error| LogError::Unusable(error.to_string()))?;
        let told = |transaction: AbortedTransaction| Aborted {
            producer_id: transaction.producer_id,
            first_offset: transaction.first_offset,
            marker: transaction.last_offset,
        };
        Ok(aborted.map_err(log_error)?.into_iter().map(told).collect())
    }

    fn epoch_end(&self, topic: TopicId, partition: i32, epoch: i32) -> Option<(i32, i64)> {
        let replica = self.cluster.replica(topic, partition)?;
        replica.log().end_offset_for_epoch(epoch)
    }

    async fn read_own(
        &self,
        topic: TopicId,
        partition: i32,
        leader_epoch: i32,
        (from, up_to): (i64, i64),
    ) -> Result<Bytes, LogError> {
        let replica = self.replica(topic, partition)?;
        let reading = tokio::task::spawn_blocking(move || {
            let view = replica.leader(Some(leader_epoch)).map_err(log_error)?;
            let read = replica
                .log()
                .read(from.max(view.log_start), OWN_READ_BYTES, up_to);
            let read = read.map_err(|error| LogError::Unusable(error.to_string()))?;
            // Whoever led when the reading began may have lost the end to another since.
            replica.leader(Some(leader_epoch)).map_err(log_error)?;
            Ok(Bytes::from(read.records.concat()))
        });
        let read = reading.await;
        read.map_err(|error| LogError::Unusable(error.to_string()))?
    }

    fn tombstones(&self, topic: TopicId, partition: i32) -> Option<Tombstones> {
        if !self.is_compacted(topic) {
            return None;
        }
        let (image, own) = (self.cluster.image(), self.cluster.node_id());
        let known = image.topic_by_id(topic)?;
        let kept = image.topic_config(known, "delete.retention.ms", Some(own))?;
        let replica = self.cluster.replica(topic, partition)?;
        Some(Tombstones {
            kept_ms: kept.parse().ok()?,
            written_ms: replica.log().written_ms(),
        })
    }

    fn is_compacted(&self, topic: TopicId) -> bool {
        let (image, own) = (self.cluster.image(), self.cluster.node_id());
        let topic = image.topic_by_id(topic);
        let policy = topic.and_then(|topic| image.topic_config(topic, "cleanup.policy", Some(own)));
        policy.is_some_and(|policy| policy.contains("compact"))
    }

    fn new_topic_id(&self) -> TopicId {
        TopicId::random(self.cluster.rng().as_ref())
    }

    async fn await_high_watermark(
        &self,
        topic: TopicId,
        partition: i32,
        leader_epoch: i32,
        offset: i64,
        timeout: Duration,
    ) -> Result<(), LogError> {
        let committed = self.replica(topic, partition)?;
        committed
            .committed(offset - 1, leader_epoch, timeout)
            .await
            .map_err(|error| match error {
                CommitError::TimedOut => LogError::TimedOut,
                CommitError::NotEnoughReplicasAfterAppend => LogError::NotEnoughReplicas,
                CommitError::NotLeader => LogError::NotLeader,
            })
    }

    async fn append_own(&self, topic: &str, partition: i32, batch: Bytes) -> Result<(), LogError> {
        let image = self.cluster.image();
        let topic = image
            .topic(topic)
            .ok_or_else(|| LogError::Unusable(format!("no topic {topic}")))?;
        let replica = self.replica(topic.id, partition)?;
        let batch = Batch::parse(batch).map_err(|error| LogError::BadBatches(error.to_string()))?;
        replica.append(batch, 1).map(drop).map_err(log_error)
    }

    async fn prepare_groups(&self) -> Result<(), CommandError> {
        self.broker.prepare_groups().await.map_err(proposed)
    }

    fn coordinates(&self, group: &str) -> bool {
        self.coordinator().coordinates(group).is_ok()
    }

    async fn group_positions(&self, group: &str) -> Result<Vec<StoredPosition>, GroupError> {
        let read = |offsets: Option<&tradewind_broker::groups::Offsets>| {
            let all = offsets.into_iter().flat_map(|offsets| offsets.iter());
            let stored = all.map(|(topic, partition, value)| StoredPosition {
                topic: topic.to_owned(),
                partition,
                offset: value.offset,
                metadata: value.metadata.clone(),
                mark: value.mirrored.as_ref().map(|mark| FlowMark {
                    flow: mark.flow.clone(),
                    source_offset: mark.source_offset,
                    source_version: mark.source_version,
                }),
            });
            stored.collect()
        };
        self.coordinator().positions(group, read).map_err(group_error)
    }

    async fn mirrored_groups(&self, flow: &str) -> Vec<String> {
        self.coordinator().mirrored_groups(flow)
    }

    async fn mirrored_commit(
        &self,
        group: &str,
        positions: Vec<MirroredPosition>,
    ) -> Result<Vec<CommitOutcome>, GroupError> {
        let commit = |position: MirroredPosition| MirroredCommit {
            topic: position.topic,
            partition: position.partition,
            offset: position.offset,
            metadata: position.metadata,
            mark: MirroredFrom {
                flow: position.mark.flow,
                source_offset: position.mark.source_offset,
                source_version: position.mark.source_version,
            },
        };
        let commits = positions.into_iter().map(commit).collect();
        let statuses = self
            .coordinator()
            .mirrored_commit(group, commits)
            .await
            .map_err(group_error)?;
        let outcome = |status| match status {
            MirroredStatus::Written | MirroredStatus::Unchanged => CommitOutcome::Written,
            MirroredStatus::OwnedHere => CommitOutcome::OwnedHere,
            MirroredStatus::Outdated => CommitOutcome::Outdated,
        };
        Ok(statuses.into_iter().map(outcome).collect())
    }

    async fn audit(
        &self,
        topic: TopicId,
        partition: i32,
        bounds: Vec<i64>,
        items: bool,
    ) -> Result<Audit, String> {
        self.cluster.audit(topic, partition, bounds, items).await
    }

    async fn rehearse(&self, rehearsal: Rehearsal) -> Result<Rehearsed, String> {
        self.cluster.rehearse(rehearsal).await
    }

    async fn note_drill(&self, flow: &str, note: DrillNote) -> Result<(), CommandError> {
        let flow = flow.to_owned();
        self.propose(Command::NoteDrill { flow, note }).await.map(drop)
    }

    async fn call(&self, node: NodeId, request: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        let answer = self.cluster.call(node, MIRROR_CALL, request, timeout).await;
        answer.map_err(|error| CallError {
            node: error.node,
            reason: error.reason,
        })
    }

    fn downstream_clusters(&self) -> Vec<String> {
        self.cluster.downstream_clusters()
    }
}

/// The picture of an image. Topics that have not changed since the one before are shared with its picture.
fn picture(image: &Image, before: Option<(&Image, &View)>) -> View {
    let topics = image.topics.iter().map(|(id, topic)| {
        let unchanged = before
            .filter(|(image, _)| image.topics.get(id).is_some_and(|old| Arc::ptr_eq(old, topic)))
            .and_then(|(_, view)| view.topics.get(&topic.name));
        (
            topic.name.clone(),
            unchanged.map_or_else(|| Arc::new(topic_view(topic)), Arc::clone),
        )
    });
    View {
        index: image.index,
        cluster_id: image.cluster_id.map(|id| id.to_string()).unwrap_or_default(),
        active_nodes: image.active().map(|daemon| daemon.id).collect(),
        sessions: image
            .active()
            .filter_map(|daemon| Some((daemon.id, u64::try_from(daemon.session).ok()?)))
            .collect(),
        flows: image
            .flows
            .iter()
            .map(|(name, flow)| (name.clone(), flow_view(flow)))
            .collect(),
        removed_flows: image.removed_flows.clone(),
        moves: image.moves.clone(),
        topics: topics.collect(),
    }
}

fn topic_view(topic: &image::Topic) -> TopicView {
    let partition = |partition: &image::Partition| PartitionView {
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        lineage: partition.lineage.clone(),
        cut: partition.cut.map(|cut| Cut {
            offset: cut.target_end,
            source_end: cut.source_end,
        }),
        fenced_end: partition.fenced_end,
    };
    TopicView {
        name: topic.name.clone(),
        id: topic.id,
        partitions: topic.partitions.iter().map(partition).collect(),
        configs: topic.configs.clone(),
        mirror: topic.mirror.as_ref().map(|mirror| MirrorBinding {
            flow: mirror.flow.clone(),
            source_topic: mirror.source_topic.clone(),
            source_topic_id: mirror.source_topic_id,
            origin: mirror.origin.clone(),
            promoted: mirror.state == MirrorState::Promoted,
        }),
        paused: topic.mirror.as_ref().and_then(|mirror| mirror.paused.clone()),
        fence: topic.fence.clone(),
    }
}

fn flow_view(flow: &image::Flow) -> FlowView {
    FlowView {
        spec: flow.spec.clone(),
        state: match flow.state {
            image::FlowState::Active => FlowState::Active,
            image::FlowState::Paused => FlowState::Paused,
            image::FlowState::SwitchingOver => FlowState::SwitchingOver,
            image::FlowState::FailingOver => FlowState::FailingOver,
            image::FlowState::Promoted => FlowState::Promoted,
        },
        paused: flow.paused.clone(),
        switchover: flow.switchover.clone(),
        failback: flow.failback.clone(),
        drills: flow.drills.clone(),
    }
}

fn proposed(error: ProposeError) -> CommandError {
    match error {
        ProposeError::Refused(refusal) => refused(refusal),
        _ => CommandError::Unavailable,
    }
}

fn refused(refusal: MetaError) -> CommandError {
    match refusal {
        MetaError::Stale { .. } => CommandError::Stale,
        MetaError::TopicExists(name) => CommandError::Conflict(name),
        other => CommandError::Refused(other.to_string()),
    }
}

fn log_error(error: ReplicaError) -> LogError {
    match error {
        ReplicaError::NotLeader { .. } => LogError::NotLeader,
        ReplicaError::FencedEpoch { current } | ReplicaError::UnknownEpoch { current } => {
            LogError::OtherEpoch { current }
        }
        ReplicaError::NotEnoughReplicas { .. } => LogError::NotEnoughReplicas,
        ReplicaError::WrongPosition { expected, .. } => LogError::OtherEnd { end: expected },
        ReplicaError::Append(AppendError::DiskFull) => LogError::Full,
        ReplicaError::Append(
            error @ (AppendError::Poisoned(_) | AppendError::Closed | AppendError::Io(_)),
        ) => LogError::Unusable(error.to_string()),
        ReplicaError::Append(error) => LogError::BadBatches(error.to_string()),
        other => LogError::Unusable(other.to_string()),
    }
}

fn group_error(error: CoordinatorError) -> GroupError {
    match error {
        CoordinatorError::NotCoordinator | CoordinatorError::Loading => GroupError::NotCoordinator,
        other => GroupError::NotCommitted(other.to_string()),
    }
}

/// Bytes of one read of the mirror's.
const OWN_READ_BYTES: usize = 1 << 20;

/// How long the metadata log may take over a change of the mirror's; it is asked again later.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
