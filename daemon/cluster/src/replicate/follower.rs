//! The reading side of the push protocol: one stream ("lane") to one leader, for all partitions that follow it there.
//!
//! A lane connects, opens a session for every partition it is given, appends what is pushed, and acknowledges what is
//! written and flushed. It reconnects for as long as it has partitions. A session is over when its leader epoch is, when
//! the leader says so, or when a frame does not continue the log; then a new one is opened with a new handle, and late
//! frames of the old one find no session.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tradewind_transport::{FrameRx, FrameTx};
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::mesh::{Follow, Mark, Push, Refusal, Start};

use super::signal::{Kind, StreamSignal};
use crate::bugs::{self, Bug};
use crate::metrics;
use crate::replica::{Replica, ReplicaError};
use crate::threads;

/// How long a lane waits after a failed connection, and a session after a refusal.
const RETRY: Duration = Duration::from_millis(100);
/// After how many of these every session is looked at, and not only whether some wait: there may be thousands.
const LOOK_EVERY: u32 = 10;

/// What the reading side needs of its daemon.
#[async_trait]
pub(crate) trait FollowerHost: Send + Sync + 'static {
    /// Opens a `replicate` stream to `leader`, past hello and welcome.
    async fn open_replicate(&self, leader: NodeId) -> Result<(FrameTx, FrameRx), String>;
    /// This daemon's epoch, once registered.
    fn own_daemon_epoch(&self) -> Option<i64>;
}

/// The partitions that follow one leader over one stream.
#[derive(Default)]
pub(crate) struct Lane {
    wanted: Mutex<HashMap<(TopicId, i32), Arc<Replica>>>,
    changed: Notify,
}

impl Lane {
    /// Adds a partition, or has a known one looked at again.
    pub(crate) fn follow(&self, replica: &Arc<Replica>) {
        self.wanted
            .lock()
            .insert((replica.topic, replica.partition), Arc::clone(replica));
        self.changed.notify_one();
    }

    /// Removes a partition.
    pub(crate) fn leave(&self, topic: TopicId, partition: i32) {
        self.wanted.lock().remove(&(topic, partition));
        self.changed.notify_one();
    }

    /// Runs until `stop`.
    pub(crate) async fn run(
        self: Arc<Self>,
        host: Arc<dyn FollowerHost>,
        leader: NodeId,
        stop: CancellationToken,
    ) {
        let run = async {
            loop {
                while self.wanted.lock().is_empty() {
                    self.changed.notified().await;
                }
                match host.open_replicate(leader).await {
                    Ok((tx, rx)) => {
                        tracing::debug!(leader, "following");
                        Stream::new(&self, &host).run(tx, rx).await;
                    }
                    Err(reason) => tracing::debug!(leader, reason, "cannot follow yet"),
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! { () = run => {}, () = stop.cancelled() => {} }
    }
}

/// One connected stream of a lane.
struct Stream {
    lane: Arc<Lane>,
    host: Arc<dyn FollowerHost>,
    sessions: Mutex<Sessions>,
    outbox: Mutex<Vec<Follow>>,
    signal: Arc<StreamSignal>,
    next_handle: AtomicU32,
}

#[derive(Default)]
struct Sessions {
    by_handle: HashMap<u32, Session>,
    by_partition: HashMap<(TopicId, i32), u32>,
}

#[derive(Clone)]
struct Session {
    replica: Arc<Replica>,
    epoch: i32,
    matched: bool,
    /// Refused: opened anew at the next retry.
    over: bool,
}

impl Stream {
    fn new(lane: &Arc<Lane>, host: &Arc<dyn FollowerHost>) -> Self {
        Self {
            lane: Arc::clone(lane),
            host: Arc::clone(host),
            sessions: Mutex::default(),
            outbox: Mutex::default(),
            signal: Arc::default(),
            next_handle: AtomicU32::new(1),
        }
    }

    async fn run(&self, mut tx: FrameTx, mut rx: FrameRx) {
        let receiving = async {
            while let Ok(Some(frame)) = rx.recv().await {
                match Push::decode(frame) {
                    Ok(frame) => self.received(frame).await,
                    Err(error) => {
                        tracing::warn!(%error, "leaving a replication stream");
                        break;
                    }
                }
            }
        };
        let sending = async {
            self.resync();
            // One that goes on while frames come and go: who was refused is not to wait for a silence on the stream.
            let mut ticks = tokio::time::interval(RETRY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut ticked = 0;
            loop {
                let frames = self.frames();
                for frame in frames {
                    if tx.send(&[frame.encode()]).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = self.signal.woken() => {}
                    () = self.lane.changed.notified() => self.resync(),
                    _ = ticks.tick() => {
                        ticked += 1;
                        if ticked % LOOK_EVERY == 0 || self.has_waiting() {
                            self.resync();
                        }
                    }
                }
            }
        };
        tokio::select! { () = receiving => {}, () = sending => {} }
        let mut sessions = self.sessions.lock();
        for (handle, session) in sessions.by_handle.drain() {
            session.replica.subscribers.remove(&self.signal, handle);
        }
    }

    /// Everything to be sent now: openings and endings first, then one acknowledgement per session that has moved.
    fn frames(&self) -> Vec<Follow> {
        let mut frames = std::mem::take(&mut *self.outbox.lock());
        let sessions = self.sessions.lock();
        for handle in self.signal.take() {
            if let Some(session) = sessions.by_handle.get(&handle).filter(|session| session.matched) {
                if self.rests(session) {
                    continue;
                }
                let (written, flushed, log_start) = session.replica.reached();
                frames.push(Follow::Ack {
                    handle,
                    written,
                    flushed,
                    log_start,
                });
            }
        }
        frames
    }

    /// Whether some partition has no session, or one that was refused.
    fn has_waiting(&self) -> bool {
        let wanted = self.lane.wanted.lock().len();
        let sessions = self.sessions.lock();
        sessions.by_partition.len() != wanted || sessions.by_handle.values().any(|session| session.over)
    }

    /// Makes the sessions agree with what the lane wants.
    fn resync(&self) {
        let wanted = self.lane.wanted.lock().clone();
        let mut sessions = self.sessions.lock();
        let gone: Vec<u32> = sessions
            .by_handle
            .iter()
            .filter(|(_, session)| {
                let key = (session.replica.topic, session.replica.partition);
                let position = session.replica.follower_position();
                let ended = !wanted.contains_key(&key)
                    || position.is_none_or(|position| position.leader_epoch != session.epoch);
                let survives = bugs::has(Bug::StreamSurvivesEpoch) || bugs::has(Bug::LeaderWithoutFencing);
                session.over || ended && !survives
            })
            .map(|(handle, _)| *handle)
            .collect();
        for handle in gone {
            self.end(&mut sessions, handle, None);
        }
        if bugs::has(Bug::StreamSurvivesEpoch) {
            // They say in the new epoch how far they are.
            sessions
                .by_handle
                .keys()
                .for_each(|handle| self.signal.mark(*handle));
        }
        for (key, replica) in wanted {
            if !sessions.by_partition.contains_key(&key) {
                self.open(&mut sessions, &replica);
            }
        }
    }

    fn open(&self, sessions: &mut Sessions, replica: &Arc<Replica>) {
        if bugs::has(Bug::TruncateToWatermark) {
            replica.cut_to_watermark();
        }
        let (Some(position), Some(daemon_epoch)) =
            (replica.follower_position(), self.host.own_daemon_epoch())
        else {
            return;
        };
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        let session = Session {
            replica: Arc::clone(replica),
            epoch: position.leader_epoch,
            matched: false,
            over: false,
        };
        sessions.by_handle.insert(handle, session);
        sessions
            .by_partition
            .insert((replica.topic, replica.partition), handle);
        replica.subscribers.add(&self.signal, handle, Kind::Ack);
        self.outbox.lock().push(Follow::Start(Start {
            handle,
            topic: replica.topic,
            partition: replica.partition,
            leader_epoch: position.leader_epoch,
            daemon_epoch,
            last_epoch: position.last_epoch,
            end: position.end,
        }));
        self.signal.wake();
    }

    fn end(&self, sessions: &mut Sessions, handle: u32, failure: Option<String>) {
        let Some(session) = sessions.by_handle.remove(&handle) else {
            return;
        };
        sessions
            .by_partition
            .remove(&(session.replica.topic, session.replica.partition));
        session.replica.subscribers.remove(&self.signal, handle);
        if !session.over {
            self.outbox.lock().push(Follow::Stop { handle, failure });
            self.signal.wake();
        }
    }

    async fn received(&self, frame: Push) {
        let handle = match &frame {
            Push::Match { handle, .. }
            | Push::Diverge { handle, .. }
            | Push::Refused { handle, .. }
            | Push::Data { handle, .. }
            | Push::Watermark { handle, .. } => *handle,
        };
        let Some(session) = self.sessions.lock().by_handle.get(&handle).cloned() else {
            return;
        };
        if self.rests(&session) {
            return;
        }
        match frame {
            Push::Match { mark, .. } => self.matched(handle, &session, mark),
            Push::Diverge { epoch, end, .. } => self.diverged(handle, &session, epoch, end).await,
            Push::Refused { reason, mark, .. } => self.refused(handle, &session, reason, mark),
            Push::Data {
                prev_end,
                mark,
                batches,
                ..
            } => self.data(handle, &session, prev_end, mark, batches),
            Push::Watermark { mark, .. } => self.note(handle, &session, mark),
        }
    }

    /// Whether this session waits for its leader to lead again, as none should.
    fn rests(&self, session: &Session) -> bool {
        let key = (session.replica.topic, session.replica.partition);
        bugs::has(Bug::StreamSurvivesEpoch) && !self.lane.wanted.lock().contains_key(&key)
    }

    fn matched(&self, handle: u32, session: &Session, mark: Mark) {
        if let Some(session) = self.sessions.lock().by_handle.get_mut(&handle) {
            session.matched = true;
        }
        session.replica.flush_if_asked();
        self.note(handle, session, mark);
        self.signal.mark(handle);
    }

    fn data(&self, handle: u32, session: &Session, prev_end: i64, mark: Mark, batches: Bytes) {
        let bytes = batches.len();
        match session
            .replica
            .append_as_follower(batches, prev_end, session.epoch)
        {
            Ok(()) => {
                metrics::followed(bytes);
                self.note(handle, session, mark);
                if !session.replica.settings().flush_each {
                    self.signal.mark(handle);
                }
            }
            Err(error) => self.broken(handle, session, &error),
        }
    }

    fn note(&self, handle: u32, session: &Session, mark: Mark) {
        if let Err(error) = session.replica.follow_mark(&mark, session.epoch) {
            self.broken(handle, session, &error);
        }
    }

    /// A cut waits for the disk, and copies what a branch shares: not on this thread.
    async fn diverged(&self, handle: u32, session: &Session, epoch: i32, end: i64) {
        let (replica, session_epoch) = (Arc::clone(&session.replica), session.epoch);
        let cutting = threads::blocking(move || {
            if epoch < 0 {
                replica.restart_at(end, session_epoch)
            } else {
                replica.cut_divergence(epoch, end, session_epoch)
            }
        });
        // The runtime ends, and the stream with it.
        let Ok(cut) = cutting.await else { return };
        match cut {
            Ok(()) => self.again(handle),
            Err(error) => self.broken(handle, session, &error),
        }
    }

    fn refused(&self, handle: u32, session: &Session, reason: Refusal, mark: Mark) {
        tracing::debug!(
            topic = %session.replica.topic_name, partition = session.replica.partition, ?reason, "leader refused a session"
        );
        match reason {
            Refusal::BelowStart => match session.replica.restart_at(mark.log_start, session.epoch) {
                Ok(()) => self.again(handle),
                Err(error) => self.broken(handle, session, &error),
            },
            _ => self.later(handle),
        }
    }

    /// The log here cannot take what came.
    fn broken(&self, handle: u32, session: &Session, error: &ReplicaError) {
        match error {
            ReplicaError::FencedEpoch { .. } | ReplicaError::WrongPosition { .. } => self.again(handle),
            error => {
                tracing::warn!(
                    topic = %session.replica.topic_name, partition = session.replica.partition, %error, "following broke off"
                );
                let failure = session
                    .replica
                    .log()
                    .poisoned()
                    .is_some()
                    .then(|| error.to_string());
                if let Some(reason) = &failure {
                    session.replica.failed(reason.clone());
                }
                self.end(&mut self.sessions.lock(), handle, failure);
            }
        }
    }

    /// Opens a new session at once.
    fn again(&self, handle: u32) {
        let mut sessions = self.sessions.lock();
        let replica = sessions
            .by_handle
            .get(&handle)
            .map(|session| Arc::clone(&session.replica));
        self.end(&mut sessions, handle, None);
        if let Some(replica) = replica {
            self.open(&mut sessions, &replica);
        }
    }

    /// Opens a new session at the next retry.
    fn later(&self, handle: u32) {
        if let Some(session) = self.sessions.lock().by_handle.get_mut(&handle) {
            session.over = true;
        }
    }
}
