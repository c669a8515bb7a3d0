//! A link that is pushed to: one `mirror` stream per source daemon, one session per partition led there.
//!
//! The source's leader compares histories when a session starts ([`Push::Match`] or [`Push::Diverge`]), then sends every
//! batch below its high watermark as soon as it is there. Frames are written in the order in which they come; while one is
//! written the rest wait in the stream's window, which is what bounds memory. A track that has to begin again ends its
//! session and starts another under a new handle, so that frames still under way mean nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tradewind_wire::ids::NodeId;
use tradewind_wire::mesh::{Follow, Mark, Push, Refusal, Start};

use super::fetch::{LinkContext, follow_assignment, pause_ms, prepare_local, publish, publish_one};
use super::track::{PartitionHere, RETRY_MS, Step, Track};
use super::writer::{Tracks, delete_here, write_all};
use super::{EpochEnd, Fetched, PushStream, SourceEnds, SourceError};
use crate::discovery::Assigned;
use crate::metrics;

/// How often a silent link looks after its tracks.
const LOOK_AFTER: Duration = Duration::from_millis(250);

/// Runs a link to the source daemon `node` for whatever is assigned, until cancelled.
pub async fn run(
    context: LinkContext,
    node: NodeId,
    mut assigned: watch::Receiver<Arc<Vec<Assigned>>>,
    cluster_id: String,
    cancel: CancellationToken,
) {
    let mut link = Link {
        context,
        tracks: Tracks::new(),
        sessions: HashMap::new(),
        next_handle: 1,
    };
    while !cancel.is_cancelled() {
        let wanted = assigned.borrow_and_update().clone();
        link.follow(&wanted, &cluster_id);
        let stream = tokio::select! {
            () = cancel.cancelled() => break,
            stream = link.context.source.open_push(node) => stream,
        };
        let ended = match stream {
            Ok(stream) => link.converse(stream, &mut assigned, &cluster_id, &cancel).await,
            Err(error) => error,
        };
        if cancel.is_cancelled() {
            break;
        }
        link.lost(&ended);
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(RETRY_MS as u64)) => {}
        }
    }
    for here in link.tracks.keys() {
        link.context.board.remove_partition(here);
    }
}

struct Link {
    context: LinkContext,
    tracks: Tracks,
    /// Open sessions by handle.
    sessions: HashMap<u32, PartitionHere>,
    next_handle: u32,
}

impl Link {
    /// Serves one stream until it ends; says why it did.
    async fn converse(
        &mut self,
        mut stream: Box<dyn PushStream>,
        assigned: &mut watch::Receiver<Arc<Vec<Assigned>>>,
        cluster_id: &str,
        cancel: &CancellationToken,
    ) -> SourceError {
        self.sessions.clear();
        loop {
            if let Err(error) = self.look_after(stream.as_mut()).await {
                return error;
            }
            let now_ms = self.now_ms();
            let pause = Duration::from_millis(pause_ms(&self.tracks, now_ms)).min(LOOK_AFTER);
            let frame = tokio::select! {
                () = cancel.cancelled() => return SourceError::Unreachable("stopped".into()),
                frame = stream.recv() => frame,
                changed = assigned.changed() => {
                    if changed.is_err() {
                        return SourceError::Unreachable("stopped".into());
                    }
                    let wanted = assigned.borrow_and_update().clone();
                    self.follow(&wanted, cluster_id);
                    continue;
                }
                () = tokio::time::sleep(pause) => continue,
            };
            match frame {
                Ok(frame) => self.received(frame).await,
                Err(error) => return error,
            }
        }
    }

    /// Ends sessions of tracks that are gone or begin again, and starts sessions for those that are ready.
    async fn look_after(&mut self, stream: &mut dyn PushStream) -> Result<(), SourceError> {
        prepare_local(&self.context, &mut self.tracks);
        delete_here(self.context.target.as_ref(), &mut self.tracks).await;
        let now_ms = self.now_ms();
        let tracks = &self.tracks;
        let over: Vec<u32> = self
            .sessions
            .iter()
            .filter(|(handle, here)| tracks.get(*here).and_then(Track::session) != Some(**handle))
            .map(|(handle, _)| *handle)
            .collect();
        for handle in over {
            self.sessions.remove(&handle);
            stream
                .send(Follow::Stop {
                    handle,
                    failure: None,
                })
                .await?;
        }
        let ready: Vec<PartitionHere> = self
            .tracks
            .iter()
            .filter(|(_, track)| is_reading(track, now_ms) && track.session().is_none())
            .map(|(here, _)| here.clone())
            .collect();
        for here in ready {
            let Some(track) = self.tracks.get_mut(&here) else {
                continue;
            };
            let handle = self.next_handle;
            self.next_handle = self.next_handle.wrapping_add(1);
            track.on_session_started(handle);
            let start = Start {
                handle,
                topic: track.source.id,
                partition: track.source.partition,
                leader_epoch: -1,
                daemon_epoch: -1,
                last_epoch: track.session_epoch(),
                end: track.read_from(),
            };
            self.sessions.insert(handle, here);
            stream.send(Follow::Start(start)).await?;
        }
        Ok(())
    }

    async fn received(&mut self, frame: Push) {
        let now_ms = self.now_ms();
        self.context.board.heard(now_ms);
        let (Push::Match { handle, .. }
        | Push::Diverge { handle, .. }
        | Push::Refused { handle, .. }
        | Push::Data { handle, .. }
        | Push::Watermark { handle, .. }) = frame;
        let Some(here) = self.sessions.get(&handle).cloned() else {
            return;
        };
        let Some(track) = self.tracks.get_mut(&here) else {
            return;
        };
        match frame {
            Push::Match { mark, .. } => {
                track.on_match();
                told(track, mark, now_ms);
            }
            Push::Watermark { mark, .. } => told(track, mark, now_ms),
            Push::Diverge { epoch, end, .. } => {
                self.sessions.remove(&handle);
                track.on_epoch_end(EpochEnd { epoch, end }, now_ms);
            }
            Push::Refused { reason, mark, .. } => {
                self.sessions.remove(&handle);
                if matches!(reason, Refusal::NotLeader | Refusal::UnknownPartition) {
                    self.context.refresh.notify_one();
                }
                refused(track, reason, mark, now_ms);
            }
            Push::Data {
                prev_end,
                mark,
                batches,
                ..
            } => {
                if !track.is_matched() {
                    track.retry(
                        "the source sent records before it had compared histories".into(),
                        now_ms,
                    );
                } else if prev_end != track.read_from() {
                    let reason = format!(
                        "the source sent what follows {prev_end}, not {}",
                        track.read_from()
                    );
                    track.retry(reason, now_ms);
                } else {
                    let before = track.trimmed();
                    let writes = track.on_fetched(
                        Fetched::Records {
                            ends: ends(mark),
                            bytes: batches,
                        },
                        now_ms,
                    );
                    metrics::trimmed(track.trimmed() - before);
                    if !writes.is_empty() {
                        let pending = vec![(here.clone(), writes)];
                        write_all(self.context.target.as_ref(), &mut self.tracks, pending).await;
                    }
                }
            }
        }
        if let Some(track) = self.tracks.get(&here) {
            publish_one(&self.context, track);
        }
    }

    fn follow(&mut self, wanted: &[Assigned], cluster_id: &str) {
        follow_assignment(&self.context, &mut self.tracks, wanted, cluster_id);
        publish(&self.context, &self.tracks);
    }

    /// The stream is gone: every track that was being read begins again on the next one.
    fn lost(&mut self, error: &SourceError) {
        let now_ms = self.now_ms();
        metrics::source_failure();
        tracing::debug!(%error, "mirror stream ended");
        self.context.board.not_heard(now_ms);
        self.context.refresh.notify_one();
        self.sessions.clear();
        for track in self.tracks.values_mut().filter(|track| is_reading(track, now_ms)) {
            track.retry(error.to_string(), now_ms);
        }
        publish(&self.context, &self.tracks);
    }

    fn now_ms(&self) -> i64 {
        self.context.target.clock().now_ms()
    }
}

fn is_reading(track: &Track, now_ms: i64) -> bool {
    matches!(track.step(now_ms), Step::Check { .. } | Step::Fetch { .. })
}

fn ends(mark: Mark) -> SourceEnds {
    SourceEnds {
        start: mark.log_start,
        high_watermark: mark.high_watermark,
    }
}

/// The source says where it stands.
fn told(track: &mut Track, mark: Mark, now_ms: i64) {
    track.on_ends(ends(mark), now_ms);
    track.on_deleted(mark.deleted, ends(mark));
}

fn refused(track: &mut Track, reason: Refusal, mark: Mark, now_ms: i64) {
    if mark.deleted.is_some() {
        track.on_deleted(mark.deleted, ends(mark));
    }
    match reason {
        Refusal::BelowStart => track.on_range(ends(mark), now_ms),
        Refusal::AboveEnd => track.retry("the source ends below what is here".into(), now_ms),
        Refusal::Storage => track.retry("the source cannot read its log".into(), now_ms),
        Refusal::Fenced
        | Refusal::UnknownEpoch
        | Refusal::NotLeader
        | Refusal::UnknownPartition
        | Refusal::StaleDaemon => {
            track.on_fetched(Fetched::Elsewhere, now_ms);
        }
    }
}

#[cfg(test)]
#[path = "push_tests.rs"]
mod tests;
