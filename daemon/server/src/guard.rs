//! The guard after a start: finds what other clusters could have taken over while no daemon of this one ran, and asks for
//! the words that open it again. The rules are in `tradewind_broker::guard`.
//!
//! A daemon that waits asks everybody at once: the other daemons of its cluster, which know whether the other cluster was
//! heard in this run; and that cluster itself, whose answer is made after the question and knows of everything that was
//! decided there before. The steward goes on asking when nothing is waited for, so that the metadata log has what the other
//! cluster copies, and an address that does not work is seen before it matters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tradewind_broker::Broker;
use tradewind_broker::guard::{PeerWord, Stake};
use tradewind_cluster::command::Command;
use tradewind_cluster::image::{Flow, FlowState, Image, MirrorTopic, Topic};
use tradewind_cluster::metadata::ProposeError;
use tradewind_mirror::Sources;
use tradewind_mirror::naming::Names;
use tradewind_mirror::source::Source;
use tradewind_mirror::target::steward;
use tradewind_wire::failback::{FailbackStep, RESCUE_PREFIX};
use tradewind_wire::flow::{FlowSource, FlowSpec, HEARTBEATS_TOPIC, Naming};
use tradewind_wire::guard::{Copied, GuardAsk, GuardWord, Unguarded};
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::region::{
    MAX_REGION_EPOCH, RegionAnswer, RegionAsk, RegionCommand, RegionWish, SwitchStep,
};

use crate::config::RemoteCluster;

/// The call by which a daemon that starts asks the others.
const CALL: &str = "guard";
/// How long one question to another cluster may take. A new attempt finds a line that is whole again sooner than an old one.
const PEER_TIMEOUT: Duration = Duration::from_millis(2_500);
/// How long one question to a daemon of this cluster may take.
const COLLEAGUE_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon whoever waits asks again.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the steward asks when nothing is waited for.
const STEWARD_PAUSE: Duration = Duration::from_secs(2);
/// How long a start waits for the guard to go off before it serves clients: in a rolling restart that takes one question.
const START_PATIENCE: Duration = Duration::from_secs(1);
/// How long the metadata log may take.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many topics a status names.
const NAMED: usize = 10;

/// Asks for the words that this daemon's guard waits for.
pub(crate) struct BootGuard {
    broker: Broker,
    peers: Vec<Peer>,
}

/// A cluster that may fence topics here.
struct Peer {
    name: String,
    /// Whether topics wait for its word after a start.
    guards: bool,
    source: Arc<dyn Source>,
    /// The flow back from it, by which questions name the two clusters.
    back: FlowSpec,
    /// When it last answered, on the monotonic clock, and what was wrong since.
    heard: Mutex<(Option<Duration>, String)>,
}

/// How the guard of a daemon stands, one of each cluster that may fence topics here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GuardLine {
    /// The other cluster.
    pub(crate) peer: String,
    /// `off`: it is not waited for; `waiting`: the topics are read-only until it answers; `not wanted`: `boot_guard = false`.
    pub(crate) state: String,
    /// How many topics clients may not write because of it.
    pub(crate) guarded: usize,
    /// The names of the first of them.
    pub(crate) topics: Vec<String>,
    /// Why its word is not there; empty when it is, or is not waited for.
    pub(crate) problem: String,
    /// Whose word opened the topics since this start: the cluster's, another daemon's, an operator's.
    pub(crate) opened_by: Option<String>,
    /// Whether it copies topics from here under the same names, so that they will be guarded after the next full restart.
    pub(crate) copies: bool,
    /// The id of the cluster that copies, if it told it: no other one under its name has a say.
    #[serde(default)]
    pub(crate) copied_by: Option<String>,
    /// How long ago it last answered this daemon, in ms; only the steward and whoever waits asks it.
    pub(crate) heard_ms_ago: Option<u64>,
    /// The last operator's word for it.
    pub(crate) overridden: Option<Unguarded>,
}

impl GuardLine {
    /// What clients cannot do because of it, and what opens it; none if it is not waited for.
    pub(crate) fn sentence(&self) -> Option<String> {
        let Self {
            peer,
            guarded,
            problem,
            ..
        } = self;
        (self.state == "waiting").then(|| {
            format!(
                "{guarded} topics are read-only since this start, until {peer} says that it has not taken them over: \
                 {problem}; if you know that no client writes there, `tradewind mirror unguard --accept-two-sides` opens them"
            )
        })
    }
}

impl BootGuard {
    /// Decides what is guarded, from the image in which this daemon is registered. Nothing may be served before.
    pub(crate) fn begin(
        broker: &Broker,
        clusters: &BTreeMap<String, RemoteCluster>,
        sources: &Sources,
    ) -> Arc<Self> {
        let cluster = broker.cluster();
        let own = cluster.cluster_name();
        let may_fence = clusters
            .iter()
            .filter(|(_, remote)| remote.may_fence && matches!(remote.source, FlowSource::Mesh(_)));
        let peers: Vec<Peer> = may_fence
            .map(|(name, remote)| {
                let back = bare_flow(name, own, remote.source.clone(), &Copied::default());
                Peer {
                    name: name.clone(),
                    guards: remote.boot_guard,
                    source: sources(&back),
                    back,
                    heard: Mutex::default(),
                }
            })
            .collect();
        let image = cluster.image();
        let guarding = peers.iter().filter(|peer| peer.guards);
        broker.guard().begin(
            guarding
                .map(|peer| {
                    let copied = image.copied.get(&peer.name);
                    let stake = Stake {
                        topics: at_stake(&image, &peer.name, own),
                        cluster_id: copied.map(|copied| copied.cluster_id.clone()).unwrap_or_default(),
                    };
                    (peer.name.clone(), stake)
                })
                .collect(),
        );
        let answering = broker.clone();
        let answer = move |request: Bytes| {
            let word = word(&answering, &request);
            async move { word }.boxed()
        };
        cluster.register_call(CALL, Arc::new(answer));
        Arc::new(Self {
            broker: broker.clone(),
            peers,
        })
    }

    /// Waits a moment for the guard to go off, and says what clients cannot do if it does not.
    pub(crate) async fn first_words(&self) {
        let guard = self.broker.guard();
        if tokio::time::timeout(START_PATIENCE, guard.open()).await.is_ok() {
            return;
        }
        for (peer, wait) in guard.waiting() {
            tracing::warn!(
                peer,
                topics = wait.stake.topics.len(),
                reason = wait.problem,
                "topics are read-only: while no daemon of this cluster ran, that cluster may have taken them over, and it has \
                 not answered. They open by themselves when it does. If it cannot be reached and you know that no client \
                 writes there: tradewind mirror unguard --accept-two-sides"
            );
        }
    }

    /// Asks until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let all = self.peers.iter().map(|peer| async {
            tokio::join!(
                self.ask_peer(peer),
                self.ask_daemons(peer),
                self.heed_operator(peer)
            );
        });
        tokio::select! {
            _ = join_all(all) => {}
            () = stop.cancelled() => {}
        }
    }

    async fn ask_peer(&self, peer: &Peer) {
        let mut turn = 0;
        loop {
            let mut objects = false;
            let waits = self.broker.guard().waits(&peer.name);
            if waits || self.is_steward() {
                let asked = tokio::time::timeout(PEER_TIMEOUT, self.ask_one(peer, &mut turn, waits));
                let problem = match asked
                    .await
                    .unwrap_or_else(|_| Err("it does not answer".to_owned()))
                {
                    Ok(objection) => {
                        objects = objection.is_some();
                        objection.unwrap_or_default()
                    }
                    Err(problem) => {
                        turn += 1;
                        problem
                    }
                };
                if !problem.is_empty() {
                    self.broker.guard().note(&peer.name, problem.clone());
                }
                peer.heard.lock().1 = problem;
            }
            // Who has answered that it took over is not asked as often as who may answer any moment: each certain answer
            // is an entry in its metadata log.
            let pause = if self.broker.guard().waits(&peer.name) && !objects {
                PAUSE
            } else {
                STEWARD_PAUSE
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks one daemon of the other cluster, the next one in turn. Returns what of its answer speaks against
    /// clients writing here.
    async fn ask_one(&self, peer: &Peer, turn: &mut usize, certain: bool) -> Result<Option<String>, String> {
        let cluster = self.broker.cluster();
        let mut nodes = peer.source.nodes();
        if nodes.is_empty() || *turn >= nodes.len() {
            peer.source.topics().await.map_err(|error| error.to_string())?;
            (nodes, *turn) = (peer.source.nodes(), 0);
        }
        let node = nodes.get(*turn).copied().ok_or("it names no daemon")?;
        let image = cluster.image();
        let own = image.regions.get(&peer.name).copied().unwrap_or(0);
        let ask = RegionAsk {
            flow: peer.back.clone(),
            cluster_id: image.cluster_id.map(|id| id.to_string()).unwrap_or_default(),
            attempt: 0,
            wish: RegionWish::Standing {
                certain,
                region_epoch: own,
            },
        };
        let answer = peer.source.region(Some(node), &ask).await;
        match answer.map_err(|error| error.to_string())? {
            RegionAnswer::Standing {
                region_epoch,
                copied,
                taken,
                cluster_id,
            } => {
                peer.heard.lock().0 = Some(cluster.clock().monotonic());
                if copied.as_ref().is_some_and(|copied| !copied.is_bounded()) {
                    return Err("it copies by more patterns than can be remembered".to_owned());
                }
                let word = PeerWord {
                    region_epoch,
                    copies: copied.is_some(),
                    taken,
                    cluster_id,
                };
                let (image, guard) = (cluster.image(), self.broker.guard());
                let own = image.regions.get(&peer.name).copied().unwrap_or(0);
                let objection = word.objection(own);
                // What was asked in passing may be old.
                if certain {
                    guard.heard(&peer.name, &word, own);
                }
                let known = image.copied.get(&peer.name);
                // That it copies nothing any more would end the guard of the next start; that another cluster copies
                // would end this one.
                let is_sound = match &copied {
                    Some(_) => !guard.waits(&peer.name),
                    None => certain && objection.is_none(),
                };
                if is_sound && known != copied.as_ref() {
                    self.remember(&peer.name, copied).await;
                } else if !certain && copied.is_none() && known.is_some() && objection.is_none() {
                    return Box::pin(self.ask_one(peer, turn, true)).await;
                }
                let waits = guard.waiting().remove(&peer.name);
                Ok(waits.map(|wait| wait.problem).or(objection))
            }
            RegionAnswer::NotYet(reason) | RegionAnswer::Refused(reason) => Err(reason),
            _ => Err("it answered something else".to_owned()),
        }
    }

    async fn remember(&self, peer: &str, copied: Option<Copied>) {
        let command = Command::Region(RegionCommand::Copied {
            peer: peer.to_owned(),
            copied,
        });
        if let Err(error) = self.broker.cluster().propose(command, PROPOSE_TIMEOUT).await {
            tracing::debug!(peer, %error, "what is copied from here is not recorded yet");
        }
    }

    /// Asks the other daemons of this cluster for as long as the word of `peer` is missing.
    async fn ask_daemons(&self, peer: &Peer) {
        let (cluster, guard) = (self.broker.cluster(), self.broker.guard());
        let Ok(ask) = serde_json::to_vec(&GuardAsk {
            peer: peer.name.clone(),
        }) else {
            return;
        };
        let ask = Bytes::from(ask);
        while guard.waits(&peer.name) {
            let image = cluster.image();
            let others: BTreeSet<NodeId> = image.nodes.keys().copied().collect();
            let others = others.into_iter().filter(|node| *node != cluster.node_id());
            let asking = others.map(|node| {
                let ask = ask.clone();
                async move {
                    let answer = cluster.call(node, CALL, ask, COLLEAGUE_TIMEOUT).await;
                    let word = answer
                        .ok()
                        .and_then(|answer| serde_json::from_slice(&answer).ok());
                    if let Some(word) = word {
                        let word: GuardWord = word;
                        guard.colleague(&peer.name, node, &word, cluster.image().index);
                    }
                }
            });
            // The first word is enough: one that does not answer holds nobody up.
            tokio::select! {
                _ = join_all(asking) => {}
                () = guard.open() => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn heed_operator(&self, peer: &Peer) {
        let (cluster, guard) = (self.broker.cluster(), self.broker.guard());
        let mut images = cluster.subscribe();
        while guard.waits(&peer.name) {
            let image = images.borrow_and_update().clone();
            let epoch = cluster.standing().borrow().daemon_epoch;
            guard.operator(&peer.name, image.unguarded.get(&peer.name), epoch);
            tokio::select! {
                changed = images.changed() => if changed.is_err() { return },
                () = guard.open() => {}
            }
        }
    }

    fn is_steward(&self) -> bool {
        let cluster = self.broker.cluster();
        steward(cluster.image().active().map(|daemon| daemon.id)) == Some(cluster.node_id())
    }

    /// How it stands on this daemon.
    pub(crate) fn lines(&self) -> Vec<GuardLine> {
        let (cluster, guard) = (self.broker.cluster(), self.broker.guard());
        let (image, waiting) = (cluster.image(), guard.waiting());
        let now = cluster.clock().monotonic();
        let line = |peer: &Peer| {
            let wait = waiting.get(&peer.name);
            let (heard, problem) = peer.heard.lock().clone();
            let copied = image.copied.get(&peer.name);
            let state = match wait {
                Some(_) => "waiting",
                None if peer.guards => "off",
                None => "not wanted",
            };
            GuardLine {
                peer: peer.name.clone(),
                state: state.to_owned(),
                guarded: wait.map_or(0, |wait| wait.stake.topics.len()),
                topics: wait
                    .into_iter()
                    .flat_map(|wait| wait.stake.topics.values().take(NAMED).cloned())
                    .collect(),
                problem: wait.map_or(problem, |wait| wait.problem.clone()),
                opened_by: guard.opened_by(&peer.name),
                copies: copied.is_some(),
                copied_by: copied
                    .map(|copied| copied.cluster_id.clone())
                    .filter(|id| !id.is_empty()),
                heard_ms_ago: heard
                    .map(|heard| u64::try_from(now.saturating_sub(heard).as_millis()).unwrap_or(u64::MAX)),
                overridden: image.unguarded.get(&peer.name).cloned(),
            }
        };
        self.peers.iter().map(line).collect()
    }

    /// An operator's word: clients may write although nobody has answered. Answers the clusters that were waited for here.
    pub(crate) async fn unguard(&self, reason: &str) -> Result<Vec<String>, ProposeError> {
        let cluster = self.broker.cluster();
        let peers: Vec<String> = self.broker.guard().waiting().into_keys().collect();
        if !peers.is_empty() {
            let command = RegionCommand::Unguard {
                peers: peers.clone(),
                at_ms: cluster.clock().now_ms(),
                reason: reason.to_owned(),
            };
            tracing::warn!(
                ?peers,
                reason,
                "an operator lets clients write without the word of these clusters"
            );
            cluster.propose(Command::Region(command), PROPOSE_TIMEOUT).await?;
        }
        Ok(peers)
    }
}

/// What this daemon tells one that starts.
fn word(broker: &Broker, request: &Bytes) -> Result<Bytes, String> {
    let ask: GuardAsk = serde_json::from_slice(request).map_err(|error| error.to_string())?;
    let mut word = broker.guard().word(&ask.peer, 0);
    // The index last: what has opened the guard may rest on an entry that was applied just before.
    word.index = broker.cluster().image().index;
    serde_json::to_vec(&word)
        .map(Bytes::from)
        .map_err(|error| error.to_string())
}

/// Where this cluster stands towards `peer`, which has asked. A certain answer knows of everything that was decided here before.
/// `told` is the region epoch of the asker, which a failover here has to be above.
pub(crate) async fn standing(broker: &Broker, peer: &str, certain: bool, told: u64) -> RegionAnswer {
    let cluster = broker.cluster();
    let heard = Command::Region(RegionCommand::HeardEpoch {
        source: peer.to_owned(),
        region_epoch: told,
    });
    if is_news(&cluster.image(), peer, told)
        && let Err(error) = cluster.propose(heard, PROPOSE_TIMEOUT).await
    {
        tracing::debug!(peer, told, %error, "its region epoch is not recorded yet");
    }
    if certain {
        let attested = cluster
            .propose(Command::Region(RegionCommand::Attest), PROPOSE_TIMEOUT)
            .await;
        if let Err(error) = attested {
            return RegionAnswer::NotYet(error.to_string());
        }
    }
    stands(&cluster.image(), peer, told)
}

/// Whether `peer`, from which a flow comes, tells a region epoch that a failover would not be above.
fn is_news(image: &Image, peer: &str, told: u64) -> bool {
    let mut flows = image.flows.values();
    let comes = flows.any(|flow| flow.source == peer && matches!(flow.spec.source, FlowSource::Mesh(_)));
    let known = image.heard_epochs.get(peer).max(image.regions.get(peer));
    comes && told <= MAX_REGION_EPOCH && told > known.copied().unwrap_or(0)
}

/// What is said to `peer`, which tells the region epoch `told`.
fn stands(image: &Image, peer: &str, told: u64) -> RegionAnswer {
    let region_epoch = image.regions.get(peer).copied().unwrap_or(0);
    let cluster_id = image.cluster_id.map(|id| id.to_string()).unwrap_or_default();
    let mut flows = image.flows.values();
    let flow = flows.find(|flow| flow.source == peer && matches!(flow.spec.source, FlowSource::Mesh(_)));
    RegionAnswer::Standing {
        region_epoch,
        copied: flow.and_then(|flow| copied(image, flow, &cluster_id)),
        // A flow that was forgotten after a failover, and declared again, knows nothing of it; the numbers do.
        taken: Some(
            flow.is_some_and(|flow| is_unanswered(image, flow))
                || told < region_epoch && has_taken(image, peer),
        ),
        cluster_id,
    }
}

/// What a failover of this flow would take from its source, under the names that topics have there: whatever it is bound to
/// is promoted, not only what its filters take now.
fn copied(image: &Image, flow: &Flow, cluster_id: &str) -> Option<Copied> {
    if flow.state == FlowState::Promoted {
        return None;
    }
    let list = |takes: &[String]| takes.to_vec();
    let (topics, topics_exclude) = match flow.spec.naming {
        Naming::Identity => (list(&flow.spec.topics), list(&flow.spec.topics_exclude)),
        // Patterns take nothing then: other names are nobody's loss.
        Naming::Prefix { .. } => Default::default(),
    };
    let same_names = flow.spec.naming == Naming::Identity;
    let names = Names::new(&flow.spec).ok().filter(|_| same_names);
    let beyond = bound_to(image, flow).filter(|(topic, bound)| {
        let taken = names
            .as_ref()
            .is_some_and(|names| names.takes_topic(&bound.source_topic, false));
        topic.is_mirroring() && !taken && (same_names || topic.name == bound.source_topic)
    });
    let bound: Vec<TopicId> = beyond.map(|(_, bound)| bound.source_topic_id).collect();
    if !same_names && bound.is_empty() {
        return None;
    }
    if bound.len() > Copied::MAX_BOUND {
        // Too many to be named: all that there is.
        return Some(Copied {
            topics: vec![".*".to_owned()],
            topics_exclude: vec![HEARTBEATS_TOPIC.to_owned()],
            cluster_id: cluster_id.to_owned(),
            bound: Vec::new(),
        });
    }
    Some(Copied {
        topics,
        topics_exclude,
        cluster_id: cluster_id.to_owned(),
        bound,
    })
}

/// The topics that a flow writes or wrote, but the source's heartbeats.
fn bound_to<'a>(image: &'a Image, flow: &'a Flow) -> impl Iterator<Item = (&'a Topic, &'a MirrorTopic)> {
    let bound = image.topics.values().filter_map(move |topic| {
        let bound = topic.mirror.as_ref().filter(|bound| bound.flow == flow.name)?;
        Some((&**topic, bound))
    });
    bound.filter(|(_, bound)| bound.source_topic != HEARTBEATS_TOPIC)
}

/// Whether a failover of this flow took topics over, and its source has not given way to it.
fn is_unanswered(image: &Image, flow: &Flow) -> bool {
    if let Some(failback) = &flow.failback {
        return failback.step == FailbackStep::Telling;
    }
    // With prefixes nobody is told; but a topic may have the name of its source from when the naming was another.
    let moved = flow.switchover.as_ref().map(|last| last.step);
    let by_failover = match flow.state {
        FlowState::FailingOver => true,
        FlowState::Promoted => !matches!(moved, Some(SwitchStep::Promoted | SwitchStep::Done)),
        _ => false,
    };
    by_failover && bound_to(image, flow).any(|(topic, bound)| topic.name == bound.source_topic)
}

/// Whether clients write topics here that a flow from `peer` has brought under their own names.
fn has_taken(image: &Image, peer: &str) -> bool {
    let comes = |flow: &str| flow.strip_prefix(peer).is_some_and(|rest| rest.starts_with("->"));
    image.topics.values().any(|topic| {
        let bound = topic.mirror.as_ref().filter(|bound| comes(&bound.flow));
        bound.is_some_and(|bound| bound.source_topic == topic.name) && !topic.is_mirroring()
    })
}

/// The topics that `peer` may have taken over, as the metadata log has it: those that it copies under the same names or is bound
/// to, and that clients write here.
fn at_stake(image: &Image, peer: &str, own: &str) -> BTreeMap<TopicId, String> {
    let Some(copied) = image.copied.get(peer) else {
        return BTreeMap::new();
    };
    // Patterns that cannot be read here guard everything.
    let names = Names::new(&bare_flow(own, peer, FlowSource::Mesh(Vec::new()), copied)).ok();
    let takes = |name: &str| {
        names
            .as_ref()
            .is_none_or(|names| names.topic(name, false).is_ok())
    };
    let topics = image.topics.values().filter(|topic| {
        let system =
            topic.internal || topic.name == HEARTBEATS_TOPIC || topic.name.starts_with(RESCUE_PREFIX);
        let takes = takes(&topic.name) || copied.bound.contains(&topic.id);
        !system && !topic.is_mirroring() && takes
    });
    topics.map(|topic| (topic.id, topic.name.clone())).collect()
}

fn bare_flow(from: &str, to: &str, source: FlowSource, copied: &Copied) -> FlowSpec {
    FlowSpec {
        source_cluster: from.to_owned(),
        target_cluster: to.to_owned(),
        source,
        topics: copied.topics.clone(),
        topics_exclude: copied.topics_exclude.clone(),
        groups: Vec::new(),
        groups_exclude: Vec::new(),
        naming: Naming::Identity,
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
