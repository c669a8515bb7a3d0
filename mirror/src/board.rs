//! What this daemon knows of one flow, kept for whoever asks: written by links and tasks, read by reports.
//!
//! Nothing here is decided on; positions come from logs. A link removes its partitions when it ends, so that what is
//! reported is what is being done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::source::track::{Gap, Health, PartitionHere, Track};
use crate::source::{PartitionOf, SourceEnds};

/// The facts of one flow on this daemon.
#[derive(Debug, Default)]
pub struct Board {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    partitions: BTreeMap<PartitionHere, PartitionFacts>,
    observation: Option<Observation>,
    groups: Option<GroupsFacts>,
    problems: BTreeMap<&'static str, Vec<String>>,
    notes: BTreeMap<&'static str, Vec<String>>,
    elsewhere: Arc<BTreeSet<String>>,
    contact: Contact,
}

/// One partition that this daemon copies.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionFacts {
    /// The partition at the source.
    pub source: PartitionOf,
    /// How it does.
    pub health: Health,
    /// Why, if not well.
    pub reason: Option<String>,
    /// Whether what is here was found to be the source's since this daemon last looked at its log.
    pub compared: bool,
    /// Since when it only tries, or has not begun yet, in ms; `None` once it copies.
    pub retrying_since_ms: Option<i64>,
    /// The newest gap.
    pub gap: Option<Gap>,
    /// Where the source stood when it last said so.
    pub ends: Option<SourceEnds>,
    /// Since when something known at the source may be missing here, in ms: when everything was last here, or when this
    /// daemon began to copy.
    pub behind_since_ms: i64,
}

/// When the source was last heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Contact {
    last_ok_ms: Option<i64>,
    last_failure_ms: Option<i64>,
}

/// The source as one complete look saw it: every matching partition with its ends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// When the look began, in ms by this cluster's clock.
    pub at_ms: i64,
    /// How many topics match.
    pub topics: usize,
    /// Every partition of them.
    pub partitions: Vec<Observed>,
    /// Topics that the flow's filters take and of which the source has not said whether they are mirrors: they wait, and are in
    /// neither of the above.
    #[serde(default)]
    pub awaited: Vec<String>,
}

/// One source partition as observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The topic's name here.
    pub here: String,
    /// The partition.
    pub partition: i32,
    /// Its first kept offset at the source.
    pub start: i64,
    /// Its high watermark at the source.
    pub high_watermark: i64,
    /// Whether what is here is the mirror of another topic, which had this one's name before it was created again: then
    /// nothing of this one is here.
    #[serde(default)]
    pub another: bool,
}

/// What one pass over the source's groups found on this daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsFacts {
    /// The positions of the groups coordinated here.
    pub positions: Vec<PositionFacts>,
    /// The groups of the source that the flow takes.
    pub seen: Vec<String>,
    /// Those of them that are coordinated here.
    pub done: Vec<String>,
    /// Those of them that are coordinated here, but whose positions the source does not tell: with its reason.
    #[serde(default)]
    pub untold: Vec<(String, String)>,
}

/// One group position as this daemon last mirrored it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionFacts {
    /// The group.
    pub group: String,
    /// The topic's name here.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The visible offset here; -1 if none is stored.
    pub offset: i64,
    /// The position at the source.
    pub source_offset: i64,
    /// How the two relate.
    pub status: PositionStatus,
}

/// How a group's position here relates to that at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PositionStatus {
    /// It is the same record.
    Exact,
    /// The records up to it are not all here yet.
    Pending,
    /// The group is used here; the flow leaves it alone.
    OwnedHere,
    /// There is nothing here that it could mean: the partition does not exist here, or has diverged, or is another topic's.
    Unmapped,
}

impl Board {
    /// What a link knows of a partition.
    pub fn set_partition(&self, track: &Track, now_ms: i64) {
        let (health, reason) = track.health();
        let mut inner = self.inner.lock();
        let before = inner.partitions.get(&track.here);
        let since_ms = before.map_or(now_ms, |facts| facts.behind_since_ms);
        let retrying_since_ms = before.and_then(|facts| facts.retrying_since_ms);
        let retrying_since_ms = match health {
            Health::Starting | Health::Retrying => retrying_since_ms.or(Some(now_ms)),
            Health::Active | Health::Diverged | Health::Failed => None,
        };
        let facts = PartitionFacts {
            source: track.source.clone(),
            health,
            reason: reason.map(str::to_owned),
            compared: track.is_compared(),
            retrying_since_ms,
            gap: track.gap(),
            ends: track.ends(),
            behind_since_ms: track.caught_up_ms().unwrap_or(since_ms),
        };
        inner.partitions.insert(track.here.clone(), facts);
    }

    /// A partition is no longer copied by this daemon.
    pub fn remove_partition(&self, here: &PartitionHere) {
        self.inner.lock().partitions.remove(here);
    }

    /// The partitions that this daemon copies.
    pub fn partitions(&self) -> Vec<(PartitionHere, PartitionFacts)> {
        let inner = self.inner.lock();
        inner
            .partitions
            .iter()
            .map(|(here, facts)| (here.clone(), facts.clone()))
            .collect()
    }

    /// A complete look at the source; an older one than is known changes nothing.
    pub fn set_observation(&self, observation: Observation) {
        let mut inner = self.inner.lock();
        if inner
            .observation
            .as_ref()
            .is_none_or(|known| known.at_ms <= observation.at_ms)
        {
            inner.observation = Some(observation);
        }
    }

    /// The newest complete look.
    pub fn observation(&self) -> Option<Observation> {
        self.inner.lock().observation.clone()
    }

    /// Where the groups coordinated here stand, as of one pass over all of them.
    pub fn set_groups(&self, facts: GroupsFacts) {
        self.inner.lock().groups = Some(facts);
    }

    /// Where the groups coordinated here stand; `None` until a first pass has succeeded.
    pub fn groups(&self) -> Option<GroupsFacts> {
        self.inner.lock().groups.clone()
    }

    /// Replaces the complaints of one part of the mirror.
    pub fn set_problems(&self, part: &'static str, problems: Vec<String>) {
        self.inner.lock().problems.insert(part, problems);
    }

    /// All complaints.
    pub fn problems(&self) -> Vec<String> {
        self.inner.lock().problems.values().flatten().cloned().collect()
    }

    /// Replaces what one part of the mirror says without complaining.
    pub fn set_notes(&self, part: &'static str, notes: Vec<String>) {
        self.inner.lock().notes.insert(part, notes);
    }

    /// All that is said without complaining.
    pub fn notes(&self) -> Vec<String> {
        self.inner.lock().notes.values().flatten().cloned().collect()
    }

    /// The source's topics that the flow's filters take and that this flow does not copy, because their records are here or
    /// come by another way.
    pub fn set_elsewhere(&self, topics: BTreeSet<String>) {
        self.inner.lock().elsewhere = Arc::new(topics);
    }

    /// As of the last look.
    pub fn elsewhere(&self) -> Arc<BTreeSet<String>> {
        self.inner.lock().elsewhere.clone()
    }

    /// The source answered.
    pub fn heard(&self, now_ms: i64) {
        self.inner.lock().contact.last_ok_ms = Some(now_ms);
    }

    /// The source did not answer.
    pub fn not_heard(&self, now_ms: i64) {
        self.inner.lock().contact.last_failure_ms = Some(now_ms);
    }

    /// When the source last answered, in ms.
    pub fn last_heard_ms(&self) -> Option<i64> {
        self.inner.lock().contact.last_ok_ms
    }

    /// Whether the last thing known of the source is that it did not answer.
    pub fn is_unreachable(&self) -> bool {
        let contact = self.inner.lock().contact;
        contact
            .last_failure_ms
            .is_some_and(|failure| contact.last_ok_ms.is_none_or(|ok| ok <= failure))
    }
}
