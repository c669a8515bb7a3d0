//! Groups that go from one protocol to the other while members are in them, through the coordinator.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tradewind_wire::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicPartition, Versioned,
};

use super::consumer::tests::{Shelf, facts};
use super::coordinator_tests::*;
use super::*;

/// A coordinator of a group `g` with a topic `t`, and the journal that outlives it.
struct Stage {
    journal: Memory,
    coordinator: Coordinator,
    clock: Arc<HandClock>,
    shelf: Shelf,
    epoch: i32,
}

impl Stage {
    async fn new(migration: &str) -> Self {
        let (_, clock) = coordinator();
        let mut shelf = Shelf::default();
        shelf.put("t", 4);
        let journal = Memory::new();
        let mut stage = Self {
            coordinator: Coordinator::new(GroupConfig::default(), 50, Arc::clone(&clock) as _),
            journal,
            clock,
            shelf,
            epoch: 0,
        };
        stage.restart(migration).await;
        stage
    }

    /// Another coordinator reads the journal.
    async fn restart(&mut self, migration: &str) {
        let mut config = GroupConfig {
            initial_rebalance_delay_ms: 0,
            ..GroupConfig::default()
        };
        config.consumer.migration = migration.parse().unwrap();
        self.coordinator = Coordinator::new(config, 50, Arc::clone(&self.clock) as _);
        self.coordinator.set_topics(Arc::new(self.shelf.copy()));
        self.epoch += 1;
        let partition = self.coordinator.partition_of("g");
        self.coordinator
            .elected(partition, self.epoch, Arc::new(self.journal.clone()));
        loaded(&self.coordinator, "g").await;
    }

    fn pass(&self, ms: i64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
        for shard in self.coordinator.shards() {
            shard.tick(&self.coordinator.inner.env);
        }
    }

    fn kind(&self) -> (&'static str, &'static str) {
        let all = self.coordinator.list().unwrap();
        (all[0].kind, all[0].state)
    }

    fn facts(&self) -> Option<String> {
        self.coordinator.consumer("g", |group, _| facts(group)).unwrap()
    }

    async fn beat(&self, id: &str, epoch: i32, owned: &[i32]) -> Result<HeartbeatReply, GroupError> {
        let joins = epoch == 0;
        let id_of_t = self.shelf.topic("t").unwrap().0;
        let held = Partitions::from([(id_of_t, owned.iter().copied().collect())]);
        let request = Heartbeat {
            member_id: id.into(),
            epoch,
            rebalance_timeout_ms: joins.then_some(60_000),
            topics: joins.then(|| ["t".to_owned()].into()),
            owned: Some(if owned.is_empty() { Partitions::new() } else { held }),
            ..Heartbeat::default()
        };
        let reply = self.coordinator.consumer_heartbeat("g", request).await;
        reply.map_err(|refusal| refusal.error)
    }
}

fn count(assignment: Option<&Partitions>) -> usize {
    let all = assignment.into_iter().flat_map(Partitions::values);
    all.map(BTreeSet::len).sum()
}

/// A client of the classic protocol.
#[derive(Clone)]
struct Classic {
    id: String,
    instance: Option<String>,
    generation: i32,
    protocols: Vec<&'static str>,
    owned: Vec<i32>,
}

impl Classic {
    fn new() -> Self {
        Self {
            id: String::new(),
            instance: None,
            generation: -1,
            protocols: vec!["range"],
            owned: Vec::new(),
        }
    }

    fn request(&self, fresh_id: &str) -> Join {
        let owned = TopicPartition {
            topic: "t".into(),
            partitions: self.owned.clone(),
        };
        let subscription = ConsumerProtocolSubscription {
            topics: vec!["t".into()],
            owned_partitions: if self.owned.is_empty() {
                Vec::new()
            } else {
                vec![owned]
            },
            ..Default::default()
        };
        let metadata = subscription.to_bytes(1).unwrap();
        let protocols = self.protocols.iter();
        Join {
            fresh_id: fresh_id.into(),
            instance_id: self.instance.clone(),
            protocols: protocols
                .map(|name| ((*name).to_owned(), metadata.clone()))
                .collect(),
            ..join(&self.id, &[])
        }
    }

    /// Joins and takes over what comes back.
    async fn join(&mut self, stage: &Stage, fresh_id: &str) -> JoinReply {
        let reply = stage.coordinator.join("g", self.request(fresh_id)).await;
        if reply.error.is_none() {
            (self.id, self.generation) = (reply.member_id.clone(), reply.generation);
        }
        reply
    }

    async fn sync(&self, stage: &Stage, gives: &[(&str, &[i32])]) -> Result<Vec<i32>, GroupError> {
        let assignments = gives.iter().map(|(id, all)| ((*id).to_owned(), assigned(all)));
        let request = Sync {
            token: 0,
            member_id: self.id.clone(),
            instance_id: self.instance.clone(),
            generation: self.generation,
            protocol_type: Some("consumer".into()),
            protocol: Some(self.protocols[0].into()),
            assignments: assignments.collect(),
        };
        let reply = stage.coordinator.sync("g", request).await?;
        assert_eq!(reply.protocol.as_deref(), Some(self.protocols[0]));
        assert_eq!(reply.assignment[..2], [0, 1], "in the member's version");
        let read = ConsumerProtocolAssignment::from_bytes(reply.assignment).unwrap();
        Ok(read
            .assigned_partitions
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .collect())
    }

    fn committer(&self) -> Committer {
        Committer {
            member_id: self.id.clone(),
            instance_id: self.instance.clone(),
            generation: self.generation,
            knows_epochs: false,
        }
    }

    fn beat(&self, stage: &Stage) -> Result<(), GroupError> {
        stage.coordinator.heartbeat("g", &self.committer())
    }

    async fn commit(&self, stage: &Stage) -> Result<(), GroupError> {
        let outcome = stage
            .coordinator
            .commit("g", &self.committer(), vec![position(1)])
            .await;
        outcome.map(drop)
    }

    fn leave(&self, stage: &Stage) -> Result<(), GroupError> {
        let who = [(self.id.clone(), self.instance.clone())];
        stage.coordinator.leave("g", &who).unwrap()[0]
    }
}

fn assigned(partitions: &[i32]) -> Bytes {
    let assignment = ConsumerProtocolAssignment {
        assigned_partitions: vec![TopicPartition {
            topic: "t".into(),
            partitions: partitions.to_vec(),
        }],
        user_data: None,
    };
    assignment.to_bytes(1).unwrap()
}

/// A classic group with one member that holds everything.
async fn alone(stage: &Stage, protocols: &[&'static str]) -> Classic {
    let mut a = Classic::new();
    a.protocols = protocols.to_vec();
    a.join(stage, "a").await;
    a.owned = a.sync(stage, &[("a", &[0, 1, 2, 3])]).await.unwrap();
    assert_eq!((a.owned.len(), stage.kind()), (4, ("classic", "Stable")));
    a
}

/// That group after a member of the consumer protocol joined it.
async fn mixed(stage: &Stage) -> Classic {
    let a = alone(stage, &["range"]).await;
    let reply = stage.beat("b", 0, &[]).await.unwrap();
    assert_eq!((reply.epoch, count(reply.assignment.as_ref())), (2, 0));
    a
}

#[tokio::test]
async fn a_classic_group_goes_over_and_its_members_share_with_those_of_the_new_protocol() {
    let mut stage = Stage::new("bidirectional").await;
    let mut a = mixed(&stage).await;
    assert_eq!(stage.kind(), ("consumer", "Reconciling"));
    let now = stage.facts();
    stage.restart("bidirectional").await;
    assert_eq!(stage.facts(), now, "in the middle of it");
    assert_eq!(stage.coordinator.describe("g"), Ok(None));
    // The member holds what it held, and its commits are good until it has joined again.
    assert_eq!(a.commit(&stage).await, Ok(()));
    assert_eq!(a.beat(&stage), Err(GroupError::RebalanceInProgress));
    assert_eq!(a.sync(&stage, &[]).await, Err(GroupError::RebalanceInProgress));
    assert_eq!(
        count(stage.beat("b", 2, &[]).await.unwrap().assignment.as_ref()),
        0
    );
    // An eager one gives everything up before it joins.
    a.owned.clear();
    let reply = a.join(&stage, "x").await;
    assert_eq!((reply.error, reply.generation, &*reply.leader), (None, 2, ""));
    assert_eq!((&*reply.member_id, reply.members.len()), ("a", 0));
    assert_eq!(reply.protocol_type.as_deref(), Some("consumer"));
    let held = a.sync(&stage, &[]).await.unwrap();
    assert_eq!((held.len(), a.beat(&stage)), (2, Ok(())));
    let reply = stage.beat("b", 2, &[]).await.unwrap();
    assert_eq!(count(reply.assignment.as_ref()), 2);
    assert_eq!(stage.kind(), ("consumer", "Stable"));
    let stale = Classic {
        generation: 1,
        ..a.clone()
    };
    let illegal = Err(GroupError::IllegalGeneration);
    assert_eq!(stale.beat(&stage), illegal);
    assert_eq!(stale.commit(&stage).await, illegal);
    assert_eq!(stale.sync(&stage, &[]).await.map(drop), illegal);
    assert_eq!(a.commit(&stage).await, Ok(()));
    let mut other = a.clone();
    other.protocols = vec!["roundrobin"];
    assert_eq!(
        other.sync(&stage, &[]).await,
        Err(GroupError::InconsistentProtocol)
    );
    // Members of one protocol do not speak for those of the other.
    assert_eq!(stage.beat("a", 2, &[]).await, Err(GroupError::UnknownMember));
    assert_eq!(stage.beat("a", -1, &[]).await, Err(GroupError::UnknownMember));
    other.id = "b".into();
    assert_eq!(other.beat(&stage), Err(GroupError::UnknownMember));
    assert_eq!(other.leave(&stage), Err(GroupError::UnknownMember));
    // Who leaves makes room.
    assert_eq!(a.leave(&stage), Ok(()));
    let reply = stage.beat("b", 2, &[0, 1]).await.unwrap();
    assert_eq!((reply.epoch, count(reply.assignment.as_ref())), (3, 4));
}

#[tokio::test]
async fn a_cooperative_member_keeps_what_stays() {
    let stage = Stage::new("bidirectional").await;
    let mut a = mixed(&stage).await;
    // It says that it still has everything, so it is told first what to keep.
    assert_eq!(a.join(&stage, "x").await.generation, 1);
    a.owned = a.sync(&stage, &[]).await.unwrap();
    assert_eq!(a.owned.len(), 2);
    assert_eq!(
        count(stage.beat("b", 2, &[]).await.unwrap().assignment.as_ref()),
        0
    );
    assert_eq!(a.beat(&stage), Err(GroupError::RebalanceInProgress));
    assert_eq!(a.join(&stage, "x").await.generation, 2);
    assert_eq!(a.sync(&stage, &[]).await.unwrap(), a.owned);
    assert_eq!(a.beat(&stage), Ok(()));
    assert_eq!(
        count(stage.beat("b", 2, &[]).await.unwrap().assignment.as_ref()),
        2
    );
    // What others give up it fetches by joining again.
    stage.beat("b", -1, &[]).await.unwrap();
    assert_eq!(stage.kind(), ("classic", "PreparingRebalance"));
}

#[tokio::test]
async fn a_member_joins_again_when_what_it_waits_for_is_free() {
    let stage = Stage::new("bidirectional").await;
    let reply = stage.beat("b", 0, &[]).await.unwrap();
    assert_eq!(count(reply.assignment.as_ref()), 4);
    let mut a = Classic::new();
    let mut careful = a.request("a");
    careful.two_step = true;
    let reply = stage.coordinator.join("g", careful).await;
    assert_eq!(
        (reply.error, &*reply.member_id),
        (Some(GroupError::MemberIdRequired), "a")
    );
    a.id = reply.member_id;
    assert_eq!(a.join(&stage, "x").await.generation, 2);
    assert_eq!(a.sync(&stage, &[]).await, Ok(vec![]));
    assert_eq!(a.beat(&stage), Ok(()), "nothing is free yet");
    let kept = stage
        .beat("b", 1, &[0, 1, 2, 3])
        .await
        .unwrap()
        .assignment
        .unwrap();
    let kept: Vec<i32> = kept.into_values().flatten().collect();
    assert_eq!(a.beat(&stage), Ok(()));
    assert_eq!(stage.beat("b", 1, &kept).await.unwrap().epoch, 2);
    assert_eq!(a.beat(&stage), Err(GroupError::RebalanceInProgress));
    a.join(&stage, "x").await;
    assert_eq!(a.sync(&stage, &[]).await.unwrap().len(), 2);
    assert_eq!(a.beat(&stage), Ok(()));
}

#[tokio::test]
async fn the_last_member_of_the_new_protocol_leaves_a_classic_group_behind() {
    for by_time in [false, true] {
        let mut stage = Stage::new("bidirectional").await;
        let mut a = mixed(&stage).await;
        a.owned.clear();
        a.join(&stage, "x").await;
        a.owned = a.sync(&stage, &[]).await.unwrap();
        if by_time {
            for _ in 0..5 {
                stage.pass(9_000);
                let _ = a.beat(&stage);
            }
        } else {
            stage.beat("b", -1, &[]).await.unwrap();
        }
        assert_eq!(stage.kind(), ("classic", "PreparingRebalance"));
        assert_eq!(stage.facts(), None);
        assert_eq!(a.beat(&stage), Err(GroupError::RebalanceInProgress));
        stage.restart("bidirectional").await;
        assert_eq!(
            stage.kind(),
            ("classic", "PreparingRebalance"),
            "for the next one too"
        );
        assert_eq!(stage.facts(), None);
        assert_eq!(a.beat(&stage), Err(GroupError::RebalanceInProgress));
        let reply = a.join(&stage, "x").await;
        assert_eq!((reply.generation, &*reply.leader), (3, "a"));
        assert_eq!(a.sync(&stage, &[("a", &[0, 1, 2, 3])]).await.unwrap().len(), 4);
        assert_eq!(stage.kind(), ("classic", "Stable"));
    }
}

#[tokio::test]
async fn whoever_waits_in_a_group_that_goes_over_comes_again() {
    let stage = Stage::new("bidirectional").await;
    let mut a = alone(&stage, &["range"]).await;
    let coordinator = stage.coordinator.clone();
    let request = Classic::new().request("c");
    let joining = tokio::spawn(async move { coordinator.join("g", request).await });
    while stage.kind().1 != "PreparingRebalance" {
        tokio::task::yield_now().await;
    }
    stage.beat("b", 0, &[]).await.unwrap();
    assert_eq!(
        joining.await.unwrap().error,
        Some(GroupError::RebalanceInProgress)
    );
    a.owned.clear();
    assert_eq!(a.join(&stage, "x").await.error, None);
    // And one whose generation is there, but no assignment: its own word counts.
    let stage = Stage::new("bidirectional").await;
    let mut a = alone(&stage, &["range"]).await;
    let mut changed = a.request("x");
    changed.protocols[0].0 = "range".into();
    a.join(&stage, "x").await;
    let (coordinator, follower) = (stage.coordinator.clone(), Classic::new().request("c"));
    let joining = tokio::spawn(async move { coordinator.join("g", follower).await });
    while stage.kind().1 != "PreparingRebalance" {
        tokio::task::yield_now().await;
    }
    a.join(&stage, "x").await;
    let joined = joining.await.unwrap();
    let mut c = Classic::new();
    (c.id, c.generation) = (joined.member_id, joined.generation);
    let (waits, of) = (c.clone(), stage.coordinator.clone());
    let syncing = tokio::spawn(async move {
        let request = Sync {
            token: 0,
            member_id: waits.id,
            instance_id: None,
            generation: waits.generation,
            protocol_type: None,
            protocol: None,
            assignments: Vec::new(),
        };
        of.sync("g", request).await
    });
    tokio::task::yield_now().await;
    let reply = stage.beat("b", 0, &[]).await.unwrap();
    assert_eq!(count(reply.assignment.as_ref()), 0, "the first still has it all");
    assert_eq!(syncing.await.unwrap(), Err(GroupError::RebalanceInProgress));
}

#[tokio::test]
async fn the_policy_says_which_way_groups_may_go() {
    for (policy, up, down) in [
        ("disabled", false, false),
        ("upgrade", true, false),
        ("downgrade", false, true),
        ("Bidirectional", true, true),
    ] {
        let stage = Stage::new(policy).await;
        let a = alone(&stage, &["range"]).await;
        let reply = stage.beat("b", 0, &[]).await;
        assert_eq!(reply.is_ok(), up, "{policy}");
        if !up {
            assert_eq!(reply, Err(GroupError::GroupNotFound));
            assert_eq!(a.beat(&stage), Ok(()), "as if nothing had been");
        }
        let stage = Stage::new(policy).await;
        stage.beat("b", 0, &[]).await.unwrap();
        let mut a = Classic::new();
        assert_eq!(a.join(&stage, "a").await.error, None, "whatever the policy");
        stage.beat("b", -1, &[]).await.unwrap();
        let kind = if down { "classic" } else { "consumer" };
        assert_eq!(stage.kind().0, kind, "{policy}");
    }
    assert_eq!("sideways".parse::<Migration>(), Err(()));
    for name in ["bidirectional", "upgrade", "downgrade", "disabled"] {
        assert_eq!(name.parse::<Migration>().unwrap().name(), name);
    }
}

#[tokio::test]
async fn groups_that_are_none_of_consumers_stay_what_they_are() {
    let stage = Stage::new("bidirectional").await;
    let mut worker = Classic::new().request("w");
    worker.protocol_type = "connect".into();
    stage.coordinator.join("g", worker).await;
    assert_eq!(stage.beat("b", 0, &[]).await, Err(GroupError::GroupNotFound));
    let stage = Stage::new("bidirectional").await;
    let mut odd = Classic::new().request("o");
    odd.protocols[0].1 = Bytes::from_static(b"x");
    stage.coordinator.join("g", odd).await;
    assert_eq!(stage.beat("b", 0, &[]).await, Err(GroupError::GroupNotFound));
    assert_eq!(stage.kind().0, "classic");
    // Nor do such members join others.
    let stage = Stage::new("bidirectional").await;
    mixed(&stage).await;
    let mut worker = Classic::new().request("w");
    worker.protocol_type = "connect".into();
    let inconsistent = Some(GroupError::InconsistentProtocol);
    assert_eq!(stage.coordinator.join("g", worker).await.error, inconsistent);
    let mut odd = Classic::new().request("o");
    odd.protocols[0].1 = Bytes::from_static(b"x");
    assert_eq!(stage.coordinator.join("g", odd).await.error, inconsistent);
    let mut other = Classic::new();
    other.protocols = vec!["roundrobin"];
    assert_eq!(other.join(&stage, "o").await.error, inconsistent);
    let mut hasty = Classic::new().request("h");
    hasty.session_timeout_ms = 1;
    let reply = stage.coordinator.join("g", hasty).await;
    assert_eq!(reply.error, Some(GroupError::InvalidSessionTimeout));
}

#[tokio::test]
async fn classic_members_have_their_own_times() {
    // Silent for longer than its session.
    let stage = Stage::new("upgrade").await;
    mixed(&stage).await;
    stage.pass(10_000);
    let reply = stage.beat("b", 2, &[]).await.unwrap();
    assert_eq!(count(reply.assignment.as_ref()), 4);
    // Told to join again, alive, and late.
    let stage = Stage::new("upgrade").await;
    let a = mixed(&stage).await;
    for _ in 0..7 {
        assert_eq!(a.beat(&stage), Err(GroupError::RebalanceInProgress));
        stage.beat("b", 2, &[]).await.unwrap();
        stage.pass(9_000);
    }
    assert_eq!(a.beat(&stage), Err(GroupError::UnknownMember));
    // Joined, alive, and never asks for its assignment.
    let stage = Stage::new("upgrade").await;
    let mut a = mixed(&stage).await;
    a.owned.clear();
    a.join(&stage, "x").await;
    for _ in 0..7 {
        assert_eq!(a.beat(&stage), Ok(()));
        stage.beat("b", 2, &[]).await.unwrap();
        stage.pass(9_000);
    }
    assert_eq!(a.beat(&stage), Err(GroupError::UnknownMember));
}

#[tokio::test]
async fn static_instances_change_their_protocol_too() {
    let stage = Stage::new("bidirectional").await;
    let mut a = Classic::new();
    a.instance = Some("i".into());
    a.join(&stage, "a").await;
    a.sync(&stage, &[("a", &[0, 1, 2, 3])]).await.unwrap();
    // As the consumer protocol's it gets its place and what it had.
    let request = Heartbeat {
        member_id: "b".into(),
        instance_id: Some("i".into()),
        rebalance_timeout_ms: Some(60_000),
        topics: Some(["t".to_owned()].into()),
        owned: Some(Partitions::new()),
        ..Heartbeat::default()
    };
    let reply = stage.coordinator.consumer_heartbeat("g", request).await.unwrap();
    assert_eq!(count(reply.assignment.as_ref()), 4);
    assert_eq!(a.beat(&stage), Err(GroupError::FencedInstance));
    let mut c = Classic::new();
    c.join(&stage, "c").await;
    // And back: nobody of the consumer protocol is left, so all join a classic group.
    let mut back = Classic::new();
    back.instance = Some("i".into());
    let (coordinator, request) = (stage.coordinator.clone(), back.request("d"));
    let joining = tokio::spawn(async move { coordinator.join("g", request).await });
    while stage.kind() != ("classic", "PreparingRebalance") {
        tokio::task::yield_now().await;
    }
    c.join(&stage, "x").await;
    let reply = joining.await.unwrap();
    assert_eq!((reply.error, reply.generation), (None, c.generation));
    assert_eq!(&*reply.member_id, "d");
    assert_eq!(stage.coordinator.describe("g").unwrap().unwrap().members.len(), 2);
}

#[tokio::test]
async fn a_static_member_of_a_mixed_group_comes_back_without_its_id() {
    let stage = Stage::new("bidirectional").await;
    stage.beat("b", 0, &[]).await.unwrap();
    let mut a = Classic::new();
    a.instance = Some("i".into());
    a.join(&stage, "a").await;
    let mut again = a.clone();
    again.id.clear();
    assert_eq!(again.join(&stage, "a2").await.member_id, "a2");
    assert_eq!(a.beat(&stage), Err(GroupError::FencedInstance));
    assert_eq!(a.join(&stage, "x").await.error, Some(GroupError::FencedInstance));
    // An operator removes it by its instance.
    let who = [(String::new(), Some("i".to_owned()))];
    assert_eq!(stage.coordinator.leave("g", &who), Ok(vec![Ok(())]));
    assert_eq!(again.beat(&stage), Err(GroupError::UnknownMember));
}

#[tokio::test]
async fn new_partitions_reach_a_group_of_classic_members_only() {
    let mut stage = Stage::new("upgrade").await;
    stage.beat("b", 0, &[]).await.unwrap();
    let mut a = Classic::new();
    a.join(&stage, "a").await;
    stage.beat("b", -1, &[]).await.unwrap();
    assert_eq!(a.beat(&stage), Err(GroupError::RebalanceInProgress));
    a.join(&stage, "x").await;
    assert_eq!(a.sync(&stage, &[]).await.unwrap().len(), 4);
    assert_eq!(a.beat(&stage), Ok(()));
    stage.shelf.put("t", 6);
    stage.coordinator.set_topics(Arc::new(stage.shelf.copy()));
    assert_eq!(a.beat(&stage), Err(GroupError::RebalanceInProgress));
    a.join(&stage, "x").await;
    assert_eq!(a.sync(&stage, &[]).await.unwrap().len(), 6);
}

#[tokio::test]
async fn a_partition_that_a_leader_gave_to_two_goes_over_with_one() {
    let stage = Stage::new("bidirectional").await;
    let mut a = alone(&stage, &["range"]).await;
    let (coordinator, follower) = (stage.coordinator.clone(), Classic::new().request("c"));
    let joining = tokio::spawn(async move { coordinator.join("g", follower).await });
    while stage.kind().1 != "PreparingRebalance" {
        tokio::task::yield_now().await;
    }
    a.join(&stage, "x").await;
    joining.await.unwrap();
    let twice: [(&str, &[i32]); 2] = [("a", &[0, 1]), ("c", &[1, 2, 3])];
    assert_eq!(a.sync(&stage, &twice).await, Ok(vec![0, 1]));
    stage.beat("b", 0, &[]).await.unwrap();
    let held = |group: &ConsumerGroup, _: &dyn Topics| {
        let of = |id: &str| group.current(id).assigned.into_values().flatten();
        let of = |id: &str| of(id).map(|(partition, _)| partition).collect::<Vec<_>>();
        (of("a"), of("c"), of("b"))
    };
    let held = stage.coordinator.consumer("g", held).unwrap().unwrap();
    assert_eq!(held, (vec![0, 1], vec![2, 3], vec![]));
}
