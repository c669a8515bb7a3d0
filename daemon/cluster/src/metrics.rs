//! This crate's metrics: the one place where their names and kinds stand.

#![allow(
    clippy::disallowed_macros,
    reason = "this is the file where metrics are recorded"
)]

use std::time::Duration;

/// Every metric of this crate with its help text.
pub const METRICS: &[(&str, &str)] = &[
    (
        "tradewind_log_fsync_duration_seconds",
        "Time that one flush of one partition's log took.",
    ),
    (
        "tradewind_log_compaction_duration_seconds",
        "Time that the compaction of one partition's log took.",
    ),
    (
        "tradewind_log_compaction_failed_total",
        "Compactions that damage or a failing disk has ended.",
    ),
    (
        "tradewind_replication_sent_bytes_total",
        "Record bytes pushed to followers (reader=follower) and mirrors (reader=mirror).",
    ),
    (
        "tradewind_replication_received_bytes_total",
        "Record bytes appended as a follower.",
    ),
    (
        "tradewind_in_sync_changes_total",
        "In-sync sets that this daemon proposed as a leader.",
    ),
    (
        "tradewind_mesh_refused_streams_total",
        "Streams from other daemons or clients that were refused.",
    ),
    (
        "tradewind_controller",
        "Whether this daemon is the controller of its cluster: 1 or 0.",
    ),
    (
        "tradewind_metadata_index",
        "The last entry of the metadata log that this daemon has applied.",
    ),
    (
        "tradewind_fences_proposed_total",
        "Daemons that this daemon, as controller, found silent or behind.",
    ),
];

pub(crate) fn standing(is_controller: bool, index: u64) {
    metrics::gauge!("tradewind_controller").set(if is_controller { 1.0 } else { 0.0 });
    metrics::gauge!("tradewind_metadata_index").set(index as f64);
}

pub(crate) fn fence_proposed() {
    metrics::counter!("tradewind_fences_proposed_total").increment(1);
}

pub(crate) fn flushed(took: Duration) {
    metrics::histogram!("tradewind_log_fsync_duration_seconds").record(took.as_secs_f64());
}

pub(crate) fn compacted(took: Duration) {
    metrics::histogram!("tradewind_log_compaction_duration_seconds").record(took.as_secs_f64());
}

pub(crate) fn compaction_failed() {
    metrics::counter!("tradewind_log_compaction_failed_total").increment(1);
}

pub(crate) fn pushed(mirror: bool, bytes: usize) {
    let reader = if mirror { "mirror" } else { "follower" };
    metrics::counter!("tradewind_replication_sent_bytes_total", "reader" => reader).increment(bytes as u64);
}

pub(crate) fn followed(bytes: usize) {
    metrics::counter!("tradewind_replication_received_bytes_total").increment(bytes as u64);
}

pub(crate) fn in_sync_proposed(count: usize) {
    metrics::counter!("tradewind_in_sync_changes_total").increment(count as u64);
}

pub(crate) fn stream_refused() {
    metrics::counter!("tradewind_mesh_refused_streams_total").increment(1);
}
