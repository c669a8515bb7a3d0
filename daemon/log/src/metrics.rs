//! This crate's metrics: the one place where their names and kinds stand.
#![allow(
    clippy::disallowed_macros,
    reason = "this is the file in which the crate's metrics are declared"
)]

use metrics::{counter, gauge};

/// Every metric of this crate with its help text.
pub const METRICS: &[(&str, &str)] = &[
    (
        "tradewind_log_appended_bytes_total",
        "Bytes appended to partition logs on this daemon.",
    ),
    (
        "tradewind_log_appended_batches_total",
        "Record batches appended to partition logs on this daemon.",
    ),
    (
        "tradewind_log_read_bytes_total",
        "Bytes read from partition logs, by source: tail (memory) or file.",
    ),
    (
        "tradewind_log_failed_total",
        "Logs put out of service by an I/O error.",
    ),
    (
        "tradewind_log_disk_full_total",
        "Appends refused because the device was full, up to its reserve.",
    ),
    (
        "tradewind_log_disk_full",
        "Whether the device is full up to its reserve, so that writes are refused: 1 or 0.",
    ),
    (
        "tradewind_log_disk_usable_bytes",
        "Bytes that are free on the device of the data directory.",
    ),
    (
        "tradewind_log_truncated_bytes_total",
        "Bytes of torn tails that recovery has cut off.",
    ),
    (
        "tradewind_log_damaged_total",
        "Logs found damaged below their flushed end when opened.",
    ),
    (
        "tradewind_log_deleted_segments_total",
        "Segments deleted by retention or DeleteRecords.",
    ),
    (
        "tradewind_log_compacted_segments_total",
        "Segments that compaction has written.",
    ),
    (
        "tradewind_log_compacted_bytes_before_total",
        "Bytes of the segments that compaction has replaced.",
    ),
    (
        "tradewind_log_compacted_bytes_after_total",
        "Bytes of the segments that compaction has written.",
    ),
    ("tradewind_log_tail_bytes", "Bytes that the tail cache holds."),
    (
        "tradewind_log_tail_evicted_bytes_total",
        "Bytes dropped from the tail cache because of its limit.",
    ),
    (
        "tradewind_log_producers_forgotten_total",
        "Producers forgotten because a log remembered too many.",
    ),
];

pub(crate) fn appended(batches: usize, bytes: usize) {
    counter!("tradewind_log_appended_bytes_total").increment(bytes as u64);
    counter!("tradewind_log_appended_batches_total").increment(batches as u64);
}

pub(crate) fn read_from_tail(bytes: usize) {
    counter!("tradewind_log_read_bytes_total", "source" => "tail").increment(bytes as u64);
}

pub(crate) fn read_from_file(bytes: usize) {
    counter!("tradewind_log_read_bytes_total", "source" => "file").increment(bytes as u64);
}

pub(crate) fn failed() {
    counter!("tradewind_log_failed_total").increment(1);
}

pub(crate) fn disk_full() {
    counter!("tradewind_log_disk_full_total").increment(1);
}

pub(crate) fn disk(usable_bytes: i64, full: bool) {
    gauge!("tradewind_log_disk_usable_bytes").set(usable_bytes as f64);
    gauge!("tradewind_log_disk_full").set(f64::from(u8::from(full)));
}

pub(crate) fn recovered(truncated_bytes: u64, damaged: bool) {
    counter!("tradewind_log_truncated_bytes_total").increment(truncated_bytes);
    counter!("tradewind_log_damaged_total").increment(u64::from(damaged));
}

pub(crate) fn deleted(segments: usize) {
    counter!("tradewind_log_deleted_segments_total").increment(segments as u64);
}

pub(crate) fn compacted(before: u64, after: u64) {
    counter!("tradewind_log_compacted_segments_total").increment(1);
    counter!("tradewind_log_compacted_bytes_before_total").increment(before);
    counter!("tradewind_log_compacted_bytes_after_total").increment(after);
}

pub(crate) fn tail(bytes: usize) {
    gauge!("tradewind_log_tail_bytes").set(bytes as f64);
}

pub(crate) fn tail_evicted(bytes: usize) {
    counter!("tradewind_log_tail_evicted_bytes_total").increment(bytes as u64);
}

pub(crate) fn producers_forgotten(count: usize) {
    counter!("tradewind_log_producers_forgotten_total").increment(count as u64);
}
