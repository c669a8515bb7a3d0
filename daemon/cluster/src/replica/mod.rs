//! One partition's copy on this daemon: who leads it, what may be appended, and how far it is committed.
//!
//! A [`Replica`] ties one log to what the cluster's image says of its partition. It decides nothing about elections or
//! the in-sync set (the controller does), sends nothing (the streams in `replicate` do) and runs no task of its own.
//! One lock guards role and watermark, and is held over the log's short synchronous append, so that nothing is written
//! under an epoch that has ended. Never held across an await.
//!
//! Invariants: `log start <= high watermark <= end` on a leader; the high watermark never falls while the daemon runs,
//! except where the log itself is cut below it, which is reported.

mod aborting;
mod deleting;
mod error;
mod following;
mod leadership;
mod leading;
mod reading;
mod truncating;
mod waiters;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tradewind_log::{Appended, Log, PartitionCheckpoint};
use tradewind_wire::batch::Batch;
use tradewind_wire::clock::Clock;
use tradewind_wire::ids::{NodeId, TopicId};

pub use self::error::{CommitError, ReplicaError};
use self::leadership::{Assignment, Leadership};
pub use self::reading::{Copy, Fetched, Isolation, Reading};
use self::waiters::{CommitWaiters, ProgressWaiters};
use crate::flusher::{FlushState, Flusher};
use crate::image::Partition;
use crate::replicate::signal::Subscribers;

/// Topics that do not flush each append are flushed when this much is not.
const BACKGROUND_FLUSH_BYTES: u64 = 64 << 20;
/// And the kernel is asked to begin writing when this much is new.
const WRITE_BACK_BYTES: u64 = 1 << 20;

/// Where a partition stands at its leader, or as far as a follower knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderView {
    /// The leader epoch.
    pub epoch: i32,
    /// The log's end when this epoch began; the log start where a follower tells.
    pub epoch_start: i64,
    /// The high watermark.
    pub high_watermark: i64,
    /// The last stable offset.
    pub last_stable_offset: i64,
    /// The log start offset.
    pub log_start: i64,
    /// The log end offset.
    pub end: i64,
}

/// What the settings of a topic mean for its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaSettings {
    /// `min.insync.replicas`.
    pub min_in_sync: usize,
    /// `flush.messages=1`: only flushed records count as acknowledged by a copy.
    pub flush_each: bool,
    /// `flush.messages`: so many unflushed records are flushed.
    pub flush_messages: i64,
    /// `flush.ms`: unflushed records older than this are flushed.
    pub flush_ms: i64,
    /// Whether clients' batches are refused, because the topic moves to another cluster or has moved.
    pub fenced: bool,
}

/// What the replicas of a daemon share.
pub(crate) struct ReplicaContext {
    /// This daemon.
    pub(crate) own: NodeId,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) flusher: Flusher,
    /// Whether the controller answered within two sessions. While it did not, this daemon may have been replaced
    /// without knowing it, and refuses writes that no other daemon has to confirm.
    pub(crate) in_touch: Arc<AtomicBool>,
    /// Asks for a checkpoint now: somebody waits for a log start to be durable.
    pub(crate) checkpoint: Arc<Notify>,
}

/// One partition's copy on this daemon.
pub struct Replica {
    /// The topic's id.
    pub topic: TopicId,
    /// The topic's name.
    pub topic_name: String,
    /// The partition.
    pub partition: i32,
    log: Arc<Log>,
    context: Arc<ReplicaContext>,
    state: Mutex<State>,
    high_watermark: AtomicI64,
    /// The log start that the next run of this daemon would begin with.
    durable_start: AtomicI64,
    /// How far DeleteRecords has moved the log start, as far as this copy knows; retention may have moved it on.
    deleted: AtomicI64,
    progress: ProgressWaiters,
    pub(crate) subscribers: Subscribers,
    pub(crate) flush_state: FlushState,
    me: Weak<Self>,
}

struct State {
    role: Role,
    leader_epoch: i32,
    settings: ReplicaSettings,
    commits: CommitWaiters,
    failure: Option<String>,
    /// The last truncation that this run has carried out.
    truncated: Option<i32>,
}

enum Role {
    Leader(Leadership),
    Follower { leader: Option<NodeId> },
}

impl Replica {
    /// A copy whose role is not known yet. `saved` is from before a restart; its high watermark is a hint, never a
    /// truncation point.
    pub(crate) fn new(
        topic: TopicId,
        topic_name: String,
        partition: i32,
        log: Arc<Log>,
        settings: ReplicaSettings,
        saved: PartitionCheckpoint,
        context: Arc<ReplicaContext>,
    ) -> Arc<Self> {
        let high_watermark = saved.high_watermark.clamp(log.start(), log.end());
        let durable_start = log.start();
        Arc::new_cyclic(|me| Self {
            topic,
            topic_name,
            partition,
            log,
            context,
            state: Mutex::new(State {
                role: Role::Follower { leader: None },
                leader_epoch: -1,
                settings,
                commits: CommitWaiters::default(),
                failure: None,
                truncated: None,
            }),
            high_watermark: AtomicI64::new(high_watermark),
            durable_start: AtomicI64::new(durable_start),
            deleted: AtomicI64::new(saved.deleted),
            progress: ProgressWaiters::default(),
            subscribers: Subscribers::default(),
            flush_state: FlushState::default(),
            me: me.clone(),
        })
    }

    /// The partition's log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// The daemon that this copy is on.
    pub(crate) fn own_node(&self) -> NodeId {
        self.context.own
    }

    /// The high watermark as this daemon knows it.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark.load(Ordering::Acquire)
    }

    /// Where the partition stands, if this daemon leads it and the caller's epoch (if any) is the current one.
    pub fn leader(&self, expected_epoch: Option<i32>) -> Result<LeaderView, ReplicaError> {
        self.view(expected_epoch, false)
    }

    /// Whether this daemon leads the partition now.
    pub fn is_leader(&self) -> bool {
        matches!(self.state.lock().role, Role::Leader(_))
    }

    /// Appends one batch from a client or a coordinator of this cluster. `acks` is Kafka's: 0, 1 or -1.
    ///
    /// Synchronous and short. With acks -1 the in-sync set must be large enough *before* anything is written; the
    /// caller then waits with [`Self::committed`].
    pub fn append(&self, batch: Batch, acks: i16) -> Result<(Appended, i32), ReplicaError> {
        self.append_as(batch, acks, None)
    }

    /// As [`Self::append`], but only while this daemon leads under `leader_epoch`: for a coordinator, whose state belongs
    /// to one epoch.
    pub fn append_in_epoch(
        &self,
        batch: Batch,
        acks: i16,
        leader_epoch: i32,
    ) -> Result<Appended, ReplicaError> {
        self.append_as(batch, acks, Some(leader_epoch))
            .map(|(appended, _)| appended)
    }

    fn append_as(
        &self,
        batch: Batch,
        acks: i16,
        expected: Option<i32>,
    ) -> Result<(Appended, i32), ReplicaError> {
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Err(ReplicaError::Storage {
                reason: failure.clone(),
            });
        }
        let leadership = self.leading(&state, expected)?;
        // Under the lock that the fence came under: what the leader records as the end is the end.
        if state.settings.fenced {
            return Err(ReplicaError::WritesFenced);
        }
        if acks == -1 && !leadership.enough_in_sync() {
            return Err(ReplicaError::NotEnoughReplicas {
                in_sync: leadership.in_sync().len(),
            });
        }
        if acks != -1 && !self.context.in_touch.load(Ordering::Acquire) {
            return Err(ReplicaError::NotLeader {
                leader: None,
                epoch: leadership.epoch,
            });
        }
        let epoch = leadership.epoch;
        let old_end = self.log.end();
        let appended = self.log.append(batch, epoch)?;
        if !appended.duplicate {
            self.grew(&mut state, old_end);
        }
        Ok((appended, epoch))
    }

    /// Appends whole batches of a mirrored partition at their own offsets, under `leader_epoch` and behind `prev_end`.
    ///
    /// Refused if either is not what it is here now: another leader, or another writer, has come in between.
    pub fn append_mirrored(
        &self,
        batches: Bytes,
        prev_end: i64,
        leader_epoch: i32,
    ) -> Result<i64, ReplicaError> {
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Err(ReplicaError::Storage {
                reason: failure.clone(),
            });
        }
        let leadership = self.leading(&state, Some(leader_epoch))?;
        if !leadership.enough_in_sync() {
            return Err(ReplicaError::NotEnoughReplicas {
                in_sync: leadership.in_sync().len(),
            });
        }
        let old_end = self.log.end();
        if prev_end != old_end {
            return Err(ReplicaError::WrongPosition {
                expected: old_end,
                given: prev_end,
            });
        }
        self.log.append_at(batches, Some(leader_epoch))?;
        self.grew(&mut state, old_end);
        Ok(self.log.end())
    }

    /// Waits until `last_offset` lies below the high watermark of `leader_epoch`.
    ///
    /// The deadline is the caller's: this future may be dropped at any time.
    pub async fn committed(
        &self,
        last_offset: i64,
        leader_epoch: i32,
        timeout: Duration,
    ) -> Result<(), CommitError> {
        let waiting = {
            let mut state = self.state.lock();
            match &state.role {
                Role::Leader(leadership) if leadership.epoch == leader_epoch => {
                    if leadership.high_watermark() > last_offset {
                        return Ok(());
                    }
                }
                _ => return Err(CommitError::NotLeader),
            }
            state.commits.wait(last_offset)
        };
        match tokio::time::timeout(timeout, waiting).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(CommitError::NotLeader),
            Err(_) => Err(self.timed_out(leader_epoch)),
        }
    }

    fn timed_out(&self, leader_epoch: i32) -> CommitError {
        let state = self.state.lock();
        match &state.role {
            Role::Leader(leadership) if leadership.epoch == leader_epoch => {
                if leadership.enough_in_sync() {
                    CommitError::TimedOut
                } else {
                    CommitError::NotEnoughReplicasAfterAppend
                }
            }
            _ => CommitError::NotLeader,
        }
    }

    /// Takes over what the image says. `own_registration` is whether this daemon's registration is applied: before
    /// that it acts on no leadership.
    pub(crate) fn apply(&self, partition: &Partition, settings: ReplicaSettings, own_registration: bool) {
        let mut state = self.state.lock();
        if partition.leader_epoch < state.leader_epoch {
            return;
        }
        state.settings = settings;
        self.remove_diverged(&mut state, partition.truncation);
        let epoch_changed = partition.leader_epoch != state.leader_epoch;
        let lead = partition.leader == Some(self.context.own) && own_registration && state.failure.is_none();
        let assignment = Assignment {
            replicas: &partition.replicas,
            in_sync: &partition.isr,
            partition_epoch: partition.partition_epoch,
            min_in_sync: settings.min_in_sync,
            steady_replicas: partition.steady_replicas(),
        };
        let now_ms = self.context.clock.now_ms();
        match (&mut state.role, lead) {
            (Role::Leader(leadership), true) if !epoch_changed => {
                leadership.assign(&assignment, now_ms);
            }
            (_, true) => self.begin_leading(&mut state, partition.leader_epoch, &assignment, now_ms),
            (_, false) => {
                state.role = Role::Follower {
                    leader: partition.leader.filter(|l| *l != self.context.own),
                }
            }
        }
        state.leader_epoch = partition.leader_epoch;
        if epoch_changed {
            state.commits.fail();
        }
        if let Role::Leader(leadership) = &mut state.role {
            leadership.advance();
            self.watermark_moved(&mut state);
            // Another in-sync set may be what a deletion of records waits for.
            self.progress.wake();
        }
        drop(state);
        if epoch_changed {
            self.changed();
        }
    }

    fn begin_leading(&self, state: &mut State, epoch: i32, assignment: &Assignment<'_>, now_ms: i64) {
        self.log.assign_epoch(epoch);
        let end = self.log.end();
        let own_ack = if state.settings.flush_each {
            self.log.flushed_end()
        } else {
            end
        };
        let mut leadership = Leadership::new(
            self.context.own,
            epoch,
            end,
            own_ack,
            self.high_watermark(),
            assignment,
            now_ms,
        );
        if self.log.start() > 0 {
            leadership.hold_start(self.log.start());
        }
        state.role = Role::Leader(leadership);
        if state.settings.flush_each && own_ack < end {
            self.context.flusher.enqueue(&self.me);
        }
    }

    /// The log is flushed up to `end`.
    pub(crate) fn flushed(&self, end: i64) {
        let mut state = self.state.lock();
        if let Role::Leader(leadership) = &mut state.role
            && leadership.own_ack(end)
        {
            self.watermark_moved(&mut state);
        }
        let follows = matches!(state.role, Role::Follower { .. });
        drop(state);
        if follows {
            self.subscribers.acked();
        }
    }

    /// Writing or flushing failed: the copy is poisoned until the daemon restarts.
    pub(crate) fn failed(&self, reason: String) {
        let mut state = self.state.lock();
        if state.failure.is_none() {
            tracing::error!(topic = %self.topic_name, partition = self.partition, reason, "replica failed");
            state.failure = Some(reason);
            state.commits.fail();
        }
        drop(state);
        self.changed();
    }

    /// The copy here is to be deleted, because of `reason`: everyone who waits is sent away.
    pub(crate) fn deleted(&self, reason: &str) {
        let mut state = self.state.lock();
        state.role = Role::Follower { leader: None };
        state.leader_epoch = i32::MAX;
        state.failure = Some(reason.to_owned());
        state.commits.fail();
        self.log.discard();
        drop(state);
        self.changed();
    }

    /// Why this copy is unusable, if it is.
    pub fn failure(&self) -> Option<String> {
        self.state.lock().failure.clone()
    }

    /// What the topic's settings mean here, as last applied.
    pub(crate) fn settings(&self) -> ReplicaSettings {
        self.state.lock().settings
    }

    // --- below the lock ---

    fn leading<'a>(&self, state: &'a State, expected: Option<i32>) -> Result<&'a Leadership, ReplicaError> {
        match expected {
            Some(epoch) if epoch < state.leader_epoch => {
                return Err(ReplicaError::FencedEpoch {
                    current: state.leader_epoch,
                });
            }
            Some(epoch) if epoch > state.leader_epoch => {
                return Err(ReplicaError::UnknownEpoch {
                    current: state.leader_epoch,
                });
            }
            _ => {}
        }
        match &state.role {
            Role::Leader(leadership) => Ok(leadership),
            Role::Follower { leader } => Err(ReplicaError::NotLeader {
                leader: *leader,
                epoch: state.leader_epoch,
            }),
        }
    }

    fn grew(&self, state: &mut State, old_end: i64) {
        let settings = state.settings;
        let flush_each = settings.flush_each;
        let now_ms = self.context.clock.now_ms();
        if let Role::Leader(leadership) = &mut state.role {
            leadership.grew(old_end, now_ms);
            if !flush_each && leadership.own_ack(self.log.end()) {
                self.watermark_moved(state);
            }
        }
        self.flush_later(settings);
        self.subscribers.ready();
    }

    /// Has the log flushed: after each append if that is what counts, else after `flush.messages`, and before so much is
    /// unflushed that recovery would take long. Has it written back in between, so that a flush finds little to do.
    fn flush_later(&self, settings: ReplicaSettings) {
        let unflushed = self.log.end().saturating_sub(self.log.flushed_end());
        if settings.flush_each
            || unflushed >= settings.flush_messages
            || self.log.unflushed_bytes() >= BACKGROUND_FLUSH_BYTES
        {
            self.context.flusher.enqueue(&self.me);
        } else if self.log.unwritten_bytes() >= WRITE_BACK_BYTES {
            self.context.flusher.enqueue_write_back(&self.me);
        }
    }

    /// Has the log flushed if its oldest unflushed record has waited for `flush.ms`; or a second, if each append is to be
    /// flushed: then a full disk was in the way.
    pub(crate) fn flush_aged(&self, now_ms: i64) {
        let settings = self.settings();
        let flush_ms = if settings.flush_each {
            settings.flush_ms.min(1000)
        } else {
            settings.flush_ms
        };
        let since = self.log.unflushed_since();
        if since.is_some_and(|since| now_ms.saturating_sub(since) >= flush_ms) {
            self.context.flusher.enqueue(&self.me);
        }
    }

    fn watermark_moved(&self, state: &mut State) {
        let Role::Leader(leadership) = &state.role else {
            return;
        };
        let high_watermark = leadership.high_watermark();
        let before = self.high_watermark.swap(high_watermark, Ordering::AcqRel);
        if high_watermark != before {
            state.commits.reached(high_watermark);
            self.progress.wake();
            self.subscribers.ready();
        }
    }

    fn changed(&self) {
        self.progress.wake();
        self.subscribers.ready();
    }
}
