//! Positions: committing them for clients and for flows, and forgetting them.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::coordinator::{Committer, Coordinator, Position};
use super::error::GroupError;
use super::group::GroupState;
use super::journal::Entry;
use super::offsets::{MirroredCommit, MirroredStatus};
use super::record::{Key, OffsetValue, subscribed_topics};
use super::shard::{COMMIT_TIMEOUT, GroupEntry, Shard};

impl Coordinator {
    /// Commits positions and waits until they are committed; one outcome per position.
    pub async fn commit(
        &self,
        group: &str,
        committer: &Committer,
        positions: Vec<Position>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let shard = self.shard(group)?;
        let (mut outcomes, mut values) = (Vec::with_capacity(positions.len()), Vec::new());
        let base = {
            let mut state = shard.active()?;
            let now = (self.inner.env.now)();
            if committer.generation >= 0 && !state.groups.contains_key(group) {
                return Err(GroupError::GroupNotFound);
            }
            let entry = state.entry(group, now.wall_ms);
            let instance = committer.instance_id.as_deref();
            let checked =
                entry
                    .group
                    .check_commit(&committer.member_id, instance, committer.generation, now.mono_ms);
            if let Err(error) = checked {
                state.forget_if_blank(group);
                return Err(error);
            }
            let entry = state.entry(group, now.wall_ms);
            for position in positions {
                if position.metadata.len() > self.inner.env.config.max_metadata_bytes {
                    outcomes.push(Err(GroupError::MetadataTooLarge));
                    continue;
                }
                outcomes.push(Ok(()));
                let value = OffsetValue {
                    offset: position.offset,
                    leader_epoch: position.leader_epoch,
                    metadata: position.metadata,
                    commit_timestamp_ms: now.wall_ms,
                    mirrored: None,
                };
                values.push((position.topic, position.partition, value));
            }
            let appended = append_positions(&shard, group, entry, &values);
            state.forget_if_blank(group);
            appended?
        };
        self.finish_commit(&shard, group, base, values).await?;
        Ok(outcomes)
    }

    /// Writes positions for a flow, each only if the group is not in use here and the flow wrote the stored one itself.
    /// Waits until they are committed; one status per position.
    pub async fn mirrored_commit(
        &self,
        group: &str,
        commits: Vec<MirroredCommit>,
    ) -> Result<Vec<MirroredStatus>, GroupError> {
        let shard = self.shard(group)?;
        let (mut statuses, mut values) = (Vec::with_capacity(commits.len()), Vec::new());
        let base = {
            let mut state = shard.active()?;
            let now = (self.inner.env.now)();
            let entry = state.entry(group, now.wall_ms);
            let subscribed = subscriptions(entry);
            for commit in commits {
                if !subscribed.allows(&commit.topic) {
                    statuses.push(MirroredStatus::OwnedHere);
                    continue;
                }
                if let Some(refusal) = entry.offsets.mirror_refusal(&commit) {
                    statuses.push(refusal);
                    continue;
                }
                statuses.push(MirroredStatus::Written);
                let value = OffsetValue {
                    offset: commit.offset,
                    leader_epoch: -1,
                    metadata: commit.metadata,
                    commit_timestamp_ms: now.wall_ms,
                    mirrored: Some(commit.mark),
                };
                values.push((commit.topic, commit.partition, value));
            }
            let appended = append_positions(&shard, group, entry, &values);
            state.forget_if_blank(group);
            appended?
        };
        self.finish_commit(&shard, group, base, values).await?;
        Ok(statuses)
    }

    async fn finish_commit(
        &self,
        shard: &Arc<Shard>,
        group: &str,
        base: i64,
        values: Vec<(String, i32, OffsetValue)>,
    ) -> Result<(), GroupError> {
        if values.is_empty() {
            return Ok(());
        }
        let last = base + values.len() as i64 - 1;
        let outcome = shard.journal.committed(last, COMMIT_TIMEOUT).await;
        let mut state = shard.active()?;
        let Some(entry) = state.groups.get_mut(group) else {
            return outcome;
        };
        for (at, (topic, partition, value)) in (base..).zip(values) {
            match outcome {
                Ok(()) => entry.offsets.apply(&topic, partition, at, value),
                Err(_) => entry.offsets.give_up(&topic, partition, at),
            }
        }
        state.forget_if_blank(group);
        outcome
    }

    /// Removes what has expired. A removal that fails is tried again the next time.
    pub(super) async fn expire(&self, shard: &Shard) {
        let now = (self.inner.env.now)();
        let before = now.wall_ms - self.inner.env.config.offsets_retention_ms;
        let expired: Vec<(String, Vec<(String, i32)>)> = {
            let Ok(state) = shard.active() else { return };
            let of = |entry: &GroupEntry| (entry.group.id.clone(), expired(entry, before));
            let all = state.groups.values();
            all.filter(|entry| entry.group.is_idle() || entry.group.state() == GroupState::Stable)
                .map(of)
                .collect()
        };
        for (group, positions) in expired {
            self.expire_group(shard, &group, &positions).await;
        }
    }

    async fn expire_group(&self, shard: &Shard, group: &str, positions: &[(String, i32)]) {
        if !positions.is_empty() {
            let key = |(topic, partition): &(String, i32)| (offset_key(group, topic, *partition), None);
            let entries: Vec<Entry> = positions.iter().map(key).collect();
            if let Err(error) = shard.remove(&entries).await {
                tracing::debug!(group, %error, "expired positions not removed");
                return;
            }
            let Ok(mut state) = shard.active() else { return };
            let Some(entry) = state.groups.get_mut(group) else {
                return;
            };
            for (topic, partition) in positions {
                entry.offsets.remove(topic, *partition);
            }
        }
        // A group that nobody is in and that remembers nothing is forgotten.
        let forgettable = |entry: &GroupEntry| entry.group.is_idle() && entry.offsets.is_empty();
        let removal = [(
            Key::Group {
                group: group.to_owned(),
            }
            .encode(),
            None,
        )];
        {
            let Ok(state) = shard.active() else { return };
            if !state.groups.get(group).is_some_and(forgettable) {
                return;
            }
        }
        if shard.remove(&removal).await.is_ok()
            && let Ok(mut state) = shard.active()
            && state.groups.get(group).is_some_and(forgettable)
        {
            state.groups.remove(group);
        }
    }
}

/// Which positions of a group are over: those of a group that has been empty long enough, those of a group that only
/// ever committed, and those of topics that a stable group no longer reads.
fn expired(entry: &GroupEntry, before_ms: i64) -> Vec<(String, i32)> {
    let group = &entry.group;
    let kept = match group.state() {
        GroupState::Empty if group.protocol_type().is_none() || group.state_since_ms() < before_ms => {
            BTreeSet::new()
        }
        GroupState::Stable if group.protocol_type() == Some("consumer") => match subscriptions(entry) {
            Subscriptions::Topics(topics) => topics,
            Subscriptions::Unknown => return Vec::new(),
        },
        _ => return Vec::new(),
    };
    entry.offsets.expired(before_ms, &kept)
}

enum Subscriptions {
    Topics(BTreeSet<String>),
    Unknown,
}

impl Subscriptions {
    fn allows(&self, topic: &str) -> bool {
        matches!(self, Self::Topics(topics) if !topics.contains(topic))
    }
}

/// What the members of a group read. Members whose metadata is not Kafka's own may read anything.
fn subscriptions(entry: &GroupEntry) -> Subscriptions {
    let mut all = BTreeSet::new();
    for member in entry.group.members() {
        for (_, metadata) in &member.protocols {
            match subscribed_topics(metadata) {
                Some(topics) if entry.group.protocol_type() == Some("consumer") => all.extend(topics),
                _ => return Subscriptions::Unknown,
            }
        }
    }
    Subscriptions::Topics(all)
}

fn append_positions(
    shard: &Shard,
    group: &str,
    entry: &mut GroupEntry,
    values: &[(String, i32, OffsetValue)],
) -> Result<i64, GroupError> {
    if values.is_empty() {
        return Ok(-1);
    }
    let records: Vec<Entry> = values
        .iter()
        .map(|(topic, partition, value)| (offset_key(group, topic, *partition), Some(value.encode())))
        .collect();
    let base = shard.journal.append(&records)?;
    for (at, (topic, partition, value)) in (base..).zip(values) {
        entry.offsets.begin(topic, *partition, at, value.clone());
    }
    Ok(base)
}

fn offset_key(group: &str, topic: &str, partition: i32) -> Bytes {
    Key::Offset {
        group: group.to_owned(),
        topic: topic.to_owned(),
        partition,
    }
    .encode()
}

pub(super) fn removals(entry: &GroupEntry) -> Vec<Entry> {
    let group = &entry.group.id;
    let offsets = entry
        .offsets
        .iter()
        .map(|(topic, partition, _)| (offset_key(group, topic, partition), None));
    offsets
        .chain([(Key::Group { group: group.clone() }.encode(), None)])
        .collect()
}
