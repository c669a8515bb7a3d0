//! Carries out what tracks decided: lineage entries, batched over partitions, then appends, in order per partition; and
//! deletes what was deleted at the source.

use std::collections::{BTreeMap, VecDeque};

use super::batches::{Run, unsound};
use super::track::{Health, PartitionHere, Track, Write};
use crate::metrics;
use crate::target::{CommandError, LineageEntry, LogError, Target};

/// The partitions of one link.
pub(super) type Tracks = BTreeMap<PartitionHere, Track>;

/// Carries out `pending`. A failed write drops the rest of its partition's writes; its track begins again.
pub(super) async fn write_all(
    target: &dyn Target,
    tracks: &mut Tracks,
    pending: Vec<(PartitionHere, VecDeque<Write>)>,
) {
    let mut pending = pending;
    while !pending.is_empty() {
        enter_lineage(target, tracks, &mut pending).await;
        // Each partition up to the next change of source epoch, which waits for the next round's one command.
        for (here, writes) in &mut pending {
            append_run(target, tracks, here, writes).await;
        }
        pending.retain(|(_, writes)| !writes.is_empty());
    }
}

/// Deletes what was deleted at the source (DeleteRecords) as far as it is committed here; the rest when it is.
pub(super) async fn delete_here(target: &dyn Target, tracks: &mut Tracks) {
    for (here, track) in tracks.iter_mut() {
        let Some(up_to) = track.to_delete() else { continue };
        let epoch = track.leader_epoch();
        match target
            .delete_mirrored(here.topic, here.partition, epoch, up_to)
            .await
        {
            Ok(start) => track.on_deleted_here(start),
            Err(error) => fail(track, &error, target.clock().now_ms()),
        }
    }
}

async fn append_run(
    target: &dyn Target,
    tracks: &mut Tracks,
    here: &PartitionHere,
    writes: &mut VecDeque<Write>,
) {
    let Some(track) = tracks.get_mut(here) else {
        writes.clear();
        return;
    };
    while writes.front().is_some_and(|write| write.lineage.is_none()) {
        let Some(write) = writes.pop_front() else {
            return;
        };
        let epoch = track.leader_epoch();
        let bytes = write.bytes.len();
        let result = target
            .append_mirrored(
                here.topic,
                here.partition,
                epoch,
                write.previous_end,
                write.bytes.clone(),
            )
            .await;
        let now_ms = target.clock().now_ms();
        match result {
            Ok(end) => {
                metrics::mirrored(bytes, write.next - write.previous_end);
                track.on_written(&write, end, now_ms);
            }
            Err(error) => {
                let unsound = matches!(error, LogError::BadBatches(_)).then(|| unsound(&write.bytes));
                match unsound.flatten() {
                    Some((before, fault)) => {
                        append_before(target, track, here, &write, before).await;
                        track.halt(Health::Failed, fault.to_string(), target.clock().now_ms());
                    }
                    None => fail(track, &error, now_ms),
                }
                writes.clear();
            }
        }
    }
}

/// Appends what came before a batch that the log refused, so that what is said of the source begins with that batch.
async fn append_before(
    target: &dyn Target,
    track: &mut Track,
    here: &PartitionHere,
    write: &Write,
    before: Run,
) {
    if before.bytes.is_empty() {
        return;
    }
    let epoch = track.leader_epoch();
    let appended = target
        .append_mirrored(
            here.topic,
            here.partition,
            epoch,
            write.previous_end,
            before.bytes.clone(),
        )
        .await;
    if let Ok(end) = appended {
        metrics::mirrored(before.bytes.len(), before.next - write.previous_end);
        let write = Write {
            epoch: write.epoch,
            lineage: None,
            previous_end: write.previous_end,
            next: before.next,
            bytes: before.bytes,
        };
        track.on_written(&write, end, target.clock().now_ms());
    }
}

/// Enters the lineage of every partition whose next write needs it, in one command.
async fn enter_lineage(
    target: &dyn Target,
    tracks: &mut Tracks,
    pending: &mut [(PartitionHere, VecDeque<Write>)],
) {
    let mut entries = Vec::new();
    let mut entering = Vec::new();
    for (here, writes) in pending.iter_mut() {
        let (Some(track), Some(write)) = (tracks.get(here), writes.front_mut()) else {
            continue;
        };
        if let Some(lineage) = &write.lineage {
            entries.push(LineageEntry {
                topic: here.topic,
                partition: here.partition,
                leader_epoch: track.leader_epoch(),
                lineage: lineage.clone(),
            });
            entering.push((here.clone(), writes));
        }
    }
    if entries.is_empty() {
        return;
    }
    let count = entries.len();
    let outcome = target.enter_lineage(entries).await;
    let now_ms = target.clock().now_ms();
    let results = match outcome {
        Ok(results) if results.len() == count => results,
        Ok(_) => vec![Err(CommandError::Unavailable); count],
        Err(error) => vec![Err(error); count],
    };
    for ((here, writes), result) in entering.into_iter().zip(results) {
        let Some(track) = tracks.get_mut(&here) else {
            continue;
        };
        match result {
            Ok(leader_epoch) => {
                track.on_lineage(leader_epoch);
                if let Some(write) = writes.front_mut() {
                    write.lineage = None;
                }
            }
            Err(error) => {
                match error {
                    CommandError::Stale => fail(track, &LogError::NotLeader, now_ms),
                    CommandError::Unavailable => track.retry(error.to_string(), now_ms),
                    CommandError::Conflict(_) | CommandError::Refused(_) => {
                        track.halt(Health::Diverged, error.to_string(), now_ms);
                    }
                }
                writes.clear();
            }
        }
    }
}

fn fail(track: &mut Track, error: &LogError, now_ms: i64) {
    let here = &track.here;
    tracing::debug!(topic = here.name, partition = here.partition, %error, "mirrored batches not appended or deleted");
    track.on_write_failed(error, now_ms);
}
