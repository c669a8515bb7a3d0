//! OffsetFetch: reads a group's positions. While the coordinator loads, the answer is an error, never "none".

use tradewind_cluster::image::Image;
use tradewind_wire::codec::Str;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::offset_fetch::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use tradewind_wire::messages::{OffsetFetchRequest, OffsetFetchResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;
use crate::groups::Offsets;
use crate::groups::record::OffsetValue;

/// Topics with the partitions asked for; `None` for everything that the group has.
type Wanted = Option<Vec<(Str, Vec<i32>)>>;

pub(crate) async fn handle(
    broker: &Broker,
    call: Call<'_>,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    if call.version >= 8 {
        let each = request.groups.into_iter().map(|group| {
            let wanted: Wanted = group.topics.map(|topics| {
                topics
                    .into_iter()
                    .map(|topic| (topic.name, topic.partition_indexes))
                    .collect()
            });
            let member = (group.member_id.as_deref(), group.member_epoch);
            one_group(broker, group.group_id.clone(), member, wanted)
        });
        return OffsetFetchResponse {
            groups: each.collect(),
            ..Default::default()
        };
    }
    let wanted: Wanted = request.topics.map(|topics| {
        topics
            .into_iter()
            .map(|topic| (topic.name, topic.partition_indexes))
            .collect()
    });
    let group = one_group(broker, request.group_id, (None, -1), wanted.clone());
    single(call.version, group, wanted)
}

/// `member` is who asks, with its epoch; nobody and -1 if it is not said.
fn one_group(
    broker: &Broker,
    group_id: Str,
    (member_id, epoch): (Option<&str>, i32),
    wanted: Wanted,
) -> OffsetFetchResponseGroup {
    let coordinator = broker.coordinator();
    let checked = coordinator.consumer(&group_id, |group, _| group.check_fetch(member_id, epoch));
    let checked = checked.and_then(|checked| checked.unwrap_or(Ok(())));
    match checked.and_then(|()| coordinator.positions(&group_id, |offsets| read(offsets, &wanted))) {
        Ok(mut topics) => OffsetFetchResponseGroup {
            topics: {
                withhold(&broker.cluster().image(), &mut topics);
                topics
            },
            group_id,
            ..Default::default()
        },
        Err(error) => OffsetFetchResponseGroup {
            group_id,
            error_code: errors::of_group(error).code(),
            ..Default::default()
        },
    }
}

/// Positions on topics that a switchover is bringing here are not told before the last ones have come: who went on from
/// an earlier one would read again what it has committed at the source.
fn withhold(image: &Image, topics: &mut [OffsetFetchResponseTopics]) {
    let arriving = |name: &str| image.topic(name).is_some_and(|topic| image.is_arriving(topic));
    let withheld = topics.iter_mut().filter(|topic| arriving(&topic.name));
    for partition in withheld.flat_map(|topic| &mut topic.partitions) {
        partition.committed_offset = -1;
        partition.error_code = ErrorCode::UnstableOffsetCommit.code();
    }
}

fn read(offsets: Option<&Offsets>, wanted: &Wanted) -> Vec<OffsetFetchResponseTopics> {
    let Some(wanted) = wanted else { return all(offsets) };
    let of = |name: &Str, partitions: &[i32]| OffsetFetchResponseTopics {
        name: name.clone(),
        partitions: partitions
            .iter()
            .map(|partition| {
                position(
                    *partition,
                    offsets.and_then(|offsets| offsets.committed(name, *partition)),
                )
            })
            .collect(),
    };
    wanted
        .iter()
        .map(|(name, partitions)| of(name, partitions))
        .collect()
}

fn all(offsets: Option<&Offsets>) -> Vec<OffsetFetchResponseTopics> {
    let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
    for (topic, partition, value) in offsets.into_iter().flat_map(Offsets::iter) {
        if topics.last().is_none_or(|last| last.name != *topic) {
            topics.push(OffsetFetchResponseTopics {
                name: topic.into(),
                ..Default::default()
            });
        }
        if let Some(last) = topics.last_mut() {
            last.partitions.push(position(partition, Some(value)));
        }
    }
    topics
}

fn position(partition_index: i32, value: Option<&OffsetValue>) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: value.map_or(-1, |value| value.offset),
        committed_leader_epoch: value.map_or(-1, |value| value.leader_epoch),
        metadata: Some(value.map_or("", |value| value.metadata.as_str()).into()),
        error_code: ErrorCode::None.code(),
    }
}

/// The answer in the form of versions 1 to 7. Version 1 has no error for the group, so every partition gets it.
fn single(version: i16, group: OffsetFetchResponseGroup, wanted: Wanted) -> OffsetFetchResponse {
    if group.error_code != ErrorCode::None.code() && version < 2 {
        let failed = |partition_index: i32| OffsetFetchResponsePartition {
            partition_index,
            committed_offset: -1,
            metadata: Some("".into()),
            error_code: group.error_code,
            ..Default::default()
        };
        let topics =
            wanted
                .unwrap_or_default()
                .into_iter()
                .map(|(name, partitions)| OffsetFetchResponseTopic {
                    name,
                    partitions: partitions.into_iter().map(failed).collect(),
                });
        return OffsetFetchResponse {
            topics: topics.collect(),
            ..Default::default()
        };
    }
    let topics = group.topics.into_iter().map(|topic| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| OffsetFetchResponsePartition {
                partition_index: partition.partition_index,
                committed_offset: partition.committed_offset,
                committed_leader_epoch: partition.committed_leader_epoch,
                metadata: partition.metadata,
                error_code: partition.error_code,
            })
            .collect(),
    });
    OffsetFetchResponse {
        topics: topics.collect(),
        error_code: group.error_code,
        ..Default::default()
    }
}
