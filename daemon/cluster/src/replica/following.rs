//! A replica as a follower: takes what its leader pushes, and cuts what its leader does not have.
//!
//! Everything is bound to the leader epoch of the session that it came by; under another one it is refused.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use tradewind_wire::ids::NodeId;
use tradewind_wire::mesh::Mark;

use super::{Replica, ReplicaError, Role, State};
use crate::bugs::{self, Bug};

/// What a follower says to open a session with its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FollowerPosition {
    pub(crate) leader_epoch: i32,
    pub(crate) last_epoch: i32,
    pub(crate) end: i64,
}

impl Replica {
    /// Whom this copy follows, if anyone.
    pub(crate) fn follows(&self) -> Option<NodeId> {
        match &self.state.lock().role {
            Role::Follower { leader } => *leader,
            Role::Leader(_) => None,
        }
    }

    /// What to say to the leader; none if this daemon leads, or the copy is unusable.
    pub(crate) fn follower_position(&self) -> Option<FollowerPosition> {
        let state = self.state.lock();
        match (&state.role, &state.failure) {
            (Role::Follower { leader: Some(_) }, None) => Some(FollowerPosition {
                leader_epoch: state.leader_epoch,
                last_epoch: self.log.last_epoch().unwrap_or(-1),
                end: self.log.end(),
            }),
            _ => None,
        }
    }

    /// Cuts the log at the watermark, as no follower should.
    pub(crate) fn cut_to_watermark(&self) {
        let state = self.state.lock();
        if matches!(state.role, Role::Follower { .. }) {
            let _ = self.log.truncate_to(self.high_watermark());
        }
    }

    /// Appends what the leader pushed within session epoch `epoch`.
    pub(crate) fn append_as_follower(
        &self,
        batches: Bytes,
        prev_end: i64,
        epoch: i32,
    ) -> Result<(), ReplicaError> {
        let state = self.state.lock();
        self.following(&state, epoch)?;
        let end = self.log.end();
        if prev_end != end {
            return Err(ReplicaError::WrongPosition {
                expected: end,
                given: prev_end,
            });
        }
        self.log.append_at(batches, None)?;
        let settings = state.settings;
        drop(state);
        self.flush_later(settings);
        Ok(())
    }

    /// Takes over the leader's watermark and log start, and how much of the way there was DeleteRecords.
    pub(crate) fn follow_mark(&self, mark: &Mark, epoch: i32) -> Result<(), ReplicaError> {
        let state = self.state.lock();
        self.following(&state, epoch)?;
        let log_start = mark.log_start;
        if let Some(deleted) = mark.deleted {
            // Before the log start, so that no checkpoint has that without this.
            self.deleted.store(deleted, Ordering::Release);
        }
        let high_watermark = mark.high_watermark.min(self.log.end());
        let before = self.high_watermark.fetch_max(high_watermark, Ordering::AcqRel);
        if high_watermark > before {
            // Consumers may read here too (KIP-392).
            self.progress.wake();
        }
        if log_start > self.log.start() && log_start <= self.log.end() {
            self.log.trim_to(log_start)?;
            self.context.checkpoint.notify_one();
        }
        Ok(())
    }

    /// Cuts the log where it diverges from the leader's: `epoch` ends at `end` there.
    pub(crate) fn cut_divergence(
        &self,
        epoch: i32,
        end: i64,
        session_epoch: i32,
    ) -> Result<(), ReplicaError> {
        let state = self.state.lock();
        self.following(&state, session_epoch)?;
        let own = match self.log.end_offset_for_epoch(epoch) {
            Some((own_epoch, own_end)) if own_epoch == epoch => own_end.min(end),
            Some((_, own_end)) => own_end,
            None => self.log.start(),
        };
        let high_watermark = self.high_watermark();
        tracing::info!(
            topic = %self.topic_name, partition = self.partition, to = own, from = self.log.end(), high_watermark,
            "cutting records that the leader does not have"
        );
        self.log.truncate_to(own)?;
        self.log.forget_empty_epochs();
        self.high_watermark.fetch_min(own, Ordering::AcqRel);
        self.durable_start.fetch_min(self.log.start(), Ordering::AcqRel);
        self.deleted.fetch_min(own, Ordering::AcqRel);
        Ok(())
    }

    /// Starts over, empty, where the leader's log starts: everything here lies below it.
    pub(crate) fn restart_at(&self, log_start: i64, session_epoch: i32) -> Result<(), ReplicaError> {
        let state = self.state.lock();
        self.following(&state, session_epoch)?;
        self.log.reset_at(log_start)?;
        self.high_watermark.store(log_start, Ordering::Release);
        self.durable_start.fetch_min(log_start, Ordering::AcqRel);
        self.context.checkpoint.notify_one();
        Ok(())
    }

    /// Flushes what an earlier run or an earlier setting left unflushed, if flushed records are what counts.
    pub(crate) fn flush_if_asked(&self) {
        if self.settings().flush_each && self.log.flushed_end() < self.log.end() {
            self.context.flusher.enqueue(&self.me);
        }
    }

    /// How far this copy has come: (written end, flushed end, log start that survives a crash).
    pub(crate) fn reached(&self) -> (i64, i64, i64) {
        (self.log.end(), self.log.flushed_end(), self.durable_start())
    }

    fn following(&self, state: &State, epoch: i32) -> Result<(), ReplicaError> {
        if let Some(failure) = &state.failure {
            return Err(ReplicaError::Storage {
                reason: failure.clone(),
            });
        }
        match state.role {
            Role::Follower { .. } if state.leader_epoch == epoch => Ok(()),
            Role::Follower { .. }
                if bugs::has(Bug::LeaderWithoutFencing) || bugs::has(Bug::StreamSurvivesEpoch) =>
            {
                Ok(())
            }
            _ => Err(ReplicaError::FencedEpoch {
                current: state.leader_epoch,
            }),
        }
    }
}
