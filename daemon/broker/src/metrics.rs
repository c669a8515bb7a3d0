//! This crate's metrics: the one place where their names and kinds stand.

#![allow(
    clippy::disallowed_macros,
    reason = "this is the file where metrics are recorded"
)]

use std::time::Duration;

use tradewind_wire::api::ApiKey;

/// Every metric of this crate with its help text.
pub const METRICS: &[(&str, &str)] = &[
    (
        "tradewind_kafka_request_duration_seconds",
        "Time to handle a Kafka request, by API; a produce request's wait for replication is not in it.",
    ),
    (
        "tradewind_produced_bytes_total",
        "Bytes of record batches appended for producers.",
    ),
    (
        "tradewind_fetched_bytes_total",
        "Bytes of record batches handed to consumers.",
    ),
    (
        "tradewind_fetch_answers_total",
        "Fetch requests answered, by what ended the wait: nothing (`at_once`), `data`, or the `time` that the client gave.",
    ),
    ("tradewind_fetch_sessions", "Fetch sessions that are open."),
    (
        "tradewind_fetch_session_partitions",
        "Partitions in all open fetch sessions.",
    ),
    (
        "tradewind_fetch_sessions_evicted_total",
        "Fetch sessions that made room for others.",
    ),
    (
        "tradewind_refused_batches_total",
        "Produced batches that were refused, by error.",
    ),
    (
        "tradewind_guarded_topics",
        "Topics that clients may not write since this daemon started, until another cluster has answered; by that cluster.",
    ),
];

pub(crate) fn handled(key: ApiKey, took: Duration) {
    metrics::histogram!("tradewind_kafka_request_duration_seconds", "api" => key.name())
        .record(took.as_secs_f64());
}

pub(crate) fn produced(bytes: usize) {
    metrics::counter!("tradewind_produced_bytes_total").increment(bytes as u64);
}

pub(crate) fn fetched(bytes: usize) {
    metrics::counter!("tradewind_fetched_bytes_total").increment(bytes as u64);
}

/// `enough` is whether there was as much as the client wanted.
pub(crate) fn fetch_answered(waited: bool, enough: bool) {
    let ended_by = match (waited, enough) {
        (false, _) => "at_once",
        (true, true) => "data",
        (true, false) => "time",
    };
    metrics::counter!("tradewind_fetch_answers_total", "after" => ended_by).increment(1);
}

pub(crate) fn fetch_sessions(sessions: usize, partitions: usize) {
    metrics::gauge!("tradewind_fetch_sessions").set(sessions as f64);
    metrics::gauge!("tradewind_fetch_session_partitions").set(partitions as f64);
}

pub(crate) fn fetch_session_evicted() {
    metrics::counter!("tradewind_fetch_sessions_evicted_total").increment(1);
}

pub(crate) fn guarded(peer: &str, topics: usize) {
    metrics::gauge!("tradewind_guarded_topics", "peer" => peer.to_owned()).set(topics as f64);
}

pub(crate) fn refused(code: &'static str) {
    metrics::counter!("tradewind_refused_batches_total", "error" => code).increment(1);
}
