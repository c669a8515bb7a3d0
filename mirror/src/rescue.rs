//! At a lost primary that returned: what its target never got is copied to rescue topics, before anything is removed.
//!
//! Driven by the view alone, like `fence`: each daemon copies the tails of the partitions that it leads to the leaders of
//! the rescue partitions, at their own offsets. The position is the end of the rescue log, so that whoever goes on after a
//! crash copies nothing twice; a tail is recorded as kept once the rescue log is committed to its end, which there means
//! flushed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tradewind_wire::batch::split;
use tradewind_wire::failback::{History, Kept, RESCUE_PREFIX};
use tradewind_wire::ids::TopicId;
use tradewind_wire::region::{MoveState, RegionCommand};

use crate::peers::{Answer, Ask, ask};
use crate::target::{Target, View};

/// How soon to look again at what could not be kept yet.
const PAUSE: Duration = Duration::from_millis(100);
/// How many partitions a daemon copies at a time: each has about a mebibyte in memory.
const AT_ONCE: usize = 8;
/// How long a rescue partition's leader waits for its high watermark before it answers.
const WATERMARK_WAIT: Duration = Duration::from_secs(1);
/// How long it may take over one question.
const KEEP_TIMEOUT: Duration = Duration::from_secs(10);

/// A partition led here whose tail is to be kept.
struct Open {
    flow: String,
    attempt: u64,
    topic: TopicId,
    partition: i32,
    leader_epoch: i32,
    end: i64,
    history: History,
}

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
                () = keep_all(&target, &open) => {}
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

fn open_here(view: &View, target: &dyn Target) -> Vec<Open> {
    let me = target.node_id();
    let mut open = Vec::new();
    for (flow, known) in &view.moves {
        if known.state != MoveState::Rescuing {
            continue;
        }
        for topic in view.topics.values() {
            let Some(tails) = known.tails.get(&topic.id) else {
                continue;
            };
            for (number, (tail, partition)) in (0..).zip(tails.partitions.iter().zip(&topic.partitions)) {
                let Some(end) = partition.fenced_end else { continue };
                if tail.kept.is_some() || partition.leader != Some(me) {
                    continue;
                }
                open.push(Open {
                    flow: flow.clone(),
                    attempt: known.attempt,
                    topic: topic.id,
                    partition: number,
                    leader_epoch: partition.leader_epoch,
                    end,
                    history: tail.history.clone(),
                });
            }
        }
    }
    open
}

async fn keep_all(target: &Arc<dyn Target>, open: &[Open]) {
    for some in open.chunks(AT_ONCE) {
        let done = join_all(some.iter().map(|open| keep(target, open))).await;
        for (open, done) in some.iter().zip(done) {
            if let Err(reason) = done {
                let Open {
                    flow,
                    topic,
                    partition,
                    ..
                } = open;
                tracing::warn!(flow, %topic, partition, reason, "a divergent tail is not kept yet");
            }
        }
    }
}

/// Keeps one tail, and says so.
async fn keep(target: &Arc<dyn Target>, open: &Open) -> Result<(), String> {
    let (topic, partition) = (open.topic, open.partition);
    let log = target.log(topic, partition).map_err(|error| error.to_string())?;
    if log.leader_epoch != open.leader_epoch {
        return Err("this daemon does not lead it under the newest epoch yet".into());
    }
    let cut = if log.start >= log.end {
        // Retention has left nothing to be compared.
        open.history.cut.min(open.end)
    } else {
        let ends = |epoch| target.epoch_end(topic, partition, epoch);
        open.history.fork(open.end, ends)
    };
    let from = cut.max(log.start);
    let mut kept = Kept {
        cut,
        end: open.end,
        records: 0,
        bytes: 0,
        anew: target.is_compacted(topic),
    };
    if from < open.end {
        copy(target, open, from).await?;
        (kept.records, kept.bytes) = count(target, open, from).await?;
    }
    let said = target.region(RegionCommand::TailKept {
        flow: open.flow.clone(),
        attempt: open.attempt,
        topic,
        partition,
        leader_epoch: open.leader_epoch,
        kept,
    });
    said.await.map_err(|error| error.to_string())
}

/// Copies what lies between `from` and the end; returns once all of it is committed there.
async fn copy(target: &Arc<dyn Target>, open: &Open, from: i64) -> Result<(), String> {
    let rescue = rescue_topic(target, open).await?;
    let (mut end, mut committed) = send(target, rescue, open.partition, 0, Bytes::new()).await?;
    loop {
        let batches = read(target, open, from.max(end)).await?;
        if batches.is_empty() {
            break;
        }
        (end, committed) = send(target, rescue, open.partition, end, batches).await?;
    }
    if committed {
        return Ok(());
    }
    Err(format!("its copy is not committed up to {end} yet"))
}

async fn read(target: &Arc<dyn Target>, open: &Open, from: i64) -> Result<Bytes, String> {
    let read = target.read_own(open.topic, open.partition, open.leader_epoch, (from, open.end));
    read.await.map_err(|error| error.to_string())
}

/// The topic that keeps this one's tails; made if there is none.
async fn rescue_topic(target: &Arc<dyn Target>, open: &Open) -> Result<TopicId, String> {
    let known = |view: &View| {
        let tails = view.moves.get(&open.flow)?.tails.get(&open.topic)?;
        tails.rescue.as_ref().map(|rescue| rescue.id)
    };
    if let Some(id) = known(&target.view()) {
        return Ok(id);
    }
    let made = target.region(RegionCommand::MakeRescue {
        flow: open.flow.clone(),
        attempt: open.attempt,
        topic: open.topic,
        id: target.new_topic_id(),
    });
    made.await.map_err(|error| error.to_string())?;
    known(&target.view()).ok_or_else(|| "its failback is over".into())
}

/// Sends batches to the leader of a rescue partition: where its log ends then, and whether all of it is committed.
async fn send(
    target: &Arc<dyn Target>,
    topic: TopicId,
    partition: i32,
    previous_end: i64,
    batches: Bytes,
) -> Result<(i64, bool), String> {
    let view = target.view();
    let rescue = view.topics.values().find(|known| known.id == topic);
    let number = usize::try_from(partition).unwrap_or(usize::MAX);
    let leader = rescue.and_then(|rescue| rescue.partitions.get(number)?.leader);
    let leader = leader.ok_or_else(|| "its rescue topic has no leader".to_owned())?;
    let answer = if leader == target.node_id() {
        append(target, topic, partition, previous_end, batches).await
    } else {
        let question = Ask::Keep {
            topic,
            partition,
            previous_end,
        };
        let asked = ask(target.as_ref(), leader, question.encode(&batches), KEEP_TIMEOUT).await;
        asked.map_err(|error| error.to_string())?
    };
    match answer {
        Answer::KeptTo { end, committed } => Ok((end, committed)),
        Answer::Refused(reason) => Err(reason),
        _ => Err("an answer to something else".into()),
    }
}

/// What a daemon answers to [`Ask::Keep`].
pub(crate) async fn append(
    target: &Arc<dyn Target>,
    topic: TopicId,
    partition: i32,
    previous_end: i64,
    batches: Bytes,
) -> Answer {
    match try_append(target, topic, partition, previous_end, batches).await {
        Ok((end, committed)) => Answer::KeptTo { end, committed },
        Err(reason) => Answer::Refused(reason),
    }
}

async fn try_append(
    target: &Arc<dyn Target>,
    topic: TopicId,
    partition: i32,
    previous_end: i64,
    batches: Bytes,
) -> Result<(i64, bool), String> {
    let rescue = |view: &View| {
        let mut topics = view.topics.values();
        topics.any(|known| known.id == topic && known.name.starts_with(RESCUE_PREFIX))
    };
    if !rescue(&target.view()) {
        return Err("that is no rescue topic, as far as this daemon knows".into());
    }
    let log = target.log(topic, partition).map_err(|error| error.to_string())?;
    let end = if batches.is_empty() {
        log.end
    } else {
        let appended = target.append_mirrored(topic, partition, log.leader_epoch, previous_end, batches);
        appended.await.map_err(|error| error.to_string())?
    };
    let reached = target.await_high_watermark(topic, partition, log.leader_epoch, end, WATERMARK_WAIT);
    Ok((end, reached.await.is_ok()))
}

/// How many records and bytes lie between `from` and the end.
async fn count(target: &Arc<dyn Target>, open: &Open, from: i64) -> Result<(u64, u64), String> {
    let (mut at, mut records, mut bytes) = (from, 0, 0);
    loop {
        let read = read(target, open, at).await?;
        if read.is_empty() {
            return Ok((records, bytes));
        }
        for batch in split(read) {
            let header = *batch.map_err(|error| error.to_string())?.header();
            records += u64::try_from(header.records_count).unwrap_or(0);
            bytes += header.size() as u64;
            at = header.next_offset();
        }
    }
}
