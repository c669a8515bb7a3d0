//! What openraft is parametrised with, and how entries become bytes.
//!
//! Everything durable is one version byte followed by JSON: entries, votes and snapshots are few and small, and a person
//! can read them. A later version is refused with a clear error, never guessed at.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tradewind_wire::ids::NodeId;

use crate::command::Command;

openraft::declare_raft_types!(
    /// The types of the cluster's Raft group.
    pub(crate) TypeConfig:
        D = Proposal,
        R = (),
        NodeId = u64,
        Node = Member,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = bytes::Bytes,
        AsyncRuntime = super::runtime::Runtime,
);

pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, Member>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, Member>;
pub(crate) type Raft = openraft::Raft<TypeConfig>;

/// A command on its way into the log. The origin makes repeating it harmless: the first one in the log counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal {
    /// Who proposed it; `None` from the controller itself.
    pub(crate) origin: Option<Origin>,
    /// What is proposed.
    pub(crate) command: Command,
}

/// Who proposed something, and which of its proposals it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) node: NodeId,
    /// Random.
    pub(crate) nonce: u64,
}

/// A daemon as a member of the Raft group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Its mesh address, `host:port`, as it was when it became a member.
    pub(crate) mesh: String,
    /// Its data directory: RPCs for it must not reach another.
    pub(crate) storage_id: [u8; 16],
}

/// The number of a leader's reign: it grows with every change of leader. openraft allows two leaders in one term (the
/// greater node id is the later), so the term alone does not tell them apart.
pub(crate) fn reign(leader: &openraft::LeaderId<u64>) -> u64 {
    leader.term << 32 | leader.node_id & 0xffff_ffff
}

/// openraft's number for a daemon. Node ids are never negative.
pub(crate) fn raft_id(node: NodeId) -> u64 {
    u64::from(node.unsigned_abs())
}

/// The daemon behind openraft's number.
pub(crate) fn node_id(id: u64) -> NodeId {
    NodeId::try_from(id).unwrap_or(NodeId::MAX)
}

/// The version of everything that [`encode`] writes.
const VERSION: u8 = 1;

/// Why stored or received bytes cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("empty")]
    Empty,
    #[error("version {0} is later than this program")]
    Version(u8),
    #[error("not valid: {0}")]
    Json(#[from] serde_json::Error),
}

/// One version byte and JSON.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::with_capacity(256);
    bytes.push(VERSION);
    serde_json::to_writer(&mut bytes, value)?;
    Ok(bytes)
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match bytes.split_first() {
        None => Err(DecodeError::Empty),
        Some((&VERSION, json)) => Ok(serde_json::from_slice(json)?),
        Some((&version, _)) => Err(DecodeError::Version(version)),
    }
}
