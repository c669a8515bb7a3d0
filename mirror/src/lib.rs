//! Flows between clusters: source, checkpoint, heartbeat and failover.
//!
//! The mirror runs inside each daemon of the *target* cluster. It reaches that cluster only through [`target::Target`] and
//! a source only through a client; it opens no socket and no file. A partition's source task runs on the daemon that leads
//! the partition, a group's checkpoint task on its coordinator, so that no work is ever assigned: it follows leadership.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod board;
pub mod checkpoint;
pub mod discovery;
pub mod formats;
mod metrics;
pub mod naming;
pub mod source;
pub mod status;
pub mod target;

use std::sync::Arc;

use bytes::Bytes;

use crate::status::{FailoverError, FailoverReport, FlowStatus};
use crate::target::Target;

/// The mirror of one daemon: all flows into its cluster, as far as they are this daemon's work.
#[derive(Clone)]
pub struct Mirror {
    target: Arc<dyn Target>,
}

impl Mirror {
    /// Answers another daemon's [`Target::call`].
    pub async fn answer(&self, _request: Bytes) -> Bytes {
        Bytes::new()
    }

    /// The status of every flow into this cluster, collected from all its daemons and the sources.
    pub async fn status(&self) -> Vec<FlowStatus> {
        Vec::new()
    }

    /// Fails a flow over: stops it, cuts its partitions at what is here, promotes its topics, leaves the groups usable.
    /// May be repeated at any time, on any daemon; continues where it stood and answers the same again.
    pub async fn failover(&self, flow: &str) -> Result<FailoverReport, FailoverError> {
        let _ = self.target.view();
        Err(FailoverError::UnknownFlow(flow.to_owned()))
    }
}
