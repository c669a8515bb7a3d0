//! Removing what a failback has kept elsewhere ([`Truncation`]): each copy does it by itself, before it leads or follows.
//!
//! What is to go is told from what came later by the leader epochs in the log itself, so that no file remembers whether it
//! was done: a copy that crashed on the way, or was away, does the rest when it sees the image again.

use std::sync::atomic::Ordering;

use bytes::BytesMut;
use tradewind_wire::batch::BatchHeader;

use super::{Replica, State};
use crate::image::Truncation;

impl Replica {
    /// Carries `truncation` out, once in each run of the daemon. A copy that cannot is out of service.
    pub(super) fn remove_diverged(&self, state: &mut State, truncation: Option<Truncation>) {
        let Some(truncation) =
            truncation.filter(|truncation| state.truncated != Some(truncation.leader_epoch))
        else {
            return;
        };
        if state.failure.is_some() {
            return;
        }
        match self.remove_from(truncation) {
            Ok(()) => state.truncated = Some(truncation.leader_epoch),
            Err(reason) => {
                tracing::error!(topic = %self.topic_name, partition = self.partition, reason, "cannot remove a divergent tail");
                state.failure = Some(reason);
            }
        }
    }

    fn remove_from(&self, Truncation { leader_epoch, to }: Truncation) -> Result<(), String> {
        let (start, from) = (self.log.start(), self.log.end());
        let at = to.max(start);
        // The first batch that reaches past the cut: epochs rise, so no later one is older.
        let found = self.log.read(at, 1, from).map_err(|error| error.to_string());
        let mut head = BytesMut::new();
        if at < from {
            for piece in found?.records {
                head.extend_from_slice(&piece);
            }
        }
        if head.is_empty() {
            return Ok(());
        }
        let first = BatchHeader::parse(&head).map_err(|error| error.to_string())?;
        if first.partition_leader_epoch >= leader_epoch {
            return Ok(());
        }
        let high_watermark = self.high_watermark();
        tracing::info!(
            topic = %self.topic_name, partition = self.partition, to, from, high_watermark,
            "removing a divergent tail, which a failback has kept"
        );
        self.log.truncate_to(to).map_err(|error| error.to_string())?;
        self.log.forget_empty_epochs();
        self.high_watermark.fetch_min(self.log.end(), Ordering::AcqRel);
        self.durable_start.fetch_min(self.log.start(), Ordering::AcqRel);
        self.deleted.fetch_min(self.log.end(), Ordering::AcqRel);
        Ok(())
    }
}
