//! JoinGroup: who may become, or stay, a member, and what the answer says.
//!
//! Static membership is KIP-345, the two-step join of dynamic members KIP-394, skipping of assignment KIP-814.

use bytes::Bytes;

use super::error::GroupError;
use super::group::{AfterStore, Effect, Group, GroupConfig, GroupState, NEW_MEMBER_TIMEOUT_MS, Token};
use super::member::Member;

/// A JoinGroup request.
#[derive(Debug, Clone)]
pub struct Join {
    /// Under which name the answer is awaited.
    pub token: Token,
    /// The member id the client knows; empty if none.
    pub member_id: String,
    /// The id that it gets if it needs one.
    pub fresh_id: String,
    /// Its static instance id.
    pub instance_id: Option<String>,
    /// The client id of the connection.
    pub client_id: String,
    /// The address of the connection.
    pub client_host: String,
    /// Whether a dynamic member has to come back with its id before it counts (v4 and later).
    pub two_step: bool,
    /// Whether the client knows the `skip_assignment` field (v9 and later).
    pub knows_skip_assignment: bool,
    /// How long it may stay silent.
    pub session_timeout_ms: i32,
    /// How long it may take to join again.
    pub rebalance_timeout_ms: i32,
    /// The type of its protocols, free-form.
    pub protocol_type: String,
    /// What it offers, best first.
    pub protocols: Vec<(String, Bytes)>,
}

/// A member as the leader is told about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its member id.
    pub member_id: String,
    /// Its static instance id.
    pub instance_id: Option<String>,
    /// Its metadata for the protocol that was elected.
    pub metadata: Bytes,
}

/// The answer to a JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinReply {
    /// Why there is no generation for this member, if there is none.
    pub error: Option<GroupError>,
    /// The generation joined; -1 with an error.
    pub generation: i32,
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The protocol that was elected.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: String,
    /// Whether the leader must not compute an assignment.
    pub skip_assignment: bool,
    /// The id of the member that asked.
    pub member_id: String,
    /// All members, for the leader; empty for the others.
    pub members: Vec<JoinedMember>,
}

impl JoinReply {
    /// An answer that only carries an error and the member id to use next.
    pub fn refused(error: GroupError, member_id: String) -> Self {
        Self {
            error: Some(error),
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            skip_assignment: false,
            member_id,
            members: Vec::new(),
        }
    }
}

impl Group {
    /// A member wants in, or back in.
    pub fn join(&mut self, config: &GroupConfig, join: Join, now: i64, wall_ms: i64, out: &mut Vec<Effect>) {
        let token = join.token;
        let member_id = join.member_id.clone();
        if let Err(error) = self.try_join(config, join, now, wall_ms, out) {
            let member_id = if error == GroupError::GroupFull {
                String::new()
            } else {
                member_id
            };
            out.push(Effect::Joined {
                token,
                reply: JoinReply::refused(error, member_id),
            });
        }
    }

    fn try_join(
        &mut self,
        config: &GroupConfig,
        join: Join,
        now: i64,
        wall_ms: i64,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::Unavailable);
        }
        if join.session_timeout_ms < config.min_session_timeout_ms
            || join.session_timeout_ms > config.max_session_timeout_ms
        {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if !self.has_room_for(config, &join) {
            self.pending.remove(&join.member_id);
            if self.remove(&join.member_id, out) {
                self.try_complete_join(now, wall_ms, out);
            }
            return Err(GroupError::GroupFull);
        }
        self.check_protocols(&join)?;
        if join.member_id.is_empty() {
            self.join_unknown(config, join, now, wall_ms, out)
        } else {
            self.join_known(config, join, now, wall_ms, out)
        }
    }

    /// Whether `group.max.size` leaves room. While a generation is gathered those who have joined it count, since the
    /// others may not come back; otherwise the members do. Who is in already stays, and so does a static instance.
    fn has_room_for(&self, config: &GroupConfig, join: &Join) -> bool {
        let instance = join.instance_id.as_deref();
        if instance.is_some_and(|instance| self.static_member(instance).is_some()) {
            return true;
        }
        let member = self.members.get(&join.member_id);
        match self.state {
            GroupState::Empty | GroupState::Dead => true,
            GroupState::PreparingRebalance => {
                let joined = self.members.values().filter(|member| member.joining.is_some());
                member.is_some_and(|member| member.joining.is_some()) || joined.count() < config.max_size
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                member.is_some() || self.members.len() < config.max_size
            }
        }
    }

    fn check_protocols(&self, join: &Join) -> Result<(), GroupError> {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return Err(GroupError::InconsistentProtocol);
        }
        if self.members.is_empty() {
            return Ok(());
        }
        let shared = join
            .protocols
            .iter()
            .any(|(name, _)| self.members.values().all(|member| member.supports(name)));
        if self.protocol_type.as_deref() != Some(&join.protocol_type) || !shared {
            return Err(GroupError::InconsistentProtocol);
        }
        Ok(())
    }

    fn join_unknown(
        &mut self,
        config: &GroupConfig,
        join: Join,
        now: i64,
        wall_ms: i64,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        let static_of = join
            .instance_id
            .as_ref()
            .and_then(|instance| self.static_member(instance));
        if let Some(old) = static_of {
            self.replace_static(config, old, join, now, wall_ms, out);
            return Ok(());
        }
        if join.instance_id.is_none() && join.two_step {
            self.pending
                .insert(join.fresh_id.clone(), now + i64::from(join.session_timeout_ms));
            let reply = JoinReply::refused(GroupError::MemberIdRequired, join.fresh_id);
            out.push(Effect::Joined {
                token: join.token,
                reply,
            });
            return Ok(());
        }
        let id = join.fresh_id.clone();
        self.add(config, id, join, now, wall_ms, out);
        Ok(())
    }

    fn join_known(
        &mut self,
        config: &GroupConfig,
        join: Join,
        now: i64,
        wall_ms: i64,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        if self.pending.remove(&join.member_id).is_some() {
            let id = join.member_id.clone();
            self.add(config, id, join, now, wall_ms, out);
            return Ok(());
        }
        self.check_member(&join.member_id, join.instance_id.as_deref())?;
        let Some(member) = self.members.get(&join.member_id) else {
            return Err(GroupError::UnknownMember);
        };
        let unchanged = member.protocols == join.protocols;
        let is_leader = self.leader.as_ref() == Some(&join.member_id);
        let answer_at_once = match self.state {
            GroupState::CompletingRebalance => unchanged,
            GroupState::Stable => unchanged && !is_leader,
            GroupState::PreparingRebalance => false,
            GroupState::Empty | GroupState::Dead => return Err(GroupError::UnknownMember),
        };
        if answer_at_once {
            let reply = self.join_reply(&join.member_id);
            if let Some(member) = self.members.get_mut(&join.member_id) {
                member.touch(now);
            }
            out.push(Effect::Joined {
                token: join.token,
                reply,
            });
            return Ok(());
        }
        self.update(join, now, out);
        self.rebalance(config, now, wall_ms, out);
        Ok(())
    }

    fn add(
        &mut self,
        config: &GroupConfig,
        id: String,
        join: Join,
        now: i64,
        wall_ms: i64,
        out: &mut Vec<Effect>,
    ) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type);
        }
        if let Some(gathering) = &mut self.gathering
            && gathering.initial_remaining_ms.is_some()
        {
            gathering.newcomers = true;
        }
        let member = Member {
            id: id.clone(),
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            joining: Some(join.token),
            syncing: None,
            owes_sync: false,
            is_new: true,
            expires_at: now + NEW_MEMBER_TIMEOUT_MS,
        };
        if self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        self.members.insert(id, member);
        self.rebalance(config, now, wall_ms, out);
    }

    fn update(&mut self, join: Join, now: i64, out: &mut Vec<Effect>) {
        let Some(member) = self.members.get_mut(&join.member_id) else {
            return;
        };
        member.protocols = join.protocols;
        member.session_timeout_ms = join.session_timeout_ms;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        member.touch(now);
        // A client that sends again after its connection broke: the older request has nobody left to read the answer.
        if let Some(older) = member.joining.replace(join.token) {
            let reply = JoinReply::refused(GroupError::RebalanceInProgress, member.id.clone());
            out.push(Effect::Joined { token: older, reply });
        }
    }

    /// A static member came back without its id: it takes its predecessor's place under a new one.
    fn replace_static(
        &mut self,
        config: &GroupConfig,
        old_id: String,
        mut join: Join,
        now: i64,
        wall_ms: i64,
        out: &mut Vec<Effect>,
    ) {
        let Some(mut member) = self.members.remove(&old_id) else {
            return;
        };
        if let Some(token) = member.joining.take() {
            let reply = JoinReply::refused(GroupError::FencedInstance, old_id.clone());
            out.push(Effect::Joined { token, reply });
        }
        if let Some(token) = member.syncing.take() {
            out.push(Effect::Synced {
                token,
                reply: Err(GroupError::FencedInstance),
            });
        }
        let new_id = std::mem::take(&mut join.fresh_id);
        let was_leader = self.leader.as_ref() == Some(&old_id);
        member.id.clone_from(&new_id);
        self.members.insert(new_id.clone(), member);
        if was_leader {
            self.leader = Some(new_id.clone());
        }
        let (token, knows_skip) = (join.token, join.knows_skip_assignment);
        join.member_id.clone_from(&new_id);
        self.update(join, now, out);
        // Changed metadata alone begins no rebalance: a client that now wants other topics asks for one itself (KIP-814).
        if self.state != GroupState::Stable || self.elect_protocol() != self.protocol {
            self.rebalance(config, now, wall_ms, out);
            return;
        }
        if let Some(member) = self.members.get_mut(&new_id) {
            member.joining = None;
        }
        let mut reply = self.join_reply(&new_id);
        if was_leader && knows_skip {
            reply.skip_assignment = true;
        } else if was_leader {
            // An older client must not take itself for the leader, or it would compute an assignment that nobody wants.
            reply.leader = old_id;
            reply.members.clear();
        }
        self.store(AfterStore::Answer { token, reply }, out);
    }

    /// What the member is told about the current generation.
    pub(super) fn join_reply(&self, id: &str) -> JoinReply {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = if self.leader.as_deref() == Some(id) {
            let of = |member: &Member| JoinedMember {
                member_id: member.id.clone(),
                instance_id: member.instance_id.clone(),
                metadata: member.metadata(&protocol),
            };
            self.members.values().map(of).collect()
        } else {
            Vec::new()
        };
        JoinReply {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: id.to_owned(),
            members,
        }
    }

    /// The member id that stands for a static instance.
    pub(super) fn static_member(&self, instance: &str) -> Option<String> {
        self.members
            .values()
            .find(|member| member.instance_id.as_deref() == Some(instance))
            .map(|member| member.id.clone())
    }

    /// Whether `member_id` (with `instance_id`) is a member, and not one that another instance has replaced.
    pub(super) fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance_id {
            match self.static_member(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(current) if current != member_id => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(GroupError::UnknownMember)
        }
    }
}
