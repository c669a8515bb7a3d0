//! Kafka messages, record batches and compression, and the frames of the Tradewind mesh.
//!
//! This crate is bytes in, values out (and back): it opens nothing, reads no clock and never waits. Every length that
//! arrives in a frame is checked against what is left of that frame before anything is allocated for it.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod audit;
pub mod batch;
pub mod clock;
pub mod codec;
pub mod compression;
pub mod consumer_protocol;
pub mod drill;
pub mod error;
pub mod failback;
pub mod flow;
pub mod guard;
pub mod ids;
pub mod mesh;
pub mod messages;
#[cfg(test)]
#[allow(missing_docs)]
pub mod random;
pub mod region;
