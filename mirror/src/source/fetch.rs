//! A link that reads with Fetch: one loop per source broker, every partition led there in one request.
//!
//! Works against any Kafka. The loop long-polls at the source, writes what came and asks again; partitions that need
//! something else first (their log looked at, an epoch checked) get it between two requests. Ends when cancelled, between
//! two awaits of its own: a write that has begun is finished or fails as a whole at the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tradewind_wire::ids::NodeId;

use super::track::{PartitionHere, RETRY_MS, Step, Track};
use super::writer::{Tracks, write_all};
use super::{FetchFrom, Fetched, PartitionOf, Source};
use crate::board::Board;
use crate::discovery::Assigned;
use crate::metrics;
use crate::target::{Target, View};

/// How long a source broker may hold a Fetch without data, in ms.
const LONG_POLL_MS: i32 = 500;

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
    while !cancel.is_cancelled() {
        let wanted = assigned.borrow_and_update().clone();
        if !Arc::ptr_eq(&known, &wanted) {
            follow_assignment(&context, &mut tracks, &wanted, &cluster_id);
            known = wanted;
        }
        prepare(&context, &mut tracks).await;
        publish(&context, &tracks);
        let now_ms = context.target.clock().now_ms();
        let mut reads = wanted_reads(&tracks, now_ms);
        if reads.is_empty() {
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
        let by = turn % reads.len();
        reads.rotate_left(by);
        tokio::select! {
            () = cancel.cancelled() => break,
            () = read(&context, node, &mut tracks, reads) => {}
        }
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
    for track in tracks.values_mut() {
        if let Step::Check { epoch } = track.step(now_ms) {
            let answer = context.source.epoch_end(&track.source, epoch).await;
            let now_ms = context.target.clock().now_ms();
            match answer {
                Ok(answer) => track.on_epoch_end(answer, now_ms),
                Err(error) => {
                    metrics::source_failure();
                    context.board.not_heard(now_ms);
                    track.retry(error.to_string(), now_ms);
                    context.refresh.notify_one();
                }
            }
        }
    }
    find_ranges(context, tracks).await;
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
    }
}

fn begin(context: &LinkContext, view: &View, track: &mut Track, now_ms: i64) {
    let here = &track.here;
    let lineage = view
        .topics
        .get(&here.name)
        .filter(|topic| topic.id == here.topic)
        .and_then(|topic| topic.partitions.get(usize::try_from(here.partition).ok()?))
        .map(|partition| partition.lineage.as_slice());
    match (lineage, context.target.log(here.topic, here.partition)) {
        (Some(lineage), Ok(log)) => track.begin(log, lineage, now_ms),
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
    tracks
        .values()
        .filter_map(|track| match track.step(now_ms) {
            Step::Fetch { from } => Some(FetchFrom {
                partition: track.source.clone(),
                offset: from,
            }),
            _ => None,
        })
        .collect()
}

/// How long until the first track wants something again.
pub(super) fn pause_ms(tracks: &Tracks, now_ms: i64) -> u64 {
    let until = tracks.values().filter_map(|track| match track.step(now_ms) {
        Step::Wait { until_ms } => Some(until_ms - now_ms),
        _ => None,
    });
    u64::try_from(until.min().unwrap_or(RETRY_MS).clamp(5, RETRY_MS)).unwrap_or(5)
}

async fn read(context: &LinkContext, node: NodeId, tracks: &mut Tracks, reads: Vec<FetchFrom>) {
    let answer = context.source.fetch(node, reads.clone(), LONG_POLL_MS).await;
    let now_ms = context.target.clock().now_ms();
    let answers = match answer {
        Ok(answers) => {
            context.board.heard(now_ms);
            answers
        }
        Err(error) => {
            metrics::source_failure();
            context.board.not_heard(now_ms);
            context.refresh.notify_one();
            let asked: BTreeSet<&PartitionOf> = reads.iter().map(|read| &read.partition).collect();
            let failed = tracks.values_mut().filter(|track| asked.contains(&track.source));
            failed.for_each(|track| track.retry(error.to_string(), now_ms));
            return;
        }
    };
    let by_source: BTreeMap<PartitionOf, PartitionHere> = tracks
        .values()
        .map(|track| (track.source.clone(), track.here.clone()))
        .collect();
    let mut pending = Vec::new();
    for (partition, fetched) in answers {
        let Some(track) = by_source.get(&partition).and_then(|here| tracks.get_mut(here)) else {
            continue;
        };
        if matches!(fetched, Fetched::Elsewhere | Fetched::UnknownTopic) {
            context.refresh.notify_one();
        }
        let before = track.trimmed();
        let writes = track.on_fetched(fetched, now_ms);
        metrics::trimmed(track.trimmed() - before);
        if !writes.is_empty() {
            pending.push((track.here.clone(), writes));
        }
    }
    write_all(context.target.as_ref(), tracks, pending).await;
}
