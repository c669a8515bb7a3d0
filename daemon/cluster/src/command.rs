//! What can be proposed to the metadata log, and what comes of it.
//!
//! Commands state facts; [`crate::apply`] decides from the image alone what follows. They are stored for good as
//! versioned JSON: a field is only ever added with a default, a variant never changes its meaning.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tradewind_wire::drill::DrillNote;
use tradewind_wire::flow::{FlowSpec, Lineage, Origin, Pause};
use tradewind_wire::ids::{ClusterId, NodeId, TopicId};
use tradewind_wire::region::RegionCommand;

use crate::image::{Cut, Endpoint, FlowState};

/// One entry of the metadata log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Command {
    /// Names the cluster; only the first one counts.
    Init {
        /// The cluster's id.
        cluster_id: ClusterId,
        /// The cluster's number for producer ids, at least 1.
        cluster_number: u16,
    },
    /// A daemon has started.
    Register(Registration),
    /// The controller has not heard a daemon for a session, or it lags.
    Fence {
        /// The daemon.
        node: NodeId,
        /// Its registration.
        daemon_epoch: i64,
        /// The session that ended ([`crate::image::Daemon::session`]): a later one is not fenced by this entry.
        session: i64,
        /// The controller's term: an entry decided in another term is dropped.
        term: u64,
    },
    /// A fenced daemon is heard again and has caught up.
    Unfence {
        /// The daemon.
        node: NodeId,
        /// Its registration.
        daemon_epoch: i64,
    },
    /// A daemon is about to stop cleanly.
    Stopping {
        /// The daemon.
        node: NodeId,
        /// Its registration.
        daemon_epoch: i64,
    },
    /// Drains a daemon, so that it can be stopped without harm, or ends that.
    Drain {
        /// The daemon.
        node: NodeId,
        /// Whether it shall be drained.
        on: bool,
        /// Even if some partition cannot do without it.
        force: bool,
    },
    /// Forgets a fenced daemon that holds no replicas.
    Unregister {
        /// The daemon.
        node: NodeId,
    },
    /// Creates a topic.
    CreateTopic(CreateTopic),
    /// Deletes a topic.
    DeleteTopic {
        /// Which.
        id: TopicId,
    },
    /// Adds partitions to a topic.
    GrowTopic(GrowTopic),
    /// A leader's proposal of in-sync sets, all its partitions in one entry.
    AlterIsr {
        /// The leader.
        node: NodeId,
        /// Its registration.
        daemon_epoch: i64,
        /// One change per partition.
        changes: Vec<IsrChange>,
    },
    /// A daemon cannot go on with some replicas (a failed write or flush).
    ReplicaFailed {
        /// The daemon.
        node: NodeId,
        /// Its registration.
        daemon_epoch: i64,
        /// Topic and partition.
        replicas: Vec<(TopicId, i32)>,
        /// For a person to read.
        reason: String,
    },
    /// A daemon has discarded failed replicas and will rebuild them from their leaders.
    ReplicaRestored {
        /// The daemon.
        node: NodeId,
        /// Its registration.
        daemon_epoch: i64,
        /// Topic and partition.
        replicas: Vec<(TopicId, i32)>,
    },
    /// Elects leaders by choice.
    Elect {
        /// By which rule.
        kind: ElectionKind,
        /// Topic and partition.
        partitions: Vec<(TopicId, i32)>,
    },
    /// Moves replicas (KIP-455).
    Reassign {
        /// One per partition.
        moves: Vec<Move>,
        /// Whether a move may change how many replicas a partition has (KIP-860).
        resize: bool,
    },
    /// Changes configuration.
    AlterConfigs {
        /// Whose.
        resource: ConfigResource,
        /// Whether keys that are not named return to their default.
        replace: bool,
        /// The changes by key.
        changes: BTreeMap<String, ConfigChange>,
    },
    /// Hands a block of producer ids to a daemon.
    AllocateProducerIds {
        /// The daemon.
        node: NodeId,
    },
    /// Declares a flow into this cluster, or changes its declaration. Repeating it changes nothing.
    DeclareFlow {
        /// What it copies, from where.
        spec: FlowSpec,
    },
    /// Pauses or resumes a flow.
    PauseFlow {
        /// Its name.
        flow: String,
        /// Whether it shall stand.
        paused: bool,
        /// When this was asked for, in ms since the epoch.
        #[serde(default)]
        at_ms: i64,
        /// Why, for a person to read.
        #[serde(default)]
        reason: String,
    },
    /// Pauses or resumes one topic of a flow.
    PauseTopic {
        /// The flow.
        flow: String,
        /// The mirror topic, by its name here or, if there is none, at the source.
        topic: String,
        /// Since when, in ms since the epoch, and why; none resumes.
        pause: Option<Pause>,
    },
    /// What a daemon's configuration says of a flow: declares it if the cluster neither has it nor has removed it.
    OfferFlow {
        /// What it copies, from where.
        spec: FlowSpec,
    },
    /// Forgets a flow, and remembers that it was removed.
    RemoveFlow {
        /// Its name.
        flow: String,
        /// Now, in ms since the epoch.
        #[serde(default)]
        at_ms: i64,
        /// Even if it has mirroring topics: nobody writes them then.
        #[serde(default)]
        keep_topics: bool,
        /// Even if its source, which was failed over, has not heard of that.
        #[serde(default)]
        forget_source: bool,
    },
    /// The source says otherwise than before where the records of a mirror topic were first written.
    SetOrigin {
        /// The flow that writes the topic.
        flow: String,
        /// The topic.
        topic: TopicId,
        /// What it says now.
        origin: Origin,
    },
    /// New source epochs of mirror partitions, entered before their first batch is appended.
    Lineage {
        /// One per partition.
        entries: Vec<LineageEntry>,
    },
    /// Ends mirroring: raises the leader epoch of every mirror partition of the flow, so that nothing mirrored is
    /// appended any more.
    BeginFailover {
        /// Its name.
        flow: String,
    },
    /// Where mirroring ended in one partition; with the last one of a flow, its topics are promoted.
    RecordCut {
        /// The flow.
        flow: String,
        /// The mirror topic.
        topic: TopicId,
        /// The partition.
        partition: i32,
        /// The leader epoch under which the leader found the end.
        leader_epoch: i32,
        /// The first offset that clients may write.
        cut: i64,
        /// The source's end as last known.
        source_end: Option<i64>,
    },
    /// That a drill of a flow has begun, or how it ended.
    NoteDrill {
        /// The flow.
        flow: String,
        /// What is to be remembered; the same id again adds the end.
        note: DrillNote,
    },
    /// Moves a region, a step at a time.
    Region(RegionCommand),
}

/// What a daemon says of itself after recovering its logs and before serving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its node id.
    pub node: NodeId,
    /// A random number for this run of the process.
    pub incarnation: u128,
    /// The incarnation that ran before on the same data directory, as far as this daemon's image tells.
    pub replaces: Option<u128>,
    /// Every incarnation under which this data directory may be registered: the image of a daemon that has just started may
    /// be older than its last registration. At most 64.
    #[serde(default)]
    pub own: BTreeSet<u128>,
    /// The operating system's boot id.
    pub boot_id: String,
    /// Whether the run before was stopped cleanly (everything flushed).
    pub clean_stop: bool,
    /// Replicas that recovery found short or damaged.
    pub damaged: Vec<(TopicId, i32)>,
    /// Its failure domain.
    pub rack: Option<String>,
    /// Where other daemons reach it, `host:port` (UDP).
    pub mesh: String,
    /// Where clients reach it.
    pub listeners: Vec<Endpoint>,
    /// The defaults of its configuration file for [`crate::config::SAFETY_KEYS`].
    pub defaults: BTreeMap<String, String>,
}

impl Registration {
    /// Whether the run `incarnation` was on the same data directory.
    pub(crate) fn follows(&self, incarnation: u128) -> bool {
        self.replaces == Some(incarnation) || self.own.contains(&incarnation)
    }
}

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTopic {
    /// Its name.
    pub name: String,
    /// Its id, drawn by the proposer. Proposing the same id again is answered with the topic.
    pub id: TopicId,
    /// How many partitions; ignored with an `assignment`.
    pub partitions: i32,
    /// How many replicas of each; ignored with an `assignment`.
    pub replication_factor: i16,
    /// Whether `replication_factor` is a default, lowered to the number of daemons, or a wish that fails.
    pub clamp: bool,
    /// The replicas of each partition, if the client chose them.
    pub assignment: Option<Vec<Vec<NodeId>>>,
    /// Configuration where it differs from the defaults.
    pub configs: BTreeMap<String, String>,
    /// What it mirrors.
    pub mirror: Option<MirrorBinding>,
    /// Whether it belongs to the system.
    pub internal: bool,
}

impl CreateTopic {
    /// A topic with a default replication factor and nothing special.
    pub fn new(name: &str, id: TopicId, partitions: i32, replication_factor: i16) -> Self {
        Self {
            name: name.to_owned(),
            id,
            partitions,
            replication_factor,
            clamp: true,
            assignment: None,
            configs: BTreeMap::new(),
            mirror: None,
            internal: false,
        }
    }
}

/// Binds a new topic to a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorBinding {
    /// The flow's name.
    pub flow: String,
    /// The topic's name in the source.
    pub source_topic: String,
    /// The topic's id in the source; zero if the source knows none.
    pub source_topic_id: TopicId,
    /// Where its records were first written; none if that was decided before anybody asked.
    #[serde(default)]
    pub origin: Option<Origin>,
}

/// Partitions to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrowTopic {
    /// The topic.
    pub id: TopicId,
    /// How many partitions it shall have.
    pub count: i32,
    /// The replicas of each *new* partition, if the client chose them.
    pub assignment: Option<Vec<Vec<NodeId>>>,
    /// The flow that asks; a mirroring topic grows only by its flow.
    pub flow: Option<String>,
}

/// A leader's proposal for one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsrChange {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: i32,
    /// The leader epoch under which the leader proposes.
    pub leader_epoch: i32,
    /// The partition epoch that it has seen.
    pub partition_epoch: i32,
    /// The proposed set with the daemon epoch of each member.
    pub isr: Vec<(NodeId, i64)>,
}

/// Where the replicas of a partition shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: i32,
    /// The daemons, the preferred leader first; `None` takes a move back that is under way.
    pub replicas: Option<Vec<NodeId>>,
}

/// By which rule [`Command::Elect`] elects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ElectionKind {
    /// The first replica, if it is in sync and active.
    Preferred,
    /// Any active replica, if there is no leader: committed records may be lost.
    Unclean,
}

/// Whose configuration is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigResource {
    /// A topic's.
    Topic(TopicId),
    /// The cluster-wide defaults (`None`) or one daemon's.
    Broker(Option<NodeId>),
    /// A consumer group's, whether or not the group exists.
    Group(String),
}

/// One change of one configuration key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigChange {
    /// To this value.
    Set(String),
    /// Back to the default.
    Delete,
    /// Adds an element to a list value.
    Append(String),
    /// Removes an element from a list value.
    Subtract(String),
}

/// A new source epoch of one mirror partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageEntry {
    /// The mirror topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: i32,
    /// The leader epoch under which the leader proposes.
    pub leader_epoch: i32,
    /// What begins.
    pub lineage: Lineage,
}

/// What a proposal did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Outcome {
    /// What was asked, with nothing to add.
    Done,
    /// The daemon is registered.
    Registered {
        /// Its daemon epoch.
        epoch: i64,
    },
    /// The topic exists.
    Topic {
        /// Its id.
        id: TopicId,
        /// How many partitions it has.
        partitions: i32,
        /// How many replicas each has.
        replication_factor: i16,
    },
    /// A block of producer ids.
    ProducerIds {
        /// The first.
        first: i64,
        /// How many.
        count: i32,
    },
    /// Per proposed change, in its order: the set as it stands now, or why not.
    IsrChanged(Vec<Result<IsrState, MetaError>>),
    /// Per partition, in order: the leader that it has now, or why not.
    Elected(Vec<Result<NodeId, MetaError>>),
    /// Per move, in order: begun, done or taken back, or why not.
    Reassigned(Vec<Result<(), MetaError>>),
    /// Per lineage entry, in order: the partition's leader epoch now, or why not.
    Lineage(Vec<Result<i32, MetaError>>),
    /// The flow as it stands now.
    Flow {
        /// Its version.
        version: u32,
        /// Its state.
        state: FlowState,
    },
    /// The cut as recorded: the first one, if it is recorded twice.
    Cut(Cut),
}

/// An in-sync set after a proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsrState {
    /// The set.
    pub isr: Vec<NodeId>,
    /// The partition epoch to propose the next one with.
    pub partition_epoch: i32,
}

/// Why a proposal was refused. The image has not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// The cluster has another id already.
    #[error("the cluster is already initialised as {0}")]
    AlreadyInitialised(ClusterId),
    /// Another live process runs under this node id.
    #[error("another live daemon is registered as node {0}")]
    DuplicateNode(NodeId),
    /// The daemon is not registered.
    #[error("node {0} is not registered")]
    UnknownNode(NodeId),
    /// The daemon epoch, session, term, leader epoch or partition epoch is not the current one.
    #[error("stale {what}: {given} is not {current}")]
    Stale {
        /// Which of them.
        what: StaleWhat,
        /// As proposed.
        given: i64,
        /// As it stands.
        current: i64,
    },
    /// The daemon is fenced, stopping, or its replica failed.
    #[error("replica on node {0} may not be in sync: its daemon is not active, or the replica failed")]
    Ineligible(NodeId),
    /// The proposer does not lead the partition.
    #[error("node {0} does not lead the partition")]
    NotLeader(NodeId),
    /// The proposed in-sync set lacks its leader, names a stranger or names one twice.
    #[error("not an in-sync set: {0}")]
    InvalidIsr(String),
    /// There is a topic of that name.
    #[error("topic '{0}' already exists")]
    TopicExists(String),
    /// There is no such topic.
    #[error("unknown topic {0}")]
    UnknownTopic(String),
    /// There is no such partition.
    #[error("unknown partition {0}")]
    UnknownPartition(i32),
    /// Not a topic name in Kafka's sense, or one that collides with another.
    #[error("{0}")]
    InvalidTopic(String),
    /// Not a number of partitions.
    #[error("{0}")]
    InvalidPartitions(String),
    /// Not a replication factor that the cluster can serve.
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// Not an assignment of replicas.
    #[error("{0}")]
    InvalidAssignment(String),
    /// Not a known configuration key or value.
    #[error("{0}")]
    InvalidConfig(String),
    /// No active replica may lead.
    #[error("no replica may lead the partition now")]
    NoEligibleLeader,
    /// There is no move of replicas that could be taken back.
    #[error("no reassignment is in progress")]
    NoReassignment,
    /// The leader asked for leads already.
    #[error("no election is needed")]
    ElectionNotNeeded,
    /// Partitions would refuse `acks=all`, or have no leader, without the daemon.
    #[error(
        "{partitions} partitions cannot do without daemon {node}: {}{}", some.join(", "),
        if *partitions > some.len() { ", ..." } else { "" }
    )]
    Needed {
        /// The daemon.
        node: NodeId,
        /// How many.
        partitions: usize,
        /// The first of them.
        some: Vec<String>,
    },
    /// The daemon cannot be forgotten: it is in service, or holds replicas.
    #[error("daemon {0} is in service or holds replicas")]
    InUse(NodeId),
    /// All producer ids are handed out.
    #[error("no producer ids are left")]
    ProducerIdsExhausted,
    /// Only its flow may do that to a mirroring topic.
    #[error("topic '{topic}' is written by flow {flow}")]
    MirrorTopic {
        /// The topic.
        topic: String,
        /// The flow.
        flow: String,
    },
    /// The topic is not mirrored by that flow.
    #[error("topic '{0}' is not a mirror of the flow, or is promoted")]
    NotMirroring(String),
    /// There is no such flow.
    #[error("unknown flow {0}")]
    UnknownFlow(String),
    /// The flow's mirror topics are called otherwise than its new naming would have it.
    #[error(
        "flow {flow} cannot have another naming: its mirror topic '{topic}' keeps its name. Keep the naming, or delete the \
         flow's mirror topics first"
    )]
    Naming {
        /// The flow.
        flow: String,
        /// One such topic.
        topic: String,
    },
    /// The flow was removed; a configuration does not bring it back.
    #[error("flow {0} was removed")]
    RemovedFlow(String),
    /// The flow's state does not allow it.
    #[error("flow {flow} is {state:?}")]
    FlowState {
        /// The flow.
        flow: String,
        /// Its state.
        state: FlowState,
    },
    /// The topic is being moved to another cluster.
    #[error("topic '{topic}' is fenced: flow {flow} moves it to another cluster")]
    FencedTopic {
        /// The topic.
        topic: String,
        /// The flow.
        flow: String,
    },
    /// A step of moving a region that does not fit what the log has.
    #[error("{0}")]
    Region(String),
    /// A failover that another one has overtaken, as far as the numbers tell.
    #[error(
        "flow {flow}: the failover has region epoch {given}, but this side has {own}: both have been promoted"
    )]
    RegionEpoch {
        /// The flow.
        flow: String,
        /// The failover's.
        given: u64,
        /// What it must be above.
        own: u64,
    },
    /// The source epoch or offset goes backwards.
    #[error("lineage goes backwards: {0}")]
    LineageOrder(String),
    /// A list or text exceeds its limit.
    #[error("{what} exceeds the limit of {limit}")]
    TooMany {
        /// What.
        what: String,
        /// Its limit.
        limit: usize,
    },
}

/// What [`MetaError::Stale`] speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StaleWhat {
    /// The daemon epoch.
    DaemonEpoch,
    /// The daemon's session.
    Session,
    /// The controller's term.
    Term,
    /// The partition's leader epoch.
    LeaderEpoch,
    /// The partition's partition epoch.
    PartitionEpoch,
}

impl std::fmt::Display for StaleWhat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::DaemonEpoch => "daemon epoch",
            Self::Session => "session",
            Self::Term => "term",
            Self::LeaderEpoch => "leader epoch",
            Self::PartitionEpoch => "partition epoch",
        })
    }
}
