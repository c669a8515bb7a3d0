//! DescribeCluster: the daemons and the cluster's id.

use tradewind_cluster::image::{Daemon, DaemonState};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::describe_cluster::DescribeClusterBroker;
use tradewind_wire::messages::{DescribeClusterRequest, DescribeClusterResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::topics;

/// The endpoint type of brokers; the other one, controllers, has no listener of its own here.
const BROKERS: i8 = 1;

pub(crate) async fn handle(
    broker: &Broker,
    call: Call<'_>,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if request.endpoint_type != BROKERS {
        return DescribeClusterResponse {
            error_code: ErrorCode::MismatchedEndpointType.code(),
            error_message: Some("This listener belongs to brokers.".into()),
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
    DescribeClusterResponse {
        cluster_id: image
            .cluster_id
            .map(|id| id.to_string())
            .unwrap_or_default()
            .into(),
        controller_id: topics::admin_node(broker, &image),
        brokers: wanted.filter_map(describe).collect(),
        endpoint_type: BROKERS,
        ..Default::default()
    }
}
