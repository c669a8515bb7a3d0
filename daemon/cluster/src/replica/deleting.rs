//! Deleting records: moving the log start up, and waiting until no crash and no election can move it back.
//!
//! The leader trims its log and tells its followers with the next push; a follower trims its own. Each then has a
//! checkpoint written and only counts once that is on disk. The answer waits for the copies that may lead next: the
//! in-sync set, with what this leader has proposed to add. Kafka waits for every *live* copy instead, in sync or not. One
//! that is not in sync need not be waited for here: it is told the log start with the match of its session, and is not let
//! into the set before it has confirmed it ([`super::leadership::Leadership::hold_start`]). So whoever leads next begins
//! where the answer said, or later, and a copy that hangs outside the set does not make the request time out. Only an
//! unclean election, which may lose acknowledged records as well, can show deleted ones again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;

use super::{CommitError, Replica, ReplicaError, Role};

/// How long a deletion waits for this daemon's own disk, whatever the request's timeout.
const OWN_DISK: Duration = Duration::from_secs(10);

/// Who deletes records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Client,
    /// What was deleted at the source of a mirror.
    Flow,
}

impl Replica {
    /// Lets the log begin at `offset`, or at the high watermark if there is none. Returns where it is to begin, and the
    /// leader epoch to wait in with [`Self::records_deleted`]. An offset below the log start changes nothing. Fails with
    /// [`ReplicaError::WritesFenced`] where clients may not append.
    ///
    /// Deletes files: not for a network thread.
    pub fn delete_records(&self, offset: Option<i64>) -> Result<(i64, i32), ReplicaError> {
        let view = self.leader(None)?;
        let target = offset.unwrap_or(view.high_watermark);
        if target < 0 || target > view.high_watermark {
            return Err(ReplicaError::OffsetOutOfRange { view });
        }
        self.trim(target, view.epoch, By::Client)?;
        Ok((target, view.epoch))
    }

    /// Deletes what was deleted at the source of a mirrored partition: as [`Self::delete_records`], but at most up to the
    /// high watermark, and only while this daemon leads under `leader_epoch`, which a failover ends. Returns the log start.
    ///
    /// Deletes files: not for a network thread.
    pub fn delete_mirrored(&self, offset: i64, leader_epoch: i32) -> Result<i64, ReplicaError> {
        let view = self.leader(Some(leader_epoch))?;
        let target = offset.min(view.high_watermark);
        // Also where retention came first: a mirror of this mirror may still have it.
        if target > self.deleted_to(view.log_start) {
            self.trim(target, leader_epoch, By::Flow)?;
        }
        Ok(self.log.start())
    }

    /// How far DeleteRecords has moved the log start, of the way to `log_start`, which the caller has read before.
    pub fn deleted_to(&self, log_start: i64) -> i64 {
        self.deleted.load(Ordering::Acquire).min(log_start)
    }

    /// As [`Self::deleted_to`], but no further than on every copy that may lead next: what another cluster may delete,
    /// which could not get it back.
    pub(crate) fn surely_deleted_to(&self, log_start: i64, leader_epoch: i32) -> i64 {
        match self.deleted_to(log_start) {
            0 => 0,
            deleted => deleted.min(self.low_watermark(leader_epoch).unwrap_or(0).max(0)),
        }
    }

    fn trim(&self, target: i64, leader_epoch: i32, by: By) -> Result<(), ReplicaError> {
        {
            let mut state = self.state.lock();
            self.leading(&state, Some(leader_epoch))?;
            // As an append: what a fenced topic still has is another cluster's to keep.
            if by == By::Client && state.settings.fenced {
                return Err(ReplicaError::WritesFenced);
            }
            if let Role::Leader(leadership) = &mut state.role {
                leadership.hold_start(target);
            }
            // Before the log start, so that nobody is told that without this.
            self.deleted.fetch_max(target, Ordering::AcqRel);
        }
        // Without the lock: everything below a high watermark is committed, whoever leads by now.
        self.log.trim_to(target)?;
        self.subscribers.ready();
        self.context.checkpoint.notify_one();
        Ok(())
    }

    /// Waits until every copy that may lead next begins at `offset` or later, durably. Returns the low watermark: the
    /// earliest log start among them. This future may be dropped at any time.
    ///
    /// `timeout` is for the other copies, as in Kafka, where nothing is waited for if there are none: what this daemon's
    /// own disk takes is waited for anyway, up to ten seconds.
    pub async fn records_deleted(
        &self,
        offset: i64,
        leader_epoch: i32,
        timeout: Duration,
    ) -> Result<i64, CommitError> {
        let began = tokio::time::Instant::now();
        let mut here = false;
        let mut deadline = began + timeout.max(OWN_DISK);
        loop {
            let waiter = Arc::new(Notify::new());
            self.on_progress(&waiter);
            match self.low_watermark(leader_epoch) {
                Some(low) if low >= offset => return Ok(low),
                Some(_) => {}
                None => return Err(CommitError::NotLeader),
            }
            if !here && self.durable_start() >= offset {
                here = true;
                deadline = began + timeout;
            }
            if tokio::time::timeout_at(deadline, waiter.notified())
                .await
                .is_err()
            {
                return Err(CommitError::TimedOut);
            }
        }
    }

    /// The earliest durable log start among the copies that may lead after this epoch, if it still lasts.
    pub fn low_watermark(&self, leader_epoch: i32) -> Option<i64> {
        match &self.state.lock().role {
            Role::Leader(leadership) if leadership.epoch == leader_epoch => {
                Some(leadership.low_watermark(self.durable_start()))
            }
            _ => None,
        }
    }

    /// The log start that the next run of this daemon would begin with.
    pub(crate) fn durable_start(&self) -> i64 {
        self.durable_start.load(Ordering::Acquire)
    }

    /// A checkpoint with this log start is on disk.
    pub(crate) fn start_saved(&self, log_start: i64) {
        if self.durable_start.fetch_max(log_start, Ordering::AcqRel) < log_start {
            self.progress.wake();
            self.subscribers.acked();
            // A mirror is told of what is deleted for sure.
            self.subscribers.ready();
        }
    }
}
