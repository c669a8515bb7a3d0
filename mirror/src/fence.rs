//! At the source of a switchover: each daemon says where the fenced partitions that it leads end.
//!
//! Driven by the view alone. A leader reads the end under the leader epoch that the fence raised, when no client can append
//! any more, and says it once all of it is committed: then it stays the end, whoever leads next.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tradewind_wire::ids::TopicId;
use tradewind_wire::region::{PartitionEnd, RegionCommand};

use crate::target::{Target, View};

/// How long one look waits for a high watermark.
const WATERMARK_WAIT: Duration = Duration::from_secs(1);
/// How soon to look again at what could not be said yet.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs until cancelled.
pub(crate) async fn run(target: Arc<dyn Target>, cancel: CancellationToken) {
    while !cancel.is_cancelled() {
        let view = target.view();
        let open = open_here(&view, target.as_ref());
        let wait = if open.is_empty() {
            Duration::from_secs(60)
        } else {
            tokio::select! {
                () = cancel.cancelled() => break,
                () = say_ends(&target, open) => {}
            }
            PAUSE
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = target.changed(view.index) => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Fenced partitions led here whose end is not recorded, with their leader epoch.
fn open_here(view: &View, target: &dyn Target) -> Vec<(TopicId, i32, i32)> {
    let fenced = view
        .topics
        .values()
        .filter(|topic| topic.fence.is_some() && !topic.is_mirroring());
    let me = target.node_id();
    fenced
        .flat_map(|topic| {
            let partitions = (0..).zip(&topic.partitions);
            partitions
                .filter(|(_, partition)| partition.fenced_end.is_none() && partition.leader == Some(me))
                .map(|(number, partition)| (topic.id, number, partition.leader_epoch))
        })
        .collect()
}

async fn say_ends(target: &Arc<dyn Target>, open: Vec<(TopicId, i32, i32)>) {
    let ends = join_all(open.into_iter().map(|which| end_of(target, which))).await;
    let ends: Vec<PartitionEnd> = ends.into_iter().flatten().collect();
    if ends.is_empty() {
        return;
    }
    if let Err(error) = target.region(RegionCommand::Ends(ends)).await {
        tracing::debug!(%error, "where fenced partitions end is not recorded yet");
    }
}

async fn end_of(
    target: &Arc<dyn Target>,
    (topic, partition, leader_epoch): (TopicId, i32, i32),
) -> Option<PartitionEnd> {
    let log = target.log(topic, partition).ok()?;
    // Under an earlier epoch clients may still append.
    if log.leader_epoch != leader_epoch {
        return None;
    }
    let reached = target
        .await_high_watermark(topic, partition, leader_epoch, log.end, WATERMARK_WAIT)
        .await;
    if let Err(error) = reached {
        tracing::debug!(%topic, partition, %error, "the end of a fenced partition is not committed yet");
        return None;
    }
    Some(PartitionEnd {
        topic,
        partition,
        leader_epoch,
        end: log.end,
    })
}
