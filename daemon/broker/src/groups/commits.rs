//! Positions: committing them for clients and for flows. `removal.rs` forgets them.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::coordinator::{Committer, Coordinator, Position};
use super::error::GroupError;
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
            let (member, generation) = (&committer.member_id, committer.generation);
            let checked = match &entry.consumer {
                Some(consumer) => {
                    let all = positions
                        .iter()
                        .map(|position| (position.topic.as_str(), position.partition));
                    let topics = self.inner.env.topics();
                    consumer.check_commit(member, generation, committer.knows_epochs, all, topics.as_ref())
                }
                None => entry
                    .group
                    .check_commit(member, instance, generation, now.mono_ms),
            };
            if let Err(error) = checked {
                state.forget_if_blank(group);
                return Err(error);
            }
            let topics = self.inner.env.topics();
            let entry = state.entry(group, now.wall_ms);
            for position in positions {
                // Asked under the shard's lock: a shard that was elected when the fence came knows of it.
                if topics.moves(&position.topic) {
                    outcomes.push(Err(GroupError::Unavailable));
                    continue;
                }
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
                    expire_timestamp_ms: position.retention_ms.map(|retention| now.wall_ms + retention),
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
            let topics = self.inner.env.topics();
            let entry = state.entry(group, now.wall_ms);
            let subscribed = subscriptions(entry);
            for commit in commits {
                // Of a topic that has moved, only its flow writes positions here, whoever wrote them before.
                let moved = topics.has_left(&commit.topic);
                if !moved && !subscribed.allows(&commit.topic) {
                    statuses.push(MirroredStatus::OwnedHere);
                    continue;
                }
                let refusal = entry.offsets.mirror_refusal(&commit);
                let refusal = refusal.filter(|refusal| !moved || *refusal != MirroredStatus::OwnedHere);
                if let Some(refusal) = refusal {
                    statuses.push(refusal);
                    continue;
                }
                statuses.push(MirroredStatus::Written);
                let value = OffsetValue {
                    offset: commit.offset,
                    leader_epoch: -1,
                    metadata: commit.metadata,
                    commit_timestamp_ms: now.wall_ms,
                    expire_timestamp_ms: None,
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
                Ok(()) => entry.offsets.confirm(&topic, partition, at, value),
                Err(_) => entry.offsets.give_up(&topic, partition, at),
            }
        }
        state.forget_if_blank(group);
        outcome
    }
}

/// What the members of a group read.
pub(super) enum Subscriptions {
    /// Topics of these names.
    Topics(BTreeSet<String>),
    /// It cannot be told.
    Unknown,
}

impl Subscriptions {
    fn allows(&self, topic: &str) -> bool {
        matches!(self, Self::Topics(topics) if !topics.contains(topic))
    }
}

/// What the members of a group read. Members whose metadata is not Kafka's own may read anything.
pub(super) fn subscriptions(entry: &GroupEntry) -> Subscriptions {
    let mut all = match &entry.consumer {
        Some(consumer) => consumer.subscribed(),
        None => BTreeSet::new(),
    };
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

pub(super) fn offset_key(group: &str, topic: &str, partition: i32) -> Bytes {
    Key::Offset {
        group: group.to_owned(),
        topic: topic.to_owned(),
        partition,
    }
    .encode()
}
