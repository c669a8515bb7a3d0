//! One member of a classic group.

use bytes::Bytes;

use super::group::Token;

/// What a member offers when it joins, and what is known about it while it stays.
#[derive(Debug, Clone)]
pub struct Member {
    /// The member id that the coordinator gave it.
    pub id: String,
    /// The static instance id (KIP-345), if it has one.
    pub instance_id: Option<String>,
    /// The client id of its connection.
    pub client_id: String,
    /// The address it came from, as Kafka writes it (`/127.0.0.1`).
    pub client_host: String,
    /// How long it may stay silent.
    pub session_timeout_ms: i32,
    /// How long it may take to join again.
    pub rebalance_timeout_ms: i32,
    /// Protocol names in the order of its preference, each with the member's metadata for it.
    pub protocols: Vec<(String, Bytes)>,
    /// What the leader assigned to it; empty until a generation is stable.
    pub assignment: Bytes,
    /// Its JoinGroup that waits for an answer.
    pub(super) joining: Option<Token>,
    /// Its SyncGroup that waits for an answer.
    pub(super) syncing: Option<Token>,
    /// Whether it has yet to send a SyncGroup in this generation.
    pub(super) owes_sync: bool,
    /// Whether its first JoinGroup has not been answered yet.
    pub(super) is_new: bool,
    /// When it is dropped unless it is heard from.
    pub(super) expires_at: i64,
}

impl Member {
    /// The metadata it offered for `protocol`; empty if it did not offer that one.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|(name, _)| name == protocol)
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }

    /// Whether it offers `protocol`.
    pub fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// Whether its session has run out. A member that waits for an answer is alive, since its connection is held here;
    /// a new one, whose client may have gone without a trace, only until its first deadline.
    pub(super) fn is_expired(&self, now: i64) -> bool {
        let held = !self.is_new && (self.joining.is_some() || self.syncing.is_some());
        !held && self.expires_at <= now
    }

    /// Starts its session anew.
    pub(super) fn touch(&mut self, now: i64) {
        self.expires_at = now + i64::from(self.session_timeout_ms);
    }
}
