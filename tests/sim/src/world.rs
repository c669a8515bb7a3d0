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
use tradewind_cluster::command::{Command, CreateTopic, ElectionKind};
use tradewind_cluster::image::Image;
use tradewind_cluster::threads::{self, Simulation};
use tradewind_wire::ids::{NodeId, TopicId};

use crate::clients::{CLIENT_PATIENCE, Clients, keys_of};
use crate::entropy::{Dice, seed_system};
use crate::host::{Host, Site};
use crate::net::Net;
use crate::oracle::{Key, Oracle};
use crate::storm::Storm;
use crate::trace::Trace;
use crate::weather::Weather;

/// How long a partition is without a leader, all its daemons being there, before an operator accepts losses.
const OPERATOR_PATIENCE_MS: u64 = 5_000;

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
    /// Partitions whose records an operator gave up, because the last copies lost power with records that were not flushed.
    pub given_up: usize,
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
    /// What must hold.
    pub oracle: Oracle,
    /// Those who write.
    pub clients: Clients,
    weather: Weather,
    order: Dice,
    given_up: usize,
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
        unknown: world.clients.unknown(),
        reigns: world.oracle.reigns(),
        faults,
        given_up: world.given_up,
    })
}

impl World {
    fn new(plan: Plan, dir: &Path, trace: &Trace) -> Result<Self> {
        let weather = Weather::new(plan.seed);
        trace.tell(0, &format!("{weather:?}"));
        let net = Net::new(plan.seed, trace.clone());
        let site = Arc::new(Site::new(dir, plan.seed, weather.daemons, net.clone())?);
        let usual_flush = weather.flush_ms;
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
                let most = limits.get(&node).copied().unwrap_or(usual_flush);
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
            clients: Clients::new(plan.seed, &weather),
            weather,
            given_up: 0,
            patience_ms: plan.patience_ms,
        })
    }

    fn play(&mut self, plan: Plan) -> Result<usize> {
        self.found(plan.seed).context("founding the cluster")?;
        let mut storm = Storm::new(plan.seed, &self.weather, self.now);
        self.clients.begin(self.weather.producers, &self.keys());
        let end = self.now + plan.storm_ms;
        self.tell("the storm begins");
        while self.now < end {
            storm.blow(self)?;
            self.write(false);
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
        for plan in self.weather.topics.clone() {
            let id = TopicId::random(&dice);
            let mut topic = CreateTopic::new(plan.name, id, plan.partitions, plan.replicas);
            let flush = if plan.flushed { 1 } else { i64::MAX };
            topic
                .configs
                .insert("flush.messages".to_owned(), flush.to_string());
            topic
                .configs
                .insert("min.insync.replicas".to_owned(), plan.min_in_sync.to_string());
            let propose = |cluster: &tradewind_cluster::Cluster| {
                let (cluster, command) = (cluster.clone(), Command::CreateTopic(topic));
                async move { cluster.propose(command, CLIENT_PATIENCE).await }
            };
            self.hosts[0]
                .within(|runtime, cluster| drop(runtime.spawn(propose(cluster))))
                .context("node 1 is down")?;
            self.topics.push((id, plan.partitions));
        }
        self.until("all partitions are led", Self::is_whole)
    }

    /// Whether every partition has a leader and all its copies in sync, equal and known to be, where they shall be.
    fn is_whole(&self) -> bool {
        let clusters: Vec<_> = self.hosts.iter().filter_map(Host::cluster).collect();
        let joined = self.hosts.iter().all(Host::has_joined);
        joined
            && clusters.len() == self.hosts.len()
            && self.keys().iter().all(|key| {
                clusters.iter().all(|cluster| {
                    let image = cluster.image();
                    let Some(partition) = image.partition(key.0, key.1) else {
                        return false;
                    };
                    let in_sync = partition.leader.is_some()
                        && partition.isr.len() == partition.replicas.len()
                        && partition.reassignment.is_none();
                    let leader = clusters.iter().find(|c| Some(c.node_id()) == partition.leader);
                    let end = leader
                        .and_then(|c| c.replica(key.0, key.1))
                        .map(|r| r.log().end());
                    let copy = cluster.replica(key.0, key.1);
                    if !partition.replicas.contains(&cluster.node_id()) {
                        return in_sync && copy.is_none();
                    }
                    let same = copy.is_some_and(|replica| {
                        Some(replica.log().end()) == end && Some(replica.high_watermark()) == end
                    });
                    in_sync && same
                })
            })
    }

    /// Every partition.
    pub fn keys(&self) -> Vec<Key> {
        keys_of(&self.topics)
    }

    /// The newest image that any daemon has.
    pub fn newest_image(&self) -> Option<Arc<Image>> {
        let clusters = self.hosts.iter().filter_map(Host::cluster);
        clusters
            .map(|cluster| cluster.image())
            .max_by_key(|image| image.index)
    }

    /// The daemon that is the controller, as far as it knows itself.
    pub fn controller(&self) -> Option<NodeId> {
        let clusters = self.hosts.iter().filter_map(Host::cluster);
        let standings = clusters.map(|cluster| (cluster.standing().borrow().clone(), cluster.node_id()));
        let controllers = standings.filter(|(standing, _)| standing.is_controller);
        controllers
            .max_by_key(|(standing, _)| standing.term)
            .map(|(_, node)| node)
    }

    /// Whether every append to this partition is flushed before it counts.
    pub fn is_flushed(&self, key: Key) -> bool {
        let topic = self.topics.iter().position(|(id, _)| *id == key.0);
        topic.is_some_and(|topic| self.weather.topics[topic].flushed)
    }

    /// From now on flushes on a daemon take up to `most` milliseconds.
    pub fn set_flush(&self, node: NodeId, most: u64) {
        let mut limits = self.flush_ms.lock().unwrap_or_else(|p| p.into_inner());
        limits.insert(node, most);
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
        let end = self.now + self.patience_ms;
        let mut leaderless = BTreeMap::new();
        while !self.is_whole() {
            ensure!(
                self.now < end,
                "not in time: all partitions are whole again\n{}",
                self.state()
            );
            self.give_up_losses(&mut leaderless)?;
            self.write(true);
            self.step()?;
        }
        self.tell("all partitions are whole again");
        self.oracle.take_up();
        let (before, partitions) = (self.oracle.acknowledgements(), self.keys().len());
        let end = self.now + self.patience_ms;
        while self.oracle.acknowledgements() < before + 4 * partitions {
            ensure!(
                self.now < end,
                "writes are not acknowledged any more\n{}",
                self.state()
            );
            self.write(false);
            self.step()?;
        }
        while !self.clients.have_all() {
            ensure!(
                self.now < end,
                "a producer's batch is never acknowledged\n{}",
                self.state()
            );
            self.write(true);
            self.step()?;
        }
        self.until("all copies are equal", Self::is_whole)?;
        self.oracle.settled(&self.hosts)
    }

    /// Elects uncleanly, as an operator would, where all daemons are back and the last member of the in-sync set lost power
    /// with records that were not flushed. Where every append is flushed that must not come about.
    fn give_up_losses(&mut self, leaderless: &mut BTreeMap<Key, u64>) -> Result<()> {
        let Some(image) = self.newest_image() else {
            return Ok(());
        };
        for key in self.keys() {
            let partition = image.partition(key.0, key.1);
            let stuck = partition.filter(|partition| {
                let suspect = partition.isr.iter().all(|node| partition.suspect.contains(node));
                partition.leader.is_none() && suspect && image.active().count() == self.hosts.len()
            });
            if stuck.is_none() {
                leaderless.remove(&key);
                continue;
            }
            let since = *leaderless.entry(key).or_insert(self.now);
            if self.now < since + OPERATOR_PATIENCE_MS {
                continue;
            }
            leaderless.insert(key, self.now);
            ensure!(
                !self.is_flushed(key),
                "{key:?} has lost what was flushed\n{}",
                self.state()
            );
            self.tell(&format!("records of {key:?} are given up"));
            self.given_up += 1;
            self.oracle.give_up(key);
            self.clients.start_over(key);
            let command = Command::Elect {
                kind: ElectionKind::Unclean,
                partitions: vec![key],
            };
            let host = self.hosts.iter().find(|host| host.cluster().is_some());
            host.and_then(|host| {
                host.within(|runtime, cluster| {
                    let cluster = cluster.clone();
                    runtime.spawn(async move {
                        // If it fails, the operator tries again.
                        let _ = cluster.propose(command, CLIENT_PATIENCE).await;
                    });
                })
            });
        }
        Ok(())
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
