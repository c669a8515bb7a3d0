//! Groups of the consumer protocol (KIP-848): the coordinator computes the assignments, members only follow.
//!
//! A group is a state machine without time or I/O of its own, as a classic one is. Everything durable about it is in
//! records: an event writes records, and a record is applied to the state in the moment it is written, by the same code
//! that replays the log. So a replayed group is the group. `records.rs` has the records in Apache Kafka's formats,
//! `group.rs` the state, `heartbeat.rs` the protocol, `reconcile.rs` one member's way to its target, `assign.rs` the
//! assignors, `subscription.rs` what topics there are, `classic.rs` members that speak the classic protocol.

mod assign;
mod classic;
mod group;
mod heartbeat;
mod reconcile;
mod records;
mod subscription;
#[cfg(test)]
pub(super) mod tests;

pub(super) use classic::CONSUMER;
pub use group::{ConsumerConfig, ConsumerGroup, Migration};
pub use heartbeat::{Heartbeat, HeartbeatReply, Refusal};
pub use records::Partitions;
pub(super) use records::{ClassicMember, Record};
pub use subscription::{NoTopics, Topics};
