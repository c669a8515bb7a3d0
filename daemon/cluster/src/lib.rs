//! Raft metadata, replication of logs and the mesh protocol.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod command;
pub mod config;
pub mod image;
pub mod link;
pub mod metadata;
