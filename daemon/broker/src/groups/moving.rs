//! Groups whose topics move to another cluster: what they may not do here any more, and where they stand for good.

use std::collections::HashMap;

use super::commits::{Subscriptions, subscriptions};
use super::coordinator::Coordinator;
use super::error::GroupError;

/// A position on a topic that moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastPosition {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The position.
    pub offset: i64,
    /// The group's own metadata.
    pub metadata: String,
}

impl Coordinator {
    /// Refuses calls of a group that is to look for its coordinator in another cluster, or to wait until it has come here.
    pub(super) fn is_still_here(&self, group: &str) -> Result<(), GroupError> {
        if self.has_moved(group) {
            return Err(GroupError::Unavailable);
        }
        Ok(())
    }

    /// Whether the members of `group` read nothing but topics that it may not commit on here: they are to look for their
    /// coordinator elsewhere, or to wait.
    fn has_moved(&self, group: &str) -> bool {
        let topics = self.inner.env.topics();
        if !topics.any_moves() {
            return false;
        }
        let Ok(shard) = self.shard(group) else {
            return false;
        };
        let Ok(state) = shard.active() else {
            return false;
        };
        match state.groups.get(group).map(subscriptions) {
            Some(Subscriptions::Topics(read)) => {
                !read.is_empty() && read.iter().all(|topic| topics.moves(topic))
            }
            _ => false,
        }
    }

    /// Where groups stand on topics that groups may not commit on any more: final in each partition that is answered for,
    /// which are those of `epochs` that are loaded here under just that leader epoch.
    pub fn last_positions(&self, epochs: &HashMap<i32, i32>) -> (Vec<i32>, Vec<LastPosition>) {
        let topics = self.inner.env.topics();
        let (mut partitions, mut positions) = (Vec::new(), Vec::new());
        for shard in self.shards() {
            if epochs.get(&shard.partition) != Some(&shard.epoch) {
                continue;
            }
            let Ok(state) = shard.active() else { continue };
            partitions.push(shard.partition);
            for (group, entry) in &state.groups {
                let moving = entry.offsets.iter().filter(|(topic, ..)| topics.has_left(topic));
                positions.extend(moving.map(|(topic, partition, value)| LastPosition {
                    group: group.clone(),
                    topic: topic.to_owned(),
                    partition,
                    offset: value.offset,
                    metadata: value.metadata.clone(),
                }));
            }
        }
        (partitions, positions)
    }
}
