//! Sequences of events and what the group makes of them.

use bytes::Bytes;

use super::*;

/// One group, its clock, and what it answered.
struct Lab {
    group: Group,
    config: GroupConfig,
    now: i64,
    next: Token,
    out: Vec<Effect>,
}

impl Lab {
    fn new() -> Self {
        Self {
            group: Group::new("g", 0),
            config: GroupConfig::default(),
            now: 0,
            next: 0,
            out: Vec::new(),
        }
    }

    fn request(&mut self, member_id: &str) -> Join {
        self.next += 1;
        Join {
            token: self.next,
            member_id: member_id.into(),
            fresh_id: format!("m{}", self.next),
            instance_id: None,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            two_step: false,
            knows_skip_assignment: false,
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::from_static(b"r"))],
        }
    }

    fn send(&mut self, join: Join) -> Token {
        let token = join.token;
        self.group
            .join(&self.config, join, self.now, self.now, &mut self.out);
        token
    }

    fn join(&mut self, member_id: &str) -> Token {
        let join = self.request(member_id);
        self.send(join)
    }

    fn sync(&mut self, member_id: &str, generation: i32, assignments: &[(&str, &'static [u8])]) -> Token {
        self.next += 1;
        let sync = Sync {
            token: self.next,
            member_id: member_id.into(),
            instance_id: None,
            generation,
            protocol_type: None,
            protocol: None,
            assignments: assignments
                .iter()
                .map(|(id, bytes)| ((*id).into(), Bytes::from_static(bytes)))
                .collect(),
        };
        self.group.sync(sync, self.now, &mut self.out);
        self.next
    }

    /// Lets time pass up to `ms` from now, stopping at each deadline as the driver does.
    fn pass(&mut self, ms: i64) {
        let end = self.now + ms;
        while let Some(deadline) = self.group.deadline()
            && deadline <= end
        {
            self.now = self.now.max(deadline);
            self.group.tick(&self.config, self.now, self.now, &mut self.out);
        }
        self.now = end;
    }

    fn joined(&mut self, token: Token) -> Option<JoinReply> {
        let at = self
            .out
            .iter()
            .position(|effect| matches!(effect, Effect::Joined { token: t, .. } if *t == token))?;
        let Effect::Joined { reply, .. } = self.out.remove(at) else {
            unreachable!()
        };
        Some(reply)
    }

    fn synced(&mut self, token: Token) -> Option<Result<SyncReply, GroupError>> {
        let at = self
            .out
            .iter()
            .position(|effect| matches!(effect, Effect::Synced { token: t, .. } if *t == token))?;
        let Effect::Synced { reply, .. } = self.out.remove(at) else {
            unreachable!()
        };
        Some(reply)
    }

    /// Carries out every write that is asked for.
    fn store(&mut self, outcome: Result<(), GroupError>) -> usize {
        let ids: Vec<u64> = self
            .out
            .iter()
            .filter_map(|effect| {
                if let Effect::Store { id } = effect {
                    Some(*id)
                } else {
                    None
                }
            })
            .collect();
        self.out.retain(|effect| !matches!(effect, Effect::Store { .. }));
        for id in &ids {
            self.group
                .stored(&self.config, *id, outcome, self.now, self.now, &mut self.out);
        }
        ids.len()
    }

    /// A stable group of `n` members; their ids, leader first.
    fn stable(&mut self, n: usize) -> Vec<String> {
        let tokens: Vec<Token> = (0..n).map(|_| self.join("")).collect();
        self.pass(6_000);
        let replies: Vec<JoinReply> = tokens.iter().map(|token| self.joined(*token).unwrap()).collect();
        let mut ids: Vec<String> = replies.iter().map(|reply| reply.member_id.clone()).collect();
        let leader = replies[0].leader.clone();
        ids.sort_by_key(|id| *id != leader);
        let generation = replies[0].generation;
        for id in &ids {
            self.sync(id, generation, &[]);
        }
        self.store(Ok(()));
        self.out.clear();
        assert_eq!(self.group.state(), GroupState::Stable);
        ids
    }
}

#[test]
fn first_join_waits_for_the_initial_delay_and_newcomers_extend_it() {
    let mut lab = Lab::new();
    let first = lab.join("");
    lab.pass(2_999);
    assert_eq!(lab.joined(first), None);
    let second = lab.join("");
    lab.pass(1);
    assert_eq!(lab.joined(first), None, "a newcomer extends the delay once more");
    lab.pass(3_000);
    let (first, second) = (lab.joined(first).unwrap(), lab.joined(second).unwrap());
    assert_eq!((first.generation, second.generation), (1, 1));
    assert_eq!(first.leader, first.member_id);
    assert_eq!(first.members.len(), 2, "the leader learns of everyone");
    assert!(second.members.is_empty());
    assert_eq!(second.protocol.as_deref(), Some("range"));
}

#[test]
fn the_initial_delay_ends_at_the_rebalance_timeout() {
    let mut lab = Lab::new();
    let mut tokens = Vec::new();
    for _ in 0..8 {
        let mut join = lab.request("");
        join.rebalance_timeout_ms = 7_000;
        tokens.push(lab.send(join));
        lab.pass(1_000);
    }
    let reply = lab
        .joined(tokens[0])
        .expect("ended although newcomers kept coming");
    assert_eq!(reply.members.len(), 7);
}

#[test]
fn assignments_reach_members_only_after_the_write() {
    let mut lab = Lab::new();
    let (a, b) = (lab.join(""), lab.join(""));
    lab.pass(6_000);
    let (a, b) = (lab.joined(a).unwrap(), lab.joined(b).unwrap());
    let follower = lab.sync(&b.member_id, 1, &[]);
    let leader = lab.sync(&a.member_id, 1, &[(&a.member_id, b"A"), (&b.member_id, b"B")]);
    assert!(lab.synced(follower).is_none() && lab.synced(leader).is_none());
    assert_eq!(lab.store(Ok(())), 1);
    assert_eq!(lab.synced(follower).unwrap().unwrap().assignment, "B");
    assert_eq!(lab.synced(leader).unwrap().unwrap().assignment, "A");
    assert_eq!(lab.group.state(), GroupState::Stable);
    let again = lab.sync(&b.member_id, 1, &[]);
    assert_eq!(lab.synced(again).unwrap().unwrap().assignment, "B");
}

#[test]
fn an_assignment_that_cannot_be_written_is_no_assignment() {
    let mut lab = Lab::new();
    let token = lab.join("");
    lab.pass(3_000);
    let reply = lab.joined(token).unwrap();
    let sync = lab.sync(&reply.member_id, 1, &[(&reply.member_id, b"A")]);
    lab.store(Err(GroupError::NotCoordinator));
    assert_eq!(lab.synced(sync).unwrap(), Err(GroupError::NotCoordinator));
    assert_eq!(lab.group.state(), GroupState::PreparingRebalance);
}

#[test]
fn dynamic_members_join_in_two_steps_and_unused_ids_expire() {
    let mut lab = Lab::new();
    let mut join = lab.request("");
    join.two_step = true;
    let token = lab.send(join);
    let reply = lab.joined(token).unwrap();
    assert_eq!(reply.error, Some(GroupError::MemberIdRequired));
    assert!(!reply.member_id.is_empty());
    let token = lab.join(&reply.member_id);
    lab.pass(3_000);
    assert_eq!(lab.joined(token).unwrap().error, None);

    let mut join = lab.request("");
    join.two_step = true;
    let token = lab.send(join);
    let unused = lab.joined(token).unwrap().member_id;
    lab.pass(10_000);
    let late = lab.join(&unused);
    assert_eq!(lab.joined(late).unwrap().error, Some(GroupError::UnknownMember));
}

#[test]
fn a_pending_member_holds_the_rebalance_open_until_it_comes_or_expires() {
    let mut lab = Lab::new();
    let ids = lab.stable(1);
    let mut join = lab.request("");
    join.two_step = true;
    let token = lab.send(join);
    let pending = lab.joined(token).unwrap().member_id;
    let mut changed = lab.request(&ids[0]);
    changed.protocols[0].1 = Bytes::from_static(b"changed");
    let leader = lab.send(changed);
    assert_eq!(lab.joined(leader), None, "the pending member may still come");
    let newcomer = lab.join(&pending);
    assert_eq!(lab.joined(leader).unwrap().members.len(), 2);
    assert_eq!(lab.joined(newcomer).unwrap().generation, 2);
}

#[test]
fn a_rebalance_ends_when_all_have_joined_and_drops_those_who_do_not() {
    let mut lab = Lab::new();
    let ids = lab.stable(2);
    let third = lab.join("");
    assert_eq!(
        lab.group.heartbeat(&ids[0], None, 1, lab.now),
        Err(GroupError::RebalanceInProgress)
    );
    let first = lab.join(&ids[0]);
    assert_eq!(lab.joined(first), None);
    // The second keeps its session alive but never joins: the slowest member's timeout ends the wait.
    for _ in 0..7 {
        lab.pass(8_500);
        let _ = lab.group.heartbeat(&ids[1], None, 1, lab.now);
    }
    lab.pass(1_000);
    let reply = lab.joined(first).unwrap();
    assert_eq!((reply.generation, reply.members.len()), (2, 2));
    assert!(lab.joined(third).unwrap().error.is_none());
    assert_eq!(
        lab.group.heartbeat(&ids[1], None, 1, lab.now),
        Err(GroupError::UnknownMember)
    );
}

#[test]
fn a_silent_member_expires_and_the_others_rebalance() {
    let mut lab = Lab::new();
    let ids = lab.stable(2);
    for _ in 0..3 {
        lab.pass(4_000);
        let _ = lab.group.heartbeat(&ids[0], None, 1, lab.now);
    }
    assert_eq!(lab.group.state(), GroupState::PreparingRebalance);
    let token = lab.join(&ids[0]);
    let reply = lab.joined(token).unwrap();
    assert_eq!((reply.generation, reply.members.len()), (2, 1));
}

#[test]
fn members_that_join_but_never_sync_are_dropped() {
    let mut lab = Lab::new();
    let (a, b) = (lab.join(""), lab.join(""));
    lab.pass(6_000);
    let (a, b) = (lab.joined(a).unwrap(), lab.joined(b).unwrap());
    lab.sync(&b.member_id, 1, &[]);
    for _ in 0..10 {
        lab.pass(6_000);
        let _ = lab.group.heartbeat(&a.member_id, None, 1, lab.now);
    }
    assert_eq!(
        lab.group.heartbeat(&a.member_id, None, 1, lab.now),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(lab.group.state(), GroupState::PreparingRebalance);
}

#[test]
fn the_last_member_to_leave_empties_the_group_and_stores_that() {
    let mut lab = Lab::new();
    let ids = lab.stable(1);
    let left = lab
        .group
        .leave(&lab.config, &ids[0], None, lab.now, lab.now, &mut lab.out);
    assert_eq!(left, Ok(()));
    assert_eq!(
        (lab.group.state(), lab.group.generation()),
        (GroupState::Empty, 2)
    );
    assert_eq!(lab.store(Ok(())), 1);
    assert_eq!(lab.group.protocol_type(), Some("consumer"));
    assert_eq!(lab.group.protocol(), None);
    let again = lab
        .group
        .leave(&lab.config, &ids[0], None, lab.now, lab.now, &mut lab.out);
    assert_eq!(again, Err(GroupError::UnknownMember));
}

#[test]
fn generations_and_members_are_checked() {
    let mut lab = Lab::new();
    let ids = lab.stable(1);
    let id = &ids[0];
    assert_eq!(lab.group.heartbeat(id, None, 1, lab.now), Ok(()));
    assert_eq!(
        lab.group.heartbeat(id, None, 0, lab.now),
        Err(GroupError::IllegalGeneration)
    );
    assert_eq!(
        lab.group.heartbeat("x", None, 1, lab.now),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(lab.group.check_commit(id, None, 1, lab.now), Ok(()));
    assert_eq!(
        lab.group.check_commit(id, None, 2, lab.now),
        Err(GroupError::IllegalGeneration)
    );
    assert_eq!(
        lab.group.check_commit("x", None, 1, lab.now),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(
        lab.group.check_commit("", None, -1, lab.now),
        Err(GroupError::UnknownMember)
    );
    let token = lab.sync(id, 7, &[]);
    assert_eq!(lab.synced(token).unwrap(), Err(GroupError::IllegalGeneration));
    let token = lab.sync("x", 1, &[]);
    assert_eq!(lab.synced(token).unwrap(), Err(GroupError::UnknownMember));
}

#[test]
fn commits_are_refused_while_assignments_are_awaited_and_taken_while_joining() {
    let mut lab = Lab::new();
    let ids = lab.stable(1);
    lab.join("");
    assert_eq!(
        lab.group.check_commit(&ids[0], None, 1, lab.now),
        Ok(()),
        "a member commits before it joins again"
    );
    let token = lab.join(&ids[0]);
    assert_eq!(lab.joined(token).unwrap().generation, 2);
    assert_eq!(
        lab.group.check_commit(&ids[0], None, 2, lab.now),
        Err(GroupError::RebalanceInProgress)
    );
}

#[test]
fn a_group_without_members_takes_commits_from_outside() {
    let mut group = Group::new("g", 0);
    assert_eq!(group.check_commit("", None, -1, 0), Ok(()));
    assert_eq!(
        group.check_commit("x", None, 3, 0),
        Err(GroupError::UnknownMember)
    );
}

#[test]
fn protocols_are_elected_by_votes_among_those_all_support() {
    let mut lab = Lab::new();
    let offers: [&[&str]; 3] = [
        &["range", "sticky"],
        &["sticky", "range", "roundrobin"],
        &["sticky", "range"],
    ];
    let tokens: Vec<Token> = offers
        .iter()
        .map(|names| {
            let mut join = lab.request("");
            join.protocols = names.iter().map(|name| ((*name).into(), Bytes::new())).collect();
            lab.send(join)
        })
        .collect();
    lab.pass(6_000);
    assert_eq!(lab.joined(tokens[0]).unwrap().protocol.as_deref(), Some("sticky"));
    let mut alien = lab.request("");
    alien.protocols = vec![("roundrobin".into(), Bytes::new())];
    let alien = lab.send(alien);
    assert_eq!(
        lab.joined(alien).unwrap().error,
        Some(GroupError::InconsistentProtocol)
    );
    let mut alien = lab.request("");
    alien.protocol_type = "connect".into();
    let alien = lab.send(alien);
    assert_eq!(
        lab.joined(alien).unwrap().error,
        Some(GroupError::InconsistentProtocol)
    );
}

#[test]
fn session_timeouts_and_sizes_have_bounds() {
    let mut lab = Lab::new();
    lab.config.max_size = 1;
    for timeout in [5_999, 1_800_001, -1] {
        let mut join = lab.request("");
        join.session_timeout_ms = timeout;
        let token = lab.send(join);
        assert_eq!(
            lab.joined(token).unwrap().error,
            Some(GroupError::InvalidSessionTimeout)
        );
    }
    lab.join("");
    let second = lab.join("");
    assert_eq!(lab.joined(second).unwrap().error, Some(GroupError::GroupFull));
}

#[test]
fn a_full_group_takes_back_its_own_and_drops_the_last_to_come_back() {
    let mut lab = Lab::new();
    let members = lab.stable(2);
    lab.config.max_size = 1;
    // Stable: both are in and stay in; the leader's join begins a rebalance in which there is room for one.
    let first = lab.join(&members[0]);
    assert_eq!(lab.joined(first), None);
    let second = lab.join(&members[1]);
    let refused = lab.joined(second).unwrap();
    assert_eq!(
        (refused.error, refused.member_id.as_str()),
        (Some(GroupError::GroupFull), "")
    );
    assert_eq!(
        lab.joined(first).unwrap().error,
        None,
        "the others go on without it"
    );
    assert_eq!(lab.group.members().count(), 1);
    let third = lab.join("");
    assert_eq!(lab.joined(third).unwrap().error, Some(GroupError::GroupFull));
}

#[test]
fn a_static_member_returns_without_a_rebalance_under_a_new_id() {
    let mut lab = Lab::new();
    let mut join = lab.request("");
    join.instance_id = Some("i".into());
    let token = lab.send(join);
    lab.pass(3_000);
    let first = lab.joined(token).unwrap();
    lab.sync(&first.member_id, 1, &[(&first.member_id, b"A")]);
    lab.store(Ok(()));
    lab.out.clear();

    let mut join = lab.request("");
    join.instance_id = Some("i".into());
    join.knows_skip_assignment = true;
    let token = lab.send(join);
    assert_eq!(lab.joined(token), None, "answered once the new id is written");
    assert_eq!(lab.store(Ok(())), 1);
    let second = lab.joined(token).unwrap();
    assert_eq!((second.generation, second.skip_assignment), (1, true));
    assert_ne!(second.member_id, first.member_id);
    assert_eq!(lab.group.state(), GroupState::Stable);
    let beat = lab.group.heartbeat(&first.member_id, Some("i"), 1, lab.now);
    assert_eq!(beat, Err(GroupError::FencedInstance));
    let sync = lab.sync(&second.member_id, 1, &[]);
    assert_eq!(lab.synced(sync).unwrap().unwrap().assignment, "A");
    let left = lab
        .group
        .leave(&lab.config, "", Some("i"), lab.now, lab.now, &mut lab.out);
    assert_eq!(left, Ok(()), "an operator removes it by its instance id");
    assert_eq!(lab.group.state(), GroupState::Empty);
}

#[test]
fn a_static_member_with_other_protocols_causes_a_rebalance_and_with_another_subscription_none() {
    let mut lab = Lab::new();
    let mut join = lab.request("");
    join.instance_id = Some("i".into());
    let token = lab.send(join);
    lab.pass(3_000);
    let first = lab.joined(token).unwrap();
    lab.sync(&first.member_id, 1, &[]);
    lab.store(Ok(()));
    let mut join = lab.request("");
    join.instance_id = Some("i".into());
    join.protocols[0].1 = Bytes::from_static(b"other topics");
    let token = lab.send(join);
    lab.store(Ok(()));
    assert_eq!(lab.joined(token).unwrap().generation, 1);
    let mut join = lab.request("");
    join.instance_id = Some("i".into());
    join.protocols.insert(0, ("sticky".into(), Bytes::new()));
    let token = lab.send(join);
    assert_eq!(lab.joined(token).unwrap().generation, 2);
}

#[test]
fn a_follower_that_joins_again_unchanged_is_told_the_current_generation() {
    let mut lab = Lab::new();
    let ids = lab.stable(2);
    let token = lab.join(&ids[1]);
    assert_eq!(lab.joined(token).unwrap().generation, 1);
    assert_eq!(lab.group.state(), GroupState::Stable);
    lab.join(&ids[0]);
    assert_eq!(
        lab.group.state(),
        GroupState::PreparingRebalance,
        "the leader's join always means a rebalance"
    );
}

#[test]
fn closing_answers_everyone_who_waits() {
    let mut lab = Lab::new();
    let ids = lab.stable(2);
    let token = lab.join(&ids[0]);
    lab.group.close(GroupError::NotCoordinator, &mut lab.out);
    assert_eq!(lab.joined(token).unwrap().error, Some(GroupError::NotCoordinator));
    let late = lab.join("");
    assert_eq!(lab.joined(late).unwrap().error, Some(GroupError::Unavailable));
    assert_eq!(
        lab.group.deadline().map(|_| ()),
        Some(()),
        "members remain, but nothing happens to them"
    );
    lab.pass(0);
}

#[test]
fn a_restored_group_is_stable_and_its_sessions_run_anew() {
    let mut lab = Lab::new();
    let ids = lab.stable(2);
    let value = lab.group.value();
    let decoded = record::GroupValue::decode(&value.encode()).unwrap();
    assert_eq!(decoded, value);
    lab.group = Group::restored("g", decoded, lab.now);
    assert_eq!(lab.group.state(), GroupState::Stable);
    assert_eq!(lab.group.heartbeat(&ids[0], None, 1, lab.now), Ok(()));
    lab.pass(10_000);
    assert_eq!(lab.group.state(), GroupState::Empty, "nobody was heard from");
}

#[test]
fn every_request_is_answered_exactly_once_whatever_happens() {
    // A walk through random events; at the end every token has had one answer.
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    };
    for _ in 0..300 {
        let mut lab = Lab::new();
        let (mut ids, mut asked): (Vec<String>, Vec<Token>) = (vec![String::new()], Vec::new());
        let mut answered = Vec::new();
        for _ in 0..200 {
            let id = ids[random(ids.len() as u64) as usize].clone();
            match random(6) {
                0 | 1 => {
                    let mut join = lab.request(&id);
                    join.two_step = random(2) == 0;
                    join.instance_id = (random(4) == 0).then(|| format!("i{}", random(2)));
                    asked.push(lab.send(join));
                }
                2 => {
                    let generation = lab.group.generation();
                    asked.push(lab.sync(&id, generation, &[]));
                }
                3 => drop(
                    lab.group
                        .leave(&lab.config, &id, None, lab.now, lab.now, &mut lab.out),
                ),
                4 => {
                    let ms = random(20_000) as i64;
                    lab.pass(ms);
                }
                _ => {
                    let outcome = if random(4) == 0 {
                        Err(GroupError::Unavailable)
                    } else {
                        Ok(())
                    };
                    lab.store(outcome);
                }
            }
            for effect in &lab.out {
                match effect {
                    Effect::Joined { token, reply } => {
                        answered.push(*token);
                        ids.push(reply.member_id.clone());
                    }
                    Effect::Synced { token, .. } => answered.push(*token),
                    Effect::Store { .. } => {}
                }
            }
            lab.out.retain(|effect| matches!(effect, Effect::Store { .. }));
        }
        lab.group.close(GroupError::NotCoordinator, &mut lab.out);
        for effect in &lab.out {
            match effect {
                Effect::Joined { token, .. } | Effect::Synced { token, .. } => answered.push(*token),
                Effect::Store { .. } => {}
            }
        }
        answered.sort_unstable();
        asked.sort_unstable();
        assert_eq!(answered, asked);
    }
}
