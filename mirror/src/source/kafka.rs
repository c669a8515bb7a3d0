//! A source that is asked in Kafka's protocol: any Kafka over TCP, a Tradewind cluster over QUIC.
//!
//! Thin: requests out, answers in, errors in this crate's words. Retries belong to the callers, who know what else to do
//! meanwhile; a call that fails here has failed once.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tradewind_client::admin::{ConfigEntry, ConfigResource};
use tradewind_client::{
    Client, ClientError, FetchLimits, FetchPosition, FetchedPartition, Isolation, Lane, OffsetSpec,
};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::NodeId;
use tradewind_wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use tradewind_wire::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use tradewind_wire::messages::{ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest};

use super::fetch::ANSWER_BYTES;
use super::{
    Committed, Compared, EpochEnd, FetchFrom, Fetched, PartitionOf, Source, SourceConfig, SourceEnds,
    SourceError, SourceLeader, SourceTopic, SourceTopics, Told, Word,
};

/// Groups asked about at once.
const CONCURRENT_GROUPS: usize = 16;
/// Topics per DescribeConfigs.
const CONFIG_TOPICS: usize = 500;

/// A source behind a [`Client`].
pub struct KafkaSource {
    client: Client,
}

impl KafkaSource {
    /// Asks with `client`, whose request timeout bounds every call but a fetch.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// One ListOffsets per leader; partitions that are refused are left out.
    async fn offsets(
        &self,
        by_leader: &BTreeMap<NodeId, Vec<&PartitionOf>>,
        spec: OffsetSpec,
    ) -> Result<BTreeMap<(String, i32), i64>, ClientError> {
        let timestamp = if spec == OffsetSpec::Earliest { -2 } else { -1 };
        let asked = by_leader.iter().map(|(node, partitions)| {
            let request = list_offsets(partitions, timestamp);
            async move { self.client.send(*node, request).await }
        });
        let mut found = BTreeMap::new();
        for answer in join_all(asked).await {
            collect(&mut found, answer?);
        }
        Ok(found)
    }
}

fn list_offsets(partitions: &[&PartitionOf], timestamp: i64) -> ListOffsetsRequest {
    let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for partition in partitions {
        topics
            .entry(&partition.topic)
            .or_default()
            .push(ListOffsetsPartition {
                partition_index: partition.partition,
                current_leader_epoch: -1,
                timestamp,
            });
    }
    let topic = |(name, partitions): (&str, _)| ListOffsetsTopic {
        name: name.into(),
        partitions,
    };
    ListOffsetsRequest {
        replica_id: -1,
        topics: topics.into_iter().map(topic).collect(),
        ..Default::default()
    }
}

/// What is asked for, in errors.
const EPOCH_END: &str = "an epoch's end";

/// The question where epochs end, under the leader epochs that the metadata name: (partition, epoch, leader epoch).
fn epochs_of(asked: &[(&PartitionOf, i32, i32)]) -> OffsetForLeaderEpochRequest {
    let mut topics: BTreeMap<&str, Vec<OffsetForLeaderPartition>> = BTreeMap::new();
    for (partition, epoch, current) in asked {
        topics
            .entry(&partition.topic)
            .or_default()
            .push(OffsetForLeaderPartition {
                partition: partition.partition,
                current_leader_epoch: *current,
                leader_epoch: *epoch,
            });
    }
    let topic = |(topic, partitions): (&str, _)| OffsetForLeaderTopic {
        topic: topic.into(),
        partitions,
    };
    OffsetForLeaderEpochRequest {
        // As an ordinary consumer.
        replica_id: -1,
        topics: topics.into_iter().map(topic).collect(),
    }
}

fn compared(told: &EpochEndOffset, leader_epoch: i32) -> Result<Compared, SourceError> {
    match ErrorCode::from_code(told.error_code) {
        ErrorCode::None if told.end_offset >= 0 => Ok(Compared {
            end: EpochEnd {
                epoch: told.leader_epoch,
                end: told.end_offset,
            },
            leader_epoch,
        }),
        ErrorCode::None => Ok(Compared {
            end: EpochEnd { epoch: -1, end: -1 },
            leader_epoch,
        }),
        code => Err(SourceError::Refused {
            what: EPOCH_END,
            reason: code.name().to_owned(),
        }),
    }
}

fn collect(found: &mut BTreeMap<(String, i32), i64>, answer: ListOffsetsResponse) {
    for topic in answer.topics {
        for partition in topic.partitions {
            if partition.error_code == 0 && partition.offset >= 0 {
                found.insert(
                    (topic.name.to_string(), partition.partition_index),
                    partition.offset,
                );
            }
        }
    }
}

/// Configs by key, by resource.
type Described = BTreeMap<ConfigResource, BTreeMap<String, ConfigEntry>>;

impl KafkaSource {
    /// The configs of those resources that the source tells them of: one that is refused hides no other.
    async fn configs_one_by_one(&self, resources: &[ConfigResource]) -> Result<Described, SourceError> {
        let mut all = Described::new();
        for resource in resources {
            match self.client.describe_configs(std::slice::from_ref(resource)).await {
                Ok(described) => all.extend(described),
                Err(error) if is_unreachable(&error) => return Err(refusal("topic configs", &error)),
                Err(error) => tracing::warn!(%resource, %error, "the source does not tell these configs"),
            }
        }
        Ok(all)
    }
}

#[async_trait]
impl Source for KafkaSource {
    async fn topics(&self) -> Result<SourceTopics, SourceError> {
        let metadata = self
            .client
            .metadata_of_all()
            .await
            .map_err(|error| refusal("its topics", &error))?;
        let mut topics = BTreeMap::new();
        for (name, topic) in &metadata.topics {
            // A topic that is being created may be named without partitions, or with some; the next look will know them.
            let numbered = topic.partitions.keys().zip(0..);
            let count = numbered.take_while(|(number, at)| *number == at).count();
            let count = i32::try_from(count).unwrap_or(i32::MAX);
            let leader = |number| {
                topic
                    .partitions
                    .get(&number)
                    .map_or_else(SourceLeader::default, |partition| SourceLeader {
                        leader: partition.leader,
                        epoch: partition.leader_epoch,
                    })
            };
            topics.insert(
                name.clone(),
                SourceTopic {
                    id: topic.id,
                    internal: topic.internal,
                    word: Word::Untold,
                    partitions: (0..count).map(leader).collect(),
                },
            );
        }
        Ok(SourceTopics {
            cluster_id: metadata.cluster_id.clone().unwrap_or_default(),
            topics,
        })
    }

    async fn configs(&self, topics: &[String]) -> Result<BTreeMap<String, Vec<SourceConfig>>, SourceError> {
        let mut found = BTreeMap::new();
        for some in topics.chunks(CONFIG_TOPICS) {
            let resources: Vec<_> = some.iter().cloned().map(ConfigResource::Topic).collect();
            let described = match self.client.describe_configs(&resources).await {
                Ok(described) => described,
                Err(error) if is_unreachable(&error) => return Err(refusal("topic configs", &error)),
                Err(_) => self.configs_one_by_one(&resources).await?,
            };
            for (resource, entries) in described {
                let ConfigResource::Topic(name) = resource else {
                    continue;
                };
                let config = |(name, entry): (String, ConfigEntry)| SourceConfig {
                    name,
                    own: entry.is_topics_own(),
                    value: entry.value,
                };
                found.insert(name, entries.into_iter().map(config).collect());
            }
        }
        Ok(found)
    }

    async fn ends(
        &self,
        partitions: &[PartitionOf],
    ) -> Result<BTreeMap<PartitionOf, SourceEnds>, SourceError> {
        let metadata = self.client.cached();
        let mut by_leader: BTreeMap<NodeId, Vec<&PartitionOf>> = BTreeMap::new();
        for partition in partitions {
            let topic = metadata.topics.get(&partition.topic);
            let leader = topic.and_then(|topic| topic.partitions.get(&partition.partition)?.leader);
            if let Some(leader) = leader {
                by_leader.entry(leader).or_default().push(partition);
            }
        }
        let (starts, ends) = futures::try_join!(
            self.offsets(&by_leader, OffsetSpec::Earliest),
            self.offsets(&by_leader, OffsetSpec::Latest)
        )
        .map_err(|error| refusal("offsets", &error))?;
        let known = partitions.iter().filter_map(|partition| {
            let key = (partition.topic.clone(), partition.partition);
            let ends = SourceEnds {
                start: *starts.get(&key)?,
                high_watermark: *ends.get(&key)?,
            };
            Some((partition.clone(), ends))
        });
        Ok(known.collect())
    }

    async fn epoch_ends(
        &self,
        asked: &[(PartitionOf, i32)],
    ) -> Result<BTreeMap<PartitionOf, Result<Compared, SourceError>>, SourceError> {
        let metadata = self.client.cached();
        let mut by_leader: BTreeMap<NodeId, Vec<(&PartitionOf, i32, i32)>> = BTreeMap::new();
        for (partition, epoch) in asked {
            let topic = metadata.topics.get(&partition.topic);
            let known = topic.and_then(|topic| topic.partitions.get(&partition.partition));
            if let Some((leader, current)) = known.and_then(|known| Some((known.leader?, known.leader_epoch)))
            {
                let of = by_leader.entry(leader).or_default();
                of.push((partition, *epoch, current));
            }
        }
        let asking = by_leader.into_iter().map(|(leader, asked)| async move {
            let answer = self.client.send(leader, epochs_of(&asked)).await;
            (asked, answer)
        });
        let mut found = BTreeMap::new();
        for (asked, answer) in join_all(asking).await {
            let answer = answer.map_err(|error| refusal(EPOCH_END, &error));
            let mut told = BTreeMap::new();
            for topic in answer.iter().flat_map(|answer| &answer.topics) {
                let of = |end: &EpochEndOffset| ((topic.topic.to_string(), end.partition), end.clone());
                told.extend(topic.partitions.iter().map(of));
            }
            for (partition, _, current) in asked {
                let end = match (&answer, told.get(&(partition.topic.clone(), partition.partition))) {
                    (Err(error), _) => Err(error.clone()),
                    (Ok(_), Some(end)) => compared(end, current),
                    (Ok(_), None) => continue,
                };
                found.insert(partition.clone(), end);
            }
        }
        Ok(found)
    }

    async fn groups(&self) -> Result<Vec<String>, SourceError> {
        let groups = self
            .client
            .list_groups()
            .await
            .map_err(|error| refusal("its groups", &error))?;
        // Groups that only keep offsets have no type; other types (Connect) do not keep their state in offsets.
        let classic = groups
            .into_iter()
            .filter(|group| matches!(group.protocol_type.as_str(), "" | "consumer"));
        Ok(classic.map(|group| group.group).collect())
    }

    async fn committed(&self, groups: &[String]) -> Result<BTreeMap<String, Told>, SourceError> {
        let mut found = BTreeMap::new();
        for some in groups.chunks(CONCURRENT_GROUPS) {
            let answers = join_all(some.iter().map(|group| self.client.offset_fetch(group, None))).await;
            for (group, answer) in some.iter().zip(answers) {
                let committed = match answer {
                    Ok(committed) => committed,
                    // One group's trouble (a right that is missing) is not the others'; a dead source is.
                    Err(error) if is_unreachable(&error) => return Err(refusal("group positions", &error)),
                    Err(error) => {
                        tracing::debug!(group, %error, "positions of a source's group not read");
                        let reason = error
                            .code()
                            .map_or_else(|| error.to_string(), |code| code.name().to_owned());
                        found.insert(group.clone(), Err(reason));
                        continue;
                    }
                };
                let positions = committed
                    .into_iter()
                    .map(|((topic, partition), committed)| Committed {
                        topic,
                        partition,
                        offset: committed.offset,
                        metadata: committed.metadata,
                    });
                found.insert(group.clone(), Ok(positions.collect()));
            }
        }
        Ok(found)
    }

    async fn fetch(
        &self,
        node: NodeId,
        partitions: Vec<FetchFrom>,
        wait_ms: i32,
    ) -> Result<Vec<(PartitionOf, Fetched)>, SourceError> {
        let positions: Vec<FetchPosition> = partitions
            .iter()
            .map(|from| FetchPosition {
                topic: from.partition.topic.clone(),
                topic_id: from.partition.id,
                partition: from.partition.partition,
                offset: from.offset,
                leader_epoch: -1,
                max_bytes: from.max_bytes,
            })
            .collect();
        let limits = FetchLimits {
            max_wait: Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0)),
            min_bytes: 1,
            max_bytes: ANSWER_BYTES,
            isolation: Isolation::ReadUncommitted,
        };
        let answers = self
            .client
            .fetch_from(node, Lane::Fetch, &positions, limits)
            .await;
        let answers = answers.map_err(|error| refusal("a fetch", &error))?;
        let by_name: BTreeMap<(&str, i32), &PartitionOf> = partitions
            .iter()
            .map(|from| {
                (
                    (from.partition.topic.as_str(), from.partition.partition),
                    &from.partition,
                )
            })
            .collect();
        let answered = answers.into_iter().filter_map(|answer| {
            let partition = *by_name.get(&(answer.topic.as_str(), answer.partition))?;
            Some((partition.clone(), fetched(answer)))
        });
        Ok(answered.collect())
    }
}

fn fetched(answer: FetchedPartition) -> Fetched {
    match answer.error {
        None => Fetched::Records {
            ends: SourceEnds {
                start: answer.log_start.max(0),
                high_watermark: answer.high_watermark,
            },
            bytes: answer.records,
        },
        Some(ErrorCode::OffsetOutOfRange) => Fetched::OutOfRange,
        Some(ErrorCode::UnknownTopicId | ErrorCode::InconsistentTopicId) => Fetched::UnknownTopic,
        Some(code) if code.is_retriable() => Fetched::Elsewhere,
        Some(code) => Fetched::Refused(code.name().to_owned()),
    }
}

fn is_unreachable(error: &ClientError) -> bool {
    !matches!(error, ClientError::Broker { .. })
}

fn refusal(what: &'static str, error: &ClientError) -> SourceError {
    if is_unreachable(error) {
        return SourceError::Unreachable(error.to_string());
    }
    SourceError::Refused {
        what,
        reason: error.to_string(),
    }
}
