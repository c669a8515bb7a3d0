//! What daemons of the target cluster ask each other about flows, over [`Target::call`].
//!
//! An ask is a u32 length, that much JSON, and for [`Ask::Append`] and [`Ask::Keep`] the batches behind it; an answer is
//! JSON. Nobody waits for a daemon longer than the time that the caller names.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::join_all;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::region::GroupPosition;

use crate::board::PositionFacts;
use crate::drill::{PartitionRehearsed, RehearseAsk};
use crate::status::{AbortedTransaction, DaemonReport, PromotedPosition};
use crate::target::{CallError, StoredPosition, Target};
use crate::verify::{Compared, Piece};

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// High watermarks of the partitions of a flow led there.
    Watermarks {
        /// The flow.
        flow: String,
    },
    /// Everything known there of a flow; with `fresh`, after a new pass over the source's groups.
    Report {
        /// The flow.
        flow: String,
        /// Whether groups are to be asked for again first.
        fresh: bool,
    },
    /// After promotion: bring the groups coordinated there to their final positions.
    Finish {
        /// The flow.
        flow: String,
    },
    /// After promotion: the transactions that were aborted in the partitions led there, once their markers are committed.
    Aborted {
        /// The flow.
        flow: String,
    },
    /// How these partitions of a flow stand, as far as they are led there.
    Standings {
        /// The flow.
        flow: String,
        /// By the topic's id here.
        partitions: Vec<(TopicId, i32)>,
    },
    /// The stored positions of the groups coordinated there of which the flow has written some.
    Stored {
        /// The flow.
        flow: String,
    },
    /// Compare a piece of a partition led there with its source.
    Compare(Piece),
    /// Rehearse the promotion of a partition led there.
    Rehearse(RehearseAsk),
    /// A switchover settles groups: write the final positions of those coordinated there.
    Settle {
        /// The flow.
        flow: String,
        /// The attempt.
        attempt: u64,
        /// The positions of all groups.
        positions: Vec<GroupPosition>,
    },
    /// Append whole batches to a partition of a rescue topic led there, at their own offsets; none if none are given.
    /// Answered once they are committed, or not in time.
    Keep {
        /// The rescue topic.
        topic: TopicId,
        /// The partition.
        partition: i32,
        /// The log end that they follow.
        previous_end: i64,
    },
    /// The clusters that mirror from that daemon.
    Downstream,
    /// Append a finished batch of the mirror's own to a partition led there.
    Append {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: i32,
    },
}

/// (topic here, partition, high watermark).
pub(crate) type Watermark = (String, i32, i64);

/// How a partition stands, as its leader says: what a position of the source means on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) topic: TopicId,
    pub(crate) partition: i32,
    pub(crate) high_watermark: i64,
    /// Whether what is here was found to be the source's since its leader last looked at its log.
    pub(crate) compared: bool,
    /// Whether it was found not to be.
    pub(crate) diverged: bool,
}

/// What a daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Watermarks(Vec<Watermark>),
    Report(DaemonReport),
    Finished(Vec<PromotedPosition>),
    /// Aborted transactions, and the partitions (topic, number) that were looked at.
    Aborted(Vec<AbortedTransaction>, Vec<(String, i32)>),
    Standings(Vec<Standing>),
    /// By group.
    Stored(Vec<(String, StoredPosition)>),
    Compared(Compared),
    Rehearsed(Box<PartitionRehearsed>),
    /// The groups whose final positions are written, or are their own.
    Settled(Vec<String>),
    /// Where a partition of a rescue topic ends, and whether all of it is committed.
    KeptTo {
        end: i64,
        committed: bool,
    },
    Downstream(Vec<String>),
    Appended,
    /// It could not; for a person to read.
    Refused(String),
}

impl Ask {
    /// The request's bytes; `batch` is what [`Ask::Append`] or [`Ask::Keep`] carries.
    pub(crate) fn encode(&self, batch: &[u8]) -> Bytes {
        // Plain enums of strings and numbers always serialise.
        let head = serde_json::to_vec(self).unwrap_or_default();
        let mut out = BytesMut::with_capacity(4 + head.len() + batch.len());
        out.put_u32(head.len() as u32);
        out.put_slice(&head);
        out.put_slice(batch);
        out.freeze()
    }

    /// Reads a request; `None` if it is none.
    pub(crate) fn decode(mut request: Bytes) -> Option<(Self, Bytes)> {
        let length = request.try_get_u32().ok()? as usize;
        if length > request.len() {
            return None;
        }
        let head = request.split_to(length);
        Some((serde_json::from_slice(&head).ok()?, request))
    }
}

impl Answer {
    /// The answer's bytes.
    pub(crate) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// Asks one other daemon.
pub(crate) async fn ask(
    target: &dyn Target,
    node: NodeId,
    request: Bytes,
    timeout: Duration,
) -> Result<Answer, CallError> {
    let failed = |reason: String| CallError { node, reason };
    let answer = tokio::time::timeout(timeout, target.call(node, request, timeout))
        .await
        .map_err(|_| failed("no answer in time".into()))??;
    parse(&answer).ok_or_else(|| failed("an answer that is none".into()))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

/// Asks every other active daemon at once.
pub(crate) async fn ask_all(
    target: &Arc<dyn Target>,
    ask_: &Ask,
    timeout: Duration,
) -> Vec<(NodeId, Result<Answer, CallError>)> {
    let me = target.node_id();
    let request = ask_.encode(&[]);
    let others = target
        .view()
        .active_nodes
        .clone()
        .into_iter()
        .filter(move |node| *node != me);
    join_all(others.map(|node| {
        let request = request.clone();
        async move { (node, ask(target.as_ref(), node, request, timeout).await) }
    }))
    .await
}

/// Appends a batch of the mirror's own at the leader of a partition, wherever it is. Lost if the leader just moves: what is
/// written so (heartbeats, checkpoints) is written again.
pub(crate) async fn append_own(
    target: &Arc<dyn Target>,
    topic: &str,
    partition: i32,
    batch: Bytes,
) -> Result<(), String> {
    let view = target.view();
    let leader = view
        .topics
        .get(topic)
        .and_then(|topic| topic.partitions.get(usize::try_from(partition).ok()?))
        .and_then(|partition| partition.leader)
        .ok_or_else(|| format!("{topic} has no leader"))?;
    if leader == target.node_id() {
        return target
            .append_own(topic, partition, batch)
            .await
            .map_err(|error| error.to_string());
    }
    let request = Ask::Append {
        topic: topic.to_owned(),
        partition,
    };
    match ask(
        target.as_ref(),
        leader,
        request.encode(&batch),
        Duration::from_secs(2),
    )
    .await
    {
        Ok(Answer::Appended) => Ok(()),
        Ok(Answer::Refused(reason)) => Err(reason),
        Ok(_) => Err("an answer to something else".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// How a position is reported after a failover.
pub(crate) fn promoted(facts: &PositionFacts, status: &str) -> PromotedPosition {
    PromotedPosition {
        group: facts.group.clone(),
        topic: facts.topic.clone(),
        partition: facts.partition,
        offset: facts.offset,
        status: status.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ask_carries_its_batch_behind_it() {
        let ask = Ask::Append {
            topic: "heartbeats".into(),
            partition: 0,
        };
        let (decoded, rest) = Ask::decode(ask.encode(b"batch")).unwrap();
        assert_eq!((decoded, &rest[..]), (ask, &b"batch"[..]));
    }

    #[test]
    fn what_is_no_ask_is_none() {
        for bytes in [&b""[..], b"\0\0\0", b"\0\0\0\x09{}", b"\0\0\0\x02{}"] {
            assert_eq!(Ask::decode(Bytes::copy_from_slice(bytes)), None);
        }
    }
}
