//! What is told to the outside about a failback: the JSON of `failback` and of its line in `mirror status`.

use serde::{Deserialize, Serialize};
use tradewind_wire::failback::{Failback, FailbackStep, Tails};
use tradewind_wire::ids::TopicId;

use crate::target::View;

/// How a failback stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailbackReport {
    /// `source->target`, as it was failed over.
    pub flow: String,
    /// `telling`, `gave-way`, `rescuing`, `lowering`, `done`.
    pub step: String,
    /// Whether the source is a mirror of this cluster.
    pub ended: bool,
    /// What it waits for; empty if nothing.
    pub reason: String,
    /// The region epoch of the failover.
    pub region_epoch: u64,
    /// How long the source took to give way once it was told, in ms: until its Raft had committed the fence. Null before.
    pub gave_way_took_ms: Option<i64>,
    /// From the command to the end, in ms. Null before the end.
    pub took_ms: Option<i64>,
    /// What the source kept, once all of it is kept.
    pub topics: Vec<KeptTopic>,
    /// Positions of groups that came down to a cut at the source: the first thousand.
    pub groups: Vec<LoweredGroup>,
    /// How many came down.
    pub groups_total: u64,
}

/// A topic that became a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTopic {
    /// Its name.
    pub topic: String,
    /// The topic at the source that keeps what lay above the cuts; null if nothing did.
    pub rescue: Option<String>,
    /// Its partitions.
    pub partitions: Vec<KeptPartition>,
}

/// One partition of [`KeptTopic`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPartition {
    /// The partition.
    pub partition: i32,
    /// Where the two sides part: the source has this cluster's records from here on.
    pub cut: i64,
    /// Where the source's log ended.
    pub end: i64,
    /// Records between, which this cluster never got: they are in the rescue topic, at the same offsets.
    pub records: u64,
    /// Bytes of their batches.
    pub bytes: u64,
    /// Whether the source copies all of the partition again, because its topic is compacted.
    pub anew: bool,
}

/// A position that came down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoweredGroup {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Where it stood at the source.
    pub before: i64,
    /// Where it stands: at the cut.
    pub after: i64,
}

impl FailbackReport {
    /// What the view says.
    pub(crate) fn of(view: &View, flow: &str, failback: &Failback, reason: Option<String>) -> Self {
        let topics = failback
            .tails
            .iter()
            .map(|(id, tails)| kept(view, flow, *id, tails));
        Self {
            flow: flow.to_owned(),
            step: failback.step.name().to_owned(),
            ended: failback.step == FailbackStep::Done,
            reason: reason.filter(|_| failback.step.is_open()).unwrap_or_default(),
            region_epoch: failback.region_epoch,
            gave_way_took_ms: failback.gave_way_took_ms,
            took_ms: failback
                .ended_ms
                .zip(failback.begun_ms)
                .map(|(ended, begun)| ended - begun),
            topics: topics.collect(),
            groups: failback
                .lowered
                .iter()
                .map(|lowered| LoweredGroup {
                    group: lowered.group.clone(),
                    topic: lowered.topic.clone(),
                    partition: lowered.partition,
                    before: lowered.before,
                    after: lowered.after,
                })
                .collect(),
            groups_total: failback.lowered_total,
        }
    }
}

fn kept(view: &View, flow: &str, there: TopicId, tails: &Tails) -> KeptTopic {
    let name = view
        .topics_of(flow)
        .find(|(_, bound)| bound.source_topic_id == there)
        .map(|(topic, _)| topic.name.clone());
    let partitions = (0..).zip(&tails.partitions).filter_map(|(partition, tail)| {
        let kept = tail.kept?;
        Some(KeptPartition {
            partition,
            cut: kept.cut,
            end: kept.end,
            records: kept.records,
            bytes: kept.bytes,
            anew: kept.removed_from().is_some_and(|from| from < kept.cut),
        })
    });
    KeptTopic {
        topic: name.unwrap_or_else(|| there.to_string()),
        rescue: tails.rescue.as_ref().map(|rescue| rescue.name.clone()),
        partitions: partitions.collect(),
    }
}

/// What is known of the source of a failed-over flow, in its status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailbackLine {
    /// As in [`FailbackReport::step`].
    pub step: String,
    /// When the source was known to have given way, in ms since the epoch.
    pub gave_way_ms: Option<i64>,
}

impl FailbackLine {
    pub(crate) fn of(failback: &Failback) -> Self {
        Self {
            step: failback.step.name().to_owned(),
            gave_way_ms: failback.gave_way_ms,
        }
    }
}

/// Why a failback did not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FailbackError {
    /// No such flow.
    #[error("no flow `{0}` into this cluster: `mirror status` names them")]
    UnknownFlow(String),
    /// It was never failed over.
    #[error("flow `{0}` has nothing to come back from: it was not failed over")]
    None(String),
    /// It is refused, and nothing has changed.
    #[error("flow `{flow}`: {reason}")]
    Refused {
        /// The flow.
        flow: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The metadata log did not answer; it may or may not have begun.
    #[error("flow `{0}`: no answer from the controller; repeat the command")]
    Unavailable(String),
}
