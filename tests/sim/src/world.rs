//! One simulated cluster with its clients: what happens to it, in steps of a millisecond, all derived from a seed.
//!
//! First the cluster is founded, then a storm of faults goes over it while clients write, then everything is repaired and
//! the cluster must come back: every partition led, every copy in sync and equal, writes accepted. The oracle looks at it
//! after every step.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tradewind_cluster::command::{Command, CreateTopic};
use tradewind_cluster::threads::{self, Simulation};
use tradewind_wire::batch::{Batch, BatchBuilder, TimestampType};
use tradewind_wire::clock::Clock;
use tradewind_wire::compression::Codec;
use tradewind_wire::ids::{NodeId, TopicId};

use crate::entropy::{Dice, seed_system};
use crate::host::{Host, Site};
use crate::net::Net;
use crate::oracle::{Key, Oracle};
use crate::storm::Storm;
use crate::trace::Trace;

/// How long a client waits for an answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// What a run is made of.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Everything else follows from it.
    pub seed: u64,
    /// How long the storm lasts, in milliseconds.
    pub storm_ms: u64,
    /// How long founding, and coming back, may take, in milliseconds.
    pub patience_ms: u64,
    /// Whether to print what happens.
    pub verbose: bool,
    /// Whether to print every datagram, too.
    pub everything: bool,
}

/// What a run came to, when nothing was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// A number over everything that happened.
    pub digest: u32,
    /// Simulated milliseconds.
    pub took_ms: u64,
    /// Acknowledged records.
    pub acknowledged: usize,
    /// Writes without an acknowledgement.
    pub unknown: usize,
    /// Leader epochs.
    pub reigns: usize,
    /// Faults.
    pub faults: usize,
}

/// One write's end, as its client saw it.
struct Answer {
    key: Key,
    offset: i64,
    epoch: i32,
    values: Vec<u64>,
    committed: bool,
}

/// A cluster in its simulated surroundings.
pub struct World {
    /// Simulated milliseconds.
    pub now: u64,
    /// The machines.
    pub hosts: Vec<Host>,
    /// Between them.
    pub net: Net,
    /// What happened.
    pub trace: Trace,
    /// How long flushes take on each host at most, in milliseconds.
    pub flush_ms: Arc<Mutex<BTreeMap<NodeId, u64>>>,
    /// Until when a host does nothing.
    pub stalled: BTreeMap<NodeId, u64>,
    /// When a host that is down starts again.
    pub restarts: BTreeMap<NodeId, u64>,
    /// When a host that was asked to stop is killed.
    pub stops: BTreeMap<NodeId, u64>,
    /// The topics, with how many partitions each has.
    pub topics: Vec<(TopicId, i32)>,
    oracle: Oracle,
    order: Dice,
    clients: Dice,
    answers: Arc<Mutex<Vec<Answer>>>,
    next_value: u64,
    unknown: usize,
    patience_ms: u64,
}

/// Runs one seed in `dir`, an empty directory.
pub fn run(plan: Plan, dir: &Path) -> Result<Summary> {
    seed_system(plan.seed);
    let trace = Trace::new(plan.verbose, plan.everything);
    let mut world = World::new(plan, dir, &trace)?;
    let ended = world.play(plan);
    let at = format!("at {:.3} s", world.now as f64 / 1_000.0);
    let faults = ended.context(at)?;
    Ok(Summary {
        digest: trace.digest(),
        took_ms: world.now,
        acknowledged: world.oracle.acknowledgements(),
        unknown: world.unknown,
        reigns: world.oracle.reigns(),
        faults,
    })
}

impl World {
    fn new(plan: Plan, dir: &Path, trace: &Trace) -> Result<Self> {
        let net = Net::new(plan.seed, trace.clone());
        let site = Arc::new(Site::new(dir, plan.seed, 3, net.clone())?);
        let flush_ms: Arc<Mutex<BTreeMap<NodeId, u64>>> = Arc::default();
        let (raft, disk, limits) = (
            Dice::new(plan.seed, "raft"),
            Dice::new(plan.seed, "disk"),
            Arc::clone(&flush_ms),
        );
        threads::simulate(Simulation {
            random: Box::new(move || raft.next()),
            flush_takes: Box::new(move |node| {
                let limits = limits.lock().unwrap_or_else(|p| p.into_inner());
                let most = limits.get(&node).copied().unwrap_or(3);
                Duration::from_millis(disk.range(0, most + 1))
            }),
        });
        Ok(Self {
            now: 0,
            hosts: site.nodes.iter().map(|node| Host::new(&site, *node)).collect(),
            net,
            trace: trace.clone(),
            flush_ms,
            stalled: BTreeMap::new(),
            restarts: BTreeMap::new(),
            stops: BTreeMap::new(),
            topics: Vec::new(),
            oracle: Oracle::default(),
            order: Dice::new(plan.seed, "order"),
            clients: Dice::new(plan.seed, "clients"),
            answers: Arc::default(),
            next_value: 1,
            unknown: 0,
            patience_ms: plan.patience_ms,
        })
    }

    fn play(&mut self, plan: Plan) -> Result<usize> {
        self.found(plan.seed).context("founding the cluster")?;
        let mut storm = Storm::new(plan.seed, self.now);
        let end = self.now + plan.storm_ms;
        self.tell("the storm begins");
        while self.now < end {
            storm.blow(self)?;
            self.write();
            self.step()?;
        }
        self.repair()?;
        self.come_back().context("coming back after the storm")?;
        Ok(storm.faults())
    }

    /// Says what happens.
    pub fn tell(&self, what: &str) {
        self.trace.tell(self.now, what);
    }

    /// Lets a millisecond pass.
    pub fn step(&mut self) -> Result<()> {
        self.now += 1;
        self.net.deliver(self.now);
        let now = self.now;
        let due: Vec<NodeId> = self
            .restarts
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(n, _)| *n)
            .collect();
        for node in due {
            self.restarts.remove(&node);
            self.tell(&format!("node {node} starts"));
            self.host(node)?.start(now)?;
        }
        let due: Vec<NodeId> = self
            .stops
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(n, _)| *n)
            .collect();
        for node in due {
            self.stops.remove(&node);
            if self.host(node)?.is_up() {
                self.tell(&format!("node {node} is gone"));
                self.host(node)?.crash(None)?;
                self.restarts.insert(node, now + 500);
            }
        }
        // Who comes first in a millisecond is chance.
        let first = self.order.range(0, self.hosts.len() as u64) as usize;
        for i in 0..self.hosts.len() {
            let at = (first + i) % self.hosts.len();
            let host = &mut self.hosts[at];
            if self.stalled.get(&host.node).is_none_or(|until| *until <= now) {
                host.step(now);
            }
        }
        self.daemons_live()?;
        self.hear()?;
        self.oracle.look(&self.hosts)
    }

    /// A daemon that ends by itself is started again, as a service manager would.
    fn daemons_live(&mut self) -> Result<()> {
        let ended: Vec<(NodeId, String)> = self
            .hosts
            .iter()
            .filter_map(|host| Some((host.node, host.ended()?)))
            .collect();
        for (node, why) in ended {
            ensure!(
                why.starts_with("joining"),
                "the daemon on node {node} ended: {why}"
            );
            self.tell(&format!("node {node} ends: {why}"));
            self.host(node)?.crash(None)?;
            self.restarts.insert(node, self.now + 1_000);
        }
        Ok(())
    }

    /// One of the hosts.
    pub fn host(&mut self, node: NodeId) -> Result<&mut Host> {
        let found = self.hosts.iter_mut().find(|host| host.node == node);
        found.with_context(|| format!("there is no node {node}"))
    }

    fn found(&mut self, seed: u64) -> Result<()> {
        for host in &mut self.hosts {
            host.start(self.now)?;
        }
        self.until("all daemons have joined", |world| {
            world.hosts.iter().all(Host::has_joined)
        })?;
        let dice = Dice::new(seed, "topics");
        for (name, flushed) in [("flushed", true), ("written", false)] {
            let partitions = 2;
            let id = TopicId::random(&dice);
            let mut topic = CreateTopic::new(name, id, partitions, 3);
            if flushed {
                topic.configs.insert("flush.messages".to_owned(), "1".to_owned());
            }
            let propose = |cluster: &tradewind_cluster::Cluster| {
                let (cluster, command) = (cluster.clone(), Command::CreateTopic(topic));
                async move { cluster.propose(command, CLIENT_PATIENCE).await }
            };
            self.hosts[0]
                .within(|runtime, cluster| drop(runtime.spawn(propose(cluster))))
                .context("node 1 is down")?;
            self.topics.push((id, partitions));
        }
        self.until("all partitions are led", Self::is_whole)
    }

    /// Whether every partition has a leader and all its copies in sync, equal and known to be.
    fn is_whole(&self) -> bool {
        let clusters: Vec<_> = self.hosts.iter().filter_map(Host::cluster).collect();
        let joined = self.hosts.iter().all(Host::has_joined);
        joined
            && clusters.len() == self.hosts.len()
            && self.keys().iter().all(|key| {
                clusters.iter().all(|cluster| {
                    let image = cluster.image();
                    let partition = image.partition(key.0, key.1);
                    let in_sync =
                        partition.is_some_and(|p| p.leader.is_some() && p.isr.len() == p.replicas.len());
                    let leader = partition.and_then(|p| p.leader);
                    let leader = clusters.iter().find(|c| Some(c.node_id()) == leader);
                    let end = leader
                        .and_then(|c| c.replica(key.0, key.1))
                        .map(|r| r.log().end());
                    let same = cluster.replica(key.0, key.1).is_some_and(|replica| {
                        Some(replica.log().end()) == end && Some(replica.high_watermark()) == end
                    });
                    in_sync && same
                })
            })
    }

    /// Every partition.
    pub fn keys(&self) -> Vec<Key> {
        let of = |(id, partitions): &(TopicId, i32)| {
            let id = *id;
            (0..*partitions).map(move |partition| (id, partition))
        };
        self.topics.iter().flat_map(of).collect()
    }

    fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) -> Result<()> {
        let end = self.now + self.patience_ms;
        while !condition(self) {
            if self.now >= end {
                bail!("not in time: {what}\n{}", self.state());
            }
            self.step()?;
        }
        self.tell(what);
        Ok(())
    }

    /// Perhaps a client writes to whoever says that it leads.
    fn write(&mut self) {
        if !self.clients.chance(60_000) {
            return;
        }
        let Some(&key) = self.clients.pick(&self.keys()) else {
            return;
        };
        let acks = if self.clients.chance(150_000) { 1 } else { -1 };
        let count = self.clients.range(1, 4);
        let leads = |host: &&Host| {
            let cluster = host.cluster();
            cluster.is_some_and(|cluster| cluster.replica(key.0, key.1).is_some_and(|r| r.is_leader()))
        };
        let leaders: Vec<&Host> = self.hosts.iter().filter(leads).collect();
        let Some(&host) = self.clients.pick(&leaders) else {
            return;
        };
        let values: Vec<u64> = (0..count).map(|i| self.next_value + i).collect();
        self.next_value += count;
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
        for value in &values {
            let mut bytes = value.to_be_bytes().to_vec();
            bytes.resize(8 + self.clients.range(0, 200) as usize, b'.');
            builder.append(host.clock.now_ms(), None, Some(&bytes), &[]);
        }
        let Ok(batch) = Batch::parse(builder.build()) else {
            return;
        };
        let answers = Arc::clone(&self.answers);
        let offset = host.within(|runtime, cluster| {
            let replica = cluster.replica(key.0, key.1)?;
            let (appended, epoch) = replica.append(batch, acks).ok()?;
            let offset = appended.base_offset;
            if acks == -1 {
                runtime.spawn(async move {
                    let answer = replica
                        .committed(appended.last_offset, epoch, CLIENT_PATIENCE)
                        .await;
                    let answer = Answer {
                        key,
                        offset,
                        epoch,
                        values,
                        committed: answer.is_ok(),
                    };
                    answers.lock().unwrap_or_else(|p| p.into_inner()).push(answer);
                });
            }
            Some(offset)
        });
        let (node, offset) = (host.node, offset.flatten());
        self.trace.note(self.now, || {
            format!("write {key:?} on node {node}, acks {acks}: {offset:?}")
        });
    }

    /// Takes in what clients were told.
    fn hear(&mut self) -> Result<()> {
        let answers = std::mem::take(&mut *self.answers.lock().unwrap_or_else(|p| p.into_inner()));
        for answer in answers {
            let Answer {
                key,
                offset,
                epoch,
                values,
                committed,
            } = answer;
            self.trace.note(self.now, || {
                format!("answer {key:?} {offset} {values:?} {committed}")
            });
            if !committed {
                self.unknown += values.len();
                continue;
            }
            for (offset, value) in (offset..).zip(values) {
                self.oracle.acknowledged(key, offset, value, epoch)?;
            }
        }
        Ok(())
    }

    fn repair(&mut self) -> Result<()> {
        self.tell("the storm is over");
        self.net.heal();
        self.stalled.clear();
        self.flush_ms.lock().unwrap_or_else(|p| p.into_inner()).clear();
        for host in &self.hosts {
            host.clock.set_skew(0);
            if !host.is_up() {
                self.restarts.entry(host.node).or_insert(self.now);
            }
        }
        Ok(())
    }

    fn come_back(&mut self) -> Result<()> {
        self.until("all partitions are whole again", Self::is_whole)?;
        let (before, partitions) = (self.oracle.acknowledgements(), self.keys().len());
        let end = self.now + self.patience_ms;
        while self.oracle.acknowledgements() < before + 4 * partitions {
            ensure!(
                self.now < end,
                "writes are not acknowledged any more\n{}",
                self.state()
            );
            self.write();
            self.step()?;
        }
        self.until("all copies are equal", Self::is_whole)?;
        self.oracle.settled(&self.hosts)
    }

    /// What each daemon thinks, for a person to read.
    fn state(&self) -> String {
        let mut text = String::new();
        for host in &self.hosts {
            let Some(cluster) = host.cluster() else {
                text += &format!("node {}: {host:?} is not up\n", host.node);
                continue;
            };
            let image = cluster.image();
            let standing = cluster.standing().borrow().clone();
            text += &format!("node {}: image {}, {standing:?}\n", host.node, image.index);
            for (topic, partition) in self.keys() {
                let known = image.partition(topic, partition);
                let copy = cluster.replica(topic, partition);
                let copy = copy.map(|copy| {
                    let log = copy.log();
                    (
                        log.end(),
                        log.flushed_end(),
                        copy.high_watermark(),
                        copy.failure(),
                    )
                });
                text += &format!(
                    "  {topic}-{partition}: {known:?}\n    end, flushed, watermark, failure: {copy:?}\n"
                );
            }
        }
        text
    }
}
