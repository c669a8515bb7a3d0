//! A link that reads with Fetch: one loop per source broker, every partition led there in one request.
//!
//! Works against any Kafka. The loop long-polls at the source; while what came is written, the next request is under way,
//! which over a long line is most of the time. So a link holds two answers at most, of [`ANSWER_BYTES`] each (or a batch
//! that is larger). Partitions that need something else first (their log looked at, an epoch checked) get it between two
//! requests. Ends when cancelled, between two awaits of its own: a write that has begun is finished or fails as a whole at
//! the log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tradewind_wire::flow::HEARTBEATS_TOPIC;
use tradewind_wire::ids::NodeId;

use super::track::{PartitionHere, RETRY_MS, Step, Track, Write};
use super::writer::{Tracks, write_all};
use super::{FetchFrom, Fetched, PartitionOf, Source, SourceError};
use crate::board::Board;
use crate::discovery::Assigned;
use crate::metrics;
use crate::target::{Target, View};

/// How long a source broker may hold a Fetch without data, in ms.
const LONG_POLL_MS: i32 = 500;
/// Bytes of one answer, at most. Over a line of 100 ms a link can copy ten times as much in a second.
pub(super) const ANSWER_BYTES: i32 = 16 << 20;
/// Bytes of one partition in one answer, at most, when many are behind. Those that are behind share an answer.
const PARTITION_BYTES: i32 = 1 << 20;

/// What every link of a flow shares.
#[derive(Clone)]
pub struct LinkContext {
    /// The cluster that is written to.
    pub target: Arc<dyn Target>,
    /// The cluster that is read.
    pub source: Arc<dyn Source>,
    /// Where facts are kept.
    pub board: Arc<Board>,
    /// Woken when the source's metadata should be asked for again at once.
    pub refresh: Arc<Notify>,
}

/// Runs a link to the source broker `node` for whatever is assigned, until cancelled.
pub async fn run(
    context: LinkContext,
    node: NodeId,
    mut assigned: watch::Receiver<Arc<Vec<Assigned>>>,
    cluster_id: String,
    cancel: CancellationToken,
) {
    let mut tracks = Tracks::new();
    let mut turn = 0usize;
    let mut known = Arc::new(Vec::new());
    let mut pending = Pending::new();
    while !cancel.is_cancelled() {
        let wanted = assigned.borrow_and_update().clone();
        if !Arc::ptr_eq(&known, &wanted) {
            // What came for the tracks of before is theirs.
            let came = std::mem::take(&mut pending);
            tokio::select! {
                () = cancel.cancelled() => break,
                () = write(&context, &mut tracks, came) => {}
            }
            follow_assignment(&context, &mut tracks, &wanted, &cluster_id);
            known = wanted;
        }
        prepare(&context, &mut tracks).await;
        publish(&context, &tracks);
        let now_ms = context.target.clock().now_ms();
        let mut reads = wanted_reads(&tracks, now_ms);
        if reads.is_empty() && pending.is_empty() {
            let pause = Duration::from_millis(pause_ms(&tracks, now_ms));
            tokio::select! {
                () = cancel.cancelled() => break,
                changed = assigned.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(pause) => {}
            }
            continue;
        }
        // The broker fills its answer in the order asked: nobody is always last.
        turn = turn.wrapping_add(1);
        let by = turn % reads.len().max(1);
        reads.rotate_left(by);
        let came = std::mem::take(&mut pending);
        let both = async { tokio::join!(read(&context, node, &reads), write(&context, &mut tracks, came)) };
        let answer = tokio::select! {
            () = cancel.cancelled() => break,
            (answer, ()) = both => answer,
        };
        pending = taken(&context, &mut tracks, &reads, answer);
    }
    for here in tracks.keys() {
        context.board.remove_partition(here);
    }
}

/// Makes the tracks those that are assigned: new ones begin, others end, known ones learn the source's leader epoch.
pub(super) fn follow_assignment(
    context: &LinkContext,
    tracks: &mut Tracks,
    wanted: &[Assigned],
    cluster_id: &str,
) {
    let named: BTreeSet<&PartitionHere> = wanted.iter().map(|assigned| &assigned.here).collect();
    tracks.retain(|here, _| {
        let keep = named.contains(here);
        if !keep {
            context.board.remove_partition(here);
        }
        keep
    });
    let now_ms = context.target.clock().now_ms();
    for assigned in wanted {
        let track = tracks.entry(assigned.here.clone()).or_insert_with(|| {
            Track::new(
                assigned.here.clone(),
                assigned.source.clone(),
                cluster_id,
                assigned.source_epoch,
            )
        });
        track.on_source_epoch(assigned.source_epoch);
        track.bar(assigned.halt.as_deref(), now_ms);
    }
}

/// Everything that tracks need before they can read.
pub(super) async fn prepare(context: &LinkContext, tracks: &mut Tracks) {
    let now_ms = context.target.clock().now_ms();
    let view = context.target.view();
    for track in tracks
        .values_mut()
        .filter(|track| track.step(now_ms) == Step::Begin)
    {
        begin(context, &view, track, now_ms);
    }
    compare(context, tracks).await;
    find_ranges(context, tracks).await;
}

/// Compares histories of all tracks that want it, with one question to each leader.
async fn compare(context: &LinkContext, tracks: &mut Tracks) {
    let now_ms = context.target.clock().now_ms();
    let epoch_of = |track: &Track| match track.step(now_ms) {
        Step::Check { epoch } => Some(epoch),
        _ => None,
    };
    let asked: Vec<(PartitionOf, i32)> = tracks
        .values()
        .filter_map(|track| Some((track.source.clone(), epoch_of(track)?)))
        .collect();
    if asked.is_empty() {
        return;
    }
    let mut answer = context.source.epoch_ends(&asked).await;
    let answered_ms = context.target.clock().now_ms();
    for track in tracks.values_mut().filter(|track| epoch_of(track).is_some()) {
        let told = match &mut answer {
            Ok(told) => told.remove(&track.source),
            Err(error) => Some(Err(error.clone())),
        };
        let reason = match told {
            Some(Ok(told)) => {
                track.on_compared(told, answered_ms);
                continue;
            }
            Some(Err(error)) => {
                metrics::source_failure();
                if matches!(error, SourceError::Unreachable(_)) {
                    context.board.not_heard(answered_ms);
                }
                error.to_string()
            }
            None => "the source's leader is moving".to_owned(),
        };
        track.retry(reason, answered_ms);
        context.refresh.notify_one();
    }
}

/// Begins the tracks that are to look at their logs.
pub(super) fn prepare_local(context: &LinkContext, tracks: &mut Tracks) {
    let now_ms = context.target.clock().now_ms();
    if !tracks.values().any(|track| track.step(now_ms) == Step::Begin) {
        return;
    }
    let view = context.target.view();
    for track in tracks
        .values_mut()
        .filter(|track| track.step(now_ms) == Step::Begin)
    {
        begin(context, &view, track, now_ms);
        publish_one(context, track);
    }
}

fn begin(context: &LinkContext, view: &View, track: &mut Track, now_ms: i64) {
    let here = &track.here;
    let (topic, partition) = (here.topic, here.partition);
    let lineage = view
        .topics
        .get(&here.name)
        .filter(|topic| topic.id == here.topic)
        .and_then(|topic| topic.partitions.get(usize::try_from(here.partition).ok()?))
        .map(|partition| partition.lineage.as_slice());
    match (lineage, context.target.log(topic, partition)) {
        (Some(lineage), Ok(log)) => {
            track.begin(log, lineage, now_ms);
            // Nobody misses a heartbeat of before.
            let counts = track.source.topic != HEARTBEATS_TOPIC;
            let tombstones = counts.then(|| context.target.tombstones(topic, partition));
            track.on_tombstones(tombstones.flatten(), now_ms);
        }
        (None, _) => track.retry("its topic is gone here".into(), now_ms),
        (_, Err(error)) => track.on_write_failed(&error, now_ms),
    }
}

async fn find_ranges(context: &LinkContext, tracks: &mut Tracks) {
    let now_ms = context.target.clock().now_ms();
    let asked: Vec<PartitionOf> = tracks
        .values()
        .filter(|track| track.step(now_ms) == Step::Range)
        .map(|track| track.source.clone())
        .collect();
    if asked.is_empty() {
        return;
    }
    let answer = context.source.ends(&asked).await;
    let now_ms = context.target.clock().now_ms();
    for track in tracks
        .values_mut()
        .filter(|track| track.step(now_ms) == Step::Range)
    {
        match &answer {
            Ok(ends) => match ends.get(&track.source) {
                Some(ends) => track.on_range(*ends, now_ms),
                None => track.retry("the source's leader is moving".into(), now_ms),
            },
            Err(error) => track.retry(error.to_string(), now_ms),
        }
        if let Some(gap) = track.gap() {
            let here = &track.here;
            tracing::warn!(
                topic = here.name,
                partition = here.partition,
                from = gap.from,
                to = gap.to,
                "the source had removed records before they were copied"
            );
        }
    }
}

pub(super) fn publish(context: &LinkContext, tracks: &Tracks) {
    for track in tracks.values() {
        publish_one(context, track);
    }
}

pub(super) fn publish_one(context: &LinkContext, track: &Track) {
    context
        .board
        .set_partition(track, context.target.clock().now_ms());
}

fn wanted_reads(tracks: &Tracks, now_ms: i64) -> Vec<FetchFrom> {
    let wanted = tracks.values().filter_map(|track| match track.step(now_ms) {
        Step::Fetch { from } => Some((track, from)),
        _ => None,
    });
    let is_behind = |track: &Track, from| track.ends().is_none_or(|ends| from < ends.high_watermark);
    let behind = wanted
        .clone()
        .filter(|(track, from)| is_behind(track, *from))
        .count();
    let share = ANSWER_BYTES / i32::try_from(behind.max(1)).unwrap_or(i32::MAX);
    let read = |(track, from): (&Track, i64)| FetchFrom {
        partition: track.source.clone(),
        offset: from,
        max_bytes: if is_behind(track, from) {
            share.max(PARTITION_BYTES)
        } else {
            PARTITION_BYTES
        },
    };
    wanted.map(read).collect()
}

/// How long until the first track wants something again.
pub(super) fn pause_ms(tracks: &Tracks, now_ms: i64) -> u64 {
    let until = tracks.values().filter_map(|track| match track.step(now_ms) {
        Step::Wait { until_ms } => Some(until_ms - now_ms),
        _ => None,
    });
    u64::try_from(until.min().unwrap_or(RETRY_MS).clamp(5, RETRY_MS)).unwrap_or(5)
}

/// What came and is not written yet.
type Pending = Vec<(PartitionHere, VecDeque<Write>)>;

/// What a source broker answered.
type Answer = Result<Vec<(PartitionOf, Fetched)>, SourceError>;

async fn read(context: &LinkContext, node: NodeId, reads: &[FetchFrom]) -> Answer {
    if reads.is_empty() {
        return Ok(Vec::new());
    }
    let answer = context.source.fetch(node, reads.to_vec(), LONG_POLL_MS).await;
    let now_ms = context.target.clock().now_ms();
    match &answer {
        Ok(_) => context.board.heard(now_ms),
        Err(_) => {
            metrics::source_failure();
            context.board.not_heard(now_ms);
            context.refresh.notify_one();
        }
    }
    answer
}

async fn write(context: &LinkContext, tracks: &mut Tracks, pending: Pending) {
    if !pending.is_empty() {
        write_all(context.target.as_ref(), tracks, pending).await;
        publish(context, tracks);
    }
}

/// Gives every track what came for it. A track that has begun again meanwhile, because a write of what came before failed,
/// takes nothing: it will ask anew.
fn taken(context: &LinkContext, tracks: &mut Tracks, reads: &[FetchFrom], answer: Answer) -> Pending {
    let now_ms = context.target.clock().now_ms();
    let asked: BTreeMap<&PartitionOf, i64> =
        reads.iter().map(|read| (&read.partition, read.offset)).collect();
    let mut waiting: BTreeMap<PartitionOf, &mut Track> = tracks
        .values_mut()
        .filter(|track| {
            let from = asked.get(&track.source).copied();
            from.is_some_and(|from| track.step(now_ms) == Step::Fetch { from })
        })
        .map(|track| (track.source.clone(), track))
        .collect();
    let mut pending = Pending::new();
    let answers = match answer {
        Ok(answers) => answers,
        Err(error) => {
            for track in waiting.into_values() {
                track.retry(error.to_string(), now_ms);
            }
            return pending;
        }
    };
    for (partition, fetched) in answers {
        if matches!(fetched, Fetched::Elsewhere | Fetched::UnknownTopic) {
            context.refresh.notify_one();
        }
        let Some(track) = waiting.remove(&partition) else {
            continue;
        };
        let before = track.trimmed();
        let writes = track.on_fetched(fetched, now_ms);
        metrics::trimmed(track.trimmed() - before);
        if !writes.is_empty() {
            pending.push((track.here.clone(), writes));
        }
    }
    // Who is left out would ask again at once, and wait for nothing.
    for track in waiting.into_values() {
        track.on_fetched(Fetched::Missing, now_ms);
    }
    pending
}
