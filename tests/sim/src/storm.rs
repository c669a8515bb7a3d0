//! What goes wrong, and when: single faults, and deeds that faults of several steps (`scripts.rs`) and ambushes
//! (`ambush.rs`) leave for later.

use std::collections::BTreeMap;

use anyhow::Result;
use tradewind_cluster::command::{Command, ElectionKind, Move};
use tradewind_wire::ids::NodeId;

use crate::ambush::{Trap, Watch};
use crate::entropy::Dice;
use crate::oracle::Key;
use crate::weather::{Fault, Weather};
use crate::world::World;

/// How long a proposal that an operator makes is waited for.
const PROPOSAL_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// A sequence of faults.
#[derive(Debug)]
pub struct Storm {
    pub(crate) dice: Dice,
    pub(crate) weather: Weather,
    next: u64,
    faults: usize,
    /// When what was done to the network is undone.
    calm_at: Option<u64>,
    disks_well_at: Option<u64>,
    /// By when they are due, then by the order in which they were thought of.
    deeds: BTreeMap<(u64, usize), Deed>,
    thoughts: usize,
    watch: Watch,
    pub(crate) traps: Vec<Trap>,
}

/// One thing that is done at its time.
#[derive(Debug, Clone)]
pub enum Deed {
    /// A daemon goes down, with its machine or without, for so many milliseconds.
    Crash(NodeId, bool, u64),
    /// Nothing gets through from one to another any more.
    Cut(NodeId, NodeId),
    /// Datagrams from one to another take so long, and up to so much longer.
    Slow(NodeId, NodeId, u64, u64),
    /// The path from one to another is as it was.
    Mend(NodeId, NodeId),
    /// Flushes on a daemon take up to so many milliseconds.
    Flush(NodeId, u64),
    /// A daemon is made the leader, by choice.
    Lead(Key, NodeId),
    /// Clients send nothing for so many milliseconds.
    Rest(u64),
}

impl Storm {
    /// The storm of `seed`, from `now` on.
    pub fn new(seed: u64, weather: &Weather, now: u64) -> Self {
        let dice = Dice::new(seed, "storm");
        Self {
            next: now + dice.range(100, 1_500),
            faults: 0,
            dice,
            weather: weather.clone(),
            calm_at: None,
            disks_well_at: None,
            deeds: BTreeMap::new(),
            thoughts: 0,
            watch: Watch::default(),
            traps: Vec::new(),
        }
    }

    /// How many faults there were.
    pub fn faults(&self) -> usize {
        self.faults
    }

    /// Does what is due.
    pub fn blow(&mut self, world: &mut World) -> Result<()> {
        if self.calm_at.is_some_and(|at| at <= world.now) {
            self.calm_at = None;
            world.tell("the network heals");
            world.net.heal();
        }
        if self.disks_well_at.is_some_and(|at| at <= world.now) {
            self.disks_well_at = None;
            world.flush_ms.lock().unwrap_or_else(|p| p.into_inner()).clear();
        }
        while let Some(due) = self.deeds.first_entry().filter(|deed| deed.key().0 <= world.now) {
            let deed = due.remove();
            self.carry_out(world, &deed)?;
        }
        self.lie_in_wait(world);
        if world.now < self.next {
            return Ok(());
        }
        self.faults += 1;
        self.next = world.now + self.pause();
        let Some(fault) = self.dice.pick(&self.weather.faults).copied() else {
            return Ok(());
        };
        match fault {
            Fault::Crash => self.crash_one(world),
            Fault::CrashMost => self.crash_most(world),
            Fault::CrashAll => self.crash_all(world),
            Fault::Cut => self.partition(world),
            Fault::BadPaths => self.bad_paths(world),
            Fault::SlowPaths => self.slow_paths(world),
            Fault::Stall => self.stall(world),
            Fault::SlowDisk => self.slow_disk(world),
            Fault::Jump => self.jump(world),
            Fault::HandOver => self.hand_over(world),
            Fault::MoveLeader => self.move_leader(world),
            Fault::MoveReplicas => self.move_replicas(world),
            Fault::Return => self.let_return(world),
            Fault::Swap => self.swap(world),
            Fault::LeaderForgets => self.let_leader_forget(world),
            Fault::Depose => self.depose(world),
            Fault::JoinsEarly => self.join_early(world),
            Fault::JoinsLate => self.join_late(world),
            Fault::TwoDown => self.two_down(world),
            Fault::Unheard => self.register_unheard(world),
            Fault::Repeat => self.repeat(world),
        }
    }

    /// Notes a deed for `after` milliseconds from now.
    pub(crate) fn later(&mut self, world: &World, after: u64, deed: Deed) {
        self.thoughts += 1;
        self.deeds.insert((world.now + after, self.thoughts), deed);
    }

    fn lie_in_wait(&mut self, world: &World) {
        let mut wanted = self.weather.ambushes.clone();
        wanted.extend(self.traps.iter().map(|trap| trap.on));
        for sight in self.watch.look(world, &wanted) {
            self.spring(world, &sight);
            if !self.weather.ambushes.contains(&sight.what) {
                continue;
            }
            if world.now >= self.watch.rests_until && self.dice.chance(self.weather.ambush) {
                self.watch.rests_until = world.now + self.dice.range(100, 3_000);
                self.faults += 1;
                self.attack(world, &sight);
            }
        }
    }

    fn carry_out(&mut self, world: &mut World, deed: &Deed) -> Result<()> {
        world.tell(&format!("{deed:?}"));
        match *deed {
            Deed::Crash(node, power, down) => self.crash(world, node, power, down)?,
            Deed::Cut(from, to) => world.net.change(from, to, |path| path.cut = true),
            Deed::Slow(from, to, delay, jitter) => world
                .net
                .change(from, to, |path| (path.delay, path.jitter) = (delay, jitter)),
            Deed::Mend(from, to) => world
                .net
                .change(from, to, |path| *path = crate::net::Path::default()),
            Deed::Flush(node, most) => world.set_flush(node, most),
            Deed::Lead(key, node) => self.make_leader(world, key, node),
            Deed::Rest(ms) => world.clients.rest(world.now + ms),
        }
        Ok(())
    }

    /// Faults come in bursts.
    fn pause(&self) -> u64 {
        let weather = &self.weather;
        if self.dice.chance(weather.bursts) {
            self.dice.range(1, weather.burst_ms)
        } else {
            self.dice.range(300, weather.pause_ms)
        }
    }

    fn node(&self, world: &World) -> NodeId {
        self.dice.range(1, world.hosts.len() as u64 + 1) as NodeId
    }

    /// How long something that went down stays there.
    pub(crate) fn down(&self) -> u64 {
        if self.dice.chance(self.weather.quick) {
            self.dice.range(1, 400)
        } else {
            self.dice.range(400, 8_000)
        }
    }

    /// Whether a crash is a loss of power.
    pub(crate) fn power(&self) -> bool {
        self.dice.chance(self.weather.power)
    }

    fn crash_one(&mut self, world: &mut World) -> Result<()> {
        // Leaders are the more interesting ones.
        let leader = self
            .partition_of(world)
            .and_then(|(_, partition)| partition.leader);
        let node = match leader {
            Some(leader) if self.dice.chance(600_000) => leader,
            _ => self.node(world),
        };
        self.crash(world, node, self.power(), self.down())
    }

    fn crash_most(&mut self, world: &mut World) -> Result<()> {
        let spared = self.node(world);
        for node in nodes(world) {
            if node != spared {
                self.crash(world, node, self.power(), self.down())?;
            }
        }
        Ok(())
    }

    fn crash_all(&mut self, world: &mut World) -> Result<()> {
        for node in nodes(world) {
            self.crash(world, node, self.power(), self.down())?;
        }
        Ok(())
    }

    fn crash(&mut self, world: &mut World, node: NodeId, power: bool, down: u64) -> Result<()> {
        if !world.host(node)?.is_up() {
            return Ok(());
        }
        let lost = world.host(node)?.crash(power.then_some(&self.dice))?;
        let back = world.now + down.max(1);
        let how = if power { "loses power" } else { "is killed" };
        world.tell(&format!("node {node} {how}, until {back}"));
        for lost in lost {
            world.tell(&format!("  {lost}"));
        }
        world.restarts.insert(node, back);
        Ok(())
    }

    fn partition(&mut self, world: &mut World) -> Result<()> {
        let node = self.node(world);
        let (out, into) = *self
            .dice
            .pick(&[(true, true), (true, true), (true, false), (false, true)])
            .unwrap_or(&(true, true));
        let only = self.dice.chance(300_000).then(|| self.node(world));
        for other in nodes(world) {
            if other == node || only.is_some_and(|only| only != other) {
                continue;
            }
            world.net.change(node, other, |path| path.cut |= out);
            world.net.change(other, node, |path| path.cut |= into);
        }
        let what = match (out, into) {
            (true, true) => "between",
            (true, false) => "only from",
            _ => "only to",
        };
        self.calm_in(world, 200, 7_000);
        world.tell(&format!("nothing gets through {what} node {node} and {only:?}"));
        Ok(())
    }

    fn bad_paths(&mut self, world: &mut World) -> Result<()> {
        let (loss, repeats) = (self.dice.range(1_000, 400_000), self.dice.range(0, 100_000));
        for from in nodes(world) {
            for to in nodes(world) {
                world
                    .net
                    .change(from, to, |path| (path.loss, path.repeats) = (loss, repeats));
            }
        }
        self.calm_in(world, 500, 6_000);
        world.tell(&format!("{loss} of a million datagrams are lost"));
        Ok(())
    }

    fn slow_paths(&mut self, world: &mut World) -> Result<()> {
        let node = self.node(world);
        let (delay, jitter) = (self.dice.range(1, 150), self.dice.range(1, 300));
        for other in nodes(world) {
            if self.dice.chance(700_000) {
                world
                    .net
                    .change(node, other, |path| (path.delay, path.jitter) = (delay, jitter));
            }
            if self.dice.chance(700_000) {
                world
                    .net
                    .change(other, node, |path| (path.delay, path.jitter) = (delay, jitter));
            }
        }
        self.calm_in(world, 500, 6_000);
        world.tell(&format!(
            "datagrams of node {node} take {delay} to {} ms",
            delay + jitter
        ));
        Ok(())
    }

    fn stall(&mut self, world: &mut World) -> Result<()> {
        let node = self.node(world);
        let until = world.now + self.dice.range(50, 4_000);
        world.stalled.insert(node, until);
        world.tell(&format!("node {node} stands still until {until}"));
        Ok(())
    }

    fn slow_disk(&mut self, world: &mut World) -> Result<()> {
        let (node, most) = (self.node(world), self.dice.range(20, 800));
        world.set_flush(node, most);
        self.disks_well_at = Some(world.now + self.dice.range(500, 8_000));
        world.tell(&format!("flushes take up to {most} ms on node {node}"));
        Ok(())
    }

    fn jump(&mut self, world: &mut World) -> Result<()> {
        let node = self.node(world);
        let skew = self.dice.range(0, 7_200_000) as i64 - 3_600_000;
        world.host(node)?.clock.set_skew(skew);
        world.tell(&format!("the wall clock of node {node} is wrong by {skew} ms"));
        Ok(())
    }

    /// Stops a daemon in order, if it comes to that in time.
    fn hand_over(&mut self, world: &mut World) -> Result<()> {
        let node = self.node(world);
        let patience = self.dice.range(500, 5_000);
        world.host(node)?.within(|runtime, cluster| {
            let cluster = cluster.clone();
            runtime.spawn(async move { cluster.stop().await });
        });
        world.tell(&format!("node {node} is asked to stop within {patience} ms"));
        world.stops.insert(node, world.now + patience);
        Ok(())
    }

    /// A partition, and what is known of it.
    pub(crate) fn partition_of(&self, world: &World) -> Option<(Key, tradewind_cluster::image::Partition)> {
        let key = *self.dice.pick(&world.keys())?;
        let partition = world.newest_image()?.partition(key.0, key.1)?.clone();
        Some((key, partition))
    }

    fn move_leader(&mut self, world: &mut World) -> Result<()> {
        let Some((key, partition)) = self.partition_of(world) else {
            return Ok(());
        };
        let others: Vec<NodeId> = partition
            .isr
            .iter()
            .copied()
            .filter(|node| Some(*node) != partition.leader)
            .collect();
        let (Some(&to), Some(from)) = (self.dice.pick(&others), partition.leader) else {
            return Ok(());
        };
        self.make_leader(world, key, to);
        // And back, perhaps several times.
        let mut after = 0;
        while self.dice.chance(500_000) && after < 2_000 {
            after += self.dice.range(1, 400);
            self.later(world, after, Deed::Lead(key, from));
            after += self.dice.range(1, 400);
            self.later(world, after, Deed::Lead(key, to));
        }
        Ok(())
    }

    /// Has the replicas put in another order, and the first elected.
    fn make_leader(&mut self, world: &mut World, key: Key, to: NodeId) {
        let Some(image) = world.newest_image() else { return };
        let Some(partition) = image.partition(key.0, key.1) else {
            return;
        };
        if partition.reassignment.is_some() || !partition.replicas.contains(&to) {
            return;
        }
        let others = partition.replicas.iter().copied().filter(|node| *node != to);
        let order: Vec<NodeId> = std::iter::once(to).chain(others).collect();
        world.tell(&format!("node {to} shall lead {key:?}"));
        self.line_up(world, key, order);
    }

    /// Has the replicas put in this order, and the first elected.
    pub(crate) fn line_up(&mut self, world: &World, key: Key, order: Vec<NodeId>) {
        let elect = Command::Elect {
            kind: ElectionKind::Preferred,
            partitions: vec![key],
        };
        self.propose(world, vec![reassign(key, Some(order)), elect]);
    }

    fn move_replicas(&mut self, world: &mut World) -> Result<()> {
        let Some((key, partition)) = self.partition_of(world) else {
            return Ok(());
        };
        if partition.reassignment.is_some() && self.dice.chance(500_000) {
            world.tell(&format!("{key:?} is moved back"));
            self.propose(world, vec![reassign(key, None)]);
            return Ok(());
        }
        let mut left = nodes(world);
        let mut target = Vec::new();
        while target.len() < partition.steady_replicas() && !left.is_empty() {
            target.push(left.remove(self.dice.range(0, left.len() as u64) as usize));
        }
        world.tell(&format!("{key:?} is moved to {target:?}"));
        self.propose(world, vec![reassign(key, Some(target))]);
        Ok(())
    }

    /// Has some daemon propose these, one after the other.
    fn propose(&mut self, world: &World, commands: Vec<Command>) {
        let up: Vec<_> = world
            .hosts
            .iter()
            .filter(|host| host.cluster().is_some())
            .collect();
        let Some(&host) = self.dice.pick(&up) else { return };
        host.within(|runtime, cluster| {
            let cluster = cluster.clone();
            runtime.spawn(async move {
                for command in commands {
                    if cluster.propose(command, PROPOSAL_PATIENCE).await.is_err() {
                        return;
                    }
                }
            });
        });
    }

    pub(crate) fn calm_in(&mut self, world: &World, from: u64, to: u64) {
        self.calm_at = Some(world.now + self.dice.range(from, to));
    }
}

fn reassign(key: Key, replicas: Option<Vec<NodeId>>) -> Command {
    let one = Move {
        topic: key.0,
        partition: key.1,
        replicas,
    };
    Command::Reassign {
        moves: vec![one],
        resize: false,
    }
}

/// Every daemon.
pub(crate) fn nodes(world: &World) -> Vec<NodeId> {
    world.hosts.iter().map(|host| host.node).collect()
}
