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
//! | anything else | copied; a name that is taken is a problem |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tradewind_wire::flow::{Origin, Provenance};

use crate::naming::{Names, NotMirrored};
use crate::source::{SourceTopic, SourceTopics, Word};
use crate::target::{TopicView, View};

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
    Loop,
    /// It is a mirror, and this flow comes from where it was first written.
    Comes {
        /// The flow.
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
    /// What a status says of topics that come by another way, one sentence for each. That nothing comes back is no news.
    pub fn notes(&self) -> Vec<String> {
        let mut by: BTreeMap<(&str, bool), Vec<String>> = BTreeMap::new();
        for (topic, elsewhere) in &self.elsewhere {
            match elsewhere {
                Elsewhere::Loop => {}
                Elsewhere::Comes { by: flow } => by.entry((flow, false)).or_default().push(topic.clone()),
                Elsewhere::Here { name, by: flow } if name == topic => {
                    by.entry((flow, true)).or_default().push(topic.clone());
                }
                Elsewhere::Here { name, by: flow } => {
                    let told = format!("{topic} (here `{name}`)");
                    by.entry((flow, true)).or_default().push(told);
                }
            }
        }
        let note = |((flow, here), topics): ((&str, bool), Vec<String>)| {
            let more = if topics.len() > NAMED { ", ..." } else { "" };
            let some = topics[..topics.len().min(NAMED)].join(", ");
            let why = if here {
                "the same records are here already, by"
            } else {
                "they come from where they were first written, by"
            };
            format!("not copied again: {some}{more}: {why} flow `{flow}`")
        };
        by.into_iter().map(note).collect()
    }
}

/// Applies a flow's filters and naming to what the source has, and leaves out what comes another way.
pub fn matches(flow: &str, names: &Names, source: &SourceTopics, view: &View) -> Matches {
    let mut out = Matches {
        cluster_id: source.cluster_id.clone(),
        ..Matches::default()
    };
    let ways = Ways::new(flow, names, source, view);
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
                out.elsewhere.insert(name.clone(), Elsewhere::Loop);
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
            if let Some(elsewhere) = ways.elsewhere(topic, origin, &here, &copied, flow) {
                out.elsewhere.insert(name.clone(), elsewhere);
                continue;
            }
        }
        if !taken.insert(here.clone()) {
            let problem = format!("{name}: another topic is mirrored as `{here}` already");
            out.problems.push(problem);
            continue;
        }
        if let Some(origin) = origin.as_ref().filter(|_| topic.is_mirror()) {
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

/// What this cluster knows of the ways by which records come here.
struct Ways<'a> {
    names: &'a Names,
    source_id: &'a str,
    view: &'a View,
    /// What this flow mirrors, by the name at the source: its name here.
    ours: BTreeMap<&'a str, &'a str>,
    /// The mirrors here by the id of the cluster and the name of the topic that they come from.
    by_origin: BTreeMap<(&'a str, &'a str), Vec<&'a Arc<TopicView>>>,
    /// Other flows into this cluster: their name, what they call their source, what they take.
    others: Vec<(&'a str, &'a str, Names)>,
}

impl<'a> Ways<'a> {
    fn new(flow: &str, names: &'a Names, source: &'a SourceTopics, view: &'a View) -> Self {
        let mut ways = Self {
            names,
            source_id: &source.cluster_id,
            view,
            ours: BTreeMap::new(),
            by_origin: BTreeMap::new(),
            others: Vec::new(),
        };
        for topic in view.topics.values() {
            let Some(bound) = &topic.mirror else { continue };
            if bound.flow == flow {
                ways.ours.insert(&bound.source_topic, &topic.name);
            }
            if let Some(origin) = &bound.origin {
                let key = (origin.cluster_id.as_str(), origin.topic.as_str());
                ways.by_origin.entry(key).or_default().push(topic);
            }
        }
        if source.topics.values().any(SourceTopic::is_mirror) {
            let others = view.flows.iter().filter(|(name, _)| *name != flow);
            let others = others.filter_map(|(name, flow)| {
                let names = Names::new(&flow.spec).ok()?;
                Some((name.as_str(), flow.spec.source_cluster.as_str(), names))
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
    fn elsewhere(
        &self,
        topic: &SourceTopic,
        origin: &Origin,
        here: &str,
        copied: &BTreeSet<(String, String)>,
        flow: &str,
    ) -> Option<Elsewhere> {
        if let Word::Says(Provenance::Mirror(first) | Provenance::Promoted(first)) = &topic.word {
            let from_here = !first.cluster_id.is_empty() && first.cluster_id == self.view.cluster_id;
            // Under its own name a promoted topic is one that this cluster lacks, or one that both sides write.
            let from_here = from_here && (topic.is_mirror() || !self.names.keep_names());
            if from_here || !first.tells && self.names.came_from_here(&first.topic) {
                return Some(Elsewhere::Loop);
            }
        }
        let same = self.same(origin);
        if !topic.is_mirror() {
            // Of what is first written at the source this flow is the way; only its name may be taken by a copy of it.
            let known = same.into_iter().find(|known| known.name == here)?;
            return Some(as_here(known));
        }
        let comes = self.others.iter().find(|(_, cluster, names)| {
            *cluster == origin.cluster && names.named(&origin.topic, false).is_ok()
        });
        if let Some((by, ..)) = comes {
            return Some(Elsewhere::Comes { by: (*by).to_owned() });
        }
        if let Some(known) = same.first() {
            return Some(as_here(known));
        }
        let key = (origin.cluster_id.clone(), origin.topic.clone());
        copied
            .contains(&key)
            .then(|| Elsewhere::Comes { by: flow.to_owned() })
    }

    fn same(&self, origin: &Origin) -> Vec<&'a Arc<TopicView>> {
        let key = (origin.cluster_id.as_str(), origin.topic.as_str());
        let known = self.by_origin.get(&key).into_iter().flatten().copied();
        let same = |topic: &&Arc<TopicView>| {
            let bound = topic.mirror.as_ref().and_then(|bound| bound.origin.as_ref());
            bound.is_some_and(|bound| bound.is_same(origin))
        };
        known.filter(same).collect()
    }
}

fn as_here(known: &Arc<TopicView>) -> Elsewhere {
    Elsewhere::Here {
        name: known.name.clone(),
        by: known
            .mirror
            .as_ref()
            .map_or_else(String::new, |bound| bound.flow.clone()),
    }
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
