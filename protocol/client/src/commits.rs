//! What groups have committed: reading it, and writing it from within a group or from outside.

use std::collections::BTreeMap;

use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use tradewind_wire::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use tradewind_wire::messages::{OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse};

use crate::client::Client;
use crate::consumer::assignor::TopicPartition;
use crate::error::ClientError;
use crate::net::pool::Lane;

/// The first version of OffsetFetch that takes several groups.
const GROUPS_FROM: i16 = 8;

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
