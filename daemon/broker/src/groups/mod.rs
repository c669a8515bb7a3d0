//! Consumer groups of the classic protocol.
//!
//! `group.rs`, `join.rs` and `sync.rs` are a state machine without time or I/O of its own; `record.rs` is what the log
//! keeps of it.

mod error;
mod group;
mod join;
mod member;
pub mod record;
mod sync;
#[cfg(test)]
mod tests;

pub use error::GroupError;
pub use group::{Effect, Group, GroupConfig, GroupState, Token};
pub use join::{Join, JoinReply, JoinedMember};
pub use member::Member;
pub use sync::{Sync, SyncReply};
