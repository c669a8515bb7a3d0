//! [`ErrorCode`]: the error codes of Kafka's protocol.
//!
//! Only the codes. What error of ours becomes which of them is decided in the broker, in one place.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $kafka:literal $(, $retriable:ident)?;)*) => {
        /// What a response says went wrong. The numbers are part of the protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* #[doc = concat!("\n\n`", $kafka, "`, ", $code, $(", ", stringify!($retriable),)? ".")] $name = $code,)*
        }

        impl ErrorCode {
            /// Every code there is, in rising order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The error of this number. One that is not known is [`UnknownServerError`](Self::UnknownServerError), as
            /// it is to Kafka's own client.
            pub const fn from_code(code: i16) -> Self {
                match code {
                    $($code => Self::$name,)*
                    _ => Self::UnknownServerError,
                }
            }

            /// Kafka's name for it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $kafka,)*
                }
            }

            /// Whether the same request may well succeed later, perhaps sent to another broker.
            pub const fn is_retriable(self) -> bool {
                match self {
                    $(Self::$name => codes!(@ $($retriable)?),)*
                }
            }
        }
    };
    (@ retriable) => { true };
    (@) => { false };
}

codes! {
    /// Something went wrong that no other code says.
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR";
    /// All is well.
    None = 0, "NONE";
    /// The offset is below the partition's first or beyond its last.
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE";
    /// A batch's checksum does not match, or it is otherwise broken.
    CorruptMessage = 2, "CORRUPT_MESSAGE", retriable;
    /// There is no such topic or partition here.
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION", retriable;
    /// The number of bytes to fetch makes no sense.
    InvalidFetchSize = 4, "INVALID_FETCH_SIZE";
    /// The partition has no leader at the moment.
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE", retriable;
    /// This broker does not lead the partition, or has no replica of it.
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER", retriable;
    /// The request was not done within its time.
    RequestTimedOut = 7, "REQUEST_TIMED_OUT", retriable;
    /// The broker is not there.
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE";
    /// The replica is not there.
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE", retriable;
    /// A batch is larger than the topic allows.
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE";
    /// The controller that sent this has been replaced.
    StaleControllerEpoch = 11, "STALE_CONTROLLER_EPOCH";
    /// The note on a committed offset is longer than allowed.
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE";
    /// The connection broke before an answer came; clients use it among themselves.
    NetworkException = 13, "NETWORK_EXCEPTION", retriable;
    /// The coordinator is still loading what it has to know.
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS", retriable;
    /// There is no coordinator at the moment.
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE", retriable;
    /// This broker is not the coordinator.
    NotCoordinator = 16, "NOT_COORDINATOR", retriable;
    /// The topic's name is not allowed.
    InvalidTopicException = 17, "INVALID_TOPIC_EXCEPTION";
    /// The batches of one request are larger than a segment.
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE";
    /// The in-sync set is smaller than the topic demands; nothing was appended.
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS", retriable;
    /// The in-sync set became smaller than the topic demands after the records were appended.
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", retriable;
    /// The number of acknowledgements is none of -1, 0 and 1.
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS";
    /// The generation is not the group's current one.
    IllegalGeneration = 22, "ILLEGAL_GENERATION";
    /// The member's protocols have nothing in common with the group's.
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL";
    /// The group's id is not allowed.
    InvalidGroupId = 24, "INVALID_GROUP_ID";
    /// The coordinator knows no such member.
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID";
    /// The session timeout is outside of the broker's bounds.
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT";
    /// The group is rebalancing: the member has to join again.
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS";
    /// The committed offsets are too large to be stored.
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE";
    /// The client may not do this with the topic.
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED";
    /// The client may not do this with the group.
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED";
    /// The client may not do this with the cluster.
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED";
    /// A record's timestamp is outside of what the topic allows.
    InvalidTimestamp = 32, "INVALID_TIMESTAMP";
    /// The broker does not have the SASL mechanism.
    UnsupportedSaslMechanism = 33, "UNSUPPORTED_SASL_MECHANISM";
    /// The request does not fit the state of authentication.
    IllegalSaslState = 34, "ILLEGAL_SASL_STATE";
    /// The broker does not know the request's version.
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION";
    /// There is a topic of that name already.
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS";
    /// The number of partitions makes no sense.
    InvalidPartitions = 37, "INVALID_PARTITIONS";
    /// The number of replicas makes no sense, or there are too few brokers for it.
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR";
    /// The placement of replicas makes no sense.
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT";
    /// A configuration key or value is not allowed.
    InvalidConfig = 40, "INVALID_CONFIG";
    /// This broker is not the controller.
    NotController = 41, "NOT_CONTROLLER", retriable;
    /// The request contradicts itself, or something about it is not allowed.
    InvalidRequest = 42, "INVALID_REQUEST";
    /// The topic's record format cannot do this.
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT";
    /// A policy of the broker forbids it.
    PolicyViolation = 44, "POLICY_VIOLATION";
    /// A producer's batch is not the next one expected.
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER";
    /// A producer's batch was appended before.
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER";
    /// A producer of a newer epoch has taken over.
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH";
    /// The transaction is in a state that does not allow this.
    InvalidTxnState = 48, "INVALID_TXN_STATE";
    /// The producer id is not the transactional id's.
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING";
    /// The transaction timeout is longer than the broker allows.
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT";
    /// An earlier request for the transaction is not done yet.
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS", retriable;
    /// The transaction coordinator that sent this has been replaced.
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED";
    /// The client may not use the transactional id.
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED";
    /// The broker does without this kind of security.
    SecurityDisabled = 54, "SECURITY_DISABLED";
    /// The broker did not try, because something before it failed.
    OperationNotAttempted = 55, "OPERATION_NOT_ATTEMPTED";
    /// The disk failed.
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR", retriable;
    /// There is no such log directory.
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND";
    /// The client's credentials are not right.
    SaslAuthenticationFailed = 58, "SASL_AUTHENTICATION_FAILED";
    /// The broker remembers nothing of the producer.
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID";
    /// The partition's replicas are being moved already.
    ReassignmentInProgress = 60, "REASSIGNMENT_IN_PROGRESS";
    /// Delegation tokens are not enabled.
    DelegationTokenAuthDisabled = 61, "DELEGATION_TOKEN_AUTH_DISABLED";
    /// There is no such delegation token.
    DelegationTokenNotFound = 62, "DELEGATION_TOKEN_NOT_FOUND";
    /// The delegation token is somebody else's.
    DelegationTokenOwnerMismatch = 63, "DELEGATION_TOKEN_OWNER_MISMATCH";
    /// Delegation tokens cannot be asked for on this connection.
    DelegationTokenRequestNotAllowed = 64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED";
    /// The client may not use the delegation token.
    DelegationTokenAuthorizationFailed = 65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED";
    /// The delegation token is too old.
    DelegationTokenExpired = 66, "DELEGATION_TOKEN_EXPIRED";
    /// The kind of principal is not allowed.
    InvalidPrincipalType = 67, "INVALID_PRINCIPAL_TYPE";
    /// The group still has members.
    NonEmptyGroup = 68, "NON_EMPTY_GROUP";
    /// There is no such group.
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND";
    /// There is no such fetch session.
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND", retriable;
    /// The request is not the next one of its fetch session.
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH", retriable;
    /// The leader has no listener of the name that this connection came in by.
    ListenerNotFound = 72, "LISTENER_NOT_FOUND", retriable;
    /// Topics cannot be deleted here.
    TopicDeletionDisabled = 73, "TOPIC_DELETION_DISABLED";
    /// The leader epoch is older than the broker's.
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH", retriable;
    /// The leader epoch is newer than the broker's.
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH", retriable;
    /// The client's version does not know the compression of the records.
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE";
    /// The broker's epoch is not its current one.
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH";
    /// A new leader does not know the high watermark yet.
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE", retriable;
    /// The member has to join again with the id that came with this answer.
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED";
    /// The preferred leader is not there.
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE", retriable;
    /// The group has as many members as it may have.
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED";
    /// Another member took over the static member's name.
    FencedInstanceId = 82, "FENCED_INSTANCE_ID";
    /// No broker that could lead is there.
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", retriable;
    /// The election would change nothing.
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED", retriable;
    /// No replicas of the partition are being moved.
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS";
    /// The group is subscribed to the topic.
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC";
    /// The broker's checks refuse a record.
    InvalidRecord = 87, "INVALID_RECORD";
    /// A transaction that is still open may change the committed offset.
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT", retriable;
    /// A quota is used up; later it may go well.
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED", retriable;
    /// A newer producer of the same transactional id has taken over.
    ProducerFenced = 90, "PRODUCER_FENCED";
    /// There is no such resource.
    ResourceNotFound = 91, "RESOURCE_NOT_FOUND";
    /// There is one like it already.
    DuplicateResource = 92, "DUPLICATE_RESOURCE";
    /// The credentials are not good enough to be taken.
    UnacceptableCredential = 93, "UNACCEPTABLE_CREDENTIAL";
    /// The voters are not those of the quorum.
    InconsistentVoterSet = 94, "INCONSISTENT_VOTER_SET";
    /// The update's version is not a newer one.
    InvalidUpdateVersion = 95, "INVALID_UPDATE_VERSION";
    /// Enabling or disabling a feature failed.
    FeatureUpdateFailed = 96, "FEATURE_UPDATE_FAILED";
    /// A forwarded principal cannot be read.
    PrincipalDeserializationFailure = 97, "PRINCIPAL_DESERIALIZATION_FAILURE";
    /// There is no such snapshot.
    SnapshotNotFound = 98, "SNAPSHOT_NOT_FOUND";
    /// The position is beyond the snapshot's end.
    PositionOutOfRange = 99, "POSITION_OUT_OF_RANGE";
    /// There is no topic of that id here.
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID", retriable;
    /// A broker of that id is registered and alive.
    DuplicateBrokerRegistration = 101, "DUPLICATE_BROKER_REGISTRATION";
    /// No broker of that id is registered.
    BrokerIdNotRegistered = 102, "BROKER_ID_NOT_REGISTERED";
    /// The topic's id is not the one that the session has for it.
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID", retriable;
    /// The cluster's id is not the one expected.
    InconsistentClusterId = 104, "INCONSISTENT_CLUSTER_ID";
    /// There is no such transactional id.
    TransactionalIdNotFound = 105, "TRANSACTIONAL_ID_NOT_FOUND";
    /// The fetch session names topics by name, the request by id, or the other way round.
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR", retriable;
    /// The replica cannot join the in-sync set.
    IneligibleReplica = 107, "INELIGIBLE_REPLICA";
    /// The change to the in-sync set made another broker leader.
    NewLeaderElected = 108, "NEW_LEADER_ELECTED";
    /// The offset is in tiered storage only.
    OffsetMovedToTieredStorage = 109, "OFFSET_MOVED_TO_TIERED_STORAGE";
    /// The member's epoch is not its current one; it has to join again.
    FencedMemberEpoch = 110, "FENCED_MEMBER_EPOCH";
    /// The static member's name is still in use.
    UnreleasedInstanceId = 111, "UNRELEASED_INSTANCE_ID";
    /// The coordinator does not have the assignor.
    UnsupportedAssignor = 112, "UNSUPPORTED_ASSIGNOR";
    /// The member's epoch is behind: it may retry with its current one.
    StaleMemberEpoch = 113, "STALE_MEMBER_EPOCH";
    /// The request came to a controller but is for a broker, or the other way round.
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE";
    /// This kind of endpoint cannot be described.
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE";
    /// No controller of that id is known.
    UnknownControllerId = 116, "UNKNOWN_CONTROLLER_ID";
    /// The telemetry subscription is not the current one.
    UnknownSubscriptionId = 117, "UNKNOWN_SUBSCRIPTION_ID";
    /// There is more telemetry than the broker takes.
    TelemetryTooLarge = 118, "TELEMETRY_TOO_LARGE";
    /// The broker's registration is not acceptable.
    InvalidRegistration = 119, "INVALID_REGISTRATION";
    /// The transaction has to be aborted, after which its producer may go on.
    TransactionAbortable = 120, "TRANSACTION_ABORTABLE";
    /// The record's state does not allow this.
    InvalidRecordState = 121, "INVALID_RECORD_STATE";
    /// There is no such share session.
    ShareSessionNotFound = 122, "SHARE_SESSION_NOT_FOUND", retriable;
    /// The request is not the next one of its share session.
    InvalidShareSessionEpoch = 123, "INVALID_SHARE_SESSION_EPOCH", retriable;
    /// The share coordinator's state epoch is older than the broker's.
    FencedStateEpoch = 124, "FENCED_STATE_EPOCH";
    /// The voter's key is not the one known.
    InvalidVoterKey = 125, "INVALID_VOTER_KEY";
    /// There is such a voter already.
    DuplicateVoter = 126, "DUPLICATE_VOTER";
    /// There is no such voter.
    VoterNotFound = 127, "VOTER_NOT_FOUND";
    /// The regular expression cannot be read.
    InvalidRegularExpression = 128, "INVALID_REGULAR_EXPRESSION";
    /// The client's metadata is of another cluster: it has to begin anew.
    RebootstrapRequired = 129, "REBOOTSTRAP_REQUIRED";
    /// The topology cannot be used.
    StreamsInvalidTopology = 130, "STREAMS_INVALID_TOPOLOGY";
    /// The topology's epoch is not the current one.
    StreamsInvalidTopologyEpoch = 131, "STREAMS_INVALID_TOPOLOGY_EPOCH";
    /// The topology's epoch is older than the group's.
    StreamsTopologyFenced = 132, "STREAMS_TOPOLOGY_FENCED";
    /// The broker has as many share sessions as it may have.
    ShareSessionLimitReached = 133, "SHARE_SESSION_LIMIT_REACHED", retriable;
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether it is an error at all.
    pub const fn is_error(self) -> bool {
        !matches!(self, Self::None)
    }
}

impl From<ErrorCode> for i16 {
    fn from(error: ErrorCode) -> Self {
        error.code()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::ResponseError;

    use super::*;

    #[test]
    fn numbers_and_names_are_those_of_an_independent_table() {
        assert_eq!(ErrorCode::ALL.len(), 135);
        for (i, error) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(error.code(), i as i16 - 1);
            assert_eq!(ErrorCode::from_code(error.code()), *error);
            if let Some(theirs) = ResponseError::try_from_code(error.code()) {
                assert_eq!(format!("{error:?}"), theirs.to_string());
            }
        }
    }

    #[test]
    fn a_code_from_the_future_is_an_unknown_error() {
        assert_eq!(ErrorCode::from_code(12_345), ErrorCode::UnknownServerError);
    }
}
