//! What to change here so that a source and its mirror agree. Which of its topics are mirrored is in [`crate::matching`].
//!
//! Pure: pictures of both sides come in, actions and complaints come out. The steward of a cluster carries the actions out;
//! every daemon derives its own work ([`assignments`]) from the same pictures.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tradewind_wire::flow::Origin;
use tradewind_wire::ids::{NodeId, TopicId};

use crate::matching::{Matched, Matches};
use crate::naming::Names;
use crate::source::track::PartitionHere;
use crate::source::{PartitionOf, SourceConfig, SourceTopics, Word};
use crate::target::{MirrorBinding, NewMirrorTopic, TopicView, View};

/// Topic configs that stay the target's own business: MirrorMaker 2's `config.properties.exclude`, except
/// `message.timestamp.type`, which must agree for batches that are not rebuilt.
pub const CONFIGS_EXCLUDE: [&str; 5] = [
    "follower.replication.throttled.replicas",
    "leader.replication.throttled.replicas",
    "message.timestamp.difference.max.ms",
    "unclean.leader.election.enable",
    "min.insync.replicas",
];

/// A change of the target's metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Create a mirror topic.
    Create(NewMirrorTopic),
    /// Give a mirror topic as many partitions as its source has.
    Grow {
        /// The topic.
        topic: TopicId,
        /// Its name.
        name: String,
        /// How many it shall have.
        partitions: i32,
    },
    /// Make a mirror topic's configs what they are at the source.
    Configure {
        /// The topic.
        topic: TopicId,
        /// Its name.
        name: String,
        /// What to set and what to remove.
        changes: Vec<(String, Option<String>)>,
    },
    /// Remember where a mirror topic's records were first written: the source says otherwise than before.
    Origin {
        /// The topic.
        topic: TopicId,
        /// Its name.
        name: String,
        /// What the source says.
        origin: Origin,
    },
}

/// What to change here. `configs` holds what is known of source configs; topics missing in it keep theirs.
pub fn actions(
    flow: &str,
    matches: &Matches,
    configs: &BTreeMap<String, Vec<SourceConfig>>,
    view: &View,
) -> (Vec<Action>, Vec<String>) {
    let (mut actions, mut problems) = (Vec::new(), Vec::new());
    for matched in &matches.topics {
        let partitions = i32::try_from(matched.topic.partitions.len()).unwrap_or(i32::MAX);
        let wanted = configs.get(&matched.source).map(|configs| synced(configs));
        match (view.topics.get(&matched.here), wanted) {
            // A mirror begins with the source's configs (a retention, a size limit), not with the defaults.
            (None, None) => problems.push(format!(
                "{}: the source does not say its configs (DescribeConfigs), and its mirror is to begin with them",
                matched.source
            )),
            (None, Some(_)) if partitions == 0 => {}
            (None, Some(configs)) => actions.push(Action::Create(NewMirrorTopic {
                name: matched.here.clone(),
                partitions,
                configs,
                binding: binding(flow, matched),
            })),
            (Some(topic), wanted) => match existing(flow, matched, topic) {
                Existing::Ours => {
                    grow(&mut actions, topic, partitions);
                    actions.extend(another_origin(matched, topic));
                    if let Some(wanted) = wanted {
                        configure(&mut actions, topic, &wanted);
                    }
                }
                Existing::Promoted => {}
                Existing::Problem(problem) => problems.push(problem),
            },
        }
    }
    (actions, problems)
}

fn binding(flow: &str, matched: &Matched) -> MirrorBinding {
    MirrorBinding {
        flow: flow.to_owned(),
        source_topic: matched.source.clone(),
        source_topic_id: matched.topic.id,
        origin: matched.origin.clone(),
        promoted: false,
    }
}

/// Only what the source says replaces what is known.
fn another_origin(matched: &Matched, topic: &TopicView) -> Option<Action> {
    let says = matches!(matched.topic.word, Word::Says(_));
    let origin = matched.origin.clone().filter(|_| says)?;
    let known = topic.mirror.as_ref().and_then(|bound| bound.origin.as_ref());
    (known != Some(&origin)).then(|| Action::Origin {
        topic: topic.id,
        name: topic.name.clone(),
        origin,
    })
}

enum Existing {
    Ours,
    Promoted,
    Problem(String),
}

fn existing(flow: &str, matched: &Matched, topic: &TopicView) -> Existing {
    let name = &matched.here;
    let Some(bound) = &topic.mirror else {
        return Existing::Problem(format!(
            "{}: `{name}` exists here and is no mirror",
            matched.source
        ));
    };
    if bound.flow != flow || bound.source_topic != matched.source {
        return Existing::Problem(format!(
            "{}: `{name}` is the mirror of `{}` by flow `{}`",
            matched.source, bound.source_topic, bound.flow
        ));
    }
    if bound.promoted {
        return Existing::Promoted;
    }
    if is_recreated(bound, matched.topic.id) {
        return Existing::Problem(recreated(&matched.source));
    }
    Existing::Ours
}

/// The names at the source of mirrored topics that were deleted and created again there.
/// `source`: the ids of its topics.
pub fn recreated_topics(flow: &str, source: &BTreeMap<String, TopicId>, view: &View) -> BTreeSet<String> {
    let again = view.topics_of(flow).filter(|(_, bound)| {
        let there = source.get(&bound.source_topic);
        there.is_some_and(|there| is_recreated(bound, *there))
    });
    again.map(|(_, bound)| bound.source_topic.clone()).collect()
}

/// As [`recreated_topics`], of what a flow takes of its source.
pub fn created_again(flow: &str, matches: &Matches, view: &View) -> BTreeSet<String> {
    let bound = |matched: &Matched| {
        let bound = view.topics.get(&matched.here)?.mirror.as_ref()?;
        (bound.flow == flow && is_recreated(bound, matched.topic.id)).then(|| matched.source.clone())
    };
    matches.topics.iter().filter_map(bound).collect()
}

fn is_recreated(bound: &MirrorBinding, id: TopicId) -> bool {
    !bound.source_topic_id.is_zero() && !id.is_zero() && bound.source_topic_id != id
}

fn recreated(source: &str) -> String {
    format!(
        "{source}: it was deleted and created again at the source; its mirror holds the old one's records"
    )
}

fn grow(actions: &mut Vec<Action>, topic: &TopicView, partitions: i32) {
    if i32::try_from(topic.partitions.len()).is_ok_and(|have| have < partitions) {
        actions.push(Action::Grow {
            topic: topic.id,
            name: topic.name.clone(),
            partitions,
        });
    }
}

fn configure(actions: &mut Vec<Action>, topic: &TopicView, wanted: &BTreeMap<String, String>) {
    let set = wanted
        .iter()
        .filter(|(name, value)| topic.configs.get(*name) != Some(value))
        .map(|(name, value)| (name.clone(), Some(value.clone())));
    // What the source does not set follows this cluster's own default (MirrorMaker 2's `use.defaults.from=target`).
    let removed = topic
        .configs
        .keys()
        .filter(|name| is_synced(name) && !wanted.contains_key(*name))
        .map(|name| (name.clone(), None));
    let changes: Vec<_> = set.chain(removed).collect();
    if !changes.is_empty() {
        actions.push(Action::Configure {
            topic: topic.id,
            name: topic.name.clone(),
            changes,
        });
    }
}

fn synced(configs: &[SourceConfig]) -> BTreeMap<String, String> {
    configs
        .iter()
        .filter(|config| config.own && is_synced(&config.name))
        .filter_map(|config| Some((config.name.clone(), config.value.clone()?)))
        .collect()
}

fn is_synced(name: &str) -> bool {
    !CONFIGS_EXCLUDE.contains(&name)
}

/// One partition that this daemon copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// The partition here.
    pub here: PartitionHere,
    /// The partition at the source.
    pub source: PartitionOf,
    /// Who leads it there.
    pub source_leader: Option<NodeId>,
    /// The leader's epoch there; -1 if the source does not say.
    pub source_epoch: i32,
    /// Why it must not be copied, if so.
    pub halt: Option<String>,
}

/// How long the source's metadata must have lacked a topic until it counts as gone.
const GONE_AFTER: Duration = Duration::from_secs(3);

/// Which mirrored topics the source's metadata lack. A look may be older than the mirror that another daemon has made
/// meanwhile, and the daemon that answers it may not have heard of the topic yet: one look proves nothing.
#[derive(Debug, Default)]
pub struct Missing {
    /// When a look first lacked it.
    since: BTreeMap<String, Duration>,
    gone: BTreeSet<String>,
}

impl Missing {
    /// Takes in a look that ended at `now` (of a clock that never goes back).
    pub fn looked(&mut self, flow: &str, source: &SourceTopics, view: &View, now: Duration) {
        let mirrored = view.topics_of(flow).filter(|(_, bound)| !bound.promoted);
        let lacking: BTreeSet<&String> = mirrored
            .map(|(_, bound)| &bound.source_topic)
            .filter(|topic| !source.topics.contains_key(*topic))
            .collect();
        self.since.retain(|topic, _| lacking.contains(topic));
        for topic in lacking {
            self.since.entry(topic.clone()).or_insert(now);
        }
        let long = |since: &Duration| now.saturating_sub(*since) >= GONE_AFTER;
        let gone = self.since.iter().filter(|(_, since)| long(since));
        self.gone = gone.map(|(topic, _)| topic.clone()).collect();
    }
}

/// The partitions of a flow that `me` leads, that its filters still take and that do not stand still, with where to copy them
/// from.
pub fn assignments(
    names: &Names,
    (flow, source): (&str, &SourceTopics),
    missing: &Missing,
    view: &View,
    me: NodeId,
) -> Vec<Assigned> {
    let mut out = Vec::new();
    for (topic, bound) in view.topics_of(flow) {
        if bound.promoted || topic.paused.is_some() {
            continue;
        }
        let there = source.topics.get(&bound.source_topic);
        if !names.takes_topic(&bound.source_topic, there.is_some_and(|there| there.internal)) {
            continue;
        }
        let halt = match there {
            None if missing.gone.contains(&bound.source_topic) => {
                Some("the topic is gone at the source".to_owned())
            }
            Some(there) if is_recreated(bound, there.id) => Some(recreated(&bound.source_topic)),
            _ => None,
        };
        for (number, partition) in (0..).zip(&topic.partitions) {
            if partition.leader != Some(me) || partition.cut.is_some() {
                continue;
            }
            let leader = there
                .and_then(|there| there.partitions.get(number as usize))
                .copied()
                .unwrap_or_default();
            out.push(Assigned {
                here: PartitionHere {
                    name: topic.name.clone(),
                    topic: topic.id,
                    partition: number,
                },
                source: PartitionOf {
                    topic: bound.source_topic.clone(),
                    id: bound.source_topic_id,
                    partition: number,
                },
                source_leader: leader.leader,
                source_epoch: leader.epoch,
                halt: halt.clone(),
            });
        }
    }
    out
}

#[cfg(test)]
#[path = "discovery_tests.rs"]
mod tests;
