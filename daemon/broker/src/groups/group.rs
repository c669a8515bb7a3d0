//! One consumer group of the classic protocol, as a state machine.
//!
//! Events are method calls that carry `now`; what has to be done comes back as [`Effect`]s. Nothing here waits, reads a
//! clock or touches a log, so that a sequence of events has one outcome. The calls of the protocol are in `join.rs` and
//! `sync.rs`, the passage from one generation to the next in `rebalance.rs`; this file holds the states and time.
//!
//! ```text
//!            join                  all joined / timeout             leader's assignment stored
//!   Empty ---------> Preparing ------------------------> Completing ---------------------------> Stable
//!     ^                  |  ^                                 |  member leaves, joins, times out   |
//!     +--- none left ----+  +---------------------------------+------------------------------------+
//! ```
//!
//! Invariant: a [`Token`] that was handed in is answered by exactly one effect, or given up by [`Group::close`].

use std::collections::BTreeMap;

use super::error::GroupError;
use super::join::JoinReply;
use super::member::Member;
use super::sync::SyncReply;

/// The name of one waiting request; the driver knows whom it stands for.
pub type Token = u64;

/// How long a new member may wait for its first answer before it is taken for gone.
pub(super) const NEW_MEMBER_TIMEOUT_MS: i64 = 5 * 60 * 1000;

/// Limits and delays that hold for every group of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.initial.rebalance.delay.ms`: how long the first join of an empty group waits for others.
    pub initial_rebalance_delay_ms: i64,
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout_ms: i32,
    /// `group.max.size`.
    pub max_size: usize,
    /// `offset.metadata.max.bytes`.
    pub max_metadata_bytes: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// What holds for groups of the consumer protocol.
    pub consumer: super::consumer::ConsumerConfig,
    /// `offsets.retention.check.interval.ms`.
    pub retention_check_interval_ms: i64,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: 3_000,
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            // Kafka's default has no bound; ours is far above what one rebalance can carry in a frame.
            max_size: 20_000,
            max_metadata_bytes: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1000,
            consumer: super::consumer::ConsumerConfig::default(),
            retention_check_interval_ms: 10 * 60 * 1000,
        }
    }
}

/// The state of a classic group, under Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    /// No members; perhaps committed offsets.
    Empty,
    /// Members are joining; the next generation is being gathered.
    PreparingRebalance,
    /// A generation exists; its leader's assignment is awaited.
    CompletingRebalance,
    /// Every member has, or may fetch, its assignment.
    Stable,
    /// Deleted, or its partition moved away. Nothing leads out of this state.
    Dead,
}

impl GroupState {
    /// The name that DescribeGroups and ListGroups use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// What a group wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Answer the JoinGroup `token`.
    Joined {
        /// The request that is answered.
        token: Token,
        /// The answer.
        reply: JoinReply,
    },
    /// Answer the SyncGroup `token`.
    Synced {
        /// The request that is answered.
        token: Token,
        /// The answer, or why there is none.
        reply: Result<SyncReply, GroupError>,
    },
    /// Write the group's metadata as it is now; tell the outcome with [`Group::stored`] under this id.
    Store {
        /// Which write this is.
        id: u64,
    },
}

/// What follows once a write is done.
#[derive(Debug, Clone)]
pub(super) enum AfterStore {
    Nothing,
    Assigned { generation: i32 },
    Answer { token: Token, reply: JoinReply },
}

/// The gathering of a generation that is under way.
#[derive(Debug, Clone)]
pub(super) struct Gathering {
    pub(super) deadline: i64,
    /// For the first generation after Empty: how much longer newcomers may still postpone it.
    pub(super) initial_remaining_ms: Option<i64>,
    pub(super) newcomers: bool,
}

/// A classic group.
#[derive(Debug)]
pub struct Group {
    /// The group id.
    pub id: String,
    pub(super) state: GroupState,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) generation: i32,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// Ids that were handed out and have not been used yet, with the end of their grace.
    pub(super) pending: BTreeMap<String, i64>,
    pub(super) gathering: Option<Gathering>,
    pub(super) sync_deadline: Option<i64>,
    /// Wall-clock time of the last change of state; offsets of an empty group expire from here.
    pub(super) state_since_ms: i64,
    pub(super) stores: BTreeMap<u64, AfterStore>,
    next_store: u64,
}

impl Group {
    /// A group that nobody has joined.
    pub fn new(id: impl Into<String>, wall_ms: i64) -> Self {
        Self {
            id: id.into(),
            state: GroupState::Empty,
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            pending: BTreeMap::new(),
            gathering: None,
            sync_deadline: None,
            state_since_ms: wall_ms,
            stores: BTreeMap::new(),
            next_store: 0,
        }
    }

    /// A group as the log remembers it. Members get a full session from `now`.
    pub fn restored(id: impl Into<String>, value: super::record::GroupValue, now: i64) -> Self {
        let mut group = Self::new(id, value.state_timestamp_ms);
        group.protocol_type = Some(value.protocol_type);
        group.generation = value.generation;
        group.protocol = value.protocol;
        group.leader = value.leader;
        let protocol = group.protocol.clone().unwrap_or_default();
        for stored in value.members {
            let member = Member {
                id: stored.member_id.clone(),
                instance_id: stored.instance_id,
                client_id: stored.client_id,
                client_host: stored.client_host,
                session_timeout_ms: stored.session_timeout_ms,
                rebalance_timeout_ms: stored.rebalance_timeout_ms,
                protocols: vec![(protocol.clone(), stored.subscription)],
                assignment: stored.assignment,
                joining: None,
                syncing: None,
                owes_sync: false,
                is_new: false,
                expires_at: now + i64::from(stored.session_timeout_ms),
            };
            group.members.insert(stored.member_id, member);
        }
        group.state = if group.members.is_empty() {
            GroupState::Empty
        } else {
            GroupState::Stable
        };
        if !group.members.is_empty() && group.leader.is_none() {
            // It has come from the consumer protocol, and its first rebalance was still to be.
            group.state = GroupState::PreparingRebalance;
            group.gathering = Some(Gathering {
                deadline: now + group.rebalance_timeout_ms(),
                initial_remaining_ms: None,
                newcomers: false,
            });
        }
        group
    }

    /// The group's metadata in the form that the log keeps.
    pub fn value(&self) -> super::record::GroupValue {
        let protocol = self.protocol.clone().unwrap_or_default();
        super::record::GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_timestamp_ms: self.state_since_ms,
            members: self
                .members
                .values()
                .map(|member| super::record::MemberValue {
                    member_id: member.id.clone(),
                    instance_id: member.instance_id.clone(),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    rebalance_timeout_ms: member.rebalance_timeout_ms,
                    session_timeout_ms: member.session_timeout_ms,
                    subscription: member.metadata(&protocol),
                    assignment: member.assignment.clone(),
                })
                .collect(),
        }
    }

    /// The current state.
    pub fn state(&self) -> GroupState {
        self.state
    }

    /// The protocol type of its members (`consumer`, `connect`, ...); `None` if only offsets were committed so far.
    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    /// The protocol that the current generation agreed on.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// The current generation; 0 before the first.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// The members, in the order of their ids.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Since when (wall clock) the group has been in its state.
    pub fn state_since_ms(&self) -> i64 {
        self.state_since_ms
    }

    /// Whether nothing but committed offsets could keep this group alive.
    pub fn is_idle(&self) -> bool {
        self.state == GroupState::Empty && self.pending.is_empty() && self.stores.is_empty()
    }

    /// The next moment at which [`Group::tick`] has something to do.
    pub fn deadline(&self) -> Option<i64> {
        let members = self
            .members
            .values()
            .filter(|member| member.is_new || (member.joining.is_none() && member.syncing.is_none()))
            .map(|member| member.expires_at);
        members
            .chain(self.pending.values().copied())
            .chain(self.gathering.as_ref().map(|gathering| gathering.deadline))
            .chain(self.sync_deadline)
            .min()
    }

    /// Lets time pass: drops members whose session ended, ends gatherings, drops members that never synced.
    pub fn tick(&mut self, config: &GroupConfig, now: i64, wall_ms: i64, out: &mut Vec<Effect>) {
        if self.state == GroupState::Dead {
            return;
        }
        let expired: Vec<String> = self
            .members
            .values()
            .filter(|member| member.is_expired(now))
            .map(|member| member.id.clone())
            .collect();
        for id in expired {
            self.remove_and_rebalance(config, &id, now, wall_ms, out);
        }
        let pending = self.pending.len();
        self.pending.retain(|_, deadline| *deadline > now);
        if self.pending.len() != pending {
            self.try_complete_join(now, wall_ms, out);
        }
        if self.sync_deadline.is_some_and(|deadline| deadline <= now) {
            self.sync_deadline = None;
            self.drop_members_without_sync(config, now, wall_ms, out);
        }
        let Some(gathering) = &mut self.gathering else {
            return;
        };
        if gathering.deadline > now {
            return;
        }
        match gathering.initial_remaining_ms {
            Some(remaining) if gathering.newcomers && remaining > 0 => {
                let delay = config.initial_rebalance_delay_ms.min(remaining);
                gathering.newcomers = false;
                gathering.initial_remaining_ms = Some(remaining - delay);
                gathering.deadline = now + delay;
            }
            _ => self.complete_join(now, wall_ms, out),
        }
    }

    /// The outcome of an [`Effect::Store`].
    pub fn stored(
        &mut self,
        config: &GroupConfig,
        id: u64,
        outcome: Result<(), GroupError>,
        now: i64,
        wall_ms: i64,
        out: &mut Vec<Effect>,
    ) {
        match self.stores.remove(&id) {
            None | Some(AfterStore::Nothing) => {}
            Some(AfterStore::Answer { token, reply }) => {
                let reply = match outcome {
                    Ok(()) => reply,
                    Err(error) => JoinReply::refused(error, reply.member_id),
                };
                out.push(Effect::Joined { token, reply });
            }
            Some(AfterStore::Assigned { generation }) => {
                if self.state != GroupState::CompletingRebalance || self.generation != generation {
                    return;
                }
                match outcome {
                    Ok(()) => self.become_stable(now, wall_ms, out),
                    Err(error) => {
                        self.drop_assignments(error, now, out);
                        self.prepare_rebalance(config, now, wall_ms, out);
                    }
                }
            }
        }
    }

    /// Marks the group dead and gives up every waiting request with `error`.
    pub fn close(&mut self, error: GroupError, out: &mut Vec<Effect>) {
        for member in self.members.values_mut() {
            if let Some(token) = member.joining.take() {
                out.push(Effect::Joined {
                    token,
                    reply: JoinReply::refused(error, member.id.clone()),
                });
            }
            if let Some(token) = member.syncing.take() {
                out.push(Effect::Synced {
                    token,
                    reply: Err(error),
                });
            }
        }
        for (_, after) in std::mem::take(&mut self.stores) {
            if let AfterStore::Answer { token, reply } = after {
                out.push(Effect::Joined {
                    token,
                    reply: JoinReply::refused(error, reply.member_id),
                });
            }
        }
        self.state = GroupState::Dead;
        self.gathering = None;
        self.sync_deadline = None;
    }

    pub(super) fn enter(&mut self, state: GroupState, wall_ms: i64) {
        self.state = state;
        self.state_since_ms = wall_ms;
    }

    pub(super) fn store(&mut self, after: AfterStore, out: &mut Vec<Effect>) {
        let id = self.next_store;
        self.next_store += 1;
        self.stores.insert(id, after);
        out.push(Effect::Store { id });
    }
}
