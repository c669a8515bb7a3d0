//! Making a flow's topics this cluster's own.
//!
//! `failover` begins it in the metadata log; from then on every daemon does its part by itself, driven by the flow's state
//! ([`cut_partitions`]), so that a crash of anyone at any step only delays it. When all cuts are recorded the flow is
//! promoted; then the coordinators bring groups to their final positions ([`finish_groups`]) and the report is made from
//! what is recorded. Every step may be repeated.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::board::{Board, PositionFacts, PositionStatus};
use crate::peers::{Answer, Ask, ask_all, promoted};
use crate::status::{
    AbortedTransaction, FailoverError, FailoverReport, PromotedPartition, PromotedPosition, PromotedTopic,
    UnansweredPartition, paused,
};
use crate::target::{
    CommandError, CommitOutcome, CutEntry, FlowMark, FlowState, MirroredPosition, StoredPosition, Target,
    View,
};
use crate::transactions;

/// How long one call of `failover` works before it says what is still open.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the report waits for answers about what was aborted, once cuts and positions are recorded.
const ANSWERS_WAIT: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(100);
const WATERMARK_WAIT: Duration = Duration::from_secs(5);

/// Records the cut of every partition of a failing-over flow that is led here, once its high watermark is its end. Returns
/// when none is left to this daemon in the present view.
pub(crate) async fn cut_partitions(target: &Arc<dyn Target>, board: &Board, flow: &str) {
    let view = target.view();
    let source_ends = source_ends(board);
    for (topic, _) in view.topics_of(flow).filter(|(_, bound)| !bound.promoted) {
        for (number, partition) in (0..).zip(&topic.partitions) {
            if partition.cut.is_some() || partition.leader != Some(target.node_id()) {
                continue;
            }
            let Ok(log) = target.log(topic.id, number) else {
                continue;
            };
            // The epoch that ended mirroring must be the one that this daemon leads under, or an append may still come.
            if log.leader_epoch < partition.leader_epoch {
                continue;
            }
            let reached = target
                .await_high_watermark(topic.id, number, log.leader_epoch, log.end, WATERMARK_WAIT)
                .await;
            if let Err(error) = reached {
                tracing::warn!(flow, topic = topic.name, partition = number, %error, "cut waits for the high watermark");
                continue;
            }
            let cut = CutEntry {
                topic: topic.id,
                partition: number,
                leader_epoch: log.leader_epoch,
                cut: log.end,
                source_end: source_ends.get(&(topic.name.clone(), number)).copied(),
            };
            if let Err(error) = target.record_cuts(flow, vec![cut]).await {
                tracing::debug!(flow, topic = topic.name, partition = number, %error, "cut not recorded yet");
            }
        }
    }
}

fn source_ends(board: &Board) -> BTreeMap<(String, i32), i64> {
    let mut ends = BTreeMap::new();
    for observed in board
        .observation()
        .into_iter()
        .flat_map(|observation| observation.partitions)
        .filter(|observed| !observed.another)
    {
        ends.insert((observed.here, observed.partition), observed.high_watermark);
    }
    for (here, facts) in board.partitions() {
        if let Some(heard) = facts.ends {
            let end = ends.entry((here.name, here.partition)).or_insert(0);
            *end = heard.high_watermark.max(*end);
        }
    }
    ends
}

/// Fails `flow` over and reports. Continues whatever an earlier call has begun.
pub(crate) async fn run(target: &Arc<dyn Target>, flow: &str) -> Result<FailoverReport, FailoverError> {
    if !target.view().flows.contains_key(flow) {
        return Err(FailoverError::UnknownFlow(flow.to_owned()));
    }
    let clock = target.clock();
    let deadline = clock.monotonic() + PATIENCE;
    loop {
        match target.begin_failover(flow).await {
            Ok(()) => break,
            Err(CommandError::Unavailable | CommandError::Stale) if clock.monotonic() < deadline => {
                tokio::time::sleep(STEP).await;
            }
            Err(error) => {
                return Err(FailoverError::Refused {
                    flow: flow.to_owned(),
                    reason: error.to_string(),
                });
            }
        }
    }
    loop {
        let view = target.view();
        let state = view.flows.get(flow).map(|flow| flow.state);
        if state == Some(FlowState::Promoted) {
            break;
        }
        if clock.monotonic() >= deadline {
            return Err(not_finished(&view, flow));
        }
        let _ = tokio::time::timeout(STEP, target.changed(view.index)).await;
    }
    let groups = finish_everywhere(target, flow, deadline).await?;
    let aborted = transactions::aborted_everywhere(target, flow, ANSWERS_WAIT).await;
    Ok(report(&target.view(), flow, groups, aborted))
}

fn not_finished(view: &View, flow: &str) -> FailoverError {
    let open: Vec<String> = view
        .topics_of(flow)
        .flat_map(|(topic, _)| {
            let uncut = (0..)
                .zip(&topic.partitions)
                .filter(|(_, partition)| partition.cut.is_none());
            uncut.map(|(number, _): (i32, _)| format!("{}/{number}", topic.name))
        })
        .collect();
    FailoverError::NotFinished {
        flow: flow.to_owned(),
        open: open.len(),
        first: open
            .into_iter()
            .next()
            .unwrap_or_else(|| "the flow itself".into()),
    }
}

/// Every daemon that may coordinate a group finishes its own; one that does not answer is asked again until it does or is
/// no longer active.
pub(crate) async fn finish_everywhere(
    target: &Arc<dyn Target>,
    flow: &str,
    deadline: Duration,
) -> Result<Vec<PromotedPosition>, FailoverError> {
    let clock = target.clock();
    let ask = Ask::Finish {
        flow: flow.to_owned(),
    };
    loop {
        let mut failure = None;
        let mut positions = BTreeMap::new();
        match finish_groups(target, flow).await {
            Ok(mine) => insert(&mut positions, mine),
            Err(reason) => failure = Some(reason),
        }
        for (node, answer) in ask_all(target, &ask, Duration::from_secs(10)).await {
            match answer {
                Ok(Answer::Finished(theirs)) => insert(&mut positions, theirs),
                Ok(Answer::Refused(reason)) => failure = Some(format!("daemon {node}: {reason}")),
                Ok(_) => failure = Some(format!("daemon {node} answered something else")),
                Err(error) => failure = Some(error.to_string()),
            }
        }
        let Some(reason) = failure else {
            return Ok(positions.into_values().collect());
        };
        if clock.monotonic() >= deadline {
            return Err(FailoverError::Refused {
                flow: flow.to_owned(),
                reason: format!("topics are promoted, but groups are not all final: {reason}"),
            });
        }
        tokio::time::sleep(STEP).await;
    }
}

fn insert(all: &mut BTreeMap<(String, String, i32), PromotedPosition>, positions: Vec<PromotedPosition>) {
    for position in positions {
        all.insert(
            (position.group.clone(), position.topic.clone(), position.partition),
            position,
        );
    }
}

/// Brings the groups coordinated here to their final positions: what the source had, at most the cut.
pub(crate) async fn finish_groups(
    target: &Arc<dyn Target>,
    flow: &str,
) -> Result<Vec<PromotedPosition>, String> {
    let view = target.view();
    if view
        .flows
        .get(flow)
        .is_none_or(|flow| flow.state != FlowState::Promoted)
    {
        return Err("the flow is not promoted in this daemon's view yet".into());
    }
    let cuts = cuts(&view, flow);
    let mut all = Vec::new();
    for group in target.mirrored_groups(flow).await {
        let stored = match target.group_positions(&group).await {
            Ok(stored) => stored,
            // Its new coordinator finishes it.
            Err(error) => return Err(format!("group {group}: {error}")),
        };
        let mut finals = final_positions(flow, &group, &stored, &cuts);
        let writes: Vec<MirroredPosition> = finals.iter().filter_map(|last| last.write.clone()).collect();
        if !writes.is_empty() {
            let outcomes = target
                .mirrored_commit(&group, writes)
                .await
                .map_err(|error| format!("group {group}: {error}"))?;
            let written = finals.iter_mut().filter(|last| last.write.is_some());
            for (last, outcome) in written.zip(outcomes) {
                if outcome == CommitOutcome::OwnedHere {
                    last.facts.status = PositionStatus::OwnedHere;
                }
            }
        }
        all.extend(finals.iter().map(Final::report));
    }
    Ok(all)
}

fn cuts(view: &View, flow: &str) -> BTreeMap<(String, i32), i64> {
    view.topics_of(flow)
        .flat_map(|(topic, _)| {
            (0..)
                .zip(&topic.partitions)
                .filter_map(|(number, partition)| Some(((topic.name.clone(), number), partition.cut?.offset)))
        })
        .collect()
}

/// Where a position stands for good.
pub(crate) struct Final {
    facts: PositionFacts,
    /// Whether the group had read further at the source than was copied.
    cut: bool,
    write: Option<MirroredPosition>,
}

impl Final {
    /// As a failover tells of it.
    pub(crate) fn report(&self) -> PromotedPosition {
        let status = match self.facts.status {
            PositionStatus::OwnedHere => "owned-here",
            _ if self.cut => "cut",
            _ => "exact",
        };
        promoted(&self.facts, status)
    }
}

/// Where each position of a group on the flow's topics stands for good.
fn final_positions(
    flow: &str,
    group: &str,
    stored: &[StoredPosition],
    cuts: &BTreeMap<(String, i32), i64>,
) -> Vec<Final> {
    let on_flow = stored.iter().filter_map(|stored| {
        let cut = cuts.get(&(stored.topic.clone(), stored.partition)).copied()?;
        Some((stored, cut))
    });
    on_flow
        .map(|(stored, cut)| final_position(flow, group, stored, cut))
        .collect()
}

/// Where a stored position of a group stands for good in a partition that is cut here. The one rule of failovers and drills.
pub(crate) fn final_position(flow: &str, group: &str, stored: &StoredPosition, cut: i64) -> Final {
    let facts = |offset, source_offset, status| PositionFacts {
        group: group.to_owned(),
        topic: stored.topic.clone(),
        partition: stored.partition,
        offset,
        source_offset,
        status,
    };
    let Some(mark) = stored.mark.as_ref().filter(|mark| mark.flow == flow) else {
        return Final {
            facts: facts(stored.offset, stored.offset, PositionStatus::OwnedHere),
            cut: false,
            write: None,
        };
    };
    let offset = mark.source_offset.min(cut);
    Final {
        facts: facts(offset, mark.source_offset, PositionStatus::Exact),
        cut: mark.source_offset > cut,
        write: (stored.offset != offset).then(|| final_write(flow, stored, mark, offset)),
    }
}

fn final_write(flow: &str, stored: &StoredPosition, mark: &FlowMark, offset: i64) -> MirroredPosition {
    MirroredPosition {
        topic: stored.topic.clone(),
        partition: stored.partition,
        offset,
        metadata: stored.metadata.clone(),
        mark: FlowMark {
            flow: flow.to_owned(),
            source_offset: mark.source_offset,
            source_version: mark.source_version + 1,
        },
    }
}

fn report(
    view: &View,
    flow: &str,
    groups: Vec<PromotedPosition>,
    (aborted, unanswered): (Vec<AbortedTransaction>, Vec<UnansweredPartition>),
) -> FailoverReport {
    let topics = view
        .topics_of(flow)
        .map(|(topic, _)| PromotedTopic {
            topic: topic.name.clone(),
            partitions: (0..)
                .zip(&topic.partitions)
                .filter_map(|(number, partition)| {
                    let cut = partition.cut?;
                    Some(PromotedPartition {
                        partition: number,
                        cut: cut.offset,
                        lost_records: cut.source_end.map(|end| (end - cut.offset).max(0)),
                    })
                })
                .collect(),
        })
        .collect();
    FailoverReport {
        flow: flow.to_owned(),
        topics,
        groups,
        paused: paused(view, flow),
        aborted,
        unanswered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: &str = "east->west";

    fn stored(partition: i32, offset: i64, source_offset: Option<i64>) -> StoredPosition {
        StoredPosition {
            topic: "east.orders".into(),
            partition,
            offset,
            metadata: String::new(),
            mark: source_offset.map(|source_offset| FlowMark {
                flow: FLOW.into(),
                source_offset,
                source_version: 7,
            }),
        }
    }

    #[test]
    fn final_positions_are_what_the_source_had_and_at_most_the_cut() {
        let cuts: BTreeMap<_, _> = (0..3)
            .map(|partition| (("east.orders".to_owned(), partition), 50))
            .collect();
        let positions = [
            stored(0, 40, Some(40)),
            stored(1, 30, Some(60)),
            stored(2, 20, None),
            stored(9, 1, Some(1)),
        ];
        let finals = final_positions(FLOW, "g", &positions, &cuts);
        let reported: Vec<_> = finals
            .iter()
            .map(|last| {
                let report = last.report();
                (
                    report.partition,
                    report.offset,
                    report.status,
                    last.write.as_ref().map(|write| write.offset),
                )
            })
            .collect();
        assert_eq!(
            reported,
            [
                (0, 40, "exact".to_owned(), None),
                (1, 50, "cut".to_owned(), Some(50)),
                (2, 20, "owned-here".to_owned(), None),
            ]
        );
        assert_eq!(finals[1].write.as_ref().unwrap().mark.source_version, 8);
    }
}
