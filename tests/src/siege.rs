//! A cluster of three daemons under load that are killed again and again, and the history of all that its clients saw.
//!
//! ```text
//! Siege::start ── cluster, writers (load.rs), onlookers (watch.rs)
//! strike ×N    ── SIGKILL as the seed says, restart, writes go on
//! end          ── every partition read from its beginning; the history for its checker (history.rs)
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use tradewind_wire::compression::Codec;

use crate::history::History;
use crate::load::{self, Load, Plan};
use crate::tear;
use crate::watch::{Notes, Watch};
use crate::{Cluster, ClusterSpec, Kafka, wait};

const TOPIC: &str = "ledger";
const DAEMONS: usize = 3;

/// Whom a strike kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The leader of some partition.
    Leader,
    /// A follower of some partition.
    Follower,
    /// The controller.
    Controller,
    /// All at once.
    All,
    /// All at once, and what no client was told of may be gone from their disks ([`tear`]).
    Power,
}

/// What is besieged.
#[derive(Debug, Clone)]
pub struct SiegeSpec {
    /// Everything that is drawn comes from this.
    pub seed: u64,
    /// Partitions of the topic.
    pub partitions: i32,
    /// How batches are compressed.
    pub codec: Codec,
    /// How long a writer rests after each batch.
    pub rest: Duration,
    /// How many bytes a segment holds.
    pub segment_bytes: u64,
}

impl Default for SiegeSpec {
    fn default() -> Self {
        Self {
            seed: 1,
            partitions: 6,
            codec: Codec::Lz4,
            rest: Duration::ZERO,
            segment_bytes: 1 << 30,
        }
    }
}

/// One strike.
#[derive(Debug, Clone, Copy)]
pub struct Strike {
    /// Whom it was meant for.
    pub target: Target,
    /// How many processes were killed, those included that were killed once more on their way up.
    pub kills: u64,
    /// Whether the controller was among them.
    pub controller: bool,
    /// Bytes at the ends of logs that a power cut could spoil.
    pub torn_bytes: u64,
    /// The longest time that a partition took no `acks=all` write; known for a leader that was killed while all was well.
    pub without_writes: Option<Duration>,
    at: Instant,
}

/// What a siege came to.
#[derive(Debug)]
pub struct Siege {
    cluster: Cluster,
    spec: SiegeSpec,
    kafka: Kafka,
    topic_id: String,
    notes: Arc<Notes>,
    load: Load,
    watch: Watch,
    rng: StdRng,
    strikes: Vec<Strike>,
}

impl Siege {
    /// Starts the cluster in `folder`, and the clients.
    pub fn start(folder: &Path, spec: SiegeSpec) -> Result<Self> {
        let cluster = Cluster::start(folder, &ClusterSpec::new("east", i32::try_from(DAEMONS)?))?;
        let mut kafka = cluster.kafka();
        let segment_bytes = spec.segment_bytes.to_string();
        let configs = [
            ("min.insync.replicas", "2"),
            ("flush.messages", "1"),
            ("segment.bytes", &segment_bytes),
        ];
        kafka.create_topic(TOPIC, spec.partitions, &configs)?;
        let metadata = kafka.metadata(TOPIC)?;
        let topic = metadata.topics.first().context("the topic")?;
        let notes = Notes::new(spec.partitions);
        let plan = Plan {
            partitions: spec.partitions,
            codec: spec.codec,
            rest: spec.rest,
            once: true,
        };
        let siege = Self {
            topic_id: topic.topic_id.to_string(),
            load: Load::with(|| cluster.kafka(), TOPIC, &plan, &notes),
            watch: Watch::start(|| cluster.kafka(), TOPIC, spec.partitions, &notes),
            rng: StdRng::seed_from_u64(spec.seed),
            strikes: Vec::new(),
            cluster,
            kafka,
            notes,
            spec,
        };
        siege.moving()?;
        Ok(siege)
    }

    /// Waits until every partition has a leader and all daemons in its in-sync set.
    fn whole(&mut self) -> Result<()> {
        let kafka = &mut self.kafka;
        wait::until_true("all replicas are in sync", 60, || {
            let partitions = kafka.partitions(TOPIC)?;
            let told = || partitions.iter().map(|p| (p.leader_id, &p.isr_nodes));
            ensure!(
                told().all(|(leader, in_sync)| leader >= 0 && in_sync.len() == DAEMONS),
                "{:?}",
                told().collect::<Vec<_>>()
            );
            Ok(true)
        })
    }

    /// Waits until the load has moved on by some batches for every partition.
    fn moving(&self) -> Result<()> {
        let before = self.load.batches();
        wait::until_true("writes go on", 60, || {
            ensure!(!self.load.has_failed(), "a writer gave up");
            Ok(self.load.batches() >= before + 10 * u64::from(self.spec.partitions.unsigned_abs()))
        })
    }

    /// The controller, as any daemon that runs tells it.
    fn controller(&mut self) -> Result<i32> {
        wait::until("there is a controller", 30, || {
            let status = self.cluster.ask(&["status"])?;
            Ok(status["controller"]
                .as_i64()
                .and_then(|id| i32::try_from(id).ok()))
        })
    }

    /// The daemons that a strike is for.
    fn victims(&mut self, target: Target, controller: i32) -> Result<Vec<i32>> {
        let number = self.rng.random_range(0..usize::try_from(self.spec.partitions)?);
        let leader = wait::until("the partition has a leader", 60, || {
            let partitions = self.kafka.partitions(TOPIC)?;
            let leader = partitions.get(number).context("the partition")?.leader_id;
            Ok(Some(leader).filter(|leader| *leader >= 0))
        })?;
        let all = || self.cluster.daemons.iter().map(|daemon| daemon.id);
        Ok(match target {
            Target::Leader => vec![leader],
            Target::Follower => {
                let others: Vec<i32> = all().filter(|id| *id != leader).collect();
                others.choose(&mut self.rng).copied().into_iter().collect()
            }
            Target::Controller => vec![controller],
            Target::All | Target::Power => all().collect(),
        })
    }

    /// Kills whom the seed says, when it says; returns how many processes that were.
    pub fn strike_any(&mut self) -> Result<u64> {
        let target = match self.rng.random_range(0..10) {
            0..=3 => Target::Leader,
            4..=5 => Target::Follower,
            6 => Target::Controller,
            7 => Target::All,
            _ => Target::Power,
        };
        let calm = self.rng.random_bool(0.5);
        self.strike(target, calm)
    }

    /// Kills `target`, starts what was killed, and waits until writes go on. A calm strike waits until all is well before,
    /// and until writes go on without the daemon; any other comes at a moment of its own, and may kill a daemon once more
    /// that is on its way up.
    pub fn strike(&mut self, target: Target, calm: bool) -> Result<u64> {
        if calm {
            self.whole()?;
        }
        let controller = self.controller()?;
        let victims = self.victims(target, controller)?;
        if !calm {
            wait::moment(&mut self.rng, 400);
        }
        let mut strike = Strike {
            target,
            kills: victims.len() as u64,
            controller: victims.contains(&controller),
            torn_bytes: 0,
            without_writes: None,
            at: Instant::now(),
        };
        for id in &victims {
            self.cluster.daemon(*id)?.kill();
        }
        if target == Target::Power {
            strike.torn_bytes = self.cut_power()?;
        } else if calm && victims.len() == 1 {
            self.moving()?;
        }
        if !calm {
            strike.kills += self.stumble(&victims)?;
        }
        self.cluster.start_all()?;
        self.moving()?;
        if calm && matches!(target, Target::Leader | Target::Controller) {
            strike.without_writes = Some(Duration::ZERO);
        }
        self.strikes.push(strike);
        Ok(strike.kills)
    }

    /// Starts the dead, and kills one of them again before it is up.
    fn stumble(&mut self, dead: &[i32]) -> Result<u64> {
        wait::moment(&mut self.rng, 300);
        if self.rng.random_bool(0.6) {
            return Ok(0);
        }
        for id in dead {
            self.cluster.daemon(*id)?.start()?;
        }
        wait::moment(&mut self.rng, 600);
        let again = dead.choose(&mut self.rng).context("someone was killed")?;
        self.cluster.daemon(*again)?.kill();
        Ok(1)
    }

    fn cut_power(&mut self) -> Result<u64> {
        self.notes.settled()?;
        let known = self.notes.known();
        let mut torn = 0;
        for daemon in &self.cluster.daemons {
            torn += tear::tear(&daemon.folder.join("data"), &self.topic_id, &known, &mut self.rng)?;
        }
        Ok(torn)
    }

    /// Ends the clients, reads every partition, and returns the history and the strikes.
    pub fn end(mut self) -> Result<(History, Vec<Strike>)> {
        self.whole()?;
        let (written, once) = self.load.stop_all()?;
        let mut history = self.watch.stop()?;
        // What happened between one strike and the next is the first one's doing.
        let ends: Vec<Instant> = self.strikes.iter().skip(1).map(|strike| strike.at).collect();
        for (strike, end) in self
            .strikes
            .iter_mut()
            .zip(ends.into_iter().chain([Instant::now()]))
        {
            let gaps = written
                .iter()
                .filter_map(|w| load::longest_gap(w, strike.at, end));
            strike.without_writes = strike.without_writes.and_then(|_| gaps.max());
        }
        history.writes = written.into_iter().flat_map(|w| w.writes).chain(once).collect();
        for partition in 0..self.spec.partitions {
            let log = load::read_log(&mut self.kafka, TOPIC, partition)?;
            history.logs.insert(partition, log);
        }
        Ok((history, self.strikes))
    }
}

/// The middle and the longest of some times, if there are any.
pub fn middle_and_longest(mut times: Vec<Duration>) -> Option<(Duration, Duration)> {
    times.sort_unstable();
    Some((*times.get(times.len() / 2)?, *times.last()?))
}
