//! API keys, the versions offered to clients, and the headers before every body.
//!
//! A frame is a header and a body. The header can be read before it is known whether the API or its version is, so that
//! a refusal can name the request it refuses.

use bytes::Bytes;

use crate::codec::{At, DecodeError, EncodeError, Field, Reader, Str, Writer};
use crate::messages::api_versions::ApiVersion;
use crate::messages::{self, ApiVersionsResponse};

/// The versions that clients are told of, lowest and highest. Never one whose semantics are not there.
///
/// The lowest are those of Kafka 4.1, because old clients take a missing version for a missing feature. Produce begins at
/// 0 for the same reason (librdkafka before 2.11 would not compress), though 0 to 2 are refused when they come.
pub const ADVERTISED: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 0, 11),
    (ApiKey::Fetch, 4, 17),
    (ApiKey::ListOffsets, 1, 10),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::OffsetCommit, 2, 9),
    (ApiKey::OffsetFetch, 1, 9),
    (ApiKey::FindCoordinator, 0, 6),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 6),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 5),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::AlterConfigs, 0, 2),
    (ApiKey::DescribeLogDirs, 1, 4),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::ElectLeaders, 0, 2),
    (ApiKey::IncrementalAlterConfigs, 0, 1),
    (ApiKey::AlterPartitionReassignments, 0, 1),
    (ApiKey::ListPartitionReassignments, 0, 0),
    (ApiKey::OffsetDelete, 0, 0),
    (ApiKey::DescribeQuorum, 0, 2),
    (ApiKey::DescribeCluster, 0, 2),
    (ApiKey::DescribeProducers, 0, 0),
    (ApiKey::ConsumerGroupHeartbeat, 0, 1),
    (ApiKey::ConsumerGroupDescribe, 0, 1),
    (ApiKey::ListConfigResources, 0, 1),
    (ApiKey::DescribeTopicPartitions, 0, 0),
];

/// The lowest version of Produce that is carried out: older ones have record formats from before batches.
pub const PRODUCE_ACCEPTED_FROM: i16 = 3;

/// Whether clients are told of this version of the API.
pub fn is_advertised(key: ApiKey, version: i16) -> bool {
    ADVERTISED
        .iter()
        .any(|(k, min, max)| *k == key && (*min..=*max).contains(&version))
}

macro_rules! keys {
    ($($name:ident = $key:literal)*) => {
        /// The number of an API. All that Kafka 4.1 has, whether or not they are served here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        #[non_exhaustive]
        pub enum ApiKey {
            $(#[doc = concat!("`", stringify!($name), "`, ", $key, ".")] $name = $key,)*
        }

        impl ApiKey {
            /// Every key there is, in rising order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The API of this number.
            pub const fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($key => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Kafka's name for it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

keys! {
    Produce = 0
    Fetch = 1
    ListOffsets = 2
    Metadata = 3
    OffsetCommit = 8
    OffsetFetch = 9
    FindCoordinator = 10
    JoinGroup = 11
    Heartbeat = 12
    LeaveGroup = 13
    SyncGroup = 14
    DescribeGroups = 15
    ListGroups = 16
    SaslHandshake = 17
    ApiVersions = 18
    CreateTopics = 19
    DeleteTopics = 20
    DeleteRecords = 21
    InitProducerId = 22
    OffsetForLeaderEpoch = 23
    AddPartitionsToTxn = 24
    AddOffsetsToTxn = 25
    EndTxn = 26
    WriteTxnMarkers = 27
    TxnOffsetCommit = 28
    DescribeAcls = 29
    CreateAcls = 30
    DeleteAcls = 31
    DescribeConfigs = 32
    AlterConfigs = 33
    AlterReplicaLogDirs = 34
    DescribeLogDirs = 35
    SaslAuthenticate = 36
    CreatePartitions = 37
    CreateDelegationToken = 38
    RenewDelegationToken = 39
    ExpireDelegationToken = 40
    DescribeDelegationToken = 41
    DeleteGroups = 42
    ElectLeaders = 43
    IncrementalAlterConfigs = 44
    AlterPartitionReassignments = 45
    ListPartitionReassignments = 46
    OffsetDelete = 47
    DescribeClientQuotas = 48
    AlterClientQuotas = 49
    DescribeUserScramCredentials = 50
    AlterUserScramCredentials = 51
    Vote = 52
    BeginQuorumEpoch = 53
    EndQuorumEpoch = 54
    DescribeQuorum = 55
    AlterPartition = 56
    UpdateFeatures = 57
    Envelope = 58
    FetchSnapshot = 59
    DescribeCluster = 60
    DescribeProducers = 61
    BrokerRegistration = 62
    BrokerHeartbeat = 63
    UnregisterBroker = 64
    DescribeTransactions = 65
    ListTransactions = 66
    AllocateProducerIds = 67
    ConsumerGroupHeartbeat = 68
    ConsumerGroupDescribe = 69
    ControllerRegistration = 70
    GetTelemetrySubscriptions = 71
    PushTelemetry = 72
    AssignReplicasToDirs = 73
    ListConfigResources = 74
    DescribeTopicPartitions = 75
    ShareGroupHeartbeat = 76
    ShareGroupDescribe = 77
    ShareFetch = 78
    ShareAcknowledge = 79
    AddRaftVoter = 80
    RemoveRaftVoter = 81
    UpdateRaftVoter = 82
    InitializeShareGroupState = 83
    ReadShareGroupState = 84
    WriteShareGroupState = 85
    DeleteShareGroupState = 86
    ReadShareGroupStateSummary = 87
    DescribeShareGroupOffsets = 90
    AlterShareGroupOffsets = 91
    DeleteShareGroupOffsets = 92
}

impl ApiKey {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether a version has compact lengths and tagged fields, in its headers too. Never for an API whose messages are
    /// not declared.
    pub const fn is_flexible(self, version: i16) -> bool {
        match messages::versions(self) {
            Some(versions) => version >= versions.flexible_from,
            None => false,
        }
    }
}

/// What stands before a request's body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestHeader {
    /// The API's number, which need not be one of [`ApiKey`].
    pub api_key: i16,
    /// The version of the body, which need not be one that is known.
    pub api_version: i16,
    /// What the response has to repeat.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<Str>,
}

impl RequestHeader {
    /// Takes a header off `r`, which then stands before the body. Header version 1, or 2 where the API is flexible.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let place = |field| move |error: DecodeError| error.within("RequestHeader", field);
        let header = Self {
            api_key: r.i16().map_err(place("api_key"))?,
            api_version: r.i16().map_err(place("api_version"))?,
            correlation_id: r.i32().map_err(place("correlation_id"))?,
            // Not compact in either version of the header.
            client_id: r.string(false).map_err(place("client_id"))?,
        };
        if header.is_flexible() {
            r.skip_tagged_fields().map_err(place("tagged fields"))?;
        }
        Ok(header)
    }

    /// Puts this header into `w`.
    pub fn encode(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.put_i16(self.api_key);
        w.put_i16(self.api_version);
        w.put_i32(self.correlation_id);
        let at = At {
            version: self.api_version,
            flexible: false,
            nullable: true,
        };
        self.client_id
            .write(w, at)
            .map_err(|error| error.within("RequestHeader", "client_id"))?;
        if self.is_flexible() {
            w.put_uvarint(0);
        }
        Ok(())
    }

    /// The API, if it is one of Kafka's.
    pub fn key(&self) -> Option<ApiKey> {
        ApiKey::from_code(self.api_key)
    }

    fn is_flexible(&self) -> bool {
        self.key().is_some_and(|key| key.is_flexible(self.api_version))
    }
}

/// Splits a frame into its header and a reader of its body.
pub fn decode_header(frame: Bytes) -> Result<(RequestHeader, Reader), DecodeError> {
    let mut r = Reader::new(frame);
    let header = RequestHeader::decode(&mut r)?;
    Ok((header, r))
}

/// What stands before a response's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseHeader {
    /// The request's.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Takes the header of a response to `key` in `version` off `r`.
    pub fn decode(r: &mut Reader, key: ApiKey, version: i16) -> Result<Self, DecodeError> {
        let place = |error: DecodeError| error.within("ResponseHeader", "correlation_id");
        let correlation_id = r.i32().map_err(place)?;
        if Self::has_tagged_fields(key, version) {
            r.skip_tagged_fields().map_err(place)?;
        }
        Ok(Self { correlation_id })
    }

    /// Puts the header of a response to `key` in `version` into `w`.
    pub fn encode(self, w: &mut Writer, key: ApiKey, version: i16) {
        w.put_i32(self.correlation_id);
        if Self::has_tagged_fields(key, version) {
            w.put_uvarint(0);
        }
    }

    /// ApiVersions never has any: the client cannot know yet whether the broker understands the version it sent.
    fn has_tagged_fields(key: ApiKey, version: i16) -> bool {
        key != ApiKey::ApiVersions && key.is_flexible(version)
    }
}

/// [`ADVERTISED`] as the ApiVersions response lists it.
pub fn advertised() -> Vec<ApiVersion> {
    ADVERTISED.iter().map(|&entry| listed(entry)).collect()
}

/// The answer to an ApiVersions request of a version that is not known: to be sent with version 0 of body and header.
/// It tells the one thing the client needs, the versions of ApiVersions itself (KIP-511).
pub fn unsupported_api_versions() -> ApiVersionsResponse {
    let own = ADVERTISED.iter().filter(|(key, ..)| *key == ApiKey::ApiVersions);
    ApiVersionsResponse {
        error_code: crate::error::ErrorCode::UnsupportedVersion.code(),
        api_keys: own.map(|&entry| listed(entry)).collect(),
        ..Default::default()
    }
}

fn listed((key, min_version, max_version): (ApiKey, i16, i16)) -> ApiVersion {
    ApiVersion {
        api_key: key.code(),
        min_version,
        max_version,
    }
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
