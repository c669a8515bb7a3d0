//! ElectLeaders (KIP-460): back to preferred leaders, or to any replica where none is left that has everything.

use tradewind_cluster::command::{Command, ElectionKind, MetaError, Outcome};
use tradewind_cluster::image::Image;
use tradewind_wire::codec::Str;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::messages::elect_leaders::{PartitionResult, ReplicaElectionResult, TopicPartitions};
use tradewind_wire::messages::{ElectLeadersRequest, ElectLeadersResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;

use super::limit;

/// How many elections one entry of the metadata log carries.
const AT_ONCE: usize = 1_000;

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let kind = match request.election_type {
        0 => ElectionKind::Preferred,
        1 => ElectionKind::Unclean,
        _ => return failed(ErrorCode::InvalidRequest),
    };
    let image = broker.cluster().image();
    // Of all partitions only those are told of that needed an election.
    let all = request.topic_partitions.is_none();
    let asked = request.topic_partitions.unwrap_or_else(|| everything(&image));
    let known: Vec<(TopicId, i32)> = asked
        .iter()
        .filter_map(|topic| Some((image.topic(&topic.topic)?, topic)))
        .flat_map(|(found, topic)| topic.partitions.iter().map(|number| (found.id, *number)))
        .collect();
    let mut elected = Vec::with_capacity(known.len());
    for some in known.chunks(AT_ONCE) {
        let command = Command::Elect {
            kind,
            partitions: some.to_vec(),
        };
        match broker.cluster().propose(command, limit(request.timeout_ms)).await {
            Ok(Outcome::Elected(results)) => elected.extend(results),
            Ok(_) => return failed(ErrorCode::UnknownServerError),
            Err(error) => return failed(errors::of_propose(&error).0),
        }
    }
    let mut elected = elected.into_iter();
    let mut replica_election_results = Vec::with_capacity(asked.len().min(1_000));
    for topic in asked {
        let exists = image.topic(&topic.topic).is_some();
        let results = topic.partitions.into_iter().map(|number| {
            let result = if exists { elected.next() } else { None };
            result_of(number, kind, result)
        });
        let needed = |result: &PartitionResult| result.error_code != ErrorCode::ElectionNotNeeded.code();
        let partition_result: Vec<_> = results.filter(|result| !all || needed(result)).collect();
        if !all || !partition_result.is_empty() {
            replica_election_results.push(ReplicaElectionResult {
                topic: topic.topic,
                partition_result,
            });
        }
    }
    ElectLeadersResponse {
        replica_election_results,
        ..Default::default()
    }
}

fn failed(error: ErrorCode) -> ElectLeadersResponse {
    ElectLeadersResponse {
        error_code: error.code(),
        ..Default::default()
    }
}

fn everything(image: &Image) -> Vec<TopicPartitions> {
    let of = |(name, id): (&String, &TopicId)| {
        let partitions = image.topic_by_id(*id)?.partitions.len();
        Some(TopicPartitions {
            topic: Str::from(name.as_str()),
            partitions: (0..).take(partitions).collect(),
        })
    };
    image.names.iter().filter_map(of).collect()
}

fn result_of(number: i32, kind: ElectionKind, result: Option<Result<NodeId, MetaError>>) -> PartitionResult {
    let (error, message) = match (result, kind) {
        (Some(Ok(_)), _) => (ErrorCode::None, None),
        (Some(Err(MetaError::ElectionNotNeeded)), _) => (
            ErrorCode::ElectionNotNeeded,
            Some("Leader election not needed for topic partition.".to_owned()),
        ),
        (Some(Err(MetaError::NoEligibleLeader)), ElectionKind::Preferred) => (
            ErrorCode::PreferredLeaderNotAvailable,
            Some("The preferred leader was not available.".to_owned()),
        ),
        (Some(Err(MetaError::NoEligibleLeader)), ElectionKind::Unclean) => (
            ErrorCode::EligibleLeadersNotAvailable,
            Some("Eligible topic partition leaders are not available.".to_owned()),
        ),
        (None | Some(Err(MetaError::UnknownTopic(_) | MetaError::UnknownPartition(_))), _) => (
            ErrorCode::UnknownTopicOrPartition,
            Some("This server does not host this topic-partition.".to_owned()),
        ),
        (Some(Err(other)), _) => (errors::of_meta(&other), Some(other.to_string())),
    };
    PartitionResult {
        partition_id: number,
        error_code: error.code(),
        error_message: message.map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_codes_of_the_kind_of_election() {
        let code = |kind, error| result_of(0, kind, Some(Err(error))).error_code;
        let (preferred, unclean) = (ElectionKind::Preferred, ElectionKind::Unclean);
        assert_eq!(code(preferred, MetaError::ElectionNotNeeded), 84);
        assert_eq!(code(unclean, MetaError::ElectionNotNeeded), 84);
        assert_eq!(code(preferred, MetaError::NoEligibleLeader), 80);
        assert_eq!(code(unclean, MetaError::NoEligibleLeader), 83);
        assert_eq!(code(preferred, MetaError::UnknownPartition(9)), 3);
        assert_eq!(result_of(0, preferred, None).error_code, 3);
        assert_eq!(result_of(0, preferred, Some(Ok(1))).error_code, 0);
    }
}
