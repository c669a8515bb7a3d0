//! Kafka's messages, one file per API, each declared once with every version.
//!
//! Names are those of Kafka's own schemas. A field that a version lacks has its default after decoding; encoding
//! refuses a message whose version would silently lose something the receiver must know. Unknown tagged fields are
//! skipped. Which versions are offered to clients is not decided here but in [`crate::api`].

pub(crate) mod declare;
#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tree;

use std::fmt::Debug;

use bytes::Bytes;

use crate::api::ApiKey;
use crate::codec::{At, DecodeError, DecodeErrorKind, EncodeError, Reader, Structure, Writer};

/// A request or response body, or another value with versions of its own.
pub trait Message: Structure + Clone + Debug + Default + PartialEq + Send + Sync + 'static {
    /// Kafka's name for it.
    const NAME: &'static str;
    /// The lowest and the highest version that can be decoded and encoded.
    const VERSIONS: (i16, i16);
    /// From which version on lengths are compact and structures end in tagged fields (KIP-482); `i16::MAX` for never.
    const FLEXIBLE_FROM: i16;

    /// Whether `version` can be decoded and encoded.
    fn knows(version: i16) -> bool {
        (Self::VERSIONS.0..=Self::VERSIONS.1).contains(&version)
    }

    /// Takes one off `r`. The version is checked before the first byte is; what follows the message is left.
    fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        if !Self::knows(version) {
            return Err(DecodeErrorKind::UnsupportedVersion {
                message: Self::NAME,
                version,
            }
            .into());
        }
        Self::read_fields(r, at::<Self>(version))
    }

    /// Puts this one into `w`. After an error `w` holds a part of it and is of no more use.
    fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        if !Self::knows(version) {
            return Err(EncodeError::UnsupportedVersion {
                message: Self::NAME,
                version,
            });
        }
        self.write_fields(w, at::<Self>(version))
    }
}

/// A message that a client sends, and what it is answered with.
pub trait Request: Message {
    /// The API's key.
    const KEY: ApiKey;
    /// The answer, in the request's version.
    type Response: Message;
}

fn at<M: Message>(version: i16) -> At {
    At {
        version,
        flexible: version >= M::FLEXIBLE_FROM,
        nullable: false,
    }
}

/// Names every API once; whatever has to know them all is made from here.
macro_rules! apis {
    ($($(#[$doc:meta])* $module:ident: $key:ident, $request:ident, $response:ident;)*) => {
        $(
            pub mod $module;
            pub use $module::{$request, $response};
        )*

        /// The versions of an API that this crate can decode, and from which on they are flexible; nothing for one it
        /// does not know.
        pub const fn versions(key: ApiKey) -> Option<Versions> {
            match key {
                $(ApiKey::$key => Some(Versions {
                    min: <$request as Message>::VERSIONS.0,
                    max: <$request as Message>::VERSIONS.1,
                    flexible_from: <$request as Message>::FLEXIBLE_FROM,
                }),)*
                _ => None,
            }
        }

        /// Decodes a request's body, encodes what came out and gives that back: for fuzzing, and for tools that look at
        /// traffic without caring for its meaning.
        pub fn transcode_request(key: ApiKey, version: i16, body: Bytes) -> Result<Bytes, TranscodeError> {
            match key {
                $(ApiKey::$key => transcode::<$request>(version, body),)*
                _ => Err(TranscodeError::UnknownApi(key)),
            }
        }

        /// The same for a response's body.
        pub fn transcode_response(key: ApiKey, version: i16, body: Bytes) -> Result<Bytes, TranscodeError> {
            match key {
                $(ApiKey::$key => transcode::<$response>(version, body),)*
                _ => Err(TranscodeError::UnknownApi(key)),
            }
        }

        /// The bodies of some request and some response.
        #[cfg(test)]
        pub(crate) fn random_bodies(key: ApiKey, version: i16, random: &mut crate::random::Random) -> (Bytes, Bytes) {
            match key {
                $(ApiKey::$key => (random_body::<$request>(version, random), random_body::<$response>(version, random)),)*
                _ => unreachable!("the messages of {key:?} are not known"),
            }
        }
    };
}

apis! {
    produce: Produce, ProduceRequest, ProduceResponse;
    fetch: Fetch, FetchRequest, FetchResponse;
    list_offsets: ListOffsets, ListOffsetsRequest, ListOffsetsResponse;
    metadata: Metadata, MetadataRequest, MetadataResponse;
    offset_commit: OffsetCommit, OffsetCommitRequest, OffsetCommitResponse;
    offset_fetch: OffsetFetch, OffsetFetchRequest, OffsetFetchResponse;
    find_coordinator: FindCoordinator, FindCoordinatorRequest, FindCoordinatorResponse;
    join_group: JoinGroup, JoinGroupRequest, JoinGroupResponse;
    heartbeat: Heartbeat, HeartbeatRequest, HeartbeatResponse;
    leave_group: LeaveGroup, LeaveGroupRequest, LeaveGroupResponse;
    sync_group: SyncGroup, SyncGroupRequest, SyncGroupResponse;
    describe_groups: DescribeGroups, DescribeGroupsRequest, DescribeGroupsResponse;
    list_groups: ListGroups, ListGroupsRequest, ListGroupsResponse;
    sasl_handshake: SaslHandshake, SaslHandshakeRequest, SaslHandshakeResponse;
    api_versions: ApiVersions, ApiVersionsRequest, ApiVersionsResponse;
    create_topics: CreateTopics, CreateTopicsRequest, CreateTopicsResponse;
    delete_topics: DeleteTopics, DeleteTopicsRequest, DeleteTopicsResponse;
    delete_records: DeleteRecords, DeleteRecordsRequest, DeleteRecordsResponse;
    init_producer_id: InitProducerId, InitProducerIdRequest, InitProducerIdResponse;
    offset_for_leader_epoch: OffsetForLeaderEpoch, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse;
    describe_configs: DescribeConfigs, DescribeConfigsRequest, DescribeConfigsResponse;
    alter_configs: AlterConfigs, AlterConfigsRequest, AlterConfigsResponse;
    describe_log_dirs: DescribeLogDirs, DescribeLogDirsRequest, DescribeLogDirsResponse;
    sasl_authenticate: SaslAuthenticate, SaslAuthenticateRequest, SaslAuthenticateResponse;
    create_partitions: CreatePartitions, CreatePartitionsRequest, CreatePartitionsResponse;
    delete_groups: DeleteGroups, DeleteGroupsRequest, DeleteGroupsResponse;
    incremental_alter_configs: IncrementalAlterConfigs, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse;
    describe_cluster: DescribeCluster, DescribeClusterRequest, DescribeClusterResponse;
    elect_leaders: ElectLeaders, ElectLeadersRequest, ElectLeadersResponse;
    alter_partition_reassignments: AlterPartitionReassignments, AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse;
    list_partition_reassignments: ListPartitionReassignments, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse;
    offset_delete: OffsetDelete, OffsetDeleteRequest, OffsetDeleteResponse;
    describe_quorum: DescribeQuorum, DescribeQuorumRequest, DescribeQuorumResponse;
    describe_producers: DescribeProducers, DescribeProducersRequest, DescribeProducersResponse;
    consumer_group_heartbeat: ConsumerGroupHeartbeat, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse;
    consumer_group_describe: ConsumerGroupDescribe, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse;
    list_config_resources: ListConfigResources, ListConfigResourcesRequest, ListConfigResourcesResponse;
    describe_topic_partitions: DescribeTopicPartitions, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse;
}

/// What versions of an API can be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The lowest.
    pub min: i16,
    /// The highest.
    pub max: i16,
    /// The lowest flexible one; `i16::MAX` for none.
    pub flexible_from: i16,
}

/// A body that could not be decoded and encoded again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TranscodeError {
    /// The messages of this API are not declared.
    #[error("the messages of {0:?} are not known")]
    UnknownApi(ApiKey),
    /// The bytes are not the message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// What was decoded could not be encoded in the same version: never, unless this crate is wrong.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

fn transcode<M: Message>(version: i16, body: Bytes) -> Result<Bytes, TranscodeError> {
    let message = M::decode(&mut Reader::new(body), version)?;
    let mut w = Writer::new();
    message.encode(&mut w, version)?;
    Ok(w.into_bytes())
}

#[cfg(test)]
fn random_body<M: Message>(version: i16, random: &mut crate::random::Random) -> Bytes {
    let mut w = Writer::new();
    M::random_fields(random, at::<M>(version))
        .encode(&mut w, version)
        .unwrap();
    w.into_bytes()
}
