//! DescribeCluster: the daemons and the cluster's id.

use tradewind_cluster::image::{Daemon, DaemonState};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::describe_cluster::DescribeClusterBroker;
use tradewind_wire::messages::{DescribeClusterRequest, DescribeClusterResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::topics;

/// The endpoint type of brokers.
const BROKERS: i8 = 1;

/// That of controllers, which have no listener of their own here.
const CONTROLLERS: i8 = 2;

pub(crate) async fn handle(
    broker: &Broker,
    call: Call<'_>,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if request.endpoint_type != BROKERS {
        let (error, message) = match request.endpoint_type {
            CONTROLLERS => (
                ErrorCode::MismatchedEndpointType,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER",
            ),
            _ => (ErrorCode::UnsupportedEndpointType, "Unsupported endpoint type"),
        };
        return DescribeClusterResponse {
            error_code: error.code(),
            error_message: Some(message.into()),
            endpoint_type: BROKERS,
            ..Default::default()
        };
    }
    let image = broker.cluster().image();
    let fenced = |daemon: &Daemon| daemon.state == DaemonState::Fenced;
    let describe = |daemon: &Daemon| {
        let (host, port) = topics::address(daemon, &call.connection.listener)?;
        Some(DescribeClusterBroker {
            broker_id: daemon.id,
            host: host.into(),
            port,
            rack: daemon.rack.as_deref().map(Into::into),
            is_fenced: fenced(daemon) && call.version >= 2,
        })
    };
    let wanted = image
        .nodes
        .values()
        .filter(|daemon| request.include_fenced_brokers || !fenced(daemon));
    let mut response = DescribeClusterResponse {
        cluster_id: image
            .cluster_id
            .map(|id| id.to_string())
            .unwrap_or_default()
            .into(),
        controller_id: topics::admin_node(broker, &image),
        brokers: wanted.filter_map(describe).collect(),
        endpoint_type: BROKERS,
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = topics::CLUSTER_OPERATIONS;
    }
    response
}
