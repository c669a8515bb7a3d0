//! The acceptance checks of Kafka's behaviour, numbered 1 to 44: each test is named after its check and says what a
//! client sees on the wire.
//!
//! By default they run against one cluster of three daemons that all tests of this program share; each uses topics and
//! groups of its own. With `KAFKA_BOOTSTRAP=host:port` they run against that cluster instead, and with `KAFKA_ORACLE=1`
//! it is taken to be Apache Kafka, which judges the checks: `tests/clients/run checks --oracle`. A check that Apache
//! Kafka fails is wrong. What only daemons of our own can show (a killed one, a setting of its own) is not run there,
//! and its comment says so.
#![allow(
    clippy::disallowed_methods,
    reason = "suites measure real time against real processes"
)]

mod compaction;
mod configs;
mod connection;
mod consumer_groups;
mod creation;
mod epochs;
mod expiry;
mod fetch;
mod groups;
mod list_offsets;
mod member;
mod offsets;
mod produce;
mod producers;
mod records;
mod sessions;
mod support;
mod topics;
