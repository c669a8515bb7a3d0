//! Waits for the moments in which a fault does most harm, and strikes then: what no storm hits by chance, a storm that looks
//! at the cluster does.

use std::collections::{BTreeMap, BTreeSet};

use tradewind_cluster::image::Partition;
use tradewind_wire::ids::NodeId;

use crate::oracle::Key;
use crate::storm::{Deed, Storm};
use crate::weather::Ambush;
use crate::world::World;

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Watch {
    /// The image that was looked at last.
    index: u64,
    before: BTreeMap<Key, Partition>,
    near: BTreeSet<(Key, NodeId)>,
    /// Until when nothing is attacked.
    pub rests_until: u64,
}

/// What is done when a copy comes to where it is awaited.
#[derive(Debug, Clone)]
pub struct Trap {
    /// The partition.
    pub key: Key,
    /// Where the copy is.
    pub node: NodeId,
    /// What is awaited.
    pub on: Ambush,
    /// After so many milliseconds each.
    pub deeds: Vec<(u64, Deed)>,
    /// Until when.
    pub until: u64,
}

/// An occasion.
#[derive(Debug, Clone, Copy)]
pub struct Sight {
    /// Which.
    pub what: Ambush,
    key: Key,
    leader: NodeId,
    /// The copy that it is about; the leader's, if a leader epoch begins.
    node: NodeId,
}

impl Watch {
    /// What is to be seen now that was not there before.
    pub fn look(&mut self, world: &World, wanted: &[Ambush]) -> Vec<Sight> {
        let Some(image) = world.newest_image() else {
            return Vec::new();
        };
        let mut sights = Vec::new();
        let moved = image.index > self.index;
        self.index = self.index.max(image.index);
        for key in world.keys() {
            let Some(partition) = image.partition(key.0, key.1) else {
                continue;
            };
            let Some(leader) = partition.leader else { continue };
            let mut see = |what, node| {
                sights.push(Sight {
                    what,
                    key,
                    leader,
                    node,
                })
            };
            if moved {
                let Some(before) = self.before.insert(key, partition.clone()) else {
                    continue;
                };
                if before.leader_epoch != partition.leader_epoch {
                    see(Ambush::Reign, leader);
                }
                for &node in partition.isr.iter().filter(|node| !before.isr.contains(node)) {
                    see(Ambush::Joined, node);
                }
                for &node in before.isr.iter().filter(|node| !partition.isr.contains(node)) {
                    see(Ambush::Left, node);
                }
            }
            if wanted.contains(&Ambush::Near) {
                for &node in &partition.replicas {
                    let out = !partition.isr.contains(&node) && image.is_active(node);
                    let near = out && is_near(world, key, leader, node);
                    let known = self.near.contains(&(key, node));
                    if near && !known {
                        self.near.insert((key, node));
                        see(Ambush::Near, node);
                    } else if known && !near {
                        self.near.remove(&(key, node));
                    }
                }
            }
        }
        sights.retain(|sight| wanted.contains(&sight.what));
        sights
    }
}

/// Whether the copy on `node` has come as far as its leader's watermark.
fn is_near(world: &World, key: Key, leader: NodeId, node: NodeId) -> bool {
    let copy = |node: NodeId| {
        let host = world.hosts.iter().find(|host| host.node == node)?;
        host.cluster()?.replica(key.0, key.1)
    };
    let (Some(leading), Some(copy)) = (copy(leader), copy(node)) else {
        return false;
    };
    copy.log().end() > 0 && copy.log().end() >= leading.high_watermark()
}

impl Storm {
    /// Lets the traps go off that wait for this.
    pub(crate) fn spring(&mut self, world: &World, sight: &Sight) {
        self.traps.retain(|trap| world.now < trap.until);
        let of_sight = |trap: &Trap| (trap.key, trap.node, trap.on) == (sight.key, sight.node, sight.what);
        while let Some(at) = self.traps.iter().position(of_sight) {
            let trap = self.traps.remove(at);
            world.tell(&format!("{trap:?} goes off"));
            for (after, deed) in trap.deeds {
                self.later(world, after, deed);
            }
        }
    }

    /// Makes use of an occasion.
    pub(crate) fn attack(&mut self, world: &World, sight: &Sight) {
        world.tell(&format!("{sight:?} is ambushed"));
        let Sight {
            what, leader, node, ..
        } = *sight;
        let most = *self.dice.pick(&[2, 20, 100, 400]).unwrap_or(&20);
        let quick = self.dice.range(1, 60);
        let long = self.dice.range(1_500, 6_000);
        let subject = Deed::Crash(
            node,
            self.power(),
            if self.dice.chance(700_000) { quick } else { long },
        );
        let head = Deed::Crash(
            leader,
            self.power(),
            if self.dice.chance(700_000) { long } else { quick },
        );
        let (first, second) = (self.dice.range(0, most), self.dice.range(0, most));
        match what {
            Ambush::Reign => {
                self.later(world, first, head);
                if self.dice.chance(300_000) {
                    let other = self.dice.range(1, world.hosts.len() as u64 + 1) as NodeId;
                    self.later(world, second, Deed::Crash(other, self.power(), quick));
                }
            }
            Ambush::Joined => {
                if self.dice.chance(600_000) {
                    self.later(world, first, subject);
                }
                self.later(world, second, head);
            }
            Ambush::Near => {
                self.later(world, self.dice.range(0, 3), subject);
                self.later(world, quick + second + self.dice.range(0, 500), head);
            }
            Ambush::Left => {
                let deed = if self.dice.chance(500_000) { head } else { subject };
                self.later(world, first, deed);
            }
        }
    }
}
