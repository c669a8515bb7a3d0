//! What the controller does besides leading the Raft group: it keeps the daemons' sessions and acts on them.
//!
//! [`sessions`] decides, given events and the time, and [`voters`] who votes; [`duties`] asks on every tick and carries out
//! what they say. All of it is soft state: a new controller starts with every session fresh.

pub(crate) mod duties;
pub(crate) mod sessions;
pub(crate) mod voters;

#[cfg(test)]
mod sessions_tests;
