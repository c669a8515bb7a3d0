//! ConsumerGroupHeartbeat: how members join, stay, leave, and learn what to hold.

use std::collections::{BTreeMap, BTreeSet};

use tradewind_wire::ids::TopicId;

use super::super::error::GroupError;
use super::assign::{Assignor, Reader};
use super::group::{ConsumerConfig, ConsumerGroup};
use super::reconcile::Goal;
use super::records::{Current, GroupEpoch, Held, MemberMetadata, Partitions, Record, Resolved, TargetEpoch};
use super::subscription::{Topics, compile, resolve};

/// The epoch of a member that leaves.
pub(super) const LEAVE: i32 = -1;
/// The epoch of a static member that leaves and will be back.
pub(super) const LEAVE_FOR_A_WHILE: i32 = -2;

/// A ConsumerGroupHeartbeat request. What is `None` has not changed.
#[derive(Debug, Clone, Default)]
pub struct Heartbeat {
    /// The member's id.
    pub member_id: String,
    /// Its epoch: 0 to join, -1 to leave, -2 to leave for a while as a static member.
    pub epoch: i32,
    /// Its static instance id.
    pub instance_id: Option<String>,
    /// Its rack.
    pub rack_id: Option<String>,
    /// How long it may take to give partitions up.
    pub rebalance_timeout_ms: Option<i32>,
    /// The client id of the connection.
    pub client_id: String,
    /// The address of the connection.
    pub client_host: String,
    /// The topics that it reads by name.
    pub topics: Option<BTreeSet<String>>,
    /// The regular expression of topics that it reads; an empty one for none.
    pub regex: Option<String>,
    /// The assignor that it would like.
    pub assignor: Option<String>,
    /// What it holds.
    pub owned: Option<Partitions>,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// The member's id.
    pub member_id: String,
    /// Its epoch from now on.
    pub epoch: i32,
    /// When the next heartbeat is due.
    pub heartbeat_interval_ms: i32,
    /// What it shall hold, if that changed or it asked for everything.
    pub assignment: Option<Partitions>,
}

/// Why a heartbeat is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub error: GroupError,
    /// The reason for people.
    pub message: String,
}

impl Refusal {
    pub(in super::super) fn new(error: GroupError, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { error, message }
    }
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Self {
        Self::new(error, error.to_string())
    }
}

impl Heartbeat {
    /// Whether the request makes sense by itself.
    pub fn check(&self) -> Result<(), Refusal> {
        let invalid = |message: &str| Err(Refusal::new(GroupError::InvalidRequest, message));
        let empty = |text: &Option<String>| text.as_deref() == Some("");
        if self.member_id.is_empty() {
            return invalid("MemberId can't be empty.");
        }
        if empty(&self.instance_id) {
            return invalid("InstanceId can't be empty.");
        }
        if empty(&self.rack_id) {
            return invalid("RackId can't be empty.");
        }
        match self.epoch {
            0 if self.rebalance_timeout_ms.is_none() => {
                return invalid("RebalanceTimeoutMs must be provided in first request.");
            }
            0 if self.owned.as_ref().is_none_or(|owned| !owned.is_empty()) => {
                return invalid("TopicPartitions must be empty when (re-)joining.");
            }
            0 if self.topics.is_none() && self.regex.is_none() => {
                return invalid(
                    "Either SubscribedTopicNames or SubscribedTopicRegex must be set when (re-)joining.",
                );
            }
            LEAVE_FOR_A_WHILE if self.instance_id.is_none() => {
                return invalid("InstanceId can't be null.");
            }
            epoch if epoch < LEAVE_FOR_A_WHILE => return invalid("MemberEpoch is invalid."),
            _ => {}
        }
        if let Some(name) = &self.assignor
            && Assignor::from_name(name).is_none()
        {
            let known: Vec<&str> = Assignor::ALL.iter().map(|assignor| assignor.name()).collect();
            let message = format!("There is no assignor {name}; there are {}.", known.join(", "));
            return Err(Refusal::new(GroupError::UnsupportedAssignor, message));
        }
        if let Some(regex) = self.regex.as_deref().filter(|regex| !regex.is_empty())
            && let Err(error) = compile(regex)
        {
            let message = format!("The regular expression {regex} is not valid: {error}.");
            return Err(Refusal::new(GroupError::InvalidRegex, message));
        }
        Ok(())
    }
}

impl ConsumerGroup {
    /// A member is heard from. What it changes is in [`ConsumerGroup::unwritten`]; nothing is if it is refused.
    pub fn heartbeat(
        &mut self,
        config: &ConsumerConfig,
        topics: &dyn Topics,
        request: Heartbeat,
        now: i64,
        wall_ms: i64,
    ) -> Result<HeartbeatReply, Refusal> {
        request.check()?;
        if matches!(request.epoch, LEAVE | LEAVE_FOR_A_WHILE) {
            return self.leave(config, topics, &request);
        }
        let id = request.member_id.clone();
        if self.members.len() >= config.max_size && !self.members.contains_key(&id) {
            return Err(GroupError::GroupFull.into());
        }
        let replaced = self.admit(&request)?;
        let held_before = held(&self.current(&id));
        if let Some(old) = &replaced {
            self.replace(old, &id);
        }
        let bump = self.update(&request);
        self.refresh(bump, topics, wall_ms);
        if self.epoch > self.target_epoch {
            self.retarget(topics, wall_ms);
        }
        self.reconcile(&id, request.owned.as_ref());
        self.touch(config, &id, now);
        self.time_revocation(&id, now);
        let current = self.current(&id);
        let held_now = held(&current);
        let full = request.epoch == 0
            || request.rebalance_timeout_ms.is_some()
                && (request.topics.is_some() || request.regex.is_some())
                && request.owned.is_some();
        Ok(HeartbeatReply {
            member_id: id,
            epoch: current.epoch,
            heartbeat_interval_ms: config.heartbeat_interval_ms,
            assignment: (full || held_now != held_before).then_some(held_now),
        })
    }

    /// Whether the member may speak. Returns the member id whose place it takes as the same static instance.
    fn admit(&self, request: &Heartbeat) -> Result<Option<String>, Refusal> {
        let id = &request.member_id;
        let joins = request.epoch == 0;
        let Some(instance) = &request.instance_id else {
            return match self.members.contains_key(id) {
                true => self.check_epoch(id, request).map(|()| None),
                false if joins => Ok(None),
                false => Err(self.unknown(id)),
            };
        };
        let Some(existing) = self.static_member(instance) else {
            return match joins {
                true => Ok(None),
                false => Err(Refusal::new(
                    GroupError::UnknownMember,
                    format!("Instance id {instance} is unknown."),
                )),
            };
        };
        if joins {
            // One of the classic protocol never says that it will be back.
            if self.current(existing).epoch != LEAVE_FOR_A_WHILE && !self.is_classic(existing) {
                let message = format!(
                    "Static member {id} with instance id {instance} cannot join, because member {existing} has that id."
                );
                return Err(Refusal::new(GroupError::UnreleasedInstance, message));
            }
            return Ok(Some(existing.clone()));
        }
        self.check_instance(existing, id, instance)?;
        self.check_epoch(id, request).map(|()| None)
    }

    fn unknown(&self, id: &str) -> Refusal {
        Refusal::new(
            GroupError::UnknownMember,
            format!("Member {id} is not a member of the group."),
        )
    }

    fn check_instance(&self, existing: &str, id: &str, instance: &str) -> Result<(), Refusal> {
        if existing == id {
            return Ok(());
        }
        let message =
            format!("Static member {id} with instance id {instance} was fenced by member {existing}.");
        Err(Refusal::new(GroupError::FencedInstance, message))
    }

    /// A member of the classic protocol may go over to this one only by joining.
    fn check_protocol(&self, id: &str, request: &Heartbeat) -> Result<(), Refusal> {
        match request.epoch != 0 && self.is_classic(id) {
            true => Err(Refusal::new(
                GroupError::UnknownMember,
                format!("Member {id} speaks the classic protocol."),
            )),
            false => Ok(()),
        }
    }

    /// A member comes with its epoch, or with the one before if the answer that gave it the new one was lost: then it
    /// holds nothing that it should not. Who joins again is always taken in.
    fn check_epoch(&self, id: &str, request: &Heartbeat) -> Result<(), Refusal> {
        self.check_protocol(id, request)?;
        let current = self.current(id);
        if request.epoch == 0 || request.epoch == current.epoch {
            return Ok(());
        }
        let holds = |topic: &TopicId, partition: &i32| {
            let all = current.assigned.get(topic);
            all.is_some_and(|all| all.contains_key(partition))
        };
        let mut owned = request.owned.iter().flatten();
        let subset = owned.all(|(topic, all)| all.iter().all(|partition| holds(topic, partition)));
        let lost = request.epoch == current.previous_epoch && request.owned.is_some() && subset;
        if request.epoch < current.epoch && lost {
            return Ok(());
        }
        Err(Self::fenced(request.epoch, current.epoch))
    }

    /// A static instance comes back under another member id, in its own place.
    pub(super) fn replace(&mut self, old: &str, new: &str) {
        let (Some(metadata), target) = (self.members.get(old).cloned(), self.target(old)) else {
            return;
        };
        let current = Current {
            epoch: 0,
            previous_epoch: 0,
            ..self.current(old)
        };
        self.write_out(old);
        self.write(Record::Member(new.to_owned(), Some(metadata)));
        self.write(Record::Target(new.to_owned(), Some(target)));
        self.write(Record::Current(new.to_owned(), Some(current)));
    }

    /// Takes over what the member says of itself. Returns whether its subscription is another now.
    fn update(&mut self, request: &Heartbeat) -> bool {
        let before = self.members.get(&request.member_id);
        let mut member = before.cloned().unwrap_or_default();
        let keep = |new: &Option<String>, old: &mut Option<String>| {
            if new.is_some() {
                old.clone_from(new);
            }
        };
        keep(&request.instance_id, &mut member.instance_id);
        keep(&request.rack_id, &mut member.rack_id);
        keep(&request.regex, &mut member.regex);
        keep(&request.assignor, &mut member.assignor);
        member.client_id.clone_from(&request.client_id);
        member.client_host.clone_from(&request.client_host);
        if let Some(timeout) = request.rebalance_timeout_ms {
            member.rebalance_timeout_ms = timeout;
        }
        if let Some(topics) = &request.topics {
            member.topics.clone_from(topics);
        }
        member.classic = None;
        self.joins.remove(&request.member_id);
        self.syncs.remove(&request.member_id);
        self.write_member(&request.member_id, member)
    }

    /// Writes what a member says of itself, if that is new. Returns whether its subscription is another now.
    pub(super) fn write_member(&mut self, id: &str, member: MemberMetadata) -> bool {
        let before = self.members.get(id);
        if before == Some(&member) {
            return false;
        }
        let subscribes =
            |member: &MemberMetadata| (member.topics.clone(), member.effective_regex().map(str::to_owned));
        let changed = before.is_none_or(|before| subscribes(before) != subscribes(&member));
        self.write(Record::Member(id.to_owned(), Some(member)));
        changed
    }

    /// Holds the subscriptions against the topics that there are, if either may have changed; a difference begins a new
    /// epoch.
    pub(super) fn refresh(&mut self, mut bump: bool, topics: &dyn Topics, wall_ms: i64) {
        let stale = self.checked != Some(topics.version());
        if !bump && !stale {
            return;
        }
        self.drop_unused_regexes();
        let used: BTreeSet<String> = self
            .members
            .values()
            .filter_map(|member| member.effective_regex().map(str::to_owned))
            .collect();
        for regex in used {
            let known = self.regexes.get(&regex);
            if known.is_some() && !stale {
                continue;
            }
            let matched = resolve(&regex, topics);
            if known.is_some_and(|known| known.topics == matched) {
                continue;
            }
            // Even if the topics as a whole stay: this member's are others.
            bump = true;
            let resolved = Resolved {
                topics: matched,
                version: topics.version().cast_signed(),
                resolved_ms: wall_ms,
            };
            self.write(Record::Regex(regex, Some(resolved)));
        }
        self.checked = Some(topics.version());
        let topics_hash = self.hash_of_subscriptions(topics);
        if bump || topics_hash != self.topics_hash {
            let epoch = self.epoch.wrapping_add(1);
            self.write(Record::Group(Some(GroupEpoch { epoch, topics_hash })));
        }
    }

    /// Computes the target assignment of the group's epoch.
    pub(super) fn retarget(&mut self, topics: &dyn Topics, wall_ms: i64) {
        let mut counts = BTreeMap::new();
        let mut readers = BTreeMap::new();
        for (id, member) in &self.members {
            let existing: Vec<(TopicId, i32)> = self
                .topics_of(member)
                .filter_map(|name| topics.topic(name))
                .collect();
            let reader = Reader {
                instance_id: member.instance_id.as_deref(),
                topics: existing.iter().map(|(id, _)| *id).collect(),
                target: self.targets.get(id),
            };
            counts.extend(existing);
            readers.insert(id.as_str(), reader);
        }
        for (id, target) in self.assignor().assign(&readers, &counts) {
            if self.targets.get(&id) != Some(&target) {
                self.write(Record::Target(id, Some(target)));
            }
        }
        let epoch = TargetEpoch {
            epoch: self.epoch,
            computed_ms: wall_ms,
        };
        self.write(Record::TargetEpoch(Some(epoch)));
    }

    /// Takes the member a step towards its target.
    pub(super) fn reconcile(&mut self, id: &str, owned: Option<&Partitions>) {
        let before = self.currents.get(id);
        let goal = Goal {
            epoch: self.target_epoch,
            target: &self.target(id),
            owned,
            taken: &|topic, partition| self.is_taken(topic, partition),
        };
        let current = goal.step(&before.cloned().unwrap_or_default());
        if before != Some(&current) {
            self.write(Record::Current(id.to_owned(), Some(current)));
        }
    }

    fn leave(
        &mut self,
        config: &ConsumerConfig,
        topics: &dyn Topics,
        request: &Heartbeat,
    ) -> Result<HeartbeatReply, Refusal> {
        let id = &request.member_id;
        if let Some(instance) = &request.instance_id {
            let unknown = || {
                let message = format!("Instance id {instance} is unknown.");
                Refusal::new(GroupError::UnknownMember, message)
            };
            let existing = self.static_member(instance).ok_or_else(unknown)?;
            self.check_instance(existing, id, instance)?;
        } else if !self.members.contains_key(id) {
            return Err(self.unknown(id));
        }
        self.check_protocol(id, request)?;
        if request.epoch == LEAVE_FOR_A_WHILE {
            let left = Current {
                epoch: LEAVE_FOR_A_WHILE,
                revoking: Held::new(),
                ..self.current(id)
            };
            self.write(Record::Current(id.clone(), Some(left)));
            self.revocations.remove(id);
        } else {
            self.drop_members(config, [id.as_str()].into_iter(), topics);
        }
        Ok(HeartbeatReply {
            member_id: id.clone(),
            epoch: request.epoch,
            heartbeat_interval_ms: 0,
            assignment: None,
        })
    }
}

/// What a member holds, without since when.
fn held(current: &Current) -> Partitions {
    let partitions =
        |(topic, partitions): (&TopicId, &BTreeMap<i32, i32>)| (*topic, partitions.keys().copied().collect());
    current.assigned.iter().map(partitions).collect()
}
