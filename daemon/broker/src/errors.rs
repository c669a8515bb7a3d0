//! The one place that says which Kafka code stands for which of our errors.
//!
//! A code tells a client what to do next, so a choice here is a choice of behaviour: retry, look the leader up again, give
//! up, or throw. Where Kafka's own choice is known to matter, the reason stands beside it.

use tradewind_cluster::command::MetaError;
use tradewind_cluster::metadata::ProposeError;
use tradewind_cluster::replica::{CommitError, ReplicaError};
use tradewind_log::{AppendError, SequenceError};
use tradewind_wire::batch::InvalidBatch;
use tradewind_wire::error::ErrorCode;

use crate::groups::GroupError;

/// For a refusal of the group coordinator.
pub(crate) fn of_group(error: GroupError) -> ErrorCode {
    match error {
        GroupError::UnknownMember => ErrorCode::UnknownMemberId,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::FencedInstance => ErrorCode::FencedInstanceId,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupError::GroupFull => ErrorCode::GroupMaxSizeReached,
        GroupError::InvalidGroup => ErrorCode::InvalidGroupId,
        GroupError::GroupNotFound => ErrorCode::GroupIdNotFound,
        GroupError::NotEmpty => ErrorCode::NonEmptyGroup,
        GroupError::FencedEpoch => ErrorCode::FencedMemberEpoch,
        GroupError::StaleEpoch => ErrorCode::StaleMemberEpoch,
        GroupError::UnreleasedInstance => ErrorCode::UnreleasedInstanceId,
        GroupError::UnsupportedAssignor => ErrorCode::UnsupportedAssignor,
        GroupError::InvalidRegex => ErrorCode::InvalidRegularExpression,
        GroupError::InvalidRequest => ErrorCode::InvalidRequest,
        GroupError::UnsupportedVersion => ErrorCode::UnsupportedVersion,
        GroupError::SubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupError::MetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
        GroupError::NotCoordinator => ErrorCode::NotCoordinator,
        GroupError::Loading => ErrorCode::CoordinatorLoadInProgress,
        GroupError::Unavailable => ErrorCode::CoordinatorNotAvailable,
    }
}

/// A code, or none, of a result of the group coordinator.
pub(crate) fn of_group_result<T>(result: &Result<T, GroupError>) -> ErrorCode {
    result
        .as_ref()
        .err()
        .map_or(ErrorCode::None, |error| of_group(*error))
}

/// For a replica that does not append or read.
pub(crate) fn of_replica(error: &ReplicaError) -> ErrorCode {
    match error {
        // Who leads is another cluster's daemon: clients look for it, and keep what they could not send.
        ReplicaError::NotLeader { .. } | ReplicaError::WritesFenced => ErrorCode::NotLeaderOrFollower,
        ReplicaError::FencedEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        ReplicaError::UnknownEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        ReplicaError::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        ReplicaError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReplicaError::Append(error) => of_append(error),
        ReplicaError::Read(_) | ReplicaError::Truncate(_) | ReplicaError::Storage { .. } => {
            ErrorCode::KafkaStorageError
        }
        _ => ErrorCode::UnknownServerError,
    }
}

/// For a log that refuses a batch.
pub(crate) fn of_append(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        AppendError::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
        AppendError::Malformed { .. } => ErrorCode::InvalidRecord,
        AppendError::Batch(_) => ErrorCode::CorruptMessage,
        AppendError::StaleEpoch { .. } => ErrorCode::NotLeaderOrFollower,
        // A batch older than those that are remembered may never have been appended: Kafka does not call it a duplicate.
        AppendError::Sequence(SequenceError::OutOfOrder { .. } | SequenceError::TooOld { .. }) => {
            ErrorCode::OutOfOrderSequenceNumber
        }
        AppendError::Sequence(SequenceError::StaleEpoch { .. }) => ErrorCode::InvalidProducerEpoch,
        _ => ErrorCode::KafkaStorageError,
    }
}

/// For an append that is not known to be committed.
pub(crate) fn of_commit(error: CommitError) -> ErrorCode {
    match error {
        CommitError::TimedOut => ErrorCode::RequestTimedOut,
        CommitError::NotEnoughReplicasAfterAppend => ErrorCode::NotEnoughReplicasAfterAppend,
        CommitError::NotLeader => ErrorCode::NotLeaderOrFollower,
    }
}

/// For a client's batch that breaks a rule.
pub(crate) fn of_batch(error: &InvalidBatch) -> ErrorCode {
    match error {
        InvalidBatch::Corrupt(_) => ErrorCode::CorruptMessage,
        error if error.is_about_time() => ErrorCode::InvalidTimestamp,
        InvalidBatch::UnknownCodec { .. } => ErrorCode::UnsupportedCompressionType,
        InvalidBatch::TooLarge { .. } => ErrorCode::MessageTooLarge,
        _ => ErrorCode::InvalidRecord,
    }
}

/// For a change of metadata that did not happen, with a message for people.
pub(crate) fn of_propose(error: &ProposeError) -> (ErrorCode, String) {
    let code = match error {
        ProposeError::Refused(refused) => of_meta(refused),
        ProposeError::Timeout => ErrorCode::RequestTimedOut,
        // Retriable, and makes clients ask another daemon.
        ProposeError::NoController | ProposeError::Stopped => ErrorCode::NotController,
        _ => ErrorCode::UnknownServerError,
    };
    (code, error.to_string())
}

/// For a refusal of the metadata.
pub(crate) fn of_meta(error: &MetaError) -> ErrorCode {
    match error {
        MetaError::TopicExists(_) => ErrorCode::TopicAlreadyExists,
        MetaError::UnknownTopic(_) | MetaError::UnknownPartition(_) => ErrorCode::UnknownTopicOrPartition,
        MetaError::InvalidTopic(_) => ErrorCode::InvalidTopicException,
        MetaError::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
        MetaError::InvalidReplicationFactor(_) => ErrorCode::InvalidReplicationFactor,
        MetaError::InvalidAssignment(_) => ErrorCode::InvalidReplicaAssignment,
        MetaError::InvalidConfig(_) => ErrorCode::InvalidConfig,
        MetaError::NoReassignment => ErrorCode::NoReassignmentInProgress,
        MetaError::ElectionNotNeeded => ErrorCode::ElectionNotNeeded,
        MetaError::NoEligibleLeader => ErrorCode::EligibleLeadersNotAvailable,
        MetaError::UnknownNode(_) => ErrorCode::BrokerNotAvailable,
        MetaError::MirrorTopic { .. } | MetaError::FencedTopic { .. } => ErrorCode::PolicyViolation,
        MetaError::TooMany { .. } => ErrorCode::PolicyViolation,
        MetaError::ProducerIdsExhausted => ErrorCode::CoordinatorNotAvailable,
        _ => ErrorCode::UnknownServerError,
    }
}
