//! The `control` conversation: heartbeats and proposals from a daemon to its controller.
//!
//! Heartbeats and proposals share a stream, many under way at once. A proposal is only *taken* here; its answer is the
//! origin's own state machine's business (see [`crate::raft::Waiting`]), so an answer that is lost costs nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tradewind_wire::ids::NodeId;
use tradewind_wire::mesh::Conversation;

use crate::link::LinkError;
use crate::raft::{Proposal, decode, encode};
use crate::rpc::{Caller, Dialer, Line};

/// What a daemon says to its controller.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// It runs.
    Beat(Beat),
    /// It wants this in the log.
    Propose(Box<Proposal>),
}

/// A heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Beat {
    pub(crate) node: NodeId,
    /// Its registration; -1 before it has one.
    pub(crate) daemon_epoch: i64,
    /// The last entry that it has applied.
    pub(crate) applied: u64,
}

/// What the other side says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// It is the controller, a quorum follows it, and this is how far it has applied the log.
    Heard { applied: u64 },
    /// The proposal is applied there, at this index.
    Taken { index: u64 },
    /// It is not the controller; perhaps this one is.
    NotController(Option<NodeId>),
    /// The proposal may or may not come into the log.
    Unknown,
}

/// Lines to other daemons for this conversation, one each, opened when needed.
pub(crate) struct Lines {
    dialer: Arc<Dialer>,
    lines: Mutex<HashMap<NodeId, Arc<tokio::sync::Mutex<Line>>>>,
}

impl Lines {
    pub(crate) fn new(dialer: Arc<Dialer>) -> Self {
        Self {
            dialer,
            lines: Mutex::default(),
        }
    }

    /// Asks `node`, at most for `timeout` including the opening of the line.
    pub(crate) async fn ask(
        &self,
        node: NodeId,
        request: &Request,
        timeout: Duration,
    ) -> Result<Reply, LinkError> {
        let failed = |reason: String| LinkError { node, reason };
        let frame = encode(request).map_err(|error| failed(error.to_string()))?;
        let asked = async {
            let caller = self.caller(node).await?;
            let answer = caller.call(&[Bytes::from(frame)], timeout).await?;
            decode(&answer).map_err(|error| failed(error.to_string()))
        };
        tokio::time::timeout(timeout, asked)
            .await
            .unwrap_or_else(|_| Err(failed("no answer in time".to_owned())))
    }

    async fn caller(&self, node: NodeId) -> Result<Arc<Caller>, LinkError> {
        let line = Arc::clone(self.lines.lock().entry(node).or_insert_with(|| {
            let line = Line::new(Arc::clone(&self.dialer), node, Conversation::Control, None);
            Arc::new(tokio::sync::Mutex::new(line))
        }));
        line.lock_owned().await.caller().await
    }
}
