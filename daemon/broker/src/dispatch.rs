//! The way of a request: header, version, body, handler, answer.
//!
//! The version is judged before the body is read. What cannot be answered in a way that the client understands closes
//! the connection: an unknown API or version, a body that is not one. ApiVersions alone is answered in any version,
//! because it is how a client learns of versions.

use bytes::Bytes;
use tradewind_wire::api::{self, ApiKey, RequestHeader, ResponseHeader};
use tradewind_wire::codec::{Reader, Writer};
use tradewind_wire::messages::{Message, Request};

use crate::api as handlers;
use crate::broker::{Broker, Connection, Reply};

/// What a handler knows of the request beside its body.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) connection: &'a Connection,
    /// Empty if the client gave none.
    pub(crate) client_id: &'a str,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    /// How long the request is, without its header.
    pub(crate) frame_bytes: usize,
}

/// Handles one frame.
pub(crate) async fn handle(broker: &Broker, connection: &Connection, frame: Bytes) -> Reply {
    let (header, body) = match api::decode_header(frame) {
        Ok(decoded) => decoded,
        Err(error) => return Reply::Close(format!("request header: {error}")),
    };
    let Some(key) = ApiKey::from_code(header.api_key) else {
        return Reply::Close(format!("unknown API {}", header.api_key));
    };
    if !api::is_advertised(key, header.api_version) {
        if key == ApiKey::ApiVersions {
            return encode(key, 0, header.correlation_id, &api::unsupported_api_versions());
        }
        return Reply::Close(format!(
            "{} version {} is not supported",
            key.name(),
            header.api_version
        ));
    }
    if key == ApiKey::Produce && header.api_version < api::PRODUCE_ACCEPTED_FROM {
        return Reply::Close(format!("Produce version {} is not supported", header.api_version));
    }
    let started = broker.cluster().clock().monotonic();
    let reply = route(broker, connection, key, &header, body).await;
    crate::metrics::handled(key, broker.cluster().clock().monotonic().saturating_sub(started));
    reply
}

async fn route(
    broker: &Broker,
    connection: &Connection,
    key: ApiKey,
    header: &RequestHeader,
    body: Reader,
) -> Reply {
    let call = Call {
        connection,
        client_id: header.client_id.as_deref().unwrap_or_default(),
        version: header.api_version,
        correlation_id: header.correlation_id,
        frame_bytes: body.remaining(),
    };
    macro_rules! answer {
        ($handler:path) => {
            match decode(key, call.version, body) {
                Ok(request) => {
                    let response = Box::pin($handler(broker, call, request)).await;
                    encode(key, call.version, call.correlation_id, &response)
                }
                Err(reply) => reply,
            }
        };
    }
    match key {
        ApiKey::Produce => match decode(key, call.version, body) {
            Ok(request) => Box::pin(handlers::produce::handle(broker, call, request)).await,
            Err(reply) => reply,
        },
        ApiKey::Fetch => answer!(handlers::fetch::handle),
        ApiKey::ListOffsets => answer!(handlers::list_offsets::handle),
        ApiKey::Metadata => answer!(handlers::metadata::handle),
        ApiKey::OffsetCommit => answer!(handlers::offset_commit::handle),
        ApiKey::OffsetFetch => answer!(handlers::offset_fetch::handle),
        ApiKey::FindCoordinator => answer!(handlers::find_coordinator::handle),
        ApiKey::JoinGroup => answer!(handlers::join_group::handle),
        ApiKey::Heartbeat => answer!(handlers::heartbeat::handle),
        ApiKey::LeaveGroup => answer!(handlers::leave_group::handle),
        ApiKey::SyncGroup => answer!(handlers::sync_group::handle),
        ApiKey::DescribeGroups => answer!(handlers::describe_groups::handle),
        ApiKey::ListGroups => answer!(handlers::list_groups::handle),
        ApiKey::DeleteGroups => answer!(handlers::delete_groups::handle),
        ApiKey::ApiVersions => answer!(handlers::api_versions::handle),
        ApiKey::CreateTopics => answer!(handlers::create_topics::handle),
        ApiKey::DeleteTopics => answer!(handlers::delete_topics::handle),
        ApiKey::CreatePartitions => answer!(handlers::create_partitions::handle),
        ApiKey::DeleteRecords => answer!(handlers::delete_records::handle),
        ApiKey::InitProducerId => answer!(handlers::init_producer_id::handle),
        ApiKey::OffsetDelete => answer!(handlers::offset_delete::handle),
        ApiKey::OffsetForLeaderEpoch => answer!(handlers::offset_for_leader_epoch::handle),
        ApiKey::DescribeConfigs => answer!(handlers::describe_configs::handle),
        ApiKey::AlterConfigs => answer!(handlers::alter_configs::handle),
        ApiKey::ElectLeaders => answer!(handlers::elect_leaders::handle),
        ApiKey::AlterPartitionReassignments => answer!(handlers::alter_partition_reassignments::handle),
        ApiKey::ListPartitionReassignments => answer!(handlers::list_partition_reassignments::handle),
        ApiKey::DescribeQuorum => answer!(handlers::describe_quorum::handle),
        ApiKey::IncrementalAlterConfigs => answer!(handlers::incremental_alter_configs::handle),
        ApiKey::ConsumerGroupHeartbeat => answer!(handlers::consumer_group_heartbeat::handle),
        ApiKey::ConsumerGroupDescribe => answer!(handlers::consumer_group_describe::handle),
        ApiKey::DescribeLogDirs => answer!(handlers::describe_log_dirs::handle),
        ApiKey::DescribeProducers => answer!(handlers::describe_producers::handle),
        ApiKey::DescribeCluster => answer!(handlers::describe_cluster::handle),
        ApiKey::ListConfigResources => answer!(handlers::list_config_resources::handle),
        ApiKey::DescribeTopicPartitions => answer!(handlers::describe_topic_partitions::handle),
        other => Reply::Close(format!("{} is not served", other.name())),
    }
}

fn decode<R: Request>(key: ApiKey, version: i16, mut body: Reader) -> Result<R, Reply> {
    debug_assert_eq!(key, R::KEY, "an API is routed to its own handler");
    R::decode(&mut body, version)
        .map_err(|error| Reply::Close(format!("{} version {version}: {error}", key.name())))
}

/// The frame of a response.
pub(crate) fn encode(key: ApiKey, version: i16, correlation_id: i32, response: &impl Message) -> Reply {
    let mut writer = Writer::new();
    ResponseHeader { correlation_id }.encode(&mut writer, key, version);
    match response.encode(&mut writer, version) {
        Ok(()) => Reply::Frame(writer.finish()),
        Err(error) => {
            tracing::error!(api = key.name(), version, %error, "an answer cannot be written in the version asked for");
            Reply::Close(format!(
                "{} version {version}: no answer can be written",
                key.name()
            ))
        }
    }
}
