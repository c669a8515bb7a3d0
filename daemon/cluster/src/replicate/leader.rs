//! The serving side of the push protocol: one stream's sessions, each a cursor over a log.
//!
//! Two tasks a stream: one reads the follower's frames, one sends. The sender never queues batches; it reads each
//! session's log where its cursor stands, when the session is marked ready. A session belongs to one leader epoch and
//! ends with it. For a mirror of another cluster the same, but only up to the high watermark, and its acknowledgements
//! move nothing here.
//!
//! Every frame of records tells the watermark. One that moves while there is nothing else to send waits a moment
//! ([`MARK_DELAY`]): under load the next records carry it, and a frame, a wake-up and an acknowledgement are spared.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tradewind_transport::{FrameRx, FrameTx};
use tradewind_wire::clock::Clock;
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::mesh::{Follow, Mark, Push, Refusal, Start};

use super::signal::{Kind, StreamSignal};
use crate::bugs::{self, Bug};
use crate::metrics;
use crate::replica::{LeaderView, Replica, ReplicaError};

/// At most this much record data in one frame.
pub(crate) const PUSH_BYTES_MAX: usize = 256 * 1024;

/// How long a follower is not told of a watermark that moves without records. Only those who read at followers see it.
const MARK_DELAY: Duration = Duration::from_millis(5);

/// At most this many sessions on one stream.
const SESSIONS_MAX: usize = 200_000;

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A follower of this cluster.
    Follower(NodeId),
    /// A mirror of another cluster.
    Mirror,
}

/// What the serving side needs of its daemon.
pub(crate) trait LeaderHost: Send + Sync + 'static {
    /// The copy of a partition here.
    fn replica(&self, topic: TopicId, partition: i32) -> Option<Arc<Replica>>;
    /// The daemon epoch of `node`'s current registration.
    fn daemon_epoch(&self, node: NodeId) -> Option<i64>;
    /// The in-sync set of this partition may have to change.
    fn check_in_sync(&self, replica: &Arc<Replica>);
    /// Time.
    fn clock(&self) -> &Arc<dyn Clock>;
}

/// Serves one stream until it ends.
pub(crate) async fn serve(host: Arc<dyn LeaderHost>, reader: Reader, mut tx: FrameTx, mut rx: FrameRx) {
    let stream = Arc::new(Stream {
        host,
        reader,
        sessions: Mutex::new(HashMap::new()),
        signal: Arc::new(StreamSignal::default()),
    });
    let receiving = async {
        while let Ok(Some(frame)) = rx.recv().await {
            match Follow::decode(frame) {
                Ok(frame) => stream.received(frame),
                Err(error) => {
                    tracing::warn!(?reader, %error, "closing a replication stream");
                    break;
                }
            }
        }
    };
    let sending = async {
        let mut late = Late::default();
        loop {
            tokio::select! {
                () = stream.signal.woken() => {}
                () = late.due() => {
                    for handle in late.take() {
                        stream.late_is_due(handle);
                        stream.signal.mark(handle);
                    }
                }
            }
            for handle in stream.signal.take() {
                match stream.next_frame(handle) {
                    Next::Frame(frame, batches) => {
                        stream.signal.mark(handle);
                        let mut parts = vec![frame];
                        parts.extend(batches);
                        if tx.send(&parts).await.is_err() {
                            return;
                        }
                    }
                    Next::Later => late.add(handle),
                    Next::Nothing => {}
                }
            }
        }
    };
    tokio::select! { () = receiving => {}, () = sending => {} }
    stream.close();
}

/// What a session has to say.
enum Next {
    /// A frame's head, and the batches behind it.
    Frame(Bytes, Vec<Bytes>),
    /// A watermark, which waits for records to travel with. Said once until it is due.
    Later,
    Nothing,
}

/// The sessions whose watermark waits, and when the first of them has waited enough.
#[derive(Default)]
struct Late {
    handles: Vec<u32>,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Late {
    fn add(&mut self, handle: u32) {
        self.handles.push(handle);
        self.timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(MARK_DELAY)));
    }

    /// Waits until [`Self::take`] is to be called, for ever if nothing waits. Cancel-safe.
    async fn due(&mut self) {
        match &mut self.timer {
            Some(timer) => timer.as_mut().await,
            None => std::future::pending().await,
        }
    }

    fn take(&mut self) -> Vec<u32> {
        self.timer = None;
        std::mem::take(&mut self.handles)
    }
}

struct Stream {
    host: Arc<dyn LeaderHost>,
    reader: Reader,
    sessions: Mutex<HashMap<u32, Session>>,
    signal: Arc<StreamSignal>,
}

/// One partition's cursor. The replica is absent once the session is refused and only its last frame is to be sent.
struct Session {
    replica: Option<Arc<Replica>>,
    epoch: i32,
    cursor: i64,
    told: Option<(i64, i64)>,
    mark: LateMark,
    /// What was last said of deleted records, which frames with data do not say.
    told_deleted: i64,
    reply: Option<Push>,
}

/// Where a watermark stands that moved without records.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LateMark {
    /// There is none.
    None,
    /// It waits.
    Waiting,
    /// It has waited long enough.
    Due,
}

impl Stream {
    fn received(&self, frame: Follow) {
        match frame {
            Follow::Start(start) => self.start(&start),
            Follow::Ack {
                handle,
                written,
                flushed,
                log_start,
            } => self.acked(handle, written, flushed, log_start),
            Follow::Stop { handle, failure } => self.stopped(handle, failure),
        }
    }

    fn start(&self, start: &Start) {
        {
            let mut sessions = self.sessions.lock();
            // A handle that is used again ends what it stood for.
            if let Some(replica) = sessions.remove(&start.handle).and_then(|session| session.replica) {
                replica.subscribers.remove(&self.signal, start.handle);
            }
            if sessions.len() >= SESSIONS_MAX {
                tracing::warn!(reader = ?self.reader, limit = SESSIONS_MAX, "too many sessions on one stream");
                return;
            }
        }
        let replica = self.host.replica(start.topic, start.partition);
        let session = match self.open(start, replica.as_ref()) {
            Ok((view, cursor)) => {
                if let Some(replica) = &replica {
                    replica.subscribers.add(&self.signal, start.handle, Kind::Push);
                }
                let mark = self.mark(&view, replica.as_ref());
                Session {
                    replica,
                    epoch: view.epoch,
                    cursor,
                    told: None,
                    mark: LateMark::None,
                    told_deleted: mark.deleted.unwrap_or(0),
                    reply: Some(Push::Match {
                        handle: start.handle,
                        mark,
                    }),
                }
            }
            Err(reply) => Session {
                replica: None,
                epoch: 0,
                cursor: 0,
                told: None,
                mark: LateMark::None,
                told_deleted: 0,
                reply: Some(reply),
            },
        };
        self.sessions.lock().insert(start.handle, session);
        self.signal.mark(start.handle);
    }

    /// Compares the reader's log with ours: the view and the offset from which to push, or what to say instead.
    fn open(&self, start: &Start, replica: Option<&Arc<Replica>>) -> Result<(LeaderView, i64), Push> {
        let handle = start.handle;
        let refuse = |reason, mark| Push::Refused { handle, reason, mark };
        let Some(replica) = replica else {
            return Err(refuse(Refusal::UnknownPartition, Mark::default()));
        };
        let opened = match self.reader {
            Reader::Follower(node) => {
                if self.host.daemon_epoch(node) != Some(start.daemon_epoch) {
                    return Err(refuse(Refusal::StaleDaemon, Mark::default()));
                }
                replica.open_session(node, start.daemon_epoch, start.leader_epoch)
            }
            Reader::Mirror => replica.leader(None),
        };
        let view = opened.map_err(|error| refuse(refusal(&error), Mark::default()))?;
        let mark = self.mark(&view, Some(replica));
        if start.end < view.log_start {
            return Err(refuse(Refusal::BelowStart, mark));
        }
        if start.last_epoch < 0 {
            // A reader without batches may stand anywhere that we have; there is nothing to compare.
            return if start.end <= view.end {
                Ok((view, start.end))
            } else {
                Err(refuse(Refusal::AboveEnd, mark))
            };
        }
        match replica.log().end_offset_for_epoch(start.last_epoch) {
            Some((epoch, end)) if epoch == start.last_epoch && start.end <= end => Ok((view, start.end)),
            // The same epoch is still being written here: a mirror that is ahead waits for us to catch up.
            Some((epoch, _))
                if epoch == start.last_epoch && epoch == view.epoch && self.reader == Reader::Mirror =>
            {
                Ok((view, start.end))
            }
            Some((epoch, end)) => Err(Push::Diverge { handle, epoch, end }),
            // Its last epoch is older than everything here: if it stands at our start it has all that came before.
            None if start.end == view.log_start => Ok((view, start.end)),
            None => Err(Push::Diverge {
                handle,
                epoch: -1,
                end: view.log_start,
            }),
        }
    }

    fn acked(&self, handle: u32, written: i64, flushed: i64, log_start: i64) {
        let Reader::Follower(node) = self.reader else {
            return;
        };
        let session = {
            let sessions = self.sessions.lock();
            sessions
                .get(&handle)
                .and_then(|session| Some((session.replica.clone()?, session.epoch)))
        };
        if let Some((replica, epoch)) = session
            && replica.follower_acked(node, epoch, (written, flushed), log_start)
        {
            self.host.check_in_sync(&replica);
        }
    }

    fn stopped(&self, handle: u32, failure: Option<String>) {
        let Some(session) = self.sessions.lock().remove(&handle) else {
            return;
        };
        let Some(replica) = session.replica else { return };
        replica.subscribers.remove(&self.signal, handle);
        if let (Reader::Follower(node), Some(failure)) = (self.reader, failure) {
            tracing::warn!(topic = %replica.topic_name, partition = replica.partition, node, failure, "follower stopped");
            replica.follower_stopped(node, session.epoch);
            self.host.check_in_sync(&replica);
        }
    }

    /// What the session has to say next, if anything. A frame that ends it also forgets it.
    fn next_frame(&self, handle: u32) -> Next {
        let mut sessions = self.sessions.lock();
        let Some(session) = sessions.get_mut(&handle) else {
            return Next::Nothing;
        };
        if let Some(reply) = session.reply.take() {
            if session.replica.is_none() {
                sessions.remove(&handle);
            }
            return Next::Frame(reply.encode_head(), Vec::new());
        }
        let Some(replica) = session.replica.clone() else {
            return Next::Nothing;
        };
        let epoch = Some(session.epoch).filter(|_| !bugs::has(Bug::StreamSurvivesEpoch));
        let step = match replica.leader(epoch) {
            Ok(view) => self.step(handle, session, &replica, &view),
            Err(ReplicaError::NotLeader { .. }) if bugs::has(Bug::StreamSurvivesEpoch) => {
                return Next::Nothing;
            }
            Err(error) => Err(Push::Refused {
                handle,
                reason: refusal(&error),
                mark: Mark::default(),
            }),
        };
        step.unwrap_or_else(|last| {
            sessions.remove(&handle);
            replica.subscribers.remove(&self.signal, handle);
            Next::Frame(last.encode_head(), Vec::new())
        })
    }

    /// A watermark of this session has waited long enough.
    fn late_is_due(&self, handle: u32) {
        if let Some(session) = self.sessions.lock().get_mut(&handle)
            && session.mark == LateMark::Waiting
        {
            session.mark = LateMark::Due;
        }
    }

    fn step(
        &self,
        handle: u32,
        session: &mut Session,
        replica: &Arc<Replica>,
        view: &LeaderView,
    ) -> Result<Next, Push> {
        let is_due = session.mark == LateMark::Due;
        if is_due {
            session.mark = LateMark::None;
        }
        let mark = self.mark(view, Some(replica));
        let deleted = mark.deleted.unwrap_or(0);
        let up_to = if self.reader == Reader::Mirror {
            view.high_watermark
        } else {
            view.end
        };
        if session.cursor < view.log_start {
            return Err(Push::Refused {
                handle,
                reason: Refusal::BelowStart,
                mark,
            });
        }
        if session.told_deleted != deleted {
            // Before any data with that log start: a copy that takes it over knows how it came to be.
            session.told_deleted = deleted;
            session.told = Some((view.high_watermark, view.log_start));
            return Ok(Next::Frame(
                Push::Watermark { handle, mark }.encode_head(),
                Vec::new(),
            ));
        }
        if session.cursor < up_to {
            let slice = replica.log().read(session.cursor, PUSH_BYTES_MAX, up_to).map_err(|error| {
                tracing::warn!(topic = %replica.topic_name, partition = replica.partition, %error, "cannot read for a follower");
                Push::Refused { handle, reason: Refusal::Storage, mark }
            })?;
            if !slice.records.is_empty() {
                let prev_end = std::mem::replace(&mut session.cursor, slice.next_offset);
                session.told = Some((view.high_watermark, view.log_start));
                metrics::pushed(self.reader == Reader::Mirror, slice.bytes);
                let head = Push::Data {
                    handle,
                    prev_end,
                    mark,
                    batches: Bytes::new(),
                }
                .encode_head();
                return Ok(Next::Frame(head, slice.records));
            }
        }
        let told = Some((view.high_watermark, view.log_start));
        if session.told == told {
            return Ok(Next::Nothing);
        }
        // A new log start goes out at once: somebody waits until every copy has it. So does what a mirror is told, whose
        // records come no earlier than their watermark.
        let may_wait = matches!(self.reader, Reader::Follower(_))
            && session
                .told
                .is_some_and(|(_, log_start)| log_start == view.log_start);
        if may_wait && !is_due {
            return Ok(match std::mem::replace(&mut session.mark, LateMark::Waiting) {
                LateMark::Waiting => Next::Nothing,
                _ => Next::Later,
            });
        }
        session.told = told;
        Ok(Next::Frame(
            Push::Watermark { handle, mark }.encode_head(),
            Vec::new(),
        ))
    }

    fn mark(&self, view: &LeaderView, replica: Option<&Arc<Replica>>) -> Mark {
        Mark {
            high_watermark: view.high_watermark,
            log_start: view.log_start,
            leader_epoch: view.epoch,
            sent_ms: self.host.clock().now_ms(),
            deleted: replica.map(|replica| match self.reader {
                Reader::Follower(_) => replica.deleted_to(view.log_start),
                Reader::Mirror => replica.surely_deleted_to(view.log_start, view.epoch),
            }),
        }
    }

    fn close(&self) {
        for (handle, session) in self.sessions.lock().drain() {
            if let Some(replica) = session.replica {
                replica.subscribers.remove(&self.signal, handle);
            }
        }
    }
}

fn refusal(error: &ReplicaError) -> Refusal {
    match error {
        ReplicaError::FencedEpoch { .. } => Refusal::Fenced,
        ReplicaError::UnknownEpoch { .. } => Refusal::UnknownEpoch,
        ReplicaError::NotLeader { .. } => Refusal::NotLeader,
        _ => Refusal::Storage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn watermarks_that_wait_become_due_together_and_then_nothing_is() {
        let mut late = Late::default();
        late.add(7);
        late.add(8);
        late.due().await;
        assert_eq!(late.take(), [7, 8]);
        let again = tokio::time::timeout(2 * MARK_DELAY, late.due()).await;
        assert!(again.is_err(), "nothing waits");
    }
}
