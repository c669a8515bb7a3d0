//! How the Raft group of the metadata stands, for people who ask: who leads, who votes, how far everyone's log reaches.
//!
//! Only the leader knows how far the others are, so any other daemon asks it. Nothing decides by this.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tradewind_wire::ids::NodeId;

use crate::calls::{CallError, CallHandler};
use crate::cluster::Cluster;
use crate::metadata::Metadata;

/// The name of the call that asks the leader.
const CALL: &str = "quorum";

/// How long the leader may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The Raft group as one daemon sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quorum {
    /// The leader as last heard.
    pub leader: Option<NodeId>,
    /// The Raft term. Two leaders may have followed each other in one; the later has the greater id.
    pub term: u64,
    /// The index behind the last entry that is known to be held by a majority.
    pub committed_end: u64,
    /// Those who vote.
    pub voters: Vec<QuorumMember>,
    /// Those who only follow the log.
    pub learners: Vec<QuorumMember>,
}

/// A member of the Raft group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuorumMember {
    /// The daemon.
    pub node: NodeId,
    /// The index behind the last entry of its log; `None` if the daemon that tells does not know.
    pub end: Option<u64>,
    /// Its data directory, zero if the daemon that tells does not know.
    #[serde(default)]
    pub storage_id: [u8; 16],
}

impl Cluster {
    /// The Raft group as its leader sees it.
    pub async fn quorum(&self) -> Result<Quorum, CallError> {
        let own = self.node_id();
        let fail = |reason: &str| CallError {
            node: own,
            reason: reason.to_owned(),
        };
        let leader = self.metadata().controller();
        let leader = leader.ok_or_else(|| fail("no controller is known"))?;
        let answer = self.call(leader, CALL, Bytes::new(), TIMEOUT).await?;
        let quorum: Quorum = serde_json::from_slice(&answer).map_err(|error| fail(&error.to_string()))?;
        if quorum.leader == Some(leader) {
            return Ok(quorum);
        }
        Err(fail("the controller has changed meanwhile"))
    }
}

/// What answers [`Cluster::quorum`] of other daemons.
pub(crate) fn answer(metadata: Metadata) -> (&'static str, CallHandler) {
    let handler: CallHandler = Arc::new(move |_| {
        let metadata = metadata.clone();
        Box::pin(async move {
            let quorum = metadata.quorum().await.map_err(|error| error.to_string())?;
            let json = serde_json::to_vec(&quorum).map_err(|error| error.to_string())?;
            Ok(Bytes::from(json))
        })
    });
    (CALL, handler)
}
