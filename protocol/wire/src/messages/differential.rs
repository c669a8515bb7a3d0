//! Every message, in every version, against an independent implementation: the crate `kafka-protocol`.
//!
//! The same value has to have the same bytes and, decoded by either, the same fields of the same names. The values of
//! the two cannot be compared as such, so that their `Debug` texts are read into [`Tree`]s that can.

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable, Message as TheirMessage};

use super::tree::Tree;
use super::{Message, at, versions};
use crate::api::ApiKey;
use crate::codec::{EncodeError, Reader, Writer};
use crate::consumer_protocol as ours_consumer;
use crate::random::Random;

const VALUES_PER_VERSION: u64 = 40;

fn encode<M: Message>(message: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut w = Writer::new();
    message.encode(&mut w, version).map(|()| w.into_bytes())
}

fn their_encode<T: Encodable>(message: &T, version: i16) -> Option<Bytes> {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes, version).ok().map(|()| bytes.freeze())
}

fn decode<M: Message>(bytes: &Bytes, version: i16) -> M {
    let mut r = Reader::new(bytes.clone());
    let message = M::decode(&mut r, version).unwrap();
    assert_eq!(
        r.remaining(),
        0,
        "{} {version} is longer than what was read of it",
        M::NAME
    );
    message
}

fn their_decode<T: Decodable>(bytes: &Bytes, version: i16) -> T {
    let mut left = bytes.clone();
    let message = T::decode(&mut left, version).unwrap();
    assert!(left.is_empty(), "{version}: {left:?} was not read");
    message
}

fn agree<M, T>()
where
    M: Message,
    T: TheirMessage + Encodable + Decodable + Default + Debug,
{
    let (min, max) = M::VERSIONS;
    assert!(
        T::VERSIONS.min <= min && max <= T::VERSIONS.max,
        "{}: {:?}",
        M::NAME,
        T::VERSIONS
    );
    for version in min..=max {
        let default = their_encode(&T::default(), version).unwrap();
        assert_eq!(encode(&decode::<M>(&default, version), version), Ok(default));
        for seed in 0..VALUES_PER_VERSION {
            let ours = M::random_fields(&mut Random::new(seed), at::<M>(version));
            let bytes = encode(&ours, version).unwrap();
            assert_eq!(decode::<M>(&bytes, version), ours, "{} {version} {seed}", M::NAME);
            let theirs = their_decode::<T>(&bytes, version);
            assert_eq!(
                their_encode(&theirs, version).unwrap(),
                bytes,
                "{} {version} {seed}",
                M::NAME
            );
            let (ours_tree, theirs_tree) = (Tree::of(&ours), Tree::of(&theirs));
            assert!(
                ours_tree.is_within(&theirs_tree),
                "{version} {seed}:\n{ours_tree:#?}\n{theirs_tree:#?}"
            );
        }
    }
    refuse_the_same::<M, T>();
}

/// A value made for one version and encoded in a lower one is refused by both or is the same value to both.
fn refuse_the_same<M, T>()
where
    M: Message,
    T: TheirMessage + Encodable + Decodable,
{
    let (min, max) = M::VERSIONS;
    for made_for in min..=max {
        for seed in 0..VALUES_PER_VERSION {
            let ours = M::random_fields(&mut Random::new(seed), at::<M>(made_for));
            let theirs = their_decode::<T>(&encode(&ours, made_for).unwrap(), made_for);
            for version in min..made_for {
                match (encode(&ours, version), their_encode(&theirs, version)) {
                    // They write null in versions whose schema has none.
                    (Err(EncodeError::UnexpectedNull { .. }), _) | (Err(_), None) => {}
                    // Of a field that only later versions have, the default is null here and mostly empty there.
                    (Ok(ours), Some(theirs)) => assert_eq!(
                        Tree::of(&decode::<M>(&ours, version)),
                        Tree::of(&decode::<M>(&theirs, version)),
                        "{} made for {made_for}, in {version}",
                        M::NAME
                    ),
                    (ours, theirs) => {
                        panic!(
                            "{} made for {made_for}, in {version}: {ours:?}, theirs {theirs:?}",
                            M::NAME
                        )
                    }
                }
            }
        }
    }
}

macro_rules! apis {
    ($($name:ident: $key:ident $request:ident $response:ident)*) => {
        $(
            #[test]
            fn $name() {
                agree::<super::$request, theirs::$request>();
                agree::<super::$response, theirs::$response>();
            }
        )*

        #[test]
        fn no_api_is_left_out() {
            let here = [$(ApiKey::$key),*];
            for key in ApiKey::ALL {
                assert_eq!(here.contains(key), versions(*key).is_some(), "{key:?}");
            }
        }
    };
}

apis! {
    produce: Produce ProduceRequest ProduceResponse
    fetch: Fetch FetchRequest FetchResponse
    list_offsets: ListOffsets ListOffsetsRequest ListOffsetsResponse
    metadata: Metadata MetadataRequest MetadataResponse
    offset_commit: OffsetCommit OffsetCommitRequest OffsetCommitResponse
    offset_fetch: OffsetFetch OffsetFetchRequest OffsetFetchResponse
    find_coordinator: FindCoordinator FindCoordinatorRequest FindCoordinatorResponse
    join_group: JoinGroup JoinGroupRequest JoinGroupResponse
    heartbeat: Heartbeat HeartbeatRequest HeartbeatResponse
    leave_group: LeaveGroup LeaveGroupRequest LeaveGroupResponse
    sync_group: SyncGroup SyncGroupRequest SyncGroupResponse
    describe_groups: DescribeGroups DescribeGroupsRequest DescribeGroupsResponse
    list_groups: ListGroups ListGroupsRequest ListGroupsResponse
    sasl_handshake: SaslHandshake SaslHandshakeRequest SaslHandshakeResponse
    api_versions: ApiVersions ApiVersionsRequest ApiVersionsResponse
    create_topics: CreateTopics CreateTopicsRequest CreateTopicsResponse
    delete_topics: DeleteTopics DeleteTopicsRequest DeleteTopicsResponse
    delete_records: DeleteRecords DeleteRecordsRequest DeleteRecordsResponse
    init_producer_id: InitProducerId InitProducerIdRequest InitProducerIdResponse
    offset_for_leader_epoch: OffsetForLeaderEpoch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse
    describe_configs: DescribeConfigs DescribeConfigsRequest DescribeConfigsResponse
    alter_configs: AlterConfigs AlterConfigsRequest AlterConfigsResponse
    describe_log_dirs: DescribeLogDirs DescribeLogDirsRequest DescribeLogDirsResponse
    sasl_authenticate: SaslAuthenticate SaslAuthenticateRequest SaslAuthenticateResponse
    create_partitions: CreatePartitions CreatePartitionsRequest CreatePartitionsResponse
    delete_groups: DeleteGroups DeleteGroupsRequest DeleteGroupsResponse
    incremental_alter_configs: IncrementalAlterConfigs IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse
    describe_cluster: DescribeCluster DescribeClusterRequest DescribeClusterResponse
    elect_leaders: ElectLeaders ElectLeadersRequest ElectLeadersResponse
    alter_partition_reassignments: AlterPartitionReassignments AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse
    list_partition_reassignments: ListPartitionReassignments ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse
    offset_delete: OffsetDelete OffsetDeleteRequest OffsetDeleteResponse
    describe_quorum: DescribeQuorum DescribeQuorumRequest DescribeQuorumResponse
    describe_producers: DescribeProducers DescribeProducersRequest DescribeProducersResponse
    consumer_group_heartbeat: ConsumerGroupHeartbeat ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse
    consumer_group_describe: ConsumerGroupDescribe ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse
    list_config_resources: ListConfigResources ListConfigResourcesRequest ListConfigResourcesResponse
    describe_topic_partitions: DescribeTopicPartitions DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse
}

#[test]
fn consumer_protocol() {
    agree::<ours_consumer::ConsumerProtocolSubscription, theirs::ConsumerProtocolSubscription>();
    agree::<ours_consumer::ConsumerProtocolAssignment, theirs::ConsumerProtocolAssignment>();
}

#[test]
fn unknown_tagged_fields_are_skipped_wherever_they_are() {
    let broker = theirs::metadata_response::MetadataResponseBroker::default()
        .with_port(9092)
        .with_unknown_tagged_field(3, Bytes::from_static(b"within"));
    let response = theirs::MetadataResponse::default()
        .with_brokers(vec![broker.clone(), broker])
        .with_unknown_tagged_field(0, Bytes::new())
        .with_unknown_tagged_field(70_000, Bytes::from(vec![1; 300]));
    let ours = decode::<super::MetadataResponse>(&their_encode(&response, 12).unwrap(), 12);
    assert_eq!(
        ours.brokers.iter().map(|broker| broker.port).collect::<Vec<_>>(),
        [9092, 9092]
    );
}

#[test]
fn null_records_are_read_as_none_and_never_written() {
    let data = theirs::fetch_response::PartitionData::default()
        .with_records(None)
        .with_partition_index(4);
    let topic = theirs::fetch_response::FetchableTopicResponse::default().with_partitions(vec![data]);
    let response = theirs::FetchResponse::default().with_responses(vec![topic]);
    for version in [11, 12] {
        let ours = decode::<super::FetchResponse>(&their_encode(&response, version).unwrap(), version);
        assert!(ours.responses[0].partitions[0].records.is_empty());
        let again = their_decode::<theirs::FetchResponse>(&encode(&ours, version).unwrap(), version);
        assert_eq!(again.responses[0].partitions[0].records, Some(Bytes::new()));
    }
}
