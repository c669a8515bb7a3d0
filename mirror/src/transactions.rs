//! Ending what a source can end no more: transactions that were open in a partition when it became this cluster's own.
//!
//! Their coordinator was the source's, and so nobody would ever write their markers; readers of committed records would
//! stop before them for good. Whoever leads such a partition aborts them, once for each epoch that it leads under, behind
//! the cut. What is open is a function of the log: after a crash the next leader finds what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tradewind_wire::ids::TopicId;

use crate::peers::{Answer, Ask, ask_all};
use crate::status::{AbortedTransaction, UnansweredPartition};
use crate::target::{LogError, Target, View};

/// How long one partition's markers have until they are committed.
const WATERMARK_WAIT: Duration = Duration::from_secs(5);
/// How long a daemon has for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(100);

/// The partitions whose open transactions this daemon has aborted, with the leader epoch that it led under.
pub(crate) type Ended = BTreeMap<(TopicId, i32), i32>;

/// Aborts what is open in the partitions of `flow` that have their cut and are led here, unless `ended` says that it was
/// done. Returns whether nothing is left to do in the present view.
pub(crate) async fn abort_led_here(target: &Arc<dyn Target>, flow: &str, ended: &mut Ended) -> bool {
    let view = target.view();
    let mut all = true;
    for (topic, _) in view.topics_of(flow) {
        for (number, partition) in (0..).zip(&topic.partitions) {
            let Some(cut) = partition.cut else { continue };
            let done = ended.get(&(topic.id, number)) == Some(&partition.leader_epoch);
            if partition.leader != Some(target.node_id()) || done {
                continue;
            }
            let epoch = partition.leader_epoch;
            match target.abort_open(topic.id, number, epoch, cut.offset).await {
                Ok(aborted) => {
                    ended.insert((topic.id, number), epoch);
                    if !aborted.is_empty() {
                        let count = aborted.len();
                        tracing::warn!(
                            flow,
                            topic = topic.name,
                            partition = number,
                            count,
                            "aborted transactions that the source had left open"
                        );
                    }
                }
                Err(error) => {
                    all = false;
                    tracing::debug!(flow, topic = topic.name, partition = number, %error, "open transactions not aborted yet");
                }
            }
        }
    }
    all
}

/// What a daemon answers to [`Ask::Aborted`]: every transaction that was aborted by a promotion in a partition of `flow` led
/// here, once its marker is committed, and the partitions that this is true of.
pub(crate) async fn aborted_here(
    target: &Arc<dyn Target>,
    flow: &str,
) -> (Vec<AbortedTransaction>, Vec<(String, i32)>) {
    let view = target.view();
    let (mut found, mut settled) = (Vec::new(), Vec::new());
    for (topic, _) in view.topics_of(flow) {
        for (number, partition) in (0..).zip(&topic.partitions) {
            let Some(cut) = partition.cut else { continue };
            if partition.leader != Some(target.node_id()) {
                continue;
            }
            let of = (topic.id, number, partition.leader_epoch, cut.offset);
            match committed(target, of).await {
                Ok(aborted) => {
                    settled.push((topic.name.clone(), number));
                    found.extend(aborted.into_iter().map(|transaction| AbortedTransaction {
                        topic: topic.name.clone(),
                        partition: number,
                        producer_id: transaction.producer_id,
                        first_offset: transaction.first_offset,
                        marker: transaction.marker,
                    }));
                }
                Err(error) => {
                    tracing::debug!(flow, topic = topic.name, partition = number, %error, "open transactions not aborted yet");
                }
            }
        }
    }
    (found, settled)
}

async fn committed(
    target: &Arc<dyn Target>,
    (topic, partition, epoch, cut): (TopicId, i32, i32, i64),
) -> Result<Vec<crate::target::Aborted>, LogError> {
    let aborted = target.abort_open(topic, partition, epoch, cut).await?;
    if let Some(last) = aborted.iter().map(|transaction| transaction.marker).max() {
        target
            .await_high_watermark(topic, partition, epoch, last + 1, WATERMARK_WAIT)
            .await?;
    }
    Ok(aborted)
}

/// Every transaction that the promotion of `flow` aborted, by topic, partition and offset; and the partitions with a cut that
/// nobody has answered for after `patience`. Their next leader ends what is open there.
pub(crate) async fn aborted_everywhere(
    target: &Arc<dyn Target>,
    flow: &str,
    patience: Duration,
) -> (Vec<AbortedTransaction>, Vec<UnansweredPartition>) {
    let clock = target.clock();
    let deadline = clock.monotonic() + patience;
    let ask = Ask::Aborted {
        flow: flow.to_owned(),
    };
    // What one round has heard holds for the next: an abort is for good.
    let mut found = BTreeSet::new();
    let mut settled = BTreeSet::new();
    loop {
        let mut hear = |theirs: Vec<AbortedTransaction>, of: Vec<(String, i32)>| {
            found.extend(theirs);
            settled.extend(of);
        };
        let (ours, of) = aborted_here(target, flow).await;
        hear(ours, of);
        for (_, answer) in ask_all(target, &ask, ANSWER_TIMEOUT).await {
            if let Ok(Answer::Aborted(theirs, of)) = answer {
                hear(theirs, of);
            }
        }
        let unanswered = unanswered(&target.view(), flow, &settled);
        if unanswered.is_empty() || clock.monotonic() >= deadline {
            return (found.into_iter().collect(), unanswered);
        }
        tokio::time::sleep(STEP).await;
    }
}

/// The partitions with a cut that nobody has answered for.
fn unanswered(view: &View, flow: &str, settled: &BTreeSet<(String, i32)>) -> Vec<UnansweredPartition> {
    let partitions = view.topics_of(flow).flat_map(|(topic, _)| {
        let cut = (0..)
            .zip(&topic.partitions)
            .filter(|(_, partition)| partition.cut.is_some());
        cut.map(|(partition, _)| UnansweredPartition {
            topic: topic.name.clone(),
            partition,
        })
    });
    partitions
        .filter(|of| !settled.contains(&(of.topic.clone(), of.partition)))
        .collect()
}
