//! Follows a source's metadata and this cluster's leadership: one link per source broker, serving what is led here.
//!
//! Also carries out discovery when this daemon is the steward. Looks at the source at the flow's interval, or at once when
//! a link reports that leaders have moved; looks at this cluster whenever its picture changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tradewind_wire::flow::FlowSource;
use tradewind_wire::ids::NodeId;

use crate::discovery::{Action, Assigned, Missing, actions, assignments};
use crate::flow::{Flow, LOOK_TIMEOUT};
use crate::formats::checkpoints_topic;
use crate::gauges;
use crate::matching::Matches;
use crate::source::fetch::{self, LinkContext};
use crate::source::push;
use crate::source::{SourceConfig, SourceTopics};
use crate::target::{CommandError, Target};

/// How often configs of known topics are looked at, in intervals of the flow.
const CONFIGS_EVERY: u32 = 5;
/// The least time between two looks at a source.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
/// How many metadata changes are under way at once.
const CONCURRENT_ACTIONS: usize = 16;

/// Runs until cancelled; all links have ended then.
pub(crate) async fn run(flow: Arc<Flow>, cancel: CancellationToken) {
    let clock = flow.target.clock();
    let mut links = Links::new(flow.clone());
    let mut steward = Steward::default();
    let mut topics: Option<SourceTopics> = None;
    let mut missing = Missing::default();
    let mut look_at = clock.monotonic();
    while !cancel.is_cancelled() {
        let view = flow.target.view();
        if clock.monotonic() >= look_at {
            let at_ms = clock.now_ms();
            tokio::select! {
                () = cancel.cancelled() => break,
                looked = flow.topics() => match looked {
                    Ok(found) => {
                        missing.looked(&flow.name, &found, &flow.target.view(), clock.monotonic());
                        topics = Some(found);
                    }
                    Err(error) => tracing::warn!(flow = flow.name, %error, "cannot look at the source"),
                }
            }
            look_at = clock.monotonic() + flow.interval;
            if let Some(topics) = &topics {
                links.assign(topics, &missing).await;
                tokio::select! {
                    () = cancel.cancelled() => break,
                    () = after_look(&flow, &mut steward, topics, at_ms) => {}
                }
            }
        }
        if let Some(topics) = &topics {
            links.assign(topics, &missing).await;
        }
        gauges::publish(&flow);
        tokio::select! {
            () = cancel.cancelled() => {}
            () = flow.target.changed(view.index) => {}
            () = flow.refresh.notified() => look_at = look_at.min(clock.monotonic() + LEAST_PAUSE),
            () = tokio::time::sleep(look_at.saturating_sub(clock.monotonic())) => {}
        }
    }
    links.stop_all().await;
    gauges::clear(&flow);
}

async fn after_look(flow: &Flow, steward: &mut Steward, topics: &SourceTopics, at_ms: i64) {
    let matches = flow.matches(topics);
    if flow.target.view().steward() == Some(flow.target.node_id()) {
        steward.act(flow, &matches).await;
    } else {
        flow.board.set_problems("discovery", Vec::new());
        flow.board.set_notes("discovery", Vec::new());
    }
    // For whoever asks when the source is gone; a status asked for now looks by itself.
    if let Err(error) = flow.observe_ends(&matches, at_ms).await {
        tracing::debug!(flow = flow.name, %error, "the source was not seen whole");
    }
}

/// The links of one flow on this daemon.
struct Links {
    flow: Arc<Flow>,
    cluster_id: String,
    running: BTreeMap<NodeId, Link>,
    tasks: TaskTracker,
}

struct Link {
    assigned: watch::Sender<Arc<Vec<Assigned>>>,
    cancel: CancellationToken,
}

impl Links {
    fn new(flow: Arc<Flow>) -> Self {
        Self {
            flow,
            cluster_id: String::new(),
            running: BTreeMap::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Makes the links those that `topics` and the present view ask for.
    async fn assign(&mut self, topics: &SourceTopics, missing: &Missing) {
        if self.cluster_id != topics.cluster_id {
            // Tracks hold the id that they compare lineage with.
            self.stop_all().await;
            self.cluster_id.clone_from(&topics.cluster_id);
        }
        let target = &self.flow.target;
        let mut by_leader: BTreeMap<NodeId, Vec<Assigned>> = BTreeMap::new();
        for assigned in assignments(
            &self.flow.names,
            (&self.flow.name, topics),
            missing,
            &target.view(),
            target.node_id(),
        ) {
            // What has no leader there waits on any link, where it is at least reported.
            let leader = assigned
                .source_leader
                .or_else(|| self.running.keys().next().copied())
                .unwrap_or(-1);
            by_leader.entry(leader).or_default().push(assigned);
        }
        let wanted: BTreeSet<NodeId> = by_leader.keys().copied().collect();
        self.running.retain(|node, link| {
            let keep = wanted.contains(node) && !link.assigned.is_closed();
            if !keep {
                link.cancel.cancel();
            }
            keep
        });
        for (node, assigned) in by_leader {
            let link = self
                .running
                .entry(node)
                .or_insert_with(|| start(&self.flow, node, &self.cluster_id, &self.tasks));
            link.assigned.send_if_modified(|known| {
                let changed = **known != assigned;
                if changed {
                    *known = Arc::new(assigned);
                }
                changed
            });
        }
    }

    async fn stop_all(&mut self) {
        for (_, link) in std::mem::take(&mut self.running) {
            link.cancel.cancel();
        }
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}

fn start(flow: &Arc<Flow>, node: NodeId, cluster_id: &str, tasks: &TaskTracker) -> Link {
    let (sender, receiver) = watch::channel(Arc::new(Vec::new()));
    let cancel = CancellationToken::new();
    let context = LinkContext {
        target: flow.target.clone(),
        source: flow.source.clone(),
        board: flow.board.clone(),
        refresh: flow.refresh.clone(),
    };
    let (cluster_id, stop) = (cluster_id.to_owned(), cancel.clone());
    match flow.spec.source {
        FlowSource::Mesh(_) => tasks.spawn(push::run(context, node, receiver, cluster_id, stop)),
        FlowSource::Kafka(_) => tasks.spawn(fetch::run(context, node, receiver, cluster_id, stop)),
    };
    Link {
        assigned: sender,
        cancel,
    }
}

/// What the steward remembers between two looks.
#[derive(Default)]
struct Steward {
    configs: BTreeMap<String, Vec<SourceConfig>>,
    configs_at: Option<Duration>,
    /// Configs that this cluster refused, with their values: said once per value, not tried again.
    refused: BTreeSet<(String, String, Option<String>)>,
    own_topics_made: bool,
}

impl Steward {
    async fn act(&mut self, flow: &Flow, matches: &Matches) {
        self.make_own_topics(flow).await;
        self.look_at_configs(flow, matches).await;
        let (actions, mut problems) = actions(&flow.name, matches, &self.configs, &flow.target.view());
        let refused = &self.refused;
        let actions = actions.into_iter().filter_map(|action| without(refused, action));
        let done: Vec<Done> = futures::stream::iter(actions.map(|action| carry_out(flow, action)))
            .buffer_unordered(CONCURRENT_ACTIONS)
            .collect()
            .await;
        for done in done {
            self.refused.extend(done.refused);
            problems.extend(done.problem);
        }
        problems.extend(
            self.refused
                .iter()
                .map(|(topic, config, _)| format!("{topic}: config `{config}` is refused here")),
        );
        problems.extend(matches.problems.iter().cloned());
        flow.board.set_problems("discovery", problems);
        flow.board.set_notes("discovery", matches.notes());
    }

    /// What groups need here before the first of them arrives.
    async fn make_own_topics(&mut self, flow: &Flow) {
        if self.own_topics_made {
            return;
        }
        if let Err(error) = flow.target.prepare_groups().await {
            tracing::warn!(flow = flow.name, %error, "groups cannot be kept here yet");
            return;
        }
        let name = checkpoints_topic(&flow.spec.source_cluster);
        let configs = [("cleanup.policy".to_owned(), "compact".to_owned())].into();
        match flow.target.create_internal_topic(&name, 1, configs).await {
            Ok(()) => self.own_topics_made = true,
            Err(error) => {
                tracing::warn!(flow = flow.name, topic = name, %error, "checkpoints topic not created")
            }
        }
    }

    /// Looks at all configs now and then, and at those of new topics at once.
    async fn look_at_configs(&mut self, flow: &Flow, matches: &Matches) {
        let now = flow.target.clock().monotonic();
        let all = self
            .configs_at
            .is_none_or(|at| now >= at + flow.interval * CONFIGS_EVERY);
        let wanted: Vec<String> = matches
            .topics
            .iter()
            .filter(|matched| all || !self.configs.contains_key(&matched.source))
            .map(|matched| matched.source.clone())
            .collect();
        if wanted.is_empty() {
            return;
        }
        match tokio::time::timeout(LOOK_TIMEOUT, flow.source.configs(&wanted)).await {
            Ok(Ok(found)) => {
                if all {
                    self.configs_at = Some(now);
                    self.configs = found;
                } else {
                    self.configs.extend(found);
                }
            }
            Ok(Err(error)) => tracing::warn!(flow = flow.name, %error, "configs not read"),
            Err(_) => tracing::warn!(flow = flow.name, "configs not read in time"),
        }
    }
}

/// The action without what was refused before; nothing if nothing is left of it.
fn without(refused: &BTreeSet<(String, String, Option<String>)>, action: Action) -> Option<Action> {
    if refused.is_empty() {
        return Some(action);
    }
    let key = |topic: &str, config: &str, value: Option<String>| (topic.to_owned(), config.to_owned(), value);
    match action {
        Action::Create(mut new) => {
            let name = new.name.clone();
            new.configs
                .retain(|config, value| !refused.contains(&key(&name, config, Some(value.clone()))));
            Some(Action::Create(new))
        }
        Action::Configure {
            topic,
            name,
            mut changes,
        } => {
            changes.retain(|(config, value)| !refused.contains(&key(&name, config, value.clone())));
            (!changes.is_empty()).then_some(Action::Configure { topic, name, changes })
        }
        other @ (Action::Grow { .. } | Action::Origin { .. }) => Some(other),
    }
}

#[derive(Default)]
struct Done {
    refused: Vec<(String, String, Option<String>)>,
    problem: Option<String>,
}

async fn carry_out(flow: &Flow, action: Action) -> Done {
    let target = flow.target.as_ref();
    let (name, result) = match action {
        Action::Create(new) => {
            let name = new.name.clone();
            tracing::info!(
                topic = name,
                partitions = new.partitions,
                "creating a mirror topic"
            );
            match target.create_mirror_topic(new.clone()).await {
                // Without configs it may be possible; they follow one by one.
                Err(CommandError::Refused(reason)) if !new.configs.is_empty() => {
                    tracing::warn!(
                        topic = name,
                        reason,
                        "not with the source's configs; trying without"
                    );
                    let plain = crate::target::NewMirrorTopic {
                        configs: BTreeMap::new(),
                        ..new
                    };
                    (name, target.create_mirror_topic(plain).await)
                }
                result => (name, result),
            }
        }
        Action::Grow {
            topic,
            name,
            partitions,
        } => (name, target.grow_topic(topic, partitions).await),
        Action::Origin { topic, name, origin } => {
            tracing::info!(
                topic = name,
                ?origin,
                "the source says otherwise where it comes from"
            );
            (name, target.set_origin(&flow.name, topic, origin).await)
        }
        Action::Configure { topic, name, changes } => return configure(target, topic, name, changes).await,
    };
    Done {
        problem: result.err().map(|error| format!("{name}: {error}")),
        ..Done::default()
    }
}

/// Sets configs at once, or one by one if that is refused, to find the one that is.
async fn configure(
    target: &dyn Target,
    topic: tradewind_wire::ids::TopicId,
    name: String,
    changes: Vec<(String, Option<String>)>,
) -> Done {
    let mut done = Done::default();
    match target.set_topic_configs(topic, changes.clone()).await {
        Ok(()) => return done,
        Err(CommandError::Refused(_)) => {}
        Err(error) => {
            done.problem = Some(format!("{name}: {error}"));
            return done;
        }
    }
    for (config, value) in changes {
        if let Err(CommandError::Refused(reason)) = target
            .set_topic_configs(topic, vec![(config.clone(), value.clone())])
            .await
        {
            tracing::warn!(topic = name, config, reason, "a source's config is refused here");
            done.refused.push((name.clone(), config, value));
        }
    }
    done
}
