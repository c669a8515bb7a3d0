//! Kafka messages, record batches and compression, and the frames of the Tradewind mesh.
//!
//! This crate is bytes in, values out (and back): it opens nothing, reads no clock and never waits. Every length that
//! arrives in a frame is checked against what is left of that frame before anything is allocated for it.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod batch;
pub mod clock;
pub mod compression;
pub mod flow;
pub mod ids;
pub mod mesh;
