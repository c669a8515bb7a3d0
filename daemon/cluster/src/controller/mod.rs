//! What the controller does besides leading the Raft group: it keeps the daemons' sessions and acts on them.
//!
//! [`sessions`] decides, given events and the time; [`duties`] asks it on every tick and carries out what it says. All
//! of it is soft state: a new controller starts with every session fresh.

pub(crate) mod duties;
pub(crate) mod sessions;

#[cfg(test)]
mod sessions_tests;
