//! What goes wrong, and when.

use anyhow::Result;
use tradewind_wire::ids::NodeId;

use crate::entropy::Dice;
use crate::world::World;

/// A sequence of faults.
#[derive(Debug)]
pub struct Storm {
    dice: Dice,
    next: u64,
    faults: usize,
    /// Whether machines lose power, not only processes their life.
    power: bool,
    /// When what was done to the network is undone.
    calm_at: Option<u64>,
    disks_well_at: Option<u64>,
}

impl Storm {
    /// The storm of `seed`, from `now` on.
    pub fn new(seed: u64, now: u64) -> Self {
        let dice = Dice::new(seed, "storm");
        Self {
            next: now + dice.range(100, 1_500),
            faults: 0,
            power: dice.chance(500_000),
            dice,
            calm_at: None,
            disks_well_at: None,
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
        if world.now < self.next {
            return Ok(());
        }
        self.faults += 1;
        self.next = world.now + self.pause();
        match self.dice.range(0, 16) {
            0..=3 => self.crash_one(world),
            4 => self.crash_all(world),
            5 => self.crash_two(world),
            6..=8 => self.partition(world),
            9 => self.bad_paths(world),
            10 => self.slow_paths(world),
            11 | 12 => self.stall(world),
            13 => self.slow_disk(world),
            14 => self.jump(world),
            _ => self.hand_over(world),
        }
    }

    /// Faults come in bursts.
    fn pause(&self) -> u64 {
        if self.dice.chance(400_000) {
            self.dice.range(1, 300)
        } else {
            self.dice.range(300, 4_000)
        }
    }

    fn node(&self, world: &World) -> NodeId {
        self.dice.range(1, world.hosts.len() as u64 + 1) as NodeId
    }

    fn crash_one(&mut self, world: &mut World) -> Result<()> {
        // Leaders are the more interesting ones.
        let leaders: Vec<NodeId> = world
            .keys()
            .iter()
            .filter_map(|key| {
                let cluster = world.hosts.iter().find_map(|host| host.cluster())?;
                cluster.image().partition(key.0, key.1)?.leader
            })
            .collect();
        let node = match self.dice.pick(&leaders) {
            Some(leader) if self.dice.chance(600_000) => *leader,
            _ => self.node(world),
        };
        self.crash(world, node)
    }

    fn crash_two(&mut self, world: &mut World) -> Result<()> {
        let spared = self.node(world);
        for node in nodes(world) {
            if node != spared {
                self.crash(world, node)?;
            }
        }
        Ok(())
    }

    fn crash_all(&mut self, world: &mut World) -> Result<()> {
        for node in nodes(world) {
            self.crash(world, node)?;
        }
        Ok(())
    }

    fn crash(&mut self, world: &mut World, node: NodeId) -> Result<()> {
        if !world.host(node)?.is_up() {
            return Ok(());
        }
        let power = self.power && self.dice.chance(700_000);
        let lost = world.host(node)?.crash(power.then_some(&self.dice))?;
        let back = world.now
            + if self.dice.chance(500_000) {
                self.dice.range(1, 400)
            } else {
                self.dice.range(400, 8_000)
            };
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
        world
            .flush_ms
            .lock()
            .unwrap_or_else(|p| p.into_inner())
            .insert(node, most);
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

    fn calm_in(&mut self, world: &World, from: u64, to: u64) {
        self.calm_at = Some(world.now + self.dice.range(from, to));
    }
}

fn nodes(world: &World) -> Vec<NodeId> {
    world.hosts.iter().map(|host| host.node).collect()
}
