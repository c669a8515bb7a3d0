//! The checkpoint task: passes over the source's groups, each daemon for the groups that it coordinates.
//!
//! A pass lists the source's groups, reads their positions, decides ([`crate::checkpoint`]) and writes. One runs at a time;
//! besides the regular ones a status may ask for one, so that what it says of groups is not older than the question.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tradewind_wire::ids::NodeId;
use tradewind_wire::region::SwitchStep;

use crate::board::GroupsFacts;
use crate::checkpoint::{Decision, Emitted, Foreign, Here, checkpoints, decide, settle};
use crate::discovery::recreated_topics;
use crate::flow::Flow;
use crate::formats::{batch, checkpoints_topic};
use crate::metrics;
use crate::peers::{Answer, Ask, Watermark, append_own, ask_all};
use crate::source::track::Health;
use crate::source::{Committed, SourceError};
use crate::target::{FlowState, GroupError, Target, View};

/// How long a pass may take to read the source's groups.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long other daemons have to say how far their partitions are.
const WATERMARKS_TIMEOUT: Duration = Duration::from_secs(2);
/// Checkpoint records per batch.
const CHECKPOINTS_PER_BATCH: usize = 1_000;

/// What is kept from pass to pass.
#[derive(Default)]
pub(crate) struct Pass {
    /// When the last successful pass began (monotonic).
    began: Option<Duration>,
    emitted: Emitted,
    /// High watermarks never fall; a position below a known one needs no question.
    high_watermarks: BTreeMap<(String, i32), i64>,
    /// What the groups here had committed at the source when it was last looked at.
    committed: BTreeMap<String, Vec<Committed>>,
    /// Topics that were another's at the source then: positions on them mean nothing here.
    recreated: BTreeSet<String>,
}

/// Runs regular passes until cancelled.
pub(crate) async fn run(flow: Arc<Flow>, cancel: CancellationToken) {
    // A pass that was cut short may have taken checkpoints for written that are not.
    flow.pass.lock().await.emitted.clear();
    let mut failing = false;
    while !cancel.is_cancelled() {
        let began = flow.target.clock().monotonic();
        let done = tokio::select! {
            () = cancel.cancelled() => break,
            done = pass(&flow, began) => done,
        };
        match done {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                tracing::warn!(flow = flow.name, %error, "group positions not read from the source");
                failing = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = cancel.cancelled() => break,
            () = tokio::time::sleep(flow.interval) => {}
        }
    }
}

/// One pass, unless one has begun at or after `not_before` (monotonic) already.
pub(crate) async fn pass(flow: &Flow, not_before: Duration) -> Result<(), SourceError> {
    let mut pass = flow.pass.lock().await;
    if pass.began.is_some_and(|began| began >= not_before) {
        return Ok(());
    }
    let clock = flow.target.clock();
    let began = clock.monotonic();
    let mut facts = GroupsFacts::default();
    let committed = tokio::time::timeout(READ_TIMEOUT, read_groups(flow, &mut facts)).await;
    let committed =
        committed.unwrap_or_else(|_| Err(SourceError::Unreachable("no answer in time".into())))?;
    if committed != pass.committed {
        // After the positions were read: what they mean is known of topics that are still the same.
        let topics = flow.topics().await?;
        pass.recreated = recreated_topics(&flow.name, &topics, &flow.target.view());
        pass.committed.clone_from(&committed);
    }
    let paused = paused_topics(&flow.target.view(), &flow.name);
    let here = picture(flow, &mut pass, &committed, &paused).await;

    let mut records = Vec::new();
    for (group, committed) in committed {
        // A failover or a pause that began meanwhile has the last word.
        let view = flow.target.view();
        if !may_write(&view, &flow.name) || paused_topics(&view, &flow.name) != paused {
            pass.emitted.clear();
            return Ok(());
        }
        let decisions = match write_group(flow, &group, &committed, &here).await {
            Ok(decisions) => decisions,
            Err(GroupError::NotCoordinator) => continue,
            Err(error) => {
                tracing::warn!(flow = flow.name, group, %error, "group positions not written");
                continue;
            }
        };
        records.extend(checkpoints(&decisions, &mut pass.emitted));
        facts
            .positions
            .extend(decisions.into_iter().map(|decision| decision.facts));
        facts.done.push(group);
    }
    flow.board.set_groups(facts);
    pass.began = Some(began);
    let now_ms = clock.now_ms();
    for chunk in records.chunks(CHECKPOINTS_PER_BATCH) {
        let encoded: Vec<_> = chunk.iter().map(crate::formats::Checkpoint::encode).collect();
        let topic = checkpoints_topic(&flow.spec.source_cluster);
        if let Err(reason) = append_own(&flow.target, &topic, 0, batch(now_ms, &encoded)).await {
            tracing::debug!(
                flow = flow.name,
                reason,
                "checkpoints not written; they will be again"
            );
            for checkpoint in chunk {
                let key = (
                    checkpoint.group.clone(),
                    checkpoint.topic.clone(),
                    checkpoint.partition,
                );
                pass.emitted.remove(&key);
            }
        }
    }
    Ok(())
}

async fn read_groups(
    flow: &Flow,
    facts: &mut GroupsFacts,
) -> Result<BTreeMap<String, Vec<Committed>>, SourceError> {
    facts.seen = flow.source.groups().await?;
    facts.seen.retain(|group| flow.names.takes_group(group));
    let mine: Vec<String> = facts
        .seen
        .iter()
        .filter(|group| flow.target.coordinates(group))
        .cloned()
        .collect();
    if mine.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut committed = BTreeMap::new();
    for (group, told) in flow.source.committed(&mine).await? {
        match told {
            Ok(positions) => drop(committed.insert(group, positions)),
            Err(reason) => facts.untold.push((group, reason)),
        }
    }
    Ok(committed)
}

/// Whether a pass may write positions of this flow: once a switchover settles them, the last word is its own.
fn may_write(view: &View, flow: &str) -> bool {
    view.flows.get(flow).is_some_and(|flow| match flow.state {
        FlowState::Active => true,
        FlowState::SwitchingOver => {
            let step = flow.switchover.as_ref().map(|switchover| switchover.step);
            matches!(step, Some(SwitchStep::Fencing | SwitchStep::Draining))
        }
        _ => false,
    })
}

/// What this cluster has of the topics that the groups have committed on.
async fn picture(
    flow: &Flow,
    pass: &mut Pass,
    committed: &BTreeMap<String, Vec<Committed>>,
    paused: &BTreeSet<String>,
) -> Here {
    let view = flow.target.view();
    let mut here = Here::default();
    let mut unknown = false;
    let topics: BTreeSet<&str> = committed
        .values()
        .flatten()
        .map(|committed| committed.topic.as_str())
        .collect();
    let elsewhere = flow.board.elsewhere();
    let bound: BTreeMap<&str, &str> = view
        .topics_of(&flow.name)
        .map(|(topic, bound)| (bound.source_topic.as_str(), topic.name.as_str()))
        .collect();
    for topic in topics {
        // What comes by another way has its positions from there.
        if elsewhere.contains(topic) || !flow.names.takes_topic(topic, false) {
            continue;
        }
        let name = match bound.get(topic) {
            Some(name) => (*name).to_owned(),
            None => match flow.names.topic(topic, false) {
                Ok(name) => name,
                Err(_) => continue,
            },
        };
        let bound = view.topics.get(&name);
        let ours = bound.filter(|bound| {
            bound
                .mirror
                .as_ref()
                .is_some_and(|mirror| mirror.flow == flow.name)
        });
        let partitions = ours.map_or(0, |topic| {
            i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)
        });
        if ours.is_some_and(|topic| topic.has_moved()) {
            here.moved.insert(name.clone());
        }
        here.topics.insert(topic.to_owned(), (name, partitions));
    }
    for committed in committed.values().flatten() {
        if let Some((name, _)) = here.topics.get(&committed.topic) {
            let known = pass.high_watermarks.get(&(name.clone(), committed.partition));
            unknown |= known.is_none_or(|known| *known < committed.offset);
        }
    }
    if unknown {
        for (topic, partition, high_watermark) in watermarks(flow).await {
            pass.high_watermarks.insert((topic, partition), high_watermark);
        }
    }
    here.high_watermarks.clone_from(&pass.high_watermarks);
    // Without a watermark a position stays as it is.
    let recreated: BTreeSet<String> = pass
        .recreated
        .iter()
        .filter_map(|topic| here.topics.get(topic).map(|(name, _)| name.clone()))
        .collect();
    let (diverged, silent) = diverged(flow).await;
    let led_by_silent = |topic: &str, partition: i32| {
        let topic = view.topics.get(topic);
        let partition = topic.and_then(|topic| topic.partitions.get(usize::try_from(partition).ok()?));
        let leader = partition.and_then(|partition| partition.leader);
        leader.is_none_or(|leader| silent.contains(&leader))
    };
    here.high_watermarks
        .retain(|(topic, partition), _| !paused.contains(topic) && !led_by_silent(topic, *partition));
    here.foreign = Foreign {
        topics: recreated,
        partitions: diverged,
    };
    here
}

/// The partitions of a flow that have diverged, as their leaders say, and the daemons that did not say.
async fn diverged(flow: &Flow) -> (BTreeSet<(String, i32)>, BTreeSet<NodeId>) {
    let ask = Ask::Diverged {
        flow: flow.name.clone(),
    };
    let mut all: BTreeSet<_> = diverged_here(flow).into_iter().collect();
    let mut silent = BTreeSet::new();
    for (node, answer) in ask_all(&flow.target, &ask, WATERMARKS_TIMEOUT).await {
        match answer {
            Ok(Answer::Diverged(theirs)) => all.extend(theirs),
            _ => drop(silent.insert(node)),
        }
    }
    (all, silent)
}

/// The partitions of a flow led here whose records are not those of the source.
pub(crate) fn diverged_here(flow: &Flow) -> Vec<(String, i32)> {
    let copied = flow.board.partitions().into_iter();
    let diverged = copied.filter(|(_, facts)| facts.health == Health::Diverged);
    diverged.map(|(here, _)| (here.name, here.partition)).collect()
}

/// The flow's topics that stand still, by their names here.
fn paused_topics(view: &View, flow: &str) -> BTreeSet<String> {
    let paused = view.topics_of(flow).filter(|(topic, _)| topic.paused.is_some());
    paused.map(|(topic, _)| topic.name.clone()).collect()
}

/// The high watermarks of a flow's partitions, from all daemons that answer.
async fn watermarks(flow: &Flow) -> Vec<Watermark> {
    let ask = Ask::Watermarks {
        flow: flow.name.clone(),
    };
    let mut all = led_here(flow.target.as_ref(), &flow.name);
    for (_, answer) in ask_all(&flow.target, &ask, WATERMARKS_TIMEOUT).await {
        if let Ok(Answer::Watermarks(theirs)) = answer {
            all.extend(theirs);
        }
    }
    all
}

/// The high watermarks of a flow's partitions led here.
pub(crate) fn led_here(target: &dyn Target, flow: &str) -> Vec<Watermark> {
    let view = target.view();
    view.topics_of(flow)
        .flat_map(|(topic, _)| {
            (0..).zip(&topic.partitions).filter_map(|(number, partition)| {
                if partition.leader != Some(target.node_id()) {
                    return None;
                }
                let log = target.log(topic.id, number).ok()?;
                Some((topic.name.clone(), number, log.high_watermark))
            })
        })
        .collect()
}

async fn write_group(
    flow: &Flow,
    group: &str,
    committed: &[Committed],
    here: &Here,
) -> Result<Vec<Decision>, GroupError> {
    let stored = flow.target.group_positions(group).await?;
    let now_ms = flow.target.clock().now_ms();
    let mut decisions = decide(&flow.name, group, committed, &stored, here, now_ms);
    let writes: Vec<_> = decisions
        .iter()
        .filter_map(|decision| decision.write.clone())
        .collect();
    if writes.is_empty() {
        return Ok(decisions);
    }
    match flow.target.mirrored_commit(group, writes).await {
        Ok(outcomes) => {
            metrics::positions(outcomes.len());
            settle(&mut decisions, Some(&outcomes));
        }
        Err(GroupError::NotCoordinator) => return Err(GroupError::NotCoordinator),
        Err(error) => {
            tracing::warn!(flow = flow.name, group, %error, "group positions not written");
            settle(&mut decisions, None);
        }
    }
    Ok(decisions)
}
