//! Daemons join and leave the cluster by an operator's word: what can be asked for, by any daemon, and why it is refused.
//!
//! The controller does it (`node/members.rs`): it alone can change the Raft group. Every step may be repeated; what is done
//! already is success.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tradewind_wire::ids::NodeId;

use crate::calls::CallHandler;
use crate::cluster::Cluster;
use crate::metadata::Metadata;

/// The name of the call that asks the controller.
const CALL: &str = "members";

/// How long the controller may take.
const TIMEOUT: Duration = Duration::from_secs(25);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChange {
    /// A daemon that runs with an empty data directory is to follow the metadata, and to vote if its vote is needed.
    Add {
        /// Its id.
        node: NodeId,
        /// Its mesh address, `host:port`.
        mesh: String,
        /// Whether it takes the place of a dead daemon of the same id, whose data directory is lost for good.
        replace: bool,
    },
    /// A daemon that has been stopped and holds no replicas is forgotten.
    Remove {
        /// Its id.
        node: NodeId,
    },
}

/// Why a change of the members was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MembersError {
    /// There is no such daemon.
    #[error("daemon {0} is no member of this cluster")]
    NotMember(NodeId),
    /// The id belongs to a member with another data directory.
    #[error(
        "daemon {0} is a member with another data directory: start it with that one; or, if that is lost for good, add it \
         with --replace"
    )]
    OtherDirectory(NodeId),
    /// The daemon has been a member of some cluster, or of this one.
    #[error(
        "the data directory of daemon {0} is not empty: it belongs to another cluster, or to an earlier member"
    )]
    NotBlank(NodeId),
    /// The daemon is in service.
    #[error("daemon {0} is in service: stop it first")]
    InService(NodeId),
    /// The daemon holds replicas, or is to get some.
    #[error("daemon {node} holds replicas of {partitions} partitions: drain it first, with its replicas")]
    HoldsReplicas {
        /// The daemon.
        node: NodeId,
        /// How many.
        partitions: usize,
    },
    /// The daemon to add does not answer at its address.
    #[error("daemon {node} does not answer at {mesh}: {reason}")]
    Unreachable {
        /// The daemon.
        node: NodeId,
        /// The address.
        mesh: String,
        /// What went wrong.
        reason: String,
    },
    /// No controller could be asked, or it has changed meanwhile. What was begun may be done; repeating it is safe.
    #[error("the controller did not do it: {0}; repeat it")]
    Failed(String),
}

impl Cluster {
    /// Asks the controller to change the members.
    pub async fn change_members(&self, change: &MemberChange) -> Result<(), MembersError> {
        let failed = |reason: &dyn std::fmt::Display| MembersError::Failed(reason.to_string());
        let leader = self.metadata().controller();
        let leader = leader.ok_or_else(|| failed(&"none is known"))?;
        let json = serde_json::to_vec(change).map_err(|error| failed(&error))?;
        let answer = self.call(leader, CALL, Bytes::from(json), TIMEOUT).await;
        let answer = answer.map_err(|error| failed(&error))?;
        serde_json::from_slice(&answer).map_err(|error| failed(&error))?
    }
}

/// What answers [`Cluster::change_members`] of other daemons.
pub(crate) fn answer(metadata: Metadata) -> (&'static str, CallHandler) {
    let handler: CallHandler = Arc::new(move |request| {
        let metadata = metadata.clone();
        Box::pin(async move {
            let change = serde_json::from_slice(&request).map_err(|error| error.to_string())?;
            let changed: Result<(), MembersError> = metadata.change_members(change).await;
            let json = serde_json::to_vec(&changed).map_err(|error| error.to_string())?;
            Ok(Bytes::from(json))
        })
    });
    (CALL, handler)
}
