//! Kafka semantics over a cluster: one handler per API, the group coordinator, topic configurations.
//!
//! [`Broker`] takes frames and gives frames. It opens no sockets (the program does), stores nothing by itself (the cluster
//! does) and decides nothing about leaders. `dispatch.rs` is the way of a request, `errors.rs` the one place that chooses
//! Kafka's codes, `groups/` a coordinator that could run without any of the rest.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod api;
mod broker;
mod configs;
mod dispatch;
mod errors;
mod fetching;
pub mod groups;
pub mod guard;
pub mod metrics;
mod offsets_topic;
mod producer_ids;
mod topics;
mod validation;

pub use broker::{Broker, BrokerConfig, Connection, MESH_LISTENER, Reply};
pub use offsets_topic::NAME as OFFSETS_TOPIC;
