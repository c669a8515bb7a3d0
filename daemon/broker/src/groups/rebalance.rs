//! The passage from one generation to the next: gathering members, electing leader and protocol, handing out assignments,
//! and taking members out.

use bytes::Bytes;

use super::error::GroupError;
use super::group::{AfterStore, Effect, Gathering, Group, GroupConfig, GroupState};
use super::join::JoinReply;
use super::member::Member;
use super::sync::SyncReply;

impl Group {
    /// Begins a rebalance if the state allows one; in PreparingRebalance only looks whether it is complete.
    pub(super) fn rebalance(&mut self, config: &GroupConfig, now: i64, wall_ms: i64, out: &mut Vec<Effect>) {
        match self.state {
            GroupState::Stable | GroupState::CompletingRebalance | GroupState::Empty => {
                self.prepare_rebalance(config, now, wall_ms, out);
            }
            GroupState::PreparingRebalance => self.try_complete_join(now, wall_ms, out),
            GroupState::Dead => {}
        }
    }

    pub(super) fn prepare_rebalance(
        &mut self,
        config: &GroupConfig,
        now: i64,
        wall_ms: i64,
        out: &mut Vec<Effect>,
    ) {
        if self.state == GroupState::CompletingRebalance {
            self.drop_assignments(GroupError::RebalanceInProgress, now, out);
        }
        self.sync_deadline = None;
        let rebalance_timeout = self.rebalance_timeout_ms();
        self.gathering = Some(if self.state == GroupState::Empty {
            let delay = config.initial_rebalance_delay_ms;
            Gathering {
                deadline: now + delay,
                initial_remaining_ms: Some((rebalance_timeout - delay).max(0)),
                newcomers: false,
            }
        } else {
            Gathering {
                deadline: now + rebalance_timeout,
                initial_remaining_ms: None,
                newcomers: false,
            }
        });
        self.enter(GroupState::PreparingRebalance, wall_ms);
        self.try_complete_join(now, wall_ms, out);
    }

    /// Ends the gathering early if every member has joined. The first gathering of a group only ends by its delay.
    pub(super) fn try_complete_join(&mut self, now: i64, wall_ms: i64, out: &mut Vec<Effect>) {
        if self.state != GroupState::PreparingRebalance {
            return;
        }
        let delayed = self
            .gathering
            .as_ref()
            .is_some_and(|gathering| gathering.initial_remaining_ms.is_some() && gathering.deadline > now);
        let all_joined =
            self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some());
        if all_joined && !delayed {
            self.complete_join(now, wall_ms, out);
        }
    }

    /// Makes the next generation of those who joined.
    pub(super) fn complete_join(&mut self, now: i64, wall_ms: i64, out: &mut Vec<Effect>) {
        let gone: Vec<String> = self
            .members
            .values()
            .filter(|member| member.joining.is_none() && member.instance_id.is_none())
            .map(|member| member.id.clone())
            .collect();
        for id in gone {
            self.remove(&id, out);
        }
        if !self.members.is_empty() && !self.elect_joined_leader() {
            // Only static members are left and none has joined: they keep their places until their sessions end.
            let deadline = now + self.rebalance_timeout_ms();
            self.gathering = Some(Gathering {
                deadline,
                initial_remaining_ms: None,
                newcomers: false,
            });
            return;
        }
        self.gathering = None;
        self.generation = self.generation.wrapping_add(1).max(1);
        if self.members.is_empty() {
            self.protocol = None;
            self.leader = None;
            self.enter(GroupState::Empty, wall_ms);
            self.store(AfterStore::Nothing, out);
            return;
        }
        self.protocol = self.elect_protocol();
        self.enter(GroupState::CompletingRebalance, wall_ms);
        self.sync_deadline = Some(now + self.rebalance_timeout_ms());
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let reply = self.join_reply(&id);
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            member.owes_sync = true;
            member.assignment = Bytes::new();
            if let Some(token) = member.joining.take() {
                member.is_new = false;
                member.touch(now);
                out.push(Effect::Joined { token, reply });
            }
        }
    }

    /// Makes sure that the leader is one that joined; false if nobody did.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |member: &Member| member.joining.is_some();
        let current = self.leader.as_ref().and_then(|id| self.members.get(id));
        if current.is_some_and(joined) {
            return true;
        }
        match self.members.values().find(|member| joined(member)) {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => false,
        }
    }

    /// The protocol most members prefer among those that all of them support. Ties go to the leader's order.
    pub(super) fn elect_protocol(&self) -> Option<String> {
        let everyones = |name: &str| self.members.values().all(|member| member.supports(name));
        let first = self
            .leader
            .as_ref()
            .and_then(|id| self.members.get(id))
            .or_else(|| self.members.values().next())?;
        let candidates: Vec<&str> = first
            .protocols
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| everyones(name))
            .collect();
        let mut votes = vec![0usize; candidates.len()];
        for member in self.members.values() {
            let vote = member
                .protocols
                .iter()
                .find_map(|(name, _)| candidates.iter().position(|candidate| candidate == name));
            if let Some(vote) = vote {
                votes[vote] += 1;
            }
        }
        let best = votes.iter().copied().max()?;
        let winner = votes.iter().position(|count| *count == best)?;
        candidates.get(winner).map(|name| (*name).to_owned())
    }

    pub(super) fn become_stable(&mut self, now: i64, wall_ms: i64, out: &mut Vec<Effect>) {
        self.enter(GroupState::Stable, wall_ms);
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        for member in self.members.values_mut() {
            if let Some(token) = member.syncing.take() {
                member.touch(now);
                let reply = SyncReply {
                    protocol_type: protocol_type.clone(),
                    protocol: protocol.clone(),
                    assignment: member.assignment.clone(),
                };
                out.push(Effect::Synced {
                    token,
                    reply: Ok(reply),
                });
            }
        }
    }

    pub(super) fn drop_assignments(&mut self, error: GroupError, now: i64, out: &mut Vec<Effect>) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            if let Some(token) = member.syncing.take() {
                // While it waited its session stood still.
                member.touch(now);
                out.push(Effect::Synced {
                    token,
                    reply: Err(error),
                });
            }
        }
    }

    pub(super) fn drop_members_without_sync(
        &mut self,
        config: &GroupConfig,
        now: i64,
        wall_ms: i64,
        out: &mut Vec<Effect>,
    ) {
        if !matches!(self.state, GroupState::CompletingRebalance | GroupState::Stable) {
            return;
        }
        let silent: Vec<String> = self
            .members
            .values()
            .filter(|member| member.owes_sync)
            .map(|member| member.id.clone())
            .collect();
        if silent.is_empty() {
            return;
        }
        for id in silent {
            self.remove(&id, out);
        }
        self.prepare_rebalance(config, now, wall_ms, out);
    }

    /// Removes a member for good and rebalances if that changes anything.
    pub(super) fn remove_and_rebalance(
        &mut self,
        config: &GroupConfig,
        id: &str,
        now: i64,
        wall_ms: i64,
        out: &mut Vec<Effect>,
    ) {
        if self.remove(id, out) {
            self.rebalance(config, now, wall_ms, out);
        }
    }

    /// Takes a member out; its waiting requests are refused. The leadership passes to another member.
    pub(super) fn remove(&mut self, id: &str, out: &mut Vec<Effect>) -> bool {
        let Some(member) = self.members.remove(id) else {
            return false;
        };
        if let Some(token) = member.joining {
            let reply = JoinReply::refused(GroupError::UnknownMember, String::new());
            out.push(Effect::Joined { token, reply });
        }
        if let Some(token) = member.syncing {
            out.push(Effect::Synced {
                token,
                reply: Err(GroupError::UnknownMember),
            });
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        true
    }

    /// The longest time any member asks for: the slowest decides.
    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        self.members
            .values()
            .map(|member| i64::from(member.rebalance_timeout_ms))
            .max()
            .unwrap_or(0)
    }
}
