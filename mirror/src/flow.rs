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
use tradewind_wire::region::{RegionAsk, RegionWish};

use crate::board::{Board, Observation, Observed};
use crate::discovery::created_again;
use crate::matching::{Matches, matches};
use crate::naming::Names;
use crate::passes::{self, Pass};
use crate::source::{Origins, PartitionOf, Source, SourceError, SourceTopics, Word};
use crate::target::{FlowState, Target};
use crate::transactions::{self, Ended};
use crate::{failback, failover, metrics, supervisor, switchover};

/// How long one look at a source may take.
pub(crate) const LOOK_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a source may take to say what its topics are; until then new ones wait.
const ORIGINS_TIMEOUT: Duration = Duration::from_secs(3);
/// After how long it is asked again: a topic may be promoted, or become a mirror.
const ORIGINS_AGAIN: Duration = Duration::from_secs(5);
/// After how long one that does not say is asked again: it may be of a later version by then.
const UNTOLD_AGAIN: Duration = Duration::from_secs(60);

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
    /// What the source last said its topics are.
    pub(crate) origins: parking_lot::Mutex<Heard>,
    /// The ids of the source's topics, as it last told them.
    pub(crate) looked: parking_lot::Mutex<BTreeMap<String, TopicId>>,
}

/// What a source has said its topics are.
#[derive(Default)]
pub(crate) struct Heard {
    /// None until it has answered; then none if it is none that says so.
    said: Option<Option<Origins>>,
    /// When it answered (monotonic).
    at: Duration,
}

impl Heard {
    /// Whether this is still good for these topics: what a topic is changes rarely, and new ones are asked for at once.
    fn is_current(&self, topics: &SourceTopics, now: Duration) -> bool {
        let age = now.saturating_sub(self.at);
        match &self.said {
            None => false,
            Some(None) => age < UNTOLD_AGAIN,
            Some(Some(said)) => {
                let mut all = topics.topics.values();
                age < ORIGINS_AGAIN && all.all(|topic| said.contains_key(&topic.id))
            }
        }
    }

    fn put_into(&self, topics: &mut SourceTopics) {
        for topic in topics.topics.values_mut() {
            topic.word = match &self.said {
                None => Word::Awaited,
                Some(None) => Word::Untold,
                Some(Some(said)) => said.get(&topic.id).cloned().map_or(Word::Awaited, Word::Says),
            };
        }
    }
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
            self.hear_origins(topics).await;
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

    /// Adds what the source says its topics are. Asked after the topics: one that it does not know of yet is asked for again.
    async fn hear_origins(&self, topics: &mut SourceTopics) {
        let now = self.target.clock().monotonic();
        if !self.origins.lock().is_current(topics, now) {
            let ask = RegionAsk {
                flow: self.spec.clone(),
                cluster_id: self.target.view().cluster_id.clone(),
                attempt: 0,
                wish: RegionWish::Origins,
            };
            match tokio::time::timeout(ORIGINS_TIMEOUT, self.source.origins(&ask)).await {
                Ok(Ok(said)) => {
                    *self.origins.lock() = Heard {
                        said: Some(said),
                        at: now,
                    }
                }
                Ok(Err(error)) => {
                    tracing::debug!(flow = self.name, %error, "the source does not say what its topics are");
                }
                Err(_) => tracing::debug!(
                    flow = self.name,
                    "the source does not say in time what its topics are"
                ),
            }
        }
        self.origins.lock().put_into(topics);
    }

    /// Applies the flow to what the source has, and remembers what is not copied for the sake of another way.
    pub(crate) fn matches(&self, topics: &SourceTopics) -> Matches {
        let matches = matches(&self.name, &self.names, topics, &self.target.view());
        self.board
            .set_elsewhere(matches.elsewhere.keys().cloned().collect());
        matches
    }

    /// A complete look at the source: every matching partition with its ends. Only a complete one is kept.
    pub(crate) async fn observe(&self) -> Result<Observation, SourceError> {
        let at_ms = self.target.clock().now_ms();
        let topics = self.topics().await?;
        self.observe_ends(&self.matches(&topics), at_ms).await
    }

    /// The second half of [`Flow::observe`], for topics that were asked for at `at_ms`.
    pub(crate) async fn observe_ends(
        &self,
        matches: &Matches,
        at_ms: i64,
    ) -> Result<Observation, SourceError> {
        let data = || matches.topics.iter().filter(|matched| !matched.heartbeats);
        if let Some(awaited) = matches.awaited.first() {
            return Err(SourceError::Unreachable(format!(
                "it has not said yet whether {awaited} is a mirror"
            )));
        }
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
