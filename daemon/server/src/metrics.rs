//! This crate's metrics: the one place where their names and kinds stand, and the exporter for all crates.

#![allow(
    clippy::disallowed_macros,
    reason = "this is the file where metrics are recorded"
)]

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Every metric of this crate with its help text.
pub(crate) const METRICS: &[(&str, &str)] = &[
    (
        "tradewind_build_info",
        "Always 1; the label says which version runs.",
    ),
    (
        "tradewind_kafka_connections",
        "Open connections of Kafka clients, by listener.",
    ),
    (
        "tradewind_kafka_connections_refused_total",
        "Connections closed because there were too many.",
    ),
    (
        "tradewind_kafka_bad_frames_total",
        "Connections closed because of what they sent.",
    ),
    ("tradewind_ready", "Whether this daemon is ready (1) or not (0)."),
];

/// The metrics of every crate.
const PARTS: [&[(&str, &str)]; 5] = [
    METRICS,
    tradewind_cluster::metrics::METRICS,
    tradewind_log::metrics::METRICS,
    tradewind_broker::metrics::METRICS,
    tradewind_mirror::metrics::METRICS,
];

/// Installs the recorder that every crate records into.
pub(crate) fn install() -> Result<PrometheusHandle, BuildError> {
    // Without buckets the exporter would make summaries, which cannot be added up over daemons.
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES)?
        .install_recorder()?;
    for (name, help) in PARTS.into_iter().flatten() {
        if name.ends_with("_total") {
            metrics::describe_counter!(*name, *help);
        } else if name.ends_with("_duration_seconds") || name.ends_with("_latency_seconds") {
            metrics::describe_histogram!(*name, *help);
        } else {
            metrics::describe_gauge!(*name, *help);
        }
    }
    metrics::gauge!("tradewind_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// Counts a connection of a listener for as long as it lives.
pub(crate) struct OpenConnection(metrics::Gauge);

impl OpenConnection {
    /// One more.
    pub(crate) fn new(listener: &str) -> Self {
        let gauge = metrics::gauge!("tradewind_kafka_connections", "listener" => listener.to_owned());
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

pub(crate) fn connection_refused() {
    metrics::counter!("tradewind_kafka_connections_refused_total").increment(1);
}

pub(crate) fn bad_frame() {
    metrics::counter!("tradewind_kafka_bad_frames_total").increment(1);
}

pub(crate) fn ready(ready: bool) {
    metrics::gauge!("tradewind_ready").set(f64::from(u8::from(ready)));
}

/// From a cache hit to a stuck disk.
const SECONDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const BYTES: [f64; 9] = [
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    16_777_216.0,
    104_857_600.0,
];

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
