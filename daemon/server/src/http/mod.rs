//! The HTTP port: `/livez`, `/readyz`, `/metrics` and `/v1/...`.
//!
//! It answers from the moment that the ports are bound; what needs the rest of the daemon says 503 until that is there.
//! There is no authentication: it listens on loopback unless told otherwise.

mod cluster;
mod drill;
mod failback;
mod flows;
mod guard;
mod health;
mod mirror;
mod switchover;
mod v1;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tradewind_client::Client;
use tradewind_cluster::Cluster;
use tradewind_mirror::Mirror;

use crate::gauges::Gauges;
use crate::guard::BootGuard;

/// What the answers are made from.
#[derive(Clone)]
pub(crate) struct Facts {
    inner: Arc<Inner>,
}

struct Inner {
    metrics: PrometheusHandle,
    gauges: Gauges,
    cluster: OnceLock<Cluster>,
    mirror: OnceLock<Mirror>,
    guard: OnceLock<Arc<BootGuard>>,
    /// Of this cluster, for what only all daemons together know.
    client: OnceLock<Client>,
    /// Set once clients are served.
    serving: OnceLock<()>,
    stopping: CancellationToken,
}

impl Facts {
    /// Nothing is known yet but that the process lives. `stopping` is cancelled when it begins to stop.
    pub(crate) fn new(metrics: PrometheusHandle, stopping: CancellationToken) -> Self {
        let inner = Inner {
            metrics,
            gauges: Gauges::default(),
            cluster: OnceLock::new(),
            mirror: OnceLock::new(),
            guard: OnceLock::new(),
            client: OnceLock::new(),
            serving: OnceLock::new(),
            stopping,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The cluster is there; it may not have been joined yet.
    pub(crate) fn cluster(&self, cluster: Cluster) {
        let _ = self.inner.cluster.set(cluster);
    }

    /// The mirror runs.
    pub(crate) fn mirror(&self, mirror: Mirror) {
        let _ = self.inner.mirror.set(mirror);
    }

    /// The guard has begun.
    pub(crate) fn guard(&self, guard: Arc<BootGuard>) {
        let _ = self.inner.guard.set(guard);
    }

    /// Clients are served; `client` is one of them, of this cluster.
    pub(crate) fn serving(&self, client: Client) {
        let _ = self.inner.client.set(client);
        let _ = self.inner.serving.set(());
    }
}

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, facts: Facts, stop: CancellationToken) {
    let upkeep = facts.inner.metrics.clone();
    let app = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/v1/status", get(v1::status))
        .route("/v1/cluster", get(cluster::overview))
        .route("/v1/cluster/drain", post(cluster::drain))
        .route("/v1/cluster/add", post(cluster::add))
        .route("/v1/cluster/remove", post(cluster::remove))
        .route("/v1/topics", get(v1::topics))
        .route("/v1/flows", get(v1::flows))
        .route("/v1/groups", get(v1::groups))
        .route("/v1/mirror/status", get(v1::mirror_status))
        .route("/v1/mirror/plan", post(flows::plan))
        .route("/v1/mirror/apply", post(flows::apply))
        .route("/v1/mirror/remove", post(flows::remove))
        .route("/v1/mirror/guard", get(guard::look))
        .route("/v1/mirror/unguard", post(guard::unguard))
        .route("/v1/mirror/pause", post(mirror::pause))
        .route("/v1/mirror/resume", post(mirror::resume))
        .route("/v1/mirror/verify", post(mirror::verify))
        .route("/v1/mirror/verify/piece", post(mirror::verify_piece))
        .route("/v1/drill", post(drill::drill))
        .route("/v1/failover", post(v1::failover))
        .route("/v1/failback", get(failback::look).post(failback::begin))
        .route("/v1/switchover", get(switchover::look).post(switchover::begin))
        .fallback(v1::unknown)
        .with_state(facts);
    let serving = axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
    // The exporter drops old histogram samples only when told to.
    let keeping = async {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    };
    tokio::select! {
        result = serving.into_future() => if let Err(error) = result {
            tracing::error!(%error, "http ended");
        },
        () = keeping => {}
    }
}

const UPKEEP: std::time::Duration = std::time::Duration::from_secs(5);
