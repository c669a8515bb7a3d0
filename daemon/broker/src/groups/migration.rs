//! How a group with members goes over to the other protocol (KIP-848), and how members of the classic protocol are served
//! while those of both are in it.
//!
//! A classic group becomes one of the consumer protocol when the first member of that protocol joins it, and a classic
//! one again when the last one goes. Either way one batch removes the old form from the log and writes the new one, and
//! nothing changes in memory before that is appended.

use super::consumer::{
    CONSUMER, ClassicMember, ConsumerConfig, ConsumerGroup, Heartbeat, HeartbeatReply, Refusal,
};
use super::consumer_calls::tombstones;
use super::coordinator::{Committer, Coordinator, Now};
use super::error::GroupError;
use super::group::{AfterStore, Effect, Group, GroupConfig, GroupState};
use super::join::{Join, JoinReply};
use super::journal::Entry;
use super::member::Member;
use super::record::Key;
use super::shard::{Env, GroupEntry, Shard, State};
use super::sync::{Sync, SyncReply};
use std::sync::Arc;

use bytes::Bytes;

/// What an answer says, and which record has to be replicated before it may be given.
pub(super) type Answer<T> = (T, Option<i64>);

impl Coordinator {
    /// A JoinGroup into a group of the consumer protocol with members; `None` if the classic group shall have it.
    pub(super) fn join_consumers(
        &self,
        shard: &Arc<Shard>,
        state: &mut State,
        group: &str,
        join: &Join,
    ) -> Result<Option<Answer<JoinReply>>, GroupError> {
        let (env, now) = (&self.inner.env, (self.inner.env.now)());
        let Some(entry) = state.groups.get_mut(group) else {
            return Ok(None);
        };
        let Some(consumer) = entry.consumer.as_mut().filter(|consumer| !consumer.is_empty()) else {
            return Ok(None);
        };
        let bounds = env.config.min_session_timeout_ms..=env.config.max_session_timeout_ms;
        if !bounds.contains(&join.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        let topics = env.topics();
        let config = env.config.consumer.of_group(group, topics.as_ref());
        let mut effects = Vec::new();
        let reply = match consumer.gives_way(&config, join)? {
            Some(last) => {
                consumer.give_way(&config, &last, topics.as_ref());
                None
            }
            None => Some(consumer.join_classic(&config, topics.as_ref(), join, now.mono_ms, now.wall_ms)?),
        };
        shard.write(entry, env, now, &mut effects)?;
        let written = entry.written;
        shard.settle(state, group, effects, env);
        Ok(reply.map(|reply| (reply, written)))
    }

    /// A SyncGroup to a group of the consumer protocol; `None` if it is not one.
    pub(super) fn sync_consumers(
        &self,
        shard: &Shard,
        state: &mut State,
        group: &str,
        sync: &Sync,
    ) -> Result<Option<Answer<SyncReply>>, GroupError> {
        let (env, now) = (&self.inner.env, (self.inner.env.now)());
        let Some((consumer, written)) = consumer_of(state, group) else {
            return Ok(None);
        };
        let topics = env.topics();
        let config = env.config.consumer.of_group(group, topics.as_ref());
        let reply = consumer.sync_classic(&config, topics.as_ref(), sync, now.mono_ms);
        shard.reschedule(state, group);
        reply.map(|reply| Some((reply, written)))
    }

    /// A Heartbeat of a member of the classic protocol; `None` if the group is a classic one.
    pub(super) fn heartbeat_consumers(
        &self,
        shard: &Arc<Shard>,
        state: &mut State,
        group: &str,
        member: &Committer,
    ) -> Option<Result<(), GroupError>> {
        let (env, now) = (&self.inner.env, (self.inner.env.now)());
        let entry = state.groups.get_mut(group)?;
        let consumer = entry.consumer.as_mut()?;
        let topics = env.topics();
        let config = env.config.consumer.of_group(group, topics.as_ref());
        let who = (
            member.member_id.as_str(),
            member.instance_id.as_deref(),
            member.generation,
        );
        let outcome = consumer.heartbeat_classic(&config, topics.as_ref(), who, now.mono_ms, now.wall_ms);
        let mut effects = Vec::new();
        let written = shard.write(entry, env, now, &mut effects);
        shard.settle(state, group, effects, env);
        Some(written.and(outcome))
    }

    /// A LeaveGroup to a group of the consumer protocol; `None` if it is not one.
    pub(super) fn leave_consumers(
        &self,
        shard: &Arc<Shard>,
        state: &mut State,
        group: &str,
        members: &[(String, Option<String>)],
    ) -> Option<Result<Vec<Result<(), GroupError>>, GroupError>> {
        let (env, now) = (&self.inner.env, (self.inner.env.now)());
        let entry = state.groups.get_mut(group)?;
        let consumer = entry.consumer.as_mut()?;
        let topics = env.topics();
        let config = env.config.consumer.of_group(group, topics.as_ref());
        let outcomes = consumer.leave_classic(&config, topics.as_ref(), members);
        let mut effects = Vec::new();
        let written = shard.write(entry, env, now, &mut effects);
        shard.settle(state, group, effects, env);
        Some(written.map(|()| outcomes))
    }
}

fn consumer_of<'a>(state: &'a mut State, group: &str) -> Option<(&'a mut ConsumerGroup, Option<i64>)> {
    let entry = state.groups.get_mut(group)?;
    Some((entry.consumer.as_deref_mut()?, entry.written))
}

impl Shard {
    /// The first member of the consumer protocol joins a group, which becomes one of that protocol.
    pub(super) fn upgrade(
        &self,
        entry: &mut GroupEntry,
        env: &Env,
        config: &ConsumerConfig,
        request: Heartbeat,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Result<HeartbeatReply, Refusal> {
        let topics = env.topics();
        let mut consumer = if entry.is_empty() {
            ConsumerGroup::new()
        } else {
            may_upgrade(&entry.group, config)?;
            ConsumerGroup::of_classic(&entry.group, config, topics.as_ref(), now.mono_ms).map_err(
                |error| {
                    Refusal::new(
                        error,
                        "The classic group has members that are not consumers of Kafka's own kind.",
                    )
                },
            )?
        };
        let reply = consumer.heartbeat(config, topics.as_ref(), request, now.mono_ms, now.wall_ms)?;
        let id = &entry.group.id;
        let mut records: Vec<Entry> = Vec::new();
        if entry.group.generation() > 0 {
            records.push((Key::Group { group: id.clone() }.encode(), None));
        }
        records.extend(consumer.unwritten().map(|record| record.encode(id)));
        let base = self.journal.append(&records)?;
        entry.written = Some(base + records.len() as i64 - 1);
        consumer.settle();
        entry.group.hand_over(out);
        entry.consumer = Some(Box::new(consumer));
        Ok(reply)
    }
}

fn may_upgrade(group: &Group, config: &ConsumerConfig) -> Result<(), Refusal> {
    let refused = |message: &str| Err(Refusal::new(GroupError::GroupNotFound, message));
    if !config.migration.upgrade {
        return refused(
            "The group is a classic one, and group.consumer.migration.policy does not let it change.",
        );
    }
    if group.protocol_type() != Some(CONSUMER) {
        return refused("The group is a classic one whose members are no consumers.");
    }
    if group.members().count() > config.max_size {
        return refused("The group is a classic one with more members than group.consumer.max.size.");
    }
    Ok(())
}

/// The classic group that a group of the consumer protocol becomes, and the records that make it one. Its generation is
/// the group's epoch, or that of the `older` classic group if it was higher when nobody was in that any more.
pub(super) fn downgrade(older: &Group, consumer: &ConsumerGroup, env: &Env, now: Now) -> (Group, Vec<Entry>) {
    let (topics, id) = (env.topics(), older.id.as_str());
    let mut group = Group::new(id, now.wall_ms);
    group.protocol_type = Some(CONSUMER.to_owned());
    group.generation = consumer.epoch().max(older.generation);
    group.state = GroupState::Stable;
    let bare = consumer.classic_members(topics.as_ref(), |_| Bytes::new());
    for (id, member, _) in bare {
        let classic = member.classic.unwrap_or_default();
        let member = Member {
            id: id.clone(),
            instance_id: member.instance_id,
            client_id: member.client_id,
            client_host: member.client_host,
            session_timeout_ms: classic.session_timeout_ms,
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            protocols: classic.protocols,
            assignment: Bytes::new(),
            joining: None,
            syncing: None,
            owes_sync: false,
            is_new: false,
            expires_at: now.mono_ms + i64::from(classic.session_timeout_ms),
        };
        group.members.insert(id, member);
    }
    group.protocol = group.elect_protocol();
    let protocol = group.protocol.clone().unwrap_or_default();
    let metadata = |classic: &ClassicMember| {
        let offered = classic.protocols.iter().find(|(name, _)| *name == protocol);
        offered.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    };
    for (id, _, assignment) in consumer.classic_members(topics.as_ref(), metadata) {
        if let Some(member) = group.members.get_mut(&id) {
            member.assignment = assignment;
        }
    }
    let mut records = tombstones(id, consumer);
    let key = Key::Group { group: id.to_owned() };
    records.push((key.encode(), Some(group.value().encode())));
    (group, records)
}

impl Group {
    /// Gives the group's members to one of the consumer protocol: it is empty from now on. Who waits has to join again.
    pub(super) fn hand_over(&mut self, out: &mut Vec<Effect>) {
        let error = GroupError::RebalanceInProgress;
        for (_, member) in std::mem::take(&mut self.members) {
            if let Some(token) = member.joining {
                let reply = JoinReply::refused(error, member.id);
                out.push(Effect::Joined { token, reply });
            }
            if let Some(token) = member.syncing {
                let reply = Err(error);
                out.push(Effect::Synced { token, reply });
            }
        }
        for (_, after) in std::mem::take(&mut self.stores) {
            if let AfterStore::Answer { token, reply } = after {
                let reply = JoinReply::refused(error, reply.member_id);
                out.push(Effect::Joined { token, reply });
            }
        }
        self.pending.clear();
        self.gathering = None;
        self.sync_deadline = None;
        self.leader = None;
        self.protocol = None;
        self.state = GroupState::Empty;
    }

    /// Takes the members of `group` over from the consumer protocol, and has them join again.
    pub(super) fn take_over(&mut self, group: Self, config: &GroupConfig, now: Now, out: &mut Vec<Effect>) {
        self.state = group.state;
        self.protocol_type = group.protocol_type;
        self.protocol = group.protocol;
        self.generation = group.generation;
        self.leader = group.leader;
        self.members = group.members;
        self.prepare_rebalance(config, now.mono_ms, now.wall_ms, out);
    }
}
