//! This crate's metrics: the one place where their names and kinds stand, and the exporter for all crates.

#![allow(
    clippy::disallowed_macros,
    reason = "this is the file where metrics are recorded"
)]

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::gauges::{LastDrill, Measured};

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
    (
        "tradewind_certificate_expiry_timestamp_seconds",
        "When the first of this daemon's own certificates expires, in seconds since 1970.",
    ),
    ("tradewind_topics", "Topics of the cluster."),
    ("tradewind_partitions", "Partitions of the cluster."),
    (
        "tradewind_leaderless_partitions",
        "Partitions of the cluster without a leader.",
    ),
    (
        "tradewind_under_replicated_partitions",
        "Partitions of the cluster with a replica out of sync.",
    ),
    (
        "tradewind_under_min_isr_partitions",
        "Partitions of the cluster that refuse acks=all.",
    ),
    (
        "tradewind_moving_partitions",
        "Partitions of the cluster whose replicas are moved.",
    ),
    (
        "tradewind_fenced_topics",
        "Topics that clients may not write because another cluster has them or takes them over.",
    ),
    ("tradewind_daemons", "Daemons of the cluster, by state."),
    ("tradewind_led_partitions", "Partitions that this daemon leads."),
    ("tradewind_replicas", "Replicas on this daemon."),
    (
        "tradewind_out_of_sync_replicas",
        "Replicas on this daemon that are not in sync.",
    ),
    (
        "tradewind_mirror_state",
        "1 for the state that a flow is in, 0 for the others.",
    ),
    (
        "tradewind_mirror_drill_end_timestamp_seconds",
        "When a flow's last drill ended, in seconds since 1970.",
    ),
    (
        "tradewind_mirror_drill_passed",
        "Whether a flow's last drill passed (1) or not (0).",
    ),
    (
        "tradewind_mirror_drill_rto_seconds",
        "How long a flow's last drill took until the last partition took a record.",
    ),
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

/// When the first of our own certificates expires, in seconds since 1970.
pub(crate) fn certificate(expires_seconds: i64) {
    metrics::gauge!("tradewind_certificate_expiry_timestamp_seconds").set(expires_seconds as f64);
}

/// What the metadata say of the cluster and of this daemon.
pub(crate) fn metadata(found: &Measured) {
    let overview = &found.overview;
    metrics::gauge!("tradewind_topics").set(overview.topics as f64);
    metrics::gauge!("tradewind_partitions").set(overview.partitions as f64);
    metrics::gauge!("tradewind_leaderless_partitions").set(overview.leaderless as f64);
    metrics::gauge!("tradewind_under_replicated_partitions").set(overview.under_replicated as f64);
    metrics::gauge!("tradewind_under_min_isr_partitions").set(overview.under_min_isr as f64);
    metrics::gauge!("tradewind_moving_partitions").set(overview.moves.len() as f64);
    metrics::gauge!("tradewind_fenced_topics").set(found.fenced_topics as f64);
    for state in ["active", "stopping", "fenced", "not registered"] {
        let daemons = overview
            .daemons
            .iter()
            .filter(|daemon| daemon.state == state)
            .count();
        metrics::gauge!("tradewind_daemons", "state" => state).set(daemons as f64);
    }
    let [led, replicas, out_of_sync] = found.here;
    metrics::gauge!("tradewind_led_partitions").set(led as f64);
    metrics::gauge!("tradewind_replicas").set(replicas as f64);
    metrics::gauge!("tradewind_out_of_sync_replicas").set(out_of_sync as f64);
}

/// The state of a flow among all that there are, and its last drill if there was one.
pub(crate) fn flow(name: &str, states: [(&'static str, bool); 5], drill: Option<LastDrill>) {
    let flow = || name.to_owned();
    for (state, is) in states {
        metrics::gauge!("tradewind_mirror_state", "flow" => flow(), "state" => state)
            .set(f64::from(u8::from(is)));
    }
    if let Some(drill) = drill {
        let passed = f64::from(u8::from(drill.passed));
        metrics::gauge!("tradewind_mirror_drill_end_timestamp_seconds", "flow" => flow())
            .set(drill.ended_seconds);
        metrics::gauge!("tradewind_mirror_drill_passed", "flow" => flow()).set(passed);
        metrics::gauge!("tradewind_mirror_drill_rto_seconds", "flow" => flow()).set(drill.rto_seconds);
    }
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
