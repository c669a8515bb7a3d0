//! Forgetting: groups and positions that a client deletes, positions that expire (KIP-211), positions of deleted topics.
//!
//! What is removed is gone from memory as soon as its tombstones are appended, in the same section of the shard's lock: a
//! commit that comes later comes later in the log too.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::commits::{Subscriptions, offset_key, subscriptions};
use super::consumer_calls::tombstones;
use super::coordinator::Coordinator;
use super::error::GroupError;
use super::group::GroupState;
use super::journal::Entry;
use super::record::{Key, OffsetValue};
use super::shard::{COMMIT_TIMEOUT, GroupEntry, Shard, State};

impl Coordinator {
    /// Deletes a group without members, with its positions, and waits until that is replicated.
    pub async fn delete(&self, group: &str) -> Result<(), GroupError> {
        let shard = self.shard(group)?;
        let last = {
            let mut state = shard.active()?;
            let entry = state.groups.get(group).ok_or(GroupError::GroupNotFound)?;
            match entry.group.state() {
                GroupState::Dead => return Err(GroupError::GroupNotFound),
                GroupState::Empty if entry.is_empty() => {}
                _ => return Err(GroupError::NotEmpty),
            }
            let removals = removals(entry);
            let base = shard.journal.append(&removals)?;
            state.take_out(group);
            base + removals.len() as i64 - 1
        };
        shard.journal.committed(last, COMMIT_TIMEOUT).await
    }

    /// Deletes positions of a group (KIP-496), and waits until that is replicated; one outcome per position. Those of
    /// topics that a `consumer` group reads stay; a group of another type has to be empty.
    pub async fn delete_positions(
        &self,
        group: &str,
        positions: &[(String, i32)],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let shard = self.shard(group)?;
        let (last, outcomes) = {
            let mut state = shard.active()?;
            let entry = state.groups.get_mut(group).ok_or(GroupError::GroupNotFound)?;
            let subscribed = subscribed(entry)?;
            let mut outcomes = Vec::with_capacity(positions.len());
            let mut removed = Vec::new();
            for (topic, partition) in positions {
                if subscribed.as_ref().is_none_or(|topics| topics.contains(topic)) {
                    outcomes.push(Err(GroupError::SubscribedToTopic));
                    continue;
                }
                outcomes.push(Ok(()));
                if entry.offsets.partitions_of(topic).contains(partition) {
                    removed.push((topic.clone(), *partition));
                }
            }
            let last = remove_positions(&shard, entry, &removed)?;
            state.forget_if_blank(group);
            (last, outcomes)
        };
        if let Some(last) = last {
            shard.journal.committed(last, COMMIT_TIMEOUT).await?;
        }
        Ok(outcomes)
    }

    /// Removes the positions of topics that are no more.
    pub fn topics_deleted(&self, topics: &[String]) {
        for shard in self.shards() {
            let Ok(mut state) = shard.active() else { continue };
            let ids: Vec<String> = state.groups.keys().cloned().collect();
            for id in ids {
                let Some(entry) = state.groups.get_mut(&id) else {
                    continue;
                };
                let mut removed = Vec::new();
                for topic in topics {
                    let partitions = entry.offsets.partitions_of(topic).into_iter();
                    removed.extend(partitions.map(|partition| (topic.clone(), partition)));
                }
                if let Err(error) = remove_positions(&shard, entry, &removed) {
                    tracing::debug!(group = id, %error, "positions of deleted topics not removed");
                    break;
                }
                state.forget_if_blank(&id);
            }
        }
    }

    /// Removes what has expired. A removal that fails is tried again the next time.
    pub(super) fn expire(&self, shard: &Arc<Shard>) {
        let now = (self.inner.env.now)().wall_ms;
        let Ok(mut state) = shard.active() else { return };
        let ids: Vec<String> = state.groups.keys().cloned().collect();
        for id in ids {
            if let Err(error) = self.expire_group(shard, &mut state, &id, now) {
                tracing::debug!(group = id, %error, "expired positions not removed");
                return;
            }
        }
    }

    fn expire_group(&self, shard: &Shard, state: &mut State, id: &str, now: i64) -> Result<(), GroupError> {
        let Some(entry) = state.groups.get_mut(id) else {
            return Ok(());
        };
        let expired = expired(entry, now, self.inner.env.config.offsets_retention_ms);
        remove_positions(shard, entry, &expired)?;
        // A group that nobody is in and that remembers nothing is forgotten.
        if entry.is_idle() && entry.offsets.is_empty() {
            shard.journal.append(&removals(entry))?;
            state.take_out(id);
        }
        Ok(())
    }
}

/// Appends tombstones and takes the positions out. Returns the offset of the last tombstone, if there was one to write.
fn remove_positions(
    shard: &Shard,
    entry: &mut GroupEntry,
    positions: &[(String, i32)],
) -> Result<Option<i64>, GroupError> {
    if positions.is_empty() {
        return Ok(None);
    }
    let group = entry.group.id.clone();
    let tombstone = |(topic, partition): &(String, i32)| (offset_key(&group, topic, *partition), None);
    let entries: Vec<Entry> = positions.iter().map(tombstone).collect();
    let base = shard.journal.append(&entries)?;
    for (topic, partition) in positions {
        entry.offsets.remove(topic, *partition);
    }
    Ok(Some(base + entries.len() as i64 - 1))
}

/// The topics whose positions may not be deleted; `None` if those of no topic may.
fn subscribed(entry: &GroupEntry) -> Result<Option<BTreeSet<String>>, GroupError> {
    if let Some(consumer) = &entry.consumer {
        return Ok(Some(consumer.subscribed()));
    }
    let consumers = entry.group.protocol_type() == Some("consumer");
    match entry.group.state() {
        GroupState::Dead => Err(GroupError::GroupNotFound),
        GroupState::Empty => Ok(Some(BTreeSet::new())),
        _ if !consumers => Err(GroupError::NotEmpty),
        _ => match subscriptions(entry) {
            Subscriptions::Topics(topics) => Ok(Some(topics)),
            Subscriptions::Unknown => Ok(None),
        },
    }
}

/// Which positions of a group are over: those of a group that has been empty long enough, those of a group that only
/// ever committed, and those of topics that a stable group no longer reads. A client's own retention goes first.
fn expired(entry: &GroupEntry, now: i64, retention_ms: i64) -> Vec<(String, i32)> {
    let group = &entry.group;
    let (kept, since) = match group.state() {
        _ if entry.consumer.is_some() => match subscriptions(entry) {
            Subscriptions::Topics(topics) => (topics, i64::MIN),
            Subscriptions::Unknown => return Vec::new(),
        },
        GroupState::Empty if group.protocol_type().is_none() => (BTreeSet::new(), i64::MIN),
        GroupState::Empty => (BTreeSet::new(), group.state_since_ms()),
        GroupState::Stable if group.protocol_type() == Some("consumer") => match subscriptions(entry) {
            Subscriptions::Topics(topics) => (topics, i64::MIN),
            Subscriptions::Unknown => return Vec::new(),
        },
        _ => return Vec::new(),
    };
    let is_over = |value: &OffsetValue| match value.expire_timestamp_ms {
        Some(end) => now >= end,
        // A position that was set while the group was empty counts from then.
        None => now - since.max(value.commit_timestamp_ms) >= retention_ms,
    };
    entry.offsets.expired(is_over, &kept)
}

/// The tombstones of everything that the log holds of a group.
fn removals(entry: &GroupEntry) -> Vec<Entry> {
    let group = &entry.group.id;
    let offsets = entry.offsets.keys();
    let offsets = offsets.map(|(topic, partition)| (offset_key(group, topic, partition), None));
    let consumer = entry.consumer.as_ref();
    let consumer = consumer
        .map(|consumer| tombstones(group, consumer))
        .unwrap_or_default();
    offsets
        .chain(consumer)
        .chain([(Key::Group { group: group.clone() }.encode(), None)])
        .collect()
}
