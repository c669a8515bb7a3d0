//! Random sequences of events against a coordinator, over a journal in memory: members of both protocols that join, sync,
//! commit, lie, fall silent and leave, groups that go from one protocol to the other, topics that come and go, appends that fail, coordinators that are lost.
//!
//! `TRADEWIND_FUZZ_RUNS` says how many runs (4 if not said), `TRADEWIND_FUZZ_SEED` where the seeds begin. A failure
//! names its seed; the same seed repeats it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinHandle;
use tradewind_wire::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicPartition, Versioned,
};

use super::consumer::tests::{Shelf, facts};
use super::coordinator_tests::{HandClock, coordinator, join, loaded};
use super::*;

const GROUPS: [&str; 3] = ["g", "h", "i"];
const TOPICS: [&str; 4] = ["a1", "a2", "b1", "b2"];
const EVENTS: usize = 500;

/// A journal that refuses appends while it is broken.
#[derive(Clone)]
struct Paper {
    records: Arc<Mutex<Vec<Entry>>>,
    broken: Arc<AtomicBool>,
}

impl Journal for Paper {
    fn append(&self, entries: &[Entry]) -> Result<i64, GroupError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(GroupError::Unavailable);
        }
        let mut records = self.records.lock().unwrap();
        let base = records.len() as i64;
        records.extend_from_slice(entries);
        Ok(base)
    }

    fn committed(&self, _: i64, _: Duration) -> BoxFuture<'static, Result<(), GroupError>> {
        async { Ok(()) }.boxed()
    }

    fn replay(&self, mut each: Box<EachRecord>) -> BoxFuture<'static, Result<(), GroupError>> {
        let records = self.records.lock().unwrap().clone();
        async move {
            for (offset, (key, value)) in (0..).zip(records) {
                each(offset, &key, value.as_deref());
            }
            Ok(())
        }
        .boxed()
    }
}

/// What a member of a classic group waits for.
enum Waiting {
    Nothing,
    Join(JoinHandle<JoinReply>),
    Sync(JoinHandle<Result<SyncReply, GroupError>>),
}

struct Classic {
    group: &'static str,
    instance: Option<String>,
    id: String,
    generation: i32,
    leads: bool,
    members: Vec<String>,
    /// What it was assigned last, and says that it owns.
    owned: Vec<TopicPartition>,
    waiting: Waiting,
}

struct Consumer {
    group: &'static str,
    instance: Option<String>,
    id: String,
    epoch: i32,
    owned: Partitions,
}

/// What may be stored of a position: the value that was acknowledged last, or one that was tried since.
type Allowed = BTreeMap<(&'static str, &'static str, i32), BTreeSet<Option<i64>>>;

struct World {
    rng: StdRng,
    coordinator: Coordinator,
    clock: Arc<HandClock>,
    /// The journal of each group; they are all of different partitions.
    papers: BTreeMap<&'static str, Paper>,
    broken: Arc<AtomicBool>,
    /// Whether appends may fail in this run.
    fragile: bool,
    leader_epoch: i32,
    shelf: Shelf,
    classics: Vec<Classic>,
    consumers: Vec<Consumer>,
    next: i64,
    allowed: Allowed,
    /// The highest generation that this coordinator gave out, by group.
    generations: BTreeMap<&'static str, i32>,
    /// What each group was after the last event, if anybody was in it, and how often one with members became another.
    kinds: BTreeMap<&'static str, &'static str>,
    upgrades: usize,
    downgrades: usize,
}

impl World {
    async fn new(seed: u64) -> Self {
        let (coordinator, clock) = coordinator();
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            coordinator,
            clock,
            papers: BTreeMap::new(),
            broken: Arc::default(),
            fragile: seed % 2 == 1,
            leader_epoch: 0,
            shelf: Shelf::default(),
            classics: Vec::new(),
            consumers: Vec::new(),
            next: 0,
            allowed: Allowed::new(),
            generations: BTreeMap::new(),
            kinds: BTreeMap::new(),
            upgrades: 0,
            downgrades: 0,
        };
        for topic in TOPICS {
            world.shelf.put(topic, 4);
        }
        world.coordinator.set_topics(Arc::new(world.shelf.copy()));
        for (number, group) in (0..).zip(GROUPS.iter().cycle().take(9)) {
            let instance = (number % 4 == 0).then(|| format!("s{number}"));
            world.classics.push(Classic {
                group,
                instance: instance.clone(),
                id: String::new(),
                generation: -1,
                leads: false,
                members: Vec::new(),
                owned: Vec::new(),
                waiting: Waiting::Nothing,
            });
            world.consumers.push(Consumer {
                group,
                instance,
                id: format!("c{number}"),
                epoch: 0,
                owned: Partitions::new(),
            });
        }
        for group in GROUPS {
            let broken = Arc::clone(&world.broken);
            let records = Arc::default();
            world.papers.insert(group, Paper { records, broken });
        }
        world.elect().await;
        world
    }

    async fn elect(&mut self) {
        self.leader_epoch += 1;
        self.broken.store(false, Ordering::SeqCst);
        self.generations.clear();
        for group in GROUPS {
            let partition = self.coordinator.partition_of(group);
            self.coordinator
                .elected(partition, self.leader_epoch, Arc::new(self.papers[group].clone()));
        }
        for group in GROUPS {
            loaded(&self.coordinator, group).await;
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    async fn step(&mut self) {
        if self.fragile {
            let broken = self.chance(10);
            self.broken.store(broken, Ordering::SeqCst);
        }
        match self.rng.random_range(0..100) {
            0..35 => self.classic().await,
            35..75 => self.consumer().await,
            75..88 => self.pass(),
            88..92 => self.change_topics(),
            92..95 => self.delete().await,
            95..97 => {
                self.coordinator
                    .resigned(self.coordinator.partition_of(GROUPS[0]));
                self.elect().await;
            }
            _ => self.check_replay().await,
        }
        // Tasks that can go on do so now, so that a seed means one sequence.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        self.collect().await;
        self.check();
        self.watch();
    }

    /// Counts groups that changed their protocol with members in them.
    fn watch(&mut self) {
        for listing in self.coordinator.list().unwrap() {
            let Some(group) = GROUPS.into_iter().find(|group| *group == listing.id) else {
                continue;
            };
            let now = if listing.state == "Empty" {
                ""
            } else {
                listing.kind
            };
            let before = self.kinds.insert(group, now).unwrap_or_default();
            self.upgrades += usize::from((before, now) == ("classic", "consumer"));
            self.downgrades += usize::from((before, now) == ("consumer", "classic"));
        }
    }

    /// What the leader of a classic group gives each member: as a rule every partition to one, sometimes to several, and
    /// sometimes nonsense.
    fn assignments(&mut self, members: &[String]) -> Vec<(String, Bytes)> {
        let (twice, nonsense) = (self.chance(10), self.chance(5));
        let of = |at: usize| {
            let mine = |number: &i32| twice || *number as usize % members.len() == at;
            let of_topic = |topic: &&str| TopicPartition {
                topic: (*topic).into(),
                partitions: (0..4).filter(mine).collect(),
            };
            let all = ConsumerProtocolAssignment {
                assigned_partitions: TOPICS.iter().map(of_topic).collect(),
                user_data: None,
            };
            if nonsense {
                Bytes::from_static(b"x")
            } else {
                all.to_bytes(1).unwrap()
            }
        };
        let members = members.iter().enumerate();
        members.map(|(at, id)| (id.clone(), of(at))).collect()
    }

    fn pass(&mut self) {
        let ms = *[10, 500, 3_000, 12_000, 70_000].choose(&mut self.rng).unwrap();
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
        for shard in self.coordinator.shards() {
            shard.tick(&self.coordinator.inner.env);
        }
    }

    fn change_topics(&mut self) {
        let topic = *TOPICS.choose(&mut self.rng).unwrap();
        let partitions = self.rng.random_range(0..8);
        let grows = self.shelf.topic(topic).is_none_or(|(_, now)| partitions > now);
        if grows || partitions == 0 {
            self.shelf.put(topic, partitions);
            self.coordinator.set_topics(Arc::new(self.shelf.copy()));
        }
    }

    async fn delete(&mut self) {
        let group = *GROUPS.choose(&mut self.rng).unwrap();
        if self.coordinator.delete(group).await.is_ok() {
            self.allowed.retain(|(of, _, _), _| *of != group);
            self.generations.remove(group);
        }
    }

    async fn classic(&mut self) {
        let at = self.rng.random_range(0..self.classics.len());
        let what = self.rng.random_range(0..100);
        let client = &self.classics[at];
        if !matches!(client.waiting, Waiting::Nothing) && what < 90 {
            return;
        }
        let (group, id, generation) = (client.group, client.id.clone(), client.generation);
        match what {
            0..45 => {
                let topics: Vec<&str> = TOPICS.choose_multiple(&mut self.rng, 2).copied().collect();
                let mut request = join(&id, &topics);
                if self.chance(50) {
                    self.classics[at].owned.clear();
                }
                let subscription = ConsumerProtocolSubscription {
                    topics: topics.iter().map(|topic| (*topic).into()).collect(),
                    owned_partitions: self.classics[at].owned.clone(),
                    ..Default::default()
                };
                if self.chance(98) {
                    request.protocols[0].1 = subscription.to_bytes(1).unwrap();
                }
                self.next += 1;
                request.fresh_id = format!("m{}", self.next);
                request.instance_id = self.classics[at].instance.clone();
                request.two_step = self.chance(50);
                request.session_timeout_ms = 10_000;
                request.rebalance_timeout_ms = 20_000;
                let coordinator = self.coordinator.clone();
                let waiting = tokio::spawn(async move { coordinator.join(group, request).await });
                self.classics[at].waiting = Waiting::Join(waiting);
            }
            45..70 => {
                let members = self.classics[at].members.clone();
                let given = self.assignments(&members);
                let client = &self.classics[at];
                let request = Sync {
                    token: 0,
                    member_id: id,
                    instance_id: client.instance.clone(),
                    generation,
                    protocol_type: None,
                    protocol: None,
                    assignments: if client.leads { given } else { Vec::new() },
                };
                let coordinator = self.coordinator.clone();
                let waiting = tokio::spawn(async move { coordinator.sync(group, request).await });
                self.classics[at].waiting = Waiting::Sync(waiting);
            }
            70..80 => {
                let committer = self.committer(at, generation);
                let _ = self.coordinator.heartbeat(group, &committer);
            }
            80..92 => {
                let committer = self.committer(at, generation);
                self.commit(group, committer).await;
            }
            _ => {
                let instance = self.classics[at].instance.clone();
                let _ = self.coordinator.leave(group, &[(id, instance)]);
                self.classics[at].id.clear();
            }
        }
    }

    fn committer(&mut self, at: usize, generation: i32) -> Committer {
        let outside = self.chance(10);
        let client = &self.classics[at];
        Committer {
            member_id: if outside { String::new() } else { client.id.clone() },
            instance_id: client.instance.clone().filter(|_| !outside),
            generation: if outside { -1 } else { generation },
            knows_epochs: true,
        }
    }

    async fn commit(&mut self, group: &'static str, committer: Committer) {
        self.next += 1;
        let topic = *TOPICS.choose(&mut self.rng).unwrap();
        let position = Position {
            topic: topic.to_owned(),
            partition: self.rng.random_range(0..2),
            offset: self.next,
            leader_epoch: -1,
            metadata: String::new(),
            retention_ms: None,
        };
        let key = (group, topic, position.partition);
        let allowed = self.allowed.entry(key).or_insert_with(|| [None].into());
        match self.coordinator.commit(group, &committer, vec![position]).await {
            Ok(outcomes) if outcomes == [Ok(())] => *allowed = [Some(self.next)].into(),
            _ => {
                allowed.insert(Some(self.next));
            }
        }
    }

    /// What came back meanwhile.
    async fn collect(&mut self) {
        for client in &mut self.classics {
            match std::mem::replace(&mut client.waiting, Waiting::Nothing) {
                Waiting::Join(handle) if handle.is_finished() => {
                    let reply = handle.await.unwrap();
                    match reply.error {
                        None => {
                            // Where nobody leads each member has an epoch of its own.
                            if !reply.leader.is_empty() {
                                let last = self.generations.entry(client.group).or_insert(0);
                                assert!(reply.generation >= *last, "generations rise");
                                *last = reply.generation;
                            }
                            client.id.clone_from(&reply.member_id);
                            client.generation = reply.generation;
                            client.leads = reply.leader == reply.member_id;
                            client.members =
                                reply.members.into_iter().map(|member| member.member_id).collect();
                        }
                        Some(GroupError::MemberIdRequired) => client.id = reply.member_id,
                        Some(GroupError::UnknownMember | GroupError::FencedInstance) => client.id.clear(),
                        Some(_) => {}
                    }
                }
                Waiting::Sync(handle) if handle.is_finished() => {
                    let read = |reply: SyncReply| ConsumerProtocolAssignment::from_bytes(reply.assignment);
                    if let Ok(Ok(assignment)) = handle.await.unwrap().map(read) {
                        client.owned = assignment.assigned_partitions;
                    }
                }
                waiting => client.waiting = waiting,
            }
        }
    }

    async fn consumer(&mut self) {
        let at = self.rng.random_range(0..self.consumers.len());
        let (group, epoch) = (self.consumers[at].group, self.consumers[at].epoch);
        let what = self.rng.random_range(0..100);
        let joins = epoch <= 0 || what < 3;
        let topics: BTreeSet<String> = TOPICS
            .choose_multiple(&mut self.rng, 2)
            .map(|t| (*t).to_owned())
            .collect();
        let changes = joins || self.chance(5);
        let regex = self
            .chance(30)
            .then(|| (*["a.*", "b.", ""].choose(&mut self.rng).unwrap()).to_owned());
        let client = &mut self.consumers[at];
        let mut request = Heartbeat {
            member_id: client.id.clone(),
            epoch: if joins { 0 } else { epoch },
            instance_id: client.instance.clone(),
            rebalance_timeout_ms: joins.then_some(15_000),
            topics: changes.then_some(topics),
            regex: regex.filter(|_| changes),
            owned: Some(client.owned.clone()),
            ..Heartbeat::default()
        };
        if joins {
            client.owned.clear();
            request.owned = Some(Partitions::new());
        }
        match what {
            3..8 => request.epoch += 1,
            8..12 => request.epoch -= 1,
            12..16 => request.epoch = -1,
            16..20 => request.epoch = -2,
            20..25 => request.owned = None,
            25..35 => {
                let committer = Committer {
                    member_id: client.id.clone(),
                    instance_id: None,
                    generation: epoch,
                    knows_epochs: true,
                };
                return self.commit(group, committer).await;
            }
            _ => {}
        }
        let sent = request.epoch;
        let reply = self.coordinator.consumer_heartbeat(group, request).await;
        let lost = self.chance(5);
        let client = &mut self.consumers[at];
        match reply {
            Ok(_) if sent < 0 => {
                self.next += 1;
                client.id = format!("c{}", self.next);
                client.epoch = 0;
                client.owned.clear();
            }
            Ok(_) if lost => {}
            Ok(reply) => {
                client.epoch = reply.epoch;
                if let Some(assignment) = reply.assignment {
                    client.owned = assignment;
                }
            }
            Err(refusal) => {
                let again = [
                    GroupError::FencedEpoch,
                    GroupError::UnknownMember,
                    GroupError::FencedInstance,
                ];
                if again.contains(&refusal.error) {
                    client.epoch = 0;
                    client.owned.clear();
                }
            }
        }
    }

    /// What holds after every event.
    fn check(&self) {
        for group in GROUPS {
            let read = |group: &ConsumerGroup, _: &dyn Topics| {
                let mut holders = BTreeMap::new();
                for (id, _) in group.members() {
                    let current = group.current(id);
                    for (topic, partitions) in current.assigned.iter().chain(&current.revoking) {
                        for partition in partitions.keys() {
                            let other = holders.insert((*topic, *partition), id);
                            assert_eq!(other, None, "one holder of {topic}-{partition}, not also {id}");
                        }
                    }
                    assert!(current.epoch <= group.epoch(), "no member is ahead of its group");
                }
            };
            self.coordinator.consumer(group, read).unwrap();
        }
        for ((group, topic, partition), allowed) in &self.allowed {
            let read =
                |offsets: Option<&Offsets>| offsets?.committed(topic, *partition).map(|value| value.offset);
            let stored = self.coordinator.positions(group, read).unwrap();
            assert!(
                allowed.contains(&stored),
                "{group} {topic}-{partition}: {stored:?} of {allowed:?}"
            );
        }
    }

    /// A coordinator that reads the journal knows what this one knows.
    async fn check_replay(&self) {
        let (again, _) = coordinator();
        again.set_topics(Arc::new(self.shelf.copy()));
        for group in GROUPS {
            again.elected(again.partition_of(group), 1, Arc::new(self.papers[group].clone()));
            loaded(&again, group).await;
            let (now, then) = (picture(&self.coordinator, group), picture(&again, group));
            assert_eq!(now.positions, then.positions, "{group}");
            assert_eq!(now.consumer, then.consumer, "{group}");
            if let Some(classic) = now.classic.filter(|_| !self.fragile) {
                assert_eq!(Some(classic), then.classic, "{group}");
            }
        }
    }
}

/// What the log has to keep of a group.
struct Picture {
    positions: Vec<(String, i32, i64)>,
    consumer: Option<String>,
    /// Of a stable classic group.
    classic: Option<String>,
}

fn picture(coordinator: &Coordinator, group: &str) -> Picture {
    let read = |offsets: Option<&Offsets>| {
        let all = offsets.into_iter().flat_map(Offsets::iter);
        all.map(|(topic, partition, value)| (topic.to_owned(), partition, value.offset))
            .collect()
    };
    let shard = coordinator.shard(group).unwrap();
    let state = shard.active().unwrap();
    let classic = state.groups.get(group).filter(|entry| entry.consumer.is_none());
    let classic = classic.filter(|entry| entry.group.state() == GroupState::Stable);
    let classic = classic.map(|entry| {
        let mut value = entry.group.value();
        value.state_timestamp_ms = 0;
        // Members that join anew with other metadata before a generation begins are not written down.
        value
            .members
            .iter_mut()
            .for_each(|member| member.subscription.clear());
        format!("{value:?}")
    });
    drop(state);
    Picture {
        positions: coordinator.positions(group, read).unwrap(),
        consumer: coordinator.consumer(group, |group, _| facts(group)).unwrap(),
        classic,
    }
}

#[tokio::test]
async fn no_sequence_of_events_breaks_a_group() {
    let number = |name: &str, default: u64| {
        let set = std::env::var(name).ok().and_then(|text| text.parse().ok());
        set.unwrap_or(default)
    };
    let (first, runs) = (number("TRADEWIND_FUZZ_SEED", 1), number("TRADEWIND_FUZZ_RUNS", 4));
    let (mut upgrades, mut downgrades) = (0, 0);
    for seed in first..first + runs {
        println!("seed {seed}");
        let mut world = World::new(seed).await;
        for _ in 0..EVENTS {
            world.step().await;
        }
        world.elect().await;
        world.check();
        upgrades += world.upgrades;
        downgrades += world.downgrades;
    }
    println!("{upgrades} upgrades, {downgrades} downgrades");
    assert!(
        runs < 4 || upgrades > 0 && downgrades > 0,
        "groups go over and back"
    );
}
