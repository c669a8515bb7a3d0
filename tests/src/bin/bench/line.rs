//! What a long line costs a flow: one partition copied near and far, over a clean line and a lossy one, and the time from
//! the end of a cut to the next record. One daemon each; between them a relay of this process.
//!
//! ```text
//! bench line [--megabytes N] [--rounds N] [--kafka true] [--before PATH]
//! ```
//!
//! `--kafka true` has the west read the east as it would any Kafka: Fetch over TCP. `--before` names another build of
//! `tradewind`, which takes turns with this one. Only the ratios of one run say anything elsewhere.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use tradewind_tests::options::Options as Said;
use tradewind_tests::relay::{Line, Relay};
use tradewind_tests::{Kafka, Mesh, Naming, wait};
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;

/// Bytes of one record, which is one batch.
const RECORD: usize = 500_000;
const CUT: Duration = Duration::from_secs(5);

struct Options {
    megabytes: usize,
    rounds: usize,
    kafka: bool,
    before: Option<PathBuf>,
}

/// Name, round-trip time in ms, share of datagrams lost, bytes per second.
const LINES: &[(&str, u64, f64, Option<u64>)] = &[
    ("0 ms", 0, 0.0, None),
    ("100 ms", 100, 0.0, None),
    ("100 ms, 0.1 % lost", 100, 0.001, None),
    ("100 ms, 1 % lost", 100, 0.01, None),
    ("100 ms, 20 MB/s", 100, 0.0, Some(20_000_000)),
];

pub(crate) fn run(arguments: impl Iterator<Item = String>) -> Result<()> {
    let mut said = Said::read(arguments)?;
    let options = Options {
        megabytes: said.take("--megabytes")?.unwrap_or(128),
        rounds: said.take("--rounds")?.unwrap_or(1),
        kafka: said.take("--kafka")?.unwrap_or(false),
        before: said.take("--before")?,
    };
    said.end("see the head of tests/src/bin/bench/line.rs")?;
    for round in 0..options.rounds {
        for before in [true, false] {
            if before && options.before.is_none() {
                continue;
            }
            let folder = tempfile::tempdir()?;
            let build = options.before.clone().filter(|_| before);
            println!("round {round}, {}", if before { "before" } else { "this build" });
            measure(&options, folder.path(), build)?;
        }
    }
    Ok(())
}

fn measure(options: &Options, folder: &Path, build: Option<PathBuf>) -> Result<()> {
    let near = Line::of_rtt(Duration::ZERO);
    let (mut mesh, relay) = Mesh::prepare_apart(folder, Naming::Prefix, near, 5, options.kafka)?;
    for daemon in mesh.east.daemons.iter_mut().chain(&mut mesh.west.daemons) {
        daemon.program.clone_from(&build);
    }
    mesh.east.start_all()?;
    mesh.west.start_all()?;
    let mut nearby = None;
    for (number, (name, rtt_ms, loss, bytes_per_second)) in LINES.iter().enumerate() {
        if options.kafka && *loss > 0.0 {
            // A loss of TCP's is a pause of the relay's, which is not what a kernel makes of it.
            continue;
        }
        let line = Line {
            loss: *loss,
            bytes_per_second: *bytes_per_second,
            ..Line::of_rtt(Duration::from_millis(*rtt_ms))
        };
        let rate = copy(&mut mesh, &relay, &format!("t{number}"), line, options.megabytes)?;
        let nearby = *nearby.get_or_insert(rate);
        println!("  {name:20} {rate:7.1} MB/s  {:5.2} of 0 ms", rate / nearby);
    }
    let far = Line::of_rtt(Duration::from_millis(100));
    let recovered = cut(&mut mesh, &relay, far)?;
    println!("  first record after a cut of {CUT:?} at 100 ms: {recovered:.2?}");
    Ok(())
}

/// MB/s from the moment at which the first batch is in the west.
fn copy(mesh: &mut Mesh, relay: &Relay, topic: &str, line: Line, megabytes: usize) -> Result<f64> {
    let (mut east, mut west) = (mesh.east.kafka(), mesh.west.kafka());
    relay.set(Line::of_rtt(Duration::ZERO));
    let mirrored = begin(mesh, &mut east, &mut west, topic)?;
    mesh.west.kill_all();
    let batches = i64::try_from(megabytes * 1_000_000 / RECORD)?;
    let batch = batch()?;
    for _ in 0..batches {
        append(&mut east, topic, &batch)?;
    }
    relay.set(line);
    mesh.west.start_all()?;
    wait::until_true("the first batch is here", 120, || Ok(west.end(&mirrored, 0)? > 0))?;
    let (first, began) = (west.end(&mirrored, 0)?, Instant::now());
    wait::until_true(
        "all of it is here",
        900,
        || Ok(west.end(&mirrored, 0)? == batches),
    )?;
    let bytes = (batches - first) as f64 * RECORD as f64;
    Ok(bytes / 1e6 / began.elapsed().as_secs_f64().max(0.001))
}

/// How long after a cut the first record that was written during it arrives.
fn cut(mesh: &mut Mesh, relay: &Relay, line: Line) -> Result<Duration> {
    let (mut east, mut west) = (mesh.east.kafka(), mesh.west.kafka());
    relay.set(line);
    let mirrored = begin(mesh, &mut east, &mut west, "cut")?;
    append(&mut east, "cut", &batch()?)?;
    wait::until_true("it is here", 60, || Ok(west.end(&mirrored, 0)? == 1))?;
    relay.cut();
    append(&mut east, "cut", &batch()?)?;
    wait::span(CUT);
    relay.heal();
    let healed = Instant::now();
    wait::until_true("it goes on", 60, || Ok(west.end(&mirrored, 0)? == 2))?;
    Ok(healed.elapsed())
}

/// Makes a topic and waits for its mirror.
fn begin(mesh: &Mesh, east: &mut Kafka, west: &mut Kafka, topic: &str) -> Result<String> {
    wait::until("the topic is made", 60, || {
        east.create_topic(topic, 1, &[]).map(Some)
    })?;
    let mirrored = mesh.naming.mirrored(topic);
    wait::until("the mirror topic is there", 60, || {
        west.end(&mirrored, 0).map(Some)
    })?;
    Ok(mirrored)
}

fn append(east: &mut Kafka, topic: &str, batch: &bytes::Bytes) -> Result<()> {
    wait::until("a batch is written", 60, || {
        east.append(topic, 0, batch.clone()).map(Some)
    })?;
    Ok(())
}

fn batch() -> Result<bytes::Bytes> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    builder.append(i64::try_from(now.as_millis())?, None, Some(&vec![7; RECORD]), &[]);
    Ok(builder.build())
}
