//! `verify`: whether what is here is what is at the source, batch by batch, while the flow runs.
//!
//! A [`Plan`] says up to where each partition is compared: what both sides had when the question came. Whoever asked has
//! the partitions compared piece by piece ([`Piece`]), each by the daemon that leads it here, at a pace of the asker's
//! choice; nothing is kept between two pieces. A piece goes: digests of the batches here, in ranges of a few MiB; the
//! source's digests of the same ranges, made there; batch by batch where the two differ. So a long line carries digests
//! unless something is wrong. A source that only answers Fetch is read instead.
//!
//! What either side has removed, or may have compacted, is not compared and is told. A difference is only told after both
//! sides were looked at again, and only above what they keep by then.

mod compare;

use serde::{Deserialize, Serialize};
use tradewind_wire::audit::AuditItem;
use tradewind_wire::flow::FlowSource;
use tradewind_wire::ids::NodeId;

use crate::board::Observation;
use crate::flow::Flow;
use crate::source::PartitionOf;
use crate::status::DaemonReport;
use crate::target::{TopicView, View};

pub(crate) use compare::compare;

/// What is to be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The flow.
    pub flow: String,
    /// When the source was looked at, in ms by the clock here.
    pub at_ms: i64,
    /// By topic and partition.
    pub partitions: Vec<PlannedPartition>,
}

/// One partition of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPartition {
    /// The topic's name here.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Up to where both sides had records: their lower high watermark.
    pub to: i64,
    /// Why it cannot be compared at all, if it cannot.
    pub refused: Option<String>,
}

/// Which offsets of a partition are to be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The flow.
    pub flow: String,
    /// The topic's name here.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub from: i64,
    /// The offset after the last.
    pub to: i64,
    /// Whether nothing below `from` is compared: a batch that reaches over it is then nobody's fault.
    pub first: bool,
}

/// What the comparison of a piece came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Compared up to here; the next piece begins there. Below the piece's end if that was too much for one answer.
    pub to: i64,
    /// Batches that are the same on both sides.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is not the same.
    pub differences: Vec<Stretch>,
    /// What was not compared.
    pub skipped: Vec<Stretch>,
}

/// Some offsets of a partition, and what there is to say of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// The first offset.
    pub from: i64,
    /// The offset after the last.
    pub to: i64,
    /// In words.
    pub what: String,
}

/// Why a flow cannot be verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// No such flow.
    #[error("no flow `{0}` into this cluster: `mirror status` names them")]
    UnknownFlow(String),
    /// It has no such topic.
    #[error("flow `{flow}` writes no topic `{topic}` here")]
    UnknownTopic {
        /// The flow.
        flow: String,
        /// The name that was given.
        topic: String,
    },
    /// The flow is failing over or promoted.
    #[error(
        "flow `{0}` was failed over: its topics are written here now and need not be what the source has"
    )]
    FailedOver(String),
    /// The source, or the daemon that leads the partition here, did not answer.
    #[error("{0}")]
    Unavailable(String),
}

/// The plan for these topics (all without any), by their names here or at the source.
pub(crate) fn plan(
    flow: &str,
    view: &View,
    topics: &[String],
    observation: &Observation,
    reports: &[DaemonReport],
) -> Result<Plan, VerifyError> {
    let bound: Vec<_> = view.topics_of(flow).collect();
    for topic in topics {
        let known = bound
            .iter()
            .any(|(here, binding)| here.name == *topic || binding.source_topic == *topic);
        if !known {
            return Err(VerifyError::UnknownTopic {
                flow: flow.to_owned(),
                topic: topic.clone(),
            });
        }
    }
    let wanted = |name: &str| {
        let binding = bound.iter().find(|(here, _)| here.name == name);
        topics.is_empty()
            || topics.iter().any(|topic| {
                topic == name || binding.is_some_and(|(_, binding)| binding.source_topic == *topic)
            })
    };
    let led = |name: &str, partition| {
        let all = reports.iter().flat_map(|report| &report.partitions);
        let of = all.filter(|report| report.topic == name && report.partition == partition);
        of.map(|report| report.high_watermark).max()
    };
    let observed = observation.partitions.iter().filter(|seen| wanted(&seen.here));
    let partitions = observed.map(|seen| {
        let here = led(&seen.here, seen.partition);
        PlannedPartition {
            topic: seen.here.clone(),
            partition: seen.partition,
            to: here.unwrap_or(0).min(seen.high_watermark),
            refused: match here {
                None => Some("nobody leads it here, or it is not mirrored yet".to_owned()),
                Some(here) if here > seen.high_watermark => Some(format!(
                    "{here} is the end here, {} at the source: its leader may be catching up",
                    seen.high_watermark
                )),
                Some(_) => None,
            },
        }
    });
    Ok(Plan {
        flow: flow.to_owned(),
        at_ms: observation.at_ms,
        partitions: partitions.collect(),
    })
}

/// A partition led here and what it is at the source.
pub(crate) struct Pair {
    pub(crate) here: std::sync::Arc<TopicView>,
    pub(crate) partition: i32,
    pub(crate) source: PartitionOf,
    pub(crate) leader: NodeId,
    /// Bytes that are compared in one piece, at most.
    pub(crate) budget: u64,
}

/// Finds the partition of a piece, if this daemon leads it.
pub(crate) async fn pair(flow: &Flow, piece: &Piece) -> Result<Pair, String> {
    let view = flow.target.view();
    let here = view
        .topics
        .get(&piece.topic)
        .cloned()
        .ok_or("its topic is gone here")?;
    let number = usize::try_from(piece.partition).map_err(|_| "no such partition")?;
    let leader = here.partitions.get(number).and_then(|partition| partition.leader);
    if leader != Some(flow.target.node_id()) {
        return Err("its leader here is moving".into());
    }
    let binding = here.mirror.clone().filter(|mirror| mirror.flow == flow.name);
    let binding = binding.ok_or("its topic is no mirror of this flow any more")?;
    let topics = flow.topics().await.map_err(|error| error.to_string())?;
    let there = topics.topics.get(&binding.source_topic);
    let there = there.ok_or("its topic is gone at the source")?;
    if there.id != binding.source_topic_id {
        return Err("its topic was created again at the source".into());
    }
    let leader = there
        .partitions
        .get(number)
        .and_then(|partition| partition.leader);
    Ok(Pair {
        here,
        partition: piece.partition,
        source: PartitionOf {
            topic: binding.source_topic,
            id: there.id,
            partition: piece.partition,
        },
        leader: leader.ok_or("it has no leader at the source")?,
        budget: match flow.spec.source {
            FlowSource::Mesh(_) => 64 << 20,
            FlowSource::Kafka(_) => 8 << 20,
        },
    })
}

/// Notes offsets; those that follow each other with the same words become one stretch.
fn note(stretches: &mut Vec<Stretch>, from: i64, to: i64, what: &str) {
    if from >= to {
        return;
    }
    match stretches.last_mut() {
        Some(last) if last.to >= from && last.what == what => last.to = last.to.max(to),
        _ => stretches.push(Stretch {
            from,
            to,
            what: what.to_owned(),
        }),
    }
}

/// Compares two lists of batches; what differs is noted. Answers how many are the same, and their bytes.
fn differences(here: &[AuditItem], there: &[AuditItem], into: &mut Vec<Stretch>) -> (u64, u64) {
    let (mut here, mut there) = (here.iter().peekable(), there.iter().peekable());
    let (mut same, mut bytes) = (0, 0);
    loop {
        match (here.peek(), there.peek()) {
            (None, None) => return (same, bytes),
            (Some(ours), theirs) if theirs.is_none_or(|theirs| ours.base < theirs.base) => {
                note(into, ours.base, ours.next, "here, but not at the source");
                here.next();
            }
            (ours, Some(theirs)) if ours.is_none_or(|ours| theirs.base < ours.base) => {
                note(into, theirs.base, theirs.next, "at the source, but not here");
                there.next();
            }
            (Some(ours), Some(theirs)) => {
                let what = match (ours.damaged, theirs.damaged) {
                    (true, false) => Some("damaged here: a CRC is not that of its records"),
                    (false, true) => Some("damaged at the source: a CRC is not that of its records"),
                    (true, true) => Some("damaged on both sides: a CRC is not that of its records"),
                    (false, false) if ours != theirs => Some("other batches here than at the source"),
                    (false, false) => None,
                };
                match what {
                    Some(what) => note(into, ours.base, ours.next.max(theirs.next), what),
                    None => {
                        same += 1;
                        bytes += u64::from(ours.bytes);
                    }
                }
                here.next();
                there.next();
            }
            // The first two arms take whatever has no partner.
            _ => return (same, bytes),
        }
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
