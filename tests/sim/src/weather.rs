//! What kind of run a seed is: how large the cluster, what topics and clients there are, which faults come and how often.
//!
//! Drawn anew for every seed ("swarm testing"): a storm that has everything leads nowhere in particular, because one fault
//! undoes what another has prepared. One that has few kinds of faults goes further along its way.

use crate::entropy::Dice;

/// Everything that is drawn before a run begins.
#[derive(Debug, Clone)]
pub struct Weather {
    /// How many daemons the cluster has.
    pub daemons: i32,
    /// The topics.
    pub topics: Vec<TopicPlan>,
    /// What may happen; what is there twice happens twice as often.
    pub faults: Vec<Fault>,
    /// How many crashes of a million are losses of power.
    pub power: u64,
    /// How many restarts of a million come at once.
    pub quick: u64,
    /// How many faults of a million follow the one before within [`Self::burst_ms`].
    pub bursts: u64,
    /// The longest pause within a burst, in milliseconds.
    pub burst_ms: u64,
    /// The longest pause otherwise, in milliseconds.
    pub pause_ms: u64,
    /// How long a flush takes at most while nothing is wrong with the disk, in milliseconds.
    pub flush_ms: u64,
    /// What is lain in wait for.
    pub ambushes: Vec<Ambush>,
    /// How many occasions of a million are taken.
    pub ambush: u64,
    /// How many milliseconds of a million see a client write.
    pub writes: u64,
    /// How many of these writes of a million ask for acks=1 only.
    pub acks_one: u64,
    /// How many idempotent producers there are.
    pub producers: u64,
}

/// A topic of a run.
#[derive(Debug, Clone)]
pub struct TopicPlan {
    /// Its name.
    pub name: &'static str,
    /// Whether every append is flushed before it counts.
    pub flushed: bool,
    /// Its partitions.
    pub partitions: i32,
    /// The copies of each.
    pub replicas: i16,
    /// `min.insync.replicas`.
    pub min_in_sync: u64,
}

/// Something that goes wrong, or that an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A daemon is killed, or its machine loses power.
    Crash,
    /// All but one.
    CrashMost,
    /// All.
    CrashAll,
    /// A daemon is cut off, from one or all others, in one or both directions.
    Cut,
    /// Datagrams get lost and repeated.
    BadPaths,
    /// Datagrams from and to a daemon take long.
    SlowPaths,
    /// A host stands still.
    Stall,
    /// Flushes take long on a daemon.
    SlowDisk,
    /// A wall clock jumps.
    Jump,
    /// A daemon is stopped in order.
    HandOver,
    /// Another replica is made the leader, by choice.
    MoveLeader,
    /// A partition's replicas are moved to other daemons.
    MoveReplicas,
    /// A follower is cut off until it is no longer in sync, and comes back over a bad path.
    Return,
    /// The leader changes to a follower that lacks the leader's tail, and back before the third one has heard of it.
    Swap,
    /// A leader whose disk is slow loses power and is back at once.
    LeaderForgets,
    /// A leader is cut off from some, and goes on to be written to, while others elect.
    Depose,
    /// A follower is away until it is out of sync; the others lose what they knew of the watermark; when it is a member
    /// again, it loses power, and its leader goes.
    JoinsEarly,
    /// A follower that is about to join loses power while its leader's word of it is under way, and joins nevertheless.
    JoinsLate,
    /// A leader goes down; when it is about to be replaced, a follower loses power and is back.
    TwoDown,
    /// A follower that is fenced, but has everything, loses power and registers anew, of which its leader hears nothing from
    /// itself.
    Unheard,
    /// A leader whose tail reaches nobody is replaced and cut, and leads again.
    Repeat,
}

/// A moment in which a fault does most harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambush {
    /// A leader epoch begins.
    Reign,
    /// A copy joins the in-sync set.
    Joined,
    /// A copy has left it.
    Left,
    /// A copy that is not in sync is about to be.
    Near,
}

const FAULTS: &[Fault] = &[
    Fault::Crash,
    Fault::CrashMost,
    Fault::CrashAll,
    Fault::Cut,
    Fault::BadPaths,
    Fault::SlowPaths,
    Fault::Stall,
    Fault::SlowDisk,
    Fault::Jump,
    Fault::HandOver,
    Fault::MoveLeader,
    Fault::MoveReplicas,
    Fault::Return,
    Fault::Swap,
    Fault::LeaderForgets,
    Fault::Depose,
    Fault::JoinsEarly,
    Fault::JoinsLate,
    Fault::TwoDown,
    Fault::Unheard,
    Fault::Repeat,
];

impl Weather {
    /// That of `seed`.
    pub fn new(seed: u64) -> Self {
        let dice = Dice::new(seed, "weather");
        let one_of = |all: &[u64]| dice.pick(all).copied().unwrap_or_default();
        let daemons = one_of(&[3, 3, 3, 3, 3, 4, 5]) as i32;
        let topics = [("flushed", true), ("written", false)].map(|(name, flushed)| {
            let replicas = if dice.chance(800_000) { 3 } else { 2 };
            TopicPlan {
                name,
                flushed,
                partitions: dice.range(1, 4) as i32,
                replicas,
                min_in_sync: if dice.chance(700_000) { 2 } else { 1 },
            }
        });
        let mut faults = Vec::new();
        for &fault in FAULTS {
            if dice.chance(400_000) {
                faults.extend(std::iter::repeat_n(fault, dice.range(1, 6) as usize));
            }
        }
        if faults.is_empty() {
            faults.push(Fault::Crash);
        }
        let all = [Ambush::Reign, Ambush::Joined, Ambush::Left, Ambush::Near];
        Self {
            daemons,
            topics: topics.to_vec(),
            faults,
            power: one_of(&[0, 200_000, 700_000, 1_000_000]),
            quick: one_of(&[100_000, 500_000, 900_000]),
            bursts: one_of(&[0, 400_000, 700_000]),
            burst_ms: one_of(&[30, 300, 1_200]),
            pause_ms: one_of(&[1_500, 4_000, 8_000]),
            flush_ms: one_of(&[0, 3, 3, 40, 300]),
            ambushes: all.into_iter().filter(|_| dice.chance(500_000)).collect(),
            ambush: one_of(&[0, 100_000, 300_000, 800_000]),
            writes: one_of(&[20_000, 60_000, 200_000]),
            acks_one: one_of(&[0, 150_000, 500_000]),
            producers: one_of(&[0, 2, 6]),
        }
    }
}
