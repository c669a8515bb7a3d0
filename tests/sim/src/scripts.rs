//! Faults of several steps, each of which prepares the next. The times between them are chance.
//!
//! Each leads to where a rule of replication matters; none knows whether it is kept.

use anyhow::Result;
use tradewind_wire::ids::NodeId;

use crate::ambush::Trap;
use crate::oracle::Key;
use crate::storm::{Deed, Storm, nodes};
use crate::weather::Ambush;
use crate::world::World;

/// A partition's leader, a copy in sync beside it, and a third one.
struct Cast {
    key: Key,
    leader: NodeId,
    second: NodeId,
    third: Option<NodeId>,
}

impl Storm {
    fn cast(&self, world: &World) -> Option<Cast> {
        let (key, partition) = self.partition_of(world)?;
        let leader = partition.leader?;
        let mut others: Vec<NodeId> = partition
            .replicas
            .iter()
            .copied()
            .filter(|node| *node != leader)
            .collect();
        if self.dice.chance(500_000) {
            others.reverse();
        }
        let mut others = others.into_iter();
        Some(Cast {
            key,
            leader,
            second: others.next()?,
            third: others.next(),
        })
    }

    /// A partition whose records may be lost with the power, and the controller, which is neither its leader nor the follower
    /// that is next in the order of its replicas. It is made so if it is not: what follows must leave a moment for that.
    fn stage(&mut self, world: &World) -> Option<(Cast, NodeId)> {
        let controller = world.controller()?;
        let image = world.newest_image()?;
        let mut stages = Vec::new();
        for key in world.keys().into_iter().filter(|key| !world.is_flushed(*key)) {
            let Some(partition) = image.partition(key.0, key.1) else {
                continue;
            };
            let mut fit = partition.isr.clone();
            fit.retain(|node| *node != controller);
            fit.sort_by_key(|node| partition.leader != Some(*node));
            if partition.reassignment.is_none() && fit.len() >= 2 {
                stages.push((key, partition.clone(), fit));
            }
        }
        let (key, partition, fit) = self.dice.pick(&stages)?.clone();
        let (leader, second) = (fit[0], fit[1]);
        let mut order = vec![leader, second];
        order.extend(partition.replicas.iter().filter(|node| !fit[..2].contains(node)));
        if order != partition.replicas || partition.leader != Some(leader) {
            world.tell(&format!("{key:?} shall be on {order:?}"));
            self.line_up(world, key, order.clone());
        }
        let cast = Cast {
            key,
            leader,
            second,
            third: order.get(2).copied(),
        };
        Some((cast, controller))
    }

    /// A follower is away until it has left the in-sync set. When it is back, it hears its leader late or badly, or flushes
    /// late: for a while it is a copy that lacks what others have, and perhaps a member again.
    pub(crate) fn let_return(&mut self, world: &mut World) -> Result<()> {
        let Some(Cast {
            leader, second: away, ..
        }) = self.cast(world)
        else {
            return Ok(());
        };
        world.tell(&format!("node {away} is away for a while"));
        let back = self.dice.range(1_200, 5_000);
        self.isolate(world, away, back);
        if self.dice.chance(600_000) {
            let (delay, jitter) = (self.dice.range(30, 250), self.dice.range(1, 100));
            let all = self.dice.chance(500_000);
            for other in nodes(world).into_iter().filter(|node| *node != leader) {
                if all || other == away {
                    self.later(world, back + 1, Deed::Slow(leader, other, delay, jitter));
                }
            }
        }
        if self.dice.chance(500_000) {
            self.later(world, back, Deed::Flush(away, self.dice.range(100, 2_000)));
        }
        // It comes back under another leader, or its leader comes back itself.
        if self.dice.chance(600_000) {
            let before = self.dice.range(0, 1_500);
            let down = self.down();
            let power = self.power();
            self.later(
                world,
                back.saturating_sub(before),
                Deed::Crash(leader, power, down),
            );
        }
        self.calm_in(world, back + 500, back + 3_000);
        Ok(())
    }

    /// Nothing gets through to or from `away` for so long.
    fn isolate(&mut self, world: &World, away: NodeId, ms: u64) {
        for other in nodes(world).into_iter().filter(|node| *node != away) {
            world.net.change(other, away, |path| path.cut = true);
            world.net.change(away, other, |path| path.cut = true);
            self.later(world, ms, Deed::Mend(away, other));
            self.later(world, ms, Deed::Mend(other, away));
        }
    }

    /// A follower is out of sync; its leader starts anew, without knowing how far the watermark was, and hears the follower
    /// before it hears the others. The follower flushes late, and loses power as soon as it is a member.
    pub(crate) fn join_early(&mut self, world: &mut World) -> Result<()> {
        let Some(Cast {
            key,
            leader,
            second: away,
            third,
        }) = self.cast(world)
        else {
            return Ok(());
        };
        let back = self.dice.range(1_300, 4_500);
        self.isolate(world, away, back);
        self.later(world, back, Deed::Flush(away, self.dice.range(1_000, 4_000)));
        self.later(world, back, Deed::Crash(leader, false, self.dice.range(1, 60)));
        if let Some(third) = third {
            self.later(
                world,
                back,
                Deed::Crash(third, false, self.dice.range(800, 4_000)),
            );
        }
        let after = self.dice.range(0, 200);
        let trap = Trap {
            key,
            node: away,
            on: Ambush::Joined,
            deeds: vec![
                (after, Deed::Crash(away, true, self.dice.range(1, 100))),
                (after, Deed::Flush(away, self.weather.flush_ms)),
                (
                    after,
                    Deed::Crash(leader, self.power(), self.dice.range(3_000, 7_000)),
                ),
            ],
            until: world.now + back + 3_000,
        };
        self.traps.push(trap);
        world.tell(&format!("node {away} shall join {key:?} early"));
        Ok(())
    }

    /// A follower that was out of sync has caught up, and its leader says so over a slow path. Before the word arrives the
    /// follower loses power and registers anew; then its leader goes.
    pub(crate) fn join_late(&mut self, world: &mut World) -> Result<()> {
        let Some(Cast {
            key,
            leader,
            second: away,
            ..
        }) = self.cast(world)
        else {
            return Ok(());
        };
        let back = self.dice.range(1_300, 3_500);
        self.isolate(world, away, back);
        let delay = self.dice.range(150, 420);
        for other in nodes(world).into_iter().filter(|node| *node != leader) {
            self.later(world, back + 1, Deed::Slow(leader, other, delay, 20));
        }
        let until = world.now + back + 4_000;
        self.traps.push(Trap {
            key,
            node: away,
            on: Ambush::Near,
            deeds: vec![(
                self.dice.range(0, 4),
                Deed::Crash(away, true, self.dice.range(1, 20)),
            )],
            until,
        });
        self.traps.push(Trap {
            key,
            node: away,
            on: Ambush::Joined,
            deeds: vec![(
                self.dice.range(0, 150),
                Deed::Crash(leader, self.power(), self.dice.range(2_500, 6_000)),
            )],
            until,
        });
        self.calm_in(world, back + 2_500, back + 4_500);
        world.tell(&format!("node {away} shall join {key:?} late"));
        Ok(())
    }

    /// The leader is gone. When the controller is about to replace it, the follower that is next loses power and registers anew,
    /// over paths so slow that both are under way at the same time, and not so slow that the controller is cut off.
    pub(crate) fn two_down(&mut self, world: &mut World) -> Result<()> {
        let Some((Cast { leader, second, .. }, _)) = self.stage(world) else {
            return Ok(());
        };
        let down = self.dice.range(3_000, 8_000);
        self.later(world, 30, Deed::Crash(leader, self.power(), down));
        let dies = 30 + self.dice.range(830, 1_010);
        let down = self.dice.range(1, 10);
        self.later(world, dies, Deed::Crash(second, true, down));
        // It has found the others by then.
        let slow = dies + down + self.dice.range(12, 20);
        let delay = self.dice.range(38, 46);
        for other in nodes(world).into_iter().filter(|node| *node != second) {
            self.later(world, slow, Deed::Slow(other, second, delay, 1));
            self.later(world, slow, Deed::Slow(second, other, delay, 1));
        }
        self.calm_in(world, 2_500, 3_500);
        world.tell(&format!(
            "nodes {leader} and {second} go down one after the other"
        ));
        Ok(())
    }

    /// A follower that the controller does not hear is fenced, but its leader reaches it and it has everything. It loses
    /// power and registers anew. Its leader hears of that from the controller only, and for itself the follower is where it
    /// was.
    pub(crate) fn register_unheard(&mut self, world: &mut World) -> Result<()> {
        let Some((
            Cast {
                key, leader, second, ..
            },
            controller,
        )) = self.stage(world)
        else {
            return Ok(());
        };
        self.later(world, 30, Deed::Cut(second, controller));
        let after = self.dice.range(50, 300);
        self.traps.push(Trap {
            key,
            node: second,
            on: Ambush::Left,
            deeds: vec![
                (0, Deed::Rest(self.dice.range(1_500, 3_000))),
                (after, Deed::Crash(second, true, self.dice.range(1, 60))),
                (after, Deed::Cut(leader, second)),
                (after, Deed::Cut(second, leader)),
                (after, Deed::Mend(second, controller)),
            ],
            until: world.now + 3_000,
        });
        self.traps.push(Trap {
            key,
            node: second,
            on: Ambush::Joined,
            deeds: vec![(
                self.dice.range(0, 150),
                Deed::Crash(leader, self.power(), self.dice.range(2_500, 6_000)),
            )],
            until: world.now + 6_000,
        });
        self.calm_in(world, 4_500, 6_500);
        world.tell(&format!("node {second} shall register unheard by node {leader}"));
        Ok(())
    }

    /// What the leader writes reaches the third copy and not the second; the second becomes the leader, of which the third
    /// hears nothing, and the first leads again.
    pub(crate) fn swap(&mut self, world: &mut World) -> Result<()> {
        let Some(Cast {
            key,
            leader,
            second,
            third: Some(third),
        }) = self.cast(world)
        else {
            return Ok(());
        };
        world.tell(&format!(
            "{key:?} changes from node {leader} to {second} and back"
        ));
        world.net.change(leader, second, |path| path.cut = true);
        let changes = self.dice.range(20, 300);
        let heals = changes + self.dice.range(5, 150);
        let back = heals + self.dice.range(5, 300);
        let slow = Deed::Slow(second, third, self.dice.range(100, 500), 20);
        let deaf = if self.dice.chance(500_000) {
            Deed::Cut(second, third)
        } else {
            slow
        };
        self.later(world, changes.saturating_sub(10), deaf);
        self.later(world, changes, Deed::Lead(key, second));
        self.later(world, heals, Deed::Mend(leader, second));
        self.later(world, back, Deed::Lead(key, leader));
        self.calm_in(world, back + 50, back + 900);
        Ok(())
    }

    /// What the leader writes reaches nobody, so that a producer is not answered; another leads, and the leader is cut. When it
    /// leads again, it is the first whom the producer asks again.
    pub(crate) fn repeat(&mut self, world: &mut World) -> Result<()> {
        let key = world.clients.key_of_a_producer(&self.dice);
        let image = world.newest_image();
        let partition = key.zip(image).and_then(|(key, image)| {
            let partition = image.partition(key.0, key.1)?.clone();
            Some((key, partition))
        });
        let Some((key, partition)) = partition else {
            return Ok(());
        };
        let Some(leader) = partition.leader else {
            return Ok(());
        };
        let Some(&next) = partition.isr.iter().find(|node| **node != leader) else {
            return Ok(());
        };
        let changes = self.dice.range(50, 200);
        let heals = changes + self.dice.range(30, 100);
        let back = heals + self.dice.range(200, 500);
        for other in partition.replicas.into_iter().filter(|node| *node != leader) {
            world.net.change(leader, other, |path| path.cut = true);
            self.later(world, heals, Deed::Mend(leader, other));
        }
        self.later(world, changes, Deed::Rest(back + 150 - changes));
        // Some daemon asks for it, and what the leader asks for may reach nobody either.
        for after in [0, 5, 10, 15] {
            self.later(world, changes + after, Deed::Lead(key, next));
            self.later(world, back + after, Deed::Lead(key, leader));
        }
        self.calm_in(world, back + 500, back + 1_500);
        world.tell(&format!(
            "node {leader} shall lead {key:?} again without its tail"
        ));
        Ok(())
    }

    /// The leader flushes later than its followers, loses power, and is back before anybody else is elected.
    pub(crate) fn let_leader_forget(&mut self, world: &mut World) -> Result<()> {
        let Some(Cast { leader, .. }) = self.cast(world) else {
            return Ok(());
        };
        world.set_flush(leader, self.dice.range(100, 2_000));
        let dies = self.dice.range(50, 1_000);
        let down = self.dice.range(1, 300);
        self.later(world, dies, Deed::Crash(leader, self.power(), down));
        self.later(world, dies, Deed::Flush(leader, self.weather.flush_ms));
        world.tell(&format!("node {leader} flushes late, and will go down"));
        Ok(())
    }

    /// The leader hears nothing of the controller or of all but one, for long enough to be replaced; those who reach it
    /// write to it meanwhile. Then it goes down, or is heard again.
    pub(crate) fn depose(&mut self, world: &mut World) -> Result<()> {
        let Some(Cast {
            leader,
            second: friend,
            ..
        }) = self.cast(world)
        else {
            return Ok(());
        };
        let ms = self.dice.range(1_000, 3_500);
        let deaf_only = self.dice.chance(300_000);
        for other in nodes(world) {
            if other == leader || other == friend {
                continue;
            }
            world.net.change(other, leader, |path| path.cut = true);
            self.later(world, ms, Deed::Mend(other, leader));
            if !deaf_only {
                world.net.change(leader, other, |path| path.cut = true);
                self.later(world, ms, Deed::Mend(leader, other));
            }
        }
        if self.dice.chance(300_000) {
            let (power, down) = (self.power(), self.down());
            let after = self.dice.range(ms.saturating_sub(500), ms + 500);
            self.later(world, after, Deed::Crash(leader, power, down));
        }
        world.tell(&format!("node {leader} reaches only node {friend} for {ms} ms"));
        Ok(())
    }
}
