//! A replica towards its followers: their sessions and acknowledgements, and the in-sync set that follows from them.

use tradewind_wire::ids::NodeId;

use super::{LeaderView, Replica, ReplicaError, Role};
use crate::bugs::{self, Bug};

impl Replica {
    /// What the leader wants the in-sync set to be: `(leader epoch, partition epoch, set)`; remembered as proposed. Nobody is
    /// added but who `may_be_in`.
    pub(crate) fn propose_in_sync(
        &self,
        lag_max_ms: i64,
        may_be_in: impl Fn(NodeId) -> bool,
    ) -> Option<InSyncProposal> {
        let mut state = self.state.lock();
        let Role::Leader(leadership) = &mut state.role else {
            return None;
        };
        let now_ms = self.context.clock.now_ms();
        let wanted = leadership.wanted(self.log.end(), now_ms, lag_max_ms, may_be_in)?;
        leadership.propose(wanted.clone());
        let members = wanted
            .into_iter()
            .map(|node| {
                (
                    node,
                    leadership.follower(node).map(|follower| follower.daemon_epoch),
                )
            })
            .collect();
        Some(InSyncProposal {
            leader_epoch: leadership.epoch,
            partition_epoch: leadership.partition_epoch(),
            members,
        })
    }

    /// The controller definitely refused the proposal.
    pub(crate) fn in_sync_refused(&self, leader_epoch: i32) {
        let mut state = self.state.lock();
        if let Role::Leader(leadership) = &mut state.role
            && leadership.epoch == leader_epoch
            && leadership.proposal_refused()
        {
            self.watermark_moved(&mut state);
        }
    }

    /// Opens a follower's session: its leader epoch must be this leader's.
    pub(crate) fn open_session(
        &self,
        node: NodeId,
        daemon_epoch: i64,
        epoch: i32,
    ) -> Result<LeaderView, ReplicaError> {
        let unfenced = bugs::has(Bug::LeaderWithoutFencing);
        let view = self.leader(Some(epoch).filter(|_| !unfenced))?;
        let mut state = self.state.lock();
        if let Role::Leader(leadership) = &mut state.role
            && (leadership.epoch == epoch || unfenced)
        {
            // A replica that is being added may know of it before its leader does. What it acknowledged until then would
            // count for nothing, and an idle partition has nothing to acknowledge later: it asks again.
            if leadership.follower(node).is_none() {
                return Err(ReplicaError::UnknownEpoch { current: epoch });
            }
            leadership.session_opened(node, daemon_epoch);
        }
        Ok(view)
    }

    /// A follower's copy has come this far within `epoch`: the end of what it has written and of what it has flushed, and
    /// its durable log start. Returns whether the in-sync set may change now.
    pub(crate) fn follower_acked(
        &self,
        node: NodeId,
        epoch: i32,
        (written, flushed): (i64, i64),
        log_start: i64,
    ) -> bool {
        let mut state = self.state.lock();
        let flush_each = state.settings.flush_each;
        let Role::Leader(leadership) = &mut state.role else {
            return false;
        };
        if leadership.epoch != epoch && !any_epoch() {
            return false;
        }
        let ack = if flush_each { flushed } else { written };
        let moved = leadership.follower_ack(node, ack, self.log.end(), self.context.clock.now_ms());
        let trimmed = leadership.follower_start(node, log_start);
        let may_change = leadership.may_change();
        if moved {
            self.watermark_moved(&mut state);
        }
        drop(state);
        if trimmed {
            self.progress.wake();
            // A mirror is told of what is deleted for sure.
            self.subscribers.ready();
        }
        may_change
    }

    /// A follower said that it cannot go on.
    pub(crate) fn follower_stopped(&self, node: NodeId, epoch: i32) {
        let mut state = self.state.lock();
        if let Role::Leader(leadership) = &mut state.role
            && leadership.epoch == epoch
        {
            leadership.follower_failed(node);
        }
    }
}

fn any_epoch() -> bool {
    bugs::has(Bug::LeaderWithoutFencing) || bugs::has(Bug::StreamSurvivesEpoch)
}

/// A leader's wish for another in-sync set. A member's daemon epoch is absent for the leader itself.
#[derive(Debug, Clone)]
pub(crate) struct InSyncProposal {
    pub(crate) leader_epoch: i32,
    pub(crate) partition_epoch: i32,
    pub(crate) members: Vec<(NodeId, Option<i64>)>,
}
