//! The checkpoint task: passes over the source's groups, each daemon for the groups that it coordinates.
//!
//! A pass lists the source's groups, reads their positions, decides ([`crate::checkpoint`]) and writes. One runs at a time;
//! besides the regular ones a status may ask for one, so that what it says of groups is not older than the question.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::region::SwitchStep;

use crate::board::{GroupsFacts, PositionStatus};
use crate::checkpoint::{Decision, Emitted, Here, checkpoints, decide, settle};
use crate::discovery::recreated_topics;
use crate::flow::Flow;
use crate::formats::{batch, checkpoints_topic};
use crate::metrics;
use crate::peers::{self, Answer, Ask, Standing, Watermark, append_own};
use crate::source::track::Health;
use crate::source::{Committed, SourceError};
use crate::target::{FlowState, GroupError, Target, View};

/// How long a pass may take to read the source's groups.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long other daemons have to say how their partitions stand.
const STANDINGS_TIMEOUT: Duration = Duration::from_secs(2);
/// Checkpoint records per batch.
const CHECKPOINTS_PER_BATCH: usize = 1_000;

/// What is kept from pass to pass.
#[derive(Default)]
pub(crate) struct Pass {
    /// When the last successful pass began (monotonic).
    began: Option<Duration>,
    emitted: Emitted,
    /// What the groups here had committed at the source when it was last looked at.
    committed: BTreeMap<String, Vec<Committed>>,
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
        flow.topics().await?;
        pass.committed.clone_from(&committed);
    }
    let paused = paused_topics(&flow.target.view(), &flow.name);
    let here = picture(flow, &committed, &paused).await;

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
    committed: &BTreeMap<String, Vec<Committed>>,
    paused: &BTreeSet<String>,
) -> Here {
    let view = flow.target.view();
    let mut here = Here::default();
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
    // The last look is not older than the positions, or they are those of the pass before: what was created again since then
    // at the source, or copied anew here, is found in either case.
    let recreated = recreated_topics(&flow.name, &flow.looked.lock(), &view);
    here.foreign.topics = recreated
        .iter()
        .filter_map(|topic| here.topics.get(topic).map(|(name, _)| name.clone()))
        .collect();
    let open = open_positions(flow, &view, committed, &here).await;
    for (topic, standing) in standings(flow, &view, open, paused).await {
        let at = (topic, standing.partition);
        if standing.diverged {
            here.foreign.partitions.insert(at);
        } else if standing.compared {
            here.high_watermarks.insert(at, standing.high_watermark);
        }
    }
    here
}

/// The partitions of positions that do not stand here as they do at the source: only these need to be known any better.
async fn open_positions(
    flow: &Flow,
    view: &View,
    committed: &BTreeMap<String, Vec<Committed>>,
    here: &Here,
) -> BTreeSet<(String, i32)> {
    let mut open = BTreeSet::new();
    for (group, committed) in committed {
        let Ok(stored) = flow.target.group_positions(group).await else {
            continue;
        };
        // Without watermarks nothing is written: what then is pending is open.
        let decisions = decide(&flow.name, group, committed, &stored, here, 0);
        let pending = decisions
            .into_iter()
            .map(|decision| decision.facts)
            .filter(|facts| facts.status == PositionStatus::Pending);
        open.extend(pending.map(|facts| (facts.topic, facts.partition)));
    }
    open.retain(|(topic, _)| view.topics.contains_key(topic));
    open
}

/// How partitions stand, as their leaders say, by the topic's name here. Those that are paused, have no leader, or whose
/// leader says nothing, are left out: positions on them stay as they are.
async fn standings(
    flow: &Flow,
    view: &View,
    wanted: BTreeSet<(String, i32)>,
    paused: &BTreeSet<String>,
) -> Vec<(String, Standing)> {
    let mut by_leader: BTreeMap<NodeId, Vec<(TopicId, i32)>> = BTreeMap::new();
    let mut names = BTreeMap::new();
    for (name, number) in wanted {
        let Some(topic) = view.topics.get(&name).filter(|_| !paused.contains(&name)) else {
            continue;
        };
        let partition = usize::try_from(number)
            .ok()
            .and_then(|at| topic.partitions.get(at));
        if let Some(leader) = partition.and_then(|partition| partition.leader) {
            by_leader.entry(leader).or_default().push((topic.id, number));
            names.insert(topic.id, name);
        }
    }
    let asked = by_leader.into_iter().map(|(leader, partitions)| async move {
        if leader == flow.target.node_id() {
            return standings_here(flow, &partitions);
        }
        let ask = Ask::Standings {
            flow: flow.name.clone(),
            partitions,
        };
        match peers::ask(flow.target.as_ref(), leader, ask.encode(&[]), STANDINGS_TIMEOUT).await {
            Ok(Answer::Standings(all)) => all,
            _ => Vec::new(),
        }
    });
    let all = join_all(asked).await.into_iter().flatten();
    all.filter_map(|standing| Some((names.get(&standing.topic)?.clone(), standing)))
        .collect()
}

/// How these partitions stand that are copied here.
pub(crate) fn standings_here(flow: &Flow, partitions: &[(TopicId, i32)]) -> Vec<Standing> {
    let wanted: BTreeSet<&(TopicId, i32)> = partitions.iter().collect();
    let copied = flow.board.partitions().into_iter();
    copied
        .filter(|(here, _)| wanted.contains(&(here.topic, here.partition)))
        .filter_map(|(here, facts)| {
            let log = flow.target.log(here.topic, here.partition).ok()?;
            Some(Standing {
                topic: here.topic,
                partition: here.partition,
                high_watermark: log.high_watermark,
                compared: facts.compared,
                diverged: facts.health == Health::Diverged,
            })
        })
        .collect()
}

/// The flow's topics that stand still, by their names here.
fn paused_topics(view: &View, flow: &str) -> BTreeSet<String> {
    let paused = view.topics_of(flow).filter(|(topic, _)| topic.paused.is_some());
    paused.map(|(topic, _)| topic.name.clone()).collect()
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
