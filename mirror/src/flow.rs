//! One flow on one daemon: its tasks while it is active, its part of a failover, and what it answers when asked.
//!
//! A [`Flow`] owns a source and a board. [`run`] is its only long-lived task; everything that writes runs below it and has
//! ended before the flow does anything else, so that a flow that is paused or failing over appends nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tradewind_wire::flow::FlowSpec;
use tradewind_wire::ids::TopicId;

use crate::board::{Board, Observation, Observed};
use crate::discovery::created_again;
use crate::matching::{Matches, matches};
use crate::naming::Names;
use crate::origins::{self, Hearing};
use crate::passes::{self, Pass};
use crate::source::{PartitionOf, Source, SourceError, SourceTopics};
use crate::target::{FlowState, Target};
use crate::transactions::{self, Ended};
use crate::{failback, failover, metrics, supervisor, switchover};

/// How long one look at a source may take.
pub(crate) const LOOK_TIMEOUT: Duration = Duration::from_secs(4);

/// The ids of the clusters that flows into this cluster come from, by flow.
pub(crate) type Seen = Arc<parking_lot::Mutex<BTreeMap<String, String>>>;

/// One flow into this cluster, as this daemon runs it.
pub(crate) struct Flow {
    pub(crate) name: String,
    pub(crate) spec: FlowSpec,
    pub(crate) names: Names,
    pub(crate) target: Arc<dyn Target>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) board: Arc<Board>,
    /// Woken when the source's metadata should be asked for again at once.
    pub(crate) refresh: Arc<Notify>,
    /// How often a source is asked for what it does not push.
    pub(crate) interval: Duration,
    /// One pass over the groups at a time.
    pub(crate) pass: Mutex<Pass>,
    /// The ids of the source's topics, as it last told them.
    pub(crate) looked: parking_lot::Mutex<BTreeMap<String, TopicId>>,
    /// What the source last said its topics are.
    pub(crate) hearing: Hearing,
    /// The ids of the clusters that flows come from, as their last looks on this daemon found them.
    pub(crate) seen: Seen,
}

impl Flow {
    fn state(&self) -> Option<FlowState> {
        self.target.view().flows.get(&self.name).map(|flow| flow.state)
    }

    /// Asks the source for its topics, and keeps the time at which it was heard.
    pub(crate) async fn topics(&self) -> Result<SourceTopics, SourceError> {
        let answer = tokio::time::timeout(LOOK_TIMEOUT, self.source.topics()).await;
        let mut answer = answer.unwrap_or_else(|_| Err(SourceError::Unreachable("no answer in time".into())));
        if let Ok(topics) = &mut answer {
            let ids = topics.topics.iter().map(|(name, topic)| (name.clone(), topic.id));
            *self.looked.lock() = ids.collect();
            origins::add(self, topics).await;
            self.seen
                .lock()
                .insert(self.name.clone(), topics.cluster_id.clone());
        }
        let now_ms = self.target.clock().now_ms();
        match &answer {
            Ok(_) => self.board.heard(now_ms),
            Err(_) => {
                metrics::source_failure();
                self.board.not_heard(now_ms);
            }
        }
        answer
    }

    /// Applies the flow to what the source has, and remembers what is not copied for the sake of another way.
    pub(crate) fn matches(&self, topics: &SourceTopics) -> Matches {
        let seen = self.seen.lock().clone();
        let matches = matches(&self.name, &self.names, topics, &self.target.view(), &seen);
        self.board
            .set_elsewhere(matches.elsewhere.keys().cloned().collect());
        matches
    }

    /// A complete look at the source: every matching partition with its ends. Only a complete one is kept. Topics of which the
    /// source does not say in time whether they are mirrors are named in it.
    pub(crate) async fn observe(&self) -> Result<Observation, SourceError> {
        let at_ms = self.target.clock().now_ms();
        let mut topics = self.topics().await?;
        let mut matches = self.matches(&topics);
        if !matches.awaited.is_empty() {
            origins::add_now(self, &mut topics, origins::AT_ONCE).await;
            matches = self.matches(&topics);
        }
        self.observe_ends(&matches, at_ms).await
    }

    /// The second half of [`Flow::observe`], for topics that were asked for at `at_ms`.
    pub(crate) async fn observe_ends(
        &self,
        matches: &Matches,
        at_ms: i64,
    ) -> Result<Observation, SourceError> {
        let data = || matches.topics.iter().filter(|matched| !matched.heartbeats);
        let mut wanted = Vec::new();
        for matched in data() {
            if matched.topic.partitions.is_empty() {
                return Err(SourceError::Unreachable(format!(
                    "{} is not ready there",
                    matched.source
                )));
            }
            for partition in 0..i32::try_from(matched.topic.partitions.len()).unwrap_or(i32::MAX) {
                let of = PartitionOf {
                    topic: matched.source.clone(),
                    id: matched.topic.id,
                    partition,
                };
                wanted.push((of, matched.here.clone()));
            }
        }
        let asked: Vec<PartitionOf> = wanted.iter().map(|(of, _)| of.clone()).collect();
        let answer = tokio::time::timeout(LOOK_TIMEOUT, self.source.ends(&asked)).await;
        let ends = answer.unwrap_or_else(|_| Err(SourceError::Unreachable("no answer in time".into())))?;
        let mut partitions = Vec::with_capacity(wanted.len());
        let another = created_again(&self.name, matches, &self.target.view());
        for (of, here) in wanted {
            let ends = ends.get(&of).ok_or_else(|| {
                SourceError::Unreachable(format!("nobody answers for {}/{}", of.topic, of.partition))
            })?;
            partitions.push(Observed {
                another: another.contains(&of.topic),
                here,
                partition: of.partition,
                start: ends.start,
                high_watermark: ends.high_watermark,
            });
        }
        let observation = Observation {
            at_ms,
            topics: data().count(),
            partitions,
            awaited: matches.awaited.clone(),
        };
        self.board.set_observation(observation.clone());
        Ok(observation)
    }
}

/// Runs a flow until cancelled: whatever its state asks for, one thing at a time.
pub(crate) async fn run(flow: Arc<Flow>, cancel: CancellationToken) {
    let beside = TaskTracker::new();
    beside.spawn(switchover::run(flow.clone(), cancel.clone()));
    beside.spawn(failback::run(flow.clone(), cancel.clone()));
    beside.close();
    let mut ended = Ended::new();
    while !cancel.is_cancelled() {
        let seen = flow.target.view().index;
        match flow.state() {
            Some(FlowState::Active | FlowState::SwitchingOver) => while_copying(&flow, &cancel).await,
            Some(FlowState::FailingOver) => {
                failover::cut_partitions(&flow.target, &flow.board, &flow.name).await;
                transactions::abort_led_here(&flow.target, &flow.name, &mut ended).await;
                wait_for_change(&flow, &cancel, seen, Duration::from_millis(200)).await;
            }
            Some(FlowState::Promoted) => {
                let all = transactions::abort_led_here(&flow.target, &flow.name, &mut ended).await;
                let at_most = Duration::from_secs(if all { 60 } else { 1 });
                wait_for_change(&flow, &cancel, seen, at_most).await;
            }
            Some(FlowState::Paused) | None => {
                wait_for_change(&flow, &cancel, seen, Duration::from_secs(60)).await;
            }
        }
    }
    beside.wait().await;
}

/// Waits until the view is newer than `seen`, which the caller read before the state that it acted on.
pub(crate) async fn wait_for_change(flow: &Flow, cancel: &CancellationToken, seen: u64, at_most: Duration) {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = flow.target.changed(seen) => {}
        () = tokio::time::sleep(at_most) => {}
    }
}

/// Runs the tasks of a flow that copies; returns when it copies no more and all of them have ended.
async fn while_copying(flow: &Arc<Flow>, cancel: &CancellationToken) {
    let tasks = TaskTracker::new();
    let stop = cancel.child_token();
    tasks.spawn(supervisor::run(flow.clone(), stop.clone()));
    tasks.spawn(passes::run(flow.clone(), stop.clone()));
    let (hearing, end) = (flow.clone(), stop.clone());
    tasks.spawn(async move { origins::run(&hearing, end).await });
    tasks.close();
    loop {
        let seen = flow.target.view().index;
        let copies = matches!(flow.state(), Some(FlowState::Active | FlowState::SwitchingOver));
        if !copies || cancel.is_cancelled() {
            break;
        }
        wait_for_change(flow, cancel, seen, Duration::from_secs(60)).await;
    }
    stop.cancel();
    tasks.wait().await;
}
