//! Flows between clusters: source, checkpoint, heartbeat, failover, failback, switchover and drills.
//!
//! The mirror runs inside each daemon of the *target* cluster. It reaches that cluster only through [`target::Target`] and
//! a source only through [`source::Source`]; it opens no socket and no file. A partition's source task runs on the daemon
//! that leads the partition, a group's checkpoint task on its coordinator, so that no work is ever assigned: it follows
//! leadership.
//!
//! ```text
//! Mirror ── runner: one Flow per declared flow, heartbeats
//!            └ Flow (active): supervisor ─ links ─ tracks      passes (groups)
//!                   (failing over): cuts -> promoted -> final group positions
//!                   (switching over): as active, and the steward drives the steps at both sides
//!                   (failed over): the steward tells the source, and brings it back when asked
//!          drill: a failover of an active flow is rehearsed beside it
//!          fence: at a source, where the logs of fenced topics end
//!          rescue: at a source that returned, what its target never got is kept
//! ```
//!
//! Deciding code (`naming`, `matching`, `discovery`, `source::track`, `source::batches`, `checkpoint`, `status`) is pure; read it first.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod board;
pub mod checkpoint;
pub mod declaring;
pub mod discovery;
mod drill;
pub mod drill_report;
mod failback;
pub mod failback_report;
mod failover;
#[cfg(test)]
mod fakes;
mod fence;
mod flow;
pub mod formats;
mod gauges;
mod heartbeat;
pub mod matching;
pub mod metrics;
pub mod naming;
mod origins;
mod passes;
mod peers;
mod problems;
mod rescue;
mod runner;
pub mod source;
pub mod status;
mod supervisor;
mod switchover;
pub mod switchover_report;
pub mod target;
mod transactions;
pub mod verify;

pub use runner::{Mirror, Sources, network_sources};
