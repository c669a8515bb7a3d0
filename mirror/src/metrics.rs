//! Every metric of the mirror, by name and meaning.

#![allow(
    clippy::disallowed_macros,
    reason = "this is the file where metrics are recorded"
)]

use metrics::{counter, gauge};

use crate::gauges::Gauges;

/// Every metric of this crate with its help text.
pub const METRICS: &[(&str, &str)] = &[
    (
        "tradewind_mirror_appended_bytes_total",
        "Record bytes copied from sources, as they are on disk.",
    ),
    (
        "tradewind_mirror_appended_offsets_total",
        "Offsets by which copies moved on, gaps included.",
    ),
    (
        "tradewind_mirror_trimmed_batches_total",
        "Batches that overlapped the position and were packed again.",
    ),
    (
        "tradewind_mirror_group_positions_written_total",
        "Group positions sent to coordinators here.",
    ),
    (
        "tradewind_mirror_source_failures_total",
        "Questions that a source did not answer.",
    ),
    (
        "tradewind_mirror_lag_records",
        "Records that the source has and this cluster has not, of partitions copied by this daemon.",
    ),
    (
        "tradewind_mirror_lag_seconds",
        "For how long the partition that is behind for longest has been, of those copied by this daemon.",
    ),
    (
        "tradewind_mirror_source_up",
        "Whether the source answered this daemon when it was last asked: 1 or 0.",
    ),
    (
        "tradewind_mirror_partitions",
        "Partitions copied by this daemon, by state: active, retrying, diverged or failed.",
    ),
    (
        "tradewind_mirror_gapped_partitions",
        "Those that lack records which the source had removed before they were copied.",
    ),
    (
        "tradewind_mirror_group_positions",
        "Group positions of a flow that this daemon keeps, by state: exact, pending, owned-here or unmapped.",
    ),
];

/// Batches were appended: their size, and how far the log end moved.
pub(crate) fn mirrored(bytes: usize, offsets: i64) {
    counter!("tradewind_mirror_appended_bytes_total").increment(bytes as u64);
    counter!("tradewind_mirror_appended_offsets_total").increment(u64::try_from(offsets).unwrap_or(0));
}

/// Batches that overlapped the position were packed again.
pub(crate) fn trimmed(batches: usize) {
    if batches > 0 {
        counter!("tradewind_mirror_trimmed_batches_total").increment(batches as u64);
    }
}

/// A group position was written.
pub(crate) fn positions(written: usize) {
    if written > 0 {
        counter!("tradewind_mirror_group_positions_written_total").increment(written as u64);
    }
}

/// A source did not answer.
pub(crate) fn source_failure() {
    counter!("tradewind_mirror_source_failures_total").increment(1);
}

/// How a flow does, as far as this daemon copies it.
pub(crate) fn flow(name: &str, now: &Gauges) {
    let flow = || name.to_owned();
    gauge!("tradewind_mirror_lag_records", "flow" => flow()).set(now.lag_records as f64);
    gauge!("tradewind_mirror_lag_seconds", "flow" => flow()).set(now.lag_seconds);
    gauge!("tradewind_mirror_source_up", "flow" => flow()).set(f64::from(u8::from(now.source_up)));
    let states = [
        ("active", now.active),
        ("retrying", now.retrying),
        ("diverged", now.diverged),
        ("failed", now.failed),
    ];
    for (state, partitions) in states {
        gauge!("tradewind_mirror_partitions", "flow" => flow(), "state" => state).set(partitions as f64);
    }
    gauge!("tradewind_mirror_gapped_partitions", "flow" => flow()).set(now.gapped as f64);
    let states = [
        ("exact", now.positions.exact),
        ("pending", now.positions.pending),
        ("owned-here", now.positions.owned_here),
        ("unmapped", now.positions.unmapped),
    ];
    for (state, positions) in states {
        gauge!("tradewind_mirror_group_positions", "flow" => flow(), "state" => state).set(positions as f64);
    }
}
