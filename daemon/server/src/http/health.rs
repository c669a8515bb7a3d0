//! `/readyz` and `/metrics`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use tradewind_cluster::image::DaemonState;
use tradewind_cluster::metadata::Standing;

use super::Facts;
use crate::metrics;

/// Whether this daemon may be sent clients, and what is missing.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Readiness {
    ready: bool,
    reasons: Vec<&'static str>,
}

/// 200 if this daemon's registration is applied, it is not fenced, its listeners serve, its image is current and it
/// knows a controller; 503 with the reasons otherwise. Other clusters and in-sync sets don't count.
pub(super) async fn readyz(State(facts): State<Facts>) -> (StatusCode, Json<Readiness>) {
    let readiness = readiness(&facts);
    let code = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(readiness))
}

/// Everything that is counted, in Prometheus's text format.
pub(super) async fn metrics(State(facts): State<Facts>) -> String {
    metrics::ready(readiness(&facts).ready);
    if let Some(cluster) = facts.inner.cluster.get() {
        facts.inner.gauges.publish(cluster);
    }
    facts.inner.metrics.render()
}

fn readiness(facts: &Facts) -> Readiness {
    let inner = &facts.inner;
    let standing = inner
        .cluster
        .get()
        .map(|cluster| cluster.standing().borrow().clone());
    judge(
        standing.as_ref(),
        inner.serving.get().is_some(),
        inner.stopping.is_cancelled(),
    )
}

fn judge(standing: Option<&Standing>, serving: bool, stopping: bool) -> Readiness {
    let mut reasons = Vec::new();
    match standing {
        None => reasons.push("logs are being recovered"),
        Some(standing) => {
            let checks = [
                (standing.fatal.is_none(), "the metadata log has failed"),
                (standing.controller.is_some(), "no controller is known"),
                (standing.daemon_epoch.is_some(), "not registered"),
                (standing.state != Some(DaemonState::Fenced), "fenced"),
                (standing.state != Some(DaemonState::Stopping), "stopping"),
                (standing.caught_up, "the metadata are not current"),
            ];
            reasons.extend(checks.iter().filter(|(good, _)| !good).map(|(_, reason)| *reason));
        }
    }
    if !serving {
        reasons.push("clients are not served yet");
    }
    if stopping {
        reasons.push("stopping");
    }
    reasons.dedup();
    Readiness {
        ready: reasons.is_empty(),
        reasons,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_registered_unfenced_current_and_served() {
        let good = Standing {
            controller: Some(1),
            caught_up: true,
            in_touch: true,
            state: Some(DaemonState::Active),
            daemon_epoch: Some(5),
            ..Standing::default()
        };
        assert!(judge(Some(&good), true, false).ready);
        assert!(!judge(None, false, false).ready);
        for wrong in [
            Standing {
                controller: None,
                ..good.clone()
            },
            Standing {
                caught_up: false,
                ..good.clone()
            },
            Standing {
                state: Some(DaemonState::Fenced),
                ..good.clone()
            },
            Standing {
                daemon_epoch: None,
                state: None,
                ..good.clone()
            },
        ] {
            let judged = judge(Some(&wrong), true, false);
            assert!(!judged.ready && judged.reasons.len() == 1, "{judged:?}");
        }
        assert!(!judge(Some(&good), false, false).ready);
        assert!(!judge(Some(&good), true, true).ready);
    }
}
