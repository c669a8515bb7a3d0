//! Ending transactions that nobody is left to end: those that a mirror brought here open, after a promotion.
//!
//! What is open is a function of the log, so this may be done again at any time, by whoever leads: what has its marker is
//! not open any more.

use tradewind_log::AbortedTransaction;
use tradewind_wire::batch::{Batch, ControlKind, control_batch};

use super::{Replica, ReplicaError};

impl Replica {
    /// Aborts every transaction that began below `cut` and is still open, with a marker at the log's end, under
    /// `leader_epoch`. Until then readers of committed records would stop before it for good.
    ///
    /// Returns the transactions that began below `cut` and were aborted at or above it, now or before. Their markers are
    /// appended, not yet committed.
    pub fn abort_open_transactions(
        &self,
        cut: i64,
        leader_epoch: i32,
    ) -> Result<Vec<AbortedTransaction>, ReplicaError> {
        self.leader(Some(leader_epoch))?;
        let mut open: Vec<_> = self.log.producer_states();
        open.retain(|producer| producer.transaction_start.is_some_and(|start| start < cut));
        open.sort_unstable_by_key(|producer| producer.transaction_start);
        for producer in open {
            let now_ms = self.context.clock.now_ms();
            let marker = control_batch(
                ControlKind::Abort,
                producer.producer_id,
                producer.epoch,
                0,
                now_ms,
            );
            let marker = Batch::parse(marker).map_err(tradewind_log::AppendError::from)?;
            self.append_in_epoch(marker, -1, leader_epoch)?;
        }
        let mut aborted = self.log.aborted_transactions(cut, i64::MAX);
        aborted.retain(|transaction| transaction.first_offset < cut);
        Ok(aborted)
    }
}
