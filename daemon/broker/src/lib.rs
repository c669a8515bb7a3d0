//! Kafka semantics over a cluster.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod groups;
