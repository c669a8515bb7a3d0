//! The guard of a cluster that starts: what it must not let clients write before another cluster has answered.
//!
//! While no daemon of a cluster runs, another one that copies its topics may take them over by a failover. So the source
//! remembers in its metadata log which clusters copy what ([`Copied`]), and after a start asks those that may fence its
//! topics ([`crate::region::RegionWish::Standing`]) before it lets clients write them.

use serde::{Deserialize, Serialize};

use crate::ids::TopicId;

/// What another cluster copies from this one under the same names, and could take over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Regular expressions on whole names, as the flow there has them.
    pub topics: Vec<String>,
    /// Regular expressions; what they match is not copied. None stands for the defaults of a flow.
    pub topics_exclude: Vec<String>,
    /// The id of the cluster that copies; empty if it did not say. Another one of the same name cannot say for it that it
    /// took nothing over.
    #[serde(default)]
    pub cluster_id: String,
    /// Topics that it mirrors and could take over, although the patterns do not take them: they were mirrored under earlier
    /// ones, or another naming. By id at the source.
    #[serde(default)]
    pub bound: Vec<TopicId>,
}

impl Copied {
    /// How many patterns there may be in each list, and how many bytes they may have together: as in a flow's declaration.
    pub const MAX_PATTERNS: usize = 1_000;
    /// See [`Self::MAX_PATTERNS`].
    pub const MAX_BYTES: usize = 64 << 10;
    /// How many topics beyond the patterns are named one by one.
    pub const MAX_BOUND: usize = 1_000;
    /// How long a cluster's id may be, in bytes.
    const MAX_ID: usize = 255;

    /// Whether it may be remembered: what another cluster says has no bound of its own.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let lists = [&self.topics, &self.topics_exclude];
        let bytes: usize = lists.iter().flat_map(|list| list.iter()).map(String::len).sum();
        let short = bytes <= Self::MAX_BYTES && self.cluster_id.len() <= Self::MAX_ID;
        short
            && self.bound.len() <= Self::MAX_BOUND
            && lists.iter().all(|list| list.len() <= Self::MAX_PATTERNS)
    }
}

/// An operator's word that clients may write although a cluster has not answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unguarded {
    /// The index of the entry in the metadata log: daemons that have registered later are not concerned.
    pub index: u64,
    /// When, in ms since the epoch.
    pub at_ms: i64,
    /// Why, in the operator's words.
    pub reason: String,
}

/// What a daemon that starts asks the others of its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardAsk {
    /// The cluster whose word is missing.
    pub peer: String,
}

/// What a daemon answers to [`GuardAsk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardWord {
    /// Whether it does not wait for that cluster, in this run of its process.
    pub clear: bool,
    /// Up to where it has applied the metadata log: its word holds for whoever has applied as much.
    pub index: u64,
}
