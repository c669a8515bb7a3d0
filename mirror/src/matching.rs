//! Which of a source's topics a flow copies: its filters and names first, then where the records were first written.
//!
//! Pure. A Tradewind source says of each topic whether it is a mirror, and of which topic of which cluster; what is said
//! decides, and names mean nothing. Of any other Kafka only names are known ([`Names::topic`]).
//!
//! | the source's topic | is |
//! |---|---|
//! | this flow's mirror exists here | copied, under the name that it has |
//! | first written in this cluster | not copied: it would be a copy of our own |
//! | a mirror, and another flow comes from where it was first written and takes it | left to that flow |
//! | a mirror, and a topic here has the same origin | not copied again |
//! | the same, but that flow or that topic's copies nothing any more | not copied, which is a problem |
//! | anything else | copied; a name that is taken is a problem |
//!
//! Where a flow comes from is known by the id of its source's cluster, which its last look or its mirrors tell. A cluster's name
//! is its own only on the mesh, where certificates hold it; what a configuration calls a Kafka means nothing elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tradewind_wire::flow::{FlowSource, HEARTBEATS_TOPIC, Origin, Provenance, of_origin};

use crate::naming::{Names, NotMirrored};
use crate::source::{SourceTopic, SourceTopics, Word};
use crate::target::{FlowState, TopicView, View};

/// A source topic that a flow takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Matched {
    /// Its name at the source.
    pub source: String,
    /// Its name here.
    pub here: String,
    /// What the source says of it.
    pub topic: SourceTopic,
    /// Where its records were first written; none while the source has not said so.
    pub origin: Option<Origin>,
    /// Whether it is the source's heartbeats: mirrored always, never counted as data.
    pub heartbeats: bool,
}

/// The source topics that a flow takes, and what stands in the way of others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Matches {
    /// The source cluster's id.
    pub cluster_id: String,
    /// In the order of their names at the source.
    pub topics: Vec<Matched>,
    /// One sentence each.
    pub problems: Vec<String>,
    /// Topics, by their names at the source, that the filters take and that are not copied: their records are here, or come
    /// by another way.
    pub elsewhere: BTreeMap<String, Elsewhere>,
    /// Topics of which the source has still to say whether they are mirrors.
    pub awaited: Vec<String>,
}

/// Why a source topic that the filters take is not copied by this flow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Elsewhere {
    /// It comes from this cluster.
    Loop {
        /// Whether clients write it there since a failover: those records do not come here.
        promoted: bool,
    },
    /// It is a mirror, and this flow comes from where it was first written.
    Comes {
        /// The flow.
        by: String,
    },
    /// It is a mirror, and a failover or switchover has made clients here write the topic that was first written elsewhere.
    TakenOver {
        /// Of this flow, which comes from there.
        by: String,
    },
    /// It is a mirror, and the same is here already.
    Here {
        /// As this topic.
        name: String,
        /// By this flow.
        by: String,
    },
}

/// How many topics a note names.
const NAMED: usize = 5;

impl Matches {
    /// What a status says of topics that come by another way, or came from here, one sentence for each way. That heartbeats do
    /// not come back is no news.
    pub fn notes(&self) -> Vec<String> {
        let mut by: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
        for (topic, elsewhere) in &self.elsewhere {
            let (why, flow) = match elsewhere {
                Elsewhere::Loop { .. } if topic.ends_with(HEARTBEATS_TOPIC) => continue,
                Elsewhere::Loop { promoted: false } => ("came from this cluster", ""),
                Elsewhere::Loop { promoted: true } => (
                    "came from this cluster and was taken over there: what clients write there since does not come here",
                    "",
                ),
                Elsewhere::Comes { by } => ("comes from where it was first written", by.as_str()),
                Elsewhere::TakenOver { by } => ("clients write it here since it was taken over", by.as_str()),
                Elsewhere::Here { by, .. } => ("the same records are here already", by.as_str()),
            };
            let told = match elsewhere {
                Elsewhere::Here { name, .. } if name != topic => format!("{topic} (here `{name}`)"),
                _ => topic.clone(),
            };
            by.entry((flow, why)).or_default().push(told);
        }
        let note = |((flow, why), topics): ((&str, &str), Vec<String>)| {
            let more = if topics.len() > NAMED { ", ..." } else { "" };
            let some = topics[..topics.len().min(NAMED)].join(", ");
            if flow.is_empty() {
                return format!("not copied: {some}{more}: {why}");
            }
            format!("not copied again: {some}{more}: {why}, by flow `{flow}`")
        };
        by.into_iter().map(note).collect()
    }
}

/// Applies a flow's filters and naming to what the source has, and leaves out what comes another way. `seen`: the ids of the
/// clusters that flows into this cluster come from, as their last looks found them.
pub fn matches(
    flow: &str,
    names: &Names,
    source: &SourceTopics,
    view: &View,
    seen: &BTreeMap<String, String>,
) -> Matches {
    let mut out = Matches {
        cluster_id: source.cluster_id.clone(),
        ..Matches::default()
    };
    let ways = Ways::new((flow, names), source, view, seen);
    let mut taken = BTreeSet::new();
    let mut copied: BTreeSet<(String, String)> = BTreeSet::new();
    // What is copied already comes first; then, of two copies of one topic, the one that made fewer hops.
    let mut all: Vec<(&String, &SourceTopic)> = source.topics.iter().collect();
    all.sort_by_key(|(name, _)| (!ways.ours.contains_key(name.as_str()), name.len(), *name));
    for (name, topic) in all {
        let ours = ways.ours.get(name.as_str());
        let here = match ours {
            Some(here) if names.takes_topic(name, topic.internal) => Ok((*here).to_owned()),
            _ if topic.word == Word::Untold => names.topic(name, topic.internal),
            _ => names.named(name, topic.internal),
        };
        let here = match here {
            Ok(here) => here,
            Err(NotMirrored::Unmatched) => continue,
            Err(NotMirrored::Loop) => {
                let elsewhere = Elsewhere::Loop { promoted: false };
                out.elsewhere.insert(name.clone(), elsewhere);
                continue;
            }
            Err(error) => {
                out.problems.push(format!("{name}: {error}"));
                continue;
            }
        };
        let origin = ways.origin(name, topic);
        if ours.is_none() {
            let Some(origin) = &origin else {
                out.awaited.push(name.clone());
                continue;
            };
            match ways.another(topic, origin, &here, &copied) {
                None => {}
                Some(Another::Way(elsewhere)) => {
                    out.elsewhere.insert(name.clone(), elsewhere);
                    continue;
                }
                Some(Another::Problem(problem)) => {
                    out.problems.push(format!("{name}: {problem}"));
                    continue;
                }
            }
        }
        if !taken.insert(here.clone()) {
            let problem = format!("{name}: another topic is mirrored as `{here}` already");
            out.problems.push(problem);
            continue;
        }
        let mirrored = |origin: &&Origin| topic.is_mirror() && !origin.cluster_id.is_empty();
        if let Some(origin) = origin.as_ref().filter(mirrored) {
            copied.insert((origin.cluster_id.clone(), origin.topic.clone()));
        }
        out.topics.push(Matched {
            source: name.clone(),
            here,
            topic: topic.clone(),
            origin,
            heartbeats: names.is_heartbeats(name),
        });
    }
    out.topics.sort_by(|a, b| a.source.cmp(&b.source));
    out
}

/// Why a source topic that this flow does not mirror yet is not to be copied.
enum Another {
    /// Its records have their way.
    Way(Elsewhere),
    /// They have none, or nobody knows.
    Problem(String),
}

/// What this cluster knows of the ways by which records come here.
struct Ways<'a> {
    flow: &'a str,
    names: &'a Names,
    source_id: &'a str,
    view: &'a View,
    /// What this flow mirrors, by the name at the source: its name here.
    ours: BTreeMap<&'a str, &'a str>,
    /// The mirrors here by the id of the cluster and the name of the topic that they come from.
    by_origin: BTreeMap<(&'a str, &'a str), Vec<&'a Arc<TopicView>>>,
    /// Other flows into this cluster.
    others: Vec<Other<'a>>,
}

/// Another flow into this cluster.
struct Other<'a> {
    name: &'a str,
    /// What its declaration calls its source.
    cluster: &'a str,
    /// Whether its source is on the mesh.
    mesh: bool,
    /// The id of its source's cluster, if it is known.
    id: Option<&'a str>,
    names: Names,
    /// Whether it copies: one that was failed or switched over does not any more.
    copies: bool,
}

impl<'a> Ways<'a> {
    fn new(
        (flow, names): (&'a str, &'a Names),
        source: &'a SourceTopics,
        view: &'a View,
        seen: &'a BTreeMap<String, String>,
    ) -> Self {
        let mut ways = Self {
            flow,
            names,
            source_id: &source.cluster_id,
            view,
            ours: BTreeMap::new(),
            by_origin: BTreeMap::new(),
            others: Vec::new(),
        };
        // What a flow's last look saw is newer than what its mirrors came from.
        let mut ids: BTreeMap<&str, &str> = BTreeMap::new();
        ids.extend(seen.iter().map(|(flow, id)| (flow.as_str(), id.as_str())));
        let mut at_source = false;
        for topic in view.topics.values() {
            let Some(bound) = &topic.mirror else { continue };
            if bound.flow == flow {
                ways.ours.insert(&bound.source_topic, &topic.name);
            } else if !ids.contains_key(bound.flow.as_str()) {
                let lineage = topic.partitions.iter().find_map(|one| one.lineage.last());
                ids.extend(lineage.map(|last| (bound.flow.as_str(), last.source_cluster_id.as_str())));
            }
            if let Some(origin) = &bound.origin {
                at_source |= bound.flow != flow && origin.cluster_id == source.cluster_id;
                let key = (origin.cluster_id.as_str(), origin.topic.as_str());
                ways.by_origin.entry(key).or_default().push(topic);
            }
        }
        if at_source || source.topics.values().any(SourceTopic::is_mirror) {
            let others = view.flows.iter().filter(|(name, _)| *name != flow);
            let others = others.filter_map(|(name, flow)| {
                Some(Other {
                    name,
                    cluster: &flow.spec.source_cluster,
                    mesh: matches!(flow.spec.source, FlowSource::Mesh(_)),
                    id: ids.get(name.as_str()).copied().filter(|id| !id.is_empty()),
                    names: Names::new(&flow.spec).ok()?,
                    copies: !matches!(flow.state, FlowState::FailingOver | FlowState::Promoted),
                })
            });
            ways.others = others.collect();
        }
        ways
    }

    /// Where the records of a source topic were first written: there, unless it is a mirror. One that was promoted has
    /// records of its own.
    fn origin(&self, name: &str, topic: &SourceTopic) -> Option<Origin> {
        match &topic.word {
            Word::Awaited => None,
            Word::Says(Provenance::Mirror(origin)) => Some(origin.clone()),
            Word::Untold | Word::Says(Provenance::Own | Provenance::Promoted(_)) => Some(Origin {
                cluster_id: self.source_id.to_owned(),
                cluster: self.names.source_cluster().to_owned(),
                topic: name.to_owned(),
                topic_id: topic.id,
                tells: topic.word != Word::Untold,
            }),
        }
    }

    /// Why a topic that this flow does not mirror yet is not to be copied. `copied`: origins of the mirrors that it copies.
    fn another(
        &self,
        topic: &SourceTopic,
        origin: &Origin,
        here: &str,
        copied: &BTreeSet<(String, String)>,
    ) -> Option<Another> {
        if let Word::Says(Provenance::Mirror(first) | Provenance::Promoted(first)) = &topic.word {
            let from_here = !first.cluster_id.is_empty() && first.cluster_id == self.view.cluster_id;
            // Under its own name a promoted topic is one that this cluster lacks, or one that both sides write.
            let from_here = from_here && (topic.is_mirror() || !self.names.keep_names());
            if from_here || !first.tells && self.names.came_from_here(&first.topic) {
                let promoted = !topic.is_mirror();
                return Some(Another::Way(Elsewhere::Loop { promoted }));
            }
        }
        let same = self.same(origin);
        if !topic.is_mirror() {
            // Of what is first written at the source this flow is the way; only its name may be taken by a copy of it.
            let known = same.into_iter().find(|known| known.name == here)?;
            return Some(match self.is_copied(known) {
                true => as_here(known),
                false => copied_no_more(known),
            });
        }
        let takes = |other: &&Other<'_>| other.names.named(&origin.topic, false).is_ok();
        let mut from_there = Vec::new();
        for other in self.others.iter().filter(takes) {
            match other.id.filter(|_| !origin.cluster_id.is_empty()) {
                Some(id) if id == origin.cluster_id => from_there.push(other),
                None if other.cluster == origin.cluster && other.mesh => from_there.push(other),
                None if other.cluster == origin.cluster && other.copies => {
                    return Some(Another::Problem(format!(
                        "it is a mirror of `{}` of a Kafka called `{}`; whether flow `{}` comes from the same one is not known \
                         before that flow has seen its source, and this one waits for that",
                        origin.topic, origin.cluster, other.name
                    )));
                }
                _ => {}
            }
        }
        if let Some(other) = from_there.iter().find(|other| other.copies) {
            let by = other.name.to_owned();
            return Some(Another::Way(Elsewhere::Comes { by }));
        }
        if let Some(known) = same.iter().find(|known| self.is_copied(known)) {
            return Some(as_here(known));
        }
        // What was first written there is the matter of that flow's failback: nobody else can bring it.
        if let Some(by) = same.iter().find_map(|known| taken_over(known, origin)) {
            return Some(Another::Way(Elsewhere::TakenOver { by }));
        }
        if let Some(known) = same.first() {
            return Some(copied_no_more(known));
        }
        if let Some(other) = from_there.first() {
            return Some(Another::Problem(format!(
                "it is left to flow `{}`, which comes from where it was first written and copies nothing any more, because it \
                 was failed or switched over: records of it do not arrive here",
                other.name
            )));
        }
        let key = (origin.cluster_id.clone(), origin.topic.clone());
        let by = || self.flow.to_owned();
        copied
            .contains(&key)
            .then(|| Another::Way(Elsewhere::Comes { by: by() }))
    }

    fn same(&self, origin: &Origin) -> Vec<&'a Arc<TopicView>> {
        let key = (origin.cluster_id.as_str(), origin.topic.as_str());
        let known = self.by_origin.get(&key).into_iter().flatten().copied();
        of_origin(known, |topic| topic.mirror.as_ref()?.origin.as_ref(), origin).collect()
    }

    /// Whether the flow that made a mirror goes on copying it.
    fn is_copied(&self, known: &TopicView) -> bool {
        let Some(bound) = known.mirror.as_ref().filter(|bound| !bound.promoted) else {
            return false;
        };
        if bound.flow == self.flow {
            return self.names.takes_topic(&bound.source_topic, false);
        }
        let mut others = self.others.iter();
        others.any(|other| {
            other.name == bound.flow && other.copies && other.names.takes_topic(&bound.source_topic, false)
        })
    }
}

fn flow_of(known: &TopicView) -> &str {
    known.mirror.as_ref().map_or("", |bound| bound.flow.as_str())
}

fn as_here(known: &TopicView) -> Another {
    Another::Way(Elsewhere::Here {
        name: known.name.clone(),
        by: flow_of(known).to_owned(),
    })
}

/// The flow from where `origin` was first written, if clients here have taken over from it.
fn taken_over(known: &TopicView, origin: &Origin) -> Option<String> {
    let bound = known.mirror.as_ref().filter(|bound| bound.promoted)?;
    let first_hand = origin.is_first_hand(&bound.source_topic, bound.source_topic_id);
    first_hand.then(|| bound.flow.clone())
}

fn copied_no_more(known: &TopicView) -> Another {
    Another::Problem(format!(
        "`{}` here holds what flow `{}` once copied of it, and that flow copies it no more: records that are written there since \
         do not arrive here",
        known.name,
        flow_of(known)
    ))
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
