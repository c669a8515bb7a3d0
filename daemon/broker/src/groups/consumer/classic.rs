//! Members of the classic protocol in a consumer group: what becomes of a classic group when the first member of the
//! consumer protocol joins it, and how JoinGroup, SyncGroup, Heartbeat and LeaveGroup are served from then on.
//!
//! Such a member joins again whenever it has a step to make, and is answered at once: its generation is its epoch, its
//! assignment what it holds. Nobody leads; the coordinator assigns for everyone.

use std::collections::BTreeSet;

use bytes::Bytes;
use tradewind_wire::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicPartition, Versioned,
};
use tradewind_wire::messages::Message;

use super::super::error::GroupError;
use super::super::group::{Group, GroupState};
use super::super::join::{Join, JoinReply};
use super::super::sync::{Sync, SyncReply};
use super::group::{ConsumerConfig, ConsumerGroup};
use super::records::{
    ClassicMember, Current, GroupEpoch, Held, MemberMetadata, MemberState, Partitions, Record, TargetEpoch,
};
use super::subscription::Topics;

/// The protocol type of groups of consumers.
pub(in super::super) const CONSUMER: &str = "consumer";

impl ConsumerGroup {
    /// The group that a classic group becomes: each member at the group's generation, with what it was assigned, as if
    /// that were its target. [`GroupError::GroupNotFound`] if a member's metadata or assignment is not that of a consumer.
    pub fn of_classic(
        group: &Group,
        config: &ConsumerConfig,
        topics: &dyn Topics,
        now: i64,
    ) -> Result<Self, GroupError> {
        let epoch = group.generation();
        let protocol = group.protocol().unwrap_or_default();
        let mut taken = BTreeSet::new();
        let mut seats = Vec::new();
        for member in group.members() {
            let offered = member.protocols.iter().find(|(name, _)| name == protocol);
            let (_, metadata) = offered
                .or_else(|| member.protocols.first())
                .ok_or(GroupError::GroupNotFound)?;
            let subscription = subscription(metadata).ok_or(GroupError::GroupNotFound)?;
            // An assignment that nobody has yet, or that a rebalance has dropped, says nothing: the member does.
            let said = match group.state() {
                GroupState::CompletingRebalance => true,
                GroupState::Stable => false,
                _ => member.assignment.is_empty(),
            };
            let named = if said {
                subscription.owned_partitions
            } else if member.assignment.is_empty() {
                Vec::new()
            } else {
                let assignment = ConsumerProtocolAssignment::from_bytes(member.assignment.clone());
                assignment
                    .map_err(|_| GroupError::GroupNotFound)?
                    .assigned_partitions
            };
            let mut holds = partitions(&named, topics);
            for (topic, partitions) in &mut holds {
                // A leader may have given a partition to two: the first has it.
                partitions.retain(|partition| taken.insert((*topic, *partition)));
            }
            holds.retain(|_, partitions| !partitions.is_empty());
            let metadata = MemberMetadata {
                instance_id: member.instance_id.clone(),
                rack_id: subscription.rack_id.map(|rack| rack.to_string()),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                topics: names(&subscription.topics),
                regex: None,
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                assignor: None,
                classic: Some(ClassicMember {
                    session_timeout_ms: member.session_timeout_ms,
                    protocols: member.protocols.clone(),
                }),
            };
            seats.push((member.id.clone(), metadata, holds));
        }
        let mut converted = Self::new();
        for (id, metadata, _) in &seats {
            converted.write(Record::Member(id.clone(), Some(metadata.clone())));
        }
        let topics_hash = converted.hash_of_subscriptions(topics);
        converted.write(Record::Group(Some(GroupEpoch { epoch, topics_hash })));
        for (id, _, holds) in &seats {
            converted.write(Record::Target(id.clone(), Some(holds.clone())));
        }
        let computed_ms = 0;
        converted.write(Record::TargetEpoch(Some(TargetEpoch { epoch, computed_ms })));
        for (id, _, holds) in seats {
            let since = |partitions: BTreeSet<i32>| partitions.into_iter().map(|number| (number, epoch));
            let assigned = holds.into_iter();
            let current = Current {
                epoch,
                previous_epoch: epoch,
                state: MemberState::Stable,
                assigned: assigned
                    .map(|(topic, all)| (topic, since(all).collect()))
                    .collect(),
                revoking: Held::new(),
            };
            converted.write(Record::Current(id.clone(), Some(current)));
            converted.touch(config, &id, now);
        }
        Ok(converted)
    }

    /// Whether a member speaks the classic protocol.
    pub(super) fn is_classic(&self, id: &str) -> bool {
        self.members
            .get(id)
            .is_some_and(|member| member.classic.is_some())
    }

    /// Whether only members of the classic protocol are left, so that the group shall be a classic one.
    pub fn falls_back(&self, config: &ConsumerConfig) -> bool {
        config.migration.downgrade
            && !self.members.is_empty()
            && self.members.len() <= config.classic_max_size
            && self.members.values().all(|member| member.classic.is_some())
    }

    /// The members of the classic protocol, each with its protocols and the assignment that is its target, written for
    /// `protocol`.
    pub fn classic_members(
        &self,
        topics: &dyn Topics,
        protocol: impl Fn(&ClassicMember) -> Bytes,
    ) -> Vec<(String, MemberMetadata, Bytes)> {
        let members = self.members.iter().filter_map(|(id, member)| {
            let metadata = protocol(member.classic.as_ref()?);
            let target = self.target(id);
            let assignment = assignment(
                target.iter().map(|(topic, all)| (topic, all.iter())),
                &metadata,
                topics,
            );
            Some((id.clone(), member.clone(), assignment))
        });
        members.collect()
    }

    /// Whether a JoinGroup may be let in, and its subscription.
    fn check_join(
        &self,
        config: &ConsumerConfig,
        join: &Join,
    ) -> Result<ConsumerProtocolSubscription, GroupError> {
        let known = self.members.contains_key(&join.member_id);
        if self.members.len() >= config.max_size && !known {
            return Err(GroupError::GroupFull);
        }
        let everyones = |name: &String| {
            let mut others = self.members.values().filter_map(|member| member.classic.as_ref());
            others.all(|other| other.protocols.iter().any(|(offered, _)| offered == name))
        };
        let shared = join.protocols.iter().any(|(name, _)| everyones(name));
        if join.protocol_type != CONSUMER || !shared {
            return Err(GroupError::InconsistentProtocol);
        }
        let first = join.protocols.first();
        first
            .and_then(|(_, metadata)| subscription(metadata))
            .ok_or(GroupError::InconsistentProtocol)
    }

    /// The member whose place the one that joins takes, if that is the last of the consumer protocol and the group shall
    /// be a classic one without it.
    pub fn gives_way(&self, config: &ConsumerConfig, join: &Join) -> Result<Option<String>, GroupError> {
        let instance = join.instance_id.as_deref().filter(|_| join.member_id.is_empty());
        let Some(existing) = instance.and_then(|instance| self.static_member(instance)) else {
            return Ok(None);
        };
        let others = self.members.keys().filter(|id| *id != existing);
        let last = !self.is_classic(existing) && others.into_iter().all(|id| self.is_classic(id));
        if !last || !config.migration.downgrade || self.members.len() > config.classic_max_size {
            return Ok(None);
        }
        self.check_join(config, join)?;
        Ok(Some(existing.clone()))
    }

    /// Lets the last member of the consumer protocol go.
    pub fn give_way(&mut self, config: &ConsumerConfig, id: &str, topics: &dyn Topics) {
        self.drop_members(config, [id].into_iter(), topics);
    }

    /// JoinGroup: a member of the classic protocol comes, or comes again, and makes its next step. What that changes is in
    /// [`ConsumerGroup::unwritten`]; nothing is if it is refused.
    pub fn join_classic(
        &mut self,
        config: &ConsumerConfig,
        topics: &dyn Topics,
        join: &Join,
        now: i64,
        wall_ms: i64,
    ) -> Result<JoinReply, GroupError> {
        let subscription = self.check_join(config, join)?;
        let is_new = join.member_id.is_empty();
        let id = if is_new { &join.fresh_id } else { &join.member_id };
        if is_new && join.two_step && join.instance_id.is_none() {
            return Err(GroupError::MemberIdRequired);
        }
        let existing = join
            .instance_id
            .as_deref()
            .and_then(|instance| self.static_member(instance))
            .cloned();
        match existing {
            Some(existing) if is_new => self.replace(&existing, id),
            Some(existing) if existing != *id => return Err(GroupError::FencedInstance),
            None if !is_new && join.instance_id.is_some() => return Err(GroupError::UnknownMember),
            _ if self.members.contains_key(id) && !self.is_classic(id) => {
                return Err(GroupError::UnknownMember);
            }
            _ => {}
        }
        let mut member = self.members.get(id).cloned().unwrap_or_default();
        if join.instance_id.is_some() {
            member.instance_id.clone_from(&join.instance_id);
        }
        if let Some(rack) = &subscription.rack_id {
            member.rack_id = Some(rack.to_string());
        }
        member.client_id.clone_from(&join.client_id);
        member.client_host.clone_from(&join.client_host);
        member.topics = names(&subscription.topics);
        member.regex = None;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.classic = Some(ClassicMember {
            session_timeout_ms: join.session_timeout_ms,
            protocols: join.protocols.clone(),
        });
        let bump = self.write_member(id, member);
        self.refresh(bump, topics, wall_ms);
        if self.epoch > self.target_epoch {
            self.retarget(topics, wall_ms);
        }
        let owned = partitions(&subscription.owned_partitions, topics);
        self.reconcile(id, Some(&owned));
        self.joins.remove(id);
        self.revocations.remove(id);
        self.touch(config, id, now);
        let deadline = now + i64::from(join.rebalance_timeout_ms);
        self.syncs.insert(id.clone(), deadline);
        Ok(JoinReply {
            error: None,
            generation: self.current(id).epoch,
            protocol_type: Some(CONSUMER.to_owned()),
            protocol: join.protocols.first().map(|(name, _)| name.clone()),
            leader: String::new(),
            skip_assignment: false,
            member_id: id.clone(),
            members: Vec::new(),
        })
    }

    /// SyncGroup: a member that has joined asks for what it holds.
    pub fn sync_classic(
        &mut self,
        config: &ConsumerConfig,
        topics: &dyn Topics,
        sync: &Sync,
        now: i64,
    ) -> Result<SyncReply, GroupError> {
        let id = &sync.member_id;
        let (member, classic) = self.check_classic(id, sync.instance_id.as_deref())?;
        let rebalance_timeout_ms = member.rebalance_timeout_ms;
        let current = self.current(id);
        if sync.generation != current.epoch {
            return Err(GroupError::IllegalGeneration);
        }
        let first = classic.protocols.first();
        let (protocol, metadata) = first.cloned().unwrap_or_default();
        if sync.protocol_type.as_deref().is_some_and(|kind| kind != CONSUMER)
            || sync.protocol.as_ref().is_some_and(|name| *name != protocol)
        {
            return Err(GroupError::InconsistentProtocol);
        }
        // Who has to give something up first hears of it here.
        if self.epoch > current.epoch && current.state != MemberState::Unrevoked {
            self.await_join(id, rebalance_timeout_ms, now);
            return Err(GroupError::RebalanceInProgress);
        }
        self.syncs.remove(id);
        self.touch(config, id, now);
        let held = current.assigned.iter().map(|(topic, all)| (topic, all.keys()));
        Ok(SyncReply {
            protocol_type: Some(CONSUMER.to_owned()),
            protocol: Some(protocol),
            assignment: assignment(held, &metadata, topics),
        })
    }

    /// Heartbeat: a member lives. [`GroupError::RebalanceInProgress`] if it has to join again: because of a new epoch, to
    /// say that it has given something up, or to take what has become free.
    pub fn heartbeat_classic(
        &mut self,
        config: &ConsumerConfig,
        topics: &dyn Topics,
        member: (&str, Option<&str>, i32),
        now: i64,
        wall_ms: i64,
    ) -> Result<(), GroupError> {
        let (id, instance, generation) = member;
        let (member, _) = self.check_classic(id, instance)?;
        let rebalance_timeout_ms = member.rebalance_timeout_ms;
        let current = self.current(id);
        if generation != current.epoch {
            return Err(GroupError::IllegalGeneration);
        }
        self.refresh(false, topics, wall_ms);
        self.touch(config, id, now);
        let joins = match current.state {
            _ if current.epoch < self.epoch => true,
            MemberState::Unrevoked => true,
            MemberState::Unreleased => !self.waits(id, &current),
            MemberState::Stable | MemberState::Unknown => false,
        };
        if !joins {
            return Ok(());
        }
        self.await_join(id, rebalance_timeout_ms, now);
        Err(GroupError::RebalanceInProgress)
    }

    /// LeaveGroup: members go, by their ids or by their instance ids; one outcome per member.
    pub fn leave_classic(
        &mut self,
        config: &ConsumerConfig,
        topics: &dyn Topics,
        members: &[(String, Option<String>)],
    ) -> Vec<Result<(), GroupError>> {
        let mut gone = BTreeSet::new();
        let mut outcomes = Vec::with_capacity(members.len());
        for (id, instance) in members {
            let of_instance = instance
                .as_deref()
                .and_then(|instance| self.static_member(instance));
            let id = match of_instance {
                Some(existing) if id.is_empty() => existing,
                _ => id,
            };
            let checked = self.check_classic(id, instance.as_deref()).map(drop);
            if checked.is_ok() {
                gone.insert(id.clone());
            }
            outcomes.push(checked);
        }
        if !gone.is_empty() {
            self.drop_members(config, gone.iter().map(String::as_str), topics);
        }
        outcomes
    }

    fn check_classic(
        &self,
        id: &str,
        instance: Option<&str>,
    ) -> Result<(&MemberMetadata, &ClassicMember), GroupError> {
        if let Some(instance) = instance {
            let existing = self.static_member(instance).ok_or(GroupError::UnknownMember)?;
            if existing != id {
                return Err(GroupError::FencedInstance);
            }
        }
        let member = self.members.get(id).ok_or(GroupError::UnknownMember)?;
        let classic = member.classic.as_ref().ok_or(GroupError::UnknownMember)?;
        Ok((member, classic))
    }

    /// From the first time that a member is told to join again it has its rebalance timeout for it.
    fn await_join(&mut self, id: &str, rebalance_timeout_ms: i32, now: i64) {
        let deadline = now + i64::from(rebalance_timeout_ms);
        self.joins.entry(id.to_owned()).or_insert(deadline);
    }

    /// Whether something that the member shall hold is still with others.
    fn waits(&self, id: &str, current: &Current) -> bool {
        self.target(id).iter().any(|(topic, partitions)| {
            let held = current.assigned.get(topic);
            let mut missing = partitions
                .iter()
                .filter(|partition| held.is_none_or(|held| !held.contains_key(partition)));
            missing.any(|partition| self.is_taken(*topic, *partition))
        })
    }
}

fn subscription(metadata: &Bytes) -> Option<ConsumerProtocolSubscription> {
    ConsumerProtocolSubscription::from_bytes(metadata.clone()).ok()
}

fn names(topics: &[tradewind_wire::codec::Str]) -> BTreeSet<String> {
    topics.iter().map(|name| name.to_string()).collect()
}

/// Partitions that a client names; those of topics that do not exist are left out.
fn partitions(named: &[TopicPartition], topics: &dyn Topics) -> Partitions {
    let mut all = Partitions::new();
    for topic in named {
        if let Some((id, _)) = topics.topic(&topic.topic) {
            all.entry(id).or_default().extend(&topic.partitions);
        }
    }
    all
}

/// Partitions as a client reads them that sent `metadata`: in that version. Topics that are no more have no name.
fn assignment<'a>(
    held: impl Iterator<Item = (&'a tradewind_wire::ids::TopicId, impl Iterator<Item = &'a i32>)>,
    metadata: &Bytes,
    topics: &dyn Topics,
) -> Bytes {
    let named = held.filter_map(|(id, partitions)| {
        Some(TopicPartition {
            topic: topics.name(*id)?.into(),
            partitions: partitions.copied().collect(),
        })
    });
    let assignment = ConsumerProtocolAssignment {
        assigned_partitions: named.collect(),
        user_data: None,
    };
    let version = metadata
        .first_chunk()
        .map_or(0, |version| i16::from_be_bytes(*version));
    let (least, most) = ConsumerProtocolAssignment::VERSIONS;
    // Names and numbers always fit: both come from a topic that exists.
    assignment
        .to_bytes(version.clamp(least, most))
        .unwrap_or_default()
}
