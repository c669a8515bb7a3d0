//! Many partitions on three daemons: what they cost when nobody uses them, and what a lost daemon costs: `bench scale`.
//!
//! ```text
//! cargo run --release -p tradewind-tests --bin bench -- scale [--partitions N] [--idle SECONDS] [--systems NAME,NAME]
//!     [--json FILE]
//! ```
//!
//! 10 000 partitions with 3 replicas in topics of 1 000, unless told otherwise, on Tradewind and on Apache Kafka in turns.
//! Taken are: how long the topics take to be there, with a leader and all copies in sync for every partition; resident
//! memory before and after; processor time while nothing happens; after a SIGKILL of the controller, how long until every
//! partition has a living leader; after its start, how long until it answers, and until all copies are in sync again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};
use tradewind_tests::options::Options as Said;
use tradewind_tests::{Kafka, wait};

use crate::systems::{self, SYSTEMS};
use crate::write;

const DAEMONS: u32 = 3;
/// Partitions of one topic.
const EACH: i32 = 1_000;
/// How long anything may take.
const LIMIT_SECONDS: u64 = 600;
/// What is told of a system, and in which unit; all better when small.
const FIGURES: [(&str, &str); 7] = [
    ("create_s", "s"),
    ("empty_mib", "MiB"),
    ("full_mib", "MiB"),
    ("kib_per_copy", "KiB"),
    ("idle_cores", "cores"),
    ("leaders_s", "s"),
    ("back_s", "s"),
];

struct Options {
    partitions: i32,
    idle: Duration,
    systems: Vec<String>,
    json: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> Result<()> {
    let options = options(arguments)?;
    let folder = tempfile::tempdir()?;
    let mut told = Map::new();
    for name in &options.systems {
        let figures = measure(&options, name, &folder.path().join(name))?;
        println!(
            "{name}, {} partitions with {DAEMONS} replicas:",
            options.partitions
        );
        for (key, unit) in FIGURES {
            println!(
                "  {key:14} {:10.3} {unit}",
                figures[key].as_f64().unwrap_or(f64::NAN)
            );
        }
        told.insert(name.clone(), figures);
    }
    if let (Some(ours), Some(theirs)) = (told.get("tradewind"), told.get("apache")) {
        println!("ratios, ours / Apache Kafka's");
        for (key, _) in FIGURES {
            let ratio = ours[key].as_f64().zip(theirs[key].as_f64()).map(|(o, t)| o / t);
            println!("  {key:14} {:10.3}", ratio.unwrap_or(f64::NAN));
        }
    }
    write(options.json.as_deref(), &told)
}

fn options(arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut said = Said::read(arguments)?;
    let options = Options {
        partitions: said.take("--partitions")?.unwrap_or(10_000),
        idle: Duration::from_secs(said.take("--idle")?.unwrap_or(30)),
        systems: said
            .take_list("--systems")?
            .unwrap_or_else(|| SYSTEMS.map(str::to_owned).to_vec()),
        json: said.take("--json")?,
    };
    said.end("see the head of tests/src/bin/bench/scale.rs")?;
    let known = |name: &String| SYSTEMS.contains(&name.as_str());
    ensure!(
        options.systems.iter().all(known),
        "systems are tradewind and apache"
    );
    ensure!(
        options.partitions > 0 && options.partitions % EACH == 0,
        "--partitions is a multiple of {EACH}"
    );
    Ok(options)
}

fn measure(options: &Options, name: &str, place: &Path) -> Result<Value> {
    let mut system = systems::start(name, place, "", DAEMONS)?;
    let brokers = system.brokers()?;
    let mut kafka = Kafka::new(brokers);
    let topics: Vec<String> = (0..options.partitions / EACH)
        .map(|number| format!("scale-{number}"))
        .collect();
    let empty = system.idle_bytes()?;
    let began = Instant::now();
    for topic in &topics {
        wait::until_true("a topic is made", LIMIT_SECONDS, || {
            // One whose answer came too late is there at the next look.
            let _ = kafka.create_topic_with(topic, EACH, DAEMONS as i16, &[]);
            Ok(kafka
                .partitions(topic)
                .is_ok_and(|all| all.len() == EACH as usize))
        })?;
    }
    in_sync(&mut kafka, &topics)?;
    let created = began.elapsed();

    let (cpu, began) = (system.cpu_seconds()?, Instant::now());
    wait::span(options.idle);
    let idle = (system.cpu_seconds()? - cpu) / began.elapsed().as_secs_f64() / f64::from(DAEMONS);
    let full = system.idle_bytes()?;

    let victim = crate::kill::controller(&mut kafka)?;
    let began = Instant::now();
    system.kill(victim)?;
    everywhere(
        &mut kafka,
        &topics,
        "every partition has a living leader",
        |leader, _| leader >= 0 && leader != victim,
    )?;
    let leaders = began.elapsed();
    let began = Instant::now();
    system.start_again(victim)?;
    in_sync(&mut kafka, &topics)?;
    let back = began.elapsed();

    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let grown = full.saturating_sub(empty) as f64 / 1024.0;
    Ok(json!({
        "partitions": options.partitions,
        "create_s": created.as_secs_f64(),
        "empty_mib": mib(empty),
        "full_mib": mib(full),
        // Every daemon has a copy of every partition.
        "kib_per_copy": grown / f64::from(options.partitions),
        "idle_cores": idle,
        "leaders_s": leaders.as_secs_f64(),
        "back_s": back.as_secs_f64(),
    }))
}

fn in_sync(kafka: &mut Kafka, topics: &[String]) -> Result<()> {
    everywhere(kafka, topics, "all copies are in sync", |leader, in_sync| {
        leader >= 0 && in_sync == DAEMONS as usize
    })
}

/// Waits until leader and number of copies in sync of every partition are as wanted.
fn everywhere(
    kafka: &mut Kafka,
    topics: &[String],
    what: &str,
    wanted: impl Fn(i32, usize) -> bool,
) -> Result<()> {
    for topic in topics {
        wait::until_true(what, LIMIT_SECONDS, || {
            let partitions = kafka.partitions(topic)?;
            Ok(partitions.iter().all(|p| wanted(p.leader_id, p.isr_nodes.len())))
        })?;
    }
    Ok(())
}
