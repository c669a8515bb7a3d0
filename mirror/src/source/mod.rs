//! The source of a flow: what is known about it and how its records come here.
//!
//! [`Source`] is what any Kafka can answer. Records come through a *link*, one per source broker, that serves every
//! partition led there and mirrored here: [`fetch`] asks with Fetch, [`push`] is pushed to by a Tradewind daemon. Both
//! only move bytes; what is done with them is decided by [`track::Track`], one per partition.
//!
//! ```text
//! link (one per source broker) -> Track (one per partition): match? gap? diverged? -> runs per source epoch
//!                                   -> lineage (metadata log) -> append (own log, offsets kept)
//! ```

pub mod batches;
pub mod fetch;
pub mod kafka;
pub mod mesh;
pub mod push;

pub mod track;
mod writer;

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use tradewind_wire::audit::{Audit, Auditor};
use tradewind_wire::flow::Provenance;
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::mesh::{Follow, Push};
use tradewind_wire::region::{RegionAnswer, RegionAsk};

/// A cluster that records and positions are copied from.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The cluster's id and every topic in it, asked now (never from a cache).
    async fn topics(&self) -> Result<SourceTopics, SourceError>;

    /// Configs of topics. Topics that are gone or refused are missing in the answer.
    async fn configs(&self, topics: &[String]) -> Result<BTreeMap<String, Vec<SourceConfig>>, SourceError>;

    /// Where partitions stand now. Partitions without a reachable leader are missing in the answer.
    async fn ends(
        &self,
        partitions: &[PartitionOf],
    ) -> Result<BTreeMap<PartitionOf, SourceEnds>, SourceError>;

    /// Where these epochs end, by OffsetForLeaderEpoch: one question to each leader. Partitions without a known leader are
    /// missing in the answer.
    async fn epoch_ends(
        &self,
        asked: &[(PartitionOf, i32)],
    ) -> Result<BTreeMap<PartitionOf, Result<Compared, SourceError>>, SourceError>;

    /// Every consumer group of the classic kind.
    async fn groups(&self) -> Result<Vec<String>, SourceError>;

    /// What groups have committed, or why the source does not tell it of one: that is not the others' trouble.
    async fn committed(&self, groups: &[String]) -> Result<BTreeMap<String, Told>, SourceError>;

    /// Reads partitions led by `node`, waiting up to `wait_ms` for the first byte. One answer per partition asked.
    async fn fetch(
        &self,
        node: NodeId,
        partitions: Vec<FetchFrom>,
        wait_ms: i32,
    ) -> Result<Vec<(PartitionOf, Fetched)>, SourceError>;

    /// Digests of what a partition led by `node` holds between `bounds`, with `items` of every batch. A Tradewind source
    /// makes them itself; any other is read.
    async fn audit(
        &self,
        node: NodeId,
        partition: &PartitionOf,
        bounds: Vec<i64>,
        items: bool,
    ) -> Result<Audit, SourceError> {
        audit_by_fetch(self, node, partition, bounds, items).await
    }

    /// What each of its topics is, by id; none if the source is none that says so. `ask` is a
    /// [`Origins`](tradewind_wire::region::RegionWish::Origins).
    async fn origins(&self, _ask: &RegionAsk) -> Result<Option<Origins>, SourceError> {
        Ok(None)
    }

    /// The daemons of the source, as far as they are known.
    fn nodes(&self) -> Vec<NodeId> {
        Vec::new()
    }

    /// Asks a daemon of the source, or any, about moving a region. Only a Tradewind source answers.
    async fn region(&self, node: Option<NodeId>, ask: &RegionAsk) -> Result<RegionAnswer, SourceError> {
        Err(SourceError::Refused {
            what: "moving a region",
            reason: format!(
                "{node:?} is no Tradewind daemon that {} could fence",
                ask.flow.name()
            ),
        })
    }

    /// Opens a stream on which `node` pushes what it leads. Only a Tradewind source does.
    async fn open_push(&self, node: NodeId) -> Result<Box<dyn PushStream>, SourceError> {
        Err(SourceError::Refused {
            what: "a mirror stream",
            reason: format!("broker {node} only answers Fetch"),
        })
    }
}

/// Bytes of one read for an audit.
const AUDIT_READ_BYTES: i32 = 4 << 20;
/// Reads without a record that an audit puts up with, where there should be some.
const AUDIT_EMPTY_READS: usize = 3;

/// [`Source::audit`] by Fetch.
async fn audit_by_fetch<S: Source + ?Sized>(
    source: &S,
    node: NodeId,
    partition: &PartitionOf,
    bounds: Vec<i64>,
    items: bool,
) -> Result<Audit, SourceError> {
    let refused = |reason: String| SourceError::Refused {
        what: "an audit's read",
        reason,
    };
    let asked = std::slice::from_ref(partition);
    let ends = source.ends(asked).await?.get(partition).copied();
    let ends = ends.ok_or_else(|| refused("its leader is moving".into()))?;
    let auditor = Auditor::new(bounds, items);
    let mut auditor = auditor.ok_or_else(|| refused("bounds that are no ranges".into()))?;
    auditor.nothing_below(ends.start);
    let mut empty = 0;
    while let Some(offset) = auditor.wants().filter(|from| *from < ends.high_watermark) {
        let read = FetchFrom {
            partition: partition.clone(),
            offset,
            max_bytes: AUDIT_READ_BYTES,
        };
        let answers = source.fetch(node, vec![read], 500).await?;
        let bytes = match answers.into_iter().next() {
            Some((_, Fetched::Records { bytes, .. })) => bytes,
            Some((_, Fetched::Refused(reason))) => return Err(refused(reason)),
            Some((_, Fetched::OutOfRange)) => return Err(refused(format!("{offset} is not there any more"))),
            _ => return Err(refused("its leader is moving".into())),
        };
        let moved = auditor.add(bytes).map_err(|error| refused(error.to_string()))?;
        if !moved {
            empty += 1;
            if empty == AUDIT_EMPTY_READS {
                auditor.nothing_below(ends.high_watermark);
            }
        }
    }
    let start = source
        .ends(asked)
        .await?
        .get(partition)
        .map_or(ends.start, |ends| ends.start);
    Ok(auditor.finish(start, ends.high_watermark, None))
}

/// What topics of a source are, by their ids there.
pub type Origins = BTreeMap<TopicId, Provenance>;

/// One stream of the push protocol, from the reader's side.
#[async_trait]
pub trait PushStream: Send {
    /// Sends a frame. After an error the stream is of no more use.
    async fn send(&mut self, frame: Follow) -> Result<(), SourceError>;

    /// The next frame. Cancel-safe. After an error the stream is of no more use.
    async fn recv(&mut self) -> Result<Push, SourceError>;
}

/// A partition at the source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionOf {
    /// The topic's name there.
    pub topic: String,
    /// The topic's id there; zero if the source knows none.
    pub id: TopicId,
    /// The partition.
    pub partition: i32,
}

/// The topics of a source at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceTopics {
    /// The cluster's id, as Metadata gives it.
    pub cluster_id: String,
    /// Its topics by name.
    pub topics: BTreeMap<String, SourceTopic>,
}

/// One topic of a source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceTopic {
    /// Its id; zero if the source knows none.
    pub id: TopicId,
    /// Whether the source calls it internal.
    pub internal: bool,
    /// Its partitions, by number.
    pub partitions: Vec<SourceLeader>,
    /// What the source says of where its records were first written.
    pub word: Word,
}

impl SourceTopic {
    /// Whether the source says that a flow writes it there.
    pub fn is_mirror(&self) -> bool {
        matches!(self.word, Word::Says(Provenance::Mirror(_)))
    }
}

/// What is known of where a source topic's records were first written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Word {
    /// The source is none that says so: only the topic's name can tell.
    #[default]
    Untold,
    /// The source would say, and has not yet.
    Awaited,
    /// It has said this.
    Says(Provenance),
}

/// Who leads a partition of the source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceLeader {
    /// The leader's node id, if there is one.
    pub leader: Option<NodeId>,
    /// Its epoch; -1 if the source does not say.
    pub epoch: i32,
}

/// A config of a source topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceConfig {
    /// Its name.
    pub name: String,
    /// Its value; `None` for secrets.
    pub value: Option<String>,
    /// Whether it is set on the topic itself, not inherited.
    pub own: bool,
}

/// Where a partition of the source stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceEnds {
    /// Its first kept offset.
    pub start: i64,
    /// Its high watermark.
    pub high_watermark: i64,
}

/// The answer of OffsetForLeaderEpoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest epoch there that is not above the asked one; -1 if the asked one is above all that it knows.
    pub epoch: i32,
    /// Where that epoch ends.
    pub end: i64,
}

/// An [`EpochEnd`], and who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// The answer.
    pub end: EpochEnd,
    /// The leader's own epoch, as it has confirmed; -1 if it was not asked under one.
    pub leader_epoch: i32,
}

/// What one group has committed, or why the source does not tell.
pub type Told = Result<Vec<Committed>, String>;

/// A committed position at the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The topic's name there.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The position.
    pub offset: i64,
    /// The group's own metadata.
    pub metadata: String,
}

/// From where a partition is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchFrom {
    /// The partition.
    pub partition: PartitionOf,
    /// The first wanted offset.
    pub offset: i64,
    /// Bytes wanted of it in one answer, at most; its first batch comes whole.
    pub max_bytes: i32,
}

/// What a read of one partition brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// Whole batches (the last may be cut) from the wanted offset or a little below it; possibly none.
    Records {
        /// Where the partition stands.
        ends: SourceEnds,
        /// The batches.
        bytes: Bytes,
    },
    /// The wanted offset lies outside the log.
    OutOfRange,
    /// The topic is gone, or another topic has its name.
    UnknownTopic,
    /// Not led there, or not ready; find the leader again.
    Elsewhere,
    /// The broker refuses.
    Refused(String),
    /// It was asked for, and is not in the answer; or only as another topic's.
    Missing,
}

/// Why a source did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Nobody there answers.
    #[error("source unreachable: {0}")]
    Unreachable(String),
    /// It answered with an error.
    #[error("source refused {what}: {reason}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Its answer.
        reason: String,
    },
}
