//! Offsets: where partitions begin and end, where epochs end, and what groups have committed.

use std::collections::BTreeMap;

use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use tradewind_wire::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use tradewind_wire::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use tradewind_wire::messages::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use tradewind_wire::messages::{
    ListOffsetsRequest, OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse,
    OffsetForLeaderEpochRequest,
};

use crate::client::{ANY_VERSION, Client};
use crate::consumer::assignor::TopicPartition;
use crate::error::ClientError;
use crate::fetch::Isolation;
use crate::net::pool::Lane;

/// The first version of OffsetFetch that takes several groups.
const GROUPS_FROM: i16 = 8;

/// Which offset of a partition is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OffsetSpec {
    /// The first one.
    Earliest,
    /// The one after the last visible one.
    Latest,
    /// That of the record with the largest timestamp.
    MaxTimestamp,
    /// The first one whose record has this timestamp (ms since the epoch) or a later one.
    At(i64),
}

impl OffsetSpec {
    fn code(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::MaxTimestamp => -3,
            Self::At(timestamp) => timestamp,
        }
    }
}

/// An offset that a leader told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset.
    pub offset: i64,
    /// Its record's timestamp; -1 if none was asked for.
    pub timestamp: i64,
    /// The leader epoch of that offset; -1 if not told.
    pub leader_epoch: i32,
}

/// What a group has committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch of the last record read; -1 if not known.
    pub leader_epoch: i32,
    /// Whatever the committer wrote beside it.
    pub metadata: String,
}

/// An offset to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetToCommit {
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch of the last record read; -1 if not known.
    pub leader_epoch: i32,
    /// Whatever is to be kept beside it.
    pub metadata: String,
}

impl From<i64> for OffsetToCommit {
    fn from(offset: i64) -> Self {
        Self {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
        }
    }
}

impl Client {
    /// The offset that `spec` names in one partition, asked of its leader; `None` if there is no such record.
    pub async fn list_offset(
        &self,
        topic: &str,
        partition: i32,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<Option<ListedOffset>, ClientError> {
        self.retrying(|| async move {
            let listed = self.list_offset_once(topic, partition, spec, isolation).await;
            if let Err(error) = &listed {
                self.leader_moved(error, topic).await;
            }
            listed
        })
        .await
    }

    /// The offsets that `spec` names in several partitions, each asked of its leader, one request per leader and round.
    /// A partition without such a record is missing in the result.
    pub async fn list_offsets(
        &self,
        partitions: &[TopicPartition],
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<BTreeMap<TopicPartition, ListedOffset>, ClientError> {
        let asked = partitions.iter().map(|(topic, partition)| async move {
            let listed = self.list_offset(topic, *partition, spec, isolation).await?;
            Ok(listed.map(|listed| ((topic.clone(), *partition), listed)))
        });
        let answers = futures::future::join_all(asked).await;
        answers.into_iter().filter_map(Result::transpose).collect()
    }

    /// The largest epoch at the leader that is not above `epoch`, and where it ends there; `None` if there is none.
    pub async fn offset_for_leader_epoch(
        &self,
        topic: &str,
        partition: i32,
        epoch: i32,
    ) -> Result<Option<(i32, i64)>, ClientError> {
        self.retrying(|| async move {
            let answer = self.epoch_end_once(topic, partition, epoch).await;
            if let Err(error) = &answer {
                self.leader_moved(error, topic).await;
            }
            answer
        })
        .await
    }

    /// What `group` has committed: for these partitions, or for all (`None`). Partitions without a commit are missing.
    pub async fn offset_fetch(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        let limit = self.attempt_timeout();
        let build = |version| offset_fetch_request(group, partitions, version);
        let answer = self
            .at_coordinator(group, Lane::Short, limit, build, offset_fetch_code)
            .await?;
        match offset_fetch_code(&answer) {
            ErrorCode::None => committed(answer, group),
            code => Err(ClientError::broker(format!("offsets of {group}"), code, None)),
        }
    }

    /// Commits offsets for a group that has no members (as tools do).
    pub async fn offset_commit(
        &self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, OffsetToCommit>,
    ) -> Result<(), ClientError> {
        self.commit_as(group, "", None, -1, offsets).await
    }

    /// Commits offsets as a member of a generation.
    pub(crate) async fn commit_as(
        &self,
        group: &str,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        offsets: &BTreeMap<TopicPartition, OffsetToCommit>,
    ) -> Result<(), ClientError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let limit = self.attempt_timeout();
        let build = |version: i16| {
            let mut request = commit_request(group, member, generation, offsets);
            request.group_instance_id = instance.filter(|_| version >= 7).map(Into::into);
            request
        };
        let worst = |answer: &tradewind_wire::messages::OffsetCommitResponse| {
            let codes = answer
                .topics
                .iter()
                .flat_map(|topic| &topic.partitions)
                .map(|one| one.error_code);
            codes
                .map(ErrorCode::from_code)
                .find(|code| *code != ErrorCode::None)
                .unwrap_or(ErrorCode::None)
        };
        let answer = self
            .at_coordinator(group, Lane::Short, limit, build, worst)
            .await?;
        match worst(&answer) {
            ErrorCode::None => Ok(()),
            code => Err(ClientError::broker(format!("commit of {group}"), code, None)),
        }
    }

    async fn list_offset_once(
        &self,
        topic: &str,
        partition: i32,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<Option<ListedOffset>, ClientError> {
        let (node, epoch) = self.leader(topic, partition).await?;
        let asked = ListOffsetsPartition {
            partition_index: partition,
            current_leader_epoch: epoch,
            timestamp: spec.code(),
        };
        let build = |version: i16| ListOffsetsRequest {
            replica_id: -1,
            isolation_level: if version >= 2 { isolation.code() } else { 0 },
            topics: vec![ListOffsetsTopic {
                name: topic.into(),
                partitions: vec![asked],
            }],
            ..Default::default()
        };
        let limit = self.attempt_timeout();
        let answer = self
            .send_built(node, Lane::Short, limit, ANY_VERSION, build)
            .await?;
        let told = answer
            .topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .next();
        let what = || format!("offsets of {topic}-{partition}");
        let told = told.ok_or_else(|| ClientError::Missing { what: what() })?;
        match ErrorCode::from_code(told.error_code) {
            ErrorCode::None => Ok((told.offset >= 0).then_some(ListedOffset {
                offset: told.offset,
                timestamp: told.timestamp,
                leader_epoch: told.leader_epoch,
            })),
            code => Err(ClientError::broker(what(), code, None)),
        }
    }

    async fn epoch_end_once(
        &self,
        topic: &str,
        partition: i32,
        epoch: i32,
    ) -> Result<Option<(i32, i64)>, ClientError> {
        let (node, current) = self.leader(topic, partition).await?;
        let asked = OffsetForLeaderPartition {
            partition,
            current_leader_epoch: current,
            leader_epoch: epoch,
        };
        let build = |_| OffsetForLeaderEpochRequest {
            // As an ordinary consumer.
            replica_id: -1,
            topics: vec![OffsetForLeaderTopic {
                topic: topic.into(),
                partitions: vec![asked],
            }],
        };
        let limit = self.attempt_timeout();
        let answer = self
            .send_built(node, Lane::Short, limit, ANY_VERSION, build)
            .await?;
        let told = answer
            .topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .next();
        let what = || format!("epochs of {topic}-{partition}");
        let told = told.ok_or_else(|| ClientError::Missing { what: what() })?;
        match ErrorCode::from_code(told.error_code) {
            ErrorCode::None => Ok((told.end_offset >= 0).then_some((told.leader_epoch, told.end_offset))),
            code => Err(ClientError::broker(what(), code, None)),
        }
    }
}

fn by_topic(partitions: &[TopicPartition]) -> BTreeMap<&str, Vec<i32>> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    topics
}

fn offset_fetch_request(
    group: &str,
    partitions: Option<&[TopicPartition]>,
    version: i16,
) -> OffsetFetchRequest {
    let topics = partitions.map(by_topic);
    if version < GROUPS_FROM {
        let topic = |(name, partition_indexes): (&str, _)| OffsetFetchRequestTopic {
            name: name.into(),
            partition_indexes,
        };
        return OffsetFetchRequest {
            group_id: group.into(),
            topics: topics.map(|topics| topics.into_iter().map(topic).collect()),
            ..Default::default()
        };
    }
    let topic = |(name, partition_indexes): (&str, _)| OffsetFetchRequestTopics {
        name: name.into(),
        partition_indexes,
    };
    OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.into(),
            topics: topics.map(|topics| topics.into_iter().map(topic).collect()),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn offset_fetch_code(answer: &OffsetFetchResponse) -> ErrorCode {
    let code = answer
        .groups
        .first()
        .map_or(answer.error_code, |group| group.error_code);
    ErrorCode::from_code(code)
}

/// The commits in an answer of any version. An error of one partition is an error of the whole, never "no commit".
fn committed(
    answer: OffsetFetchResponse,
    group: &str,
) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
    let old = answer.topics.into_iter().flat_map(|topic| {
        let name = topic.name.to_string();
        topic.partitions.into_iter().map(move |one| {
            let commit = (one.committed_offset, one.committed_leader_epoch, one.metadata);
            ((name.clone(), one.partition_index), one.error_code, commit)
        })
    });
    let new = answer
        .groups
        .into_iter()
        .flat_map(|group| group.topics)
        .flat_map(|topic| {
            let name = topic.name.to_string();
            topic.partitions.into_iter().map(move |one| {
                let commit = (one.committed_offset, one.committed_leader_epoch, one.metadata);
                ((name.clone(), one.partition_index), one.error_code, commit)
            })
        });
    let mut commits = BTreeMap::new();
    for (partition, code, (offset, leader_epoch, metadata)) in old.chain(new) {
        match ErrorCode::from_code(code) {
            ErrorCode::None if offset < 0 => {}
            ErrorCode::None => {
                let metadata = metadata.as_deref().unwrap_or_default().to_owned();
                commits.insert(
                    partition,
                    CommittedOffset {
                        offset,
                        leader_epoch,
                        metadata,
                    },
                );
            }
            code => return Err(ClientError::broker(format!("offsets of {group}"), code, None)),
        }
    }
    Ok(commits)
}

fn commit_request(
    group: &str,
    member: &str,
    generation: i32,
    offsets: &BTreeMap<TopicPartition, OffsetToCommit>,
) -> OffsetCommitRequest {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for ((topic, partition), commit) in offsets {
        topics
            .entry(topic)
            .or_default()
            .push(OffsetCommitRequestPartition {
                partition_index: *partition,
                committed_offset: commit.offset,
                committed_leader_epoch: commit.leader_epoch,
                committed_metadata: Some((&commit.metadata).into()),
            });
    }
    let topic = |(name, partitions): (&str, _)| OffsetCommitRequestTopic {
        name: name.into(),
        partitions,
    };
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: generation,
        member_id: member.into(),
        topics: topics.into_iter().map(topic).collect(),
        ..Default::default()
    }
}
