//! Every metric of the mirror, by name and meaning.

#![allow(
    clippy::disallowed_macros,
    reason = "this is the file where metrics are recorded"
)]

use metrics::counter;

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
