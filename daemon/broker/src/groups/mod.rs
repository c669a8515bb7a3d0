//! Consumer groups, of the classic protocol and of the consumer protocol (KIP-848).
//!
//! `consumer/` has the second. Of the first, `group.rs`, `join.rs`, `sync.rs` and `rebalance.rs` are a state machine without time or I/O of its own;
//! `offsets.rs` are the positions beside it; `record.rs` is what the log keeps of both. `shard.rs` holds the groups of one
//! partition of `__consumer_offsets` under one leader epoch; `coordinator.rs` and `commits.rs` are what handlers call.
//! `migration.rs` takes a group with members from one protocol to the other.

mod commits;
mod consumer;
mod consumer_calls;
#[cfg(test)]
mod consumer_calls_tests;
mod coordinator;
#[cfg(test)]
mod coordinator_tests;
mod error;
#[cfg(test)]
mod fuzz_tests;
mod group;
mod join;
mod journal;
mod member;
mod migration;
#[cfg(test)]
mod migration_tests;
mod moving;
#[cfg(test)]
mod moving_tests;
mod offsets;
mod rebalance;
pub mod record;
mod removal;
#[cfg(test)]
mod removal_tests;
mod shard;
mod sync;
#[cfg(test)]
mod tests;

pub use consumer::{
    ConsumerConfig, ConsumerGroup, Heartbeat, HeartbeatReply, Migration, NoTopics, Partitions, Refusal,
    Topics,
};
pub use coordinator::{Committer, Coordinator, DescribedMember, Description, Listing, Now, Position};
pub use error::GroupError;
pub use group::{Effect, Group, GroupConfig, GroupState, Token};
pub use join::{Join, JoinReply, JoinedMember};
pub use journal::{EachRecord, Entry, Journal};
pub use member::Member;
pub use moving::LastPosition;
pub use offsets::{MirroredCommit, MirroredStatus, Offsets};
pub use record::MirroredFrom;
pub use sync::{Sync, SyncReply};
