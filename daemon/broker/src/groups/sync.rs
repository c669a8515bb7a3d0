//! The calls of members that have joined: SyncGroup, Heartbeat, LeaveGroup, and the check before a commit.

use bytes::Bytes;

use super::error::GroupError;
use super::group::{AfterStore, Effect, Group, GroupConfig, GroupState, Token};

/// A SyncGroup request.
#[derive(Debug, Clone)]
pub struct Sync {
    /// Under which name the answer is awaited.
    pub token: Token,
    /// The member that asks.
    pub member_id: String,
    /// Its static instance id.
    pub instance_id: Option<String>,
    /// The generation it joined.
    pub generation: i32,
    /// The protocol type it believes in (v5 and later).
    pub protocol_type: Option<String>,
    /// The protocol it believes in (v5 and later).
    pub protocol: Option<String>,
    /// From the leader: what each member gets.
    pub assignments: Vec<(String, Bytes)>,
}

/// The answer to a SyncGroup that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncReply {
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The protocol of the generation.
    pub protocol: Option<String>,
    /// What the member was assigned, as the leader wrote it.
    pub assignment: Bytes,
}

impl Group {
    /// A member asks for its assignment; the leader brings everyone's.
    pub fn sync(&mut self, sync: Sync, now: i64, out: &mut Vec<Effect>) {
        let token = sync.token;
        match self.try_sync(sync, now, out) {
            Ok(Some(reply)) => out.push(Effect::Synced {
                token,
                reply: Ok(reply),
            }),
            Ok(None) => {}
            Err(error) => out.push(Effect::Synced {
                token,
                reply: Err(error),
            }),
        }
    }

    fn try_sync(
        &mut self,
        sync: Sync,
        now: i64,
        out: &mut Vec<Effect>,
    ) -> Result<Option<SyncReply>, GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::Unavailable);
        }
        self.check_member(&sync.member_id, sync.instance_id.as_deref())?;
        if sync.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if sync.protocol_type.is_some() && sync.protocol_type != self.protocol_type
            || sync.protocol.is_some() && sync.protocol != self.protocol
        {
            return Err(GroupError::InconsistentProtocol);
        }
        match self.state {
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMember),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance => {
                self.await_assignment(sync, out);
                Ok(None)
            }
            GroupState::Stable => {
                let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
                let Some(member) = self.members.get_mut(&sync.member_id) else {
                    return Err(GroupError::UnknownMember);
                };
                member.owes_sync = false;
                member.touch(now);
                Ok(Some(SyncReply {
                    protocol_type,
                    protocol,
                    assignment: member.assignment.clone(),
                }))
            }
        }
    }

    fn await_assignment(&mut self, sync: Sync, out: &mut Vec<Effect>) {
        if let Some(member) = self.members.get_mut(&sync.member_id) {
            member.owes_sync = false;
            if let Some(older) = member.syncing.replace(sync.token) {
                out.push(Effect::Synced {
                    token: older,
                    reply: Err(GroupError::RebalanceInProgress),
                });
            }
        }
        if self.leader.as_ref() != Some(&sync.member_id) {
            return;
        }
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        for (id, assignment) in sync.assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.store(
            AfterStore::Assigned {
                generation: self.generation,
            },
            out,
        );
    }

    /// A member says that it lives.
    pub fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: i64,
    ) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::Unavailable);
        }
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if let Some(member) = self.members.get_mut(member_id) {
            member.touch(now);
        }
        match self.state {
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMember),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            // Between its JoinGroup and its SyncGroup a client may already send heartbeats.
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
        }
    }

    /// A member goes, or is removed by an operator who knows its instance id only.
    pub fn leave(
        &mut self,
        config: &GroupConfig,
        member_id: &str,
        instance_id: Option<&str>,
        now: i64,
        wall_ms: i64,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::Unavailable);
        }
        if instance_id.is_none() && self.pending.remove(member_id).is_some() {
            self.try_complete_join(now, wall_ms, out);
            return Ok(());
        }
        let id = match instance_id {
            Some(instance) if member_id.is_empty() => {
                self.static_member(instance).ok_or(GroupError::UnknownMember)?
            }
            _ => {
                self.check_member(member_id, instance_id)?;
                member_id.to_owned()
            }
        };
        self.remove_and_rebalance(config, &id, now, wall_ms, out);
        Ok(())
    }

    /// Whether a commit in the name of this member and generation is in order. A generation below zero is a commit from
    /// outside the group's membership, which only a group without members takes.
    pub fn check_commit(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: i64,
    ) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::Unavailable);
        }
        if generation < 0 && self.state == GroupState::Empty {
            return Ok(());
        }
        if generation < 0 && member_id.is_empty() && instance_id.is_none() {
            return Err(GroupError::UnknownMember);
        }
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == GroupState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        if let Some(member) = self.members.get_mut(member_id) {
            member.touch(now);
        }
        Ok(())
    }
}
