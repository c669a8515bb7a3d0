//! The flows into this cluster: offers what the configuration says, and runs the mirror that carries them out.

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
pub(crate) fn start(broker: &Broker, mesh: Mesh, in_file: Vec<FlowSpec>) -> Mirror {
    let cluster = broker.cluster();
    let target = OwnCluster::new(broker.clone());
    let mirror = Mirror::start(
        Arc::new(target),
        network_sources(mesh, Arc::clone(cluster.clock())),
        in_file,
    );
    let answering = mirror.clone();
    let answer = move |request| {
        let mirror = answering.clone();
        async move { Ok(mirror.answer(request).await) }.boxed()
    };
    cluster.register_call(MIRROR_CALL, Arc::new(answer));
    mirror
}

/// Offers the cluster the flows of this daemon's configuration; tries until it has answered, or until `stop`. What the cluster
/// has declared already, or removed, is not changed by a file: only `mirror apply` does that.
pub(crate) async fn offer(cluster: Cluster, flows: Vec<FlowSpec>, stop: CancellationToken) {
    for spec in flows {
        let name = spec.name();
        let offering = async {
            loop {
                let command = Command::OfferFlow { spec: spec.clone() };
                match cluster.propose(command, DECLARE_TIMEOUT).await {
                    Ok(_) => return told(&cluster, &spec),
                    Err(ProposeError::Refused(refusal)) => {
                        tracing::warn!(flow = name, %refusal, "the flow of this configuration does not begin; `mirror apply` declares it");
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
            () = offering => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Says in the log whether what is declared is what this daemon's configuration says.
fn told(cluster: &Cluster, spec: &FlowSpec) {
    let flow = spec.name();
    match cluster.image().flows.get(&flow) {
        Some(declared) if declared.spec != *spec => tracing::warn!(
            flow,
            "declared otherwise than this configuration says, and that holds: `mirror plan` shows both"
        ),
        _ => tracing::info!(flow, "declared"),
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
