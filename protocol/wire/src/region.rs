//! Moving a region: the words that two clusters, their metadata logs and the command line share about a switchover. What a
//! lost primary goes through when it returns after a failover is in [`crate::failback`].
//!
//! Both sides keep their half in their own metadata log. The *target* of the flow holds a [`Switchover`]: it leads, and
//! its promotion is the only commit point. The *source* holds a [`RegionMove`] and a [`TopicFence`] per topic. An attempt
//! is numbered by the index of the entry that began it at the target, so that a frame that comes late means nothing.
//!
//! ```text
//! target:  Fencing -> Draining -> Settling -> Promoted -> Done
//!             `----------`-----------`------> Aborting -> Aborted
//! source:  (free) -> Fenced -> GroupsFenced -> Moved          writes are refused from Fenced on
//!                      `-----------`--------> Released        only once the target has recorded the abort
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::failback::{History, Kept, LoweredPosition, Tails};
use crate::flow::{FlowSpec, Provenance};
use crate::ids::TopicId;

/// The largest region epoch that another cluster's word is believed. Epochs rise by one or two at a time, and must be able
/// to rise further for good.
pub const MAX_REGION_EPOCH: u64 = 1 << 48;

/// A switchover as the target's metadata log has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switchover {
    /// The index of the entry that began it.
    pub attempt: u64,
    /// How far it is.
    pub step: SwitchStep,
    /// When it began, in ms since the epoch, by a clock of the target.
    pub begun_ms: i64,
    /// After this time it is given up, unless it is promoted.
    pub deadline_ms: i64,
    /// How long groups may commit at the source once its writes are fenced, in ms.
    pub group_drain_ms: i64,
    /// When the source's ends were recorded.
    pub fenced_ms: Option<i64>,
    /// The region epoch that the promotion gives to the flow's topics; known with the ends.
    pub region_epoch: u64,
    /// Where each topic (by its id at the target) ends at the source, by partition.
    pub ends: BTreeMap<TopicId, Vec<SourceEnd>>,
    /// When it was promoted or given up.
    pub ended_ms: Option<i64>,
    /// Why it was given up.
    pub reason: String,
}

/// How far a switchover is at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SwitchStep {
    /// The source is to fence its writes and to say where they end.
    Fencing,
    /// Records arrive up to those ends; groups may still commit at the source.
    Draining,
    /// No group commits at the source any more; final positions are written here.
    Settling,
    /// Clients may write here. The source is to take up the reverse flow.
    Promoted,
    /// The source has taken up the reverse flow.
    Done,
    /// Given up; the source is to let its clients write again.
    Aborting,
    /// The source has let its clients write again.
    Aborted,
    /// A failover took its place: the source stays fenced.
    FailedOver,
}

impl SwitchStep {
    /// Whether something is still to be done.
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Done | Self::Aborted | Self::FailedOver)
    }

    /// Whether it may still be given up.
    pub fn may_abort(self) -> bool {
        matches!(self, Self::Fencing | Self::Draining | Self::Settling)
    }

    /// Its name, as it is told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fencing => "fencing",
            Self::Draining => "draining",
            Self::Settling => "settling",
            Self::Promoted => "promoted",
            Self::Done => "done",
            Self::Aborting => "aborting",
            Self::Aborted => "aborted",
            Self::FailedOver => "failed-over",
        }
    }
}

/// Where a fenced partition ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceEnd {
    /// The offset after its last record, which is committed.
    pub end: i64,
    /// The partition's leader epoch there.
    pub leader_epoch: i32,
}

/// A flow that moves a region away from this cluster, as the source's metadata log has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionMove {
    /// The cluster that takes over.
    pub peer: String,
    /// Its id.
    pub peer_id: String,
    /// Which attempt.
    pub attempt: u64,
    /// How far it is.
    pub state: MoveState,
    /// The flow back; none if this attempt was released before it ever fenced.
    pub reverse: Option<FlowSpec>,
    /// The region epoch of a failover that this cluster gave way to; none for a switchover.
    #[serde(default)]
    pub region_epoch: Option<u64>,
    /// What a failback keeps of each topic.
    #[serde(default)]
    pub tails: BTreeMap<TopicId, Tails>,
}

/// How far a move is at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MoveState {
    /// Clients' writes are refused.
    Fenced,
    /// Group commits are refused too.
    GroupsFenced,
    /// Given up: everything is as it was.
    Released,
    /// The topics are mirrors of the other cluster's.
    Moved,
    /// Another cluster was promoted while this one was lost: clients' writes and commits are refused.
    GaveWay,
    /// As before, and what the other cluster never got is being copied.
    Rescuing,
    /// As before, and all of it is kept.
    Rescued,
}

impl MoveState {
    /// Whether topics are fenced and not yet mirrors.
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Released | Self::Moved)
    }

    /// Whether the word of a target that gave its attempt up would let clients write again.
    pub fn may_release(self) -> bool {
        matches!(self, Self::Fenced | Self::GroupsFenced)
    }

    /// Whether groups may not commit any more.
    pub fn fences_groups(self) -> bool {
        !matches!(self, Self::Fenced | Self::Released)
    }
}

/// That a topic's clients must not write here, because of this flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicFence {
    /// The flow that moves the topic away.
    pub flow: String,
    /// Whether groups may not commit on it either.
    pub groups: bool,
    /// Whether the other cluster's clients write it for good already.
    #[serde(default)]
    pub gone: bool,
}

/// One change of the metadata log about moving a region. Each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RegionCommand {
    /// Target: begins a switchover of an active flow.
    Begin {
        /// The flow.
        flow: String,
        /// Now, in ms since the epoch.
        at_ms: i64,
        /// [`Switchover::deadline_ms`].
        deadline_ms: i64,
        /// [`Switchover::group_drain_ms`].
        group_drain_ms: i64,
    },
    /// Target: the source has fenced this attempt and ends here.
    SourceFenced {
        /// The flow.
        flow: String,
        /// The attempt.
        attempt: u64,
        /// Now, in ms since the epoch.
        at_ms: i64,
        /// The region epoch of the source.
        region_epoch: u64,
        /// By topic id *here*, each with all its partitions.
        ends: BTreeMap<TopicId, Vec<SourceEnd>>,
    },
    /// Target: the source has fenced its groups.
    GroupsFenced {
        /// The flow.
        flow: String,
        /// The attempt.
        attempt: u64,
    },
    /// Target: the commit point. The topics are the clients' here.
    Promote {
        /// The flow.
        flow: String,
        /// The attempt.
        attempt: u64,
        /// Now, in ms since the epoch.
        at_ms: i64,
    },
    /// Target: gives the attempt up.
    Abort {
        /// The flow.
        flow: String,
        /// The attempt.
        attempt: u64,
        /// Now, in ms since the epoch.
        at_ms: i64,
        /// Why.
        reason: String,
    },
    /// Target: the source has done its part of what came of the attempt.
    End {
        /// The flow.
        flow: String,
        /// The attempt.
        attempt: u64,
    },
    /// Source: clients may not write these topics any more.
    Fence {
        /// The flow, by its name at the target.
        flow: String,
        /// The target's name.
        peer: String,
        /// The target's cluster id.
        peer_id: String,
        /// The attempt.
        attempt: u64,
        /// The topics.
        topics: Vec<TopicId>,
        /// The flow back.
        reverse: Box<FlowSpec>,
    },
    /// Source: where fenced partitions end; the first word stands.
    Ends(Vec<PartitionEnd>),
    /// Source: groups may not commit on the fenced topics any more.
    FenceGroups {
        /// The flow.
        flow: String,
        /// The target's cluster id.
        peer_id: String,
        /// The attempt.
        attempt: u64,
    },
    /// Source: the target has recorded that it gave the attempt up.
    Release {
        /// The flow.
        flow: String,
        /// The target's name.
        peer: String,
        /// The target's cluster id.
        peer_id: String,
        /// The attempt.
        attempt: u64,
    },
    /// Source: the target has promoted; the fenced topics become mirrors of these.
    Complete {
        /// The flow.
        flow: String,
        /// The target's cluster id.
        peer_id: String,
        /// The attempt.
        attempt: u64,
        /// The region epoch of the promotion.
        region_epoch: u64,
        /// What each topic (by its id here) is at the target.
        topics: BTreeMap<TopicId, MovedTopic>,
    },
    /// Source: a failover at the target has made these topics its clients', under this region epoch.
    GiveWay {
        /// The flow, by its name at the target.
        flow: String,
        /// The target's name.
        peer: String,
        /// The target's cluster id.
        peer_id: String,
        /// The attempt: [`crate::failback::Failback::attempt`].
        attempt: u64,
        /// The region epoch of the failover.
        region_epoch: u64,
        /// The topics. Those that do not exist here are passed over.
        topics: Vec<TopicId>,
        /// The flow back.
        reverse: Box<FlowSpec>,
    },
    /// Source: what the target never got is to be kept.
    Rescue {
        /// The flow.
        flow: String,
        /// The target's cluster id.
        peer_id: String,
        /// The attempt.
        attempt: u64,
        /// What the target has, by topic id here, each by partition; what is missing there is cut at 0.
        topics: BTreeMap<TopicId, Vec<History>>,
    },
    /// Source: a topic's leader has found a tail: there is to be a topic that keeps it.
    MakeRescue {
        /// The flow.
        flow: String,
        /// The attempt.
        attempt: u64,
        /// The topic.
        topic: TopicId,
        /// The id that the new topic gets, unless there is one already.
        id: TopicId,
    },
    /// Source: what one partition had above the cut is committed in the rescue topic; the first word stands.
    TailKept {
        /// The flow.
        flow: String,
        /// The attempt.
        attempt: u64,
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: i32,
        /// The leader epoch under which its leader says so.
        leader_epoch: i32,
        /// What was found and kept.
        kept: Kept,
    },
    /// Target: the source has given way to a failover.
    GaveWay {
        /// The flow.
        flow: String,
        /// The attempt.
        attempt: u64,
        /// Now, in ms since the epoch.
        at_ms: i64,
        /// As in [`RegionAnswer::GaveWay`].
        took_ms: i64,
        /// The topics that gave way, by id there.
        topics: Vec<TopicId>,
    },
    /// Target: an operator wants the source back as a mirror.
    BeginFailback {
        /// The flow.
        flow: String,
        /// Now, in ms since the epoch.
        at_ms: i64,
    },
    /// Target: the source has kept all that never arrived here. These positions are to come down.
    TailsKept {
        /// The flow.
        flow: String,
        /// The attempt.
        attempt: u64,
        /// What it kept, by topic id there.
        tails: BTreeMap<TopicId, Tails>,
        /// The first of the positions.
        lowered: Vec<LoweredPosition>,
        /// How many there are.
        lowered_total: u64,
    },
    /// Target: the source mirrors this cluster.
    FailbackDone {
        /// The flow.
        flow: String,
        /// The attempt.
        attempt: u64,
        /// Now, in ms since the epoch.
        at_ms: i64,
    },
    /// Source: what another cluster copies from here under the same names ([`crate::guard`]).
    Copied {
        /// That cluster.
        peer: String,
        /// What it copies; none: nothing any more.
        copied: Option<crate::guard::Copied>,
    },
    /// Source: an operator lets clients write, although these clusters have not answered since the cluster started.
    Unguard {
        /// Those clusters.
        peers: Vec<String>,
        /// Now, in ms since the epoch.
        at_ms: i64,
        /// Why, in the operator's words.
        reason: String,
    },
    /// Target: changes nothing. Whoever has proposed it knows all that was decided before.
    Attest,
    /// Target: a cluster that a flow comes from has told the region epoch that it has with this one. A failover begins
    /// above it.
    HeardEpoch {
        /// That cluster.
        source: String,
        /// Its region epoch; at most [`MAX_REGION_EPOCH`].
        region_epoch: u64,
    },
    /// Target: the source cannot give way to a failover under this region epoch, because its own is not below: the failover
    /// gets a higher one. It is the same failover: nothing else changes.
    RaiseEpoch {
        /// The flow.
        flow: String,
        /// The attempt.
        attempt: u64,
        /// The region epoch that was refused; if it is not the present one, nothing is raised.
        refused: u64,
        /// What the next one is above; at most [`MAX_REGION_EPOCH`].
        above: u64,
    },
}

/// Where one fenced partition ends, by its leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionEnd {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: i32,
    /// The leader epoch under which the leader found the end.
    pub leader_epoch: i32,
    /// The log end, all of it committed.
    pub end: i64,
}

/// A topic where it moved to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedTopic {
    /// Its name there.
    pub name: String,
    /// Its id there.
    pub id: TopicId,
}

/// What the target of a flow asks of its source, over a `region` stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionAsk {
    /// The flow as the target declares it.
    pub flow: FlowSpec,
    /// The target's cluster id.
    pub cluster_id: String,
    /// The attempt; 0 for [`RegionWish::Plan`] and [`RegionWish::Origins`].
    pub attempt: u64,
    /// What it wants.
    pub wish: RegionWish,
}

/// See [`RegionAsk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegionWish {
    /// To know whether it may fence these topics. Changes nothing.
    Plan(Vec<TopicId>),
    /// To know whether the asked cluster has taken topics over from the asker, and what it copies from there. The flow of
    /// the question is the one *back*: the asker is the source.
    Standing {
        /// Whether the answer must know of everything that was decided before the question, not only what the asked
        /// daemon happens to have applied.
        certain: bool,
        /// The region epoch that the asker has with the asked cluster; 0 from an earlier version. A failover there is to
        /// get a higher one.
        #[serde(default)]
        region_epoch: u64,
    },
    /// Fence the writes of these topics, and say where they end.
    Fence(Vec<TopicId>),
    /// Refuse group commits on them.
    FenceGroups,
    /// The final positions of the groups coordinated by the daemon that is asked.
    Positions,
    /// The attempt is given up, and that is recorded.
    Release,
    /// The attempt is promoted, and that is recorded, under this region epoch. What the topics are there.
    Complete {
        /// The region epoch of the promotion.
        region_epoch: u64,
        /// By topic id at the source.
        topics: BTreeMap<TopicId, MovedTopic>,
    },
    /// Clients of the target write these topics since a failover, under this region epoch: fence them.
    GiveWay {
        /// The region epoch of the failover.
        region_epoch: u64,
        /// The topics.
        topics: Vec<TopicId>,
    },
    /// To know whether a failback could begin. Changes nothing.
    PlanFailback,
    /// Keep what the target never got, by topic id at the source; and say how far that is.
    Rescue(BTreeMap<TopicId, Vec<History>>),
    /// Bring the positions of the groups coordinated by the daemon that is asked down to the cuts. Answered with
    /// [`RegionAnswer::Positions`], and no position in it.
    Lower,
    /// To know which topics are mirrors, and of what. Changes nothing.
    Origins,
}

/// What the source answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegionAnswer {
    /// It is so.
    Done,
    /// Where the asked cluster stands towards the asker.
    Standing {
        /// The region epoch that it has with the asker; a higher one than the asker's own: it has taken topics over.
        region_epoch: u64,
        /// What it copies from the asker under the same names.
        copied: Option<crate::guard::Copied>,
        /// Whether it has taken topics over from the asker by a failover to which the asker has not given way yet, as far as
        /// it knows, whatever the region epochs. None: it is of an earlier version, and the epochs alone say it.
        #[serde(default)]
        taken: Option<bool>,
        /// The asked cluster's id; empty from an earlier version.
        #[serde(default)]
        cluster_id: String,
    },
    /// The source does not give way to a failover whose region epoch is not above this.
    EpochTooLow(u64),
    /// Writes are fenced. Ends are known where the leaders have recorded them.
    Fenced {
        /// The region epoch so far.
        region_epoch: u64,
        /// By topic id there.
        ends: BTreeMap<TopicId, Vec<Option<SourceEnd>>>,
    },
    /// What the daemon knows of groups.
    Positions {
        /// How many partitions the groups are spread over in the cluster.
        of: i32,
        /// Those of them that this daemon has loaded since the groups were fenced.
        partitions: Vec<i32>,
        /// The positions on the fenced topics of the groups there.
        positions: Vec<GroupPosition>,
    },
    /// How far a rescue is, by topic id there.
    Rescued {
        /// Whether all of it is kept.
        done: bool,
        /// Each topic.
        tails: BTreeMap<TopicId, Tails>,
    },
    /// The source has given way.
    GaveWay {
        /// From when the question was read to when its Raft had committed the fence and this daemon had applied it, in ms.
        took_ms: i64,
        /// The topics that gave way, by id there.
        topics: Vec<TopicId>,
    },
    /// What each topic is that the daemon knows of, by its id there.
    Origins(BTreeMap<TopicId, Provenance>),
    /// Not now: ask again.
    NotYet(String),
    /// Never: a person has to change something.
    Refused(String),
}

/// A committed position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPosition {
    /// The group.
    pub group: String,
    /// The topic's name at the source.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The position.
    pub offset: i64,
    /// The group's own metadata.
    pub metadata: String,
}
