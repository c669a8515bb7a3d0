//! DescribeTopicPartitions (KIP-966): topics page by page, with the replicas that could lead without loss.
//!
//! Topics come in the order of their names, so that a cursor still stands for a place when topics come and go.

use std::collections::BTreeSet;

use tradewind_cluster::image::{Image, Partition};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use tradewind_wire::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::topics;

/// How many partitions one page has at most (Kafka's `max.request.partition.size.limit`).
const MAX_PAGE: i32 = 2_000;

pub(crate) async fn handle(
    broker: &Broker,
    call: Call<'_>,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    page(&broker.cluster().image(), &call.connection.listener, &request)
}

fn page(
    image: &Image,
    listener: &str,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let cursor = request.cursor.as_ref();
    if cursor.is_some_and(|cursor| cursor.partition_index < 0) {
        return refused(request);
    }
    let (from_topic, from_partition) = cursor.map_or(("", 0), |cursor| {
        (cursor.topic_name.as_str(), cursor.partition_index)
    });
    let wanted: BTreeSet<&str> = if request.topics.is_empty() {
        image.names.keys().map(String::as_str).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.as_str()).collect()
    };
    let mut room = usize::try_from(request.response_partition_limit.clamp(1, MAX_PAGE)).unwrap_or(1);
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in wanted.range(from_topic..).copied() {
        if room == 0 {
            response.next_cursor = Some(at(name, 0));
            break;
        }
        let Some(topic) = image.topic(name) else {
            response.topics.push(failed(name, error_of(name)));
            continue;
        };
        let first = if name == from_topic { from_partition } else { 0 };
        let partitions: Vec<_> = (0..)
            .zip(&topic.partitions)
            .skip(usize::try_from(first).unwrap_or(usize::MAX))
            .take(room)
            .map(|(number, partition)| describe(image, number, partition, listener))
            .collect();
        room -= partitions.len();
        let next = partitions
            .last()
            .map_or(i32::MAX, |last| last.partition_index + 1);
        response.topics.push(DescribeTopicPartitionsResponseTopic {
            name: Some(topic.name.as_str().into()),
            topic_id: topic.id,
            is_internal: topic.internal,
            partitions,
            topic_authorized_operations: topics::TOPIC_OPERATIONS,
            ..Default::default()
        });
        if usize::try_from(next).is_ok_and(|next| next < topic.partitions.len()) {
            response.next_cursor = Some(at(name, next));
            break;
        }
    }
    response
}

fn at(topic: &str, partition: i32) -> Cursor {
    Cursor {
        topic_name: topic.into(),
        partition_index: partition,
    }
}

/// The answer to a request that makes no sense: there is only room for it beside each topic.
fn refused(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.iter();
    DescribeTopicPartitionsResponse {
        topics: topics
            .map(|topic| failed(&topic.name, ErrorCode::InvalidRequest))
            .collect(),
        ..Default::default()
    }
}

fn error_of(name: &str) -> ErrorCode {
    if topics::is_valid_name(name) {
        ErrorCode::UnknownTopicOrPartition
    } else {
        ErrorCode::InvalidTopicException
    }
}

fn failed(name: &str, error: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(name.into()),
        ..Default::default()
    }
}

fn describe(
    image: &Image,
    number: i32,
    partition: &Partition,
    listener: &str,
) -> DescribeTopicPartitionsResponsePartition {
    let (leader_id, error) = topics::leader(image, partition, listener);
    DescribeTopicPartitionsResponsePartition {
        error_code: error.code(),
        partition_index: number,
        leader_id,
        leader_epoch: partition.leader_epoch,
        replica_nodes: partition.replicas.clone(),
        isr_nodes: partition.isr.clone(),
        eligible_leader_replicas: Some(partition.eligible.clone()),
        last_known_elr: Some(Vec::new()),
        offline_replicas: topics::offline(image, partition, listener),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tradewind_cluster::image::Topic;
    use tradewind_wire::ids::TopicId;
    use tradewind_wire::messages::describe_topic_partitions::TopicRequest;

    use super::*;

    /// Topics `a` and `c` of three partitions, `b` of one.
    fn image() -> Image {
        let mut image = Image::default();
        for (number, name, partitions) in [(1, "a", 3), (2, "b", 1), (3, "c", 3)] {
            let id = TopicId([number; 16]);
            let topic = Topic {
                id,
                name: name.to_owned(),
                partitions: vec![Partition::default(); partitions],
                configs: Default::default(),
                mirror: None,
                internal: false,
                fence: None,
            };
            image.names.insert(name.to_owned(), id);
            image.topics.insert(id, Arc::new(topic));
        }
        image
    }

    /// Reads every page of `limit` partitions; answers topics and partitions of each.
    fn pages(topics: &[&str], limit: i32) -> Vec<Vec<(String, Vec<i32>)>> {
        let mut request = DescribeTopicPartitionsRequest {
            topics: topics
                .iter()
                .map(|name| TopicRequest { name: (*name).into() })
                .collect(),
            response_partition_limit: limit,
            cursor: None,
        };
        let mut pages = Vec::new();
        loop {
            let answer = page(&image(), "out", &request);
            let shown = answer.topics.iter().map(|topic| {
                let numbers = topic.partitions.iter().map(|partition| partition.partition_index);
                let name = topic.name.as_ref().unwrap().to_string();
                (name, numbers.collect())
            });
            pages.push(shown.collect());
            assert!(pages.len() < 20, "paging ends");
            match answer.next_cursor {
                Some(cursor) => request.cursor = Some(cursor),
                None => return pages,
            }
        }
    }

    fn row(name: &str, partitions: &[i32]) -> (String, Vec<i32>) {
        (name.to_owned(), partitions.to_vec())
    }

    #[test]
    fn every_partition_comes_once_whatever_the_size_of_a_page() {
        for limit in 1..10 {
            let all: Vec<_> = pages(&[], limit).concat();
            let partitions: Vec<_> = all
                .iter()
                .flat_map(|(name, numbers)| numbers.iter().map(move |number| (name.as_str(), *number)))
                .collect();
            let expected = [
                ("a", 0),
                ("a", 1),
                ("a", 2),
                ("b", 0),
                ("c", 0),
                ("c", 1),
                ("c", 2),
            ];
            assert_eq!(partitions, expected, "{limit} partitions per page");
        }
        assert_eq!(pages(&[], 4).len(), 2);
        assert_eq!(pages(&[], 2)[0], [row("a", &[0, 1])]);
        assert_eq!(pages(&[], 2)[1], [row("a", &[2]), row("b", &[0])]);
    }

    #[test]
    fn only_topics_that_are_asked_for_come_with_an_error_for_the_unknown() {
        assert_eq!(
            pages(&["c", "a", "nope"], 100),
            [[row("a", &[0, 1, 2]), row("c", &[0, 1, 2]), row("nope", &[])]]
        );
        let request = |name: &str| DescribeTopicPartitionsRequest {
            topics: vec![TopicRequest { name: name.into() }],
            ..Default::default()
        };
        let error = |name: &str| page(&image(), "out", &request(name)).topics[0].error_code;
        assert_eq!(error("nope"), ErrorCode::UnknownTopicOrPartition.code());
        assert_eq!(error("a b"), ErrorCode::InvalidTopicException.code());
    }

    #[test]
    fn a_cursor_before_the_first_partition_is_refused() {
        let request = DescribeTopicPartitionsRequest {
            topics: vec![TopicRequest { name: "a".into() }],
            cursor: Some(at("a", -1)),
            ..Default::default()
        };
        let answer = page(&image(), "out", &request);
        assert_eq!(answer.topics[0].error_code, ErrorCode::InvalidRequest.code());
        assert!(answer.topics[0].partitions.is_empty());
    }
}
