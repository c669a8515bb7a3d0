//! The mirror's own cluster as the mirror needs it: one trait, implemented by the program over its cluster and broker.
//!
//! The mirror never names a daemon crate. Everything it learns of its cluster is in [`View`], an immutable picture that is
//! replaced as a whole; everything it changes goes through [`Target`]. Commands to the metadata log are idempotent: saying
//! what already holds is success. An `Ok` from one of them means that *this* daemon has applied it, so the next
//! [`Target::view`] shows it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tradewind_wire::audit::Audit;
use tradewind_wire::clock::Clock;
use tradewind_wire::drill::{DrillNote, Rehearsal, Rehearsed};
use tradewind_wire::failback::Failback;
use tradewind_wire::flow::{FlowSpec, Lineage, Origin, Pause};
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::region::{RegionCommand, RegionMove, Switchover, TopicFence};

/// The cluster that flows write into, as seen from one of its daemons.
///
/// No method may block its thread for long; each `async` one that talks to another process has a deadline of its own.
#[async_trait]
pub trait Target: Send + Sync + 'static {
    /// This daemon.
    fn node_id(&self) -> NodeId;

    /// The name of the cluster, as in its configuration.
    fn cluster_name(&self) -> &str;

    /// The clock that all deciding code here is given.
    fn clock(&self) -> Arc<dyn Clock>;

    /// The newest picture that this daemon has applied. Cheap: the same `Arc` until something changed.
    fn view(&self) -> Arc<View>;

    /// Returns once [`Target::view`] has an index above `seen`.
    async fn changed(&self, seen: u64);

    /// Creates a read-only topic that belongs to a flow. The replication factor is the cluster's default.
    /// A topic of that name bound to the same flow, source topic and source topic id is success; any other is `Conflict`.
    async fn create_mirror_topic(&self, topic: NewMirrorTopic) -> Result<(), CommandError>;

    /// Creates a topic of the mirror's own (`heartbeats`, checkpoints) with the cluster's default replication factor.
    /// An existing topic of that name is success.
    async fn create_internal_topic(
        &self,
        name: &str,
        partitions: i32,
        configs: BTreeMap<String, String>,
    ) -> Result<(), CommandError>;

    /// Grows a mirror topic to `partitions`; fewer than it has, or as many, is success and does nothing.
    async fn grow_topic(&self, topic: TopicId, partitions: i32) -> Result<(), CommandError>;

    /// Sets (`Some`) or removes (`None`) configs of a mirror topic.
    async fn set_topic_configs(
        &self,
        topic: TopicId,
        changes: Vec<(String, Option<String>)>,
    ) -> Result<(), CommandError>;

    /// Remembers where the records of a mirror topic of `flow` were first written.
    async fn set_origin(&self, flow: &str, topic: TopicId, origin: Origin) -> Result<(), CommandError>;

    /// Records where new source epochs begin, in one command. Applying an entry raises the partition's leader epoch to at
    /// least the source's. Answers per entry, in order, the partition's leader epoch now, or why it was not entered
    /// (`Stale`: `leader_epoch` is no longer the partition's).
    async fn enter_lineage(
        &self,
        entries: Vec<LineageEntry>,
    ) -> Result<Vec<Result<i32, CommandError>>, CommandError>;

    /// Declares a flow, or changes its declaration. One that holds already is success.
    async fn declare_flow(&self, spec: FlowSpec) -> Result<(), CommandError> {
        Err(CommandError::Refused(format!(
            "this cluster does not declare {}",
            spec.name()
        )))
    }

    /// Forgets a flow; its mirror topics stay read-only. `forget_source`: although a source that was failed over has not
    /// heard of it yet.
    async fn remove_flow(&self, flow: &str, forget_source: bool) -> Result<(), CommandError> {
        Err(CommandError::Refused(format!(
            "this cluster does not remove {flow} ({forget_source})"
        )))
    }

    /// Has a flow, or one mirror topic of it (by its name here or at the source), stand still, or go on with `None`. What
    /// stands already keeps its pause.
    async fn pause(&self, flow: &str, topic: Option<&str>, pause: Option<Pause>) -> Result<(), CommandError>;

    /// Moves a flow from active (or paused) to failing over: its source tasks and checkpoint tasks stop for good.
    /// Already failing over or promoted is success.
    async fn begin_failover(&self, flow: &str) -> Result<(), CommandError>;

    /// Records where partitions of a failing-over flow were cut. Applying the last open cut of the flow promotes its topics
    /// (clients may write, under a new leader epoch) and the flow. A partition that already has its cut keeps it.
    /// For a flow without any partition to cut, an empty list promotes the flow.
    async fn record_cuts(&self, flow: &str, cuts: Vec<CutEntry>) -> Result<(), CommandError>;

    /// A step of moving a region. What holds already is success; `Refused` says why it cannot be.
    async fn region(&self, command: RegionCommand) -> Result<(), CommandError> {
        Err(CommandError::Refused(format!(
            "this cluster does not know {command:?}"
        )))
    }

    /// The log of a partition that this daemon leads.
    fn log(&self, topic: TopicId, partition: i32) -> Result<LogState, LogError>;

    /// Appends whole batches with the offsets they carry. `previous_end` must be the log end and `leader_epoch` the
    /// partition's; batches are re-stamped with that epoch and nothing else. Offsets may leave gaps, never overlap.
    /// Answers the new log end.
    async fn append_mirrored(
        &self,
        topic: TopicId,
        partition: i32,
        leader_epoch: i32,
        previous_end: i64,
        batches: Bytes,
    ) -> Result<i64, LogError>;

    /// Deletes the records below `offset`, but at most up to the high watermark, because they were deleted at the source.
    /// `leader_epoch` must be the partition's: a failover ends it. Answers the log start; one that is there already is
    /// success.
    async fn delete_mirrored(
        &self,
        topic: TopicId,
        partition: i32,
        leader_epoch: i32,
        offset: i64,
    ) -> Result<i64, LogError>;

    /// Aborts the transactions that began below `cut` in a partition led here under `leader_epoch` and are still open: their
    /// coordinator was the source's. Answers those that were aborted at or above `cut`, now or before, by their first
    /// offset; the markers are appended, not yet committed.
    async fn abort_open(
        &self,
        topic: TopicId,
        partition: i32,
        leader_epoch: i32,
        cut: i64,
    ) -> Result<Vec<Aborted>, LogError> {
        let _ = (topic, partition, leader_epoch, cut);
        Ok(Vec::new())
    }

    /// What there is to know of a partition led here before it can be said whether tombstones were missed: `None` if the
    /// topic is not compacted.
    fn tombstones(&self, topic: TopicId, partition: i32) -> Option<Tombstones> {
        let _ = (topic, partition);
        None
    }

    /// Of the leader epochs in the log of a partition led here, the largest that is not above `epoch`, and where it ends.
    fn epoch_end(&self, topic: TopicId, partition: i32, epoch: i32) -> Option<(i32, i64)> {
        let _ = (topic, partition, epoch);
        None
    }

    /// Whole batches of a partition led here under `leader_epoch`, from the one that holds `from` on, none of which reaches
    /// past `up_to`; about a mebibyte. Empty if there is none.
    async fn read_own(
        &self,
        topic: TopicId,
        partition: i32,
        leader_epoch: i32,
        (from, up_to): (i64, i64),
    ) -> Result<Bytes, LogError> {
        let _ = (topic, partition, leader_epoch, from, up_to);
        Err(LogError::NotLeader)
    }

    /// Whether the cleaner removes records of a topic for the sake of later ones.
    fn is_compacted(&self, topic: TopicId) -> bool {
        let _ = topic;
        false
    }

    /// An id for a new topic.
    fn new_topic_id(&self) -> TopicId {
        TopicId::default()
    }

    /// Waits until the high watermark of a partition led here is at least `offset`.
    async fn await_high_watermark(
        &self,
        topic: TopicId,
        partition: i32,
        leader_epoch: i32,
        offset: i64,
        timeout: Duration,
    ) -> Result<(), LogError>;

    /// Appends one finished batch of the mirror's own records to an internal topic's partition led here; offsets are
    /// assigned. Answers once it is at the leader; replication goes on by itself.
    async fn append_own(&self, topic: &str, partition: i32, batch: Bytes) -> Result<(), LogError>;

    /// Makes what this cluster keeps group positions in, if it is not there yet. Done is success.
    async fn prepare_groups(&self) -> Result<(), CommandError>;

    /// Whether this daemon is the active coordinator of `group` (its offsets are loaded and it may write them).
    fn coordinates(&self, group: &str) -> bool;

    /// Every stored position of a group coordinated here.
    async fn group_positions(&self, group: &str) -> Result<Vec<StoredPosition>, GroupError>;

    /// The groups coordinated here that hold at least one position written by `flow`.
    async fn mirrored_groups(&self, flow: &str) -> Vec<String>;

    /// Writes mirrored positions into a group coordinated here, each by compare-and-set: only if no member of the group is
    /// subscribed to that topic here **and** the stored position is absent or was last written by the same flow.
    /// Returns once the written ones are committed. One outcome per position, in order.
    async fn mirrored_commit(
        &self,
        group: &str,
        positions: Vec<MirroredPosition>,
    ) -> Result<Vec<CommitOutcome>, GroupError>;

    /// Digests of what a partition led here holds between `bounds`, as its disk has it; with `items` of every batch. The
    /// error is for a person to read.
    async fn audit(
        &self,
        topic: TopicId,
        partition: i32,
        bounds: Vec<i64>,
        items: bool,
    ) -> Result<Audit, String>;

    /// Rehearses the promotion of a partition led here, beside it: see [`Rehearsal`]. The error is for a person to read.
    async fn rehearse(&self, rehearsal: Rehearsal) -> Result<Rehearsed, String> {
        Err(format!("this cluster rehearses nothing: {rehearsal:?}"))
    }

    /// Records that a drill of a flow has begun, or how it ended.
    async fn note_drill(&self, flow: &str, note: DrillNote) -> Result<(), CommandError> {
        let _ = note;
        Err(CommandError::Refused(format!(
            "{flow}: this cluster knows no drills"
        )))
    }

    /// Asks another daemon of this cluster; its mirror answers in [`crate::Mirror::answer`]. Bounded by `timeout`.
    async fn call(&self, node: NodeId, request: Bytes, timeout: Duration) -> Result<Bytes, CallError>;

    /// Other clusters that mirror from this one right now, as far as this daemon knows. They are named in heartbeats.
    fn downstream_clusters(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What the mirror needs of its cluster's metadata at one index of the metadata log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// The index of the metadata log that this picture shows.
    pub index: u64,
    /// The cluster's id, as its Metadata answers give it; empty until it has one.
    pub cluster_id: String,
    /// Daemons that are registered and neither fenced nor stopping.
    pub active_nodes: Vec<NodeId>,
    /// The entries of the metadata log since which they are.
    pub sessions: BTreeMap<NodeId, u64>,
    /// Flows into this cluster, by name (`east->west`).
    pub flows: BTreeMap<String, FlowView>,
    /// Flows that were removed, by name: when, in ms since the epoch.
    pub removed_flows: BTreeMap<String, i64>,
    /// Flows out of this cluster that move, or moved, topics away, by name.
    pub moves: BTreeMap<String, RegionMove>,
    /// Every topic of this cluster by name, mirror or not (names must not clash).
    pub topics: BTreeMap<String, Arc<TopicView>>,
}

/// The one of the active daemons that does what a cluster needs done once (discovery, creating topics, asking other
/// clusters). Every daemon with the same picture names the same; two that differ for a moment only say the same thing twice.
pub fn steward(active: impl IntoIterator<Item = NodeId>) -> Option<NodeId> {
    active.into_iter().min()
}

impl View {
    /// See [`steward`].
    pub fn steward(&self) -> Option<NodeId> {
        steward(self.active_nodes.iter().copied())
    }

    /// The topics that belong to `flow`, promoted ones included.
    pub fn topics_of<'a>(
        &'a self,
        flow: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<TopicView>, &'a MirrorBinding)> {
        self.topics.values().filter_map(move |topic| {
            topic
                .mirror
                .as_ref()
                .filter(|binding| binding.flow == flow)
                .map(|binding| (topic, binding))
        })
    }
}

/// A flow as the metadata log has it.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowView {
    /// What was declared.
    pub spec: FlowSpec,
    /// Where it stands.
    pub state: FlowState,
    /// Since when and why it is paused, or was when it was failed over.
    pub paused: Option<Pause>,
    /// Its last switchover and how far that came.
    pub switchover: Option<Switchover>,
    /// What is known of its source since a failover.
    pub failback: Option<Failback>,
    /// Its last drills, the newest last.
    pub drills: Vec<DrillNote>,
}

impl TopicView {
    /// Whether its flow, and nobody else, writes it.
    pub fn is_mirroring(&self) -> bool {
        self.mirror.as_ref().is_some_and(|bound| !bound.promoted)
    }

    /// Whether it was moved to another cluster and is its mirror here: then nobody but its flow commits on it either.
    pub fn has_moved(&self) -> bool {
        self.fence.is_some() && self.is_mirroring()
    }
}

/// Where a flow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowState {
    /// Data and positions are copied.
    Active,
    /// Nothing is copied until it is resumed.
    Paused,
    /// Data and positions are copied until the source, which is being fenced, has no more.
    SwitchingOver,
    /// Copying has stopped for good; leaders are recording their cuts.
    FailingOver,
    /// Its topics belong to this cluster now.
    Promoted,
}

/// A topic of this cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicView {
    /// Its name here.
    pub name: String,
    /// Its id here.
    pub id: TopicId,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionView>,
    /// Configs set on the topic itself, without defaults.
    pub configs: BTreeMap<String, String>,
    /// Which flow writes it, if one does or did.
    pub mirror: Option<MirrorBinding>,
    /// Since when and why it is paused, whatever its flow does.
    pub paused: Option<Pause>,
    /// That clients may not write it here, because it moves to another cluster or has moved.
    pub fence: Option<TopicFence>,
}

/// What ties a topic here to one at a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorBinding {
    /// The flow's name.
    pub flow: String,
    /// The topic's name at the source.
    pub source_topic: String,
    /// The topic's id at the source when the mirror was created; zero if the source knows no ids.
    pub source_topic_id: TopicId,
    /// Where its records were first written, as the source said last.
    pub origin: Option<Origin>,
    /// Whether the topic was promoted: clients may write, the flow may not.
    pub promoted: bool,
}

/// A partition of a topic of this cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionView {
    /// Its leader, if it has one.
    pub leader: Option<NodeId>,
    /// The leader's epoch.
    pub leader_epoch: i32,
    /// Where source epochs begin, oldest first.
    pub lineage: Vec<Lineage>,
    /// Where a failover cut it.
    pub cut: Option<Cut>,
    /// Where clients' writes ended when the topic was fenced.
    pub fenced_end: Option<i64>,
}

/// Where a failover ended mirroring in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The first offset that clients write here.
    pub offset: i64,
    /// The source's high watermark as last known.
    pub source_end: Option<i64>,
}

/// A mirror topic to be created.
#[derive(Debug, Clone, PartialEq)]
pub struct NewMirrorTopic {
    /// Its name here.
    pub name: String,
    /// How many partitions it has at the source.
    pub partitions: i32,
    /// Configs to begin with.
    pub configs: BTreeMap<String, String>,
    /// What it mirrors.
    pub binding: MirrorBinding,
}

/// One new source epoch of one mirror partition.
#[derive(Debug, Clone, PartialEq)]
pub struct LineageEntry {
    /// The topic here.
    pub topic: TopicId,
    /// The partition.
    pub partition: i32,
    /// The leader epoch here under which this was decided.
    pub leader_epoch: i32,
    /// Where the source epoch begins.
    pub lineage: Lineage,
}

/// Where one partition was cut by a failover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutEntry {
    /// The topic here.
    pub topic: TopicId,
    /// The partition.
    pub partition: i32,
    /// The leader epoch under which the log ended at `cut`.
    pub leader_epoch: i32,
    /// The log end, which is also the high watermark: the first offset that clients will write.
    pub cut: i64,
    /// The last known high watermark at the source, if one was ever seen.
    pub source_end: Option<i64>,
}

/// A partition's log, read without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogState {
    /// The epoch under which this daemon leads it.
    pub leader_epoch: i32,
    /// The first offset that is kept.
    pub start: i64,
    /// How much of the way to `start` was DeleteRecords; the rest was retention.
    pub deleted: i64,
    /// The offset after the last record: the position of a source task.
    pub end: i64,
    /// The first offset not known to be on every in-sync replica.
    pub high_watermark: i64,
}

/// A transaction that was open when a mirror became this cluster's own, and was aborted for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    /// Whose it was, by its id at the source.
    pub producer_id: i64,
    /// Its first record.
    pub first_offset: i64,
    /// Where its abort marker is.
    pub marker: i64,
}

/// How long a compacted topic keeps tombstones for whoever is away, and since when its mirror may have been away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tombstones {
    /// `delete.retention.ms`.
    pub kept_ms: i64,
    /// When this copy of the log was last written to, in ms since the epoch; `None` if nobody knows.
    pub written_ms: Option<i64>,
}

/// A position of a group as stored here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPosition {
    /// The topic's name here.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// What OffsetFetch answers.
    pub offset: i64,
    /// The group's own metadata.
    pub metadata: String,
    /// Who wrote it last, if it was a flow.
    pub mark: Option<FlowMark>,
}

/// What a flow leaves beside a position that it writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowMark {
    /// The flow's name.
    pub flow: String,
    /// The position at the source; the visible offset may be lower until data arrive.
    pub source_offset: i64,
    /// Orders what was read from the source: a lower version never replaces a higher one.
    pub source_version: i64,
}

/// A position for [`Target::mirrored_commit`].
#[derive(Debug, Clone, PartialEq)]
pub struct MirroredPosition {
    /// The topic's name here.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The visible offset.
    pub offset: i64,
    /// The group's own metadata, as at the source.
    pub metadata: String,
    /// Who writes it and why.
    pub mark: FlowMark,
}

/// What became of one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Stored, or stored so already.
    Written,
    /// The group is used here: a member is subscribed to the topic, or it has committed by itself.
    OwnedHere,
    /// A newer version is stored.
    Outdated,
}

/// Why a command to the metadata log did not take effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The name is taken by something else.
    #[error("`{0}` exists and is not this flow's")]
    Conflict(String),
    /// The command was decided on facts that have changed; look again.
    #[error("decided on an outdated picture")]
    Stale,
    /// The cluster refuses it, and will again.
    #[error("refused: {0}")]
    Refused(String),
    /// No controller answered in time; it may or may not have taken effect.
    #[error("no answer from the controller")]
    Unavailable,
}

/// Why a log led here could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// This daemon does not lead the partition (any more, or yet).
    #[error("not the leader")]
    NotLeader,
    /// It leads it under another epoch.
    #[error("leader epoch is {current}")]
    OtherEpoch {
        /// The epoch now.
        current: i32,
    },
    /// `previous_end` is not the log end.
    #[error("log ends at {end}")]
    OtherEnd {
        /// The log end.
        end: i64,
    },
    /// Too few in-sync replicas to accept records.
    #[error("not enough in-sync replicas")]
    NotEnoughReplicas,
    /// The wait ended first.
    #[error("timed out")]
    TimedOut,
    /// The batches are damaged or out of order; nothing was appended.
    #[error("batches refused: {0}")]
    BadBatches(String),
    /// There is no room for records on this daemon's disk, up to what is held back.
    #[error("no room for records on this daemon's disk")]
    Full,
    /// The disk failed, or the topic is gone.
    #[error("log unusable: {0}")]
    Unusable(String),
}

/// Why a group's positions could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// Another daemon coordinates the group, or this one has not loaded it yet.
    #[error("not the coordinator")]
    NotCoordinator,
    /// The write could not be committed in time.
    #[error("not committed: {0}")]
    NotCommitted(String),
}

/// Why another daemon of this cluster did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("daemon {node} did not answer: {reason}")]
pub struct CallError {
    /// Who was asked.
    pub node: NodeId,
    /// What went wrong.
    pub reason: String,
}
