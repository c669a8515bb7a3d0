//! The flows into this cluster: declares what the configuration says, and runs the mirror that carries them out.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tradewind_broker::Broker;
use tradewind_cluster::Cluster;
use tradewind_cluster::command::Command;
use tradewind_cluster::metadata::ProposeError;
use tradewind_mirror::{Mirror, network_sources};
use tradewind_transport::Mesh;
use tradewind_wire::flow::FlowSpec;

use crate::target::{MIRROR_CALL, OwnCluster};

/// Starts this daemon's mirror; other clusters are dialled from `mesh`.
pub(crate) fn start(broker: &Broker, mesh: Mesh) -> Mirror {
    let cluster = broker.cluster();
    let target = OwnCluster::new(broker.clone());
    let mirror = Mirror::start(
        Arc::new(target),
        network_sources(mesh, Arc::clone(cluster.clock())),
    );
    let answering = mirror.clone();
    let answer = move |request| {
        let mirror = answering.clone();
        async move { Ok(mirror.answer(request).await) }.boxed()
    };
    cluster.register_call(MIRROR_CALL, Arc::new(answer));
    mirror
}

/// Has the cluster agree on the flows of this daemon's configuration; tries until it has, or until `stop`. Flows that
/// are agreed on and not in the file stay: another daemon's file may name them.
pub(crate) async fn declare(cluster: Cluster, flows: Vec<FlowSpec>, stop: CancellationToken) {
    for spec in flows {
        let name = spec.name();
        let declaring = async {
            while cluster
                .image()
                .flows
                .get(&name)
                .is_none_or(|flow| flow.spec != spec)
            {
                let command = Command::DeclareFlow { spec: spec.clone() };
                match cluster.propose(command, DECLARE_TIMEOUT).await {
                    Ok(_) => tracing::info!(flow = name, "declared"),
                    Err(ProposeError::Refused(refusal)) => {
                        tracing::error!(flow = name, %refusal, "the cluster refuses the flow of this configuration");
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(flow = name, %error, "cannot declare the flow yet");
                        tokio::time::sleep(DECLARE_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = declaring => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Makes groups usable here as soon as a flow brings positions for them; tries until they are, or until `stop`.
pub(crate) async fn prepare_groups(broker: Broker, stop: CancellationToken) {
    let mut images = broker.cluster().subscribe();
    let preparing = async {
        if images.wait_for(|image| !image.flows.is_empty()).await.is_err() {
            return;
        }
        while let Err(error) = broker.prepare_groups().await {
            tracing::debug!(%error, "groups cannot be prepared yet");
            tokio::time::sleep(DECLARE_PAUSE).await;
        }
    };
    tokio::select! {
        () = preparing => {}
        () = stop.cancelled() => {}
    }
}

const DECLARE_TIMEOUT: Duration = Duration::from_secs(10);
const DECLARE_PAUSE: Duration = Duration::from_secs(1);
