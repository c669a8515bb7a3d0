//! How long a partition takes no `acks=all` write after its leader's SIGKILL: `bench kill`.
//!
//! ```text
//! cargo run --release -p tradewind-tests --bin bench -- kill [--kills N] [--rounds N] [--json FILE]
//! ```
//!
//! Three daemons of ours and three brokers of Apache Kafka take turns, each with its defaults but for a topic of 6
//! partitions and 3 replicas, `min.insync.replicas=2` and `flush.messages=1`. One idempotent writer per partition rests 2 ms
//! after each batch. Each time all copies are in sync, a daemon is killed that leads some partition, every second time the
//! controller; writes go on without it, then it is started again. What counts is the longest time without an
//! acknowledgement over all partitions.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use tradewind_tests::load::{self, Load, Plan};
use tradewind_tests::options::Options as Said;
use tradewind_tests::siege::middle_and_longest;
use tradewind_tests::watch::Notes;
use tradewind_tests::{Kafka, wait};
use tradewind_wire::compression::Codec;
use tradewind_wire::messages::DescribeQuorumRequest;
use tradewind_wire::messages::describe_quorum::asked;

use crate::systems::{self, SYSTEMS, System};
use crate::{median, write};

const TOPIC: &str = "killed";
const PARTITIONS: i32 = 6;
const DAEMONS: u32 = 3;
/// How long a writer rests after each batch.
const REST: Duration = Duration::from_millis(2);

struct Options {
    kills: usize,
    rounds: usize,
    json: Option<PathBuf>,
}

/// Who was killed, as the figures name it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// A leader of partitions that is not the controller.
    Leader,
    Controller,
}

impl Victim {
    fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Controller => "controller",
        }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> Result<()> {
    let options = options(arguments)?;
    let folder = tempfile::tempdir()?;
    let mut rounds: Vec<Value> = Vec::new();
    for round in 0..options.rounds {
        for name in SYSTEMS {
            let place = folder.path().join(format!("{name}-{round}"));
            let mut system = systems::start(name, &place, "", DAEMONS)?;
            rounds.push(measure(system.as_mut(), name, round, options.kills)?);
            drop(system);
            remove(&place);
        }
    }
    let figures = json!({ "ratio": ratios(&rounds), "rounds": rounds });
    write(options.json.as_deref(), &figures)
}

fn remove(place: &Path) {
    if let Err(error) = std::fs::remove_dir_all(place) {
        eprintln!("cannot remove {}: {error}", place.display());
    }
}

fn options(arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut said = Said::read(arguments)?;
    let options = Options {
        kills: said.take("--kills")?.unwrap_or(20),
        rounds: said.take("--rounds")?.unwrap_or(1),
        json: said.take("--json")?,
    };
    said.end("see the head of tests/src/bin/bench/kill.rs")?;
    Ok(options)
}

/// Kills daemons of one system and returns its figures.
fn measure(system: &mut dyn System, name: &str, round: usize, kills: usize) -> Result<Value> {
    let brokers = system.brokers()?;
    let mut kafka = Kafka::new(brokers.clone());
    wait::until_true("the topic is there", 60, || {
        let configs = [("min.insync.replicas", "2"), ("flush.messages", "1")];
        let _ = kafka.create_topic_with(TOPIC, PARTITIONS, DAEMONS as i16, &configs);
        Ok(kafka
            .partitions(TOPIC)
            .is_ok_and(|all| all.len() == PARTITIONS as usize))
    })?;
    let plan = Plan {
        partitions: PARTITIONS,
        codec: Codec::None,
        rest: REST,
        once: false,
    };
    let load = Load::with(
        || Kafka::new(brokers.clone()),
        TOPIC,
        &plan,
        &Notes::new(PARTITIONS),
    );
    let mut strikes = Vec::new();
    for number in 0..kills {
        whole(&mut kafka)?;
        moving(&load)?;
        let controller = controller(&mut kafka)?;
        let leaders = leaders(&mut kafka)?;
        let victim = if number % 2 == 0 {
            let other = |id: &&i32| **id != controller;
            leaders.iter().find(other).map(|id| (Victim::Leader, *id))
        } else {
            Some((Victim::Controller, controller)).filter(|(_, id)| leaders.contains(id))
        };
        // All partitions may have moved to one daemon.
        let Some((victim, id)) = victim else { continue };
        strikes.push((victim, Instant::now()));
        system.kill(id)?;
        wait::until_true("others lead", 120, || {
            let leaders = self::leaders(&mut kafka)?;
            Ok(leaders.iter().all(|leader| *leader >= 0 && *leader != id))
        })?;
        moving(&load)?;
        system.start_again(id)?;
    }
    whole(&mut kafka)?;
    moving(&load)?;
    let written = load.stop()?;
    let mut told = json!({ "system": name, "round": round });
    for victim in [Victim::Leader, Victim::Controller] {
        let ends = strikes.iter().skip(1).map(|(_, at)| *at).chain([Instant::now()]);
        let gaps: Vec<Duration> = strikes
            .iter()
            .zip(ends)
            .filter(|((who, _), _)| *who == victim)
            .filter_map(|((_, from), to)| {
                let gaps = written.iter().filter_map(|w| load::longest_gap(w, *from, to));
                gaps.max()
            })
            .collect();
        let count = gaps.len();
        let (middle, longest) = middle_and_longest(gaps).context("nobody was killed")?;
        println!(
            "round {round}, {name}: {} killed {count} times: time without writes p50 {middle:.2?}, max {longest:.2?}",
            victim.name()
        );
        told[victim.name()] =
            json!({ "kills": count, "p50_s": middle.as_secs_f64(), "max_s": longest.as_secs_f64() });
    }
    Ok(told)
}

/// Waits until every partition has a leader and all daemons in its in-sync set.
fn whole(kafka: &mut Kafka) -> Result<()> {
    wait::until_true("all replicas are in sync", 120, || {
        let partitions = kafka.partitions(TOPIC)?;
        let in_sync = |count: usize| count == DAEMONS as usize;
        Ok(partitions
            .iter()
            .all(|p| p.leader_id >= 0 && in_sync(p.isr_nodes.len())))
    })
}

/// Waits until every writer has moved on, more or less.
fn moving(load: &Load) -> Result<()> {
    let before = load.batches();
    wait::until_true("writes go on", 120, || {
        ensure!(!load.has_failed(), "a writer gave up");
        Ok(load.batches() >= before + 100 * PARTITIONS as u64)
    })
}

fn leaders(kafka: &mut Kafka) -> Result<Vec<i32>> {
    Ok(kafka.partitions(TOPIC)?.iter().map(|p| p.leader_id).collect())
}

/// The leader of the metadata log.
pub(crate) fn controller(kafka: &mut Kafka) -> Result<i32> {
    let request = DescribeQuorumRequest {
        topics: vec![asked::TopicData {
            topic_name: "__cluster_metadata".into(),
            partitions: vec![asked::PartitionData::default()],
        }],
    };
    wait::until("there is a controller", 60, || {
        let answer = kafka.any(&request, 1)?;
        let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
        Ok(partition.map(|p| p.leader_id).filter(|id| *id > 0))
    })
}

/// Medians over the rounds, ours by theirs.
fn ratios(rounds: &[Value]) -> Value {
    println!("ratios, ours / Apache Kafka's, medians of the rounds");
    let mut table = Map::new();
    for victim in [Victim::Leader, Victim::Controller] {
        for key in ["p50_s", "max_s"] {
            let of = |system: &str| {
                let rounds = rounds.iter().filter(|round| round["system"] == system);
                median(rounds.filter_map(|round| round[victim.name()][key].as_f64()))
            };
            let (ours, theirs) = (of("tradewind"), of("apache"));
            println!(
                "  {:.2}  {:10} {key} {ours:.2} s / {theirs:.2} s",
                ours / theirs,
                victim.name()
            );
            table.insert(format!("{}.{key}", victim.name()), json!(ours / theirs));
        }
    }
    table.into()
}
