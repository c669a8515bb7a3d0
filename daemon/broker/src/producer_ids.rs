//! Producer ids: handed out one by one from blocks that the metadata log gives to this daemon.
//!
//! A block is never given to two daemons, and what a daemon has not used when it stops is lost: an id is never used twice.

use tradewind_cluster::Cluster;
use tradewind_cluster::command::{Command, Outcome};
use tradewind_cluster::metadata::ProposeError;

use crate::broker::METADATA_TIMEOUT;

/// What is left of this daemon's block.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    next: i64,
    left: i32,
}

impl ProducerIds {
    /// The next id; asks for a new block when the last is used up.
    pub(crate) async fn next(&mut self, cluster: &Cluster) -> Result<i64, ProposeError> {
        if self.left <= 0 {
            let command = Command::AllocateProducerIds {
                node: cluster.node_id(),
            };
            match cluster.propose(command, METADATA_TIMEOUT).await? {
                Outcome::ProducerIds { first, count } if count > 0 => {
                    self.next = first;
                    self.left = count;
                }
                other => {
                    tracing::error!(?other, "a block of producer ids was answered with something else");
                    return Err(ProposeError::NoController);
                }
            }
        }
        let id = self.next;
        self.next += 1;
        self.left -= 1;
        Ok(id)
    }
}
