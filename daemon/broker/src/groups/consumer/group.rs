//! The state of a consumer group, and how records change it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tradewind_wire::ids::TopicId;

use super::super::error::GroupError;
use super::assign::Assignor;
use super::heartbeat::{LEAVE_FOR_A_WHILE, Refusal};
use super::records::{
    Current, GroupEpoch, Held, MemberMetadata, MemberState, Partitions, Record, Resolved, TargetEpoch,
};
use super::subscription::{self, Topics};

/// Limits and times that hold for every consumer group of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// `group.consumer.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: i32,
    /// `group.consumer.session.timeout.ms`.
    pub session_timeout_ms: i64,
    /// `group.consumer.max.size`.
    pub max_size: usize,
    /// `group.consumer.migration.policy`.
    pub migration: Migration,
    /// `group.max.size`: how many members a group may have that goes over to the classic protocol. The coordinator sets it.
    pub classic_max_size: usize,
}

/// Which way groups with members may change their protocol (`group.consumer.migration.policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// From the classic protocol to the consumer protocol, when a first member comes that speaks it.
    pub upgrade: bool,
    /// Back, when the last such member goes.
    pub downgrade: bool,
}

impl Migration {
    /// Both ways: `bidirectional`.
    pub const BOTH: Self = Self {
        upgrade: true,
        downgrade: true,
    };

    /// The name that the setting has for it.
    pub fn name(self) -> &'static str {
        match (self.upgrade, self.downgrade) {
            (true, true) => "bidirectional",
            (true, false) => "upgrade",
            (false, true) => "downgrade",
            (false, false) => "disabled",
        }
    }
}

impl std::str::FromStr for Migration {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let name = text.to_ascii_lowercase();
        let (upgrade, downgrade) = match name.as_str() {
            "bidirectional" => (true, true),
            "upgrade" => (true, false),
            "downgrade" => (false, true),
            "disabled" => (false, false),
            _ => return Err(()),
        };
        Ok(Self { upgrade, downgrade })
    }
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            heartbeat_interval_ms: 5_000,
            session_timeout_ms: 45_000,
            max_size: i32::MAX as usize,
            migration: Migration::BOTH,
            classic_max_size: i32::MAX as usize,
        }
    }
}

impl ConsumerConfig {
    /// What holds for `group`, which may have settings of its own.
    pub fn of_group(&self, group: &str, topics: &dyn Topics) -> Self {
        let own = |key: &str| topics.group_config(group, key)?.trim().parse::<i32>().ok();
        let mut config = self.clone();
        if let Some(interval) = own("consumer.heartbeat.interval.ms") {
            config.heartbeat_interval_ms = interval;
        }
        if let Some(timeout) = own("consumer.session.timeout.ms") {
            config.session_timeout_ms = i64::from(timeout);
        }
        config
    }
}

/// The state of a consumer group, under Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumerState {
    /// No members.
    Empty,
    /// Something changed for which no assignment has been computed yet.
    Assigning,
    /// Some member is not where its assignment wants it.
    Reconciling,
    /// Every member is.
    Stable,
}

impl ConsumerState {
    /// The name that ConsumerGroupDescribe and ListGroups use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// A group of the consumer protocol.
#[derive(Debug, Default)]
pub struct ConsumerGroup {
    pub(super) epoch: i32,
    pub(super) topics_hash: i64,
    pub(super) target_epoch: i32,
    pub(super) members: BTreeMap<String, MemberMetadata>,
    pub(super) currents: HashMap<String, Current>,
    pub(super) targets: HashMap<String, Partitions>,
    pub(super) regexes: BTreeMap<String, Resolved>,
    /// Who holds, or still gives up, each partition.
    owners: HashMap<(TopicId, i32), String>,
    /// Member ids of static instances.
    statics: HashMap<String, String>,
    /// When each member is dropped unless it is heard from; the same in order.
    sessions: HashMap<String, i64>,
    session_order: BTreeSet<(i64, String)>,
    /// Until when a member at this epoch has to have given partitions up.
    pub(super) revocations: BTreeMap<String, (i32, i64)>,
    /// Until when a member of the classic protocol has to have joined again, and to have asked for its assignment.
    pub(super) joins: BTreeMap<String, i64>,
    pub(super) syncs: BTreeMap<String, i64>,
    /// The version of the topics that the group's subscriptions were last held against.
    pub(super) checked: Option<u64>,
    /// What was written and the log does not have yet, with what undoes it.
    written: Vec<(Record, Record)>,
}

impl ConsumerGroup {
    /// A group without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies a record. Returns the record that takes it back.
    pub fn apply(&mut self, record: Record) -> Record {
        match record {
            Record::Group(value) => {
                let before = GroupEpoch {
                    epoch: self.epoch,
                    topics_hash: self.topics_hash,
                };
                self.epoch = value.map_or(0, |value| value.epoch);
                self.topics_hash = value.map_or(0, |value| value.topics_hash);
                Record::Group(Some(before))
            }
            Record::PartitionCounts => Record::PartitionCounts,
            Record::Member(id, value) => {
                let before = match value {
                    Some(value) => {
                        if let Some(instance) = &value.instance_id {
                            self.statics.insert(instance.clone(), id.clone());
                        }
                        self.members.insert(id.clone(), value)
                    }
                    None => self.members.remove(&id),
                };
                if let Some(instance) = before.as_ref().and_then(|before| before.instance_id.as_ref())
                    && self.members.get(&id).and_then(|now| now.instance_id.as_ref()) != Some(instance)
                    && self.statics.get(instance) == Some(&id)
                {
                    self.statics.remove(instance);
                }
                Record::Member(id, before)
            }
            Record::TargetEpoch(value) => {
                let before = TargetEpoch {
                    epoch: self.target_epoch,
                    computed_ms: 0,
                };
                self.target_epoch = value.map_or(0, |value| value.epoch);
                Record::TargetEpoch(Some(before))
            }
            Record::Target(id, value) => {
                let before = replace(&mut self.targets, &id, value);
                Record::Target(id, before)
            }
            Record::Current(id, value) => {
                let before = self.currents.remove(&id);
                for partition in before.iter().flat_map(partitions_of) {
                    if self.owners.get(&partition) == Some(&id) {
                        self.owners.remove(&partition);
                    }
                }
                if let Some(value) = value {
                    for partition in partitions_of(&value) {
                        self.owners.insert(partition, id.clone());
                    }
                    self.currents.insert(id.clone(), value);
                }
                Record::Current(id, before)
            }
            Record::Regex(regex, value) => {
                let before = match value {
                    Some(value) => self.regexes.insert(regex.clone(), value),
                    None => self.regexes.remove(&regex),
                };
                Record::Regex(regex, before)
            }
        }
    }

    /// Applies a record and remembers that the log has to have it.
    pub(super) fn write(&mut self, record: Record) {
        let undo = self.apply(record.clone());
        self.written.push((record, undo));
    }

    /// What the log has to have of `group`, as one batch. To be appended before anything else happens to the group; if
    /// that fails, [`ConsumerGroup::roll_back`] has to follow instead of [`ConsumerGroup::settle`].
    pub fn unwritten(&self) -> impl Iterator<Item = &Record> {
        self.written.iter().map(|(record, _)| record)
    }

    /// The log has what was written.
    pub fn settle(&mut self) {
        self.written.clear();
    }

    /// Takes back what was written. Members get a full session from `now`, since some may have lost theirs.
    pub fn roll_back(&mut self, config: &ConsumerConfig, now: i64) {
        for (_, undo) in std::mem::take(&mut self.written).into_iter().rev() {
            self.apply(undo);
        }
        self.checked = None;
        self.restart_timers(config, now);
    }

    /// Gives every member a full session, and a full rebalance timeout where it has to give something up.
    pub fn restart_timers(&mut self, config: &ConsumerConfig, now: i64) {
        self.sessions.clear();
        self.session_order.clear();
        self.revocations.clear();
        self.joins.clear();
        self.syncs.clear();
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.touch(config, &id, now);
            self.time_revocation(&id, now);
        }
    }

    /// Starts a member's session anew.
    pub(super) fn touch(&mut self, config: &ConsumerConfig, id: &str, now: i64) {
        self.forget_session(id);
        let classic = self.members.get(id).and_then(|member| member.classic.as_ref());
        let timeout = classic.map_or(config.session_timeout_ms, |classic| {
            i64::from(classic.session_timeout_ms)
        });
        let deadline = now + timeout;
        self.sessions.insert(id.to_owned(), deadline);
        self.session_order.insert((deadline, id.to_owned()));
    }

    pub(super) fn forget_session(&mut self, id: &str) {
        if let Some(deadline) = self.sessions.remove(id) {
            self.session_order.remove(&(deadline, id.to_owned()));
        }
    }

    /// Starts or stops the time that a member has for giving partitions up.
    pub(super) fn time_revocation(&mut self, id: &str, now: i64) {
        let current = self.currents.get(id);
        let (Some(current), Some(member)) = (current, self.members.get(id)) else {
            self.revocations.remove(id);
            return;
        };
        if current.state != MemberState::Unrevoked || member.classic.is_some() {
            self.revocations.remove(id);
        } else if self
            .revocations
            .get(id)
            .is_none_or(|(epoch, _)| *epoch != current.epoch)
        {
            let deadline = now + i64::from(member.rebalance_timeout_ms);
            self.revocations.insert(id.to_owned(), (current.epoch, deadline));
        }
    }

    /// The next moment at which [`ConsumerGroup::tick`] has something to do.
    pub fn deadline(&self) -> Option<i64> {
        let session = self.session_order.first().map(|(deadline, _)| *deadline);
        let revocation = self.revocations.values().map(|(_, deadline)| *deadline).min();
        let classic = self.joins.values().chain(self.syncs.values()).copied();
        session.into_iter().chain(revocation).chain(classic).min()
    }

    /// Lets time pass: drops members whose session ended, and those that did not do in time what they have to.
    pub fn tick(&mut self, config: &ConsumerConfig, topics: &dyn Topics, now: i64) {
        let silent = self
            .session_order
            .iter()
            .take_while(|(deadline, _)| *deadline <= now);
        let mut gone: BTreeSet<String> = silent.map(|(_, id)| id.clone()).collect();
        let late = self
            .revocations
            .iter()
            .filter(|(_, (_, deadline))| *deadline <= now);
        gone.extend(late.map(|(id, _)| id.clone()));
        let late = self.joins.iter().chain(&self.syncs);
        gone.extend(
            late.filter(|(_, deadline)| **deadline <= now)
                .map(|(id, _)| id.clone()),
        );
        if !gone.is_empty() {
            self.drop_members(config, gone.iter().map(String::as_str), topics);
        }
    }

    /// Takes members out, with everything about them, and begins a new epoch, unless that is left to the classic protocol.
    pub(super) fn drop_members<'a>(
        &mut self,
        config: &ConsumerConfig,
        ids: impl Iterator<Item = &'a str>,
        topics: &dyn Topics,
    ) {
        for id in ids {
            self.write_out(id);
        }
        self.drop_unused_regexes();
        if self.falls_back(config) {
            return;
        }
        let group = GroupEpoch {
            epoch: self.epoch.wrapping_add(1),
            topics_hash: self.hash_of_subscriptions(topics),
        };
        self.write(Record::Group(Some(group)));
    }

    /// Writes a member out of the group.
    pub(super) fn write_out(&mut self, id: &str) {
        self.write(Record::Current(id.to_owned(), None));
        self.write(Record::Target(id.to_owned(), None));
        self.write(Record::Member(id.to_owned(), None));
        self.forget_session(id);
        self.revocations.remove(id);
        self.joins.remove(id);
        self.syncs.remove(id);
    }

    /// Forgets expressions that no member has any more.
    pub(super) fn drop_unused_regexes(&mut self) {
        let used: BTreeSet<&str> = self
            .members
            .values()
            .filter_map(MemberMetadata::effective_regex)
            .collect();
        let unused = self.regexes.keys().filter(|regex| !used.contains(regex.as_str()));
        for regex in unused.cloned().collect::<Vec<_>>() {
            self.write(Record::Regex(regex, None));
        }
    }

    /// The topics that a member reads, whether or not they exist.
    pub(super) fn topics_of<'a>(&'a self, member: &'a MemberMetadata) -> impl Iterator<Item = &'a str> {
        let resolved = member.effective_regex().and_then(|regex| self.regexes.get(regex));
        let matched = resolved.into_iter().flat_map(|resolved| &resolved.topics);
        member.topics.iter().chain(matched).map(String::as_str)
    }

    /// The topics that the members read, whether or not they exist.
    pub fn subscribed(&self) -> BTreeSet<String> {
        let members = self.members.values();
        members
            .flat_map(|member| self.topics_of(member))
            .map(str::to_owned)
            .collect()
    }

    /// The hash of those of the members' topics that exist.
    pub(super) fn hash_of_subscriptions(&self, topics: &dyn Topics) -> i64 {
        let names: BTreeSet<&str> = self
            .members
            .values()
            .flat_map(|member| self.topics_of(member))
            .collect();
        subscription::hash(names.into_iter(), topics)
    }

    /// The records that remove everything about the group.
    pub fn tombstones(&self) -> Vec<Record> {
        let members: BTreeSet<&String> = self
            .members
            .keys()
            .chain(self.currents.keys())
            .chain(self.targets.keys())
            .collect();
        let of_member = |id: &&String| {
            let id = (*id).clone();
            [
                Record::Current(id.clone(), None),
                Record::Target(id.clone(), None),
                Record::Member(id, None),
            ]
        };
        let regexes = self
            .regexes
            .keys()
            .map(|regex| Record::Regex(regex.clone(), None));
        let last = [
            Record::PartitionCounts,
            Record::TargetEpoch(None),
            Record::Group(None),
        ];
        members
            .iter()
            .flat_map(of_member)
            .chain(regexes)
            .chain(last)
            .collect()
    }

    /// The group's state.
    pub fn state(&self) -> ConsumerState {
        if self.members.is_empty() {
            ConsumerState::Empty
        } else if self.epoch > self.target_epoch {
            ConsumerState::Assigning
        } else if self.members.keys().all(|id| self.is_settled(id)) {
            ConsumerState::Stable
        } else {
            ConsumerState::Reconciling
        }
    }

    fn is_settled(&self, id: &str) -> bool {
        let current = self.currents.get(id);
        current
            .is_some_and(|current| current.state == MemberState::Stable && current.epoch == self.target_epoch)
    }

    /// The group's epoch.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// The epoch of the target assignment.
    pub fn target_epoch(&self) -> i32 {
        self.target_epoch
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The members with their ids, in the order of these.
    pub fn members(&self) -> impl Iterator<Item = (&str, &MemberMetadata)> {
        self.members.iter().map(|(id, member)| (id.as_str(), member))
    }

    /// How far a member is.
    pub fn current(&self, id: &str) -> Current {
        self.currents.get(id).cloned().unwrap_or_default()
    }

    /// What a member shall hold.
    pub fn target(&self, id: &str) -> Partitions {
        self.targets.get(id).cloned().unwrap_or_default()
    }

    /// The member that a static instance is.
    pub(super) fn static_member(&self, instance: &str) -> Option<&String> {
        self.statics.get(instance)
    }

    /// Whether some member has the partition, even if it is giving it up.
    pub(super) fn is_taken(&self, topic: TopicId, partition: i32) -> bool {
        self.owners.contains_key(&(topic, partition))
    }

    /// The assignor that most members ask for; the first of all if none does.
    pub fn assignor(&self) -> Assignor {
        let votes = |assignor: &Assignor| {
            let asked = self
                .members
                .values()
                .filter_map(|member| member.assignor.as_deref());
            asked.filter(|name| *name == assignor.name()).count()
        };
        // The last of several maxima wins, and the first of the list shall.
        Assignor::ALL
            .into_iter()
            .rev()
            .max_by_key(votes)
            .unwrap_or(Assignor::Uniform)
    }

    /// Whether a commit in the name of this member and epoch is in order. An epoch below zero is a commit from outside,
    /// which only a group without members takes. An older epoch will do for partitions that the member has held since
    /// then (KIP-1251).
    pub fn check_commit<'a>(
        &self,
        member_id: &str,
        epoch: i32,
        knows_epochs: bool,
        positions: impl Iterator<Item = (&'a str, i32)>,
        topics: &dyn Topics,
    ) -> Result<(), GroupError> {
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let Some(member) = self.members.get(member_id) else {
            return Err(GroupError::UnknownMember);
        };
        let current = self.current(member_id);
        if member.classic.is_some() {
            return match epoch == current.epoch {
                true => Ok(()),
                false => Err(GroupError::IllegalGeneration),
            };
        }
        if !knows_epochs {
            return Err(GroupError::UnsupportedVersion);
        }
        if epoch == current.epoch {
            return Ok(());
        }
        if epoch > current.epoch {
            return Err(GroupError::StaleEpoch);
        }
        let since = |held: &Held, topic: TopicId, partition: i32| held.get(&topic)?.get(&partition).copied();
        for (topic, partition) in positions {
            let id = topics.topic(topic).map(|(id, _)| id);
            let held = id.and_then(|id| {
                since(&current.assigned, id, partition).or_else(|| since(&current.revoking, id, partition))
            });
            if held.is_none_or(|since| since > epoch) {
                return Err(GroupError::StaleEpoch);
            }
        }
        Ok(())
    }

    /// Whether positions may be read in the name of this member and epoch; whoever gives neither may.
    pub fn check_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        let Some(member_id) = member_id else {
            return if epoch < 0 {
                Ok(())
            } else {
                Err(GroupError::UnknownMember)
            };
        };
        let Some(member) = self.members.get(member_id) else {
            return Err(GroupError::UnknownMember);
        };
        match self.current(member_id).epoch == epoch {
            true => Ok(()),
            false if member.classic.is_some() => Err(GroupError::IllegalGeneration),
            false => Err(GroupError::StaleEpoch),
        }
    }

    /// The refusal of a member that has to give everything up and join again.
    pub(super) fn fenced(received: i32, known: i32) -> Refusal {
        let than = if received > known { "greater" } else { "smaller" };
        let known = if known == LEAVE_FOR_A_WHILE {
            "none, since it left".to_owned()
        } else {
            known.to_string()
        };
        Refusal::new(
            GroupError::FencedEpoch,
            format!(
                "The member's epoch {received} is {than} than the one the coordinator knows ({known}); \
                 it has to give up its partitions and join again."
            ),
        )
    }
}

fn replace<V>(map: &mut HashMap<String, V>, key: &str, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key.to_owned(), value),
        None => map.remove(key),
    }
}

fn partitions_of(current: &Current) -> Vec<(TopicId, i32)> {
    let both = current.assigned.iter().chain(&current.revoking);
    both.flat_map(|(topic, partitions)| partitions.keys().map(|partition| (*topic, *partition)))
        .collect()
}
