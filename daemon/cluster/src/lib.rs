//! Raft metadata, replication of logs and the mesh protocol.
//!
//! Two halves. **Metadata**: [`command`]s go through one Raft log; `apply` makes the next [`image`] from them;
//! [`metadata`] is the handle. **Data**: [`replica`] is one partition's copy here, `replicate` the streams between
//! copies, `in_sync` and `flusher` what moves the high watermark, `cleaner` what compacts. [`Cluster`] ties them together; `gate` is the door for
//! everyone else.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod apply;
mod audit;
pub mod bugs;
mod calls;
mod cleaner;
mod cluster;
pub mod command;
pub mod config;
mod control;
mod controller;
mod election;
mod flusher;
mod gate;
pub mod image;
mod in_sync;
mod inner;
pub mod link;
mod members;
#[cfg(test)]
mod members_tests;
pub mod metadata;
pub mod metrics;
mod node;
#[cfg(test)]
mod node_tests;
pub mod overview;
mod peers;
mod placement;
#[cfg(test)]
mod quic_tests;
mod quorum;
mod raft;
mod rehearsal;
pub mod replica;
mod replicas;
mod replicate;
mod rpc;
#[cfg(test)]
mod test_net;
pub mod threads;

pub use calls::{CallError, CallHandler};
pub use cleaner::CleanerOptions;
pub use cluster::{Cluster, ClusterError, ClusterOptions, KafkaStreams};
pub use members::{MemberChange, MembersError};
pub use quorum::{Quorum, QuorumMember};
